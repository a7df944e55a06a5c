"""The demo, as a person starts it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from eventsource import cli
from eventsource.cli import demo
from eventsource.cli.failures import Exit


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
    assert re.search(r"reconnecting in \d\.\d s with Last-Event-ID: 6\n", done.stdout)


def test_the_demo_needs_no_more_than_ten_seconds():
    events = demo.LAST * demo.INTERVAL
    longest_reconnect = 1.0 * 1.1
    assert events + longest_reconnect < 9


def test_the_demo_says_so_when_events_are_missing(monkeypatch, capsys):
    monkeypatch.setattr(demo, "LAST", 13)  # the server's process still counts to 12
    assert demo.main() == 1
    assert "NOT every event" in capsys.readouterr().out


FULL = Path("/dev/full")


@pytest.mark.skipif(not FULL.exists(), reason="there is no /dev/full")
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("arguments", [["demo"], ["demo", "--help"], ["--version"], ["--help"]])
def test_output_that_cannot_be_written_is_told(arguments, unbuffered):
    with FULL.open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "eventsource", *arguments],
            stdout=full,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
            text=True,
            timeout=50,
            check=False,
        )
    assert done.returncode == Exit.NO_OUTPUT
    assert "No space left on device" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_the_reader_of_the_demo_goes_away(unbuffered):
    with subprocess.Popen(
        [sys.executable, "-m", "eventsource", "demo"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
    ) as process:
        assert process.stdout.readline()
        process.stdout.close()
        assert process.wait(50) == Exit.PIPE_CLOSED
        assert process.stderr.read() == b""


@pytest.mark.parametrize(
    ("arguments", "status"), [(["--help"], Exit.DONE), (["-h"], Exit.DONE), (["x"], Exit.USAGE)]
)
def test_the_demo_takes_no_arguments(arguments, status, capsys):
    assert cli.main(["demo", *arguments]) == status
    said = capsys.readouterr()
    assert ("Usage: eventsource demo\n" in said.out) == (status == Exit.DONE)
    assert ("takes no arguments" in said.err) == (status == Exit.USAGE)
