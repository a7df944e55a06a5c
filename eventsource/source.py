"""`EventSource`: a thread and a listener table around an `EventStream`.

The rules of its threads:

- One reader thread per source. It alone runs the stream and, without `dispatch`, the
  handlers. With `dispatch` it puts what has happened into a `Handover`.
- `_deliver()` is the one place where handlers are called, wherever that is, and by one
  thread at a time.
- `close()` sets one flag and closes the stream. The flag is looked at before each
  handler is chosen, so none is chosen after `close()` has returned.
- No lock is held while a handler runs.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Coroutine, Iterable, Iterator
from types import CoroutineType
from typing import Any, NamedTuple, Self

import requests

from .errors import EventSourceError, summary
from .handlers.check import Handler, check_handler
from .handlers.listeners import Listeners
from .handlers.queue import Dispatch, Handover
from .protocol.events import Comment, ErrorEvent, MessageEvent, ReadyState
from .protocol.parser import MAX_EVENT_SIZE
from .protocol.policy import DEFAULT_POLICY, ReconnectPolicy, check_number, check_whole_number
from .runtime.fork import tell_in_child
from .runtime.joining import Joinable
from .runtime.wakeup import Gate
from .stream import EventStream, Item
from .urls import redact

EXIT_TIMEOUT = 10.0
"""Seconds that leaving a `with` block waits for the reader thread at the most: a
handler that itself waits for the thread in the block must not hang both."""

MAX_WAITING = 1000
"""Events that wait for `dispatch` at the most, unless the caller says otherwise; the reason
is in the docstring of `EventSource`."""

logger = logging.getLogger(__name__)


class Place(NamedTuple):
    """Stands after what one read has brought: where a next connection would go on."""

    last_event_id: str
    is_last: bool = False
    """Nothing comes after it: the source is closed for good."""
    type: str = "new_listener"
    """Which no server's event may reach, so nobody listens for it."""


Entry = Item | Place
"""What is delivered to the handlers."""

_running: set[EventSource] = set()
"""Sources with `dispatch` that have been started and not closed: their threads have no
reference to them (see `Handover`)."""

_failed: set[EventSource] = set()
"""Sources whose `dispatch` failed in another thread than that of their handlers. Kept, for
the same reason, until that thread makes another source or has ended."""


class EventSource(Listeners):
    """Streams events from a server and calls the handlers registered for them.

    It connects at once, in a thread of its own, and reconnects as the browser's
    `EventSource` does. Handlers are registered for an event type with `on`, `once`
    and the other methods of `pyee.EventEmitter`. They are called with one argument:
    those of `open` with an `OpenEvent`, of `error` with an `ErrorEvent` when the
    connection is lost or refused, of `message` and of every type that the server
    names with a `MessageEvent`. (A server that names an event `open` or `error`
    reaches the same handlers with a `MessageEvent`.)

    Handlers run in the reader thread or wherever `dispatch` runs them, one after
    another: events in the order received, the handlers of an event in the order
    registered, none before the one before it has returned. One that raises is logged
    with its traceback, and the others run all the same. One that has been removed is
    not called any more. What arrives before the first handler of any type is
    registered waits for it.

    Threads: every method may be called from any thread and from a handler;
    `close()` also from a signal handler and from `__del__`.

    Forks: in the child the source is closed, and none of its handlers is called; that of
    the parent goes on, and nothing that the child does has an effect on it.

    A handler may add and remove handlers, of its own type too: one that is added hears
    the next event. It may close and restart its source, and make others, close them
    and then join them, also if theirs do the same to this one: see `join`.

    Args:
        url: an absolute URL.
        on_open: a handler of `open`, registered before the thread starts.
        on_message: likewise of `message`.
        on_error: likewise of `error`.
        last_event_id: where to go on: sent as `Last-Event-ID`.
        reconnect: when to reconnect; None: never. As `ReconnectPolicy()` says unless you
            pass one, but for a method other than GET or HEAD, which is then not sent again.
        event_timeout: seconds to wait for a message, counted from the start of
            each attempt and from each message, before the connection is dropped
            and made again; comments do not count. None: for ever. Time spent in
            handlers is not counted.
        max_event_size: the largest event, in bytes (see `EventStreamParser`); a larger
            one closes the source for good with `EventTooLarge`. 64 MiB unless you say
            otherwise.
        dispatch: has the handlers run elsewhere: a callable that takes a callable and
            runs it, soon and once, in the thread or loop of its choice.
            `loop.call_soon_threadsafe`, `executor.submit`, `wx.CallAfter` and
            `GLib.idle_add` are such; `eventsource.dispatch` has those for Tk, Qt and
            asyncio. With that of an event loop, handlers may be coroutine functions:
            each runs as a task, and the next handler begins when it has ended. If
            `dispatch` raises, or throws away what it was given, the source logs an
            error and closes. None: handlers run in the reader thread.
        max_waiting: how many events wait for `dispatch` at the most; then the reader
            stops reading, and TCP slows the server, until
            there is room again. (The rest of what was read last, at
            most 64 KiB, waits besides.) None is lost, unless the source is closed.
            1,000 is enough for a burst not to stop the reader each time, and few
            enough to take little memory (1 MB if they have 1 kB each) and to show
            nothing that is long past.
        on_comment: called with the text of each comment line, in its place among
            the events.
        method: the request method.
        session: a `requests.Session` to use. Sources may share one, as long as its
            settings are left alone and its pool has room for each. It keeps its own
            adapters. So `restart()`, and the thread of a closed source, may wait until
            the response's headers come or a timeout passes (an `event_timeout`, too).
        start: False: the thread is started by `start()`.
        **request_options: what `requests.Session.request` takes: headers, params,
            data, json, files, cookies, auth, timeout, proxies, hooks, verify,
            cert, allow_redirects. `timeout` is 10 seconds to connect and none to
            read unless you say otherwise. An `auth` callable runs at each
            attempt, in the reader thread, so that it can refresh a token. A file
            given as `data` is rewound for each attempt; an iterator or `files` can
            be sent once.

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
        method: str = "GET",
        session: requests.Session | None = None,
        start: bool = True,
        **request_options: Any,
    ) -> None:
        super().__init__()
        if dispatch is not None and not callable(dispatch):
            raise TypeError(f"dispatch must be callable or None, not {dispatch!r}")
        check_whole_number("max_waiting", max_waiting, 1)
        self._handover = (
            None
            if dispatch is None
            else Handover[Entry](dispatch, max_waiting, self._deliver, self._fail)
        )
        for failed in tuple(_failed):
            if not failed._is_kept():  # noqa: SLF001 - of its class
                _failed.discard(failed)
        self.on_event_loop = self._handover is not None and self._handover.loop is not None
        self._on_comment = on_comment
        self._stream = EventStream(
            url,
            last_event_id=last_event_id,
            reconnect=reconnect,
            event_timeout=event_timeout,
            max_event_size=max_event_size,
            comments=on_comment is not None,
            method=method,
            session=session,
            **request_options,
        )
        self._last_event_id = last_event_id  # written where the handlers run
        self._failure: Exception | None = None  # what else than the stream's end closed it
        self._start_lock = threading.RLock()  # guards the next
        self._thread: Joinable | None = None
        if on_comment is not None:
            check_handler("comment", on_comment, on_event_loop=self.on_event_loop)
            self._has_listened.open()
        for event_type, handler in (
            ("open", on_open),
            ("message", on_message),
            ("error", on_error),
        ):
            if handler is not None:
                self.add_listener(event_type, handler)
        tell_in_child(self)
        if start:
            self.start()

    # --- What there is to know ---

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

        A program that stores it, and starts there again, loses nothing.
        """
        return self._last_event_id

    @property
    def reconnection_time(self) -> float:
        """Seconds to wait before a lost connection is made again.

        The server's last `retry` field, if there was one, else the policy's `delay`.
        """
        return self._stream.reconnection_time

    @property
    def error(self) -> Exception | None:
        """What closed the source for good; None while it lives and after `close()`."""
        return self._failure or self._stream.error

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {redact(self.url)} {self.ready_state.name}>"

    # --- Its life ---

    def start(self) -> None:
        """Start the reader thread, if that has not been done; not once closed."""
        with self._start_lock:
            if self._thread is not None or self._closed:
                return
            name = f"eventsource {redact(self.url)}"
            if self._handover is None:
                thread = Joinable(target=self._run, name=name, daemon=True)
            else:
                arguments = (self._stream, self._has_listened, self._handover)
                thread = Joinable(target=_read_ahead, args=arguments, name=name, daemon=True)
            self._thread = thread
            try:
                thread.start()
            except BaseException:  # no thread could be had; another call may try again
                self._thread = None
                raise
            if self._handover is not None:
                _running.add(self)
                if self._closed:  # meanwhile
                    _running.discard(self)

    def restart(self) -> None:
        """Drop this connection and make another now; a wait is cut short.

        Never waits. This is no error and fires none. Events that had arrived in full
        are still dispatched. Does nothing once closed.
        """
        self._stream.restart()

    def close(self) -> None:
        """Close the source for good: the connection, the thread, the dispatching.

        Never waits and never raises; a second call does nothing. When it has
        returned, no further handler is chosen to run; the one that already was may
        finish, and what waits for `dispatch` is not run. It ends whatever the reader is
        doing: connecting, waiting for the response or for bytes, waiting to reconnect,
        waiting for room.
        """
        self._closed = True
        self._stream.close()
        self._has_listened.open()
        if self._handover is not None:
            self._handover.close()
            _running.discard(self)

    def _after_fork(self) -> None:
        """In the child of a fork: be closed. The stream sees to itself."""
        self._lock = threading.Lock()  # a thread that is not here may hold the former
        self._start_lock = threading.RLock()
        self._closed = True
        if self._handover is not None:
            self._handover.disown()
            _running.discard(self)

    def join(self, timeout: float | None = None) -> bool:
        """Wait until the reader thread has ended.

        It ends when the source is closed or, if that is over for good, when the handlers
        of its last event have run.

        Does not wait where that would be in vain: in a handler of this source, unless
        `dispatch` runs it and the source is closed; likewise in the event loop that
        `dispatch` runs the handlers in, or the main thread, once it has run one there; in
        the reader thread of another source, if a handler of this one waits for that. (A
        handler elsewhere should close a source before it joins it: that may be waiting
        for this very handler in a way that nobody can know.)

        Args:
            timeout: seconds to wait at the most; None: as long as it takes.

        Returns:
            Whether there is no reader thread (any more).

        Raises:
            TypeError, ValueError: `timeout` is no number of at least 0.
        """
        if timeout is not None:
            check_number("timeout", timeout, 0)
            timeout = min(timeout, threading.TIMEOUT_MAX)
        with self._start_lock:  # which another thread may just be doing
            thread = self._thread
        if thread is None:
            return True
        handover = self._handover
        if handover is not None and not self._closed and handover.waits_for_this_thread():
            return False
        return thread.wait_for_end(timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Close, and wait for the thread, for at most 10 seconds."""
        self.close()
        if not self.join(EXIT_TIMEOUT) and self._thread is not threading.current_thread():
            logger.warning("%r: the reader thread is still busy", self)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        """As `__exit__`, but the event loop goes on meanwhile."""
        import asyncio  # noqa: PLC0415 - there is a loop

        self.close()
        await asyncio.to_thread(self.__exit__)

    def _has_event_loop(self) -> bool:
        return self._handover is not None and self._handover.has_loop()

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        assert self._handover is not None
        self._handover.spawn(coroutine)

    # --- The reader thread ---

    def _run(self) -> None:
        """Read, and run the handlers here."""
        stream = self._stream
        try:
            while items := stream.take():
                self._has_listened.wait()
                for _ in self._deliver(_with_place(items, stream)):
                    pass  # without an event loop there is nothing to await
        except BaseException as error:  # SystemExit from a handler, for one
            self._fail(type(error).__name__, error)
            if not isinstance(error, Exception):
                raise
        finally:
            self.close()

    def _fail(self, reason: str, error: BaseException | None) -> None:
        """Close the source, which cannot go on."""
        if not self._closed:
            if isinstance(error, Exception):
                self._failure = error
            else:  # an exit, or no exception at all
                self._failure = EventSourceError(f"closed by {reason}")
                self._failure.__cause__ = error
            # At the end of the program its pools are shut down: no news, and none of its faults.
            ending = getattr(threading, "_SHUTTING_DOWN", False)
            level = logging.DEBUG if ending else logging.ERROR
            if self._is_kept():
                _failed.add(self)
            try:
                logger.log(level, "%r: closed by %s", self, reason, exc_info=error)
            finally:  # a log of the program's may raise
                self.close()

    def _is_kept(self) -> bool:
        """Say whether another thread is the one that should drop the handlers."""
        return self._handover is not None and self._handover.runs_elsewhere()

    def _deliver(self, items: Iterable[Entry]) -> Iterator[Coroutine[Any, Any, None]]:
        """Call the listeners of each item; yield what is to be awaited before going on.

        What stands here in one loop runs for each event: hence no calls but to handlers.
        """
        on_comment = self._on_comment
        event_type = ""
        snapshots: dict[str, tuple[tuple[Handler, Handler], ...]] | None = None
        listeners: tuple[tuple[Handler, Handler], ...] = ()
        for item in items:
            if self._closed:
                return
            if on_comment is not None and type(item) is Comment:
                try:
                    result = on_comment(item.text)
                except Exception as error:
                    self._log_failure(on_comment, error)
                else:
                    if type(result) is CoroutineType:
                        yield from self._awaitable(on_comment, result)
                continue
            if item.type is not event_type or snapshots is not self._snapshots:
                event_type, snapshots = item.type, self._snapshots
                listeners = snapshots.get(event_type) or self._look_up(event_type)
            for listener, call in listeners:
                if self._closed:
                    return
                # Not if it has been removed since this event's first listener ran.
                if snapshots is self._snapshots or self._table(event_type).get(listener) is call:
                    try:
                        result = call(item)
                    except Exception as error:
                        self._log_failure(call, error)
                    else:
                        if type(result) is CoroutineType:
                            yield from self._awaitable(call, result)
            if type(item) is MessageEvent:
                self._last_event_id = item.last_event_id
            elif type(item) is ErrorEvent and item.retry_in is None and not listeners:
                logger.warning("%r: closed for good: %s", self, summary(item.error))
            elif type(item) is Place:
                self._last_event_id = item.last_event_id
                if item.is_last:
                    self.close()


def _with_place(items: list[Item], stream: EventStream) -> list[Entry]:
    """Add where the stream stands, if the last item does not say it."""
    last = items[-1]
    if type(last) is MessageEvent and last.last_event_id == stream.resume_id:
        return [*items]
    return [*items, Place(stream.resume_id)]


def _read_ahead(stream: EventStream, has_listened: Gate, handover: Handover[Entry]) -> None:
    """The reader thread of a source with `dispatch`, of which it knows nothing."""
    try:
        while items := stream.take():
            has_listened.wait()
            handover.put(_with_place(items, stream))
        handover.put([Place(stream.resume_id, is_last=True)])
        handover.wait()  # until the handlers have been run, or are not to be
    except BaseException as error:  # SystemExit from an auth callable, for one
        handover.fail(type(error).__name__, error)
        if not isinstance(error, Exception):
            raise
    finally:
        stream.close()
