"""The targets: each takes any bytes, and raises if the package does wrong with them.

Right is what something else says that was written apart: `tests/reference_parser.py`,
`tests/plain_parser.py`, `http.client` with urllib3, or a few lines here; and the
same result however the bytes were cut into reads.
"""

from __future__ import annotations

import http.client
import importlib
import math
import re
import zlib
from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple

import h11
import requests
import urllib3

from eventsource.errors import (
    BrokenBody,
    EventTimeout,
    EventTooLarge,
    HeadTooLarge,
    StreamEnded,
    UnexpectedStatus,
)
from eventsource.http.body import READ_SIZE
from eventsource.http.exchange import Exchange
from eventsource.http.options import check_url
from eventsource.http.request import RequestTemplate
from eventsource.protocol.events import Comment, ErrorEvent, MessageEvent, OpenEvent, ReadyState
from eventsource.protocol.framing import ChunkedBody, SizedBody
from eventsource.protocol.parser import BlockParser, EventStreamParser, aparse, parse
from eventsource.protocol.policy import ReconnectPolicy, parse_retry_after
from eventsource.protocol.session import Item, Phase, Session
from eventsource.stream import EventStream
from eventsource.urls import origin_of, redact, redact_strictly, redact_text
from tests.plain_parser import PlainBlockParser, PlainParser, story
from tests.reference_parser import reference

from .wire import ALL_AT_ONCE, Input, Wire, connections, cut


def _optional(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


brotli: Final = _optional("brotli")
zstd: Final = _optional("compression.zstd") or _optional("backports.zstd")

MOST: Final = 4096
"""Bytes of an input that are used."""
SHORT: Final = 40
"""Bytes of a stream that is cut in two at each place."""


def check(condition: object, *what: object) -> None:
    """Raise unless the condition holds; `assert` can be switched off."""
    if not condition:
        raise AssertionError(*what)


# --- The parser ---


def parser(data: bytes) -> None:
    """A stream: the reference parser's events, whatever the chunks and the limit.

    And after each chunk, all that the parser without fast paths says.
    """
    source = Input(data)
    way, sizes = source.byte(), source.sizes()
    stream = source.rest(MOST // 8)
    events, last_id, time, items = reference(stream, "41")
    chunks = cut(stream, sizes)
    kind = BlockParser if way & 1 else EventStreamParser
    _check_own_fields(chunks, stream)
    for parts in (chunks, [stream], *_halves(stream)):
        for comments, expected in ((False, events), (True, items)):
            parser = kind(last_event_id="41")
            feed = parser.feed_with_comments if comments else parser.feed
            got = [_plain(item) for part in parts for item in feed(part)]
            check(got == expected, kind, comments, got, expected)
            check(parser.last_event_id == last_id)
            check(_same_time(parser.reconnection_time, time))
            check(parser.error is None)
    largest = _largest(stream)
    limit = (way, largest, max(largest - 1, 0))[way % 3]
    lines, too_large = _lines_up_to(stream, limit)
    check(too_large == (largest > limit))
    passed = reference(lines, "41") if too_large else (events, last_id, time, items)
    for parts, comments in ((chunks, True), ([stream], False), (cut(stream, [1]), False)):
        got, failed = _limited(parts, limit, comments=comments)
        check(got == passed[3 if comments else 0], "limit", limit, got, passed)
        check(failed == too_large, "limit", limit, failed)
    _check_parse(chunks, limit, passed[0], failed=too_large)
    for parts in (chunks, [stream * 3, "7", stream]):
        _check_each_chunk(parts, way, limit)


def _check_each_chunk(parts: list[Any], way: int, limit: int) -> None:
    """The same from each chunk as line by line; a text among the chunks is resumed from."""
    kind, plain = (BlockParser, PlainBlockParser) if way & 1 else (EventStreamParser, PlainParser)
    for size in (limit, 2**20):
        options = {"last_event_id": "41", "resume_id": "r", "max_event_size": size}
        got, expected = (
            story(made(**options), parts, comments=bool(way & 2), look=way * 0x101)
            for made in (kind, plain)
        )
        check(got == expected, kind, parts, got, expected)


def _check_own_fields(chunks: list[bytes], stream: bytes) -> None:
    """The drop-in's messages have the `id` and `retry` of their block, whatever the chunks."""
    stories = []
    for parts in (chunks, cut(stream, [1]), *_halves(stream)):
        parser = BlockParser()
        blocks = [event for part in parts for event in parser.feed(part)]
        stories.append([(block.id, block.retry) for block in blocks])  # type: ignore[attr-defined]
    check(all(story == stories[0] for story in stories), *stories)


def _halves(stream: bytes) -> list[tuple[bytes, bytes]]:
    """A short stream cut in two, at each place: to find that, coverage is no guide."""
    places = range(1, len(stream) if len(stream) <= SHORT else 0)
    return [(stream[:place], stream[place:]) for place in places]


def _plain(item: MessageEvent | Comment) -> tuple[str, ...]:
    if type(item) is Comment:
        return (item.text,)
    check(isinstance(item, MessageEvent))
    return (item.type, item.data, item.last_event_id)


def _same_time(one: float | None, other: float | None) -> bool:
    if one is None or other is None:
        return one is other
    return one == other or math.isclose(one, other)  # above 2**53 ms floats are rounded


def _lines_and_sizes(stream: bytes) -> list[tuple[bytes, int]]:
    """Each line, and the size of the event up to it; the last line is unfinished."""
    if len(stream) < 3 and b"\xef\xbb\xbf".startswith(stream):
        return [(b"", 0)]  # it may become a byte order mark
    found = []
    kept = 0
    for line in re.split(b"\r\n|\r|\n", stream.removeprefix(b"\xef\xbb\xbf")):
        found.append((line, kept + len(line)))
        name, _, value = line.partition(b":")
        if not line:
            kept = 0
        elif name in (b"data", b"event") or (name == b"id" and b"\0" not in value):
            kept += len(line)
    return found


def _largest(stream: bytes) -> int:
    return max(size for _, size in _lines_and_sizes(stream))


def _lines_up_to(stream: bytes, limit: int) -> tuple[bytes, bool]:
    """The lines before the first that makes an event too large; whether there is one."""
    good = b"\xef\xbb\xbf"  # which is taken away again
    lines = _lines_and_sizes(stream)
    for line, size in lines[:-1]:
        if size > limit:
            return good, True
        good += line + b"\n"
    return good, lines[-1][1] > limit


def _limited(
    parts: Iterable[bytes], limit: int, *, comments: bool
) -> tuple[list[tuple[str, ...]], bool]:
    parser = EventStreamParser(last_event_id="41", max_event_size=limit)
    feed = parser.feed_with_comments if comments else parser.feed
    got: list[tuple[str, ...]] = []
    try:
        for part in parts:
            got += [_plain(item) for item in feed(part)]
    except EventTooLarge as error:
        check(error is parser.error and error.size > error.limit == limit)
    return got, parser.error is not None


def _check_parse(chunks: list[bytes], limit: int, expected: list[Any], *, failed: bool) -> None:
    async def later() -> Any:
        for chunk in chunks:
            yield chunk

    async def asynchronously() -> None:
        async for event in aparse(later(), last_event_id="41", max_event_size=limit):
            got.append(event)  # noqa: PERF401 - what came before an error counts

    def at_once() -> None:
        got.extend(parse(chunks, last_event_id="41", max_event_size=limit))

    def driven() -> None:
        try:
            asynchronously().send(None)
        except StopIteration:
            pass

    for run in (at_once, driven):
        got: list[MessageEvent] = []
        try:
            run()
        except EventTooLarge:
            check(failed)
        else:
            check(not failed)
        if run is driven or not failed:
            check([_plain(event) for event in got] == expected)


# --- The framing of a body ---

LAST: Final = b"HTTP/1.1 200 OK\r\n"


def framing(data: bytes) -> None:
    """A body, in chunks or with a length: what `http.client` and h11 make of the same bytes."""
    source = Input(data)
    way, arrival = source.byte(), source.sizes()
    length = source.byte() if way & 1 else None
    wire = source.rest(MOST)
    field = b"Transfer-Encoding: chunked" if length is None else b"Content-Length: %d" % length
    head = LAST + field + b"\r\n\r\n"
    whole = _unframed(length, [wire] if wire else [])
    for pieces in (cut(wire, arrival), cut(wire, [1]), *_halves(wire)):
        check(_unframed(length, pieces) == whole, pieces, whole)
    body, error = whole
    theirs, complete = _by_http_client(Plain(Wire([head + wire])))  # type: ignore[arg-type]
    if error is None:
        check(complete and body == theirs, body, theirs)
    else:
        check(theirs.startswith(body), body, theirs, error)
        check(length is None or not complete, error)
    strict, strictly_complete = _by_h11(head + wire)
    if strictly_complete:
        check((body, error) == (strict, None), whole, strict)
    else:
        check(body.startswith(strict), whole, strict)


def _unframed(length: int | None, pieces: Iterable[bytes]) -> tuple[bytes, str | None]:
    """The body out of these reads; the text of the error, None if it is complete."""
    body = ChunkedBody() if length is None else SizedBody(length)
    found = b""
    for piece in pieces:
        if body.is_over:
            break
        found += body.feed(piece)
    if not body.is_over:
        body.end()
    check(body.is_over)
    check(body.error is None or isinstance(body.error, BrokenBody))
    return found, body.error and str(body.error)


def _by_http_client(answer: http.client.HTTPResponse) -> tuple[bytes, bool]:
    """The body, and whether it is complete; `answer` may have read its head."""
    found = b""
    try:
        if answer.headers is None:
            answer.begin()
        while part := answer.read1(READ_SIZE):
            found += part
    except (*KNOWN, MemoryError, OverflowError):  # it makes room for what is only announced
        return found, False
    # It does not tell the end of a body by length from the end of the connection.
    return found, not answer.length


def _by_h11(wire: bytes) -> tuple[bytes, bool]:
    connection = h11.Connection(h11.CLIENT)
    connection.send(h11.Request(method="GET", target="/", headers=[("Host", "h")]))
    connection.send(h11.EndOfMessage())
    connection.receive_data(wire)
    connection.receive_data(b"")
    found = b""
    try:
        while not isinstance(event := connection.next_event(), h11.EndOfMessage):
            if isinstance(event, h11.Data):
                found += event.data
    except h11.RemoteProtocolError:
        return found, False
    return found, True


# --- The life of a stream ---


def session(data: bytes) -> None:
    """A history: what happens to a stream, in any order."""
    source = Input(data[:MOST])
    life = _Life(source)
    happenings = (
        *(life.begin, life.open, life.receive, life.receive, life.lose, life.lose),
        *(life.yield_some, life.wait, life.resume_from, life.set_reconnection_time),
        *(life.restart, life.abandon, life.close),
    )
    for _ in range(300):
        if not source:
            break
        happenings[source.byte() % len(happenings)]()
        life.check()


class _Life:
    """A session, driven as a stream drives it, and beside it what must be so.

    Attributes:
        session: what is looked at.
    """

    def __init__(self, source: Input) -> None:
        self.source = source
        way = source.byte()
        self.policy = None
        if way & 1:
            self.policy = ReconnectPolicy(
                delay=(0, 0.5, 3.0, 500.0)[way >> 4 & 3],
                max_delay=(0.1, 60.0)[way >> 6 & 1],
                max_attempts=4 if way & 128 else None,
                statuses={503},
            )
        self.event_timeout = 10.0 if way & 2 else None
        self.limit = 40 if way & 4 else 2**20
        self.comments = bool(way & 8)
        self.session = Session(
            last_event_id="0",
            policy=self.policy,
            event_timeout=self.event_timeout,
            max_event_size=self.limit,
            comments=self.comments,
        )
        self.now = 1000.0
        self.kept: list[Any] = []  # what has not been yielded
        self.last_id = self.sent_id = "0"
        self.time = self.policy.delay if self.policy else 3.0
        self.failures = 0
        self.is_closed = self.is_over = False
        self.is_dropped = False  # and the reader does not know yet
        self.under_way = False
        self.opened_at: float | None = None
        self.silence = 0.0
        self.due = 0.0
        self.start()

    def start(self) -> None:
        """A body begins."""
        self.body = self.since_set = b""
        self.id_then = self.last_id
        self.has_event = False
        self.parser = EventStreamParser(
            last_event_id=self.last_id, resume_id=self.sent_id, max_event_size=self.limit
        )

    def number(self) -> float:
        """Return a number from 0 to 1."""
        return self.source.byte() / 255

    # What the reader does, when all that was kept has been yielded:

    def begin(self) -> None:
        """The attempt is made when it is due."""
        self.yield_all()
        wait = self.session.wait(self.now)
        if self.is_over or self.under_way:
            check(wait == 0.0, wait)
        else:
            check(math.isclose(wait, max(self.due - self.now, 0.0), abs_tol=1e-6), wait, self.due)
            self.now += wait
        begun = self.session.begin()
        check(begun == (not self.is_over and not self.under_way))
        if begun:
            self.under_way, self.is_dropped, self.opened_at = True, False, None
            self.silence = 0.0
            self.start()

    def open(self) -> None:
        """The head of the response has come."""
        if not self.under_way or self.opened_at is not None:
            return
        self.yield_all()
        waited = self.pass_time()
        opened = self.session.opened(OpenEvent("open", "http://h/", 200, {}), "http://h", self.now)
        check(opened == (not self.is_over and not self.is_dropped))
        if opened:
            self.silence += waited
            self.opened_at = self.now
            self.start()
            self.kept = ["open"]

    def receive(self) -> None:
        """Some of the body has come."""
        if self.opened_at is None or not self.under_way or self.parser.error is not None:
            return
        self.yield_all()
        waited = self.pass_time()
        chunk = self.source.take(self.source.byte() % 64 + 1)
        if not chunk:
            return
        feed = self.parser.feed_with_comments if self.comments else self.parser.feed
        items = error = None
        try:
            items = [_plain(item) for item in feed(chunk)]
        except EventTooLarge as raised:
            error = raised
        try:
            self.session.received(chunk, self.now)
        except EventTooLarge:
            check(error is not None)
            self.lose_to(self.session.parse_error)
            return
        check(error is None)
        assert items is not None
        self.body += chunk
        self.since_set += chunk
        self.last_id = self.parser.last_event_id
        self.sent_id = self.parser.resume_id
        check(NOT_SENT.search(self.sent_id) is None, self.sent_id)
        check(self.sent_id == self.last_id or NOT_SENT.search(self.last_id), self.sent_id)
        time = self.parser.reconnection_time
        if time is not None:
            self.time = min(max(time, 0.02), 3600.0)
        if self.parser.error is None:
            check(self.last_id == reference(self.since_set, self.id_then)[1])
            # None: the program has set another.
            check(time is None or _same_time(time, reference(self.body)[2]))
        is_event = any(len(item) > 1 for item in items)
        self.has_event |= is_event
        self.silence = 0.0 if is_event else self.silence + waited
        self.kept = [] if self.is_closed else list(items)
        if self.session.parse_error is not None:
            self.check()
            self.yield_all()
            self.lose_to(self.session.parse_error)

    def pass_time(self) -> float:
        """The reader waits for bytes, as long as it may."""
        left = self.session.time_left(self.now)
        if self.event_timeout is None:
            check(left is None)
            left = math.inf
        else:
            check(left is not None)
            assert left is not None
            check(math.isclose(left, self.event_timeout - self.silence, abs_tol=1e-6), left)
        seconds = max(min(self.source.byte() / 16, left), 0.0)
        self.now += seconds
        return seconds

    def lose(self) -> None:
        """The exchange fails."""
        errors = (
            *(StreamEnded("end"), EventTimeout("silence"), requests.ConnectionError("refused")),
            *(HeadTooLarge(2, 1), UnexpectedStatus(_answer(503)), UnexpectedStatus(_answer(204))),
            BrokenBody("cut"),
        )
        self.lose_to(errors[self.source.byte() % len(errors)])

    def lose_to(self, error: Exception | None) -> None:
        """Likewise, with this error."""
        assert error is not None
        if not self.under_way:
            return
        self.yield_all()
        retry_after = (None, None, 0.0, 7.0, 10.0**6)[self.source.byte() % 5]
        random = self.number()
        lost = self.session.lost(error, self.now, random=random, retry_after=retry_after)
        was_dropped, self.under_way = self.is_dropped, False
        self.is_dropped = False
        if self.is_over or was_dropped:
            check(lost is None, lost)
            self.failures, self.due = 0, self.now
            return
        assert lost is not None
        self.failures = 0 if self.is_success() else self.failures + 1
        policy = self.policy
        is_final = (
            policy is None
            or isinstance(error, HeadTooLarge | EventTooLarge)
            or (isinstance(error, UnexpectedStatus) and error.status == 204)
            or (policy.max_attempts is not None and self.failures >= policy.max_attempts)
        )
        check(type(lost.error) is type(error))
        check((lost.retry_in is None) == is_final, lost)
        self.kept = [type(error).__name__]
        if lost.retry_in is None:
            check(lost.ready_state is ReadyState.CLOSED)
            check(self.session.error is lost.error)
            self.is_over = True
            return
        assert policy is not None
        check(lost.ready_state is ReadyState.CONNECTING)
        first = max(self.time, 0.02)
        grown = first * 2.0 ** (self.failures - 1) if self.failures else 0.0
        least = max(first, min(grown, policy.max_delay), min(retry_after or 0.0, 3600.0))
        most = least * (1 + policy.jitter) + 1e-6
        check(least - 1e-6 <= lost.retry_in <= most, least, lost.retry_in, most)
        self.due = self.now + lost.retry_in

    def is_success(self) -> bool:
        """Whether the connection counts as one that worked."""
        return self.opened_at is not None and (self.has_event or self.now - self.opened_at >= 1.0)

    def abandon(self) -> None:
        """The reader was interrupted."""
        self.session.abandon(self.now)
        if self.under_way and self.is_success():
            self.failures = 0
        self.under_way = self.is_dropped = False

    # What the program does, at any time:

    def yield_some(self) -> None:
        """Some of what is kept is yielded."""
        for _, item in zip(range(self.source.byte() % 4), self.session.kept.rest, strict=False):
            check(_told(item) == self.kept.pop(0), item)

    def yield_all(self) -> None:
        """All that is kept is yielded."""
        check([_told(item) for item in self.session.take()] == self.kept, self.kept)
        self.kept = []

    def wait(self) -> None:
        """Time passes."""
        self.now += self.source.byte() * 2

    def resume_from(self) -> None:
        """The program sets the last event ID, between two blocks."""
        if self.body and not re.sub(b"\r\n?", b"\n", self.body).endswith(b"\n\n"):
            return  # else it would take the place of an id in the block that has begun
        last_id = str(self.source.byte())
        self.session.resume_from(last_id)
        self.parser.resume_from(last_id)
        self.last_id = self.id_then = last_id
        self.sent_id = self.parser.resume_id
        self.since_set = b"\n" if self.body else b""  # a byte order mark stands at the start only

    def set_reconnection_time(self) -> None:
        """The program sets the reconnection time."""
        self.time = self.source.byte() / 8
        self.session.set_reconnection_time(self.time)
        self.parser.reconnection_time = None

    def restart(self) -> None:
        """The program wants another connection."""
        restarted = self.session.restart()
        wanted = self.under_way and not self.is_over and not self.is_dropped
        check(restarted == wanted)
        self.is_dropped |= wanted
        if not self.under_way:
            self.due = 0.0

    def close(self) -> None:
        """The program closes the stream."""
        if self.source.byte() % 4:  # not so often
            return
        self.session.close()
        self.is_closed = self.is_over = True
        self.kept = []

    def check(self) -> None:
        """What is always so."""
        session = self.session
        check(session.is_over == self.is_over)
        check((session.phase is Phase.CLOSED) == self.is_closed)
        is_open = self.opened_at is not None and self.under_way and not self.is_dropped
        state = ReadyState.OPEN if is_open else ReadyState.CONNECTING
        check(session.ready_state is (ReadyState.CLOSED if self.is_over else state))
        check(session.has_items() == bool(self.kept), self.kept)
        check(session.resume_id == self.sent_id, session.resume_id, self.sent_id)
        check(_same_time(session.reconnection_time, self.time), self.time)


def _told(item: Item) -> Any:
    if isinstance(item, OpenEvent):
        return "open"
    return type(item.error).__name__ if isinstance(item, ErrorEvent) else _plain(item)


def _answer(status: int) -> requests.Response:
    answer = requests.Response()
    answer.status_code, answer.url = status, "http://h/"
    return answer


# --- The response ---

KNOWN: Final = (http.client.HTTPException, OSError, ValueError)
"""What `http.client` raises, and urllib3 makes its own errors of."""
REDIRECTS: Final = (301, 302, 303, 307, 308)
PLAIN_LENGTH: Final = re.compile(r"[0-9]{1,4300}", re.ASCII)
"""Of as many digits as Python makes an int of."""


class Plain(http.client.HTTPResponse):
    """`http.client`'s, that says whether its head was cut off: a failure, with ours.

    And that does not count the space after a field's value to it; and that goes on to the answer
    after an interim response.
    """

    cut_off = False
    headers: Any

    def begin(self) -> None:
        """Read the head."""
        fp = self.fp
        head = _Head(fp)
        self.fp = head  # type: ignore[assignment]
        try:
            super().begin()
            while 102 <= self.status <= 199:
                self.headers = None
                super().begin()
        finally:
            self.cut_off = head.cut_off
            if self.fp is head:  # type: ignore[comparison-overlap]
                self.fp = fp


class _Head:
    def __init__(self, fp: Any) -> None:
        self._fp = fp
        self.cut_off = False

    def readline(self, limit: int) -> bytes:
        line: bytes = self._fp.readline(limit)
        self.cut_off |= not line.endswith(b"\n") and len(line) < limit
        end = next((end for end in (b"\r\n", b"\n") if line.endswith(end)), b"")
        text = line.removesuffix(end)
        return (text.rstrip(b" \t") or text) + end if end else line

    def close(self) -> None:
        self._fp.close()


class _Answer(NamedTuple):
    """A response as a reader of it finds it."""

    head: tuple[Any, ...] | None
    """None: there is none; `error` says why."""
    body: bytes
    error: type[Exception] | None
    """None: the body is complete."""


def response(data: bytes) -> None:
    """A response: head, body and end as with `http.client` and urllib3; errors are requests'."""
    source = Input(data)
    flags = source.byte()
    arrivals = source.sizes(), source.sizes()
    wire = source.rest(MOST)
    reset, method = bool(flags & 1), "HEAD" if flags & 2 else "GET"
    ours, other = (
        _through_exchange(cut(wire, arrival), reset=reset, method=method) for arrival in arrivals
    )
    plain, answer = _through_urllib3(wire, reset=reset, method=method)
    if ours is None or other is None:  # redirected
        check(ours is other and answer is not None and answer.status in REDIRECTS)
        return
    check(ours.head == other.head, ours, other)
    if answer is not None and answer.status in REDIRECTS and "Location" in answer.headers:
        return  # perhaps to what cannot be fetched
    if answer is None or ours.head is None:
        check(ours.error is not None and ours == other, ours, other)
        check(plain.head is None or _has_odd_chunks(answer), ours, plain)
        if ours.error is HeadTooLarge:
            check(plain.error in (http.client.HTTPException, http.client.LineTooLong), plain)
        return
    check(plain.head == ours.head, ours, plain)
    if method == "HEAD" or answer.status < 200 or answer.status in (204, 304):
        check((ours.body, ours.error) == (b"", None), ours)  # also if it says that it is chunked
    elif not _framing_may_differ(answer):
        _compare_bodies(ours, other, plain, answer)


def _compare_bodies(ours: _Answer, other: _Answer, plain: _Answer, answer: Any) -> None:
    listed = ",".join(answer.headers.get_all("Content-Encoding", [])).lower().split(",")
    coding = ",".join(filter(_is_coding, (name.strip(" \t") for name in listed)))
    if not coding:
        check(ours == other, ours, other)
        if ours.error is None:
            check((ours.body, None) == (plain.body, plain.error), ours, plain)
        else:  # ours is stricter about chunks: see `framing`
            check(plain.body.startswith(ours.body), ours, plain)
            check(plain.error is not None or answer.chunked, ours, plain)
        return
    decoded, is_broken = _decoded(coding, plain.body)
    for one in (ours, other):
        check(decoded.startswith(one.body), one, decoded)
        if one.error is None:
            check(plain.error is None and not is_broken, one, plain)
            check(one.body == decoded, one, decoded)
        elif plain.error is None and is_broken is False:
            check(answer.chunked, one, plain)
    if is_broken and ours.error is not None and not answer.chunked:
        check(issubclass(ours.error, requests.exceptions.ContentDecodingError), ours)


def _is_coding(name: str) -> bool:
    return name in ("gzip", "x-gzip", "deflate", "br", "zstd")


def _decoded(coding: str, data: bytes) -> tuple[bytes, bool | None]:
    """What a body stands for, and whether something in it is wrong; None: it depends on the cuts.

    So it does for zstd, which looks whether a frame has the size that it says only where it has
    the frame whole. What stands before a flaw may be lost, as zlib has it.
    """
    if len(data) < (2 if coding == "deflate" else 1):
        return b"", False
    at_once, is_broken = _fed(coding, [data])
    in_bytes, is_broken_in_bytes = _fed(coding, [bytes([byte]) for byte in data])
    return (
        max(at_once, in_bytes, key=len),
        is_broken if is_broken == is_broken_in_bytes else None,
    )


def _fed(coding: str, pieces: list[bytes]) -> tuple[bytes, bool]:
    found = b""
    member: Any = None
    start = b"".join(pieces)[:2]
    try:
        for piece in pieces:
            rest = piece
            while rest:
                member = member or _member(coding, start)
                if coding == "br":
                    while part := member.process(rest):  # it stops at the end of its buffer
                        found += part
                        rest = b""
                    break
                found += member.decompress(rest)
                rest = member.unused_data if member.eof and coding != "deflate" else b""
                member = None if member.eof and coding != "deflate" else member
    except Exception:  # each library has an error of its own
        return found, True
    return found, False


def _member(coding: str, start: bytes) -> Any:
    if coding in ("gzip", "x-gzip"):
        return zlib.decompressobj(31)
    if coding == "deflate":
        is_zlib = start[0] % 16 == 8 and int.from_bytes(start) % 31 == 0
        return zlib.decompressobj(15 if is_zlib else -15)
    if coding == "br" and brotli is not None:
        return brotli.Decompressor()
    if coding == "zstd" and zstd is not None:
        # RFC 9659, 3: a window of 8 MiB.
        return zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: 23})
    raise ValueError("refused, or not installed")


def _fields(headers: Any) -> list[tuple[str, str]]:
    """But for cookies: ours leaves out those that the standard library's jar fails at."""
    return [(name, value) for name, value in headers.items() if name.lower()[:10] != "set-cookie"]


def _through_exchange(pieces: list[bytes], *, reset: bool, method: str) -> _Answer | None:
    """What an exchange gives; None after a redirect."""
    with connections([Wire(pieces, reset=reset), Wire([b"HTTP/1.1 200 OK\r\n\r\nx"])]) as made:
        seen: list[tuple[int, list[tuple[str, str]]]] = []  # of each head

        def see(response: requests.Response, **_: Any) -> None:
            seen.append((response.raw.version, _fields(response.raw.headers)))

        options = {"hooks": {"response": see}}
        exchange = Exchange(RequestTemplate("http://host/", method=method, options=options))
        body = b""
        error: type[Exception] | None = None
        try:
            try:
                answer = exchange.open("")
            except requests.RequestException as failure:
                return None if len(made) > 1 else _Answer(None, b"", type(failure))
            version, fields = seen[-1]
            head = (version, answer.status_code, answer.reason, fields)
            try:
                while part := exchange.read():
                    check(len(part) <= READ_SIZE)
                    body += part
            except requests.RequestException as failure:
                error = type(failure)
            for _ in range(2):  # reading on neither hangs nor raises anything else
                try:
                    exchange.read()
                except requests.RequestException:
                    pass
        finally:
            exchange.abort()
        if len(made) > 1 or answer.is_redirect:
            return None
        return _Answer(head, body, error)


def _through_urllib3(wire: bytes, *, reset: bool, method: str) -> tuple[_Answer, Any]:
    """What urllib3 gives by itself, undecoded; and what `http.client` made, if anything."""
    connection = urllib3.connection.HTTPConnection("host")
    connection.sock = Wire([wire] if wire else [], reset=reset)  # type: ignore[assignment]
    made: list[Plain] = []

    def make(*args: Any, **options: Any) -> Plain:
        made.append(Plain(*args, **options))
        return made[0]

    connection.response_class = make  # type: ignore[assignment]
    connection.request(method, "/", preload_content=False)
    try:
        answer = connection.getresponse()
    except Exception as failure:  # it is compared
        return _Answer(None, b"", type(failure)), None
    (original,) = made
    if original.cut_off:
        return _Answer(None, b"", EOFError), None
    head = (answer.version, answer.status, answer.reason, _fields(answer.headers))
    body, complete = _by_http_client(original)
    return _Answer(head, body, None if complete else EOFError), original


def _has_odd_chunks(answer: http.client.HTTPResponse | None) -> bool:
    """Whether it is in chunks that have a coding of their own, or is said to be: ours refuses."""
    codings = ", ".join(answer.headers.get_all("Transfer-Encoding", [])) if answer else ""
    return "chunked" in codings.lower() and codings.strip(" \t").lower() != "chunked"


def _framing_may_differ(answer: http.client.HTTPResponse) -> bool:
    """Whether `http.client` takes a field by its letter, or by the rules of int().

    To it `chunked` with space around it, which a bare CR after it leaves there, is another
    coding; `+3` and `1_0` are lengths; of two lengths the first counts. To ours any space around
    a value is none. A length that stands there twice is one to both (RFC 9112, 6.3).
    """
    codings = ", ".join(answer.headers.get_all("Transfer-Encoding", [])).lower()
    lengths = [length.strip(" \t") for length in answer.headers.get_all("Content-Length", [])]
    return (
        codings.strip() == "chunked" != codings
        or len(set(lengths)) > 1
        or not all(map(PLAIN_LENGTH.fullmatch, lengths))
    )


# --- From the bytes on the wire to the events ---

NOT_SENT: Final = re.compile("[\x00-\x08\x0a-\x1f\x7f]")
"""What no header field can carry, in ids that are short."""

NEXT_CONNECTION: Final = b"\n%%\n"
TYPE: Final = "text/event-stream"


def stream(data: bytes) -> None:
    """Some connections' bytes: the reference's events, whatever the reads."""
    source = Input(data)
    flags, arrival = source.byte(), source.sizes()
    parts = source.rest(MOST).split(NEXT_CONNECTION)[:4]
    reset, comments = bool(flags & 1), bool(flags & 2)
    limit = 64 if flags & 4 else 2**20
    one, hidden = _events(parts, arrival, reset=reset, comments=comments, limit=limit)
    other, _ = _events(parts, ALL_AT_ONCE, reset=reset, comments=comments, limit=limit)
    if hidden:
        return
    check(one == other, one, other)
    if limit < MOST or any(b"\n" not in part or part.count(b"HTTP/") != 1 for part in parts):
        return
    expected = []
    last_id = ""
    for part in parts:
        body = _plain_body(part, reset=reset)
        if body is None:
            return
        events, last_id, _, items = reference(body, last_id)
        expected += items if comments else events
    got = [item for item in one if isinstance(item, tuple)]
    check(got == expected, got, expected)


def _events(
    parts: list[bytes], arrival: list[int], *, reset: bool, comments: bool, limit: int
) -> tuple[list[Any], bool]:
    """What happens, in order; whether it may depend on the reads."""
    found: list[Any] = []
    hidden = False
    with connections([Wire(cut(part, arrival), reset=reset) for part in parts]) as made:
        source = EventStream(
            "http://host/",
            reconnect=ReconnectPolicy(delay=0, statuses=frozenset({429, 503})),
            max_event_size=limit,
            comments=comments,
        )
        with source:
            while items := source.take():
                for item in items:
                    if isinstance(item, MessageEvent | Comment):
                        found.append(_plain(item))
                        _check_text(*found[-1])
                    elif isinstance(item, OpenEvent):
                        found.append(f"open {item.status}")
                        hidden |= "Content-Encoding" in item.headers
                    else:
                        check(isinstance(item, ErrorEvent))
                        check(isinstance(item.error, requests.RequestException), repr(item.error))
                        wait = item.retry_in
                        check(wait is None or 0.02 <= wait <= 3600 * 1.1, wait)
                        found.append(type(item.error).__name__)
                if isinstance(items[-1], ErrorEvent):
                    if len(made) == len(parts):
                        break
                    source.restart()  # so that nothing waits here
    for _, wire in made:
        _check_request(wire.sent)
    return found, hidden


def _check_text(*texts: str) -> None:
    for text in texts:
        text.encode()  # no lone surrogates


def _check_request(sent: bytes) -> None:
    """Nothing that a server said has made a header field."""
    head, _, rest = sent.partition(b"\r\n\r\n")
    check(not rest, sent)
    first, *lines = head.split(b"\r\n")
    check(re.fullmatch(rb"GET [!-~]+ HTTP/1\.1", first), sent)
    names = [line.partition(b":")[0].lower() for line in lines]
    allowed = {b"host", b"user-agent", b"accept-encoding", b"accept", b"connection"}
    allowed |= {b"cache-control", b"last-event-id", b"cookie", b"authorization"}
    check(len(names) == len(set(names)) and set(names) <= allowed, sent)
    check(not re.search(rb"[\r\n\0]", b"".join(lines)), sent)


def _plain_body(part: bytes, *, reset: bool) -> bytes | None:
    """The body of an event stream, by `http.client`; None if it is none, or is odd."""
    answer = Plain(Wire([part], reset=reset))  # type: ignore[arg-type]
    try:
        answer.begin()
    except KNOWN:
        return None
    content_types = answer.headers.get_all("Content-Type", [])
    if (
        answer.status != 200
        or answer.cut_off
        or len(content_types) != 1
        or not re.fullmatch(rf"\s*{TYPE}\s*(;[^,\"]*)?", content_types[0], re.IGNORECASE)
        or len(answer.headers.get_all("Content-Length", [])) > 1  # urllib3 wants one
        or _framing_may_differ(answer)
        or _has_odd_chunks(answer)
    ):
        return None
    chunked = answer.chunked
    body, _ = _by_http_client(answer)
    if chunked:  # which ours is stricter about: see `framing`
        wire = re.split(rb"\r?\n\r?\n", part, maxsplit=1)[1]
        return body if _unframed(None, [wire])[0] == body else None
    return body


# --- Text: URLs and header fields ---

SECRET: Final = "S_CRET"  # noqa: S105 - made up
"""With a character that no scheme has."""


def text(data: bytes) -> None:
    """URLs and header fields: no exception but those that are promised, and no secret shown."""
    source = Input(data)
    way = source.byte()
    raw = source.rest(1024)
    text = raw.decode("utf-8", "surrogateescape" if way & 1 else "replace")
    _check_retry_after(text)
    _check_urls(text)
    _check_redirect(raw, way)


def _check_retry_after(text: str) -> None:
    seconds = parse_retry_after(text, now=784_111_777.0)
    check(seconds is None or seconds >= 0, seconds)
    wait = ReconnectPolicy().next_delay(3.0, 1, random=1.0, retry_after=seconds)
    check(3.0 <= wait <= 3600 * 1.1 + 0.1, wait)


def _check_urls(text: str) -> None:
    redact_text(text)
    redact(text)
    before, _, after = text.partition("|")
    for url in (
        f"http://{before}{SECRET}{after}@host/",
        f"{before}?{SECRET}{after}",
        f"{before}#{SECRET}{after}",
        f"http://{before}/{SECRET}@{after}",
    ):
        check(SECRET not in redact_strictly(url), url)
        try:
            check_url(url)
        except ValueError as error:
            check(SECRET not in str(error) and SECRET not in repr(error), url)
            check(isinstance(error, requests.RequestException))
        else:
            if not url.endswith("@" + after) and not re.search(r"[\\/?#]", before + after):
                check(SECRET not in redact(url), url)
    try:
        origin = origin_of(text)
    except ValueError:
        pass
    else:
        check("@" not in origin and "?" not in origin, origin)


def _check_redirect(raw: bytes, way: int) -> None:
    """Whatever `Location` says: what was for one origin does not go to another."""
    status = (301, 302, 303, 307, 308)[way % 5]
    raw = re.split(rb"[\r\n]", raw, maxsplit=1)[0]  # the rest would be another field
    head = b"HTTP/1.1 %d Found\r\nLocation: " % status + raw.replace(b"|", b"S_CRET") + b"\r\n\r\n"
    again = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
    secrets = {"Authorization": f"Bearer {SECRET}", "X-Key": SECRET, "Cookie": f"a={SECRET}"}
    with connections([Wire([head]), Wire([again])]) as made:
        template = RequestTemplate("http://home:81/", options={"headers": secrets})
        exchange = Exchange(template)
        try:
            exchange.open("41")
        except requests.RequestException as error:
            if raw.rfind(b"@") > raw.rfind(b"|"):  # in what stands before a host
                check(SECRET not in str(error), error)
        finally:
            exchange.abort()
    for place, wire in made[1:]:
        if place != ("home", 81):
            sent = wire.sent.partition(b"\r\n")[2]
            for name in (b"authorization: bearer", b"x-key", b"cookie"):
                check(name not in sent.lower(), place, wire.sent)


TARGETS: Final[dict[str, Callable[[bytes], None]]] = {
    "parser": parser,
    "framing": framing,
    "session": session,
    "response": response,
    "stream": stream,
    "text": text,
}
