"""One HTTP exchange: its head and its body are read, and any thread can end it at any point."""

from __future__ import annotations

import errno
import gc
import gzip
import http.client
import os
import socket
import threading
import time
import weakref
import zlib
from types import SimpleNamespace
from unittest import mock

import pytest
import requests
import urllib3

from eventsource.errors import Aborted, EventTimeout
from eventsource.http import exchange as exchange_module
from eventsource.http.exchange import Exchange
from eventsource.http.request import RequestTemplate
from eventsource.http.sockets import Sockets
from eventsource.testing import ScriptedServer
from tests.authority import server_context
from tests.exchanges import Opened, basic, exchange_with, open_and_abort, open_exchange
from tests.support import (
    CHUNKED,
    HEAD,
    LIMIT,
    QUERY_SECRET,
    SECRET,
    open_sockets,
    port_that_never_answers,
    respond,
    wait_until,
    wait_until_connecting,
)

# --- The head of the response ---


INTERIM = (
    b"HTTP/1.1 100 Continue\r\n\r\n"
    b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
    b"HTTP/1.1 103 Early Hints\r\n\r\n"
)


def test_an_interim_response_is_passed_over():
    with ScriptedServer(respond(INTERIM + HEAD + b"data: x\n\n")) as server:
        with open_exchange(server.url) as exchange:
            assert exchange.read() == b"data: x\n\n"


# --- Reading ---

EVENT = b"data: x\n\n"


GZIPPED = b"\r\nContent-Encoding: gzip\r\n\r\n"


def in_parts(head, *, compressed):
    """The head, and what makes the bytes of an event of its body, which are flushed."""
    squeeze = zlib.compressobj(wbits=31)

    def part(data):
        if compressed:
            data = squeeze.compress(data) + squeeze.flush(zlib.Z_SYNC_FLUSH)
        return b"%x\r\n%b\r\n" % (len(data), data) if b"chunked" in head else data

    return head.replace(b"\r\n\r\n", GZIPPED) if compressed else head, part


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("compressed", [False, True], ids=["identity", "gzip"])
@pytest.mark.parametrize("chunked", [False, True], ids=["until-close", "chunked"])
def test_an_event_is_read_as_soon_as_it_has_arrived(tls, compressed, chunked, authority_file):
    proceed = threading.Event()

    def script(connection):
        connection.read_request()
        head, part = in_parts(CHUNKED if chunked else HEAD, compressed=compressed)
        connection.send(head)
        for _ in range(3):
            connection.send(part(EVENT))
            assert proceed.wait(LIMIT)
            proceed.clear()
        connection.hold()

    with ScriptedServer(script, ssl_context=server_context() if tls else None) as server:
        with open_exchange(server.url, verify=str(authority_file)) as exchange:
            for _ in range(3):
                assert exchange.read() == EVENT  # nothing else is sent before it is here
                proceed.set()


@pytest.mark.parametrize("compressed", [False, True], ids=["identity", "gzip"])
@pytest.mark.parametrize("own", [True, False], ids=["our session", "the caller's"])
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_all_chunks_that_have_arrived_come_in_one_read(own, tls, compressed, authority_file):
    """On a session of the caller's too, but there one at a time."""
    count = 200
    opened = threading.Event()

    def script(connection):
        connection.read_request()
        head, part = in_parts(CHUNKED, compressed=compressed)
        connection.send(head)
        assert opened.wait(LIMIT)
        # In one segment, and one TLS record.
        connection.send(b"".join(part(EVENT) for _ in range(count)))
        connection.hold()

    with (
        requests.Session() as session,
        ScriptedServer(script, ssl_context=server_context() if tls else None) as server,
    ):
        with open_exchange(
            server.url, None if own else session, verify=str(authority_file)
        ) as exchange:
            opened.set()
            reads = []
            while sum(map(len, reads)) < count * len(EVENT):
                reads.append(exchange.read())
    assert reads == ([EVENT * count] if own else [EVENT] * count)


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize(
    "fields",
    [
        b"Content-Encoding: identity, gzip",
        b"Content-Encoding: identity\r\nContent-Encoding: gzip",
        b"Content-Encoding: , gzip,\r\nContent-Encoding:",
    ],
)
def test_identity_beside_a_coding_changes_nothing(fields, own):
    data = HEAD[:-2] + fields + b"\r\n\r\n" + gzip.compress(b"data: x\n\n")
    with ScriptedServer(respond(data)) as server, requests.Session() as session:
        with open_exchange(server.url, None if own else session) as exchange:
            assert exchange.read() == b"data: x\n\n"


LOST = "the connection was lost within the response"
BAD_SIZE = "the size of a chunk is not a hexadecimal number"
SIZED = HEAD[:-2] + b"Content-Length: 9\r\n\r\nabc"


@pytest.mark.parametrize(
    ("data", "then", "own", "text"),
    [
        (HEAD + b"abc", "reset", True, f"{LOST}: Connection reset by peer"),
        (HEAD + b"abc", "reset", False, f"{LOST}: Connection reset by peer"),
        (SIZED, "close", True, "the connection ended 6 bytes before the end of the body"),
        (SIZED, "close", False, f"{LOST}: 6 bytes are missing"),
        (CHUNKED + b"10\r\nabc", "close", False, LOST),
        (CHUNKED + b"3\r\nabc\r\n", "close", False, f"{LOST}, or {BAD_SIZE}"),
    ],
)
def test_a_connection_that_is_lost_within_a_response_is_said_to_be_lost(data, then, own, text):
    proceed = threading.Event()

    def script(connection):
        connection.read_request()
        connection.send(data)
        assert proceed.wait(LIMIT)  # else a reset may come before the data have been read
        if then == "reset":
            connection.reset()

    with ScriptedServer(script) as server, requests.Session() as session:
        with open_exchange(server.url, None if own else session) as exchange:
            assert exchange.read() == b"abc"
            proceed.set()
            with pytest.raises(requests.exceptions.ChunkedEncodingError) as caught:
                exchange.read()
    assert str(caught.value) == text


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "the server closed the connection without an answer"),
        (b"HT", "the connection was lost within the response's head"),
        (HEAD[:-2], "the connection was lost within the response's head"),
        (b"HTTP/1.1 100 Continue\r\n", "the connection was lost within the response's head"),
    ],
)
def test_a_connection_that_is_lost_within_the_head_is_said_to_be_lost(data, text):
    with ScriptedServer(respond(data)) as server:
        with pytest.raises(requests.ConnectionError) as caught:
            open_and_abort(exchange_with(server.url))
    assert str(caught.value) == text


def test_a_read_timeout_is_a_read_timeout(monkeypatch):
    answered = threading.Event()

    def script(connection):
        connection.read_request()
        connection.send(HEAD)
        answered.set()
        connection.hold()

    getresponse = http.client.HTTPConnection.getresponse

    def when_it_is_here(connection):  # else the time may pass before the head has come
        assert answered.wait(LIMIT)
        return getresponse(connection)

    monkeypatch.setattr(http.client.HTTPConnection, "getresponse", when_it_is_here)
    with ScriptedServer(script) as server:
        with open_exchange(server.url, timeout=(10, 0.05)) as exchange:
            with pytest.raises(requests.ReadTimeout):
                exchange.read()


def test_a_connect_timeout_is_a_connect_timeout():
    with port_that_never_answers() as port:
        with pytest.raises(requests.ConnectTimeout):
            open_and_abort(exchange_with(f"http://127.0.0.1:{port}/", timeout=0.05))


def test_the_longest_timeout_that_is_accepted_can_be_waited_for():
    with ScriptedServer(respond(HEAD + EVENT, then="hold")) as server:
        with open_exchange(server.url, timeout=threading.TIMEOUT_MAX) as exchange:
            assert exchange.read() == EVENT


# --- Errors tell no secrets ---


@pytest.mark.parametrize(
    "url",
    [
        f"http://user:{SECRET}@127.0.0.1:{{port}}/path?key={QUERY_SECRET}",
        f"https://user:{SECRET}@127.0.0.1:{{port}}/path?key={QUERY_SECRET}",
        f"http://user:{SECRET}@no-such-host.invalid/path?key={QUERY_SECRET}",
        f"ftp://user:{SECRET}@host/path?key={QUERY_SECRET}",
        f"mailto:a?{QUERY_SECRET}",
    ],
)
def test_the_text_of_an_error_holds_neither_credentials_nor_the_query(url):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound, not listening: refuses
        with pytest.raises(requests.RequestException) as caught:
            open_and_abort(exchange_with(url.format(port=unused.getsockname()[1])))
    assert "secret" not in f"{caught.value} {caught.value!r}"
    assert caught.value.__context__ is None
    assert caught.value.__cause__ is None


# --- Abort, in every phase ---


def test_abort_before_open_prevents_it():
    with ScriptedServer(respond(HEAD)) as server:
        exchange = exchange_with(server.url)
        exchange.abort()
        with pytest.raises(Aborted):
            exchange.open()
        assert server.connections == []


def test_abort_while_the_name_is_looked_up(hanging):
    opened = Opened(exchange_with("http://some.host/", timeout=None))
    _, answer = hanging.next()
    opened.abort()  # though the resolver is still busy
    answer.put([])


def test_abort_while_connecting():
    with port_that_never_answers() as port:
        exchange = exchange_with(f"http://127.0.0.1:{port}/", timeout=None)
        opened = Opened(exchange)
        wait_until_connecting(port)
        opened.abort()


def test_abort_during_the_tls_handshake():
    with ScriptedServer(hold_in_the_handshake) as server:
        opened = Opened(exchange_with(server.url.replace("http:", "https:")))
        connection = server.wait_for_connection()
        opened.abort()
        assert connection.gone.wait(LIMIT)


def test_a_proxy_of_the_environment_is_used_and_abort_ends_its_connection(monkeypatch):
    with ScriptedServer(respond(HEAD, then="hold")) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url.replace("//", f"//u:{SECRET}@"))
        opened = Opened(exchange_with("http://some.host:81/path?q"))
        opened.wait_for(b"<open>")
        opened.abort()
        request = proxy.requests[0]
        assert proxy.connections[0].gone.wait(LIMIT)
    assert request.target == "http://some.host:81/path?q"
    assert request.header("Proxy-Authorization") == basic("u", SECRET)


def test_abort_during_the_tls_handshake_through_a_proxy():
    def tunnel(connection):
        connection.read_request()
        connection.send(b"HTTP/1.1 200 OK\r\n\r\n")
        hold_in_the_handshake(connection)

    with ScriptedServer(tunnel) as proxy:
        exchange = exchange_with("https://some.host/", proxies={"https": proxy.url})
        opened = Opened(exchange)
        proxy.wait_for_request()
        opened.abort()
        assert (proxy.requests[0].method, proxy.requests[0].target) == ("CONNECT", "some.host:443")
        assert proxy.connections[0].gone.wait(LIMIT)


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("phase", ["headers", "half-headers", "silent-body", "flowing-body"])
def test_abort_after_the_request(tls, phase, authority_file):
    def script(connection):
        connection.read_request()
        if phase == "half-headers":
            connection.send(HEAD[:20])
        if phase in ("silent-body", "flowing-body"):
            connection.send(HEAD)
        while phase == "flowing-body":
            connection.send(b"x" * 10000)
        connection.hold()

    with ScriptedServer(script, ssl_context=server_context() if tls else None) as server:
        opened = Opened(exchange_with(server.url, verify=str(authority_file)))
        server.wait_for_request()
        if phase.endswith("body"):
            opened.wait_for(b"<open>")
        if phase == "flowing-body":
            opened.wait_for(b"x")
        opened.abort()
        assert server.connections[0].gone.wait(LIMIT)


def test_what_had_arrived_before_abort_is_thrown_away():
    with ScriptedServer(respond(HEAD + EVENT, then="hold")) as server:
        with open_exchange(server.url) as exchange:
            exchange.abort()
            with pytest.raises(Aborted):
                exchange.read()


def test_abort_between_reads_releases_the_socket_at_once():
    with ScriptedServer(respond(HEAD + EVENT, then="hold")) as server:
        with open_exchange(server.url) as exchange:
            exchange.read()
            exchange.abort()
            assert server.connections[0].gone.wait(LIMIT)


@pytest.mark.parametrize("chunked", [False, True], ids=["until-close", "chunked"])
def test_a_silent_read_on_a_session_of_the_callers_can_be_aborted(chunked):
    with (
        requests.Session() as session,
        ScriptedServer(respond(CHUNKED if chunked else HEAD, then="hold")) as server,
    ):
        adapters = dict(session.adapters)
        opened = Opened(exchange_with(server.url, session))
        opened.wait_for(b"<open>")
        opened.abort()
        assert server.connections[0].gone.wait(LIMIT)
        assert dict(session.adapters) == adapters


def test_on_a_session_of_the_callers_abort_returns_before_the_headers_and_open_ends_with_them():
    proceed = threading.Event()

    def script(connection):
        connection.read_request()
        assert proceed.wait(LIMIT)
        connection.send(HEAD)
        connection.hold()

    with requests.Session() as session, ScriptedServer(script) as server:
        opened = Opened(exchange_with(server.url, session))
        server.wait_for_request()
        opened.exchange.abort()  # returns
        assert opened.thread.is_alive()
        proceed.set()
        opened.join()
        assert server.connections[0].gone.wait(LIMIT)
    assert isinstance(opened.error, Aborted)


def test_the_silence_of_a_session_of_the_callers_is_limited_if_asked_for():
    with requests.Session() as session, ScriptedServer(lambda c: c.hold()) as server:
        template = RequestTemplate(server.url, session=session, silence=0.05, options={})
        with pytest.raises(requests.ReadTimeout):
            open_and_abort(Exchange(template))


@pytest.mark.parametrize(
    ("timeout", "expected"),
    [
        (None, (7.5, 7.5)),
        ((1, None), (1, 7.5)),
        ((1, 2), (1, 2)),
        (5, (5, 5)),
        (20, (7.5, 7.5)),
        (urllib3.Timeout(connect=1, read=20), (1, 7.5)),
        (urllib3.Timeout(total=3), (3, 3)),
    ],
)
def test_no_timeout_on_a_session_of_the_callers_is_longer_than_the_silence(timeout, expected):
    with requests.Session() as session:
        template = RequestTemplate(
            "http://host/", session=session, silence=7, options={"timeout": timeout}
        )
        assert template.options["timeout"] == pytest.approx(expected, abs=0.1)
        default = RequestTemplate("http://host/", session=session, silence=7, options={})
        assert default.options["timeout"] == (7.5, 7.5)


# --- What is released ---


class CountingTemplate(RequestTemplate):
    """Counts how often each of its sessions is closed."""

    def __init__(self, url, **options):
        self.closed = []
        super().__init__(url, options=options)

    def session(self):
        session = super().session()
        number, close = len(self.closed), session.close
        self.closed.append(0)

        def count():
            self.closed[number] += 1
            close()

        session.close = count
        return session


def test_each_exchange_has_a_session_of_its_own_and_closes_it_once():
    with ScriptedServer(respond(HEAD, then="hold")) as server:
        template = CountingTemplate(server.url)
        first, second = Exchange(template), Exchange(template)
        first.open()
        first.abort()
        first.abort()
        assert template.closed == [1, 0]
        second.abort()
        assert template.closed == [1, 1]


def read_through(response, **_):
    """A hook that replaces what is below a response, which is then read through it."""
    raw = response.raw
    response.raw = SimpleNamespace(read1=raw.read1, close=raw.close)


@pytest.mark.parametrize(
    "answer", [HEAD + b"data: x\n\n", CHUNKED + b"9\r\ndata: x\n\n\r\n"], ids=["closing", "kept"]
)
def test_what_has_brought_the_head_is_let_go_and_the_socket_stays_open_until_the_end(answer):
    kept = []

    def keep(response, **_):
        raw = response.raw
        below = raw.connection.response
        things = (raw, raw.connection, below, below.file, response.connection)
        kept.extend(weakref.ref(thing) for thing in things)

    with ScriptedServer(respond(answer, then="hold")) as server:
        template = CountingTemplate(server.url, hooks={"response": keep})
        exchange = Exchange(template)
        response = exchange.open()
        gc.collect()
        assert [thing() for thing in kept] == [None] * 5
        assert template.closed == [1]
        with socket.socket(fileno=os.dup(response.raw.fileno())) as sock:
            assert sock.getpeername() == server.connections[0].sock.getsockname()
        assert response.content == b""  # of what there is no more
        assert exchange.read() == b"data: x\n\n"
        exchange.abort()
        assert response.raw.fileno() == -1
        assert server.connections[0].gone.wait(LIMIT)
    assert template.closed == [1]


def test_one_step_of_releasing_that_fails_does_not_stop_the_others():
    before = open_sockets()
    with ScriptedServer(respond(HEAD, then="hold")) as server:
        template = CountingTemplate(server.url, hooks={"response": read_through})
        exchange = Exchange(template)
        response = exchange.open()
        close = response.raw.close

        def fail():
            close()
            raise OSError("dead socket")

        response.raw.close = fail
        exchange.abort()
        assert server.connections[0].gone.wait(LIMIT)
    assert template.closed == [1]
    wait_until(lambda: open_sockets() <= before, "sockets to be closed")


# --- The limits ---


def hold_in_the_handshake(connection):
    connection.sock.recv(1)
    connection.hold()


def send_interim_responses(connection):
    connection.read_request()
    while True:
        connection.send(b"HTTP/1.1 103 Early Hints\r\n\r\n")
        connection.pause(0.01)


LIMITED = {
    "tls": ("https", hold_in_the_handshake),
    "head": ("http", respond(b"", then="hold")),
    "half-head": ("http", respond(HEAD[:20], then="hold")),
    "interim": ("http", send_interim_responses),
}


def check_limit(exchange, timeout=0.1):
    """To open it takes no longer than this, and not as long as servers and resolvers here would."""
    started = time.monotonic()
    with pytest.raises(EventTimeout):
        exchange.open(timeout=timeout)
    exchange.abort()
    assert time.monotonic() - started < LIMIT / 2


@pytest.mark.parametrize("phase", LIMITED)
def test_the_limit_ends_what_the_server_keeps_open_waiting_for(phase):
    scheme, script = LIMITED[phase]
    with ScriptedServer(script) as server:
        check_limit(exchange_with(server.url.replace("http:", f"{scheme}:"), timeout=None))
        for connection in server.connections:
            assert connection.gone.wait(LIMIT)


@pytest.mark.long
@pytest.mark.parametrize("size", [0, 2**16], ids=["not-read", "slowly-read"])
def test_the_limit_ends_the_sending_of_a_body(size):
    def script(connection):
        while size and connection.sock.recv(size):
            connection.pause(0.05)
        connection.hold()

    with ScriptedServer(script) as server:
        check_limit(
            exchange_with(server.url, method="POST", data=b"x" * 2**26, timeout=None), timeout=0.3
        )


def test_the_limit_ends_connecting():
    with port_that_never_answers() as port:
        check_limit(exchange_with(f"http://127.0.0.1:{port}/", timeout=None))


def test_the_limit_ends_the_look_up(hanging):
    check_limit(exchange_with("http://some.host/", timeout=None))
    hanging.next()[1].put([])


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (TimeoutError("timed out (2 addresses)"), "timed out (2 addresses)"),
        (TimeoutError(errno.ETIMEDOUT, "Connection timed out"), "timed out"),  # the system's
    ],
)
def test_a_timeout_to_connect_says_what_took_the_time(monkeypatch, error, text):
    monkeypatch.setattr(Sockets, "connect_to", mock.Mock(side_effect=error))
    exchange = exchange_with("http://some.host/", timeout=7)
    with pytest.raises(requests.ConnectTimeout) as caught:
        exchange.open()
    exchange.abort()
    assert str(caught.value) == f"Connection to some.host {text}. (connect timeout=7)"


def held_back(connection, proceed):
    """A script's body: one event, and another when it may be sent."""
    connection.read_request()
    connection.send(HEAD + EVENT)
    assert proceed.wait(LIMIT)
    connection.send(EVENT)
    connection.hold()


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_a_read_that_has_timed_out_can_be_made_again(tls, authority_file):
    proceed = threading.Event()
    context = server_context() if tls else None
    with ScriptedServer(lambda c: held_back(c, proceed), ssl_context=context) as server:
        with open_exchange(server.url, verify=str(authority_file)) as exchange:
            assert exchange.read(LIMIT) == EVENT
            for timeout in (0.05, 0.0, -1.0):
                with pytest.raises(EventTimeout):
                    exchange.read(timeout)
            proceed.set()
            assert exchange.read() == EVENT


def test_a_silent_read_on_a_session_of_the_callers_is_ended_with_its_connection():
    with (
        requests.Session() as session,
        ScriptedServer(respond(HEAD + EVENT, then="hold")) as server,
    ):
        exchange = exchange_with(server.url, session)
        exchange.open()
        assert exchange.read(LIMIT) == EVENT
        with pytest.raises(EventTimeout):
            exchange.read(0.05)
        assert server.connections[0].gone.wait(LIMIT)


def test_a_limit_on_a_session_of_the_callers_ends_with_the_read_that_had_it():
    proceed = threading.Event()
    with (
        requests.Session() as session,
        ScriptedServer(lambda c: held_back(c, proceed)) as server,
    ):
        exchange = exchange_with(server.url, session)
        exchange.open(timeout=LIMIT)
        assert exchange.read(0.5) == EVENT  # which came with the head
        over = time.monotonic() + 0.6
        wait_until(lambda: time.monotonic() > over)
        proceed.set()
        assert exchange.read() == EVENT
        exchange.abort()


# --- Error bodies ---


@pytest.mark.long
@pytest.mark.parametrize("own", [True, False], ids=["our session", "the caller's"])
def test_an_error_body_that_does_not_end_is_waited_for_a_second(own):
    head = b"HTTP/1.1 400 Bad\r\nContent-Length: 100\r\n\r\nabc"
    with requests.Session() as session, ScriptedServer(respond(head, then="hold")) as server:
        exchange = exchange_with(server.url, None if own else session)
        response = exchange.open()
        started = time.monotonic()
        exchange.read_error_body()
        took = time.monotonic() - started
        exchange.abort()
    assert response.content == b"abc"
    assert 0.9 < took < LIMIT / 2


@pytest.mark.long
def test_an_error_body_has_no_more_time_than_the_exchange(monkeypatch):
    monkeypatch.setattr(exchange_module, "ERROR_BODY_TIME", LIMIT)
    head = b"HTTP/1.1 400 Bad\r\nContent-Length: 100\r\n\r\nabc"
    with ScriptedServer(respond(head, then="hold")) as server:
        exchange = exchange_with(server.url)
        started = time.monotonic()
        exchange.open(timeout=1.0)
        exchange.read_error_body()
        exchange.abort()
    assert time.monotonic() - started < LIMIT / 2
