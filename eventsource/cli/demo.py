"""The demo: a server in a process of its own, and a source that reads from it.

The server numbers its events and continues after the `Last-Event-ID` that it is sent. Half-way
it drops the connection, to show how the source resumes.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from typing import Final

from eventsource.protocol.events import ErrorEvent, MessageEvent, OpenEvent
from eventsource.protocol.policy import ReconnectPolicy
from eventsource.source import EventSource
from eventsource.testing import Connection, ScriptedServer

LAST: Final = 12
"""Number of the last event."""
DROP_AFTER: Final = 6
"""The connection is dropped after this event."""
INTERVAL: Final = 0.4
"""Seconds between events: the demo ends well within ten."""
TIME_LIMIT: Final = 30.0
"""Seconds after which the demo gives up."""


def count(connection: Connection) -> None:
    """The server's script: number events, drop the connection half-way."""
    request = connection.start_stream()
    number = int(request.header("Last-Event-ID") or 0)
    connection.send_event(retry=1000)
    while number < LAST:
        connection.pause(INTERVAL)
        number += 1
        if number % 4 == 0:
            connection.send_event(f'{{"price": {100 + number}}}', event="price", id=str(number))
        else:
            connection.send_event(f"event number {number}", id=str(number))
        if number == DROP_AFTER and not request.header("Last-Event-ID"):
            return
    connection.send_event("that was all", event="bye")
    connection.hold()


def serve() -> None:
    """Serve until standard input ends; print the URL first."""
    with ScriptedServer(count) as server:
        print(server.url, flush=True)  # noqa: T201 - to the process that started this one
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the other process gets it, and ends this one
        sys.stdin.read()


def main() -> int:
    """Run the demo; return the exit status.

    Raises:
        OSError: standard output cannot be written to.
    """
    started = time.monotonic()
    done = threading.Event()
    failures: list[OSError] = []

    def say(text: str) -> None:
        try:
            print(f"{time.monotonic() - started:5.1f} s  {text}", flush=True)  # noqa: T201
        except OSError as error:  # perhaps in the reader thread
            failures.append(error)
            done.set()

    with subprocess.Popen(
        [sys.executable, "-m", "eventsource.cli.demo"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        url = server.stdout.readline().strip()
        say(f"server   {url} (process {server.pid})")
        received: list[int] = []

        def opened(event: OpenEvent | MessageEvent) -> None:
            say(f"open     status {event.status}" if isinstance(event, OpenEvent) else "open")

        def message(event: MessageEvent) -> None:
            received.append(int(event.last_event_id))
            say(f"{event.type:8} {event.data}  (id {event.last_event_id})")

        def lost(event: ErrorEvent) -> None:
            if event.retry_in is None:
                say(f"error    {event.error}: closed")
                done.set()
            else:
                place = f" with Last-Event-ID: {received[-1]}" if received else ""
                say(f"error    {event.error}: reconnecting in {event.retry_in:.1f} s{place}")

        source = EventSource(
            url,
            on_open=opened,
            on_message=message,
            on_error=lost,
            reconnect=ReconnectPolicy(max_attempts=5),
        )
        source.on("price", message)
        source.on("bye", lambda _: done.set())
        try:
            in_time = done.wait(TIME_LIMIT)
        finally:  # also at Ctrl-C, after which nothing more is printed
            source.close()
        source.join(TIME_LIMIT)
        say("closed   the reader thread has ended")
        server.stdin.close()
    complete = received == list(range(1, LAST + 1))
    say(f"{'every' if complete else 'NOT every'} event came once and in order: {received}")
    if failures:
        raise failures[0]
    return 0 if in_time and complete else 1


if __name__ == "__main__":
    serve()
