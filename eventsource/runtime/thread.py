"""Threads that can be joined by each other's handlers, and again after Ctrl-C."""

from __future__ import annotations

import sys
import threading

from .fork import no_fork
from .wakeup import Wakeup

# Guarded by `no_fork()`, so that it is consistent in a child.
_waits_for: dict[threading.Thread, ReaderThread] = {}


class ReaderThread(threading.Thread):
    """A thread whose end can be waited for.

    `Thread.join` is not enough. In Python 3.12 and earlier, after Ctrl-C has interrupted a
    join, the thread counts as ended. And two handlers that join each other's source, directly
    or through others, would wait for ever.
    """

    _has_ended = False
    _waiting: tuple[Wakeup, ...] = ()

    def run(self) -> None:
        """Run the target, then wake the threads that wait for the end."""
        try:
            super().run()
        finally:
            self._has_ended = True  # first: a thread that begins to wait later sees this
            for wakeup in self._waiting:
                wakeup.set()

    def wait_for_end(self, timeout: float | None) -> bool:
        """Wait until the thread has ended, unless it waits here for the calling thread.

        Args:
            timeout: seconds to wait at most; None: no limit.

        Returns:
            Whether it has ended. False at once if it waits for the calling thread, or is that
            thread.
        """
        if sys.is_finalizing() or not self.is_alive():  # also in the child of a fork
            return True
        current = threading.current_thread()
        wakeup = Wakeup()
        with no_fork():
            other: threading.Thread | None = self
            while other is not None:
                if other is current:
                    return False
                other = _waits_for.get(other)
            interrupted = _waits_for.get(current)  # a join that this signal handler interrupted
            _waits_for[current] = self
            self._waiting += (wakeup,)
        try:
            if not self._has_ended:
                wakeup.wait(timeout)
        finally:
            with no_fork():
                self._waiting = tuple(each for each in self._waiting if each is not wakeup)
                if interrupted is None:
                    del _waits_for[current]
                else:
                    _waits_for[current] = interrupted
        if self._has_ended:
            self.join()  # it is about to end
        return self._has_ended
