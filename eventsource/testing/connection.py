"""`Connection`: one client's connection, on the side of a `ScriptedServer`."""

from __future__ import annotations

import socket
import struct
import threading
from typing import Protocol

from .blocks import format_event
from .request import MalformedRequest, Request, chunk_size, parse_head

STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\n\r\n"
)
"""The head of a response whose body ends with the connection."""


class Server(Protocol):
    """The parts of its server that a connection and its script use."""

    closing: threading.Event
    """Set when the server is being closed."""
    port: int
    url: str

    @property
    def requests(self) -> list[Request]:
        """All requests so far."""
        ...

    def note(self, request: Request) -> None:
        """Add a request."""


class Connection:
    """One client's connection, on the server's side. For the thread of its script.

    Sending to a client that has closed raises `OSError`; a script need not handle that.
    """

    def __init__(
        self,
        server: Server,
        sock: socket.socket,
        number: int,
        max_request: int | None = None,
    ) -> None:
        self.server = server
        self.sock = sock
        self.number = number
        """The number of connections before this one."""
        self.request: Request | None = None
        """The last request read."""
        self.gone = threading.Event()
        """Set when the server sees that the client has closed."""
        self.over = threading.Event()
        """Set when the script has ended and the socket is closed."""
        self._max_request = max_request  # the most bytes that the client may send; None: no limit
        self._unread = b""
        self._received = 0

    def read_request(self) -> Request:
        """Wait for a whole request and return it; its body may be chunked.

        A client that waits for "100 Continue" before it sends the body gets that.

        Raises:
            MalformedRequest: the client sent something else. It is a `ConnectionError`.
            ConnectionError: the client closed before the request was complete.
        """
        if not self._unread:
            self._receive()
        if self._unread.startswith(b"\x16"):  # else this would wait for a CRLF
            raise MalformedRequest("a TLS handshake, where plain HTTP is spoken")
        self.request = request = parse_head(self._read_until(b"\r\n\r\n"))
        length = request.length()
        if (request.header("Expect") or "").lower() == "100-continue":
            self.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = self._read_chunks() if length is None else self._read(length)
        self.request = request._replace(body=body)
        self.server.note(self.request)
        return self.request

    def _read_chunks(self) -> bytes:
        body = []
        while size := chunk_size(self._read_until(b"\r\n")):
            body.append(self._read(size))
            if self._read(2) != b"\r\n":
                raise MalformedRequest("a chunk longer than its size")
        while self._read_until(b"\r\n"):
            pass  # trailer fields
        return b"".join(body)

    def _read_until(self, end: bytes) -> bytes:
        """Return the bytes before `end`, and skip `end`."""
        while end not in self._unread:
            self._receive()
        data, _, self._unread = self._unread.partition(end)
        return data

    def _read(self, size: int) -> bytes:
        while len(self._unread) < size:
            self._receive()
        data, self._unread = self._unread[:size], self._unread[size:]
        return data

    def _receive(self) -> None:
        data = self.sock.recv(65536)
        if not data:
            self.gone.set()
            raise ConnectionError("the client closed the connection")
        self._received += len(data)
        if self._max_request is not None and self._received > self._max_request:
            raise MalformedRequest(f"a request of more than {self._max_request} bytes")
        self._unread += data

    def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        self.sock.sendall(data)

    def start_stream(self) -> Request:
        """Read the request and answer with the head of an event stream."""
        request = self.read_request()
        self.send(STREAM_HEAD)
        return request

    def send_event(
        self,
        data: str | None = None,
        *,
        event: str | None = None,
        id: str | None = None,  # noqa: A002
        retry: int | None = None,
    ) -> None:
        """Send one block; the arguments are those of `format_event`."""
        self.send(format_event(data, event=event, id=id, retry=retry))

    def send_chunk(self, data: bytes) -> None:
        """Send bytes as one chunk of a chunked body; `b""` ends the body."""
        self.send(b"%x\r\n%b\r\n" % (len(data), data))

    def hold(self) -> None:
        """Keep the connection open and silent until the client or the server closes."""
        while not self.gone.is_set():
            try:
                if not self.sock.recv(65536):
                    self.gone.set()
            except OSError:
                self.gone.set()

    def pause(self, seconds: float) -> None:
        """Wait; the server's `close()` ends the wait."""
        self.server.closing.wait(seconds)

    def reset(self) -> None:
        """Close with RST: data that has not arrived is lost."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()
