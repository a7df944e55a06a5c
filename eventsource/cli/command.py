"""The options of the command, as curl and HTTPie spell them, and what they stand for."""

from __future__ import annotations

import getpass
import json
import os
import re
import ssl
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from urllib3.exceptions import LocationParseError
from urllib3.util import SKIP_HEADER, parse_url

from eventsource import __version__

from .failures import Exit, Stop, say
from .following import Settings, follow
from .formats import FORMATS


def seconds(_: object, __: object, value: float | None) -> float | None:
    """Check an option that is a time."""
    if value is not None and not 0 < value <= threading.TIMEOUT_MAX:  # nor not a number
        raise click.BadParameter(f"{value} is not a number of seconds.")
    return value


def size(_: object, __: object, value: str | None) -> int | None:
    """Make a number of bytes of an option, as curl does: `k`, `M`, `G`, ... are powers of 1,024."""
    if value is None:
        return None
    found = re.fullmatch(r"([0-9]{1,15})([kmgtp]?)", value, re.IGNORECASE)
    if found is None or not int(found[1]):
        raise click.BadParameter(f"{value!r} is not a number of bytes, such as 500k or 20M.")
    number: int = int(found[1]) * 1024 ** " kmgtp".index(found[2].lower() or " ")
    return number


COUNT = click.IntRange(min=1)
STATUS = click.IntRange(min=100, max=599)
JSON = b"application/json"
FILE = click.Path(exists=True, dir_okay=False, readable=True)

HELP = """Print the events of the event stream at URL as they come.

\b
  eventsource https://example.com/stream
  eventsource --format jsonl URL | jq .data
  eventsource -d '{"prompt": "Hello"}' -H "Authorization: Bearer $TOKEN" --format data URL
  eventsource --resume place --format jsonl -o events.jsonl URL

`eventsource demo` shows a stream that breaks off and is resumed; `eventsource relay --help` is
about relaying a stream into Redis or NATS,
`eventsource serve --help` about serving a recording, or standard input.
"""

EXIT_STATUSES = """\b
Exit status:
    0  all events that were asked for, or the server ended the stream
    1  closed for good otherwise: no event stream, an event too large, ...
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
    "--data-binary",
    multiple=True,
    metavar="DATA",
    help="The body; @FILE takes it from a file, - from standard input. Makes it a POST, of"
    " application/json if it is a JSON object or array, else of a form. Several are joined by &.",
)
@click.option(
    "--data-raw", multiple=True, metavar="DATA", help="The same; @ and - mean themselves."
)
@click.option(
    "--json", "json_", multiple=True, metavar="DATA", help="Like -d, of application/json anyway."
)
@click.option(
    "-b", "--cookie", "cookies", multiple=True, metavar="NAME=VALUE", help="Cookies to send."
)
@click.option("-A", "--user-agent", metavar="NAME", help="The header field User-Agent.")
@click.option("-e", "--referer", metavar="URL", help="The header field Referer.")
@click.option("-u", "--user", metavar="USER:PASSWORD", help="Without a password, it is asked for.")
@click.option(
    "--cacert", type=click.Path(exists=True), metavar="FILE", help="CA certificates to trust (PEM)."
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
@click.option("-n", "--count", type=COUNT, metavar="COUNT", help="End after so many events.")
@click.option(
    "-m",
    "--max-time",
    type=float,
    callback=seconds,
    metavar="SECONDS",
    help="End after this time.",
)
@click.option(
    "--connect-timeout",
    type=float,
    callback=seconds,
    default=10.0,
    metavar="SECONDS",
    help="10 by default.",
)
@click.option(
    "--event-timeout",
    type=float,
    callback=seconds,
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
    help="End before the FILE of --record is larger; 500k and 20M will do.",
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
@click.option(
    "-N",
    "--no-buffer",
    "-L",
    "--location",
    "-f",
    "--fail",
    "-S",
    "--show-error",
    "--compressed",
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
    data_raw: tuple[str, ...],
    json_: tuple[str, ...],
    cookies: tuple[str, ...],
    user_agent: str | None,
    referer: str | None,
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
    record: str | None,
    force: bool,
    max_filesize: int | None,
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
    if output == "-":
        output = None
    if resume and output and os.path.realpath(resume) == os.path.realpath(output):
        raise click.UsageError("--resume and --output name the same file")
    if resume and output and f"{os.path.realpath(resume)}.new" == os.path.realpath(output):
        raise click.UsageError(f"--output: --resume writes to {output} first")
    _check_record(record, force, max_filesize, {"--output": output, "--resume": resume})
    if proxy is not None:
        proxy = _checked_proxy(proxy)
    _check_certificates(cacert, cert, key)
    if json_ and (data or data_raw):
        raise click.UsageError("--json takes the place of --data")
    fields = fields_of(
        *headers,
        *(f"Cookie: {_pair(cookie)}" for cookie in cookies),
        *([] if user_agent is None else [f"User-Agent: {user_agent}"]),
        *([] if referer is None else [f"Referer: {referer}"]),
    )
    body = _body(data, data_raw, json_)
    if body is not None and "content-type" not in map(str.lower, fields):
        fields["Content-Type"] = JSON if json_ else _content_type(body)
    method = method or ("GET" if body is None else "POST")
    options: dict[str, Any] = {
        "method": method,
        "headers": fields,
        "data": body,
        "auth": _credentials(user) if user is not None else None,
        "verify": False if insecure else cacert or True,
        "cert": (cert, key) if cert and key else cert,
        "proxies": {"http": proxy, "https": proxy} if proxy else None,
        "timeout": (connect_timeout, None),
        "event_timeout": event_timeout,
    }
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
    """Run a command of that name; return the exit status. What ends it is told in one line."""
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
    except SystemExit:  # click's, if nobody reads what --help prints
        return Exit.PIPE_CLOSED
    except OSError as error:  # or it cannot be written
        say(f"{name}: {error.strerror or error}")
        return Exit.NO_OUTPUT
    return Exit.DONE  # --help


def with_scheme(url: str) -> str:
    """Complete an address as curl and HTTPie do."""
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", url):
        return url
    return f"http://localhost{url}" if url.startswith(":") else f"http://{url}"


def _checked_proxy(proxy: str) -> str:
    url = with_scheme(proxy)
    try:
        host = parse_url(url).host
    except LocationParseError:
        host = None
    if not host:
        raise click.UsageError("-x: not the URL of a proxy")  # which may hold a password
    return url


def _check_certificates(cacert: str | None, cert: str | None, key: str | None) -> None:
    """Refuse files that no connection could be made with."""

    def refuse() -> str:
        raise click.UsageError("--cert: the key is encrypted; openssl pkey can decrypt it")

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        if cacert is not None:
            in_folder = Path(cacert).is_dir()
            context.load_verify_locations(
                cafile=None if in_folder else cacert, capath=cacert if in_folder else None
            )
    except OSError as error:
        raise click.UsageError(f"--cacert: {cacert}: {_why(error)}") from None
    try:
        if cert is not None:
            context.load_cert_chain(cert, key, password=refuse)
    except OSError as error:
        files = cert if key is None else f"{cert}, {key}"
        raise click.UsageError(f"--cert: {files}: {_why(error)}") from None


def _why(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):  # of which OpenSSL says little
        return (error.reason or "not PEM").replace("_", " ").lower()
    return error.strerror or str(error)


def _in_bytes(argument: str) -> bytes:
    """What was given: text as UTF-8, and what is none as it is."""
    return argument.encode("utf-8", "surrogateescape")


def _pair(cookie: str) -> str:
    if "=" not in cookie:  # with curl, the name of a file
        raise click.UsageError("-b: not NAME=VALUE")
    return cookie


def fields_of(*headers: str) -> dict[str, bytes | str | None]:
    """Make header fields of `-H`; one that comes again is added to the first (RFC 9110, 5.3)."""
    fields: dict[str, bytes | str | None] = {}
    names: dict[str, str] = {}  # as they were given first, by what they mean
    for header in headers:
        name, colon, text = header.partition(":")
        if not colon and header.endswith(";"):
            name = header[:-1]
        elif not colon:
            shown = re.match(r"[-\w]+(?=[\s=;])", header)  # what follows may be a secret
            raise click.UsageError(
                f"-H: no colon after the field's name{f' {shown.group()!r}' if shown else ''}"
            )
        name = names.setdefault(name.strip().lower(), name.strip())
        value = _in_bytes(text.strip())
        before = fields.get(name)
        if colon and not value:
            # http.client and urllib3 have some of their own, if they are not told.
            own = name.lower() in ("accept-encoding", "host", "user-agent")
            fields[name] = SKIP_HEADER if own else None
        elif isinstance(before, bytes):
            fields[name] = before + (b"; " if name.lower() == "cookie" else b", ") + value
        else:
            fields[name] = value
    return fields


def _body(data: Sequence[str], raw: Sequence[str], json_: Sequence[str]) -> bytes | None:
    if json_:
        return b"".join(_content("--json", part) for part in json_)
    parts = [*(_content("-d", part) for part in data), *map(_in_bytes, raw)]
    return b"&".join(parts) if parts else None


def _content(option: str, data: str) -> bytes:
    if data in ("-", "@-"):
        if sys.stdin is None:
            raise click.UsageError(f"{option}: standard input is closed")
        return sys.stdin.buffer.read()
    if not data.startswith("@"):
        return _in_bytes(data)
    try:
        return Path(data[1:]).read_bytes()
    except OSError as error:
        raise click.UsageError(f"{option}: {data[1:]}: {error.strerror}") from None


def _content_type(body: bytes) -> bytes:
    try:
        is_json = isinstance(json.loads(body), dict | list)
    except (ValueError, RecursionError):
        is_json = False
    return JSON if is_json else b"application/x-www-form-urlencoded"


def _credentials(user: str) -> tuple[bytes, bytes]:
    name, colon, password = user.partition(":")
    if not colon:
        if not _has_terminal():
            raise click.UsageError("-u: no password after the colon, and no terminal to ask at")
        try:
            password = getpass.getpass(f"Password of {name}: ", stream=sys.stderr)
        except EOFError:
            raise click.UsageError("-u: no password") from None
    return _in_bytes(name), _in_bytes(password)


def _has_terminal() -> bool:
    """Whether `getpass` will find a terminal: the process's own, or standard input."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | getattr(os, "O_NOCTTY", 0)))  # not on Windows
    except OSError:
        return sys.stdin is not None and sys.stdin.isatty()
    return True
