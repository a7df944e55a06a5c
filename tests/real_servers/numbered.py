"""What the three servers have in common: the numbered events and the books they keep.

The numbers are the server's history: whoever asks with the id of number n as
`Last-Event-ID` is sent n + 1 and what follows. So a client that resumes correctly sees
every number exactly once, whatever happens to the connection or to the server.

How an event is written is left to each server; `in_bytes` is for those that come
without a library for it.
"""

from __future__ import annotations

import collections
import dataclasses
import os
import threading
import zlib
from collections.abc import Mapping

RETRY = 40
"""Milliseconds, in the `retry` field that each stream begins with."""
HEARTBEAT = "heartbeat"
"""The comment that keeps a silent stream alive."""
TORN = "torn"
"""The comment after which a stream breaks off in the middle of an event."""
REFUSED_FOR = 1
"""Seconds, in the `Retry-After` of a 503."""
TOKENS = ("Ein", " größerer", "\n", "Zug", " 🚂", " kommt")
"""What the model answers, before `[DONE]`."""


def event_id(number: int) -> str:
    """Not ASCII: `Last-Event-ID` brings it back as UTF-8."""
    return f"№{number}"


def event_type(number: int) -> str:
    return "message" if number % 3 else "tick"


def event_data(number: int) -> str:
    """Every second has two lines."""
    return f"number {number} größer 🚀" + ("\nsecond line" if number % 2 == 0 else "")


def in_bytes(number: int) -> bytes:
    lines = [f"id: {event_id(number)}"]
    if event_type(number) != "message":
        lines.append(f"event: {event_type(number)}")
    lines += [f"data: {line}" for line in event_data(number).split("\n")]
    return "\n".join([*lines, "", ""]).encode()


def torn(number: int) -> bytes:
    """The beginning of an event: all but its end. The comment in it can be waited for."""
    return in_bytes(number).removesuffix(b"\n") + f": {TORN}\n".encode()


@dataclasses.dataclass(frozen=True)
class Order:
    """What a request for numbers asks for, in its query and its `Last-Event-ID`."""

    name: str  # the books are kept by name: each test has its own
    first: int
    count: int  # numbers on this connection
    pace: float  # seconds between two of them
    then: str  # "hold" the stream open, "end" it, or "tear" the next event and hold
    heartbeat: float  # seconds between two comments while the stream is held; 0: silence
    refusals: int  # 503s before the numbers, of `/busy`

    @classmethod
    def read(cls, query: Mapping[str, str], last_event_id: str) -> Order:
        return cls(
            name=query.get("name", ""),
            first=int(last_event_id.removeprefix("№") or 0) + 1,
            count=int(query.get("count", 3)),
            pace=float(query.get("pace", 0)),
            then=query.get("then", "hold"),
            heartbeat=float(query.get("heartbeat", 0)),
            refusals=int(query.get("refusals", 1_000_000)),
        )

    @property
    def numbers(self) -> range:
        return range(self.first, self.first + self.count)


class Books:
    """How many streams are live, and how often each path was asked for, by name."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._live: collections.Counter[str] = collections.Counter()
        self._requests: collections.Counter[tuple[str, str]] = collections.Counter()

    def asked(self, path: str, name: str) -> None:
        with self._lock:
            self._requests[path, name] += 1

    def times(self, path: str, name: str) -> int:
        with self._lock:
            return self._requests[path, name]

    def begun(self, name: str) -> None:
        with self._lock:
            self._live[name] += 1

    def ended(self, name: str) -> None:
        with self._lock:
            self._live[name] -= 1

    def report(self, name: str) -> dict[str, object]:
        with self._lock:
            requests = {path: n for (path, who), n in self._requests.items() if who == name}
            return {"pid": os.getpid(), "live": self._live[name], "requests": requests}


class Gzip:
    """Compresses a stream so that each part can be read as soon as it has arrived."""

    def __init__(self) -> None:
        self._compressor = zlib.compressobj(wbits=31)

    def part(self, data: bytes) -> bytes:
        return self._compressor.compress(data) + self._compressor.flush(zlib.Z_SYNC_FLUSH)

    def end(self) -> bytes:
        return self._compressor.flush()
