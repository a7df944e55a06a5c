"""`ResumeFile`: a last event ID in a file, so that a program resumes where it left off."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from .protocol.session import check_last_event_id


class ResumeFile:
    """A last event ID in a file that has the old one or the new one, whatever happens.

    The file has one line. A new ID is written beside it (`<name>.new`), and that file takes
    its place. So it survives the process at any moment, `kill -9` included. It is not forced
    to the disk, which would take milliseconds an event; a machine that loses power may
    find an earlier ID, and get again what came after it.

    One process and one thread at a time.

    Args:
        path: a regular file, or none yet; a symbolic link stands for what it points to, and
            stays. A folder, a FIFO, a socket or a device, such as `/dev/null`, is left alone.

    Examples:
        >>> import tempfile
        >>> folder = tempfile.TemporaryDirectory()
        >>> file = ResumeFile(os.path.join(folder.name, "place"))
        >>> file.load()
        ''
        >>> file.save("7")
        >>> file.load()
        '7'
        >>> folder.cleanup()
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = os.path.realpath(path)
        self._new = f"{self._path}.new"
        self._saved: str | None = None

    def load(self) -> str:
        """Return the last event ID; `""` if there is no file, or nothing in it.

        Raises:
            ValueError: the file has something else.
            OSError: it cannot be read, or is no regular file. A FIFO is not waited for.
        """
        _refuse_other_than_file(self._path)
        try:
            content = Path(self._path).read_bytes().decode()
        except FileNotFoundError:
            return ""
        except UnicodeDecodeError as error:
            position = error.start
        else:
            last_event_id = content.removesuffix("\n")
            check_last_event_id("the last event ID", last_event_id)
            return last_event_id
        raise ValueError(f"byte {position} is not UTF-8: no last event ID")

    def save(self, last_event_id: str) -> None:
        """Replace what the file has; nothing is done if it has been saved already.

        Raises:
            TypeError, ValueError: it is no last event ID.
            OSError: it cannot be written, or it or `<name>.new` is no regular file; what is
                there stays as it was.
        """
        if last_event_id == self._saved:
            return
        check_last_event_id("last_event_id", last_event_id)
        for path in (self._path, self._new):
            _refuse_other_than_file(path)
        with open(self._new, "wb") as file:  # noqa: PTH123 - done for each event
            file.write(f"{last_event_id}\n".encode())
        os.replace(self._new, self._path)  # noqa: PTH105
        self._saved = last_event_id


def _refuse_other_than_file(path: str) -> None:
    """Raise `OSError` if there is something else: to open a FIFO waits for its other end.

    And to rename a file to it would replace it.
    """
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "not a regular file", path)
