"""What one event costs between `recv` and the handler, in machine instructions and in calls.

A time depends on the machine and on what else it does; a count of instructions hardly does. So
valgrind counts them, and a second run, under `sys.setprofile`, counts the calls. The server
sends an event only when the client's socket is empty, so each event is a read of its own: the
case in which a client cannot share any cost among events. That is verified, not assumed.

    python -m benchmarks.instructions            # the table
    python -m benchmarks.instructions --calls    # and the calls of one event, in order

The invariant: **nothing that is counted runs only because it is counted.** Between two marks
there are exactly N events. A mark is a call of `getpriority`, at which valgrind writes down
what it has counted so far. Start, connecting, the first events and the end are outside.

Linux only: it needs valgrind, and see `lockstep`.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

from .lockstep import Lookout
from .processes import HERE, Problem, environment
from .sections import replace_section
from .server import CHUNKED, PADDING, chunk, read_path

EVENTS: Final = 200
"""Events between two marks."""
WARM_UP: Final = 50
"""Events before the first mark: CPython specializes its bytecode within them."""
LIMIT: Final = 120.0
"""Seconds for one run. Under valgrind, a program takes fifty times as long."""
READS: Final = ("recv", "__recv", "__libc_recv", "recvfrom", "SSL_read_ex", "SSL_read")
"""How the system's function is called that each read calls once."""


# --- The server: an event whenever the one before it has been read ---


class LockStepServer:
    """Sends `events` events on each connection, one per read of the client."""

    def __init__(self, events: int) -> None:
        self._events = events
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/"
        self._connection: socket.socket | None = None
        self._is_closed = False
        self._lookout = Lookout()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_closed = True
        for sock in (self._listener, self._connection):
            if sock is not None:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()
        self._lookout.close()

    def _run(self) -> None:
        while not self._is_closed:
            with contextlib.suppress(OSError):
                self._connection, _ = self._listener.accept()
                with self._connection:
                    self._serve(self._connection)

    def _serve(self, connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        read_path(connection)
        connection.sendall(CHUNKED)
        for number in range(self._events):
            self._lookout.wait_until_read(connection, lambda: self._is_closed)
            # As long as an LLM's token; the same length each time, as the paced events have.
            connection.sendall(chunk(b"data: %020d %b\n\n" % (number, PADDING)))
        while connection.recv(65536):  # until the client closes
            pass


# --- The steps, each in a process of its own ---


class Marks:
    """What stands between the events: `sizes` are the numbers of events between the marks."""

    def __init__(self, events: int, *, count_calls: bool) -> None:
        self.sizes = [WARM_UP, events] if count_calls else [WARM_UP, events, events]
        self.calls: list[str] = []
        self._count_calls = count_calls
        self._passed = 0

    def mark(self) -> None:
        """So many events have been handled; the last time, it is over."""
        self._passed += 1
        if not self._count_calls:
            os.getpriority(os.PRIO_PROCESS, 0)
        elif self._passed == 1:
            sys.setprofile(self._note)
        else:
            sys.setprofile(None)
        if self._passed == len(self.sizes):
            self._finish()

    def _finish(self) -> None:
        # The first is of `mark`, as the last two are, up to the end of the noting.
        print(json.dumps(self.calls[1:-2]), flush=True)
        os._exit(0)

    def _note(self, frame: Any, what: str, function: Any) -> None:
        if what == "call":
            code = frame.f_code
            self.calls.append(f"{Path(code.co_filename).stem}.{code.co_qualname}")
        elif what == "c_call":
            self.calls.append(f"C {getattr(function, '__qualname__', function)}")

    def take(self, items: Iterator[Any]) -> None:
        """Take events from an iterator, without a bytecode more than a `for` loop has."""
        for size in self.sizes:
            for _ in itertools.islice(items, size):
                pass
            self.mark()


def _connect(port: int) -> socket.socket:
    """Return a socket with nothing read yet but the head of the response."""
    sock = socket.create_connection(("127.0.0.1", port))
    sock.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    received = b""
    while b"\r\n\r\n" not in received:
        received += sock.recv(65536)
    return sock


def _recv(port: int, marks: Marks) -> None:
    sock = _connect(port)
    for size in marks.sizes:
        for _ in range(size):
            sock.recv(65536)
        marks.mark()


def _count(port: int, marks: Marks) -> None:
    sock = _connect(port)
    events = 0
    for size in marks.sizes:
        for _ in range(size):
            events += sock.recv(65536).count(b"data:")
        marks.mark()


def _framing(port: int, marks: Marks) -> None:
    from eventsource.protocol.framing import ChunkedBody

    sock, body = _connect(port), ChunkedBody()
    for size in marks.sizes:
        for _ in range(size):
            body.feed(sock.recv(65536))
        marks.mark()


def _parser(port: int, marks: Marks) -> None:
    from eventsource.protocol.framing import ChunkedBody
    from eventsource.protocol.parser import EventStreamParser

    sock, body, parser = _connect(port), ChunkedBody(), EventStreamParser()
    for size in marks.sizes:
        for _ in range(size):
            parser.feed(body.feed(sock.recv(65536)))
        marks.mark()


def _socket_body(port: int, marks: Marks) -> None:
    from eventsource.http.body import SocketBody
    from eventsource.protocol.framing import ChunkedBody
    from eventsource.protocol.parser import EventStreamParser

    body = SocketBody(_connect(port), b"", ChunkedBody(), None)
    parser = EventStreamParser()
    for size in marks.sizes:
        for _ in range(size):
            parser.feed(body.read())
        marks.mark()


def _exchange(port: int, marks: Marks) -> None:
    from eventsource import EventStream
    from eventsource.http.exchange import Exchange
    from eventsource.protocol.parser import EventStreamParser

    exchange = Exchange(EventStream(f"http://127.0.0.1:{port}/")._engine.template)
    exchange.open()
    parser = EventStreamParser()
    for size in marks.sizes:
        for _ in range(size):
            parser.feed(exchange.read())
        marks.mark()


def _take(port: int, marks: Marks) -> None:
    from eventsource import EventStream

    stream = EventStream(f"http://127.0.0.1:{port}/", reconnect=None)
    stream.take()  # it has opened
    for size in marks.sizes:
        for _ in range(size):
            stream.take()
        marks.mark()


def _event_stream(port: int, marks: Marks) -> None:
    from eventsource import EventStream

    items = iter(EventStream(f"http://127.0.0.1:{port}/", reconnect=None))
    next(items)  # it has opened
    marks.take(items)


def _messages(port: int, marks: Marks) -> None:
    from eventsource import EventStream

    stream = EventStream(f"http://127.0.0.1:{port}/", reconnect=None)
    marks.take(iter(stream.messages()))


def _sse_client(port: int, marks: Marks) -> None:
    from eventsource import SSEClient

    marks.take(iter(SSEClient(f"http://127.0.0.1:{port}/")))


def _event_source(port: int, marks: Marks, **options: Any) -> None:
    from eventsource import EventSource

    ends = {*itertools.accumulate(marks.sizes)}
    count = 0

    def handle(_: Any) -> None:
        nonlocal count
        count += 1
        if count in ends:
            marks.mark()

    source = EventSource(f"http://127.0.0.1:{port}/", on_message=handle, **options)
    source.join()


def _event_source_with_timeout(port: int, marks: Marks) -> None:
    _event_source(port, marks, event_timeout=600.0)


def _launchdarkly(port: int, marks: Marks) -> None:
    from .peers import BY_NAME, Options

    peer = BY_NAME["launchdarkly-eventsource"]
    assert peer.open is not None
    marks.take(peer.open(f"http://127.0.0.1:{port}/", Options()).events)


@dataclass(frozen=True)
class Step:
    """A row of the table.

    Attributes:
        name: the row's name.
        run: takes the port of the server and reads; ends with the process.
        module: what must be installed for it.
        adds_to: the name of the step that does the same, and less.
    """

    name: str
    run: Callable[[int, Marks], None]
    module: str = "eventsource"
    adds_to: str = ""


STEPS: Final = {
    step.name: step
    for step in (
        Step("`recv`", _recv),
        Step("`ChunkedBody.feed(recv)`", _framing, adds_to="`recv`"),
        Step("… and `parser.feed`", _parser, adds_to="`ChunkedBody.feed(recv)`"),
        Step("`parser.feed(SocketBody.read)`", _socket_body, adds_to="… and `parser.feed`"),
        Step("`parser.feed(Exchange.read)`", _exchange, adds_to="`parser.feed(SocketBody.read)`"),
        Step("`EventStream.take`", _take, adds_to="`parser.feed(Exchange.read)`"),
        Step("`EventSource`, one handler", _event_source, adds_to="`EventStream.take`"),
        Step(
            "`EventSource` with `event_timeout`",
            _event_source_with_timeout,
            adds_to="`EventSource`, one handler",
        ),
        Step("`for` over `EventStream`", _event_stream, adds_to="`parser.feed(Exchange.read)`"),
        Step("`messages()`", _messages, adds_to="`for` over `EventStream`"),
        Step("`SSEClient`", _sse_client, adds_to="`for` over `EventStream`"),
        Step('`recv` and `count(b"data:")`', _count, adds_to="`recv`"),
        Step("launchdarkly-eventsource", _launchdarkly, "ld_eventsource", adds_to="`recv`"),
    )
}


# --- Running a step ---


class Cost(NamedTuple):
    """What one event costs in one step.

    Attributes:
        instructions: of the whole process outside the system.
        spread: the difference between the two halves of the run, as a part of that.
        python: calls of Python functions, and resumptions of generators.
        c: calls of functions in C.
        calls: of one event, in order, from one read to the next.
    """

    instructions: float
    spread: float
    python: float
    c: float
    calls: list[str]


def measure(step: Step, events: int) -> Cost:
    """Return what one event costs.

    Raises:
        Problem: the step failed, or there were not as many reads as events.
    """
    halves = count_instructions(step, events)
    calls = count_calls(step, events)
    in_c = sum(call.startswith("C ") for call in calls)
    return Cost(
        sum(halves) / (2 * events),
        abs(halves[0] - halves[1]) / halves[1],
        (len(calls) - in_c) / events,
        in_c / events,
        _calls_of_one(calls),
    )


def count_instructions(step: Step, events: int) -> list[int]:
    """Return the instructions of so many events, counted twice.

    Raises:
        Problem: see `measure`.
    """
    with tempfile.TemporaryDirectory() as folder:
        dump = Path(folder, "out")
        valgrind = ["valgrind", "--tool=callgrind", "--dump-before=getpriority"]
        _run(step, events, [*valgrind, f"--callgrind-out-file={dump}"], count_calls=False)
        # The first has all that came before the first mark.
        halves = [read_dump(dump.with_name(f"out.{number}")) for number in (2, 3)]
    for half in halves:
        _check_reads(half.reads, events)
    return [half.instructions for half in halves]


def count_calls(step: Step, events: int) -> list[str]:
    """Return the calls of so many events: `module.function`, or `C function`.

    Raises:
        Problem: see `measure`.
    """
    calls = _run(step, events, [], count_calls=True)
    _check_reads(sum(call.startswith("C socket.recv") for call in calls), events)
    return calls


def _check_reads(reads: int, events: int) -> None:
    if reads != events:
        raise Problem("error", note=f"{reads} reads for {events} events")


def _run(step: Step, events: int, before: list[str], *, count_calls: bool) -> list[str]:
    """Run a step in a process of its own; return the calls that it noted."""
    with LockStepServer(WARM_UP + 2 * events) as server:
        order = [step.name, str(server.port), str(events), str(int(count_calls))]
        try:
            done = subprocess.run(
                [*before, sys.executable, "-m", "benchmarks.instructions", "--step", *order],
                env=environment(PYTHONHASHSEED="0"),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=LIMIT,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise Problem(f"> {LIMIT:.0f} s") from None
    if done.returncode:
        raise Problem("error", note=f"exit {done.returncode}", detail=done.stderr)
    calls: list[str] = json.loads(done.stdout)
    return calls


def _calls_of_one(calls: list[str]) -> list[str]:
    """Return the calls from one read to the next."""
    reads = [place for place, call in enumerate(calls) if call.startswith("C socket.recv")]
    middle = len(reads) // 2
    return calls[reads[middle] : reads[middle + 1]] if len(reads) > middle + 1 else calls


class Dump(NamedTuple):
    """What valgrind has written down: instructions, and how often a read was made."""

    instructions: int
    reads: int


def read_dump(path: Path) -> Dump:
    """Read a file of callgrind's."""
    names: dict[str, str] = {}
    reads = instructions = 0
    called = ""
    for line in path.read_text(errors="replace").splitlines():
        if match := re.match(r"c?fn=\((\d+)\)(?: (.*))?", line):
            number, name = match.groups()
            if name is not None:
                names[number] = name
            if line.startswith("c"):
                called = names[number]
        elif line.startswith("calls="):
            base = re.sub(r"(@@?[\w.]+)?('\d+)?$", "", called)
            if base in READS:
                reads += int(line[6:].split()[0])
        elif match := re.match(r"(?:totals|summary): (\d+)", line):
            instructions = int(match[1])
    return Dump(instructions, reads)


# --- The table ---


def table(costs: dict[str, Cost | Problem]) -> str:
    """Return the table as Markdown."""
    rows = ["| step | instructions | of these, added | Python calls | C calls |"]
    rows.append("| --- | ---: | ---: | ---: | ---: |")
    for name, cost in costs.items():
        if isinstance(cost, Problem):
            rows.append(f"| {name} | {cost} {cost.note} | | | |")
            continue
        below = costs.get(STEPS[name].adds_to)
        added = f"{cost.instructions - below.instructions:,.0f}" if isinstance(below, Cost) else ""
        calls = f"{cost.python:.1f} | {cost.c:.1f}"
        rows.append(f"| {name} | {cost.instructions:,.0f} | {added} | {calls} |")
    return "\n".join(rows)


def main(arguments: list[str] | None = None) -> int:
    """Print the table; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.instructions", description=__doc__)
    parser.add_argument("--events", type=int, default=EVENTS, help="between two marks")
    parser.add_argument("--only", action="append", choices=[*STEPS], help="one step; repeatable")
    parser.add_argument("--calls", action="store_true", help="print the calls of one event, too")
    parser.add_argument("--write", action="store_true", help="put it into docs/performance.md, too")
    parser.add_argument("--step", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.step:
        name, port, events, count_calls = options.step
        STEPS[name].run(int(port), Marks(int(events), count_calls=count_calls == "1"))
        return 1  # it should have ended with its last event
    if shutil.which("valgrind") is None:
        print("benchmarks.instructions: skipped: there is no valgrind")
        return 0
    costs: dict[str, Cost | Problem] = {}
    for name in options.only or STEPS:
        try:
            costs[name] = measure(STEPS[name], options.events)
        except Problem as problem:
            costs[name] = problem
            print(f"{name}: {problem} {problem.note}\n{problem.detail}", file=sys.stderr)
    print(table(costs))
    if options.calls:
        for name, cost in costs.items():
            if isinstance(cost, Cost):
                print(f"\n{name}\n", *(f"    {call}" for call in cost.calls), sep="\n")
    if any(isinstance(cost, Problem) for cost in costs.values()):
        return 1
    if options.write:
        replace_section(HERE.parent / "docs" / "performance.md", "instructions", table(costs))
    return 0


if __name__ == "__main__":
    sys.exit(main())
