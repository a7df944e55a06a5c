"""The rounds: each peer once, then each again, in another order.

So a slow minute of the machine hits all peers alike, and a ratio is taken within a
round. How much a peer is given to read follows from how fast it was the time before:
each measurement should last about as long, because a client that needs ten times as
long is also measured ten times as well. Rates are per second, so the amounts compare.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from . import inputs, peers
from .processes import Crew, Problem, Server, time_import

TABLES = ("parser", "client", "tls", "latency", "start", "close", "memory")
"""What `--only` takes: `client` is the whole client without TLS, `tls` the same with it."""

LARGEST_BODY = 48 * 2**20
"""Bytes of a body at the most: the raw socket reads them in a twentieth of a second."""
IDLE_LIMIT = 180.0
"""Seconds for opening all the idle streams."""
LATENCY_FRAMINGS = ("event", "plain")
TLS_INPUTS = ("ticks", "llm", "wikimedia")
TLS_FRAMINGS = ("event", "16k")
TLS_PEERS = ("launchdarkly-eventsource", "httpx-sse", "httpx2", "npm eventsource", "raw socket")
"""Those that come near without TLS, and the ceiling."""
SCHEMES = {"http": "plain", "https": "TLS"}
"""The key for commands, the title for readers."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How much is measured.

    Attributes:
        rounds: how often each throughput and latency is measured.
        tables: which of `TABLES`.
        names: which inputs.
        tls_names: which of them over TLS, too.
        idle_schemes: where idle streams are measured.
        rows: which peers, those that are installed.
        quick: a trial of the benchmark itself: its numbers mean little.
        first: blocks to begin with; not counted, only used to choose the next amount.
        duration: seconds that a measurement of throughput should take.
        limit: seconds that one may take; of other measurements: more than it should.
        slow: seconds from which on one is not repeated.
        paced: events in a measurement of latency, one each millisecond.
        streams: idle streams.
        tls_streams: those over TLS of the other packages: fewer, for most of them read all
            certificates for each, and that takes its time.
        closes: times that a stream is closed, in all rounds together.
        patience: seconds after which a `close()` counts as one that does not end the
            reader.
        imports: fresh processes that import a package, in each round.
        begins: streams whose way to the server is timed, in each round.
    """

    rounds: int
    tables: Sequence[str]
    names: Sequence[str]
    rows: Sequence[peers.Peer]
    tls_names: Sequence[str] = TLS_INPUTS
    idle_schemes: Sequence[str] = tuple(SCHEMES)
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
    imports: int = 3
    begins: int = 40


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
class Start:
    """Milliseconds by round: of imports, and from the constructor to the request's arrival."""

    whole: Cell = field(default_factory=Cell)  # with the HTTP library
    alone: Cell = field(default_factory=Cell)  # after that
    begins: dict[str, Cell] = field(default_factory=dict)  # by scheme


@dataclass
class Results:
    """Everything measured; a table that was not asked for is empty."""

    settings: Settings
    parser: dict[str, dict[str, Cell]] = field(default_factory=dict)  # by input, peer
    client: dict[tuple[str, str, str], dict[str, Cell]] = field(default_factory=dict)
    """By scheme, framing and input; then by peer."""
    latency: dict[tuple[str, str], dict[str, Latency]] = field(default_factory=dict)
    """By scheme and framing; then by peer."""
    memory: dict[str, dict[str, Idle]] = field(default_factory=dict)  # by scheme, peer
    closing: dict[str, Closing] = field(default_factory=dict)  # by peer
    start: dict[str, Start] = field(default_factory=dict)  # by peer


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
        ca: a file with the server's authority alone: what a client reads of certificates is
            not what throughput and latency are about.
        trusted: a file with that and what programs commonly trust.
        say: told what is going on.
    """

    def __init__(
        self,
        settings: Settings,
        server: Server,
        crew: Crew,
        ca: str,
        trusted: str,
        say: Callable[[str], object],
    ) -> None:
        self._settings = settings
        self._server = server
        self._crew = crew
        self._ca = ca
        self._trusted = trusted
        self._say = say
        self._units: dict[tuple[str, ...], int] = {}  # to give next, by place and peer
        self.results = Results(settings)

    def everything(self) -> Results:
        """Measure all that the settings ask for."""
        tables = self._settings.tables
        for peer in self._settings.rows:  # they import at the same time
            self._crew.start(peer)
        if {"parser", "client", "tls"}.intersection(tables):
            self._throughput()
        if "latency" in tables:
            self._latency()
        if "start" in tables:
            self._start()
        if "close" in tables:
            self._closing()
        if "memory" in tables:
            self._memory()
        return self.results

    def _in_turn(
        self, table: str, number: int, fit: Callable[[peers.Peer], bool]
    ) -> Iterator[peers.Peer]:
        """The peers that `fit`, from another one on in each round, and back in every other."""
        rows = [peer for peer in self._settings.rows if peer.table in (None, table) and fit(peer)]
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
                    for peer in self._in_turn("parser", number, has_parser):
                        self._rate(cells, peer, number, name, "", "")
                for framing in inputs.FRAMINGS if "client" in settings.tables else ():
                    cells = self.results.client.setdefault(("http", framing, name), {})
                    for peer in self._in_turn("client", number, is_client):
                        self._rate(cells, peer, number, name, framing, "http")
                if name in settings.tls_names and "tls" in settings.tables:
                    for framing in TLS_FRAMINGS:
                        cells = self.results.client.setdefault(("https", framing, name), {})
                        for peer in self._in_turn("tls", number, is_tls_client):
                            self._rate(cells, peer, number, name, framing, "https")

    def _rate(
        self,
        cells: dict[str, Cell],
        peer: peers.Peer,
        number: int,
        name: str,
        framing: str,
        scheme: str,
    ) -> None:
        """Measure one rate into its cell; without a framing, the parser's."""
        cell = cells.setdefault(peer.name, Cell())
        if cell.problem is not None or cell.once:
            return
        unit = inputs.unit(name)
        place = (name, framing, scheme, peer.name)
        units = self._units.get(place) or self._limit_units(unit, self._settings.first)
        try:
            if framing:
                seconds = self._read(peer, name, framing, units, scheme)
            else:
                seconds = self._parse(peer, name, units)
        except Problem as problem:
            where = f"{name}, {framing or 'parser'} {scheme}".rstrip()
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

    def _read(self, peer: peers.Peer, name: str, framing: str, units: int, scheme: str) -> float:
        """Return the seconds that the whole client needed."""
        unit = inputs.unit(name)
        worker = self._crew.ready(peer)
        url, size = self._server.prepare(name, framing, units, scheme)
        reply = worker.ask(
            self._settings.limit,
            do="client",
            url=url,
            types=unit.types,
            events=unit.events * units,
            large=is_large(unit),
            size=size,
            ca=self._ca if scheme == "https" else None,
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
            for scheme, framing in itertools.product(SCHEMES, LATENCY_FRAMINGS):
                cells = self.results.latency.setdefault((scheme, framing), {})
                for peer in self._in_turn("latency", number, has_streams):
                    cell = cells.setdefault(peer.name, Latency())
                    self._one_latency(cell, peer, scheme, framing)

    def _one_latency(self, cell: Latency, peer: peers.Peer, scheme: str, framing: str) -> None:
        if cell.median.problem is not None:
            return
        number = self._settings.paced
        limit = number / 1000 + self._settings.limit
        url = self._server.url(f"/paced/{framing}/{number}", scheme)
        ca = self._ca if scheme == "https" else None
        try:
            reply = self._crew.ready(peer).ask(limit, do="latency", url=url, events=number, ca=ca)
            values = microseconds(reply, number)
        except Problem as problem:
            self._say(f"{peer.name}: latency, {scheme}, {framing}: {problem}: {problem.detail}")
            cell.median.problem = cell.p99.problem = problem
            self._crew.stop(peer)  # it may still be connecting again
            return
        cell.median.values.append(statistics.median(values))
        cell.p99.values.append(percentile(values, 99))

    # --- Start ---

    def _start(self) -> None:
        settings = self._settings
        first = 0 if settings.quick else -1  # that one has what is imported compiled
        for number in range(first, settings.rounds):
            self._say(f"start, round {max(number, 0) + 1} of {settings.rounds}")
            for peer in self._in_turn("start", number, lambda peer: peer.program is not None):
                times = settings.imports if number >= 0 else 0
                self._import(self.results.start.setdefault(peer.name, Start()), peer, times)
            for scheme in SCHEMES if number >= 0 else ():
                for peer in self._in_turn("start", number, is_python_client):
                    cells = self.results.start.setdefault(peer.name, Start()).begins
                    self._begin(cells.setdefault(scheme, Cell()), peer, scheme)

    def _import(self, cell: Start, peer: peers.Peer, times: int) -> None:
        if cell.whole.problem is not None:
            return
        assert peer.program is not None
        try:
            found = [time_import(peer.program, peer.library) for _ in range(max(1, times))]
        except Problem as problem:
            self._say(f"{peer.name}: import: {problem}: {problem.detail}")
            cell.whole.problem = cell.alone.problem = problem
            return
        if times:
            cell.whole.values.append(statistics.median(whole for whole, _ in found) * 1000)
            cell.alone.values.append(statistics.median(alone for _, alone in found) * 1000)

    def _begin(self, cell: Cell, peer: peers.Peer, scheme: str) -> None:
        if cell.problem is not None:
            return
        times = self._settings.begins
        try:
            reply = self._crew.ready(peer).ask(
                times * 0.1 + self._settings.limit,
                do="begin",
                url=self._server.url("/idle", scheme),
                times=times,
                ca=self._trusted if scheme == "https" else None,
            )
        except Problem as problem:
            self._say(f"{peer.name}: begin, {scheme}: {problem}: {problem.detail}")
            cell.problem = problem
        else:
            cell.values.append(statistics.median(reply["nanoseconds"]) / 1e6)
        finally:
            self._server.release()

    # --- Closing ---

    def _closing(self) -> None:
        settings = self._settings
        for number in range(settings.rounds):
            self._say(f"close, round {number + 1} of {settings.rounds}")
            for peer in self._in_turn("close", number, is_closable):
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
        for scheme in self._settings.idle_schemes:
            cells = self.results.memory.setdefault(scheme, {})
            for peer in self._in_turn("memory", 0, has_streams):
                self._crew.start(peer)  # a fresh process
            for peer in self._in_turn("memory", 0, has_streams):
                self._say(f"memory, {scheme}: {peer.name}")
                cells[peer.name] = self._idle(peer, scheme)

    def _idle(self, peer: peers.Peer, scheme: str) -> Idle:
        """Measure in a process that has had no other stream, and ends with these."""
        settings = self._settings
        few = scheme == "https" and not peer.ours
        try:
            reply = self._crew.process(peer).ask(
                IDLE_LIMIT,
                do="idle",
                url=self._server.url("/idle", scheme, peer.host),
                streams=settings.tls_streams if few else settings.streams,
                ca=self._trusted if scheme == "https" else None,
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


def is_client(peer: peers.Peer) -> bool:
    """Whether it reads a stream from a server: the raw socket does, too."""
    return peer.kind != "parser"


def is_tls_client(peer: peers.Peer) -> bool:
    """Whether it is measured over TLS."""
    return is_client(peer) and (peer.ours or peer.name in TLS_PEERS)


def is_python_client(peer: peers.Peer) -> bool:
    """Whether it is a client that handles events, in Python."""
    return has_streams(peer) and peer.kind != "node"


def is_closable(peer: peers.Peer) -> bool:
    """Whether its closing has an end that can be seen."""
    return peer.kind in CLOSABLE


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
