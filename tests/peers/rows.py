"""The rows of the table, and the verdicts in their cells."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from .clients import Client


class Verdict(NamedTuple):
    """A cell: a mark, or a fact, and a note."""

    mark: str
    note: str = ""


YES, PARTLY, NO, UNKNOWN = "✓", "◐", "✗", "?"
LEFT = "–"  # noqa: RUF001 - a dash, as tables have it
FAILED = "failed"
"""The probe failed, not the client; the note says how. Never on the page."""


def yes(note: str = "") -> Verdict:
    return Verdict(YES, note)


def no(note: str = "") -> Verdict:
    return Verdict(NO, note)


def partly(note: str) -> Verdict:
    return Verdict(PARTLY, note)


def left(note: str = "") -> Verdict:
    """Left to the user, or not applicable."""
    return Verdict(LEFT, note)


def said(right: object) -> Verdict:
    return yes() if right else no()


class Unobservable(Exception):
    """Something that the probe needs is not installed."""


def need(*modules: str) -> None:
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        raise Unobservable(f"needs {', '.join(missing)}")


# --- The rows ---


@dataclass(frozen=True)
class Probe:
    """One row."""

    group: str
    title: str
    check: Callable[[Any], Verdict]
    each_way: bool

    @property
    def name(self) -> str:
        return self.check.__name__

    @property
    def question(self) -> str:
        return " ".join(line.strip() for line in (self.check.__doc__ or "").splitlines()).strip()

    def ways(self, client: Client) -> list[Client]:
        """The ways to use a client that are tested."""
        return client.ways() if self.each_way else [client]


def together(verdicts: dict[str, Verdict]) -> Verdict:
    """Combine the verdicts of several ways into one: partly, if they differ."""
    marks = {verdict.mark for verdict in verdicts.values()}
    if FAILED in marks:
        failures = (verdict.note for verdict in verdicts.values() if verdict.mark == FAILED)
        return Verdict(FAILED, "\n".join(failures))
    if len(marks) == 1:
        notes = dict.fromkeys(verdict.note for verdict in verdicts.values() if verdict.note)
        return Verdict(marks.pop(), "; ".join(notes))
    parts = []
    words = {YES: "yes", PARTLY: "in part", NO: "no", LEFT: "does not arise"}
    for mark, word in words.items():
        ways = [way for way, verdict in verdicts.items() if verdict.mark == mark]
        if ways:
            notes = dict.fromkeys(verdicts[way].note for way in ways if verdicts[way].note)
            parts.append(f"{', '.join(ways)}: {word}" + "".join(f" ({note})" for note in notes))
    return partly("; ".join(parts))


PROBES: list[Probe] = []
_group = ""


def group(title: str) -> None:
    global _group  # noqa: PLW0603 - the headings stand among the rows
    _group = title


def row(title: str, *, each_way: bool = False) -> Callable[[Any], Any]:
    def register(check: Any) -> Any:
        PROBES.append(Probe(_group, title, check, each_way))
        return check

    return register
