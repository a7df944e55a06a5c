"""What the head and the lines mean."""

from __future__ import annotations

import pytest
from requests.structures import CaseInsensitiveDict

from eventsource.cli.check import findings
from eventsource.cli.check.observing import Head
from tests.wire import NOW, connection, event, events, observation


def head(status=200, *, url="http://h/", hops=(), withheld_from=None, certificate=None, **fields):
    headers = {name.replace("_", "-"): value for name, value in fields.items()}
    return Head(
        status,
        CaseInsensitiveDict(headers),
        url,
        hops=hops,
        withheld_from=withheld_from,
        certificate=certificate,
        version="HTTP/1.1",
    )


# --- The head ---


def test_the_answer_names_who_gave_it_over_what():
    found = findings.status(head(url="https://h/", Server="nginx", Via="1.1 varnish"))
    assert found.level == "ok"
    assert found.what == "The server answered 200 OK."
    assert found.evidence == "HTTP/1.1 over TLS, Server: 'nginx', Via: '1.1 varnish'"


@pytest.mark.parametrize("status", [204, 301, 400, 401, 404, 405, 406, 407, 429, 500, 502, 799])
def test_any_other_status_is_a_problem_with_a_remedy(status):
    found = findings.status(head(status))
    assert (found.level, bool(found.remedy)) == ("problem", True)
    assert str(status) in found.what


def test_a_redirect_is_told_with_its_hops():
    found = findings.redirect(head(url="http://h/b", hops=((307, "http://h/a"),)))
    assert (found.level, found.evidence) == ("ok", "http://h/a (307) -> http://h/b")
    assert "within the origin" in found.what
    found = findings.redirect(head(url="http://other/", hops=((307, "http://h/a"),)))
    assert "another origin" in found.what


def test_credentials_that_were_left_out_are_worth_a_note():
    found = findings.redirect(
        head(url="http://o/", hops=((307, "http://h/"),), withheld_from="http://o")
    )
    assert (found.level, "not sent to http://o" in found.what) == ("note", True)
    assert "trusted_origins" in found.remedy


def test_a_redirect_to_http_is_a_problem():
    found = findings.redirect(head(url="http://h/", hops=((301, "https://h/"),)))
    assert found.level == "problem"


@pytest.mark.parametrize(
    ("days", "level"), [(6.9, "problem"), (-1, "problem"), (7.1, "ok"), (90, "ok")]
)
def test_a_certificate_has_days_left(days, level):
    end = {"notAfter": "Nov 14 22:13:20 2023 GMT"}  # which is NOW
    found = findings.tls(head(certificate=end), NOW - 86400 * days, is_verified=True)
    assert found.level == level
    assert f"{days:.0f} days left" in found.evidence


def test_a_certificate_may_be_unknown_or_unverified():
    assert findings.tls(head(), NOW, is_verified=True).level == "ok"
    assert findings.tls(head(certificate={}), NOW, is_verified=False).level == "note"


@pytest.mark.parametrize(
    ("value", "level"),
    [
        ("text/event-stream", "ok"),
        ("Text/Event-Stream; charset=UTF-8", "ok"),
        ('text/event-stream; charset="utf8"', "ok"),
        ("text/event-stream; charset=iso-8859-1", "note"),
        ("text/html", "problem"),
        ("", "problem"),
    ],
)
def test_content_types(value, level):
    assert findings.content_type(head(Content_Type=value)).level == level


@pytest.mark.parametrize(
    ("value", "level"),
    [
        ("no-cache", "ok"),
        ("private, No-Store", "ok"),
        ('no-cache="Set-Cookie"', "ok"),
        ("max-age=60", "note"),
        ("x-no-cache", "note"),
        (None, "note"),
    ],
)
def test_caching(value, level):
    fields = {} if value is None else {"Cache_Control": value}
    assert findings.caching(head(**fields)).level == level


# --- The lines ---


def test_ids():
    def level(*blocks):
        return findings.ids(observation(connection((0, b"".join(blocks))))).level

    assert level(events(range(3))) == "ok"
    assert level(events(range(3), id=False)) == "note"
    assert level(event(1), event(2, id=False)) == "note"
    assert level(event(1), event(1)) == "note"
    assert level(b": nothing\n\n") == "ok"
    once = observation(connection((0, events(range(3), id=False))), is_once=True)
    assert findings.ids(once).level == "ok"
    assert level(b"id: \x1b\ndata: x\n\n") == "problem"
    assert level(b"id: " + b"1" * 5000 + b"\ndata: x\n\n") == "problem"


def test_what_is_said_of_ids_has_the_figures():
    found = findings.ids(observation(connection((0, event(1) + event(2, id=False)))))
    assert found.evidence == "1 of 2 events"
    found = findings.ids(observation(connection((0, event(7) + event(7)))))
    assert found.evidence == "1 id, such as '7'"


def test_an_id_that_comes_again_on_another_connection_is_not_repeated():
    seen = observation(connection((0, event(1)), ends=1), connection((2, event(1)), asked=2))
    assert findings.ids(seen).level == "ok"


@pytest.mark.parametrize(
    ("lines", "level"),
    [
        (b"retry: 3000\n", "ok"),
        (b"retry: 1000\n", "ok"),
        (b"retry: 999\n", "note"),
        (b"retry: 60000\n", "ok"),
        (b"retry: 60001\n", "note"),
        (b"", "ok"),
        (b"retry: " + b"9" * 5000 + b"\n", "note"),
    ],
)
def test_the_reconnection_time(lines, level):
    assert findings.retry(observation(connection((0, lines + event(1))))).level == level


def formats(*connections, **attributes):
    found = list(findings.format_(observation(*connections, **attributes)))
    assert {each.code for each in found} <= {"format"}
    return found


def test_a_good_body_is_well():
    assert [each.level for each in formats(connection((0, SMALL), until=30))] == ["ok"]
    assert formats(connection(until=30)) == []


SMALL = events(range(10))


@pytest.mark.parametrize(
    "body", [b'{"a": 1, "b": "c:d"}\n', b'{"a": 1}', b"<html>\n<body>x: y</body>\n", b"hello"]
)
def test_a_body_without_a_known_field_is_a_problem(body):
    found = formats(connection((0, body), ends=1))
    assert [each.level for each in found] == ["problem"]
    assert "not an event stream" in found[0].what
    assert body[:5].decode() in found[0].evidence


@pytest.mark.parametrize(
    "body", [b"data: " + b"x" * 9999, b"d", b"\xef\xbb\xbfid:", b": a comment", b"x: y\n:", b""]
)
def test_a_body_that_has_just_begun_is_no_problem(body):
    found = formats(connection((0, body), until=30))
    assert "problem" not in [each.level for each in found]


def test_comments_alone_are_an_event_stream():
    assert [each.level for each in formats(connection((0, b": hi\n\n"), until=30))] == ["ok"]


@pytest.mark.parametrize(
    ("line", "level", "what"),
    [
        (b"more text", "problem", "not fields"),
        (b"datum: x", "note", "unknown field"),
        (b"data: \xff", "problem", "UTF-8"),
        (b"\xef\xbb\xbfdata: x", "problem", "byte order mark"),
        (b"id: \0", "problem", "NUL"),
        (b"retry: soon", "note", "digits"),
    ],
)
def test_odd_lines_are_told_with_their_count_and_the_first(line, level, what):
    body = SMALL + line + b"\n\n" + event(1) + line + b"2\n\n"
    found = formats(connection((0, body)), connection((1, b":\n" + line + b"3\n"), asked=1))
    assert [each.level for each in found] == [level]
    assert what in found[0].what
    assert found[0].evidence.startswith("3, the first is ")
    assert found[0].remedy


def test_a_body_that_ends_without_a_blank_line():
    cut = b"data: the last\n"
    assert [each.level for each in formats(connection((0, SMALL + cut), ends=1))] == ["problem"]
    assert [each.level for each in formats(connection((0, SMALL + cut), cut=1))] == ["ok"]
    unsure = observation(connection((0, SMALL + cut), ends=1))
    unsure.head.headers.pop("Transfer-Encoding")
    assert [each.level for each in findings.format_(unsure)] == ["note"]


def test_an_event_that_is_too_large_is_a_problem():
    found = formats(connection((0, SMALL), cut=1), unreadable=("format", "an event of 9 bytes"))
    assert [each.level for each in found] == ["problem"]
