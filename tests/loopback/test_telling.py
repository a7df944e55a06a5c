"""Nothing fails in silence: what is logged of outages and ends, and how loudly."""

from __future__ import annotations

import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from eventsource import (
    ErrorEvent,
    EventSource,
    EventStream,
    OpenEvent,
    ReadyState,
    SSEClient,
    StreamEnded,
    UnexpectedStatus,
    dispatch,
)
from eventsource.engine.telling import Telling
from eventsource.testing import ScriptedServer
from tests.support import (
    LIMIT,
    QUICK,
    Recorder,
    port_that_refuses,
    reading,
    respond,
    served,
    status,
    stream,
    wait_until,
)

OPEN = OpenEvent("open", "http://h/", 200, {"Content-Type": "text/event-stream"})


def failure(error=None, retry_in=3.0):
    state = ReadyState.CLOSED if retry_in is None else ReadyState.CONNECTING
    return ErrorEvent("error", error or OSError("down"), state, retry_in)


def levels(caplog):
    return [(record.levelname, record.getMessage()) for record in caplog.records]


@pytest.fixture
def told(caplog):
    caplog.set_level(logging.DEBUG, "eventsource")
    return caplog


def warnings(caplog):
    return [text for level, text in levels(caplog) if level == "WARNING"]


# --- The rule ---


def tell(caplog, *items, **options):
    telling = Telling("http://user:secretcredential@h/path?secretquery")
    options = {"is_heard": False, **options}
    for item in items:
        telling.tell(item, **options)
    return [level for level, _ in levels(caplog)]


def test_the_first_failure_of_each_outage_is_a_warning_and_the_others_are_not(told):
    items = failure(), failure(), OPEN, failure(), failure()
    assert tell(told, *items) == ["WARNING", "INFO", "INFO", "WARNING", "INFO"]


def test_what_is_heard_is_information(told):
    items = failure(), OPEN, failure(retry_in=None)
    assert tell(told, *items, is_heard=True) == ["INFO"] * 3


def test_what_closes_for_good_is_a_warning_in_an_outage_too(told):
    assert tell(told, failure(), failure(), failure(retry_in=None)) == [
        "WARNING",
        "INFO",
        "WARNING",
    ]


def test_that_a_body_ends_in_order_is_no_failure_and_an_attempt_that_then_fails_is(told):
    ended = StreamEnded("the server ended the stream")
    items = OPEN, failure(ended), OPEN, failure(ended), failure(), failure()
    assert tell(told, *items) == ["INFO", "INFO", "INFO", "INFO", "WARNING", "INFO"]


def test_a_page_that_is_read_for_want_of_a_stream_is_a_warning_once(told):
    ended = StreamEnded("the server ended the stream")
    ended.is_foreign = True
    page = OpenEvent("open", "http://h/", 200, {"Content-Type": "text/html"})
    items = page, failure(ended), page, failure(ended), OPEN, failure()
    assert tell(told, *items) == ["INFO", "WARNING", "INFO", "INFO", "INFO", "WARNING"]


@pytest.mark.parametrize(
    ("content_type", "body", "is_foreign"),
    [
        ("text/html", b"<p>\n", True),
        ("text/html", b"data: x\n\n", False),
        ("text/event-stream", b":\n", False),
        ("", b"{}", True),
    ],
)
def test_the_end_of_a_body_of_another_type_says_so_if_no_event_came(content_type, body, is_foreign):
    head = b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\n\r\n" % content_type.encode()
    with ScriptedServer(respond(head + body)) as server:
        events = EventStream(server.url, reconnect=None, content_types=["*/*"])
        *_, lost = events
    assert lost.error.is_foreign == is_foreign
    text = f"no event came, and its content type is {content_type!r}"
    assert (text in str(lost.error)) == is_foreign


def test_an_end_that_is_no_failure_is_information(told):
    ended = failure(StreamEnded("the server ended the stream"), retry_in=None)
    assert tell(told, ended, is_end=True) == ["INFO"]


def test_it_says_where_what_and_when_and_that_it_is_open_again_and_no_secret(told):
    tell(told, OPEN, failure(), OPEN, failure(retry_in=None))
    assert [text for _, text in levels(told)] == [
        "http://h/path: open",
        "http://h/path: retry in 3 s: OSError",
        "http://h/path: open again",
        "http://h/path: closed for good: OSError",
    ]


def test_each_is_told_once(told):
    item = failure()
    assert tell(told, item, item) == ["WARNING"]


# --- A source without a handler of `error` ---


@pytest.fixture
def refused():
    with port_that_refuses() as port:
        yield f"http://127.0.0.1:{port}/"


def test_a_source_whose_server_is_down_warns_once(told, refused):
    with EventSource(refused, on_message=print, reconnect=QUICK):
        wait_until(lambda: len(told.records) > 3)
    assert [level for level, _ in levels(told)][:4] == ["WARNING", "INFO", "INFO", "INFO"]
    (text,) = warnings(told)
    assert text.startswith(f"{refused}: retry in 0.02 s: ConnectionError: ")
    assert text.endswith("Connection refused")


def test_a_source_with_a_handler_of_error_warns_of_nothing(told, refused):
    lost = Recorder()
    with EventSource(refused, on_error=lost, reconnect=QUICK):
        for _ in range(3):
            lost.next()
    assert warnings(told) == []
    assert "retry in" in told.text


def test_the_end_that_a_server_wants_warns_of_nothing(told):
    with ScriptedServer(status("204 No Content")) as server:
        source = EventSource(server.url)
        assert source.join(LIMIT)
    assert warnings(told) == []
    assert "closed for good" in told.text


def test_what_waits_for_a_first_handler_is_told_after_a_while_and_not_again(told, monkeypatch):
    monkeypatch.setattr("eventsource.source.TELL_SECONDS", 0.01)
    with ScriptedServer(status("404 Gone")) as server:
        source = EventSource(server.url)
        wait_until(lambda: warnings(told))
        assert source.ready_state is ReadyState.CLOSED
        lost = Recorder()
        source.on("error", lost)
        assert isinstance(lost.next().error, UnexpectedStatus)
        assert source.join(LIMIT)
    assert len(warnings(told)) == 1


@pytest.mark.parametrize("elsewhere", [False, True])
def test_what_waits_is_let_through_by_join(elsewhere):
    calls = []
    options = {"dispatch": lambda call: (calls.append(1), call())} if elsewhere else {}
    with ScriptedServer(stream(b"id: 7\ndata: x\n\n")) as server:
        source = EventSource(server.url, reconnect=None, **options)
        assert source.join(LIMIT)
        assert source.last_event_id == "7"
    assert bool(calls) == elsewhere


# --- What nobody hears ---


def test_a_type_that_nobody_hears_is_told_once(told):
    blocks = b"event: a\ndata: x\n\n" * 3 + b"event: b\ndata: x\n\n" + b"data: end\n\n"
    heard = Recorder()
    with served(EventSource, stream(blocks, then="hold"), on_message=heard):
        heard.next()
    unheard = [text for level, text in levels(told) if level == "DEBUG" and "no handler" in text]
    assert [text.rpartition(" ")[2] for text in unheard] == ["'a'", "'b'"]


def test_only_so_many_types_that_nobody_hears_are_told(told):
    blocks = b"".join(b"event: t%d\ndata: x\n\n" % number for number in range(1000))
    heard = Recorder()
    blocks += b"data: end\n\n"
    with served(EventSource, stream(blocks, then="hold"), on_message=heard) as (_, source):
        heard.next()
        assert source.event_names() == {"message"}
    assert told.text.count("no handler for events") == 100


def test_a_body_of_json_lines_is_told_once_a_connection(told):
    lines = b'{"a": 1}\n' * 3
    with reading(stream(lines, lines, then="hold")) as (events, _):
        next(events)
        with pytest.raises(TimeoutError):
            events.take(timeout=0.2)
    (text,) = [text for level, text in levels(told) if level == "DEBUG" and "fields" in text]
    assert "lines of the body are not fields of an event stream" in text


def test_nothing_is_told_of_odd_lines_beside_events(told):
    """Though a read brings nothing else."""
    are_read = threading.Semaphore(0)

    def script(connection):
        connection.start_stream()
        for lines in (b"data: x\n\n", b"odd\n", b"data: y\n\n"):
            connection.send(lines)
            assert are_read.acquire(timeout=LIMIT)

    options = {"reconnect": None, "on_bytes": lambda _: are_read.release()}
    with reading(script, **options) as (events, _):
        assert len(list(events.messages())) == 2
    assert "not fields" not in told.text


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"data: x\n\n", ""),
        (b"data: x", "; 7 bytes of an unfinished event were dropped"),
        (b"data: x\r\n\r\nid: 1\r\ndata: y\r\n", "; 16 bytes of an unfinished event were dropped"),
        (b"data: x\n\n:\n", ""),  # a heartbeat is no event
        (b"data: x\n\nd", "; 1 byte of an unfinished event was dropped"),
    ],
)
def test_the_end_of_a_stream_says_what_was_dropped(body, words):
    with reading(stream(body), reconnect=None) as (events, _):
        *_, lost = events
    assert str(lost.error) == f"the server ended the stream{words}"


# --- A handler that hangs ---


class Clock:
    """Time for a source: passes as it does, and faster if a handler says so."""

    ahead = 0.0

    def monotonic(self):
        return time.monotonic() + self.ahead


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr("eventsource.source.time", clock)
    return clock


def test_a_handler_that_keeps_the_reader_from_reading_is_told_by_name(told, clock):
    done = Recorder()

    def first(event):
        pass

    def slow(event):
        clock.ahead += 31

    blocks = b"data: x\n\n" * 3
    with served(EventSource, stream(blocks, then="hold"), start=False) as (_, source):
        for handler in (first, slow, done):
            source.on("message", handler)
        source.start()
        for _ in range(3):
            done.next()
    (text,) = warnings(told)  # one for this read
    assert "nothing has been read for 30 seconds or more, because of handlers: " in text
    assert text.endswith("<locals>.slow")


@pytest.mark.parametrize(
    "block", [b"data: x\n\n", b"data: x\n\nevent: y\ndata: x\n\n", b": c\n", b": c\ndata: x\n\n"]
)
def test_the_only_handler_of_a_type_or_of_comments_is_told_too(told, clock, block):
    def slow(_):
        clock.ahead += 31

    slow_one = {"on_comment": slow} if b":" in block[:1] else {"on_message": slow}
    with served(EventSource, stream(block, then="hold"), start=False, **slow_one) as (_, source):
        source.on("y", print)
        source.start()
        wait_until(lambda: warnings(told))
    assert warnings(told)[0].endswith("<locals>.slow")


@pytest.mark.parametrize("reads", [1, 3])
def test_after_a_comment_the_handler_that_hangs_is_told_and_not_that_of_comments(
    told, clock, reads
):
    heard = Recorder()

    def slow_at_the_second(event):
        heard(event.data)
        clock.ahead += 31 if event.data == "2" else 0

    def script(connection):
        connection.start_stream()
        blocks = [b"data: 1\n\n", b": c\n", b"data: 2\n\n"]
        for block in [b"".join(blocks)] if reads == 1 else blocks:
            connection.send(block)
            if reads > 1 and block != blocks[-1]:
                assert heard.next() in ("1", "c")
        connection.hold()

    handlers = {"on_message": slow_at_the_second, "on_comment": heard}
    with served(EventSource, script, **handlers):
        wait_until(lambda: warnings(told))
    assert warnings(told)[0].endswith("<locals>.slow_at_the_second")


def test_a_dispatch_that_makes_no_room_is_told_by_the_handler_that_runs(told, monkeypatch):
    monkeypatch.setattr("eventsource.handlers.queue.STALL_SECONDS", 0.01)
    go_on = threading.Event()

    def stuck(event):
        assert go_on.wait(LIMIT)

    def is_told():
        return any(text.endswith("<locals>.stuck") for text in warnings(told))

    with ThreadPoolExecutor(1) as pool:
        options = {"on_message": stuck, "dispatch": pool.submit, "max_waiting": 1}
        with served(EventSource, stream(b"data: x\n\n" * 5, then="hold"), **options):
            wait_until(is_told)
            go_on.set()


# --- Quiet or dead ---


def test_silent_for_counts_from_the_last_byte_of_the_open_connection():
    more = threading.Event()

    def script(connection):
        connection.start_stream()
        assert more.wait(LIMIT)
        connection.send(b":\n")
        connection.hold()

    with reading(script, comments=True) as (events, _):
        assert events.silent_for is None
        next(events)
        wait_until(lambda: events.silent_for > 0.05)
        more.set()
        next(events)
        before = events.silent_for
        wait_until(lambda: events.silent_for > before)
        events.close()
        assert events.silent_for is None


def test_silent_for_of_a_source_is_that_of_its_stream():
    with served(EventSource, stream(then="hold")) as (_, source):
        wait_until(lambda: source.silent_for is not None and source.silent_for > 0)
    assert source.silent_for is None


# --- Slips ---


@pytest.fixture
def idle():
    with EventSource("http://127.0.0.1:9/", start=False) as source:
        yield source


@pytest.mark.parametrize("name", ["on", "once", "listens_to"])
def test_a_decorator_without_the_type_is_refused(idle, name):
    with pytest.raises(TypeError, match=r"^event must be a str, not <function"):

        @getattr(idle, name)
        def handler(event):
            pass

    assert idle.event_names() == set()


@pytest.mark.parametrize("kind", ["open", "message", "error"])
def test_a_handler_that_is_set_is_that_of_the_constructor_and_of_the_browser(kind):
    def one(event):
        pass

    def other(event):
        pass

    with EventSource("http://127.0.0.1:9/", start=False, **{f"on_{kind}": one}) as source:
        assert getattr(source, f"on_{kind}") is getattr(source, f"on{kind}") is one
        setattr(source, f"on_{kind}", other)
        assert source.listeners(kind) == [other]
        assert getattr(source, f"on{kind}") is other
        setattr(source, f"on{kind}", None)
        assert source.listeners(kind) == []


def test_a_handler_that_is_set_later_is_called():
    heard = Recorder()
    with served(EventSource, stream(b"data: x\n\n", then="hold")) as (_, source):
        source.on_message = heard
        assert heard.next().data == "x"


def test_on_comment_may_be_set_later_and_taken_away():
    comments, opened = Recorder(), Recorder()
    more = threading.Event()

    def script(connection):
        connection.start_stream()
        assert more.wait(LIMIT)
        connection.send(b": a\n")
        connection.hold()

    with served(EventSource, script, on_open=opened) as (_, source):
        opened.next()
        source.on_comment = comments
        more.set()
        assert comments.next() == "a"
        source.on_comment = None
        assert source.on_comment is None


@pytest.mark.parametrize("name", ["on_open", "on_message", "on_error", "on_comment"])
def test_what_cannot_be_called_is_refused_by_its_name(name, idle):
    with pytest.raises(TypeError, match=f"^{name} must be callable, not 7$"):
        EventSource("http://127.0.0.1:9/", **{name: 7})
    with pytest.raises(TypeError, match=f"^{name} must be callable, not 7$"):
        setattr(idle, name, 7)


@pytest.mark.parametrize("maker", [dispatch.asyncio, dispatch.tk, dispatch.qt])
def test_a_maker_of_a_dispatch_is_none(maker):
    with pytest.raises(TypeError, match=rf"the result of dispatch\.{maker.__name__}\(\)"):
        EventSource("http://127.0.0.1:9/", dispatch=maker)


@pytest.mark.parametrize("face", [EventSource, EventStream])
def test_with_after_close_is_an_error_and_after_a_final_failure_is_none(face):
    it = face("http://127.0.0.1:9/")
    it.close()
    with pytest.raises(RuntimeError, match="closed"), it:
        pass
    with ScriptedServer(status("404 Gone")) as server:
        it = face(server.url)
        if face is EventSource:
            assert it.join(LIMIT)
            it.start()
        else:
            list(it)
        with it:
            assert isinstance(it.error, UnexpectedStatus)


@pytest.mark.parametrize(
    ("face", "name", "near"),
    [
        (EventSource, "last_id", "last_event_id"),
        (EventSource, "lastEventId", "last_event_id"),
        (EventSource, "retry", "reconnect"),
        (EventSource, "mesage", None),
        (EventSource, "comments", None),
        (EventSource, "onmessage", "on_message"),
        (EventSource, "max_event_sise", "max_event_size"),
        (EventSource, "proxy", "proxies"),
        (EventStream, "on_message", None),
        (SSEClient, "last_event_id", "last_id"),
        (SSEClient, "header", "headers"),
        (SSEClient, "reconnect", None),
    ],
)
def test_a_misspelt_keyword_is_refused_with_the_class_and_the_nearest_name(face, name, near):
    with pytest.raises(TypeError) as refused:
        face("http://127.0.0.1:9/", **{name: "x"})
    text = str(refused.value)
    assert text.startswith(f"{face.__name__}: unexpected keyword argument {name!r}")
    assert near is None or text.endswith(f"; did you mean {near!r}?")


def test_the_name_of_a_state_is_what_is_shown():
    assert f"{ReadyState.OPEN}" == str(ReadyState.OPEN) == "OPEN"
    assert f"{ReadyState.OPEN:>6}" == "  OPEN"
    assert f"{ReadyState.OPEN:d} {ReadyState.CLOSED:03d}" == "1 002"
