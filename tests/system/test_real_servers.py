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
    MessageEvent,
    OpenEvent,
    ReadyState,
    ReconnectPolicy,
    SSEClient,
    StreamEnded,
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


@pytest.mark.parametrize("path", ["/numbers", "/gzip"])
def test_a_burst_arrives_whole_and_in_order(server: Server, name: str, path: str) -> None:
    url = server.url(path, name=name, count=3000, then="end")
    opened, *messages, ended = EventStream(url, headers={"Accept-Encoding": "gzip"}, reconnect=None)
    assert isinstance(opened, OpenEvent)
    assert opened.headers.get("Content-Encoding") == ("gzip" if path == "/gzip" else None)
    assert [number_of(message) for message in messages] == numbers_to(3000)
    assert isinstance(ended.error, StreamEnded)


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


def test_streams_that_the_server_ends_are_one_stream_to_the_handlers(
    server: Server, name: str
) -> None:
    with listening(server.url("/numbers", name=name, count=2, then="end")) as (_, seen):
        seen.until_number(6)
    assert seen.numbers == numbers_to(seen.numbers[-1])
    assert {type(error.error) for error in seen.errors} == {StreamEnded}


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


@pytest.mark.parametrize(
    ("path", "status"), [("/numbers", 200), ("/moved", 200), ("/nothing", 204), ("/busy", 503)]
)
def test_a_source_that_has_closed_for_good_holds_no_socket(
    server: Server, name: str, path: str, status: int
) -> None:
    gc.collect()
    before = open_sockets()
    url = server.url(path, name=name, then="end")
    with listening(url, reconnect=None) as (source, seen):
        assert source.join(LIMIT)
        # While `source.error`, and with it the response, is still at hand.
        assert source.error is seen.errors[0].error
        assert getattr(source.error, "status", 200) == status
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
