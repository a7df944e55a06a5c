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

from eventsource import (
    ErrorEvent,
    EventSource,
    MessageEvent,
    OpenEvent,
    ReadyState,
    UnexpectedStatus,
    dispatch,
)
from eventsource.testing import ScriptedServer
from tests.on_loop import asyncio_has_nothing_to_complain_of, run, until  # noqa: F401 - a fixture
from tests.support import LIMIT, QUICK, numbers, queue_of, status, stream, wait_until


@contextlib.asynccontextmanager
async def source_of(url, **options):
    """A source on the running loop; no thread of it is left behind."""
    source = EventSource(url, dispatch=dispatch.asyncio(), **options)
    try:
        yield source
    finally:
        source.close()
        assert await asyncio.to_thread(source.join, LIMIT)


def data_of(count):
    return [str(number) for number in range(count)]


def failures(caplog):
    return [r for r in caplog.records if r.name.startswith("eventsource")]


# --- Where and in which order ---


def test_plain_handlers_run_on_the_loops_thread_in_order():
    with ScriptedServer(
        stream(numbers(2), b":c\n\nevent: tick\ndata: t\n\n"), status("204 No Content")
    ) as server:

        async def main():
            called = []
            ended = asyncio.Event()

            def handler(event):
                asyncio.get_running_loop()
                called.append((threading.get_ident(), getattr(event, "type", event)))
                if isinstance(event, ErrorEvent) and event.retry_in is None:
                    ended.set()

            async with source_of(server.url, on_comment=handler, reconnect=QUICK) as source:
                for event_type in ("open", "message", "tick", "error"):
                    source.on(event_type, handler)
                await ended.wait()
                assert await asyncio.to_thread(source.join, LIMIT)
                assert source.ready_state is ReadyState.CLOSED
                assert isinstance(source.error, UnexpectedStatus)
            assert {ident for ident, _ in called} == {threading.get_ident()}
            assert [what for _, what in called] == [
                *("open", "message", "message", "c", "tick", "error", "error")
            ]

        run(main)


@pytest.mark.parametrize(("count", "debug"), [(100_000, False), (5_000, True)])
def test_many_events_arrive_in_order_at_a_plain_handler(count, debug):
    with ScriptedServer(stream(numbers(count), then="hold")) as server:

        async def main():
            found = []
            async with source_of(server.url, on_message=lambda event: found.append(event.data)):
                await until(lambda: len(found) >= count)
            assert found == data_of(count)

        run(main, debug=debug)


@pytest.mark.long
@pytest.mark.parametrize(("count", "debug"), [(10_000, False), (2_000, True)])
def test_many_events_arrive_in_order_at_a_coroutine_handler(count, debug):
    with ScriptedServer(stream(numbers(count), then="hold")) as server:

        async def main():
            found = []

            async def handler(event):
                await asyncio.sleep(0)
                found.append(event.data)

            async with source_of(server.url, on_message=handler):
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
def test_every_kind_of_coroutine_handler_runs_as_a_task_on_the_loop(kind):
    with ScriptedServer(stream(numbers(3), then="hold")) as server:

        async def main():
            found, tasks = [], []

            async def function(event):
                await asyncio.sleep(0)
                assert asyncio.current_task() is not None
                tasks.append(asyncio.current_task().get_name())
                found.append((event.data, threading.get_ident()))

            async with source_of(server.url, start=False) as source:
                source.on("message", KINDS[kind](function))
                source.start()
                await until(lambda: len(found) == 3)
            assert found == [(str(n), threading.get_ident()) for n in range(3)]
            assert set(tasks) == {"eventsource handler"}

        run(main)


def test_every_way_to_register_takes_coroutine_functions():
    with ScriptedServer(stream(numbers(2), b":c\n\n"), status("204 No Content")) as server:

        async def main():
            found = []

            def recording(name):
                async def handler(event):
                    await asyncio.sleep(0)
                    found.append((name, getattr(event, "type", event)))

                return handler

            async with source_of(
                server.url,
                start=False,
                reconnect=QUICK,
                on_open=recording("on_open"),
                on_message=recording("on_message"),
                on_error=recording("on_error"),
                on_comment=recording("on_comment"),
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

        run(main)


def test_the_next_handler_begins_only_when_the_coroutine_has_ended():
    with ScriptedServer(stream(numbers(3), then="hold")) as server:

        async def main():
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

            async with source_of(server.url, start=False) as source:
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

        run(main)


def test_the_loop_goes_on_while_many_events_are_handled():
    count = 100
    with ScriptedServer(stream(numbers(count), then="hold")) as server:

        async def main():
            found = []
            ticks = 0

            def handler(event):
                found.append(event.data)
                end = time.monotonic() + 0.001
                while time.monotonic() < end:
                    pass

            async with source_of(server.url, on_message=handler) as source:
                # The loop is held until all of them wait.
                wait_until(lambda: len(queue_of(source).waiting) >= count)
                while len(found) < count:
                    await asyncio.sleep(0)
                    ticks += 1
            assert ticks > 10  # a turn has 5 of them at the most

        run(main)


def test_the_last_event_id_moves_when_the_coroutine_has_ended():
    with ScriptedServer(stream(numbers(2), then="hold")) as server:

        async def main():
            started, gate = asyncio.Event(), asyncio.Event()

            async def handler(event):
                started.set()
                await gate.wait()

            async with source_of(server.url, on_message=handler, last_event_id="x") as source:
                await started.wait()
                assert source.last_event_id == "x"
                gate.set()
                await until(lambda: source.last_event_id == "1")

        run(main)


def test_a_waiting_handler_is_kept_though_nobody_else_refers_to_it():
    with ScriptedServer(stream(numbers(1), then="hold")) as server:

        async def main():
            reached = []  # weak references: only the handler's frame holds the future
            done = []

            async def handler(event):
                future = asyncio.get_running_loop().create_future()
                reached.append(weakref.ref(future))
                await future
                done.append(event.data)

            async with source_of(server.url, on_message=handler):
                await until(lambda: reached)
                for _ in range(3):
                    gc.collect()
                    await asyncio.sleep(0)
                future = reached[0]()
                assert future is not None
                future.set_result(None)
                await until(lambda: done == ["0"])

        run(main)


def test_a_source_that_nobody_refers_to_goes_on():
    with ScriptedServer(stream(numbers(3), then="hold")) as server:

        async def main():
            sources, found = [], []

            async def handler(event):
                gc.collect()
                await asyncio.sleep(0)
                found.append(event.data)

            source = EventSource(server.url, dispatch=dispatch.asyncio(), on_message=handler)
            sources.append(weakref.ref(source))
            del source
            await until(lambda: len(found) == 3)
            sources[0]().close()
            await until(lambda: not [t for t in threading.enumerate() if "eventsource" in t.name])

        run(main)


# --- Failures ---


def test_what_a_coroutine_handler_raises_is_logged_and_the_others_run(caplog):
    with ScriptedServer(stream(numbers(2), then="hold")) as server:

        async def main():
            found = []

            async def broken(event):
                await asyncio.sleep(0)
                raise KeyError(event.data)

            async def fine(event):
                found.append(event.data)

            async with source_of(server.url, start=False) as source:
                source.on("message", broken)
                source.on("message", fine)
                source.start()
                await until(lambda: found == ["0", "1"])

        run(main)
    records = failures(caplog)
    assert [record.levelno for record in records] == [logging.ERROR] * 2
    assert "broken raised" in records[0].getMessage()
    assert [str(record.exc_info[1]) for record in records] == ["'0'", "'1'"]
    assert records[0].exc_info[1].__traceback__.tb_next.tb_frame.f_code.co_name == "broken"


def test_a_handler_whose_work_was_cancelled_is_logged_and_the_source_lives(caplog):
    with ScriptedServer(stream(numbers(2), then="hold")) as server:

        async def main():
            found = []

            async def handler(event):
                if event.data == "0":
                    work = asyncio.get_running_loop().create_future()
                    work.cancel()
                    await work
                found.append(event.data)

            async with source_of(server.url, on_message=handler) as source:
                await until(lambda: found == ["1"])
                assert source.ready_state is ReadyState.OPEN

        run(main)
    (record,) = failures(caplog)
    assert record.levelno == logging.ERROR
    assert isinstance(record.exc_info[1], asyncio.CancelledError)


def test_a_handler_that_runs_out_of_its_own_time_is_logged_and_the_source_lives(caplog):
    with ScriptedServer(stream(numbers(2), then="hold")) as server:

        async def main():
            found = []

            async def handler(event):
                if event.data == "0":
                    async with asyncio.timeout(0.01):
                        await asyncio.Event().wait()
                found.append(event.data)

            async with source_of(server.url, on_message=handler):
                await until(lambda: found == ["1"])

        run(main)
    (record,) = failures(caplog)
    assert isinstance(record.exc_info[1], TimeoutError)


@pytest.mark.parametrize("which", ["eventsource", "eventsource handler"])
def test_the_cancellation_of_the_tasks_that_run_the_handlers_closes_the_source(which, caplog):
    with ScriptedServer(stream(numbers(5), then="hold")) as server:

        async def main():
            started = []

            async def handler(event):
                started.append(event.data)
                await asyncio.Event().wait()

            source = EventSource(server.url, dispatch=dispatch.asyncio(), on_message=handler)
            await until(lambda: started)
            (task,) = [t for t in asyncio.all_tasks() if t.get_name() == which]
            task.cancel()
            await until(lambda: source.ready_state is ReadyState.CLOSED)
            assert await asyncio.to_thread(source.join, LIMIT)
            assert started == ["0"]
            await asyncio.sleep(0)
            assert asyncio.all_tasks() == {asyncio.current_task()}

        run(main)
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


def test_emit_runs_coroutine_handlers_on_the_loop_from_any_thread():
    with ScriptedServer(stream()) as server:

        async def main():
            found = []

            async def handler(*args, **kwargs):
                await asyncio.sleep(0)
                found.append((args, kwargs, threading.get_ident()))

            async with source_of(server.url, start=False) as source:
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

        run(main)


def test_what_an_emitted_coroutine_raises_is_logged(caplog):
    async def main():
        async def broken(event):
            raise KeyError(event)

        async with source_of("http://127.0.0.1:9/", start=False) as source:
            source.on("x", broken)
            source.emit("x", 1)
            await until(lambda: failures(caplog))

    run(main)
    (record,) = failures(caplog)
    assert record.levelno == logging.ERROR
    assert isinstance(record.exc_info[1], KeyError)


def test_an_emitted_coroutine_is_kept_though_nobody_else_refers_to_it():
    async def main():
        reached, done = [], []

        async def handler(event):
            future = asyncio.get_running_loop().create_future()
            reached.append(weakref.ref(future))
            await future
            done.append(event)

        async with source_of("http://127.0.0.1:9/", start=False) as source:
            source.on("x", handler)
            source.emit("x", 1)
            await until(lambda: reached)
            gc.collect()
            reached[0]().set_result(None)
            await until(lambda: done == [1])

    run(main)


def test_emit_after_the_loop_was_closed_logs_and_runs_the_plain_handlers(caplog):
    async def main():
        source = EventSource("http://127.0.0.1:9/", start=False, dispatch=dispatch.asyncio())
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
    source = EventSource("http://127.0.0.1:9/", start=False)
    register = [
        lambda: source.on("x", handler),
        lambda: source.once("x", handler),
        lambda: setattr(source, "onmessage", handler),
        lambda: EventSource("http://127.0.0.1:9/", on_message=handler),
        lambda: EventSource("http://127.0.0.1:9/", on_comment=handler),
        lambda: EventSource("http://127.0.0.1:9/", on_open=handler, dispatch=lambda call: call()),
    ]
    for attempt in register:
        with pytest.raises(TypeError, match=r"pass dispatch=loop\.call_soon_threadsafe"):
            attempt()
    assert source.onmessage is None
    assert source.listeners("x") == []


@pytest.mark.parametrize("on_loop", [True, False])
@pytest.mark.parametrize("handler", [a_generator_function, an_async_generator_function])
def test_generator_functions_are_refused_everywhere(handler, on_loop):
    async def main():
        chosen = dispatch.asyncio() if on_loop else None
        source = EventSource("http://127.0.0.1:9/", start=False, dispatch=chosen)
        for refused in (handler, functools.partial(handler)):
            with pytest.raises(TypeError, match="is a generator function"):
                source.on("x", refused)
        source.close()

    run(main)


def test_a_method_of_the_loops_that_threads_must_not_call_is_refused():
    async def main():
        loop = asyncio.get_running_loop()
        for wrong in (loop.call_soon, functools.partial(loop.call_soon), loop.create_task):
            with pytest.raises(TypeError, match="must be the loop's call_soon_threadsafe"):
                EventSource("http://127.0.0.1:9/", dispatch=wrong)

    run(main)


def test_a_partial_of_call_soon_threadsafe_is_taken():
    with ScriptedServer(stream(numbers(1), then="hold")) as server:

        async def main():
            found = []

            async def handler(event):
                found.append(event.data)

            once = functools.partial(asyncio.get_running_loop().call_soon_threadsafe)
            source = EventSource(server.url, dispatch=functools.partial(once), on_message=handler)
            await until(lambda: found == ["0"])
            source.close()
            assert await asyncio.to_thread(source.join, LIMIT)

        run(main)


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


def test_after_close_nothing_that_waits_is_run_and_what_runs_may_finish():
    with ScriptedServer(stream(numbers(20), then="hold")) as server:

        async def main():
            happened = []
            gate = asyncio.Event()

            async def first(event):
                happened.append(f"first {event.data}")
                await gate.wait()
                happened.append(f"first {event.data} ends")

            async def second(event):
                happened.append(f"second {event.data}")

            async with source_of(server.url, start=False) as source:
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

        run(main)


def test_close_by_a_coroutine_handler_is_the_end():
    with ScriptedServer(stream(numbers(20), then="hold")) as server:

        async def main():
            found = []

            async def handler(event):
                await asyncio.sleep(0)
                found.append(event.data)
                if event.data == "3":
                    source.close()
                    await asyncio.to_thread(source.join)
                    found.append("joined")

            source = EventSource(server.url, dispatch=dispatch.asyncio(), on_message=handler)
            await until(lambda: "joined" in found)
            assert found == ["0", "1", "2", "3", "joined"]
            assert server.connections[0].gone.wait(LIMIT)

        run(main)


def test_join_in_the_loop_of_a_source_that_lives_does_not_hang_the_loop():
    with ScriptedServer(stream(numbers(1), then="hold")) as server:

        async def main():
            results = []

            async def handler(event):
                results.append(source.join())

            async with source_of(server.url, on_message=handler, start=False) as source:
                source.start()
                await until(lambda: results == [False])

        run(main)


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
    records = failures(caplog)
    assert "closed: `dispatch` " in records[0].getMessage()


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


# --- Back-pressure ---


def test_only_so_many_events_wait_for_a_slow_coroutine_and_all_arrive():
    count = 4000
    sent = 0

    def script(connection):
        nonlocal sent
        connection.start_stream()
        for number in range(count):
            connection.send_event(str(number).ljust(4000))
            sent += 1
        connection.hold()

    with ScriptedServer(script) as server:

        async def main():
            found = []
            most = 0
            started, gate = asyncio.Event(), asyncio.Event()

            async def handler(event):
                nonlocal most
                started.set()
                await gate.wait()
                most = max(most, len(queue_of(source).waiting))
                found.append(int(event.data))

            async with source_of(
                server.url, start=False, on_message=handler, max_waiting=10
            ) as source:
                source.start()
                queue = queue_of(source)
                # The reader looks for room again only when the handler has ended: 10 or fewer.
                await started.wait()
                await until(lambda: queue.reader_waits)
                before = -1
                while before != sent:  # until the kernel's buffers are full, too
                    before = sent
                    for _ in range(50):
                        await asyncio.sleep(0.001)
                        assert 0 < len(queue.waiting) <= 10
                assert queue.reader_waits
                assert sent < count
                gate.set()
                await until(lambda: len(found) == count)
            assert found == list(range(count))
            assert most <= 10

        run(main, debug=False)


def test_close_frees_a_reader_that_waits_for_room():
    with ScriptedServer(stream(numbers(100), then="hold")) as server:

        async def main():
            async def handler(event):
                await asyncio.Event().wait()

            source = EventSource(
                server.url, dispatch=dispatch.asyncio(), on_message=handler, max_waiting=10
            )
            await until(lambda: queue_of(source).reader_waits)
            source.close()
            assert await asyncio.to_thread(source.join, LIMIT)
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()

        run(main)


def test_a_coroutine_whose_task_is_cancelled_before_it_begins_is_closed_at_once():
    """Whoever still refers to the task's coroutine."""
    with ScriptedServer(stream(numbers(1), then="hold")) as server:

        async def main():
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

            async with source_of(server.url, on_message=handler) as source:
                await until(lambda: source.ready_state is ReadyState.CLOSED)
            assert [type(each).__name__ for each in kept] == ["_AwaitedOrClosed"]
            assert inspect.getcoroutinestate(made[0]) == inspect.CORO_CLOSED

        run(main)


def test_the_events_are_of_the_kinds_that_they_are_without_a_loop():
    with ScriptedServer(stream(numbers(1)), status("204 No Content")) as server:

        async def main():
            found = []
            async with source_of(server.url, start=False, reconnect=QUICK) as source:
                for event_type in ("open", "message", "error"):
                    source.on(event_type, found.append)
                source.start()
                await until(lambda: source.join(0))  # its state is ahead of its handlers
            assert list(map(type, found)) == [OpenEvent, MessageEvent, ErrorEvent, ErrorEvent]

        run(main)


def test_async_with_closes_and_waits_for_the_thread_while_the_loop_goes_on():
    threads, go_on = [], threading.Event()

    def auth(request):
        threads.append(threading.current_thread())
        assert go_on.wait(LIMIT)
        return request

    async def main():
        async with EventSource(
            "http://127.0.0.1:9/", auth=auth, on_error=print, dispatch=dispatch.asyncio()
        ) as source:
            await until(lambda: threads)
            # The thread ends only if the loop goes on while __aexit__ waits for it.
            asyncio.get_running_loop().call_later(0.01, go_on.set)
        assert source.ready_state is ReadyState.CLOSED
        assert not threads[0].is_alive()

    run(main)


def test_async_with_gives_up_on_a_thread_that_does_not_end(monkeypatch, caplog):
    monkeypatch.setattr("eventsource.source.EXIT_TIMEOUT", 0.01)
    going, go_on = threading.Event(), threading.Event()

    def auth(request):
        going.set()
        assert go_on.wait(LIMIT)
        return request

    async def main():
        async with EventSource("http://127.0.0.1:9/", auth=auth, on_error=print) as source:
            await until(going.is_set)
        go_on.set()
        return source

    assert run(main).join(LIMIT)
    assert "still busy" in caplog.text


def test_a_handler_that_was_chosen_before_close_does_not_begin_after_it():
    # The task of a coroutine begins later than it is made.
    with ScriptedServer(stream(numbers(1), then="hold")) as server:

        async def main():
            happened = []

            async def work():
                happened.append("begins")

            def close(source):
                source.close()
                happened.append("closed")

            def handler(event):
                asyncio.get_running_loop().call_soon(close, source)
                return work()

            async with source_of(server.url, start=False) as source:
                source.on("message", handler)
                source.start()
                await until(lambda: happened)
            await asyncio.sleep(0)
            assert happened == ["closed"]

        run(main)


def test_join_in_the_loop_does_not_wait_for_what_has_not_run_yet():
    with ScriptedServer(stream(numbers(1), then="hold")) as server:

        async def main():
            async with source_of(server.url, on_message=print) as source:
                assert source.join() is False
                assert await asyncio.to_thread(source.join, 0.01) is False

        run(main)


def test_async_with_closes_before_it_waits_for_anything():
    free = threading.Event()

    async def main():
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(1))
        busy = loop.run_in_executor(None, free.wait, LIMIT)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.05):
                async with EventSource("http://127.0.0.1:9/", on_error=print) as source:
                    await asyncio.sleep(0)
        assert source.ready_state is ReadyState.CLOSED
        free.set()
        await busy
        assert await asyncio.to_thread(source.join, LIMIT)

    run(main)


# Programs that leave tasks behind, of which asyncio complains, rightly and at any later time.


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
    EventSource("http://127.0.0.1:9/", dispatch=print, start=False)
    gc.collect()
    assert [ref() for ref in failed] == [None] * 5
