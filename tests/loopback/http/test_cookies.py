"""What a server says of cookies takes no memory, no time and no other cookie."""

from __future__ import annotations

import pickle
import re

import pytest
from requests.cookies import create_cookie

from eventsource.http.cookies import MAX_COOKIES, CookieJar
from eventsource.http.exchange import Exchange
from eventsource.http.request import RequestTemplate
from eventsource.testing import ScriptedServer
from tests.exchanges import open_and_abort
from tests.support import respond

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"


def traces(jar, pattern):
    """All that a jar holds in any of its tables and that matches the pattern."""
    return set(re.findall(pattern, pickle.dumps(jar)))


@pytest.mark.parametrize("taken_back", [False, True])
def test_cookies_for_ever_new_paths_leave_nothing_behind(taken_back):
    def script(connection):
        connection.read_request()
        fields = [b"Set-Cookie: a=1; Path=/%d-%d\r\n" % (connection.number, n) for n in range(45)]
        if taken_back:
            before = [b"/%d-%d" % (connection.number - 1, n) for n in range(45)]
            fields += [b"Set-Cookie: a=; Path=%b; Max-Age=0\r\n" % path for path in before]
        connection.send(HEAD + b"".join(fields) + b"\r\ndata: x\n\n")

    with ScriptedServer(script) as server:
        template = RequestTemplate(server.url, options={})
        for _ in range(8):
            open_and_abort(Exchange(template))
    assert len(template.cookies) == (45 if taken_back else MAX_COOKIES)
    assert len(traces(template.cookies, rb"/[0-9]+-[0-9]+")) == len(template.cookies)


def test_cookies_of_ever_new_hosts_leave_nothing_behind():
    jar = CookieJar()
    for n in range(3 * MAX_COOKIES):
        jar.set_cookie(create_cookie("a", "1", domain=f"{n}.test", path="/"))
    assert len(jar) == MAX_COOKIES
    assert len(traces(jar, rb"[0-9]+\.test")) == MAX_COOKIES


def test_the_oldest_go_wherever_they_belong():
    jar = CookieJar()
    for n in range(MAX_COOKIES - 1):
        jar.set_cookie(create_cookie(f"old{n}", "1", domain="a.test", path="/x"))
    jar.set_cookie(create_cookie("z", "1", domain="b.test", path="/"))
    jar.set_cookie(create_cookie("new", "1", domain="a.test", path="/x"))
    jar.set_cookie(create_cookie("old1", "2", domain="a.test", path="/x"))  # set anew: young
    jar.set_cookie(create_cookie("newer", "1", domain="a.test", path="/x"))
    names = {cookie.name for cookie in jar}
    assert len(names) == MAX_COOKIES
    assert {"z", "new", "newer", "old1"} <= names
    assert not {"old0", "old2"} & names


def test_a_jar_that_has_been_cleared_is_a_jar():
    jar = CookieJar()
    for clear in (jar.clear, lambda: jar.clear("a.test"), lambda: jar.clear("a.test", "/")):
        for n in range(MAX_COOKIES + 5):
            jar.set_cookie(create_cookie(f"{n}", "1", domain="a.test", path="/"))
        assert len(jar) == MAX_COOKIES
        clear()
        assert len(jar) == 0


@pytest.mark.parametrize(
    "bad",
    [
        b"Set-Cookie: a=1; Max-Age",
        b"Set-Cookie: a=1; Max-Age=" + b"9" * 400,
        b"Set-Cookie: a=1; expires=1 Nov " + b"9" * 5000,
        b"Set-Cookie2: a=1; expires=never; version=1",
    ],
    ids=lambda value: repr(value[:36]),
)
def test_a_cookie_that_cannot_be_read_costs_no_other(bad):
    answer = HEAD + b"Set-Cookie: good=1\r\n" + bad + b"\r\n\r\ndata: x\n\n"
    with ScriptedServer(respond(answer)) as server:
        template = RequestTemplate(server.url, options={})
        for _ in range(2):
            open_and_abort(Exchange(template))
        assert [request.header("Cookie") for request in server.requests] == [None, "good=1"]
