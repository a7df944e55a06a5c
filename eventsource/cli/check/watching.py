"""Watches a stream, and resumes it: the loop that records the observation.

After a loss it reconnects soon, whatever `retry` says, because the watch is short. A request
that is not a GET is sent once.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

import requests

from eventsource.cli.failures import Exit, Stop, exit_for, reason
from eventsource.cli.formats import counted
from eventsource.cli.secrets import secrets_of
from eventsource.errors import EventTooLarge, UnexpectedContentType, UnexpectedStatus
from eventsource.protocol.events import ErrorEvent, OpenEvent
from eventsource.protocol.policy import ReconnectPolicy
from eventsource.stream import EventStream
from eventsource.urls import redact

from .observing import ENOUGH, Connection, Head, Observation
from .resuming import SECONDS, Answer, Plan, is_settled
from .strip import Mark

AGAIN_AFTER: Final = 0.3
"""Seconds before it reconnects."""
LOSSES: Final = 20
"""The most reconnects."""
FEW: Final = 1000
"""Up to this many events are checked again after each read; more of them less often."""


class _SoonAgain(ReconnectPolicy):
    """Never gives up: the watch decides when to end."""

    def is_final(self, error: Exception, failures: int) -> bool:  # noqa: ARG002
        return False

    def next_delay(self, *_: object, **__: object) -> float:
        return AGAIN_AFTER


class Watch:
    """Watches one stream. For one thread; `close` is for any.

    Args:
        url: the stream's.
        options: further arguments of `EventStream`.
        observation: where to record what comes.
        on_change: called when something comes, with the time and the kind.

    Raises:
        TypeError, ValueError: an argument cannot be used; the message names it.
    """

    def __init__(
        self,
        url: str,
        options: dict[str, Any],
        observation: Observation,
        on_change: Callable[[float, Mark], object] = lambda _, __: None,
    ) -> None:
        self.observation = observation
        self._on_change = on_change
        self._connection: Connection | None = None
        self._version = ""
        self._proxies = options.get("proxies")
        self.secrets = secrets_of(url, self._proxies, options.get("headers") or {})
        """The secrets in the requests so far."""
        self._stream = EventStream(
            url,
            reconnect=None if observation.is_once else _SoonAgain(),
            on_bytes=self._received,
            hooks={"response": self._note_response},
            **options,
        )
        self._began = time.monotonic()
        self._asked_at = 0.0
        self._attempts = 0  # after the first connection

    def close(self) -> None:
        """End the watch. Never waits."""
        self._stream.close()

    def now(self) -> float:
        """Return the seconds since the watch began."""
        return time.monotonic() - self._began

    # --- The watch ---

    def begin(self) -> None:
        """Wait for the first response.

        Raises:
            Stop: none came; the text says why.
        """
        observation = self.observation
        observation.began, self._began = time.time(), time.monotonic()
        try:
            items = self._stream.take(observation.seconds)
        except TimeoutError:
            raise self._stop(
                Exit.TIMEOUT,
                f"no answer within {counted(observation.seconds, 'second')}; a slow stream behind"
                " a buffer looks like that, too: watch longer (--seconds)",
            ) from None
        for item in items:
            match item:
                case OpenEvent():
                    self._opened()
                case ErrorEvent(error=error):
                    self._refused(error)

    def _refused(self, error: Exception) -> None:
        if not isinstance(error, UnexpectedStatus | UnexpectedContentType):
            raise self._stop(exit_for(error, has_opened=False), reason(error))
        assert error.response is not None
        self.observation.head = Head.of(error.response, self._version)

    def _stop(self, status: Exit, text: str) -> Stop:
        return Stop(status, f"{redact(self._stream.url)}: {text}")

    def go_on(self) -> None:
        """Watch until the time is up, or no more can come."""
        observation = self.observation
        goes_on = bool(observation.connections)
        while goes_on and (left := observation.seconds - self.now()) > 0:
            try:
                items = self._stream.take(left)
            except TimeoutError:
                break
            goes_on = bool(items) and not observation.has_enough()
            for item in items:
                match item:
                    case OpenEvent():
                        self._opened()
                    case ErrorEvent(error=error, retry_in=retry_in):
                        goes_on = self._lost(error) and retry_in is not None and goes_on
        observation.watched = min(self.now(), observation.seconds)
        if self._connection is not None:
            self._connection.until = observation.watched
        self._connection = None

    def _opened(self) -> None:
        now = self.now()
        self._connection = Connection(self._asked_at, now, until=now)
        self.observation.connections.append(self._connection)
        self.observation.failed = ""
        response = self._stream.response
        if self.observation.head is None and response is not None:
            certificate = self._stream.certificate
            self.observation.head = Head.of(response, self._version, certificate)

    def _received(self, chunk: bytes) -> None:
        connection = self._connection
        if connection is None:
            return
        now = self.now()
        comments = connection.reader.comments
        connection.received(chunk, now)
        if connection.reads[-1].events:
            self._on_change(now, Mark.EVENT)
        elif connection.reader.comments > comments:
            self._on_change(now, Mark.COMMENT)
        else:
            self._on_change(now, Mark.BYTES)

    def _lost(self, error: Exception) -> bool:
        """Record a loss, or a failed attempt. Return whether the watch goes on."""
        now, observation = self.now(), self.observation
        connection, self._connection = self._connection, None
        self._on_change(now, Mark.LOSS)
        self._asked_at = now + AGAIN_AFTER
        self._attempts += 1
        if connection is not None:
            connection.lost(error, now)
            if isinstance(error, EventTooLarge):
                observation.unreadable = "format", reason(error)
            elif isinstance(error, requests.exceptions.ContentDecodingError):
                observation.unreadable = "compression", reason(error)
        elif isinstance(error, UnexpectedStatus):
            observation.refused = error.status
        else:
            observation.failed = reason(error)
        ends = observation.unreadable or observation.refused is not None
        return not ends and self._attempts <= LOSSES

    def _note_response(self, response: requests.Response, **_: object) -> None:
        self.secrets |= secrets_of(
            response.request.url or "", self._proxies, response.request.headers
        )
        version = getattr(response.raw, "version", None)
        if isinstance(version, int) and version:
            self._version = f"HTTP/{version // 10}.{version % 10}"

    # --- Resuming ---

    def resume(self, plan: Plan) -> Answer:
        """Connect with an id, and return what comes within `SECONDS`."""
        stream = self._stream
        stream.last_event_id = plan.id
        stream.restart()
        self._asked_at = began = self.now()
        connection: Connection | None = None
        look_at = 0.0
        while (left := began + SECONDS - self.now()) > 0:
            try:
                items = stream.take(left)
            except TimeoutError:
                break
            for item in items:
                match item:
                    case OpenEvent():
                        now = self.now()
                        self._connection = connection = Connection(self._asked_at, now, until=now)
                    case ErrorEvent(error=error):
                        if connection is not None:
                            connection.lost(error, self.now())
                            return Answer(connection)
                        status = error.status if isinstance(error, UnexpectedStatus) else None
                        return Answer(None, status, reason(error))
            if not items:
                break
            if connection is None or self.now() < look_at:
                continue
            if is_settled(plan, connection.events) or len(connection.reads) >= ENOUGH:
                break
            look_at = self.now() + 0.1 * (len(connection.events) > FEW)  # it checks all of them
        if connection is None:
            return Answer(None, None, f"no answer within {SECONDS:g} seconds")
        connection.until = self.now()
        return Answer(connection)
