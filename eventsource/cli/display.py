"""What the command shows: events on its output or a screen, notes on the connection beside them.

The events of a read are written in one call, by `flush()`; a note is written at once.
"""

from __future__ import annotations

import codecs
import sys
from typing import Final, TextIO

import requests
from urllib3.util import SKIP_HEADER

from eventsource.protocol.events import MessageEvent
from eventsource.urls import redact_field

from .ending import Ending
from .failures import say, say_if_ready
from .formats import FORMATS, counted
from .output import Output
from .screen import Screen, Status, terminal
from .secrets import hide, secrets_of
from .settings import Settings

MAX_BODY: Final = 2000
"""Characters of a refusal's body that `-v` shows."""


class Display:
    """Shows the events and the notes. For the thread that follows the stream.

    Args:
        settings: what to show, and in which format.
        output: where the events are written, unless it is a terminal.
        screen: the terminal, if there is one; see `screen_for()`.
        status: the content of the line of status.

    Attributes:
        secrets: what no note shows.
    """

    def __init__(
        self, settings: Settings, output: Output, screen: Screen | None, status: Status
    ) -> None:
        self.status = status
        self.secrets = secrets_of(
            settings.url, settings.options.get("proxies"), settings.options.get("headers") or {}
        )
        self._settings = settings
        self._output = output
        self._screen = screen
        self._on_screen = screen if settings.output is None else None  # shows the events
        self._format = FORMATS.get(settings.format)  # None: raw
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")  # for raw on a screen
        self._unwritten: list[bytes] = []  # formatted events of the present read

    def empty(self) -> None:
        """Remove the former content of the output, if it is a file."""
        self._output.empty()

    def show_bytes(self, chunk: bytes) -> None:
        """Show the bytes of a read at once, if the format is raw."""
        if self._format is not None:
            return
        if self._on_screen is None:
            self._output.write(chunk)
        else:
            self._on_screen.show_plain(self._decoder.decode(chunk))
            self._on_screen.flush()

    def show(self, event: MessageEvent) -> None:
        """Show an event; at the next `flush()`."""
        if self._format is None:
            return
        if self._on_screen is None:
            self._unwritten.append(self._format(event))
        elif self._settings.format == "text":
            self._on_screen.show(event)
        else:
            self._on_screen.show_plain(self._format(event).decode())

    def flush(self) -> None:
        """Write the events since the last call.

        It is called after each read, and before anything that may take time.

        Raises:
            Stop: the output cannot be written to, or the command is to end.
        """
        if self._unwritten:
            data = b"".join(self._unwritten)
            self._unwritten.clear()
            self._output.write(data)
        if self._screen:
            self._screen.flush()

    def learn_secrets(self, last: requests.Response | None) -> None:
        """Add those that requests has sent, from netrc for example."""
        for response in (*last.history, last) if last is not None else ():
            url, sent = response.request.url or "", response.request.headers
            self.secrets |= secrets_of(url, self._settings.options.get("proxies"), sent)

    def note_exchange(self, last: requests.Response | None) -> None:
        """Note the header fields of a response and its request, and of redirects before it."""
        if last is None or not self._settings.verbose:
            return
        for response in (*last.history, last):  # the redirects first
            request = response.request
            path, query, _ = request.path_url.partition("?")
            self.note(f"> {request.method} {path}{query and '?...'}")
            for name, value in request.headers.items():
                if value != SKIP_HEADER:
                    self.note(f"> {_shown(name, value)}")
            self.note(f"< {response.status_code} {response.reason}")
            for name, value in response.headers.items():
                self.note(f"< {_shown(name, value)}")

    def note_body(self, response: requests.Response | None) -> None:
        """Note the beginning of a body that is no event stream."""
        if response is None or not self._settings.verbose or not response.content:
            return
        text = _text_of(response)
        if text is None:
            size = len(response.content)
            self.note(f"| {counted(size, 'byte')} that {'is' if size == 1 else 'are'} not text")
            return
        for line in text[:MAX_BODY].splitlines():
            self.note(f"| {line}")
        if len(text) > MAX_BODY:
            self.note("| ...")

    def note(self, text: str) -> None:
        """Print a note about the connection if `-v` is set."""
        if not self._settings.verbose:
            return
        text = hide(self.secrets, text)
        if self._screen and _is_terminal(sys.stderr):
            self._screen.note(text)
            self._screen.flush()
        else:
            say(text)

    def tell(self, text: str) -> None:
        """Print that the connection is lost or open again, if no line of status shows it."""
        if self._settings.silent:
            return
        if self._screen is None or not _is_terminal(sys.stderr):
            say_if_ready(text)
        elif not self._screen.has_status:
            self._screen.note(text)
            self._screen.flush()


def screen_for(settings: Settings, output: Output, ending: Ending, status: Status) -> Screen | None:
    """Return the terminal to show events or notes on, if there is one."""
    console = terminal(1 if settings.output is None else 2)
    if console is None:
        return None
    if settings.output is not None:
        output = Output(console.file.fileno(), "standard error", ending)
    # Raw bytes may end within a line; a line of status cannot follow that.
    wanted = not settings.silent and (settings.format != "raw" or settings.output is not None)
    return Screen(console, output, ending, status if wanted else None)


def _is_terminal(stream: TextIO | None) -> bool:
    return stream is not None and stream.isatty()


def _shown(name: str, value: str | bytes) -> str:
    """Return a header field without secrets."""
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
    return f"{name}: {redact_field(name, text)}"


def _text_of(response: requests.Response) -> str | None:
    """Return the beginning of a body, one character more than `MAX_BODY`; None: not text."""
    head = response.content[: 4 * (MAX_BODY + 1)]  # a character has at most four bytes
    stated = "charset" in response.headers.get("Content-Type", "").lower()
    try:
        text = head.decode((stated and response.encoding) or "utf-8", "replace")
    except (LookupError, ValueError):  # not an encoding of text, or one that always fails
        text = head.decode(errors="replace")
    # Other data has a NUL soon, or many bytes that cannot be decoded.
    text = text[: MAX_BODY + 1]
    return None if "\0" in text or text.count("\ufffd") > len(text) / 4 else text
