"""`Deadline` by itself; `tests/loopback/http/test_exchange.py` has it as the limit of an exchange."""

from __future__ import annotations

import gc
import math
import os
import threading
import time
import weakref
from pathlib import Path

from eventsource.runtime.deadline import Deadline
from tests.support import LIMIT, wait_until


class Work:
    """Notes the thread in which it was ended."""

    def __init__(self):
        self.ended = threading.Event()
        self.ended_by = []

    def end(self):
        self.ended_by.append(threading.current_thread().name)
        self.ended.set()


def watchers():
    return [thread for thread in threading.enumerate() if thread.name == "eventsource-timeout"]


def test_what_is_not_over_by_then_is_ended_once_in_a_thread_of_the_deadlines():
    work = Work()
    deadline = Deadline(work.end)
    deadline.set(0.01)
    assert work.ended.wait(LIMIT)
    wait_until(lambda: not watchers())
    deadline.set(0.01)
    assert work.ended_by == ["eventsource-timeout"]


def test_one_that_is_never_has_no_thread():
    work = Work()
    Deadline(work.end).set(math.inf)
    assert not watchers()


def test_an_earlier_one_takes_the_place_of_a_later_one():
    work = Work()
    deadline = Deadline(work.end)
    deadline.set(3600)
    deadline.set(0.01)
    assert work.ended.wait(LIMIT)


def test_one_that_is_cancelled_lets_its_thread_go_and_ends_nothing():
    work = Work()
    deadline = Deadline(work.end)
    deadline.set(3600)
    deadline.cancel()
    wait_until(lambda: not watchers())
    assert not work.ended_by


def test_it_keeps_nothing_alive_and_its_thread_goes_with_what_it_was_for():
    work = Work()
    deadline = Deadline(work.end)
    deadline.set(3600)
    reference = weakref.ref(work)
    gc.disable()
    try:
        del work
        assert reference() is None
    finally:
        gc.enable()
    wait_until(lambda: not watchers())


def test_one_that_moves_on_while_it_is_looked_at_ends_nothing(monkeypatch):
    """The thread that looks may be kept from going on for longer than there was time."""
    looking, proceed = threading.Event(), threading.Event()
    monotonic = time.monotonic

    def clock():
        if threading.current_thread().name != "eventsource-timeout":
            return monotonic()
        looking.set()
        assert proceed.wait(LIMIT)
        return monotonic() + 3600

    work = Work()
    deadline = Deadline(work.end)
    monkeypatch.setattr(time, "monotonic", clock)
    deadline.set(1800)
    assert looking.wait(LIMIT)
    deadline.set(math.inf)
    proceed.set()
    deadline.cancel()
    wait_until(lambda: not watchers())
    assert not work.ended_by


def test_one_that_creeps_costs_no_wake_ups():
    """Heartbeats shorten the time that is left again and again, to the same deadline."""
    work = Work()
    deadline = Deadline(work.end)
    deadline.set(3600)
    (watcher,) = watchers()
    before = waits_of(watcher)
    for number in range(500):
        deadline.set(3600 - number / 1e9)
        os.sched_yield()
        deadline.set(math.inf)
        os.sched_yield()
    assert waits_of(watcher) - before < 10
    deadline.set(0.01)
    assert work.ended.wait(LIMIT)


def waits_of(thread):
    """How often a thread has waited, by the kernel's account. Linux only."""
    status = Path(f"/proc/self/task/{thread.native_id}/status").read_text()
    (count,) = (line.split()[1] for line in status.splitlines() if line.startswith("voluntary_"))
    return int(count)
