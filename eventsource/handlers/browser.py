"""The browser's names for parts of `EventSource` (HTML standard, 9.2.2).

They are for programs that come from JavaScript, and add nothing new: each docstring says in
a line what the name stands for. `on_open`, `on_message` and `on_error` are the same
attributes as `onopen`, `onmessage` and `onerror`.
"""

from __future__ import annotations

from typing import ClassVar, Protocol

from eventsource.protocol.events import ReadyState

from .listeners import Emitter, Handler, Slot, check_handler


class _HandlerAttribute:
    """`onmessage` and similar attributes: at most one handler, which can be replaced.

    As in the DOM, a new handler takes the position of the old one in the order of the
    listeners, None removes it, and a listener that is the same function is separate from it.
    """

    def __init__(self, event_type: str) -> None:
        self._type = event_type
        self._slot = f"_on{event_type}_slot"

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
        check_handler(f"on_{self._type}", handler, on_event_loop=emitter.on_event_loop)
        if slot is None:
            slot = Slot()
            setattr(emitter, self._slot, slot)
        emitter._set_slot(self._type, slot, handler)  # noqa: SLF001 - part of the emitter


class _HasReadyState(Protocol):
    @property
    def ready_state(self) -> ReadyState: ...


class BrowserNames(Emitter):
    """An emitter that also has the browser's names."""

    CONNECTING: ClassVar[ReadyState] = ReadyState.CONNECTING
    OPEN: ClassVar[ReadyState] = ReadyState.OPEN
    CLOSED: ClassVar[ReadyState] = ReadyState.CLOSED

    on_open = onopen = _HandlerAttribute("open")
    """The handler of `open`, or None. The constructor's argument; may be set."""
    on_message = onmessage = _HandlerAttribute("message")
    """The handler of `message`, likewise."""
    on_error = onerror = _HandlerAttribute("error")
    """The handler of `error`, likewise."""

    def _set_handlers(
        self, on_open: Handler | None, on_message: Handler | None, on_error: Handler | None
    ) -> None:
        """Set the handlers that are not None."""
        if on_open is not None:
            self.on_open = on_open
        if on_message is not None:
            self.on_message = on_message
        if on_error is not None:
            self.on_error = on_error

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
