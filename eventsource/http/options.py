"""The options of the request, checked before anything is sent."""

from __future__ import annotations

import inspect
import re
import ssl
import threading
from collections.abc import Collection, Mapping
from http.cookiejar import CookieJar
from typing import Any, Final
from urllib.parse import urlsplit

import requests
import urllib3
from urllib3.util import parse_url

from eventsource.urls import origin_of, redact_strictly, redact_text

DEFAULT_TIMEOUT: Final = (10.0, None)
"""Seconds to connect, and to wait for bytes (no limit: a stream may be silent)."""

TLS_CONTEXT: Final = ssl.SSLContext.__mro__[-2]
"""The base class of all TLS contexts, also of those of truststore, gevent and eventlet, which
replace `ssl.SSLContext`."""

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
"""The keyword arguments of `requests.request`, and the types that each may have. `auth`,
`method` and `url` are checked separately, and the caller may not set `stream`."""

OPTION_NAMES: Final = frozenset({*_OPTIONS, "auth"})


def check_url(url: object, *, has_own_session: bool = True) -> str:
    """Return `url` if it is an absolute URL that could be fetched.

    A scheme that cannot be fetched is accepted here: it makes the connection fail.
    """
    if not isinstance(url, str):
        raise TypeError(f"url must be a str, not {type(url).__name__}")
    refusal = (
        f"url must be an absolute URL such as 'https://host/path', not {redact_strictly(url)!r}"
    )
    scheme = re.match(r"[A-Za-z][A-Za-z0-9+.-]*(?=:)", url.lstrip())
    # "localhost:8000/path" matches, but its scheme has been forgotten.
    if scheme is None or re.match(r"[^:/]*:[0-9]+(/|$)", url.lstrip()):
        raise requests.exceptions.MissingSchema(refusal)
    if scheme.group().lower() in ("http", "https"):
        if not is_fetchable(url):
            raise requests.exceptions.InvalidURL(refusal)
        if not has_own_session and "%" in (urlsplit(url.strip()).hostname or ""):
            raise requests.exceptions.InvalidURL(
                "url has an IPv6 zone ID, which requests cannot connect to: leave session out"
            )
    return url


def is_fetchable(url: str) -> bool:
    """Whether requests can be sent to an http or https URL."""
    try:
        host = urlsplit(url.strip()).hostname or ""
        # The forbidden host code points of the URL standard; a zone ID is RFC 6874's.
        name = re.sub(r"%(?!25$)(25)?[A-Za-z0-9._~-]+$", "", host) if ":" in host else host
        if re.search(r"[\x00-\x20#/<>?@\\^|%\x7f]", name):
            return False
        host.encode("idna")
        requests.Request("GET", url).prepare()
    except (ValueError, requests.RequestException):
        return False
    return True


def check_origins(name: str, origins: object) -> frozenset[str]:
    """Return origins in the form of `origin_of`.

    Raises:
        TypeError: it is not a collection of str; ValueError: an element is not an origin.
    """
    example = "such as 'https://host:8443'"
    if isinstance(origins, str | bytes) or not isinstance(origins, Collection):
        kind = type(origins).__name__
        raise TypeError(f"{name} must be a collection of origins {example}, not {kind}")
    found = []
    for origin in origins:
        if not isinstance(origin, str):
            raise TypeError(f"{name}: an origin is a str {example}, not {type(origin).__name__}")
        if not re.fullmatch(r"(?i:https?)://[^/?#@\\*\s]+", origin) or not is_fetchable(origin):
            raise ValueError(f"{name}: {redact_strictly(origin)!r} is not an origin {example}")
        found.append(origin_of(requests.Request("GET", origin).prepare().url or ""))
    return frozenset(found)


def check_options(method: object, session: object, options: Mapping[str, Any]) -> None:
    """Refuse arguments from which no request can be made, naming them.

    Raises:
        TypeError: an argument is unknown or of the wrong type.
        ValueError: a value cannot be sent.
    """
    if not isinstance(method, str):
        raise TypeError(f"method must be a str, not {type(method).__name__}")
    if not re.fullmatch(r"[-!#$%&'*+.^_`|~0-9A-Za-z]+", method):
        raise ValueError(f"method must be a token such as 'GET', not {redact_text(method)!r}")
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
    _check_timeout(options.get("timeout", DEFAULT_TIMEOUT))
    _check_proxies(options.get("proxies") or {})
    for name in ("params", "json", "cookies"):
        value = options.get(name)
        if name == "params" and callable(value):
            if inspect.iscoroutinefunction(value):
                raise TypeError("params must not be a coroutine function: nothing would await it")
        elif value is not None:
            check_sendable(name, value)
    for name in ("data", "files"):
        if options.get("json") is not None and options.get(name):
            raise ValueError(f"json: there is also {name}, but a request has only one body")


def check_headers(headers: Mapping[Any, Any]) -> None:
    """Refuse header fields that cannot be sent, naming them but not their values.

    Raises:
        TypeError: a name or value is neither text nor bytes.
        ValueError: a name or value contains a character that is not allowed.
    """
    for name, value in headers.items():
        if not isinstance(name, str | bytes):
            raise TypeError(f"headers: a name must be str or bytes, not {type(name).__name__}")
        text = name.decode("latin-1") if isinstance(name, bytes) else name
        shown = re.split("[:=]", text, maxsplit=1)[0]  # not the value of "name: value"
        label = f"headers[{shown!r}]"
        if not re.fullmatch(r"[-!#$%&'*+.^_`|~0-9A-Za-z]+", text):
            raise ValueError(f"{label}: not the name of a header field")
        if not isinstance(value, str | bytes | None):
            raise TypeError(f"{label} must be str or bytes, not {type(value).__name__}")
        if value is None:
            continue
        line = value.decode("latin-1") if isinstance(value, bytes) else value
        foreign = re.search(r"[^\0-\xff]", line)
        if foreign:  # an encoding error would quote the value
            raise ValueError(
                f"{label}: {foreign.group()!r} at index {foreign.start()} is not latin-1;"
                " pass the value as bytes"
            )
        bad = re.search(r"[\r\n\0]|^\s", line)
        if bad:
            raise ValueError(f"{label}: {bad.group()!r} at index {bad.start()} is not allowed")


def _check_auth(auth: object) -> None:
    if inspect.iscoroutinefunction(auth):
        raise TypeError("auth must not be a coroutine function: nothing would await it")
    if auth is None or callable(auth):
        return
    if type(auth) is not tuple or len(auth) != 2:
        raise TypeError("auth must be a callable or a (user, password) tuple")
    for part in auth:
        if not isinstance(part, str | bytes):
            raise TypeError("auth: user and password must be str or bytes")
        if isinstance(part, str) and re.search(r"[^\0-\xff]", part):
            raise ValueError("auth: not latin-1; pass user and password as bytes")


def _check_proxies(proxies: Mapping[Any, Any]) -> None:
    for name, url in proxies.items():
        if url is None or name == "no_proxy":
            continue
        try:
            host = parse_url(url).host
        except (TypeError, AttributeError, urllib3.exceptions.LocationParseError):
            host = None
        label = f"proxies[{redact_strictly(str(name))!r}]"
        if not host:
            raise ValueError(f"{label} is not a URL")
        if has_unknown_socks_scheme(url):
            raise ValueError(f"{label} {BAD_SOCKS}")


BAD_SOCKS: Final = "must begin with socks4://, socks4a://, socks5:// or socks5h://"


def has_unknown_socks_scheme(proxy: str) -> bool:
    """Whether a proxy's SOCKS version is unknown to urllib3, whose refusal quotes the URL."""
    return re.match(r"socks(?!(4a?|5h?)://)", proxy, re.IGNORECASE) is not None


def check_sendable(name: str, value: object) -> None:
    """Refuse a value from which requests cannot make a request, naming only the argument.

    Raises:
        TypeError: it is of the wrong type; ValueError: a value cannot be sent.
    """
    kind: type[Exception] = ValueError
    try:
        prepared = requests.Request("GET", "http://host/", **{name: value}).prepare()  # type: ignore[arg-type]
    except (TypeError, AttributeError) as error:
        kind, text = TypeError, str(error)
    except (ValueError, requests.RequestException) as error:
        text = str(error)
    else:
        fields = [str(line) for line in prepared.headers.values()]
        bad = next(filter(None, (re.search(r"[\r\n]|[^\0-\xff]", line) for line in fields)), None)
        if bad is None:
            return
        text = f"{bad.group()!r} cannot be sent"
    # Raised here, not in an `except` block: there the error from below, which contains the
    # value, would become its `__context__`.
    raise kind(f"{name}: {text}")


def _check_timeout(timeout: Any) -> None:
    if isinstance(timeout, urllib3.Timeout):
        return
    if isinstance(timeout, tuple) and len(timeout) != 2:
        raise ValueError(f"timeout must be seconds or (connect, read), not {len(timeout)} of them")
    for seconds in timeout if isinstance(timeout, tuple) else [timeout]:
        if seconds is None:
            continue
        if isinstance(seconds, bool) or not isinstance(seconds, int | float):
            raise TypeError(f"timeout must be in seconds, not {type(seconds).__name__}")
        if not 0 < seconds <= threading.TIMEOUT_MAX:
            raise ValueError(
                f"timeout must be more than 0 and at most {threading.TIMEOUT_MAX}, not {seconds!r}"
            )


def at_most(timeout: Any, seconds: float) -> tuple[float, float]:
    """Return `timeout`, in any of its forms, as (connect, read), each at most `seconds`."""
    if isinstance(timeout, urllib3.Timeout):
        timeout = timeout.clone()
        timeout.start_connect()  # else `read_timeout` may raise an error
        parts = [
            urllib3.Timeout.resolve_default_timeout(part)
            for part in (timeout.connect_timeout, timeout.read_timeout)
        ]
    else:
        parts = [*timeout] if isinstance(timeout, tuple) else [timeout, timeout]
    connect, read = (seconds if part is None else min(part, seconds) for part in parts)
    return connect, read


class ReplayableBody:
    """The request's body, which can be sent again for each attempt, if possible.

    Text, bytes and bodies that are encoded each time need no preparation. A file is rewound to
    its first position. An iterator or an uploaded file can be sent only once.
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
        """Prepare the body for sending.

        Raises:
            requests.exceptions.UnrewindableBodyError: it has been sent and cannot be sent
                again.
        """
        if self._sent and self._once:
            raise requests.exceptions.UnrewindableBodyError(
                "the request's body has been sent and cannot be sent again"
            )
        if self._sent and self._file is not None:
            self._file.seek(self._start)
        self._sent = True
