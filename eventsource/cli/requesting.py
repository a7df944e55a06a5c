"""The options of the request, named as in curl, and their meaning.

The commands that send a request share them: `asking` adds them to a command, which passes their
values to `request_options()`.
"""

from __future__ import annotations

import getpass
import json
import os
import re
import ssl
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import click
from urllib3.exceptions import LocationParseError
from urllib3.util import SKIP_HEADER, parse_url

JSON: Final = b"application/json"
FILE: Final = click.Path(exists=True, dir_okay=False, readable=True)

F = TypeVar("F", bound=Callable[..., Any])


def seconds(_: object, __: object, value: float | None) -> float | None:
    """Check an option that is a time."""
    if value is not None and not 0 < value <= threading.TIMEOUT_MAX:  # also refuses nan
        raise click.BadParameter(f"{value} is not a number of seconds.")
    return value


_OPTIONS: Final = (
    click.option(
        "-H",
        "--header",
        "headers",
        metavar="'NAME: VALUE'",
        multiple=True,
        help="A header field. 'NAME:' sends none of that name, 'NAME;' an empty one.",
    ),
    click.option("-X", "--request", "method", metavar="METHOD", help="GET unless there is data."),
    click.option(
        "-d",
        "--data",
        "--data-binary",
        multiple=True,
        metavar="DATA",
        help="The body; @FILE takes it from a file, - from standard input. Makes the request a"
        " POST, of application/json if the body is a JSON object or array, else of a form. Several"
        " are joined by &.",
    ),
    click.option(
        "--data-raw",
        multiple=True,
        metavar="DATA",
        help="Like -d, but @ and - have no special meaning.",
    ),
    click.option(
        "--json",
        "json_",
        multiple=True,
        metavar="DATA",
        help="Like -d, always as application/json.",
    ),
    click.option(
        "-b", "--cookie", "cookies", multiple=True, metavar="NAME=VALUE", help="Cookies to send."
    ),
    click.option("-A", "--user-agent", metavar="NAME", help="The header field User-Agent."),
    click.option("-e", "--referer", metavar="URL", help="The header field Referer."),
    click.option(
        "-u", "--user", metavar="USER:PASSWORD", help="Without a password, it is asked for."
    ),
    click.option(
        "--cacert",
        type=click.Path(exists=True),
        metavar="FILE",
        help="CA certificates to trust (PEM).",
    ),
    click.option("--cert", type=FILE, metavar="FILE", help="A client certificate (PEM)."),
    click.option("--key", type=FILE, metavar="FILE", help="Its key, if that is in another file."),
    click.option("-k", "--insecure", is_flag=True, help="Do not verify the server's certificate."),
    click.option("-x", "--proxy", metavar="URL", help="Use this proxy."),
)


def asking(function: F) -> F:
    """Add the options of the request to a command. `function` gets them by keyword."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


connect_timeout: Final = click.option(
    "--connect-timeout",
    type=float,
    callback=seconds,
    default=10.0,
    metavar="SECONDS",
    help="10 by default.",
)
"""One more, apart from `asking`, so that `--help` lists it with a command's other times."""


as_curl: Final = click.option(
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
)
"""Options of curl that have no effect here; a copied curl command may have them."""


def request_options(
    *,
    headers: Sequence[str],
    method: str | None,
    data: Sequence[str],
    data_raw: Sequence[str],
    json_: Sequence[str],
    cookies: Sequence[str],
    user_agent: str | None,
    referer: str | None,
    user: str | None,
    cacert: str | None,
    cert: str | None,
    key: str | None,
    insecure: bool,
    proxy: str | None,
    connect_timeout: float,
) -> dict[str, Any]:
    """Return the arguments of `EventStream` for these options. May ask for a password.

    Raises:
        click.UsageError: they contradict each other, or one cannot be used.
    """
    if key and not cert:
        raise click.UsageError("--key needs --cert")
    if insecure and cacert:
        raise click.UsageError("--cacert and --insecure contradict each other")
    if proxy is not None:
        proxy = _checked_proxy(proxy)
    _check_certificates(cacert, cert, key)
    if json_ and (data or data_raw):
        raise click.UsageError("--json cannot be used with --data")
    fields = fields_of(
        *headers,
        *(f"Cookie: {_pair(cookie)}" for cookie in cookies),
        *([] if user_agent is None else [f"User-Agent: {user_agent}"]),
        *([] if referer is None else [f"Referer: {referer}"]),
    )
    body = _body(data, data_raw, json_)
    if body is not None and "content-type" not in map(str.lower, fields):
        fields["Content-Type"] = JSON if json_ else _content_type(body)
    return {
        "method": method or ("GET" if body is None else "POST"),
        "headers": fields,
        "data": body,
        "auth": _credentials(user) if user is not None else None,
        "verify": False if insecure else cacert or True,
        "cert": (cert, key) if cert and key else cert,
        "proxies": {"http": proxy, "https": proxy} if proxy else None,
        "timeout": (connect_timeout, None),
    }


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
        raise click.UsageError("-x: not the URL of a proxy")  # not quoted: it may have a password
    return url


def _check_certificates(cacert: str | None, cert: str | None, key: str | None) -> None:
    """Refuse files with which no connection could be made."""

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
    if isinstance(error, ssl.SSLError):  # OpenSSL's reasons are short codes
        return (error.reason or "not PEM").replace("_", " ").lower()
    return error.strerror or str(error)


def _in_bytes(argument: str) -> bytes:
    """Return an argument as bytes: text in UTF-8, undecodable bytes as they were."""
    return argument.encode("utf-8", "surrogateescape")


def _pair(cookie: str) -> str:
    if "=" not in cookie:  # for curl this is the name of a file
        raise click.UsageError("-b: not NAME=VALUE")
    return cookie


def fields_of(*headers: str) -> dict[str, bytes | str | None]:
    """Make header fields from `-H`; values of the same name are joined (RFC 9110, 5.3)."""
    fields: dict[str, bytes | str | None] = {}
    names: dict[str, str] = {}  # lower case: the first spelling
    for header in headers:
        name, colon, text = header.partition(":")
        if not colon and header.endswith(";"):
            name = header[:-1]
        elif not colon:
            shown = re.match(r"[-\w]+(?=[\s=;])", header)  # the rest may be a secret
            raise click.UsageError(
                f"-H: no colon after the field's name{f' {shown.group()!r}' if shown else ''}"
            )
        name = names.setdefault(name.strip().lower(), name.strip())
        value = _in_bytes(text.strip())
        before = fields.get(name)
        if colon and not value:
            # http.client and urllib3 add their own values of these unless told to skip them.
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
            raise click.UsageError("-u: no password after the colon, and no terminal to ask for it")
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
