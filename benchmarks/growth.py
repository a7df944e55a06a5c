"""What an event costs as the work grows: more sources, larger events, more listeners, more types.

    python -m benchmarks.growth                  # writes the section and the picture into docs/
    python -m benchmarks.growth --output DIR     # writes growth.md and growth.svg there
    python -m benchmarks.growth --quick ...      # a trial of a few seconds

Processor time of the client process, its system calls included, in `time.process_time()`; the
server is another process. The server goes on when what it has sent has been read, so that the
number of reads does not depend on how fast anything is. Only *in bulk* all is sent at once.

The invariant: **a cost is printed only if every handler was called as often as it should be.**

Linux only: see `lockstep`.
"""

from __future__ import annotations

import argparse
import itertools
import json
import socket
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from .lockstep import Lookout
from .processes import HERE, Child, Problem
from .sections import replace_section
from .server import CHUNKED, chunk, raise_file_limit, read_path

DOCS: Final = HERE.parent / "docs"
LIMIT: Final = 300.0
"""Seconds for anything that a process is asked."""
BATCH: Final = 50
"""Sources that connect at the same time."""
ROUNDS: Final = 3
"""How often all points are measured, one after the other, each time by a client process of its own.
The cheapest round counts, because what another program costs only ever adds; how far the rounds are
apart is told."""
REPEAT: Final = 2
"""Runs in one process, of which the cheapest counts: the first one finds nothing in the caches."""
TEXT: Final = b"x" * 100
"""The data of an event whose size is not what grows."""
END: Final = chunk(b"event: end\ndata: end\n\n")
"""Tells a source that its events are over."""

Pace = Literal["in turn", "together", "bulk"]
"""What the server waits for: that one source has read an event, before it sends it to the next;
that all have read it, before it sends another; or nothing."""


# --- The server process ---


class Server:
    """Holds what connects, and sends the same to all."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self._port: int = self._listener.getsockname()[1]
        self._held: list[socket.socket] = []
        self._lookout = Lookout()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            connection, _ = self._listener.accept()
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            read_path(connection)
            self._held.append(connection)  # first: the client sends when it has the head
            connection.sendall(CHUNKED)

    def port(self) -> dict[str, Any]:
        """Return the port."""
        return {"port": self._port}

    def send(self, *, kind: str, amount: int, events: int, pace: Pace) -> dict[str, Any]:
        """Send events to every connection, and then the last one."""
        parts = parts_of(kind, amount, events)
        if pace == "bulk":
            parts = iter([b"".join(parts)])
        for part in itertools.chain(parts, [END]):
            for connection in self._held:
                connection.sendall(part)
                if pace == "in turn":
                    self._lookout.wait_until_read(connection)
            for connection in self._held:
                self._lookout.wait_until_read(connection)
        return {}

    def release(self) -> dict[str, Any]:
        """Close all connections."""
        while self._held:
            self._held.pop().close()
        return {}


def parts_of(kind: str, amount: int, events: int) -> Iterator[bytes]:
    """Yield the chunk of each of so many events.

    Args:
        kind: what `amount` is: `bytes`, `wide` or `lines`, the size of an event (of ASCII, of
            other text, in lines of 100 bytes); or `types`, how many types there are.
        amount: see above.
        events: how many.
    """
    if kind == "types":
        for number in range(events):
            yield chunk(b"event: t%d\ndata: %b\n\n" % (number % amount, TEXT))
        return
    text = b"x" * amount
    if kind == "wide":
        text = "é".encode() * (amount // 2)
    elif kind == "lines":
        text = b"\ndata: ".join(text[start : start + 100] for start in range(0, amount, 100))
    part = chunk(b"data: %b\n\n" % text)
    for _ in range(events):
        yield part


# --- The client process ---


class Client:
    """Sources whose handlers only count."""

    def __init__(self) -> None:
        self._sources: list[Any] = []
        self._calls: list[None] = []  # `append` is atomic
        self._ends = threading.Semaphore(0)
        self._used = 0.0

    def open(
        self,
        *,
        url: str,
        sources: int,
        types: Sequence[str],
        listeners: int,
        switch_interval: float | None,
    ) -> dict[str, Any]:
        """Open sources, each with so many listeners of each type; return the time to register."""
        from eventsource import EventSource  # in this process only

        if switch_interval is not None:
            sys.setswitchinterval(switch_interval)
        opened = threading.Semaphore(0)
        registering = 0.0
        for number in range(sources):
            source = EventSource(
                url, start=False, max_event_size=2**30, on_open=lambda _: opened.release()
            )
            source.on("end", lambda _: self._ends.release())
            handlers = [(each, self._handler()) for each in types for _ in range(listeners)]
            began = time.process_time()
            for event_type, handler in handlers:
                source.on(event_type, handler)
            registering += time.process_time() - began
            self._sources.append(source)
            source.start()
            if (number + 1) % BATCH == 0 or number + 1 == sources:
                for _ in range(number % BATCH + 1):
                    _acquire(opened)
        return {"registering": registering / max(sources * len(types) * listeners, 1)}

    def _handler(self) -> Callable[[Any], object]:
        add = self._calls.append
        return lambda _: add(None)

    def begin(self) -> dict[str, Any]:
        """Events come."""
        self._calls.clear()
        self._used = time.process_time()
        return {}

    def end(self) -> dict[str, Any]:
        """Wait for the last event of each source; return calls and the processor time used."""
        for _ in self._sources:
            _acquire(self._ends)
        return {"seconds": time.process_time() - self._used, "calls": len(self._calls)}


def _acquire(semaphore: threading.Semaphore) -> None:
    if not semaphore.acquire(timeout=LIMIT):
        raise TimeoutError("a source has not opened, or got its last event")


def serve_commands(target: Server | Client) -> None:
    """Answer commands until standard input ends."""
    for line in sys.stdin:
        command = json.loads(line)
        try:
            reply = getattr(target, command.pop("do"))(**command)
        except Exception as error:
            reply = {"error": type(error).__name__, "detail": str(error)}
        print(json.dumps(reply), flush=True)


# --- What is measured ---


@dataclass(frozen=True, kw_only=True)
class Series:
    """A line of the picture: one thing grows.

    Attributes:
        panel: the key of its panel.
        name: of the line.
        kind: of the events, see `parts_of`.
        amounts: the values of what grows.
        events: how many events a source gets, by the amount.
        event_types: what is listened for, by the amount.
        growing: what the amount is, besides a property of the events.
        pace: of the server, see `Pace`.
        switch_interval: seconds, for `sys.setswitchinterval` in the client; None: Python's default.
    """

    panel: str
    name: str
    kind: str
    amounts: tuple[int, ...]
    events: Callable[[int], int]
    event_types: Callable[[int], tuple[str, ...]] = lambda _: ("message",)
    growing: str = ""
    pace: Pace = "together"
    switch_interval: float | None = None


@dataclass(frozen=True)
class Panel:
    """A table, and a panel of the picture.

    Attributes:
        title: its heading.
        what: the name of what grows.
        unit: what the cost is of, besides an event; None: of nothing else.
        scale: `unit`s per second of cost: 1e6 for µs, 1e9 for ns.
        shown: the unit of the cost.
    """

    title: str
    what: str
    unit: str | None
    scale: float = 1e6
    shown: str = "µs"


PANELS: Final = {
    "sources": Panel("Sources with traffic", "sources", None),
    "size": Panel("Size of an event", "bytes", "byte", 1e9, "ns"),
    "listeners": Panel("Listeners of one type", "listeners", "call"),
    "types": Panel("Event types", "types", None),
}


def series(*, quick: bool) -> list[Series]:
    """Return what is to be measured."""
    sources = (1, 3) if quick else (1, 3, 10, 30, 100, 300, 1000)
    sizes = (10, 10_000) if quick else tuple(10**power for power in range(1, 8))
    listeners = (1, 3) if quick else (1, 2, 5, 10, 20, 50, 100, 200, 500)
    types = (1, 3) if quick else (1, 10, 100, 1000, 10_000)
    few = 10 if quick else 0

    def named(amount: int) -> tuple[str, ...]:
        return tuple(f"t{number}" for number in range(amount))

    def by_size(size: int) -> int:
        return few or min(max(50_000_000 // size, 5), 2000)

    def by_types(amount: int) -> int:
        return max(few or 2000, amount)

    lined = tuple(size for size in sizes if size >= 1000)
    return [
        Series(
            panel="sources",
            name="in turn",
            kind="bytes",
            amounts=sources,
            events=lambda amount: few or max(6000 // amount, 20),
            growing="sources",
            pace="in turn",
        ),
        Series(
            panel="sources",
            name="all at the same time",
            kind="bytes",
            amounts=sources,
            events=lambda amount: few or max(6000 // amount, 20),
            growing="sources",
        ),
        Series(
            panel="sources",
            name="the same, `setswitchinterval(1)`",
            kind="bytes",
            amounts=sources,
            events=lambda amount: few or max(6000 // amount, 20),
            growing="sources",
            switch_interval=1.0,
        ),
        Series(panel="size", name="ASCII", kind="bytes", amounts=sizes, events=by_size),
        Series(panel="size", name="other text", kind="wide", amounts=sizes, events=by_size),
        Series(panel="size", name="lines of 100", kind="lines", amounts=lined, events=by_size),
        Series(
            panel="listeners",
            name="of the type",
            kind="bytes",
            amounts=listeners,
            events=lambda _: few or 1000,
            growing="listeners",
        ),
        Series(
            panel="listeners",
            name='of `"*"`',
            kind="bytes",
            amounts=listeners,
            events=lambda _: few or 1000,
            event_types=lambda _: ("*",),
            growing="listeners",
        ),
        Series(
            panel="types",
            name="heard",
            kind="types",
            amounts=types,
            events=by_types,
            event_types=named,
        ),
        Series(
            panel="types",
            name="unheard",
            kind="types",
            amounts=types,
            events=by_types,
            event_types=lambda _: (),
        ),
        Series(
            panel="types",
            name="heard, in bulk",
            kind="types",
            amounts=types,
            events=lambda amount: few * 10 or max(20_000, amount),
            event_types=named,
            pace="bulk",
        ),
    ]


@dataclass(frozen=True)
class Cost:
    """What was measured at one point, in seconds of processor time.

    Attributes:
        event: per event.
        unit: per byte, or per call of a listener, whichever the panel's unit is.
        registering: per listener that is registered.
        apart: the dearest round by the cheapest, per event.
    """

    event: float
    unit: float
    registering: float
    apart: float = 1.0


Results = dict[str, dict[str, dict[int, Cost]]]
"""By panel, by line, by amount."""


def cheapest(rounds: Sequence[Cost]) -> Cost:
    """Return the least of what the rounds have measured at one point."""
    events = [cost.event for cost in rounds]
    return Cost(
        min(events),
        min(cost.unit for cost in rounds),
        min(cost.registering for cost in rounds),
        max(events) / min(events),
    )


def start(what: str) -> Child:
    """Start a process: `server` or `client`."""
    return Child([sys.executable, "-m", "benchmarks.growth", "--process", what])


def measure_all(lines: Sequence[Series], rounds: int) -> Results:
    """Measure every point of these lines, in each round.

    Raises:
        Problem: see `measure`; its note says where.
    """
    found: dict[tuple[str, str, int], list[Cost]] = {}
    points = [(line, amount) for line in lines for amount in line.amounts]
    server = start("server")
    try:
        for number in range(rounds):
            for line, amount in points:
                where = f"{line.panel}, {line.name}, {amount:,}"
                try:
                    cost = measure(server, line, amount)
                except Problem as problem:
                    note = f"{where}: {problem.note}"
                    raise Problem(str(problem), note=note, detail=problem.detail) from None
                found.setdefault((line.panel, line.name, amount), []).append(cost)
                told = f"round {number + 1} of {rounds}: {where}: {cost.event * 1e6:,.1f} µs"
                print(told, file=sys.stderr)
    finally:
        server.stop(kill=True)
    results: Results = {}
    for (panel, name, amount), costs in found.items():
        results.setdefault(panel, {}).setdefault(name, {})[amount] = cheapest(costs)
    return results


def measure(server: Child, line: Series, amount: int) -> Cost:
    """Measure a point, in a client process of its own.

    Raises:
        Problem: a process failed, or a handler was not called as often as it should be.
    """
    sources = amount if line.growing == "sources" else 1
    listeners = amount if line.growing == "listeners" else 1
    event_types = line.event_types(amount)
    events = line.events(amount)
    order = {
        "kind": line.kind,
        "amount": len(TEXT) if line.growing else amount,
        "events": events,
        "pace": line.pace,
    }
    # Those of "*" hear the last event, too.
    calls = sources * listeners * (events + ("*" in event_types)) if event_types else 0
    client = start("client")
    try:
        url = f"http://127.0.0.1:{server.ask(LIMIT, do='port')['port']}/"
        opened = client.ask(
            LIMIT,
            do="open",
            url=url,
            sources=sources,
            types=event_types,
            listeners=listeners,
            switch_interval=line.switch_interval,
        )
        seconds = []
        for _ in range(REPEAT):
            client.ask(LIMIT, do="begin")
            server.ask(LIMIT, do="send", **order)
            used = client.ask(LIMIT, do="end")
            if used["calls"] != calls:
                raise Problem("error", note=f"{used['calls']} calls of handlers, not {calls}")
            seconds.append(used["seconds"])
    finally:
        client.stop(kill=True)
    server.ask(LIMIT, do="release")
    each = min(seconds) / (sources * events)
    return Cost(each, each / amount, opened["registering"])


# --- The tables and the picture ---


def text_of(results: Results) -> str:
    """Return the tables as Markdown, and below each how far the rounds are apart."""
    blocks = []
    for key, lines in results.items():
        panel = PANELS[key]
        names = [f"{name}, µs per event" for name in lines]
        if panel.unit is not None:
            names += [f"{name}, {panel.shown} per {panel.unit}" for name in lines]
        else:
            names += [f"{name}, times the first row" for name in lines]
        if key in ("listeners", "types"):
            names.append("registering a listener, µs")
        rows = [
            f"**{panel.title}**\n",
            "| " + " | ".join([panel.what, *names]) + " |",
            "| ---: " * (len(names) + 1) + "|",
        ]
        for amount in sorted({amount for points in lines.values() for amount in points}):
            points = [points.get(amount) for points in lines.values()]
            cells = [_shown(point.event * 1e6 if point else None) for point in points]
            if panel.unit is not None:
                cells += [_shown(point.unit * panel.scale if point else None) for point in points]
            else:
                bases = [next(iter(line.values())) for line in lines.values()]
                cells += [
                    "" if point is None else f"{point.event / base.event:.2f}"
                    for point, base in zip(points, bases, strict=True)
                ]
            if key in ("listeners", "types"):
                first = next(iter(lines.values()))[amount]  # its handlers are of the type
                cells.append(_shown(first.registering * 1e6))
            rows.append("| " + " | ".join([f"{amount:,}", *cells]) + " |")
        blocks.append("\n".join(rows))
        apart = [cost.apart for points in lines.values() for cost in points.values()]
        if max(apart) > 1:  # there was more than one round
            blocks.append(
                "Noise, the dearest round by the cheapest, which is shown: "
                f"{statistics.median(apart):.2f} (median of the points), {max(apart):.2f} at most."
            )
    return "\n\n".join(blocks)


def _shown(number: float | None) -> str:
    if number is None:
        return ""
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


def _plain(number: float) -> str:
    return f"{number:,.0f}" if number >= 1 else f"{number:g}"


def draw(results: Results, path: Path) -> None:
    """Draw the panels into an SVG file: what a unit costs, so that what is linear is level."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt
    from matplotlib import ticker

    settings: Any = {"svg.fonttype": "none", "svg.hashsalt": "growth", "font.size": 8}
    with mpl.rc_context(settings):
        figure, axes = plt.subplots(2, 2, figsize=(8, 5.6), layout="constrained")
        for (key, lines), axis in zip(results.items(), axes.flat, strict=True):
            panel = PANELS[key]
            for name, points in lines.items():
                costs = [
                    (cost.event if panel.unit is None else cost.unit) * panel.scale
                    for cost in points.values()
                ]
                axis.loglog(
                    [*points],
                    costs,
                    marker="o",
                    markersize=3,
                    linewidth=1,
                    label=name.replace("`", ""),
                )
            axis.set_title(panel.title)
            axis.set_xlabel(panel.what)
            axis.set_ylabel(f"{panel.shown} per {panel.unit or 'event'}")
            axis.set_ylim(bottom=min(axis.get_ylim()[0], axis.get_ylim()[1] / 100))
            for each in (axis.xaxis, axis.yaxis):
                each.set_major_formatter(ticker.FuncFormatter(lambda value, _: _plain(value)))
            axis.minorticks_off()  # a small file
            axis.grid(visible=True, linewidth=0.3)
            axis.legend(frameon=False)
        figure.savefig(path, format="svg", metadata={"Date": None})
        plt.close(figure)


def main(arguments: list[str] | None = None) -> int:
    """Measure, and write the tables and the picture; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth")
    parser.add_argument("--quick", action="store_true", help="a trial of a few seconds")
    parser.add_argument("--only", action="append", choices=[*PANELS], help="print one; repeatable")
    parser.add_argument("--output", type=Path, metavar="DIR", help="instead of the documentation")
    parser.add_argument("--process", choices=["server", "client"], help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.process:
        raise_file_limit()
        serve_commands(Server() if options.process == "server" else Client())
        return 0
    if options.quick and not (options.output or options.only):
        parser.error("--quick needs --output: its numbers are not for the documentation")
    lines = series(quick=options.quick)
    try:
        results = measure_all(
            [line for line in lines if not options.only or line.panel in options.only],
            1 if options.quick else ROUNDS,
        )
    except Problem as problem:
        print(f"{problem}: {problem.note}\n{problem.detail}", file=sys.stderr)
        return 1
    text = text_of(results)
    print(text)
    if options.only:
        return 0
    if options.output is not None:
        options.output.mkdir(parents=True, exist_ok=True)
        (options.output / "growth.md").write_text(text + "\n", encoding="utf-8")
        draw(results, options.output / "growth.svg")
    else:
        replace_section(DOCS / "performance.md", "growth", text)
        draw(results, DOCS / "images" / "growth.svg")
    return 0


if __name__ == "__main__":
    sys.exit(main())
