"""The decompressed body of a response: one call returns all that has arrived.

On the client's own connections, this module reads the body from the socket, decodes its
framing and its coding. Any other body is read by urllib3, which decodes its framing, and is
decompressed here.
"""

from __future__ import annotations

import errno
import select
import ssl
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

from urllib3.util import wait_for_read

from eventsource.errors import BrokenBody, EventTimeout
from eventsource.protocol.framing import Body

from .decoding import Decoder

READ_SIZE: Final = 64 * 1024
"""The most bytes that one read takes from the socket: some hundred events share the
fixed cost of a read."""


class BodyReader(Protocol):
    """Reads a body, in one thread.

    `read` returns what has arrived. If nothing has, it waits, for at most `timeout` seconds
    if its waits can be limited, and then raises `EventTimeout`. At the end of the body it
    returns no bytes. It raises an exception if the body is malformed or cut short.
    """

    def read(self, timeout: float | None = None) -> bytes:
        """See above."""
        ...


class SocketBody:
    """A body that this client reads from the socket itself.

    Over TLS, the end of the connection ends the body only after the server's closing alert:
    anyone on the path can cut a connection.

    Args:
        sock: the socket; its timeout is the longest wait for bytes.
        received: what has been received and is part of the body.
        framing: the body's framing.
        decoder: undoes its coding; None: it has none.
    """

    def __init__(self, sock: Any, received: bytes, framing: Body, decoder: Decoder | None) -> None:
        self._sock = sock
        self._received = received
        self._framing = framing
        self._decoder = decoder
        self._read_timeout: float | None = sock.gettimeout()
        self._timeout = self._read_timeout  # the socket's present timeout
        self._waited = 0.0  # seconds without bytes, in reads with a shorter timeout than that
        # TLS only: tells whether bytes have arrived before a record is read. If so, there may be
        # further records. It is called before a wait, so it delays no event that was waited for.
        self._has_arrived = _arrival_on(sock) if hasattr(sock, "pending") else None
        self._is_cut = False  # TLS has ended without its closing alert
        self._failure: OSError | None = None  # raised by the next read

    def certificate(self) -> Mapping[str, Any] | None:
        """The peer's, as `ssl.SSLSocket.getpeercert()` returns it; None if there is none."""
        look = getattr(self._sock, "getpeercert", None)
        try:
            return None if look is None else look()
        except (AttributeError, OSError, ValueError):  # it has been shut down, or closed
            return None

    def read(self, timeout: float | None = None) -> bytes:
        """See `BodyReader`."""
        framing, decoder = self._framing, self._decoder
        deadline = 0.0 if timeout is None else time.monotonic() + timeout
        while True:
            if decoder is not None and decoder.holds_more:
                data = decoder.decode(b"", READ_SIZE)
            elif framing.is_over:
                if framing.error is not None:
                    raise framing.error
                if self._is_cut:
                    raise BrokenBody("the TLS connection was cut without its closing alert")
                return b""
            elif received := self._receive(timeout):
                data = framing.feed(received)
                if decoder is not None:
                    data = decoder.decode(data, READ_SIZE)
            else:
                framing.end()
                continue
            if data:
                return data
            # Only framing has come, or compressed bytes without output so far.
            if timeout is not None:
                timeout = deadline - time.monotonic()

    def _receive(self, limit: float | None) -> bytes:
        """Return what has arrived, at most 64 KiB (or what came with the head); else wait.

        Args:
            limit: seconds to wait at most.
        """
        data = self._received
        if data:
            self._received = b""
            return data
        timeout, is_limited = self._read_timeout, False
        if timeout is not None:
            timeout = max(timeout - self._waited, 0.0001)  # 0: would not wait at all
        if limit is not None and (timeout is None or limit < timeout):
            timeout, is_limited = max(limit, 0.0001), True
        try:
            if self._failure is not None:
                raise self._failure
            if timeout != self._timeout:
                self._set_timeout(timeout)
            has_arrived = self._has_arrived
            is_behind = has_arrived is not None and has_arrived()
            data = self._sock.recv(READ_SIZE)
            if is_behind and data and has_arrived is not None and has_arrived():
                data = self._with_more_records(data)
        except ssl.SSLZeroReturnError:
            return b""
        except OSError as error:
            if _is_cut(error):
                self._is_cut = True
                return b""
            if is_limited and _has_timed_out(error):
                self._waited += timeout or 0.0
                raise EventTimeout("no message in time") from None
            raise
        self._waited = 0.0
        return data

    def _with_more_records(self, record: bytes) -> bytes:
        # A TLS socket returns one record a call, and servers write one per event.
        # With timeout 0 it does not wait for the rest of a partial record.
        sock = self._sock
        records = [record]
        room = READ_SIZE - len(record)
        self._set_timeout(0.0)
        try:
            while room > 0 and (record := sock.recv(room)):
                records.append(record)
                room -= len(record)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            pass  # no more whole records
        except OSError as error:
            if not _has_timed_out(error):  # eventlet's and pyOpenSSL's form of the above
                self._failure = error
        return b"".join(records)

    def _set_timeout(self, timeout: float | None) -> None:
        self._sock.settimeout(timeout)
        self._timeout = timeout


def _arrival_on(sock: Any) -> Callable[[], object]:
    """Return a function that tells whether bytes have arrived on a TLS socket."""
    if not hasattr(select, "poll"):  # on Windows, or patched by eventlet
        return lambda: sock.pending() or wait_for_read(sock, timeout=0)
    poll = select.poll()  # takes a quarter of the time of `wait_for_read`
    poll.register(sock, select.POLLIN)
    return lambda: sock.pending() or poll.poll(0)


def _has_timed_out(error: OSError) -> bool:
    """Whether the socket's timeout has passed; TCP's own timeout is another error."""
    return isinstance(error, TimeoutError) and error.errno != errno.ETIMEDOUT


def _is_cut(error: OSError) -> bool:
    """Whether a TLS connection has ended without its closing alert."""
    # OpenSSL 3.6 then sends the peer an alert; if the peer has closed, the read fails with EPIPE.
    is_complaint = isinstance(error, BrokenPipeError)
    return is_complaint or isinstance(error, ssl.SSLEOFError) or error.errno == -1  # pyOpenSSL's


class RawBody:
    """A body whose framing urllib3 decodes, for example on a session of the caller's.

    The waits of its reads cannot be limited, and a cut of the TLS connection goes undetected.

    Args:
        raw: urllib3's response.
        decoder: undoes the body's coding; None: it has none.
    """

    def __init__(self, raw: Any, decoder: Decoder | None) -> None:
        self._raw = raw
        # If a hook has read part of the body, urllib3 has begun to decompress it.
        self._has_begun = bool(raw.tell()) if hasattr(raw, "tell") else False
        self._decoder = None if self._has_begun else decoder

    def read(self, timeout: float | None = None) -> bytes:  # noqa: ARG002
        """See `BodyReader`."""
        decoder = self._decoder
        while True:
            if decoder is not None and decoder.holds_more:
                data = decoder.decode(b"", READ_SIZE)
            else:
                data = self._raw.read1(READ_SIZE, decode_content=self._has_begun)
                if not data:
                    return b""
                if decoder is not None:
                    data = decoder.decode(data, READ_SIZE)
            if data:
                return data


def read_into(read: bytearray, body: BodyReader, size: int, seconds: float) -> None:
    """Append a body to `read` until `read` has `size` bytes or the time is up."""
    deadline = time.monotonic() + seconds
    while len(read) < size and (left := deadline - time.monotonic()) > 0:
        data = body.read(left)
        if not data:
            return
        read += data[: size - len(read)]
