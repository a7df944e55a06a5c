"""Decodes content codings: gzip, deflate, br and zstd, each with a bound on its output.

The invariant: one call returns at most as many bytes as it was asked for. So no body,
however well it is compressed, takes more memory than what is read of it. Data that cannot be
decompressed is refused; it is never returned as if it were the body.
"""

from __future__ import annotations

import importlib
import zlib
from typing import Any, Final

from requests.exceptions import ContentDecodingError


def _optional(*names: str) -> Any:
    """Import the first of these modules that is installed; None: there is none."""
    for name in names:
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    return None


# Imported with the package, not when a response comes: a fork during an import in one of our
# threads would copy the import's lock while it is held. urllib3 imports the same modules.
_brotli: Final[Any] = _optional("brotlicffi", "brotli")
_zstd: Final[Any] = _optional("compression.zstd", "backports.zstd")
ZSTD_WINDOW_LOG: Final = 23
"""The largest window of zstd: 8 MiB (RFC 9659). Each stream takes that much memory."""
_FAILURES: Final = (
    zlib.error,
    getattr(_brotli, "error", zlib.error),
    getattr(_zstd, "ZstdError", zlib.error),
)


class Decoder:
    """Decodes one coding.

    Attributes:
        holds_more: whether `decode(b"", size)` returns more.
    """

    holds_more = False

    def decode(self, data: bytes, size: int) -> bytes:
        """Take the next bytes of the body; return at most `size` decoded bytes.

        While `holds_more` is true, `data` must be empty.

        Raises:
            requests.exceptions.ContentDecodingError: the bytes are not of the coding.
        """
        try:
            return self._decode(data, size)
        except _FAILURES as error:
            reason = str(error)
        raise ContentDecodingError(f"the body cannot be decompressed: {reason}")

    def _decode(self, data: bytes, size: int) -> bytes:
        raise NotImplementedError


class _Zlib(Decoder):
    """gzip (RFC 1952), of one member or several, or deflate (RFC 9110, 8.4.1.2).

    Only another member may follow a member of gzip.
    """

    def __init__(self, wbits: int | None) -> None:
        self._wbits = wbits  # zlib's parameter; None: the first two bytes decide
        self._rest = b""
        self._object: Any = None

    def _decode(self, data: bytes, size: int) -> bytes:
        if self._object is not None and self._object.eof and not self._is_gzip():
            return b""  # what follows is ignored, as in browsers
        data = self._rest + data
        result = b""
        while data or self.holds_more:
            if self._object is None or (self._object.eof and self._is_gzip()):
                if self._wbits is None:
                    if len(data) < 2:
                        break
                    # RFC 1950, 2.2: the method in the low bits, and a check of both bytes.
                    # Some servers send deflate without this header.
                    has_header = data[0] & 15 == 8 and (data[0] << 8 | data[1]) % 31 == 0
                    self._wbits = zlib.MAX_WBITS if has_header else -zlib.MAX_WBITS
                self._object = zlib.decompressobj(self._wbits)
            result += self._object.decompress(data, size - len(result))
            data = self._object.unconsumed_tail
            if self._object.eof:
                data = self._object.unused_data if self._is_gzip() else b""
            # After a full result zlib may have more output, even if all input is consumed.
            self.holds_more = bool(data) or (len(result) == size and not self._object.eof)
            if len(result) == size or not data:
                break
        self._rest = data
        return result

    def _is_gzip(self) -> bool:
        return self._wbits == 16 + zlib.MAX_WBITS


class _Brotli(Decoder):
    """br (RFC 7932). The library may exceed the limit: it returns blocks of its own size, and
    has more until it returns none.
    """

    def __init__(self) -> None:
        self._object = _brotli.Decompressor()
        # The name in `brotli`, and that in `brotlicffi`.
        self._process = getattr(self._object, "process", None) or self._object.decompress
        self._block = b""

    def _decode(self, data: bytes, size: int) -> bytes:
        if not self._block:
            self._block = self._process(data, output_buffer_limit=size)
            self.holds_more = bool(self._block)
        result, self._block = self._block[:size], self._block[size:]
        return result


class _Zstd(Decoder):
    """zstd (RFC 8878), of one frame or several."""

    def __init__(self) -> None:
        self._frame = self._new_frame()
        self._rest = b""

    @staticmethod
    def _new_frame() -> Any:
        largest = {_zstd.DecompressionParameter.window_log_max: ZSTD_WINDOW_LOG}
        return _zstd.ZstdDecompressor(options=largest)

    def _decode(self, data: bytes, size: int) -> bytes:
        data = self._rest + data
        result = b""
        while len(result) < size and (data or not self._frame.needs_input):
            if self._frame.eof:
                self._frame = self._new_frame()
            result += self._frame.decompress(data, size - len(result))
            data = self._frame.unused_data if self._frame.eof else b""
        self._rest = data
        self.holds_more = bool(data) or not (self._frame.eof or self._frame.needs_input)
        return result


class _Refusal(Decoder):
    """Refuses, at its first byte, a body that cannot be decoded within bounds."""

    def __init__(self, reason: str) -> None:
        self._reason = reason

    def _decode(self, data: bytes, size: int) -> bytes:  # noqa: ARG002
        raise zlib.error(self._reason)


_CODINGS: Final = frozenset(("gzip", "x-gzip", "deflate", "br", "zstd"))


def decoder_for(coding: str) -> Decoder | None:
    """Return the decoder for the coding that a `Content-Encoding` field names.

    Args:
        coding: the field's value, several fields joined by commas; "" if there is none.

    Returns:
        None if there is nothing to decode. As in browsers, names that are not a coding are
        ignored, also in a list: `identity`, an empty member, the name of a character encoding.
    """
    names = [part.strip(" \t").lower() for part in coding.split(",")]
    match [name for name in names if name in _CODINGS]:
        case []:
            return None
        case ["gzip" | "x-gzip"]:
            return _Zlib(16 + zlib.MAX_WBITS)
        case ["deflate"]:
            return _Zlib(None)
        case ["br"]:
            return _Brotli() if _brotli is not None else _Refusal("br is not installed")
        case ["zstd"]:
            return _Zstd() if _zstd is not None else _Refusal("zstd is not installed")
        case _:  # the output of each coding but the last would be unbounded
            return _Refusal("there is more than one content coding")
