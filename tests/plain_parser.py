"""The parser without its fast paths, against which the property tests hold the real one.

It is the parser of before they were written, less what was fast in it: each line is
processed alone, as the standard says. Unlike `tests.reference_parser` it takes chunks
and has every attribute, so that the two can be compared after each chunk. It shares no
code with the real one but the events and the error; do not make it faster.
"""

from __future__ import annotations

import re

from eventsource.errors import EventTooLarge
from eventsource.protocol.events import Comment, MessageEvent
from eventsource.protocol.parser import MAX_EVENT_SIZE, MAX_ID_SIZE, Block
from eventsource.protocol.policy import MAX_RECONNECTION_TIME
from eventsource.protocol.runs import LONG_BLOCK

BOM = b"\xef\xbb\xbf"
CARRIAGE_RETURN = ord("\r")
CONTROL = re.compile("[\x00-\x08\x0a-\x1f\x7f]")


class PlainParser:
    """`EventStreamParser`, line by line."""

    event_class = MessageEvent

    def __init__(self, *, last_event_id="", resume_id="", origin="", max_event_size=MAX_EVENT_SIZE):
        self.last_event_id = last_event_id
        self.reconnection_time = None
        self.error = None
        self.unfinished_bytes = 0
        self.unknown_lines = 0
        self._resume_id = resume_id
        self._origin = origin
        self._max_event_size = max_event_size
        self._data = []
        self._event_type = b""
        self._last_event_id = last_event_id
        self._line = b""
        self._size = 0
        self._after_cr = False
        self._at_start = True

    def feed(self, chunk):
        return self._feed(chunk, comments=False)

    def feed_with_comments(self, chunk):
        return self._feed(chunk, comments=True)

    @property
    def resume_id(self):
        return self.last_event_id if can_be_sent(self.last_event_id) else self._resume_id

    @property
    def has_unfinished_event(self):
        return bool(self._size or (self._line and not self._line.startswith(b":")))

    def resume_from(self, last_event_id):
        self._resume_id = self.resume_id
        if self._last_event_id == self.last_event_id:
            self._last_event_id = last_event_id
        self.last_event_id = last_event_id

    def _feed(self, chunk, *, comments):
        if self.error is not None:
            raise self.error
        self._count_unfinished(chunk)
        if self._after_cr and chunk:
            self._after_cr = False
            chunk = chunk.removeprefix(b"\n")
        items = []
        self._process_lines(chunk, items, comments=comments)
        if self.error is not None and not items:
            raise self.error
        return items

    def _count_unfinished(self, chunk):
        context = b"" if self._line else b"\n"
        if self._after_cr:
            if self.unfinished_bytes:
                context = b"\r"
            else:
                chunk = chunk.removeprefix(b"\n")
        seen = context + chunk
        last = max(map(seen.rfind, (b"\n\n", b"\n\r", b"\r\r")))
        if last < 0:
            self.unfinished_bytes += len(chunk)
        else:
            rest = seen[last + 2 :]
            if seen[last + 1] == CARRIAGE_RETURN:
                rest = rest.removeprefix(b"\n")
            self.unfinished_bytes = len(rest)

    def _process_lines(self, chunk, items, *, comments):
        if chunk:
            self._after_cr = chunk.endswith(b"\r")
        lines = chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        rest = lines.pop()
        for line in lines:
            self._continue_line(line, ended=True)
            whole, self._line = self._line, b""
            self._process_line(whole, items, comments=comments)
            if self.error is not None:
                return
        self._continue_line(rest, ended=False)
        unfinished = len(self._line)
        if self._at_start and BOM.startswith(self._line):
            unfinished = 0
        if self._size + unfinished > self._max_event_size:
            self._fail(self._size + unfinished)

    def _continue_line(self, part, *, ended):
        self._line += part
        if self._at_start and (ended or len(self._line) >= len(BOM)):
            self._at_start = False
            self._line = self._line.removeprefix(BOM)

    def _process_line(self, line, items, *, comments):
        if self._size + len(line) > self._max_event_size:
            self._fail(self._size + len(line))
            return
        if not line:
            event = self._dispatch()
            if event is not None:
                items.append(event)
            return
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name:
            self._process_field(name, value, len(line))
        elif comments:
            items.append(Comment(value.decode("utf-8", "replace")))

    def _process_field(self, name, value, size):
        if name == b"data":
            self._data.append(value)
            self._size += size
        elif name == b"event":
            self._event_type = value
            self._size += size
        elif name == b"id":
            if b"\0" not in value:
                self._resume_id = self.resume_id
                self._last_event_id = value.decode("utf-8", "replace")
                self._size += size
        elif name == b"retry":
            if value.isdigit():
                self.reconnection_time = float(value) / 1000
        else:
            self.unknown_lines += 1

    def _dispatch(self):
        self.last_event_id = self._last_event_id
        event_type, self._event_type = self._event_type, b""
        self._size = 0
        if not self._data:
            return None
        name = event_type.decode("utf-8", "replace") if event_type else "message"
        text = b"\n".join(self._data).decode("utf-8", "replace")
        self._data = []
        return self.event_class(name, text, self.last_event_id, self._origin)

    def _fail(self, size):
        self.error = EventTooLarge(size, self._max_event_size)
        self._line = b""
        self._data = []


class PlainBlockParser(PlainParser):
    """`BlockParser`, line by line."""

    event_class = Block
    _id = None
    _retry = None

    def _process_field(self, name, value, size):
        super()._process_field(name, value, size)
        if name == b"id" and b"\0" not in value:
            self._id = value.decode("utf-8", "replace")
        elif name == b"retry" and self.reconnection_time is not None and value.isdigit():
            self._retry = round(min(self.reconnection_time, MAX_RECONNECTION_TIME) * 1000)

    def _dispatch(self):
        event = super()._dispatch()
        if event is not None:
            event.id, event.retry = self._id, self._retry
        self._id = self._retry = None
        return event


def can_be_sent(last_event_id):
    return (
        len(last_event_id.encode("utf-8", "replace")) <= MAX_ID_SIZE
        and CONTROL.search(last_event_id) is None
    )


def state(parser):
    """All that a caller can see of a parser between two chunks."""
    error = parser.error
    return {
        "last_event_id": parser.last_event_id,
        "resume_id": parser.resume_id,
        "reconnection_time": parser.reconnection_time,
        "error": error and (error.size, error.limit),
        "unfinished_bytes": parser.unfinished_bytes,
        "unknown_lines": parser.unknown_lines,
        "has_unfinished_event": parser.has_unfinished_event,
    }


def story(parser, chunks, *, comments, look):
    """What each chunk brings, and the state after it.

    Args:
        parser: which one to feed.
        chunks: in turn; a text takes the place of a chunk: it is resumed from.
        comments: whether they are wanted.
        look: after which chunks to look at the state, as bits; after all is said, always.
            To look at it may change what a lazy parser holds, and must not matter.
    """
    feed = parser.feed_with_comments if comments else parser.feed
    told = []
    for number, chunk in enumerate(chunks):
        if isinstance(chunk, str):
            parser.resume_from(chunk)
            continue
        try:
            items = feed(chunk)
        except EventTooLarge as error:
            told.append(("raised", error.size, error.limit))
        else:
            told.append([_told(item) for item in items])
        if look >> number % 16 & 1:
            told.append(state(parser))
    told.append(state(parser))
    return told


def _told(item):
    own = (item.id, item.retry) if isinstance(item, Block) else ()
    return (type(item).__name__, *item, *own)


# --- Streams in which the fast paths can go wrong ---

VALUES = [
    *[b"", b" ", b"x", b"7", b"1.25", b'{"a": [1, 2]}', b"data: x", b"a: b", b"id: 3", b"x" * 70],
    *["\u00e9".encode(), "na\u00efve \u65e5\u672c".encode(), "\U0001f642".encode()],
    *["\u2028".encode(), "\x85".encode(), "\ufeff".encode(), b"\xff", b"\xc3", b"\xe2\x82"],
    *[b"\xf0\x9f\x98", b"\x80x", b"\0", b"1\0", b"\x01", b"\x7f", b"\t"],
    *[b"\r", b"a\rb", b"\x0b\x0c\x1c", b": ", b"10"],
]
FIELDS = [
    *[b"data: ", b"data: ", b"data: ", b"data:", b"data", b"event: ", b"event:", b"id: ", b"id:"],
    *[b"retry: ", b": ", b":", b"x: ", b"", b"\xef\xbb\xbfdata: ", b"data:  "],
]
SHAPES = [
    *[[b"data: "], [b"data: ", b"data: "], [b"data: "] * 5, [b": "], [b":"], [b": ", b"data: "]],
    *[[b"event: e", b"data: "], [b"event: ", b"data: "], [b"event: e", b"data: ", b"data: "]],
    *[[b"id: ", b"data: "], [b"event: e", b"id: ", b"data: "], [b"id: ", b"event: e", b"data: "]],
    *[[b"id: ", b"event: g", b"data: "], [b"event: e", b"id: ", b"event: f", b"data: ", b"data: "]],
    *[[b"id: ", b"data: ", b"data: "], [b"data: ", b"id: "], [b"id: 7"], [b"retry: 10"], []],
    *[[b"retry: 10", b"data: "], [b"retry: 10", b"id: ", b"data: "]],
    *[[b"id: ", b"retry: 10", b"data: "], [b"event: \xc3\xa9", b"data: "]],
    *[[b"event: \xff", b"id: ", b"data: "], [b"data:"], [b"data"], [b"event: e", b": ", b"data: "]],
    *[[b"event:", b"data: "], [b"id", b"data: "], [b"data: ", b"data"]],
]


def a_stream(rng):
    """Runs of blocks of one shape, and what a server or a broken wire does to them."""
    end = rng.choice([b"\n"] * 4 + [b"\r\n"] * 3 + [b"\r"])
    parts = [b"\xef\xbb\xbf"] if rng.random() < 0.1 else []
    for _ in range(rng.choice([1, 1, 1, 2, 3, 5])):
        shape = rng.choice(SHAPES)
        if rng.random() < 0.1:
            shape = [rng.choice(FIELDS) for _ in range(rng.randrange(5))]
        plain = rng.random() < 0.6
        long = b"x" * LONG_BLOCK if rng.random() < 0.3 else b""
        for _ in range(rng.choice([1, 1, 2, 3, 8, 20])):
            lines = [
                field + rng.choice(VALUES[2:6] if plain else VALUES)
                if field[-1:] in b": "
                else field
                for field in shape
            ]
            if lines and rng.random() < 0.95:
                lines[-1] += long
            if rng.random() < 0.04:
                vary(rng, lines)
            block = b"".join(line + end for line in [*lines, b""])
            if rng.random() < 0.02:
                block = block.replace(end, b"\n", 1)
            parts += [block] * (2 if rng.random() < 0.05 else 1)
        if rng.random() < 0.2:
            parts.append(rng.choice([b"\n", b"\r", b"\r\n", b": x\n", b"x", b"data: a\n", b"\n\n"]))
        if rng.random() < 0.1:
            end = rng.choice([b"\n", b"\r\n", b"\r"])
    stream = bytearray(b"".join(parts))
    for _ in range(rng.choice([0, 0, 0, 0, 1, 3])):
        if stream:
            place = rng.randrange(len(stream))
            stream[place : place + rng.randrange(2)] = rng.choice(
                [b"\n", b"\r", b"\0", b":", b" ", b"\xff", b"", b"d", b"\n\n", b"\r\n"]
            )
    return bytes(stream)


def vary(rng, lines):
    """Make a block of nearly the same shape of it."""
    way = rng.randrange(5)
    if way == 0 or not lines:
        lines.insert(rng.randrange(len(lines) + 1), rng.choice(FIELDS))
    elif way == 1:
        del lines[rng.randrange(len(lines))]
    else:
        place = rng.randrange(len(lines))
        lines[place] = rng.choice(FIELDS) + rng.choice(VALUES)


def cut_up(rng, stream):
    """The stream in chunks, of which a few are empty; now and then a text to resume from."""
    way = rng.randrange(6)
    if way == 0:
        chunks = [stream]
    elif way == 2:  # as a careless server does
        chunks = re.split(rb"(?<=\n)", stream)
    elif way == 1:  # as servers write: by the block, or nearly
        chunks = re.split(rb"(?<=\n\n)|(?<=\r\n\r\n)", stream)
    else:
        longest = rng.choice([1, 3, 10, 40, 40, 200])
        chunks = []
        while stream:
            size = rng.randrange(longest + 1)
            chunks.append(stream[:size])
            stream = stream[size:]
    while rng.random() < 0.2:
        chunks.insert(rng.randrange(len(chunks) + 1), rng.choice(["41", "\x01", "\u00e9", ""]))
    return chunks
