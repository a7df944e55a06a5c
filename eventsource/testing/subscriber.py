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
"""The most seconds of one wait: a selector counts milliseconds in 31 bits."""


class State(enum.Enum):
    """The state of a subscriber; it changes only to a later one in this list."""

    ARRIVED = enum.auto()
    """The request has come; the response's head is being sent."""
    SERVED = enum.auto()
    """The head has been sent."""
    STALLED = enum.auto()
    """It gets no response at all."""
    LEAVING = enum.auto()
    """It gets what was sent before, and then its connection ends."""


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

    Threads: `put()` and `state` may be used with the site's lock held, while the stream has
    the subscriber in its list; everything else is for the thread of the connection.
    """

    def __init__(self, state: State, backlog: Iterable[bytes] = ()) -> None:
        self.state = state
        self._queue: deque[bytes | Ending] = deque(backlog)
        self._waker, self._woken = socket.socketpair()
        self._waker.setblocking(False)

    def put(self, step: bytes | Ending) -> None:
        """Add bytes to send, or an end. Never waits."""
        self._queue.append(step)
        with contextlib.suppress(BlockingIOError):  # full: it will wake
            self._waker.send(b"\0")

    def run(self, connection: Connection, steps: Iterable[Step] = ()) -> None:
        """Send what is put, each as one chunk, until an end or until the client has closed.

        Args:
            connection: the connection to the client.
            steps: what to do first, and when, in seconds from now. What is put into the queue
                meanwhile is done at once.
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
        """Do what is put into the queue until `due`; return whether the connection has ended."""
        while True:
            while self._queue:
                if _ends_with(self._queue.popleft(), connection):
                    return True
            left = due - time.monotonic()
            # At least once, even if it is due: the client may have closed.
            ready = selector.select(min(max(left, 0.0), LONGEST_WAIT))
            for key, _ in ready:
                if key.fileobj is self._woken:
                    self._woken.recv(4096)
                elif has_gone(connection.sock):
                    return True
            if left <= 0:
                return False

    def close(self) -> None:
        """Close the sockets by which it is woken. Only when nothing can call `put()` any more."""
        self._waker.close()
        self._woken.close()


def _ends_with(step: bytes | Ending, connection: Connection) -> bool:
    """Do a step; return whether it has ended the connection."""
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
    has_gone(connection.sock)  # reads: closing with unread bytes would send RST


def has_gone(sock: socket.socket) -> bool:
    """Read from a readable socket; return whether the client has closed. Never waits."""
    sock.setblocking(False)
    try:
        return not sock.recv(65536)
    except (BlockingIOError, ssl.SSLWantReadError):  # part of a TLS record
        return False
    finally:
        sock.setblocking(True)
