"""Findings as text, as JSON, and on a terminal. The invariant: no output contains a secret."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from typing import Final

from rich.text import Text

from eventsource.cli.formats import one_line
from eventsource.cli.secrets import hide

from .finding import NOTE, OK, PROBLEM, Finding, several
from .observing import Observation
from .timing import silences

STYLES: Final = {OK: "green", NOTE: "yellow", PROBLEM: "bold red"}
INDENT: Final = " " * 9


def without(secrets: Iterable[str], finding: Finding) -> Finding:
    """Return a finding without these secrets, because a server may echo what it was sent."""
    what, evidence = (one_line(hide(secrets, text)) for text in finding[2:4])
    return finding._replace(what=what, evidence=evidence)


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
