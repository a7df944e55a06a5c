"""What is sent: header fields, credentials, and what of them goes along with a redirect."""

from __future__ import annotations

import pytest
import requests

from eventsource.http.exchange import Exchange
from eventsource.http.request import RequestTemplate
from eventsource.testing import ScriptedServer
from tests.support import HEAD, LIMIT, QUERY_SECRET, SECRET, respond, status

from .exchanges import basic, exchange_with, open_and_abort

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


def test_the_callers_headers_take_precedence_in_any_case():
    given = {"accept": "text/event-stream, text/plain", "X-Key": b"\xc3\xa9", "CACHE-CONTROL": "x"}
    before = dict(given)
    with ScriptedServer(respond(HEAD)) as server:
        request = request_of(server, headers=given)
    assert request.header("Accept") == "text/event-stream, text/plain"
    assert [value for name, value in request.headers if name.lower() == "accept"] == [
        "text/event-stream, text/plain"
    ]
    assert request.header("Cache-Control") == "x"
    assert request.header("X-Key") == "\xc3\xa9"
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
        assert [request.header("Last-Event-ID") for request in server.requests] == ["old", "new"]


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
    ],
)
def test_netrc_never_overrides_what_the_caller_gave(netrc, options, expected):
    with ScriptedServer(respond(HEAD)) as server:
        assert request_of(server, **options).header("Authorization") == expected


def test_netrc_never_overrides_what_the_session_has(netrc):
    by_auth, by_header = requests.Session(), requests.Session()
    by_auth.auth = ("u", "p")
    by_header.headers["Authorization"] = "Bearer token"
    with by_auth, by_header, ScriptedServer(respond(HEAD)) as server:
        for session in (by_auth, by_header):
            open_and_abort(exchange_with(server.url, session))
        assert [request.header("Authorization") for request in server.requests] == [
            "Basic dTpw",
            "Bearer token",
        ]


def test_netrc_never_overrides_credentials_in_the_url(netrc):
    with ScriptedServer(respond(HEAD)) as server:
        open_and_abort(exchange_with(server.url.replace("//", "//u:p@")))
        assert server.wait_for_request().header("Authorization") == "Basic dTpw"


def test_an_auth_callable_runs_at_each_attempt():
    tokens = iter("ab")

    def authorize(request):
        request.headers["Authorization"] = f"Bearer {next(tokens)}"
        return request

    with ScriptedServer(respond(HEAD)) as server:
        template = RequestTemplate(server.url, options={"auth": authorize})
        for _ in range(2):
            open_and_abort(Exchange(template))
        assert [r.header("Authorization") for r in server.requests] == ["Bearer a", "Bearer b"]


def test_digest_authentication_works():
    def challenge(connection):
        connection.read_request()
        connection.send(
            b"HTTP/1.1 401 No\r\nContent-Length: 0\r\n"
            b'WWW-Authenticate: Digest realm="r", nonce="n", qop="auth"\r\n\r\n'
        )
        connection.read_request()
        connection.send(HEAD + b"data: in\n\n")

    with ScriptedServer(challenge) as server:
        exchange = exchange_with(server.url, auth=requests.auth.HTTPDigestAuth("u", SECRET))
        assert exchange.open().status_code == 200
        assert exchange.read() == b"data: in\n\n"
        exchange.abort()
        assert 'username="u"' in server.requests[1].header("Authorization")


@pytest.mark.parametrize("framing", [b"", b"Content-Length: 99999999999\r\n"])
def test_the_endless_body_of_a_digest_challenge_is_not_read(framing):
    def challenge(connection):
        connection.read_request()
        connection.send(
            b"HTTP/1.1 401 No\r\n"
            b'WWW-Authenticate: Digest realm="r", nonce="n", qop="auth"\r\n' + framing + b"\r\n"
        )
        while True:
            connection.send(b"x" * 65536)

    with ScriptedServer(challenge, respond(HEAD + b"data: in\n\n")) as server:
        exchange = exchange_with(server.url, auth=requests.auth.HTTPDigestAuth("u", SECRET))
        assert exchange.open().status_code == 200
        assert exchange.read() == b"data: in\n\n"
        exchange.abort()


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


def test_cookies_are_kept_across_exchanges():
    with ScriptedServer(
        respond(HEAD.replace(b"\r\n\r\n", b"\r\nSet-Cookie: sid=1; Path=/\r\n\r\n"))
    ) as server:
        template = RequestTemplate(server.url, options={"cookies": {"mine": SECRET}})
        for _ in range(2):
            open_and_abort(Exchange(template))
        first, second = (request.header("Cookie") for request in server.requests)
    assert first == f"mine={SECRET}"
    assert sorted(second.split("; ")) == [f"mine={SECRET}", "sid=1"]


# --- Proxies ---


def test_no_proxy_is_obeyed(monkeypatch):
    with ScriptedServer(respond(HEAD)) as server:
        monkeypatch.setenv("http_proxy", "http://127.0.0.1:1/")
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        request_of(server)


def test_a_socks_proxy_without_pysocks_is_an_error_that_says_so():
    exchange = exchange_with("http://some.host/", proxies={"http": "socks5://127.0.0.1:1"})
    with pytest.raises(requests.exceptions.InvalidSchema, match="needs PySocks"):
        open_and_abort(exchange)


# --- Redirects ---


def redirect(target, line="302 Found", *headers):
    return status(line, f"Location: {target}", *headers)


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
    with (
        ScriptedServer(respond(HEAD)) as there,
        ScriptedServer(redirect(there.url + "x", line)) as here,
    ):
        open_and_abort(exchange_with(here.url, **SECRETS), "7")
        first, request = here.requests[0], there.requests[0]
    assert "secret" in repr(first)
    assert "secret" not in repr(request)
    assert request.header("Cookie") is None
    assert request.header("Last-Event-ID") == "7"
    assert request.header("Accept") == "text/event-stream"
    assert request.header("Cache-Control") == "no-cache"


def test_neither_does_a_session_of_the_callers_give_its_own_away():
    with (
        requests.Session() as session,
        ScriptedServer(respond(HEAD)) as there,
        ScriptedServer(redirect(there.url)) as here,
    ):
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
    with ScriptedServer(challenge) as there, ScriptedServer(redirect(there.url)) as here:
        response = open_and_abort(
            exchange_with(here.url, auth=requests.auth.HTTPDigestAuth(SECRET, "p"))
        )
        assert response.status_code == 401
        assert [request.header("Authorization") for request in there.requests] == [None]


def test_netrc_may_have_credentials_for_the_new_origin(netrc):
    with ScriptedServer(respond(HEAD)) as there, ScriptedServer(redirect(there.url)) as here:
        open_and_abort(exchange_with(here.url, headers={"Authorization": f"Bearer {SECRET}"}))
        assert there.requests[0].header("Authorization") == FROM_NETRC


def test_a_redirected_post_keeps_its_body_with_307_and_not_with_303():
    for line, expected in (("307 Temp", ("POST", b"a=1")), ("303 See", ("GET", b""))):
        with (
            ScriptedServer(respond(HEAD)) as there,
            ScriptedServer(redirect(there.url, line)) as here,
        ):
            open_and_abort(exchange_with(here.url, method="POST", data={"a": "1"}))
            request = there.requests[0]
        assert (request.method, request.body) == expected


def test_the_endless_body_of_a_redirect_is_not_read():
    def endless(connection):
        connection.read_request()
        connection.send(b"HTTP/1.1 302 Found\r\nLocation: /there\r\n\r\n")
        while True:
            connection.send(b"x" * 65536)

    with ScriptedServer(endless, respond(HEAD)) as server:
        response = open_and_abort(exchange_with(server.url))
        assert response.url.endswith("/there")


def test_the_connection_of_a_redirect_is_closed_when_the_next_has_opened():
    def stay(connection):
        connection.read_request()
        connection.send(b"HTTP/1.1 302 Found\r\nLocation: /there\r\nContent-Length: 0\r\n\r\n")
        connection.hold()

    with ScriptedServer(stay, respond(HEAD, then="hold")) as server:
        exchange = exchange_with(server.url)
        exchange.open()
        assert server.connections[0].gone.wait(LIMIT)
        exchange.abort()


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
        *(f"\0//{SECRET}@host/", f"\x1f//u:{SECRET}@host"),  # to requests, hosts without a scheme
    ],
)
def test_a_redirect_to_what_is_no_url_is_a_lost_connection(location):
    script = respond(b"HTTP/1.1 302 Found\r\nLocation: " + location.encode("latin-1") + b"\r\n\r\n")
    with ScriptedServer(script) as server:
        with pytest.raises(requests.ConnectionError, match="cannot be fetched") as caught:
            open_and_abort(exchange_with(server.url))
    assert SECRET not in str(caught.value)
