"""From where a relay resumes, if its log stores the events of a batch one after another.

The invariant: **with each event, the point after it is stored**, and from that point nothing is
lost and nothing comes twice. A server resumes after an id, and several events may have one id:
a relay that resumed from it after the first of them would not get the others. So the place
stays before the first of them until the last is stored, and the point counts those between.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from eventsource.protocol.events import MessageEvent


class ResumePoint(NamedTuple):
    """A place, and what of the events that follow it is stored."""

    place: str = ""
    """The last event ID to resume from."""
    event_id: str = ""
    """The id of those events; it means nothing if none is stored."""
    stored: int = 0
    """How many events with that id are stored: the first ones after the place."""


class Resumption:
    """What a relay has stored, and what of it has come again since it resumed.

    Attributes:
        point: the one that was stored last.
    """

    def __init__(self, point: ResumePoint) -> None:
        self.point = point
        self._passed = 0  # of the point's stored events, those that have come again

    def advance(
        self, events: Sequence[MessageEvent], last_event_id: str
    ) -> Iterator[tuple[MessageEvent | None, ResumePoint]]:
        """Yield what to store of a batch: each event that is not stored, and the point after it.

        If there is no such event, a place that is another is yielded with None. The caller
        stores them in this order; if that fails, it resumes from what is stored, with a new
        `Resumption`.

        Args:
            events: in order.
            last_event_id: the place after the last of them.
        """
        again = itertools.takewhile(
            lambda event: event.last_event_id == self.point.event_id,
            events[: self.point.stored - self._passed],
        )
        known = len([*again])
        stored = self._passed if known else 0
        self._passed += known
        if known == len(events):
            # As long as not all of them have come again, the stored place and count still hold.
            if self._passed == self.point.stored and last_event_id != self.point.place:
                self._move(ResumePoint(last_event_id))
                yield None, self.point
            return
        place = self.point.place
        for number, (event, following) in enumerate(itertools.zip_longest(events, events[1:])):
            stored += 1
            if following is None:
                point = ResumePoint(last_event_id)
            elif following.last_event_id == event.last_event_id != place:
                point = ResumePoint(place, event.last_event_id, stored)
            else:
                place, stored = event.last_event_id, 0
                point = ResumePoint(place)
            if number >= known:
                self._move(point)
                yield event, point

    def _move(self, point: ResumePoint) -> None:
        self.point, self._passed = point, 0
