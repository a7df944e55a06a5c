"""What the package relies upon in requests, urllib3, http.client and pyee without their word.

Each test shows one behaviour that `eventsource/http/adapter.py` or
`eventsource/handlers/listeners.py` depends on and that no documentation promises. One that
fails after an upgrade names what has changed.
"""

from __future__ import annotations

import ast
import contextlib
import http.client
import io
import re
import socket
import ssl
from pathlib import Path

import pyee.base
import pytest
import requests
import urllib3
from pyee.base import EventEmitter
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.util.ssl_ import resolve_cert_reqs

import eventsource
from eventsource import EventSource, EventStream
from eventsource.handlers.listeners import Emitter, check_pyee
from eventsource.http.adapter import KNOWN_TO_WORK, SEAMS, check_upstream, new_session
from eventsource.http.cookies import CookieJar
from eventsource.testing import ScriptedServer
from tests.support import CHUNKED, HEAD, LIMIT, respond, status

URL = "http://127.0.0.1:1/"


class Seen(Exception):
    """Raised where upstream has come by."""


def come_by(*_, **__):
    raise Seen


# --- What would fail in silence ---


@pytest.mark.parametrize("seam", SEAMS)
def test_upstream_still_looks_up(seam):
    function, name = SEAMS[seam]
    assert name in function.__code__.co_names


@pytest.mark.parametrize("kind", [HTTPConnection, HTTPSConnection])
def test_the_socket_of_a_connection_is_made_by_new_conn(kind):
    connection = type("Ours", (kind,), {"_new_conn": come_by})("127.0.0.1")
    with pytest.raises(Seen):
        connection.connect()


def test_the_socket_that_new_conn_returns_is_the_one_that_is_used():
    with pair() as (ours, theirs):
        connection = type("Ours", (HTTPConnection,), {"_new_conn": lambda _: ours})("host")
        connection.request("GET", "/")
        assert connection.sock is ours
        assert theirs.recv(16) == b"GET / HTTP/1.1\r\n"


@pytest.mark.parametrize("kind", [urllib3.HTTPConnectionPool, urllib3.HTTPSConnectionPool])
def test_the_connections_of_a_pool_are_made_by_connection_cls(kind):
    pool = type("Ours", (kind,), {"ConnectionCls": come_by})("127.0.0.1")
    with pytest.raises(Seen):
        pool.urlopen("GET", "/", retries=False)


@pytest.mark.parametrize(
    "manager",
    [urllib3.PoolManager(), urllib3.ProxyManager("http://127.0.0.1:1")],
    ids=["direct", "proxy"],
)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_the_pools_of_a_manager_are_made_by_pool_classes_by_scheme(manager, scheme):
    manager.pool_classes_by_scheme = {scheme: come_by}
    with pytest.raises(Seen):
        manager.connection_from_url(f"{scheme}://127.0.0.1:1/")


def test_a_response_is_made_by_response_class():
    with pair() as (ours, _):
        connection = http.client.HTTPConnection("host")
        connection.sock = ours
        connection.response_class = come_by
        connection.request("GET", "/")
        with pytest.raises(Seen):
            connection.getresponse()


def test_a_proxys_answer_is_made_by_response_class_too():
    with pair() as (ours, theirs):
        connection = type("Ours", (HTTPSConnection,), {"_new_conn": lambda _: ours})("proxy")
        connection.set_tunnel("host", 443)
        connection.response_class = come_by
        with pytest.raises(Seen):
            connection.connect()
        assert theirs.recv(99).startswith(b"CONNECT host:443 ")


@pytest.mark.parametrize("seam", SEAMS)
def test_a_version_that_is_made_in_another_way_is_refused_with_one_that_works(monkeypatch, seam):
    monkeypatch.setitem(SEAMS, seam, (lambda: None, SEAMS[seam][1]))
    with pytest.raises(ImportError) as caught:
        check_upstream.__wrapped__()
    assert seam in str(caught.value)
    assert f"{KNOWN_TO_WORK} is known to work" in str(caught.value)


@pytest.mark.parametrize("kind", [EventStream, EventSource])
def test_that_is_said_by_the_constructor(monkeypatch, kind):
    seam = next(iter(SEAMS))
    monkeypatch.setitem(SEAMS, seam, (lambda: None, SEAMS[seam][1]))
    check_upstream.cache_clear()
    with pytest.raises(ImportError, match=KNOWN_TO_WORK):
        kind(URL)


# --- http.client's response ---


@contextlib.contextmanager
def pair():
    """Both ends of a connection."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(LIMIT)
        theirs.settimeout(LIMIT)
        yield ours, theirs


class Lines:
    """A file that can nothing but give lines, flush and close."""

    def __init__(self, data):
        self.file = io.BytesIO(data)
        self.limits = []

    def readline(self, limit):
        self.limits.append(limit)
        return self.file.readline(limit)

    def flush(self):
        pass

    def close(self):
        self.file.close()

    def rest(self):
        return self.file.read()


def response_over(data):
    """A response that has its head from these bytes, and they as lines."""
    with pair() as (ours, _):
        response = http.client.HTTPResponse(ours, method="GET")
        response.fp.close()
        response.fp = Lines(data)
        return response


def test_a_head_is_read_by_readline_from_fp_and_nothing_after_it():
    response = response_over(HEAD + b"data: x\n\n")
    response.begin()
    assert response.status == 200
    assert response.headers["Content-Type"] == "text/event-stream"
    assert response.getheader("Content-Type") == "text/event-stream"
    assert response.fp.rest() == b"data: x\n\n"
    assert set(response.fp.limits) == {65537}


def test_begin_reads_a_head_when_headers_is_none_and_else_does_nothing():
    response = response_over(b"HTTP/1.1 103 Early Hints\r\nA: b\r\n\r\n" + HEAD)
    response.begin()
    assert response.status == 103
    response.begin()
    assert response.status == 103
    response.headers = None
    response.begin()
    assert response.status == 200


def test_a_response_closes_fp_and_takes_its_place_away_when_there_is_no_status():
    response = response_over(b"SSH-2.0\r\n")
    file = response.fp
    with pytest.raises(http.client.BadStatusLine):
        response.begin()
    assert response.fp is None
    assert file.file.closed


def test_the_complaint_about_too_many_fields_is_the_only_one_without_a_name():
    response = response_over(b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 101 + b"\r\n")
    with pytest.raises(http.client.HTTPException) as caught:
        response.begin()
    assert type(caught.value) is http.client.HTTPException
    for data in (b"SSH-2.0\r\n", b"HTTP/9 200 OK\r\n\r\n", b"HTTP/1.1 x\r\n", b"A" * 70_000):
        with pytest.raises(http.client.HTTPException) as caught:
            response_over(data).begin()
        assert type(caught.value) is not http.client.HTTPException


def test_the_names_that_ours_has_on_a_response_and_a_connection_are_free():
    with pair() as (ours, _):
        response = http.client.HTTPResponse(ours)
        assert not [name for name in ("sock", "wire", "file", "head") if hasattr(response, name)]
        response.close()
    for connection in (HTTPConnection("host"), HTTPSConnection("host")):
        assert not [name for name in ("name", "response") if hasattr(connection, name)]


def test_a_socket_that_http_client_has_closed_can_be_read_while_a_file_of_it_is_open():
    with pair() as (ours, theirs):
        file = ours.makefile("rb", buffering=0)
        ours.close()
        theirs.sendall(b"x")
        assert ours.recv(9) == b"x"
        file.close()
        with pytest.raises(OSError):
            ours.recv(9)


class Dry(io.RawIOBase):
    """Gives some bytes once, and says ever after that nothing has arrived."""

    def __init__(self, data):
        self.data = data

    def readable(self):
        return True

    def readinto(self, target):
        data, self.data = self.data, None
        if data is None:
            return None
        target[: len(data)] = data
        return len(data)


def test_peek_returns_what_a_buffer_has_and_no_error_when_nothing_has_arrived():
    file = io.BufferedReader(Dry(b"abcdef"), 100)
    assert file.read(2) == b"ab"
    assert file.peek() == b"cdef"
    assert file.read(4) == b"cdef"
    assert file.peek() == b""


# --- urllib3's connections and responses ---


@pytest.mark.parametrize(
    "name",
    [
        *("ssl_context", "ca_certs", "ca_cert_dir", "proxy"),
        *("cert_file", "key_file", "key_password", "ca_cert_data"),
        *("ssl_version", "ssl_minimum_version", "ssl_maximum_version"),
        *("assert_hostname", "assert_fingerprint"),
    ],
)
def test_a_tls_connection_has_this_setting_and_it_is_none(name):
    assert getattr(HTTPSConnection("host"), name) is None


def test_a_tls_connection_has_the_settings_of_its_pool_when_it_connects():
    class Ours(HTTPSConnection):
        def connect(self):
            seen.append((self.cert_reqs, self.ca_certs, self.cert_file))
            raise Seen

    seen = []
    pool = urllib3.HTTPSConnectionPool("host", cert_reqs="CERT_NONE", ca_certs="a", cert_file="b")
    pool.ConnectionCls = Ours
    with pytest.raises(Seen):
        pool.urlopen("GET", "/", retries=False)
    ((cert_reqs, *files),) = seen
    assert resolve_cert_reqs(cert_reqs) == ssl.CERT_NONE
    assert files == ["a", "b"]


def test_a_connection_has_the_timeout_and_the_options_of_its_pool():
    option = (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection = HTTPConnection("host.", 81, timeout=7, socket_options=[option])
    assert (connection.host, connection.port) == ("host", 81)
    assert (connection.timeout, connection.socket_options) == (7, [option])
    assert connection.sock is None


@pytest.mark.parametrize("head", [HEAD, CHUNKED], ids=["until-close", "chunked"])
def test_a_response_has_its_connection_and_tells_how_much_of_the_body_has_been_read(head):
    body = b"4\r\nabcd\r\n" if head is CHUNKED else b"abcd"
    made = []

    class Ours(HTTPConnection):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            made.append(self)

    with ScriptedServer(respond(head + body, then="hold")) as server:
        pool = urllib3.HTTPConnectionPool("127.0.0.1", server.port)
        pool.ConnectionCls = Ours
        response = pool.urlopen("GET", "/", preload_content=False)
        assert [response.connection] == made
        assert response.tell() == 0
        assert response.read1(2, decode_content=False) == b"ab"
        assert response.tell() > 0
        response.close()
        pool.close()


def test_a_manager_keeps_its_pools_in_pools():
    manager = urllib3.PoolManager()
    pool = manager.connection_from_url(URL)
    assert [manager.pools.get(key) for key in manager.pools.keys()] == [pool]  # noqa: SIM118


# --- requests' adapters, responses and requests ---


def test_an_adapter_makes_its_manager_in_init_poolmanager():
    class Ours(HTTPAdapter):
        def init_poolmanager(self, *args, **kwargs):
            super().init_poolmanager(*args, **kwargs)
            made.append(self.poolmanager)

    made = []
    adapter = Ours()
    assert made == [adapter.poolmanager]
    assert isinstance(adapter.poolmanager, urllib3.PoolManager)


def send(adapter, url, **options):
    with requests.Session() as session:
        session.mount("http://", adapter)
        session.mount("https://", adapter)
        return session.get(url, timeout=LIMIT, **options)


@pytest.mark.parametrize("proxies", [{}, {"http": "http://127.0.0.1:1"}], ids=["direct", "proxy"])
def test_an_adapter_takes_its_pools_from_its_managers(proxies):
    class Ours(HTTPAdapter):
        def init_poolmanager(self, *args, **kwargs):
            super().init_poolmanager(*args, **kwargs)
            if not proxies:
                self.poolmanager.pool_classes_by_scheme = {"http": come_by}

        def proxy_manager_for(self, proxy, **kwargs):
            manager = super().proxy_manager_for(proxy, **kwargs)
            manager.pool_classes_by_scheme = {"http": come_by}
            return manager

    with pytest.raises(Seen):
        send(Ours(), URL, proxies=proxies)


def test_an_adapter_keeps_the_managers_of_its_proxies_in_proxy_manager():
    adapter = HTTPAdapter()
    manager = adapter.proxy_manager_for("http://127.0.0.1:1")
    assert [*adapter.proxy_manager.values()] == [manager]


def test_what_is_verified_is_set_on_the_pool_by_cert_verify_which_goes_by_a_url(tmp_path):
    class Ours(HTTPAdapter):
        def cert_verify(self, conn, url, verify, cert):
            calls.append((type(conn), conn.scheme, url, verify, cert))
            super().cert_verify(conn, "https:", verify, cert)

    calls = []
    url = "http://127.0.0.1:1/"
    with pytest.raises(OSError, match="invalid path"):
        send(Ours(), url, verify=str(tmp_path / "none.pem"))
    assert calls == [(urllib3.HTTPConnectionPool, "http", url, str(tmp_path / "none.pem"), None)]
    pool = urllib3.HTTPSConnectionPool("host")
    HTTPAdapter().cert_verify(pool, "https:", str(tmp_path), None)
    assert (pool.cert_reqs, pool.ca_cert_dir) == ("CERT_REQUIRED", str(tmp_path))


def test_a_session_of_ours_closes_the_connections_of_its_pools_though_a_response_is_kept():
    def script(connection):
        connection.read_request()
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx")
        connection.hold()

    with ScriptedServer(script) as server:
        for proxies in ({}, {"http": server.url}):
            session = new_session(CookieJar())
            url = "http://host/" if proxies else server.url
            response = session.get(url, stream=True, proxies=proxies)
            assert response.content == b"x"  # so the connection is back in the pool
            session.close()
            assert server.connections[-1].gone.wait(LIMIT)
            del response


def test_the_content_of_a_response_is_read_once_and_kept():
    response = requests.Response()
    response.raw = io.BytesIO(b"first")
    assert response.content == b"first"
    response.raw = io.BytesIO(b"second")
    assert response.content == b"first"


def test_auth_is_the_last_to_change_a_request():
    seen = []

    def auth(request):
        seen.append((request.method, request.url, request.body, dict(request.headers)))
        request.headers["Last-Event-ID"] = " é".encode()  # which requests would refuse
        request.register_hook("response", lambda *_, **__: order.append("auth"))
        return request

    order = []
    with ScriptedServer(status("200 OK")) as server, requests.Session() as session:
        session.headers["X-Session"] = "s"
        session.cookies.set("a", "1")
        session.request(
            "POST",
            server.url,
            headers={"X-Ours": "o"},
            data={"b": "c"},
            auth=auth,
            hooks={"response": lambda *_, **__: order.append("caller")},
        )
        request = server.wait_for_request()
    ((method, url, body, headers),) = seen
    assert (method, url, body) == ("POST", server.url, "b=c")
    assert {"X-Session": "s", "X-Ours": "o", "Cookie": "a=1"}.items() <= headers.items()
    assert request.header("Last-Event-ID").encode("latin-1") == "é".encode()
    assert order == ["auth", "caller"]


# --- pyee ---


def test_a_pyee_with_a_public_method_that_is_not_known_is_refused(monkeypatch):
    monkeypatch.setattr(EventEmitter, "listener_count", come_by, raising=False)
    with pytest.raises(ImportError, match=r"\['listener_count'\].*pyee 13 to 16 are known to work"):
        check_pyee.__wrapped__()


def test_a_source_that_has_such_a_pyee_is_not_made(monkeypatch):
    monkeypatch.setattr(EventEmitter, "listener_count", come_by, raising=False)
    check_pyee.cache_clear()
    with pytest.raises(ImportError, match="listener_count"):
        EventSource(URL, start=False)


def test_no_method_of_pyees_finds_a_table_of_its_own():
    source = EventSource(URL, start=False)
    calls = []
    source.on("a", calls.append)
    source.once("a", calls.append)
    for name in public_names(EventEmitter):
        assert getattr(EventSource, name) is getattr(Emitter, name)
    assert source.listeners("a") == [calls.append]
    assert source.event_names() == {"a"}
    source.emit("a", 1)
    assert calls == [1]


def public_names(kind):
    return {name for name in vars(kind) if not name.startswith("_")}


# --- The fence ---

FENCE = {"http/adapter.py", "handlers/listeners.py"}
NAMEDTUPLE = {"_replace", "_asdict", "_fields", "_make"}
"""Documented, though they have an underscore."""


def upstream_files():
    yield Path(http.client.__file__)
    yield Path(pyee.base.__file__)
    for package in (requests, urllib3):
        yield from Path(package.__file__).parent.rglob("*.py")


def is_private(name):
    return name.startswith("_") and not name.startswith("__") and name != "_"


def names_in(tree):
    """All names of functions, classes, variables and attributes."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.Name):
            yield node.id


def own_names(tree):
    """The names that a module gives to what it has: what it defines, and sets on `self`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif is_own(node) and isinstance(node.ctx, ast.Store):
            yield node.attr


def is_own(node):
    """Whether it is an attribute of `self` or `cls`."""
    return (
        isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id in ("self", "cls")
    )


def breaches(text, upstream):
    """Where a module takes a private name of upstream's, or speaks of one.

    A name of its own may be the same, such as `_lock`: then the module defines it.
    """
    tree = ast.parse(text)
    foreign = {
        node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and not is_own(node)
    }
    spoken_of = set(re.findall(r"(?<!\w)_\w+", text)) - set(own_names(tree))
    return (foreign | spoken_of) & upstream


@pytest.fixture(scope="module")
def upstream_names():
    found = {"chunk_left"}  # http.client's, in all but its name
    for path in upstream_files():
        found |= {name for name in names_in(ast.parse(path.read_text())) if is_private(name)}
    return found - NAMEDTUPLE


def test_private_names_of_upstream_stand_in_the_fence_alone(upstream_names):
    expected = "_new_conn _original_response _decoder _content _events _emit_run _add_event_handler"
    assert set(expected.split()) <= upstream_names
    package = Path(eventsource.__file__).parent
    found = {}
    for path in package.rglob("*.py"):
        where = path.relative_to(package).as_posix()
        if where not in FENCE and (names := breaches(path.read_text(), upstream_names)):
            found[where] = names
    assert found == {}


@pytest.mark.parametrize(
    "text",
    [
        "response.raw._original_response",
        "x = 1  # as _original_response does",
        '"""Like _original_response."""',
        "class A:\n    def f(self):\n        return self._original_response\n",
        "class A:\n    def f(self, raw):\n        self._decoder = raw._decoder\n",
        "super()._new_conn()",
        "getattr(raw, '_decoder')",
    ],
)
def test_the_fence_notices(upstream_names, text):
    assert breaches(text, upstream_names)


def test_the_fence_lets_a_module_have_names_of_its_own(upstream_names):
    text = "class A:\n    def f(self, x):\n        self._decoder = x._replace(a=self._decoder)\n"
    assert not breaches(text, upstream_names)
