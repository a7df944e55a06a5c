"""A movable deadline; its watcher wakes only when the deadline moves earlier."""

from __future__ import annotations

import math
import threading
import time
import weakref
from collections.abc import Callable
from typing import Final

from .wakeup import Wakeup

LATENESS: Final = 0.01
"""Seconds by which a deadline may be noticed late; this saves thread switches."""


class Deadline:
    """Calls a method once, in its own thread, when the deadline has passed. Initially there is
    no deadline.

    The deadline does not keep the method's object alive.

    Threads: `set` is for one thread at a time, `cancel` for any thread and for signal handlers.

    Args:
        passed: the method.
    """

    def __init__(self, passed: Callable[[], object]) -> None:
        self._wakeup = wakeup = Wakeup()
        self._passed = weakref.WeakMethod(passed, lambda _: wakeup.set())
        self._is_cancelled = False
        # Written by the thread that sets it:
        self.moment = math.inf
        """The deadline, on the monotonic clock; `math.inf`: there is none."""
        self._is_watched = False
        # And by the thread that watches:
        self._next_look = math.inf  # when it checks the deadline again

    def set(self, seconds: float) -> None:
        """Move the deadline to `seconds` from now; `math.inf`: never."""
        self.moment = time.monotonic() + seconds
        if self._is_watched:
            # Mostly it moves later; the watcher sees that when it wakes at the old deadline.
            if self.moment < self._next_look - LATENESS:
                self._wakeup.set()
        elif seconds != math.inf:
            self._is_watched = True
            threading.Thread(target=self._watch, name="eventsource-timeout", daemon=True).start()

    def cancel(self) -> None:
        """End the watch for good. Never waits."""
        self._is_cancelled = True
        self._wakeup.set()

    def _watch(self) -> None:
        while (wait := self._look()) is not None:
            self._wakeup.wait(wait)

    def _look(self) -> float | None:
        """Return the seconds until the deadline; None: it has passed or been cancelled."""
        passed = self._passed()
        if passed is None or self._is_cancelled:
            return None
        now = time.monotonic()  # before reading the deadline, which may move later meanwhile
        self._next_look = math.inf  # while the deadline is read, set() is to wake this thread
        moment = self.moment
        self._next_look = moment
        if moment > now:
            return moment - now
        passed()
        return None
