"""The file of `--resume`: one line, the last event ID of the event that was printed last."""

from __future__ import annotations

import os
from pathlib import Path

from eventsource.http.options import check_last_event_id

from .failures import Exit, Stop


class Place:
    """A last event ID in a file that is there in full, or as it was before.

    It survives the process at any moment, `kill -9` included: it is written beside
    (`<name>.new`) and renamed. It is not forced to the disk, which would take milliseconds
    an event; so a machine that loses power may find an earlier one, and print again what
    came after it. One process at a time.

    Args:
        path: the file; if it is not there, or empty, it will be, with the first ID.
    """

    def __init__(self, path: str) -> None:
        self._shown = path
        self._path = os.path.realpath(path)  # what a symbolic link stands for
        self._new = f"{self._path}.new"
        self._written: str | None = None

    def read(self) -> str | None:
        """Return the last event ID; None if there is no file, or nothing in it.

        `""`, a line with nothing in it, is where a server has said that there is no ID.

        Raises:
            Stop: the file cannot be read, or holds something else.
        """
        try:
            content = Path(self._path).read_bytes()
            last_event_id = content.decode().removesuffix("\n")
            check_last_event_id("the last event ID", last_event_id)
        except FileNotFoundError:
            return None
        except UnicodeDecodeError as error:
            raise Stop(
                Exit.USAGE, f"{self._shown}: byte {error.start} is not UTF-8: no last event ID"
            ) from None
        except ValueError as error:
            raise Stop(Exit.USAGE, f"{self._shown}: {error}") from None
        except OSError as error:
            raise Stop(Exit.USAGE, f"{self._shown}: {error.strerror}") from None
        return last_event_id if content else None

    def write(self, last_event_id: str) -> None:
        """Replace what the file says.

        Raises:
            Stop: it cannot be written.
        """
        if last_event_id == self._written:
            return
        try:
            with open(self._new, "wb") as file:  # noqa: PTH123 - done for each event
                file.write(f"{last_event_id}\n".encode())
            os.replace(self._new, self._path)  # noqa: PTH105
        except OSError as error:
            raise Stop(Exit.NO_OUTPUT, f"{self._shown}: {error.strerror}") from None
        self._written = last_event_id
