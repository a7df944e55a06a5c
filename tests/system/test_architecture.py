"""The threads of docs/architecture.md are those of a program."""

from __future__ import annotations

import asyncio
import os
import threading

import pytest
import requests

from eventsource import EventSource, EventStream
from eventsource.testing import ScriptedServer
from tests.loopback.test_architecture import table
from tests.support import CHUNKED, LIMIT, Recorder


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_the_threads_are_those_of_the_table(monkeypatch):
    started = []
    start = threading.Thread.start

    def note(thread):
        started.append(thread.name)
        start(thread)

    def script(connection):
        connection.read_request()
        connection.send(CHUNKED)
        connection.send_chunk(b"data: x\n\n")
        connection.hold()

    async def iterate(url):
        async with EventStream(url) as stream:
            async for _ in stream.messages():
                break

    def in_a_child():
        """The names of the threads that a fork starts in the child."""
        reading, writing = os.pipe()
        child = os.fork()
        if not child:
            os.write(writing, "\n".join(started).encode())
            os._exit(0)
        os.close(writing)
        os.waitpid(child, 0)
        with os.fdopen(reading) as names:
            return names.read().splitlines()

    with ScriptedServer(script) as server:
        url = server.url.replace("127.0.0.1", "localhost")
        monkeypatch.setattr(threading.Thread, "start", note)
        recorder = Recorder()
        with EventSource(url, on_message=recorder, event_timeout=LIMIT):
            recorder.next()
            if hasattr(os, "fork"):
                started += in_a_child()
        assert not any(name == "eventsource-timeout" for name in started)
        with requests.Session() as session:
            with EventSource(url, on_message=recorder, event_timeout=LIMIT, session=session):
                recorder.next()
        asyncio.run(iterate(url))
        with EventStream(url) as stream:
            stream.take(timeout=LIMIT)
    names = {name.replace(url, "URL").replace("localhost", "HOST") for name in started}
    shown = {name.strip("`") for name, *_ in table("Threads") if name.startswith("`")}
    if not hasattr(os, "fork"):
        shown.discard("eventsource-fork")
    assert {name for name in names if not name.startswith("sse-")} == shown
