"""A response gives what `http.client` gives: the same bytes, the same end, in fewer calls.

The property tests read the same bytes, cut into the same reads of a socket, once with
`http.client` and once with ours, and compare the story of each: the bytes up to the
first failure, the failure, what a reader finds who goes on in spite of it. Our calls
may return more at a time; so calls are compared by the bytes they have got to.

The head of a response is the business of `test_transport.py`.
"""

from __future__ import annotations

import errno
import gzip
import http.client
import io
import itertools
import math
import socket
import ssl
import zlib
from collections import deque

import pytest
import trustme
import urllib3
from hypothesis import HealthCheck, example, given, reject, settings
from hypothesis import strategies as st

from eventsource.http import response as response_module
from eventsource.http.response import Incoming, Response

from .support import LIMIT

# Else an example of many bytes that fails would fail with this.
pytestmark = pytest.mark.filterwarnings("ignore:Generating overly large repr")

HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
UNTIL_CLOSE = HEAD + b"\r\n"


def with_length(length):
    return HEAD + b"Content-Length: %d\r\n\r\n" % length


def examples(count):
    return settings(
        max_examples=count,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )


class ScriptedSocket:
    """A socket that receives these pieces, and then the end, or a reset for ever."""

    def __init__(self, *pieces, reset=False, on_receive=None):
        self._pieces = deque(piece for piece in pieces if piece)
        self._reset = reset
        self._on_receive = on_receive
        self.received = b""
        self.receives = 0
        self.files = 0  # that are open

    def recv(self, size):
        if self._on_receive is not None:
            self._on_receive()
        self.receives += 1
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

    def recv_into(self, target):
        piece = self.recv(len(target))
        target[: len(piece)] = piece
        return len(piece)

    def makefile(self, mode, buffering=-1):
        self.files += 1
        raw = socket.SocketIO(self, mode)
        return raw if buffering == 0 else io.BufferedReader(raw)

    def _decref_socketios(self):  # what SocketIO.close() calls
        self.files -= 1

    def sendall(self, data):
        """The request."""

    def settimeout(self, timeout):
        pass

    def shutdown(self, how):
        pass

    def close(self):
        pass


def begin(response_class, sock):
    """The response, its head read."""
    response = response_class(sock)
    response.begin()
    return response


def opened(head, *pieces, **options):
    """Our response, its head read, and its socket."""
    sock = ScriptedSocket(head, *pieces, **options)
    return begin(Response, sock), sock


def chunk(data):
    return b"%x\r\n%b\r\n" % (len(data), data)


def cut(data, sizes):
    """Cut into pieces of these sizes, which are taken in turn; 300 of them at the most."""
    pieces = []
    for size in itertools.islice(itertools.cycle(sizes), 299):
        if not data:
            break
        pieces.append(data[:size])
        data = data[size:]
    return [*pieces, data]


# ---------------------------------------------------------------- stories


def failure(error):
    """What there is to an exception; urllib3's are told by their text."""
    if isinstance(error, urllib3.exceptions.HTTPError):
        return type(error), str(error)
    return type(error), error.args, getattr(error, "expected", None)


def story(response, sizes, rounds=3):
    """The body up to the end or a failure, and that; then what comes to who reads on."""
    sizes = itertools.cycle(sizes)
    chapters = []
    for _ in range(rounds):
        body = []
        end = None
        try:
            while data := response.read1(next(sizes)):
                body.append(data)
        except Exception as error:
            end = failure(error)
        state = response.isclosed(), response.closed, response.chunk_left, response.length
        chapters.append((b"".join(body), end, *state))
    return chapters


def story_of_http_client(response, sizes):
    chapters = story(response, sizes)
    if any(end and end[0] in (MemoryError, OverflowError) for _, end, *_ in chapters):
        reject()  # see test_a_chunk_of_a_size_beyond_memory_is_read_as_it_comes
    return chapters


def assert_the_same_story(wire, arrival, sizes, *, reset=False):
    pieces = cut(wire, arrival)
    theirs = begin(http.client.HTTPResponse, ScriptedSocket(*pieces, reset=reset))
    ours = begin(Response, ScriptedSocket(*pieces, reset=reset))
    expected = story_of_http_client(theirs, sizes)
    assert story(ours, sizes) == expected


# ---------------------------------------------------------------- strategies

PATTERNS = [
    b"x",
    b"\r\n",
    b"\n",
    b"data: 7\n\n",
    b"0\r\n\r\n",  # the last chunk
    b"\r\n3\r\nabc",  # a frame
    b"3\r\nabc\r\n",  # a chunk
    b"\r\n0\r\n\r\n",
    bytes(range(256)),
]
EDGES = [255, 256, 4095, 8191, 8192, 8193, 16384, 65535, 65536, 65537, 70_000]
"""Around the sizes of the buffers: 8 KiB is `io.BufferedReader`'s, 64 KiB ours."""

PLAIN_SIZES = [b"%x\r\n", b"%x\r\n", b"%x\r\n", b"%X\r\n", b"0%x\r\n"]
OTHER_SIZES = [
    b"%012x\r\n",  # the longest that the table takes
    b"%013x\r\n",
    b"%064X\r\n",
    b"%x;name=value\r\n",
    b'%X ; name="1\t2" \r\n',
    b"%x;" + b"e" * 200 + b"\r\n",
    b"%x \r\n",
    b"%x\n",
    b"%x;name\n",
]
WRONG_SIZES = [
    b"",
    b"\r\n",
    b" \r\n",
    b"zz\r\n",
    b"g%x\r\n",
    b"%xg\r\n",
    b"%xG\r\n",
    b"-%x\r\n",
    b"-1\r\n",
    b"-0\r\n",
    b"+%x\r\n",
    b"0x%x\r\n",
    b"0X%X\r\n",
    b"0_%x\r\n",
    b"1__%x\r\n",
    b"_%x\r\n",
    b" %x\r\n",
    b"\t%x\r\n",
    b"\x0b%x\x0c\r\n",
    b"%x\0\r\n",
    b"%x\r",
    b"%x\r\r\n",
    b"\xb2%x\r\n",
    b";%x\r\n",
    b"%x",
    b"0" * 65_540 + b"%x\r\n",  # a line beyond http.client's limit
    b"%x;" + b"e" * 65_540 + b"\r\n",
]
HUGE_SIZES = [
    b"8%07x\r\n",  # 2**31
    b"8%015x\r\n",  # 2**63
    b"1%020x\r\n",  # 2**80
]
WRONG_ENDS = [b"", b"\n", b"\r", b"\n\r", b"xx", b"\r\r\n", b"\r\n\r\n"]
LAST_CHUNKS = [
    b"0\r\n\r\n",
    b"0\n\n",
    b"000;x\r\n\r\n",
    b"0\r\nDigest: 1\r\nExpires: 2\r\n\r\n",
    b"0\r\n\r\n5\r\nagain\r\n",
]
WRONG_LAST_CHUNKS = [
    b"",
    b"0",
    b"0\r\n",
    b"0\r\nDigest: 1",
    b"-0\r\n\r\n",
    b"0x0\r\n\r\n",
    b"0\r\nDigest: " + b"1" * 65_540 + b"\r\n\r\n",
]


@st.composite
def data(draw):
    if draw(st.integers(0, 24)) == 0:
        size = draw(st.sampled_from(EDGES))
    else:
        size = draw(st.integers(1, 40))
    pattern = draw(st.sampled_from(PATTERNS) | st.binary(min_size=1, max_size=6))
    return (pattern * (size // len(pattern) + 1))[:size]


def chunks(sizes, ends):
    """Lists of tuples: how its size is spelled, a chunk's data, its end, how often it comes."""
    times = st.sampled_from([1, 1, 1, 2, 3, 30])
    return st.lists(st.tuples(sizes, data(), ends, times), max_size=8)


def on_the_wire(chunks, last):
    parts = []
    for size, data, end, times in chunks:
        line = size % len(data) if b"%" in size else size
        parts.append((line + data + end) * (1 if len(data) + len(line) > 1000 else times))
    return b"".join([*parts, last])


SPELLINGS = st.sampled_from(PLAIN_SIZES) | st.sampled_from(PLAIN_SIZES + OTHER_SIZES)
WELL_FORMED = st.builds(
    on_the_wire, chunks(SPELLINGS, st.just(b"\r\n")), st.sampled_from(LAST_CHUNKS)
)
MALFORMED = st.builds(
    on_the_wire,
    chunks(
        st.one_of(
            SPELLINGS, st.sampled_from(PLAIN_SIZES), st.sampled_from(WRONG_SIZES + HUGE_SIZES)
        ),
        st.sampled_from([*[b"\r\n"] * 20, *WRONG_ENDS]),
    ),
    st.sampled_from(LAST_CHUNKS + WRONG_LAST_CHUNKS),
)


@st.composite
def mutated(draw, bodies=WELL_FORMED):
    """With bytes that are wrong, missing or too many; or cut off."""
    body = bytearray(draw(bodies))
    one = st.sampled_from(b"\r\n0123456789aAfF;-_x \0") | st.integers(0, 255)
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, min(len(body), 4000)))
        match draw(st.sampled_from(["change", "insert", "delete", "end"])):
            case "change":
                body[place : place + 1] = bytes([draw(one)])
            case "insert":
                body[place:place] = bytes([draw(one)])
            case "delete":
                del body[place : place + draw(st.integers(1, 3))]
            case "end":
                del body[place:]
    return bytes(body)


BODIES = st.one_of(WELL_FORMED, MALFORMED, mutated())

ARRIVALS = st.one_of(
    st.just([10**9]),  # all at once
    st.lists(st.integers(1, 60), min_size=1, max_size=4),
    st.lists(st.sampled_from([1, 2, 3, 100, 8192, 65_536, 100_000]), min_size=1, max_size=4),
)
SIZES = st.one_of(
    st.just([65_536]),
    st.just([-1]),
    st.lists(st.integers(1, 60), min_size=1, max_size=4),
    st.lists(st.sampled_from([-1, 1, 2, 100, 8191, 8192, 65_536]), min_size=1, max_size=4),
)


def not_too_small(sizes, wire):
    """So that no example takes long."""
    return [size if size < 0 else max(size, len(wire) // 400) for size in sizes]


# ---------------------------------------------------------------- the body and its end


@examples(600)
@given(BODIES, ARRIVALS, SIZES, st.booleans())
@example(b"3\r\nabc\r\nzz\r\n\r\n3\r\ndef\r\n0\r\n\r\n", [10**9], [65_536], False)
@example(b"3\r\nabc\r\n3\r\ndefXX3\r\nghi\r\n0\r\n\r\n", [10**9], [65_536], False)
@example(b"\r\n3\r\nabc\r\n3\r\ndef\r\n0\r\n\r\n", [10**9], [65_536], False)
def test_a_chunked_body_and_its_end_are_those_of_http_client(body, arrival, sizes, reset):
    wire = CHUNKED + body
    assert_the_same_story(wire, arrival, not_too_small(sizes, wire), reset=reset)


@examples(150)
@given(chunks(SPELLINGS, st.just(b"\r\n")), st.sampled_from(LAST_CHUNKS), ARRIVALS, SIZES)
def test_a_well_formed_body_is_the_data_of_its_chunks(chunks, last, arrival, sizes):
    wire = CHUNKED + on_the_wire(chunks, last)
    response = begin(Response, ScriptedSocket(*cut(wire, arrival)))
    chapters = story(response, not_too_small(sizes, wire))
    body = on_the_wire([(b"", data, b"", times) for _, data, _, times in chunks], b"")
    assert chapters[0] == (body, None, True, False, None, None)


@examples(150)
@given(data(), st.sampled_from([None, -1, 0, 1]), ARRIVALS, SIZES, st.booleans())
@example(b"abc", 0, [10**9], [3], True)
def test_a_body_that_is_not_chunked_and_its_end_are_those_of_http_client(
    body, excess, arrival, sizes, reset
):
    head = UNTIL_CLOSE if excess is None else with_length(len(body) + excess)
    wire = head + body
    assert_the_same_story(wire, arrival, not_too_small(sizes, wire), reset=reset)


@pytest.mark.parametrize(
    ("spelling", "size"),
    [
        *itertools.product(WRONG_SIZES, [-1, 2, 65_536]),
        # For -1, see test_a_chunk_of_a_size_beyond_memory_is_read_as_it_comes.
        *itertools.product(HUGE_SIZES, [2, 65_536]),
    ],
)
@pytest.mark.parametrize("reset", [False, True])
def test_a_size_that_is_none_is_what_it_is_to_http_client(spelling, size, reset):
    good = (b"%x\r\n", b"abc", b"\r\n", 2)
    wire = CHUNKED + on_the_wire([good, (spelling, b"def", b"\r\n", 1), good], b"0\r\n\r\n")
    assert_the_same_story(wire, [10**9], [size], reset=reset)


@pytest.mark.parametrize("end", WRONG_ENDS)
@pytest.mark.parametrize("size", [2, 65_536])
def test_an_end_of_a_chunk_that_is_none_is_what_it_is_to_http_client(end, size):
    good = (b"%x\r\n", b"abc", b"\r\n", 2)
    wire = CHUNKED + on_the_wire([good, (b"%x\r\n", b"def", end, 2), good], b"0\r\n\r\n")
    assert_the_same_story(wire, [10**9], [size])


def test_a_body_cut_at_any_byte_ends_as_with_http_client():
    body = chunk(b"abc") * 2 + chunk(b"d" * 18) + b"3;x\r\nefg\r\n0\r\nDigest: 1\r\n\r\n"
    for length in range(len(body)):
        for arrival in ([1], [10**9]):
            for reset in (False, True):
                assert_the_same_story(CHUNKED + body[:length], arrival, [7], reset=reset)


# ---------------------------------------------------------------- where ours differs


@pytest.mark.parametrize("size", [b"-5", b"-1"])
def test_after_a_negative_size_all_is_data_and_read_gives_it(size):
    """read1() does what http.client's does; its read() depends on how the file takes -5."""
    body = size + b"\r\nabc\r\n3\r\ndef\r\n"
    assert_the_same_story(CHUNKED + body, [2], [3])
    response, _ = opened(CHUNKED, body)
    with pytest.raises(http.client.IncompleteRead) as caught:
        response.read()
    assert caught.value.partial == b"abc\r\n3\r\ndef\r\n"


@pytest.mark.parametrize("size", [2**40, 2**62, 2**63, 2**80])
def test_a_chunk_of_a_size_beyond_memory_is_read_as_it_comes(size):
    """http.client wants so much memory: OverflowError or MemoryError."""
    body = b"%x\r\nabc" % size
    for first in (b"", chunk(b"xyz")):
        response, _ = opened(CHUNKED, first + body)
        assert story(response, [-1], rounds=1) == [
            (
                (b"xyz" if first else b"") + b"abc",
                (http.client.IncompleteRead, (b"",), None),
                False,
                False,
                size - 3,
                None,
            )
        ]
    response, _ = opened(CHUNKED, body)
    with pytest.raises(http.client.IncompleteRead):
        response.read()


# ---------------------------------------------------------------- in bulk, and promptly


@pytest.mark.parametrize("count", [1, 2, 3, 500])
@pytest.mark.parametrize("half", [b"", b"\r", b"1", b"1a\r", b"1a\r\n"])
def test_all_whole_chunks_that_have_arrived_come_in_one_call(count, half):
    whole = b"".join(chunk(b"data: %d\n\n" % number) for number in range(count))
    expected = b"".join(b"data: %d\n\n" % number for number in range(count))
    response, sock = opened(CHUNKED, whole + half)
    assert response.read1(65_536) == expected
    assert sock.receives == 2  # the head, the chunks


@pytest.mark.parametrize("size", [65_536, -1])
@pytest.mark.parametrize("end", [b"", b"\r", b"\r\n"])
def test_a_chunk_is_whole_when_its_data_is(end, size):
    response, sock = opened(CHUNKED, b"3\r\nabc\r\n3\r\ndef\r\n3\r\nghi" + end)
    assert response.read1(size) == b"abcdefghi"
    assert sock.receives == 2


@pytest.mark.parametrize("size", [65_536, -1])
def test_all_chunks_that_fill_the_buffer_come_in_one_call(size):
    whole = chunk(b"x" * 58) * 1024
    assert len(whole) == 65_536
    response, sock = opened(CHUNKED, whole)
    assert response.read1(size) == b"x" * 58 * 1024
    assert sock.receives == 2


@pytest.mark.parametrize("count", [0, 1, 300])
def test_the_half_of_a_chunk_comes_with_the_chunks_before_it_and_is_not_waited_for(count):
    chunks = chunk(b"abc") * count
    response, sock = opened(CHUNKED, chunks + b"f\r\nhalf of ", b"a chunk\r\n3\r\nxyz\r\n")
    assert response.read1(65_536) == b"abc" * count + b"half of "
    assert response.chunk_left == len(b"a chunk")
    assert sock.receives == 2
    assert response.read1(65_536) == b"a chunkxyz"
    assert sock.receives == 3


def test_the_end_of_a_chunk_brings_the_chunks_after_it():
    response, sock = opened(CHUNKED, b"6\r\nabc", b"def\r\n3\r\nghi\r\n3\r\njkl\r\n3\r\nm")
    assert response.read1(65_536) == b"abc"
    assert response.read1(65_536) == b"defghijklm"
    assert sock.receives == 3


@pytest.mark.parametrize("end", [b"", b"\r", b"\r\n", b"\r\n3", b"\r\n3\r", b"\r\n3\r\n"])
def test_a_frame_that_is_not_all_there_or_announces_what_is_not_is_left_alone(end):
    response, sock = opened(
        CHUNKED, chunk(b"abc") + b"3\r\nxyz" + end, (b"\r\n" + chunk(b"123"))[len(end) :]
    )
    assert response.read1(65_536) == b"abcxyz"
    assert sock.receives == 2
    assert response.read1(65_536) == b"123"


@pytest.mark.parametrize("size", [65_536, -1])
def test_the_end_of_the_body_is_left_for_the_next_call(size):
    response, sock = opened(CHUNKED, b"1\r\na\r\n1\r\nb\r\n0\r\n\r\n")
    assert response.read1(size) == b"ab"
    assert not response.isclosed()
    assert response.read1(size) == b""
    assert response.isclosed()
    assert sock.receives == 2


@pytest.mark.parametrize("size", range(1, 40))
def test_a_call_leaves_the_chunks_that_it_has_no_room_for(size):
    response, sock = opened(CHUNKED, chunk(b"abc") * 10 + chunk(b"d" * 100))
    calls = []
    while sum(map(len, calls)) < 130:
        calls.append(response.read1(size))
        assert 0 < len(calls[-1]) <= size
    assert b"".join(calls) == b"abc" * 10 + b"d" * 100
    assert len(calls) <= 10 * math.ceil(3 / size) + math.ceil(100 / size)  # as http.client's
    assert sock.receives == 2


@examples(150)
@given(WELL_FORMED | MALFORMED.map(lambda body: body.replace(b"-", b"+")), ARRIVALS, SIZES)
def test_a_call_never_returns_more_than_it_was_asked_for(body, arrival, sizes):
    wire = CHUNKED + body
    response = begin(Response, ScriptedSocket(*cut(wire, arrival)))
    try:
        for size in itertools.cycle(not_too_small(sizes, wire)):
            data = response.read1(size)
            assert size < 0 or len(data) <= size
            if not data:
                break
    except http.client.HTTPException:
        pass


def body_in(wire):
    """What there is of the body in these bytes of a response."""
    try:
        response = begin(http.client.HTTPResponse, ScriptedSocket(wire))
    except http.client.HTTPException:
        return b""  # not even the head
    return story(response, [65_536], rounds=1)[0][0]


@examples(200)
@given(st.sampled_from([CHUNKED, UNTIL_CLOSE, with_length(30)]), BODIES, ARRIVALS, SIZES)
def test_nothing_that_has_arrived_is_withheld_when_the_socket_is_asked_for_more(
    head, body, arrival, sizes
):
    wire = (head + body)[:3000]
    given_out = []
    at_receives = []
    sock = ScriptedSocket(
        *cut(wire, not_too_small(arrival, wire * 10)),
        on_receive=lambda: at_receives.append((sock.received, b"".join(given_out))),
    )
    response = begin(Response, sock)
    try:
        for size in itertools.cycle(sizes):
            data = response.read1(size)
            given_out.append(data)
            if not data:
                break
    except http.client.HTTPException:
        pass
    for received, given_by_then in at_receives:
        assert given_by_then == body_in(received)


@pytest.mark.parametrize("head", [CHUNKED, UNTIL_CLOSE, with_length(3)])
def test_reading_no_bytes_takes_none_and_waits_for_none(head):
    body = b"3\r\nabc\r\n" if head == CHUNKED else b"abc"
    response, sock = opened(head, body)
    if head != CHUNKED:  # where http.client reads the size first, and so does ours
        assert response.read1(0) == b""
        assert sock.receives == 1
    assert response.read1(1) == b"a"
    assert response.read1(0) == b""
    assert response.read1(65_536) == b"bc"
    assert sock.receives == 2


@pytest.mark.parametrize(
    ("head", "body"),
    [(with_length(0), b""), (with_length(3), b"abc"), (CHUNKED, b"3\r\nabc\r\n0\r\n\r\n")],
)
def test_the_end_of_the_body_is_not_waited_for_on_a_connection_that_stays_open(head, body):
    class Hangs(Exception):
        pass

    def on_receive():
        if sock.received == head + body:
            raise Hangs

    sock = ScriptedSocket(head + body, on_receive=on_receive)
    response = begin(Response, sock)
    assert story(response, [65_536]) == story(
        begin(http.client.HTTPResponse, ScriptedSocket(head + body)), [65_536]
    )


def test_a_response_without_a_body_has_none():
    for method, line in (("HEAD", b"200 OK"), ("GET", b"204 No Content"), ("GET", b"304 Same")):
        wire = b"HTTP/1.1 %b\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n" % line
        if method == "GET":
            wire = wire.replace(b"Transfer-Encoding: chunked\r\n", b"")
        response = Response(ScriptedSocket(wire), method=method)
        response.begin()
        assert response.read1(65_536) == b""
        assert response.read1(65_536) == b""


def test_read_chunks_gives_what_has_arrived_after_a_chunk_and_waits_for_it():
    response, sock = opened(CHUNKED, chunk(b"abc"), chunk(b"def") * 3, b"3", b"\r\nghi")
    assert response.read_chunks(65_536) == b""  # no chunk before it
    assert sock.receives == 1
    assert response.read1(65_536) == b"abc"
    assert response.read_chunks(0) == b""
    assert sock.receives == 2
    assert response.read_chunks(65_536) == b"def" * 3
    assert sock.receives == 3
    assert response.read_chunks(65_536) == b""  # what there is of a size is for http.client
    assert sock.receives == 4
    assert response.read_chunks(65_536) == b""
    assert sock.receives == 4
    assert response.read1(65_536) == b"ghi"


def test_read_chunks_leaves_the_rest_of_a_chunk_the_end_and_what_is_closed_to_read1():
    response, sock = opened(CHUNKED, b"3\r\nab", b"c\r\n0\r\n\r\n")
    assert response.read1(65_536) == b"ab"
    assert response.read_chunks(65_536) == b""
    assert response.read1(65_536) == b"c"
    assert response.read_chunks(65_536) == b""
    assert sock.receives == 3
    assert response.read1(65_536) == b""
    assert response.read_chunks(65_536) == b""
    response, _ = opened(CHUNKED, chunk(b"abc") * 3)
    assert response.read1(3) == b"abc"
    response.close()
    assert response.read_chunks(65_536) == b""
    response, sock = opened(UNTIL_CLOSE, b"\r\n" + chunk(b"abc"))
    assert response.read_chunks(65_536) == b""
    assert sock.receives == 1


@pytest.mark.parametrize("left", [b"", b"\r", b"\r\n"])
def test_read_chunks_leaves_a_failure_to_read1(left):
    response, sock = opened(CHUNKED, b"3\r\nabc" + left, reset=True)
    assert response.read1(65_536) == b"abc"
    assert response.read_chunks(65_536) == b""
    assert sock.receives == 3
    for _ in range(2):
        with pytest.raises(ConnectionResetError):
            response.read1(65_536)
    assert sock.receives == 3


def test_a_closed_response_gives_nothing_of_what_has_arrived():
    response, sock = opened(CHUNKED, chunk(b"abc") * 3)
    assert response.read1(3) == b"abc"
    response.close()
    assert response.read1(65_536) == b""
    assert response.isclosed()
    assert sock.files == 0


class Watched(bytes):
    """Bytes that count how many of them are looked at."""

    looked_at = 0

    def find(self, sought, start=0, end=None):
        end = len(self) if end is None else min(end, len(self))
        place = super().find(sought, start, end)
        self.looked_at += (end if place < 0 else place + len(sought)) - start
        return place

    def __getitem__(self, index):
        part = super().__getitem__(index)
        if isinstance(index, slice):
            self.looked_at += len(part)
        return part


@pytest.mark.parametrize("last", [b"", b"7\r\nand far\r\n"])
def test_bytes_are_looked_at_a_few_times_however_their_chunks_are_framed(last):
    """Where all sizes end in a bare LF, the next CRLF may be as far as the buffer goes."""
    for line in (b"%x\r\n", b"%x\n", b"%x;\r\n"):
        wire = Watched((line % 1 + b"a\n\n") * 10_000 + last)
        response, _ = opened(CHUNKED, wire)
        story(response, [65_536], rounds=1)
        assert len(wire) <= wire.looked_at <= 10 * len(wire)


# ---------------------------------------------------------------- the table of frames


def known_frames():
    return response_module._sizes


@pytest.fixture
def _no_frames_known(monkeypatch):
    monkeypatch.setattr(response_module, "_sizes", {})


@pytest.mark.usefixtures("_no_frames_known")
def test_a_server_that_uses_ever_new_sizes_and_spellings_cannot_fill_the_memory():
    most = 0
    fresh = 0
    before = 0
    for width in range(3, 13):
        sizes = range(1, 4096, 5)
        wire = b"".join(b"%0*X\r\n%b\r\n" % (width, size, b"x" * size) for size in sizes)
        response = begin(Response, ScriptedSocket(CHUNKED, wire + b"0\r\n\r\n"))
        body, end, closed, *_ = story(response, [-1], rounds=1)[0]
        assert (len(body), end, closed) == (sum(sizes), None, True)
        assert len(known_frames()) <= response_module.MAX_KNOWN_FRAMES
        most = max(most, len(known_frames()))
        fresh += len(known_frames()) < before  # it has been emptied
        before = len(known_frames())
    assert fresh
    assert most > 100  # else nothing has been shown
    assert all(len(frame) <= response_module.MAX_FRAME for frame in known_frames())


@pytest.mark.usefixtures("_no_frames_known")
def test_the_table_is_emptied_when_it_is_full_and_results_stay_right(monkeypatch):
    monkeypatch.setattr(response_module, "MAX_KNOWN_FRAMES", 3)
    for size in [*range(1, 40), *range(1, 40)]:
        response, _ = opened(CHUNKED, chunk(b"a") + chunk(b"b" * size) + chunk(b"c"))
        assert response.read1(65_536) == b"a" + b"b" * size + b"c"
        assert 0 < len(known_frames()) <= 3


@pytest.mark.usefixtures("_no_frames_known")
@pytest.mark.parametrize(
    ("frame", "known"),
    [
        (b"\r\n3\r\n", True),
        (b"\r\n000000000003\r\n", True),
        (b"\r\n0000000000003\r\n", False),
        (b"\r\n+3\r\n", False),
        (b"\r\n3;x\r\n", False),
        (b"\r\n3 \r\n", False),
        (b"\r\n0x3\r\n", False),
        (b"\r\n0_3\r\n", False),
        (b"\r\n-3\r\n", False),
        (b"\r\n\r\n", False),
        (b"\r\nz\r\n", False),
        (b"\r\n3\n", False),
        (b"\n\n3\r\n", False),
        (b"xx3\r\n", False),
    ],
)
def test_only_plain_frames_are_known_and_nothing_that_a_server_can_make_long(frame, known):
    response, _ = opened(CHUNKED, b"1\r\na" + frame + b"bcd\r\n")
    assert response.read1(65_536) == (b"abcd" if known else b"a")
    assert known_frames() == ({frame: 3} if known else {})


# ---------------------------------------------------------------- other ways to read, mixed in

OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from(["read1", "read_chunks", "read", "readinto", "peek"]),
        st.integers(1, 60) | st.sampled_from([0, 1, 8192, 70_000]),
    )
    # No limit above 1: io.IOBase.readline() then returns too much where a buffer ends.
    | st.sampled_from([("read", None), ("readline", 1), ("readline", -1), ("read1", -1)]),
    max_size=6,
)


def attempt(response, operation, size):
    """What an operation gives: bytes or the failure."""
    try:
        match operation:
            case "readinto":
                target = bytearray(size)
                return bytes(target[: response.readinto(target)])
            case "stream":
                return list(response.stream(size))
            case "close" | "drain_conn":
                return getattr(response, operation)()
            case _:
                return getattr(response, operation)(size)
    except (MemoryError, OverflowError):
        reject()  # http.client's, at a size beyond memory
    except Exception as error:
        return failure(error)


def assert_the_same(ours, theirs, operation, size):
    """Both do it alike; read1() may give one of them more, and the other then catches up.

    read_chunks() is ours alone: whatever it gives, `theirs` has by read1().
    """
    given = attempt(ours, operation, size)
    if operation == "read_chunks":
        assert isinstance(given, bytes)
        assert size < 0 or len(given) <= size
        while given:
            part = attempt(theirs, "read1", len(given))
            assert part
            assert given.startswith(part)
            given = given[len(part) :]
        return
    expected = attempt(theirs, operation, size)
    if isinstance(given, bytes) and isinstance(expected, bytes):
        assert bool(given) == bool(expected)
        if operation == "peek":
            assert given.startswith(expected) or expected.startswith(given)
            return
        if operation == "read1":
            assert size < 0 or len(given) <= size
            while len(expected) < len(given):
                expected += attempt(theirs, "read1", len(given) - len(expected)) or b"?"
            while len(given) < len(expected):
                given += attempt(ours, "read1", len(expected) - len(given)) or b"?"
    assert given == expected


def without_minus(wire):
    """Without negative sizes: what these do depends on how much the buffer holds."""
    return wire.replace(b"-", b"+")


@examples(350)
@given(
    st.sampled_from([CHUNKED, CHUNKED, CHUNKED, UNTIL_CLOSE, with_length(60)]),
    BODIES,
    ARRIVALS,
    OPERATIONS,
    st.booleans(),
)
def test_after_some_calls_of_read1_the_other_ways_to_read_go_on(
    head, body, arrival, operations, reset
):
    pieces = cut(head + without_minus(body), arrival)
    theirs = begin(http.client.HTTPResponse, ScriptedSocket(*pieces, reset=reset))
    ours = begin(Response, ScriptedSocket(*pieces, reset=reset))
    for operation, size in operations:
        assert_the_same(ours, theirs, operation, size)
        assert ours.chunk_left == theirs.chunk_left
        assert ours.length == theirs.length
        assert ours.isclosed() == theirs.isclosed()
    expected = story_of_http_client(theirs, [65_536])
    assert story(ours, [65_536]) == expected


# ---------------------------------------------------------------- through urllib3


def exchange(response_class, pieces, *, reset=False):
    """urllib3's response, from a connection of urllib3's that makes this class's."""
    connection = urllib3.connection.HTTPConnection("example.org")
    connection.response_class = response_class
    connection.sock = ScriptedSocket(*pieces, reset=reset)
    connection.request("GET", "/", preload_content=False)
    return connection.getresponse()


def decoded_story(response, sizes, rounds=2, *, past_urllib3=False):
    """With `past_urllib3`, as `Transport` reads a body that is not compressed."""
    chapters = []

    def read(size):
        data = response._original_response.read_chunks(size) if past_urllib3 else b""
        return data or response.read1(size, decode_content=True)

    sizes = itertools.cycle(sizes)
    for _ in range(rounds):
        body = []
        end = None
        try:
            while data := read(next(sizes)):
                body.append(data)
        except (MemoryError, OverflowError):
            reject()
        except Exception as error:
            end = failure(error)
        chapters.append((b"".join(body), end, response.closed, response.isclosed()))
    return chapters


def gzipped(data):
    return gzip.compress(data, mtime=0)


def deflated(data):
    compressor = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return compressor.compress(data) + compressor.flush()


ENCODINGS = [
    (b"", lambda data: data),
    (b"gzip", gzipped),
    (b"gzip", lambda data: gzipped(data)[:-9]),
    (b"deflate", zlib.compress),
    (b"deflate", deflated),
]
ENCODINGS_THAT_TAKE_ROOM = [
    # urllib3 2.8 doubles the second member if the first fills a read exactly.
    (b"gzip", lambda data: gzipped(data[:9]) + gzipped(data[9:])),
    (b"gzip", lambda data: gzipped(data) + b"\r\nno gzip\r\n"),
]


def encoded_head(head, encoding):
    return head.replace(b"\r\n", b"\r\nContent-Encoding: " + encoding + b"\r\n", 1)


WHOLE = ["chunked", "chunked", "length", "close"]
CUT_SHORT = ["chunked", "cut", "malformed", "short"]
ROOM_FOR_ALL = st.sampled_from([[-1], [10**7]])
"""Sizes to read by where a body may be broken or cut short: what zlib holds back for want
of room, urllib3 then forgets."""
NO_FLAWS = st.just(())
FLAWS = st.lists(st.integers(0, 10**6), min_size=1, max_size=2)


@st.composite
def encoded(draw, framings, encodings=ENCODINGS, sizes=SIZES, flaws=NO_FLAWS):
    """The bytes of a compressed response, and sizes to read it by."""
    encoding, encode = draw(st.sampled_from(encodings))
    plain = b"".join(draw(st.lists(data(), max_size=5)))
    body = bytearray(encode(plain))
    for flaw in draw(flaws):
        if body:
            body[flaw % len(body)] ^= 1 << flaw % 8
    body = bytes(body)
    read_sizes = not_too_small(draw(sizes), plain + body)
    framing = draw(st.sampled_from(framings))
    match framing:
        case "close":
            return encoded_head(UNTIL_CLOSE, encoding) + body, read_sizes
        case "length":
            return encoded_head(with_length(len(body)), encoding) + body, read_sizes
        case "short":
            return encoded_head(with_length(len(body) + 1), encoding) + body, read_sizes
    chunk_sizes = draw(st.lists(st.integers(1, 30), min_size=1, max_size=4))
    chunks = [chunk(piece) for piece in cut(body, chunk_sizes) if piece]
    last = {
        "chunked": b"0\r\n\r\n",
        "cut": b"",
        "malformed": b"zz\r\n",
        "within a chunk": b"3\r\nab",
    }
    return encoded_head(CHUNKED, encoding) + b"".join(chunks) + last[framing], read_sizes


def decoded_stories(wire, arrival, sizes, *, reset=False):
    """With http.client's response and with ours."""
    pieces = cut(wire, arrival)
    return [
        decoded_story(exchange(response_class, pieces, reset=reset), sizes)
        for response_class in (http.client.HTTPResponse, Response)
    ]


@examples(250)
@given(encoded(WHOLE), ARRIVALS)
def test_through_urllib3_a_decoded_body_is_that_of_http_client(answer, arrival):
    wire, sizes = answer
    theirs, ours = decoded_stories(wire, arrival, sizes)
    assert ours == theirs


@examples(250)
@given(
    encoded(WHOLE + CUT_SHORT, ENCODINGS + ENCODINGS_THAT_TAKE_ROOM, ROOM_FOR_ALL),
    ARRIVALS,
    st.booleans(),
)
def test_through_urllib3_a_decoded_body_that_is_cut_short_ends_as_with_http_client(
    answer, arrival, reset
):
    wire, sizes = answer
    theirs, ours = decoded_stories(wire, arrival, sizes, reset=reset)
    assert ours == theirs


@examples(250)
@given(BODIES.map(without_minus), ARRIVALS, SIZES, st.booleans())
def test_through_urllib3_a_body_of_any_kind_and_its_end_are_those_of_http_client(
    body, arrival, sizes, reset
):
    wire = CHUNKED + body
    sizes = not_too_small(sizes, wire)
    theirs, ours = decoded_stories(wire, arrival, sizes, reset=reset)
    assert ours == theirs
    response = exchange(Response, cut(wire, arrival), reset=reset)
    assert decoded_story(response, sizes, past_urllib3=True) == theirs


@examples(200)
@given(encoded([*WHOLE, "within a chunk"], sizes=ROOM_FOR_ALL, flaws=FLAWS), ARRIVALS)
def test_through_urllib3_a_broken_compressed_body_ends_as_with_http_client(answer, arrival):
    """But what stands before the flaw in the same call is lost, as zlib has it.

    A call of ours holds more, so more may be lost; nothing else ever comes.
    """
    wire, sizes = answer
    theirs, ours = decoded_stories(wire, arrival, sizes)
    (their_body, their_end, *_), (our_body, our_end, *_) = theirs[0], ours[0]
    assert their_body.startswith(our_body)
    assert (our_end and our_end[0]) == (their_end and their_end[0])


@examples(300)
@given(
    st.sampled_from([CHUNKED, CHUNKED, UNTIL_CLOSE, with_length(60)]),
    BODIES,
    ARRIVALS,
    st.lists(st.integers(1, 60) | st.just(65_536), max_size=3),
    st.lists(
        st.tuples(st.sampled_from(["stream", "read", "readinto"]), st.integers(1, 60))
        | st.sampled_from(
            [("stream", None), ("read", None), ("drain_conn", None), ("close", None)]
        ),
        min_size=1,
        max_size=3,
    ),
)
@example(CHUNKED, chunk(b"abc") * 3 + b"0\r\n\r\n", [10**9], [], [("stream", None)])
@example(CHUNKED, chunk(b"abc") * 3 + b"0\r\n\r\n", [10**9], [1], [("stream", 2)])
def test_after_some_calls_of_read1_urllib3s_other_ways_to_read_go_on(
    head, body, arrival, sizes, operations
):
    """Also where urllib3's stream() takes the rest of a chunk for a size: from the same byte."""
    wire = head + without_minus(body)
    pieces = cut(wire, arrival)
    theirs = exchange(http.client.HTTPResponse, pieces)
    ours = exchange(Response, pieces)
    for size in sizes:
        assert_the_same(ours, theirs, "read1", size)
    for operation, size in operations:
        if operation == "stream" and size is not None:
            [size] = not_too_small([size], wire)  # noqa: PLW2901
        assert_the_same(ours, theirs, operation, size)
        assert ours.closed == theirs.closed
        assert ours.tell() == theirs.tell()


# ---------------------------------------------------------------- the file under a response


def incoming(*pieces, **options):
    sock = ScriptedSocket(*pieces, **options)
    return Incoming(sock), sock


FILE_OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from(["read", "read1", "readline", "readinto", "readinto1", "peek"]),
        st.integers(0, 30) | st.sampled_from([8191, 8192, 8193, 20_000, 65_536, 70_000]),
    )
    | st.sampled_from(
        [("read", None), ("read", -1), ("read1", -1), ("readline", -1), ("readline", None)]
    ),
    max_size=12,
)


@examples(350)
@given(
    st.lists(data(), max_size=8).map(b"".join),
    ARRIVALS,
    FILE_OPERATIONS,
    st.booleans(),
)
def test_the_file_reads_like_a_buffered_reader(wire, arrival, operations, reset):
    pieces = cut(wire, arrival)
    reference = io.BufferedReader(socket.SocketIO(ScriptedSocket(*pieces, reset=reset), "rb"))
    file, sock = incoming(*pieces, reset=reset)
    taken = 0
    for operation, size in [*operations, ("read", None)]:
        held = len(sock.received) - taken
        receives = sock.receives
        if operation == "readinto1":
            expected = attempt(reference, "read1", size)
            target = bytearray(size)
            try:
                given = bytes(target[: file.readinto1(target)])
            except Exception as error:
                given = failure(error)
        else:
            expected = attempt(reference, operation, size)
            given = attempt(file, operation, size)
        if operation in ("read1", "readinto1", "peek"):
            # Waits at most once, and not at all when there is something to give.
            nothing_to_wait_for = held or (size == 0 and operation != "peek")
            assert sock.receives - receives <= (0 if nothing_to_wait_for else 1)
        if isinstance(given, tuple) or isinstance(expected, tuple):
            assert given == expected
            taken = len(sock.received)  # a failure loses what came before it
            continue
        assert bool(given) == bool(expected)
        if operation == "peek":
            assert (given + expected).startswith((given, expected))
            assert given.startswith(expected) or expected.startswith(given)
            continue
        if operation in ("read1", "readinto1"):
            assert size < 0 or len(given) <= size
            if len(expected) < len(given):
                expected += reference.read(len(given) - len(expected))
            elif len(given) < len(expected):
                given += file.read(len(expected) - len(given))
        assert given == expected
        taken += len(given)


def test_the_file_shows_what_it_holds():
    file, _ = incoming(b"abcdef", b"ghi")
    assert file.readable()
    assert (file.buffer, file.position) == (b"", 0)
    assert file.read1(2) == b"ab"
    assert (file.buffer, file.position) == (b"abcdef", 2)
    assert file.peek() == b"cdef"
    assert file.readline() == b"cdefghi"
    assert (file.buffer, file.position) == (b"", 0)


def test_the_file_takes_as_much_as_is_asked_for_over_several_receives():
    for read in (
        lambda file, size: file.read(size),
        lambda file, size: bytes(memoryview(target := bytearray(size))[: file.readinto(target)]),
        lambda file, size: file.readline(size),
    ):
        file, sock = incoming(b"abc", b"d", b"efghi", b"j\nk")
        assert [read(file, 2), read(file, 5), read(file, 1)] == [b"ab", b"cdefg", b"h"]
        assert sock.receives == 3
        assert read(file, 3) == b"ij\n"
        assert read(file, 9) == b"k"


def test_a_failure_leaves_the_bytes_that_came_before_it():
    file, _ = incoming(b"abc", reset=True)
    assert file.read1() == b"abc"
    with pytest.raises(ConnectionResetError):
        file.read1()
    response, _ = opened(CHUNKED, chunk(b"abc") * 2 + b"5\r\nde", reset=True)
    assert response.read1(65_536) == b"abcabcde"
    with pytest.raises(ConnectionResetError):
        response.read1(65_536)


def test_a_timeout_loses_nothing_of_the_body():
    near, far = socket.socketpair()
    with near, far:
        near.settimeout(0.01)
        far.sendall(CHUNKED + b"6\r\nabc")
        with begin(Response, near) as response:
            assert response.read1(65_536) == b"abc"
            with pytest.raises(TimeoutError):
                response.read1(65_536)
            far.sendall(b"def\r\n3\r\nghi\r\n")
            assert response.read1(65_536) == b"defghi"


def test_the_response_keeps_its_socket_open_until_it_is_closed():
    near, far = socket.socketpair()
    with far:
        number = near.fileno()
        far.sendall(CHUNKED + chunk(b"abc"))
        response = begin(Response, near)
        near.close()
        assert response.fileno() == number
        assert response.readable()
        assert response.read1(65_536) == b"abc"
        assert near.fileno() == number
        file = response.fp
        response.close()
        assert file.closed
        assert near.fileno() == -1
        assert far.recv(1) == b""


# ---------------------------------------------------------------- TLS

AUTHORITY = trustme.CA()
SERVER_CONTEXT = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
AUTHORITY.issue_cert("127.0.0.1").configure_cert(SERVER_CONTEXT)
CLIENT_CONTEXT = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
AUTHORITY.configure_trust(CLIENT_CONTEXT)


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

    def open(self):
        """The response, its head read."""
        self.send_records(CHUNKED)
        return begin(Response, self.client)

    def close(self):
        self.client.close()
        self.far.close()


@pytest.fixture(params=[ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])
def peer(request):
    peer = Peer(request.param)
    yield peer
    peer.close()


def test_tls_all_records_that_have_arrived_come_in_one_call(peer):
    with peer.open() as response:
        peer.send_records(*[chunk(b"data: %d\n\n" % number) for number in range(200)])
        assert response.read1(65_536) == b"".join(b"data: %d\n\n" % n for n in range(200))


def test_tls_the_head_and_the_records_after_it_come_together(peer):
    peer.send_records(CHUNKED, *[chunk(b"abc")] * 50)
    receive, receives = peer.client.recv, []
    peer.client.recv = lambda size: (receives.append(size), receive(size))[1]
    with begin(Response, peer.client) as response:
        received = len(receives)
        assert response.read1(65_536) == b"abc" * 50
        assert len(receives) == received


def test_tls_one_record_is_one_receive_and_the_socket_is_left_alone(peer, monkeypatch):
    calls = []

    def watch(target, name):
        function = getattr(target, name)

        def watched(*args, **options):
            calls.append(name)
            assert options in ({}, {"timeout": 0})
            return function(*args, **options)

        monkeypatch.setattr(target, name, watched)

    with peer.open() as response:
        watch(peer.client, "recv")
        watch(peer.client, "settimeout")
        watch(response_module, "wait_for_read")
        peer.send_records(chunk(b"abc"))
        assert response.read1(65_536) == b"abc"
        assert calls == ["recv", "wait_for_read"]


def test_tls_the_half_of_a_record_is_not_waited_for(peer):
    with peer.open() as response:
        for whole in ([], [chunk(b"abc")], [chunk(b"abc")] * 3):
            for place in (1, 5, 20, -1):
                peer.send_records(*whole)
                record = peer.record(chunk(b"cut short"))
                peer.send(record[:place])
                if whole:
                    assert response.read1(65_536) == b"abc" * len(whole)
                peer.send(record[place:])
                assert response.read1(65_536) == b"cut short"


def test_tls_a_record_with_parts_of_chunks_is_as_good_as_any(peer):
    body = chunk(b"abc") * 3 + chunk(b"d" * 100)
    with peer.open() as response:
        peer.send_records(*[body[i : i + 1] for i in range(len(body))])
        assert response.read1(65_536) == b"abc" * 3 + b"d" * 100


def test_tls_no_more_is_taken_at_once_than_fits_and_nothing_is_lost(peer):
    part = b"x" * 16_000
    with peer.open() as response:
        peer.send_records(*[chunk(part)] * 6)
        body = response.read1(65_536)
        assert len(response._incoming.buffer) == response_module.READ_SIZE
        assert len(part) * 4 < len(body) < response_module.READ_SIZE
        while len(body) < 6 * len(part):
            body += response.read1(65_536)
        assert body == part * 6
        peer.send_records(chunk(b"abc"))
        assert response.read1(65_536) == b"abc"


@pytest.mark.parametrize("timeout", [None, LIMIT, 12.5])
@pytest.mark.parametrize("then", ["nothing", "part", "end", "garbage"])
def test_tls_the_timeout_is_afterwards_what_it_was(peer, timeout, then):
    with peer.open() as response:
        peer.client.settimeout(timeout)
        peer.send_records(*[chunk(b"abc")] * 3)
        record = peer.record(chunk(b"def"))
        if then == "part":
            peer.send(record[:7])
        elif then == "end":
            peer.send(peer.farewell())
        elif then == "garbage":
            peer.send(record[:-1] + bytes([record[-1] ^ 1]))
        assert response.read1(65_536) == b"abc" * 3
        assert peer.client.gettimeout() == timeout


def test_tls_the_timeout_is_put_back_when_a_signal_handler_raises(peer):
    receive = peer.client.recv

    def interrupted(size):
        if peer.client.gettimeout() == 0:
            raise KeyboardInterrupt
        return receive(size)

    with peer.open() as response:
        peer.client.recv = interrupted
        peer.send_records(*[chunk(b"abc")] * 3)
        with pytest.raises(KeyboardInterrupt):
            response.read1(65_536)
        assert peer.client.gettimeout() == LIMIT


def test_tls_a_timeout_still_ends_a_wait(peer):
    with peer.open() as response:
        peer.client.settimeout(0.01)
        peer.send_records(*[chunk(b"abc")] * 2)
        assert response.read1(65_536) == b"abcabc"
        with pytest.raises(TimeoutError):
            response.read1(65_536)


@pytest.mark.parametrize("count", [1, 3])
def test_tls_an_error_after_records_is_raised_when_they_have_been_read(peer, count):
    with peer.open() as response:
        good = [peer.record(chunk(b"abc")) for _ in range(count)]
        bad = bytearray(peer.record(chunk(b"def")))
        bad[-1] ^= 1
        peer.send(*good, bad, peer.record(chunk(b"ghi")))
        assert response.read1(65_536) == b"abc" * count
        for _ in range(2):
            with pytest.raises(ssl.SSLError, match="(?i)bad record mac"):
                response.read1(65_536)


@pytest.mark.parametrize("records", [[], [chunk(b"abc")], [chunk(b"abc")] * 3, [b"3\r\n", b"ab"]])
@pytest.mark.parametrize("how", ["farewell", "none", "within a record"])
def test_tls_the_end_after_records_is_found_when_they_have_been_read(peer, records, how):
    """Without a farewell too: http.client does not tell these ends apart."""
    with peer.open() as response:
        peer.send_records(*records)
        if how == "farewell":
            peer.send(peer.farewell())
        elif how == "within a record":
            peer.send(peer.record(chunk(b"def"))[:9])
        peer.far.close()
        theirs = begin(http.client.HTTPResponse, ScriptedSocket(CHUNKED, *records))
        assert story(response, [65_536]) == story(theirs, [65_536])


def test_tls_the_last_chunk_after_records_ends_the_body(peer):
    with peer.open() as response:
        peer.send_records(*[chunk(b"abc")] * 3, b"0\r\n\r\n")
        assert response.read1(65_536) == b"abc" * 3
        assert response.read1(65_536) == b""
        assert response.isclosed()


def test_tls_a_read_that_would_have_to_write_is_no_failure(peer):
    """As at a key update, when the socket takes no more just then."""
    receive = peer.client.recv

    def recv(size):
        if peer.client.gettimeout() == 0 and not peer.client.pending():
            raise ssl.SSLWantWriteError(ssl.SSL_ERROR_WANT_WRITE, "would have to write")
        return receive(size)

    with peer.open() as response:
        peer.client.recv = recv
        for _ in range(2):
            peer.send_records(*[chunk(b"abc")] * 2)
            body = b""
            while len(body) < 6:
                body += response.read1(65_536)
            assert body == b"abcabc"
