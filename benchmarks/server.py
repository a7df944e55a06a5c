"""The server: a process of its own that only sends bytes made beforehand.

It must never be what limits a client, so it does nothing per event: a body is built
before the clock starts and sent with one `sendall`. How fast that is, is measured too
(the row `raw socket`).

    /body/TICKET     the body that was prepared, once; asked again, it is 404
    /paced/FRAMING/N N events, one each millisecond, each with the time it was sent
    /idle            one event, the time the request was there, then silence until `release`

It answers commands on its standard input, one JSON object a line, and ends with it.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import resource
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from . import inputs

HEADER = (
    b"HTTP/1.1 200 OK\r\n"
    # With a charset because requests, and so sseclient, takes text to be Latin-1 without.
    b"Content-Type: text/event-stream; charset=utf-8\r\n"
    b"Cache-Control: no-store\r\n"
)
CHUNKED = HEADER + b"Transfer-Encoding: chunked\r\n\r\n"
UNCHUNKED = HEADER + b"Connection: close\r\n\r\n"
NOT_FOUND = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
FIRST_EVENT = b"data: %020d\n\n"

INTERVAL = 1_000_000
"""Nanoseconds between paced events."""
LEAD = 50_000_000
"""Nanoseconds before the first of them, so that the client sits in its read."""
PADDING = b"x" * 170
"""Makes a paced event about as long as an LLM token's (200 bytes)."""
GOODBYE = 5.0
"""Seconds that a client has to close a connection after its last byte."""


class Server:
    """Listens on loopback, plain and, given a certificate, with TLS."""

    def __init__(self, certificate: str | None) -> None:
        self._tickets = itertools.count(1)
        self._prepared: tuple[str, bytes, bytes] = ("", b"", b"")  # ticket, header, body
        self._held: list[socket.socket] = []
        self._lock = threading.Lock()  # guards the two above
        self.ports = {"http": self._listen(None)}
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self.ports["https"] = self._listen(context)

    def _listen(self, tls: ssl.SSLContext | None) -> int:
        listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        threading.Thread(target=self._accept, args=(listener, tls), daemon=True).start()
        port: int = listener.getsockname()[1]
        return port

    def _accept(self, listener: socket.socket, tls: ssl.SSLContext | None) -> None:
        while True:
            connection, _ = listener.accept()
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self._serve, args=(connection, tls), daemon=True).start()

    def _serve(self, connection: socket.socket, tls: ssl.SSLContext | None) -> None:
        with contextlib.suppress(OSError):
            if tls is not None:
                connection = tls.wrap_socket(connection, server_side=True)
            if self._answer(connection, *read_path(connection)):
                with self._lock:
                    self._held.append(connection)
                return  # an idle stream costs a socket here, not a thread
        connection.close()

    def _answer(self, connection: socket.socket, path: str, received: int) -> bool:
        """Answer one request; say whether to keep the connection open."""
        match path.strip("/").split("/"):
            case ["idle"]:
                connection.sendall(CHUNKED + chunk(FIRST_EVENT % received))
                return True
            case ["body", ticket]:
                header, content = self._take(ticket)
                connection.sendall(header)
                connection.sendall(content)
            case ["paced", framing, number]:
                connection.sendall(UNCHUNKED if framing == "plain" else CHUNKED)
                pace(connection, framing, int(number))
            case _:
                connection.sendall(NOT_FOUND)
        connection.settimeout(GOODBYE)
        if isinstance(connection, ssl.SSLSocket):
            # The alert that ends a body without a length: without it, the body is cut.
            connection = connection.unwrap()
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(65536):  # closing with bytes unread would reset it
            pass
        return False

    def _take(self, ticket: str) -> tuple[bytes, bytes]:
        with self._lock:
            prepared = self._prepared
            if prepared[0] != ticket:
                return NOT_FOUND, b""
            self._prepared = ("", b"", b"")
            return prepared[1:]

    def prepare(self, *, name: str, framing: str, units: int) -> dict[str, Any]:
        """Build a body; return its path and how many bytes a client gets, TLS undone."""
        header = UNCHUNKED if framing == "plain" else CHUNKED
        content = inputs.body(name, framing, units)
        ticket = str(next(self._tickets))
        with self._lock:
            self._prepared = (ticket, header, content)
        return {"path": f"/body/{ticket}", "bytes": len(header) + len(content)}

    def release(self) -> dict[str, Any]:
        """Close the idle streams."""
        with self._lock:
            held, self._held = self._held, []
        for connection in held:
            connection.close()
        return {"released": len(held)}


def chunk(data: bytes) -> bytes:
    """Return `data` as one HTTP chunk."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def read_path(connection: socket.socket) -> tuple[str, int]:
    """Read a request that has no body; return its path and the nanoseconds it was there at."""
    request = b""
    while b"\r\n\r\n" not in request:
        received = connection.recv(65536)
        if not received:
            raise ConnectionError
        request += received
    at = time.monotonic_ns()
    return request.split(b" ", 2)[1].decode(), at


def pace(connection: socket.socket, framing: str, number: int) -> None:
    """Send `number` events, each with the monotonic clock's nanoseconds in 20 digits.

    On Linux that clock is the same in all processes, and Node's `process.hrtime`, too.
    """
    due = time.monotonic_ns() + LEAD
    for _ in range(number):
        while (wait := due - time.monotonic_ns()) > 0:
            time.sleep(wait / 1e9)
        due += INTERVAL
        event = b"data: %020d %b\n\n" % (time.monotonic_ns(), PADDING)
        connection.sendall(event if framing == "plain" else chunk(event))
    connection.sendall(b"" if framing == "plain" else b"0\r\n\r\n")


def raise_file_limit() -> int:
    """Allow this process as many open files as the system does; return the number."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def main() -> None:
    """Serve until standard input ends."""
    raise_file_limit()
    server = Server(sys.argv[1] if len(sys.argv) > 1 else None)
    commands: dict[str, Callable[..., dict[str, Any]]] = {
        "ports": lambda: server.ports,
        "prepare": server.prepare,
        "release": server.release,
    }
    for line in sys.stdin:
        command = json.loads(line)
        print(json.dumps(commands[command.pop("do")](**command)), flush=True)


if __name__ == "__main__":
    main()
