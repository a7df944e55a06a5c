"""`EventSource`: a thread and a table of listeners around an `EventStream`.

The rules for its threads:

- There is one reader thread per source. Only this thread runs the stream and, without
  `dispatch`, the handlers. With `dispatch` it puts the events into a `DispatchQueue`.
- Only `_deliver()` calls handlers, in whichever thread, and only one thread at a time runs it.
- `close()` closes the stream and the table of listeners. The table's version is compared
  before each handler is chosen, so none is chosen after `close()` has returned.
- No lock is held while a handler runs.
"""

from __future__ import annotations

import logging
import math
import re
import threading
import time
from collections.abc import Callable, Collection, Coroutine, Iterable, Iterator, Sequence
from types import CoroutineType
from typing import Any, NamedTuple, Self

import requests

from .engine.engine import Engine
from .engine.telling import Telling
from .errors import EventSourceError, ForkedError
from .handlers.browser import BrowserNames
from .handlers.listeners import NEW_LISTENER, Handler, Pairs, check_handler, name_of
from .handlers.queue import STALL_SECONDS, Dispatch, DispatchQueue, check_dispatch
from .http.content_types import EVENT_STREAM
from .http.keywords import check_keywords
from .protocol.events import Comment, ErrorEvent, MessageEvent, OpenEvent, ReadyState
from .protocol.parser import MAX_EVENT_SIZE
from .protocol.policy import DEFAULT_POLICY, ReconnectPolicy, check_number, check_whole_number
from .protocol.session import Item
from .runtime.exit import is_ending
from .runtime.fork import close_in_child
from .runtime.thread import ReaderThread
from .runtime.wakeup import Gate
from .stream import EventStream
from .urls import redact

EXIT_TIMEOUT = 10.0
"""The most seconds that leaving a `with` block waits for the reader thread. Without a limit,
a handler that waits for the thread in the block would deadlock with it."""

MAX_WAITING = 1000
"""Default of `max_waiting`; the docstring of `EventSource` gives the reason."""

TELL_SECONDS = 1.0
"""Seconds after which items that wait for a first listener are logged: perhaps none comes."""

MAX_UNHEARD = 100
"""The most types without a listener that are logged, each once; a server may use any number."""

PLAIN_TYPE = re.compile(r"[A-Za-z0-9_.:/-]{1,100}")

logger = logging.getLogger(__name__)


class ResumeMarker(NamedTuple):
    """Follows the items of one read: the ID from which the next connection would resume."""

    last_event_id: str
    is_last: bool = False
    """No item follows: the source is closed for good."""
    type: str = NEW_LISTENER
    """A type that no event from a server can have."""


Entry = Item | ResumeMarker
"""An item of the queue to the handlers."""

_running: set[EventSource] = set()
"""Sources with `dispatch` that are running. Their threads have no reference to them (see
`DispatchQueue`), so this set keeps them alive."""

_failed: set[EventSource] = set()
"""Sources whose `dispatch` failed in another thread than that of their handlers. That other
thread must not drop them: they are kept until some source is made in the handlers' thread, or
after that has ended."""


class EventSource(BrowserNames):
    """Streams events from a server and calls the handlers registered for them.

    A source connects at once, in a background thread, and reconnects as the browser's
    `EventSource` does. Handlers are registered for an event type with `on`, `once` and the
    other methods of `pyee.EventEmitter`. A handler is called with one argument: for `open` an
    `OpenEvent`; for `error`, when the connection is lost or refused, an `ErrorEvent`; for
    `message`, and for every type that the server uses, a `MessageEvent`. (If the server sends
    an event of the type `open` or `error`, the same handlers are called with a `MessageEvent`.)
    Handlers of `"*"` are called with every `MessageEvent`, after the handlers of its own type,
    and only once if they are registered for both.

    Handlers run in the reader thread, or wherever `dispatch` runs them, one after another:
    events in the order received, the handlers of an event in the order registered. No handler
    starts before the previous one has returned. If a handler raises, this is logged with its
    traceback, and the other handlers still run. A handler that has been removed is not called
    any more. Events that arrive before the first handler of any type is registered wait for it,
    or for `join()`.

    Nothing fails in silence. If no handler of `error` is registered, the first failure of each
    outage is logged at WARNING, and so is a final failure; the other failures, and the opening
    after them, are logged at INFO. If a handler keeps the reader from reading for 30 seconds,
    or `dispatch` makes no room for that time, this is logged at WARNING.

    Threads: every method may be called from any thread and from a handler;
    `close()` also from a signal handler and from `__del__`.

    Forks: in the child, a source that had been started is closed, and none of its handlers is
    called; `error` is a `ForkedError`, and a warning is logged. The parent's source continues,
    and nothing that the child does has an effect on it. A source that had not been started can
    be started in the child.

    A handler may add and remove handlers, also of its own type; an added handler is called from
    the next event on. It may close and restart its source. It may make other sources, close
    them and then join them, even if their handlers do the same to this source: see `join`.

    Arguments that are not listed here are those of `EventStream`, with the same meaning. Time
    spent in handlers does not count for `event_timeout`. An `auth` callable and a `params`
    function run in the reader thread.

    Args:
        on_open: a handler of `open`, registered before the thread starts. The attribute of the
            same name may be set later.
        on_message: likewise for `message`.
        on_error: likewise for `error`.
        dispatch: makes the handlers run elsewhere: a callable that takes a callable and runs
            it, soon and exactly once, in the thread or loop of its choice.
            `loop.call_soon_threadsafe`, `executor.submit`, `wx.CallAfter` and `GLib.idle_add`
            also work; `eventsource.dispatch` has such callables for Tk, Qt and asyncio. With
            that of an event loop, handlers may be coroutine functions: each call runs as a
            task, and the next handler starts when the task has ended. If `dispatch` raises, or
            drops the callable without running it, the source logs an error and closes. None:
            handlers run in the reader thread.
        max_waiting: how many events may wait for `dispatch`. At that number the reader stops
            reading, and TCP slows the server, until there is room again. (The rest of the last
            read, at most 64 KiB, waits in addition.) No event is lost, unless the source is
            closed. 1,000 is enough that a burst does not stop the reader each time, and few
            enough to take little memory (1 MB if they have 1 kB each) and to show no outdated
            events.
        on_comment: called with the text of each comment line, in order with the events. The
            attribute may be set later.
        start: False: only `start()` starts the thread.

    Raises:
        TypeError, ValueError: an argument cannot be used; the message names it. No
            thread has been started.

    Examples:
        >>> with EventSource("https://example.com/stream") as source:  # doctest: +SKIP
        ...     source.on("message", lambda event: print(event.data))
        ...     source.join(60)
    """

    def __init__(
        self,
        url: str,
        *,
        on_open: Handler | None = None,
        on_message: Handler | None = None,
        on_error: Handler | None = None,
        last_event_id: str = "",
        reconnect: ReconnectPolicy | None = DEFAULT_POLICY,
        event_timeout: float | None = None,
        max_event_size: int = MAX_EVENT_SIZE,
        dispatch: Dispatch | None = None,
        max_waiting: int = MAX_WAITING,
        on_comment: Callable[[str], object] | None = None,
        content_types: Collection[str] = EVENT_STREAM,
        trusted_origins: Collection[str] = (),
        method: str = "GET",
        session: requests.Session | None = None,
        start: bool = True,
        **request_options: Any,
    ) -> None:
        super().__init__()
        check_keywords("EventSource", request_options, EventSource.__init__.__kwdefaults__ or ())
        check_whole_number("max_waiting", max_waiting, 1)
        if dispatch is not None:
            check_dispatch(dispatch)
            self._queue = DispatchQueue[Entry](
                dispatch, max_waiting, self._deliver, self._fail, self._tell_stall
            )
            self.on_event_loop = self._queue.loop is not None
        for failed in tuple(_failed):
            if not failed._is_kept():  # noqa: SLF001 - the same class
                _failed.discard(failed)
        self._stream = EventStream(
            url,
            last_event_id=last_event_id,
            reconnect=reconnect,
            event_timeout=event_timeout,
            max_event_size=max_event_size,
            content_types=content_types,
            trusted_origins=trusted_origins,
            method=method,
            session=session,
            **request_options,
        )
        self._engine = self._stream._engine  # noqa: SLF001 - the reader thread runs it
        # Written where the handlers run:
        self._last_event_id = last_event_id  # `_done`, if set, has a later one
        self._done: MessageEvent | None = None  # the last event whose handlers have run
        self._failure: Exception | None = None  # what closed the source, if not the stream
        self._start_lock = threading.RLock()  # guards `_thread`
        self._thread: ReaderThread | None = None
        self._telling = Telling(url)
        self._unheard: frozenset[str] = frozenset()  # types that were logged: no listener
        self._running: Handler = print  # the handler that runs, or ran last
        self._limit = math.inf  # from this time on `_tell_stall()` logs a warning
        self._is_over = False  # closed, and not by the caller
        self._closed_by_caller = False
        self.on_comment = on_comment
        self._set_handlers(on_open, on_message, on_error)
        close_in_child(self, EventSource._after_fork)
        if start:
            self.start()

    # --- Its state ---

    @property
    def url(self) -> str:
        """The URL as it was given."""
        return self._stream.url

    @property
    def ready_state(self) -> ReadyState:
        """The state of the connection; `CLOSED` is final."""
        return self._stream.ready_state

    @property
    def last_event_id(self) -> str:
        """The last event ID of the last event whose handlers have run.

        A program that stores it, and passes it at its next start, loses no event.
        """
        done = self._done
        return self._last_event_id if done is None else done.last_event_id

    @property
    def reconnection_time(self) -> float:
        """Seconds to wait before the client reconnects.

        This is the server's last `retry` field, if there was one, otherwise the policy's
        `delay`.
        """
        return self._stream.reconnection_time

    @property
    def silent_for(self) -> float | None:
        """Seconds since the last byte on the open connection; None: no connection is open.

        The reader reads nothing while it runs handlers, or waits for `dispatch`.
        """
        return self._stream.silent_for

    @property
    def on_comment(self) -> Callable[[str], object] | None:
        """The callable that gets the text of each comment line. May be set.

        Raises:
            TypeError: it cannot be called.
        """
        return self._on_comment

    @on_comment.setter
    def on_comment(self, handler: Callable[[str], object] | None) -> None:
        if handler is not None:
            check_handler("on_comment", handler, on_event_loop=self.on_event_loop)
        self._on_comment = handler
        self._stream.comments = handler is not None
        if handler is not None:
            self._has_listened.open()

    @property
    def error(self) -> Exception | None:
        """The failure that closed the source for good, else None (also after `close()`)."""
        return self._stream.error if self._failure is None else self._failure

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {redact(self.url)} {self.ready_state.name}>"

    # --- Its life ---

    def start(self) -> None:
        """Start the reader thread, unless it has been started or the source has failed.

        Raises:
            RuntimeError: `close()` has been called, or a fork has closed the source.
        """
        self._refuse_closed()
        with self._start_lock:
            if self._thread is not None or self._table.is_closed:
                return
            name = f"eventsource {redact(self.url)}"
            if self._queue is None:
                thread = ReaderThread(target=self._run, name=name, daemon=True)
            else:
                arguments = (self._engine, self._has_listened, self._telling, self._queue)
                thread = ReaderThread(target=_read_ahead, args=arguments, name=name, daemon=True)
            self._thread = thread
            try:
                thread.start()
            except BaseException:  # no thread could be started; another call may try again
                self._thread = None
                raise
            if self._queue is not None:
                _running.add(self)
                if self._table.is_closed:  # meanwhile
                    _running.discard(self)

    def restart(self) -> None:
        """Drop this connection, or end the wait, and make a new connection at once.

        Never waits. This does not count as an error and fires no `error` event. Events that had
        arrived completely are still dispatched. Does nothing after the source has closed.
        """
        self._stream.restart()

    def close(self) -> None:
        """Close the source for good: end the connection, the thread and the dispatching.

        Never waits and never raises; a second call does nothing. After it has returned, no
        further handler starts; a handler that is running may finish, and events that wait for
        `dispatch` are dropped. It interrupts whatever the reader is doing: connecting, or
        waiting for the response, for bytes, for the next attempt or for room.
        """
        if not self._is_over:
            self._closed_by_caller = True
        self._table.close()
        self._stream.close()
        self._has_listened.open()
        if self._queue is not None:
            self._queue.close()
            _running.discard(self)

    def _refuse_closed(self) -> None:
        forked = isinstance(self.error, ForkedError)
        if forked:
            raise RuntimeError(f"the source is closed: {self.error}")
        if self._closed_by_caller:
            raise RuntimeError("the source has been closed: make another")

    def _after_fork(self) -> str | None:
        """In the child of a fork: close, if it had been started.

        Returns:
            The text to log, unless the stream logs its own.
        """
        self._table.renew_lock()  # a thread that no longer exists may hold the old one
        self._start_lock = threading.RLock()
        if self._queue is not None:
            self._queue.renew_lock()
        if self._thread is None or self._table.is_closed:
            return None
        text = None
        if self._stream.error is None:  # the stream had not begun
            self._failure = ForkedError.here()
            text = f"{redact(self.url)}: closed: {self._failure}"
        self._end()
        return text

    def join(self, timeout: float | None = None) -> bool:
        """Wait until the reader thread has ended.

        The thread ends when the source is closed or, if the source ends for good by itself,
        when the handlers of its last event have run. `join()` also means that all handlers are
        registered: from then on events do not wait for the first one.

        It does not wait if the thread could then never end: in a handler of this source, unless
        `dispatch` runs it and the source is closed; likewise in the event loop in which
        `dispatch` runs the handlers, or in the main thread, if it has run one there; and in the
        reader thread of another source, if a handler of this source waits for that thread. (A
        handler of another source should close this source before it joins it: this source may
        be waiting for that very handler in a way that cannot be detected.)

        Args:
            timeout: seconds to wait at most; None: without a limit.

        Returns:
            True if there is no reader thread (any more), False if it has not ended.

        Raises:
            TypeError, ValueError: `timeout` is not a number of at least 0.
        """
        if timeout is not None:
            check_number("timeout", timeout, 0)
            timeout = min(timeout, threading.TIMEOUT_MAX)
        with self._start_lock:  # another thread may be in start()
            thread = self._thread
        if thread is None:
            return True
        self._has_listened.open()
        queue = self._queue
        if queue is not None and not self._table.is_closed and queue.waits_for_this_thread():
            return False
        return thread.wait_for_end(timeout)

    def __enter__(self) -> Self:
        """Return the source.

        Raises:
            RuntimeError: as `start()` does.
        """
        self._refuse_closed()
        return self

    def __exit__(self, *_: object) -> None:
        """Close, and wait for the thread, for at most 10 seconds."""
        self.close()
        if not self.join(EXIT_TIMEOUT) and self._thread is not threading.current_thread():
            logger.warning("%r: the reader thread is still busy", self)

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(self, *_: object) -> None:
        """Like `__exit__`, but the event loop continues meanwhile."""
        import asyncio  # noqa: PLC0415 - there is a loop

        self.close()
        await asyncio.to_thread(self.__exit__)

    def handlers_of(self, event: Item) -> Iterator[Handler]:
        """Yield the handlers of an event; call each before you take the next.

        For tests without a server: `eventsource.testing.emit` calls them. As with a real
        stream, a handler that has been removed meanwhile is skipped, and `last_event_id`
        changes afterwards.

        Raises:
            RuntimeError: the source has been started, so its own events could come in between.
        """
        if self._thread is not None:
            raise RuntimeError("the source has been started: make it with start=False")
        table = self._table
        if type(event) is Comment:
            if self.on_comment is not None and not table.is_closed:
                yield self.on_comment
            return
        is_message = type(event) is MessageEvent
        for listener, _ in table.heard_by(event.type, is_message=is_message):
            if table.is_closed:
                return
            call = table.call_for(event.type, listener)
            if call is not None:
                yield call
        if type(event) is MessageEvent:
            self._last_event_id = event.last_event_id

    # --- The reader thread ---

    def _run(self) -> None:
        """Read, and run the handlers here."""
        engine = self._engine
        has_listened = self._has_listened
        try:
            while items := engine.take():
                if not has_listened.is_open:
                    _wait_for_listener(has_listened, items, self._telling, engine)
                entries: Sequence[Entry] = items
                last = items[-1]
                if type(last) is not MessageEvent or last.last_event_id != engine.last_event_id:
                    entries = _with_marker(items, engine)
                for _ in self._deliver(entries):
                    pass  # without an event loop there are no coroutines
                del items, entries, last  # frees memory: the next read may come in days
        except BaseException as error:  # for example SystemExit in a handler
            self._fail(type(error).__name__, error)
            if not isinstance(error, Exception):
                raise
        finally:
            self._end()

    def _end(self) -> None:
        """Close, but not because the caller asked for it."""
        self._is_over = True
        self.close()

    def _fail(self, reason: str, error: BaseException | None) -> None:
        """Close the source, which cannot continue."""
        if not self._table.is_closed:
            if isinstance(error, Exception):
                self._failure = error
            else:  # SystemExit and the like, or no exception
                self._failure = EventSourceError(f"closed: {reason}")
                self._failure.__cause__ = error
            # At the end of the program its pools are shut down; that is not an error.
            level = logging.DEBUG if is_ending() else logging.ERROR
            if self._is_kept():
                _failed.add(self)
            try:
                logger.log(level, "%r: closed: %s", self, reason, exc_info=error)
            finally:  # the program's log handlers may raise
                self._end()

    def _is_kept(self) -> bool:
        """Return whether the source must be kept, so that another thread drops the handlers."""
        return self._queue is not None and self._queue.runs_elsewhere()

    def _deliver(  # noqa: PLR0915 - one loop, because a call for each event would take time
        self, items: Iterable[Entry]
    ) -> Iterator[Coroutine[Any, Any, None]]:
        """Call the listeners of each item; yield each coroutine to await before the next call.

        The common path of this loop is fast because it calls nothing but the handler.
        """
        on_comment = self._on_comment
        table = self._table
        version = table.version
        event_type, listeners, only = version.heard_last
        clock = time.monotonic  # called only when the handler changes
        # With `dispatch` the reader reads on meanwhile, until the queue is full.
        self._limit = clock() + STALL_SECONDS if self._queue is None else math.inf
        try:
            for item in items:
                if on_comment is not None and type(item) is Comment:
                    if table.is_closed:
                        return
                    yield from self._comment(on_comment, item.text)
                    self._running = only or self._running  # the next may be of the type before
                    continue
                # Items that the client makes always have the same str object as their type.
                if item.type is not event_type or version is not table.version:
                    if clock() > self._limit:
                        self._tell_stall()
                    event_type, version = item.type, table.version
                    listeners = self._listeners_of(item)
                    is_only = len(listeners) == 1 and type(item) is MessageEvent
                    only = listeners[0][1] if is_only else None
                    if table.is_closed:  # checked before these listeners are cached in `version`
                        return
                    version.heard_last = event_type, listeners, only
                    self._running = only or self._running
                # One listener, the usual case: this takes a third less time than the loop below.
                if only is not None:
                    try:
                        result = only(item)
                    except Exception as error:
                        self._log_failure(only, error)
                    else:
                        if result is not None and type(result) is CoroutineType:
                            yield from self._awaitable(only, result)
                    self._done = item  # type: ignore[assignment] # `only` is set for messages only
                    continue
                for listener, call in listeners:
                    if version is not table.version:  # a handler has changed the listeners
                        if table.is_closed:
                            return
                        current = table.call_for(event_type, listener)
                        if current is None:
                            continue
                        call = current  # noqa: PLW2901 - it may have been replaced
                    if clock() > self._limit:
                        self._tell_stall()
                    self._running = call
                    try:
                        result = call(item)
                    except Exception as error:
                        self._log_failure(call, error)
                    else:
                        if type(result) is CoroutineType:
                            yield from self._awaitable(call, result)
                if type(item) is MessageEvent:
                    self._done = item
                elif type(item) is ResumeMarker:
                    self._last_event_id = item.last_event_id
                    self._done = None
                    if item.is_last:
                        self._end()
                else:
                    self._telling.tell(item, is_heard=bool(listeners), is_end=self._stream.ended)
        finally:
            if self._done is not None:  # frees the memory of the event
                self._last_event_id = self._done.last_event_id
                self._done = None
        if clock() > self._limit:
            self._tell_stall()

    def _comment(self, handler: Handler, text: str) -> Iterator[Coroutine[Any, Any, None]]:
        """Call the handler of comments; yield the coroutine to await before the next call."""
        self._running = handler
        try:
            result = handler(text)
        except Exception as error:
            self._log_failure(handler, error)
        else:
            if type(result) is CoroutineType:
                yield from self._awaitable(handler, result)

    def _listeners_of(self, item: Entry) -> Pairs:
        """Return the listeners of an item; log, once, a type that has none."""
        is_message = type(item) is MessageEvent
        if not is_message and not isinstance(item, OpenEvent | ErrorEvent):
            return ()
        listeners = self._table.heard_by(item.type, is_message=is_message)
        if is_message and not listeners and item.type not in self._unheard:
            self._tell_unheard(item.type)
        return listeners

    def _tell_unheard(self, event_type: str) -> None:
        if len(self._unheard) < MAX_UNHEARD:
            self._unheard |= {event_type}
            # A server that echoes what it was sent may use a secret as a type.
            shown = repr(event_type) if PLAIN_TYPE.fullmatch(event_type) else "(not a plain word)"
            logger.debug("%r: no handler for events of type %s", self, shown)

    def _tell_stall(self) -> None:
        """Log that a handler has kept the reader from reading for `STALL_SECONDS`."""
        self._limit = math.inf  # once for the items of one read
        logger.warning(
            "%r: nothing has been read for %g seconds or more, because of handlers: %s",
            self,
            STALL_SECONDS,
            name_of(self._running),
        )


def _with_marker(items: list[Item], engine: Engine) -> Sequence[Entry]:
    """Add the last event ID of the stream, unless the last item has it."""
    last, last_event_id = items[-1], engine.last_event_id
    if type(last) is MessageEvent and last.last_event_id == last_event_id:
        return items
    return [*items, ResumeMarker(last_event_id)]


def _wait_for_listener(
    has_listened: Gate, items: list[Item], telling: Telling, engine: Engine
) -> None:
    """Wait until there is a listener, or until `join()` or `close()` is called."""
    if not has_listened.wait(TELL_SECONDS):
        for item in items:
            telling.tell(item, is_heard=False, is_end=engine.session.has_ended_in_order)
        has_listened.wait()


def _read_ahead(
    engine: Engine, has_listened: Gate, telling: Telling, queue: DispatchQueue[Entry]
) -> None:
    """Run in the reader thread of a source with `dispatch`, without a reference to the source."""
    try:
        while items := engine.take():
            if not has_listened.is_open:
                _wait_for_listener(has_listened, items, telling, engine)
            queue.put(_with_marker(items, engine))
            del items  # as in `EventSource._run`
        queue.put([ResumeMarker(engine.last_event_id, is_last=True)])
        queue.wait()  # until the last marker has been delivered, or close() is called
    except BaseException as error:  # for example SystemExit in an auth callable
        queue.fail(type(error).__name__, error)
        if not isinstance(error, Exception):
            raise
    finally:
        engine.close()
