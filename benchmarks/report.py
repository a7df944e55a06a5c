"""The tables, as Markdown that can also be read in a terminal."""

from __future__ import annotations

import datetime as dt
import os
import platform
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from . import inputs, peers
from .measure import Cell, Results, percentile

NOTHING = "-"
TO = "\N{EN DASH}"
"""Between the least and the greatest."""
FACES = ("EventSource", "EventStream")
"""The two faces that the bar is for: one handler, and iteration."""
PARSER = "EventStreamParser"

Lines = list[str]


# --- Numbers, prose and tables ---


def number(value: float) -> str:
    """Format with at least three significant digits."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def ratio(values: Sequence[float]) -> str:
    """Format ratios by round: their median, and the range they lie in."""
    middle = f"{statistics.median(values):.2f}"
    return middle if len(values) == 1 else f"{middle} ({min(values):.2f}{TO}{max(values):.2f})"


def prose(text: str) -> Lines:
    """Return a paragraph."""
    return [" ".join(text.split()), ""]


def table(head: Sequence[str], rows: Iterable[Sequence[str]], *, left: int = 1) -> Lines:
    """Return a table, its first `left` columns left-aligned and the others right."""
    lines = [list(head), *map(list, rows)]
    widths = [max(3, *(len(line[column]) for line in lines)) for column in range(len(head))]

    def join(line: Sequence[str]) -> str:
        cells = [
            cell.ljust(width) if column < left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        return f"| {' | '.join(cells)} |"

    rule = ["-" * width if i < left else "-" * (width - 1) + ":" for i, width in enumerate(widths)]
    return [join(lines[0]), join(rule), *map(join, lines[1:]), ""]


def ratios(ours: Cell | None, theirs: Cell | None) -> list[float]:
    """Return ours by theirs, of each round that has both; none if there is a problem."""
    if ours is None or theirs is None or ours.problem or theirs.problem:
        return []
    mine, its = list(ours.values), list(theirs.values)
    if theirs.once:
        its += its[-1:] * (len(mine) - len(its))
    return [a / b for a, b in zip(mine, its, strict=False) if a is not None and b is not None]


def is_ceiling(peer: peers.Peer) -> bool:
    """Whether the row is no client, only what none can exceed."""
    return peer.kind == "raw"


def _label(peer: peers.Peer) -> str:
    return f"**{peer.name}**" if peer.ours else peer.name


def _rows(results: Results, names: Iterable[str]) -> list[peers.Peer]:
    known = set(names)
    return [peer for peer in results.settings.rows if peer.name in known]


def _framing(framing: str) -> str:
    return inputs.FRAMINGS[framing].partition(" (")[0]


def _framed(results: Results, framing: str) -> dict[str, dict[str, Cell]]:
    """The cells of one framing, by input and peer."""
    return {name: cells for (its, name), cells in results.client.items() if its == framing}


# --- (a) and (b): throughput ---


def _rate(cell: Cell | None, scale: str) -> str:
    if cell is None or cell.median is None:
        return str((cell and cell.problem) or NOTHING)
    return number(cell.median / 1000 if scale == "k" else cell.median) + "¹" * cell.once


def _rates(results: Results, columns: Mapping[str, dict[str, Cell]]) -> Lines:
    scales = {name: inputs.unit(name).scale for name in columns}
    units = {"k": "k/s", "MB": "MB/s"}
    rows = [
        [_label(peer), *(_rate(columns[name].get(peer.name), scales[name]) for name in columns)]
        for peer in _rows(results, next(iter(columns.values())))
    ]
    return table(["", *(f"{inputs.TITLES[name]}, {units[scales[name]]}" for name in columns)], rows)


def _ratio_table(results: Results, columns: Mapping[str, dict[str, Cell]], face: str) -> Lines:
    rows = []
    for peer in _rows(results, next(iter(columns.values()))):
        if peer.ours or is_ceiling(peer):
            continue
        row = [f"{face} / {peer.name}"]
        for cells in columns.values():
            theirs = cells[peer.name]
            values = ratios(cells.get(face), theirs)
            row.append(ratio(values) if values else str(theirs.problem or NOTHING))
        rows.append(row)
    return table(["ratio", *(inputs.TITLES[name] for name in columns)], rows)


def _notes(columns: Mapping[str, dict[str, Cell]]) -> Lines:
    """Say why there is no number where there is none."""
    found: dict[tuple[str, str], list[str]] = {}
    for name, cells in columns.items():
        for peer, cell in cells.items():
            if cell.problem is not None and cell.problem.note:
                why = f"{cell.problem}: {cell.problem.note}"
                found.setdefault((peer, why), []).append(inputs.TITLES[name])
    notes = [f"- {peer}, {', '.join(names)}: {why}" for (peer, why), names in found.items()]
    if any(cell.once for cells in columns.values() for cell in cells.values()):
        notes.append("- ¹ so slow that it was measured once.")
    return [*notes, ""] if notes else []


def parser_section(results: Results) -> Lines:
    """Table (a)."""
    return [
        *("## Parser alone", ""),
        *prose("""
            From chunks of 64 KiB to event objects, without any network. Thousands of blocks
            per second (a block is an event or, of heartbeats, mostly a comment) or megabytes
            per second.
        """),
        *_rates(results, results.parser),
        *_notes(results.parser),
        *prose(f"""
            How many times as fast as the peer: the median of the rounds' ratios
            (least{TO}greatest).
        """),
        *_ratio_table(results, results.parser, PARSER),
    ]


def client_section(results: Results) -> Lines:
    """Tables (b)."""
    lines = [
        *("## Whole client over loopback", ""),
        *prose("""
            From just before connecting until the last event has been handled: counted, and
            the length of its data added up. Units and ratios as above. `raw socket` reads the
            same bytes from the same server and looks at none of them: the ceiling. httpx-sse and
            httpx2 get a client object made beforehand, as their documentation advises; what the
            others make for a stream is counted.
        """),
    ]
    for framing, title in inputs.FRAMINGS.items():
        columns = _framed(results, framing)
        lines += [f"### {title[0].upper()}{title[1:]}", ""]
        lines += [*_rates(results, columns), *_notes(columns)]
        for face in FACES:
            lines += _ratio_table(results, columns, face)
    return lines


# --- (c), (d), (e) ---


def latency_section(results: Results) -> Lines:
    """Table (c)."""
    head = [""]
    for framing in results.latency:
        head += [f"{_framing(framing)}: median, µs", "99th percentile, µs"]
    rows = []
    for peer in _rows(results, next(iter(results.latency.values()))):
        found = [latencies[peer.name] for latencies in results.latency.values()]
        cells = [cell for latency in found for cell in (latency.median, latency.p99)]
        rows.append([_label(peer), *map(_microseconds, cells)])
    return [
        *("## Latency", ""),
        *prose(f"""
            From the server's send to the client's handler: {results.settings.paced} events of
            200 bytes, one each millisecond, in each round; medians of the rounds. Clients that
            are late on an un-chunked body wait until a buffer of theirs is full.
        """),
        *table(head, rows),
    ]


def _microseconds(cell: Cell) -> str:
    return str(cell.problem or NOTHING) if cell.median is None else number(cell.median)


def memory_section(results: Results) -> Lines:
    """Table (d)."""
    titles = {"http": "plain", "https": "TLS"}
    head = [""]
    for scheme in results.memory:
        head += [f"{titles[scheme]}: KiB per stream", "threads per stream"]
    rows = []
    for peer in _rows(results, next(iter(results.memory.values()))):
        row = [_label(peer)]
        for cells in results.memory.values():
            idle = cells[peer.name]
            if idle.problem is not None:
                row += [str(idle.problem), NOTHING]
            else:
                row += [number(idle.size / 1024), f"{idle.threads:.2f}"]
        rows.append(row)
    return [
        *("## Idle streams", ""),
        *prose(f"""
            What {results.settings.streams:,} (over TLS {results.settings.tls_streams:,}) open,
            silent streams add to the resident memory of a fresh process, by stream. A client
            that blocks has a thread for each, its own or the benchmark's; the others have one
            for all. httpx and httpx2 share one client among all streams, and
            aiohttp-sse-client2 one TLS context, as their documentation advises; with the others
            each stream has its own. What they trust are certifi's certificates and one more.
        """),
        *table(head, rows),
    ]


def close_section(results: Results) -> Lines:
    """Table (e)."""
    patience = results.settings.patience
    rows = []
    for peer in _rows(results, results.closing):
        cell = results.closing[peer.name]
        times = len(cell.seconds) + cell.late
        if cell.problem is not None or cell.late:
            late = f"not within {patience:g} s: {cell.late} of {times}"
            rows.append([_label(peer), str(cell.problem or late), NOTHING, NOTHING, str(times)])
            continue
        values = [seconds * 1000 for seconds in cell.seconds]
        numbers = (statistics.median(values), percentile(values, 99), max(values))
        rows.append([_label(peer), *map(number, numbers), f"{times:,}"])
    return [
        *("## Closing a silent stream", ""),
        *prose("""
            From `close()`, called in another thread after one event, to the end of the thread
            that reads (of aiohttp-sse-client2: of the task). It is what each client offers:
            `close()`, leaving its `with` block, or closing the response. One that is late three
            times is not tried again.
        """),
        *table(["", "median, ms", "99th percentile, ms", "maximum, ms", "times"], rows),
    ]


# --- The bar ---


@dataclass
class Check:
    """One number that the bar asks for, of each face."""

    what: str
    required: str
    faces: dict[str, tuple[str, bool]]  # what was measured, and whether it is enough


@dataclass
class Line:
    """One line of the bar."""

    title: str
    faces: Sequence[str]
    checks: list[Check]

    @property
    def verdict(self) -> str:
        """Whether it is met: when all its checks are."""
        outcomes = [met for check in self.checks for _, met in check.faces.values()]
        if not outcomes:
            return "not measured"
        failed = outcomes.count(False)
        return f"**not met**: {failed} of {len(outcomes)}" if failed else "met"


def _best(results: Results, cells: dict[str, Cell], choose: Callable[..., str]) -> str | None:
    """Return the Python peer with the best median."""
    medians = {
        peer.name: median
        for peer in _rows(results, cells)
        if not (peer.ours or peer.kind == "node" or is_ceiling(peer))
        if (median := cells[peer.name].median) is not None
    }
    return choose(medians, key=medians.__getitem__) if medians else None


def _compare(
    what: str,
    cells: dict[str, Cell],
    peer: str | None,
    enough: tuple[str, float],
    faces: Sequence[str] = FACES,
) -> list[Check]:
    """Check the ratio of each face to `peer`; nothing where one of them has no number."""
    sign, limit = enough
    found = {}
    for face in faces:
        values = ratios(cells.get(face), cells.get(peer or ""))
        if values:
            middle = statistics.median(values)
            met = middle <= limit if sign == "≤" else middle >= limit
            found[face] = ratio(values), met
    return [Check(f"{what} / {peer}", f"{sign} {limit:g}", found)] if found else []


def _bar(results: Results) -> list[Line]:
    chunks = _framed(results, "event")
    against = {"launchdarkly-eventsource": 2.5, "httpx-sse": 5.0, "requests-sse": 5.0}
    lines = [
        Line(
            "whole client, one chunk per event: 2.5 times launchdarkly-eventsource, 5 times "
            "httpx-sse and requests-sse",
            FACES,
            [
                check
                for name in ("llm", "ticks")
                for peer, least in against.items()
                for check in _compare(inputs.TITLES[name], chunks.get(name, {}), peer, ("≥", least))
            ],
        ),
        Line(
            "whole client, 16 KiB chunks and un-chunked: 1.5 times the fastest Python peer",
            FACES,
            [
                check
                for framing in ("16k", "plain")
                for name, cells in _framed(results, framing).items()
                for check in _compare(
                    f"{_framing(framing)}, {inputs.TITLES[name]}",
                    cells,
                    _best(results, cells, max),
                    ("≥", 1.5),
                )
            ],
        ),
        Line(
            "parser alone: as fast as the fastest Python peer, 1.5 times on ticks, LLM tokens "
            "and heartbeats",
            (PARSER,),
            [
                check
                for name, cells in results.parser.items()
                for check in _compare(
                    inputs.TITLES[name],
                    cells,
                    _best(results, cells, max),
                    ("≥", 1.5 if name in ("ticks", "llm", "heartbeats") else 1.0),
                    (PARSER,),
                )
            ],
        ),
        Line("latency: no worse than the best Python peer", FACES, []),
        Line("`close()` to thread end: under 10 ms at the 99th percentile", FACES, []),
    ]
    for framing, latencies in results.latency.items():
        for attribute, title in (("median", "median"), ("p99", "99th percentile")):
            cells = {name: getattr(latency, attribute) for name, latency in latencies.items()}
            what = f"latency, {_framing(framing)}, {title}"
            lines[-2].checks.extend(_compare(what, cells, _best(results, cells, min), ("≤", 1.0)))
    closings = {
        face: percentile(cell.seconds, 99) * 1000
        for face in FACES
        if (cell := results.closing.get(face)) is not None and cell.seconds
    }
    if closings:
        met = {
            face: (f"{number(value)} ms", value < 10 and not results.closing[face].late)
            for face, value in closings.items()
        }
        lines[-1].checks.append(Check("`close()`, 99th percentile", "< 10 ms", met))
    return lines


def bar_section(results: Results) -> Lines:
    """The bar that the package set itself, and where it stands."""
    bar = _bar(results)
    lines = [
        *("## The bar", ""),
        *prose(f"""
            What this package set out to reach. Ratios are ours by the peer's within each round:
            their median (least{TO}greatest); the fastest or best peer is so by its median. A
            number that is not enough is bold.
        """),
        *table(["", "verdict"], [[line.title, line.verdict] for line in bar], left=2),
    ]
    for faces in (FACES, (PARSER,)):
        rows = []
        for check in (check for line in bar if line.faces == faces for check in line.checks):
            cells = [check.faces.get(face, (NOTHING, True)) for face in faces]
            shown = [text if met else f"**{text}**" for text, met in cells]
            rows.append([check.what, check.required, *shown])
        if rows:
            lines += table(["", "required", *faces], rows)
    return lines


def losses_section(results: Results) -> Lines:
    """Where a peer is faster than we are: the tables of throughput, Node included."""
    places = [("parser", PARSER, results.parser)]
    places += [
        (_framing(framing), face, _framed(results, framing))
        for face in FACES
        for framing in inputs.FRAMINGS
    ]
    found = []
    for where, face, columns in places:
        for name, cells in columns.items():
            faster = []
            for peer in _rows(results, cells):
                values = ratios(cells.get(face), cells[peer.name])
                if values and statistics.median(values) < 1 and not (peer.ours or is_ceiling(peer)):
                    faster.append(f"{ratio(values)} of {peer.name}")
            if faster:
                found.append(f"- {face}, {where}, {inputs.TITLES[name]}: {', '.join(faster)}")
    if not results.parser and not results.client:
        return []
    return [
        *("## Where others are faster", ""),
        *(found or ["Nowhere in the tables of throughput."]),
        "",
    ]


# --- The document ---


def machine() -> dict[str, str]:
    """Say what a reader needs to know of the machine and the Python packages."""
    packages = [peer.package for peer in peers.ALL if peer.kind not in ("node", "raw")]
    versions = {name: peers.version(name) for name in (*packages, *peers.UNDERNEATH)}
    return {
        "date": dt.datetime.now(tz=dt.UTC).date().isoformat(),
        "processor": f"{_processor()}, {len(os.sched_getaffinity(0))} cores",
        "system": f"{platform.system()} {platform.release().partition('-')[0]}",
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
        **{name: version for name, version in versions.items() if version is not None},
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def input_section(names: Iterable[str]) -> Lines:
    """What the inputs are."""
    rows = []
    for name in names:
        unit = inputs.unit(name)
        size = sum(map(len, unit.blocks)) / len(unit.blocks)
        events = len(unit.blocks) // unit.events
        begins = unit.blocks[0][:56].decode("ascii", "replace").replace("\r", "\\r")
        begins = begins.replace("\n", "\\n").replace("|", "\\|")
        rows.append([inputs.TITLES[name], f"`{begins}`", f"{size:,.0f}", f"1 in {events}"])
    head = ["", "begins", "bytes per block", "events"]
    return ["## Inputs", "", *table(head, rows, left=2)]


def document(results: Results, about: Mapping[str, str], missing: Sequence[str]) -> str:
    """Return the whole of it."""
    settings = results.settings
    lines = [
        *("# Benchmarks", ""),
        *prose("""
            Made by `python -m benchmarks` in a clone of this repository, after
            `python -m pip install -e '.[bench]'`. Not to be edited.
        """),
    ]
    if settings.quick:
        lines += prose("**A quick run: it shows that everything works. Its numbers mean little.**")
    lines += prose(f"""
        All clients in one run. In each round (of {settings.rounds}) every client is measured
        once, in changing order; numbers are medians of the rounds. Each client has a process of
        its own, and so has the server. A measurement of throughput takes about
        {settings.duration:g} s (a fast client gets more to read than a slow one). `wrong`: the
        client got other events than were sent, and has no number; `> {settings.limit:.0f} s`:
        it was stopped then.
    """)
    lines += table(["", ""], about.items(), left=2)
    if missing:
        lines += ["Not measured:", "", *(f"- {text}" for text in missing), ""]
    lines += [*bar_section(results), *losses_section(results)]
    for measured, section in (
        (results.parser, parser_section),
        (results.client, client_section),
        (results.latency, latency_section),
        (results.memory, memory_section),
        (results.closing, close_section),
    ):
        if measured:
            lines += section(results)
    if results.parser or results.client:
        lines += input_section(settings.names)
    return "\n".join(lines).rstrip() + "\n"
