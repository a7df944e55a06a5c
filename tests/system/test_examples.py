"""The examples, each started as a person starts it, against servers whose bytes are shown.

A window is looked at, photographed and closed by `drive`, in a process of its own, which this
file is as well: it runs the example's own `main` and adds nothing but a timer.

With EVENTSOURCE_REQUIRED=1 a missing toolkit is a failure; with EVENTSOURCE_PICTURES=DIR
the pictures of the windows are kept there.
"""

from __future__ import annotations

import importlib.util
import itertools
import json
import os
import queue
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import traceback
from pathlib import Path

import pytest

from eventsource import ReadyState
from eventsource.testing import ScriptedServer
from tests.support import HEAD, LIMIT, status, stream, unavailable, wait_until, wait_until_blocked

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
PROGRAMS = sorted(EXAMPLES.glob("*.py"))

QT_OFFSCREEN = "This plugin does not support propagateSizeHints()\n"
"""What Qt's offscreen platform says of itself, and no other platform does."""


class Program:
    """A program in a process of its own, whose lines can be waited for."""

    def __init__(self, *command, **environment):
        self.process = subprocess.Popen(
            [sys.executable, "-X", "dev", *map(str, command)],
            cwd=ROOT,
            env={**os.environ, "PYTHONUNBUFFERED": "", **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.lines = queue.SimpleQueue()
        self.all_lines = []
        self.errors = ""
        self._readers = [
            threading.Thread(target=self._read_output),
            threading.Thread(target=self._read_errors),
        ]
        for reader in self._readers:
            reader.start()

    def _read_output(self):
        for line in self.process.stdout:
            self.all_lines.append(line.rstrip("\n"))
            self.lines.put(line.rstrip("\n"))

    def _read_errors(self):
        errors = self.process.stderr.read().replace(QT_OFFSCREEN, "")
        # In development mode, asyncio tells of what a busy machine has made slow.
        self.errors = re.sub(
            r"^Executing <.* took [\d.]+ seconds\n", "", errors, flags=re.MULTILINE
        )

    def line(self):
        try:
            return self.lines.get(timeout=LIMIT)
        except queue.Empty:
            raise AssertionError(f"no line came within {LIMIT} s: {self.all_lines}") from None

    def line_with(self, text):
        while text not in (line := self.line()):
            pass
        return line

    def send(self, number):
        wait_until_blocked(self.process.pid)
        self.process.send_signal(number)

    def end(self):
        """Wait for its end by itself; return the status."""
        try:
            return self.process.wait(LIMIT)
        finally:
            self.__exit__()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        for reader in self._readers:
            reader.join()
        self.process.stdout.close()
        self.process.stderr.close()


def example(name, *arguments, **environment):
    return Program(EXAMPLES / name, *arguments, **environment)


def load(name):
    """An example as a module."""
    spec = importlib.util.spec_from_file_location(Path(name).stem, EXAMPLES / name)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def resuming(first, last_event_id, second):
    """A stream that breaks off after `first`, and goes on with `second` for those who ask."""

    def resumed(connection):
        request = connection.read_request()
        assert request.header("Last-Event-ID") == last_event_id
        connection.send(HEAD + second)
        connection.hold()

    return [stream(b"retry: 20\n\n" + first), resumed]


def need(*modules):
    for module in modules:
        if importlib.util.find_spec(module) is None:
            unavailable(f"{module} is not installed")


# --- All of them ---


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.name)
def test_an_example_says_how_it_is_started_and_so_does_the_readme(path):
    text = path.read_text(encoding="utf-8")
    command = f"python examples/{path.name}"
    assert command in text.split('"""')[1]
    assert command in (EXAMPLES / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.name)
def test_wrong_use_is_explained(path):
    if path.name == "qt_window.py":
        need("PySide6")
    with example(path.name, "one", "two", "three") as program:
        assert program.end() in (1, 2)
    assert program.errors.startswith("usage: ")
    assert path.name in program.errors
    assert program.all_lines == []


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("asyncio_program.py", "the stream is closed: "),
        ("feature_flags.py", "failed: "),
        ("service.py", "closed for good"),
    ],
)
def test_a_program_whose_server_refuses_says_why_and_ends_with_status_1(name, told, tmp_path):
    options = ["--state", tmp_path / "state"] if name == "service.py" else []
    with (
        ScriptedServer(status("404 Not Found")) as server,
        example(name, server.url, *options) as program,
    ):
        assert program.end() == 1
    lines = program.all_lines if name == "service.py" else program.errors.splitlines()
    assert any(told in line for line in lines)
    assert "the server answered 404 Not Found, not 200" in lines[-1]


# --- server.py ---


@pytest.fixture(scope="module")
def streams():
    """The URLs of examples/server.py, with a hundred events a second."""
    with example("server.py", "--port", "0", "--interval", "0.01") as server:
        urls = [server.line().split()[0] for _ in range(3)]
        yield {url.rpartition("/")[2]: url for url in urls}
        server.send(signal.SIGINT)
        assert server.end() == 0
    assert server.errors == ""


def test_the_server_has_prices_that_are_resumed(streams):
    with example("asyncio_program.py", streams["prices"], "--seconds", "600") as program:
        for _ in ("handler", "loop"):  # on the third connection
            program.line_with(" 40 ")
        program.send(signal.SIGINT)  # cancels both tasks
        assert program.end() == 0
    assert program.all_lines[-1] == "interrupted"
    assert program.errors == ""
    for way in "handler", "loop":
        numbers = [int(line.split()[1]) for line in program.all_lines if line.startswith(way)]
        assert numbers == list(range(1, max(len(numbers), 40) + 1))


def test_the_server_has_flags(streams):
    with example("feature_flags.py", streams["flags"]) as program:
        assert json.loads(program.line()) == {"dark-mode": False, "page-size": 20}
        program.line_with('"beta": "half of all", "dark-mode": true')
        assert json.loads(program.line())["dark-mode"] is False
        assert json.loads(program.line()) == {"dark-mode": False, "page-size": 20}
        program.send(signal.SIGINT)
        assert program.end() == 0
    assert program.errors == ""


def test_the_server_has_an_answer(streams):
    with example("llm_tokens.py", streams["chat"], "What is a stream?") as program:
        assert program.end() == 0
    assert program.all_lines == ["A stream is a response that has not ended yet. "]


def test_the_server_has_nothing_else(streams):
    with example("llm_tokens.py", streams["prices"], "a POST") as program:
        assert program.end() == 1
    assert program.errors == "failed: the server answered 404 Not Found, not 200\n"


# --- asyncio_program.py ---


def test_the_asyncio_program_ends_when_the_time_is_up():
    with (
        ScriptedServer(stream(then="hold")) as server,
        example("asyncio_program.py", server.url, "--seconds", "0.5") as program,
    ):
        assert program.end() == 0
    assert program.all_lines == ["the time is up"]
    assert program.errors == ""


# --- service.py ---


@pytest.fixture
def state(tmp_path):
    return tmp_path / "last-event-id.txt"


def service(server, state, *options):
    return example("service.py", server.url, "--state", state, *options)


def numbered(number):
    return f"id: {number}\ndata: event {number}\n\n".encode()


def dealt_with(program):
    return [line["id"] for line in map(json.loads, program.all_lines) if "type" in line]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_service_with_its_place_stored(state, number):
    with (
        ScriptedServer(*resuming(numbered(1), "1", b"event: price\n" + numbered(2))) as server,
        service(server, state) as program,
    ):
        program.line_with("event 2")
        wait_until(lambda: state.read_text() == "2", "the second event's place to be stored")
        program.send(number)
        assert program.end() == 0
        assert server.wait_for_connection(2).gone.wait(LIMIT)
    lines = [json.loads(line) for line in program.all_lines]
    assert [(line["level"], line["message"]) for line in lines] == [
        ("INFO", "started"),
        ("INFO", "connected"),
        ("INFO", "event 1"),
        ("WARNING", "connection lost"),
        ("INFO", "connected"),
        ("INFO", "event 2"),
        ("INFO", "stopped"),
    ]
    assert lines[3]["error"] == "the server ended the stream"
    assert (lines[5]["type"], lines[5]["id"]) == ("price", "2")
    assert (lines[6]["reason"], lines[6]["status"]) == (number.name, 0)
    assert program.errors == ""
    assert os.listdir(state.parent) == [state.name]


def test_a_signal_ends_the_service_while_it_waits_to_reconnect(state):
    with (
        ScriptedServer(stream(b"retry: 600000\n\n" + numbered(1))) as server,
        service(server, state) as program,
    ):
        program.line_with("connection lost")
        program.send(signal.SIGTERM)
        assert program.end() == 0
    assert program.errors == ""


def test_a_killed_service_goes_on_where_it_was(state):
    last = 300

    def script(connection):
        number = int(connection.read_request().header("Last-Event-ID") or 0)
        connection.send(HEAD)
        while number < last:
            number += 1
            connection.send(numbered(number))
        connection.hold()

    seen = []
    with ScriptedServer(script) as server:
        for target in (3, 90, last):
            with service(server, state) as program:
                program.line_with(f'"event {target}"')
                if target == last:
                    wait_until(lambda: state.read_text() == str(last), "the last place")
                program.send(signal.SIGKILL)
                program.end()
            seen.append([int(number) for number in dealt_with(program)])
            assert program.errors == ""
    assert sorted({number for run in seen for number in run}) == [*range(1, last + 1)]
    for before, after in itertools.pairwise(seen):
        assert after[0] in (before[-1], before[-1] + 1)  # at least once: one may come again
        assert after == [*range(after[0], after[-1] + 1)]


def test_a_service_whose_state_cannot_be_written_says_so_and_goes_on(state):
    with (
        ScriptedServer(stream(numbered(1), numbered(2), then="hold")) as server,
        service(server, state / "no-such-folder") as program,
    ):
        failure = json.loads(program.line_with("raised"))
        program.line_with("event 2")
        program.send(signal.SIGTERM)
        assert program.end() == 0
    assert failure["level"] == "ERROR"
    assert failure["exception"].startswith("Traceback")
    assert program.errors == ""


def test_a_service_whose_server_is_silent_connects_again(state):
    def silent(connection):
        connection.start_stream()
        connection.send(b"retry: 20\n\n")
        connection.hold()

    scripts = [silent, stream(numbered(1), then="hold")]
    with (
        ScriptedServer(*scripts) as server,
        service(server, state, "--event-timeout", "0.5") as program,
    ):
        program.line_with("no message for 0.5 seconds")
        program.line_with("event 1")
        program.send(signal.SIGTERM)
        assert program.end() == 0


def test_a_service_tries_again_when_the_server_is_busy(state):
    scripts = [status("503 Busy"), stream(numbered(1), then="hold")]
    with ScriptedServer(*scripts) as server, service(server, state) as program:
        program.line_with("event 1")
        program.send(signal.SIGTERM)
        assert program.end() == 0


# --- llm_tokens.py ---


def answer(*blocks, then="close"):
    """Ask; return the program when it has ended, and the one request."""
    with (
        ScriptedServer(stream(*blocks, then=then)) as server,
        example("llm_tokens.py", server.url, "Hello?") as program,
    ):
        program.end()
        (request,) = server.requests
    return program, request


def test_the_tokens_are_printed_up_to_done():
    program, request = answer(
        b'data: {"token": "Hel"}\n\n',
        b'data: {"token": "lo"}\n\n',
        b"data: [DONE]\n\n",
        b'data: {"token": "!"}\n\n',
        then="hold",
    )
    assert (program.process.returncode, program.all_lines, program.errors) == (0, ["Hello"], "")
    assert request.method == "POST"
    assert request.header("Content-Type") == "application/json"
    assert json.loads(request.body) == {"prompt": "Hello?", "stream": True}


def test_tokens_are_printed_as_they_come():
    go_on = threading.Event()

    def script(connection):
        connection.start_stream()
        connection.send(b'data: {"token": "Hel\\n"}\n\n')
        assert go_on.wait(LIMIT)
        connection.send(b'data: {"token": "lo"}\n\ndata: [DONE]\n\n')

    with (
        ScriptedServer(script) as server,
        example("llm_tokens.py", server.url, "Hello?") as program,
    ):
        assert program.line() == "Hel"
        go_on.set()
        assert program.end() == 0
    assert program.all_lines == ["Hel", "lo"]


@pytest.mark.parametrize(
    ("block", "reason"),
    [
        (b"", "the answer ended before it was complete"),
        (b'event: error\ndata: {"message": "overloaded"}\n\n', "overloaded"),
    ],
    ids=["cut off", "error event"],
)
def test_an_incomplete_answer_is_reported_and_not_asked_for_again(block, reason):
    program, _ = answer(b'data: {"token": "Hel"}\n\n', block)
    assert program.process.returncode == 1
    assert program.all_lines == ["Hel"]
    assert program.errors == f"failed: {reason}\n"


def test_a_refused_question_is_reported_with_the_servers_reason():
    busy = status("429 Too Many Requests", "Retry-After: 0", body=b"your quota is used up")
    with ScriptedServer(busy) as server, example("llm_tokens.py", server.url, "Hello?") as program:
        assert program.end() == 1
        assert len(server.requests) == 1
    assert program.errors == (
        "failed: the server answered 429 Too Many Requests, not 200\nyour quota is used up\n"
    )


def test_an_answer_can_be_interrupted():
    with (
        ScriptedServer(stream(b'data: {"token": "Hel\\n"}\n\n', then="hold")) as server,
        example("llm_tokens.py", server.url, "Hello?") as program,
    ):
        assert program.line() == "Hel"
        program.send(signal.SIGINT)
        assert program.end() == 130
    assert program.errors == ""


# --- feature_flags.py ---

PUT = b'event: put\ndata: {"a": {"value": 1, "version": 1}, "b": {"value": 2, "version": 5}}\n\n'


def test_the_flags_follow_each_change():
    patch_b = b'event: patch\ndata: {"name": "b", "value": %b, "version": %b}\n\n'
    delete_b = b'event: delete\ndata: {"name": "b", "version": 7}\n\n'
    blocks = [
        PUT,
        patch_b % (b"3", b"6"),
        patch_b % (b"99", b"6"),  # too late
        patch_b % (b"99", b"2"),  # much too late
        delete_b,
        patch_b % (b"99", b"6"),  # too late to bring it back
        b'event: patch\ndata: {"name": "c", "value": "x", "version": 1}\n\n',
        patch_b % (b"4", b"8"),
    ]
    anew = b'event: put\ndata: {"d": {"value": true, "version": 1}}\n\n'
    with (
        ScriptedServer(stream(b"retry: 20\n\n", *blocks), stream(anew, then="hold")) as server,
        example("feature_flags.py", server.url) as program,
    ):
        assert [json.loads(program.line()) for _ in range(6)] == [
            {"a": 1, "b": 2},
            {"a": 1, "b": 3},
            {"a": 1},
            {"a": 1, "c": "x"},
            {"a": 1, "b": 4, "c": "x"},
            {"d": True},
        ]
        program.send(signal.SIGINT)
        assert program.end() == 0
    assert len(program.all_lines) == 6
    assert program.errors == ""


def test_flags_are_known_from_the_first_put_on_also_without_a_connection():
    example = load("feature_flags.py")
    put = threading.Event()

    def script(connection):
        connection.start_stream()
        connection.send(b"retry: 600000\n\n")
        assert put.wait(LIMIT)
        connection.send(PUT)

    with ScriptedServer(script) as server, example.FeatureFlags(server.url) as flags:
        assert not flags.wait_until_ready(0)
        assert flags.get("a") is None
        assert flags.get("a", "default") == "default"
        put.set()
        assert flags.wait_until_ready(LIMIT)
        server.wait_for_connection().over.wait(LIMIT)
        assert (flags.get("a"), flags.get("b"), flags.get("c", 0)) == (1, 2, 0)
    assert flags.all() == {"a": 1, "b": 2}


def test_a_reader_never_sees_half_a_change():
    example = load("feature_flags.py")
    last = 2000
    blocks = [
        b'event: put\ndata: {"a": {"value": %d, "version": 1}, "b": {"value": %d, "version": 1}}\n\n'
        % (number, number)
        for number in range(last + 1)
    ]
    with (
        ScriptedServer(stream(*blocks, then="hold")) as server,
        example.FeatureFlags(server.url) as flags,
    ):
        assert flags.wait_until_ready(LIMIT)

        def consistent():
            values = flags.all()
            assert values["a"] == values["b"]
            return values["a"] == last

        wait_until(consistent, "the last change")


def test_waiting_for_flags_ends_when_they_are_closed_or_refused():
    example = load("feature_flags.py")
    with ScriptedServer(stream(then="hold")) as server, example.FeatureFlags(server.url) as flags:
        answers = queue.SimpleQueue()
        waiting = threading.Thread(target=lambda: answers.put(flags.wait_until_ready()))
        waiting.start()
        flags.close()
        assert answers.get(timeout=LIMIT) is False
        waiting.join()
    with (
        ScriptedServer(status("403 Forbidden")) as server,
        example.FeatureFlags(server.url) as flags,
    ):
        assert flags.wait_until_ready(LIMIT) is False
        assert flags.error.status == 403


# --- The windows ---

PRICES = [
    (number, "message", f"{number} events so far")
    if number % 5 == 0
    else (number, "price", json.dumps({"symbol": "ACME", "price": 100 + number * number % 37 / 4}))
    for number in range(1, 36)
]
DROP_AFTER = 7
KEEP = 30

WINDOWS = ["tk_window.py", "qt_window.py"]


@pytest.fixture
def environment(request):
    """What the window of the test needs."""
    name = request.getfixturevalue("name")
    if name == "qt_window.py":
        need("PySide6", "PIL")
        return {"QT_QPA_PLATFORM": "offscreen"}
    need("tkinter", "PIL")
    return {"DISPLAY": request.getfixturevalue("display")}


def blocks(first, last):
    return b"".join(
        f"event: {kind}\nid: {number}\ndata: {data}\n\n".encode()
        for number, kind, data in PRICES[first:last]
    )


@pytest.mark.parametrize("closing", ["button", "window manager", "end of main loop"])
@pytest.mark.parametrize("name", WINDOWS)
def test_a_window_shows_the_stream_and_closes_it(name, closing, environment, tmp_path):
    from PIL import Image

    go_on = threading.Event()

    def begin(connection):
        connection.start_stream()
        connection.send(b"retry: 20\n\n")
        assert go_on.wait(LIMIT)
        connection.send(blocks(0, DROP_AFTER))

    def resume(connection):
        request = connection.read_request()
        assert request.header("Last-Event-ID") == str(DROP_AFTER)
        connection.send(HEAD + blocks(DROP_AFTER, None))
        connection.hold()

    with (
        ScriptedServer(begin, resume) as server,
        Program(
            "-m", "tests.system.test_examples", name, server.url, closing, tmp_path, **environment
        ) as program,
    ):
        program.line_with("the window is open")
        go_on.set()
        seen = json.loads(program.line())
        assert program.line() == "main has returned"
        assert program.end() == 0
        assert server.wait_for_connection(2).gone.wait(LIMIT)
    assert program.errors == ""
    assert seen["rows"] == [[str(number), kind, data] for number, kind, data in PRICES[-KEEP:]]
    assert seen["last row is visible"]
    assert seen["status"] == "OPEN"
    if closing != "end of main loop":  # then it is `main` that closes
        assert seen["state when closed"] == "CLOSED"
    assert seen["handlers run in the main thread"]
    with Image.open(tmp_path / "empty.png") as empty, Image.open(tmp_path / "full.png") as full:
        assert list(empty.size) == list(full.size) == seen["size"] == [560, 360]
        assert (
            min(len(picture.convert("RGB").getcolors(560 * 360)) for picture in (empty, full)) > 1
        )
        assert empty.tobytes() != full.tobytes()
    if folder := os.environ.get("EVENTSOURCE_PICTURES"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        shutil.copy(tmp_path / "full.png", Path(folder) / f"{Path(name).stem}.png")


# --- What a window's process runs: the example's `main`, with somebody to look and click ---


class TkHand:
    """Looks at a Tk window and uses it."""

    def __init__(self, window):
        self.window = window
        self.close = {
            "button": window.close_button.invoke,
            "window manager": self._close_from_outside,
            "end of main loop": window.quit,
        }

    def every(self, milliseconds, call):
        if call():
            self.window.after(milliseconds, self.every, milliseconds, call)

    def is_visible(self):
        return self.window.winfo_viewable()

    def status(self):
        return str(self.window.status["text"])

    def rows(self):
        events = self.window.events
        return [
            [str(value) for value in events.item(row, "values")] for row in events.get_children()
        ]

    def shows_last_row(self):
        return bool(self.window.events.bbox(self.window.events.get_children()[-1]))

    def size(self):
        return [self.window.winfo_width(), self.window.winfo_height()]

    def photograph(self, path):
        from PIL import ImageGrab

        self.window.winfo_pointerxy()  # a round trip to the X server: what it has to say is here
        self.window.update()
        self.window.winfo_pointerxy()  # and now all that we had to say has been drawn
        left, top = self.window.winfo_rootx(), self.window.winfo_rooty()
        box = (left, top, left + self.size()[0], top + self.size()[1])
        ImageGrab.grab(box, xdisplay=os.environ["DISPLAY"]).save(path)

    def _close_from_outside(self):
        # What Tk does when the window manager asks.
        tcl = self.window.tk
        tcl.eval(tcl.eval("wm protocol . WM_DELETE_WINDOW") or "destroy .")


class QtHand:
    """Looks at a Qt window and uses it."""

    def __init__(self, window):
        self.window = window
        self.close = {
            "button": window.close_button.click,
            "window manager": lambda: window.windowHandle().close(),
            "end of main loop": self._end_main_loop,
        }

    def every(self, milliseconds, call):
        from PySide6.QtCore import QTimer

        timer = QTimer(self.window)
        timer.timeout.connect(lambda: call() or timer.stop())
        timer.start(milliseconds)

    def is_visible(self):
        return self.window.isVisible()

    def status(self):
        return self.window.status.text()

    def rows(self):
        items = map(self.window.events.topLevelItem, range(self.window.events.topLevelItemCount()))
        return [[item.text(column) for column in range(3)] for item in items]

    def shows_last_row(self):
        events = self.window.events
        last = events.topLevelItem(events.topLevelItemCount() - 1)
        return events.viewport().rect().contains(events.visualItemRect(last))

    def size(self):
        return [self.window.width(), self.window.height()]

    def photograph(self, path):
        assert self.window.grab().save(str(path))

    def _end_main_loop(self):
        from PySide6.QtCore import QCoreApplication

        QCoreApplication.exit(0)


def drive(name, url, closing, folder):
    """Run the example's program; look at its window, take pictures, close it."""
    module = load(name)
    hand_of = TkHand if name == "tk_window.py" else QtHand

    sources, threads = [], set()

    class Driven(module.Window):
        def __init__(self, url):
            super().__init__(url)
            sources.append(self.source)
            hand = hand_of(self)
            hand.every(10, do(steps(self, hand), time.monotonic() + LIMIT))

        def show_open(self, event):
            threads.add(threading.current_thread())
            super().show_open(event)

    def do(conditions, deadline):
        """Return what goes on with the steps as far as it can, and says if there are more."""
        condition = next(conditions)

        def go_on():
            nonlocal condition
            try:
                while condition():
                    condition = next(conditions)
                assert time.monotonic() < deadline, "waited in vain"
            except StopIteration:
                return False
            except BaseException:
                traceback.print_exc()
                os._exit(3)
            return True

        return go_on

    def steps(window, hand):
        yield hand.is_visible
        yield lambda: hand.status() == "OPEN"
        hand.photograph(Path(folder) / "empty.png")
        print("the window is open", flush=True)
        yield lambda: hand.rows() and hand.rows()[-1][0] == str(PRICES[-1][0])
        hand.photograph(Path(folder) / "full.png")
        seen = {
            "rows": hand.rows(),
            "last row is visible": hand.shows_last_row(),
            "status": hand.status(),
            "size": hand.size(),
            "handlers run in the main thread": threads == {threading.main_thread()},
        }
        source = window.source
        assert source.ready_state is ReadyState.OPEN
        hand.close[closing]()
        seen["state when closed"] = source.ready_state.name
        print(json.dumps(seen), flush=True)

    module.KEEP = KEEP
    module.Window = Driven
    module.main(url)
    assert sources[0].join(0), "main has left a thread behind"
    print("main has returned", flush=True)


if __name__ == "__main__":
    drive(*sys.argv[1:])
