"""Where the bytes go: whole events, at once, and whether anyone still reads them."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import stat
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Self

from .failures import Exit, Stop


class Output:
    """A file, or standard output, without a buffer: what was written is out.

    Args:
        path: the file; None: standard output.
        append: add to the file, which else is made anew.

    Raises:
        Stop: it cannot be opened.
    """

    def __init__(self, path: str | None, *, append: bool = False) -> None:
        self._name = "standard output" if path is None else path
        self._close = path is not None
        try:
            if path is not None:
                how = os.O_APPEND if append else os.O_TRUNC
                self._number = os.open(path, os.O_WRONLY | os.O_CREAT | how, 0o666)
            elif sys.stdout is None:
                raise OSError(errno.EBADF, os.strerror(errno.EBADF))  # noqa: TRY301
            else:
                self._number = sys.stdout.fileno()
        except OSError as error:
            raise self._failure(error) from None

    def write(self, data: bytes) -> None:
        """Write all of it; wait as long as it takes.

        Raises:
            Stop: it cannot be written; quietly, if a pipe has been closed.
        """
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[os.write(self._number, rest) :]
            except BlockingIOError:  # a pipe that another process has set so
                select.select([], [self._number], [])
            except OSError as error:
                raise self._failure(error) from None

    def _failure(self, error: OSError) -> Stop:
        if error.errno == errno.EPIPE:
            return Stop(Exit.PIPE_CLOSED)
        return Stop(Exit.NO_OUTPUT, f"{self._name}: {error.strerror}")

    @contextlib.contextmanager
    def watched(self, closed: Callable[[], object]) -> Iterator[None]:
        """Within, have `closed` called when nobody reads the pipe any more.

        By another thread, once. A stream may be silent for hours before a write would tell.
        """
        kind = os.fstat(self._number).st_mode
        if not hasattr(select, "poll") or not (stat.S_ISFIFO(kind) or stat.S_ISSOCK(kind)):
            yield
            return
        ours, its = socket.socketpair()
        poll = select.poll()
        poll.register(self._number, 0)  # errors only, which need not be asked for
        poll.register(its, select.POLLIN)

        def watch() -> None:
            if self._number in dict(poll.poll()):
                closed()

        thread = threading.Thread(target=watch, name="eventsource-output", daemon=True)
        with ours, its:
            thread.start()
            try:
                yield
            finally:
                ours.close()
                thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._close:
            os.close(self._number)
