"""`eventsource relay`."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys

import pytest

from eventsource import cli
from eventsource.testing import ScriptedServer
from tests.relay.numbered import numbered, texts
from tests.support import LIMIT, QUERY_SECRET, SECRET, status, stream, wait_until

pytest.importorskip("click")
pytest.importorskip("rich")


@contextlib.contextmanager
def command(folder, *arguments, **environment):
    """The command in a process, and the file that has what it says."""
    said = folder / "said.txt"
    with said.open("wb") as lines:
        process = subprocess.Popen(
            [sys.executable, "-m", "eventsource", "relay", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=lines,
            stderr=lines,
            env=os.environ | environment,
        )
    try:
        yield process, said
    finally:
        process.kill()
        process.wait(LIMIT)


def ends(folder, *arguments, **environment):
    """Its exit status, and what it has said."""
    with command(folder, *arguments, **environment) as (process, said):
        process.wait(LIMIT)
        return process.returncode, said.read_text()


def test_it_relays_until_sigterm(redis_server, tmp_path):
    with ScriptedServer(numbered(10)) as server, redis_server.client() as client:
        arguments = server.url, redis_server.url, "--stream", "orders", "-H", "X-Key: k"
        with command(tmp_path, *arguments) as (process, said):
            wait_until(lambda: client.xlen("orders") == 10)
            process.send_signal(signal.SIGTERM)
            assert process.wait(LIMIT) == 143
        assert [entry["data"] for _, entry in client.xrange("orders")] == texts(10)
        assert server.requests[0].header("X-Key") == "k"
        assert not client.exists("{orders}:lease")
    assert said.read_text().splitlines() == [
        f"INFO {server.url}: leading",
        f"INFO {server.url}: open",
    ]


def test_it_relays_into_nats_and_keeps_so_many_events(tmp_path):
    pytest.importorskip("nats")
    from tests.relay.nats_server import NatsServer

    (tmp_path / "nats").mkdir()
    with ScriptedServer(numbered(10)) as server, NatsServer(tmp_path / "nats") as nats:
        arguments = server.url, nats.url, "--stream", "orders", "--maxlen", "4"
        with command(tmp_path, *arguments) as (process, _):
            wait_until(lambda: nats.data()[-1:] == texts(10)[-1:])
            process.send_signal(signal.SIGTERM)
            assert process.wait(LIMIT) == 143
        assert nats.data() == texts(10)[-4:]


def test_with_jsonl_each_line_is_an_object(redis_server, tmp_path):
    with ScriptedServer(status("404 Not Found")) as server:
        url = f"{server.url}?key={QUERY_SECRET}"
        arguments = url, redis_server.url, "--stream", "orders", "--format", "jsonl"
        code, said = ends(tmp_path, *arguments)
    assert code == 22
    found = [json.loads(line) for line in said.splitlines()]
    assert (found[0]["level"], found[0]["message"]) == ("INFO", f"{server.url}: leading")
    assert all(set(line) == {"time", "level", "message"} for line in found)
    assert found[-1]["level"] == "ERROR"
    assert found[-1]["message"].startswith(f"{server.url}: the server answered 404")
    assert QUERY_SECRET not in said


def test_the_log_may_be_named_by_the_environment(redis_server, tmp_path):
    with ScriptedServer(status("204 No Content")) as server:
        arguments = server.url, "--stream", "orders"
        code, _ = ends(tmp_path, *arguments, EVENTSOURCE_LOG=redis_server.url)
    assert code == 0


def test_an_engine_that_is_away_is_told_without_its_password(tmp_path):
    log = f"redis://:{SECRET}@127.0.0.1:9"
    with command(tmp_path, "http://127.0.0.1:9/", log, "--stream", "a") as (process, said):
        wait_until(lambda: "the log cannot be written" in said.read_text())
        process.send_signal(signal.SIGINT)
        assert process.wait(LIMIT) == 130
    assert "127.0.0.1:9" in said.read_text()
    assert SECRET not in said.read_text()


def test_a_stream_that_no_relay_can_go_on_with_ends_it(redis_server, tmp_path):
    with ScriptedServer(stream(b"id: \x01\ndata: x\n\n", then="hold")) as server:
        code, said = ends(tmp_path, server.url, redis_server.url, "--stream", "orders")
    assert code == 1
    assert "can be sent in no request" in said


def test_each_option_is_given_to_the_relay(monkeypatch):
    from eventsource.cli import relaying

    made = {}

    class Noted:
        last_event_id, leading = "", False

        def __init__(self, url, sink, **options):
            made.update(options, url=url, sink=sink)

        def run(self):
            """The server ends the stream at once."""

        close = run

    monkeypatch.setattr(relaying, "Relay", Noted)
    monkeypatch.setattr(relaying, "_sink", lambda *arguments: arguments)
    options = "--lease 7 --maxlen 5 --allow-gaps --event-timeout 9 --retry-status 503 --stream a"
    arguments = ["relay", *options.split(), "-H", "X-Key: k", "host/path", "redis://host/0"]
    assert cli.main(arguments) == 0
    assert made.pop("reconnect").statuses == {503}
    assert made == {
        "sink": ("redis://host/0", "a", 5),
        "url": "http://host/path",
        "lease": 7.0,
        "allow_gaps": True,
        "headers": {"X-Key": b"k"},
        "event_timeout": 9.0,
    }


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (["http://host/", "redis://host"], "--stream"),
        (["http://host/", "--stream", "a"], "LOG"),
        (["http://host/", f"http://u:{SECRET}@host", "--stream", "a"], "LOG"),
        (["http://host/", f"redis://u:a/{SECRET}@host", "--stream", "a"], "url"),
        (["http://host/", "redis://host", "--stream", "{"], "name"),
        (["http://host/", "redis://host", "--stream", "a", "--lease", "0"], "--lease"),
        (
            ["http://host/", "nats://host", "--stream", "a", "--lease", "0.05"],
            "lease must be at least 0.1",
        ),
        (["http://host/", "redis://host", "--stream", "a", "--maxlen", "0"], "--maxlen"),
        (["http://host/", "nats://host", "--stream", "a b"], "name"),
        (["http://host/", "redis://host", "--stream", "a", "-H", "x"], "-H"),
    ],
)
def test_wrong_use_is_status_2_and_a_line_that_names_it(capfd, arguments, name):
    assert cli.main(["relay", *arguments]) == 2
    said = capfd.readouterr().err
    assert said.startswith("eventsource relay: ")
    assert said.count("\n") == 1
    assert name in said
    assert SECRET not in said


def test_help_says_what_it_does(capfd):
    assert cli.main(["relay", "--help"]) == 0
    assert "Usage: eventsource relay [OPTIONS] URL LOG" in capfd.readouterr().out


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_a_terminal_has_a_line_of_status_below_the_log_lines(redis_server):
    import pty

    controller, terminal = pty.openpty()
    with ScriptedServer(numbered(10)) as server:
        arguments = server.url, redis_server.url, "--stream", "orders", "--lease", "0.3"
        process = subprocess.Popen(
            [sys.executable, "-m", "eventsource", "relay", *arguments],
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
            env=os.environ | {"TERM": "xterm", "COLUMNS": "100"},
        )
        os.close(terminal)
        seen = b""
        try:
            while b"leading, up to '10'" not in seen:
                seen += os.read(controller, 65536)  # pytest's limit of time ends it
            process.send_signal(signal.SIGTERM)
            with contextlib.suppress(OSError):  # the terminal has gone with the process
                while more := os.read(controller, 65536):
                    seen += more
            assert process.wait(LIMIT) == 143
        finally:
            process.kill()
            process.wait(LIMIT)
            os.close(controller)
    assert f"INFO {server.url}: leading".encode() in seen


def test_sigterm_ends_it_although_redis_hangs(redis_server, tmp_path):
    with ScriptedServer(numbered(10)) as server, redis_server.client() as client:
        arguments = server.url, redis_server.url, "--stream", "orders", "--lease", "3"
        with command(tmp_path, *arguments) as (process, said):
            wait_until(lambda: client.xlen("orders") == 10)
            redis_server.signal(signal.SIGSTOP)
            wait_until(lambda: "Redis: TimeoutError" in said.read_text())
            process.send_signal(signal.SIGTERM)
            assert process.wait(LIMIT) == 143
            assert "left to run out: Redis has not answered in time" in said.read_text()
