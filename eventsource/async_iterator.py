"""`async for` over a stream that a thread reads.

The invariant: the thread reads a batch, which is what one read brings, only when it is asked
to, and it is asked for the next one when that has been iterated over. So at most one batch
waits, and a slow program slows the server.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from .runtime.wakeup import Wakeup

if TYPE_CHECKING:
    import asyncio  # only programs that have a loop pay for it

Item = TypeVar("Item")
Item_co = TypeVar("Item_co", covariant=True)

EXIT_TIMEOUT = 10.0
"""Seconds that leaving an `async with` block waits for the thread at the most: looking up a
name cannot be interrupted."""

logger = logging.getLogger(__name__)


class Batches(Protocol[Item_co]):
    """A stream as its iterator sees it: what each read brings is a batch."""

    _wakeup: Wakeup
    """Ends any waiting of the thread that reads; `close()` sets it."""

    # Whether `_advance()` would return False at once.
    @property
    def _is_over(self) -> bool: ...

    # Wait for a batch, for `_rest()` to yield; say whether there was one, or the end.
    def _advance(self) -> bool: ...

    # Yield what has been read and not been yielded.
    def _rest(self) -> Iterator[Item_co]: ...

    def close(self) -> None:
        """End the iteration. Never waits."""

    # Close if that may be done wherever the collector runs; say whether it was.
    def _close_if_safe(self) -> bool: ...


class AsyncItems(AsyncIterator[Item]):
    """The iterator of `async for`. For one event loop.

    An `__anext__` that is cancelled, by `asyncio.timeout` for one, loses nothing: the next
    one goes on. When the iterator is dropped, its stream is closed and the thread ends.
    """

    def __init__(self, stream: Batches[Item]) -> None:
        self._stream = stream
        self._taker: _Taker | None = None  # from the first `__anext__` on
        self._asked: asyncio.Future[bool] | None = None  # what the thread was asked to do

    async def __anext__(self) -> Item:
        try:
            while True:
                if self._asked is None:
                    for item in self._stream._rest():
                        return item
                    self._asked = self._ask()
                await self._answered(self._asked)
        finally:
            del self  # a cancelled task keeps this frame, which must not keep the iterator

    def _ask(self) -> asyncio.Future[bool]:
        import asyncio  # noqa: PLC0415 - there is a loop

        if self._taker is None:
            self._taker = _Taker(self._stream, asyncio.get_running_loop())
        return self._taker.ask()

    async def _answered(self, asked: asyncio.Future[bool]) -> None:
        import asyncio  # noqa: PLC0415 - there is a loop

        if asked.get_loop() is not asyncio.get_running_loop():
            raise RuntimeError("the iteration has begun in another event loop")
        try:
            await asyncio.wait([asked])  # which is not cancelled with it, and nothing lost
            if self._asked is asked:  # else another task was quicker
                self._asked = None
        finally:
            del self  # as above
        if not asked.result():
            raise StopAsyncIteration

    async def wait_for_thread(self) -> None:
        """Wait until the thread of the closed stream has ended, for at most 10 seconds."""
        import asyncio  # noqa: PLC0415 - there is a loop

        if self._taker is not None:
            try:
                async with asyncio.timeout(EXIT_TIMEOUT):
                    await self._taker.has_ended.wait()
            except TimeoutError:
                logger.warning("%r: the reader thread is still busy", self._stream)
            else:
                self._taker.thread.join()

    def __del__(self) -> None:
        if not self._stream._close_if_safe() and self._taker is not None:
            self._taker.close_on_loop()


class _Taker:
    """The thread that takes. Refers to the stream, and not to the iterator."""

    def __init__(self, stream: Batches[Any], loop: asyncio.AbstractEventLoop) -> None:
        import asyncio  # noqa: PLC0415 - there is a loop

        self._stream = stream
        self._loop = loop
        self._lock = threading.Lock()  # guards the next two; held for assignments
        self._asked: asyncio.Future[bool] | None = None
        self._has_ended = False
        self.has_ended = asyncio.Event()
        """Set on the loop when the thread has nothing left to do."""
        self.thread = threading.Thread(
            target=self._run, name=f"eventsource {stream!r}", daemon=True
        )
        self.thread.start()

    def ask(self) -> asyncio.Future[bool]:
        """Have the next batch taken; the result says whether there is one."""
        asked: asyncio.Future[bool] = self._loop.create_future()
        with self._lock:
            if self._has_ended:
                asked.set_result(False)
            else:
                self._asked = asked
        self._stream._wakeup.set()
        return asked

    def close_on_loop(self) -> None:
        """Close the stream, which must not be done here (see `_close_if_safe`)."""
        with contextlib.suppress(RuntimeError):  # the loop is closed; so is what it read
            self._loop.call_soon_threadsafe(self._stream.close)

    def _run(self) -> None:
        result: bool | BaseException
        while (asked := self._next()) is not None:
            try:
                result = self._stream._advance()
            except BaseException as error:  # an auth callable's SystemExit, for one
                result = error
            self._tell(_settle, asked, result)
        self._tell(self.has_ended.set)

    def _next(self) -> asyncio.Future[bool] | None:
        """Wait to be asked, or for the end of the stream."""
        while True:
            with self._lock:
                asked, self._asked = self._asked, None
                if asked is None and self._stream._is_over:
                    self._has_ended = True
                    return None
            if asked is not None:
                return asked
            self._stream._wakeup.wait()

    def _tell(self, call: Callable[..., object], *args: object) -> None:
        try:
            self._loop.call_soon_threadsafe(call, *args)
        except RuntimeError as error:
            if not self._stream._is_over:
                logger.error("%r: closed: %r", self._stream, error)  # noqa: TRY400
            self._stream.close()


def _settle(asked: asyncio.Future[bool], result: bool | BaseException) -> None:
    if asked.done():  # cancelled by somebody who looked inside
        return
    if isinstance(result, bool):
        asked.set_result(result)
    else:
        asked.set_exception(result)
