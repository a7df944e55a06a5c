"""The time line of the watch in the line of status: one character for each part of the watch."""

from __future__ import annotations

import enum
from typing import Final

from rich.text import Text

CELLS: Final = 40
"""Characters of a whole watch."""


class Mark(enum.IntEnum):
    """What happened in a part of the watch; of several, the highest is drawn."""

    SILENCE = 0
    BYTES = 1
    """Bytes that completed no event."""
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
"""How each is drawn: the character in Unicode, that in ASCII, and the style."""


class Strip:
    """Draws what has come so far. One thread calls `mark`; any may draw.

    Args:
        seconds: how long the watch lasts.
        is_unicode: whether the terminal can show more than ASCII.
    """

    def __init__(self, seconds: float, *, is_unicode: bool) -> None:
        self._seconds = seconds
        self._column = 0 if is_unicode else 1
        self._marks = [Mark.SILENCE] * CELLS

    def mark(self, at: float, mark: Mark) -> None:
        """Note what came at this time of the watch."""
        cell = self._cell(at)
        self._marks[cell] = max(self._marks[cell], mark)

    def _cell(self, at: float) -> int:
        return min(max(int(at / self._seconds * CELLS), 0), CELLS - 1)

    def draw(self, now: float) -> Text:
        """Return the strip up to this time."""
        text = Text()
        for mark in self._marks[: self._cell(now) + 1]:
            sign = SIGNS[mark]
            text.append(sign[self._column], sign[2])
        return text

    def legend(self) -> Text:
        """Return the legend of the signs."""
        names = ((Mark.EVENT, "events"), (Mark.COMMENT, "comments"), (Mark.LOSS, "lost"))
        text = Text()
        for mark, name in (*names, (Mark.SILENCE, "silence")):
            sign = SIGNS[mark]
            text.append(sign[self._column], sign[2]).append(f" {name}  ", "dim")
        return text
