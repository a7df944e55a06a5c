"""The events are small immutable values with the browser's numbers and spellings."""

from __future__ import annotations

import copy
import inspect
import json
import pickle
from types import MappingProxyType

import pytest

from eventsource import Comment, ErrorEvent, MessageEvent, OpenEvent, ReadyState

MESSAGE = MessageEvent("price", "7", "42", "https://example.com")
COMMENT = Comment("still here")
OPEN = OpenEvent("open", "https://example.com/s", 200, MappingProxyType({"Server": "x"}))
ERROR = ErrorEvent("error", ConnectionError("gone"), ReadyState.CONNECTING, 3.0)
every_event = pytest.mark.parametrize(
    "event", [MESSAGE, COMMENT, OPEN, ERROR], ids=lambda event: type(event).__name__
)


def pickled(value, protocol=None):
    return pickle.loads(pickle.dumps(value, protocol))  # noqa: S301 - these are our own bytes


# ---------------------------------------------------------------- ReadyState


def test_ready_states_have_the_numbers_of_the_standard():
    assert [state.name for state in ReadyState] == ["CONNECTING", "OPEN", "CLOSED"]
    assert [*ReadyState] == [0, 1, 2]


def test_a_ready_state_survives_pickling_as_itself():
    for state in ReadyState:
        assert pickled(state) is state


# ---------------------------------------------------------------- every event


def fields_of(event):
    return [*inspect.signature(type(event)).parameters]


@every_event
def test_nothing_of_an_event_can_be_set_deleted_or_added(event):
    for field in fields_of(event):
        before = getattr(event, field)
        with pytest.raises(AttributeError):
            setattr(event, field, "other")
        with pytest.raises(AttributeError):
            delattr(event, field)
        assert getattr(event, field) is before
    with pytest.raises(AttributeError):
        event.note = "mine"


@pytest.mark.parametrize(
    ("event", "type_"),
    [(MESSAGE, "price"), (COMMENT, "comment"), (OPEN, "open"), (ERROR, "error")],
    ids=lambda value: type(value).__name__ if isinstance(value, tuple) else value,
)
def test_every_event_says_its_type(event, type_):
    assert event.type == type_


@every_event
def test_the_repr_of_an_event_names_its_kind_and_its_fields(event):
    text = repr(event)
    assert text.startswith(type(event).__name__ + "(")
    for field in fields_of(event):
        value = getattr(event, field)
        shown = dict(value) if field == "headers" else value
        assert f"{field}={shown!r}" in text


@every_event
def test_events_are_equal_when_all_their_fields_are(event):
    fields = {field: getattr(event, field) for field in fields_of(event)}
    assert type(event)(**fields) == event == copy.copy(event)
    for field in fields:
        assert type(event)(**(fields | {field: "other"})) != event
    if event is not OPEN:  # whose header fields are a dict
        assert {event, type(event)(**fields)} == {event}


@pytest.mark.parametrize(
    ("event", "protocol"),
    [
        *((MESSAGE, protocol) for protocol in range(pickle.HIGHEST_PROTOCOL + 1)),
        *((COMMENT, None), (ERROR, None)),
    ],
)
def test_an_event_survives_pickling(event, protocol):
    again = pickled(event, protocol)
    assert type(again) is type(event)
    for field in fields_of(event):
        before, after = getattr(event, field), getattr(again, field)
        assert type(after) is type(before)
        assert repr(after) == repr(before)  # an exception equals only itself


# ---------------------------------------------------------------- MessageEvent


def test_a_message_event_needs_only_a_type():
    event = MessageEvent("message")
    assert (event.type, event.data, event.last_event_id, event.origin) == ("message", "", "", "")


def test_a_message_event_takes_its_fields_in_the_documented_order():
    assert fields_of(MESSAGE) == ["type", "data", "last_event_id", "origin"]
    assert (MESSAGE.type, MESSAGE.data) == ("price", "7")
    assert (MESSAGE.last_event_id, MESSAGE.origin) == ("42", "https://example.com")


def test_last_event_id_has_the_browsers_spelling_too():
    assert MESSAGE.lastEventId == "42"
    with pytest.raises(AttributeError):
        MESSAGE.lastEventId = "43"


@pytest.mark.parametrize(
    ("data", "value"),
    [
        ('{"price": 7.5, "of": ["a", null]}', {"price": 7.5, "of": ["a", None]}),
        ('{"on two":\n"lines"}', {"on two": "lines"}),
        ('"caf\u00e9 \\u2615"', "caf\u00e9 \u2615"),
        ("0", 0),
        ("null", None),
    ],
)
def test_json_returns_what_the_data_says(data, value):
    assert MessageEvent("message", data).json() == value


@pytest.mark.parametrize("data", ["", "{", "{'a': 1}", "1 2", "hello"])
def test_json_of_data_that_is_not_json_is_a_value_error(data):
    with pytest.raises(json.JSONDecodeError) as caught:
        MessageEvent("message", data).json()
    assert isinstance(caught.value, ValueError)
    assert caught.value.doc == data


# ---------------------------------------------------------------- the others


def test_the_type_of_a_comment_is_always_comment_and_cannot_be_set():
    assert Comment("").type == "comment"
    assert Comment("type: message").type == "comment"
    with pytest.raises(AttributeError):
        COMMENT.type = "message"


def test_a_comment_is_no_message():
    assert MessageEvent("comment", "still here") != COMMENT


def test_an_error_event_of_a_final_failure_has_no_next_attempt():
    event = ErrorEvent("error", ConnectionError("gone"), ReadyState.CLOSED, None)
    assert event.retry_in is None
    assert event.ready_state == 2
