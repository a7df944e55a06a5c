"""Findings on the head of a response, and on the lines of its body. Pure functions."""

from __future__ import annotations

import re
import ssl
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from eventsource.errors import phrase_of
from eventsource.http.content_types import EVENT_STREAM
from eventsource.protocol.parser import can_be_sent
from eventsource.urls import brief, origin_of, redact_text

from .finding import NOTE, OK, PROBLEM, Finding, seconds, several, shown
from .observing import Head, Observation
from .reading import Odd, Oddity

DAYS_LEFT: Final = 7
"""Days below which the end of a certificate is a problem."""
SHORT_RETRY: Final = 1.0
LONG_RETRY: Final = 60.0
"""Seconds: a reconnection time outside these is a note."""

REMEDIES: Final[Mapping[Oddity, tuple[str, str]]] = {
    Oddity.NO_FIELD: (
        PROBLEM,
        "Begin each line of the data with 'data: '; clients ignore other lines.",
    ),
    Oddity.UNKNOWN_FIELD: (
        NOTE,
        "Clients ignore them. If they are part of the data, begin each line with 'data: '.",
    ),
    Oddity.NOT_UTF8: (PROBLEM, "Encode the stream as UTF-8, whatever the charset says."),
    Oddity.BOM: (
        PROBLEM,
        "Send a byte order mark at the beginning of the body only: clients ignore such a line.",
    ),
    Oddity.NUL_ID: (PROBLEM, "Send ids without NUL: clients ignore such an id."),
    Oddity.BAD_RETRY: (
        NOTE,
        "Send retry as milliseconds, digits only: clients ignore anything else.",
    ),
}


# --- The head ---


def of_head(head: Head, observation: Observation) -> Iterator[Finding]:
    """Yield the findings that need only the head."""
    yield status(head)
    if head.hops or head.withheld_from:
        yield redirect(head)
    if head.url.startswith("https:") and head.status == 200:
        yield tls(head, time.time(), is_verified=observation.is_verified)
    if head.status == 200:
        yield content_type(head)
        yield caching(head)


def status(head: Head) -> Finding:
    """The status, and the servers named in the head."""
    answer = f"{head.status} {phrase_of(head.status)}".rstrip()
    by = [
        f"{name}: {shown(redact_text(head.headers[name]))}"
        for name in ("Server", "Via", "X-Cache", "CF-Ray")
        if name in head.headers
    ]
    scheme = head.url.partition(":")[0]
    over = " over TLS" if scheme == "https" else ""
    evidence = ", ".join([f"{head.version or 'HTTP'}{over}", *by])
    if head.status == 200:
        return Finding("status", OK, f"The server answered {answer}.", evidence)
    remedy = "`eventsource -v URL` shows the answer."
    match head.status:
        case 204:
            remedy = "204 tells clients not to reconnect: answer 200."
        case 401 | 403 if head.withheld_from:
            remedy = (
                "Request the URL that the redirect leads to, if the credentials are meant for it."
            )
        case 401 | 403 | 407:
            remedy = "Send the credentials that the server wants: -u, -H or -b."
        case 404 | 410:
            remedy = "Check the path of the URL, and whether a proxy removes a prefix."
        case 405:
            remedy = "Use the method that the server wants: -X, or -d for a POST."
        case 406:
            remedy = "Have the server accept 'Accept: text/event-stream'."
        case 429 | 503:
            remedy = "The server is busy or limits requests: try later."
        case 502 | 504:
            remedy = (
                "A proxy answers because it cannot reach the server behind it: look at its log."
            )
    return Finding("status", PROBLEM, f"The server answered {answer}, not 200.", evidence, remedy)


def redirect(head: Head) -> Finding:
    """Where the request was redirected, and whether credentials were withheld."""
    way = " -> ".join([*(f"{url} ({status})" for status, url in head.hops), head.url])
    if head.withheld_from is not None:
        return Finding(
            "redirect",
            NOTE,
            f"The credentials were not sent to {brief(head.withheld_from)}.",
            way,
            "Request the final URL directly, or trust that origin in your program:"
            " trusted_origins.",
        )
    if any(url.startswith("https:") for _, url in head.hops) and head.url.startswith("http:"):
        return Finding(
            "redirect",
            PROBLEM,
            "A redirect leads from https to http.",
            way,
            "Have the server redirect to an https URL.",
        )
    elsewhere = len({origin_of(url) for url in (head.url, *(hop[1] for hop in head.hops))}) > 1
    where = "to another origin" if elsewhere else "within the origin"
    return Finding("redirect", OK, f"The request was redirected {where}.", way)


def tls(head: Head, now: float, *, is_verified: bool) -> Finding:
    """How long the certificate remains valid."""
    if not is_verified:
        return Finding(
            "tls",
            NOTE,
            "The certificate was not verified (-k).",
            remedy="Omit -k, or name the CA certificate with --cacert.",
        )
    end = (head.certificate or {}).get("notAfter")
    if not isinstance(end, str):
        return Finding("tls", OK, "The certificate is valid; when it expires is not known here.")
    left = (ssl.cert_time_to_seconds(end) - now) / 86400
    evidence = f"{left:.0f} days left, until {end}"
    if left < DAYS_LEFT:
        return Finding(
            "tls", PROBLEM, "The certificate expires soon.", evidence, "Renew the certificate."
        )
    return Finding("tls", OK, "The certificate is valid.", evidence)


def content_type(head: Head) -> Finding:
    """Whether clients accept the content type as an event stream."""
    found = head.headers.get("Content-Type", "")
    kind, _, parameters = found.partition(";")
    if kind.strip().lower() not in EVENT_STREAM:
        what = f"The content type is {shown(found)}." if found else "There is no content type."
        return Finding(
            "content-type",
            PROBLEM,
            what,
            remedy="Send 'Content-Type: text/event-stream': clients refuse anything else.",
        )
    charset = re.search(r"charset\s*=\s*\"?([\w-]+)", parameters, re.IGNORECASE)
    if charset and charset[1].lower().replace("-", "") != "utf8":
        return Finding(
            "content-type",
            NOTE,
            f"The content type is {shown(found)}.",
            remedy="Clients decode UTF-8, whatever the charset: send utf-8 or no charset.",
        )
    return Finding("content-type", OK, f"The content type is {shown(found)}.")


def caching(head: Head) -> Finding:
    """Whether caches are told not to store the stream."""
    found = head.headers.get("Cache-Control", "")
    evidence = f"Cache-Control: {shown(found)}" if found else "no Cache-Control"
    names = {part.partition("=")[0].strip().lower() for part in found.split(",")}
    if names & {"no-cache", "no-store"}:
        return Finding("caching", OK, "Caches are told not to store it.", evidence)
    return Finding(
        "caching",
        NOTE,
        "Caches may store the stream.",
        evidence,
        "Send 'Cache-Control: no-cache' (or no-store).",
    )


# --- The lines ---


def ids(observation: Observation) -> Finding:
    """Whether clients can resume by id."""
    blocks = [seen.block for seen in observation.events]
    own = [block.id for block in blocks if block.id]
    evidence = f"{len(own):,} of {several(len(blocks), 'event')}"
    if not blocks:
        return Finding("ids", OK, "No event came, so its ids could not be checked.")
    if not own and observation.is_once:
        return Finding(
            "ids", OK, "No event has an id; a request that is sent once is not resumed.", evidence
        )
    if not own:
        return Finding(
            "ids",
            NOTE,
            "No event has an id, so a client that reconnects cannot say where it was.",
            evidence,
            "Send an id with each event, and what follows the Last-Event-ID of a request.",
        )
    unsendable = [found for found in own if not can_be_sent(found)]
    if unsendable:
        return Finding(
            "ids",
            PROBLEM,
            "Some ids cannot be sent back in a header field.",
            f"{several(len(unsendable), 'id')}, such as {shown(unsendable[0])}",
            "Use ids of at most 4,096 bytes without control characters.",
        )
    repeated = Counter(
        found
        for connection in observation.connections
        for found, count in _counts(seen.block.id for seen in connection.events)
        if count > 1
    )
    if repeated:
        return Finding(
            "ids",
            NOTE,
            "Some ids come more than once on one connection.",
            f"{several(len(repeated), 'id')}, such as {shown(next(iter(repeated)))}",
            "Give each event an id of its own: a client resumes after the last of them.",
        )
    if len(own) < len(blocks):
        return Finding(
            "ids",
            NOTE,
            "Some events have no id.",
            evidence,
            "Events without an id are lost at a reconnect, unless the server sends them again.",
        )
    return Finding("ids", OK, "Each event has an id of its own.", evidence)


def _counts(found: Iterable[str | None]) -> Iterator[tuple[str, int]]:
    yield from Counter(each for each in found if each).items()


def retry(observation: Observation) -> Finding:
    """The reconnection time."""
    found = [connection.reader.retry for connection in observation.connections]
    last = next((each for each in reversed(found) if each is not None), None)
    if last is None:
        return Finding("retry", OK, "The server leaves the reconnection time to the client.")
    time_ = last / 1000
    evidence = f"retry: {last}"
    if time_ < SHORT_RETRY:
        return Finding(
            "retry",
            NOTE,
            f"Clients reconnect after {seconds(time_)}.",
            evidence,
            "After an outage, all clients reconnect at once: send one second or more.",
        )
    if time_ > LONG_RETRY:
        return Finding(
            "retry",
            NOTE,
            f"Clients reconnect after {seconds(time_)}.",
            evidence,
            "After each loss, clients receive nothing for that time: send a minute or less.",
        )
    return Finding("retry", OK, f"Clients reconnect after {seconds(time_)}.", evidence)


def format_(observation: Observation) -> Iterator[Finding]:
    """Oddities of the lines: one finding for each kind, or one that there are none."""
    connections = observation.connections
    size = sum(read.size for read in observation.reads)
    is_known = any(connection.reader.is_known for connection in connections)
    odd = _merged(connection.reader.odd for connection in connections)
    if observation.unreadable and observation.unreadable[0] == "format":
        yield Finding(
            "format",
            PROBLEM,
            "An event is too large.",
            observation.unreadable[1],
            "Send large data separately, and its URL in the event.",
        )
    if size and not is_known:
        rest = next((c.reader.rest for c in connections if c.reader.rest), "")
        first = next((found.first for found in odd.values()), rest)
        yield Finding(
            "format",
            PROBLEM,
            "The body is not an event stream: no line has a field of the format.",
            f"{several(size, 'byte')}, beginning with {shown(first)}",
            "Send each message as a line 'data: …' and a blank line.",
        )
        return
    for oddity, found in odd.items():
        level, remedy = REMEDIES[oddity]
        evidence = f"{found.times:,}, the first is {shown(found.first)}"
        yield Finding("format", level, f"There are {oddity.value}.", evidence, remedy)
    unended = [
        connection
        for connection in connections
        if connection.loss is not None
        and connection.loss.is_in_order
        and connection.reader.has_unfinished_event
    ]
    if unended:
        certain = observation.head is not None and observation.head.marks_its_end
        yield Finding(
            "format",
            PROBLEM if certain else NOTE,
            "The body ends without a blank line, so its last event is dropped.",
            several(len(unended), "connection"),
            "End each event with a blank line, the last one too.",
        )
    elif not odd and size and not observation.unreadable:
        yield Finding("format", OK, "All lines follow the format.", several(size, "byte"))


def _merged(found: Iterable[Mapping[Oddity, Odd]]) -> dict[Oddity, Odd]:
    merged: dict[Oddity, Odd] = {}
    for each in found:
        for oddity, odd in each.items():
            before = merged.get(oddity)
            merged[oddity] = (
                odd if before is None else before._replace(times=before.times + odd.times)
            )
    return merged
