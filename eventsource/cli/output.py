"""Where the bytes go: whole events, at once, and whether anyone still reads them."""

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
"""Bytes that a pipe which is said to be writable takes without making the writer wait."""

BLOCK: Final = 2**16
"""Bytes that are read at first to find the last line of a file."""
STANDARD_OUTPUT: Final = "standard output"
DEFAULT_COLUMNS: Final = 80
"""The width of a terminal that does not say."""


class Output:
    """A file, or a standard stream, without a buffer: what was written is out.

    One thread writes at a time.

    Args:
        number: its descriptor, which remains open.
        name: what it is called in messages.
        ending: what cuts short the wait for a reader.
    """

    def __init__(self, number: int, name: str, ending: Ending) -> None:
        self._number = number
        # Bytes as they are, and characters of a console, also on Windows.
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
        """Write all of it; wait for the reader, but no longer than until the end is asked for.

        Raises:
            Stop: that, or it cannot be written; quietly, if a pipe has been closed.
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
        """Return where to cut, so that what is in order on a terminal remains so."""
        if len(data) <= AT_ONCE:
            return len(data)
        end = bytes(data[:AT_ONCE]).rfind(b"\n")
        return AT_ONCE if end < 0 else end + 1

    def empty(self) -> None:
        """Throw away what a file held before. What is no file on a disk holds nothing."""
        if self._is_file:
            os.ftruncate(self._number, 0)

    def _wait(self) -> None:
        poll = select.poll()
        poll.register(self._number, select.POLLOUT)
        poll.register(self._ending, select.POLLIN)
        poll.poll()

    def write_if_ready(self, data: bytes) -> None:
        """Write something short, as the last thing, unless that takes a wait."""
        if self._may_block:
            poll = select.poll()
            poll.register(self._number, select.POLLOUT)
            if not poll.poll(0):
                return
        with contextlib.suppress(OSError):  # it is over anyway
            self._file.write(data)

    def columns(self) -> int:
        """Return how wide the terminal is at the moment."""
        try:
            return os.get_terminal_size(self._number).columns or DEFAULT_COLUMNS
        except OSError:
            return DEFAULT_COLUMNS

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Within, have the command end when nobody reads the pipe any more.

        A stream may be silent for hours before a write would tell.
        """
        if not self._may_block:
            yield
            return
        ours, its = socket.socketpair()
        poll = select.poll()
        # Errors only, which need not be asked for; but macOS looks at nothing if nothing is.
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
    """Open what is to be written to, and close it at the end; give its descriptor.

    Args:
        path: the file, to which is added; None: standard output.
        mend: what the file holds are JSON objects, one a line. If a kill or a full disk has
            cut off the last one, that is removed first: it is the one that comes again.

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
            size = min(start, max(BLOCK, len(last)))  # ever more: a long line is copied often
            start = file.seek(start - size)
            last = file.read(size) + last
        torn = last.rpartition(b"\n")[2]
        if not torn:
            return
        try:
            json.loads(torn)
        except (ValueError, RecursionError):
            file.truncate(end - len(torn))
        else:  # it is whole, but for its end
            file.seek(end)
            file.write(b"\n")


def _failure(name: str, error: OSError) -> Stop:
    if error.errno == errno.EPIPE:
        return Stop(Exit.PIPE_CLOSED)
    return Stop(Exit.NO_OUTPUT, f"{name}: {error.strerror or error}")
