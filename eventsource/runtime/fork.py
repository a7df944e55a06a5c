"""What a fork leaves behind: in the child, whatever streamed is closed.

Only the thread that forked lives on in the child. The locks that others held stay locked
there for ever, and the sockets are the parent's, whose bytes nobody else must take.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Final, TypeVar

T = TypeVar("T")

logger = logging.getLogger(__name__)

_lock: Final = threading.RLock()  # re-entrant for a signal handler that forks, or closes
_inherited: weakref.WeakKeyDictionary[Any, Callable[[Any], None]] = weakref.WeakKeyDictionary()


def close_in_child(inherited: T, close: Callable[[T], None]) -> None:
    """Have `close(inherited)` called in the child of each fork while the object lives.

    It must make new locks, drop the parent's things without touching them, and not count on
    the locks of any other object, which may be made anew later.
    """
    _inherited[inherited] = close


def no_fork() -> AbstractContextManager[object]:
    """Guard what must not be inherited half-way. One thread at a time, and briefly.

    The lock itself: Ctrl-C cannot come between taking it and being in the block.
    """
    if sys.is_finalizing():  # a thread that is no more may have the lock
        return contextlib.nullcontext()
    return _lock


def _tell() -> None:
    _lock.release()
    for inherited, close in list(_inherited.items()):
        try:
            close(inherited)
        except Exception:  # the others are to be told all the same
            logger.exception("%r: after a fork", inherited)


if hasattr(os, "register_at_fork"):  # not on Windows, which has no forks
    os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_tell)
