"""What is told by programs of their own, and by their forks."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from eventsource.testing import ScriptedServer
from tests.support import (
    LIMIT,
    port_that_refuses,
    respond,
    status,
    stream,
)


@pytest.fixture
def refused():
    with port_that_refuses() as port:
        yield f"http://127.0.0.1:{port}/"


@pytest.mark.parametrize("kind", ["down", "401", "html", "no tls", "no name"])
def test_the_first_failure_that_a_new_user_meets_is_on_standard_error(kind, refused):
    scripts = {
        "401": status("401 Unauthorized"),
        "html": respond(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<p>"),
        "no tls": respond(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
    }
    program = (
        "import sys, eventsource\n"
        "source = eventsource.EventSource(sys.argv[1], on_message=print)\n"
        "source.join()\n"
    )
    with ScriptedServer(scripts.get(kind, status("500 x"))) as server:
        urls = {
            "down": refused,
            "no tls": server.url.replace("http", "https"),
            "no name": "http://no-such-host.invalid/",
        }
        process = subprocess.Popen(
            [sys.executable, "-c", program, urls.get(kind, server.url)],
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            line = process.stderr.readline()
        finally:
            process.kill()
            process.communicate()
    words = {"down": "refused", "401": "401 Unauthorized", "html": "'text/html'"}
    assert words.get(kind, "Error") in line


FORK = """
import logging, os, sys, threading, time
from eventsource import EventSource, EventStream, ForkedError

told = []

class Told(logging.Handler):
    def emit(self, record):
        if held is not None:
            held.acquire()
        told.append((record.levelname, record.getMessage()))

logging.getLogger("eventsource").addHandler(Told())
held = None
url = sys.argv[1]
opened = threading.Event()
source = EventSource(url, on_open=lambda _: opened.set())
stream = EventStream(url)
next(stream)
assert opened.wait(30)

def in_child(check):
    child = os.fork()
    if child == 0:
        try:
            check()
        except BaseException:
            import traceback
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0

def warned(count):
    end = time.monotonic() + 30
    while len(told) < count and time.monotonic() < end:
        time.sleep(0.001)
    return told
"""


def fork(program, url):
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORK + program, url],
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
        env={**os.environ, "NO_PROXY": "*"},
    )
    assert (done.returncode, done.stderr) == (0, "")


needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks")


@needs_fork
def test_what_a_fork_closes_says_so_once_in_the_child_and_not_in_the_parent():
    with ScriptedServer(stream(then="hold")) as server:
        fork(
            """
def check():
    text = f"{url}: closed: the process has been forked; make it, or start it, in the child"
    assert warned(2) == [("WARNING", text)] * 2, told  # the source and the stream
    for each in (source, stream):
        assert isinstance(each.error, ForkedError)
    for refused in (source.start, source.__enter__, stream.__enter__):
        try:
            refused()
        except RuntimeError:
            pass
        else:
            raise AssertionError(refused)
    assert list(stream) == []
    try:
        list(stream.messages())
    except ForkedError:
        pass
    else:
        raise AssertionError("nothing was raised")

in_child(check)
assert told == []
assert source.error is stream.error is None
""",
            server.url,
        )


@needs_fork
def test_a_source_that_was_not_started_is_started_in_the_child():
    with ScriptedServer(stream(b"data: x\n\n", then="hold")) as server:
        fork(
            """
source.close()
stream.close()
heard = []
idle = EventSource(url, start=False, on_message=heard.append)
unbegun = EventStream(url)

def check():
    with idle:
        idle.start()
        while not heard:
            assert not idle.join(0.001)
    assert next(iter(unbegun.messages())).data == "x"
    assert told == [], told

in_child(check)
assert next(iter(unbegun.messages())).data == "x"  # and in the parent, too
""",
            server.url,
        )


@needs_fork
def test_a_child_that_ends_at_once_has_said_so():
    with ScriptedServer(stream(then="hold")) as server:
        fork(
            """
receiving, sending = os.pipe()

class Sent(logging.Handler):
    def emit(self, record):
        threading.Event().wait(0.02)  # as a slow one takes
        os.write(sending, b"x")

logging.getLogger("eventsource").addHandler(Sent())
child = os.fork()
if child == 0:
    os._exit(0)
os.waitpid(child, 0)
os.close(sending)
assert os.read(receiving, 10) == b"xx"  # the source and the stream
""",
            server.url,
        )


@needs_fork
def test_a_log_handler_that_another_thread_holds_does_not_stop_the_child():
    with ScriptedServer(stream(then="hold")) as server:
        fork(
            """
held = threading.Lock()
held.acquire()  # for ever, as far as the child is concerned

def check():
    assert isinstance(source.error, ForkedError)
    assert told == []

in_child(check)
""",
            server.url,
        )
