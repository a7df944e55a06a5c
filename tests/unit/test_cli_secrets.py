"""What of a request must not be shown."""

from __future__ import annotations

from eventsource.cli.secrets import hide, secrets_of
from eventsource.urls import redact_field


def test_what_is_secret_of_a_request():
    fields = {
        "Authorization": "Basic bWU6cGFzc3dvcmQ=",
        "X-Api-Key": b"key=12345678",
        "Cookie": None,
        "Accept": "text/event-stream",
    }
    found = secrets_of("http://h/?token=abc%2Fdefgh&n=1", {"http": "http://p:q1w2@x"}, fields)
    assert {
        "password",
        "bWU6cGFzc3dvcmQ=",
        "key=12345678",
        "12345678",
        "abc/defgh",
        "q1w2",
    } <= found
    assert not {"1", "me", "p", "None", "text/event-stream"} & found


def test_the_longest_are_hidden_first():
    assert hide({"abcd", "abcdefgh"}, "abcdefgh abcd ab") == "... ... ab"


def test_queries_in_header_fields_are_left_out_and_booleans_are_not():
    assert redact_field("Link", "</a?b=c&d>; rel=x, <http://h/?e#f>") == "</a>; rel=x, <http://h/>"
    assert redact_field("Location", "?token=1#x") == ""
    assert redact_field("X-Mobile", "?0, a;b=?1;c") == "?0, a;b=?1;c"
    assert redact_field("X-At", "a?10") == "a"
    assert redact_field("Mcp-Session-Id", "abc") == "..."
