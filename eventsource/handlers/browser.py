"""The browser's spellings of `EventSource` (HTML standard, 9.2.2), and nothing new.

For those who come from JavaScript: each name says in a line what it stands for.
"""

from __future__ import annotations

import abc
from typing import Any, ClassVar

from pyee.base import EventEmitter

from eventsource.protocol.events import ReadyState

from .check import Handler, check_handler


class _HandlerAttribute:
    """`onmessage` and its like: at most one handler, which can be exchanged.

    As in the DOM, a new handler takes the place of the old one in the order of the
    listeners, None takes it away, and it is apart from a listener that is the same
    function.
    """

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, emitter: BrowserNames | None, owner: type) -> Handler | None:
        place = emitter.attribute_places.get(self._name) if emitter is not None else None
        return place.handler if place is not None else None

    def __set__(self, emitter: BrowserNames, handler: Handler | None) -> None:
        event_type = self._name.removeprefix("on")
        place = emitter.attribute_places.get(self._name)
        if handler is None:
            if place is not None:
                del emitter.attribute_places[self._name]
                emitter.remove_listener(event_type, place)
            return
        check_handler(event_type, handler, on_event_loop=emitter.on_event_loop)
        if place is None:
            place = emitter.attribute_places[self._name] = _Place()
        place.handler = handler
        emitter.add_listener(event_type, place)


class _Place:
    """A listener whose handler can be exchanged."""

    handler: Handler

    def __call__(self, event: Any) -> object:
        return self.handler(event)


class BrowserNames(EventEmitter, abc.ABC):
    """An emitter that also answers to the browser's names."""

    CONNECTING: ClassVar[ReadyState] = ReadyState.CONNECTING
    OPEN: ClassVar[ReadyState] = ReadyState.OPEN
    CLOSED: ClassVar[ReadyState] = ReadyState.CLOSED

    onopen = _HandlerAttribute()
    """The handler of `open`, or None."""
    onmessage = _HandlerAttribute()
    """The handler of `message`, or None."""
    onerror = _HandlerAttribute()
    """The handler of `error`, or None."""

    def __init__(self) -> None:
        super().__init__()
        self.attribute_places: dict[str, _Place] = {}  # of onopen and its like, where set
        self.on_event_loop = False
        """Whether an event loop runs the handlers; if so, they may be coroutine functions."""

    @property
    @abc.abstractmethod
    def ready_state(self) -> ReadyState:
        """The state of the connection."""

    @property
    def readyState(self) -> ReadyState:  # noqa: N802
        """`ready_state`."""
        return self.ready_state

    def addEventListener(self, type: str, listener: Handler) -> None:  # noqa: A002, N802
        """`add_listener`."""
        self.add_listener(type, listener)

    def removeEventListener(self, type: str, listener: Handler) -> None:  # noqa: A002, N802
        """`remove_listener`."""
        self.remove_listener(type, listener)
