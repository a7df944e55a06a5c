"""A client that reads a stream, and what it has delivered: the same for all clients."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from .clients import Client

PATIENCE = float(os.environ.get("EVENTSOURCE_PATIENCE", "10"))
"""Seconds to wait for something before a probe decides that it does not come."""
LOOK = 0.05
"""Seconds between two checks of conditions whose changes nothing signals."""


@dataclass(frozen=True, kw_only=True)
class Ask:
    """The settings of a client that differ from its defaults."""

    headers: Mapping[str, str] = field(default_factory=dict)
    body: dict[str, Any] | None = None
    """To be sent by POST, as JSON."""
    delay: float = 0.02
    """Seconds to wait before reconnecting."""
    max_delay: float | None = None
    """The longest wait between attempts, in seconds."""
    jitter: float = 0.0
    """The share of a wait that is random."""
    own_delay: Callable[[], float] | None = None
    """Returns the seconds to wait, each time."""
    silence: float | None = None
    """Seconds without a byte after which the client is to close the connection."""
    stalled: float | None = None
    """Seconds without an event after which the client is to close the connection."""
    largest: int | None = None
    """The largest event, in bytes."""
    token: Callable[[], str] | None = None
    """Returns a bearer token for each attempt."""
    statuses: tuple[int, ...] = ()
    """Statuses after which to try again."""
    final_statuses: bool = False
    """Whether statuses are final, if the client has an option for that."""
    only_messages: bool = False
    """Take messages only: errors show only as far as the client reports them by itself."""
    redirects: bool = False
    """Follow redirects, if the client has an option for that."""
    defaults: bool = False
    """Leave the time limits at the client's defaults."""
    handler: Callable[[str], object] | None = None
    """Called with the text of each `message`."""
    listeners: Mapping[str, Callable[[str], object]] = field(default_factory=dict)
    """Called with the text of each event of that type."""


class Heard(NamedTuple):
    """One event as the client delivers it."""

    type: str
    data: str
    id: str


class Reading:
    """A client that reads a stream in a daemon thread, and what it has delivered so far."""

    def __init__(self, client: Client, url: str, **asked: Any) -> None:
        self.client = client
        self.url = url
        self.ask = Ask(**asked)
        self.heard: list[Heard] = []
        self.comments: list[str] = []
        self.waits: list[float] = []
        """Seconds that the client was going to wait before its attempts."""
        self.headers: Mapping[str, str] = {}
        self.error: BaseException | None = None
        self.over = False
        self.paused = False
        """Set by a probe: take no more events."""
        self.close: Callable[[], object] | None = None
        """What the client offers for closing, callable from any thread."""
        self.cancel: Callable[[], object] | None = None
        """Cancels the task that reads."""
        self._changed = threading.Condition()
        self.thread = threading.Thread(target=self._run, name="reading", daemon=True)

    def start(self) -> Reading:
        self.thread.start()
        return self

    def _run(self) -> None:
        try:
            self.client.read(self)
        except BaseException as error:  # the probe decides what it means
            self.error = error
        with self._changed:
            self.over = True
            self._changed.notify_all()

    def hear(self, type_: str | None, data: str, last_id: str | None = None) -> None:
        self.note(self.heard, Heard(type_ or "message", data, last_id or ""))

    def note(self, where: list[Any], what: object) -> None:
        with self._changed:
            where.append(what)
            self._changed.notify_all()

    def resume(self) -> None:
        with self._changed:
            self.paused = False
            self._changed.notify_all()

    def take_a_break(self) -> None:
        """Called by clients between two events."""
        with self._changed:
            self._changed.wait_for(lambda: not self.paused)

    def wait(self, condition: Callable[[], object], limit: float = PATIENCE) -> bool:
        """Wait until the condition holds or reading is over; return whether it holds.

        Nothing signals a change at the server, so the condition is checked every `LOOK` seconds.
        """
        deadline = time.monotonic() + limit
        with self._changed:
            while not (condition() or self.over) and time.monotonic() < deadline:
                self._changed.wait(LOOK)
            return bool(condition())

    def wait_for(self, count: int) -> bool:
        return self.wait(lambda: len(self.heard) >= count)

    def wait_for_end(self) -> bool:
        return self.wait(lambda: self.over)

    def wait_until_blocked(self) -> None:
        """Wait until the kernel reports that the thread sleeps in a system call (Linux)."""
        status = Path(f"/proc/self/task/{self.thread.native_id}/status")
        pause = threading.Event()
        before = None
        while not self.over:
            try:
                text = status.read_text()
            except OSError:  # the thread has just ended
                return
            lines = [line for line in text.splitlines() if line[:5] in ("State", "volun")]
            if lines == before and "sleeping" in lines[0]:
                return
            before = lines
            pause.wait(0.01)
