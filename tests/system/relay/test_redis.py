"""`RedisStream` on a real Redis."""

from __future__ import annotations

import contextlib
import inspect
import logging
import random
import re
import shlex
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from eventsource import MessageEvent
from eventsource.errors import EventSourceError
from eventsource.relay import Relay, Superseded
from eventsource.testing import ScriptedServer
from tests.relay.forwarder import Forwarder
from tests.relay.memory import running
from tests.relay.numbered import Growing, numbered, texts
from tests.relay.redis_server import RedisServer
from tests.support import LIMIT, SECRET, wait_until

redis = pytest.importorskip("redis")

from eventsource.relay import RedisStream  # noqa: E402 - needs redis
from eventsource.relay import redis as module  # noqa: E402
from tests.relay.program import leave_out  # noqa: E402

pytestmark = pytest.mark.timeout(6 * LIMIT)

LEASE = 0.3


def messages(*numbers):
    return [MessageEvent("message", str(n), str(n), "http://x") for n in numbers]


@pytest.fixture
def sink(redis_server):
    with contextlib.closing(RedisStream(redis_server.url, "orders")) as sink:
        yield sink


@pytest.fixture
def client(redis_server):
    with redis_server.client() as client:
        yield client


def log(client, name="orders"):
    return [entry["data"] for _, entry in client.xrange(name)]


# --- What is in Redis ---


def test_an_entry_is_an_event_and_has_its_number(sink, client):
    assert sink.claim() == ""
    sink.append([MessageEvent("price", "a\nb", "7"), MessageEvent("message", "", "")], "8")
    assert [entry for _, entry in client.xrange("orders")] == [
        {"id": "7", "type": "price", "data": "a\nb", "n": "1"},
        {"id": "", "type": "message", "data": "", "n": "2"},
    ]
    assert sink.claim() == "8"


def test_the_keys_are_the_name_and_the_relays_own(sink, client):
    sink.claim()
    sink.lease(30)
    sink.append(messages(1), "1")
    assert set(client.keys()) == {"orders", "{orders}:relay", "{orders}:lease"}


def test_a_hash_tag_in_the_name_is_kept(redis_server, client):
    sink = RedisStream(redis_server.url, "a{b}c")
    sink.claim()
    sink.append(messages(1), "1")
    assert set(client.keys()) == {"a{b}c", "a{b}c:relay"}
    sink.close()


def test_an_id_alone_is_no_entry_and_moves_the_place(sink, client):
    sink.claim()
    sink.append([], "5")
    assert not client.exists("orders")
    assert sink.claim() == "5"


def test_without_maxlen_nothing_is_trimmed_and_with_it_old_entries_are(redis_server, client):
    for name, options in (("all", {}), ("last", {"maxlen": 100})):
        sink = RedisStream(redis_server.url, name, **options)
        sink.claim()
        sink.append(messages(*range(1, 1001)), "1000")
        sink.close()
    assert client.xlen("all") == 1000
    assert 100 <= client.xlen("last") < 300
    assert log(client, "last")[-1] == "1000"


def test_text_beyond_ascii_comes_as_it_is(sink, client):
    sink.claim()
    sink.append([MessageEvent("é", "\U0001f600\0", "ö")], "ö")
    [(_, entry)] = client.xrange("orders")
    assert (entry["type"], entry["data"], entry["id"]) == ("é", "\U0001f600\0", "ö")
    assert sink.claim() == "ö"


# --- The fence and the place ---


def test_another_claim_supersedes(redis_server, sink, client):
    other = RedisStream(redis_server.url, "orders")
    sink.claim()
    sink.append(messages(1), "1")
    assert other.claim() == "1"
    with pytest.raises(Superseded, match="another relay"):
        sink.append(messages(2), "2")
    other.append(messages(2), "2")
    assert log(client) == ["1", "2"]
    other.close()


def test_nothing_is_stored_without_a_claim(sink, client):
    with pytest.raises(Superseded):
        sink.append(messages(1), "1")
    assert not client.exists("orders", "{orders}:relay")


@pytest.mark.parametrize("place", ["1", ""])
def test_a_batch_that_is_sent_twice_is_stored_once(sink, client, place):
    """As by a client that tries again when the reply is lost; also if no id tells them apart."""
    sink.claim()
    call = sink._call

    def twice(*arguments):
        call(*arguments)
        return call(*arguments)

    sink._call = twice
    with pytest.raises(Superseded, match="place"):
        sink.append(messages(1), place)
    del sink._call
    assert log(client) == ["1"]


def test_without_comparing_the_place_it_would_come_twice(redis_server, client, monkeypatch):
    monkeypatch.setattr(module, "_APPEND", module._APPEND)  # which is put back
    leave_out("place")
    sink = RedisStream(redis_server.url, "orders")
    sink.claim()
    call = sink._call
    sink._call = lambda *arguments: (call(*arguments), call(*arguments))[1]
    sink.append(messages(1), "1")
    assert log(client) == ["1", "1"]
    del sink._call
    sink.close()


def test_the_lease_is_one_sinks_until_it_runs_out_or_is_given_up(redis_server, sink, client):
    other = RedisStream(redis_server.url, "orders")
    assert sink.lease(100)
    assert sink.lease(LIMIT)
    assert 0 < client.pttl("{orders}:lease") <= LIMIT * 1000
    assert not other.lease(LIMIT)
    sink.close()
    assert other.lease(0.001)
    wait_until(lambda: sink.lease(LIMIT))
    other.close()
    assert client.exists("{orders}:lease")  # which is the sink's


# --- The relay ---


def test_a_stream_is_in_the_log(redis_server, client):
    sink = RedisStream(redis_server.url, "orders")
    with (
        ScriptedServer(numbered(5000, at_once=500)) as server,
        running(Relay(server.url, sink, lease=LEASE)),
    ):
        wait_until(lambda: client.xlen("orders") == 5000)
    assert log(client) == texts(5000)


@pytest.mark.parametrize("how", ["killed", "stopped"])
def test_an_engine_that_is_away_for_longer_than_a_lease_costs_nothing(redis_server, caplog, how):
    sink = RedisStream(redis_server.url, "orders", timeout=LEASE)
    source = Growing()
    with (
        ScriptedServer(source) as server,
        running(relay := Relay(server.url, sink, lease=LEASE)),
        redis_server.client() as client,
    ):
        source.grow(100)
        wait_until(lambda: relay.last_event_id == "100")
        if how == "killed":
            redis_server.kill()
        else:
            redis_server.signal(signal.SIGSTOP)
        source.grow(1000)
        wait_until(lambda: "the log cannot be written" in caplog.text)
        if how == "killed":
            redis_server.start()
        else:
            redis_server.signal(signal.SIGCONT)
        wait_until(lambda: relay.last_event_id == "1000")
        assert log(client) == texts(1000)


def test_a_full_engine_holds_the_relay_and_nothing_is_lost(redis_server, client, caplog):
    sink = RedisStream(redis_server.url, "orders")
    source = Growing()
    with (
        ScriptedServer(source) as server,
        running(relay := Relay(server.url, sink, lease=LEASE)),
    ):
        source.grow(100)
        wait_until(lambda: relay.last_event_id == "100")
        client.config_set("maxmemory", "1")
        source.grow(1000)
        wait_until(lambda: "OutOfMemoryError" in caplog.text)
        assert log(client) == texts(100)
        client.config_set("maxmemory", "0")
        wait_until(lambda: relay.last_event_id == "1000")
    assert log(client) == texts(1000)


def lose_the_tail(redis_server, sink):
    """Have Redis lose acknowledged writes while a client that retries notices nothing."""
    from redis.backoff import ConstantBackoff
    from redis.retry import Retry

    sink._client.close()
    sink._client = client = redis.Redis.from_url(
        redis_server.url,
        retry=Retry(ConstantBackoff(0.05), 500),
        retry_on_error=[redis.ConnectionError, redis.BusyLoadingError],
    )
    for script in (sink._claim, sink._append, sink._take_lease):
        script.registered_client = client
    source = Growing()
    with ScriptedServer(source) as server:
        relay = Relay(server.url, sink, lease=3 * LIMIT)
        with running(relay), redis_server.client() as client:  # another one, to look
            source.grow(50)
            wait_until(lambda: relay.last_event_id == "50")
            size = redis_server.log_file().stat().st_size
            source.grow(100)
            wait_until(lambda: relay.last_event_id == "100")
            redis_server.kill()
            redis_server.cut(size)
            redis_server.start()
            assert log(client) == texts(50)
            source.grow(200)
            wait_until(lambda: relay.last_event_id == "200")
            return log(client)


def test_what_the_engine_has_lost_is_fetched_again(redis_server, sink):
    assert lose_the_tail(redis_server, sink) == texts(200)


def test_without_comparing_the_place_it_would_be_missing(redis_server, monkeypatch):
    monkeypatch.setattr(module, "_APPEND", module._APPEND)  # which is put back
    leave_out("place")
    sink = RedisStream(redis_server.url, "orders")
    assert lose_the_tail(redis_server, sink) == texts(200)[:50] + texts(200)[100:]


def test_a_replica_that_lags_is_promoted_and_nothing_is_missing(redis_server, tmp_path):
    """The primary had acknowledged 100 events, of which its replica has 50."""
    folder = tmp_path / "replica"
    folder.mkdir()
    source = Growing()
    with (
        Forwarder(redis_server.port) as replication,
        Forwarder(redis_server.port) as front,
        RedisServer(folder, "--replicaof", "127.0.0.1", str(replication.port)) as replica,
        redis_server.client() as client,
        replica.client() as replica_client,
        ScriptedServer(source) as server,
    ):
        wait_until(lambda: replica_client.info("replication")["master_link_status"] == "up")
        sink = RedisStream(f"redis://127.0.0.1:{front.port}", "orders")
        with running(relay := Relay(server.url, sink, lease=LEASE)):
            source.grow(50)
            wait_until(lambda: log(replica_client) == texts(50))
            replication.be_silent()
            source.grow(100)
            wait_until(lambda: relay.last_event_id == "100")
            assert log(client) == texts(100)
            redis_server.kill()
            replica_client.replicaof("NO", "ONE")
            front.target = replica.port
            front.cut()
            assert log(replica_client) == texts(50)
            source.grow(200)
            wait_until(lambda: relay.last_event_id == "200")
        assert log(replica_client) == texts(200)


def test_a_primary_that_becomes_a_replica_is_left_for_the_new_one(redis_server, tmp_path):
    """It keeps its connections; only new ones reach the new primary, by the same name."""
    folder = tmp_path / "replica"
    folder.mkdir()
    source = Growing()
    with (
        RedisServer(folder, "--replicaof", "127.0.0.1", str(redis_server.port)) as replica,
        Forwarder(redis_server.port) as front,
        redis_server.client() as client,
        replica.client() as replica_client,
        ScriptedServer(source) as server,
    ):
        wait_until(lambda: replica_client.info("replication")["master_link_status"] == "up")
        sink = RedisStream(f"redis://127.0.0.1:{front.port}", "orders")
        with running(relay := Relay(server.url, sink, lease=LEASE)):
            source.grow(50)
            wait_until(lambda: log(replica_client) == texts(50))
            replica_client.replicaof("NO", "ONE")
            front.target = replica.port
            client.replicaof("127.0.0.1", replica.port)
            source.grow(100)
            wait_until(lambda: relay.last_event_id == "100")
        assert log(replica_client) == texts(100)


def test_a_reply_that_is_lost_makes_nothing_come_twice(redis_server, client):
    source = Growing()
    with Forwarder(redis_server.port) as front, ScriptedServer(source) as server:
        sink = RedisStream(f"redis://127.0.0.1:{front.port}", "orders", timeout=LIMIT)
        with running(relay := Relay(server.url, sink, lease=3 * LIMIT)):
            for count in range(10, 110, 10):
                source.grow(count - 5)
                wait_until(lambda: relay.last_event_id == str(count - 5))  # noqa: B023
                front.be_silent()
                source.grow(count)
                wait_until(lambda: client.xlen("orders") >= count)  # noqa: B023
                assert relay.last_event_id != str(count)
                front.cut()
            wait_until(lambda: relay.last_event_id == "100")
    assert log(client) == texts(100)


# --- Processes that die, and that are stopped ---


@contextlib.contextmanager
def relay_process(url, redis_url, folder, *options):
    """A relay in a process of its own, and the file of its log lines."""
    path = folder / f"{len(list(folder.glob('*.txt')))}.txt"
    with path.open("wb") as lines:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.relay.program", url, redis_url, "orders", *options],
            stdout=lines,
            stderr=lines,
            cwd=Path(__file__).parents[3],
        )
    try:
        yield process, path
    finally:
        process.send_signal(signal.SIGCONT)
        process.kill()
        process.wait(LIMIT)


def length_is(client, path, count):
    def is_reached():
        return client.xlen("orders") >= count

    try:
        wait_until(is_reached, f"{count} entries")
    except AssertionError:
        pytest.fail(f"{client.xlen('orders')} of {count} entries: {path.read_text()[-2000:]}")


def test_each_event_is_there_once_although_relays_are_killed(redis_server, client, tmp_path):
    kills, step = 100, 100
    source, chance = Growing(), random.Random(16)
    with ScriptedServer(source) as server:
        for number in range(kills):
            with relay_process(server.url, redis_server.url, tmp_path) as (process, path):
                source.grow((number + 1) * step)
                length_is(client, path, number * step + chance.randrange(1, step))
                process.kill()
        source.grow(total := (kills + 1) * step)
        with relay_process(server.url, redis_server.url, tmp_path) as (process, path):
            length_is(client, path, total)
            process.terminate()
            assert process.wait(LIMIT) == 0
    assert log(client) == texts(total)
    assert not client.exists("{orders}:lease")  # given up at SIGTERM


def stop_one_and_wake_it(redis_server, client, folder, *options):
    """The log after a relay was stopped for longer than its lease, and another one led."""
    source = Growing()
    with ScriptedServer(source) as server:
        arguments = server.url, redis_server.url, folder, *options
        with relay_process(*arguments) as (old, old_path):
            source.grow(100)
            length_is(client, old_path, 100)
            old.send_signal(signal.SIGSTOP)
            state = Path(f"/proc/{old.pid}/stat")
            wait_until(lambda: state.read_text().rpartition(")")[2].split()[0] == "T")
            source.grow(300)  # also into the buffers of the connection that nobody reads
            with relay_process(*arguments) as (_, path):
                length_is(client, path, 300)
                old.send_signal(signal.SIGCONT)
                wait_until(lambda: "another relay leads" in old_path.read_text())
                source.grow(400)
                wait_until(lambda: client.hget("{orders}:relay", "place") == "400")
                return log(client)


def test_a_relay_that_was_stopped_and_wakes_stores_nothing(redis_server, client, tmp_path):
    assert stop_one_and_wake_it(redis_server, client, tmp_path) == texts(400)


def test_without_the_fence_it_would(redis_server, client, tmp_path):
    controls = "--without", "fence", "--without", "place"
    for _ in range(10):  # one that is stopped as it asks for its lease has nothing left to store
        client.flushall()
        found = stop_one_and_wake_it(redis_server, client, tmp_path, *controls)
        assert len(set(found)) == 400
        if len(found) > 400:
            return
    pytest.fail("nothing came twice")


# --- Settings and failures ---


def test_an_eviction_policy_that_may_remove_the_place_is_warned_of(sink, client, caplog):
    client.config_set("maxmemory-policy", "allkeys-lru")
    client.config_set("maxmemory", "1gb")
    sink.claim()
    sink.claim()
    found = [record for record in caplog.records if "allkeys-lru" in record.getMessage()]
    assert [record.levelname for record in found] == ["WARNING"]


def test_one_that_does_not_is_not(sink, client, caplog):
    client.config_set("maxmemory-policy", "volatile-lru")
    client.config_set("maxmemory", "1gb")
    sink.claim()
    assert "evict" not in caplog.text


def test_a_key_of_another_kind_is_refused_and_left_alone(sink, client):
    client.set("orders", "mine")
    with pytest.raises(EventSourceError, match="WRONGTYPE"):
        sink.claim()
    client.delete("orders")
    sink.claim()
    client.set("orders", "mine")
    with pytest.raises(EventSourceError, match="WRONGTYPE"):
        sink.append(messages(1), "1")
    assert client.get("orders") == "mine"


PAGE = Path(__file__).parents[3] / "docs" / "how-to" / "relay.md"


@pytest.fixture
def rights(client):
    """What the page says that the user of a relay needs, and has here."""
    found = re.search(r"ACL SETUSER relay (.*)", PAGE.read_text("utf-8"))
    words = shlex.split(found.group(1).replace("PASSWORD", SECRET))
    client.execute_command("ACL", "SETUSER", "relay", *words)
    return words


def as_user(redis_server):
    return RedisStream(redis_server.url.replace("//", f"//relay:{SECRET}@"), "orders")


def test_a_user_with_the_rights_that_the_page_lists_relays(redis_server, client, rights, caplog):
    with ScriptedServer(numbered(20)) as server:
        with running(Relay(server.url, as_user(redis_server), lease=LEASE)):
            wait_until(lambda: log(client) == texts(20))
    assert not client.exists("{orders}:lease")
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_each_right_that_the_page_lists_is_needed(redis_server, client, rights, caplog):
    caplog.set_level(logging.INFO)
    for right in [word for word in rights if word[0] == "+"]:
        client.flushall()
        client.script_flush()
        client.xgroup_create("orders", "billing", mkstream=True)
        client.execute_command("ACL", "SETUSER", "relay", f"-{right[1:]}")
        caplog.clear()
        sink = as_user(redis_server)
        refused = ""
        try:
            sink.claim()
            sink.lease(LIMIT)
            sink.lease(LIMIT)
            sink.append(messages(1), "1")
        except EventSourceError as error:
            refused = str(error)
        sink.close()
        refused += caplog.text
        command = right[1:].partition("|")[0]
        assert re.search(f"NoPermissionError: {command}|the script uses a command", refused), right
        assert SECRET not in refused
        client.execute_command("ACL", "SETUSER", "relay", right)


def test_without_the_right_to_info_it_says_so_once_and_goes_on(
    redis_server, client, rights, caplog
):
    client.execute_command("ACL", "SETUSER", "relay", "-info")
    sink = as_user(redis_server)
    assert sink.claim() == ""
    sink.append(messages(1), "1")
    assert sink.claim() == "1"
    sink.close()
    found = [record for record in caplog.records if "INFO is refused" in record.getMessage()]
    assert [record.levelname for record in found] == ["WARNING"]
    assert "NoPermissionError: info" in found[0].getMessage()


# --- Redis hangs ---


def test_after_a_reply_that_did_not_come_the_lease_is_not_given_up(redis_server, client, caplog):
    caplog.set_level(logging.INFO)
    sink = RedisStream(redis_server.url, "orders", timeout=0.3)
    sink.lease(3 * LIMIT)
    redis_server.signal(signal.SIGSTOP)
    with pytest.raises(EventSourceError, match="TimeoutError"):
        sink.lease(3 * LIMIT)
    redis_server.signal(signal.SIGCONT)
    sink.close()
    assert client.exists("{orders}:lease")
    assert "left to run out: Redis has not answered in time" in caplog.text


def test_one_that_answers_again_is_told_of_the_end(redis_server, client):
    sink = RedisStream(redis_server.url, "orders", timeout=0.3)
    sink.lease(3 * LIMIT)
    redis_server.signal(signal.SIGSTOP)
    with pytest.raises(EventSourceError, match="TimeoutError"):
        sink.lease(3 * LIMIT)
    redis_server.signal(signal.SIGCONT)
    wait_until(lambda: client.ping())
    sink.lease(3 * LIMIT)
    sink.close()
    assert not client.exists("{orders}:lease")


def test_close_does_not_wait_for_the_timeout_of_a_redis_that_hangs(redis_server, caplog):
    caplog.set_level(logging.INFO)
    sink = RedisStream(redis_server.url, "orders", timeout=10 * LIMIT)
    sink.lease(3 * LIMIT)
    redis_server.signal(signal.SIGSTOP)
    thread = threading.Thread(target=sink.close)
    thread.start()
    thread.join(LIMIT)
    assert not thread.is_alive()
    redis_server.signal(signal.SIGCONT)
    assert "left to run out: Redis: TimeoutError" in caplog.text


def test_a_relay_ends_within_the_grace_of_a_container_though_redis_hangs():
    """Docker's is 10 s: the reply that is waited for, and that of the release."""
    timeout = inspect.signature(RedisStream).parameters["timeout"].default
    assert timeout + module.FAREWELL_SECONDS <= 6


def test_a_wrong_password_is_an_error_that_does_not_quote_it(tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    with RedisServer(tmp_path) as server:
        with server.client() as client:
            client.config_set("requirepass", "another")
        url = server.url.replace("//", f"//user:{SECRET}@")
        sink = RedisStream(url, "orders")
        with pytest.raises(EventSourceError, match="Redis: ") as caught:
            sink.claim()
        error = caught.value
        while error is not None:
            assert SECRET not in str(error)
            error = error.__context__
        sink.close()
        assert SECRET not in caplog.text + repr(sink)


def test_a_server_that_is_not_there_is_named():
    sink = RedisStream("redis://127.0.0.1:9/0", "orders")
    with pytest.raises(EventSourceError, match=r"ConnectionError: .*127\.0\.0\.1:9"):
        sink.claim()
    sink.close()


@pytest.mark.parametrize(
    ("arguments", "options", "kind", "name"),
    [
        ((f"http://u:{SECRET}@host", "a"), {}, ValueError, "url"),
        ((f"redis://u:a/{SECRET}@host", "a"), {}, ValueError, "url"),
        ((7, "a"), {}, TypeError, "url"),
        (("redis://host", ""), {}, ValueError, "name"),
        (("redis://host", "a{b"), {}, ValueError, "name"),
        (("redis://host", "{}a"), {}, ValueError, "name"),
        (("redis://host", 7), {}, TypeError, "name"),
        (("redis://host", "a"), {"maxlen": 0}, ValueError, "maxlen"),
        (("redis://host", "a"), {"maxlen": "1"}, TypeError, "maxlen"),
        (("redis://host", "a"), {"timeout": 0}, ValueError, "timeout"),
    ],
)
def test_what_cannot_be_used_is_refused_by_name(arguments, options, kind, name):
    with pytest.raises(kind, match=name) as caught:
        RedisStream(*arguments, **options)
    assert SECRET not in str(caught.value) + str(caught.value.__context__)


# --- The extra ---


def test_redis_is_imported_only_if_it_is_used():
    code = "import sys, eventsource.relay; assert 'redis' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_without_the_extra_the_error_names_it():
    code = (
        "import sys\n"
        "sys.modules['redis'] = None\n"
        "try:\n"
        "    from eventsource.relay import RedisStream\n"
        "except ImportError as error:\n"
        "    print(error)\n"
    )
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert "python -m pip install redis" in run.stdout
