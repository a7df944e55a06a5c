"""Whether a server resumes, by what came before and after."""

from __future__ import annotations

import pytest

from eventsource.cli.check import resuming
from eventsource.cli.check.resuming import Answer, Plan, is_settled, plan, resume
from tests.wire import connection, event, events, observation

BEFORE = observation(connection((0, events(range(1, 31))), until=30))
"""Events 1 to 30 came: what is asked for is what followed 20."""


def judged(*blocks, ends=None, seen=BEFORE):
    planned = plan(seen)
    assert isinstance(planned, Plan)
    answer = (
        connection((1, b"".join(blocks)), until=11, ends=ends) if blocks else connection(until=10)
    )
    return resume(planned, Answer(answer))


def test_it_asks_for_what_followed_an_event_ten_before_the_last():
    planned = plan(BEFORE)
    assert planned.id == "20"
    assert list(planned.expected) == [str(number) for number in range(21, 31)]


@pytest.mark.parametrize(
    ("count", "id_"), [(2, "1"), (3, "2"), (4, "3"), (5, "3"), (13, "3"), (14, "4")]
)
def test_with_fewer_events_it_asks_for_less(count, id_):
    assert plan(observation(connection((0, events(range(1, count + 1)))))).id == id_


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b": nothing\n\n", "no event came"),
        (events(range(9), id=False), "no event has an id"),
        (event(1), "too few"),
        (event(1) * 9, "more than once"),
        (b"id: \x1b\ndata: x\n\n" + event(1), "too few"),
    ],
)
def test_it_says_why_it_cannot_be_told(body, why):
    found = plan(observation(connection((0, body))))
    assert isinstance(found, str)
    assert why in found
    assert resuming.untold(found).level == "note"


def test_the_latest_connection_with_enough_events_is_taken():
    seen = observation(
        connection((0, events(range(1, 31))), ends=1),
        connection((2, events(range(31, 36))), asked=2, ends=3),
        connection((4, event(36)), asked=4, until=30),
    )
    planned = plan(seen)
    assert (planned.id, list(planned.expected)) == ("33", ["34", "35"])
    assert {"1", "30", "33", "36"} <= planned.before


# --- A server that resumes ---


def test_what_followed_comes_again():
    found = judged(events(range(21, 31)))
    assert found.level == "ok"
    assert "'20': 10 of 10" in found.evidence


def test_new_events_may_come_too():
    new = event(0, id=False, data="hello") + event("new-1") + events(range(21, 25))
    assert judged(new + event("new-2") + events(range(25, 40))).level == "ok"


def test_it_may_take_its_time():
    assert judged(events(range(21, 26))).level == "ok"
    assert judged(events(range(21, 26)), ends=9).level == "ok"


def test_what_has_no_id_need_not_come_again():
    body = b"".join(event(n) + event(n, id=False) for n in range(1, 31))
    seen = observation(connection((0, body)))
    assert judged(events(range(21, 31)), seen=seen).level == "ok"


def test_a_greeting_with_an_id_is_no_new_beginning():
    assert judged(event(1), events(range(21, 31))).level == "ok"


def test_the_event_itself_once_more_is_worth_a_note():
    found = judged(events(range(20, 31)))
    assert (found.level, "once more" in found.what) == ("note", True)


# --- One that does not ---


def test_nothing_of_it():
    for blocks in ((events(range(31, 40)),), (b": hi\n\n",), (), (event(1, id=False),)):
        found = judged(*blocks)
        assert found.level == "problem"
        assert "does not send the events that followed" in found.what
    assert "no event at all, within" in judged().evidence


def test_a_new_beginning():
    for last in (2, 20, 30, 40):
        found = judged(events(range(1, last)) + event(last))
        assert (found.level, "starts over" in found.what) == ("problem", True)
    assert judged(events(range(1, 9), data="other")).level == "problem"


@pytest.mark.parametrize("missing", [[21], [25], [21, 22, 23], [29]])
def test_a_gap(missing):
    found = judged(events(number for number in range(21, 31) if number not in missing))
    assert (found.level, "omits some events" in found.what) == ("problem", True)
    assert repr(str(missing[0])) in found.evidence


def test_a_gap_at_the_end():
    found = judged(events(range(21, 26)) + event(31))
    assert (found.level, "omits some events" in found.what) == ("problem", True)


def test_another_order():
    found = judged(events([21, 23, 22, *range(24, 31)]))
    assert (found.level, "another order" in found.what) == ("problem", True)


def test_other_data_under_the_same_id():
    found = judged(events(range(21, 31), data="other"))
    assert (found.level, "different data" in found.what) == ("problem", True)


# --- No answer ---


def test_a_refusal_is_a_problem_unless_it_is_of_the_moment():
    planned = plan(BEFORE)
    assert resume(planned, Answer(None, 400, "400")).level == "problem"
    assert resume(planned, Answer(None, 204, "204")).level == "problem"
    assert resume(planned, Answer(None, 503, "503")).level == "note"
    assert resume(planned, Answer(None, None, "refused")).level == "note"


def test_it_is_settled_as_soon_as_it_is_plain():
    planned = plan(BEFORE)

    def settled(*blocks):
        return is_settled(planned, connection((0, b"".join(blocks))).events)

    assert settled(events(range(21, 31)))
    assert settled(events([1, 2]))
    assert settled(events([19, 20]))
    assert not settled(events([20, 21]))
    assert not settled(event(1))
    assert not settled(events(range(31, 50)))
