"""A terminal: events in colour, and a line of status below them.

All that goes to the terminal goes through one `rich.console.Console`, which moves the line
of status out of the way. Nothing that a server sends gives it orders.
"""

from __future__ import annotations

import math
import sys
import time
from collections import deque
from datetime import datetime
from typing import Final, Self

from rich.console import Console
from rich.filesize import decimal
from rich.highlighter import JSONHighlighter
from rich.live import Live
from rich.text import Text

from eventsource.events import MessageEvent, ReadyState

from .formats import pretty, visible

SPAN: Final = 5.0
"""Seconds that the rate is the mean of."""
REFRESHES: Final = 4.0
"""A second: often enough to look alive, seldom enough to cost nothing."""


class Status:
    """What the line of status tells. The reading thread writes, another one shows it.

    Attributes:
        events: messages so far.
        received: bytes of event streams so far.
        reconnects: connections after the first.
    """

    def __init__(self) -> None:
        self.events = 0
        self.received = 0
        self.reconnects = 0
        self._state = ReadyState.CONNECTING
        self._lost = ""  # why
        self._due = 0.0  # when the next attempt is made (monotonic clock)
        self._samples: deque[tuple[float, int]] = deque([(time.monotonic(), 0)])

    def opened(self) -> None:
        """Note that there is a connection."""
        self._state = ReadyState.OPEN

    def lost(self, why: str, retry_in: float) -> None:
        """Note that it has been lost, and when another one will be made, in seconds."""
        self._lost = why
        self._due = time.monotonic() + retry_in
        self._state = ReadyState.CONNECTING

    def rate(self, now: float) -> float:
        """Return the events per second in the last few seconds (`SPAN`)."""
        while len(self._samples) > 1 and self._samples[1][0] <= now - SPAN:
            self._samples.popleft()
        then, events = self._samples[0]
        if now - self._samples[-1][0] > 1 / REFRESHES:
            self._samples.append((now, self.events))
        return (self.events - events) / max(now - then, 1.0)

    def line(self) -> Text:
        """Return the line."""
        now = time.monotonic()
        colour = {ReadyState.OPEN: "green", ReadyState.CONNECTING: "yellow"}[self._state]
        line = Text(no_wrap=True, overflow="ellipsis")
        line.append(f"● {self._state.name}", colour)
        for count, noun in ((self.events, "event"), (self.reconnects, "reconnect")):
            line.append(f"  {count:,} {noun}{'' if count == 1 else 's'}")
        line.append(f"  {self.rate(now):.1f}/s  {decimal(self.received)}")
        wait = self._due - now
        if self._state is ReadyState.CONNECTING and self._lost:
            line.append(f"  next attempt in {math.ceil(wait)} s" if wait > 0 else "  connecting")
            line.append(f": {self._lost}", "dim")
        return line


class Screen:
    """Shows on a terminal what happens. For one thread; rich has another one of its own.

    Args:
        console: of the terminal.
        status: what the line of status tells; None: there is none.
    """

    def __init__(self, console: Console, status: Status | None) -> None:
        self._console = console
        self._live = (
            Live(
                console=console,
                get_renderable=status.line,
                refresh_per_second=REFRESHES,
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            if status is not None and not console.is_dumb_terminal
            else None
        )

    def show(self, event: MessageEvent) -> None:
        """Show an event, in the order and colours for people."""
        head = Text(datetime.now().astimezone().strftime("%H:%M:%S.%f")[:-3], "dim")
        head.append(f" {visible(event.type)}", "bold cyan")
        if event.last_event_id:
            head.append(f" id={visible(event.last_event_id)}", "dim")
        data = pretty(event.data)
        text = Text(visible(event.data)) if data is None else JSONHighlighter()(Text(data))
        # Lines are as long as they are, so that what is copied is what was sent.
        self._console.print(Text.assemble(head, "\n", text, "\n"), soft_wrap=True)

    def show_plain(self, text: str) -> None:
        """Show text in a form that is the same elsewhere."""
        self._console.print(Text(visible(text)), soft_wrap=True, end="")

    def note(self, line: str) -> None:
        """Show a line about the connection."""
        self._console.print(Text(visible(line), "dim"), soft_wrap=True)

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start(refresh=True)
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()


def terminal(number: int) -> Console | None:
    """Return a console for standard output (1) or standard error (2) if it is a terminal.

    By the system's account: rich goes by `FORCE_COLOR`, too.
    """
    stream = sys.stdout if number == 1 else sys.stderr
    if stream is None or not stream.isatty():
        return None
    return Console(file=stream, highlight=False)
