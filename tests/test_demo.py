"""The demo, as a person starts it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from eventsource import EventStream, demo
from eventsource.testing import ScriptedServer

from .support import messages


def run(*command):
    return subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)


@pytest.mark.parametrize(
    "command",
    [
        [sys.executable, "-m", "eventsource", "demo"],
        [str(Path(sys.executable).with_name("eventsource")), "demo"],
    ],
    ids=["module", "script"],
)
def test_the_demo_streams_drops_resumes_and_ends(command):
    done = run(*command)
    assert done.returncode == 0, done
    assert done.stderr == ""
    kinds = [line.split()[2] for line in done.stdout.splitlines()]
    assert kinds[:2] == ["server", "open"]
    assert kinds.count("open") == 2
    assert kinds.count("error") == 1
    assert kinds.count("message") + kinds.count("price") == 12
    assert kinds[-2:] == ["closed", "every"]
    assert "reconnecting in" in done.stdout


def test_the_demo_needs_no_more_than_ten_seconds():
    events = demo.LAST * demo.INTERVAL
    longest_reconnect = 1.0 * 1.1
    assert events + longest_reconnect < 9


def test_the_demo_says_so_when_events_are_missing(monkeypatch, capsys):
    monkeypatch.setattr(demo, "LAST", 13)  # the server's process still counts to 12
    assert demo.main() == 1
    assert "NOT every event" in capsys.readouterr().out


def test_the_demos_server_numbers_drops_half_way_and_goes_on(monkeypatch):
    monkeypatch.setattr(demo, "INTERVAL", 0.0)
    with ScriptedServer(demo.count) as server:
        first = list(EventStream(server.url, reconnect=None))
        second = EventStream(server.url, reconnect=None, last_event_id="6")
        rest = messages(second, 7)
        second.close()
    assert [event.last_event_id for event in first[1:-1]] == list("123456")
    assert [event.last_event_id for event in rest[:-1]] == ["7", "8", "9", "10", "11", "12"]
    assert rest[-1].type == "bye"
