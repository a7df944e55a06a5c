"""The way of items from the reader thread to the handlers: in order, bounded, in short slices.

The reader puts the parsed items into a queue and gives `dispatch` a `DispatchTask`, which
takes items from the queue where it runs. The invariant: at most one task is under way, which
means that it has been given to `dispatch` and is not over. So the handlers run one after
another even on a pool of threads, and the queue of an event loop never has more than this
one callable.
"""

from __future__ import annotations

import contextlib
import functools
import math
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from eventsource.runtime.exit import before_exit, watch_for_exit
from eventsource.runtime.wakeup import Wakeup

if TYPE_CHECKING:
    import asyncio  # only programs that have a loop pay for these
    import concurrent.futures

Entry = TypeVar("Entry")

Dispatch = Callable[[Callable[[], None]], object]
"""Takes a callable and has it run elsewhere, once; its return value is ignored."""

Deliver = Callable[[Iterable[Entry]], Iterator[Coroutine[Any, Any, None]]]
"""Calls the handlers of each entry; yields each coroutine to await before the next call."""

Fail = Callable[[str, BaseException | None], None]
"""Closes the source, which cannot continue. The arguments: the reason, and the exception."""

LOOP_CHECK_SECONDS = 1.0
"""Seconds after which a reader that waits for an event loop checks whether the loop has been
closed. Nothing reports a loop that is closed before its handlers have ended."""

STALL_SECONDS = 30.0
"""Seconds after which a full queue, or a handler during which the reader cannot read, is logged:
longer than a handler should take, shorter than a server waits for a client that does not read."""

TURN_SECONDS = 0.005
"""Seconds after which a slice ends, so that its thread can do other work.

That is a third of the 16.7 ms between two frames of a window at 60 frames a second.
"""


def event_loop_of(dispatch: object) -> asyncio.AbstractEventLoop | None:
    """Return the loop whose `call_soon_threadsafe` is `dispatch`; None: it is no loop's method.

    Raises:
        TypeError: it is another method of a loop, which other threads must not call.
    """
    while isinstance(dispatch, functools.partial):
        dispatch = dispatch.func
    if "asyncio" not in sys.modules:  # then there is no loop, and its import takes time
        return None
    import asyncio  # noqa: PLC0415

    loop = getattr(dispatch, "__self__", None)
    if not isinstance(loop, asyncio.AbstractEventLoop):
        return None
    if getattr(dispatch, "__name__", "") != "call_soon_threadsafe":
        raise TypeError(f"dispatch must be the loop's call_soon_threadsafe, not {dispatch!r}")
    return loop


def was_cancelled_below(error: BaseException) -> bool:
    """Return whether something that a coroutine awaited was cancelled, not its own task.

    The task that runs the coroutine must call this.
    """
    import asyncio  # noqa: PLC0415 - imported already: there is a coroutine

    task = asyncio.current_task()
    return isinstance(error, asyncio.CancelledError) and task is not None and not task.cancelling()


F = TypeVar("F", bound=Callable[..., Any])

_makers: set[Callable[..., Any]] = set()


def makes_dispatch(maker: F) -> F:
    """Decorate a function that returns a `dispatch` but is not one itself."""
    _makers.add(maker)
    return maker


def check_dispatch(dispatch: object) -> None:
    """Refuse a value that cannot be a `dispatch`.

    Raises:
        TypeError: it is not callable, or returns a `dispatch` when it is called.
    """
    if not callable(dispatch):
        raise TypeError(f"dispatch must be callable or None, not {dispatch!r}")
    if any(dispatch is maker for maker in _makers):
        name = f"dispatch.{getattr(dispatch, '__name__', '')}"
        raise TypeError(f"dispatch must be the result of {name}(), not {name} itself: call it")


class DispatchTask:
    """The callable that `dispatch` gets: one slice of the handlers' work.

    Only the first call has an effect. If the task is dropped without a call, it closes the
    source, which would otherwise wait for it for ever. That happens when a future is cancelled,
    or when a loop or a window has ended.
    """

    def __init__(self, queue: DispatchQueue[Any]) -> None:
        self._to_run = [queue]  # a list, because pop() is atomic
        self._running: DispatchQueue[Any] | None = None  # while it is run
        self._caller: int | None = threading.get_ident()  # while it calls `dispatch`
        self.to_be_continued = False
        """Whether it ran before `dispatch` returned, and entries are left in the queue."""

    def __call__(self) -> None:
        """Run the handlers, on the first call."""
        try:
            queue = self._to_run.pop()
        except IndexError:
            return
        self._running = queue
        queue.take_turn(self)
        self._running = None

    def stop(self) -> None:
        """The window or loop in which it runs has ended: run no further handler."""
        if self._running is not None:
            self._running.fail("the window or loop that ran its handlers has ended", None)

    def over(self, more: bool) -> bool:
        """Return whether the runner must dispatch the next task, if there is `more`."""
        if more and self._caller == threading.get_ident():
            # `dispatch` runs it in this call. Dispatching the next from here would nest the
            # calls deeper and deeper.
            self.to_be_continued = True
            return False
        return more

    def given(self) -> None:
        """`dispatch` has returned."""
        self._caller = None

    def refused(self) -> None:
        """`dispatch` raised an exception, or was not called because the program is ending."""
        self._to_run.clear()

    def __del__(self) -> None:
        if self._to_run and not sys.is_finalizing():
            self._to_run[0].fail("`dispatch` dropped the callable without running it", None)


class DispatchQueue(Generic[Entry]):
    """A queue from the reader thread to the handlers, and the tasks that empty it.

    It has only weak references to the source's methods: the reader thread must not have the last
    reference to the handlers and their windows, which only a toolkit's own thread may delete.

    Threads: `put` and `wait` are for the reader thread, `close` for any and for signal
    handlers. `take_turn` runs where `dispatch` runs the tasks. The rest is for any thread.

    Args:
        dispatch: runs a callable elsewhere.
        limit: the most entries that may wait.
        deliver: a method that runs the handlers.
        fail: a method that closes the source.
        stalled: a method that is called each time that the queue was full for `STALL_SECONDS`.
    """

    def __init__(
        self,
        dispatch: Dispatch,
        limit: int,
        deliver: Deliver[Entry],
        fail: Fail,
        stalled: Callable[[], None],
    ) -> None:
        self.loop = event_loop_of(dispatch)
        """The event loop that dispatches; None: something else does."""
        self._dispatch = dispatch
        self._limit = limit
        self._deliver = weakref.WeakMethod(deliver)
        self._fail = weakref.WeakMethod(fail)
        self._stalled = weakref.WeakMethod(stalled)
        self.waiting: deque[Entry] = deque()
        self._closed = False  # set once by close(), never unset
        self._lock = threading.Lock()  # guards `is_under_way`; never taken by close()
        self.is_under_way = False  # a task has been given to `dispatch` and is not over
        self.reader_waits = False  # written by the reader, read at the end of a task
        self._go_on = Wakeup()  # set at the end of a task if the reader waits, and by close()
        self._maker = threading.get_ident()
        watch_for_exit()
        # Written by the tasks: the thread of the running one; that of all so far (0: several).
        self._runner: int | None = None
        self._home: int | None = None
        # References to what runs or will run on the loop, which keeps none itself.
        self.tasks: set[asyncio.Task[None] | concurrent.futures.Future[None]] = set()

    # --- The reader's side ---

    def put(self, entries: Sequence[Entry]) -> None:
        """Add to the queue, in order; wait for room. If the queue is closed, do nothing."""
        start = 0
        if self.is_under_way:
            self._look_at_loop()
        while start < len(entries) and not self._closed:
            room = self._limit - len(self.waiting)
            if room > 0:
                self.waiting.extend(entries[start : start + room])
                start += room
                with self._lock:
                    begin, self.is_under_way = not self.is_under_way, True
                if begin:
                    self._next_turn()
            else:
                self._wait_for_room()

    def _wait_for_room(self) -> None:
        def has_room() -> bool:
            return len(self.waiting) < self._limit

        if not self.wait(has_room, STALL_SECONDS):
            stalled = self._stalled()
            if stalled is not None:
                stalled()
            del stalled  # the last reference to the source must not be this thread's
            self.wait(has_room)

    def wait(
        self, condition: Callable[[], bool] = lambda: False, timeout: float | None = None
    ) -> bool:
        """Wait until the condition is true at the end of a task, or until `close()`.

        Returns:
            False if the time has passed before that.
        """
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        longest = math.inf if self.loop is None else LOOP_CHECK_SECONDS
        self.reader_waits = True
        try:
            while not self._closed and not condition():
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                self._go_on.wait(min(left, longest))
                self._look_at_loop()
        finally:
            self.reader_waits = False
        return True

    def _look_at_loop(self) -> None:
        if self.loop is not None and self.loop.is_closed():
            self.fail("the event loop that runs its handlers has been closed", None)

    def close(self) -> None:
        """Run no further handler, and wake the reader. Never waits."""
        self._closed = True
        self._go_on.set()

    def renew_lock(self) -> None:
        """In the child of a fork: make a new lock; a thread that does not exist may hold it."""
        self._lock = threading.Lock()

    def fail(self, reason: str, error: BaseException | None) -> None:
        """Close the source: its handlers can no longer be run."""
        fail = self._fail()
        if fail is not None and not self._closed:
            fail(reason, error)

    def runs_elsewhere(self) -> bool:
        """Return whether, as far as known, the handlers run in one other, living thread."""
        home = self._maker if self._home is None else self._home
        here = threading.get_ident()
        return here not in (self._runner, home) and home in {t.ident for t in threading.enumerate()}

    def waits_for_this_thread(self) -> bool:
        """Return whether the handlers cannot run while this thread waits.

        So it is in the thread of the loop; and in that of a window, which is the main thread if
        all handlers have run in it so far. A pool has other threads.
        """
        if self.loop is not None:
            import asyncio  # noqa: PLC0415 - there is a loop

            with contextlib.suppress(RuntimeError):  # no loop runs in this thread
                return asyncio.get_running_loop() is self.loop
            return False
        here = threading.get_ident()
        is_only_one = here == threading.main_thread().ident
        return here == self._runner or (is_only_one and here == self._home)

    def has_loop(self) -> bool:
        """Return whether there is an event loop that can run coroutines."""
        return self.loop is not None and not self.loop.is_closed()

    def spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine on the loop, outside the queue. For any thread."""
        import asyncio  # noqa: PLC0415 - there is a loop

        assert self.loop is not None
        try:
            future = asyncio.run_coroutine_threadsafe(coroutine, self.loop)
        except RuntimeError:  # it has been closed meanwhile
            coroutine.close()
            return
        self.tasks.add(future)
        future.add_done_callback(self.tasks.discard)

    # --- Where the handlers run ---

    def _next_turn(self) -> None:
        to_be_continued = True
        while to_be_continued:
            turn = DispatchTask(self)
            try:
                if not before_exit(self._dispatch, turn):
                    turn.refused()
            except Exception as error:
                turn.refused()
                self.fail("`dispatch` raised", error)
            turn.given()
            to_be_continued = turn.to_be_continued and not self._closed

    def take_turn(self, turn: DispatchTask) -> None:
        """Run the handlers of the waiting entries, for one slice."""
        if self.loop is not None:
            import asyncio  # noqa: PLC0415 - there is a loop

            # Not by create_task(): a task factory may run it at once, and raise its exceptions.
            task = asyncio.Task(self._deliver_awaiting(), loop=self.loop, name="eventsource")
            self.tasks.add(task)
            task.add_done_callback(functools.partial(self._task_done, turn))
            return
        self._runner = threading.get_ident()
        self._home = self._runner if self._home in (None, self._runner) else 0
        try:
            deliver = self._deliver()
            if deliver is not None:
                for _ in deliver(self._entries()):
                    pass  # without a loop there are no coroutines
            self._runner = None
            self._turn_over(turn)
        except BaseException as error:  # KeyboardInterrupt and SystemExit, too
            self._runner = None
            self.fail(type(error).__name__, error)
            raise

    async def _deliver_awaiting(self) -> None:
        assert self.loop is not None
        self._home = threading.get_ident()
        deliver = self._deliver()
        if deliver is not None:
            for coroutine in deliver(self._entries()):
                await self.loop.create_task(coroutine, name="eventsource handler")

    def _task_done(self, turn: DispatchTask, task: asyncio.Task[None]) -> None:
        self.tasks.discard(task)
        if task.cancelled():
            self.fail("the task that runs its handlers was cancelled", None)
        elif (error := task.exception()) is not None:
            self.fail(type(error).__name__, error)
        self._turn_over(turn)

    def _entries(self) -> Iterator[Entry]:
        """Yield the waiting entries, until the slice is over."""
        end = time.monotonic() + TURN_SECONDS
        while self.waiting and not self._closed:
            yield self.waiting.popleft()
            if time.monotonic() >= end:
                return

    def _turn_over(self, turn: DispatchTask) -> None:
        with self._lock:
            # Under the lock: for what the reader adds after this, it dispatches a task itself.
            self.is_under_way = more = bool(self.waiting) and not self._closed
        if self.reader_waits:
            self._go_on.set()
        if turn.over(more):
            self._next_turn()
