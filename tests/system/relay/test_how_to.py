"""The programs of the pages about NATS and PostgreSQL, as they are there, killed again and again."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from eventsource.testing import ScriptedServer
from tests import pages
from tests.support import HEAD, LIMIT, imported, unavailable, wait_until

ROOT = Path(__file__).parents[3]
LAST = 400
KILLS = 5

pytestmark = pytest.mark.timeout(4 * LIMIT)


class Upstream:
    """Sends events 1, 2, ... in parts, up to the one that `allow` has named."""

    def __init__(self):
        self._allowed = 0
        self._changed = threading.Condition()
        self._server = ScriptedServer(self._send_a_few)
        self.url = self._server.url

    def allow(self, last):
        with self._changed:
            self._allowed = last
            self._changed.notify_all()

    def _send_a_few(self, connection):
        """Each connection ends after some, so that the relay's reads differ."""
        place = int(connection.read_request().header("Last-Event-ID") or 0)
        connection.send(HEAD + b"retry: 20\n\n")
        with self._changed:
            self._changed.wait_for(lambda: self._allowed > place, LIMIT)
            allowed = min(place + 20, self._allowed)
        for number in range(place + 1, allowed + 1):
            connection.send_event(f"event {number}", id=str(number))

    def close(self):
        self.allow(LAST + 1)  # nobody waits any more
        self._server.close()


@pytest.fixture
def upstream():
    with contextlib.closing(Upstream()) as upstream:
        yield upstream


class Desk:
    """A folder with the programs of a page, which are run there."""

    def __init__(self, folder, page):
        self.folder = folder
        for block in pages.read(ROOT / "docs" / "how-to" / page):
            if block.title:
                (folder / block.title).write_text(block.code)
        self._running = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in [*self._running]:
            self.end(process, signal.SIGKILL)

    def start(self, *command):
        log = (self.folder / f"{command[0]}.log").open("ab")
        with log:
            process = subprocess.Popen(
                [sys.executable, *command],
                cwd=self.folder,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stdout=log,
                stderr=log,
            )
        self._running.append(process)
        return process

    def end(self, process, number):
        process.send_signal(number)
        process.wait(LIMIT)
        if process in self._running:
            self._running.remove(process)
        return process.returncode

    def kill_again_and_again(self, count, *command, allow=lambda last: None, limit=2 * LIMIT):
        """Run a command until `count()` has come to LAST; kill it a few times on the way."""
        for kill in range(1, KILLS + 1):
            process = self.start(*command)
            goal = LAST * kill // (KILLS + 1)
            allow(goal + 30)
            wait_until(lambda goal=goal: count() >= goal, f"{goal}: {self.told()}", limit)
            self.end(process, signal.SIGKILL)
        process = self.start(*command)
        allow(LAST)
        wait_until(lambda: count() >= LAST, "all events", limit)
        return process

    def told(self):
        return [path.read_text()[-1000:] for path in self.folder.glob("*.log")]


EXPECTED = [f"event {number}" for number in range(1, LAST + 1)]


def rows_of(path, statement):
    with contextlib.suppress(sqlite3.OperationalError):  # there is no table yet
        with contextlib.closing(sqlite3.connect(path, timeout=LIMIT)) as database:
            return [data for (data,) in database.execute(statement)]
    return []


def test_the_programs_about_nats_lose_nothing(tmp_path, upstream):
    imported("nats")
    from tests.relay.nats_server import NatsServer

    with NatsServer(tmp_path) as server, Desk(tmp_path, "relay-nats.md") as desk:
        # A lease of ten seconds would be waited for after each kill.
        path = tmp_path / "relay_nats.py"
        path.write_text(path.read_text().replace("lease=10.0", "lease=0.3"))
        relay = desk.kill_again_and_again(
            lambda: len(server.data()),
            "relay_nats.py",
            upstream.url,
            server.url,
            allow=upstream.allow,
        )
        assert server.data() == EXPECTED
        assert desk.end(relay, signal.SIGTERM) == 0

        def in_order():
            return rows_of(tmp_path / "orders.db", "SELECT data FROM orders ORDER BY sequence")

        desk.kill_again_and_again(lambda: len(in_order()), "in_order.py", server.url)
        assert in_order() == EXPECTED

        path = tmp_path / "worker.py"
        path.write_text(path.read_text().replace("ack_wait=10", "ack_wait=1"))

        def shared():
            return rows_of(tmp_path / "work.db", "SELECT data FROM work ORDER BY sequence")

        desk.kill_again_and_again(lambda: len(shared()), "worker.py", server.url)
        assert shared() == EXPECTED


def test_the_consumers_of_nats_go_on_behind_what_was_deleted(tmp_path):
    """Also of what they had been given, and had not acknowledged."""
    imported("nats")
    from nats.js.api import ConsumerConfig

    from tests.relay.nats_server import NatsServer

    async def prepare(_, js):
        await js.add_stream(name="orders", subjects=["orders"])
        for number in range(1, 6):
            await js.publish("orders", b"event %d" % number, headers={"Event-Id": f"{number}"})
        worker = await js.pull_subscribe(
            "orders", durable="billing", stream="orders", config=ConsumerConfig(ack_wait=1)
        )
        assert len(await worker.fetch(2)) == 2
        await js.purge_stream("orders", keep=2)

    with NatsServer(tmp_path) as server, Desk(tmp_path, "relay-nats.md") as desk:
        server.run(prepare)
        path = tmp_path / "worker.py"
        path.write_text(path.read_text().replace("ack_wait=10", "ack_wait=1"))
        desk.start("in_order.py", server.url)
        desk.start("worker.py", server.url)
        for name, statement in (
            ("orders.db", "SELECT data FROM orders ORDER BY sequence"),
            ("work.db", "SELECT data FROM work ORDER BY sequence"),
        ):
            path = tmp_path / name
            wait_until(
                lambda path=path, statement=statement: (
                    rows_of(path, statement) == ["event 4", "event 5"]
                ),
                "what is left",
            )


class PostgreSQLServer:
    """Debian's, in a folder of its own, on a socket there."""

    def __init__(self):
        found = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
        path = os.pathsep.join([*map(str, reversed(found)), os.environ.get("PATH", "")])
        self._initdb = shutil.which("initdb", path=path)
        self._postgres = shutil.which("postgres", path=path)
        if not (self._initdb and self._postgres):
            unavailable("PostgreSQL is not installed")
        # Not pytest's folder: another user than root must get there, and as a socket's path
        # that is too long.
        self.folder = Path(tempfile.mkdtemp(prefix="pg-"))
        self._user = {}
        if os.geteuid() == 0:  # which PostgreSQL refuses
            shutil.chown(self.folder, "postgres")
            self._user = {"user": "postgres", "extra_groups": []}
        self.url = f"postgresql:///postgres?host={self.folder}&user=me"

    def __enter__(self):
        subprocess.run(
            [self._initdb, "-D", self.folder / "data", "-U", "me", "-A", "trust", "--no-sync"],
            check=True,
            capture_output=True,
            cwd=self.folder,
            timeout=LIMIT,
            **self._user,
        )
        self.start()
        return self

    def start(self):
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *(self._postgres, "-D", self.folder / "data", "-k", self.folder),
                    *("-c", "listen_addresses=", "-c", "fsync=off"),
                ],
                cwd=self.folder,
                stdout=log,
                stderr=log,
                **self._user,
            )
        wait_until(self._answers, "PostgreSQL to start")

    def _answers(self):
        import psycopg

        assert self._process.poll() is None, (self.folder / "log").read_text()[-2000:]
        with contextlib.suppress(psycopg.OperationalError):
            psycopg.connect(self.url).close()
            return True
        return False

    def data(self):
        import psycopg

        with contextlib.suppress(psycopg.errors.UndefinedTable):
            with psycopg.connect(self.url) as connection:
                return [row[0] for row in connection.execute("SELECT data FROM events ORDER BY n")]
        return []

    def stop(self):
        self._process.send_signal(signal.SIGQUIT)  # at once, with its children; a crash on disk
        self._process.wait(LIMIT)

    def __exit__(self, *_):
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


@pytest.fixture
def postgresql():
    imported("psycopg")
    with PostgreSQLServer() as server:
        yield server


def test_the_program_about_postgresql_loses_nothing(tmp_path, upstream, postgresql):
    with Desk(tmp_path, "relay-postgresql.md") as desk:
        relay = desk.kill_again_and_again(
            lambda: len(postgresql.data()),
            "relay_postgresql.py",
            upstream.url,
            postgresql.url,
            allow=upstream.allow,
        )
        assert postgresql.data() == EXPECTED
        assert desk.end(relay, signal.SIGTERM) == 0


@pytest.fixture
def sink_class(tmp_path, monkeypatch):
    Desk(tmp_path, "relay-postgresql.md")
    monkeypatch.syspath_prepend(str(tmp_path))
    import relay_postgresql

    yield relay_postgresql.PostgreSQL
    del sys.modules["relay_postgresql"]


def test_the_sink_for_postgresql_keeps_the_protocol(postgresql, sink_class):
    from eventsource import MessageEvent
    from eventsource.relay import Superseded

    one, two = sink_class(postgresql.url, "orders"), sink_class(postgresql.url, "orders")
    with contextlib.closing(one), contextlib.closing(two):
        assert one.claim() == ""
        one.append([MessageEvent("message", "a\0b", "1")], "1")
        assert one.lease(10)
        assert one.lease(10)
        assert not two.lease(10)
        assert two.claim() == "1"
        with pytest.raises(Superseded):
            one.append([MessageEvent("message", "twice", "2")], "2")
        two.append([MessageEvent("message", "c", "2")], "2")
        two._place = "1"  # as if the answer to the commit had been lost
        with pytest.raises(Superseded):
            two.append([MessageEvent("message", "twice", "2")], "2")
        two.claim()
        two.append([], "3")
        one.close()
        wait_until(lambda: two.lease(10), "the lock to be free")
        assert two.claim() == "3"
    assert postgresql.data() == ["a\ufffdb", "c"]


def test_the_sink_for_postgresql_survives_a_crash_of_the_database(postgresql, sink_class):
    import psycopg

    from eventsource import MessageEvent

    with contextlib.closing(sink_class(postgresql.url, "orders")) as sink:
        sink.claim()
        sink.append([MessageEvent("message", "a", "1")], "1")
        postgresql.stop()
        with pytest.raises(psycopg.OperationalError):
            sink.append([MessageEvent("message", "b", "2")], "2")
        postgresql.start()
        assert sink.claim() == "1"
        sink.append([MessageEvent("message", "b", "2")], "2")
    assert postgresql.data() == ["a", "b"]
