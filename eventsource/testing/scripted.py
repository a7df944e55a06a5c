"""`ScriptedServer`: a server on loopback whose answers are functions on a raw socket.

A test shows on one screen the bytes that are sent, and waits for events: a connection, a
request, the end of the client. Nothing sleeps.
"""

from __future__ import annotations

import contextlib
import errno
import selectors
import socket
import ssl
import threading
from collections.abc import Callable
from typing import Final, Self

from .connection import Connection
from .request import Request

Script = Callable[[Connection], object]

_NO_MORE_FILES: Final = (errno.EMFILE, errno.ENFILE)


class ScriptedServer:
    """Answers each connection with a script: a function that gets the `Connection`.

    Each script runs in a thread of its own; when it returns, the connection is closed.
    If a script raises an exception other than an `OSError`, `close()` raises it; likewise the
    `OSError` of a program that has no more file descriptors.

    Args:
        *scripts: for the first connection, the second, ...; the last one is for all
            further connections, too.
        ssl_context: serve TLS with it.
        port: the port to listen on; 0: any free port.

    Threads: all methods may be called from any.

    Examples:
        >>> def greet(connection):
        ...     connection.start_stream()
        ...     connection.send_event("hello", id="1")
        >>> with ScriptedServer(greet) as server:
        ...     from eventsource import SSEClient
        ...     print(next(SSEClient(server.url)).data)
        hello
    """

    _keeps = True
    """Whether connections and requests are kept for tests. A server that runs for days sets
    False; then a lack of file descriptors does not end it, either."""

    _max_request: int | None = None
    """The most bytes that a client may send; None: no limit."""

    def __init__(
        self, *scripts: Script, ssl_context: ssl.SSLContext | None = None, port: int = 0
    ) -> None:
        if not scripts:
            raise TypeError("ScriptedServer needs at least one script")
        self._scripts = scripts
        self._ssl_context = ssl_context
        self._listener = self._listen(port)
        self._listener.setblocking(False)  # a client may close between select and accept
        self._waker, self._woken = socket.socketpair()
        self.port: int = self._listener.getsockname()[1]
        scheme = "http" if ssl_context is None else "https"
        self.url = f"{scheme}://127.0.0.1:{self.port}/"
        self.closing = threading.Event()
        """Set by `close()`."""
        self._changed = threading.Condition()  # guards the lists; notified of changes
        self._connections: list[Connection] = []
        self._requests: list[Request] = []
        self._threads: list[threading.Thread] = []
        self._failures: list[Exception] = []
        self._accepting = threading.Thread(target=self._accept, name="sse-server", daemon=True)
        self._accepting.start()

    def _listen(self, port: int) -> socket.socket:
        return socket.create_server(("127.0.0.1", port), backlog=128)

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
        if not self._keeps:
            return
        with self._changed:
            self._requests.append(request)
            self._changed.notify_all()

    def close(self) -> None:
        """Close all connections, end all scripts.

        Raises:
            Exception: the first that a script raised, other than an `OSError` of its connection.
        """
        if self.closing.is_set():
            return
        self.closing.set()
        self._waker.close()
        self._accepting.join()
        for connection in self.connections:
            with contextlib.suppress(OSError):
                # Not SSLSocket.shutdown(), which would end TLS while the script's thread uses it.
                socket.socket.shutdown(connection.sock, socket.SHUT_RDWR)
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
                try:
                    sock, _ = self._listener.accept()
                except (BlockingIOError, ConnectionAbortedError):  # the client has closed
                    continue
                except OSError as error:  # raised by close()
                    if not self._keeps and error.errno in _NO_MORE_FILES:
                        self.closing.wait(0.1)  # try again: other connections may have closed
                        continue
                    self._failures.append(error)
                    return
                sock.setblocking(True)  # whatever the listener and the program's default are
                with self._changed:
                    connection = Connection(self, sock, len(self._connections), self._max_request)
                    script = self._scripts[min(connection.number, len(self._scripts) - 1)]
                    self._connections.append(connection)
                    self._changed.notify_all()
                self._start(connection, script)

    def _start(self, connection: Connection, script: Script) -> None:
        thread = threading.Thread(
            target=self._run, args=(connection, script), name="sse-script", daemon=True
        )
        self._threads = [other for other in self._threads if other.is_alive()]
        try:
            thread.start()
        except RuntimeError as error:  # the program is ending, or no thread could be started
            self._failures.append(error)
            self._end(connection)
        else:
            self._threads.append(thread)

    def _run(self, connection: Connection, script: Script) -> None:
        try:
            if self._ssl_context is not None:
                self._shake_hands(connection, self._ssl_context)
            script(connection)
        except OSError as error:
            connection.gone.set()
            if self._keeps and error.errno in _NO_MORE_FILES:
                self._failures.append(error)
        except Exception as error:  # raised by close()
            self._failures.append(error)
        finally:
            self._end(connection)
            if not self._keeps:
                with self._changed:
                    self._connections.remove(connection)

    def _shake_hands(self, connection: Connection, context: ssl.SSLContext) -> None:
        # In two steps, so that close() finds the socket that the handshake waits on.
        connection.sock = context.wrap_socket(
            connection.sock, server_side=True, do_handshake_on_connect=False
        )
        if self.closing.is_set():  # close() may have come before the socket was replaced
            raise ConnectionError("the server is closed")
        assert isinstance(connection.sock, ssl.SSLSocket)
        connection.sock.do_handshake()

    @staticmethod
    def _end(connection: Connection) -> None:
        if isinstance(connection.sock, ssl.SSLSocket):
            # Send the closing alert, as servers do; do not wait for the client's.
            with contextlib.suppress(OSError, ValueError):
                connection.sock.settimeout(0.0)
                connection.sock.unwrap()
        with contextlib.suppress(OSError):
            # Sends FIN even if a duplicate of the socket exists.
            connection.sock.shutdown(socket.SHUT_RDWR)
        connection.sock.close()
        connection.over.set()
