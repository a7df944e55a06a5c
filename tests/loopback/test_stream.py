"""`EventStream`: connecting, reconnecting and resuming, seen by the one who iterates."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import gzip
import io
import itertools
import socket
import ssl
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from eventsource import (
    Comment,
    ErrorEvent,
    EventStream,
    EventStreamParser,
    EventTimeout,
    MessageEvent,
    OpenEvent,
    ReadyState,
    ReconnectPolicy,
    StreamEnded,
    UnexpectedContentType,
    UnexpectedStatus,
)
from eventsource.http.sockets import current_sockets
from eventsource.testing import ScriptedServer
from tests.authority import AUTHORITY, server_context
from tests.interruption import WAYS, Interruption, interruption_at, numbers_of
from tests.support import (
    HEAD,
    LIMIT,
    QUERY_SECRET,
    QUICK,
    SECRET,
    Recorder,
    errors,
    messages,
    numbers,
    opens,
    port_that_never_answers,
    port_that_refuses,
    reading,
    respond,
    status,
    stream,
    wait_until,
    wait_until_blocked,
)


@contextlib.contextmanager
def read_by_another(events):
    """Another thread iterates, and ends with the stream; what it gets, and the thread."""
    recorder = Recorder()

    def run():
        for event in events:
            recorder(event)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield recorder, thread
    finally:
        events.close()
        thread.join(LIMIT)
    assert not thread.is_alive()


# --- Opening ---


def test_it_yields_what_happens_in_order():
    with ScriptedServer(stream(b"id: 7\ndata: hello\n\n")) as server:
        with EventStream(server.url + "s?q=1", reconnect=None) as events:
            happened = list(events)
        assert happened[:2] == [
            OpenEvent("open", server.url + "s?q=1", 200, {"Content-Type": "text/event-stream"}),
            MessageEvent("message", "hello", "7", server.url.rstrip("/")),
        ]
        (last,) = happened[2:]
    assert isinstance(last.error, StreamEnded)
    assert (last.type, last.ready_state, last.retry_in) == ("error", ReadyState.CLOSED, None)
    assert events.error is last.error


def test_nothing_is_sent_before_the_iteration_begins():
    with ScriptedServer(stream()) as server:
        EventStream(server.url)
        assert server.connections == []


def test_the_open_events_headers_are_read_only_and_without_case():
    with reading(stream(then="hold")) as (events, _):
        (event,) = opens(events)
        assert event.headers["content-type"] == "text/event-stream"
        with pytest.raises(TypeError):
            event.headers["x"] = "y"


def test_the_open_event_and_the_repr_show_no_credentials():
    with ScriptedServer(stream(then="hold")) as server:
        url = server.url.replace("//", f"//user:{SECRET}@") + f"?{QUERY_SECRET}"
        with EventStream(url) as events:
            (event,) = opens(events)
            assert event.url == server.url + f"?{QUERY_SECRET}"
            assert repr(events) == f"<EventStream {server.url} OPEN>"
            assert events.url == url


def test_the_origin_is_that_of_the_url_after_redirects():
    with ScriptedServer(stream(b"data: x\n\n", then="hold")) as there:
        with reading(status("302 Found", f"Location: {there.url}deep")) as (events, _):
            (event,) = messages(events)
        assert event.origin == f"http://127.0.0.1:{there.port}"


@pytest.mark.parametrize(
    "content_type",
    [
        "text/event-stream",
        "Text/Event-Stream ; charset=latin-1",
        "text/event-stream;x",
        "text/event-stream\r\nContent-Type: text/event-stream; charset=utf-8",  # a proxy's, too
    ],
)
def test_an_event_stream_opens_whatever_its_parameters(content_type):
    head = f"HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\n\r\n".encode()
    with reading(respond(head + b"data: \xc3\xa9\n\n", then="hold")) as (events, _):
        assert messages(events)[0].data == "é"  # UTF-8 whatever the charset parameter says


@pytest.mark.parametrize("coding", ["gzip, chunked", "gzip\r\nTransfer-Encoding: Chunked"])
def test_chunks_that_cannot_be_undone_are_a_failed_connection(coding):
    head = HEAD[:-2].decode() + f"Transfer-Encoding: {coding}\r\n\r\n"
    body = b"9\r\ndata: 1\n\n\r\n0\r\n\r\n"
    with reading(respond(head.encode() + body), reconnect=QUICK) as (events, _):
        event = next(events)
    assert isinstance(event.error, requests.ConnectionError)
    assert "transfer coding" in str(event.error)
    assert event.ready_state is ReadyState.CONNECTING


@pytest.mark.long
@pytest.mark.parametrize("dead", [1, 2])
def test_an_address_that_answers_has_its_turn_after_others_that_do_not(monkeypatch, dead):
    """Though none of them fails within the time of an attempt."""
    with contextlib.ExitStack() as stack:
        ports = [stack.enter_context(port_that_never_answers()) for _ in range(dead)]
        server = stack.enter_context(ScriptedServer(*[stream(b"data: x\n\n")] * 2))
        ports.append(server.port)
        monkeypatch.setattr(
            "eventsource.http.sockets.get_addresses",
            lambda *_: [
                (socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", p)) for p in ports
            ],
        )
        policy = ReconnectPolicy(delay=0.02, max_delay=0.05, jitter=0.0, max_attempts=9)
        events = stack.enter_context(
            EventStream(server.url, event_timeout=1.0, timeout=(LIMIT, None), reconnect=policy)
        )
        assert [event.data for event in messages(events, 2)] == ["x", "x"]


def test_lengths_that_differ_are_the_answer_s_fault_and_it_is_said():
    with reading(
        respond(HEAD[:-2] + b"Content-Length: 9, 4\r\n\r\ndata: 1\n\n"),
        reconnect=QUICK,
    ) as (events, _):
        assert "Content-Length" in str(next(events).error)


@pytest.mark.parametrize("line", ["204 No Content", "201 Created", "404 Gone", "500 No", "304 No"])
def test_any_other_status_closes_for_good(line):
    with ScriptedServer(status(line)) as server:
        (event,) = EventStream(server.url)
        assert len(server.requests) == 1
    assert isinstance(event.error, UnexpectedStatus)
    assert isinstance(event.error, requests.HTTPError)
    assert event.error.status == int(line[:3])
    assert event.retry_in is None


@pytest.mark.long
@pytest.mark.parametrize("content_type", ["text/html", "text/event-streams", ""])
def test_any_other_content_type_closes_for_good(content_type):
    head = f"HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\n\r\n".encode()
    with ScriptedServer(respond(head + b"data: x\n\n", then="hold")) as server:
        (event,) = EventStream(server.url)
    assert isinstance(event.error, UnexpectedContentType)
    assert event.error.content_type == content_type


@pytest.mark.parametrize("url", ["ftp://host/x", "mailto:a@b.c", "about:blank"])
def test_a_scheme_that_cannot_be_fetched_is_a_failed_connection(url):
    events = EventStream(url)
    (event,) = events
    assert isinstance(event.error, requests.exceptions.InvalidSchema)
    assert events.ready_state is ReadyState.CLOSED


# --- Reconnecting ---


def test_a_lost_connection_is_made_again_and_resumed():
    with reading(
        stream(b"id: 1\ndata: a\n\n", b"id: 2\ndata: lo"),
        stream(b"id: 2\ndata: b\n\n", then="hold"),
        reconnect=QUICK,
    ) as (events, server):
        happened = [next(events) for _ in range(5)]
        assert [event.type for event in happened] == ["open", "message", "error", "open", "message"]
        assert [event.data for event in happened[1::3]] == ["a", "b"]
        assert happened[2].ready_state is ReadyState.CONNECTING
        assert [r.header("Last-Event-ID") for r in server.requests] == [None, "1"]


def test_an_id_only_block_moves_the_place():
    with reading(stream(b"id: 1\ndata: a\n\nid: 2\n\n"), stream(then="hold"), reconnect=QUICK) as (
        events,
        server,
    ):
        messages(events)
        assert events.last_event_id == "1"
        errors(events)
        assert events.last_event_id == "2"
        opens(events)
        assert server.requests[1].header("Last-Event-ID") == "2"


def test_the_last_event_id_is_that_of_the_event_yielded_last_not_of_what_was_read():
    with reading(stream(b"id: 1\ndata: a\n\nid: 2\ndata: b\n\n", then="hold")) as (events, _):
        messages(events)
        assert events.last_event_id == "1"
        messages(events)
        assert events.last_event_id == "2"


def test_the_next_attempt_comes_after_the_wait_that_the_error_event_tells():
    requested, answered = [], []

    def script(connection):
        connection.read_request()
        requested.append(time.monotonic())
        connection.send(HEAD + b"retry: 300\ndata: a\n\n")
        answered.append(time.monotonic())

    with reading(script, reconnect=ReconnectPolicy(delay=3600)) as (events, _):
        (error,) = errors(events)
        opens(events)
        assert 0.3 <= error.retry_in <= 0.33
        assert requested[1] - answered[0] >= error.retry_in


def test_waits_are_spread_by_a_tenth():
    with reading(stream(b"data: a\n\n")) as (events, _):
        waits = {error.retry_in for error in without_waiting(events, 8)}
        assert len(waits) > 1
        assert all(3 <= wait <= 3.3 for wait in waits)


def without_waiting(events, count):
    """The next error events; the attempts that follow are made at once."""
    for error in events:
        if isinstance(error, ErrorEvent):
            yield error
            count -= 1
            if not count:
                return
            events.restart()


def test_a_status_of_the_policy_is_tried_again_and_retry_after_is_honoured():
    policy = ReconnectPolicy(statuses={503, 429}, jitter=0)
    with reading(
        status("503 Busy", "Retry-After: 100"),
        status("429 Slow", "Retry-After: 999999"),
        status(
            "503 Busy",
            "Date: Fri, 01 Jan 2021 00:00:00 GMT",
            "Retry-After: Fri, 01 Jan 2021 00:05:00 GMT",
        ),
        status("503 Busy", "Retry-After: soon"),
        reconnect=policy,
    ) as (events, _):
        found = list(without_waiting(events, 4))
        assert [event.error.status for event in found] == [503, 429, 503, 503]
        assert [event.retry_in for event in found] == [100, 3600, 300, 24]


def test_a_post_is_sent_again_if_the_caller_passes_a_policy():
    with reading(stream(b"data: x\n\n"), method="POST", data=b"x", reconnect=QUICK) as (
        events,
        server,
    ):
        messages(events, 2)
        assert [r.body for r in server.requests] == [b"x", b"x"]


@pytest.mark.parametrize(
    "body",
    [
        lambda: {"data": iter([b"x"])},
        lambda: {"data": Unseekable(b"x")},
        lambda: {"files": {"f": io.BytesIO(b"x")}},
    ],
    ids=["iterator", "unseekable", "files"],
)
def test_a_body_that_can_be_sent_once_only_is_not_sent_again_empty(body):
    with ScriptedServer(stream(b"data: x\n\n")) as server:
        *_, last = EventStream(server.url, method="POST", reconnect=QUICK, **body())
        assert len(server.requests) == 1
    assert isinstance(last.error, requests.exceptions.UnrewindableBodyError)
    assert last.retry_in is None


def test_a_file_is_sent_again_from_where_it_stood():
    file = io.BytesIO(b"abc")
    file.seek(1)
    with reading(stream(b"data: x\n\n"), method="POST", data=file, reconnect=QUICK) as (
        events,
        server,
    ):
        messages(events, 2)
        assert [r.body for r in server.requests[:2]] == [b"bc", b"bc"]


class Unseekable(io.BytesIO):
    def tell(self):
        raise OSError("cannot tell")


def test_an_exception_of_the_auth_callable_is_a_failed_attempt_not_the_end():
    tries = []

    def authorize(request):
        tries.append(1)
        if len(tries) == 1:
            raise KeyError("no token yet")
        return request

    with reading(stream(b"data: x\n\n", then="hold"), auth=authorize, reconnect=QUICK) as (
        events,
        _,
    ):
        first = next(events)
        assert isinstance(first.error, KeyError)
        assert first.ready_state is ReadyState.CONNECTING
        assert messages(events)[0].data == "x"


# --- What may be set, and what a subclass may have its own of ---


def test_where_to_resume_may_be_set():
    with reading(stream(b"id: 1\ndata: a\n\n"), stream(b"data: b\n\n"), reconnect=QUICK) as (
        events,
        server,
    ):
        messages(events)
        events.last_event_id = "9"
        assert events.last_event_id == events.resume_id == "9"
        assert messages(events)[0].last_event_id == "9"
        assert server.requests[1].header("Last-Event-ID") == "9"


@pytest.mark.parametrize(
    ("name", "value"), [("last_event_id", "a\n"), ("last_event_id", 1), ("reconnection_time", -1)]
)
def test_what_makes_no_sense_cannot_be_set(name, value):
    events = EventStream("http://127.0.0.1:1/")
    before = getattr(events, name)
    with pytest.raises((TypeError, ValueError), match=name):
        setattr(events, name, value)
    assert getattr(events, name) == before


@pytest.mark.parametrize("coding", [b"", b"Content-Encoding: gzip\r\n"])
def test_on_bytes_is_called_with_the_decompressed_body_before_it_is_parsed(coding):
    body = b": a\nid: 1\ndata: x\n\nid: 2\ndata: half"
    seen, places = [], []

    def see(chunk):
        seen.append(chunk)
        places.append(events.resume_id)

    sent = gzip.compress(body) if coding else body
    with reading(respond(HEAD[:-2] + coding + b"\r\n" + sent), on_bytes=see, reconnect=None) as (
        events,
        _,
    ):
        list(events)
    assert b"".join(seen) == body
    assert places[0] == ""
    assert events.resume_id == "1"


def test_on_bytes_that_cannot_be_called_is_a_type_error():
    with pytest.raises(TypeError, match="on_bytes"):
        EventStream("http://127.0.0.1:1/", on_bytes="x")


def test_a_subclass_may_accept_other_responses():
    class Lenient(EventStream):
        def refusal(self, response):
            return None

    page = b"HTTP/1.1 404 Gone\r\nContent-Type: text/plain\r\n\r\ndata: x\n\n"
    with ScriptedServer(respond(page)) as server, Lenient(server.url, reconnect=None) as events:
        assert [event.type for event in events] == ["open", "message", "error"]
        assert isinstance(events.error, StreamEnded)


def test_a_subclass_may_have_a_parser_and_events_of_its_own():
    class OwnEvent(MessageEvent):
        pass

    class Parser(EventStreamParser):
        event_class = OwnEvent

    class Stream(EventStream):
        parser_class = Parser

    with ScriptedServer(stream(numbers(2), then="hold")) as server, Stream(server.url) as events:
        assert [type(event) for event in messages(events, 1)] == [OwnEvent]
        assert events.last_event_id == "0"


def test_closed_is_by_close_and_not_by_a_failure():
    with reading(status("404 Gone")) as (events, _):
        assert len(list(events)) == 1
        assert not events.closed
        events.close()
        assert events.closed


# --- Iterating ---


def test_an_iteration_within_an_iteration_takes_from_it_and_loses_nothing():
    """Also where the inner one has got to the next read."""
    is_first_taken = threading.Event()

    def script(connection):
        connection.start_stream()
        connection.send(numbers(1))
        assert is_first_taken.wait(LIMIT)
        connection.send(numbers(3, start=1))

    with reading(script, reconnect=None) as (events, _):
        found = []
        for event in events:
            found.append(event)
            if isinstance(event, MessageEvent):
                is_first_taken.set()
                found.append(next(events))
                assert events.last_event_id == found[-1].last_event_id
        assert [event.data for event in messages(found, 4)] == ["0", "1", "2", "3"]


def test_take_returns_what_one_read_has_brought_and_has_not_been_yielded():
    with reading(stream(numbers(3)), reconnect=None) as (events, _):
        assert [event.type for event in events.take()] == ["open"]
        assert events.last_event_id == ""
        assert next(events).data == "0"
        assert [event.data for event in events.take()] == ["1", "2"]
        assert events.last_event_id == "2"
        assert [event.type for event in events.take()] == ["error"]
        assert events.take() == []


def interrupt(*_):
    raise KeyboardInterrupt


def test_an_attempt_that_is_interrupted_is_made_again():
    auth = [interrupt, lambda request: request]
    with reading(
        stream(b"data: a\n\n", then="hold"), auth=lambda request: auth.pop(0)(request)
    ) as (events, _):
        with pytest.raises(KeyboardInterrupt):
            next(events)
        assert events.ready_state is ReadyState.CONNECTING
        assert messages(events)[0].data == "a"


def test_what_on_bytes_raises_the_iteration_raises_and_then_goes_on():
    on_bytes = [interrupt, lambda chunk: None]
    with reading(
        stream(b"id: 1\ndata: a\n\n", then="hold"),
        on_bytes=lambda chunk: on_bytes.pop(0)(chunk),
    ) as (events, server):
        opens(events)
        with pytest.raises(KeyboardInterrupt):
            next(events)
        assert events.ready_state is ReadyState.CONNECTING
        assert [next(events).type for _ in range(2)] == ["open", "message"]
        assert [request.header("Last-Event-ID") for request in server.requests] == [None, None]


@pytest.mark.long
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # in a `__del__`
@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("way", "own_session"), [("for", True), ("next", True), ("take", True), ("for", False)]
)
def test_wherever_an_exception_interrupts_the_iteration_nothing_is_lost_or_comes_twice(
    way, own_session
):
    def script(connection):
        first = int(connection.read_request().header("Last-Event-ID") or 0) + 1
        connection.send(HEAD + numbers(4 - first, start=first))
        connection.hold()

    with contextlib.ExitStack() as stack:
        server = stack.enter_context(ScriptedServer(script))
        session = None if own_session else stack.enter_context(requests.Session())
        for number in itertools.count(1):
            found = []
            with EventStream(server.url, session=session) as events:
                with interruption_at(number) as point, contextlib.suppress(Interruption):
                    WAYS[way](events, found, 3)
                assert current_sockets.get() is None, number
                assert events.last_event_id == str(max(numbers_of(found), default="")), number
                WAYS[way](events, found, 3)
            assert numbers_of(found) == [1, 2, 3], number
            if not point.is_over:
                break
        assert number > 100
        gc.collect()


# --- Comments ---


@pytest.mark.parametrize("options", [{"comments": True}, {}], ids=["asked for", "by default"])
def test_comments_come_in_their_place_if_asked_for(options):
    blocks = b": a\ndata: x\n:b\n\n:c\n"
    with reading(stream(blocks), reconnect=None, **options) as (events, server):
        _, *items, _ = events
        message = MessageEvent("message", "x", "", server.url[:-1])
    assert items == ([Comment("a"), Comment("b"), message, Comment("c")] if options else [message])


# --- event_timeout ---


def test_silence_is_noticed_and_retried():
    with reading(
        stream(b"data: a\n\n", then="hold"),
        stream(b"data: b\n\n", then="hold"),
        event_timeout=0.1,
        reconnect=QUICK,
    ) as (events, _):
        (error,) = errors(events)
        assert isinstance(error.error, EventTimeout)
        assert isinstance(error.error, requests.Timeout)
        assert "0.1 seconds" in str(error.error)
        while messages(events)[0].data != "b":  # a slow machine may not have got to "a" in time
            pass


def test_heartbeats_are_no_events_for_the_timeout():
    def beat(connection):
        connection.start_stream()
        while not connection.server.closing.is_set():
            connection.send(b":\n\n")
            connection.pause(0.01)

    with reading(beat, event_timeout=0.2, reconnect=QUICK) as (events, _):
        assert isinstance(errors(events)[0].error, EventTimeout)


def test_the_timeout_counts_from_the_start_of_an_attempt():
    with port_that_never_answers() as port:
        url = f"http://127.0.0.1:{port}/"
        with EventStream(url, event_timeout=0.1, timeout=None, reconnect=QUICK) as events:
            assert isinstance(errors(events, 2)[1].error, EventTimeout)


@pytest.mark.long
def test_time_that_on_bytes_takes_does_not_count():
    timeout = 0.8
    is_seen, is_over = threading.Event(), threading.Event()

    def script(connection):
        connection.start_stream()
        connection.send(b":\n")
        assert is_seen.wait(LIMIT)
        connection.pause(timeout)
        is_over.set()
        connection.pause(0.05)
        connection.send(b"data: a\n\n")
        connection.hold()

    def see(chunk):
        is_seen.set()
        assert is_over.wait(LIMIT)

    with reading(script, event_timeout=timeout, on_bytes=see, reconnect=QUICK) as (events, _):
        while not is_seen.is_set():  # a slow machine may not have got to it in time
            event = next(events)
        assert event.type == "message"


# --- close() and restart() ---


def test_close_ends_the_iteration_of_another_thread():
    with reading(stream(b"data: a\n\n", then="hold")) as (events, server):
        with read_by_another(events) as (recorder, _):
            recorder.next_of(MessageEvent)
        assert events.ready_state is ReadyState.CLOSED
        assert events.error is None
        assert server.connections[0].gone.wait(LIMIT)
        assert [event.type for event in recorder.events] == ["open", "message"]


def test_close_before_the_iteration_prevents_it():
    with ScriptedServer(stream()) as server:
        events = EventStream(server.url)
        events.close()
        assert list(events) == []
        assert server.connections == []


def test_a_stream_that_is_dropped_without_close_closes():
    with ScriptedServer(stream(then="hold")) as server:
        for _ in EventStream(server.url):
            break
        assert server.connections[0].gone.wait(LIMIT)


def test_a_dropped_stream_on_a_session_of_the_callers_ends_its_limit_and_connection():
    with (
        ScriptedServer(stream(b"data: x\n\n", then="hold")) as server,
        requests.Session() as session,
    ):
        events = EventStream(server.url, session=session, event_timeout=LIMIT)
        messages(events)
        del events
        gc.collect()
        wait_until(lambda: "eventsource-timeout" not in {t.name for t in threading.enumerate()})
        assert server.connections[0].gone.wait(LIMIT)


def test_a_dropped_stream_on_a_session_of_the_callers_leaves_its_response_open():
    """The collector may run where the locks of the session are held."""
    proceed = threading.Event()

    def script(connection):
        connection.start_stream()
        assert proceed.wait(LIMIT)
        connection.send(b"data: x\n\n")
        connection.hold()

    with ScriptedServer(script) as server, requests.Session() as session:
        events = EventStream(server.url, session=session)
        opens(events)
        response = events.response
        del events
        gc.collect()
        proceed.set()
        assert response.raw.read1() == b"data: x\n\n"
        response.close()


@pytest.mark.parametrize("then", ["hold", "close"])
def test_restart_makes_a_new_connection_at_once_and_yields_no_error(then):
    """Also in the wait for the next attempt, after an error."""
    scripts = stream(b"id: 1\ndata: a\n\n", then=then), stream(b"data: b\n\n", then="hold")
    before = ["open", "message"] if then == "hold" else ["open", "message", "error"]
    with reading(*scripts, reconnect=ReconnectPolicy(delay=3600)) as (events, server):
        with read_by_another(events) as (recorder, _):
            assert [recorder.next().type for _ in before] == before
            events.restart()
            assert recorder.next_of(MessageEvent).data == "b"
            assert [event.type for event in recorder.events] == [*before, "open", "message"]
            assert server.requests[1].header("Last-Event-ID") == "1"
            assert server.connections[0].over.wait(LIMIT)


def test_restart_still_yields_what_was_parsed_before():
    first = stream(b"data: a\n\ndata: b\n\n", then="hold")
    with reading(first, stream(b"data: c\n\n", then="hold")) as (events, _):
        found = messages(events)
        events.restart()
        found += messages(events, 2)
    assert [event.data for event in found] == ["a", "b", "c"]


def test_restart_sends_a_post_again():
    with reading(stream(b"data: a\n\n", then="hold"), method="POST", data=b"x") as (events, server):
        messages(events)
        events.restart()
        messages(events)
        assert [r.method for r in server.requests] == ["POST", "POST"]


def test_a_huge_reconnection_time_can_be_waited_for():
    with port_that_refuses() as port:
        events = EventStream(f"http://127.0.0.1:{port}/", reconnect=ReconnectPolicy(delay=1e15))
        with read_by_another(events) as (recorder, thread):
            recorder.next_of(ErrorEvent)
            if sys.platform == "linux":
                wait_until_blocked(f"self/task/{thread.native_id}")
            events.restart()
            recorder.next_of(ErrorEvent)


@pytest.mark.parametrize(
    ("method", "goes_on"), [("HEAD", True), ("OPTIONS", False), ("POST", False)]
)
def test_a_head_request_is_sent_again_as_a_get_is_and_others_are_not(method, goes_on):
    with reading(respond(HEAD), method=method, data=b"x") as (events, _):
        opens(events)
        assert (next(events).retry_in is not None) == goes_on


@pytest.mark.parametrize("field", [b"Content-Length: 5\r\n", b""])
@pytest.mark.parametrize("status", [b"200 OK", b"400 Bad Request"])
def test_the_body_of_what_is_no_event_stream_is_kept(field, status):
    page = b"HTTP/1.1 %b\r\nContent-Type: text/html\r\n%b\r\nhello" % (status, field)
    with reading(respond(page)) as (events, _):
        error = next(events).error
    assert error.response.content == b"hello"
    assert error.response.text == "hello"


def test_no_more_than_64_kib_of_a_refused_body_are_kept():
    page = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n" + b"x" * 100_000
    with reading(respond(page)) as (events, _):
        error = next(events).error
    assert error.response.content == b"x" * 65536


@pytest.mark.parametrize("way", ["for", "messages", "async for"])
def test_an_event_that_has_been_iterated_over_is_not_kept(way):
    """It may be large, and the next may come in days."""

    def is_kept():
        return "rare" in [e.data for e in gc.get_objects() if type(e) is MessageEvent]

    def iterate(events):
        for event in events.messages() if way == "messages" else events:
            if isinstance(event, MessageEvent):
                found.append(event.last_event_id)
            del event

    async def iterate_on_a_loop(events):
        async for event in events.messages():
            found.append(event.last_event_id)
            del event

    found = []
    with (
        reading(stream(b"id: 1\ndata: rare\n\n", then="hold")) as (events, _),
        ThreadPoolExecutor(1) as pool,
    ):
        if way == "async for":
            iterating = pool.submit(asyncio.run, iterate_on_a_loop(events))
        else:
            iterating = pool.submit(iterate, events)
        wait_until(lambda: found)
        wait_until(lambda: not is_kept())
        assert not iterating.done()
        events.close()
        iterating.result(LIMIT)


# --- The certificate ---


def test_the_servers_certificate_is_there_while_the_connection_is_open(tmp_path):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    AUTHORITY.issue_cert("127.0.0.1", common_name="the server").configure_cert(context)
    pem = tmp_path / "ca.pem"
    pem.write_bytes(AUTHORITY.cert_pem.bytes())
    with ScriptedServer(stream(b"data: x\n\n", then="hold"), ssl_context=context) as server:
        with EventStream(server.url, verify=str(pem)) as events:
            assert events.certificate is None
            opens(events)
            assert (("commonName", "the server"),) in events.certificate["subject"]
            assert ssl.cert_time_to_seconds(events.certificate["notAfter"]) > time.time()
            events.restart()
            opens(events)
            assert events.certificate
        assert events.certificate is None


@pytest.mark.filterwarnings("ignore::urllib3.exceptions.InsecureRequestWarning")
def test_a_certificate_that_was_not_verified_is_empty():
    script = stream(b"data: x\n\n", then="hold")
    with ScriptedServer(script, ssl_context=server_context()) as server:
        with EventStream(server.url, verify=False) as events:
            opens(events)
            assert events.certificate == {}


def test_without_tls_and_on_a_session_of_the_callers_there_is_no_certificate():
    with ScriptedServer(stream(b"data: x\n\n", then="hold")) as server:
        with EventStream(server.url) as events:
            opens(events)
            assert events.certificate is None
        with requests.Session() as session, EventStream(server.url, session=session) as events:
            opens(events)
            assert events.certificate is None
