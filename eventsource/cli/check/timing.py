"""Findings on the times at which something came: pure functions over an observation.

The invariant: nothing is called a problem that the network alone can cause. A read ends where
TCP, a TLS record or our own limit of 64 KiB happens to end, so its size alone proves nothing;
and a server may send several events at once, or one in parts. So the end of a read within a line
counts only after whole events in the same burst, and before a silence.
"""

from __future__ import annotations

import itertools
import statistics
from collections import Counter
from collections.abc import Iterator
from typing import Final, NamedTuple

from .finding import NOTE, OK, PROBLEM, Finding, seconds, several, shown
from .observing import Connection, Observation, Seen

SILENCE: Final = 0.25
"""Seconds without a byte that end a burst."""
BLOCK: Final = 1024
"""Bytes. The sizes of buffers are multiples of it."""
RECORD: Final = 16384
"""Bytes of a full TLS record, which can be read only when all of it has come: on a slow network,
after a silence. So over TLS a read of about that size (less its framing) proves nothing."""
FRAMING: Final = 164
"""Bytes of a record that may be framing."""
LIKE: Final = 0.02
"""Sizes count as equal if they differ by at most this share."""
WHOLE_EVENTS: Final = 2
"""Events that a burst must have before its end within a line is a problem. A server that flushes
one event in parts, or sends a large event, has fewer."""
WAIT: Final = 1.0
"""Seconds of silence; after that, several events at once are a note."""
AT_ONCE: Final = 3
"""How many events are several."""
PARALLEL: Final = 0.5
"""The time stamps of events must be spread over at least this share of the silence before them."""
CLOCKS: Final = 86400.0
"""Seconds. A time stamp that differs more from our clock is not the time of the event."""
LONG_WATCH: Final = 30.0
NEARLY: Final = 0.9
"""The share of a watch that counts as nearly all of it."""
LONG_SILENCE: Final = 55.0
"""Seconds: many proxies cut a connection after 60 without a byte."""
ALIKE: Final = (0.5, 0.05)
"""Times count as equal if they differ by at most these seconds, or by at most this share."""
AT_ONCE_SECONDS: Final = 1.0
"""Seconds. A connection that ends sooner has not met a time limit."""
TYPES: Final = 10
"""The most event types that are listed."""


class Burst(NamedTuple):
    """Reads with no silence between them."""

    first_at: float
    last_at: float
    before: float
    """Seconds of silence before it; for the first of a connection, since the request."""
    after: float | None
    """Seconds of silence after it; None: the connection was lost."""
    size: int
    last_size: int
    """Of its last read."""
    open_line: int
    """Bytes of the unfinished line at its end; 0: it ends with a line end."""
    events: list[Seen]


def bursts(connection: Connection) -> list[Burst]:
    """Return the bursts of a connection, in order."""
    found: list[Burst] = []
    events = iter(connection.events)
    last_at = connection.asked_at
    for read in connection.reads:
        came = list(itertools.islice(events, read.events))
        if found and read.at - last_at < SILENCE:
            burst = found[-1]
            burst.events.extend(came)
            found[-1] = burst._replace(
                last_at=read.at,
                size=burst.size + read.size,
                last_size=read.size,
                open_line=read.open_line,
            )
        else:
            if found:
                found[-1] = found[-1]._replace(after=read.at - last_at)
            before = read.at - last_at
            found.append(
                Burst(read.at, read.at, before, None, read.size, read.size, read.open_line, came)
            )
        last_at = read.at
    if found and connection.loss is None:
        found[-1] = found[-1]._replace(after=connection.until - last_at)
    return found


def latency(observation: Observation) -> Finding:
    """How long the first response took."""
    first = observation.connections[0]
    parts = [f"head {seconds(first.opened_at - first.asked_at)}"]
    if first.reads:
        parts.append(f"first byte {seconds(first.reads[0].at - first.asked_at)}")
    if first.events:
        parts.append(f"first event {seconds(first.events[0].at - first.asked_at)}")
    return Finding("latency", OK, "This is how long the first answer took.", ", ".join(parts))


# --- Buffering ---

UNBUFFER: Final = (
    "Have nothing hold events back: 'X-Accel-Buffering: no' from the server, 'proxy_buffering off'"
    " in nginx, a flush after each event in the program."
)


def buffering(observation: Observation) -> Finding:
    """Whether something between server and client holds events back."""
    is_over = all(connection.loss is not None for connection in observation.connections)
    if not observation.reads:
        return Finding(
            "buffering",
            NOTE,
            f"Nothing came within {seconds(observation.watched)}.",
            "0 bytes",
            ""
            if is_over
            else "Watch longer (--seconds): a slow stream behind a buffer looks like that, too.",
        )
    found = [bursts(connection) for connection in observation.connections]
    flat = [burst for each in found for burst in each]
    late = [burst for burst in flat if _is_late(burst, observation)]
    if late:
        burst = late[0]
        stamps = _stamps(burst)
        return Finding(
            "buffering",
            PROBLEM,
            "Events are held back: their own times are spread over the silence before them.",
            f"{several(len(burst.events), 'event')} came at once after {seconds(burst.before)} of"
            f" silence; their times span {seconds(stamps[-1] - stamps[0])}",
            UNBUFFER,
        )
    is_tls = observation.head is not None and observation.head.url.startswith("https:")
    torn = [burst for burst in flat if _is_torn(burst) and not (is_tls and _is_record(burst))]
    cuts = [burst for burst in torn if len(burst.events) >= WHOLE_EVENTS]
    buffered = [burst for burst in cuts if _is_block(burst)] or _like(cuts)
    if buffered:
        sizes = ", ".join(f"{burst.size:,}" for burst in buffered[:3])
        return Finding(
            "buffering",
            PROBLEM,
            "A buffer on the way holds events back until it is full.",
            f"{several(len(buffered), 'time')} the bytes ended inside a line, after {sizes} bytes,"
            f" and {seconds(buffered[0].after or 0.0)} of silence followed",
            UNBUFFER,
        )
    if len(torn) > 1 and (all(_is_block(burst) for burst in torn) or _like(torn)):
        return Finding(
            "buffering",
            NOTE,
            "The events are large: a buffer on the way, or a server that sends them in parts.",
            f"{several(len(torn), 'time')} the bytes ended inside a line, the first time after"
            f" {several(torn[0].size, 'byte')}, and silence followed",
            f"If the server sends each event at once: {UNBUFFER[0].lower()}{UNBUFFER[1:]}",
        )
    if not observation.events:
        return Finding(
            "buffering",
            NOTE,
            f"No event came within {seconds(observation.watched)}.",
            several(sum(read.size for read in observation.reads), "byte"),
            "" if is_over else "Watch longer (--seconds).",
        )
    return _batches(found, len(observation.reads))


def _is_torn(burst: Burst) -> bool:
    """Whether it ends inside a line, and silence follows."""
    return burst.open_line > 0 and burst.after is not None and burst.after >= SILENCE


def _is_record(burst: Burst) -> bool:
    """Whether its last read may be whole TLS records."""
    return -burst.last_size % RECORD <= FRAMING


def _is_block(burst: Burst) -> bool:
    """Whether its size, or that of its last read, is a multiple of `BLOCK`."""
    return burst.size % BLOCK == 0 or burst.last_size % BLOCK == 0


def _like(cuts: list[Burst]) -> list[Burst]:
    """Return cuts after about equal sizes, if these are most, and at different places of a line."""
    for one in cuts:
        like = [other for other in cuts if abs(other.size - one.size) <= LIKE * one.size]
        places = {other.open_line for other in like}
        if len(like) >= 2 and 2 * len(like) > len(cuts) and len(places) > 1:
            return like
    return []


def _stamps(burst: Burst) -> list[float]:
    return [seen.block.stamp for seen in burst.events if seen.block.stamp is not None]


def _is_late(burst: Burst, observation: Observation) -> bool:
    """Whether its events were made during the silence before it, by their time stamps."""
    stamps = _stamps(burst)
    if burst.before < WAIT or len(stamps) < AT_ONCE or len(stamps) < len(burst.events):
        return False
    spread = stamps[-1] - stamps[0]
    is_now = abs(stamps[-1] - observation.began - burst.first_at) < CLOCKS
    span = burst.before + burst.last_at - burst.first_at + WAIT  # time stamps may be whole seconds
    return is_now and stamps == sorted(stamps) and PARALLEL * burst.before <= spread <= span


def _batches(found: list[list[Burst]], reads: int) -> Finding:
    events = sum(len(burst.events) for each in found for burst in each)
    # Without the first burst of each connection: mostly a server sends past events at once.
    later = [burst for each in found for burst in each[1:] if burst.events]
    large = [burst for burst in later if len(burst.events) >= AT_ONCE and burst.before >= WAIT]
    if len(large) >= 2 and 2 * len(large) > len(later):
        size = statistics.median(len(burst.events) for burst in large)
        return Finding(
            "buffering",
            NOTE,
            "Events come several at once. The server may send them so; else something holds them"
            " back.",
            f"{several(len(large), 'time')} about {size:.0f} events after"
            f" {seconds(statistics.median(burst.before for burst in large))} of silence",
            f"If the server makes them one at a time: {UNBUFFER[0].lower()}{UNBUFFER[1:]}",
        )
    if all(len(each) <= 1 for each in found):
        first = next((burst for each in found for burst in each if burst.events), None)
        if first and len(first.events) >= AT_ONCE and first.before >= WAIT and not later:
            return Finding(
                "buffering",
                NOTE,
                "All events came at once, after a wait.",
                f"{several(len(first.events), 'event')} after {seconds(first.before)}",
                f"If the server makes them one at a time: {UNBUFFER[0].lower()}{UNBUFFER[1:]}",
            )
    return Finding(
        "buffering",
        OK,
        "Nothing shows that events are held back.",
        f"{several(events, 'event')} in {several(reads, 'read')}",
    )


def compression(observation: Observation) -> Finding:
    """Whether the body is compressed, and whether events then still come one at a time."""
    head = observation.head
    coding = head.headers.get("Content-Encoding", "").strip() if head else ""
    if observation.unreadable and observation.unreadable[0] == "compression":
        return Finding(
            "compression",
            PROBLEM,
            "The body cannot be decompressed.",
            f"{shown(coding)}: {observation.unreadable[1]}",
            "Leave event streams out of the compression.",
        )
    if coding.lower() in ("", "identity"):
        return Finding("compression", OK, "The body is not compressed.")
    # Without the first read of each connection: mostly a server sends past events at once.
    sizes = [
        read.events for each in observation.connections for read in each.reads[1:] if read.events
    ]
    one = bool(sizes) and 10 * sizes.count(1) >= 9 * len(sizes)  # two may happen to be one read
    if not sizes:
        came = "whether its events come one at a time cannot be told"
    elif one:
        came = "its events still come one at a time"
    else:
        came = f"up to {max(sizes):,} of its events come at once"
    if observation.asked_for_coding:
        return Finding(
            "compression",
            OK if one else NOTE,
            f"The body is compressed as was asked for, and {came}.",
            shown(coding),
        )
    return Finding(
        "compression",
        NOTE,
        f"The body is compressed though that was not asked for; {came}.",
        shown(coding),
        "Leave event streams out of the compression, or flush the compressor after each event.",
    )


# --- Silence, and the end ---


def silences(connection: Connection) -> Iterator[float]:
    """Yield the seconds between reads, from the opening to the end."""
    moments = [connection.opened_at, *(read.at for read in connection.reads), connection.until]
    yield from (after - before for before, after in itertools.pairwise(moments))


def heartbeat(observation: Observation) -> Finding:
    """How long the silences are, and how many comments come."""
    longest = max(max(silences(connection)) for connection in observation.connections)
    comments = sum(connection.reader.comments for connection in observation.connections)
    gaps = [
        after - before
        for connection in observation.connections
        for before, after in itertools.pairwise(connection.comments)
    ]
    evidence = f"longest silence {seconds(longest)}, {several(comments, 'comment')}"
    if gaps:
        evidence += f", one each {seconds(statistics.median(gaps))}"
    if longest >= LONG_SILENCE:
        return Finding(
            "heartbeat",
            NOTE,
            "The stream is silent for so long that many proxies would cut it, at 60 s.",
            evidence,
            "Send a comment (a line with a colon) every 15 to 30 seconds.",
        )
    if observation.watched >= LONG_WATCH and longest >= NEARLY * observation.watched:
        return Finding(
            "heartbeat",
            NOTE,
            "The stream is silent, and many proxies cut it after 60 s of that.",
            evidence,
            "Send a comment (a line with a colon) every 15 to 30 seconds; --seconds 150 shows"
            " whether something cuts it.",
        )
    return Finding("heartbeat", OK, "The silences are short enough.", evidence)


def ended(observation: Observation) -> Finding | None:
    """Whether the stream ended by itself, and how."""
    lost = [(each, each.loss) for each in observation.connections if each.loss is not None]
    if not lost or observation.unreadable:
        return None
    connection, loss = lost[0]
    certain = observation.head is None or observation.head.marks_its_end
    how = "in order" if loss.is_in_order else "cut off"
    if loss.is_in_order and not certain:
        how = "in order or cut off, which this body does not tell"
    evidence = f"after {seconds(connection.lasted)}, {how}"
    if not loss.is_in_order:
        evidence += f": {loss.text}"
    if connection.reader.has_unfinished_event:
        evidence += ", with an unfinished event"
    if len(lost) > 1:
        evidence = f"{several(len(lost), 'time')}; first {evidence}"
    if observation.refused == 204:
        evidence += "; then 204: no more"
    elif observation.refused is not None:
        return Finding(
            "ended",
            PROBLEM,
            "The stream ended, and the next connection was refused.",
            f"{evidence}; then {observation.refused}",
            "Have the server accept a client that comes back; 204 tells it not to.",
        )
    elif observation.failed:
        evidence += f"; then {observation.failed}"
    if observation.is_once:
        if loss.is_in_order:
            return Finding("ended", OK, "The answer ended.", evidence)
        return Finding(
            "ended",
            PROBLEM,
            "The answer was cut off.",
            evidence,
            "Look for a time limit or a crash on the way: proxy, server, platform.",
        )
    same = _same_lifetime([each for each, _ in lost])
    if same:
        return _regular_end(same, observation, evidence)
    return Finding(
        "ended",
        NOTE,
        f"The stream ended by itself{'' if len(lost) == 1 else ' ' + several(len(lost), 'time')}.",
        evidence,
        "" if len(lost) == 1 and loss.is_in_order else "A longer watch tells whether it is a rule.",
    )


def _same_lifetime(lost: list[Connection]) -> list[Connection]:
    """Return the connections that lasted about equally long, if they are two or more, and most."""
    at_least, part = ALIKE
    best: list[Connection] = []
    for one in lost:
        margin = max(at_least, part * one.lasted)
        alike = [other for other in lost if abs(other.lasted - one.lasted) <= margin]
        best = max(best, alike, key=len)
    return best if len(best) >= 2 and 2 * len(best) > len(lost) else []


def _regular_end(same: list[Connection], observation: Observation, evidence: str) -> Finding:
    lasted = seconds(statistics.median(each.lasted for each in same))
    evidence = f"{evidence}; {len(same)} times after about {lasted}"
    contents = {
        tuple((seen.block.type, seen.block.id, seen.block.digest) for seen in each.events)
        for each in same
    }
    in_order = all(each.loss is not None and each.loss.is_in_order for each in same)
    # A client that resumes is sent nothing by the connections after the first.
    if len(contents - {()}) <= 1 and observation.events and in_order:
        what = (
            "The stream is finite: it brings the same events each time."
            if any(contents)
            else "The stream is finite: it ended, and brought nothing more."
        )
        return Finding(
            "ended",
            NOTE,
            what,
            evidence,
            "Answer 204 to a client that has had all of it: else it comes back for ever.",
        )
    if all(each.lasted < AT_ONCE_SECONDS for each in same):
        return Finding(
            "ended",
            PROBLEM,
            "The stream ends each time almost at once.",
            evidence,
            "Keep the connection open: a handler that returns ends it. Look also for a crash.",
        )
    return Finding(
        "ended",
        PROBLEM,
        f"The stream ends each time after about {lasted}.",
        evidence,
        "Look for a limit of that length: of a proxy (read timeout), the platform (longest"
        " request) or the server (worker timeout).",
    )


def rate(observation: Observation) -> Finding:
    """How many events and bytes come."""
    open_for = sum(connection.lasted for connection in observation.connections)
    size = sum(read.size for read in observation.reads)
    blocks = [seen.block for seen in observation.events]
    types = Counter(block.type for block in blocks)
    evidence = several(size, "byte")
    if open_for >= 1:
        evidence = f"{len(blocks) / open_for:.1f} events/s, {size / open_for:,.0f} bytes/s"
    if blocks:
        listed = ", ".join(f"{shown(name)} {n:,}" for name, n in types.most_common(TYPES))
        more = len(types) - TYPES
        evidence += f"; {listed}{f' and {more:,} more types' if more > 0 else ''}"
        evidence += f"; largest event {several(max(block.size for block in blocks), 'byte')}"
    what = f"{several(len(blocks), 'event')} came in {seconds(open_for)}."
    if observation.is_full:
        what += " That was enough: the watch ended early."
    return Finding("rate", OK, what, evidence)
