"""`ScriptedServer`: a server on loopback whose answers are functions on a raw socket.

A test shows on one screen the bytes that go over the wire, and waits for what it
waits for: a connection, a request, the client's going away. Nothing sleeps.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import ssl
import struct
import threading
from collections.abc import Callable
from typing import NamedTuple, Self

STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\n\r\n"
)
"""The head of a response whose body lasts as long as the connection."""


class Request(NamedTuple):
    """What a client sent."""

    method: str
    target: str
    """Path and query, as in the request line."""
    headers: tuple[tuple[str, str], ...]
    """Names and values in order; bytes as latin-1 characters."""
    body: bytes

    def header(self, name: str) -> str | None:
        """The first field of that name in any case, or None."""
        for field, value in self.headers:
            if field.lower() == name.lower():
                return value
        return None


def format_event(
    data: str | None = None,
    *,
    event: str | None = None,
    id: str | None = None,  # noqa: A002 - the field's name
    retry: int | None = None,
) -> bytes:
    """Return the bytes of one block of an event stream.

    Args:
        data: the text; each of its lines becomes a `data` field. None: no such field.
        event: the event's type.
        id: the event's id.
        retry: the reconnection time in milliseconds.
    """
    lines = []
    if event is not None:
        lines.append(f"event: {event}")
    if id is not None:
        lines.append(f"id: {id}")
    if retry is not None:
        lines.append(f"retry: {retry}")
    if data is not None:
        lines += [f"data: {line}" for line in data.split("\n")]
    return "".join(f"{line}\n" for line in lines).encode() + b"\n"


class Connection:
    """One client's connection, on the server's side. Belongs to its script's thread.

    Sending to a client that has gone raises `OSError`, which ends the script in peace.
    """

    def __init__(self, server: ScriptedServer, sock: socket.socket, number: int) -> None:
        self.server = server
        self.sock = sock
        self.number = number
        """Connections before this one."""
        self.request: Request | None = None
        """The last request read."""
        self.gone = threading.Event()
        """Set when the client is seen to have closed."""
        self.over = threading.Event()
        """Set when the script has ended and the socket is closed."""
        self._unread = b""

    def read_request(self) -> Request:
        """Wait for a whole request and return it.

        Raises:
            ConnectionError: the client closed before it was complete.
        """
        while b"\r\n\r\n" not in self._unread:
            self._receive()
        head, _, self._unread = self._unread.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        method, target, _ = first.split(" ", 2)
        fields = tuple(
            (name, value.strip()) for name, _, value in (line.partition(":") for line in lines)
        )
        self.request = request = Request(method, target, fields, b"")
        length = int(request.header("Content-Length") or 0)
        while len(self._unread) < length:
            self._receive()
        body, self._unread = self._unread[:length], self._unread[length:]
        self.request = request._replace(body=body)
        self.server.note(self.request)
        return self.request

    def _receive(self) -> None:
        data = self.sock.recv(65536)
        if not data:
            self.gone.set()
            raise ConnectionError("the client closed the connection")
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
        """Send bytes as one chunk of a chunked body; none end the body."""
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
        """Wait; the server's `close()` cuts it short."""
        self.server.closing.wait(seconds)

    def reset(self) -> None:
        """Close with RST: what was under way is lost."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()


Script = Callable[[Connection], object]


class ScriptedServer:
    """Answers each connection with a script: a function that is given the connection.

    >>> def greet(connection):
    ...     connection.start_stream()
    ...     connection.send_event("hello", id="1")
    >>> with ScriptedServer(greet) as server:
    ...     from eventsource import SSEClient
    ...     print(next(SSEClient(server.url)).data)
    hello

    Each script runs in a thread of its own; when it returns, the connection is closed.
    An exception other than `OSError` that leaves a script is raised by `close()`.

    Args:
        *scripts: for the first connection, the second, ...; the last one is for all
            that follow.
        ssl_context: serve TLS with it.
        port: 0: a free one.

    Threads: all methods may be called from any.
    """

    def __init__(
        self, *scripts: Script, ssl_context: ssl.SSLContext | None = None, port: int = 0
    ) -> None:
        if not scripts:
            raise TypeError("ScriptedServer needs at least one script")
        self._scripts = scripts
        self._ssl_context = ssl_context
        self._listener = socket.create_server(("127.0.0.1", port), backlog=128)
        self._waker, self._woken = socket.socketpair()
        self.port: int = self._listener.getsockname()[1]
        scheme = "http" if ssl_context is None else "https"
        self.url = f"{scheme}://127.0.0.1:{self.port}/"
        self.closing = threading.Event()
        """Set by `close()`."""
        self._changed = threading.Condition()  # guards the lists, and tells of changes
        self._connections: list[Connection] = []
        self._requests: list[Request] = []
        self._threads: list[threading.Thread] = []
        self._failures: list[Exception] = []
        self._accepting = threading.Thread(target=self._accept, name="sse-server", daemon=True)
        self._accepting.start()

    @property
    def connections(self) -> list[Connection]:
        """All connections so far."""
        with self._changed:
            return list(self._connections)

    @property
    def requests(self) -> list[Request]:
        """All requests so far."""
        with self._changed:
            return list(self._requests)

    def wait_for_connection(self, number: int = 1, timeout: float = 30.0) -> Connection:
        """Wait until there have been `number` connections; return that one.

        Raises:
            TimeoutError: there were fewer after `timeout` seconds.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: len(self._connections) >= number, timeout):
                raise TimeoutError(f"{len(self._connections)} of {number} connections came")
            return self._connections[number - 1]

    def wait_for_request(self, number: int = 1, timeout: float = 30.0) -> Request:
        """Wait until `number` requests have been read; return that one.

        Raises:
            TimeoutError: there were fewer after `timeout` seconds.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: len(self._requests) >= number, timeout):
                raise TimeoutError(f"{len(self._requests)} of {number} requests came")
            return self._requests[number - 1]

    def note(self, request: Request) -> None:
        """Add to `requests`."""
        with self._changed:
            self._requests.append(request)
            self._changed.notify_all()

    def close(self) -> None:
        """Close all connections, end all scripts.

        Raises:
            Exception: what left a script, but for `OSError`.
        """
        if self.closing.is_set():
            return
        self.closing.set()
        self._waker.close()
        self._accepting.join()
        for connection in self.connections:
            with contextlib.suppress(OSError):
                connection.sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        if self._failures:
            raise self._failures[0]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _accept(self) -> None:
        with self._listener, self._woken, selectors.DefaultSelector() as selector:
            selector.register(self._listener, selectors.EVENT_READ)
            selector.register(self._woken, selectors.EVENT_READ)
            while not self.closing.is_set():
                selector.select()
                if self.closing.is_set():
                    return
                sock, _ = self._listener.accept()
                with self._changed:
                    connection = Connection(self, sock, len(self._connections))
                    script = self._scripts[min(connection.number, len(self._scripts) - 1)]
                    self._connections.append(connection)
                    self._changed.notify_all()
                thread = threading.Thread(
                    target=self._run, args=(connection, script), name="sse-script", daemon=True
                )
                self._threads.append(thread)
                thread.start()

    def _run(self, connection: Connection, script: Script) -> None:
        try:
            if self._ssl_context is not None:
                connection.sock = self._ssl_context.wrap_socket(connection.sock, server_side=True)
            script(connection)
        except OSError:
            connection.gone.set()
        except Exception as error:  # for the test to see, in close()
            self._failures.append(error)
        finally:
            with contextlib.suppress(OSError):
                # FIN also when a duplicate of the socket lives on.
                connection.sock.shutdown(socket.SHUT_RDWR)
            connection.sock.close()
            connection.over.set()
