"""Writes and reads the observed part of `docs/comparison.md`, which is between two comments.

Notes are numbered in the order of the first reference. Equal notes have one number.
"""

from __future__ import annotations

import re
from pathlib import Path

from .clients import ALL, OURS, PEERS, Client
from .probes import PROBES
from .rows import Verdict

PATH = Path(__file__).parents[2] / "docs" / "comparison.md"
VERSIONS = Path(__file__).with_name("versions.txt")
"""The peers' versions that the page is about, for `pip install -c`."""
BEGIN = "<!-- Observed by `python -m tests.peers --write`. Not to be edited: -->"
END = "<!-- End of what is observed. -->"

Observed = dict[str, dict[str, Verdict]]
"""Verdicts by client and probe."""


def heading(client: Client) -> str:
    """The heading of a column."""
    return "eventsource" if client is OURS else client.name


def groups() -> list[str]:
    return list(dict.fromkeys(probe.group for probe in PROBES))


def written(observed: Observed, versions: dict[str, str], python: str) -> str:
    """The text between the two comments."""
    notes: dict[str, int] = {}

    def cell(verdict: Verdict) -> str:
        if not verdict.note:
            return verdict.mark
        number = notes.setdefault(verdict.note, len(notes) + 1)
        return f"{verdict.mark} <sup>{number}</sup>"

    lines = ["## The table", "", f"Observed on Linux, CPython {python}:", ""]
    lines.append(f"- [{heading(OURS)}]({OURS.source}){_ways(OURS)}, as it stands")
    lines += [
        f"- [{client.name}]({client.source}) {versions[client.name]}{_ways(client)}"
        for client in PEERS
    ]
    for group in groups():
        lines += ["", f"### {group}", ""]
        lines += _row(["", *map(heading, ALL)]), _row(["---", *[":-:"] * len(ALL)])
        lines += [
            _row([probe.title, *(cell(observed[client.name][probe.name]) for client in ALL)])
            for probe in PROBES
            if probe.group == group
        ]
    lines += ["", "### Notes", ""]
    lines += [f"{number}. {note}" for note, number in notes.items()]
    lines += ["", "## What each row asks", ""]
    for probe in PROBES:
        lines.append(f"- **{probe.title}** (`{probe.name}`). {probe.question}")
    return "\n".join(["", *lines, ""])


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _ways(client: Client) -> str:
    ways = [way.way for way in client.ways()]
    return f" ({', '.join(ways)})" if len(ways) > 1 else ""


class Page:
    """The content of the page."""

    def __init__(self, text: str) -> None:
        _, begin, rest = text.partition(BEGIN)
        part, end, _ = rest.partition(END)
        assert begin and end, f"{PATH.name} has no observed part"  # noqa: PT018 - both or none
        self.part = part
        table, _, questions = part.partition("## What each row asks")
        # Of the peers only: this package has no version on the page.
        self.versions = dict(re.findall(r"^- \[([\w-]+)\]\(\S+\) (\d\S*)", table, re.MULTILINE))
        self.notes = {
            int(number): note for number, note in re.findall(r"^(\d+)\. (.+)$", table, re.MULTILINE)
        }
        self.questions = re.findall(
            r"^- \*\*(.+?)\*\* \(`(\w+)`\)\. (.+)$", questions, re.MULTILINE
        )
        self.rows: list[tuple[str, str]] = []
        """Groups and titles, in order."""
        self.cells: dict[tuple[str, str], Verdict] = {}
        """By heading and title."""
        self.references: list[int] = []
        group, headings = "", [""]
        for line in table.splitlines():
            if line.startswith("### "):
                group = line[4:]
            elif line.startswith("|  |"):
                headings = _cells(line)
            elif line.startswith("| ") and not line.startswith("| ---"):
                title, *cells = _cells(line)
                self.rows.append((group, title))
                for column, cell in zip(headings[1:], cells, strict=True):
                    self.cells[column, title] = self._verdict(cell)

    def _verdict(self, cell: str) -> Verdict:
        mark, _, rest = cell.partition(" <sup>")
        if not rest:
            return Verdict(mark)
        number = int(rest.removesuffix("</sup>"))
        self.references.append(number)
        return Verdict(mark, self.notes.get(number, "a note that is not there"))

    def column(self, client: Client) -> dict[str, Verdict]:
        """The verdicts on a client by probe."""
        return {probe.name: self.cells[heading(client), probe.title] for probe in PROBES}


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def read() -> Page:
    return Page(PATH.read_text(encoding="utf-8"))


def constraints(versions: dict[str, str]) -> str:
    """The text of `versions.txt`."""
    lines = [f"{client.name}=={versions[client.name]}" for client in PEERS]
    return "\n".join(["# What docs/comparison.md is about.", *lines, ""])


def write(part: str, versions: dict[str, str]) -> None:
    """Replace the observed part of the page."""
    VERSIONS.write_text(constraints(versions), encoding="utf-8")
    text = PATH.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    PATH.write_text(f"{before}{BEGIN}\n{part}\n{END}{after}", encoding="utf-8")
