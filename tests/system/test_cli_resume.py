"""`--resume`: the command is killed at random moments, and started again, and nothing is lost.

`EVENTSOURCE_KILLS=1000 python -m pytest tests/system/test_cli_resume.py -s` is the long run, which
prints what came twice; `EVENTSOURCE_SEED` replays the moments of one that has failed.
"""

from __future__ import annotations

import functools
import itertools
import json
import os
import random
import select
import signal
import subprocess
import sys
import threading
from collections import Counter

import pytest

from eventsource import EventStreamParser, cli
from eventsource.cli.failures import Exit
from eventsource.testing import ScriptedServer
from tests.support import LIMIT, stream, wait_until, wait_until_blocked
from tests.terminal import environment

KILLS = int(os.environ.get("EVENTSOURCE_KILLS", "30"))
"""Half of them with a file as output, half with a pipe."""
SEED = os.environ.get("EVENTSOURCE_SEED") or str(random.SystemRandom().randrange(2**32))
LONGEST = 0.02
"""Seconds that it works at the most before it is killed: some hundred events."""
AT_ONCE = 50
"""Events in one write of the server's: many of them come in one read."""
LARGE = 20_000
"""Characters of data in every fiftieth event: more than a page, so that a kill may tear it."""


def event(number):
    data = f"{number} " + "x" * (LARGE if number % 50 == 0 else 20)
    return b"id: %d\ndata: %b\n\n" % (number, data.encode())


def number_events(connection):
    """Go on after the last event ID, as fast as they are read; at times break off."""
    request = connection.start_stream()
    number = int(request.last_event_id or 0)
    connection.send(b"retry: 20\n")
    for _ in range(20):
        numbers = range(number + 1, number + 1 + AT_ONCE)
        connection.send(b"".join(map(event, numbers)))
        number = numbers[-1]


def number_of(line):
    return int(json.loads(line)["data"].split()[0])


NURSERY = """
import json, os, sys
from eventsource import cli
from eventsource.cli import command  # what takes time to import

for line in sys.stdin:
    out, arguments = json.loads(line)
    child = os.fork()
    if child == 0:
        os.dup2(os.open(out, os.O_WRONLY), 1)
        os._exit(cli.main(arguments))
    print(child, flush=True)
    print(os.waitpid(child, 0)[1], flush=True)
"""
"""Forks processes that need not import anything any more: so a thousand are cheap."""


class Nursery:
    """Starts the command, each time in a process of its own."""

    def __init__(self):
        self._process = subprocess.Popen(
            [sys.executable, "-c", NURSERY],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(),
        )
        self._child = None

    def start(self, out, *arguments):
        """Start it with standard output at a path."""
        print(json.dumps([str(out), arguments]), file=self._process.stdin, flush=True)
        self._child = int(self._process.stdout.readline())

    def kill(self, number=signal.SIGKILL):
        child, self._child = self._child, None
        os.kill(child, number)
        ended = os.waitstatus_to_exitcode(int(self._process.stdout.readline()))
        assert ended == (Exit.TERMINATED if number == signal.SIGTERM else -number)

    def close(self):
        if self._child is not None:  # the test has failed
            self.kill()
        _, said = self._process.communicate(timeout=LIMIT)
        assert said == ""
        assert self._process.returncode == 0


@pytest.fixture
def nursery():
    nursery = Nursery()
    yield nursery
    nursery.close()


class Pipe:
    """A named pipe, and a thread that reads what one process writes into it."""

    def __init__(self, path):
        self.path = path
        os.mkfifo(path)
        self.got = bytearray()
        self._reader = threading.Thread(target=self._read, name="sse-pipe")
        self._reader.start()

    def _read(self):
        with self.path.open("rb", buffering=0) as file:
            while data := file.read(65536):
                self.got += data

    def close(self):
        self._reader.join()
        self.path.unlink()


def kill_often(nursery, tmp_path, kills, number, output):
    """Kill it that often with that signal; return the numbers that have come, and how many were torn."""
    moments = random.Random(SEED)
    place = tmp_path / "place"
    options = ["--format", "jsonl", "--resume", str(place)]
    numbers = []
    torn = 0
    with ScriptedServer(number_events) as server:
        for _ in range(kills):
            before = place.read_bytes() if place.exists() else b""
            if output is None:
                pipe = Pipe(tmp_path / "pipe")
                nursery.start(pipe.path, *options, server.url)
            else:
                nursery.start(os.devnull, *options, "-o", str(output), server.url)
            wait_until(functools.partial(_has_moved, place, before), "an event")
            # Not a wait for a condition: the moment is what is tried.
            select.select([], [], [], moments.random() * LONGEST)
            nursery.kill(number)
            reached = int(place.read_text())
            if output is None:
                pipe.close()
                *lines, rest = bytes(pipe.got).split(b"\n")  # what is cut off is no line
                numbers += map(number_of, lines)
                last = numbers[-1]
            else:
                *_, line, rest = _end_of(output).split(b"\n")
                last = number_of(line)
            torn += rest != b""
            assert last in (reached, reached + 1), "an event was noted, and not written"
    if output is not None:
        lines = output.read_bytes().split(b"\n")[:-1]
        numbers = list(map(number_of, lines))
    return numbers, torn


def _has_moved(place, before):
    return place.exists() and place.read_bytes() not in (before, b"\n")


def _end_of(path):
    """The last bytes of a file, more than two events."""
    with path.open("rb") as file:
        file.seek(-min(file.seek(0, os.SEEK_END), 3 * LARGE), os.SEEK_END)
        return file.read()


def assert_in_order(numbers):
    """Each is the next one, or the one before once more."""
    for one, other in itertools.pairwise(numbers):
        assert other in (one, one + 1), (one, other)


@pytest.mark.timeout(60 + KILLS)
@pytest.mark.parametrize("way", ["file", "pipe"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_nothing_is_lost_by_a_kill(nursery, tmp_path, number, way):
    print(f"EVENTSOURCE_SEED={SEED}")
    kills = KILLS // 2
    numbers, torn = kill_often(
        nursery, tmp_path, kills, number, tmp_path / "events" if way == "file" else None
    )
    assert set(numbers) == set(range(1, max(numbers) + 1)), "an event is lost"
    assert_in_order(numbers)
    twice = sum(count - 1 for count in Counter(numbers).values())
    print(f"{way}: {kills} kills, {max(numbers)} events, {twice} came twice, {torn} were torn")
    assert twice <= kills, "more than the event under way"


# --- The file ---


@pytest.fixture
def follow(tmp_path, capfd):
    """Run the command with a place for two events; return its status and the request."""

    def follow(*options, path=tmp_path / "place"):
        with ScriptedServer(
            stream(b"id: 8\ndata: a\n\nid: gr\xc3\xb6\xc3\x9fer\ndata: b\n\n", then="hold")
        ) as server:
            code = cli.main(["--resume", str(path), "-n", "2", *options, server.url])
        said = capfd.readouterr().err
        return code, said, [request.last_event_id for request in server.requests]

    return follow


def test_the_place_is_a_line_in_a_file(follow, tmp_path):
    assert follow() == (0, "", [""])
    assert (tmp_path / "place").read_bytes() == "größer\n".encode()
    assert follow() == (0, "", ["größer"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["place"]


@pytest.mark.parametrize(
    ("content", "options", "begins"),
    [
        (b"7\n", ["--last-event-id", "5"], "7"),
        (b"", ["--last-event-id", "5"], "5"),
        (None, ["--last-event-id", "5"], "5"),
        (b"\n", ["--last-event-id", "5"], ""),  # the server has said that there is none
        (b" 7\n", [], "7"),  # sent, but a field's value has no spaces around it
    ],
)
def test_where_it_begins(follow, tmp_path, content, options, begins):
    if content is not None:
        (tmp_path / "place").write_bytes(content)
    assert follow(*options) == (0, "", [begins])


def test_a_file_that_holds_something_else_is_left_alone(follow, tmp_path):
    path = tmp_path / "place"
    path.write_bytes(b"7\n8\n")
    code, said, asked = follow()
    assert (code, asked) == (Exit.USAGE, [])
    assert said.startswith(
        f"eventsource: {path}: the last event ID must not contain '\\n' (index 1)"
    )
    assert said.count("\n") == 1
    assert path.read_bytes() == b"7\n8\n"


@pytest.mark.parametrize("what", ["a folder", "a FIFO"])
def test_what_is_no_file_is_wrong_use_and_left_alone(follow, tmp_path, what):
    path = tmp_path if what == "a folder" else tmp_path / "fifo"
    if what == "a FIFO":
        os.mkfifo(path)
    before = path.lstat()
    code, said, asked = follow(path=path)
    assert (code, asked) == (Exit.USAGE, [])
    assert said.startswith("eventsource: ")
    assert said.count("\n") == 1
    assert str(path) in said
    assert ("not a regular file" in said) == (what != "a folder")
    assert "--resume" in said
    after = path.lstat()
    assert (after.st_ino, after.st_mode) == (before.st_ino, before.st_mode)


def test_the_output_is_not_where_a_place_is_written_first(follow, tmp_path):
    path = tmp_path / "place.new"
    code, said, asked = follow("-o", str(path))
    assert (code, asked) == (Exit.USAGE, [])
    assert said.startswith(f"eventsource: --output: --resume writes to {path} first")
    assert not path.exists()


def test_a_folder_that_is_not_there_or_cannot_be_written(follow, tmp_path):
    path = tmp_path / "missing" / "place"
    said = f"eventsource: {path}: No such file or directory\n"
    assert follow(path=path) == (Exit.NO_OUTPUT, said, [])
    (tmp_path / "place.new").mkdir()  # what root may not do either
    said = f"eventsource: {tmp_path / 'place'}: Is a directory\n"
    assert follow() == (Exit.NO_OUTPUT, said, [])


def test_a_place_that_cannot_be_written_any_more_ends_it(tmp_path, capfd):
    place = tmp_path / "folder" / "place"
    place.parent.mkdir()

    def script(connection):
        connection.start_stream()
        (tmp_path / "folder").rename(tmp_path / "moved")
        connection.send(b"id: 1\ndata: 1\n\nid: 2\ndata: 2\n\n")
        connection.hold()

    with ScriptedServer(script) as server:
        assert cli.main(["--resume", str(place), "--format", "data", server.url]) == Exit.NO_OUTPUT
    done = capfd.readouterr()
    assert done.out == "1\n"  # and not the second, whose place could not be kept either
    assert done.err == f"eventsource: {place}: No such file or directory\n"


def test_an_event_that_is_not_printed_moves_the_place(tmp_path, capfd):
    place = tmp_path / "place"
    seen = []

    def script(connection):
        connection.start_stream()
        connection.send(b"id: 1\nevent: other\ndata: x\n\n")
        wait_until(lambda: place.read_bytes() == b"1\n")
        seen.append("1")
        connection.send(b"id: 2\nevent: wanted\ndata: x\n\n")
        connection.hold()

    with ScriptedServer(script) as server:
        options = ["--resume", str(place), "--event", "wanted", "-n", "1", "--format", "data"]
        assert cli.main([*options, server.url]) == 0
    assert seen == ["1"]
    assert place.read_bytes() == b"2\n"


def test_an_id_without_an_event_moves_the_place_when_more_is_read(tmp_path, capfd):
    """Also the empty one, by which the server says that there is none any more."""
    place = tmp_path / "place"
    seen = []

    def script(connection):
        connection.start_stream()
        for block, content in ((b"id: 2\n\n", b"2\n"), (b"id\n\n", b"\n")):
            connection.send(block)
            while place.read_bytes() != content:
                connection.send(b":\n")
                connection.pause(0.005)
            seen.append(content)
        connection.send(b"data: x\n\n")
        connection.hold()

    with ScriptedServer(script) as server:
        options = ["--resume", str(place), "--last-event-id", "1", "-n", "1", "--format", "data"]
        assert cli.main([*options, server.url]) == 0
    assert seen == [b"2\n", b"\n"]


@pytest.mark.parametrize("how", ["by the server", "by a signal"])
def test_an_id_without_an_event_moves_the_place_when_the_command_ends(tmp_path, capfd, how):
    place = tmp_path / "place"

    def script(connection):
        connection.start_stream()
        connection.send(b"id: 1\ndata: x\n\n")
        wait_until(lambda: place.read_bytes() == b"1\n")
        connection.send(b"id: 2\n\n")
        if how == "by a signal":
            wait_until_blocked(os.getpid())  # it has read that
            os.kill(os.getpid(), signal.SIGTERM)
            connection.hold()

    with ScriptedServer(script) as server:
        code = cli.main(["--resume", str(place), "--no-reconnect", server.url])
    assert code == (Exit.TERMINATED if how == "by a signal" else Exit.DONE)
    assert place.read_bytes() == b"2\n"


def test_a_signal_that_comes_while_events_are_parsed_loses_none(tmp_path, capfd, monkeypatch):
    """They are not printed any more, so they must not move the place."""
    place = tmp_path / "place"
    feed = EventStreamParser.feed

    def interrupted(parser, chunk):
        events = feed(parser, chunk)
        if b"id: 2" in chunk:
            signal.raise_signal(signal.SIGTERM)
        return events

    def script(connection):
        connection.start_stream()
        connection.send(b"id: 1\ndata: 1\n\n")
        wait_until(lambda: place.read_bytes() == b"1\n")
        connection.send(b"id: 2\ndata: 2\n\n")
        connection.hold()

    monkeypatch.setattr(EventStreamParser, "feed", interrupted)
    with ScriptedServer(script) as server:
        code = cli.main(["--resume", str(place), "--format", "data", server.url])
    assert code == Exit.TERMINATED
    printed = capfd.readouterr().out
    assert (printed, place.read_bytes()) in (("1\n", b"1\n"), ("1\n2\n", b"2\n"))


def test_the_place_is_that_of_what_was_printed_not_of_what_came(tmp_path, capfd):
    place = tmp_path / "place"
    blocks = b"".join(b"id: %d\ndata: %d\n\n" % (n, n) for n in range(10))
    with ScriptedServer(stream(blocks, then="hold")) as server:
        assert cli.main(["--resume", str(place), "-n", "4", "--format", "data", server.url]) == 0
    assert capfd.readouterr().out == "0\n1\n2\n3\n"
    assert place.read_bytes() == b"3\n"


# --- What a kill or a full disk has cut off ---


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b'{"data": "1"}\n{"da', b'{"data": "1"}\n'),
        (b'{"data": "1"}\n{"data": "2"}', b'{"data": "1"}\n{"data": "2"}\n'),
        (b'{"data": "1"}\n', b'{"data": "1"}\n'),
        (b'{"da', b""),
        (b"", b""),
        (b"1\n{" + b"x" * 200_000, b"1\n"),
        (b"{" + b"x" * 200_000, b""),
        (b"1\n" + b"[" * 100_000, b"1\n"),
    ],
    ids=lambda value: repr(value[:30]),
)
def test_json_lines_remain_json_lines(follow, tmp_path, before, after):
    path = tmp_path / "events"
    path.write_bytes(before)
    assert follow("-o", str(path), "--format", "jsonl")[0] == 0
    content = path.read_bytes()
    assert content.startswith(after)
    added = content[len(after) :].splitlines()
    assert [json.loads(line)["data"] for line in added] == ["a", "b"]


def test_other_formats_are_only_added_to(follow, tmp_path):
    path = tmp_path / "events"
    path.write_bytes(b"old")
    assert follow("-o", str(path), "--format", "data")[0] == 0
    assert path.read_bytes() == b"olda\nb\n"


def test_a_large_event_is_in_one_piece_or_comes_again(tmp_path):
    """A kill in the midst of a write of many pages."""
    place, output = tmp_path / "place", tmp_path / "events"
    size = 8 * 2**20

    def script(connection):
        request = connection.start_stream()
        number = int(request.last_event_id or 0) + 1
        connection.send(b"id: %d\ndata: %b\n\n" % (number, b"x" * size))
        connection.hold()

    options = ["--resume", str(place), "-o", str(output), "--format", "jsonl"]
    with ScriptedServer(script) as server:
        process = subprocess.Popen(
            [sys.executable, "-m", "eventsource", *options, server.url], env=environment()
        )
        try:
            wait_until(lambda: output.exists() and output.stat().st_size > 0, "the first bytes")
        finally:
            process.kill()
            process.wait(LIMIT)
        begun = place.read_bytes()
        assert cli.main([*options, "-n", "1", server.url]) == 0
    numbers = [int(json.loads(line)["last_event_id"]) for line in output.read_bytes().splitlines()]
    assert numbers in ([1], [1, 2], [1, 1]), (numbers, begun)
