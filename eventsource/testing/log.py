"""`Log`: what has been sent on a stream, and who is to get which part of it."""

from __future__ import annotations

from typing import NamedTuple


class Block(NamedTuple):
    """Bytes that are sent in one piece."""

    data: bytes
    id: str | None = None
    is_event: bool = False
    """A client that resumes gets it again."""


class Log:
    """The blocks of a stream in order. Guarded by the lock of whoever has it."""

    def __init__(self) -> None:
        self._blocks: list[Block] = []
        self._waiting = 0  # the place of the first block that nobody was sent

    def append(self, block: Block, *, is_sent: bool) -> None:
        """Add a block; say whether anybody is being sent it."""
        self._blocks.append(block)
        if is_sent:
            self._waiting = len(self._blocks)

    def take(self, last_event_id: str) -> list[bytes]:
        """Return what a new client is to be sent; from now on, nothing waits.

        That is all events after the last one of that id, and whatever has been waiting.
        """
        start = self._place_after(last_event_id)
        data = [
            block.data
            for place, block in enumerate(self._blocks[start:], start)
            if block.is_event or place >= self._waiting
        ]
        self._waiting = len(self._blocks)
        return data

    def _place_after(self, last_event_id: str) -> int:
        """Return the place after that id, or of what waits if there is none such."""
        if last_event_id:
            for place in range(len(self._blocks), 0, -1):
                if self._blocks[place - 1].id == last_event_id:
                    return place
        return self._waiting
