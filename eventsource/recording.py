"""Recordings: what happened on a stream, in a file of JSON lines.

`eventsource URL --record FILE` writes one, `read_recording()` reads it, and a server plays it:
`eventsource.testing.SSEServer.replay()`, `eventsource serve FILE`. docs/how-to/record.md has the
format.

The invariants:

- A line is a whole record and is written in one call. So however the writer ends, at most one
  line is truncated, the last one. The reader skips that and reports it. Anything else that is
  wrong is an error that names the line.
- A recording contains nothing that a request sent, no cookie and no query of a URL. It contains
  the body as the server sent it.
"""

from __future__ import annotations

import base64
import json
import logging
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple

from .errors import StreamEnded
from .protocol.events import ErrorEvent, OpenEvent
from .urls import SECRET_FIELD, redact, redact_field, redact_text

__all__ = [
    "End",
    "Loss",
    "Opening",
    "Received",
    "Record",
    "Recording",
    "read_recording",
]

VERSION: Final = 1
"""The version of the format. The reader refuses any other."""
MAX_FIRST_LINE: Final = 2**16
"""The most bytes of the first line: a file with a longer one is not a recording."""
DELICATE: Final = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""Characters that JSON allows, but that some programs take for line ends or control characters."""

_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE: Final = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
_OK: Final = 200

logger = logging.getLogger("eventsource")


class Opening(NamedTuple):
    """A connection opened: the head of the response had come."""

    at: float
    """Seconds since the start of the recording."""
    status: int
    """The HTTP status."""
    url: str
    """The URL that answered, after redirects, without user name, password, query and fragment."""
    framing: str
    """How the body was delimited: `"chunked"`, `"length"`, or `"close"` by the end of the
    connection."""
    headers: Mapping[str, str]
    """The response's header fields, without `Set-Cookie` and others that may hold a secret."""


class Received(NamedTuple):
    """A read brought bytes of the body."""

    at: float
    """Seconds since the start of the recording."""
    data: bytes
    """The bytes, without the framing and the content coding of HTTP."""


class Loss(NamedTuple):
    """A connection was lost, or an attempt failed."""

    at: float
    """Seconds since the start of the recording."""
    reason: str
    """The text of the client's error."""
    in_order: bool
    """Whether the server ended the body in order."""
    retry_in: float | None
    """Seconds that the client was going to wait for the next attempt; None: it made none."""


class End(NamedTuple):
    """The command ended. It is missing if the command was killed."""

    at: float
    """Seconds since the start of the recording."""
    reason: str
    """The reason that the command printed; `""`: none."""
    status: int
    """The exit status of the command."""


Record = Opening | Received | Loss | End
"""One line of a recording, after the first."""


class Recording(NamedTuple):
    """The content of a file."""

    url: str
    """The URL of the request, without user name, password, query and fragment."""
    started: str
    """When the recording was started, in UTC, in the format of RFC 3339."""
    records: tuple[Record, ...]
    """What happened, in order."""
    is_torn: bool
    """Whether the last line was truncated, and skipped."""


def read_recording(path: str | os.PathLike[str]) -> Recording:
    r"""Read a recording that `eventsource URL --record FILE` has written.

    One that is still being written can be read, and so can one whose writer was killed. A
    truncated last line is skipped: then `is_torn` is true, and a warning is logged.

    Args:
        path: the file. All of it is read into memory.

    Returns:
        Its content.

    Raises:
        ValueError: it is not a recording, of another version, or damaged; the message names
            the file and the line.
        OSError: it cannot be read.

    Threads: may be called from any.

    Examples:
        >>> import tempfile
        >>> with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as file:
        ...     _ = file.write(
        ...         '{"recording": "eventsource", "version": 1,'
        ...         ' "url": "https://example.com/", "started": "2030-01-01T00:00:00Z"}\n'
        ...         '{"at": 0.1, "type": "open", "status": 200, "url": "https://example.com/",'
        ...         ' "framing": "chunked", "headers": {}}\n'
        ...         '{"at": 0.2, "type": "bytes", "text": "data: hello\\n\\n"}\n'
        ...     )
        ...     file.flush()
        ...     read_recording(file.name).records[1]
        Received(at=0.2, data=b'data: hello\n\n')
    """
    name = os.fspath(path)
    number = 0
    reader = _Reader()
    is_torn = False
    with Path(name).open("rb") as file:
        try:
            for number, line in enumerate(_lines(file), 1):  # noqa: B007 - of the line that is wrong
                is_torn = not reader.take(line)
        except ValueError as error:
            raise ValueError(f"{name}: line {number}: {error}") from None
    if is_torn:
        logger.warning("%s: line %d is torn, and left out", name, number)
    if reader.first is None:
        raise ValueError(f"{name}: {'no whole line' if number else 'empty'}: no recording")
    url, started = reader.first
    return Recording(url, started, tuple(reader.records), is_torn)


def _lines(file: BinaryIO) -> Iterator[bytes]:
    if first := file.readline(MAX_FIRST_LINE):
        yield first
        yield from file


class _Reader:
    """Takes the lines of a file, and checks that each may follow those before it."""

    def __init__(self) -> None:
        self.first: tuple[str, str] | None = None
        self.records: list[Record] = []
        self._is_open = False

    def take(self, line: bytes) -> bool:
        """Take a line; return whether it was whole. Only the last line may be truncated.

        Raises:
            ValueError: the line is wrong.
        """
        try:
            found = json.loads(line.decode())
        except (ValueError, RecursionError):
            # A truncated object is never valid JSON, because its last brace is missing.
            may_be_ours = self.first or line.startswith(_BEGINNING[: len(line)])
            if may_be_ours and not line.endswith(b"\n"):
                return False
            raise ValueError(self._no_object()) from None
        if not isinstance(found, dict):
            raise ValueError(self._no_object())  # noqa: TRY004 - of a file, not of an argument
        if self.first is None:
            self.first = _first(found)
        else:
            self._add(_Fields(found).record())
        return True

    def _no_object(self) -> str:
        return f"no JSON object{'' if self.first else ': this is no recording'}"

    def _add(self, record: Record) -> None:
        last = self.records[-1] if self.records else None
        if isinstance(last, End):
            raise ValueError("there is something after the end")  # noqa: TRY004
        if last is not None and record.at < last.at:
            raise ValueError(f"'at' is {record.at:g}, and was {last.at:g} in the line before")
        if isinstance(record, Opening) and self._is_open:
            raise ValueError("a connection opens, and the one before it was not lost")
        if isinstance(record, Received) and not self._is_open:
            raise ValueError("bytes, and no connection is open")
        self._is_open = isinstance(record, Opening | Received)
        self.records.append(record)


_BEGINNING: Final = b'{"recording": "eventsource", "version": '


def _first(found: dict[str, Any]) -> tuple[str, str]:
    if found.get("recording") != "eventsource":
        raise ValueError("this is no recording")
    version = found.get("version")
    if type(version) is not int:
        raise ValueError("'version' is missing, or no number")
    if version != VERSION:
        raise ValueError(f"a recording of version {version}; this package reads {VERSION}")
    fields = _Fields(found)
    return fields.text("url"), fields.text("started")


class _Fields:
    """The members of one line's object. A member is checked when it is read; others are ignored."""

    def __init__(self, found: dict[str, Any]) -> None:
        self._found = found

    def record(self) -> Record:
        """Return the record that they describe."""
        at = self.seconds("at")
        match self._found.get("type"):
            case "open":
                return Opening(
                    at, self._status(), self.text("url"), self._framing(), self._headers()
                )
            case "bytes":
                return Received(at, self._data())
            case "lost":
                has_next = self._found.get("retry_in") is not None
                retry_in = self.seconds("retry_in") if has_next else None
                return Loss(at, self.text("reason"), self._flag("in_order"), retry_in)
            case "end":
                return End(at, self.text("reason"), self._whole_number("status"))
        raise ValueError("'type' is none of open, bytes, lost, end")

    def text(self, name: str) -> str:
        value = self._found.get(name)
        if not isinstance(value, str):
            raise ValueError(f"'{name}' is missing, or no text")  # noqa: TRY004
        return value

    def seconds(self, name: str) -> float:
        value: Any = self._found.get(name)
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not 0 <= value <= MAX_SECONDS:
            raise ValueError(f"'{name}' is missing, or no number of seconds")
        return float(value)

    def _whole_number(self, name: str) -> int:
        value = self._found.get(name)
        if type(value) is not int:
            raise ValueError(f"'{name}' is missing, or no whole number")
        return value

    def _flag(self, name: str) -> bool:
        value = self._found.get(name)
        if not isinstance(value, bool):
            raise ValueError(f"'{name}' is missing, or neither true nor false")  # noqa: TRY004
        return value

    def _status(self) -> int:
        status = self._whole_number("status")
        if not _OK <= status <= 299:
            raise ValueError("'status' is none with which a stream opens")
        return status

    def _framing(self) -> str:
        framing = self.text("framing")
        if framing not in ("chunked", "length", "close"):
            raise ValueError("'framing' is none of chunked, length, close")
        return framing

    def _headers(self) -> dict[str, str]:
        headers = self._found.get("headers")
        if not isinstance(headers, dict):
            raise ValueError("'headers' is missing, or no object")  # noqa: TRY004
        for name, value in headers.items():
            if not _TOKEN.fullmatch(name):
                raise ValueError("'headers' has a name that is none of a header field")
            if not isinstance(value, str) or not _VALUE.fullmatch(value):
                raise ValueError(f"'headers' has a value that header field {name} cannot have")
        return headers

    def _data(self) -> bytes:
        has_text, has_base64 = "text" in self._found, "base64" in self._found
        if has_text == has_base64:
            raise ValueError("either 'text' or 'base64' is needed")
        if has_text:
            try:
                return self.text("text").encode()
            except UnicodeEncodeError:
                raise ValueError("'text' has a lone surrogate") from None
        encoded = self.text("base64")
        try:
            return base64.b64decode(encoded, validate=True)
        except ValueError:
            raise ValueError("'base64' is not base64") from None


MAX_SECONDS: Final = 1e9
"""Thirty years: no recording lasts longer, and no clock of an operating system overflows."""


class RecordingWriter:
    """Makes the lines of a recording.

    Args:
        write: called with each line, in bytes with its line end. It must write the line in one
            call. The methods raise what it raises.
        url: the URL of the request.
        started: the time of the start, in UTC, in the format of RFC 3339.

    The methods take seconds since that time. Threads: one at a time.
    """

    def __init__(self, write: Callable[[bytes], object], url: str, started: str) -> None:
        self._write = write
        self._put(
            {
                "recording": "eventsource",
                "version": VERSION,
                "url": redact(url),
                "started": started,
            }
        )

    def opened(self, at: float, event: OpenEvent) -> None:
        """A connection has opened."""
        self._put(
            {
                "at": _rounded(at),
                "type": "open",
                "status": event.status,
                "url": redact(event.url),
                "framing": _framing(event.headers),
                "headers": {
                    name: _in_header(redact_field(name, value))
                    for name, value in event.headers.items()
                    if not SECRET_FIELD.search(name) and _TOKEN.fullmatch(name)
                },
            }
        )

    def received(self, at: float, data: bytes) -> None:
        """A read has brought bytes."""
        record: dict[str, Any] = {"at": _rounded(at), "type": "bytes"}
        try:
            record["text"] = data.decode()
        except UnicodeDecodeError:
            record["base64"] = base64.b64encode(data).decode()
        self._put(record)

    def lost(self, at: float, event: ErrorEvent, *, reason: str, goes_on: bool) -> None:
        """The connection has been lost, or an attempt has failed."""
        self._put(
            {
                "at": _rounded(at),
                "type": "lost",
                "reason": redact_text(reason),
                "in_order": isinstance(event.error, StreamEnded),
                "retry_in": _rounded(event.retry_in or 0.0) if goes_on else None,
            }
        )

    def ended(self, at: float, reason: str, status: int) -> None:
        """The command ends."""
        self._put(
            {"at": _rounded(at), "type": "end", "reason": redact_text(reason), "status": status}
        )

    def _put(self, record: dict[str, Any]) -> None:
        line = json.dumps(record, ensure_ascii=False)
        line = DELICATE.sub(lambda match: f"\\u{ord(match.group()):04x}", line)
        self._write(f"{line}\n".encode())


def _rounded(seconds: float) -> float:
    return round(seconds, 6) if math.isfinite(seconds) else 0.0


def _framing(headers: Mapping[str, str]) -> str:
    if "chunked" in headers.get("Transfer-Encoding", "").lower():
        return "chunked"
    return "length" if "Content-Length" in headers else "close"


def _in_header(value: str) -> str:
    """Return a value that a header field can have: `redact_text` adds `…`, which cannot be sent."""
    value = value.replace("…", "...")
    return "".join(each if _VALUE.fullmatch(each) else "?" for each in value)
