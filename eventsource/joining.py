"""Joining threads that may join each other."""

from __future__ import annotations

import threading

from .forking import run_in_child

# Guards the next; re-entrant for a signal handler that joins. Held for look-ups only.
_lock = threading.RLock()
_waits_for: dict[threading.Thread, threading.Thread] = {}


def _after_fork() -> None:
    global _lock  # noqa: PLW0603 - a thread that is not here may hold the former
    _lock = threading.RLock()
    _waits_for.clear()


run_in_child(_after_fork)


def join(thread: threading.Thread, timeout: float | None) -> bool:
    """Wait until a thread has ended, unless it waits for the present one in here.

    Two handlers that join each other's source, also by way of others, would never go on.

    Args:
        thread: the thread.
        timeout: seconds to wait at the most; None: as long as it takes.

    Returns:
        Whether it has ended. False at once if it waits for this one, or is it.
    """
    current = threading.current_thread()
    with _lock:
        other: threading.Thread | None = thread
        while other is not None:
            if other is current:
                return False
            other = _waits_for.get(other)
        interrupted = _waits_for.get(current)  # a join that this one has a signal handler in
        _waits_for[current] = thread
    try:
        thread.join(timeout)
    finally:
        with _lock:
            if interrupted is None:
                del _waits_for[current]
            else:
                _waits_for[current] = interrupted
    return not thread.is_alive()
