"""The lines of a body: the same events as the parser's, and what that one passes over."""

from __future__ import annotations

import random

import pytest

from eventsource.cli.check.reading import EXCERPT, LineReader, Oddity, stamp_of
from eventsource.protocol.parser import BlockParser

PIECES = [
    *(b"data: x", b"data:x", b"data", b"event: e", b"event:", b"id: 7", b"id", b"id: a\0b"),
    *(b"retry: 40", b"retry: x", b": c", b":", b"foo: bar", b"nothing", b" data: x"),
    *(b"\xef\xbb\xbf", b"\n", b"\r", b"\r\n", b"\n\n", b"\r\n\r\n", b"\xff"),
    *(b"data: \xe2\x82", "№".encode()),
]


def read(*chunks):
    reader = LineReader()
    return reader, [block for chunk in chunks for block in reader.feed(chunk)]


def test_it_sees_the_events_that_the_parser_sees_however_the_bytes_are_cut():
    chance = random.Random(17)
    seen = 0
    for _ in range(2000):
        body = b"".join(chance.choices(PIECES, k=chance.randint(1, 30)))
        cuts = sorted(chance.choices(range(len(body) + 1), k=chance.randint(0, 5)))
        chunks = [body[a:b] for a, b in zip([0, *cuts], [*cuts, len(body)], strict=True)]
        parser = BlockParser()
        wanted = parser.feed(body)
        reader, blocks = read(*chunks)
        found = [(block.type, block.id) for block in blocks]
        assert found == [(event.type, event.id) for event in wanted], body
        same = {(event.data, block.digest) for event, block in zip(wanted, blocks, strict=True)}
        if b"\xff" not in body and b"\xe2\x82" not in body:  # which are the same when decoded
            assert len(same) == len({data for data, _ in same}) == len({each for _, each in same})
        seen += len(wanted)
        if parser.reconnection_time is not None:
            assert reader.retry == parser.reconnection_time * 1000
        odd = sum(
            reader.odd[kind].times
            for kind in (Oddity.NO_FIELD, Oddity.UNKNOWN_FIELD, Oddity.BOM)
            if kind in reader.odd
        )
        assert odd == parser.unknown_lines, body
    assert seen > 400


def test_the_same_data_has_the_same_digest_whatever_the_line_ends_and_cuts():
    blocks = read(b"data: a\ndata: b\n\n", b"data: a\r\ndata: ", b"b\r", b"\n\r\ndata: a\n\n")[1]
    assert blocks[0].digest == blocks[1].digest != blocks[2].digest


@pytest.mark.parametrize(
    ("line", "oddity"),
    [
        (b"nothing", Oddity.NO_FIELD),
        (b'{"a": 1}', Oddity.UNKNOWN_FIELD),
        (b"data: \xff", Oddity.NOT_UTF8),
        (b"\xef\xbb\xbfdata: x", Oddity.BOM),
        (b"id: a\0b", Oddity.NUL_ID),
        (b"retry: 1.5", Oddity.BAD_RETRY),
        (b"retry:", Oddity.BAD_RETRY),
    ],
)
def test_a_line_that_is_odd_is_counted_and_the_first_is_kept(line, oddity):
    reader, _ = read(b"data: good\n", line + b"\n", b": comment\n", line + b" more\n")
    times, first = reader.odd.pop(oddity)
    assert (times, reader.odd) == (2, {})
    assert first == line.decode("utf-8", "backslashreplace")


def test_usual_lines_are_not_odd():
    reader, blocks = read(
        "\ufeffevent: größe\r\nid: №\rretry: 40\n:\ndata\ndata: \ufeff\n\n".encode()
    )
    assert reader.odd == {}
    assert (reader.known, reader.comments, reader.retry) == (6, 1, 40)
    assert blocks[0][:2] == ("größe", "№")


def test_an_excerpt_is_short():
    reader, _ = read(b"x" * 10_000 + b"\n")
    assert reader.odd[Oddity.NO_FIELD].first == "x" * EXCERPT + "…"


def test_it_says_where_a_read_ends():
    reader, _ = read(b"data: x\n\nda")
    assert reader.line_size == 2
    reader.feed(b"ta: y\n")
    assert (reader.line_size, reader.has_unfinished_event) == (0, True)
    reader.feed(b"\n")
    assert not reader.has_unfinished_event


@pytest.mark.parametrize(
    ("data", "stamp"),
    [
        (b'{"at": "2023-11-14T22:13:20Z"}', 1_700_000_000.0),
        (b'{"at": "2023-11-14 22:13:20.5+00:00"}', 1_700_000_000.5),
        (b"2023-11-14T22:13:20", 1_700_000_000.0),
        (b'{"t": 1700000000123}', 1_700_000_000.123),
        (b'{"t": 1700000000.25}', 1_700_000_000.25),
        (b"1700000000", 1_700_000_000.0),
        (b"1700000000123-0", 1_700_000_000.123),
        (b"17000000001234", None),
        (b"2023-99-14T22:13:20Z", None),
        (b"price 170.5", None),
    ],
)
def test_the_time_that_an_event_tells(data, stamp):
    assert stamp_of(data) == (None if stamp is None else pytest.approx(stamp))


def test_the_time_may_be_in_the_id():
    assert read(b"id: 1700000000123-0\ndata: x\n\n")[1][0].stamp == pytest.approx(1_700_000_000.123)
