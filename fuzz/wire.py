"""What the targets put under the package: sockets that are scripts, and nothing else."""

from __future__ import annotations

import contextlib
import errno
import io
import os
from collections.abc import Iterator
from typing import Any
from unittest import mock

from urllib3.connection import HTTPSConnection
from urllib3.exceptions import NewConnectionError

from eventsource.http.sockets import Sockets

MOST_RECEIVES = 5000
"""Calls of `recv` after which a reader counts as going round in circles."""
ALL_AT_ONCE = [10**9]
A_LINE = 0
"""As a size: up to the next line feed."""
PLAIN_ENVIRONMENT = {"NO_PROXY": "*", "NETRC": os.devnull}
"""No proxies and no `.netrc`."""


class Stuck(BaseException):
    """Who reads makes no progress. No `except Exception` hides it."""


class Input:
    """The bytes that the fuzzer made: a few that say how, then those that say what."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._position = 0

    def __bool__(self) -> bool:
        """Whether anything is left."""
        return self._position < len(self._data)

    def byte(self) -> int:
        """Take one byte; 0 if there is none left."""
        part = self._data[self._position : self._position + 1]
        self._position += 1
        return part[0] if part else 0

    def sizes(self) -> list[int]:
        """Take a byte, the number of sizes, and a byte for each."""
        sizes = [self.byte() + 1 for _ in range(self.byte() % 5)]
        return [A_LINE if size > 200 else size for size in sizes] or ALL_AT_ONCE

    def take(self, size: int) -> bytes:
        """Take so many bytes; fewer if no more are left."""
        part = self._data[self._position : self._position + size]
        self._position += size
        return part

    def rest(self, most: int) -> bytes:
        """Return what is left, cut off after `most` bytes."""
        return self._data[self._position : self._position + most]


def cut(data: bytes, sizes: list[int]) -> list[bytes]:
    """Cut into pieces of these sizes, which are taken in turn; 500 of them at the most."""
    pieces = []
    while data:
        size = sizes[len(pieces) % len(sizes)] if len(pieces) < 499 else len(data)
        if size == A_LINE:
            size = data.find(b"\n") + 1 or len(data)
        pieces.append(data[:size])
        data = data[size:]
    return pieces


class Wire:
    """A socket that receives these pieces, and then the end, or a reset for ever.

    Attributes:
        sent: what has been sent on it.
    """

    def __init__(self, pieces: list[bytes], *, reset: bool = False) -> None:
        self._pieces = pieces[::-1]
        self._reset = reset
        self._receives = 0
        self._timeout: float | None = None
        self.sent = b""

    def recv(self, size: int) -> bytes:
        """Return the next piece, or as much of it as is asked for."""
        self._receives += 1
        if self._receives > MOST_RECEIVES:
            raise Stuck
        if not self._pieces:
            if self._reset:
                raise ConnectionResetError(errno.ECONNRESET, "reset")
            return b""
        piece = self._pieces.pop()
        if len(piece) > size:
            self._pieces.append(piece[size:])
            piece = piece[:size]
        return piece

    def makefile(self, mode: str, buffering: int = -1) -> Any:  # noqa: ARG002 - a socket's
        """Return a file that reads from the socket."""
        raw = _File(self)
        return raw if buffering == 0 else io.BufferedReader(raw)

    def sendall(self, data: bytes) -> None:
        """Note what is sent."""
        self.sent += bytes(data)

    def gettimeout(self) -> float | None:
        """Return what `settimeout` was given."""
        return self._timeout

    def settimeout(self, timeout: float | None) -> None:
        """Note the timeout. Nothing waits here."""
        self._timeout = timeout

    def shutdown(self, how: int) -> None:
        """Nothing to end."""

    def close(self) -> None:
        """Nothing to close."""


class _File(io.RawIOBase):
    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def readable(self) -> bool:
        return True

    def readinto(self, target: Any, /) -> int:
        piece = self._wire.recv(len(target))
        target[: len(piece)] = piece
        return len(piece)


@contextlib.contextmanager
def connections(wires: list[Wire]) -> Iterator[list[tuple[tuple[str, int], Wire]]]:
    """Each connection of the package gets the next of these; then all are refused.

    Those that want TLS are refused, too, and get none.

    Yields:
        The list of those that have been made: where to, and on which wire.
    """
    made: list[tuple[tuple[str, int], Wire]] = []

    def connect_to(_: Sockets, host: str, port: int, *_arguments: Any) -> Any:
        if len(made) == len(wires):
            raise ConnectionRefusedError(errno.ECONNREFUSED, "refused")
        wire = wires[len(made)]
        made.append(((host, port), wire))
        return wire

    def refuse(connection: HTTPSConnection) -> None:
        raise NewConnectionError(connection, "refused")

    with (
        mock.patch.object(Sockets, "connect_to", connect_to),
        mock.patch.object(HTTPSConnection, "connect", refuse),
        mock.patch.dict(os.environ, PLAIN_ENVIRONMENT),
    ):
        yield made
