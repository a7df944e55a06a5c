"""`EventStream`: everything that happens on an event stream, for a loop.

The stream is only the program's handle; an `Engine` does the work. When the program drops its
last reference to the stream, the stream closes.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, ClassVar, Self

import requests

from .engine.async_iterator import AsyncItems, Taker
from .engine.engine import Engine, Refusal
from .engine.messages import Messages
from .errors import UnexpectedContentType, UnexpectedStatus
from .http.content_types import ANY, EVENT_STREAM, check_content_types, content_type_of
from .http.keywords import check_keywords
from .http.redirects import withheld_from
from .http.request import RequestTemplate
from .protocol.events import ReadyState
from .protocol.parser import MAX_EVENT_SIZE, EventStreamParser
from .protocol.policy import DEFAULT_POLICY, ReconnectPolicy, check_number, check_whole_number
from .protocol.session import Item, Phase, Session, check_last_event_id
from .urls import redact


class EventStream:
    """Iterates over everything that happens on an event stream.

    Yields an `OpenEvent` for each connection that opens, a `MessageEvent` for each event from
    the server, and an `ErrorEvent` each time the connection is lost or cannot be made. If its
    `retry_in` is not None, the next attempt follows when the iteration goes on. The iteration
    ends after the `ErrorEvent` of a final failure, and when `close()` has been called. Leaving
    a `with` block closes the stream. A program that needs only the messages iterates over
    `messages()`.

    `async for` and `async with` do the same in an asyncio program. Then a thread reads.
    Cancelling a step loses no event. Leaving the block waits for the thread, for at most 10
    seconds.

    Threads: the thread that iterates also connects, waits and reads. If another thread iterates
    at the same time, it gets a `RuntimeError`; threads may take turns. `close()` and
    `restart()` may be called from any thread, from a signal handler and from `__del__`. The
    attributes may be read from any thread.

    Forks: in the child, a stream that had begun to connect is closed: `error` is a
    `ForkedError`, and a warning is logged. The parent's stream continues, and nothing that the
    child does has an effect on it.

    Args:
        url: an absolute URL.
        last_event_id: the ID to resume from, sent as `Last-Event-ID`.
        reconnect: when to reconnect; None: never. The default is `ReconnectPolicy()` for GET
            and HEAD, and None for every other method, so its request is not repeated.
        event_timeout: seconds to wait for a message, counted from the start of each attempt and
            from each message. Then the connection is dropped and the client reconnects.
            Comments do not count as messages. None: no limit. Time that the caller takes
            between two calls of `next()` is not counted.
        max_event_size: the size limit of an event, in bytes (see `EventStreamParser`); a larger
            one closes the stream for good with `EventTooLarge`. The default is 64 MiB.
        comments: also yield a `Comment` for each comment line.
        content_types: the media types that are read as an event stream, instead of
            `text/event-stream`; case and parameters are ignored. `""` stands for a response
            without a `Content-Type`, `"*/*"` for every response.
        on_bytes: called with the bytes of the body that each read returned, before they are
            parsed. If it raises, the iteration raises the same, and the next step makes a new
            connection.
        trusted_origins: origins (`scheme://host[:port]`) that, after a redirect, are sent your
            headers, `auth` (which is called again), cookies and client certificate, as the
            origin of `url` is. Any other origin, and every later one, is sent nothing of yours
            except `Accept`, `User-Agent` and the last event ID.
        method: the request method.
        session: a `requests.Session` to use. Streams may share one, if its settings do not
            change and its pool has room for each. Its own adapters are used. So `close()` and
            `restart()` cannot interrupt an attempt before the response's headers have come (an
            `event_timeout` also ends that wait, within half a second).
        **request_options: the options of `requests.Session.request`: headers, params, data,
            json, files, cookies, auth, timeout, proxies, hooks, verify, cert, allow_redirects.
            The default `timeout` is 10 seconds to connect, and no limit to read; without your
            own session, the former covers the look-up of the name and all addresses together.
            `verify` may be an `ssl.SSLContext`, which then decides alone and is not changed. An
            `auth` callable runs at each attempt, so it can refresh a token. `params` may be a
            function that takes the last event ID that is sent (`""` if there is none) and
            returns a value that requests accepts; it is called once for each attempt. A file
            given as `data` is rewound for each attempt; an iterator or `files` can be sent only
            once.

    Raises:
        TypeError, ValueError: an argument cannot be used; the message names it.
            Nothing has been sent.

    Examples:
        >>> with EventStream("https://example.com/stream") as stream:  # doctest: +SKIP
        ...     for event in stream:
        ...         print(event)
    """

    parser_class: ClassVar[type[EventStreamParser]] = EventStreamParser
    """The class that parses the body; a subclass may have another."""

    shows_errors: ClassVar[bool] = True
    """Whether the program that iterates gets the `ErrorEvent`s. A subclass that hides them from
    it may set False; then outages are logged as warnings, as with `messages()`."""

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
        content_types: Collection[str] = EVENT_STREAM,
        trusted_origins: Collection[str] = (),
        method: str = "GET",
        session: requests.Session | None = None,
        **request_options: Any,
    ) -> None:
        check_keywords("EventStream", request_options, EventStream.__init__.__kwdefaults__ or ())
        template = RequestTemplate(
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
        if reconnect is DEFAULT_POLICY and template.method not in ("GET", "HEAD"):
            reconnect = None
        self._content_types = check_content_types(content_types)
        life = Session(
            last_event_id=last_event_id,
            policy=reconnect,
            event_timeout=event_timeout,
            max_event_size=max_event_size,
            comments=comments,
            parser=self.parser_class,
        )
        this = weakref.ref(self)

        def refusal() -> Refusal | None:
            stream = this()
            return None if stream is None else stream.refusal

        self._engine = Engine(template, life, refusal, on_bytes)
        self._taker: Taker | None = None  # the thread that reads for `async for`

    # --- Its state ---

    @property
    def url(self) -> str:
        """The URL as it was given."""
        return self._engine.template.url

    @property
    def ready_state(self) -> ReadyState:
        """The state of the connection; `CLOSED` is final."""
        return self._engine.session.ready_state

    @property
    def closed(self) -> bool:
        """Whether `close()` has been called, after which nothing more is yielded."""
        return self._engine.session.phase is Phase.CLOSED

    @property
    def last_event_id(self) -> str:
        """The last event ID as of the event that was yielded last. May be set.

        A program that stores it after it has processed the event, and passes it at its next
        start, loses no event. A value that you set is sent with the next attempt, unless an
        event with an id comes before.

        Raises:
            TypeError, ValueError: the value is not a str, or it contains NUL, CR or LF.
        """
        return self._engine.last_event_id

    @last_event_id.setter
    def last_event_id(self, value: str) -> None:
        self._engine.session.resume_from(value)
        self._engine.last_event_id = value

    @property
    def resume_id(self) -> str:
        """The last event ID that the next attempt sends, as of all that has been parsed.

        An ID that no header field can carry (with control characters other than tab, or of more
        than 4,096 bytes) is not sent. The last earlier ID that a header field can carry is sent
        instead, so the server may repeat the events after it.
        """
        return self._engine.session.resume_id

    @property
    def reconnection_time(self) -> float:
        """Seconds to wait before the client reconnects. May be set.

        This is the server's last `retry` field, if there was one, otherwise the policy's
        `delay`. A value that you set is used until the server sends another.

        Raises:
            TypeError, ValueError: the value is not a number of at least 0.
        """
        return self._engine.session.reconnection_time

    @reconnection_time.setter
    def reconnection_time(self, seconds: float) -> None:
        self._engine.session.set_reconnection_time(seconds)

    @property
    def error(self) -> Exception | None:
        """The failure that closed the stream for good, else None (also after `close()`)."""
        return self._engine.session.error

    @property
    def ended(self) -> bool:
        """Whether the server has ended the stream for good, without a failure.

        It has answered 204, or the body is complete and the stream does not reconnect.
        """
        return self._engine.session.error is not None and self._engine.session.has_ended_in_order

    @property
    def silent_for(self) -> float | None:
        """Seconds since the last byte on the open connection; None: no connection is open."""
        return self._engine.session.silent_for(time.monotonic())

    @property
    def comments(self) -> bool:
        """Whether comments are yielded. May be set, with effect from the next read on."""
        return self._engine.session.comments

    @comments.setter
    def comments(self, value: bool) -> None:
        self._engine.session.comments = bool(value)

    @property
    def response(self) -> requests.Response | None:
        """The response that is being read, or was read last; None before the first.

        The stream reads its body, so `content` is empty. Except with the caller's own
        `session`, only `fileno()` is left of `raw`.
        """
        return self._engine.response

    @property
    def certificate(self) -> Mapping[str, Any] | None:
        """The server's certificate on the connection that is open, with `notAfter` and the like.

        The value is that of `ssl.SSLSocket.getpeercert()`: empty if it was not verified. None
        without TLS or a connection, and where it is not known: on a `session` of the caller's
        and through SOCKS.
        """
        return self._engine.certificate()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {redact(self.url)} {self.ready_state.name}>"

    # --- For any thread ---

    def close(self) -> None:
        """End the iteration and the connection.

        Never waits and never raises; a second call does nothing. After it has returned, nothing
        is yielded, not even events that have already arrived.
        """
        self._engine.close()

    def restart(self) -> None:
        """Drop this connection, or end the wait, and make a new connection at once.

        Never waits. This does not count as an error and yields no `ErrorEvent`. Events that
        were parsed before are still yielded. Does nothing after the stream has closed.
        """
        self._engine.restart()

    def __enter__(self) -> Self:
        """Return the stream.

        Raises:
            RuntimeError: `close()` has been called.
        """
        if self.closed:
            why = f"is closed: {self.error}" if self.error else "has been closed: make another"
            raise RuntimeError(f"the stream {why}")
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(self, *_: object) -> None:
        """Close, and wait for the thread, for at most 10 seconds."""
        self.close()
        if self._taker is not None:
            await self._taker.wait_for_end()

    def __del__(self) -> None:
        if not hasattr(self, "_taker"):  # the constructor raised an exception
            return
        if self._engine.template.owns_session:
            self.close()
        elif self._taker is not None:
            # The garbage collector may run in a thread that holds the session's locks.
            self._taker.close_on_loop()

    # --- The iteration ---

    def __iter__(self) -> Iterator[Item]:
        # A generator: a step takes a third of the time of a call of `__next__`. It has no
        # state of its own, so another one can continue where it stopped.
        while True:
            yield from self._engine.rest()
            if not self._engine.advance(shows_errors=self.shows_errors):
                return

    def __next__(self) -> Item:
        for item in self:
            return item
        raise StopIteration

    def __aiter__(self) -> AsyncItems:
        return AsyncItems(self)

    def messages(self) -> Messages:
        """Return only the messages: for `for`, `list()` and `async for`.

        Outages are logged: the first failure of each at WARNING, with the reason and the wait;
        the other failures, and the opening after them, at INFO. A final failure is raised and
        not logged at WARNING. A new iterator continues where the previous one stopped.

        Raises:
            Exception: (raised by the iteration) what closed the stream for good, unless that is
                not a failure: the server answered 204, `close()` was called, or the body is
                complete and the stream does not reconnect.

        Examples:
            >>> with EventStream("https://example.com/stream") as stream:  # doctest: +SKIP
            ...     for event in stream.messages():
            ...         print(event.data)
        """
        return Messages(self)

    def take(self, timeout: float | None = None) -> list[Item]:
        """Wait for the next items; return all that are there.

        For the thread that iterates, in place of `next()`. It connects, waits and reads as
        needed. The failures among the items are not logged.

        Args:
            timeout: seconds to wait at most; 0: return what has already arrived. None: no
                limit. With a timeout, attempts run in a separate thread, and so do `auth` and
                hooks; an attempt that is not over in time continues there, and the next call
                waits for it. (So do reads on the caller's own session or through SOCKS.)

        Returns:
            The items in order; an empty list when the stream is closed.

        Raises:
            TimeoutError: no item came in this time. No event is lost, and the connection stays
                open.
            RuntimeError: another thread is iterating.
            TypeError, ValueError: `timeout` is not a number of at least 0.
        """
        if timeout is not None:
            check_number("timeout", timeout, 0)
        return self._engine.take(timeout)

    def refusal(self, response: requests.Response) -> Exception | None:
        """Return why a response does not open the stream; None if it does.

        A subclass that accepts other responses may override it.
        """
        if response.status_code != 200:
            return UnexpectedStatus(response, withheld_from(response))
        if ANY in self._content_types or content_type_of(response) in self._content_types:
            return None
        return UnexpectedContentType(response, self._content_types)
