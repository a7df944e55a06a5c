"""The probes: one for each row of the table, run with every client on loopback.

A probe is a function that gets a client and returns a verdict. Its docstring is printed on
the page. Each probe has a process of its own, so a client may hang, and the probe may replace
`time.sleep`.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import importlib.metadata
import importlib.util
import inspect
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from eventsource.testing import Connection, ScriptedServer

from .clients import Client, HttpxSse, Ours, SseclientPy
from .reading import PATIENCE, Reading
from .rows import PROBES, YES, Verdict, group, left, need, no, partly, row, said, yes
from .wire import (
    BUSY,
    HEADS,
    NO_CONTENT,
    Chunks,
    answer,
    break_off,
    client_socket,
    connection_is_closed,
    makes,
    recorded_waits,
    respond,
    send,
    stay_silent,
    wait_until_taken,
)

__all__ = ["PROBES"]

AGES = 600.0
"""Seconds: longer than any probe waits."""


# --- Reading ---

group("Reading")


@row("events come when they arrive", each_way=True)
def prompt(client: Client) -> Verdict:
    """The body is not chunked. The server sends one event, and nothing after it. Is the event
    delivered?
    """
    with ScriptedServer(answer(client, b"data: a\n\n", then="hold", framing="plain")) as server:
        return said(Reading(client, server.url).start().wait_for(1))


@row("chunked bodies are decoded", each_way=True)
def chunks(client: Client) -> Verdict:
    """One event comes in two HTTP chunks, `data: ab` and `cd`. Is its data `abcd`?"""
    script = answer(client, b"data: ab", b"cd\n\n", then="hold", framing="chunked")
    with ScriptedServer(script) as server:
        reading = Reading(client, server.url).start()
        reading.wait_for(1)
        return said([event.data for event in reading.heard] == ["abcd"])


@row("compressed events come when they arrive", each_way=True)
def compressed(client: Client) -> Verdict:
    """The server compresses with gzip, even if the request does not accept it, and flushes after
    an event. Is the event delivered while the response is open?
    """

    def script(connection: Connection) -> None:
        connection.read_request()
        connection.send(HEADS["chunked"][:-2] + b"Content-Encoding: gzip\r\n\r\n")
        buffer = Chunks(connection)
        with gzip.GzipFile(fileobj=buffer, mode="wb") as compressor:
            compressor.write(b"data: a\n\n")
            compressor.flush()
            connection.hold()

    with ScriptedServer(script) as server:
        reading = Reading(client, server.url).start()
        reading.wait_for(1)
        return said([event.data for event in reading.heard] == ["a"])


@row("CR, LF and CRLF end a line")
def line_ends(client: Client) -> Verdict:
    r"""Are `data: a\rdata: b\r\r`, `data: c\ndata: d\n\n` and `data: e\r\ndata: f\r\n\r\n` three
    events with two lines of data each?
    """
    wire = b"data: a\rdata: b\r\r", b"data: c\ndata: d\n\n", b"data: e\r\ndata: f\r\n\r\n"
    if makes(client, ["a\nb", "c\nd", "e\nf"], *wire):
        return yes()
    works = [
        name
        for name, piece, text in zip(
            ("CR", "LF", "CRLF"), wire, ("a\nb", "c\nd", "e\nf"), strict=True
        )
        if makes(client, [text], piece)
    ]
    return partly(f"{' and '.join(works)} only") if works else no()


@row("line ends may be mixed")
def mixed_line_ends(client: Client) -> Verdict:
    r"""Are `data: a\n\r\n` and `data: b\r\n\n` two events?"""
    return said(makes(client, ["a", "b"], b"data: a\n\r\n", b"data: b\r\n\n"))


@row("a CRLF may be split over two reads")
def split_crlf(client: Client) -> Verdict:
    r"""The client reads `data: a\r`, then `\ndata: b\r\n\r`, then `\n`. Is that one event with two
    lines of data, and nothing else?
    """
    return said(makes(client, ["a\nb"], b"data: a\r", b"\ndata: b\r\n\r", b"\n"))


@row("nothing else ends a line")
def other_line_ends(client: Client) -> Verdict:
    r"""Do U+2028, U+0085, `\v`, `\f` and U+001C within a `data` field remain part of the data?"""
    text = "a\u2028b\u0085c\vd\fe\x1cf"
    return said(makes(client, [text], f"data: {text}\n\n".encode()))


@row("a byte order mark is not data")
def bom(client: Client) -> Verdict:
    """The stream begins with a byte order mark and `data: a`. Is the first event's data `a`?"""
    return said(makes(client, ["a"], b"\xef\xbb\xbfdata: a\n\n"))


@row("text is UTF-8")
def utf8(client: Client) -> Verdict:
    """The content type is `text/event-stream` without a charset. Is `é日` delivered correctly?"""
    return _utf8(client, ["é日"], "data: é日\n\n".encode())


@row("invalid UTF-8 does not end the stream")
def bad_utf8(client: Client) -> Verdict:
    r"""Is the data of `data: a\xffb` `a�b`, and is the next event delivered?"""
    return _utf8(client, ["a\ufffdb", "c"], b"data: a\xffb\n\ndata: c\n\n")


def _utf8(client: Client, expected: list[str], wire: bytes) -> Verdict:
    if makes(client, expected, wire):
        return yes()
    if makes(client, expected, wire, parameter=b"; charset=utf-8"):
        return partly("if the server declares `charset=utf-8`; otherwise it is read as Latin-1")
    return no()


@row("only one space is stripped")
def one_space(client: Client) -> Verdict:
    """After `data:` come three spaces and `a`. Does the data keep two of the spaces? (Indented
    text and the tokens of language models begin with spaces.)
    """
    return said(makes(client, ["  a"], b"data:   a\n\n"))


@row("blank lines at the end of data stay")
def trailing_blank_lines(client: Client) -> Verdict:
    r"""Is the data of an event with the lines `data: a`, `data:` and `data:` `a\n\n`?"""
    return said(makes(client, ["a\n\n"], b"data: a\ndata:\ndata:\n\n"))


@row("a block without data is not an event")
def without_data(client: Client) -> Verdict:
    """After an event with an id come a heartbeat (a comment and a blank line) and a block with
    only `event: ping`. Is no event delivered for either?
    """
    first, last = b"id: 1\ndata: a\n\n", b"data: b\n\n"
    found = {
        name: makes(client, ["a", "b"], first, wire, last)
        for name, wire in (("the heartbeat", b": heartbeat\n\n"), ("the block", b"event: ping\n\n"))
    }
    wrong = [name for name, right in found.items() if not right]
    if len(wrong) == 1:
        return partly(f"{wrong[0]} is an event with empty data")
    return no() if wrong else yes()


@row("a truncated event is discarded")
def half_event(client: Client) -> Verdict:
    """The stream ends after the line `data: half`, without a blank line. Is that line dropped, and
    not part of the first event of the next connection?
    """
    first = answer(client, b"data: a\n\n", b"data: half\n")
    with ScriptedServer(first, answer(client, b"data: b\n\n", then="hold")) as server:
        reading = Reading(client, server.url).start()
        reading.wait_for(2)
        found = [event.data for event in reading.heard]
        return said(found == (["a", "b"] if client.reconnects else ["a"]))


@row("an id without data counts")
def id_only(client: Client) -> Verdict:
    """After an event with `id: 1` comes a block with only `id: 2`. Does the next request have
    `Last-Event-ID: 2`? If the client does not reconnect: does the next event have the last event
    ID 2?
    """
    blocks = b"id: 1\ndata: a\n\n", b"id: 2\n\n"
    if client.reconnects:
        with ScriptedServer(answer(client, *blocks), stay_silent) as server:
            Reading(client, server.url).start()
            return said(server.wait_for_request(2).header("Last-Event-ID") == "2")
    with ScriptedServer(answer(client, *blocks, b"data: b\n\n", then="hold")) as server:
        reading = Reading(client, server.url).start()
        reading.wait(lambda: any(event.data == "b" for event in reading.heard))
        return said(reading.heard and reading.heard[-1].id == "2")


@row("an endless event does not fill the memory")
def largest_event(client: Client) -> Verdict:
    """The size limit of an event is set to 128 kB, if there is an option for it. The server sends
    512 kB as one line, or as one event in short lines. Does the client close the connection before
    it has read everything?
    """
    lines = {"a line": b"x" * 1024, "an event": b"data: " + b"x" * 1017 + b"\n"}
    bounded = []
    for name, piece in lines.items():
        seen: list[bool] = []

        def flood(connection: Connection, piece: bytes = piece, seen: list[bool] = seen) -> None:
            connection.read_request()
            connection.send(HEADS[client.framing])
            send(connection, client.framing, b"data: ")
            try:
                for _ in range(512):
                    send(connection, client.framing, piece)
                wait_until_taken(connection)
                if connection_is_closed(connection):
                    return
            except OSError:
                return
            seen.append(True)
            connection.hold()

        with ScriptedServer(flood) as server:
            reading = Reading(client, server.url, largest=128 * 1024, delay=AGES).start()
            over = server.wait_for_connection().over
            reading.wait(lambda seen=seen, over=over: seen or over.is_set(), 3 * PATIENCE)
            if over.wait(0 if seen else PATIENCE):
                bounded.append(name)
    if len(bounded) == 2:
        return yes()
    return partly("a line is limited, an event of many lines is not") if bounded else no()


@row("an HTML page is refused")
def content_type(client: Client) -> Verdict:
    """The response has status 200, the content type `text/html`, and `data: a` and a blank line as
    its body. Is no event delivered?
    """
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n"
    with ScriptedServer(respond(head + b"data: a\n\n")) as server:
        reading = Reading(client, server.url).start()
        reading.wait(lambda: reading.heard or len(server.connections) > 1)
        if reading.heard and isinstance(client, SseclientPy):
            return left("it gets only bytes, not the content type")
        return said(not reading.heard)


@row("comments are available")
def comments(client: Client) -> Verdict:
    """The server sends the comment `: beat`. Can the program get its text?"""
    with ScriptedServer(answer(client, b": beat\ndata: a\n\n", then="hold")) as server:
        reading = Reading(client, server.url).start()
        reading.wait_for(1)
        return said([text.strip() for text in reading.comments] == ["beat"])


# --- Reconnecting ---

group("Reconnecting")

FIRST = b"id: 7\ndata: a\n\n"
SECOND = b"data: b\n\n"


def goes_on(client: Client, *scripts: Callable[[Connection], None], **asked: Any) -> Reading | None:
    """The reading if it gets both events over these connections, else None."""
    with ScriptedServer(*scripts, answer(client, SECOND, then="hold")) as server:
        reading = Reading(client, server.url, **asked).start()
        reading.wait(lambda: any(event.data == "b" for event in reading.heard))
        resumed = len(server.requests) > 1 and server.requests[-1].header("Last-Event-ID") == "7"
        return reading if resumed and reading.heard[-1].data == "b" else None


@row("resumes when the stream ends")
def resumes(client: Client) -> Verdict:
    """The server ends the stream after an event with the id 7. Does the client reconnect with
    `Last-Event-ID: 7`?
    """
    if goes_on(client, answer(client, FIRST)):
        if client.name == "launchdarkly-eventsource":
            return yes("if its `error_strategy` says so; otherwise the iteration ends")
        return yes()
    return no() if client.reconnects else left()


def if_it_reconnects(check: Callable[[Client], Verdict]) -> Callable[[Client], Verdict]:
    """Leave out the clients that leave reconnecting to their users."""

    def checked(client: Client) -> Verdict:
        return check(client) if client.reconnects else left()

    checked.__doc__, checked.__name__ = check.__doc__, check.__name__
    return checked


@row("resumes when the connection is reset")
@if_it_reconnects
def resumes_after_reset(client: Client) -> Verdict:
    """Does it do the same if the server resets the connection (RST) instead?"""
    return said(goes_on(client, answer(client, FIRST, then="reset")))


@row("outlasts a server that is down")
@if_it_reconnects
def outlasts_failures(client: Client) -> Verdict:
    """The stream ends, the next two connections are reset before a response, and the third would
    get one. Does the client get the events on the third?
    """
    return said(goes_on(client, answer(client, FIRST), break_off, break_off))


@row("obeys `retry:`")
@if_it_reconnects
def retry_field(client: Client) -> Verdict:
    """The client's own delay is ten minutes. The server sends `retry: 20` (milliseconds) and ends
    the stream. Is the client going to wait less than a second?
    """
    with ScriptedServer(answer(client, b"retry: 20\n" + FIRST), stay_silent) as server:
        reading = Reading(client, server.url, delay=AGES)
        with recorded_waits(reading):
            reading.start().wait(lambda: reading.waits)
        return said(reading.waits and reading.waits[0] < 1)


@row("`retry: 0` causes no hot loop")
@if_it_reconnects
def retry_zero(client: Client) -> Verdict:
    """The server sends `retry: 0` and ends each stream. Does the client wait before each of five
    attempts?
    """
    with ScriptedServer(answer(client, b"retry: 0\n" + FIRST)) as server:
        reading = Reading(client, server.url)
        with recorded_waits(reading):
            reading.start().wait(lambda: len(reading.waits) >= 5)
        return said(len(reading.waits) >= 5 and min(reading.waits) > 0)


def waits_between_failures(client: Client, *before: Callable[[Connection], None]) -> list[float]:
    """The client's waits between attempts that fail, up to eight."""
    with ScriptedServer(*before, break_off) as server:
        reading = Reading(client, server.url, delay=0.03, max_delay=0.12, jitter=0.2)
        with recorded_waits(reading):
            reading.start().wait(lambda: len(reading.waits) >= 8)
        return reading.waits[:8]


def _shape(waits: list[float]) -> tuple[bool, bool, bool]:
    """Whether the waits grow, are bounded, and are random."""
    grows = len(waits) >= 4 and waits[3] > 2 * waits[0]
    last = waits[4:]
    bounded = len(waits) == 8 and max(last) < 1.5 * min(last)
    return grows, bounded, bounded and max(last) > 1.01 * min(last)


@row("backs off, up to a bound, with jitter")
@if_it_reconnects
def backs_off(client: Client) -> Verdict:
    """After the stream has ended, all attempts are reset. As far as there are options, the client
    is set to a first wait of 30 ms, a longest wait of 120 ms and a jitter of 20 %. Do its waits
    grow, up to a bound, with a random part?
    """
    waits = waits_between_failures(client, answer(client, FIRST))
    grows, bounded, random = _shape(waits)
    if grows and bounded and random:
        return yes()
    if grows:
        extra = "" if len(waits) == 8 else f", and gives up after {len(waits) - 1} failures"
        return partly(f"doubles, without a bound or jitter{extra}")
    if _shape(waits_between_failures(client))[0]:
        return partly("only until it has connected once; without a bound or jitter")
    return no()


@row("a custom back-off")
@if_it_reconnects
def own_back_off(client: Client) -> Verdict:
    """Can a function or method of the program decide how long to wait before each attempt?"""
    with ScriptedServer(answer(client, FIRST), stay_silent) as server:
        reading = Reading(client, server.url, own_delay=lambda: 0.0625)
        with recorded_waits(reading):
            reading.start().wait(lambda: reading.waits)
        return said(reading.waits and reading.waits[0] == 0.0625)


@row("a 503 can be tried again")
@if_it_reconnects
def retries_503(client: Client) -> Verdict:
    """The response to a reconnect is 503. Does the client try again, if necessary with an option
    for it?
    """
    with ScriptedServer(answer(client, FIRST), respond(BUSY), stay_silent) as server:
        reading = Reading(client, server.url, statuses=(503,))
        with recorded_waits(reading):
            reading.start().wait(lambda: len(reading.waits) >= 2)
        return said(len(reading.waits) >= 2 and len(server.requests) >= 2)


@row("obeys `Retry-After`")
@if_it_reconnects
def retry_after(client: Client) -> Verdict:
    """That 503 has `Retry-After: 100`. Is the client going to wait at least 100 seconds?"""
    with ScriptedServer(answer(client, FIRST), respond(BUSY), stay_silent) as server:
        reading = Reading(client, server.url, statuses=(503,))
        with recorded_waits(reading):
            reading.start().wait(lambda: len(reading.waits) >= 2)
        if len(reading.waits) < 2:
            return left()
        return said(reading.waits[1] >= 100)


@row("204 ends the stream")
@if_it_reconnects
def no_content(client: Client) -> Verdict:
    """The response to a reconnect is 204, with which a server ends a stream for good. Does the
    client stop?
    """

    def stops(**asked: Any) -> bool:
        scripts = answer(client, FIRST), respond(NO_CONTENT)
        with ScriptedServer(*scripts, answer(client, SECOND, then="hold")) as server:
            reading = Reading(client, server.url, **asked).start()
            reading.wait_for(2)
            return reading.over and len(server.requests) == 2

    if stops():
        return yes()
    if stops(final_statuses=True):
        return partly("with your own `error_strategy`; `always_continue()` reconnects")
    return no()


@row("a fresh token for each attempt")
@if_it_reconnects
def fresh_token(client: Client) -> Verdict:
    """Can the program give the client, or through it the HTTP library, a function that returns a
    new bearer token for each attempt?
    """
    numbers = iter(range(1, 100))
    with ScriptedServer(answer(client, FIRST), stay_silent) as server:
        reading = Reading(client, server.url, token=lambda: str(next(numbers))).start()
        reading.wait_for(1)
        server.wait_for_request(2)
        first, second = server.requests[:2]
    if (first.header("Authorization"), second.header("Authorization")) == ("Bearer 1", "Bearer 2"):
        return yes()
    if first.target.endswith("?token=1") and second.target.endswith("?token=2"):
        return partly("in the query, not in a header")
    return no()


# --- Silence ---

group("Silence")


@row("TCP keep-alive is on", each_way=True)
def keep_alive(client: Client) -> Verdict:
    """Is `SO_KEEPALIVE` set on the socket of an open stream, at the client's defaults? The system
    then detects a dead peer, however long the stream is silent.
    """
    with ScriptedServer(answer(client, FIRST, then="hold", framing="chunked")) as server:
        reading = Reading(client, server.url, defaults=True).start()
        server.wait_for_request()
        reading.wait(lambda: reading.heard or reading.headers, 1.0)
        sock = client_socket(server.connections[0])
        assert sock is not None, reading.error
        with sock:
            return said(sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))


@row("silence can be limited", each_way=True)
def silence(client: Client) -> Verdict:
    """The client is set to close a connection after half a second without a byte. Does it do so,
    and then reconnect, if it reconnects at all?
    """
    scripts = answer(client, FIRST, then="hold"), answer(client, SECOND, then="hold")
    with ScriptedServer(*scripts) as server:
        reading = Reading(client, server.url, silence=0.5).start()
        reading.wait(lambda: any(event.data == "b" for event in reading.heard))
        if reading.heard and reading.heard[-1].data == "b":
            return yes()
        if not reading.over:
            return no()
        error = type(reading.error).__name__
        return partly(f"raises {error}, and does not reconnect") if client.reconnects else yes()


@row("heartbeats do not hide a stalled stream", each_way=True)
def stalled(client: Client) -> Verdict:
    """The server sends a comment every 50 ms, but no event. The client is set to close the
    connection after half a second without an event; if there is no such option, after a time
    without a byte. Does it close the connection within 60 comments?
    """

    def beat(connection: Connection) -> None:
        connection.read_request()
        connection.send(HEADS[client.framing])
        for _ in range(60):
            send(connection, client.framing, b": beat\n\n")
            connection.pause(0.05)
        connection.hold()

    with ScriptedServer(beat) as server:
        Reading(client, server.url, silence=3.0, stalled=0.5, delay=AGES).start()
        connection = server.wait_for_connection()
        return said(connection.over.wait(60 * 0.05 + 1))


@row("silence is not an error by default", each_way=True)
def long_silence(client: Client) -> Verdict:
    """The stream is silent for 6 s. Is its next event delivered on the same connection?"""

    def script(connection: Connection) -> None:
        connection.read_request()
        connection.send(HEADS[client.framing])
        send(connection, client.framing, b"data: a\n\n")
        connection.pause(6)
        send(connection, client.framing, b"data: b\n\n")
        connection.hold()

    with ScriptedServer(script) as server:
        reading = Reading(client, server.url, defaults=True).start()
        reading.wait(lambda: len(reading.heard) >= 2, 6 + PATIENCE)
        if [event.data for event in reading.heard] != ["a", "b"] or len(server.requests) != 1:
            return no("httpx waits 5 s for a byte unless told otherwise")
        if client.name == "aiohttp-sse-client2":
            from aiohttp.client import DEFAULT_TIMEOUT

            if DEFAULT_TIMEOUT.total:
                minutes = DEFAULT_TIMEOUT.total / 60
                return partly(
                    f"aiohttp ends every response after {minutes:.0f} minutes unless told otherwise"
                )
        return yes()


# --- Requests ---

group("Requests")


@row("POST")
def post(client: Client) -> Verdict:
    """Can the client send a POST with a body, as the APIs of language models require?"""
    with ScriptedServer(answer(client, FIRST, then="hold")) as server:
        Reading(client, server.url, body={"stream": True}).start()
        request = server.wait_for_request()
        return said(request.method == "POST" and json.loads(request.body) == {"stream": True})


@row("a POST is sent once")
def post_once(client: Client) -> Verdict:
    """The stream that answers a POST ends. Is the POST not sent again by default?"""
    if post(client).mark != YES:
        return left()
    with ScriptedServer(answer(client, b"data: a\n\n"), stay_silent) as server:
        reading = Reading(client, server.url, body={"stream": True})
        with recorded_waits(reading):
            reading.start().wait(lambda: len(server.requests) > 1, 1.0)
            reading.wait(lambda: reading.waits)
        return said(reading.over and len(server.requests) == 1)


@row("response headers are available")
def headers(client: Client) -> Verdict:
    """The response has the header field `X-Limit: 9`. Can the program read it, by a public name?"""
    script = answer(client, FIRST, then="hold", head=b"X-Limit: 9\r\n")
    with ScriptedServer(script) as server:
        reading = Reading(client, server.url).start()
        reading.wait_for(1)
        return said(reading.headers.get("X-Limit") == "9")


def taken_along(client: Client, name: str, value: str) -> tuple[bool, bool]:
    """Whether a header is sent to another origin, and whether redirects are followed by default."""

    def follow(**asked: Any) -> str | None:
        with ScriptedServer(answer(client, FIRST, then="hold")) as there:
            location = f"Location: {there.url}\r\n".encode()
            here = (
                b"HTTP/1.1 302 Found\r\nConnection: close\r\n"
                + location
                + b"Content-Length: 0\r\n\r\n"
            )
            with ScriptedServer(respond(here)) as server:
                reading = Reading(client, server.url, headers={name: value}, **asked).start()
                reading.wait_for(1)
                if not there.requests:
                    return None
                return there.requests[0].header(name) or ""

    unasked = follow()
    sent = follow(redirects=True) if unasked is None else unasked
    assert sent is not None
    return sent == value, unasked is not None


@row("`Authorization` stays with its origin", each_way=True)
def authorization_stays(client: Client) -> Verdict:
    """A redirect leads to another origin. Is the `Authorization` header not sent there?"""
    along, _ = taken_along(client, "Authorization", "Bearer secretcredential")
    return said(not along)


@row("`X-Api-Key` stays with its origin", each_way=True)
def api_key_stays(client: Client) -> Verdict:
    """The same for a header that the program adds, with a key."""
    along, followed = taken_along(client, "X-Api-Key", "secretcredential")
    if along and not followed:
        return partly("follows a redirect only if told to, and then sends it along")
    return said(not along)


# --- Closing ---

group("Closing")


def ends_by(reading: Reading) -> Verdict:
    """Try to end a reading: by closing it in another thread, else by cancelling its task."""
    if reading.close is not None:
        threading.Thread(target=reading.close, daemon=True).start()
        if reading.wait_for_end():
            return yes()
    if reading.cancel is not None:
        reading.cancel()
        if reading.wait_for_end():
            return partly("by cancelling its task, not by closing")
    return no()


@row("closing ends a silent read", each_way=True)
def close_blocked(client: Client) -> Verdict:
    """The stream is silent. Another thread, or another task, closes the client. Does the read
    end?
    """
    with ScriptedServer(answer(client, FIRST, then="hold")) as server:
        reading = Reading(client, server.url).start()
        reading.wait_for(1)
        reading.wait_until_blocked()
        return ends_by(reading)


@row("closing ends the wait for the response", each_way=True)
def close_while_waiting(client: Client) -> Verdict:
    """The same while the client waits for the response."""
    with ScriptedServer(stay_silent) as server:
        reading = Reading(client, server.url).start()
        server.wait_for_request()
        reading.wait_until_blocked()
        return ends_by(reading)


@row("closing ends a wait to reconnect", each_way=True)
@if_it_reconnects
def close_back_off(client: Client) -> Verdict:
    """The same while the client waits ten minutes before its next attempt."""
    with ScriptedServer(answer(client, FIRST), stay_silent) as server:
        reading = Reading(client, server.url, delay=AGES)
        with recorded_waits(reading, really=True):
            reading.start().wait(lambda: reading.waits)
            assert reading.waits, reading.error
            reading.wait_until_blocked()
            return ends_by(reading)


# --- In a program ---

group("In a program")


@row("a background thread calls handlers")
def own_thread(client: Client) -> Verdict:
    """Can the program register functions that the client calls while the program does something
    else?
    """
    way = next((way for way in client.ways() if way.takes_handlers), None)
    if way is None:
        return no()
    threads: list[int] = []
    with ScriptedServer(answer(way, FIRST, then="hold")) as server:
        reading = Reading(way, server.url, handler=lambda _: threads.append(threading.get_ident()))
        reading.start().wait(lambda: threads)
        assert threads, reading.error
        if threads[0] == reading.thread.ident:
            return partly("handlers, called in your loop while you iterate")
        return yes()


@row("a handler that raises does not end the stream")
def handler_raises(client: Client) -> Verdict:
    """A handler raises an exception at the first event. Is it called with the second event?"""
    way = next((way for way in client.ways() if way.takes_handlers), None)
    if way is None:
        return left()
    called: list[str] = []

    def fail_first(text: str) -> None:
        called.append(text)
        if len(called) == 1:
            raise ValueError("a handler's bug")

    with ScriptedServer(answer(way, FIRST, SECOND, then="hold")) as server:
        reading = Reading(way, server.url, handler=fail_first).start()
        reading.wait(lambda: len(called) > 1)
        return said(called == ["a", "b"])


REGISTERING = ("on", "add_listener", "add_event_listener", "addEventListener", "subscribe")


@row("says that the server is down, without a handler", each_way=True)
def says_it_is_down(client: Client) -> Verdict:
    """The connection is refused. The program takes messages and has no handler for errors. Is an
    exception raised where it takes them, or is something written to standard error? And if the
    client reconnects: does the same happen when the server goes down after an event?
    """
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        at_first = tells("http://{}:{}/".format(*nobody.getsockname()), client)
    if not client.reconnects:
        return said(at_first)
    with ScriptedServer(answer(client, FIRST), break_off) as server:
        later = tells(server.url, client)
    if later is None:
        note = "at its defaults it does not reconnect: the iteration ends, without an exception"
        return partly(note) if at_first else no(note)
    if at_first and not later:
        return partly("not if it goes down later")
    return said(at_first and later)


def tells(url: str, client: Client) -> bool | None:
    """Whether the client raises an exception or writes to standard error; None: it only ends."""
    with tempfile.TemporaryFile() as errors:
        os.dup2(errors.fileno(), 2)

        def has_written() -> bool:
            return os.fstat(errors.fileno()).st_size > 0

        reading = Reading(client, url, only_messages=True)
        with recorded_waits(reading):
            reading.start().wait(has_written)
        told = reading.error is not None or has_written()
        return None if reading.over and not told else told


@row("listeners for each event type")
def listeners(client: Client) -> Verdict:
    """A function is registered for the type `price`. Is it called for that type only? (A client
    without a method with a name like `on` or `add_listener` counts as one without listeners.)
    """
    if not any(hasattr(cls, name) for cls in client.classes() for name in REGISTERING):
        return no()
    way = next(way for way in client.ways() if way.takes_handlers)
    called: list[str] = []
    wire = b"data: a\n\nevent: price\ndata: b\n\nevent: other\ndata: c\n\nevent: price\ndata: d\n\n"
    with ScriptedServer(answer(way, wire, then="hold")) as server:
        Reading(way, server.url, listeners={"price": called.append}).start().wait(
            lambda: len(called) > 1
        )
        return said(called == ["b", "d"])


@row("a slow program slows the server", each_way=True)
def back_pressure(client: Client) -> Verdict:
    """The program stops taking events. Must the server stop sending before 32 MiB?"""
    block = b"data: " + b"x" * 65000 + b"\n\n"
    sent: list[int] = []

    def flood(connection: Connection) -> None:
        connection.read_request()
        connection.send(HEADS["plain" if client.framing == "plain" else "chunked"])
        send(connection, client.framing, b"data: a\n\n")
        connection.sock.settimeout(PATIENCE / 2)
        total = 0
        try:
            while total < 32 * 2**20:
                send(connection, client.framing, block)
                total += len(block)
        except TimeoutError:
            sent.append(total)
        else:
            sent.append(-1)
        connection.hold()

    with ScriptedServer(flood) as server:
        reading = Reading(client, server.url)
        reading.paused = True
        reading.start().wait(lambda: sent, 2 * PATIENCE)
        assert sent, reading.error
        return said(sent[0] >= 0)


@row("many streams in one thread (asyncio)")
def on_asyncio(client: Client) -> Verdict:
    """A task reads with `async for`. Is there no thread other than that of the event loop?"""
    way = client.asynchronous
    if way is None:
        return no()
    way.import_all()
    with ScriptedServer(answer(way, FIRST, then="hold")) as server:
        before = set(threading.enumerate())
        reading = Reading(way, server.url).start()
        reading.wait_for(1)
        assert reading.heard, reading.error
        mine = {reading.thread, *(t for t in threading.enumerate() if t.name.startswith("sse-"))}
        others = set(threading.enumerate()) - before - mine
    if others:
        return partly("`async for`, with a thread for each stream")
    if client.name == "launchdarkly-eventsource":
        return yes("`AsyncSSEClient`, which its README calls experimental")
    return yes()


@row("trio")
def on_trio(client: Client) -> Verdict:
    """Can a trio task read an event?"""
    need("trio")
    import trio

    way = client.asynchronous or client
    with ScriptedServer(answer(way, FIRST, then="hold")) as server:
        found: list[str | None] = []

        async def main() -> None:
            with trio.move_on_after(PATIENCE):
                found.append(await way.read_on_trio(server.url))

        with contextlib.suppress(Exception):
            trio.run(main)
    if found != ["a"]:
        return no()
    if isinstance(client, Ours):
        return partly("handlers in its loop by `dispatch`, with a thread for each stream")
    return yes()


@row("HTTP/2")
def http2(client: Client) -> Verdict:
    """The server accepts only HTTP/2. Is its event delivered?"""
    need("h2")
    if isinstance(client, Ours):
        need("httpx")
    from h2.config import H2Configuration
    from h2.connection import H2Connection
    from h2.events import RequestReceived

    def script(connection: Connection) -> None:
        speaker = H2Connection(H2Configuration(client_side=False))
        speaker.initiate_connection()
        connection.send(speaker.data_to_send())
        while data := connection.sock.recv(65536):
            for event in speaker.receive_data(data):
                if isinstance(event, RequestReceived):
                    fields = [(":status", "200"), ("content-type", "text/event-stream")]
                    speaker.send_headers(event.stream_id, fields)
                    speaker.send_data(event.stream_id, FIRST)
            connection.send(speaker.data_to_send())

    found: list[str | None] = []
    server = ScriptedServer(script)  # not closed: a client without HTTP/2 fails its script
    reader = threading.Thread(
        target=lambda: found.append(client.read_over_http2(server.url)), daemon=True
    )
    reader.start()
    reader.join(PATIENCE)
    if found != ["a"]:
        return no()
    if isinstance(client, Ours):
        return partly("as a parser, by httpx: `parse(response.iter_bytes())`")
    if not isinstance(client, HttpxSse):
        return partly("over httpx")
    return yes()


@row("an application without a server")
def application(client: Client) -> Verdict:
    """Can the client read from an ASGI application without a server, as tests of one do?"""
    if isinstance(client, Ours):
        need("httpx")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        kind = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": kind})
        await send({"type": "http.response.body", "body": FIRST})

    if asyncio.run(client.read_app(app)) != "a":
        return no()
    if isinstance(client, Ours):
        return partly("as a parser, by httpx: `aparse(response.aiter_bytes())`")
    return yes()


@row("events from the bytes of any HTTP client")
def bytes_of_any(client: Client) -> Verdict:
    """Another HTTP client has read `data: ab` and `cd`. Can this one parse them into an event?"""
    return said(client.decode([b"data: ab", b"cd\n\n"]) == ["abcd"])


# --- The package ---

group("The package")


def _files(name: str) -> list[str]:
    distribution = importlib.metadata.distribution(name)
    files = [str(file) for file in distribution.files or []]
    if any("__editable__" in file for file in files):  # this package, in a clone
        package = Path(inspect.getfile(importlib.import_module("eventsource"))).parent
        files = [str(file.relative_to(package.parent)) for file in package.rglob("*")]
    return files


@row("a server for your tests")
def test_server(client: Client) -> Verdict:
    """Does the package have a module for tests, or a plugin for pytest?"""
    plugins = importlib.metadata.distribution(client.name).entry_points.select(group="pytest11")
    modules = [file for file in _files(client.name) if re.search(r"\btest(ing|_?server)", file)]
    return said(plugins or modules)


test_server.__test__ = False


@row("a command that prints events")
def command(client: Client) -> Verdict:
    """Does the package install a command that prints an event of a URL while the stream is open?"""
    commands = importlib.metadata.distribution(client.name).entry_points.select(
        group="console_scripts"
    )
    if not commands:
        return no()
    need("click", "rich", "pygments")  # what such commands are made with
    command = next(iter(commands))
    program = f"import sys; from {command.module} import {command.attr} as main; sys.exit(main())"
    output: list[bytes] = []
    with ScriptedServer(answer(client, b"data: hello\n\n", then="hold")) as server:
        process = subprocess.Popen(
            [sys.executable, "-c", program, server.url],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
        )

        def read() -> None:
            assert process.stdout is not None
            while b"hello" not in b"".join(output) and (data := process.stdout.read1()):
                output.append(data)

        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        reader.join(3 * PATIENCE)  # it has to start
        process.kill()
        process.wait()
    return said(b"hello" in b"".join(output))


@row("typed")
def typed(client: Client) -> Verdict:
    """Does the package have a `py.typed`, and annotations of its constructors' arguments?"""
    parameters = [
        parameter
        for cls in client.classes()
        for parameter in list(inspect.signature(cls.__init__).parameters.values())[1:]
        if parameter.kind is not parameter.VAR_KEYWORD
    ]
    annotated = all(parameter.annotation is not parameter.empty for parameter in parameters)
    marked = any(file.endswith("py.typed") for file in _files(client.name))
    if annotated and not marked:
        return partly("annotated, but without the `py.typed` that type checkers look for")
    if marked and not annotated:
        return partly("a `py.typed`, but no annotations")
    return said(annotated)


def _brought(name: str, seen: set[str]) -> set[str]:
    """Return all distributions that this one requires, directly or not, in this environment."""
    from packaging.requirements import Requirement

    for line in importlib.metadata.requires(name) or []:
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            other = requirement.name.lower().replace("_", "-")
            if other not in seen:
                seen.add(other)
                _brought(other, seen)
    return seen


@row("packages that it installs")
def dependencies(client: Client) -> Verdict:
    """How many other distributions does it install?"""
    count = len(_brought(client.name, set()))
    if client.name == "httpx-sse":
        return Verdict(str(count), f"and httpx, which you install yourself: {_httpx()} more")
    if client.name == "sseclient-py":
        return Verdict(str(count), "and an HTTP client of your choice")
    return Verdict(str(count))


def _httpx() -> int:
    return 1 + len(_brought("httpx", set()))


@row("Python")
def python(client: Client) -> Verdict:
    """The oldest version of Python in its `Requires-Python`."""
    requires = importlib.metadata.metadata(client.name).get("Requires-Python") or ""
    match = re.search(r">=\s*(\d+\.\d+)", requires)
    return Verdict(match[1] if match else "not said")
