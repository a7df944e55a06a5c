"""The exceptions of this package.

Each is a `requests.RequestException` of the most suitable kind, so the `except` clauses of
programs that use requests catch it. Failures for which requests already has an exception
(`ConnectionError`, `SSLError`, `ReadTimeout`, …) are reported as that exception.
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
    """The client itself ended the exchange: `close()` or `restart()`."""


class StreamEnded(EventSourceError, requests.ConnectionError):
    """The server ended the stream: the response body is complete.

    Attributes:
        is_foreign (bool): the body had another content type than an event stream, and no event
            came.
    """

    is_foreign = False


class BrokenBody(
    EventSourceError, requests.ConnectionError, requests.exceptions.ChunkedEncodingError
):
    """The body of a response is malformed or truncated."""


class ForkedError(EventSourceError):
    """The process was forked: a stream that had begun in the parent is closed in the child."""

    @classmethod
    def here(cls) -> ForkedError:
        """Return an exception whose text says what to do."""
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
        response: the server's response.
        withheld_from: the origin to which a redirect led, and to which the caller's
            credentials were not sent; if the status is 401 or 403, the text says so.
    """

    def __init__(self, response: requests.Response, withheld_from: str | None = None) -> None:
        self.status: int = response.status_code
        # Not the server's own phrase, which may be anything, even a secret that it echoes.
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
    """The server answered 200, but not with an event stream.

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
            text = f"the response has no content type; expected {wanted}"
        super().__init__(text + _place_of(response), response=response)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.response, self._content_types)


class EventTooLarge(EventSourceError):
    """An event is larger than `max_event_size`; its source closes for good.

    Attributes:
        size (int): how many bytes of the event had arrived.
        limit (int): `max_event_size`, in bytes.
    """

    def __init__(self, size: int, limit: int) -> None:
        self.size = size
        self.limit = limit
        super().__init__(f"an event of at least {size} bytes exceeds max_event_size={limit}")

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.size, self.limit)


class HeadTooLarge(EventSourceError):
    """The head of a response (its header fields) is too large; its source closes for good.

    Attributes:
        size (int): how much of it had arrived.
        limit (int): how much is accepted.
        unit (str): the unit of both: `"bytes"` or `"fields"`.
    """

    def __init__(self, size: int, limit: int, unit: str = "bytes") -> None:
        self.size = size
        self.limit = limit
        self.unit = unit
        super().__init__(f"a response head of at least {size} {unit} exceeds {limit}")

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.size, self.limit, self.unit)


def _place_of(response: requests.Response) -> str:
    """Name the URL that answered, if it is not the one that was requested."""
    return (
        f", at {redact(response.url)}" if any(hop.is_redirect for hop in response.history) else ""
    )


def phrase_of(status: int) -> str:
    """Return the usual reason phrase of an HTTP status; "" for an unknown status."""
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
"""Failures that another attempt would repeat."""


def summary(error: Exception) -> str:
    """Return the text of `error` for a log line.

    For an exception that is not one of requests', such as one from the caller's `auth`,
    this is only its type: its text may contain a secret.
    """
    kind = type(error).__name__
    return brief(f"{kind}: {error}") if isinstance(error, requests.RequestException) else kind
