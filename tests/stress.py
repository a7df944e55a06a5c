"""Every documented promise about threads, kept by eight threads that take turns all the time.

`python -m tests.stress` is the long run, with up to a million operations for each promise;
`test_threads.py` is the short one. Python lets another thread go on after each microsecond, which is between any two steps of
the interpreter as far as it can be had. Where a promise leans on the interpreter lock is in
docs/reliability.md.

Each promise is a function that makes at most about as many operations as it is told, in `THREADS`
threads, and raises an `AssertionError` if the promise is broken. It makes fewer if one takes long,
because it needs a connection, a look-up or a thread; it counts what it has made.
"""

from __future__ import annotations

import argparse
import collections
import concurrent.futures
import contextlib
import functools
import itertools
import logging
import math
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from eventsource import EventSource, EventStream, MessageEvent, ReadyState, SSEClient
from eventsource.http.sockets import _look_ups
from eventsource.relay import Relay
from eventsource.runtime.deadline import Deadline
from eventsource.runtime.wakeup import Gate, Wakeup
from eventsource.testing import Recorder, ScriptedServer, SSEServer

from .relay.memory import Engine, MemorySink
from .support import LIMIT, QUICK, numbers, wait_until

THREADS = 8
SWITCH_SECONDS = 1e-6


class Tally:
    """Counts operations, from any thread."""

    def __init__(self) -> None:
        self._count = itertools.count()

    def add(self) -> None:
        """One has been made. (A count is one step; `+= 1` is three.)"""
        next(self._count)

    def total(self) -> int:
        """How many have been made; to be asked once, at the end."""
        return next(self._count)


Promise = Callable[[int, random.Random, Tally], None]
PROMISES: dict[str, Promise] = {}


def promise(function: Promise) -> Promise:
    """Add to `PROMISES`."""
    PROMISES[function.__name__] = function
    return function


def together(*works: Callable[[], object], limit: float = math.inf) -> None:
    """Run each in a thread of its own, all from the same moment on; raise what one raises."""
    begin = threading.Barrier(len(works))

    def run(work: Callable[[], object]) -> object:
        begin.wait(LIMIT)
        return work()

    with concurrent.futures.ThreadPoolExecutor(len(works)) as pool:
        for done in [pool.submit(run, work) for work in works]:
            done.result(None if limit == math.inf else limit)


def in_each_thread(work: Callable[[int], object]) -> None:
    """Run it in `THREADS` threads, each of which has a number."""
    together(*(functools.partial(work, number) for number in range(THREADS)))


@contextlib.contextmanager
def quick_switches() -> Iterator[None]:
    """Have Python switch between threads as often as it can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_SECONDS)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


# --- Handlers: added, removed, once, emitted ---


class Handler:
    """Notes in which thread it was called; the calls of one thread are seen by that alone."""

    def __init__(self, owner: int, called: threading.local) -> None:
        self.owner = owner
        self.count = itertools.count()
        self._called = called

    def __call__(self, event: object) -> None:
        next(self.count)
        with contextlib.suppress(AttributeError):  # in a thread that does not look
            self._called.by_me.append(self)

    def times(self) -> int:
        """How often it has been called. (A count is one step; `+= 1` is three.)"""
        return next(self.count)


@promise
def handlers_come_and_go_from_any_thread(
    operations: int, chance: random.Random, tally: Tally
) -> None:
    """Each thread sees its own handlers as if it were alone; those for one event run once."""
    source = EventSource("http://127.0.0.1:9/", start=False)
    called = threading.local()
    onces: list[list[tuple[Handler, bool]]] = [[] for _ in range(THREADS)]
    left: list[list[Handler]] = [[] for _ in range(THREADS)]
    seeds = [chance.random() for _ in range(THREADS)]

    def change(me: int) -> None:
        choose = random.Random(seeds[me])
        mine: list[Handler] = []
        own = f"only {me}"
        for _ in range(operations // THREADS):
            what = choose.randrange(8)
            if what < 2 and len(mine) < 10:
                mine.append(Handler(me, called))
                source.on("shared", mine[-1])
            elif what < 4 and mine:
                source.remove_listener("shared", mine.pop(choose.randrange(len(mine))))
            elif what == 4:
                handler = Handler(me, called)
                source.once("rare", handler)
                is_removed = choose.random() < 0.1
                if is_removed:
                    source.remove_listener("rare", handler)
                if len(onces[me]) < 1000:
                    onces[me].append((handler, is_removed))
            elif what == 5:
                source.on(own, Handler(me, called))
                assert own in source.event_names()
                source.remove_all_listeners(own)
                assert source.listeners(own) == []
                assert own not in source.event_names()
            elif what == 6:
                assert [each for each in source.listeners("shared") if each.owner == me] == mine
            else:
                called.by_me = []
                source.emit("shared", None)
                assert [each for each in called.by_me if each.owner == me] == mine
                source.emit("rare", None)
            tally.add()
        left[me] = mine

    in_each_thread(change)
    source.emit("rare", None)
    for handler, is_removed in itertools.chain.from_iterable(onces):
        assert handler.times() in ((0, 1) if is_removed else (1,))
    assert source.event_names() == ({"shared"} if any(left) else set())
    assert sorted(map(id, source.listeners("shared"))) == sorted(
        id(each) for mine in left for each in mine
    )
    in_each_thread(lambda _: source.close())
    assert source.ready_state is ReadyState.CLOSED


# --- A source that reads meanwhile ---


def _endless(connection: Any) -> None:
    """Send numbers without end, from the one after `Last-Event-ID`."""
    request = connection.start_stream()
    number = int(request.header("Last-Event-ID") or -1) + 1
    while True:
        connection.send(numbers(100, number))
        number += 100


class Follower:
    """A handler that must get each number once, in order, and by one call at a time."""

    def __init__(self) -> None:
        self.next = 0
        self.wrong: list[str] = []
        self.is_closed = False
        self.late = 0
        self._is_running = threading.Lock()

    def __call__(self, event: MessageEvent) -> None:
        if self.is_closed:
            self.late += 1
        if not self._is_running.acquire(blocking=False):
            self.wrong.append("two calls at a time")
            return
        if event.data != str(self.next):
            self.wrong.append(f"{event.data} instead of {self.next}")
        self.next = int(event.data) + 1
        self._is_running.release()


def _use(
    source: EventSource, follower: Follower, count: int, chance: random.Random, tally: Tally
) -> None:
    """Do `count` things to a source that reads, from all threads; then close it from all."""
    onces: collections.deque[Handler] = collections.deque()
    removed: collections.deque[tuple[Handler, int]] = collections.deque()
    called = threading.local()
    seeds = [chance.random() for _ in range(THREADS)]

    def change(me: int) -> None:
        choose = random.Random(seeds[me])
        for _ in range(count // THREADS):
            handler = Handler(me, called)
            what = choose.randrange(20)
            if what == 0:
                source.restart()
            elif what < 10:
                source.once("message", handler)
                onces.append(handler)
            else:
                source.on("message", handler)
                assert handler in source.listeners("message")
                source.remove_listener("message", handler)
                removed.append((handler, handler.times()))
            tally.add()

    def close(me: int) -> None:
        source.close()
        tally.add()
        follower.is_closed = True
        assert source.join(LIMIT)

    source.on("message", follower)
    source.start()
    wait_until(lambda: follower.next > 0, "the first event")
    in_each_thread(change)
    heard = follower.next
    wait_until(lambda: follower.next > heard + 1, "all that were to hear one event")
    in_each_thread(close)
    assert not follower.wrong, follower.wrong[:5]
    # What was chosen before may begin after it: one handler.
    assert follower.late <= 1
    assert all(handler.times() == 1 for handler in onces)
    # One call may have been chosen before it was removed. `times()` itself counts one.
    assert all(handler.times() <= before + 2 for handler, before in removed)
    assert source.ready_state is ReadyState.CLOSED
    assert source.error is None


@promise
def a_source_is_used_from_any_thread(operations: int, chance: random.Random, tally: Tally) -> None:
    """Handlers come and go while events come; it is restarted, and closed by all at once."""
    with ScriptedServer(_endless) as server:
        for _ in range(max(operations // 4000, 1)):
            source = EventSource(server.url, start=False, reconnect=QUICK)
            _use(source, Follower(), min(operations, 4000) // 10, chance, tally)


@promise
def a_pool_runs_the_handlers_one_after_another(
    operations: int, chance: random.Random, tally: Tally
) -> None:
    """The same with `dispatch`, on a pool of threads and with little room."""
    with ScriptedServer(_endless) as server:
        for _ in range(max(operations // 4000, 1)):
            with concurrent.futures.ThreadPoolExecutor(4) as pool:
                source = EventSource(
                    server.url, start=False, reconnect=QUICK, dispatch=pool.submit, max_waiting=10
                )
                _use(source, Follower(), min(operations, 4000) // 10, chance, tally)


@promise
def a_source_is_started_and_closed_from_any_thread(
    operations: int, chance: random.Random, tally: Tally
) -> None:
    """One thread at most is started, all joins end, and `start()` after `close()` is refused."""
    with ScriptedServer(_endless) as server:
        for _ in range(max(operations // 2000, 1)):
            source = EventSource(server.url, start=False, on_message=lambda _: None)
            refused = collections.deque[int]()

            def live(me: int, source: EventSource = source, refused: Any = refused) -> None:
                try:
                    source.start()
                except RuntimeError:
                    refused.append(me)
                tally.add()
                if me % 2:
                    source.close()
                    tally.add()
                    assert source.join(LIMIT)

            in_each_thread(live)
            assert len(refused) < THREADS
            assert source.join(LIMIT)
            try:
                source.start()
            except RuntimeError:
                continue
            raise AssertionError("a closed source could be started")


# --- Loops ---


@promise
def threads_that_take_turns_at_a_stream_lose_nothing(
    operations: int, chance: random.Random, tally: Tally
) -> None:
    """Each event is had by one of them; who comes while another one reads gets an error."""
    count = max(operations // 20, 100)
    had: list[list[int]] = [[] for _ in range(THREADS)]

    def script(connection: Any) -> None:
        connection.start_stream()
        for start in range(0, count, 10):
            connection.send(numbers(min(10, count - start), start))
        connection.hold()

    with ScriptedServer(script) as server, EventStream(server.url) as stream:

        def read(me: int) -> None:
            while sum(map(len, had)) < count:
                try:
                    items = stream.take(timeout=0.01)
                except (RuntimeError, TimeoutError):  # another one reads; nothing is there
                    continue
                finally:
                    tally.add()
                had[me] += [int(each.data) for each in items if isinstance(each, MessageEvent)]

        in_each_thread(read)
        in_each_thread(lambda _: stream.close())
        assert next(iter(stream), None) is None
    assert sorted(itertools.chain.from_iterable(had)) == [*range(count)]
    assert all(mine == sorted(mine) for mine in had)


@promise
def any_thread_closes_what_one_reads(operations: int, chance: random.Random, tally: Tally) -> None:
    """A loop over a stream, one over a client, and a relay, each in a thread of its own."""

    def loop_over(stream: EventStream) -> None:
        for _ in stream:
            pass

    def loop_over_client(client: SSEClient) -> None:
        for _ in client:
            pass

    with ScriptedServer(_endless) as server:
        for _ in range(max(operations // 4000, 1)):
            stream, client = EventStream(server.url), SSEClient(server.url)
            relay = Relay(server.url, MemorySink(Engine()))
            pause = chance.random() / 100

            def close(me: int, pause: float = pause, ends: Any = (stream, client, relay)) -> None:
                threading.Event().wait(pause)  # so that each is found in another state
                for each in ends:
                    each.close()
                    tally.add()

            together(
                functools.partial(loop_over, stream),
                functools.partial(loop_over_client, client),
                relay.run,
                *(functools.partial(close, number) for number in range(THREADS)),
            )


# --- What all of that is made of ---


@promise
def no_wakeup_is_lost(operations: int, chance: random.Random, tally: Tally) -> None:
    """Who waits sees all that was there before `set()`."""
    wakeup, work = Wakeup(), collections.deque[int]()
    each = max(operations // THREADS, 1)

    def give(me: int) -> None:
        for number in range(each):
            work.append(number)
            wakeup.set()
            tally.add()

    def wait() -> None:
        done = 0
        while done < each * THREADS:
            assert wakeup.wait(LIMIT), f"{len(work)} are there, and nobody has said so"
            while work:
                work.popleft()
                done += 1

    together(wait, *(functools.partial(give, number) for number in range(THREADS)))
    for _ in range(max(operations // 2000, 1)):
        gate = Gate()

        def go_through(gate: Gate = gate) -> None:
            assert gate.wait(LIMIT)
            tally.add()

        def let_through(gate: Gate = gate) -> None:
            gate.open()
            tally.add()

        together(go_through, *[let_through] * (THREADS - 1))


@promise
def no_deadline_is_missed(operations: int, chance: random.Random, tally: Tally) -> None:
    """One thread moves it and the last moment counts; any thread cancels it."""

    class Watched:
        def __init__(self) -> None:
            self.passed = threading.Event()

        def has_passed(self) -> None:
            self.passed.set()

    for _ in range(max(operations // 1000, 1)):
        watched = Watched()
        deadline = Deadline(watched.has_passed)
        for _ in range(20):
            deadline.set(3600 + chance.random())
            tally.add()
        deadline.set(0.0)
        tally.add()
        assert watched.passed.wait(LIMIT)
        another = Watched()
        deadline = Deadline(another.has_passed)
        deadline.set(3600)

        def cancel(me: int, deadline: Deadline = deadline) -> None:
            deadline.cancel()
            tally.add()

        in_each_thread(cancel)
        assert not another.passed.is_set()
    wait_until(
        lambda: not [t for t in threading.enumerate() if t.name == "eventsource-timeout"],
        "the watchers to end",
    )


@promise
def each_question_to_the_resolver_is_answered(
    operations: int, chance: random.Random, tally: Tally
) -> None:
    """Whoever asks gets an answer, from whichever thread has asked the same."""

    def ask(me: int) -> None:
        for number in range(max(operations // 100 // THREADS, 1)):
            wakeup = Wakeup()
            answer = _look_ups.ask(f"127.0.0.{number % 3}", 80, wakeup)
            while not answer.is_here:
                assert wakeup.wait(LIMIT), "nobody has told of the answer"
            assert answer.failure is None
            tally.add()

    in_each_thread(ask)
    wait_until(lambda: not _look_ups._under_way, "the look-ups to end")


# --- What tests are written with ---


@promise
def a_server_of_tests_is_used_from_any_thread(
    operations: int, chance: random.Random, tally: Tally
) -> None:
    """All send, all take what a recorder has; nothing is lost, had twice or out of order."""
    each = max(operations // 40 // THREADS, 10)
    had = collections.deque[tuple[int, int]]()

    with SSEServer() as server, EventSource(server.url, start=False) as source:
        recorder = Recorder(source)
        source.start()
        server.wait_for_connection()
        assert recorder.next(LIMIT).type == "open"

        def send(me: int) -> None:
            for number in range(each):
                server.send(f"{me} {number}", id=f"{me}-{number}")
                assert server.requests
                tally.add()

        def take(me: int) -> None:
            for _ in range(each):
                sender, number = recorder.next(LIMIT).data.split()
                had.append((int(sender), int(number)))
                tally.add()

        together(
            *(functools.partial(send, number) for number in range(THREADS)),
            *(functools.partial(take, number) for number in range(THREADS)),
        )
        came = [tuple(map(int, event.data.split())) for event in recorder.events[1:]]
    everything = [(sender, number) for sender in range(THREADS) for number in range(each)]
    assert sorted(had) == sorted(came) == everything
    assert all([n for who, n in came if who == me] == [*range(each)] for me in range(THREADS))


def main() -> None:
    """Keep each promise in turn; say how many operations that were, and how long they took."""
    parser = argparse.ArgumentParser(prog="python -m tests.stress", description=__doc__)
    parser.add_argument("--operations", type=int, default=1_000_000, metavar="N")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("promises", nargs="*", metavar="PROMISE", help="none: all")
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    print(
        f"seed {arguments.seed}, up to {arguments.operations:,} operations for each promise, "
        f"Python {sys.version.split()[0]}"
    )
    with quick_switches():
        for name in arguments.promises or PROMISES:
            began, tally = time.monotonic(), Tally()
            PROMISES[name](arguments.operations, random.Random(arguments.seed), tally)
            took = time.monotonic() - began
            print(f"{name}: kept, {tally.total():,} operations, {took:.0f} s", flush=True)


if __name__ == "__main__":
    main()
