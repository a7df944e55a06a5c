"""`eventsource relay`: stores a stream in a log, as a service or at a terminal."""

from __future__ import annotations

import contextlib
import json
import logging
import sys
import time
from collections.abc import Iterator, Sequence

import click
import requests
from rich.console import Console
from rich.live import Live
from rich.text import Text

from eventsource.protocol.policy import ReconnectPolicy
from eventsource.relay import Relay, Sink
from eventsource.urls import redact

from .command import COUNT, STATUS, Command, run_command
from .ending import Ending
from .failures import Exit, Stop, exit_for, reason, say_if_ready
from .requesting import fields_of, seconds, with_scheme

HELP = """Relay the event stream at URL into the log NAME at LOG, each event once.

\b
  eventsource relay https://example.com/orders redis://localhost --stream orders
  eventsource relay https://example.com/orders nats://localhost --stream orders

Run it on several machines: one leads, the others stand by. What happens is logged on standard
error. LOG may have a password, which other users of the machine see in the list of processes;
the environment variable EVENTSOURCE_LOG is not seen there.
"""

EXIT_STATUSES = """\b
Exit status:
    0  the server ended the stream (204)
    1  no relay can go on: not an event stream, an event too large, no ids to take over with, ...
    2  wrong use: an option, an argument, a package that is not installed
   22  an HTTP status other than 200 and 204
  129  SIGHUP
  130  Ctrl-C
  143  SIGTERM

Whatever else fails, it says so and keeps trying: a host that is not known, a certificate that
cannot be verified, a log that cannot be written.
"""


@click.command(
    cls=Command,
    help=HELP,
    epilog=EXIT_STATUSES,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.argument("url", metavar="URL")
@click.argument("log", metavar="LOG", envvar="EVENTSOURCE_LOG")
@click.option("--stream", "name", metavar="NAME", required=True, help="The name of the log.")
@click.option(
    "--lease",
    type=float,
    callback=seconds,
    default=10.0,
    metavar="SECONDS",
    help="How long a relay that does not answer keeps the lead. 10 by default.",
)
@click.option(
    "--maxlen",
    type=COUNT,
    metavar="N",
    help="How many events to keep (Redis: about that many). All by default.",
)
@click.option(
    "--allow-gaps",
    is_flag=True,
    help="Continue where events may be missing: take over even if the server sends no ids, and"
    " start over if the log is gone.",
)
@click.option(
    "-H", "--header", "headers", metavar="'NAME: VALUE'", multiple=True, help="A header field."
)
@click.option(
    "--event-timeout",
    type=float,
    callback=seconds,
    metavar="SECONDS",
    help="Reconnect if no event comes for this long.",
)
@click.option(
    "--retry-status",
    "statuses",
    type=STATUS,
    multiple=True,
    metavar="STATUS",
    help="Try again after this status, e.g. 503.",
)
@click.option(
    "--format",
    "format_",
    type=click.Choice(["text", "jsonl"]),
    default="text",
    help="The format of the log: text, or one JSON object per line.",
)
def command(
    url: str,
    log: str,
    name: str,
    lease: float,
    maxlen: int | None,
    allow_gaps: bool,
    headers: tuple[str, ...],
    event_timeout: float | None,
    statuses: tuple[int, ...],
    format_: str,
) -> None:
    """Make a relay from the options, and run it until it ends or is to end."""
    try:
        relay = Relay(
            with_scheme(url),
            _sink(log, name, maxlen),
            lease=lease,
            allow_gaps=allow_gaps,
            headers=fields_of(*headers),
            event_timeout=event_timeout,
            reconnect=ReconnectPolicy(statuses=frozenset(statuses)),
        )
    except (TypeError, ValueError, ImportError) as error:  # an argument, which the message names
        raise Stop(Exit.USAGE, str(error)) from None
    with (
        Ending(relay.close) as ending,
        ending.at_signals(),
        _told(relay, as_json=format_ == "jsonl"),
    ):
        try:
            relay.run()
        except (requests.RequestException, TypeError, ValueError) as error:
            why = f"{redact(url)}: {reason(error)}"
            if format_ == "jsonl":
                say_if_ready(_as_json(time.time(), "ERROR", why))
                why = ""
            stop = Stop(exit_for(error, has_opened=True), why)
        else:
            ending.check()
            stop = Stop(Exit.DONE)
    raise stop


def run(arguments: Sequence[str]) -> int:
    """Run the command; return the exit status."""
    return run_command(command, arguments, "eventsource relay")


def _sink(log: str, name: str, maxlen: int | None) -> Sink:
    scheme = log.partition("://")[0].lower()
    if scheme in ("redis", "rediss", "unix"):
        from eventsource.relay import RedisStream  # noqa: PLC0415 - needs an extra

        return RedisStream(log, name, maxlen=maxlen)
    if scheme in ("nats", "tls"):
        from eventsource.relay import JetStream  # noqa: PLC0415 - needs an extra

        return JetStream(log, name, max_msgs=maxlen)
    raise click.UsageError("LOG must begin with redis://, rediss://, unix://, nats:// or tls://")


class _Lines(logging.Handler):
    """Prints log lines, above the line of status if there is one."""

    def __init__(self, console: Console | None, *, as_json: bool) -> None:
        super().__init__(logging.INFO)
        self._console = console
        self._as_json = as_json

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if self._as_json:
            text = _as_json(record.created, record.levelname, text)
        else:
            text = f"{record.levelname} {text}"
        if self._console is None:
            say_if_ready(text)
        else:
            self._console.print(Text(text), soft_wrap=True)


def _as_json(at: float, level: str, message: str) -> str:
    return json.dumps({"time": at, "level": level, "message": message})


@contextlib.contextmanager
def _told(relay: Relay, *, as_json: bool) -> Iterator[None]:
    """Within the block, print on standard error what the package logs."""
    has_terminal = sys.stderr is not None and sys.stderr.isatty() and not as_json
    console = Console(stderr=True, highlight=False) if has_terminal else None
    logger = logging.getLogger("eventsource")
    handler, level = _Lines(console, as_json=as_json), logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        with contextlib.ExitStack() as stack:
            if console is not None:
                line = Live(
                    console=console,
                    get_renderable=lambda: _status(relay),
                    transient=True,
                    redirect_stdout=False,
                    redirect_stderr=False,
                )
                stack.enter_context(line)
            yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


def _status(relay: Relay) -> Text:
    place = f", up to {relay.last_event_id!r}" if relay.last_event_id else ""
    return Text(f"{'leading' if relay.leading else 'not leading'}{place}", no_wrap=True)
