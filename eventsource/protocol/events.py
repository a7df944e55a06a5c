"""The events that handlers and loops get: small immutable values.

`MessageEvent` is a named tuple because there is one for each event of the stream, and
no other immutable object is as cheap to make. `OpenEvent` and `ErrorEvent` have the
same form, so all events look alike to a handler: each has a `type`.
"""

from __future__ import annotations

import enum
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from eventsource.urls import redact


class ReadyState(enum.IntEnum):
    """The state of a source, with the numbers of the HTML standard (9.2.2)."""

    CONNECTING = 0
    """No connection is open: the first attempt, the wait for the next one, or the next
    one."""
    OPEN = 1
    """The server has answered with an event stream, which is being read."""
    CLOSED = 2
    """Closed for good, by `close()` or by a final failure."""

    def __str__(self) -> str:
        return self.name

    def __format__(self, spec: str) -> str:
        """The name, unless the format is for numbers, such as `:d`."""
        try:
            return format(self.name, spec)
        except ValueError:
            return format(int(self), spec)


class MessageEvent(NamedTuple):
    """An event that the server sent.

    Two events are equal when all four fields are.
    """

    type: str
    """The event's type: its last `event` field, or `"message"`."""
    data: str = ""
    """The values of its `data` fields, joined with line feeds."""
    last_event_id: str = ""
    """The last event ID of the stream when this event was dispatched.

    An earlier event may have set it: an event need not have an id.
    """
    origin: str = ""
    """Scheme, host and port of the stream's URL after redirects."""

    def json(self) -> Any:
        """Return `data` decoded as JSON.

        Raises:
            ValueError: `data` is not JSON (`json.JSONDecodeError`).
        """
        return json.loads(self.data)

    @property
    def lastEventId(self) -> str:  # noqa: N802 - the browser's spelling
        """`last_event_id`, as browsers spell it."""
        return self.last_event_id


class Comment(NamedTuple):
    """A comment line of the stream, by convention a heartbeat."""

    text: str
    """The line without its colon and one leading space."""

    @property
    def type(self) -> str:
        """Always `"comment"`."""
        return "comment"


class OpenEvent(NamedTuple):
    """The connection is open: the server has answered with an event stream."""

    type: str
    """Always `"open"`."""
    url: str
    """The URL that answered, after redirects, without user name and password."""
    status: int
    """The HTTP status."""
    headers: Mapping[str, str]
    """The response's header fields, by name in any case; read-only."""

    def __repr__(self) -> str:
        """Everything except secrets: the URL's query, and cookies."""
        headers = {
            name: "..." if name.lower() == "set-cookie" else value
            for name, value in self.headers.items()
        }
        return (
            f"OpenEvent(type={self.type!r}, url={redact(self.url)!r},"
            f" status={self.status!r}, headers={headers!r})"
        )


class ErrorEvent(NamedTuple):
    """The connection was lost, or could not be made."""

    type: str
    """Always `"error"`."""
    error: Exception
    """The failure; nearly always a `requests.RequestException`."""
    ready_state: ReadyState
    """`CONNECTING` if another attempt follows, else `CLOSED`."""
    retry_in: float | None
    """Seconds until the next attempt; None if the source has closed for good."""


def is_event_stream(headers: Mapping[str, str]) -> bool:
    """Whether a response's header fields say that its body is an event stream."""
    return "text/event-stream" in headers.get("Content-Type", "").lower()
