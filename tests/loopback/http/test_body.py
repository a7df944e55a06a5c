"""A body is read as soon as it arrives: all that is there in one call, and no wait for more.

The bytes and the end of a body are those of its framing, which `test_framing.py` compares
with http.client. What comes out of a coding is the matter of `test_decoding.py`.
"""

from __future__ import annotations

import errno
import gzip
import io
import math
import socket
import ssl
from collections import deque

import pytest
import requests
import urllib3
from hypothesis import given
from hypothesis import strategies as st

from eventsource.errors import BrokenBody, EventTimeout
from eventsource.http.body import READ_SIZE, RawBody, SocketBody, read_into
from eventsource.http.decoding import decoder_for
from eventsource.protocol.framing import ChunkedBody, CloseDelimitedBody, SizedBody
from tests.authority import AUTHORITY, server_context
from tests.properties import examples
from tests.support import LIMIT
from tests.unit.protocol.test_framing import ARRIVALS, BODIES, chunk, cut, ours

# Else an example of many bytes that fails would fail with this.
pytestmark = pytest.mark.filterwarnings("ignore:Generating overly large repr")

MOMENT = 0.01
"""Seconds that a test waits for what does not come."""


class ScriptedSocket:
    """A socket that receives these pieces, and then the end, or a reset for ever.

    Attributes:
        received: what has been received.
        asked_for: the size of each receive.
        timeouts: the timeout of each receive.
    """

    def __init__(self, *pieces, reset=False, on_receive=None, timeout=None):
        self._pieces = deque(piece for piece in pieces if piece)
        self._reset = reset
        self._on_receive = on_receive
        self._timeout = timeout
        self.received = b""
        self.asked_for = []
        self.timeouts = []

    def gettimeout(self):
        return self._timeout

    def settimeout(self, timeout):
        self._timeout = timeout

    def recv(self, size):
        self.asked_for.append(size)
        self.timeouts.append(self._timeout)
        if self._on_receive is not None:
            self._on_receive()
        if not self._pieces:
            if self._reset:
                raise ConnectionResetError(errno.ECONNRESET, "reset")
            return b""
        piece = self._pieces.popleft()
        if len(piece) > size:
            self._pieces.appendleft(piece[size:])
            piece = piece[:size]
        self.received += piece
        return piece


def chunked_body(*pieces, coding="", **options):
    """A body in chunks, and the socket that receives these pieces."""
    sock = ScriptedSocket(*pieces, **options)
    return SocketBody(sock, b"", ChunkedBody(), decoder_for(coding)), sock


def read_to_end(body):
    """The bytes of a body, and what it ended with: None, or the failure."""
    found = b""
    try:
        while data := body.read():
            found += data
    except (OSError, requests.RequestException) as error:
        return found, error
    return found, None


# ---------------------------------------------------------------- the body and its end

FRAMINGS = [ChunkedBody, CloseDelimitedBody, lambda: SizedBody(30), lambda: SizedBody(0)]


@examples(400)
@given(st.sampled_from(FRAMINGS), BODIES, ARRIVALS, st.integers(0, 100), st.booleans())
def test_the_body_and_its_end_are_those_of_its_framing(
    make_framing, wire, arrival, with_head, reset
):
    sock = ScriptedSocket(*cut(wire[with_head:], arrival), reset=reset)
    body = SocketBody(sock, wire[:with_head], make_framing(), None)
    data, failure = read_to_end(body)
    framing = make_framing()
    expected, _ = ours(framing, [wire] if wire else [])
    assert data == expected
    ends_with_the_connection = make_framing()
    for piece in [wire] if wire and not ends_with_the_connection.is_over else []:
        ends_with_the_connection.feed(piece)
    if reset and not ends_with_the_connection.is_over:
        assert isinstance(failure, ConnectionResetError)
    else:
        assert str(failure) == str(framing.error)
        assert failure is None or isinstance(failure, BrokenBody)
    # Whoever reads on finds the same end.
    again, same = read_to_end(body)
    assert (again, str(same)) == (b"", str(failure))


@examples(300)
@given(st.sampled_from(FRAMINGS[:3]), BODIES, ARRIVALS)
def test_nothing_that_has_arrived_is_withheld_when_the_socket_is_asked_for_more(
    make_framing, wire, arrival
):
    given_out = []

    def on_receive():
        so_far = [sock.received] if sock.received else []
        assert b"".join(given_out) == ours(make_framing(), so_far)[0]

    sock = ScriptedSocket(*cut(wire[:3000], arrival), on_receive=on_receive)
    body = SocketBody(sock, b"", make_framing(), None)
    try:
        while data := body.read():
            given_out.append(data)
    except BrokenBody:
        pass


@pytest.mark.parametrize(
    ("make_framing", "wire"),
    [
        (lambda: SizedBody(0), b""),
        (lambda: SizedBody(3), b"abc"),
        (ChunkedBody, b"3\r\nabc\r\n0\r\n"),
        (ChunkedBody, b"3\r\nabc\r\nzz\r\n"),
    ],
)
@pytest.mark.parametrize("with_head", [False, True])
def test_the_end_of_the_body_is_not_waited_for_on_a_connection_that_stays_open(
    make_framing, wire, with_head
):
    received, arriving = (wire, b"") if with_head else (b"", wire)

    def on_receive():
        assert received + sock.received != wire, "it waits for what does not come"

    sock = ScriptedSocket(arriving, on_receive=on_receive)
    body = SocketBody(sock, received, make_framing(), None)
    assert read_to_end(body)[0] == (b"abc" if wire else b"")


# ---------------------------------------------------------------- in bulk, and promptly


@pytest.mark.parametrize("count", [1, 2, 3, 500])
@pytest.mark.parametrize("half", [b"", b"\r", b"1", b"1a\r", b"1a\r\n"])
def test_all_chunks_that_have_arrived_come_in_one_read(count, half):
    whole = b"".join(chunk(b"data: %d\n\n" % number) for number in range(count))
    body, sock = chunked_body(whole + half)
    assert body.read() == b"".join(b"data: %d\n\n" % number for number in range(count))
    assert len(sock.asked_for) == 1


def test_the_half_of_a_chunk_comes_with_the_chunks_before_it():
    body, sock = chunked_body(chunk(b"abc") * 9 + b"f\r\nhalf of ", b"a chunk\r\n3\r\nxyz\r\n")
    assert body.read() == b"abc" * 9 + b"half of "
    assert len(sock.asked_for) == 1
    assert body.read() == b"a chunkxyz"
    assert len(sock.asked_for) == 2


def test_what_came_with_the_head_is_read_without_a_receive():
    sock = ScriptedSocket(b"de")
    body = SocketBody(sock, b"3\r\nabc\r\n5\r\n", ChunkedBody(), None)
    assert body.read() == b"abc"
    assert sock.asked_for == []
    assert body.read() == b"de"


def test_no_more_than_64_kib_is_received_at_once():
    body, sock = chunked_body(chunk(b"x" * 200_000))
    reads = [body.read() for _ in range(4)]
    assert b"".join(reads) == b"x" * 200_000
    assert sock.asked_for == [READ_SIZE] * 4
    assert max(map(len, reads)) <= READ_SIZE == 65_536


# ---------------------------------------------------------------- how long a read waits


@pytest.fixture
def pair():
    """Two ends of a connection; the near one is read, without a timeout of its own."""
    near, far = socket.socketpair()
    with near, far:
        yield near, far


def test_a_read_waits_as_long_as_the_socket_does():
    body, sock = chunked_body(chunk(b"abc"), chunk(b"def"), timeout=7.0)
    assert [body.read(), body.read()] == [b"abc", b"def"]
    assert sock.timeouts == [7.0, 7.0]


@pytest.mark.parametrize("limit", [None, MOMENT], ids=["the socket's own", "a limit"])
def test_a_timeout_ends_a_read_and_loses_nothing(pair, limit):
    near, far = pair
    if limit is None:
        near.settimeout(MOMENT)
    body = SocketBody(near, b"", ChunkedBody(), None)
    far.sendall(b"6\r\nabc")
    assert body.read(limit) == b"abc"
    for _ in range(2):
        with pytest.raises(TimeoutError if limit is None else EventTimeout):
            body.read(limit)
    far.sendall(b"def\r\n3")
    assert body.read(limit) == b"def"
    far.sendall(b"\r\nghi\r\n")
    assert body.read(limit) == b"ghi"


@pytest.mark.parametrize("limit", [0.0, -5.0])
def test_without_time_left_only_what_has_arrived_is_read(pair, limit):
    near, far = pair
    body = SocketBody(near, b"", ChunkedBody(), None)
    with pytest.raises(EventTimeout):
        body.read(limit)
    far.sendall(chunk(b"abc"))
    assert body.read(limit) == b"abc"


@pytest.mark.parametrize(
    ("own", "limit", "used"),
    [(None, 9.0, 9.0), (20.0, 9.0, 9.0), (5.0, 9.0, 5.0), (5.0, None, 5.0), (5.0, 0.0, 0.0)],
)
def test_the_shorter_of_the_limit_and_the_socket_s_timeout_counts(own, limit, used):
    body, sock = chunked_body(chunk(b"abc"), chunk(b"def"), timeout=own)
    assert body.read(limit) == b"abc"
    (timeout,) = sock.timeouts
    assert timeout == pytest.approx(used, abs=0.5)
    assert timeout > 0  # which would not wait for what is just arriving
    assert body.read() == b"def"  # which has no limit
    assert sock.timeouts[1] == own


def test_the_socket_s_own_timeout_is_told_from_the_limit(pair):
    near, _ = pair
    near.settimeout(MOMENT)
    body = SocketBody(near, b"", ChunkedBody(), None)
    with pytest.raises(TimeoutError) as caught:
        body.read(LIMIT)
    assert not isinstance(caught.value, EventTimeout)


def test_tcp_s_own_timeout_is_told_from_the_limit():
    def on_receive():
        raise TimeoutError(errno.ETIMEDOUT, "Connection timed out")

    body, _ = chunked_body(on_receive=on_receive)
    with pytest.raises(TimeoutError, match="Connection timed out"):
        body.read(LIMIT)


def test_a_limit_is_for_all_that_a_read_receives():
    body, sock = chunked_body(*[b"3", b";", b"x", b"x", b"\r\n", b"abc"])
    assert body.read(LIMIT) == b"abc"
    assert len(sock.timeouts) == 6
    assert sock.timeouts == sorted(sock.timeouts, reverse=True)
    assert sock.timeouts[-1] < sock.timeouts[0] <= LIMIT


# ---------------------------------------------------------------- TLS

SERVER_CONTEXT = server_context()


class Peer:
    """A TLS server that holds its ciphertext before it is sent, and the client's socket.

    Everything happens in the test's own thread; what has been sent has arrived.
    """

    def __init__(self, version):
        near, self.far = socket.socketpair()
        self._received, self._ciphertext = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = SERVER_CONTEXT.wrap_bio(self._received, self._ciphertext, server_side=True)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        AUTHORITY.configure_trust(context)
        context.minimum_version = context.maximum_version = version
        self.client = context.wrap_socket(
            near, server_hostname="127.0.0.1", do_handshake_on_connect=False
        )
        self.client.suppress_ragged_eofs = False  # as the adapter hands it over
        for end in (self.client, self.far):
            end.settimeout(0)
        self._shake_hands()
        for end in (self.client, self.far):
            end.settimeout(LIMIT)

    def _shake_hands(self):
        unfinished = [self.client.do_handshake, self._tls.do_handshake]
        while unfinished:
            for step in list(unfinished):
                try:
                    step()
                    unfinished.remove(step)
                except ssl.SSLWantReadError:
                    pass
                if ciphertext := self._ciphertext.read():
                    self.far.sendall(ciphertext)
                try:
                    self._received.write(self.far.recv(65_536))
                except BlockingIOError:
                    pass

    def record(self, data):
        """One record of ciphertext."""
        assert len(data) <= 16_384
        self._tls.write(data)
        return self._ciphertext.read()

    def farewell(self):
        """The alert that says that no more will come."""
        with pytest.raises(ssl.SSLWantReadError):
            self._tls.unwrap()
        return self._ciphertext.read()

    def send(self, *ciphertexts):
        self.far.sendall(b"".join(ciphertexts))

    def send_records(self, *plaintexts):
        """Each in a record of its own."""
        self.send(*map(self.record, plaintexts))

    def end(self, how, last):
        """Say farewell or not, or break off within a record that has this; and close."""
        if how == "farewell":
            self.send(self.farewell())
        elif how == "within a record":
            self.send(self.record(last)[:9])
        self.far.close()

    def body(self, timeout=LIMIT, framing=None):
        """A body in chunks; the timeout is the socket's own."""
        self.client.settimeout(timeout)
        return SocketBody(self.client, b"", framing or ChunkedBody(), None)

    def close(self):
        self.client.close()
        self.far.close()


@pytest.fixture(params=[ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])
def peer(request):
    peer = Peer(request.param)
    yield peer
    peer.close()


def test_tls_all_records_that_have_arrived_come_in_one_read(peer):
    body = peer.body()
    peer.send_records(*[chunk(b"data: %d\n\n" % number) for number in range(200)])
    assert body.read() == b"".join(b"data: %d\n\n" % number for number in range(200))


def test_tls_one_record_is_one_receive_and_the_socket_is_left_alone(peer):
    body = peer.body()
    calls = []

    def watch(name):
        function = getattr(peer.client, name)
        setattr(peer.client, name, lambda *arguments: (calls.append(name), function(*arguments))[1])

    watch("recv")
    watch("settimeout")
    peer.send_records(chunk(b"abc"))
    assert body.read() == b"abc"
    assert calls == ["recv"]


def test_tls_the_half_of_a_record_is_not_waited_for(peer):
    body = peer.body()
    for whole in ([], [chunk(b"abc")], [chunk(b"abc")] * 3):
        for place in (1, 5, 20, -1):
            peer.send_records(*whole)
            record = peer.record(chunk(b"cut short"))
            peer.send(record[:place])
            if whole:
                assert body.read() == b"abc" * len(whole)
            peer.send(record[place:])
            assert body.read() == b"cut short"


def test_tls_records_with_parts_of_chunks_come_in_one_read(peer):
    wire = chunk(b"abc") * 3 + chunk(b"d" * 100)
    body = peer.body()
    peer.send_records(*[wire[i : i + 1] for i in range(len(wire))])
    # The first record alone has no data.
    assert body.read() == b"abc" * 3 + b"d" * 100


def test_tls_no_more_than_64_kib_is_taken_at_once_and_nothing_is_lost(peer):
    part = b"x" * 16_000
    body = peer.body()
    peer.send_records(*[chunk(part)] * 6)
    data = body.read()
    assert len(part) * 4 < len(data) <= READ_SIZE
    while len(data) < 6 * len(part):
        data += body.read()
    assert data == part * 6
    peer.send_records(chunk(b"abc"))
    assert body.read() == b"abc"


@pytest.mark.parametrize("records", [0, 1, 3])
@pytest.mark.parametrize("then", ["nothing", "part"])
@pytest.mark.parametrize("limit", [None, MOMENT])
def test_tls_a_read_that_finds_no_whole_record_ends_in_time_and_loses_nothing(
    peer, records, then, limit
):
    body = peer.body(timeout=MOMENT if limit is None else None)
    peer.send_records(*[chunk(b"abc")] * records)
    record = peer.record(chunk(b"def"))
    part = record[:7] if then == "part" else b""
    peer.send(part)
    if records:
        assert body.read(limit) == b"abc" * records
    for _ in range(2):
        with pytest.raises(TimeoutError if limit is None else EventTimeout):
            body.read(limit)
    peer.send(record[len(part) :], peer.record(chunk(b"ghi")))
    assert body.read(limit) == b"defghi"


@pytest.mark.parametrize("count", [1, 3])
def test_tls_an_error_after_records_is_raised_when_they_have_been_read(peer, count):
    body = peer.body()
    good = [peer.record(chunk(b"abc")) for _ in range(count)]
    bad = bytearray(peer.record(chunk(b"def")))
    bad[-1] ^= 1
    peer.send(*good, bad, peer.record(chunk(b"ghi")))
    assert body.read() == b"abc" * count
    for _ in range(2):  # the second is in the words of OpenSSL 3.6
        with pytest.raises(ssl.SSLError, match="(?i)bad record mac|record layer failure"):
            body.read()


ENDS = pytest.mark.parametrize("how", ["farewell", "none", "within a record"])


@pytest.mark.parametrize(
    "records",
    [
        *([], [chunk(b"abc")], [chunk(b"abc")] * 3, [b"3\r\n", b"ab"]),
        [*[chunk(b"abc")] * 3, b"0\r\n\r\n"],
    ],
)
@ENDS
def test_tls_the_end_after_records_is_found_when_they_have_been_read(peer, records, how):
    body = peer.body()
    peer.send_records(*records)
    peer.end(how, chunk(b"def"))
    framing = ChunkedBody()
    expected, _ = ours(framing, [b"".join(records)] if records else [])
    data, failure = read_to_end(body)
    assert data == expected
    assert str(failure) == str(framing.error)


CUT = "the TLS connection was cut without its closing alert"


@pytest.mark.parametrize("records", [[], [b"abc"], [b"abc"] * 3])
@ENDS
def test_tls_a_body_that_ends_with_the_connection_ends_with_the_closing_alert(peer, records, how):
    body = peer.body(framing=CloseDelimitedBody())
    peer.send_records(*records)
    peer.end(how, b"def")
    data, failure = read_to_end(body)
    assert data == b"".join(records)
    if how == "farewell":
        assert failure is None
    else:
        assert (type(failure), str(failure)) == (BrokenBody, CUT)
        with pytest.raises(BrokenBody, match=CUT):
            body.read()


@pytest.mark.parametrize("length", [6, 9])
def test_tls_a_cut_after_a_body_of_known_length_is_none_and_before_it_says_what_is_missing(
    peer, length
):
    body = peer.body(framing=SizedBody(length))
    peer.send_records(b"abc", b"def")
    peer.far.close()
    data, failure = read_to_end(body)
    assert data == b"abcdef"
    expected = None if length == 6 else "the connection ended 3 bytes before the end of the body"
    assert (failure and str(failure)) == expected


class OtherStack:
    """A TLS socket whose stack says "would block" and "cut" in its own way."""

    def __init__(self, *steps):
        self._steps = [*steps]
        self.timeout = LIMIT
        self._sock = socket.socket()

    def __del__(self):
        self._sock.close()

    def fileno(self):
        return self._sock.fileno()

    def recv(self, size):
        step = self._steps.pop(0)
        if isinstance(step, Exception):
            raise step
        return step

    def pending(self):
        return 1

    def gettimeout(self):
        return self.timeout

    def settimeout(self, timeout):
        self.timeout = timeout


def test_tls_eventlet_s_and_pyopenssl_s_timeouts_say_that_no_more_records_are_here():
    sock = OtherStack(b"abc", TimeoutError("timed out"), b"def", b"ghi", TimeoutError(), b"")
    body = SocketBody(sock, b"", CloseDelimitedBody(), None)
    assert [body.read(), body.read(), body.read()] == [b"abc", b"defghi", b""]


def test_tls_a_timeout_of_tcp_s_own_after_records_is_a_failure():
    gone = TimeoutError(errno.ETIMEDOUT, "gone")
    body = SocketBody(OtherStack(b"abc", gone), b"", CloseDelimitedBody(), None)
    assert body.read() == b"abc"
    with pytest.raises(TimeoutError, match="gone"):
        body.read()


def test_tls_pyopenssl_s_own_error_is_a_cut():
    sock = OtherStack(OSError(-1, "(-1, 'Unexpected EOF')"))
    with pytest.raises(BrokenBody, match=CUT):
        SocketBody(sock, b"", CloseDelimitedBody(), None).read()


@pytest.mark.parametrize(
    "error",
    [
        ssl.SSLZeroReturnError(6, "closed"),
        ssl.SSLEOFError(8, "eof"),
        BrokenPipeError(errno.EPIPE, "the peer cannot be told that this is no end"),
    ],
)
def test_tls_an_alert_that_is_raised_is_an_end_and_a_raised_end_is_a_cut(error):
    body = SocketBody(OtherStack(b"abc", error), b"", CloseDelimitedBody(), None)
    is_cut = not isinstance(error, ssl.SSLZeroReturnError)
    data, failure = read_to_end(body)
    assert (data, failure and str(failure)) == (b"abc", CUT if is_cut else None)


def test_tls_a_read_that_would_have_to_write_is_no_failure(peer):
    """As at a key update, when the socket takes no more just then."""
    body = peer.body()
    receive = peer.client.recv

    def recv(size):
        if peer.client.gettimeout() == 0 and not peer.client.pending():
            raise ssl.SSLWantWriteError(ssl.SSL_ERROR_WANT_WRITE, "would have to write")
        return receive(size)

    peer.client.recv = recv
    for _ in range(2):
        peer.send_records(*[chunk(b"abc")] * 2)
        data = b""
        while len(data) < 6:
            data += body.read()
        assert data == b"abcabc"


# ---------------------------------------------------------------- decompressed


@examples(150)
@given(st.lists(st.binary(max_size=300), max_size=20).map(b"".join), ARRIVALS, st.booleans())
def test_a_compressed_body_is_decompressed_however_it_arrives(plain, arrival, in_chunks):
    packed = gzip.compress(plain, mtime=0)
    wire = b"".join(map(chunk, cut(packed, [7, 100]))) + b"0\r\n\r\n" if in_chunks else packed
    framing = ChunkedBody() if in_chunks else SizedBody(len(packed))
    sock = ScriptedSocket(*cut(wire, arrival))
    assert read_to_end(SocketBody(sock, b"", framing, decoder_for("gzip"))) == (plain, None)


def test_what_a_bomb_stands_for_comes_in_reads_of_64_kib_and_without_receives():
    packed = gzip.compress(b"x" * 10_000_000, mtime=0)
    assert len(packed) < READ_SIZE
    body, sock = chunked_body(chunk(packed), b"0\r\n\r\n", coding="gzip")
    for _ in range(10_000_000 // READ_SIZE):
        assert len(body.read()) == READ_SIZE
        assert len(sock.asked_for) == 1
    assert read_to_end(body) == (b"x" * (10_000_000 % READ_SIZE), None)


@pytest.mark.parametrize("end", [b"0\r\n\r\n", b"zz\r\n", b""])
def test_the_end_of_the_body_comes_after_all_that_was_compressed(end):
    wire = chunk(gzip.compress(b"x" * 1_000_000, mtime=0)) + end
    data, failure = read_to_end(chunked_body(wire, coding="gzip")[0])
    assert data == b"x" * 1_000_000
    assert (failure is None) == end.startswith(b"0")


# ---------------------------------------------------------------- a body of urllib3's


def raw_body(data, coding="", **headers):
    """A body that urllib3 takes out of its framing, as on a session of the caller's."""
    fields = {"Content-Encoding": coding} if coding else {}
    raw = urllib3.HTTPResponse(io.BytesIO(data), headers=fields, preload_content=False)
    return raw, RawBody(raw, decoder_for(coding))


def test_a_body_of_urllib3_s_is_read_to_its_end():
    _, body = raw_body(b"x" * 100_000)
    reads = [body.read(), body.read(LIMIT), body.read()]
    assert b"".join(reads) == b"x" * 100_000
    assert max(map(len, reads)) <= READ_SIZE
    assert body.read() == b""


def test_a_body_of_urllib3_s_is_decompressed_in_reads_of_64_kib():
    _, body = raw_body(gzip.compress(b"x" * 1_000_000, mtime=0), coding="gzip")
    sizes = []
    while data := body.read():
        sizes.append(len(data))
    assert sum(sizes) == 1_000_000
    assert max(sizes) == READ_SIZE


def test_a_body_that_a_hook_has_begun_to_read_is_decompressed_once():
    raw, _ = raw_body(packed := gzip.compress(b"data: 1\n\n" * 100, mtime=0), coding="gzip")
    begun = raw.read(18, decode_content=True)
    body = RawBody(raw, decoder_for("gzip"))
    assert 0 < raw.tell() <= len(packed)
    assert begun + read_to_end(body)[0] == b"data: 1\n\n" * 100


class Raw:
    """As much of a response of urllib3's as a hook may put in its place."""

    def __init__(self, *pieces):
        self._pieces = deque(pieces)

    def read1(self, size, *, decode_content):
        assert not decode_content
        return self._pieces.popleft() if self._pieces else b""


def test_a_body_that_a_hook_has_put_there_is_read_too():
    assert read_to_end(RawBody(Raw(b"abc", b"de"), None)) == (b"abcde", None)


def test_a_read_of_urllib3_s_without_data_is_followed_by_another():
    packed = gzip.compress(b"abc", mtime=0)
    body = RawBody(Raw(packed[:9], packed[9:]), decoder_for("gzip"))  # the header is 10 bytes
    assert read_to_end(body) == (b"abc", None)


# ---------------------------------------------------------------- the beginning of a body


class Endless:
    """A body without end; notes how long each read may wait."""

    def __init__(self):
        self.timeouts = []

    def read(self, timeout=None):
        self.timeouts.append(timeout)
        return b"x" * 1000


def test_of_the_beginning_of_a_body_no_more_is_read_than_was_asked_for():
    data, body = bytearray(b"ab"), Endless()
    read_into(data, body, 2500, LIMIT)
    assert data == b"ab" + b"x" * 2498
    assert len(body.timeouts) == 3
    assert body.timeouts == sorted(body.timeouts, reverse=True)
    assert 0 < body.timeouts[-1] < body.timeouts[0] <= LIMIT


def test_of_the_beginning_of_a_body_nothing_is_read_without_time_left():
    for seconds in (0.0, -math.inf):
        data, body = bytearray(), Endless()
        read_into(data, body, 2500, seconds)
        assert not data
        assert not body.timeouts


def test_the_beginning_of_a_body_ends_with_it_and_a_failure_leaves_what_came():
    data = bytearray()
    read_into(data, chunked_body(b"3\r\nabc\r\n0\r\n\r\n")[0], 2500, LIMIT)
    assert data == b"abc"
    with pytest.raises(ConnectionResetError):
        read_into(data, chunked_body(b"3\r\ndef\r\n", reset=True)[0], 2500, LIMIT)
    assert data == b"abcdef"


# --- The read timeout, over reads that have less time ---


def test_the_read_timeout_counts_over_reads_that_time_out_and_anew_from_each_byte():
    class Timed(ScriptedSocket):
        is_silent = True

        def recv(self, size):
            if self.is_silent:
                self.timeouts.append(self._timeout)
                raise TimeoutError("timed out")
            return super().recv(size)

    sock = Timed(b"a", timeout=10.0)
    body = SocketBody(sock, b"", CloseDelimitedBody(), None)
    for _ in range(2):
        with pytest.raises(EventTimeout):
            body.read(4.0)
    sock.is_silent = False
    assert body.read() == b"a"
    sock.is_silent = True
    for _ in range(3):
        with pytest.raises((EventTimeout, TimeoutError)):
            body.read(4.0)
    # 4 and 4 of 10 seconds, then what is left of them; and the same again after a byte.
    expected = [4.0, 4.0, 2.0, 4.0, 4.0, 2.0]
    assert sock.timeouts == [pytest.approx(each, abs=0.5) for each in expected]
