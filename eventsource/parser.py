"""The event stream format: bytes in, events out.

Sans-I/O: no sockets, threads or clocks. The result is that of the algorithm in
the HTML standard, 9.2.5 and 9.2.6, and never depends on how the bytes were cut
into chunks. The standard decodes first and splits then; here the lines are split
as bytes and only what is kept is decoded. That is the same, because CR, LF, colon
and space are never part of a longer UTF-8 sequence and end a broken one.

Each byte is looked at a bounded number of times, whatever the chunks: an
unfinished line is kept in one growing buffer, and it is not searched again.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from typing import Final, cast

from .errors import EventTooLarge
from .events import Comment, MessageEvent

MAX_EVENT_SIZE: Final = 64 * 2**20
"""Default of `max_event_size` in bytes: large enough for payloads that are known
to occur (whole configurations, base64 images), small enough to hold in memory."""

_BOM: Final = b"\xef\xbb\xbf"


class EventStreamParser:
    """Parses one event stream, that is, the body of one response.

    Not thread-safe: one thread at a time may use it.

    Args:
        last_event_id: the last event ID at the start: a reconnected stream goes
            on from where the one before it was.
        origin: given to each event as its `origin`.
        max_event_size: the largest event, in bytes: what is kept of it, which are
            its `data`, `event` and `id` lines so far, and the line being read,
            whatever that is.

    Attributes:
        last_event_id: the last event ID. It moves when a block ends, also when
            that block is no event.
        reconnection_time: the last valid `retry` field, in seconds, as soon as
            its line has ended; None before. As the server said it: not bounded.
        error: the `EventTooLarge` that ended the parsing, or None.
    """

    def __init__(
        self,
        *,
        last_event_id: str = "",
        origin: str = "",
        max_event_size: int = MAX_EVENT_SIZE,
    ) -> None:
        self.last_event_id = last_event_id
        self.reconnection_time: float | None = None
        self.error: EventTooLarge | None = None
        self._origin = origin
        self._max_event_size = max_event_size
        # The buffers of the standard:
        self._data: list[bytes] = []
        self._event_type = b""
        self._last_event_id = last_event_id
        # Where the bytes stand:
        self._line = bytearray()  # a line whose end has not arrived
        self._size = 0  # bytes of the block's lines that count, unfinished line excluded
        self._after_cr = False  # a line feed that comes next belongs to the line before
        self._at_start = True  # a byte order mark may come

    def feed(self, chunk: bytes) -> list[MessageEvent]:
        """Take the next bytes of the stream; return the events they complete.

        An event is complete when the line end of its blank line is here, and a
        CR is one at once. Comments are skipped.

        Args:
            chunk: any number of bytes; `bytearray` and `memoryview` will do.

        Raises:
            TypeError: `chunk` is text.
            EventTooLarge: an event exceeds `max_event_size`. What came before it
                is not lost: events completed by the same chunk are returned, and
                the error is in `error` and raised by the next call.
        """
        return cast("list[MessageEvent]", self._feed(chunk, comments=False))

    def feed_with_comments(self, chunk: bytes) -> list[MessageEvent | Comment]:
        """Like `feed`, with a `Comment` for each comment line in its place."""
        return self._feed(chunk, comments=True)

    def _feed(self, chunk: bytes, *, comments: bool) -> list[MessageEvent | Comment]:
        if self.error is not None:
            raise self.error
        if type(chunk) is not bytes:
            chunk = bytes(memoryview(chunk))
        items: list[MessageEvent | Comment] = []
        for line in self._complete_lines(chunk):
            if self._size + len(line) > self._max_event_size:
                self._fail(self._size + len(line))
                break
            if not line:
                event = self._dispatch()
                if event is not None:
                    items.append(event)
                continue
            name, colon, value = line.partition(b":")
            if value.startswith(b" "):
                value = value[1:]
            if name:
                self._process_field(name, value, len(line))
            elif colon and comments:
                items.append(Comment(value.decode("utf-8", "replace")))
        else:
            unfinished = len(self._line)
            if self._at_start and _BOM.startswith(self._line):
                unfinished = 0  # it may yet become a byte order mark
            if self._size + unfinished > self._max_event_size:
                self._fail(self._size + unfinished)
        if self.error is not None and not items:
            raise self.error
        return items

    def _complete_lines(self, chunk: bytes) -> list[bytes]:
        """Return the lines that `chunk` ends; keep what follows the last of them."""
        if self._after_cr and chunk:
            self._after_cr = False
            if chunk.startswith(b"\n"):
                chunk = chunk[1:]
        if b"\r" in chunk:
            self._after_cr = chunk.endswith(b"\r")
            chunk = chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        lines = chunk.split(b"\n")
        rest = lines.pop()
        if lines:
            if self._line:
                self._line += lines[0]
                lines[0] = bytes(self._line)
                self._line.clear()
            if self._at_start:
                self._at_start = False
                lines[0] = lines[0].removeprefix(_BOM)
        self._line += rest
        if self._at_start and len(self._line) >= len(_BOM):
            self._at_start = False
            if self._line.startswith(_BOM):
                del self._line[: len(_BOM)]
        return lines

    def _process_field(self, name: bytes, value: bytes, size: int) -> None:
        """Process the field, as the standard says, of a line of `size` bytes."""
        if name == b"data":
            self._data.append(value)
            self._size += size
        elif name == b"event":
            self._event_type = value
            self._size += size
        elif name == b"id":
            if b"\0" not in value:
                self._last_event_id = value.decode("utf-8", "replace")
                self._size += size
        elif name == b"retry" and value.isdigit():  # of bytes: ASCII digits only
            self.reconnection_time = float(value) / 1000

    def _dispatch(self) -> MessageEvent | None:
        """Dispatch the event, as the standard says: end the block."""
        self.last_event_id = self._last_event_id
        data, event_type = self._data, self._event_type
        self._event_type = b""
        self._size = 0
        if not data:
            return None
        self._data = []
        return MessageEvent(
            event_type.decode("utf-8", "replace") if event_type else "message",
            b"\n".join(data).decode("utf-8", "replace"),
            self.last_event_id,
            self._origin,
        )

    def _fail(self, size: int) -> None:
        self.error = EventTooLarge(size, self._max_event_size)
        self._line.clear()
        self._data.clear()


def parse(
    chunks: Iterable[bytes],
    *,
    last_event_id: str = "",
    origin: str = "",
    max_event_size: int = MAX_EVENT_SIZE,
) -> Iterator[MessageEvent]:
    r"""Yield the events of a stream that any HTTP client reads.

    >>> [event.data for event in parse([b"data: hel", b"lo\n\n"])]
    ['hello']

    Args:
        chunks: the response body, decompressed, cut anywhere.
        last_event_id: see `EventStreamParser`.
        origin: likewise.
        max_event_size: likewise.

    Raises:
        EventTooLarge: an event exceeds `max_event_size` bytes; all before it have
            been yielded.
    """
    parser = EventStreamParser(
        last_event_id=last_event_id, origin=origin, max_event_size=max_event_size
    )
    for chunk in chunks:
        yield from parser.feed(chunk)
        if parser.error is not None:
            raise parser.error


async def aparse(
    chunks: AsyncIterable[bytes],
    *,
    last_event_id: str = "",
    origin: str = "",
    max_event_size: int = MAX_EVENT_SIZE,
) -> AsyncIterator[MessageEvent]:
    """`parse` for an asynchronous HTTP client.

    The arguments and errors are those of `parse`.
    """
    parser = EventStreamParser(
        last_event_id=last_event_id, origin=origin, max_event_size=max_event_size
    )
    async for chunk in chunks:
        for event in parser.feed(chunk):
            yield event
        if parser.error is not None:
            raise parser.error
