"""Follows a stream and prints its events: the main loop of the command.

The invariant: an event is written before its ID goes into the file of `--resume`.
"""

from __future__ import annotations

import codecs
import contextlib
import functools
import stat
import sys
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TextIO

import requests
from urllib3.exceptions import InsecureRequestWarning
from urllib3.util import SKIP_HEADER

from eventsource.errors import UnexpectedContentType, UnexpectedStatus
from eventsource.protocol.events import Comment, ErrorEvent, MessageEvent, OpenEvent
from eventsource.protocol.policy import ReconnectPolicy
from eventsource.resume import ResumeFile
from eventsource.stream import EventStream
from eventsource.urls import redact, redact_field

from .ending import Ending
from .failures import Exit, Stop, exit_for, reason, say, say_if_ready
from .formats import FORMATS, counted
from .output import STANDARD_OUTPUT, Output, descriptor
from .record_file import RecordFile, recording_to
from .screen import Screen, Status, terminal
from .secrets import hide, secrets_of

MAX_BODY: Final = 2000
"""Characters of a refusal's body that `-v` shows."""


@dataclass(frozen=True)
class Settings:
    """The options of the command, checked."""

    url: str
    options: dict[str, Any] = field(repr=False)
    """Further arguments of `EventStream`."""
    reconnect: bool
    """Whether to reconnect after a connection that had opened."""
    retry_connect: bool
    """Whether to try again before any connection has opened."""
    statuses: frozenset[int]
    """The statuses after which to try again."""
    last_event_id: str
    resume: str | None
    """Path of the file with the last event ID."""
    types: frozenset[str]
    """The event types to print; empty: all."""
    count: int | None
    """Events to print; None: no limit."""
    max_time: float | None
    """Seconds."""
    output: str | None
    """Path; None: standard output."""
    format: str
    record: str | None
    """Path of the recording; None: there is none."""
    force: bool
    """Whether that file may exist."""
    max_filesize: int | None
    """The most bytes that it may have."""
    verbose: bool
    silent: bool


def follow(settings: Settings) -> None:
    """Print the stream's events until the command is to end.

    Raises:
        Stop: always, with the reason of the end.
        KeyboardInterrupt: Ctrl-C, before it has begun.
    """
    place = None if settings.resume is None else _Place(settings.resume)
    last_event_id = settings.last_event_id if place is None or place.is_empty() else place.load()

    def take_bytes(chunk: bytes) -> None:
        printer.take_bytes(chunk)  # it is set before anything is read

    try:
        stream = EventStream(
            settings.url,
            last_event_id=last_event_id,
            reconnect=ReconnectPolicy(statuses=settings.statuses),
            comments=settings.verbose,
            on_bytes=take_bytes,
            **settings.options,
        )
    except (TypeError, ValueError) as error:  # an argument, which the message names
        raise Stop(Exit.USAGE, str(error)) from None
    with contextlib.ExitStack() as stack:
        if settings.options.get("verify") is False:  # asked for by --insecure
            stack.enter_context(warnings.catch_warnings())
            warnings.simplefilter("ignore", InsecureRequestWarning)
        stack.enter_context(stream)
        ending = stack.enter_context(Ending(stream.close))
        number = stack.enter_context(
            descriptor(settings.output, mend=place is not None and settings.format == "jsonl")
        )
        record = None
        if settings.record is not None:
            file = recording_to(
                settings.record,
                stream.url,
                ending,
                force=settings.force,
                limit=settings.max_filesize,
            )
            record = stack.enter_context(file)
        if place:
            place.save(last_event_id)  # first, to find out whether the file can be written
        output = Output(number, settings.output or STANDARD_OUTPUT, ending)
        stack.enter_context(ending.at_signals())
        stack.enter_context(output.watched())
        status = Status()
        if settings.max_time is not None:
            out_of_time = functools.partial(_out_of_time, settings.max_time, stream, status)
            stack.enter_context(ending.after(settings.max_time, out_of_time))
        screen = _screen(settings, output, ending, status)
        if screen:
            stack.enter_context(screen)
        printer = _Printer(settings, stream, ending, output, place, record, screen, status)
        printer.run()


def _out_of_time(max_time: float, stream: EventStream, status: Status) -> Stop:
    """Return the `Stop` of `--max-time`, with the last failure if there is no connection."""
    have = "has" if max_time == 1 else "have"
    text = f"--max-time: {counted(max_time, 'second')} {have} passed"
    if failure := status.failure:  # another thread may be about to change it
        text = f"{redact(stream.url)}: {text}; the last failure: {failure}"
    return Stop(Exit.TIMEOUT, text)


def _screen(settings: Settings, output: Output, ending: Ending, status: Status) -> Screen | None:
    """Return the terminal to show events or notes on, if there is one."""
    console = terminal(1 if settings.output is None else 2)
    if console is None:
        return None
    if settings.output is not None:
        output = Output(console.file.fileno(), "standard error", ending)
    # Raw bytes may end within a line; a line of status cannot follow that.
    wanted = not settings.silent and (settings.format != "raw" or settings.output is not None)
    return Screen(console, output, ending, status if wanted else None)


class _Place(ResumeFile):
    """The file of `--resume`. If it cannot be read or written, the command ends."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self._shown = path

    def is_empty(self) -> bool:
        """Whether the file is missing or empty. An empty line stands for an empty ID."""
        try:
            status = Path(self._shown).stat()
        except FileNotFoundError:
            return True
        except OSError as error:
            raise self._unreadable(error) from None
        if not stat.S_ISREG(status.st_mode):  # a FIFO and a device have no size either
            raise Stop(Exit.USAGE, f"--resume: {self._shown}: not a regular file")
        return status.st_size == 0

    def load(self) -> str:
        try:
            return super().load()
        except (ValueError, OSError) as error:
            raise self._unreadable(error) from None

    def _unreadable(self, error: Exception) -> Stop:
        return Stop(Exit.USAGE, f"{self._shown}: {getattr(error, 'strerror', None) or error}")

    def save(self, last_event_id: str) -> None:
        try:
            super().save(last_event_id)
        except OSError as error:
            raise Stop(Exit.NO_OUTPUT, f"{self._shown}: {error.strerror}") from None


class _Printer:
    """Prints the items of a stream, and decides when the command ends."""

    def __init__(
        self,
        settings: Settings,
        stream: EventStream,
        ending: Ending,
        output: Output,
        place: _Place | None,
        record: RecordFile | None,
        screen: Screen | None,
        status: Status,
    ) -> None:
        self._settings = settings
        self._stream = stream
        self._ending = ending
        self._output = output
        self._place = place
        self._record = record
        self._screen = screen
        self._on_screen = screen if settings.output is None else None  # shows the events
        self._status = status
        self._format = FORMATS.get(settings.format)  # None: raw
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")  # for raw on a screen
        self._unwritten: list[bytes] = []  # formatted events of the present read
        self._secrets = secrets_of(
            settings.url, settings.options.get("proxies"), settings.options.get("headers") or {}
        )
        self._has_opened = False
        self._is_all_written = True  # everything taken from the stream has been written

    def run(self) -> None:
        """Print until the command is to end.

        Raises:
            Stop: always, with the reason of the end.
        """
        try:
            self._run()
        except Stop as stop:
            if self._record:
                self._record.ended(stop)
            raise
        finally:
            self._keep_place()

    def _run(self) -> None:
        self._note(f"* connecting to {redact(self._settings.url)}")
        while items := self._stream.take():
            self._is_all_written = False
            for item in items:
                if isinstance(item, MessageEvent):
                    self._print(item)
                else:
                    self._flush()
                    self._is_all_written = item is items[-1]
                    self._tell(item)
            self._flush()
            self._is_all_written = True
            self._keep_place()
        self._ending.check()
        raise Stop(Exit.FAILED, "the stream was closed")

    def _keep_place(self) -> None:
        # An id without an event changes the last event ID, too.
        if self._place and self._is_all_written:
            self._place.save(self._stream.last_event_id)

    def take_bytes(self, chunk: bytes) -> None:
        """Take the bytes of a read. The items of all reads before it have been written."""
        self._keep_place()
        if self._record:
            self._record.received(chunk)
        self._status.received += len(chunk)
        if self._format is not None:
            return
        if self._on_screen is None:
            self._output.write(chunk)
        else:
            self._on_screen.show_plain(self._decoder.decode(chunk))
            self._on_screen.flush()

    def _print(self, event: MessageEvent) -> None:
        self._ending.check()
        if not self._settings.types or event.type in self._settings.types:
            self._status.events += 1
            self._write(event)
        if self._place:
            self._flush()
            self._place.save(event.last_event_id)
        if self._status.events == self._settings.count:
            self._flush()
            raise Stop(Exit.DONE)

    def _write(self, event: MessageEvent) -> None:
        if self._format is None:
            return
        if self._on_screen is None:
            self._unwritten.append(self._format(event))
        elif self._settings.format == "text":
            self._on_screen.show(event)
        else:
            self._on_screen.show_plain(self._format(event).decode())

    def _flush(self) -> None:
        # The events of a read in one call; also called before anything that may take time.
        if self._unwritten:
            data = b"".join(self._unwritten)
            self._unwritten.clear()
            self._output.write(data)
        if self._screen:
            self._screen.flush()

    def _tell(self, item: OpenEvent | ErrorEvent | Comment) -> None:
        """Handle an item that is not an event of the server's.

        Raises:
            Stop: the command ends with it.
        """
        match item:
            case OpenEvent():
                if not self._has_opened and self._settings.output and not self._place:
                    self._output.empty()  # not before new content is certain to come
                self._learn_secrets(self._stream.response)
                if self._record:
                    self._record.opened(item, self._secrets)
                self._note_exchange(self._stream.response)
                if self._status.failure and not self._settings.verbose:  # -v has shown it
                    self._tell_unasked("open again" if self._has_opened else "open")
                self._status.opened()
                self._status.reconnects += self._has_opened
                self._has_opened = True
            case ErrorEvent(error=error, retry_in=retry_in):
                self._ending.check()  # if the end was asked for before, that is the reason
                self._learn_secrets(getattr(error, "response", None))
                why = hide(self._secrets, reason(error))
                goes_on = retry_in is not None and self._goes_on_after(error)
                if self._record:
                    self._record.lost(item, reason=why, goes_on=goes_on)
                self._note_exchange(getattr(error, "response", None))
                if isinstance(error, UnexpectedStatus | UnexpectedContentType):
                    self._note_body(error.response)
                if retry_in is None or not goes_on:
                    status = exit_for(error, has_opened=self._has_opened)
                    if status is Exit.DONE:
                        self._note(f"* ended: {why}")
                        raise Stop(status)
                    raise Stop(status, f"{redact(self._stream.url)}: {why}")
                plan = f"{why}; next attempt in {retry_in:.1f} s"
                if self._settings.verbose:
                    self._note(f"* {plan}")
                elif why != self._status.failure:  # the same reason in a row is printed once
                    self._tell_unasked(plan)
                self._status.lost(why, retry_in)
            case Comment(text=text):
                self._note(f"* comment: {text}")

    def _goes_on_after(self, error: Exception) -> bool:
        """Return whether to make the attempt that the stream would make next."""
        if self._has_opened:
            return self._settings.reconnect
        # A status is tried again only if it was named.
        asked_for = isinstance(error, UnexpectedStatus | UnexpectedContentType)
        return asked_for or self._settings.retry_connect

    def _learn_secrets(self, last: requests.Response | None) -> None:
        """Add those that requests has sent, from netrc for example."""
        for response in (*last.history, last) if last is not None else ():
            url, sent = response.request.url or "", response.request.headers
            self._secrets |= secrets_of(url, self._settings.options.get("proxies"), sent)

    def _note_exchange(self, last: requests.Response | None) -> None:
        if last is None or not self._settings.verbose:
            return
        for response in (*last.history, last):  # the redirects first
            request = response.request
            path, query, _ = request.path_url.partition("?")
            self._note(f"> {request.method} {path}{query and '?...'}")
            for name, value in request.headers.items():
                if value != SKIP_HEADER:
                    self._note(f"> {_shown(name, value)}")
            self._note(f"< {response.status_code} {response.reason}")
            for name, value in response.headers.items():
                self._note(f"< {_shown(name, value)}")

    def _note_body(self, response: requests.Response | None) -> None:
        if response is None or not self._settings.verbose or not response.content:
            return
        text = _text_of(response)
        if text is None:
            size = len(response.content)
            self._note(f"| {counted(size, 'byte')} that {'is' if size == 1 else 'are'} not text")
            return
        for line in text[:MAX_BODY].splitlines():
            self._note(f"| {line}")
        if len(text) > MAX_BODY:
            self._note("| ...")

    def _note(self, text: str) -> None:
        """Print a note about the connection if `-v` is set."""
        if not self._settings.verbose:
            return
        text = hide(self._secrets, text)
        if self._screen and _is_terminal(sys.stderr):
            self._screen.note(text)
            self._screen.flush()
        else:
            say(text)

    def _tell_unasked(self, text: str) -> None:
        """Print that the connection is lost or open again, if no line of status shows it."""
        if self._settings.silent:
            return
        text = f"eventsource: {redact(self._stream.url)}: {text}"
        if self._screen is None or not _is_terminal(sys.stderr):
            say_if_ready(text)
        elif not self._screen.has_status:
            self._screen.note(text)
            self._screen.flush()


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
