"""The answers of an `SSEServer` to requests that do not get its stream. No sockets."""

from __future__ import annotations

import http
import re
from collections.abc import Mapping
from typing import Final, NamedTuple

from .blocks import check_text

STREAM_HEAD: Final = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\n"
    b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
)
_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE: Final = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
_OURS: Final = {"connection", "content-length", "transfer-encoding"}
_WITHOUT_BODY: Final = {204, 304}
_REDIRECTS: Final = (301, 302, 303, 307, 308)


class Answer(NamedTuple):
    """How one request is answered."""

    name: str
    """The name in error texts."""
    response: bytes = b""
    """The whole response; empty for `STREAM` and `STALL`."""


STREAM: Final = Answer("stream")
"""The stream."""
STALL: Final = Answer("stalled")
"""No response at all."""


def make_answer(
    status: int,
    retry_after: int | str | None = None,
    headers: Mapping[str, str] | None = None,
    body: str | bytes = b"",
) -> Answer:
    """Make a complete response, after which the connection is closed.

    The arguments are those of `Stream.status`.

    Raises:
        TypeError, ValueError: it would not be a valid response; the message says why.
    """
    if not isinstance(status, int) or isinstance(status, bool):
        raise TypeError(f"status must be an int, not {status!r}")
    if not 200 <= status <= 599:
        raise ValueError(f"status must be 200 to 599, not {status}")
    if not isinstance(body, str | bytes):
        raise TypeError(f"body must be str or bytes, not {body!r}")
    if body and status in _WITHOUT_BODY:
        raise ValueError(f"a {status} cannot have a body")
    content = body.encode() if isinstance(body, str) else body
    fields = {} if headers is None else dict(headers)
    if retry_after is not None:
        if isinstance(retry_after, bool) or not isinstance(retry_after, int | str):
            raise TypeError(f"retry_after must be an int or a str, not {retry_after!r}")
        fields["Retry-After"] = str(retry_after)
    for name, value in fields.items():
        _check_header(name, value)
    if body and "content-type" not in {name.lower() for name in fields}:
        fields["Content-Type"] = "text/plain; charset=utf-8"
    if status not in _WITHOUT_BODY:
        fields["Content-Length"] = str(len(content))
    fields["Connection"] = "close"
    known = {each.value: each.phrase for each in http.HTTPStatus}
    lines = [f"HTTP/1.1 {status} {known.get(status, '')}"]
    lines += [f"{name}: {value}" for name, value in fields.items()]
    return Answer(str(status), "\r\n".join([*lines, "", ""]).encode("latin-1") + content)


NO_MORE: Final = make_answer(204)
"""The end: no more comes, and the client must not reconnect."""


def make_stream_head(fields: Mapping[str, str]) -> bytes:
    """Make the head of a response with these header fields and a chunked body."""
    lines = ["HTTP/1.1 200 OK", *(f"{name}: {value}" for name, value in fields.items())]
    lines += ["Transfer-Encoding: chunked", "Connection: close", "", ""]
    return "\r\n".join(lines).encode("latin-1")


def make_redirect(location: str, status: int) -> Answer:
    """Make a redirect; the arguments are those of `Stream.redirect`."""
    check_text("location", location)
    if status not in _REDIRECTS:
        raise ValueError(f"status must be one of {_REDIRECTS}, not {status!r}")
    return make_answer(status, headers={"Location": location})


def _check_header(name: object, value: object) -> None:
    if not isinstance(name, str) or not isinstance(value, str):
        raise TypeError(f"a header's name and value must be str, not {name!r}: {value!r}")
    if _NAME.fullmatch(name) is None:
        raise ValueError(f"not a valid header name: {name!r}")
    if name.lower() in _OURS:
        raise ValueError(f"{name} is set by the server")
    if _VALUE.fullmatch(value) is None:
        raise ValueError(f"header {name} cannot have the value {value!r}")
