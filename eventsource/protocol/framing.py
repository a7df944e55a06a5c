"""Decodes the body of a response from its framing (RFC 9112, 6 and 7): bytes in, bytes out.

Sans-I/O: no sockets, threads or clocks. The three classes are for the three ways to mark the
end of a body: by a last chunk, by a length, and by the end of the connection.

The invariants: the result never depends on how the bytes were split into reads, and no byte
that has arrived is delayed. A failure loses nothing that came before it: `feed` returns the
bytes before the failure, and `error` is the failure.

Trailer fields are not read. The body is complete with the last chunk, and the connection is
not used again. Chunk extensions are ignored; their size is bounded with that of their line.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from eventsource.errors import BrokenBody

MAX_CHUNK_LINE: Final = 16 * 1024
"""Bytes of the line that has a chunk's size and its extensions: h11's limit."""
MAX_FRAME: Final = 16
"""Bytes of a frame that goes into the table of frames: sizes of up to twelve digits."""
MAX_KNOWN_FRAMES: Final = 4096
"""Frames in that table: 1 MB at the most, with that of the lines."""

_INCOMPLETE: Final = 1 << 62
"""The size in the table of what is only the beginning of a frame."""
KNOWN_FRAMES: Final[dict[bytes, int]] = {}
"""The chunk sizes that the plain frames met so far announce."""
KNOWN_LINES: Final[dict[bytes, int]] = {}
"""The same, of the frames without the CRLF that they begin with."""
_CRLF: Final = b"\r\n"
_PLAIN_FRAME: Final = re.compile(rb"\r\n0*([1-9A-Fa-f][0-9A-Fa-f]*)\r\n")
_SIZE: Final = re.compile(rb"([0-9A-Fa-f]+)[ \t]*(?:;.*)?\r?\n", re.DOTALL)


class CloseDelimitedBody:
    """A body that lasts as long as the connection.

    Attributes:
        is_over: whether nothing more is to be read: the body is complete, or `error` is set.
        error: why the body cannot be read to its end; None if it can, or if it has been.
    """

    def __init__(self) -> None:
        self.is_over = False
        self.error: BrokenBody | None = None

    def feed(self, data: bytes) -> bytes:
        """Take what was received (at least a byte); return what of the body is in it."""
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
        """The connection has ended: is the body complete?"""
        if not self.is_over:
            self._fail(f"the connection ended {self._missing} bytes before the end of the body")


class ChunkedBody(CloseDelimitedBody):
    """A body in chunks.

    A *frame* is what stands between the data of two chunks: the CRLF that ends the one, and
    the size of the other with its CRLF. Servers send one chunk per event, with a few sizes
    that come again and again. So one look into a table both checks and reads a frame, which
    takes a third of the time that it takes to parse one.
    """

    def __init__(self) -> None:
        super().__init__()
        self._missing = 0  # bytes of a chunk's data that have not come
        # The frame so far; as if a chunk had ended before the first one.
        self._frame = bytearray(b"\r\n")
        self._width = 0  # of a frame: most often that of the one before
        self._is_between = False  # two chunks, of which the next has not begun

    def feed(self, data: bytes) -> bytes:
        """Take what was received; return the data of all chunks in it, whole or not."""
        width = self._width
        position = self._missing
        if self._is_between and data[-2:] == _CRLF:
            # A read that had to wait brings one whole chunk, most often. To see that takes a
            # third of the time of what follows.
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
                self._frame += data  # a long extension in small pieces: not to be copied with each
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
        """Read a frame of any form: its width, and the size that it announces.

        Returns:
            No size if no chunk follows: the frame is not all here (`_frame` has what there
            is), or it announces the last chunk, or it is malformed.
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
        """The connection has ended: has there been a last chunk?"""
        if self._missing:
            self._fail(f"the connection ended {self._missing} bytes before the end of a chunk")
        elif not self.is_over:
            self._fail("the connection ended before the last chunk")


Body = CloseDelimitedBody | SizedBody | ChunkedBody


def _size_of_plain(frame: bytes) -> int:
    """Return the size that a frame announces, and remember it; 0 if it is not a plain one."""
    match = _PLAIN_FRAME.fullmatch(frame)
    if match is None:
        return 0
    if len(KNOWN_FRAMES) >= MAX_KNOWN_FRAMES:
        forget_frames()
    size = KNOWN_FRAMES[frame] = KNOWN_LINES[frame[2:]] = int(match[1], 16)
    return size


def forget_frames() -> None:
    """Empty the table of frames."""
    KNOWN_FRAMES.clear()
    KNOWN_LINES.clear()
    KNOWN_FRAMES[_CRLF] = _INCOMPLETE


forget_frames()


def body_of(method: str, status: int, field: Callable[[str], str | None]) -> Body:
    """Return the body that the head of a response announces (RFC 9112, 6.3).

    Args:
        method: the method of the request.
        status: the status of the response.
        field: returns the value of a header field, several joined by commas; None: there is
            none of that name.

    Raises:
        BrokenBody: the chunks are coded in a further way, which nobody undoes.
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
