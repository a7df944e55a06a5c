"""The table of listeners: pyee's, with our rules.

A listener that raises is logged and stops nobody else; what is a coroutine is not thrown
away in silence; a server can neither reach pyee's own `new_listener` nor fill the table.
"""

from __future__ import annotations

import abc
import contextlib
import logging
from collections.abc import Coroutine, Iterable, Iterator, Mapping
from types import CoroutineType
from typing import Any

from eventsource.runtime.wakeup import Gate

from .browser import BrowserNames
from .check import Handler, check_handler
from .queue import was_cancelled_below

logger = logging.getLogger(__name__)


class Listeners(BrowserNames):
    """An emitter whose listeners are apart from each other.

    Threads: every method may be called from any.
    """

    def __init__(self) -> None:
        super().__init__()
        # The listeners and what to call for them, by type, as far as they have been
        # looked up; replaced by an empty one whenever a listener comes or goes.
        self._snapshots: dict[str, tuple[tuple[Handler, Handler], ...]] = {}
        self._closed = False  # nothing more is delivered; set once, never unset
        self._has_listened = Gate()  # opened by the first registration, or otherwise

    def _add_event_handler(self, event: str, k: Handler, v: Handler) -> None:
        # The one place that `on`, `once`, `add_listener` and `listens_to` go through.
        self._register(event, k, v)
        if event != "new_listener" and not self._has_listened.is_open:
            self._has_listened.open()

    def _register(self, event: str, k: Handler, v: Handler) -> None:
        check_handler(event, k, on_event_loop=self.on_event_loop)
        super()._add_event_handler(event, k, v)
        self._snapshots = {}

    def _listen(self, events: Iterable[str], f: Handler) -> None:
        """Add `f` for several types; what waits for a first listener waits for all of these."""
        for event in events:
            self._register(event, f, f)
        self._has_listened.open()

    def remove_listener(self, event: str, f: Handler) -> None:
        """Remove `f` from the listeners of `event`; one that is none is no error."""
        with contextlib.suppress(KeyError):  # pyee before 14 raises it
            super().remove_listener(event, f)

    def _remove_listener(self, event: str, f: Handler) -> None:
        # The one place that `remove_listener` and a `once` that has run go through.
        super()._remove_listener(event, f)
        self._snapshots = {}

    def remove_all_listeners(self, event: str | None = None) -> None:
        """Remove all listeners of `event`; None: of all types."""
        super().remove_all_listeners(event)
        self._snapshots = {}

    def _table(self, event: str) -> Mapping[Handler, Handler]:
        """What pyee keeps: each listener and what to call, in order."""
        return self._events.get(event) or {}

    def emit(self, event: str, *args: Any, **kwargs: Any) -> bool:
        """Call the listeners of `event`, here and now, as pyee does.

        But one that raises is logged and stops nobody else, one that has been removed
        meanwhile is not called, and `error` needs no listener. Useful to test handlers
        without a server.

        Returns:
            Whether there was a listener.
        """
        with self._lock:
            listeners = tuple(self._table(event).items())
        for listener, call in listeners:
            if self._table(event).get(listener) is call:
                self._emit_run(call, args, kwargs)
        return bool(listeners)

    def _emit_run(self, f: Handler, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        try:
            result = f(*args, **kwargs)
        except Exception as error:
            self._log_failure(f, error)
        else:
            if type(result) is CoroutineType:
                for coroutine in self._awaitable(f, result, unless_closed=False):
                    self._spawn(coroutine)

    def _log_failure(self, handler: Handler, error: BaseException) -> None:
        logger.error("%r: the handler %s raised", self, _name_of(handler), exc_info=error)

    def _awaitable(
        self, handler: Handler, coroutine: Coroutine[Any, Any, Any], *, unless_closed: bool = True
    ) -> Iterator[Coroutine[Any, Any, None]]:
        """Yield what a handler returned in a form that logs failures, if it can be run.

        A task begins later than it is made. `unless_closed`: not if that has happened meanwhile.
        """
        if self._has_event_loop():
            yield self._await(handler, coroutine, unless_closed)
            return
        coroutine.close()
        logger.error(
            "%r: the handler %s returned a coroutine, which no event loop runs; see dispatch",
            self,
            _name_of(handler),
        )

    async def _await(
        self, handler: Handler, coroutine: Coroutine[Any, Any, Any], unless_closed: bool
    ) -> None:
        if unless_closed and self._closed:
            coroutine.close()
            return
        try:
            await coroutine
        except Exception as error:
            self._log_failure(handler, error)
        except GeneratorExit:  # the loop is gone, and Python may be, too
            raise
        except (KeyboardInterrupt, SystemExit) as error:
            self._fail(type(error).__name__, error)
            raise
        except BaseException as error:
            if not was_cancelled_below(error):
                raise
            self._log_failure(handler, error)

    @abc.abstractmethod
    def _fail(self, reason: str, error: BaseException | None) -> None:
        """Close, for nothing can go on: by what, and what was raised."""

    @abc.abstractmethod
    def _has_event_loop(self) -> bool:
        """Say whether there is an event loop, not closed, to run coroutines."""

    @abc.abstractmethod
    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Run it on the event loop."""

    def _look_up(self, event_type: str) -> tuple[tuple[Handler, Handler], ...]:
        """Return the listeners of an event of the server's, and what to call for each."""
        if event_type == "new_listener" or event_type not in self._events:
            return ()  # pyee's own, not the server's to fire; or nobody's
        snapshots = self._snapshots  # thrown away if a listener comes or goes from here on
        with self._lock:
            listeners = tuple(self._table(event_type).items())
        if listeners:  # else a server that names ever new types could fill the memory
            snapshots[event_type] = listeners
        return listeners


def _name_of(handler: Handler) -> str:
    return getattr(handler, "__qualname__", type(handler).__qualname__)
