"""What goes out: no secret, no orders to a terminal, one line or two for each finding."""

from __future__ import annotations

import json

from eventsource.cli.check import showing
from eventsource.cli.check.finding import NOTE, OK, PROBLEM, Finding
from tests.wire import connection, event, observation

FOUND = Finding("status", PROBLEM, "It said abcd.", "abcdefgh, abcd", "Do this.")


def test_secrets_are_taken_out_the_longest_first():
    found = showing.without({"abcd", "abcdefgh"}, FOUND)
    assert (found.what, found.evidence) == ("It said ....", "..., ...")
    assert showing.without(set(), FOUND) == FOUND


def test_control_characters_are_written_out():
    found = showing.without((), FOUND._replace(what="a\x1b[31m\nb", evidence="\x9b\u202e"))
    assert (found.what, found.evidence) == ("a\\x1b[31m b", "\\x9b\\u202e")


def test_as_text():
    assert showing.as_text(FOUND) == (
        "problem  status: It said abcd. (abcdefgh, abcd)\n         Do this.\n"
    )
    assert showing.as_text(Finding("x", OK, "Well.")) == "ok       x: Well.\n"
    assert showing.on_terminal(FOUND).plain == showing.as_text(FOUND).rstrip("\n")


def test_the_summary_counts():
    assert showing.summary([FOUND, FOUND, Finding("x", NOTE, "")]) == "2 problems, 1 note"
    assert showing.summary([Finding("x", OK, "")]) == "no problem, 0 notes"


def test_figures_that_are_not_there_are_null():
    found = json.loads(showing.as_json("u", [FOUND], observation(connection(until=1.0))))
    assert found["findings"][0] == FOUND._asdict()
    assert found["figures"]["first_event_after"] is None
    assert found["figures"]["largest_event"] is None
    assert found["figures"]["longest_silence"] == 1.0
    figures = showing.figures(observation(connection((0.12345, event(1)), until=1.0)))
    assert figures["first_event_after"] == 0.123
