"""Where the bytes are written: without a buffer; the end of the reader ends the command."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import select
import socket
import stat
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from .ending import Ending
from .failures import Exit, Stop

AT_ONCE: Final = getattr(select, "PIPE_BUF", 512)
"""Bytes that can be written without waiting to a pipe that `poll` reports as writable."""

BLOCK: Final = 2**16
"""Bytes of the first read that looks for the last line of a file."""
STANDARD_OUTPUT: Final = "standard output"
DEFAULT_COLUMNS: Final = 80
"""The width of a terminal that does not report one."""


class Output:
    """A file, or a standard stream, without a buffer.

    One thread writes at a time.

    Args:
        number: its descriptor, which remains open.
        name: its name in messages.
        ending: ends the wait for a reader.
    """

    def __init__(self, number: int, name: str, ending: Ending) -> None:
        self._number = number
        # Not os.write(): this also writes to a console of Windows.
        self._file = open(number, "wb", buffering=0, closefd=False)  # noqa: SIM115
        self._name = name
        self._ending = ending
        mode = os.fstat(number).st_mode
        self._is_file = stat.S_ISREG(mode)
        self._is_terminal = os.isatty(number)
        self._may_block = hasattr(select, "poll") and (
            stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or self._is_terminal
        )

    def write(self, data: bytes) -> None:
        """Write all of it; wait for the reader, but only until the command is to end.

        Raises:
            Stop: the command is to end, or writing failed; without a text if a pipe was closed.
        """
        rest = memoryview(data)
        while rest:
            size = len(rest)
            if self._may_block:
                self._ending.check()
                self._wait()
                self._ending.check()
                size = self._line_end(rest) if self._is_terminal else AT_ONCE
            try:
                written = self._file.write(rest[:size])
            except OSError as error:
                raise _failure(self._name, error) from None
            rest = rest[written or 0 :]  # None: another process has made it non-blocking

    @staticmethod
    def _line_end(data: memoryview) -> int:
        """Return how much to write at once to a terminal: whole lines, if possible."""
        if len(data) <= AT_ONCE:
            return len(data)
        end = bytes(data[:AT_ONCE]).rfind(b"\n")
        return AT_ONCE if end < 0 else end + 1

    def empty(self) -> None:
        """Remove the former content of a file; do nothing if it is not a regular file."""
        if self._is_file:
            os.ftruncate(self._number, 0)

    def _wait(self) -> None:
        poll = select.poll()
        poll.register(self._number, select.POLLOUT)
        poll.register(self._ending, select.POLLIN)
        poll.poll()

    def write_if_ready(self, data: bytes) -> None:
        """Write something short at the end of the command, unless it would have to wait."""
        if self._may_block:
            poll = select.poll()
            poll.register(self._number, select.POLLOUT)
            if not poll.poll(0):
                return
        with contextlib.suppress(OSError):  # the command ends in any case
            self._file.write(data)

    def columns(self) -> int:
        """Return the present width of the terminal."""
        try:
            return os.get_terminal_size(self._number).columns or DEFAULT_COLUMNS
        except OSError:
            return DEFAULT_COLUMNS

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Within the block, end the command when the reader has closed the pipe.

        A stream may be silent for hours, and only a write would fail.
        """
        if not self._may_block:
            yield
            return
        ours, its = socket.socketpair()
        poll = select.poll()
        # POLLHUP and POLLERR are always reported, but macOS needs a non-empty mask.
        poll.register(self._number, select.POLLHUP)
        poll.register(its, select.POLLIN)

        def watch() -> None:
            if dict(poll.poll()).get(self._number, 0) & (select.POLLERR | select.POLLHUP):
                self._ending.set(Stop(Exit.PIPE_CLOSED))

        thread = threading.Thread(target=watch, name="eventsource-output", daemon=True)
        with ours, its:
            thread.start()
            try:
                yield
            finally:
                ours.close()
                thread.join()


@contextlib.contextmanager
def descriptor(path: str | None, *, mend: bool = False) -> Iterator[int]:
    """Open the output, yield its descriptor, and close it at the end.

    Args:
        path: a file, to whose end is written; None: standard output.
        mend: the file has JSON objects, one a line. If a kill or a full disk has truncated the
            last one, remove it first: its event comes again.

    Raises:
        Stop: it cannot be opened.
    """
    with contextlib.ExitStack() as stack:
        try:
            if path is not None:
                if mend:
                    _mend(path)
                number = stack.enter_context(Path(path).open("ab", buffering=0)).fileno()
            elif sys.stdout is None:
                raise OSError(errno.EBADF, os.strerror(errno.EBADF))  # noqa: TRY301
            else:
                sys.stdout.flush()
                number = sys.stdout.fileno()
        except OSError as error:
            raise _failure(path or STANDARD_OUTPUT, error) from None
        yield number


def _mend(path: str) -> None:
    if not Path(path).is_file():
        return
    with Path(path).open("r+b") as file:
        end = start = file.seek(0, os.SEEK_END)
        last = b""
        while start and b"\n" not in last:
            size = min(start, max(BLOCK, len(last)))  # doubled, so that copying stays linear
            start = file.seek(start - size)
            last = file.read(size) + last
        torn = last.rpartition(b"\n")[2]
        if not torn:
            return
        try:
            json.loads(torn)
        except (ValueError, RecursionError):
            file.truncate(end - len(torn))
        else:  # only its line feed is missing
            file.seek(end)
            file.write(b"\n")


def _failure(name: str, error: OSError) -> Stop:
    if error.errno == errno.EPIPE:
        return Stop(Exit.PIPE_CLOSED)
    return Stop(Exit.NO_OUTPUT, f"{name}: {error.strerror or error}")
