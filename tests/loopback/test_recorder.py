"""`Recorder` and `wait_until`, `emit` and `aemit`: tests that never sleep."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from eventsource import (
    Comment,
    ErrorEvent,
    EventSource,
    MessageEvent,
    OpenEvent,
    ReadyState,
    dispatch,
)
from eventsource.testing import Recorder, SSEServer, aemit, emit, wait_until
from tests.support import LIMIT

SOON = 0.01
"""Seconds for waits that are to fail."""


def an_event(kind, data=""):
    return MessageEvent(kind, data)


@pytest.fixture
def source():
    """A source that never connects."""
    with EventSource("https://unused.example/stream", start=False) as source:
        yield source


# --- wait_until ---


def test_wait_until_returns_what_the_condition_does():
    values = iter([None, 0, "", "there", "later"])
    assert wait_until(lambda: next(values)) == "there"


def test_wait_until_gives_up_with_a_last_look():
    looks = []

    def never():
        looks.append(time.monotonic())
        return []

    started = time.monotonic()
    with pytest.raises(
        TimeoutError, match=r"^waited 0.05 s for .*never, which still returns \[\]$"
    ):
        wait_until(never, 0.05)
    assert looks[-1] - started >= 0.05
    assert len(looks) >= 2
    looks.clear()
    with pytest.raises(TimeoutError):
        wait_until(never, 0)
    assert len(looks) == 1
    assert wait_until(lambda: True, 0)


def test_wait_until_looks_again_after_a_look_that_took_too_long():
    looks = []

    def slow():
        looks.append(threading.Event().wait(2 * SOON))
        return len(looks) == 2

    assert wait_until(slow, SOON)


def test_wait_until_raises_what_the_condition_raises():
    with pytest.raises(ZeroDivisionError):
        wait_until(lambda: 1 / 0)


# --- Recorder ---


def test_a_recorder_has_an_event_when_the_handlers_before_it_have_run():
    done = []
    slow = threading.Event()

    def handler(event):
        slow.wait(0.02)
        done.append(event.data)

    with SSEServer() as server, EventSource(server.url, start=False) as source:
        source.on("greet", handler)
        recorder = Recorder(source, "greet")
        source.start()
        for number in range(3):
            server.send(f"{number}", event="greet")
            assert recorder.wait_for("greet", LIMIT).data == f"{number}"
            assert done[-1] == f"{number}"


def test_a_recorder_registers_for_the_usual_types_and_those_it_is_given(source):
    recorder = Recorder(source, "greet", "message")
    assert source.event_names() - {"new_listener"} == {"open", "message", "error", "greet"}
    for kind in ("greet", "message", "open", "other"):
        emit(source, kind)
    assert [event.type for event in recorder.events] == ["greet", "message", "open"]


class Watched(EventSource):
    """Says whether what waits for the first listener is let through."""

    @property
    def lets_through(self):
        return self._has_listened.is_open


def test_a_recorder_hears_what_waits_for_the_first_handler_with_all_its_types():
    with Watched("http://unused.example/", start=False) as source:
        let_through = []
        source.on("new_listener", lambda *_: let_through.append(source.lets_through))
        Recorder(source, "greet")
        assert let_through == [False] * 4
        assert source.lets_through


def test_what_a_recorder_cannot_listen_to_is_refused(source):
    with pytest.raises(TypeError, match="source must be an EventSource, not 'greet'"):
        Recorder("greet")
    with pytest.raises(TypeError, match="event must be a str, not 1"):
        Recorder(source, 1)


def test_a_recorder_alone_is_a_handler():
    recorder = Recorder()
    recorder(an_event("a"))
    recorder("a comment")
    assert recorder.events == [an_event("a"), "a comment"]
    assert recorder.next() == an_event("a")
    assert recorder.next() == "a comment"
    with pytest.raises(TimeoutError, match=r"^waited 0.01 s for an event; there came nothing$"):
        recorder.next(SOON)


def test_wait_for_takes_a_type_a_class_or_a_function():
    recorder = Recorder()
    events = [
        an_event("error", "sent by the server"),
        OpenEvent("open", "", 200, {}),
        ErrorEvent("error", OSError(), ReadyState.CONNECTING, 1.0),
        an_event("message", "x"),
    ]
    for event in events:
        recorder(event)
    assert recorder.wait_for("error") is events[0]
    assert recorder.wait_for(ErrorEvent) is events[2]  # the open event is passed over
    assert recorder.wait_for(lambda event: event.data == "x") is events[3]
    assert recorder.events == events
    for wrong in (1, None):
        with pytest.raises(TypeError, match="what must be an event type, a class or a function"):
            recorder.wait_for(wrong)


def test_a_wait_that_fails_passes_nothing_over_and_says_what_came():
    recorder = Recorder()
    recorder(an_event("a", "taken"))
    recorder.next()
    recorder(an_event("b", "left"))
    with pytest.raises(TimeoutError, match="waited 0.01 s for c; there came MessageEvent.*'left'"):
        recorder.wait_for("c", SOON)
    with pytest.raises(TimeoutError, match="for OpenEvent; there came"):
        recorder.wait_for(OpenEvent, SOON)
    assert recorder.next().data == "left"
    recorder(an_event("c", "x" * 10_000))
    with pytest.raises(TimeoutError) as caught:
        recorder.wait_for("d", 0)
    assert len(str(caught.value)) < 1000


def test_a_wait_ends_also_if_events_keep_coming():
    recorder = Recorder()
    recorder("first")

    def condition(_):
        recorder("another")
        return False

    with pytest.raises(TimeoutError, match="'first', 'another'"):
        recorder.wait_for(condition, SOON)


def test_a_wait_looks_at_what_is_there_although_its_time_is_up():
    recorder = Recorder()
    for kind in ("a", "b", "c"):
        recorder(an_event(kind))
    assert recorder.wait_for("c", 0) == an_event("c")


def test_a_wait_goes_on_when_the_event_comes():
    recorder, looked = Recorder(), threading.Event()

    def is_b(event):
        looked.set()
        return event.type == "b"

    with ThreadPoolExecutor(1) as executor:
        waiting = executor.submit(recorder.wait_for, is_b, LIMIT)
        recorder(an_event("a"))
        assert looked.wait(LIMIT)  # and there was no more
        recorder(an_event("b"))
        assert waiting.result(LIMIT) == an_event("b")


def test_no_event_is_returned_twice():
    recorder = Recorder()
    count, threads = 400, 4
    start = threading.Barrier(threads)

    def take():
        start.wait()
        return [recorder.wait_for(MessageEvent, LIMIT).data for _ in range(count // threads)]

    with ThreadPoolExecutor(threads) as executor:
        taken = [executor.submit(take) for _ in range(threads)]
        for number in range(count):
            recorder(an_event("message", number))
        numbers = [number for future in taken for number in future.result(LIMIT)]
    assert sorted(numbers) == list(range(count))


def test_a_condition_is_called_without_the_lock():
    recorder = Recorder()
    recorder(an_event("a"))

    def condition(_):
        with ThreadPoolExecutor(1) as executor:
            return executor.submit(lambda: recorder.events).result(LIMIT)

    assert recorder.wait_for(condition, LIMIT) == an_event("a")


def test_on_an_event_loop_a_recorder_is_waited_for_in_a_thread():
    async def main(url):
        done = []

        async def handler(event):
            await asyncio.sleep(0)
            done.append(event.data)

        async with EventSource(
            url, on_message=handler, dispatch=dispatch.asyncio(), start=False
        ) as source:
            recorder = Recorder(source)
            source.start()
            event = await asyncio.to_thread(recorder.wait_for, MessageEvent, LIMIT)
            assert done == [event.data] == ["x"]

    with SSEServer() as server:
        server.send("x")
        asyncio.run(asyncio.wait_for(main(server.url), LIMIT))


# --- emit ---


def test_emit_calls_the_handlers_here_and_now_in_order(source):
    calls = []
    source.on("greet", lambda event: calls.append((1, event, threading.get_ident())))
    source.once("greet", lambda event: calls.append((2, event, threading.get_ident())))
    assert emit(source, "greet", "hello", id="7") is True
    event = MessageEvent("greet", "hello", "7", "https://unused.example")
    assert calls == [(1, event, threading.get_ident()), (2, event, threading.get_ident())]
    assert emit(source, "greet")
    assert [number for number, *_ in calls] == [1, 2, 1]
    assert emit(source, "other") is False


def test_emit_does_not_reach_the_listeners_of_new_listener_as_no_server_does(source):
    calls = []
    source.on("new_listener", lambda *args: calls.append(args))
    assert emit(source, "new_listener") is False
    assert calls == []


def test_emit_makes_the_event_that_a_stream_would(source):
    recorder = Recorder(source)
    assert emit(source, "", "two\r\nlines\r", id="7")
    assert recorder.next() == MessageEvent("message", "two\nlines\n", "7", "https://unused.example")


def test_emit_ignores_dispatch():
    def refuse(call):
        raise AssertionError("dispatched")

    events = []
    source = EventSource(
        "https://unused.example/", start=False, dispatch=refuse, on_message=events.append
    )
    emit(source, "message", "x")
    assert events[0].data == "x"


def test_emit_raises_the_first_exception_as_it_is_and_logs_nothing(source, caplog):
    calls = []

    def fail(event):
        raise KeyError(event.data)

    source.on("greet", fail)
    source.on("greet", calls.append)
    with caplog.at_level(logging.DEBUG), pytest.raises(KeyError, match="hello"):
        emit(source, "greet", "hello", id="7")
    assert calls == []
    assert caplog.records == []
    assert source.last_event_id == ""  # its handlers have not all run


def test_emit_follows_the_last_event_id(source):
    ids = []
    source.on("message", lambda event: ids.append((source.last_event_id, event.last_event_id)))
    emit(source, "message", id="1")
    emit(source, "message")
    emit(source, "message", id="")
    assert ids == [("", "1"), ("1", "1"), ("1", "")]
    assert source.last_event_id == ""


def test_emit_calls_nobody_who_was_removed_or_after_close(source):
    calls = []

    def first(event):
        calls.append(1)
        source.remove_listener("message", second)

    def second(event):
        calls.append(2)

    def third(event):
        calls.append(3)
        source.close()

    for handler in (first, second, third, second, lambda _: calls.append(4)):
        source.on("message", handler)
    emit(source, "message")
    assert calls == [1, 3]
    assert emit(source, "message") is False
    assert emit(source, Comment("x")) is False


def test_emit_takes_events_of_every_kind():
    recorder, comments = Recorder(), Recorder()
    with EventSource(
        "https://unused.example/",
        start=False,
        on_open=recorder,
        on_error=recorder,
        on_comment=comments,
    ) as source:
        events = [
            OpenEvent("open", source.url, 200, {}),
            ErrorEvent("error", ConnectionError(), ReadyState.CONNECTING, 3.0),
            MessageEvent("error", "the server's own", "9"),
        ]
        for event in events:
            assert emit(source, event)
        assert emit(source, Comment("heartbeat"))
        assert source.last_event_id == "9"
    assert emit(source, Comment("after close")) is False
    assert recorder.events == events
    assert comments.events == ["heartbeat"]


def test_emit_of_a_comment_without_on_comment(source):
    assert emit(source, Comment("x")) is False


@pytest.mark.parametrize(
    ("arguments", "options", "error", "text"),
    [
        ((1,), {}, TypeError, "event must be a str or an event, not 1"),
        (("a\nb",), {}, ValueError, "event must not contain a line end"),
        (("a", b"x"), {}, TypeError, "data must be a str, not b'x'"),
        (("a",), {"id": "\0"}, ValueError, "id must not contain a line end or NUL"),
        ((MessageEvent("a"), "x"), {}, TypeError, "data and id are those of the event"),
        ((MessageEvent("a"),), {"id": ""}, TypeError, "data and id are those of the event"),
    ],
)
def test_emit_refuses_what_no_stream_can_hold(source, arguments, options, error, text):
    calls = []
    source.on("a", calls.append)
    with pytest.raises(error, match=text):
        emit(source, *arguments, **options)
    assert calls == []


def test_aemit_awaits_coroutine_handlers_in_order():
    async def main():
        calls = []

        async def first(event):
            await asyncio.sleep(0)
            calls.append((1, event.data))

        async def fail(event):
            await asyncio.sleep(0)
            raise KeyError(event.data)

        async with EventSource(
            "https://unused.example/", start=False, dispatch=dispatch.asyncio()
        ) as source:
            source.on("greet", first)
            source.on("greet", lambda event: calls.append((2, event.data)))
            assert await aemit(source, "greet", "hello", id="7") is True
            assert calls == [(1, "hello"), (2, "hello")]
            assert source.last_event_id == "7"
            assert await aemit(source, "other") is False
            with pytest.raises(TypeError, match=r"is a coroutine function: await aemit\(...\)"):
                emit(source, "greet")
            source.on("broken", fail)
            with pytest.raises(KeyError, match="x"):
                await aemit(source, "broken", "x")

    asyncio.run(main())


@pytest.mark.parametrize("ends", [False, True])
def test_emit_refuses_a_source_whose_own_events_would_come_in_between(ends):
    with SSEServer() as server, EventSource(server.url, reconnect=None) as source:
        if ends:
            server.wait_for_connection()
            server.end()
        with pytest.raises(RuntimeError, match="start=False"):
            emit(source, "greet")
