"""The secrets in a request. Servers repeat what they were sent, in header fields and in errors.

The invariant: what this command prints or records of an answer has gone through `hide()`, but
for the bytes of the stream.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from typing import Any, Final
from urllib.parse import parse_qsl, unquote, urlsplit

from eventsource.urls import SECRET_FIELD

SHORTEST_SECRET: Final = 4
"""Characters. A shorter value is not treated as a secret: it would be found everywhere."""
LONG: Final = 8
"""Characters. From this length on, values that may be secret count as secrets: names, queries."""


def secrets_of(url: str, proxies: Mapping[str, str] | None, sent: Mapping[str, Any]) -> set[str]:
    """Return the secrets in a request.

    Args:
        url: its URL.
        proxies: its proxies.
        sent: the header fields that were sent, with credentials from any source.
    """
    found: set[str] = set()
    perhaps: set[str] = set()
    for address in (url, *(proxies or {}).values()):
        try:
            parts = urlsplit(address)
        except ValueError:
            continue
        found |= {parts.password or "", parts.netloc.rpartition("@")[0]}
        perhaps |= {parts.username or "", *(value for _, value in parse_qsl(parts.query))}
    for name, value in sent.items():
        if value is None or not SECRET_FIELD.search(name):
            continue
        text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
        found.add(text)
        perhaps |= {*text.replace(";", " ").replace("=", " ").split(), *text.split()}
        scheme, _, credentials = text.partition(" ")
        if scheme.lower() == "basic":
            user, _, password = _decoded(credentials).partition(":")
            found.add(password)
            perhaps.add(user)
    found |= {each for each in perhaps if len(each) >= LONG}
    found |= {unquote(secret) for secret in found}
    return {each for each in found if len(each) >= SHORTEST_SECRET}


def _decoded(credentials: str) -> str:
    try:
        return base64.b64decode(credentials).decode("utf-8", "replace")
    except ValueError:
        return ""


def hide(secrets: Iterable[str], text: str) -> str:
    """Return `text` with dots in the place of these secrets."""
    for secret in sorted(secrets, key=len, reverse=True):  # one may be part of another
        text = text.replace(secret, "...")
    return text
