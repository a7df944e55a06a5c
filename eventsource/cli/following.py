"""Follows a stream and prints its events: the main loop of the command.

The invariant: an event is written before its ID goes into the file of `--resume`.
"""

from __future__ import annotations

import contextlib
import functools
import stat
import warnings
from pathlib import Path

from urllib3.exceptions import InsecureRequestWarning

from eventsource.errors import UnexpectedContentType, UnexpectedStatus
from eventsource.protocol.events import Comment, ErrorEvent, MessageEvent, OpenEvent
from eventsource.protocol.policy import ReconnectPolicy
from eventsource.resume import ResumeFile
from eventsource.stream import EventStream
from eventsource.urls import redact

from .display import Display, screen_for
from .ending import Ending
from .failures import Exit, Stop, exit_for, reason
from .formats import counted
from .output import STANDARD_OUTPUT, Output, descriptor
from .record_file import RecordFile, recording_to
from .screen import Status
from .secrets import hide
from .settings import Settings


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
        screen = screen_for(settings, output, ending, status)
        if screen:
            stack.enter_context(screen)
        display = Display(settings, output, screen, status)
        printer = _Printer(settings, stream, ending, display, place, record)
        printer.run()


def _out_of_time(max_time: float, stream: EventStream, status: Status) -> Stop:
    """Return the `Stop` of `--max-time`, with the last failure if there is no connection."""
    have = "has" if max_time == 1 else "have"
    text = f"--max-time: {counted(max_time, 'second')} {have} passed"
    if failure := status.failure:  # another thread may be about to change it
        text = f"{redact(stream.url)}: {text}; the last failure: {failure}"
    return Stop(Exit.TIMEOUT, text)


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
        display: Display,
        place: _Place | None,
        record: RecordFile | None,
    ) -> None:
        self._settings = settings
        self._stream = stream
        self._ending = ending
        self._display = display
        self._status = display.status
        self._place = place
        self._record = record
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
        self._display.note(f"* connecting to {redact(self._settings.url)}")
        while items := self._stream.take():
            self._is_all_written = False
            for item in items:
                if isinstance(item, MessageEvent):
                    self._print(item)
                else:
                    self._display.flush()
                    self._is_all_written = item is items[-1]
                    self._tell(item)
            self._display.flush()
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
        self._display.show_bytes(chunk)

    def _print(self, event: MessageEvent) -> None:
        self._ending.check()
        if not self._settings.types or event.type in self._settings.types:
            self._status.events += 1
            self._display.show(event)
        if self._place:
            self._display.flush()
            self._place.save(event.last_event_id)
        if self._status.events == self._settings.count:
            self._display.flush()
            raise Stop(Exit.DONE)

    def _tell(self, item: OpenEvent | ErrorEvent | Comment) -> None:
        """Handle an item that is not an event of the server's.

        Raises:
            Stop: the command ends with it.
        """
        match item:
            case OpenEvent():
                if not self._has_opened and self._settings.output and not self._place:
                    self._display.empty()  # not before new content is certain to come
                self._display.learn_secrets(self._stream.response)
                if self._record:
                    self._record.opened(item, self._display.secrets)
                self._display.note_exchange(self._stream.response)
                if self._status.failure and not self._settings.verbose:  # -v has shown it
                    self._tell_unasked("open again" if self._has_opened else "open")
                self._status.opened()
                self._status.reconnects += self._has_opened
                self._has_opened = True
            case ErrorEvent(error=error, retry_in=retry_in):
                self._ending.check()  # if the end was asked for before, that is the reason
                self._display.learn_secrets(getattr(error, "response", None))
                why = hide(self._display.secrets, reason(error))
                goes_on = retry_in is not None and self._goes_on_after(error)
                if self._record:
                    self._record.lost(item, reason=why, goes_on=goes_on)
                self._display.note_exchange(getattr(error, "response", None))
                if isinstance(error, UnexpectedStatus | UnexpectedContentType):
                    self._display.note_body(error.response)
                if retry_in is None or not goes_on:
                    status = exit_for(error, has_opened=self._has_opened)
                    if status is Exit.DONE:
                        self._display.note(f"* ended: {why}")
                        raise Stop(status)
                    raise Stop(status, f"{redact(self._stream.url)}: {why}")
                plan = f"{why}; next attempt in {retry_in:.1f} s"
                if self._settings.verbose:
                    self._display.note(f"* {plan}")
                elif why != self._status.failure:  # the same reason in a row is printed once
                    self._tell_unasked(plan)
                self._status.lost(why, retry_in)
            case Comment(text=text):
                self._display.note(f"* comment: {text}")

    def _goes_on_after(self, error: Exception) -> bool:
        """Return whether to make the attempt that the stream would make next."""
        if self._has_opened:
            return self._settings.reconnect
        # A status is tried again only if it was named.
        asked_for = isinstance(error, UnexpectedStatus | UnexpectedContentType)
        return asked_for or self._settings.retry_connect

    def _tell_unasked(self, text: str) -> None:
        self._display.tell(f"eventsource: {redact(self._stream.url)}: {text}")
