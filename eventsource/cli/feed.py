"""The events of standard input, for clients that each read at their own speed. No sockets.

The invariants:

- A client is sent every event from the one it joined at, in order, or it is dropped; then it
  can resume with its last event ID, as long as the events after it are in the history.
- Memory is bounded: the history is limited, and the input waits for a client that is too far
  behind. A client that then reads nothing for `PATIENCE` seconds is dropped.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import Final, NamedTuple, Protocol

HISTORY: Final = 10_000
"""The most events kept for clients that reconnect."""
HISTORY_BYTES: Final = 2**24
"""The most bytes of these events; the newest event is always kept."""
LAG: Final = 1_000
"""Events that a client may be behind before the input waits for it."""
LAG_BYTES: Final = 2**20
"""Bytes that it may be behind."""
PATIENCE: Final = 5.0
"""Seconds that the input waits for a client that does not read."""
AT_ONCE: Final = 2**16
"""`take()` returns events until they have this many bytes."""


class Reader(Protocol):
    """A client, as the feed sees it."""

    def wake(self) -> None:
        """There are new events, or no more will come. Never waits."""

    def drop(self) -> None:
        """End the connection. Never waits."""


class _Block(NamedTuple):
    data: bytes
    id: str | None
    """The value of its `id` field, if it has one."""
    total: int
    """Bytes of all blocks so far, this one included."""


class Feed:
    """The events, numbered from 0, and the clients that read them.

    Threads: every method may be called from any; `put()` and `wait_until_read()` from one only.
    """

    def __init__(self, patience: float = PATIENCE) -> None:
        self._patience = patience
        self._changed = threading.Condition()  # guards all that follows
        self._blocks: deque[_Block] = deque()
        self._first = 0  # the number of the first block that is kept
        self._total = 0  # bytes of all blocks so far, also of those that are not kept
        self._places: dict[Reader, int] = {}  # for each client, the number of its next block
        self._has_ended = False
        self._is_closed = False
        self.clients = 0
        """How many clients have joined so far."""

    @property
    def _next(self) -> int:
        return self._first + len(self._blocks)

    # --- For the thread that reads the input ---

    def put(self, data: bytes, event_id: str | None) -> int:
        """Add an event; wait for clients that are too far behind, within limits.

        Returns:
            How many clients were dropped because they had read nothing for `PATIENCE` seconds.
        """
        with self._changed:
            self._total += len(data)
            self._blocks.append(_Block(data, event_id, self._total))
            self._wake()
            dropped = 0
            if self._lagging():
                self._changed.wait_for(
                    lambda: self._is_closed or not self._lagging(), self._patience
                )
                dropped = self._drop(self._lagging())
            while len(self._blocks) > 1 and (
                len(self._blocks) > HISTORY or self._total - self._blocks[0].total > HISTORY_BYTES
            ):
                self._blocks.popleft()
                self._first += 1
            return dropped

    def end(self) -> None:
        """Note that no more events will come."""
        with self._changed:
            self._has_ended = True
            self._wake()

    def wait_until_read(self) -> int:
        """Wait until every client has read all and left; return how many had to be dropped."""
        dropped = 0
        with self._changed:
            while self._places and not self._is_closed:
                before = dict(self._places)
                if not self._changed.wait_for(
                    lambda before=before: self._is_closed or self._places != before,  # type: ignore[misc]
                    self._patience,
                ):
                    dropped += self._drop([*self._places])
        return dropped

    def close(self) -> None:
        """End all waits, now and later."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    # --- For clients ---

    def join(self, reader: Reader, last_event_id: str, *, came_here: bool) -> bool:
        """Add a client. It begins after that ID, or with the next event if it sends none.

        Args:
            reader: the client.
            last_event_id: what it sends; `""`: none.
            came_here: whether the client must have the ID from this feed. If the history does
                not have it any more, the client begins with the oldest event that is kept.

        Returns:
            Whether the ID is in the history; True if the client sent none.
        """
        with self._changed:
            place = self._place(last_event_id)
            otherwise = self._first if came_here else self._next
            self._places[reader] = otherwise if place is None else place
            self.clients += 1
            return place is not None

    def take(self, reader: Reader) -> bytes | None:
        """Return what to send to a client next: whole events, `b""` if there are none now.

        Returns:
            None: it has taken all of them, and no more will come; or it has been dropped.
        """
        with self._changed:
            place = self._places.get(reader)
            if place is None:
                return None
            taken: list[bytes] = []
            size = 0
            while place < self._next and size < AT_ONCE:
                data = self._blocks[place - self._first].data
                taken.append(data)
                size += len(data)
                place += 1
            if not taken:
                return None if self._has_ended else b""
            self._places[reader] = place
            self._changed.notify_all()
            return b"".join(taken)

    def leave(self, reader: Reader) -> None:
        """Remove a client."""
        with self._changed:
            self._places.pop(reader, None)
            self._changed.notify_all()

    # --- With the lock ---

    def _place(self, last_event_id: str) -> int | None:
        """Return the number of the event after that ID; None: the ID is not known."""
        if not last_event_id:
            return self._next
        for number in range(len(self._blocks) - 1, -1, -1):
            if self._blocks[number].id == last_event_id:
                return self._first + number + 1
        return None

    def _lagging(self) -> list[Reader]:
        return [reader for reader, place in self._places.items() if self._is_lagging(place)]

    def _is_lagging(self, place: int) -> bool:
        if place >= self._next - 1:  # it may always be one event behind, of any size
            return False
        behind = self._total - self._blocks[max(place - self._first, 0)].total
        return self._next - place > LAG or behind > LAG_BYTES

    def _drop(self, readers: list[Reader]) -> int:
        for reader in readers:
            del self._places[reader]
            reader.drop()
        return len(readers)

    def _wake(self) -> None:
        for reader in self._places:
            reader.wake()
        self._changed.notify_all()
