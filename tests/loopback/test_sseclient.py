"""`SSEClient`: what users of the `sseclient` package have and rely on."""

from __future__ import annotations

import contextlib
import inspect
import itertools
import logging
import re
import sys
import threading

import pytest
import requests
from hypothesis import given

from eventsource import Event, EventStream, EventTooLarge, SSEClient
from eventsource.protocol.parser import BlockParser
from eventsource.sseclient import policy_of
from eventsource.testing import ScriptedServer
from tests.exchanges import basic
from tests.interruption import Interruption, interruption_at
from tests.properties import examples
from tests.support import (
    HEAD,
    LIMIT,
    QUERY_SECRET,
    SECRET,
    numbers,
    port_that_refuses,
    respond,
    served,
    status,
    stream,
    wait_until,
)
from tests.unit.protocol.test_parser import usual_streams_cut


def number_of(event):
    return int(event.data)


def client_of(url, **options):
    options.setdefault("retry", 20)
    return SSEClient(url, **options)


def test_the_constructor_has_sseclients_arguments_and_defaults():
    parameters = inspect.signature(SSEClient).parameters
    assert [(p.name, p.default) for p in parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD][
        1:
    ] == [("last_id", None), ("retry", 3000), ("session", None), ("chunk_size", 1024)]
    assert parameters["requests_kwargs"].kind is inspect.Parameter.VAR_KEYWORD


def test_messages_have_data_event_id_and_retry():
    blocks = b"data: a\n\nevent: x\nid: 7\nretry: 50\ndata: b\ndata: c\n\ndata: d\n\n"
    with served(client_of, stream(blocks, then="hold")) as (_, client):
        found = [next(client) for _ in range(3)]
        assert [(m.data, m.event, m.id, m.retry) for m in found] == [
            ("a", "message", None, None),
            ("b\nc", "x", "7", 50),
            ("d", "message", None, None),  # id and retry are this message's own
        ]
        assert str(found[0]) == "a"
        assert client.last_id == "7"
        assert client.retry == 50


def test_it_connects_in_the_constructor():
    with served(client_of, stream(then="hold")) as (server, client):
        assert len(server.requests) == 1
        assert client.resp.status_code == 200
        assert client.url == server.url


def test_the_requests_options_reach_the_request():
    headers = {"X-Key": "k"}
    options = {"headers": headers, "auth": ("u", SECRET), "params": {"q": QUERY_SECRET}}
    with served(client_of, stream(then="hold"), **options) as (server, client):
        request = server.wait_for_request()
        assert client.requests_kwargs == options
    assert request.target == f"/?q={QUERY_SECRET}"
    assert request.header("X-Key") == "k"
    assert request.header("Authorization") == basic("u", SECRET)
    assert headers == {"X-Key": "k"}


def test_a_session_is_used():
    with requests.Session() as session, ScriptedServer(stream(then="hold")) as server:
        session.headers["X-Key"] = "k"
        with client_of(server.url, session=session) as client:
            assert client.session is session
            assert server.wait_for_request().header("X-Key") == "k"


@pytest.mark.parametrize("line", ["400 Bad", "404 Gone", "503 Busy"])
def test_an_error_status_is_raised_by_the_constructor(line):
    with ScriptedServer(status(line, body=b"why")) as server:
        with pytest.raises(requests.HTTPError) as caught:
            client_of(server.url)
        assert server.connections[0].over.wait(LIMIT)
    assert caught.value.response.status_code == int(line[:3])
    assert caught.value.response.text == "why"


def test_a_refused_connection_is_raised_by_the_constructor():
    with port_that_refuses() as port, pytest.raises(requests.ConnectionError):
        SSEClient(f"http://127.0.0.1:{port}/")


def test_any_content_type_is_accepted():
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=latin-1\r\n\r\n"
    with served(client_of, respond(head + b"data: \xc3\xa9\n\n", then="hold")) as (_, client):
        assert next(client).data == "é"


def test_it_reconnects_and_resumes():
    scripts = stream(b"id: 1\ndata: a\n\ndata: half"), stream(b"data: b\n\n", then="hold")
    with served(client_of, *scripts, last_id="0") as (server, client):
        assert [next(client).data, next(client).data] == ["a", "b"]
        assert client.last_id == "1"
        assert [r.header("Last-Event-ID") for r in server.requests] == ["0", "1"]


def test_it_goes_on_trying_when_a_reconnect_is_refused(caplog):
    caplog.set_level(logging.INFO, "eventsource")

    def refusals():
        return sum("refused" in record.getMessage() for record in caplog.records)

    server = ScriptedServer(stream(b"data: a\n\n"))
    client = client_of(server.url)
    assert next(client).data == "a"
    port = server.port
    server.close()
    messages = []
    thread = threading.Thread(target=lambda: messages.append(next(client)))
    with port_that_refuses(port):
        thread.start()
        wait_until(lambda: refusals() >= 2, "two attempts to be refused")
    with ScriptedServer(stream(b"data: b\n\n", then="hold"), port=port):
        thread.join(LIMIT)
        assert [message.data for message in messages] == ["b"]
        client.close()


def test_an_error_status_on_a_reconnect_is_raised_and_the_next_call_tries_again():
    with served(
        client_of, stream(b"data: a\n\n"), status("401 No"), stream(b"data: b\n\n", then="hold")
    ) as (_, client):
        assert next(client).data == "a"
        with pytest.raises(requests.HTTPError, match="401"):
            next(client)
        assert next(client).data == "b"


def test_204_ends_the_iteration():
    with ScriptedServer(stream(b"data: a\n\n"), status("204 No Content")) as server:
        assert [message.data for message in client_of(server.url)] == ["a"]
        assert len(server.requests) == 2


def test_204_at_once_is_an_empty_iteration():
    with ScriptedServer(status("204 No Content")) as server:
        assert list(client_of(server.url)) == []


def test_retry_is_in_milliseconds_and_may_be_set():
    with ScriptedServer(stream(b"retry: 70\ndata: a\n\n", then="hold")) as server:
        with SSEClient(server.url) as client:
            assert client.retry == 3000
            next(client)
            assert client.retry == 70
            client.retry = 250
            assert client.retry == 250
        with SSEClient(server.url, retry=1500) as client:
            assert client.retry == 1500


@pytest.mark.parametrize(("retry", "longest"), [(0, 3), (3000, 3), (20_000, 20)])
def test_the_wait_is_the_same_each_time_up_to_three_seconds_or_retry(retry, longest):
    policy = policy_of(retry)
    assert policy.statuses is policy_of(7).statuses  # 16 KB that all clients share
    waits = [policy.next_delay(policy.delay, n, random=0.0) for n in range(30)]
    assert max(waits) == longest
    assert waits[2] > 0


def test_last_id_may_be_set():
    with served(client_of, stream(b"id: 1\ndata: a\n\n"), stream(b"data: b\n\n", then="hold")) as (
        server,
        client,
    ):
        next(client)
        client.last_id = "9"
        next(client)
        assert server.requests[1].header("Last-Event-ID") == "9"
        assert client.last_id == "9"
        client.last_id = None
        assert client.last_id is None


def test_last_id_is_that_of_the_message_returned_last_however_many_came_at_once():
    blocks = b"data: 0\n\n" + numbers(2, start=1) + b"data: 3\n\n" + b"id: 9\n\n"
    with served(client_of, stream(blocks, then="hold")) as (_, client):
        for expected in (None, "1", "2"):
            next(client)
            assert client.last_id == expected
        assert next(client).data == "3"
        assert client.last_id == "9"  # a block without data has moved it


def test_last_id_may_be_set_between_two_messages_that_came_at_once():
    with served(client_of, stream(numbers(2, start=1) + b"data: 3\n\n"), stream(then="hold")) as (
        _,
        client,
    ):
        next(client)
        client.last_id = "7"
        assert client.last_id == "7"
        assert [next(client).data, client.last_id, next(client).data] == ["2", "2", "3"]
        assert client.last_id == "7"  # what was set last: the events had been parsed before


@pytest.mark.parametrize("count", [0, 1, 3])
def test_after_close_nothing_is_returned_and_last_id_is_that_of_the_message_returned_last(count):
    with served(client_of, stream(numbers(3, start=1), then="hold")) as (_, client):
        found = [next(client).data for _ in range(count)]
        client.close()
        assert list(client) == []
        assert client.last_id == (found[-1] if found else None)


def test_close_at_the_moment_when_messages_have_come_is_the_end():
    with served(client_of, stream(numbers(3), then="hold")) as (_, client):

        def close(frame, event, _):
            if event == "return" and frame.f_code.co_name == "take":
                client.close()

        sys.setprofile(close)
        try:
            assert list(client) == []
        finally:
            sys.setprofile(None)
        assert client.last_id is None


def test_wherever_an_exception_interrupts_nothing_is_lost_or_comes_twice():
    def script(connection):
        first = int(connection.read_request().header("Last-Event-ID") or 0) + 1
        connection.send(HEAD + numbers(4 - first, start=first))
        connection.hold()

    def read(client, found):
        while found[-1:] != [3]:
            found += map(number_of, map(next, (client,)))  # no signal before it is in the list

    with ScriptedServer(script) as server:
        for number in itertools.count(1):
            found = []
            with client_of(server.url) as client:
                with interruption_at(number) as point, contextlib.suppress(Interruption):
                    read(client, found)
                assert client.last_id == (str(max(found)) if found else None), number
                read(client, found)
            assert found == [1, 2, 3], number
            if not point.is_over:
                break
        assert number > 20


def test_a_message_that_has_come_in_full_is_delivered_at_once_whatever_the_chunk_size():
    with ScriptedServer(stream(b"data: a\n\ndata: b", then="hold")) as server:
        for chunk_size in (1, 1024, 10**6):
            with client_of(server.url, chunk_size=chunk_size) as client:
                assert client.chunk_size == chunk_size
                assert next(client).data == "a"


def test_what_sseclient_gets_wrong_is_right():
    blocks = (
        b": comment\n\n"  # no message
        b"event: x\n\n"  # none either
        b"data: a\r\n\r\n"
        b"data: b\r\rdata: c\n\n"  # mixed line ends
        b"data: \xe2\x80\xa8\xc2\x85\n\n"  # U+2028, U+0085 end no line
        b"data: \xff\n\n"
        b"data\n\n"
        b"data: x\ndata\ndata\n\n"  # trailing empty lines stay
    )
    right = ["a", "b", "c", "\u2028\x85", "\ufffd", "", "x\n\n"]
    with served(client_of, stream(blocks, then="hold")) as (_, client):
        assert [next(client).data for _ in right] == right


def test_nothing_is_printed(capsys):
    with served(client_of, stream(b"data: a\n\n"), stream(b"data: b\n\n", then="hold")) as (
        _,
        client,
    ):
        next(client)
        next(client)
    assert capsys.readouterr() == ("", "")


# --- Event ---


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("data: x", ("x", "message", None, None)),
        ("data: x\n\n", ("x", "message", None, None)),
        ("event: e\nid: 3\nretry: 10\ndata: a\r\ndata: b", ("a\nb", "e", "3", 10)),
        ("event: e", ("", "e", None, None)),
        ("", ("", "message", None, None)),
        (": c\ndata:x", ("x", "message", None, None)),
        ("data: é\u2028", ("é\u2028", "message", None, None)),
        ("data: a\ndata:", ("a\n", "message", None, None)),
        ("retry: x\ndata", ("", "message", None, None)),
        ("data: a\n\ndata: b\n\n", ("a", "message", None, None)),
    ],
)
def test_event_parse_reads_one_block(text, fields):
    event = Event.parse(text)
    assert (event.data, event.event, event.id, event.retry) == fields


@pytest.mark.parametrize(
    "event", [Event(), Event("x"), Event("a\nb", "e", "3", 10), Event("a\n\n"), Event("é")]
)
def test_dump_and_parse_are_inverse(event):
    parsed = Event.parse(event.dump())
    assert (parsed.data, parsed.event, parsed.id, parsed.retry) == (
        event.data,
        event.event,
        event.id,
        event.retry,
    )


def test_dump_is_what_sseclient_dumps():
    assert Event("a\nb", "e", "3", 10).dump() == (
        "id: 3\nevent: e\nretry: 10\ndata: a\ndata: b\n\n"
    )
    assert Event("a").dump() == "data: a\n\n"
    assert repr(Event("a")) == "Event(data='a', event='message', id=None, retry=None)"


def test_event_data_must_be_text():
    with pytest.raises(TypeError, match="data"):
        Event(b"x")


# --- Bad input ---


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"retry": -1}, "retry"),
        ({"retry": "x"}, "retry"),
        ({"chunk_size": 0}, "chunk_size"),
        ({"last_id": 5}, "last_id"),
        ({"last_id": "a\n"}, "last_id"),
        ({"session": 5}, "session"),
        ({"foo": 5}, "foo"),
        ({"method": "POST"}, "method"),  # each reconnect would send it again
        ({"url": "/x"}, "url"),
    ],
)
def test_bad_arguments_are_named(options, name):
    with pytest.raises((TypeError, ValueError), match=name):
        SSEClient(**{"url": "http://127.0.0.1:1/", **options})


@pytest.mark.parametrize(("name", "value"), [("retry", -1), ("last_id", "\0"), ("last_id", 5)])
def test_bad_assignments_are_named(name, value):
    with served(client_of, stream(then="hold")) as (_, client):
        with pytest.raises((TypeError, ValueError), match=name):
            setattr(client, name, value)


@examples(500)
@given(usual_streams_cut())
def test_id_and_retry_are_those_of_the_messages_own_block_however_the_stream_is_cut(stream_cut):
    stream, chunks = stream_cut
    blocks = re.split(rb"(?:\r?\n){2,}", stream)
    own = [Event.parse(block.decode("utf-8", "replace")) for block in blocks]
    expected = [
        (x.data, x.event, x.id, x.retry) for x, b in zip(own, blocks, strict=True) if b"data" in b
    ]
    parser = BlockParser()
    got = [event for chunk in chunks for event in parser.feed(chunk)]
    assert [(x.data, x.type, x.id, x.retry) for x in got] == expected


def test_an_event_that_is_too_large_is_raised_by_a_client_and_ends_its_iteration():
    with served(
        SSEClient, stream(b"data: a\n\ndata: 12345678901\n\n", then="hold"), max_event_size=10
    ) as (_, client):
        assert next(client).data == "a"
        with pytest.raises(EventTooLarge):
            next(client)
        assert list(client) == []


@pytest.mark.parametrize("face", [EventStream, SSEClient])
def test_leaving_a_with_block_closes_and_the_server_notices(face):
    with ScriptedServer(stream(b"data: a\n\n", then="hold")) as server:
        with face(server.url) as events:
            next(events)
        assert server.connections[0].gone.wait(LIMIT)
        assert list(events) == []


# --- Nothing fails in silence ---


def test_an_outage_is_a_warning_once(caplog):
    caplog.set_level(logging.INFO, "eventsource")
    lost = respond(HEAD[:-2] + b"Content-Length: 99\r\n\r\n" + b"data: x\n\n")
    refused = respond(b"")
    with served(SSEClient, lost, refused, refused, stream(b"data: y\n\n"), retry=20) as (_, client):
        assert [next(client).data, next(client).data] == ["x", "y"]
    levels = [record.levelname for record in caplog.records]
    assert levels == ["INFO", "WARNING", "INFO", "INFO", "INFO"]
    assert "open again" in caplog.text
