"""What several test files use."""

from __future__ import annotations

import contextlib
import importlib
import os
import queue
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from eventsource import ErrorEvent, EventStream, MessageEvent, OpenEvent, ReconnectPolicy
from eventsource.testing import ScriptedServer

SECRET = "secretcredential"
"""Planted in header fields, cookies, passwords: no log line of anybody's may show it."""

QUERY_SECRET = "secretquery"
"""Planted in queries: no log line of ours may show it. (urllib3's quote the query.)"""

LIMIT = 30.0
"""Seconds after which a test gives up waiting: far more than any machine needs."""

QUICK = ReconnectPolicy(delay=0.02, max_delay=0.05, jitter=0.0)
"""Reconnects at once, so that tests are fast."""

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
CHUNKED = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
)


runs_all = False
"""Whether `--all` has been given. (Set by `conftest.py`, before any test is imported.)"""


def wait_until(condition, what="a condition", limit=LIMIT):
    """Wait for what no event tells of, looking again every few milliseconds."""
    pause = threading.Event()
    deadline = time.monotonic() + limit
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {limit} s for {what}")
        pause.wait(0.005)


def wait_until_blocked(pid):
    """Wait until the main thread of a process is in a system call, by the kernel's account.

    A signal that comes just before is not looked at until that ends. Linux only.
    """
    status = Path(f"/proc/{pid}/status")
    looks = [None]

    def is_blocked():
        looks.append(
            [line for line in status.read_text().splitlines() if line[:5] in ("State", "volun")]
        )
        return looks[-1] == looks.pop(0) and "sleeping" in looks[-1][0]

    if status.exists():
        wait_until(is_blocked, f"{pid} to wait")


class Recorder:
    """A handler that keeps what it was called with, and can be waited for."""

    def __init__(self):
        self.events = []
        self._queue = queue.SimpleQueue()

    def __call__(self, event):
        self.events.append(event)
        self._queue.put(event)

    def next(self, limit=LIMIT):
        """The next event that has not been taken; waits for it."""
        try:
            return self._queue.get(timeout=limit)
        except queue.Empty:
            raise AssertionError(f"no event came within {limit} s") from None

    def next_of(self, kind):
        while not isinstance(event := self.next(), kind):
            pass
        return event


def record(source, *types):
    """Register one recorder for open, message, error and the given types."""
    recorder = Recorder()
    for event_type in ("open", "message", "error", *types):
        source.on(event_type, recorder)
    return recorder


def respond(data, *, then="close"):
    """A script that reads a request, sends these bytes, and closes, holds or resets."""

    def script(connection):
        connection.read_request()
        connection.send(data)
        if then == "hold":
            connection.hold()
        elif then == "reset":
            connection.reset()

    return script


def stream(*blocks, then="close"):
    """A script that answers with an event stream of these bytes."""
    return respond(HEAD + b"".join(blocks), then=then)


def status(line, *headers, body=b""):
    """A script that answers with a status, e.g. `status("503 Busy", "Retry-After: 1")`."""
    fields = [f"HTTP/1.1 {line}", *headers, f"Content-Length: {len(body)}", "", ""]
    return respond("\r\n".join(fields).encode() + body)


@contextlib.contextmanager
def served(face, *scripts, **options):
    """A server with these scripts, and a source or client that has its URL."""
    with ScriptedServer(*scripts) as server, face(server.url, **options) as it:
        yield server, it


def numbers(count, start=0):
    return b"".join(b"id: %d\ndata: %d\n\n" % (n, n) for n in range(start, start + count))


def take(events, kind, count=1):
    """The next `count` items of that kind."""
    found = []
    for event in events:
        if isinstance(event, kind):
            found.append(event)
            if len(found) == count:
                return found
    raise AssertionError(f"ended after {len(found)} of {count}: {found}")


def messages(events, count=1):
    return take(events, MessageEvent, count)


def errors(events, count=1):
    return take(events, ErrorEvent, count)


def opens(events, count=1):
    return take(events, OpenEvent, count)


@contextlib.contextmanager
def port_that_never_answers():
    """A port whose accept queue is full, so that connecting to it hangs."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address = listener.getsockname()
        while True:
            filler = stack.enter_context(socket.socket())
            filler.settimeout(0.2)
            try:
                filler.connect(address)
            except TimeoutError:
                break
        yield address[1]


@contextlib.contextmanager
def port_that_refuses(port=0):
    """A port that is taken, so that it stays free of listeners, and does not listen.

    A new one; or one that a server has just left, to come back to it.
    """
    with socket.socket() as sock:
        if port:  # connections that the server had may still be there
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("127.0.0.1", port))
        yield sock.getsockname()[1]


def unavailable(reason):
    """Skip the test (or the file) for want of something; where that is required, fail."""
    if os.environ.get("EVENTSOURCE_REQUIRED"):
        pytest.fail(reason)
    pytest.skip(reason, allow_module_level=True)


def imported(name, *, extra="test-all"):
    """A module that the test (or the file) needs; without it, as `unavailable` says.

    Args:
        name: of the package, at its top level.
        extra: of `pyproject.toml`, which has it. Not all environments in which the gate runs all
            tests have the other extras, so without a module of theirs the test is skipped.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:  # the module is there, and something that it needs is not
            raise
    reason = f"needs {name}, of the extra `{extra}`"
    if extra == "test-all":
        unavailable(reason)
    pytest.skip(reason, allow_module_level=True)


def wait_until_connecting(port):
    """Wait until a connection to a port of `port_that_never_answers()` has been begun.

    By the kernel's account, in which that port has one of its own. Linux only.
    """
    syn_sent, remote = "02", f":{port:04X}"

    def is_connecting():
        rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        return sum(row[2].endswith(remote) and row[3] == syn_sent for row in rows) > 1

    wait_until(is_connecting, "connecting to begin")


def queue_of(source):
    """The queue between a source's reader thread and `dispatch`: what waits, and who."""
    return source._queue


def open_sockets():
    """The sockets of this process, each once however many descriptors it has. Linux only."""
    found = set()
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # that of the listing itself
            found.add(str(entry.readlink()))
    return {what for what in found if what.startswith("socket:")}


@contextlib.contextmanager
def reading(*scripts, **options):
    """A stream of a server with these scripts, and the server."""
    with ScriptedServer(*scripts) as server, EventStream(server.url, **options) as events:
        yield events, server


def run_python(program, *arguments, flags=(), **options):
    """Run a program in a Python of its own; return what it has come to."""
    command = [sys.executable, *flags, "-c", program, *map(str, arguments)]
    options = {"capture_output": True, "text": True, "timeout": LIMIT, **options}
    return subprocess.run(command, check=False, **options)
