"""Peers that have gone and streams that only seem alive: keep-alive, `timeout`, `event_timeout`."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import gzip
import io
import itertools
import os
import queue
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
import zlib
from unittest import mock

import pytest
import requests
import trustme
import urllib3

from eventsource import (
    BrokenBody,
    ErrorEvent,
    EventSource,
    EventStream,
    EventTimeout,
    MessageEvent,
    OpenEvent,
    ReadyState,
)
from eventsource.testing import ScriptedServer
from tests.support import (
    CHUNKED,
    HEAD,
    LIMIT,
    QUICK,
    Recorder,
    errors,
    messages,
    numbers,
    opens,
    queue_of,
    record,
    status,
    stream,
    wait_until,
)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="socket options of Linux")

NEAR, FAR = "192.0.2.1", "192.0.2.2"
AUTHORITY = trustme.CA()
GZIPPED = HEAD.replace(b"\r\n\r\n", b"\r\nContent-Encoding: gzip\r\n\r\n")


@pytest.fixture(scope="module")
def context():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    AUTHORITY.issue_cert("127.0.0.1", FAR, "some.host").configure_cert(context)
    return context


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    path = tmp_path_factory.mktemp("dead-peers") / "authority.pem"
    AUTHORITY.cert_pem.write_to_path(str(path))
    return str(path)


@contextlib.contextmanager
def server_at(host, *scripts, **options):
    """An `ScriptedServer` that listens on another address."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    create = socket.create_server

    def create_at_host(address, **kwargs):
        return create((host, address[1]), family=family, **kwargs)

    with mock.patch.object(socket, "create_server", create_at_host):
        server = ScriptedServer(*scripts, **options)
    server.url = server.url.replace("127.0.0.1", f"[{host}]" if ":" in host else host)
    with server:
        yield server


@contextlib.contextmanager
def in_an_emergency(action, limit=10.0):
    """Do what ends a wait that nothing else ends, and fail."""
    done = []
    timer = threading.Timer(limit, lambda: (done.append(1), action()))
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join(LIMIT)
    assert not done, "nothing else has ended it"


def followed(stack, url, **options):
    """Start a source that ends with the stack; return it and what records its events."""
    source = EventSource(url, start=False, **options)
    stack.callback(source.join, LIMIT)
    stack.callback(source.close)
    recorder = record(source)
    source.start()
    return source, recorder


# --- What is set on each socket ---

KEEP_ALIVE = {
    "SO_KEEPALIVE": 1,
    "TCP_KEEPIDLE": 30,
    "TCP_KEEPINTVL": 10,
    "TCP_KEEPCNT": 6,
    "TCP_USER_TIMEOUT": 90_000,
}


@contextlib.contextmanager
def socket_of(events):
    """The socket of the stream's connection."""
    with socket.socket(fileno=os.dup(events.response.raw.fileno())) as sock:
        yield sock


def options_of(events):
    with socket_of(events) as sock:
        return {
            name: sock.getsockopt(
                socket.SOL_SOCKET if name.startswith("SO_") else socket.IPPROTO_TCP,
                getattr(socket, name),
            )
            for name in KEEP_ALIVE
        }


@contextlib.contextmanager
def directly(*_):
    with ScriptedServer(stream(b"data: x\n\n")) as server:
        yield server.url, {}


@contextlib.contextmanager
def on_a_session_of_the_callers(*_):
    with directly() as (url, options), requests.Session() as session:
        yield url, {**options, "session": session}


@contextlib.contextmanager
def over_tls(context, authority):
    with ScriptedServer(stream(b"data: x\n\n"), ssl_context=context) as server:
        yield server.url, {"verify": authority}


@contextlib.contextmanager
def over_ipv6(*_):
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("there is no IPv6 here")
    with server_at("::1", stream(b"data: x\n\n")) as server:
        yield server.url, {}


@contextlib.contextmanager
def through_a_proxy(*_):
    with ScriptedServer(stream(b"data: x\n\n")) as proxy:
        yield "http://some.host/", {"proxies": {"http": proxy.url}}
        assert proxy.requests[0].target == "http://some.host/"


@contextlib.contextmanager
def through_a_tunnel(context, authority):
    def script(connection):
        assert connection.read_request().method == "CONNECT"
        connection.send(b"HTTP/1.1 200 Go\r\n\r\n")
        connection.sock = context.wrap_socket(connection.sock, server_side=True)
        stream(b"data: x\n\n")(connection)

    with ScriptedServer(script) as proxy:
        yield "https://some.host/", {"proxies": {"https": proxy.url}, "verify": authority}


@contextlib.contextmanager
def after_a_redirect(*_):
    with (
        ScriptedServer(stream(b"data: x\n\n")) as target,
        ScriptedServer(status("307 Elsewhere", f"Location: {target.url}")) as server,
    ):
        yield server.url, {}


@pytest.mark.parametrize(
    "way",
    [
        *(directly, on_a_session_of_the_callers, over_tls, over_ipv6),
        *(through_a_proxy, through_a_tunnel, after_a_redirect),
    ],
    ids=lambda way: way.__name__,
)
def test_each_connection_is_kept_alive(way, context, authority):
    with (
        way(context, authority) as (url, options),
        EventStream(url, reconnect=QUICK, **options) as events,
    ):
        for _ in range(2):
            opens(events)
            assert options_of(events) == KEEP_ALIVE


def test_the_time_until_a_silent_and_until_a_deaf_peer_is_given_up_is_the_same():
    values = dict(KEEP_ALIVE)
    silent = values["TCP_KEEPIDLE"] + values["TCP_KEEPCNT"] * values["TCP_KEEPINTVL"]
    # Linux, given both, goes by the latter alone.
    assert silent * 1000 == values["TCP_USER_TIMEOUT"]


@pytest.mark.parametrize("refused", ["TCP_USER_TIMEOUT", "TCP_KEEPCNT"])
def test_a_system_that_refuses_an_option_is_connected_without(monkeypatch, refused):
    """As some do that only look like Linux."""
    set_option = socket.socket.setsockopt

    def refuse(sock, level, option, value):
        if (level, option) == (socket.IPPROTO_TCP, getattr(socket, refused)):
            raise OSError(92, "Protocol not available")
        set_option(sock, level, option, value)

    with ScriptedServer(stream(b"data: x\n\n")) as server:
        monkeypatch.setattr(socket.socket, "setsockopt", refuse)
        with EventStream(server.url, reconnect=None) as events:
            assert [event.type for event in events] == ["open", "message", "error"]


# --- Silence, in each phase ---

LAST = b"id: end\ndata: end\n\n"


def chunk(data):
    return b"%x\r\n%b\r\n" % (len(data), data)


def resume(connection):
    """The second connection's script: what follows the last event ID, and the end."""
    last = connection.read_request().header("Last-Event-ID")
    connection.send(HEAD + (numbers(2) if last is None else numbers(1, start=1)) + LAST)
    connection.hold()


def say(data):
    """Read the request, send these bytes, and be silent."""

    def script(connection):
        connection.read_request()
        connection.said_at = time.monotonic()
        connection.send(data)
        connection.hold()

    return script


class Records:
    """The server's side of TLS on a plain socket, whose records can be cut."""

    def __init__(self, connection, context):
        self._sock = connection.sock
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._run(self._tls.do_handshake)
        head = b""
        while b"\r\n\r\n" not in head:
            head += self._run(self._tls.read)
        connection.server.note(head)

    def _run(self, operation):
        while True:
            try:
                return operation()
            except ssl.SSLWantReadError:
                self._sock.sendall(self._outgoing.read())
                data = self._sock.recv(65536)
                if not data:
                    raise ConnectionError("the client closed the connection") from None
                self._incoming.write(data)
            finally:
                if self._outgoing.pending:
                    self._sock.sendall(self._outgoing.read())

    def record(self, data):
        """The ciphertext of `data`, not yet sent."""
        self._tls.write(data)
        return self._outgoing.read()


def compressed(*parts):
    """The beginning of a gzip stream, flushed after each part."""
    packer = zlib.compressobj(wbits=31)
    return b"".join(packer.compress(part) + packer.flush(zlib.Z_SYNC_FLUSH) for part in parts)


PHASES = {
    "before the head": b"",
    "in the head": b"HTTP/1.1 200 OK\r\nContent-Ty",
    "after the head": HEAD,
    "after an event": HEAD + numbers(1),
    "in an event": HEAD + numbers(1) + b"id: 1\nda",
    "after a chunk": CHUNKED + chunk(numbers(1)),
    "in a chunk": CHUNKED + chunk(numbers(1)) + b"9\r\nid: 1\nd",
    "in a chunk's size": CHUNKED + chunk(numbers(1)) + b"9",
    "in what is compressed": GZIPPED + compressed(numbers(1), b"id: 1\nda")[:-6],
}
"""What the server has said when it falls silent."""


def with_tls(context, cut):
    def script(connection):
        records = Records(connection, context)
        whole, half = records.record(HEAD + numbers(1)), records.record(numbers(1, start=1))
        connection.said_at = time.monotonic()
        connection.send(whole + half[: len(half) // 2 if cut else 0])
        connection.hold()

    def resume_with_tls(connection):
        connection.sock = context.wrap_socket(connection.sock, server_side=True)
        resume(connection)

    return script, resume_with_tls


def scripts_of(phase, context):
    if phase in PHASES:
        return say(PHASES[phase]), resume
    return with_tls(context, cut=phase == "in a TLS record")


ALL_PHASES = [*PHASES, "after a TLS record", "in a TLS record"]


def is_before_the_body(phase):
    return PHASES.get(phase) in (b"", b"HTTP/1.1 200 OK\r\nContent-Ty")


def url_of(server, phase):
    return server.url.replace("http:", "https:") if "TLS" in phase else server.url


# --- A network of its own, with a cable to cut ---

CLONE_NEWNET = 0x40000000


class Network:
    """Two hosts and a cable, in network namespaces.

    The calling thread, and those that it starts, are in the near one. The namespaces have
    no names: they end with the last socket or descriptor that is in them.
    """

    def __init__(self, stack):
        self._libc = ctypes.CDLL(None, use_errno=True)
        home = self._current(stack)
        stack.callback(self._enter, home)
        self._far = self._new(stack)
        self._near = self._new(stack)
        self._ip(
            self._near,
            "link set lo up",
            "link add near address 02:00:00:00:00:01 type veth"
            f" peer name far address 02:00:00:00:00:02 netns /proc/{os.getpid()}/fd/{self._far}",
            f"address add {NEAR}/24 dev near",
            "link set near up",
        )
        self._ip(self._far, "link set lo up", f"address add {FAR}/24 dev far", "link set far up")
        self.mend()
        stack.callback(self.mend)

    def _current(self, stack):
        number = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        stack.callback(os.close, number)
        return number

    def _new(self, stack):
        self._check(self._libc.unshare(CLONE_NEWNET))
        return self._current(stack)

    def _enter(self, namespace):
        self._check(self._libc.setns(namespace, CLONE_NEWNET))

    def _check(self, result):
        if result:
            raise OSError(ctypes.get_errno(), "no network namespaces here")

    @contextlib.contextmanager
    def _inside(self, namespace):
        with contextlib.ExitStack() as stack:
            before = self._current(stack)
            self._enter(namespace)
            try:
                yield
            finally:
                self._enter(before)

    def _ip(self, namespace, *commands):
        with self._inside(namespace):
            subprocess.run(
                ["ip", "-batch", "-"],
                input="\n".join(commands),
                text=True,
                check=True,
                capture_output=True,
                timeout=LIMIT,
            )

    @contextlib.contextmanager
    def server(self, *scripts, **options):
        """A server on the far host."""
        with contextlib.ExitStack() as stack:
            with self._inside(self._far):
                server = stack.enter_context(server_at(FAR, *scripts, **options))
            yield server

    def cut(self):
        """From here on no packet arrives, in either direction, and nobody is told."""
        self._address("00:00:00:0f", "00:00:00:0f")

    def mend(self):
        self._address("00:00:00:02", "00:00:00:01")

    def _address(self, far, near):
        # Frames to a hardware address that nobody has.
        for namespace, address, hardware, device in (
            (self._near, FAR, far, "near"),
            (self._far, NEAR, near, "far"),
        ):
            self._ip(
                namespace,
                f"neighbor replace {address} lladdr 02:00:{hardware} dev {device} nud permanent",
            )

    def narrow(self):
        """From here on no large packet reaches the near host, and nobody is told."""
        self._ip(self._near, "link set near mtu 600")


@pytest.fixture
def network():
    with contextlib.ExitStack() as stack:
        try:
            network = Network(stack)
        except (OSError, AttributeError, subprocess.SubprocessError) as error:
            pytest.skip(f"needs root, network namespaces and iproute2: {error}")
        yield network


def keep_alive(monkeypatch, **options):
    """Have the connections that are made from here on use these options, and no others."""
    monkeypatch.setattr(
        "eventsource.http.sockets.KEEP_ALIVE",
        [
            (socket.SOL_SOCKET if name.startswith("SO_") else socket.IPPROTO_TCP, number, value)
            for name, value in options.items()
            for number in [getattr(socket, name)]
        ],
    )


PROBES = {"SO_KEEPALIVE": 1, "TCP_KEEPIDLE": 1, "TCP_KEEPINTVL": 1, "TCP_KEEPCNT": 2}
"""The shortest there are: noticed after three seconds."""


def has_timed_out(error):
    return isinstance(error, requests.ConnectionError) and "timed out" in str(error)


def speaks_again(proceed):
    def script(connection):
        connection.start_stream()
        connection.send(numbers(1))
        closing = connection.server.closing
        wait_until(lambda: proceed.is_set() or closing.is_set(), "the network to be mended")
        connection.send(LAST)
        connection.hold()

    return script


def test_keep_alive_notices_a_peer_that_vanished_in_any_phase_and_the_stream_resumes(
    network, monkeypatch, context, authority
):
    with contextlib.ExitStack() as stack:
        proceed = threading.Event()

        def open_source(*scripts, phase="", **options):
            server = stack.enter_context(network.server(*scripts))
            url = url_of(server, phase)
            options = {"reconnect": QUICK, "timeout": (LIMIT, None), **options}
            source, recorder = followed(stack, url, verify=authority, **options)
            server.wait_for_request()
            return server, source, recorder

        keep_alive(monkeypatch)
        without = open_source(speaks_again(proceed))
        without[2].next_of(MessageEvent)
        watched = {}
        for phases, options in (
            (ALL_PHASES, {**PROBES, "TCP_USER_TIMEOUT": 2000}),
            (["after an event", "in a chunk"], PROBES),
        ):
            keep_alive(monkeypatch, **options)
            for phase in phases:
                source = open_source(*scripts_of(phase, context), phase=phase)
                watched[phase, len(options)] = source
        session = stack.enter_context(requests.Session())
        script, _ = scripts_of("in an event", context)
        watched["in an event", "session"] = open_source(script, resume, session=session)
        for (phase, _), (_, _, recorder) in watched.items():
            if not is_before_the_body(phase):
                recorder.next_of(OpenEvent if phase == "after the head" else MessageEvent)
        keep_alive(monkeypatch)  # connecting is not to be given up in the hole
        cut_at = time.monotonic()
        network.cut()
        for phase, (_, _, recorder) in watched.items():
            lost = recorder.next_of(ErrorEvent)
            assert time.monotonic() - cut_at > 1, phase
            # Older Pythons take any failure of a TLS connection for a cut (gh-115627).
            is_known = "TLS" in phase[0] and isinstance(lost.error, BrokenBody)
            assert is_known or has_timed_out(lost.error), (phase, lost)
            assert lost.ready_state is ReadyState.CONNECTING
        server, source, recorder = without
        assert source.ready_state is ReadyState.OPEN
        assert [event.type for event in recorder.events] == ["open", "message"]
        network.mend()
        for (phase, _), (server, _, recorder) in watched.items():
            while recorder.next_of(MessageEvent).data != "end":
                pass
            assert [e.data for e in recorder.events if e.type == "message"] == ["0", "1", "end"]
            kinds = [e.type for e in recorder.events if e.type != "message"]
            expected = ["error", "open"] if is_before_the_body(phase) else ["open", "error", "open"]
            assert kinds == expected, phase
            assert len(server.connections) == 2
        server, _, recorder = without
        proceed.set()
        assert recorder.next_of(MessageEvent).data == "end"
        assert [event.type for event in recorder.events] == ["open", "message", "message"]
        assert len(server.connections) == 1


class CutBody(io.BytesIO):
    """A request's body; the network goes down when its head has been sent."""

    def __init__(self, barrier):
        super().__init__(b"in to the hole")
        self._barrier = barrier
        self._has_waited = False

    def read(self, size=-1):
        if not self._has_waited:
            self._has_waited = True
            self._barrier.wait(LIMIT)
        return super().read(size)


def test_a_peer_that_vanishes_while_the_request_is_sent_is_noticed_though_there_are_no_probes(
    network, monkeypatch
):
    barrier = threading.Barrier(2, action=network.cut)
    with contextlib.ExitStack() as stack:

        def post(**options):
            keep_alive(monkeypatch, **options)
            server = stack.enter_context(network.server(resume))
            options = {"reconnect": QUICK, "timeout": (LIMIT, None)}
            body = CutBody(barrier)
            _, recorder = followed(stack, server.url, method="POST", data=body, **options)
            server.wait_for_connection()
            return server, recorder

        _, without = post(**PROBES)
        server, recorder = post(**PROBES, TCP_USER_TIMEOUT=2000)
        keep_alive(monkeypatch)
        lost = recorder.next()
        assert isinstance(lost, ErrorEvent)
        assert has_timed_out(lost.error), lost
        assert server.requests == []
        assert without.events == []
        network.mend()
        while recorder.next_of(MessageEvent).data != "end":
            pass
        assert [e.type for e in recorder.events] == ["error", "open", *["message"] * 3]
        assert [request.body for request in server.requests] == [b"in to the hole"]


def test_a_peer_that_vanished_is_noticed_while_connecting_with_and_without_a_timeout(
    network, monkeypatch
):
    keep_alive(monkeypatch, **PROBES, TCP_USER_TIMEOUT=1000)
    with network.server(stream()) as server:
        network.cut()
        for timeout in ((0.3, None), None):
            with EventStream(server.url, timeout=timeout, reconnect=QUICK) as events:
                (lost,) = errors(events)
                assert isinstance(lost.error, requests.ConnectionError)
                assert "timed out" in str(lost.error)


def answers(sock):
    """Milliseconds since the last data and since the last acknowledgment from the peer."""
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
    return struct.unpack_from("=2I", info, 52)


def test_keep_alive_does_not_notice_what_answers_its_probes_and_event_timeout_does(
    network, monkeypatch
):
    """A path on which large packets get lost: the peer is alive, its events do not come."""
    keep_alive(monkeypatch, **PROBES, TCP_USER_TIMEOUT=2000)
    big = b"id: 1\ndata: %b\n\n" % (b"x" * 1000)
    narrow = threading.Event()
    sent = []

    def flood(connection):
        connection.start_stream()
        for number in itertools.count():
            connection.send(b"id: %d\ndata: %b\n\n" % (number, b"x" * 50_000))
            sent.append(number)

    def script(connection):
        connection.start_stream()
        if connection.request.header("Last-Event-ID") is None:
            connection.send(numbers(1))
            assert narrow.wait(LIMIT)
        connection.send(big)
        connection.hold()

    with (
        network.server(script) as server,
        ScriptedServer(flood) as busy,
        EventStream(busy.url) as paused,
        EventStream(server.url) as patient,
        EventStream(server.url, event_timeout=1.0, reconnect=QUICK) as events,
    ):
        messages(paused)
        messages(patient)
        messages(events)
        network.narrow()
        narrow.set()
        (error,) = errors(events)
        assert isinstance(error.error, EventTimeout)
        assert messages(events)[0].data == "x" * 1000
        with socket_of(patient) as sock:
            wait_until(lambda: answers(sock)[0] > 3500, "a long silence")
            silence, since_answer = answers(sock)
            assert since_answer < silence
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
            sock.setblocking(False)
            with pytest.raises(BlockingIOError):
                sock.recv(1)
        # Nor is a reader that has taken a rest, for which the peer waits.
        for number in range(1, sent[-1] + 10):
            assert next(paused).last_event_id == str(number)


# --- timeout: seconds between bytes ---

SHORT = 0.1
"""So little that a busy machine makes such a silence by itself, now and then."""


def up_to(events, is_last):
    """All that happens until then, in order."""
    happened = []
    for event in events:
        happened.append(event)
        if is_last(event):
            return happened
    raise AssertionError(f"ended after {happened}")


def is_error(event):
    return isinstance(event, ErrorEvent)


def is_end(event):
    return isinstance(event, MessageEvent) and event.data == "end"


def data_of(happened):
    return [event.data for event in happened if isinstance(event, MessageEvent)]


@pytest.mark.parametrize("phase", ALL_PHASES)
def test_a_silence_is_a_read_timeout_in_any_phase_and_the_stream_resumes(phase, context, authority):
    before = time.monotonic()
    with (
        ScriptedServer(*scripts_of(phase, context)) as server,
        EventStream(
            url_of(server, phase), timeout=(LIMIT, SHORT), reconnect=QUICK, verify=authority
        ) as events,
    ):
        happened = up_to(events, is_error)
        now = time.monotonic()
        first = server.wait_for_connection()
        assert first.gone.wait(LIMIT)
        assert now - (first.said_at if len(happened) > 1 else before) >= SHORT
        happened += up_to(events, is_end)
        assert {type(e.error) for e in happened if is_error(e)} == {requests.ReadTimeout}
        assert data_of(happened) == ["0", "1", "end"]


@pytest.mark.parametrize(
    "timeout",
    [SHORT, (None, SHORT), urllib3.Timeout(read=SHORT), urllib3.Timeout(total=SHORT)],
    ids=str,
)
@pytest.mark.parametrize("own_session", [False, True])
def test_the_timeout_to_read_may_be_given_in_any_form(timeout, own_session):
    before = time.monotonic()
    with contextlib.ExitStack() as stack:
        session = stack.enter_context(requests.Session()) if own_session else None
        server = stack.enter_context(ScriptedServer(say(HEAD)))
        events = EventStream(server.url, timeout=timeout, reconnect=QUICK, session=session)
        stack.enter_context(events)
        *opened, lost = up_to(events, is_error)
        now = time.monotonic()
        assert type(lost.error) is requests.ReadTimeout
        is_from_the_start = not opened or getattr(timeout, "total", None) is not None
        assert now - (before if is_from_the_start else server.connections[0].said_at) >= SHORT


def silent_handshake(connection):
    connection.hold()


def silent_tunnel(connection):
    connection.read_request()
    connection.hold()


@pytest.mark.parametrize("script", [silent_handshake, silent_tunnel])
def test_tls_handshake_and_tunnel_are_connecting(script):
    before = time.monotonic()
    with ScriptedServer(script) as server:
        proxies = {"https": server.url} if script is silent_tunnel else {}
        url = f"https://127.0.0.1:{server.port}/"
        with EventStream(
            url, timeout=(5 * SHORT, SHORT / 4), proxies=proxies, reconnect=QUICK
        ) as events:
            (lost,) = errors(events)
        assert time.monotonic() - before >= 5 * SHORT
        assert isinstance(lost.error, requests.Timeout)


def drip(head, piece, last, *, count=40, pause=0.02):
    """Send `head`, then a piece every now and then, then the rest; note the longest gap.

    What the client may have seen of it: no shorter one.
    """

    def script(connection):
        sends = [
            functools.partial(connection.send, data)
            for data in (head, *itertools.repeat(piece, count), last)
        ]
        connection.gap = 0.0
        before = connection.server.asked_at
        for step in (connection.read_request, *sends, connection.hold):
            began = time.monotonic()
            try:
                step()
            finally:
                connection.gap = max(connection.gap, time.monotonic() - before)
            before = began
            connection.pause(pause)

    return script


NO_NAME = b"\x1f\x8b\x08\x08\0\0\0\0\0\xff"
"""The head of a gzip stream, up to where a file's name goes."""
PACKED = gzip.compress(LAST)[10:]


@pytest.mark.timeout(120)
def test_bytes_of_any_kind_keep_the_timeout_quiet():
    timeout = 0.6
    scripts = {
        "heartbeats": drip(HEAD, b":\n", LAST),
        "a line": drip(HEAD + b"data: x", b"x", b"\n\n" + LAST),
        "ids": drip(HEAD, b"id: 1\n\n", LAST),
        "the head": drip(b"HTTP/1.1 200 OK\r\nX-A: ", b"x", b"\r\n" + HEAD[17:] + LAST),
        "a chunk's size": drip(CHUNKED, b"0", b"%x\r\n%b\r\n" % (len(LAST), LAST)),
        "what decompresses to nothing": drip(GZIPPED + NO_NAME, b"x", b"\0" + PACKED),
    }
    kinds = dict(scripts)
    for _ in range(5):
        with contextlib.ExitStack() as stack:
            watched = {}
            for kind in kinds:
                server = stack.enter_context(ScriptedServer(scripts[kind]))
                server.asked_at = time.monotonic()
                _, recorder = followed(stack, server.url, timeout=(LIMIT, timeout))
                watched[kind] = server, recorder
            for kind, (server, recorder) in watched.items():
                while (event := recorder.next()).type == "open":
                    pass
                if event.type == "message":
                    del kinds[kind]
                else:  # unless this machine made a silence
                    first = server.wait_for_connection()
                    assert first.over.wait(LIMIT)
                    assert first.gap >= timeout, (kind, event)
        kinds = {kind: scripts[kind] for kind in kinds}
        if not kinds:
            return
    pytest.skip(f"the machine pauses for seconds: {list(kinds)}")


def test_time_in_handlers_is_no_silence():
    is_handled, is_sent = threading.Event(), threading.Event()

    def script(connection):
        connection.read_request()
        connection.send(HEAD + numbers(1))
        assert is_handled.wait(LIMIT)
        connection.pause(2 * SHORT)
        connection.send(LAST)
        is_sent.set()
        connection.hold()

    seen = Recorder()

    def handle(event):
        is_handled.set()
        assert is_sent.wait(LIMIT)
        seen(event)

    with (
        ScriptedServer(script) as server,
        EventSource(
            server.url, on_message=handle, on_error=seen, timeout=(LIMIT, SHORT), reconnect=QUICK
        ),
    ):
        # On a slow machine there may have been a silence before the head.
        assert seen.next_of(MessageEvent).data == "0"
        assert seen.next().data == "end"


# --- event_timeout: seconds between messages ---


def beat(head, piece, *, context=None):
    """Send `head`, and then a piece every now and then, without end; count them."""

    def script(connection):
        connection.beats = 0
        if context is not None:
            records = Records(connection, context)
            pieces = (records.record(piece) for _ in itertools.count())
            connection.said_at = time.monotonic()
            connection.send(records.record(head))
        else:
            connection.read_request()
            pieces = itertools.repeat(piece)
            connection.said_at = time.monotonic()
            connection.send(head)
        for data in pieces:
            connection.send(data)
            connection.beats += 1
            connection.pause(0.02)
            if connection.server.closing.is_set():
                return

    return script


def one_byte_of_a_record_at_a_time(context):
    def script(connection):
        records = Records(connection, context)
        connection.said_at = time.monotonic()
        connection.send(records.record(HEAD + numbers(1)))
        connection.beats = 0
        for byte in records.record(b"x" * 16000):
            connection.send(bytes([byte]))
            connection.beats += 1
            connection.pause(0.02)
            if connection.server.closing.is_set():
                return

    return script


STARTED = HEAD + numbers(1)
BEATS = {
    "comments": (STARTED, b": beat\n\n"),
    "a line that never ends": (STARTED + b"data: ", b"x"),
    "a chunk's size": (CHUNKED + chunk(numbers(1)), b"0"),
    "a chunk's extension": (CHUNKED + chunk(numbers(1)) + b"5;a=", b"x"),
    "what decompresses to nothing": (GZIPPED + compressed(numbers(1)), compressed(b"")[10:]),
    "the head": (b"HTTP/1.1 200 OK\r\nX: ", b"x"),
    "interim responses": (b"", b"HTTP/1.1 103 Early Hints\r\n\r\n"),
}
"""What comes all the time and is no message."""
TLS_BEATS = ["comments over TLS", "a TLS record"]


def beat_scripts(kind, context):
    if kind == "a TLS record":
        return one_byte_of_a_record_at_a_time(context), with_tls(context, cut=True)[1]
    if kind == "comments over TLS":
        return beat(STARTED, b":\n", context=context), with_tls(context, cut=True)[1]
    return beat(*BEATS[kind]), resume


def test_bytes_that_are_no_message_do_not_keep_event_timeout_quiet(context, authority):
    event_timeout = 3.0
    with contextlib.ExitStack() as stack:
        watched = {}
        for kind in (*BEATS, *TLS_BEATS):
            server = stack.enter_context(ScriptedServer(*beat_scripts(kind, context)))
            before = time.monotonic()
            _, recorder = followed(
                stack,
                url_of(server, kind),
                event_timeout=event_timeout,
                timeout=(LIMIT, LIMIT),
                reconnect=QUICK,
                verify=authority,
            )
            watched[kind] = server, recorder, before
        for kind, (server, recorder, before) in watched.items():
            lost = recorder.next_of(ErrorEvent)
            now = time.monotonic()
            first = server.connections[0]
            has_begun = kind not in ("the head", "interim responses")
            assert type(lost.error) is EventTimeout, kind
            assert "no message for 3.0 seconds" in str(lost.error)
            assert now - (first.said_at if has_begun else before) >= event_timeout, kind
            assert first.beats >= 3
            assert first.over.wait(LIMIT)
            while recorder.next_of(MessageEvent).data != "end":
                pass
            assert [e.type for e in recorder.events if e.type != "message"] == (
                ["open", "error", "open"] if has_begun else ["error", "open"]
            )
            assert [e.data for e in recorder.events if e.type == "message"] == ["0", "1", "end"]


def test_heartbeats_so_many_that_the_reader_never_waits_do_not_keep_event_timeout_quiet():
    """Most of the time passes while they are parsed."""

    def flood(connection):
        connection.start_stream()
        while not connection.server.closing.is_set():
            connection.send(b":\n" * 65536)

    with (
        ScriptedServer(flood) as server,
        EventStream(server.url, event_timeout=0.5, reconnect=None) as events,
    ):
        with in_an_emergency(events.close):
            happened = list(events)
        assert type(happened[-1].error) is EventTimeout


def test_the_time_of_a_full_queue_is_not_the_peers():
    timeout = 0.4
    tasks = queue.SimpleQueue()
    is_over, is_sent = threading.Event(), threading.Event()

    def script(connection):
        connection.read_request()
        connection.send(HEAD + numbers(5))
        assert is_over.wait(LIMIT)
        connection.send(LAST)
        is_sent.set()
        connection.hold()

    seen = Recorder()
    with (
        ScriptedServer(script) as server,
        EventSource(
            server.url,
            on_message=seen,
            on_error=seen,
            dispatch=tasks.put,
            max_waiting=2,
            event_timeout=timeout,
            reconnect=QUICK,
        ) as source,
    ):
        wait_until(lambda: queue_of(source).reader_waits, "the reader to wait for room")
        assert not is_over.wait(2 * timeout)  # somebody who takes their time
        is_over.set()
        assert is_sent.wait(LIMIT)
        while not (seen.events and is_end(seen.events[-1])):
            tasks.get(timeout=LIMIT)()
        # On a slow machine there may have been a silence before the head.
        first = next(n for n, event in enumerate(seen.events) if isinstance(event, MessageEvent))
        assert [event.data for event in seen.events[first:]] == [*"01234", "end"]


def test_an_auth_callable_that_takes_too_long_is_a_timeout_and_nothing_is_sent():
    def be_slow(request):
        threading.Event().wait(2 * SHORT)
        return request

    with (
        ScriptedServer(stream(then="hold")) as server,
        EventStream(server.url, event_timeout=SHORT, reconnect=None, auth=be_slow) as events,
    ):
        (lost,) = events
        assert type(lost.error) is EventTimeout
        assert server.requests == []


def test_redirects_that_take_long_do_not_keep_event_timeout_quiet():
    def script(connection):
        connection.pause(0.05)
        status("307 Elsewhere", "Location: /")(connection)

    with (
        ScriptedServer(script) as server,
        EventStream(server.url, event_timeout=0.4, reconnect=QUICK) as events,
    ):
        (lost,) = errors(events)
        assert type(lost.error) is EventTimeout
