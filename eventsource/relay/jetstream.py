"""A NATS JetStream stream as a relay's log.

The invariant: **the last message of the stream has the place from which the relay resumes**,
and a message is stored only if the one before it is the one that this relay has seen or
written last. There is no second store, so an event and the place after it cannot differ.

What is stored:

- An event is one message on the subject. Each has the place after it, so the relay can resume
  after any prefix of a batch. A server stores one message at a time: batches are sent without
  waiting in between, and all of a batch is acknowledged before `append` returns.
- A *marker* is a message on `SUBJECT.relay`, which a consumer of the subject does not get.
  `claim` writes one: it advances the sequence of the stream, so the server refuses whatever an
  earlier owner still sends. An id without an event also writes one. A marker replaces the one
  before it, so the stream does not fill with them.

The fence is two headers that the server checks when it stores a message: the sequence of the
last message, and its id (`Nats-Msg-Id`), which contains the owner's random token. The
sequence alone is not enough: a server restored from a backup assigns the same ones again.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import json
import logging
import math
import re
import secrets
import threading
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from typing import Any, Final, TypeVar
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from eventsource.errors import EventSourceError
from eventsource.protocol.events import MessageEvent
from eventsource.protocol.policy import check_number, check_whole_number
from eventsource.runtime.fork import close_in_child
from eventsource.urls import redact_text

from .resumption import ResumePoint, Resumption
from .sink import PlaceLost, Superseded

try:
    from nats.aio.client import Client
    from nats.js import api, errors
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] != "nats":
        raise
    raise ImportError("JetStream needs nats-py: python -m pip install nats-py") from None

T = TypeVar("T")

logger = logging.getLogger(__name__)

EVENT_ID: Final = "Event-Id"
EVENT_TYPE: Final = "Event-Type"
TOO_LARGE: Final = "Event-Too-Large"
PLACE: Final = "Relay-Place"
STORED: Final = "Relay-Stored"

DEFAULT_PORT: Final = 4222
"""The port of NATS."""

WINDOW: Final = 500
"""The most messages that wait for their acknowledgements. Servers since 2.11 hold 10,000 for a
stream and refuse more; a twentieth of that is enough for full speed."""

MAX_HEADERS: Final = 65_535
"""The most bytes of a message's headers that JetStream accepts."""

FENCE_BYTES: Final = 300
"""An upper limit for the bytes of the fence's headers, whatever the numbers."""

MAX_TYPE: Final = 200
"""Characters that are kept of the type of an event that is too large."""

MAX_CLAIMS: Final = 100
"""How often `claim` tries again because a message came in between. A try takes three replies of
the server; a leader waits for a reply after each batch, so there are gaps."""

GOODBYE_SECONDS: Final = 1.0
"""The most seconds that `close()` waits for the server."""

DISCONNECT_SECONDS: Final = 0.2
"""Those of them that are kept for disconnecting; also the most that a failed call waits for it."""

_SCHEMES: Final = ("nats", "tls", "ws", "wss")
_OWN_OPTIONS: Final = {
    "servers",
    "allow_reconnect",
    "connect_timeout",
    "max_reconnect_attempts",
    "reconnect_time_wait",
    "error_cb",
    "closed_cb",
    "disconnected_cb",
    "reconnected_cb",
}
_WRONG_LAST: Final = {10070, 10071, 10164}
"""The server's error codes for another last message id, and another last sequence (two)."""
_NAME_IN_USE: Final = 10058

# What a header can carry: printable ASCII. Clients strip spaces, and `%` is the escape.
_PLAIN: Final = "".join(map(chr, range(0x21, 0x7F))).replace("%", "")

_left_behind: Final[list[object]] = []
"""In the child of a fork: the parent's objects. The destructors of an event loop and of its
transports would change what both processes share; in this list they do not run."""


def _quoted(text: str) -> str:
    return quote(text, safe=_PLAIN)


class JetStream:
    """A sink for `Relay`: a stream of NATS JetStream (the extra `nats`).

    The stream is made if it does not exist: on disk, with the limits given here; when it is
    full, the oldest messages are removed. An existing one is used as it is; if its limits are
    not those given here, a warning is logged, once. It must keep its
    last message: a stream that deletes by age, or what has been consumed, is refused.

    An event is one message on `subject`: its data in UTF-8 as the payload, its id and type
    in the headers `Event-Id` and `Event-Type`, percent-encoded where they are not printable
    ASCII. An event that is larger than the server or the stream accepts (`max_payload`, 1 MiB
    by default, `max_msg_size`, half of `max_bytes`, 64 KiB of headers) is stored without its
    data and with the first 200 characters of its type. Its header `Event-Too-Large` has the
    size of its data in bytes. A warning is logged of the first, the 10th, the 100th and each
    1,000th such event. So the stream goes on, and a consumer
    sees that data is missing. Only an event whose id alone is too large cannot be stored:
    `append()` raises an `EventSourceError` each time.

    All calls must come from one thread, except `close()`, which may come from any. An event
    loop in a thread of its own, `eventsource-nats`, serves the connection; it starts with the
    first call and ends with `close()`. After a fork the child has neither: `claim()` makes
    both again there.

    Args:
        url: `nats://host:4222`, which is the usual port. User name and password, or a token,
            may be in it. Several servers of one cluster are separated by commas. Also
            `tls://`, `ws://`, `wss://`.
        name: of the stream: letters, digits, `-` and `_`. The leader's lease is in the
            key-value bucket `NAME-relay`.
        subject: of the messages; `name` by default. The relay's own are on `SUBJECT.relay`.
        max_msgs: how many messages the stream keeps; None: all.
        max_bytes: the largest size of the stream in bytes; None: the limit of the server.
        replicas: how many servers of a cluster keep the stream.
        timeout: seconds without progress after which a call fails.
        **connect_options: further arguments of `nats.connect`: `user`, `password`, `token`,
            `user_credentials`, `nkeys_seed`, `tls`, ...

    Raises:
        TypeError, ValueError: an argument cannot be used; the message names it, and quotes
            nothing of `url`.

    Examples:
        >>> JetStream("nats://localhost:4222", "orders")
        <JetStream 'orders'>
    """

    shortest_lease: Final = 0.1
    """The fewest seconds that a lease may last: the shortest `max_age` that a server accepts."""

    def __init__(
        self,
        url: str,
        name: str,
        *,
        subject: str | None = None,
        max_msgs: int | None = None,
        max_bytes: int | None = None,
        replicas: int = 1,
        timeout: float = 5.0,
        **connect_options: Any,
    ) -> None:
        for what, text in (("url", url), ("name", name), ("subject", subject)):
            if not isinstance(text, str) and (what, text) != ("subject", None):
                raise TypeError(f"{what} must be a str, not {type(text).__name__}")
        servers = [_with_port(server.strip()) for server in url.split(",")]
        if None in servers:
            # Not quoted: what cannot be parsed may contain a password anywhere.
            raise ValueError("url must be like nats://host:4222, or several separated by commas")
        if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
            raise ValueError(f"name must be letters, digits, - and _, not {name!r}")
        subject = name if subject is None else subject
        if not re.fullmatch(r"[^\s.*>]+(\.[^\s.*>]+)*", subject) or subject.startswith("$"):
            raise ValueError(f"subject must be a NATS subject without wildcards, not {subject!r}")
        for what, limit in (("max_msgs", max_msgs), ("max_bytes", max_bytes)):
            if limit is not None:
                check_whole_number(what, limit, 1)
        check_whole_number("replicas", replicas, 1)
        check_number("timeout", timeout, 0)
        if timeout == 0:
            raise ValueError("timeout must be more than 0")
        if taken := _OWN_OPTIONS & connect_options.keys():
            raise TypeError(f"{', '.join(sorted(taken))}: set by the sink itself")
        self._servers = [server for server in servers if server is not None]
        self._name = name
        self._subject = subject
        self._marker_subject = f"{subject}.relay"
        self._max_msgs = max_msgs or -1
        self._max_bytes = max_bytes or -1
        self._replicas = replicas
        self._timeout = timeout
        self._options = {"name": "eventsource relay", **connect_options}
        self._worker: _Worker | None = None
        self._too_large = 0  # events that were stored without their data
        self._has_told_limits = False
        self._reset()
        close_in_child(self, JetStream._forget)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._name!r}>"

    # --- The protocol of a sink ---

    def claim(self) -> str:
        """Become the owner of the stream: whatever an earlier owner still sends is refused.

        Returns:
            The place: the last event ID to resume from, or `""` in a new stream.

        Raises:
            EventSourceError: the server cannot be reached or refuses, the stream cannot
                be used, or none of its messages has a place. `claim()` may be called again.
        """
        return self._call(self._claim)

    def append(self, events: Sequence[MessageEvent], last_event_id: str) -> None:
        """Store events, in order, and the place after them.

        When it returns, all are acknowledged. When it raises, a prefix of them may be
        stored: `claim()` then returns the place after that prefix, and what the server of the
        events sends from there is stored without gap or repetition.

        Args:
            events: in order; an empty sequence changes only the place.
            last_event_id: the place after the last of them.

        Raises:
            Superseded: the last message of the stream is not the one that this sink has
                seen or written last; or it has not claimed the stream since its last
                failure, or in this process.
            EventSourceError: the server cannot be reached or refuses. Call `claim()`.
        """
        if self._owner is None:
            raise Superseded(f"the stream {self._name!r} is not claimed: claim() comes first")
        self._call(functools.partial(self._append, events, last_event_id))

    def lease(self, seconds: float) -> bool:
        """Take or renew the leader's lease.

        It only saves connections to the server of the events. What is stored depends on
        `claim()` alone.

        Args:
            seconds: how long the lease lasts from now; 0.1 at least, the server's limit.

        Returns:
            Whether this sink has the lease. `close()` gives it back.

        Raises:
            TypeError, ValueError: `seconds` is not a number, below 0.1 or not finite.
            EventSourceError: the server cannot be reached or refuses.
        """
        check_number("seconds", seconds, self.shortest_lease)
        self._may_lead = True
        return self._call(functools.partial(self._lease, seconds))

    def close(self) -> None:
        """Give the lease back, close the connection and end the thread; never raises.

        For any thread: a call under way in another one raises `EventSourceError`. The server
        has a second to answer; a look-up of its name that is under way is waited for. After
        that `claim()` may be called again.
        """
        worker, self._worker = self._worker, None
        if worker is None:
            return
        try:
            worker.run(self._leave)
        except Exception as error:
            logger.info("%r: the connection could not be closed in order: %s", self, _said(error))
        worker.stop()

    # --- This thread ---

    def _reset(self) -> None:
        self._worker = None
        self._nats: Any = None  # the connection; this group is used only on the loop
        self._inbox = ""  # the subject of acknowledgements
        self._replies: asyncio.Queue[Any] = asyncio.Queue()  # errors, too; None: closed
        self._max_size = 0  # of a message with its headers, in bytes
        self._can_replace = False  # the stream lets a marker replace the one before it

        self._token = secrets.token_hex(8)  # the holder of the lease
        self._may_lead = False  # the lease has been asked for
        self._disown()

    def _disown(self) -> None:
        self._owner: str | None = None
        self._sequence = 0  # of the last message
        self._message_id: str | None = None  # of the last message; None if it has none
        self._resumption = Resumption(ResumePoint())

    def _forget(self) -> None:
        """In the child of a fork: leave the parent's objects as they are."""
        _left_behind.extend((self._worker, self._nats))
        self._reset()

    def _call(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run `work` on the loop. After any failure there is no owner and no connection."""
        worker = self._worker
        if worker is None:
            worker = self._worker = _Worker()
        failure: EventSourceError
        try:
            return worker.run(functools.partial(self._or_disconnect, work))
        except EventSourceError as error:
            failure = error
        except Exception as error:
            failure = EventSourceError(f"{self!r}: {_said(error)}")
        except BaseException:
            self._disown()
            raise
        self._disown()
        raise failure  # out here: the error below may quote what was sent

    # --- On the loop ---

    async def _or_disconnect(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        try:
            return await work()
        except BaseException:
            await self._disconnect()
            raise

    async def _disconnect(self, seconds: float = DISCONNECT_SECONDS) -> None:
        connection, self._nats = self._nats, None
        if connection is not None:
            try:
                async with asyncio.timeout(seconds):
                    await connection.close()
            except Exception as error:  # the connection is not used again in any case
                logger.debug("%r: closing: %s", self, _said(error))

    async def _connected(self) -> Any:
        if self._nats is None or not self._nats.is_connected:
            await self._disconnect()
            self._replies = replies = asyncio.Queue[Any]()

            async def note(reply: Any = None) -> None:
                replies.put_nowait(reply)

            self._nats = Client()
            try:
                await self._nats.connect(
                    self._servers,
                    allow_reconnect=False,  # claim() must first find out what was stored
                    max_reconnect_attempts=1,  # also limits the first connection
                    reconnect_time_wait=0,
                    connect_timeout=max(1, math.ceil(self._timeout)),
                    error_cb=note,
                    closed_cb=note,
                    **self._options,
                )
            except Exception as error:
                noted = [replies.get_nowait() for _ in range(replies.qsize())]
                # A noted error says more than that no server is available.
                raise next(filter(None, reversed(noted)), error) from None
            while not replies.empty():  # of servers that were tried before
                replies.get_nowait()
            self._inbox = self._nats.new_inbox()
            await self._nats.subscribe(f"{self._inbox}.*", cb=note)
        return self._nats

    async def _claim(self) -> str:
        async with asyncio.timeout(self._timeout) as limit:
            jetstream = (await self._connected()).jetstream(timeout=self._timeout)
            for _ in range(MAX_CLAIMS):
                info = await self._stream(jetstream)
                self._disown()
                await self._find_place(jetstream, info.state, limit)
                self._owner = secrets.token_hex(8)
                self._sequence = info.state.last_seq
                try:
                    await self._store(iter([self._marker()]), limit)
                except Superseded:  # a message came in between: look again
                    continue
                return self._resumption.point.place
            raise EventSourceError(f"{self!r}: another client keeps writing to the stream")

    async def _stream(self, jetstream: Any) -> Any:
        """Return the server's information on the stream; make it if it does not exist."""
        try:
            info = await jetstream.stream_info(self._name)
        except errors.NotFoundError:
            config = api.StreamConfig(
                name=self._name,
                subjects=[self._subject, self._marker_subject],
                num_replicas=self._replicas,
                allow_rollup_hdrs=True,
                max_msgs=self._max_msgs,
                max_bytes=self._max_bytes,
            )
            try:
                info = await jetstream.add_stream(config)
            except errors.APIError as error:
                if error.err_code != _NAME_IN_USE:
                    raise
                info = await jetstream.stream_info(self._name)  # another relay has made it
        self._check(info.config)
        self._compare(info.config)
        limits = [self._nats.max_payload, info.config.max_msg_size or -1]
        # Half: a message that fills the stream, and its place, would be deleted for the next.
        limits.append((info.config.max_bytes or -1) // 2)
        self._max_size = min(limit for limit in limits if limit > 0)
        self._can_replace = bool(info.config.allow_rollup_hdrs)
        return info

    def _check(self, config: Any) -> None:
        """Refuse a stream that could lose the place."""
        reason = None
        if config.max_age:
            reason = "it deletes by age (max_age): in a quiet time the place, too"
        elif (config.retention or "limits") != "limits":
            reason = "it deletes what has been consumed (retention): the place, too"
        elif config.no_ack:
            reason = "it acknowledges nothing (no_ack)"
        elif not {self._subject, self._marker_subject} <= {*(config.subjects or ())}:
            reason = f"its subjects are not {self._subject!r} and {self._marker_subject!r}"
        if reason is not None:
            raise EventSourceError(f"the stream {self._name!r} cannot be used by a relay: {reason}")

    def _compare(self, config: Any) -> None:
        """Log, once, that an existing stream has other limits than were asked for."""
        asked = {"max_msgs": self._max_msgs, "max_bytes": self._max_bytes}
        others = {name: getattr(config, name) or -1 for name in asked}
        told = [
            f"{name}={others[name]}, not {number}"
            for name, number in asked.items()
            if number not in (-1, others[name])
        ]
        if told and not self._has_told_limits:
            self._has_told_limits = True
            logger.warning(
                "%r: the stream exists, with %s; `nats stream edit` changes it",
                self,
                " and ".join(told),
            )

    async def _find_place(self, jetstream: Any, state: Any, limit: asyncio.Timeout) -> None:
        """Read the place from the last message that has one: the last, usually."""
        foreign = 0
        for sequence in range(state.last_seq, max(state.first_seq, 1) - 1, -1):
            try:
                message = await jetstream.get_msg(self._name, sequence)
            except errors.NotFoundError:  # deleted by hand, or a marker that was replaced
                continue
            finally:
                self._note_progress(limit)  # there may be thousands
            headers = message.headers or {}
            if PLACE not in headers:
                foreign += 1
                continue
            if foreign:
                logger.warning(
                    "%r: its last messages were not written by a relay (%d); the place is that of"
                    " message %d",
                    self,
                    foreign,
                    sequence,
                )
            self._resumption = Resumption(_point(headers))
            return
        if state.last_seq:
            raise PlaceLost(
                f"the stream {self._name!r} has been emptied, and the place with it:"
                " delete the stream to start over"
            )

    async def _append(self, events: Sequence[MessageEvent], last_event_id: str) -> None:
        steps = self._resumption.advance(events, last_event_id)
        async with asyncio.timeout(self._timeout) as limit:
            if not (self._nats is not None and self._nats.is_connected):
                raise EventSourceError(f"{self!r}: the connection is lost")
            messages = (
                self._marker() if event is None else self._event(event, point)
                for event, point in steps
            )
            await self._store(messages, limit)

    def _event(self, event: MessageEvent, point: ResumePoint) -> tuple[str, bytes, dict[str, str]]:
        payload = event.data.encode()
        headers = _headers(point)
        headers[EVENT_ID] = _quoted(event.last_event_id)
        headers[EVENT_TYPE] = _quoted(event.type)
        if self._is_too_large(headers, payload):
            headers[TOO_LARGE] = str(len(payload))
            headers[EVENT_TYPE] = _quoted(event.type[:MAX_TYPE])
            if self._is_too_large(headers, b""):
                raise EventSourceError(
                    f"{self!r}: the id of an event has {len(event.last_event_id)} characters,"
                    f" and a message must not exceed {self._max_size} bytes,"
                    f" nor its headers {MAX_HEADERS}"
                )
            self._too_large += 1
            if self._too_large in (1, 10, 100) or self._too_large % 1000 == 0:
                logger.warning(
                    "%r: an event of %d bytes is stored without its data (%d so far):"
                    " a message must not exceed %d bytes, nor its headers %d",
                    self,
                    len(payload),
                    self._too_large,
                    self._max_size,
                    MAX_HEADERS,
                )
            payload = b""
        return self._subject, payload, headers

    def _marker(self) -> tuple[str, bytes, dict[str, str]]:
        headers = _headers(self._resumption.point)
        if self._can_replace:
            headers["Nats-Rollup"] = "sub"
        return self._marker_subject, b"", headers

    def _is_too_large(self, headers: dict[str, str], payload: bytes) -> bool:
        size = FENCE_BYTES + sum(len(name) + len(value) + 4 for name, value in headers.items())
        return size > MAX_HEADERS or size + len(payload) > self._max_size

    async def _store(
        self, messages: Iterator[tuple[str, bytes, dict[str, str]]], limit: asyncio.Timeout
    ) -> None:
        """Send messages, each fenced by the one before it; return when all are stored."""
        acknowledged = self._sequence

        async def take_reply() -> None:
            nonlocal acknowledged
            self._check_reply(await self._replies.get(), acknowledged + 1)
            acknowledged += 1
            self._note_progress(limit)

        for subject, payload, headers in messages:
            if self._sequence - acknowledged >= WINDOW:
                await take_reply()
            headers["Nats-Expected-Last-Sequence"] = str(self._sequence)
            if self._message_id is not None:
                headers["Nats-Expected-Last-Msg-Id"] = self._message_id
            self._sequence += 1
            headers["Nats-Msg-Id"] = self._message_id = f"{self._owner}-{self._sequence}"
            await self._nats.publish(
                subject, payload, reply=f"{self._inbox}.{self._sequence}", headers=headers
            )
            self._note_progress(limit)
        while acknowledged < self._sequence:
            await take_reply()

    def _note_progress(self, limit: asyncio.Timeout) -> None:
        if limit.expired():  # nats-py may suppress a cancellation while it flushes
            raise TimeoutError
        limit.reschedule(asyncio.get_running_loop().time() + self._timeout)

    def _check_reply(self, reply: Any, sequence: int) -> None:
        if reply is None:
            raise EventSourceError(f"{self!r}: the connection is lost")
        if isinstance(reply, Exception):  # such as a missing permission
            raise reply
        if (reply.headers or {}).get("Status") == "503":
            raise EventSourceError(f"{self!r}: the stream does not answer")
        answer = json.loads(reply.data)
        if error := answer.get("error"):
            text = redact_text(f"{error.get('description')} ({error.get('err_code')})")
            if error.get("err_code") in _WRONG_LAST:
                raise Superseded(
                    f"{self!r}: the last message is not the one that was known: {text}"
                )
            raise EventSourceError(f"{self!r}: the server refused a message: {text}")
        if answer.get("seq") != sequence or answer.get("duplicate"):
            raise EventSourceError(f"{self!r}: message {sequence} was stored as {answer!r}")

    async def _lease(self, seconds: float) -> bool:
        async with asyncio.timeout(self._timeout):
            jetstream = (await self._connected()).jetstream(timeout=self._timeout)
            name = f"{self._name}-relay"
            try:
                config = (await jetstream.stream_info(f"KV_{name}")).config
            except errors.NotFoundError:
                bucket = await jetstream.create_key_value(
                    bucket=name, ttl=seconds, history=1, replicas=self._replicas
                )
                config = None
            else:
                bucket = await jetstream.key_value(name)
            token = self._token.encode()
            try:
                entry = await bucket.get("leader")
            except errors.KeyNotFoundError:
                entry = None
            if entry is not None and entry.value != token:
                return False
            # All entries of the bucket expire after `max_age`: unchanged while another leads.
            if config is not None and abs((config.max_age or 0) - seconds) > 0.001:  # whole ns
                config.max_age = seconds
                config.duplicate_window = min(seconds, 120.0)
                await jetstream.update_stream(config)
            try:
                if entry is None:
                    await bucket.create("leader", token)
                else:
                    await bucket.update("leader", token, last=entry.revision)
            except errors.KeyWrongLastSequenceError:
                return False  # another sink was first, or the lease has just expired
            return True

    async def _leave(self) -> None:
        """Give back the lease, if it is ours, and close the connection."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + GOODBYE_SECONDS
        try:
            if self._may_lead and self._nats is not None and self._nats.is_connected:
                async with asyncio.timeout_at(deadline - DISCONNECT_SECONDS):
                    jetstream = self._nats.jetstream(timeout=GOODBYE_SECONDS)
                    try:
                        bucket = await jetstream.key_value(f"{self._name}-relay")
                        entry = await bucket.get("leader")
                        if entry.value == self._token.encode():
                            await bucket.delete("leader", last=entry.revision)
                    except (errors.BucketNotFoundError, errors.KeyNotFoundError):  # no lease
                        pass
        finally:
            await self._disconnect(deadline - loop.time())


def _headers(point: ResumePoint) -> dict[str, str]:
    headers = {PLACE: _quoted(point.place)}
    if point.stored:
        headers[STORED] = f"{point.stored} {_quoted(point.event_id)}"
    return headers


def _point(headers: Mapping[str, str]) -> ResumePoint:
    """Return what `_headers` has written."""
    stored, _, event_id = headers.get(STORED, "0 ").partition(" ")
    return ResumePoint(unquote(headers[PLACE]), unquote(event_id), int(stored))


def _said(error: BaseException) -> str:
    """Return the text of `error` without secrets in URLs."""
    if isinstance(error, TimeoutError):
        return "the server did not answer in time"
    if isinstance(error, concurrent.futures.CancelledError):
        return "closed"
    return f"{type(error).__name__}: {redact_text(str(error))}"


def _with_port(url: str) -> str | None:
    """Return a server's URL, with the usual port if it has none; None if it is not a URL."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return None
    if parts.scheme not in _SCHEMES or not parts.hostname or port == 0:
        return None
    if port is None and parts.scheme in ("nats", "tls"):  # nats-py adds it to a single server only
        parts = parts._replace(netloc=f"{parts.netloc.removesuffix(':')}:{DEFAULT_PORT}")
    return urlunsplit(parts)


class _Worker:
    """An event loop in a thread of its own. `stop()` ends both, and whatever runs there."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._is_stopped = False
        started: concurrent.futures.Future[asyncio.AbstractEventLoop] = concurrent.futures.Future()
        self._thread = threading.Thread(
            target=self._serve, args=(started,), name="eventsource-nats", daemon=True
        )
        self._thread.start()
        self._loop = started.result()

    @staticmethod
    def _serve(started: concurrent.futures.Future[asyncio.AbstractEventLoop]) -> None:
        with asyncio.Runner() as runner:
            loop = runner.get_loop()
            started.set_result(loop)
            loop.run_forever()

    def run(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Return what `work()` returns. Raises `CancelledError` if it is stopped meanwhile."""
        with self._lock:  # so that nothing starts on a loop that is about to end
            if self._is_stopped:
                raise concurrent.futures.CancelledError
            future = asyncio.run_coroutine_threadsafe(work(), self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()  # needed for Ctrl-C only; after anything else it is not running
            raise

    def stop(self) -> None:
        """End the loop, with what runs on it, and the thread."""
        with self._lock:
            if not self._is_stopped:
                self._is_stopped = True
                self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
