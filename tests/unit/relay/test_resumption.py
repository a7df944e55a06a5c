"""A log that stores one event after another: nothing is lost or comes twice, wherever it fails."""

from __future__ import annotations

import itertools

import pytest

from eventsource.protocol.events import MessageEvent
from eventsource.relay.resumption import ResumePoint, Resumption


def numbered(ids):
    """Events with those ids, each with data of its own."""
    return [MessageEvent("message", f"{n}", each) for n, each in enumerate(ids)]


def sent_after(place, events):
    """What a server sends that resumes after an id."""
    ids = [event.last_event_id for event in events]
    return events[len(ids) - ids[::-1].index(place) :] if place in ids else events


def batches(events, size):
    for start in range(0, len(events), size):
        batch = events[start : start + size]
        yield batch, batch[-1].last_event_id


RUNS = ["1", "11", "12", "112", "122", "123", "1122", "1222", "11222", "112223"]


@pytest.mark.parametrize("ids", RUNS)
@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_after_any_prefix_of_a_batch_each_event_is_stored_once(ids, size):
    events = numbered(ids)
    for stored in range(len(events) + 1):
        log = [(None, ResumePoint())]
        steps = Resumption(ResumePoint()).advance(events, ids[-1])
        log += itertools.islice(steps, stored)
        resumption = Resumption(log[-1][1])
        for batch, last_event_id in batches(sent_after(log[-1][1].place, events), size):
            log += resumption.advance(batch, last_event_id)
        assert [event for event, _ in log if event is not None] == events
        assert log[-1][1] == resumption.point == ResumePoint(ids[-1])


@pytest.mark.parametrize("ids", RUNS)
def test_after_any_two_failures_each_event_is_stored_once(ids):
    events = numbered(ids)
    for first, second in itertools.product(range(len(events) + 1), repeat=2):
        log = [(None, ResumePoint())]
        for stored in (first, second, None):
            point = log[-1][1]
            if again := sent_after(point.place, events):
                steps = Resumption(point).advance(again, ids[-1])
                log += itertools.islice(steps, stored)
        assert [event for event, _ in log if event is not None] == events


def test_until_all_stored_events_have_come_again_an_id_moves_no_place():
    point = ResumePoint("1", "2", stored=2)
    resumption = Resumption(point)
    first, second = numbered("22")
    assert [*resumption.advance([], "1a")] == []
    assert [*resumption.advance([first], "2")] == []
    assert resumption.point == point
    assert [*resumption.advance([second], "2")] == [(None, ResumePoint("2"))]
    assert [*resumption.advance([], "2a")] == [(None, ResumePoint("2a"))]


def test_an_event_of_another_id_is_not_taken_for_a_stored_one():
    resumption = Resumption(ResumePoint("1", "2", stored=2))
    first, other, another = numbered("233")
    assert [*resumption.advance([first], "2")] == []
    assert [*resumption.advance([other, another], "4")] == [
        (other, ResumePoint("1", "3", stored=1)),
        (another, ResumePoint("4")),
    ]


def test_events_that_come_again_in_an_earlier_read_are_counted():
    resumption = Resumption(ResumePoint("1", "2", stored=2))
    first, second, third, last = numbered("2223")
    assert [*resumption.advance([first], "2")] == []
    assert [*resumption.advance([second, third, last], "3")] == [
        (third, ResumePoint("2")),
        (last, ResumePoint("3")),
    ]
    resumption = Resumption(ResumePoint("1", "2", stored=2))
    first, second, third, fourth = numbered("2222")
    assert [*resumption.advance([first], "2")] == []
    assert next(resumption.advance([second, third, fourth], "2")) == (
        third,
        ResumePoint("1", "2", stored=3),
    )


def test_events_with_the_id_of_the_place_are_not_counted():
    """They have no id of their own: a server that resumes there sends none of them again."""
    first, second = numbered("11")
    resumption = Resumption(ResumePoint("1"))
    assert [*resumption.advance([first, second], "1")] == [
        (first, ResumePoint("1")),
        (second, ResumePoint("1")),
    ]


def test_the_same_place_again_is_not_stored():
    resumption = Resumption(ResumePoint("1"))
    assert [*resumption.advance([], "1")] == []
    assert [*resumption.advance([], "")] == [(None, ResumePoint(""))]
