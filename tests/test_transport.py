"""One HTTP exchange: what is sent, what is read, and that it can be ended at any point."""

from __future__ import annotations

import gzip
import http.client
import socket
import ssl
import threading
import time
import zlib

import pytest
import requests
import trustme
import urllib3

from eventsource.errors import Aborted, EventTimeout
from eventsource.http import adapter as connection_module
from eventsource.http.exchange import Transport
from eventsource.runtime import deadline
from eventsource.testing import ScriptedServer

from .support import (
    CHUNKED,
    HEAD,
    LIMIT,
    QUERY_SECRET,
    SECRET,
    port_that_never_answers,
    respond,
    status,
    wait_until,
)

AUTHORITY = trustme.CA()


def server_context():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    AUTHORITY.issue_cert("127.0.0.1").configure_cert(context)
    return context


@pytest.fixture
def authority_file(tmp_path):
    path = tmp_path / "authority.pem"
    AUTHORITY.cert_pem.write_to_path(str(path))
    return str(path)


def exchange_with(url, session=None, method="GET", **options):
    return Transport(url, method=method, session=session, options=options).exchange()


class Opened:
    """Opens an exchange and reads it to its end in another thread; keeps what came."""

    def __init__(self, exchange):
        self.exchange = exchange
        self.read = b""
        self.error = None
        self.changed = threading.Condition()
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self):
        try:
            self.exchange.open()
            with self.changed:
                self.read += b"<open>"
                self.changed.notify_all()
            while data := self.exchange.read():
                with self.changed:
                    self.read += data
                    self.changed.notify_all()
        except Exception as error:
            self.error = error

    def wait_for(self, data):
        with self.changed:
            assert self.changed.wait_for(lambda: data in self.read, LIMIT), self.read

    def join(self):
        self.thread.join(LIMIT)
        assert not self.thread.is_alive()


# --- What is sent ---


def request_of(server, **options):
    exchange = exchange_with(server.url, **options)
    exchange.open()
    exchange.abort()
    return server.wait_for_request()


def test_the_request_asks_for_an_uncompressed_event_stream_and_no_cache():
    with ScriptedServer(respond(HEAD)) as server:
        request = request_of(server)
    assert request.method == "GET"
    assert request.header("Accept") == "text/event-stream"
    assert request.header("Cache-Control") == "no-cache"
    assert request.header("Accept-Encoding") == "identity"
    assert request.header("Last-Event-ID") is None


def test_the_callers_headers_take_precedence_in_any_case():
    given = {"accept": "text/event-stream, text/plain", "X-Key": b"\xc3\xa9", "CACHE-CONTROL": "x"}
    before = dict(given)
    with ScriptedServer(respond(HEAD)) as server:
        request = request_of(server, headers=given)
    assert request.header("Accept") == "text/event-stream, text/plain"
    assert [value for name, value in request.headers if name.lower() == "accept"] == [
        "text/event-stream, text/plain"
    ]
    assert request.header("Cache-Control") == "x"
    assert request.header("X-Key") == "\xc3\xa9"
    assert given == before


@pytest.mark.parametrize(
    ("last_event_id", "on_the_wire"),
    [
        ("7", b"7"),
        ("é日", b"\xc3\xa9\xe6\x97\xa5"),
        (" a", b"a"),  # the space is sent; a field's value begins after it
        ("a:b; c", b"a:b; c"),
    ],
)
def test_the_last_event_id_is_sent_as_utf_8(last_event_id, on_the_wire):
    with ScriptedServer(respond(HEAD)) as server:
        exchange = exchange_with(server.url)
        exchange.open(last_event_id)
        exchange.abort()
        request = server.wait_for_request()
    assert request.header("Last-Event-ID").encode("latin-1") == on_the_wire


def test_a_last_event_id_header_of_the_callers_is_sent_until_there_is_an_id():
    with ScriptedServer(respond(HEAD)) as server:
        transport = Transport(server.url, options={"headers": {"Last-Event-ID": "old"}})
        for last_event_id in ("", "new"):
            exchange = transport.exchange()
            exchange.open(last_event_id)
            exchange.abort()
        assert [request.header("Last-Event-ID") for request in server.requests] == ["old", "new"]


def test_a_post_sends_its_body():
    with ScriptedServer(respond(HEAD)) as server:
        request = request_of(server, method="post", json={"prompt": "é"}, params={"a": "b c"})
    assert (request.method, request.target) == ("POST", "/?a=b+c")
    assert request.header("Content-Type") == "application/json"
    assert request.body == b'{"prompt": "\\u00e9"}'


def test_tcp_keep_alive_is_on(monkeypatch):
    seen = []
    connect = socket.socket.connect

    def spy(sock, address):
        seen.append(sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))
        seen.append(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE))
        connect(sock, address)

    with ScriptedServer(respond(HEAD)) as server:
        monkeypatch.setattr(socket.socket, "connect", spy)
        request_of(server)
    assert seen == [1, 30]


def test_the_default_timeouts_are_ten_seconds_to_connect_and_none_to_read():
    assert Transport("http://host/", options={}).options["timeout"] == (10.0, None)


# --- Credentials ---


@pytest.fixture
def netrc(monkeypatch, tmp_path):
    path = tmp_path / "netrc"
    path.write_text(f"machine 127.0.0.1 login from password {SECRET}\n")
    monkeypatch.setenv("NETRC", str(path))


FROM_NETRC = requests.auth._basic_auth_str("from", SECRET)


def test_netrc_is_used_when_nothing_else_is_given(netrc):
    with ScriptedServer(respond(HEAD)) as server:
        assert request_of(server).header("Authorization") == FROM_NETRC


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"headers": {"Authorization": f"Bearer {SECRET}"}}, f"Bearer {SECRET}"),
        ({"headers": {"authorization": f"Bearer {SECRET}".encode()}}, f"Bearer {SECRET}"),
        ({"auth": ("user", SECRET)}, requests.auth._basic_auth_str("user", SECRET)),
        ({"auth": ("u", "p"), "headers": {"Authorization": "x"}}, "Basic dTpw"),
    ],
)
def test_netrc_never_overrides_what_the_caller_gave(netrc, options, expected):
    with ScriptedServer(respond(HEAD)) as server:
        assert request_of(server, **options).header("Authorization") == expected


def test_netrc_never_overrides_what_the_session_has(netrc):
    by_auth, by_header = requests.Session(), requests.Session()
    by_auth.auth = ("u", "p")
    by_header.headers["Authorization"] = "Bearer token"
    with by_auth, by_header, ScriptedServer(respond(HEAD)) as server:
        for session in (by_auth, by_header):
            exchange = exchange_with(server.url, session)
            exchange.open()
            exchange.abort()
        assert [request.header("Authorization") for request in server.requests] == [
            "Basic dTpw",
            "Bearer token",
        ]


def test_netrc_never_overrides_credentials_in_the_url(netrc):
    with ScriptedServer(respond(HEAD)) as server:
        exchange = exchange_with(server.url.replace("//", "//u:p@"))
        exchange.open()
        exchange.abort()
        assert server.wait_for_request().header("Authorization") == "Basic dTpw"


def test_an_auth_callable_runs_at_each_attempt():
    tokens = iter("ab")

    def authorize(request):
        request.headers["Authorization"] = f"Bearer {next(tokens)}"
        return request

    with ScriptedServer(respond(HEAD)) as server:
        transport = Transport(server.url, options={"auth": authorize})
        for _ in range(2):
            exchange = transport.exchange()
            exchange.open()
            exchange.abort()
        assert [r.header("Authorization") for r in server.requests] == ["Bearer a", "Bearer b"]


def test_digest_authentication_works():
    def challenge(connection):
        connection.read_request()
        connection.send(
            b"HTTP/1.1 401 No\r\nContent-Length: 0\r\n"
            b'WWW-Authenticate: Digest realm="r", nonce="n", qop="auth"\r\n\r\n'
        )
        connection.read_request()
        connection.send(HEAD + b"data: in\n\n")

    with ScriptedServer(challenge) as server:
        exchange = exchange_with(server.url, auth=requests.auth.HTTPDigestAuth("u", SECRET))
        assert exchange.open().status_code == 200
        assert exchange.read() == b"data: in\n\n"
        exchange.abort()
        assert 'username="u"' in server.requests[1].header("Authorization")


@pytest.mark.parametrize("framing", [b"", b"Content-Length: 99999999999\r\n"])
def test_the_endless_body_of_a_digest_challenge_is_not_read(framing):
    def challenge(connection):
        connection.read_request()
        connection.send(
            b"HTTP/1.1 401 No\r\n"
            b'WWW-Authenticate: Digest realm="r", nonce="n", qop="auth"\r\n' + framing + b"\r\n"
        )
        while True:
            connection.send(b"x" * 65536)

    with ScriptedServer(challenge, respond(HEAD + b"data: in\n\n")) as server:
        exchange = exchange_with(server.url, auth=requests.auth.HTTPDigestAuth("u", SECRET))
        assert exchange.open().status_code == 200
        assert exchange.read() == b"data: in\n\n"
        exchange.abort()


@pytest.mark.parametrize("auth", [None, requests.auth.HTTPDigestAuth("u", SECRET), lambda r: r])
def test_a_401_that_is_held_open_is_not_waited_for(auth):
    with ScriptedServer(respond(b"HTTP/1.1 401 No\r\n\r\n", then="hold")) as server:
        exchange = exchange_with(server.url, auth=auth)
        assert exchange.open().status_code == 401
        exchange.read_error_body()
        exchange.abort()


@pytest.mark.parametrize("auth", [None, requests.auth.HTTPDigestAuth("u", SECRET)])
def test_the_body_of_a_401_is_kept(auth):
    with ScriptedServer(status("401 No", body=b"why")) as server:
        exchange = exchange_with(server.url, auth=auth)
        response = exchange.open()
        exchange.read_error_body()
        exchange.abort()
        assert response.content == b"why"


def test_a_token_with_a_line_end_is_refused_without_being_shown():
    def authorize(request):
        request.headers["Authorization"] = f"Bearer {SECRET}\n"
        return request

    with ScriptedServer(respond(HEAD)) as server:
        exchange = exchange_with(server.url, auth=authorize)
        with pytest.raises(ValueError, match=r"headers\['Authorization'\]") as caught:
            exchange.open()
        exchange.abort()
        assert server.requests == []
    assert "secret" not in str(caught.value)


def test_a_session_that_overrides_request_to_add_a_token_works():
    class TokenSession(requests.Session):
        def request(self, method, url, **kwargs):
            kwargs["headers"] = {**kwargs["headers"], "Authorization": f"Bearer own{SECRET}"}
            return super().request(method, url, **kwargs)

    with TokenSession() as session, ScriptedServer(respond(HEAD)) as server:
        exchange = exchange_with(server.url, session)
        exchange.open("7")
        exchange.abort()
        request = server.wait_for_request()
    assert request.header("Authorization") == f"Bearer own{SECRET}"
    assert request.header("Last-Event-ID") == "7"


def test_cookies_are_kept_across_exchanges():
    with ScriptedServer(
        respond(HEAD.replace(b"\r\n\r\n", b"\r\nSet-Cookie: sid=1; Path=/\r\n\r\n"))
    ) as server:
        transport = Transport(server.url, options={"cookies": {"mine": SECRET}})
        for _ in range(2):
            exchange = transport.exchange()
            exchange.open()
            exchange.abort()
        first, second = (request.header("Cookie") for request in server.requests)
    assert first == f"mine={SECRET}"
    assert sorted(second.split("; ")) == [f"mine={SECRET}", "sid=1"]


# --- Proxies ---


def test_a_proxy_of_the_environment_is_used_and_the_exchange_can_be_aborted(monkeypatch):
    with ScriptedServer(respond(HEAD, then="hold")) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url.replace("//", f"//u:{SECRET}@"))
        opened = Opened(exchange_with("http://some.host:81/path?q"))
        opened.wait_for(b"<open>")
        opened.exchange.abort()
        opened.join()
        request = proxy.requests[0]
        assert proxy.connections[0].gone.wait(LIMIT)
    assert isinstance(opened.error, Aborted)
    assert request.target == "http://some.host:81/path?q"
    assert request.header("Proxy-Authorization") == requests.auth._basic_auth_str("u", SECRET)


def test_no_proxy_is_obeyed(monkeypatch):
    with ScriptedServer(respond(HEAD)) as server:
        monkeypatch.setenv("http_proxy", "http://127.0.0.1:1/")
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        request_of(server)


def test_a_tunnel_through_a_proxy_can_be_aborted_in_the_tls_handshake():
    def tunnel(connection):
        connection.read_request()
        connection.send(b"HTTP/1.1 200 OK\r\n\r\n")
        connection.sock.recv(1)
        connection.hold()

    with ScriptedServer(tunnel) as proxy:
        exchange = exchange_with("https://some.host/", proxies={"https": proxy.url})
        opened = Opened(exchange)
        proxy.wait_for_request()
        exchange.abort()
        opened.join()
        assert (proxy.requests[0].method, proxy.requests[0].target) == ("CONNECT", "some.host:443")
        assert proxy.connections[0].gone.wait(LIMIT)
    assert isinstance(opened.error, Aborted)


def test_the_adapter_leaves_other_proxies_alone():
    with pytest.raises(requests.exceptions.InvalidSchema, match="SOCKS"):
        exchange_with("http://some.host/", proxies={"http": "socks5://127.0.0.1:1"}).open()


# --- Redirects ---


def redirect(target, line="302 Found", *headers):
    return status(line, f"Location: {target}", *headers)


SECRETS = {
    "headers": {"X-Api-Key": SECRET, "Authorization": f"Bearer {SECRET}", "User-Agent": SECRET},
    "cookies": {"session": SECRET},
}


def test_a_redirect_on_the_same_origin_keeps_everything(netrc):
    with ScriptedServer(redirect("/there"), respond(HEAD)) as server:
        exchange = exchange_with(server.url, **SECRETS)
        assert exchange.open("7").url == server.url + "there"
        exchange.abort()
        request = server.requests[1]
    assert request.target == "/there"
    assert request.header("X-Api-Key") == SECRET
    assert request.header("Authorization") == f"Bearer {SECRET}"
    assert request.header("Cookie") == f"session={SECRET}"
    assert request.header("Last-Event-ID") == "7"


@pytest.mark.parametrize("line", ["301 Moved", "302 Found", "303 See", "307 Temp", "308 Perm"])
def test_a_redirect_to_another_origin_takes_nothing_along_but_the_place(line):
    with (
        ScriptedServer(respond(HEAD)) as there,
        ScriptedServer(redirect(there.url + "x", line)) as here,
    ):
        exchange = exchange_with(here.url, **SECRETS)
        exchange.open("7")
        exchange.abort()
        first, request = here.requests[0], there.requests[0]
    assert "secret" in repr(first)
    assert "secret" not in repr(request)
    assert request.header("Cookie") is None
    assert request.header("Last-Event-ID") == "7"
    assert request.header("Accept") == "text/event-stream"
    assert request.header("Cache-Control") == "no-cache"


def test_neither_does_a_session_of_the_callers_give_its_own_away():
    with (
        requests.Session() as session,
        ScriptedServer(respond(HEAD)) as there,
        ScriptedServer(redirect(there.url)) as here,
    ):
        session.headers["X-Api-Key"] = SECRET
        session.auth = (SECRET, SECRET)
        session.cookies.set("sid", SECRET, domain="127.0.0.1")
        exchange = exchange_with(here.url, session)
        exchange.open()
        exchange.abort()
        assert f"sid={SECRET}" in here.requests[0].header("Cookie")
        request = there.requests[0]
    assert "secret" not in repr(request)
    assert request.header("Authorization") is None


def test_what_was_dropped_does_not_come_back_further_on():
    servers = []
    with (
        ScriptedServer(
            lambda c: redirect(servers[1].url + "2")(c), lambda c: respond(HEAD)(c)
        ) as home,
        ScriptedServer(lambda c: redirect("/3")(c), lambda c: redirect(home.url + "4")(c)) as away,
    ):
        servers[:] = home, away
        with requests.Session() as session:
            session.cookies.set("sid", SECRET, domain="127.0.0.1")
            exchange = exchange_with(home.url, session, **SECRETS)
            exchange.open()
            exchange.abort()
        assert [r.target for r in home.requests + away.requests] == ["/", "/4", "/2", "/3"]
        later = [home.requests[1], *away.requests]
    assert "secret" not in repr(later)


def test_digest_credentials_do_not_answer_another_origins_challenge():
    challenge = status("401 No", 'WWW-Authenticate: Digest realm="r", nonce="n", qop="auth"')
    with ScriptedServer(challenge) as there, ScriptedServer(redirect(there.url)) as here:
        exchange = exchange_with(here.url, auth=requests.auth.HTTPDigestAuth(SECRET, "p"))
        assert exchange.open().status_code == 401
        exchange.abort()
        assert [request.header("Authorization") for request in there.requests] == [None]


def test_netrc_may_have_credentials_for_the_new_origin(netrc):
    with ScriptedServer(respond(HEAD)) as there, ScriptedServer(redirect(there.url)) as here:
        exchange = exchange_with(here.url, headers={"Authorization": f"Bearer {SECRET}"})
        exchange.open()
        exchange.abort()
        assert there.requests[0].header("Authorization") == FROM_NETRC


def test_a_redirected_post_keeps_its_body_with_307_and_not_with_303():
    for line, expected in (("307 Temp", ("POST", b"a=1")), ("303 See", ("GET", b""))):
        with (
            ScriptedServer(respond(HEAD)) as there,
            ScriptedServer(redirect(there.url, line)) as here,
        ):
            exchange = exchange_with(here.url, method="POST", data={"a": "1"})
            exchange.open()
            exchange.abort()
            request = there.requests[0]
        assert (request.method, request.body) == expected


def test_the_endless_body_of_a_redirect_is_not_read():
    def endless(connection):
        connection.read_request()
        connection.send(b"HTTP/1.1 302 Found\r\nLocation: /there\r\n\r\n")
        while True:
            connection.send(b"x" * 65536)

    with ScriptedServer(endless, respond(HEAD)) as server:
        exchange = exchange_with(server.url)
        assert exchange.open().url.endswith("/there")
        exchange.abort()


def test_the_connection_of_a_redirect_is_closed_when_the_next_has_opened():
    def stay(connection):
        connection.read_request()
        connection.send(b"HTTP/1.1 302 Found\r\nLocation: /there\r\nContent-Length: 0\r\n\r\n")
        connection.hold()

    with ScriptedServer(stay, respond(HEAD, then="hold")) as server:
        exchange = exchange_with(server.url)
        exchange.open()
        assert server.connections[0].gone.wait(LIMIT)
        exchange.abort()


def test_a_redirect_loop_ends():
    with ScriptedServer(redirect("/")) as server:
        exchange = exchange_with(server.url)
        with pytest.raises(requests.TooManyRedirects, match="30 redirects"):
            exchange.open()
        exchange.abort()
        assert len(server.requests) == 31


def test_redirects_are_not_followed_if_the_caller_says_so():
    with ScriptedServer(redirect("/there")) as server:
        exchange = exchange_with(server.url, allow_redirects=False)
        assert exchange.open().status_code == 302
        exchange.abort()


def test_a_redirect_to_a_scheme_that_cannot_be_fetched_fails():
    with ScriptedServer(redirect(f"ftp://u:{SECRET}@host/?{QUERY_SECRET}")) as server:
        exchange = exchange_with(server.url)
        with pytest.raises(requests.ConnectionError, match="'ftp://host/'") as caught:
            exchange.open()
        exchange.abort()
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "location",
    [
        *("http://[", "http://host:99999/", "http://host:x/", "\xff", "http://a..b/"),
        *(f"\0//{SECRET}@host/", f"\x1f//u:{SECRET}@host"),  # to requests, hosts without a scheme
    ],
)
def test_a_redirect_to_what_is_no_url_is_a_lost_connection(location):
    script = respond(b"HTTP/1.1 302 Found\r\nLocation: " + location.encode("latin-1") + b"\r\n\r\n")
    with ScriptedServer(script) as server:
        exchange = exchange_with(server.url)
        with pytest.raises(requests.ConnectionError, match="cannot be fetched") as caught:
            exchange.open()
        exchange.abort()
    assert SECRET not in str(caught.value)


# --- The head of the response ---


@pytest.mark.parametrize("cut", range(len(HEAD)))
def test_a_head_that_is_cut_off_is_a_lost_connection_not_an_answer(cut):
    with ScriptedServer(respond(HEAD[:cut])) as server:
        exchange = exchange_with(server.url)
        with pytest.raises(requests.ConnectionError):
            exchange.open()
        exchange.abort()


INTERIM = (
    b"HTTP/1.1 100 Continue\r\n\r\n"
    b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
    b"HTTP/1.1 103 Early Hints\r\n\r\n"
)


@pytest.mark.parametrize(
    "data",
    [
        b"garbage not http\r\n\r\n",
        b"HTTP/1.1 ?\r\n\r\n",
        b"HTTP/9\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5, 6\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: x\r\n" * 200 + b"\r\n",
        b"HTTP/1.1 103 Early Hints\r\n\r\n" * 200,
    ],
    ids=["garbage", "no-status", "version", "lengths", "long-line", "many-lines", "interim"],
)
def test_a_head_that_makes_no_sense_is_a_requests_exception(data):
    with ScriptedServer(respond(data)) as server:
        exchange = exchange_with(server.url)
        with pytest.raises(requests.RequestException):
            exchange.open()
        exchange.abort()


def test_an_interim_response_is_passed_over():
    with ScriptedServer(respond(INTERIM + HEAD + b"data: x\n\n")) as server:
        exchange = exchange_with(server.url)
        assert exchange.open().status_code == 200
        assert exchange.read() == b"data: x\n\n"
        exchange.abort()


# --- Reading ---

EVENT = b"data: x\n\n"


def compressor():
    return zlib.compressobj(wbits=31)


def chunk(data):
    return b"%x\r\n%b\r\n" % (len(data), data)


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("compressed", [False, True], ids=["identity", "gzip"])
@pytest.mark.parametrize("chunked", [False, True], ids=["until-close", "chunked"])
def test_an_event_is_read_as_soon_as_it_has_arrived(tls, compressed, chunked, authority_file):
    proceed = threading.Event()

    def script(connection):
        connection.read_request()
        head = CHUNKED if chunked else HEAD
        squeeze = compressor()
        if compressed:
            head = head.replace(b"\r\n\r\n", b"\r\nContent-Encoding: gzip\r\n\r\n")
        connection.send(head)
        for _ in range(3):
            data = EVENT
            if compressed:
                data = squeeze.compress(data) + squeeze.flush(zlib.Z_SYNC_FLUSH)
            connection.send(chunk(data) if chunked else data)
            assert proceed.wait(LIMIT)
            proceed.clear()
        connection.hold()

    with ScriptedServer(script, ssl_context=server_context() if tls else None) as server:
        exchange = exchange_with(server.url, verify=authority_file)
        exchange.open()
        for _ in range(3):
            assert exchange.read() == EVENT  # nothing else is sent before it is here
            proceed.set()
        exchange.abort()


@pytest.mark.parametrize("compressed", [False, True], ids=["identity", "gzip"])
@pytest.mark.parametrize("own", [True, False], ids=["our session", "the caller's"])
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_all_chunks_that_have_arrived_come_in_one_read(own, tls, compressed, authority_file):
    """On a session of the caller's too, but there one at a time."""
    count = 200
    opened = threading.Event()

    def script(connection):
        connection.read_request()
        squeeze = compressor()
        head = CHUNKED
        if compressed:
            head = head.replace(b"\r\n\r\n", b"\r\nContent-Encoding: gzip\r\n\r\n")
        connection.send(head)
        assert opened.wait(LIMIT)
        body = b""
        for _ in range(count):
            data = EVENT
            if compressed:
                data = squeeze.compress(data) + squeeze.flush(zlib.Z_SYNC_FLUSH)
            body += chunk(data)
        connection.send(body)  # in one segment, and one TLS record
        connection.hold()

    with (
        requests.Session() as session,
        ScriptedServer(script, ssl_context=server_context() if tls else None) as server,
    ):
        exchange = exchange_with(server.url, None if own else session, verify=authority_file)
        exchange.open()
        opened.set()
        reads = []
        while sum(map(len, reads)) < count * len(EVENT):
            reads.append(exchange.read())
        exchange.abort()
    assert reads == ([EVENT * count] if own else [EVENT] * count)


def test_part_of_a_chunk_is_read_before_the_rest_is_there():
    proceed = threading.Event()

    def script(connection):
        connection.read_request()
        connection.send(CHUNKED + b"64\r\n" + EVENT)  # of 100 bytes
        assert proceed.wait(LIMIT)
        connection.send(b"y" * (100 - len(EVENT)) + b"\r\n0\r\n\r\n")

    with ScriptedServer(script) as server:
        exchange = exchange_with(server.url)
        exchange.open()
        assert exchange.read() == EVENT
        proceed.set()
        rest = b""
        while data := exchange.read():
            rest += data
        assert rest == b"y" * (100 - len(EVENT))
        exchange.abort()


def test_gzip_works_for_whoever_asks_for_it():
    body = gzip.compress(EVENT * 1000)
    head = HEAD.replace(b"\r\n\r\n", b"\r\nContent-Encoding: gzip\r\n\r\n")
    with ScriptedServer(respond(head + body)) as server:
        exchange = exchange_with(server.url, headers={"Accept-Encoding": "gzip"})
        exchange.open()
        read = b""
        while data := exchange.read():
            read += data
        assert read == EVENT * 1000
        assert server.requests[0].header("Accept-Encoding") == "gzip"
        exchange.abort()


def test_at_most_size_bytes_are_read_at_once():
    with ScriptedServer(respond(HEAD + b"x" * 100)) as server:
        exchange = exchange_with(server.url)
        exchange.open()
        read = []
        while data := exchange.read(7):
            read.append(data)
        assert max(map(len, read)) <= 7
        assert b"".join(read) == b"x" * 100
        exchange.abort()


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (CHUNKED + b"10\r\nabc", requests.exceptions.ChunkedEncodingError),
        (CHUNKED + b"zz\r\nabc", requests.exceptions.ChunkedEncodingError),
        (
            HEAD.replace(b"\r\n\r\n", b"\r\nContent-Length: 9\r\n\r\n") + b"abc",
            requests.exceptions.ChunkedEncodingError,
        ),
        (
            HEAD.replace(b"\r\n\r\n", b"\r\nContent-Encoding: gzip\r\n\r\n") + b"abcdefghijkl",
            requests.exceptions.ContentDecodingError,
        ),
    ],
    ids=["chunk-cut", "no-chunk-size", "length-cut", "no-gzip"],
)
def test_a_broken_body_is_a_requests_exception(data, kind):
    with ScriptedServer(respond(data)) as server:
        exchange = exchange_with(server.url)
        exchange.open()
        with pytest.raises(kind):
            while exchange.read():
                pass
        exchange.abort()


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
        exchange = exchange_with(server.url, timeout=(10, 0.05))
        exchange.open()
        with pytest.raises(requests.ReadTimeout):
            exchange.read()
        exchange.abort()


def test_a_connect_timeout_is_a_connect_timeout():
    with port_that_never_answers() as port:
        exchange = exchange_with(f"http://127.0.0.1:{port}/", timeout=0.05)
        with pytest.raises(requests.ConnectTimeout):
            exchange.open()
        exchange.abort()


def test_the_longest_timeout_that_is_accepted_can_be_waited_for():
    with ScriptedServer(respond(HEAD + EVENT, then="hold")) as server:
        exchange = exchange_with(server.url, timeout=threading.TIMEOUT_MAX)
        assert exchange.open().status_code == 200
        assert exchange.read() == EVENT
        exchange.abort()


def test_a_host_is_found_by_its_name():
    with ScriptedServer(respond(HEAD + EVENT)) as server:
        exchange = exchange_with(server.url.replace("127.0.0.1", "localhost"))
        assert exchange.open().status_code == 200
        assert exchange.read() == EVENT
        exchange.abort()


def test_the_next_address_of_a_host_is_tried_when_one_refuses(monkeypatch):
    with ScriptedServer(respond(HEAD, then="hold")) as server:
        monkeypatch.setattr(
            connection_module,
            "_get_addresses",
            lambda host, port, flags=0: [
                (socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.2", 1)),
                (socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", port)),
            ],
        )
        exchange = exchange_with(server.url)
        assert exchange.open().status_code == 200
        assert len(exchange._sockets._duplicates) == 1
        exchange.abort()


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
        exchange = exchange_with(url.format(port=unused.getsockname()[1]))
        with pytest.raises(requests.RequestException) as caught:
            exchange.open()
        exchange.abort()
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


def test_abort_while_the_name_is_looked_up(monkeypatch):
    asked, answer = threading.Event(), threading.Event()

    def resolver(host, port, flags=0):
        if flags:
            raise socket.gaierror("not a number")
        asked.set()
        assert answer.wait(LIMIT)
        raise socket.gaierror("no")

    monkeypatch.setattr(connection_module, "_get_addresses", resolver)
    opened = Opened(exchange_with("http://some.host/", timeout=None))
    assert asked.wait(LIMIT)
    opened.exchange.abort()
    opened.join()  # though the resolver is still busy
    answer.set()
    assert isinstance(opened.error, Aborted)


def test_a_look_up_that_takes_longer_than_the_connect_timeout_fails(monkeypatch):
    answer = threading.Event()

    def resolver(host, port, flags=0):
        if flags:
            raise socket.gaierror("not a number")
        assert answer.wait(LIMIT)
        return []

    monkeypatch.setattr(connection_module, "_get_addresses", resolver)
    exchange = exchange_with("http://some.host/", timeout=0.05)
    with pytest.raises(requests.ConnectTimeout):
        exchange.open()
    answer.set()
    exchange.abort()


def test_a_session_of_ours_works_outside_an_exchange_too():
    with ScriptedServer(respond(HEAD)) as server:
        session = connection_module.new_session()
        assert session.get(server.url, timeout=LIMIT).status_code == 200
        session.close()


def test_abort_between_the_look_up_and_the_connection(monkeypatch):
    exchange = exchange_with("http://some.host/")

    def resolver(host, port, flags=0):
        exchange.abort()
        return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", 1))]

    monkeypatch.setattr(connection_module, "_get_addresses", resolver)
    with pytest.raises(Aborted):
        exchange.open()


def test_abort_before_the_look_up(monkeypatch):
    exchange = exchange_with("http://some.host/")

    def resolver(host, port, flags=0):
        assert flags, "looked up though aborted"
        exchange.abort()
        raise socket.gaierror("not a number")

    monkeypatch.setattr(connection_module, "_get_addresses", resolver)
    with pytest.raises(Aborted):
        exchange.open()


def test_abort_while_connecting():
    with port_that_never_answers() as port:
        exchange = exchange_with(f"http://127.0.0.1:{port}/", timeout=None)
        opened = Opened(exchange)
        wait_until(lambda: exchange._sockets, "a socket")
        exchange.abort()
        opened.join()
    assert isinstance(opened.error, Aborted)


def test_abort_during_the_tls_handshake():
    def silent(connection):
        connection.sock.recv(1)
        connection.hold()

    with ScriptedServer(silent) as server:
        opened = Opened(exchange_with(server.url.replace("http:", "https:")))
        connection = server.wait_for_connection()
        opened.exchange.abort()
        opened.join()
        assert connection.gone.wait(LIMIT)
    assert isinstance(opened.error, Aborted)


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
        opened = Opened(exchange_with(server.url, verify=authority_file))
        server.wait_for_request()
        if phase.endswith("body"):
            opened.wait_for(b"<open>")
        if phase == "flowing-body":
            opened.wait_for(b"x")
        opened.exchange.abort()
        opened.join()
        assert server.connections[0].gone.wait(LIMIT)
    assert isinstance(opened.error, Aborted)


def test_what_had_arrived_before_abort_is_thrown_away():
    with ScriptedServer(respond(HEAD + EVENT, then="hold")) as server:
        exchange = exchange_with(server.url)
        exchange.open()
        exchange.abort()
        with pytest.raises(Aborted):
            exchange.read()


def test_abort_between_reads_releases_the_socket_at_once():
    with ScriptedServer(respond(HEAD + EVENT, then="hold")) as server:
        exchange = exchange_with(server.url)
        exchange.open()
        exchange.read()
        exchange.abort()
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
        opened.exchange.abort()
        opened.join()
        assert server.connections[0].gone.wait(LIMIT)
        assert dict(session.adapters) == adapters
    assert isinstance(opened.error, Aborted)


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
        transport = Transport(server.url, session=session, silence=0.05, options={})
        exchange = transport.exchange()
        with pytest.raises(requests.ReadTimeout):
            exchange.open()
        exchange.abort()


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
        transport = Transport(
            "http://host/", session=session, silence=7, options={"timeout": timeout}
        )
        assert transport.options["timeout"] == pytest.approx(expected, abs=0.1)
        default = Transport("http://host/", session=session, silence=7, options={})
        assert default.options["timeout"] == (7.5, 7.5)


def test_an_abort_that_comes_late_does_not_touch_the_session():
    with ScriptedServer(respond(HEAD, then="hold")) as server:
        transport = Transport(server.url, options={})
        first, second = transport.exchange(), transport.exchange()
        first.open()
        first.abort()
        closed = []
        transport.session.close = lambda: closed.append(1)
        first.abort()
        assert closed == []
        second.abort()
        assert closed == [1]


def test_one_step_of_releasing_that_fails_does_not_stop_the_others():
    with ScriptedServer(respond(HEAD, then="hold")) as server:
        exchange = exchange_with(server.url)
        response = exchange.open()
        close = response.raw.close

        def fail():
            close()
            raise OSError("dead socket")

        response.raw.close = fail
        exchange.abort()
        assert exchange._sockets._duplicates == []
        assert server.connections[0].gone.wait(LIMIT)


@pytest.mark.parametrize("unread", [False, True])
def test_a_connection_with_unread_bytes_is_reset_though_somebody_reads_them_meanwhile(unread):
    """Else a server whose send waits for our window would notice after a minute only."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        server, _ = listener.accept()
        server.settimeout(LIMIT)
        with client, server:
            sockets = connection_module.Sockets()
            sockets._duplicates.append((client.dup(), client.fileno()))
            if unread:
                server.sendall(b"x")
                assert client.recv(1, socket.MSG_PEEK) == b"x"
            sockets.shut_down()
            while client.recv(65536):
                pass
            assert server.recv(1) == b""
            client.close()
            sockets.release()
            if unread:
                wait_until(lambda: server.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
            else:
                assert server.recv(1) == b""
                assert server.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0


# --- The limit ---


def test_the_limit_ends_a_silent_read():
    with ScriptedServer(respond(HEAD, then="hold")) as server:
        exchange = exchange_with(server.url)
        exchange.open()
        exchange.limit(0.05)
        with pytest.raises(EventTimeout):
            exchange.read()
        assert server.connections[0].gone.wait(LIMIT)


def test_the_limit_ends_the_wait_for_headers():
    with ScriptedServer(lambda connection: connection.hold()) as server:
        exchange = exchange_with(server.url)
        exchange.limit(0.05)
        with pytest.raises(EventTimeout):
            exchange.open()


def test_a_shorter_limit_counts_at_once_and_a_lifted_one_not_at_all():
    with ScriptedServer(respond(HEAD + EVENT, then="hold")) as server:
        exchange = exchange_with(server.url)
        exchange.limit(3600)
        exchange.open()
        exchange.limit(float("inf"))
        assert exchange.read() == EVENT
        exchange.limit(0.05)
        with pytest.raises(EventTimeout):
            exchange.read()


def test_a_limit_that_is_lifted_while_it_is_looked_at_ends_nothing(monkeypatch):
    """The thread that looks may be kept from going on for longer than the limit was."""
    looking, lifted, waits = threading.Event(), threading.Event(), []
    monotonic, wait = time.monotonic, deadline.Wakeup.wait

    def clock():
        if threading.current_thread().name != "eventsource-timeout":
            return monotonic()
        looking.set()
        assert lifted.wait(LIMIT)
        return monotonic() + 3600

    def spy(wakeup, timeout=None):
        waits.append(timeout)
        return wait(wakeup, timeout)

    with ScriptedServer(respond(HEAD + EVENT, then="hold")) as server:
        exchange = exchange_with(server.url)
        exchange.open()
        monkeypatch.setattr(time, "monotonic", clock)
        monkeypatch.setattr(deadline.Wakeup, "wait", spy)
        exchange.limit(1800)
        assert looking.wait(LIMIT)
        exchange.limit(float("inf"))
        lifted.set()
        wait_until(lambda: waits or exchange._aborted, "the look to be over")
        assert exchange.read() == EVENT
        exchange.abort()


def test_a_limit_that_creeps_costs_no_wake_ups(monkeypatch):
    """Heartbeats shorten the limit again and again, to the same deadline."""
    waits = []
    wait = deadline.Wakeup.wait

    def spy(wakeup, timeout=None):
        waits.append(timeout)
        return wait(wakeup, timeout)

    monkeypatch.setattr(deadline.Wakeup, "wait", spy)
    with ScriptedServer(respond(HEAD, then="hold")) as server:
        exchange = exchange_with(server.url)
        exchange.limit(3600)
        exchange.open()
        for number in range(1000):
            exchange.limit(3600 - number / 1e9)
        for _ in range(1000):
            exchange.limit(3600)
            exchange.limit(float("inf"))
        exchange.limit(0.05)
        with pytest.raises(EventTimeout):
            exchange.read()
    assert len(waits) < 10


# --- Error bodies ---


def test_the_body_of_an_error_can_be_read_afterwards():
    with ScriptedServer(status("400 Bad", body=b'{"error": "why"}')) as server:
        exchange = exchange_with(server.url)
        response = exchange.open()
        exchange.read_error_body()
        exchange.abort()
    assert response.json() == {"error": "why"}


def test_a_large_error_body_is_cut():
    with ScriptedServer(status("400 Bad", body=b"x" * 200_000)) as server:
        exchange = exchange_with(server.url)
        response = exchange.open()
        exchange.read_error_body()
        exchange.abort()
    assert response.content == b"x" * 65536


def limits_of(exchange, monkeypatch):
    limits = []
    limit = exchange.limit
    monkeypatch.setattr(exchange, "limit", lambda seconds: (limits.append(seconds), limit(seconds)))
    return limits


def test_an_error_body_that_does_not_end_is_waited_for_a_second(monkeypatch):
    head = b"HTTP/1.1 400 Bad\r\nContent-Length: 100\r\n\r\nabc"
    with ScriptedServer(respond(head, then="hold")) as server:
        exchange = exchange_with(server.url)
        limits = limits_of(exchange, monkeypatch)
        response = exchange.open()
        exchange.read_error_body()
        exchange.abort()
    assert response.content == b"abc"
    assert limits == [1.0]


def test_an_error_body_has_no_more_time_than_the_exchange(monkeypatch):
    head = b"HTTP/1.1 400 Bad\r\nContent-Length: 100\r\n\r\nabc"
    with ScriptedServer(respond(head, then="hold")) as server:
        exchange = exchange_with(server.url)
        limits = limits_of(exchange, monkeypatch)
        exchange.open()
        exchange.limit(0.1)
        exchange.read_error_body()
        exchange.abort()
    assert limits[1] <= 0.1
