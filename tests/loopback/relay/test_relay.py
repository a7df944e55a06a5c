"""`Relay` with a sink in memory: what it promises, whatever the engine does."""

from __future__ import annotations

import contextlib
import itertools
import logging
import signal
import threading

import pytest
import requests

from eventsource import MessageEvent, ReconnectPolicy, UnexpectedStatus
from eventsource.errors import EventSourceError
from eventsource.relay import Relay, Superseded
from eventsource.relay import relay as module
from eventsource.testing import ScriptedServer, SSEServer
from tests.relay.memory import Engine, LeasedSink, MemorySink, running
from tests.relay.numbered import Growing, event, numbered, texts
from tests.support import HEAD, LIMIT, SECRET, status, stream, wait_until

SHORT = 0.03
"""Seconds of a lease where nothing depends on its length: polls come often."""


def once(text, number=1):
    """The fault of `name: fault` at that call of that name."""
    name, fault = text.split(": ")
    left = [number]

    def fails(called):
        left[0] -= called == name
        return fault if called == name and not left[0] else None

    return fails


def in_log(caplog, text):
    return [record for record in caplog.records if text in record.getMessage()]


@contextlib.contextmanager
def relaying(engine, *scripts, sink=MemorySink, lease=SHORT, **options):
    """Within, a relay stores what a server that does this sends."""
    with ScriptedServer(*scripts) as server:
        relay = Relay(server.url, sink(engine), lease=lease, **options)
        with running(relay):
            yield server, relay


# --- Storing ---


def test_each_event_is_stored_in_order_with_the_place():
    engine = Engine()
    with relaying(engine, numbered(50)) as (_, relay):
        wait_until(lambda: engine.place == "50")
        assert relay.leading
    assert not relay.leading
    assert engine.entries == texts(50)
    assert relay.last_event_id == "50"


def test_a_batch_is_what_one_read_brought():
    engine = Engine()

    def script(connection):
        connection.read_request()
        connection.send(HEAD + event(1) + event(2) + event(3))
        wait_until(lambda: engine.place == "3")
        connection.send(event(4))
        connection.hold()

    with relaying(engine, script):
        wait_until(lambda: engine.place == "4")
    assert engine.batches == [(["1", "2", "3"], "3"), (["4"], "4")]


def test_it_begins_where_the_log_ends():
    engine = Engine()
    engine._history.append((("1", "2"), "2"))
    with relaying(engine, numbered(5)) as (server, _):
        wait_until(lambda: engine.place == "5")
        assert server.requests[0].last_event_id == "2"
    assert engine.entries == texts(5)


def test_nothing_is_read_while_a_batch_is_being_stored():
    engine, asked, may_store = Engine(), threading.Event(), threading.Event()

    class Slow(MemorySink):
        def append(self, events, last_event_id):
            asked.set()
            assert may_store.wait(LIMIT)
            super().append(events, last_event_id)

    read = []

    def script(connection):
        connection.read_request()
        connection.send(HEAD + event(1))
        assert asked.wait(LIMIT)
        connection.send(b"".join(map(event, range(2, 100))))
        connection.hold()

    with relaying(engine, script, sink=Slow, on_bytes=read.append) as (server, relay):
        assert asked.wait(LIMIT)
        server.wait_for_request()
        wait_until(lambda: relay.leading)
        assert b"".join(read).count(b"data") == 1
        may_store.set()
        wait_until(lambda: engine.place == "99")
    assert engine.batches[0] == (["1"], "1")
    assert engine.entries == texts(99)


# --- Ids ---


def then(engine, *steps):
    """A script that sends each step, bytes, when the log has the place of the one before."""

    def script(connection):
        connection.read_request()
        connection.send(HEAD)
        for block, place in steps:
            connection.send(block)
            wait_until(lambda: engine.place == place)  # noqa: B023
        connection.hold()

    return script


def test_an_id_without_an_event_moves_the_place():
    engine = Engine()
    script = then(engine, (event(1), "1"), (b"id: 7\n\n", "7"))
    with relaying(engine, script):
        wait_until(lambda: engine.place == "7")
    assert engine.batches == [(["1"], "1"), ([], "7")]


def test_an_empty_id_resets_the_place_and_is_told(caplog):
    engine = Engine()
    with relaying(engine, stream(event(1), b"id\ndata: x\n\n", then="hold")):
        wait_until(lambda: len(engine.entries) == 2)
    assert engine.place == ""
    assert len(in_log(caplog, "sends no ids")) == 1


def test_a_server_without_ids_is_told_of_at_its_first_event(caplog):
    caplog.set_level(logging.INFO)
    engine = Engine()
    may_send = threading.Event()

    def script(connection):
        connection.read_request()
        connection.send(HEAD + b": hello\n\nretry: 20\n\n")
        assert may_send.wait(LIMIT)
        connection.send(b"data: a\n\n")
        wait_until(lambda: engine.entries == ["a"])
        connection.send(b"data: b\n\n")
        connection.hold()

    with relaying(engine, script) as (server, relay):
        server.wait_for_request()
        wait_until(lambda: relay.leading and in_log(caplog, ": open"))
        assert not in_log(caplog, "ids")
        may_send.set()
        wait_until(lambda: engine.entries == ["a", "b"])
    assert [record.levelname for record in in_log(caplog, "sends no ids")] == ["WARNING"]


def test_a_block_without_an_id_before_the_first_one_says_nothing(caplog):
    engine = Engine()
    with relaying(engine, stream(b"data: 0\n\n" + event(1), then="hold")):
        wait_until(lambda: engine.place == "1")
    assert not in_log(caplog, "ids")


def waits_for_another(url, engine, lease=SHORT, **options):
    """A relay that another one, which renews its lease, has kept waiting."""
    engine.holder = "another"
    return Relay(url, LeasedSink(engine), lease=lease, **options)


def test_a_second_relay_refuses_a_server_without_ids():
    engine = Engine()
    with ScriptedServer(stream(b"data: x\n\n", then="hold")) as server:
        relay = waits_for_another(server.url, engine)
        with pytest.raises(EventSourceError, match="allow_gaps"), running(relay) as (thread,):
            wait_until(lambda: relay._is_second)
            assert not server.requests  # it judges nothing while it waits
            engine.holder = None
            thread.join(LIMIT)
            assert not thread.is_alive()
    assert engine.entries == []
    assert engine.holder is None


def test_a_second_relay_takes_over_with_gaps_if_it_may(caplog):
    engine = Engine()
    with ScriptedServer(stream(b"data: x\n\n", then="hold")) as server:
        relay = waits_for_another(server.url, engine, allow_gaps=True)
        with running(relay):
            wait_until(lambda: relay._is_second)
            engine.holder = None
            wait_until(lambda: engine.entries == ["x"])
    assert in_log(caplog, "sends no ids")


def test_a_relay_that_waited_for_a_lease_to_run_out_is_no_second_one():
    engine = Engine()
    with ScriptedServer(stream(b"data: x\n\n", then="hold")) as server:
        relay = waits_for_another(server.url, engine, lease=3 * LIMIT)
        with running(relay):
            wait_until(lambda: "lease" in engine.calls)
            engine.holder = None
            relay._wakeup.set()  # the next poll
            wait_until(lambda: engine.entries == ["x"])


def test_several_events_under_one_id_are_stored_and_told_of_once(caplog):
    engine = Engine()
    twice = [event(n) + b"data: again\n\n" for n in (1, 2)]
    with relaying(engine, then(engine, (twice[0], "1"), (twice[1], "2"))):
        wait_until(lambda: engine.place == "2")
    assert engine.entries == ["1", "again", "2", "again"]
    assert len(in_log(caplog, "several events have one id")) == 1


def test_an_id_that_no_request_can_carry_ends_it_before_it_is_stored():
    engine = Engine()
    with ScriptedServer(stream(b"id: \x01\ndata: x\n\n", then="hold")) as server:
        with pytest.raises(EventSourceError, match="cannot be sent in a request"):
            Relay(server.url, MemorySink(engine)).run()
    assert engine.entries == []


@pytest.mark.parametrize(
    ("place", "kind"), [(None, TypeError), ("a\n", ValueError), ("\x01", EventSourceError)]
)
def test_a_place_that_is_none_ends_it(place, kind):
    class Odd(MemorySink):
        def claim(self):
            return place

    with pytest.raises(kind):
        Relay("http://127.0.0.1:9/", Odd(Engine())).run()


# --- The engine fails ---


@pytest.mark.long
@pytest.mark.parametrize(
    "fault",
    [
        *("claim: request", "claim: reply", "claim: again", "append: request", "append: reply"),
        *("append: again", "append: back", "append: stolen", "lease: request", "lease: reply"),
    ],
)
def test_after_any_failure_of_the_engine_each_event_is_there_once(fault):
    engine = Engine(once(fault, 4 if "append" in fault else 1))  # 4: "back" leaves a place
    with relaying(engine, numbered(100, cut_after=9), sink=LeasedSink):
        wait_until(lambda: engine.place == "100")
    assert engine.entries == texts(100)


def repeated(fault, every):
    """That fault with one in `every` appends."""
    counts = {"append": 0}

    def fails(name):
        counts["append"] += name == "append"
        return fault if name == "append" and counts["append"] % every == 0 else None

    return fails


@pytest.mark.parametrize("fault", ["again", "back"])
def test_without_comparing_the_place_they_would_not(fault):
    """The control: this engine, and these faults, do break a relay that does not compare."""
    engine = Engine(repeated(fault, 5), has_place=False)
    with relaying(engine, numbered(100, at_once=3, cut_after=9)):
        wait_until(lambda: engine.place == "100")
    assert engine.entries != texts(100)


def zombie(**controls):
    """What the log has when a relay stores a batch that it read before another one led."""
    engine = Engine(**controls)
    stops, goes_on = threading.Event(), threading.Event()

    class Stopped(LeasedSink):
        def append(self, events, last_event_id):
            if not goes_on.is_set():
                stops.set()
                assert goes_on.wait(LIMIT)
            super().append(events, last_event_id)

    with ScriptedServer(numbered(20)) as server:
        old = Relay(server.url, Stopped(engine), lease=SHORT)
        new = Relay(server.url, LeasedSink(engine), lease=SHORT)
        with running(old):
            assert stops.wait(LIMIT)
            engine.holder = None  # the lease has run out
            with running(new):
                wait_until(lambda: engine.place == "20")
                before = engine.entries
                goes_on.set()
                wait_until(lambda: not old.leading)
                return before, engine.entries


def test_a_superseded_relay_stores_nothing_more():
    before, after = zombie()
    assert before == after == texts(20)


def test_without_the_fence_a_superseded_relay_would():
    before, after = zombie(has_fence=False, has_place=False)
    assert before == texts(20) != after


def test_one_that_fails_is_asked_again_until_it_works_and_told_of_once(caplog):
    caplog.set_level(logging.INFO)
    left = [2]

    def fails(name):
        if name == "append" and left[0]:
            left[0] -= 1
            return "request"
        return None

    engine = Engine(fails)
    with relaying(engine, numbered(5), lease=3 * LIMIT):
        wait_until(lambda: engine.place == "5")
        wait_until(lambda: in_log(caplog, "outage of the log is over"))
    assert engine.entries == texts(5)
    assert [record.levelname for record in in_log(caplog, "the log cannot")] == ["WARNING"]
    assert len(in_log(caplog, "leading")) == 2  # at first, and after the outage
    assert "Lost" in in_log(caplog, "the log cannot")[0].getMessage()


def test_an_outage_lasts_until_something_is_stored_if_that_is_what_failed(caplog):
    """As with an engine that is full, and events that come more rarely than polls."""
    caplog.set_level(logging.INFO)
    is_full, again = threading.Event(), threading.Event()
    is_full.set()

    def script(connection):
        place = int(connection.read_request().last_event_id or 0)
        connection.send(HEAD + b"\n")
        if len(connection.server.requests) > 1:
            again.wait(LIMIT)
        connection.send(event(place + 1))
        connection.hold()

    engine = Engine(lambda name: "request" if name == "append" and is_full.is_set() else None)
    with relaying(engine, script, sink=LeasedSink) as (server, _):
        wait_until(lambda: len(server.requests) == 2)
        polls = len(engine.calls) + 5
        wait_until(lambda: len(engine.calls) > polls)
        assert not in_log(caplog, "is over")
        is_full.clear()
        again.set()
        wait_until(lambda: engine.place == "1")
        wait_until(lambda: in_log(caplog, "outage of the log is over"))
    assert len(in_log(caplog, "the log cannot")) == 1


def test_an_outage_of_claims_is_over_at_a_poll_also_after_one_of_storing(caplog):
    caplog.set_level(logging.INFO)
    faults = ["append"]

    def fails(name):
        if name in faults:
            faults.remove(name)
            return "request"
        return None

    engine = Engine(fails)
    with relaying(engine, numbered(1), sink=LeasedSink):
        wait_until(lambda: len(in_log(caplog, "is over")) == 1)
        faults.append("lease")
        wait_until(lambda: len(in_log(caplog, "is over")) == 2)
    assert engine.entries == ["1"]  # there was nothing more to store


def test_who_was_superseded_and_leads_again_says_at_a_poll_that_it_is_over(caplog):
    caplog.set_level(logging.INFO)

    def fails(name):
        if name == "append" and not engine.entries:  # another one stores the same event first
            engine.claim("another")
            engine.append("another", "", [MessageEvent("message", "1", "1")], "1")

    engine = Engine(fails)
    with relaying(engine, numbered(1), sink=LeasedSink):
        wait_until(lambda: in_log(caplog, "superseded"))
        wait_until(lambda: in_log(caplog, "is over"))
    assert engine.entries == ["1"]


def test_what_a_sink_raises_is_told_by_its_kind_alone(caplog):
    caplog.set_level(logging.INFO)

    class Leaky(MemorySink):
        def claim(self):
            raise ValueError(SECRET)

    with running(Relay("http://127.0.0.1:9/", Leaky(Engine()))):
        wait_until(lambda: in_log(caplog, "ValueError"))
    assert SECRET not in caplog.text


def test_events_without_ids_that_a_failure_may_have_lost_are_counted(caplog):
    engine = Engine(once("append: request"))
    with relaying(engine, stream(b"data: a\n\ndata: b\n\n", then="hold")):
        wait_until(lambda: engine.entries)
    assert len(in_log(caplog, "2 events without ids may be missing")) == 1


def test_relays_without_a_lease_do_not_claim_from_each_other_all_the_time():
    engine = Engine(once("append: stolen"))
    with relaying(engine, numbered(5), lease=3 * LIMIT) as (_, relay):
        wait_until(lambda: "append" in engine.calls and not relay.leading)
        assert engine.calls == ["claim", "append"]
    assert engine.entries == []


def test_a_superseded_relay_that_then_cannot_claim_tells_both(caplog):
    faults = {"append": "stolen", "claim": None}

    def fails(name):
        fault = faults.pop(name, None)
        if name == "append" and fault:
            faults["claim"] = "request"
        return fault

    engine = Engine(fails)
    with (
        ScriptedServer(numbered(1)) as server,
        running(Relay(server.url, LeasedSink(engine), lease=SHORT)),
    ):
        wait_until(lambda: engine.place == "1")
    assert len(in_log(caplog, "superseded; claiming it again")) == 1
    assert len(in_log(caplog, "the log cannot be written; claiming it again")) == 1


# --- The log loses its place ---


def lose_all(engine):
    """As a server that is started again without persistence."""
    with engine.lock:
        lost, engine._history = engine._history, [((), "")]
        engine._owner = engine.holder = None
    return lost


def test_a_log_that_has_lost_its_place_gets_nothing_until_it_is_back(caplog):
    engine, source = Engine(), Growing()
    with (
        ScriptedServer(source) as server,
        running(relay := Relay(server.url, LeasedSink(engine), lease=SHORT)),
    ):
        source.grow(10)
        wait_until(lambda: engine.place == "10")
        lost = lose_all(engine)
        source.grow(20)
        wait_until(lambda: in_log(caplog, "the log has lost its place; storing nothing"))
        claims = engine.calls.count("claim")
        wait_until(lambda: engine.calls.count("claim") > claims + 3)
        assert engine.entries == []
        assert not relay.leading
        assert relay.last_event_id == "10"
        with engine.lock:
            engine._history = lost
        wait_until(lambda: engine.place == "20")
        assert [request.last_event_id for request in server.requests] == ["", "10"]
    assert engine.entries == texts(20)
    assert [record.levelname for record in in_log(caplog, "lost its place")] == ["WARNING"]


def test_the_lost_place_is_told_although_an_outage_was_before(caplog):
    """The usual case: a server is away, and is back without what it had."""
    caplog.set_level(logging.INFO)
    is_down = threading.Event()
    engine = Engine(lambda name: "request" if is_down.is_set() else None)
    with (
        ScriptedServer(numbered(5)) as server,
        running(Relay(server.url, LeasedSink(engine), lease=SHORT)),
    ):
        wait_until(lambda: engine.place == "5")
        is_down.set()
        wait_until(lambda: in_log(caplog, "the log cannot be written"))
        lose_all(engine)
        is_down.clear()
        wait_until(lambda: in_log(caplog, "the log has lost its place"))
    assert not in_log(caplog, "is over")


def test_with_gaps_allowed_a_log_that_has_lost_its_place_is_begun_anew(caplog):
    engine, source = Engine(), Growing()
    with (
        ScriptedServer(source) as server,
        running(Relay(server.url, LeasedSink(engine), lease=SHORT, allow_gaps=True)),
    ):
        source.grow(10)
        wait_until(lambda: engine.place == "10")
        lose_all(engine)
        source.grow(20)
        wait_until(lambda: engine.place == "20")
    found = in_log(caplog, "the log has lost its place: events may be missing")
    assert [record.levelname for record in found] == ["WARNING"]


def test_an_empty_id_whose_reply_is_lost_is_no_lost_place(caplog):
    engine = Engine(once("append: reply", 2))
    script = then(engine, (event(1), "1"), (b"id\ndata: x\n\n", ""))
    with (
        ScriptedServer(script, stream(then="hold")) as server,
        running(Relay(server.url, LeasedSink(engine), lease=SHORT)),
    ):
        server.wait_for_request(2)
    assert engine.entries == ["1", "x"]
    assert not in_log(caplog, "lost its place")


def test_one_that_has_waited_warns_once_of_a_log_without_a_place(caplog):
    engine = Engine()
    with ScriptedServer(stream(then="hold")) as server:
        with running(relay := waits_for_another(server.url, engine)):
            wait_until(lambda: relay._is_second)
            engine.holder = None
            for times in (1, 2):
                wait_until(lambda: engine.calls.count("claim") == times)  # noqa: B023
                wait_until(lambda: relay.leading)
                engine.holder = "another"
                wait_until(lambda: not relay.leading)
                engine.holder = None
    found = in_log(caplog, "another relay led, but the log has no place")
    assert [record.levelname for record in found] == ["WARNING"]


def test_one_that_has_waited_and_finds_a_place_warns_of_nothing(caplog):
    engine = Engine()
    engine._history.append((("1",), "1"))
    with ScriptedServer(numbered(2)) as server:
        with running(relay := waits_for_another(server.url, engine)):
            wait_until(lambda: relay._is_second)
            engine.holder = None
            wait_until(lambda: engine.place == "2")
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


# --- The lease ---


def test_each_outage_of_the_engine_is_told_by_one_that_stands_by(caplog):
    caplog.set_level(logging.INFO)
    is_down = threading.Event()
    engine = Engine(lambda name: "request" if is_down.is_set() else None)
    with ScriptedServer(numbered(1)) as server:
        relay = waits_for_another(server.url, engine)
        with running(relay):
            wait_until(lambda: in_log(caplog, "another relay leads"))
            for times in (1, 2, 3):
                is_down.set()
                begun = "the lease cannot be asked for; asking again: Lost"
                wait_until(lambda: len(in_log(caplog, begun)) == times)  # noqa: B023
                is_down.clear()
                over = "another relay leads; the outage of the log is over"
                wait_until(lambda: len(in_log(caplog, over)) == times)  # noqa: B023
            engine.holder = None
            wait_until(lambda: engine.place == "1")
    assert [record.levelname for record in in_log(caplog, "asking again")] == 3 * ["WARNING"]
    assert not in_log(caplog, "claiming")
    assert not in_log(caplog, ": leading; the outage")


def test_an_outage_is_over_for_one_that_lost_the_lease_meanwhile(caplog):
    """It could not store; that is the other's concern now, and told anew when it leads again."""
    caplog.set_level(logging.INFO)
    engine = Engine(lambda name: "request" if name == "append" else None)
    with (
        ScriptedServer(numbered(1)) as server,
        running(Relay(server.url, LeasedSink(engine), lease=SHORT)),
    ):
        for times in (1, 2):
            begun = "the log cannot be written"
            wait_until(lambda: len(in_log(caplog, begun)) == times)  # noqa: B023
            engine.holder = "another"
            over = "another relay leads; the outage of the log is over"
            wait_until(lambda: len(in_log(caplog, over)) == times)  # noqa: B023
            engine.holder = None


def test_what_could_not_be_stored_before_another_led_prolongs_no_later_outage(caplog):
    """That one is over at a poll, also if no event comes."""
    caplog.set_level(logging.INFO)
    faults = {"append": "request"}
    engine = Engine(lambda name: faults.get(name))
    with (
        ScriptedServer(numbered(1), stream(b"", then="hold")) as server,
        running(Relay(server.url, LeasedSink(engine), lease=SHORT)),
    ):
        wait_until(lambda: in_log(caplog, "the log cannot be written"))
        engine.holder = "another"
        wait_until(lambda: in_log(caplog, "another relay leads; the outage of the log is over"))
        faults.clear()
        faults["claim"] = "request"
        engine.holder = None
        wait_until(lambda: len(in_log(caplog, "the log cannot be written")) == 2)
        assert not in_log(caplog, ": leading; the outage of the log is over")
        faults.clear()
        wait_until(lambda: in_log(caplog, ": leading; the outage of the log is over"))


class Clock:
    """A given clock: it moves when the relay waits, and stands still otherwise."""

    def __init__(self):
        self.now = 1000.0
        self.relay = None

    def monotonic(self):
        return self.now

    def wait(self, seconds):  # as of `Wakeup`
        assert seconds > 0
        self.now += seconds

    set = close = lambda self: None

    def take(self, seconds):  # as of a stream on which nothing comes
        self.now += seconds
        raise TimeoutError

    last_event_id = ""


@pytest.mark.parametrize("state", ["leader", "standby", "outage"])
def test_the_lease_is_asked_for_after_each_third_of_its_duration(monkeypatch, state):
    """So another one takes over within four thirds, and two polls of a leader may fail."""
    clock, times = Clock(), []

    class Noting:
        def claim(self):
            return ""

        def lease(self, seconds):
            assert seconds == 9.0
            times.append(clock.now)
            if len(times) == 20:
                relay.close()
            if state == "outage":
                raise ConnectionError
            return state == "leader"

        def append(self, events, last_event_id):
            raise AssertionError

    monkeypatch.setattr(module, "time", clock)
    relay = Relay("http://127.0.0.1:9/", Noting(), lease=9.0)
    monkeypatch.setattr(relay, "_wakeup", clock)
    monkeypatch.setattr(relay, "_new_stream", lambda place: clock)
    relay.run()
    gaps = [after - before for before, after in itertools.pairwise(times)]
    assert max(gaps) == pytest.approx(3.0)
    if state != "outage":  # whose waits begin short
        assert min(gaps) == pytest.approx(3.0)


def test_one_without_the_lease_does_not_connect_and_takes_over():
    engine = Engine()
    with ScriptedServer(numbered(10)) as server:
        relay = waits_for_another(server.url, engine)
        with running(relay):
            wait_until(lambda: engine.calls.count("lease") > 2)
            assert not server.connections
            assert not relay.leading
            engine.holder = None
            wait_until(lambda: engine.place == "10")


@pytest.mark.parametrize("own", [True, False])
def test_one_that_loses_the_lease_keeps_no_connection(own):
    engine = Engine()
    with requests.Session() as session:
        options = {} if own else {"session": session}
        with relaying(engine, numbered(10), sink=LeasedSink, **options) as (server, relay):
            wait_until(lambda: engine.place == "10")
            engine.holder = "another"
            assert server.wait_for_connection().over.wait(LIMIT)
            wait_until(lambda: not relay.leading)
            engine.holder = None
            server.wait_for_request(2)
            assert server.requests[1].last_event_id == "10"
    assert engine.entries == texts(10)


def test_the_lease_is_given_up_at_the_end():
    engine = Engine()
    sink = LeasedSink(engine)
    with ScriptedServer(numbered(1)) as server:
        with running(Relay(server.url, sink, lease=3 * LIMIT)):
            wait_until(lambda: engine.place == "1")
            assert engine.holder is sink
    assert engine.holder is None
    assert sink.is_closed


# --- The stream ends ---


def test_lost_connections_are_made_anew_from_the_place_of_the_log():
    engine = Engine()
    with relaying(engine, numbered(50, cut_after=7)):
        wait_until(lambda: engine.place == "50")
    assert engine.entries == texts(50)


def test_what_closes_the_stream_for_good_is_raised():
    sink = MemorySink(Engine())
    with ScriptedServer(status("404 Not Found")) as server:
        with pytest.raises(UnexpectedStatus):
            Relay(server.url, sink).run()
    assert sink.is_closed


@pytest.mark.parametrize(
    ("script", "options"),
    [(status("204 No Content"), {}), (stream(event(1)), {"reconnect": None})],
)
def test_a_server_that_ends_the_stream_ends_the_relay(script, options):
    sink = MemorySink(Engine())
    with ScriptedServer(script) as server:
        Relay(server.url, sink, **options).run()
    assert sink.is_closed


def test_an_outage_of_the_stream_is_told_of_once(caplog):
    caplog.set_level(logging.INFO)
    engine = Engine()
    busy = status("503 Busy")
    policy = ReconnectPolicy(delay=0.01, max_delay=0.01, jitter=0, statuses=frozenset({503}))
    with relaying(engine, busy, busy, busy, numbered(1), lease=3 * LIMIT, reconnect=policy):
        wait_until(lambda: engine.place == "1")
    assert [record.levelname for record in in_log(caplog, "answered 503")] == [
        "WARNING",
        "INFO",
        "INFO",
    ]
    assert len(in_log(caplog, "open again")) == 1


# --- Closing ---


def test_close_from_any_thread_ends_it_while_it_waits_for_events():
    engine = Engine()
    with ScriptedServer(numbered(1)) as server:
        relay = Relay(server.url, MemorySink(engine), lease=3 * LIMIT)
        with running(relay) as (thread,):
            wait_until(lambda: engine.place == "1")
            relay.close()
            relay.close()
            thread.join(LIMIT)
            assert not thread.is_alive()


def test_close_ends_the_wait_for_the_lease():
    engine = Engine()
    relay = waits_for_another("http://127.0.0.1:9/", engine, lease=3 * LIMIT)
    with running(relay) as (thread,):
        wait_until(lambda: engine.calls)
        relay.close()
        thread.join(LIMIT)
        assert not thread.is_alive()


def test_one_that_was_closed_before_does_nothing():
    engine = Engine()
    relay = Relay("http://127.0.0.1:9/", sink := MemorySink(engine))
    relay.close()
    relay.run()
    assert engine.calls == []
    assert sink.is_closed


def test_one_that_is_closed_while_it_claims_does_not_connect():
    relays = []

    class Closing(MemorySink):
        def claim(self):
            relays[0].close()
            return super().claim()

    with ScriptedServer(numbered(1)) as server:
        relays.append(Relay(server.url, Closing(Engine())))
        relays[0].run()
        assert not server.connections


def test_a_batch_that_is_being_stored_when_it_is_closed_is_stored():
    engine = Engine()
    relays = []

    class Closing(MemorySink):
        def append(self, events, last_event_id):
            relays[0].close()
            super().append(events, last_event_id)

    with ScriptedServer(stream(event(1), then="hold")) as server:
        relays.append(Relay(server.url, Closing(engine)))
        relays[0].run()
    assert engine.entries == ["1"]
    assert relays[0].last_event_id == "1"


@pytest.mark.parametrize("during", ["lease", "claim", "append"])
def test_after_the_call_under_way_a_closed_relay_makes_no_other(during):
    """So its end waits for one reply of a slow engine, not for several."""
    engine = Engine()
    relays = []

    class Closing(LeasedSink):
        def lease(self, seconds):
            if during == "lease":
                relays[0].close()
            return super().lease(seconds)

        def claim(self):
            if during == "claim":
                relays[0].close()
            return super().claim()

        def append(self, events, last_event_id):
            relays[0].close()
            super().append(events, last_event_id)

    with ScriptedServer(stream(event(1), then="hold")) as server:
        # After each read a poll is due.
        relays.append(Relay(server.url, Closing(engine), lease=1e-9))
        relays[0].run()
    assert engine.calls[-1] == during
    assert engine.calls.count(during) == 1 or during == "lease"


def test_a_signal_handler_may_close_it():
    engine = Engine()
    with ScriptedServer(numbered(1)) as server:
        relay = Relay(server.url, MemorySink(engine), lease=SHORT)

        def kill():
            wait_until(lambda: engine.place == "1")
            signal.pthread_kill(threading.main_thread().ident, signal.SIGUSR1)

        before = signal.signal(signal.SIGUSR1, lambda *_: relay.close())
        thread = threading.Thread(target=kill)
        thread.start()
        try:
            relay.run()
        finally:
            thread.join()
            signal.signal(signal.SIGUSR1, before)


def test_it_runs_once():
    relay = Relay("http://127.0.0.1:9/", MemorySink(Engine()))
    relay.close()
    relay.run()
    with pytest.raises(RuntimeError, match="before"):
        relay.run()


# --- Arguments ---


class Half:
    def claim(self):
        return ""


@pytest.mark.parametrize(
    ("options", "kind", "name"),
    [
        ({"sink": Half()}, TypeError, "sink"),
        ({"sink": None}, TypeError, "sink"),
        ({"url": "nowhere"}, ValueError, "url"),
        ({"lease": 0}, ValueError, "lease"),
        ({"lease": "1"}, TypeError, "lease"),
        ({"allow_gaps": 1}, TypeError, "allow_gaps"),
        ({"last_event_id": "1"}, TypeError, "last_"),
        ({"heders": {}}, TypeError, "headers"),
    ],
)
def test_what_cannot_be_used_is_refused_by_name(options, kind, name):
    usable = {"url": "http://127.0.0.1/", "sink": MemorySink(Engine())}
    with pytest.raises(kind, match=name):
        Relay(**{**usable, **options})


def test_its_repr_tells_the_state_and_no_secret():
    relay = Relay(f"http://u:{SECRET}@127.0.0.1/x?key={SECRET}", MemorySink(Engine()))
    assert repr(relay) == "<Relay http://127.0.0.1/x not leading>"
    relay.close()
    assert repr(relay) == "<Relay http://127.0.0.1/x closed>"


def test_options_are_those_of_event_stream():
    engine = Engine()
    script = stream(event(1), then="hold")
    with relaying(engine, script, headers={"X-Key": "k"}) as (server, _):
        wait_until(lambda: engine.place == "1")
        assert server.requests[0].header("X-Key") == "k"


def test_superseded_is_one_of_the_packages_own():
    assert issubclass(Superseded, EventSourceError)


def test_the_test_kits_server_can_be_relayed():
    """`SSEServer`, as users have it, replays what follows the place."""
    engine = Engine(once("append: reply"))
    with SSEServer() as server, running(Relay(server.url, MemorySink(engine), lease=SHORT)):
        server.wait_for_connection()
        for number in range(1, 21):
            server.send(str(number), id=str(number))
        wait_until(lambda: engine.place == "20")
    assert engine.entries == texts(20)
