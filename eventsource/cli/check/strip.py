"""The strip of time: one character for each part of the watch, for the line of status."""

from __future__ import annotations

import enum
from typing import Final

from rich.text import Text

CELLS: Final = 40
"""Characters of a whole watch."""


class Mark(enum.IntEnum):
    """What can be seen in a part of the watch; of several, the highest."""

    SILENCE = 0
    BYTES = 1
    """That complete no event."""
    COMMENT = 2
    EVENT = 3
    LOSS = 4


SIGNS: Final = {
    Mark.SILENCE: ("·", ".", "dim"),
    Mark.BYTES: ("-", "-", "dim"),
    Mark.COMMENT: (":", ":", "cyan"),
    Mark.EVENT: ("█", "#", "green"),
    Mark.LOSS: ("✗", "x", "bold red"),
}
"""How they are drawn: in Unicode, in ASCII, and in which style."""


class Strip:
    """Draws what has come so far. One thread marks, any may draw.

    Args:
        seconds: how long the watch lasts.
        is_unicode: whether the terminal has more than ASCII.
    """

    def __init__(self, seconds: float, *, is_unicode: bool) -> None:
        self._seconds = seconds
        self._column = 0 if is_unicode else 1
        self._marks = [Mark.SILENCE] * CELLS

    def mark(self, at: float, mark: Mark) -> None:
        """Note what came at this moment of the watch."""
        cell = self._cell(at)
        self._marks[cell] = max(self._marks[cell], mark)

    def _cell(self, at: float) -> int:
        return min(max(int(at / self._seconds * CELLS), 0), CELLS - 1)

    def draw(self, now: float) -> Text:
        """Return the strip up to this moment."""
        text = Text()
        for mark in self._marks[: self._cell(now) + 1]:
            sign = SIGNS[mark]
            text.append(sign[self._column], sign[2])
        return text

    def legend(self) -> Text:
        """Return what the signs stand for."""
        names = ((Mark.EVENT, "events"), (Mark.COMMENT, "comments"), (Mark.LOSS, "lost"))
        text = Text()
        for mark, name in (*names, (Mark.SILENCE, "silence")):
            sign = SIGNS[mark]
            text.append(sign[self._column], sign[2]).append(f" {name}  ", "dim")
        return text
