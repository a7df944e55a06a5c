"""`dispatch`: handlers run elsewhere, in order, bounded, and not after close().

The first part tests `DispatchQueue` alone, with entries that are numbers. The second tests
sources without servers; with them they are in `tests/loopback/handlers/test_queue.py`.
"""

from __future__ import annotations

import contextlib
import gc
import queue
import random
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest

from eventsource import EventSource, ReadyState
from eventsource.handlers.queue import TURN_SECONDS, DispatchQueue
from tests.support import LIMIT, wait_until


class Loop:
    """A `dispatch` whose calls run when the test says so, in the test's thread."""

    def __init__(self):
        self.calls = queue.SimpleQueue()
        self.count = 0

    def __call__(self, call):
        self.count += 1
        self.calls.put(call)

    def run_one(self):
        """Wait for the next call, and run it."""
        try:
            call = self.calls.get(timeout=LIMIT)
        except queue.Empty:
            raise AssertionError(f"nothing was dispatched within {LIMIT} s") from None
        call()

    def run_until(self, condition):
        while not condition():
            self.run_one()

    def run_all(self):
        while not self.calls.empty():
            self.run_one()


class Handlers:
    """What a queue needs of a source: its handlers, and what closes it."""

    def __init__(self, handler=lambda entry: None):
        self.received = []
        self.failures = []
        self.handler = handler

    def queue(self, dispatch, limit=100):
        self.stalls = 0
        self.closed = DispatchQueue(dispatch, limit, self.deliver, self.fail, self.stalled)
        return self.closed

    def deliver(self, entries):
        for entry in entries:
            self.received.append(entry)
            self.handler(entry)
        yield from ()

    def stalled(self):
        self.stalls += 1

    def fail(self, reason, error):
        self.failures.append((reason, error))
        self.closed.close()


def use_up_the_turn(_=None):
    """Take as long as handlers may run before a turn gives way."""
    end = time.monotonic() + TURN_SECONDS
    while time.monotonic() < end:
        pass


@contextlib.contextmanager
def reading(put):
    """Run this in a reader thread, which must have ended by the end of the block."""
    thread = threading.Thread(target=put, daemon=True)
    thread.start()
    try:
        yield
    finally:
        thread.join(LIMIT)
    assert not thread.is_alive()


@pytest.fixture
def loop():
    return Loop()


# --- The queue alone ---


def test_entries_are_delivered_in_order_where_dispatch_runs_them(loop):
    threads = set()
    handlers = Handlers(lambda _: threads.add(threading.get_ident()))
    queue = handlers.queue(loop, limit=3)
    with reading(lambda: [queue.put(range(n, n + 5)) for n in range(0, 50, 5)]):
        loop.run_until(lambda: len(handlers.received) == 50)
    assert handlers.received == [*range(50)]
    assert threads == {threading.get_ident()}


def test_only_one_call_at_a_time_is_given_to_dispatch(loop):
    handlers = Handlers()
    queue = handlers.queue(loop)
    queue.put([1, 2])
    queue.put([3])
    assert loop.count == 1
    loop.run_one()
    assert handlers.received == [1, 2, 3]
    assert loop.count == 1
    queue.put([4])
    loop.run_one()
    assert handlers.received == [1, 2, 3, 4]
    assert loop.count == 2


def test_a_turn_gives_way_after_a_while(loop):
    handlers = Handlers(use_up_the_turn)
    queue = handlers.queue(loop)
    queue.put(range(10))
    for count in range(1, 11):  # between two turns, the loop can run something else
        loop.run_one()
        assert len(handlers.received) == count
    assert loop.calls.empty()


def test_a_dispatch_that_calls_at_once_does_not_nest_the_turns():
    depth, depths = 0, []

    def dispatch(call):
        nonlocal depth
        depth += 1
        depths.append(depth)
        call()
        depth -= 1

    handlers = Handlers(use_up_the_turn)
    handlers.queue(dispatch).put(range(10))
    assert handlers.received == [*range(10)]
    assert depths == [1] * 10


def test_what_is_run_twice_runs_once(loop):
    handlers = Handlers()
    queue = handlers.queue(loop)
    queue.put([1])
    call = loop.calls.get(timeout=LIMIT)
    call()
    queue.waiting.append(2)
    call()
    assert handlers.received == [1]


@pytest.mark.parametrize("limit", [1, 2, 1000])
def test_never_more_than_the_limit_wait(limit):
    seed = random.randrange(2**32)
    print("seed", seed)
    size = random.Random(seed)
    longest = []
    handlers = Handlers(lambda _: longest.append(len(queue.waiting)))
    done = threading.Event()

    def put():
        start = 0
        while start < 5000:
            stop = min(start + size.randrange(1, 2000), 5000)
            queue.put(range(start, stop))
            start = stop
        queue.wait(lambda: len(handlers.received) == 5000)
        done.set()

    with ThreadPoolExecutor(1) as executor:
        queue = handlers.queue(executor.submit, limit)
        with reading(put):
            assert done.wait(LIMIT)
    assert handlers.received == [*range(5000)]
    assert max(longest) <= limit


def test_a_reader_that_waits_for_room_goes_on_when_there_is_some(loop):
    handlers = Handlers(use_up_the_turn)
    queue = handlers.queue(loop, limit=2)
    with reading(lambda: queue.put([1, 2, 3])):
        wait_until(lambda: queue.reader_waits, "the reader to wait")
        assert [*queue.waiting] == [1, 2]
        loop.run_one()
        wait_until(lambda: not queue.reader_waits, "the reader to go on")
    assert [*queue.waiting] == [2, 3]


def test_a_queue_that_stays_full_is_told_of_once_each_time(monkeypatch):
    monkeypatch.setattr("eventsource.handlers.queue.STALL_SECONDS", 0.02)
    handlers = Handlers()
    elsewhere = Loop()
    queue = handlers.queue(elsewhere, limit=1)
    reader = threading.Thread(target=queue.put, args=[[0, 1, 2]])
    reader.start()
    for stalls in (1, 2):  # for 1 there is no room, then for 2
        wait_until(lambda stalls=stalls: handlers.stalls == stalls)
        elsewhere.run_until(lambda stalls=stalls: len(handlers.received) == stalls)
    reader.join(LIMIT)
    elsewhere.run_all()
    assert handlers.received == [0, 1, 2]
    assert handlers.stalls == 2


def test_close_frees_a_reader_that_waits_for_room(loop):
    handlers = Handlers()
    queue = handlers.queue(loop, limit=1)
    with reading(lambda: queue.put([1, 2])):
        wait_until(lambda: queue.reader_waits, "the reader to wait")
        queue.close()
    loop.run_all()
    assert handlers.received == []


def test_after_close_nothing_that_waits_is_delivered(loop):
    def handler(entry):
        if entry == 3:
            queue.close()

    handlers = Handlers(handler)
    queue = handlers.queue(loop)
    queue.put(range(10))
    loop.run_all()
    queue.put([10])
    loop.run_all()
    assert handlers.received == [0, 1, 2, 3]
    assert handlers.failures == []


def test_a_dispatch_that_raises_between_two_turns_is_a_failure(loop):
    gone = RuntimeError("the loop is closed")

    def dispatch(call):
        if handlers.received:
            raise gone
        loop(call)

    handlers = Handlers(use_up_the_turn)
    handlers.queue(dispatch).put([1, 2])
    loop.run_one()
    assert handlers.received == [1]
    assert handlers.failures == [("`dispatch` raised", gone)]


def test_a_handler_that_exits_is_a_failure_and_the_exit_reaches_the_loop(loop):
    def leave(entry):
        raise SystemExit(entry)

    handlers = Handlers(leave)
    handlers.queue(loop).put([3, 4])
    with pytest.raises(SystemExit) as caught:
        loop.run_one()
    assert handlers.failures == [("SystemExit", caught.value)]
    assert handlers.received == [3]


def test_a_call_that_is_thrown_away_is_a_failure(loop):
    handlers = Handlers()
    queue = handlers.queue(loop)
    queue.put([1])
    assert handlers.failures == []
    del loop.calls
    gc.collect()
    assert handlers.failures == [("`dispatch` dropped the callable without running it", None)]


def test_the_queue_keeps_no_handlers_alive(loop):
    handlers = Handlers()
    queue, ref = handlers.queue(loop), weakref.ref(handlers)
    queue.put([1])
    del handlers
    gc.collect()
    assert ref() is None
    loop.run_one()  # does nothing, and raises nothing


# --- Sources ---


@pytest.mark.parametrize(
    ("options", "kind", "named"),
    [
        *(({"max_waiting": n}, ValueError, "max_waiting must be at least 1") for n in (0, -1)),
        *(
            ({"max_waiting": value}, TypeError, "max_waiting must be an int")
            for value in (1.5, "10", True, None)
        ),
        ({"dispatch": 5}, TypeError, "dispatch must be callable or None, not 5"),
    ],
)
def test_a_bad_max_waiting_or_dispatch_is_refused_by_name(options, kind, named):
    with pytest.raises(kind, match=named):
        EventSource("http://host/", **options)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_an_exit_raised_in_the_reader_thread_closes_the_source(loop, caplog):
    def leave(request):
        raise SystemExit(3)

    source = EventSource("http://127.0.0.1:9/", auth=leave, on_error=print, dispatch=loop)
    assert source.join(LIMIT)
    assert source.ready_state is ReadyState.CLOSED
    assert type(source.error.__cause__) is SystemExit
    assert "closed: SystemExit" in caplog.text


class Window:
    """Notes which thread deletes it."""

    def __init__(self, deleted):
        self.deleted = deleted

    def show(self, event):
        pass

    def __del__(self):
        self.deleted.append(threading.get_ident())


def test_the_reader_thread_has_no_reference_to_the_handlers(loop):
    deleted, threads, go_on = [], queue.SimpleQueue(), threading.Event()

    def auth(request):
        threads.put(threading.current_thread())
        assert go_on.wait(LIMIT)
        return request

    source = EventSource(
        "http://127.0.0.1:9/", auth=auth, dispatch=loop, on_message=Window(deleted).show
    )
    thread = threads.get(timeout=LIMIT)
    source.close()
    del source
    assert deleted == [threading.get_ident()]
    assert thread.is_alive()
    go_on.set()
    thread.join(LIMIT)
