"""`ResumeFile`: a last event ID in a file, so that a program resumes where it left off."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from .protocol.session import check_last_event_id


class ResumeFile:
    """Keeps a last event ID in a file, which has the old ID or the new one at any moment.

    The file has one line. A new ID is written to a second file (`<name>.new`), which then
    replaces the first. So the file is complete even if the process ends at any moment, also by
    `kill -9`. The ID is not forced to the disk, because that would take milliseconds per event.
    So after a power failure the file may have an earlier ID, and the events after it come
    again.

    Only one process and one thread may use it at a time.

    Args:
        path: the path of a regular file, which need not exist yet. A symbolic link is followed
            and remains. A folder, a FIFO, a socket or a device, such as `/dev/null`, is not
            touched.

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
        """Return the last event ID; `""` if there is no file, or it is empty.

        Raises:
            ValueError: the content is not a last event ID.
            OSError: the file cannot be read, or is not a regular file. A FIFO is not waited
                for.
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
        raise ValueError(f"byte {position} is not UTF-8, so this is not a last event ID")

    def save(self, last_event_id: str) -> None:
        """Replace the content of the file. Does nothing if the ID was saved last time.

        Raises:
            TypeError, ValueError: the value is not a last event ID.
            OSError: the file cannot be written, or it or `<name>.new` is not a regular file.
                The files are then unchanged.
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
    """Raise `OSError` if the path is something else than a file.

    To open a FIFO would wait for its other end, and to rename a file to it would replace it.
    """
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "not a regular file", path)
