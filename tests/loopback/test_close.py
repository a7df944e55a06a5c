"""`close()`: in every phase, from everywhere, at the worst moment.

After each: the reader thread is gone, the server has seen the socket close, no handler
starts any more, and no exception has appeared anywhere.
"""

from __future__ import annotations

import contextlib
import gc
import os
import random
import signal
import socket
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from unittest import mock

import pytest
import requests

from eventsource import EventSource, EventStream, ReadyState, ReconnectPolicy
from eventsource.http import sockets as sockets_module
from eventsource.runtime.fork import no_fork
from eventsource.testing import ScriptedServer
from tests.authority import server_context
from tests.support import (
    HEAD,
    LIMIT,
    QUICK,
    Recorder,
    port_that_never_answers,
    port_that_refuses,
    stream,
    wait_until,
    wait_until_connecting,
)


@pytest.fixture(autouse=True)
def no_exception_anywhere(monkeypatch):
    caught = []
    monkeypatch.setattr(threading, "excepthook", caught.append)
    yield
    assert caught == []


class Phase:
    """A source brought into a phase, and what must be so once it is closed."""

    def __init__(self, source, server=None):
        self.source = source
        self.server = server
        self.calls = 0

    def check(self):
        assert self.source.join(LIMIT)
        assert self.source.ready_state is ReadyState.CLOSED
        assert self.source.error is None
        if self.server is not None:
            for connection in self.server.connections:
                assert connection.gone.wait(LIMIT)


def source_of(url, **options):
    options.setdefault("timeout", None)
    options.setdefault("on_open", lambda _: None)
    return EventSource(url, **options)


@contextlib.contextmanager
def resolving():
    """The look-up of the name has not been answered."""
    asked, answer = threading.Event(), threading.Event()

    def getaddrinfo(host, port, family=0, kind=0, protocol=0, flags=0):
        if not flags & socket.AI_NUMERICHOST:
            asked.set()
            assert answer.wait(LIMIT)
        raise socket.gaierror("no")

    original, socket.getaddrinfo = socket.getaddrinfo, getaddrinfo
    try:
        phase = Phase(source_of("http://some.host/"))
        assert asked.wait(LIMIT)
        yield phase
    finally:
        socket.getaddrinfo = original
        answer.set()


@contextlib.contextmanager
def connecting():
    """The server's machine has not answered."""
    with port_that_never_answers() as port:
        source = source_of(f"http://127.0.0.1:{port}/")
        wait_until_connecting(port)
        yield Phase(source)


@contextlib.contextmanager
def racing():
    """None of the three addresses of the server's name has answered."""
    with contextlib.ExitStack() as stack:
        ports = [stack.enter_context(port_that_never_answers()) for _ in range(3)]
        found = [(socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", p)) for p in ports]
        stack.enter_context(mock.patch.object(sockets_module, "get_addresses", return_value=found))
        stack.enter_context(mock.patch.object(sockets_module, "ATTEMPT_DELAY_SECONDS", 0.01))
        source = source_of("http://some.host/")
        for port in ports:
            wait_until_connecting(port)
        yield Phase(source)


@contextlib.contextmanager
def tls_handshake():
    """The server has taken the connection and says nothing."""

    def silent(connection):
        connection.sock.recv(1)
        connection.hold()

    with ScriptedServer(silent) as server:
        source = source_of(server.url.replace("http:", "https:"))
        server.wait_for_connection()
        yield Phase(source, server)


def after_the_request(*sent, tls=False, wait_for_open=True):
    @contextlib.contextmanager
    def enter():
        def script(connection):
            connection.read_request()
            for data in sent:
                connection.send(data)
            connection.hold()

        opened = threading.Event()
        with ScriptedServer(script, ssl_context=server_context() if tls else None) as server:
            source = source_of(server.url, verify=False, on_open=lambda _: opened.set())
            server.wait_for_request()
            if wait_for_open:
                assert opened.wait(LIMIT)
            yield Phase(source, server)

    return enter


@contextlib.contextmanager
def flowing_body():
    """The server sends without a pause."""

    def script(connection):
        connection.start_stream()
        while True:
            connection.send(b"data: x\n\n" * 1000)

    received = threading.Event()
    with ScriptedServer(script) as server:
        source = source_of(server.url, on_message=lambda _: received.set())
        assert received.wait(LIMIT)
        yield Phase(source, server)


@contextlib.contextmanager
def back_off():
    """The source waits for the next attempt."""
    lost = threading.Event()
    with port_that_refuses() as port:
        source = source_of(
            f"http://127.0.0.1:{port}/",
            on_error=lambda _: lost.set(),
            reconnect=ReconnectPolicy(delay=3600),
        )
        assert lost.wait(LIMIT)
        yield Phase(source)


@contextlib.contextmanager
def waiting_for_a_listener():
    """An event has arrived and nobody listens."""
    with ScriptedServer(stream(b"data: x\n\n", then="hold")) as server:
        source = EventSource(server.url)
        wait_until(lambda: source.ready_state is ReadyState.OPEN)
        yield Phase(source, server)


@contextlib.contextmanager
def in_a_handler():
    """A handler is at work, and ends when it has been closed."""
    entered, proceed = threading.Event(), threading.Event()
    calls = []

    def handle(event):
        calls.append(event)
        entered.set()
        assert proceed.wait(LIMIT)

    with ScriptedServer(stream(b"data: a\n\ndata: b\n\n", then="hold")) as server:
        phase = Phase(source_of(server.url, on_message=handle), server)
        assert entered.wait(LIMIT)
        yield phase
        proceed.set()
        assert phase.source.join(LIMIT)
        assert len(calls) == 1


PHASES = {
    "resolving": resolving,
    "connecting": connecting,
    "racing": racing,
    "tls-handshake": tls_handshake,
    "headers": after_the_request(wait_for_open=False),
    "headers-tls": after_the_request(wait_for_open=False, tls=True),
    "half-headers": after_the_request(HEAD[:30], wait_for_open=False),
    "silent-body": after_the_request(HEAD),
    "silent-body-tls": after_the_request(HEAD, tls=True),
    "body-in-flight": after_the_request(HEAD, b"id: 1\ndata: half an ev"),
    "chunk-in-flight": after_the_request(
        HEAD.replace(b"\r\n\r\n", b"\r\nTransfer-Encoding: chunked\r\n\r\n"), b"ff\r\ndata: ha"
    ),
    "flowing-body": flowing_body,
    "back-off": back_off,
    "waiting-for-a-listener": waiting_for_a_listener,
}

pytestmark = pytest.mark.filterwarnings(
    "ignore::urllib3.exceptions.InsecureRequestWarning"  # verify=False, on loopback
)


@pytest.fixture(params=PHASES, ids=list(PHASES))
def phase(request):
    with PHASES[request.param]() as phase:
        yield phase
        phase.source.close()
        phase.source.join(LIMIT)


def test_close_from_20_threads_at_once_and_once_more(phase):
    barrier = threading.Barrier(20)

    def close():
        barrier.wait(LIMIT)
        phase.source.close()

    with ThreadPoolExecutor(20) as pool:
        for closing in [pool.submit(close) for _ in range(20)]:
            closing.result(LIMIT)
    phase.check()
    phase.source.close()
    phase.check()


@contextlib.contextmanager
def on_signal(handler):
    """Let `handler` run for SIGUSR1. (SIGALRM is pytest-timeout's.)"""
    previous = signal.signal(signal.SIGUSR1, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGUSR1, previous)


@contextlib.contextmanager
def signals(handler):
    """Let `handler` interrupt the main thread in a moment, and again and again."""
    over = threading.Event()
    main = threading.get_ident()

    def send():
        over.wait(0.02)
        while not over.wait(0.001):
            signal.pthread_kill(main, signal.SIGUSR1)

    sender = threading.Thread(target=send)
    with on_signal(handler):
        sender.start()
        try:
            yield
        finally:
            over.set()
            sender.join()


def test_close_from_a_signal_handler_while_the_main_thread_joins(phase):
    with signals(lambda *_: phase.source.close()):
        assert phase.source.join(LIMIT)
    phase.check()


@pytest.mark.long
def test_close_from_a_signal_handler_that_interrupts_close(phase):
    closed = 0

    def handler(*_):
        nonlocal closed
        phase.source.close()
        closed += 1

    with signals(handler):
        while closed < 20:
            phase.source.close()
            phase.source.restart()
    phase.check()


def test_close_from_a_signal_handler_at_every_line_of_a_close():
    """A real signal before each line that runs in `close()`, one after another.

    urllib3's and the standard library's lines, too: their locks are not re-entrant.
    """
    left = 0

    def trace(frame, kind, argument):
        nonlocal left
        if kind == "line":
            left -= 1
            if left == 0:
                signal.raise_signal(signal.SIGUSR1)
        return trace

    lines = 0
    with ScriptedServer(stream(b"data: x\n\n", then="hold")) as server:
        while left <= 0:
            lines += 1
            left = lines
            events = EventStream(server.url)
            next(events)
            with on_signal(lambda *_, e=events: e.close()):
                tracing = sys.gettrace()
                sys.settrace(trace)
                try:
                    events.close()
                finally:
                    sys.settrace(tracing)
            assert list(events) == []
        for connection in server.connections:
            assert connection.gone.wait(LIMIT)
    print(f"{lines - 1} lines")
    assert lines > 50


def test_close_from_del(phase):
    class Owner:
        def __init__(self, source):
            self.source = source
            self.itself = self  # so that the garbage collector finds it, where it runs

        def __del__(self):
            self.source.close()

    owner = Owner(phase.source)
    del owner
    gc.collect()
    phase.check()


def test_close_while_a_handler_runs_lets_that_one_finish_and_starts_no_other():
    with in_a_handler() as phase:
        phase.source.close()
        # The server sees it though the handler is still at work.
        assert phase.server.connections[0].gone.wait(LIMIT)
        assert phase.source.join(0.01) is False


@pytest.mark.parametrize("event_type", ["open", "message", "error", "comment"])
def test_close_from_a_handler(event_type):
    calls = []

    def handle(event):
        calls.append(event)
        source.close()

    # For an error the server closes; else it is the client who must.
    script = stream(
        b": c\ndata: a\n\ndata: b\n\n", then="close" if event_type == "error" else "hold"
    )
    with ScriptedServer(script) as server:
        source = EventSource(
            server.url, start=False, reconnect=QUICK, **{f"on_{event_type}": handle}
        )
        source.start()
        Phase(source, None if event_type == "error" else server).check()
    assert len(calls) == 1


def test_no_handler_of_the_same_event_runs_after_close():
    calls = []
    with ScriptedServer(stream(b"data: a\n\n", then="hold")) as server:
        source = EventSource(server.url, start=False)
        source.on("message", lambda _: (calls.append(1), source.close()))
        source.on("message", lambda _: calls.append(2))
        source.start()
        Phase(source, server).check()
    assert calls == [1]


def test_no_comment_of_the_same_read_is_told_of_after_close():
    calls = []
    with ScriptedServer(stream(b": a\n: b\n", then="hold")) as server:

        def close(comment):
            calls.append(comment)
            source.close()

        source = EventSource(server.url, on_comment=close, start=False)
        source.start()
        Phase(source, server).check()
    assert calls == ["a"]


def test_an_event_that_nobody_listens_to_is_not_counted_after_close():
    events = b"id: 0\ndata:\n\n", b"event: x\nid: 1\ndata:\n\n"
    with ScriptedServer(stream(*events, then="hold")) as server:
        source = EventSource(server.url, start=False)
        source.on("message", lambda _: source.close())
        source.start()
        Phase(source, server).check()
    assert source.last_event_id == "0"


@pytest.mark.parametrize("others", [0, 3])
def test_what_close_has_dropped_is_not_overtaken_while_it_is_still_under_way(others):
    """Its first step is the table's; before the last one, the reader may read on."""
    heard = []

    def script(connection):
        connection.start_stream()
        for number in range(5):
            connection.send_event(str(number), id=str(number))
            wait_until(lambda number=number: source._engine.last_event_id == str(number))
        connection.hold()

    def handle(event):
        heard.append(event.data)
        source._table.close()

    with ScriptedServer(script) as server:
        source = EventSource(server.url, start=False)
        source.on("message", handle)
        for _ in range(others):
            source.on("message", lambda _: None)
        source.start()
        wait_until(lambda: source._engine.last_event_id == "4")
        source.close()
        assert source.join(LIMIT)
    assert heard == ["0"]
    assert source.last_event_id == ("0" if not others else "")


@pytest.mark.parametrize("handlers", [1, 20])
def test_no_handler_is_chosen_after_close_has_returned(handlers):
    """40 times: none begins after `close()` has returned, but for one chosen before.

    Python may run anything between the choice and the first line of a handler: so of those
    that begin late there may be one, and as it has been chosen before, no second.
    """

    def endless(connection):
        connection.start_stream()
        while True:
            connection.send(b"data: x\n\n" * 100)

    with ScriptedServer(endless) as server:
        for _ in range(40):
            received, returned, late = threading.Event(), threading.Event(), []
            source = EventSource(server.url, start=False)
            for number in range(handlers):

                def handle(event, number=number, *, r=received, c=returned, late=late):
                    if c.is_set():
                        late.append(number)
                    r.set()

                source.on("message", handle)
            source.start()
            assert received.wait(LIMIT)
            source.close()
            returned.set()
            assert source.join(LIMIT)
            assert len(late) <= 1


def test_close_at_once_after_the_constructor():
    with ScriptedServer(stream(then="hold")) as server:
        for _ in range(50):
            source = EventSource(server.url, on_open=lambda _: None)
            source.close()
            Phase(source, server).check()


def test_a_session_of_the_callers_stays_open():
    closed = []

    class Session(requests.Session):
        def close(self):
            closed.append(1)
            super().close()

    opened = Recorder()
    with ScriptedServer(stream(then="hold")) as server, Session() as session:
        source = EventSource(server.url, session=session, on_open=opened)
        opened.next()
        source.close()
        Phase(source, server).check()
        assert closed == []
        assert session.get(server.url, stream=True).status_code == 200


def test_refused_arguments_leave_no_thread():
    before = threading.active_count()
    for options in ({"on_open": 5}, {"last_event_id": "\0"}, {"foo": 1}, {"headers": 5}):
        with pytest.raises((TypeError, ValueError)):
            EventSource("http://127.0.0.1:1/", **options)
    assert threading.active_count() == before


def open_descriptors():
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.long
@pytest.mark.timeout(300)
def test_500_cycles_closed_at_random_moments_leave_nothing_behind():
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    generator = random.Random(seed)

    def script(connection):
        connection.start_stream()
        while True:
            connection.send(b"data: x\n\n")
            connection.pause(0.0005)

    pause = threading.Event()
    with ScriptedServer(script) as server:
        with EventSource(server.url, on_open=lambda _: None):  # what is made once is made
            server.wait_for_request()
        wait_until(lambda: all(c.over.is_set() for c in server.connections))
        gc.collect()
        threads, descriptors = threading.active_count(), open_descriptors()
        for _ in range(500):
            source = EventSource(
                server.url,
                on_message=lambda _: None,
                reconnect=QUICK,
                event_timeout=generator.choice([None, 5.0]),
            )
            pause.wait(generator.random() * 0.01)
            if generator.random() < 0.2:
                source.restart()
            source.close()
            assert source.join(LIMIT)
        wait_until(lambda: all(c.over.is_set() for c in server.connections))
        wait_until(lambda: threading.active_count() <= threads, "threads to end")
        gc.collect()
        wait_until(lambda: open_descriptors() <= descriptors, "descriptors to be closed")


# --- The order of locks: none is waited for under another ---


def test_close_does_not_wait_for_whoever_keeps_forks_out():
    # Else a signal handler that closes the same stream, in the thread that does, hangs.
    with ScriptedServer(stream(b"data: x\n\n", then="hold")) as server:
        events = EventStream(server.url)
        next(events)
        with no_fork():
            other = threading.Thread(target=events.close)
            other.start()
            other.join(LIMIT)
            assert not other.is_alive()


def test_close_holds_no_lock_while_it_waits_for_the_thread_that_begins_to_connect(monkeypatch):
    # That one has the lock of the sockets. A signal handler of its own may close the stream,
    # too, and each would wait for the other's lock.
    connect = socket.socket.connect

    def interrupted(sock, address):
        other = threading.Thread(target=events.close)
        other.start()
        wait_until(lambda: events.closed, "the other close() to have begun")
        events.close()
        others.append(other)
        connect(sock, address)

    others = []
    with ScriptedServer(stream(b"data: x\n\n", then="hold")) as server:
        events = EventStream(server.url)
        monkeypatch.setattr(socket.socket, "connect", interrupted)
        reader = threading.Thread(target=list, args=(events,), daemon=True)
        reader.start()
        reader.join(LIMIT)
        assert not reader.is_alive()
    (other,) = others
    other.join(LIMIT)
    assert not other.is_alive()
