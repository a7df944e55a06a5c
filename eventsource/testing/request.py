"""`Request`: what a client sent, and the parsing of its head (RFC 9112). No sockets."""

from __future__ import annotations

import json
import re
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qs, unquote

_REQUEST_LINE: Final = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+) ([!-\xff]+) HTTP/1\.[01]")
_FIELD: Final = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\0\r\n]*?)[ \t]*")


class MalformedRequest(ConnectionError):
    """A client sent something else than an HTTP request. An `OSError`: not a script's failure."""


class Request(NamedTuple):
    """What a client sent."""

    method: str
    target: str
    """Path and query, as in the request line."""
    headers: tuple[tuple[str, str], ...]
    """Names and values in order; bytes as latin-1 characters."""
    body: bytes

    @property
    def path(self) -> str:
        """The path of the target, percent-decoded."""
        return unquote(self.target.partition("?")[0])

    @property
    def query(self) -> dict[str, list[str]]:
        """The query's values by name, decoded; a name may occur several times."""
        return parse_qs(self.target.partition("?")[2], keep_blank_values=True)

    @property
    def last_event_id(self) -> str:
        """The `Last-Event-ID` field, which is UTF-8; "" if there is none."""
        value = self.header("Last-Event-ID") or ""
        return value.encode("latin-1").decode("utf-8", "replace")

    def header(self, name: str) -> str | None:
        """The first field of that name in any case, or None."""
        for field, value in self.headers:
            if field.lower() == name.lower():
                return value
        return None

    def json(self) -> Any:
        """Return the body decoded as JSON.

        Raises:
            ValueError: it is not JSON.
        """
        return json.loads(self.body)

    def length(self) -> int | None:
        """Return the bytes of the body to come; None: it is chunked.

        Raises:
            MalformedRequest: the length is not a number of up to 18 digits.
        """
        if (self.header("Transfer-Encoding") or "").lower() == "chunked":
            return None
        value = self.header("Content-Length") or "0"
        if re.fullmatch(r"[0-9]{1,18}", value) is None:
            raise MalformedRequest(f"a Content-Length of {value!r}")
        return int(value)


def parse_head(head: bytes) -> Request:
    """Parse a request's head, without the empty line that ends it.

    Raises:
        MalformedRequest: it is not the head of a request.
    """
    first, *lines = head.decode("latin-1").split("\r\n")
    start = _REQUEST_LINE.fullmatch(first)
    if start is None:
        raise MalformedRequest(f"a request line of {first!r}")
    fields = []
    for line in lines:
        field = _FIELD.fullmatch(line)
        if field is None:
            raise MalformedRequest(f"a header field of {line!r}")
        fields.append((field[1], field[2]))
    return Request(start[1], start[2], tuple(fields), b"")


def chunk_size(line: bytes) -> int:
    """Parse the line before a chunk; an extension is ignored.

    Raises:
        MalformedRequest: it has no chunk size.
    """
    digits = line.partition(b";")[0].strip()
    if re.fullmatch(rb"[0-9A-Fa-f]+", digits) is None:
        raise MalformedRequest(f"a chunk size of {line!r}")
    return int(digits, 16)
