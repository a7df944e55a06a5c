"""Splits runs of blocks of one shape at once: the fast path of `parser`.

Most servers send the same few fields in the same order. This module finds the shape of a
block, and splits a chunk at the bytes that all blocks of this shape share. It has no state:
it returns values, or None if too many blocks differ; the parser then processes each line.
Times are for CPython 3.13.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from itertools import compress, count, repeat
from operator import contains, not_
from typing import Any, Final, NamedTuple

_CARRIAGE_RETURN: Final = ord("\r")
_NUL: Final = 0
_MARKS: Final = (b"", b"\n", b"\r", b"\0", b"\ndata: ")
_BEGINNING: Final = re.compile(
    rb"(?:event: (?P<early>[^\r\n]+)\r?\n)?"
    rb"(?:data: |id: (?P<id>[^\r\n]*)"
    rb"(?P<middle>\r?\n(?:event: (?P<late>[^\r\n]+)\r?\n)?data: ))"
    rb"|: "
)

USUAL_BLOCKS: Final = 0.75
"""The share of a run's blocks that must be of one shape. The others take longer here."""

LONG_BLOCK: Final = 256
"""Bytes of a block; from this size on `split_into_lines` is faster than `split_run`."""


class Shape(NamedTuple):
    """What the blocks of a run have in common."""

    head: bytes  # up to the first value that differs: `data: `, `event: tick\nid: `, `: `
    middle: bytes  # between the id and the data; empty if there is no id
    type: str  # of the events; empty if the blocks are comments
    blank: bytes  # the blank line and the line end before it


NO_SHAPE: Final = Shape(b"\n", b"", "", b"")
"""Stands for no shape: no block begins with a line feed."""


def shape_of(chunk: bytes) -> Shape:
    """Return the shape of the first block; `NO_SHAPE` if there is no fast path for it."""
    match = _BEGINNING.match(chunk)
    if match is None:
        return NO_SHAPE
    blank = b"\r\n\r\n" if _CARRIAGE_RETURN in chunk else b"\n\n"
    head = match[0]
    if head == b": ":
        return Shape(head, b"", "", blank)
    early, value, middle, late = match.groups()
    if middle:
        head = head[: -len(value + middle)]
    name = late or early or b"message"
    return Shape(head, middle or b"", name.decode("utf-8", "replace"), blank)


Run = tuple[Sequence[str], Sequence[str], Sequence[tuple[int, bytes]]]
"""The result of splitting a run: the values of `data`, or the comments; the ids, if the shape
has them; and each block of another shape, with its index among the values."""


def split_into_lines(chunk: bytes, first_end: int, end: int, shape: Shape) -> Run | None:
    """Split blocks of the same number of lines each, the first of which ends at `first_end`.

    A search for one byte takes eight or more bytes at a time, a search for several bytes one
    at a time. So `split_run` takes 1.2 times as long for lines of 1 KB, but less for short ones.

    Returns:
        None if one of the blocks is of another shape.
    """
    head, middle, name, blank = shape
    starts = (head + middle).split(b"\n")  # of all lines except the blank one
    data_place = len(starts) - 1
    if not name or blank != b"\n\n" or chunk.count(b"\n", 0, first_end) != data_place:
        return None
    period = len(starts) + 1
    lines = io.BytesIO(chunk).readlines()
    rest = chunk.count(b"\n", end + 2) + (not chunk.endswith(b"\n"))
    del lines[len(lines) - rest :]
    blocks, more = divmod(len(lines), period)
    if more or lines[period - 1 :: period].count(b"\n") != blocks:
        return None
    id_place = head.count(b"\n") if middle else data_place
    for place in range(data_place):
        line = starts[place] + b"\n"
        if place != id_place and lines[place::period].count(line) != blocks:
            return None
    values = _values(lines[data_place::period], b"data: ")
    ids = _values(lines[id_place::period], b"id: ") if middle else ()
    if values is None or ids is None:
        return None
    return values, ids, ()


def _values(lines: list[bytes], start: bytes) -> list[str] | None:
    """Return the values of fields that all begin with `start`, else None."""
    # In byte order, everything between two lines that begin with `start` does so, too.
    if not (min(lines).startswith(start) and max(lines).startswith(start)):
        return None
    if start == b"id: " and _NUL in b"".join(lines):
        return None
    size = len(start)
    return [line[size:-1].decode("utf-8", "replace") for line in lines]


def split_run(chunk: bytes, end: int, shape: Shape) -> Run | None:
    """Split the blocks in `chunk[:end]`, of which the first is of this shape.

    ASCII is decoded as a whole and split as text, which takes three quarters of the time.
    Other text is split first: as a whole, each character would be as wide as the widest.

    Returns:
        None if too many blocks are of another shape.
    """
    head, middle, name, blank = shape
    parts: list[Any] = [chunk[len(head) : end], head, middle, blank, *_MARKS]
    is_ascii = chunk.isascii()
    if is_ascii:
        parts = [part.decode("ascii") for part in parts]
    run, head_, middle_, blank_, nothing, lf, cr, nul, more = parts
    values: Any = run.split(blank_ + head_)
    ids: Any = ()
    found: Any = ()
    if middle:
        ids, found, values = zip(*[value.partition(middle_) for value in values], strict=True)
    joined, joined_ids = nothing.join(values), nothing.join(ids)
    is_crlf = blank == b"\r\n\r\n"
    if nul in joined_ids or (is_crlf and (cr in joined or cr in joined_ids)):
        return None
    is_folded = lf in joined and name
    if is_folded:  # several data lines: joined by CR meanwhile, as the chunk has no CR
        values = [value.replace(more, cr) if lf in value else value for value in values]
        joined = nothing.join(values)
    odd: list[tuple[int, bytes]] = []
    if lf in joined or lf in joined_ids or nothing in found:
        if is_crlf:
            return None
        signs = (*(map(contains, part, repeat(lf)) for part in (values, ids)), map(not_, found))
        places = sorted({place for sign in signs for place in compress(count(), sign)})
        if len(places) > (1 - USUAL_BLOCKS) * len(values):
            return None
        for place in places:
            before = head_ + ids[place] + found[place] if ids else head_
            value = values[place].replace(cr, more) if is_folded else values[place]
            block = before + value + blank_
            odd.append((place, block.encode() if is_ascii else block))
    if is_folded:
        values = [value.replace(cr, lf) for value in values]
    if not is_ascii:
        values = [value.decode("utf-8", "replace") for value in values]
        ids = [value.decode("utf-8", "replace") for value in ids]
    return values, ids, odd
