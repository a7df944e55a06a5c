"""The targets: each takes any bytes, and raises if the package does wrong with them.

Right is what something else says that was written apart: `tests/reference_parser.py`,
`http.client` with urllib3, or a few lines here; and the same result however the bytes
were cut into reads.
"""

from __future__ import annotations

import http.client
import math
import re
from collections.abc import Callable, Iterable
from typing import Any, Final

import requests
import urllib3

from eventsource.errors import EventTooLarge, HeadTooLarge, describe
from eventsource.http.exchange import Transport
from eventsource.http.options import check_url
from eventsource.http.response import READ_SIZE, Response
from eventsource.protocol.events import Comment, ErrorEvent, MessageEvent, OpenEvent
from eventsource.protocol.parser import EventStreamParser, aparse, parse
from eventsource.protocol.policy import ReconnectPolicy, parse_retry_after
from eventsource.sseclient import _BlockParser
from eventsource.stream import EventStream
from eventsource.urls import origin_of, redact, redact_strictly, redact_text
from tests.reference_parser import reference

from .wire import ALL_AT_ONCE, Input, Wire, connections, cut

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
    """A stream: the reference parser's events, whatever the chunks and the limit."""
    source = Input(data)
    way, sizes = source.byte(), source.sizes()
    stream = source.rest(MOST // 8)
    events, last_id, time, items = reference(stream, "41")
    chunks = cut(stream, sizes)
    kind = _BlockParser if way & 1 else EventStreamParser
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


def _check_own_fields(chunks: list[bytes], stream: bytes) -> None:
    """The drop-in's messages have the `id` and `retry` of their block, whatever the chunks."""
    stories = []
    for parts in (chunks, cut(stream, [1]), *_halves(stream)):
        parser = _BlockParser()
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


# --- The response ---

KNOWN: Final = (http.client.HTTPException, OSError, ValueError)
"""What `http.client` raises, and urllib3 makes its own errors of."""


class Plain(http.client.HTTPResponse):
    """`http.client`'s, that says whether its head was cut off: a failure, with ours.

    And that does not count the space after a field's value to it.
    """

    cut_off = False

    def begin(self) -> None:
        """Read the head."""
        fp = self.fp
        head = _Head(fp)
        self.fp = head  # type: ignore[assignment]
        try:
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


def response(data: bytes) -> None:
    """A response: `http.client`'s head, body and end; errors are requests' alone."""
    source = Input(data)
    flags = source.byte()
    arrival, sizes = source.sizes(), source.sizes()
    wire = source.rest(MOST)
    reset, method = bool(flags & 1), "HEAD" if flags & 2 else "GET"
    pieces = cut(wire, arrival)
    if not _compare_with_http_client(pieces, sizes, reset=reset, method=method):
        return
    ours = _through_transport(pieces, reset=reset)
    if ours is not None and b"-" not in wire.partition(b"\r\n\r\n")[2]:
        theirs = _through_urllib3(pieces, reset=reset)
        check(theirs is None or ours == theirs, ours, theirs)


def _compare_with_http_client(
    pieces: list[bytes], sizes: list[int], *, reset: bool, method: str
) -> bool:
    """Raise if the stories differ; say whether ours is one that http.client knows."""
    stories = []
    for kind in (Plain, Response):
        sock = Wire(pieces, reset=reset)
        answer = kind(sock, method=method)
        story: list[Any] = []
        try:
            answer.begin()
        except KNOWN as error:
            if isinstance(answer, Plain) and answer.cut_off:
                return True
            story.append(_failure(error))
        else:
            if isinstance(answer, Plain):
                if answer.cut_off:
                    return True
                if 100 < answer.status < 200 and answer.status != 101:
                    return True  # ours goes on to the answer
            head = (answer.version, answer.status, answer.reason, _fields(answer.headers))
            story += [head, answer.chunked, answer.length, answer.will_close]
            try:
                story += _body(answer, sizes)
            except (MemoryError, OverflowError):
                if kind is Response:
                    raise
                return True  # http.client makes room for what is only announced
        finally:
            answer.close()
        stories.append(story)
    theirs, ours = stories
    if ours[0][0] is HeadTooLarge:  # which http.client has several names for
        check(issubclass(theirs[0][0], http.client.HTTPException), ours, theirs)
        return True
    if ours[0][0] is http.client.UnknownTransferEncoding:  # for which http.client has no eye
        codings = [value for name, value in theirs[0][3] if name.lower() == "transfer-encoding"]
        check(any("chunked" in value.lower() for value in codings) and not theirs[1], theirs)
        return False
    check(ours == theirs, ours, theirs)
    return True


def _fields(headers: Any) -> list[tuple[str, str]]:
    """But for cookies: ours leaves out those that the standard library's jar fails at."""
    return [(name, value) for name, value in headers.items() if name.lower()[:10] != "set-cookie"]


def _failure(error: Exception) -> tuple[Any, ...]:
    return type(error), error.args, getattr(error, "expected", None)


def _body(answer: http.client.HTTPResponse, sizes: list[int]) -> list[Any]:
    """The body up to the end or a failure, and that; and what comes to who reads on."""
    story: list[Any] = []
    turn = 0
    for _ in range(3):
        body = b""
        end = None
        try:
            while part := answer.read1(min(sizes[turn % len(sizes)] or 7, READ_SIZE)):
                check(len(part) <= READ_SIZE)
                body += part
                turn += 1
        except KNOWN as error:
            end = _failure(error)
        story.append((body, end, answer.isclosed(), answer.closed, answer.chunk_left))
    return story


def _through_transport(pieces: list[bytes], *, reset: bool) -> Any:
    """What an exchange gives; None after a redirect."""
    with connections([Wire(pieces, reset=reset), Wire([b"HTTP/1.1 200 OK\r\n\r\nx"])]) as made:
        transport = _transport("http://host/", {})
        exchange = transport.exchange()
        body = b""
        try:
            try:
                answer = exchange.open()
                head = (answer.status_code, answer.reason, _fields(answer.raw.headers))
            except requests.RequestException as error:
                return None if len(made) > 1 or error.response is not None else type(error)
            end = None
            try:
                while part := exchange.read():
                    check(len(part) <= READ_SIZE)
                    body += part
            except requests.RequestException as error:
                end = type(error)
            for _ in range(2):  # reading on neither hangs nor raises anything else
                try:
                    exchange.read()
                except requests.RequestException:
                    pass
        finally:
            exchange.abort()
        return None if len(made) > 1 or answer.is_redirect else (head, body, end)


def _through_urllib3(pieces: list[bytes], *, reset: bool) -> Any:
    """What urllib3 gives by itself; None where ours may differ."""
    connection = urllib3.connection.HTTPConnection("host")
    sock = Wire(pieces, reset=reset)
    connection.sock = sock  # type: ignore[assignment]
    connection.response_class = Plain
    connection.request("GET", "/", preload_content=False)
    body = b""
    try:
        answer = connection.getresponse()
    except Exception:  # the head has been compared
        return None
    original: Any = answer._original_response  # type: ignore[attr-defined]  # noqa: SLF001
    if (
        (100 < answer.status < 200)
        or answer.get_redirect_location()
        or answer.status in (301, 302, 303, 307, 308)
        or original.cut_off
        or _may_be_refused(original)
    ):
        return None
    coding = answer.headers.get("Content-Encoding", "").lower()
    if "," in coding or coding in ("br", "zstd"):
        return None  # ours refuses more than one coding, and what is not installed
    head = (answer.status, answer.reason, _fields(answer.headers))
    end = None
    try:
        while part := answer.read1(READ_SIZE, decode_content=True):
            body += part
            if len(body) > READ_SIZE // 2:
                return None  # more than one read: what zlib holds back, urllib3 forgets
    except (MemoryError, OverflowError):
        return None
    except Exception as error:  # it is compared
        end = type(describe(error))
    if end is not None and "Content-Encoding" in answer.headers:
        return None  # how much of a broken body can be decoded depends on the reads
    original.close()
    return head, body, end


def _may_be_refused(answer: http.client.HTTPResponse) -> bool:
    """Whether it is in chunks that have a coding of their own, or is said to be."""
    codings = ",".join(answer.headers.get_all("Transfer-Encoding", []))
    return "chunked" in codings.lower() and not answer.chunked


def _transport(url: str, headers: dict[str, str]) -> Transport:
    transport = Transport(url, options={"headers": headers})
    transport.session.trust_env = False
    return transport


# --- From the bytes on the wire to the events ---

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
        source._transport.session.trust_env = False  # noqa: SLF001
        with source:
            while items := source.take():
                source._due = 0.0  # noqa: SLF001 - nothing waits here
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
                if isinstance(items[-1], ErrorEvent) and len(made) == len(parts):
                    break
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
        content_type = (answer.headers.get("Content-Type") or "").partition(";")[0]
        if (
            answer.status != 200
            or answer.cut_off
            or content_type.strip().lower() != TYPE
            or len(answer.headers.get_all("Content-Type")) > 1
            or len(answer.headers.get_all("Content-Length", [])) > 1  # urllib3 wants one
            or _may_be_refused(answer)
            or b"-" in part.partition(b"\r\n\r\n")[2]
        ):
            return None
        body = b""
        try:
            while piece := answer.read1(READ_SIZE):
                body += piece
        except KNOWN:
            pass
    except (*KNOWN, MemoryError, OverflowError):
        return None
    finally:
        answer.close()
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
        exchange = _transport("http://home:81/", secrets).exchange()
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
    "response": response,
    "stream": stream,
    "text": text,
}
