"""URLs: their origin, and which parts of them and of header fields may be shown."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import urlsplit, urlunsplit

MAX_TEXT: Final = 500
"""The most characters of a server's text that are shown."""
SECRET_FIELD: Final = re.compile(
    r"authorization$|cookie|token|secret|password|credential|session|signature|(^|[-_])(api)?key$",
    re.IGNORECASE,
)
"""Names of header fields whose values are not shown: logs and output go into bug reports."""
_URL_FIELD: Final = re.compile("location|referer$", re.IGNORECASE)
"""Names of header fields whose values are URLs, perhaps without a scheme and a host."""
_QUERY: Final = re.compile(r"\?(?![01](?:[\s,;)]|$))[^\s'\"<>]*")


def brief(text: str) -> str:
    """Return `text`, or its beginning if it is long."""
    return text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]}…"


def redact(url: str) -> str:
    """Return `url` without user name, password, query and fragment.

    For log lines, error texts and `repr`. Never raises.
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        return redact_strictly(url)
    if not parts.netloc:
        return redact_strictly(url)
    parts = parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="")
    return brief(urlunsplit(parts))


def redact_strictly(url: str) -> str:
    """Like `redact`, for text that may not be a URL: nothing before the last `@` is shown.

    A password with an unescaped `/`, `?` or `#` would look like a path, a query or a fragment.
    """
    before, at, rest = url.rpartition("@")
    if at:
        scheme = re.match(r"[A-Za-z][A-Za-z0-9+.-]*:/*", before)
        rest = (scheme.group() if scheme else "") + rest
    return brief(re.split(r"[?#]", rest, maxsplit=1)[0])


def without_userinfo(url: str) -> str:
    """Return `url` without user name and password."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def origin_of(url: str) -> str:
    """Return the ASCII serialisation of the origin of an http or https URL."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if ":" in host:
        host = f"[{host}]"
    port = parts.port
    if port is None or port == {"http": 80, "https": 443}.get(parts.scheme):
        return f"{parts.scheme}://{host}"
    return f"{parts.scheme}://{host}:{port}"


def redact_text(text: str) -> str:
    """Return `text` with the URLs in it redacted."""
    # The look-behind keeps it linear: a scheme only begins where a run of its characters begins.
    urls = r"(?<![A-Za-z0-9+.-])[A-Za-z0-9+.-]++:[^\s'\"<>]+"
    return brief(re.sub(urls, lambda match: redact(match.group()), text))


def redact_field(name: str, value: str) -> str:
    """Return the value of a header field without secrets: URLs in it are redacted.

    Also those without a scheme and a host: what follows a question mark is left out, unless it
    is a boolean of RFC 9651, 3.3.6 (`?1`).
    """
    if SECRET_FIELD.search(name):
        return "..."
    if _URL_FIELD.search(name):
        return redact(value)
    return _QUERY.sub("", redact_text(value))
