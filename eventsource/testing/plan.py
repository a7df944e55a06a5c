"""`Planned`: how a stream of an `SSEServer` answers its next requests."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

from .answers import STALL, STREAM, Answer, make_answer, make_redirect
from .blocks import check_count
from .site import Site


class Planned:
    """A queue of answers, one for each further request; when it is empty, the stream.

    Threads: every method may be called from any.
    """

    def __init__(self, site: Site) -> None:
        self._site = site
        self._plan: deque[Answer] = deque()  # guarded by the site's lock

    def status(
        self,
        status: int,
        *,
        retry_after: int | str | None = None,
        headers: Mapping[str, str] | None = None,
        body: str | bytes = b"",
        times: int = 1,
    ) -> None:
        """Answer the next requests with a status instead of the stream.

        The answers of `status()`, `redirect()` and `stall()` form one queue, one for each
        request; then the stream is served again.

        Args:
            status: 200 to 599. A 200 has another content type than a stream.
            retry_after: for the `Retry-After` field: seconds, or an HTTP date.
            headers: more header fields.
            body: the body; a str is sent as UTF-8.
            times: how many requests.

        Raises:
            TypeError, ValueError: an argument cannot be used; the message names it.
        """
        self._plan_answer(make_answer(status, retry_after, headers, body), times)

    def redirect(self, location: str, *, status: int = 307, times: int = 1) -> None:
        """Answer the next requests with a redirect; see `status()`.

        Args:
            location: a path of this server, or an absolute URL; percent-encoded.
            status: 301, 302, 303, 307 or 308.
            times: how many requests.

        Raises:
            TypeError, ValueError: an argument cannot be used; the message names it.
        """
        self._plan_answer(make_redirect(location, status), times)

    def stall(self, *, times: int = 1) -> None:
        """Send no answer to the next requests, until the client closes or `drop()`.

        Args:
            times: how many requests; see `status()`.

        Raises:
            TypeError, ValueError: `times` is not a whole number of 1 or more.
        """
        self._plan_answer(STALL, times)

    def _plan_answer(self, answer: Answer, times: int) -> None:
        check_count("times", times)
        with self._site.change():
            self._plan.extend([answer] * times)

    def _next_answer(self) -> Answer:
        """Take the answer to a request from the queue. The caller holds the site's lock."""
        return self._plan.popleft() if self._plan else STREAM
