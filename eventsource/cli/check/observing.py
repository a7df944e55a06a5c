"""What was seen of a stream, with the moments, and nothing of what it means.

Moments are seconds since the watch began, and are passed in.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import requests
from urllib3.util import SKIP_HEADER

from eventsource.cli.failures import reason
from eventsource.errors import BrokenBody, StreamEnded
from eventsource.http.request import withheld_from
from eventsource.urls import redact

from .reading import Block, LineReader

ENOUGH: Final = 100_000
"""Reads and events after which no more is kept: it would fill the memory, and prove nothing."""


class Read(NamedTuple):
    """What one read has brought of the body."""

    at: float
    size: int
    events: int
    """That it has completed."""
    open_line: int
    """Bytes of the line that it ends in; 0: it ends where a line does."""


class Seen(NamedTuple):
    """An event, and when it was complete."""

    at: float
    block: Block


@dataclass(frozen=True)
class Head:
    """What a response says before its body."""

    status: int
    headers: Mapping[str, str]
    url: str = ""
    """That answered, redacted."""
    hops: tuple[tuple[int, str], ...] = ()
    """Redirects: the status, and where from, redacted."""
    withheld_from: str | None = None
    """The origin that was not sent the credentials."""
    version: str = ""
    """Of HTTP."""
    certificate: Mapping[str, Any] | None = None
    """As `EventStream.certificate` has it."""

    @classmethod
    def of(
        cls,
        response: requests.Response,
        version: str = "",
        certificate: Mapping[str, Any] | None = None,
    ) -> Head:
        """Write down what a response says."""
        return cls(
            status=response.status_code,
            headers=response.headers,
            url=redact(response.url or ""),
            hops=tuple((hop.status_code, redact(hop.url or "")) for hop in response.history),
            withheld_from=withheld_from(response),
            version=version,
            certificate=certificate,
        )

    @property
    def marks_its_end(self) -> bool:
        """Whether the end of the body can be told from that of the connection."""
        return any(name in self.headers for name in ("Content-Length", "Transfer-Encoding"))


class Loss(NamedTuple):
    """The end of a connection."""

    at: float
    text: str
    is_in_order: bool
    """The body was complete, as far as that can be told."""


@dataclass
class Connection:
    """One connection that has opened."""

    asked_at: float
    opened_at: float
    reader: LineReader = field(default_factory=LineReader)
    reads: list[Read] = field(default_factory=list)
    events: list[Seen] = field(default_factory=list)
    loss: Loss | None = None
    until: float = 0.0
    """When it was lost, or has no longer been watched."""
    comments: list[float] = field(default_factory=list)
    """When they came; those of one read count once."""

    def received(self, chunk: bytes, now: float) -> None:
        """Bytes of the body have come."""
        reader = self.reader
        comments = reader.comments
        blocks = reader.feed(chunk)
        self.until = now
        self.reads.append(Read(now, len(chunk), len(blocks), reader.line_size))
        self.events += [Seen(now, block) for block in blocks]
        if reader.comments > comments:
            self.comments.append(now)

    def lost(self, error: Exception, now: float) -> None:
        """It has ended."""
        is_in_order = isinstance(error, StreamEnded) and not isinstance(error, BrokenBody)
        self.loss = Loss(now, reason(error), is_in_order)
        self.until = now

    @property
    def lasted(self) -> float:
        """Seconds since it opened."""
        return self.until - self.opened_at


@dataclass
class Observation:
    """All that was seen.

    Attributes:
        url: what was asked, redacted.
        is_once: the request may be sent once only, being no GET.
        asked_for_coding: the request accepts a content coding.
        is_verified: the certificate was to be verified.
        began: the time when the watch began, in seconds since the epoch.
        seconds: how long the watch was to last.
        head: of the first response.
        connections: those of the watch.
        refused: what an attempt after the first was answered that opened nothing.
        failed: why the last attempt has failed; "" if it has not.
        unreadable: why the stream cannot be read on, after the code that it is about.
        is_full: so much has come that the watch ended early.
        watched: how long it lasted.
    """

    url: str
    is_once: bool = False
    asked_for_coding: bool = False
    is_verified: bool = True
    began: float = field(default_factory=time.time)
    seconds: float = 30.0
    head: Head | None = None
    connections: list[Connection] = field(default_factory=list)
    refused: int | None = None
    failed: str = ""
    unreadable: tuple[str, str] | None = None
    is_full: bool = False
    watched: float = 0.0

    def has_enough(self) -> bool:
        """Whether no more is to be kept."""
        kept = sum(len(each.reads) + len(each.events) for each in self.connections)
        self.is_full = kept >= ENOUGH
        return self.is_full

    @property
    def reads(self) -> list[Read]:
        """Those of all connections."""
        return [read for connection in self.connections for read in connection.reads]

    @property
    def events(self) -> list[Seen]:
        """Those of all connections."""
        return [seen for connection in self.connections for seen in connection.events]


def accepts_coding(headers: Mapping[str, Any]) -> bool:
    """Whether header fields, as the command makes them, ask for a content coding."""
    for name, value in headers.items():
        if name.lower() == "accept-encoding" and value not in (None, SKIP_HEADER):
            text = value.decode("latin-1") if isinstance(value, bytes) else str(value)
            return text.strip().lower() not in ("", "identity")
    return False
