"""What the probes' servers send, and what can be observed of a client from outside."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import selectors
import socket
import sys
import termios
import time
from collections.abc import Callable, Iterator
from typing import Any

from eventsource.testing import Connection, ScriptedServer

from .clients import Client
from .reading import Reading

# The servers answer once on each connection, and announce that. Otherwise it would depend on
# timing whether a client that reuses connections finds one closed.
HEAD = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: text/event-stream\r\n"
HEADS = {
    "plain": HEAD + b"\r\n",
    "chunked": HEAD + b"Transfer-Encoding: chunked\r\n\r\n",
}
BUSY = b"HTTP/1.1 503 Busy\r\nConnection: close\r\nRetry-After: 100\r\nContent-Length: 0\r\n\r\n"
NO_CONTENT = b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n"


def send(connection: Connection, framing: str, data: bytes) -> None:
    if framing == "chunked":
        connection.send_chunk(data)
    else:
        connection.send(data)


def client_socket(connection: Connection) -> socket.socket | None:
    """Return a duplicate of the client's socket, which is in this process; None: it is closed."""
    peer = connection.sock.getpeername()
    for entry in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            sock = socket.socket(fileno=os.dup(int(entry)))
            if sock.getsockname() == peer:
                return sock
            sock.close()
    return None


def wait_until_taken(connection: Connection) -> None:
    """Wait until the kernel reports that the client has read all that was sent (Linux)."""
    while not connection.server.closing.is_set():
        sock = client_socket(connection)
        if sock is None:
            return
        with sock:
            unread = fcntl.ioctl(sock, termios.FIONREAD, bytes(4))
        if unread == bytes(4):
            return
        connection.pause(0.005)


def answer(
    client: Client,
    *pieces: bytes,
    then: str = "end",
    framing: str | None = None,
    parameter: bytes = b"",
    head: bytes = b"",
) -> Callable[[Connection], None]:
    """Return a script that answers with a stream, by default in the framing of the client.

    Each piece is sent after the client has read the one before. Then the response ends
    (`end`), stays open without further bytes (`hold`) or is reset (`reset`).
    """
    framing = framing or client.framing

    def script(connection: Connection) -> None:
        connection.read_request()
        connection.send(HEADS[framing][:-4] + parameter + b"\r\n" + head + b"\r\n")
        for piece in pieces:
            send(connection, framing, piece)
            wait_until_taken(connection)
        if then == "end" and framing == "chunked":
            connection.send_chunk(b"")
        elif then == "hold":
            connection.hold()
        elif then == "reset":
            connection.reset()

    return script


def respond(data: bytes) -> Callable[[Connection], None]:
    def script(connection: Connection) -> None:
        connection.read_request()
        connection.send(data)

    return script


def break_off(connection: Connection) -> None:
    """Answer a request with a reset."""
    connection.read_request()
    connection.reset()


def stay_silent(connection: Connection) -> None:
    connection.read_request()
    connection.hold()


SENTINEL = "the sentinel"


def texts(client: Client, *pieces: bytes, parameter: bytes = b"") -> list[tuple[str, str]]:
    """Return types and texts of the events that the client makes of these bytes.

    `parameter` is added to the content type.
    """
    last = f"data: {SENTINEL}\n\n".encode()
    script = answer(client, *pieces, last, then="hold", parameter=parameter)
    with ScriptedServer(script) as server:
        reading = Reading(client, server.url).start()
        reading.wait(
            lambda: (
                any(SENTINEL in event.data for event in reading.heard)
                or len(server.connections) > 1  # it has reconnected
            )
        )
        return [(event.type, event.data) for event in reading.heard if SENTINEL not in event.data]


def makes(client: Client, expected: list[str], *pieces: bytes, parameter: bytes = b"") -> bool:
    found = texts(client, *pieces, parameter=parameter)
    return found == [("message", text) for text in expected]


@contextlib.contextmanager
def recorded_waits(reading: Reading, *, really: bool = False) -> Iterator[None]:
    """Record how long the client wants to sleep before its attempts; sleep only if `really`.

    Our own client does not call `sleep()`. It reports how long it waits, and does wait.
    """
    own = {module.partition(".")[0] for module in (*reading.client.modules, "sseclient_module")}
    sleep, async_sleep = time.sleep, asyncio.sleep

    def is_theirs() -> bool:
        return sys._getframe(2).f_globals["__name__"].partition(".")[0] in own

    def recording_sleep(seconds: float) -> None:
        if is_theirs():
            reading.note(reading.waits, seconds)
            if not really:
                return
        sleep(seconds)

    async def recording_async_sleep(seconds: float, result: Any = None) -> Any:
        if is_theirs():
            reading.note(reading.waits, seconds)
            if not really:
                seconds = 0
        return await async_sleep(seconds, result)

    time.sleep, asyncio.sleep = recording_sleep, recording_async_sleep
    try:
        yield
    finally:
        time.sleep, asyncio.sleep = sleep, async_sleep


def connection_is_closed(connection: Connection) -> bool:
    """Whether the client has closed its side."""
    with selectors.DefaultSelector() as selector:
        selector.register(connection.sock, selectors.EVENT_READ)
        return bool(selector.select(0)) and not connection.sock.recv(65536)


class Chunks:
    """A file whose writes are HTTP chunks."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def write(self, data: bytes) -> int:
        if data:
            with contextlib.suppress(OSError):  # the last bytes, to a client that has closed
                self._connection.send_chunk(bytes(data))
        return len(data)

    def flush(self) -> None:
        """Do nothing: `write()` has no buffer."""
