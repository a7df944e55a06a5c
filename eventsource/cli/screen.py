"""A terminal: events in colour, and a line of status below them.

The invariant: everything is written to the terminal by `Screen._put`, in whole lines, with the
line of status after them. Between two writes no attribute is on, and the cursor is never
hidden. So whatever ends the process, `kill -9` included, the terminal stays usable. Nothing that
a server sends controls the terminal: see `visible()`.
"""

from __future__ import annotations

import math
import re
import sys
import threading
import time
from collections import deque
from datetime import datetime
from typing import Final, Self

from rich.console import Console
from rich.filesize import decimal
from rich.highlighter import JSONHighlighter
from rich.text import Text

from eventsource.protocol.events import MessageEvent, ReadyState
from eventsource.runtime.wakeup import Wakeup

from .ending import Ending
from .failures import Stop
from .formats import counted, on_one_line, one_line, pretty, visible
from .output import AT_ONCE, Output

SPAN: Final = 5.0
"""The rate is the mean of this many seconds."""
REFRESH: Final = 0.25
"""Seconds between two updates of the line of status: often enough, and cheap."""
ERASE: Final = "\r\x1b[K"
"""Erases the line that the cursor is in."""
PLAIN: Final = "\x1b[m"
"""No attributes."""
_ATTRIBUTES: Final = re.compile("\x1b\\[[0-9;]*m")


class Status:
    """The content of the line of status. The reading thread writes it, `Screen` shows it.

    Attributes:
        events: messages so far.
        received: bytes of event streams so far.
        reconnects: connections after the first.
        failure: why there is no connection; `""` if there is one, or nothing has failed yet.
    """

    def __init__(self) -> None:
        self.events = 0
        self.received = 0
        self.reconnects = 0
        self.failure = ""
        self._state = ReadyState.CONNECTING
        self._due = 0.0  # when the next attempt is made (monotonic clock)
        self._samples: deque[tuple[float, int]] = deque([(time.monotonic(), 0)])

    def opened(self) -> None:
        """Note that there is a connection."""
        self.failure = ""
        self._state = ReadyState.OPEN

    def lost(self, why: str, retry_in: float) -> None:
        """Note that the connection is lost, and that the next attempt follows in `retry_in` s."""
        self.failure = why
        self._due = time.monotonic() + retry_in
        self._state = ReadyState.CONNECTING

    def rate(self, now: float) -> float:
        """Return the events per second in the last few seconds (`SPAN`)."""
        while len(self._samples) > 1 and self._samples[1][0] <= now - SPAN:
            self._samples.popleft()
        then, events = self._samples[0]
        if now - self._samples[-1][0] >= REFRESH:
            self._samples.append((now, self.events))
        return (self.events - events) / max(now - then, 1.0)

    def line(self) -> Text:
        """Return the line. The most important comes first, because the line may be cut off."""
        now = time.monotonic()
        is_open = self._state is ReadyState.OPEN
        parts = [Text(f"● {self._state.name}", "bold green" if is_open else "bold yellow")]
        if not is_open and self._due > now:
            parts.append(Text(f"next attempt in {math.ceil(self._due - now)} s", "yellow"))
        if not is_open and self.failure:
            parts.append(Text(self.failure, "dim"))
        parts += [
            Text(counted(self.events, "event")),
            Text(f"{self.rate(now):.1f}/s"),
            Text(decimal(self.received)),
        ]
        if self.reconnects:
            parts.append(Text(counted(self.reconnects, "reconnect")))
        line = Text()
        for part in parts:
            line.append(" · " if line else "", "dim").append_text(part)
        return line


class Screen:
    """Shows events and notes on a terminal.

    One thread gives it events and notes; they appear at `flush()`. Within a `with` block, a
    thread of its own updates the line of status.

    Args:
        console: knows what the terminal can do.
        output: writes to the terminal.
        ending: set if the terminal cannot be written to.
        status: the content of the line of status; None: there is no such line.
    """

    def __init__(
        self, console: Console, output: Output, ending: Ending, status: Status | None
    ) -> None:
        self._console = console
        self._output = output
        self._ending = ending
        moves = not console.is_dumb_terminal and not console.legacy_windows
        self._status = status if moves else None
        self._unwritten: list[str] = []
        self._is_within_line = False  # the text shown last has no line feed at its end
        self._lock = threading.Lock()  # held while something is written
        self._shown = ""  # the line of status that the terminal shows
        self._is_over = False
        self._wakeup = Wakeup()
        self._thread = threading.Thread(
            target=self._keep_up, name="eventsource-status", daemon=True
        )

    @property
    def has_status(self) -> bool:
        """Whether it has the line of status."""
        return self._status is not None

    def show(self, event: MessageEvent) -> None:
        """Show an event in the form for people, with colours."""
        head = Text()
        head.append(datetime.now().astimezone().strftime("%H:%M:%S.%f")[:-3], "dim")
        head.append(f"  {visible(event.type)}", "bold cyan")
        if event.last_event_id:
            head.append("  id ", "dim").append(visible(event.last_event_id), "blue")
        self._render(head)
        data = pretty(event.data)
        if data is None:
            self._unwritten.append(f"{visible(event.data)}\n")
        else:
            data = on_one_line(data, self._output.columns()) or data
            self._render(JSONHighlighter()(Text(data)))
        self._unwritten.append("\n")

    def show_plain(self, text: str) -> None:
        """Show text without colours, as it is also written to a file."""
        if text:
            self._unwritten.append(visible(text))
            self._is_within_line = not text.endswith("\n")

    def print(self, text: Text) -> None:
        """Show a line that has no control characters."""
        self._render(text)

    def note(self, line: str) -> None:
        """Show a line about the connection, as a line of its own."""
        if self._is_within_line:
            self._unwritten.append("\n")
            self._is_within_line = False
        mark, _, text = one_line(line).partition(" ")
        name, colon, value = text.partition(": ")
        if mark in ("<", ">") and colon:
            shown = Text.assemble((f"{mark} ", "dim"), (name, "cyan"), (f": {value}", "dim"))
        else:
            shown = Text.assemble((f"{mark} ", "dim"), (text, "bold" if mark in "<>" else "dim"))
        self._render(shown)

    def _render(self, text: Text) -> None:
        with self._console.capture() as capture:
            # Lines are not wrapped, so that text copied from the terminal is what was sent.
            self._console.print(text, soft_wrap=True)
        for line in re.split("(?<=\n)", capture.get()):
            # A line that takes more than one write may be cut off, with its attributes on.
            fits = len(line.encode(errors="backslashreplace")) + len(ERASE) <= AT_ONCE
            self._unwritten.append(line if fits else _ATTRIBUTES.sub("", line))

    def flush(self) -> None:
        """Write what has been shown since the last call.

        Raises:
            Stop: the terminal cannot be written to, or the command is to end.
        """
        if self._unwritten:
            text = "".join(self._unwritten)
            self._unwritten.clear()
            self._put(text)

    def _put(self, text: str) -> None:
        with self._lock:
            line = self._line()
            if line == self._shown and not text:
                return
            erase = ERASE if self._shown else ""
            self._shown = line
            # In one write, so that the line does not flicker.
            data = f"{erase}{text}{line}"
            self._output.write(data.encode(self._console.encoding, "backslashreplace"))

    def _line(self) -> str:
        """Return the line of status, cut to the width of the terminal."""
        if self._status is None:
            return ""
        line = self._status.line()
        # The last column would wrap, and the terminal itself may add `^C`.
        line.truncate(max(self._output.columns() - 3, 1), overflow="ellipsis")
        with self._console.capture() as capture:
            self._console.print(line, soft_wrap=True, end="")
        return capture.get()

    def _keep_up(self) -> None:
        while not self._is_over:
            try:
                self._put("")
            except Stop as stop:
                self._ending.set(stop)
                return
            self._wakeup.wait(REFRESH)

    def __enter__(self) -> Self:
        if self._status is not None:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over = True
        if self._status is not None:
            self._wakeup.set()
            self._thread.join()
        if self._shown:
            self._output.write_if_ready(f"{PLAIN}{ERASE}".encode())
        elif self._is_within_line:
            self._output.write_if_ready(b"\n")


def terminal(number: int) -> Console | None:
    """Return a console for standard output (1) or standard error (2) if it is a terminal.

    The system decides that; rich would also look at `FORCE_COLOR`.
    """
    stream = sys.stdout if number == 1 else sys.stderr
    if stream is None or not stream.isatty():
        return None
    console = Console(file=stream, highlight=False)
    if console.legacy_windows:  # it would print escape sequences as text
        return Console(file=stream, highlight=False, color_system=None)
    return console
