"""The tables, as Markdown that can also be read in a terminal."""

from __future__ import annotations

import datetime as dt
import os
import platform
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from . import inputs, peers
from .measure import SCHEMES, Cell, Results, percentile

NOTHING = "-"
TO = "\N{EN DASH}"
"""Between the least and the greatest."""
SOURCE = "EventSource"
FACES = (SOURCE, "EventStream")
"""The two faces that the bars of the whole client are for: one handler, and iteration."""
OTHERS = ("EventStream", "EventStream.messages()", "async for messages()", "SSEClient")
"""The APIs that are also held against `EventSource`."""
PARSERS = ("EventStreamParser", "EventStreamParser (comments)")

Lines = list[str]


# --- Numbers, prose and tables ---


def number(value: float) -> str:
    """Format with at least three significant digits."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def ratio(values: Sequence[float]) -> str:
    """Format ratios by round: their median, and the range they lie in."""
    middle = f"{statistics.median(values):.2f}"
    return middle if len(values) == 1 else f"{middle} ({min(values):.2f}{TO}{max(values):.2f})"


def of_rounds(rounds: int) -> str:
    """Say what `statistics.median` is of so many rounds: of two, it is their mean."""
    if rounds >= 3:
        return "the median of the rounds"
    return "the mean of both rounds" if rounds == 2 else "that of the only round"


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
    return [value for value in _by_round(ours, theirs) if value is not None]


def _by_round(ours: Cell | None, theirs: Cell | None) -> list[float | None]:
    """Return ours by theirs, of each round, or None; nothing if there is a problem."""
    if ours is None or theirs is None or ours.problem or theirs.problem:
        return []
    mine, its = list(ours.values), list(theirs.values)
    if theirs.once:
        its += its[-1:] * (len(mine) - len(its))
    pairs = zip(mine, its, strict=False)
    return [None if a is None or b is None else a / b for a, b in pairs]


def is_ceiling(peer: peers.Peer) -> bool:
    """Whether the row is no client, only what none can exceed."""
    return peer.kind == "raw"


def _label(peer: peers.Peer) -> str:
    return f"**{peer.name}**" if peer.ours else peer.name


def _competes(peer: peers.Peer) -> bool:
    return not (peer.ours or is_ceiling(peer))


def _rows(results: Results, names: Iterable[str]) -> list[peers.Peer]:
    known = set(names)
    return [peer for peer in results.settings.rows if peer.name in known]


def _framing(framing: str) -> str:
    return inputs.FRAMINGS[framing].partition(" (")[0]


def _framed(results: Results, scheme: str, framing: str) -> dict[str, dict[str, Cell]]:
    """The cells of one framing, by input and peer."""
    return {
        name: cells for (*its, name), cells in results.client.items() if its == [scheme, framing]
    }


def _where(scheme: str, framing: str, name: str = "") -> str:
    """Name a place in the tables."""
    words = ["TLS" if scheme == "https" else "", _framing(framing), inputs.TITLES.get(name, "")]
    return ", ".join(filter(None, words))


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
        if not _competes(peer):
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
            per second. `EventStreamParser (comments)` makes an object of each comment, too, as
            launchdarkly-eventsource does; the other peers' parsers drop them.
        """),
        *_rates(results, results.parser),
        *_notes(results.parser),
        *prose(f"""
            How many times as fast as the peer, by the ratio within each round:
            {of_rounds(results.settings.rounds)} (least{TO}greatest).
        """),
        *(line for face in PARSERS for line in _ratio_table(results, results.parser, face)),
    ]


def client_section(results: Results) -> Lines:
    """Tables (b)."""
    if not any(scheme == "http" for scheme, _, _ in results.client):
        return []
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
    return [*lines, *_client_tables(results, "http")]


def tls_section(results: Results) -> Lines:
    """The same over TLS."""
    if not any(scheme == "https" for scheme, _, _ in results.client):
        return []
    lines = [
        *("## Whole client over TLS", ""),
        *prose("""
            As above, with the peers that come near there. The handshake is counted, and the
            reading of certificates where a client does so for each stream; but what they trust
            here is one certificate, not the hundred and more of a usual program (how long
            those take stands under *Start*). The server hands over the whole body at once, so a
            TLS record holds 16 KiB, whatever the HTTP chunks in it.
        """),
    ]
    return [*lines, *_client_tables(results, "https")]


def _client_tables(results: Results, scheme: str) -> Lines:
    lines = []
    for framing, title in inputs.FRAMINGS.items():
        columns = _framed(results, scheme, framing)
        if columns:
            shown = f"TLS, {title}" if scheme == "https" else f"{title[0].upper()}{title[1:]}"
            lines += [f"### {shown}", "", *_rates(results, columns), *_notes(columns)]
            lines += [line for face in FACES for line in _ratio_table(results, columns, face)]
    return lines


# --- (c), (d), (e) ---


def latency_section(results: Results) -> Lines:
    """Table (c)."""
    lines = [
        *("## Latency", ""),
        *prose(f"""
            From the server's send to the client's handler: {results.settings.paced} events of
            200 bytes, one each millisecond, in each round. The median and the 99th percentile
            are taken of the events of a round, and shown is {of_rounds(results.settings.rounds)}.
            Clients that are late on an un-chunked body wait until a buffer of theirs is full.
            Over TLS each event is a record.
        """),
    ]
    for scheme, title in SCHEMES.items():
        columns = {
            framing: found for (its, framing), found in results.latency.items() if its == scheme
        }
        if not columns:
            continue
        head = [title]
        for framing in columns:
            head += [f"{_framing(framing)}: median, µs", "99th percentile, µs"]
        rows = []
        for peer in _rows(results, next(iter(columns.values()))):
            found = [latencies[peer.name] for latencies in columns.values()]
            cells = [cell for latency in found for cell in (latency.median, latency.p99)]
            rows.append([_label(peer), *map(_value, cells)])
        lines += table(head, rows)
    return lines


def _value(cell: Cell | None) -> str:
    if cell is None or cell.median is None:
        return str((cell and cell.problem) or NOTHING)
    return number(cell.median)


def memory_section(results: Results) -> Lines:
    """Table (d)."""
    settings = results.settings
    head = [""]
    for scheme in results.memory:
        head += [f"{SCHEMES[scheme]}: kB per stream", "threads per stream"]
    rows = []
    for peer in _rows(results, next(iter(results.memory.values()))):
        row = [_label(peer)]
        for cells in results.memory.values():
            idle = cells[peer.name]
            if idle.problem is not None:
                row += [str(idle.problem), NOTHING]
            else:
                row += [number(idle.size / 1000), f"{idle.threads:.2f}"]
        rows.append(row)
    return [
        *("## Idle streams", ""),
        *prose(f"""
            What {settings.streams:,} open, silent streams add to the resident memory of a fresh
            process, by stream (kB: 1,000 bytes). Over TLS the other packages have
            {settings.tls_streams:,} each, for most of them read all certificates for each
            stream, and that takes its time. A client
            that blocks has a thread for each, its own or the benchmark's; the others have one
            for all. `EventSource (event_timeout and localhost)` has a time limit for messages, and
            its URL a name in place of an address. httpx and httpx2 share one client among all
            streams, and aiohttp-sse-client2 one TLS context, as their documentation advises;
            with the others each stream has its own. What they trust are certifi's certificates
            and one more.
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


def start_section(results: Results) -> Lines:
    """How long until it begins."""
    settings = results.settings
    rows = []
    for peer in _rows(results, results.start):
        cell = results.start[peer.name]
        beside = f"after {peer.library}" if peer.library is not None else ""
        numbers = [_value(found) for found in (cell.whole, cell.alone)]
        begins = [_value(cell.begins.get(scheme)) for scheme in SCHEMES]
        rows.append([_label(peer), beside, *numbers, *begins])
    times = settings.rounds * settings.imports
    head = ["", "", "`import`, ms", "alone, ms"]
    head += [f"to the request, {title}, ms" for title in SCHEMES.values()]
    return [
        *("## Start", ""),
        *prose(f"""
            `import`: in {times} fresh processes, with the HTTP library that such a program has
            imported anyway; alone: after that library. To the request: in a warm process,
            from just before the constructor until the server has read the whole request, in
            {settings.rounds * settings.begins} streams one after the other. Over TLS what
            is trusted is certifi's certificates and one more. httpx-sse and httpx2 have a
            client object, and aiohttp-sse-client2 a TLS context, made beforehand. The median is
            taken within a round, and shown is {of_rounds(settings.rounds)}. (sseclient's import
            name is taken by sseclient-py here.)
        """),
        *table(head, rows, left=2),
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


def required_lead(framing: str, name: str) -> float:
    """Return how many times as fast as the best Python peer the whole client has to be."""
    if framing == "event":
        return {"llm": 2.7, "ticks": 3.5}.get(name, 1.6)
    return 1.5 if framing == "16k" else 1.6


def _best(
    results: Results,
    cells: Mapping[str, Cell],
    choose: Callable[..., str],
    *,
    makes_comments: bool = False,
) -> str | None:
    """Return the Python peer with the best median; if asked, of those that make comments."""
    medians = {
        peer.name: median
        for peer in _rows(results, cells)
        if _competes(peer)
        and peer.kind != "node"
        and peer.makes_comments >= makes_comments
        and (median := cells[peer.name].median) is not None
    }
    return choose(medians, key=medians.__getitem__) if medians else None


def _compare(
    what: str,
    cells: Mapping[str, Cell],
    peer: str | None,
    enough: tuple[str, float],
    faces: Sequence[str] = FACES,
) -> list[Check]:
    """Check the ratio of each face to `peer`; nothing where no peer has a number.

    A face of ours that has a problem in place of a number has not reached the bar.
    """
    sign, limit = enough
    found = {}
    for face in faces if peer is not None else ():
        values = ratios(cells.get(face), cells.get(peer or ""))
        if (cell := cells.get(face)) is not None and cell.problem is not None:
            found[face] = str(cell.problem), False
        elif values:
            middle = statistics.median(values)
            met = middle <= limit if sign == "≤" else middle >= limit
            found[face] = ratio(values), met
    return [Check(f"{what} / {peer}", f"{sign} {limit:g}", found)] if found else []


def _lines_of_clients(results: Results) -> Iterator[Line]:
    """The bars of the whole client, plain and over TLS."""
    for scheme, title in SCHEMES.items():
        places = {
            (framing, name): cells
            for (its, framing, name), cells in results.client.items()
            if its == scheme
        }
        best = {place: _best(results, cells, max) for place, cells in places.items()}
        yield Line(
            f"whole client, {title}: against the best Python peer 2.7 times on LLM tokens and 3.5 "
            "on ticks, one chunk per event; 1.5 in 16 KiB chunks; 1.6 in every other row",
            FACES,
            [
                check
                for place, cells in places.items()
                for check in _compare(
                    _where(scheme, *place), cells, best[place], ("≥", required_lead(*place))
                )
            ],
        )
        yield Line(
            f"every API against EventSource, {title}: at least 0.8 times",
            OTHERS,
            [
                check
                for place, cells in places.items()
                for check in _compare(_where(scheme, *place), cells, SOURCE, ("≥", 0.8), OTHERS)
            ],
        )
        yield Line(
            f"every API against the Python peers, {title}: at least 1.5 times (EventStream: above)",
            OTHERS[1:],
            [
                check
                for place, cells in places.items()
                for check in _compare(
                    _where(scheme, *place), cells, best[place], ("≥", 1.5), OTHERS[1:]
                )
            ],
        )


def _line_of_tls(results: Results) -> Line:
    """The bar of TLS: our lead there, by our lead over the same peer without TLS.

    Both leads vary between rounds, so only a quotient below 1 in every round counts as a loss.
    """
    line = Line(
        "lead over TLS: as far ahead of the best Python peer as of the same peer without TLS; "
        "not met where the ratio of the two is below 1 in every round",
        (SOURCE, *OTHERS),
        [],
    )
    for (scheme, framing, name), cells in results.client.items():
        plain = results.client.get(("http", framing, name))
        peer = _best(results, cells, max)
        if scheme != "https" or plain is None or peer is None:
            continue
        faces = {}
        for api in line.faces:
            over = _by_round(cells.get(api), cells[peer])
            without = _by_round(plain.get(api), plain.get(peer))
            leads = [
                a / b
                for a, b in zip(over, without, strict=False)
                if a is not None and b is not None
            ]
            if (cell := cells.get(api)) is not None and cell.problem is not None:
                faces[api] = str(cell.problem), False
            elif leads:
                faces[api] = ratio(leads), max(leads) >= 1
        if faces:
            what = f"{_where(scheme, framing, name)} / {peer}, by the same without TLS"
            line.checks.append(Check(what, "≥ 1", faces))
    return line


def _line_of_parsers(results: Results) -> Line:
    return Line(
        "parser alone: 1.5 times the fastest Python parser; with comments, of those that make them",
        PARSERS,
        [
            check
            for name, cells in results.parser.items()
            for parser in PARSERS
            for check in _compare(
                f"parser, {inputs.TITLES[name]}",
                cells,
                _best(results, cells, max, makes_comments=parser.endswith("(comments)")),
                ("≥", 1.5),
                (parser,),
            )
        ],
    )


def _latencies(results: Results) -> Iterator[tuple[str, float, dict[str, Cell]]]:
    """Each column of the tables of latency: its name, the bar, and its cells by peer."""
    for place, latencies in results.latency.items():
        for attribute, title, limit in (("median", "median", 1.0), ("p99", "99th percentile", 1.1)):
            cells = {name: getattr(latency, attribute) for name, latency in latencies.items()}
            yield f"latency, {_where(*place)}, {title}", limit, cells


def _line_of_latency(results: Results) -> Line:
    return Line(
        "latency: the median at most 1.0 times, the 99th percentile at most 1.1 times the best "
        "Python peer's",
        FACES,
        [
            check
            for what, limit, cells in _latencies(results)
            for check in _compare(what, cells, _best(results, cells, min), ("≤", limit))
        ],
    )


def _line_of_memory(results: Results) -> Line:
    """The bar of an idle stream: the row with a time limit and a name counts, too."""
    line = Line("idle source: at most 48 kB and one thread", FACES[:1], [])
    for name, idle in results.memory.get("http", {}).items():
        if name.startswith(SOURCE) and idle.problem is None:
            size, threads = f"{number(idle.size / 1000)} kB", f"{idle.threads:.2f}"
            line.checks += [
                Check(f"idle, {name}", "≤ 48 kB", {SOURCE: (size, idle.size <= 48_000)}),
                Check(f"idle, {name}", "1 thread", {SOURCE: (threads, idle.threads <= 1)}),
            ]
    return line


def _line_of_closing(results: Results) -> Line:
    faces = {}
    for face in FACES:
        cell = results.closing.get(face)
        if cell is not None and cell.seconds:
            value = percentile(cell.seconds, 99) * 1000
            faces[face] = f"{number(value)} ms", value < 10 and not cell.late
    title = "`close()` to thread end: under 10 ms at the 99th percentile"
    checks = [Check("`close()`, 99th percentile", "< 10 ms", faces)] if faces else []
    return Line(title, FACES, checks)


def _line_of_start(results: Results) -> Line:
    line = Line("import: at most 10 ms beside requests", FACES[:1], [])
    cell = results.start.get(SOURCE)
    if cell is not None and cell.alone.median is not None:
        value = cell.alone.median
        line.checks.append(
            Check(
                "import, after requests", "≤ 10 ms", {SOURCE: (f"{number(value)} ms", value <= 10)}
            )
        )
    return line


def _bar(results: Results) -> list[Line]:
    return [
        _line_of_latency(results),
        *_lines_of_clients(results),
        _line_of_tls(results),
        _line_of_parsers(results),
        _line_of_memory(results),
        _line_of_closing(results),
        _line_of_start(results),
    ]


def unmet_section(bar: Sequence[Line]) -> Lines:
    """What the package set itself and has not reached, number by number."""
    rows = []
    for check in (check for line in bar for check in line.checks):
        missed = [f"{face} {text}" for face, (text, met) in check.faces.items() if not met]
        if missed:
            rows.append([check.what, check.required, ", ".join(missed)])
    lines = ["## Bars not met", ""]
    if not any(line.checks for line in bar):
        return [*lines, "None was measured.", ""]
    if not rows:
        return [*lines, "None of those that were measured.", ""]
    lines += prose("What this package set out to reach, and has not. All of it is in *The bar*.")
    return [*lines, *table(["", "required", "measured"], rows)]


def losses_section(results: Results) -> Lines:
    """Where a peer does better than we do, Node included: every table, every API."""
    lines = [
        *("## Where others are faster", ""),
        *prose(f"""
            Every place in the tables where a peer, in Python or not, does better than one of
            this package's APIs. The ratio is taken within each round, and shown is
            {of_rounds(results.settings.rounds)} (least{TO}greatest). (Not here: clients for an
            event loop have no thread for each stream.) Empty: not there.
        """),
    ]
    found = [
        *_losses(
            "events per second, ours by theirs",
            ((f"parser, {inputs.TITLES[name]}", cells) for name, cells in results.parser.items()),
            PARSERS,
            results,
            more=True,
        ),
        *_losses(
            "events per second, ours by theirs",
            ((_where(*place), cells) for place, cells in results.client.items()),
            (SOURCE, *OTHERS),
            results,
            more=True,
        ),
        *_losses("less is better, ours by theirs", _less(results), (SOURCE, *OTHERS), results),
    ]
    return [*lines, *(found or ["Nowhere in the tables below.", ""])]


def _less(results: Results) -> Iterator[tuple[str, dict[str, Cell]]]:
    """All columns in which less is better."""
    for what, _, latency in _latencies(results):
        yield what, latency
    for scheme, idles in results.memory.items():
        yield (
            f"idle, {SCHEMES[scheme]}, memory",
            {name: Cell([max(1.0, idle.size)], idle.problem) for name, idle in idles.items()},
        )
    if results.closing:
        yield (
            "`close()`, median",
            {
                name: Cell([statistics.median(cell.seconds)] if cell.seconds else [], cell.problem)
                for name, cell in results.closing.items()
            },
        )
    if results.start:
        yield "import, alone", {name: cell.alone for name, cell in results.start.items()}
    for scheme, title in SCHEMES.items():
        begins = {
            name: cell.begins[scheme]
            for name, cell in results.start.items()
            if scheme in cell.begins
        }
        if begins:
            yield f"to the request, {title}", begins


def _losses(
    head: str,
    places: Iterable[tuple[str, Mapping[str, Cell]]],
    faces: Sequence[str],
    results: Results,
    *,
    more: bool = False,
) -> Lines:
    """Return a table of what peers do better; nothing if there is no such thing.

    Args:
        head: above the places.
        places: columns of other tables, by their names.
        faces: our rows in them.
        results: everything measured.
        more: whether more is better, or less.
    """
    rows = []
    for where, cells in places:
        for peer in filter(_competes, _rows(results, cells)):
            lost = []
            for face in faces:
                values = ratios(cells.get(face), cells[peer.name])
                middle = statistics.median(values) if values else 1.0
                lost.append(ratio(values) if (middle < 1 if more else middle > 1) else "")
            if any(lost):
                rows.append([f"{where} / {peer.name}", *lost])
    return table([head, *faces], rows) if rows else []


def bar_section(bar: Sequence[Line], rounds: int) -> Lines:
    """The bar that the package set itself, and where it stands."""
    lines = [
        *("## The bar", ""),
        *prose(f"""
            What this package set out to reach. Ratios are ours by the peer's within each round,
            and shown is {of_rounds(rounds)} (least{TO}greatest). The fastest or best peer is so by
            the number in its table. A number that is not enough is bold.
        """),
        *table(["", "verdict"], [[line.title, line.verdict] for line in bar], left=2),
    ]
    for line in bar:
        rows = []
        for check in line.checks:
            cells = [check.faces.get(face, (NOTHING, True)) for face in line.faces]
            shown = [text if met else f"**{text}**" for text, met in cells]
            rows.append([check.what, check.required, *shown])
        if rows:
            lines += [f"### Bar: {line.title.partition(':')[0]}", ""]
            lines += table(["", "required", *line.faces], rows)
    return lines


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


def document(
    results: Results, about: Mapping[str, str], missing: Sequence[str], command: str
) -> str:
    """Return the whole of it.

    Args:
        results: everything measured.
        about: the machine and the versions.
        missing: which peers were not measured, and why.
        command: the command that has measured it.
    """
    settings = results.settings
    bar = _bar(results)
    lines = [
        *(f"# Benchmarks on Python {'.'.join(platform.python_version_tuple()[:2])}", ""),
        *prose(f"""
            Made by `{command}` in a clone of this repository, after
            `python -m pip install -e '.[bench]'`. Not to be edited.
        """),
    ]
    if settings.quick:
        lines += prose("**A quick run: it shows that everything works. Its numbers mean little.**")
    lines += [*unmet_section(bar), *losses_section(results)]
    lines += [*("## How it was measured", "")]
    lines += prose(f"""
        All clients in one run. In each round (of {settings.rounds}) every client is measured
        once, in changing order; a number is {of_rounds(settings.rounds)}. Each client has a
        process of its own, and so has the server. A measurement of throughput takes about
        {settings.duration:g} s (a fast client gets more to read than a slow one). `wrong`: the
        client got other events than were sent, and has no number; `> {settings.limit:.0f} s`:
        it was stopped then.
    """)
    lines += table(["", ""], about.items(), left=2)
    if missing:
        lines += ["Not measured:", "", *(f"- {text}" for text in missing), ""]
    lines += bar_section(bar, settings.rounds)
    for measured, section in (
        (results.parser, parser_section),
        (results.client, client_section),
        (results.client, tls_section),
        (results.latency, latency_section),
        (results.memory, memory_section),
        (results.closing, close_section),
        (results.start, start_section),
    ):
        if measured:
            lines += section(results)
    if results.parser or results.client:
        lines += input_section(settings.names)
    return "\n".join(lines).rstrip() + "\n"
