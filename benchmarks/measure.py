"""The rounds: each peer once, then each again, in another order.

So a slow minute of the machine hits all peers alike, and a ratio is taken within a
round. How much a peer is given to read follows from how fast it was the time before:
each measurement should last about as long, because a client that needs ten times as
long is also measured ten times as well. Rates are per second, so the amounts compare.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from . import inputs, peers
from .processes import Crew, Problem, Server

TABLES = ("parser", "client", "latency", "memory", "close")

LARGEST_BODY = 48 * 2**20
"""Bytes of a body at the most: the raw socket reads them in a twentieth of a second."""
IDLE_LIMIT = 180.0
"""Seconds for opening all the idle streams."""
LATENCY_FRAMINGS = ("event", "plain")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How much is measured.

    Attributes:
        rounds: how often each throughput and latency is measured.
        tables: which of `TABLES`.
        names: which inputs.
        rows: which peers, those that are installed.
        quick: a trial of the benchmark itself: its numbers mean little.
        first: blocks to begin with; not counted, only used to choose the next amount.
        duration: seconds that a measurement of throughput should take.
        limit: seconds that one may take; of other measurements: more than it should.
        slow: seconds from which on one is not repeated.
        paced: events in a measurement of latency, one each millisecond.
        streams: idle streams.
        tls_streams: the same over TLS: fewer, for most clients read all certificates
            for each, and that takes its time.
        closes: times that a stream is closed, in all rounds together.
        patience: seconds after which a `close()` counts as one that does not end the
            reader.
    """

    rounds: int
    tables: Sequence[str]
    names: Sequence[str]
    rows: Sequence[peers.Peer]
    quick: bool = False
    first: int = 10_000
    duration: float = 0.25
    limit: float = 10.0
    slow: float = 4.0
    paced: int = 500
    streams: int = 1000
    tls_streams: int = 250
    closes: int = 1000
    patience: float = 1.0


@dataclass
class Cell:
    """What was measured of one peer in one place.

    Attributes:
        values: by round: amounts per second, or microseconds; None: not measured.
        problem: why there is no value.
        once: it was so slow that it was not repeated.
    """

    values: list[float | None] = field(default_factory=list)
    problem: Problem | None = None
    once: bool = False

    @property
    def known(self) -> list[float]:
        """The values there are."""
        return [value for value in self.values if value is not None]

    @property
    def median(self) -> float | None:
        """Their median; None if there is a problem."""
        known = self.known
        return statistics.median(known) if known and self.problem is None else None


@dataclass
class Latency:
    """Microseconds from send to handler: median and 99th percentile, by round."""

    median: Cell = field(default_factory=Cell)
    p99: Cell = field(default_factory=Cell)


@dataclass
class Idle:
    """What an idle stream adds: bytes and threads."""

    size: float = 0.0
    threads: float = 0.0
    problem: Problem | None = None


@dataclass
class Closing:
    """Seconds from `close()` to the end of the reader, of all rounds."""

    seconds: list[float] = field(default_factory=list)
    late: int = 0
    problem: Problem | None = None


@dataclass
class Results:
    """Everything measured; a table that was not asked for is empty."""

    settings: Settings
    parser: dict[str, dict[str, Cell]] = field(default_factory=dict)  # by input, peer
    client: dict[tuple[str, str], dict[str, Cell]] = field(default_factory=dict)
    """By framing and input; then by peer."""
    latency: dict[str, dict[str, Latency]] = field(default_factory=dict)  # by framing, peer
    memory: dict[str, dict[str, Idle]] = field(default_factory=dict)  # by scheme, peer
    closing: dict[str, Closing] = field(default_factory=dict)  # by peer


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the smallest of `values` that `percent` of them do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


class Run:
    """One run of the benchmark.

    Args:
        settings: how much.
        server: the server.
        crew: the workers.
        ca: a file with the certificates to trust; None: no TLS.
        say: told what is going on.
    """

    def __init__(
        self,
        settings: Settings,
        server: Server,
        crew: Crew,
        ca: str | None,
        say: Callable[[str], object],
    ) -> None:
        self._settings = settings
        self._server = server
        self._crew = crew
        self._ca = ca
        self._say = say
        self._units: dict[tuple[str, ...], int] = {}  # to give next, by place and peer
        self.results = Results(settings)

    def everything(self) -> Results:
        """Measure all that the settings ask for."""
        tables = self._settings.tables
        for peer in self._settings.rows:  # they import at the same time
            self._crew.start(peer)
        if "parser" in tables or "client" in tables:
            self._throughput()
        if "latency" in tables:
            self._latency()
        if "close" in tables:
            self._closing()
        if "memory" in tables:
            self._memory()
        return self.results

    def _in_turn(self, number: int, fit: Callable[[peers.Peer], bool]) -> Iterator[peers.Peer]:
        """The peers that `fit`, from another one on in each round, and back in every other."""
        rows = [peer for peer in self._settings.rows if fit(peer)]
        start = number * 3 % max(1, len(rows))
        rows = rows[start:] + rows[:start]
        yield from reversed(rows) if number % 2 else rows

    # --- Throughput ---

    def _throughput(self) -> None:
        settings = self._settings
        first = 0 if settings.quick else -1  # that one only finds out the amounts
        for number in range(first, settings.rounds):
            which = f"round {number + 1} of {settings.rounds}" if number >= 0 else "amounts"
            for name in settings.names:
                self._say(f"throughput, {which}: {name}")
                if "parser" in settings.tables:
                    cells = self.results.parser.setdefault(name, {})
                    for peer in self._in_turn(number, has_parser):
                        self._rate(cells, peer, number, name, "")
                for framing in inputs.FRAMINGS if "client" in settings.tables else ():
                    cells = self.results.client.setdefault((framing, name), {})
                    for peer in self._in_turn(number, lambda peer: peer.kind != "parser"):
                        self._rate(cells, peer, number, name, framing)

    def _rate(
        self, cells: dict[str, Cell], peer: peers.Peer, number: int, name: str, framing: str
    ) -> None:
        """Measure one rate into its cell; without a framing, the parser's."""
        cell = cells.setdefault(peer.name, Cell())
        if cell.problem is not None or cell.once:
            return
        unit = inputs.unit(name)
        place = (name, framing, peer.name)
        units = self._units.get(place) or self._limit_units(unit, self._settings.first)
        try:
            if framing:
                seconds = self._read(peer, name, framing, units)
            else:
                seconds = self._parse(peer, name, units)
        except Problem as problem:
            where = f"{name}, {framing or 'parser'}"
            self._say(f"{peer.name}: {where}: {problem}: {problem.note} {problem.detail}")
            cell.problem = problem
            return
        rate = unit.amount * units / seconds
        cell.once = seconds > self._settings.slow
        if number >= 0 or cell.once:
            cell.values += [None] * (max(number, 0) - len(cell.values))
            cell.values.append(rate)
        self._units[place] = self._limit_units(unit, rate * self._settings.duration)

    def _limit_units(self, unit: inputs.Unit, amount: float) -> int:
        """Return how many units make about `amount`, within what is sensible."""
        size = sum(map(len, unit.blocks))
        most = 1 if unit.scale == "MB" else LARGEST_BODY // size
        return max(1, min(round(amount / unit.amount), most))

    def _read(self, peer: peers.Peer, name: str, framing: str, units: int) -> float:
        """Return the seconds that the whole client needed."""
        unit = inputs.unit(name)
        worker = self._crew.ready(peer)
        url, size = self._server.prepare(name, framing, units)
        reply = worker.ask(
            self._settings.limit,
            do="client",
            url=url,
            types=unit.types,
            events=unit.events * units,
            large=is_large(unit),
            size=size,
        )
        if peer.kind == "raw":
            if reply["bytes"] != size:
                raise Problem("wrong", note=f"{reply['bytes']:,} of {size:,} bytes")
        else:
            check(peer, unit, units, reply)
        return float(reply["seconds"])

    def _parse(self, peer: peers.Peer, name: str, units: int) -> float:
        """Return the seconds that the parser needed."""
        unit = inputs.unit(name)
        worker = self._crew.ready(peer)
        where: dict[str, Any] = {"name": name, "units": units, "large": is_large(unit)}
        if peer.kind == "node":  # it cannot make the bytes itself
            url, _ = self._server.prepare(name, "plain", units)
            where = {"url": url}
        reply = worker.ask(self._settings.limit, do="parse", **where)
        check(peer, unit, units, reply)
        return float(reply["seconds"])

    # --- Latency ---

    def _latency(self) -> None:
        settings = self._settings
        for number in range(settings.rounds):
            self._say(f"latency, round {number + 1} of {settings.rounds}")
            for framing in LATENCY_FRAMINGS:
                cells = self.results.latency.setdefault(framing, {})
                for peer in self._in_turn(number, has_streams):
                    self._one_latency(cells.setdefault(peer.name, Latency()), peer, framing)

    def _one_latency(self, cell: Latency, peer: peers.Peer, framing: str) -> None:
        if cell.median.problem is not None:
            return
        number = self._settings.paced
        limit = number / 1000 + self._settings.limit
        url = self._server.url(f"/paced/{framing}/{number}")
        try:
            reply = self._crew.ready(peer).ask(limit, do="latency", url=url, events=number)
            values = microseconds(reply, number)
        except Problem as problem:
            self._say(f"{peer.name}: latency, {framing}: {problem}: {problem.detail}")
            cell.median.problem = cell.p99.problem = problem
            self._crew.stop(peer)  # it may still be connecting again
            return
        cell.median.values.append(statistics.median(values))
        cell.p99.values.append(percentile(values, 99))

    # --- Closing ---

    def _closing(self) -> None:
        settings = self._settings
        for number in range(settings.rounds):
            self._say(f"close, round {number + 1} of {settings.rounds}")
            for peer in self._in_turn(number, lambda peer: peer.kind in CLOSABLE):
                cell = self.results.closing.setdefault(peer.name, Closing())
                if cell.problem is None and not cell.late:
                    self._close(cell, peer, -(-settings.closes // settings.rounds))

    def _close(self, cell: Closing, peer: peers.Peer, times: int) -> None:
        url = self._server.url("/idle")
        limit = times * 0.1 + self._settings.limit
        try:
            reply = self._crew.ready(peer).ask(
                limit, do="close", url=url, times=times, patience=self._settings.patience
            )
            cell.seconds += reply["seconds"]
            cell.late += reply["late"]
        except Problem as problem:
            self._say(f"{peer.name}: close: {problem}: {problem.detail}")
            cell.problem = problem
        if cell.late or cell.problem is not None:
            self._crew.stop(peer)  # its readers, and what closes them, hang
        self._server.release()

    # --- Memory ---

    def _memory(self) -> None:
        for scheme in ("http", "https") if self._ca is not None else ("http",):
            cells = self.results.memory.setdefault(scheme, {})
            for peer in self._in_turn(0, has_streams):
                self._crew.start(peer)  # a fresh process
            for peer in self._in_turn(0, has_streams):
                self._say(f"memory, {scheme}: {peer.name}")
                cells[peer.name] = self._idle(peer, scheme)

    def _idle(self, peer: peers.Peer, scheme: str) -> Idle:
        """Measure in a process that has had no other stream, and ends with these."""
        try:
            reply = self._crew.process(peer).ask(
                IDLE_LIMIT,
                do="idle",
                url=self._server.url("/idle", scheme),
                streams=self._settings.tls_streams if scheme == "https" else self._settings.streams,
                ca=self._ca if scheme == "https" else None,
            )
        except Problem as problem:
            self._say(f"{peer.name}: memory, {scheme}: {problem}: {problem.detail}")
            return Idle(problem=problem)
        finally:
            self._crew.stop(peer)
            self._server.release()
        return Idle(size=reply["bytes"], threads=reply["threads"])


CLOSABLE = ("handlers", "loop", "asyncio")
"""Kinds of peers whose closing has an end that can be seen: of a thread or a task."""


def has_parser(peer: peers.Peer) -> bool:
    """Whether its parser can be measured alone: npm's `eventsource` has one, too."""
    return peer.parse is not None or peer.package == "eventsource"


def has_streams(peer: peers.Peer) -> bool:
    """Whether it is a client that handles events."""
    return peer.kind not in ("parser", "raw")


def is_large(unit: inputs.Unit) -> bool:
    """Whether clients with a low limit must be told of the unit's largest event."""
    return max(map(len, unit.blocks)) > 2**16


def microseconds(reply: dict[str, Any], number: int) -> list[float]:
    """Return the latencies that a worker measured.

    Raises:
        Problem: it did not get all events.
    """
    values = [nanoseconds / 1000 for nanoseconds in reply["nanoseconds"]]
    if len(values) != number:
        raise Problem("wrong", note=f"{len(values):,} of {number:,} events")
    return values


def check(peer: peers.Peer, unit: inputs.Unit, units: int, reply: dict[str, Any]) -> None:
    """Compare what a worker got with what was sent.

    Raises:
        Problem: it got something else.
    """
    events, chars = unit.events * units, unit.chars * units
    if peer.kind == "node":
        chars = unit.utf16 * units
    if reply["events"] != events:
        raise Problem("wrong", note=f"{reply['events']:,} of {events:,} events")
    if reply["chars"] != chars:
        raise Problem("wrong", note=f"{reply['chars']:,} characters, not {chars:,}")
