"""The long run of relays: `python -m tests.relay.soak redis --minutes 60 --seed 1`.

Three relays, each a process, follow numbered events into one log while processes are killed,
stopped and woken, the engine is killed, its replies are lost, the end of its append-only file is
cut, and the stream is cut. At the end everything is sound, and the log must have each number
once and in order. Before that, take-overs are timed: from the kill of the relay that leads to
the next event in the log. Each must come within a lease and one poll, and a second for what is
slow besides. Linux only.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import itertools
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Protocol

from eventsource.testing import ScriptedServer
from tests.support import LIMIT, wait_until

from .forwarder import Forwarder
from .numbered import Growing

RELAYS = 3
LEASE = 0.6
TAKE_OVER_SECONDS = LEASE * 4 / 3 + 1.0
"""The most for one take-over: the promise of `Relay`, and a second for processes, the engine and
the connection."""
PACE = 0.02
"""Seconds between two steps of the stream."""
STEP = 10
"""Events of a step at the most."""
TRIES = 5
"""How often an engine is asked before it is given up."""
PAUSE = 0.1, 1.0
"""Seconds between two faults, at the least and at the most."""


class Engine(Protocol):
    """What the run needs of an engine."""

    port: int

    def start(self) -> None: ...
    def kill(self) -> None: ...
    def last(self) -> int:
        """The number of the last event in the log; 0 if there is none."""

    def numbers(self) -> list[int]:
        """All of the log."""

    def lose(self) -> str:
        """Kill the server, and start it again; return what has been done."""


class Redis:
    def __init__(self, folder: Path, chance: random.Random) -> None:
        from .redis_server import RedisServer

        self._server = RedisServer(folder)
        self._chance = chance
        self.port = self._server.port
        self.start, self.kill = self._server.start, self._server.kill

    def url(self, port: int) -> str:
        return f"redis://127.0.0.1:{port}"

    def last(self) -> int:
        with self._server.client() as client:
            entries = client.xrevrange("orders", count=1)
        return int(entries[0][1]["data"]) if entries else 0

    def numbers(self) -> list[int]:
        found, begin = [], "-"
        with self._server.client() as client:
            while entries := client.xrange("orders", begin, count=10_000):
                found += [int(entry["data"]) for _, entry in entries]
                begin = f"({entries[-1][0]}"
        return found

    def lose(self) -> str:
        size = self._server.log_file().stat().st_size
        time.sleep(self._chance.uniform(0.0, 0.5))  # for so long, it keeps what it acknowledges
        self._server.kill()
        is_cut = self._chance.random() < 0.5
        if is_cut:
            now = self._server.log_file().stat().st_size
            self._server.cut(self._chance.randint(min(size, now), now))
        self._server.start()
        return "engine killed, its file cut" if is_cut else "engine killed"


class Nats:
    def __init__(self, folder: Path, chance: random.Random) -> None:
        from .nats_server import NatsServer

        self._server = NatsServer(folder)
        self._chance = chance
        self.port = self._server.port
        self.start, self.kill = self._server.start, self._server.kill

    def url(self, port: int) -> str:
        return f"nats://127.0.0.1:{port}"

    def last(self) -> int:
        from nats.js import errors

        async def read(_, jetstream):
            with contextlib.suppress(errors.NotFoundError):
                message = await jetstream.get_last_msg("orders", "orders")
                return int(message.data)
            return 0

        for _ in range(TRIES):  # a server that has just begun may lose a request
            with contextlib.suppress(TimeoutError):
                return self._server.run(read)
        log = (self._server.folder / "nats.log").read_text()[-2000:]
        raise AssertionError(f"nats-server does not answer; it says: {log}")

    def numbers(self) -> list[int]:
        return [int(event_id) for event_id in self._server.ids("orders")]

    def lose(self) -> str:
        self._server.kill()
        time.sleep(self._chance.uniform(0.0, 0.5))
        self._server.start()
        return "engine killed"


ENGINES = {"redis": Redis, "nats": Nats}


class Process:
    """A relay, and the file of its log lines."""

    def __init__(self, url: str, log: str, path: Path, options: list[str]) -> None:
        self.path = path
        self._command = [sys.executable, "-m", "tests.relay.program", url, log, "orders"]
        self._command += ["--lease", str(LEASE), *options]
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        with self.path.open("ab") as lines:
            self._process = subprocess.Popen(
                self._command, stdout=lines, stderr=lines, cwd=Path(__file__).parents[2]
            )

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def end(self, number: signal.Signals) -> int:
        self._process.send_signal(signal.SIGCONT)
        self._process.send_signal(number)
        return self._process.wait(LIMIT)

    @property
    def has_failed(self) -> bool:
        return self._process.poll() is not None

    @property
    def leads(self) -> bool:
        """Whether its last line about that says so."""
        text = self.path.read_text()
        begins = text.rfind(": leading")
        ends = [text.rfind(said) for said in ("another relay leads", "claiming", "is another")]
        return begins > max(ends)


class Run:
    """The whole: stream, relays, engine, and what is done to them."""

    def __init__(self, name: str, folder: Path, seed: int, options: list[str]) -> None:
        self.chance = random.Random(seed)
        (folder / "engine").mkdir()
        self.engine = ENGINES[name](folder / "engine", self.chance)
        self.source = Growing()
        self.sent = 0
        self.faults: collections.Counter[str] = collections.Counter()
        self.take_overs: list[float] = []
        self._folder = folder
        self._options = options
        self._stack = contextlib.ExitStack()

    def __enter__(self):
        with self._stack as stack:
            self.engine.start()
            stack.callback(self.engine.kill)
            self.front = stack.enter_context(Forwarder(self.engine.port))
            self.server = stack.enter_context(ScriptedServer(self.source))
            self.relays = [
                Process(
                    self.server.url,
                    self.engine.url(self.front.port),
                    self._folder / f"{number}.log",
                    self._options,
                )
                for number in range(RELAYS)
            ]
            for relay in self.relays:
                stack.callback(relay.end, signal.SIGKILL)
            self._has_ended = threading.Event()
            pacer = threading.Thread(target=self._send, name="test-pacer")
            pacer.start()
            stack.callback(pacer.join)
            stack.callback(self._has_ended.set)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_):
        self._stack.close()

    def _send(self) -> None:
        chance = random.Random(0)
        while not self._has_ended.wait(PACE):
            self.sent += chance.randint(0, STEP)
            self.source.grow(self.sent)

    def begin(self) -> None:
        wait_until(lambda: self.engine.last() > 0, "the first event", 2 * LIMIT)

    def take_over(self) -> None:
        """Kill the one that leads, and see how long nothing comes."""
        wait_until(lambda: sum(relay.leads for relay in self.relays) == 1, "one to lead")
        wait_until(lambda: all(self._is_up(relay) for relay in self.relays), "all to be up")
        leader = next(relay for relay in self.relays if relay.leads)
        leader.end(signal.SIGKILL)
        start = time.monotonic()
        before = self.engine.last()
        wait_until(lambda: self.engine.last() > before, "another one to lead")
        self.take_overs.append(time.monotonic() - start)
        leader.path.write_text("")
        leader.start()

    def _is_up(self, relay: Process) -> bool:
        text = relay.path.read_text()
        return "leading" in text or "another relay leads" in text

    def fault(self) -> None:
        """Do something to them, by chance."""
        relay = self.chance.choice(self.relays)
        what = self.chance.choice(["kill", "stop", "end", "stream", "reply", "engine"])
        if what == "kill":
            relay.end(signal.SIGKILL)
            relay.start()
        elif what == "end":
            assert relay.end(signal.SIGTERM) in (0, -signal.SIGTERM)  # -15: it had just begun
            relay.start()
        elif what == "stop":
            relay.signal(signal.SIGSTOP)
            time.sleep(self.chance.uniform(0.5, 3.0) * LEASE)
            relay.signal(signal.SIGCONT)
        elif what == "stream":
            self.source.cut()
        elif what == "reply":
            self.front.be_silent()
            time.sleep(self.chance.uniform(0.0, 0.2))
            self.front.cut()
        else:
            what = self.engine.lose()
        self.faults[what] += 1
        for one in self.relays:
            assert not one.has_failed, one.path.read_text()[-3000:]
        time.sleep(self.chance.uniform(*PAUSE))

    def end(self) -> list[int]:
        """Let the log catch up; return all of it."""
        self._has_ended.set()
        with contextlib.suppress(AssertionError):  # what is missing is seen below
            wait_until(lambda: self.engine.last() >= self.sent, "the last event", 2 * LIMIT)
        for relay in self.relays:
            relay.end(signal.SIGTERM)
        return self.engine.numbers()


def faults_of(numbers: list[int], count: int) -> list[str]:
    """What is wrong with a log that should have 1, 2, … `count`."""
    seen = collections.Counter(numbers)
    found = {
        "lost": len(set(range(1, count + 1)) - set(seen)),
        "twice or more": sum(many > 1 for many in seen.values()),
        "out of order": sum(one > next_ for one, next_ in itertools.pairwise(numbers)),
        "never sent": sum(number > count for number in seen),
    }
    return [f"{many:,} {what}" for what, many in found.items() if many]


def too_late(take_overs: list[float]) -> list[str]:
    """What is wrong with the seconds that take-overs took."""
    late = sum(seconds > TAKE_OVER_SECONDS for seconds in take_overs)
    return [f"{late:,} take-overs of more than {TAKE_OVER_SECONDS:.1f} s"] if late else []


def run(name: str, *, seconds: float, take_overs: int, seed: int, options: list[str]) -> list[str]:
    """Run; print what was done; return what is wrong."""
    with (
        tempfile.TemporaryDirectory() as folder,
        Run(name, Path(folder), seed, options) as this,
    ):
        this.begin()
        for _ in range(take_overs):
            this.take_over()
        if this.take_overs:
            times = sorted(this.take_overs)
            print(
                f"{len(times)} take-overs with a lease of {LEASE} s: median"
                f" {statistics.median(times):.2f} s, 99th percentile"
                f" {times[min(int(len(times) * 0.99), len(times) - 1)]:.2f} s,"
                f" longest {times[-1]:.2f} s",
                flush=True,
            )
        begin = said = time.monotonic()
        while time.monotonic() - begin < seconds:
            this.fault()
            if time.monotonic() - said > 60:
                said = time.monotonic()
                print(f"{said - begin:,.0f} s: {this.sent:,} events, {this.faults}", flush=True)
        numbers = this.end()
        wrong = faults_of(numbers, this.sent) + too_late(this.take_overs)
        done = ", ".join(f"{many:,} x {what}" for what, many in sorted(this.faults.items()))
        print(f"{name}: {this.sent:,} events; {done or 'no faults'}: {wrong or 'all there'}")
        return wrong


def main() -> None:
    parser = argparse.ArgumentParser(description="The long run of relays.")
    parser.add_argument("engine", choices=ENGINES)
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--take-overs", type=int, default=20, metavar="N")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--without", action="append", default=[], help="fence, place: the controls (Redis)"
    )
    arguments = parser.parse_args()
    options = [word for name in arguments.without for word in ("--without", name)]
    wrong = run(
        arguments.engine,
        seconds=60 * arguments.minutes,
        take_overs=arguments.take_overs,
        seed=arguments.seed,
        options=options,
    )
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
