"""One event stream over as many connections as it takes.

`EventStream` is a loop, a lock and an exchange around a `Session`, which knows all the rules:
wait until the next attempt is due, make it, give what has arrived to the session, hand on what
it keeps. It runs in the thread of whoever iterates, and calls nobody but `on_bytes`.

The invariants: only the iterating thread makes and reads exchanges; the session's phase
changes under the lock alone. Whatever interrupts the thread, the next call finds by `_is_busy`
that a step was not finished, and drops its connection.
"""

from __future__ import annotations

import logging
import random
import sys
import threading
import time
import weakref
from collections.abc import Callable, Collection, Iterator
from types import MappingProxyType
from typing import Any, ClassVar, Self

import requests
from requests.utils import parse_list_header

from .async_iterator import AsyncItems
from .errors import StreamEnded, UnexpectedContentType, UnexpectedStatus, summary
from .http.exchange import Exchange
from .http.request import RequestTemplate, withheld_from
from .protocol.events import ReadyState
from .protocol.parser import MAX_EVENT_SIZE, EventStreamParser
from .protocol.policy import (
    DEFAULT_POLICY,
    ReconnectPolicy,
    check_number,
    check_whole_number,
    retry_after,
)
from .protocol.session import Item, Phase, Session, check_last_event_id
from .runtime.fork import close_in_child
from .runtime.wakeup import Wakeup
from .urls import origin_of, redact, without_userinfo

logger = logging.getLogger(__name__)

# Not the program's own, which may be seeded; and without a state, which the children
# of a fork would share: they are to be spread, too.
_random = random.SystemRandom()


class EventStream:
    """Iterates over everything that happens on an event stream.

    Yields an `OpenEvent` for each connection that opens, a `MessageEvent` for each
    event of the server's, and an `ErrorEvent` each time the connection is lost or
    cannot be made; if that one says when (`retry_in`), the next attempt follows by
    itself as the iteration goes on. The iteration ends after the `ErrorEvent` of a
    failure that is final, and when `close()` has been called. Leaving a `with` block
    closes it.

    `async for` and `async with` do the same in an asyncio program. Then a thread reads; a
    step that is cancelled loses nothing, and leaving the block waits for the thread, for
    at most 10 seconds.

    Threads: one thread iterates; it is the one that connects, waits and reads.
    `close()` and `restart()` may be called from any thread, from a signal handler
    and from `__del__`. The attributes may be read from any thread.

    Forks: in the child the stream is closed; that of the parent goes on, and nothing
    that the child does has an effect on it.

    Args:
        url: an absolute URL.
        last_event_id: where to go on: sent as `Last-Event-ID`.
        reconnect: when to reconnect; None: never. As `ReconnectPolicy()` says unless you
            pass one, but for a method other than GET or HEAD, which is then not sent again.
        event_timeout: seconds to wait for a message, counted from the start of
            each attempt and from each message, before the connection is dropped
            and made again; comments do not count. None: for ever. Time that the
            caller takes between two `next()` is not counted.
        max_event_size: the largest event, in bytes (see `EventStreamParser`); a
            larger one closes for good with `EventTooLarge`. 64 MiB unless you say
            otherwise.
        comments: also yield a `Comment` for each comment line.
        on_bytes: called with what each read brought of the body, before it is parsed. What it
            raises, the iteration raises; the next step makes a new connection.
        trusted_origins: origins, `scheme://host[:port]` each, to which a redirect takes
            your headers, `auth` (which is asked anew), cookies and client certificate
            along, as it does within the origin of `url`. To any other, and from there on,
            nothing goes that you gave, but for `Accept`, `User-Agent` and the last event ID.
        method: the request method.
        session: a `requests.Session` to use. Streams may share one, as long as its
            settings are left alone and its pool has room for each. It keeps its own
            adapters. So `close()` and `restart()` cannot interrupt an attempt before
            the response's headers have come (an `event_timeout` also ends that wait,
            within half a second).
        **request_options: what `requests.Session.request` takes: headers, params,
            data, json, files, cookies, auth, timeout, proxies, hooks, verify,
            cert, allow_redirects. `timeout` is 10 seconds to connect and none to
            read unless you say otherwise. An `auth` callable runs at each
            attempt, so that it can refresh a token. `params` may be a function of the
            last event ID that is sent (`""` without one), called once for each attempt,
            that returns what requests takes. A file given as `data` is
            rewound for each attempt; an iterator or `files` can be sent once.

    Raises:
        TypeError, ValueError: an argument cannot be used; the message names it.
            Nothing has been sent.

    Examples:
        >>> with EventStream("https://example.com/stream") as stream:  # doctest: +SKIP
        ...     for event in stream:
        ...         print(event)
    """

    parser_class: ClassVar[type[EventStreamParser]] = EventStreamParser
    """What parses the body; a subclass may have another."""

    def __init__(
        self,
        url: str,
        *,
        last_event_id: str = "",
        reconnect: ReconnectPolicy | None = DEFAULT_POLICY,
        event_timeout: float | None = None,
        max_event_size: int = MAX_EVENT_SIZE,
        comments: bool = False,
        on_bytes: Callable[[bytes], object] | None = None,
        trusted_origins: Collection[str] = (),
        method: str = "GET",
        session: requests.Session | None = None,
        **request_options: Any,
    ) -> None:
        self._template = RequestTemplate(
            url,
            method=method,
            session=session,
            silence=event_timeout,
            trusted_origins=trusted_origins,
            options=request_options,
        )
        check_last_event_id("last_event_id", last_event_id)
        if reconnect is not None and not isinstance(reconnect, ReconnectPolicy):
            raise TypeError(f"reconnect must be a ReconnectPolicy or None, not {reconnect!r}")
        if event_timeout is not None:
            check_number("event_timeout", event_timeout, 0)
            if event_timeout == 0:
                raise ValueError("event_timeout must be more than 0")
        check_whole_number("max_event_size", max_event_size, 1)
        if on_bytes is not None and not callable(on_bytes):
            raise TypeError(f"on_bytes must be callable or None, not {on_bytes!r}")
        if reconnect is DEFAULT_POLICY and self._template.method not in ("GET", "HEAD"):
            reconnect = None
        self._on_bytes = on_bytes

        self._wakeup = Wakeup()  # ends any waiting of the iterating thread
        # Guards the session's phase and `_exchange`; re-entrant, because a signal handler may
        # call close() in the thread that holds it. Held for assignments only.
        self._lock = threading.RLock()
        self._exchange: Exchange | None = None  # the one under way
        self._session = Session(
            last_event_id=last_event_id,
            policy=reconnect,
            event_timeout=event_timeout,
            max_event_size=max_event_size,
            comments=comments,
            parser=self.parser_class,
        )
        # Only the iterating thread writes these:
        # The one asynchronous iterator there is, if any: two would take each other's wake-ups.
        # An `async with` block keeps it, else the program does.
        self._async_items: weakref.ref[AsyncItems[Item]] | None = None
        self._kept_items: AsyncItems[Item] | None = None
        self._is_busy = False  # a step has been begun and not been finished
        self._response: requests.Response | None = None
        self._last_event_id = last_event_id  # of what has been yielded
        close_in_child(self, EventStream._after_fork)

    # --- What there is to know ---

    @property
    def url(self) -> str:
        """The URL as it was given."""
        return self._template.url

    @property
    def ready_state(self) -> ReadyState:
        """The state of the connection; `CLOSED` is final."""
        return self._session.ready_state

    @property
    def closed(self) -> bool:
        """Whether `close()` has been called, after which nothing more is yielded."""
        return self._session.phase is Phase.CLOSED

    @property
    def last_event_id(self) -> str:
        """The last event ID of the event that was yielded last. May be set.

        A program that stores it after it has dealt with the event, and starts there
        again, loses nothing. What is set is sent with the next attempt, unless an event with
        an id comes before it.

        Raises:
            TypeError, ValueError: it cannot be sent.
        """
        return self._last_event_id

    @last_event_id.setter
    def last_event_id(self, value: str) -> None:
        self._session.resume_from(value)
        self._last_event_id = value

    @property
    def resume_id(self) -> str:
        """The last event ID that the next attempt sends: of what has been parsed."""
        return self._session.resume_id

    @property
    def reconnection_time(self) -> float:
        """Seconds to wait before the client reconnects. May be set.

        The server's last `retry` field, if there was one, else the policy's `delay`. What is
        set counts until the server says otherwise.

        Raises:
            TypeError, ValueError: it is no number of at least 0.
        """
        return self._session.reconnection_time

    @reconnection_time.setter
    def reconnection_time(self, seconds: float) -> None:
        self._session.set_reconnection_time(seconds)

    @property
    def error(self) -> Exception | None:
        """What closed the stream for good; None while it lives and after `close()`."""
        return self._session.error

    @property
    def response(self) -> requests.Response | None:
        """The response that is being read, or was read last; None before the first."""
        return self._response

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {redact(self.url)} {self.ready_state.name}>"

    # --- What may be called from anywhere ---

    def close(self) -> None:
        """End the iteration and the connection.

        Never waits and never raises; a second call does nothing. Nothing is yielded
        after it has returned, not even what has arrived already.
        """
        if sys.is_finalizing():  # by `__del__`: the threads are no more
            self._renew_locks()
        with self._lock:
            self._session.close()
            exchange = self._exchange
        if exchange is not None:
            exchange.abort()
        self._wakeup.set()

    def restart(self) -> None:
        """Drop this connection and make another now; a wait is cut short.

        Never waits. This is no error and yields none. Events that were parsed before
        are still yielded. Does nothing once closed.
        """
        with self._lock:
            exchange = self._exchange if self._session.restart() else None
        if exchange is not None:
            exchange.abort()
        self._wakeup.set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        self._kept_items = aiter(self)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close, and wait for the thread, for at most 10 seconds."""
        self.close()
        items, self._kept_items = self._kept_items, None
        if items is not None:
            await items.wait_for_thread()

    def __del__(self) -> None:
        if hasattr(self, "_last_event_id"):  # and the constructor has not refused its arguments
            self._close_if_safe()

    def _close_if_safe(self) -> bool:
        """Close, unless on a session of the caller's; say whether that was done.

        For the collector: it may run in a thread that holds such a session's locks.
        """
        if self._template.owns_session:
            self.close()
        return self._template.owns_session

    def _after_fork(self) -> None:
        """In the child of a fork: be closed. The connection and its thread are the parent's."""
        self._renew_locks()
        if self._exchange is not None:
            self._exchange.disown()
        self.close()

    def _renew_locks(self) -> None:
        """There are no other threads any more: one that held a lock will not release it."""
        self._lock = threading.RLock()
        if self._exchange is not None:
            self._exchange.renew_locks()

    # --- The iteration ---

    def __iter__(self) -> Iterator[Item]:
        # A generator: in a loop it takes a third of the time of a call of `__next__`. It
        # has no state of its own, so that another one can continue.
        while True:
            yield from self._rest()
            if not self._advance():
                return

    def __next__(self) -> Item:
        for item in self:
            return item
        raise StopIteration

    def __aiter__(self) -> AsyncItems[Item]:
        items = None
        if self._async_items is not None:
            items = self._async_items()
            if items is None:  # dropped; on a session of the caller's it may not be closed yet
                self.close()
        if items is None:
            items = AsyncItems(self)
            self._async_items = weakref.ref(items)
        return items

    def _rest(self) -> Iterator[Item]:
        """Yield what is kept and has not been yielded."""
        event_class = self.parser_class.event_class
        session = self._session
        # No call stands between taking an item and yielding it: so no signal handler runs
        # there, whose exception would lose the item. `close()` ends this by emptying the list.
        kept = None
        while kept is not session.kept:  # else an iteration within this one has read on
            kept = session.kept
            for item in kept.rest:
                if item.__class__ is event_class:
                    self._last_event_id = item.last_event_id  # pyright: ignore[reportAttributeAccessIssue]
                yield item
        if session.phase is not Phase.CLOSED:
            self._last_event_id = session.kept.last_event_id

    def take(self) -> list[Item]:
        """Wait for the next thing to happen; return all that has happened by then.

        For the thread that iterates, in place of `next()`. It connects, waits and
        reads as needed.

        Returns:
            The items in order; none when the stream is closed.
        """
        if not self._session.has_items() and not self._advance():
            return []
        session = self._session
        resume_id = session.resume_id
        items = session.take()
        # From here to the end there is no call, so that no signal handler loses the items.
        if session.phase is Phase.CLOSED:
            return []
        self._last_event_id = resume_id
        return items

    @property
    def _is_over(self) -> bool:
        """Whether `_advance()` would return False at once."""
        return self._session.is_over

    def _advance(self) -> bool:
        """Go on until there is something to yield; say whether there is: else, it is over."""
        session = self._session
        if self._is_busy:
            self._abandon()
        while not session.is_over:
            self._is_busy = True
            try:
                if self._exchange is None:
                    self._connect()
                else:
                    self._read(self._exchange)
            except BaseException:  # Ctrl-C, say
                self._abandon()
                raise
            self._is_busy = False
            if session.has_items():
                return True
            if session.phase is not Phase.CLOSED:  # an id moves the place also without an event
                self._last_event_id = session.kept.last_event_id
        return False

    def _connect(self) -> None:
        """Wait until an attempt is due, and make it."""
        session = self._session
        while (wait := session.wait(time.monotonic())) > 0:
            self._wakeup.wait(wait)
        exchange = Exchange(self._template)
        with self._lock:
            self._exchange = exchange  # first: a signal handler may call close() before the next
            if not session.begin():
                self._exchange = None
                return
        try:
            response = exchange.open(session.resume_id, session.time_left(time.monotonic()))
            self._response = response
            refusal = self.refusal(response)
            if isinstance(refusal, UnexpectedStatus):
                exchange.read_error_body()
        except Exception as error:  # an attempt may fail in any way: an auth callable's, too
            self._lost(exchange, error)
            return
        if refusal is not None:
            self._lost(exchange, refusal)
            return
        url = response.url
        headers = MappingProxyType(response.headers)
        with self._lock:
            is_open = session.opened(
                without_userinfo(url), origin_of(url), response.status_code, headers,
                time.monotonic(),
            )  # fmt: skip
        if is_open:
            logger.info("%s: open", redact(url))

    def refusal(self, response: requests.Response) -> Exception | None:
        """Return why a response does not open the stream; None: it does.

        A subclass that accepts more may have its own.
        """
        if response.status_code != 200:
            return UnexpectedStatus(response, withheld_from(response))
        # Of several fields, which requests joins with commas, the last counts (Fetch, "extract
        # a MIME type").
        types = parse_list_header(response.headers.get("Content-Type", "")) or [""]
        if types[-1].partition(";")[0].strip().lower() != "text/event-stream":
            return UnexpectedContentType(response)
        return None

    def _read(self, exchange: Exchange) -> None:
        """Read and parse what has arrived; wait if nothing has."""
        session = self._session
        if session.parse_error is not None:
            self._lost(exchange, session.parse_error)
            return
        is_limited = session.event_timeout is not None
        try:
            timeout = session.time_left(time.monotonic()) if is_limited else None
            chunk = exchange.read(timeout)
        except Exception as error:
            self._lost(exchange, error)
            return
        if not chunk:
            self._lost(exchange, StreamEnded("the server ended the stream"))
            return
        arrived = time.monotonic() if is_limited else 0.0
        if self._on_bytes is not None:
            self._on_bytes(chunk)
        began = time.monotonic() if is_limited else 0.0
        try:
            session.received(chunk, arrived)
        except Exception as error:
            self._lost(exchange, error)
            return
        if is_limited:
            session.parsed(time.monotonic() - began)

    def _lost(self, exchange: Exchange, error: Exception) -> None:
        """The exchange is over: have the session decide what follows, and log it."""
        exchange.abort()
        wanted = None
        if isinstance(error, UnexpectedStatus) and error.response is not None:
            wanted = retry_after(error.response.headers, now=time.time())
        with self._lock:
            self._exchange = None
            lost = self._session.lost(
                error, time.monotonic(), random=_random.random(), retry_after=wanted
            )
        if lost is None:
            return
        if lost.retry_in is None:
            logger.info("%s: closed for good: %s", redact(self.url), summary(lost.error))
        else:
            logger.info(
                "%s: retry in %.3g s: %s", redact(self.url), lost.retry_in, summary(lost.error)
            )

    def _abandon(self) -> None:
        """A step was interrupted, perhaps this one, too: drop its connection."""
        if self._exchange is not None:
            self._exchange.leave()
        with self._lock:
            self._exchange = None
            self._session.abandon()
        self._is_busy = False
