"""What programs do to a source: exit, fork, be interrupted, run out of something.

Most of it happens in child processes. They are forked by one process that has imported the
package and has no threads, which takes a tenth of the time of starting Python each time.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import itertools
import json
import os
import random
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest
import requests
from requests.adapters import HTTPAdapter

import eventsource
from eventsource import EventSource, EventStream, ReadyState, ReconnectPolicy
from eventsource.errors import EventTimeout
from eventsource.protocol.parser import EventStreamParser
from eventsource.testing import ScriptedServer
from tests.authority import AUTHORITY, server_context
from tests.support import (
    HEAD,
    LIMIT,
    QUICK,
    Recorder,
    errors,
    messages,
    numbers,
    port_that_never_answers,
    port_that_refuses,
    stream,
    wait_until,
)

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")

ROUNDS = int(os.environ.get("EVENTSOURCE_ROUNDS", "1"))
"""How often each exit is tried. Races when the interpreter ends are rare: 100 find them."""

NURSERY = """
import asyncio, atexit, faulthandler, functools, gc, io, json, logging, os, queue, random
import resource, select, signal, socket, sys, tempfile, threading, time, warnings
from concurrent.futures import ThreadPoolExecutor

import requests

import eventsource
from eventsource import *

LIMIT = 30.0
AT_ONCE = 4
QUICK = ReconnectPolicy(delay=0.02, max_delay=0.05, jitter=0.0)
faulthandler.register(signal.SIGUSR2, all_threads=True)
signal.signal(signal.SIGINT, signal.default_int_handler)
leave = os._exit
asked = []  # names that are looked up, once that hangs

def have_look_ups_hang():
    def resolver(host, port, family=0, kind=0, protocol=0, flags=0):
        if flags:
            raise socket.gaierror("no number")
        asked.append(host)
        threading.Event().wait()

    socket.getaddrinfo = resolver

warnings.simplefilter("error")
warnings.filterwarnings("ignore", message=".*fork.*", category=DeprecationWarning)

def wait_until(condition):
    deadline = time.monotonic() + LIMIT
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError("it does not become so")
        time.sleep(0.002)

def functions(frame):
    while frame is not None:
        yield frame.f_code.co_name
        frame = frame.f_back

def is_in(function, thread="eventsource "):
    "A thread whose name begins so, a reader thread by default, is in a function of that name."
    frames = sys._current_frames()
    found = any(
        function in functions(frames[each.ident])
        for each in threading.enumerate()
        if each.name.startswith(thread) and each.ident in frames
    )
    frames.clear()  # its own is among them: a cycle that would keep them all, and their sockets
    return found

looks = [None]

def is_blocked():
    "The main thread is in a system call: it has not run since the last look."
    with open(f"/proc/self/task/{os.getpid()}/status") as status:
        looks.append([line for line in status if line.startswith(("State", "voluntary"))])
    return looks[-1] == looks.pop(0) and "sleeping" in looks[-1][0]

def born():
    "Fork. Return None in the child."
    files = []
    for _ in range(2):
        file, path = tempfile.mkstemp()
        os.unlink(path)
        files.append(file)
    pid = os.fork()
    if pid:
        return pid, files, time.monotonic() + LIMIT
    for number, file in enumerate([os.open(os.devnull, os.O_RDWR), *files]):
        os.dup2(file, number)
    os.closerange(3, 500)

def finished(pid, files, deadline):
    "Return how it ended; None: not yet."
    done, status = os.waitpid(pid, os.WNOHANG)
    if not done:
        if time.monotonic() < deadline:
            return None
        os.kill(pid, signal.SIGUSR2)  # it says where it hangs
        time.sleep(0.5)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    texts = []
    for file in files:
        os.lseek(file, 0, os.SEEK_SET)
        with open(file) as text:
            texts.append(text.read())
    return [os.waitstatus_to_exitcode(status) if done else "hangs", *texts]

code = None
while code is None and (line := sys.stdin.readline()):
    codes = json.loads(line)
    children = []
    results = {}
    while len(results) < len(codes):
        running = len(children) - len(results)
        if running < AT_ONCE and len(children) < len(codes):
            children.append(born())
            if children[-1] is None:
                code = codes[len(children) - 1]
                break
            continue
        for number, child in enumerate(children):
            if number not in results and (result := finished(*child)) is not None:
                results[number] = result
        time.sleep(0.001)
    else:
        print(json.dumps([results[number] for number in range(len(codes))]), flush=True)
if code is not None:
    del children, codes, results, line, born, finished
    exec(compile(code, "<the program>", "exec"), globals())
"""


class Ended(NamedTuple):
    status: int | str
    """The exit status; minus the number of a signal; or "hangs"."""
    out: str
    err: str


class Nursery:
    """Runs programs, each in a process of its own."""

    def __init__(self, process):
        self._process = process

    def run(self, *programs):
        """Run them, some at a time; return how each has ended."""
        codes = [textwrap.dedent(program) for program in programs]
        self._process.stdin.write(json.dumps(codes) + "\n")
        self._process.stdin.flush()
        return [Ended(*ended) for ended in json.loads(self._process.stdout.readline())]

    def output_of(self, program, **names):
        """Run one that ends well; return what it prints."""
        (ended,) = self.run(with_names(program, **names))
        print(ended.err)
        warning = r"(?m)^http.*: closed: the process has been forked; make it, or start it, in .*\n"
        assert (ended.status, re.sub(warning, "", ended.err)) == (0, "")
        return ended.out


def with_names(program, **names):
    settings = "".join(f"{name} = {value!r}\n" for name, value in names.items())
    return settings + textwrap.dedent(program)


@pytest.fixture(scope="module")
def nursery():
    with subprocess.Popen(
        [sys.executable, "-c", NURSERY],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "NO_PROXY": "*", "NETRC": os.devnull},
    ) as process:
        yield Nursery(process)
        process.stdin.close()
        assert process.wait(LIMIT) == 0


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    path = tmp_path_factory.mktemp("tls") / "authority.pem"
    AUTHORITY.cert_pem.write_to_path(str(path))
    return str(path)


def headers(connection):
    connection.hold()


def silent(connection):
    connection.send(HEAD)
    connection.hold()


def busy(connection):
    """Counts on from the last event ID, without an end."""
    connection.send(HEAD)
    number = int(connection.request.header("Last-Event-ID") or 0)
    while not connection.server.closing.is_set():
        connection.send(b"".join(b"id: %d\ndata: x\n\n" % n for n in range(number, number + 20)))
        number += 20
        connection.pause(0.002)


def one(connection):
    connection.send(HEAD + b"id: 1\ndata: x\n\n")
    connection.hold()


def short(connection):
    connection.send(HEAD + b"retry: 20\n\nid: 1\ndata: x\n\n")


def by_path(connection):
    connection.read_request()
    globals()[connection.request.target.strip("/")](connection)


def all_gone(server):
    for connection in server.connections:
        wait_until(lambda c=connection: c.gone.is_set() or c.over.is_set(), connection.request)


@pytest.fixture
def plain():
    with ScriptedServer(by_path) as server:
        yield server


@pytest.fixture
def tls():
    with ScriptedServer(by_path, ssl_context=server_context()) as server:
        yield server


# --- The interpreter ends ---

STATES = {
    "not-started": "source = EventSource(plain + 'silent', start=False)",
    "just-made": "source = EventSource(plain + 'silent', on_open=id)",
    "name-look-up": """
        have_look_ups_hang()
        source = EventSource("http://some.host/", timeout=None, on_open=id)
        wait_until(lambda: asked)
    """,
    "connecting": """
        source = EventSource(unanswered, timeout=None, on_open=id)
        wait_until(lambda: is_in("wait_for_write"))
    """,
    "tls-handshake": """
        source = EventSource(mute, timeout=None, on_open=id)
        wait_until(lambda: is_in("do_handshake"))
    """,
    "headers": """
        source = EventSource(plain + "headers", timeout=None, on_open=id)
        wait_until(lambda: is_in("getresponse"))
    """,
    "silent": """
        source = EventSource(plain + "silent", on_open=id)
        wait_until(lambda: source.ready_state == 1)
    """,
    "silent-tls": """
        source = EventSource(tls + "silent", verify=authority, on_open=id)
        wait_until(lambda: source.ready_state == 1)
    """,
    "busy": """
        received = []
        source = EventSource(plain + "busy", on_message=received.append)
        wait_until(lambda: received)
    """,
    "busy-tls": """
        received = []
        source = EventSource(tls + "busy", verify=authority, on_message=received.append)
        wait_until(lambda: received)
    """,
    "in-a-handler": """
        entered = []

        def handle(event):
            entered.append(event)
            threading.Event().wait()

        source = EventSource(plain + "one", on_message=handle)
        wait_until(lambda: entered)
    """,
    "back-off": """
        lost = []
        policy = ReconnectPolicy(delay=3600)
        source = EventSource(refusing, reconnect=policy, on_error=lost.append)
        wait_until(lambda: lost)
    """,
    "reconnecting-again-and-again": """
        lost = []
        localhost = plain.replace("127.0.0.1", "localhost")
        source = EventSource(localhost + "short", event_timeout=60, on_error=lost.append)
        wait_until(lambda: lost)
    """,
    "no-listener": """
        source = EventSource(plain + "one")
        wait_until(lambda: source.ready_state == 1)
    """,
    "event-timeout": """
        source = EventSource(plain + "silent", event_timeout=3600, on_open=id)
        wait_until(lambda: source.ready_state == 1)
    """,
    "event-timeout-on-a-session": """
        session = requests.Session()
        source = EventSource(plain + "silent", event_timeout=3600, on_open=id, session=session)
        wait_until(lambda: source.ready_state == 1)
    """,
    "dispatch-to-a-queue": """
        calls = queue.Queue()
        source = EventSource(plain + "busy", on_message=id, dispatch=calls.put)
        wait_until(calls.qsize)
    """,
    "dispatch-to-a-busy-pool": """
        received = []
        pool = ThreadPoolExecutor(2)
        source = EventSource(plain + "busy", on_message=received.append, dispatch=pool.submit)
        wait_until(lambda: received)
    """,
    "dispatch-to-a-loop-that-is-kept": """
        received = []
        loop = asyncio.new_event_loop()
        source = EventSource(
            plain + "one", on_message=received.append, dispatch=loop.call_soon_threadsafe
        )
        while not received:
            loop.run_until_complete(asyncio.sleep(0.001))
        loop.close()
    """,
    "stream": """
        stream = EventStream(plain + "one", event_timeout=3600)
        assert [type(next(stream)).__name__ for _ in range(2)] == ["OpenEvent", "MessageEvent"]
    """,
    "stream-in-a-daemon-thread": """
        received = []
        source = EventStream(plain + "busy")

        def read():
            for event in source.messages():
                received.append(event)

        threading.Thread(target=read, daemon=True).start()
        wait_until(lambda: received)
    """,
    "async-for": """
        async def main():
            global stream, iterator
            stream = EventStream(plain + "busy")
            iterator = aiter(stream)
            await anext(iterator)

        asyncio.run(main())
    """,
    "many": """
        received = []
        urls = [plain + "busy", tls + "busy", plain + "short", tls + "silent", refusing, unanswered]
        sources = [
            EventSource(
                url, verify=authority, on_message=received.append, on_error=id, event_timeout=60
            )
            for url in urls * 3
        ]
        wait_until(lambda: len(received) > 100)
    """,
}

NOTHING = ""
KILLED = None  # stderr is of no interest
ENDS = {
    "falls-off-the-end": ("", 0, NOTHING),
    "sys.exit": ("sys.exit(3)", 3, NOTHING),
    "exception": ("raise ValueError('on purpose')", 1, "ValueError: on purpose"),
    "os._exit": ("os._exit(3)", 3, NOTHING),
    "sigterm": ("os.kill(os.getpid(), signal.SIGTERM); signal.pause()", -15, NOTHING),
    "sigint": ("os.kill(os.getpid(), signal.SIGINT); time.sleep(30)", -2, "KeyboardInterrupt"),
    "close": (
        "for n in ['source', 'stream']:\n    n in globals() and globals()[n].close()",
        0,
        NOTHING,
    ),
    "close-at-exit": (
        "for n in ['source', 'stream']:\n    n in globals() and atexit.register(globals()[n].close)",
        0,
        NOTHING,
    ),
}

IN_EVERY_STATE = ("falls-off-the-end", "close-at-exit")
IN_EVERY_WAY = (
    *("headers", "silent", "busy-tls", "in-a-handler", "back-off", "dispatch-to-a-busy-pool"),
    *("stream", "stream-in-a-daemon-thread", "async-for", "many"),
)


@pytest.fixture(scope="module")
def places(authority):
    """Where the programs may connect to."""

    def mute(connection):
        connection.sock.recv(1)
        connection.hold()

    with (
        ScriptedServer(by_path) as plain,
        ScriptedServer(by_path, ssl_context=server_context()) as tls,
        ScriptedServer(mute) as mute_server,
        port_that_never_answers() as unanswered,
        port_that_refuses() as refusing,
    ):
        yield {
            "plain": plain.url,
            "tls": tls.url,
            "mute": mute_server.url.replace("http:", "https:"),
            "unanswered": f"http://127.0.0.1:{unanswered}/",
            "refusing": f"http://127.0.0.1:{refusing}/",
            "authority": authority,
        }
        for server in (plain, tls, mute_server):
            all_gone(server)


@pytest.mark.timeout(60 + 30 * ROUNDS)
@pytest.mark.parametrize("end", ENDS)
def test_a_program_ends_as_it_would_without_a_source(nursery, places, end):
    last, status, error = ENDS[end]
    programs = [
        (state, with_names(textwrap.dedent(STATES[state]) + f"\n{last}\n", **places))
        for state in (STATES if ROUNDS > 1 or end in IN_EVERY_STATE else IN_EVERY_WAY)
    ] * ROUNDS
    for (state, _), ended in zip(
        programs, nursery.run(*(code for _, code in programs)), strict=True
    ):
        assert (state, ended.status, ended.out) == (state, status, ""), ended.err
        assert ended.err.strip().rpartition("\n")[2] == error, (state, ended.err)
        assert ended.err.count("Traceback") == (1 if error else 0), (state, ended.err)


# --- Forks ---

CONNECTIONS = """
def connections():
    "What is connected, and not just being closed."
    found = []
    for number in os.listdir("/proc/self/fd"):
        try:
            sock = socket.socket(fileno=int(number))
        except OSError:
            continue
        try:
            if sock.family == socket.AF_INET:
                found.append((number, sock.getpeername()))
        except OSError:
            pass
        finally:
            sock.detach()
    return found
"""

FORKING = (
    CONNECTIONS
    + """
import logging
from eventsource import ForkedError

told = []

class Told(logging.Handler):
    def emit(self, record):
        told.append(record.getMessage())

logging.getLogger("eventsource").addHandler(Told())

def in_child(check):
    "Run it in a child of a fork; return what it returns. It is to end in peace."
    receiving, sending = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            answer = repr(check())
        except BaseException as error:
            answer = repr(error)
        os.write(sending, answer.encode())
        leave(0)
    os.close(sending)
    with open(receiving) as answers:
        if not select.select([answers], [], [], LIMIT / 2)[0]:
            os.kill(pid, signal.SIGUSR2)
            time.sleep(0.5)
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise AssertionError("the child hangs")
        answer = answers.read()
    os.waitpid(pid, 0)
    return answer

def closed(source, collect=True, has_begun=True):
    "What a child finds."
    if isinstance(source, SSEClient):
        assert list(source) == []
        source.close()
        assert list(source) == []
    else:
        if has_begun:
            assert source.ready_state is ReadyState.CLOSED, source.ready_state
            assert isinstance(source.error, ForkedError), source.error
            warning = f"{source.url}: closed: the process has been forked"
            wait_until(lambda: any(text.startswith(warning) for text in told))
        else:
            assert source.ready_state is ReadyState.CONNECTING, source.ready_state
            assert source.error is None
            assert told == []
        source.restart()
        source.close()
        if isinstance(source, EventSource):
            try:
                source.start()
            except RuntimeError:
                assert source.join() is True
            source.on("late", id)
            source.remove_listener("late", id)
        else:
            assert list(source) == []
        assert source.ready_state is ReadyState.CLOSED
    wait_until(lambda: threading.active_count() == 1)
    deadline = time.monotonic() + LIMIT / 3
    while left := connections():
        assert time.monotonic() < deadline, left
        time.sleep(0.01)
    if collect:
        gc.collect()
    return "closed"

def counts_on(received, count=200):
    "The numbers have no gap."
    start = len(received)
    wait_until(lambda: len(received) >= start + count)
    numbers = [int(event.last_event_id) for event in received]
    assert numbers == list(range(len(numbers)))
"""
)

# A source or stream in each phase; `received` if it goes on.
PARENTS = {
    state: code
    for state, code in STATES.items()
    if state not in ("just-made", "reconnecting-again-and-again", "async-for", "many")
} | {
    "busy-client-in-a-thread": """
        from types import SimpleNamespace

        received = []
        source = SSEClient(plain + "busy")

        def read():
            for event in source:
                received.append(SimpleNamespace(last_event_id=event.id))

        threading.Thread(target=read, daemon=True).start()
        wait_until(lambda: received)
    """,
}

AFTERWARDS = """
source = globals().get("source") or stream
for _ in range(3):
    answer = in_child(lambda: closed(source, has_begun=has_begun))
    assert answer == "'closed'", answer
if "received" in globals() and source.url.endswith("busy"):
    counts_on(received)
if not isinstance(source, SSEClient):
    assert source.ready_state is not ReadyState.CLOSED
source.close()
leave(0)
"""


def fork_program(code, **names):
    return FORKING + with_names(textwrap.dedent(code), **names)


def test_in_the_child_of_a_fork_sources_are_closed_and_the_parents_go_on(nursery, places):
    programs = {
        state: fork_program(
            textwrap.dedent(code) + AFTERWARDS, has_begun=state != "not-started", **places
        )
        for state, code in PARENTS.items()
    }
    failures = []
    for state, ended in zip(programs, nursery.run(*programs.values()), strict=True):
        if ended != Ended(0, "", ""):
            print(state, *ended)
            failures.append(state)
    assert failures == []


@pytest.mark.parametrize("face", ["source", "stream", "session"])
def test_the_parents_connection_is_the_only_one_and_is_not_disturbed(
    nursery, plain, tls, authority, face
):
    for server in (plain, tls):
        nursery.output_of(
            FORKING
            + """
received = []
session = requests.Session() if face == "session" else None
if face == "stream":
    events = EventStream(url, verify=authority)
else:
    source = EventSource(url, verify=authority, on_message=received.append, session=session)

def child():
    if session is not None:
        session.close()
    else:
        global events, source
        events = source = None
    gc.collect()

if face == "stream":
    last = -1
    for event in events.messages():
        assert int(event.last_event_id) == last + 1
        last += 1
        if last % 40 == 20:
            assert in_child(child) == "None"
        if last == 300:
            break
else:
    wait_until(lambda: received)
    for _ in range(5):
        assert in_child(child) == "None"
        counts_on(received, 60)
    assert source.ready_state is ReadyState.OPEN
""",
            url=server.url + "busy",
            face=face,
            authority=authority,
        )
        assert len(server.connections) == 1


@pytest.mark.parametrize("scheme", ["plain", "tls"])
@pytest.mark.parametrize("session", ["None", "requests.Session()"])
@pytest.mark.parametrize("how", ["close", "exit"])
def test_the_server_sees_the_parent_close_though_the_child_lives(
    nursery, request, authority, *, scheme, session, how
):
    server = request.getfixturevalue(scheme)
    program = """
        source = EventSource(url, verify=authority, on_open=id, session=SESSION)
        wait_until(lambda: source.ready_state == 1)
        child = os.fork()
        if child == 0:
            os.set_inheritable(1, False)
            signal.alarm(60)
            signal.pause()
        print(child, flush=True)
        if how == "close":
            source.close()
            assert source.join(LIMIT)
        leave(0)
    """.replace("SESSION", session)
    child = int(nursery.output_of(program, url=server.url + "silent", how=how, authority=authority))
    try:
        assert server.wait_for_connection().gone.wait(LIMIT)
        os.kill(child, 0)
    finally:
        os.kill(child, signal.SIGKILL)


def test_in_the_child_a_client_returns_nothing_that_the_parent_returns(nursery):
    """Several messages have come in one read, and one of them has been returned."""
    body = b"data: 1\n\ndata: 2\n\ndata: 3\n\n"
    with ScriptedServer(stream(body, then="hold")) as server:
        program = """
            client = SSEClient(url)
            found = [next(client).data]
            assert in_child(lambda: [each.data for each in client]) == "[]"
            found += [next(client).data, next(client).data]
            print(*found)
            leave(0)
        """
        assert nursery.output_of(fork_program(program, url=server.url)).split() == ["1", "2", "3"]


def test_no_lock_that_another_thread_holds_at_the_fork_stops_the_child(nursery, places):
    """Each lock that can be reached from a source is held, one after another.

    But for the one that a fork waits for.
    """
    program = """
        def locks(thing, seen):
            "Yield the locks that can be reached, each with whose it is."
            if isinstance(thing, (threading.Thread, eventsource.runtime.wakeup.Wakeup)):
                return  # whose locks are there to be waited for
            if id(thing) in seen:
                return
            seen[id(thing)] = thing
            if isinstance(thing, (list, tuple, set)):
                values = [*thing]
            elif isinstance(thing, dict):
                values = [*thing.values()]
            elif type(thing).__module__.startswith("eventsource."):
                values = [*getattr(thing, "__dict__", {}).values()]
            else:
                return
            for value in values:
                if isinstance(value, (type(threading.Lock()), type(threading.RLock()))):
                    yield type(thing).__name__, value
                else:
                    yield from locks(value, seen)

        def hold(lock, held, done):
            with lock:
                held.set()
                done.wait()

        def child():
            while not calls.empty():
                calls.get()()
            return closed(source), closed(stream)

        for path in ("silent", "one", "unanswered"):
            calls = queue.Queue()
            where = unanswered if path == "unanswered" else plain + path
            source = EventSource(
                where, on_open=id, dispatch=calls.put, timeout=None, event_timeout=60
            )
            stream = EventStream(plain + "one", event_timeout=60)
            next(stream)
            if path == "silent":
                wait_until(lambda: not calls.empty())
            elif path == "unanswered":
                wait_until(lambda: is_in("wait_for_write"))
            found = [*locks([source, stream], {})]
            for owner, lock in found:
                held, done = threading.Event(), threading.Event()
                threading.Thread(target=hold, args=(lock, held, done), daemon=True).start()
                held.wait()
                answer = in_child(child)
                done.set()
                assert answer == "('closed', 'closed')", (path, owner, answer)
            source.close(), stream.close()
        print(*[owner for owner, _ in found])
        leave(0)
    """
    owners = nursery.output_of(fork_program(program, **places)).split()
    assert {"EventSource", "Engine", "Sockets"} <= {*owners}


def test_a_fork_in_the_middle_of_connecting_does_not_stop_the_child(nursery, places):
    """Another thread is within `connect()`, under its lock, when the process forks."""
    program = """
        inside, done = threading.Event(), threading.Event()

        class Socket(socket.socket):
            def connect(self, address):
                inside.set()
                done.wait()
                super().connect(address)

        original, socket.socket = socket.socket, Socket
        source = EventSource(plain + "silent", on_open=id)
        inside.wait()
        socket.socket = original
        answer = in_child(lambda: closed(source))
        assert answer == "'closed'", answer
        done.set()
        wait_until(lambda: source.ready_state == 1)
        source.close()
        leave(0)
    """
    nursery.output_of(fork_program(program, **places))


def test_new_sources_work_in_the_child(nursery, plain, tls, authority):
    for server in (plain, tls):
        program = """
            def child():
                new = []
                with EventSource(url, verify=authority, on_message=new.append) as source:
                    counts_on(new)
                with EventStream(url, verify=authority) as events:
                    found = [event.type for _, event in zip(range(3), events)]
                return len(new) > 100, found

            received = []
            source = EventSource(url, verify=authority, on_message=received.append)
            wait_until(lambda: received)
            print(in_child(child), in_child(child))
            counts_on(received)
            leave(0)
        """
        answer = "(True, ['open', 'message', 'message'])"
        out = nursery.output_of(fork_program(program, url=server.url + "busy", authority=authority))
        assert out == f"{answer} {answer}\n"
        assert len(server.connections) == 5


def test_a_process_of_multiprocessing_is_such_a_child(nursery, plain):
    program = """
        import multiprocessing

        def child(answers):
            answers.send((closed(source), calls))

        calls = []
        received = []
        source = EventSource(url, on_message=received.append, on_error=calls.append)
        wait_until(lambda: received)
        context = multiprocessing.get_context("fork")
        ours, theirs = context.Pipe()
        process = context.Process(target=child, args=(theirs,))
        process.start()
        assert ours.poll(LIMIT)
        print(*ours.recv())
        process.join(LIMIT)
        assert process.exitcode == 0
        counts_on(received)
    """
    assert nursery.output_of(fork_program(program, url=plain.url + "busy")) == "closed []\n"
    assert len(plain.connections) == 1


@pytest.mark.parametrize("scheme", ["plain", "tls"])
def test_a_handler_that_forks_is_the_last_in_the_child(nursery, request, authority, scheme):
    """There the reader thread is the only one: it reads nothing more, and ends."""
    program = """
        received, forked = [], []
        home = os.getpid()

        def fork(event):
            if len(forked) < 5:
                pid = os.fork()
                if pid == 0:
                    assert source.ready_state is ReadyState.CLOSED
                    source.close()
                    assert source.join() is False  # it is this thread
                    return
                forked.append(pid)

        def next_handler(event):
            if os.getpid() != home:
                leave(9)
            received.append(event)

        source = EventSource(url, verify=authority, start=False)
        source.on("message", fork)
        source.on("message", next_handler)
        source.on("error", next_handler)
        source.start()
        wait_until(lambda: len(forked) == 5)
        for pid in forked:
            print(os.waitpid(pid, 0)[1])
        counts_on(received)
        leave(0)
    """
    server = request.getfixturevalue(scheme)
    out = nursery.output_of(fork_program(program, url=server.url + "busy", authority=authority))
    assert out == "0\n" * 5
    assert len(server.connections) == 1


def test_an_auth_callable_that_forks_makes_no_connection_in_the_child(nursery, plain):
    program = """
        children = []

        def auth(request):
            pid = os.fork()
            if pid == 0:
                assert source.ready_state is ReadyState.CLOSED
            children.append(pid)
            return request

        received = []
        source = EventSource(url, auth=auth, on_message=received.append, start=False)
        source.start()
        counts_on(received)
        assert os.waitpid(children[0], 0)[1] == 0
        leave(0)
    """
    nursery.output_of(fork_program(program, url=plain.url + "busy"))
    assert len(plain.connections) == 1


FORK_IN_A_SIGNAL_HANDLER = """
children = []
receiving, sending = os.pipe()

def fork(*_):
    children.append(os.fork())

signal.signal(signal.SIGUSR1, fork)
events = EventStream(url, timeout=None, **options)
is_ready = lambda: is_in(function, "MainThread")
if phase == "look-up":
    have_look_ups_hang()
    is_ready = lambda: asked
elif phase == "body":
    next(events)

def interrupt():
    wait_until(lambda: is_ready() and is_blocked())
    os.kill(os.getpid(), signal.SIGUSR1)
    wait_until(lambda: children)
    if not select.select([receiving], [], [], LIMIT)[0]:
        os.kill(children[0], signal.SIGUSR2)
        time.sleep(0.5)
        os.kill(children[0], signal.SIGKILL)
    os.waitpid(children[0], 0)
    assert events.ready_state is not ReadyState.CLOSED
    events.close()

threading.Thread(target=interrupt, daemon=True).start()
left = list(events)
if children == [0]:
    os.write(sending, b"ended")
    leave(0)
print(left, os.read(receiving, 9).decode())
"""


def url_of(places, place):
    """The place's URL; that of a path: on the plain server or, with `tls-`, on the other one."""
    if place.startswith("tls-"):
        return places["tls"] + place.removeprefix("tls-")
    return places.get(place) or (place if "://" in place else places["plain"] + place)


@pytest.mark.parametrize(
    ("phase", "place", "function"),
    [
        ("look-up", "http://some.host/", None),
        ("connecting", "unanswered", "wait_for_write"),
        ("handshake", "mute", "do_handshake"),
        ("headers", "headers", "getresponse"),
        ("body", "silent", "__iter__"),
        ("body", "tls-silent", "__iter__"),
    ],
)
def test_a_signal_handler_that_forks_ends_the_iteration_in_the_child(
    nursery, places, phase, place, function
):
    options = {"verify": places["authority"]} if place.startswith("tls-") else {}
    url = url_of(places, place)
    program = with_names(
        FORK_IN_A_SIGNAL_HANDLER, url=url, phase=phase, options=options, function=function
    )
    assert nursery.output_of(program) == "[] ended\n"


def test_a_loop_in_which_the_program_forks_ends_in_the_child(nursery, plain):
    program = """
        last = -1
        children = []
        for event in EventStream(url):
            if event.type == "message":
                assert int(event.last_event_id) == last + 1
                last += 1
                if last in (10, 11, 100) and (pid := os.fork()):
                    children.append(pid)
                elif last in (10, 11, 100):
                    here = last
                if last == 300:
                    break
        else:
            leave(7 if last == here else 8)
        for pid in children:
            print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    """
    assert nursery.output_of(program, url=plain.url + "busy") == "7\n7\n7\n"
    assert len(plain.connections) == 1


def test_100_forks_at_random_moments_do_not_disturb_a_busy_stream(nursery, plain, tls, authority):
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    program = """
        received = {}
        for url in urls:
            received[url] = []
            source = EventSource(url, verify=authority, on_message=received[url].append)
        short = EventSource(short_lived, on_message=id)
        generator = random.Random(seed)
        inherited = [short, source]
        wait_until(lambda: all(received.values()))
        for number in range(100):
            time.sleep(generator.random() * 0.004)
            answer = in_child(lambda: [closed(source, number % 10 == 0) for source in inherited])
            assert answer == "['closed', 'closed']", answer
        for events in received.values():
            counts_on(events)
        leave(0)
    """
    nursery.output_of(
        fork_program(
            program,
            urls=[plain.url + "busy", tls.url + "busy"],
            short_lived=plain.url + "short",
            authority=authority,
            seed=seed,
        )
    )
    assert len(tls.connections) == 1


def test_forks_while_another_thread_makes_and_closes_sources(nursery, plain, tls, authority):
    program = """
        import warnings

        # Of a socket that was just being closed a child may have a copy, as docs/reliability.md
        # says, of which Python tells in development mode.
        warnings.filterwarnings("ignore", "unclosed <", ResourceWarning)

        def make():
            number = 0
            while True:
                number += 1
                with EventSource(urls[number % 2], verify=authority, on_open=id) as source:
                    if number % 4 > 1:
                        wait_until(lambda: source.ready_state == 1)

        def child():
            new = []
            with EventSource(urls[0], on_message=new.append):
                wait_until(lambda: new)
            return threading.active_count()

        threads = [threading.Thread(target=make, daemon=True) for _ in range(2)]
        for thread in threads:
            thread.start()
        for _ in range(30):
            answer = in_child(child)
            assert answer == "1", answer
        assert all(thread.is_alive() for thread in threads)
        leave(0)
    """
    nursery.output_of(
        fork_program(program, urls=[plain.url + "one", tls.url + "one"], authority=authority)
    )


# --- Many sources on one session ---


def descriptors():
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
def test_30_sources_share_one_session_of_the_callers(authority, secure):
    proceed = threading.Event()

    def script(connection):
        connection.read_request()
        cookie = b"Set-Cookie: number%d=x; Path=/\r\n" % connection.number
        connection.send(HEAD[:-2] + cookie + b"\r\n" + numbers(50))
        assert proceed.wait(LIMIT)
        connection.send(numbers(50, 50))
        connection.hold()

    context = server_context() if secure else None
    before = descriptors()
    with ScriptedServer(script, ssl_context=context) as server:
        with requests.Session() as session:
            recorders = [Recorder() for _ in range(30)]
            sources = [
                EventSource(server.url, session=session, verify=authority, on_message=recorder)
                for recorder in recorders
            ]
            for recorder in recorders:
                assert [int(recorder.next().data) for _ in range(50)] == [*range(50)]
            for source in sources[:10]:
                source.close()
                assert source.join(LIMIT)
            proceed.set()
            for recorder in recorders[10:]:
                assert [int(recorder.next().data) for _ in range(50)] == [*range(50, 100)]
            assert all(source.ready_state is ReadyState.OPEN for source in sources[10:])
            for source in sources[10:]:
                source.close()
                assert source.join(LIMIT)
            assert len(server.connections) == 30
            assert len(session.cookies) == 30
            with session.get(server.url, stream=True, verify=authority) as response:
                assert response.status_code == 200
            del response
        all_gone(server)
        for connection in server.connections:
            assert connection.over.wait(LIMIT)
    wait_until(lambda: descriptors() <= before, "descriptors to be closed")


def test_a_pool_that_blocks_lets_the_second_source_wait_until_the_first_is_closed():
    first, second = Recorder(), Recorder()
    with ScriptedServer(stream(numbers(1), then="hold")) as server, requests.Session() as session:
        session.mount("http://", HTTPAdapter(pool_maxsize=1, pool_block=True))
        with (
            EventSource(server.url, session=session, on_message=first) as one,
            EventSource(server.url, session=session, on_message=second, start=False) as two,
            EventSource(server.url, session=session, on_message=second, start=False) as three,
        ):
            first.next()
            two.start()
            three.start()
            wait_until(lambda: len(waiting_for_a_pool()) == 2)
            assert three.join(0) is False
            three.close()
            assert three.join(0.05) is False  # it waits in urllib3, and nothing can end that
            one.close()
            second.next()  # it is two's, or else three has got the connection and let it go
            two.close()
            for source in (one, two, three):
                assert source.join(LIMIT)
        assert len(server.connections) <= 3


def waiting_for_a_pool():
    frames = sys._current_frames().values()
    return [frame for frame in frames if "_get_conn" in functions(frame)]


def functions(frame):
    names = []
    while frame is not None:
        names.append(frame.f_code.co_name)
        frame = frame.f_back
    return names


# --- Clocks ---


def test_a_clock_that_jumps_changes_no_wait_and_no_timeout(monkeypatch):
    """`time.time` is years ahead or behind each time it is asked."""
    year = 365 * 86400
    jumps = itertools.cycle([0, 20 * year, -20 * year])
    original = time.time
    monkeypatch.setattr(time, "time", lambda: original() + next(jumps))
    policy = ReconnectPolicy(delay=0.3, jitter=0)
    started = time.monotonic()
    with (
        ScriptedServer(stream(then="hold"), stream(b"data: x\n\n", then="hold")) as server,
        EventStream(server.url, event_timeout=0.3, reconnect=policy) as events,
    ):
        (lost,) = errors(events)
        assert isinstance(lost.error, EventTimeout)
        assert lost.retry_in == 0.3
        assert time.monotonic() - started > 0.29
        (message,) = messages(events)
        assert time.monotonic() - started > 0.59
        assert message.data == "x"
        source = EventSource(server.url, on_open=lambda _: None)
        assert source.join(0.05) is False
        source.close()
        assert source.join(LIMIT)


def test_the_time_of_day_is_asked_for_only_where_a_header_tells_it():
    found = []
    for path in sorted(Path(eventsource.__file__).parent.rglob("*.py")):
        if "cli" in path.parts:  # which tells people the time
            continue
        tree = ast.parse(path.read_text())
        for function in ast.walk(tree):
            if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
                found += [
                    (path.name, getattr(function, "name", "lambda"))
                    for node in ast.walk(function)
                    if isinstance(node, ast.Attribute)
                    and node.attr
                    in ("time", "time_ns", "localtime", "gmtime", "now", "utcnow", "today")
                    and isinstance(node.value, ast.Name)
                    and node.value.id in ("time", "datetime", "date")
                ]
            assert not (
                isinstance(function, ast.ImportFrom) and function.module in ("time", "datetime")
            ) or [name.name for name in function.names] == ["UTC"]
    assert found == [("engine.py", "_lost")]


def test_no_thread_of_ours_imports_anything(nursery, plain):
    """A fork meanwhile would leave the module locked for ever in the child."""
    program = """
        before = set(sys.modules)
        heard = threading.Event()
        source = EventSource(url, on_message=lambda _: heard.set())
        assert heard.wait(LIMIT)
        source.close()
        assert source.join(LIMIT)
        print(*(set(sys.modules) - before))
    """
    assert nursery.output_of(with_names(program, url=plain.url + "busy")) == "\n"


# --- Ctrl-C ---

INTERRUPTING = """
def in_main(function):
    return is_in(function, "MainThread")

def interrupt(is_ready, number=signal.SIGINT):
    def send():
        # Before that it might set out to wait with the signal's flag not looked at.
        wait_until(lambda: is_ready() and is_blocked())
        os.kill(os.getpid(), number)

    threading.Thread(target=send, daemon=True).start()
"""


def interrupted(nursery, program, **names):
    return nursery.output_of(INTERRUPTING + with_names(program, **names))


@pytest.mark.parametrize("timeout", ["", "25"])
@pytest.mark.parametrize("path", ["silent", "busy", "headers"])
def test_ctrl_c_ends_a_join_and_the_program_goes_on(nursery, plain, path, timeout):
    program = f"""
        source = EventSource(url, on_message=id)
        for _ in range(3):
            interrupt(lambda: in_main("join"))
            try:
                source.join({timeout})
            except KeyboardInterrupt:
                print("interrupted")
        assert source.ready_state is not ReadyState.CLOSED
        source.close()
        print(source.join(LIMIT))
    """
    assert interrupted(nursery, program, url=plain.url + path) == "interrupted\n" * 3 + "True\n"


def test_a_join_in_a_signal_handler_leaves_the_one_that_it_interrupts_as_it_was(nursery, plain):
    program = """
        source, other = EventSource(url, on_message=id), EventSource(url, on_message=id)

        def handle(signum, frame):
            other.close()
            print(other.join(LIMIT))
            source.close()

        signal.signal(signal.SIGINT, handle)
        interrupt(lambda: in_main("join"))
        print(source.join(LIMIT))
    """
    assert interrupted(nursery, program, url=plain.url + "silent") == "True\nTrue\n"


def test_ctrl_c_once_or_twice_while_a_with_block_is_left(nursery, plain):
    """A handler is at work, for which the block would wait ten seconds."""
    program = """
        proceed = threading.Event()
        entered = threading.Event()

        def handle(event):
            entered.set()
            proceed.wait()

        try:
            with EventSource(url, on_message=handle) as source:
                entered.wait()
                interrupt(lambda: in_main("block"))

                def block():
                    time.sleep(30)

                try:
                    block()
                finally:
                    interrupt(lambda: in_main("__exit__"))
        except KeyboardInterrupt as error:
            print("interrupted", type(error.__context__).__name__)
        print(source.ready_state.name, source.join(0))
        proceed.set()
        print(source.join(LIMIT))
    """
    out = interrupted(nursery, program, url=plain.url + "one")
    assert out == "interrupted KeyboardInterrupt\nCLOSED False\nTrue\n"


ITERATIONS = {
    "look-up": ("http://some.host/", "asked and in_main('look_up')"),
    "connecting": ("unanswered", "in_main('wait_for_write')"),
    "handshake": ("mute", "in_main('do_handshake')"),
    "headers": ("headers", "in_main('getresponse')"),
    "body": ("silent", "in_main('__iter__') and events.ready_state == 1"),
    "body-tls": ("tls-silent", "in_main('__iter__') and events.ready_state == 1"),
    "back-off": ("refusing", "in_main('__iter__')"),
}
"""Where, and how the phase is known; besides, the main thread is in a system call."""
RAISED = {"ctrl-c": "KeyboardInterrupt", "another-signal": "Stop"}


@pytest.mark.parametrize("what", RAISED)
@pytest.mark.parametrize("phase", ITERATIONS)
def test_what_a_signal_handler_raises_ends_an_iteration_that_can_be_gone_on_with(
    nursery, places, phase, what
):
    place, is_ready = ITERATIONS[phase]
    url = url_of(places, place)
    program = f"""
        if url.startswith("https") and sys.version_info < (3, 13):
            # ssl closes its socket only after an OSError.
            warnings.simplefilter("ignore", ResourceWarning)

        class Stop(BaseException):
            pass

        def stop(*_):
            raise Stop

        if "some.host" in url:
            have_look_ups_hang()
        signal.signal(signal.SIGUSR1, stop)
        number = signal.SIGINT if what == "ctrl-c" else signal.SIGUSR1
        events = EventStream(
            url, timeout=None, verify=authority, reconnect=ReconnectPolicy(delay=3600)
        )
        for _ in range(2):
            interrupt(lambda: {is_ready}, number)
            try:
                for event in events:
                    print(event.type)
            except (KeyboardInterrupt, Stop) as error:
                print(type(error).__name__)
        print(events.ready_state.name)
        events.close()
        print(list(events), len(connections()))
    """
    first = {"body": ["open"], "body-tls": ["open"], "back-off": ["error"]}.get(phase, [])
    second = first if phase != "back-off" else []
    raised = RAISED[what]
    expected = [*first, raised, *second, raised, "CONNECTING", "[] 0", ""]
    out = interrupted(
        nursery,
        CONNECTIONS + textwrap.dedent(program),
        url=url,
        what=what,
        authority=places["authority"],
    )
    assert out.split("\n") == expected


def test_an_exception_of_a_signal_handlers_is_taken_for_that_of_the_attempt(nursery, plain):
    """Nothing tells it from one that the network has caused: a `TimeoutError`, say."""
    program = """
        signal.signal(signal.SIGUSR1, lambda *_: 1 / 0)
        interrupt(lambda: in_main("getresponse"), signal.SIGUSR1)
        for event in EventStream(url):
            print(event.error, event.retry_in is not None)
            break
    """
    out = interrupted(nursery, program, url=plain.url + "headers")
    assert out == "division by zero True\n"


def test_ctrl_c_in_a_clients_constructor_and_its_next(nursery, places):
    program = """
        interrupt(lambda: in_main("getresponse"))
        try:
            SSEClient(plain + "headers")
        except KeyboardInterrupt:
            gc.collect()
            print("constructor", len(connections()))
        client = SSEClient(plain + "busy")
        assert int(next(client).id) == 0
        client.close()
        client = SSEClient(plain + "one")
        print(next(client).id)
        interrupt(lambda: in_main("__next__"))
        try:
            next(client)
        except KeyboardInterrupt:
            print("next", len(connections()))
        print(next(client).id, client.resp.request.headers["Last-Event-ID"])
    """
    out = interrupted(nursery, CONNECTIONS + textwrap.dedent(program), **places)
    assert out == "constructor 0\n1\nnext 0\n1 1\n"


# --- Signals that raise nothing ---


@pytest.mark.parametrize("scheme", ["plain", "tls"])
@pytest.mark.parametrize("face", ["stream", "source"])
def test_signals_a_thousand_times_a_second_are_no_errors(nursery, places, scheme, face):
    program = """
        calls = []
        signal.signal(signal.SIGALRM, lambda *_: calls.append([object() for _ in range(10)]))
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
        received, lost = [], []
        for _ in range(3):
            start, before = len(received), len(calls)
            # On a busy machine much data comes at once, and few signals do.
            is_enough = lambda: len(received) > start + 200 and len(calls) > before + 10
            if face == "source":
                with EventSource(
                    url, verify=authority, on_message=received.append, on_error=lost.append
                ):
                    wait_until(is_enough)
            else:
                for event in EventStream(url, verify=authority):
                    (lost if event.type == "error" else received).append(event)
                    if is_enough():
                        break
        signal.setitimer(signal.ITIMER_REAL, 0)
        print(lost)
    """
    url = places[scheme] + "busy"
    out = nursery.output_of(program, url=url, face=face, authority=places["authority"])
    assert out == "[]\n"


def test_signals_lengthen_no_timeout_for_ever(nursery, places):
    program = """
        signal.signal(signal.SIGALRM, lambda *_: None)
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
        for url, options in (
            (unanswered, {"timeout": 0.2}),
            (mute, {"timeout": 0.2}),
            (plain + "headers", {"timeout": (5, 0.2)}),
            (plain + "silent", {"timeout": (5, 0.2)}),
            (plain + "headers", {"event_timeout": 0.2}),
            (plain + "silent", {"event_timeout": 0.2}),
        ):
            started = time.monotonic()
            with EventStream(url, reconnect=ReconnectPolicy(delay=0.2), **options) as events:
                found = []
                while len(found) < 2:
                    event = next(events)
                    if event.type == "error":
                        found.append(type(event.error).__name__)
            assert time.monotonic() - started > 0.59
            print(*found)
        signal.setitimer(signal.ITIMER_REAL, 0)
    """
    assert nursery.output_of(program, **places).split() == [
        *(["ConnectTimeout"] * 2),
        *(["ReadTimeout"] * 6),
        *(["EventTimeout"] * 4),
    ]


# --- What handlers raise, and running out of something ---


def deep():
    deep()


def out_of_memory():
    return bytearray(sys.maxsize)


@pytest.mark.parametrize("fail", [deep, out_of_memory])
@pytest.mark.parametrize("place", ["reader", "pool", "task"])
def test_a_handler_that_runs_out_of_stack_or_memory_is_logged_and_stops_nobody(fail, place, caplog):
    kind = {deep: RecursionError, out_of_memory: MemoryError}[fail]
    received = Recorder()
    with contextlib.ExitStack() as stack:
        options = {}
        if place == "pool":
            options["dispatch"] = stack.enter_context(ThreadPoolExecutor(1)).submit
        elif place == "task":
            options["dispatch"] = stack.enter_context(running_loop()).call_soon_threadsafe
        server = stack.enter_context(ScriptedServer(stream(numbers(3), then="hold")))
        source = stack.enter_context(EventSource(server.url, start=False, **options))

        async def fail_in_a_task(_):
            fail()

        source.on("message", fail_in_a_task if place == "task" else lambda _: fail())
        source.on("message", received)
        source.start()
        assert [received.next().data for _ in range(3)] == ["0", "1", "2"]
        assert source.ready_state is ReadyState.OPEN
    raised = [record for record in caplog.records if record.exc_info]
    assert [type(record.exc_info[1]) for record in raised] == [kind] * 3
    assert {record.levelname for record in raised} == {"ERROR"}


@contextlib.contextmanager
def running_loop():
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield loop
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(LIMIT)
        loop.run_until_complete(asyncio.sleep(0))  # a turn of the handlers may just have begun
        assert not asyncio.all_tasks(loop)
        loop.close()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("kind", [GeneratorExit, asyncio.CancelledError, BaseException])
def test_what_is_no_exception_of_a_programs_closes_the_source_and_is_logged(kind, caplog):
    def fail(_):
        raise kind

    later = Recorder()
    with ScriptedServer(stream(numbers(2), then="hold")) as server:
        source = EventSource(server.url, start=False)
        source.on("message", fail)
        source.on("message", later)
        source.start()
        assert source.join(LIMIT)
        assert source.ready_state is ReadyState.CLOSED
        assert type(source.error.__cause__) is kind
        assert server.connections[0].gone.wait(LIMIT)
    assert later.events == []
    assert f"closed: {kind.__name__}" in caplog.text


@pytest.mark.parametrize("kind", [MemoryError, RecursionError])
@pytest.mark.parametrize("where", ["connecting", "reading", "parsing"])
def test_a_reader_that_runs_out_of_memory_or_stack_reconnects_and_loses_nothing(kind, where):
    calls = itertools.count(1)

    def fail_at_the_third_call(place):
        if place == where and next(calls) == 3:
            raise kind

    def authorize(request):
        fail_at_the_third_call("connecting")
        return request

    def wrap_reads(response, **_):
        read1 = response.raw.read1

        def read(*args, **kwargs):
            fail_at_the_third_call("reading")
            return read1(*args, **kwargs)

        response.raw.read1 = read

    class Parser(EventStreamParser):
        def feed(self, chunk):
            fail_at_the_third_call("parsing")
            return super().feed(chunk)

    class Stream(EventStream):
        parser_class = Parser

    def script(connection):
        request = connection.start_stream()
        first = int(request.header("Last-Event-ID") or -1) + 1
        for number in range(first, min(first + 10, 40)):
            connection.send(numbers(1, number))
        if first + 10 >= 40:
            connection.hold()

    received, lost = [], []
    with (
        requests.Session() as session,  # on one of ours nobody sees the reads
        ScriptedServer(script) as server,
        Stream(
            server.url,
            session=session if where == "reading" else None,
            hooks={"response": wrap_reads},
            auth=authorize,
            reconnect=QUICK,
        ) as events,
    ):
        for event in events:
            (lost if event.type == "error" else received).append(event)
            if getattr(event, "last_event_id", "") == "39":
                break
    assert [int(event.data) for event in received if event.type == "message"] == [*range(40)]
    assert [event.retry_in is None for event in lost if type(event.error) is kind] == [False]


def test_with_little_memory_a_large_event_is_a_lost_connection(nursery):
    def endless(connection):
        connection.start_stream()
        connection.send(b"id: 1\ndata: small\n\ndata: ")
        while True:
            connection.send(b"x" * 2**16)

    program = """
        with open("/proc/self/statm") as sizes:
            size = int(sizes.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size + 2**27, size + 2**27))
        found = queue.Queue()
        with EventSource(
            url, on_message=found.put, on_error=found.put, max_event_size=2**30, reconnect=QUICK
        ) as source:
            for event in (found.get(timeout=LIMIT) for _ in range(3)):
                print(event.type, getattr(event, "data", None) or type(event.error).__name__)
        resource.setrlimit(resource.RLIMIT_AS, (size + 2**27, size + 2**27))
    """
    with ScriptedServer(endless, stream(b"data: y\n\n", then="hold")) as server:
        out = nursery.output_of(program, url=server.url)
    assert out == "message small\nerror MemoryError\nmessage y\n"


def test_without_descriptors_attempts_fail_until_there_are_some_again(nursery, plain):
    program = """
        lost, received = queue.Queue(), queue.Queue()
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
        with EventSource(
            url, on_message=received.put, on_error=lost.put, reconnect=QUICK
        ) as source:
            for _ in range(2):
                received.get(timeout=LIMIT)
                taken = []
                while True:
                    try:
                        taken.append(os.open(os.devnull, os.O_RDONLY))
                    except OSError:
                        if "Too many open files" in str(lost.get(timeout=LIMIT).error):
                            break
                for number in taken:
                    os.close(number)
                while not received.empty():
                    received.get()
            received.get(timeout=LIMIT)
            print("healed")
    """
    assert nursery.output_of(program, url=plain.url + "short") == "healed\n"


@pytest.mark.parametrize("thread", ["eventsource-dns", "eventsource-timeout"])
def test_without_threads_attempts_fail_until_there_are_some_again(thread, monkeypatch):
    original = threading.Thread.start
    refused = []

    def start(self):
        if self.name.startswith(thread) and len(refused) < 3 and opened.events:
            refused.append(self.name)
            raise RuntimeError("can't start new thread")
        original(self)

    monkeypatch.setattr(threading.Thread, "start", start)
    opened, lost = Recorder(), Recorder()
    with ScriptedServer(stream(numbers(1))) as server, requests.Session() as session:
        url = server.url.replace("127.0.0.1", "localhost")
        with EventSource(
            url,
            on_open=opened,
            on_error=lost,
            reconnect=QUICK,
            event_timeout=60,
            # On a session of ours, a limit needs no thread.
            session=session if thread == "eventsource-timeout" else None,
        ) as source:
            for _ in range(3):
                opened.next()
            assert source.error is None
    assert len(refused) == 3
    assert [str(e.error) for e in lost.events if type(e.error) is RuntimeError] == [
        "can't start new thread"
    ] * 3
