"""What a relay needs of the engine that keeps the log: the protocol `Sink`.

The invariant that every sink keeps: the events and the place in the stream change together or
not at all, only for the owner that claimed last, and only if the stored place is the one it knows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from eventsource.errors import EventSourceError
from eventsource.protocol.events import MessageEvent


class Superseded(EventSourceError):
    """Another relay has claimed the log, or its place is not the one that the owner knows.

    A sink's `append()` raises it, and has stored nothing. The place differs if an earlier call
    took effect although its reply was lost, or if the engine has lost acknowledged writes.
    """


class PlaceLost(EventSourceError):
    """The log had a place, and has none now: the next request would leave a gap.

    A sink's `claim()` raises it if the log shows that. `Relay` raises it for any sink whose place
    it knew.
    """


class Sink(Protocol):
    """A log in an engine: what `Relay` stores events in.

    A sink of your own is a class with these two methods; it need not derive from this one.

    Two more methods are used if they are there:

    - `lease(seconds: float) -> bool` takes the leader's lease for this time, or renews it, and
      returns whether this sink has it. It saves connections to the stream; correctness depends
      on `append()` alone. A log whose sink has none is for one relay at a time.
    - `close() -> None` gives up the lease and the connection. The relay calls it once, at its
      end.

    An attribute `shortest_lease`, if there is one, is the least number of seconds that `lease()`
    accepts; a relay refuses a shorter one at once.

    Any other exception than `Superseded` counts as a failure of the engine: after a wait, the
    relay claims the log again. No call may wait for ever, since `Relay.run()` ends only after
    the one that is under way; after `Relay.close()`, only `close()` follows it.

    Threads: the relay makes all calls in the thread of `run()`.
    """

    def claim(self) -> str:
        """Become the owner of the log and return its place, in one atomic step.

        Each call makes a new random token, which identifies the owner. What an owner with
        another token appends after that is refused.

        Returns:
            The last event ID of the stream that is stored with the events; `""`: none is.
        """
        ...

    def append(self, events: Sequence[MessageEvent], last_event_id: str) -> None:
        """Store events and the place after them, all or nothing.

        The place before is that of the last successful `claim()` or `append()`. The sink must
        compare it in the same step. Then no event is stored twice or missing, even if a call
        is executed twice or the engine has lost writes.

        Args:
            events: in order; none if an ID without an event has changed the place.
            last_event_id: the place after them.

        Raises:
            Superseded: the stored owner or place is another. Nothing has been stored.
        """
        ...
