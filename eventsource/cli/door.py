"""Which requests `eventsource serve` accepts, and how it refuses the others. No sockets.

The server has no passwords, and a browser sends it requests for any page that it shows. Hence
two rules. The `Host` must be an address or a name of this machine: otherwise a page whose name
resolves to this machine (DNS rebinding) would be of the same origin as this server. And a page
of another site gets nothing at all.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Final
from urllib.parse import urlsplit

from eventsource.testing.answers import Answer, make_answer
from eventsource.testing.request import Request

METHODS: Final = "GET, HEAD, POST, OPTIONS"


class Door:
    """Answers requests that do not get the stream.

    Args:
        host: the address or name that the server listens on.
    """

    def __init__(self, host: str) -> None:
        self._host = host.lower()

    def answer(self, request: Request) -> Answer | None:
        """Return the answer to a request that does not get the stream; None: it gets it."""
        hosts = [value for name, value in request.headers if name.lower() == "host"]
        host = _name(f"//{hosts[0]}") if len(hosts) == 1 else None
        if host is None or not (_is_address(host) or _is_localhost(host) or host == self._host):
            return _refusal(403, "this Host is not a name of this server")
        origin = request.header("Origin")
        if origin is not None and not _is_here(origin, host):
            return _refusal(403, "pages of this Origin may not read this server")
        fields = self.fields(request)
        if request.method == "OPTIONS":
            wanted = request.header("Access-Control-Request-Headers") or ""
            if re.fullmatch(r"[\w, -]{1,1000}", wanted, re.ASCII):
                fields["Access-Control-Allow-Headers"] = wanted
            fields["Access-Control-Allow-Methods"] = "GET, POST"
            return make_answer(204, headers={**fields, "Allow": METHODS})
        if request.method not in ("GET", "HEAD", "POST"):
            return _refusal(405, "the method is not supported", Allow=METHODS)
        if request.path == "/favicon.ico":  # browsers ask for one
            return _refusal(404, "there is none")
        return None

    @staticmethod
    def fields(request: Request) -> dict[str, str]:
        """Return the header fields that let a page read the answer to an accepted request."""
        origin = request.header("Origin")
        if origin is None:
            return {}
        return {
            "Access-Control-Allow-Origin": origin,
            "Access-Control-Allow-Credentials": "true",
            "Vary": "Origin",
        }


def _refusal(status: int, text: str, **fields: str) -> Answer:
    return make_answer(status, headers=fields, body=f"eventsource serve: {text}\n")


def _name(url: str) -> str | None:
    """Return the host of a URL in lower case; None: there is none."""
    try:
        parts = urlsplit(url)
        _ = parts.port  # which must be a number
    except ValueError:
        return None
    if "@" in parts.netloc or not parts.hostname:
        return None
    return parts.hostname.removesuffix(".")


def _is_here(origin: str, host: str) -> bool:
    """Whether a page is of this machine, or of the host that it sends the request to."""
    name = _name(origin) if re.match(r"https?://[^/]+$", origin) else None
    return name is not None and (_is_localhost(name) or name == host or is_loopback(name))


def _is_localhost(name: str) -> bool:
    return name == "localhost" or name.endswith(".localhost")


def _is_address(name: str) -> bool:
    """Whether it is an address, which DNS rebinding cannot forge."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def is_loopback(name: str) -> bool:
    """Whether it is an address or a name that only this machine can reach."""
    return _is_localhost(name) or (_is_address(name) and ipaddress.ip_address(name).is_loopback)
