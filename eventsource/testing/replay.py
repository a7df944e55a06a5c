"""`Replay`: what a server sends to its clients when it plays a recording. No sockets, no clock.

A recording is a sequence of parts, one for each connection that opened. A client begins with
the first part and reconnects after a loss. The last event ID that it sends decides what to play
next:

- A client that has received a whole part continues with the next one. It is recognized by its
  last event ID at that time: the last one of the part, else the one that it had sent. `""` counts
  as an ID, so a recording without IDs continues after the loss.
- A client with any other ID continues after the last block that has this ID.
- One without an ID, or with one that is not in the recording, begins at the start.
"""

from __future__ import annotations

import bisect
import math
import re
import threading
import zlib
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

from eventsource.protocol.parser import EventStreamParser
from eventsource.recording import End, Loss, Opening, Received, Recording

from .subscriber import Ending, Step

_BLOCK: Final = re.compile(rb"(?:\r\n|\n|\r(?!\n)){2}")
"""The end of a block: a line end, and the line end of an empty line."""
_OWN_ID: Final = re.compile(rb"(?:^|[\r\n])id(?:[:\r\n])")
_DATA: Final = re.compile(rb"(?:^|[\r\n])data(?:[:\r\n])")
_RETRY: Final = re.compile(rb"(?<![^\r\n])retry: ?([0-9]{1,15})(?=[\r\n])")
"""A `retry` field with up to 15 digits; clients bound longer numbers anyway."""
_BOM: Final = b"\xef\xbb\xbf"
MAX_UNKNOWN: Final = 1_000
"""The most clients with IDs that are not in the recording whose next part is remembered."""
_NOT_SENT: Final = frozenset(
    (
        *("connection", "keep-alive", "proxy-connection", "te", "trailer", "upgrade"),
        *("content-length", "transfer-encoding", "content-encoding"),
        "alt-svc",  # it would send the client to another server
    )
)
"""Header fields that describe the recorded connection, and are wrong on any other."""


class Part(NamedTuple):
    """What was received on one connection."""

    headers: Mapping[str, str]
    times: list[float]
    """When each piece came, in seconds since the connection opened."""
    ends: list[int]
    """Where each piece ends in `data`."""
    data: bytes
    ended_at: float
    ending: Ending
    last_event_id: str
    """The last event ID of a client that has received this part and all before it."""
    places: dict[str, int]
    """For each ID, where the last block that has it ends in `data`; `""`: of an empty `id`."""


class Playback:
    """What one client is sent. For the thread of its connection."""

    def __init__(
        self,
        replay: Replay,
        number: int,
        offset: int,
        *,
        last_event_id: str,
        keeps_end: bool,
        speed: float,
    ) -> None:
        self._replay = replay
        self._last_event_id = last_event_id
        self._number = number
        self._offset = offset
        self._keeps_end = keeps_end
        self._speed = speed
        self._part = replay.parts[number]

    @property
    def headers(self) -> Mapping[str, str]:
        """The header fields that can be sent again."""
        fields = self._part.headers.items()
        return {name: value for name, value in fields if name.lower() not in _NOT_SENT}

    def steps(self) -> Iterator[Step]:
        """Yield what to send, in the pieces in which it came, and how the connection ends."""
        part, start = self._part, self._offset
        first = bisect.bisect_right(part.ends, start)
        # A client that resumes within a part gets the first piece at once.
        base = 0.0 if start == 0 else part.times[first]
        for time, end in zip(part.times[first:], part.ends[first:], strict=True):
            yield max(time - base, 0.0) / self._speed, part.data[start:end]
            start = end
        last_event_id = self._last_event_id
        if max(part.places.values(), default=0) > self._offset:
            last_event_id = part.last_event_id
        self._replay.left(self._number, last_event_id, keeps_end=self._keeps_end)
        yield max(part.ended_at - base, 0.0) / self._speed, part.ending


class Replay:
    """Plays a recording to any number of clients.

    Args:
        recording: what to play.
        speed: how much faster than it was recorded; `math.inf`: at once. Reconnection times
            that the recorded server set are divided by it, too.
        numbered: if the recording has no IDs, its events get some, so that every client can
            resume.

    Raises:
        TypeError: `speed` is not a number.
        ValueError: it is not more than 0; or no connection opened in the recording.

    Threads: every method may be called from any.
    """

    def __init__(self, recording: Recording, speed: float = 1.0, *, numbered: bool = False) -> None:
        check_speed(speed)
        self._speed = speed
        self._lock = threading.Lock()
        self.parts = _parts(recording, speed)
        if not self.parts:
            raise ValueError("there is nothing to play: no connection had opened")
        if numbered and not any(part.places for part in self.parts):
            # Part of each ID: an ID of another recording must not match one of these.
            name = zlib.crc32(f"{recording.started} {recording.url}".encode(errors="replace"))
            self.parts = _number(self.parts, f"{name:x}")
        self._known = {
            last_event_id: (number, offset)
            for number, part in enumerate(self.parts)
            for last_event_id, offset in part.places.items()
            if last_event_id
        }
        """By ID of the recording, from where to play (part, offset): after the last block that
        has it; once a client has received a whole part and ended with it, the part after that."""
        self._unknown: OrderedDict[str, int] = OrderedDict()
        """By any other ID with which a client has ended, the part after that; for one request."""

    def play(self, last_event_id: str, *, asks_anew: bool = False) -> Playback | None:
        """Return what to send to a client; None: it has received everything.

        Args:
            last_event_id: what the client sends; `""`: none.
            asks_anew: its request does not resume, such as a POST. After the end of the
                recording, the next such request begins at the start.
        """
        with self._lock:
            if last_event_id in self._known:
                number, offset = self._known[last_event_id]
            else:  # forgotten, because the next client with it may be a new one
                number, offset = self._unknown.pop(last_event_id, 0), 0
        if offset and offset == len(self.parts[number].data):
            number, offset = number + 1, 0
        if number == len(self.parts):
            return None
        return Playback(
            self,
            number,
            offset,
            last_event_id=last_event_id,
            keeps_end=not asks_anew,
            speed=self._speed,
        )

    def left(self, number: int, last_event_id: str, *, keeps_end: bool) -> None:
        """Note, by its last event ID, that a client has received all of a part."""
        following = number + 1
        if following == len(self.parts) and not keeps_end:
            return
        with self._lock:
            if last_event_id in self._known:
                self._known[last_event_id] = following, 0
                return
            self._unknown[last_event_id] = following
            self._unknown.move_to_end(last_event_id)
            if len(self._unknown) > MAX_UNKNOWN:
                self._unknown.popitem(last=False)


def check_speed(speed: object) -> None:
    """Refuse a value that is not a speed."""
    if not isinstance(speed, int | float) or isinstance(speed, bool):
        raise TypeError(f"speed must be a number, not {speed!r}")
    if not speed > 0:  # also refuses nan
        raise ValueError(f"speed must be more than 0, not {speed!r}")


def _parts(recording: Recording, speed: float) -> list[Part]:
    parts = []
    opening: Opening | None = None
    pieces: list[Received] = []
    last_event_id = ""
    for record in (*recording.records, None):
        match record:
            case Opening():
                opening = record
                pieces = []
            case Received():
                pieces.append(record)
            case Loss() | End() | None if opening is not None:
                part = _part(opening, pieces, record, speed, last_event_id)
                last_event_id = part.last_event_id
                parts.append(part)
                opening = None
            case _:  # an attempt that failed
                pass
    return parts


def _part(
    opening: Opening,
    pieces: list[Received],
    last: Loss | End | None,
    speed: float,
    last_event_id: str,
) -> Part:
    data = b"".join(piece.data for piece in pieces)
    ends, end = [], 0
    for piece in pieces:
        end += len(piece.data)
        ends.append(end)
    if speed != 1:
        edits = []
        for retry in _RETRY.finditer(data):
            scaled = 0 if math.isinf(speed) else min(int(retry[1]) / speed, 1e15)
            edits.append((*retry.span(1), b"%d" % int(scaled)))
        data, ends = _edited(data, ends, edits)
    times = [piece.at - opening.at for piece in pieces]
    ended_at = times[-1] if times else 0.0
    if last is not None:
        ended_at = last.at - opening.at
    # A stream that was still open at the end of the recording is played as one that ended.
    was_cut = isinstance(last, Loss) and not last.in_order
    ending = Ending.FIN if was_cut else Ending.REGULAR
    part = Part(opening.headers, times, ends, data, ended_at, ending, last_event_id, {})
    return _with_places(part)


def _with_places(part: Part) -> Part:
    """Return a part with its `places` and `last_event_id`; it has that of the part before."""
    parser = EventStreamParser(last_event_id=part.last_event_id, resume_id=part.last_event_id)
    places: dict[str, int] = {}
    start = 0
    for found in _BLOCK.finditer(part.data):
        block = part.data[start : found.end()]
        start = found.end()
        if _OWN_ID.search(block.removeprefix(_BOM)):
            parser.feed(block)
            if parser.resume_id == parser.last_event_id:  # else clients cannot send it
                places[parser.resume_id] = start
    return part._replace(last_event_id=parser.resume_id, places=places)


def _number(parts: list[Part], name: str) -> list[Part]:
    """Give each event an ID: the name of the recording, and its number."""
    numbered = []
    count = 0
    last_event_id = ""
    for part in parts:
        edits = []
        start = len(_BOM) if part.data.startswith(_BOM) else 0
        for found in _BLOCK.finditer(part.data):
            if _DATA.search(part.data[start : found.end()]):
                count += 1
                edits.append((start, start, f"id: {name}-{count}\n".encode()))
            start = found.end()
        data, ends = _edited(part.data, part.ends, edits)
        part = part._replace(data=data, ends=ends, last_event_id=last_event_id)  # noqa: PLW2901
        numbered.append(_with_places(part))
        last_event_id = numbered[-1].last_event_id
    return numbered


def _edited(
    data: bytes, ends: list[int], edits: list[tuple[int, int, bytes]]
) -> tuple[bytes, list[int]]:
    """Replace parts of `data`; return the result, and where each piece ends in it.

    Args:
        data: all bytes.
        ends: where each piece ends in them.
        edits: start, end and replacement of each change, in order.
    """
    parts: list[bytes] = []
    new_ends: list[int] = []
    copied = grown = 0
    for start, end, text in edits:
        while len(new_ends) < len(ends) and ends[len(new_ends)] <= start:
            new_ends.append(ends[len(new_ends)] + grown)
        parts += (data[copied:start], text)
        copied = end
        grown += len(text) - (end - start)
        while len(new_ends) < len(ends) and ends[len(new_ends)] < end:  # ends within the change
            new_ends.append(end + grown)
    new_ends += [each + grown for each in ends[len(new_ends) :]]
    return b"".join((*parts, data[copied:])), new_ends
