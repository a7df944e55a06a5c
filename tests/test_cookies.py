"""What a server says of cookies takes no memory, no time and no other cookie."""

from __future__ import annotations

import pytest
from requests.cookies import create_cookie

from eventsource import EventStream
from eventsource.http.adapter import new_session
from eventsource.http.cookies import MAX_COOKIES, CookieJar
from eventsource.testing import ScriptedServer

from .support import QUICK, messages, opens, respond

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"


def jar_of(stream):
    return stream._transport.session.cookies


@pytest.mark.parametrize("then", [b"", b"Set-Cookie: a=; Path=%b; Max-Age=0\r\n"])
def test_cookies_for_ever_new_paths_leave_nothing_behind(then):
    def script(connection):
        connection.read_request()
        paths = [b"/%d-%d" % (connection.number, n) for n in range(45)]
        fields = b"".join(b"Set-Cookie: a=1; Path=%b\r\n" % path for path in paths)
        fields += b"".join(then % path for path in paths if then)
        connection.send(HEAD + fields + b"\r\ndata: x\n\n")

    with ScriptedServer(script) as server, EventStream(server.url, reconnect=QUICK) as stream:
        messages(stream, 8)
        assert sum(len(paths) for paths in jar_of(stream)._cookies.values()) <= MAX_COOKIES


def test_cookies_of_ever_new_hosts_leave_nothing_behind():
    jar = CookieJar()
    for n in range(3 * MAX_COOKIES):
        jar.set_cookie(create_cookie("a", "1", domain=f"{n}.test", path="/"))
    assert len(jar) == len(jar._cookies) == MAX_COOKIES


def test_the_oldest_go_wherever_they_belong():
    jar = new_session().cookies
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
    with (
        ScriptedServer(respond(answer)) as server,
        EventStream(server.url, reconnect=QUICK) as stream,
    ):
        opens(stream)
        assert jar_of(stream)["good"] == "1"
        assert "a" not in jar_of(stream)
