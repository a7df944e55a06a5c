"""`SSEClient`: an `EventStream` with the names of the `sseclient` package.

Everything that `sseclient` documents is the same: the constructor, its units, the message
objects, the attributes. Its faults are fixed: all line endings and any chunking work, large
events and comments are handled, events are delivered promptly, and nothing is printed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, Self

import requests

from .errors import UnexpectedStatus
from .http.keywords import check_keywords
from .http.redirects import withheld_from
from .protocol.events import ErrorEvent
from .protocol.parser import Block, BlockParser
from .protocol.policy import ReconnectPolicy, check_number
from .protocol.session import Item, Phase, check_last_event_id
from .runtime.fork import close_in_child
from .stream import EventStream

DEFAULT_RETRY: Final = 3000
"""Milliseconds, as in `sseclient`."""
# Arguments of `EventStream` that mean the same here are also accepted.
_KEYWORDS: Final = frozenset(
    {
        *("last_id", "retry", "session", "chunk_size"),
        *("event_timeout", "max_event_size", "trusted_origins"),
    }
)
_new: Final = object.__new__
_ERROR_STATUSES: Final = frozenset(range(400, 600))  # 16 KB, shared by all clients
NO_CONTENT: Final = 204
"""The status that tells a client to stop (HTML standard, 9.2.3)."""


class Event:
    """A message, with the attributes of `sseclient`'s `Event`.

    Attributes:
        data (str): its text.
        event (str): its type; `"message"` if the server gave none.
        id (str | None): this message's own id, or None if it has none.
        retry (int | None): this message's own `retry` field in milliseconds, or None.

    Raises:
        TypeError: `data` is not a str.
    """

    def __init__(
        self,
        data: str = "",
        event: str = "message",
        id: str | None = None,  # noqa: A002 - the name is sseclient's
        retry: int | None = None,
    ) -> None:
        if not isinstance(data, str):
            raise TypeError(f"data must be a str, not {data!r}")
        self.data = data
        self.event = event
        self.id = id
        self.retry = retry

    def dump(self) -> str:
        """Return the message as the text of an event stream."""
        lines = []
        if self.id:
            lines.append(f"id: {self.id}")
        if self.event != "message":
            lines.append(f"event: {self.event}")
        if self.retry:
            lines.append(f"retry: {self.retry}")
        lines += [f"data: {line}" for line in self.data.split("\n")]
        return "\n".join(lines) + "\n\n"

    @classmethod
    def parse(cls, raw: str) -> Event:
        """Parse the text of one block and return the message.

        Unlike a block in a stream, it need not end with a blank line and need not have data:
        then `data` is `""`.
        """
        parser = BlockParser()
        events = parser.feed(raw.rstrip("\r\n").encode())
        # With an added data line every block is an event; the line feed that joins the line to
        # the others is removed again.
        block = (events or parser.feed(b"\ndata:\n\n"))[0]
        assert isinstance(block, Block)
        data = block.data if events else block.data.removesuffix("\n")
        return cls(data, block.type, block.id, block.retry)

    def __str__(self) -> str:
        return self.data

    def __repr__(self) -> str:
        return (
            f"Event(data={self.data!r}, event={self.event!r}, id={self.id!r}, retry={self.retry!r})"
        )


class SSEClient:
    """Iterates over the messages of an event stream: a drop-in replacement for `sseclient`'s.

    The constructor connects, and the client reconnects by itself: it waits `retry` milliseconds
    after a connection is lost, and tries again while the server cannot be reached (with growing
    waits, up to 3 seconds or `retry`). The iteration ends only when the server answers 204, or
    by `close()`.

    Threads: as with `EventStream`, one thread at a time iterates, and any thread may close.

    Args:
        url: an absolute URL.
        last_id: the ID to resume from, sent as `Last-Event-ID`.
        retry: milliseconds to wait before reconnecting; a server may change it.
        session: a `requests.Session` to use.
        chunk_size: accepted without effect: all that has arrived is read at once, and no read
            waits for more.
        **requests_kwargs: the arguments of `requests.get`. Any content type is accepted.

    Raises:
        TypeError, ValueError: an argument cannot be used; the message names it.
        requests.HTTPError: the server answered with an error status (400 to 599); the iteration
            also raises it, if a reconnect is answered in this way. The next call of `next()`
            then tries again, after `retry` milliseconds.
        requests.RequestException: the first connection cannot be made. The iteration raises one
            if trying again is useless, such as `EventTooLarge`, and then ends.

    Attributes:
        session (requests.Session | None): the argument.
        chunk_size (int): the argument.
        requests_kwargs (dict): the further arguments.

    Examples:
        >>> for message in SSEClient("https://example.com/stream"):  # doctest: +SKIP
        ...     print(message.data)
    """

    def __init__(
        self,
        url: str,
        last_id: str | None = None,
        retry: int = DEFAULT_RETRY,
        session: requests.Session | None = None,
        chunk_size: int = 1024,
        **requests_kwargs: Any,
    ) -> None:
        if not isinstance(chunk_size, int) or chunk_size < 1:
            raise ValueError(f"chunk_size must be an int of at least 1, not {chunk_size!r}")
        check_last_event_id("last_id", last_id or "")
        if "method" in requests_kwargs:
            raise TypeError("method: an SSEClient would send it at each reconnect; use EventStream")
        check_keywords("SSEClient", requests_kwargs, _KEYWORDS)
        self.session = session
        self.chunk_size = chunk_size
        self.requests_kwargs = requests_kwargs
        self._stream = _ClientStream(
            url,
            last_event_id=last_id or "",
            reconnect=policy_of(retry),
            session=session,
            **requests_kwargs,
        )
        self._batch = _Batch([], self._stream.last_event_id)
        self._rest: Iterator[Block] = self._batch.rest  # empty once the client is closed
        self._taken: list[Item] = []  # taken from the engine, and not yet in a batch
        self._place: str | None = None  # the last event ID before `_taken`; None: see `_batch`
        close_in_child(self, SSEClient._after_fork)
        engine = self._stream._engine  # noqa: SLF001 - a stream of our own
        engine.advance(shows_errors=False)
        for first in engine.take():
            if isinstance(first, ErrorEvent):
                self.close()
                if not _is_no_content(first.error):
                    raise first.error

    @property
    def url(self) -> str:
        """The URL as it was given."""
        return self._stream.url

    @property
    def last_id(self) -> str | None:
        """The id of the last message that had one, sent when reconnecting. May be set.

        Raises:
            TypeError, ValueError: the value is not a str, or it contains NUL, CR or LF.
        """
        batch, place = self._batch, self._place
        if place is None:
            place = batch.place()
        return (self._stream.last_event_id if place is None else place) or None

    @last_id.setter
    def last_id(self, value: str | None) -> None:
        check_last_event_id("last_id", value or "")
        self._stream.last_event_id = value or ""
        self._batch.move(value or "")

    @property
    def retry(self) -> int:
        """Milliseconds to wait before reconnecting. May be set.

        Raises:
            TypeError, ValueError: the value is not a number of at least 0.
        """
        return round(self._stream.reconnection_time * 1000)

    @retry.setter
    def retry(self, value: int) -> None:
        check_number("retry", value, 0)
        self._stream.reconnection_time = value / 1000

    @property
    def resp(self) -> requests.Response | None:
        """The response that is being read, or was read last."""
        return self._stream.response

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Event:
        # Without its constructor, which takes as long as everything else here. And before the
        # block is taken: after that there is no call, so no signal handler runs, whose exception
        # would lose the block.
        event = _new(Event)
        while True:
            for block in self._rest:
                event.event, event.data, _, _ = block
                event.id = block.id
                event.retry = block.retry
                return event
            if not self._read():
                raise StopIteration

    def _read(self) -> bool:
        """Get the next batch of messages; return False at the end."""
        engine = self._stream._engine  # noqa: SLF001 - a stream of our own
        while True:
            if not self._taken:  # else a signal handler's exception interrupted the last call
                if not engine.session.has_items() and not engine.advance(shows_errors=False):
                    return False
                self._place = engine.last_event_id  # `take()` changes it
                self._taken = engine.take()
                if not self._taken:  # closed meanwhile
                    return False
            item = self._taken[0]
            if type(item) is Block:
                break
            is_end, failure = _outcome(item)
            # As below: after an exception up to here the next call processes the item again.
            self._taken = []
            self._place = None
            if is_end:
                return False
            if failure is not None:
                raise failure
        batch = _Batch(self._taken, self._place or "")
        # No signal handler runs here, because there is no call: all four change, or none.
        self._batch = batch
        self._rest = batch.rest
        self._taken = []
        self._place = None
        if engine.session.phase is Phase.CLOSED:  # meanwhile
            self._rest = iter(())
        return True

    def close(self) -> None:
        """End the iteration and the connection. For any thread; never waits."""
        self._stream.close()
        self._rest = iter(())

    def _after_fork(self) -> None:
        """In the child of a fork: drop the rest, which the parent returns. The stream logs it."""
        self._rest = iter(())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Batch:
    """The messages of one read, and how many of them have been returned.

    Args:
        blocks: the messages, in order.
        place: the last event ID before them.

    Attributes:
        rest (Iterator[Block]): the messages that have not been returned.
    """

    def __init__(self, blocks: list[Any], place: str) -> None:
        self.rest: Iterator[Block] = iter(blocks)
        self._blocks = blocks
        self._before = place

    def place(self) -> str | None:
        """Return the last event ID of the message returned last; None: all have been returned."""
        missing: int = self.rest.__length_hint__()  # type: ignore[attr-defined]
        if not missing:
            return None
        if missing == len(self._blocks):
            return self._before
        return self._blocks[-missing - 1].last_event_id  # type: ignore[no-any-return]

    def move(self, place: str) -> None:
        """Set the last event ID until another message is returned."""
        missing: int = self.rest.__length_hint__()  # type: ignore[attr-defined]
        self._before = place
        self._blocks = self._blocks[len(self._blocks) - missing :]


class _ClientStream(EventStream):
    """A stream that accepts the same responses as `sseclient`."""

    parser_class = BlockParser
    shows_errors = False

    def refusal(self, response: requests.Response) -> Exception | None:
        if response.status_code >= 400 or response.status_code == NO_CONTENT:
            return UnexpectedStatus(response, withheld_from(response))
        return None


def policy_of(retry: float) -> ReconnectPolicy:
    """Return the policy of `sseclient`: the same wait each time; every error status may be
    tried again.
    """
    check_number("retry", retry, 0)
    return ReconnectPolicy(
        delay=retry / 1000,
        max_delay=DEFAULT_RETRY / 1000,  # for retry=0; a longer `delay` is kept
        statuses=_ERROR_STATUSES,
    )


def _outcome(item: Item) -> tuple[bool, Exception | None]:
    """Return whether an item other than a message is the end, and the exception to raise."""
    if not isinstance(item, ErrorEvent):
        return False, None
    if _is_no_content(item.error):
        return True, None
    is_raised = isinstance(item.error, requests.HTTPError) or item.retry_in is None
    return False, item.error if is_raised else None


def _is_no_content(error: Exception) -> bool:
    return isinstance(error, UnexpectedStatus) and error.status == NO_CONTENT
