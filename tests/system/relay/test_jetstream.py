"""A relay's sink for JetStream, against real servers with disk."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import subprocess
import sys
import threading

import pytest

from eventsource import MessageEvent
from eventsource.errors import EventSourceError
from tests.support import LIMIT, SECRET, imported, unavailable, wait_until

imported("nats")

from nats.js.errors import NotFoundError  # noqa: E402

from eventsource.relay import jetstream  # noqa: E402
from eventsource.relay.jetstream import JetStream  # noqa: E402
from eventsource.relay.sink import Superseded  # noqa: E402
from tests.relay.nats_server import NatsServer, Proxy  # noqa: E402


@pytest.fixture(scope="module")
def nats_server(tmp_path_factory):
    with NatsServer(tmp_path_factory.mktemp("nats")) as server:
        yield server


@pytest.fixture
def server(nats_server):
    """It runs, whatever the test before has done to it, and has nothing stored."""
    nats_server.ensure_started()
    nats_server.run(delete_streams)
    return nats_server


async def delete_streams(_, js):
    for stream in await js.streams_info():
        await js.delete_stream(stream.config.name)


@pytest.fixture
def new_sink(server):
    """Makes sinks, and closes them."""
    with contextlib.ExitStack() as stack:

        def new(url=server.url, name="orders", *, kind=JetStream, **options):
            sink = kind(url, name, **options)
            stack.callback(sink.close)
            return sink

        yield new


@pytest.fixture
def sink(new_sink):
    """One that has claimed the stream."""
    sink = new_sink()
    sink.claim()
    return sink


@pytest.fixture
def proxy(server):
    with Proxy(server.port) as proxy:
        yield proxy


def numbered(*ids):
    return [MessageEvent("message", f"event {one}", str(one)) for one in ids]


def follow(sink, place, last):
    """Append what a server sends that resumes after `place`: 1, 2, ... `last`."""
    events = numbered(*range(int(place or 0) + 1, last + 1))
    for start in range(0, len(events), 10):
        batch = events[start : start + 10]
        sink.append(batch, batch[-1].last_event_id)


# --- What is stored ---


def test_a_new_stream_has_no_place(new_sink):
    assert new_sink().claim() == ""


def test_events_and_the_place_are_stored(sink, new_sink, server):
    sink.append([MessageEvent("price", "1\n2", "7"), MessageEvent("message", "", "8")], "8")
    assert server.events() == [("7", "price", "1\n2"), ("8", "message", "")]
    assert new_sink().claim() == "8"


@pytest.mark.parametrize("text", [" é \t%41 ", "\U0001f600", "a: b", '"', "a" * 4000, ""])
def test_ids_and_types_come_back_as_they_were(text, sink, new_sink, server):
    sink.append([MessageEvent(text, text, text)], text)
    assert server.events() == [(text, text, text)]
    assert new_sink().claim() == text


def test_an_id_without_an_event_moves_the_place_or_resets_it_and_is_no_event(
    sink, new_sink, server
):
    sink.append(numbered(1), "1")
    sink.append([], "5")
    sink.append(numbered(6), "9")
    assert server.data() == ["event 1", "event 6"]
    assert new_sink().claim() == "9"
    sink = new_sink()
    sink.claim()
    sink.append([], "")
    assert new_sink().claim() == ""


def test_nothing_is_written_for_nothing_new(sink, server):
    sink.append(numbered(1), "1")
    before = server.messages()
    sink.append([], "1")
    assert server.messages() == before


def test_a_marker_replaces_the_one_before(new_sink, server):
    for place in range(1, 4):
        sink = new_sink()
        sink.claim()
        sink.append([], str(place))
    ((_, subject, headers, _),) = server.messages()
    assert (subject, headers[jetstream.PLACE]) == ("orders.relay", "3")


def test_a_batch_of_many_is_stored_in_order(new_sink, server):
    """More than may wait for their acknowledgements."""
    count = 3 * jetstream.WINDOW + 1
    sink = new_sink()
    sink.claim()
    sink.append(numbered(*range(1, count + 1)), str(count))
    sink.append(numbered(count + 1), str(count + 1))
    assert server.data() == [f"event {n}" for n in range(1, count + 2)]


def test_only_so_many_messages_wait_for_their_acknowledgements(new_sink, server, proxy):
    sink = new_sink(proxy.url, timeout=0.5)
    sink.claim()
    proxy.cut_after(10**6)  # nothing is acknowledged, nothing is cut
    with pytest.raises(EventSourceError, match="in time"):
        sink.append(numbered(*range(1, 2 * jetstream.WINDOW)), "x")
    wait_until(lambda: len(server.data()) == jetstream.WINDOW, "the messages to be stored")
    assert sink.claim() == str(jetstream.WINDOW)


def test_a_stream_keeps_as_much_as_it_may(new_sink, server):
    sink = new_sink(max_msgs=5, max_bytes=1_000_000)
    sink.claim()
    follow(sink, "", 30)
    assert server.data() == [f"event {n}" for n in range(26, 31)]
    assert new_sink().claim() == "30"


def test_a_subject_may_be_chosen(new_sink, server):
    sink = new_sink(subject="shop.orders")
    sink.claim()
    sink.append(numbered(1), "1")
    assert [subject for _, subject, *_ in server.messages()] == [
        "shop.orders.relay",
        "shop.orders",
    ]
    assert new_sink(subject="shop.orders").claim() == "1"


# --- The fence ---


def test_a_superseded_sink_writes_nothing(new_sink, server):
    old, new = new_sink(), new_sink()
    old.claim()
    old.append(numbered(1), "1")
    assert new.claim() == "1"
    with pytest.raises(Superseded):
        old.append(numbered(2), "2")
    new.append(numbered(2), "2")
    assert server.data() == ["event 1", "event 2"]
    with pytest.raises(Superseded, match="not claimed"):
        old.append(numbered(3), "3")


def test_a_superseded_sink_moves_no_place(new_sink):
    old, new = new_sink(), new_sink()
    old.claim()
    new.claim()
    with pytest.raises(Superseded):
        old.append([], "2")
    assert new_sink().claim() == ""


def test_without_the_fence_events_come_twice(new_sink, server):
    """The control of the one above: what is tested there is the fence."""

    class Unfenced(JetStream):
        async def _connected(self):
            connection = await super()._connected()
            publish = connection.publish

            async def publish_anyway(*arguments, headers=None, **options):
                kept = {name: text for name, text in (headers or {}).items() if "Ex" not in name}
                await publish(*arguments, headers=kept or None, **options)

            connection.publish = publish_anyway
            return connection

    old, new = new_sink(kind=Unfenced), new_sink()
    old.claim()
    new.claim()
    new.append(numbered(1), "1")
    with pytest.raises(EventSourceError, match="was stored as"):
        old.append(numbered(1), "1")
    assert server.data() == ["event 1", "event 1"]


def test_a_sink_claims_before_it_appends(new_sink, server):
    with pytest.raises(Superseded, match="claim"):
        new_sink().append(numbered(1), "1")
    assert server.messages() == []


def test_a_stream_made_anew_is_another_even_if_it_has_as_many_messages(sink, server):
    """Its sequence is the same; the id of its last message is not."""
    sink.append(numbered(1), "1")

    async def replace(_, js):
        config = (await js.stream_info("orders")).config
        await js.delete_stream("orders")
        await js.add_stream(config)
        for name in "ab":
            await js.publish("orders", b"", headers={"Nats-Msg-Id": name, jetstream.PLACE: "0"})

    server.run(replace)
    with pytest.raises(Superseded):
        sink.append(numbered(2), "2")
    assert len(server.messages()) == 2


def test_claim_looks_again_if_a_message_comes_in_between(new_sink, server):
    first = new_sink()
    first.claim()

    class Late(JetStream):
        async def _find_place(self, jetstream, state, limit):
            await super()._find_place(jetstream, state, limit)
            if not first_has_written:
                first_has_written.append(True)
                thread = threading.Thread(target=first.append, args=(numbered(1), "1"))
                thread.start()
                thread.join(LIMIT)

    first_has_written = []
    assert new_sink(kind=Late).claim() == "1"


def test_claim_gives_up_if_somebody_writes_all_the_time(new_sink, monkeypatch):
    monkeypatch.setattr(jetstream, "MAX_CLAIMS", 3)
    other = new_sink()

    class Late(JetStream):
        async def _find_place(self, jetstream, state, limit):
            await super()._find_place(jetstream, state, limit)
            thread = threading.Thread(target=other.claim)
            thread.start()
            thread.join(LIMIT)

    with pytest.raises(EventSourceError, match="another client keeps writing"):
        new_sink(kind=Late).claim()


def test_two_relays_that_race_store_each_event_once(new_sink, server):
    last = 300
    failures = []

    def relay():
        sink = new_sink()
        try:
            while (place := sink.claim()) != str(last):
                with contextlib.suppress(Superseded):
                    follow(sink, place, min(int(place or 0) + 30, last))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=relay) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT)
    assert failures == []
    assert server.data() == [f"event {n}" for n in range(1, last + 1)]


# --- Failures of the network and the server ---


@pytest.fixture
def cut_sink(new_sink, proxy):
    """One that has claimed the stream, and whose connection `fail_after` cuts."""
    sink = new_sink(proxy.url, timeout=600)  # the end of the connection is enough
    sink.claim()
    return sink


def fail_after(stored, proxy, sink, events):
    """Append the events; the connection is cut when so many are stored, and no word of that comes."""
    proxy.cut_after(stored)
    with pytest.raises(EventSourceError) as raised:
        sink.append(events, events[-1].last_event_id)
    assert not isinstance(raised.value, Superseded)


@pytest.mark.parametrize("stored", [1, 2, 3, 4])
def test_after_a_prefix_of_a_batch_or_all_of_it_the_place_is_behind_it(
    stored, cut_sink, server, proxy
):
    fail_after(stored, proxy, cut_sink, numbered(1, 2, 3, 4))
    assert server.data() == [f"event {n}" for n in range(1, stored + 1)]
    place = cut_sink.claim()
    assert place == str(stored)
    follow(cut_sink, place, 6)
    assert server.data() == [f"event {n}" for n in range(1, 7)]


SHARED = [MessageEvent("message", text, text[0]) for text in ("1a", "7a", "7b", "7c", "8a")]
"""Three of them have one id: who asks for what follows 7 would get none of these."""


@pytest.mark.parametrize("stored", range(1, 5))
@pytest.mark.parametrize("size", [1, 2, 5])
def test_a_prefix_that_ends_among_events_of_one_id_loses_none(
    stored, size, cut_sink, new_sink, server, proxy
):
    fail_after(stored, proxy, cut_sink, SHARED)
    new_sink().claim()  # its marker takes over what is known of the prefix
    place = new_sink().claim()
    assert place == ("1" if stored < 4 else "7")
    sink = new_sink()
    sink.claim()
    again = [event for event in SHARED if event.last_event_id > place]
    for start in range(0, len(again), size):  # as the reads may divide them
        batch = again[start : start + size]
        sink.append(batch, batch[-1].last_event_id)
    assert server.data() == [event.data for event in SHARED]
    assert sink.claim() == "8"


def test_a_second_failure_among_events_of_one_id_loses_none(cut_sink, server, proxy):
    for stored in (1, 1):
        fail_after(stored, proxy, cut_sink, SHARED[1:])
        assert cut_sink.claim() == ""
    cut_sink.append(SHARED[1:], "8")
    assert server.data() == [event.data for event in SHARED[1:]]


def test_a_second_failure_in_another_read_loses_none(cut_sink, server, proxy):
    events = [MessageEvent("message", text, text[0]) for text in ("7a", "7b", "7c", "7d", "8a")]
    fail_after(2, proxy, cut_sink, events)
    cut_sink.claim()
    cut_sink.append(events[:1], "7")
    fail_after(1, proxy, cut_sink, events[1:])
    assert cut_sink.claim() == ""
    cut_sink.append(events, "8")
    assert server.data() == [event.data for event in events]


def test_an_id_before_events_that_are_stored_in_part_loses_none(cut_sink, server, proxy):
    """The server sends an id without an event in front of them, in a read of its own."""
    fail_after(1, proxy, cut_sink, SHARED[1:])
    cut_sink.claim()
    cut_sink.append([], "6")
    cut_sink.append(SHARED[1:], "8")
    assert server.data() == [event.data for event in SHARED[1:]]


def test_an_event_of_another_id_is_not_taken_for_a_stored_one(cut_sink, server, proxy):
    """The server has dropped what it sent before."""
    fail_after(1, proxy, cut_sink, SHARED[1:])
    assert cut_sink.claim() == ""
    cut_sink.append(numbered(9), "9")
    assert server.data() == ["7a", "event 9"]


def test_events_without_ids_are_all_stored(sink, server):
    events = [MessageEvent("message", "x")] * 3
    sink.append(events, "")
    sink.append(events, "")
    assert server.data() == ["x"] * 6


def test_the_place_survives_a_restart(sink, server):
    sink.append(numbered(1), "1")
    server.stop()
    with pytest.raises(EventSourceError):
        sink.append(numbered(2), "2")
    with pytest.raises(EventSourceError):
        sink.claim()
    server.start()
    assert sink.claim() == "1"
    sink.append(numbered(2), "2")
    assert server.data() == ["event 1", "event 2"]


def test_kill_9_of_the_server_makes_nothing_be_lost_or_come_twice(new_sink, server):
    kills, appended = 8, 0
    done = threading.Event()
    sink = new_sink()

    def relay():
        nonlocal appended
        place = 0
        while not done.is_set():
            with contextlib.suppress(EventSourceError):
                place = int(sink.claim() or 0)
                while not done.is_set():
                    sink.append(numbered(*range(place + 1, place + 8)), str(place + 7))
                    place += 7
                    appended += 1

    thread = threading.Thread(target=relay)
    thread.start()
    try:
        for _ in range(kills):
            goal = appended + 5
            wait_until(lambda goal=goal: appended >= goal, "appends")
            server.kill()
            server.start()
        goal = appended + 5
        wait_until(lambda: appended >= goal, "appends")
    finally:
        done.set()
        thread.join(LIMIT)
    place = int(sink.claim())
    assert place >= 7 * 5 * kills
    assert server.data() == [f"event {n}" for n in range(1, place + 1)]


def test_a_server_that_does_not_answer_is_given_up(new_sink):
    """It listens and never says a word."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as silent:
        sink = new_sink(f"nats://127.0.0.1:{silent.getsockname()[1]}", timeout=0.05)
        with pytest.raises(EventSourceError, match="in time"):
            sink.claim()


def test_a_server_that_is_not_there_is_told_at_once(new_sink, server):
    server.stop()
    with pytest.raises(EventSourceError, match="Connect"):
        new_sink(timeout=600).claim()


def test_of_several_servers_one_that_is_there_is_found(new_sink, server):
    from tests.relay.nats_server import free_port

    url = f"nats://127.0.0.1:{free_port()},{server.url}"
    for _ in range(4):  # in an order that is not ours to choose
        assert new_sink(url).claim() == ""


def test_a_missing_permission_is_told(tmp_path, new_sink):
    settings = """
        authorization { users = [
            {user: me, password: right, permissions: {publish: {deny: "orders"}}}
        ] }
    """
    with NatsServer(tmp_path, settings=settings) as server:
        sink = new_sink(server.url, user="me", password="right")
        sink.claim()
        with pytest.raises(EventSourceError, match=r"(?i)permissions violation for publish"):
            sink.append(numbered(1), "1")


@pytest.mark.parametrize(
    ("url", "whole"),
    [
        ("nats://me:pw@host", "nats://me:pw@host:4222"),
        ("tls://[::1]", "tls://[::1]:4222"),
        ("nats://host:", "nats://host:4222"),
        ("nats://host:1", "nats://host:1"),
        ("wss://host/path", "wss://host/path"),
    ],
)
def test_a_url_without_a_port_has_the_usual_one(url, whole):
    assert JetStream(f"{url}, nats://other", "orders")._servers == [whole, "nats://other:4222"]


def test_a_full_stream_refuses_and_loses_nothing(new_sink, server):
    sink = new_sink(max_msgs=3)
    sink.claim()

    async def refuse_when_full(_, js):
        config = (await js.stream_info("orders")).config
        config.discard = "new"
        await js.update_stream(config)

    async def make_room(_, js):
        await js.purge_stream("orders", keep=1)

    server.run(refuse_when_full)
    with pytest.raises(EventSourceError, match="maximum messages") as raised:
        sink.append(numbered(1, 2, 3, 4), "4")
    assert not isinstance(raised.value, Superseded)
    assert server.data() == ["event 1", "event 2"]
    server.run(make_room)
    assert sink.claim() == "2"
    sink.append(numbered(3), "3")
    assert server.data()[-1] == "event 3"


# --- Too large ---


def test_an_event_that_is_too_large_is_stored_without_its_data(sink, new_sink, server, caplog):
    events = [*numbered(1), MessageEvent("blob", "é" * 600_000, "2"), *numbered(3)]
    with caplog.at_level(logging.WARNING, "eventsource"):
        sink.append(events, "3")
    assert server.events() == [
        ("1", "message", "event 1"),
        ("2", "blob", ""),
        ("3", "message", "event 3"),
    ]
    (stub,) = [headers for *_, headers, _ in server.messages() if jetstream.TOO_LARGE in headers]
    assert stub[jetstream.TOO_LARGE] == "1200000"
    (record,) = caplog.records
    assert "1200000 bytes" in record.getMessage()
    assert new_sink().claim() == "3"


def test_of_many_events_that_are_too_large_not_each_is_warned_of(sink, caplog):
    large = "x" * 1_100_000
    with caplog.at_level(logging.WARNING, "eventsource"):
        for number in range(1, 13):
            sink.append([MessageEvent("message", large, str(number))], str(number))
    told = [record.getMessage() for record in caplog.records]
    assert ["(1 so far)" in told[0], "(10 so far)" in told[1], len(told)] == [True, True, 2]


def test_limits_that_an_existing_stream_does_not_have_are_warned_of_once(new_sink, caplog):
    new_sink(max_msgs=7).claim()
    with caplog.at_level(logging.WARNING, "eventsource"):
        new_sink().claim()
        new_sink(max_msgs=7).claim()
        assert caplog.records == []
        other = new_sink(max_msgs=4, max_bytes=10_000_000)
        other.claim()
        other.claim()
    (record,) = caplog.records
    assert "max_msgs=7, not 4 and max_bytes=-1, not 10000000" in record.getMessage()


def test_the_largest_event_that_fits_is_stored_whole(sink, server):
    data = "x" * (2**20 - 400)
    sink.append([MessageEvent("message", data, "1")], "1")
    assert server.data() == [data]


def test_at_the_limit_nothing_breaks_the_connection(sink, server):
    """A server cuts the connection of a client that sends too much."""
    sizes = range(2**20 - 310, 2**20, 10)
    for size in sizes:
        sink.append([MessageEvent("message", "x" * size, f"{size}")], f"{size}")
    assert [event_id for event_id, *_ in server.events()] == [str(size) for size in sizes]


@pytest.mark.parametrize("limit", ["max_msg_size", "max_bytes"])
def test_the_limits_of_the_stream_count_too(limit, new_sink, server):
    new_sink().claim()

    async def bound(_, js):
        config = (await js.stream_info("orders")).config
        setattr(config, limit, 4000)
        await js.update_stream(config)

    server.run(bound)
    sink = new_sink()
    sink.claim()
    sink.append([MessageEvent("t" * 9000, "x" * 4000, "1")], "1")
    assert server.events() == [("1", "t" * jetstream.MAX_TYPE, "")]
    assert new_sink().claim() == "1"


def test_a_type_that_does_not_fit_into_a_header_is_cut(sink, server):
    sink.append([MessageEvent("t" * 70_000, "x", "1"), *numbered(2)], "2")
    assert server.events() == [
        ("1", "t" * jetstream.MAX_TYPE, ""),
        ("2", "message", "event 2"),
    ]


def test_at_the_limit_of_the_headers_nothing_is_refused(sink, server):
    sizes = range(65_535 - 340, 65_535, 20)
    for size in sizes:
        sink.append([MessageEvent("t" * size, "x", f"{size}")], f"{size}")
    assert [event_id for event_id, *_ in server.events()] == [str(size) for size in sizes]


def test_an_id_that_fits_in_no_message_is_an_error(sink, server):
    with pytest.raises(EventSourceError, match="the id of an event has 600000 characters"):
        sink.append([*numbered(1), MessageEvent("message", "", "i" * 600_000)], "i")
    assert (sink.claim(), server.data()) == ("1", ["event 1"])


# --- A stream that cannot serve ---


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"max_age": 3600.0}, "max_age"),
        ({"retention": "workqueue"}, "retention"),
        ({"no_ack": True}, "no_ack"),
        ({"subjects": ["orders"]}, "subjects"),
    ],
)
def test_a_stream_that_could_lose_the_place_is_refused(settings, reason, new_sink, server):
    async def make(_, js):
        await js.add_stream(
            **{"name": "orders", "subjects": ["orders", "orders.relay"], **settings}
        )

    server.run(make)
    with pytest.raises(EventSourceError, match=reason):
        new_sink().claim()


def test_a_stream_without_roll_ups_keeps_its_markers(new_sink, server):
    async def make(_, js):
        await js.add_stream(name="orders", subjects=["orders", "orders.relay"])

    server.run(make)
    for place in ("1", "2"):
        sink = new_sink()
        sink.claim()
        sink.append([], place)
    assert len(server.messages()) == 4
    assert new_sink().claim() == "2"


def test_a_message_of_somebody_else_hides_no_place(sink, server, caplog):
    sink.append(numbered(1), "1")

    async def disturb(_, js):
        for _ in range(5):
            await js.publish("orders", b"not an event of ours")

    server.run(disturb)
    with pytest.raises(Superseded):
        sink.append(numbered(2), "2")
    with caplog.at_level(logging.WARNING, "eventsource"):
        assert sink.claim() == "1"
    (record,) = caplog.records
    assert "were not written by a relay (5); the place is that of message 2" in record.getMessage()


def test_each_message_that_is_passed_over_is_progress(new_sink, server, monkeypatch):
    """A claim behind thousands of them may take longer than `timeout`, but never makes no progress."""
    sink = new_sink()
    sink.claim()
    sink.append(numbered(1), "1")

    async def disturb(_, js):
        for _ in range(20):
            await js.publish("orders", b"")

    server.run(disturb)
    noted = []
    note_progress = JetStream._note_progress
    monkeypatch.setattr(
        JetStream,
        "_note_progress",
        lambda self, limit: (noted.append(limit), note_progress(self, limit)),
    )
    assert sink.claim() == "1"
    assert len(noted) > 20


def test_a_last_message_that_was_deleted_hides_no_place(sink, server):
    sink.append(numbered(1, 2), "2")

    async def delete(_, js):
        await js.delete_msg("orders", 3)

    server.run(delete)
    assert sink.claim() == "1"


def test_a_stream_that_was_emptied_is_an_error(sink, server):
    sink.append(numbered(1), "1")

    async def purge(_, js):
        await js.purge_stream("orders")

    async def delete(_, js):
        await js.delete_stream("orders")

    server.run(purge)
    with pytest.raises(EventSourceError, match="emptied"):
        sink.claim()
    server.run(delete)
    assert sink.claim() == ""


def test_a_stream_that_another_relay_makes_at_the_same_time_is_used(new_sink):
    class Blind:
        """Sees no stream at first."""

        def __init__(self, context):
            self._context = context
            self._has_looked = False

        def __getattr__(self, name):
            return getattr(self._context, name)

        async def stream_info(self, name):
            if self._has_looked:
                return await self._context.stream_info(name)
            self._has_looked = True
            raise NotFoundError

    class Late(JetStream):
        async def _stream(self, jetstream):
            return await super()._stream(Blind(jetstream))

    first = new_sink(max_msgs=10)
    first.claim()
    first.append([], "1")
    assert new_sink(kind=Late, max_msgs=20).claim() == "1"


# --- The lease ---


def test_one_has_the_lease_and_renews_it(new_sink):
    one, two = new_sink(), new_sink()
    assert one.lease(60)
    assert not two.lease(60)
    assert one.lease(60)
    assert not two.lease(60)


def test_close_gives_the_lease_back(new_sink):
    one, two = new_sink(), new_sink()
    assert one.lease(60)
    one.close()
    assert two.lease(60)
    two.close()
    assert one.lease(60)


def test_close_gives_back_no_lease_of_another(new_sink):
    one, two, three = new_sink(), new_sink(), new_sink()
    assert one.lease(60)
    assert not two.lease(60)
    two.close()
    assert not three.lease(60)


def test_a_lease_that_is_not_renewed_runs_out(new_sink):
    one, two = new_sink(), new_sink()
    assert one.lease(0.2)
    wait_until(lambda: two.lease(0.2), "the lease to run out")
    two.lease(60)
    assert not one.lease(60)


def test_a_lease_lasts_as_long_as_its_holder_says(new_sink):
    """Not as another one has said before."""
    one, two, three = new_sink(), new_sink(), new_sink()
    assert one.lease(600)
    one.close()
    assert two.lease(0.2)
    wait_until(lambda: three.lease(0.2), "the lease to run out")


def test_who_asks_in_vain_does_not_shorten_the_lease(new_sink, server):
    """As while relays are started anew with another `lease`, one after the other."""
    one, two = new_sink(), new_sink()
    assert one.lease(60)
    assert not two.lease(0.5)

    async def age(_, js):
        ages.append((await js.stream_info("KV_orders-relay")).config.max_age)

    ages = []
    server.run(age)
    assert ages == [60]
    assert one.lease(50)
    server.run(age)
    assert ages == [60, 50]


def test_the_lease_survives_a_failure_of_its_holder(new_sink, proxy):
    """The connection is another, the holder is not."""
    one, two = new_sink(proxy.url), new_sink()
    assert one.lease(60)
    one.claim()
    proxy.cut_after(1)
    with pytest.raises(EventSourceError):
        one.append(numbered(1), "1")
    assert not two.lease(60)
    assert one.lease(60)


def test_a_lease_and_a_claim_share_no_stream(sink, server):
    before = server.messages()
    sink.lease(60)
    assert server.messages() == before
    sink.append(numbered(1), "1")


@pytest.mark.parametrize("seconds", [0, 0.05, -1, float("inf"), float("nan"), "1", None])
def test_a_lease_that_cannot_be_is_refused(seconds, new_sink):
    with pytest.raises((TypeError, ValueError), match="seconds"):
        new_sink().lease(seconds)


# --- Threads, forks, the end ---


def threads():
    return [thread for thread in threading.enumerate() if thread.name == "eventsource-nats"]


def test_the_thread_begins_with_the_first_call_and_ends_with_close(new_sink):
    sink = new_sink()
    assert threads() == []
    sink.claim()
    assert len(threads()) == 1
    sink.close()
    assert threads() == []
    sink.close()


def test_a_closed_sink_has_to_claim_anew(sink, server):
    sink.append(numbered(1), "1")
    sink.close()
    with pytest.raises(EventSourceError):
        sink.append(numbered(2), "2")
    assert sink.claim() == "1"


def test_close_without_a_server_is_quick_and_quiet(sink, server):
    assert sink.lease(60)
    server.kill()
    sink.close()
    assert threads() == []


def test_close_ends_a_call_of_another_thread(new_sink, proxy):
    sink = new_sink(proxy.url, timeout=600)
    sink.claim()
    proxy.cut_after(10**6)  # nothing is acknowledged, nothing is cut
    caught = []

    def append():
        try:
            sink.append(numbered(1), "1")
        except Exception as error:
            caught.append(error)

    thread = threading.Thread(target=append)
    thread.start()
    wait_until(lambda: sink._sequence == 2, "the message to be sent")
    sink.close()
    thread.join(LIMIT)
    (error,) = caught
    assert isinstance(error, EventSourceError)
    assert threads() == []


def test_close_waits_a_second_in_all_for_a_server_that_is_silent(new_sink, monkeypatch):
    """The clock of the loop stands still but for what is added to it here."""
    sink = new_sink()
    assert sink.lease(60)
    now = sink._worker._loop.time()
    monkeypatch.setattr(sink._worker._loop, "time", lambda: now)
    close = sink._nats.close

    async def never_answers(*_, **__):
        nonlocal now
        now += 1 - jetstream.DISCONNECT_SECONDS
        await asyncio.Event().wait()

    async def never_ends():
        nonlocal now
        await close()
        now += jetstream.DISCONNECT_SECONDS
        await asyncio.Event().wait()

    monkeypatch.setattr(sink._nats, "request", never_answers)
    monkeypatch.setattr(sink._nats, "close", never_ends)
    thread = threading.Thread(target=sink.close)
    thread.start()
    thread.join(LIMIT)
    assert not thread.is_alive()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_has_a_loop_and_a_claim_of_its_own(sink, server):
    sink.append(numbered(1), "1")
    assert sink.lease(60)
    child = os.fork()
    if not child:
        status = 1
        with contextlib.suppress(BaseException):
            assert threads() == []
            with pytest.raises(Superseded, match="not claimed"):
                sink.append(numbered(7), "7")
            assert not sink.lease(60)
            assert sink.claim() == "1"
            sink.append(numbered(2), "2")
            sink.close()
            status = 0
        os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    with pytest.raises(Superseded):
        sink.append(numbered(2), "2")
    assert sink.lease(60)
    assert sink.claim() == "2"
    sink.append(numbered(3), "3")
    assert server.data() == ["event 1", "event 2", "event 3"]


# --- Arguments, secrets ---


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"url": "http://localhost"}, "url"),
        ({"url": "localhost:4222"}, "url"),
        ({"url": ""}, "url"),
        ({"url": "nats://a,"}, "url"),
        ({"url": "nats://:4222"}, "url"),
        ({"url": "nats://a:99999"}, "url"),
        ({"url": f"nats://user:{SECRET}:/@a:b"}, "url"),
        ({"url": None}, "url"),
        ({"name": "a.b"}, "name"),
        ({"name": ""}, "name"),
        ({"name": 1}, "name"),
        ({"subject": "a.*"}, "subject"),
        ({"subject": "a..b"}, "subject"),
        ({"subject": "$JS.a"}, "subject"),
        ({"subject": ""}, "subject"),
        ({"subject": 1}, "subject"),
        ({"max_msgs": 0}, "max_msgs"),
        ({"max_bytes": 1.5}, "max_bytes"),
        ({"replicas": 0}, "replicas"),
        ({"timeout": 0}, "timeout"),
        ({"timeout": "1"}, "timeout"),
        ({"allow_reconnect": True}, "allow_reconnect"),
    ],
)
def test_an_argument_that_cannot_be_right_is_refused(options, name):
    with pytest.raises((TypeError, ValueError), match=name) as raised:
        JetStream(**{"url": "nats://localhost", "name": "orders", **options})
    assert SECRET not in str(raised.value)


def chain(error):
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


@pytest.mark.parametrize("in_url", [True, False])
def test_no_secret_is_told(in_url, tmp_path, new_sink, caplog):
    with NatsServer(tmp_path, "--user", "me", "--pass", "right") as server:
        url = server.url.replace("//", f"//me:{SECRET}@") if in_url else server.url
        options = {} if in_url else {"user": "me", "password": SECRET}
        sink = new_sink(url, **options)
        with caplog.at_level(logging.DEBUG), pytest.raises(EventSourceError) as raised:
            sink.claim()
    assert "Authorization" in str(raised.value)
    shown = [repr(sink), caplog.text, *(f"{error!r} {error}" for error in chain(raised.value))]
    assert SECRET not in " ".join(shown)


@pytest.mark.parametrize("in_url", [True, False])
def test_credentials_are_given_to_the_server(in_url, tmp_path, new_sink):
    with NatsServer(tmp_path, "--user", "me", "--pass", "right") as server:
        url = server.url.replace("//", "//me:right@") if in_url else server.url
        options = {} if in_url else {"user": "me", "password": "right"}
        assert new_sink(url, **options).claim() == ""


def test_a_server_without_jetstream_is_an_error(tmp_path, new_sink):
    from tests.relay.nats_server import free_port

    port = free_port()
    command = shutil.which("nats-server") or unavailable("nats-server is not installed")
    process = subprocess.Popen(
        [command, "-a", "127.0.0.1", "-p", str(port)], stderr=subprocess.DEVNULL
    )
    try:
        sink = new_sink(f"nats://127.0.0.1:{port}")

        def answer():
            try:
                sink.claim()
            except EventSourceError as error:
                return "" if "Connect call failed" in str(error) else str(error)

        wait_until(answer, "the server to listen")
        assert "ServiceUnavailable" in answer() or "NoResponders" in answer()
    finally:
        process.kill()
        process.wait(LIMIT)


def test_without_the_extra_the_error_says_what_to_install():
    program = (
        "import sys; sys.modules['nats'] = None\n"
        "try:\n    import eventsource.relay.jetstream\n"
        "except ImportError as error:\n    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=LIMIT, check=False
    )
    assert "python -m pip install nats-py" in done.stdout, done.stderr
