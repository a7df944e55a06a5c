"""`EventStream`: everything that happens on an event stream, for a loop.

It is what the program holds, and nothing else: an `Engine` does the work. When the program
drops it, it closes.
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
from .http.request import RequestTemplate, withheld_from
from .protocol.events import ReadyState
from .protocol.parser import MAX_EVENT_SIZE, EventStreamParser
from .protocol.policy import DEFAULT_POLICY, ReconnectPolicy, check_number, check_whole_number
from .protocol.session import Item, Phase, Session, check_last_event_id
from .urls import redact


class EventStream:
    """Iterates over everything that happens on an event stream.

    Yields an `OpenEvent` for each connection that opens, a `MessageEvent` for each
    event of the server's, and an `ErrorEvent` each time the connection is lost or
    cannot be made; if that one says when (`retry_in`), the next attempt follows by
    itself as the iteration goes on. The iteration ends after the `ErrorEvent` of a
    failure that is final, and when `close()` has been called. Leaving a `with` block
    closes it. A program that wants the messages alone iterates over `messages()`.

    `async for` and `async with` do the same in an asyncio program. Then a thread reads; a
    step that is cancelled loses nothing, and leaving the block waits for the thread, for
    at most 10 seconds.

    Threads: one thread iterates; it is the one that connects, waits and reads. Another
    that iterates while it does so gets a `RuntimeError`; taking turns is no error.
    `close()` and `restart()` may be called from any thread, from a signal handler
    and from `__del__`. The attributes may be read from any thread.

    Forks: a stream that has begun to connect is closed in the child: `error` is a
    `ForkedError`, and a warning is logged there. That of the parent goes on, and nothing that
    the child does has an effect on it.

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
        content_types: the media types that are taken for an event stream, instead of
            `text/event-stream`; compared without case and parameters. `""` stands for a
            response without a `Content-Type`, `"*/*"` for all.
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
            cert, allow_redirects. `timeout` is 10 seconds to connect and none to read
            unless you say otherwise; on sessions of ours the former is for the look-up of
            the name and all addresses together. `verify` may be an `ssl.SSLContext`, which then
            decides alone and is not changed. An `auth` callable runs at each
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

    shows_errors: ClassVar[bool] = True
    """Whether the program that iterates sees the `ErrorEvent`s. A subclass for one that does
    not may have False here; then outages are logged as warnings, as with `messages()`."""

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

    # --- What there is to know ---

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
        """The last event ID of the event that was yielded last. May be set.

        A program that stores it after it has dealt with the event, and starts there
        again, loses nothing. What is set is sent with the next attempt, unless an event with
        an id comes before it.

        Raises:
            TypeError, ValueError: no stream can set it: it is no str, or holds NUL, CR or LF.
        """
        return self._engine.last_event_id

    @last_event_id.setter
    def last_event_id(self, value: str) -> None:
        self._engine.session.resume_from(value)
        self._engine.last_event_id = value

    @property
    def resume_id(self) -> str:
        """The last event ID that the next attempt sends: of what has been parsed.

        One that a header field cannot carry (with control characters other than tab, or of
        more than 4,096 bytes) is not sent. The last one before it that can be carried is, so
        the server may send again what came after that.
        """
        return self._engine.session.resume_id

    @property
    def reconnection_time(self) -> float:
        """Seconds to wait before the client reconnects. May be set.

        The server's last `retry` field, if there was one, else the policy's `delay`. What is
        set counts until the server says otherwise.

        Raises:
            TypeError, ValueError: it is no number of at least 0.
        """
        return self._engine.session.reconnection_time

    @reconnection_time.setter
    def reconnection_time(self, seconds: float) -> None:
        self._engine.session.set_reconnection_time(seconds)

    @property
    def error(self) -> Exception | None:
        """What closed the stream for good; None while it lives and after `close()`."""
        return self._engine.session.error

    @property
    def ended(self) -> bool:
        """Whether the server has ended the stream for good, and that is no failure.

        It has answered 204, or the body is complete and the stream is not to reconnect.
        """
        return self._engine.session.error is not None and self._engine.session.has_ended_in_order

    @property
    def silent_for(self) -> float | None:
        """Seconds since the last byte of the connection that is open; None: none is."""
        return self._engine.session.silent_for(time.monotonic())

    @property
    def comments(self) -> bool:
        """Whether comments are yielded. May be set; counts from the next read on."""
        return self._engine.session.comments

    @comments.setter
    def comments(self, value: bool) -> None:
        self._engine.session.comments = bool(value)

    @property
    def response(self) -> requests.Response | None:
        """The response that is being read, or was read last; None before the first.

        The stream reads its body: `content` is empty, and of `raw` only `fileno()` is left,
        but on a `session` of the caller's.
        """
        return self._engine.response

    @property
    def certificate(self) -> Mapping[str, Any] | None:
        """The server's certificate on the connection that is open, with `notAfter` and the like.

        As `ssl.SSLSocket.getpeercert()` has it: empty if it was not verified. None without
        TLS or a connection, and where it is not known: on a `session` of the caller's and
        through SOCKS.
        """
        return self._engine.certificate()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {redact(self.url)} {self.ready_state.name}>"

    # --- What may be called from anywhere ---

    def close(self) -> None:
        """End the iteration and the connection.

        Never waits and never raises; a second call does nothing. Nothing is yielded
        after it has returned, not even what has arrived already.
        """
        self._engine.close()

    def restart(self) -> None:
        """Drop this connection and make another now; a wait is cut short.

        Never waits. This is no error and yields none. Events that were parsed before
        are still yielded. Does nothing once closed.
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
        if not hasattr(self, "_taker"):  # the constructor has refused its arguments
            return
        if self._engine.template.owns_session:
            self.close()
        elif self._taker is not None:
            # The collector may run in a thread that holds the locks of such a session.
            self._taker.close_on_loop()

    # --- The iteration ---

    def __iter__(self) -> Iterator[Item]:
        # A generator: in a loop it takes a third of the time of a call of `__next__`. It
        # has no state of its own, so that another one can continue.
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
        """Return the messages alone: for `for`, `list()` and `async for`.

        Outages are logged: the first failure of each as a warning, with the reason and the
        wait, the others and the opening after it as information. What closes the stream for
        good is raised and not warned of. A new iterator continues
        where the one before it stopped.

        Raises:
            Exception: (the iteration) what closed the stream for good, unless that is no
                failure: the server answered 204, `close()` was called, or the body is
                complete and the stream is not to reconnect.

        Examples:
            >>> with EventStream("https://example.com/stream") as stream:  # doctest: +SKIP
            ...     for event in stream.messages():
            ...         print(event.data)
        """
        return Messages(self)

    def take(self, timeout: float | None = None) -> list[Item]:
        """Wait for the next thing to happen; return all that has happened by then.

        For the thread that iterates, in place of `next()`. It connects, waits and
        reads as needed. Nothing is logged of what it returns.

        Args:
            timeout: seconds to wait at the most; 0: return what has arrived already. None:
                as long as it takes. An attempt that is not over by then goes on in a thread
                of its own (as does a read on a session of the caller's or through SOCKS),
                for which the next call waits. There `auth` and hooks run, too.

        Returns:
            The items in order; none when the stream is closed.

        Raises:
            TimeoutError: nothing has happened in this time. Nothing is dropped, and the
                connection stays.
            RuntimeError: another thread is iterating.
            TypeError, ValueError: `timeout` is no number of at least 0.
        """
        if timeout is not None:
            check_number("timeout", timeout, 0)
        return self._engine.take(timeout)

    def refusal(self, response: requests.Response) -> Exception | None:
        """Return why a response does not open the stream; None: it does.

        A subclass that accepts more may have its own.
        """
        if response.status_code != 200:
            return UnexpectedStatus(response, withheld_from(response))
        if ANY in self._content_types or content_type_of(response) in self._content_types:
            return None
        return UnexpectedContentType(response, self._content_types)
