"""What the caller may pass on to the request, checked before anything is sent."""

from __future__ import annotations

import re
import ssl
import threading
from collections.abc import Mapping
from http.cookiejar import CookieJar
from typing import Any, Final
from urllib.parse import urlsplit

import requests
import urllib3
from urllib3.util import parse_url

from eventsource.urls import redact_strictly

DEFAULT_TIMEOUT: Final = (10.0, None)
"""Seconds to connect, and to wait for bytes (no limit: a stream may be silent)."""

TLS_CONTEXT: Final = ssl.SSLContext.__mro__[-2]
"""What all TLS contexts are, whatever stands in `ssl` for its own class: truststore's,
gevent's and eventlet's are, too."""

_OPTIONS: Final[dict[str, tuple[type, ...]]] = {
    "params": (object,),
    "data": (object,),
    "json": (object,),
    "files": (object,),
    "headers": (Mapping,),
    "cookies": (Mapping, CookieJar),
    "timeout": (int, float, tuple, urllib3.Timeout),
    "allow_redirects": (bool,),
    "proxies": (Mapping,),
    "hooks": (Mapping,),
    "verify": (bool, str, TLS_CONTEXT),
    "cert": (str, tuple),
}
"""The keyword arguments of `requests.request` and the types each may have; `auth`,
`method` and `url` are checked on their own, and `stream` is not the caller's."""

OPTION_NAMES: Final = frozenset({*_OPTIONS, "auth"})


def check_url(url: object) -> str:
    """Return `url` if it is an absolute URL that could be fetched.

    A scheme that cannot be fetched passes: that is a failed connection.
    """
    if not isinstance(url, str):
        raise TypeError(f"url must be a str, not {type(url).__name__}")
    refusal = (
        f"url must be an absolute URL such as 'https://host/path', not {redact_strictly(url)!r}"
    )
    scheme = re.match(r"[A-Za-z][A-Za-z0-9+.-]*(?=:)", url.lstrip())
    # "localhost:8000/path" has a scheme by the letter, and a forgotten one in fact.
    if scheme is None or re.match(r"[^:/]*:[0-9]+(/|$)", url.lstrip()):
        raise requests.exceptions.MissingSchema(refusal)
    if scheme.group().lower() in ("http", "https"):
        try:
            host = urlsplit(url.strip()).hostname or ""
            # The forbidden host code points of the URL standard.
            if re.search(r"[\x00-\x20#/<>?@\\^|%\x7f]", host):
                raise ValueError("a character that no host name has")  # noqa: TRY301
            host.encode("idna")
            requests.Request("GET", url).prepare()
        except (ValueError, requests.RequestException):
            raise requests.exceptions.InvalidURL(refusal) from None
    return url


def check_options(method: object, session: object, options: Mapping[str, Any]) -> None:
    """Refuse arguments that no request can be made of, by name.

    Raises:
        TypeError: an argument is unknown or of the wrong type.
        ValueError: a value cannot be sent.
    """
    if not isinstance(method, str):
        raise TypeError(f"method must be a str, not {method!r}")
    if not re.fullmatch(r"[-!#$%&'*+.^_`|~0-9A-Za-z]+", method):
        raise ValueError(f"method must be a token such as 'GET', not {method!r}")
    if session is not None and not isinstance(session, requests.Session):
        raise TypeError(f"session must be a requests.Session or None, not {type(session).__name__}")
    for name, value in options.items():
        if name == "auth":
            _check_auth(value)
        elif name not in _OPTIONS:
            raise TypeError(f"unexpected keyword argument {name!r}")
        elif value is not None and not isinstance(value, _OPTIONS[name]):
            kinds = " or ".join(kind.__name__.lstrip("_") for kind in _OPTIONS[name])
            raise TypeError(f"{name} must be of type {kinds}, not {type(value).__name__}")
    if isinstance(options.get("verify"), TLS_CONTEXT) and options.get("cert") is not None:
        raise ValueError(
            "cert: verify is an SSLContext, which has a client certificate of its own"
            " (load_cert_chain)"
        )
    check_headers(options.get("headers") or {})
    try:
        _check_timeout(options.get("timeout", DEFAULT_TIMEOUT))
    except ValueError as error:
        raise ValueError(f"timeout: {error}") from None
    _check_proxies(options.get("proxies") or {})
    for name in ("params", "json", "cookies"):
        if options.get(name) is not None:
            _check_sendable(name, options[name])
    for name in ("data", "files"):
        if options.get("json") is not None and options.get(name):
            raise ValueError(f"json: there is {name}, too, and a request has one body")


def check_headers(headers: Mapping[Any, Any]) -> None:
    """Refuse header fields that cannot be sent, naming them but not their values.

    Raises:
        TypeError: a name or value is neither text nor bytes.
        ValueError: a name or value holds what must not be in it.
    """
    for name, value in headers.items():
        if not isinstance(name, str | bytes) or not isinstance(value, str | bytes | None):
            raise TypeError(f"headers: {name!r} and its value must be str or bytes")
        text = name.decode("latin-1") if isinstance(name, bytes) else name
        shown = re.split("[:=]", text, maxsplit=1)[0]  # not the value of "name: value"
        label = f"headers[{shown!r}]"
        if not re.fullmatch(r"[-!#$%&'*+.^_`|~0-9A-Za-z]+", text):
            raise ValueError(f"{label}: not the name of a header field")
        if value is None:
            continue
        line = value.decode("latin-1") if isinstance(value, bytes) else value
        foreign = re.search(r"[^\0-\xff]", line)
        if foreign:  # an encoding error would hold the value
            raise ValueError(
                f"{label}: {foreign.group()!r} at index {foreign.start()} is not latin-1;"
                " pass the value as bytes"
            )
        bad = re.search(r"[\r\n\0]|^\s", line)
        if bad:
            raise ValueError(f"{label}: {bad.group()!r} at index {bad.start()} is not allowed")


def _check_auth(auth: object) -> None:
    if auth is None or callable(auth):
        return
    if type(auth) is not tuple or len(auth) != 2:
        raise TypeError("auth must be a callable or a (user, password) tuple")
    for part in auth:
        if not isinstance(part, str | bytes):
            raise TypeError("auth: user and password must be str or bytes")
        if isinstance(part, str) and not part.isascii():
            try:
                part.encode("latin-1")
            except UnicodeEncodeError:
                raise ValueError("auth: not latin-1; pass user and password as bytes") from None


def _check_proxies(proxies: Mapping[Any, Any]) -> None:
    for name, url in proxies.items():
        if url is None or name == "no_proxy":
            continue
        try:
            host = parse_url(url).host
        except (TypeError, AttributeError, urllib3.exceptions.LocationParseError):
            host = None
        if not host:
            raise ValueError(f"proxies[{name!r}] is not a URL")


def _check_sendable(name: str, value: object) -> None:
    try:
        prepared = requests.Request("GET", "http://host/", **{name: value}).prepare()  # type: ignore[arg-type]
        for header in prepared.headers.values():
            if re.search(r"[\r\n]", str(header)):
                raise ValueError("holds a line end")  # noqa: TRY301
    except (TypeError, AttributeError) as error:
        raise TypeError(f"{name}: {error}") from None
    except (ValueError, requests.RequestException) as error:
        raise ValueError(f"{name}: {error}") from None


def _check_timeout(timeout: Any) -> None:
    if isinstance(timeout, urllib3.Timeout):
        return
    if not isinstance(timeout, tuple):
        timeout = (timeout, timeout)
    if len(timeout) != 2:
        raise ValueError(f"must be seconds or (connect, read), not {timeout!r}")
    urllib3.Timeout(connect=timeout[0], read=timeout[1])
    for seconds in timeout:
        if seconds is not None and not seconds <= threading.TIMEOUT_MAX:
            raise ValueError(f"must be at most {threading.TIMEOUT_MAX}, not {seconds!r}")


def at_most(timeout: Any, seconds: float) -> tuple[float, float]:
    """Return `timeout`, in any of its forms, with neither of its parts longer than that."""
    if isinstance(timeout, urllib3.Timeout):
        timeout = timeout.clone()
        timeout.start_connect()  # else it refuses to tell the next but one
        parts = [
            urllib3.Timeout.resolve_default_timeout(part)
            for part in (timeout.connect_timeout, timeout.read_timeout)
        ]
    else:
        parts = [*timeout] if isinstance(timeout, tuple) else [timeout, timeout]
    connect, read = (seconds if part is None else min(part, seconds) for part in parts)
    return connect, read


class ReplayableBody:
    """The request's body, brought back to its beginning for each attempt.

    Text, bytes and what is encoded anew need nothing; a file is rewound to where it
    stood; an iterator or an uploaded file can be sent once only.
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        self._sent = False
        self._file: Any = None
        data: Any = options.get("data")
        self._once = bool(options.get("files"))
        if hasattr(data, "read"):
            try:
                self._start = data.tell()
                self._file = data
            except (AttributeError, OSError):
                self._once = True
        elif hasattr(data, "__next__"):
            self._once = True

    def rewind(self) -> None:
        """Prepare the body for being sent.

        Raises:
            requests.exceptions.UnrewindableBodyError: it has been sent and is gone.
        """
        if self._sent and self._once:
            raise requests.exceptions.UnrewindableBodyError(
                "the request's body has been sent and cannot be sent again"
            )
        if self._sent and self._file is not None:
            self._file.seek(self._start)
        self._sent = True
