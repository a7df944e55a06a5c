"""A hostile server does no harm: by names, by ids, by text, by work to be done."""

from __future__ import annotations

import logging
import re
import sys
import threading
import time
import tracemalloc
from pathlib import Path

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st

from eventsource import (
    ErrorEvent,
    EventSource,
    EventStreamParser,
    MessageEvent,
    OpenEvent,
    ReconnectPolicy,
    SSEClient,
)
from eventsource.http.failures import describe
from eventsource.protocol.framing import ChunkedBody
from eventsource.testing import ScriptedServer
from eventsource.urls import MAX_TEXT, redact, redact_strictly, redact_text
from fuzz.targets import TARGETS
from tests.properties import examples
from tests.support import (
    HEAD,
    QUICK,
    Recorder,
    messages,
    reading,
    respond,
    status,
    stream,
)

ONCE = ReconnectPolicy(delay=0.02, jitter=0.0, max_attempts=1)

# --- What the fuzzer has found before ---

CORPUS = Path(__file__).parents[2] / "fuzz" / "corpus"


@pytest.mark.parametrize("target", TARGETS)
def test_every_input_that_the_fuzzer_starts_from_passes(target):
    files = sorted((CORPUS / target).iterdir())
    assert len(files) > 5
    for file in files:
        TARGETS[target](file.read_bytes())


# --- Names of events ---

NAMES = [
    *["__class__", "__init__", "__del__", "__dict__", "_events", "_deliver", "_lock", "_closed"],
    *["new_listener", "add_listener", "remove_listener", "remove_all_listeners", "emit", "on"],
    *["close", "restart", "start", "join", "stop", "comment", "onmessage", "onerror", "None"],
    *["{0.__class__}", "{}", "%s", "%(name)s", "%n%n", "${x}", "`id`", "\\", "'", '"'],
    *["\0", "a\0b", "\x1b[2J\x1b]0;x\x07", "\u202eevil", "\u2028", "\x85", "\ufeff", "\ufffd"],
    *[" leading", "trailing ", "\t", "é" * 3, "😀", "x" * 2**20],
]
"""Types that servers may name; `message`, `open` and `error` are on their own below."""
BROKEN = [b"\xed\xa0\x80", b"\xed\xb0\x80\xed\xa0\x80", b"\xff", b"\xc0\x80", b"\xf4\x90\x80\x80"]
"""Half surrogates, and what else is no UTF-8."""
RAW = [*[name.encode() for name in NAMES], *BROKEN]
TYPES = [raw.decode("utf-8", "replace") for raw in RAW]
STANDARD = ["message", "", "open", "error"]


def named(names):
    return b"".join(b"event: %b\ndata: %d\n\n" % (name, n) for n, name in enumerate(names))


@pytest.mark.parametrize("elsewhere", [False, True], ids=["reader", "dispatch"])
@pytest.mark.parametrize("way", ["on", "once"])
def test_an_event_of_any_name_reaches_the_listeners_of_that_name_and_nothing_else(
    way, elsewhere, caplog
):
    heard, new, last = [], [], Recorder()
    options = {"dispatch": lambda function: function()} if elsewhere else {}
    body = named([*RAW, *[name.encode() for name in STANDARD]]) * 2 + b"event: last\ndata\n\n"
    with ScriptedServer(stream(body, then="hold")) as server:
        with EventSource(server.url, start=False, **options) as source:
            source.on("new_listener", lambda *arguments: new.append(arguments))
            for name in {*TYPES, *STANDARD} - {"new_listener", ""}:
                getattr(source, way)(name, lambda event, name=name: heard.append((name, event)))
            source.on("last", last)
            source.start()
            last.next()
            assert source.error is None
    # It is pyee's own, which has told of each registration, and not the server's.
    assert {len(arguments) for arguments in new} == {2}
    opened, *others = heard
    assert opened[0] == "open"
    assert isinstance(opened[1], OpenEvent)
    expected = [*TYPES, "message", "message", "open", "error"]
    if way == "on":
        expected *= 2
    else:  # the `OpenEvent` has used up its listener, and each its own
        expected = list(dict.fromkeys([*TYPES, "message", "error"]))
    expected = [name for name in expected if name != "new_listener"]
    assert [(name, event.type, type(event)) for name, event in others] == [
        (name, name, MessageEvent) for name in expected
    ]
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


class Watched(EventSource):
    """Notes which attributes the reader thread asks it for."""

    asked = None

    def __getattribute__(self, name):
        asked = object.__getattribute__(self, "asked")
        if asked is not None and threading.current_thread().name.startswith("eventsource"):
            asked.add(name)
        return super().__getattribute__(name)

    def decoy(self, event):
        raise AssertionError


DECOYS = [b"decoy", b"Decoy", b"decoy()", b"self.decoy", b"asked", b"not_there", b"__missing__"]


@pytest.mark.parametrize("comments", [None, lambda text: None], ids=["no comments", "comments"])
def test_an_event_of_any_name_without_a_listener_reaches_no_attribute(comments, caplog):
    def asked_for(names):
        """The attributes that are asked for while such events, and a last one, are delivered."""
        asked, received = set(), Recorder()

        def last(event):
            source.asked = None
            received(event)

        body = named(names) + b"data: last\n\n"
        with ScriptedServer(stream(body, then="hold")) as server:
            with Watched(server.url, start=False, on_message=last, on_comment=comments) as source:
                source.asked = asked
                own = set(vars(source))
                source.start()
                assert received.next().data == "last"
                assert source.event_names() == {"message"}
                assert set(vars(source)) == own
                assert source.error is None
        return asked

    hostile = [*RAW, *DECOYS, b"open", b"error"]
    harmless = [b"n%d" % number for number in range(len(hostile))]
    assert asked_for(hostile) == asked_for(harmless)
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


@pytest.mark.long
def test_a_hundred_thousand_names_fill_no_table():
    count = 100_000
    received = Recorder()
    body = b"".join(b"event: t%d\ndata\n\n" % number for number in range(count))
    with ScriptedServer(stream(body, b"data: last\n\n", then="hold")) as server:
        with EventSource(server.url, start=False) as source:
            source.once("t7", received)
            source.on("message", received)
            source.on(f"t{count - 1}", received)
            tracemalloc.start()
            try:
                source.start()
                types = [received.next().type for _ in range(3)]
                memory, _ = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
            assert types == ["t7", f"t{count - 1}", "message"]
            assert source.event_names() == {"message", f"t{count - 1}"}
    # The names alone are 5 MB, what one read has brought is less than one.
    assert memory < 2_500_000


def test_the_drop_in_passes_any_name_on():
    names = [*RAW, b"", b"open", b"error", b"message"]
    with (
        ScriptedServer(stream(named(names), then="hold")) as server,
        SSEClient(server.url) as client,
    ):
        got = [next(client) for _ in names]
    assert [message.event for message in got] == [*TYPES, "message", "open", "error", "message"]
    assert [message.data for message in got] == [str(number) for number in range(len(names))]


class Delivering(EventSource):
    """Delivers by the same loop as from a server, but without one."""

    def deliver(self, events):
        for _ in self._deliver(events):
            pass


@examples(25)
@given(
    st.lists(
        st.sampled_from(NAMES[:-1])
        | st.text(st.characters(exclude_characters="\r\n", codec="utf-8"), max_size=9),
        min_size=1,
        max_size=8,
    ),
    st.data(),
)
def test_delivery_is_exact_whatever_the_names_and_listeners(names, data):
    wanted = data.draw(st.sets(st.sampled_from(names)))
    heard = []
    with Delivering("http://host/", start=False) as source:
        for name in wanted:
            if name != "new_listener":
                source.on(name, lambda event, name=name: heard.append((name, event.type)))
        events = EventStreamParser().feed(named(name.encode() for name in names))
        source.deliver(events)
    spaced = [event.type for event in events]
    expected = [name for name in spaced if name in wanted and name != "new_listener"]
    assert heard == [(name, name) for name in expected]


# --- Ids ---

IDS = [
    bytes(byte for byte in range(1, 256) if byte not in b"\r\n"),
    "\x85\u2028\u2029\x0b\x0c\x1c\x1d\x1e".encode(),
    b"1\x85X-Injected: 1",
    "1\u010d\u010aX-Injected: 1".encode(),  # a CR LF where characters are cut to bytes
    *[b"1" + broken for broken in BROKEN],
    b"  two spaces, and after it \t ",
    b"\t",
    b"%0d%0aX-Injected: 1",
    b"=?utf-8?q?=0d=0aX-Injected=3a_1?=",
    b"\x1b[2J\x07\x08\x7f",
    b"a" * 60_000,
]


def field_lines(sock):
    """The lines of a request's head, as they are on the wire."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        part = sock.recv(65536)
        assert part
        head += part
    assert head.count(b"\r\n\r\n") == 1
    return head[:-4].split(b"\r\n")


@pytest.mark.parametrize("comments", [False, True])
def test_an_id_comes_back_as_one_header_field_whatever_is_in_it(comments):
    requests_ = []

    def script(connection):
        requests_.append(field_lines(connection.sock))
        if connection.number < len(IDS):
            connection.send(HEAD + b"id: " + IDS[connection.number] + b"\ndata\n\n")
        else:
            connection.send(HEAD + b"data: last\n\n")

    with reading(script, reconnect=QUICK, comments=comments) as (source, _):
        assert messages(source, len(IDS) + 1)[-1].data == "last"
    first, *others = requests_
    assert not any(line.lower().startswith(b"last-event-id") for line in first)
    field = []
    for lines, raw in zip(others, IDS, strict=True):
        text = raw.decode("utf-8", "replace")
        if not re.search("[\x00-\x08\x0a-\x1f\x7f]", text) and len(text.encode()) <= 4096:
            field = [b"Last-Event-ID: " + text.encode()]
        assert lines == first + field
        assert not any(byte in b"\r\n\0" for line in lines for byte in line)


@pytest.mark.parametrize("bad", [b"1\0", b"\0", b"a\0\r\nid: 2\0"])
def test_an_id_with_nul_does_not_come_back(bad):
    with ScriptedServer(
        stream(b"id: good\ndata\n\nid: " + bad + b"\ndata\n\n"), stream(then="hold")
    ) as server:
        with EventSource(server.url, reconnect=QUICK, on_message=print):
            assert server.wait_for_request(2).header("Last-Event-ID") == "good"


@pytest.mark.parametrize("line", ["431 Request Header Fields Too Large", "400 Bad Request"])
def test_an_id_that_the_server_refuses_to_read_closes_for_good_and_is_not_sent_for_ever(line):
    refusal = status(line)
    first = stream(b"id: " + b"a" * 60_000 + b"\ndata\n\n")
    with reading(first, refusal, reconnect=QUICK) as (source, server):
        *_, last = source
        assert len(server.requests) == 2
    assert isinstance(last, ErrorEvent)
    assert last.retry_in is None
    assert last.error.status == int(line[:3])


# --- Text that is shown ---

ESCAPES = b"\x1b[2J\x1b]0;title\x07\x08\x7f\x9b2J\x00\r\x85\x0b\x1c \xe2\x80\xae"
HOSTILE_ANSWERS = {
    "a reason": b"HTTP/1.1 404 " + ESCAPES + b"\r\nContent-Length: 0\r\n\r\n",
    "a content type": b"HTTP/1.1 200 OK\r\nContent-Type: " + ESCAPES + b"\r\n\r\n",
    "two lengths": HEAD[:-2] + b"Content-Length: 1, " + ESCAPES + b"\r\n\r\n",
    "a location that is no URL": b"HTTP/1.1 302 \r\nLocation: http://[" + ESCAPES + b"\r\n\r\n",
    "a location's host": b"HTTP/1.1 302 \r\nLocation: http://a" + ESCAPES + b"/\r\n\r\n",
    "a location's scheme": b"HTTP/1.1 302 \r\nLocation: x:" + ESCAPES + b"\r\n\r\n",
    "what is no gzip": HEAD[:-2] + b"Content-Encoding: gzip\r\n\r\n" + ESCAPES,
}
"""`test_no_server_can_forge_a_log_line_or_send_orders_to_a_terminal` has other places."""


@pytest.mark.parametrize("wire", HOSTILE_ANSWERS.values(), ids=HOSTILE_ANSWERS)
def test_what_is_logged_and_told_of_a_server_holds_no_control_characters(wire, caplog):
    with caplog.at_level(logging.DEBUG, "eventsource"), ScriptedServer(respond(wire)) as server:
        with EventSource(server.url, reconnect=ONCE, start=False) as source:
            source.on("message", print)
            source.start()
            assert source.join(30)
            error = source.error
    assert isinstance(error, requests.RequestException)
    ours = [record.getMessage() for record in caplog.records if record.name.startswith("events")]
    assert any("closed for good" in text for text in ours)
    for text in [*ours, str(error)]:
        assert text.isprintable(), text


def test_comments_names_and_data_are_never_logged(caplog):
    body = b": S_CRET\nevent: x S_CRET\nid: S_CRET\ndata: S_CRET\nS_CRET: S_CRET\n\n"
    comments, received = Recorder(), Recorder()
    with caplog.at_level(logging.DEBUG, "eventsource"):
        with ScriptedServer(stream(body, b"data: last\n\n", then="hold")) as server:
            with EventSource(server.url, on_message=received, on_comment=comments) as source:
                assert received.next().data == "last"
                assert [comments.next()] == ["S_CRET"]
                assert "S_CRET" not in repr(source)
    assert "S_CRET" not in caplog.text


# --- Heads that are odd ---

EVENT = b"data: x\n\n"
ONE_CHUNK = b"9\r\n" + EVENT + b"\r\n0\r\n\r\n"


def head(*lines, first=b"HTTP/1.1 200 OK", end=b"\r\n"):
    return end.join([first, *lines, b"", b""])


def redirect(location):
    return head(b"Location: " + location, b"Content-Length: 0", first=b"HTTP/1.1 302 ")


TYPE = b"Content-Type: text/event-stream"
HTML = b"Content-Type: text/html"
NINE = b"Content-Length: 9"
CHUNKS = b"Transfer-Encoding: chunked"
GZIP_CHUNKS = b"Transfer-Encoding: gzip, chunked"
COOKIE = b"Set-Cookie: a=b; expires=1 Nov %b"
ODD_COOKIE = b"Set-Cookie: \xff=\x01; expires=\0; max-age=-9; domain=..; path=\\"
ODD_HEADS = {
    # What is sent, and what it is: an open stream with its event, or a failure.
    "the same length twice": (head(TYPE, NINE, NINE) + EVENT, "x"),
    "two lengths": (head(TYPE, NINE, b"Content-Length: 4") + EVENT, "InvalidHeader"),
    "a length and chunks": (head(CHUNKS, b"Content-Length: 3", TYPE) + ONE_CHUNK, "x"),
    "a coding that is none": (head(TYPE, b"Transfer-Encoding: xchunked") + EVENT, "x"),
    "no HTTP": (EVENT, "ConnectionError"),
    "version 0.9": (head(TYPE, first=b"HTTP/0.9 200 OK") + EVENT, "x"),
    "version 2": (head(TYPE, first=b"HTTP/2 200 OK") + EVENT, "ConnectionError"),
    "status 099": (head(TYPE, first=b"HTTP/1.1 099 OK") + EVENT, "ConnectionError"),
    "a negative status": (head(TYPE, first=b"HTTP/1.1 -200 OK") + EVENT, "ConnectionError"),
    "status 999": (head(TYPE, first=b"HTTP/1.1 999 OK") + EVENT, "UnexpectedStatus"),
    "no reason": (head(TYPE, first=b"HTTP/1.1 200") + EVENT, "x"),
    "bare line feeds": (head(TYPE, end=b"\n") + EVENT, "x"),
    "a folded field": (head(b"Content-Type:", b"\ttext/event-stream") + EVENT, "x"),
    "a NUL in a field": (head(b"X: a\0b", TYPE) + EVENT, "x"),
    "a NUL in the type": (head(TYPE + b"\0") + EVENT, "UnexpectedContentType"),
    "a CR in a field": (head(TYPE, b"X: a\r" + TYPE + b"x") + EVENT, "UnexpectedContentType"),
    "two types": (head(TYPE, TYPE) + EVENT, "x"),
    "another type, and then ours": (head(HTML, TYPE) + EVENT, "x"),
    "ours, and then another type": (head(TYPE, HTML) + EVENT, "UnexpectedContentType"),
    "a comma in a parameter": (head(TYPE + b'; x="a, text/html"') + EVENT, "x"),
    "chunks of another coding": (head(TYPE, GZIP_CHUNKS) + ONE_CHUNK, "BrokenBody"),
    "a line without a colon": (head(TYPE, b"no colon", b"X: y") + EVENT, "x"),
    "a switch of protocols": (head(TYPE, first=b"HTTP/1.1 101 x") + EVENT, "UnexpectedStatus"),
    "an unknown encoding": (head(TYPE, b"Content-Encoding: none\0such") + EVENT, "x"),
    "a location of user names that are not latin-1": (
        redirect("http://é日:p@127.0.0.1:1/".encode()),
        "ConnectionError",
    ),
    # To Python before 3.13, which drops two slashes:
    "a location with a port that is none": (redirect(b"x:////[::1]:9x9/"), "ConnectionError"),
    "a location with a host that is none": (redirect(b"x:////[:g1]/"), "ConnectionError"),
    "a location with more slashes and a port that is none": (
        redirect(b"http:////x:^y/"),
        "ConnectionError" if sys.version_info < (3, 13) else "TooManyRedirects",
    ),
    "a location that is empty": (redirect(b""), "UnexpectedStatus"),
    "a cookie that lasts": (head(TYPE, COOKIE % (b"9" * 5000)) + EVENT, "x"),
    "a cookie of everything": (head(TYPE, ODD_COOKIE) + EVENT, "x"),
}


@pytest.mark.parametrize(("wire", "expected"), ODD_HEADS.values(), ids=ODD_HEADS)
def test_a_head_that_is_odd_is_a_stream_or_a_failure_of_requests(wire, expected):
    with reading(respond(wire), reconnect=ONCE) as (source, _):
        items = list(source) if expected != "x" else [next(source), next(source)]
    if expected == "x":
        assert [type(item) for item in items] == [OpenEvent, MessageEvent]
        assert items[1].data == "x"
    else:
        [lost] = items
        assert isinstance(lost.error, requests.RequestException)
        assert type(lost.error).__name__ == expected


# --- Work, counted ---


def work(action, *, calls_only):
    """Calls that are made, and bytes that the methods of bytes have before them."""
    total = 0

    def profile(frame, event, function):
        nonlocal total
        if event in ("call", "c_call"):
            total += 1
            owner = getattr(function, "__self__", None)
            if not calls_only and isinstance(owner, bytes | bytearray):
                total += len(owner)

    before = sys.getprofile()
    sys.setprofile(profile)
    try:
        action()
    finally:
        sys.setprofile(before)
    return total


def allocated(steps):
    """Bytes allocated: for each step, by how much memory rises while it runs."""
    total = 0
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for _ in steps:
            total += tracemalloc.get_traced_memory()[1] - before
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    return total


def assert_linear(steps_for, count, *, calls_only=False):
    """Four times the bytes are about four times the work: with the square, 12 to 16 times."""
    once, fourfold = (
        work(lambda n=n: [None for _ in steps_for(n)], calls_only=calls_only)
        for n in (count, 4 * count)
    )
    assert once > count // 10
    assert fourfold < 6 * once
    once, fourfold = (allocated(steps_for(n)) for n in (count, 4 * count))
    assert fourfold < 6 * once + 100_000


def one_by_one(data):
    return [data[place : place + 1] for place in range(len(data))]


STREAMS = {
    "CRs": lambda n: [b"\r" * n],
    "CRs, one by one": lambda n: [b"\r"] * n,
    "CR, LF, one by one": lambda n: [b"\r", b"\n"] * n,
    "CRs and blank lines in an event": lambda n: [b"data\r", b"\ndata"] * n,
    "data lines of nothing": lambda n: [b"data\n" * n],
    "data lines of nothing, by CR": lambda n: [b"data\r" * n],
    "data lines across reads": lambda n: [b"ta\nda"] * n,
    "ids": lambda n: [b"id\nid: 1\nid:2\n" * n],
    "ids across reads": lambda n: [b"d\ni"] * n,
    "types": lambda n: [b"event: %d\n" % n] * n,
    "comments across reads": lambda n: [b":x\n:x"] * n,
    "a field that is unknown": lambda n: [b"x" * 50] * n,
    "fields that are unknown": lambda n: [b"x:\n" * 50] * (n // 10),
    "events across reads": lambda n: [b"1\n\ndata: "] * n,
    "colons": lambda n: [b":" * n, b"\n", b"data" + b":" * n, b"\n\n"],
    "byte order marks": lambda n: [b"\xef\xbb\xbf" * n, b"\n" + b"\xef\xbb\xbf\n" * n],
    "digits of a retry": lambda n: [b"retry: " + b"9" * n + b"\n", b"retry:" + b"0" * n + b"\n"],
    "bytes that are no UTF-8": lambda n: [b"data: " + b"\xf0\x9f\x98" * n + b"\n\n"],
}


@pytest.mark.long
@pytest.mark.parametrize("chunks_for", STREAMS.values(), ids=STREAMS)
def test_the_parsers_work_is_in_proportion_to_the_bytes(chunks_for):
    def steps(count):
        parser = EventStreamParser()
        for chunk in chunks_for(count):
            parser.feed_with_comments(chunk)
            yield

    assert_linear(steps, 300)


BODIES = {
    "chunks of a byte": lambda n: [b"1\r\nx\r\n" * n],
    "chunks of a byte, byte by byte": lambda n: one_by_one(b"1\r\nx\r\n" * (n // 4)),
    "chunks of a byte across reads": lambda n: [b"x\r\n1\r\n"] * n,
    "chunks with bare LF": lambda n: [b"1\nx\r\n" * n],
    "chunks with extensions": lambda n: [b"1;" + b"e" * 50 + b"\r\nx\r\n"] * n,
    "an extension in reads": lambda n: [b"1;", *[b"e" * 10] * n, b"\r\nx\r\n"],
    "chunks of ever new sizes": lambda n: [
        b"%x\r\n%b\r\n" % (size, b"x" * size) for size in range(1, 150) for _ in range(n // 150)
    ],
    "sizes with noughts": lambda n: [(b"0" * 20 + b"1\r\nx\r\n") * n],
}


@pytest.mark.parametrize("pieces_for", BODIES.values(), ids=BODIES)
def test_the_work_of_undoing_the_chunks_is_in_proportion_to_the_bytes(pieces_for):
    def steps(count):
        pieces = pieces_for(count)
        if pieces[0].startswith(b"x"):
            pieces = [b"1\r\n", *pieces]
        body = ChunkedBody()
        for piece in pieces:
            if body.is_over:
                break
            body.feed(piece)
            yield
        body.end()
        yield

    # The bytes before a method are not counted: each search in them has its bounds.
    assert_linear(steps, 300, calls_only=True)


LONG = 4000
LONG_TEXTS = {
    "letters": "a" * LONG,
    "letters and dots": "a.-+" * (LONG // 4),
    "labels of a host": "http://" + "a." * (LONG // 2),
    "schemes": "a:" * (LONG // 2),
    "URLs": "http://" * (LONG // 7),
    "URLs apart": "http://u:p@h " * (LONG // 13),
    "at signs": "http://" + "@" * LONG,
    "slashes": "http:" + "/" * LONG,
    "brackets": "http://" + "[" * LONG,
    "questions": "?" * LONG,
    "digits": "1" * LONG,
}


def described(text):
    return describe(requests.ConnectionError(text))


WAYS_TO_SHOW = pytest.mark.parametrize("show", [redact, redact_strictly, redact_text, described])


@WAYS_TO_SHOW
@pytest.mark.parametrize("start", ["http://host/", "http://[", "", "no URL: "])
def test_what_is_shown_of_a_long_text_is_its_beginning(start, show):
    assert str(show(start + "x" * LONG)) == (start + "x" * LONG)[:MAX_TEXT] + "…"


@WAYS_TO_SHOW
@pytest.mark.parametrize("text", LONG_TEXTS.values(), ids=LONG_TEXTS)
def test_what_is_shown_of_a_long_text_does_not_take_time_with_the_square_of_its_length(text, show):
    """A server chooses it: its status line becomes the text of an error. (A regular
    expression is one call; so this is timed, and the best of some tries counts.)"""
    assert any(times_longer(show, text) < 9 for _ in range(4))


def times_longer(action, text):
    """How much longer all of it takes than a quarter of it: 4 times; with the square, 16."""
    times = []
    for part in (text[: len(text) // 4], text):
        started = time.process_time()
        for _ in range(3):
            action(part)
        times.append(time.process_time() - started)
    return times[1] / max(times[0], 1e-3)  # below that, nobody need care
