"""Exceptions of signal handlers in the thread that iterates: at a chosen point, and in a storm.

`python -m tests.interruption URL WAY LAST SEED` is the storm. It iterates over a stream of
numbered events while a timer sends signals, whose handler raises. It is a process of its own,
because pytest-timeout needs the timer in that of the tests.
"""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import itertools
import json
import os
import random
import signal
import sys
import threading
import types
from pathlib import Path

import eventsource
from eventsource import EventStream, MessageEvent

PACKAGE = str(Path(eventsource.__file__).parent)


class Interruption(BaseException):
    """What a signal handler raises."""


@contextlib.contextmanager
def interruption_at(number):
    """Raise `Interruption` at one of the points in the package where a signal may be handled.

    Python looks for signals when a function begins, when a generator goes on, and when a C
    function has returned. The points are counted from 1, in the calling thread; what is
    yielded says in `is_over` whether that one has been reached.
    """
    points = itertools.count(1)
    state = types.SimpleNamespace(is_over=False)

    def look(frame, event, _):
        if event not in ("call", "c_return") or PACKAGE not in frame.f_code.co_filename:
            return
        if next(points) == number:
            sys.setprofile(None)
            state.is_over = True
            raise Interruption

    sys.setprofile(look)
    try:
        yield state
    finally:
        sys.setprofile(None)


# --- Ways to iterate, up to the event of a number ---


def by_for(events, found, last):
    if found and is_message(found[-1], last):
        return
    for event in events:
        found.append(event)
        if is_message(event, last):
            return


def by_next(events, found, last):
    while not (found and is_message(found[-1], last)):
        found += map(next, (events,))  # no signal is handled before it is in the list


def by_take(events, found, last):
    while not (found and is_message(found[-1], last)):
        found += events.take()


WAYS = {"for": by_for, "next": by_next, "take": by_take}


def is_message(event, number):
    return isinstance(event, MessageEvent) and event.data == str(number)


def numbers_of(found):
    return [int(event.data) for event in found if isinstance(event, MessageEvent)]


# --- The storm ---

LONGEST = 0.004
"""Seconds until the next signal at the most: about as long as it takes to connect."""
AGAIN = 0.6
"""How often the next signal comes without waiting for an event."""
TIME = 50
"""Seconds after which a storm that does not end says where it is, and ends."""


class Storm:
    """Signals at random moments; each raises, unless it comes while this file's code runs.

    An exception in the code of the program itself is the program's affair. The next signal
    waits for an event, mostly: so as many come as there are events, however slow the machine.
    """

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.raised = 0
        self._is_due = False
        signal.signal(signal.SIGALRM, self._handle)

    def _handle(self, _, frame):
        self._is_due = False
        if frame.f_code.co_filename == __file__:
            self.come()
            return
        self.raised += 1
        raise Interruption

    def come(self):
        if not self._is_due:
            self._is_due = True
            signal.setitimer(signal.ITIMER_REAL, self.random.uniform(0.00001, LONGEST))

    def end(self):
        signal.setitimer(signal.ITIMER_REAL, 0)


class Found(list):
    """What came; a message has the next signal come."""

    def __init__(self, storm):
        self._storm = storm

    def append(self, event):
        super().append(event)
        self._storm.come()

    def __iadd__(self, events):
        super().__iadd__(events)
        self._storm.come()
        return self


def in_use():
    gc.collect()
    return len(os.listdir("/proc/self/fd")), threading.active_count()


def main():
    url, way, last, seed = sys.argv[1:]
    faulthandler.dump_traceback_later(TIME, exit=True)
    storm = Storm(int(seed))
    found = Found(storm)
    before = in_use()
    with EventStream(url) as events:
        while not (found and is_message(found[-1], last)):
            try:
                WAYS[way](events, found, last)
            except Interruption:
                if storm.random.random() < AGAIN:
                    storm.come()
        storm.end()
    print(json.dumps([numbers_of(found), storm.raised, before, in_use()]))


if __name__ == "__main__":
    main()
