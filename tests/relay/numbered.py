"""A stream of numbered events that is replayed from any place."""

from __future__ import annotations

import threading

from tests.support import HEAD


def event(number):
    return b"id: %d\ndata: %d\n\n" % (number, number)


def numbered(count, *, cut_after=None, at_once=7):
    """A script: the events 1 to `count` after the one asked for, then silence.

    Args:
        count: of events.
        cut_after: each connection is lost after so many, in the middle of the next one.
        at_once: so many are sent in one piece.
    """

    def script(connection):
        place = int(connection.read_request().last_event_id or 0)
        connection.send(HEAD + b"retry: 20\n\n")
        last = count if cut_after is None else min(place + cut_after, count)
        while place < last:
            end = min(place + at_once, last)
            connection.send(b"".join(map(event, range(place + 1, end + 1))))
            place = end
        if place < count:
            connection.send(event(place + 1)[:-3])
            return
        connection.hold()

    return script


class Growing:
    """A script: numbered events from the place asked for up to a limit, which grows."""

    def __init__(self):
        self._limit = 0
        self._cuts = 0
        self._changed = threading.Condition()

    def grow(self, limit):
        with self._changed:
            self._limit = limit
            self._changed.notify_all()

    def cut(self):
        """Lose each connection, in the middle of an event."""
        with self._changed:
            self._cuts += 1
            self._changed.notify_all()

    def __call__(self, connection):
        cuts = self._cuts
        place = int(connection.read_request().last_event_id or 0)
        connection.send(HEAD + b"retry: 20\n\n")
        while not connection.server.closing.is_set():
            with self._changed:
                if not self._changed.wait_for(
                    lambda: self._limit > place or self._cuts > cuts,  # noqa: B023
                    0.05,
                ):
                    continue
                if self._cuts > cuts:
                    connection.send(event(place + 1)[:-3])
                    return
                end = min(self._limit, place + 10)
            connection.send(b"".join(map(event, range(place + 1, end + 1))))
            place = end


def texts(count):
    """What is in the log when all have been relayed."""
    return [str(number) for number in range(1, count + 1)]
