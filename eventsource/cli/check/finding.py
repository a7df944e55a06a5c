"""A finding, and the form of the figures in it."""

from __future__ import annotations

from typing import Final, NamedTuple

OK: Final = "ok"
NOTE: Final = "note"
PROBLEM: Final = "problem"


class Finding(NamedTuple):
    """One result of a check."""

    code: str
    """Its subject; docs/how-to/is-it-the-server.md lists all codes."""
    level: str
    """`ok`, `note` or `problem`."""
    what: str
    """One sentence."""
    evidence: str = ""
    """The figures that it is based on."""
    remedy: str = ""
    """What to do about it, one sentence."""


def seconds(value: float) -> str:
    """Write a time: `0.25 s`, `12.3 s`, `90 s`."""
    return f"{value:.2f} s" if value < 1 else f"{value:.1f} s" if value < 60 else f"{value:.0f} s"


def several(number: int, noun: str) -> str:
    """Write a count: `1 event`, `1,000 events`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def shown(text: str, limit: int = 60) -> str:
    """Quote what a server sent, shortened."""
    return repr(text if len(text) <= limit else f"{text[:limit]}…")
