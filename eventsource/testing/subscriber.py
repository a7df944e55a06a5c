"""`Subscriber`: one client of a stream, and what is still to be sent to it."""

from __future__ import annotations

import contextlib
import enum
import math
import selectors
import socket
import ssl
import time
from collections import deque
from collections.abc import Iterable
from typing import Final

from .connection import Connection

LONGEST_WAIT: Final = 3600.0
"""Seconds that a selector is given at once: its milliseconds have 31 bits."""


class State(enum.Enum):
    """Where a subscriber stands; it goes down this list."""

    ARRIVED = enum.auto()
    """Its request has come; the response's head is on its way."""
    SERVED = enum.auto()
    """The head has been sent."""
    STALLED = enum.auto()
    """It gets no answer at all."""
    LEAVING = enum.auto()
    """It gets what was sent before, and no more."""


class Ending(enum.Enum):
    """How a connection ends."""

    REGULAR = enum.auto()
    """With the last chunk: the body is complete."""
    FIN = enum.auto()
    """In the middle of the body."""
    RESET = enum.auto()
    """With RST."""


Step = tuple[float, bytes | Ending]
"""What to do, and when: in seconds since the beginning."""


class Subscriber:
    """A queue that one thread empties into a connection, until either side ends it.

    `put()` and `state` are for those who hold the site's lock, and only while the stream
    has the subscriber on its list; the rest is for the thread of the connection.
    """

    def __init__(self, state: State, backlog: Iterable[bytes] = ()) -> None:
        self.state = state
        self._queue: deque[bytes | Ending] = deque(backlog)
        self._waker, self._woken = socket.socketpair()
        self._waker.setblocking(False)

    def put(self, step: bytes | Ending) -> None:
        """Add what is to be done next. Never waits."""
        self._queue.append(step)
        with contextlib.suppress(BlockingIOError):  # full: it is awake
            self._waker.send(b"\0")

    def run(self, connection: Connection, steps: Iterable[Step] = ()) -> None:
        """Send what comes, each as one chunk, until the end or until the client has gone.

        Args:
            connection: where to.
            steps: what to do before that, and when, in seconds from now. What is put into the
                queue meanwhile is done at once.
        """
        with selectors.DefaultSelector() as selector:
            selector.register(connection.sock, selectors.EVENT_READ)
            selector.register(self._woken, selectors.EVENT_READ)
            began = time.monotonic()
            for seconds, step in steps:
                if self._ends_before(began + seconds, connection, selector):
                    return
                if _ends_with(step, connection):
                    return
            self._ends_before(math.inf, connection, selector)

    def _ends_before(
        self, due: float, connection: Connection, selector: selectors.BaseSelector
    ) -> bool:
        """Do what is in the queue until then; say whether the connection has ended."""
        while True:
            while self._queue:
                if _ends_with(self._queue.popleft(), connection):
                    return True
            left = due - time.monotonic()
            # Once it is due it is still looked whether the client has gone.
            ready = selector.select(min(max(left, 0.0), LONGEST_WAIT))
            for key, _ in ready:
                if key.fileobj is self._woken:
                    self._woken.recv(4096)
                elif has_gone(connection.sock):
                    return True
            if left <= 0:
                return False

    def close(self) -> None:
        """Let go of what it waits on. Only when nobody can `put()` any more."""
        self._waker.close()
        self._woken.close()


def _ends_with(step: bytes | Ending, connection: Connection) -> bool:
    """Do what is next; say whether the connection has ended with it."""
    if isinstance(step, Ending):
        _end(connection, step)
        return True
    if step:  # a chunk of no bytes would be the last one
        connection.send_chunk(step)
    return False


def _end(connection: Connection, ending: Ending) -> None:
    if ending is Ending.RESET:
        connection.reset()
        return
    if ending is Ending.REGULAR:
        connection.send_chunk(b"")
    has_gone(connection.sock)  # to close with unread bytes would be a reset


def has_gone(sock: socket.socket) -> bool:
    """Say whether a readable socket is so because the client has closed. Never waits."""
    sock.setblocking(False)
    try:
        return not sock.recv(65536)
    except (BlockingIOError, ssl.SSLWantReadError):  # less than a TLS record
        return False
    finally:
        sock.setblocking(True)
