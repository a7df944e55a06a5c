"""The options of the command, named as in curl and HTTPie, and their meaning."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Sequence
from typing import Any

import click

from eventsource import __version__

from . import COMMANDS
from .failures import Exit, Stop, say
from .following import follow
from .formats import FORMATS
from .requesting import as_curl, asking, connect_timeout, request_options, seconds, with_scheme
from .settings import Settings


def size(_: object, __: object, value: str | None) -> int | None:
    """Convert an option to bytes as curl does: `k`, `M`, `G`, ... are powers of 1,024."""
    if value is None:
        return None
    found = re.fullmatch(r"([0-9]{1,15})([kmgtp]?)", value, re.IGNORECASE)
    if found is None or not int(found[1]):
        raise click.BadParameter(f"{value!r} is not a number of bytes, such as 500k or 20M.")
    number: int = int(found[1]) * 1024 ** " kmgtp".index(found[2].lower() or " ")
    return number


COUNT = click.IntRange(min=1)
STATUS = click.IntRange(min=100, max=599)

HELP = """Print the events of the event stream at URL as they come.

\b
  eventsource https://example.com/stream
  eventsource --format jsonl URL | jq .data
  eventsource -d '{"prompt": "Hello"}' -H "Authorization: Bearer $TOKEN" --format data URL
  eventsource --resume place --format jsonl -o events.jsonl URL

`eventsource demo` shows a stream that breaks off and is resumed; `eventsource check --help` is
about what may be wrong with a stream, `eventsource relay --help` about relaying one into Redis or
NATS, `eventsource serve --help` about serving a recording, or standard input.
"""

EXIT_STATUSES = """\b
Exit status:
    0  all events that were asked for, or the server ended the stream
    1  closed for good otherwise: not an event stream, an event too large, ...
    2  wrong use: an option, the URL, a file to read
    6  the host's name is not known
    7  no connection, or no answer
   22  an HTTP status other than 200 (204: 0)
   23  the output or the file of --resume or --record cannot be written
   28  --max-time or another limit has passed
   35  the TLS handshake failed
   56  the connection was lost, and is not to be made again
   60  the server's certificate cannot be verified
   63  the recording would exceed --max-filesize
  129  SIGHUP
  130  Ctrl-C
  141  nobody reads the output any more
  143  SIGTERM
"""


class Command(click.Command):
    """A command whose error about arguments that are too many does not quote them.

    They may be the rest of a header field without quotes, and so a secret.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse them; fail if there are more than the command takes."""
        ctx.allow_extra_args = True
        rest = super().parse_args(ctx, args)
        if rest and not ctx.resilient_parsing:
            names = [*COMMANDS, "demo"]
            meant = difflib.get_close_matches(str(ctx.params.get("url")), names, n=1)
            if self is command and meant:
                ctx.fail(f"too many arguments: did you mean `{ctx.info_name} {meant[0]}`?")
            ctx.fail(f"too many arguments (the last {len(rest)}): one with spaces needs quotes")
        return rest


@click.command(
    cls=Command,
    help=HELP,
    epilog=EXIT_STATUSES,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.argument("url", metavar="URL")
@asking
@click.option("--last-event-id", default="", metavar="ID", help="Begin after this event.")
@click.option(
    "--resume",
    type=click.Path(dir_okay=False),
    metavar="FILE",
    help="Keep the last event ID in FILE, after each event, and begin there if it has one.",
)
@click.option(
    "--event", "types", multiple=True, metavar="TYPE", help="Print events of this type only."
)
@click.option("-n", "--count", type=COUNT, metavar="COUNT", help="End after this many events.")
@click.option(
    "-m",
    "--max-time",
    type=float,
    callback=seconds,
    metavar="SECONDS",
    help="End after this many seconds.",
)
@connect_timeout
@click.option(
    "--event-timeout",
    type=float,
    callback=seconds,
    metavar="SECONDS",
    help="Reconnect if no event comes for this long.",
)
@click.option(
    "--reconnect/--no-reconnect",
    default=None,
    help="Whether to go on when the connection is lost. Yes by default for GET, else no.",
)
@click.option("--retry-connect", is_flag=True, help="Also retry if the first connection fails.")
@click.option(
    "--retry-status",
    "statuses",
    type=STATUS,
    multiple=True,
    metavar="STATUS",
    help="Try again after this status, e.g. 503.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False),
    metavar="FILE",
    help="Write to FILE; with --resume, to its end. - is standard output.",
)
@click.option(
    "--format",
    "format_",
    type=click.Choice([*FORMATS, "raw"]),
    default="text",
    help="text: for people. data: the data alone. jsonl: one JSON object per event."
    " raw: the bytes as they come.",
)
@click.option(
    "--record",
    type=click.Path(dir_okay=False),
    metavar="FILE",
    help="Also record what comes, for `eventsource serve FILE` and for tests.",
)
@click.option("--force", is_flag=True, help="Replace the FILE of --record, if it exists.")
@click.option(
    "--max-filesize",
    callback=size,
    metavar="BYTES",
    help="End before the FILE of --record becomes larger, e.g. 500k or 20M.",
)
@click.option(
    "-v", "--verbose", is_flag=True, help="Show requests, responses, comments on standard error."
)
@click.option(
    "-s",
    "--silent",
    is_flag=True,
    help="No line of status on the terminal, and none of a lost connection elsewhere.",
)
@as_curl
@click.version_option(__version__, message="%(prog)s %(version)s")
def command(
    url: str,
    last_event_id: str,
    resume: str | None,
    types: tuple[str, ...],
    count: int | None,
    max_time: float | None,
    event_timeout: float | None,
    reconnect: bool | None,
    retry_connect: bool,
    statuses: tuple[int, ...],
    output: str | None,
    format_: str,
    record: str | None,
    force: bool,
    max_filesize: int | None,
    verbose: bool,
    silent: bool,
    _curl: bool,
    **request: Any,
) -> None:
    """Make `Settings` from the options, and follow the stream."""
    if format_ == "raw" and types:
        raise click.UsageError("--event cannot choose among the bytes of --format raw")
    if output == "-":
        output = None
    if resume and output and os.path.realpath(resume) == os.path.realpath(output):
        raise click.UsageError("--resume and --output name the same file")
    if resume and output and f"{os.path.realpath(resume)}.new" == os.path.realpath(output):
        raise click.UsageError(f"--output: --resume writes to {output} first")
    _check_record(record, force, max_filesize, {"--output": output, "--resume": resume})
    options = {**request_options(**request), "event_timeout": event_timeout}
    method = options["method"]
    follow(
        Settings(
            url=with_scheme(url),
            options=options,
            reconnect=method.upper() == "GET" if reconnect is None else reconnect,
            retry_connect=retry_connect,
            statuses=frozenset(statuses),
            last_event_id=last_event_id,
            resume=resume,
            types=frozenset(types),
            count=count,
            max_time=max_time,
            output=output,
            format=format_,
            record=record,
            force=force,
            max_filesize=max_filesize,
            verbose=verbose,
            silent=silent,
        )
    )


def _check_record(
    record: str | None, force: bool, max_filesize: int | None, others: dict[str, str | None]
) -> None:
    if record is None:
        if force or max_filesize is not None:
            raise click.UsageError(f"{'--force' if force else '--max-filesize'} needs --record")
        return
    if record == "-":
        raise click.UsageError("--record: needs a file, not standard output")
    path = os.path.realpath(record)
    for option, other in others.items():
        if other is None:
            continue
        if path == os.path.realpath(other):
            raise click.UsageError(f"--record and {option} name the same file")
        if option == "--resume" and path == f"{os.path.realpath(other)}.new":
            raise click.UsageError(f"--record: --resume writes to {record} first")


def run(arguments: Sequence[str]) -> int:
    """Run the command; return the exit status."""
    return run_command(command, arguments, "eventsource")


def run_command(command: click.Command, arguments: Sequence[str], name: str) -> int:
    """Run a command; return the exit status. The reason of its end is printed in one line."""
    try:
        command.main([*arguments], prog_name=name, standalone_mode=False)
    except Stop as stop:
        if stop.text:
            say(f"{name}: {stop.text}")
        return stop.status
    except click.ClickException as error:
        say(f"{name}: {error.format_message()} (see: {name} --help)")
        return Exit.USAGE
    except (click.Abort, KeyboardInterrupt):
        return Exit.INTERRUPTED
    except SystemExit:  # by click: the reader of --help has closed the pipe
        return Exit.PIPE_CLOSED
    except OSError as error:  # --help cannot be written
        say(f"{name}: {error.strerror or error}")
        return Exit.NO_OUTPUT
    return Exit.DONE  # --help
