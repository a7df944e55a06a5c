"""`SSEServer`: what it promises to the users' tests."""

from __future__ import annotations

import gc
import inspect
import json
import socket
import ssl
import sys
import threading
import warnings
import weakref
from pathlib import Path

import pytest
import requests
import trustme

from eventsource import (
    EventSource,
    EventStream,
    MessageEvent,
)
from eventsource.testing import Recorder, SSEServer, format_event
from tests.support import LIMIT, QUICK, wait_until

SOON = 0.01
"""Seconds for waits that are to fail."""


MUCH = ["x" * 2**20] * 16
"""The data of events that are more than all buffers between a server and a `Client` hold."""


class Client:
    """A raw connection: it sees each byte."""

    def __init__(self, server, path="/", *fields, method="GET", body=b""):
        self.sock = socket.socket()
        self.sock.settimeout(LIMIT)
        # So that it is known how much is more than all buffers hold.
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**18)
        self.sock.connect(("127.0.0.1", server.port))
        self.received = b""
        head = "\r\n".join([f"{method} {path} HTTP/1.1", "Host: here", *fields, "", ""])
        self.sock.sendall(head.encode() + body)

    def read_until(self, end):
        while end not in self.received:
            data = self.sock.recv(65536)
            assert data, f"closed after {self.received!r}"
            self.received += data
        data, _, self.received = self.received.partition(end)
        return data + end

    def read_head(self):
        return self.read_until(b"\r\n\r\n")

    def read_rest(self):
        data = [self.received]
        while more := self.sock.recv(65536):
            data.append(more)
        return b"".join(data)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.sock.close()


def chunk(data):
    return b"%x\r\n%b\r\n" % (len(data), data)


def recorded(url, *types, **options):
    """A source that has not been started, and a recorder of all that it dispatches."""
    source = EventSource(url, reconnect=QUICK, start=False, **options)
    return source, Recorder(source, *types)


@pytest.fixture
def server():
    with SSEServer() as server:
        yield server


# --- What is sent ---


def test_what_is_sent_arrives_in_order(server):
    comments = Recorder()
    source, recorder = recorded(server.url, "greet", on_comment=comments)
    with source:
        source.start()
        server.wait_for_connection(LIMIT)
        server.send("hello", event="greet", id="7")
        server.comment("heartbeat")
        server.retry(50)
        server.send_bytes(b"data: half")
        server.send_bytes(b" an event\n\n")
        server.send("two\r\nlines")
        assert recorder.wait_for("greet", LIMIT) == MessageEvent(
            "greet", "hello", "7", server.url.removesuffix("/")
        )
        assert recorder.next(LIMIT).data == "half an event"
        assert comments.next(LIMIT) == "heartbeat"
        assert source.reconnection_time == 0.05
        assert recorder.next(LIMIT).data == "two\nlines"


def test_each_event_is_one_chunk_and_bytes_are_exact(server):
    with Client(server) as client:
        head = client.read_head()
        server.send("a", event="b", id="c")
        server.comment()
        server.send_bytes(b"")  # no chunk, which would be the last one
        server.send_bytes(b"\xff\r")
        server.end()
        assert client.read_rest() == (
            chunk(b"event: b\nid: c\ndata: a\n\n") + chunk(b":\n") + chunk(b"\xff\r") + chunk(b"")
        )
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    fields = head.decode().split("\r\n")[1:-2]
    assert "Content-Type: text/event-stream" in fields
    assert "Connection: close" in fields


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda s: s.send(b"x"), TypeError, "data must be a str, not b'x'"),
        (lambda s: s.send(None), TypeError, "data must be a str, not None"),
        (lambda s: s.send("x", event=1), TypeError, "event must be a str, not 1"),
        (lambda s: s.send("x", event="a\nb"), ValueError, "event must not contain a line end"),
        (lambda s: s.send("x", event="a\rb"), ValueError, "event must not contain a line end"),
        (lambda s: s.send("x", id=7), TypeError, "id must be a str, not 7"),
        (lambda s: s.send("x", id="a\nb"), ValueError, "id must not contain a line end or NUL"),
        (lambda s: s.send("x", id="a\0b"), ValueError, "id must not contain a line end or NUL"),
        (lambda s: s.send("\ud800"), ValueError, "surrogates not allowed"),
        (lambda s: s.comment(1), TypeError, "text must be a str, not 1"),
        (lambda s: s.retry(-1), ValueError, "retry must not be negative: -1"),
        (lambda s: s.retry(1.5), TypeError, "retry must be an int"),
        (lambda s: s.retry(True), TypeError, "retry must be an int"),
        (lambda s: s.retry(None), TypeError, "retry must be an int"),
        (lambda s: s.send_bytes("x"), TypeError, "data must be bytes, not 'x'"),
        (lambda s: s.drop(partial=1), TypeError, "partial must be str or bytes, not 1"),
        (lambda s: s.status("503"), TypeError, "status must be an int, not '503'"),
        (lambda s: s.status(100), ValueError, "status must be 200 to 599, not 100"),
        (lambda s: s.status(600), ValueError, "status must be 200 to 599, not 600"),
        (lambda s: s.status(204, body="x"), ValueError, "a 204 cannot have a body"),
        (lambda s: s.status(503, body=1), TypeError, "body must be str or bytes, not 1"),
        (lambda s: s.status(503, times=0), ValueError, "times must be 1 or more, not 0"),
        (lambda s: s.status(503, times=1.5), TypeError, "times must be an int, not 1.5"),
        (lambda s: s.status(503, retry_after=1.5), TypeError, "retry_after must be an int or"),
        (lambda s: s.status(503, retry_after="a\n"), ValueError, "header Retry-After cannot"),
        (
            lambda s: s.status(503, headers={"A b": ""}),
            ValueError,
            "not a valid header name: 'A b'",
        ),
        (lambda s: s.status(503, headers={"A": "\r\n"}), ValueError, "header A cannot have"),
        (lambda s: s.status(503, headers={"A": 1}), TypeError, "name and value must be str"),
        (lambda s: s.status(503, headers={"connection": ""}), ValueError, "set by the server"),
        (lambda s: s.redirect("/", status=200), ValueError, "status must be one of"),
        (lambda s: s.redirect("/é日"), ValueError, "header Location cannot have"),
        (lambda s: s.redirect(None), TypeError, "location must be a str, not None"),
        (lambda s: s.stall(times=0), ValueError, "times must be 1 or more, not 0"),
        (lambda s: s.wait_for_connection(0, count=0), ValueError, "count must be 1 or more, not 0"),
        (lambda s: s.wait_for_request(0), ValueError, "count must be 1 or more, not 0"),
        (lambda s: s.wait_for_request("1"), TypeError, "count must be an int, not '1'"),
        (lambda s: s.stream("prices"), ValueError, "path must begin with '/': 'prices'"),
        (lambda s: s.stream(b"/"), TypeError, "path must be a str, not b'/'"),
        (lambda _: SSEServer(tls="yes"), TypeError, "tls must be a bool or an ssl.SSLContext"),
    ],
)
def test_what_cannot_be_is_refused_by_name(server, call, error, text):
    with pytest.raises(error, match=text):
        call(server)
    server.send("fine")
    with Client(server) as client:  # nothing of it has been done
        assert client.read_head().startswith(b"HTTP/1.1 200 ")
        server.end()
        assert client.read_rest().startswith(chunk(b"data: fine\n\n"))


def test_sending_never_waits_for_a_client_that_does_not_read(server):
    with Client(server) as client:
        client.read_head()
        for data in MUCH:
            server.send(data)
        for _ in range(1000):  # more than there is room for bytes that wake the thread
            server.send("x")
        server.end()
        rest = client.read_rest()
    little = chunk(format_event("x"))
    assert rest == b"".join(map(chunk, map(format_event, MUCH))) + little * 1000 + chunk(b"")


def test_threads_may_send_at_the_same_time(server):
    each, count = 200, 4

    def send(name):
        for number in range(each):
            server.send(f"{name} {number}")

    with Client(server) as first, Client(server) as second:
        server.wait_for_connection(LIMIT, count=2)
        threads = [threading.Thread(target=send, args=(name,)) for name in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        server.end()
        received = [client.read_rest().partition(b"\r\n\r\n")[2] for client in (first, second)]
    assert received[0] == received[1]
    lines = [line for line in received[0].decode().split("\n") if line.startswith("data: ")]
    assert len(lines) == each * count
    for name in range(count):
        own = [line for line in lines if line.startswith(f"data: {name} ")]
        assert own == [f"data: {name} {number}" for number in range(each)]


# --- Who gets what ---


def replies(server, last_event_id=None):
    """What a client is sent at once."""
    fields = [] if last_event_id is None else [f"Last-Event-ID: {last_event_id}"]
    with Client(server, "/", *fields) as client:
        server.wait_for_connection(LIMIT)
        server.end()
        client.read_head()
        blocks = client.read_rest().decode()
    server.wait_for_disconnect(LIMIT)
    return [line[6:] for line in blocks.split("\n") if line.startswith("data: ")]


def test_events_wait_for_the_first_client_and_go_to_no_second_one(server):
    server.send("early")
    server.send("bird")
    assert replies(server) == ["early", "bird"]
    assert replies(server) == []
    server.send("again")
    assert replies(server) == ["again"]


def test_an_event_goes_to_all_who_are_connected(server):
    with Client(server) as first, Client(server) as second:
        server.wait_for_connection(LIMIT, count=2)
        server.send("news")
        for client in (first, second):
            client.read_until(b"data: news\n\n")
    server.wait_for_disconnect(LIMIT)
    assert replies(server) == []


def test_a_client_gets_all_events_after_its_id(server):
    for number in range(4):
        server.send(f"{number}", id=f"id{number}")
    server.send("without")
    assert replies(server) == ["0", "1", "2", "3", "without"]
    assert replies(server, "id1") == ["2", "3", "without"]
    assert replies(server, "id1") == ["2", "3", "without"]
    assert replies(server, "id3") == ["without"]


def test_the_last_event_of_an_id_counts(server):
    for data in ("a", "b", "c"):
        server.send(data, id="same" if data != "c" else "other")
    assert replies(server, "same") == ["c"]


def test_an_id_that_was_never_sent_gets_what_waits(server):
    server.send("old", id="1")
    assert replies(server) == ["old"]
    server.send("new", id="2")
    assert replies(server, "unknown") == ["new"]
    assert replies(server, "") == []


def test_no_id_is_no_place(server):
    server.send("a", id="")
    server.send("b")
    assert replies(server) == ["a", "b"]
    assert replies(server) == []
    assert replies(server, "") == []


def test_an_id_is_sent_and_found_as_utf_8(server):
    server.send("a", id="é日")
    server.send("b")
    assert replies(server) == ["a", "b"]
    assert replies(server, "é日") == ["b"]
    assert server.requests[-1].last_event_id == "é日"


def test_only_events_are_sent_again(server):
    server.send("a", id="1")
    server.comment("data: comment")
    server.send_bytes(b"data: bytes\n\n")
    server.send("b")
    assert replies(server) == ["a", "bytes", "b"]
    server.send_bytes(b"data: waiting\n\n")
    assert replies(server, "1") == ["b", "waiting"]


# --- How connections end ---


def test_drop_breaks_off_in_the_middle_of_the_body(server):
    with Client(server) as client:
        server.wait_for_connection(LIMIT)
        server.send("before")
        assert server.drop(partial="data: half of an ev") == 1
        client.read_head()
        assert client.read_rest() == chunk(b"data: before\n\n") + chunk(b"data: half of an ev")
    with requests.get(server.url, stream=True, timeout=LIMIT) as response:
        server.drop()
        with pytest.raises(requests.exceptions.ChunkedEncodingError):
            assert response.content


@pytest.mark.parametrize("end", ["drop", "end"])
def test_bytes_that_a_client_sends_unasked_do_not_make_it_a_reset(server, end):
    with Client(server) as client:
        client.read_head()
        for data in MUCH:
            server.send(data)  # the server is busy with that
        client.sock.sendall(b"noise")
        getattr(server, end)()
        assert len(client.read_rest()) >= sum(map(len, MUCH))


def test_drop_with_reset_is_a_reset(server):
    with Client(server) as client:
        client.read_head()
        server.wait_for_connection(LIMIT)
        assert server.drop(reset=True) == 1
        with pytest.raises(ConnectionResetError):
            client.read_rest()


def test_what_has_been_dropped_does_not_count_although_it_still_receives(server):
    with Client(server) as client:
        client.read_head()
        server.wait_for_connection(LIMIT)
        for data in MUCH:
            server.send(data)
        assert server.drop() == 1
        assert server.drop() == 0
        with pytest.raises(TimeoutError, match="1 client of /: there was none"):
            server.wait_for_connection(SOON)
        with pytest.raises(TimeoutError, match="all clients of / to go: 1 client stayed"):
            server.wait_for_disconnect(SOON)  # what was sent before still goes out
        server.send("for the next one")
        assert client.read_rest() == b"".join(map(chunk, map(format_event, MUCH)))
        server.wait_for_disconnect(LIMIT)
    assert replies(server)[-1] == "for the next one"


def test_ending_and_dropping_nobody_is_told(server):
    assert server.end() == 0
    assert server.drop() == 0


# --- How requests are answered ---


def test_answers_are_given_in_order_then_the_stream(server):
    other = server.stream("/other")
    server.status(503, retry_after=2, times=2, headers={"X-Why": "busy"}, body="é")
    server.redirect("/other", status=302)
    server.status(404, headers={"Content-Type": "text/html"}, body="<p>")

    def get():
        return requests.get(server.url, stream=True, allow_redirects=False, timeout=LIMIT)

    for _ in range(2):
        response = get()
        assert (response.status_code, response.reason) == (503, "Service Unavailable")
        assert response.headers["Retry-After"] == "2"
        assert response.headers["X-Why"] == "busy"
        assert response.headers["Connection"] == "close"
        assert response.content == "é".encode()
        assert response.headers["Content-Type"] == "text/plain; charset=utf-8"
    response = get()
    assert (response.status_code, response.headers["Location"]) == (302, "/other")
    response = get()
    assert (response.status_code, response.content) == (404, b"<p>")
    assert response.headers["Content-Type"] == "text/html"
    with get() as response:
        assert response.headers["Content-Type"] == "text/event-stream"
    assert other.requests == []


def test_a_status_without_body_has_no_length(server):
    server.status(204)
    with Client(server) as client:
        assert client.read_rest() == b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n"


def test_a_stalled_request_gets_nothing_until_the_client_goes(server):
    server.stall()
    with pytest.raises(requests.ReadTimeout):
        requests.get(server.url, timeout=(LIMIT, SOON))
    server.wait_for_request(timeout=LIMIT)  # which may come when its client has gone
    server.wait_for_disconnect(LIMIT)
    with Client(server) as client:
        client.read_head()


def test_a_stalled_request_gets_nothing_until_drop(server):
    server.send("waits")
    server.stall(times=2)
    with Client(server) as first, Client(server) as second:
        server.wait_for_request(2, timeout=LIMIT)
        server.send("also")
        with pytest.raises(TimeoutError, match="1 client stayed|2 clients stayed"):
            server.wait_for_disconnect(SOON)
        with pytest.raises(TimeoutError, match=r"GET / \(stalled\), GET / \(stalled\)"):
            server.wait_for_connection(SOON)
        assert server.end() == 0  # no stream to end
        assert server.drop(partial="x") == 2
        assert first.read_rest() == second.read_rest() == b""
    server.wait_for_disconnect(LIMIT)
    assert replies(server) == ["waits", "also"]


# --- Paths ---


def test_streams_are_told_apart_by_their_paths(server):
    prices = server.stream("/prices")
    assert server.stream("/prices") is prices
    assert server.stream("/") is server
    assert prices.url == server.url + "prices"
    prices.send("1.5")
    server.send("root")
    with EventStream(prices.url, params={"of": "tea"}) as stream:
        assert [next(stream).type, next(stream).data] == ["open", "1.5"]
        prices.wait_for_connection(LIMIT)
        with pytest.raises(TimeoutError, match=r"1 client of /: .* GET /prices\?of=tea \(stream\)"):
            server.wait_for_connection(SOON)
        assert server.drop() == 0
    prices.wait_for_disconnect(LIMIT)
    assert replies(server) == ["root"]
    assert [request.path for request in prices.requests] == ["/prices"]
    assert [request.path for request in server.requests] == ["/prices", "/"]
    assert prices.wait_for_request(timeout=LIMIT).query == {"of": ["tea"]}
    with pytest.raises(TimeoutError, match="request 2 for /prices: there were 1; requests so far"):
        prices.wait_for_request(2, timeout=SOON)


def test_repr_names_the_url(server):
    assert repr(server.stream("/x")) == f"<Stream {server.url}x>"
    assert repr(server) == f"<SSEServer {server.url}>"


def test_a_path_is_percent_encoded_in_the_url(server):
    stream = server.stream("/tea & cakes/é")
    stream.send("x")
    assert stream.url == server.url + "tea%20%26%20cakes/%C3%A9"
    with EventStream(stream.url) as events:
        assert [next(events).type, next(events).data] == ["open", "x"]


def test_an_unknown_path_is_a_404_and_recorded(server):
    response = requests.get(server.url + "nowhere", timeout=LIMIT)
    assert response.status_code == 404
    assert [request.path for request in server.requests] == ["/nowhere"]
    with pytest.raises(TimeoutError, match=r"GET /nowhere \(404\)"):
        server.wait_for_connection(SOON)


@pytest.mark.parametrize(
    "data",
    [
        b"nonsense\r\n\r\n",
        b"GET /\r\n\r\n",
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: " + 5000 * b"9" + b"\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc",
        b"\x16\x03\x01",  # a TLS handshake
    ],
)
def test_what_is_no_request_is_a_400(server, data):
    with socket.create_connection(("127.0.0.1", server.port), LIMIT) as client:
        client.sendall(data)
        assert client.recv(65536).startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert server.requests == []


# --- What clients sent ---


def test_requests_tell_what_was_sent(server):
    server.status(200, times=2)
    requests.post(
        server.url + "?a=1&a=2&b=",
        json={"k": 1},
        headers={"X-Key": "abc", "Last-Event-ID": "7"},
        timeout=LIMIT,
    )
    request = server.wait_for_request(timeout=LIMIT)
    assert (request.method, request.path, request.target) == ("POST", "/", "/?a=1&a=2&b=")
    assert request.query == {"a": ["1", "2"], "b": [""]}
    assert request.header("x-key") == "abc"
    assert ("X-Key", "abc") in request.headers
    assert request.last_event_id == "7"
    assert json.loads(request.body) == request.json() == {"k": 1}
    requests.post(server.url, data=iter([b"chunked ", b"body"]), timeout=LIMIT)
    assert server.wait_for_request(2, timeout=LIMIT).body == b"chunked body"
    assert server.wait_for_request(1, timeout=0) == server.requests[0] == request
    assert server.requests[1].last_event_id == ""


# --- Waiting ---


def test_a_wait_that_fails_says_what_was_waited_for_and_what_came(server):
    with pytest.raises(
        TimeoutError,
        match=r"^waited 0.01 s for 1 client of /: there was none; requests so far: none$",
    ):
        server.wait_for_connection(SOON)
    with pytest.raises(TimeoutError, match="for 2 clients of /: there were 1; .* GET / .stream"):
        with Client(server) as client:
            client.read_head()
            server.wait_for_connection(LIMIT)
            server.wait_for_connection(SOON, count=2)
    with pytest.raises(TimeoutError, match="for request 3 for any path: there were 1;"):
        server.wait_for_request(3, timeout=SOON)


def test_waiting_for_a_connection_is_over_if_there_is_one(server):
    with Client(server) as client:
        server.wait_for_connection(LIMIT)
        server.wait_for_connection(0)
        client.read_head()
    server.wait_for_disconnect(LIMIT)
    server.wait_for_disconnect(0)
    with pytest.raises(TimeoutError):
        server.wait_for_connection(0)


# --- TLS ---


@pytest.fixture(scope="module")
def tls_server():
    with SSEServer(tls=True) as server:
        yield server


def test_tls_by_one_argument(tls_server):
    assert tls_server.url.startswith("https://127.0.0.1:")
    tls_server.send("secret", id="1")
    source, recorder = recorded(tls_server.url, verify=tls_server.ca_file)
    with source:
        source.start()
        assert recorder.wait_for("message", LIMIT).data == "secret"
        tls_server.drop(partial="data: half")
        tls_server.send("more", id="2")
        assert recorder.wait_for("message", LIMIT).data == "more"
        tls_server.wait_for_connection(LIMIT)
    tls_server.wait_for_disconnect(LIMIT)
    with pytest.raises(requests.exceptions.SSLError):
        requests.get(tls_server.url, timeout=LIMIT)
    with pytest.raises(requests.ConnectionError):  # and plain HTTP
        requests.get(tls_server.url.replace("https", "http"), timeout=LIMIT)


def test_tls_a_large_event_arrives_whole(tls_server):
    context = ssl.create_default_context(cafile=tls_server.ca_file)
    with Client.__new__(Client) as client:
        client.received = b""
        plain = socket.create_connection(("localhost", tls_server.port), LIMIT)
        client.sock = context.wrap_socket(plain, server_hostname="localhost")
        client.sock.sendall(b"GET / HTTP/1.1\r\n\r\n")
        client.read_head()
        client.sock.sendall(b"noise")  # read and thrown away
        for number in range(20):
            tls_server.send(f"{number}" * 100_000)
        tls_server.drop()
        assert client.read_rest() == b"".join(
            chunk(format_event(f"{number}" * 100_000)) for number in range(20)
        )


def test_tls_half_a_record_of_the_clients_stops_nothing(tls_server):
    context = ssl.create_default_context(cafile=tls_server.ca_file)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
    with socket.create_connection(("127.0.0.1", tls_server.port), LIMIT) as sock:

        def read(call):
            while True:
                try:
                    return call()
                except ssl.SSLWantReadError:
                    sock.sendall(outgoing.read())
                    data = sock.recv(65536)
                    assert data, "closed"
                    incoming.write(data)

        read(tls.do_handshake)
        tls.write(b"GET / HTTP/1.1\r\n\r\n")
        received = read(tls.read)
        tls.write(b"noise")
        sock.sendall(outgoing.read()[:10])
        for data in ("a", "b"):  # the second one is sent when the record has been looked at
            tls_server.send(data)
            while f"data: {data}".encode() not in received:
                received += read(tls.read)
    tls_server.wait_for_disconnect(LIMIT)


def test_the_certificate_is_removed_by_close():
    server = SSEServer(tls=True)
    path = Path(server.ca_file)
    assert path.exists()
    server.close()
    assert not path.parent.exists()


def test_tls_with_a_context_of_ones_own(tls_server):
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    with SSEServer(tls=context) as server, authority.cert_pem.tempfile() as path:
        assert server.ca_file is None
        server.send("x")
        with EventStream(server.url, verify=path) as stream:
            assert [next(stream).type, next(stream).data] == ["open", "x"]


def test_tls_without_trustme_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "trustme", None)
    with pytest.raises(ModuleNotFoundError, match="python -m pip install trustme"):
        SSEServer(tls=True)


# --- Its life ---


def test_after_close_all_but_looking_is_refused():
    with SSEServer() as server:
        stream = server.stream("/x")
        with Client(server) as client:
            client.read_head()
    for call in (
        lambda: server.send("x"),
        server.comment,
        lambda: stream.retry(1),
        lambda: server.send_bytes(b""),
        server.drop,
        server.end,
        lambda: server.status(503),
        lambda: server.redirect("/"),
        stream.stall,
        lambda: server.stream("/y"),
        lambda: server.wait_for_connection(LIMIT),
        lambda: server.wait_for_request(2, timeout=LIMIT),
    ):
        with pytest.raises(RuntimeError, match="the server is closed"):
            call()
    assert server.wait_for_request(timeout=LIMIT) == server.requests[0]
    server.wait_for_disconnect(LIMIT)
    server.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", server.port))


def test_close_ends_the_waiting_of_others():
    raised, looked = [], threading.Event()

    class Server(SSEServer):
        @property
        def requests(self):
            looked.set()  # with the lock, which only waiting releases
            return super().requests

    def wait():
        try:
            server.wait_for_request(timeout=3600)
        except RuntimeError as error:
            raised.append(error)

    with Server() as server:
        thread = threading.Thread(target=wait, daemon=True)
        thread.start()
        assert looked.wait(LIMIT)
    thread.join(LIMIT)
    assert not thread.is_alive()
    assert len(raised) == 1


def test_close_breaks_off_what_is_connected_also_if_it_does_not_read():
    before = set(threading.enumerate())
    with SSEServer() as server:
        client = Client(server)
        idle = Client(server)
        server.wait_for_connection(LIMIT, count=2)
        for data in MUCH:
            server.send(data)
    assert set(threading.enumerate()) <= before
    client.sock.close()
    idle.sock.close()


class Broken(ssl.SSLContext):
    def wrap_socket(self, *_, **options):
        raise ZeroDivisionError("in the thread")


def test_what_goes_wrong_in_a_thread_is_raised_by_close():
    with pytest.raises(ZeroDivisionError, match="in the thread"):
        with SSEServer(tls=Broken(ssl.PROTOCOL_TLS_SERVER)) as server:
            with Client(server) as client:
                assert client.read_rest() == b""
    server.close()
    with pytest.raises(RuntimeError):  # closed all the same
        server.send("x")


def test_a_port_that_is_taken_is_an_error_and_leaves_nothing(server):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(OSError, match="in use"):
            SSEServer(tls=True, port=server.port)
        gc.collect()


def test_of_many_requests_an_error_lists_the_last_twenty(server):
    for number in range(23):
        with Client(server, f"/{number}") as client:
            client.read_rest()
    expected = ", ".join(f"GET /{number} (404)" for number in range(3, 23))
    with pytest.raises(TimeoutError) as caught:
        server.wait_for_connection(timeout=0.01)
    assert str(caught.value).endswith(f"requests so far: 3 others, {expected}")


@pytest.mark.parametrize(
    "wait",
    [SSEServer.wait_for_connection, SSEServer.wait_for_disconnect, SSEServer.wait_for_request],
)
def test_the_documented_default_of_waits_is_ten_seconds(wait):
    assert inspect.signature(wait).parameters["timeout"].default == 10.0


def test_many_clients_in_a_row_leave_no_threads(server):
    def threads():
        """Also those that have ended, if anything refers to them."""
        gc.collect()
        found = [each for each in gc.get_objects() if isinstance(each, threading.Thread)]
        return [each for each in found if each.name == "sse-script" and each not in before]

    before = weakref.WeakSet()
    before.update(threads())
    for _ in range(50):
        with Client(server, "/nowhere") as client:
            client.read_rest()
    wait_until(lambda: not any(each.is_alive() for each in threads()))
    with Client(server) as client:
        client.read_head()  # may come before the thread that answers it is listed
        wait_until(lambda: len(threads()) == 1)  # those of the past are let go of
