"""An engine in memory that can be made to fail at every step, and a sink for it."""

from __future__ import annotations

import contextlib
import secrets
import threading

from eventsource.relay import Superseded


class Lost(Exception):
    """A request or a reply has not come."""


class Engine:
    """A log that several sinks write to. `fails` says what goes wrong with each call.

    Args:
        fails: called with the name of each call before it is done; returns None, or
            "request" (it is not done), "reply" (it is done, and the reply is lost), "again" (it
            is done twice, as by a client that retries), "back" (the engine loses its last two
            writes first), "stolen" (another owner claims the log first).
        has_fence: compares the owner.
        has_place: compares the place.
    """

    def __init__(self, fails=lambda name: None, *, has_fence=True, has_place=True):
        self.fails = fails
        self.has_fence = has_fence
        self.has_place = has_place
        self.calls = []
        self.holder = None
        self.lock = threading.Lock()
        self._history = [((), "")]  # entries and place after each write
        self._owner = None

    @property
    def entries(self):
        return list(self._history[-1][0])

    @property
    def place(self):
        return self._history[-1][1]

    @property
    def batches(self):
        """What each write that has moved the place or added something had."""
        with self.lock:
            pairs = zip(self._history, self._history[1:], strict=False)
            return [(list(after[0][len(before[0]) :]), after[1]) for before, after in pairs]

    def call(self, name, do):
        with self.lock:
            self.calls.append(name)
            fault = self.fails(name)
            if fault == "request":
                raise Lost
            if fault == "back":
                self._history = self._history[: max(1, len(self._history) - 2)]
            if fault == "stolen":
                self._owner = "another"
            result = do()
            if fault == "again":
                result = do()
            if fault == "reply":
                raise Lost
            return result

    def claim(self, owner):
        self._owner = owner
        return self.place

    def append(self, owner, before, events, place):
        if self.has_fence and owner != self._owner:
            raise Superseded("another relay has claimed the log")
        entries, now = self._history[-1]
        if self.has_place and now != before:
            raise Superseded("the place is another")
        self._history.append((entries + tuple(event.data for event in events), place))


class MemorySink:
    """A sink without a lease."""

    def __init__(self, engine):
        self.engine = engine
        self.is_closed = False
        self.owner = None
        self.place = ""

    def claim(self):
        self.owner = owner = secrets.token_hex(8)
        self.place = self.engine.call("claim", lambda: self.engine.claim(owner))
        return self.place

    def append(self, events, last_event_id):
        def do():
            return self.engine.append(self.owner, self.place, events, last_event_id)

        self.engine.call("append", do)
        self.place = last_event_id

    def close(self):
        self.is_closed = True


class LeasedSink(MemorySink):
    """One with a lease that lasts until `engine.holder` is set to another."""

    def lease(self, seconds):
        def do():
            if self.engine.holder in (None, self):
                self.engine.holder = self
            return self.engine.holder is self

        return self.engine.call("lease", do)

    def close(self):
        super().close()
        if self.engine.holder is self:
            self.engine.holder = None


@contextlib.contextmanager
def running(*relays, limit=30.0):
    """Within, each runs in a thread of its own. What `run()` has raised is raised at the end."""
    errors = []

    def run(relay):
        try:
            relay.run()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(relay,), daemon=True) for relay in relays]
    for thread in threads:
        thread.start()
    try:
        yield threads
    finally:
        for relay in relays:
            relay.close()
        for thread in threads:
            thread.join(limit)
            assert not thread.is_alive()
    if errors:
        raise errors[0]
