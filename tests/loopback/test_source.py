"""`EventSource`: the reader thread, the handlers and what they may rely on."""

from __future__ import annotations

import functools
import gc
import itertools
import logging
import sys
import threading

import pytest

from eventsource import (
    ErrorEvent,
    EventSource,
    EventTooLarge,
    MessageEvent,
    OpenEvent,
    ReadyState,
    StreamEnded,
)
from eventsource.testing import ScriptedServer
from tests.support import (
    LIMIT,
    QUERY_SECRET,
    QUICK,
    SECRET,
    Recorder,
    record,
    served,
    status,
    stream,
    wait_until,
)


@pytest.fixture
def server():
    with ScriptedServer(stream(b"id: 1\ndata: a\n\nid: 2\ndata: b\n\n", then="hold")) as server:
        yield server


# --- Handlers ---


def test_handlers_given_to_the_constructor_miss_nothing(server):
    opened, received, comments = Recorder(), Recorder(), Recorder()
    with EventSource(server.url, on_open=opened, on_message=received, on_comment=comments):
        assert isinstance(opened.next(), OpenEvent)
        assert [received.next().data for _ in range(2)] == ["a", "b"]


def test_on_error_is_called_when_the_connection_is_lost():
    lost = Recorder()
    with served(EventSource, stream(b"data: a\n\n"), on_error=lost, reconnect=QUICK):
        event = lost.next()
    assert isinstance(event, ErrorEvent)
    assert isinstance(event.error, StreamEnded)
    assert event.ready_state is ReadyState.CONNECTING
    assert event.retry_in == pytest.approx(0.02)


def test_handlers_run_in_the_reader_thread(server):
    threads = Recorder()

    def note(event):
        threads(threading.current_thread())

    with EventSource(server.url, on_open=note, on_message=note):
        reader = threads.next()
        assert threads.next() is threads.next() is reader
    assert reader.name == f"eventsource {server.url}"
    assert reader.daemon


def test_a_handler_that_raises_is_logged_and_stops_nobody(server, caplog):
    def fail(event):
        raise RuntimeError("handler failed")

    received = Recorder()
    with EventSource(server.url, start=False) as source:
        source.on("open", fail)
        source.on("message", fail)
        source.on("message", received)
        source.start()
        assert [received.next().data for _ in range(2)] == ["a", "b"]
    records = [r for r in caplog.records if r.levelno == logging.ERROR]
    assert len(records) == 3
    assert all(r.name.startswith("eventsource") and r.exc_info for r in records)
    assert "fail" in records[0].getMessage()
    assert "RuntimeError: handler failed" in caplog.text


def test_a_comment_handler_that_raises_stops_nobody_either(caplog):
    received = Recorder()
    with served(
        EventSource,
        stream(b": hi\ndata: a\n\n", then="hold"),
        on_comment=lambda _: 1 / 0,
        on_message=received,
    ):
        assert received.next().data == "a"
    assert "ZeroDivisionError" in caplog.text


def test_comments_reach_on_comment_in_their_place():
    calls = Recorder()
    blocks = b": one\ndata: a\n\n:two\ndata: b\n:  three\n\n"
    with served(
        EventSource,
        stream(blocks, then="hold"),
        on_comment=calls,
        on_message=lambda event: calls(event.data.upper()),
    ):
        assert [calls.next() for _ in range(5)] == ["one", "A", "two", " three", "B"]


def test_each_change_of_the_listeners_is_in_force_for_the_next_event_of_the_same_read():
    blocks = b"".join(b"data: %d\n\n" % number for number in range(60))
    heard = []

    def other(event):
        heard.append((event.data, "other"))

    def removed(event):
        heard.append((event.data, "removed"))

    def first(event):
        heard.append((event.data, "first"))
        if event.data == "10":
            source.once("message", other)  # which removes itself at 11
        elif event.data == "20":
            source.remove_listener("message", removed)
        elif event.data == "30":
            source.onmessage = other
        elif event.data == "40":
            source.onmessage = None
        elif event.data == "50":
            source.remove_all_listeners("message")

    with served(EventSource, stream(blocks, b"id: end\n\n", then="hold"), start=False) as (
        _,
        source,
    ):
        source.on("message", first)
        source.listens_to("message")(removed)
        source.start()
        wait_until(lambda: source.last_event_id == "end")
    expected = []
    for number in range(51):
        expected.append((str(number), "first"))
        if number < 20:
            expected.append((str(number), "removed"))
        if number == 11 or 31 <= number < 40:
            expected.append((str(number), "other"))
    assert heard == expected


def test_between_two_events_of_a_read_nothing_but_the_handlers_is_called():
    """What is called for each event costs more than all else that is done for it."""
    count = 2000
    calls = []
    blocks = b"".join(b"data: %d\n\n" % number for number in range(count))
    done = threading.Event()

    def profile(frame, what, _):
        if what == "call":
            calls.append(frame.f_code.co_name)

    def handler(event):
        if event.data == "0":
            sys.setprofile(profile)  # of the reader thread
        elif event.data == str(count - 1):
            sys.setprofile(None)
            done.set()

    with served(EventSource, stream(blocks, then="hold"), on_message=handler):
        assert done.wait(LIMIT)
    assert calls.count("handler") == count - 1
    in_a_row = sum(pair == ("handler", "handler") for pair in itertools.pairwise(calls))
    assert in_a_row > 0.9 * count  # the others begin a read


# --- Those who hear everything ---


def star(*blocks, register, count):
    """What is heard, as pairs of type and name, up to so many."""
    heard = []
    done = threading.Event()

    def named(name):
        def handler(event):
            heard.append((event.type, name))
            if len(heard) == count:
                done.set()

        return handler

    with served(EventSource, stream(*blocks, then="hold"), start=False) as (_, source):
        register(source, named)
        source.start()
        assert done.wait(LIMIT)
    return heard


def test_those_of_every_type_hear_each_message_after_those_of_its_own():
    def register(source, named):
        source.on("*", named("all"))
        source.on("price", named("own"))
        source.once("*", named("once"))

    blocks = b"event: price\ndata: x\n\ndata: y\n\nevent: new_listener\ndata: z\n\n"
    assert star(blocks, register=register, count=5) == [
        ("price", "own"),
        *(("price", "all"), ("price", "once")),
        ("message", "all"),
        ("new_listener", "all"),
    ]


def test_they_hear_neither_opens_nor_errors_but_what_a_server_calls_so():
    def register(source, named):
        source.on("*", named("all"))
        source.on("open", lambda _: None)
        source.on("error", lambda _: None)

    blocks = b"event: open\ndata: x\n\nevent: error\ndata: y\n\nevent: *\ndata: z\n\n"
    assert star(blocks, register=register, count=3) == [
        ("open", "all"),
        ("error", "all"),
        ("*", "all"),
    ]


def test_one_that_is_registered_for_both_is_called_once():
    def register(source, named):
        both = named("both")
        source.on("*", named("all"))
        source.on("*", both)
        source.on("x", both)
        source.on("last", named("last"))

    blocks = b"event: x\ndata\n\nevent: last\ndata\n\n"
    assert star(blocks, register=register, count=5) == [
        *(("x", "both"), ("x", "all")),
        *(("last", "last"), ("last", "all"), ("last", "both")),
    ]


def test_one_that_is_removed_from_one_of_both_still_hears():
    def register(source, named):
        both = named("both")
        source.on("x", lambda _: source.remove_listener("x", both))
        source.on("x", both)
        source.on("*", both)

    assert star(b"event: x\ndata\n\n" * 2, register=register, count=2) == [("x", "both")] * 2


def test_the_only_handler_that_raises_is_logged_and_hears_the_next(caplog):
    heard = Recorder()

    def handler(event):
        heard(event)
        raise ValueError("on purpose")

    with served(EventSource, stream(b"data: a\n\ndata: b\n\n", then="hold"), on_message=handler):
        assert [heard.next().data, heard.next().data] == ["a", "b"]
        wait_until(lambda: caplog.text.count("ValueError: on purpose") == 2)


def test_it_can_be_removed_and_emit_reaches_it():
    heard = []
    with EventSource("http://127.0.0.1:9/", start=False) as source:
        source.on("*", heard.append)
        source.once("x", lambda _: 1 / 0)  # is logged
        event = MessageEvent("x", "data")
        assert source.emit("x", event)
        assert not source.emit("x", "what is no event")
        source.remove_listener("*", heard.append)
        assert not source.emit("x", event)
    assert heard == [event]


def test_a_handler_that_was_exchanged_meanwhile_is_called_in_its_place():
    heard = []
    with served(EventSource, stream(b"data: x\n\n", b"id: end\n\n", then="hold"), start=False) as (
        _,
        source,
    ):
        source.on("message", lambda _: setattr(source, "onmessage", lambda _: heard.append(2)))
        source.onmessage = lambda _: heard.append(1)
        source.start()
        wait_until(lambda: source.last_event_id == "end")
    assert heard == [2]


def test_the_first_events_wait_for_the_first_listener(server):
    with EventSource(server.url) as source:
        wait_until(lambda: source.ready_state is ReadyState.OPEN)
        recorder = record(source)  # "open" first, then the others
        assert [recorder.next().type for _ in range(3)] == ["open", "message", "message"]


# --- The place ---


def test_the_last_event_id_is_that_of_the_event_whose_handlers_have_run(server):
    seen, checked = Recorder(), Recorder()
    with EventSource(server.url, start=False) as source:
        source.on("message", lambda _: seen(source.last_event_id))
        source.on("message", lambda _: seen(source.last_event_id))
        source.on("message", checked)
        source.start()
        assert [seen.next() for _ in range(4)] == ["", "", "1", "1"]
        wait_until(lambda: source.last_event_id == "2")


def test_an_event_that_a_handler_has_not_seen_because_of_close_keeps_the_place(server):
    seen = Recorder()
    with EventSource(server.url, start=False, last_event_id="0") as source:
        source.on("message", lambda event: (seen(event), source.close()))
        source.on("message", seen)
        source.start()
        assert source.join(LIMIT)
        assert source.last_event_id == "0"
        assert len(seen.events) == 1


def test_the_place_is_after_the_event_whose_only_handler_closes(server):
    with EventSource(server.url, on_message=lambda _: source.close(), start=False) as source:
        source.start()
        assert source.join(LIMIT)
        assert source.last_event_id == "1"


@pytest.mark.parametrize(
    ("blocks", "place"),
    [(b"id: 1\ndata: a\n\nid: 2\n\n", "2"), (b"id: 1\nevent: x\ndata: a\n\n", "1")],
    ids=["an id alone", "an event that nobody wants"],
)
def test_what_no_handler_hears_moves_the_place_too(blocks, place):
    with served(EventSource, stream(blocks, then="hold"), on_message=print) as (_, source):
        wait_until(lambda: source.last_event_id == place)


# --- Failures ---


def test_a_final_failure_is_one_error_event_and_ends_the_thread():
    lost = Recorder()
    with ScriptedServer(status("404 Gone")) as server:
        source = EventSource(server.url, on_error=lost)
        event = lost.next()
        assert (event.ready_state, event.retry_in) == (ReadyState.CLOSED, None)
        assert source.join(LIMIT)
        assert source.error is event.error
        assert source.ready_state is ReadyState.CLOSED
        assert len(lost.events) == 1
        assert source.listeners("error") == [lost]


def test_a_final_failure_that_nobody_hears_is_a_warning(caplog):
    with ScriptedServer(status("404 Gone")) as server:
        url = server.url.replace("//", f"//user:{SECRET}@") + f"p?key={QUERY_SECRET}"
        source = EventSource(url, on_message=print)
        assert source.join(LIMIT)
    (warning,) = [r for r in caplog.records if r.levelno == logging.WARNING]
    assert warning.name.startswith("eventsource")
    assert warning.getMessage() == (
        f"{server.url}p: closed for good: UnexpectedStatus:"
        " the server answered 404 Not Found, not 200"
    )


def test_an_event_that_is_too_large_is_the_last_error():
    lost = Recorder()
    with ScriptedServer(stream(b"data: " + b"x" * 1000, then="hold")) as server:
        source = EventSource(server.url, on_error=lost, max_event_size=100)
        assert source.join(LIMIT)
        assert isinstance(source.error, EventTooLarge)
        assert len(lost.events) == 1


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_an_exit_raised_in_a_handler_closes_the_source_and_is_logged(server, kind, caplog):
    def leave(event):
        raise kind

    source = EventSource(server.url, on_message=leave)
    assert source.join(LIMIT)
    assert source.ready_state is ReadyState.CLOSED
    assert server.connections[0].gone.wait(LIMIT)
    assert f"closed: {kind.__name__}" in caplog.text
    assert str(source.error) == f"closed: {kind.__name__}"
    assert type(source.error.__cause__) is kind


# --- Its life ---


def test_start_false_waits_for_start(server):
    source = EventSource(server.url, start=False, on_open=print)
    assert source.ready_state is ReadyState.CONNECTING
    assert source.join()
    assert server.connections == []
    source.start()
    source.start()
    server.wait_for_connection()
    source.close()
    assert source.join(LIMIT)
    assert len(server.connections) == 1


def test_a_closed_source_is_not_started(server):
    source = EventSource(server.url, start=False)
    source.close()
    with pytest.raises(RuntimeError, match="has been closed"):
        source.start()
    with pytest.raises(RuntimeError, match="has been closed"), source:
        pass
    assert source.join()
    assert source.ready_state is ReadyState.CLOSED
    assert server.connections == []


def test_join_waits_for_a_start_that_is_under_way():
    for _ in range(200):
        source = EventSource("http://127.0.0.1:1/", start=False, on_message=print)
        barrier = threading.Barrier(2)

        def start(source=source, barrier=barrier):
            barrier.wait(LIMIT)
            source.start()

        thread = threading.Thread(target=start)
        thread.start()
        barrier.wait(LIMIT)
        source.join(0)  # raises nothing
        thread.join(LIMIT)
        source.close()
        assert source.join(LIMIT)


def test_a_start_that_fails_can_be_tried_again(server, monkeypatch):
    source = EventSource(server.url, start=False, on_message=print)
    with monkeypatch.context() as patch:

        def fail(thread):
            raise RuntimeError("can't start new thread")

        patch.setattr(threading.Thread, "start", fail)
        with pytest.raises(RuntimeError, match="new thread"):
            source.start()
    assert source.join()
    source.start()
    server.wait_for_connection()
    source.close()
    assert source.join(LIMIT)


def test_with_closes_and_joins(server):
    threads = Recorder()
    with EventSource(
        server.url, on_message=lambda _: threads(threading.current_thread())
    ) as source:
        reader = threads.next()
    assert source.ready_state is ReadyState.CLOSED
    assert not reader.is_alive()


def test_join_gives_up_after_its_timeout(server):
    with EventSource(server.url, on_message=print) as source:
        assert source.join(0.01) is False
        assert source.join(0) is False


def test_with_gives_up_on_a_handler_that_does_not_end(server, monkeypatch, caplog):
    monkeypatch.setattr("eventsource.source.EXIT_TIMEOUT", 0.01)
    entered, proceed = threading.Event(), threading.Event()

    def stuck(event):
        entered.set()
        assert proceed.wait(LIMIT)

    with EventSource(server.url, on_message=stuck) as source:
        assert entered.wait(LIMIT)
    assert "still busy" in caplog.text
    proceed.set()
    assert source.join(LIMIT)


def test_the_reconnection_time_is_known():
    with served(EventSource, stream(b"retry: 1500\n\n", then="hold"), on_open=print) as (_, source):
        assert source.reconnection_time in (3.0, 1.5)
        wait_until(lambda: source.reconnection_time == 1.5)


# --- The browser's spellings ---


def test_the_browsers_names_are_there(server):
    received = Recorder()
    with EventSource(server.url, start=False) as source:
        assert (source.CONNECTING, source.OPEN, source.CLOSED) == (0, 1, 2)
        assert source.readyState == EventSource.CONNECTING
        source.addEventListener("message", received)
        source.start()
        assert received.next().lastEventId == "1"
        source.removeEventListener("message", received)
        assert source.listeners("message") == []


def test_on_attributes_are_set_exchanged_and_taken_away():
    calls = []
    with EventSource("http://host/", start=False) as source:
        assert (source.onopen, source.onmessage, source.onerror) == (None, None, None)
        source.onmessage = one = lambda _: calls.append("one")
        source.on("message", lambda _: calls.append("listener"))
        assert source.onmessage is one
        source.emit("message", None)
        source.onmessage = lambda _: calls.append("two")  # in the place of the first
        source.emit("message", None)
        source.onmessage = None
        source.onmessage = None
        assert source.onmessage is None
        source.emit("message", None)
    assert calls == ["one", "listener", "two", "listener", "listener"]


def test_an_on_attribute_is_apart_from_a_listener_that_is_the_same_function():
    calls = []
    with EventSource("http://host/", start=False) as source:
        source.on("error", calls.append)
        source.onerror = calls.append
        source.emit("error", 1)
        source.onerror = None
        source.emit("error", 2)
    assert calls == [1, 1, 2]


# --- Bad input ---


async def coroutine(event):
    """No handler."""


class AsyncCallable:
    async def __call__(self, event):
        """No handler."""


@pytest.mark.parametrize("method", ["on", "once", "add_listener", "addEventListener"])
@pytest.mark.parametrize(
    "handler", [1, "print", coroutine, functools.partial(coroutine, 1), AsyncCallable()]
)
def test_what_cannot_be_called_is_refused(method, handler):
    with EventSource("http://host/", start=False) as source:
        with pytest.raises(TypeError, match="'price'"):
            getattr(source, method)("price", handler)
        assert source.event_names() == set()


def test_a_refused_coroutine_function_is_told_what_to_do():
    with EventSource("http://host/", start=False) as source:
        with pytest.raises(TypeError, match="call_soon_threadsafe"):
            source.on("price", coroutine)
        with pytest.raises(TypeError, match="onmessage|message"):
            source.onmessage = 5
        with pytest.raises(TypeError, match="event must be a str"):
            source.on(5, print)


@pytest.mark.parametrize("timeout", [-1, float("nan")])
def test_join_refuses_a_timeout_that_makes_no_sense(timeout):
    with EventSource("http://host/", start=False) as source:
        with pytest.raises(ValueError, match="timeout"):
            source.join(timeout)


def test_join_takes_a_huge_timeout(server):
    with EventSource(server.url, on_message=lambda _: source.close(), start=False) as source:
        source.start()
        assert source.join(1e15)


def test_an_event_that_has_been_handled_is_not_kept():
    """It may be large, and the next may come in days."""
    heard = Recorder()
    with served(
        EventSource,
        stream(b"id: 1\ndata: rare\n\n", then="hold"),
        on_message=lambda event: heard(event.last_event_id),
    ) as (_, source):
        assert heard.next() == "1"
        wait_until(
            lambda: "rare" not in [e.data for e in gc.get_objects() if type(e) is MessageEvent]
        )
        assert source.last_event_id == "1"
