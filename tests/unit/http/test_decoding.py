"""A body is decompressed as the library below does it at once, within bounds and in time.

Each property takes any plaintext in any coding, cut anywhere, and any limits to what one call
may return.
"""

from __future__ import annotations

import functools
import gzip
import importlib
import itertools
import sys
import tracemalloc
import zlib

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from requests.exceptions import ContentDecodingError

from eventsource.http.decoding import decoder_for
from tests.properties import examples
from tests.unit.protocol.test_framing import ARRIVALS, cut

# Else an example of many bytes that fails would fail with this.
pytestmark = pytest.mark.filterwarnings("ignore:Generating overly large repr")

KIB = 1024
MIB = 2**20


def module(*names):
    """The first of these modules that is installed, or None."""
    for name in names:
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    return None


brotli = module("brotli")
zstd = module("compression.zstd", "backports.zstd")

# ---------------------------------------------------------------- the codings


class Packer:
    """Compresses parts of a text, and flushes each: what a server does with its events."""

    def __init__(self, compress, flush, finish):
        self._compress = compress
        self._flush = flush
        self._finish = finish

    @classmethod
    def of_zlib(cls, wbits, level=-1):
        packer = zlib.compressobj(level, wbits=wbits)
        return cls(
            packer.compress, functools.partial(packer.flush, zlib.Z_SYNC_FLUSH), packer.flush
        )

    @classmethod
    def of_brotli(cls):
        packer = brotli.Compressor(quality=3)
        return cls(packer.process, packer.flush, packer.finish)

    @classmethod
    def of_zstd(cls):
        packer = zstd.ZstdCompressor()
        return cls(
            packer.compress, functools.partial(packer.flush, packer.FLUSH_BLOCK), packer.flush
        )

    def pieces(self, parts):
        """What stands for each part, and for the end."""
        return [self._compress(part) + self._flush() for part in parts] + [self._finish()]


PACKERS = {
    "gzip": lambda: Packer.of_zlib(31),
    "x-gzip": lambda: Packer.of_zlib(31, level=1),
    "deflate": lambda: Packer.of_zlib(15),
    "deflate, a small window": lambda: Packer.of_zlib(9),
    "deflate, not compressed": lambda: Packer.of_zlib(15, level=0),
    "deflate, raw": lambda: Packer.of_zlib(-15),
    "deflate, raw, not compressed": lambda: Packer.of_zlib(-15, level=0),
    **({"br": Packer.of_brotli} if brotli else {}),
    **({"zstd": Packer.of_zstd} if zstd else {}),
}
SEVERAL = ["gzip", "x-gzip", *(["zstd"] if zstd else [])]
"""Of these there may be several, one after another."""
every_coding = pytest.mark.parametrize("name", PACKERS)


def coding_of(name):
    """The value of the header field."""
    return name.partition(",")[0]


def packed(name, *parts):
    return b"".join(PACKERS[name]().pieces(parts))


class Reference:
    """What the library below makes of the same bytes, without limits.

    Attributes:
        found: what has come.
        is_broken: whether the bytes are not of the coding.
    """

    def __init__(self, name):
        self._new = {
            "gzip": lambda: zlib.decompressobj(31),
            "x-gzip": lambda: zlib.decompressobj(31),
            "deflate": lambda: zlib.decompressobj(-15 if "raw" in name else 15),
            "br": lambda: brotli.Decompressor(),
            "zstd": lambda: zstd.ZstdDecompressor(
                options={zstd.DecompressionParameter.window_log_max: 23}
            ),
        }[coding_of(name)]
        self._is_one = name not in SEVERAL
        self._object = None
        self.found = b""
        self.is_broken = False

    def feed(self, data):
        try:
            while data and not self.is_broken:
                self._object = self._object or self._new()
                if hasattr(self._object, "process"):
                    while part := self._object.process(data):  # up to the end of its buffer
                        self.found += part
                        data = b""
                    return
                self.found += self._object.decompress(data)
                if not self._object.eof:
                    return
                data = self._object.unused_data
                if self._is_one:
                    return
                self._object = None
        except Exception:  # each library has its own
            self.is_broken = True


def drained(decoder, data, sizes):
    """All that some bytes stand for, in calls with these limits."""
    found = []
    for size in sizes:
        part = decoder.decode(data, size)
        assert len(part) <= size
        found.append(part)
        if not decoder.holds_more:
            return b"".join(found)
        data = b""
        assert any(found[-5:]), "it has more to give and gives nothing"
    raise AssertionError("not reached")


def not_too_small(sizes, plain):
    """So that no example takes long."""
    return [max(size, len(plain) // 300) for size in sizes]


TEXTS = st.lists(
    st.one_of(
        st.binary(max_size=30),
        st.sampled_from([b"data: 1\n\n", b"id: 7\ndata: x\n\n", b": beat\n", b"x"]),
        st.builds(
            lambda piece, count: piece * count,
            st.binary(min_size=1, max_size=3),
            st.sampled_from([100, 1000, 30_000, 65_536, 200_000]),
        ),
    ),
    max_size=6,
)
SIZES = st.lists(
    st.one_of(st.integers(1, 20), st.sampled_from([100, 1000, 32_768, 65_536])),
    min_size=1,
    max_size=4,
)


# ---------------------------------------------------------------- the same bytes


@examples(500)
@given(st.sampled_from([*PACKERS]), TEXTS, ARRIVALS, SIZES)
def test_what_comes_is_the_text_however_it_is_cut_and_whatever_the_limits(
    name, parts, arrival, sizes
):
    plain = b"".join(parts)
    decoder, reference, found = decoder_for(coding_of(name)), Reference(name), b""
    limits = itertools.cycle(not_too_small(sizes, plain))
    for piece in cut(packed(name, *parts), arrival):
        found += drained(decoder, piece, limits)
        reference.feed(piece)
        assert found == reference.found, "something is withheld"
    assert found == plain


@examples(300)
@given(st.sampled_from(SEVERAL), st.lists(TEXTS, min_size=2, max_size=4), ARRIVALS, SIZES)
@example("gzip", [[b"x" * 9], [b"y" * 9]], [10**9], [9])
@example("gzip", [[b""], [b""], [b"y"]], [10**9], [1])
def test_several_members_are_one_text(name, members, arrival, sizes):
    plain = b"".join(itertools.chain(*members))
    wire = b"".join(packed(name, *parts) for parts in members)
    decoder, found = decoder_for(name), b""
    limits = itertools.cycle(not_too_small(sizes, plain))
    for piece in cut(wire, arrival):
        found += drained(decoder, piece, limits)
    assert found == plain


@pytest.mark.parametrize("size", range(1, 30))
@every_coding
def test_a_limit_that_what_comes_fills_exactly_loses_nothing(name, size):
    repeat = 2 if name in SEVERAL else 1
    wire = packed(name, b"x" * 12) * repeat
    found = drained(decoder_for(coding_of(name)), wire, itertools.repeat(size))
    assert found == b"x" * 12 * repeat


@pytest.mark.parametrize("level", range(10))
@pytest.mark.parametrize("wbits", [*range(9, 16), *range(-15, -8)])
def test_deflate_is_known_with_zlib_s_header_and_without(level, wbits):
    for plain in (b"", b"x", b"data: 1\n\n" * 50, bytes(range(256)) * 9):
        pieces = Packer.of_zlib(wbits, level).pieces([plain])
        decoder = decoder_for("deflate")
        assert drained(decoder, b"".join(pieces), itertools.repeat(10**6)) == plain


def test_raw_deflate_may_begin_as_a_header_of_zlib_does():
    """A stored block whose padding is not zero: only the check of the header tells."""
    wire = b"\x08\x04\x00\xfb\xfftext" + b"\x03\x00"
    assert zlib.decompress(wire, -15) == b"text"
    assert decoder_for("deflate").decode(wire, 1000) == b"text"


# ---------------------------------------------------------------- cut short, or broken


@examples(500)
@given(
    st.sampled_from([*PACKERS]),
    TEXTS,
    st.lists(st.tuples(st.integers(0, 10**6), st.integers(1, 255)), min_size=1, max_size=3),
    st.sampled_from([0, 0, 1, 9]),
    ARRIVALS,
    SIZES,
)
def test_what_is_broken_is_an_error_where_it_is_one_to_the_library(
    name, parts, flaws, missing, arrival, sizes
):
    wire = bytearray(packed(name, *parts))
    protected = 2 if "deflate" in name else 0  # else one kind would be taken for the other
    for place, change in flaws:
        if len(wire) > protected:
            wire[protected + place % (len(wire) - protected)] ^= change
    wire = bytes(wire)[: len(wire) - missing]
    decoder, found = decoder_for(coding_of(name)), b""
    # zstd checks the size of a frame only if it has the whole frame at once.
    reference, in_bytes = Reference(name), Reference(name)
    limits = itertools.cycle(not_too_small(sizes, b"".join(parts)))
    for piece in cut(wire, arrival):
        reference.feed(piece)
        for byte in cut(piece, [1]):
            in_bytes.feed(byte)
        if reference.is_broken and in_bytes.is_broken:
            with pytest.raises(ContentDecodingError):
                drained(decoder, piece, limits)
        if reference.is_broken or in_bytes.is_broken:
            return
        found += drained(decoder, piece, limits)
        assert found == reference.found


@every_coding
def test_bytes_that_are_of_no_coding_are_an_error(name):
    with pytest.raises(ContentDecodingError, match=r"^the body cannot be decompressed: ") as caught:
        decoder_for(coding_of(name)).decode(b"\xff" * 200, 1000)
    assert caught.value.__context__ is None  # which would hold some of the body


@pytest.mark.parametrize("rest", [b"\0" * 10, b"\r\nmore", b"\x1f\x8c\x08\0", b"data: 1\n\n" * 20])
@pytest.mark.parametrize("name", SEVERAL)
def test_after_a_member_comes_a_member_and_nothing_else(name, rest):
    decoder = decoder_for(name)
    assert decoder.decode(packed(name, b"text"), 1000) == b"text"
    with pytest.raises(ContentDecodingError):
        decoder.decode(rest + b"\0" * 10, 1000)
    with pytest.raises(ContentDecodingError):
        drained(decoder_for(name), packed(name, b"text") + rest + b"\0" * 10, itertools.repeat(2))


@pytest.mark.parametrize("name", [name for name in PACKERS if "deflate" in name])
def test_what_follows_the_end_of_deflate_is_dropped(name):
    wire = packed(name, b"text") + b"\r\nmore"
    for arrival in ([1], [len(wire) - 3, 1], [10**9]):
        decoder, found = decoder_for("deflate"), b""
        for piece in cut(wire, arrival):
            found += drained(decoder, piece, itertools.repeat(3))
        assert found == b"text"


# ---------------------------------------------------------------- memory and work


def peak_memory(run):
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        run()
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


@pytest.mark.long
@pytest.mark.parametrize("name", [name for name in PACKERS if "not compressed" not in name])
def test_a_bomb_takes_no_memory(name):
    wire = packed(name, *[b"x" * MIB] * 64)
    assert len(wire) < MIB
    decoder = decoder_for(coding_of(name))
    total = 0

    def run():
        nonlocal total
        for piece in cut(wire, [64 * KIB]):
            data = piece
            while True:
                total += len(decoder.decode(data, 64 * KIB))
                data = b""
                if not decoder.holds_more:
                    break

    assert peak_memory(run) < MIB
    assert total == 64 * MIB


@every_coding
def test_bytes_without_end_after_the_end_take_no_memory(name):
    decoder = decoder_for(coding_of(name))
    decoder.decode(packed(name, b"text"), 1000)

    def run():
        try:
            for _ in range(200):
                decoder.decode(bytes(64 * KIB), 64 * KIB)
        except ContentDecodingError:
            pass

    assert peak_memory(run) < MIB


@pytest.mark.skipif(not zstd, reason="needs backports.zstd")
@pytest.mark.parametrize(("log", "is_taken"), [(23, True), (24, False), (27, False)])
def test_a_window_of_zstd_is_of_8_mib_at_the_most(log, is_taken):
    """RFC 9659, 3. It is the library's memory, which no limit to what comes bounds."""
    packer = zstd.ZstdCompressor(options={zstd.CompressionParameter.window_log: log})
    wire = packer.compress(b"data: 1\n\n") + packer.flush(packer.FLUSH_BLOCK)
    if is_taken:
        assert decoder_for("zstd").decode(wire, 1000) == b"data: 1\n\n"
    else:
        with pytest.raises(ContentDecodingError):
            decoder_for("zstd").decode(wire, 1000)


@pytest.mark.parametrize("name", SEVERAL)
def test_empty_members_are_passed_over_in_one_call(name):
    wire = packed(name) * 3000 + packed(name, b"text")
    assert decoder_for(name).decode(wire, 1000) == b"text"


def work(run):
    """How many functions were called meanwhile, C's too."""
    calls = 0

    def count(frame, event, argument):
        nonlocal calls
        calls += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        run()
    finally:
        sys.setprofile(before)
    return calls


@every_coding
def test_the_work_is_in_proportion_to_what_comes(name):
    def decode(count):
        wire = packed(name, b"x" * 1000 * count)
        decoder = decoder_for(coding_of(name))
        return work(lambda: drained(decoder, wire, itertools.repeat(1000)))

    assert decode(400) < 5 * decode(100)


# ---------------------------------------------------------------- names


@pytest.mark.parametrize(
    "coding",
    [
        *("", "identity", "utf-8", "none", "compress", "aes128gcm", ",", " ,\t, "),
        *("identity, identity", "IDENTITY,", "utf-8, identity", "gzip\xa0", "\x0bbr"),
    ],
)
def test_what_is_no_known_coding_changes_nothing(coding):
    assert decoder_for(coding) is None


@pytest.mark.parametrize(
    "listed",
    [
        *("{}", " {}\t", "identity, {}", "{},identity", "IDENTITY,\t{}", ", {} ,, "),
        *("identity, {}, identity", "utf-8, {}", "{}, none"),
    ],
)
@pytest.mark.parametrize("coding", [*dict.fromkeys(map(coding_of, PACKERS))])
def test_a_coding_is_known_in_any_case_and_among_what_is_no_coding(coding, listed):
    wire = packed(coding, b"text")
    for spelling in (coding, coding.upper(), coding.title()):
        assert decoder_for(listed.format(spelling)).decode(wire, 1000) == b"text"


@pytest.mark.parametrize(
    "coding",
    [
        *("gzip, gzip", "gzip,x-gzip", "br, gzip", "identity, gzip, gzip", "gzip,,gzip"),
        "gzip, identity, deflate",
    ],
)
def test_more_than_one_coding_is_refused_as_soon_as_there_is_something_to_decode(coding):
    decoder = decoder_for(coding)
    assert not decoder.holds_more
    with pytest.raises(ContentDecodingError, match="more than one content coding"):
        decoder.decode(gzip.compress(b"text"), 1000)
