"""The command in a real pseudo-terminal: what is to be seen, and how it is left.

With `EVENTSOURCE_PICTURES=docs/images`, pictures of what is seen are stored there.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import threading
from pathlib import Path

import pytest

from eventsource.cli.failures import Exit
from eventsource.testing import ScriptedServer
from tests.conftest import secrets_in
from tests.support import HEAD, LIMIT, SECRET, respond, status, stream, wait_until
from tests.terminal import Terminal, command

HI = b"data: hi\n\n"

TIMES = [(r"\d\d:\d\d:\d\d\.\d{3}", "12:34:56.789"), (r"\b\d+\.\d/s", "1.0/s")]
"""What differs from picture to picture, and what stands for it."""


@pytest.fixture
def store(tmp_path):
    """Store a picture of a terminal, where pictures are wanted; and see that it is the same."""

    def store(terminal, name, title, **options):
        path = Path(os.environ.get("EVENTSOURCE_PICTURES", tmp_path)) / f"{name}.svg"
        terminal.picture(path, title, **options)
        once = path.read_bytes()
        terminal.picture(path, title, **options)
        assert path.read_bytes() == once
        assert b"url(http" not in once

    return store


ORDER = {
    "order": 1815,
    "customer": {"name": "Ada Lovelace", "city": "London"},
    "lines": [{"sku": "A-7", "count": 2, "price": 19.5}, {"sku": "B-2", "count": 1, "price": 4.25}],
    "paid": True,
    "coupon": None,
}
EVENTS = b"".join(
    [
        b"retry: 60000\n",
        b'event: price\nid: 41\ndata: {"symbol": "ACME", "price": 101.5, "up": true}\n\n',
        b"id: 42\ndata: The market is open.\ndata: Have a good day.\n\n",
        b"event: order\nid: 43\ndata: %b\n\n" % json.dumps(ORDER).encode(),
        b'event: price\nid: 44\ndata: {"symbol": "ACME", "price": 101.75, "up": true}\n\n',
    ]
)


def interrupt(terminal):
    """Press Ctrl-C, and see the command end."""
    terminal.type("\x03")
    assert terminal.finish() == Exit.INTERRUPTED


def test_events_and_the_line_of_status(store):
    proceed = threading.Event()

    def script(connection):
        connection.start_stream()
        connection.send(EVENTS)
        proceed.wait(LIMIT)

    with ScriptedServer(script) as server, command(server.url, rows=36) as terminal:
        terminal.wait_for("4 events")
        assert re.fullmatch(r"● OPEN · 4 events · \d\.\d/s · \d+ bytes", terminal.status)
        store(
            terminal,
            "terminal-events",
            "eventsource https://example.com/stream",
            replacements=TIMES,
        )
        seen = re.sub(r"\d\d:\d\d:\d\d\.\d{3}", "TIME", terminal.text)
        proceed.set()
        terminal.wait_for("next attempt in ")
        assert re.fullmatch(  # a tenth more at the most, and what has passed before this looks
            r"● CONNECTING · next attempt in [56]\d s · the server ended the stream · 4 events…",
            terminal.status,
        )
        store(
            terminal,
            "terminal-reconnecting",
            "eventsource https://example.com/stream",
            replacements=[*TIMES, (r"next attempt in \d\d s", "next attempt in 57 s")],
            last=10,
        )
        interrupt(terminal)
        terminal.assert_in_order()
    assert seen.startswith(
        "TIME  price  id 41\n"
        '{"symbol": "ACME", "price": 101.5, "up": true}\n'
        "\n"
        "TIME  message  id 42\n"
        "The market is open.\n"
        "Have a good day.\n"
        "\n"
        "TIME  order  id 43\n"
        "{\n"
        '  "order": 1815,\n'
        '  "customer": {\n'
        '    "name": "Ada Lovelace",\n'
    )
    assert b"\x1b[1;36m  price" in terminal.raw  # in colour
    assert b'\x1b[32m"Ada Lovelace"' in terminal.raw


def test_verbose(store):
    head = HEAD.removesuffix(b"\r\n") + b"Server: nginx\r\nSet-Cookie: a=b\r\n\r\n"
    with ScriptedServer(respond(head + b": heartbeat\n" + EVENTS, then="hold")) as server:
        options = ["-v", "-H", f"Authorization: Bearer {SECRET}", "--last-event-id", "40"]
        with command(*options, "--event", "price", server.url + "stream") as terminal:
            terminal.wait_for("2 events")
            address = f"127\\.0\\.0\\.1:{server.port}"
            shown = "example.com".ljust(len(f"127.0.0.1:{server.port}"))
            agent = r"eventsource-client/[\d.]+"
            length = len(re.search(agent, terminal.text).group())
            store(
                terminal,
                "terminal-verbose",
                "eventsource -v --event price https://example.com/stream",
                replacements=[
                    *TIMES,
                    (
                        rf"http://{address}(\S*)",
                        lambda m: f"https://example.com{m.group(1)}".ljust(len(m.group())),
                    ),
                    (address, shown),
                    (agent, "eventsource-client/1.0.0".ljust(length)),
                ],
            )
            lines = terminal.lines
            interrupt(terminal)
        terminal.assert_in_order()
    assert lines[0] == f"* connecting to {server.url}stream"
    for line in (
        *("> GET /stream", "> Authorization: ...", "> Last-Event-ID: 40"),
        *("< 200 OK", "< Server: nginx", "< Set-Cookie: ...", "* comment: heartbeat"),
    ):
        assert line in lines
    assert not secrets_in(terminal.raw.decode())


ORDERS = "\x1b[2J\x1b]0;title\x07\x9b31m\x0b\r\x08\x7f\u202ereversed\u2066"


def test_a_server_gives_the_terminal_no_orders():
    """Not in types, ids, data of any format, comments, header fields, statuses."""
    head = HEAD.decode().removesuffix("\r\n") + "X-Evil: \x1b[2J\x9b2J\r\n\r\n"
    block = f"event: {ORDERS}\nid: {ORDERS}\ndata: {ORDERS}\n\n".replace("\r", "")
    json_block = f"data: {json.dumps([ORDERS])}\ndata: \n\n"
    body = head.encode("latin-1") + f": {ORDERS}\n{block}{json_block}".encode()
    allowed = re.compile(rb"\x1b\[[0-9;]*m|\r\x1b\[K|\r\n")
    for format_ in ("text", "data", "jsonl", "raw"):
        with ScriptedServer(respond(body)) as server:
            with command("-v", "--no-reconnect", "--format", format_, server.url) as terminal:
                assert terminal.finish() == 0
        terminal.assert_in_order()
        rest = allowed.sub(b"", bytes(terminal.raw)).decode()
        assert not re.search("[\x00-\x1f\x7f-\x9f\u202e\u2066]", rest), (format_, rest)
        assert "reversed" in rest
    reason = f"404 \x1b[2J{ORDERS}".replace("\r", "").encode()
    with ScriptedServer(respond(b"HTTP/1.1 " + reason + b"\r\n\r\n")) as server:
        with command("-v", server.url + "\x1b[2J") as terminal:
            assert terminal.finish() in (Exit.STATUS, Exit.NO_CONNECTION)
    rest = allowed.sub(b"", bytes(terminal.raw)).decode()
    assert not re.search("[\x00-\x1f\x7f-\x9f\u202e\u2066]", rest), rest


def test_an_error_is_one_line_in_the_place_of_the_status():
    scripts = [stream(b"retry: 4000\n" + HI), status("404 Not Found")]
    with ScriptedServer(*scripts) as server, command(server.url) as terminal:
        shown = "● CONNECTING · next attempt in [1-5] s · the server ended the stream · 1 event"
        terminal.wait_for(lambda t: re.match(shown, t.status))
        assert terminal.finish() == Exit.STATUS
        terminal.assert_in_order()
        assert terminal.text.splitlines()[1:] == [
            "hi",
            "",
            f"eventsource: {server.url}: the server answered 404 Not Found, not 200",
        ]


@pytest.mark.parametrize(
    ("number", "code"),
    [
        ("\x03", Exit.INTERRUPTED),
        (signal.SIGTERM, Exit.TERMINATED),
    ],
)
def test_it_ends_in_the_middle_of_printing_and_leaves_the_terminal_in_order(number, code):
    """A stream that is busier than any terminal."""

    def script(connection):
        connection.start_stream()
        block = b'event: busy\ndata: {"a": [1, 2, {"b": "%b"}]}\n\n' % (b"x" * 100)
        while True:
            connection.send(block * 100)

    with ScriptedServer(script) as server, command(server.url) as terminal:
        terminal.wait_for(lambda t: "busy" in t.text and "OPEN" in t.status)
        if isinstance(number, str):
            terminal.type(number)
        else:
            terminal.send_signal(number)
        assert terminal.finish() == code
        terminal.assert_in_order()
        assert b"Traceback" not in terminal.raw


def test_even_a_kill_leaves_the_cursor_and_no_colour():
    with ScriptedServer(stream(HI, then="hold")) as server, command(server.url) as terminal:
        terminal.wait_for("● OPEN · 1 event · ")
        terminal.send_signal(signal.SIGKILL)
        assert terminal.finish() == -signal.SIGKILL
        terminal.assert_plain()


def test_a_terminal_that_takes_nothing_does_not_keep_it_from_ending():
    block = b"data: hi %b\n\n" % (b"x" * 1000)  # with less in each, a read takes long to show
    with ScriptedServer(stream(block * 10_000, then="hold")) as server:
        with command(server.url) as terminal:
            terminal.wait_for("hi")
            terminal.stop_reading()
            wait_until(lambda: _is_waiting(terminal.process.pid), "it to be blocked")
            terminal.send_signal(signal.SIGTERM)
            assert terminal.process.wait(LIMIT) == Exit.TERMINATED


def test_no_colour_remains_of_a_line_that_is_cut_off():
    block = b'id: %b\ndata: {"a": "%b"}\n\n' % (b"7" * 5000, b"x" * 15_000)
    with ScriptedServer(stream(block * 100, then="hold")) as server:
        with command("-s", server.url) as terminal:
            terminal.wait_for("xxx")
            terminal.stop_reading()
            wait_until(lambda: _is_waiting(terminal.process.pid), "it to be blocked")
            terminal.send_signal(signal.SIGTERM)
            assert terminal.finish() == Exit.TERMINATED
            terminal.assert_plain()


def _is_waiting(pid):
    """Whether all threads of a process wait, by the kernel's account."""
    states = []
    for _ in range(3):
        for task in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(FileNotFoundError):
                states.append((task / "stat").read_text().rpartition(")")[2].split()[0])
        threading.Event().wait(0.02)
    return set(states) == {"S"}


def test_the_line_of_status_fits_the_terminal_and_follows_its_size():
    with ScriptedServer(stream(b"retry: 60000\n" + HI)) as server:
        with command(server.url, columns=20) as terminal:
            terminal.wait_for("● CONNECTING · n…")
            assert terminal.lines[2:5] == ["hi", "", "● CONNECTING · n…"]
            terminal.resize(100)
            terminal.wait_for(" · the server ended the stream · 1 event · ")
            assert terminal.text.count("●") == 1
            terminal.resize(12)
            terminal.wait_for("● CONNEC…")
            interrupt(terminal)


def test_long_lines_are_whole_lines_for_whoever_copies_them():
    data = "wörd " * 50 + "🚂" * 30
    with ScriptedServer(stream(f"data: {data}\n\n".encode(), then="hold")) as server:
        with command("-n", "1", server.url, columns=30) as terminal:
            assert terminal.finish() == 0
        assert data.encode() in terminal.raw


@pytest.mark.parametrize(
    ("settings", "colours", "has_status"),
    [
        ({"NO_COLOR": "1"}, False, True),
        ({"TERM": "dumb"}, False, False),
        ({"TERM": "dumb", "FORCE_COLOR": "1"}, None, False),
        ({"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, True, True),
        ({"COLUMNS": "300"}, True, True),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_what_the_environment_says_of_the_terminal(settings, colours, has_status):
    with ScriptedServer(stream('data: {"größer": 1}\n\n'.encode(), then="hold")) as server:
        with command(server.url, env=settings) as terminal:
            terminal.wait_for("}")
            if has_status:
                terminal.wait_for("1 event ")
            interrupt(terminal)
        has_colours = re.search(rb"\x1b\[[0-9;]*3[0-9][0-9;]*m", bytes(terminal.raw)) is not None
        assert colours in (None, has_colours)
        assert (b"OPEN" in terminal.raw) == has_status
        if settings.get("TERM") == "dumb":
            assert b"\x1b" not in terminal.raw or colours is None
        elif "LC_ALL" not in settings:
            terminal.assert_in_order()


def test_silent_has_no_line_of_status():
    with ScriptedServer(stream(HI, then="hold")) as server:
        with command("-s", server.url) as terminal:
            terminal.wait_for("hi")
            interrupt(terminal)
        assert b"OPEN" not in terminal.raw


def test_the_line_of_status_is_not_for_pipes_nor_for_their_terminal(tmp_path):
    with ScriptedServer(stream(HI, then="hold")) as server:
        options = {"stdout": subprocess.PIPE, "env": {"FORCE_COLOR": "1", "TTY_COMPATIBLE": "1"}}
        with command("--format", "data", server.url, **options) as terminal:
            assert terminal.process.stdout.readline() == b"hi\n"
            interrupt(terminal)
            assert terminal.process.stdout.read() == b""
            terminal.process.stdout.close()
        assert bytes(terminal.raw) == b"^C"  # the terminal's own


def test_the_line_of_status_is_on_standard_error_if_the_output_is_a_file(tmp_path):
    path = tmp_path / "events"
    with ScriptedServer(stream(HI, then="hold")) as server:
        with command("-o", str(path), server.url, stdout=subprocess.DEVNULL) as terminal:
            terminal.wait_for("● OPEN · 1 event · ")
            interrupt(terminal)
            terminal.assert_in_order()
        assert path.read_bytes().endswith(b"message\nhi\n\n")
        with command(
            "-v", "-o", str(path), "-n", "1", server.url, stderr=subprocess.PIPE
        ) as terminal:
            assert b"< 200 OK\n" in terminal.process.stderr.read()
            terminal.process.stderr.close()
            assert terminal.finish() == 0
        assert terminal.raw == b""


def test_a_password_is_asked_for_on_the_terminal():
    with ScriptedServer(stream(HI, then="hold")) as server:
        with command("-n", "1", "-u", "größer", server.url, stdin=subprocess.DEVNULL) as terminal:
            terminal.wait_for("Password of größer:")
            terminal.type(f"{SECRET}ü\n")
            assert terminal.finish() == 0
        assert not secrets_in(terminal.raw.decode())
        import base64

        credentials = base64.b64decode(server.requests[0].header("Authorization").split()[1])
        assert credentials.decode() == f"größer:{SECRET}ü"


@pytest.mark.parametrize(("keys", "code"), [("\x03", Exit.INTERRUPTED), ("\x04", Exit.USAGE)])
def test_no_password_is_given(keys, code):
    with command("-u", "ada", "http://localhost:1/") as terminal:
        terminal.wait_for("Password of ada:")
        terminal.type(keys)
        assert terminal.finish() == code
        assert b"Traceback" not in terminal.raw


def test_the_demo_ends_at_once():
    """Its server hears Ctrl-C, too, and does not hurry through the rest."""
    with Terminal("-m", "eventsource", "demo") as terminal:
        terminal.wait_for("event number 1 ")
        interrupt(terminal)
        after = terminal.text.partition("^C")[2]
        assert after.count("event number") <= 1  # the one that had come
        assert "Traceback" not in terminal.text
        assert "error" not in after


def test_a_terminal_that_goes_away_ends_it():
    """Also when nobody sends SIGHUP, as after `disown`."""
    with ScriptedServer(stream(HI, then="hold")) as server:
        master, slave = os.openpty()
        process = subprocess.Popen(
            [*Terminal.python, "-m", "eventsource", server.url],
            stdin=subprocess.DEVNULL,
            stdout=slave,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        os.close(slave)
        assert b"OPEN" in _read_until(master, b"1 event")
        os.close(master)
        assert process.wait(LIMIT) in (Exit.PIPE_CLOSED, Exit.NO_OUTPUT)
        assert b"Traceback" not in process.stderr.read()
        process.stderr.close()


def _read_until(descriptor, what):
    seen = b""
    while what not in seen:
        seen += os.read(descriptor, 4096)
    return seen
