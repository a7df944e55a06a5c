"""What a relay needs of the engine that keeps the log: the protocol `Sink`.

The invariant that every sink keeps: the events and the place in the stream change together or
not at all, and only for the owner that claimed last, and only from the place that it believes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from eventsource.errors import EventSourceError
from eventsource.protocol.events import MessageEvent


class Superseded(EventSourceError):
    """Another relay has claimed the log, or its place is not the one that was believed.

    A sink's `append()` raises it, and has stored nothing. The place differs if an earlier call
    was done although its reply was lost, or if the engine has lost acknowledged writes.
    """


class Sink(Protocol):
    """A log in an engine: what `Relay` stores events in.

    A sink of your own is a class with these two methods; it need not derive from this one.

    Two more methods are used if they are there:

    - `lease(seconds: float) -> bool` takes the leader's lease for so long, or renews it, and
      returns whether this sink has it. It saves connections to the stream; correctness depends
      on `append()` alone. A log whose sink has none is for one relay at a time.
    - `close() -> None` gives the lease and the connection up. The relay calls it once, at its
      end.

    What a method raises, but for `Superseded`, counts as a failure of the engine: the relay
    claims anew after a wait. No call may wait for ever, since `Relay.close()` waits for the one
    that is under way.

    Threads: the relay makes all calls in the thread of `run()`.
    """

    def claim(self) -> str:
        """Become the owner of the log, and return its place; in one atomic step.

        The owner is a new random token with each call. What another owner, or this one under an
        earlier token, appends after that is refused.

        Returns:
            The last event ID of the stream that is stored with the events; `""`: none is.
        """
        ...

    def append(self, events: Sequence[MessageEvent], last_event_id: str) -> None:
        """Store events and the place after them, all or nothing.

        The place before is that of the last successful `claim()` or `append()`. It must be
        compared in the same step, so that neither a call that is done twice nor an engine that
        went back in time makes events come twice or be missing.

        Args:
            events: in order; none if an ID without an event has moved the place.
            last_event_id: the place after them.

        Raises:
            Superseded: the owner or the place before is another. Nothing has been stored.
        """
        ...
