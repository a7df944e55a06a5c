"""What a relay asks of an engine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from eventsource.errors import EventSourceError
from eventsource.protocol.events import MessageEvent


class Superseded(EventSourceError):
    """Another relay has claimed the log, or the log is not where this relay left it."""


class Sink(Protocol):
    """Where a relay stores what it reads."""

    def claim(self) -> str:
        """Become the owner; return the place, `""` for none."""
        ...

    def append(self, events: Sequence[MessageEvent], last_event_id: str) -> None:
        """Store a batch and the place after it."""
        ...
