"""The bytes of a response, all that have arrived in one call.

`http.client` undoes the chunked transfer coding (RFC 9112, 7.1) one chunk a call, and
servers send one chunk per event: on a busy stream that costs more than all the rest.

The invariant: `Response` by itself takes **only chunks that are in the buffer and plainly
framed**, and waits only where `http.client` could do nothing else. Extensions, trailers,
the last chunk, whatever is malformed or cut: all that is left to `http.client`, which
finds the bytes and its own state as if it had read the chunks before. So the body and the
errors are its own.
"""

from __future__ import annotations

import http.client
import io
import re
import ssl
from typing import Any, Final

import urllib3
from urllib3.exceptions import DecodeError
from urllib3.response import ContentDecoder, DeflateDecoder
from urllib3.util.wait import wait_for_read

from eventsource.errors import HeadTooLarge

from .cookies import drop_bad_cookies

READ_SIZE: Final = 64 * 1024
"""Bytes taken from the socket at once at the most. Some hundred events: what a read
costs apart from its bytes is then shared by enough of them."""
MAX_HEAD_SIZE: Final = 256 * 1024
"""Bytes of a response's status line and header fields, interim responses (1xx) included:
as much as browsers take. A line may have a fourth of it, which is http.client's limit."""
MAX_FIELDS: Final = 100
"""Header fields of a response: http.client's limit."""
MAX_KNOWN_FRAMES: Final = 4096
"""Entries in the table of chunk frames: 0.5 MB at the most."""


class Incoming(io.BufferedIOBase):
    """The file under a response: a buffered socket whose buffer is open to view.

    `io.BufferedReader` cannot be asked for what it holds without the risk of waiting.

    Attributes:
        buffer: what was received last.
        position: how much of it has been read.
        failure: what the next `receive()` raises.
    """

    def __init__(self, sock: Any) -> None:
        self.buffer = b""
        self.position = 0
        self._sock = sock
        self.failure: OSError | None = None
        self._claim = sock.makefile("rb", buffering=0)  # keeps the socket open until close()

    def receive(self) -> None:
        """Wait for bytes and add them to what is left in the buffer."""
        self.buffer = self.buffer[self.position :]
        self.position = 0
        if self.failure is not None:
            failure = self.failure
            if isinstance(failure, TimeoutError):  # more may come yet
                self.failure = None
            raise failure
        data = self._sock.recv(READ_SIZE)
        if data and isinstance(self._sock, ssl.SSLSocket):
            data = self._with_more_records(self._sock, data)
        self.buffer = self.buffer + data if self.buffer else data

    def _with_more_records(self, sock: ssl.SSLSocket, record: bytes) -> bytes:
        # A TLS socket hands out one record a call, and servers write one per event.
        # Part of a record must not be waited for: hence without a timeout.
        if not sock.pending() and not wait_for_read(sock, timeout=0):
            return record
        records = [record]
        room = READ_SIZE - len(record)
        timeout = sock.gettimeout()
        sock.settimeout(0)
        try:
            while room > 0 and (record := sock.recv(room)):
                records.append(record)
                room -= len(record)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            pass  # no more whole records
        except OSError as error:
            self.failure = error  # what came before it is not lost
        finally:
            sock.settimeout(timeout)
        return b"".join(records)

    def read1(self, size: int | None = -1, /) -> bytes:
        """Return at most `size` bytes; wait only if there are none."""
        if size == 0:
            return b""
        if self.position == len(self.buffer):
            self.receive()
        start = self.position
        if size is None or size < 0 or size >= len(self.buffer) - start:
            self.position = len(self.buffer)
            return self.buffer[start:]
        self.position = start + size
        return self.buffer[start : self.position]

    def read(self, size: int | None = -1, /) -> bytes:
        """Return `size` bytes, fewer only at the end; negative: all up to the end."""
        parts = []
        missing = -1 if size is None else size
        while missing and (part := self.read1(missing)):
            parts.append(part)
            if missing > 0:
                missing -= len(part)
        return b"".join(parts)

    def readinto(self, target: Any, /) -> int:
        """Fill `target`, up to the end; return the number of bytes."""
        view = memoryview(target).cast("B")
        filled = 0
        while filled < len(view) and (part := self.read1(len(view) - filled)):
            view[filled : filled + len(part)] = part
            filled += len(part)
        return filled

    def readline(self, limit: int | None = -1, /) -> bytes:
        """Return a line with its line feed; without, after `limit` bytes or at the end."""
        parts = []
        room = -1 if limit is None else limit
        while room:
            if self.position == len(self.buffer):
                self.receive()
            end = self.buffer.find(b"\n", self.position) + 1 or len(self.buffer)
            size = end - self.position
            part = self.read1(size if room < 0 else min(size, room)) if size else b""
            parts.append(part)
            if not part or part.endswith(b"\n"):
                break
            if room > 0:
                room -= len(part)
        return b"".join(parts)

    def peek(self, _size: int = 0, /) -> bytes:
        """Return what has been received and not read; wait only if there is nothing."""
        if self.position == len(self.buffer):
            self.receive()
        return self.buffer[self.position :]

    def readable(self) -> bool:
        """Return True."""
        return True

    def fileno(self) -> int:
        """Return the number of the socket."""
        return int(self._claim.fileno())

    def close(self) -> None:
        """Let go of the socket."""
        self._claim.close()
        super().close()


class Response(http.client.HTTPResponse):
    """`http.client`'s response, but prompt in bulk, and sure of its head.

    `http.client` takes the end of the connection for the end of the header fields,
    and an interim response (RFC 9110, 15.2) other than 100 for the answer. Either
    would be refused for good, as a wrong content type or status. It does not limit the
    head as a whole either, and takes chunks that are coded in another way, too, for the body.
    """

    def __init__(self, sock: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self.fp.close()  # which has read nothing
        self._incoming = Incoming(sock)
        self.fp = _HeadReader(self._incoming)  # type: ignore[assignment]

    def begin(self) -> None:
        """Read the head of the answer, past interim responses."""
        try:
            super().begin()
            while 100 < self.status < 200 and self.status != http.HTTPStatus.SWITCHING_PROTOCOLS:
                self.headers = None  # type: ignore[assignment]  # else begin() does nothing
                super().begin()
            # Else urllib3 would log what it makes of malformed fields: a warning with the
            # URL, its query, and the fields that follow, cookies too.
            self.headers.defects.clear()
            self.headers.set_payload("")
            drop_bad_cookies(self.headers)
            self._check_transfer_coding()
        except http.client.HTTPException as error:
            if type(error) is http.client.HTTPException:  # its only complaint without a name
                raise HeadTooLarge(MAX_FIELDS + 1, MAX_FIELDS, "fields") from None
            raise
        finally:
            if self.fp is not None:  # else begin() has closed it
                self.fp = self._incoming  # type: ignore[assignment]

    def _check_transfer_coding(self) -> None:
        # http.client undoes "chunked" alone, and takes all else for the body.
        codings = ", ".join(self.headers.get_all("Transfer-Encoding", [])).lower()
        if "chunked" in re.split(r"[, ]+", codings) and not self.chunked and self.length != 0:
            raise http.client.UnknownTransferEncoding("unknown transfer coding")

    def _read_and_discard_trailer(self) -> None:
        self.fp = _HeadReader(self._incoming, may_end=True)  # type: ignore[assignment]
        try:
            super()._read_and_discard_trailer()  # type: ignore[misc]
        finally:
            self.fp = self._incoming  # type: ignore[assignment]

    def read1(self, n: int = -1) -> bytes:
        """Return what has arrived of the body; wait if nothing has.

        Args:
            n: the most bytes to return; negative: no limit but the buffer's.
        """
        if data := self.read_chunks(n):
            return data
        data = super().read1(n)
        if not self.chunked or self.chunk_left != 0 or self.fp is None:
            return data  # the chunk goes on; or the body has ended, or has been closed
        return data + self._take_chunks(n - len(data) if n >= 0 else n)

    def read_chunks(self, n: int) -> bytes:
        """Return the chunks that have arrived, if the last call took all of the one before.

        Waits if nothing has arrived.

        Args:
            n: as for `read1`.

        Returns:
            Nothing if it is for `read1` to say what comes, a failure too.
        """
        if not self.chunked or self.chunk_left != 0 or self.fp is None or n == 0:
            return b""
        incoming = self._incoming
        if b"\r\n".startswith(incoming.buffer[incoming.position : incoming.position + 3]):
            # All that http.client could do with so little is wait.
            try:
                incoming.receive()
            except OSError as error:
                incoming.failure = error
                return b""
        return self._take_chunks(n)

    def _take_chunks(self, n: int) -> bytes:
        """Take the chunks that are in the buffer, which stands at the end of one.

        A frame is what stands between the data of two chunks: the CRLF that ends the
        one, and the size of the other with its CRLF. They are few and come again and
        again, so that one look into a table both checks and reads a frame.
        """
        incoming = self._incoming
        buffer, position = incoming.buffer, incoming.position
        limit = len(buffer) if n < 0 else min(len(buffer), position + n)
        chunks = []
        known = _sizes.get
        width = 0  # of a frame: most often that of the one before
        while True:
            size = known(buffer[position : position + width])
            if size is None:
                width = buffer.find(b"\r\n", position + 2, position + MAX_FRAME) + 2 - position
                frame = buffer[position : position + width]
                size = known(frame) or _size_from(frame)
            start = position + width
            stop = start + size
            if stop > limit or not size:
                break
            chunks.append(buffer[start:stop])
            position = stop
        if size and start < limit == len(buffer):  # the beginning of a chunk
            chunks.append(buffer[start:])
            self.chunk_left = stop - limit
            position = limit
        incoming.position = position
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)


_sizes: dict[bytes, int] = {}
"""The chunk sizes that the frames met so far announce."""
_FRAME: Final = re.compile(rb"\r\n([0-9A-Fa-f]+)\r\n")
MAX_FRAME: Final = 16
"""Bytes of a frame that goes into the table: sizes of up to twelve digits."""


def _size_from(frame: bytes) -> int:
    """Return the size that a frame announces; 0 if it is for `http.client` to judge."""
    match = _FRAME.fullmatch(frame)
    if match is None:
        return 0
    if len(_sizes) >= MAX_KNOWN_FRAMES:
        _sizes.clear()
    size = _sizes[frame] = int(match[1], 16)
    return size


class _Deflate(DeflateDecoder):
    """urllib3's, which keeps all input until there is output: for ever, of empty blocks.

    It is kept to be read again without a zlib header; two bytes are enough to tell.
    """

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        result = super().decompress(data, max_length)
        if self._first_try and len(self._first_try_data) >= 2:
            self._first_try = False
            self._first_try_data = b""
        return result


_OPTIONAL: Final = ("br", "zstd")
"""Content codings for which urllib3 needs another package (or Python 3.14)."""


class _Refusal(ContentDecoder):
    """Refuses what cannot be decoded, or not within bounds, as soon as there is any of it."""

    def __init__(self, reason: str) -> None:
        self._reason = reason

    @property
    def has_unconsumed_tail(self) -> bool:
        return False

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:  # noqa: ARG002
        raise DecodeError("refused", self._reason)

    def flush(self) -> bytes:
        return b""


def bound_decoding(response: urllib3.BaseHTTPResponse) -> None:
    """See to it that to decompress the body takes no more memory than what is read of it.

    And that what cannot be decompressed is not taken for the body itself. Other names, such
    as a character encoding's, are no codings and change nothing, as in browsers.
    """
    coding = response.headers.get("Content-Encoding", "").lower()
    if "," in coding:  # urllib3 would keep all that is between them
        reason = "there is more than one content coding"
        response._decoder = _Refusal(reason)  # noqa: SLF001 - urllib3 makes one if there is none
    elif coding in _OPTIONAL and coding not in response.CONTENT_DECODERS:
        response._decoder = _Refusal(f"{coding} is not installed")  # noqa: SLF001
    elif coding == "deflate":
        response._decoder = _Deflate()  # noqa: SLF001


_SPACE_AFTER: Final = re.compile(rb"(?<=[^ \t])[ \t]++(?=\r?\n\Z)")
"""The space after a value, which is no part of it (RFC 9112, 5). http.client leaves it there."""


class _HeadReader:
    """The file under a response while its fields are read, also those of a proxy's answer.

    Args:
        fp: the file under this one.
        may_end: with the connection, as trailers may.
    """

    def __init__(self, fp: Incoming, *, may_end: bool = False) -> None:
        self._fp = fp
        self._may_end = may_end
        self._size = 0

    def readline(self, limit: int) -> bytes:
        line = self._fp.readline(limit)
        self._size += len(line)
        for size, most in ((len(line), limit - 1), (self._size, MAX_HEAD_SIZE)):
            if size > most and not (self._may_end and most < MAX_HEAD_SIZE):
                raise HeadTooLarge(size, most)
        if not line.endswith(b"\n") and not self._may_end:
            raise http.client.RemoteDisconnected("the connection ended within the response's head")
        return _SPACE_AFTER.sub(b"", line)

    def flush(self) -> None:
        """Do nothing; http.client asks for it when it closes a proxy's answer."""

    def close(self) -> None:
        self._fp.close()
