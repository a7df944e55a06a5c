"""`messages()`: the messages alone, and what is raised; `take()` with a limit; one thread."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from eventsource import (
    BrokenBody,
    ErrorEvent,
    EventStream,
    EventTimeout,
    MessageEvent,
    OpenEvent,
    ReconnectPolicy,
    StreamEnded,
    UnexpectedContentType,
    UnexpectedStatus,
)
from eventsource.http.exchange import Exchange
from eventsource.runtime.wakeup import Wakeup
from tests import on_loop
from tests.on_loop import asyncio_has_nothing_to_complain_of  # noqa: F401 - a fixture
from tests.support import (
    CHUNKED,
    HEAD,
    LIMIT,
    QUICK,
    numbers,
    port_that_never_answers,
    port_that_refuses,
    reading,
    respond,
    status,
    stream,
    wait_until,
)

TWO = numbers(2)


def by_for(events):
    return [event.data for event in events.messages()]


def by_async_for(events):
    async def read():
        async with events:
            return [event.data async for event in events.messages()]

    return asyncio.run(read())


WAYS = pytest.mark.parametrize("read", [by_for, by_async_for])


# --- What is yielded, and how it ends ---


@WAYS
@pytest.mark.parametrize(
    "body",
    [
        HEAD + TWO,  # to the end of the connection
        HEAD[:-2] + b"Content-Length: %d\r\n\r\n" % len(TWO) + TWO,
        CHUNKED + b"%x\r\n%b\r\n0\r\n\r\n" % (len(TWO), TWO),
    ],
)
def test_a_complete_body_is_a_normal_end_if_it_is_not_to_reconnect(read, body):
    with reading(respond(body), reconnect=None) as (events, _):
        assert read(events) == ["0", "1"]
        assert isinstance(events.error, StreamEnded)
        assert events.ended


@WAYS
def test_204_is_a_normal_end(read):
    with reading(stream(TWO), status("204 No Content"), reconnect=QUICK) as (events, _):
        assert read(events) == ["0", "1"]
        assert events.ended


@WAYS
@pytest.mark.parametrize(
    ("script", "error"),
    [
        (status("401 Unauthorized"), UnexpectedStatus),
        (respond(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n"), UnexpectedContentType),
        (respond(HEAD[:-2] + b"Content-Length: 99\r\n\r\n" + TWO), BrokenBody),
        (respond(CHUNKED + b"%x\r\n%b\r\n" % (len(TWO), TWO)), BrokenBody),
    ],
)
def test_what_closes_for_good_is_raised(read, script, error):
    with reading(script, reconnect=None) as (events, _):
        with pytest.raises(error) as raised:
            read(events)
        assert raised.value is events.error
        assert not events.ended


def test_what_came_before_the_failure_is_yielded_first():
    found = []
    with reading(stream(TWO), status("401 Unauthorized"), reconnect=QUICK) as (events, _):
        with pytest.raises(UnexpectedStatus):
            found.extend(events.messages())  # which keeps what it had
    assert [event.data for event in found] == ["0", "1"]


def test_attempts_that_are_used_up_are_raised_also_if_each_body_ended_in_order():
    policy = ReconnectPolicy(delay=0.02, max_delay=0.02, max_attempts=2)
    with reading(stream(b":\n"), reconnect=policy) as (events, _):
        with pytest.raises(StreamEnded):
            list(events.messages())
        assert not events.ended


def test_a_policy_that_ends_with_the_stream_has_no_failure():
    class Once(ReconnectPolicy):
        def is_final(self, error, failures):
            return isinstance(error, StreamEnded) or super().is_final(error, failures)

    with reading(stream(TWO), reconnect=Once()) as (events, _):
        assert by_for(events) == ["0", "1"]


@WAYS
def test_close_is_a_normal_end(read):
    with reading(stream(TWO, then="hold")) as (events, _), ThreadPoolExecutor(1) as pool:
        found = pool.submit(read, events)
        wait_until(lambda: events.last_event_id == "1")
        events.close()
        assert found.result(LIMIT) == ["0", "1"]


def test_it_raises_what_has_been_yielded_as_an_event_already():
    with reading(status("401 Unauthorized")) as (events, _):
        (lost,) = events
        for _ in range(2):
            with pytest.raises(UnexpectedStatus) as raised:
                list(events.messages())
            assert raised.value is lost.error


def test_a_new_iterator_goes_on_and_dropping_one_closes_nothing():
    with reading(stream(numbers(4), then="hold")) as (events, server):
        messages = events.messages()
        for event in messages:
            assert event.data == "0"
            break
        assert next(iter(messages)).data == "1"
        assert next(iter(events.messages())).data == "2"
        assert next(events).data == "3"
        assert len(server.connections) == 1


def test_it_reconnects_and_resumes_and_yields_no_comments():
    scripts = [stream(b": a\n" + TWO), stream(numbers(2, 2)), status("204 x")]
    with reading(*scripts, reconnect=QUICK, comments=True) as (events, server):
        assert by_for(events) == ["0", "1", "2", "3"]
        assert [request.header("Last-Event-ID") for request in server.requests] == [None, "1", "3"]


# --- What is logged meanwhile ---


@WAYS
def test_an_outage_is_a_warning_once(read, caplog):
    caplog.set_level(logging.INFO, "eventsource")
    with port_that_refuses() as port:
        policy = ReconnectPolicy(delay=0.02, max_delay=0.02, max_attempts=3)
        with pytest.raises(requests.ConnectionError):
            read(EventStream(f"http://127.0.0.1:{port}/", reconnect=policy))
    # The last is raised.
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO", "INFO"]
    assert "closed for good" in caplog.text


def test_a_loop_over_everything_sees_the_failures_and_logs_information(caplog):
    caplog.set_level(logging.INFO, "eventsource")
    policy = ReconnectPolicy(delay=0.02, statuses={503})
    with reading(status("503 x"), status("404 x"), reconnect=policy) as (events, _):
        assert len(list(events)) == 2
    assert [record.levelname for record in caplog.records] == ["INFO", "INFO"]


# --- Content types ---


def answer(content_type):
    field = b"" if content_type is None else b"Content-Type: %b\r\n" % content_type
    return respond(b"HTTP/1.1 200 OK\r\n%b\r\ndata: x\n\n" % field)


@pytest.mark.parametrize(
    ("accepted", "content_type", "is_accepted"),
    [
        (("text/event-stream",), b"text/event-stream; charset=utf-8", True),
        (("text/event-stream",), b"Text/Event-Stream", True),
        (("text/event-stream",), None, False),
        (("text/plain",), b"text/plain", True),
        (("Text/Plain; charset=x",), b"text/plain;charset=utf-8", True),
        (("text/plain",), b"text/event-stream", False),
        (["text/event-stream", ""], None, True),
        ([""], b"text/event-stream", False),
        ({"*/*"}, b"application/json", True),
        ({"*/*"}, None, True),
    ],
)
def test_the_content_types_are_those_that_are_accepted(accepted, content_type, is_accepted):
    script = answer(content_type)
    with reading(script, reconnect=None, content_types=accepted) as (events, _):
        if is_accepted:
            assert by_for(events) == ["x"]
        else:
            with pytest.raises(UnexpectedContentType) as refused:
                by_for(events)
            assert refused.value.response.content == b"data: x\n\n"  # it may have been paid for
            said = "'s content type is " if content_type else " has no content type; "
            assert str(refused.value).startswith(f"the response{said}")


@pytest.mark.parametrize(
    ("value", "error"),
    [
        *[(value, TypeError) for value in ("text/plain", b"text/plain", 7, [7])],
        *[(value, ValueError) for value in ([], ["text"], ["text/*"], ["a b/c"])],
    ],
)
def test_what_is_no_collection_of_types_is_refused_by_name(value, error):
    with pytest.raises(error, match="^content_types"):
        EventStream("http://127.0.0.1:9/", content_types=value)


# --- take(timeout=) ---


def test_take_waits_no_longer_than_that_and_drops_nothing():
    more = threading.Event()

    def script(connection):
        connection.start_stream()
        connection.send(b"id: 1\ndata: a\n\ndata: un")
        assert more.wait(LIMIT)
        connection.send(b"finished\n\n")
        connection.hold()

    with reading(script) as (events, server):
        found = []
        while len(found) < 2:
            found += events.take(timeout=LIMIT)
        with pytest.raises(TimeoutError, match=r"nothing has happened for 0\.05 seconds"):
            events.take(timeout=0.05)
        with pytest.raises(TimeoutError):
            events.take(timeout=0)
        more.set()
        (event,) = events.take(timeout=LIMIT)
        assert event == MessageEvent("message", "unfinished", "1", server.url.rstrip("/"))
        assert len(server.connections) == 1


def test_take_with_a_timeout_of_0_returns_what_has_arrived():
    with reading(stream(TWO, then="hold")) as (events, _):
        opened = events.take(timeout=LIMIT)
        assert isinstance(opened[0], OpenEvent)
        found = []

        def has_come():
            try:
                found.extend(events.take(timeout=0))
            except TimeoutError:
                return False
            return len(found) == 2

        wait_until(has_come)


def test_an_attempt_goes_on_when_the_time_is_up():
    answer = threading.Event()

    def script(connection):
        connection.read_request()
        assert answer.wait(LIMIT)
        connection.send(HEAD + TWO)
        connection.hold()

    with reading(script) as (events, server):
        for _ in range(3):
            with pytest.raises(TimeoutError):
                events.take(timeout=0.02)
        wait_until(lambda: server.requests)
        answer.set()
        assert isinstance(next(events), OpenEvent)  # without a limit, too
        assert next(events).data == "0"
        assert len(server.connections) == 1


@pytest.fixture
def connecting():
    """A stream whose step goes on in the background: its server does not answer."""
    with (
        port_that_never_answers() as port,
        EventStream(f"http://127.0.0.1:{port}/", timeout=None) as events,
    ):
        with pytest.raises(TimeoutError):
            events.take(timeout=0.02)
        assert len(steps()) == 1
        yield [events]  # which the test may drop


def steps():
    """The threads of the steps that go on in the background."""
    return [t for t in threading.enumerate() if t.name.endswith("(step)")]


@pytest.mark.parametrize("call", ["close", "restart"])
def test_close_and_restart_end_an_attempt_that_goes_on(connecting, call):
    (events,) = connecting
    (thread,) = steps()
    getattr(events, call)()
    thread.join(LIMIT)
    assert not thread.is_alive()
    if call == "close":
        assert events.take(timeout=LIMIT) == []
    else:
        with pytest.raises(TimeoutError):  # in the next attempt
            events.take(timeout=0.02)


def test_an_interruption_of_the_wait_closes_nothing_under_the_thread_that_goes_on(
    connecting, monkeypatch
):
    left = []
    monkeypatch.setattr(Exchange, "leave", left.append)
    (events,) = connecting
    monkeypatch.setattr(events._engine, "_wakeup", Interrupting())
    with pytest.raises(KeyboardInterrupt):
        events.take(timeout=LIMIT)
    assert left == []
    events.close()
    wait_until(lambda: not steps())


class Interrupting(Wakeup):
    """What a signal handler may raise while one waits."""

    def wait(self, timeout=None):
        raise KeyboardInterrupt


@pytest.mark.long
def test_close_ends_the_wait_for_an_attempt_that_it_cannot_end():
    with port_that_never_answers() as port, requests.Session() as session:
        events = EventStream(f"http://127.0.0.1:{port}/", session=session, timeout=(2, None))
        with pytest.raises(TimeoutError):
            events.take(timeout=0.02)
        events.close()
        assert events.take() == []
        assert steps()
        wait_until(lambda: not steps())


def test_a_stream_that_is_dropped_ends_an_attempt_that_goes_on():
    with port_that_never_answers() as port:
        events = EventStream(f"http://127.0.0.1:{port}/", timeout=None)
        with pytest.raises(TimeoutError):
            events.take(timeout=0.02)
        del events
        wait_until(lambda: not steps())


def test_a_wait_for_the_next_attempt_is_limited_and_goes_on():
    with reading(stream(TWO), reconnect=ReconnectPolicy(delay=3600)) as (events, _):
        while not isinstance(events.take(timeout=LIMIT)[-1], ErrorEvent):
            pass
        for _ in range(2):
            with pytest.raises(TimeoutError):
                events.take(timeout=0.02)
        events.restart()
        assert isinstance(events.take(timeout=LIMIT)[0], OpenEvent)


def test_on_a_session_of_the_callers_a_read_goes_on_too():
    more = threading.Event()

    def script(connection):
        connection.start_stream()
        assert more.wait(LIMIT)
        connection.send(TWO)
        connection.hold()

    with requests.Session() as session, reading(script, session=session) as (events, server):
        assert isinstance(events.take(timeout=LIMIT)[0], OpenEvent)
        for _ in range(3):
            with pytest.raises(TimeoutError):
                events.take(timeout=0.02)
        more.set()
        assert [event.data for event in events.take(timeout=LIMIT)] == ["0", "1"]
        assert len(server.connections) == 1


def test_a_limit_that_is_shorter_than_the_event_timeout_counts():
    with reading(stream(then="hold"), event_timeout=3600) as (events, _):
        next(events)
        with pytest.raises(TimeoutError):
            events.take(timeout=0.02)


def test_reads_that_bring_no_item_do_not_hold_it_up(monkeypatch):
    with reading(stream(then="hold")) as (events, _):
        next(events)
        monkeypatch.setattr(Exchange, "read", lambda *_: b":\n")
        with pytest.raises(TimeoutError):
            events.take(timeout=0.02)


@pytest.mark.parametrize(
    ("options", "error"),
    [({"event_timeout": 0.2}, EventTimeout), ({"timeout": (5, 0.2)}, requests.ReadTimeout)],
)
def test_other_limits_count_over_several_takes(options, error):
    with reading(stream(then="hold"), reconnect=None, **options) as (events, _):
        next(events)
        lost = []

        def is_lost():
            with contextlib.suppress(TimeoutError):
                lost.extend(events.take(timeout=0.05))
            return lost

        wait_until(is_lost)
    assert isinstance(lost[0].error, error)


def test_a_failure_comes_out_of_the_background():
    with reading(status("401 x", body=b"why")) as (events, _):
        (lost,) = events.take(timeout=LIMIT)
    assert isinstance(lost.error, UnexpectedStatus)
    assert lost.error.response.content == b"why"


@pytest.mark.parametrize(
    ("value", "error"), [(-1, ValueError), ("1", TypeError), (True, TypeError)]
)
def test_a_timeout_that_is_no_number_of_seconds_is_refused(value, error):
    with EventStream("http://127.0.0.1:9/") as events, pytest.raises(error, match="^timeout"):
        events.take(timeout=value)


# --- One thread at a time ---


@pytest.mark.parametrize("way", ["next", "take", "take with a limit", "messages", "async for"])
def test_a_second_thread_that_iterates_is_refused(way):
    async def anyhow(events):
        async for _ in events:
            pass

    ways = {
        "next": next,
        "take": lambda events: events.take(),
        "take with a limit": lambda events: events.take(timeout=LIMIT),
        "messages": lambda events: next(iter(events.messages())),
        "async for": lambda events: asyncio.run(anyhow(events)),
    }
    with reading(stream(then="hold")) as (events, _), ThreadPoolExecutor(1) as pool:
        assert isinstance(next(events), OpenEvent)
        first = pool.submit(events.take)
        wait_until(lambda: events._engine._stepper)
        with pytest.raises(RuntimeError, match="another thread is iterating"):
            ways[way](events)
        assert not first.done()
        events.close()
        assert first.result(LIMIT) == []


def test_threads_may_take_turns():
    with reading(stream(numbers(40), then="hold")) as (events, _), ThreadPoolExecutor(1) as pool:
        next(events)
        found = []
        for _ in range(20):
            found.append(next(events).data)
            found.append(pool.submit(next, events).result(LIMIT).data)
        assert found == [str(number) for number in range(40)]


def test_a_thread_that_ended_in_the_middle_of_a_step_is_in_nobodys_way():
    with reading(stream(TWO, then="hold")) as (events, _):
        thread = threading.Thread(target=lambda: None)
        thread.start()
        thread.join()
        events._engine._stepper[""] = thread.ident
        assert isinstance(next(events), OpenEvent)


async def test_with_async_for_the_last_event_id_is_that_of_what_was_returned():
    """Two messages and an id alone in one read."""
    body = b"id: 1\ndata: a\n\nid: 2\ndata: b\n\nid: 3\n\n"
    async with on_loop.reading(stream(body, then="hold")) as (events, _):
        iterator = aiter(events.messages())
        found = []
        for _ in range(2):
            event = await anext(iterator)
            found.append((event.data, events.last_event_id))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(anext(iterator), 0.01)
        assert found == [("a", "1"), ("b", "2")]
        assert events.last_event_id == "3"
        assert not events._engine.session.kept.items  # large, perhaps
