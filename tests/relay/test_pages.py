"""The programs of docs/how-to/relay.md, run as they are but for the addresses in them."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from eventsource import EventStream
from eventsource.testing import ScriptedServer
from tests.real_servers.process import free_port
from tests.support import LIMIT, QUICK, messages, unavailable, wait_until

from .numbered import numbered, texts

PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "relay.md").read_text("utf-8")
PROGRAMS = dict(re.findall(r'```python title="([\w.]+)"\n(.*?)```', PAGE, re.DOTALL))


@contextlib.contextmanager
def program(name, folder, *arguments, **addresses):
    """Within, a program of the page runs."""
    code = PROGRAMS[name]
    for address, real in (
        ("redis://localhost", addresses.get("redis")),
        ("postgresql://localhost/orders", addresses.get("postgres")),
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


@pytest.fixture
def postgres():
    """The address of a PostgreSQL of the test's own, which does not run as root."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not programs:
        unavailable("needs postgresql")
    psycopg = pytest.importorskip("psycopg")
    as_root = os.geteuid() == 0
    who = {"user": "postgres", "group": "postgres"} if as_root else {}
    folder = Path(tempfile.mkdtemp(prefix="eventsource-"))
    if as_root:
        shutil.chown(folder, "postgres", "postgres")
    data, port = folder / "data", free_port()
    address = f"postgresql://tester@127.0.0.1:{port}/postgres"
    initdb = [programs[-1] / "initdb", "-D", data, "-U", "tester", "-A", "trust", "--no-sync"]
    subprocess.run(initdb, check=True, capture_output=True, cwd="/", **who)
    options = ["-c", "listen_addresses=127.0.0.1", "-c", f"unix_socket_directories={folder}"]
    server = subprocess.Popen(
        [programs[-1] / "postgres", "-D", data, "-p", str(port), *options],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
        **who,
    )

    def answers():
        assert server.poll() is None
        with contextlib.suppress(psycopg.OperationalError):
            psycopg.connect(address).close()
            return True

    try:
        wait_until(answers, "PostgreSQL to answer")
        yield address
    finally:
        server.send_signal(signal.SIGINT)  # fast shutdown: all its processes end
        server.wait(LIMIT)
        shutil.rmtree(folder)


def test_a_log_in_postgresql(postgres, tmp_path):
    import psycopg

    def stored():
        with contextlib.suppress(psycopg.Error), psycopg.connect(postgres) as db:
            return [data for (data,) in db.execute("select data from log order by n")]

    folders = [tmp_path / name for name in ("one", "two")]
    for folder in folders:
        folder.mkdir()
    with ScriptedServer(numbered(10), numbered(30)) as server:
        where = {"stream": server.url, "postgres": postgres}
        with program("postgres.py", folders[0], **where) as first:
            wait_until(lambda: stored() == texts(10))
            with program("postgres.py", folders[1], **where) as second:
                first.kill()  # the other stands by, and takes over
                wait_until(lambda: stored() == texts(30))
                second.send_signal(signal.SIGTERM)
                assert second.wait(LIMIT) == 0
