"""Formats the blocks of an event stream (WHATWG HTML 9.2.5), and checks their fields."""

from __future__ import annotations

import re
from typing import Final

_LINE_END: Final = re.compile(r"\r\n|\r|\n")


def format_event(
    data: str | None = None,
    *,
    event: str | None = None,
    id: str | None = None,  # noqa: A002 - the field's name
    retry: int | None = None,
) -> bytes:
    r"""Return the bytes of one block of an event stream.

    Args:
        data: the text; each of its lines becomes a `data` field, so CR and CRLF arrive as
            LF. None: no such field, and clients dispatch nothing.
        event: the event's type; None: no such field, so the type is `message`.
        id: the event's id; None: no such field, so the last event ID does not change.
        retry: the reconnection time in milliseconds.

    Raises:
        TypeError: an argument is of another type.
        ValueError: a field cannot have this value: a line end in `event` or `id`, NUL in
            `id`, a negative `retry`, a lone surrogate.

    Examples:
        >>> format_event("two\nlines", event="greet", id="7")
        b'event: greet\nid: 7\ndata: two\ndata: lines\n\n'
    """
    for name, value in (("data", data), ("event", event), ("id", id)):
        if value is not None:
            check_text(name, value)
    if event is not None and re.search(r"[\r\n]", event):
        raise ValueError(f"event must not contain a line end: {event!r}")
    if id is not None and re.search(r"[\0\r\n]", id):
        raise ValueError(f"id must not contain a line end or NUL: {id!r}")
    lines = []
    if event is not None:
        lines.append(f"event: {event}")
    if id is not None:
        lines.append(f"id: {id}")
    if retry is not None:
        check_retry(retry)
        lines.append(f"retry: {retry}")
    if data is not None:
        lines += [f"data: {line}" for line in _LINE_END.split(data)]
    return "".join(f"{line}\n" for line in lines).encode() + b"\n"


def format_comment(text: str = "") -> bytes:
    r"""Return the bytes of a comment; each line of the text becomes one.

    Raises:
        TypeError: `text` is not a str.
        ValueError: it has a lone surrogate.

    Examples:
        >>> format_comment("heartbeat")
        b': heartbeat\n'
    """
    check_text("text", text)
    return "".join(f": {line}\n" if line else ":\n" for line in _LINE_END.split(text)).encode()


def check_text(name: str, value: object) -> None:
    """Raise `TypeError` unless `value` is a str."""
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a str, not {value!r}")


def check_retry(value: object) -> None:
    """Refuse a value that is not a reconnection time in milliseconds."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"retry must be an int (milliseconds), not {value!r}")
    if value < 0:
        raise ValueError(f"retry must not be negative: {value}")


def check_count(name: str, value: object) -> None:
    """Refuse a value that is not a whole number of 1 or more."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} must be an int, not {value!r}")
    if value < 1:
        raise ValueError(f"{name} must be 1 or more, not {value}")
