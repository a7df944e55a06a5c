"""Many idle sources in one process: what they take, and what they do while nothing comes.

    python -m benchmarks.idle                      # 5,000 sources, without and with event_timeout
    python -m benchmarks.idle --tls                # 1,000 sources over TLS
    python -m benchmarks.idle --sources 100 --seconds 5

The sources are in one process and the server in another, on loopback. Each row of the table is
a client process of its own, so that no memory is left from the row before.

The invariant: **a row is printed only if every source was open and silent all the time that was
measured**: each has had its one event, none has had an error, and after `close()` no thread is
left. Otherwise the command fails and says what happened.

Linux only: threads, descriptors and memory are read in `/proc`.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import queue
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, Final

from .processes import HERE, Child, Problem, Server
from .sections import replace_section
from .server import raise_file_limit
from .workers import resident_memory, thread_count

SOURCES: Final = 5000
TLS_SOURCES: Final = 1000
SECONDS: Final = 30.0
"""Seconds of silence over which processor time is counted."""
BATCH: Final = 100
"""Sources that connect at the same time. A server's backlog is bounded: what exceeds it waits a
second or more for the system to try again."""
EVENT_TIMEOUT: Final = 3600.0
"""Seconds: longer than any run, so that the timeout is watched and never passes."""
SETTLE: Final = 1.0
"""Seconds between the last event and the first look."""
GIVE_UP: Final = 60.0
"""Seconds for a batch of sources to open, and for all to end."""
FILES_PER_SOURCE: Final = 2
"""Descriptors of a source: its socket, and the duplicate through which any thread can end it."""


# --- The client process ---


def measure(**settings: Any) -> dict[str, Any]:
    """Do what `_measure` does, and leave no source open."""
    with contextlib.ExitStack() as stack:
        return _measure(stack, **settings)


def _measure(
    stack: contextlib.ExitStack,
    *,
    url: str,
    sources: int,
    seconds: float,
    event_timeout: float | None,
    ca: str | None,
) -> dict[str, Any]:
    """Open `sources` sources, wait, close them; return what that took.

    Returns:
        Per source `threads`, `files` and `bytes`; `cpu`: processor time per second of silence;
        `open` and `close`: seconds for all; `left`: threads and descriptors that are left.

    Raises:
        RuntimeError: a source had an error, or did not open.
    """
    from eventsource import EventSource  # in this process only

    raise_file_limit()
    events: queue.SimpleQueue[Any] = queue.SimpleQueue()
    options: dict[str, Any] = {} if event_timeout is None else {"event_timeout": event_timeout}
    if ca is not None:
        options["verify"] = ca

    def source() -> EventSource:
        made = EventSource(url, on_message=events.put, on_error=events.put, **options)
        stack.callback(made.close)
        return made

    def wait_for(count: int) -> None:
        for _ in range(count):
            try:
                event = events.get(timeout=GIVE_UP)
            except queue.Empty:
                raise RuntimeError("a source did not open in time") from None
            if event.type == "error":
                raise RuntimeError(f"a source did not open: {event.error}")

    source()  # the first: what is loaded once is no source's own
    wait_for(1)
    gc.collect()
    memory, threads, files = resident_memory(), thread_count(), file_count()
    opened: list[EventSource] = []
    started = time.perf_counter()
    while len(opened) < sources:
        batch = min(BATCH, sources - len(opened))
        opened += [source() for _ in range(batch)]
        wait_for(batch)
    opening = time.perf_counter() - started
    pause = threading.Event()
    pause.wait(min(SETTLE, seconds))
    gc.collect()
    reply = {
        "threads": (thread_count() - threads) / sources,
        "files": (file_count() - files) / sources,
        "bytes": (resident_memory() - memory) / sources,
        "open": opening,
    }
    used, began = time.process_time(), time.perf_counter()
    pause.wait(seconds)
    reply["cpu"] = (time.process_time() - used) / (time.perf_counter() - began)
    if not events.empty():
        raise RuntimeError(f"not silent: {events.get()}")
    started = time.perf_counter()
    for each in opened:
        each.close()
    ended = [each.join(GIVE_UP) for each in opened]
    reply["close"] = time.perf_counter() - started
    if not all(ended):
        raise RuntimeError(f"{ended.count(False)} sources did not end")
    # A thread is gone for Python a moment before it is for the system.
    deadline = time.perf_counter() + GIVE_UP
    while thread_count() > threads and time.perf_counter() < deadline:
        pause.wait(0.01)
    reply["left"] = thread_count() - threads + file_count() - files
    return reply


def file_count() -> int:
    """Return this process's open descriptors (Linux)."""
    return len(list(Path("/proc/self/fd").iterdir()))


def work() -> None:
    """Answer one command on standard input."""
    command = json.loads(sys.stdin.readline())
    try:
        reply = measure(**command)
    except Exception as error:
        reply = {"error": type(error).__name__, "detail": str(error)}
    print(json.dumps(reply), flush=True)


# --- The rows ---


def fit(sources: int) -> int:
    """Return how many sources this process's limit of descriptors allows."""
    return min(sources, (raise_file_limit() - 100) // FILES_PER_SOURCE)


def row(
    server: Server, *, sources: int, seconds: float, event_timeout: float | None, ca: str | None
) -> dict[str, Any]:
    """Measure a row, in a process of its own.

    Raises:
        Problem: it could not be measured.
    """
    child = Child([sys.executable, "-m", "benchmarks.idle", "--work"])
    limit = seconds + 3 * GIVE_UP + sources / 10
    url = server.url("/idle", "http" if ca is None else "https")
    try:
        reply = child.ask(
            limit, url=url, sources=sources, seconds=seconds, event_timeout=event_timeout, ca=ca
        )
    finally:
        child.stop()
        server.release()
    if reply["left"]:
        raise Problem("error", note=f"{reply['left']} threads or descriptors are left")
    return reply


def table(rows: dict[str, dict[str, Any]]) -> str:
    """Return the table as Markdown."""
    heads = ["threads, each", "descriptors, each", "resident memory, each"]
    heads += ["processor time while idle", "opening all", "closing all"]
    lines = [
        f"| sources | {' | '.join(heads)} |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, reply in rows.items():
        lines.append(
            f"| {name} | {reply['threads']:.2f} | {reply['files']:.2f} | "
            f"{reply['bytes'] / 1000:.1f} kB | {reply['cpu'] * 1000:.2f} ms/s | "
            f"{reply['open']:.1f} s | {reply['close']:.2f} s |"
        )
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Print the table; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.idle")
    parser.add_argument("--sources", type=int, help=f"{SOURCES}; with --tls {TLS_SOURCES}")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of silence (%(default)s)")
    parser.add_argument("--tls", action="store_true", help="over TLS (needs trustme and certifi)")
    parser.add_argument("--write", action="store_true", help="put it into docs/performance.md, too")
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.work:
        work()
        return 0
    wanted = options.sources or (TLS_SOURCES if options.tls else SOURCES)
    sources = fit(wanted)
    if sources < wanted:
        print(f"{sources} sources: the limit of open files allows no more", file=sys.stderr)
    rows = {}
    with contextlib.ExitStack() as stack:
        certificate = ca = None
        if options.tls:
            from .__main__ import make_certificates

            folder = stack.enter_context(tempfile.TemporaryDirectory())
            certificate, _, ca = make_certificates(Path(folder))
        server = Server(certificate)
        stack.callback(server.stop)
        for event_timeout in (None, EVENT_TIMEOUT):
            name = f"{sources:,}" + (" over TLS" if options.tls else "")
            name += "" if event_timeout is None else ", `event_timeout`"
            try:
                rows[name] = row(
                    server,
                    sources=sources,
                    seconds=options.seconds,
                    event_timeout=event_timeout,
                    ca=None if ca is None else str(ca),
                )
            except Problem as problem:
                print(f"{name}: {problem} {problem.note} {problem.detail}", file=sys.stderr)
    print(table(rows))
    if len(rows) < 2:
        return 1
    if options.write:
        section = "idle-tls" if options.tls else "idle"
        replace_section(HERE.parent / "docs" / "performance.md", section, table(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
