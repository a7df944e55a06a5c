"""`Log`: what has been sent on a stream, and which part of it a new client gets."""

from __future__ import annotations

from typing import NamedTuple


class Block(NamedTuple):
    """Bytes that are sent as one chunk."""

    data: bytes
    id: str | None = None
    is_event: bool = False
    """Whether a client that resumes gets it again."""


class Log:
    """The blocks of a stream in order. The owner's lock guards it."""

    def __init__(self) -> None:
        self._blocks: list[Block] = []
        self._waiting = 0  # the index of the first block that no client was sent

    def append(self, block: Block, *, is_sent: bool) -> None:
        """Add a block. `is_sent`: at least one client is being sent it."""
        self._blocks.append(block)
        if is_sent:
            self._waiting = len(self._blocks)

    def take(self, last_event_id: str) -> list[bytes]:
        """Return what to send to a new client; after that, nothing waits.

        That is all events after the last one with that id, and all blocks that wait.
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
        """Return the index after that id; if no block has it, of the first that waits."""
        if last_event_id:
            for place in range(len(self._blocks), 0, -1):
                if self._blocks[place - 1].id == last_event_id:
                    return place
        return self._waiting
