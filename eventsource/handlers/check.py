"""What may be registered as a handler."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

Handler = Callable[[Any], object]
"""Called with one event; what it returns is ignored."""


def check_handler(event_type: object, handler: object, *, on_event_loop: bool) -> None:
    """Refuse what could never be called as a handler.

    Args:
        event_type: what it is to be registered for.
        handler: what is to be registered.
        on_event_loop: whether an event loop runs it, so that it may be a coroutine function.

    Raises:
        TypeError: `event_type` is no str, or `handler` is not callable, or calling it
            would do nothing; the message says which.
    """
    if not isinstance(event_type, str):
        raise TypeError(f"event must be a str, not {event_type!r}")
    if not callable(handler):
        raise TypeError(f"the handler of {event_type!r} must be callable, not {handler!r}")
    # For an object, what its class calls.
    functions = (handler, getattr(handler, "__call__", None))  # noqa: B004
    if any(inspect.isgeneratorfunction(f) or inspect.isasyncgenfunction(f) for f in functions):
        raise TypeError(
            f"the handler of {event_type!r} is a generator function, {handler!r}: nothing would"
            " iterate over what it returns; register a function without yield"
        )
    if not on_event_loop and any(inspect.iscoroutinefunction(f) for f in functions):
        raise TypeError(
            f"the handler of {event_type!r} is a coroutine function, {handler!r}, and no event"
            " loop runs the handlers; pass dispatch=loop.call_soon_threadsafe or"
            " dispatch=eventsource.dispatch.asyncio(), or register a plain function"
        )
