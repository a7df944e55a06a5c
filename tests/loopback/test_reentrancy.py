"""What a handler may do: everything, and nothing of it hangs.

Each test runs three times: with handlers in the reader thread, on a pool of threads, and on
an event loop, as coroutine functions.
"""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import pytest

from eventsource import EventSource, ReadyState, ReconnectPolicy
from eventsource.testing import ScriptedServer
from tests.support import LIMIT, QUICK, Recorder, served, status, stream, wait_until


def as_it_is(handler):
    return handler


def as_coroutine_function(handler):
    async def call(event):
        await asyncio.sleep(0)
        return handler(event)

    return call


class Place(NamedTuple):
    """Where handlers run."""

    dispatch: object
    handler: object
    """Makes a handler of a function."""

    def source(self, url, *, start=False, **options):
        return EventSource(url, dispatch=self.dispatch, start=start, **options)


@pytest.fixture(params=["reader thread", "pool", "event loop"])
def place(request):
    if request.param == "reader thread":
        yield Place(None, as_it_is)
    elif request.param == "pool":
        with ThreadPoolExecutor(4) as executor:
            yield Place(executor.submit, as_it_is)
    else:
        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=loop.run_forever)
        thread.start()
        yield Place(loop.call_soon_threadsafe, as_coroutine_function)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.run_until_complete(asyncio.sleep(0))
        assert not asyncio.all_tasks(loop)
        loop.close()


@pytest.fixture
def server():
    blocks = b"".join(b"id: %d\ndata: %d\n\n" % (n, n) for n in range(5))
    with ScriptedServer(stream(blocks, then="hold")) as server:
        yield server


def test_a_handler_adds_and_removes_handlers(server, place):
    calls = Recorder()
    second = place.handler(lambda event: calls(("second", event.data)))
    third = place.handler(lambda event: calls(("third", event.data)))

    def first(event):
        calls(("first", event.data))
        if event.data == "1":
            source.remove_listener("message", second)  # not called even for this one
            source.on("message", third)  # called from the next on
        elif event.data == "3":
            source.remove_all_listeners("message")

    with place.source(server.url) as source:
        source.on("message", place.handler(first))
        source.on("message", second)
        source.start()
        wait_until(lambda: source.last_event_id == "4")
    assert calls.events == [
        ("first", "0"),
        ("second", "0"),
        ("first", "1"),
        ("first", "2"),
        ("third", "2"),
        ("first", "3"),
    ]


def test_a_handler_closes(server, place):
    calls = []

    def close(event):
        calls.append(event.data)
        source.close()
        assert source.ready_state is ReadyState.CLOSED

    with place.source(server.url) as source:
        source.on("message", place.handler(close))
        source.on("message", place.handler(calls.append))
        source.start()
        assert source.join(LIMIT)
        assert server.connections[0].gone.wait(LIMIT)
    assert calls == ["0"]


def test_a_handler_closes_and_joins_its_own_source(server, place):
    results = Recorder()

    def leave(event):
        results(source.join())  # in vain: it is this that it would wait for
        source.close()
        results(source.join())

    with place.source(server.url) as source:
        source.on("message", place.handler(leave))
        source.start()
        assert results.next() is False
        assert results.next() is (place.dispatch is not None)  # else this is the reader thread


def test_a_handler_leaves_a_with_block_of_its_own_source(server, place, caplog):
    calls = Recorder()

    def leave(event):
        with source:
            calls(event.data)

    source = place.source(server.url)
    source.on("message", place.handler(leave))
    source.start()
    assert source.join(LIMIT)
    assert calls.events == ["0"]
    assert caplog.records == []


def test_a_handler_restarts(place):
    calls = Recorder()
    first, second = stream(b"id: 1\ndata: a\n\n", then="hold"), stream(b"data: b\n\n", then="hold")
    policy = ReconnectPolicy(delay=3600)
    with served(place.source, first, second, reconnect=policy) as (server, source):
        source.once("message", place.handler(lambda event: source.restart()))
        source.on("message", place.handler(lambda event: calls(event.data)))
        source.on("error", place.handler(calls))
        source.start()
        assert [calls.next(), calls.next()] == ["a", "b"]
        assert server.requests[1].header("Last-Event-ID") == "1"


def test_a_handler_creates_a_source_that_takes_over(server, place):
    calls = Recorder()
    sources = []

    def take_over(event):
        source.close()
        calls(("old", event.data))  # before the new one's thread says anything
        hear = place.handler(lambda event: calls(("new", event.data)))
        last = event.last_event_id
        sources.append(place.source(server.url, on_message=hear, last_event_id=last, start=True))

    with place.source(server.url) as source:
        source.on("message", place.handler(take_over))
        source.start()
        assert calls.next() == ("old", "0")
        assert [calls.next() for _ in range(5)] == [("new", str(n)) for n in range(5)]
        assert server.requests[1].header("Last-Event-ID") == "0"
    wait_until(lambda: sources, "the handler to end")
    assert sources[0].join(0) is False
    with sources[0]:
        pass
    assert sources[0].join(LIMIT)


def test_a_handler_closes_and_joins_another_source(server, place):
    results = Recorder()
    other = place.source(server.url, on_message=place.handler(print), start=True)

    def end(event):
        other.close()
        results(other.join())

    with place.source(server.url) as source:
        source.once("message", place.handler(end))
        source.start()
        assert results.next() is True


def test_a_handler_joins_another_source_that_ends_by_itself(place):
    # On an event loop, the other one's handlers would wait for this very handler: join() says
    # so, instead of waiting for them.
    results = Recorder()
    calls = []
    numbers = stream(b"data: 1\n\n")
    with (
        ScriptedServer(numbers, status("204 No Content")) as ending,
        ScriptedServer(stream(b"data: go\n\n", then="hold")) as server,
    ):
        hear = place.handler(calls.append)
        other = place.source(ending.url, reconnect=QUICK, on_message=hear)

        def wait(event):
            results(other.join())
            results(len(calls))

        with place.source(server.url) as source:
            other.on("open", place.handler(lambda _: source.start()))
            source.once("message", place.handler(wait))
            other.start()
            joined, count = results.next(), results.next()
        assert other.join(LIMIT)
        assert joined or place.handler is as_coroutine_function
        assert count == 1 or not joined
        assert len(calls) == 1


def test_handlers_that_join_each_others_sources(server, place):
    results = Recorder()
    meet = threading.Barrier(2, timeout=LIMIT)
    on_one_thread = place.handler is as_coroutine_function

    def end(own, other):
        def call(event):
            if not on_one_thread:
                meet.wait()  # both are in their handlers
            own.close()
            other.close()
            results((own.url, other.join()))

        return place.handler(call)

    one = place.source(server.url + "one")
    two = place.source(server.url + "two")
    one.once("message", end(one, two))
    two.once("message", end(two, one))
    one.start()
    two.start()
    first = results.next()[1]
    if not on_one_thread:
        second = results.next()[1]
        # In their reader threads one must give in; elsewhere the threads just end.
        assert sorted([first, second]) == (
            [False, True] if place.dispatch is None else [True, True]
        )
    assert one.join(LIMIT)
    assert two.join(LIMIT)


def test_three_handlers_that_join_in_a_circle(server):
    results = Recorder()
    meet = threading.Barrier(3, timeout=LIMIT)
    sources = [EventSource(server.url, start=False) for _ in range(3)]

    def end(own, other):
        def call(event):
            meet.wait()
            own.close()
            results(other.join())

        return call

    for n, source in enumerate(sources):
        source.once("message", end(source, sources[n - 1]))
    for source in sources:
        source.start()
    assert sorted(results.next() for _ in range(3)) == [False, True, True]
    assert all(source.join(LIMIT) for source in sources)
    # Nothing of it is remembered: later joins wait.
    assert all(source.join() for source in sources)


def test_a_handler_that_raises_stops_nobody(server, place, caplog):
    calls = Recorder()
    with place.source(server.url) as source:
        source.on("message", place.handler(lambda event: 1 / 0))
        source.on("message", place.handler(calls))
        source.start()
        assert [calls.next().data for _ in range(5)] == list("01234")
    assert caplog.text.count("ZeroDivisionError: division by zero") == 5
