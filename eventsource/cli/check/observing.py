"""The observation of a stream: what came, and when; no conclusions.

Times are seconds since the watch began, and are arguments.
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
from eventsource.http.redirects import withheld_from
from eventsource.urls import redact

from .reading import Block, LineReader

ENOUGH: Final = 100_000
"""Reads and events after which the watch ends: more takes memory and proves nothing more."""


class Read(NamedTuple):
    """One read of the body."""

    at: float
    size: int
    events: int
    """Events that it has completed."""
    open_line: int
    """Bytes of the unfinished line at its end; 0: it ends with a line end."""


class Seen(NamedTuple):
    """An event, and when it was complete."""

    at: float
    block: Block


@dataclass(frozen=True)
class Head:
    """The head of a response."""

    status: int
    headers: Mapping[str, str]
    url: str = ""
    """The URL that answered, redacted."""
    hops: tuple[tuple[int, str], ...] = ()
    """Redirects: the status, and the URL that redirected, redacted."""
    withheld_from: str | None = None
    """The origin that was not sent the credentials."""
    version: str = ""
    """The version of HTTP."""
    certificate: Mapping[str, Any] | None = None
    """`EventStream.certificate`."""

    @classmethod
    def of(
        cls,
        response: requests.Response,
        version: str = "",
        certificate: Mapping[str, Any] | None = None,
    ) -> Head:
        """Return the head of a response."""
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
        """Whether something else than the end of the connection marks the end of the body."""
        return any(name in self.headers for name in ("Content-Length", "Transfer-Encoding"))


class Loss(NamedTuple):
    """The end of a connection."""

    at: float
    text: str
    is_in_order: bool
    """The body was complete, as far as its framing shows."""


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
    """When it was lost, or the watch ended."""
    comments: list[float] = field(default_factory=list)
    """When comments came; those of one read count once."""

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
    """Everything that was observed.

    Attributes:
        url: the URL of the request, redacted.
        is_once: the request may be sent only once, because it is not a GET.
        asked_for_coding: the request accepts a content coding.
        is_verified: the request verifies the certificate.
        began: the time when the watch began, in seconds since the epoch.
        seconds: how long the watch was to last.
        head: the head of the first response.
        connections: those of the watch.
        refused: the status of a later response that did not open the stream, or None.
        failed: why the last attempt failed; "" if it did not.
        unreadable: the code of the finding, and why the stream cannot be read further.
        is_full: the watch ended early, because `ENOUGH` has come.
        watched: how long the watch lasted.
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
        """Whether `ENOUGH` has come; this also sets `is_full`."""
        kept = sum(len(each.reads) + len(each.events) for each in self.connections)
        self.is_full = kept >= ENOUGH
        return self.is_full

    @property
    def reads(self) -> list[Read]:
        """The reads of all connections."""
        return [read for connection in self.connections for read in connection.reads]

    @property
    def events(self) -> list[Seen]:
        """The events of all connections."""
        return [seen for connection in self.connections for seen in connection.events]


def accepts_coding(headers: Mapping[str, Any]) -> bool:
    """Whether header fields that the command has made accept a content coding."""
    for name, value in headers.items():
        if name.lower() == "accept-encoding" and value not in (None, SKIP_HEADER):
            text = value.decode("latin-1") if isinstance(value, bytes) else str(value)
            return text.strip().lower() not in ("", "identity")
    return False
