"""The parser gives what the HTML standard gives, however the bytes were cut.

Each example shows the bytes. The property tests at the end hold the parser against
`reference_parser.py`, which was written from the standard alone, and chunk by chunk
against `plain_parser.py`, which has no fast paths.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import math
import random
import re
import sys
import tracemalloc
from array import array
from unittest import mock

import pytest
import requests
from hypothesis import example, given
from hypothesis import strategies as st

from eventsource import EventStreamParser, MessageEvent, aparse, parse
from eventsource.errors import EventTooLarge
from eventsource.protocol import parser as parser_module
from eventsource.protocol.events import Comment
from eventsource.protocol.parser import (
    MAX_EVENT_SIZE,
    PIECE,
    RUN_SIZE,
    BlockParser,
)
from eventsource.protocol.runs import LONG_BLOCK
from tests.plain_parser import PlainBlockParser, PlainParser, a_stream, cut_up, story
from tests.properties import examples
from tests.reference_parser import reference

BOM = b"\xef\xbb\xbf"


def events(*chunks, **options):
    """What `feed` gives for the chunks: type, data and last event ID of each event."""
    parser = EventStreamParser(**options)
    return [plain(event) for chunk in chunks for event in parser.feed(chunk)]


def data(*chunks):
    return [text for _, text, _ in events(*chunks)]


def items(*chunks):
    """What `feed_with_comments` gives; a comment is a tuple of its text alone."""
    parser = EventStreamParser()
    return [plain(item) for chunk in chunks for item in parser.feed_with_comments(chunk)]


def plain(item):
    if isinstance(item, Comment):
        return (item.text,)
    assert isinstance(item, MessageEvent)
    return (item.type, item.data, item.last_event_id)


def reconnection_time(*chunks):
    parser = EventStreamParser()
    for chunk in chunks:
        parser.feed(chunk)
    return parser.reconnection_time


@contextlib.contextmanager
def traced():
    """Gives what tells the memory that Python has allocated in the block, now and at most."""
    tracemalloc.start()
    try:
        yield tracemalloc.get_traced_memory
    finally:
        tracemalloc.stop()


def in_bytes(stream):
    return [stream[i : i + 1] for i in range(len(stream))]


# ---------------------------------------------------------------- examples
#
# Each has a name, the bytes, and what comes of them: whole, and byte by byte.


def shown(*rows):
    return pytest.mark.parametrize(
        ("stream", "expected"), [pytest.param(*row, id=name) for name, *row in rows]
    )


@shown(
    ("its fields up to a blank line", b"event: e\ndata: 7\nid: 42\n\n", [("e", "7", "42")]),
    ("without a type, a message", b"data: 7\n\n", [("message", "7", "")]),
    ("a space of each field", b"event:  e\nid:  i\ndata:  d\n\n", [(" e", " d", " i")]),
    ("no colon, no value", b"id: 1\nevent: e\nid\nevent\ndata\n\n", [("message", "", "")]),
    ("the last event field", b"event: a\ndata: 1\nevent: b\n\n", [("b", "1", "")]),
    ("an empty event field", b"event: a\nevent:\ndata: 1\n\n", [("message", "1", "")]),
    (
        "the type is for one event",
        b"event: a\ndata: 1\n\ndata: 2\n\n",
        [("a", "1", ""), ("message", "2", "")],
    ),
    ("the type of no event", b"event: a\n\ndata: 2\n\n", [("message", "2", "")]),
    (
        "names of fields to the letter",
        b"Event: e\nID: i\n event: e\nid : i\ndata: d\n\n",
        [("message", "d", "")],
    ),
    (
        "other fields between data lines",
        b"data: a\nid: 1\nfoo: x\n: c\nevent: e\ndata: b\n\n",
        [("e", "a\nb", "1")],
    ),
    ("a block without data", b"event: a\nid: 1\nretry: 5\n: c\nfoo: x\n\n", []),
    ("comments are skipped", b": 1\ndata: a\n: 2\n\n", [("message", "a", "")]),
    (
        "an id stays",
        b"id: 1\ndata: a\n\ndata: b\n\nid: 2\ndata: c\n\n",
        [("message", "a", "1"), ("message", "b", "1"), ("message", "c", "2")],
    ),
    (
        "an empty id resets it",
        b"id: 1\ndata: a\n\nid\ndata: b\n\n",
        [("message", "a", "1"), ("message", "b", "")],
    ),
    ("the last id of a block", b"id: 1\ndata: a\nid: 2\n\n", [("message", "a", "2")]),
    *(
        ("NUL in an id", b"id: 1\nid:" + value + b"\ndata: a\n\n", [("message", "a", "1")])
        for value in (b"\0", b"2\0", b"\x002", b" \0", b"2\x003")
    ),
    (
        "any other character in an id",
        "id:\x01 :\t\u2028\x7f\u00e9\U0001f600\ufffd\ndata: a\n\n".encode(),
        [("message", "a", "\x01 :\t\u2028\x7f\u00e9\U0001f600\ufffd")],
    ),
)
def test_an_event_is_the_fields_of_its_block(stream, expected):
    assert events(stream) == expected
    assert events(*in_bytes(stream)) == expected


@shown(
    ("one is dropped", BOM + b"data: 1\n\n", ["1"]),
    *(("on a blank line", BOM + end + b"data: 1\n\n", ["1"]) for end in (b"\n", b"\r", b"\r\n")),
    ("a second belongs to the name", BOM + BOM + b"data: 1\ndata: 2\n\n", ["2"]),
    *(("later it is kept", end + BOM + b"data: 1\n\n", []) for end in (b"\n", b"\r")),
    ("after an event it is kept", b"data: 1\n\n" + BOM + b"data: 2\n\n", ["1"]),
    ("in a value it is kept", b"data: " + BOM + b"1\n\n", ["\ufeff1"]),
    ("part of it is none", b"\xef\xbbdata: 1\ndata: 2\n\n", ["2"]),
    ("of another encoding it is none", b"\xff\xfedata: 1\ndata: 2\n\n", ["2"]),
)
def test_one_leading_byte_order_mark_is_dropped(stream, expected):
    assert data(stream) == expected
    assert data(*in_bytes(stream)) == expected


@shown(
    *(
        (
            "each ends a line",
            end.join([b"data: a", b"data: b", b"", b"data: c", b"", b""]),
            ["a\nb", "c"],
        )
        for end in (b"\n", b"\r", b"\r\n")
    ),
    ("mixed", b"data: a\rdata: b\r\ndata: c\n\rdata: d\n\n", ["a\nb\nc", "d"]),
    ("LF CR is two", b"data: a\n\rdata: b\n\r", ["a", "b"]),
    ("CR CR LF is two", b"data: a\r\r\ndata: b\r\r\n", ["a", "b"]),
    ("the first LF after a CR", b"data: a\r\n\ndata: b\n\n", ["a", "b"]),
    *(
        ("nothing else", f"data: a{it}data: b\n{it}\ndata: c\n\n".encode(), [f"a{it}data: b\nc"])
        for it in ("\u2028", "\u2029", "\x85", "\v", "\f", "\x1c", "\x1e", "\0")
    ),
    ("the last line needs its end", b"data: a\n\ndata: b\n", ["a"]),
)
def test_lf_cr_and_crlf_each_end_a_line_and_nothing_else_does(stream, expected):
    assert data(stream) == expected
    assert data(*in_bytes(stream)) == expected


@shown(
    *(
        ("a value is what follows a colon and one space", f"data:{text}\n\n".encode(), [value])
        for text, value in [
            *[("a", "a"), (" a", "a"), ("  a", " a"), ("\ta", "\ta"), (" a ", "a "), (" ", "")],
            *[("  ", " "), (":a", ":a"), (" :a", ":a"), (" a: b:", "a: b:"), ("", "")],
            *[("\u00a0a", "\u00a0a"), ("\u3000a", "\u3000a")],
        ]
    ),
    *(
        ("a name is matched to the letter", line + b"\ndata: y\n\n", ["y"])
        for line in [
            *[b"Data: x", b"DATA: x", b" data: x", b"data : x", b"\tdata: x", b"dat: x"],
            b"dataa: x",
        ]
    ),
    ("data lines are joined", b"data: a\r\ndata: b\rdata: c\n\n", ["a\nb\nc"]),
    ("a line without a colon", b"data\n\ndata\ndata\n\n", ["", "\n"]),
    ("blank data lines", b"data:\ndata: a\ndata\ndata: b\ndata:\ndata: \n\n", ["\na\n\nb\n\n"]),
    ("an unknown field", b"foo: 1\ndata: 2\nfoo\n\n", ["2"]),
    ("many events", b"data: 1\n\ndata: 2\n\ndata: 3\n\ndata: 4", ["1", "2", "3"]),
    ("nothing", b"", []),
    ("blank lines alone", b"\n\n\r\r\n\n\ndata: 1\n\n\n\n\ndata: 2\n\n\n", ["1", "2"]),
    ("a character cut off by LF", b"data: \xe2\x82\ndata: \xac\n\n", ["\ufffd\n\ufffd"]),
    ("a character cut off by a colon", b"\xe2\x82:\ndata\xe2: 1\ndata: 2\n\n", ["2"]),
)
def test_a_line_is_a_field_and_the_data_lines_are_joined(stream, expected):
    assert data(stream) == expected
    assert data(*in_bytes(stream)) == expected


@shown(
    *(
        ("the text is without its colon and one space", line + b"\n", [(text,)])
        for line, text in [
            *[(b":", ""), (b": ", ""), (b":x", "x"), (b": x", "x"), (b":  x ", " x ")],
            *[(b"::x", ":x"), (b": data: x", "data: x"), (b":\0", "\0"), (b":\xff", "\ufffd")],
            *[(":\u2028\u00e9".encode(), "\u2028\u00e9"), (BOM + b": x", "x")],
        ]
    ),
    ("the last line needs its end", b": a\n: b", [("a",)]),
    (
        "in their place among the events",
        b": 1\ndata: a\n: 2\n\n: 3\n\n: 4\ndata: b\n\n",
        [("1",), ("2",), ("message", "a", ""), ("3",), ("4",), ("message", "b", "")],
    ),
)
def test_a_comment_is_a_line_that_begins_with_a_colon(stream, expected):
    assert items(stream) == expected
    assert items(*in_bytes(stream)) == expected


def test_an_event_carries_the_origin_that_the_parser_was_given():
    parser = EventStreamParser(origin="https://example.com")
    assert parser.feed(b"data: 7\n\n") == [MessageEvent("message", "7", "", "https://example.com")]


@pytest.mark.parametrize(
    ("stream", "expected"),
    [(b"data: 1\n\n", MessageEvent("message", "1")), (b"a\n: x\r", Comment("x"))],
)
def test_what_comes_does_so_with_the_byte_that_completes_it_and_not_before(stream, expected):
    parser = EventStreamParser()
    given = [parser.feed_with_comments(byte) for byte in in_bytes(stream)]
    assert given == [[]] * (len(stream) - 1) + [[expected]]
    assert type(given[-1][0]) is type(expected)


def test_an_empty_chunk_changes_nothing():
    assert data(b"", b"da", b"", b"ta: 1\r", b"", b"\n", b"", b"\r", b"", b"\n", b"") == ["1"]


def test_a_cr_at_the_end_of_a_read_completes_an_event_at_once():
    parser = EventStreamParser()
    assert [event.data for event in parser.feed(b"data: a\r\r")] == ["a"]
    assert parser.feed(b"\n") == []
    assert [event.data for event in parser.feed(b"data: b\r\n\r")] == ["b"]
    assert [event.data for event in parser.feed(b"\ndata: c\r\n\r\n")] == ["c"]


# ---------------------------------------------------------------- UTF-8


@pytest.mark.parametrize(
    ("broken", "shown"),
    [
        # One U+FFFD for each maximal part of a sequence, as the Encoding standard says.
        *[(part, "\ufffd") for part in (b"\xff", b"\x80", b"\xc3", b"\xe2\x82", b"\xf0\x9f\x98")],
        *[
            (b"\xc0\x80", "\ufffd" * 2),
            (b"\xc1\xbf", "\ufffd" * 2),
            (b"\xe0\x80\x80", "\ufffd" * 3),
        ],
        *[(b"\xed\xa0\x80", "\ufffd" * 3), (b"\xe2\x82\xe2\x82\xac", "\ufffd\u20ac")],
        *[(b"\xf4\x90\x80\x80", "\ufffd" * 4), (b"\xf5\x80\x80\x80", "\ufffd" * 4)],
        (b"\xe9", "\ufffd"),  # Latin-1, whatever the server's charset parameter says
    ],
    ids=repr,
)
@pytest.mark.parametrize("rest", [b"", b"x", b" x", b":"], ids=repr)
def test_bad_bytes_become_replacement_characters(broken, shown, rest):
    stream = b"event: " + broken + rest + b"\nid: " + broken + rest + b"\ndata: " + broken + rest
    shown += rest.decode()
    for end in (b"\n\n", b"\r\r", b"\r\n\r\n"):
        assert events(stream + end) == [(shown, shown, shown)]
        assert events(*in_bytes(stream + end)) == [(shown, shown, shown)]


def test_a_character_may_be_cut_anywhere():
    text = "\u00e9 \u20ac \U0001f600"
    stream = f"event: {text}\nid: {text}\n: {text}\ndata: {text}\n\n".encode()
    expected = [(text,), (text, text, text)]
    for cut in range(len(stream) + 1):
        assert items(stream[:cut], stream[cut:]) == expected


# ---------------------------------------------------------------- last event ID


def test_an_id_only_block_moves_the_last_event_id_without_an_event():
    parser = EventStreamParser(last_event_id="1")
    assert parser.feed(b"id: 2\n") == []
    assert parser.last_event_id == "1"
    assert parser.feed(b"\n") == []
    assert parser.last_event_id == "2"
    assert [event.last_event_id for event in parser.feed(b"data: a\n\n")] == ["2"]


@pytest.mark.parametrize(
    ("stream", "last_event_id", "resume_id"),
    [
        (b"id: 1\n\n", "1", "1"),
        (b"id: 1\n\nid: \x01\n\n", "\x01", "1"),
        (b"id:1\n\nid:a\x7fb\n\n", "a\x7fb", "1"),
        (b"id: 1\n\nid: \x1b\n\nid: \x02\n\n", "\x02", "1"),
        (b"id: 1\n\nid: \x01\nid: 2\n\n", "2", "2"),
        (b"id: 1\n\nid: 2\nid: \x01\n\n", "\x01", "1"),
        (b"id: 1\n\nid: \x01\n\nid: 2\n\n", "2", "2"),
        (b"id: 1\n\nid: \x01\n\nid: 2\n\nid: \x03\n\n", "\x03", "2"),
        (b"id: 1\n\nid: \x01\n", "1", "1"),  # whose block is not complete
        (b"id: 1\n\nid: \x01\n\nid\n\n", "", ""),
        (b"id: 1\n\nid: a\tb\n\n", "a\tb", "a\tb"),
        (b"id: 1\n\nid: \xc2\x80\xc3\xa9\n\n", "\x80\u00e9", "\x80\u00e9"),  # bytes of UTF-8 can
        (b"id: 1\n\nid: %b\n\n" % (b"x" * 4096), "x" * 4096, "x" * 4096),
        (b"id: 1\n\nid: %b\n\n" % (b"x" * 4097), "x" * 4097, "1"),
        (b"id: 1\n\nid: %b\n\n" % (b"\xc3\xa9" * 2048), "\u00e9" * 2048, "\u00e9" * 2048),
        (b"id: 1\n\nid: %b\n\n" % (b"\xc3\xa9" * 2049), "\u00e9" * 2049, "1"),
        (b"id: \x01\n\n", "\x01", "0"),
    ],
)
@pytest.mark.parametrize("data", [b"", b"data: x\n"])
def test_an_id_that_no_header_field_can_carry_is_not_the_one_to_resume_from(
    stream, last_event_id, resume_id, data
):
    stream = stream.replace(b"id", data + b"id")
    for parts in ([stream], in_bytes(stream)):
        for kind in (EventStreamParser, BlockParser):
            parser = kind(last_event_id="\x00", resume_id="0")
            for part in parts:
                parser.feed(part)
            assert (parser.last_event_id, parser.resume_id) == (last_event_id, resume_id)


def test_an_unfinished_block_is_dropped_and_its_id_with_it():
    first = EventStreamParser()
    assert len(first.feed(b"id: 1\ndata: a\n\nid: 2\nevent: e\ndata: b\nid: 3")) == 1
    assert first.last_event_id == "1"
    # The next connection has a parser of its own, which goes on from there.
    second = EventStreamParser(last_event_id=first.last_event_id)
    assert [plain(event) for event in second.feed(b"data: c\n\n")] == [("message", "c", "1")]


# ---------------------------------------------------------------- reconnection time


@shown(
    *(
        ("milliseconds", b"retry:" + value + b"\n", seconds)
        for value, seconds in [
            *[(b" 0", 0), (b" 1", 0.001), (b"1", 0.001), (b" 007", 0.007), (b"86400000", 86400)],
            # Thousands of digits are valid, and merely huge; of zeros, merely more to read.
            *[(b"9" * 5000, math.inf), (b"1" + b"0" * 400, math.inf), (b"0" * 5000 + b"25", 0.025)],
        ]
    ),
    *(
        ("not all ASCII digits", b"retry: 7\nretry: " + value + b"\n\n", 0.007)
        for value in [
            *[b"", b" ", b"+1", b"-1", b"1_0", b"1.0", b"1e3", b"0x1", b"1 ", b"  1", b"1\t"],
            b"1,000",
            *[b"a", b"1\0", b"\xff", "٣".encode(), "１".encode(), "²".encode()],  # noqa: RUF001
        ]
    ),
    ("not all digits, and there is no other", b"retry: x\n\n", None),
    ("no colon", b"retry\n\n", None),
    ("names to the letter", b"Retry: 1\nretry\t: 1\n\n", None),
    ("in a block that is never finished", b"data: a\nretry: 10\ndata: b", 0.01),
    ("in a line that does not end", b"retry: 10", None),
    ("the last valid one", b"retry: 1\nretry: 2\n\nretry: 3\nretry: x\n", 0.003),
)
def test_retry_sets_the_reconnection_time_in_milliseconds(stream, expected):
    assert reconnection_time(stream) == expected
    assert reconnection_time(*in_bytes(stream)) == expected


def test_retry_takes_effect_at_the_end_of_its_line():
    parser = EventStreamParser()
    seen = []
    for byte in in_bytes(b"retry: 10\ndata: a"):
        parser.feed(byte)
        seen.append(parser.reconnection_time)
    assert seen == [None] * 9 + [0.01] * 8


# ---------------------------------------------------------------- what feed accepts


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, type("Own", (bytes,), {})])
def test_feed_accepts_every_kind_of_bytes(kind):
    parser = EventStreamParser()
    given = parser.feed(kind(b"data: a")) + parser.feed(kind(b"\n\n"))
    assert given == [MessageEvent("message", "a")]
    assert parser.feed(kind(b"id: 1\ndata: b\n\n")) == [MessageEvent("message", "b", "1")]


def test_feed_accepts_a_slice_of_a_memoryview_and_an_array():
    assert data(memoryview(b"_data: a\n\n_")[1:-1]) == ["a"]
    assert data(memoryview(b"d.a.t.a.\n.\n.")[::2]) == [""]
    assert data(array("B", b"data: a\n\n")) == ["a"]


@pytest.mark.parametrize("kind", [bytearray, memoryview])
def test_what_was_fed_may_be_overwritten_afterwards(kind):
    parser = EventStreamParser()
    buffer = bytearray(b"data: a")
    parser.feed(kind(buffer))
    buffer[:] = b"XXXXXXX"
    assert parser.feed(b"\n\n") == [MessageEvent("message", "a")]


@pytest.mark.parametrize("block", [b"data: b\n\n", b": b\n\n", b"retry: 1\n\n", b"\n"])
def test_a_comment_counts_as_unfinished_until_the_block_after_it_ends(block):
    parser = EventStreamParser()
    for _ in range(3):
        parser.feed(b"data: a\n\n: c\n")
        assert parser.unfinished_bytes == 4
        parser.feed(block)
        assert parser.unfinished_bytes == 0


@pytest.mark.parametrize("chunk", ["data: a\n\n", "", None, 7, [100]], ids=repr)
def test_feed_refuses_what_is_not_bytes(chunk):
    parser = EventStreamParser()
    with pytest.raises(TypeError):
        parser.feed(chunk)
    with pytest.raises(TypeError):
        parser.feed_with_comments(chunk)
    assert parser.feed(b"data: a\n\n") == [MessageEvent("message", "a")]


# ---------------------------------------------------------------- max_event_size


def verdict(chunks, limit):
    """What comes of a stream: items, whether it fails, last event ID, reconnection time."""
    parser = EventStreamParser(max_event_size=limit)
    got = []
    try:
        for chunk in chunks:
            got += parser.feed_with_comments(chunk)
    except EventTooLarge:
        pass  # it is in parser.error too
    return got, parser.error is not None, parser.last_event_id, parser.reconnection_time


def fails(chunks, limit):
    return verdict(chunks, limit)[1]


# Of eight bytes each: line ends do not count.
eight_bytes = pytest.mark.parametrize(
    "stream",
    [
        pytest.param(b"data: ab\n\n", id="data"),
        pytest.param(b"data\ndata\n\n", id="two data lines"),
        pytest.param(b"data\r\nid:1\r\n\r\n", id="data and id"),
        pytest.param(b"event:\nid\n\n", id="event and id"),
        pytest.param(b"id:1\nid:2\n\n", id="ids without data"),
        pytest.param(b"data: ab\n", id="an unfinished block"),
        pytest.param(b"data: ab", id="an unfinished line"),
        pytest.param(b"event\nid:", id="a field and an unfinished line"),
        pytest.param(b": abcdef\n", id="comment"),
        pytest.param(b": abcdef", id="unfinished comment"),
        pytest.param(b"foo: abc\n", id="unknown field"),
        pytest.param(b"retry: 1\n", id="retry"),
        pytest.param(b"id: 123\0\n", id="ignored id"),
        pytest.param(BOM + b"data: ab\n\n", id="data after a BOM"),
        pytest.param("data:\u20ac\n\n".encode(), id="bytes, not characters"),
    ],
)


def test_the_default_limit_is_64_mebibytes():
    assert MAX_EVENT_SIZE == 64 * 2**20
    parser = EventStreamParser()
    assert parser.feed(b"data:" + bytes(MAX_EVENT_SIZE - 5)) == []
    with pytest.raises(EventTooLarge):
        parser.feed(b"x")


@eight_bytes
def test_an_event_of_exactly_the_limit_passes_and_one_of_a_byte_more_fails(stream):
    for chunks in ([stream], in_bytes(stream)):
        assert not fails(chunks, 8)
        assert fails(chunks, 7)


def test_the_limit_is_for_each_event_anew():
    assert not fails([b"data: ab\n\n" * 100], 8)
    assert not fails([b"id:1\nid:2\n\n" * 100], 8)
    assert not fails([b"data\n"] * 2 + [b"\n"] + [b"data\n"] * 2, 8)


def test_comments_unknown_and_ignored_fields_do_not_count_over_time():
    block = b"data\n" + b":abc\nfoo\nretr\nid:\0\n" * 1000 + b"data\n\n"
    assert not fails([block], 8)
    assert not fails(in_bytes(block), 8)


@pytest.mark.parametrize("line", [b": hb", b"retry: 1", b"foo", b"id: \0"], ids=repr)
def test_a_line_that_does_not_count_needs_room_only_while_it_is_read(line):
    block = b"data: ab\n" + (line + b"\n") * 100 + b"\n"
    room = 8 + len(line)
    assert not fails([block], room)
    assert not fails(in_bytes(block), room)
    assert fails([block], room - 1)
    assert fails(in_bytes(block), room - 1)


def test_the_error_names_both_sizes():
    parser = EventStreamParser(max_event_size=8)
    with pytest.raises(
        EventTooLarge, match=r"^an event of at least 12 bytes exceeds max_event_size=8$"
    ) as caught:
        parser.feed(b"data\ndata: ab\n\n")
    assert (caught.value.size, caught.value.limit) == (12, 8)


def test_the_error_is_a_requests_exception():
    assert issubclass(EventTooLarge, requests.RequestException)


def test_events_before_the_one_too_large_are_returned_and_the_next_feed_raises():
    parser = EventStreamParser(max_event_size=8)
    chunk = b"id: 1\n\ndata: 1\n\ndata: 2\n\nretry: 5\ndata: too large\n\nid: 9\n\ndata: 4\n\n"
    assert [event.data for event in parser.feed(chunk)] == ["1", "2"]
    assert isinstance(parser.error, EventTooLarge)
    assert parser.last_event_id == "1"
    assert parser.reconnection_time == 0.005
    with pytest.raises(EventTooLarge) as caught:
        parser.feed(b"")
    assert caught.value is parser.error


def test_an_event_too_large_raises_at_once_when_nothing_comes_before_it():
    parser = EventStreamParser(max_event_size=8)
    with pytest.raises(EventTooLarge) as caught:
        parser.feed(b": a\ndata: too large\n\ndata: 1\n\n")
    assert caught.value is parser.error


def test_comments_before_an_event_too_large_are_returned_too():
    parser = EventStreamParser(max_event_size=8)
    assert parser.feed_with_comments(b": a\ndata: too large\n\n: b\n") == [Comment("a")]
    with pytest.raises(EventTooLarge):
        parser.feed_with_comments(b"")


def test_the_error_is_final():
    parser = EventStreamParser(max_event_size=8)
    with pytest.raises(EventTooLarge) as first:
        parser.feed(b"data: too large")
    for chunk in (b"", b"\n\n", b"data: 1\n\n"):
        for feed in (parser.feed, parser.feed_with_comments):
            with pytest.raises(EventTooLarge) as again:
                feed(chunk)
            assert again.value is first.value
    assert parser.last_event_id == ""


def test_what_is_too_large_is_not_kept():
    parser = EventStreamParser(max_event_size=2**20)
    with traced() as memory:
        # Together exactly the limit.
        assert parser.feed(b"data:" + bytes(2**19) + b"\ndata:" + bytes(2**19 - 10)) == []
        assert memory()[0] > 2**20
        with pytest.raises(EventTooLarge):
            parser.feed(b"x")
        assert memory()[0] < 2**16


def test_it_is_the_same_for_a_chunk_that_is_taken_in_pieces():
    block = b"data: 1234567890\n\n"
    good = block * (2 * RUN_SIZE // len(block))
    for bad in (b"data: too large for this parser\n\n", b"data: too large, and has no end"):
        parser = EventStreamParser(max_event_size=20)
        assert len(parser.feed(good + bad + good)) == len(good) // len(block)
        with pytest.raises(EventTooLarge) as caught:
            parser.feed(b"")
        assert caught.value is parser.error
        parser = EventStreamParser(max_event_size=20)
        with pytest.raises(EventTooLarge):
            parser.feed(bad + good)


# ---------------------------------------------------------------- parse and aparse


async def arriving(chunks):
    for chunk in chunks:
        yield chunk


def with_parse(chunks, **options):
    """The events that `parse` yields and the error that it raises or None."""
    got = []
    try:
        for event in parse(iter(chunks), **options):
            got.append(event)  # noqa: PERF402 - keep those before an error
    except EventTooLarge as error:
        return got, error
    return got, None


def with_aparse(chunks, **options):
    """The same with `aparse`, and without an event loop: it waits for chunks only."""

    async def collect():
        got = []
        try:
            async for event in aparse(arriving(chunks), **options):
                got.append(event)  # noqa: PERF401 - keep those before an error
        except EventTooLarge as error:
            return got, error
        return got, None

    try:
        collect().send(None)
    except StopIteration as stop:
        return stop.value
    raise AssertionError("aparse() waits for something of its own")


both_spellings = pytest.mark.parametrize("run", [with_parse, with_aparse])


@both_spellings
def test_parse_yields_the_events_of_all_chunks(run):
    got, error = run([b"data: hel", b"lo\r", b"\n\r\n: x\nid: 1\ndata: ", b"you\n\ndata: lost"])
    assert got == [MessageEvent("message", "hello"), MessageEvent("message", "you", "1")]
    assert error is None


@both_spellings
def test_parse_passes_its_options_on(run):
    got, error = run([b"data: ab\n\n"], last_event_id="41", origin="https://a", max_event_size=8)
    assert got == [MessageEvent("message", "ab", "41", "https://a")]
    assert error is None
    got, error = run([b"data: ab\n\n"], max_event_size=7)
    assert got == []
    assert error.limit == 7


@both_spellings
def test_parse_asks_for_no_further_chunk_after_an_event_too_large(run):
    def chunks():
        yield b"data: 1\n\ndata: too large"
        raise AssertionError("asked for more")

    got, error = run(chunks(), max_event_size=8)
    assert [event.data for event in got] == ["1"]
    assert isinstance(error, EventTooLarge)


def test_parse_yields_an_event_before_it_asks_for_the_next_chunk():
    asked = []

    def chunks():
        for chunk in (b"data: 1\n\ndata: 2\n\n", b"data: 3\n\n"):
            asked.append(chunk)
            yield chunk

    given = [(event.data, len(asked)) for event in parse(chunks())]
    assert given == [("1", 1), ("2", 1), ("3", 2)]


def test_aparse_yields_an_event_before_it_waits_for_the_next_chunk():
    async def play():
        chunks = asyncio.Queue()
        events_ = asyncio.Queue()

        async def body():
            while chunk := await chunks.get():
                yield chunk

        async def read():
            async for event in aparse(body()):
                await events_.put(event.data)

        reader = asyncio.create_task(read())
        got = []
        for chunk in (b"data: 1\n\nda", b"ta: 2\n\n"):
            await chunks.put(chunk)
            got.append(await events_.get())
            assert not reader.done()
        await chunks.put(b"")
        await reader
        return got

    assert asyncio.run(play()) == ["1", "2"]


# ---------------------------------------------------------------- the standard's examples

STANDARD = [
    pytest.param(
        b"data: YHOO\ndata: +2\ndata: 10\n\n",
        [("message", "YHOO\n+2\n10", "")],
        id="stock ticker",
    ),
    pytest.param(
        b": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event",
        [("test stream",), ("message", "first event", "1"), ("message", "second event", "")],
        id="four blocks",
    ),
    pytest.param(
        b"data\n\ndata\ndata\n\ndata:",
        [("message", "", ""), ("message", "\n", "")],
        id="empty data",
    ),
    pytest.param(
        b"data:test\n\ndata: test\n\n",
        [("message", "test", ""), ("message", "test", "")],
        id="space after the colon",
    ),
    pytest.param(
        b"event: add\ndata: 73857293\n\nevent: remove\ndata: 2153\n\n",
        [("add", "73857293", ""), ("remove", "2153", "")],
        id="event types",
    ),
]


@pytest.mark.parametrize(("stream", "expected"), STANDARD)
def test_the_examples_of_the_standard(stream, expected):
    assert items(stream) == expected
    assert items(*in_bytes(stream)) == expected


@pytest.mark.parametrize(("stream", "expected"), STANDARD)
def test_the_reference_parser_gives_the_examples_of_the_standard(stream, expected):
    assert reference(stream)[3] == expected


# ---------------------------------------------------------------- against the reference

LINE_ENDS = [b"\n", b"\r", b"\r\n"]
TOKENS = [
    *LINE_ENDS,
    *[end * 2 for end in LINE_ENDS],
    *[b"data", b"data:", b"data: ", b"id", b"id: ", b"event:", b"event: ", b"retry: 10", b"retry:"],
    *[b"Data: ", b"foo: ", b":", b": ", b" ", b"\0", b"0", b"7", b"x", b"\t", b"\v", b"\f"],
    *[text.encode() for text in ["\u00e9", "\u20ac", "\U0001f600", "\u2028", "\x85", "٣"]],
    *[BOM, BOM[:2], BOM[2:]],
    *[b"\xff", b"\x80", b"\xc3", b"\xe2\x82", b"\xf0\x9f\x98", b"\xed\xa0\x80", b"\xc0\x80"],
]
NAMES = [b"data: ", b"data:", b"id: ", b"id:", b"event: ", b"retry: ", b": ", b"data"]
VALUES = [b"", b"1", b"20", b"0", b" ", b"+1", b"\0", b"1\0", b"x", b": ", "٣".encode(), b"\xe2"]
FIELDS = [name + value for name in NAMES for value in VALUES]
LINES = [field + end for field in FIELDS for end in LINE_ENDS]
BLOCKS = [field + end * 2 for field in FIELDS for end in LINE_ENDS]
FRAGMENT = st.one_of(
    *[st.sampled_from(pieces) for pieces in (TOKENS, LINE_ENDS, FIELDS, LINES, BLOCKS)],
    st.binary(max_size=3),
)
STREAM = st.lists(FRAGMENT, max_size=20).map(b"".join)


@st.composite
def streams_cut(draw):
    """A stream, and the same in chunks, some of them empty."""
    stream = draw(st.sampled_from([b"", b"", b"", BOM])) + draw(STREAM)
    cuts = sorted(draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    return stream, [stream[a:b] for a, b in itertools.pairwise([0, *cuts, len(stream)])]


USUAL = [
    *[b"data: %b\n\n" % value for value in (b"1", b"", b" 2", b"a: b", "\u00e9".encode(), b"\xff")],
    *[b"event: e\ndata: 3\n\n", b"id: 7\nevent: e\ndata: 4\n\n", b"event: e\nid: 8\ndata: 5\n\n"],
    *[b"data: 6\ndata: 7\n\n", b"data: 8\nid: 9\n\n", b"id: 1\0\ndata: 9\n\n", b"retry: 10\n\n"],
    *[b": beat\n\n", b":\n", b"\n", b"id: 5\n\n", b"event: f\n\n", b"data:10\n\n"],
    *[b"data\n\n", b"x: y\n"],
]
"""Blocks as servers send them: for each there is a shorter way through the parser."""
IDS = b"".join(b"id: %d\ndata: x\n\n" % number for number in range(20))
"""A run, of which the last id stays."""


@st.composite
def usual_streams_cut(draw):
    """Runs of the same block, and what comes between; whole, and in chunks."""
    runs = st.tuples(st.sampled_from(USUAL), st.integers(1, 6)).map(lambda run: run[0] * run[1])
    stream = b"".join(draw(st.lists(runs, max_size=8)))
    if draw(st.booleans()):
        stream = stream.replace(b"\n", b"\r\n")
    cuts = sorted(draw(st.lists(st.integers(0, len(stream)), max_size=4)))
    return stream, [stream[a:b] for a, b in itertools.pairwise([0, *cuts, len(stream)])]


STREAMS = streams_cut() | usual_streams_cut()


def same_time(one, other):
    """Whether two reconnection times agree; above 2**53 ms floats are rounded."""
    return one == other or math.isclose(one, other)


@examples(2000)
@given(streams_cut(), st.sampled_from(["", "41"]))
@example((b"data: 1\r\n\r\n", [b"data: 1\r", b"\n\r", b"\n"]), "")
@example((BOM + BOM + b"data\n\n", [BOM, BOM, b"data\n\n"]), "41")
def test_every_stream_gives_what_the_reference_gives_however_it_is_cut(stream_cut, last_event_id):
    stream, chunks = stream_cut
    events_, last_id, reconnection_time_, items_ = reference(stream, last_event_id)
    for parts in (chunks, [stream], in_bytes(stream)):
        parser = EventStreamParser(last_event_id=last_event_id)
        assert [plain(event) for part in parts for event in parser.feed(part)] == events_
        assert parser.last_event_id == last_id
        assert same_time(parser.reconnection_time, reconnection_time_)
        parser = EventStreamParser(last_event_id=last_event_id)
        got = [plain(item) for part in parts for item in parser.feed_with_comments(part)]
        assert got == items_
        assert parser.last_event_id == last_id
        assert same_time(parser.reconnection_time, reconnection_time_)
        assert parser.error is None


@examples(2000)
@given(usual_streams_cut(), st.sampled_from(["", "41"]))
@example((IDS, [IDS, b""]), "")
def test_the_shorter_ways_give_what_the_reference_gives(stream_cut, last_event_id):
    stream, chunks = stream_cut
    events_, last_id, reconnection_time_, items_ = reference(stream, last_event_id)
    for parts in (chunks, [stream]):
        parser = EventStreamParser(last_event_id=last_event_id)
        assert [plain(event) for part in parts for event in parser.feed(part)] == events_
        assert parser.last_event_id == last_id
        assert parser.reconnection_time == reconnection_time_
        parser = EventStreamParser(last_event_id=last_event_id)
        assert [plain(x) for part in parts for x in parser.feed_with_comments(part)] == items_


def test_a_run_whose_last_id_cannot_be_sent_is_resumed_after_the_one_before():
    parser = EventStreamParser()
    parser.feed(IDS + b"id: \x01\ndata: x\n\n")
    assert (parser.last_event_id, parser.resume_id) == ("\x01", "19")


def after_the_last_blank_line(stream):
    """The bytes since the last blank line, by the letter."""
    lines = re.findall(rb"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+", stream)
    rest = b""
    for line in lines:
        is_blank = line in (b"\r\n", b"\r", b"\n")
        rest = b"" if is_blank else rest + line
    return rest


def lines_that_are_no_field(stream):
    ended = re.findall(rb"([^\r\n]*)(?:\r\n|\r|\n)", stream.removeprefix(BOM))
    known = (b"", b"data", b"event", b"id", b"retry")
    return sum(bool(line) and line.partition(b":")[0] not in known for line in ended)


@examples(1000)
@given(STREAMS)
@example((b"data: 1\r\n\r\n", [b"data: 1\r", b"\n\r", b"\n"]))
@example((b"data: 1\r\rx", [b"data: 1\r", b"\r", b"x"]))
@example((b"x\r\n\n\r\n", [b"x\r", b"\n", b"\n\r", b"\n"]))
def test_what_is_no_event_is_counted_however_it_is_cut(stream_cut):
    stream, chunks = stream_cut
    rest = after_the_last_blank_line(stream)
    for parts in (chunks, [stream], in_bytes(stream)):
        parser = EventStreamParser()
        for part in parts:
            parser.feed(part)
        if not stream.startswith(BOM):  # after which a blank line may stand on the first
            assert parser.unfinished_bytes == len(rest)
        assert parser.unknown_lines == lines_that_are_no_field(stream)


@pytest.mark.long
@examples(500)
@given(
    st.lists(
        st.one_of(st.sampled_from(TOKENS), st.text(max_size=5).map(lambda text: text.encode())),
        min_size=1,
    ).map(lambda parts: re.sub(rb"[\r\n]", b"", b"".join(parts))),
    st.integers(0, 20),
    st.integers(1, 3),
)
def test_text_that_is_decoded_in_pieces_is_the_same(value, place, pieces):
    """Of which one ends within it, most often within a character."""
    value = b"x" * (pieces * PIECE - min(place, len(value))) + value
    whole = b"data: " + value + b"\n\n"
    for chunks in ([whole], [whole[:9], whole[9:]], [whole[:-1], whole[-1:]], [b"id\n", whole]):
        ((_, text, _),) = events(*chunks)
        assert text == value.decode("utf-8", "replace")


@examples(500)
@given(STREAMS, st.sampled_from(["", "41"]))
def test_parse_and_aparse_give_what_the_reference_gives(stream_cut, last_event_id):
    stream, chunks = stream_cut
    expected = reference(stream, last_event_id)[0]
    for run in (with_parse, with_aparse):
        got, error = run(chunks, last_event_id=last_event_id)
        assert [plain(event) for event in got] == expected
        assert error is None


@examples(1500)
@given(STREAMS, st.integers(0, 60))
def test_whether_an_event_is_too_large_does_not_depend_on_the_cuts(stream_cut, limit):
    stream, chunks = stream_cut
    whole = verdict([stream], limit)
    assert verdict(chunks, limit) == whole
    assert verdict(in_bytes(stream), limit) == whole


@examples(500)
@given(STREAMS, st.integers(0, 40), st.sampled_from([with_parse, with_aparse]))
def test_parse_yields_all_before_the_event_too_large_however_it_is_cut(stream_cut, limit, run):
    stream, chunks = stream_cut
    items_, failed, *_ = verdict([stream], limit)
    got, error = run(chunks, max_event_size=limit)
    assert got == [item for item in items_ if isinstance(item, MessageEvent)]
    assert (error is not None) == failed


# ---------------------------------------------------------------- against the plain parser

KINDS = [(EventStreamParser, PlainParser), (BlockParser, PlainBlockParser)]


@pytest.mark.long
@examples(3000)
@given(
    st.integers(0, 2**48).map(random.Random),
    st.sampled_from(KINDS),
    st.booleans(),
    st.sampled_from([0, 0, 1, 0x5555, 0xFFFF]),
    st.sampled_from([MAX_EVENT_SIZE] * 3 + [1000, 60, 20, 9, 3]),
)
def test_every_chunk_brings_what_it_brings_line_by_line(rng, kinds, comments, look, limit):
    """Events, comments, blocks' own ids, and each attribute after each chunk."""
    chunks = cut_up(rng, a_stream(rng))
    options = {"last_event_id": "0", "resume_id": "r", "origin": "o", "max_event_size": limit}
    got, expected = (story(kind(**options), chunks, comments=comments, look=look) for kind in kinds)
    assert got == expected


RUNS = [
    b"data: 1\n\n",
    b"event: e\ndata: 1\n\n",
    b"id: 1\ndata: 1\n\n",
    b"event: e\nid: 1\ndata: 1\n\n",
    b"id: 1\nevent: e\ndata: 1\n\n",
    b"event: e\ndata: 1\ndata: 2\n\n",
    b": 1\n\n",
]
ODD = [
    *[b"data: 1\ndata: 2\n\n", b"event: f\ndata: 1\n\n", b"id: 2\ndata: 1\n\n", b"id: 3\n\n"],
    *[b"id: 2\0\ndata: 1\n\n", b"event: e\nid: 2\0\ndata: 1\n\n", b"id: \x01\ndata: 1\n\n"],
    *[b"id: 2\0\nevent: e\ndata: 1\n\n", b"id: 2\nevent: f\ndata: 1\n\n"],
    *[b"id: 2\nx: e\ndata: 1\n\n", b"event: e\n: 2\ndata: 1\n\n", b"event: e\nx: 2\ndata: 1\n\n"],
    *[b"event: e\nid: 2\n: 1\n\n", b"event: e\nid: 2\nx: 1\n\n", b"event: e\n: 1\n\n"],
    *[b": 1\n\n", b"x: 1\n\n", b"a: 1\n\n", b"\n", b"retry: 10\ndata: 1\n\n"],
    *[b"id: 2\nretry: 10\ndata: 1\n\n", b"data:1\n\n", b"data\n\n", b"data: 1\nx: 1\n"],
    *[b"event: e\ndata: 1\ndata: 2\n", b"id: 2\ndata: 1\ndata: 2\n", b"event: e\n\n"],
    *[b"event: e\nid: 2\n\n", b"data: 1\nid: 2\n\n", b"data: \xff\xc3\n\n"],
    *[b"id: \xc3\xa9\ndata: \xe2\x82\xac\n\n", b"data: 1\rdata: 2\n\n", b"data: 1\r\ndata: 2\n\n"],
]


@pytest.mark.long
@pytest.mark.parametrize("kinds", KINDS, ids=lambda kinds: kinds[0].__name__)
@pytest.mark.parametrize("end", [b"\n", b"\r\n"], ids=repr)
@pytest.mark.parametrize("usual", RUNS, ids=repr)
def test_a_run_with_odd_blocks_in_it_brings_what_it_brings_line_by_line(usual, end, kinds):
    """Among short blocks and long ones; behind a line, too, that is part of no event."""
    for odd, times, before, longer in itertools.product(
        ODD, (1, 9), (b"", b": x\n"), (b"", b"x" * LONG_BLOCK)
    ):
        long = usual[:-2] + longer + b"\n\n"
        run = [long.replace(b"\n", end) * 7, odd, long.replace(b"\n", end) * 4, b"data: 1"]
        for block in {odd, odd.replace(b"\n", end)}:
            run[1] = block * times
            chunks = [b"\n", before, b"".join(run), end * 2, run[0]]
            for comments in (False, True):
                got, expected = (
                    story(kind(last_event_id="0"), chunks, comments=comments, look=0xFFFF)
                    for kind in kinds
                )
                assert got == expected


@examples(1000)
@given(
    st.integers(0, 2**48).map(random.Random),
    st.sampled_from(KINDS),
    st.booleans(),
    st.integers(1, 600),
)
def test_a_chunk_that_is_taken_in_pieces_brings_the_same(rng, kinds, comments, size):
    stream = a_stream(rng).removeprefix(BOM)  # as of those that are counted above
    chunks = cut_up(rng, stream)
    with mock.patch.object(parser_module, "RUN_SIZE", size):
        got = story(kinds[0](), chunks, comments=comments, look=1)
    assert got == story(kinds[1](), chunks, comments=comments, look=1)


# ---------------------------------------------------------------- cost
#
# Cost is counted and not timed: what is counted is the same on every machine.


def allocated(chunks):
    """How many bytes the parser allocates: for each chunk, by how much memory rises.

    A copy of all that has arrived, for each chunk that arrives, shows up here as a sum
    that grows with the square.
    """
    parser = EventStreamParser()
    total = 0
    with traced() as memory:
        for chunk in chunks:
            before, _ = memory()
            tracemalloc.reset_peak()
            parser.feed(chunk)
            total += memory()[1] - before
    return total


@pytest.mark.long
@pytest.mark.parametrize(
    ("count", "chunk", "before"),
    [
        pytest.param(4096, b"x", b"data: ", id="a line in bytes"),
        pytest.param(16, b"x" * 2**16, b"data: ", id="a line in chunks of 64 KiB"),
        pytest.param(4096, b"x", b": ", id="a comment in bytes"),
        pytest.param(2048, b"data: x\n", b"", id="an event in lines"),
        pytest.param(2048, b"id: x\n", b"", id="ids without end"),
        pytest.param(2048, b"data: x\n\n", b"", id="an event in each chunk"),
    ],
)
def test_memory_allocated_grows_in_proportion_to_the_bytes(count, chunk, before):
    once, fourfold = (
        allocated([before, *itertools.repeat(chunk, n), b"\n\n"]) for n in (count, 4 * count)
    )
    # Proportional: 4 times as much. With the square: 12 to 16 times.
    assert fourfold < 5 * once


class MeasuredBuffer(bytearray):
    """Counts the bytes that are added to it, copied from it and searched in it."""

    work = 0

    def __iadd__(self, other):
        self.work += len(other)
        return super().__iadd__(other)

    def append(self, byte):
        self.work += 1
        super().append(byte)

    def extend(self, other):
        self.work += len(other)
        super().extend(other)

    def __bytes__(self):
        self.work += len(self)
        return b"".join([self])


def _counting_every_byte(name):
    method = getattr(bytearray, name)

    def counted(self, *args, **kwargs):
        self.work += len(self)
        return method(self, *args, **kwargs)

    return counted


for _name in (
    *["__add__", "__contains__", "__eq__", "__getitem__", "__iter__", "__mod__", "__mul__"],
    *["copy", "count", "decode", "find", "index", "join", "partition", "replace", "rfind"],
    *["rindex", "rpartition", "rsplit", "split", "splitlines", "strip", "translate"],
):
    setattr(MeasuredBuffer, _name, _counting_every_byte(_name))


@pytest.mark.parametrize("end", [b"\n\n", b"\r", b"\r\n\r\n"], ids=repr)
@pytest.mark.parametrize("size", [1, 100, 2**16])
def test_each_byte_of_an_unfinished_line_is_moved_twice_and_searched_once(size, end):
    parser = EventStreamParser()
    buffer = parser._line = MeasuredBuffer()
    total = max(2**14, 16 * size)
    chunk = b"x" * size
    for _ in range(total // size):
        parser.feed_with_comments(chunk)
    assert parser._line is buffer, "the unfinished line was moved elsewhere"
    assert 0 < buffer.work <= total
    parser.feed_with_comments(end)
    # Into the buffer, searched for a colon, and out of it.
    assert buffer.work <= 3 * total


def searched(stream):
    """How many bytes the methods of bytes have before them while a chunk is parsed."""
    total = 0

    def profile(frame, event, function):
        nonlocal total
        if event == "c_call":
            owner = getattr(function, "__self__", None)
            if isinstance(owner, bytes | bytearray | memoryview | str):
                total += len(owner)

    parser = EventStreamParser()
    before = sys.getprofile()
    sys.setprofile(profile)
    try:
        parser.feed(stream)
    finally:
        sys.setprofile(before)
    return total


@pytest.mark.long
@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"], ids=repr)
@pytest.mark.parametrize(
    "block",
    [
        b"id: 1\ndata: x\n\n",
        b"data: x\n\n",
        b"event: e\ndata: x\ndata: y\n\n",
        b": x\n\n",
        b"data: x\n\n" * 9 + b": y\n\n",
        b"event: e\ndata: x\n\nevent: f\ndata: y\n\n",
        b"event: e\nid: 1\ndata: %b\n\n" % (b"x" * LONG_BLOCK),
    ],
    ids=lambda block: repr(block[:40]),
)
def test_a_chunk_of_many_events_is_not_searched_again_for_each_event(block, end):
    block = block.replace(b"\n", end)
    few = 2**15 // len(block)
    once, fourfold = searched(block * few), searched(block * (4 * few))
    assert once >= len(block) * few
    assert fourfold <= 4.2 * once


SIZE = 2**24


def in_reads(value, size=2**16):
    return (value[start : start + size] for start in range(0, len(value), size))


@pytest.mark.parametrize(
    ("unit", "completing"),
    [
        pytest.param(b"x", 2.25, id="ASCII"),
        pytest.param("\u00e9".encode(), 2.25, id="two bytes, one in memory"),
        pytest.param("\u65e5".encode(), 2.25, id="three bytes, two in memory"),
        # The text itself takes four times the bytes.
        pytest.param(b"x" * 65532 + "\U0001f600".encode(), 5.6, id="rarely four bytes"),
    ],
)
def test_a_large_event_takes_about_twice_its_size_in_memory_and_at_last_its_own(unit, completing):
    value = unit * (SIZE // len(unit))
    size = len(value)
    parser = EventStreamParser()
    with traced() as memory:
        parser.feed(b"data: ")
        for chunk in in_reads(value):
            parser.feed(chunk)
        received, receiving = memory()
        (event,) = parser.feed(b"\n\n")
        held, peak = memory()
    assert event.data == value.decode()
    assert received < 1.25 * size
    assert receiving < 1.25 * size
    assert peak < completing * size
    assert held < 1.05 * sys.getsizeof(event.data)


@pytest.mark.long
@pytest.mark.parametrize("width", [2, 20, 60_000])
def test_a_large_event_of_many_lines_takes_about_twice_its_size_in_memory(width):
    line = b"data: " + b"x" * width + b"\n"
    chunk = line * max(1, 2**16 // len(line))
    count = SIZE // 8 // len(chunk)
    size = len(chunk) * count
    parser = EventStreamParser()
    with traced() as memory:
        for _ in range(count):
            parser.feed(chunk)
        (event,) = parser.feed(b"\n")
        _, peak = memory()
    lines = event.data.split("\n")
    assert set(lines) == {"x" * width}
    assert len(lines) == count * (len(chunk) // len(line))
    assert peak < 2.25 * size + 2**19


@pytest.mark.parametrize("block", [b"data: %b\n\n", b"id: 1\ndata: %b\n\n"], ids=repr)
def test_a_large_chunk_takes_little_memory_beside_its_events(block):
    chunk = block % (b"x" * 1000) * (SIZE // 1024)
    parser = EventStreamParser()
    with traced() as memory:
        events_ = parser.feed(chunk)
        held, peak = memory()
    assert len(events_) == SIZE // 1024
    assert peak < held + 16 * RUN_SIZE  # which is a quarter of the chunk
