"""Decodes the body of a response from its framing (RFC 9112, 6 and 7): bytes in, bytes out.

Sans-I/O: no sockets, threads or clocks. There is a class for each of the three ways to mark
the end of a body: a last chunk, a length, and the end of the connection.

The invariants: the result never depends on how the bytes were split into reads, and no byte
that has arrived is delayed. A failure loses nothing that came before it: `feed` returns the
bytes before it, and the failure is in `error`.

Trailer fields are not read. The body is complete with the last chunk, and the connection is
not used again. Chunk extensions are ignored; their size is bounded with that of their line.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from eventsource.errors import BrokenBody

MAX_CHUNK_LINE: Final = 16 * 1024
"""The most bytes of a line with a chunk's size and its extensions: h11's limit."""
MAX_FRAME: Final = 16
"""The most bytes of a frame in `KNOWN_FRAMES`: a size of up to twelve digits."""
MAX_KNOWN_FRAMES: Final = 4096
"""The most frames in `KNOWN_FRAMES`, which with `KNOWN_LINES` then take up to 1 MB."""

_INCOMPLETE: Final = 1 << 62
"""The size in `KNOWN_FRAMES` for the mere beginning of a frame."""
KNOWN_FRAMES: Final[dict[bytes, int]] = {}
"""The chunk sizes in the plain frames (without extensions) that have come so far."""
KNOWN_LINES: Final[dict[bytes, int]] = {}
"""The same for the frames without the CRLF at their beginning."""
_CRLF: Final = b"\r\n"
_PLAIN_FRAME: Final = re.compile(rb"\r\n0*([1-9A-Fa-f][0-9A-Fa-f]*)\r\n")
_SIZE: Final = re.compile(rb"([0-9A-Fa-f]+)[ \t]*(?:;.*)?\r?\n", re.DOTALL)


class CloseDelimitedBody:
    """A body that the end of the connection ends.

    Attributes:
        is_over: whether there is nothing more to read: the body is complete, or `error` is set.
        error: why the body cannot be read to its end, or None.
    """

    def __init__(self) -> None:
        self.is_over = False
        self.error: BrokenBody | None = None

    def feed(self, data: bytes) -> bytes:
        """Take what was received (at least a byte); return the part of the body in it."""
        return data

    def end(self) -> None:
        """The connection has ended."""
        self.is_over = True

    def _fail(self, reason: str) -> None:
        self.error = BrokenBody(reason)
        self.is_over = True


class SizedBody(CloseDelimitedBody):
    """A body whose length is known.

    Args:
        length: bytes.
    """

    def __init__(self, length: int) -> None:
        super().__init__()
        self._missing = length
        self.is_over = not length

    def feed(self, data: bytes) -> bytes:
        """Take what was received; bytes after the body are dropped."""
        missing = self._missing
        self._missing -= len(data)
        if self._missing > 0:
            return data
        self.is_over = True
        return data[:missing]

    def end(self) -> None:
        """The connection has ended. Set `error` if the body is incomplete."""
        if not self.is_over:
            self._fail(f"the connection ended {self._missing} bytes before the end of the body")


class ChunkedBody(CloseDelimitedBody):
    """A body in chunks.

    A *frame* is the bytes between the data of two chunks: the CRLF that ends the first, and
    the size of the second with its CRLF. Servers send one chunk per event, and the sizes of
    events repeat. So one look-up in `KNOWN_FRAMES` both checks and reads most frames, in a
    third of the time that parsing takes.
    """

    def __init__(self) -> None:
        super().__init__()
        self._missing = 0  # bytes of the present chunk's data that have not come
        # The incomplete frame. The first chunk has no CRLF before it, so one is put here.
        self._frame = bytearray(b"\r\n")
        self._width = 0  # the last frame's, which most often is also that of the next
        self._is_between = False  # the last chunk has ended, and the next has not begun

    def feed(self, data: bytes) -> bytes:
        """Take what was received; return the data of all chunks in it, whole or not."""
        width = self._width
        position = self._missing
        if self._is_between and data[-2:] == _CRLF:
            # A read that had to wait mostly returns one whole chunk. This takes a third of the
            # time of the loop below.
            size = KNOWN_LINES.get(data[: width - 2])
            if size is not None and len(data) == width + size:
                return data[width - 2 : -2]
        chunks = []
        if position:
            if len(data) < position:
                self._missing = position - len(data)
                return data
            self._missing = 0
            chunks.append(data[:position])
        elif self._frame:
            if len(self._frame) > MAX_FRAME and b"\n" not in data:
                self._frame += data  # a long extension in small pieces: do not copy it for each
                self._limit_frame()
                return b""
            data = bytes(self._frame) + data
            self._frame.clear()
        limit = len(data)
        known = KNOWN_FRAMES.get
        while True:
            size = known(data[position : position + width])
            if size is None:
                width = data.find(b"\r\n", position + 2, position + MAX_FRAME) + 2 - position
                frame = data[position : position + width] if width > 0 else b""
                size = known(frame) or _size_of_plain(frame)
                if not size:
                    width, size = self._parse_frame(data, position)
                    if not size:
                        break
            start = position + width
            stop = start + size
            if stop > limit:
                if size == _INCOMPLETE:
                    self._frame += data[position:]
                    break
                start = min(start, limit)  # a frame at the end may be shorter than `width`
                if start < limit:
                    chunks.append(data[start:])
                self._missing = size - (limit - start)
                break
            chunks.append(data[start:stop])
            position = stop
        self._width = width
        self._is_between = self._frame == _CRLF
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    def _parse_frame(self, data: bytes, start: int) -> tuple[int, int]:
        """Read a frame of any form: return its width, and the size of the chunk after it.

        Returns:
            Size 0 if no chunk follows: the frame is incomplete (its bytes are in `_frame`), it
            is that of the last chunk, or it is malformed.
        """
        end = data.find(b"\n", start + 2, start + 2 + MAX_CHUNK_LINE) + 1
        if data[start : start + 2] != b"\r\n"[: len(data) - start]:
            self._fail("a chunk is longer than its size")
        elif not end:
            self._frame += data[start:]
            self._limit_frame()
        elif (match := _SIZE.fullmatch(data, start + 2, end)) is None:
            self._fail("the size of a chunk is not a hexadecimal number")
        else:
            size = int(match[1], 16)
            self.is_over = not size
            return end - start, size
        return 0, 0

    def _limit_frame(self) -> None:
        if len(self._frame) >= MAX_CHUNK_LINE:
            self._fail(f"the line with a chunk's size has more than {MAX_CHUNK_LINE} bytes")

    def end(self) -> None:
        """The connection has ended. Set `error` if there was no last chunk."""
        if self._missing:
            self._fail(f"the connection ended {self._missing} bytes before the end of a chunk")
        elif not self.is_over:
            self._fail("the connection ended before the last chunk")


Body = CloseDelimitedBody | SizedBody | ChunkedBody


def _size_of_plain(frame: bytes) -> int:
    """Return the chunk size in a frame, and remember it; 0 if the frame is not a plain one."""
    match = _PLAIN_FRAME.fullmatch(frame)
    if match is None:
        return 0
    if len(KNOWN_FRAMES) >= MAX_KNOWN_FRAMES:
        forget_frames()
    size = KNOWN_FRAMES[frame] = KNOWN_LINES[frame[2:]] = int(match[1], 16)
    return size


def forget_frames() -> None:
    """Empty the tables of frames."""
    KNOWN_FRAMES.clear()
    KNOWN_LINES.clear()
    KNOWN_FRAMES[_CRLF] = _INCOMPLETE


forget_frames()


def body_of(method: str, status: int, field: Callable[[str], str | None]) -> Body:
    """Return the framing that the head of a response declares (RFC 9112, 6.3).

    Args:
        method: the method of the request.
        status: the status of the response.
        field: returns the value of a header field, several joined by commas; None: there is
            none of that name.

    Raises:
        BrokenBody: there is a transfer coding besides `chunked`, which is not supported.
    """
    if method == "HEAD" or status < 200 or status in (204, 304):
        return SizedBody(0)
    codings = (field("Transfer-Encoding") or "").strip(" \t").lower()
    if codings == "chunked":
        return ChunkedBody()
    if "chunked" in re.split(r"[, ]+", codings):
        raise BrokenBody("the response has an unknown transfer coding")
    lengths = {part.strip(" \t") for part in (field("Content-Length") or "").split(",")}
    if len(lengths) == 1 and re.fullmatch("[0-9]{1,18}", length := lengths.pop()):
        return SizedBody(int(length))
    return CloseDelimitedBody()
