"""The limits of `eventsource check` are those that its help states."""

from __future__ import annotations

from eventsource.cli.check import command, resuming, watching


def test_the_limits_are_those_of_the_help():
    duration = next(option for option in command.command.params if option.name == "duration")
    assert (duration.default, "30 by default" in duration.help) == (30.0, True)
    text = " ".join(command.HELP.split())
    assert "made again within half a second, at most twenty times" in text
    assert 0 < watching.AGAIN_AFTER <= 0.5
    assert watching.LOSSES == 20
    assert "within ten seconds" in text
    assert resuming.SECONDS == 10
