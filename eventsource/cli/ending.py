"""The end of the command: any thread may ask for it at any time, and every wait then ends.

The invariant: a signal handler only asks for the end. So no write is cut off, not even within
an escape sequence to the terminal. The first request gives the reason.
"""

from __future__ import annotations

import contextlib
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any, Final, Self

from .failures import Exit, Stop

SIGNALS: Final = {"SIGINT": Exit.INTERRUPTED, "SIGTERM": Exit.TERMINATED, "SIGHUP": Exit.HUNG_UP}
"""The signals that end the command in order, by name: not every system has all of them."""


class Ending:
    """Whether the command is to end, and why.

    Args:
        wake: ends what the main thread is doing; called in any thread and in signal handlers,
            perhaps twice.
    """

    def __init__(self, wake: Callable[[], object]) -> None:
        self._wake = wake
        self._stop: Stop | None = None
        self._taken: Stop | None = None
        self._reasons: set[Exit] = set()
        self._sending, self._receiving = socket.socketpair()
        self._sending.setblocking(False)
        self._receiving.setblocking(False)

    def set(self, stop: Stop) -> None:
        """Have the command end; the first reason counts. Never waits; for any thread."""
        if self._taken is not None and self._taken.status is stop.status:
            return  # a handler and a thread are told of each signal
        self._reasons.add(stop.status)
        if self._stop is None:
            self._stop = stop
        with contextlib.suppress(OSError):  # full: already set; closed: the command has ended
            self._sending.send(b"\0")
        self._wake()

    def check(self) -> None:
        """Raise `Stop` if the command is to end."""
        if self._stop is not None:
            raise self._stop

    def take_signal(self) -> Stop | None:
        """Return the reason if one signal has asked for the end, and write output as before.

        Another signal ends the command. For the main thread.
        """
        stop = self._stop
        if stop is None or self._reasons - {stop.status} or stop.status not in SIGNALS.values():
            return None
        self._taken, self._stop = stop, None
        with contextlib.suppress(BlockingIOError):  # the byte has not been sent yet
            self._receiving.recv(16)
        return stop

    def fileno(self) -> int:
        """Return a descriptor that becomes readable, and stays so, when the command is to end."""
        return self._receiving.fileno()

    @contextlib.contextmanager
    def at_signals(self) -> Iterator[None]:
        """Within the block, end at `SIGNALS`. The second of a kind ends the process at once.

        A signal that is ignored remains so, as `nohup` and a shell's `&` expect. Only the
        process's main thread can do this; in another thread it does nothing.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before: dict[signal.Signals, Any] = {}
        for number in signal.Signals:
            handler = signal.getsignal(number) if number.name in SIGNALS else None
            if handler not in (signal.SIG_IGN, None):  # None: not installed from Python
                before[number] = handler
        codes: dict[int, Exit] = {number: SIGNALS[number.name] for number in before}

        def end(number: int, _: object) -> None:
            signal.signal(number, signal.SIG_DFL)
            self.set(Stop(codes[number]))

        with self._told_of(codes):
            try:
                for number in before:
                    signal.signal(number, end)
                yield
            finally:
                for number, handler in before.items():
                    signal.signal(number, handler)

    @contextlib.contextmanager
    def _told_of(self, codes: dict[int, Exit]) -> Iterator[None]:
        # Python runs the handler in the main thread. If the signal comes just before that thread
        # begins to wait, the handler runs only after the wait. So another thread is told, too.
        sending, receiving = socket.socketpair()

        def hear() -> None:
            while numbers := receiving.recv(16):
                for number in numbers:
                    if number in codes:
                        self.set(Stop(codes[number]))

        thread = threading.Thread(target=hear, name="eventsource-signals", daemon=True)
        with sending, receiving:
            sending.setblocking(False)
            thread.start()
            before = signal.set_wakeup_fd(sending.fileno(), warn_on_full_buffer=False)
            try:
                yield
            finally:
                signal.set_wakeup_fd(before)
                sending.shutdown(socket.SHUT_WR)
                thread.join()

    @contextlib.contextmanager
    def after(self, seconds: float, stop: Callable[[], Stop]) -> Iterator[None]:
        """Within the block, end after `seconds`, as `stop()` then says in another thread."""
        timer = threading.Timer(seconds, lambda: self.set(stop()))
        timer.name = "eventsource-max-time"
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            timer.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._sending.close()
        self._receiving.close()
