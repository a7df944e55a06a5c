"""Turns failures of the lower layers into exceptions of requests, without secrets.

It decides only by the types of errors and by their contents, never by the English text of
another library.
"""

from __future__ import annotations

import errno
import http.client
import ssl
from collections.abc import Iterator
from typing import Final

import requests
import urllib3

from eventsource.errors import BrokenBody, HeadTooLarge, phrase_of
from eventsource.urls import redact_text


class TunnelRefused(OSError):
    """A proxy refused to make a tunnel. Its reason phrase, which may quote a secret, is dropped."""

    def __init__(self, status: int) -> None:
        super().__init__(f"Tunnel connection failed: {status} {phrase_of(status)}".rstrip())


class LostInHead(http.client.RemoteDisconnected):
    """The connection ended within the head of a response."""


class NoSocksSupport(requests.exceptions.InvalidSchema):
    """The proxy is a SOCKS proxy, and PySocks is not installed."""


def describe(error: BaseException) -> BaseException:
    """Return `error` as an exception of requests whose text contains no secrets.

    urllib3's errors become those of requests (requests itself does that for some of them).
    Texts that quote the URL, with its query and credentials, are replaced. Exceptions from
    elsewhere, such as the caller's `auth`, are returned unchanged, except a `UnicodeError`,
    which contains the text that could not be encoded.
    """
    for cause in _chain(error):  # HeadTooLarge is an OSError, which other libraries wrap
        if isinstance(cause, HeadTooLarge):
            return HeadTooLarge(cause.size, cause.limit, cause.unit)  # a new one, no traceback
    if isinstance(error, UnicodeError):
        return ValueError(str(error))
    if isinstance(error, _READ_TIMEOUTS) and any(
        isinstance(cause, TimeoutError) and cause.errno == errno.ETIMEDOUT
        for cause in _chain(error)
    ):  # TCP's own
        return requests.ConnectionError(_PEER_IS_GONE)
    if (
        type(error).__module__ == requests.exceptions.__name__
        and isinstance(error, requests.RequestException)
        and not isinstance(error, requests.JSONDecodeError)
    ):
        reason = error.args[0] if error.args else error
        is_of_the_answer = isinstance(reason, urllib3.exceptions.InvalidHeader)
        if type(error) in _TEXTS and not is_of_the_answer:
            text = _TEXTS[type(error)]  # the error's own text quotes a token or a URL
            return type(error)(text, request=error.request, response=error.response)
        text = redact_text(str(error))
        if isinstance(reason, Exception):
            is_of_body = isinstance(error, requests.exceptions.ChunkedEncodingError)
            text = _text_of_body(reason) if is_of_body else _plain_text(reason)
        return type(error)(text, request=error.request, response=error.response)
    if isinstance(error, urllib3.exceptions.HTTPError):
        kind = _KINDS.get(type(error), requests.ConnectionError)
        is_of_body = kind is requests.exceptions.ChunkedEncodingError
        return kind(_text_of_body(error) if is_of_body else _plain_text(error))
    return error


def describe_of_socket(error: BaseException) -> BaseException:
    """Like `describe`, for an error from reading a body, which may come from the socket."""
    if not isinstance(error, OSError) or isinstance(error, requests.RequestException):
        return describe(error)
    if isinstance(error, TimeoutError):
        if error.errno == errno.ETIMEDOUT:  # TCP's own
            return requests.ConnectionError(_PEER_IS_GONE)
        return requests.ReadTimeout("Read timed out")
    if isinstance(error, ssl.SSLError):
        return requests.exceptions.SSLError(error.strerror or str(error))
    return BrokenBody(_lost(error.strerror))


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and the chain of its `__context__`."""
    while error is not None:
        yield error
        error = error.__context__


_PEER_IS_GONE: Final = "the peer is gone: the connection has timed out"
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


def _lost(reason: str | None) -> str:
    lost = "the connection was lost within the response"
    return f"{lost}: {reason}" if reason else lost


def _text_of_body(error: BaseException) -> str:
    """Return what is wrong with a body that urllib3 or http.client has read."""
    # The arguments of urllib3's error are a text and the cause, or it is the cause itself.
    cause = error.args[1] if len(error.args) == 2 else error
    if isinstance(cause, urllib3.exceptions.InvalidChunkLength):
        return "the size of a chunk is not a hexadecimal number"  # its own text quotes the server
    if isinstance(cause, http.client.IncompleteRead):
        if cause.expected is not None and cause.expected < 0:
            return "the response has content where none is allowed"
        if isinstance(cause.__context__, ValueError):  # http.client: no chunk size, or a bad one
            return f"{_lost(None)}, or the size of a chunk is not a hexadecimal number"
        return _lost(f"{cause.expected} bytes are missing" if cause.expected else None)
    if isinstance(cause, OSError):
        return _lost(cause.strerror)
    if type(cause) is urllib3.exceptions.ProtocolError:  # the last chunk is missing
        return _lost(None)
    return _plain_text(error)


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
    if any(isinstance(arg, LostInHead) for arg in error.args):
        return "the connection was lost within the response's head"
    if any(isinstance(arg, http.client.RemoteDisconnected) for arg in error.args):
        return "the server closed the connection without an answer"
    if any(isinstance(arg, _NOT_HTTP) for arg in error.args):
        return "the answer is not HTTP"  # it may echo what was sent
    if isinstance(error, urllib3.exceptions.DecodeError) and len(error.args) > 1:
        return f"the body cannot be decompressed: {error.args[1]}"  # args[0] quotes the server
    if len(error.args) == 2 and isinstance(error.args[0], str):  # urllib3's: a text and the cause
        text, cause = error.args[0].rstrip("."), error.args[1]
        if isinstance(cause, OSError) and cause.strerror:
            return redact_text(f"{text.partition(':')[0]}: {cause.strerror}")
        if isinstance(cause, Exception):
            return redact_text(text if str(cause) in text else f"{text}: {cause}")
    return redact_text(str(error))
