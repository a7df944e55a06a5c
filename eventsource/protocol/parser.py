"""The event stream format: bytes in, events out.

Sans-I/O: no sockets, threads or clocks. The result is that of the algorithm in the HTML
standard, 9.2.5 and 9.2.6, and never depends on how the bytes were split into chunks.
The standard first decodes and then splits into lines. Here the bytes are split, and
only the lines that are kept are decoded. The result is the same, because CR, LF, colon
and space are never part of a longer UTF-8 sequence, and they end a broken one.

Each byte is examined a bounded number of times, however the bytes are split: an
unfinished line is kept in one growing buffer and is not searched again.

`_process_line` is the definition, for any line in any state. Each fast path takes only
bytes for which its result is certainly the same, and leaves the others:
`_process_usual_lines` takes lines in the form that most servers use, `_take_run` many
blocks in a chunk (see `runs`), `_take_block` one block, and `_continues_line` large
events. The times in their comments are for CPython 3.13.
"""

from __future__ import annotations

import codecs
import io
import re
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Sequence
from itertools import repeat
from typing import Any, Final, cast

from eventsource.errors import EventTooLarge

from .events import Comment, MessageEvent
from .policy import MAX_RECONNECTION_TIME
from .runs import LONG_BLOCK, NO_SHAPE, Shape, shape_of, split_into_lines, split_run

MAX_EVENT_SIZE: Final = 64 * 2**20
"""Default of `max_event_size` in bytes: large enough for known payloads (whole
configurations, base64 images), small enough for memory."""

MAX_LINES: Final = 1000
"""How many data lines of an unfinished event are kept separately: 50 KB in addition to
their bytes."""

MAX_ID_SIZE: Final = 4096
"""The longest last event ID that is sent, in bytes: servers limit a header field to 4
to 8 KiB."""

PIECE: Final = 8192
"""Bytes of a large event that are decoded at once. Python stores all characters of a str
in the width of the widest, so an emoji enlarges only its own piece, four times."""

_LINE_FEED: Final = ord("\n")
_CARRIAGE_RETURN: Final = ord("\r")
_COLON: Final = ord(":")
_NUL: Final = 0
_CONTROL: Final = re.compile("[\x00-\x08\x0a-\x1f\x7f]")
_BOM: Final = b"\xef\xbb\xbf"
_new: Final = tuple.__new__  # an event's own constructor is a function in Python
_USUAL_FIELDS: Final = (b"data: ", b"event: ", b"id: ")
RUN_SIZE: Final = 2**18
"""Bytes of a chunk that are processed at once: the intermediate objects take up to five
times as much memory."""


class EventStreamParser:
    r"""Parses one event stream: the body of one response.

    Not thread-safe: only one thread at a time may use it.

    Args:
        last_event_id: the last event ID at the start. A stream after a reconnect starts
            with that of the previous stream.
        resume_id: the value of `resume_id` while `last_event_id` cannot be sent.
        origin: the `origin` of each event.
        max_event_size: the size limit of an event, in bytes. It counts what is kept:
            its `data`, `event` and `id` lines so far, and the line that is being read,
            whatever it is.

    Attributes:
        event_class (type[MessageEvent]): the class of the events.
        last_event_id (str): the last event ID. It changes when a block ends, even if
            the block is not an event.
        reconnection_time (float | None): the last valid `retry` field, in seconds, as
            soon as its line has ended; None before. It is the server's value, not
            bounded.
        error (EventTooLarge | None): the error that ended the parsing, or None.
        unfinished_bytes (int): how many bytes have come since the last blank line. If
            the stream ends here, their block is discarded.
        unknown_lines (int): how many lines were neither a field nor a comment, such as
            those of a body that is not an event stream.

    Examples:
        >>> parser = EventStreamParser()
        >>> parser.feed(b"id: 7\ndata: hel")
        []
        >>> parser.feed(b"lo\n\n")[0].data
        'hello'
        >>> parser.last_event_id
        '7'
    """

    event_class: type[MessageEvent] = MessageEvent

    def __init__(
        self,
        *,
        last_event_id: str = "",
        resume_id: str = "",
        origin: str = "",
        max_event_size: int = MAX_EVENT_SIZE,
    ) -> None:
        self.last_event_id = last_event_id
        self.reconnection_time: float | None = None
        self.error: EventTooLarge | None = None
        self.unfinished_bytes = 0
        self.unknown_lines = 0
        self._resume_id = resume_id  # the one to send while `last_event_id` cannot be sent
        self._origin = origin
        self._max_event_size = max_event_size
        # The buffers of the standard:
        self._data: list[bytes | bytearray] = []
        self._event_type = b""
        self._last_event_id = last_event_id
        # The position in the stream:
        self._line = bytearray()  # a line whose end has not arrived
        self._size = 0  # bytes of the block's lines that count, unfinished line excluded
        self._after_cr = False  # a line feed that comes next belongs to the line before
        self._at_start = True  # a byte order mark may come
        # For the fast paths:
        self._is_between = False  # no `data`, `event`, `id` or partial line of a block has come
        self._block_limit = min(PIECE, max_event_size)
        self._held = b""  # an unfinished block that has not been processed: see `_can_hold`
        self._expect(NO_SHAPE)

    def feed(self, chunk: bytes) -> list[MessageEvent]:
        """Take the next bytes of the stream; return the events that they complete.

        An event is complete when the line end of its blank line has arrived; a CR is a
        line end at once. Comments are skipped.

        Args:
            chunk: any number of bytes; `bytearray` and `memoryview` are also accepted.

        Raises:
            TypeError: `chunk` is text.
            EventTooLarge: an event exceeds `max_event_size`. The events before it are
                not lost: those that the same chunk completes are returned, and the
                error is in `error` and is raised by the next call.
        """
        items = self._take_block(chunk, comments=False)
        return self._feed(chunk, comments=False) if items is None else items

    def feed_with_comments(self, chunk: bytes) -> list[MessageEvent | Comment]:
        """Like `feed`, but also return a `Comment` for each comment line, in order."""
        items = self._take_block(chunk, comments=True)
        return self._feed(chunk, comments=True) if items is None else items

    @property
    def resume_id(self) -> str:
        """The last event ID to send when reconnecting: the latest that a header can carry.

        It cannot carry control characters other than tab (RFC 9110, 5.5), and no more than
        4,096 bytes are sent.
        """
        if self._resume_id is self.last_event_id or can_be_sent(self.last_event_id):
            return self.last_event_id
        return self._resume_id

    @property
    def has_unfinished_event(self) -> bool:
        """Whether a block has begun that is more than comments and unknown lines."""
        self._release()
        return bool(self._size or (self._line and not self._line.startswith(b":")))

    def resume_from(self, last_event_id: str) -> None:
        """Set the last event ID from here on. A block that has set one already keeps that."""
        self._release()
        self._keep_resume_id()
        if self._last_event_id == self.last_event_id:
            self._last_event_id = last_event_id
        self.last_event_id = last_event_id

    def _feed(self, chunk: bytes, *, comments: bool) -> list[Any]:
        if self.error is not None:
            raise self.error
        if type(chunk) is not bytes:
            chunk = bytes(memoryview(chunk))
        if len(chunk) > RUN_SIZE:
            return self._feed_in_pieces(chunk, comments=comments)
        if self._line and not self._at_start and self._continues_line(chunk):
            return []
        self._is_between = False
        if self._held:
            if len(self._held) <= len(chunk):  # so each byte is copied a few times at most
                chunk = self._held + chunk
                self.unfinished_bytes -= len(self._held)
                self._held = b""
            else:
                self._release()
        if self._after_cr and chunk:
            self._after_cr = False
            if chunk.startswith(b"\n"):  # it belongs to the line before
                chunk = chunk[1:]
                self.unfinished_bytes += bool(self.unfinished_bytes)
        blank = b"\r\n\r\n" if _CARRIAGE_RETURN in chunk else b"\n\n"  # as most servers send
        items: list[Any] = []
        within_block = self._line or self._size or self._at_start
        has_line_end = _LINE_FEED in chunk
        if within_block and has_line_end:
            end = _find_blank(chunk, blank)
            end = len(chunk) if end < 0 else end + len(blank)
            self._process_lines(chunk[:end], items, comments=comments)
            chunk = chunk[end:]
            within_block = False  # if anything is left
            if self.error is not None:
                self._count_unfinished(chunk)
        if chunk and has_line_end and not within_block and self.error is None:
            taken = self._take_run(chunk, blank, items, comments=comments)
            if taken:
                chunk = chunk[taken:]
                self.unfinished_bytes = 0
            if self._can_hold(chunk):
                self._held, chunk = chunk, b""
                self.unfinished_bytes += len(self._held)
        if chunk and self.error is None:
            self._process_lines(chunk, items, comments=comments)
        if len(self._data) > MAX_LINES:
            value = self._take_data()
            self._data.append(value if isinstance(value, bytearray) else bytearray(value))
        if self.error is None:
            is_within = self._line or self._size or self._held or self._after_cr
            self._is_between = not (is_within or self._at_start)
        elif not items:
            raise self.error
        return items

    def _feed_in_pieces(self, chunk: bytes, *, comments: bool) -> list[Any]:
        items: list[Any] = []
        for start in range(0, len(chunk), RUN_SIZE):
            try:
                items += self._feed(chunk[start : start + RUN_SIZE], comments=comments)
            except EventTooLarge:
                if not items:
                    raise
            if self.error is not None:
                break
        return items

    def _continues_line(self, chunk: bytes) -> bool:
        """Add `chunk` to the unfinished line and return True; False if it has a line end.

        Most chunks of a large event have none. Without this they would be searched for blank
        lines, too, which takes 1.4 times as long.
        """
        if _LINE_FEED in chunk or _CARRIAGE_RETURN in chunk:
            return False
        self._line += chunk
        self.unfinished_bytes += len(chunk)
        size = self._size + len(self._line)
        if size > self._max_event_size:
            self._fail(size)
            raise cast("EventTooLarge", self.error)
        return True

    def _can_hold(self, chunk: bytes) -> bool:
        """Whether `chunk` can be held, unprocessed, until more of its block has come.

        A block that two chunks share is then part of the next run. Processed in two parts it
        takes as long as ten others, a sixth of the time for chunks of 16 KiB. The usual fields
        have no effect before their block ends, and whatever depends on them calls `_release`.
        """
        if not chunk or _CARRIAGE_RETURN in chunk or len(chunk) > min(PIECE, self._max_event_size):
            return False
        lines = chunk.split(b"\n")
        del lines[-1]  # the unfinished line
        return all(line.startswith(_USUAL_FIELDS) for line in lines)

    def _release(self) -> None:
        """Process what is held."""
        if self._held:
            held, self._held = self._held, b""
            self.unfinished_bytes -= len(held)
            self._process_lines(held, [], comments=False)

    def _take_block(self, chunk: bytes, *, comments: bool) -> list[Any] | None:
        """Return the items of `chunk` if it is exactly one usual block, else None.

        A read that had to wait mostly returns one. Without this, `id`, `event` and `data` take
        1.5 times as long, `data` alone 1.3 times.
        """
        if not self._is_between or type(chunk) is not bytes or len(chunk) > self._block_limit:
            return None
        head, middle, name, blank, start, stop = self._expected
        if not chunk.startswith(head):
            return self._take_other_block(chunk, comments=comments)
        if not name or not chunk.endswith(blank):
            return None
        value = chunk[start:stop]
        own = b""
        if middle:
            own, found, value = value.partition(middle)
            if not found or _LINE_FEED in own or _CARRIAGE_RETURN in own or _NUL in own:
                return None
        if _CARRIAGE_RETURN in value:
            return None
        if _LINE_FEED in value:  # several data lines, or several blocks
            value = value.replace(b"\ndata: ", b"\r")  # the value has no other CR
            if _LINE_FEED in value:
                return None
            value = value.replace(b"\r", b"\n")
        if middle:
            self._move_last_event_id((own.decode("utf-8", "replace"),))
        self.unfinished_bytes = 0
        text = value.decode("utf-8", "replace")
        return [_new(self.event_class, (name, text, self.last_event_id, self._origin))]

    def _expect(self, shape: Shape) -> None:
        """Expect this shape of the next run or block; mostly it is that of the last."""
        self._shape = shape
        head, middle, name, blank = shape
        # A plain tuple for `_take_block`: unpacking it takes a third of the time.
        self._expected = head, middle, name, blank, len(head), -len(blank)

    def _take_other_block(self, chunk: bytes, *, comments: bool) -> list[Any] | None:
        """Like `_take_block`, for a block of another shape than the expected one, or of none."""
        if not chunk.endswith(b"\n"):
            return None
        if chunk.startswith(_USUAL_FIELDS):
            self._expect(shape_of(chunk))
            # No endless recursion: the chunk begins with the head of the shape found in it.
            return None if self._shape is NO_SHAPE else self._take_block(chunk, comments=comments)
        if chunk.find(b"\n\n") != len(chunk) - 2 or _CARRIAGE_RETURN in chunk:
            return None
        items: list[Any] = []
        self._process_usual_lines(io.BytesIO(chunk).readlines(), items, comments=comments)
        self.unfinished_bytes = 0
        return items

    def _take_run(self, chunk: bytes, blank: bytes, items: list[Any], *, comments: bool) -> int:
        """Take the blocks of `chunk`, up to its last `blank` line, if most are of one shape.

        Most servers send the same few fields in the same order. Without this, several data
        lines take 2.5 times as long, `id`, `event` and `data` 1.8 times, short `data` 1.4
        times, and `Comment` items 4.5 times. A block must begin at the start of `chunk`.

        Returns:
            The number of bytes taken; 0 if too many blocks are of another shape.
        """
        end = chunk.rfind(blank)
        first_end = _find_blank(chunk, blank)
        if end > self._max_event_size or first_end == end:  # also equal if there is none
            return 0
        shape = self._shape
        if shape.blank != blank or not chunk.startswith(shape.head):
            shape = shape_of(chunk)
            self._expect(shape)
        run = None
        if first_end >= LONG_BLOCK:
            run = split_into_lines(chunk, first_end, end, shape)
        if run is None and shape is not NO_SHAPE:
            run = split_run(chunk, end, shape)
        if run is None:
            self._expect(NO_SHAPE)  # the next run determines its own shape
            return 0
        values, ids, odd = run
        if not (shape.type or comments):
            values = ()
        start = 0
        for place, block in odd:
            self._add_items(shape, values[start:place], ids[start:place], items, comments=comments)
            lines = io.BytesIO(block).readlines()
            self._process_usual_lines(lines, items, comments=comments)
            start = place + 1
        if start:
            values, ids = values[start:], ids[start:]
        self._add_items(shape, values, ids, items, comments=comments)
        return end + len(blank)

    def _add_items(
        self,
        shape: Shape,
        values: Sequence[str],
        ids: Sequence[str],
        items: list[Any],
        *,
        comments: bool,
    ) -> None:
        """Add the items of blocks of this shape; `map` and `zip` are faster than a loop."""
        if shape.type:
            last_ids = ids or repeat(self.last_event_id)
            fields = zip(repeat(shape.type), values, last_ids, repeat(self._origin))
            items += map(_new, repeat(self.event_class), fields)
        elif comments:
            items += map(_new, repeat(Comment), zip(values))
        if ids:
            self._move_last_event_id(ids)

    def _move_last_event_id(self, ids: Sequence[str]) -> None:
        """Set the last event ID to the last of `ids`, and `_resume_id` to the last sendable one."""
        last_id = ids[-1]
        if can_be_sent(last_id):
            self._resume_id = last_id
        else:
            self._keep_resume_id()
            for earlier_id in filter(can_be_sent, ids):
                self._resume_id = earlier_id
        self.last_event_id = self._last_event_id = last_id

    def _count_unfinished(self, chunk: bytes) -> None:
        """Count the bytes after the last blank line of a chunk, if it has any."""
        if chunk.endswith((b"\n\n", b"\r\n\r\n")):
            self.unfinished_bytes = 0
            return
        if _LINE_FEED not in chunk and _CARRIAGE_RETURN not in chunk:
            self.unfinished_bytes += len(chunk)
            return
        # With the line end before the chunk, if there is one:
        seen = chunk if self._line else b"\n" + chunk
        # Two line ends in a row. If the second is a CR, its line feed may follow.
        pairs = (b"\n\n", b"\n\r", b"\r\r") if _CARRIAGE_RETURN in chunk else (b"\n\n",)
        last = max(map(seen.rfind, pairs))
        if last < 0:
            self.unfinished_bytes += len(chunk)
        else:
            rest = seen[last + 2 :]
            if seen[last + 1] == _CARRIAGE_RETURN:
                rest = rest.removeprefix(b"\n")
            self.unfinished_bytes = len(rest)

    def _process_lines(
        self, chunk: bytes, items: list[MessageEvent | Comment], *, comments: bool
    ) -> None:
        """Process the lines that end in `chunk`; keep the unfinished one."""
        self._count_unfinished(chunk)
        if _CARRIAGE_RETURN in chunk:
            self._after_cr = chunk.endswith(b"\r")
            chunk = chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        if self._line or self._at_start:
            line, end, chunk = chunk.partition(b"\n")
            self._continue_line(line, ended=bool(end))
            if end:
                whole, self._line = self._line, bytearray()
                self._process_line(whole, items, comments=comments)
                if self.error is not None:
                    return
        # Unlike bytes.split(), readlines() searches eight or more bytes at a time.
        lines = io.BytesIO(chunk).readlines()
        rest = lines.pop() if lines and not lines[-1].endswith(b"\n") else b""
        if self._size + len(chunk) > self._max_event_size:
            for line in lines:
                self._process_line(line[:-1], items, comments=comments)
        else:
            self._process_usual_lines(lines, items, comments=comments)
        if self.error is None:
            self._continue_line(rest, ended=False)
            unfinished = len(self._line)
            if self._at_start and _BOM.startswith(self._line):
                unfinished = 0  # it may be the beginning of a byte order mark
            if self._size + unfinished > self._max_event_size:
                self._fail(self._size + unfinished)

    def _process_usual_lines(
        self, lines: list[bytes], items: list[MessageEvent | Comment], *, comments: bool
    ) -> None:
        """Do what `_process_line` does with each, if none of them can exceed the size limit.

        Lines in the usual spelling take a third of the time here.
        """
        size = 0  # counted here, to be added to `_size`
        data, event_type, new, kind = self._data, self._event_type, _new, self.event_class
        for line in lines:
            first = line[0]
            if first == _LINE_FEED:
                if data:
                    name = event_type.decode("utf-8", "replace") if event_type else "message"
                    value = data.pop() if len(data) == 1 else self._take_data()
                    text = _text(value) if len(value) > PIECE else value.decode("utf-8", "replace")
                    items.append(new(kind, (name, text, self._last_event_id, self._origin)))
                self.last_event_id = self._last_event_id
                self._size = size = 0
                event_type = b""
            elif first == _COLON and not comments:
                pass
            elif line.startswith(b"data: "):
                data.append(line[6:-1])
                size += len(line) - 1
            elif line.startswith(b"event: "):
                event_type = line[7:-1]
                size += len(line) - 1
            elif line.startswith(b"id: ") and _NUL not in line:
                self._last_event_id = text = line[4:-1].decode("utf-8", "replace")
                if not text.isprintable() or len(line) > MAX_ID_SIZE:  # a quick check
                    self._keep_resume_id()
                size += len(line) - 1
            else:
                self._event_type = event_type
                self._process_line(line[:-1], items, comments=comments)
                event_type = self._event_type
        self._event_type = event_type
        self._size += size

    def _continue_line(self, part: bytes, *, ended: bool) -> None:
        self._line += part
        if self._at_start and (ended or len(self._line) >= len(_BOM)):
            self._at_start = False
            if self._line.startswith(_BOM):
                del self._line[: len(_BOM)]

    def _process_line(
        self, line: bytes | bytearray, items: list[MessageEvent | Comment], *, comments: bool
    ) -> None:
        """Process a line, as the standard says.

        The caller must not use a `bytearray` afterwards: it becomes the value, so that a
        long line is not copied.
        """
        if self.error is not None:
            return
        if self._size + len(line) > self._max_event_size:
            self._fail(self._size + len(line))
            return
        if not line:
            event = self._dispatch()
            if event is not None:
                items.append(event)
            return
        size = len(line)
        colon = line.find(b":")
        name = bytes(line if colon < 0 else line[:colon])
        start = size if colon < 0 else colon + 1
        if line.startswith(b" ", start):
            start += 1
        if isinstance(line, bytearray):
            del line[:start]
            value: bytes | bytearray = line
        else:
            value = line[start:]
        if name:
            self._process_field(name, value, size)
        elif comments:
            items.append(Comment(value.decode("utf-8", "replace")))

    def _process_field(self, name: bytes, value: bytes | bytearray, size: int) -> None:
        """Process the field of a line of `size` bytes, as the standard says."""
        if name == b"data":
            self._data.append(value)
            self._size += size
        elif name == b"event":
            self._event_type = bytes(value)
            self._size += size
        elif name == b"id":
            if _NUL not in value:
                self._keep_resume_id()
                self._last_event_id = value.decode("utf-8", "replace")
                self._size += size
        elif name == b"retry":
            if value.isdigit():  # of bytes: ASCII digits only
                self.reconnection_time = float(value) / 1000
        else:
            self.unknown_lines += 1

    def _keep_resume_id(self) -> None:
        """Store the present `resume_id`: the block may set an ID that cannot be sent."""
        self._resume_id = self.resume_id

    def _dispatch(self) -> MessageEvent | None:
        """Dispatch the event, as the standard says: end the block."""
        self.last_event_id = self._last_event_id
        event_type, self._event_type = self._event_type, b""
        self._size = 0
        if not self._data:
            return None
        name = event_type.decode("utf-8", "replace") if event_type else "message"
        text = _text(self._take_data())
        return _new(self.event_class, (name, text, self.last_event_id, self._origin))

    def _take_data(self) -> bytes | bytearray:
        """Return the values of the block's `data` lines, joined, and forget them.

        If the first is a `bytearray`, the event is large, and the others are appended to it.
        """
        data = self._data
        first = data[0]
        if isinstance(first, bytearray):
            for value in data[1:]:
                first += b"\n"
                first += value
        else:
            first = b"\n".join(data)
        data.clear()
        return first

    def _fail(self, size: int) -> None:
        self.error = EventTooLarge(size, self._max_event_size)
        self._line.clear()
        self._data.clear()


def can_be_sent(last_event_id: str) -> bool:
    """Whether a last event ID can be the value of a header field: see `MAX_ID_SIZE`."""
    if last_event_id.isprintable() and len(last_event_id) <= MAX_ID_SIZE // 4:
        return True  # a quick check
    return (
        len(last_event_id.encode("utf-8", "replace")) <= MAX_ID_SIZE
        and _CONTROL.search(last_event_id) is None
    )


def _find_blank(chunk: bytes, blank: bytes) -> int:
    """Return where the first blank line begins, -1 without one.

    The search starts at the first line end: searching for one byte takes a hundredth of the
    time of searching for two, which would be most of the time for a large event.
    """
    return chunk.find(blank, max(chunk.find(b"\n") - 1, 0))


def _text(value: bytes | bytearray) -> str:
    """Decode `value`. The caller must not use a `bytearray` afterwards.

    A large one is decoded in pieces: at once it could take up to six times its size.
    """
    if len(value) <= PIECE or value.isascii():
        return value.decode("utf-8", "replace")
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    pieces = [decoder.decode(value[i : i + PIECE]) for i in range(0, len(value), PIECE)]
    pieces.append(decoder.decode(b"", final=True))
    if isinstance(value, bytearray):
        value.clear()
    return "".join(pieces)


class Block(MessageEvent):
    """An event with the fields of its own block.

    Attributes:
        id (str | None): the block's `id`; None: it has none.
        retry (int | None): its `retry`, in milliseconds and within bounds; None: it has none.
    """

    id: str | None = None
    retry: int | None = None


class BlockParser(EventStreamParser):
    """A parser whose events are `Block`s."""

    event_class = Block
    _id: str | None = None
    _retry: int | None = None

    def _take_block(self, chunk: bytes, *, comments: bool) -> list[Any] | None:
        if self._retry is not None:
            return None
        items = super()._take_block(chunk, comments=comments)
        if items and self._shape.middle and chunk.startswith(self._shape.head):
            items[0].id = self.last_event_id
        return items

    def _take_run(self, chunk: bytes, blank: bytes, items: list[Any], *, comments: bool) -> int:
        if self._retry is not None:
            return 0
        return super()._take_run(chunk, blank, items, comments=comments)

    def _add_items(
        self,
        shape: Shape,
        values: Sequence[str],
        ids: Sequence[str],
        items: list[Any],
        *,
        comments: bool,
    ) -> None:
        before = len(items)
        super()._add_items(shape, values, ids, items, comments=comments)
        for event, own in zip(items[before:] if ids else (), ids, strict=True):
            event.id = own

    def _process_usual_lines(
        self, lines: list[bytes], items: list[MessageEvent | Comment], *, comments: bool
    ) -> None:
        for line in lines:  # only `_process_field` and `_dispatch` record `id` and `retry`
            self._process_line(line[:-1], items, comments=comments)

    def _process_field(self, name: bytes, value: bytes | bytearray, size: int) -> None:
        super()._process_field(name, value, size)
        if name == b"id" and _NUL not in value:
            self._id = value.decode("utf-8", "replace")
        elif name == b"retry" and self.reconnection_time is not None and value.isdigit():
            self._retry = round(min(self.reconnection_time, MAX_RECONNECTION_TIME) * 1000)

    def _dispatch(self) -> MessageEvent | None:
        event = super()._dispatch()
        if isinstance(event, Block):
            event.id, event.retry = self._id, self._retry
        self._id = self._retry = None
        return event


def parse(
    chunks: Iterable[bytes],
    *,
    last_event_id: str = "",
    origin: str = "",
    max_event_size: int = MAX_EVENT_SIZE,
) -> Iterator[MessageEvent]:
    r"""Yield the events of a stream that any HTTP client reads.

    Args:
        chunks: the response body, decompressed, split anywhere.
        last_event_id: see `EventStreamParser`.
        origin: likewise.
        max_event_size: likewise.

    Raises:
        EventTooLarge: an event exceeds `max_event_size` bytes; all events before it
            have been yielded.

    Examples:
        >>> [event.data for event in parse([b"data: hel", b"lo\n\n"])]
        ['hello']
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
