"""Findings as text, as JSON, and on a terminal. The invariant: no output contains a secret."""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Final
from urllib.parse import parse_qsl, unquote, urlsplit

from rich.text import Text

from eventsource.cli.formats import one_line
from eventsource.urls import SECRET_FIELD

from .finding import NOTE, OK, PROBLEM, Finding, several
from .observing import Observation
from .timing import silences

SHORTEST_SECRET: Final = 4
"""Characters. A shorter value is not treated as a secret: it would be found everywhere."""
LONG: Final = 8
"""Characters. From this length on, values that may be secret count as secrets: names, queries."""
STYLES: Final = {OK: "green", NOTE: "yellow", PROBLEM: "bold red"}
INDENT: Final = " " * 9


# --- Secrets ---


def secrets_of(url: str, proxies: Mapping[str, str] | None, sent: Mapping[str, Any]) -> set[str]:
    """Return the secrets in a request.

    Args:
        url: its URL.
        proxies: its proxies.
        sent: the header fields that were sent, with credentials from any source.
    """
    found: set[str] = set()
    perhaps: set[str] = set()
    for address in (url, *(proxies or {}).values()):
        try:
            parts = urlsplit(address)
        except ValueError:
            continue
        found |= {parts.password or "", parts.netloc.rpartition("@")[0]}
        perhaps |= {parts.username or "", *(value for _, value in parse_qsl(parts.query))}
    for name, value in sent.items():
        if value is None or not SECRET_FIELD.search(name):
            continue
        text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
        found.add(text)
        perhaps |= {*text.replace(";", " ").replace("=", " ").split(), *text.split()}
        scheme, _, credentials = text.partition(" ")
        if scheme.lower() == "basic":
            user, _, password = _decoded(credentials).partition(":")
            found.add(password)
            perhaps.add(user)
    found |= {each for each in perhaps if len(each) >= LONG}
    found |= {unquote(secret) for secret in found}
    return {each for each in found if len(each) >= SHORTEST_SECRET}


def _decoded(credentials: str) -> str:
    try:
        return base64.b64decode(credentials).decode("utf-8", "replace")
    except ValueError:
        return ""


def without(secrets: Iterable[str], finding: Finding) -> Finding:
    """Return a finding without these secrets, because a server may echo what it was sent."""
    what, evidence, remedy = finding[2:]
    for secret in sorted(secrets, key=len, reverse=True):  # one may be part of another
        what, evidence = what.replace(secret, "..."), evidence.replace(secret, "...")
    return finding._replace(what=one_line(what), evidence=one_line(evidence), remedy=remedy)


# --- The forms ---


def as_text(finding: Finding) -> str:
    """Return a finding as lines."""
    evidence = f" ({finding.evidence})" if finding.evidence else ""
    text = f"{finding.level:<8} {finding.code}: {finding.what}{evidence}\n"
    return f"{text}{INDENT}{finding.remedy}\n" if finding.remedy else text


def on_terminal(finding: Finding) -> Text:
    """Return a finding as lines in colour."""
    text = Text()
    text.append(f"{finding.level:<8} ", STYLES[finding.level])
    text.append(finding.code, "bold").append(f": {finding.what}")
    if finding.evidence:
        text.append(f" ({finding.evidence})", "dim")
    if finding.remedy:
        text.append(f"\n{INDENT}{finding.remedy}", "italic")
    return text


def summary(findings: Iterable[Finding]) -> str:
    """Return the last line of the report."""
    counted = Counter(finding.level for finding in findings)
    problems = several(counted[PROBLEM], "problem") if counted[PROBLEM] else "no problem"
    return f"{problems}, {several(counted[NOTE], 'note')}"


def as_json(url: str, findings: Iterable[Finding], observation: Observation) -> bytes:
    """Return everything as one JSON object in one line."""
    result = {
        "url": url,
        "findings": [finding._asdict() for finding in findings],
        "figures": figures(observation),
    }
    return f"{json.dumps(result)}\n".encode()


def figures(observation: Observation) -> dict[str, float | int | None]:
    """Return all counts and times, in seconds; None for what did not come."""
    connections = observation.connections
    first = connections[0] if connections else None
    reads, events = observation.reads, observation.events
    of_all = [silence for each in connections for silence in silences(each)]
    retries = [each.reader.retry for each in connections if each.reader.retry is not None]
    numbers: dict[str, float | int | None] = {
        "status": observation.head.status if observation.head else None,
        "seconds": observation.watched,
        "connections": len(connections),
        "losses": sum(each.loss is not None for each in connections),
        "reads": len(reads),
        "bytes": sum(read.size for read in reads),
        "events": len(events),
        "events_with_id": sum(bool(seen.block.id) for seen in events),
        "comments": sum(each.reader.comments for each in connections),
        "largest_event": max((seen.block.size for seen in events), default=None),
        "retry": retries[-1] / 1000 if retries else None,
        "head_after": first.opened_at if first else None,
        "first_byte_after": first.reads[0].at if first and first.reads else None,
        "first_event_after": first.events[0].at if first and first.events else None,
        "longest_silence": max(of_all, default=None),
    }
    return {
        name: round(number, 3) if isinstance(number, float) else number
        for name, number in numbers.items()
    }
