"""`async for` over a stream: a thread takes the steps.

The invariant: the thread takes a step only when it is asked to, and it is asked for the next
step when the items of the previous one have been iterated over. So only the items of one
step wait, and a slow program slows the server. The thread refers to the engine and not to
the stream, so a stream that the program drops closes, and the thread ends.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Protocol

from eventsource.protocol.session import Item
from eventsource.runtime.wakeup import Wakeup
from eventsource.urls import redact

from .engine import Engine

if TYPE_CHECKING:
    import asyncio  # only programs that have a loop pay for it

EXIT_TIMEOUT = 10.0
"""The most seconds that leaving an `async with` block waits for the thread: the look-up of a
name cannot be interrupted."""

logger = logging.getLogger(__name__)


class HasEngine(Protocol):
    """The part of a stream that its asynchronous iterators use."""

    _engine: Engine
    _taker: Taker | None


class AsyncItems(AsyncIterator[Item]):
    """The iterator of `async for`. For one event loop at a time.

    While there is a step whose result has not been fetched (`Taker.asked`), nothing is taken. If
    an `__anext__` is cancelled, for example by `asyncio.timeout`, no event is lost: the next one
    continues, even in another iterator. Dropping an iterator closes nothing.
    """

    def __init__(self, stream: HasEngine) -> None:
        self._stream = stream

    async def __anext__(self) -> Item:
        engine = self._stream._engine
        try:
            while True:
                taker = self._stream._taker
                is_asking = taker is not None and taker.asked is not None
                if not is_asking and (item := engine.next_item()) is not None:
                    return item
                if not await self.step(shows_errors=True):
                    raise StopAsyncIteration
        finally:
            del self  # a cancelled task keeps this frame alive, which must not hold the stream

    async def step(self, *, shows_errors: bool) -> bool:
        """Ask for a step, or wait for the one that is under way.

        Args:
            shows_errors: whether the program gets `ErrorEvent`s.

        Returns:
            Whether there are items; if not, the stream is over.
        """
        import asyncio  # noqa: PLC0415 - imported already: there is a loop

        try:
            taker = self._stream._taker
            if taker is None or taker.asked is None:
                taker = self._current_taker()
                taker.ask(shows_errors)
            asked = taker.asked
            assert asked is not None
            if taker.loop is not asyncio.get_running_loop():
                raise RuntimeError("the iteration has begun in another event loop")
            if asked.result is None:
                # A future of its own: if this task is cancelled, the step continues.
                waiter = taker.loop.create_future()
                asked.waiters.add(waiter)
                try:
                    await waiter
                finally:
                    asked.waiters.discard(waiter)
            if taker.asked is asked:  # else another task has fetched the result
                taker.asked = None
            assert asked.result is not None
            if isinstance(asked.result, bool):
                return asked.result
            raise asked.result
        finally:
            del self  # as above

    def _current_taker(self) -> Taker:
        """Return the stream's taker for this loop; end the one of another loop."""
        import asyncio  # noqa: PLC0415 - there is a loop

        stream, loop = self._stream, asyncio.get_running_loop()
        if stream._taker is None or not stream._taker.serves(loop):
            if stream._taker is not None:
                stream._taker.end()
            stream._taker = Taker(stream._engine, loop)
        return stream._taker


class Step:
    """A step that a loop has asked for, and its waiters. Only that loop may use it.

    Attributes:
        shows_errors (bool): whether the program gets `ErrorEvent`s.
        result (bool | BaseException | None): whether there are items, or the exception that was
            raised; None: the step is under way.
        waiters (set[asyncio.Future[None]]): futures that are set when there is a result.
    """

    def __init__(self, *, shows_errors: bool) -> None:
        self.shows_errors = shows_errors
        self.result: bool | BaseException | None = None
        self.waiters: set[asyncio.Future[None]] = set()

    def settle(self, result: bool | BaseException) -> None:
        """Store the result, and wake the waiters."""
        self.result = result
        for waiter in self.waiters:
            if not waiter.done():  # done: cancelled
                waiter.set_result(None)


class Taker:
    """The thread that takes steps, from the first one that a loop asks for.

    Threads: everything is for the loop, except the thread itself; `close_on_loop` is for any
    thread.

    Attributes:
        asked (Step | None): the step that was asked for last, until its result is fetched.
    """

    def __init__(self, engine: Engine, loop: asyncio.AbstractEventLoop) -> None:
        import asyncio  # noqa: PLC0415 - there is a loop

        self.loop = loop
        self.asked: Step | None = None
        self._engine = engine
        self._wakeup = Wakeup()  # set when it is asked, and when it is over
        self._lock = threading.Lock()  # guards the next three; held for assignments
        self._request: Step | None = None
        self._is_to_end = False
        self._has_ended = False
        self._told_end = asyncio.Event()
        engine.watchers.append(self._wakeup)
        name = f"eventsource {redact(engine.template.url)} (async for)"
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def serves(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Whether this loop can ask it for steps. After a fork the child has no such thread."""
        return self.loop is loop and self._thread.is_alive()

    def ask(self, shows_errors: bool) -> None:
        """Ask for a step; `asked` is that step."""
        self.asked = asked = Step(shows_errors=shows_errors)
        with self._lock:
            if self._has_ended:
                asked.settle(False)
            else:
                self._request = asked
        self._wakeup.set()

    def end(self) -> None:
        """Let the thread end, but not the stream."""
        self._is_to_end = True
        self._wakeup.set()

    def close_on_loop(self) -> None:
        """Close the stream, on the loop."""
        with contextlib.suppress(RuntimeError):  # the loop is closed, and the stream with it
            self.loop.call_soon_threadsafe(self._engine.close)

    async def wait_for_end(self) -> None:
        """Wait until the thread of the closed stream has ended, for at most 10 seconds."""
        import asyncio  # noqa: PLC0415 - there is a loop

        try:
            async with asyncio.timeout(EXIT_TIMEOUT):
                await self._told_end.wait()
        except TimeoutError:
            logger.warning("%s: the reader thread is still busy", self._thread.name)
        else:
            self._thread.join()

    def _run(self) -> None:
        result: bool | BaseException
        try:
            while (asked := self._next()) is not None:
                try:
                    result = self._engine.advance(shows_errors=asked.shows_errors)
                except BaseException as error:  # for example SystemExit in an auth callable
                    result = error
                self._tell(asked.settle, result)
            self._tell(self._told_end.set)
        finally:
            with contextlib.suppress(ValueError):  # in the child of a fork
                self._engine.watchers.remove(self._wakeup)

    def _next(self) -> Step | None:
        """Wait for the next request, or for the end of the stream."""
        while True:
            with self._lock:
                request, self._request = self._request, None
                if request is None and (self._is_to_end or self._engine.session.is_over):
                    self._has_ended = True
                    return None
            if request is not None:
                return request
            self._wakeup.wait()

    def _tell(self, call: Callable[..., object], *args: object) -> None:
        try:
            self.loop.call_soon_threadsafe(call, *args)
        except RuntimeError as error:  # the loop is closed
            if not self._is_to_end and not self._engine.session.is_over:
                logger.error("%s: closed: %r", self._thread.name, error)  # noqa: TRY400
                self._engine.close()
