"""`EventSource` on an event loop: `dispatch=loop.call_soon_threadsafe`, coroutine handlers."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import inspect
import logging
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest

from eventsource import ErrorEvent, EventSource, ReadyState, UnexpectedStatus, dispatch
from eventsource.testing import ScriptedServer
from tests.on_loop import (
    asyncio_has_nothing_to_complain_of,  # noqa: F401 - a fixture
    run,
    until,
)
from tests.support import LIMIT, QUICK, numbers, queue_of, status, stream, wait_until

NOWHERE = "http://127.0.0.1:9/"


@contextlib.asynccontextmanager
async def source_at(url, **options):
    """A source on the running loop; no thread of it is left behind."""
    source = EventSource(url, dispatch=dispatch.asyncio(), **options)
    try:
        yield source
    finally:
        source.close()
        assert await asyncio.to_thread(source.join, LIMIT)


@contextlib.asynccontextmanager
async def source_of(*blocks, **options):
    """A source on the running loop, whose server sends these bytes and holds the connection."""
    with ScriptedServer(stream(*blocks, then="hold")) as server:
        async with source_at(server.url, **options) as source:
            yield source


def data_of(count):
    return [str(number) for number in range(count)]


def failures(caplog):
    return [r for r in caplog.records if r.name.startswith("eventsource")]


# --- Where and in which order ---


async def test_plain_handlers_run_on_the_loops_thread_in_order():
    called = []
    ended = asyncio.Event()

    def handler(event):
        asyncio.get_running_loop()
        called.append((threading.get_ident(), getattr(event, "type", event)))
        if isinstance(event, ErrorEvent) and event.retry_in is None:
            ended.set()

    first = stream(numbers(2), b":c\n\nevent: tick\ndata: t\n\n")
    with ScriptedServer(first, status("204 No Content")) as server:
        async with source_at(server.url, on_comment=handler, reconnect=QUICK) as source:
            for event_type in ("open", "message", "tick", "error"):
                source.on(event_type, handler)
            await ended.wait()
            assert await asyncio.to_thread(source.join, LIMIT)
            assert source.ready_state is ReadyState.CLOSED
            assert isinstance(source.error, UnexpectedStatus)
    assert {ident for ident, _ in called} == {threading.get_ident()}
    types = [what for _, what in called]
    assert types == ["open", "message", "message", "c", "tick", "error", "error"]


@pytest.mark.parametrize(
    ("is_coroutine", "count", "debug"),
    [
        (False, 100_000, False),
        (False, 5_000, True),
        pytest.param(True, 10_000, False, marks=pytest.mark.long),
        pytest.param(True, 500, True, marks=pytest.mark.long),
    ],
)
def test_many_events_arrive_in_order(is_coroutine, count, debug):
    async def main():
        found = []

        def plain(event):
            found.append(event.data)

        async def coroutine(event):
            await asyncio.sleep(0)
            found.append(event.data)

        handler = coroutine if is_coroutine else plain
        async with source_of(numbers(count), on_message=handler):
            await until(lambda: len(found) >= count)
        assert found == data_of(count)

    run(main, debug=debug)


class Called:
    def __init__(self, function):
        self.function = function

    async def __call__(self, event):
        await self.function(event)


KINDS = {
    "async def": lambda function: function,
    "functools.partial": lambda function: functools.partial(function),
    "partial with arguments": lambda function: functools.partial(
        lambda prefix, event: function(event), "prefix"
    ),
    "async __call__": Called,
    "lambda": lambda function: lambda event: function(event),
}


@pytest.mark.parametrize("kind", KINDS)
async def test_every_kind_of_coroutine_handler_runs_as_a_task_on_the_loop(kind):
    found, tasks = [], []

    async def function(event):
        await asyncio.sleep(0)
        tasks.append(asyncio.current_task().get_name())
        found.append((event.data, threading.get_ident()))

    async with source_of(numbers(3), start=False) as source:
        source.on("message", KINDS[kind](function))
        source.start()
        await until(lambda: len(found) == 3)
    assert found == [(str(n), threading.get_ident()) for n in range(3)]
    assert set(tasks) == {"eventsource handler"}


async def test_every_way_to_register_takes_coroutine_functions():
    found = []

    def recording(name):
        async def handler(event):
            await asyncio.sleep(0)
            found.append((name, getattr(event, "type", event)))

        return handler

    ways = ("on_open", "on_message", "on_error", "on_comment")
    with ScriptedServer(stream(numbers(2), b":c\n\n"), status("204 No Content")) as server:
        async with source_at(
            server.url, start=False, reconnect=QUICK, **{way: recording(way) for way in ways}
        ) as source:
            source.on_message = recording("on_message, set anew")
            source.once("message", recording("once"))
            source.on("message")(recording("decorator"))
            source.addEventListener("message", recording("addEventListener"))
            source.start()
            await until(lambda: source.ready_state is ReadyState.CLOSED)
            assert await asyncio.to_thread(source.join, LIMIT)
    messages = ["on_message, set anew", "once", "decorator", "addEventListener"]
    assert found == [
        ("on_open", "open"),
        *((name, "message") for name in messages),
        *((name, "message") for name in messages if name != "once"),
        ("on_comment", "c"),
        ("on_error", "error"),
        ("on_error", "error"),
    ]


async def test_the_next_handler_begins_only_when_the_coroutine_has_ended():
    happened = []
    gate = asyncio.Semaphore(0)

    async def first(event):
        happened.append(f"first {event.data}")
        await gate.acquire()
        happened.append(f"first {event.data} ends")

    async def second(event):
        happened.append(f"second {event.data}")

    def third(event):
        happened.append(f"third {event.data}")

    async with source_of(numbers(3), start=False) as source:
        for handler in (first, second, third):
            source.on("message", handler)
        source.start()
        expected = []
        for number in range(3):
            expected.append(f"first {number}")
            await until(lambda expected=expected: happened == expected)
            for _ in range(20):
                await asyncio.sleep(0)
            assert happened == expected
            gate.release()
            names = ("first {} ends", "second {}", "third {}")
            expected += [name.format(number) for name in names]
        await until(lambda: happened == expected)


async def test_the_loop_goes_on_while_many_events_are_handled():
    count = 100
    found = []
    ticks = 0

    def handler(event):
        found.append(event.data)
        end = time.monotonic() + 0.001
        while time.monotonic() < end:
            pass

    async with source_of(numbers(count), on_message=handler) as source:
        # The loop is held until all of them wait.
        wait_until(lambda: len(queue_of(source).waiting) >= count)
        while len(found) < count:
            await asyncio.sleep(0)
            ticks += 1
    assert ticks > 10  # a turn has 5 of them at the most


async def test_the_last_event_id_moves_when_the_coroutine_has_ended():
    started, gate = asyncio.Event(), asyncio.Event()

    async def handler(event):
        started.set()
        await gate.wait()

    async with source_of(numbers(2), on_message=handler, last_event_id="x") as source:
        await started.wait()
        assert source.last_event_id == "x"
        gate.set()
        await until(lambda: source.last_event_id == "1")


@pytest.mark.parametrize("way", ["message", "emit"])
async def test_a_waiting_handler_is_kept_though_nobody_else_refers_to_it(way):
    reached = []  # weak references: only the handler's frame holds the future
    done = []

    async def handler(event):
        future = asyncio.get_running_loop().create_future()
        reached.append(weakref.ref(future))
        await future
        done.append(event)

    async with source_of(numbers(1), start=False) as source:
        source.on(way, handler)
        if way == "emit":
            source.emit("emit", 1)
        else:
            source.start()
        await until(lambda: reached)
        for _ in range(3):
            gc.collect()
            await asyncio.sleep(0)
        future = reached[0]()
        assert future is not None
        future.set_result(None)
        await until(lambda: done)


# --- Failures ---


async def raising():
    raise KeyError


async def waiting_for_what_is_cancelled():
    work = asyncio.get_running_loop().create_future()
    work.cancel()
    await work


async def running_out_of_time():
    async with asyncio.timeout(0.01):
        await asyncio.Event().wait()


@pytest.mark.parametrize(
    ("fail", "error"),
    [
        (raising, KeyError),
        (waiting_for_what_is_cancelled, asyncio.CancelledError),
        (running_out_of_time, TimeoutError),
    ],
)
async def test_what_a_coroutine_handler_raises_is_logged_and_the_others_run(fail, error, caplog):
    found = []

    async def broken(event):
        await fail()

    async def fine(event):
        found.append(event.data)

    async with source_of(numbers(2), start=False) as source:
        source.on("message", broken)
        source.on("message", fine)
        source.start()
        await until(lambda: found == ["0", "1"])
        assert source.ready_state is ReadyState.OPEN
    records = failures(caplog)
    assert [(r.levelno, type(r.exc_info[1])) for r in records] == [(logging.ERROR, error)] * 2
    assert "broken raised" in records[0].getMessage()
    assert records[0].exc_info[1].__traceback__.tb_next.tb_frame.f_code.co_name == "broken"


@pytest.mark.parametrize("which", ["eventsource", "eventsource handler"])
async def test_the_cancellation_of_the_tasks_that_run_the_handlers_closes_the_source(which, caplog):
    started = []

    async def handler(event):
        started.append(event.data)
        await asyncio.Event().wait()

    async with source_of(numbers(5), on_message=handler) as source:
        await until(lambda: started)
        (task,) = [t for t in asyncio.all_tasks() if t.get_name() == which]
        task.cancel()
        await until(lambda: source.ready_state is ReadyState.CLOSED)
        assert await asyncio.to_thread(source.join, LIMIT)
        assert started == ["0"]
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == {asyncio.current_task()}
    (record,) = failures(caplog)
    assert "closed: the task that runs its handlers was cancelled" in record.getMessage()


def test_asyncio_run_that_ends_while_a_handler_waits_closes_the_source(caplog):
    with ScriptedServer(stream(numbers(5), then="hold")) as server:
        sources, happened = [], []

        async def handler(event):
            happened.append(event.data)
            try:
                await asyncio.Event().wait()
            finally:
                happened.append("cancelled")

        async def main():
            sources.append(EventSource(server.url, dispatch=dispatch.asyncio(), on_message=handler))
            await until(lambda: happened)

        run(main)
        assert sources[0].ready_state is ReadyState.CLOSED
        assert sources[0].join(LIMIT)
        assert happened == ["0", "cancelled"]
        assert server.connections[0].gone.wait(LIMIT)
    (record,) = failures(caplog)
    assert "closed: the task that runs its handlers was cancelled" in record.getMessage()


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt()], ids=lambda e: str(type(e)))
def test_a_system_exit_of_a_handlers_ends_the_loop_and_closes_the_source(error, caplog):
    with ScriptedServer(stream(numbers(5), then="hold")) as server:
        sources = []

        async def handler(event):
            raise error

        async def main():
            sources.append(EventSource(server.url, dispatch=dispatch.asyncio(), on_message=handler))
            await asyncio.Event().wait()

        with pytest.raises(type(error)):
            run(main)
        assert sources[0].join(LIMIT)
        assert sources[0].ready_state is ReadyState.CLOSED


# --- Without a server ---


async def test_emit_runs_coroutine_handlers_on_the_loop_from_any_thread():
    found = []

    async def handler(*args, **kwargs):
        await asyncio.sleep(0)
        found.append((args, kwargs, threading.get_ident()))

    async with source_at(NOWHERE, start=False) as source:
        source.on("x", handler)
        assert source.emit("x", 1)
        assert found == []
        await until(lambda: len(found) == 1)
        assert await asyncio.to_thread(source.emit, "x", b=2)
        await until(lambda: len(found) == 2)
        assert not source.emit("y")
    here = threading.get_ident()
    assert found == [((1,), {}, here), ((), {"b": 2}, here)]
    await asyncio.sleep(0)
    assert queue_of(source).tasks == set()


async def test_what_an_emitted_coroutine_raises_is_logged(caplog):
    async def broken(event):
        raise KeyError(event)

    async with source_at(NOWHERE, start=False) as source:
        source.on("x", broken)
        source.emit("x", 1)
        await until(lambda: failures(caplog))
    (record,) = failures(caplog)
    assert record.levelno == logging.ERROR
    assert isinstance(record.exc_info[1], KeyError)


def test_emit_after_the_loop_was_closed_logs_and_runs_the_plain_handlers(caplog):
    async def main():
        source = EventSource(NOWHERE, start=False, dispatch=dispatch.asyncio())
        source.on("x", a_coroutine_function)
        source.on("x", found.append)
        return source

    found = []
    source = run(main)
    assert source.emit("x", 1)
    assert found == [1]
    source.close()
    gc.collect()  # which would warn that the coroutine was never awaited
    (record,) = failures(caplog)
    assert record.levelno == logging.ERROR


# --- What is refused ---


async def a_coroutine_function(event):
    raise AssertionError


def a_generator_function(event):
    yield


async def an_async_generator_function(event):
    yield


COROUTINE_FUNCTIONS = [
    a_coroutine_function,
    functools.partial(a_coroutine_function),
    Called(a_coroutine_function),
]


@pytest.mark.parametrize("handler", COROUTINE_FUNCTIONS, ids=repr)
def test_without_a_loop_coroutine_functions_are_refused(handler):
    source = EventSource(NOWHERE, start=False)
    register = [
        lambda: source.on("x", handler),
        lambda: source.once("x", handler),
        lambda: setattr(source, "onmessage", handler),
        lambda: EventSource(NOWHERE, on_message=handler),
        lambda: EventSource(NOWHERE, on_comment=handler),
        lambda: EventSource(NOWHERE, on_open=handler, dispatch=lambda call: call()),
    ]
    for attempt in register:
        with pytest.raises(TypeError, match=r"pass dispatch=loop\.call_soon_threadsafe"):
            attempt()
    assert source.onmessage is None
    assert source.listeners("x") == []


@pytest.mark.parametrize("on_loop", [True, False])
@pytest.mark.parametrize("handler", [a_generator_function, an_async_generator_function])
async def test_generator_functions_are_refused_everywhere(handler, on_loop):
    chosen = dispatch.asyncio() if on_loop else None
    source = EventSource(NOWHERE, start=False, dispatch=chosen)
    for refused in (handler, functools.partial(handler)):
        with pytest.raises(TypeError, match="is a generator function"):
            source.on("x", refused)
    source.close()


async def test_a_method_of_the_loops_that_threads_must_not_call_is_refused():
    loop = asyncio.get_running_loop()
    for wrong in (loop.call_soon, functools.partial(loop.call_soon), loop.create_task):
        with pytest.raises(TypeError, match="must be the loop's call_soon_threadsafe"):
            EventSource(NOWHERE, dispatch=wrong)


async def test_a_partial_of_call_soon_threadsafe_is_taken():
    found = []

    async def handler(event):
        found.append(event.data)

    once = functools.partial(asyncio.get_running_loop().call_soon_threadsafe)
    with ScriptedServer(stream(numbers(1), then="hold")) as server:
        source = EventSource(server.url, dispatch=functools.partial(once), on_message=handler)
        await until(lambda: found == ["0"])
        source.close()
        assert await asyncio.to_thread(source.join, LIMIT)


def test_a_lambda_that_returns_a_coroutine_where_no_loop_runs_is_logged(caplog):
    with ScriptedServer(stream(numbers(1), then="hold")) as server:
        with EventSource(server.url, on_message=lambda event: a_coroutine_function(event)):
            wait_until(lambda: failures(caplog))
    gc.collect()  # which would warn that it was never awaited
    (record,) = failures(caplog)
    assert record.levelno == logging.ERROR
    assert "returned a coroutine, which no event loop runs" in record.getMessage()


def test_dispatch_asyncio_is_call_soon_threadsafe_of_the_running_or_the_given_loop():
    with pytest.raises(RuntimeError, match="no running event loop"):
        dispatch.asyncio()

    async def main():
        loop = asyncio.get_running_loop()
        assert dispatch.asyncio() == loop.call_soon_threadsafe
        return loop

    loop = run(main)
    assert dispatch.asyncio(loop) == loop.call_soon_threadsafe


# --- The end ---


async def test_after_close_nothing_that_waits_is_run_and_what_runs_may_finish():
    happened = []
    gate = asyncio.Event()

    async def first(event):
        happened.append(f"first {event.data}")
        await gate.wait()
        happened.append(f"first {event.data} ends")

    async def second(event):
        happened.append(f"second {event.data}")

    async with source_of(numbers(20), start=False) as source:
        source.on("message", first)
        source.on("message", second)
        source.start()
        await until(lambda: len(queue_of(source).waiting) == 19 and happened)
        source.close()
        assert await asyncio.to_thread(source.join, LIMIT)
        gate.set()
        for _ in range(20):
            await asyncio.sleep(0)
    assert happened == ["first 0", "first 0 ends"]
    assert source.last_event_id in ("", "0")


async def test_a_handler_that_was_chosen_before_close_does_not_begin_after_it():
    # The task of a coroutine begins later than it is made.
    happened = []

    async def work():
        happened.append("begins")

    def close(source):
        source.close()
        happened.append("closed")

    def handler(event):
        asyncio.get_running_loop().call_soon(close, source)
        return work()

    async with source_of(numbers(1), start=False) as source:
        source.on("message", handler)
        source.start()
        await until(lambda: happened)
    await asyncio.sleep(0)
    assert happened == ["closed"]


async def test_a_coroutine_whose_task_is_cancelled_before_it_begins_is_closed_at_once():
    """Whoever still refers to the task's coroutine."""
    made, kept = [], []

    async def work():
        raise AssertionError("it has begun")

    def cancel():
        for task in asyncio.all_tasks():
            if task.get_name() == "eventsource handler":
                kept.append(task.get_coro())
                task.cancel()

    def handler(event):
        asyncio.get_running_loop().call_soon(cancel)
        made.append(work())
        return made[0]

    async with source_of(numbers(1), on_message=handler) as source:
        await until(lambda: source.ready_state is ReadyState.CLOSED)
    assert [type(each).__name__ for each in kept] == ["_AwaitedOrClosed"]
    assert inspect.getcoroutinestate(made[0]) == inspect.CORO_CLOSED


async def test_join_in_the_loop_does_not_wait_for_what_has_not_run_yet():
    async with source_of(numbers(1), on_message=print) as source:
        assert source.join() is False
        assert await asyncio.to_thread(source.join, 0.01) is False


def test_a_loop_that_was_closed_first_closes_the_source_at_the_next_event(caplog):
    proceed = threading.Event()

    def script(connection):
        connection.start_stream()
        connection.send_event("0")
        assert proceed.wait(LIMIT)
        connection.send_event("1")
        connection.hold()

    with ScriptedServer(script) as server:
        found = []

        async def handler(event):
            found.append(event.data)

        async def main():
            source = EventSource(server.url, dispatch=dispatch.asyncio(), on_message=handler)
            await until(lambda: found and not queue_of(source).is_under_way)
            return source

        source = run(main)
        assert source.ready_state is ReadyState.OPEN
        proceed.set()
        assert source.join(LIMIT)  # not False at once: no handler waits for this thread
        assert source.ready_state is ReadyState.CLOSED
        assert isinstance(source.error, RuntimeError)
        assert found == ["0"]
        assert server.connections[0].gone.wait(LIMIT)
    (record,) = failures(caplog)
    assert record.levelno == logging.ERROR
    assert "closed: `dispatch` raised" in record.getMessage()


def test_a_loop_that_is_closed_with_a_turn_in_its_queue_closes_the_source(caplog):
    with ScriptedServer(stream(numbers(1), then="hold")) as server:
        loop = asyncio.new_event_loop()
        source = EventSource(server.url, dispatch=loop.call_soon_threadsafe, on_message=print)
        wait_until(lambda: queue_of(source).waiting)
        loop.close()
        assert source.join(LIMIT)
        assert source.ready_state is ReadyState.CLOSED
    assert "closed: `dispatch` " in failures(caplog)[0].getMessage()


def test_a_loop_that_stops_for_a_while_loses_nothing():
    with ScriptedServer(stream(numbers(5), then="hold")) as server:
        loop = asyncio.new_event_loop()
        found = []

        async def handler(event):
            await asyncio.sleep(0)
            found.append(event.data)

        source = EventSource(server.url, dispatch=loop.call_soon_threadsafe, on_message=handler)
        try:
            for count in range(1, 6):
                loop.run_until_complete(until(lambda count=count: len(found) >= count))
            assert found == data_of(5)
        finally:
            source.close()
            assert source.join(LIMIT)
            loop.run_until_complete(asyncio.sleep(0))
            loop.close()


async def test_only_so_many_events_wait_for_a_slow_coroutine_and_all_arrive():
    count = 300
    found, waiting = [], []
    gate = asyncio.Event()

    async def handler(event):
        await gate.wait()
        waiting.append(len(queue_of(source).waiting))
        found.append(event.data)

    async with source_of(numbers(count), start=False, max_waiting=10) as source:
        source.on("message", handler)
        source.start()
        await until(lambda: queue_of(source).reader_waits)
        gate.set()
        await until(lambda: len(found) == count)
    assert found == data_of(count)
    assert 0 < max(waiting) <= 10


# --- async with ---


async def test_async_with_closes_and_waits_for_the_thread_while_the_loop_goes_on():
    threads, go_on = [], threading.Event()

    def auth(request):
        threads.append(threading.current_thread())
        assert go_on.wait(LIMIT)
        return request

    async with EventSource(
        NOWHERE, auth=auth, on_error=print, dispatch=dispatch.asyncio()
    ) as source:
        await until(lambda: threads)
        # The thread ends only if the loop goes on while __aexit__ waits for it.
        asyncio.get_running_loop().call_later(0.01, go_on.set)
    assert source.ready_state is ReadyState.CLOSED
    assert not threads[0].is_alive()


async def test_async_with_gives_up_on_a_thread_that_does_not_end(monkeypatch, caplog):
    monkeypatch.setattr("eventsource.source.EXIT_TIMEOUT", 0.01)
    going, go_on = threading.Event(), threading.Event()

    def auth(request):
        going.set()
        assert go_on.wait(LIMIT)
        return request

    async with EventSource(NOWHERE, auth=auth, on_error=print) as source:
        await until(going.is_set)
    go_on.set()
    assert await asyncio.to_thread(source.join, LIMIT)
    assert "still busy" in caplog.text


async def test_async_with_closes_before_it_waits_for_anything():
    free = threading.Event()
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(1))
    busy = loop.run_in_executor(None, free.wait, LIMIT)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.05):
            async with EventSource(NOWHERE, on_error=print) as source:
                await asyncio.sleep(0)
    assert source.ready_state is ReadyState.CLOSED
    free.set()
    await busy
    assert await asyncio.to_thread(source.join, LIMIT)


def test_sources_whose_pool_was_shut_down_are_not_kept(monkeypatch):
    # pytest keeps the record, which refers to the source.
    monkeypatch.setattr(logging.getLogger("eventsource.source"), "disabled", True)
    failed = []
    with ScriptedServer(stream(numbers(1), then="hold")) as server:
        for _ in range(5):
            executor = ThreadPoolExecutor(1)
            executor.shutdown()
            source = EventSource(server.url, on_message=print, dispatch=executor.submit)
            assert source.join(LIMIT)
            assert source.error is not None
            failed.append(weakref.ref(source))
        del source
    EventSource(NOWHERE, dispatch=print, start=False)
    gc.collect()
    assert [ref() for ref in failed] == [None] * 5
