"""`eventsource check`: each code at a server that shows it, and at one that does not.

The watch ends with a 204 wherever a test needs no time to pass.
"""

from __future__ import annotations

import base64
import contextlib
import gzip
import json
import os
import re
import signal
import ssl
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme

from eventsource.cli.failures import Exit
from eventsource.testing import ScriptedServer
from tests.conftest import secrets_in
from tests.support import (
    HEAD,
    LIMIT,
    QUERY_SECRET,
    SECRET,
    port_that_refuses,
    respond,
    status,
    stream,
    wait_until,
)
from tests.terminal import command as in_terminal
from tests.terminal import environment
from tests.wire import event, events

from .conftest import NO_MORE

GOOD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\n"
    b"Server: test\r\n\r\n"
)
CHUNKED = GOOD.replace(b"\r\n\r\n", b"\r\nTransfer-Encoding: chunked\r\n\r\n")
FULL = Path("/dev/full")
CODES = [
    *("status", "content-type", "caching", "latency", "compression", "buffering", "rate"),
    *("heartbeat", "ids", "retry", "format", "ended", "resume"),
]


def good(*blocks, then="close"):
    return respond(GOOD + b"".join(blocks), then=then)


def hold(connection):
    connection.read_request()
    connection.hold()


# --- The whole ---


def test_a_good_stream_has_no_problem(check):
    done = check(good(events(range(1, 21))), NO_MORE, good(events(range(11, 21)), then="hold"))
    assert (done.status, done.err) == (0, "")
    assert list(done.findings) == CODES
    assert done.problems == []
    assert set(done.levels.values()) == {"ok", "note"}
    assert done.levels["ended"] == "note"
    assert done.levels["resume"] == "ok"
    assert [request.last_event_id for request in done.requests] == ["", "20", "10"]


def test_the_json_is_one_object_with_figures(check):
    done = check(good(b": hi\nretry: 2000\n", events(range(3))), NO_MORE, arguments=["--no-resume"])
    assert done.out.count("\n") == 1
    assert set(done.result) == {"url", "findings", "figures"}
    for found in done.result["findings"]:
        assert set(found) == {"code", "level", "what", "evidence", "remedy"}
        assert found["level"] in ("ok", "note", "problem")
        assert found["level"] != "problem" or found["remedy"]
    figures = done.result["figures"]
    assert figures["events"] == figures["events_with_id"] == 3
    assert figures["comments"] == figures["connections"] == figures["losses"] == 1
    assert figures["retry"] == 2.0
    assert figures["bytes"] == len(b": hi\nretry: 2000\n" + events(range(3)))
    assert 0 <= figures["head_after"] <= figures["first_byte_after"] <= figures["seconds"]


def test_the_text_is_plain_lines_with_remedies(run):
    with ScriptedServer(stream(b"data: x\n\n"), NO_MORE) as server:
        done = run(server.url)
    assert done.status == 0
    lines = done.out.splitlines()
    assert lines[0] == "ok       status: The server answered 200 OK. (HTTP/1.1)"
    place = lines.index("note     caching: Caches may store the stream. (no Cache-Control)")
    assert lines[place + 1] == " " * 9 + "Send 'Cache-Control: no-cache' (or no-store)."
    assert lines[-1] == "no problem, 4 notes"
    assert "\x1b" not in done.out


def test_the_watch_ends_after_its_seconds(check):
    done = check(good(event(1), then="hold"), arguments=["--seconds", "3"])
    assert 2.9 < done.result["figures"]["seconds"] <= 3
    assert "ended" not in done.findings


def test_the_how_to_has_every_code():
    page = (Path(__file__).parents[3] / "docs/how-to/is-it-the-server.md").read_text("utf-8")
    symptoms, codes = page.split("## What each code says")
    first_cells = re.findall(r"^\| (`[^|]*`) \|", codes, re.MULTILINE)
    every = {*CODES, "redirect", "tls"}
    assert set(re.findall(r"`([\w-]+)`", " ".join(first_cells))) == every
    assert {code for code in every if f"`{code}`" not in symptoms} == {"latency"}


# --- status, content-type, redirect, tls ---


@pytest.mark.parametrize("line", ["404 Not Found", "500 Oh", "204 No Content"])
def test_another_status_is_an_answer_and_a_problem(check, line):
    done = check(status(line))
    assert (done.status, done.err) == (1, "")
    assert done.levels == {"status": "problem"}
    assert len(done.requests) == 1


def test_another_content_type_is_an_answer_and_a_problem(check):
    done = check(status("200 OK", "Content-Type: text/html", body=b"<html>"))
    assert done.status == 1
    assert done.levels["content-type"] == "problem"
    assert "text/html" in done.findings["content-type"]["what"]


def test_credentials_that_another_origin_was_not_sent(check):
    with ScriptedServer(good(event(1)), NO_MORE) as other:
        moved = status("307 Moved", f"Location: {other.url}")
        done = check(moved, arguments=["-u", f"me:{SECRET}"])
        assert other.requests[0].header("Authorization") is None
    assert done.levels["redirect"] == "note"
    assert f"not sent to {other.url[:-1]}" in done.findings["redirect"]["what"]
    assert "redirect" not in check(good(event(1)), NO_MORE).findings


@pytest.mark.parametrize(("days", "level"), [(3, "problem"), (90, "ok")])
def test_the_certificate_has_days_left(check, tmp_path, days, level):
    authority, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    end = datetime.now(UTC) + timedelta(days=days, hours=1)
    authority.issue_cert("127.0.0.1", not_after=end).configure_cert(context)
    pem = tmp_path / "ca.pem"
    pem.write_bytes(authority.cert_pem.bytes())
    scripts = good(event(1)), NO_MORE
    done = check(*scripts, arguments=["--cacert", str(pem)], ssl_context=context)
    assert done.levels["tls"] == level
    assert f"{days} days left" in done.findings["tls"]["evidence"]
    assert "over TLS" in done.findings["status"]["evidence"]
    done = check(*scripts, arguments=["-k"], ssl_context=context)
    assert done.levels["tls"] == "note"
    assert done.err == ""
    done = check(*scripts, ssl_context=context)
    assert (done.status, done.out) == (60, "")
    assert done.err.count("\n") == 1


# --- caching, compression ---


@pytest.mark.parametrize("arguments", [[], ["-H", "Accept-Encoding: gzip"]])
def test_a_coding_that_was_asked_for_or_not(check, arguments):
    coded = GOOD.replace(b"\r\n\r\n", b"\r\nContent-Encoding: gzip\r\n\r\n")
    done = check(respond(coded + gzip.compress(event(1))), NO_MORE, arguments=arguments)
    assert done.levels["compression"] == "note"
    unasked = "though that was not asked for" in done.findings["compression"]["what"]
    assert unasked == (not arguments)
    assert done.result["figures"]["events"] == 1


def test_a_body_that_cannot_be_decompressed(check):
    broken = GOOD.replace(b"\r\n\r\n", b"\r\nContent-Encoding: gzip\r\n\r\n") + b"no gzip at all"
    done = check(respond(broken))
    assert done.status == 1
    assert done.levels["compression"] == "problem"
    assert not {"buffering", "ended", "resume"} & {*done.levels}  # of which it says nothing
    assert len(done.requests) == 1


# --- buffering: see also test_nginx.py ---


def slices(body, size, pause=0.4):
    def script(connection):
        connection.read_request()
        connection.send(GOOD)
        for at in range(0, len(body), size):
            connection.send(body[at : at + size])
            connection.pause(pause)

    return script


def test_a_buffer_on_the_way(check):
    done = check(slices(events(range(600), data="0123456789")[: 3 * 4096], 4096, 1.0), NO_MORE)
    assert done.status == 1
    assert done.levels["buffering"] == "problem"
    assert "4,096" in done.findings["buffering"]["evidence"]
    assert done.levels["resume"] == "note"
    assert "held back" in done.findings["resume"]["evidence"]
    assert len(done.requests) == 2


# --- ids, retry, format, heartbeat ---


def test_an_event_that_is_too_large(check, monkeypatch):
    monkeypatch.setitem(
        sys.modules["eventsource.stream"].EventStream.__init__.__kwdefaults__,
        "max_event_size",
        1000,
    )
    done = check(good(event(1), event(2, size=2000)))
    assert done.status == 1
    assert done.levels["format"] == "problem"
    assert len(done.requests) == 2  # it is resumed all the same


# --- ended ---


def test_a_lost_connection_is_made_again_soon_whatever_retry_says(check):
    done = check(good(b"retry: 3600000\n", event(1)), good(event(2)), NO_MORE)
    assert done.result["figures"]["connections"] == 2
    assert [request.last_event_id for request in done.requests] == ["", "1", "2"]


def test_it_is_made_again_twenty_times_at_the_most(check, soon):
    done = check(good())
    assert len(done.requests) == 21
    assert done.levels["ended"] == "problem"
    assert done.status == 1


def test_an_end_that_is_a_cut(check):
    cut = respond(CHUNKED + b"9\r\ndata: x\n\n\r\n64\r\ndata: ")
    done = check(cut, NO_MORE)
    assert "cut off" in done.findings["ended"]["evidence"]
    assert "with an unfinished event" in done.findings["ended"]["evidence"]
    whole = respond(CHUNKED + b"9\r\ndata: x\n\n\r\n0\r\n\r\n")
    assert (
        check(whole, NO_MORE).findings["ended"]["evidence"].endswith("in order; then 204: no more")
    )


# --- resume ---


def numbered(start):
    """A server that begins after the id of the request, plus `start`."""

    def script(connection):
        request = connection.read_request()
        connection.send(GOOD)
        connection.send(events(range(start(int(request.last_event_id or 0)) + 1, 31)))
        if request.last_event_id:
            connection.hold()

    return script


REPLAYS = numbered(lambda asked: asked)
BEGINS_ANEW = numbered(lambda _: 0)


@pytest.mark.parametrize(
    ("script", "level", "what"),
    [(REPLAYS, "ok", "resumes"), (BEGINS_ANEW, "problem", "begins anew")],
    ids=["replays", "begins-anew"],
)
def test_resuming(check, monkeypatch, script, level, what):
    monkeypatch.setattr(
        "eventsource.cli.check.watching.SECONDS", 10 * LIMIT
    )  # it is settled before
    done = check(script, NO_MORE, script)
    assert done.levels["resume"] == level
    assert what in done.findings["resume"]["what"]
    assert done.status == (level == "problem")
    assert done.requests[-1].last_event_id == "20"


def test_a_server_that_ignores_the_id(check, monkeypatch):
    monkeypatch.setattr("eventsource.cli.check.watching.SECONDS", 1.0)
    ignores = numbered(lambda asked: 30 if asked else 0)
    done = check(ignores, NO_MORE, ignores)
    assert (done.status, done.levels["resume"]) == (1, "problem")
    assert "does not send what followed" in done.findings["resume"]["what"]


def test_a_refusal_of_the_id(check):
    assert check(REPLAYS, NO_MORE, status("400 Bad")).levels["resume"] == "problem"


def test_a_stream_that_goes_on_is_resumed_on_a_new_connection(check):
    done = check(good(events(range(1, 31)), then="hold"), REPLAYS, arguments=["--seconds", "3"])
    assert done.levels["resume"] == "ok"
    assert [request.last_event_id for request in done.requests] == ["", "20"]


def test_it_is_not_resumed_if_that_is_not_wanted(check):
    done = check(REPLAYS, NO_MORE, arguments=["--no-resume"])
    assert "resume" not in done.findings
    assert len(done.requests) == 2


# --- What costs money is sent once ---


@pytest.mark.parametrize("then", ["close", "reset"])
def test_a_post_is_sent_once(check, then):
    body = CHUNKED + b"".join(b"%x\r\n%b\r\n" % (len(event(n)), event(n)) for n in range(10, 30))
    done = check(
        respond(body + (b"0\r\n\r\n" if then == "close" else b"")), arguments=["-d", '{"a": 1}']
    )
    assert [(request.method, request.body) for request in done.requests] == [("POST", b'{"a": 1}')]
    assert "resume" not in done.findings
    assert done.levels["ended"] == ("ok" if then == "close" else "problem")


def test_a_post_that_fails_is_not_sent_again(check):
    done = check(lambda connection: connection.read_request(), arguments=["-d", "x"])
    assert (done.status, len(done.requests)) == (7, 1)
    done = check(status("503 Busy"), arguments=["-X", "PUT"])
    assert (done.status, len(done.requests)) == (1, 1)


def test_it_takes_the_options_of_a_request(check):
    done = check(
        good(event(1)),
        arguments=[
            *("-X", "PUT", "-A", "me", "-e", "http://from/", "-b", "a=b", "-H", "X-Key: 1"),
            *("--json", '{"a": 1}', "--compressed", "-N", "-L", "--connect-timeout", "5"),
        ],
    )
    request = done.requests[0]
    assert (request.method, request.body) == ("PUT", b'{"a": 1}')
    names = ("User-Agent", "Referer", "Cookie", "X-Key", "Content-Type")
    assert [request.header(name) for name in names] == [
        *("me", "http://from/", "a=b", "1", "application/json")
    ]


# --- No answer ---


def test_a_port_that_is_closed(run):
    with port_that_refuses() as port:
        done = run("--format", "json", f"http://127.0.0.1:{port}/")
    assert (done.status, done.out) == (7, "")
    assert done.err == (
        f"eventsource check: http://127.0.0.1:{port}/: Failed to connect: Connection refused\n"
    )


def test_a_server_that_closes_at_once(check):
    done = check(lambda connection: None)
    assert (done.status, done.out) == (7, "")


def test_a_server_that_never_answers(check):
    done = check(lambda connection: connection.hold(), arguments=["--seconds", "0.5"])
    assert (done.status, done.out) == (28, "")
    assert "no answer within 0.5 seconds" in done.err
    assert "--seconds" in done.err


def test_a_server_that_speaks_no_tls(run):
    with ScriptedServer(status("400 Bad")) as server:
        assert run(server.url.replace("http:", "https:")).status == 35


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["--seconds", "0", "http://h/"], "not a number of seconds"),
        (["--seconds", "nan", "http://h/"], "not a number of seconds"),
        (["ftp://h/"], "scheme"),
        ([], "URL"),
        (["--key", __file__, "http://h/"], "--key needs --cert"),
    ],
)
def test_wrong_use(run, arguments, what):
    done = run(*arguments)
    assert (done.status, done.out) == (2, "")
    assert what in done.err
    assert done.err.count("\n") == 1


# --- Secrets ---


@pytest.mark.parametrize("form", ["text", "json"])
@pytest.mark.parametrize(
    ("arguments", "userinfo", "query"),
    [
        (["-H", f"Authorization: Bearer {SECRET}"], "", ""),
        (["-H", f"X-Api-Key: {SECRET}"], "", ""),
        (["-b", f"a={SECRET}; b=c"], "", ""),
        (["-u", f"me:{SECRET}"], "", ""),
        (["-u", f"{SECRET}:"], "", ""),
        ([], f"me:{SECRET}@", ""),
        ([], f"{SECRET}:@", ""),
        ([], "", f"?key={QUERY_SECRET}&a=b"),
    ],
    ids=["bearer", "key", "cookie", "password", "user", "url", "user-of-url", "query"],
)
def test_no_secret_is_shown_though_the_server_sends_all_of_it_back(
    run, form, arguments, userinfo, query
):
    def echo(connection):
        request = connection.read_request()
        values = [value for _, value in request.headers if value]
        basic = (request.header("Authorization") or "").removeprefix("Basic ")
        if basic and "Bearer" not in basic:
            values += base64.b64decode(basic).decode().split(":")
        fields = "; ".join(f"{name}: {value}" for name, value in request.headers)
        texts = [fields, request.target, *filter(None, values)]
        sent.update(texts)
        server = f"\r\nServer: {request.target} {fields}\r\n\r\n".encode()
        connection.send(HEAD.replace(b"\r\n\r\n", server))
        for line in ("", "id: ", "event: ", "retry: "):
            for text in texts:
                connection.send(f"{line}{text}\ndata: x\n\n".encode())

    sent = set()
    with ScriptedServer(echo, NO_MORE, echo) as server:
        url = server.url.replace("//", f"//{userinfo}") + query
        done = run("--format", form, *arguments, url)
    assert secrets_in(" ".join(sent))
    assert "format" in done.out
    assert secrets_in(done.out + done.err) == set()


def test_what_a_server_sends_is_shortened_and_gives_no_orders(check, run):
    nasty = b"\x1b[31m" + b"long" * 5000
    scripts = (
        good(nasty, b"\nevent: ", nasty, b"\nid: ", nasty, b"\ndata: x\n\n"),
        NO_MORE,
    )
    done = check(*scripts)
    assert all(len(found["evidence"]) < 500 for found in done.result["findings"])
    with ScriptedServer(*scripts) as server:
        assert "\x1b" not in run(server.url).out


# --- The end of the command ---


@contextlib.contextmanager
def process(*arguments, **options):
    running = subprocess.Popen(
        [sys.executable, "-m", "eventsource", "check", *arguments],
        **{"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        | options,
        env=environment(),
    )
    try:
        yield running
    finally:
        running.kill()
        running.wait(LIMIT)
        for pipe in (running.stdout, running.stderr):
            if pipe:
                pipe.close()


@pytest.mark.parametrize(
    ("phase", "number"),
    [
        ("connecting", signal.SIGINT),
        ("watching", signal.SIGTERM),
        ("resuming", signal.SIGHUP),
        ("watching", signal.SIGINT),
    ],
)
def test_a_signal_ends_it_in_every_phase(phase, number):
    scripts = {
        "connecting": (hold,),
        "watching": (good(event(1), then="hold"),),
        "resuming": (REPLAYS, NO_MORE, hold),
    }[phase]
    with ScriptedServer(*scripts) as server, process(server.url) as running:
        server.wait_for_request(len(scripts))
        if phase == "watching":
            wait_until(lambda: b" caching: " in running.stdout.readline(), "the head to be judged")
        running.send_signal(number)
        out, err = running.communicate(timeout=LIMIT)
        assert (running.returncode, err) == (128 + number, b"")
        # What was seen before is reported.
        assert (b" rate: " in out) == (phase != "connecting")
        assert bool(re.search(rb"problem, \d notes?, interrupted after", out)) == (
            phase != "connecting"
        )
        assert (b"resume: Whether" in out) == (phase != "connecting")


def test_json_is_printed_also_if_a_signal_ends_the_watch():
    with ScriptedServer(good(event(1)), hold) as server:
        with process("--format", "json", server.url) as running:
            server.wait_for_request(2)
            running.send_signal(signal.SIGINT)
            out, err = running.communicate(timeout=LIMIT)
    assert (running.returncode, err) == (Exit.INTERRUPTED, b"")
    assert json.loads(out)["figures"]["events"] == 1


def test_the_second_signal_ends_it_though_nobody_reads_the_report():
    receiving, sending = os.pipe()
    os.set_blocking(sending, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(sending, bytes(2**12))
    os.set_blocking(sending, True)
    with ScriptedServer(good(event(1)), hold) as server:
        with process("--format", "json", server.url, stdout=sending) as running:
            server.wait_for_request(2)
            running.send_signal(signal.SIGINT)
            with pytest.raises(subprocess.TimeoutExpired):
                running.wait(1)
            running.send_signal(signal.SIGTERM)
            assert running.wait(LIMIT) == Exit.TERMINATED
    os.close(sending)
    os.close(receiving)


@pytest.mark.parametrize("form", ["text", "json"])
def test_it_ends_when_nobody_reads_its_output(form):
    with ScriptedServer(good(event(1), then="hold")) as server:
        with process("--format", form, server.url) as running:
            server.wait_for_request()
            running.stdout.close()
            running.stdout = None
            assert running.wait(LIMIT) == Exit.PIPE_CLOSED
            assert running.stderr.read() == b""


@pytest.mark.skipif(not FULL.exists(), reason="no /dev/full")
def test_an_output_that_cannot_be_written():
    with FULL.open("wb") as full, ScriptedServer(status("404 No")) as server:
        with process(server.url, stdout=full) as running:
            _, err = running.communicate(timeout=LIMIT)
    assert running.returncode == Exit.NO_OUTPUT
    assert err.count(b"\n") == 1


# --- A terminal ---


def test_on_a_terminal_findings_appear_as_they_are_made_above_a_strip_of_time():
    def script(connection):
        connection.read_request()
        connection.send(GOOD + event(1))
        connection.hold()

    with ScriptedServer(script, REPLAYS) as server:
        with in_terminal("check", "--seconds", "3", server.url, columns=120, rows=40) as terminal:
            terminal.wait_for("content-type: The content type")
            terminal.wait_for("watching")
            assert "latency" not in terminal.text
            terminal.wait_for("no problem")
            terminal.finish()
            assert "█" in terminal.text
            assert "silence" in terminal.text
            assert "resume:" in terminal.text
            assert "watching" not in terminal.text
            terminal.assert_in_order()


def test_the_command_leaves_no_signal_handler_and_no_thread(check):
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    check(good(event(1)), NO_MORE)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
