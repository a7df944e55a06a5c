"""Whatever the engine and a second relay do, each event is in the log once and in order."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventsource.relay import Relay
from eventsource.testing import ScriptedServer
from tests.properties import examples
from tests.relay.memory import Engine, LeasedSink, running
from tests.relay.numbered import numbered, texts
from tests.support import QUICK, wait_until

COUNT = 60

FAULTS = st.sampled_from([None, None, None, "request", "reply", "again", "back", "stolen", "lease"])


@pytest.mark.long
@examples(25)
@given(
    faults=st.lists(FAULTS, max_size=40),
    cut_after=st.integers(3, 30),
    at_once=st.integers(1, 12),
)
def test_nothing_is_lost_twice_or_out_of_order(faults, cut_after, at_once):
    """Two relays, random failures of each call, and a lease that changes hands at any moment."""
    left = list(faults)

    def fails(name):
        fault = left.pop() if left else None
        if fault == "lease":  # which the other may take now, while this one believes that it leads
            engine.holder = None
            return None
        # An engine that went back in time is noticed when it is written to.
        return None if name == "lease" and fault == "back" else fault

    def is_done():
        with engine.lock:
            return not left and engine.place == str(COUNT)

    engine = Engine(fails)
    with ScriptedServer(numbered(COUNT, cut_after=cut_after, at_once=at_once)) as server:
        relays = [
            # The engine may lose all it has, and this server then sends all again.
            Relay(server.url, LeasedSink(engine), lease=0.01, allow_gaps=True, reconnect=QUICK)
            for _ in range(2)
        ]
        with running(*relays):
            wait_until(is_done)
    assert engine.entries == texts(COUNT)
