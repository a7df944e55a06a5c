"""The command `benchmarks.relay`: that it works, and that a figure is one of a right log."""

from __future__ import annotations

import pytest

from benchmarks import relay
from benchmarks.processes import Problem
from tests.support import imported

imported("redis")


@pytest.mark.parametrize("engine", ["redis", "nats"])
def test_a_row_is_printed(engine, capsys):
    imported(engine)
    assert relay.main(["--events", "200", "--only", engine]) == 0
    *_, row = capsys.readouterr().out.splitlines()
    assert row.startswith(f"| {relay.ENGINES[engine][0]} | ")


def test_a_log_that_is_not_what_was_sent_is_no_figure(monkeypatch, capsys):
    class Forgetful(relay.OneByOne):
        def append(self, events, last_event_id):
            self._sink.append([], last_event_id)

    monkeypatch.setattr(relay, "OneByOne", Forgetful)
    assert relay.main(["--events", "100", "--only", "redis"]) == 1
    said = capsys.readouterr()
    assert "the log is not what was sent" in said.err
    assert not said.out


def test_what_is_too_late_is_no_figure(monkeypatch):
    monkeypatch.setattr(relay, "GIVE_UP", -1.0)
    with pytest.raises(Problem, match="late"):
        relay.figures("redis", 100)
