"""`eventsource serve`: what clients hear, who is let in, and how it ends."""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from eventsource import EventSource, EventStream, MessageEvent, cli
from eventsource.cli import feed as feeds
from eventsource.cli import serving
from eventsource.cli.door import Door
from eventsource.cli.feed import Feed
from eventsource.testing import Recorder, ScriptedServer
from eventsource.testing.request import parse_head
from eventsource.testing.subscriber import Ending
from tests.loopback.test_recording import TWO_PARTS, block, file, lines, lost, opening, received
from tests.support import HEAD, LIMIT, QUICK, wait_until, wait_until_blocked
from tests.terminal import environment

__all__ = ["file"]  # a fixture

TWO_EVENTS = [opening(), received(0.0, "data: 1\n\n"), received(0.01, "data: 2\n\n")]


class Served:
    """The command as a process, and where it listens."""

    def __init__(self, *arguments, **options):
        options = {"stdin": subprocess.PIPE, "env": environment()} | options
        self.process = subprocess.Popen(
            [sys.executable, "-m", "eventsource", "serve", *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            **options,
        )
        self.url = self.process.stdout.readline().decode().strip()

    @property
    def port(self):
        return int(self.url.rpartition(":")[2].strip("/"))

    def write(self, *texts):
        for text in texts:
            self.process.stdin.write(f"{text}\n".encode())
        self.process.stdin.flush()

    def end_input(self):
        self.process.stdin.close()
        self.process.stdin = None  # else `communicate()` would flush it

    def finish(self):
        """Wait for the end; return the status and what was said."""
        _, error = self.process.communicate(timeout=LIMIT)
        return self.process.returncode, error.decode()


@pytest.fixture
def serve():
    started = []

    def serve(*arguments, **options):
        started.append(Served(*arguments, "--port", 0, **options))
        return started[-1]

    yield serve
    for each in started:
        each.process.kill()
        each.process.communicate(timeout=LIMIT)


@pytest.fixture
def play():
    """Serve a recording in this process; return the server."""
    with contextlib.ExitStack() as stack:

        def play(path, speed=math.inf):
            source = stack.enter_context(contextlib.closing(serving._File(str(path), speed)))
            return stack.enter_context(serving._Server(source, "127.0.0.1", 0))

        yield play


class Client:
    """A raw connection, which sends a request and sees each byte."""

    def __init__(self, port, *fields, method="GET", path="/", host="127.0.0.1", body=b""):
        self.sock = socket.create_connection(("127.0.0.1", port), LIMIT)
        lines = [f"{method} {path} HTTP/1.1", *([f"Host: {host}"] if host else []), *fields, "", ""]
        self.sock.sendall("\r\n".join(lines).encode() + body)
        self.received = b""

    def read_until(self, end):
        while end not in self.received:
            data = self.sock.recv(65536)
            assert data, f"closed after {self.received!r}"
            self.received += data
        before, _, self.received = self.received.partition(end)
        return before

    def read_all(self):
        while data := self.sock.recv(65536):
            self.received += data
        return self.received

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.sock.close()


def hear(url, **options):
    options.setdefault("reconnect", QUICK)
    with EventStream(url, **options) as stream:
        return [item for item in stream if isinstance(item, MessageEvent)]


def data_of(events):
    return [event.data for event in events]


# --- A recording ---


def test_a_recording_is_played_to_each_new_client_from_its_start(serve, file):
    served = serve(file(*TWO_PARTS), "--speed", "inf")
    for _ in range(3):
        assert data_of(hear(served.url)) == ["1", "2", "3", "4"]
    assert data_of(hear(served.url, last_event_id="3")) == ["4"]


def test_one_without_ids_gets_some(play, file):
    """So that a client that comes again is told from a new one, which no other does."""
    served = play(file(*TWO_EVENTS, lost(0.2)))
    for _ in range(2):
        ids = [event.last_event_id for event in hear(served.url)]
        assert [each.rpartition("-")[2] for each in ids] == ["1", "2"]
    for _ in range(2):
        with Client(served.port) as client:  # one that never comes again
            assert b"data: 2\n\n" in client.read_all()


def test_the_ids_of_one_recording_are_not_those_of_another(play, file):
    path = file(*TWO_EVENTS)
    other = file(path.read_bytes().replace(b"2030", b"2031"))
    first, again, second = (play(each).url for each in (path, path, other))
    place = hear(first)[0].last_event_id
    assert data_of(hear(again, last_event_id=place)) == ["2"]
    assert data_of(hear(second, last_event_id=place)) == ["1", "2"]


def test_any_path_and_a_post_will_do(play, file):
    served = play(file(*TWO_EVENTS))
    for _ in range(2):
        events = hear(f"{served.url}v1/chat?x=y", method="POST", json={"prompt": "x" * 100_000})
        assert data_of(events) == ["1", "2"]


def test_the_speed_is_that_of_the_recording(serve, file):
    served = serve(file(opening(), received(0.0, block(1)), received(1e6, block(2))))
    with Client(served.port) as client:
        client.read_until(b"data: 1\n\n")
    served = serve(file(opening(), received(1e6, block(1))), "--speed", "1e8")
    with Client(served.port) as client:
        client.read_until(b"data: 1\n\n")


def test_a_torn_recording_is_played_and_that_is_said(serve, tmp_path):
    path = tmp_path / "torn.jsonl"
    path.write_bytes(lines(*TWO_EVENTS)[:-5])
    served = serve(path)
    assert data_of(hear(served.url)) == ["1"]
    served.process.send_signal(signal.SIGTERM)
    assert served.finish() == (143, f"{path}: line 4 is torn, and left out\n")


def test_long_silences_get_heartbeats_between_lines_only():
    steps = [(1.0, b"data: 1\n\n"), (40.0, b"data: 2"), (80.0, b"\n\n"), (100.0, Ending.FIN)]
    beat = serving.HEARTBEAT_BYTES
    assert [*serving.with_heartbeats(iter(steps))] == [
        (1.0, b"data: 1\n\n"),
        (16.0, beat),
        (31.0, beat),
        (40.0, b"data: 2"),
        (80.0, b"\n\n"),
        (95.0, beat),
        (100.0, Ending.FIN),
    ]


# --- Standard input ---


def test_each_line_is_an_event_from_now_on(serve):
    served = serve("-")
    with EventSource(served.url, start=False) as source:
        recorder = Recorder(source)
        source.start()
        recorder.wait_for("open")
        served.write("one", "", "zwei\té")
        assert [recorder.wait_for("message").data for _ in range(3)] == ["one", "", "zwei\té"]
        with EventStream(served.url) as late:
            next(late)
            served.write("now")
            assert next(late).data == "now"
        served.process.stdin.write(b"\xff\r\nlast")
        served.end_input()
        assert [recorder.wait_for("message").data for _ in range(3)] == ["now", "\ufffd", "last"]
    assert served.finish() == (0, "")


def test_a_client_that_comes_with_an_id_goes_on_after_it(serve):
    served = serve("-")
    with EventStream(served.url) as first:
        next(first)
        served.write("one", "two", "three")
        one, *_ = [next(first) for _ in range(3)]
    with EventStream(served.url, last_event_id=one.last_event_id) as again:
        next(again)
        assert [next(again).data for _ in range(2)] == ["two", "three"]


def test_an_id_of_another_run_is_not_taken_for_one_of_this(serve):
    before = serve("-")
    with EventStream(before.url) as first:
        next(first)
        before.write("one")
        old = next(first)
    served = serve("-")
    with EventStream(served.url, last_event_id=old.last_event_id) as stream:
        next(stream)
        served.write("new")
        assert next(stream).data == "new"
    served.end_input()
    code, said = served.finish()
    assert code == 0
    assert said == (
        "eventsource serve: a client sent an id that is not in the history: it gets what comes"
        " from now on\n"
    )


def as_line(data, event="message", last_event_id=""):
    return json.dumps({"type": event, "data": data, "last_event_id": last_event_id})


def test_json_lines_are_events(serve):
    served = serve("-", "--jsonl")
    with EventStream(served.url) as stream:
        next(stream)
        served.write(
            as_line("a\nb", "price", "7"), "", as_line("without an id of its own", "message", "7")
        )
        served.write(as_line("c"), '{"data": "d", "more": 1}')
        events = [next(stream) for _ in range(4)]
    assert [event[:3] for event in events[:2]] == [
        ("price", "a\nb", "7"),
        ("message", "without an id of its own", "7"),
    ]
    assert [event.data for event in events[2:]] == ["c", "d"]
    assert len({event.last_event_id for event in events}) == 3
    with EventStream(served.url, last_event_id="7") as again:  # which it may have or have not
        next(again)
        assert next(again).data == "without an id of its own"


def test_the_commands_own_json_lines_can_be_served(serve):
    script = [b"data: 1\nid: 5\n\n", b"event: x\ndata: a\ndata: b\nid: 6\n\n"]
    gate = threading.Event()

    def upstream(connection):
        connection.start_stream()
        gate.wait(LIMIT)
        connection.send(b"".join(script))
        connection.hold()

    with ScriptedServer(upstream) as server:
        command = [sys.executable, "-m", "eventsource", "--format", "jsonl", server.url]
        with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment()) as first:
            try:
                served = serve("-", "--jsonl", stdin=first.stdout)
                with EventStream(served.url) as stream:
                    next(stream)
                    gate.set()
                    assert [next(stream)[:3] for _ in range(2)] == [
                        ("message", "1", "5"),
                        ("x", "a\nb", "6"),
                    ]
            finally:
                gate.set()
                first.kill()
        assert served.process.wait(LIMIT) == 0


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("[1]", "no JSON object"),
        ("[" * 100_000, "no JSON object"),
        ('{"data": 1}', "'data' is missing, or no text"),
        ('{"data": "", "type": null}', "'type' is missing, or no text"),
        ('{"data": "", "type": "a\\nb"}', "event must not contain a line end: 'a\\nb'"),
        ('{"data": "", "last_event_id": "a\\u0000"}', "id must not contain a line end or NUL"),
        ('{"data": "\\ud800"}', ""),
    ],
)
def test_a_line_that_is_no_event_ends_the_command(serve, line, problem):
    served = serve("-", "--jsonl")
    served.write(as_line("fine"), line)
    code, said = served.finish()
    assert code == 2
    (line,) = said.splitlines()
    assert line.startswith(f"eventsource serve: standard input: line 2: {problem}")
    assert len(line) < 700


def test_a_torn_last_line_is_left_out_and_said(serve):
    served = serve("-", "--jsonl")
    with EventStream(served.url, reconnect=None) as stream:
        next(stream)
        served.process.stdin.write(as_line("one").encode() + b'\n{"type": "mess')
        served.end_input()
        assert data_of(item for item in stream if isinstance(item, MessageEvent)) == ["one"]
    assert served.finish() == (
        0,
        "eventsource serve: standard input: line 2: no JSON object: torn, and left out\n",
    )


def test_an_input_that_ends_before_anybody_came_is_said(serve):
    served = serve("-", stdin=subprocess.DEVNULL)
    assert served.finish() == (
        0,
        "eventsource serve: standard input ended before any client came\n",
    )


def test_a_closed_standard_input_is_wrong_use(file):
    command = f'exec "{sys.executable}" -m eventsource serve - <&-'
    done = subprocess.run(
        ["sh", "-c", command], capture_output=True, env=environment(), timeout=LIMIT, check=False
    )
    assert (done.returncode, done.stderr) == (2, b"eventsource serve: standard input: closed\n")


@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_lines_are_found_however_they_are_read(size):
    rest = [b"one\r\n\ntwo\rand\nthree"]

    def read():
        data, rest[0] = rest[0][:size], rest[0][size:]
        return data

    assert [*serving.lines(read)] == [
        (b"one", True),
        (b"", True),
        (b"two\rand", True),
        (b"three", False),
    ]


def test_a_line_without_an_end_is_not_kept_for_ever(monkeypatch):
    monkeypatch.setattr(serving, "MAX_LINE", 1000)
    read = iter([b"x" * 600, b"x" * 600, b"x"]).__next__
    ((line, is_whole),) = serving.lines(read)
    assert (len(line), is_whole) == (1200, False)


def test_an_input_that_does_not_block_is_waited_for():
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    try:
        found = []
        thread = threading.Thread(target=lambda: found.append(serving._read_some(reading)))
        thread.start()
        os.write(writing, b"x")
        thread.join(LIMIT)
        assert found == [b"x"]
    finally:
        os.close(writing)
        os.close(reading)


def test_a_silent_input_brings_heartbeats(monkeypatch):
    monkeypatch.setattr(serving, "HEARTBEAT", 0.01)

    class Silence(serving._Source):
        def serve(self, connection, request, fields):
            connection.send(HEAD)
            client = serving._Client(connection)
            try:
                client.run(b"", lambda: b"")
            finally:
                client.close()

    with serving._Server(Silence(), "127.0.0.1", 0) as server:
        with Client(server.port) as client:
            for _ in range(3):
                client.read_until(b": heartbeat\n\n")
        wait_until(lambda: not server.connections, "it is seen that the client has gone")


# --- Clients that are slow ---


class Slow:
    """A reader as a feed sees it, which a test moves."""

    def __init__(self):
        self.woken = 0
        self.dropped = False

    def wake(self):
        self.woken += 1

    def drop(self):
        self.dropped = True


def test_a_client_that_does_not_read_is_dropped_and_can_resume(monkeypatch):
    monkeypatch.setattr(feeds, "LAG", 3)
    feed = Feed(patience=0.01)
    slow, fast = Slow(), Slow()
    assert feed.join(slow, "", came_here=False)
    assert feed.join(fast, "", came_here=False)
    dropped = []
    for number in range(5):
        dropped.append(feed.put(b"%d" % number, str(number)))
        assert feed.take(fast) == b"%d" % number
    assert dropped == [0, 0, 0, 1, 0]
    assert slow.dropped
    assert not fast.dropped
    assert feed.take(slow) is None
    again = Slow()
    assert feed.join(again, "1", came_here=True)
    assert feed.take(again) == b"234"


def test_the_input_waits_for_a_client_that_reads(monkeypatch):
    monkeypatch.setattr(feeds, "LAG", 3)
    feed = Feed(patience=LIMIT)
    reader = Slow()
    feed.join(reader, "", came_here=False)
    for _ in range(3):
        feed.put(b"x", None)
    done = threading.Event()
    thread = threading.Thread(target=lambda: (feed.put(b"y", None), done.set()))
    thread.start()
    assert not done.wait(0.05)
    assert feed.take(reader) == b"xxxy"
    thread.join(LIMIT)
    assert done.is_set()
    assert not reader.dropped


def test_bytes_count_too_but_one_event_may_have_any_size(monkeypatch):
    monkeypatch.setattr(feeds, "LAG_BYTES", 10)
    feed = Feed(patience=0.01)
    reader = Slow()
    feed.join(reader, "", came_here=False)
    assert feed.put(b"x" * 1000, None) == 0
    assert feed.put(b"x" * 10, None) == 0
    assert feed.put(b"x", None) == 1


def test_the_history_is_bounded(monkeypatch):
    monkeypatch.setattr(feeds, "HISTORY", 3)
    monkeypatch.setattr(feeds, "HISTORY_BYTES", 100)
    feed = Feed()
    for number in range(5):
        feed.put(b"%d" % number, str(number))
    known, unknown, ours = Slow(), Slow(), Slow()
    assert feed.join(known, "3", came_here=False)
    assert feed.take(known) == b"4"
    assert not feed.join(unknown, "0", came_here=False)
    assert feed.take(unknown) == b""
    assert not feed.join(ours, "0", came_here=True)
    assert feed.take(ours) == b"234"
    feed.put(b"x" * 101, "5")
    feed.put(b"6", "6")
    assert not feed.join(Slow(), "4", came_here=True)


def test_a_client_that_reads_nothing_at_the_end_is_not_waited_for():
    feed = Feed(patience=0.01)
    reader = Slow()
    feed.join(reader, "", came_here=False)
    feed.put(b"x", None)
    feed.end()
    assert feed.wait_until_read() == 1
    assert reader.dropped


def test_a_client_that_has_stopped_reading_is_dropped_and_the_others_hear_all(serve):
    served = serve("-")
    count = 20_000
    with Client(served.port) as stuck, EventStream(served.url, reconnect=None) as stream:
        stuck.read_until(b"\r\n\r\n")
        next(stream)

        def write():
            for number in range(count):
                served.process.stdin.write(b"%d %b\n" % (number, b"x" * 1000))
            served.end_input()

        writer = threading.Thread(target=write)
        writer.start()
        heard = [int(event.data.partition(" ")[0]) for event in stream.messages()]
        writer.join(LIMIT)
        assert heard == [*range(count)]
        code, said = served.finish()
        assert code == 0
        assert said == (
            "eventsource serve: dropped 1 client that did not read; who comes again with an id"
            " goes on after it\n"
        )


# --- Who is let in ---


def answer(*fields, method="GET", path="/", host="127.0.0.1:8000", listens_on="127.0.0.1"):
    """The head that a request gets in place of the stream; None: the stream."""
    head = [f"{method} {path} HTTP/1.1", *([f"Host: {host}"] if host else []), *fields]
    found = Door(listens_on).answer(parse_head("\r\n".join(head).encode()))
    return None if found is None else found.response.decode()


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LOCALHOST:80",
        "127.0.0.1",
        "[::1]:8000",
        "10.0.0.7:1",
        "app.localhost",
        "localhost.",
    ],
)
def test_addresses_and_localhost_are_hosts(host):
    assert answer(host=host) is None


@pytest.mark.parametrize(
    "host",
    [
        *("evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "evil-localhost"),
        *("", None, "a@127.0.0.1", "127.0.0.1:x", "[::1", "2130706433", "0x7f.1", "."),
    ],
)
def test_any_other_host_is_refused(host):
    assert answer(host=host).startswith("HTTP/1.1 403 ")


def test_two_hosts_are_refused():
    assert answer("Host: evil.example").startswith("HTTP/1.1 403 ")


def test_the_name_that_it_listens_on_is_a_host():
    assert answer(host="desk.example", listens_on="Desk.example") is None


@pytest.mark.parametrize(
    "origin",
    ["http://localhost:3000", "https://localhost", "http://127.0.0.1:5173", "http://[::1]:1"],
)
def test_a_page_on_localhost_may_read(origin):
    assert answer(f"Origin: {origin}") is None
    head = answer(
        f"Origin: {origin}", "Access-Control-Request-Headers: last-event-id", method="OPTIONS"
    )
    assert head.startswith("HTTP/1.1 204 ")
    assert f"\r\nAccess-Control-Allow-Origin: {origin}\r\n" in head
    assert "\r\nAccess-Control-Allow-Headers: last-event-id\r\n" in head
    assert "\r\nAccess-Control-Allow-Methods: GET, POST\r\n" in head


@pytest.mark.parametrize(
    "origin",
    [
        *("http://evil.example", "null", "http://localhost.evil.example", "file://localhost"),
        *("http://evil.example/localhost", "http://a@localhost", "localhost", "http://10.0.0.8"),
    ],
)
def test_a_page_of_elsewhere_may_not(origin):
    for method in ("GET", "POST", "OPTIONS"):
        head = answer(f"Origin: {origin}", method=method)
        assert head.startswith("HTTP/1.1 403 ")
        assert "Access-Control" not in head


def test_a_page_of_the_host_that_it_asks_may_read():
    assert answer("Origin: http://10.0.0.7:3000", host="10.0.0.7:8000") is None


def test_other_requests_are_told_so():
    assert "\r\nAllow: GET, HEAD, POST, OPTIONS\r\n" in answer(method="DELETE")
    assert answer(path="/favicon.ico").startswith("HTTP/1.1 404 ")


def test_over_the_wire(play, file):
    served = play(file(*TWO_PARTS))
    with Client(served.port, "Origin: http://localhost:3000") as client:
        head = client.read_until(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        assert b"\r\nAccess-Control-Allow-Origin: http://localhost:3000" in head
        client.read_until(b"data: 1\n\n")
    for fields, options, expected in (
        ([], {"host": "evil.example"}, b"HTTP/1.1 403 "),
        (["Origin: http://evil.example"], {}, b"HTTP/1.1 403 "),
        ([], {"method": "HEAD"}, b"HTTP/1.1 200 "),
        ([], {"method": "\x16\x03\x01"}, b"HTTP/1.1 400 "),
        (["Content-Length: 9999999"], {"method": "POST", "body": b"x" * 2**21}, b"HTTP/1.1 400 "),
        (["Last-Event-ID: 4", "Origin: http://localhost"], {}, b"HTTP/1.1 204 "),
    ):
        with (
            contextlib.suppress(ConnectionError),
            Client(served.port, *fields, **options) as client,
        ):
            assert client.read_all().startswith(expected)


def test_there_is_room_for_so_many_and_then_for_others_again(play, file):
    served = play(file(opening(), received(0, block(1)), received(1e6, block(2))), 1.0)
    with contextlib.ExitStack() as stack:
        for _ in range(serving.MAX_CLIENTS):
            client = stack.enter_context(Client(served.port))
            client.read_until(b"data: 1\n\n")
        with Client(served.port) as client:
            assert client.read_all().startswith(b"HTTP/1.1 503 ")

    def is_served():
        with Client(served.port) as client:
            return client.read_until(b"\r\n\r\n").startswith(b"HTTP/1.1 200 ")

    wait_until(is_served, "room for another client")


def test_connections_that_send_nothing_are_bounded_too(play, file, monkeypatch):
    monkeypatch.setattr(serving, "MAX_CONNECTIONS", 2)
    server = play(file(*TWO_EVENTS))
    with (
        socket.create_connection(("127.0.0.1", server.port)),
        socket.create_connection(("127.0.0.1", server.port)),
    ):
        server.wait_for_connection(2)
        with socket.create_connection(("127.0.0.1", server.port), LIMIT) as third:
            assert third.recv(100).startswith(b"HTTP/1.1 503 ")


def test_a_server_that_runs_for_long_keeps_nothing(play, file):
    """Neither connections nor requests."""
    server = play(file(*TWO_EVENTS))
    for _ in range(5):
        with Client(server.port) as client:
            client.read_all()
    wait_until(lambda: not server.connections, "the connections to be gone")
    assert server.requests == []


# --- How it ends, and what it is told ---


@pytest.mark.parametrize(
    ("number", "what", "has_client"),
    [
        ("SIGINT", "recording", False),
        ("SIGTERM", "recording", True),
        ("SIGINT", "input", True),
        ("SIGTERM", "input", False),
    ],
)
def test_signals_end_it_in_order(serve, file, number, what, has_client):
    if what == "input":
        served = serve("-")
    else:
        served = serve(file(opening(), received(0, block(1)), received(1e6, block(2))))
    with contextlib.ExitStack() as stack:
        if has_client:
            client = stack.enter_context(Client(served.port))
            client.read_until(b"\r\n\r\n")
        wait_until_blocked(served.process.pid)
        served.process.send_signal(getattr(signal, number))
        served.process.wait(LIMIT)  # before `finish()` ends the input
        assert served.finish() == ({"SIGINT": 130, "SIGTERM": 143}[number], "")
        if has_client:
            client.read_all()


@pytest.fixture
def fail(capfd):
    """Run the command in this process; return the status and the line that it says."""

    def fail(*arguments):
        code = cli.main(["serve", *map(str, arguments)])
        (line,) = capfd.readouterr().err.splitlines()
        return code, line.removeprefix("eventsource serve: ")

    return fail


def test_what_cannot_be_played_is_told_in_a_line(fail, file, tmp_path):
    for path, problem in (
        (file(b"data: 1\n\n"), "line 1: no JSON object: this is no recording"),
        (file(lines(lost(1))), "there is nothing to play: no connection had opened"),
        (tmp_path / "none", "No such file or directory"),
        (tmp_path, "Is a directory"),
    ):
        code, said = fail(path)
        assert code == 2
        assert said.startswith(f"{path}: {problem}")


def test_where_it_cannot_listen_is_told_in_a_line(fail, file):
    path = file(*TWO_EVENTS)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        in_use = "Address already in use; choose another one with --port"
        assert fail(path, "--port", port) == (2, f"127.0.0.1, port {port}: {in_use}")
    assert fail(path, "--port", 0, "--host", "192.0.2.1") == (
        2,
        "192.0.2.1, port 0: Cannot assign requested address",
    )


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["-", "--speed", "2"], "--speed is for recordings"),
        (["x", "--jsonl"], "--jsonl is for standard input"),
        (["x", "--speed", "0"], "0.0 is not more than 0"),
        (["x", "--speed", "nan"], "nan is not more than 0"),
        (["x", "--port", "70000"], "70000 is not in the range"),
        ([], "Missing argument 'FILE'"),
    ],
)
def test_wrong_use(fail, arguments, problem):
    code, said = fail(*arguments)
    assert code == 2
    assert problem in said


def test_another_address_is_served_if_named_and_a_warning_is_given(serve, file):
    served = serve(file(*TWO_EVENTS), "--host", "0.0.0.0")
    assert served.url == f"http://127.0.0.1:{served.port}/"
    assert data_of(hear(served.url)) == ["1", "2"]
    served.process.send_signal(signal.SIGTERM)
    code, said = served.finish()
    assert code == 143
    (line,) = said.splitlines()
    assert "for development: whoever reaches 0.0.0.0 reads this" in line


@pytest.mark.skipif(not socket.has_ipv6, reason="there is no IPv6")
def test_ipv6(serve, file):
    served = serve(file(*TWO_EVENTS), "--host", "::1")
    if not served.url:
        pytest.skip("there is no ::1 here")
    assert served.url.startswith("http://[::1]:")
    assert data_of(hear(served.url)) == ["1", "2"]


def closed_pipe():
    reading, writing = os.pipe()
    os.close(reading)
    return writing


def full_disk():
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full")
    return os.open("/dev/full", os.O_WRONLY)


@pytest.mark.parametrize(
    ("output", "end"),
    [
        (closed_pipe, (141, "")),
        (full_disk, (23, "eventsource serve: standard output: No space left on device\n")),
    ],
)
def test_an_output_that_cannot_be_written_ends_it(file, output, end):
    writing = output()
    try:
        done = subprocess.run(
            [sys.executable, "-m", "eventsource", "serve", file(*TWO_EVENTS), "--port", "0"],
            stdin=subprocess.DEVNULL,
            stdout=writing,
            stderr=subprocess.PIPE,
            env=environment(),
            timeout=LIMIT,
            check=False,
        )
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr.decode()) == end
