"""Formats an event as the bytes of an output format, and as text for people.

Sans-I/O. The invariant: text for a terminal contains nothing of the server's that controls it.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Final

from eventsource.protocol.events import MessageEvent
from eventsource.recording import DELICATE

MAX_PRETTY: Final = 2**14
"""The most characters of JSON that are laid out for people. Colouring this many takes a quarter
of a second, during which the stream waits."""
MAX_DEPTH: Final = 64
"""The most levels of JSON that are laid out: the indentation grows with their square."""
INDENT: Final = "  "


_CONTROL: Final = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]"
)
_quoted: Final = json.JSONEncoder(ensure_ascii=False).encode


def now() -> str:
    """Return the time in UTC in the format of RFC 3339, with milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def as_text(event: MessageEvent) -> bytes:
    """The form for people, without a terminal: a line about the event, its data, an empty line."""
    place = f" id={event.last_event_id}" if event.last_event_id else ""
    return f"{now()} {event.type}{place}\n{event.data}\n\n".encode()


def as_data(event: MessageEvent) -> bytes:
    """The data alone, and a line feed."""
    return f"{event.data}\n".encode()


def as_json_line(event: MessageEvent) -> bytes:
    """One JSON object (RFC 8259) in one line; `time` is when it was printed."""
    # json.dumps() of a dict would take longer than everything else for an event.
    line = (
        f'{{"type": {_quoted(event.type)}, "data": {_quoted(event.data)},'
        f' "last_event_id": {_quoted(event.last_event_id)},'
        f' "origin": {_quoted(event.origin)}, "time": "{now()}"}}'
    )
    if not line.isascii() or "\x7f" in line:
        line = DELICATE.sub(lambda match: f"\\u{ord(match.group()):04x}", line)
    return f"{line}\n".encode()


FORMATS: Final[dict[str, Callable[[MessageEvent], bytes]]] = {
    "text": as_text,
    "data": as_data,
    "jsonl": as_json_line,
}
"""The formats of events, by name. `raw` is not among them: it prints the bytes."""


def visible(text: str) -> str:
    r"""Return `text` with escapes, such as `\x1b`, for what a terminal would obey.

    These are the control characters except tab and line feed, and those that change the
    direction of writing.
    """
    return _CONTROL.sub(lambda match: match.group().encode("unicode_escape").decode(), text)


def one_line(text: str) -> str:
    """Return `visible(text)` in one line."""
    return visible(text).replace("\n", " ")


def counted(number: float, noun: str) -> str:
    """Return a count with its noun: `1 second`, `0.5 seconds`, `1,000 events`."""
    shown = f"{number:,}" if isinstance(number, int) else f"{number:.15g}"
    return f"{shown} {noun}{'' if number == 1 else 's'}"


_PART: Final = re.compile(r'"(?:[^"\\]|\\.)*"|[][{}:,]|[^][{}:,"\s]+')


def pretty(data: str) -> str | None:
    r"""Lay out a JSON object or array for people.

    Numbers, repeated names and their order stay as they are; `\u` escapes become the
    characters.

    Returns:
        The text without control characters; None if it is not an object or array, or is too
        long or too deep.
    """
    if len(data) > MAX_PRETTY or data.lstrip()[:1] not in ("{", "["):
        return None
    try:
        json.loads(data, parse_int=str)  # a number of any length
        return visible("".join(_lay_out(_PART.findall(data))))
    except (ValueError, RecursionError):
        return None


def on_one_line(laid_out: str, columns: int) -> str | None:
    """Return the result of `pretty()` in one line; None if it is longer than `columns`."""
    if len(laid_out) > 4 * columns:
        return None
    line = re.sub(r"(?<=[{[])\n *|\n *(?=[]}])", "", laid_out)
    line = re.sub(r"\n *", " ", line)
    return line if sum(map(_cells, line)) <= columns else None


def _cells(character: str) -> int:
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def _lay_out(parts: list[str]) -> Iterator[str]:
    depth = 0
    before = ""
    for part in parts:
        if depth > MAX_DEPTH:
            raise RecursionError
        if part in ("}", "]"):
            depth -= 1
            if before not in ("{", "["):
                yield "\n" + depth * INDENT
        elif before in ("{", "[", ","):
            yield "\n" + depth * INDENT
        if part in ("{", "["):
            depth += 1
        yield ": " if part == ":" else _unescaped(part)
        before = part


def _unescaped(part: str) -> str:
    if "\\u" not in part:
        return part
    text = json.dumps(json.loads(part), ensure_ascii=False)
    lone_surrogate = re.search("[\ud800-\udfff]", text)
    return text if lone_surrogate is None else part
