"""What the command is told to do."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Settings:
    """The options of the command, checked."""

    url: str
    options: dict[str, Any] = field(repr=False)
    """Further arguments of `EventStream`."""
    reconnect: bool
    """Whether to reconnect after a connection that had opened."""
    retry_connect: bool
    """Whether to try again before any connection has opened."""
    statuses: frozenset[int]
    """The statuses after which to try again."""
    last_event_id: str
    resume: str | None
    """Path of the file with the last event ID."""
    types: frozenset[str]
    """The event types to print; empty: all."""
    count: int | None
    """Events to print; None: no limit."""
    max_time: float | None
    """Seconds."""
    output: str | None
    """Path; None: standard output."""
    format: str
    record: str | None
    """Path of the recording; None: there is none."""
    force: bool
    """Whether that file may exist."""
    max_filesize: int | None
    """The most bytes that it may have."""
    verbose: bool
    silent: bool
