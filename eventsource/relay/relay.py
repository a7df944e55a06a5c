"""`Relay`: reads a stream, and stores the events of each read, with the place, in a sink.

The *place* is the last event ID after the stored events. The invariants:

- What has been read is stored before anything more is read. So memory has one batch, and TCP
  slows the server while the engine is slow.
- A connection to the stream begins at the place that `claim()` returned, and is dropped at the
  first call of the sink that fails. So the place in the engine always decides.
- All state changes in the thread of `run()`, except `_is_closed`, which any thread may set.

Only changes of state are logged: who leads, an outage of the log and its end, an outage of the
stream and its end, and what cannot be guaranteed because of the server's ids or a lost place.
"""

from __future__ import annotations

import itertools
import logging
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

from eventsource.engine.telling import Telling
from eventsource.errors import EventSourceError, summary
from eventsource.protocol.events import MessageEvent
from eventsource.protocol.parser import can_be_sent
from eventsource.protocol.policy import check_number
from eventsource.protocol.session import check_last_event_id
from eventsource.runtime.wakeup import Wakeup
from eventsource.stream import EventStream
from eventsource.urls import redact

from .sink import PlaceLost, Sink, Superseded

T = TypeVar("T")

logger = logging.getLogger(__name__)

POLLS: Final = 3
"""How often the lease is renewed, or asked for, within its duration: two polls may fail."""

FIRST_WAIT: Final = 0.05
"""Seconds before the log is claimed again after a failure; doubled with each further one, up
to the time between two polls."""


class Relay:
    """Relays an event stream into a log: each event once and in order, whatever crashes.

    Each batch, the events of one read, is stored together with the place in the stream, in one
    atomic step of the engine. So a relay that starts again, here or on another machine, begins
    exactly where the log ends. The server must give its events ids, and must send the events
    after the `Last-Event-ID` of a request.

    Of several relays with the same log, the one with the lease leads. The others have no
    connection to the stream; they poll, and take over when the lease has expired. If two relays
    both act as the leader, the log refuses the one that claimed it earlier.

    When a call of the sink fails, the connection to the stream is dropped. After a wait, the
    relay claims the log again, and connects again from the place that the log has. If the log has
    none any more although this relay knew one, it stores nothing until the place is back; a relay
    that is started anew begins without it. With `allow_gaps`, it goes on with a warning. A relay
    that has only waited cannot know: it logs a warning if another one led and there is no place.

    What is guaranteed depends on the server's ids:

    - Without ids (decided at the first event), what the server sends while no relay is connected
      is missing; a warning is logged. A relay that has waited for another one to end refuses to
      take over, unless `allow_gaps` is set.
    - Of several events with one id, some may come twice or be missing when a connection is lost
      between them: the server decides what follows that id. A warning is logged, once.
    - An ID without an event changes the place, at the next event or poll.
    - An empty id resets the place: from there on, the server counts as one without ids.
    - An id that no request can carry (see `EventStream.resume_id`) ends the relay, and the events
      of that read are not stored.

    Threads: one thread calls `run()`. `close()` is for any thread and for signal handlers; the
    attributes may be read from any.

    Args:
        url: of the stream, as of `EventStream`.
        sink: the log; no other relay of this process may use the same object.
        lease: seconds that the lease lasts. It is renewed, and others ask for it, after each
            third of that, so another relay takes over within four thirds.
        allow_gaps: go on where events may be missing: take over from another relay although the
            server sends no ids, and begin anew if the log is gone.
        **options: those of `EventStream`, except `last_event_id`, which comes from the log.

    Raises:
        TypeError, ValueError: an argument cannot be used; the message names it. Nothing has been
            sent.

    Examples:
        >>> from eventsource.relay import RedisStream  # doctest: +SKIP
        >>> sink = RedisStream("redis://localhost", "orders")  # doctest: +SKIP
        >>> Relay("https://example.com/stream", sink).run()  # doctest: +SKIP
    """

    def __init__(
        self,
        url: str,
        sink: Sink,
        *,
        lease: float = 10.0,
        allow_gaps: bool = False,
        **options: Any,
    ) -> None:
        for name in ("claim", "append"):
            if not callable(getattr(sink, name, None)):
                raise TypeError(f"sink must have a method {name}(), as {type(sink)} has not")
        check_number("lease", lease, getattr(sink, "shortest_lease", 0))
        if lease == 0:
            raise ValueError("lease must be more than 0")
        if not isinstance(allow_gaps, bool):
            raise TypeError(f"allow_gaps must be a bool, not {allow_gaps!r}")
        if "last_event_id" in options:
            raise TypeError("last_event_id must not be given: the log has the place")
        self._url = url
        self._options = options
        self._new_stream("")  # raises if an option cannot be used; it does not connect
        self._name = redact(url)
        self._sink = sink
        self._lease = lease
        self._take_lease: Callable[[float], bool] | None = getattr(sink, "lease", None)
        self._allow_gaps = allow_gaps
        self._telling = Telling(url)
        self._wakeup = Wakeup()
        self._stream: EventStream | None = None
        self._has_run = False
        self._is_closed = False
        self._leads = False
        self._place = ""
        self._failures = 0  # of the sink; 0: there is no outage
        self._told: set[str] = set()  # what has been logged of this outage
        self._cannot_store = False  # append() failed: successful claims and polls end no outage
        self._waits_since: float | None = None  # when another relay was first seen to lead
        self._is_second = False  # a living relay led meanwhile: it has renewed its lease
        self._misses_place = False  # another relay led, and there is no place: has been logged
        self._has_ids = True
        self._shares_ids = False  # several events had one id; this has been logged

    # --- What there is to know ---

    @property
    def leading(self) -> bool:
        """Whether this relay has claimed the log and reads the stream, as far as it knows."""
        return self._leads

    @property
    def last_event_id(self) -> str:
        """The place up to which the log has all events; `""`: it is not known."""
        return self._place

    def __repr__(self) -> str:
        state = "leading" if self._leads else "closed" if self._is_closed else "not leading"
        return f"<{type(self).__name__} {self._name} {state}>"

    # --- What may be called from anywhere ---

    def close(self) -> None:
        """End `run()`. Never waits and never raises; a second call does nothing.

        `run()` waits for a call of the sink that is under way, so a batch is stored whole. After
        that it makes no other call than the sink's `close()`.
        """
        self._is_closed = True
        if (stream := self._stream) is not None:
            stream.close()
        self._wakeup.set()

    # --- The thread of `run()` ---

    def run(self) -> None:
        """Relay until `close()`, or until the stream is over. Closes the sink at the end.

        Raises:
            RuntimeError: it has been called before.
            TypeError, ValueError: the result of `claim()` cannot be a last event ID.
            EventSourceError: the server sends no ids, and this relay would take over from
                another; or it sends an id that no request can carry.
            Exception: what closed the stream for good, unless that is not a failure: the server
                answered 204, or the body is complete and the stream does not reconnect.
        """
        if self._has_run:
            raise RuntimeError("run() has been called before: make another relay")
        self._has_run = True
        try:
            while not self._is_closed:
                try:
                    if not self._has_lease():
                        self._wakeup.wait(self._lease / POLLS)
                    elif not self._is_closed:
                        self._lead()
                except _SinkFailed as failure:
                    self._wakeup.wait(self._failed(failure.error))
        finally:
            self._is_closed = True
            if (close := getattr(self._sink, "close", None)) is not None:
                close()

    def _lead(self) -> None:
        """Claim the log, and relay until the lease is lost, a call fails or the stream ends."""
        place = self._call(self._sink.claim)
        check_last_event_id("what claim() returns", place)
        self._check_can_be_sent(place)
        if not place:
            self._judge_no_place()
        self._place = place
        stream = self._stream = self._new_stream(place)
        try:
            self._leads = True
            if not self._failures:  # else the outage may not be over
                logger.info("%s: leading", self._name)
            self._relay(stream)
        finally:
            stream.close()
            self._leads = False
            self._stream = None

    def _judge_no_place(self) -> None:
        """The log has no place: log, or raise, that events may be missing."""
        if self._place:
            if not self._allow_gaps:
                raise _SinkFailed(
                    PlaceLost("restore it, or start the relay anew, which may leave a gap")
                )
            logger.warning(
                "%s: the log has lost its place: events may be missing before the next one",
                self._name,
            )
        elif self._is_second and not self._misses_place:
            self._misses_place = True
            logger.warning(
                "%s: another relay led, but the log has no place: if it had one, events may be"
                " missing before the next one",
                self._name,
            )

    def _relay(self, stream: EventStream) -> None:
        interval = self._lease / POLLS
        poll_at = time.monotonic() + interval
        while not self._is_closed:  # checked first: close() may have come before `_stream` was set
            try:
                items = stream.take(max(poll_at - time.monotonic(), 0.0))
            except TimeoutError:
                items = []
            else:
                if not items:
                    self._ended(stream)
                    return
            events: list[MessageEvent] = []
            for item in items:
                if isinstance(item, MessageEvent):
                    events.append(item)
                else:  # a final failure is raised, so it is not logged as a warning
                    is_final = stream.error is not None
                    self._telling.tell(item, is_heard=is_final, is_end=stream.ended)
            if (events or stream.last_event_id != self._place) and not self._is_closed:
                self._store(events, stream)
            if time.monotonic() >= poll_at and not self._is_closed:
                if not self._has_lease():
                    logger.warning("%s: the lease is another relay's", self._name)
                    return
                if not self._cannot_store:
                    self._recovered()
                poll_at = time.monotonic() + interval

    def _store(self, events: list[MessageEvent], stream: EventStream) -> None:
        place = stream.last_event_id
        self._check_can_be_sent(place)
        if events:
            self._judge_ids(events, place)
        try:
            self._call(self._sink.append, events, place)
        except _SinkFailed as failure:
            self._cannot_store = not isinstance(failure.error, Superseded)
            if not place:  # it may be what the log has now, as after a reply that is lost
                self._place = ""
            if not place and events:
                logger.warning("%s: %d events without ids may be missing", self._name, len(events))
            raise
        self._place = place
        self._cannot_store = False
        self._recovered()

    def _ended(self, stream: EventStream) -> None:
        """The stream is over. Raise its failure, unless `close()` ended it."""
        if self._is_closed:
            return
        self._is_closed = True
        if stream.error is not None and not stream.ended:
            raise stream.error

    # --- Ids ---

    def _check_can_be_sent(self, place: str) -> None:
        if not can_be_sent(place):
            raise EventSourceError(
                "an id with control characters, or of more than 4,096 bytes, can be sent in no"
                " request: no relay could go on after it"
            )

    def _judge_ids(self, events: Sequence[MessageEvent], place: str) -> None:
        """Log, or raise, what cannot be guaranteed because of the ids of these events."""
        if place and not self._has_ids:
            self._has_ids = True
            logger.info("%s: the server sends ids", self._name)
        elif not place and self._has_ids:
            if self._is_second and not self._allow_gaps:
                raise EventSourceError(
                    "the server sends no ids, so what it sent while no relay was connected is"
                    " missing; a second relay takes over only with allow_gaps"
                )
            self._has_ids = False
            logger.warning(
                "%s: the server sends no ids: what it sends while no relay is connected will be"
                " missing in the log",
                self._name,
            )
        if not self._shares_ids:
            ids = [self._place, *(event.last_event_id for event in events)]
            if any(one and one == next_ for one, next_ in itertools.pairwise(ids)):
                self._shares_ids = True
                logger.warning(
                    "%s: several events have one id: when a connection is lost between them, the"
                    " server decides whether some come twice or are missing",
                    self._name,
                )

    # --- The sink ---

    def _has_lease(self) -> bool:
        """Take or renew the lease; return whether it is ours: always, if the sink has none."""
        if self._take_lease is None or self._call(self._take_lease, self._lease):
            self._waits_since = None
            return True
        self._cannot_store = False  # whether the log can be written is the leader's concern now
        now = time.monotonic()
        if self._failures:
            self._recovered("another relay leads")
        elif self._waits_since is None:
            logger.info("%s: another relay leads", self._name)
        if self._waits_since is None:
            self._waits_since = now
        # A lease that nobody renews, such as a killed process's, would have expired by now.
        self._is_second |= now - self._waits_since > self._lease * (1 + 1 / POLLS)
        return False

    def _call(self, method: Callable[..., T], *arguments: Any) -> T:
        try:
            return method(*arguments)
        except Exception as error:
            failure = _SinkFailed(error)
        raise failure

    def _failed(self, error: Exception) -> float:
        """A call of the sink has failed; return the seconds to wait before the next."""
        self._failures += 1
        wait = min(FIRST_WAIT * 2.0 ** min(self._failures - 1, 20), self._lease / POLLS)
        if isinstance(error, Superseded) and self._take_lease is None:
            wait = self._lease  # else two relays would take the log from each other all the time
        if isinstance(error, Superseded):
            what = "superseded; claiming it anew"
        elif isinstance(error, PlaceLost):
            what = "the log has lost its place; storing nothing until it is back"
        elif self._waits_since is not None:
            what = "the lease cannot be asked for; asking again"
        else:
            what = "the log cannot be written; claiming it anew"
        if what not in self._told:
            self._told.add(what)
            logger.warning("%s: %s: %s", self._name, what, summary(error))
            for frame in traceback.extract_tb(error.__traceback__):  # no text: it may be secret
                logger.debug("%s: %s, line %d", self._name, frame.filename, frame.lineno or 0)
        return wait

    def _recovered(self, state: str = "leading") -> None:
        """Log the end of an outage, after a batch was stored or a poll has succeeded."""
        if self._failures:
            self._failures = 0
            self._told.clear()
            logger.info("%s: %s; the outage of the log is over", self._name, state)

    def _new_stream(self, place: str) -> EventStream:
        return EventStream(self._url, last_event_id=place, **self._options)


class _SinkFailed(Exception):
    """A call of the sink has raised `error`."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error
