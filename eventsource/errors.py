"""What can go wrong between a source and its server.

Each is a `requests.RequestException`, and of the most fitting kind, so that the
`except` clauses of programs that know requests catch it. Failures for which
requests has an exception of its own (`ConnectionError`, `SSLError`,
`ReadTimeout`, ...) are reported as that.
"""

from __future__ import annotations

import http
from collections.abc import Collection
from typing import Any, Final

import requests

from .urls import brief, redact


class EventSourceError(requests.RequestException):
    """The base of this package's own exceptions."""


class Aborted(EventSourceError):
    """The exchange was ended from this side: `close()` or `restart()`."""


class StreamEnded(EventSourceError, requests.ConnectionError):
    """The server ended the stream: the response body is complete.

    Attributes:
        is_foreign (bool): the body was of another content type than an event stream's, and no
            event came.
    """

    is_foreign = False


class BrokenBody(
    EventSourceError, requests.ConnectionError, requests.exceptions.ChunkedEncodingError
):
    """The body of a response is malformed, or was cut short."""


class ForkedError(EventSourceError):
    """The process has been forked: a stream that had begun in the parent is closed here."""

    @classmethod
    def here(cls) -> ForkedError:
        """Return the one that says what to do."""
        return cls("the process has been forked; make it, or start it, in the child")


class EventTimeout(EventSourceError, requests.Timeout):
    """No message came for `event_timeout` seconds."""


class UnexpectedStatus(EventSourceError, requests.HTTPError):
    """The server answered with a status other than 200.

    Attributes:
        status (int): the HTTP status.
        response (requests.Response): its body, as far as it arrived within limits
            (64 KiB, one second), is in `response.content`.

    Args:
        response: what the server answered.
        withheld_from: the origin that a redirect led to and that was not sent the
            caller's credentials; if the status is 401 or 403, the text says so.
    """

    def __init__(self, response: requests.Response, withheld_from: str | None = None) -> None:
        self.status: int = response.status_code
        # Not the server's own phrase, which may be anything, such as what it was sent.
        answer = f"{self.status} {phrase_of(self.status)}".rstrip()
        self._withheld_from = withheld_from
        why = ""
        if withheld_from is not None and self.status in (401, 403):
            why = (
                f"; the credentials were not sent to {brief(withheld_from)},"
                " which is not in trusted_origins"
            )
        super().__init__(
            f"the server answered {answer}, not 200{_place_of(response)}{why}",
            response=response,
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.response, self._withheld_from)


class UnexpectedContentType(EventSourceError):
    """The server answered 200, but with something that is no event stream.

    Attributes:
        content_type (str): the response's `Content-Type`, or `""`.
        response (requests.Response): its body, as far as it arrived within limits
            (64 KiB, one second), is in `response.content`.
    """

    def __init__(
        self,
        response: requests.Response,
        content_types: Collection[str] = ("text/event-stream",),
    ) -> None:
        self.content_type: str = response.headers.get("Content-Type", "")
        self._content_types = tuple(content_types)
        found = brief(self.content_type.partition(";")[0])
        wanted = " or ".join(map(repr, self._content_types))
        if found:
            text = f"the response's content type is {found!r}, not {wanted}"
        else:
            text = f"the response has no content type; wanted is {wanted}"
        super().__init__(text + _place_of(response), response=response)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.response, self._content_types)


class EventTooLarge(EventSourceError):
    """An event is larger than `max_event_size`; its source closes for good.

    Attributes:
        size (int): bytes of the event that had arrived when it was given up.
        limit (int): `max_event_size`, in bytes.
    """

    def __init__(self, size: int, limit: int) -> None:
        self.size = size
        self.limit = limit
        super().__init__(f"an event of at least {size} bytes exceeds max_event_size={limit}")

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.size, self.limit)


class HeadTooLarge(EventSourceError):
    """The head of a response, its header fields, is too large; its source closes for good.

    Attributes:
        size (int): how much of it had arrived when it was given up.
        limit (int): how much is accepted.
        unit (str): of what: `"bytes"` or `"fields"`.
    """

    def __init__(self, size: int, limit: int, unit: str = "bytes") -> None:
        self.size = size
        self.limit = limit
        self.unit = unit
        super().__init__(f"a response head of at least {size} {unit} exceeds {limit}")

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.size, self.limit, self.unit)


def _place_of(response: requests.Response) -> str:
    """Name the URL that answered, if it is not the one that was asked."""
    return (
        f", at {redact(response.url)}" if any(hop.is_redirect for hop in response.history) else ""
    )


def phrase_of(status: int) -> str:
    """Return the reason phrase that an HTTP status usually has; "" for an unknown status."""
    try:
        return http.HTTPStatus(status).phrase
    except ValueError:
        return ""


FUTILE: Final = (
    requests.exceptions.InvalidSchema,
    requests.exceptions.MissingSchema,
    requests.exceptions.InvalidURL,
    requests.exceptions.UnrewindableBodyError,
)
"""Failures that another attempt would only repeat."""


def summary(error: Exception) -> str:
    """Say `error` in a log line.

    Of an exception that is not requests' own, such as one from the caller's `auth`,
    only the kind is told: its text may hold anything.
    """
    kind = type(error).__name__
    return brief(f"{kind}: {error}") if isinstance(error, requests.RequestException) else kind
