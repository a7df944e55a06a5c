"""What a server sends without end, and how little the client holds of it."""

from __future__ import annotations

import contextlib
import gc
import gzip
import importlib.util
import logging
import math
import sys
import tracemalloc
import zlib

import pytest
import requests
from requests.auth import HTTPDigestAuth

from eventsource import (
    EventStream,
    OpenEvent,
    ReadyState,
    ReconnectPolicy,
    SSEClient,
)
from eventsource.errors import (
    EventTooLarge,
    HeadTooLarge,
    StreamEnded,
    UnexpectedContentType,
    UnexpectedStatus,
)
from eventsource.http.adapter import MAX_HEAD_SIZE
from eventsource.http.body import READ_SIZE
from eventsource.http.request import ERROR_BODY_SIZE
from eventsource.protocol.events import Comment
from eventsource.protocol.policy import MAX_RECONNECTION_TIME
from eventsource.testing import ScriptedServer
from fuzz.wire import Wire, connections
from tests.authority import server_context
from tests.support import (
    CHUNKED,
    HEAD,
    QUICK,
    errors,
    messages,
    reading,
    respond,
    status,
    stream,
    take,
)

MIB = 2**20
BOUND = MIB
"""`max_event_size` here."""
ENOUGH = 16 * BOUND
"""Bytes after which a server without end does end: a test that fails is to come to an end."""
MEMORY = 2 * MIB
"""Bytes that no exchange takes beside the event, whatever is sent: some reads and their items."""
TEXT = 2000
"""Characters that no error's text and no log line has."""
ONCE = ReconnectPolicy(delay=0.02, jitter=0.0, max_attempts=1)


def without_end(start, piece, *, total=ENOUGH):
    """A script that answers with `start` and then `piece` again and again."""

    def script(connection):
        connection.read_request()
        connection.send(start)
        for _ in range(total // len(piece)):
            connection.send(piece)

    return script


def in_pieces(piece):
    """As many as are sent at once."""
    return piece * max(READ_SIZE // len(piece), 1)


def in_chunks(data, size):
    return b"".join(
        b"%x\r\n%b\r\n" % (len(part), part)
        for part in (data[i : i + size] for i in range(0, len(data), size))
    )


@contextlib.contextmanager
def memory_below(limit):
    """All memory that Python takes meanwhile, the server's too, stays below `limit` bytes."""
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        yield
        peak = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
    assert peak < limit, f"{peak / MIB:.2f} MiB, not below {limit / MIB:.2f}"


def only_error(*scripts, memory=math.inf, **options):
    """What a stream that does not open says, as its only item."""
    with reading(*scripts, **{"reconnect": QUICK, **options}) as (events, _), memory_below(memory):
        return next(events)


def assert_final(event, kind):
    assert isinstance(event.error, kind)
    assert event.ready_state is ReadyState.CLOSED
    assert event.retry_in is None


# --- One event without end ---

LINES = {
    "data": (b"data: ", b"x"),
    "data without a colon": (b"", b"data"),
    "data in emoji": (b"data: ", "\N{GRINNING FACE}".encode()),
    "data that is no UTF-8": (b"data: ", b"\xff"),
    "an unknown field": (b"unknown: ", b"x"),
    "a comment": (b": ", b"x"),
    "an event type": (b"event: ", b"x"),
    "an id": (b"id: ", b"x"),
    "a reconnection time": (b"retry: ", b"9"),
    "line after line of data": (b"", b"data: x\n"),
    "line after line of empty data": (b"", b"data\n"),
    "type after type": (b"", b"event: x\n"),
    "id after id": (b"", b"id: x\n"),
    "a long id, and then data": (b"id: " + b"x" * (BOUND // 8) + b"\n", b"data: x\n"),
}


def assert_too_large(items, bound=BOUND):
    opened, last = items
    assert isinstance(opened, OpenEvent)
    assert_final(last, EventTooLarge)
    assert last.error.limit == bound
    assert bound < last.error.size <= bound + READ_SIZE
    assert str(last.error) == (
        f"an event of at least {last.error.size} bytes exceeds max_event_size={bound}"
    )


@pytest.mark.long
@pytest.mark.parametrize(("start", "piece"), LINES.values(), ids=LINES)
def test_an_event_without_end_is_given_up_for_good_at_the_bound(start, piece):
    bound = BOUND if len(piece) <= 4 else BOUND // 8  # many lines take their time
    script = without_end(HEAD + start, in_pieces(piece))
    with reading(script, reconnect=QUICK, max_event_size=bound) as (events, server):
        with memory_below(2 * bound + MEMORY):
            assert_too_large(list(events), bound)
        assert len(server.requests) == 1


@pytest.mark.long
@pytest.mark.parametrize(
    ("framing", "bound"),
    [
        (lambda data: b"ffffffffffff\r\n" + data, BOUND // 8),
        (lambda data: b"f" * 5000 + b"\r\n" + data, BOUND // 8),
        (lambda data: in_chunks(data, 1), BOUND // 64),
        (lambda data: in_chunks(data, 1000), BOUND // 8),
    ],
    ids=["one giant chunk", "a chunk without end", "tiny chunks", "usual chunks"],
)
@pytest.mark.parametrize("unit", [b"data: x\n", b"x"], ids=["lines", "one line"])
def test_the_bound_holds_whatever_the_chunks(framing, bound, unit):
    script = respond(CHUNKED + framing(b"data: " + unit * (2 * bound // len(unit))))
    with reading(script, reconnect=QUICK, max_event_size=bound) as (events, _):
        with memory_below(3 * bound + MEMORY):
            assert_too_large(list(events), bound)


@pytest.mark.filterwarnings("ignore::urllib3.exceptions.InsecureRequestWarning")
def test_the_bound_holds_over_tls():
    script = without_end(HEAD + b"data: ", b"x" * READ_SIZE)
    with ScriptedServer(script, ssl_context=server_context()) as server:
        with (
            memory_below(3 * BOUND + MEMORY),
            EventStream(server.url, max_event_size=BOUND, verify=False) as events,
        ):
            assert_too_large(list(events))


# --- What is no event, and may go on for ever ---

IDLE = {
    "comments": b": still here\n",
    "blank lines": b"\r\n",
    "types without data": b"event: x\n\n",
    "ids without data": b"id: 1\n\n",
    "reconnection times": b"retry: 1000\n",
    "unknown fields": b"unknown: x\n",
}


@pytest.mark.long
@pytest.mark.parametrize("piece", IDLE.values(), ids=IDLE)
def test_what_is_no_event_may_be_sent_for_ever_and_takes_no_memory(piece):
    script = stream(piece * (MIB // 4 // len(piece)), b"\ndata: after all\n\n", then="hold")
    with reading(script, max_event_size=1000) as (events, _), memory_below(MEMORY):
        assert messages(events)[0].data == "after all"


# --- Heads without end ---

OK = b"HTTP/1.1 200 OK\r\n"
INTERIM = b"HTTP/1.1 103 Early Hints\r\n%b\r\n"
HEADS = {
    "short fields": (OK, b"a: b\r\n"),
    "long fields": (OK, b"a: " + b"b" * 50_000 + b"\r\n"),
    "one field": (OK + b"a: ", b"b"),
    "one field, folded": (OK + b"a: b\r\n", b" b\r\n"),
    "a status line": (b"", b"x"),
    "100 after 100": (b"", b"HTTP/1.1 100 " + b"x" * 100 + b"\r\n\r\n"),
    "103 after 103": (b"", INTERIM % (b"Link: " + b"x" * 50_000 + b"\r\n")),
}


def assert_head_too_large(event):
    assert_final(event, HeadTooLarge)
    error = event.error
    assert error.limit < error.size <= error.limit + READ_SIZE
    assert error.limit <= MAX_HEAD_SIZE
    exceeds = f"a response head of at least {error.size} {error.unit} exceeds {error.limit}"
    assert str(error) == exceeds


@pytest.mark.long
@pytest.mark.parametrize(("start", "piece"), HEADS.values(), ids=HEADS)
def test_a_head_without_end_is_given_up_for_good(start, piece):
    script = without_end(start, in_pieces(piece))
    with reading(script, reconnect=QUICK) as (events, server):
        with memory_below(4 * MAX_HEAD_SIZE + MEMORY):
            (event,) = events
        assert_head_too_large(event)
        assert len(server.requests) == 1


@pytest.mark.parametrize("name", ["short fields", "one field", "100 after 100"])
def test_a_head_without_end_after_a_redirect_is_given_up_for_good(name):
    start, piece = HEADS[name]
    redirect = status("302 Found", "Location: /there")
    assert_head_too_large(only_error(redirect, without_end(start, in_pieces(piece))))


@pytest.mark.parametrize("name", ["short fields", "one field", "100 after 100", "a status line"])
def test_a_proxy_s_answer_without_end_ends_the_attempt(name):
    start, piece = HEADS[name]
    with ScriptedServer(without_end(start, in_pieces(piece))) as proxy:
        with (
            memory_below(4 * MAX_HEAD_SIZE + MEMORY),
            EventStream("https://example.com/", proxies={"https": proxy.url}) as events,
        ):
            event = next(events)
    assert isinstance(event.error, requests.RequestException)
    assert len(str(event.error)) < TEXT


def test_a_head_without_end_on_the_caller_s_own_session_ends_with_an_error():
    with requests.Session() as session:
        event = only_error(without_end(*HEADS["one field"]), session=session)
    assert isinstance(event.error, requests.RequestException)


# --- Bodies without end that are no event stream ---

BODIES = {
    "until the connection ends": (b"\r\n", b"x" * READ_SIZE),
    "with a length": (b"Content-Length: 999999999999\r\n\r\n", b"x" * READ_SIZE),
    "in chunks": (b"Transfer-Encoding: chunked\r\n\r\n", in_chunks(b"x" * READ_SIZE, 1000)),
    "in a chunk": (b"Transfer-Encoding: chunked\r\n\r\nffffffffff\r\n", b"x" * READ_SIZE),
    "compressed": (
        b"Content-Encoding: gzip\r\nContent-Length: 999999999999\r\n\r\n",
        gzip.compress(b"x" * 8 * MIB),
    ),
}

whatever_the_body = pytest.mark.parametrize(("rest", "piece"), BODIES.values(), ids=BODIES)


@whatever_the_body
def test_a_redirect_whose_body_does_not_end_is_followed(rest, piece):
    start = b"HTTP/1.1 302 Found\r\nLocation: /there\r\n" + rest
    with reading(without_end(start, piece), stream(b"data: there\n\n")) as (events, server):
        with memory_below(MEMORY):
            assert messages(events)[0].data == "there"
        assert [request.target for request in server.requests] == ["/", "/there"]


def test_redirects_without_end_fail_the_attempt_and_are_tried_again():
    def further(connection):
        with contextlib.suppress(ConnectionError):
            while True:
                target = connection.read_request().target
                connection.send(
                    b"HTTP/1.1 302 Found\r\nLocation: %b1\r\nContent-Length: 0\r\n\r\n"
                    % target.encode()
                )

    with reading(further, reconnect=QUICK) as (events, server):
        for event in errors(events, 2):
            assert isinstance(event.error, requests.TooManyRedirects)
            assert event.retry_in is not None
            assert len(str(event.error)) < TEXT
    assert [len(request.target) for request in server.requests] == [*range(1, 32)] * 2


@whatever_the_body
def test_of_an_error_s_body_without_end_a_little_is_read(rest, piece):
    start = b"HTTP/1.1 404 Not Found\r\n" + rest
    event = only_error(without_end(start, piece), memory=MEMORY)
    assert_final(event, UnexpectedStatus)
    assert len(event.error.response.content) <= ERROR_BODY_SIZE


@whatever_the_body
def test_of_a_body_of_another_type_nothing_is_read(rest, piece):
    start = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n" + rest
    event = only_error(without_end(start, piece), memory=MEMORY)
    assert_final(event, UnexpectedContentType)


CHALLENGE = (
    b'HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Digest realm="r", nonce="n", qop="auth"\r\n'
)
CREDENTIALS = HTTPDigestAuth("user", "word")


@whatever_the_body
def test_a_challenge_whose_body_does_not_end_is_answered(rest, piece):
    scripts = [without_end(CHALLENGE + rest, piece), stream(b"data: in\n\n")]
    with reading(*scripts, auth=CREDENTIALS) as (events, server):
        with memory_below(MEMORY):
            assert messages(events)[0].data == "in"
        assert server.requests[1].header("Authorization").startswith("Digest ")


def test_challenges_without_end_are_answered_once_an_attempt():
    script = respond(CHALLENGE + b"Connection: close\r\nContent-Length: 0\r\n\r\n")
    with reading(script, auth=CREDENTIALS) as (events, server):
        (event,) = events
        assert len(server.requests) == 2
    assert_final(event, UnexpectedStatus)


# --- Framing without end ---

AFTER_EVENT = CHUNKED + in_chunks(b"data: x\n\n", 100)
FRAMES = {
    "a chunk size": (AFTER_EVENT, b"1"),
    "a chunk size of zeros": (AFTER_EVENT, b"0"),
    "a chunk extension": (AFTER_EVENT + b"1;", b"x"),
    "what is no chunk size": (AFTER_EVENT, b"x"),
    "the last chunk's extension": (AFTER_EVENT + b"0;", b"x"),
}
TRAILERS = {
    "short ones": (AFTER_EVENT + b"0\r\n", b"a: " + b"b" * 100 + b"\r\n"),
    "long ones": (AFTER_EVENT + b"0\r\n", b"a: " + b"b" * 50_000 + b"\r\n"),
    "one": (AFTER_EVENT + b"0\r\na: ", b"b"),
    "after an extension": (AFTER_EVENT + b"0;x\r\n", b"a: " + b"b" * 100 + b"\r\n"),
}


@pytest.mark.parametrize(("start", "piece"), FRAMES.values(), ids=FRAMES)
def test_framing_without_end_ends_the_connection(start, piece):
    assert isinstance(lost_after_an_event(start, piece), requests.exceptions.ChunkedEncodingError)


@pytest.mark.parametrize(("start", "piece"), TRAILERS.values(), ids=TRAILERS)
def test_trailers_without_end_are_not_waited_for(start, piece):
    """The body is complete with its last chunk: they are not read."""
    assert isinstance(lost_after_an_event(start, piece), StreamEnded)


def lost_after_an_event(start, piece):
    """What ends a connection that goes on for ever after an event."""
    script = without_end(start, in_pieces(piece), total=2**50)  # that is truly without
    with reading(script) as (events, _), memory_below(MEMORY):
        opened, event, lost = next(events), next(events), next(events)
        assert isinstance(opened, OpenEvent)
        assert event.data == "x"
        assert len(str(lost.error)) < TEXT
        return lost.error


# --- Bombs ---


def gzip_bomb(data, repeated):
    """`data` and 1,000 MiB of what is `repeated`, as members one after another."""
    member = gzip.compress(repeated * (MIB // len(repeated)), mtime=0)
    return gzip.compress(data, mtime=0) + member * 1000


def deflate_bomb(data, repeated):
    """Likewise, as blocks of which none refers to another."""
    deflate = zlib.compressobj()
    start = deflate.compress(data) + deflate.flush(zlib.Z_FULL_FLUSH)
    block = deflate.compress(repeated * (MIB // len(repeated))) + deflate.flush(zlib.Z_FULL_FLUSH)
    return start + block * 1000


def brotli_bomb(data, repeated):
    import brotli

    compressor = brotli.Compressor(quality=5)
    parts = [compressor.process(data)]
    parts += [compressor.process(repeated * (MIB // len(repeated))) for _ in range(100)]
    return b"".join([*parts, compressor.finish()])


def zstd_bomb(data, repeated):
    from backports import zstd

    return zstd.compress(data) + zstd.compress(repeated * (MIB // len(repeated))) * 1000


needs_brotli = pytest.mark.skipif(not importlib.util.find_spec("brotli"), reason="needs brotli")
needs_zstd = pytest.mark.skipif(
    not importlib.util.find_spec("backports") or not importlib.util.find_spec("backports.zstd"),
    reason="needs backports.zstd",
)

every_bomb = pytest.mark.parametrize(
    ("coding", "bomb"),
    [
        ("gzip", gzip_bomb),
        ("deflate", deflate_bomb),
        pytest.param("br", brotli_bomb, marks=needs_brotli),
        pytest.param("zstd", zstd_bomb, marks=needs_zstd),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)


def exploding(coding, data, *, then="hold"):
    head = HEAD[:-2] + b"Content-Encoding: %b\r\n\r\n" % coding.encode()
    return respond(head + data, then=then)


@every_bomb
def test_a_bomb_that_is_one_event_is_given_up_at_the_bound(coding, bomb):
    script = exploding(coding, bomb(b"data: ", b"x"))
    with reading(script, max_event_size=BOUND) as (events, _), memory_below(3 * BOUND + MEMORY):
        assert_too_large(list(events))


@every_bomb
def test_a_bomb_of_comments_takes_no_memory(coding, bomb):
    script = exploding(coding, bomb(b"data: x\n\n", b":" + b"x" * 1022 + b"\n"))
    with reading(script, comments=True, max_event_size=2000) as (events, _), memory_below(MEMORY):
        for _ in range(3000):  # one by one: `take()` keeps them
            take(events, Comment)


NOTHING = {
    "members": ("gzip", b"", gzip.compress(b"", mtime=0), MIB // 16),
    "a member's name": ("gzip", b"\x1f\x8b\x08\x08\0\0\0\0\0\3", b"x", 8 * MIB),
    "blocks": ("deflate", b"\x78\x9c", b"\0\0\0\xff\xff", 3 * MIB),
}


@pytest.mark.parametrize(("coding", "start", "piece", "total"), NOTHING.values(), ids=NOTHING)
def test_compressed_nothing_without_end_takes_no_memory(coding, start, piece, total):
    script = exploding(coding, start + piece * (total // len(piece)), then="close")
    with reading(script, reconnect=None) as (events, _), memory_below(MEMORY):
        opened, ended = events
    assert isinstance(opened, OpenEvent)
    assert isinstance(ended.error, StreamEnded)


@pytest.mark.parametrize("depth", [2, 100])
def test_a_coding_over_a_coding_is_refused(depth):
    coding = ", ".join(["gzip"] * depth)
    script = exploding(coding, gzip.compress(gzip_bomb(b"", b"x"), mtime=0))
    with reading(script, reconnect=ONCE) as (events, _), memory_below(MEMORY):
        opened, refused = events
    assert isinstance(opened, OpenEvent)
    assert isinstance(refused.error, requests.exceptions.ContentDecodingError)


# --- Numbers without end ---


MANY = pytest.mark.parametrize("digits", [5, 400, 4301])  # a float has 308, `int()` takes 4300
BUSY = ReconnectPolicy(delay=1, statuses={503}, jitter=0.0)


@MANY
def test_a_retry_after_of_many_digits_is_an_hour(digits):
    event = only_error(status("503 Busy", f"Retry-After: {'9' * digits}"), reconnect=BUSY)
    assert event.retry_in == MAX_RECONNECTION_TIME


@pytest.mark.parametrize("field", ["Retry-After", "Date"])
@pytest.mark.parametrize(
    "value",
    [
        "Wed, 21 Oct " + "9" * 5000 + " 07:28:00 GMT",
        "Wed, " + "9" * 5000 + " Oct 2015 07:28:00 GMT",
        "Wed, 21 Oct 2015 " + "9" * 5000 + ":28:00 GMT",
        "Wed, 21 Oct 2015 07:28:00 +" + "9" * 5000,
        "Wed, 21 Oct 2015 07:28:00 +" + "9" * 400,
        "(" * 60_000,
        "," * 60_000,
        "-" + "9" * 5000,
    ],
    ids=["year", "day", "hour", "offset", "shorter offset", "comments", "commas", "negative"],
)
def test_a_date_without_end_does_no_harm(field, value):
    fields = {"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT", field: value}
    head = [f"{name}: {text}" for name, text in fields.items()]
    event = only_error(status("503 Busy", *head), reconnect=BUSY)
    assert isinstance(event.error, UnexpectedStatus)
    assert 1 <= event.retry_in <= MAX_RECONNECTION_TIME


@MANY
def test_a_reconnection_time_of_many_digits_is_an_hour(digits):
    script = stream(b"retry: ", b"9" * (digits + 3), b"\ndata: x\n\n")  # milliseconds
    with reading(script, reconnect=ReconnectPolicy(jitter=0.0)) as (events, server):
        assert errors(events)[0].retry_in == MAX_RECONNECTION_TIME
        assert events.reconnection_time == MAX_RECONNECTION_TIME
        with SSEClient(server.url) as client:
            assert next(client).retry == 1000 * MAX_RECONNECTION_TIME
            assert client.retry == 1000 * MAX_RECONNECTION_TIME


@pytest.mark.parametrize("length", ["9" * 30, "9" * 4301, "-5", "-" + "9" * 5000, "many", "1_0"])
def test_a_length_that_makes_no_sense_does_not_end_the_stream(length):
    head = HEAD[:-2] + b"Content-Length: %b\r\n\r\n" % length.encode()
    with reading(respond(head + b"data: x\n\n"), reconnect=QUICK) as (events, _):
        assert messages(events)[0].data == "x"
        (lost,) = errors(events)
    assert isinstance(lost.error, StreamEnded | requests.exceptions.ChunkedEncodingError)
    assert lost.retry_in is not None
    assert len(str(lost.error)) < TEXT


# --- Texts and tables ---

LONG = b"x" * 60_000
LONG_ANSWERS = {
    "a reason phrase": b"HTTP/1.1 404 " + LONG + b"\r\nContent-Length: 0\r\n\r\n",
    "a content type": OK + b"Content-Type: text/" + LONG + b"\r\n\r\n",
    "two lengths": OK + b"Content-Length: 1, 2" + b", 3" * 20_000 + b"\r\n\r\n",
    "a place of another scheme": b"HTTP/1.1 302 Found\r\nLocation: " + LONG + b":x\r\n\r\n",
    "a place that is no URL": b"HTTP/1.1 302 Found\r\nLocation: http://[" + LONG + b"\r\n\r\n",
    "a port": b"HTTP/1.1 302 Found\r\nLocation: http://x:" + LONG + b"/\r\n\r\n",
    "a name": b"HTTP/1.1 302 Found\r\nLocation: http://" + LONG + b"/\r\n\r\n",
    "codings": HEAD[:-2] + b"Content-Encoding: " + b"gzip, " * 9999 + b"gzip\r\n\r\nxxxxxxxx",
}
"""`test_no_server_can_fill_the_log` has other places."""


@pytest.mark.parametrize("answer", LONG_ANSWERS.values(), ids=LONG_ANSWERS)
def test_what_a_server_says_at_length_is_not_repeated_at_length(answer, caplog):
    caplog.set_level(logging.DEBUG, "eventsource")
    with reading(respond(answer), reconnect=QUICK) as (events, _):
        (event,) = errors(events)
    assert isinstance(event.error, requests.RequestException)
    assert len(str(event.error)) < TEXT
    assert len(repr(event)) < 2 * TEXT
    assert_brief(caplog)


def assert_brief(caplog):
    lines = [entry.getMessage() for entry in caplog.records if entry.name.startswith("eventsource")]
    assert lines
    assert max(map(len, lines)) < 2 * TEXT


def test_a_long_url_of_the_server_s_is_not_logged_at_length(caplog):
    caplog.set_level(logging.DEBUG, "eventsource")
    redirect = status("302 Found", f"Location: /{LONG.decode()}")
    with reading(redirect, stream(b"data: x\n\n")) as (events, _):
        messages(events)
    assert_brief(caplog)


@pytest.mark.long
def test_cookies_without_end_do_not_fill_the_jar():
    def script(connection):
        connection.read_request()
        number = connection.number
        fields = b"".join(
            b"Set-Cookie: c%d-%d=%b\r\n" % (number, n, b"x" * 1000) for n in range(90)
        )
        connection.send(HEAD[:-2] + fields + b"\r\ndata: %d\n\n" % number)

    with reading(script, reconnect=QUICK) as (events, server):
        messages(events, 15)
        cookies = server.requests[-1].header("Cookie")
    assert "c13-89=" in cookies
    assert len(cookies) < 512 * 1024


# --- Work ---


def work(run):
    """How many functions were called meanwhile, C's too, by this thread."""
    calls = 0

    def count(frame, event, argument):
        nonlocal calls
        calls += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        run()
    finally:
        sys.setprofile(None)
    return calls


BYTE_BY_BYTE = {
    "a line": lambda n: HEAD + b"data: " + b"x" * n,
    "lines": lambda n: HEAD + b"data: x\n" * (n // 8),
    "comments": lambda n: HEAD + b":\n" * (n // 2),
    "events": lambda n: HEAD + b"data: x\n\n" * (n // 9),
    "chunks of a byte": lambda n: CHUNKED + in_chunks(b":" + b"x" * (n // 6), 1),
    "one chunk": lambda n: CHUNKED + in_chunks(b":" + b"x" * n, n + 1),
    "a chunk extension": lambda n: CHUNKED + b"1;" + b"x" * n + b"\r\n:\r\n",
    "a field": lambda n: HEAD[:-2] + b"a: " + b"x" * n + b"\r\n\r\n",
    "fields": lambda n: (
        HEAD[:-2] + b"".join(b"a: %b\r\n" % (b"x" * (n // 90)) for _ in range(90)) + b"\r\n"
    ),
    "interim responses": lambda n: b"HTTP/1.1 100 \r\n\r\n" * (n // 17) + HEAD,
    "trailers": lambda n: CHUNKED + b"0\r\n" + b"a: b\r\n" * (n // 6) + b"\r\n",
}


@pytest.mark.long
@pytest.mark.parametrize("answer", BYTE_BY_BYTE.values(), ids=BYTE_BY_BYTE)
def test_what_comes_byte_by_byte_costs_no_more_the_more_it_is(answer):
    def read(size):
        wire = Wire([bytes([byte]) for byte in answer(size)])
        with connections([wire]), EventStream("http://host/", reconnect=None) as events:
            return work(lambda: list(events))

    read(100)
    calls = read(1000)
    assert calls > 1000  # else nothing has been counted
    assert read(4000) < 6 * calls
