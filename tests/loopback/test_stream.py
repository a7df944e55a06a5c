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
import trustme

from eventsource import (
    Comment,
    ErrorEvent,
    EventStream,
    EventStreamParser,
    EventTimeout,
    EventTooLarge,
    MessageEvent,
    OpenEvent,
    ReadyState,
    ReconnectPolicy,
    StreamEnded,
    UnexpectedContentType,
    UnexpectedStatus,
)
from eventsource.testing import ScriptedServer
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
    respond,
    status,
    stream,
    wait_until,
    wait_until_blocked,
)


def collect(event_stream):
    """Iterate in another thread; return its recorder and the thread."""
    recorder = Recorder()

    def run():
        for event in event_stream:
            recorder(event)

    thread = threading.Thread(target=run)
    thread.start()
    return recorder, thread


def joined(thread):
    thread.join(LIMIT)
    return not thread.is_alive()


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
    with ScriptedServer(stream(then="hold")) as server, EventStream(server.url) as events:
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
        with (
            ScriptedServer(status("302 Found", f"Location: {there.url}deep")) as here,
            EventStream(here.url) as events,
        ):
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
    with (
        ScriptedServer(respond(head + b"data: \xc3\xa9\n\n", then="hold")) as server,
        EventStream(server.url) as events,
    ):
        assert messages(events)[0].data == "é"  # UTF-8 whatever the charset parameter says


@pytest.mark.parametrize("space", [b" ", b"\t", b" \t "])
def test_space_after_a_field_s_value_is_no_part_of_it(space):
    def fields(*lines):
        return b"".join(b"%b%b\r\n" % (line, space) for line in lines) + b"\r\n"

    there = b"HTTP/1.1 302 Found", b"Location: /there", b"Content-Length: 0"
    here = (
        b"HTTP/1.1 200 OK",
        b"Content-Type: text/event-stream",
        b"Content-Encoding: gzip",
        b"Transfer-Encoding: chunked",
    )
    data = gzip.compress(b"data: 1\n\n")
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in data)
    with (
        ScriptedServer(respond(fields(*there)), respond(fields(*here) + chunks)) as server,
        EventStream(server.url) as events,
    ):
        assert messages(events)[0].data == "1"
        assert server.requests[1].target == "/there"


@pytest.mark.parametrize("coding", ["gzip, chunked", "gzip\r\nTransfer-Encoding: Chunked"])
def test_chunks_that_cannot_be_undone_are_a_failed_connection(coding):
    head = HEAD[:-2].decode() + f"Transfer-Encoding: {coding}\r\n\r\n"
    body = b"9\r\ndata: 1\n\n\r\n0\r\n\r\n"
    with (
        ScriptedServer(respond(head.encode() + body)) as server,
        EventStream(server.url, reconnect=QUICK) as events,
    ):
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
    with (
        ScriptedServer(respond(HEAD[:-2] + b"Content-Length: 9, 4\r\n\r\ndata: 1\n\n")) as server,
        EventStream(server.url, reconnect=QUICK) as events,
    ):
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
@pytest.mark.parametrize("content_type", ["text/html", "text/event-streams", "application/json"])
def test_any_other_content_type_closes_for_good(content_type):
    head = f"HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\n\r\n".encode()
    with ScriptedServer(respond(head + b"data: x\n\n", then="hold")) as server:
        (event,) = EventStream(server.url)
    assert isinstance(event.error, UnexpectedContentType)
    assert event.error.content_type == content_type


def test_no_content_type_closes_for_good():
    with ScriptedServer(respond(b"HTTP/1.1 200 OK\r\n\r\ndata: x\n\n")) as server:
        (event,) = EventStream(server.url)
    assert event.error.content_type == ""


def test_the_body_of_a_refusal_is_in_the_error():
    with ScriptedServer(status("400 Bad Request", body=b'{"why": "so"}')) as server:
        (event,) = EventStream(server.url, method="POST", json={})
    assert event.error.response.json() == {"why": "so"}


@pytest.mark.parametrize("url", ["ftp://host/x", "mailto:a@b.c", "about:blank"])
def test_a_scheme_that_cannot_be_fetched_is_a_failed_connection(url):
    events = EventStream(url)
    (event,) = events
    assert isinstance(event.error, requests.exceptions.InvalidSchema)
    assert events.ready_state is ReadyState.CLOSED


# --- Reconnecting ---


def test_a_lost_connection_is_made_again_and_resumed():
    with (
        ScriptedServer(
            stream(b"id: 1\ndata: a\n\n", b"id: 2\ndata: lo"),
            stream(b"id: 2\ndata: b\n\n", then="hold"),
        ) as server,
        EventStream(server.url, reconnect=QUICK) as events,
    ):
        happened = [next(events) for _ in range(5)]
        assert [event.type for event in happened] == ["open", "message", "error", "open", "message"]
        assert [event.data for event in happened[1::3]] == ["a", "b"]
        assert happened[2].ready_state is ReadyState.CONNECTING
        assert [r.header("Last-Event-ID") for r in server.requests] == [None, "1"]


def test_a_reset_connection_is_made_again():
    with (
        ScriptedServer(stream(b"data: a\n\n", then="reset"), stream(b"data: b\n\n")) as server,
        EventStream(server.url, reconnect=QUICK) as events,
    ):
        # The kernel may drop what was not read before the reset: then no "a".
        assert messages(events, 1)[0].data in "ab"
        assert len(errors(events)) == 1


def test_the_first_id_to_send_can_be_given():
    with ScriptedServer(stream(then="hold")) as server:
        with EventStream(server.url, last_event_id="é7") as events:
            assert events.last_event_id == "é7"
            opens(events)
        assert server.requests[0].header("Last-Event-ID").encode("latin-1") == b"\xc3\xa97"


def test_an_id_only_block_moves_the_place():
    with (
        ScriptedServer(stream(b"id: 1\ndata: a\n\nid: 2\n\n"), stream(then="hold")) as server,
        EventStream(server.url, reconnect=QUICK) as events,
    ):
        messages(events)
        assert events.last_event_id == "1"
        errors(events)
        assert events.last_event_id == "2"
        opens(events)
        assert server.requests[1].header("Last-Event-ID") == "2"


def test_the_id_carries_over_to_events_without_one_after_a_reconnect():
    with (
        ScriptedServer(
            stream(b"id: 1\ndata: a\n\n"), stream(b"data: b\n\n", then="hold")
        ) as server,
        EventStream(server.url, reconnect=QUICK) as events,
    ):
        assert [event.last_event_id for event in messages(events, 2)] == ["1", "1"]


def test_an_empty_id_forgets_the_place():
    with (
        ScriptedServer(stream(b"id: 1\ndata: a\n\nid\ndata: b\n\n"), stream(then="hold")) as server,
        EventStream(server.url, reconnect=QUICK) as events,
    ):
        opens(events, 2)
        assert server.requests[1].header("Last-Event-ID") is None


def test_the_last_event_id_is_that_of_the_event_yielded_last_not_of_what_was_read():
    with (
        ScriptedServer(stream(b"id: 1\ndata: a\n\nid: 2\ndata: b\n\n", then="hold")) as server,
        EventStream(server.url) as events,
    ):
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

    with (
        ScriptedServer(script) as server,
        EventStream(server.url, reconnect=ReconnectPolicy(delay=3600)) as events,
    ):
        (error,) = errors(events)
        opens(events)
        assert 0.3 <= error.retry_in <= 0.33
        assert requested[1] - answered[0] >= error.retry_in


def test_waits_are_spread_by_a_tenth():
    with ScriptedServer(stream(b"data: a\n\n")) as server, EventStream(server.url) as events:
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
    with (
        ScriptedServer(
            status("503 Busy", "Retry-After: 100"),
            status("429 Slow", "Retry-After: 999999"),
            status(
                "503 Busy",
                "Date: Fri, 01 Jan 2021 00:00:00 GMT",
                "Retry-After: Fri, 01 Jan 2021 00:05:00 GMT",
            ),
            status("503 Busy", "Retry-After: soon"),
        ) as server,
        EventStream(server.url, reconnect=policy) as events,
    ):
        found = list(without_waiting(events, 4))
        assert [event.error.status for event in found] == [503, 429, 503, 503]
        assert [event.retry_in for event in found] == [100, 3600, 300, 24]


def test_max_attempts_in_a_row_close_for_good():
    policy = ReconnectPolicy(delay=0.01, max_delay=0.01, max_attempts=3)
    with port_that_refuses() as port:
        found = list(EventStream(f"http://127.0.0.1:{port}/", reconnect=policy))
    assert [event.retry_in is None for event in found] == [False, False, True]
    assert [event.ready_state for event in found] == [0, 0, 2]
    assert all(isinstance(event.error, requests.ConnectionError) for event in found)


def test_success_starts_the_count_of_attempts_anew():
    policy = ReconnectPolicy(delay=0.01, max_delay=0.01, max_attempts=2, statuses={503})
    busy = status("503 Busy")
    with ScriptedServer(busy, stream(b"data: x\n\n"), busy, stream(b"data: x\n\n"), busy) as server:
        happened = list(EventStream(server.url, reconnect=policy))
        assert len(server.requests) == 6
    assert happened[-1].retry_in is None


def test_without_a_policy_there_is_one_attempt():
    with ScriptedServer(stream(b"data: x\n\n")) as server:
        happened = list(EventStream(server.url, reconnect=None))
        assert len(server.requests) == 1
    assert [event.type for event in happened] == ["open", "message", "error"]


def test_a_post_is_not_sent_again():
    with ScriptedServer(stream(b"data: [DONE]\n\n")) as server:
        *_, last = EventStream(server.url, method="POST", data=b"x")
        assert len(server.requests) == 1
    assert isinstance(last.error, StreamEnded)
    assert last.retry_in is None


def test_a_post_is_sent_again_if_the_caller_passes_a_policy():
    with (
        ScriptedServer(stream(b"data: x\n\n")) as server,
        EventStream(server.url, method="POST", data=b"x", reconnect=QUICK) as events,
    ):
        messages(events, 2)
        assert [r.body for r in server.requests] == [b"x", b"x"]


@pytest.mark.parametrize("data", [lambda: iter([b"x"]), lambda: Unseekable(b"x")])
def test_a_body_that_can_be_sent_once_only_is_not_sent_again_empty(data):
    with ScriptedServer(stream(b"data: x\n\n")) as server:
        *_, last = EventStream(server.url, method="POST", data=data(), reconnect=QUICK)
        assert len(server.requests) == 1
    assert isinstance(last.error, requests.exceptions.UnrewindableBodyError)
    assert last.retry_in is None


def test_an_uploaded_file_is_sent_once_only():
    with ScriptedServer(stream(b"data: x\n\n")) as server:
        *_, last = EventStream(
            server.url, method="POST", files={"f": io.BytesIO(b"x")}, reconnect=QUICK
        )
        assert len(server.requests) == 1
    assert isinstance(last.error, requests.exceptions.UnrewindableBodyError)


def test_a_file_is_sent_again_from_where_it_stood():
    file = io.BytesIO(b"abc")
    file.seek(1)
    with (
        ScriptedServer(stream(b"data: x\n\n")) as server,
        EventStream(server.url, method="POST", data=file, reconnect=QUICK) as events,
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

    with (
        ScriptedServer(stream(b"data: x\n\n", then="hold")) as server,
        EventStream(server.url, auth=authorize, reconnect=QUICK) as events,
    ):
        first = next(events)
        assert isinstance(first.error, KeyError)
        assert first.ready_state is ReadyState.CONNECTING
        assert messages(events)[0].data == "x"


# --- What may be set, and what a subclass may have its own of ---


def test_where_to_resume_may_be_set():
    with (
        ScriptedServer(stream(b"id: 1\ndata: a\n\n"), stream(b"data: b\n\n")) as server,
        EventStream(server.url, reconnect=QUICK) as events,
    ):
        messages(events)
        events.last_event_id = "9"
        assert events.last_event_id == events.resume_id == "9"
        assert messages(events)[0].last_event_id == "9"
        assert server.requests[1].header("Last-Event-ID") == "9"


def test_the_reconnection_time_may_be_set():
    policy = ReconnectPolicy(delay=3600, jitter=0)
    with (
        ScriptedServer(stream(b"data: a\n\n"), stream(b"retry: 40\ndata: b\n\n")) as server,
        EventStream(server.url, reconnect=policy) as events,
    ):
        assert events.reconnection_time == 3600
        events.reconnection_time = 0.03
        assert [error.retry_in for error in errors(events, 2)] == [0.03, 0.04]
        assert events.reconnection_time == 0.04


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
    with ScriptedServer(respond(HEAD[:-2] + coding + b"\r\n" + sent)) as server:
        with EventStream(server.url, on_bytes=see, reconnect=None) as events:
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
    with ScriptedServer(status("404 Gone")) as server, EventStream(server.url) as events:
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

    with ScriptedServer(script) as server, EventStream(server.url, reconnect=None) as events:
        found = []
        for event in events:
            found.append(event)
            if isinstance(event, MessageEvent):
                is_first_taken.set()
                found.append(next(events))
                assert events.last_event_id == found[-1].last_event_id
        assert [event.data for event in messages(found, 4)] == ["0", "1", "2", "3"]


def test_take_within_an_iteration_takes_from_it_and_nothing_comes_twice():
    with ScriptedServer(stream(numbers(3), then="hold")) as server:
        with EventStream(server.url) as events:
            opens(events)
            found = []
            for event in events:
                found += [event.data, *(item.data for item in events.take())]
                events.close()
            assert found == ["0", "1", "2"]


def test_take_returns_what_one_read_has_brought_and_has_not_been_yielded():
    with ScriptedServer(stream(numbers(3))) as server:
        with EventStream(server.url, reconnect=None) as events:
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
    with (
        ScriptedServer(stream(b"data: a\n\n", then="hold")) as server,
        EventStream(server.url, auth=lambda request: auth.pop(0)(request)) as events,
    ):
        with pytest.raises(KeyboardInterrupt):
            next(events)
        assert events.ready_state is ReadyState.CONNECTING
        assert messages(events)[0].data == "a"


def test_what_on_bytes_raises_the_iteration_raises_and_then_goes_on():
    on_bytes = [interrupt, lambda chunk: None]
    with (
        ScriptedServer(stream(b"id: 1\ndata: a\n\n", then="hold")) as server,
        EventStream(server.url, on_bytes=lambda chunk: on_bytes.pop(0)(chunk)) as events,
    ):
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
                assert events.last_event_id == str(max(numbers_of(found), default="")), number
                WAYS[way](events, found, 3)
            assert numbers_of(found) == [1, 2, 3], number
            if not point.is_over:
                break
        assert number > 100
        gc.collect()


# --- Event size ---


def test_an_event_that_is_too_large_closes_for_good_after_those_before_it():
    with ScriptedServer(stream(b"data: a\n\ndata: " + b"x" * 200 + b"\n\n", then="hold")) as server:
        events = EventStream(server.url, max_event_size=100)
        happened = list(events)
        assert server.connections[0].gone.wait(LIMIT)
        assert len(server.requests) == 1
    assert [event.type for event in happened] == ["open", "message", "error"]
    assert isinstance(events.error, EventTooLarge)
    assert events.error.limit == 100
    assert events.error.size > 100


# --- Comments ---


def test_comments_come_in_their_place_if_asked_for():
    with ScriptedServer(stream(b": a\ndata: x\n:b\n\n:c\n", then="hold")) as server:
        with EventStream(server.url, comments=True) as events:
            assert [next(events) for _ in range(5)][1:] == [
                Comment("a"),
                Comment("b"),
                MessageEvent("message", "x", "", server.url[:-1]),
                Comment("c"),
            ]


# --- event_timeout ---


def test_silence_is_noticed_and_retried():
    with (
        ScriptedServer(
            stream(b"data: a\n\n", then="hold"), stream(b"data: b\n\n", then="hold")
        ) as s,
        EventStream(s.url, event_timeout=0.1, reconnect=QUICK) as events,
    ):
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

    with (
        ScriptedServer(beat) as server,
        EventStream(server.url, event_timeout=0.2, reconnect=QUICK) as events,
    ):
        assert isinstance(errors(events)[0].error, EventTimeout)


def test_the_timeout_counts_from_the_start_of_an_attempt():
    with port_that_never_answers() as port:
        url = f"http://127.0.0.1:{port}/"
        with EventStream(url, event_timeout=0.1, timeout=None, reconnect=QUICK) as events:
            assert isinstance(errors(events, 2)[1].error, EventTimeout)


@pytest.mark.long
def test_time_that_the_caller_takes_does_not_count():
    timeout = 0.4
    is_taken, is_sent = threading.Event(), threading.Event()

    def script(connection):
        connection.start_stream()
        connection.send_event("a")
        assert is_taken.wait(LIMIT)
        connection.pause(2 * timeout)
        connection.send_event("b")
        is_sent.set()
        connection.hold()

    with (
        ScriptedServer(script) as server,
        EventStream(server.url, event_timeout=timeout, reconnect=QUICK) as events,
    ):
        messages(events)  # on a slow machine perhaps not of the first connection
        is_taken.set()
        assert is_sent.wait(LIMIT)
        assert next(events).data == "b"


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

    with (
        ScriptedServer(script) as server,
        EventStream(server.url, event_timeout=timeout, on_bytes=see, reconnect=QUICK) as events,
    ):
        while not is_seen.is_set():  # a slow machine may not have got to it in time
            event = next(events)
        assert event.type == "message"


# --- close() and restart() ---


def test_close_ends_the_iteration_of_another_thread():
    with ScriptedServer(stream(b"data: a\n\n", then="hold")) as server:
        events = EventStream(server.url)
        recorder, thread = collect(events)
        recorder.next_of(MessageEvent)
        events.close()
        assert joined(thread)
        assert events.ready_state is ReadyState.CLOSED
        assert events.error is None
        assert server.connections[0].gone.wait(LIMIT)
        assert [event.type for event in recorder.events] == ["open", "message"]


def test_nothing_is_yielded_after_close_not_even_what_has_arrived():
    with ScriptedServer(stream(b"data: a\n\ndata: b\n\n", then="hold")) as server:
        events = EventStream(server.url)
        messages(events)
        events.close()
        events.close()
        assert list(events) == []


def test_close_before_the_iteration_prevents_it():
    with ScriptedServer(stream()) as server:
        events = EventStream(server.url)
        events.close()
        assert list(events) == []
        assert server.connections == []


def test_close_cuts_a_back_off_short():
    with port_that_refuses() as port:
        policy = ReconnectPolicy(delay=3600)
        events = EventStream(f"http://127.0.0.1:{port}/", reconnect=policy)
        recorder, thread = collect(events)
        recorder.next_of(ErrorEvent)
        events.close()
        assert joined(thread)


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


def test_restart_makes_a_new_connection_at_once_and_yields_no_error():
    with ScriptedServer(
        stream(b"id: 1\ndata: a\n\n", then="hold"), stream(b"data: b\n\n", then="hold")
    ) as server:
        events = EventStream(server.url, reconnect=ReconnectPolicy(delay=3600))
        recorder, thread = collect(events)
        recorder.next_of(MessageEvent)
        events.restart()
        assert recorder.next_of(MessageEvent).data == "b"
        assert [event.type for event in recorder.events] == ["open", "message"] * 2
        assert server.requests[1].header("Last-Event-ID") == "1"
        assert server.connections[0].gone.wait(LIMIT)
        events.close()
        assert joined(thread)


def test_a_loss_after_a_restart_is_an_error_like_any_other():
    with ScriptedServer(
        stream(b"data: a\n\n", then="hold"), stream(b"data: b\n\n"), stream(then="hold")
    ) as server:
        with EventStream(server.url, reconnect=QUICK) as events:
            messages(events)
            events.restart()
            assert [next(events).type for _ in range(3)] == ["open", "message", "error"]
            assert next(events).type == "open"


def test_restart_cuts_a_back_off_short():
    with ScriptedServer(stream(), stream(b"data: b\n\n", then="hold")) as server:
        events = EventStream(server.url, reconnect=ReconnectPolicy(delay=3600))
        recorder, thread = collect(events)
        recorder.next_of(ErrorEvent)
        events.restart()
        assert recorder.next_of(MessageEvent).data == "b"
        events.close()
        assert joined(thread)


def test_restart_still_yields_what_was_parsed_before():
    with ScriptedServer(
        stream(b"data: a\n\ndata: b\n\n", then="hold"), stream(b"data: c\n\n", then="hold")
    ) as server:
        with EventStream(server.url) as events:
            found = messages(events)
            events.restart()
            found += messages(events, 2)
        assert [event.data for event in found] == ["a", "b", "c"]


def test_restart_sends_a_post_again():
    with (
        ScriptedServer(stream(b"data: a\n\n", then="hold")) as server,
        EventStream(server.url, method="POST", data=b"x") as events,
    ):
        messages(events)
        events.restart()
        messages(events)
        assert [r.method for r in server.requests] == ["POST", "POST"]


def test_restart_of_a_closed_stream_does_nothing():
    with ScriptedServer(stream()) as server:
        events = EventStream(server.url, reconnect=None)
        list(events)
        events.restart()
        assert list(events) == []
        assert len(server.requests) == 1
        assert events.ready_state is ReadyState.CLOSED


def test_one_drop_is_one_error_also_when_restarted_many_times():
    with ScriptedServer(stream(b"data: a\n\n", then="hold")) as server:
        events = EventStream(server.url, reconnect=QUICK)
        recorder, thread = collect(events)
        for number in range(20):
            server.wait_for_connection(number + 1)
            events.restart()
        recorder.next_of(MessageEvent)
        events.close()
        assert joined(thread)
        assert "error" not in [event.type for event in recorder.events]


def test_the_ready_state_follows():
    proceed = threading.Event()

    def script(connection):
        connection.start_stream()
        assert proceed.wait(LIMIT)

    with ScriptedServer(script) as server, EventStream(server.url) as events:
        assert events.ready_state is ReadyState.CONNECTING
        next(events)
        assert events.ready_state is ReadyState.OPEN
        proceed.set()
        next(events)
        assert events.ready_state is ReadyState.CONNECTING
        events.close()
        assert events.ready_state is ReadyState.CLOSED


def test_a_huge_reconnection_time_can_be_waited_for():
    with port_that_refuses() as port:
        policy = ReconnectPolicy(delay=1e15)
        events = EventStream(f"http://127.0.0.1:{port}/", reconnect=policy)
        recorder, thread = collect(events)
        recorder.next_of(ErrorEvent)
        if sys.platform == "linux":
            wait_until_blocked(f"self/task/{thread.native_id}")
        events.restart()
        recorder.next_of(ErrorEvent)
        events.close()
        assert joined(thread)


def test_closing_needs_no_second_signal_when_it_comes_from_the_iterating_thread():
    with ScriptedServer(stream(b"data: a\n\n" * 3)) as server:
        seen = []
        with EventStream(server.url, reconnect=QUICK) as events:
            for event in events:
                seen.append(event.type)
                if event.type == "message":
                    events.close()
        assert seen == ["open", "message"]


@pytest.mark.parametrize(("method", "goes_on"), [("HEAD", True), ("OPTIONS", False)])
def test_a_head_request_is_sent_again_as_a_get_is_and_others_are_not(method, goes_on):
    with ScriptedServer(respond(HEAD)) as server:
        with EventStream(server.url, method=method) as events:
            opens(events)
            assert (next(events).retry_in is not None) == goes_on


def test_comments_are_not_yielded_unless_asked_for():
    with ScriptedServer(stream(b": a\n\ndata: x\n\n", then="hold")) as server:
        with EventStream(server.url) as events:
            next(events)
            assert next(events).data == "x"


@pytest.mark.parametrize("field", [b"Content-Length: 5\r\n", b""])
@pytest.mark.parametrize("status", [b"200 OK", b"400 Bad Request"])
def test_the_body_of_what_is_no_event_stream_is_kept(field, status):
    page = b"HTTP/1.1 %b\r\nContent-Type: text/html\r\n%b\r\nhello" % (status, field)
    with ScriptedServer(respond(page)) as server, EventStream(server.url) as events:
        error = next(events).error
    assert error.response.content == b"hello"
    assert error.response.text == "hello"


def test_no_more_than_64_kib_of_a_refused_body_are_kept():
    page = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n" + b"x" * 100_000
    with ScriptedServer(respond(page)) as server, EventStream(server.url) as events:
        error = next(events).error
    assert error.response.content == b"x" * 65536


def test_what_is_no_content_coding_changes_nothing():
    head = HEAD[:-2] + b"Content-Encoding: utf-8\r\n\r\n"  # seen in the wild
    with ScriptedServer(respond(head + b"data: x\n\n")) as server:
        with EventStream(server.url) as events:
            assert messages(events)[0].data == "x"


def test_a_server_that_closes_without_an_answer_is_said_to():
    with ScriptedServer(respond(b"")) as server, EventStream(server.url) as events:
        assert str(next(events).error) == "the server closed the connection without an answer"


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
    with ScriptedServer(stream(b"id: 1\ndata: rare\n\n", then="hold")) as server:
        with EventStream(server.url) as events, ThreadPoolExecutor(1) as pool:
            if way == "async for":
                reading = pool.submit(asyncio.run, iterate_on_a_loop(events))
            else:
                reading = pool.submit(iterate, events)
            wait_until(lambda: found)
            wait_until(lambda: not is_kept())
            assert not reading.done()
            events.close()
            reading.result(LIMIT)


# --- The certificate ---


def test_the_servers_certificate_is_there_while_the_connection_is_open(tmp_path):
    authority, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1", common_name="the server").configure_cert(context)
    pem = tmp_path / "ca.pem"
    pem.write_bytes(authority.cert_pem.bytes())
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
def test_a_certificate_that_was_not_verified_is_empty(tmp_path):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    with ScriptedServer(stream(b"data: x\n\n", then="hold"), ssl_context=context) as server:
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
