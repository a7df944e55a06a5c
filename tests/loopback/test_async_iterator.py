"""`async for` over an `EventStream`: the same as `for`, and the loop goes on meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import logging
import random
import select
import signal
import socket
import threading

import pytest
import requests

from eventsource import (
    ErrorEvent,
    EventStream,
    MessageEvent,
    OpenEvent,
    ReadyState,
    ReconnectPolicy,
    UnexpectedStatus,
)
from eventsource.engine.engine import Engine
from eventsource.http.body import READ_SIZE
from eventsource.testing import ScriptedServer
from tests.on_loop import (
    asyncio_has_nothing_to_complain_of,  # noqa: F401 - a fixture
    reading,
    run,
    until,
)
from tests.support import (
    LIMIT,
    QUICK,
    numbers,
    port_that_never_answers,
    status,
    stream,
    wait_until,
    wait_until_connecting,
)

SLOW = ReconnectPolicy(delay=3600)
"""A back-off that only an interruption ends."""


async def take(events, count):
    """The data of so many messages."""
    found = []
    async for event in events:
        if isinstance(event, MessageEvent):
            found.append(event.data)
            if len(found) == count:
                return found
    raise AssertionError(f"ended after {found}")


def readers():
    return [t for t in threading.enumerate() if t.name.startswith("eventsource")]


def data_of(count):
    return [str(number) for number in range(count)]


# --- What is yielded ---


def in_short(event):
    if isinstance(event, ErrorEvent):
        return type(event.error), str(event.error), event.ready_state, event.retry_in is None
    return event


def test_it_yields_what_happens_in_order_as_a_loop_without_async_does():
    scripts = [
        stream(b"id: 1\ndata: a\n\n", b"event: b\ndata: b\n\n"),
        stream(b"data: c\n\nid: 2\n\n"),
        status("503 Busy"),
        stream(b"data: d\n\n"),
        status("204 No Content"),
    ]
    policy = ReconnectPolicy(delay=0.01, max_delay=0.01, statuses={503})
    happened, requested = [], []
    for kind in ("for", "async for"):
        with ScriptedServer(*scripts) as server:
            events = EventStream(server.url, reconnect=policy)

            async def main(events=events):
                return [event async for event in events]

            found = list(events) if kind == "for" else run(main)
            happened.append(str([in_short(event) for event in found]).replace(server.url[:-1], ""))
            requested.append([r.header("Last-Event-ID") for r in server.requests])
    assert happened[0] == happened[1]
    assert requested[0] == requested[1] == [None, "1", "2", "2", "2"]


@pytest.mark.parametrize(("count", "debug"), [(100_000, False), (5_000, True)])
def test_many_events_arrive_in_order(count, debug):
    async def main():
        async with reading(stream(numbers(count)), reconnect=None) as (events, _):
            return [event.data async for event in events if isinstance(event, MessageEvent)]

    assert run(main, debug=debug) == data_of(count)


async def test_a_final_failure_ends_the_loop_after_its_event():
    async with reading(stream(b"data: a\n\n"), status("204 x"), reconnect=QUICK) as (events, _):
        found = [event async for event in events]
        assert [event.type for event in found] == ["open", "message", "error", "error"]
        assert isinstance(events.error, UnexpectedStatus)
        assert events.error is found[-1].error
        assert [event async for event in events] == []


async def test_the_last_event_id_is_that_of_the_event_yielded_last_not_of_what_was_read():
    script = stream(numbers(3), b"id: x\n\n")
    async with reading(script, last_event_id="first", reconnect=SLOW) as (events, _):
        found, read = [], []
        assert events.last_event_id == "first"
        async for event in events:
            found.append((event.type, events.last_event_id))
            read.append(events.resume_id)
            if isinstance(event, ErrorEvent):
                break
        received = [("message", "0"), ("message", "1"), ("message", "2")]
        assert found == [("open", "first"), *received, ("error", "x")]
        assert read != [last_event_id for _, last_event_id in found]  # it is ahead


async def test_restart_makes_a_new_connection_and_yields_no_error():
    scripts = [stream(numbers(1), then="hold"), stream(numbers(1, 1), then="hold")]
    async with reading(*scripts, reconnect=SLOW) as (events, server):
        types = []
        async for event in events:
            types.append(event.type)
            if event.type == "message" and len(types) == 2:
                asyncio.get_running_loop().call_soon(events.restart)
            elif event.type == "message":
                break
        assert types == ["open", "message"] * 2
        assert [r.header("Last-Event-ID") for r in server.requests] == [None, "0"]


# --- Phases, and their ends ---


def answer(connection):
    """Bring the client into the phase that its request names."""
    phase = connection.read_request().target.strip("/")
    if phase == "headers":
        connection.hold()
    connection.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
    if phase == "silence":
        connection.hold()
    elif phase == "events":
        for number in range(10**9):
            connection.send_event(str(number))
            connection.pause(0.001)


PHASES = ["connecting", "headers", "silence", "events", "back-off"]


class Phase:
    """A server that brings each client into one phase, and says when it is there."""

    def __init__(self, name, port, server=None):
        self.name = name
        self.port = port
        self.url = f"http://127.0.0.1:{port}/{name}"
        self.server = server
        self.requests = 0  # before the present stream's

    def new_stream(self):
        if self.server is not None:
            self.requests = len(self.server.requests)
        return EventStream(self.url, reconnect=SLOW, timeout=None)

    async def reach(self, seen):
        """Wait until the stream is there; `seen` is what it has yielded."""
        if self.name == "connecting":
            await asyncio.to_thread(wait_until_connecting, self.port)
        elif self.name == "headers":
            await until(lambda: len(self.server.requests) > self.requests, self.name)
        else:
            kinds = {"silence": OpenEvent, "events": MessageEvent, "back-off": ErrorEvent}
            kind = kinds[self.name]
            await until(lambda: seen and isinstance(seen[-1], kind), self.name)

    def is_left(self):
        """No thread, and no connection."""
        connections = self.server.connections if self.server is not None else []
        return not readers() and all(connection.over.is_set() for connection in connections)


@contextlib.contextmanager
def in_phase(name):
    if name == "connecting":
        with port_that_never_answers() as port:
            yield Phase(name, port)
    else:
        with ScriptedServer(answer) as server:
            yield Phase(name, server.port, server)


async def consume(events, seen, *, in_block):
    if in_block:
        async with events:
            async for event in events:
                seen.append(event)
    else:
        async for event in events:
            seen.append(event)


@pytest.mark.long
@pytest.mark.parametrize("in_block", [True, False], ids=["async with", "no async with"])
@pytest.mark.parametrize("name", PHASES)
async def test_cancelled_at_any_moment_it_leaves_nothing_behind(name, in_block):
    seed = random.randrange(10**9)
    print("seed", seed)
    rng = random.Random(seed)
    with in_phase(name) as phase:

        async def one(reach):
            seen = []
            events = phase.new_stream()
            task = asyncio.create_task(consume(events, seen, in_block=in_block))
            if reach:
                await phase.reach(seen)
            for _ in range(1 + rng.randrange(rng.choice([3, 30, 300]))):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled()
            if in_block:
                assert readers() == []
                assert events.ready_state is ReadyState.CLOSED
            else:
                assert events.ready_state is not ReadyState.CLOSED

        for number in range(24):
            await one(number % 2)  # which drops the stream
            await until(phase.is_left, "the end")


def close_from_a_task(events):
    async def close():
        events.close()

    return asyncio.create_task(close())


def close_from_a_thread(events):
    thread = threading.Thread(target=events.close)
    thread.start()
    return thread


def signal_myself():
    """From another thread, so that the loop is where it waits."""
    ident = threading.main_thread().ident
    thread = threading.Thread(target=signal.pthread_kill, args=(ident, signal.SIGUSR1))
    thread.start()
    return thread


def close_from_the_loops_signal_handler(events):
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, events.close)
    return signal_myself()


def close_from_a_signal_handler(events):
    signal.signal(signal.SIGUSR1, lambda *_: events.close())
    return signal_myself()


@pytest.fixture
def own_signal():
    before = signal.getsignal(signal.SIGUSR1)
    yield
    signal.signal(signal.SIGUSR1, before)


@pytest.mark.long
@pytest.mark.usefixtures("own_signal")
@pytest.mark.parametrize(
    "close",
    [
        close_from_a_task,
        close_from_a_thread,
        close_from_the_loops_signal_handler,
        close_from_a_signal_handler,
    ],
)
@pytest.mark.parametrize("name", PHASES)
async def test_close_ends_the_loop_in_every_phase(name, close):
    with in_phase(name) as phase:
        seen = []
        events = phase.new_stream()
        task = asyncio.create_task(consume(events, seen, in_block=False))
        await phase.reach(seen)
        closing = close(events)
        await task
        assert events.ready_state is ReadyState.CLOSED
        assert events.error is None
        await until(phase.is_left, "the end")
        if isinstance(closing, threading.Thread):
            closing.join()


async def test_nothing_is_yielded_after_close_not_even_what_has_arrived():
    async with reading(stream(numbers(5), then="hold")) as (events, _):
        assert await take(events, 2) == data_of(2)
        events.close()
        assert [event async for event in events] == []
        assert events.last_event_id == "1"


async def test_leaving_the_block_by_an_exception_too_waits_for_the_thread():
    with ScriptedServer(stream(then="hold")) as server:
        with pytest.raises(KeyError, match="mine"):
            async with EventStream(server.url) as events:
                async for _ in events:
                    assert len(readers()) == 1
                    raise KeyError("mine")
        assert readers() == []
        assert server.connections[0].gone.wait(LIMIT)


async def test_a_block_without_a_loop_in_it_has_no_thread():
    async with reading(stream()) as (events, server):
        assert readers() == []
    assert events.ready_state is ReadyState.CLOSED
    assert server.connections == []


async def test_a_thread_that_is_stuck_is_waited_for_only_so_long(monkeypatch, caplog):
    monkeypatch.setattr("eventsource.engine.async_iterator.EXIT_TIMEOUT", 0.05)
    entered, release = threading.Event(), threading.Event()

    def auth(request):
        entered.set()
        assert release.wait(LIMIT)
        return request

    try:
        async with EventStream("http://127.0.0.1:9/", auth=auth) as events:
            task = asyncio.create_task(anext(aiter(events), None))
            await until(entered.is_set)
        assert "the reader thread is still busy" in caplog.text
        assert caplog.records[-1].name == "eventsource.engine.async_iterator"
        assert caplog.records[-1].levelno == logging.WARNING
    finally:
        release.set()
    assert await task is None


# --- Nothing is lost ---


@pytest.mark.long
async def test_what_is_cancelled_loses_nothing():
    seed = random.randrange(10**9)
    print("seed", seed)
    rng = random.Random(seed)
    count = 1500

    def script(connection):
        connection.start_stream()
        sent = 0
        while sent < count:
            size = min(random.Random(seed + sent).randrange(1, 8), count - sent)
            connection.send(numbers(size, sent))
            sent += size
            connection.pause(0.0005)
        connection.hold()

    async def with_wait_for(iterator):
        return await asyncio.wait_for(anext(iterator), rng.random() * 0.001)

    async def with_timeout(iterator):
        async with asyncio.timeout(rng.random() * 0.001):
            return await anext(iterator)

    async def with_cancel(iterator):
        task = asyncio.ensure_future(anext(iterator))
        for _ in range(rng.randrange(6)):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        if task.cancelled():
            raise TimeoutError
        return task.result()

    async with reading(script) as (events, server):
        found, timeouts = [], 0
        iterator = aiter(events)
        while len(found) < count:
            how = rng.choice([with_wait_for, with_timeout, with_cancel])
            try:
                event = await how(iterator)
            except TimeoutError:
                timeouts += 1
                continue
            if isinstance(event, MessageEvent):
                found.append(event.data)
        assert timeouts > 20
        assert found == data_of(count)
        assert len(server.connections) == 1


async def test_an_event_that_came_as_the_waiting_was_cancelled_is_not_lost():
    async with reading(stream(numbers(2), then="hold")) as (events, _):
        iterator = aiter(events)
        await anext(iterator)
        task = asyncio.ensure_future(anext(iterator))
        # Cancelled when the result is there, and the task has not seen it.
        loop = asyncio.get_running_loop()
        call_soon_threadsafe = loop.call_soon_threadsafe

        def settle_and_cancel(settle, *arguments):
            settle(*arguments)
            task.cancel()

        loop.call_soon_threadsafe = functools.partial(call_soon_threadsafe, settle_and_cancel)
        await asyncio.wait([task])
        loop.call_soon_threadsafe = call_soon_threadsafe
        assert task.cancelled()
        assert await take(iterator, 2) == data_of(2)


async def test_waiting_that_is_cancelled_again_and_again_leaves_nothing_behind():
    async with reading(stream(b"data: 0\n\n", then="hold")) as (events, _):
        iterator = aiter(events)
        await take(iterator, 1)
        for _ in range(100):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(anext(iterator), 0)
            task = asyncio.ensure_future(anext(iterator))
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            del task
        gc.collect()
        waiting = [one for one in gc.get_objects() if isinstance(one, asyncio.Future)]
        assert len([one for one in waiting if not isinstance(one, asyncio.Task)]) < 10


async def test_leaving_the_loop_without_a_block_closes_nothing_and_dropping_the_stream_does():
    with ScriptedServer(stream(numbers(3), then="hold")) as server:
        events = EventStream(server.url)
        async for _ in events:
            break
        assert await take(events, 1) == ["0"]
        assert await take(events, 2) == ["1", "2"]
        assert events.ready_state is ReadyState.OPEN
        assert len(readers()) == 1
        del events
        await until(lambda: not readers(), "the thread to end")
        assert server.connections[0].gone.wait(LIMIT)


async def test_without_a_block_the_iterator_keeps_the_stream_open():
    with ScriptedServer(stream(numbers(3), then="hold")) as server:
        iterator = aiter(EventStream(server.url))
        assert await take(iterator, 1) == ["0"]
        gc.collect()
        assert await take(iterator, 2) == ["1", "2"]


async def test_a_stream_dropped_on_a_session_of_the_callers_is_closed_on_the_loop(monkeypatch):
    closed_by = []
    close = Engine.close
    monkeypatch.setattr(
        Engine, "close", lambda it: (closed_by.append(threading.get_ident()), close(it))
    )
    with ScriptedServer(stream(then="hold")) as server, requests.Session() as session:
        async for _ in EventStream(server.url, session=session):
            break
        assert closed_by == []  # the collector may run where the session's locks are held
        await until(lambda: not readers(), "the thread to end")
        assert closed_by == [threading.get_ident()]
        assert server.connections[0].gone.wait(LIMIT)


async def test_of_two_tasks_on_one_stream_each_gets_some_and_all_are_got_once():
    count = 300

    def script(connection):
        connection.start_stream()
        for number in range(count):
            connection.send_event(str(number))
            if number % 7 == 0:
                connection.pause(0.001)

    async def work(iterator):
        found = []
        async for event in iterator:
            if isinstance(event, MessageEvent):
                found.append(int(event.data))
            await asyncio.sleep(0)
        return found

    async with reading(script, reconnect=None) as (events, server):
        one, two = await asyncio.gather(work(aiter(events)), work(aiter(events)))
    assert one == sorted(one)
    assert two == sorted(two)
    assert sorted(one + two) == list(range(count))
    assert len(one) > 10
    assert len(two) > 10
    assert len(server.connections) == 1


async def test_a_loop_goes_on_where_an_iterator_that_is_kept_has_been_left():
    with ScriptedServer(stream(numbers(5), then="hold")) as server:
        events = EventStream(server.url)
        iterator = aiter(events)
        await anext(iterator)
        assert await take(events, 2) == ["0", "1"]
        assert await take(iterator, 1) == ["2"]
        assert len(readers()) == 1
        assert events.ready_state is ReadyState.OPEN
        assert len(server.connections) == 1


async def test_on_a_session_of_the_callers_too_a_loop_goes_on_where_the_one_before_it_was_left():
    with ScriptedServer(stream(numbers(5), then="hold")) as server, requests.Session() as session:
        events = EventStream(server.url, session=session)
        async for _ in events:
            break
        assert await take(events, 2) == ["0", "1"]
        assert await take(events, 3) == ["2", "3", "4"]
        events.close()
        await until(lambda: not readers(), "the thread to end")
        assert len(server.connections) == 1


# --- Back-pressure ---


def test_a_slow_program_slows_the_server():
    event = b"data: " + b"x" * 1000 + b"\n\n"
    total = 16 << 20
    sent = 0
    paused, blocked = threading.Event(), threading.Event()

    def script(connection):
        nonlocal sent
        connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        connection.start_stream()
        connection.sock.setblocking(False)
        data = memoryview(event * (total // len(event)))
        while sent < len(data):
            try:
                sent += connection.sock.send(data[sent : sent + 65536])
            except BlockingIOError:
                is_paused = paused.is_set()  # else it may be the reader that is late
                if not select.select([], [connection.sock], [], 0.1)[1] and is_paused:
                    blocked.set()
                    select.select([], [connection.sock], [])
                    connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)

    read = []

    async def main():
        async with reading(
            script, reconnect=None, on_bytes=lambda chunk: read.append(len(chunk))
        ) as (events, _):
            assert await take(events, 1)
            paused.set()
            await until(blocked.is_set, "the server to be blocked")
            assert sent < total / 2  # what the kernel takes, which is less, and
            assert sum(read) <= READ_SIZE + len(event)  # one read
            before = sent
            for _ in range(100):
                await asyncio.sleep(0)
            assert sent == before
            found = [e.data async for e in events if isinstance(e, MessageEvent)]
            assert len(found) == total // len(event) - 1
            assert set(found) == {"x" * 1000}

    run(main, debug=False)


# --- Exceptions ---


async def test_an_auth_callables_system_exit_reaches_the_task_and_the_stream_goes_on():
    tries = []

    def authorize(request):
        tries.append(request)
        if len(tries) == 1:
            raise SystemExit(7)
        return request

    async with reading(stream(numbers(1), then="hold"), auth=authorize) as (events, _):
        with pytest.raises(SystemExit, match="7"):
            await anext(aiter(events))
        assert await take(events, 1) == ["0"]


# --- The loop is gone ---


def test_a_loop_that_is_closed_first_closes_the_stream_at_the_next_event(caplog):
    proceed = threading.Event()

    def script(connection):
        connection.start_stream()
        assert proceed.wait(LIMIT)
        connection.send_event("late")
        connection.hold()

    with ScriptedServer(script) as server:
        events = EventStream(server.url)
        iterator = aiter(events)

        async def main():
            await anext(iterator)
            waiting = asyncio.ensure_future(anext(iterator))  # asyncio.run cancels it
            await asyncio.sleep(0)  # the thread has been asked
            assert not waiting.done()

        run(main)
        assert events.ready_state is ReadyState.OPEN
        proceed.set()
        wait_until(lambda: not readers(), "the thread to end")
        assert events.ready_state is ReadyState.CLOSED
        assert server.connections[0].gone.wait(LIMIT)
    (record,) = [r for r in caplog.records if r.name == "eventsource.engine.async_iterator"]
    assert record.levelno == logging.ERROR
    assert "closed: RuntimeError('Event loop is closed')" in record.getMessage()


def test_a_stream_that_is_closed_after_its_loop_ends_without_a_word(caplog):
    with ScriptedServer(stream(then="hold")) as server:
        events = EventStream(server.url)
        iterator = aiter(events)
        run(lambda: anext(iterator))
        events.close()
        wait_until(lambda: not readers(), "the thread to end")
    assert [r for r in caplog.records if r.name == "eventsource.engine.async_iterator"] == []


@pytest.mark.parametrize("own_session", [True, False])
def test_a_stream_that_is_dropped_after_its_loop_has_been_closed(own_session):
    with ScriptedServer(stream(then="hold")) as server, requests.Session() as session:
        events = EventStream(server.url, session=None if own_session else session)
        run(lambda: anext(aiter(events)))
        assert events.ready_state is ReadyState.OPEN
        if not own_session:
            events.close()
        events = None
        wait_until(lambda: not readers(), "the thread to end")


def test_a_stream_that_one_loop_has_left_can_be_gone_on_with_in_another():
    with ScriptedServer(stream(numbers(5), then="hold")) as server:
        events = EventStream(server.url)
        assert asyncio.run(take(events, 1)) == ["0"]
        assert asyncio.run(take(events, 2)) == ["1", "2"]
        assert [next(events).data for _ in range(2)] == ["3", "4"]  # and without a loop
        wait_until(lambda: len(readers()) <= 1, "the thread of the first to end")
        events.close()
        wait_until(lambda: not readers(), "the thread to end")
        assert len(server.connections) == 1


def test_an_iterator_that_one_loop_has_left_says_so_in_another(caplog):
    # Also in the middle of a step, whose future the loop that is no more will not settle.
    with ScriptedServer(stream(numbers(2), then="hold")) as server:
        stream_ = EventStream(server.url)
        events = aiter(stream_)

        async def first():
            assert isinstance(await anext(events), OpenEvent)
            assert [(await anext(events)).data for _ in range(2)] == ["0", "1"]
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0):
                    await anext(events)

        run(first)

        async def second():
            with pytest.raises(RuntimeError, match="has begun in another event loop"):
                await anext(events)

        run(second)
        stream_.close()


async def test_the_thread_ends_with_a_stream_that_another_loop_has_read_to_its_end():
    with ScriptedServer(stream(numbers(2))) as server:
        events = EventStream(server.url, reconnect=None)
        await anext(aiter(events))
        assert len(list(events)) == 3  # the thread is idle meanwhile
        await until(lambda: not readers(), "the thread to end")


@pytest.mark.parametrize("which", ["items", "messages"])
async def test_a_cancelled_task_that_is_kept_keeps_no_thread(which):
    # Its exception keeps the frames that it went through.
    with ScriptedServer(stream(numbers(2), then="hold")) as server:
        stream_ = EventStream(server.url)

        async def read():
            async for _ in stream_ if which == "items" else stream_.messages():
                pass

        task = asyncio.create_task(read())
        await until(lambda: stream_.last_event_id == "1")
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        stream_ = None
        await until(lambda: not readers(), "the thread to end")
        del task
