"""An HTTP proxy, as a script for `ScriptedServer`: it tunnels (CONNECT) and forwards.

In this process, so that a test sees what it is asked for and can cut what it carries.
"""

from __future__ import annotations

import base64
import select
import socket
from urllib.parse import urlsplit, urlunsplit

from eventsource.testing.scripted import Connection, Request
from tests.support import LIMIT


class Relay:
    """What a proxy does with each connection, whatever the host: all names are here.

    Args:
        credentials: `user:password` to ask for.
    """

    def __init__(self, credentials: str | None = None) -> None:
        self._expected = credentials and f"Basic {base64.b64encode(credentials.encode()).decode()}"

    def __call__(self, connection: Connection) -> None:
        request = connection.read_request()
        if self._expected and request.header("Proxy-Authorization") != self._expected:
            connection.send(
                b"HTTP/1.1 407 Proxy Authentication Required\r\n"
                b'Proxy-Authenticate: Basic realm="proxy"\r\nContent-Length: 0\r\n\r\n'
            )
            return
        tunnel = request.method == "CONNECT"
        target = urlsplit(f"//{request.target}" if tunnel else request.target)
        try:
            upstream = socket.create_connection(("127.0.0.1", target.port), LIMIT)
        except OSError:
            connection.send(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")
            return
        with upstream:
            if tunnel:
                connection.send(b"HTTP/1.1 200 Connection established\r\n\r\n")
            else:
                path = urlunsplit(("", "", *target[2:]))
                upstream.sendall(without_proxy_fields(request, path))
            carry(connection.sock, upstream)


def without_proxy_fields(request: Request, path: str) -> bytes:
    fields = [f"{name}: {value}" for name, value in request.headers if name[:6] != "Proxy-"]
    head = "\r\n".join([f"{request.method} {path} HTTP/1.1", *fields, "", ""])
    return head.encode("latin-1") + request.body


def carry(one: socket.socket, other: socket.socket) -> None:
    """Carry bytes both ways until either side ends.

    In one thread: a TLS socket is not for two at once.
    """
    peers = {one: other, other: one}
    while True:
        buffered = [sock for sock in peers if getattr(sock, "pending", int)()]
        for sock in buffered or select.select(list(peers), [], [])[0]:
            data = sock.recv(65536)
            if not data:
                return
            peers[sock].sendall(data)
