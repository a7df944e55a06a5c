"""The exceptions: what they say, what they are, and that they can be handed on."""

from __future__ import annotations

import copy
import http.client
import io
import pickle

import pytest
import requests
import urllib3

from eventsource import EventTooLarge, StreamEnded, UnexpectedContentType, UnexpectedStatus
from eventsource.errors import BrokenBody
from eventsource.http.failures import describe
from tests.support import QUERY_SECRET, SECRET


def response(status=404, reason="Not Found", **headers):
    result = requests.Response()
    result.status_code = status
    result.reason = reason
    result.headers.update(headers)
    result.raw = io.BytesIO(b"body")
    return result


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (UnexpectedStatus(response()), "the server answered 404 Not Found, not 200"),
        (UnexpectedStatus(response(204, "")), "the server answered 204 No Content, not 200"),
        (
            UnexpectedContentType(response(200, **{"content-type": "a/b"})),
            "the response's content type is 'a/b', not 'text/event-stream'",
        ),
        (EventTooLarge(5, 4), "an event of at least 5 bytes exceeds max_event_size=4"),
        (StreamEnded("over"), "over"),
        (BrokenBody("cut short"), "cut short"),
    ],
)
def test_they_say_what_happened_and_can_be_copied(error, text):
    for other in (error, copy.copy(error), pickle.loads(pickle.dumps(error))):  # noqa: S301
        assert type(other) is type(error)
        assert str(other) == text
        assert getattr(other, "limit", 4) == 4
        if other.response is not None:
            assert other.response.content == b"body"


def test_a_broken_body_is_of_both_kinds_that_programs_catch_for_it():
    assert issubclass(BrokenBody, requests.ConnectionError)
    assert issubclass(BrokenBody, requests.exceptions.ChunkedEncodingError)


URL = f"http://user:{SECRET}@host/path?{QUERY_SECRET}"


@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (
            requests.ConnectionError(
                urllib3.exceptions.MaxRetryError(None, f"/path?{QUERY_SECRET}", OSError("refused"))
            ),
            requests.ConnectionError,
            "refused",
        ),
        (requests.exceptions.InvalidURL(f"bad {URL!r}"), requests.exceptions.InvalidURL, None),
        (requests.ConnectionError(), requests.ConnectionError, ""),
        (
            urllib3.exceptions.ProtocolError("cut"),
            requests.exceptions.ChunkedEncodingError,
            "the connection was lost within the response",
        ),
        (urllib3.exceptions.DecodeError("x"), requests.exceptions.ContentDecodingError, "x"),
        (urllib3.exceptions.SSLError("x"), requests.exceptions.SSLError, "x"),
        (urllib3.exceptions.HTTPError("x"), requests.ConnectionError, "x"),
        (
            urllib3.exceptions.LocationParseError(URL),
            requests.exceptions.InvalidURL,
            "a URL cannot be parsed",
        ),
    ],
)
def test_errors_from_below_become_requests_exceptions_without_secrets(error, kind, text):
    described = describe(error)
    assert type(described) is kind
    assert "secret" not in f"{described}{described!r}{described.args}"
    assert text is None or str(described) == text


def test_what_is_not_requests_own_stays_as_it_is():
    class OtherError(requests.RequestException):
        def __init__(self, a, b):
            super().__init__(a + b)

    for error in (
        KeyError("x"),
        OtherError("a", "b"),
        requests.exceptions.JSONDecodeError("message", "document", 0),
    ):
        assert describe(error) is error


RESET = ConnectionResetError(104, "Connection reset by peer")


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (("Connection aborted.", RESET), "Connection aborted: Connection reset by peer"),
        (("Unable to connect to proxy", OSError("403")), "Unable to connect to proxy: 403"),
        (("Connection aborted.", ConnectionError()), "Connection aborted"),
    ],
)
def test_a_failure_to_connect_is_said_in_words_and_not_as_a_pair(args, text):
    error = urllib3.exceptions.ProtocolError(*args)
    assert str(describe(requests.ConnectionError(error))) == text


def of_a_bad_size():
    """As http.client raises it, also where the connection ends instead of a chunk's size."""
    try:
        try:
            int(b"", 16)
        except ValueError:
            raise http.client.IncompleteRead(b"")  # noqa: B904 - as it does
    except http.client.IncompleteRead as error:
        return error


def broken(cause):
    return "Connection broken: …", cause


LOST = "the connection was lost within the response"
BAD_SIZE = "the size of a chunk is not a hexadecimal number"


@pytest.mark.parametrize("wrap", [lambda e: e, requests.exceptions.ChunkedEncodingError])
@pytest.mark.parametrize(
    ("args", "text"),
    [
        (broken(http.client.IncompleteRead(b"")), LOST),
        (broken(http.client.IncompleteRead(b"x", 5)), f"{LOST}: 5 bytes are missing"),
        (broken(urllib3.exceptions.IncompleteRead(4, 12)), f"{LOST}: 12 bytes are missing"),
        (
            ("Response may not contain content.", urllib3.exceptions.IncompleteRead(4, -4)),
            "the response has content where none is allowed",
        ),
        (broken(of_a_bad_size()), f"{LOST}, or {BAD_SIZE}"),
        (
            broken(urllib3.exceptions.InvalidChunkLength(urllib3.HTTPResponse(), SECRET.encode())),
            BAD_SIZE,
        ),
        (broken(RESET), f"{LOST}: Connection reset by peer"),
        (broken(ConnectionError()), LOST),
        (("Response ended prematurely",), LOST),
    ],
)
def test_a_connection_that_is_lost_within_a_response_is_said_to_be_lost(args, text, wrap):
    described = describe(wrap(urllib3.exceptions.ProtocolError(*args)))
    assert type(described) is requests.exceptions.ChunkedEncodingError
    assert str(described) == text
