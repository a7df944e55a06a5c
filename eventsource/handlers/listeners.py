"""The table of listeners, and pyee's public methods over it.

`Emitter` is a `pyee.EventEmitter` by its class and by its public methods, all of which it has
anew. So nothing here depends on how pyee is made inside; `check_pyee()` refuses a pyee with
a public method that this does not know, which would find an empty table.

The rules that pyee has not: a listener that raises is logged and stops nobody else; what is a
coroutine is not thrown away in silence; a server can neither reach `new_listener`, which is
pyee's own, nor fill the table.
"""

from __future__ import annotations

import functools
import inspect
import logging
import threading
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from types import CoroutineType
from typing import Any, Final, TypeVar, overload

from pyee.base import EventEmitter

from eventsource.runtime.wakeup import Gate

from .queue import DispatchQueue, was_cancelled_below

Handler = Callable[[Any], object]
"""Called with one event; what it returns is ignored."""

F = TypeVar("F", bound=Callable[..., Any])

NEW_LISTENER: Final = "new_listener"
"""pyee's own event, which is emitted before a listener is added."""

logger = logging.getLogger(__name__)


class ListenerTable:
    """Who is to be called, by event type: the listeners, and what to call for each.

    What it holds is replaced and never changed. So who goes through the listeners of an event
    needs no lock, and sees by one comparison of `version` whether any has come or gone, or
    whether the table has been closed.

    Threads: every method may be called from any.

    Attributes:
        version (object): another one after each change.
        is_closed (bool): nobody is to be called any more. Set once, never unset.
    """

    def __init__(self) -> None:
        self.version: object = object()
        self.is_closed = False
        self._by_type: dict[str, Mapping[Handler, Handler]] = {}
        self._pairs: dict[str, tuple[tuple[Handler, Handler], ...]] = {}  # the same, to go through
        self._lock = threading.RLock()  # re-entrant for a signal handler

    def of(self, event_type: str) -> Mapping[Handler, Handler]:
        """Return the listeners of a type in their order, and what to call for each."""
        return self._by_type.get(event_type) or {}

    def pairs(self, event_type: str) -> tuple[tuple[Handler, Handler], ...]:
        """Return what `of()` does in the form that is the fastest to go through."""
        return self._pairs.get(event_type, ())

    def types(self) -> set[str]:
        """Return the types that have listeners."""
        return set(self._by_type)

    def add(self, event_type: str, listener: Handler, call: Handler) -> None:
        """Add a listener. One that is there stays where it is, and `call` is called from now on."""
        with self._lock:
            self._put(event_type, {**self.of(event_type), listener: call})

    def remove(self, event_type: str, listener: Handler, call: Handler | None = None) -> bool:
        """Remove a listener, or if `call` is given, only if that is called for it.

        Returns:
            Whether that was done.
        """
        with self._lock:
            listeners = {**self.of(event_type)}
            found = listeners.pop(listener, None)
            if found is None or (call is not None and found is not call):
                return False
            self._put(event_type, listeners)
            return True

    def clear(self, event_type: str | None) -> None:
        """Remove all listeners of a type; None: of all types."""
        with self._lock:
            for each in [event_type] if event_type is not None else [*self._by_type]:
                self._put(each, {})

    def close(self) -> None:
        """Have nobody called any more. Never waits; safe in a signal handler."""
        self.is_closed = True
        self.version = object()

    def renew_lock(self) -> None:
        """There are no other threads any more: one that held the lock will not release it."""
        self._lock = threading.RLock()

    def _put(self, event_type: str, listeners: Mapping[Handler, Handler]) -> None:
        if listeners:
            self._by_type[event_type] = listeners
            self._pairs[event_type] = tuple(listeners.items())
        else:
            self._by_type.pop(event_type, None)
            self._pairs.pop(event_type, None)
        self.version = object()


class Emitter(EventEmitter):
    """pyee's public methods over a `ListenerTable`.

    Threads: every method may be called from any.
    """

    def __init__(self) -> None:
        check_pyee()
        super().__init__()
        self._table = ListenerTable()
        self._has_listened = Gate()  # opened by the first registration, or otherwise
        self._queue: DispatchQueue[Any] | None = None  # to where handlers run, if elsewhere
        self.on_event_loop = False
        """Whether an event loop runs the handlers; if so, they may be coroutine functions."""

    # --- Who listens ---

    @overload
    def on(self, event: str) -> Callable[[F], F]: ...
    @overload
    def on(self, event: str, f: F) -> F: ...
    def on(self, event: str, f: Any = None) -> Any:
        """Register a handler; without one, return a decorator that does."""
        return self.listens_to(event) if f is None else self.add_listener(event, f)

    def listens_to(self, event: str) -> Callable[[F], F]:
        """Return a decorator that registers a handler, and returns it."""
        return functools.partial(self.add_listener, event)

    def add_listener(self, event: str, f: F) -> F:
        """Register a handler, and return it. One that is registered already stays where it is."""
        self.add_listeners([event], f)
        return f

    def once(self, event: str, f: Any = None) -> Any:
        """Register a handler for one event; without one, return a decorator that does."""
        if f is None:
            return functools.partial(self.once, event)

        def call(*args: Any, **kwargs: Any) -> Any:
            return f(*args, **kwargs) if self._table.remove(event, f, call) else None

        self._register(event, f, call)
        self._has_listened.open()
        return f

    def add_listeners(self, events: Iterable[str], f: Handler) -> None:
        """Register `f` for several types; what waits for a first listener waits for them all."""
        events = [*events]
        for event in events:
            self._register(event, f, f)
        if events != [NEW_LISTENER]:
            self._has_listened.open()

    def _register(self, event: str, listener: Handler, call: Handler) -> None:
        check_handler(event, listener, on_event_loop=self.on_event_loop)
        self.emit(NEW_LISTENER, event, listener)
        self._table.add(event, listener, call)

    def remove_listener(self, event: str, f: Any) -> None:
        """Remove a handler of `event`; it is no error if it is not registered."""
        self._table.remove(event, f)

    def remove_all_listeners(self, event: str | None = None) -> None:
        """Remove all handlers of `event`; None: of all types."""
        self._table.clear(event)

    def listeners(self, event: str) -> list[Any]:
        """Return the handlers of `event` in their order."""
        return [*self._table.of(event)]

    def event_names(self) -> set[str]:
        """Return the types that have handlers."""
        return self._table.types()

    # --- Calling them ---

    def emit(self, event: str, *args: Any, **kwargs: Any) -> bool:
        """Call the listeners of `event`, here and now, as pyee does.

        But one that raises is logged and stops nobody else, one that has been removed
        meanwhile is not called, and `error` needs no listener. Useful to test handlers
        without a server.

        Returns:
            Whether there was a listener.
        """
        listeners = self._table.of(event)
        for listener, call in listeners.items():
            if self._table.of(event).get(listener) is not call:
                continue
            try:
                result = call(*args, **kwargs)
            except Exception as error:
                self._log_failure(call, error)
            else:
                if type(result) is CoroutineType:
                    for coroutine in self._awaitable(call, result, unless_closed=False):
                        assert self._queue is not None
                        self._queue.spawn(coroutine)
        return bool(listeners)

    def _log_failure(self, handler: Handler, error: BaseException) -> None:
        logger.error("%r: the handler %s raised", self, _name_of(handler), exc_info=error)

    def _awaitable(
        self, handler: Handler, coroutine: Coroutine[Any, Any, Any], *, unless_closed: bool = True
    ) -> Iterator[Coroutine[Any, Any, None]]:
        """Yield what a handler returned in a form that logs failures, if it can be run.

        A task begins later than it is made. `unless_closed`: not if that has happened meanwhile.
        """
        if self._queue is not None and self._queue.has_loop():
            yield self._await(self._queue, handler, coroutine, unless_closed)
            return
        coroutine.close()
        logger.error(
            "%r: the handler %s returned a coroutine, which no event loop runs; see dispatch",
            self,
            _name_of(handler),
        )

    async def _await(
        self,
        queue: DispatchQueue[Any],
        handler: Handler,
        coroutine: Coroutine[Any, Any, Any],
        unless_closed: bool,
    ) -> None:
        if unless_closed and self._table.is_closed:
            coroutine.close()
            return
        try:
            await coroutine
        except Exception as error:
            self._log_failure(handler, error)
        except GeneratorExit:  # the loop is gone, and Python may be, too
            raise
        except (KeyboardInterrupt, SystemExit) as error:
            queue.fail(type(error).__name__, error)
            raise
        except BaseException as error:
            if not was_cancelled_below(error):
                raise
            self._log_failure(handler, error)


@functools.cache
def check_pyee() -> None:
    """Refuse a pyee with public methods of which `Emitter` has none of its own.

    Raises:
        ImportError: there are some. They would find no listener, and say nothing.
    """
    public = {name for name in vars(EventEmitter) if not name.startswith("_")}
    if missing := public - set(vars(Emitter)):
        raise ImportError(
            f"this version of pyee has methods that eventsource does not know: {sorted(missing)}."
            " pyee 13 to 16 are known to work"
        )


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


def _name_of(handler: Handler) -> str:
    return getattr(handler, "__qualname__", type(handler).__qualname__)
