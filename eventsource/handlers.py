"""What may be registered as a handler."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

Handler = Callable[[Any], object]
"""Called with one event; what it returns is ignored."""


def check_handler(event_type: object, handler: object) -> None:
    """Refuse what could never be called as a handler.

    Raises:
        TypeError: `event_type` is no str, or `handler` is not callable or a
            coroutine function; the message says which.
    """
    if not isinstance(event_type, str):
        raise TypeError(f"event must be a str, not {event_type!r}")
    if not callable(handler):
        raise TypeError(f"the handler of {event_type!r} must be callable, not {handler!r}")
    if inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(
        getattr(handler, "__call__", None)  # noqa: B004 - an object with an async __call__
    ):
        raise TypeError(
            f"the handler of {event_type!r} is a coroutine function, {handler!r}: handlers run"
            " in the reader thread, where no event loop runs it; register a plain function,"
            " which may call asyncio.run_coroutine_threadsafe()"
        )
