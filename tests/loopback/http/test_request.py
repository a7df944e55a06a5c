"""What is sent: header fields, credentials, and what of them goes along with a redirect."""

from __future__ import annotations

import contextlib
import importlib.util
import ipaddress
import pickle
import re
import socket
import sys
import threading
from pathlib import Path
from types import MappingProxyType

import pytest
import requests

import eventsource
from eventsource import EventSource, EventStream, SSEClient
from eventsource.http.exchange import Exchange
from eventsource.http.redirects import withheld_from
from eventsource.http.request import RequestTemplate
from eventsource.testing import ScriptedServer
from tests.exchanges import basic, exchange_with, open_and_abort, open_exchange
from tests.support import (
    HEAD,
    LIMIT,
    QUERY_SECRET,
    QUICK,
    SECRET,
    Recorder,
    errors,
    messages,
    respond,
    status,
    stream,
)


@pytest.fixture(params=["our session", "a session of the caller's"])
def session(request):
    if request.param == "our session":
        yield None
        return
    with requests.Session() as session:
        yield session


def redirect(target, line="302 Found", *headers):
    return status(line, f"Location: {target}", *headers)


@contextlib.contextmanager
def redirecting(*scripts, to="", line="302 Found"):
    """A server that redirects, and the one to which it does, which answers so."""
    with (
        ScriptedServer(*(scripts or [respond(HEAD)])) as there,
        ScriptedServer(redirect(there.url + to, line)) as here,
    ):
        yield here, there


def sent(servers, name):
    """The values of a field in the requests that came to these servers."""
    return [request.header(name) for server in servers for request in server.requests]


# --- What is sent ---


def request_of(server, **options):
    open_and_abort(exchange_with(server.url, **options))
    return server.wait_for_request()


def test_the_request_asks_for_an_uncompressed_event_stream_and_no_cache():
    with ScriptedServer(respond(HEAD)) as server:
        request = request_of(server)
    assert request.method == "GET"
    assert request.header("Accept") == "text/event-stream"
    assert request.header("Cache-Control") == "no-cache"
    assert request.header("Accept-Encoding") == "identity"
    assert request.header("Last-Event-ID") is None


def test_the_callers_headers_take_precedence_in_any_case_and_no_dict_of_theirs_is_changed(
    monkeypatch,
):
    monkeypatch.setenv("x_proxy", "http://127.0.0.1:1/")  # which requests adds to `proxies`
    fields = {"accept": "text/event-stream, text/plain", "CACHE-CONTROL": "x", "X-Key": b"\xc3\xa9"}
    given = {
        "headers": {**fields, "accept-encoding": "gzip"},
        "proxies": {"y": "http://127.0.0.1:1/"},
    }
    before = {name: {**value} for name, value in given.items()}
    with ScriptedServer(respond(HEAD)) as server:
        request = request_of(server, **given)
    assert [value for name, value in request.headers if name.lower() == "accept"] == [
        "text/event-stream, text/plain"
    ]
    assert request.header("Cache-Control") == "x"
    assert request.header("X-Key") == "\xc3\xa9"
    assert request.header("Accept-Encoding") == "gzip"
    assert given == before


@pytest.mark.parametrize(
    ("last_event_id", "on_the_wire"),
    [
        ("7", b"7"),
        ("é日", b"\xc3\xa9\xe6\x97\xa5"),
        (" a", b"a"),  # the space is sent; a field's value begins after it
        ("a:b; c", b"a:b; c"),
    ],
)
def test_the_last_event_id_is_sent_as_utf_8(last_event_id, on_the_wire):
    with ScriptedServer(respond(HEAD)) as server:
        open_and_abort(exchange_with(server.url), last_event_id)
        request = server.wait_for_request()
    assert request.header("Last-Event-ID").encode("latin-1") == on_the_wire


def test_a_last_event_id_header_of_the_callers_is_sent_until_there_is_an_id():
    with ScriptedServer(respond(HEAD)) as server:
        template = RequestTemplate(server.url, options={"headers": {"Last-Event-ID": "old"}})
        for last_event_id in ("", "new"):
            open_and_abort(Exchange(template), last_event_id)
        assert sent([server], "Last-Event-ID") == ["old", "new"]


def test_a_post_sends_its_body():
    with ScriptedServer(respond(HEAD)) as server:
        request = request_of(server, method="post", json={"prompt": "é"}, params={"a": "b c"})
    assert (request.method, request.target) == ("POST", "/?a=b+c")
    assert request.header("Content-Type") == "application/json"
    assert request.body == b'{"prompt": "\\u00e9"}'


def test_the_default_timeouts_are_ten_seconds_to_connect_and_none_to_read():
    assert RequestTemplate("http://host/", options={}).options["timeout"] == (10.0, None)


# --- Credentials ---


@pytest.fixture
def netrc(monkeypatch, tmp_path):
    path = tmp_path / "netrc"
    path.write_text(f"machine 127.0.0.1 login from password {SECRET}\n")
    monkeypatch.setenv("NETRC", str(path))


FROM_NETRC = basic("from", SECRET)


def test_netrc_is_used_when_nothing_else_is_given(netrc):
    with ScriptedServer(respond(HEAD)) as server:
        assert request_of(server).header("Authorization") == FROM_NETRC


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"headers": {"Authorization": f"Bearer {SECRET}"}}, f"Bearer {SECRET}"),
        ({"headers": {"authorization": f"Bearer {SECRET}".encode()}}, f"Bearer {SECRET}"),
        ({"auth": ("user", SECRET)}, basic("user", SECRET)),
        ({"auth": ("u", "p"), "headers": {"Authorization": "x"}}, "Basic dTpw"),
        ("u:p@", "Basic dTpw"),
    ],
)
def test_netrc_never_overrides_what_the_caller_gave(netrc, options, expected):
    """As an option; or within the URL."""
    with ScriptedServer(respond(HEAD)) as server:
        if isinstance(options, str):
            open_and_abort(exchange_with(server.url.replace("//", f"//{options}")))
        else:
            open_and_abort(exchange_with(server.url, **options))
        assert sent([server], "Authorization") == [expected]


def test_netrc_never_overrides_what_the_session_has(netrc):
    by_auth, by_header = requests.Session(), requests.Session()
    by_auth.auth = ("u", "p")
    by_header.headers["Authorization"] = "Bearer token"
    with by_auth, by_header, ScriptedServer(respond(HEAD)) as server:
        for session in (by_auth, by_header):
            open_and_abort(exchange_with(server.url, session))
        assert sent([server], "Authorization") == ["Basic dTpw", "Bearer token"]


def test_an_auth_callable_runs_at_each_attempt():
    tokens = iter("ab")

    def authorize(request):
        request.headers["Authorization"] = f"Bearer {next(tokens)}"
        return request

    with ScriptedServer(respond(HEAD)) as server:
        template = RequestTemplate(server.url, options={"auth": authorize})
        for _ in range(2):
            open_and_abort(Exchange(template))
        assert sent([server], "Authorization") == ["Bearer a", "Bearer b"]


def challenging(connection):
    """A script that wants an answer to a challenge."""
    connection.read_request()
    connection.send(
        b"HTTP/1.1 401 No\r\nContent-Length: 0\r\n"
        b'WWW-Authenticate: Digest realm="r", nonce="n", qop="auth"\r\n\r\n'
    )
    connection.read_request()
    connection.send(HEAD + b"data: in\n\n")


@pytest.mark.long
@pytest.mark.parametrize("auth", [None, requests.auth.HTTPDigestAuth("u", SECRET), lambda r: r])
def test_a_401_that_is_held_open_is_not_waited_for(auth):
    with ScriptedServer(respond(b"HTTP/1.1 401 No\r\n\r\n", then="hold")) as server:
        exchange = exchange_with(server.url, auth=auth)
        assert exchange.open().status_code == 401
        exchange.read_error_body()
        exchange.abort()


@pytest.mark.parametrize("auth", [None, requests.auth.HTTPDigestAuth("u", SECRET)])
def test_the_body_of_a_401_is_kept(auth):
    with ScriptedServer(status("401 No", body=b"why")) as server:
        exchange = exchange_with(server.url, auth=auth)
        response = exchange.open()
        exchange.read_error_body()
        exchange.abort()
        assert response.content == b"why"


def test_a_token_with_a_line_end_is_refused_without_being_shown():
    def authorize(request):
        request.headers["Authorization"] = f"Bearer {SECRET}\n"
        return request

    with ScriptedServer(respond(HEAD)) as server:
        with pytest.raises(ValueError, match=r"headers\['Authorization'\]") as caught:
            open_and_abort(exchange_with(server.url, auth=authorize))
        assert server.requests == []
    assert "secret" not in str(caught.value)


def test_a_session_that_overrides_request_to_add_a_token_works():
    class TokenSession(requests.Session):
        def request(self, method, url, **kwargs):
            kwargs["headers"] = {**kwargs["headers"], "Authorization": f"Bearer own{SECRET}"}
            return super().request(method, url, **kwargs)

    with TokenSession() as session, ScriptedServer(respond(HEAD)) as server:
        open_and_abort(exchange_with(server.url, session), "7")
        request = server.wait_for_request()
    assert request.header("Authorization") == f"Bearer own{SECRET}"
    assert request.header("Last-Event-ID") == "7"


# --- Proxies ---


def test_no_proxy_is_obeyed(monkeypatch):
    with ScriptedServer(respond(HEAD)) as server:
        monkeypatch.setenv("http_proxy", "http://127.0.0.1:1/")
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        request_of(server)


# --- Redirects ---


SECRETS = {
    "headers": {"X-Api-Key": SECRET, "Authorization": f"Bearer {SECRET}"},
    "cookies": {"session": SECRET},
}


def test_a_redirect_on_the_same_origin_keeps_everything(netrc):
    with ScriptedServer(redirect("/there"), respond(HEAD)) as server:
        response = open_and_abort(exchange_with(server.url, **SECRETS), "7")
        assert response.url == server.url + "there"
        request = server.requests[1]
    assert request.target == "/there"
    assert request.header("X-Api-Key") == SECRET
    assert request.header("Authorization") == f"Bearer {SECRET}"
    assert request.header("Cookie") == f"session={SECRET}"
    assert request.header("Last-Event-ID") == "7"


@pytest.mark.parametrize("line", ["301 Moved", "302 Found", "303 See", "307 Temp", "308 Perm"])
def test_a_redirect_to_another_origin_takes_nothing_along_but_the_place(line):
    with redirecting(to="x", line=line) as (here, there):
        open_and_abort(exchange_with(here.url, **SECRETS), "7")
        first, request = here.requests[0], there.requests[0]
    assert "secret" in repr(first)
    assert "secret" not in repr(request)
    assert request.header("Cookie") is None
    assert request.header("Last-Event-ID") == "7"
    assert request.header("Accept") == "text/event-stream"
    assert request.header("Cache-Control") == "no-cache"


def test_neither_does_a_session_of_the_callers_give_its_own_away():
    with requests.Session() as session, redirecting() as (here, there):
        session.headers["X-Api-Key"] = SECRET
        session.auth = (SECRET, SECRET)
        session.cookies.set("sid", SECRET, domain="127.0.0.1")
        open_and_abort(exchange_with(here.url, session))
        assert f"sid={SECRET}" in here.requests[0].header("Cookie")
        request = there.requests[0]
    assert "secret" not in repr(request)
    assert request.header("Authorization") is None


def test_what_was_dropped_does_not_come_back_further_on():
    servers = []
    with (
        ScriptedServer(
            lambda c: redirect(servers[1].url + "2")(c), lambda c: respond(HEAD)(c)
        ) as home,
        ScriptedServer(lambda c: redirect("/3")(c), lambda c: redirect(home.url + "4")(c)) as away,
    ):
        servers[:] = home, away
        with requests.Session() as session:
            session.cookies.set("sid", SECRET, domain="127.0.0.1")
            open_and_abort(exchange_with(home.url, session, **SECRETS))
        assert [r.target for r in home.requests + away.requests] == ["/", "/4", "/2", "/3"]
        later = [home.requests[1], *away.requests]
    assert "secret" not in repr(later)


def test_digest_credentials_do_not_answer_another_origins_challenge():
    challenge = status("401 No", 'WWW-Authenticate: Digest realm="r", nonce="n", qop="auth"')
    with redirecting(challenge) as (here, there):
        response = open_and_abort(
            exchange_with(here.url, auth=requests.auth.HTTPDigestAuth(SECRET, "p"))
        )
        assert response.status_code == 401
        assert sent([there], "Authorization") == [None]


def test_netrc_may_have_credentials_for_the_new_origin(netrc):
    with redirecting() as (here, there):
        open_and_abort(exchange_with(here.url, headers={"Authorization": f"Bearer {SECRET}"}))
        assert there.requests[0].header("Authorization") == FROM_NETRC


def test_a_redirected_post_keeps_its_body_with_307_and_not_with_303():
    for line, expected in (("307 Temp", ("POST", b"a=1")), ("303 See", ("GET", b""))):
        with redirecting(line=line) as (here, there):
            open_and_abort(exchange_with(here.url, method="POST", data={"a": "1"}))
            request = there.requests[0]
        assert (request.method, request.body) == expected


def test_a_redirect_to_an_international_name_is_followed(session, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with ScriptedServer(respond(HEAD)) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        with ScriptedServer(redirect("http://xn--bcher-kva.example/")) as here:
            for origins in ([], ["http://bücher.example"]):
                response = open_and_abort(
                    trusting(here.url, origins, session, headers={"X-Key": "k"})
                )
                expected = None if origins else "http://xn--bcher-kva.example"
                assert withheld_from(response) == expected
        assert sent([proxy], "X-Key") == [None, "k"]


def test_the_connection_of_a_redirect_is_closed_when_the_next_has_opened():
    def stay(connection):
        connection.read_request()
        connection.send(b"HTTP/1.1 302 Found\r\nLocation: /there\r\nContent-Length: 0\r\n\r\n")
        connection.hold()

    with ScriptedServer(stay, respond(HEAD, then="hold")) as server:
        with open_exchange(server.url):
            assert server.connections[0].gone.wait(LIMIT)


def test_a_redirect_loop_ends():
    with ScriptedServer(redirect("/")) as server:
        with pytest.raises(requests.TooManyRedirects, match="30 redirects"):
            open_and_abort(exchange_with(server.url))
        assert len(server.requests) == 31


def test_redirects_are_not_followed_if_the_caller_says_so():
    with ScriptedServer(redirect("/there")) as server:
        response = open_and_abort(exchange_with(server.url, allow_redirects=False))
        assert response.status_code == 302


def test_a_redirect_to_a_scheme_that_cannot_be_fetched_fails():
    with ScriptedServer(redirect(f"ftp://u:{SECRET}@host/?{QUERY_SECRET}")) as server:
        with pytest.raises(requests.ConnectionError, match="'ftp://host/'") as caught:
            open_and_abort(exchange_with(server.url))
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "location",
    [
        *("http://[", "http://host:99999/", "http://host:x/", "\xff", "http://a..b/"),
        *("http://b\xc3\xbccher.example/", "http://a\x1b.example/"),
        *(f"\0//{SECRET}@host/", f"\x1f//u:{SECRET}@host"),  # to requests, hosts without a scheme
    ],
)
def test_a_redirect_to_what_is_no_url_is_a_lost_connection(location):
    script = respond(b"HTTP/1.1 302 Found\r\nLocation: " + location.encode("latin-1") + b"\r\n\r\n")
    with ScriptedServer(script) as server:
        with pytest.raises(requests.ConnectionError, match="cannot be fetched") as caught:
            open_and_abort(exchange_with(server.url))
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("line", ["302 Found", "307 Temp"])
def test_redirects_are_in_the_history_in_order_closed_and_unread(line, session):
    with (
        ScriptedServer(redirect("/2", line), respond(HEAD)) as there,
        ScriptedServer(redirect("/1", line), redirect(there.url, line)) as here,
    ):
        response = open_and_abort(exchange_with(here.url, session))
    urls = [here.url, f"{here.url}1", there.url]
    assert [hop.url for hop in response.history] == urls
    assert response.url == f"{there.url}2"
    for number, hop in enumerate(response.history):
        assert hop.status_code == int(line[:3])
        assert hop.headers["Location"]
        assert hop.raw.closed
        assert hop.content == b""
        assert [before.url for before in hop.history] == urls[:number]
    other = pickle.loads(pickle.dumps(response))  # noqa: S301
    assert [hop.url for hop in other.history] == urls


def test_without_a_redirect_there_is_no_history(session):
    with ScriptedServer(respond(HEAD)) as server:
        assert open_and_abort(exchange_with(server.url, session)).history == []


def test_a_cookie_field_of_the_callers_stays_within_the_origin(session):
    with ScriptedServer(redirect("/there"), respond(HEAD)) as server:
        open_and_abort(exchange_with(server.url, session, headers={"Cookie": "sid=1"}))
        assert sent([server], "Cookie") == ["sid=1", "sid=1"]


def test_netrc_does_not_take_the_place_of_auth_on_a_redirect(netrc):
    with ScriptedServer(redirect("/there"), respond(HEAD)) as server:
        open_and_abort(exchange_with(server.url, auth=requests.auth.HTTPDigestAuth("u", "p")))
        assert sent([server], "Authorization") == [None, None]


# --- Trusted origins ---


def trusting(url, origins, session=None, method="GET", **options):
    """An exchange that has not been opened."""
    template = RequestTemplate(
        url, method=method, session=session, trusted_origins=origins, options=options
    )
    return Exchange(template)


def origin(server, host="127.0.0.1"):
    return f"http://{host}:{server.port}"


@pytest.mark.parametrize("line", ["301 Moved", "302 Found", "303 See", "307 Temp", "308 Perm"])
def test_a_redirect_to_a_trusted_origin_takes_everything_along(line, session, netrc):
    with redirecting(to="x?y", line=line) as (here, there):
        exchange = trusting(
            here.url,
            [origin(there)],
            session,
            headers={"X-Key": "a", "Accept": "text/event-stream, */*", "User-Agent": "me"},
            auth=("user", "password"),
            cookies={"sid": "1"},
        )
        response = open_and_abort(exchange, "7")
        (first,), (second,) = here.requests, there.requests
    assert second.target == "/x?y"
    assert withheld_from(response) is None
    assert second.header("Authorization") == basic("user", "password")
    assert second.header("Host") == f"127.0.0.1:{there.port}"
    assert {n: v for n, v in first.headers if n != "Host"} == {
        n: v for n, v in second.headers if n != "Host"
    }


def test_what_a_session_of_the_callers_has_goes_to_a_trusted_origin_too():
    with requests.Session() as session, redirecting() as (here, there):
        session.headers["X-Key"] = "a"
        session.auth = ("user", "password")
        session.cookies.set("sid", "1")
        session.params = {"not": "again"}
        open_and_abort(trusting(here.url, [origin(there)], session))
        (request,) = there.requests
    assert request.target == "/"
    assert request.header("X-Key") == "a"
    assert request.header("Authorization") == basic("user", "password")
    assert request.header("Cookie") == "sid=1"


@pytest.mark.parametrize(
    "options",
    [
        {"headers": {"Authorization": "Bearer t", "Cookie": "sid=1"}},
        {"headers": {b"authorization": b"Bearer t", b"cookie": b"sid=1"}},
    ],
    ids=["text", "bytes"],
)
def test_fields_that_requests_drops_on_the_way_to_another_host_go_along(options, session, netrc):
    with ScriptedServer(respond(HEAD)) as there:
        with ScriptedServer(redirect(f"{origin(there, 'localhost')}/")) as here:
            open_and_abort(trusting(here.url, [origin(there, "localhost")], session, **options))
        (request,) = there.requests
    assert request.header("Authorization") == "Bearer t"
    assert request.header("Cookie") == "sid=1"


@pytest.mark.parametrize("kind", [dict, MappingProxyType, requests.cookies.cookiejar_from_dict])
def test_of_the_cookies_those_of_the_caller_go_along_and_each_host_has_its_own(kind, session):
    with ScriptedServer(redirect("/2", "302 Found", "Set-Cookie: away=1"), respond(HEAD)) as there:
        trusted = origin(there, "localhost")
        with ScriptedServer(redirect(f"{trusted}/", "302 Found", "Set-Cookie: home=1")) as here:
            template = RequestTemplate(
                here.url,
                session=session,
                trusted_origins=[trusted],
                options={"cookies": kind({"mine": "1"})},
            )
            for _ in range(2):
                open_and_abort(Exchange(template))
            requested = [
                [request.target, *sorted((request.header("Cookie") or "").split("; "))]
                for request in here.requests + there.requests
            ]
    assert requested == [
        ["/", "mine=1"],
        ["/", "home=1", "mine=1"],
        ["/", "mine=1"],
        ["/2", "away=1", "mine=1"],
        ["/", "away=1", "mine=1"],
    ]


def test_user_and_password_of_the_url_go_along_and_those_of_netrc_do_not(session, netrc):
    with ScriptedServer(respond(HEAD)) as there:
        trusted = origin(there, "localhost")
        with ScriptedServer(redirect(f"{trusted}/")) as here:
            for url in (here.url, here.url.replace("//", "//u:p@")):
                open_and_abort(trusting(url, [trusted], session))
            assert sent([here], "Authorization") == [FROM_NETRC, basic("u", "p")]
        assert sent([there], "Authorization") == [None, basic("u", "p")]


def test_user_and_password_of_a_location_count_where_there_is_nothing_else(session, netrc):
    with ScriptedServer(respond(HEAD)) as there:
        with ScriptedServer(redirect(there.url.replace("//", "//v:w@"))) as here:
            for url in (here.url, here.url.replace("//", "//u:p@")):
                open_and_abort(trusting(url, [origin(there)], session))
        assert sent([there], "Authorization") == [basic("v", "w"), basic("u", "p")]


def test_an_auth_callable_runs_for_each_trusted_origin(session):
    seen = []

    def sign(request):
        seen.append(request.url)
        request.headers["X-Signature"] = f"of {request.url}"
        request.headers[f"X-{len(seen)}"] = ""
        request.register_hook("response", lambda r, **_: answered.append(r.url))
        return request

    answered, hooked = [], []
    with ScriptedServer(redirect("/3"), respond(HEAD)) as there:
        with ScriptedServer(redirect("/1"), redirect(f"{there.url}2")) as here:
            exchange = trusting(
                here.url,
                [origin(there)],
                session,
                auth=sign,
                hooks={"response": lambda r, **_: hooked.append(r.url)},
            )
            open_and_abort(exchange)
            urls = [here.url, f"{here.url}1", f"{there.url}2", f"{there.url}3"]
        assert seen == [urls[0], urls[2]]  # within an origin what it has set goes along
        assert answered == hooked == urls
        signed = sent([here, there], "X-Signature")
        assert signed == [f"of {url}" for url in (urls[0], urls[0], urls[2], urls[2])]
        assert there.requests[0].header("X-1") is None


def test_digest_authentication_answers_a_trusted_origins_challenge(session):
    with redirecting(challenging) as (here, there):
        auth = requests.auth.HTTPDigestAuth("u", "p")
        response = open_and_abort(trusting(here.url, [origin(there)], session, auth=auth))
        assert response.status_code == 200
        assert [hop.url for hop in response.history] == [here.url]
        first, second = there.requests
        assert first.header("Authorization") is None
        assert 'username="u"' in second.header("Authorization")


def test_a_host_field_of_the_callers_is_for_home_only(session):
    servers = []
    with (
        ScriptedServer(lambda c: redirect(f"{servers[0].url}2")(c)) as there,
        ScriptedServer(redirect(there.url), respond(HEAD)) as home,
    ):
        servers.append(home)
        headers = {"Host": "virtual.example", "Authorization": "Bearer t"}
        open_and_abort(trusting(home.url, [origin(there)], session, headers=headers))
        assert sent([home], "Host") == ["virtual.example"] * 2
        assert sent([there], "Host") == [f"127.0.0.1:{there.port}"]
        assert sent([home], "Authorization") == ["Bearer t"] * 2


def test_a_post_goes_on_to_a_trusted_origin_as_the_redirect_says(session, tmp_path):
    path = tmp_path / "body"
    path.write_bytes(b"a=1")
    for line, expected in (("307 Temp", ("POST", b"a=1")), ("303 See", ("GET", b""))):
        with redirecting(line=line) as (here, there), path.open("rb") as file:
            for data in ({"a": "1"}, "a=1", file):
                headers = {"Content-Type": "x/y", "X-Key": "a"}
                open_and_abort(
                    trusting(here.url, [origin(there)], session, "POST", data=data, headers=headers)
                )
            for request in there.requests:
                assert (request.method, request.body) == expected
                assert request.header("X-Key") == "a"
                assert request.header("Content-Type") == ((expected[1] and "x/y") or None)
                assert request.header("Transfer-Encoding") is None


def test_once_a_stranger_has_been_asked_nothing_goes_along_any_more(session):
    servers = []
    with (
        ScriptedServer(lambda c: redirect(servers[0].url)(c)) as stranger,
        ScriptedServer(lambda c: redirect(stranger.url)(c), respond(HEAD)) as trusted,
        ScriptedServer(redirect(trusted.url), status("401 No")) as home,
    ):
        servers.append(trusted)
        exchange = trusting(home.url, [origin(trusted)], session, auth=(SECRET, SECRET), **SECRETS)
        response = open_and_abort(exchange)
        first, second = trusted.requests
        assert "secret" in repr(first)
        assert "secret" not in repr([second, *stranger.requests])
        assert withheld_from(response) == origin(stranger)


@pytest.mark.parametrize(
    "trusted",
    [
        [],
        ["http://127.0.0.1"],  # the port is part of it
        ["http://127.0.0.1:1"],
        ["https://127.0.0.1:{port}"],  # and so is the scheme
        ["http://localhost:{port}"],  # and the name
    ],
)
def test_an_origin_is_trusted_by_all_of_its_parts(trusted, session):
    with redirecting() as (here, there):
        origins = [entry.format(port=there.port) for entry in trusted]
        response = open_and_abort(trusting(here.url, origins, session, **SECRETS))
        assert "secret" not in repr(there.requests)
        assert withheld_from(response) == origin(there)


@pytest.mark.parametrize("spelling", ["HTTP://LocalHost:{}", "http://LOCALHOST:{}"])
def test_a_trusted_origin_may_be_spelled_in_capitals(spelling, session):
    with ScriptedServer(respond(HEAD)) as there:
        with ScriptedServer(redirect(f"http://LOCALhost:{there.port}/")) as here:
            open_and_abort(trusting(here.url, {spelling.format(there.port)}, session, **SECRETS))
        assert there.requests[0].header("X-Api-Key") == SECRET


# --- What was withheld ---


@pytest.mark.parametrize(
    ("given", "is_told"),
    [
        ({}, False),
        ({"headers": {"Accept": "a/b", "User-Agent": "me"}}, False),
        ({"headers": {"Authorization": "Bearer t"}}, True),
        ({"headers": {"X-Key": "k"}}, True),
        ({"auth": ("u", "p")}, True),
        ({"auth": requests.auth.HTTPDigestAuth("u", "p")}, True),
        ({"cookies": {"sid": "1"}}, True),
    ],
)
def test_it_is_known_from_whom_credentials_were_withheld(given, is_told, session):
    with redirecting(status("403 No")) as (here, there):
        response = open_and_abort(exchange_with(here.url, session, **given))
    assert withheld_from(response) == (origin(there) if is_told else None)


def test_of_several_origins_the_first_is_named(session):
    with (
        ScriptedServer(status("403 No")) as second,
        ScriptedServer(redirect(second.url)) as first,
        ScriptedServer(redirect(first.url)) as here,
    ):
        response = open_and_abort(exchange_with(here.url, session, auth=("u", "p")))
    assert withheld_from(response) == origin(first)


@pytest.mark.parametrize("at", ["auth", "headers", "cookies"])
def test_so_it_is_with_what_the_callers_session_has(at):
    with requests.Session() as session, redirecting(status("403 No")) as (here, there):
        if at == "auth":
            session.auth = ("u", "p")
        else:
            getattr(session, at).update({"Key": "1"})
        response = open_and_abort(exchange_with(here.url, session))
    assert withheld_from(response) == origin(there)


def test_nothing_is_withheld_at_home_nor_of_netrc(session, netrc):
    with redirecting(status("401 No")) as (here, _):
        assert withheld_from(open_and_abort(exchange_with(here.url, session))) is None
    with ScriptedServer(redirect("/x"), status("401 No")) as here:
        response = open_and_abort(exchange_with(here.url, session, auth=("u", "p")))
        assert withheld_from(response) is None


@pytest.mark.parametrize("line", ["401 Unauthorized", "403 Forbidden"])
def test_a_refusal_after_credentials_were_withheld_says_what_to_do(line, session):
    location = []
    with ScriptedServer(status(line)) as there:
        location.append(f"http://LOCALHOST:{there.port}/")
        with ScriptedServer(redirect(location[0])) as here:
            stream = EventStream(here.url, session=session, auth=("u", SECRET))
            (event,) = errors(stream)
            named = re.search(
                r"not sent to (\S+), which is not in trusted_origins$", str(event.error)
            )
            assert str(event.error).startswith(
                f"the server answered {line}, not 200, at {named[1]}/; the cred"
            )
            other = pickle.loads(pickle.dumps(event.error))  # noqa: S301
            assert (str(other), other.response.url) == (str(event.error), event.error.response.url)
            # What is named is what is to be given.
            assert named[1] == origin(there, "localhost")
            stream = EventStream(
                here.url, session=session, auth=("u", SECRET), trusted_origins=[named[1]]
            )
            (event,) = errors(stream)
            assert str(event.error) == f"the server answered {line}, not 200, at {named[1]}/"
        assert sent([there], "Authorization") == [None, basic("u", SECRET)]


def test_the_client_of_the_other_package_says_so_too():
    with redirecting(status("401 No")) as (here, _):
        with pytest.raises(requests.HTTPError, match=r"not sent to .* in trusted_origins"):
            SSEClient(here.url, auth=("u", "p"))


def test_of_other_statuses_it_is_not_said(session):
    with redirecting(status("404 No")) as (here, there):
        (event,) = errors(EventStream(here.url, session=session, auth=("u", "p")))
        text = f"the server answered 404 Not Found, not 200, at {there.url}"
        assert str(event.error) == text


def test_a_source_takes_trusted_origins():
    recorder = Recorder()
    with redirecting(stream(b"data: x\n\n")) as (here, there):
        with EventSource(
            here.url, on_message=recorder, auth=("u", "p"), trusted_origins=[origin(there)]
        ):
            recorder.next()
        assert there.requests[0].header("Authorization") == basic("u", "p")


# --- Who asks ---


def test_the_package_says_its_name(session):
    with redirecting() as (here, there):
        open_and_abort(exchange_with(here.url, session))
        assert (
            sent([here, there], "User-Agent")
            == [f"eventsource-client/{eventsource.__version__}"] * 2
        )


@pytest.mark.parametrize("name", ["User-Agent", b"user-agent"])
def test_the_callers_user_agent_and_accept_go_to_any_origin(name, session):
    headers = {name: "me/1", "accept": "text/event-stream, a/b", "Accept-Language": "de"}
    with redirecting() as (here, there):
        open_and_abort(exchange_with(here.url, session, headers=headers))
        for request in here.requests + there.requests:
            assert request.header("User-Agent") == "me/1"
            assert request.header("Accept") == "text/event-stream, a/b"
        assert there.requests[0].header("Accept-Language") is None


@pytest.mark.parametrize("agent", ["me/1", b"me/1"])
def test_so_does_the_user_agent_of_the_callers_session(agent):
    with requests.Session() as session, redirecting() as (here, there):
        session.headers["User-Agent"] = agent
        open_and_abort(exchange_with(here.url, session))
        open_and_abort(exchange_with(here.url, session, headers={"User-Agent": "you/2"}))
        for server in (here, there):
            assert sent([server], "User-Agent") == ["me/1", "you/2"]


# --- Parameters made for each attempt ---


def test_params_may_be_a_function_of_the_place(session):
    asked = []

    def params(last_event_id):
        asked.append(last_event_id)
        return {"n": len(asked), "lastEventID": last_event_id}

    first = stream(b"id: \xc3\xa9 1\ndata: x\n\n")
    with ScriptedServer(first, redirect("/there?mine"), status("404 No")) as server:
        url = f"{server.url}path?a=b"
        events = EventStream(url, session=session, params=params, reconnect=QUICK)
        assert asked == []
        errors(events, 2)
        targets = [request.target for request in server.requests]
        places = sent([server], "Last-Event-ID")
    assert asked == ["", "é 1"]
    assert targets == [
        "/path?a=b&n=1&lastEventID=",
        "/path?a=b&n=2&lastEventID=%C3%A9+1",
        "/there?mine",
    ]
    assert [place and place.encode("latin-1").decode() for place in places] == [None, "é 1", "é 1"]
    assert events.url == url


@pytest.mark.parametrize("given", ["old", b"old"])
def test_params_get_the_id_of_a_field_of_the_callers(given, session):
    asked = []
    with ScriptedServer(respond(HEAD)) as server:
        template = RequestTemplate(
            server.url,
            session=session,
            options={"headers": {"last-event-id": given}, "params": asked.append},
        )
        for last_event_id in ("", "new"):
            open_and_abort(Exchange(template), last_event_id)
        assert asked == sent([server], "Last-Event-ID") == ["old", "new"]


@pytest.mark.parametrize(
    "returned",
    [
        *(5, [SECRET], [(SECRET,)], f"{SECRET}\ud800", {SECRET: f"{SECRET}\ud800"}),
        *(lambda: None, QUICK),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_a_params_function_returns_is_checked(returned, session):
    with ScriptedServer(respond(HEAD)) as server:
        stream = EventStream(server.url, session=session, params=lambda _: returned, reconnect=None)
        (event,) = errors(stream)
        assert server.requests == []
    assert isinstance(event.error, requests.RequestException)  # whose text is logged
    assert str(event.error).startswith("params: ")
    for text in (str(event.error), repr(event.error)):
        assert SECRET not in text
    assert event.error.__context__ is None


def test_what_a_params_function_raises_is_the_attempts_failure(session):
    failures = [KeyError(SECRET), OSError("no token")]

    def params(_):
        raise failures[len(found)]

    found = []
    with ScriptedServer(respond(HEAD)) as server:
        stream = EventStream(server.url, session=session, params=params, reconnect=QUICK)
        for event in stream:
            found.append(event.error)
            assert event.retry_in is not None
            if len(found) == 2:
                break
        assert server.requests == []
    assert found == failures


def test_params_are_not_asked_again_for_the_answer_to_a_challenge(session):
    asked = []
    with ScriptedServer(challenging) as server:
        auth = requests.auth.HTTPDigestAuth("u", "p")
        open_and_abort(exchange_with(server.url, session, auth=auth, params=asked.append))
        assert len(server.requests) == 2
    assert asked == [""]


def test_an_auth_that_does_not_return_the_request_is_named(session):
    with pytest.raises(TypeError, match="auth must return the request, not NoneType"):
        open_and_abort(exchange_with("http://127.0.0.1:1/", session, auth=lambda _: None))


# --- Zones ---


def zoned_addresses():
    """IPv6 addresses of this machine that are only one with their interface."""
    found = [("::1", "lo" if sys.platform == "linux" else "lo0")]
    path = Path("/proc/net/if_inet6")
    if path.exists():
        rows = [line.split() for line in path.read_text().splitlines()]
        found += [
            (str(ipaddress.IPv6Address(bytes.fromhex(row[0]))), row[5])
            for row in rows
            if row[3] == "20"  # link-local
        ]
    return found


@pytest.mark.parametrize(("address", "interface"), zoned_addresses())
@pytest.mark.parametrize("percent", ["%25", "%"])
def test_an_address_with_a_zone_is_connected_to(address, interface, percent):
    seen = []

    def serve(listener):
        with contextlib.suppress(OSError):
            connection, _ = listener.accept()
            with connection:
                seen.append(connection.recv(65536))
                connection.sendall(HEAD + b"data: x\n\n")

    with socket.socket(socket.AF_INET6) as listener:
        try:
            scope = socket.if_nametoindex(interface)
            listener.bind((address, 0, 0, scope))
        except OSError as error:
            pytest.skip(f"no {address} at {interface}: {error}")
        listener.listen(1)
        port = listener.getsockname()[1]
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        try:
            url = f"http://u:p@[{address}{percent}{interface}]:{port}/x"
            with EventStream(url, reconnect=None) as stream:
                (event,) = messages(stream)
        finally:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)  # if nobody has come
            thread.join(LIMIT)
    assert event.origin == f"http://[{address}%25{interface}]:{port}"
    assert re.findall(rb"(?i)^host: *(.*)\r\n", seen[0], re.MULTILINE) == [
        f"[{address}]:{port}".encode()
    ]


def test_a_zone_that_this_machine_does_not_have_is_a_failed_attempt():
    (event,) = errors(EventStream("http://[fe80::1%25nowhere0]/", reconnect=None))
    assert isinstance(event.error, requests.ConnectionError)
    assert "Failed to connect" in str(event.error)


def test_a_zone_on_a_session_of_the_callers_is_refused_with_the_reason():
    with requests.Session() as session:
        with pytest.raises(ValueError, match="url has an IPv6 zone ID, .* leave session out"):
            EventStream("http://[::1%25lo]/", session=session)


# --- SOCKS ---


@pytest.fixture
def socks(monkeypatch):
    """Says whether PySocks is there, without it."""

    def install(is_there):
        find = importlib.util.find_spec

        def find_spec(name, *args):
            return (object() if is_there else None) if name == "socks" else find(name, *args)

        monkeypatch.setattr(importlib.util, "find_spec", find_spec)

    return install


@pytest.mark.parametrize("by", ["option", "environment"])
@pytest.mark.parametrize("scheme", ["socks5h", "SOCKS4"])
def test_without_pysocks_a_socks_proxy_is_refused_with_what_to_install(
    scheme, by, session, socks, monkeypatch
):
    socks(is_there=False)
    proxy = f"{scheme}://user:{SECRET}@127.0.0.1:1/"
    options = {}
    if by == "option":
        options["proxies"] = {"http": proxy}
    else:
        monkeypatch.setenv("all_proxy", proxy)
    (event,) = errors(EventStream("http://some.host/", session=session, **options))
    assert event.retry_in is None
    assert isinstance(event.error, requests.exceptions.InvalidSchema)
    assert str(event.error).endswith("python -m pip install PySocks")
    assert event.error.__context__ is None


@pytest.mark.parametrize("is_there", [False, True])
@pytest.mark.parametrize("proxy", ["socks6://user:{}@h:1/", "socks://{}@h", "socks5:user:{}@h"])
def test_a_socks_of_the_environment_that_is_none_is_refused_without_its_password(
    proxy, is_there, session, socks, monkeypatch
):
    socks(is_there)
    monkeypatch.setenv("http_proxy", proxy.format(SECRET))
    (event,) = errors(EventStream("http://some.host/", session=session))
    assert event.retry_in is None
    assert str(event.error).startswith("the proxy's URL must begin with socks4://, ")
    assert SECRET not in f"{event.error!r}"


def test_a_socks_proxy_on_the_way_is_refused_as_well(session, socks, monkeypatch):
    socks(is_there=True)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("http_proxy", f"socks6://user:{SECRET}@h:1/")
    with ScriptedServer(redirect("http://some.host/")) as server:
        (event,) = errors(EventStream(server.url, session=session, reconnect=None))
    assert str(event.error).startswith("the proxy's URL must begin with socks4://, ")
