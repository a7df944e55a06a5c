"""The head of a response is what http.client makes of it; the body after it is left alone.

Ours differs in four things: a head that the connection's end cuts off is a failure, interim
responses are passed over, space after a value is no part of it, and the head as a whole is
bounded.
"""

from __future__ import annotations

import contextlib
import http.client
import logging
import re
import socket
import time

import pytest
import requests
import urllib3
from hypothesis import given
from hypothesis import strategies as st

from eventsource.errors import HeadTooLarge
from eventsource.http.adapter import MAX_FIELDS, MAX_HEAD_SIZE, new_session, take_over
from eventsource.http.cookies import CookieJar
from eventsource.http.failures import describe
from eventsource.http.sockets import Sockets, current_sockets
from eventsource.testing import ScriptedServer
from fuzz.targets import Plain
from fuzz.wire import Wire
from tests.properties import examples
from tests.support import HEAD, LIMIT, respond
from tests.unit.protocol.test_framing import ARRIVALS, cut, mutated

pytestmark = pytest.mark.filterwarnings("ignore:Generating overly large repr")

OK = b"HTTP/1.1 200 OK\r\n"
MAX_LINE = 65_536
"""Bytes of a line: http.client's limit."""


class Given(Sockets):
    """The sockets of an exchange whose connection is there already."""

    def __init__(self, sock):
        super().__init__()
        self._given = sock

    def __bool__(self):
        return True

    def connect_to(self, *_):
        return self._given


@contextlib.contextmanager
def answered(sock, sockets=None, timeout=None):
    """The response that a session of ours finds on this socket, its body unread."""
    token = current_sockets.set(sockets or Given(sock))
    try:
        with new_session(CookieJar()) as session:
            session.trust_env = False
            yield session.get(
                "http://host/", stream=True, allow_redirects=False, timeout=(None, timeout)
            )
    finally:
        current_sockets.reset(token)


def wire_of(data, arrival=(10**9,), **options):
    return Wire(cut(data, arrival) if data else [], **options)


def head_of(data, arrival=(10**9,), **options):
    """The head; or the failure."""
    try:
        with answered(wire_of(data, arrival, **options)) as response:
            raw = response.raw
            return raw.version, response.status_code, response.reason, by_name(raw.headers)
    except requests.RequestException as error:
        return describe(error)


def head_by_http_client(data):
    """Likewise, by http.client and urllib3; None where the connection ended within it."""
    made = []

    def make(*args, **options):
        made.append(Plain(*args, **options))
        return made[0]

    connection = urllib3.connection.HTTPConnection("host")
    connection.sock = wire_of(data)
    connection.response_class = make
    connection.request("GET", "/", preload_content=False)
    try:
        answer = connection.getresponse()
    except (http.client.HTTPException, ValueError, urllib3.exceptions.HTTPError) as error:
        return error
    if made[0].cut_off:
        return None
    return answer.version, answer.status, answer.reason, by_name(answer.headers)


def by_name(headers):
    """The values of each field, in their order."""
    found = {}
    for name, value in headers.items():
        found.setdefault(name.lower(), []).append(value)
    return found


# ---------------------------------------------------------------- as http.client has it

STATUS_LINES = [
    *[b"HTTP/1.1 200 OK", b"HTTP/1.0 200 OK", b"HTTP/1.1 404 Not Found", b"HTTP/1.1 200"],
    *[b"HTTP/1.1  200  OK ", b"HTTP/1.1 503 \xe9\xff", b"HTTP/1.1 101 Switching"],
    *[b"HTTP/1.9 204 x", b"HTTP/2 200 OK", b"HTTP/1.1 20 OK", b"HTTP/1.1 2000 OK", b"HTTP/1.1 OK"],
    *[b"HTTP/1.1", b"ICY 200 OK", b"", b"garbage", b"data: x"],
    *[b"HTTP/1.1 -12 x", b"HTTP/1.1 +12 x"],
]
FIELDS = [
    *[b"Content-Type: text/event-stream", b"X: a", b"x:b", b"X:", b"X: ", b"X:\t a \t "],
    b"Y: a: b",
    *[b" folded", b"\tfolded \t", b"no colon", b": no name", b"X : space before", b"Z: \xe9\xff\0"],
    *[b"Content-Length: 3", b"Transfer-Encoding: chunked", b"Connection: close", b"A: a\rb"],
    *[b"Content-Encoding: gzip", b"X: " + b"x" * 300, b"X:" + b" " * 300, b"From someone"],
]
INTERIM = [
    *[b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 100 Continue\r\nX: y\r\n\r\n"],
    b"HTTP/1.1 102 Processing\r\n\r\n",
    b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\nContent-Length: 3\r\n\r\n",
    b"HTTP/1.1 199 \n\n",
]
ENDS = st.sampled_from([b"\r\n", b"\r\n", b"\r\n", b"\n"])
LINES = st.tuples(st.sampled_from(FIELDS) | st.binary(max_size=8).map(b"X: %b".__mod__), ENDS)


@st.composite
def heads(draw):
    """A head, most often one that makes sense, and some of what may follow it."""
    line = draw(st.sampled_from(STATUS_LINES[:4]) | st.sampled_from(STATUS_LINES))
    fields = [field + end for field, end in draw(st.lists(LINES, max_size=8))]
    return b"".join([line, draw(ENDS), *fields, draw(ENDS), draw(st.sampled_from([b"", b"abc"]))])


INTERIMS = st.lists(st.sampled_from(INTERIM), max_size=1).map(b"".join)
BROKEN = mutated(st.builds(bytes.__add__, INTERIMS, heads()), b"\r\n: \t0129")


@examples(500)
@given(heads() | BROKEN, ARRIVALS)
def test_a_head_is_that_of_http_client_however_it_arrives(data, arrival):
    ours, theirs = head_of(data, arrival), head_by_http_client(data)
    if isinstance(theirs, tuple):
        assert ours == theirs
    else:
        assert isinstance(ours, requests.RequestException)


@examples(150)
@given(st.lists(st.sampled_from(INTERIM), min_size=1, max_size=5), heads(), ARRIVALS)
def test_interim_responses_are_passed_over(interim, head, arrival):
    ours, alone = head_of(b"".join(interim) + head, arrival), head_of(head)
    if isinstance(alone, tuple):
        assert ours == alone
    else:
        assert type(ours) is type(alone)


@pytest.mark.parametrize("reset", [False, True])
def test_a_head_that_is_cut_off_is_a_failure_wherever_that_is(reset):
    whole = INTERIM[0] + INTERIM[3] + OK + b"Content-Type: text/event-stream\r\nX: y\r\n\r\n"
    for length in range(len(whole)):
        for arrival in ([1], [10**9]):
            failure = head_of(whole[:length], arrival, reset=reset)
            assert isinstance(failure, requests.ConnectionError), whole[:length]
    assert head_of(whole, reset=reset)[1] == 200


@pytest.mark.parametrize(
    ("line", "value"),
    [
        *[(b"X: a", "a"), (b"X: a ", "a"), (b"X: a \t  \t", "a"), (b"X: a b \t", "a b")],
        *[(b"X:\ta", "a"), (b"X: ", ""), (b"X:  \t ", ""), (b"X: a\xa0", "a\xa0")],
    ],
)
@pytest.mark.parametrize("end", [b"\r\n", b"\n"])
def test_space_around_a_value_is_no_part_of_it(line, value, end):
    _, _, _, fields = head_of(OK + line + end + b"Y: b\r\n\r\n")
    assert fields == {"x": [value], "y": ["b"]}


def test_space_within_a_value_takes_time_in_proportion_to_it():
    def read(size):
        data = OK + b"X: a" + b" \t" * (size // 2) + b"b\r\n\r\n"
        started = time.thread_time()
        assert head_of(data)[1] == 200
        return time.thread_time() - started

    read(10)
    little = min(read(15_000) for _ in range(3))
    much = min(read(60_000) for _ in range(3))
    assert much < 8 * max(little, 0.02)


@pytest.mark.parametrize("line", [b"no colon", b": no name", b"X : y", b"From secret"])
def test_fields_that_are_malformed_are_not_logged(line, caplog):
    caplog.set_level(logging.WARNING)
    assert head_of(OK + b"A: b\r\n" + line + b"\r\nSet-Cookie: secret\r\n\r\n")[1] == 200
    assert not caplog.records


# ---------------------------------------------------------------- bounds


def filled(start, size):
    """A head of so many bytes, of which no line is long."""
    missing = size - len(start) - 2
    count, rest = divmod(missing, 10_000)
    lines = [b"X: %b\r\n" % (b"x" * (length - 5)) for length in [10_000] * count + [rest]]
    return b"".join([start, *lines, b"\r\n"])


@pytest.mark.parametrize("start", [OK, INTERIM[3] + OK], ids=["alone", "after an interim response"])
def test_a_head_is_bounded_as_a_whole_interim_responses_included(start):
    assert head_of(filled(start, MAX_HEAD_SIZE))[1] == 200
    failure = head_of(filled(start, MAX_HEAD_SIZE + 1))
    assert isinstance(failure, HeadTooLarge)
    assert (failure.size, failure.limit) == (MAX_HEAD_SIZE + 1, MAX_HEAD_SIZE)
    assert failure.unit == "bytes"


@pytest.mark.parametrize("start", [b"HTTP/1.1 200 ", OK + b"X: "], ids=["status", "field"])
def test_a_line_of_a_head_is_bounded(start):
    filling = b"x" * (MAX_LINE - len(start.rpartition(b"\n")[2]) - 2)
    assert head_of(start + filling + b"\r\n\r\n")[1] == 200
    failure = head_of(start + b"x" + filling + b"\r\n\r\n")
    assert isinstance(failure, HeadTooLarge)
    assert (failure.size, failure.limit) == (MAX_LINE + 1, MAX_LINE)


def test_the_fields_of_a_head_are_counted():
    assert head_of(OK + b"X: y\r\n" * MAX_FIELDS + b"\r\n")[1] == 200
    failure = head_of(OK + b"X: y\r\n" * (MAX_FIELDS + 1) + b"\r\n")
    assert isinstance(failure, HeadTooLarge)
    assert (failure.size, failure.limit, failure.unit) == (MAX_FIELDS + 1, MAX_FIELDS, "fields")


def test_a_head_without_end_is_given_up_though_more_of_it_arrives():
    data = OK + b"X: y\r\n" * MAX_HEAD_SIZE
    assert isinstance(head_of(data, [5000]), HeadTooLarge)
    assert isinstance(head_of(INTERIM[0] * MAX_HEAD_SIZE, [65_536]), HeadTooLarge)


# ---------------------------------------------------------------- the body is taken over


@examples(200)
@given(heads(), st.binary(max_size=300), ARRIVALS)
def test_the_body_begins_after_the_head_and_nothing_of_it_is_lost(head, body, arrival):
    head = re.match(rb".*?\n\r?\n", head, re.DOTALL)[0]
    wire = wire_of(head + body, arrival)
    try:
        with answered(wire) as response:
            connected = take_over(response)
            rest = b"".join(iter(lambda: connected.sock.recv(65_536), b""))
            assert connected.received + rest == body
    except requests.RequestException:
        assert not isinstance(head_by_http_client(head), tuple)


def test_the_body_is_not_waited_for_by_the_head():
    near, far = socket.socketpair()
    with far, near:
        far.sendall(HEAD + b"abc")
        with answered(near, timeout=LIMIT) as response:
            connected = take_over(response)
            assert connected.sock is near
            assert connected.received == b"abc"
            far.sendall(b"def")
            assert near.recv(100) == b"def"


def test_the_fields_are_found_without_case_and_joined():
    data = OK + b"Content-Length: 3\r\nX: a\r\nx: b\r\n\r\n"
    with answered(wire_of(data)) as response:
        field = take_over(response).field
        assert [field("content-length"), field("X"), field("Y")] == ["3", "a, b", None]


def test_a_body_that_has_been_begun_is_not_taken_over():
    for use in (
        lambda response: response.raw.read(1),
        lambda response: response.content,
        lambda response: response.close(),
        lambda response: setattr(response, "raw", object()),
    ):
        with answered(wire_of(HEAD + b"abc")) as response:
            use(response)
            assert take_over(response) is None


def test_a_body_on_a_session_of_the_callers_is_not_taken_over():
    with ScriptedServer(respond(HEAD + b"abc")) as server, requests.Session() as session:
        assert take_over(session.get(server.url, stream=True)) is None


def test_the_socket_is_open_until_the_response_is_closed():
    near, far = socket.socketpair()
    with far:
        far.settimeout(LIMIT)
        number = near.fileno()
        far.sendall(HEAD)
        with answered(near) as response:
            far.recv(65_536)  # the request
            near.close()  # as http.client does where a body lasts as long as the connection
            assert response.raw.fileno() == number
            far.sendall(b"abc")
            assert take_over(response).sock.recv(100) == b"abc"
            response.close()
            assert near.fileno() == -1
            assert far.recv(100) == b""


# ---------------------------------------------------------------- the deadline


@pytest.fixture
def pair():
    near, far = socket.socketpair()
    with near, far:
        yield near, far


def test_the_timeout_ends_it_before_a_deadline_that_is_far(pair):
    near, far = pair
    far.sendall(HEAD[:-1])
    sockets = Given(near)
    sockets.deadline = time.monotonic() + LIMIT
    with pytest.raises(requests.ReadTimeout), answered(near, sockets, 0.05):
        pass
    assert time.monotonic() < sockets.deadline


@pytest.mark.parametrize("timeout", [None, 2 * LIMIT])
def test_after_the_head_the_socket_has_the_timeout_that_was_asked_for(pair, timeout):
    near, far = pair
    far.sendall(HEAD + b"abc")
    sockets = Given(near)
    sockets.deadline = time.monotonic() + LIMIT
    with answered(near, sockets, timeout):
        assert near.gettimeout() == timeout
