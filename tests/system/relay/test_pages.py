"""The programs of docs/how-to/relay.md, run as they are but for the addresses in them."""

from __future__ import annotations

import contextlib
import re
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from eventsource import EventStream
from eventsource.testing import ScriptedServer
from tests.real_servers.process import free_port
from tests.relay.forwarder import Forwarder
from tests.relay.numbered import numbered, texts
from tests.support import LIMIT, QUICK, messages, wait_until

PAGE = (Path(__file__).parents[3] / "docs" / "how-to" / "relay.md").read_text("utf-8")
PROGRAMS = dict(re.findall(r'```python title="([\w.]+)"\n(.*?)```', PAGE, re.DOTALL))


@contextlib.contextmanager
def program(name, folder, *arguments, **addresses):
    """Within, a program of the page runs."""
    code = PROGRAMS[name]
    for address, real in (
        ("redis://localhost", addresses.get("redis")),
        ("https://example.com/orders", addresses.get("stream")),
    ):
        if real is not None:
            assert address in code
            code = code.replace(address, real)
    (folder / name).write_text(code)
    with (folder / f"{name}.txt").open("wb") as lines:
        process = subprocess.Popen(
            [sys.executable, str(folder / name), *arguments], stdout=lines, stderr=lines
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait(LIMIT)
        print((folder / f"{name}.txt").read_text()[-3000:])


def test_the_relay_and_its_consumers(redis_server, tmp_path):
    pytest.importorskip("redis")
    where = {"redis": redis_server.url}
    with ScriptedServer(numbered(20)) as server, redis_server.client() as client:
        with program("relay.py", tmp_path, stream=server.url, **where) as relay:
            wait_until(lambda: client.xlen("orders") == 20)
            relay.send_signal(signal.SIGTERM)
            assert relay.wait(LIMIT) == 0
        with program("consumer.py", tmp_path, "one", **where):
            wait_until(lambda: client.llen("invoices") == 20)
        # What was dealt with, and whose acknowledgement was lost, has no second effect.
        client.xgroup_destroy("orders", "billing")
        client.rpush("invoices", "before")
        with program("consumer.py", tmp_path, "two", **where):
            wait_until(lambda: client.exists("orders") and is_acknowledged(client))
        assert client.lrange("invoices", 0, -1) == [*texts(20), "before"]
        port = free_port()
        with program("serve.py", tmp_path, str(port), **where):
            url = f"http://127.0.0.1:{port}/"
            with EventStream(url, reconnect=QUICK) as stream:
                found = messages(stream, 20)
                assert [event.data for event in found] == texts(20)
            with EventStream(url, last_event_id=found[14].last_event_id) as stream:
                assert [event.data for event in messages(stream, 5)] == texts(20)[15:]


def test_an_entry_that_two_members_have_at_once_has_one_effect(redis_server, tmp_path):
    """One has looked whether it was dealt with, is slow, and another one claims the entry."""
    pytest.importorskip("redis")
    with Forwarder(redis_server.port) as front, redis_server.client() as client:
        client.xadd("orders", {"id": "1", "type": "message", "data": "a", "n": "1"})
        front.hold(b"XACK")
        with program("consumer.py", tmp_path, "one", redis=f"redis://127.0.0.1:{front.port}"):
            assert front.holds.wait(LIMIT)
            client.xautoclaim("orders", "billing", "two", 0)
            with program("consumer.py", tmp_path, "two", redis=redis_server.url):
                wait_until(lambda: is_acknowledged(client))
            front.go_on()
            client.xadd("orders", {"id": "2", "type": "message", "data": "b", "n": "2"})
            wait_until(lambda: client.lrange("invoices", -1, -1) == ["b"])
        assert client.lrange("invoices", 0, -1) == ["a", "b"]


def is_acknowledged(client):
    groups = client.xinfo_groups("orders")
    return groups and all(group["lag"] == group["pending"] == 0 for group in groups)


def test_a_sink_of_ones_own(tmp_path):
    path = tmp_path / "log.sqlite"

    def stored():
        with contextlib.closing(sqlite3.connect(path)) as db, contextlib.suppress(sqlite3.Error):
            return [data for (data,) in db.execute("select data from log order by n")]

    with ScriptedServer(numbered(10), numbered(30)) as server:
        with program("table.py", tmp_path, str(path), stream=server.url):
            wait_until(lambda: stored() == texts(10))
        with program("table.py", tmp_path, str(path), stream=server.url):
            wait_until(lambda: stored() == texts(30))
        assert server.requests[1].last_event_id == "10"
