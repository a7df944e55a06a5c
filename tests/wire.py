"""A connection as it is written down, from bytes and the moments when they came."""

from __future__ import annotations

from eventsource import BrokenBody, StreamEnded
from eventsource.cli.check.observing import Connection, Head, Observation

NOW = 1_700_000_000.0
"""When the watches of these tests began, in seconds since the epoch."""
HEADERS = {"Content-Type": "text/event-stream", "Cache-Control": "no-cache"}


def connection(*reads, until=None, ends=None, cut=None, asked=0.0, opened=None):
    """A connection that brought `(moment, bytes)`; it ends in order, or is cut, at a moment."""
    opened = asked if opened is None else opened
    found = Connection(asked, opened, until=opened)
    for at, data in reads:
        found.received(data, at)
    if ends is not None:
        found.lost(StreamEnded("the server ended the stream"), ends)
    elif cut is not None:
        found.lost(BrokenBody("the connection was cut"), cut)
    else:
        found.until = until if until is not None else found.until
    return found


def observation(*connections, headers=(), watched=30.0, url="http://h/", **attributes):
    """What was seen, with a head of an event stream."""
    head = Head(200, {**HEADERS, "Transfer-Encoding": "chunked", **dict(headers)}, url)
    return Observation(
        "http://h/",
        began=NOW,
        head=head,
        connections=list(connections),
        watched=watched,
        **attributes,
    )


def event(number, data=None, *, id=True, size=0):  # noqa: A002
    """The bytes of an event, of `size` bytes if that is given."""
    text = str(number) if data is None else data
    block = (f"id: {number}\n" if id else "") + f"data: {text}"
    return f"{block}{'x' * (size - len(block) - 2)}\n\n".encode()


def events(numbers, **options):
    return b"".join(event(number, **options) for number in numbers)
