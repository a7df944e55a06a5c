"""The table of listeners, and pyee's public methods over it.

`Emitter` is a subclass of `pyee.EventEmitter` that overrides all of its public methods. So
nothing here depends on the internals of pyee. `check_pyee()` refuses a pyee with a public
method that this module does not know, because such a method would find an empty table.

The rules that pyee does not have: a listener that raises is logged, and the other listeners
still run; a coroutine is never dropped in silence; a server can neither reach
`new_listener`, which is pyee's own event, nor fill the table.
"""

from __future__ import annotations

import functools
import inspect
import logging
import threading
from collections.abc import Callable, Coroutine, Generator, Iterable, Iterator, Mapping
from types import CoroutineType
from typing import Any, Final, TypeVar, overload

from pyee.base import EventEmitter

from eventsource.protocol.events import MessageEvent
from eventsource.runtime.wakeup import Gate

from .queue import DispatchQueue, was_cancelled_below

Handler = Callable[[Any], object]
"""Called with one event; its return value is ignored."""

F = TypeVar("F", bound=Callable[..., Any])

ANY_TYPE: Final = "*"
"""Its handlers are called with every `MessageEvent`, whatever its type."""

NEW_LISTENER: Final = "new_listener"
"""pyee's own event, which is emitted before a listener is added."""

logger = logging.getLogger(__name__)


Pairs = tuple[tuple[Handler, Handler], ...]
"""Listeners in their order, and what to call for each."""


class Version:
    """Identifies the content of a table: each change makes a new one.

    Attributes:
        heard_last: a cache for the thread that delivers, because most events have the type of
            the one before: the type of the last event, its listeners, and the callable if there
            is only one.
    """

    __slots__ = ("heard_last",)

    def __init__(self) -> None:
        self.heard_last: tuple[str, Pairs, Handler | None] = ("", (), None)


class ListenerTable:
    """The listeners by event type, and what to call for each.

    Code that iterates over the listeners of an event has an immutable tuple, and needs no lock.
    One comparison of `version` shows whether a listener has been added or removed, or whether
    the table has been closed. The tuple is made when an event comes, not at each change, so
    registering many listeners takes linear time.

    Threads: every method may be called from any.

    Attributes:
        version (Version): a new one after each change.
        is_closed (bool): no listener may be called any more. Set once, never unset.
    """

    def __init__(self) -> None:
        self.version = Version()
        self.is_closed = False
        self._by_type: dict[str, dict[Handler, Handler]] = {}  # no value is empty
        # Caches: the same as tuples; and with those of ANY_TYPE, where a type has both.
        self._pairs: dict[str, Pairs] = {}
        self._merged: dict[str, Pairs] = {}
        self._lock = threading.RLock()  # re-entrant for a signal handler

    def of(self, event_type: str) -> Mapping[Handler, Handler]:
        """Return the listeners of a type in their order, and what to call for each."""
        return self._by_type.get(event_type) or {}

    def heard_by(self, event_type: str, *, is_message: bool) -> Pairs:
        """Return the listeners of an event, in order, and what to call for each.

        Args:
            event_type: the event's type.
            is_message: whether the server sent it: then the handlers of `"*"` are called, too,
                after the others. A handler that is registered for both is called once.
        """
        merged = self._merged  # read first: a change replaces it
        own = self._pairs_of(event_type) if event_type != NEW_LISTENER else ()
        others = self._pairs_of(ANY_TYPE) if is_message else ()
        if not own or not others:
            return own or others
        both = merged.get(event_type)
        if both is None:
            both = own + tuple(pair for pair in others if pair[0] not in self.of(event_type))
            merged[event_type] = both
        return both

    def _pairs_of(self, event_type: str) -> Pairs:
        pairs = self._pairs.get(event_type)
        if pairs is None:
            if event_type not in self._by_type:  # not cached: a server may send any number
                return ()
            with self._lock:
                pairs = tuple(self.of(event_type).items())
                self._pairs[event_type] = pairs
        return pairs

    def call_for(self, event_type: str, listener: Handler) -> Handler | None:
        """Return what to call for a listener of an event; None: it has been removed."""
        return self.of(event_type).get(listener) or self.of(ANY_TYPE).get(listener)

    def types(self) -> set[str]:
        """Return the types that have listeners."""
        return set(self._by_type)

    def add(self, event_type: str, listener: Handler, call: Handler) -> None:
        """Add a listener; one that is registered keeps its position, and gets a new `call`."""
        version = Version()
        with self._lock:
            listeners = self._by_type.get(event_type)
            # No signal handler runs from here to the end, because there is no call: the change
            # is made as a whole or not at all.
            if listeners is None:
                self._by_type[event_type] = {listener: call}
            else:
                listeners[listener] = call
            self._pairs = {}
            self._merged = {}
            self.version = version

    def remove(self, event_type: str, listener: Handler, call: Handler | None = None) -> bool:
        """Remove a listener; if `call` is given, only if that is what is called for it.

        Returns:
            Whether it was removed.
        """
        version = Version()
        with self._lock:
            listeners = self._by_type.get(event_type, {})
            found = listeners.get(listener)
            if found is None or (call is not None and found is not call):
                return False
            # As in `add`.
            del listeners[listener]
            if not listeners:
                del self._by_type[event_type]
            self._pairs = {}
            self._merged = {}
            self.version = version
            return True

    def clear(self, event_type: str | None) -> None:
        """Remove all listeners of a type; None: of all types."""
        version = Version()
        with self._lock:
            if event_type is None:
                self._by_type = {}
            elif event_type in self._by_type:
                del self._by_type[event_type]
            self._pairs = {}
            self._merged = {}
            self.version = version

    def close(self) -> None:
        """Have no listener called any more. Never waits; safe in a signal handler."""
        self.is_closed = True
        self.version = Version()

    def renew_lock(self) -> None:
        """After a fork: make a new lock; a thread that no longer exists may hold the old one."""
        self._lock = threading.RLock()


class Slot:
    """A position among the listeners of a type, whose handler can be replaced."""

    handler: Handler

    def __call__(self, event: Any) -> object:
        """Call the handler."""
        return self.handler(event)


class Emitter(EventEmitter):
    """pyee's public methods over a `ListenerTable`.

    Threads: every method may be called from any.
    """

    def __init__(self) -> None:
        check_pyee()
        super().__init__()
        self._table = ListenerTable()
        self._has_listened = Gate()  # opened by the first registration, or by a subclass
        self._queue: DispatchQueue[Any] | None = None  # None: the reader runs the handlers
        self.on_event_loop = False
        """Whether an event loop runs the handlers; if so, they may be coroutine functions."""

    # --- Who listens ---

    @overload
    def on(self, event: str) -> Callable[[F], F]: ...
    @overload
    def on(self, event: str, f: F) -> F: ...
    def on(self, event: str, f: Any = None) -> Any:
        """Register a handler; without one, return a decorator that does.

        Raises:
            TypeError: see `check_handler`.
        """
        return self.listens_to(event) if f is None else self.add_listener(event, f)

    def listens_to(self, event: str) -> Callable[[F], F]:
        """Return a decorator that registers a handler, and returns it."""
        check_event(event)
        return functools.partial(self.add_listener, event)

    def add_listener(self, event: str, f: F) -> F:
        """Register a handler, unless it is registered already, and return it."""
        self.add_listeners([event], f)
        return f

    def once(self, event: str, f: Any = None) -> Any:
        """Register a handler for one event; without one, return a decorator that does."""
        check_event(event)
        if f is None:
            return functools.partial(self.once, event)

        def call(*args: Any, **kwargs: Any) -> Any:
            return f(*args, **kwargs) if self._table.remove(event, f, call) else None

        self._register(event, f, call)
        self._has_listened.open()
        return f

    def add_listeners(self, events: Iterable[str], f: Handler) -> None:
        """Register `f` for several types; events wait until all are registered."""
        events = [*events]
        for event in events:
            self._register(event, f, f)
        if events != [NEW_LISTENER]:
            self._has_listened.open()

    def _register(self, event: str, listener: Handler, call: Handler) -> None:
        check_event(event)
        check_handler(f"the handler of {event!r}", listener, on_event_loop=self.on_event_loop)
        self.emit(NEW_LISTENER, event, listener)
        self._table.add(event, listener, call)

    def _set_slot(self, event: str, slot: Slot, f: Handler) -> None:
        """Have a slot call `f` for this type; a slot in the table keeps its position."""
        slot.handler = f
        self.emit(NEW_LISTENER, event, f)
        self._table.add(event, slot, f)
        self._has_listened.open()

    def remove_listener(self, event: str, f: Any) -> None:
        """Remove a handler of `event`; it is not an error if it is not registered."""
        self._table.remove(event, f)

    def remove_all_listeners(self, event: str | None = None) -> None:
        """Remove all handlers of `event`; None: of all types."""
        self._table.clear(event)

    def listeners(self, event: str) -> list[Any]:
        """Return the handlers of `event` in their order."""
        listeners = [*self._table.of(event)]
        return [each.handler if isinstance(each, Slot) else each for each in listeners]

    def event_names(self) -> set[str]:
        """Return the types that have handlers."""
        return self._table.types()

    # --- Calling them ---

    def emit(self, event: str, *args: Any, **kwargs: Any) -> bool:
        """Call the listeners of `event` in this thread, before it returns, as pyee does.

        Unlike pyee's method, it logs a listener that raises and still calls the others, it does
        not call a listener that has been removed meanwhile, and `error` needs no listener. It
        is useful to test handlers without a server.

        Returns:
            Whether there was a listener.
        """
        is_message = len(args) == 1 and isinstance(args[0], MessageEvent)
        listeners = (
            tuple(self._table.of(event).items())
            if event == NEW_LISTENER
            else self._table.heard_by(event, is_message=is_message)
        )
        for listener, _ in listeners:
            call = self._table.call_for(event, listener)
            if call is None:
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
        logger.error("%r: the handler %s raised", self, name_of(handler), exc_info=error)

    def _awaitable(
        self, handler: Handler, coroutine: Coroutine[Any, Any, Any], *, unless_closed: bool = True
    ) -> Iterator[Coroutine[Any, Any, None]]:
        """Yield the coroutine of a handler, wrapped to log failures, if a loop can run it.

        `unless_closed`: do not run it if the table is closed before its task starts.
        """
        if self._queue is not None and self._queue.has_loop():
            waiting = self._await(self._queue, handler, coroutine, unless_closed)
            yield _AwaitedOrClosed(waiting, coroutine)
            return
        coroutine.close()
        logger.error(
            "%r: the handler %s returned a coroutine, which no event loop runs; see dispatch",
            self,
            name_of(handler),
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
        except GeneratorExit:  # the loop no longer exists, and the interpreter may be exiting
            raise
        except (KeyboardInterrupt, SystemExit) as error:
            queue.fail(type(error).__name__, error)
            raise
        except BaseException as error:
            if not was_cancelled_below(error):
                raise
            self._log_failure(handler, error)


class _AwaitedOrClosed(Coroutine[Any, Any, None]):
    """A coroutine that awaits another; when it is dropped, both are closed.

    Python warns about a plain coroutine that was never awaited. That happens to the last
    coroutines of a program, if its loop ends before their tasks begin.
    """

    def __init__(
        self, coroutine: Coroutine[Any, Any, None], awaited: Coroutine[Any, Any, Any]
    ) -> None:
        self._coroutine = coroutine
        self._awaited = awaited

    def __await__(self) -> Generator[Any, Any, None]:
        return self._coroutine.__await__()

    def send(self, value: Any, /) -> Any:
        return self._coroutine.send(value)

    def throw(self, *error: Any) -> Any:
        try:
            return self._coroutine.throw(*error)
        except BaseException:
            # This one is over; the other may not have begun. `__del__` alone is not enough: the
            # members of a cycle are finalized in any order, and Python might warn first.
            self._awaited.close()
            raise

    def close(self) -> None:
        self._coroutine.close()
        self._awaited.close()

    def __del__(self) -> None:
        self.close()


@functools.cache
def check_pyee() -> None:
    """Refuse a pyee with public methods that `Emitter` does not override.

    Raises:
        ImportError: there are such methods. They would silently find no listener.
    """
    public = {name for name in vars(EventEmitter) if not name.startswith("_")}
    if missing := public - set(vars(Emitter)):
        raise ImportError(
            f"this version of pyee has methods that eventsource does not know: {sorted(missing)}."
            " pyee 13 to 16 are known to work"
        )


def check_event(event: object) -> None:
    """Refuse a value that is not an event type.

    Raises:
        TypeError: it is not a str; for example, it is the handler that `@source.on` gets.
    """
    if callable(event) and not isinstance(event, str):
        raise TypeError(
            f"event must be a str, not {event!r}: name the type, as in @source.on('message')"
        )
    if not isinstance(event, str):
        raise TypeError(f"event must be a str, not {event!r}")


def check_handler(name: str, handler: object, *, on_event_loop: bool) -> None:
    """Refuse a value that cannot work as a handler.

    Args:
        name: its name in the error.
        handler: the value to register.
        on_event_loop: whether an event loop runs it, so that it may be a coroutine function.

    Raises:
        TypeError: `handler` is not callable, or a call would do nothing; the message says
            which.
    """
    if not callable(handler):
        raise TypeError(f"{name} must be callable, not {handler!r}")
    # For an object, also the `__call__` of its class.
    functions = (handler, getattr(handler, "__call__", None))  # noqa: B004
    if any(inspect.isgeneratorfunction(f) or inspect.isasyncgenfunction(f) for f in functions):
        raise TypeError(
            f"{name} is a generator function, {handler!r}: nothing would"
            " iterate over what it returns; register a function without yield"
        )
    if not on_event_loop and any(inspect.iscoroutinefunction(f) for f in functions):
        raise TypeError(
            f"{name} is a coroutine function, {handler!r}, and no event"
            " loop runs the handlers; pass dispatch=loop.call_soon_threadsafe or"
            " dispatch=eventsource.dispatch.asyncio(), or register a plain function"
        )


def name_of(handler: Handler) -> str:
    """Return the name of a handler for a log line."""
    return getattr(handler, "__qualname__", type(handler).__qualname__)
