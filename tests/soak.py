"""The long run: `python -m tests.soak --minutes 60 --seed 1 [--plot FILE]`.

Tens of sources of all kinds follow numbered events through the laboratory, which runs in
a process of its own. At the end the network is sound, and each must catch up. Fails if a
number was lost, came twice or out of order, if a source got stuck, or if threads, file
descriptors, Python's objects or memory have grown since the first part of the run. Linux only.
"""

from __future__ import annotations

import argparse
import array
import asyncio
import collections
import concurrent.futures
import contextlib
import ctypes
import dataclasses
import gc
import itertools
import json
import logging
import multiprocessing
import os
import random
import signal
import ssl
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import requests
import trustme

from eventsource import ErrorEvent, EventSource, EventStream, MessageEvent, ReconnectPolicy

from .laboratory import Fault, Laboratory, Refused, script
from .real_servers import numbered
from .real_servers.process import Server

PACE = 0.05
"""Seconds between two events of a source."""
POLICY = ReconnectPolicy(
    delay=0.05, max_delay=1.0, statuses=frozenset({200, 204, 429, 500, 502, 503})
)
EVENT_TIMEOUT = 2.0
"""Seconds after which a source notices a hole."""
CATCHING_UP = 120.0
"""Seconds that a source may take, when the network is sound, to get `MORE` events."""
MORE = 20
BLOCKS = 0.03
"""By which share the blocks of memory that Python's objects have may have grown: in 40 minutes,
a quarter of a block for each connection that is lost."""
MEMORY = 0.1
"""By which share the memory may have grown: allocators do not give all of it back."""


class Follower:
    """The handler of one source: compares what comes with what should."""

    def __init__(self) -> None:
        self.received = 0
        self.lost = 0
        self.twice = 0
        self.garbled = 0
        self.errors: collections.Counter[str] = collections.Counter()
        self.internal: list[str] = []  # errors that are none of a network's
        self.final: Exception | None = None

    def __call__(self, event: object) -> None:
        if isinstance(event, ErrorEvent):
            self.errors[type(event.error).__name__] += 1
            if not isinstance(event.error, requests.RequestException):
                self.internal.append(repr(event.error))
            if event.retry_in is None:
                self.final = event.error
        if not isinstance(event, MessageEvent):
            return
        number = int(event.last_event_id.removeprefix("№"))
        expected = self.received + self.lost + 1
        self.garbled += event[:2] != (numbered.event_type(number), numbered.event_data(number))
        if number < expected:  # or out of order
            self.twice += 1
        else:
            self.lost += number - expected
            self.received += 1


class Kind(NamedTuple):
    """A way to follow a stream."""

    name: str
    tls: bool
    follow: Callable[[str, Follower, dict[str, Any]], EventSource | EventStream]
    replaceable: bool = False
    """Another source may go on from where one was closed: its handlers run in its thread."""
    query: str = f"count=1000000000&pace={PACE}"
    """How the events come: as a rule one by one, without end."""


def listen(url: str, follower: Follower, options: dict[str, Any]) -> EventSource:
    source = EventSource(url, start=False, reconnect=POLICY, event_timeout=EVENT_TIMEOUT, **options)
    for event_type in ("message", "tick", "error"):
        source.on(event_type, follower)
    source.start()
    return source


def iterate(url: str, follower: Follower, options: dict[str, Any]) -> EventStream:
    stream = EventStream(url, reconnect=POLICY, event_timeout=EVENT_TIMEOUT, **options)

    def run() -> None:
        for item in stream:
            follower(item)

    threading.Thread(target=run, name="soak iterates").start()
    return stream


@dataclasses.dataclass
class Followed:
    kind: Kind
    url: str
    follower: Follower
    source: EventSource | EventStream

    def replace(self) -> None:
        """Close the source, and go on with a new one from where it was."""
        assert isinstance(self.source, EventSource)
        self.source.close()
        if not self.source.join(CATCHING_UP):
            raise AssertionError(f"{self.source}: the thread does not end")
        options = {"last_event_id": self.source.last_event_id}
        self.source = self.kind.follow(self.url, self.follower, options)


@contextlib.contextmanager
def kinds(authority: str) -> Iterator[list[Kind]]:
    """All ways to follow a stream, and the threads that they need."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="soak loop")
    thread.start()

    def in_loop(url: str, follower: Follower, options: dict[str, Any]) -> EventSource:
        async def make() -> EventSource:
            options["dispatch"] = loop.call_soon_threadsafe
            source = EventSource(
                url, start=False, reconnect=POLICY, event_timeout=EVENT_TIMEOUT, **options
            )

            async def follow(event: object) -> None:
                await asyncio.sleep(0)
                follower(event)

            for event_type in ("message", "tick", "error"):
                source.on(event_type, follow)
            source.start()
            return source

        return asyncio.run_coroutine_threadsafe(make(), loop).result()

    with concurrent.futures.ThreadPoolExecutor(4) as pool:

        def in_pool(url: str, follower: Follower, options: dict[str, Any]) -> EventSource:
            return listen(url, follower, {**options, "dispatch": pool.submit})

        def with_session(url: str, follower: Follower, options: dict[str, Any]) -> EventSource:
            return listen(url, follower, {**options, "session": requests.Session()})

        def over_tls(url: str, follower: Follower, options: dict[str, Any]) -> EventSource:
            return listen(url, follower, {**options, "verify": authority})

        try:
            yield [
                Kind("EventSource", tls=False, follow=listen, replaceable=True),
                Kind("over TLS", tls=True, follow=over_tls, replaceable=True),
                Kind("on a pool", tls=False, follow=in_pool),
                Kind("on an event loop", tls=False, follow=in_loop),
                Kind("EventStream", tls=False, follow=iterate),
                Kind("in bursts", tls=False, follow=iterate, query="count=20&then=end"),
                Kind("on the caller's session", tls=False, follow=with_session),
            ]
        finally:
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.run_until_complete(asyncio.sleep(0))  # a turn of the handlers may just have begun
            loop.close()


class ErrorsLogged(logging.Handler):
    """Counts them, and shows them."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.count = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.count += 1
        print(self.format(record), file=sys.stderr)


# --- The laboratory's process ---


def until(calm: threading.Event, faults: Iterator[Fault | Refused]) -> Iterator[Fault | Refused]:
    for fault in faults:
        if calm.is_set():
            return
        yield fault


def run_laboratory(
    pipe: Connection, seed: int, tls: list[bool], servers: list[int], certificate: Path
) -> None:
    """Tell the ports; calm down when told to; tell what has been met when told to."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the other process will say when to end
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    calm = threading.Event()
    with Laboratory() as laboratory:
        tls_servers = [laboratory.tls(port, context) for port in servers]
        proxies = [
            laboratory.proxy(
                tls_servers if is_tls else servers,
                until(calm, script(f"{seed} {number}", tls=is_tls, servers=len(servers))),
            )
            for number, is_tls in enumerate(tls)
        ]
        pipe.send([proxy.port for proxy in proxies])
        pipe.recv()
        calm.set()
        pipe.recv()
        pipe.send(
            collections.Counter(type(fault).__name__ for proxy in proxies for fault in proxy.met)
        )


# --- The run ---


_c_library = ctypes.CDLL(None)


class Sample(NamedTuple):
    minutes: float
    threads: int
    descriptors: int
    memory: float
    """MiB that are resident."""
    blocks: int
    """Of memory, that Python has allocated, the smaller ones; an object has one or more."""
    events: int
    errors: int


def sample(started: float, followed: list[Followed]) -> Sample:
    gc.collect()  # garbage is not in use,
    _c_library.malloc_trim(0)  # nor is what the allocator keeps for later
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return Sample(
        (time.monotonic() - started) / 60,
        threading.active_count(),
        len(os.listdir("/proc/self/fd")),
        pages * os.sysconf("SC_PAGE_SIZE") / 2**20,
        sys.getallocatedblocks(),
        sum(each.follower.received for each in followed),
        sum(each.follower.errors.total() for each in followed),
    )


@contextlib.contextmanager
def surroundings(seed: int, count: int, folder: Path) -> Iterator[tuple[list[Followed], Any]]:
    """The servers, the laboratory and the sources; and the pipe to the laboratory."""
    authority = trustme.CA()
    authority_file, certificate = folder / "authority.pem", folder / "server.pem"
    authority.cert_pem.write_to_path(str(authority_file))
    issued = authority.issue_cert("127.0.0.1")
    issued.private_key_and_cert_chain_pem.write_to_path(str(certificate))
    with contextlib.ExitStack() as stack:
        servers = []
        for app in ("aiohttp_app.py", "sse_starlette_app.py"):
            server = Server(app, folder / f"{app}.log")
            stack.callback(server.stop, signal.SIGKILL)
            server.start()
            servers.append(server.port)
        possible = stack.enter_context(kinds(str(authority_file)))
        chosen = list(itertools.islice(itertools.cycle(possible), count))
        pipe, other = multiprocessing.Pipe()
        laboratory = multiprocessing.get_context("spawn").Process(
            target=run_laboratory,
            args=(other, seed, [kind.tls for kind in chosen], servers, certificate),
        )
        laboratory.start()
        stack.callback(laboratory.join)
        stack.callback(pipe.close)  # which ends it, if nothing else has
        other.close()
        followed: list[Followed] = []
        for number, (kind, port) in enumerate(zip(chosen, pipe.recv(), strict=True)):
            scheme = "https" if kind.tls else "http"
            url = f"{scheme}://127.0.0.1:{port}/numbers?name={number}&{kind.query}"
            follower = Follower()
            followed.append(Followed(kind, url, follower, kind.follow(url, follower, {})))
        try:
            yield followed, pipe
        finally:
            for each in followed:
                each.source.close()
            for each in followed:
                if isinstance(each.source, EventSource) and not each.source.join(CATCHING_UP):
                    raise AssertionError(f"{each.source}: the thread does not end")


def shake(minutes: float, seed: int, followed: list[Followed]) -> tuple[list[Sample], int, int]:
    """Let it run; restart and replace sources. Return samples and how often that was done."""
    draw = random.Random(seed)
    pause = threading.Event()
    restarts = replacements = 0
    started = time.monotonic()
    latest = sample(started, followed)
    samples = array.array("d", latest)  # no objects, which would be counted
    while latest.minutes < minutes:
        pause.wait(min(1.0, minutes * 60 / 100))
        latest = sample(started, followed)
        samples.extend(latest)
        one = draw.choice(followed)
        if draw.random() < 0.1:
            one.source.restart()
            restarts += 1
        elif draw.random() < 0.1 and one.kind.replaceable:
            one.replace()
            replacements += 1
    columns = [samples[n :: len(latest)] for n in range(len(latest))]
    return [Sample(*each) for each in zip(*columns, strict=True)], restarts, replacements


def catch_up(followed: list[Followed]) -> list[Followed]:
    """Wait until each has got `MORE` events; return those that do not."""
    pause = threading.Event()
    goals = [each.follower.received + MORE for each in followed]
    deadline = time.monotonic() + CATCHING_UP
    while True:
        both = zip(followed, goals, strict=True)
        behind = [each for each, goal in both if each.follower.received < goal]
        if not behind or time.monotonic() > deadline:
            return behind
        pause.wait(0.1)


def run(minutes: float, seed: int, count: int, folder: Path) -> tuple[dict[str, Any], list[Sample]]:
    """Return the figures and the samples."""
    log = ErrorsLogged()
    logging.getLogger("eventsource").addHandler(log)
    resource_tracker.ensure_running()  # multiprocessing's own, which stays
    before = sample(0, [])
    with surroundings(seed, count, folder) as (followed, pipe):
        samples, restarts, replacements = shake(minutes, seed, followed)
        pipe.send("calm")
        behind = catch_up(followed)
        pipe.send("what was met?")
        met = pipe.recv()
    deadline = time.monotonic() + CATCHING_UP
    while threading.active_count() > before.threads and time.monotonic() < deadline:
        threading.Event().wait(0.1)  # for the iterating threads
    gc.collect()
    after = sample(0, [])

    total = collections.Counter[str]()
    for each in followed:
        total += each.follower.errors
    early, late = parts(samples)
    figures = {
        "seed": seed,
        "minutes": round(samples[-1].minutes, 2),
        "sources": count,
        "events": sum(each.follower.received for each in followed),
        "lost": sum(each.follower.lost for each in followed),
        "twice or out of order": sum(each.follower.twice for each in followed),
        "garbled": sum(each.follower.garbled for each in followed),
        "stuck": [each.kind.name for each in behind],
        "internal errors": [error for each in followed for error in each.follower.internal],
        "errors logged": log.count,
        "closed for good": [repr(each.follower.final) for each in followed if each.follower.final],
        "faults": dict(met),
        "errors": dict(total),
        "restarts": restarts,
        "replacements": replacements,
        "threads": [median(early, "threads"), median(late, "threads")],
        "descriptors": [median(early, "descriptors"), median(late, "descriptors")],
        "blocks": [median(early, "blocks"), median(late, "blocks")],
        "memory": [median(early, "memory"), median(late, "memory")],
        "threads left": after.threads - before.threads,
        "descriptors left": after.descriptors - before.descriptors,
    }
    return figures, samples


def parts(samples: list[Sample]) -> tuple[list[Sample], list[Sample]]:
    """The first part once it has settled, and the last: the second minute, if there is one."""
    last = samples[-1].minutes
    settled = min(1.0, last / 3)
    width = max(1.0, last / 10) if last > 4 else last / 4
    return (
        [each for each in samples if settled <= each.minutes < settled + width],
        [each for each in samples if each.minutes > last - width],
    )


def median(samples: list[Sample], name: str) -> float:
    return round(statistics.median(getattr(each, name) for each in samples), 1)


def complaints(figures: dict[str, Any]) -> list[str]:
    """What is not as it should be."""
    bad = [
        f"{name}: {figures[name]}"
        for name in (
            *("lost", "twice or out of order", "garbled", "stuck", "closed for good"),
            *("internal errors", "errors logged"),
        )
        if figures[name]
    ]
    bad += [f"no {name}" for name in ("events", "faults", "errors") if not figures[name]]
    # How many exchanges are under way differs; what is left at the end does not.
    for name, slack in (("threads", 10), ("descriptors", 20)):
        early, late = figures[name]
        if late > early + slack:
            bad.append(f"{name} have grown: {early} to {late}")
    for name, share in (("blocks", BLOCKS), ("memory", MEMORY)):
        early, late = figures[name]
        if late > early * (1 + share):
            bad.append(f"{name} has grown: {early} to {late}")
    bad += [
        f"{name}: {figures[name]}"
        for name in ("threads left", "descriptors left")
        if figures[name] > 0
    ]
    return bad


def plot(samples: list[Sample], figures: dict[str, Any], file: Path) -> None:
    """Draw the samples over time."""
    from matplotlib.figure import Figure

    minutes = [each.minutes for each in samples]
    figure = Figure(figsize=(9, 10), layout="constrained")
    axes = figure.subplots(5, 1, sharex=True)
    for axis, name, label in zip(
        axes,
        ("threads", "descriptors", "blocks", "memory", "errors"),
        (
            *("threads", "file descriptors", "blocks of Python's objects"),
            *("resident memory, MiB", "connections lost or refused"),
        ),
        strict=True,
    ):
        values = [getattr(each, name) for each in samples]
        axis.plot(minutes, values, linewidth=0.8)
        axis.set_ylabel(label)
        axis.set_ylim(0, 1.2 * max(values))
        axis.grid(alpha=0.3)
    axes[-1].set_xlabel("minutes")
    figure.suptitle(
        f"{figures['sources']} sources, {figures['events']:,} events,"
        f" {sum(figures['faults'].values()):,} faults:"
        f" {figures['lost']} lost, {figures['twice or out of order']} twice or out of order"
    )
    figure.savefig(file, dpi=100)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    parser.add_argument("--sources", type=int, default=30)
    parser.add_argument("--plot", type=Path, help="draw an image (needs matplotlib)")
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        figures, samples = run(options.minutes, options.seed, options.sources, Path(folder))
    print(json.dumps(figures, indent=2))
    if options.plot is not None:
        plot(samples, figures, options.plot)
    bad = complaints(figures)
    for complaint in bad:
        print(f"FAILED: {complaint}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
