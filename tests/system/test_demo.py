"""The demo, as a person starts it."""

from __future__ import annotations

import re
import subprocess
import sys

from eventsource.cli import demo


def test_the_demo_streams_drops_resumes_and_ends():
    command = [sys.executable, "-m", "eventsource", "demo"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 0, done
    assert done.stderr == ""
    kinds = [line.split()[2] for line in done.stdout.splitlines()]
    assert kinds[:2] == ["server", "open"]
    assert kinds.count("open") == 2
    assert kinds.count("error") == 1
    assert kinds.count("message") + kinds.count("price") == 12
    numbers = re.findall(r"\(id (\d+)\)|(error)", done.stdout)
    assert ["".join(each) for each in numbers] == [*"123456", "error", *"789", "10", "11", "12"]
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
