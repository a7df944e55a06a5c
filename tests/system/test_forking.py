"""docs/how-to/forking.md: its recipes, word for word, under the servers that they are for.

`example.com` is a server of the test, and the port 8000 a free one (`pages/on_path`). Celery's
broker is a folder: so it says in the environment, which goes before what the program says.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import subprocess
import sysconfig
import time
import urllib.request
from pathlib import Path

import pytest

from eventsource.testing import ScriptedServer
from tests import pages
from tests.authority import AUTHORITY, server_context
from tests.support import HEAD, LIMIT, wait_until

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork"),
    pytest.mark.timeout(5 * LIMIT),
]

ON_PATH = Path(__file__).parents[1] / "pages" / "on_path"
PAGE = list(pages.read(Path(__file__).parents[2] / "docs" / "how-to" / "forking.md"))
FILES = {block.title: block.code for block in PAGE if block.title}
TOLD = "closed: the process has been forked; make it, or start it, in the child\n"
"""What each child logs of a source that was started too early."""


def command(beginning):
    [found] = [block.code for block in PAGE if block.code.startswith(beginning)]
    return found


def send_a_price(connection):
    connection.read_request()
    connection.send(HEAD + b'event: price\ndata: {"symbol": "ACME", "price": 101.5}\n\n')
    connection.hold()


class Folder:
    """Where the page's files are, and its commands are run."""

    def __init__(self, folder, port):
        self.folder = folder
        for name in ("home", "network", "data_in", "results"):
            (folder / name).mkdir()
        (folder / "data_out").symlink_to("data_in")  # what is sent to the broker comes out of it
        self.network = folder / "network"
        (self.network / "443").write_text(str(port))
        AUTHORITY.cert_pem.write_to_path(str(folder / "ca.pem"))
        self.environment = {
            **os.environ,
            "PATH": os.pathsep.join((sysconfig.get_path("scripts"), os.environ["PATH"])),
            "PYTHONPATH": str(ON_PATH),
            "PAGES_NETWORK": str(self.network),
            "REQUESTS_CA_BUNDLE": str(folder / "ca.pem"),
            "HOME": str(folder / "home"),
            "NO_PROXY": "*",
            "CELERY_BROKER_URL": "filesystem://",
            "CELERY_RESULT_BACKEND": (folder / "results").as_uri(),
        }

    def write(self, name, text):
        (self.folder / name).write_text(text, "utf-8")

    def log(self):
        return (self.folder / "log").read_text("utf-8")

    def run(self, line):
        return subprocess.run(
            shlex.split(line),
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=2 * LIMIT,
            check=True,
        ).stdout

    @contextlib.contextmanager
    def running(self, line):
        """A server that is ended by SIGTERM, and ends in peace."""
        with (self.folder / "log").open("w") as log:
            process = subprocess.Popen(
                shlex.split(line),
                cwd=self.folder,
                env=self.environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            yield process
            process.terminate()
            assert process.wait(LIMIT) == 0, self.log()
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def ask(self):
        """What a worker of gunicorn's says."""
        port = int((self.network / "8000").read_text())
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=LIMIT) as response:
            return json.load(response)

    def wait_for_answer(self, condition):
        """Ask until the answer is so, since a worker needs a moment after its first event."""
        deadline = time.monotonic() + LIMIT
        while not condition(answer := self.ask()):
            assert time.monotonic() < deadline, answer
        return answer


@pytest.fixture
def server():
    with ScriptedServer(send_a_price, ssl_context=server_context(host="example.com")) as server:
        yield server


@pytest.fixture
def folder(tmp_path, server):
    return Folder(tmp_path, server.port)


def wait_for_connections(server, count):
    wait_until(lambda: len(server.requests) >= count, f"{count} requests")


def test_each_worker_of_gunicorn_has_a_source_by_the_recipe(folder, server):
    pytest.importorskip("gunicorn")
    folder.write("prices.py", FILES["prices.py"])
    folder.write("gunicorn.conf.py", FILES["gunicorn.conf.py"])
    with folder.running(command("gunicorn --preload")):
        wait_for_connections(server, 2)
        first = folder.wait_for_answer(lambda answer: answer["latest"] == {"ACME": 101.5})
        os.kill(first["worker"], signal.SIGSTOP)  # so that the other one answers
        try:
            second = folder.wait_for_answer(lambda answer: answer["latest"] == {"ACME": 101.5})
        finally:
            os.kill(first["worker"], signal.SIGCONT)
        assert second["worker"] != first["worker"]
        assert len(server.requests) == 2  # the master has none
        os.kill(first["worker"], signal.SIGTERM)
        wait_for_connections(server, 3)  # of the worker that takes its place
    assert TOLD not in folder.log()
    assert "Traceback" not in folder.log()


def started_too_early(name):
    """A file of the page as it would be without its recipe."""
    text = FILES[name].replace(", start=False", "").replace("@worker_process_init.connect", "")
    assert text != FILES[name]
    return text


def test_without_the_recipe_each_worker_of_gunicorn_says_so_once(folder, server):
    pytest.importorskip("gunicorn")
    report = """

def report(environ, start_response):
    app(environ, start_response)
    return [json.dumps([type(source.error).__name__, source.ready_state.name]).encode()]
"""
    folder.write("prices.py", started_too_early("prices.py") + report)
    with folder.running(command("gunicorn --preload").replace("prices:app", "prices:report")):
        wait_until(lambda: folder.log().count("Booting worker") == 2, "two workers")
        assert folder.ask() == ["ForkedError", "CLOSED"]
        wait_until(lambda: folder.log().count(TOLD) == 2, "two warnings")
        wait_for_connections(server, 1)
    assert folder.log().count(TOLD) == 2
    assert len(server.requests) == 1  # the master's


def test_each_process_of_celery_has_a_source_by_the_recipe(folder, server):
    pytest.importorskip("celery")
    folder.write("tasks.py", FILES["tasks.py"])
    with folder.running(command("celery -A tasks")):
        wait_for_connections(server, 2)
        deadline = time.monotonic() + LIMIT
        while (answer := folder.run(command("python -c"))) != "101.5\n":
            assert time.monotonic() < deadline, answer
        assert len(server.requests) == 2  # neither the one that forks nor the one that asks
    assert TOLD not in folder.log()
