"""The messages of a stream alone: for programs that want the events and nothing else.

They see no `ErrorEvent`. So outages are logged as warnings, and what closed the stream for good
is raised.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

from eventsource.protocol.events import MessageEvent

from .async_iterator import AsyncItems, HasEngine


class Messages:
    """The messages of an `EventStream`, for `for`, `list()` and `async for`.

    Holds nothing of its own: a new iterator continues where the one before it stopped, and
    dropping one loses nothing. Threads: as with the stream, one iterates.

    Args:
        stream: the stream.
    """

    def __init__(self, stream: HasEngine) -> None:
        self._stream = stream

    def __iter__(self) -> Iterator[MessageEvent]:
        stream = self._stream
        engine = stream._engine
        while True:
            for item in engine.rest():
                if isinstance(item, MessageEvent):
                    yield item
            if not engine.advance(shows_errors=False):
                break
        _raise_failure(stream)

    def __aiter__(self) -> AsyncIterator[MessageEvent]:
        return _AsyncMessages(self._stream)


class _AsyncMessages(AsyncIterator[MessageEvent]):
    """The iterator of `async for`. One step that is cancelled loses nothing."""

    def __init__(self, stream: HasEngine) -> None:
        self._stream = stream
        self._items = AsyncItems(stream)

    async def __anext__(self) -> MessageEvent:
        try:
            while True:
                item = await self._items.next_item(shows_errors=False)
                if isinstance(item, MessageEvent):
                    return item
        except StopAsyncIteration:
            _raise_failure(self._stream)
            raise


def _raise_failure(stream: HasEngine) -> None:
    """Raise what closed the stream for good, unless that is no failure."""
    session = stream._engine.session
    if session.error is not None and not session.has_ended_in_order:
        raise session.error
