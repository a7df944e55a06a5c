"""Reads the lines of a body one by one: the events, and what is odd about the lines.

The invariant: the events are those of `EventStreamParser`. This reader is slower, and also
reports what the standard tells a parser to ignore. Sans-I/O.
"""

from __future__ import annotations

import enum
import hashlib
import re
from datetime import UTC, datetime
from typing import Final, NamedTuple

BOM: Final = b"\xef\xbb\xbf"
KNOWN: Final = (b"data", b"event", b"id", b"retry")
EXCERPT: Final = 80
"""Characters that are shown of a line."""
LOOKED_AT: Final = 2000
"""Bytes of an event's data in which a time is looked for."""
_ISO: Final = re.compile(
    rb"(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d:\d\d(?:\.\d{1,6})?)\d*(Z|[+-]\d\d:?\d\d)?"
)
_EPOCH: Final = re.compile(rb"(?<![\d.])(1\d{9})(\d{3}|\.\d{1,9})?(?![\d.])")


class Oddity(enum.Enum):
    """What a line should not be."""

    NO_FIELD = "lines that are not fields"
    UNKNOWN_FIELD = "lines with an unknown field"
    NOT_UTF8 = "lines that are not UTF-8"
    BOM = "lines that begin with a byte order mark"
    NUL_ID = "ids with NUL"
    BAD_RETRY = "values of retry that are not digits"


class Odd(NamedTuple):
    """How often there was an oddity, and the beginning of the first line."""

    times: int
    first: str


class Block(NamedTuple):
    """An event without its data, which may be large, and may be secret."""

    type: str
    id: str | None
    """The block's own id, or None."""
    digest: bytes
    """Of the data."""
    size: int
    """Bytes of the block's lines."""
    stamp: float | None
    """The time stamp in its data (or its id), in seconds since the epoch."""


class LineReader:
    """Reads the body of one response.

    Attributes:
        odd (dict[Oddity, Odd]): the oddities so far.
        known (int): fields and comments so far, by which a body is recognized as a stream.
        is_known (bool): there was one, or one has begun.
        comments (int): comment lines so far.
        retry (int | None): the last valid `retry`, in milliseconds.
        line_size (int): bytes of the unfinished line; 0: there is none.
        has_unfinished_event (bool): data has come, and no blank line after it.
        rest (str): the beginning of the unfinished line.
    """

    def __init__(self) -> None:
        self.odd: dict[Oddity, Odd] = {}
        self.known = 0
        self.comments = 0
        self.retry: int | None = None
        self._line = bytearray()
        self._after_cr = False
        self._is_first = True
        self._clear()

    def _clear(self) -> None:
        self._data: list[bytes] = []
        self._type = b""
        self._id: bytes | None = None
        self._size = 0

    @property
    def line_size(self) -> int:
        """See above."""
        return len(self._line)

    @property
    def has_unfinished_event(self) -> bool:
        """See above."""
        return bool(self._data) or self._line.startswith(b"data")

    @property
    def is_known(self) -> bool:
        """Whether anything so far is of the format, even the beginning of a line."""
        name, colon, _ = bytes(self._line[:LOOKED_AT]).removeprefix(BOM).partition(b":")
        if self.known > 0 or not self._line:
            return self.known > 0
        return name in (b"", *KNOWN) if colon else any(each.startswith(name) for each in KNOWN)

    @property
    def rest(self) -> str:
        """The beginning of the unfinished line."""
        return excerpt(bytes(self._line[:LOOKED_AT]))

    def feed(self, chunk: bytes) -> list[Block]:
        """Take the next bytes; return the events that they complete."""
        if self._after_cr and chunk[:1] == b"\n":
            chunk = chunk[1:]
            self._after_cr = False
        if not chunk:
            return []
        self._after_cr = chunk.endswith(b"\r")
        blocks = []
        for part in chunk.splitlines(keepends=True):  # of bytes: CR, LF and CRLF only
            self._line += part.rstrip(b"\r\n")
            if part[-1] in b"\r\n":
                line = bytes(self._line)
                self._line.clear()
                block = self._take(line)
                if block is not None:
                    blocks.append(block)
        return blocks

    def _take(self, line: bytes) -> Block | None:
        if self._is_first:
            self._is_first = False
            line = line.removeprefix(BOM)
        if not line:
            return self._end_block()
        if not _is_utf8(line):
            self._note(Oddity.NOT_UTF8, line)
        self._size += len(line)
        name, colon, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if not name:
            self.known += 1
            self.comments += 1
        elif name in KNOWN:
            self.known += 1
            self._take_field(name, value, line)
        elif line.startswith(BOM):
            self._note(Oddity.BOM, line)
        else:
            self._note(Oddity.UNKNOWN_FIELD if colon else Oddity.NO_FIELD, line)
        return None

    def _take_field(self, name: bytes, value: bytes, line: bytes) -> None:
        match name:
            case b"data":
                self._data.append(value)
            case b"event":
                self._type = value
            case b"id" if b"\0" in value:
                self._note(Oddity.NUL_ID, line)
            case b"id":
                self._id = value
            case _ if value.isdigit():
                self.retry = int(value[:18])  # no need of more digits: this is long enough
            case _:
                self._note(Oddity.BAD_RETRY, line)

    def _end_block(self) -> Block | None:
        block = None
        if self._data:
            data = b"\n".join(self._data)
            own = None if self._id is None else self._id.decode("utf-8", "replace")
            stamp = stamp_of(data[:LOOKED_AT])
            if stamp is None and self._id is not None:
                stamp = stamp_of(self._id)
            block = Block(
                self._type.decode("utf-8", "replace") or "message",
                own,
                hashlib.blake2b(data, digest_size=16).digest(),
                self._size,
                stamp,
            )
        self._clear()
        return block

    def _note(self, oddity: Oddity, line: bytes) -> None:
        before = self.odd.get(oddity)
        if before is None:
            self.odd[oddity] = Odd(1, excerpt(line))
        else:
            self.odd[oddity] = before._replace(times=before.times + 1)


def _is_utf8(line: bytes) -> bool:
    if line.isascii():
        return True
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True


def excerpt(line: bytes) -> str:
    """Return the beginning of a line as text."""
    text = line[: 4 * (EXCERPT + 1)].decode("utf-8", "backslashreplace")
    return text if len(text) <= EXCERPT else f"{text[:EXCERPT]}…"


def stamp_of(data: bytes) -> float | None:
    """Return the first time in `data`, in seconds since the epoch; None without one.

    Recognized are RFC 3339 (without an offset: UTC), and seconds or milliseconds since the epoch,
    as in JSON and in the ids of Redis.
    """
    if match := _ISO.search(data):
        day, time, zone = (part.decode() if part else "" for part in match.groups())
        try:
            moment = datetime.fromisoformat(f"{day}T{time}{zone}")
        except ValueError:
            return None
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    if match := _EPOCH.search(data):
        seconds, rest = match.groups(b"")
        return float(seconds + (rest if rest[:1] == b"." else b"." + (rest or b"0")))
    return None
