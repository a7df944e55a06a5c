"""After a fork: in the child, everything that streamed is closed.

Only the thread that forked exists in the child. Locks that other threads held stay locked
there for ever. The sockets belong to the parent; no other process may read from them.
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

TELL_SECONDS: Final = 0.2
"""The most seconds that a child waits for its log lines to be written: threads that do not
exist in it may hold the locks of its log handlers. Writing takes a thousandth of that."""

_lock: Final = threading.RLock()  # re-entrant for a signal handler that forks, or closes
_inherited: weakref.WeakKeyDictionary[Any, Callable[[Any], str | None]] = (
    weakref.WeakKeyDictionary()
)


def close_in_child(inherited: T, close: Callable[[T], str | None]) -> None:
    """Call `close(inherited)` in the child of each fork, as long as the object lives.

    The text that it returns is logged there as a warning. It must make new locks and drop the
    parent's resources without using them. It must not rely on the locks of any other object,
    which may be renewed later.
    """
    _inherited[inherited] = close


def no_fork() -> AbstractContextManager[object]:
    """Prevent a fork during the block, for one thread at a time and only for a short time.

    Returns the lock itself, so Ctrl-C cannot come between taking it and entering the block.
    """
    if sys.is_finalizing():  # a thread that no longer exists may hold the lock
        return contextlib.nullcontext()
    return _lock


def _close_all() -> None:
    _lock.release()
    told: list[str] = []
    for inherited, close in list(_inherited.items()):
        try:
            text = close(inherited)
        except Exception as error:  # close the others all the same
            told.append(f"{inherited!r}: after a fork: {error!r}")
        else:
            told += [text] if text is not None else []
    if told:
        _warn(told)


def _warn(texts: list[str]) -> None:
    """Log the texts in a separate thread, which may wait for ever."""

    def tell() -> None:
        for text in texts:
            logger.warning("%s", text)

    thread = threading.Thread(target=tell, name="eventsource-fork", daemon=True)
    thread.start()
    thread.join(TELL_SECONDS)


if hasattr(os, "register_at_fork"):  # not on Windows, which has no forks
    os.register_at_fork(
        before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_close_all
    )
