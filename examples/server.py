"""A server for the examples: prices, the tokens of an answer, feature flags.

Start it, and leave it running while you try the others:

    python examples/server.py

It prints the URLs of its streams. Ctrl-C ends it.
"""

from __future__ import annotations

import argparse
import json
import math
import threading
from collections.abc import Callable

from eventsource.testing import Connection, Request, ScriptedServer

ANSWER = "A stream is a response that has not ended yet."
DROP_AFTER = 15
"""Prices that one connection brings: so one sees the client come back and go on."""


def serve_prices(connection: Connection, request: Request, interval: float) -> None:
    """Number the events, and go on after the one that the client had last."""
    number = int(request.header("Last-Event-ID") or 0)
    connection.send_event(retry=round(1000 * interval))
    for _ in range(DROP_AFTER):
        connection.pause(interval)
        number += 1
        if number % 5 == 0:
            connection.send_event(f"{number} events so far", id=str(number))
        else:
            price = {"symbol": "ACME", "price": round(100 + 10 * math.sin(number / 3), 2)}
            connection.send_event(json.dumps(price), event="price", id=str(number))


def serve_answer(connection: Connection, interval: float) -> None:
    """Send a sentence word by word, and `[DONE]`."""
    for word in ANSWER.split(" "):
        connection.pause(interval / 5)
        connection.send_event(json.dumps({"token": f"{word} "}))
    connection.send_event("[DONE]")


def serve_flags(connection: Connection, interval: float) -> None:
    """Send all flags first, then what changes; each change has a higher version."""
    flags = {
        "dark-mode": {"value": False, "version": 1},
        "page-size": {"value": 20, "version": 1},
    }
    connection.send_event(json.dumps(flags), event="put")
    version = 1
    while not connection.server.closing.is_set():
        for event, change in (
            ("patch", {"name": "dark-mode", "value": True}),
            ("patch", {"name": "beta", "value": "half of all"}),
            ("patch", {"name": "dark-mode", "value": False}),
            ("delete", {"name": "beta"}),
        ):
            connection.pause(interval)
            version += 1
            connection.send_event(json.dumps({**change, "version": version}), event=event)


def answer_with(interval: float) -> Callable[[Connection], None]:
    """Return the script that answers each connection."""

    def answer(connection: Connection) -> None:
        request = connection.read_request()
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
        match request.method, request.target:
            case "GET", "/prices":
                connection.send(head)
                serve_prices(connection, request, interval)
            case "POST", "/v1/chat":
                connection.send(head)
                serve_answer(connection, interval)
            case "GET", "/flags":
                connection.send(head)
                serve_flags(connection, interval)
            case _:
                connection.send(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")

    return answer


def main() -> None:
    """Serve until Ctrl-C."""
    parser = argparse.ArgumentParser(description="Serve streams for the examples.")
    parser.add_argument("--port", type=int, default=8000, help="0: a free one")
    parser.add_argument("--interval", type=float, default=1.0, help="seconds between two events")
    options = parser.parse_args()
    with ScriptedServer(answer_with(options.interval), port=options.port) as server:
        try:
            print(f"{server.url}prices    for the windows, asyncio_program.py and service.py")
            print(f"{server.url}v1/chat   for llm_tokens.py")
            print(f"{server.url}flags     for feature_flags.py", flush=True)
            threading.Event().wait()
        except KeyboardInterrupt:
            pass


if __name__ == "__main__":
    main()
