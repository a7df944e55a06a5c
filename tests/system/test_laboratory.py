"""What networks do, and what becomes of the stream: nothing lost, twice or out of order."""

from __future__ import annotations

import dataclasses
import errno
import itertools
import os
import random
import signal
import socket
import ssl
import threading

import pytest

from eventsource import EventStream, MessageEvent, ReconnectPolicy
from eventsource.testing import ScriptedServer
from tests.authority import AUTHORITY, server_context
from tests.laboratory import (
    PORTAL,
    Answer,
    Cut,
    Laboratory,
    Redirected,
    Refused,
    Silent,
    Slow,
    script,
)
from tests.real_servers import numbered
from tests.real_servers.process import Server
from tests.support import CHUNKED, LIMIT, respond

STUBBORN = ReconnectPolicy(
    delay=0.02, max_delay=0.1, statuses=frozenset({200, 204, 429, 500, 502, 503})
)
"""Goes on whatever the answer."""
ENOUGH = 30
"""Numbers that must come after the script is over."""
APPS = ["aiohttp_app.py", "sse_starlette_app.py"]


@pytest.fixture(scope="module")
def servers(tmp_path_factory):
    """Two implementations that number alike: to go from one to the other is to swap servers."""
    running = [Server(app, tmp_path_factory.mktemp("server") / "log") for app in APPS]
    try:
        for server in running:
            server.start()
        yield [server.port for server in running]
    finally:
        for server in running:
            server.stop(signal.SIGKILL)


@pytest.fixture
def laboratory():
    with Laboratory() as laboratory:
        yield laboratory


@pytest.fixture
def authority_file(tmp_path):
    AUTHORITY.cert_pem.write_to_path(str(tmp_path / "authority.pem"))
    return str(tmp_path / "authority.pem")


def stream_through(proxy, scheme="http", **options):
    url = f"{scheme}://127.0.0.1:{proxy.port}/numbers?name=laboratory&count=1000000&pace=0.002"
    return EventStream(url, **{"reconnect": STUBBORN, "event_timeout": 0.5, **options})


def survives(proxy, **options):
    """Follow the numbers until enough have come after the script; return the errors."""
    errors = []
    numbers = itertools.count(1)
    still = ENOUGH
    with stream_through(proxy, **options) as stream:
        for event in stream:
            if isinstance(event, MessageEvent):
                number = next(numbers)
                assert event.last_event_id == numbered.event_id(number)
                assert event.data == numbered.event_data(number)
                assert event.type == numbered.event_type(number)
                still -= proxy.is_over.is_set()
                if not still:
                    return errors
            elif event.type == "error":
                assert event.retry_in is not None, event
                errors.append(event.error)
    raise AssertionError(f"the stream has ended: {errors[-1:]}")


# --- The laboratory does what it says ---

BODY = "7\r\ndata: n\r\n18\r\number größer, größer\n\n\r\n".encode()


def received(port):
    """What a client gets that asks and reads to the end, and how that comes."""
    with socket.create_connection(("127.0.0.1", port), LIMIT) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        data = b""
        try:
            while part := sock.recv(65536):
                data += part
        except ConnectionResetError:
            return data, "RST"
        except TimeoutError:
            return data, "hole"
        return data, "FIN"


@pytest.mark.parametrize(
    ("where", "end"),
    [
        ("event", b"data: n"),
        ("character", b"gr\xc3"),
        ("chunk header", b"\r\n1"),
        ("line end", b"7\r"),
    ],
)
@pytest.mark.parametrize("how", ["FIN", "RST"])
def test_a_connection_is_cut_in_the_middle_of_something(laboratory, where, end, how):
    with ScriptedServer(respond(CHUNKED + BODY, then="hold")) as server:
        proxy = laboratory.proxy([server.port], [Cut(where, len(CHUNKED), how)])
        data, came = received(proxy.port)
    assert came == how
    if how == "FIN":  # a reset overtakes the data
        assert data.startswith(CHUNKED)
        assert data.endswith(end)


def test_a_tls_connection_is_cut_within_a_record(laboratory, servers, authority_file):
    client_context = ssl.create_default_context(cafile=authority_file)
    port = laboratory.tls(servers[0], server_context())
    proxy = laboratory.proxy([port], [Cut("TLS record", 3000)])
    with (
        socket.create_connection(("127.0.0.1", proxy.port), LIMIT) as sock,
        client_context.wrap_socket(
            sock, server_hostname="127.0.0.1", suppress_ragged_eofs=False
        ) as tls,
    ):
        tls.sendall(b"GET /numbers?name=tls&count=1000 HTTP/1.1\r\nHost: x\r\n\r\n")
        with pytest.raises(ssl.SSLEOFError):
            while tls.recv(65536):
                pass


def test_after_a_hole_not_one_more_packet_comes(laboratory):
    with ScriptedServer(respond(CHUNKED + BODY)) as server:
        proxy = laboratory.proxy([server.port], [Cut("event", 0, "hole")])
        with socket.create_connection(("127.0.0.1", proxy.port), LIMIT) as sock:
            sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            data = b""
            while not data.endswith(b"data: n"):
                data += sock.recv(65536)
            assert server.wait_for_connection().over.wait(LIMIT)
            sock.settimeout(0.2)
            with pytest.raises(TimeoutError):
                sock.recv(1)


def test_while_it_refuses_nobody_listens_and_afterwards_somebody_does(laboratory):
    refused = threading.Event()

    def faults():
        yield Answer("204 No Content")
        while not refused.is_set():
            yield Refused(0.1)

    with ScriptedServer(respond(CHUNKED + BODY)) as server:
        proxy = laboratory.proxy([server.port], faults())
        assert received(proxy.port)[0].startswith(b"HTTP/1.1 204")
        while not proxy.is_over.is_set():
            with socket.socket() as sock:
                sock.settimeout(LIMIT)
                if sock.connect_ex(("127.0.0.1", proxy.port)) == errno.ECONNREFUSED:
                    refused.set()
        assert received(proxy.port)[0] == CHUNKED + BODY


def test_bytes_can_come_one_by_one(laboratory):
    with ScriptedServer(respond(CHUNKED + BODY)) as server:
        proxy = laboratory.proxy([server.port], [Slow(1, 0, 10_000, 0)])
        assert received(proxy.port)[0] == CHUNKED + BODY


def test_an_answer_lasts_as_long_as_it_should(laboratory):
    now = 1e6
    with ScriptedServer(respond(CHUNKED + BODY)) as server:
        portal = dataclasses.replace(PORTAL, seconds=0.2)
        proxy = laboratory.proxy([server.port], [portal], clock=lambda: now)
        for _ in range(3):
            assert b"hotel" in received(proxy.port)[0]
        now += 0.3
        received(proxy.port)  # which may have begun before
        assert received(proxy.port)[0] == CHUNKED + BODY


def test_a_seed_is_a_script():
    def drawn(seed, **options):
        return list(itertools.islice(script(seed, **options), 200))

    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)
    kinds = {type(fault) for fault in drawn(1)}
    assert kinds == {Cut, Slow, Refused, Silent, Answer, Redirected}
    assert {type(fault) for fault in drawn(1, tls=True)} == {Cut, Slow, Refused, Silent}


# --- What becomes of the stream ---


@pytest.mark.parametrize(
    ("faults", "least"),
    [
        *(
            ([Cut(where, after, how) for after in (0, 200, 2000)], 3)
            for where in ("byte", "event", "character", "line end", "chunk header")
            for how in ("FIN", "RST")
        ),
        ([Cut("byte", after, "hole") for after in (0, 100, 2000)], 3),
        ([Slow(1, 0.001, 400)], 0),
        ([Slow(1, 1.0, 2)], 1),  # a byte a second: longer than the event timeout
        ([Refused(1.0)], 1),
        ([Silent()], 1),
        ([Answer("500 Internal Server Error")], 1),
        ([Answer("503 Service Unavailable"), Answer("503 Service Unavailable")], 2),
        ([Answer("503 Service Unavailable", ("Retry-After: 1",))], 1),
        ([Answer("429 Too Many Requests", ("Retry-After: 1",), b"{}")], 1),
        ([Answer("204 No Content")], 1),
        ([Redirected(), Redirected("localhost")], 0),
        ([Redirected()] * 31, 1),
        ([dataclasses.replace(PORTAL, seconds=0.3)], 1),
    ],
    ids=lambda value: repr(value[0])[:60] if isinstance(value, list) else "",
)
def test_a_stream_survives(faults, least, laboratory, servers):
    """And every fault is one error event."""
    proxy = laboratory.proxy(servers, [Cut(after=700), *faults])
    errors = survives(proxy)
    assert len(errors) > least
    assert proxy.met == [Cut(after=700), *faults]


def test_a_server_can_be_swapped_for_another_that_has_the_same_numbers(laboratory, servers):
    faults = [Cut(after=1500, server=number) for number in (0, 1, 1, 0, 1)]
    assert len(survives(laboratory.proxy(servers, faults), event_timeout=LIMIT)) == 5


@pytest.fixture(params=["plain", "TLS"])
def network(request, laboratory, servers, authority_file):
    """What `script`, `proxy` and `stream_through` are to be given."""
    if request.param == "plain":
        return {"tls": False}, servers, {}
    ports = [laboratory.tls(port, server_context()) for port in servers]
    return {"tls": True}, ports, {"scheme": "https", "verify": authority_file}


@pytest.mark.parametrize("number", range(2))
def test_a_stream_survives_whatever_comes(number, network, laboratory):
    """`EVENTSOURCE_SEED=...` in the environment replays what a failure has printed."""
    seed = os.environ.get("EVENTSOURCE_SEED") or f"{random.randrange(2**32)}"
    print(f"EVENTSOURCE_SEED={seed}")
    visible, ports, options = network
    faults = list(itertools.islice(script(seed, servers=2, **visible), 10))
    proxy = laboratory.proxy(ports, faults)
    try:
        survives(proxy, **options)
    finally:
        print(f"met: {proxy.met}")
