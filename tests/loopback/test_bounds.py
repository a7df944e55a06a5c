"""What a server sends without end, and how little the client holds of it."""

from __future__ import annotations

import contextlib
import gc
import gzip
import importlib.util
import logging
import ssl
import sys
import time
import tracemalloc
import zlib

import pytest
import requests
import trustme
from requests.auth import HTTPDigestAuth

from eventsource import (
    EventSource,
    EventStream,
    MessageEvent,
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
from eventsource.protocol import framing
from eventsource.protocol.events import Comment
from eventsource.protocol.policy import MAX_RECONNECTION_TIME
from eventsource.testing import ScriptedServer
from fuzz.wire import Wire, connections
from tests.support import CHUNKED, HEAD, LIMIT, QUICK, errors, messages, record, respond, stream

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


def only_error(server, **options):
    """What a stream that does not open says, as its only item."""
    with EventStream(server.url, **{"reconnect": QUICK, **options}) as events:
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
    "CR after CR of data": (b"", b"data: x\r"),
    "type after type": (b"", b"event: x\n"),
    "id after id": (b"", b"id: x\n"),
    "a long id, and then data": (b"id: " + b"x" * (BOUND // 8) + b"\n", b"data: x\n"),
}

whatever_it_is = pytest.mark.parametrize(("start", "piece"), LINES.values(), ids=LINES)


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
@whatever_it_is
def test_an_event_without_end_is_given_up_for_good_at_the_bound(start, piece):
    bound = BOUND if len(piece) <= 4 else BOUND // 8  # many lines take their time
    with ScriptedServer(without_end(HEAD + start, in_pieces(piece))) as server:
        with (
            memory_below(2 * bound + MEMORY),
            EventStream(server.url, reconnect=QUICK, max_event_size=bound) as events,
        ):
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
    whole = framing(b"data: " + unit * (2 * bound // len(unit)))
    with ScriptedServer(respond(CHUNKED + whole)) as server:
        with (
            memory_below(3 * bound + MEMORY),
            EventStream(server.url, reconnect=QUICK, max_event_size=bound) as events,
        ):
            assert_too_large(list(events), bound)


def test_the_bound_holds_over_tls(tmp_path):
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    script = without_end(HEAD + b"data: ", b"x" * READ_SIZE)
    with ScriptedServer(script, ssl_context=context) as server:
        with (
            memory_below(3 * BOUND + MEMORY),
            EventStream(
                server.url, max_event_size=BOUND, verify=str(tmp_path / "ca.pem")
            ) as events,
        ):
            assert_too_large(list(events))


def test_handlers_of_error_hear_of_an_event_without_end_and_the_source_is_closed():
    with ScriptedServer(without_end(HEAD + b"data: ", b"x" * READ_SIZE)) as server:
        with EventSource(server.url, max_event_size=BOUND, start=False) as source:
            heard = record(source)
            source.start()
            assert heard.next().type == "open"
            assert_final(heard.next(), EventTooLarge)
            assert source.join(LIMIT)
            assert isinstance(source.error, EventTooLarge)
            assert source.ready_state is ReadyState.CLOSED


def test_an_event_of_exactly_the_bound_is_none_too_large():
    line = b"data: " + b"x" * (BOUND - 6)
    with ScriptedServer(stream(line, b"\n\n")) as server:
        with EventStream(server.url, max_event_size=BOUND) as events:
            (event,) = messages(events)
    assert len(event.data) == BOUND - 6


# --- What is no event, and may go on for ever ---

IDLE = {
    "comments": b":\n",
    "comments with text": b": still here\n",
    "blank lines": b"\n",
    "CRLFs": b"\r\n",
    "types without data": b"event: x\n\n",
    "ids without data": b"id: 1\n\n",
    "reconnection times": b"retry: 1000\n",
    "unknown fields": b"unknown: x\n",
}


@pytest.mark.long
@pytest.mark.parametrize("piece", IDLE.values(), ids=IDLE)
def test_what_is_no_event_may_be_sent_for_ever_and_takes_no_memory(piece):
    bound = 1000
    with ScriptedServer(
        stream(piece * (MIB // 4 // len(piece)), b"\ndata: after all\n\n", then="hold")
    ) as server:
        with memory_below(MEMORY), EventStream(server.url, max_event_size=bound) as events:
            (event,) = messages(events)
    assert event.data == "after all"


@pytest.mark.long
def test_comments_without_end_reach_on_comment_and_take_no_memory():
    count = 30_000
    heard = 0

    def count_comment(event):
        nonlocal heard
        heard += 1

    with ScriptedServer(stream(b":\n" * count, b"data: after all\n\n", then="hold")) as server:
        with memory_below(3 * MEMORY):
            with EventSource(
                server.url, on_comment=count_comment, max_event_size=100, start=False
            ) as source:
                recorder = record(source)
                source.start()
                assert recorder.next_of(MessageEvent).data == "after all"
    assert heard == count


def test_ever_new_event_types_fill_no_table():
    count = 5000
    body = b"".join(b"event: type-%d\ndata: x\n\n" % n for n in range(count))
    with ScriptedServer(stream(body, b"event: last\ndata: x\n\n", then="hold")) as server:
        with EventSource(server.url, start=False) as source:
            recorder = record(source, "last")
            names = set(source.event_names())
            source.start()
            assert recorder.next_of(MessageEvent).type == "last"
            assert set(source.event_names()) == names


def test_ever_new_chunk_sizes_fill_no_table():
    count = 3 * framing.MAX_KNOWN_FRAMES
    chunks = b"".join(b"%0*x\r\n:\n\r\n" % (n % 9 + 1, 2) for n in range(count))
    sizes = b"".join(b"%x\r\n%b\n\r\n" % (n + 2, b":" * (n + 1)) for n in range(5000))
    with ScriptedServer(
        respond(CHUNKED + chunks + sizes + b"9\r\ndata: x\n\n\r\n0\r\n\r\n")
    ) as server:
        with EventStream(server.url) as events:
            messages(events)
    assert len(framing.KNOWN_FRAMES) <= framing.MAX_KNOWN_FRAMES


# --- Heads without end ---

OK = b"HTTP/1.1 200 OK\r\n"
INTERIM = b"HTTP/1.1 103 Early Hints\r\n%b\r\n"
HEADS = {
    "short fields": (OK, b"a: b\r\n"),
    "long fields": (OK, b"a: " + b"b" * 50_000 + b"\r\n"),
    "one field": (OK + b"a: ", b"b"),
    "one field, folded": (OK + b"a: b\r\n", b" b\r\n"),
    "a field's name": (OK, b"a"),
    "a status line": (b"", b"x"),
    "a status": (b"HTTP/1.1 ", b"2"),
    "a reason phrase": (b"HTTP/1.1 200 ", b"x"),
    "100 after 100": (b"", b"HTTP/1.1 100 " + b"x" * 100 + b"\r\n\r\n"),
    "103 after 103": (b"", INTERIM % (b"Link: " + b"x" * 500 + b"\r\n")),
    "103 after 103, long ones": (b"", INTERIM % (b"Link: " + b"x" * 50_000 + b"\r\n")),
}

whatever_the_head = pytest.mark.parametrize(("start", "piece"), HEADS.values(), ids=HEADS)


def assert_head_too_large(event):
    assert_final(event, HeadTooLarge)
    error = event.error
    assert error.size > error.limit
    assert (
        str(error) == f"a response head of at least {error.size} {error.unit} exceeds {error.limit}"
    )
    assert error.limit <= MAX_HEAD_SIZE
    assert error.size <= error.limit + READ_SIZE


@pytest.mark.long
@whatever_the_head
def test_a_head_without_end_is_given_up_for_good(start, piece):
    with ScriptedServer(without_end(start, in_pieces(piece))) as server:
        with memory_below(4 * MAX_HEAD_SIZE + MEMORY):
            assert_head_too_large(only_error(server))
        assert len(server.requests) == 1


@pytest.mark.parametrize("name", ["short fields", "one field", "100 after 100"])
def test_a_head_without_end_after_a_redirect_is_given_up_for_good(name):
    start, piece = HEADS[name]
    with ScriptedServer(
        respond(b"HTTP/1.1 302 Found\r\nLocation: /there\r\nContent-Length: 0\r\n\r\n"),
        without_end(start, in_pieces(piece)),
    ) as server:
        assert_head_too_large(only_error(server))


@pytest.mark.parametrize("name", ["short fields", "one field", "100 after 100", "a status line"])
def test_a_proxy_s_answer_without_end_ends_the_attempt(name):
    start, piece = HEADS[name]
    with ScriptedServer(without_end(start, in_pieces(piece))) as proxy:
        with memory_below(4 * MAX_HEAD_SIZE + MEMORY):
            with EventStream(
                "https://example.com/", proxies={"https": proxy.url}, reconnect=QUICK
            ) as events:
                event = next(events)
    assert isinstance(event.error, requests.RequestException)
    assert len(str(event.error)) < TEXT


def test_a_head_without_end_on_the_caller_s_own_session_ends_with_an_error():
    with requests.Session() as session:
        with ScriptedServer(without_end(*HEADS["one field"])) as server:
            event = only_error(server, session=session)
    assert isinstance(event.error, requests.RequestException)


def test_a_head_with_a_hundred_thousand_fields_is_refused_for_good():
    fields = b"".join(b"X-%d: x\r\n" % n for n in range(100_000))
    with ScriptedServer(respond(OK + fields + b"\r\n")) as server:
        assert_head_too_large(only_error(server))


def test_a_redirect_to_a_megabyte_is_refused_for_good():
    with ScriptedServer(
        respond(b"HTTP/1.1 302 Found\r\nLocation: /" + b"x" * MIB + b"\r\n\r\n")
    ) as server:
        assert_head_too_large(only_error(server))
        assert len(server.requests) == 1


def test_a_head_that_is_large_but_not_too_large_opens():
    fields = b"".join(b"X-%d: %b\r\n" % (n, b"x" * 2500) for n in range(90))
    with ScriptedServer(respond(HEAD[:-2] + fields + b"\r\ndata: x\n\n")) as server:
        with EventStream(server.url) as events:
            assert len(next(events).headers) == 91
            assert messages(events)


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
    with ScriptedServer(without_end(start, piece), stream(b"data: there\n\n")) as server:
        with memory_below(MEMORY), EventStream(server.url) as events:
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

    with ScriptedServer(further) as server:
        with EventStream(server.url, reconnect=QUICK) as events:
            for event in errors(events, 2):
                assert isinstance(event.error, requests.TooManyRedirects)
                assert event.retry_in is not None
                assert len(str(event.error)) < TEXT
    assert [len(request.target) for request in server.requests] == [*range(1, 32)] * 2


@whatever_the_body
def test_of_an_error_s_body_without_end_a_little_is_read(rest, piece):
    with ScriptedServer(without_end(b"HTTP/1.1 404 Not Found\r\n" + rest, piece)) as server:
        with memory_below(MEMORY):
            event = only_error(server)
    assert_final(event, UnexpectedStatus)
    assert len(event.error.response.content) <= ERROR_BODY_SIZE


@whatever_the_body
def test_of_a_body_of_another_type_nothing_is_read(rest, piece):
    start = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n" + rest
    with ScriptedServer(without_end(start, piece)) as server:
        with memory_below(MEMORY):
            event = only_error(server)
    assert_final(event, UnexpectedContentType)


@whatever_the_body
def test_a_challenge_whose_body_does_not_end_is_answered(rest, piece):
    start = (
        b"HTTP/1.1 401 Unauthorized\r\n"
        b'WWW-Authenticate: Digest realm="r", nonce="n", qop="auth"\r\n' + rest
    )
    with ScriptedServer(without_end(start, piece), stream(b"data: in\n\n")) as server:
        with (
            memory_below(MEMORY),
            EventStream(server.url, auth=HTTPDigestAuth("user", "word")) as events,
        ):
            assert messages(events)[0].data == "in"
        assert server.requests[1].header("Authorization").startswith("Digest ")


def test_challenges_without_end_are_answered_once_an_attempt():
    start = (
        b"HTTP/1.1 401 Unauthorized\r\n"
        b'WWW-Authenticate: Digest realm="r", nonce="n", qop="auth"\r\n'
        b"Connection: close\r\nContent-Length: 0\r\n\r\n"
    )
    with ScriptedServer(respond(start)) as server:
        event = only_error(server, auth=HTTPDigestAuth("user", "word"))
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
    with ScriptedServer(forever(start, in_pieces(piece))) as server:
        with memory_below(MEMORY), EventStream(server.url, reconnect=QUICK) as events:
            opened, event, lost = next(events), next(events), next(events)
            assert isinstance(opened, OpenEvent)
            assert event.data == "x"
            assert len(str(lost.error)) < TEXT
            return lost.error


def forever(start, piece):
    """Like `without_end`, and that truly: until the client goes."""

    def script(connection):
        connection.read_request()
        connection.send(start)
        while True:
            connection.send(piece)

    return script


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


def nested(depth):
    def bomb(data, repeated):
        outside = gzip_bomb(data, repeated)
        for _ in range(depth - 1):
            outside = gzip.compress(outside, mtime=0)
        return outside

    return bomb


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
    with ScriptedServer(exploding(coding, bomb(b"data: ", b"x"))) as server:
        with (
            memory_below(3 * BOUND + MEMORY),
            EventStream(
                server.url, headers={"Accept-Encoding": coding}, max_event_size=BOUND
            ) as events,
        ):
            assert_too_large(list(events))


@every_bomb
def test_a_bomb_of_events_is_unpacked_as_they_are_taken(coding, bomb):
    event = b"data: " + b"x" * 1016 + b"\n\n"
    with ScriptedServer(exploding(coding, bomb(b":\n", event))) as server:
        with (
            memory_below(MEMORY),
            EventStream(server.url, headers={"Accept-Encoding": coding}) as events,
        ):
            for _ in range(3000):
                while not isinstance(event := next(events), MessageEvent):
                    pass
                assert len(event.data) == 1016


@every_bomb
def test_a_bomb_of_comments_takes_no_memory(coding, bomb):
    count = 3000
    with ScriptedServer(
        exploding(coding, bomb(b"data: x\n\n", b":" + b"x" * 1022 + b"\n"))
    ) as server:
        with (
            memory_below(MEMORY),
            EventStream(
                server.url, headers={"Accept-Encoding": coding}, comments=True, max_event_size=2000
            ) as events,
        ):
            for _ in range(count):
                while not isinstance(next(events), Comment):
                    pass


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_a_bomb_that_was_not_asked_for_does_no_more_harm(coding):
    bomb = {"gzip": gzip_bomb, "deflate": deflate_bomb}[coding]
    with ScriptedServer(exploding(coding, bomb(b"data: ", b"x"))) as server:
        with (
            memory_below(3 * BOUND + MEMORY),
            EventStream(server.url, max_event_size=BOUND) as events,
        ):
            assert_too_large(list(events))
        assert server.requests[0].header("Accept-Encoding") == "identity"


CODINGS_OVER_CODINGS = pytest.mark.parametrize("depth", [2, 3, 5])
REFUSED_OR_TOO_LARGE = (requests.exceptions.ContentDecodingError, EventTooLarge)


@CODINGS_OVER_CODINGS
def test_a_bomb_in_a_bomb_that_is_one_event_takes_no_more_memory(depth):
    coding = ", ".join(["gzip"] * depth)
    with ScriptedServer(exploding(coding, nested(depth)(b"data: ", b"x"))) as server:
        with (
            memory_below(3 * BOUND + MEMORY),
            EventStream(server.url, max_event_size=BOUND, reconnect=ONCE) as events,
        ):
            *_, last = events
    assert isinstance(last.error, REFUSED_OR_TOO_LARGE)


@CODINGS_OVER_CODINGS
def test_a_bomb_in_a_bomb_of_comments_takes_no_memory(depth):
    coding = ", ".join(["gzip"] * depth)
    bomb = nested(depth)(b"data: x\n\n", b":" + b"x" * 1022 + b"\n")
    with ScriptedServer(exploding(coding, bomb)) as server:
        with memory_below(MEMORY), EventStream(server.url, comments=True, reconnect=ONCE) as events:
            for taken, item in enumerate(events):
                if taken > 6000 or item.type == "error":
                    break
    assert isinstance(item, Comment) or isinstance(item.error, REFUSED_OR_TOO_LARGE)


NOTHING = {
    "members": ("gzip", b"", gzip.compress(b"", mtime=0), MIB // 4),
    "a member's name": ("gzip", b"\x1f\x8b\x08\x08\0\0\0\0\0\3", b"x", 8 * MIB),
    "blocks": ("deflate", b"\x78\x9c", b"\0\0\0\xff\xff", 3 * MIB),
    "raw blocks": ("deflate", b"", b"\0\0\0\xff\xff", 3 * MIB),
}


@pytest.mark.parametrize(("coding", "start", "piece", "total"), NOTHING.values(), ids=NOTHING)
def test_compressed_nothing_without_end_takes_no_memory(coding, start, piece, total):
    data = start + piece * (total // len(piece))
    with ScriptedServer(exploding(coding, data, then="close")) as server:
        with memory_below(MEMORY), EventStream(server.url, reconnect=None) as events:
            opened, ended = events
    assert isinstance(opened, OpenEvent)
    assert isinstance(ended.error, StreamEnded)


def test_a_hundred_codings_are_refused():
    coding = ", ".join(["gzip"] * 100)
    with ScriptedServer(exploding(coding, gzip_bomb(b"", b"x"))) as server:
        with memory_below(MEMORY), EventStream(server.url, reconnect=ONCE) as events:
            opened, refused = events
    assert isinstance(opened, OpenEvent)
    assert isinstance(refused.error, requests.exceptions.ContentDecodingError)


# --- Numbers without end ---


@pytest.mark.parametrize("digits", [1, 400, 4300, 4301, 60_000])
def test_a_retry_after_of_many_digits_is_an_hour(digits):
    with ScriptedServer(
        respond(
            b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\nRetry-After: %b\r\n\r\n"
            % (b"9" * max(digits, 5))
        )
    ) as server:
        event = only_error(server, reconnect=ReconnectPolicy(statuses=frozenset([503]), jitter=0.0))
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
    head = "".join(f"{name}: {text}\r\n" for name, text in fields.items())
    with ScriptedServer(
        respond(f"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n{head}\r\n".encode())
    ) as server:
        event = only_error(
            server, reconnect=ReconnectPolicy(delay=1, statuses=frozenset([503]), jitter=0.0)
        )
    assert isinstance(event.error, UnexpectedStatus)
    assert 1 <= event.retry_in <= MAX_RECONNECTION_TIME


@pytest.mark.parametrize("digits", [400, 4300, 4301, 60_000])
def test_a_reconnection_time_of_many_digits_is_an_hour(digits):
    with ScriptedServer(stream(b"retry: ", b"9" * digits, b"\ndata: x\n\n")) as server:
        with EventStream(server.url, reconnect=ReconnectPolicy(jitter=0.0)) as events:
            assert errors(events)[0].retry_in == MAX_RECONNECTION_TIME
            assert events.reconnection_time == MAX_RECONNECTION_TIME
        with SSEClient(server.url) as client:
            assert next(client).retry == 1000 * MAX_RECONNECTION_TIME
            assert client.retry == 1000 * MAX_RECONNECTION_TIME


@pytest.mark.parametrize(
    "length",
    [
        "9" * 400,
        "9" * 4300,
        "9" * 4301,
        "9" * 60_000,
        "-5",
        "-" + "9" * 5000,
        "many",
        "0x10",
        "1_0",
    ],
    ids=lambda length: length[:5] + str(len(length)),
)
def test_a_length_that_makes_no_sense_does_not_end_the_stream(length):
    head = HEAD[:-2] + b"Content-Length: %b\r\n\r\n" % length.encode()
    with ScriptedServer(respond(head + b"data: x\n\n")) as server:
        with EventStream(server.url, reconnect=QUICK) as events:
            assert messages(events)[0].data == "x"
            (lost,) = errors(events)
    assert isinstance(lost.error, StreamEnded | requests.exceptions.ChunkedEncodingError)
    assert lost.retry_in is not None
    assert len(str(lost.error)) < TEXT


@pytest.mark.parametrize(
    "size", [b"-5", b"+9", b"0x9", b"0_9", b"f" * 60_000], ids=lambda size: size[:4].decode()
)
def test_a_chunk_size_that_makes_no_sense_does_not_keep_the_reader(size):
    with ScriptedServer(respond(CHUNKED + size + b"\r\ndata: x\n\n\r\n")) as server:
        with EventStream(server.url, reconnect=QUICK) as events:
            (lost,) = errors(events)
    assert isinstance(lost.error, StreamEnded | requests.exceptions.ChunkedEncodingError)
    assert len(str(lost.error)) < TEXT


@pytest.mark.parametrize("code", [b"99999", b"-1", b"0", b"2" * 5000, b"99", b"1000"])
def test_a_status_out_of_range_fails_the_attempt(code):
    with ScriptedServer(
        respond(b"HTTP/1.1 " + code + b" x\r\nContent-Length: 0\r\n\r\n")
    ) as server:
        event = only_error(server)
    assert isinstance(event.error, requests.ConnectionError)
    assert event.retry_in is not None
    assert len(str(event.error)) < TEXT


# --- Texts and tables ---

LONG = b"x" * 60_000
LONG_ANSWERS = {
    "a reason phrase": b"HTTP/1.1 404 " + LONG + b"\r\nContent-Length: 0\r\n\r\n",
    "a content type": OK + b"Content-Type: text/" + LONG + b"\r\n\r\n",
    "a status line": LONG + b"\r\n\r\n",
    "a version": b"HTTP/2" + LONG + b" 200 OK\r\n\r\n",
    "digits for a status line": b"1a" * 30_000 + b"\r\n\r\n",
    "two lengths": OK + b"Content-Length: 1, 2" + b", 3" * 20_000 + b"\r\n\r\n",
    "a place of another scheme": b"HTTP/1.1 302 Found\r\nLocation: " + LONG + b":x\r\n\r\n",
    "a place that is no URL": b"HTTP/1.1 302 Found\r\nLocation: http://[" + LONG + b"\r\n\r\n",
    "a port": b"HTTP/1.1 302 Found\r\nLocation: http://x:" + LONG + b"/\r\n\r\n",
    "a name": b"HTTP/1.1 302 Found\r\nLocation: http://" + LONG + b"/\r\n\r\n",
    "a chunk size": CHUNKED + LONG + b"\r\n",
    "a coding": HEAD[:-2] + b"Content-Encoding: " + b"gzip, " * 9999 + b"gzip\r\n\r\nxxxxxxxx",
    "codings": HEAD[:-2] + b"Content-Encoding: gzip," + LONG + b"\r\n\r\nxxxxxxxx",
}


@pytest.mark.parametrize("answer", LONG_ANSWERS.values(), ids=LONG_ANSWERS)
def test_what_a_server_says_at_length_is_not_repeated_at_length(answer, caplog):
    caplog.set_level(logging.DEBUG, "eventsource")
    with ScriptedServer(respond(answer)) as server:
        with EventStream(server.url, reconnect=QUICK) as events:
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
    with ScriptedServer(
        respond(b"HTTP/1.1 302 Found\r\nLocation: /" + LONG + b"\r\nContent-Length: 0\r\n\r\n"),
        stream(b"data: x\n\n"),
    ) as server:
        with EventStream(server.url) as events:
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

    with ScriptedServer(script) as server:
        with EventStream(server.url, reconnect=QUICK) as events:
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


def processor_time(run):
    times = []
    for _ in range(2):
        started = time.thread_time()
        run()
        times.append(time.thread_time() - started)
    return min(times)


@pytest.mark.parametrize("unit", [b"x", b"1a", b"a:", b"http://", b"a@", b"a:/@"])
@pytest.mark.parametrize(
    "answer",
    [
        lambda text: text + b"\r\n\r\n",
        lambda text: b"HTTP/1.1 302 Found\r\nLocation: http://[" + text + b"\r\n\r\n",
        lambda text: OK + b"Content-Type: " + text + b"\r\n\r\n",
        lambda text: CHUNKED + text + b"\r\n",
    ],
    ids=["status line", "place", "content type", "chunk size"],
)
def test_to_put_a_failure_into_words_takes_time_in_proportion_at_the_most(answer, unit):
    def read(size):
        with ScriptedServer(respond(answer(unit * (size // len(unit))))) as server:
            with EventStream(server.url, reconnect=None) as events:
                return processor_time_of_last(events)

    def processor_time_of_last(events):
        started = time.thread_time()
        list(events)
        return time.thread_time() - started

    read(10)
    little = min(read(8000) for _ in range(2))
    much = min(read(32_000) for _ in range(2))
    assert much < 8 * max(little, 0.02)
