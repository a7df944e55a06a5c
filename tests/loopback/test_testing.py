"""The scriptable server itself: the tests lean on it."""

from __future__ import annotations

import errno
import socket
import ssl
import threading

import pytest
import requests

from eventsource.testing import ScriptedServer, format_comment, format_event
from tests.support import LIMIT, respond, status


def test_each_connection_gets_its_script_and_the_last_one_goes_on():
    with ScriptedServer(status("200 OK", body=b"a"), status("200 OK", body=b"b")) as server:
        assert [requests.get(server.url, timeout=LIMIT).text for _ in range(3)] == ["a", "b", "b"]
        assert [connection.number for connection in server.connections] == [0, 1, 2]


def test_requests_are_kept_as_they_came():
    with ScriptedServer(status("200 OK")) as server:
        requests.post(server.url + "a?b", data=b"body", headers={"X-Y": "é"}, timeout=LIMIT)
        request = server.wait_for_request()
    assert (request.method, request.target, request.body) == ("POST", "/a?b", b"body")
    assert request.header("x-y") == "é"
    assert request.header("x-z") is None


def test_format_event_writes_all_fields():
    assert format_event("a\nb", event="e", id="1", retry=5) == (
        b"event: e\nid: 1\nretry: 5\ndata: a\ndata: b\n\n"
    )
    assert format_event(id="1") == b"id: 1\n\n"
    assert format_event("") == b"data: \n\n"
    assert format_event("a\rb\r\nc\n") == b"data: a\ndata: b\ndata: c\ndata: \n\n"
    assert format_event("a\u2028b\x0bc") == "data: a\u2028b\x0bc\n\n".encode()


def test_format_comment_makes_a_comment_of_each_line():
    assert format_comment() == b":\n"
    assert format_comment("a\rb\r\n\nc") == b": a\n: b\n:\n: c\n"


def test_an_exception_of_a_script_is_raised_by_close():
    server = ScriptedServer(lambda connection: 1 / 0)
    with socket.create_connection(("127.0.0.1", server.port)):
        server.wait_for_connection().over.wait(LIMIT)
    with pytest.raises(ZeroDivisionError):
        server.close()
    server.close()


def test_close_ends_scripts_that_hold_and_pause():
    def pause(connection):
        connection.pause(3600)

    with ScriptedServer(lambda connection: connection.hold(), pause) as server:
        first = socket.create_connection(("127.0.0.1", server.port))
        server.wait_for_connection()
        second = socket.create_connection(("127.0.0.1", server.port))
        server.wait_for_connection(2)
    with first, second:
        assert first.recv(1) == b""
        assert second.recv(1) == b""


def test_reset_is_a_reset():
    with ScriptedServer(respond(b"x", then="reset")) as server:
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            client.sendall(b"GET / HTTP/1.1\r\n\r\n")
            with pytest.raises(ConnectionResetError):
                while True:
                    assert client.recv(10) == b"x"


def test_a_client_that_goes_away_is_noticed():
    with ScriptedServer(lambda connection: connection.hold()) as server:
        client = socket.create_connection(("127.0.0.1", server.port))
        connection = server.wait_for_connection()
        assert not connection.gone.is_set()
        client.close()
        assert connection.gone.wait(LIMIT)


def test_waiting_for_what_does_not_come_is_a_timeout():
    with ScriptedServer(status("200 OK")) as server:
        with pytest.raises(TimeoutError, match="0 of 1 connections"):
            server.wait_for_connection(timeout=0.01)
        with pytest.raises(TimeoutError, match="0 of 1 requests"):
            server.wait_for_request(timeout=0.01)


def test_a_client_that_expects_it_is_told_to_go_on_with_the_body():
    with ScriptedServer(status("200 OK")) as server:
        with socket.create_connection(("127.0.0.1", server.port), LIMIT) as client:
            client.sendall(b"POST / HTTP/1.1\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n")
            assert client.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
            client.sendall(b"body")
            assert server.wait_for_request().body == b"body"


def test_without_descriptors_close_says_so(monkeypatch):
    def refuse(*_):
        raise OSError(errno.EMFILE, "Too many open files")

    server = ScriptedServer(refuse)
    with socket.create_connection(("127.0.0.1", server.port)):
        server.wait_for_connection().over.wait(LIMIT)
    with pytest.raises(OSError, match="Too many open files"):
        server.close()
    before = {*threading.enumerate()}
    server = ScriptedServer(status("200 OK"))
    monkeypatch.setattr(socket.socket, "accept", refuse)
    [accepting] = {*threading.enumerate()} - before
    with socket.create_connection(("127.0.0.1", server.port)):
        accepting.join(LIMIT)
    with pytest.raises(OSError, match="Too many open files"):
        server.close()


@pytest.mark.parametrize("error", [BlockingIOError, ConnectionAbortedError])
def test_a_client_that_goes_before_it_is_accepted_disturbs_nobody(monkeypatch, error):
    accept, errors = socket.socket.accept, [error()]

    def accept_later(listener):
        if errors:
            raise errors.pop()
        return accept(listener)

    monkeypatch.setattr(socket.socket, "accept", accept_later)
    with ScriptedServer(status("200 OK")) as server:
        assert requests.get(server.url, timeout=LIMIT).status_code == 200
    assert not errors


def test_the_default_timeout_of_sockets_is_not_the_servers():
    with ScriptedServer(lambda connection: connection.hold()) as server:
        default = socket.getdefaulttimeout()
        socket.setdefaulttimeout(0.01)
        try:
            client = socket.create_connection(("127.0.0.1", server.port), LIMIT)
            assert server.wait_for_connection().sock.gettimeout() is None
        finally:
            socket.setdefaulttimeout(default)
        client.close()


def test_close_in_the_middle_of_a_handshake_is_no_error():
    shaking, shut = threading.Event(), threading.Event()

    class Slow(ssl.SSLSocket):
        def do_handshake(self, block=False):
            shaking.set()
            assert shut.wait(LIMIT)
            super().do_handshake(block)

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.sslsocket_class = Slow
    server = ScriptedServer(status("200 OK"), ssl_context=context)
    with socket.create_connection(("127.0.0.1", server.port), LIMIT) as client:
        assert shaking.wait(LIMIT)
        closing = threading.Thread(target=client_sees_the_end, args=(client, shut))
        closing.start()
        server.close()  # raises what left the script
        closing.join()


def client_sees_the_end(client, shut):
    assert client.recv(1) == b""
    shut.set()


def test_a_server_without_a_script_is_refused():
    with pytest.raises(TypeError, match="script"):
        ScriptedServer()


def test_chunks_and_streams_are_framed_right():
    def script(connection):
        connection.read_request()
        connection.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        connection.send_chunk(b"ab")
        connection.send_chunk(b"")

    def stream(connection):
        connection.start_stream()
        connection.send_event("x", id="1")

    with ScriptedServer(script, stream) as server:
        assert requests.get(server.url, timeout=LIMIT).content == b"ab"
        response = requests.get(server.url, timeout=LIMIT)
    assert response.headers["Content-Type"] == "text/event-stream"
    assert response.content == b"id: 1\ndata: x\n\n"


def test_the_server_leaves_no_thread():
    before = {*threading.enumerate()}
    with ScriptedServer(status("200 OK")) as server:
        requests.get(server.url, timeout=LIMIT)
    assert {*threading.enumerate()} <= before  # one of before may have ended


@pytest.mark.parametrize("data", [b"no request\r\n\r\n", b"\x16\x03\x01"])
def test_what_is_no_request_ends_the_script_in_peace(data):
    with ScriptedServer(lambda connection: connection.read_request()) as server:
        with socket.create_connection(("127.0.0.1", server.port), LIMIT) as client:
            client.sendall(data)
            assert client.recv(1) == b""
        assert server.wait_for_connection().over.wait(LIMIT)
        assert server.requests == []


def test_a_chunked_request_body_is_read_whole_and_nothing_after_it():
    def script(connection):
        connection.read_request()
        connection.read_request()

    with ScriptedServer(script) as server:
        with socket.create_connection(("127.0.0.1", server.port), LIMIT) as client:
            client.sendall(b"POST /1 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2;x=y\r\nab\r\n")
            client.sendall(b"1\r\nc\r\n0\r\nTrailer: x\r\n\r\nGET /2 HTTP/1.1\r\n\r\n")
            requests_ = [server.wait_for_request(1), server.wait_for_request(2)]
    assert [(request.target, request.body) for request in requests_] == [
        ("/1", b"abc"),
        ("/2", b""),
    ]


def test_close_finds_a_handshake_that_has_just_begun():
    """`close()` looks at the socket after it was wrapped, and before the script has it."""
    looked = threading.Event()

    class Server(ScriptedServer):
        @property
        def connections(self):
            yield from super().connections
            looked.set()  # close() is past the sockets

    class Context(ssl.SSLContext):
        def wrap_socket(self, *args, **options):
            wrapped = super().wrap_socket(*args, **options)
            closing.start()
            assert looked.wait(LIMIT)
            return wrapped

    server = Server(print, ssl_context=Context(ssl.PROTOCOL_TLS_SERVER))
    closing = threading.Thread(target=server.close)
    with socket.create_connection(("127.0.0.1", server.port), LIMIT) as client:
        assert client.recv(1) == b""
    closing.join(LIMIT)
    assert not closing.is_alive()


def test_a_thread_that_cannot_be_started_is_a_failure_that_close_raises(monkeypatch):
    server = ScriptedServer(status("200 OK"))
    start = threading.Thread.start

    def refuse(thread):
        if thread.name == "sse-script":
            raise RuntimeError("can't start new thread")
        start(thread)

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with socket.create_connection(("127.0.0.1", server.port), LIMIT) as client:
            assert client.recv(1) == b""
    assert requests.get(server.url, timeout=LIMIT).ok  # it goes on
    with pytest.raises(RuntimeError, match="can't start new thread"):
        server.close()
