"""A server that goes on only when its clients have read everything.

So each thing that is sent is a read of its own, however slow the client is, under valgrind, say.
The system knows it: `/proc/net/tcp` has the bytes that wait in each socket (Linux only). What
waits in neither direction has been taken by the client with `recv`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

POLL_SECONDS: Final = 0.0001
"""Seconds between two looks."""


def wait_until_read(port: int, is_over: Callable[[], bool] = lambda: False) -> None:
    """Return when nothing that the server at this port of 127.0.0.1 has sent waits to be read.

    Args:
        port: of the server.
        is_over: asked between two looks: whether not to wait any more.
    """
    while not is_over() and waiting(Path("/proc/net/tcp").read_text(), port):
        time.sleep(POLL_SECONDS)


def waiting(sockets: str, port: int) -> int:
    """Return how many bytes from a port of 127.0.0.1 are under way, or wait to be read.

    Args:
        sockets: what is in `/proc/net/tcp`.
        port: of the server.
    """
    address = f"0100007F:{port:04X}"
    size = 0
    for line in sockets.splitlines():
        if address in line:
            _, local, remote, state, queues, *_ = line.split()
            unsent, _, unread = queues.partition(":")
            if state == "01":  # established; a listening socket counts connections there
                size += int(unsent, 16) if local == address else 0
                size += int(unread, 16) if remote == address else 0
    return size
