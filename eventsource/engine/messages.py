"""Only the messages of a stream, for programs that need nothing else.

Such programs get no `ErrorEvent`. So outages are logged as warnings, and a failure that
closes the stream for good is raised.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

from eventsource.protocol.events import MessageEvent
from eventsource.protocol.session import Item

from .async_iterator import AsyncItems, HasEngine
from .engine import Engine


class Messages:
    """The messages of an `EventStream`, for `for`, `list()` and `async for`.

    It has no state: a new iterator continues where the previous one stopped, and dropping one
    loses nothing. Threads: as with the stream, one thread at a time iterates.

    Args:
        stream: the stream.
    """

    def __init__(self, stream: HasEngine) -> None:
        self._stream = stream

    def __iter__(self) -> Iterator[MessageEvent]:
        stream = self._stream
        engine = stream._engine
        event_class = engine.event_class
        item: Item | None
        while True:
            for item in engine.rest():
                if item.__class__ is event_class:
                    yield item  # pyright: ignore[reportReturnType]
            item = None  # frees memory: the next read may come in days
            if not engine.advance(shows_errors=False):
                break
        _raise_failure(engine)

    def __aiter__(self) -> AsyncIterator[MessageEvent]:
        return _AsyncMessages(self._stream)


class _AsyncMessages(AsyncIterator[MessageEvent]):
    """The iterator of `async for`. Cancelling a step loses nothing."""

    def __init__(self, stream: HasEngine) -> None:
        self._stream = stream
        self._items = AsyncItems(stream)

    async def __anext__(self) -> MessageEvent:
        engine = self._stream._engine
        event_class = engine.event_class
        try:
            while True:
                taker = self._stream._taker
                if taker is None or taker.asked is None:  # as in `AsyncItems`
                    # `next_item()`, inlined: the call takes a tenth of the time of an event.
                    for item in engine.session.kept.rest:
                        if item.__class__ is event_class:
                            engine.last_event_id = item.last_event_id  # pyright: ignore[reportAttributeAccessIssue]
                            return item  # pyright: ignore[reportReturnType]
                    engine.next_item()  # no item is left: this releases the read
                if not await self._items.step(shows_errors=False):
                    break
            _raise_failure(engine)
            raise StopAsyncIteration
        finally:
            del self  # a cancelled task keeps this frame alive, which must not hold the stream


def _raise_failure(engine: Engine) -> None:
    """Raise what closed the stream for good, unless that is not a failure."""
    session = engine.session
    if session.error is not None and not session.has_ended_in_order:
        raise session.error
