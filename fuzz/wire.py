"""What the targets put under the package: sockets that are scripts, and nothing else."""

from __future__ import annotations

import contextlib
import errno
import io
import socket
from collections.abc import Iterator
from typing import Any

from urllib3.connection import HTTPSConnection
from urllib3.exceptions import NewConnectionError

from eventsource.http.adapter import _AbortableConnection

MOST_RECEIVES = 5000
"""Calls of `recv` after which a reader counts as going round in circles."""
ALL_AT_ONCE = [10**9]
A_LINE = 0
"""As a size: up to the next line feed."""


class Stuck(BaseException):
    """Who reads makes no progress. No `except Exception` hides it."""


class Input:
    """The bytes that the fuzzer made: a few that say how, then those that say what."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._position = 0

    def byte(self) -> int:
        """Take one byte; 0 if there is none left."""
        part = self._data[self._position : self._position + 1]
        self._position += 1
        return part[0] if part else 0

    def sizes(self) -> list[int]:
        """Take a byte, the number of sizes, and a byte for each."""
        sizes = [self.byte() + 1 for _ in range(self.byte() % 5)]
        return [A_LINE if size > 200 else size for size in sizes] or ALL_AT_ONCE

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
    """A socket that receives these pieces, and then the end, or a reset for ever."""

    def __init__(self, pieces: list[bytes], *, reset: bool = False) -> None:
        self._pieces = pieces[::-1]
        self._reset = reset
        self._receives = 0
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

    def recv_into(self, target: memoryview) -> int:
        """As `recv`."""
        piece = self.recv(len(target))
        target[: len(piece)] = piece
        return len(piece)

    def makefile(self, mode: str, buffering: int = -1) -> Any:
        """As a socket's."""
        raw = socket.SocketIO(self, mode)  # type: ignore[arg-type]
        return raw if buffering == 0 else io.BufferedReader(raw)

    def _decref_socketios(self) -> None:
        """For `SocketIO.close()`."""

    def sendall(self, data: bytes) -> None:
        """Note what is sent."""
        self.sent += bytes(data)

    def settimeout(self, timeout: float | None) -> None:
        """Nothing waits here."""

    def shutdown(self, how: int) -> None:
        """Nothing to end."""

    def close(self) -> None:
        """Nothing to close."""


@contextlib.contextmanager
def connections(wires: list[Wire]) -> Iterator[list[tuple[tuple[str, int], Wire]]]:
    """Each connection of the package gets the next of these; then all are refused.

    Yields:
        The list of those that have been made: where to, and on which wire.
    """
    made: list[tuple[tuple[str, int], Wire]] = []

    def new_connection(self: _AbortableConnection) -> Any:
        if isinstance(self, HTTPSConnection) or len(made) == len(wires):
            raise NewConnectionError(self, "refused")
        wire = wires[len(made)]
        made.append(((self.host, self.port), wire))
        return wire

    theirs = _AbortableConnection._new_conn  # noqa: SLF001 - urllib3's seam
    _AbortableConnection._new_conn = new_connection  # type: ignore[method-assign]  # noqa: SLF001
    try:
        yield made
    finally:
        _AbortableConnection._new_conn = theirs  # type: ignore[method-assign]  # noqa: SLF001
