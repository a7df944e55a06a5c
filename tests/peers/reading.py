"""A client that reads a stream, and what it has told: the same for all clients."""

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
"""Seconds after which what has not come is taken not to come."""
LOOK = 0.05
"""Seconds between two looks at what tells nobody that it has changed."""


@dataclass(frozen=True, kw_only=True)
class Ask:
    """What is wanted of a client, beyond its defaults."""

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
    """Says how many seconds to wait, each time."""
    silence: float | None = None
    """Seconds without a byte after which the connection is to be given up."""
    stalled: float | None = None
    """Seconds without an event, likewise."""
    largest: int | None = None
    """The largest event, in bytes."""
    token: Callable[[], str] | None = None
    """Asked for a bearer token at each attempt."""
    statuses: tuple[int, ...] = ()
    """Statuses to be tried again."""
    final_statuses: bool = False
    """Whether statuses are final, where a client can be told so."""
    only_messages: bool = False
    """Take messages alone, and hear of errors only what the client tells by itself."""
    redirects: bool = False
    """Follow redirects, where a client must be told to."""
    defaults: bool = False
    """Leave the time limits at the client's defaults."""
    handler: Callable[[str], object] | None = None
    """Called with the text of each `message`."""
    listeners: Mapping[str, Callable[[str], object]] = field(default_factory=dict)
    """Called with the text of each event of that type."""


class Heard(NamedTuple):
    """One event as the client tells it."""

    type: str
    data: str
    id: str


class Reading:
    """A client that reads a stream in a daemon thread, and what it has told so far."""

    def __init__(self, client: Client, url: str, **asked: Any) -> None:
        self.client = client
        self.url = url
        self.ask = Ask(**asked)
        self.heard: list[Heard] = []
        self.comments: list[str] = []
        self.waits: list[float] = []
        """Seconds that the client said it waits before its attempts."""
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
        except BaseException as error:  # for the probe to judge
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
        """Wait until the condition holds or reading is over; say whether it holds.

        Conditions of the server's are looked at again from time to time.
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
        """Wait until the thread is in a system call, by the kernel's account (Linux)."""
        status = Path(f"/proc/self/task/{self.thread.native_id}/status")
        pause = threading.Event()
        before = None
        while not self.over:
            try:
                text = status.read_text()
            except OSError:  # it has just ended
                return
            lines = [line for line in text.splitlines() if line[:5] in ("State", "volun")]
            if lines == before and "sleeping" in lines[0]:
                return
            before = lines
            pause.wait(0.01)
