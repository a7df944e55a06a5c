"""Waiting that any thread, and also a signal handler, can end."""

from __future__ import annotations

import math
import threading
import time


class Wakeup:
    """One thread waits, and any thread may end the wait.

    `threading.Event` and `Condition` take a lock in `set()`: a signal handler that interrupts
    the thread that holds the lock would wait for itself. To release a plain lock is one step,
    so `set()` may be called from a signal handler, from `__del__` and from any thread.
    (`SimpleQueue.get` is not suitable either: before Python 3.13, a signal that arrives when
    its timeout ends makes it wait for ever.)

    A call of `set()` ends one `wait()`, also one that starts later; several calls before it end
    the same one. The waiting thread checks its condition again, so an extra call does no harm.
    """

    def __init__(self) -> None:
        self._door = threading.Lock()
        self._door.acquire()

    def set(self) -> None:
        """End the current or the next `wait()`."""
        try:
            self._door.release()
        except RuntimeError:  # it has been set already
            return

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for `set()`, at most `timeout` seconds; return whether it was called."""
        if timeout is None:
            return self._door.acquire()
        return self._door.acquire(timeout=min(max(timeout, 0.0), threading.TIMEOUT_MAX))


class Gate:
    """Closed until a thread opens it for good. One thread waits; any thread may open it."""

    def __init__(self) -> None:
        self.is_open = False
        self._wakeup = Wakeup()

    def open(self) -> None:
        """End the current wait and all later ones. Safe in a signal handler."""
        self.is_open = True
        self._wakeup.set()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is open, at most `timeout` seconds; return whether it is."""
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        while not self.is_open and (left := deadline - time.monotonic()) > 0:
            self._wakeup.wait(left)
        return self.is_open
