"""`eventsource check` in this process."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

import pytest

from eventsource import cli
from eventsource.testing import ScriptedServer
from tests.support import status

NO_MORE = status("204 No Content")
"""What ends a watch, so that no test waits for its time to be up."""


@dataclass
class Checked:
    """What a run has come to."""

    status: int
    out: str
    err: str
    requests: list = field(default_factory=list)

    def __post_init__(self):
        self.result = json.loads(self.out) if self.out.startswith("{") else {}
        self.findings = {found["code"]: found for found in self.result.get("findings", ())}
        self.levels = {code: found["level"] for code, found in self.findings.items()}

    @property
    def problems(self):
        return [found for found in self.findings.values() if found["level"] == "problem"]


@pytest.fixture
def run(capfd):
    """Run `eventsource check` with these arguments."""

    def run(*arguments):
        capfd.readouterr()
        code = cli.main(["check", *arguments])
        out, err = capfd.readouterr()
        return Checked(code, out, err)

    return run


@pytest.fixture
def check(run):
    """Check a server that answers with these scripts, one connection after another; as JSON."""

    def check(*scripts, arguments=(), path="", **options):
        with ScriptedServer(*scripts, **options) as server:
            done = run("--format", "json", *arguments, server.url + path)
            done.requests = server.requests
        return done

    return check


@pytest.fixture
def soon(monkeypatch):
    """Connections that are lost are made again at once."""
    monkeypatch.setattr("eventsource.cli.check.watching.AGAIN_AFTER", 0.001)
