"""Whether a server resumes: which id to send, and what the events that then come show.

Pure functions. Only events with an id of their own are compared, and only ids that came once:
with others a server need not resume at a certain event.
"""

from __future__ import annotations

from collections import Counter
from typing import Final, NamedTuple

from eventsource.protocol.parser import can_be_sent

from .finding import NOTE, OK, PROBLEM, Finding, seconds, several, shown
from .observing import Connection, Observation, Seen

BACK: Final = 10
"""How many events before the last one to resume."""
SECONDS: Final = 10.0
"""The most seconds to wait for the events."""
BUSY: Final = (429, 500, 502, 503, 504)
"""Statuses that have nothing to do with ids."""

REMEDY: Final = (
    "Keep the last events, and send what follows the Last-Event-ID of the request, in order."
)


class Plan(NamedTuple):
    """Where to resume, and what should come."""

    id: str
    """The id to send as `Last-Event-ID`."""
    before: frozenset[str]
    """The ids of events up to that one."""
    expected: dict[str, bytes]
    """The ids of the events after it, in order, and the digests of their data."""


class Answer(NamedTuple):
    """The result of resuming."""

    connection: Connection | None
    """None: no connection opened."""
    status: int | None = None
    """The status of a response that did not open the stream."""
    failure: str = ""
    """Why no connection opened."""


def plan(observation: Observation) -> Plan | str:
    """Return the plan; if no plan can show whether the server resumes, the reason."""
    if not observation.events:
        return "no event came"
    for connection in reversed(observation.connections):
        counted = Counter(seen.block.id for seen in connection.events)
        known = [
            (seen.block.id, seen.block.digest)
            for seen in connection.events
            if seen.block.id and counted[seen.block.id] == 1 and can_be_sent(seen.block.id)
        ]
        if len(known) > 1:
            # Not the first event: then a server that begins at the start would look like one
            # that repeats this event, or that sends a greeting to each client.
            at = max(len(known) - 1 - BACK, min(2, len(known) - 2))
            expected = dict(known[at + 1 :])
            before = {seen.block.id for seen in observation.events if seen.block.id}
            return Plan(known[at][0], frozenset(before - expected.keys()), expected)
    ids = [seen.block.id for seen in observation.events if seen.block.id]
    if not ids:
        return "no event has an id"
    if len(ids) > 1 and len(set(ids)) < len(ids):
        return "ids come more than once"
    return "too few events with an id of their own"


def is_settled(plan: Plan, events: list[Seen]) -> bool:
    """Whether the result is certain: all has come, or the server begins at the start."""
    ids = [seen.block.id for seen in events if seen.block.id]
    return next(reversed(plan.expected)) in ids or _begins_anew(plan, ids)


def _begins_anew(plan: Plan, ids: list[str]) -> bool:
    # A single older event may be a greeting to each client.
    older = [found for found in ids if found in plan.before and found != plan.id]
    return len(older) > 1 or (bool(older) and plan.id in ids)


def untold(why: str, remedy: str = "") -> Finding:
    """Return the finding that it is not known whether the server resumes."""
    return Finding("resume", NOTE, "It is not known whether the server resumes.", why, remedy)


def resume(plan: Plan, answer: Answer) -> Finding:
    """Return the finding: whether the events after that id have come again."""
    asked = f"Last-Event-ID {shown(plan.id)}"
    total = several(len(plan.expected), "event")
    if answer.connection is None:
        return _refused(answer, asked, total)
    events = [seen for seen in answer.connection.events if seen.block.id]
    ids = [seen.block.id or "" for seen in events]
    came = [found for found in dict.fromkeys(ids) if found in plan.expected]
    evidence = f"{asked}: {len(came)} of {total} that followed it came again"
    evidence += _after(answer.connection)
    if _begins_anew(plan, ids):
        return _problem(
            "The server starts over: it also sends events from before that id.", evidence
        )
    for seen in events:
        found = seen.block.id or ""
        if plan.expected.get(found, seen.block.digest) != seen.block.digest:
            return _problem(
                "The server sends different data with the same id.",
                f"{evidence}; id {shown(found)}",
            )
    if not came:
        return _problem("The server does not send the events that followed that id.", evidence)
    order = list(plan.expected)
    if sorted(came, key=order.index) != came:
        return _problem("The events that followed that id come in another order.", evidence)
    missing = order[: order.index(came[-1])]
    missing = [found for found in missing if found not in came]
    rest = len(order) - len(came) - len(missing)
    went_on = any(
        found not in plan.expected and found not in plan.before
        for found in ids[len(ids) - 1 - ids[::-1].index(came[-1]) + 1 :]
    )
    if missing or (rest and went_on):
        lost = missing or [found for found in order if found not in came]
        return _problem(
            "The server omits some events that followed that id.",
            f"{evidence}; {several(len(lost), 'event')} missing, such as {shown(lost[0])}",
        )
    if plan.id in ids:
        return Finding(
            "resume",
            NOTE,
            "The server resumes, and sends the event with that id once more.",
            evidence,
            "Start with the event after the Last-Event-ID: the client has that one already.",
        )
    return Finding("resume", OK, "The server resumes where a client was.", evidence)


def _after(connection: Connection) -> str:
    if not connection.events:
        return f", and no event at all, within {seconds(connection.lasted)}"
    return ""


def _problem(what: str, evidence: str) -> Finding:
    return Finding("resume", PROBLEM, what, evidence, REMEDY)


def _refused(answer: Answer, asked: str, total: str) -> Finding:
    if answer.status is None:
        return untold(f"the connection with {asked} was not made: {answer.failure}")
    if answer.status in BUSY:
        return untold(f"with {asked} the server answered {answer.status}")
    return _problem(
        f"The server answers {answer.status} to a client that resumes.",
        f"{asked}; {total} had followed it",
    )
