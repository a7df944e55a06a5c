"""The file of `--record`, written line by line while the stream is followed.

The invariant: a line is written in one call and at once, before anything of it is printed. So a
command that is killed leaves a recording that can be read. The former content of the file is
removed when the first connection has opened. If none opens, the command leaves no new file.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from requests.structures import CaseInsensitiveDict

from eventsource.protocol.events import ErrorEvent, OpenEvent
from eventsource.recording import RecordingWriter

from .ending import Ending
from .failures import Exit, Stop
from .formats import counted, now
from .output import Output
from .secrets import hide

ROOM_FOR_END: Final = 256
"""Bytes of `--max-filesize` reserved for the last line, with the reason of the end."""


class RecordFile:
    """Writes the recording of a stream. For the thread that follows the stream.

    Args:
        output: the file.
        url: the URL of the stream.
        limit: the most bytes that the file may have; None: no limit.
    """

    def __init__(self, output: Output, url: str, limit: int | None) -> None:
        self._output = output
        self._url = url
        self._limit = limit
        self._size = 0
        self._began = time.monotonic()
        self._started = now()
        self._writer: RecordingWriter | None = None  # None: no connection has opened yet
        self._is_over = False

    @property
    def has_begun(self) -> bool:
        """Whether anything has been written to the file."""
        return self._writer is not None

    def opened(self, event: OpenEvent, secrets: Iterable[str] = ()) -> None:
        """A connection has opened.

        Args:
            event: with the header fields of the response.
            secrets: are not recorded if the server has repeated them in a header field. (Its
                media type is recorded unchanged, for the recording to be played.)

        Raises:
            Stop: the file cannot be written, or would be too large; also in the methods below.
        """
        if self._writer is None:
            self._writer = RecordingWriter(self._write, self._url, self._started)
        headers = CaseInsensitiveDict(event.headers)
        for name in headers.keys() - {"Content-Type"}:
            headers[name] = hide(secrets, headers[name])
        self._writer.opened(self._now(), event._replace(headers=headers))

    def received(self, data: bytes) -> None:
        """A read has brought bytes."""
        if self._writer is not None:
            self._writer.received(self._now(), data)

    def lost(self, event: ErrorEvent, *, reason: str, goes_on: bool) -> None:
        """The connection is lost, or an attempt failed; ignored before the first connection."""
        if self._writer is not None:
            self._writer.lost(self._now(), event, reason=reason, goes_on=goes_on)

    def ended(self, stop: Stop) -> None:
        """The command ends."""
        if self._writer is None or self._is_over:
            return
        self._is_over = True  # the last line may use `ROOM_FOR_END`
        why = stop.text or stop.status.name.lower().replace("_", " ")
        self._writer.ended(self._now(), why[:100], int(stop.status))

    def _now(self) -> float:
        return time.monotonic() - self._began

    def _write(self, line: bytes) -> None:
        if self._limit is not None:
            room = 0 if self._is_over else ROOM_FOR_END
            if self._size + len(line) + room > self._limit:
                if self._is_over:
                    return
                raise Stop(
                    Exit.TOO_LARGE,
                    f"--max-filesize: the recording would exceed {counted(self._limit, 'byte')}",
                )
        try:
            if not self._size:  # not before: the limit may be too small for any line
                self._output.empty()
            self._output.write(line)
        except Stop as stop:
            self._is_over = True  # after a truncated line, no last line is written
            if stop.status is Exit.PIPE_CLOSED:
                raise Stop(Exit.NO_OUTPUT, "--record: nobody reads it any more") from None
            raise
        self._size += len(line)


@contextlib.contextmanager
def recording_to(
    path: str, url: str, ending: Ending, *, force: bool, limit: int | None
) -> Iterator[RecordFile]:
    """Open the file of `--record`, and close it at the end.

    Args:
        path: the file.
        url: the URL of the stream.
        ending: ends the wait for a reader, if the file is a pipe.
        force: whether the file may exist.
        limit: see `RecordFile`.

    Raises:
        Stop: it exists, or cannot be opened.
    """
    try:
        file = Path(path).open("ab" if force else "xb", buffering=0)  # noqa: SIM115 - below
    except FileExistsError:
        raise Stop(Exit.USAGE, f"--record: {path} exists; --force has it replaced") from None
    except OSError as error:
        raise Stop(Exit.NO_OUTPUT, f"--record: {path}: {error.strerror or error}") from None
    record = RecordFile(Output(file.fileno(), path, ending), url, limit)
    try:
        with file:
            yield record
    finally:
        if not (force or record.has_begun):  # the file was made here, and is empty
            with contextlib.suppress(OSError):
                Path(path).unlink()
