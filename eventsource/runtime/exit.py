"""The end of the program: calls into a toolkit's code finish first, and no new ones begin.

When the interpreter exits, toolkits shut down, and the remaining threads are stopped wherever
they are. A thread that is stopped inside the code of Qt or wx would crash the process.
"""

from __future__ import annotations

import atexit
import functools
import os
import threading
import time
from collections.abc import Callable
from typing import Final, TypeVar

from .wakeup import Wakeup

T = TypeVar("T")

EXIT_SECONDS: Final = 1.0
"""The most seconds that the exit waits. Posting an event takes microseconds, but a `dispatch`
may wait for ever, for example for room in a queue."""

# Each side sets its own flag before it reads the other's, so at least one of them sees both.
_under_way: set[object] = set()
_is_over = False
_out = Wakeup()  # set after a call has returned, if the program is ending


def is_ending() -> bool:
    """Return whether the program is ending: its thread pools may already be shut down."""
    return getattr(threading, "_SHUTTING_DOWN", False)  # set before; there is no public name


@functools.cache
def watch_for_exit() -> None:
    """Make sure that the program waits at its exit for the calls of `before_exit`.

    The first call must come after the toolkit's import: at exit, the function that was
    registered last is called first.
    """
    atexit.register(_end)


def before_exit(call: Callable[[T], object], argument: T) -> bool:
    """Call a function, unless the program is ending; the exit waits until it returns.

    For any thread.

    Returns:
        Whether it was called.
    """
    this = object()
    _under_way.add(this)
    try:
        if _is_over:
            return False
        call(argument)
    finally:
        _under_way.discard(this)
        if _is_over:
            _out.set()
    return True


def _end() -> None:
    global _is_over  # noqa: PLW0603 - one state of the process
    _is_over = True
    deadline = time.monotonic() + EXIT_SECONDS
    while _under_way and (left := deadline - time.monotonic()) > 0:
        _out.wait(left)


if hasattr(os, "register_at_fork"):  # the threads of these calls do not exist in the child
    os.register_at_fork(after_in_child=_under_way.clear)
