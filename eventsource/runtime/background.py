"""Work in a thread that continues when the waiting thread gives up."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from .wakeup import Wakeup

T = TypeVar("T")


class Background(Generic[T]):
    """Does one piece of work in a new thread, which starts at once.

    Threads: `is_done` and `result` are for any thread.

    Args:
        work: the function to call. It must end when the object that it works on is closed.
        name: the name of the thread.
        wakeup: set when the work is done.

    Attributes:
        is_done (bool): whether there is a result. Set once, never unset.
    """

    def __init__(self, work: Callable[[], T], *, name: str, wakeup: Wakeup) -> None:
        self.is_done = False
        self._results: list[T] = []
        self._error: BaseException | None = None
        self._wakeup = wakeup
        threading.Thread(target=self._run, args=[work], name=name, daemon=True).start()

    def _run(self, work: Callable[[], T]) -> None:
        try:
            self._results.append(work())
        except BaseException as error:  # raised by result()
            self._error = error
        self.is_done = True
        self._wakeup.set()

    def result(self) -> T:
        """Return the result of the work, or raise its exception."""
        assert self.is_done
        if self._error is not None:
            error, self._error = self._error, None
            try:
                raise error
            finally:
                del error  # else error, traceback and frame would be a reference cycle
        return self._results.pop()
