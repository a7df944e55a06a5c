"""Bad input: refused by the constructor, by name, with nothing sent and no thread left."""

from __future__ import annotations

import threading

import pytest
import requests

from eventsource import EventSource, EventStream
from eventsource.http.options import check_origins
from tests.support import QUERY_SECRET, SECRET

URL = "http://127.0.0.1:1/"


@pytest.fixture(params=[EventSource, EventStream], ids=["EventSource", "EventStream"])
def face(request):
    before = threading.active_count()
    yield request.param
    assert threading.active_count() == before


async def coroutine_function(_):
    """What nobody would await."""


@pytest.mark.parametrize(
    "url",
    [
        *("", "/stream", "stream", "//host/stream", "://host", "host:80/stream", "localhost:8000"),
        *("http://", "http:///stream", "http://this is invalid/", "http://host name/"),
        *("http://exa%mple/", "http://a<b/", "http://a..b/", f"http://{'a' * 64}.example/"),
        *("http://host:99999/", "http://host:port/", "http://[::1/", "http://[zz]/"),
        *("http://[fe80::1%25]/", "http://[fe80::1%25a b]/", "http://host%25eth0/"),
    ],
)
def test_an_url_that_cannot_be_one_is_a_value_error(face, url):
    with pytest.raises(ValueError, match="^url must be an absolute URL") as caught:
        face(url)
    assert repr(url) in str(caught.value)
    assert isinstance(caught.value, requests.RequestException)


def test_the_refusal_of_an_url_shows_no_credentials(face):
    for url in (
        f"http://user:{SECRET}@host:99999/?{QUERY_SECRET}#{QUERY_SECRET}",
        "//user:secret@[?secret",
        "http://user:sec/ret@secret@host:x/",
        "http://user:sec#secret@ho st/",
        f"http:user:{SECRET}@host/",
        f"htt p://user:{SECRET}@host/",
    ):
        with pytest.raises(ValueError, match="url") as caught:
            face(url)
        assert "secret" not in str(caught.value)


@pytest.mark.parametrize("url", [None, 5, b"http://host/"])
def test_an_url_that_is_no_text_is_a_type_error(face, url):
    with pytest.raises(TypeError, match="url"):
        face(url)


@pytest.mark.parametrize(
    ("headers", "named"),
    [
        ({"X-Key": "a\nb"}, r"headers\['X-Key'\]: '\\n' at index 1"),
        ({"X-Key": "a\rb"}, r"headers\['X-Key'\]: '\\r' at index 1"),
        ({"X-Key": "a\0"}, r"headers\['X-Key'\]: '\\x00' at index 1"),
        ({"X-Key": b"a\r\n"}, r"headers\['X-Key'\]: '\\r' at index 1"),
        ({"X-Key": " a"}, r"headers\['X-Key'\]: ' ' at index 0"),
        ({"X-Key": "é日"}, r"headers\['X-Key'\]: '日' at index 1 is not latin-1"),
        ({"X Key": "a"}, r"headers\['X Key'\]: not the name"),
        ({"X\n": "a"}, r"headers\['X\\n'\]: not the name"),
        ({"": "a"}, r"headers\[''\]: not the name"),
    ],
)
def test_a_header_that_cannot_be_sent_is_a_value_error(face, headers, named):
    with pytest.raises(ValueError, match=named):
        face(URL, headers=headers)


def test_the_refusal_of_a_header_does_not_show_its_value(face):
    with pytest.raises(ValueError, match="Authorization") as caught:
        face(URL, headers={"Authorization": f"{SECRET}\n"})
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "kind", "named"),
    [
        ({"headers": 5}, TypeError, "headers"),
        ({"headers": {"X": 5}}, TypeError, r"headers\['X'\] must be str or bytes"),
        ({"headers": {5: "x"}}, TypeError, "headers: a name must be str or bytes, not int"),
        ({"last_event_id": 5}, TypeError, "last_event_id"),
        ({"last_event_id": None}, TypeError, "last_event_id"),
        ({"last_event_id": "a\0"}, ValueError, r"last_event_id.*'\\x00' \(index 1\)"),
        ({"last_event_id": "a\r"}, ValueError, r"last_event_id.*'\\r' \(index 1\)"),
        ({"last_event_id": "\n"}, ValueError, r"last_event_id.*'\\n' \(index 0\)"),
        ({"last_event_id": "\ud800"}, ValueError, "last_event_id"),
        ({"reconnect": 5}, TypeError, "reconnect"),
        ({"reconnect": True}, TypeError, "reconnect"),
        ({"event_timeout": 0}, ValueError, "event_timeout"),
        ({"event_timeout": -1}, ValueError, "event_timeout.*-1"),
        ({"event_timeout": float("nan")}, ValueError, "event_timeout"),
        ({"event_timeout": "1"}, TypeError, "event_timeout"),
        ({"max_event_size": 0}, ValueError, "max_event_size"),
        ({"max_event_size": 1.5}, TypeError, "max_event_size"),
        ({"max_event_size": True}, TypeError, "max_event_size"),
        ({"method": "GE T"}, ValueError, "method.*'GE T'"),
        ({"method": ""}, ValueError, "method"),
        ({"method": None}, TypeError, "method"),
        ({"session": 5}, TypeError, "session"),
        ({"session": requests}, TypeError, "session"),
        ({"foo": 5}, TypeError, "unexpected keyword argument 'foo'"),
        ({"stream": True}, TypeError, "unexpected keyword argument 'stream'"),
        ({"timeout": -1}, ValueError, "timeout"),
        ({"timeout": 0}, ValueError, "timeout"),
        ({"timeout": (1, 2, 3)}, ValueError, "timeout"),
        ({"timeout": "x"}, TypeError, "timeout"),
        ({"timeout": True}, TypeError, "timeout"),
        ({"timeout": ("1", None)}, TypeError, "timeout"),
        ({"timeout": float("nan")}, ValueError, "timeout"),
        ({"timeout": 1e300}, ValueError, "timeout"),
        ({"auth": "user"}, TypeError, "auth"),
        ({"auth": ("a", "b", "c")}, TypeError, "auth"),
        ({"auth": ("a", 5)}, TypeError, "auth"),
        ({"auth": ("a", "€")}, ValueError, "auth: not latin-1"),
        ({"proxies": {"http": "http://us:se/cret@127.0.0.1:1"}}, ValueError, r"\['http'\] is not"),
        ({"proxies": {"http": f"http://us:{SECRET}@"}}, ValueError, r"proxies\['http'\]"),
        ({"proxies": {"http": 5}}, ValueError, r"proxies\['http'\]"),
        ({"proxies": {"http": "socks6://h:1"}}, ValueError, r"\['http'\] must begin with socks4:"),
        ({"proxies": {"http": "socks://h:1"}}, ValueError, r"\['http'\] must begin with socks4:"),
        ({"cookies": "a=b"}, TypeError, "cookies"),
        ({"cookies": {"a": "日"}}, ValueError, "cookies: '日'"),
        ({"cookies": {"a": "b\r\nX: y"}}, ValueError, "cookies"),
        ({"proxies": "http://proxy"}, TypeError, "proxies"),
        ({"verify": 5}, TypeError, "^verify must be of type bool or str or SSLContext, not "),
        ({"cert": 5}, TypeError, "cert"),
        ({"params": 5}, TypeError, "params"),
        ({"params": coroutine_function}, TypeError, "params must not be a coroutine"),
        ({"auth": coroutine_function}, TypeError, "auth must not be a coroutine"),
        ({"trusted_origins": "https://host"}, TypeError, "trusted_origins .*, not str"),
        ({"trusted_origins": b"https://host"}, TypeError, "trusted_origins"),
        ({"trusted_origins": None}, TypeError, "trusted_origins"),
        ({"trusted_origins": iter([])}, TypeError, "trusted_origins"),
        ({"trusted_origins": [b"https://host"]}, TypeError, "trusted_origins: .*, not bytes"),
        *(
            ({"trusted_origins": ["https://good.example", origin]}, ValueError, "trusted_origins")
            for origin in (
                *("", "*", "null", "host", "host:80", "//host", "https:", "https://", "https:host"),
                *("https://h/", "https://h/path", "https://h?", "https://h?q", "https://h#", "a b"),
                *("https://u@h", "https://u:p@h", "https://@h", "ftp://h", "ws://h", " https://h"),
                *("https://*.host", "https://h:99999", "https://h:x", "https://[::1"),
                *("https://a..b", "https://h\\", "https://h\n", "https://h\0", "https://a%b"),
            )
        ),
        ({"json": object()}, TypeError, "json"),
        ({"json": float("nan")}, ValueError, "json"),
        ({"json": {}, "data": "x"}, ValueError, "json: .* data"),  # requests would drop it
        ({"json": {}, "files": {"x": b"y"}}, ValueError, "json: .* files"),
        ({"hooks": 5}, TypeError, "hooks"),
        ({"allow_redirects": "no"}, TypeError, "allow_redirects"),
    ],
)
def test_a_bad_argument_is_named(face, options, kind, named):
    with pytest.raises(kind, match=named):
        face(URL, **options)


def test_what_requests_takes_is_taken():
    import urllib3

    EventStream(
        "HTTPS://user:pass@EXAMPLE.com:8443/path?a=b#c",
        headers={"X-Key": b"\xe6\x97\xa5", "X-None": None},
        params=[("a", "b")],
        data=iter([b"x"]),
        cookies=requests.cookies.RequestsCookieJar(),
        files=None,
        auth=("é", b"\xe2\x82\xac"),
        timeout=urllib3.Timeout(1),
        allow_redirects=True,
        proxies={"http": "http://u:p@proxy:80", "https": None, "no_proxy": "a,b"},
        hooks={"response": print},
        verify="/some/file",
        cert=("a", "b"),
        trusted_origins=["HTTPS://Other.example:443", "http://é.example", "http://[::1]:80"],
    )
    EventStream("http://host/", params=pytest.fail, proxies={"http": "SOCKS5h://u:p@h:1"})
    EventStream("http://[fe80::1%25eth0]:80/")
    for timeout in (None, 5, 0.5, (1, None), (None, None)):
        EventStream("http://[::1]:80/", timeout=timeout)
    EventStream("http://é.example/ä?ö", json={"a": 1}, method="report")


@pytest.mark.parametrize(
    ("given", "origin"),
    [
        ("https://host", "https://host"),
        ("HTTPS://HoSt:443", "https://host"),
        ("http://host:80", "http://host"),
        ("http://host:443", "http://host:443"),
        ("http://BÜCHER.example:8080", "http://xn--bcher-kva.example:8080"),
        ("http://xn--bcher-kva.example", "http://xn--bcher-kva.example"),
        ("http://[::1]:8080", "http://[::1]:8080"),
        ("http://[FE80::A%25eth0]", "http://[fe80::a%25eth0]"),
    ],
)
def test_a_trusted_origin_is_put_as_that_of_a_redirect_is(given, origin):
    assert check_origins("trusted_origins", [given]) == {origin}
