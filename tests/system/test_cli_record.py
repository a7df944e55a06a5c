"""`eventsource URL --record FILE`: what is in the file, and what is there whatever ends it."""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from eventsource import cli, parse
from eventsource.cli.failures import Exit
from eventsource.recording import End, Loss, Opening, Received, read_recording
from eventsource.testing import ScriptedServer, SSEServer
from tests.conftest import secrets_in
from tests.loopback.test_recording import CLIENTS
from tests.real_servers.numbered import event_data
from tests.real_servers.process import Server
from tests.support import (
    LIMIT,
    QUERY_SECRET,
    SECRET,
    port_that_refuses,
    respond,
    status,
    stream,
    wait_until,
    wait_until_blocked,
)
from tests.terminal import environment

HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nSet-Cookie: a=secretcredential\r\n"
    b"X-Request-Id: 42\r\n\r\n"
)
GONE = status("204 No Content")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "recording.jsonl"


@pytest.fixture
def run(capfdbinary):
    """Run the command in this process: status, output, what it said."""

    def run(*arguments):
        capfdbinary.readouterr()
        code = cli.main([str(argument) for argument in arguments])
        captured = capfdbinary.readouterr()
        return code, captured.out, captured.err.decode()

    return run


@pytest.fixture
def start():
    started = []

    def start(*arguments, **options):
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
        process = subprocess.Popen(
            [sys.executable, "-m", "eventsource", *map(str, arguments)],
            env=environment(),
            stdin=subprocess.DEVNULL,
            **options,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate(timeout=LIMIT)


def said(error):
    """The one line that was said."""
    (line,) = error.splitlines()
    return line


def first(data, *, then="close"):
    """A script that sends a header of its own, and bytes."""
    return respond(HEAD + data, then=then)


def test_what_happened_is_recorded(run, path):
    data = b"retry: 20\n\nid: 1\ndata: h\xc3\xa9\n\n"
    with ScriptedServer(first(data), stream(b"data: \xff\n\n", then="reset"), GONE) as server:
        code, out, _ = run("--format", "data", "--record", path, server.url)
    assert code == 0
    assert out == "hé\n\ufffd\n".encode()
    recording = read_recording(path)
    assert recording.url == server.url
    assert recording.started.endswith("Z")
    opened, *rest = recording.records
    assert (opened.status, opened.url, opened.framing) == (200, server.url, "close")
    assert opened.headers == {"Content-Type": "text/event-stream", "X-Request-Id": "42"}
    kinds = [type(record) for record in rest]
    assert kinds == [Received, Loss, Opening, Received, Loss, Loss, End]
    assert rest[0].data == data
    assert (rest[1].reason, rest[1].in_order) == ("the server ended the stream", True)
    assert 0 < rest[1].retry_in < 0.1
    assert rest[3].data == b"data: \xff\n\n"
    assert not rest[4].in_order
    assert rest[5].retry_in is None
    assert rest[6].status == 0
    assert [record.at for record in rest] == sorted(record.at for record in rest)


@pytest.mark.parametrize("format_", ["text", "data", "jsonl", "raw"])
def test_it_is_beside_any_format(run, path, format_):
    with ScriptedServer(first(b": c\n\ndata: 1\n\n")) as server:
        code, out, _ = run("--format", format_, "--record", path, "--no-reconnect", server.url)
    assert code == 0
    assert b"1" in out
    assert read_recording(path).records[1].data == b": c\n\ndata: 1\n\n"


def test_a_recording_of_sse_starlette_is_heard_alike_by_any_client(run, path, tmp_path):
    """With its CRLFs, ids that are not ASCII, and an end after each three events."""
    process = Server("sse_starlette_app.py", tmp_path / "log")
    try:
        process.start()
        url = process.url("/numbers", count=3, then="end")
        _, out, _ = run("--format", "jsonl", "-n", 5, "--record", path, url)
    finally:
        process.stop(signal.SIGKILL)
    printed = [json.loads(line)["data"] for line in out.splitlines()]
    assert printed == [event_data(number) for number in range(1, 6)]
    recorded = b"".join(r.data for r in read_recording(path).records if isinstance(r, Received))
    assert b"\r\n" in recorded
    expected = [event.data for event in parse([recorded])]  # perhaps one more than was printed
    assert expected[:5] == printed
    for listen in CLIENTS:
        with SSEServer() as server:
            server.replay(path, speed=math.inf)
            assert [event.data for event in listen(server.url)] == expected, listen


def test_no_secret_is_recorded(run, path):
    with ScriptedServer(first(b"data: 1\n\n")) as server:
        url = server.url.replace("//", f"//user:{SECRET}@") + f"?key={QUERY_SECRET}"
        code, _, _ = run(
            *("--record", path, "-H", f"X-Key: {SECRET}", "-b", f"a={SECRET}"),
            *("--no-reconnect", url),
        )
    assert code == 0
    assert server.requests[0].header("X-Key") == SECRET
    assert secrets_in(path.read_text()) == set()


ECHOED = (
    f"content-location: /stream?key={QUERY_SECRET}\r\n"
    f"Link: </stream?key={QUERY_SECRET}>; rel=self\r\n"
    f"Refresh: 5; url=/stream?key={QUERY_SECRET}\r\n"
    f"X-Debug: auth={SECRET}\r\n"
    f"X-Asked: key {QUERY_SECRET}\r\n"
    "X-Mobile: ?0\r\n"
)
"""What servers repeat of a request."""


def test_what_a_server_repeats_of_the_secrets_is_neither_recorded_nor_shown(run, path):
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n%b\r\n" % ECHOED.encode()
    body = b"transfer-encoding: chunked\r\n\r\n9\r\ndata: 1\n\n\r\n0\r\n\r\n"
    reply = respond(head.removesuffix(b"\r\n") + body)
    with ScriptedServer(reply) as server:
        code, out, said = run(
            *("-v", "--record", path, "-H", f"Authorization: Bearer {SECRET}", "--format", "data"),
            *("--no-reconnect", f"{server.url}stream?key={QUERY_SECRET}"),
        )
    assert (code, out) == (0, b"1\n")
    written = path.read_text()
    assert secrets_in(written) == secrets_in(said) == set()
    opening = read_recording(path).records[0]
    assert opening.framing == "chunked"
    assert opening.headers == {
        "content-type": "text/event-stream",
        "content-location": "/stream",
        "Link": "</stream>; rel=self",
        "Refresh": "5; url=/stream",
        "X-Debug": "auth=...",
        "X-Asked": "key ...",
        "X-Mobile": "?0",
        "transfer-encoding": "chunked",
    }
    for name, value in opening.headers.items():
        assert f"\n< {name}: {value}\n" in said


def test_the_media_type_is_recorded_also_if_the_request_has_named_it(run, path):
    with ScriptedServer(first(b"data: 1\n\n")) as server:
        run("--record", path, "--no-reconnect", f"{server.url}?as=text/event-stream")
    assert read_recording(path).records[0].headers["Content-Type"] == "text/event-stream"


def test_a_file_that_exists_is_refused_without_force(run, path):
    path.write_text("mine")
    with ScriptedServer(first(b"data: 1\n\n")) as server:
        code, out, error = run("--record", path, server.url)
        assert (code, out) == (2, b"")
        assert said(error) == f"eventsource: --record: {path} exists; --force has it replaced"
        assert path.read_text() == "mine"
        assert server.requests == []
        assert run("--record", path, "--force", "--no-reconnect", server.url)[0] == 0
    assert len(read_recording(path).records) == 4


def test_a_file_is_replaced_when_the_stream_has_opened_and_not_before(run, path):
    path.write_text("mine")
    with port_that_refuses() as port:
        code, _, _ = run("--record", path, "--force", f"http://127.0.0.1:{port}/")
    assert code == Exit.NO_CONNECTION
    assert path.read_text() == "mine"


def test_where_nothing_opened_no_file_is_left(run, path):
    with port_that_refuses() as port:
        assert run("--record", path, f"http://127.0.0.1:{port}/")[0] == Exit.NO_CONNECTION
    assert not path.exists()


@pytest.mark.parametrize("limit", [1, 300, 600, 900, 1500])
def test_max_filesize_is_never_exceeded(run, path, limit):
    data = b"data: %b\n\n" % (b"x" * 100)
    with ScriptedServer(stream(data * 100, then="hold")) as server:
        code, _, error = run("--record", path, "--max-filesize", limit, server.url)
    assert code == 63
    bytes_ = f"{limit:,} byte{'' if limit == 1 else 's'}"
    assert said(error) == f"eventsource: --max-filesize: the recording would exceed {bytes_}"
    assert not path.exists() or path.stat().st_size <= limit


def test_a_limit_without_room_for_a_line_leaves_the_former_recording(run, path):
    path.write_text("former")
    with ScriptedServer(first(b"data: 1\n\n")) as server:
        code, _, _ = run("--record", path, "--force", "--max-filesize", "9", server.url)
    assert code == 63
    assert path.read_text() == "former"


def test_a_recording_that_has_reached_its_size_says_so(run, path):
    def script(connection):
        connection.read_request()
        connection.send(HEAD)
        while True:
            connection.send(b"data: %b\n\n" % (b"x" * 100))

    with ScriptedServer(script) as server:
        code, _, _ = run("--record", path, "--max-filesize", "2k", "-s", server.url)
    assert code == 63
    assert path.stat().st_size <= 2048
    last = read_recording(path).records[-1]
    assert isinstance(last, End)
    assert (last.status, last.reason[:14]) == (63, "--max-filesize")


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--force"], "--force needs --record"),
        (["--max-filesize", "3"], "--max-filesize needs --record"),
        (["--record", "-"], "--record: needs a file, not standard output"),
        (["--record", "x", "-o", "./x"], "--record and --output name the same file"),
        (["--record", "x", "--resume", "x"], "--record and --resume name the same file"),
        (["--record", "x.new", "--resume", "x"], "--record: --resume writes to x.new first"),
        (["--record", "x", "--max-filesize", "much"], "'much' is not a number of bytes"),
        (["--record", "x", "--max-filesize", "0"], "'0' is not a number of bytes"),
        (["--record", "x", "--max-filesize", "-1"], "'-1' is not a number of bytes"),
    ],
)
def test_wrong_use(run, arguments, problem, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, error = run(*arguments, "http://127.0.0.1:9/")
    assert code == 2
    assert problem in said(error)
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize(
    ("text", "size"),
    [("700", 700), ("2k", 2048), ("2K", 2048), ("3m", 3 * 2**20), ("1G", 2**30), ("1t", 2**40)],
)
def test_sizes_are_spelled_as_curl_spells_them(text, size):
    from eventsource.cli.command import size as parse

    assert parse(None, None, text) == size


def test_a_file_that_cannot_be_made_is_status_23(run, tmp_path):
    path = tmp_path / "none" / "x"
    code, _, error = run("--record", path, "http://127.0.0.1:9/")
    assert code == 23
    assert said(error) == f"eventsource: --record: {path}: No such file or directory"


def test_a_folder_is_refused(run, tmp_path):
    code, _, error = run("--record", tmp_path, "http://127.0.0.1:9/")
    assert code == 2
    assert "is a directory" in said(error)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_a_full_disk_ends_the_command(run):
    with ScriptedServer(stream(b"data: 1\n\n", then="hold")) as server:
        code, out, error = run("--record", "/dev/full", "--force", server.url)
    assert (code, out) == (23, b"")
    assert said(error) == "eventsource: /dev/full: No space left on device"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no FIFOs")
def test_a_reader_of_a_fifo_that_goes_ends_the_command(start, path):
    os.mkfifo(path)
    with ScriptedServer(stream(b"data: 1\n\n", then="hold")) as server:
        process = start("--record", path, "--force", server.url, stdout=subprocess.DEVNULL)
        with path.open("rb") as reader:
            assert json.loads(reader.readline())["version"] == 1
            connection = server.wait_for_connection()

        def has_ended_after_more():
            with contextlib.suppress(OSError):
                connection.send(b"data: 2\n\n")
            return process.poll() is not None

        wait_until(has_ended_after_more, "the command to end")
        _, error = process.communicate(timeout=LIMIT)
    assert process.returncode == 23
    assert said(error.decode()) == "eventsource: --record: nobody reads it any more"


@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM", "SIGKILL"])
def test_whatever_ends_it_the_recording_can_be_read(start, path, number):
    with ScriptedServer(stream(b"data: 1\n\n", then="hold")) as server:
        process = start("--record", path, server.url)
        wait_until(lambda: path.exists() and path.read_bytes().count(b"\n") == 3, "three lines")
        wait_until_blocked(process.pid)
        process.send_signal(getattr(signal, number))
        _, error = process.communicate(timeout=LIMIT)
    assert error == b""
    recording = read_recording(path)
    assert not recording.is_torn
    assert recording.records[1].data == b"data: 1\n\n"
    if number == "SIGKILL":
        assert len(recording.records) == 2
    else:
        last = recording.records[-1]
        statuses = {"SIGINT": 130, "SIGTERM": 143}
        assert process.returncode == statuses[number]
        assert last.status == statuses[number]
        assert last.reason == {"SIGINT": "interrupted", "SIGTERM": "terminated"}[number]


def test_a_line_is_there_before_the_event_is_printed_and_the_end_when_the_output_is_closed(
    start, path
):
    with ScriptedServer(stream(b"data: 1\n\n", then="hold")) as server:
        process = start("--format", "data", "--record", path, server.url)
        assert process.stdout.readline() == b"1\n"
        assert read_recording(path).records[1].data == b"data: 1\n\n"
        process.stdout.close()
        assert process.wait(LIMIT) == 141
    assert read_recording(path).records[-1].status == 141
