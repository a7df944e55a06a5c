"""One event stream over as many connections as it takes.

`EventStream` connects, reads, parses, waits, reconnects and resumes, in the
thread of whoever iterates over it. It calls nobody: what happens is yielded.

The invariant: `CLOSED` is final, and `_become()` is the only place where the
ready state is written. Everything else that another thread may touch is listed in
the constructor under the lock that guards it.
"""

from __future__ import annotations

import logging
import math
import random
import sys
import threading
import time
from collections.abc import Iterator
from types import MappingProxyType
from typing import Any, Self

import requests
from requests.utils import parse_list_header

from .async_iterator import AsyncIteration
from .errors import (
    EventTimeout,
    StreamEnded,
    UnexpectedContentType,
    UnexpectedStatus,
    summary,
)
from .http.exchange import Exchange, Transport
from .http.options import check_last_event_id
from .protocol.events import Comment, ErrorEvent, MessageEvent, OpenEvent, ReadyState
from .protocol.parser import MAX_EVENT_SIZE, EventStreamParser
from .protocol.policy import (
    BRIEF,
    DEFAULT_POLICY,
    ReconnectPolicy,
    check_number,
    check_whole_number,
    retry_after,
)
from .runtime.fork import tell_in_child
from .urls import origin_of, redact, without_userinfo

Item = OpenEvent | MessageEvent | ErrorEvent | Comment
"""What a stream yields; comments only if asked for."""

logger = logging.getLogger(__name__)

# Not the program's own, which may be seeded; and without a state, which the children
# of a fork would share: they are to be spread, too.
_random = random.SystemRandom()


class EventStream(AsyncIteration[Item]):
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
            attempt, so that it can refresh a token. A file given as `data` is
            rewound for each attempt; an iterator or `files` can be sent once.

    Raises:
        TypeError, ValueError: an argument cannot be used; the message names it.
            Nothing has been sent.

    Examples:
        >>> with EventStream("https://example.com/stream") as stream:  # doctest: +SKIP
        ...     for event in stream:
        ...         print(event)
    """

    def __init__(
        self,
        url: str,
        *,
        last_event_id: str = "",
        reconnect: ReconnectPolicy | None = DEFAULT_POLICY,
        event_timeout: float | None = None,
        max_event_size: int = MAX_EVENT_SIZE,
        comments: bool = False,
        method: str = "GET",
        session: requests.Session | None = None,
        **request_options: Any,
    ) -> None:
        super().__init__()
        self._transport = Transport(
            url, method=method, session=session, silence=event_timeout, options=request_options
        )
        check_last_event_id("last_event_id", last_event_id)
        if reconnect is not None and not isinstance(reconnect, ReconnectPolicy):
            raise TypeError(f"reconnect must be a ReconnectPolicy or None, not {reconnect!r}")
        if event_timeout is not None:
            check_number("event_timeout", event_timeout, 0)
            if event_timeout == 0:
                raise ValueError("event_timeout must be more than 0")
        check_whole_number("max_event_size", max_event_size, 1)
        if reconnect is DEFAULT_POLICY and self._transport.method not in ("GET", "HEAD"):
            reconnect = None
        self._policy = reconnect
        self._event_timeout = event_timeout
        self._max_event_size = max_event_size
        self._comments = comments

        # Guards what follows; re-entrant, because a signal handler may call close()
        # in the thread that holds it. Held for assignments only.
        self._lock = threading.RLock()
        self._state = ReadyState.CONNECTING
        self._closed = False  # by close(): nothing more is yielded
        self._restart = False  # restart() was called and has not been obeyed yet
        self._exchange: Exchange | None = None  # the one under way

        # Only the iterating thread writes these:
        self._error: Exception | None = None
        self._response: requests.Response | None = None
        self.resume_id = last_event_id
        """The last event ID that the next connection sends: of what has been parsed."""
        self._last_event_id = last_event_id  # of what has been yielded
        self._from_server: float | None = None  # the last `retry` field, in seconds
        self._parser = self._new_parser("")
        self._batch: Iterator[Item] = iter(())  # parsed, not yet yielded
        self._due = 0.0  # when to make the next attempt (monotonic clock)
        self._failures = 0  # attempts without success in a row
        self._opened_at: float | None = None  # None: this attempt has not opened
        self._had_event = False  # this connection has brought one
        self._quiet = 0.0  # seconds waited since the attempt began or a message came
        tell_in_child(self)

    # --- What there is to know ---

    @property
    def url(self) -> str:
        """The URL as it was given."""
        return self._transport.url

    @property
    def ready_state(self) -> ReadyState:
        """The state of the connection; `CLOSED` is final."""
        return self._state

    @property
    def last_event_id(self) -> str:
        """The last event ID of the event that was yielded last.

        A program that stores it after it has dealt with the event, and starts there
        again, loses nothing.
        """
        return self._last_event_id

    @property
    def reconnection_time(self) -> float:
        """Seconds to wait before a lost connection is made again.

        The server's last `retry` field, if there was one, else the policy's `delay`.
        """
        return (self._policy or DEFAULT_POLICY).reconnection_time(self._from_server)

    @property
    def error(self) -> Exception | None:
        """What closed the stream for good; None while it lives and after `close()`."""
        return self._error

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {redact(self.url)} {self._state.name}>"

    # --- What may be called from anywhere ---

    def close(self) -> None:
        """End the iteration and the connection.

        Never waits and never raises; a second call does nothing. Nothing is yielded
        after it has returned, not even what has arrived already.
        """
        if sys.is_finalizing():  # by `__del__`: the threads are no more
            self._renew_locks()
        with self._lock:
            self._closed = True
            self._become(ReadyState.CLOSED)
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
            if not self._become(ReadyState.CONNECTING):
                return
            self._restart = True
            exchange = self._exchange
        if exchange is not None:
            exchange.abort()
        self._wakeup.set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if hasattr(self, "_quiet"):  # and the constructor has not refused its arguments
            self._let_go()

    def _let_go(self) -> bool:
        """Close, unless on a session of the caller's; say whether that was done.

        For the collector: it may run in a thread that holds such a session's locks.
        """
        if self._transport.owns_session:
            self.close()
        return self._transport.owns_session

    def _after_fork(self) -> None:
        """In the child of a fork: be closed. The connection and its thread are the parent's."""
        self._renew_locks()
        if self._exchange is not None:
            self._exchange.disown()
        self.close()

    def _renew_locks(self) -> None:
        """There are no other threads any more: one that held a lock will not let go."""
        self._lock = threading.RLock()
        if self._exchange is not None:
            self._exchange.renew_locks()

    def _become(self, state: ReadyState) -> bool:
        """Enter `state` unless closed; say whether the stream is in it now."""
        with self._lock:
            if self._state is not ReadyState.CLOSED:
                self._state = state
            return self._state is state

    # --- The iteration ---

    def __iter__(self) -> Iterator[Item]:
        # A generator: a loop gets on with it in a third of the time that it takes to
        # call `__next__`. It has no state of its own, so that another may go on.
        while True:
            yield from self._rest()
            if not self._fill():
                return

    def __next__(self) -> Item:
        for item in self:
            return item
        raise StopIteration

    def _rest(self) -> Iterator[Item]:
        """Yield what has been taken by `_fill()` and not been yielded."""
        for item in self._batch:
            if self._closed:
                return
            if isinstance(item, MessageEvent):
                self._last_event_id = item.last_event_id
            yield item
        self._last_event_id = self.resume_id

    def _fill(self) -> bool:
        """Take for `_rest()`; say whether there was anything."""
        batch = self.take()
        self._batch = iter(batch)
        return bool(batch)

    @property
    def _is_over(self) -> bool:
        """Whether there is nothing more to take."""
        return self._state is ReadyState.CLOSED

    def take(self) -> list[Item]:
        """Wait for the next thing to happen; return all that has happened by then.

        For the thread that iterates, in place of `next()`. It connects, waits and
        reads as needed.

        Returns:
            The items in order; none when the stream is closed.
        """
        while self._state is not ReadyState.CLOSED:
            try:
                items = self._connect() if self._exchange is None else self._read(self._exchange)
            except BaseException:  # Ctrl-C, say: the next call begins with a new connection
                self._forget_exchange()
                raise
            if items:
                return items
        return []

    @property
    def response(self) -> requests.Response | None:
        """The response that is being read, or was read last; None before the first."""
        return self._response

    def _connect(self) -> list[Item]:
        """Wait until an attempt is due, and make it."""
        while not self._restart and self._state is not ReadyState.CLOSED:
            wait = self._due - time.monotonic()
            if wait <= 0:
                break
            self._wakeup.wait(wait)
        exchange = self._transport.exchange()
        with self._lock:
            if self._state is ReadyState.CLOSED:
                return []
            self._restart = False
            self._exchange = exchange
        self._opened_at = None
        self._had_event = False
        self._quiet = 0.0
        started = time.monotonic()
        try:
            self._limit(exchange)
            response = exchange.open(self.resume_id)
            self._response = response
            self._check(response, exchange)
            exchange.limit(math.inf)
        except Exception as error:  # an attempt may fail in any way: an auth callable's, too
            return self._lost(exchange, error)
        self._opened_at = time.monotonic()
        self._quiet = self._opened_at - started
        url = response.url
        self._parser = self._new_parser(origin_of(url))
        if not self._become(ReadyState.OPEN):
            return []
        logger.info("%s: open", redact(url))
        return [
            OpenEvent(
                "open",
                without_userinfo(url),
                response.status_code,
                MappingProxyType(response.headers),
            )
        ]

    def _read(self, exchange: Exchange) -> list[Item]:
        """Read and parse what has arrived; wait if nothing has."""
        try:
            if self._parser.error is not None:
                return self._lost(exchange, self._parser.error)
            if self._event_timeout is not None:
                return self._read_in_time(exchange, self._event_timeout)
            return self._parse(exchange.read())
        except Exception as error:
            return self._lost(exchange, error)

    def _read_in_time(self, exchange: Exchange, limit: float) -> list[Item]:
        if self._quiet >= limit:  # though something came each time
            raise EventTimeout("no message in time")
        self._limit(exchange)
        started = time.monotonic()
        chunk = exchange.read()
        exchange.limit(math.inf)
        arrived = time.monotonic()
        self._quiet += arrived - started
        items = self._parse(chunk)  # a message begins the count anew
        self._quiet += time.monotonic() - arrived
        return items

    def _limit(self, exchange: Exchange) -> None:
        if self._event_timeout is not None:
            exchange.limit(self._event_timeout - self._quiet)

    def _parse(self, chunk: bytes) -> list[Item]:
        if not chunk:
            raise StreamEnded("the server ended the stream")
        parser = self._parser
        items: list[Item] = []
        if self._comments:
            items += parser.feed_with_comments(chunk)
            had_event = any(type(item) is not Comment for item in items)
        else:
            items += parser.feed(chunk)
            had_event = bool(items)
        self.resume_id = parser.last_event_id
        if parser.reconnection_time is not None:
            self._from_server = parser.reconnection_time
        if had_event:
            self._had_event = True
            self._quiet = 0.0
        return items

    def _forget_exchange(self) -> None:
        with self._lock:
            exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.abort()
        self._become(ReadyState.CONNECTING)

    def _lost(self, exchange: Exchange, error: Exception) -> list[Item]:
        """The exchange is over: decide what follows, and say so."""
        exchange.abort()
        with self._lock:
            self._exchange = None
            if self._state is ReadyState.CLOSED:
                return []
            if self._restart:
                self._become(ReadyState.CONNECTING)
                self._failures = 0
                return []
        if isinstance(error, EventTimeout):
            error = EventTimeout(f"no message for {self._event_timeout} seconds")
        policy = self._policy or DEFAULT_POLICY
        reconnection_time = policy.reconnection_time(self._from_server)
        if self._opened_at is not None and (
            self._had_event or time.monotonic() - self._opened_at >= BRIEF
        ):
            self._failures = 0
        else:
            self._failures += 1
        if self._policy is None or policy.is_final(error, self._failures):
            with self._lock:
                if self._closed:
                    return []
                self._error = error
                self._become(ReadyState.CLOSED)
            logger.info("%s: closed for good: %s", redact(self.url), summary(error))
            return [ErrorEvent("error", error, ReadyState.CLOSED, None)]
        wait = policy.next_delay(
            reconnection_time,
            self._failures,
            random=_random.random(),
            retry_after=(
                retry_after(error.response.headers, now=time.time())
                if isinstance(error, UnexpectedStatus) and error.response is not None
                else None
            ),
        )
        self._due = time.monotonic() + wait
        if not self._become(ReadyState.CONNECTING):
            return []
        logger.info("%s: retry in %.3g s: %s", redact(self.url), wait, summary(error))
        return [ErrorEvent("error", error, ReadyState.CONNECTING, wait)]

    # --- What another spelling of this class may put its own in the place of ---

    def _new_parser(self, origin: str) -> EventStreamParser:
        return EventStreamParser(
            last_event_id=self.resume_id, origin=origin, max_event_size=self._max_event_size
        )

    def _check(self, response: requests.Response, exchange: Exchange) -> None:
        """Refuse a response that does not open the stream.

        Raises:
            UnexpectedStatus, UnexpectedContentType: it does not.
        """
        if response.status_code != 200:
            exchange.read_error_body()
            raise UnexpectedStatus(response)
        # Of several fields, which requests joins with commas, the last counts (Fetch, "extract
        # a MIME type").
        types = parse_list_header(response.headers.get("Content-Type", "")) or [""]
        if types[-1].partition(";")[0].strip().lower() != "text/event-stream":
            raise UnexpectedContentType(response)
