"""The life of a stream as a state machine: when to connect, what to yield, when to end.

Sans-I/O: no sockets, threads, clocks or randomness. Times are seconds on a monotonic clock
and are arguments, and so are random numbers. There is a method for everything that happens
to a stream. Results and attributes say what follows: whether there is something to yield,
how long to wait, and from where to resume.

The invariants:

- Every change of the phase goes through `_enter()`, which does only what `_NEXT` allows.
  `CLOSED` is final.
- One loss of a connection is one `ErrorEvent`, and none if `restart()` or `close()` caused
  it.
- The parsed items and the last event ID that belongs to them are stored by one assignment.
  If a signal handler raises an exception before it, nothing has changed; if it raises one
  after it, the next call continues.

Threads: only the thread that iterates may call `received` and read the stored items; it needs
no lock. Everything else is for a thread that holds the lock of the session's owner. Another
thread or a signal handler may call `close` and `restart` during `received`.
"""

from __future__ import annotations

import enum
import http
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

from eventsource.errors import EventTimeout, ForkedError, StreamEnded, UnexpectedStatus
from eventsource.urls import brief

from .events import (
    Comment,
    ErrorEvent,
    MessageEvent,
    OpenEvent,
    ReadyState,
    is_event_stream,
)
from .parser import MAX_EVENT_SIZE, EventStreamParser, can_be_sent
from .policy import BRIEF, DEFAULT_POLICY, ReconnectPolicy, check_number

Item = OpenEvent | MessageEvent | ErrorEvent | Comment
"""What a stream yields; comments only if asked for."""


class Phase(enum.Enum):
    """Where a stream is in its life."""

    WAITING = enum.auto()
    """There is no connection. The next attempt is made when it is due."""
    CONNECTING = enum.auto()
    """An attempt is under way."""
    OPEN = enum.auto()
    """The stream is being read."""
    DROPPED = enum.auto()
    """`restart()` has ended the connection or the attempt; the reader has not handled it yet."""
    FAILED = enum.auto()
    """A failure has closed the stream for good. What is kept may still be yielded."""
    CLOSED = enum.auto()
    """`close()` has been called. Nothing more is yielded."""


class _What(enum.Enum):
    BEGIN = enum.auto()
    OPENED = enum.auto()
    LOST = enum.auto()
    FAILED = enum.auto()
    RESTART = enum.auto()
    ABANDON = enum.auto()
    CLOSE = enum.auto()


_CLOSED: Final = Phase.CLOSED  # faster than the attribute on Python 3.11
_UNDER_WAY: Final = (Phase.CONNECTING, Phase.OPEN, Phase.DROPPED)
_NEXT: Final[dict[_What, dict[Phase, Phase]]] = {
    _What.BEGIN: {Phase.WAITING: Phase.CONNECTING},
    _What.OPENED: {Phase.CONNECTING: Phase.OPEN},
    _What.LOST: dict.fromkeys(_UNDER_WAY, Phase.WAITING),
    _What.FAILED: {Phase.CONNECTING: Phase.FAILED, Phase.OPEN: Phase.FAILED},
    _What.RESTART: {Phase.CONNECTING: Phase.DROPPED, Phase.OPEN: Phase.DROPPED},
    _What.ABANDON: dict.fromkeys(_UNDER_WAY, Phase.WAITING),
    _What.CLOSE: dict.fromkeys(Phase, Phase.CLOSED),
}
"""What happens: {phase before: phase after}. In a phase without an entry nothing changes."""

_READY_STATES: Final = {
    Phase.WAITING: ReadyState.CONNECTING,
    Phase.CONNECTING: ReadyState.CONNECTING,
    Phase.OPEN: ReadyState.OPEN,
    Phase.DROPPED: ReadyState.CONNECTING,
    Phase.FAILED: ReadyState.CLOSED,
    Phase.CLOSED: ReadyState.CLOSED,
}


class Kept(NamedTuple):
    """The items of one read, and where a connection made after them resumes."""

    items: list[Item]
    rest: Iterator[Item]
    """An iterator over `items`: it has those that have not been yielded."""
    last_event_id: str
    resume_id: str
    """The ID that the next connection sends: the latest that can be sent."""


_new: Final = tuple.__new__


def _keep(items: list[Item], last_event_id: str, resume_id: str) -> Kept:
    return _new(Kept, (items, iter(items), last_event_id, resume_id))


class Session:
    """The state of one stream, over all of its connections.

    Args:
        last_event_id: where to resume.
        policy: when to reconnect; None: never.
        event_timeout: seconds to wait for a message, counted from the start of each attempt and
            from each message; only the time of waiting counts. None: no limit.
        max_event_size: see `EventStreamParser`.
        comments: whether comments are items.
        parser: the class that parses the body of each response.

    Attributes:
        phase (Phase): where the stream is in its life.
        error (Exception | None): what closed the stream for good.
        reconnection_time (float): the standard's term: seconds to wait before the client
            reconnects. It is the policy's `delay` until the server sets another.
        kept (Kept): the parsed items; those in `rest` have not been yielded.
        comments (bool): the argument. May be set.
        heard_at (float): the time when the connection opened or the last bytes came.
        parse_error (Exception | None): the error after which the rest of this response cannot
            be read: an event that is too large.
        odd_lines (int): how many lines of this body were neither a field nor a comment. It is
            not updated after the first event.
    """

    def __init__(
        self,
        *,
        last_event_id: str = "",
        policy: ReconnectPolicy | None = DEFAULT_POLICY,
        event_timeout: float | None = None,
        max_event_size: int = MAX_EVENT_SIZE,
        comments: bool = False,
        parser: type[EventStreamParser] = EventStreamParser,
    ) -> None:
        self.phase = Phase.WAITING
        self.error: Exception | None = None
        self._reconnects = policy is not None
        self._policy = policy or DEFAULT_POLICY
        self.reconnection_time = self._policy.reconnection_time(None)
        self.event_timeout = event_timeout
        self.kept = _keep([], last_event_id, last_event_id if can_be_sent(last_event_id) else "")
        self._parser_class = parser
        self._max_event_size = max_event_size
        self.comments = comments
        self._parser = self._new_parser("")
        self._due = 0.0  # when to make the next attempt
        self._has_begun = False  # an attempt has been made
        self._failures = 0  # attempts without success in a row
        # Of the present attempt:
        self.heard_at = 0.0
        self.odd_lines = 0
        self.parse_error: Exception | None = None
        self._opened_at: float | None = None  # None: it has not opened
        self._headers: Mapping[str, str] = {}
        self._has_event = False  # a message has come
        self._silence = 0.0  # seconds waited since it began or a message came
        self._waits_since = 0.0  # when the present wait began

    # --- What there is to know ---

    @property
    def ready_state(self) -> ReadyState:
        """The state of the connection, in the standard's terms (9.2.2)."""
        return _READY_STATES[self.phase]

    @property
    def event_class(self) -> type[MessageEvent]:
        """The class of the server's events."""
        return self._parser_class.event_class

    @property
    def is_over(self) -> bool:
        """Whether the stream is over."""
        return self.phase is Phase.FAILED or self.phase is Phase.CLOSED

    @property
    def resume_id(self) -> str:
        """The last event ID that the next connection sends."""
        return self.kept.resume_id

    def silent_for(self, now: float) -> float | None:
        """The seconds since the last byte on the open connection; None if none is open."""
        return max(now - self.heard_at, 0.0) if self.phase is Phase.OPEN else None

    @property
    def has_ended_in_order(self) -> bool:
        """Whether the server has ended the stream regularly, so that its end is not a failure.

        It has answered 204 (9.2.3 of the standard), or the body is complete and the stream does
        not reconnect.
        """
        error = self.error
        if isinstance(error, UnexpectedStatus):
            return error.status == http.HTTPStatus.NO_CONTENT
        return isinstance(error, StreamEnded) and not (self._reconnects and self._failures)

    @property
    def end_of_body(self) -> StreamEnded:
        """Return the error for `lost` when the body is complete."""
        text = "the server ended the stream"
        if self._parser.has_unfinished_event:
            count = self._parser.unfinished_bytes
            bytes_were = (
                "1 byte of an unfinished event was"
                if count == 1
                else (f"{count} bytes of an unfinished event were")
            )
            text += f"; {bytes_were} dropped"
        is_foreign = not self._has_event and not is_event_stream(self._headers)
        if is_foreign:
            found = brief(self._headers.get("Content-Type", "").partition(";")[0])
            text += f"; no event came, and its content type is {found!r}"
        error = StreamEnded(text)
        error.is_foreign = is_foreign
        return error

    def has_items(self) -> bool:
        """Whether there are stored items that have not been yielded."""
        return self.kept.rest.__length_hint__() > 0  # type: ignore[attr-defined, no-any-return]

    def take(self) -> list[Item]:
        """Return all stored items that have not been yielded; they now count as yielded."""
        kept = self.kept
        # No call from here to the end, so that no signal handler runs in between.
        items = [*kept.rest]
        del kept.items[:]  # frees memory: the next read may come in days
        return items

    def wait(self, now: float) -> float:
        """Return the seconds until the next attempt is due; 0.0 if there is nothing to wait for."""
        return max(self._due - now, 0.0) if self.phase is Phase.WAITING else 0.0

    def time_left(self, now: float) -> float | None:
        """The reader starts to wait for bytes, or for the head of a response.

        Returns:
            The seconds that it may wait, 0.0 or less if none are left; None: no limit.
        """
        self._waits_since = now
        return None if self.event_timeout is None else self.event_timeout - self._silence

    # --- What happens ---

    def begin(self) -> bool:
        """An attempt starts. Return whether it may: the stream may have been closed."""
        if not self._enter(_What.BEGIN):
            return False
        self._has_begun = True
        self._opened_at = None
        self._has_event = False
        self._silence = 0.0
        self.odd_lines = 0
        self.parse_error = None
        return True

    def opened(self, event: OpenEvent, origin: str, now: float) -> bool:
        """The server has answered with an event stream. Return whether to read it.

        Args:
            event: the event to yield.
            origin: the origin of the URL that answered.
            now: the time.
        """
        if self.phase is not Phase.CONNECTING:
            return False
        self._silence += now - self._waits_since
        self._opened_at = self.heard_at = now
        self._headers = event.headers
        self._parser = self._new_parser(origin)
        return self._enter(_What.OPENED, event)

    def received(self, chunk: bytes, now: float) -> bool:
        """Bytes of the body have come (at least one); `kept` then has their items.

        Returns:
            Whether there is a message among them.

        Raises:
            EventTooLarge: an event is too large, and there was no other before it.
        """
        parser = self._parser
        items: list[Item]
        try:
            if self.comments:
                items = [*parser.feed_with_comments(chunk)]
                has_event = any(type(item) is not Comment for item in items)
            else:
                items = [*parser.feed(chunk)]
                has_event = bool(items)
        finally:
            self.parse_error = parser.error
        last_event_id = resume_id = parser.last_event_id
        if last_event_id is not self.kept.resume_id:  # most reads do not change it
            resume_id = parser.resume_id
        kept = _new(Kept, (items, iter(items), last_event_id, resume_id))  # `_keep`, inlined
        if parser.reconnection_time is not None:
            self.reconnection_time = self._policy.reconnection_time(parser.reconnection_time)
        self.heard_at = now
        if has_event:
            self._has_event = True
            self._silence = 0.0
        else:
            self._silence += now - self._waits_since
            if not self._has_event:
                self.odd_lines = parser.unknown_lines
        self.kept = kept
        if self.phase is _CLOSED:  # meanwhile, by another thread
            kept.items.clear()
        return has_event

    def waited(self, now: float) -> None:
        """The reader has stopped waiting and may continue later: the connection stays open."""
        self._silence += now - self._waits_since
        self._waits_since = now

    def parsed(self, seconds: float) -> None:
        """Count as silence the time that it took to parse bytes without a message.

        Otherwise `event_timeout` would never end a stream of comments so fast that the reader
        never waits.
        """
        self._silence += seconds

    def lost(
        self, error: Exception, now: float, *, random: float, retry_after: float | None = None
    ) -> ErrorEvent | None:
        """The connection is lost or could not be made. `kept` has the event, unless we ended it.

        Args:
            error: the failure.
            now: the time.
            random: a random number from 0 to 1, for the jitter.
            retry_after: the seconds that the server asked to wait, or None.

        Returns:
            The `ErrorEvent` in `kept`; None if `restart()` or `close()` was the cause.
        """
        if self.phase is Phase.DROPPED:
            self._failures = 0
            self._due = now
            self._enter(_What.LOST)
            return None
        if self.phase not in _UNDER_WAY:
            return None
        if isinstance(error, EventTimeout):
            error = EventTimeout(f"no message for {self.event_timeout} seconds")
        policy = self._policy
        self._failures = 0 if self._is_success(now) else self._failures + 1
        if not self._reconnects or policy.is_final(error, self._failures):
            event = ErrorEvent("error", error, ReadyState.CLOSED, None)
            return event if self._enter(_What.FAILED, event, error) else None
        wait = policy.next_delay(
            self.reconnection_time, self._failures, random=random, retry_after=retry_after
        )
        check_number("the result of next_delay()", wait, 0)
        self._due = now + wait
        event = ErrorEvent("error", error, ReadyState.CONNECTING, wait)
        return event if self._enter(_What.LOST, event) else None

    def abandon(self, now: float) -> None:
        """The reader was interrupted, for example by Ctrl-C; its connection is not used again.

        The next attempt is due at once, or at the time when it was due before.
        """
        if self.phase in _UNDER_WAY and self._is_success(now):
            self._failures = 0
        self._enter(_What.ABANDON)

    def restart(self) -> bool:
        """Make the next connection due now. Return whether there is one to end."""
        if self.phase is Phase.WAITING:
            self._due = 0.0
        return self._enter(_What.RESTART)

    def close(self) -> None:
        """End the stream for good. Stored items are not yielded any more."""
        self._enter(_What.CLOSE)
        self.kept.items.clear()  # which ends `rest`

    def forked(self) -> bool:
        """In the child of a fork: close a stream that had begun. Return whether that was so."""
        if self.is_over or not self._has_begun:
            return False
        self.error = ForkedError.here()
        self.close()
        return True

    def resume_from(self, last_event_id: str) -> None:
        """Set the ID from which the next connection resumes, unless an event comes before.

        Raises:
            TypeError, ValueError: the value cannot be a last event ID.
        """
        check_last_event_id("last_event_id", last_event_id)
        resume_id = last_event_id if can_be_sent(last_event_id) else self.kept.resume_id
        self.kept = self.kept._replace(last_event_id=last_event_id, resume_id=resume_id)
        self._parser.resume_from(last_event_id)

    def set_reconnection_time(self, seconds: float) -> None:
        """Set the reconnection time, until the server sets another.

        Raises:
            TypeError, ValueError: the value is not a number of at least 0.
        """
        check_number("reconnection_time", seconds, 0)
        self.reconnection_time = seconds
        self._parser.reconnection_time = None

    def _is_success(self, now: float) -> bool:
        if self._opened_at is None:
            return False
        seconds, stable_after = now - self._opened_at, self._policy.stable_after
        if stable_after is not None:
            return seconds >= stable_after
        return self._has_event or seconds >= BRIEF

    def _enter(self, what: _What, item: Item | None = None, error: Exception | None = None) -> bool:
        """Enter the phase that `_NEXT` has for this, and store the item; return whether there is
        one.

        The item replaces the stored ones, all of which have been yielded.
        """
        while (after := _NEXT[what].get(before := self.phase)) is not None:
            kept = self.kept
            if item is not None:
                kept = _keep([item], kept.last_event_id, kept.resume_id)
            # A signal handler may have called close() or restart() before this. After this
            # none can run, because there is no call.
            if self.phase is before:
                if item is not None:  # else keep what `received` may be storing meanwhile
                    self.kept = kept
                self.error = self.error if error is None else error
                self.phase = after
                return True
        return False

    def _new_parser(self, origin: str) -> EventStreamParser:
        return self._parser_class(
            last_event_id=self.kept.last_event_id,
            resume_id=self.kept.resume_id,
            origin=origin,
            max_event_size=self._max_event_size,
        )


def check_last_event_id(name: str, value: object) -> None:
    """Refuse a value that no stream can set as a last event ID, naming the argument `name`."""
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a str, not {value!r}")
    for index, character in enumerate(value):
        if character in "\0\r\n" or "\ud800" <= character <= "\udfff":
            raise ValueError(f"{name} must not contain {character!r} (index {index}): {value!r}")
