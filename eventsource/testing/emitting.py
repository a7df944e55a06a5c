"""Handlers tested without a server: `emit` and `aemit` call them as an event would."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import CoroutineType
from typing import Any

from eventsource.protocol.events import Comment, ErrorEvent, MessageEvent, OpenEvent
from eventsource.protocol.parser import EventStreamParser
from eventsource.source import EventSource
from eventsource.urls import origin_of

from .blocks import format_event

Event = MessageEvent | OpenEvent | ErrorEvent | Comment


def emit(
    source: EventSource,
    event: str | Event,
    data: str = "",
    *,
    id: str | None = None,  # noqa: A002 - the field's name
) -> bool:
    """Call a source's handlers of an event in this thread, and raise what they raise.

    For a source that has not been started. As with a stream, handlers run in the order
    registered, one that has been removed is not called, none is called after the source is
    closed, and `source.last_event_id` changes. Unlike with a stream, they run in the caller's
    thread, whatever `dispatch` is; and the first exception is raised, and the handlers after it
    are not called. (`source.emit(event.type, event)` logs exceptions and continues, as with a
    stream.)

    Args:
        source: the source whose handlers are called.
        event: the type of a `MessageEvent`, such as `"message"`. Or an event of any
            kind, such as an `ErrorEvent`; a `Comment` goes to `on_comment`.
        data: the message's data; as in a stream, its line ends become LF.
        id: its id; None: it has none, and the last event ID stays.

    Returns:
        Whether there was a handler.

    Raises:
        TypeError: an argument is of another type; or a handler is a coroutine function,
            which needs an event loop: see `aemit`.
        ValueError: a field of a stream cannot have this type or id.
        RuntimeError: the source has been started, so its own events could come in between.
        Exception: what a handler raised.

    Examples:
        >>> source = EventSource("https://unused.example/", start=False)
        >>> _ = source.on("greet", lambda event: print(event.data, event.last_event_id))
        >>> emit(source, "greet", "hello", id="7")
        hello 7
        True
    """
    event = _event(source, event, data, id)
    called = False
    for handler, result in _call(source, event):
        called = True
        if type(result) is CoroutineType:
            result.close()
            raise TypeError(f"the handler {handler!r} is a coroutine function: await aemit(...)")
    return called


async def aemit(
    source: EventSource,
    event: str | Event,
    data: str = "",
    *,
    id: str | None = None,  # noqa: A002 - the field's name
) -> bool:
    """Like `emit`, but also await handlers that are coroutine functions, one after another.

    They run in the caller's task. Raises what they raise.
    """
    event = _event(source, event, data, id)
    called = False
    for _, result in _call(source, event):
        called = True
        if type(result) is CoroutineType:
            await result
    return called


def _event(source: EventSource, event: str | Event, data: str, event_id: str | None) -> Event:
    if isinstance(event, Event):
        if data or event_id is not None:
            raise TypeError(f"data and id are those of the event, {event!r}")
        return event
    if not isinstance(event, str):
        raise TypeError(f"event must be a str or an event, not {event!r}")
    parser = EventStreamParser(
        last_event_id=source.last_event_id, origin=origin_of(source.url), max_event_size=sys.maxsize
    )
    [message] = parser.feed(format_event(data, event=event, id=event_id))
    return message


def _call(source: EventSource, event: Event) -> Iterator[tuple[Any, Any]]:
    """Call the handlers one after another; yield each, and what it returned."""
    for call in source.handlers_of(event):
        yield call, call(event.text if type(event) is Comment else event)
