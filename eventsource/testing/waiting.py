"""Waiting in tests without sleeping: `wait_until` and `Recorder`."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from typing import Any, Final, TypeVar, overload

from eventsource.source import EventSource
from eventsource.urls import brief

T = TypeVar("T")

INTERVAL: Final = 0.005
"""Seconds between two checks of a condition: short for a test, but a small load."""


def wait_until(condition: Callable[[], T], timeout: float = 10.0) -> T:
    """Wait until a condition is true; return what it returned.

    For conditions that nothing signals: it is checked every 5 ms, in the caller's thread, the
    last time when the time is up.

    Args:
        condition: called without arguments, at least once; what it raises is raised.
        timeout: seconds to wait at most.

    Raises:
        TimeoutError: the condition has not become true.

    Examples:
        >>> wait_until(lambda: 6 * 7)
        42
    """
    deadline = time.monotonic() + timeout
    pause = threading.Event()
    while True:
        is_last = time.monotonic() >= deadline
        if value := condition():
            return value
        if is_last:
            name = getattr(condition, "__qualname__", repr(condition))
            raise TimeoutError(f"waited {timeout} s for {name}, which still returns {value!r}")
        pause.wait(INTERVAL)


class Recorder:
    """A handler that stores the events it is called with, and that a test can wait for.

    Given a source, it registers for `open`, `message`, `error` and the further types.
    Handlers run in the order registered. So when it has an event, the handlers that were
    registered before it have run: make it after the handlers that you test, and before
    the source is started or the server sends. (What a source has dispatched before is
    not recorded. A source without any handler has dispatched nothing yet.)

    Without a source it is a handler like any other, also for `on_comment`.

    Args:
        source: the source whose events are recorded.
        *types: further event types.

    Raises:
        TypeError: `source` is not an `EventSource`, or a type is not a str.

    Threads: every method may be called from any; no event is returned twice. Do not wait in
    the thread or event loop in which the handlers run: it would wait for itself. In a
    coroutine, `await asyncio.to_thread(recorder.wait_for, "greet")`.
    """

    def __init__(self, source: EventSource | None = None, *types: str) -> None:
        self._changed = threading.Condition()  # guards the next two
        self._events: list[Any] = []
        self._taken = 0  # how many have been returned or skipped
        if source is not None:
            if not isinstance(source, EventSource):
                raise TypeError(f"source must be an EventSource, not {source!r}")
            # In one call: events that wait for the first handler must wait for all of these.
            source.add_listeners(("open", "message", "error", *types), self)

    def __call__(self, event: Any) -> None:
        """Record an event."""
        with self._changed:
            self._events.append(event)
            self._changed.notify_all()

    @property
    def events(self) -> list[Any]:
        """All events so far, in the order in which they came."""
        with self._changed:
            return list(self._events)

    def next(self, timeout: float = 10.0) -> Any:
        """Return the next event; wait for it.

        Args:
            timeout: seconds to wait at most.

        Raises:
            TimeoutError: none came.
        """
        return self._take(lambda _: True, "an event", timeout)

    @overload
    def wait_for(self, what: type[T], timeout: float = 10.0) -> T: ...
    @overload
    def wait_for(self, what: str | Callable[[Any], object], timeout: float = 10.0) -> Any: ...
    def wait_for(self, what: Any, timeout: float = 10.0) -> Any:
        """Return the next event that matches; wait for it.

        Events before it are skipped: neither this nor `next()` returns them any more
        (`events` has them). If none matches in time, nothing is skipped.

        Args:
            what: an event type, such as `"greet"`; a class, such as `MessageEvent`; or
                a function that gets an event and returns whether it matches.
            timeout: seconds to wait at most.

        Raises:
            TimeoutError: none came; the message says what came instead.
        """
        if isinstance(what, str):
            return self._take(lambda event: getattr(event, "type", None) == what, what, timeout)
        if isinstance(what, type):
            return self._take(lambda event: isinstance(event, what), what.__name__, timeout)
        if not callable(what):
            raise TypeError(f"what must be an event type, a class or a function, not {what!r}")
        return self._take(what, getattr(what, "__qualname__", repr(what)), timeout)

    def _take(self, is_wanted: Callable[[Any], object], what: str, timeout: float) -> Any:
        deadline = time.monotonic() + timeout
        end = sys.maxsize  # after the time is up: how many events there were by then
        with self._changed:
            start = seen = self._taken
        while True:
            with self._changed:
                rest = deadline - time.monotonic()
                if rest <= 0:
                    end = min(end, len(self._events))
                self._changed.wait_for(lambda: len(self._events) > seen, max(0.0, rest))  # noqa: B023
                if seen == min(end, len(self._events)):
                    came = ", ".join(map(repr, self._events[start:])) or "nothing"
                    raise TimeoutError(f"waited {timeout} s for {what}; there came {brief(came)}")
                event = self._events[seen]
            seen += 1
            if is_wanted(event):  # called without the lock, because it may be the test's code
                with self._changed:
                    if self._taken < seen:  # else another thread has taken it
                        self._taken = seen
                        return event
