"""`dispatch` in a source: handlers run elsewhere, in order, bounded, and not after close()."""

from __future__ import annotations

import gc
import logging
import random
import select
import socket
import threading
import tracemalloc
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest

from eventsource import ErrorEvent, EventSource, MessageEvent, ReadyState
from eventsource.testing import ScriptedServer
from tests.support import (
    HEAD,
    LIMIT,
    QUICK,
    numbers,
    queue_of,
    status,
    stream,
    wait_until,
)
from tests.unit.handlers.test_queue import Loop, Window


@pytest.fixture
def loop():
    return Loop()


@pytest.fixture
def many():
    """A server that sends 5,000 numbers and keeps the connection."""
    with ScriptedServer(stream(numbers(5000), then="hold")) as server:
        yield server


def test_handlers_run_where_dispatch_runs_them(loop):
    threads = []
    with ScriptedServer(stream(b": c\ndata: a\n\nevent: x\ndata: b\n\n")) as server:
        with EventSource(server.url, dispatch=loop, reconnect=QUICK, start=False) as source:
            for event_type in ("open", "message", "x", "error"):
                source.on(event_type, lambda event: threads.append(threading.get_ident()))
            source.start()
            loop.run_until(lambda: len(threads) >= 4)
    assert set(threads) == {threading.get_ident()}


def test_comments_are_dispatched_in_their_place(loop):
    calls = []
    with ScriptedServer(stream(b": one\ndata: a\n\n: two\n", then="hold")) as server:
        with EventSource(
            server.url,
            dispatch=loop,
            on_comment=calls.append,
            on_message=lambda event: calls.append(event.data.upper()),
        ):
            loop.run_until(lambda: len(calls) == 3)
    assert calls == ["one", "A", "two"]


def test_on_a_pool_of_threads_events_come_in_order_and_one_by_one(many):
    received, done, busy = [], threading.Event(), threading.Lock()

    def handler(event):
        assert busy.acquire(blocking=False), "two handlers at once"
        received.append(int(event.data))
        busy.release()
        if len(received) == 5000:
            done.set()

    with ThreadPoolExecutor(8) as executor:
        with EventSource(many.url, on_message=handler, dispatch=executor.submit, max_waiting=7):
            assert done.wait(LIMIT), len(received)
    assert received == list(range(5000))


def test_a_handler_that_raises_is_logged_and_stops_nobody(loop, many, caplog):
    received = []
    with EventSource(many.url, on_message=lambda _: 1 / 0, dispatch=loop) as source:
        source.on("message", received.append)
        loop.run_until(lambda: len(received) >= 2)
    assert "ZeroDivisionError" in caplog.text
    assert {record.levelno for record in caplog.records} == {logging.ERROR}


def test_events_wait_for_the_first_listener_with_dispatch_too(loop):
    received = []
    with ScriptedServer(stream(b"data: a\n\n", then="hold")) as server:
        with EventSource(server.url, dispatch=loop) as source:
            server.wait_for_request()
            source.on("message", received.append)
            loop.run_until(lambda: received)
    assert [event.data for event in received] == ["a"]


def has_arrived(source, last_event_id):
    """Whether what moves the last event ID there waits for the handlers."""
    return any(
        getattr(entry, "last_event_id", "") == last_event_id
        for entry in [*queue_of(source).waiting]
    )


def test_the_last_event_id_is_that_of_the_event_whose_handlers_have_run(loop):
    seen = []
    with ScriptedServer(stream(b"id: 1\ndata: a\n\nid: 2\ndata: b\n\n", then="hold")) as server:
        with EventSource(server.url, dispatch=loop, start=False) as source:
            source.on("message", lambda event: seen.append((event.data, source.last_event_id)))
            source.start()
            wait_until(lambda: has_arrived(source, "2"), "both to be parsed")
            assert source.last_event_id == ""
            loop.run_until(lambda: source.last_event_id == "2")
    assert seen == [("a", ""), ("b", "1")]


def test_an_id_without_an_event_moves_the_place_in_its_turn(loop):
    received = []
    with ScriptedServer(stream(b"data: a\n\nid: 7\n\n", then="hold")) as server:
        with EventSource(server.url, on_message=received.append, dispatch=loop) as source:
            wait_until(lambda: has_arrived(source, "7"), "the id")
            assert source.last_event_id == ""
            loop.run_until(lambda: source.last_event_id == "7")
    assert len(received) == 1


class Flood:
    """A script that sends ever more, and knows when it cannot."""

    def __init__(self, block):
        self.block = block
        self.sent = 0
        self.stuck = threading.Event()
        self.enough = threading.Event()

    def __call__(self, connection):
        connection.read_request()
        connection.send(HEAD)
        sock = connection.sock
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
        sock.setblocking(False)
        number, data = 0, b""
        while not self.enough.is_set() or data:
            if not data:
                data = b"id: %d\ndata: %b\n\n" % (number, self.block)
                number += 1
            try:
                count = sock.send(data)
            except BlockingIOError:
                self.stuck.set()
                select.select([], [sock], [])
            else:
                self.sent += count
                data = data[count:]
        sock.setblocking(True)
        self.last = number - 1
        connection.send(b"event: end\ndata:\n\n")
        connection.hold()


def test_past_the_bound_the_server_is_held_memory_is_flat_and_nothing_is_lost(
    loop, record_property
):
    flood = Flood(b"x" * 10_000)
    ids, ended = [], []
    with ScriptedServer(flood) as server:
        tracemalloc.start()
        try:
            with EventSource(server.url, dispatch=loop, max_waiting=10, start=False) as source:
                source.on("message", lambda event: ids.append(int(event.last_event_id)))
                source.on("end", ended.append)
                source.start()
                assert flood.stuck.wait(LIMIT)
                wait_until(lambda: queue_of(source).reader_waits, "the reader to stop")
                assert len(queue_of(source).waiting) <= 10
                sent = flood.sent
                memory, _ = tracemalloc.get_traced_memory()
                # A timer's worth of other things; nobody takes an event, so nobody sends.
                for _ in range(1000):
                    gc.collect(0)
                assert flood.sent - sent <= 1_000_000  # what the kernel still took
                held = flood.sent
                assert tracemalloc.get_traced_memory()[0] < memory + 200_000
                assert memory < 2_000_000
                assert ids == []

                loop.run_until(lambda: flood.sent > held + 5_000_000)  # it goes on
                assert tracemalloc.get_traced_memory()[0] < memory + 1_000_000
                flood.enough.set()
                loop.run_until(lambda: ended)
        finally:
            tracemalloc.stop()
    record_property("bytes sent until held", held)
    print(f"the server was held after {held} bytes; the client had {memory} bytes allocated")
    assert ids == list(range(flood.last + 1))


def test_close_ends_the_connection_of_a_source_whose_reader_waits_for_room(loop, many):
    source = EventSource(many.url, on_message=print, dispatch=loop, max_waiting=1)
    wait_until(lambda: queue_of(source).reader_waits, "the reader to wait")
    source.close()
    assert source.join(LIMIT)
    assert many.connections[0].gone.wait(LIMIT)


def test_a_handler_that_closes_is_the_last_one(loop, many):
    received = []

    def handler(event):
        received.append(event.data)
        if len(received) == 3:
            source.close()

    with EventSource(many.url, dispatch=loop, start=False) as source:
        source.on("message", handler)
        source.start()
        loop.run_until(lambda: len(received) == 3)
        assert source.join(LIMIT)
        loop.run_all()
    assert received == ["0", "1", "2"]


def test_no_handler_begins_after_close_has_returned(many):
    seed = random.randrange(2**32)
    print("seed", seed)
    moment = random.Random(seed)
    with ThreadPoolExecutor(4) as executor:
        for _ in range(100):
            closed, late, wanted = threading.Event(), [], moment.randrange(1, 2000)
            reached = threading.Event()
            count = 0

            def handler(event, closed=closed, late=late, wanted=wanted, reached=reached):
                nonlocal count
                if closed.is_set():
                    late.append(event)
                count += 1
                if count >= wanted:
                    reached.set()

            source = EventSource(many.url, dispatch=executor.submit, on_message=handler)
            assert reached.wait(LIMIT)
            source.close()
            running = queue_of(source).is_under_way
            seen = count
            closed.set()
            assert source.join(LIMIT)
            # The one that ran may end; it began before close() returned, or is that one.
            assert len(late) <= (1 if running else 0), late
            assert count <= seen + 1


def test_join_waits_for_the_handlers_of_the_last_event():
    received = []
    gate = threading.Event()

    def handler(event):
        assert gate.wait(LIMIT)
        received.append(event)

    blocks = stream(numbers(3))
    with (
        ScriptedServer(blocks, status("204 No Content")) as server,
        ThreadPoolExecutor(1) as executor,
    ):
        source = EventSource(server.url, dispatch=executor.submit, reconnect=QUICK, start=False)
        source.on("message", handler)
        source.on("error", handler)
        source.start()
        wait_until(lambda: source.ready_state is ReadyState.CLOSED, "the end")
        assert not source.join(0)
        gate.set()
        assert source.join(LIMIT)
        assert [type(event) for event in received] == [MessageEvent] * 3 + [ErrorEvent] * 2
        assert source.last_event_id == "2"


def test_a_final_failure_that_nobody_hears_is_a_warning(loop, caplog):
    with ScriptedServer(status("404 Not Found")) as server:
        source = EventSource(server.url, on_message=print, dispatch=loop)
        loop.run_until(lambda: "closed for good" in caplog.text)
        assert source.join(LIMIT)
    assert source.error is not None


def test_a_dispatch_that_raises_closes_the_source_and_is_logged(many, caplog):
    calls = []

    def dispatch(call):
        calls.append(call)
        raise RuntimeError("the loop is closed")

    source = EventSource(many.url, on_message=print, dispatch=dispatch)
    assert source.join(LIMIT)
    assert source.ready_state is ReadyState.CLOSED
    assert str(source.error) == "the loop is closed"
    assert len(calls) == 1
    assert many.connections[0].gone.wait(LIMIT)
    [record] = caplog.records
    assert record.levelno == logging.ERROR
    assert record.exc_info
    assert "closed: `dispatch` raised" in record.getMessage()
    calls[0]()  # too late


def test_an_executor_that_is_shut_down_closes_the_source(many, caplog):
    begun, go_on = threading.Event(), threading.Event()
    executor = ThreadPoolExecutor(1)
    executor.submit(lambda: (begun.set(), go_on.wait(LIMIT)))
    assert begun.wait(LIMIT)
    has_been_given = threading.Event()

    def dispatch(call):
        executor.submit(call)
        has_been_given.set()

    source = EventSource(many.url, on_message=print, dispatch=dispatch)
    assert has_been_given.wait(LIMIT)
    executor.shutdown(wait=False, cancel_futures=True)
    go_on.set()
    assert source.join(LIMIT)
    assert "closed: `dispatch` dropped the callable" in caplog.text
    assert str(source.error) == "closed: `dispatch` dropped the callable without running it"


def test_a_log_that_raises_closes_the_source_and_it_is_no_silent_death(many):
    class Window(logging.Handler):
        def emit(self, record):
            raise RuntimeError("the log's window is gone")

    log, window = logging.getLogger("eventsource"), Window(logging.ERROR)
    log.addHandler(window)
    try:
        with ThreadPoolExecutor(1) as executor:
            source = EventSource(many.url, on_message=lambda _: 1 / 0, dispatch=executor.submit)
            assert source.join(LIMIT)
    finally:
        log.removeHandler(window)
    assert source.ready_state is ReadyState.CLOSED
    assert str(source.error) == "the log's window is gone"


def test_an_exit_raised_by_a_handler_closes_the_source_and_reaches_the_loop(loop, many, caplog):
    def leave(event):
        raise SystemExit(3)

    source = EventSource(many.url, on_message=leave, dispatch=loop)
    with pytest.raises(SystemExit):
        loop.run_until(lambda: False)
    assert source.join(LIMIT)
    assert type(source.error.__cause__) is SystemExit
    assert "closed: SystemExit" in caplog.text


def test_a_source_that_nobody_refers_to_goes_on(loop, many):
    received = []
    EventSource(many.url, on_message=received.append, dispatch=loop)
    gc.collect()
    loop.run_until(lambda: len(received) == 5000)
    # Only the list of those that run refers to it.
    [source] = [s for s in gc.get_objects() if isinstance(s, EventSource) and s.url == many.url]
    source.close()
    assert source.join(LIMIT)


def test_the_handlers_of_a_source_whose_dispatch_failed_are_deleted_at_home(loop, monkeypatch):
    # pytest keeps the record, which refers to the source.
    monkeypatch.setattr(logging.getLogger("eventsource.source"), "disabled", True)
    deleted, go_on = [], threading.Event()
    is_gone, readers = False, []

    def dispatch(call):
        if is_gone:
            raise RuntimeError("the window is gone")
        readers.append(threading.current_thread())
        loop(call)

    def script(connection):
        connection.start_stream()
        assert go_on.wait(LIMIT)
        connection.send_event("a")
        connection.hold()

    window = Window(deleted)
    with ScriptedServer(script) as server:
        source = EventSource(server.url, dispatch=dispatch, on_open=window.show)
        source.on("message", window.show)
        loop.run_one()
        while queue_of(source).is_under_way:  # one turn may be too short for what came
            loop.run_one()
        thread, ref = readers[0], weakref.ref(source)
        is_gone = True
        del source, window
        go_on.set()
        thread.join(LIMIT)
        assert not thread.is_alive()
        assert deleted == []
        assert ref() is not None
    EventSource("http://127.0.0.1:9/", dispatch=loop, start=False)
    assert deleted == [threading.get_ident()]
