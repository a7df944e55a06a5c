"""A server that goes on only when its clients have read everything.

So each thing that is sent is a read of its own, however slow the client is, under valgrind, say.
Linux tells how many bytes wait in a socket, also to another process (sock_diag(7)). What waits
in neither direction has been taken by the client with `recv`. (`/proc/net/tcp` has the same
numbers, at several milliseconds a look.)
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import termios
import time
from collections.abc import Callable
from typing import Final

POLL_SECONDS: Final = 0.00005
"""Seconds between two looks."""
_SOCK_DIAG_BY_FAMILY: Final = 20
_REQUEST: Final = struct.Struct("=IHHII BBBxI")  # the header, and the head of inet_diag_req_v2
_SOCKET: Final = struct.Struct("!HH4s12x4s12x")  # of inet_diag_sockid, what tells the socket
_NO_COOKIE: Final = b"\0\0\0\0" + b"\xff" * 8
_ERROR: Final = 2


class Lookout:
    """Looks into the sockets of clients on this machine. For one thread."""

    def __init__(self) -> None:
        # NETLINK_SOCK_DIAG is 4; Python has no name for it.
        self._netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 4)

    def close(self) -> None:
        """Close its own socket."""
        self._netlink.close()

    def wait_until_read(
        self, connection: socket.socket, is_over: Callable[[], bool] = lambda: False
    ) -> None:
        """Return when the client has read all that was sent on this connection.

        Args:
            connection: the server's end, of IPv4.
            is_over: asked between two looks: whether not to wait any more.

        Raises:
            OSError: the client's socket is no more, or the system does not tell.
        """
        while not is_over() and (_unsent(connection) or self.unread(connection)):
            time.sleep(POLL_SECONDS)

    def unread(self, connection: socket.socket) -> int:
        """Return the bytes that wait in the client's socket.

        Raises:
            OSError: see `wait_until_read`.
        """
        (host, port), (own_host, own_port) = connection.getpeername(), connection.getsockname()
        wanted = _SOCKET.pack(port, own_port, socket.inet_aton(host), socket.inet_aton(own_host))
        size = _REQUEST.size + len(wanted) + len(_NO_COOKIE)
        head = _REQUEST.pack(
            size, _SOCK_DIAG_BY_FAMILY, 1, 0, 0, socket.AF_INET, socket.IPPROTO_TCP, 0, 0xFFFFFFFF
        )
        self._netlink.send(head + wanted + _NO_COOKIE)
        answer = self._netlink.recv(65536)
        if struct.unpack_from("=H", answer, 4)[0] == _ERROR:
            number = -struct.unpack_from("=i", answer, 16)[0]
            raise OSError(number, os.strerror(number))
        return int(struct.unpack_from("=I", answer, 16 + 4 + 48 + 4)[0])


def _unsent(connection: socket.socket) -> int:
    """Return the bytes that the client's system has not acknowledged."""
    (size,) = struct.unpack("i", fcntl.ioctl(connection, termios.TIOCOUTQ, b"\0" * 4))
    return int(size)
