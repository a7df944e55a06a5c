"""The options of the command, as curl and HTTPie spell them, and what they stand for."""

from __future__ import annotations

import getpass
import json
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from eventsource import __version__

from .failures import Exit, Stop
from .following import Settings, follow, say
from .formats import FORMATS

SECONDS = click.FloatRange(min=0, min_open=True, max=threading.TIMEOUT_MAX)
FILE = click.Path(exists=True, dir_okay=False, readable=True)

HELP = """Print the events of the event stream at URL as they come.

\b
  eventsource https://example.com/stream
  eventsource --format jsonl URL | jq .data
  eventsource -d '{"prompt": "Hello"}' -H "Authorization: Bearer $TOKEN" --format data URL
  eventsource --resume place --format jsonl -o events.jsonl URL

`eventsource demo` shows a stream that breaks off and is resumed.
"""

EXIT_STATUSES = """\b
Exit status:
    0  all events that were asked for, or the server ended the stream
    1  closed for good otherwise: no event stream, an event too large, ...
    2  wrong use: an option, the URL, a file to read
    6  the host's name is not known
    7  no connection, or no answer
   22  an HTTP status other than 200 (204: 0)
   23  the output or the file of --resume cannot be written
   28  --max-time or another limit has passed
   35  the TLS handshake failed
   56  the connection was lost, and is not to be made again
   60  the server's certificate cannot be verified
  130  Ctrl-C
  141  nobody reads the output any more
  143  SIGTERM
"""


@click.command(
    help=HELP, epilog=EXIT_STATUSES, context_settings={"help_option_names": ["-h", "--help"]}
)
@click.argument("url", metavar="URL")
@click.option(
    "-H",
    "--header",
    "headers",
    metavar="'NAME: VALUE'",
    multiple=True,
    help="A header field. 'NAME:' sends none of that name, 'NAME;' an empty one.",
)
@click.option("-X", "--request", "method", metavar="METHOD", help="GET unless there is data.")
@click.option(
    "-d",
    "--data",
    multiple=True,
    metavar="DATA",
    help="The body; @FILE takes it from a file, - from standard input. Makes it a POST, of"
    " application/json if it is a JSON object or array, else of a form. Several are joined by &.",
)
@click.option("-u", "--user", metavar="USER:PASSWORD", help="Without a password, it is asked for.")
@click.option(
    "--cacert", type=click.Path(exists=True), metavar="FILE", help="Authorities to trust."
)
@click.option("--cert", type=FILE, metavar="FILE", help="A client certificate (PEM).")
@click.option("--key", type=FILE, metavar="FILE", help="Its key, if that is in another file.")
@click.option("-k", "--insecure", is_flag=True, help="Do not verify the server's certificate.")
@click.option("-x", "--proxy", metavar="URL", help="Go through this proxy.")
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
@click.option("-n", "--count", type=click.IntRange(min=1), help="End after so many events.")
@click.option("--max-time", type=SECONDS, metavar="SECONDS", help="End after this time.")
@click.option(
    "--connect-timeout", type=SECONDS, default=10.0, metavar="SECONDS", help="10 by default."
)
@click.option(
    "--event-timeout",
    type=SECONDS,
    metavar="SECONDS",
    help="Reconnect if no event comes for so long.",
)
@click.option(
    "--reconnect/--no-reconnect",
    default=None,
    help="Whether to go on when the connection is lost. Yes by default for GET, else no.",
)
@click.option(
    "--retry-connect", is_flag=True, help="Go on trying also before there was a connection."
)
@click.option(
    "--retry-status",
    "statuses",
    type=click.IntRange(100, 599),
    multiple=True,
    metavar="STATUS",
    help="Try again after this status, e.g. 503.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False),
    metavar="FILE",
    help="Write to FILE; with --resume, to its end.",
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
    "-v", "--verbose", is_flag=True, help="Show requests, responses, comments on standard error."
)
@click.option("-s", "--silent", is_flag=True, help="No line of status on the terminal.")
@click.option(
    "-N",
    "--no-buffer",
    "-L",
    "--location",
    "-f",
    "--fail",
    "-S",
    "--show-error",
    "_curl",
    is_flag=True,
    hidden=True,
)  # what it does anyway
@click.version_option(__version__, message="%(prog)s %(version)s")
def command(
    url: str,
    headers: tuple[str, ...],
    method: str | None,
    data: tuple[str, ...],
    user: str | None,
    cacert: str | None,
    cert: str | None,
    key: str | None,
    insecure: bool,
    proxy: str | None,
    last_event_id: str,
    resume: str | None,
    types: tuple[str, ...],
    count: int | None,
    max_time: float | None,
    connect_timeout: float,
    event_timeout: float | None,
    reconnect: bool | None,
    retry_connect: bool,
    statuses: tuple[int, ...],
    output: str | None,
    format_: str,
    verbose: bool,
    silent: bool,
    _curl: bool,
) -> None:
    """Make settings of the options, and follow the stream."""
    if key and not cert:
        raise click.UsageError("--key needs --cert")
    if insecure and cacert:
        raise click.UsageError("--cacert and --insecure contradict each other")
    if format_ == "raw" and types:
        raise click.UsageError("--event cannot choose among the bytes of --format raw")
    body = _body(data)
    method = method or ("GET" if body is None else "POST")
    fields: dict[str, bytes | None] = {}
    if body is not None:
        fields["Content-Type"] = _content_type(body)
    fields |= _fields(headers)
    options: dict[str, Any] = {
        "method": method,
        "headers": fields,
        "data": body,
        "auth": _credentials(user) if user is not None else None,
        "verify": False if insecure else cacert or True,
        "cert": (cert, key) if cert and key else cert,
        "proxies": {"http": _with_scheme(proxy), "https": _with_scheme(proxy)} if proxy else None,
        "timeout": (connect_timeout, None),
        "event_timeout": event_timeout,
    }
    follow(
        Settings(
            url=_with_scheme(url),
            options=options,
            reconnect=method.upper() in ("GET", "HEAD") if reconnect is None else reconnect,
            retry_connect=retry_connect,
            statuses=frozenset(statuses),
            last_event_id=last_event_id,
            resume=resume,
            types=frozenset(types),
            count=count,
            max_time=max_time,
            output=output,
            format=format_,
            verbose=verbose,
            silent=silent,
        )
    )


def run(arguments: Sequence[str]) -> int:
    """Run the command; return the exit status."""
    try:
        command.main([*arguments], prog_name="eventsource", standalone_mode=False)
    except Stop as stop:
        if stop.text:
            say(f"eventsource: {stop.text}")
        return stop.status
    except click.ClickException as error:
        say(f"eventsource: {error.format_message()} (see: eventsource --help)")
        return Exit.USAGE
    except (TypeError, ValueError) as error:  # of arguments, by the library
        say(f"eventsource: {error}")
        return Exit.USAGE
    except (click.Abort, KeyboardInterrupt):
        return Exit.INTERRUPTED
    return Exit.DONE  # --help


def _with_scheme(url: str) -> str:
    """Complete an address as curl and HTTPie do."""
    if "://" in url:
        return url
    return f"http://localhost{url}" if url.startswith(":") else f"http://{url}"


def _fields(headers: Sequence[str]) -> dict[str, bytes | None]:
    fields: dict[str, bytes | None] = {}
    for header in headers:
        name, colon, value = header.partition(":")
        if not colon and header.endswith(";"):
            name, value = header[:-1], ""
        elif not colon:
            raise click.UsageError(f"-H: {name!r} has no colon after the field's name")
        removed = colon and not value.strip()
        fields[name.strip()] = None if removed else value.strip().encode()
    return fields


def _body(data: Sequence[str]) -> bytes | None:
    return b"&".join(map(_content, data)) if data else None


def _content(data: str) -> bytes:
    if data in ("-", "@-"):
        return sys.stdin.buffer.read()
    if not data.startswith("@"):
        return data.encode()
    try:
        return Path(data[1:]).read_bytes()
    except OSError as error:
        raise click.UsageError(f"-d: {data[1:]}: {error.strerror}") from None


def _content_type(body: bytes) -> bytes:
    try:
        is_json = isinstance(json.loads(body), dict | list)
    except (ValueError, RecursionError):
        is_json = False
    return b"application/json" if is_json else b"application/x-www-form-urlencoded"


def _credentials(user: str) -> tuple[bytes, bytes]:
    name, colon, password = user.partition(":")
    if not colon:
        if sys.stdin is None or not sys.stdin.isatty():
            raise click.UsageError("-u: no password after the colon, and no terminal to ask at")
        password = getpass.getpass(f"Password of {name}: ", stream=sys.stderr)
    return name.encode(), password.encode()
