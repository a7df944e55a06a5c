"""A process that measures one client: `python -m benchmarks.workers NAME`.

It lives as long as the run, so that imports and first times are outside all timing,
answers commands on its standard input, one JSON object a line, and ends with it. All
times are taken in this process, around the client and nothing else. The garbage
collector is left as it is; what an earlier measurement left behind is collected before.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import importlib
import json
import os
import queue
import sys
import threading
import time
import traceback
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, Protocol

from . import inputs, peers
from .server import raise_file_limit

GIVE_UP = 60.0
"""Seconds to wait for what will not come any more; the parent kills us long before."""
SETTLE = 0.002
"""Seconds from the first event until `close()`: the reader is in its read again."""
QUIET = 0.2
"""Seconds from the last stream's first event until memory is read."""
BATCH = 20
"""Streams opened at once: enough to be quick, too few to leave a peak in memory."""
TRIES = 3
"""Times that a `close()` may be late before it counts as one that always is."""
STAMP = 20
"""Digits at the beginning of a paced event."""

Reply = dict[str, Any]


# --- Throughput: the loops that are timed ---
#
# The same work for each event, written out for each way that events come, because a
# call in between would be a good part of what is measured.


def drain(events: Iterator[Any], expected: int, only: type[Any] | None) -> tuple[int, int]:
    """Count events and characters of a client that is iterated over."""
    count = chars = 0
    if only is None:
        for event in events:
            count += 1
            chars += len(event.data)
            if count == expected:
                break
    else:
        for event in events:
            if isinstance(event, only):
                count += 1
                chars += len(event.data)
                if count == expected:
                    break
    return count, chars


async def drain_async(events: AsyncIterator[Any], expected: int) -> tuple[int, int]:
    """Likewise of one that is iterated over asynchronously."""
    count = chars = 0
    async for event in events:
        count += 1
        chars += len(event.data)
        if count == expected:
            break
    return count, chars


def drain_source(url: str, types: list[str], expected: int, options: peers.Options) -> Reply:
    """Likewise of our `EventSource`, in a handler."""
    from eventsource import EventSource  # not in the other workers

    count = chars = 0
    finished = 0.0
    done = threading.Event()

    def handle(event: Any) -> None:
        nonlocal count, chars, finished
        count += 1
        chars += len(event.data)
        if count == expected:
            finished = time.perf_counter()
            done.set()

    started = time.perf_counter()
    source = EventSource(
        url, reconnect=None, start=False, on_error=lambda _: done.set(), **options.verify
    )
    for event_type in types:
        source.on(event_type, handle)
    source.start()
    done.wait(GIVE_UP)
    source.close()
    source.join(GIVE_UP)
    return {"seconds": finished - started, "events": count, "chars": chars}


class Throughput:
    """Whole clients and parsers, as fast as they can."""

    def __init__(self, peer: peers.Peer) -> None:
        self._peer = peer
        self._loop = asyncio.Runner() if peer.kind == "asyncio" else None

    def parse(self, *, name: str, units: int, large: bool) -> Reply:
        """From 64 KiB chunks of bytes to event objects."""
        assert self._peer.parse is not None
        options = peers.Options(large=large)
        chunks = list(inputs.cut(inputs.stream(name, units), peers.PARSER_CHUNK))
        expected = inputs.unit(name).events * units
        gc.collect()
        if self._loop is not None:
            return self._loop.run(self._parse_async(chunks, options, expected))
        started = time.perf_counter()
        count, chars = drain(self._peer.parse(chunks, options), expected, None)
        seconds = time.perf_counter() - started
        return {"seconds": seconds, "events": count, "chars": chars}

    async def _parse_async(
        self, chunks: list[bytes], options: peers.Options, expected: int
    ) -> Reply:
        assert self._peer.parse is not None
        started = time.perf_counter()
        count, chars = await drain_async(await self._peer.parse(chunks, options), expected)
        seconds = time.perf_counter() - started
        return {"seconds": seconds, "events": count, "chars": chars}

    def client(
        self,
        *,
        url: str,
        types: list[str],
        events: int,
        large: bool,
        size: int,
        ca: str | None,
    ) -> Reply:
        """From just before connecting until the last event has been handled."""
        options = peers.Options(ca=ca, large=large)
        gc.collect()
        if self._peer.kind == "handlers":
            return drain_source(url, types, events, options)
        if self._loop is not None:
            return self._loop.run(self._client_async(url, options, events))
        started = time.perf_counter()
        if self._peer.kind == "raw":
            received = peers.read_raw(url, size, ca)
            return {"seconds": time.perf_counter() - started, "bytes": received}
        assert self._peer.open is not None
        opened = self._peer.open(url, options)
        count, chars = drain(opened.events, events, opened.only)
        seconds = time.perf_counter() - started
        opened.close()
        return {"seconds": seconds, "events": count, "chars": chars}

    async def _client_async(self, url: str, options: peers.Options, events: int) -> Reply:
        assert self._peer.open is not None
        started = time.perf_counter()
        opened = await self._peer.open(url, options)
        count, chars = await drain_async(opened.events, events)
        seconds = time.perf_counter() - started
        await opened.close()
        return {"seconds": seconds, "events": count, "chars": chars}


class Beginning:
    """How long it takes to ask: until the server has the request, in a warm process."""

    def __init__(self, peer: peers.Peer) -> None:
        self._peer = peer
        self._loop = asyncio.Runner() if peer.kind == "asyncio" else None

    def ask(self, *, url: str, times: int, ca: str | None) -> Reply:
        """Nanoseconds from just before the constructor until the server's stamp."""
        options = peers.Options(ca=ca)
        waits = []
        for _ in range(times):
            gc.collect()
            if self._peer.kind == "handlers":
                waits.append(self._source(url, options))
            elif self._loop is not None:
                waits.append(self._loop.run(self._task(url, options)))
            else:
                waits.append(self._iterator(url, options))
        return {"nanoseconds": waits}

    def _source(self, url: str, options: peers.Options) -> int:
        stamps: queue.SimpleQueue[int] = queue.SimpleQueue()

        def handle(event: Any) -> None:
            stamps.put(int(event.data))

        started = time.monotonic_ns()
        reader = SourceReader(url, handle, options)
        received = stamps.get(timeout=GIVE_UP)
        reader.close()
        reader.join(GIVE_UP)
        return received - started

    def _iterator(self, url: str, options: peers.Options) -> int:
        assert self._peer.open is not None
        started = time.monotonic_ns()
        opened = self._peer.open(url, options)
        only = opened.only
        event = next(item for item in opened.events if only is None or isinstance(item, only))
        opened.close()
        return int(event.data) - started

    async def _task(self, url: str, options: peers.Options) -> int:
        assert self._peer.open is not None
        started = time.monotonic_ns()
        opened = await self._peer.open(url, options)
        event = await anext(opened.events)
        await opened.close()
        return int(event.data) - started


# --- Streams that are read in the background: latency, memory, closing ---


Handle = Callable[[Any], object]
"""Gets each event; a true result ends the reading. (Our `EventSource` ignores it.)"""


class Reader(Protocol):
    """A stream being read somewhere else; each event goes to a `Handle`."""

    def close(self) -> object:
        """Close it by what the client offers; may block."""

    def join(self, limit: float) -> bool:
        """Wait until whatever reads it has ended; say whether it has."""


class SourceReader:
    """Our `EventSource`, which has its own thread."""

    def __init__(self, url: str, handle: Handle, options: peers.Options, **more: Any) -> None:
        from eventsource import EventSource  # not in the other workers

        self._source = EventSource(url, on_message=handle, reconnect=None, **options.verify, **more)
        self.close = self._source.close
        self.join = self._source.join


class ThreadReader:
    """A client that is iterated over, in a thread of its own."""

    def __init__(
        self,
        peer: peers.Peer,
        url: str,
        handle: Handle,
        options: peers.Options,
    ) -> None:
        assert peer.open is not None
        self._open = peer.open
        self._arguments = url, options
        self._handle = handle
        self._opened: peers.Opened | None = None  # written by the thread only
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        # However it ends: after a close, most clients raise something.
        with contextlib.suppress(Exception):
            self._opened = opened = self._open(*self._arguments)
            only = opened.only
            for event in opened.events:
                if (only is None or isinstance(event, only)) and self._handle(event):
                    opened.close()
                    break

    def close(self) -> None:
        """Close the client."""
        if self._opened is not None:
            self._opened.close()

    def join(self, limit: float) -> bool:
        """Wait for the thread."""
        self._thread.join(limit)
        return not self._thread.is_alive()


class TaskReader:
    """A client for asyncio, in a task; one thread runs the loop of all of them."""

    _loop: asyncio.AbstractEventLoop | None = None

    def __init__(
        self,
        peer: peers.Peer,
        url: str,
        handle: Handle,
        options: peers.Options,
    ) -> None:
        assert peer.open is not None
        if TaskReader._loop is None:
            TaskReader._loop = asyncio.new_event_loop()
            threading.Thread(target=TaskReader._loop.run_forever, daemon=True).start()
        self._open = peer.open
        self._opened: peers.OpenedAsync | None = None  # written by the task only
        self._task = self._submit(self._run(url, handle, options))

    def _submit(self, work: Coroutine[Any, Any, Any]) -> Any:
        assert TaskReader._loop is not None
        return asyncio.run_coroutine_threadsafe(work, TaskReader._loop)

    async def _run(self, url: str, handle: Handle, options: peers.Options) -> None:
        with contextlib.suppress(Exception):
            self._opened = opened = await self._open(url, options)
            async for event in opened.events:
                if handle(event):
                    await opened.close()
                    break

    def close(self) -> None:
        """Close the client, on the loop."""
        if self._opened is not None:
            self._submit(self._opened.close()).result(GIVE_UP)

    def join(self, limit: float) -> bool:
        """Wait for the task."""
        with contextlib.suppress(TimeoutError):
            self._task.result(limit)
        return bool(self._task.done())


class Background:
    """What is measured on streams that are read in the background."""

    def __init__(self, peer: peers.Peer) -> None:
        self._peer = peer

    def _start(self, url: str, handle: Handle, ca: str | None = None) -> Reader:
        options = peers.Options(ca=ca)
        if self._peer.kind == "handlers":
            return SourceReader(url, handle, options, **self._peer.arguments)
        kind = TaskReader if self._peer.kind == "asyncio" else ThreadReader
        return kind(self._peer, url, handle, options)

    def latency(self, *, url: str, events: int, ca: str | None) -> Reply:
        """Nanoseconds from the server's stamp to the handler, for each paced event."""
        latencies: list[int] = []
        done = threading.Event()

        def handle(event: Any) -> bool:
            latencies.append(time.monotonic_ns() - int(event.data[:STAMP]))
            if len(latencies) < events:
                return False
            done.set()
            return True  # before the stream ends, and some clients connect again

        gc.collect()
        reader = self._start(url, handle, ca)
        done.wait(GIVE_UP)
        if isinstance(reader, SourceReader):
            reader.close()
        reader.join(GIVE_UP)
        return {"nanoseconds": latencies}

    def idle(self, *, url: str, streams: int, ca: str | None) -> Reply:
        """Memory and threads that `streams` open, silent streams add to the process."""
        raise_file_limit()
        arrivals: queue.SimpleQueue[Any] = queue.SimpleQueue()
        # One before all others: what is loaded once is no stream's own.
        readers = [self._start(url, arrivals.put, ca)]
        arrivals.get(timeout=GIVE_UP)
        gc.collect()
        memory, threads = resident_memory(), thread_count()
        while len(readers) <= streams:
            batch = min(BATCH, streams + 1 - len(readers))
            readers += [self._start(url, arrivals.put, ca) for _ in range(batch)]
            for _ in range(batch):
                arrivals.get(timeout=GIVE_UP)
        threading.Event().wait(QUIET)
        gc.collect()
        return {
            "bytes": (resident_memory() - memory) / streams,
            "threads": (thread_count() - threads) / streams,
        }

    def close(self, *, url: str, times: int, patience: float) -> Reply:
        """Seconds from `close()` to the end of the reader, of silent streams."""
        seconds: list[float] = []
        late = 0
        pause = threading.Event()
        while len(seconds) + late < times and late < TRIES:
            first = threading.Event()
            reader = self._start(url, functools.partial(_set, first))
            if not first.wait(GIVE_UP):
                raise TimeoutError("no first event")
            pause.wait(SETTLE)
            began: list[float] = []
            closer = threading.Thread(target=_close, args=(reader, began), daemon=True)
            closer.start()
            if reader.join(patience):
                seconds.append(time.perf_counter() - began[0])
                closer.join(patience)
            else:
                late += 1
        return {"seconds": seconds, "late": late}


def _set(event: threading.Event, _: Any) -> None:
    event.set()


def _close(reader: Reader, began: list[float]) -> None:
    began.append(time.perf_counter())
    with contextlib.suppress(Exception):
        reader.close()


def resident_memory() -> int:
    """Return this process's resident set in bytes (Linux)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def thread_count() -> int:
    """Return this process's threads, also those that Python does not know (Linux)."""
    return len(list(Path("/proc/self/task").iterdir()))


# --- The process ---


def _read_commands(commands: queue.SimpleQueue[str]) -> None:
    for line in sys.stdin:
        commands.put(line)
    os._exit(0)  # the parent is gone, whatever is being measured


def main() -> None:
    """Answer commands until standard input ends."""
    # Some clients print: standard output is kept for the replies.
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    peer = peers.BY_NAME[sys.argv[1]]
    importlib.import_module(peer.module)
    throughput, background = Throughput(peer), Background(peer)
    work: dict[str, Callable[..., Reply]] = {
        "parse": throughput.parse,
        "client": throughput.client,
        "begin": Beginning(peer).ask,
        "latency": background.latency,
        "idle": background.idle,
        "close": background.close,
    }
    commands: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_read_commands, args=(commands,), daemon=True).start()
    while True:
        command = json.loads(commands.get())
        try:
            reply = work[command.pop("do")](**command)
        except Exception as error:
            reply = {"error": type(error).__name__, "detail": traceback.format_exc()}
        print(json.dumps(reply), file=replies, flush=True)


if __name__ == "__main__":
    main()
