"""Waiting that can be cut short from anywhere, also from a signal handler."""

from __future__ import annotations

import queue
import threading


class Wakeup:
    """A one-thread waiting room whose door anybody may open.

    `threading.Event` and `Condition` take a lock in `set()`: a signal handler that
    interrupts the thread holding that lock waits for itself. `SimpleQueue.put` is
    re-entrant by contract, so `set()` may be called from a signal handler, from
    `__del__` and from any thread.

    A call of `set()` ends one `wait()`, also one that starts later; the one who
    waits checks the condition again, so one too many does no harm.
    """

    def __init__(self) -> None:
        self._tokens: queue.SimpleQueue[None] = queue.SimpleQueue()

    def set(self) -> None:
        """End the present or the next `wait()`."""
        self._tokens.put(None)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for `set()`, at most `timeout` seconds; say whether it was called."""
        if timeout is not None:
            timeout = min(max(timeout, 0.0), threading.TIMEOUT_MAX)
        try:
            self._tokens.get(timeout=timeout)
        except queue.Empty:
            return False
        return True


class Gate:
    """Shut until somebody opens it, for good. One thread waits; anybody may open it."""

    def __init__(self) -> None:
        self.is_open = False
        self._wakeup = Wakeup()

    def open(self) -> None:
        """Let through whoever waits or will wait. Safe in a signal handler."""
        self.is_open = True
        self._wakeup.set()

    def wait(self) -> None:
        """Wait until it is open."""
        while not self.is_open:
            self._wakeup.wait()
