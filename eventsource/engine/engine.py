"""The engine of a stream: it takes one step after another, in the thread that asks for it.

`Engine` is a loop, a lock and an exchange around a `Session`, which has all the rules. A
step waits until the next attempt is due and makes it, or it reads: it gives the bytes that
have arrived to the session, which stores the items until the caller takes them. The only
code of the caller that it runs is `refusal` and `on_bytes`. It has no reference to the
`EventStream` that owns it, so a thread that takes steps does not keep a stream alive that
the program has dropped.

The invariants: only one thread at a time takes steps, or waits for one that is taken in the
background. The session's phase changes only under the lock. If anything interrupts the
thread, `_is_busy` stays true: the next call sees that a step was not finished, and drops its
connection.
"""

from __future__ import annotations

import functools
import logging
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, Final, TypeVar

import requests

from eventsource.errors import EventTimeout, UnexpectedContentType, UnexpectedStatus
from eventsource.http.exchange import Exchange
from eventsource.http.request import RequestTemplate
from eventsource.protocol.events import ErrorEvent, OpenEvent
from eventsource.protocol.policy import retry_after
from eventsource.protocol.session import Item, Phase, Session
from eventsource.runtime.background import Background
from eventsource.runtime.fork import close_in_child
from eventsource.runtime.wakeup import Wakeup
from eventsource.urls import origin_of, redact, without_userinfo

from .telling import Telling

T = TypeVar("T")

Refusal = Callable[[requests.Response], Exception | None]
"""Returns why a response does not open the stream; None if it does."""

logger = logging.getLogger(__name__)

SHORTEST_WAIT: Final = 0.001
"""The shortest timeout of a read in seconds, so that `take(timeout=0)` also reads what has
already arrived."""

# Faster than the attributes on Python 3.11:
_FAILED: Final = Phase.FAILED
_CLOSED: Final = Phase.CLOSED

# Not the program's generator, which may be seeded. Without a state, which the children of a
# fork would share: their reconnections, too, must be spread over time.
_random = random.SystemRandom()


class Engine:
    """Takes the steps of one stream.

    Threads: `close` and `restart` are for any thread and for signal handlers. Any thread may
    read the attributes. Everything else is for one thread at a time.

    Args:
        template: what all attempts have in common.
        session: the rules, and the state.
        refusal: returns a function that judges a response; None: the stream has been dropped.
        on_bytes: called with the bytes of each read.

    Attributes:
        template (RequestTemplate): the argument.
        session (Session): the argument.
        watchers (list[Wakeup]): set when the engine is over.
        response (requests.Response | None): the one that is being read, or was read last.
        last_event_id (str): the last event ID as of what has been yielded.
        event_class (type[MessageEvent]): the class of the server's events.
    """

    def __init__(
        self,
        template: RequestTemplate,
        session: Session,
        refusal: Callable[[], Refusal | None],
        on_bytes: Callable[[bytes], object] | None,
    ) -> None:
        self.template = template
        self.session = session
        self.watchers: list[Wakeup] = []
        self.response: requests.Response | None = None
        self.last_event_id = session.kept.last_event_id
        self.event_class = session.event_class
        self._refusal = refusal
        self._on_bytes = on_bytes
        self._wakeup = Wakeup()  # ends any waiting of the thread that takes steps
        self._telling = Telling(template.url)
        # Guards the session's phase and `_exchange`; re-entrant, because a signal handler may
        # call close() in the thread that holds it. Held for assignments only.
        self._lock = threading.RLock()
        self._exchange: Exchange | None = None  # the one under way
        self._stepper: dict[str, int] = {}  # under "", the thread that takes a step
        # Only that thread writes these:
        self._is_busy = False  # a step has been begun and not been finished
        self._pending: tuple[Background[Any], Finish[Any]] | None = None  # in the background
        self._shows_errors: bool | None = None  # see `advance`
        self._odd: Exchange | None = None  # the one whose odd lines have been logged
        close_in_child(self, Engine._after_fork)

    # --- What may be called from anywhere ---

    def close(self) -> None:
        """End the stream and the connection. Never waits, never raises."""
        if sys.is_finalizing():  # called by `__del__`: the other threads no longer exist
            self._renew_locks()
        with self._lock:
            self.session.close()
            exchange = self._exchange
        if exchange is not None:
            exchange.abort()
        self._wakeup.set()
        self._tell_watchers()

    def certificate(self) -> Mapping[str, Any] | None:
        """The server's certificate, on the connection that is open; None: unknown."""
        exchange = self._exchange
        return None if exchange is None else exchange.certificate()

    def restart(self) -> None:
        """Drop this connection, or end the wait, and connect again at once. Never waits."""
        with self._lock:
            exchange = self._exchange if self.session.restart() else None
        if exchange is not None:
            exchange.abort()
        self._wakeup.set()

    def _tell_watchers(self) -> None:
        for wakeup in tuple(self.watchers):
            wakeup.set()

    def _after_fork(self) -> str | None:
        """In the child of a fork: close, if the stream had begun. Its connection is the
        parent's.

        Returns:
            The text to log.
        """
        self._renew_locks()
        self._pending = None
        self._stepper = {}
        self.watchers = []
        if self._exchange is not None:
            self._exchange.disown()
        if not self.session.forked():
            return None
        self.close()
        return f"{redact(self.template.url)}: closed: {self.session.error}"

    def _renew_locks(self) -> None:
        """Make new locks: a thread that no longer exists may hold the old ones."""
        self._lock = threading.RLock()
        if self._exchange is not None:
            self._exchange.renew_locks()

    # --- What the thread that iterates calls ---

    def rest(self) -> Iterator[Item]:
        """Yield the stored items that have not been yielded."""
        session = self.session
        event_class = self.event_class
        # There is no call between taking an item and yielding it, so no signal handler runs
        # there, whose exception would lose the item. `close()` ends this by emptying the list.
        kept = None
        while kept is not session.kept:  # it changes if the loop's body reads further items
            kept = session.kept
            for item in kept.rest:
                if item.__class__ is event_class:
                    self.last_event_id = item.last_event_id  # pyright: ignore[reportAttributeAccessIssue]
                yield item
            kept.items.clear()  # frees memory: the next read may come in days
        if session.phase is not Phase.CLOSED:
            self.last_event_id = session.kept.last_event_id

    def next_item(self) -> Item | None:
        """Return the next stored item that has not been yielded; None: there is none."""
        session = self.session
        for item in session.kept.rest:
            if item.__class__ is self.event_class:
                self.last_event_id = item.last_event_id  # pyright: ignore[reportAttributeAccessIssue]
            return item
        session.kept.items.clear()  # as in `rest`
        if session.phase is not Phase.CLOSED:
            self.last_event_id = session.kept.last_event_id
        return None

    def take(self, timeout: float | None = None) -> list[Item]:
        """Take steps until there are items to yield, and return all of them.

        Failures and openings are not logged: the caller does that.

        Args:
            timeout: seconds that this may take; None: as long as it takes.

        Returns:
            An empty list if the stream is over.

        Raises:
            TimeoutError: the time has passed.
            RuntimeError: another thread is in here.
        """
        session = self.session
        has_items = session.kept.rest.__length_hint__()  # type: ignore[attr-defined]
        if not has_items and not self.advance(timeout, shows_errors=None):
            return []
        last_event_id = session.kept.last_event_id
        items = session.take()
        # No call from here to the end, so that no signal handler can lose the items.
        if session.phase is _CLOSED:
            return []
        self.last_event_id = last_event_id
        return items

    def advance(self, timeout: float | None = None, *, shows_errors: bool | None) -> bool:
        """Take steps until there is something to yield.

        Args:
            timeout: seconds that this may take; None: as long as it takes.
            shows_errors: whether the program gets `ErrorEvent`s, which decides the level at
                which they are logged; None: the caller logs them.

        Returns:
            Whether there are items; if not, the stream is over.

        Raises:
            TimeoutError: the time has passed.
            RuntimeError: another thread is in here.
        """
        this = threading.get_ident()
        if self._stepper.setdefault("", this) != this:  # setdefault() is atomic
            self._check_other(this)
        try:
            self._shows_errors = shows_errors
            if self._is_busy:
                self._abandon()
            deadline = None if timeout is None else time.monotonic() + timeout
            session = self.session
            # `is_over` and `has_items()`, inlined: this runs for each read.
            while (phase := session.phase) is not _CLOSED and phase is not _FAILED:
                self._is_busy = True
                exchange = self._exchange
                if self._pending is not None:
                    self._wait_for(*self._pending, deadline)
                elif exchange is None:
                    self._connect(deadline)
                elif session.parse_error is not None:
                    self._lost(exchange, session.parse_error)
                elif deadline is None and session.event_timeout is None:
                    self._received(exchange, exchange.read)
                else:
                    self._read(exchange, deadline)
                self._is_busy = False
                if session.kept.rest.__length_hint__():  # type: ignore[attr-defined]
                    return True
                if session.phase is not _CLOSED:  # an id without an event changes it, too
                    self.last_event_id = session.kept.last_event_id
                if deadline is not None and time.monotonic() >= deadline:
                    break
            else:
                return False
        except _TimeIsUp:
            self._is_busy = False
        except BaseException:  # for example Ctrl-C
            self._abandon()
            raise
        finally:
            self._stepper.clear()
        raise TimeoutError(f"nothing has happened for {timeout:g} seconds")

    def _check_other(self, this: int) -> None:
        """Refuse this thread, if another one that takes steps still exists."""
        # A signal handler may have interrupted a thread before it cleared `_stepper`.
        if self._stepper.get("") in {thread.ident for thread in threading.enumerate()}:
            raise RuntimeError("another thread is iterating over this stream")
        self._stepper[""] = this

    # --- The attempt ---

    def _connect(self, deadline: float | None) -> None:
        """Wait until an attempt is due, and make it."""
        session = self.session
        while (wait := session.wait(now := time.monotonic())) > 0:
            if deadline is not None and (wait := min(wait, deadline - now)) <= 0:
                raise _TimeIsUp
            self._wakeup.wait(wait)
        exchange = Exchange(self.template)
        with self._lock:
            self._exchange = exchange  # first, so that close() in a signal handler finds it
            if not session.begin():
                self._exchange = None
                return
        timeout = session.time_left(time.monotonic())
        attempt = functools.partial(self._attempt, exchange, session.resume_id, timeout)
        if deadline is None:
            self._opened(exchange, attempt)
        else:
            self._do_in_background(attempt, Engine._opened, deadline)

    def _attempt(
        self, exchange: Exchange, last_event_id: str, timeout: float | None
    ) -> tuple[requests.Response, Exception | None]:
        """Return the response, and why it does not open the stream. For any thread."""
        response = self.response = exchange.open(last_event_id, timeout)
        judge = self._refusal()
        refusal = None if judge is None else judge(response)  # None: the stream was dropped
        del judge  # it refers to the stream, which must not stay alive
        if isinstance(refusal, UnexpectedStatus | UnexpectedContentType):
            exchange.read_error_body()
        return response, refusal

    def _opened(
        self, exchange: Exchange, attempt: Callable[[], tuple[requests.Response, Exception | None]]
    ) -> None:
        """Handle the end of an attempt."""
        try:
            response, refusal = attempt()
        except Exception as error:  # of any type: an auth callable may raise what it likes
            self._lost(exchange, error)
            return
        if refusal is not None:
            self._lost(exchange, refusal)
            return
        url = response.url
        event = OpenEvent(
            "open", without_userinfo(url), response.status_code, MappingProxyType(response.headers)
        )
        with self._lock:
            is_open = self.session.opened(event, origin_of(url), time.monotonic())
        if is_open:
            self._tell(event)

    # --- Reading ---

    def _read(self, exchange: Exchange, deadline: float | None) -> None:
        """Read and parse what has arrived; if nothing has, wait, within the limits."""
        session = self.session
        timeout = None
        if session.event_timeout is not None:
            timeout = session.time_left(time.monotonic())
        read = functools.partial(exchange.read, timeout)
        if deadline is None:
            self._received(exchange, read)
        elif not exchange.has_bounded_reads:
            self._do_in_background(read, Engine._received, deadline)
        else:
            left = max(deadline - time.monotonic(), SHORTEST_WAIT)
            if timeout is None or left < timeout:
                read = functools.partial(self._read_within, exchange, left)
            self._received(exchange, read)

    def _read_within(self, exchange: Exchange, seconds: float) -> bytes:
        """Read; if nothing comes in this time, leave the connection as it is."""
        try:
            return exchange.read(seconds)
        except EventTimeout:
            self.session.waited(time.monotonic())
        raise _TimeIsUp

    def _received(self, exchange: Exchange, read: Callable[[], bytes]) -> None:
        """Handle the end of a read: parse its bytes."""
        session = self.session
        try:
            chunk = read()
        except Exception as error:
            self._lost(exchange, error)
            return
        if not chunk:
            self._lost(exchange, session.end_of_body)
            return
        arrived = time.monotonic()
        if self._on_bytes is not None:
            self._on_bytes(chunk)
        is_limited = session.event_timeout is not None
        began = time.monotonic() if is_limited else 0.0
        try:
            has_message = session.received(chunk, arrived)
        except Exception as error:
            self._lost(exchange, error)
            return
        if is_limited and not has_message:
            session.parsed(time.monotonic() - began)
        if session.odd_lines and self._odd is not exchange:
            self._odd = exchange
            logger.debug(
                "%s: no event yet, and %d lines of the body are not fields of an event stream",
                redact(self.template.url),
                session.odd_lines,
            )

    # --- Steps that take longer than the caller waits ---

    def _do_in_background(self, work: Callable[[], T], finish: Finish[T], deadline: float) -> None:
        """Take a step in another thread, which continues when the time is up."""
        name = f"eventsource {redact(self.template.url)} (step)"
        step = Background(work, name=name, wakeup=self._wakeup)
        self._pending = step, finish
        self._wait_for(step, finish, deadline)

    def _wait_for(self, step: Background[T], finish: Finish[T], deadline: float | None) -> None:
        while not step.is_done:
            if self.session.is_over:  # closed; on the caller's session the step may continue
                self._pending = self._exchange = None
                return
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                raise _TimeIsUp
            self._wakeup.wait(left)
        self._pending = None
        assert self._exchange is not None
        finish(self, self._exchange, step.result)

    # --- The end of a connection ---

    def _lost(self, exchange: Exchange, error: Exception) -> None:
        """Handle the end of the exchange: the session decides what follows."""
        exchange.abort()
        wanted = None
        if isinstance(error, UnexpectedStatus) and error.response is not None:
            wanted = retry_after(error.response.headers, now=time.time())
        with self._lock:
            self._exchange = None
            lost = self.session.lost(
                error, time.monotonic(), random=_random.random(), retry_after=wanted
            )
        if lost is not None:
            self._tell(lost)
        if self.session.is_over:
            self._tell_watchers()

    def _tell(self, item: OpenEvent | ErrorEvent) -> None:
        """Log an item, unless the caller does."""
        if self._shows_errors is not None:
            # A final failure reaches the program in any case: as an exception, if not an event.
            is_final = isinstance(item, ErrorEvent) and item.retry_in is None
            self._telling.tell(item, is_heard=self._shows_errors or is_final)

    def _abandon(self) -> None:
        """Drop the connection of a step that was interrupted. This may be interrupted, too."""
        if self._exchange is not None:
            if self._pending is not None:  # another thread may be inside
                self._exchange.abort()
            else:
                self._exchange.leave()
        self._pending = None
        with self._lock:
            self._exchange = None
            self.session.abandon(time.monotonic())
        self._is_busy = False


Finish = Callable[[Engine, Exchange, Callable[[], T]], None]
"""Handles the end of a step. The callable that it gets returns the step's result, or raises
its exception."""


class _TimeIsUp(BaseException):
    """The time of `advance()` is up. Not an `Exception`: the connection has not failed."""
