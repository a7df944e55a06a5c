"""What a fork leaves behind: in the child, whatever streamed is closed.

Only the thread that forked lives on in the child. The locks that others held stay locked
there for ever, and the sockets are the parent's, whose bytes nobody else must take.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from typing import Protocol


class _Inherited(Protocol):
    def _after_fork(self) -> None:
        """Make new locks; let go of the parent's things without touching them.

        Not counting on any other object's locks, which may be made anew later.
        """


_inherited: weakref.WeakSet[_Inherited] = weakref.WeakSet()


def tell_in_child(inherited: _Inherited) -> None:
    """Have `_after_fork()` of an object called in the child of each fork while it lives."""
    _inherited.add(inherited)


def run_in_child(function: Callable[[], None]) -> None:
    """Have a function called in the child of each fork."""
    if hasattr(os, "register_at_fork"):  # not on Windows, which has no forks
        os.register_at_fork(after_in_child=function)


def _tell() -> None:
    for inherited in list(_inherited):
        inherited._after_fork()  # noqa: SLF001 - it is for here


run_in_child(_tell)
