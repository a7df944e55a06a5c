"""The scriptable server itself: the tests lean on it."""

from __future__ import annotations

import socket
import threading

import pytest
import requests

from eventsource.testing import ScriptedServer, format_event

from .support import LIMIT, respond, status


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
    before = threading.active_count()
    with ScriptedServer(status("200 OK")) as server:
        requests.get(server.url, timeout=LIMIT)
    assert threading.active_count() == before
