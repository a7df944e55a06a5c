"""The browser's spellings of `EventSource` (HTML standard, 9.2.2), and nothing new.

For those who come from JavaScript: each name says in a line what it stands for.
"""

from __future__ import annotations

from typing import Any, ClassVar, Protocol

from eventsource.protocol.events import ReadyState

from .listeners import Emitter, Handler, check_handler


class _ListenerSlot:
    """A listener whose handler can be exchanged, in its place in the order."""

    handler: Handler

    def __call__(self, event: Any) -> object:
        return self.handler(event)


class _HandlerAttribute:
    """`onmessage` and its like: at most one handler, which can be exchanged.

    As in the DOM, a new handler takes the place of the old one in the order of the
    listeners, None takes it away, and it is apart from a listener that is the same
    function.
    """

    def __set_name__(self, owner: type, name: str) -> None:
        self._type = name.removeprefix("on")
        self._slot = f"_{name}_slot"

    def __get__(self, emitter: BrowserNames | None, owner: type) -> Handler | None:
        slot = getattr(emitter, self._slot, None)
        return slot.handler if slot is not None else None

    def __set__(self, emitter: BrowserNames, handler: Handler | None) -> None:
        slot = getattr(emitter, self._slot, None)
        if handler is None:
            if slot is not None:
                setattr(emitter, self._slot, None)
                emitter.remove_listener(self._type, slot)
            return
        check_handler(self._type, handler, on_event_loop=emitter.on_event_loop)
        if slot is None:
            slot = _ListenerSlot()
            setattr(emitter, self._slot, slot)
        slot.handler = handler
        emitter.add_listener(self._type, slot)


class _HasReadyState(Protocol):
    @property
    def ready_state(self) -> ReadyState: ...


class BrowserNames(Emitter):
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

    @property
    def readyState(self: _HasReadyState) -> ReadyState:  # noqa: N802
        """`ready_state`."""
        return self.ready_state

    def addEventListener(self, type: str, listener: Handler) -> None:  # noqa: A002, N802
        """`add_listener`."""
        self.add_listener(type, listener)

    def removeEventListener(self, type: str, listener: Handler) -> None:  # noqa: A002, N802
        """`remove_listener`."""
        self.remove_listener(type, listener)
