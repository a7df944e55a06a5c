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
    assert [(state.name, state.value) for state in ReadyState] == [
        ("CONNECTING", 0),
        ("OPEN", 1),
        ("CLOSED", 2),
    ]


def test_a_ready_state_equals_its_number():
    assert ReadyState.CONNECTING == 0
    assert ReadyState.OPEN == 1
    assert ReadyState.CLOSED == 2


def test_a_ready_state_survives_pickling_as_itself():
    for state in ReadyState:
        assert pickled(state) is state


# ---------------------------------------------------------------- every event


def fields_of(event):
    return [*inspect.signature(type(event)).parameters]


@every_event
def test_no_field_of_an_event_can_be_set(event):
    for field in fields_of(event):
        before = getattr(event, field)
        with pytest.raises(AttributeError):
            setattr(event, field, "other")
        assert getattr(event, field) is before


@every_event
def test_no_field_of_an_event_can_be_deleted(event):
    for field in fields_of(event):
        with pytest.raises(AttributeError):
            delattr(event, field)


@every_event
def test_nothing_can_be_added_to_an_event(event):
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
def test_a_copy_of_an_event_equals_it(event):
    assert copy.copy(event) == event


# ---------------------------------------------------------------- MessageEvent


def test_a_message_event_needs_only_a_type():
    event = MessageEvent("message")
    assert (event.type, event.data, event.last_event_id, event.origin) == ("message", "", "", "")


def test_a_message_event_takes_its_fields_in_the_documented_order():
    event = MessageEvent("price", "7", "42", "https://example.com")
    assert event.type == "price"
    assert event.data == "7"
    assert event.last_event_id == "42"
    assert event.origin == "https://example.com"


def test_last_event_id_has_the_browsers_spelling_too():
    assert MESSAGE.lastEventId == "42"
    with pytest.raises(AttributeError):
        MESSAGE.lastEventId = "43"


def test_message_events_are_equal_when_all_four_fields_are():
    fields = {"type": "price", "data": "7", "last_event_id": "42", "origin": "https://example.com"}
    assert MessageEvent(**fields) == MESSAGE
    for field in fields:
        assert MessageEvent(**(fields | {field: "other"})) != MESSAGE


def test_equal_message_events_have_the_same_hash():
    assert {MESSAGE, MessageEvent("price", "7", "42", "https://example.com")} == {MESSAGE}


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_message_event_survives_pickling(protocol):
    again = pickled(MESSAGE, protocol)
    assert type(again) is MessageEvent
    assert again == MESSAGE


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


def test_comments_are_equal_when_their_texts_are():
    assert Comment("still here") == COMMENT
    assert Comment("gone") != COMMENT


def test_a_comment_is_no_message():
    assert MessageEvent("comment", "still here") != COMMENT


def test_a_comment_survives_pickling():
    again = pickled(COMMENT)
    assert type(again) is Comment
    assert again == COMMENT


def test_open_events_are_equal_when_all_fields_are():
    same = {
        "type": "open",
        "url": "https://example.com/s",
        "status": 200,
        "headers": {"Server": "x"},
    }
    assert OpenEvent(**same) == OPEN
    for field, other in {"type": "x", "url": "x", "status": 201, "headers": {}}.items():
        assert OpenEvent(**{**same, field: other}) != OPEN


def test_error_events_are_equal_when_all_fields_are():
    same = {
        "type": "error",
        "error": ERROR.error,
        "ready_state": ReadyState.CONNECTING,
        "retry_in": 3.0,
    }
    assert ErrorEvent(**same) == ERROR
    for field, other in {
        "type": "x",
        "error": ConnectionError("gone"),  # an exception equals only itself
        "ready_state": ReadyState.CLOSED,
        "retry_in": None,
    }.items():
        assert ErrorEvent(**{**same, field: other}) != ERROR


def test_an_error_event_survives_pickling():
    again = pickled(ERROR)
    assert type(again) is ErrorEvent
    assert (again.type, again.ready_state, again.retry_in) == ("error", ReadyState.CONNECTING, 3.0)
    assert type(again.ready_state) is ReadyState
    assert type(again.error) is ConnectionError
    assert again.error.args == ("gone",)


def test_an_error_event_of_a_final_failure_has_no_next_attempt():
    event = ErrorEvent("error", ConnectionError("gone"), ReadyState.CLOSED, None)
    assert event.retry_in is None
    assert event.ready_state == 2
