"""What a relay stores in a second, in each engine: a batch for each read, or an event at a time.

    python -m benchmarks.relay            # --write: into docs/performance.md, too
    python -m benchmarks.relay --events 1000 --only redis

The stream is numbered events of 100 bytes, as fast as the server can write them; the engine, the
server and the relay share the machine. The second figure is of the same relay with a sink that
calls the engine once for each event.

The invariant: **a figure is printed only if the log has each event once and in order.**
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from eventsource import MessageEvent
from eventsource.relay import Relay
from eventsource.testing import ScriptedServer

from .processes import HERE, Problem
from .sections import replace_section

EVENTS: Final = 100_000
ONE_BY_ONE: Final = 20
"""An event at a time takes longer: so many times fewer events."""
SIZE: Final = 100
"""Bytes of an event's data."""
GIVE_UP: Final = 120.0
"""Seconds for one figure."""
LEASE: Final = 30.0
HEAD: Final = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"


class OneByOne:
    """A sink that stores each event by a call of its own."""

    def __init__(self, sink: Any) -> None:
        self._sink = sink
        self.claim = sink.claim
        self.lease = sink.lease
        self.close = sink.close

    def append(self, events: Sequence[MessageEvent], last_event_id: str) -> None:
        """See `eventsource.relay.Sink`."""
        place = last_event_id if not events else events[-1].last_event_id
        for event in events:
            self._sink.append([event], event.last_event_id)
        if place != last_event_id:
            self._sink.append([], last_event_id)


# --- The engines: those of the tests, on free ports, with disk ---


@contextlib.contextmanager
def redis(folder: Path, fsync: str) -> Iterator[tuple[Callable[[str], Any], Callable[[str], Any]]]:
    """A server of Redis: what makes a sink, and what reads a log."""
    from eventsource.relay import RedisStream
    from tests.relay.redis_server import RedisServer

    with RedisServer(folder, "--appendfsync", fsync) as server:

        def read(name: str) -> list[int]:
            with server.client() as client:
                return [int(entry["id"]) for _, entry in client.xrange(name)]

        yield lambda name: RedisStream(server.url, name), read


@contextlib.contextmanager
def nats(folder: Path) -> Iterator[tuple[Callable[[str], Any], Callable[[str], Any]]]:
    """A server of NATS, likewise."""
    from eventsource.relay import JetStream
    from tests.relay.nats_server import NatsServer

    with NatsServer(folder) as server:

        def read(name: str) -> list[int]:
            return [int(event_id) for event_id in server.ids(name)]

        yield lambda name: JetStream(server.url, name), read


ENGINES: Final[dict[str, tuple[str, Callable[[Path], Any]]]] = {
    "redis": ("Redis, `appendfsync everysec`", lambda folder: redis(folder, "everysec")),
    "redis-always": ("Redis, `appendfsync always`", lambda folder: redis(folder, "always")),
    "nats": ("NATS JetStream, on disk", nats),
}


# --- The figures ---


def stream(count: int) -> Callable[[Any], None]:
    """The script of the server: so many events, then silence."""
    data = b"x" * SIZE
    body = b"".join(b"id: %d\ndata: %b\n\n" % (number, data) for number in range(1, count + 1))

    def script(connection: Any) -> None:
        connection.read_request()
        connection.send(HEAD + body)
        connection.hold()

    return script


def measure(sink: Any, count: int) -> float:
    """Return the events that are stored in a second.

    Raises:
        Problem: not all came in time.
    """
    with ScriptedServer(stream(count)) as server:
        relay = Relay(server.url, sink, lease=LEASE)
        began = time.perf_counter()
        thread = threading.Thread(target=relay.run, name="benchmark-relay")
        thread.start()
        pause = threading.Event()
        try:
            while relay.last_event_id != str(count):
                if time.perf_counter() - began > GIVE_UP:
                    raise Problem("late", note=f"the log has come to {relay.last_event_id!r}")
                pause.wait(0.001)
            return count / (time.perf_counter() - began)
        finally:
            relay.close()
            thread.join()


def figures(engine: str, count: int) -> tuple[float, float]:
    """Return the events in a second with a batch for each read, and with one call for each event.

    Raises:
        Problem: a log does not have each event once and in order, or not in time.
    """
    found = []
    with (
        tempfile.TemporaryDirectory() as folder,
        ENGINES[engine][1](Path(folder)) as (new_sink, read),
    ):
        few = max(count // ONE_BY_ONE, 1)
        for name, sink, many in (
            ("batches", new_sink("batches"), count),
            ("single", OneByOne(new_sink("single")), few),
        ):
            found.append(measure(sink, many))
            if read(name) != list(range(1, many + 1)):
                raise Problem("wrong", note=f"{name}: the log is not what was sent")
    return found[0], found[1]


def table(rows: dict[str, tuple[float, float]]) -> str:
    """Return the table as Markdown."""
    lines = [
        "| engine | a batch for each read | a call for each event | ratio |",
        "| --- | ---: | ---: | ---: |",
    ]
    for engine, (batches, single) in rows.items():
        lines.append(
            f"| {ENGINES[engine][0]} | {batches:,.0f} | {single:,.0f} | {batches / single:.0f} |"
        )
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Print the table; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.relay")
    parser.add_argument("--events", type=int, default=EVENTS, help="%(default)s")
    parser.add_argument("--only", choices=ENGINES, action="append", help="may be given again")
    parser.add_argument("--write", action="store_true", help="put it into docs/performance.md, too")
    options = parser.parse_args(arguments)
    rows = {}
    for engine in options.only or ENGINES:
        try:
            rows[engine] = figures(engine, options.events)
        except Problem as problem:
            print(f"{engine}: {problem} {problem.note} {problem.detail}", file=sys.stderr)
            return 1
    print(table(rows))
    if options.write:
        replace_section(HERE.parent / "docs" / "performance.md", "relay", table(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
