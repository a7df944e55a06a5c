"""What the streams of an `SSEServer` share: its origin, its requests, and one condition."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Final

from .request import Request

_SHOWN: Final = 20
"""The most requests that an error's text lists: the last ones of perhaps thousands."""


class Site:
    """The requests of a server, and the condition variable for all waits.

    Its lock guards everything that can change in the streams of the server. It is held for
    assignments and for system calls that never wait.
    """

    def __init__(self) -> None:
        self.origin = ""  # written once, when the server has its port
        self.changed = threading.Condition()  # re-entrant: conditions may look at `requests`
        self._closed = False
        self._requests: list[Request] = []
        self._answers: list[str] = []

    @contextlib.contextmanager
    def change(self) -> Iterator[None]:
        """Hold the lock for a change, then wake all that wait.

        Raises:
            RuntimeError: the server is closed.
        """
        with self.changed:
            if self._closed:
                raise RuntimeError("the server is closed")
            yield
            self.changed.notify_all()

    def note(self, request: Request, answer: str) -> None:
        """Add a request and the name of its answer."""
        with self.changed:
            self._requests.append(request)
            self._answers.append(answer)
            self.changed.notify_all()

    def requests(self, path: str | None = None) -> list[Request]:
        """Return the requests so far, or those of a path."""
        with self.changed:
            return [each for each in self._requests if path in (None, each.path)]

    def wait_for(
        self, condition: Callable[[], bool], timeout: float, what: str, now: Callable[[], str]
    ) -> None:
        """Wait until a condition is true.

        Args:
            condition: called with the lock held.
            timeout: seconds to wait at most.
            what: a description of the condition, for the error's text.
            now: returns a description of the present state, for the same text.

        Raises:
            TimeoutError: it has not become true; the message says what came instead.
            RuntimeError: the server is closed, so it cannot become true.
        """
        with self.changed:
            self.changed.wait_for(lambda: condition() or self._closed, timeout)
            if condition():
                return
            if self._closed:
                raise RuntimeError(f"the server is closed: no use waiting for {what}")
            came = [
                f"{request.method} {request.target} ({answer})"
                for request, answer in zip(self._requests, self._answers, strict=True)
            ]
            before = f"{len(came) - _SHOWN} others, " if len(came) > _SHOWN else ""
            raise TimeoutError(
                f"waited {timeout} s for {what}: {now()};"
                f" requests so far: {before}{', '.join(came[-_SHOWN:]) or 'none'}"
            )

    def close(self) -> None:
        """End all waits, and refuse all further changes."""
        with self.changed:
            self._closed = True
            self.changed.notify_all()
