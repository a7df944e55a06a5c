"""A body out of its framing is what `http.client` and h11 make of the same bytes.

Where a body is well-formed all three agree to the byte. Where it is not, ours is an error
wherever `http.client`'s is one, after at least the same bytes. Ours is stricter, as h11 is:
`http.client` takes any two bytes for the end of a chunk, and `0x3`, `+3` and `-3` for sizes.
"""

from __future__ import annotations

import http.client
import io
import itertools

import h11
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from eventsource.errors import BrokenBody
from eventsource.protocol import framing
from eventsource.protocol.framing import (
    MAX_CHUNK_LINE,
    ChunkedBody,
    CloseDelimitedBody,
    SizedBody,
    body_of,
)
from tests.properties import examples

# Else an example of many bytes that fails would fail with this.
pytestmark = pytest.mark.filterwarnings("ignore:Generating overly large repr")

HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
UNTIL_CLOSE = HEAD + b"\r\n"


def with_length(length):
    return HEAD + b"Content-Length: %d\r\n\r\n" % length


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
    return [*pieces, data] if data else pieces


# ---------------------------------------------------------------- three opinions


def ours(body, pieces):
    """The bytes of the body, and whether it was complete."""
    found = []
    for piece in pieces:
        if body.is_over:
            break
        found.append(body.feed(piece))
    if not body.is_over:
        body.end()
    assert body.is_over
    return b"".join(found), body.error is None


class Wire:
    """As much of a socket as `http.client` wants."""

    def __init__(self, wire):
        self._wire = wire

    def makefile(self, _mode):
        return io.BytesIO(self._wire)


def of_http_client(wire):
    response = http.client.HTTPResponse(Wire(wire))
    response.begin()
    found = []
    try:
        while data := response.read1(65_536):
            found.append(data)
    except (http.client.HTTPException, MemoryError, OverflowError):
        return b"".join(found), False
    # It does not tell the end of a body by length from the end of the connection.
    return b"".join(found), not response.length


def of_h11(wire):
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=2**18)
    connection.send(h11.Request(method="GET", target="/", headers=[("Host", "h")]))
    connection.send(h11.EndOfMessage())
    connection.receive_data(wire)
    connection.receive_data(b"")
    found = []
    try:
        while not isinstance(event := connection.next_event(), h11.EndOfMessage):
            if isinstance(event, h11.Data):
                found.append(bytes(event.data))
    except h11.RemoteProtocolError:
        return b"".join(found), False
    return b"".join(found), True


# ---------------------------------------------------------------- strategies

PATTERNS = [
    *(b"x", b"\r\n", b"\n", b"data: 7\n\n", bytes(range(256))),
    *(b"0\r\n\r\n", b"\r\n0\r\n\r\n"),  # the last chunk
    *(b"\r\n3\r\nabc", b"3\r\nabc\r\n"),  # a frame, a chunk
]
EDGES = [255, 256, 4095, 8191, 8192, 8193, 16384, 65535, 65536, 65537, 70_000]
"""Around the sizes of the buffers: 8 KiB is `io.BufferedReader`'s, 64 KiB ours."""

PLAIN_SIZES = [b"%x\r\n", b"%x\r\n", b"%x\r\n", b"%X\r\n", b"0%x\r\n"]
OTHER_SIZES = [
    *(b"%012x\r\n", b"%013x\r\n"),  # the first is the longest that the table takes
    *(b"%064X\r\n", b"%x;name=value\r\n", b'%X ; name="1\t2" \r\n', b"%x;" + b"e" * 200 + b"\r\n"),
    *(b"%x \r\n", b"%x\n", b"%x;name\n"),
]
WRONG_SIZES = [
    *(b"", b"\r\n", b" \r\n", b"zz\r\n", b"g%x\r\n", b"%xg\r\n", b"%xG\r\n", b"-%x\r\n", b"-1\r\n"),
    *(b"-0\r\n", b"+%x\r\n", b"0x%x\r\n", b"0X%X\r\n", b"0_%x\r\n", b"1__%x\r\n", b"_%x\r\n"),
    *(b" %x\r\n", b"\t%x\r\n", b"\x0b%x\x0c\r\n", b"%x\0\r\n", b"%x\r", b"%x\r\r\n", b"\xb2%x\r\n"),
    *(b";%x\r\n", b"%x"),
    # A line beyond http.client's limit:
    *(b"0" * 65_540 + b"%x\r\n", b"%x;" + b"e" * 65_540 + b"\r\n"),
]
HUGE_SIZES = [b"8%07x\r\n", b"8%015x\r\n", b"1%020x\r\n"]  # 2**31, 2**63, 2**80
WRONG_ENDS = [b"", b"\n", b"\r", b"\n\r", b"xx", b"\r\r\n", b"\r\n\r\n"]
LAST_CHUNKS = [
    *(b"0\r\n\r\n", b"0\n\n", b"000;x\r\n\r\n", b"0\r\nDigest: 1\r\nExpires: 2\r\n\r\n"),
    b"0\r\n\r\n5\r\nagain\r\n",
]
WRONG_LAST_CHUNKS = [
    *(b"", b"0", b"0\r\n", b"0\r\nDigest: 1", b"-0\r\n\r\n", b"0x0\r\n\r\n"),
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
def mutated(draw, texts, likely):
    """With bytes that are wrong, missing or too many, most often these; or cut off."""
    body = bytearray(draw(texts))
    one = st.sampled_from(likely) | st.integers(0, 255)
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


BODIES = st.one_of(WELL_FORMED, MALFORMED, mutated(WELL_FORMED, b"\r\n0123456789aAfF;-_x \0"))

ARRIVALS = st.one_of(
    st.just([10**9]),  # all at once
    st.lists(st.integers(1, 60), min_size=1, max_size=4),
    st.lists(st.sampled_from([1, 2, 3, 100, 8192, 65_536, 100_000]), min_size=1, max_size=4),
)


# ---------------------------------------------------------------- the same bytes, the same end


@examples(400)
@given(chunks(SPELLINGS, st.just(b"\r\n")), st.sampled_from(LAST_CHUNKS), ARRIVALS)
def test_a_well_formed_body_is_the_data_of_its_chunks(chunks, last, arrival):
    wire = on_the_wire(chunks, last)
    body = on_the_wire([(b"", data, b"", times) for _, data, _, times in chunks], b"")
    # The same number of times as on the wire:
    expected, complete = of_http_client(CHUNKED + wire)
    assert complete
    assert ours(ChunkedBody(), cut(wire, arrival)) == (expected, True)
    if all(len(data) + len(size) <= 900 for size, data, _, _ in chunks):
        assert expected == body


@examples(1000)
@given(BODIES, ARRIVALS)
@example(b"3\r\nabc\r\nzz\r\n\r\n3\r\ndef\r\n0\r\n\r\n", [10**9])
@example(b"3\r\nabc\r\n3\r\ndefXX3\r\nghi\r\n0\r\n\r\n", [10**9])
@example(b"\r\n3\r\nabc\r\n3\r\ndef\r\n0\r\n\r\n", [10**9])
@example(b"0\nfff\r\n" + b"x" * 65_537 + b"\r\n\r\n", [10**9])
def test_what_is_an_error_to_http_client_is_one_here_and_never_earlier_than_to_h11(body, arrival):
    made = ChunkedBody()
    data, complete = ours(made, cut(body, arrival))
    their_data, they_complete = of_http_client(CHUNKED + body)
    if complete:
        # It reads the trailer fields, too, and refuses long ones, and from
        # Python 3.15 on more than 100.
        lines = body.split(b"\n")
        assert they_complete or max(map(len, lines)) > 65_535 or len(lines) > 100
        assert data == their_data
    else:
        assert their_data.startswith(data)
    strict_data, strictly_complete = of_h11(CHUNKED + body)
    if "the line with" in str(made.error):
        return  # h11 limits only a line that is not yet whole
    if strictly_complete:
        assert (data, complete) == (strict_data, True)
    else:
        assert data.startswith(strict_data)


@examples(300)
@given(BODIES, ARRIVALS, ARRIVALS)
def test_the_result_does_not_depend_on_how_the_bytes_were_cut(body, one, other):
    first, second = ChunkedBody(), ChunkedBody()
    assert ours(first, cut(body, one)) == ours(second, cut(body, other))
    assert str(first.error) == str(second.error)


@examples(300)
@given(data(), st.sampled_from([None, -1, 0, 1]), ARRIVALS)
def test_a_body_that_is_not_chunked_and_its_end_are_those_of_http_client(body, excess, arrival):
    if excess is None:
        made, head = CloseDelimitedBody(), UNTIL_CLOSE
    else:
        made, head = SizedBody(len(body) + excess), with_length(len(body) + excess)
    assert ours(made, cut(body, arrival)) == of_http_client(head + body)


def test_a_body_cut_at_any_byte_gives_what_has_arrived_and_is_an_error():
    body = chunk(b"abc") * 2 + chunk(b"d" * 18) + b"3;x\r\nefg\r\n"
    for length in range(len(body)):
        for arrival in ([1], [10**9]):
            data, complete = ours(ChunkedBody(), cut(body[:length], arrival))
            assert (data, complete) == (of_http_client(CHUNKED + body[:length])[0], False)
    for last in (b"0\r\n", b"0\r\nDigest: 1", b"0\r\n\r\n"):  # trailers are not waited for
        assert ours(ChunkedBody(), [body + last]) == (b"abc" * 2 + b"d" * 18 + b"efg", True)


@pytest.mark.parametrize("spelling", WRONG_SIZES)
def test_what_comes_before_a_malformed_size_is_not_lost(spelling):
    wire = chunk(b"abc") * 2 + on_the_wire([(spelling, b"def", b"\r\n", 1)], b"0\r\n\r\n")
    data, complete = ours(ChunkedBody(), [wire])
    assert data.startswith(b"abcabc")
    assert not complete


@pytest.mark.parametrize("end", WRONG_ENDS)
def test_a_chunk_that_is_longer_than_its_size_is_an_error(end):
    wire = chunk(b"abc") + b"3\r\ndef" + end + chunk(b"ghi") + b"0\r\n\r\n"
    assert ours(ChunkedBody(), [wire]) == (b"abcdef", False)


@pytest.mark.parametrize(
    ("make", "wire", "reason"),
    [
        (ChunkedBody, b"3\r\nab", "the connection ended 1 bytes before the end of a chunk"),
        *(
            (ChunkedBody, wire, "the connection ended before the last chunk")
            for wire in (b"3\r\nabc", b"3\r\nabc\r\n")
        ),
        (ChunkedBody, b"3\r\nabcd\r\n", "a chunk is longer than its size"),
        (ChunkedBody, b"zz\r\n", "the size of a chunk is not a hexadecimal number"),
        (
            ChunkedBody,
            b"3;" + b"e" * MAX_CHUNK_LINE,
            "the line with a chunk's size has more than 16384 bytes",
        ),
        (lambda: SizedBody(5), b"abc", "the connection ended 2 bytes before the end of the body"),
    ],
)
def test_an_error_says_what_is_wrong(make, wire, reason):
    body = make()
    ours(body, [wire])
    assert isinstance(body.error, BrokenBody)
    assert str(body.error) == reason


# ---------------------------------------------------------------- in bulk, and promptly


@examples(300)
@given(BODIES, ARRIVALS)
def test_nothing_that_has_arrived_is_withheld(body, arrival):
    made, found, received = ChunkedBody(), b"", b""
    for piece in cut(body[:3000], arrival):
        if made.is_over:
            break
        found += made.feed(piece)
        received += piece
        assert found == ours(ChunkedBody(), [received])[0]


def test_an_endless_size_or_extension_is_refused_in_small_pieces_too():
    for line in (b"0" * 2 * MAX_CHUNK_LINE, b"3;" + b"e" * 2 * MAX_CHUNK_LINE):
        body, taken = ChunkedBody(), 0
        while not body.is_over:
            body.feed(line[taken : taken + 100])
            taken += 100
        assert taken <= MAX_CHUNK_LINE + 100


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

    def __radd__(self, other):
        return type(self)(other + bytes(self))


@pytest.mark.parametrize("last", [b"", b"7\r\nand far\r\n"])
def test_bytes_are_looked_at_a_few_times_however_their_chunks_are_framed(last):
    """Where all sizes end in a bare LF, the next CRLF may be as far as the read goes."""
    for line in (b"%x\r\n", b"%x\n", b"%x;\r\n"):
        body = ChunkedBody()
        body.feed(b"1\r\na")  # so that what follows is looked at as it is
        wire = Watched(b"\r\n" + (line % 1 + b"a\r\n") * 10_000 + last)
        body.feed(wire)
        assert len(wire) <= wire.looked_at <= 10 * len(wire)


# ---------------------------------------------------------------- the table of frames


@pytest.fixture
def known():
    """The table, empty."""
    framing.forget_frames()
    yield framing.KNOWN_FRAMES
    framing.forget_frames()


def test_a_server_that_uses_ever_new_sizes_and_spellings_cannot_fill_the_memory(known):
    most = fresh = before = 0
    for width in range(3, 13):
        sizes = range(1, 4096, 5)
        wire = b"".join(b"%0*X\r\n%b\r\n" % (width, size, b"x" * size) for size in sizes)
        data, complete = ours(ChunkedBody(), [wire + b"0\r\n\r\n"])
        assert (len(data), complete) == (sum(sizes), True)
        assert len(known) <= framing.MAX_KNOWN_FRAMES
        assert len(framing.KNOWN_LINES) < len(known)
        most = max(most, len(known))
        fresh += len(known) < before  # it has been emptied
        before = len(known)
    assert fresh
    assert most > 100  # else nothing has been shown
    assert all(len(frame) <= framing.MAX_FRAME for frame in known)


@pytest.mark.parametrize(
    ("frame", "is_known"),
    [
        (b"\r\n3\r\n", True),
        (b"\r\n000000000003\r\n", True),
        (b"\r\n0000000000003\r\n", False),
        (b"\r\n3;x\r\n", False),
        (b"\r\n3 \r\n", False),
        (b"\r\n3\n", False),
    ],
)
def test_only_plain_frames_are_known_and_nothing_that_a_server_can_make_long(
    known, frame, is_known
):
    before = dict(known)
    body = ChunkedBody()
    assert body.feed(b"1\r\na") == b"a"
    before = dict(known)
    assert body.feed(frame + b"bcd\r\n") == b"bcd"
    assert known == {**before, **({frame: 3} if is_known else {})}


# ---------------------------------------------------------------- which framing it is


@pytest.mark.parametrize(
    ("method", "status", "fields", "kind"),
    [
        ("GET", 200, {"Transfer-Encoding": "chunked"}, ChunkedBody),
        ("GET", 200, {"Transfer-Encoding": " Chunked "}, ChunkedBody),
        ("GET", 200, {"Transfer-Encoding": "chunked", "Content-Length": "3"}, ChunkedBody),
        ("GET", 200, {"Content-Length": "3"}, SizedBody),
        ("GET", 200, {"Content-Length": "-3"}, CloseDelimitedBody),
        ("GET", 200, {"Content-Length": "three"}, CloseDelimitedBody),
        ("GET", 200, {}, CloseDelimitedBody),
        ("HEAD", 200, {"Transfer-Encoding": "chunked"}, SizedBody),
        ("GET", 204, {"Content-Length": "3"}, SizedBody),
        ("GET", 304, {"Content-Length": "3"}, SizedBody),
    ],
)
def test_the_head_says_how_the_end_is_told(method, status, fields, kind):
    body = body_of(method, status, fields.get)
    assert type(body) is kind
    assert body.is_over == (method == "HEAD" or status != 200)


@pytest.mark.parametrize("coding", ["gzip, chunked", "chunked, gzip", "chunked, chunked"])
def test_chunks_in_a_further_coding_are_refused(coding):
    with pytest.raises(BrokenBody, match="unknown transfer coding"):
        body_of("GET", 200, {"Transfer-Encoding": coding}.get)


READS = [
    *(b"3\r\nabc\r\n", b"3\r\ndef\r\n", b"10\r\n%b\r\n" % (b"x" * 16), b"3;a=b\r\nabc\r\n"),
    *(b"3\r\nabc", b"3\r\n", b"3", b"abc\r\n", b"abc", b"\r\n", b"\r", b"\n", b"0\r\n\r\n"),
    *(b"3\r\nabcde", b"3\r\nabcd\r\n", b"3\r\n3\r\n\r\n", b"8\r\n3\r\nabc\r\n\r\n"),
]


@examples(500)
@given(st.lists(st.sampled_from(READS), min_size=1, max_size=6))
@example([READS[0], READS[0], b"3\r\nabcde"])
@example([READS[0], READS[0], b"3\r\n", b"3\r\nabc\r\n"])
@example([READS[0], READS[0], b"3\r\nabc", b"3\r\nabc\r\n"])
@example([READS[0], READS[0], b"3", b"3\r\nabc\r\n"])
def test_what_a_read_is_by_itself_does_not_matter(reads):
    """A read that is one whole chunk is taken a shorter way, where the stream stands right."""
    first, second = ChunkedBody(), ChunkedBody()
    assert ours(first, [READS[0], READS[2], *reads]) == ours(
        second, [b"".join([READS[0], READS[2], *reads])]
    )
    assert str(first.error) == str(second.error)
