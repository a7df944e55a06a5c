"""A TCP proxy in front of an engine: it can be cut, be silent, and lead elsewhere."""

from __future__ import annotations

import contextlib
import socket
import threading

from tests.support import LIMIT

PIECE = 65_536


class Forwarder:
    """Forwards connections to a port of this machine.

    Attributes:
        target: the port; a change counts for the connections that come.
        port: where it listens.
    """

    def __init__(self, target: int) -> None:
        self.target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._lock = threading.Lock()
        self._sockets: set[socket.socket] = set()
        self._threads: set[threading.Thread] = set()
        self._is_silent = False
        self.holds = threading.Event()
        self._held = b""
        self._goes_on = threading.Event()
        self._start(self._accept)

    def be_silent(self) -> None:
        """From now on, lose what the engine says; what it is told still reaches it."""
        self._is_silent = True

    def hold(self, text: bytes) -> None:
        """From now on, keep back a request that has this text until `go_on()`; `holds` is set."""
        self._held = text

    def go_on(self) -> None:
        self._held = b""
        self._goes_on.set()

    def cut(self) -> None:
        """Drop all connections. Those that come are sound."""
        with self._lock:
            for sock in self._sockets:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
            self._is_silent = False

    def __enter__(self):
        return self

    def __exit__(self, *_):
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.go_on()
        self.cut()
        while self._threads:
            with self._lock:
                thread = next(iter(self._threads), None)
            if thread is not None:
                thread.join(LIMIT)

    def _start(self, target, *arguments) -> None:
        def run():
            try:
                target(*arguments)
            finally:
                self._threads.discard(threading.current_thread())

        thread = threading.Thread(target=run, name="test-forwarder", daemon=True)
        self._threads.add(thread)
        thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                try:
                    server = socket.create_connection(("127.0.0.1", self.target))
                except OSError:
                    client.close()
                    continue
                with self._lock:
                    self._sockets |= {client, server}
                self._start(self._carry, client, server, False)
                self._start(self._carry, server, client, True)

    def _carry(self, one: socket.socket, other: socket.socket, is_answer: bool) -> None:
        with contextlib.suppress(OSError):
            while data := one.recv(PIECE):
                if not is_answer and self._held and self._held in data:
                    self.holds.set()
                    self._goes_on.wait(LIMIT)
                if not (is_answer and self._is_silent):
                    other.sendall(data)
        for sock in (one, other):  # the other thread then comes to its end, too
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        if is_answer:  # one of the two closes them
            with self._lock:
                self._sockets -= {one, other}
            one.close()
            other.close()
