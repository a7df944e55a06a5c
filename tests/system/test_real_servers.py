"""The three faces against servers that people use, each in a process of its own.

The servers are in `real_servers/`. What they send is numbered (see `numbered`), so
that "nothing lost, nothing twice" can be seen whatever happens to the connection.
"""

from __future__ import annotations

import contextlib
import gc
import itertools
import signal
import socket
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
import requests

from eventsource import (
    Comment,
    ErrorEvent,
    Event,
    EventSource,
    EventStream,
    EventTimeout,
    MessageEvent,
    OpenEvent,
    ReadyState,
    ReconnectPolicy,
    SSEClient,
    StreamEnded,
    UnexpectedStatus,
)
from tests.real_servers import numbered
from tests.real_servers.process import Server
from tests.support import LIMIT, Recorder, wait_until

SOON = ReconnectPolicy(delay=0.05, max_delay=0.2)
Message = MessageEvent | Event

names = (f"test-{number}" for number in itertools.count())


class Seen(Recorder):
    """A recorder of numbered events."""

    def until_number(self, number: int) -> None:
        """Wait for this number, or for one that should have come after it."""
        while not isinstance(item := self.next(), Message) or number_of(item) < number:
            pass

    @property
    def numbers(self) -> list[int]:
        return [number_of(item) for item in self.events if isinstance(item, Message)]

    @property
    def errors(self) -> list[ErrorEvent]:
        return [item for item in self.events if isinstance(item, ErrorEvent)]


def number_of(message: Message) -> int:
    """The number of an event, every part of which is as it was sent."""
    number = int(message.data.split()[1])
    if isinstance(message, MessageEvent):
        assert message.last_event_id == numbered.event_id(number)
        assert message.type == numbered.event_type(number)
    else:
        assert message.id == numbered.event_id(number)
        assert message.event == numbered.event_type(number)
    assert message.data == numbered.event_data(number)
    return number


def numbers_to(last: int) -> list[int]:
    return list(range(1, last + 1))


def take(messages: Iterable[Any], count: int) -> list[int]:
    """The numbers of the next messages, other items skipped."""
    only = (item for item in messages if isinstance(item, Message))
    return [number_of(message) for message in itertools.islice(only, count)]


def open_sockets() -> list[socket.socket]:
    """This process's, those included whose close() waits for another reference to go."""
    found = [item for item in gc.get_objects() if isinstance(item, socket.socket)]
    return [sock for sock in found if sock.fileno() != -1]


# --- The servers ---


@pytest.fixture(
    scope="module", params=["sse_starlette_app.py", "aiohttp_app.py", "flask_app.py"], ids=str
)
def process(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    server = Server(request.param, tmp_path_factory.mktemp("server") / "log")
    try:
        server.start()
        yield server
    finally:
        server.stop(signal.SIGKILL)


@pytest.fixture
def server(process: Server) -> Server:
    process.ensure_started()  # a test that failed may have left it stopped
    return process


@pytest.fixture
def name() -> str:
    """The name under which this test's requests are booked."""
    return next(names)


@contextlib.contextmanager
def listening(url: str, **options: Any) -> Iterator[tuple[EventSource, Seen]]:
    """A source all of whose events are seen; its thread has ended afterwards."""
    seen = Seen()
    if "method" not in options:  # a POST with a policy would be sent again
        options.setdefault("reconnect", SOON)
    source = EventSource(url, start=False, **options)
    for event_type in ("open", "message", "tick", "error"):
        source.on(event_type, seen)
    try:
        source.start()
        yield source, seen
    finally:
        source.close()
        assert source.join(LIMIT), "the reader thread did not end"


@contextlib.contextmanager
def iterated(items: EventStream | SSEClient) -> Iterator[tuple[threading.Thread, Seen]]:
    """Iterates in another thread."""
    seen = Seen()

    def iterate() -> None:
        for item in items:
            seen(item)

    thread = threading.Thread(target=iterate, daemon=True)
    thread.start()
    try:
        yield thread, seen
    finally:
        items.close()
        thread.join(LIMIT)
        assert not thread.is_alive(), "the iteration did not end"


# --- What is sent is what is seen ---


def test_every_kind_of_event_arrives_as_it_was_sent(server: Server, name: str) -> None:
    with listening(server.url("/numbers", name=name, count=4)) as (source, seen):
        seen.until_number(4)
        opened, *messages = seen.events
        assert isinstance(opened, OpenEvent)
        assert opened.status == 200
        origin = f"http://127.0.0.1:{server.port}"
        assert messages == [
            MessageEvent("message", "number 1 größer 🚀", "№1", origin),
            MessageEvent("message", "number 2 größer 🚀\nsecond line", "№2", origin),
            MessageEvent("tick", "number 3 größer 🚀", "№3", origin),
            MessageEvent("message", "number 4 größer 🚀\nsecond line", "№4", origin),
        ]
        assert source.reconnection_time == numbered.RETRY / 1000


def test_a_custom_event_type_reaches_its_own_listeners_only(server: Server, name: str) -> None:
    seen, ticks, messages = Seen(), Seen(), Seen()
    source = EventSource(
        server.url("/numbers", name=name, count=7), on_message=messages, start=False
    )
    source.on("tick", ticks)
    source.on("message", seen)
    with source:
        source.start()
        seen.until_number(7)
    assert ticks.numbers == [3, 6]
    assert messages.numbers == [1, 2, 4, 5, 7]


def test_heartbeats_reach_the_comment_handler_and_nobody_else(server: Server, name: str) -> None:
    comments = Seen()
    url = server.url("/numbers", name=name, count=1, heartbeat=0.02)
    with listening(url, on_comment=comments) as (_, seen):
        assert [comments.next() for _ in range(3)] == [numbered.HEARTBEAT] * 3
        seen.until_number(1)
    assert [type(item) for item in seen.events] == [OpenEvent, MessageEvent]


def test_heartbeats_are_items_of_a_stream_that_asks_for_comments(server: Server, name: str) -> None:
    url = server.url("/numbers", name=name, count=1, heartbeat=0.02)
    with EventStream(url, comments=True) as stream:
        comments = (item for item in stream if isinstance(item, Comment))
        assert next(comments).text == numbered.HEARTBEAT


def test_a_burst_arrives_whole_and_in_order(server: Server, name: str) -> None:
    url = server.url("/numbers", name=name, count=3000, then="end")
    opened, *messages, ended = EventStream(url, reconnect=None)
    assert isinstance(opened, OpenEvent)
    assert [number_of(message) for message in messages] == numbers_to(3000)
    assert isinstance(ended.error, StreamEnded)


def test_a_compressed_stream_arrives_whole(server: Server, name: str) -> None:
    url = server.url("/gzip", name=name, count=500, then="end")
    opened, *messages, ended = EventStream(url, headers={"Accept-Encoding": "gzip"}, reconnect=None)
    assert opened.headers["Content-Encoding"] == "gzip"
    assert [number_of(message) for message in messages] == numbers_to(500)
    assert isinstance(ended.error, StreamEnded)


def test_no_compression_is_asked_for_by_default(server: Server, name: str) -> None:
    with EventStream(server.url("/gzip", name=name)) as stream:
        assert "Content-Encoding" not in next(stream).headers
        assert take(stream, 3) == [1, 2, 3]


# --- What has arrived is delivered while the stream is open ---


def test_events_arrive_while_the_server_holds_the_stream_open(server: Server, name: str) -> None:
    with listening(server.url("/numbers", name=name)) as (source, seen):
        seen.until_number(3)
        assert source.ready_state is ReadyState.OPEN
        assert server.live(name) == 1
    assert [type(item) for item in seen.events] == [OpenEvent] + 3 * [MessageEvent]


def test_a_stream_yields_events_while_the_server_holds_it_open(server: Server, name: str) -> None:
    with EventStream(server.url("/numbers", name=name)) as stream:
        assert take(stream, 3) == [1, 2, 3]
        assert server.live(name) == 1


def test_a_client_yields_messages_while_the_server_holds_it_open(server: Server, name: str) -> None:
    with SSEClient(server.url("/numbers", name=name)) as client:
        assert take(client, 3) == [1, 2, 3]
        assert server.live(name) == 1
        assert client.retry == numbered.RETRY
        assert client.last_id == "№3"


def test_compressed_events_arrive_while_the_server_holds_the_stream_open(
    server: Server, name: str
) -> None:
    if server.script == "aiohttp_app.py":
        pytest.skip("aiohttp does not flush its compressor before the end of the stream")
    url = server.url("/gzip", name=name)
    with EventStream(url, headers={"Accept-Encoding": "gzip"}) as stream:
        assert next(stream).headers["Content-Encoding"] == "gzip"
        assert take(stream, 3) == [1, 2, 3]
        assert server.live(name) == 1


# --- Resuming ---


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM], ids=lambda how: how.name)
def test_a_source_resumes_when_the_server_is_stopped_in_full_flow_and_comes_back(
    server: Server, name: str, how: signal.Signals
) -> None:
    url = server.url("/numbers", name=name, count=1_000_000, pace=0.002)
    with listening(url) as (source, seen):
        seen.until_number(20)
        server.stop(how)
        while not seen.errors:
            seen.next()
        # An orderly end is told from a crash by the last chunk; sse-starlette cancels its
        # streams when uvicorn stops, which leaves it out.
        orderly = how is signal.SIGTERM and server.script != "sse_starlette_app.py"
        assert isinstance(seen.errors[0].error, StreamEnded) == orderly
        before = seen.numbers[-1]
        server.start()
        seen.until_number(before + 20)
        assert source.error is None
    assert seen.numbers == numbers_to(seen.numbers[-1])
    assert all(error.ready_state is ReadyState.CONNECTING for error in seen.errors)
    assert len([item for item in seen.events if isinstance(item, OpenEvent)]) >= 2


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM], ids=lambda how: how.name)
def test_half_an_event_before_the_server_stops_is_not_seen_and_not_lost(
    server: Server, name: str, how: signal.Signals
) -> None:
    url = server.url("/numbers", name=name, then="tear")
    with EventStream(url, comments=True, reconnect=SOON) as stream:
        assert take(stream, 3) == [1, 2, 3]
        assert next(stream) == Comment(numbered.TORN)
        server.stop(how)
        server.start()
        assert take(stream, 3) == [4, 5, 6]


def test_a_client_resumes_when_the_server_is_killed_and_comes_back(
    server: Server, name: str
) -> None:
    url = server.url("/numbers", name=name, count=1_000_000, pace=0.002)
    with SSEClient(url, retry=50) as client:
        numbers = take(client, 20)
        server.stop(signal.SIGKILL)
        server.start()
        numbers += take(client, 40)
    assert numbers == numbers_to(60)


def test_a_new_source_goes_on_after_the_id_it_is_given(server: Server, name: str) -> None:
    with listening(server.url("/numbers", name=name)) as (source, seen):
        seen.until_number(3)
    url = server.url("/numbers", name=name)
    with listening(url, last_event_id=source.last_event_id) as (_, seen):
        seen.until_number(6)
        assert seen.numbers == [4, 5, 6]


def test_connections_that_bring_no_event_do_not_forget_the_place(server: Server, name: str) -> None:
    url = server.url("/numbers", name=name, count=0, then="end")
    with EventStream(url, last_event_id="№3", reconnect=SOON) as stream:
        lost = (item for item in stream if isinstance(item, ErrorEvent))
        for _ in itertools.islice(lost, 2):
            assert stream.last_event_id == "№3"


def test_streams_that_the_server_ends_are_one_stream_to_the_handlers(
    server: Server, name: str
) -> None:
    with listening(server.url("/numbers", name=name, count=2, then="end")) as (_, seen):
        seen.until_number(6)
    assert seen.numbers == numbers_to(seen.numbers[-1])
    assert {type(error.error) for error in seen.errors} == {StreamEnded}


def test_restart_resumes_and_is_no_error(server: Server, name: str) -> None:
    with listening(server.url("/numbers", name=name)) as (source, seen):
        seen.until_number(3)
        source.restart()
        seen.until_number(6)
        assert seen.numbers == numbers_to(6)
        assert not seen.errors
        wait_until(lambda: server.live(name) == 1, "the server notices that the first has gone")


def test_heartbeats_do_not_hide_the_silence_that_event_timeout_ends(
    server: Server, name: str
) -> None:
    url = server.url("/numbers", name=name, heartbeat=0.05)
    with listening(url, event_timeout=0.5) as (_, seen):
        seen.until_number(6)
    assert seen.numbers == numbers_to(seen.numbers[-1])
    assert isinstance(seen.errors[0].error, EventTimeout)


# --- Redirects ---


def test_a_redirect_is_followed_and_asked_for_again_when_resuming(
    server: Server, name: str
) -> None:
    with listening(server.url("/moved", name=name, then="end")) as (_, seen):
        seen.until_number(6)
        assert server.requests(name)["/moved"] >= 2
    assert seen.numbers == numbers_to(seen.numbers[-1])
    assert seen.events[0].url == server.url("/numbers", name=name, then="end")


# --- Closing ---


@pytest.mark.parametrize("whose", ["its own", "the caller's"])
def test_close_of_a_silent_source_ends_the_thread_and_the_server_notices(
    server: Server, name: str, whose: str
) -> None:
    with contextlib.ExitStack() as stack:
        session = stack.enter_context(requests.Session()) if whose != "its own" else None
        url = server.url("/numbers", name=name)
        source, seen = stack.enter_context(listening(url, session=session))
        seen.until_number(3)
        assert server.live(name) == 1
        source.close()
        assert source.join(LIMIT)
        wait_until(lambda: server.live(name) == 0, "the server notices that the client has gone")
    assert not seen.errors
    assert source.error is None
    assert server.requests(name) == {"/numbers": 1}


@pytest.mark.parametrize("face", [EventStream, SSEClient], ids=lambda face: face.__name__)
def test_close_from_another_thread_ends_a_silent_iteration_and_the_server_notices(
    server: Server, name: str, face: type[EventStream | SSEClient]
) -> None:
    items = face(server.url("/numbers", name=name))
    with iterated(items) as (thread, seen):
        seen.until_number(3)
        assert server.live(name) == 1
        items.close()
        thread.join(LIMIT)
        assert not thread.is_alive()
        wait_until(lambda: server.live(name) == 0, "the server notices that the client has gone")


def test_close_while_the_server_is_away_ends_the_thread(server: Server, name: str) -> None:
    with listening(server.url("/numbers", name=name)) as (source, seen):
        seen.until_number(3)
        server.stop(signal.SIGKILL)
        while len(seen.errors) < 3:  # the loss, and two attempts that were refused
            seen.next()
        source.close()
        assert source.join(LIMIT)
    for refused in seen.errors[1:]:
        assert isinstance(refused.error, requests.ConnectionError)


@pytest.mark.parametrize("path", ["/numbers", "/moved", "/nothing", "/busy"])
def test_a_source_that_has_closed_for_good_holds_no_socket(
    server: Server, name: str, path: str
) -> None:
    gc.collect()
    before = open_sockets()
    url = server.url(path, name=name, then="end")
    with listening(url, reconnect=None) as (source, seen):
        assert source.join(LIMIT)
        # While `source.error`, and with it the response, is still at hand.
        assert source.error is seen.errors[0].error
        assert [sock for sock in open_sockets() if sock not in before] == []


def test_between_two_connections_no_socket_is_held(server: Server, name: str) -> None:
    gc.collect()
    before = open_sockets()
    url = server.url("/numbers", name=name, then="end")
    with EventStream(url, reconnect=SOON) as stream:
        lost = (item for item in stream if isinstance(item, ErrorEvent))
        for _ in itertools.islice(lost, 3):
            assert [sock for sock in open_sockets() if sock not in before] == []


# --- POST ---


def test_the_tokens_of_a_post_arrive_and_the_post_is_not_sent_again(
    server: Server, name: str
) -> None:
    url = server.url("/chat", name=name)
    with listening(url, method="POST", json={"prompt": "Was kommt?"}) as (source, seen):
        assert isinstance(seen.next(), OpenEvent)
        tokens = []
        while (message := seen.next()).data != "[DONE]":
            tokens.append(message.json()["delta"])
        assert tokens == ["Was kommt?", *numbered.TOKENS]
        ended = seen.next()
        assert isinstance(ended.error, StreamEnded)
        assert (ended.ready_state, ended.retry_in) == (ReadyState.CLOSED, None)
        assert source.join(LIMIT)
        assert server.requests(name) == {"/chat": 1}


def test_the_iteration_over_a_post_ends_with_its_stream(server: Server, name: str) -> None:
    url = server.url("/chat", name=name)
    opened, *messages, ended = EventStream(url, method="POST", json={"prompt": ""})
    assert isinstance(opened, OpenEvent)
    assert len(messages) == len(numbered.TOKENS) + 2
    assert messages[-1].data == "[DONE]"
    assert ended.retry_in is None
    assert server.requests(name) == {"/chat": 1}


def test_a_loop_over_a_post_may_be_left_at_done(server: Server, name: str) -> None:
    url = server.url("/chat", name=name)
    answer = []
    with EventStream(url, method="POST", json={"prompt": ""}) as stream:
        for item in stream:
            if isinstance(item, MessageEvent):
                if item.data == "[DONE]":
                    break
                answer.append(item.json()["delta"])
    assert "".join(answer) == "Ein größerer\nZug 🚂 kommt"
    assert server.requests(name) == {"/chat": 1}


# --- Being turned away ---


def test_204_closes_for_good(server: Server, name: str) -> None:
    with listening(server.url("/nothing", name=name)) as (source, seen):
        event = seen.next()
        assert isinstance(event.error, UnexpectedStatus)
        assert event.error.status == 204
        assert (event.ready_state, event.retry_in) == (ReadyState.CLOSED, None)
        assert source.join(LIMIT)
        assert source.error is event.error
        assert server.requests(name) == {"/nothing": 1}
    assert seen.events == [event]


def test_204_ends_the_iteration_of_a_client(server: Server, name: str) -> None:
    assert list(SSEClient(server.url("/nothing", name=name))) == []
    assert server.requests(name) == {"/nothing": 1}


def test_503_closes_for_good(server: Server, name: str) -> None:
    with listening(server.url("/busy", name=name)) as (source, seen):
        event = seen.next()
        assert isinstance(event.error, UnexpectedStatus)
        assert event.error.status == 503
        assert (event.ready_state, event.retry_in) == (ReadyState.CLOSED, None)
        assert source.join(LIMIT)
        assert server.requests(name) == {"/busy": 1}
    assert seen.events == [event]


def test_503_is_raised_by_a_client(server: Server, name: str) -> None:
    with pytest.raises(requests.HTTPError) as raised:
        SSEClient(server.url("/busy", name=name))
    assert raised.value.response.status_code == 503
    assert server.requests(name) == {"/busy": 1}


def test_503_is_tried_again_when_the_policy_says_so_and_not_before_retry_after(
    server: Server, name: str
) -> None:
    policy = ReconnectPolicy(delay=0.05, max_delay=0.2, statuses=frozenset({503}))
    url = server.url("/busy", name=name, refusals=1)
    started = time.monotonic()
    with listening(url, reconnect=policy) as (_, seen):
        refused = seen.next()
        assert refused.error.status == 503
        assert refused.ready_state is ReadyState.CONNECTING
        assert refused.retry_in >= numbered.REFUSED_FOR
        seen.until_number(3)
        assert time.monotonic() - started >= numbered.REFUSED_FOR
        assert server.requests(name) == {"/busy": 2}
    assert seen.numbers == [1, 2, 3]
