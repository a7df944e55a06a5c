"""A wait that can be ended from anywhere, and above all from a signal handler."""

from __future__ import annotations

import math
import signal
import sys
import threading
import time

import pytest

from eventsource.runtime.wakeup import Gate, Wakeup
from tests.support import LIMIT, wait_until


def test_a_wait_that_nobody_ends_times_out():
    started = time.monotonic()
    assert Wakeup().wait(0.02) is False
    assert time.monotonic() - started >= 0.019


@pytest.mark.parametrize("timeout", [0, 0.0, -1.0, -math.inf])
def test_a_timeout_of_nothing_or_less_only_asks(timeout):
    wakeup = Wakeup()
    assert wakeup.wait(timeout) is False
    wakeup.set()
    assert wakeup.wait(timeout) is True


def test_several_sets_before_it_end_one_wait():
    wakeup = Wakeup()
    wakeup.set()
    wakeup.set()
    assert [wakeup.wait(0) for _ in range(2)] == [True, False]


@pytest.mark.parametrize(
    "timeout", [None, LIMIT, threading.TIMEOUT_MAX, threading.TIMEOUT_MAX * 10, 1e300, math.inf]
)
def test_set_from_another_thread_ends_a_wait_however_long(timeout):
    wakeup = Wakeup()
    results = []
    waiter = threading.Thread(target=lambda: results.append(wakeup.wait(timeout)), daemon=True)
    waiter.start()
    wait_until(lambda: is_waiting(waiter), "the thread to wait")
    assert results == []
    wakeup.set()
    waiter.join(LIMIT)
    assert results == [True]


def test_many_threads_may_set_at_once():
    wakeup = Wakeup()
    threads = [
        threading.Thread(target=lambda: [wakeup.set() for _ in range(1000)]) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    assert wakeup.wait(LIMIT)
    for thread in threads:
        thread.join(LIMIT)
    wakeup.set()
    assert [wakeup.wait(0) for _ in range(2)] == [True, False]


# ---------------------------------------------------------------- signals

needs_posix = pytest.mark.skipif(
    not hasattr(signal, "setitimer"), reason="this system has no timers that send signals"
)


@pytest.fixture
def on_signal():
    """Set a handler for one signal; put the old one back at the end.

    Not SIGALRM: that is pytest-timeout's.
    """
    restore = []

    def install(number, handler):
        restore.append((number, signal.signal(number, handler)))

    yield install
    for number, handler in reversed(restore):
        signal.signal(number, handler)


@needs_posix
@pytest.mark.parametrize("sets", [True, False])
def test_only_a_signal_handler_that_sets_ends_the_wait_that_it_interrupts(on_signal, sets):
    wakeup, received, order = Wakeup(), threading.Event(), []
    on_signal(signal.SIGUSR1, lambda *_: wakeup.set() if sets else received.set())
    main = threading.main_thread()

    def interrupt():
        wait_until(lambda: is_waiting(main), "the main thread to wait")
        signal.pthread_kill(main.ident, signal.SIGUSR1)
        if not sets:
            received.wait(LIMIT)
            order.append("set")
            wakeup.set()

    helper = threading.Thread(target=interrupt, daemon=True)
    helper.start()
    assert wakeup.wait(LIMIT) is True
    assert order == ([] if sets else ["set"])
    helper.join(LIMIT)


@pytest.mark.long
@needs_posix
def test_a_signal_that_comes_as_a_timeout_ends_does_not_prolong_it(on_signal):
    # Before Python 3.13 SimpleQueue.get() then waits for ever: here, within a second.
    on_signal(signal.SIGUSR1, lambda *_: None)
    main, is_over = threading.main_thread(), threading.Event()

    def interrupt():
        while not is_over.wait(0.0003):
            signal.pthread_kill(main.ident, signal.SIGUSR1)

    helper = threading.Thread(target=interrupt, daemon=True)
    helper.start()
    wakeup = Wakeup()
    assert not any(wakeup.wait(0.003) for _ in range(400))
    is_over.set()
    helper.join(LIMIT)


@needs_posix
@pytest.mark.timeout(20)
def test_signal_handlers_may_set_while_the_main_thread_sets(on_signal):
    # The timer counts processor time: a signal comes every few milliseconds of set().
    wakeup = Wakeup()
    interruptions = 0

    def handler(signum, frame):
        nonlocal interruptions
        interruptions += 1
        wakeup.set()

    on_signal(signal.SIGVTALRM, handler)
    signal.setitimer(signal.ITIMER_VIRTUAL, 0.0005, 0.0005)
    try:
        while interruptions < 20:
            for _ in range(1000):
                wakeup.set()
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    assert [wakeup.wait(0) for _ in range(2)] == [True, False]


@needs_posix
@pytest.mark.timeout(20)
@pytest.mark.parametrize("interrupted", ["set", "wait"])
def test_a_signal_at_any_line_of_set_or_wait_may_set(interrupted, on_signal):
    # A trace function raises a real signal before every line that Python runs in the
    # call, in whatever module: so also inside each `with lock:` there would be.
    wakeup = Wakeup()
    wakeup.set()  # for wait() to find
    raised = handled = 0

    def handler(signum, frame):
        nonlocal handled
        handled += 1
        wakeup.set()

    def trace(frame, event, arg):
        nonlocal raised
        raised += 1
        signal.raise_signal(signal.SIGUSR1)
        return trace

    on_signal(signal.SIGUSR1, handler)
    call = getattr(wakeup, interrupted)
    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(before)
    assert handled == raised >= 2
    assert wakeup.wait(0) or interrupted == "wait"
    assert wakeup.wait(0) is False


def is_waiting(thread):
    """Say whether `thread` is in `Wakeup.wait` or something that this calls."""
    frame = sys._current_frames().get(thread.ident)
    while frame is not None and frame.f_code is not Wakeup.wait.__code__:
        frame = frame.f_back
    return frame is not None


# --- The gate ---


class LookedAt(Gate):
    """Counts how often the one who waits has looked whether the gate is open."""

    def __init__(self):
        self.looks = 0
        self.is_shut = True
        super().__init__()

    @property
    def is_open(self):
        self.looks += 1
        return not self.is_shut

    @is_open.setter
    def is_open(self, value):
        self.is_shut = not value


def test_a_gate_lets_nobody_through_until_it_is_open_and_then_everybody():
    gate, through = LookedAt(), threading.Event()
    gate.open()
    gate.is_open = False  # so that there is one wake-up too many, which is not an opening

    def wait():
        gate.wait()
        through.set()

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    wait_until(lambda: gate.looks >= 2, "the wake-up to be used")
    assert not through.is_set()
    gate.open()
    assert through.wait(LIMIT)
    thread.join()
    gate.wait()
    gate.open()
    gate.wait()
