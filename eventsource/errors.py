"""What can go wrong between a source and its server.

Each is a `requests.RequestException`, and of the most fitting kind, so that the
`except` clauses of programs that know requests catch it. Failures for which
requests has an exception of its own (`ConnectionError`, `SSLError`,
`ReadTimeout`, ...) are reported as that.
"""

from __future__ import annotations

import errno
import http.client
import re
from collections.abc import Iterator
from typing import Any, Final

import requests
import urllib3

from .urls import brief, redact_text


class EventSourceError(requests.RequestException):
    """The base of this package's own exceptions."""


class Aborted(EventSourceError):
    """The exchange was ended from this side: `close()` or `restart()`."""


class StreamEnded(EventSourceError, requests.ConnectionError):
    """The server ended the stream: the response body is complete."""


class BrokenBody(EventSourceError, requests.exceptions.ChunkedEncodingError):
    """The body of a response is malformed, or was cut short."""


class EventTimeout(EventSourceError, requests.Timeout):
    """No message came for `event_timeout` seconds."""


class UnexpectedStatus(EventSourceError, requests.HTTPError):
    """The server answered with a status other than 200.

    Attributes:
        status (int): the HTTP status.
        response (requests.Response): its body, as far as it arrived within limits
            (64 KiB, one second), is in `response.content`.
    """

    def __init__(self, response: requests.Response) -> None:
        self.status: int = response.status_code
        # A reason of its own making may be anything, such as what it was sent.
        usual = response.reason and response.reason == http.client.responses.get(self.status)
        reason = f" {response.reason}" if usual else ""
        super().__init__(
            f"the server answered {self.status}{reason}, not 200",
            response=response,
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.response,)


class UnexpectedContentType(EventSourceError):
    """The server answered 200, but with something that is no event stream.

    Attributes:
        content_type (str): the response's `Content-Type`, or `""`.
        response (requests.Response): its body has not been read.
    """

    def __init__(self, response: requests.Response) -> None:
        self.content_type: str = response.headers.get("Content-Type", "")
        shown = brief(self.content_type.partition(";")[0])
        super().__init__(
            f"the response's content type is {shown!r}, not 'text/event-stream'",
            response=response,
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.response,)


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


def describe(error: BaseException) -> BaseException:
    """Return `error` as a requests exception whose text gives no secrets away.

    urllib3's errors become requests' (requests itself does that for some); texts
    that quote the URL, with its query and credentials, are put without.
    Exceptions from elsewhere, such as the caller's `auth`, stay as they are, but for a
    `UnicodeError`, which holds what was to be encoded.
    """
    for cause in _chain(error):  # ours is an OSError, which libraries below pack into their own
        if isinstance(cause, HeadTooLarge):
            return HeadTooLarge(cause.size, cause.limit, cause.unit)  # and no traceback
    if isinstance(error, UnicodeError):
        return ValueError(str(error))
    if isinstance(error, _READ_TIMEOUTS) and any(
        isinstance(cause, TimeoutError) and cause.errno == errno.ETIMEDOUT
        for cause in _chain(error)
    ):  # TCP's own
        return requests.ConnectionError("the peer is gone: the connection has timed out")
    if isinstance(error, urllib3.exceptions.HTTPError):
        return _KINDS.get(type(error), requests.ConnectionError)(_plain_text(error))
    if (
        type(error).__module__ == requests.exceptions.__name__
        and isinstance(error, requests.RequestException)
        and not isinstance(error, requests.JSONDecodeError)
    ):
        reason = error.args[0] if error.args else error
        is_of_the_answer = isinstance(reason, urllib3.exceptions.InvalidHeader)
        if type(error) in _TEXTS and not is_of_the_answer and "SOCKS" not in str(error):
            text = _TEXTS[type(error)]  # and not its own, which quotes a token or a URL
            return type(error)(text, request=error.request, response=error.response)
        text = _plain_text(reason) if isinstance(reason, Exception) else redact_text(str(error))
        return type(error)(text, request=error.request, response=error.response)
    return error


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error, and those in whose handling it was raised."""
    while error is not None:
        yield error
        error = error.__context__


_READ_TIMEOUTS: Final = (requests.ReadTimeout, urllib3.exceptions.ReadTimeoutError)
_KINDS: Final[dict[type, type[requests.RequestException]]] = {
    urllib3.exceptions.ReadTimeoutError: requests.ReadTimeout,
    urllib3.exceptions.SSLError: requests.exceptions.SSLError,
    urllib3.exceptions.DecodeError: requests.exceptions.ContentDecodingError,
    urllib3.exceptions.ProtocolError: requests.exceptions.ChunkedEncodingError,
    urllib3.exceptions.IncompleteRead: requests.exceptions.ChunkedEncodingError,
    urllib3.exceptions.InvalidChunkLength: requests.exceptions.ChunkedEncodingError,
    urllib3.exceptions.LocationParseError: requests.exceptions.InvalidURL,
}


_NOT_HTTP: Final = (http.client.BadStatusLine, http.client.UnknownProtocol)

_TEXTS: Final[dict[type, str]] = {
    requests.exceptions.InvalidHeader: "a header field cannot be sent",
    requests.exceptions.InvalidSchema: "the URL's scheme cannot be fetched",
    requests.exceptions.InvalidURL: "a URL cannot be parsed",
}


def _plain_text(error: BaseException) -> str:
    # MaxRetryError quotes the URL's path and query; what it wraps does not.
    while isinstance(error, urllib3.exceptions.MaxRetryError) and error.reason is not None:
        error = error.reason
    if isinstance(error, urllib3.exceptions.LocationParseError):
        return "a URL cannot be parsed"  # it may be a proxy's, with a password
    if any(isinstance(arg, http.client.RemoteDisconnected) for arg in error.args):
        return "the server closed the connection without an answer"
    if any(isinstance(arg, _NOT_HTTP) for arg in error.args):
        return "the answer is not HTTP"  # an echo of what was sent, perhaps
    if isinstance(error, urllib3.exceptions.DecodeError) and len(error.args) > 1:
        return f"the body cannot be decompressed: {error.args[1]}"  # args[0] quotes the server
    if len(error.args) == 2 and isinstance(error.args[0], str):  # urllib3's: a text and the cause
        text, cause = error.args[0].rstrip("."), error.args[1]
        if isinstance(cause, OSError) and cause.strerror:
            return redact_text(f"{text.partition(':')[0]}: {cause.strerror}")
        refused = re.match(r"(Tunnel connection failed): ([0-9]+)", str(cause))
        if refused:  # a reason of the proxy's own making may be anything, such as what it was sent
            reason = http.client.responses.get(int(refused[2]), "")
            return f"{text}: {refused[1]}: {refused[2]} {reason}".rstrip()
        if isinstance(cause, Exception):
            return redact_text(text if str(cause) in text else f"{text}: {cause}")
    return redact_text(str(error))


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
