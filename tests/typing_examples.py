"""Typical uses of the public API, for the type checkers only: never run.

`mypy --strict` and `pyright` must find nothing to say about this file.
"""

from __future__ import annotations

import asyncio
import tkinter
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from concurrent.futures import Executor
from typing import Any, assert_type

import requests

from eventsource import (
    BrokenBody,
    Comment,
    Dispatch,
    ErrorEvent,
    Event,
    EventSource,
    EventStream,
    EventStreamParser,
    EventTooLarge,
    ForkedError,
    Handler,
    Item,
    MessageEvent,
    OpenEvent,
    ReadyState,
    ReconnectPolicy,
    ResumeFile,
    SSEClient,
    UnexpectedStatus,
    aparse,
    dispatch,
    parse,
)
from eventsource.testing import (
    Recorder,
    Request,
    SSEServer,
    Stream,
    aemit,
    emit,
    wait_until,
)


def handlers() -> None:
    es = EventSource(
        "https://example.com/stream",
        headers={"X-Key": "secret"},
        params={"topic": "a"},
        auth=("user", "password"),
        timeout=(5, None),
        on_error=print,
        on_comment=print,
        reconnect=ReconnectPolicy(
            delay=1, min_delay=0.5, max_attempts=5, stable_after=5, statuses={503}
        ),
        event_timeout=60,
    )

    @es.on("message")
    def show(event: MessageEvent) -> None:
        print(event.last_event_id, event.data, event.json())

    def price(event: MessageEvent) -> None:
        assert_type(event.data, str)

    es.on("open", print)
    es.once("price", price)
    es.add_listener("price", price)
    es.add_listeners(["price", "volume"], price)
    es.listens_to("price")(price)
    es.remove_listener("price", price)
    es.remove_all_listeners()
    es.addEventListener("price", price)
    es.removeEventListener("price", price)
    es.onmessage = price
    es.onmessage = None
    assert_type(es.on_open, Handler | None)
    es.on_open = print
    es.on_message = price
    es.on_message = None
    es.on_error = failed
    es.on_comment = print
    es.on_comment = None
    es.on("*", price)
    assert_type(es.silent_for, float | None)
    assert_type(es.url, str)
    assert_type(es.ready_state, ReadyState)
    assert_type(es.readyState, ReadyState)
    assert_type(es.last_event_id, str)
    assert_type(es.reconnection_time, float)
    assert_type(es.error, Exception | None)
    if es.ready_state == EventSource.CLOSED:
        es.restart()
    es.close()
    assert_type(es.join(1.5), bool)
    with EventSource("https://example.com/", start=False, reconnect=None) as source:
        source.start()
        assert_type(source, EventSource)


def arguments(handler: Handler, dispatch: Dispatch) -> None:
    EventSource("https://example.com/", on_message=handler, dispatch=dispatch)


def elsewhere(root: tkinter.Misc, executor: Executor) -> None:
    EventSource("https://example.com/", dispatch=executor.submit, max_waiting=10)
    EventSource("https://example.com/", dispatch=dispatch.tk(root))
    EventSource("https://example.com/", dispatch=dispatch.qt(), on_message=print)


async def on_the_loop() -> None:
    async def show(event: MessageEvent) -> None:
        print(event.data)

    loop = asyncio.get_running_loop()
    es = EventSource("https://example.com/", dispatch=loop.call_soon_threadsafe, on_message=show)
    es.on("price", show)
    es.onmessage = show
    EventSource("https://example.com/", dispatch=dispatch.asyncio())
    EventSource("https://example.com/", dispatch=dispatch.asyncio(loop))
    async with EventStream("https://example.com/") as stream:
        assert_type(stream, EventStream)
        async for item in stream:
            assert_type(item, OpenEvent | MessageEvent | ErrorEvent | Comment)
    events = aiter(EventStream("https://example.com/"))
    assert_type(await anext(events), OpenEvent | MessageEvent | ErrorEvent | Comment)


def failed(event: ErrorEvent) -> None:
    assert_type(event.error, Exception)
    assert_type(event.retry_in, float | None)
    if isinstance(event.error, UnexpectedStatus):
        assert_type(event.error.status, int)
    if isinstance(event.error, EventTooLarge):
        assert_type(event.error.limit, int)
    if isinstance(event.error, BrokenBody):
        broken: requests.ConnectionError | requests.exceptions.ChunkedEncodingError = event.error
        print(broken)


def iterate(session: requests.Session) -> str | None:
    with EventStream("https://example.com/", method="POST", json={"a": 1}, session=session) as s:
        for event in s:
            match event:
                case MessageEvent(type="message", data=data):
                    return data
                case OpenEvent(status=status):
                    assert_type(status, int)
                case ErrorEvent(retry_in=None):
                    break
                case Comment(text):
                    assert_type(text, str)
                case _:
                    print(event.type)
    return None


def resume(file: ResumeFile) -> None:
    received = bytearray()
    with EventStream(
        "https://example.com/", last_event_id=file.load(), on_bytes=received.extend
    ) as stream:
        for item in stream:
            assert_type(item, Item)
            file.save(stream.last_event_id)
        assert_type(stream.take(), list[Item])
        assert_type(stream.resume_id, str)
        assert_type(stream.closed, bool)
        stream.last_event_id = "7"
        stream.reconnection_time = 0.5


def messages(session: requests.Session) -> list[MessageEvent]:
    with EventStream(
        "https://example.com/", content_types={"text/event-stream", ""}, reconnect=Patient()
    ) as stream:
        for event in stream.messages():
            assert_type(event, MessageEvent)
        assert_type(stream.ended, bool)
        assert_type(stream.silent_for, float | None)
        assert_type(stream.take(timeout=0.5), list[Item])
        if isinstance(stream.error, ForkedError):
            print(stream.error.response)
        EventSource("https://example.com/", content_types=("*/*",), trusted_origins=("https://a",))
        return list(stream.messages())


async def messages_on_the_loop(stream: EventStream) -> MessageEvent:
    async for event in stream.messages():
        assert_type(event, MessageEvent)
    return await anext(aiter(stream.messages()))


class Patient(ReconnectPolicy):
    def is_final(self, error: Exception, failures: int) -> bool:
        return failures > 3 or super().is_final(error, failures)

    def next_delay(
        self,
        reconnection_time: float,
        failures: int,
        *,
        random: float,
        retry_after: float | None = None,
    ) -> float:
        return max(reconnection_time, retry_after or 0.0)


class AnyType(EventStream):
    parser_class = EventStreamParser

    def refusal(self, response: requests.Response) -> Exception | None:
        return None if response.ok else UnexpectedStatus(response)


def sans_io(chunks: Iterable[bytes]) -> Iterator[MessageEvent]:
    parser = EventStreamParser(last_event_id="7")
    assert_type(parser.feed(b"data: x\n\n"), list[MessageEvent])
    assert_type(parser.feed_with_comments(b":x\n"), list[MessageEvent | Comment])
    assert_type(parser.reconnection_time, float | None)
    return parse(chunks)


async def sans_io_async(chunks: AsyncIterable[bytes]) -> AsyncIterator[MessageEvent]:
    async for event in aparse(chunks):
        yield event


def sseclient() -> None:
    client = SSEClient("https://example.com/", last_id="3", retry=1000, verify=False)
    for message in client:
        assert_type(message, Event)
        assert_type(message.id, str | None)
    assert_type(client.last_id, str | None)
    assert_type(client.retry, int)
    client.retry = 500
    parsed: Any = Event.parse("data: x").dump()
    assert_type(parsed, Any)


def test_kit(source: EventSource) -> None:
    with SSEServer(tls=True, port=0) as server:
        assert_type(server, SSEServer)
        assert_type(server.url, str)
        assert_type(server.ca_file, str | None)
        server.send("hello", event="greet", id="7")
        server.retry(50)
        assert_type(server.drop(reset=True, partial=b"data: half"), int)
        server.status(503, retry_after=2, headers={"X-Why": "busy"}, times=3)
        server.redirect("/other", status=308)
        server.stall()
        prices: Stream = server.stream("/prices")
        prices.wait_for_connection(5, count=2)
        request = prices.wait_for_request(2, timeout=5)
        assert_type(request, Request)
        assert_type(request.query, dict[str, list[str]])
        assert_type(server.requests, list[Request])
    recorder = Recorder(source, "greet")
    source.on("greet", recorder)
    assert_type(recorder.wait_for(ErrorEvent, timeout=5).retry_in, float | None)
    print(recorder.wait_for("greet").data, recorder.next().type)
    recorder.wait_for(lambda event: event.type == "greet")
    assert_type(wait_until(lambda: source.last_event_id), str)
    assert_type(emit(source, "greet", "hello", id="7"), bool)
    emit(source, ErrorEvent("error", OSError(), ReadyState.CLOSED, None))
    EventSource("https://example.com/", on_open=recorder, on_comment=recorder)


async def test_kit_on_the_loop(source: EventSource) -> None:
    assert_type(await aemit(source, "greet", "hello"), bool)
