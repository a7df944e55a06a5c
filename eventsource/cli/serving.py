"""`eventsource serve`: serves a recording, or standard input, as a stream for development."""

from __future__ import annotations

import contextlib
import errno
import functools
import json
import math
import os
import select
import selectors
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

import click

from eventsource.recording import read_recording
from eventsource.runtime.wakeup import Wakeup
from eventsource.testing import Connection, MalformedRequest, Request, ScriptedServer
from eventsource.testing.answers import make_answer, make_stream_head
from eventsource.testing.blocks import format_event
from eventsource.testing.replay import Replay
from eventsource.testing.subscriber import Ending as StreamEnding
from eventsource.testing.subscriber import State, Step, Subscriber, has_gone
from eventsource.urls import brief

from .command import Command, run_command
from .door import Door, is_loopback
from .ending import Ending
from .failures import Exit, Stop, say, say_if_ready
from .feed import Feed
from .formats import counted
from .output import STANDARD_OUTPUT, Output, descriptor

HEARTBEAT: Final = 15.0
"""Seconds without an event after which a comment is sent (WHATWG HTML 9.2.7 says about 15)."""
HEARTBEAT_BYTES: Final = b": heartbeat\n\n"
MAX_CLIENTS: Final = 64
"""At the same time. Each takes a thread and three descriptors; some systems allow 256 of them."""
MAX_CONNECTIONS: Final = 128
"""At the same time, including those that have not sent their request yet."""
MAX_REQUEST: Final = 2**20
"""The most bytes of a request, with its body."""
REQUEST_SECONDS: Final = 10.0
"""The most seconds to wait for each part of a request."""
SEND_BUFFER: Final = 2**16
"""The most bytes in the send buffer of a client's socket; the receiver has its own."""
MAX_LINE: Final = 2**26
"""The most bytes of a line of the input."""
STANDARD_INPUT: Final = "standard input"
FIELDS: Final = {"Content-Type": "text/event-stream", "Cache-Control": "no-cache"}

HELP = """Serve FILE, a recording, as an event stream; or standard input, if FILE is -.

\b
  eventsource serve answer.jsonl
  tail -F log | eventsource serve -
  eventsource URL --format jsonl | eventsource serve - --jsonl

For development: it has no TLS and no passwords. Its URL is printed as soon as it listens; any
path works. Each new client gets a recording from its start, or standard input from now on; one
that sends an id resumes after it. The command ends when standard input has ended and
all clients have read it.
"""

EXIT_STATUSES = """Exit statuses are those of `eventsource --help`: 2 for a file that is not a
recording or a port that is in use, 130 after Ctrl-C, 143 after SIGTERM.
"""


def _speed(_: object, __: object, value: float | None) -> float | None:
    if value is not None and not value > 0:  # also refuses nan
        raise click.BadParameter(f"{value} is not more than 0.")
    return value


@click.command(
    cls=Command,
    help=HELP,
    epilog=EXIT_STATUSES,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.argument("file", metavar="FILE", type=click.Path(allow_dash=True))
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8000,
    metavar="PORT",
    help="8000 by default. 0: any free port.",
)
@click.option(
    "--host",
    default="127.0.0.1",
    metavar="ADDRESS",
    help="Listen on this address instead of 127.0.0.1, which only this machine can reach.",
)
@click.option(
    "--speed",
    type=float,
    callback=_speed,
    metavar="FACTOR",
    help="Play a recording this many times as fast; inf: without pauses.",
)
@click.option(
    "--jsonl",
    is_flag=True,
    help="Each line of standard input is an event as --format jsonl prints it. Without this, it is"
    " the data of an event.",
)
def command(file: str, port: int, host: str, speed: float | None, jsonl: bool) -> None:
    """Serve until the command is to end."""
    wakeup = Wakeup()
    with Ending(wakeup.set) as ending, ending.at_signals():
        source: _Source
        if file == "-":
            if speed is not None:
                raise click.UsageError("--speed is for recordings")
            source = _Input(ending, as_json=jsonl)
        elif jsonl:
            raise click.UsageError("--jsonl is for standard input")
        else:
            source = _File(file, 1.0 if speed is None else speed)
        ending.check()
        with (
            descriptor(None) as number,
            contextlib.closing(source),
            _Server(source, host, port) as server,
        ):
            if not is_loopback(host):
                say(
                    f"eventsource serve: for development: whoever can reach {host} reads this;"
                    " there is no TLS and no password"
                )
            elif sys.stderr is not None and sys.stderr.isatty():
                say("eventsource serve: for development; Ctrl-C ends it")
            Output(number, STANDARD_OUTPUT, ending).write(f"{server.url}\n".encode())
            source.start()
            while True:
                ending.check()
                wakeup.wait()


def run(arguments: Sequence[str]) -> int:
    """Run the command; return the exit status."""
    return run_command(command, arguments, "eventsource serve")


# --- The server ---


class _Source:
    """What is served."""

    def start(self) -> None:
        """Begin; the server listens now."""

    def close(self) -> None:
        """End all waits."""

    def serve(self, connection: Connection, request: Request, fields: Mapping[str, str]) -> None:
        """Serve a request that has been accepted, in the thread of the connection."""
        raise NotImplementedError


class _Server(ScriptedServer):
    """Can run for days: it stores nothing of past requests, and survives a lack of descriptors."""

    _keeps = False
    _max_request = MAX_REQUEST

    def __init__(self, source: _Source, host: str, port: int) -> None:
        self._host = host
        self._source = source
        self._door = Door(host)
        self._present = threading.BoundedSemaphore(MAX_CLIENTS)
        try:
            super().__init__(self._answer, port=port)
        except (OSError, UnicodeError) as error:
            in_use = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
            remedy = "; choose another one with --port" if in_use else ""
            raise Stop(Exit.USAGE, f"{host}, port {port}: {_why_not(error)}{remedy}") from None
        shown = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared
        self.url = f"http://{f'[{shown}]' if ':' in shown else shown}:{self.port}/"

    def _listen(self, port: int) -> socket.socket:
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        return socket.create_server((self._host, port), family=family, backlog=128)

    def _answer(self, connection: Connection) -> None:
        """The script of each connection."""
        full = make_answer(
            503, 5, body="eventsource serve: too many clients are connected already\n"
        )
        if len(self.connections) > MAX_CONNECTIONS:
            connection.send(full.response)
            return
        connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        connection.sock.settimeout(REQUEST_SECONDS)
        try:
            request = connection.read_request()
        except MalformedRequest as error:
            text = f"eventsource serve: {error}\n"
            connection.send(make_answer(400, body=text).response)
            return
        answer = self._door.answer(request)
        if answer is None and not self._present.acquire(blocking=False):
            answer = full
        if answer is not None:
            connection.send(answer.response)
            return
        try:
            connection.sock.settimeout(None)
            fields = FIELDS | self._door.fields(request)
            if request.method == "HEAD":
                connection.send(make_stream_head(fields))
            else:
                self._source.serve(connection, request, fields)
        finally:
            self._present.release()


def _why_not(error: OSError | UnicodeError) -> str:
    if isinstance(error, UnicodeError) or not error.errno:
        return "not an address"
    if error.errno < 0:  # of a look-up
        return "the name is not known"
    return os.strerror(error.errno)  # `create_server` adds to it


# --- A recording ---


class _File(_Source):
    """A recording, which each client gets from its start."""

    def __init__(self, path: str, speed: float) -> None:
        try:
            recording = read_recording(path)
        except ValueError as error:  # it names the file and the line
            raise Stop(Exit.USAGE, str(error)) from None
        except OSError as error:
            raise Stop(Exit.USAGE, f"{path}: {error.strerror or error}") from None
        try:
            self._replay = Replay(recording, speed, numbered=True)
        except ValueError as error:
            raise Stop(Exit.USAGE, f"{path}: {error}") from None

    def serve(self, connection: Connection, request: Request, fields: Mapping[str, str]) -> None:
        asks_anew = request.method == "POST"
        playback = self._replay.play(request.last_event_id, asks_anew=asks_anew)
        if playback is None:
            connection.send(make_answer(204, headers=_cors(fields)).response)
            return
        connection.send(make_stream_head(fields))
        subscriber = Subscriber(State.SERVED)
        try:
            subscriber.run(connection, with_heartbeats(playback.steps()))
        finally:
            subscriber.close()


def _cors(fields: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in fields.items() if name not in FIELDS}


def with_heartbeats(steps: Iterator[Step]) -> Iterator[Step]:
    """Add comments to each long silence, unless it is within a line."""
    last = 0.0
    at_line_start = True
    for seconds, step in steps:
        due = last + HEARTBEAT
        while due < seconds and at_line_start and math.isfinite(seconds):
            yield due, HEARTBEAT_BYTES
            due += HEARTBEAT
        yield seconds, step
        last = seconds
        if not isinstance(step, StreamEnding) and step:
            at_line_start = step.endswith(b"\n")


# --- Standard input ---


class _Input(_Source):
    """Standard input; each client gets the events from now on."""

    def __init__(self, ending: Ending, *, as_json: bool) -> None:
        if sys.stdin is None:
            raise Stop(Exit.USAGE, f"{STANDARD_INPUT}: closed")
        self._number = sys.stdin.fileno()
        self._ending = ending
        self._as_json = as_json
        self._feed = Feed()
        # Part of each ID that is made here: an ID of an earlier run must not match one of these.
        self._run = f"{time.time_ns() // 1_000_000:x}"
        self._count = 0
        self._last_id = ""

    def start(self) -> None:
        threading.Thread(target=self._read, name="eventsource-input", daemon=True).start()

    def close(self) -> None:
        self._feed.close()

    def _read(self) -> None:
        """Read to the end; in a thread of its own."""
        try:
            self._take_all()
        except Stop as stop:
            self._ending.set(stop)
        except OSError as error:
            text = f"{STANDARD_INPUT}: {error.strerror or error}"
            self._ending.set(Stop(Exit.USAGE, text))
        else:
            self._feed.end()
            self._tell_dropped(self._feed.wait_until_read())
            text = (
                "" if self._feed.clients else f"{STANDARD_INPUT} ended before any client connected"
            )
            self._ending.set(Stop(Exit.DONE, text))

    def _take_all(self) -> None:
        read = functools.partial(_read_some, self._number)
        for number, (line, is_whole) in enumerate(lines(read), 1):
            if len(line) > MAX_LINE:
                text = f"{STANDARD_INPUT}: line {number} has more than {MAX_LINE:,} bytes"
                raise Stop(Exit.USAGE, text)
            try:
                self._put(line)
            except ValueError as error:
                text = f"{STANDARD_INPUT}: line {number}: {brief(str(error))}"
                if is_whole:
                    raise Stop(Exit.USAGE, text) from None
                say_if_ready(f"eventsource serve: {text}: truncated and left out")

    def _put(self, line: bytes) -> None:
        """Serve a line as an event.

        Raises:
            ValueError: the line is not an event.
        """
        event, data, event_id = None, line.decode(errors="replace"), ""
        if self._as_json:
            if not line.strip():
                return
            event, data, event_id = event_of(line)
        self._count += 1
        carried: str | None = event_id
        if not event_id:
            carried = event_id = f"{self._run}-{self._count}"
        elif event_id == self._last_id:  # the event itself had no id
            carried = None
        block = format_event(data, event=event, id=carried)
        self._last_id = event_id
        self._tell_dropped(self._feed.put(block, carried))

    def serve(self, connection: Connection, request: Request, fields: Mapping[str, str]) -> None:
        client = _Client(connection)
        last_event_id = request.last_event_id
        is_ours = last_event_id.startswith(f"{self._run}-")
        is_known = self._feed.join(client, last_event_id, came_here=is_ours)
        try:
            if not is_known:
                self._tell_unknown(what_is_left=is_ours)
            data = self._feed.take(client)
            if data is None:
                connection.send(make_answer(204, headers=_cors(fields)).response)
                return
            connection.send(make_stream_head(fields))
            client.run(data, functools.partial(self._feed.take, client))
        finally:
            self._feed.leave(client)
            client.close()

    @staticmethod
    def _tell_unknown(*, what_is_left: bool) -> None:
        what = "what the history still has" if what_is_left else "what comes from now on"
        say_if_ready(
            f"eventsource serve: a client sent an id that is not in the history: it gets {what}"
        )

    @staticmethod
    def _tell_dropped(count: int) -> None:
        if count:
            say_if_ready(
                f"eventsource serve: dropped {counted(count, 'client')} that did not read;"
                " a client that sends an id when it reconnects resumes after it"
            )


class _Client:
    """Sends the events of a feed on a connection. `wake` and `drop` are for other threads."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._waker, self._woken = socket.socketpair()
        self._waker.setblocking(False)

    def wake(self) -> None:
        """Have it look for new events. Called only while it has joined the feed, like `drop()`."""
        with contextlib.suppress(BlockingIOError):  # full: it will wake
            self._waker.send(b"\0")

    def drop(self) -> None:
        """End the connection; what has been sent still arrives."""
        with contextlib.suppress(OSError):
            self._connection.sock.shutdown(socket.SHUT_RDWR)

    def run(self, data: bytes, take: Callable[[], bytes | None]) -> None:
        """Send `data`, then what `take()` returns, until the end or until the client has left."""
        rest: bytes | None = data
        with selectors.DefaultSelector() as selector:
            selector.register(self._connection.sock, selectors.EVENT_READ)
            selector.register(self._woken, selectors.EVENT_READ)
            while rest is not None:
                if rest:
                    self._connection.send_chunk(rest)
                else:
                    ready = selector.select(HEARTBEAT)
                    if not ready:
                        self._connection.send_chunk(HEARTBEAT_BYTES)
                    for key, _ in ready:
                        if key.fileobj is self._woken:
                            self._woken.recv(4096)
                        elif has_gone(self._connection.sock):
                            return
                rest = take()
        self._connection.send_chunk(b"")
        has_gone(self._connection.sock)  # reads: closing with unread bytes would send RST

    def close(self) -> None:
        """Close the sockets by which it is woken."""
        self._waker.close()
        self._woken.close()


# --- Lines ---


def _read_some(number: int) -> bytes:
    """Read what has come, or wait. Unlike a file's read(), it holds no lock meanwhile."""
    while True:
        try:
            return os.read(number, 2**16)
        except BlockingIOError:  # another process has made the shared descriptor non-blocking
            select.select([number], [], [])


def lines(read: Callable[[], bytes]) -> Iterator[tuple[bytes, bool]]:
    """Yield the lines of an input without their line ends, and whether each had one.

    A line that is too long is yielded as soon as it exceeds `MAX_LINE`, as the last.
    """
    begun: list[bytes] = []
    size = 0
    while data := read():
        first, *rest = data.split(b"\n")
        begun.append(first)
        size += len(first)
        if rest:
            *whole, last = (b"".join(begun), *rest)
            for line in whole:
                yield line.removesuffix(b"\r"), True
            begun, size = [last], len(last)
        if size > MAX_LINE:
            yield b"".join(begun), False
            return
    if size:
        yield b"".join(begun), False


def event_of(line: bytes) -> tuple[str, str, str]:
    """Return the type, the data and the last event ID in a line of `--format jsonl`.

    Raises:
        ValueError: it is not such a line.
    """
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        raise ValueError("not a JSON object") from None
    if not isinstance(found, dict):
        raise ValueError("not a JSON object")  # noqa: TRY004 - of an input, not of an argument
    values = []
    for name, otherwise in (("type", "message"), ("data", None), ("last_event_id", "")):
        value = found.get(name, otherwise)
        if not isinstance(value, str):
            raise ValueError(f"'{name}' is missing or not a string")  # noqa: TRY004
        values.append(value)
    event, data, event_id = values
    return event, data, event_id
