"""What is secret stays so: at its origin, and out of log lines, error texts and `repr`s."""

from __future__ import annotations

import base64
import contextlib
import datetime as dt
import gzip
import logging
import pickle
import re
import socket
import ssl
import tempfile
import threading
import traceback
import warnings
from pathlib import Path

import pytest
import requests
import trustme
import urllib3
from requests.auth import HTTPDigestAuth

import eventsource
from eventsource import ErrorEvent, EventSource, EventStream, ReconnectPolicy, SSEClient
from eventsource.testing import ScriptedServer
from eventsource.urls import redact_text
from tests.conftest import pytest_runtest_makereport, secrets_in
from tests.exchanges import basic
from tests.support import (
    CHUNKED,
    HEAD,
    LIMIT,
    QUERY_SECRET,
    QUICK,
    SECRET,
    errors,
    opens,
    port_that_never_answers,
    port_that_refuses,
    respond,
    status,
)

AUTHORITY = trustme.CA()
CLIENTS = trustme.CA()


def server_context(*names, **details):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    AUTHORITY.issue_cert(*(names or ("127.0.0.1", "localhost")), **details).configure_cert(context)
    return context


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The authority's certificate, and a client's with its key."""
    folder = tmp_path_factory.mktemp("certificates")
    AUTHORITY.cert_pem.write_to_path(str(folder / "authority"))
    client = CLIENTS.issue_cert("client@example.com")
    client.private_key_and_cert_chain_pem.write_to_path(str(folder / "client"))
    return {"verify": str(folder / "authority"), "cert": str(folder / "client")}


@pytest.fixture(params=["our session", "a session of the caller's"])
def session(request):
    if request.param == "our session":
        yield None
        return
    with requests.Session() as session:
        yield session


def route(locations, line="302 Found", *fields):
    """A script that redirects from some targets, and answers others with an event."""

    def script(connection):
        target = connection.read_request().target.partition("?")[0]
        if target in locations:
            head = [f"HTTP/1.1 {line}", f"Location: {locations[target]}", *fields]
            connection.send("\r\n".join([*head, "Content-Length: 0", "", ""]).encode())
        else:
            connection.send(HEAD + b"data: x\n\n")

    return script


@contextlib.contextmanager
def two_origins(line="302 Found", *, tls_at_home=False, tls_away=False):
    """A server, and another that redirects to it: `away` and `home`."""
    context = server_context()
    with (
        ScriptedServer(route({}), ssl_context=context if tls_away else None) as away,
        ScriptedServer(
            route({"/": f"{away.url}x"}, line), ssl_context=context if tls_at_home else None
        ) as home,
    ):
        yield away, home


def opened(url, session=None, attempts=2, **options):
    """Open, lose the connection, reconnect; return the open events."""
    with EventStream(url, session=session, last_event_id="7", reconnect=QUICK, **options) as events:
        return opens(events, attempts)


OWN = ["Accept", "Accept-Encoding", "Cache-Control", "Host", "Last-Event-ID", "User-Agent"]


def assert_bare(request, *more):
    """It tells no secret, and holds no fields but these, each once, with values of ours."""
    assert not secrets_in(repr(request))
    assert sorted(name for name, _ in request.headers) == sorted([*OWN, *more])
    assert request.header("Accept") == "text/event-stream"
    assert request.header("Accept-Encoding") == "identity"
    assert request.header("Cache-Control") == "no-cache"
    assert request.header("Last-Event-ID") == "7"
    assert request.header("User-Agent") == f"eventsource-client/{eventsource.__version__}"


def assert_told_nothing(server, *more):
    assert server.requests
    for request in server.requests:
        assert_bare(request, *more)


# --- The watch over everything that is logged (see conftest.py) ---


@pytest.mark.parametrize(
    "text",
    [
        SECRET,
        f"Basic {base64.b64encode(f'user:{SECRET}'.encode()).decode()}",
        basic("u", SECRET),
        basic("us", SECRET),
        basic(SECRET, "p"),
        f"http://u:{SECRET}@host/",
    ],
)
def test_the_watch_knows_a_planted_credential_in_all_its_forms(text):
    assert secrets_in(f"so: {text}.", queries=False)
    assert not secrets_in(text.swapcase())


def log_it(logger, message, *arguments, **details):
    logging.getLogger(logger).debug(message, *arguments, **details)


def raised(text, cause=None):
    try:
        raise ValueError(text) from cause
    except ValueError as error:
        return error


class Holder:
    def __repr__(self):
        return SECRET


@pytest.mark.parametrize(
    ("arguments", "details"),
    [
        ((f"a message with {SECRET}",), {}),
        (("%s", SECRET), {}),
        (("%(a).3s", {"a": SECRET}), {}),
        (("%.2r", Holder()), {}),
        (("%s", basic("u", SECRET)), {}),
        (("a query", {"query": QUERY_SECRET}), {}),
        (("x",), {"exc_info": raised(SECRET)}),
        (("x",), {"exc_info": raised("y", raised(SECRET))}),
    ],
    ids=["message", "argument", "cut", "cut repr", "base64", "unused", "exception", "cause"],
)
def test_the_watch_finds_a_secret_wherever_a_record_has_it(log_watch, arguments, details):
    log_it("eventsource.made.up", *arguments, **details)
    (found,) = log_watch.take()
    assert "in DEBUG of eventsource.made.up (MainThread)" in found


def test_the_watch_finds_what_another_thread_logs_and_caplog_gets_no_more_than_before(
    log_watch, caplog
):
    for level in ("debug", "warning"):
        thread = threading.Thread(
            target=getattr(logging.getLogger("eventsource"), level), args=(SECRET,), name="another"
        )
        thread.start()
        thread.join()
    assert [re.search(r"in (\w+) of eventsource \(another\)", f)[1] for f in log_watch.take()] == [
        "DEBUG",
        "WARNING",
    ]
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_the_watch_holds_libraries_to_credentials_and_us_to_queries_too(log_watch):
    for logger in ("urllib3.connectionpool", "requests", "asyncio", "root"):
        log_it(logger, QUERY_SECRET)
        assert log_watch.take() == []
        log_it(logger, SECRET)
        assert len(log_watch.take()) == 1
    log_it("uvicorn.access", SECRET)  # a server may log what it was sent
    assert log_watch.take() == []


def test_a_secret_on_stdout_or_stderr_fails_its_test():
    for text, outcome in ((f"x{SECRET}x", "failed"), ("x", "passed")):
        report = pytest.TestReport(
            "a test", ("", 0, ""), {}, "passed", None, "call", [("Captured stderr call", text)]
        )
        hook = pytest_runtest_makereport()
        next(hook)
        with pytest.raises(StopIteration) as stopped:
            hook.send(report)
        assert stopped.value.value.outcome == outcome


# --- What another origin gets to see ---


def bearer(request):
    request.headers["Authorization"] = f"Bearer {SECRET}"
    request.headers["X-Signature"] = SECRET
    return request


EVERYTHING = {
    "headers": {"Authorization": f"Bearer {SECRET}", "X-Api-Key": SECRET},
    "cookies": {"sid": SECRET},
    "params": {"key": QUERY_SECRET},
}


def give_all_to(session):
    if session is not None:
        session.headers.update({"X-Other-Key": SECRET, "Referer": f"http://host/{SECRET}"})
        session.auth = ("user", SECRET)
        session.params = {"other": QUERY_SECRET}
        session.cookies.set("everywhere", SECRET)
        session.cookies.set("here", SECRET, domain="127.0.0.1")


LINES = ["301 Moved Permanently", "302 Found", "303 See Other", "307 Temporary", "308 Permanent"]


@pytest.mark.parametrize("line", LINES)
def test_another_port_sees_our_own_fields_and_the_place_at_each_attempt(session, line):
    give_all_to(session)
    with two_origins(line) as (away, home):
        opened(home.url, session, **EVERYTHING)
        assert [r.target for r in away.requests] == ["/x", "/x"]
        assert_told_nothing(away)
        for request in home.requests:
            assert request.header("X-Api-Key") == SECRET
            assert SECRET in request.header("Cookie")
            assert QUERY_SECRET in request.target


KINDS = {
    "an Authorization field": {"headers": {"Authorization": f"Bearer {SECRET}"}},
    "the same in bytes": {"headers": {b"authorization": f"Bearer {SECRET}".encode()}},
    "a key": {"headers": {"X-Api-Key": SECRET}},
    "a Cookie field": {"headers": {"Cookie": f"sid={SECRET}"}},
    "a Proxy-Authorization field": {"headers": {"Proxy-Authorization": SECRET}},
    "a Host": {"headers": {"Host": f"{SECRET}.example"}},
    "user and password": {"auth": ("user", SECRET)},
    "a callable": {"auth": bearer},
    "cookies": {"cookies": {"sid": SECRET}},
    "a cookie jar": {"cookies": requests.cookies.cookiejar_from_dict({"sid": SECRET})},
    "params": {"params": {"key": QUERY_SECRET}},
}


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_secret_goes_home_and_nowhere_else(session, kind):
    with two_origins() as (away, home):
        opened(home.url, session, **KINDS[kind])
        for request in home.requests:
            assert secrets_in(repr(request))
        assert_told_nothing(away)


@pytest.mark.parametrize("credentials", [f"user:{SECRET}@", f"{SECRET}:@", f"a%40b:{SECRET}@"])
def test_credentials_in_the_url_go_home_and_nowhere_else(session, credentials):
    with (
        ScriptedServer(route({})) as away,
        ScriptedServer(route({"/": "2", "/2": f"//127.0.0.1:{away.port}/x"})) as home,
    ):
        opened(home.url.replace("//", f"//{credentials}"), session)
        assert [r.target for r in home.requests] == ["/", "/2"] * 2
        for request in home.requests:
            assert secrets_in(request.header("Authorization"))
        assert_told_nothing(away)


@pytest.fixture
def netrc(monkeypatch, tmp_path):
    path = tmp_path / "netrc"
    path.write_text(f"machine 127.0.0.1 login user password {SECRET}\n")
    monkeypatch.setenv("NETRC", str(path))


def test_netrc_credentials_go_to_their_host_only(netrc, session):
    with (
        ScriptedServer(route({})) as away,
        ScriptedServer(route({"/": f"http://localhost:{away.port}/"})) as home,
    ):
        opened(home.url, session)
        for request in home.requests:
            assert request.header("Authorization") == basic("user", SECRET)
        assert_told_nothing(away)


@pytest.mark.parametrize("is_trusted", [False, True])
def test_netrc_credentials_sent_over_tls_are_not_sent_in_the_clear(
    netrc, session, files, is_trusted
):
    with two_origins(tls_at_home=True) as (away, home):
        origins = [away.url.rstrip("/")] if is_trusted else []
        opened(home.url, session, verify=files["verify"], trusted_origins=origins)
        for request in home.requests:
            assert request.header("Authorization") == basic("user", SECRET)
        assert_told_nothing(away, *(["Connection"] if is_trusted else []))


def test_digest_credentials_answer_only_their_own_origins_challenge(session):
    challenge = 'WWW-Authenticate: Digest realm="r", nonce="n", qop="auth"'
    moved = []

    def home_script(connection):
        respond(f"HTTP/1.1 401 No\r\n{challenge}\r\nContent-Length: 0\r\n\r\n".encode())(connection)
        moved[0](connection)

    with ScriptedServer(status("401 No", challenge)) as away, ScriptedServer(home_script) as home:
        moved.append(route({"/": away.url}))
        with EventStream(
            home.url, session=session, last_event_id="7", auth=HTTPDigestAuth(SECRET, SECRET)
        ) as events:
            (event,) = errors(events)
        assert event.error.status == 401
        assert SECRET in home.requests[1].header("Authorization")
        (request,) = away.requests
        assert_bare(request)


def places(home, away):
    """Locations that lead to `away`, or seem to lead home."""
    there, here = f"127.0.0.1:{away.port}", f"127.0.0.1:{home.port}"
    return {
        "absolute": f"http://{there}/x",
        "in capitals": f"HTTP://{there}/x",
        "protocol-relative": f"//{there}/x",
        "with a fragment": f"http://{there}/x#{here}",
        "with home as user": f"http://{here}@{there}/x",
        "with home as user and password": f"http://home:{home.port}@{there}/x",
        "with home after a hash": f"http://{there}#@{here}/x",
        "with home after a question mark": f"http://{there}?@{here}/x",
        "with home after a backslash": f"http://{there}\\@{here}/x",
        "with home as user before a backslash": f"http://{here}\\@{there}/x",
        "with backslashes": f"\\\\{there}/x",
        "with a slash and a backslash": f"/\\{there}/x",
        "with three slashes": f"http:///{there}/x",
        "with a tab": f"http://{there}\t@{here}/x",
        "with a tab in the scheme": f"ht\ttp://{there}/x",
        "with spaces around": f"   http://{there}/x  ",
        "with a dot": f"http://localhost.:{away.port}/x",
        "with another name": f"http://localhost:{away.port}/x",
        "with another form of the address": f"http://127.1:{away.port}/x",
        "with a percent sign": f"http://%31%32%37.0.0.1:{away.port}/x",
        "with letters of full width": f"http://\uff4cocalhost:{away.port}/x",
    }


PLACES = list(places(*[type("", (), {"port": 1})] * 2))


def lead_to(kind, servers):
    """A script that redirects to the location of this kind, once there are the servers."""

    def script(connection):
        location = places(*servers)[kind].encode()
        head = b"HTTP/1.1 302 x\r\nLocation: %b\r\nContent-Length: 0\r\n\r\n" % location
        respond(head)(connection)

    return script


@pytest.mark.parametrize("kind", PLACES)
def test_no_spelling_of_a_location_takes_secrets_along(session, kind):
    give_all_to(session)
    servers = []
    with (
        ScriptedServer(lead_to(kind, servers), route({})) as home,
        ScriptedServer(route({})) as away,
    ):
        servers[:] = home, away
        url = home.url.replace("//", f"//user:{SECRET}@")
        with EventStream(
            url, session=session, last_event_id="7", reconnect=None, timeout=LIMIT, **EVERYTHING
        ) as events:
            next(events)
        assert secrets_in(repr(home.requests[0]))
        for request in away.requests:
            assert not secrets_in(repr(request))
            assert {name for name, _ in request.headers} <= {*OWN, "Authorization"}
            if "as user" not in kind:  # whose own credentials these are then
                assert_bare(request)


def test_the_same_port_by_another_name_is_another_origin(session):
    give_all_to(session)
    with ScriptedServer(lambda c: route({"/": f"http://localhost:{home.port}/x"})(c)) as home:
        opened(home.url, session, **EVERYTHING)
        first, second, *_ = home.requests
        assert (first.target.partition("?")[0], second.target) == ("/", "/x")
        assert SECRET in first.header("X-Api-Key")
        assert_bare(second)


@pytest.mark.parametrize("home_is_tls", [True, False])
def test_another_scheme_is_another_origin(session, home_is_tls, files):
    give_all_to(session)
    with two_origins(tls_at_home=home_is_tls, tls_away=not home_is_tls) as (away, home):
        opened(home.url, session, verify=files["verify"], **EVERYTHING)
        for request in home.requests:
            assert SECRET in request.header("X-Api-Key")
        assert_told_nothing(away)


def test_home_again_after_having_been_away_is_away(session):
    give_all_to(session)
    servers = []
    with (
        ScriptedServer(lambda c: route({"/": "2", "/2": servers[1].url + "3"})(c)) as home,
        ScriptedServer(lambda c: route({"/3": "4", "/4": home.url + "5"})(c)) as away,
    ):
        servers[:] = home, away
        opened(home.url, session, **EVERYTHING)
        targets = [r.target.partition("?")[0] for r in home.requests]
        assert targets == ["/", "/2", "/5"] * 2
        for request in home.requests:
            if request.target == "/5":
                assert_bare(request)
            else:
                assert request.header("X-Api-Key") == SECRET
        assert [r.target for r in away.requests] == ["/3", "/4"] * 2
        assert_told_nothing(away)


def test_relative_locations_stay_at_home_and_keep_everything(session):
    with ScriptedServer(route({"/": "a", "/a": "/b/", "/b/": "?c", "/d": ""})) as home:
        with EventStream(home.url, session=session, last_event_id="7", **EVERYTHING) as events:
            errors(events)
        paths = [r.target.partition("?")[0] for r in home.requests][:4]
        assert paths == ["/", "/a", "/b/", "/b/"]
        for request in home.requests:
            assert request.header("X-Api-Key") == SECRET
            assert request.header("Authorization") == f"Bearer {SECRET}"
            assert request.header("Cookie") == f"sid={SECRET}"


def test_a_post_takes_its_body_along_and_no_other_fields(session):
    give_all_to(session)
    with two_origins("307 Temp") as (away, home):
        opened(home.url, session, method="POST", json={"a": 1}, **EVERYTHING)
        for request in away.requests:
            assert request.body == b'{"a": 1}'
            assert_bare(request, "Content-Type", "Content-Length")


def test_cookies_that_are_set_on_the_way_stay_where_they_are_from(session):
    def away_script(connection):
        connection.read_request()
        fields = b"\r\nSet-Cookie: away=1\r\nSet-Cookie: planted=1; Domain=127.0.0.1\r\n\r\n"
        connection.send(HEAD.replace(b"\r\n\r\n", fields))

    with ScriptedServer(away_script) as away:
        location = f"http://localhost:{away.port}/"
        with ScriptedServer(route({"/": location}, "302 x", f"Set-Cookie: sid={SECRET}")) as home:
            opened(home.url, session)
            assert [r.header("Cookie") for r in home.requests] == [None, f"sid={SECRET}"]
            assert_told_nothing(away)


def asking_for_a_certificate(mode=ssl.CERT_OPTIONAL):
    context = server_context()
    context.verify_mode = mode
    CLIENTS.configure_trust(context)
    return context


@pytest.fixture(params=["option", "session"])
def with_certificate(request, session, files):
    """The options with which a client shows its certificate."""
    if request.param == "option":
        return files
    if session is None:
        pytest.skip("there is no session to give it to")
    session.cert = files["cert"]
    return {"verify": files["verify"]}


def noting(shown, script):
    """The same script; it notes what was asked for, and whether a certificate was shown."""

    def noting_script(connection):
        peer = connection.sock.getpeercert()
        script(connection)
        shown.append((connection.request.target, bool(peer)))

    return noting_script


def test_a_client_certificate_is_shown_at_home_only(session, with_certificate):
    at_home, elsewhere, servers = [], [], []
    to_away = noting(at_home, lambda c: route({"/": "2", "/2": servers[1].url + "3"})(c))
    back = noting(elsewhere, lambda c: route({"/3": servers[0].url + "4"})(c))
    with (
        ScriptedServer(to_away, ssl_context=asking_for_a_certificate()) as home,
        ScriptedServer(back, ssl_context=asking_for_a_certificate()) as away,
    ):
        servers[:] = home, away
        opened(home.url, session, **with_certificate)
    assert at_home == [("/", True), ("/2", True), ("/4", False)] * 2
    assert elsewhere == [("/3", False)] * 2


# --- Trusted origins ---


@pytest.mark.parametrize("kind", PLACES)
def test_no_spelling_of_a_location_passes_for_a_trusted_origin(session, kind):
    give_all_to(session)
    servers = []
    with (
        ScriptedServer(route({})) as trusted,
        ScriptedServer(route({})) as away,
        ScriptedServer(lead_to(kind, servers)) as home,
    ):
        servers[:] = trusted, away
        with EventStream(
            home.url.replace("//", f"//user:{SECRET}@"),
            session=session,
            reconnect=None,
            timeout=LIMIT,
            trusted_origins=[f"http://127.0.0.1:{trusted.port}"],
            **EVERYTHING,
        ) as events:
            next(events)
        assert secrets_in(repr(home.requests))
        assert not secrets_in(repr(away.requests))


@pytest.mark.parametrize("trusted", ["http", "https"])
def test_from_https_to_http_everything_goes_only_where_that_is_named(session, trusted, files):
    give_all_to(session)
    with two_origins(tls_at_home=True) as (away, home):
        origins = [f"{trusted}://127.0.0.1:{away.port}"]
        opened(home.url, session, verify=files["verify"], trusted_origins=origins, **EVERYTHING)
        for request in away.requests:
            if trusted == "http":
                assert request.header("X-Api-Key") == SECRET
                assert request.header("Authorization") == f"Bearer {SECRET}"
                assert f"sid={SECRET}" in request.header("Cookie")
                assert QUERY_SECRET not in request.target
            else:
                assert_bare(request)


def test_a_client_certificate_is_shown_to_a_trusted_origin(session, with_certificate):
    shown, context = [], asking_for_a_certificate()
    with (
        ScriptedServer(noting(shown, status("403 No")), ssl_context=context) as away,
        ScriptedServer(noting(shown, route({"/": f"{away.url}2"})), ssl_context=context) as home,
    ):
        trusted = f"https://127.0.0.1:{away.port}"
        texts = []
        for origins in ([], [trusted]):
            (event,) = errors(
                EventStream(home.url, session=session, trusted_origins=origins, **with_certificate)
            )
            texts.append(str(event.error))
    assert shown == [("/", True), ("/2", False), ("/", True), ("/2", True)]
    assert trusted in texts[0]
    assert "trusted_origins" not in texts[1]


# --- Proxies ---


def tunnel(connection):
    """A proxy: makes tunnels, and answers other requests itself."""
    request = connection.read_request()
    if request.method != "CONNECT":
        connection.send(HEAD + b"data: x\n\n")
        return
    with socket.create_connection(("127.0.0.1", int(request.target.rpartition(":")[2]))) as far:
        near = connection.sock
        connection.send(b"HTTP/1.1 200 OK\r\n\r\n")

        def pump(source, target):
            with contextlib.suppress(OSError):
                while data := source.recv(65536):
                    target.sendall(data)
            for sock in (source, target):
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)

        back = threading.Thread(target=pump, args=(far, near))
        back.start()
        pump(near, far)
        back.join()


def with_password(proxy, user="user"):
    return proxy.url.replace("//", f"//{user}:{SECRET}@")


def assert_only_the_proxy_was_told(proxy, *origins):
    assert proxy.requests
    for request in proxy.requests:
        assert request.header("Proxy-Authorization") == basic("user", SECRET)
    for origin in origins:
        assert_told_nothing(origin)


@pytest.mark.parametrize("by", ["proxies", "environment"])
def test_the_proxys_password_stays_outside_the_tunnel(session, by, files, monkeypatch):
    with (
        ScriptedServer(tunnel) as proxy,
        ScriptedServer(route({}), ssl_context=server_context()) as away,
        ScriptedServer(route({"/": "2", "/2": away.url}), ssl_context=server_context()) as home,
    ):
        options = {"verify": files["verify"]}
        if by == "proxies":
            options["proxies"] = {"https": with_password(proxy)}
        else:
            monkeypatch.setenv("https_proxy", with_password(proxy))
        opened(home.url, session, **options)
        for request in home.requests:
            assert not secrets_in(repr(request))
            assert request.header("Proxy-Authorization") is None
        assert_only_the_proxy_was_told(proxy, away)


def test_the_origins_secrets_stay_inside_the_tunnel(session, files):
    with (
        ScriptedServer(tunnel) as proxy,
        ScriptedServer(route({}), ssl_context=server_context()) as home,
    ):
        options = {**EVERYTHING, "verify": files["verify"], "proxies": {"https": proxy.url}}
        opened(home.url, session, **options)
        assert all(request.header("X-Api-Key") == SECRET for request in home.requests)
        assert all(request.method == "CONNECT" for request in proxy.requests)
        assert not secrets_in(repr(proxy.requests))
        assert not any(
            name.lower() in ("user-agent", "x-api-key")
            for request in proxy.requests
            for name, _ in request.headers
        )


@pytest.mark.parametrize("line", LINES)
def test_a_host_without_proxy_is_not_told_the_proxys_password(session, line, monkeypatch):
    with ScriptedServer(route({})) as away:
        there = f"http://localhost:{away.port}/"
        with ScriptedServer(
            route({"http://some.host/": "2", "http://some.host/2": there}, line)
        ) as proxy:
            monkeypatch.setenv("HTTP_PROXY", with_password(proxy))
            monkeypatch.setenv("http_proxy", with_password(proxy))
            monkeypatch.setenv("NO_PROXY", "localhost")
            monkeypatch.setenv("no_proxy", "localhost")
            opened("http://some.host/", session)
            assert_only_the_proxy_was_told(proxy, away)


def test_a_redirect_from_a_host_without_proxy_to_one_with_a_proxy(session, monkeypatch):
    with (
        ScriptedServer(tunnel) as proxy,
        ScriptedServer(route({"/": "2", "/2": "http://some.host/"})) as home,
    ):
        monkeypatch.setenv("http_proxy", with_password(proxy))
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        opened(home.url, session)
        assert len(home.requests) == 4
        for request in home.requests:
            assert not secrets_in(repr(request))
        for request in proxy.requests:
            assert_bare_by_proxy(request)


def assert_bare_by_proxy(request):
    assert request.header("Proxy-Authorization") == basic("user", SECRET)
    others = [(n, v) for n, v in request.headers if n.lower() != "proxy-authorization"]
    assert not secrets_in(repr(others))
    assert sorted(name for name, _ in others) == sorted(OWN)


def test_a_redirect_from_a_proxied_host_to_a_tunnel(session, files):
    with (
        ScriptedServer(route({}), ssl_context=server_context()) as away,
        ScriptedServer(tunnel) as second,
        ScriptedServer(route({"http://some.host/": away.url})) as first,
    ):
        proxies = {"http": with_password(first), "https": with_password(second)}
        opened("http://some.host/", session, verify=files["verify"], proxies=proxies)
        assert_only_the_proxy_was_told(first, away)
        assert_only_the_proxy_was_told(second, away)


def test_one_proxy_is_not_told_the_password_of_another(session):
    with (
        ScriptedServer(route({})) as general,
        ScriptedServer(route({"http://some.host/": "/2"})) as special,
    ):
        proxies = {"http": with_password(general), "http://some.host": special.url}
        opened("http://some.host/", session, proxies=proxies)
        assert [r.target for r in special.requests][:2] == [
            "http://some.host/",
            "http://some.host/2",
        ]
        assert general.requests == []
        for request in special.requests:
            assert not secrets_in(repr(request))


# --- What texts tell ---


def texts_of(error):
    """All that may be shown of an exception, also one that has been sent elsewhere.

    And of those in whose handling it was raised: `from None` keeps a traceback from being
    printed, and nothing else; error reporters look at `__context__`.
    """
    texts = traceback.format_exception(error)
    waiting = [error]
    while waiting:
        error = waiting.pop()
        texts += [str(error), repr(error), repr(error.args), repr(vars(error))]
        texts += [repr(getattr(error, "__notes__", None))]
        texts += [repr(getattr(error, name, None)) for name in ("object", "doc", "filename")]
        if isinstance(error, requests.RequestException):
            other = pickle.loads(pickle.dumps(error))  # noqa: S301
            texts += [str(other), repr(other)]
        waiting += filter(None, (error.__cause__, error.__context__))
    return "\n".join(texts)


@pytest.mark.parametrize("where", ["cause", "context", "hidden context", "args", "notes"])
def test_the_texts_of_an_error_are_those_of_all_that_hangs_on_it(where):
    def fail():
        if where == "args":
            raise KeyError(0, [SECRET])
        if where == "notes":
            error = ValueError("x")
            error.add_note(SECRET)
            raise error
        try:
            f"{SECRET}\ud800".encode()
        except UnicodeError as error:
            if where == "cause":
                raise ValueError("x") from error
            if where == "context":
                raise ValueError("x")  # noqa: B904
            raise ValueError("x") from None

    with pytest.raises((KeyError, ValueError)) as caught:
        fail()
    assert secrets_in(texts_of(caught.value))


def with_secrets(url):
    return url.replace("//", f"//user:{SECRET}@") + f"path?key={QUERY_SECRET}#{QUERY_SECRET}"


FAILURES = {}


def failure(make):
    """Make a failure, with the arguments that lead to it, by the name of the function."""
    FAILURES[make.__name__] = make
    return make


def failing(name, *scripts, scheme="http", **options):
    """A failure by what a server does."""

    def make(stack, _session, _monkeypatch):
        server = stack.enter_context(ScriptedServer(*scripts))
        return with_secrets(server.url.replace("http", scheme)), options

    FAILURES[name] = make


def failing_at(name, url, **options):
    """A failure before a server has a part in it."""
    FAILURES[name] = lambda *_: (url, options)


def failing_at_a_port(name, make_port, scheme="http", **options):
    """A failure to connect."""

    def make(stack, _session, _monkeypatch):
        port = stack.enter_context(make_port())
        return with_secrets(f"{scheme}://127.0.0.1:{port}/"), options

    FAILURES[name] = make


failing("status 404", status("404 Not Found", body=b"why"))
failing("status 401", status("401 No", 'WWW-Authenticate: Digest realm="r", nonce="n"'))
failing("no answer", lambda connection: connection.read_request())
failing("reset", lambda connection: (connection.read_request(), connection.reset()))
failing("head cut off", respond(HEAD[:40]))
failing("no HTTP", respond(b"220 mail.example ESMTP\r\n"))
failing("another HTTP", respond(b"HTTP/3.0 200 OK\r\n\r\n"))
failing("a bad field", respond(HEAD[:-2] + b"no field\r\nX: y\r\n\r\n"))
failing("a long field", respond(HEAD[:-2] + b"X: " + b"y" * 70_000 + b"\r\n\r\n"))
failing("many fields", respond(HEAD[:-2] + b"X: y\r\n" * 200 + b"\r\n"))
failing("many interim responses", respond(b"HTTP/1.1 103 Early Hints\r\n\r\n" * 20_000))
failing("another type", respond(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n"))
failing("a chunk without size", respond(CHUNKED + b"z\r\n"))
failing("a chunk cut off", respond(CHUNKED + b"ff\r\ndata: x\n\n"))
failing("a body cut off", respond(HEAD[:-2] + b"Content-Length: 99\r\n\r\ndata: x\n\n"))
failing("no gzip", respond(HEAD[:-2] + b"Content-Encoding: gzip\r\n\r\n" + b"x" * 99))
failing(
    "gzip cut off", respond(HEAD[:-2] + b"Content-Encoding: gzip\r\n\r\n" + gzip.compress(b"x")[:9])
)
failing("the end", respond(HEAD))
failing("an event too large", respond(HEAD + b"data: " + b"x" * 99), max_event_size=9)
failing("silence", respond(b"", then="hold"), timeout=(LIMIT, 0.05))
failing("silence in the stream", respond(HEAD, then="hold"), timeout=(LIMIT, 0.05))
failing("no event", respond(HEAD, then="hold"), event_timeout=0.05)
failing("a redirect to nowhere", status("302 x", "Location: http://[?x"))
failing("a redirect to another scheme", status("302 x", f"Location: ftp://u:{SECRET}@h/#x"))
failing("a redirect to a bad port", status("302 x", f"Location: http://u:{SECRET}@h:x/"))
failing("a redirect loop", status("302 x", "Location: ?key=" + QUERY_SECRET))


failing_at_a_port("refused", port_that_refuses)
failing_at_a_port("refused, over TLS", port_that_refuses, "https")
failing_at_a_port("never connected", port_that_never_answers, timeout=0.05)
failing_at("an impossible host", with_secrets(f"http://{'.'.join(['a' * 63] * 4)}.example/"))


@failure
def unknown_host(_stack, _session, monkeypatch):
    def no_such_host(*_arguments):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", no_such_host)
    return with_secrets("http://no-such-host.invalid/"), {}


@pytest.mark.parametrize("scheme", ["ftp", "mailto"])
@pytest.mark.parametrize(
    "password", [SECRET, f"'{SECRET}", f'"{SECRET}', f"<{SECRET}", f" {SECRET}"]
)
def test_a_scheme_that_cannot_be_fetched_tells_no_secret(scheme, password):
    url = f"{scheme}://user:{password}@host/path?a='b&key='{QUERY_SECRET}"
    assert_no_secret_is_told(url, None, {})


def over_tls(name, context, **options):
    def make(stack, _session, _monkeypatch):
        server = stack.enter_context(ScriptedServer(respond(HEAD), ssl_context=context()))
        return with_secrets(server.url), options

    FAILURES[name] = make


PAST = dt.datetime(2001, 1, 1, tzinfo=dt.UTC)
over_tls("an unknown authority", server_context)
over_tls("a certificate of another host", lambda: server_context("other.example"), verify=True)
over_tls("an expired certificate", lambda: server_context(not_before=PAST, not_after=PAST))
over_tls("a certificate is wanted", lambda: asking_for_a_certificate(ssl.CERT_REQUIRED))
over_tls("no TLS", lambda: None)
over_tls("no authorities", server_context, verify="/no/such/file")
over_tls("no certificate", server_context, cert="/no/such/file")


failing("TLS to a plain server", lambda c: c.send(b"HTTP/1.1 400 No\r\n\r\n"), scheme="https")
failing("TLS cut off", lambda c: c.sock.recv(9), scheme="https")


def by_proxy(name, scheme, script):
    def make(stack, _session, monkeypatch):
        proxy = stack.enter_context(ScriptedServer(script))
        monkeypatch.setenv(f"{scheme}_proxy", with_password(proxy))
        return with_secrets(f"{scheme}://some.host/"), {}

    FAILURES[name] = make


for scheme in ("http", "https"):
    by_proxy(f"the proxy wants a password, {scheme}", scheme, status("407 Who are you?"))
    by_proxy(f"the proxy is no proxy, {scheme}", scheme, respond(b"220 ESMTP\r\n"))
    by_proxy(f"the proxy goes away, {scheme}", scheme, lambda c: c.read_request())


def with_bad_proxy(url):
    def make(stack, _session, monkeypatch):
        port = stack.enter_context(port_that_refuses())
        monkeypatch.setenv("http_proxy", url.format(port=port))
        return with_secrets("http://some.host/"), {}

    FAILURES[f"the proxy {url.replace(SECRET, '*')}"] = make


for url in (
    f"http://user:{SECRET}@127.0.0.1:{{port}}/",
    f"https://user:{SECRET}@127.0.0.1:{{port}}/",
    f"user:{SECRET}@127.0.0.1:{{port}}",
    f"http://user:{SECRET}@",
    f"http://user:{SECRET}@127.0.0.1:port/",
    f"http://user:pass/{SECRET}@127.0.0.1:{{port}}/",
    f"http://user:#{SECRET}@127.0.0.1:{{port}}/",
    f"http://user:{SECRET}@[::1/",
    f"ftp://user:{SECRET}@127.0.0.1:{{port}}/",
    f"http://user:'{SECRET}@127.0.0.1:{{port}}/",
    f"http://user: {SECRET}@127.0.0.1:{{port}}/",
    *(f"{s}://user:{SECRET}@127.0.0.1:{{port}}/" for s in ("socks5", "socks5h", "socks4")),
    *(f"{s}://user:{SECRET}@127.0.0.1:{{port}}/" for s in ("socks6", "socks")),
):
    with_bad_proxy(url)

failing(
    "a redirect with a password not in latin-1", status("302 x", f"Location: //u:{SECRET}é@h:x")
)
failing("a redirect to a bad name", status("302 x", f"Location: http://u:{SECRET}@a..b/"))
failing("a redirect to a zone", status("302 x", f"Location: http://u:{SECRET}@[fe80::1%25no0]/"))
failing("params that are none", respond(HEAD), params=lambda _: [QUERY_SECRET])
failing("params not in utf-8", respond(HEAD), params=lambda _: {"key": f"{QUERY_SECRET}\ud800"})
failing("auth that returns nothing", respond(HEAD), auth=lambda _: None)
failing("auth that returns something else", respond(HEAD), auth=lambda _: {"token": SECRET})


@failure
def a_refused_redirect(stack, _session, _monkeypatch):
    away = stack.enter_context(ScriptedServer(status("401 No")))
    location = with_secrets(away.url)
    home = stack.enter_context(ScriptedServer(status("302 x", f"Location: {location}")))
    return with_secrets(home.url), {"headers": {"X-Api-Key": SECRET}}


def with_a_line_end(request):
    request.headers["Authorization"] = f"Bearer {SECRET}\n"
    return request


failing_at("a bad token from a callable", with_secrets("http://127.0.0.1:1/"), auth=with_a_line_end)
failing_at(
    "a body not in UTF-8",
    "http://127.0.0.1:1/",
    method="POST",
    data={"password": f"{SECRET}\ud800"},
)


def on_session(name, change):
    def make(_stack, session, _monkeypatch):
        if session is None:
            pytest.skip("there is no session to change")
        change(session)
        return "http://127.0.0.1:1/", {}

    FAILURES[f"the session's {name}"] = make


on_session("token with a line end", lambda s: s.headers.update(Authorization=f"Bearer {SECRET}\n"))
on_session("token with a space", lambda s: s.headers.update(Authorization=f" {SECRET}"))
on_session("token that is no text", lambda s: s.headers.update(Authorization=[SECRET]))
on_session("token in the name", lambda s: s.headers.update({f"Authorization: {SECRET}": "x"}))
on_session("token not in latin-1", lambda s: s.headers.update(Authorization=f"{SECRET}日"))
on_session("password not in latin-1", lambda s: setattr(s, "auth", ("user", f"{SECRET}日")))
on_session("cookie with a line end", lambda s: s.cookies.set("sid", f"{SECRET}\r\n"))
on_session("proxy", lambda s: s.proxies.update(http=f"http://user:{SECRET}@"))
on_session("query", lambda s: setattr(s, "params", {"key": f"{QUERY_SECRET}\ud800"}))


@failure
def netrc_not_in_latin_1(stack, _session, monkeypatch):
    path = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "netrc"
    path.write_text(f"machine 127.0.0.1 login user password {SECRET}日\n", encoding="utf-8")
    monkeypatch.setenv("NETRC", str(path))
    return "http://127.0.0.1:1/", {}


def assert_no_secret_is_told(url, session, options):
    """By a stream and its error event; by a source, its thread and its warning; in the log."""
    with EventStream(url, session=session, reconnect=None, **options) as events:
        (event,) = errors(events)
        assert not secrets_in(f"{event!r} {event} {events!r} {events}")
        assert not secrets_in(texts_of(event.error))
        assert event.error.__context__ is None
        assert event.error.__cause__ is None
    source = EventSource(url, session=session, reconnect=None, on_message=repr, **options)
    names = [thread.name for thread in threading.enumerate()]
    assert source.join(LIMIT)
    assert isinstance(source.error, Exception)
    assert not secrets_in(f"{source!r} {source} {names}")
    assert not secrets_in(texts_of(source.error))


@pytest.mark.filterwarnings("ignore::urllib3.exceptions.InsecureRequestWarning")
@pytest.mark.parametrize("failure", FAILURES)
def test_no_failure_tells_a_secret(failure, session, monkeypatch):
    with contextlib.ExitStack() as stack:
        url, options = FAILURES[failure](stack, session, monkeypatch)
        given = {"headers": {"X-Api-Key": SECRET}, "cookies": {"sid": SECRET}}
        assert_no_secret_is_told(url, session, {**given, **options})


def test_the_other_face_and_its_errors_tell_no_secret():
    with ScriptedServer(respond(HEAD + b"data: x\n\n"), status("404 Gone")) as server:
        client = SSEClient(with_secrets(server.url), retry=20, **EVERYTHING)
        assert not secrets_in(f"{client!r} {next(client)!r}")
        with pytest.raises(requests.HTTPError) as caught:
            next(client)
        client.close()
    assert not secrets_in(texts_of(caught.value))


def test_an_open_event_shows_neither_cookies_nor_the_query():
    fields = f"\r\nSet-Cookie: sid={SECRET}\r\nSET-COOKIE: b={SECRET}\r\nX-Shown: y\r\n\r\n"
    with ScriptedServer(respond(HEAD.replace(b"\r\n\r\n", fields.encode()))) as server:
        (event,) = opened(with_secrets(server.url), attempts=1)
    assert SECRET in event.headers["set-cookie"]
    assert QUERY_SECRET in event.url
    for text in (repr(event), str(event), f"{event}", f"{[event]}"):
        assert not secrets_in(text)
        assert "'X-Shown': 'y'" in text
        assert f"url='{server.url}path'" in text


def test_a_warning_of_the_libraries_tells_no_secret():
    with ScriptedServer(route({}), ssl_context=server_context()) as server:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            opened(with_secrets(server.url), attempts=1, verify=False, **EVERYTHING)
        assert [w.category for w in caught] == [urllib3.exceptions.InsecureRequestWarning]
        assert not secrets_in(repr([str(w.message) for w in caught]))


def test_a_bad_field_of_the_answer_makes_no_library_log_the_query_or_cookies(caplog):
    """urllib3 would: a warning with the URL and all the fields that it has not understood."""
    bad = HEAD[:-2] + b"no field\r\nSet-Cookie: sid=" + SECRET.encode() + b"\r\n\r\n"
    with ScriptedServer(respond(bad)) as server:
        (event,) = opened(server.url + f"?{QUERY_SECRET}", attempts=1)
    assert event.headers["Content-Type"] == "text/event-stream"
    assert [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING] == []


SECRET_BYTES = SECRET.encode()
BAD_ARGUMENTS = [
    {"url": f"http://user:{SECRET}@host:99999/"},
    {"url": f"http://user:{SECRET}%E6%97%A5@host/"},
    {"url": f"http://user:{SECRET}@ho st/?{QUERY_SECRET}"},
    {"url": f"http://user:'{SECRET}@[/?'{QUERY_SECRET}"},
    {"url": f"http://user:{SECRET}@host/".encode()},
    {"url": requests.utils.urlparse(f"http://user:{SECRET}@host/")},
    {"headers": {"Authorization": f"Bearer {SECRET}\n"}},
    {"headers": {"Authorization": f" {SECRET}"}},
    {"headers": {"Authorization": SECRET_BYTES + b"\r\n"}},
    {"headers": {"Authorization": f"Bearer {SECRET}日"}},
    {"headers": {"Authorization": [SECRET]}},
    {"headers": {f"Authorization: Bearer {SECRET}": ""}},
    {"headers": {f"Authorization: Bearer {SECRET}".encode(): None}},
    {"headers": [("Authorization", SECRET)]},
    {"headers": f"Authorization: {SECRET}"},
    {"auth": SECRET},
    {"auth": ["user", SECRET]},
    {"auth": ("user", SECRET, "x")},
    {"auth": ("user", [SECRET])},
    {"auth": ("user", f"{SECRET}日")},
    {"proxies": {"http": f"http://user:{SECRET}@"}},
    {"proxies": {"http": f"http://user:{SECRET}@[::1"}},
    {"proxies": {"http": ("http://host/", SECRET)}},
    {"proxies": f"http://user:{SECRET}@host/"},
    {"cookies": f"sid={SECRET}"},
    {"cookies": [("sid", SECRET)]},
    {"cookies": {"sid": f"{SECRET}\r\n"}},
    {"cookies": {"sid": [SECRET]}},
    {"cookies": {f"sid\n{SECRET}": "x"}},
    {"params": {"key": f"{QUERY_SECRET}\ud800"}},
    {"params": f"key={QUERY_SECRET}\ud800"},
    {"json": {"key": {SECRET}}},
    {"json": {SECRET: float("nan")}},
    {"json": {"key": f"{SECRET}", "x": object()}},
    {"json": {("a", SECRET): 1}},
    {"url": f"http://user:{SECRET}@h:port/"},
    {"url": f"http://user:{SECRET}日@h:99999/"},
    {"url": f"http://user:{SECRET}@[fe80::1%25 x]/"},
    {"url": f"http://user:{SECRET}@[::1%25lo]/", "session": requests.Session()},
    {"url": f"http://user:{SECRET}@a..b/"},
    {"url": f"http://user:{SECRET}@{'a' * 64}.example/"},
    {"url": f"http://user:{SECRET}@"},
    {"headers": {f"Authorization: Bearer {SECRET}": [SECRET]}},
    {"headers": {("Authorization", SECRET): "x"}},
    {"auth": ("user", f"{SECRET}\ud800")},
    {"proxies": {"http": f"http://user:{SECRET}日@"}},
    {"proxies": {"http": f"http://user:{SECRET}@h:port/"}},
    {"proxies": {"http": f"http://user:{SECRET}@h:99999/"}},
    {"proxies": {"http": f"socks6://user:{SECRET}@h:1/"}},
    {"proxies": {"http": f"socks:user:{SECRET}@h:1/"}},
    {"proxies": {"http": f"socks5://user:{SECRET}@[::1/"}},
    {"proxies": {f"http://user:{SECRET}@host/": 5}},
    {"cookies": {"sid": f"{SECRET}日"}},
    {"cookies": {"sid": f"{SECRET}\ud800"}},
    {"params": [("key", f"{QUERY_SECRET}\ud800")]},
    {"params": [QUERY_SECRET]},
    {"params": {"key": (QUERY_SECRET, 5, "\ud800")}},
    {"timeout": SECRET},
    {"timeout": (SECRET, 1)},
    {"timeout": (1, 2, SECRET)},
    {"timeout": {SECRET: 1}},
    {"method": f"GET http://user:{SECRET}@host/?{QUERY_SECRET}"},
    {"method": [SECRET]},
    {"data": 5, "json": {"key": SECRET}},
    {"hooks": SECRET},
    {"verify": [SECRET]},
    {"trusted_origins": f"https://user:{SECRET}@host"},
    {"trusted_origins": [f"https://user:{SECRET}@host"]},
    {"trusted_origins": [f"https://user:{SECRET}@host:port/?{QUERY_SECRET}"]},
    {"trusted_origins": [f"https://host?{QUERY_SECRET}"]},
    {"trusted_origins": [SECRET.encode()]},
    {"session": {"Authorization": SECRET}},
    {"cert": [SECRET]},
]


@pytest.mark.parametrize("face", [EventSource, EventStream, SSEClient])
@pytest.mark.parametrize("arguments", BAD_ARGUMENTS, ids=lambda a: next(iter(a)))
def test_the_refusal_of_an_argument_tells_no_secret(face, arguments):
    with pytest.raises((TypeError, ValueError)) as caught:
        face(**{"url": "http://127.0.0.1:1/", **arguments})
    assert next(iter(arguments)) in str(caught.value)
    assert not secrets_in(texts_of(caught.value))


# --- What a server says ---


ANSWERS = {
    "the status line": b"%b\r\n\r\n",
    "the version": b"HTTP/%b 200 OK\r\n\r\n",
    "the status": b"HTTP/1.1 %b\r\n\r\n",
    "the reason": b"HTTP/1.1 403 %b\r\nContent-Length: 0\r\n\r\n",
    "the type": b"HTTP/1.1 200 OK\r\nContent-Type: text/html; x=%b\r\n\r\n",
    "a location": b"HTTP/1.1 302 x\r\nLocation: ftp://host?%b\r\nContent-Length: 0\r\n\r\n",
    "a location's user": b"HTTP/1.1 302 x\r\nLocation: ftp://%b@h\r\nContent-Length: 0\r\n\r\n",
    "a bad location": b"HTTP/1.1 302 x\r\nLocation: http://[?%b\r\nContent-Length: 0\r\n\r\n",
    "a bad field": HEAD[:-2] + b"%b\r\nX: y\r\n\r\n",
    "a bad name": HEAD[:-2] + b"(%b): y\r\n\r\n",
    "the length": HEAD[:-2] + b"Content-Length: %b\r\n\r\n",
    "the encoding": HEAD[:-2] + b"Content-Encoding: gzip, %b\r\n\r\nxxxxxxxxxxxxxxxxxx",
    "the transfer coding": HEAD[:-2] + b"Transfer-Encoding: %b\r\n\r\n",
    "a coding of chunks": HEAD[:-2] + b"Transfer-Encoding: %b, chunked\r\n\r\n",
    "a chunk's size": CHUNKED + b"%b\r\nx\r\n",
    "a trailer": CHUNKED + b"0\r\n%b\r\n\r\n",
    "Retry-After": b"HTTP/1.1 503 x\r\nRetry-After: %b\r\nContent-Length: 0\r\n\r\n",
    "the body": b"HTTP/1.1 403 No\r\nContent-Length: 999\r\n\r\n%b",
    "an event's type": HEAD + b"event: %b\ndata: x\n\n",
    "an id": HEAD + b"id: %b\ndata: x\n\n",
    "retry": HEAD + b"retry: %b\ndata: x\n\n",
}
"""Where a server may put a text into its answer."""


def heard(caplog, *answers, **options):
    """What a source logs, and what its errors say, one text each."""
    caplog.set_level(logging.DEBUG, "eventsource")
    texts = []

    def fail(event):
        raise ValueError("a handler's own")

    def note(event):
        if isinstance(event, ErrorEvent):
            texts.append(str(event.error))

    with ScriptedServer(*answers, status("404 Gone")) as server:
        url = server.url + f"path?{QUERY_SECRET}"
        policy = ReconnectPolicy(delay=0.02, max_attempts=1, statuses=frozenset({503}))
        source = EventSource(url, start=False, reconnect=policy, **options)
        source.on("message", fail)
        source.on("error", note)
        source.start()
        assert source.join(LIMIT)
    ours = [record for record in caplog.records if record.name.startswith("eventsource")]
    assert texts
    assert ours
    return [*texts, *(record.getMessage() for record in ours)]


@pytest.mark.parametrize("place", ANSWERS)
def test_what_a_server_says_back_of_what_it_was_sent_is_not_shown(place, caplog):
    """An echo service, for one, answers with the request line."""

    def reflect(connection):
        request = connection.read_request()
        said = f"{request.method} {request.target} {request.header('Authorization')}"
        connection.send(ANSWERS[place].replace(b"%b", said.encode()))

    for text in heard(caplog, reflect, headers={"Authorization": f"Bearer {SECRET}"}):
        assert not secrets_in(text)


NASTY = "\x1b[2J\r2026-01-01 INFO forged\x9b31m\x85\x07\x08\xad\xa0"


@pytest.mark.parametrize("place", ANSWERS)
def test_no_server_can_forge_a_log_line_or_send_orders_to_a_terminal(place, caplog):
    answer = respond(ANSWERS[place].replace(b"%b", NASTY.encode("latin-1")))
    for text in heard(caplog, answer):
        assert text.isprintable()


@pytest.mark.parametrize("character", ["\u2028", "\u0085", "\x1b", "\u202e", "\x9b"])
def test_nor_can_a_location_that_is_followed(character, caplog):
    location = f"Location: /x{character}y?{character}"
    for text in heard(caplog, status("302 x", location), respond(HEAD)):
        assert text.isprintable()


LONGEST = 1000
"""Characters of a text that may go into a log: many more than any of them needs."""


@pytest.mark.parametrize("place", ANSWERS)
def test_no_server_can_fill_the_log(place, caplog):
    for text in heard(caplog, respond(ANSWERS[place].replace(b"%b", b"x" * 60_000))):
        assert len(text) < LONGEST


@pytest.mark.parametrize(
    "said", [SECRET, NASTY, "x" * 60_000], ids=["what it was sent", "control characters", "much"]
)
def test_of_a_proxy_s_refusal_nothing_is_shown_but_the_status(said, caplog):
    caplog.set_level(logging.DEBUG, "eventsource")
    refusal = respond(b"HTTP/1.1 407 %b\r\n\r\n" % said.encode("latin-1"))
    with ScriptedServer(refusal) as proxy:
        (event,) = EventStream("https://h.test/", proxies={"https": proxy.url}, reconnect=None)
    (entry,) = caplog.records
    for text in (str(event.error), entry.getMessage()):
        assert text.endswith("Tunnel connection failed: 407 Proxy Authentication Required")


def test_looking_for_urls_in_a_long_text_takes_time_in_proportion_to_it():
    text = "x" * 1_000_000
    assert text.startswith(redact_text(text)[:-1])
