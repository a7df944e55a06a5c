"""Engines that forget the place of a log, and a relay that knew it."""

from __future__ import annotations

import contextlib
import logging

import pytest

from eventsource import MessageEvent
from eventsource.errors import EventSourceError
from eventsource.relay import Relay, Superseded
from eventsource.testing import ScriptedServer
from tests.relay.memory import running
from tests.relay.numbered import Growing, texts
from tests.support import LIMIT, wait_until

pytestmark = pytest.mark.timeout(6 * LIMIT)

LEASE = 0.3


def messages(*numbers):
    return [MessageEvent("message", str(n), str(n), "http://x") for n in numbers]


@pytest.fixture
def new_sink(redis_server):
    """Makes sinks for one log, and closes them."""
    from eventsource.relay import RedisStream

    with contextlib.ExitStack() as stack:
        yield lambda: stack.enter_context(
            contextlib.closing(RedisStream(redis_server.url, "orders"))
        )


@pytest.fixture
def client(redis_server):
    with redis_server.client() as client:
        yield client


def log(client):
    return [(entry["n"], entry["data"]) for _, entry in client.xrange("orders")]


# --- Redis ---


@pytest.mark.parametrize("how", ["flushed", "started without persistence"])
def test_a_redis_that_has_lost_all_gets_nothing_until_the_place_is_back(
    redis_server, client, new_sink, caplog, how
):
    caplog.set_level(logging.INFO)
    if how != "flushed":
        client.config_set("appendonly", "no")
    source = Growing()
    with (
        ScriptedServer(source) as server,
        running(relay := Relay(server.url, new_sink(), lease=LEASE)),
    ):
        source.grow(100)
        wait_until(lambda: relay.last_event_id == "100")
        if how == "flushed":
            client.flushall()
        else:
            redis_server.kill()
            for path in redis_server.folder.glob("appendonlydir/*"):
                path.unlink()
            redis_server.start()
        source.grow(110)
        wait_until(lambda: "the log has lost its place" in caplog.text)
        assert not client.exists("orders")
        client.hset("{orders}:relay", mapping={"place": "100", "count": "100"})
        wait_until(lambda: relay.last_event_id == "110")
        assert [request.last_event_id for request in server.requests] == ["", "100"]
    assert log(client) == [(n, n) for n in texts(110)[100:]]
    assert "another relay has claimed" not in caplog.text


def test_a_relay_that_is_started_anew_begins_an_emptied_redis_anew(client, new_sink):
    one = new_sink()
    one.claim()
    one.append(messages(1), "1")
    client.flushall()
    assert new_sink().claim() == ""


def test_without_its_hash_a_stream_with_entries_is_refused(client, new_sink, caplog):
    """Else the relay would begin anew, and all that is in the log would come again."""
    source = Growing()
    with (
        ScriptedServer(source) as server,
        running(relay := Relay(server.url, new_sink(), lease=LEASE)),
    ):
        source.grow(20)
        wait_until(lambda: relay.last_event_id == "20")
        client.delete("{orders}:relay")
        source.grow(30)
        wait_until(lambda: "the log has lost its place" in caplog.text)
        assert "'{orders}:relay' is gone" in caplog.text
        with pytest.raises(EventSourceError, match="restore it, or delete the stream"):
            new_sink().claim()
        assert not client.exists("{orders}:relay")
        [(_, last)] = client.xrevrange("orders", count=1)  # as the page says
        client.hset("{orders}:relay", mapping={"place": last["id"], "count": last["n"]})
        wait_until(lambda: relay.last_event_id == "30")
    assert log(client) == [(n, n) for n in texts(30)]


def test_a_stream_whose_entries_were_deleted_is_refused_too(client, new_sink):
    one = new_sink()
    one.claim()
    one.append(messages(1), "1")
    client.xdel("orders", *[key for key, _ in client.xrange("orders")])
    client.delete("{orders}:relay")
    with pytest.raises(EventSourceError, match="is gone"):
        new_sink().claim()


def test_a_stream_that_a_consumer_has_made_is_begun(client, new_sink):
    client.xgroup_create("orders", "billing", id="0", mkstream=True)
    one = new_sink()
    assert one.claim() == ""
    one.append(messages(1), "1")
    assert log(client) == [("1", "1")]


def test_a_claim_without_an_event_is_no_lost_place(client, new_sink):
    new_sink().claim()
    assert new_sink().claim() == ""
    client.xgroup_create("orders", "billing", id="0", mkstream=True)
    assert new_sink().claim() == ""


def test_no_owner_is_told_from_another_one(client, new_sink):
    one = new_sink()
    one.claim()
    client.delete("{orders}:relay")
    with pytest.raises(Superseded, match="'{orders}:relay' is gone"):
        one.append(messages(1), "1")
    one.claim()
    new_sink().claim()
    with pytest.raises(Superseded, match="another relay has claimed"):
        one.append(messages(1), "1")


# --- NATS JetStream ---


@pytest.fixture
def nats(tmp_path):
    pytest.importorskip("nats")
    from tests.relay.nats_server import NatsServer

    with NatsServer(tmp_path) as server:
        yield server


def test_a_stream_of_nats_that_was_deleted_gets_nothing(nats, caplog):
    from eventsource.relay import JetStream

    async def delete(_, js):
        await js.delete_stream("orders")

    source = Growing()
    with (
        ScriptedServer(source) as server,
        running(relay := Relay(server.url, JetStream(nats.url, "orders"), lease=LEASE)),
    ):
        source.grow(20)
        wait_until(lambda: relay.last_event_id == "20")
        nats.run(delete)
        source.grow(30)
        wait_until(lambda: "the log has lost its place" in caplog.text)
        assert nats.data() == []
        assert len(server.requests) == 1


def test_a_stream_of_nats_that_was_emptied_is_told_as_a_lost_place(nats, caplog):
    from eventsource.relay import JetStream

    async def purge(_, js):
        await js.purge_stream("orders")

    with contextlib.closing(JetStream(nats.url, "orders")) as sink:
        sink.claim()
        sink.append(messages(1), "1")
    nats.run(purge)
    with running(Relay("http://127.0.0.1:9/", JetStream(nats.url, "orders"), lease=LEASE)):
        wait_until(lambda: "the log has lost its place" in caplog.text)
    assert "has been emptied" in caplog.text


def test_a_message_of_nats_that_is_not_the_known_one_is_not_put_down_to_anybody(nats):
    from eventsource.relay import JetStream

    with contextlib.closing(JetStream(nats.url, "orders")) as sink:
        sink.claim()
        sink.append(messages(1), "1")
        with contextlib.closing(JetStream(nats.url, "orders")) as other:
            other.claim()
        with pytest.raises(Superseded, match="the last message is not the one that was known"):
            sink.append(messages(2), "2")
