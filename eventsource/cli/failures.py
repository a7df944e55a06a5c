"""Exit statuses, and the text of a failure in one line.

The numbers are curl's where curl has one for the case.
"""

from __future__ import annotations

import contextlib
import enum
import re
import select
import sys

import requests

from eventsource.errors import EventTimeout, StreamEnded, UnexpectedStatus
from eventsource.urls import brief

from .formats import one_line


class Exit(enum.IntEnum):
    """Why the command ended."""

    DONE = 0
    """All events that were asked for, or the server ended the stream."""
    FAILED = 1
    """Closed for good: no event stream, an event that is too large, ..."""
    USAGE = 2
    """An option, the URL or a file to read cannot be used."""
    NO_HOST = 6
    """The host's name is not known."""
    NO_CONNECTION = 7
    """No connection, or no answer."""
    STATUS = 22
    """An HTTP status other than 200."""
    NO_OUTPUT = 23
    """The output, or the file of `--resume` or `--record`, cannot be written."""
    TIMEOUT = 28
    """The time of `--max-time` or of another limit has passed."""
    NO_TLS = 35
    """The TLS handshake failed."""
    LOST = 56
    """The connection was lost, and the client does not reconnect."""
    CERTIFICATE = 60
    """The server's certificate cannot be verified."""
    TOO_LARGE = 63
    """The recording would exceed `--max-filesize`."""
    HUNG_UP = 129
    """The terminal was closed: 128 and the number of SIGHUP."""
    INTERRUPTED = 130
    """Ctrl-C: 128 and the number of SIGINT."""
    PIPE_CLOSED = 141
    """The reader of the output has closed it: 128 and the number of SIGPIPE."""
    TERMINATED = 143
    """128 and the number of SIGTERM."""


class Stop(BaseException):
    """Ends the command. Not an `Exception`: code that handles failures must not catch it.

    Attributes:
        status: the exit status.
        text: the line to print on standard error; `""`: none.
    """

    def __init__(self, status: Exit, text: str = "") -> None:
        super().__init__(text)
        self.status = status
        self.text = text


def exit_for(error: Exception, *, has_opened: bool) -> Exit:
    """Return the exit status for what closed the stream for good.

    Args:
        error: that of the last `ErrorEvent`.
        has_opened: whether there has been a connection.
    """
    match error:
        case StreamEnded():
            return Exit.DONE
        case UnexpectedStatus(status=204):  # the server ended the stream for good
            return Exit.DONE
        case UnexpectedStatus():
            return Exit.STATUS
        case requests.ConnectionError() | requests.exceptions.ChunkedEncodingError() if (
            has_opened and not isinstance(error, requests.Timeout)
        ):
            return Exit.LOST
        case requests.exceptions.SSLError():
            unverified = "CERTIFICATE_VERIFY_FAILED" in str(error)
            return Exit.CERTIFICATE if unverified else Exit.NO_TLS
        case requests.Timeout() | EventTimeout():
            return Exit.TIMEOUT
        case requests.exceptions.InvalidSchema() | requests.exceptions.InvalidURL():
            return Exit.USAGE
        case requests.ConnectionError() | requests.exceptions.ChunkedEncodingError():
            return Exit.NO_HOST if "Failed to resolve" in str(error) else Exit.NO_CONNECTION
        case _:
            return Exit.FAILED


def reason(error: Exception) -> str:
    """Return the text of an error, in one line for people.

    Without the host that urllib3 puts before it, which is in the URL, and without `[Errno ...]`.
    """
    text = str(error) or type(error).__name__
    text = re.sub(r"^\S+:\d+: ", "", text)
    text = re.sub(r"\[Errno -?\d+\] ", "", text)
    return brief(one_line(text))


def say(text: str) -> None:
    """Print a line on standard error, if it is open."""
    if sys.stderr is None:  # closed; `print` would take standard output instead
        return
    with contextlib.suppress(OSError):  # a closed pipe: nothing can be reported
        print(one_line(text), file=sys.stderr, flush=True)  # noqa: T201


def say_if_ready(text: str) -> None:
    """Like `say()`, but print nothing if it would have to wait, because a pipe is full.

    For repeated messages of a long-running command, whose reader may have stopped reading.
    """
    if sys.stderr is not None and hasattr(select, "poll"):
        poll = select.poll()
        try:
            poll.register(sys.stderr, select.POLLOUT)
        except (OSError, ValueError):  # it has no descriptor, so it is not a pipe
            pass
        else:
            if not poll.poll(0):
                return
    say(text)
