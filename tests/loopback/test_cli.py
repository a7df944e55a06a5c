"""The command: what it asks the server for, what it prints, and how it ends.

Most tests call it in this process, with files in the place of the standard streams; those in
which a process is the point start one. `test_cli_terminal.py` has the terminals,
`test_cli_resume.py` what becomes of the place.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import functools
import io
import itertools
import json
import os
import re
import signal
import socket
import ssl
import sys
import threading
from datetime import datetime
from pathlib import Path

import pytest

from eventsource import EventStream, ReconnectPolicy, __version__, cli
from eventsource.cli import following, formats
from eventsource.cli.failures import Exit
from eventsource.cli.screen import Status
from eventsource.testing import ScriptedServer
from tests.authority import AUTHORITY, server_context
from tests.conftest import secrets_in
from tests.real_servers.connect_proxy import Relay
from tests.support import (
    HEAD,
    LIMIT,
    QUERY_SECRET,
    SECRET,
    port_that_never_answers,
    port_that_refuses,
    respond,
    status,
    stream,
    wait_until,
    wait_until_blocked,
)

HI = b"data: hi\n\n"


@dataclasses.dataclass
class Done:
    """What a run of the command has come to."""

    status: int
    out: bytes
    err: str
    url: str = dataclasses.field(default="URL", compare=False)
    """Of the server that had the scripts."""
    requests: list = dataclasses.field(default_factory=list, compare=False)
    """Those that it got."""


@pytest.fixture
def run(capfdbinary):
    """Run the command in this process.

    Scripts among the arguments are those of a server, whose URL is the last argument.
    """

    def run(*arguments):
        scripts = [argument for argument in arguments if callable(argument)]
        if scripts:
            options = [argument for argument in arguments if not callable(argument)]
            with ScriptedServer(*scripts) as server:
                done = run(*options, server.url)
            return dataclasses.replace(done, url=server.url, requests=server.requests)
        capfdbinary.readouterr()
        code = cli.main([*arguments])
        captured = capfdbinary.readouterr()
        return Done(code, captured.out, captured.err.decode())

    return run


def asked(run, *options):
    """The request that the command makes with these options."""
    done = run(stream(HI, then="hold"), *options, "-n", "1")
    assert done.status == 0, done
    assert done.err == ""
    return done.requests[0]


def printed(run, *arguments, blocks):
    """What is printed of an event stream of these bytes."""
    done = run(stream(*blocks), *arguments, "--no-reconnect")
    assert (done.status, done.err) == (0, "")
    return done.out


@contextlib.contextmanager
def standard_output(monkeypatch, descriptor):
    """Within, `sys.stdout` is that."""
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", file)
            yield


@contextlib.contextmanager
def sink(kind, path=None):
    """Something that a standard stream may be: its descriptor, and a function that reads it."""
    if kind == "file":
        with path.open("wb", buffering=0) as file:
            yield file.fileno(), path.read_text
        return
    receiving, sending = os.openpty() if kind == "terminal" else os.pipe()
    got = bytearray()

    def read():
        with contextlib.suppress(OSError):  # nobody has the other end of a terminal open
            while data := os.read(receiving, 65536):
                got.extend(data)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        yield sending, lambda: bytes(got).decode(errors="ignore")
    finally:
        os.close(sending)
        reader.join(LIMIT)
        os.close(receiving)


def without_colours(text):
    return re.sub("\x1b\\[[0-9;]*m", "", text.replace("\r\n", "\n"))


@pytest.fixture
def quick(monkeypatch):
    """Reconnects at once, also before there was a stream that could ask for it."""
    policy = functools.partial(ReconnectPolicy, delay=0.02, jitter=0.0)
    monkeypatch.setattr("eventsource.cli.following.ReconnectPolicy", policy)


# --- What the server gets ---


HABITS = ["-N", "-L", "-S", "-f", "-s", "-NLSfs", "-sN"]  # of curl's users


@pytest.mark.parametrize(
    ("options", "method", "body"),
    [
        ([], "GET", b""),
        *[([habit], "GET", b"") for habit in HABITS],
        (["-X", "put", "-d", "x"], "PUT", b"x"),
        (["--request", "QUERY"], "QUERY", b""),
    ],
)
def test_the_method(run, options, method, body):
    request = asked(run, *options)
    assert (request.method, request.body) == (method, body)


def basic(credentials):
    return f"Basic {base64.b64encode(credentials.encode()).decode()}"


@pytest.mark.parametrize(
    ("options", "name", "value"),
    [
        ([], "Accept", "text/event-stream"),
        ([], "Last-Event-ID", None),
        (["-H", "X-Plain: a: b "], "X-Plain", "a: b"),
        (["--header", "X-Size:größer 日本"], "X-Size", "größer 日本"),
        (["-H", "X-Empty;"], "X-Empty", ""),
        (["-H", "user-agent: mine"], "User-Agent", "mine"),
        *[(["-H", f"{name}:"], name, None) for name in ("User-Agent", "accept", "cache-control")],
        (["-H", "Accept-Encoding:"], "Accept-Encoding", None),
        (["-H", "X-Tag: a", "-H", "x-tag: b"], "X-Tag", "a, b"),
        (["-H", "Cookie: a=1", "-H", "cookie: b=2"], "Cookie", "a=1; b=2"),
        *[(["-u", user], "Authorization", basic(user)) for user in ("a:b:c", "a:", "größer:日本")],
        (["--last-event-id", " größer"], "Last-Event-ID", "größer"),  # without spaces around it
    ],
)
def test_a_header_field(run, options, name, value):
    headers = asked(run, *options).headers
    found = [
        text.encode("latin-1").decode() for key, text in headers if key.lower() == name.lower()
    ]
    assert found == ([] if value is None else [value])


def test_bytes_that_are_no_utf_8_are_sent_as_they_are(run):
    argument = os.fsdecode(b"caf\xe9")
    request = asked(run, "-H", f"X-Name: {argument}", "-d", argument)
    assert request.header("X-Name") == "caf\xe9"
    assert request.body == b"caf\xe9"


FORM = "application/x-www-form-urlencoded"
JSON = "application/json"


@pytest.mark.parametrize(
    ("options", "body", "content_type"),
    [
        (["-d", "a=1"], b"a=1", FORM),
        (["-d", "a=1", "--data", "b=größer"], "a=1&b=größer".encode(), FORM),
        (["-d", ""], b"", FORM),
        (["-d", '{"a": 1}'], b'{"a": 1}', JSON),
        (["-d", " [1, 2]\n"], b" [1, 2]\n", JSON),
        (["-d", "12"], b"12", FORM),
        (["-d", '{"a": 1'], b'{"a": 1', FORM),
        (["-d", '{"a": 1}', "-d", "b"], b'{"a": 1}&b', FORM),
        (["-d", "[" * 100_000], b"[" * 100_000, FORM),
        (["-d", '{"a": 1}', "-H", "content-type: text/x"], b'{"a": 1}', "text/x"),
        (["-d", "a", "-H", "Content-Type:"], b"a", None),
        (["--data-binary", "a=1"], b"a=1", FORM),
        (["--data-raw", "@a"], b"@a", FORM),
        (["--data-raw", '{"a": "-"}'], b'{"a": "-"}', JSON),
        (["--data-raw", "-", "--data-raw", "@b", "-d", "a=1"], b"a=1&-&@b", FORM),
        (["--json", '{"a": 1}'], b'{"a": 1}', JSON),
        (["--json", "12"], b"12", JSON),
        (["--json", '{"a":', "--json", " 1}"], b'{"a": 1}', JSON),
        (["--json", '{"a": 1}', "-H", "content-type: text/x"], b'{"a": 1}', "text/x"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_data(run, options, body, content_type):
    request = asked(run, *options)
    assert request.method == "POST"
    assert request.body == body
    assert request.header("Content-Type") == content_type
    assert len([1 for name, _ in request.headers if name.lower() == "content-type"]) <= 1


def test_data_of_a_file_is_sent_byte_by_byte(run, tmp_path):
    path = tmp_path / "body"
    path.write_bytes(b'{"a":\r\n"\xc3\xb6"}\n')
    request = asked(run, "-d", f"@{path}")
    assert request.body == path.read_bytes()
    assert request.header("Content-Type") == JSON
    request = asked(run, "--json", f"@{path}")
    assert request.body == path.read_bytes()
    assert request.header("Accept") == "text/event-stream"  # not JSON: that is the body's type


@pytest.mark.parametrize("name", ["-", "@-"])
def test_data_of_standard_input(run, monkeypatch, name):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\xffpiped")))
    assert asked(run, "-d", name).body == b"\xffpiped"


def test_what_a_browser_copies_as_curl(run):
    request = asked(
        run,
        *("-H", "accept: */*", "-H", "Cookie: a=1", "-b", "b=2; c=3", "-A", "Mozilla/5.0"),
        *("-e", "https://example.com/", "--compressed", "--insecure", "--data-raw", "q=@"),
    )
    assert request.method == "POST"
    assert request.header("Accept") == "*/*"
    assert request.header("Cookie") == "a=1; b=2; c=3"
    assert request.header("User-Agent") == "Mozilla/5.0"
    assert request.header("Referer") == "https://example.com/"
    assert request.body == b"q=@"


def test_through_a_proxy_with_a_password(run):
    with ScriptedServer(Relay(f"user:{SECRET}")) as proxy, ScriptedServer(stream(HI)) as server:
        done = run(
            *("-v", "-n", "1", "--format", "data", "-x", f"user:{SECRET}@127.0.0.1:{proxy.port}"),
            f"http://some.host:{server.port}/path",
        )
    assert done.status == 0, done
    assert done.out == b"hi\n"
    assert server.requests[0].target == "/path"
    assert not secrets_in(done.err)


def test_a_proxy_that_wants_a_password(run):
    with ScriptedServer(Relay("user:other")) as proxy:
        done = run("-x", f"http://user:{SECRET}@127.0.0.1:{proxy.port}", "http://some.host/")
    assert done.status == Exit.STATUS
    assert (
        done.err
        == "eventsource: http://some.host/: the server answered 407 Proxy Authentication Required, not 200\n"
    )


@pytest.mark.parametrize(
    ("given", "asked_for"),
    [
        ("example.com/stream", "GET http://example.com/stream"),
        ("localhost:8000/x", "GET http://localhost:8000/x"),
        (":8000/x", "GET http://localhost:8000/x"),
        ("example.com/?next=https://other/", "GET http://example.com/?next=https://other/"),
        ("HTTPS://example.com", "CONNECT example.com:443"),
        ("[::1]:80/x", "GET http://[::1]:80/x"),
    ],
)
def test_an_address_without_a_scheme(run, given, asked_for):
    """As a proxy is asked for it."""
    with ScriptedServer(status("404 Not Found")) as proxy:
        run("-x", proxy.url, given)
    (request,) = proxy.requests
    assert f"{request.method} {request.target}" == asked_for


# --- What is printed ---

AWKWARD = '\x00\x1b[31m\x7f\x9b\u2028\u2029\u0085\u202e\ufeff\U0001f682é\t\\"\\ud800'
TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"


def test_text_where_it_is_no_terminal(run):
    blocks = [
        b"data: one\n\n",
        "event: größer\nid: 7\ndata: two\ndata:\ndata:  lines\n\n".encode(),
        f"data: {AWKWARD}\n\n".encode(),
        b"data\n\n",
    ]
    out = printed(run, blocks=blocks)
    assert re.sub(TIME.encode(), b"TIME", out) == (
        b"TIME message\none\n\n"
        + "TIME größer id=7\ntwo\n\n lines\n\n".encode()
        + f"TIME message id=7\n{AWKWARD}\n\n".encode()
        + b"TIME message id=7\n\n\n"
    )


def test_data_alone(run):
    blocks = [
        b"data: one\n\n",
        b"event: x\nid: 1\ndata: two\ndata:\n\n",
        f"data: {AWKWARD}\n\n".encode(),
    ]
    out = printed(run, "--format", "data", blocks=blocks)
    assert out == f"one\ntwo\n\n{AWKWARD}\n".encode()


def test_json_lines(run):
    blocks = [
        b"data: one\n\n",
        f"event: {AWKWARD}\ndata: {AWKWARD}\ndata: more\n\n".encode(),
        "id: größer\u2028\ndata: {}\n\n".encode(),
    ]
    done = run(stream(*blocks), "--format", "jsonl", "--no-reconnect")
    lines = done.out.split(b"\n")
    assert lines.pop() == b""
    events = [json.loads(line) for line in lines]
    times = [datetime.fromisoformat(event.pop("time")) for event in events]
    assert times == sorted(times)
    assert times[0].utcoffset().total_seconds() == 0
    origin = done.url.rstrip("/")
    assert events == [
        {"type": "message", "data": "one", "last_event_id": "", "origin": origin},
        {"type": AWKWARD, "data": f"{AWKWARD}\nmore", "last_event_id": "", "origin": origin},
        {"type": "message", "data": "{}", "last_event_id": "größer\u2028", "origin": origin},
    ]
    assert [*events[0]] == ["type", "data", "last_event_id", "origin"]
    text = done.out.decode()
    # Whatever splits lines, splits them here; and what gives orders to a terminal is written out.
    assert text.splitlines() == text.split("\n")[:-1]
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", text)
    assert "größer" in text  # and the rest is left readable


def test_raw_is_what_comes_over_all_connections(run):
    first = b"\xef\xbb\xbf: comment\r\nretry: 20\r\ndata: \xff\x1b\r\n\r\nid: 1\ndata: cut"
    done = run(
        stream(first), stream(b"data: x\n\n"), status("204 No Content"), "-s", "--format", "raw"
    )
    assert (done.status, done.err) == (0, "")
    assert done.out == first + b"data: x\n\n"


def test_raw_of_what_was_compressed(run):
    import gzip

    body = gzip.compress(HI * 3)
    head = HEAD.removesuffix(b"\r\n") + b"Content-Encoding: gzip\r\n\r\n"
    done = run(
        respond(head + body), "--format", "raw", "--no-reconnect", "-H", "Accept-Encoding: gzip"
    )
    assert done.out == HI * 3


def test_only_some_types(run):
    blocks = [b"event: %b\ndata: %b\n\n" % (name, name) for name in (b"a", b"b", b"c", b"a", b"b")]
    out = printed(run, "--event", "a", "--event", "c", "--format", "data", blocks=blocks)
    assert out == b"a\nc\na\n"
    out = printed(run, "--event", "b", "-n", "1", "--format", "data", blocks=blocks)
    assert out == b"b\n"
    out = printed(run, "--event", "message", "--format", "data", blocks=[*blocks, HI])
    assert out == b"hi\n"


def test_the_count_is_exact(run):
    for format_ in ("data", "jsonl", "text"):
        done = run(stream(HI * 10, then="hold"), "-n", "3", "--format", format_)
        assert (done.status, done.err) == (0, "")
        assert done.out.count(b"hi") == 3


def test_forced_colours_do_not_get_into_pipes(run, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    out = printed(run, "--format", "text", blocks=[b'data: {"a": 1}\n\n'])
    assert b"\x1b" not in out
    assert b"OPEN" not in out


@pytest.mark.parametrize(
    ("script", "code"),
    [
        (status("503 Busy"), Exit.STATUS),
        (respond(b"", then="reset"), Exit.NO_CONNECTION),
        (status("204 No Content"), Exit.DONE),
    ],
)
def test_a_file_is_kept_if_there_is_no_stream_to_take_its_place(run, tmp_path, script, code):
    path = tmp_path / "events"
    path.write_bytes(b"old")
    assert run(script, "-o", str(path)).status == code
    assert path.read_bytes() == b"old"


def test_a_file_is_made_anew_once(run, tmp_path):
    path = tmp_path / "events"
    path.write_bytes(b"old and long")
    scripts = [stream(b"retry: 20\n" + HI), stream(HI), status("204 No Content")]
    done = run(*scripts, "-s", "--format", "raw", "-o", str(path))
    assert (done.status, done.err) == (0, "")
    assert path.read_bytes() == b"retry: 20\n" + HI + HI


def test_a_dash_is_standard_output(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert printed(run, "--format", "data", "-o", "-", blocks=[HI]) == b"hi\n"
    assert [*tmp_path.iterdir()] == []


def test_verbose_shows_the_exchange_and_hides_what_is_secret(run):
    head = (
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nServer: \x1b]0;x\x07\r\n"
        f"Set-Cookie: a={SECRET}\r\nX-Auth-Token: {SECRET}\r\n\r\n"
    ).encode()
    with ScriptedServer(
        respond(head + b": heartbeat \x1b[2J\nretry: 20\ndata: hi\n\n"), status("204 No Content")
    ) as server:
        done = run(
            *("-v", "--format", "data", "-H", f"X-Api-Key: {SECRET}", "-H", f"Cookie: a={SECRET}"),
            *("-u", f"ada:{SECRET}", "-H", f"proxy-authorization: {SECRET}", "-H", "X-Seen: yes"),
            f"http://127.0.0.1:{server.port}/path?key={QUERY_SECRET}",
        )
    assert (done.status, done.out) == (0, b"hi\n")
    assert not secrets_in(done.err)
    lines = done.err.splitlines()
    assert lines[0] == f"* connecting to http://127.0.0.1:{server.port}/path"
    assert "> GET /path?..." in lines
    assert "> Authorization: ..." in lines
    assert "> X-Seen: yes" in lines
    assert "< 200 OK" in lines
    assert "< Content-Type: text/event-stream" in lines
    assert r"< Server: \x1b]0;x\x07" in lines
    assert r"* comment: heartbeat \x1b[2J" in lines
    assert [line for line in lines if re.fullmatch(r"\* .*; next attempt in 0\.0 s", line)]
    assert lines[-1].startswith("* ended: ")
    assert all(line[:2] in ("* ", "> ", "< ") for line in lines)


def refused(line, content_type, body):
    fields = [] if content_type is None else [f"Content-Type: {content_type}"]
    return status(line, *fields, body=body)


def bodies(run, script):
    """The lines that `-v` shows of the body of a refusal."""
    done = run(script, "-v")
    assert done.status in (Exit.FAILED, Exit.STATUS), done
    assert done.err.count("eventsource: ") == 1
    assert done.err.splitlines()[-1].startswith("eventsource: ")
    return [line[2:] for line in done.err.splitlines() if line.startswith("| ")]


@pytest.mark.parametrize(
    ("content_type", "body", "shown"),
    [
        ("application/json", b'{"error": "no"}\n', ['{"error": "no"}']),
        ("text/html", b"<p>\r\n<b>gr\xc3\xb6\xc3\x9fer</b>\n", ["<p>", "<b>größer</b>"]),
        ("text/html; charset=latin-1", b"gr\xf6\xdfer", ["größer"]),
        ("text/html; charset=undefined", b"hi", ["hi"]),  # one that Python has, and that fails
        ("text/html; charset=hex", b"hi", ["hi"]),
        ("text/html; charset=", b"hi", ["hi"]),
        (None, b"mostly text: \xff, \xfe", ["mostly text: �, �"]),
        ("text/plain", b"\x1b[2J\x9b2J a\x08\n\xc2\x9b31m", [r"\x1b[2J�2J a\x08", r"\x9b31m"]),
        ("image/png", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", ["16 bytes that are not text"]),
        ("application/octet-stream", b"\xff" * 1000, ["1,000 bytes that are not text"]),
        ("text/plain", b"\0", ["1 byte that is not text"]),
        ("text/plain", b"x" * 2000, ["x" * 2000]),
        ("text/plain", b"x" * 1999 + b"\ny" + b"z" * 50_000, ["x" * 1999, "..."]),
        ("text/plain", "🚂".encode() * 2001, ["🚂" * 2000, "..."]),
    ],
    ids=lambda value: str(value)[:20],
)
def test_verbose_shows_the_body_of_a_refusal(run, content_type, body, shown):
    assert bodies(run, refused("404 Not Found", content_type, body)) == shown


@pytest.mark.parametrize(("body", "shown"), [(b"hi", ["hi"]), (b"", [])])
def test_verbose_shows_the_body_of_what_is_no_event_stream(run, body, shown):
    assert bodies(run, refused("200 OK", "text/html", body)) == shown


REDIRECT = "HTTP/1.1 {} Found\r\nContent-Length: 0\r\nLocation: {}\r\nSet-Cookie: a={}\r\n\r\n"


@pytest.mark.parametrize("last", ["open", "404"])
def test_verbose_shows_each_hop_of_a_redirect(run, last):
    with ScriptedServer(
        stream(HI, then="hold") if last == "open" else status("404 Not Found")
    ) as there:
        secret = f"{there.url.replace('//', f'//ada:{SECRET}@')}there?key={QUERY_SECRET}#{SECRET}"
        with ScriptedServer(
            respond(REDIRECT.format(302, f"/next?key={QUERY_SECRET}", SECRET).encode()),
            respond(REDIRECT.format(307, secret, SECRET).encode()),
        ) as here:
            options = ("-n", "1", "--format", "data", "-H", f"Authorization: Bearer {SECRET}")
            done = run("-v", *options, f"{here.url}first?key={QUERY_SECRET}")
    assert done.status == (0 if last == "open" else Exit.STATUS)
    assert not secrets_in(done.err)
    shown = [line for line in done.err.splitlines() if re.match("> GET|> Auth|< [0-9L]", line)]
    assert shown == [
        "> GET /first?...",
        "> Authorization: ...",
        "< 302 Found",
        "< Location: /next",
        "> GET /next?...",
        "> Authorization: ...",
        "< 307 Found",
        f"< Location: {there.url}there",
        "> GET /there?...",
        "> Authorization: ...",  # what the server has put into the URL
        "< 200 OK" if last == "open" else "< 404 Not Found",
    ]
    assert done.err.count("< Set-Cookie: ...") == 2


def test_urls_in_header_fields_are_shown_without_what_is_secret(run):
    url = f"http://ada:{SECRET}@example.com/a?key={QUERY_SECRET}"
    fields = f'Link: <{url}>; rel="self"\r\nX-Location: /b?key={QUERY_SECRET}\r\n\r\n'
    done = run(
        respond(HEAD.removesuffix(b"\r\n") + fields.encode() + HI), "-v", "-n", "1", "-e", url
    )
    assert not secrets_in(done.err)
    assert "\n> Referer: http://example.com/a\n" in done.err
    assert '\n< Link: <http://example.com/a>; rel="self"\n' in done.err
    assert "\n< X-Location: /b\n" in done.err


def test_a_header_field_cannot_pass_for_a_line_of_ours(run):
    head = HEAD.removesuffix(b"\r\n") + b"X-A: b\r\n\teventsource: forged\r\n\r\n"
    done = run(respond(head + HI), "-v", "-n", "1")
    assert "\neventsource" not in done.err
    assert "\n\t" not in done.err


# --- How it ends ---


@pytest.fixture
def tls():
    return server_context(host="localhost")


@pytest.fixture
def cacert(tmp_path):
    path = tmp_path / "authority.pem"
    AUTHORITY.cert_pem.write_to_path(path)
    return str(path)


def ends(run, *arguments):
    """Run it; return its status and the reason that it tells in one line."""
    done = run(*arguments)
    assert done.out == b""
    assert done.err.startswith("eventsource: "), done
    assert done.err.endswith("\n")
    assert done.err.count("\n") == 1, done
    reason = done.err.removeprefix("eventsource: ").removesuffix("\n")
    return done.status, reason.replace(done.url, "URL")


NO_STREAM = "the response's content type is 'text/html\\x1b', not 'text/event-stream'"
NO_ANSWER = "the server closed the connection without an answer"
RESET = "Connection aborted: Connection reset by peer"


@pytest.mark.parametrize(
    ("script", "code", "reason"),
    [
        (status("404 x"), Exit.STATUS, "the server answered 404 Not Found, not 200"),
        (status("503 x"), Exit.STATUS, "the server answered 503 Service Unavailable, not 200"),
        (status(f"418 {SECRET}"), Exit.STATUS, "the server answered 418 I'm a Teapot, not 200"),
        (status("201 x"), Exit.STATUS, "the server answered 201 Created, not 200"),
        (status("200 OK", "Content-Type: text/html\x1b"), Exit.FAILED, NO_STREAM),
        (respond(SECRET.encode() + b"\r\n\r\n"), Exit.NO_CONNECTION, "the answer is not HTTP"),
        (respond(b""), Exit.NO_CONNECTION, NO_ANSWER),
        (respond(b"", then="reset"), Exit.NO_CONNECTION, RESET),
    ],
)
def test_an_answer_that_is_no_stream(run, script, code, reason):
    assert ends(run, script, status("500 Again")) == (code, f"URL: {reason}")


def test_no_content_is_a_good_end(run):
    assert run(status("204 No Content")) == Done(0, b"", "")


def test_an_event_that_is_too_large(run, monkeypatch):
    monkeypatch.setitem(EventStream.__init__.__kwdefaults__, "max_event_size", 1000)
    code, reason = ends(run, stream(b"data: " + b"x" * 2000, then="hold"))
    assert code == Exit.FAILED
    assert reason.startswith("URL: an event of at least")


def test_a_refused_connection(run):
    with port_that_refuses() as port:
        code, reason = ends(run, f"http://127.0.0.1:{port}/?key={QUERY_SECRET}")
    assert code == Exit.NO_CONNECTION
    assert reason == f"http://127.0.0.1:{port}/: Failed to connect: Connection refused"


def test_an_unknown_host(run):
    code, reason = ends(run, f"http://user:{SECRET}@no.such.host.invalid/?key={QUERY_SECRET}")
    assert code == Exit.NO_HOST
    assert reason.startswith("http://no.such.host.invalid/: ")
    assert not secrets_in(reason)


def test_a_server_that_does_not_answer_the_connection(run):
    with port_that_never_answers() as port:
        code, reason = ends(run, "--connect-timeout", "0.2", f"http://127.0.0.1:{port}/")
    assert code == Exit.TIMEOUT
    assert "timed out" in reason


def test_the_time_limit(run):
    done = run(stream(HI, then="hold"), "--max-time", "0.3", "--format", "data")
    assert done.status == Exit.TIMEOUT
    assert done.err == "eventsource: --max-time: 0.3 seconds have passed\n"


@pytest.mark.parametrize(
    ("seconds", "passed"),
    [
        (1.0, "1 second has passed"),
        (2.0, "2 seconds have passed"),
        (0.5, "0.5 seconds have passed"),
        (3_600_000.0, "3600000 seconds have passed"),
    ],
)
def test_the_time_limit_in_words(seconds, passed):
    with EventStream("http://localhost/") as stream:
        stop = following._out_of_time(seconds, stream, Status())
    assert (stop.status, stop.text) == (Exit.TIMEOUT, f"--max-time: {passed}")


def test_the_time_limit_says_why_there_is_no_connection(run, monkeypatch):
    failed = threading.Event()
    lost = Status.lost

    def fail(status, *arguments):
        lost(status, *arguments)
        failed.set()

    class Timer(threading.Timer):
        def run(self):  # its time has passed when the first failure has been noted
            assert failed.wait(LIMIT)
            self.function()

    monkeypatch.setattr(Status, "lost", fail)
    monkeypatch.setattr("threading.Timer", Timer)
    with port_that_refuses() as port:
        url = f"http://127.0.0.1:{port}/"
        code, reason = ends(run, "-s", "--retry-connect", "-m", "2", f"{url}?key={QUERY_SECRET}")
    assert code == Exit.TIMEOUT
    failure = "Failed to connect: Connection refused"
    assert reason == f"{url}: --max-time: 2 seconds have passed; the last failure: {failure}"


def test_the_time_limit_says_nothing_of_a_failure_that_is_over():
    status = Status()
    with EventStream("http://localhost/") as stream:
        status.lost("Connection refused", 1.0)
        assert "Connection refused" in following._out_of_time(2.0, stream, status).text
        status.opened()
        stop = following._out_of_time(2.0, stream, status)
    assert stop.text == "--max-time: 2 seconds have passed"


def test_no_event_in_time(run):
    script = stream(b": heartbeat\n", then="hold")
    end = ends(run, script, "--no-reconnect", "--event-timeout", "0.2")
    assert end == (Exit.TIMEOUT, "URL: no message for 0.2 seconds")


LOST_WITHIN = "the connection was lost within the response"
CUT_OFF = HEAD.removesuffix(b"\r\n") + b"Content-Length: 100\r\n\r\n" + HI


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (respond(HEAD + HI, then="reset"), f"{LOST_WITHIN}: Connection reset by peer"),
        (respond(CUT_OFF), "the connection ended 90 bytes before the end of the body"),
    ],
)
def test_a_stream_that_is_lost_is_not_made_again(run, script, reason):
    done = run(script, "--no-reconnect", "--format", "data")
    assert (done.status, done.err) == (Exit.LOST, f"eventsource: {done.url}: {reason}\n")
    assert done.out == b"hi\n" or "reset" in reason  # which may overtake it


def test_a_stream_that_ends_is_not_made_again(run):
    assert run(stream(HI), "--no-reconnect", "--format", "data") == Done(0, b"hi\n", "")


def test_a_head_is_made_once_for_it_has_no_events(run):
    done = run(stream(b"", then="end"), "-v", "-X", "head")
    assert done.status == 0
    assert "< 200 OK" in done.err
    assert len(done.requests) == 1


def test_a_get_is_made_again_and_a_post_is_not(run):
    scripts = [stream(b"retry: 20\nid: 1\n" + HI), stream(HI), status("204 No Content")]
    done = run(*scripts, "--format", "data")
    assert (done.status, done.out) == (0, b"hi\nhi\n")
    assert done.requests[1].last_event_id == "1"
    done = run(*scripts, "--format", "data", "-d", "a")
    assert (done.status, done.out) == (0, b"hi\n")
    assert len(done.requests) == 1
    done = run(*scripts, "--format", "data", "-d", "a", "--reconnect")
    assert (done.status, done.out) == (0, b"hi\nhi\n")
    assert [request.body for request in done.requests] == [b"a"] * 3


@pytest.mark.usefixtures("quick")
def test_a_first_connection_that_is_tried_again(run):
    scripts = [respond(b"", then="reset"), stream(HI, then="hold")]
    assert ends(run, *scripts)[0] == Exit.NO_CONNECTION
    done = run(*scripts, "--retry-connect", "-n", "1", "--format", "data")
    assert (done.status, done.out) == (0, b"hi\n")
    failed, opened = done.err.splitlines()
    assert failed.startswith(f"eventsource: {done.url}: ")
    assert failed.endswith("; next attempt in 0.0 s")
    assert opened == f"eventsource: {done.url}: open"  # not again


@pytest.mark.usefixtures("quick")
def test_a_status_that_is_tried_again(run):
    scripts = [
        status("503 Busy", "Retry-After: 0"),
        status("429 Slow", "Retry-After: 0"),
        stream(b"retry: 20\n" + HI),
        status("503 Busy", "Retry-After: 0"),
        status("404 Not Found"),
    ]
    options = ["--retry-status", "503", "--retry-status", "429", "--format", "data"]
    done = run(*scripts, *options)
    assert (done.status, done.out) == (Exit.STATUS, b"hi\n")
    assert "404" in done.err
    assert len(done.requests) == 5
    _, reason = ends(run, *scripts, "-s", "--retry-status", "503")
    assert reason.startswith("URL: the server answered 429 ")


def test_a_certificate_of_nobody_trusted(run, tls):
    with ScriptedServer(respond(b""), ssl_context=tls) as server:
        code, reason = ends(run, f"https://localhost:{server.port}/")
    assert code == Exit.CERTIFICATE
    assert "certificate verify failed: unable to get local issuer" in reason


def test_a_certificate_for_another_host(run, tls, cacert):
    with ScriptedServer(respond(b""), ssl_context=tls) as server:
        code, reason = ends(run, "--cacert", cacert, f"https://127.0.0.1:{server.port}/")
    assert code == Exit.CERTIFICATE
    assert "127.0.0.1" in reason


def test_a_port_without_tls(run):
    def plain(connection):
        connection.sock.recv(100)
        connection.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with ScriptedServer(plain) as server:
        code, reason = ends(run, f"https://127.0.0.1:{server.port}/")
    assert code == Exit.NO_TLS
    assert "wrong version number" in reason.replace("_", " ").lower()


def test_trusted_authorities(run, tls, cacert, recwarn):
    with ScriptedServer(stream(HI), ssl_context=tls) as server:
        url = f"https://localhost:{server.port}/"
        done = run("--cacert", cacert, "--no-reconnect", "--format", "data", url)
        assert (done.status, done.out, done.err) == (0, b"hi\n", "")
        done = run("-k", "--no-reconnect", "--format", "data", url)
        assert (done.status, done.out, done.err) == (0, b"hi\n", "")
    assert not recwarn.list


def test_a_client_certificate(run, tls, cacert, tmp_path):
    tls.verify_mode = ssl.CERT_REQUIRED
    AUTHORITY.configure_trust(tls)
    ours = AUTHORITY.issue_cert("client@example.com")
    both, cert, key = (tmp_path / name for name in ("both.pem", "cert.pem", "key.pem"))
    ours.private_key_and_cert_chain_pem.write_to_path(both)
    ours.cert_chain_pems[0].write_to_path(cert)
    ours.private_key_pem.write_to_path(key)
    options = ["--cacert", cacert, "--no-reconnect", "--format", "data"]
    with ScriptedServer(stream(HI), ssl_context=tls) as server:
        url = f"https://localhost:{server.port}/"
        assert run(*options, "--cert", str(both), url).out == b"hi\n"
        assert run(*options, "--cert", str(cert), "--key", str(key), url).out == b"hi\n"
        code, _ = ends(run, *options, url)
    assert code in (Exit.NO_TLS, Exit.NO_CONNECTION)  # as the alert or the reset is first


@pytest.mark.parametrize("option", ["--cacert", "--cert"])
def test_a_file_that_holds_no_certificate(run, tmp_path, option):
    path = tmp_path / "no.pem"
    path.write_text("no certificate")
    code, reason = ends(run, option, str(path), "https://localhost/")
    assert code == Exit.USAGE
    assert reason.startswith(f"{option}: {path}: ")


def test_an_encrypted_key_is_not_asked_for_on_the_terminal(run, tmp_path):
    from cryptography.hazmat.primitives import serialization

    ours = AUTHORITY.issue_cert("client@example.com")
    key = serialization.load_pem_private_key(ours.private_key_pem.bytes(), None)
    encrypted = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(SECRET.encode()),
    )
    path = tmp_path / "key.pem"
    path.write_bytes(encrypted + ours.cert_chain_pems[0].bytes())
    code, reason = ends(run, "--cert", str(path), "https://localhost/")
    assert code == Exit.USAGE
    assert "encrypted" in reason


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ([], "Missing argument 'URL'."),
        (["http://localhost/", "more"], "too many arguments (the last 1): one with spaces needs"),
        # The rest of a header field without quotes is a secret.
        (["-H", "Authorization:", "Bearer", SECRET, "http://localhost/"], "(the last 2): one with"),
        (["chekc", "http://localhost/"], "did you mean `eventsource check`?"),
        (["-v", "serve", "recording"], "did you mean `eventsource serve`?"),
        (["demmo", "x"], "did you mean `eventsource demo`?"),
        (["--nonsense", "http://localhost/"], "No such option"),
        ([""], "url must be an absolute URL"),
        (["http://"], "url must be an absolute URL"),
        (["http://a b/"], "url must be an absolute URL"),
        (["http:///x"], "url must be an absolute URL"),
        (["http://localhost:99999/"], "url must be an absolute URL"),
        (["-H", "no colon", "http://localhost/"], "-H: no colon after the field's name 'no'"),
        (["-H", SECRET, "http://localhost/"], "-H: no colon after the field's name (see"),
        (["-H", f"Authorization {SECRET}", "http://localhost/"], "-H: no colon after"),
        (["-H", "a b: c", "http://localhost/"], "headers['a b']: not the name of a header field"),
        (["-H", "a: b\r\nc: d", "http://localhost/"], "headers['a']"),
        (["-X", "A B", "http://localhost/"], "method must be a token"),
        (["-d", "@/no/such/file", "http://localhost/"], "-d: /no/such/file: No such file"),
        (["-d", "@", "http://localhost/"], "-d: "),
        (["-d", "a", "--json", "{}", "http://localhost/"], "--json cannot be used with --data"),
        (["--json", "@/no/such/file", "http://localhost/"], "--json: /no/such/file: No such"),
        (["-b", "jar.txt", "http://localhost/"], "-b: not NAME=VALUE"),
        (["--key", __file__, "http://localhost/"], "--key needs --cert"),
        (["--cacert", "/no/such/file", "http://localhost/"], "Invalid value for '--cacert'"),
        (["--cacert", __file__, "-k", "http://localhost/"], "--cacert and --insecure contradict"),
        (["-x", f"http://user:{SECRET}@", "http://localhost/"], "-x: not the URL of a proxy"),
        (["--last-event-id", "a\nb", "http://localhost/"], "last_event_id must not contain"),
        (["--max-time", "nan", "http://localhost/"], "Invalid value for '-m'"),
        (["--max-time", "inf", "http://localhost/"], "Invalid value for '-m'"),
        (["--max-time", "0", "http://localhost/"], "Invalid value for '-m'"),
        (["--event-timeout", "-1", "http://localhost/"], "Invalid value for '--event-timeout'"),
        (["--connect-timeout", "x", "http://localhost/"], "Invalid value for '--connect-timeout'"),
        (["-n", "0", "http://localhost/"], "Invalid value for '-n'"),
        (["--retry-status", "99", "http://localhost/"], "Invalid value for '--retry-status'"),
        (["--format", "xml", "http://localhost/"], "Invalid value for '--format'"),
        (["--format", "raw", "--event", "x", "http://localhost/"], "--event cannot choose"),
        (["--resume", "x", "-o", "./x", "http://localhost/"], "name the same file"),
        (["--resume", "/", "http://localhost/"], "Invalid value for '--resume'"),
        (["ftp://localhost/"], "ftp://localhost/: the URL's scheme cannot be fetched"),
        (["file:///etc/passwd"], "file:///etc/passwd: the URL's scheme cannot be fetched"),
    ],
    ids=lambda value: " ".join(map(str, value))[:40] if isinstance(value, list) else "",
)
def test_wrong_use(run, arguments, reason):
    code, said = ends(run, *arguments)
    assert code == Exit.USAGE
    assert reason in f"{said}\n"
    assert not secrets_in(said)


@pytest.mark.parametrize(
    "arguments",
    [
        ["check", "http://localhost/"],
        ["relay", "--stream", "x", "http://localhost/", "redis://localhost"],
        ["serve", "recording"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_arguments_that_are_too_many_are_not_quoted(run, arguments):
    done = run(*arguments, SECRET)
    assert done.status == Exit.USAGE
    assert done.err.startswith(f"eventsource {arguments[0]}: too many arguments (the last 1)")
    assert not secrets_in(done.err)


def test_a_mistake_of_ours_does_not_pass_for_wrong_use(run, monkeypatch):
    def mistaken(_):
        raise ValueError

    monkeypatch.setitem(formats.FORMATS, "data", mistaken)
    with pytest.raises(ValueError):
        run(stream(HI), "--format", "data")


def test_an_output_file_in_a_missing_folder(run, tmp_path):
    path = tmp_path / "missing" / "events"
    done = run(stream(HI), "-o", str(path))
    assert done == Done(Exit.NO_OUTPUT, b"", f"eventsource: {path}: No such file or directory\n")
    assert done.requests == []


FULL = Path("/dev/full")
needs_full = pytest.mark.skipif(not FULL.exists(), reason="there is no /dev/full")


@needs_full
def test_a_full_disk(run):
    end = ends(run, stream(HI, then="hold"), "-o", "/dev/full")
    assert end == (Exit.NO_OUTPUT, "/dev/full: No space left on device")


def test_a_closed_standard_input(run, monkeypatch):
    monkeypatch.setattr(sys, "stdin", None)
    assert ends(run, "-d", "-", "http://localhost/")[0] == Exit.USAGE
    assert asked(run).method == "GET"


# --- Pipes ---


def test_a_pipe_that_is_closed_while_there_is_no_connection(run, monkeypatch):
    receiving, sending = os.pipe()
    with standard_output(monkeypatch, sending):
        reader = threading.Thread(target=lambda: (os.read(receiving, 100), os.close(receiving)))
        reader.start()
        done = run(stream(b"retry: 3600000\n" + HI), "-s", "--format", "data")
        reader.join()
    assert (done.status, done.err) == (Exit.PIPE_CLOSED, "")


def interrupt(number=signal.SIGINT):
    signal.pthread_kill(threading.main_thread().ident, number)


def fill(descriptor):
    """Fill a pipe."""
    os.set_blocking(descriptor, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(descriptor, b"x" * 4096)
    os.set_blocking(descriptor, True)


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (signal.SIGINT, Exit.INTERRUPTED),
        (signal.SIGTERM, Exit.TERMINATED),
        (signal.SIGHUP, Exit.HUNG_UP),
        (None, Exit.TIMEOUT),
    ],
)
def test_the_end_comes_also_while_it_waits_for_the_reader(run, monkeypatch, number, code):
    receiving, sending = os.pipe()
    fill(sending)

    def script(connection):
        connection.start_stream()
        connection.send(HI * 1000)
        if number:
            interrupt(number)
        connection.hold()

    handlers = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    with standard_output(monkeypatch, sending):
        done = run(script, *([] if number else ["--max-time", "0.5"]))
    os.close(receiving)
    assert done.status == code
    assert done.err == ("" if number else "eventsource: --max-time: 0.5 seconds have passed\n")
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == handlers
    assert signal.set_wakeup_fd(-1) == -1


def test_a_slow_reader_gets_everything(run, monkeypatch):
    """Also of a pipe that somebody has made non-blocking."""
    blocks = [b"data: %d %b\n\n" % (n, b"x" * 5000) for n in range(2000)]
    with sink("pipe") as (sending, content):
        os.set_blocking(sending, False)
        with standard_output(monkeypatch, os.dup(sending)):
            done = run(stream(*blocks), "--no-reconnect", "--format", "data")
    assert done.status == 0
    assert content() == "".join(f"{n} {'x' * 5000}\n" for n in range(2000))


# --- Signals ---


@pytest.mark.parametrize("moment", ["waiting", "reading", "reconnecting"])
def test_a_signal_ends_it_at_any_moment(run, moment):
    def script(connection):
        connection.read_request()
        if moment != "waiting":
            connection.send(HEAD + b"retry: 3600000\n" + HI)
        if moment == "reconnecting":
            connection.sock.shutdown(socket.SHUT_RDWR)
        wait_until_blocked(os.getpid())
        interrupt()
        connection.hold()

    done = run(script, "-s")
    assert (done.status, done.err) == (Exit.INTERRUPTED, "")


def test_a_signal_ends_it_while_it_connects(run):
    before = signal.getsignal(signal.SIGINT)

    def interrupt_when_it_waits():
        wait_until(lambda: signal.getsignal(signal.SIGINT) != before, "the handler")
        wait_until_blocked(os.getpid())
        interrupt()

    with port_that_never_answers() as port:
        thread = threading.Thread(target=interrupt_when_it_waits)
        thread.start()
        done = run("--connect-timeout", "1000", f"http://127.0.0.1:{port}/")
        thread.join()
    assert done == Done(Exit.INTERRUPTED, b"", "")


def test_a_signal_is_a_quiet_end_also_while_there_is_no_connection(run, monkeypatch):
    """Who sends it knows why; and the failure has been told."""
    lost = Status.lost

    def interrupted(status, *arguments):
        lost(status, *arguments)
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(Status, "lost", interrupted)
    with port_that_refuses() as port:
        url = f"http://127.0.0.1:{port}/"
        done = run("--retry-connect", url)
        assert done.status == Exit.TERMINATED
        told = r"eventsource: \S+ Failed to connect: Connection refused; next attempt in \S+ s\n"
        assert re.fullmatch(told, done.err)
        assert run("-s", "--retry-connect", url) == Done(Exit.TERMINATED, b"", "")


def test_a_signal_counts_before_a_failure_that_comes_after_it(run, monkeypatch):
    take = EventStream.take

    def interrupted(stream):
        items = take(stream)
        signal.raise_signal(signal.SIGINT)
        return items

    monkeypatch.setattr(EventStream, "take", interrupted)
    assert run(status("404 Not Found")) == Done(Exit.INTERRUPTED, b"", "")


@pytest.mark.parametrize("full", [False, True], ids=["reading", "writing"])
def test_a_signal_is_heard_that_interrupts_nothing(run, monkeypatch, full):
    """As one that comes just before the main thread begins to wait: another one takes it."""
    receiving, sending = os.pipe()
    if full:
        fill(sending)

    def script(connection):
        connection.read_request()
        connection.send(HEAD + HI)
        wait_until_blocked(os.getpid())
        os.kill(os.getpid(), signal.SIGTERM)
        connection.hold()

    with ScriptedServer(script) as server, standard_output(monkeypatch, sending):
        before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        try:
            done = run(server.url)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
    os.close(receiving)
    assert (done.status, done.err) == (Exit.TERMINATED, "")


# --- In this process ---


def descriptors():
    found = {}
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the one that lists them
            found[entry.name] = str(entry.readlink())
    return found


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="there is no /proc")
def test_nothing_is_left_behind(run, monkeypatch, tmp_path):
    def once():
        receiving, sending = os.pipe()
        with standard_output(monkeypatch, sending):
            options = ["--max-time", "0.2", "--resume", str(tmp_path / "place")]
            assert run(stream(HI, then="hold"), *options).status == Exit.TIMEOUT
        os.close(receiving)

    once()
    before, threads = descriptors(), {*threading.enumerate()}
    once()
    assert descriptors() == before
    assert {*threading.enumerate()} <= threads


def test_it_may_run_in_another_thread(run, capfdbinary):
    results = []
    with ScriptedServer(stream(HI, then="hold")) as server:
        thread = threading.Thread(
            target=lambda: results.append(cli.main(["-n", "1", "--format", "data", server.url]))
        )
        thread.start()
        thread.join(LIMIT)
    assert results == [0]
    assert capfdbinary.readouterr().out == b"hi\n"


# --- On a terminal, in this process (see test_cli_terminal.py) ---


@pytest.fixture
def xterm(monkeypatch):
    """The environment of a terminal."""
    for name in ("NO_COLOR", "FORCE_COLOR", "COLORTERM", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")


@pytest.fixture
def on_terminal(run, monkeypatch, xterm):
    """Run the command with a terminal as standard output; return what it got, and the rest."""

    def on_terminal(*arguments):
        with sink("terminal") as (slave, content), standard_output(monkeypatch, os.dup(slave)):
            done = run(*arguments)
        return content(), done

    return on_terminal


@pytest.mark.parametrize(
    ("format_", "shown"),
    [
        (
            "text",
            "\x1b[1;36m  message\x1b[0m\x1b[2m  id \x1b[0m\x1b[34m1\x1b[0m\r\nhi \\x1b\r\n\r\n",
        ),
        ("text", '\x1b[1m{\x1b[0m\x1b[1;34m"a"\x1b[0m: \x1b[1;36m1\x1b[0m\x1b[1m}\x1b[0m\r\n\r\n'),
        ("data", "hi \\x1b\r\n"),
        ("raw", "id: 1\r\ndata: hi \\x1b\r\n\r\n"),
    ],
)
def test_what_a_terminal_gets(on_terminal, format_, shown):
    block = b'id: 1\ndata: hi \x1b\n\ndata: {"a": 1}\n\n'
    got, done = on_terminal(stream(block), "--no-reconnect", "--format", format_)
    assert (done.status, done.err) == (0, "")
    assert shown in got
    assert ("OPEN" in got) == (format_ != "raw")


def test_a_console_that_knows_no_escape_sequences_gets_none(on_terminal, monkeypatch):
    """As that of Windows may be."""
    monkeypatch.setattr("rich.console.detect_legacy_windows", lambda: True)
    got, done = on_terminal(stream(HI, b'data: {"a": 1}\n\n'), "--no-reconnect")
    assert done.status == 0
    assert '{"a": 1}' in got
    assert "\x1b" not in got


# --- Losses, wherever the standard streams go ---


LOSS = "the server ended the stream; next attempt in "
IN_STATUS = re.compile("CONNECTING · (next attempt in 1 s · )?the server ended the stream( ·|…)")

# By standard output; then by standard error, where that is
#                   a terminal    a pipe, a file    closed
TOLD = {
    "terminal": (["status"], ["status", "line"], ["status"]),
    "terminal, raw": (["line"], ["line"], []),
    "pipe": (["line"], ["line"], []),
    "file": (["line"], ["line"], []),
    "-o FILE": (["status"], ["line"], []),  # whatever standard output is
}
"""Where a loss is to be seen: in the line of status, in a line on standard error. With `-v`
that line is there always, with `-s` alone nothing is."""


@pytest.mark.long
@pytest.mark.parametrize(
    ("stdout", "stderr"),
    [
        *itertools.product(["terminal", "pipe"], ["terminal", "pipe", "closed"]),
        ("file", "file"),
    ],
)
@pytest.mark.parametrize("to_file", [False, True], ids=["", "-o"])
@pytest.mark.parametrize("format_", ["text", "raw"])
@pytest.mark.parametrize("flags", ["", "-v", "-s", "-vs"])
@pytest.mark.usefixtures("xterm")
def test_a_loss_is_seen_once(monkeypatch, tmp_path, stdout, stderr, to_file, format_, flags):
    row = "-o FILE" if to_file else stdout
    row = "terminal, raw" if (row, format_) == ("terminal", "raw") else row
    told = TOLD[row][{"terminal": 0, "closed": 2}.get(stderr, 1)]
    has_status = "status" in told and "s" not in flags
    has_line = stderr != "closed" and ("v" in flags or ("line" in told and not flags))

    monkeypatch.setattr("eventsource.cli.screen.REFRESH", 0.01)

    def reconnected(connection):
        connection.read_request()
        if has_status:
            wait_until(lambda: IN_STATUS.search(without_colours(screen())), "the line of status")
        connection.send(HEAD + HI)
        connection.hold()

    with contextlib.ExitStack() as stack:
        out, read_out = stack.enter_context(sink(stdout, tmp_path / "out"))
        err, read_err = out, read_out
        if (stdout, stderr) != ("terminal", "terminal"):
            kind = "pipe" if stderr == "closed" else stderr  # to which nothing is written
            err, read_err = stack.enter_context(sink(kind, tmp_path / "err"))
        screen = read_err if to_file else read_out
        arguments = ["-n", "2", "--format", format_, *([flags] if flags else [])]
        arguments += ["-o", str(tmp_path / "events")] if to_file else []
        server = stack.enter_context(ScriptedServer(stream(b"retry: 20\n" + HI), reconnected))
        files = [
            stack.enter_context(open(number, "w", encoding="utf-8", closefd=False))
            for number in (out, err)
        ]
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", files[0])
            patch.setattr(sys, "stderr", None if stderr == "closed" else files[1])
            status = cli.main([*arguments, server.url])
    out, err = without_colours(read_out()), without_colours(read_err())
    assert status == 0, (out, err)
    assert err.count(LOSS) == has_line, err
    assert bool(IN_STATUS.search(out + err)) == has_status
    assert err.count("< 200 OK") == (2 if "v" in flags and stderr != "closed" else 0), err
    assert err.count(": open again") == (has_line and "v" not in flags), err
    if has_line and "v" not in flags:
        assert f"\neventsource: {server.url}: {LOSS}" in f"\n{err}"
    if (stdout, stderr) != ("terminal", "terminal"):
        assert LOSS not in out
        assert "open again" not in out


@pytest.mark.usefixtures("quick")
def test_a_reason_is_told_once_while_it_lasts(run):
    busy, slow = (status(line, "Retry-After: 0") for line in ("503 Busy", "429 Slow"))
    scripts = [busy, busy, slow, stream(b"retry: 20\n"), slow, stream(HI, then="hold")]
    options = ["--retry-status", "503", "--retry-status", "429", "-n", "1", "--format", "data"]
    done = run(*scripts, *options)
    assert (done.status, done.out) == (0, b"hi\n")
    told = [
        line.removeprefix(f"eventsource: {done.url}: ").partition(",")[0].partition(";")[0]
        for line in done.err.splitlines()
    ]
    said = "the server answered "
    assert told == [
        *(f"{said}503 Service Unavailable", f"{said}429 Too Many Requests", "open"),
        *("the server ended the stream", f"{said}429 Too Many Requests", "open again"),
    ]


LOST_ONCE = [stream(b"retry: 20\n" + HI), stream(HI, then="hold")]


def test_a_loss_waits_for_no_reader_of_standard_error(run, monkeypatch):
    receiving, sending = os.pipe()
    fill(sending)
    with os.fdopen(sending, "w") as full:
        monkeypatch.setattr(sys, "stderr", full)
        done = run(*LOST_ONCE, "-n", "2", "--format", "data")
    os.close(receiving)
    assert (done.status, done.out) == (0, b"hi\nhi\n")


def test_a_loss_is_told_to_what_has_no_descriptor(run, monkeypatch):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    run(*LOST_ONCE, "-n", "2", "--format", "data")
    assert LOSS in sys.stderr.getvalue()


def test_what_is_told_of_a_loss_gives_no_orders_and_no_secrets(run):
    answer = status("200 OK", "Content-Type: \x1b[2J")
    scripts = [stream(b"retry: 20\n"), answer, status("204 No Content")]
    with ScriptedServer(*scripts) as server:
        url = server.url.replace("//", f"//ada:{SECRET}@") + f"?key={QUERY_SECRET}"
        done = run("--retry-status", "200", url)
    assert done.status == 0
    assert not secrets_in(done.err)
    assert "\x1b" not in done.err
    assert "'\\x1b[2J'" in done.err


def test_a_line_of_ours_is_one_of_its_own_among_raw_bytes(on_terminal, monkeypatch):
    """They may end anywhere; also the last one, which the shell's prompt follows."""
    scripts = [stream(b"retry: 20\n\n: cut"), stream(b"data: x\n\ndata: y", then="hold")]
    monkeypatch.setattr("eventsource.cli.display._is_terminal", lambda _: True)
    got, done = on_terminal(*scripts, "--format", "raw", "-n", "1")
    assert (done.status, done.err) == (0, "")
    lines = without_colours(got).split("\n")
    assert lines[:3] == ["retry: 20", "", ": cut"]
    assert lines[3].startswith(f"eventsource: {done.url}: {LOSS}")
    assert lines[4:] == [f"eventsource: {done.url}: open again", "data: x", "", "data: y", ""]


# --- JSON laid out ---


@pytest.mark.parametrize(
    ("data", "laid_out"),
    [
        ("[]", "[]"),
        ('{"a": {}, "b": []}', '{\n  "a": {},\n  "b": []\n}'),
        (
            ' {"a":1,"a":1.50,"b":[true,null,-1e400,"x,y:{}"]}\n',
            '{\n  "a": 1,\n  "a": 1.50,\n  "b": [\n    true,\n    null,\n    -1e400,\n    "x,y:{}"\n  ]\n}',
        ),
        (f"[{'9' * 5000}]", f"[\n  {'9' * 5000}\n]"),
        (r'["gr\u00f6\u00dfer \ud83d\ude82 \"\\ \u001b \ud800"]', None),
        (r'["gr\u00f6\u00dfer \ud83d\ude82 \" \u001b\n"]', '[\n  "größer 🚂 \\" \\u001b\\n"\n]'),
        ('["\x7f\x9b"]', '[\n  "\\x7f\\x9b"\n]'),
    ],
    ids=lambda value: str(value)[:20],
)
def test_json_is_laid_out_as_it_was_sent(data, laid_out):
    if laid_out is None:  # a lone surrogate stays as it was written
        laid_out = f"[\n  {data[1:-1]}\n]"
    assert formats.pretty(data) == laid_out


@pytest.mark.parametrize(
    "data",
    [
        "",
        "1",
        '"text"',
        "{",
        "[1,]",
        "plain",
        "[" * 100_000,
        "[" * 70 + "]" * 70,
        "[" + " " * formats.MAX_PRETTY + "]",
    ],
    ids=lambda value: value[:10],
)
def test_what_is_not_laid_out(data):
    assert formats.pretty(data) is None


def test_what_fits_into_a_line_is_one():
    laid_out = formats.pretty('{"a": [1, {"b": "x  ]"}], "c": {}, "日": "本"}')
    line = '{"a": [1, {"b": "x  ]"}], "c": {}, "日": "本"}'
    assert formats.on_one_line(laid_out, len(line) + 2) == line
    assert formats.on_one_line(laid_out, len(line) + 1) is None


# --- The program around it ---


def test_the_whole_program(monkeypatch, capfdbinary):
    """As the script runs it: with the process's arguments, and nothing after it."""
    handler = signal.getsignal(signal.SIGINT)
    try:
        with ScriptedServer(stream(HI, then="hold")) as server:
            monkeypatch.setattr(sys, "argv", ["eventsource", "-n1", "--format=data", server.url])
            assert cli.main() == 0
            assert signal.getsignal(signal.SIGINT) == signal.SIG_DFL
        monkeypatch.setattr("importlib.util.find_spec", _interrupt)  # before there is a handler
        assert cli.main() == Exit.INTERRUPTED
    finally:
        signal.signal(signal.SIGINT, handler)
    assert capfdbinary.readouterr() == (b"hi\n", b"")


def _interrupt(_):
    raise KeyboardInterrupt


@pytest.mark.parametrize("missing", [["click"], ["rich"], ["click", "rich"]])
def test_without_the_extra_it_names_what_to_install(run, monkeypatch, missing):
    for name in missing:
        monkeypatch.setitem(sys.modules, name, None)
    assert ends(run, "http://localhost/") == (
        Exit.USAGE,
        f"the command needs {' and '.join(missing)}: python -m pip install {' '.join(missing)}",
    )
    assert run("--version") == Done(0, f"eventsource {__version__}\n".encode(), "")


def test_every_exit_status_is_in_the_help(run):
    done = run("--help")
    assert (done.status, done.err) == (0, "")
    listed = done.out.decode().partition("Exit status:\n")[2]
    assert [int(line.split()[0]) for line in listed.splitlines() if line.strip()] == [*Exit]


def test_the_page_lists_every_exit_status_as_the_help_does(run):
    page = (Path(__file__).parents[2] / "docs/how-to/command-line.md").read_text("utf-8")
    rows = re.findall(r"^\| (\d+) \| (.*) \|$", page.partition("## Exit status")[2], re.MULTILINE)
    assert [int(number) for number, _ in rows] == [*Exit]
