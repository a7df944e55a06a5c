"""Follow a stream, and print what comes: the loop under the command."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import requests
import urllib3

from eventsource.errors import UnexpectedContentType, UnexpectedStatus
from eventsource.events import Comment, ErrorEvent, MessageEvent, OpenEvent
from eventsource.reconnect import ReconnectPolicy
from eventsource.stream import EventStream, Item
from eventsource.urls import redact

from .failures import Exit, Stop, exit_for, reason
from .formats import FORMATS, visible
from .output import Output
from .place import Place
from .screen import Screen, Status, terminal

HIDDEN: Final = frozenset({"authorization", "proxy-authorization", "cookie", "set-cookie"})
"""Header fields whose values `-v` does not show: what it prints goes into bug reports."""
MAX_BODY: Final = 2000
"""Characters of an error's body that `-v` shows."""


@dataclass(frozen=True)
class Settings:
    """What the command was asked for."""

    url: str
    options: dict[str, Any] = field(repr=False)
    """Further arguments of `EventStream`."""
    reconnect: bool
    """After a connection that had opened."""
    retry_connect: bool
    """Before there was one."""
    statuses: frozenset[int]
    """Those that are tried again."""
    last_event_id: str
    resume: str | None
    """Path of the file with the place."""
    types: frozenset[str]
    """The event types to print; empty: all."""
    count: int | None
    """Events to print; None: as many as there are."""
    max_time: float | None
    """Seconds."""
    output: str | None
    """Path; None: standard output."""
    format: str
    verbose: bool
    silent: bool


def follow(settings: Settings) -> None:
    """Print the stream's events until there is a reason to end.

    Raises:
        Stop: always, with that reason.
        KeyboardInterrupt: Ctrl-C.
        TypeError, ValueError: an argument of the request cannot be used; the message
            names it. Nothing has been sent.
    """
    place = Place(settings.resume) if settings.resume is not None else None
    last_event_id = (place.read() if place else "") or settings.last_event_id
    tap = _Tap(
        settings.url,
        last_event_id=last_event_id,
        reconnect=ReconnectPolicy(statuses=settings.statuses),
        comments=settings.verbose,
        **settings.options,
    )
    with contextlib.ExitStack() as stack:
        if settings.options.get("verify") is False:  # which was asked for, by name
            stack.enter_context(warnings.catch_warnings())
            warnings.simplefilter("ignore", urllib3.exceptions.InsecureRequestWarning)
        stack.enter_context(tap)
        output = stack.enter_context(Output(settings.output, append=place is not None))
        if place:
            place.write(last_event_id)  # before anything is printed that could not be noted
        stack.enter_context(_ended_by(signal.SIGTERM))
        stack.enter_context(output.watched(lambda: tap.stop(Exit.PIPE_CLOSED)))
        if settings.max_time is not None:
            stack.enter_context(_alarm(settings.max_time, tap))
        status = Status()
        # Raw bytes are for programs, and end in the middle of a line.
        console = (
            terminal(1 if settings.output is None else 2) if settings.format != "raw" else None
        )
        screen = Screen(console, None if settings.silent else status) if console else None
        if screen:
            stack.enter_context(screen)
        _Printer(settings, tap, output, place, screen, status).run()


class _Tap(EventStream):
    """A stream whose bytes can be had as they come, and that is told why it is closed."""

    stopped: Stop | None = None

    def stop(self, status: Exit, text: str = "") -> None:
        """Close, for a reason; the first one counts. For any thread."""
        if self.stopped is None:
            self.stopped = Stop(status, text)
        self.close()

    def on_bytes(self, chunk: bytes) -> None:
        """Called with what has been read, before it is parsed."""

    def _parse(self, chunk: bytes) -> list[Item]:
        self.on_bytes(chunk)
        return super()._parse(chunk)


class _Printer:
    """Prints what a stream brings, and decides when that is enough."""

    def __init__(
        self,
        settings: Settings,
        stream: _Tap,
        output: Output,
        place: Place | None,
        screen: Screen | None,
        status: Status,
    ) -> None:
        self._settings = settings
        self._stream = stream
        self._output = output
        self._place = place
        self._screen = screen
        self._status = status
        self._format = FORMATS.get(settings.format)  # None: raw
        self._unwritten = b""  # of what one read has brought
        self._has_opened = False
        stream.on_bytes = self._take_bytes  # type: ignore[method-assign]

    def run(self) -> None:
        """Go on until there is a reason to end.

        Raises:
            Stop: always, with that reason.
        """
        self._note(f"* connecting to {redact(self._settings.url)}")
        while items := self._stream.take():
            for item in items:
                if isinstance(item, MessageEvent):
                    self._print(item)
                else:
                    self._flush()
                    self._tell(item)
            self._flush()
            if self._place:  # an id moves the place also without an event
                self._place.write(self._stream.resume_id)
        raise self._stream.stopped or Stop(Exit.FAILED, "the stream was closed")

    def _take_bytes(self, chunk: bytes) -> None:
        self._status.received += len(chunk)
        if self._format is None:
            self._output.write(chunk)

    def _print(self, event: MessageEvent) -> None:
        if not self._settings.types or event.type in self._settings.types:
            self._status.events += 1
            self._write(event)
        if self._place:
            self._flush()
            self._place.write(event.last_event_id)
        if self._status.events == self._settings.count:
            self._flush()
            raise Stop(Exit.DONE)

    def _write(self, event: MessageEvent) -> None:
        if self._format is None:
            return
        if self._settings.output is not None or self._screen is None:
            self._unwritten += self._format(event)
        elif self._settings.format == "text":
            self._screen.show(event)
        else:
            self._screen.show_plain(self._format(event).decode())

    def _flush(self) -> None:
        # All of a read in one call; and before anything that may take time.
        if self._unwritten:
            data, self._unwritten = self._unwritten, b""
            self._output.write(data)

    def _tell(self, item: OpenEvent | ErrorEvent | Comment) -> None:
        """Deal with what is no event of the server's.

        Raises:
            Stop: it was the end.
        """
        match item:
            case OpenEvent():
                self._status.opened()
                self._status.reconnects += self._has_opened
                self._has_opened = True
                if self._stream.response is not None:
                    self._note_exchange(self._stream.response)
            case ErrorEvent(error=error, retry_in=retry_in):
                why = reason(error)
                if isinstance(error, UnexpectedStatus) and error.response is not None:
                    self._note_exchange(error.response)
                    self._note(error.response.text[:MAX_BODY])
                if retry_in is None or not self._goes_on_after(error):
                    status = exit_for(error, has_opened=self._has_opened)
                    self._note(f"* ended: {why}")
                    text = "" if status is Exit.DONE else f"{redact(self._stream.url)}: {why}"
                    raise Stop(status, text)
                self._status.lost(why, retry_in)
                self._note(f"* {why}; next attempt in {retry_in:.1f} s")
            case Comment(text=text):
                self._note(f"* comment: {text}")

    def _goes_on_after(self, error: Exception) -> bool:
        """Say whether to make the attempt that the stream would make."""
        if self._has_opened:
            return self._settings.reconnect
        # A status is tried again only if it was named.
        asked_for = isinstance(error, UnexpectedStatus | UnexpectedContentType)
        return asked_for or self._settings.retry_connect

    def _note_exchange(self, response: requests.Response) -> None:
        request = response.request
        lines = [f"> {request.method} {request.path_url}"]
        lines += [f"> {_shown(name, value)}" for name, value in request.headers.items()]
        lines += [f"< {response.status_code} {response.reason}"]
        lines += [f"< {_shown(name, value)}" for name, value in response.headers.items()]
        for line in lines:
            self._note(line)

    def _note(self, text: str) -> None:
        """Say something about the connection, if that is wanted."""
        if not self._settings.verbose:
            return
        if self._screen and sys.stderr is not None and sys.stderr.isatty():
            self._screen.note(text)
        else:
            say(text)


def _shown(name: str, value: str | bytes) -> str:
    if name.lower() in HIDDEN:
        return f"{name}: ..."
    return f"{name}: {value.decode('latin-1') if isinstance(value, bytes) else value}"


def say(text: str) -> None:
    """Print a line on standard error, if there is anyone to read it."""
    with contextlib.suppress(OSError):  # a closed pipe: there is nowhere to complain
        print(visible(text), file=sys.stderr, flush=True)  # noqa: T201


@contextlib.contextmanager
def _alarm(seconds: float, stream: _Tap) -> Iterator[None]:
    """Within, stop the stream after that time."""
    text = f"--max-time: {seconds:g} seconds have passed"
    timer = threading.Timer(seconds, stream.stop, (Exit.TIMEOUT, text))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()


@contextlib.contextmanager
def _ended_by(number: signal.Signals) -> Iterator[None]:
    """Within, end at this signal as at Ctrl-C, so that the terminal is left in order."""

    def end(*_: object) -> None:
        raise Stop(Exit.TERMINATED)

    before = signal.signal(number, end)
    try:
        yield
    finally:
        signal.signal(number, before)
