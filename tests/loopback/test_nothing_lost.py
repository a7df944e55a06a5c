"""Nothing lost, nothing twice: a server that numbers, replays, and cuts where it likes."""

from __future__ import annotations

import random
import threading

import pytest

from eventsource import EventSource, EventStream, MessageEvent
from eventsource.testing import ScriptedServer
from tests.support import LIMIT, QUICK

CUTS = 200
PER_CONNECTION = 20


class CuttingServer:
    """Sends `PER_CONNECTION` numbered events after the last one acknowledged, and cuts
    at a random byte, with FIN or RST, chunked or not; after `CUTS` cuts it sends the rest."""

    def __init__(self, seed, last):
        self.random = random.Random(seed)
        self.last = last
        self.cuts = 0

    def event(self, number):
        data = f"number {number} é\nsecond line"
        newline = self.random.choice(["\n", "\r\n", "\r"])
        lines = [f"id: {number}", *(f"data: {line}" for line in data.split("\n")), "", ""]
        return newline.join(lines).encode()

    def __call__(self, connection):
        request = connection.read_request()
        first = int(request.header("Last-Event-ID") or 0) + 1
        count = PER_CONNECTION if self.cuts < CUTS else self.last
        body = b"".join(
            self.event(number) for number in range(first, min(first + count, self.last + 1))
        )
        if self.random.random() < 0.5:
            body = b"".join(self.chunks(body))
            framing = b"Transfer-Encoding: chunked\r\n"
        else:
            framing = b""
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n" + framing + b"\r\n"
        data = head + body
        if self.cuts >= CUTS:
            connection.send(data)
            connection.hold()
            return
        self.cuts += 1
        connection.send(data[: self.random.randrange(len(data) + 1)])
        if self.random.random() < 0.3:
            connection.reset()

    def chunks(self, body):
        while body:
            size = self.random.randint(1, 80)
            part, body = body[:size], body[size:]
            yield b"%x\r\n%b\r\n" % (len(part), part)


@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.parametrize("face", ["source", "stream"])
def test_every_number_comes_once_and_in_order_over_200_cuts(face):
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    last = CUTS * 4
    script = CuttingServer(seed, last)
    received = []
    complete = threading.Event()

    def handle(event):
        assert event.data == f"number {event.last_event_id} é\nsecond line"
        received.append(int(event.last_event_id))
        # Not before all cuts have been made.
        if received[-1] == script.last and script.cuts >= CUTS:
            complete.set()
        elif received[-1] == script.last:
            script.last += CUTS

    with ScriptedServer(script) as server:
        if face == "source":
            with EventSource(server.url, on_message=handle, reconnect=QUICK) as source:
                assert complete.wait(LIMIT * 3), (source, source.error, script.cuts, received[-3:])
        else:
            with EventStream(server.url, reconnect=QUICK) as events:
                for event in events:
                    if isinstance(event, MessageEvent):
                        handle(event)
                    if complete.is_set():
                        break
    assert received == list(range(1, len(received) + 1))
    assert script.cuts == CUTS
    print(f"{len(received)} events, {script.cuts} cuts, {len(server.connections)} connections")
