"""The life of a stream, without a socket, a thread or a clock.

First the transition table, every phase by every method. Then each rule as an example with its
numbers. At the end random histories of all that can happen to a stream, which are compared
with a model after each step.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import re

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st

from eventsource import (
    Comment,
    ErrorEvent,
    EventStreamParser,
    EventTimeout,
    EventTooLarge,
    MessageEvent,
    OpenEvent,
    ReadyState,
    ReconnectPolicy,
    StreamEnded,
    UnexpectedContentType,
    UnexpectedStatus,
)
from eventsource.errors import Aborted, BrokenBody, HeadTooLarge
from eventsource.protocol.session import Phase, Session
from tests.interruption import Interruption, interruption_at
from tests.properties import examples
from tests.reference_parser import reference

WAITING, CONNECTING, OPEN, DROPPED, FAILED, CLOSED = Phase
URL, ORIGIN = "http://host/stream", "http://host"
NEVER_FINAL = requests.ConnectionError("refused")


def answer(status, **headers):
    """A response with nothing but a status and header fields."""
    response = requests.Response()
    response.status_code = status
    response.headers.update(headers)
    return response


def refusal(status):
    return UnexpectedStatus(answer(status))


class Life:
    """A session, its reader, and a clock that moves only when the test says so.

    The reader does what `EventStream` does: it asks for the time that is left before each wait.
    """

    def __init__(self, **options):
        self.session = Session(**options)
        self.now = 1000.0

    def begin(self):
        """Wait until the next attempt is due, and begin it."""
        self.now += self.session.wait(self.now)
        assert self.session.begin()

    def open(self, after=0.0):
        """The server answers with an event stream so many seconds later; return the event."""
        self.session.time_left(self.now)
        self.now += after
        assert self.session.opened(OpenEvent("open", URL, 200, {}), ORIGIN, self.now)
        return self.session.take()

    def connect(self):
        self.begin()
        self.open()

    def receive(self, chunk, after=0.0):
        """These bytes come so many seconds later; return what is in them."""
        self.session.time_left(self.now)
        self.now += after
        self.session.received(chunk, self.now)
        return self.session.take()

    def lose(self, error=NEVER_FINAL, *, random=0.0, retry_after=None):
        """The connection is lost; return the error event."""
        event = self.session.lost(error, self.now, random=random, retry_after=retry_after)
        assert self.session.take() == ([] if event is None else [event])
        return event

    def fail(self, error=NEVER_FINAL, **options):
        """The next attempt fails; return the seconds until the one after it."""
        self.begin()
        return self.lose(error, **options).retry_in

    def open_for(self, seconds, chunk=b""):
        """The next connection brings this and is lost; return the seconds until the one after."""
        self.connect()
        if chunk:
            self.receive(chunk)
        self.now += seconds
        return self.lose().retry_in

    def end(self, how):
        """The connection ends in one of the ways of `ENDS`."""
        if how == "abandon":
            self.session.abandon(self.now)
            return
        if how == "restart":
            self.session.restart()
        self.lose(EventTimeout("no message in time"))

    def time_left(self):
        return self.session.time_left(self.now)


ENDS = pytest.mark.parametrize("end", ["lost", "restart", "abandon"])


def life_in(phase):
    """A life in that phase."""
    life = Life()
    if phase is not WAITING and phase is not CLOSED:
        life.begin()
    if phase is OPEN or phase is DROPPED:
        life.open()
    if phase is DROPPED:
        life.session.restart()
    if phase is FAILED:
        life.lose(refusal(404))
    if phase is CLOSED:
        life.session.close()
    assert life.session.phase is phase
    return life


# ---------------------------------------------------------------- the transition table

TABLE = """
                WAITING     CONNECTING  OPEN     DROPPED  FAILED  CLOSED
begin           CONNECTING  -           -        -        -       -
opened          -           OPEN        -        -        -       -
lost            -           WAITING     WAITING  WAITING  -       -
lost for good   -           FAILED      FAILED   WAITING  -       -
restart         -           DROPPED     DROPPED  -        -       -
abandon         -           WAITING     WAITING  WAITING  -       -
close           CLOSED      CLOSED      CLOSED   CLOSED   CLOSED  -
take            -           -           -        -        -       -
time_left       -           -           -        -        -       -
wait            -           -           -        -        -       -
resume_from     -           -           -        -        -       -
set_reconnection_time  -    -           -        -        -       -
"""
"""Each method, and the phase that it leads to from each phase; "-": it stays the same."""

METHODS = {
    "begin": lambda life: life.session.begin(),
    "opened": lambda life: life.session.opened(OpenEvent("open", URL, 200, {}), ORIGIN, life.now),
    "lost": lambda life: life.session.lost(NEVER_FINAL, life.now, random=0.0),
    "lost for good": lambda life: life.session.lost(refusal(404), life.now, random=0.0),
    "restart": lambda life: life.session.restart(),
    "abandon": lambda life: life.session.abandon(life.now),
    "close": lambda life: life.session.close(),
    "take": lambda life: life.session.take(),
    "time_left": lambda life: life.session.time_left(life.now),
    "wait": lambda life: life.session.wait(life.now),
    "resume_from": lambda life: life.session.resume_from("9"),
    "set_reconnection_time": lambda life: life.session.set_reconnection_time(9.0),
}

HEADINGS, *LINES = (re.split(r"  +", line) for line in TABLE.strip("\n").splitlines())
CELLS = [
    (method, Phase[before], Phase[before if after == "-" else after])
    for method, *row in LINES
    for before, after in zip(HEADINGS[1:], row, strict=True)
]


def test_the_table_has_a_cell_for_every_method_in_every_phase():
    assert {cell[:2] for cell in CELLS} == {
        (method, phase) for method in METHODS for phase in Phase
    }


@pytest.mark.parametrize(("method", "before", "after"), CELLS)
def test_a_method_leads_from_each_phase_where_the_table_says(method, before, after):
    life = life_in(before)
    METHODS[method](life)
    assert life.session.phase is after


@pytest.mark.parametrize(
    ("method", "before", "after"),
    [cell for cell in CELLS if cell[0] in ("begin", "opened", "restart")],
)
def test_begin_opened_and_restart_return_whether_they_changed_the_phase(method, before, after):
    assert METHODS[method](life_in(before)) is (after is not before)


@pytest.mark.parametrize(
    ("method", "before", "after"), [cell for cell in CELLS if cell[0].startswith("lost")]
)
def test_only_a_loss_that_nobody_asked_for_is_told(method, before, after):
    life = life_in(before)
    event = METHODS[method](life)
    if before in (CONNECTING, OPEN):
        assert event.ready_state is (
            ReadyState.CLOSED if after is FAILED else ReadyState.CONNECTING
        )
        assert life.session.take() == [event]
        assert life.session.error is (event.error if after is FAILED else None)
    else:
        assert event is None
        assert life.session.take() == []


@pytest.mark.parametrize(
    ("method", "before", "after"),
    [cell for cell in CELLS if cell[0] in ("begin", "opened", "lost", "lost for good", "abandon")],
)
def test_what_the_reader_reports_in_a_phase_that_has_no_place_for_it_changes_nothing(
    method, before, after
):
    life = life_in(before)

    def everything():
        session = life.session
        return session.resume_id, session.error, session.wait(life.now), session.has_items()

    state = everything()
    METHODS[method](life)
    if after is before:
        assert everything() == state


@pytest.mark.parametrize(
    ("phase", "found"), [(OPEN, ["x"]), (DROPPED, ["x"]), (CLOSED, [])], ids=str
)
def test_bytes_are_parsed_also_after_restart_and_give_nothing_after_close(phase, found):
    life = life_in(OPEN)
    if phase is DROPPED:
        life.session.restart()
    elif phase is CLOSED:
        life.session.close()
    assert [event.data for event in life.receive(b"data: x\n\n")] == found
    assert life.session.phase is phase


@pytest.mark.parametrize(
    ("phase", "ready_state"),
    [*zip(Phase, map(ReadyState, (0, 0, 1, 0, 2, 2)), strict=True)],
    ids=str,
)
def test_each_phase_has_a_ready_state(phase, ready_state):
    session = life_in(phase).session
    assert session.ready_state is ready_state
    assert session.is_over == (ready_state is ReadyState.CLOSED)


# ---------------------------------------------------------------- what opens it, what is kept


def test_a_connection_that_opens_gives_an_open_event_with_what_the_server_answered():
    session = Session()
    session.begin()
    assert session.opened(OpenEvent("open", URL, 200, {"X": "y"}), ORIGIN, 0.0)
    assert session.take() == [OpenEvent("open", URL, 200, {"X": "y"})]
    session.received(b"data: a\n\n", 0.0)
    assert session.take() == [MessageEvent("message", "a", "", ORIGIN)]


def test_comments_are_items_only_if_asked_for():
    for comments, expected in ((False, ["message"]), (True, ["comment", "message", "comment"])):
        life = Life(comments=comments)
        life.connect()
        assert [item.type for item in life.receive(b":a\ndata: x\n\n:b\n")] == expected


def test_a_parser_of_the_callers_reads_each_response_with_its_origin_id_and_size():
    made = []

    class Parser(EventStreamParser):
        def __init__(self, **options):
            made.append(options)
            super().__init__(**options)

    life = Life(parser=Parser, last_event_id="7", max_event_size=99)
    life.connect()
    assert made[-1] == {
        "last_event_id": "7",
        "resume_id": "7",
        "origin": ORIGIN,
        "max_event_size": 99,
    }


def test_an_iteration_under_way_does_not_give_again_what_take_has_returned():
    life = life_in(OPEN)
    session = life.session
    session.received(b"data: a\n\ndata: b\n\n", life.now)
    found = []
    for event in session.kept.rest:
        found += [event, *session.take()]
    assert [event.data for event in found] == ["a", "b"]


def test_close_ends_an_iteration_under_way():
    life = life_in(OPEN)
    session = life.session
    session.received(b"data: a\n\ndata: b\n\n", life.now)
    for event in session.kept.rest:
        assert event.data == "a"
        session.close()
    assert session.take() == []


class Meanwhile(EventStreamParser):
    """A parser during whose work something else happens: `action` is called when it is done."""

    action = staticmethod(lambda: None)

    def feed(self, chunk):
        return self._then(super().feed(chunk))

    def feed_with_comments(self, chunk):
        return self._then(super().feed_with_comments(chunk))

    def _then(self, items):
        action, Meanwhile.action = Meanwhile.action, lambda: None
        action()
        return items


@pytest.mark.parametrize("comments", [False, True])
def test_close_while_bytes_are_parsed_gives_nothing_of_them(comments):
    life = Life(parser=Meanwhile, comments=comments)
    life.connect()
    Meanwhile.action = life.session.close
    assert life.receive(b":a\n\ndata: x\n\n") == []
    assert not life.session.has_items()


def test_restart_while_bytes_are_parsed_gives_all_of_them():
    life = Life(parser=Meanwhile)
    life.connect()
    Meanwhile.action = life.session.restart
    assert [event.data for event in life.receive(b"id: 1\ndata: x\n\n")] == ["x"]
    assert life.session.phase is DROPPED
    assert life.session.resume_id == "1"


# ---------------------------------------------------------------- where it resumes


@pytest.mark.parametrize(
    ("chunks", "resumed_at"),
    [
        ([b"data: a\n\n"], "0"),
        ([b"id: 1\ndata: a\n\n"], "1"),
        ([b"id: 1\ndata: a\n\nid: 2\ndata: b\n"], "1"),
        ([b"id: 1\ndata: a\n\nid: 2\n\n"], "2"),
        ([b"id: 1\ndata: a\n\n", b"id: 2\ndata: b"], "1"),
        ([b"id: 1\n", b"data: a\n", b"\n", b"data: b\n\n"], "1"),
        ([b"id: 1\ndata: a\n\nid\ndata: b\n\n"], ""),
        ([b"id: \xc3\xa9\n\n"], "é"),
    ],
)
@ENDS
def test_the_next_connection_resumes_after_the_last_complete_block(chunks, resumed_at, end):
    life = Life(last_event_id="0")
    life.connect()
    for chunk in chunks:
        life.receive(chunk)
    life.end(end)
    life.begin()
    assert life.session.resume_id == resumed_at
    life.open()
    assert life.receive(b"data: x\n\n")[0].last_event_id == resumed_at


@ENDS
def test_an_id_that_cannot_be_sent_stays_the_events_and_is_not_sent(end):
    life = Life(last_event_id="0")
    for number in range(3):  # over as many connections as there may be
        life.connect()
        (event,) = life.receive(b"id: \x01%d\ndata: a\n\n" % number)
        assert event.last_event_id == f"\x01{number}"
        life.end(end)
        life.begin()
        assert life.session.resume_id == "0"
        life.open()
        assert life.receive(b"data: x\n\n")[0].last_event_id == f"\x01{number}"
        life.lose()


def test_silence_counts_from_the_opening_and_from_each_byte_while_it_is_open():
    life = Life()
    assert life.session.silent_for(life.now) is None
    life.connect()
    assert life.session.silent_for(life.now + 2) == 2
    life.receive(b":\n", after=5)
    assert life.session.silent_for(life.now + 3) == 3
    life.lose()
    assert life.session.silent_for(life.now) is None


def test_odd_lines_are_those_of_a_connection_that_has_brought_no_event():
    life = Life()
    life.connect()
    life.receive(b"{}\n[]\n")
    assert life.session.odd_lines == 2
    life.lose()
    life.begin()
    assert life.session.odd_lines == 0
    life.open()
    life.receive(b"data: x\n\n")
    life.receive(b"{}\n")
    assert life.session.odd_lines == 0


def test_an_id_that_cannot_be_sent_and_comes_again_does_not_hide_one_between_that_can():
    life = Life()
    life.connect()
    life.receive(b"id: 1\n\nid: \x01\n\n")  # Python has one str of "\x01" for all
    assert life.session.resume_id == "1"
    life.receive(b"id: 2\n\nid: \x01\n\n")
    assert life.session.resume_id == "2"


def test_a_stored_id_that_cannot_be_sent_is_taken_and_not_sent():
    life = Life(last_event_id="\x01")
    assert life.session.resume_id == ""
    life.connect()
    assert life.receive(b"data: x\n\n")[0].last_event_id == "\x01"
    life.session.resume_from("5")
    life.session.resume_from("\x02")
    assert life.session.resume_id == "5"


def test_what_was_kept_is_given_after_an_interruption_and_is_not_asked_for_again():
    life = life_in(OPEN)
    life.session.received(b"id: 1\ndata: a\n\nid: 2\ndata: b\n\n", life.now)
    assert next(life.session.kept.rest).data == "a"
    life.session.abandon(life.now)
    assert life.session.resume_id == "2"
    assert [event.data for event in life.session.take()] == ["b"]


def interrupt():
    raise Interruption


def test_what_an_interruption_keeps_from_being_kept_is_asked_for_again():
    life = Life(parser=Meanwhile, last_event_id="0")
    life.connect()
    Meanwhile.action = interrupt
    with pytest.raises(Interruption):
        life.receive(b"id: 1\ndata: a\n\nid: 2\nda")
    life.session.abandon(life.now)
    assert not life.session.has_items()
    assert life.session.resume_id == "0"
    life.connect()
    assert life.receive(b"ta: b\n\n") == []  # nor is there anything left in the parser


def test_where_to_resume_may_be_set_and_counts_until_a_block_moves_it():
    life = life_in(OPEN)
    life.receive(b"id: 1\ndata: a\n\n")
    life.session.resume_from("9")
    assert life.session.resume_id == "9"
    assert life.receive(b"data: b\n\n")[0].last_event_id == "9"
    life.receive(b"id: 3\n\n")
    assert life.session.resume_id == "3"


def test_a_block_that_has_begun_when_it_is_set_keeps_its_own_id():
    life = life_in(OPEN)
    life.receive(b"id: 5\nda")
    life.session.resume_from("9")
    assert life.session.resume_id == "9"
    assert life.receive(b"ta: x\n\n")[0].last_event_id == "5"
    assert life.session.resume_id == "5"


def test_setting_where_to_resume_gives_nothing_twice_and_loses_nothing():
    life = life_in(OPEN)
    session = life.session
    session.received(b"data: a\n\ndata: b\n\n", life.now)
    assert next(session.kept.rest).data == "a"
    session.resume_from("9")
    assert [event.data for event in session.take()] == ["b"]
    assert session.resume_id == "9"


@pytest.mark.parametrize(
    ("value", "error"),
    [(5, TypeError), ("a\n", ValueError), ("\0", ValueError), ("\ud800", ValueError)],
)
def test_what_cannot_be_sent_is_no_place_to_resume(value, error):
    life = life_in(OPEN)
    with pytest.raises(error, match="last_event_id"):
        life.session.resume_from(value)
    assert life.session.resume_id == ""


# ---------------------------------------------------------------- when the next attempt is due


def test_the_first_attempt_is_due_at_once():
    assert Session().wait(0.0) == 0.0


def test_the_wait_after_an_open_stream_is_the_policys_delay():
    life = Life(policy=ReconnectPolicy(delay=7))
    for _ in range(3):
        life.connect()
        life.receive(b"data: a\n\n")
        assert life.lose(StreamEnded("ended")).retry_in == 7
        assert life.session.wait(life.now) == 7
        assert life.session.wait(life.now + 4) == 3
        assert life.session.wait(life.now + 8) == 0


@pytest.mark.parametrize(
    ("field", "seconds"),
    [(b"5000", 5), (b"100000", 100), (b"0", 0.02), (b"9" * 400, 3600), (b"99999999", 3600)],
)
def test_the_servers_retry_is_kept_within_bounds_over_all_connections(field, seconds):
    life = Life()
    for _ in range(2):
        life.connect()
        life.receive(b"retry: " + field + b"\ndata: a\n\n")
        assert life.session.reconnection_time == seconds
        assert life.lose().retry_in == seconds
    life.connect()
    life.receive(b"data: a\n\n")
    assert life.lose().retry_in == seconds


def test_retry_counts_from_its_line_on_also_in_a_block_that_is_cut():
    life = life_in(OPEN)
    life.receive(b"data: a\n\nretry: 5000\ndata: b")
    assert life.lose().retry_in == 5


def test_attempts_that_fail_in_a_row_back_off():
    life = Life()
    assert [life.fail() for _ in range(8)] == [3, 6, 12, 24, 48, 60, 60, 60]


def test_connections_that_open_and_end_at_once_back_off():
    life = Life()
    waits = []
    for _ in range(5):
        life.connect()
        life.receive(b":\n\nid: 1\n\nretry: 1000\n")  # none of it an event
        waits.append(life.lose(StreamEnded("ended")).retry_in)
    assert waits == [1, 2, 4, 8, 16]


EVENT, BEAT = b"data: x\n\n", b":\n"


@pytest.mark.parametrize(
    ("stable_after", "connections", "waits"),
    [
        pytest.param(None, [(0.99, BEAT)] * 3, [3, 6, 12], id="nearly a second"),
        pytest.param(None, [(1.0, BEAT)] * 3, [3, 3, 3], id="a second"),
        pytest.param(None, [(100, None)] * 3, [3, 6, 12], id="a second without opening"),
        pytest.param(
            None,
            [(0, None), (0, None), (0, EVENT), (0, None), (0, None)],
            [3, 6, 3, 3, 6],
            id="an event",
        ),
        pytest.param(None, [(0, EVENT), (0, BEAT), (0, BEAT)], [3, 3, 6], id="an event before"),
        *(
            pytest.param(10.0, [(seconds, chunk)] * 3, waits, id=f"stable after 10 s, {seconds} s")
            for seconds, waits in [(9.9, [3, 6, 12]), (10.0, [3, 3, 3])]
            for chunk in (BEAT, EVENT)
        ),
    ],
)
def test_an_event_or_a_second_or_the_time_of_stable_after_ends_the_back_off(
    stable_after, connections, waits
):
    """A connection is the seconds that it lasts and what it brings; None: it does not open."""
    life = Life(policy=ReconnectPolicy(stable_after=stable_after))
    for (seconds, chunk), wait in zip(connections, waits, strict=True):
        if chunk is None:
            life.begin()
            life.now += seconds
            assert life.lose().retry_in == wait
        else:
            assert life.open_for(seconds, chunk) == wait


def test_restart_ends_the_back_off():
    life = Life()
    assert [life.fail(), life.fail()] == [3, 6]
    life.begin()
    life.session.restart()
    assert life.lose(Aborted("aborted")) is None
    assert life.session.wait(life.now) == 0
    assert life.fail() == 3


def test_a_connection_that_brought_an_event_ends_the_back_off_also_if_it_was_abandoned():
    life = Life(policy=ReconnectPolicy(max_attempts=3))
    assert [life.fail(), life.fail()] == [3, 6]
    life.connect()
    life.receive(b"data: x\n\n")
    life.session.abandon(life.now)
    assert [life.fail(), life.fail(), life.fail()] == [3, 6, None]


def busy_server(policy):
    """The waits after connections that bring one event each and end at once."""
    life = Life(policy=policy)
    for _ in range(6):
        life.connect()
        life.receive(b"retry: 0\ndata: x\n\n")
        yield life.lose(StreamEnded("ended")).retry_in


def test_min_delay_is_a_floor_under_the_servers_retry():
    assert [*busy_server(ReconnectPolicy())] == [0.02] * 6
    assert [*busy_server(ReconnectPolicy(min_delay=5.0))] == [5.0] * 6


def test_with_stable_after_connections_that_bring_events_and_end_at_once_back_off():
    assert [*busy_server(ReconnectPolicy(stable_after=10.0))] == [
        *(0.02, 0.04, 0.08, 0.16, 0.32, 0.64),
    ]


class OneLook(ReconnectPolicy):
    """Ends with the stream, and waits as long as there were failures."""

    def is_final(self, error, failures):
        return isinstance(error, StreamEnded) or super().is_final(error, failures)

    def next_delay(self, reconnection_time, failures, *, random, retry_after=None):
        return 100.0 * failures


def test_a_subclass_decides_what_is_final_and_how_long_to_wait():
    life = Life(policy=OneLook())
    assert [life.fail(), life.fail()] == [100.0, 200.0]
    life.connect()
    assert life.lose(StreamEnded("ended")).retry_in is None
    assert life.session.phase is FAILED


@pytest.mark.parametrize(
    ("wait", "kind"), [(-1, ValueError), (math.nan, ValueError), ("1", TypeError)]
)
def test_a_wait_of_a_subclass_that_makes_no_sense_is_refused_by_name(wait, kind):
    class Odd(ReconnectPolicy):
        def next_delay(self, *_, **__):
            return wait

    life = Life(policy=Odd())
    life.begin()
    with pytest.raises(kind, match=r"the result of next_delay\(\)"):
        life.session.lost(NEVER_FINAL, life.now, random=0.0)


def test_a_wait_that_is_abandoned_is_no_time_that_a_connection_was_open():
    life = Life(policy=ReconnectPolicy(max_attempts=3))
    for expected in (3, 6, None):
        life.connect()
        assert life.lose().retry_in == expected
        life.now += 2.0
        life.session.abandon(life.now)


def test_jitter_and_retry_after_lengthen_a_wait():
    life = Life(policy=ReconnectPolicy(statuses={503}))
    assert life.fail(random=1.0) == pytest.approx(3.3)
    assert life.fail(refusal(503), retry_after=100) == 100


def test_restart_ends_a_wait():
    life = Life()
    assert life.fail() == 3
    assert not life.session.restart()  # there is no connection to be ended
    assert life.session.wait(life.now) == 0


def test_one_drop_is_no_error_however_often_it_is_restarted():
    life = life_in(OPEN)
    assert [life.session.restart() for _ in range(3)] == [True, False, False]
    life.now += 5
    assert life.lose(Aborted("aborted")) is None
    assert life.session.wait(life.now) == 0
    life.connect()
    assert life.lose(StreamEnded("ended")).retry_in == 3  # and a loss after it is an error


def test_an_attempt_that_was_abandoned_is_made_again_at_once_without_an_error():
    life = Life()
    life.fail()
    life.begin()
    life.session.abandon(life.now)
    assert life.session.wait(life.now) == 0
    assert life.session.take() == []


def test_a_wait_that_was_abandoned_goes_on():
    life = Life()
    life.fail()
    life.session.abandon(life.now)
    assert life.session.wait(life.now + 1) == 2


def test_the_reconnection_time_may_be_set_until_the_server_sets_another():
    life = life_in(OPEN)
    life.receive(b"retry: 9000\ndata: a\n\n")
    life.session.set_reconnection_time(0.5)
    life.receive(b"data: b\n\n")
    assert life.session.reconnection_time == 0.5
    assert life.lose().retry_in == 0.5
    life.connect()
    life.receive(b"retry: 4000\n")
    assert life.session.reconnection_time == 4


@pytest.mark.parametrize(
    ("value", "error"),
    [("1", TypeError), (True, TypeError), (-1, ValueError), (math.inf, ValueError)],
)
def test_a_reconnection_time_is_a_number_of_at_least_0(value, error):
    session = Session()
    with pytest.raises(error, match="reconnection_time"):
        session.set_reconnection_time(value)
    assert session.reconnection_time == 3


# ---------------------------------------------------------------- what closes it for good


def test_without_a_policy_there_is_one_attempt():
    life = Life(policy=None)
    life.connect()
    life.receive(b"data: a\n\n")
    event = life.lose(StreamEnded("ended"))
    assert (event.ready_state, event.retry_in) == (ReadyState.CLOSED, None)
    assert life.session.error is event.error
    assert not life.session.begin()


def test_max_attempts_in_a_row_close_for_good():
    life = Life(policy=ReconnectPolicy(max_attempts=3))
    assert [life.fail(), life.fail(), life.fail()] == [3, 6, None]
    assert life.session.error is NEVER_FINAL


def test_success_starts_the_count_of_attempts_anew():
    life = Life(policy=ReconnectPolicy(max_attempts=2))
    assert life.fail() == 3
    life.connect()
    life.receive(b"data: x\n\n")
    assert life.lose().retry_in == 3
    assert [life.fail(), life.fail()] == [3, None]


@pytest.mark.parametrize(
    "error",
    [
        refusal(204),
        refusal(404),
        UnexpectedContentType(answer(200)),
        EventTooLarge(11, 10),
        HeadTooLarge(11, 10),
        requests.exceptions.InvalidURL("no"),
        requests.exceptions.InvalidSchema("no"),
        requests.exceptions.UnrewindableBodyError("no"),
    ],
    ids=lambda error: str(error)[:40],
)
def test_a_failure_that_is_final_closes_for_good(error):
    life = Life(policy=ReconnectPolicy(statuses={429, 503}))
    life.begin()
    event = life.lose(error)
    assert event == ErrorEvent("error", error, ReadyState.CLOSED, None)
    assert life.session.error is error
    assert life.session.phase is FAILED


@pytest.mark.parametrize(
    "error",
    [
        refusal(503),
        UnexpectedContentType(answer(200)),
        requests.ConnectionError("refused"),
        BrokenBody("cut"),
        StreamEnded("ended"),
        KeyError("no token yet"),
    ],
    ids=lambda error: str(error)[:40],
)
def test_any_other_is_tried_again(error):
    life = Life(policy=ReconnectPolicy(statuses={200, 503}))
    life.begin()
    assert life.lose(error) == ErrorEvent("error", error, ReadyState.CONNECTING, 3)
    assert life.session.error is None
    assert life.session.phase is WAITING


def test_an_error_that_is_false_is_an_error_like_any_other():
    class Nothing(Exception):
        def __len__(self):
            return 0

    life = Life(policy=None)
    life.begin()
    error = Nothing()
    assert life.lose(error).error is error
    assert life.session.error is error


def test_an_event_that_is_too_large_comes_after_those_before_it():
    life = Life(max_event_size=20)
    life.connect()
    assert [event.data for event in life.receive(b"data: a\n\ndata: " + b"x" * 20)] == ["a"]
    error = life.session.parse_error
    assert isinstance(error, EventTooLarge)
    assert life.lose(error).ready_state is ReadyState.CLOSED


# ---------------------------------------------------------------- event_timeout


def test_without_event_timeout_a_wait_has_no_limit():
    life = life_in(OPEN)
    life.receive(b":\n", after=1e6)
    assert life.time_left() is None


def test_the_time_to_parse_counts_so_that_a_flood_of_comments_keeps_no_stream_alive():
    life = Life(event_timeout=60.0)
    life.connect()
    for beat in range(1, 4):
        assert life.time_left() == 60 - 6 * (beat - 1)
        life.session.received(b":\n" * 1000, life.now)  # without any wait
        life.session.parsed(6)
    assert life.time_left() == 42


def test_the_time_left_is_what_remains_after_all_waits_since_the_last_event():
    life = Life(event_timeout=60.0)
    life.connect()
    life.receive(b"data: a\n\n", after=59.0)
    assert life.time_left() == 60
    for beat in range(59):
        assert life.time_left() == 60 - beat
        life.receive(b":\n", after=1.0)
    assert life.time_left() == 1
    life.receive(b"data: b\n\n", after=0.9)
    assert life.time_left() == 60


@ENDS
def test_the_time_begins_anew_with_each_attempt_and_the_time_until_it_opens_counts(end):
    life = Life(event_timeout=60.0)
    for _ in range(3):
        life.begin()
        assert life.time_left() == 60
        life.open(after=30.0)
        assert life.time_left() == 30
        life.receive(b":\n", after=20.0)
        assert life.time_left() == 10
        life.end(end)


def test_time_that_the_caller_takes_does_not_count():
    life = Life(event_timeout=60.0)
    life.connect()
    for _ in range(3):
        life.now += 1000
        life.receive(b":\n", after=10.0)  # nor does it make good what was waited for before
        life.now += 1000
    assert life.time_left() == 30


@pytest.mark.parametrize(
    "chunk",
    [b":\n\n", b"\n", b"id: 1\n\n", b"data: x\n", b"retry: 1\n\n", b"event: e\n\n", b"x: y\n\n"],
)
@pytest.mark.parametrize("comments", [False, True])
def test_what_is_no_event_does_not_give_the_time_again(chunk, comments):
    life = Life(event_timeout=60.0, comments=comments)
    life.connect()
    for seconds in (20, 40, 60, 80):
        life.receive(chunk, after=20.0)
        assert life.time_left() == 60 - seconds


def test_a_comment_beside_an_event_changes_nothing():
    life = Life(event_timeout=60.0, comments=True)
    life.connect()
    life.receive(b":\ndata: x\n\n:\n", after=20.0)
    assert life.time_left() == 60


def test_a_timeout_says_how_long_there_was_no_message():
    life = Life(event_timeout=2.5)
    life.connect()
    event = life.lose(EventTimeout("no message in time"))
    assert type(event.error) is EventTimeout
    assert str(event.error) == "no message for 2.5 seconds"


# ---------------------------------------------------------------- interrupted at any point

LAST = 6
"""The number of the last event. Who asks for those after it is refused for good."""


class Reader:
    """Does to a session what `EventStream` does, with a server of numbered events.

    A connection brings up to four of them in three reads, and ends.
    """

    def __init__(self):
        self.session = Session()
        self.given = []
        self.chunks = []  # that the connection still brings
        self.is_busy = False

    def run(self, give):
        session = self.session
        while True:
            give(self)
            if session.is_over:
                return
            if self.is_busy:
                session.abandon(0.0)
            self.is_busy = True
            self.step()
            self.is_busy = False

    def step(self):
        session = self.session
        if session.phase is OPEN:
            session.time_left(0.0)
            if self.chunks:
                session.received(self.chunks.pop(), 0.0)
            else:
                session.lost(StreamEnded("ended"), 0.0, random=0.0)
        elif session.begin():
            number = int(session.resume_id or 0)
            if number == LAST:
                session.lost(refusal(204), 0.0, random=0.0)
                return
            session.opened(OpenEvent("open", URL, 200, {}), ORIGIN, 0.0)
            events = [b"id: %d\ndata: x\n\n" % n for n in range(number + 1, LAST + 1)]
            self.chunks = [b"id: half", b"".join(events[1:4]), events[0]]


def by_take(reader):
    reader.given += reader.session.take()


def by_iterating(reader):
    reader.given.extend(reader.session.kept.rest)


@pytest.mark.parametrize("give", [by_take, by_iterating])
def test_wherever_an_exception_interrupts_the_reader_nothing_is_lost_or_comes_twice(give):
    for number in itertools.count(1):
        reader = Reader()
        with interruption_at(number) as point:
            with contextlib.suppress(Interruption):
                reader.run(give)
        reader.run(give)
        numbers = [int(it.last_event_id) for it in reader.given if isinstance(it, MessageEvent)]
        assert numbers == list(range(1, LAST + 1)), number
        *told, last = [item for item in reader.given if isinstance(item, ErrorEvent)]
        assert len({id(event.error) for event in told}) == len(told)
        assert {event.ready_state for event in told} <= {ReadyState.CONNECTING}
        assert last is reader.given[-1]
        assert last.ready_state is ReadyState.CLOSED
        assert reader.session.error is last.error
        if not point.is_over:
            break
    assert number > 100


# ---------------------------------------------------------------- random histories

PIECES = [
    *(b"data: a\n\n", b"data: b\r\n\r\n", b"data\n\n", b"event: e\ndata: c\n\n"),
    *(b"id: 1\ndata: d\n\n", b"id: 2\ndata: e\ndata: f\n\n", b"id: 3\n\n", b"id\n\n"),
    *(b": beat\n", b":\r\n\r\n", b"retry: 0\n", b"retry: 1500\n\n", b"retry: 99999999\n"),
    *(b"id: 4\n", b"data: g\n", b"event: f\n", b"\n", b"x: y\n", b"i", b"data: \xc3\xa9"),
]
"""Parts of event streams, whole blocks and beginnings of blocks."""

CHUNKS = st.lists(st.sampled_from(PIECES), min_size=1, max_size=5).map(b"".join)
"""What one read brings."""

SECONDS = st.integers(0, 40).map(lambda n: n / 8)
"""Multiples of an eighth, so that sums of them are exact."""

LIMIT = 10_000
"""Bytes of the largest event."""

ERRORS = st.sampled_from(
    [
        *map(refusal, (204, 404, 429, 503)),
        *[requests.ConnectionError("refused")] * 5,
        UnexpectedContentType(answer(200)),
        requests.exceptions.InvalidURL("no"),
        requests.exceptions.UnrewindableBodyError("no"),
        HeadTooLarge(11, 10),
        StreamEnded("ended"),
        BrokenBody("cut"),
        EventTimeout("no message in time"),
        Aborted("aborted"),
        KeyError("no token yet"),
    ]
)


class Counting(ReconnectPolicy):
    """A policy that notes how many failures in a row it is told of."""

    told = 0

    def is_final(self, error, failures):
        Counting.told = failures
        return super().is_final(error, failures)


POLICIES = st.none() | st.builds(
    Counting,
    delay=st.sampled_from([0, 0.001, 0.5, 3.0, 100.0]),
    min_delay=st.sampled_from([0, 0.25, 7.0]),
    stable_after=st.sampled_from([None, None, 0, 2.5]),
    max_delay=st.sampled_from([0, 0.05, 5.0, 60.0]),
    factor=st.sampled_from([1, 2.0, 10.0]),
    jitter=st.sampled_from([0, 0.1, 1.0]),
    max_attempts=st.none() | st.integers(1, 4),
    statuses=st.sets(st.sampled_from([200, 204, 429, 503])),
)


def is_final(policy, error, failures):
    """Whether the design says that there is no further attempt."""
    if policy is None or failures == policy.max_attempts:
        return True
    if isinstance(error, UnexpectedStatus):
        return error.status not in policy.statuses
    if isinstance(error, UnexpectedContentType):
        return 200 not in policy.statuses
    in_vain = requests.exceptions.InvalidURL, requests.exceptions.UnrewindableBodyError
    return isinstance(error, (HeadTooLarge, EventTooLarge, *in_vain))


class Model:
    """A session and its model, to which the same happens.

    The reader does what `EventStream` does: before each step it gives all that is kept, and it
    makes no attempt before it is due. What does not apply in a phase does nothing.
    """

    def __init__(self, policy, event_timeout, comments, last_event_id):
        self.session = Session(
            policy=policy,
            event_timeout=event_timeout,
            comments=comments,
            last_event_id=last_event_id,
            max_event_size=LIMIT,
            parser=Meanwhile,
        )
        self.policy, self.event_timeout, self.comments = policy, event_timeout, comments
        self.now = 1000.0
        self.phase = WAITING
        self.error = None
        self.expected = []  # all items so far, in order
        self.given = []  # those that the reader has been given
        self.loop = iter(())  # an iteration that was begun some time ago
        self.resume_id = last_event_id
        self.reconnection_time = (policy or ReconnectPolicy()).delay
        self.due = 0.0
        self.failures = 0
        self.begin_anew()

    def begin_anew(self):
        self.opened_at = None
        self.has_event = False
        self.silence = 0.0
        self.unread = b""  # of the connection, after the last complete block
        self.comments_of_unread = 0  # those that have been given
        self.is_broken = False  # by an event that is too large

    def expect(self, *items):
        if self.phase is not CLOSED:
            self.expected += items

    def wait(self, seconds):
        """The reader waits, for no longer than it may."""
        left = self.session.time_left(self.now)
        if self.event_timeout is None:
            assert left is None
        else:
            assert left == self.event_timeout - self.silence
        self.now += seconds

    # --- What the reader does ---

    def step(self, chunk, seconds, meanwhile):
        """All goes well: wait until the attempt is due, connect, or read."""
        self.take()
        if self.phase is WAITING:
            self.now += self.session.wait(self.now)
            assert self.session.begin()
            self.phase = CONNECTING
            self.begin_anew()
        elif self.phase is CONNECTING or (self.phase is DROPPED and self.opened_at is None):
            self.open(seconds)
        elif self.is_broken:
            self.lose(self.session.parse_error)
        elif self.phase is OPEN or self.phase is DROPPED:
            self.read(chunk, seconds, meanwhile)

    def open(self, seconds):
        self.wait(seconds)
        is_wanted = self.session.opened(OpenEvent("open", URL, 200, {}), ORIGIN, self.now)
        assert is_wanted == (self.phase is CONNECTING)
        if is_wanted:
            self.phase = OPEN
            self.opened_at = self.now
            self.silence += seconds
            self.expect(OpenEvent("open", URL, 200, {}))

    def read(self, chunk, seconds, meanwhile):
        self.wait(seconds)
        if meanwhile == "interrupt":
            Meanwhile.action = interrupt
            with pytest.raises(Interruption):
                self.session.received(chunk, self.now)
            self.abandon()
            return
        if meanwhile is not None:
            Meanwhile.action = getattr(self, meanwhile)
        self.session.received(chunk, self.now)
        self.has_arrived(chunk, seconds)

    def has_arrived(self, chunk, seconds):
        self.unread += chunk
        _, _, reconnection_time, found = reference(self.unread, self.resume_id)
        found = [MessageEvent(*it, ORIGIN) if len(it) == 3 else Comment(*it) for it in found]
        del found[: self.comments_of_unread]
        if not self.comments:
            found = [item for item in found if isinstance(item, MessageEvent)]
        self.expect(*found)
        if reconnection_time is not None:
            self.reconnection_time = min(max(reconnection_time, 0.02), 3600.0)
        if any(isinstance(item, MessageEvent) for item in found):
            self.has_event = True
            self.silence = 0.0
        else:
            self.silence += seconds
        *blocks, rest = re.split(rb"(?<=\n\n)|(?<=\r\n\r\n)", self.unread)
        _, self.resume_id, *_ = reference(b"".join(blocks), self.resume_id)
        self.unread = re.sub(rb"(?m)^retry.*\n", b"", rest)  # it has been seen to
        self.comments_of_unread = len(reference(rest)[3])

    def read_too_much(self, chunk, seconds):
        """An event comes that is too large, after this chunk, which ends a block."""
        self.take()
        if self.phase is not OPEN or self.is_broken:
            return
        self.wait(seconds)
        chunk = b"\n\n" + chunk
        found = reference(self.unread + chunk)[3][self.comments_of_unread :]
        if any(len(item) == 3 or self.comments for item in found):
            self.session.received(chunk + b"data: " + b"x" * LIMIT, self.now)
            self.has_arrived(chunk, seconds)
        else:
            with pytest.raises(EventTooLarge):
                self.session.received(chunk + b"data: " + b"x" * LIMIT, self.now)
        self.is_broken = True
        assert isinstance(self.session.parse_error, EventTooLarge)

    def lose(self, error, random=0.0, retry_after=None):
        self.take()
        if self.is_broken:
            error = self.session.parse_error
        event = self.session.lost(error, self.now, random=random, retry_after=retry_after)
        if self.phase is DROPPED:
            self.phase, self.due, self.failures = WAITING, self.now, 0
        if self.phase not in (CONNECTING, OPEN):
            assert event is None
            return
        self.failures = 0 if self.is_success() else self.failures + 1
        if isinstance(error, EventTimeout):
            assert str(event.error) == f"no message for {self.event_timeout} seconds"
        else:
            assert event.error is error
        self.expect(event)
        if self.policy is not None:
            assert Counting.told == self.failures
        if is_final(self.policy, error, self.failures):
            assert (event.ready_state, event.retry_in) == (ReadyState.CLOSED, None)
            self.phase, self.error = FAILED, event.error
            return
        assert event.ready_state is ReadyState.CONNECTING
        self.phase, self.due = WAITING, self.now + event.retry_in
        least = max(0.02, self.policy.min_delay)
        shortest = max(least, self.reconnection_time, min(retry_after or 0.0, 3600.0))
        longest = max(shortest, self.policy.max_delay if self.failures > 1 else 0.0)
        assert shortest <= event.retry_in <= longest * (1 + self.policy.jitter) * (1 + 1e-9)
        assert event.retry_in == self.policy.next_delay(
            self.reconnection_time, self.failures, random=random, retry_after=retry_after
        )

    def is_success(self):
        if self.opened_at is None:
            return False
        seconds = self.now - self.opened_at
        if self.policy is not None and self.policy.stable_after is not None:
            return seconds >= self.policy.stable_after
        return self.has_event or seconds >= 1.0

    def abandon(self):
        """The reader is interrupted, wherever it is."""
        self.session.abandon(self.now)
        if self.phase in (CONNECTING, OPEN, DROPPED):
            if self.is_success():
                self.failures = 0
            self.phase = WAITING
            assert self.session.wait(self.now) == 0.0

    # --- What comes from elsewhere, at any time ---

    def close(self):
        self.session.close()
        self.phase = CLOSED
        self.expected = list(self.given)

    def restart(self):
        is_under_way = self.phase in (CONNECTING, OPEN)
        assert self.session.restart() == is_under_way
        if is_under_way:
            self.phase = DROPPED
        elif self.phase is WAITING:
            self.due = 0.0

    def let_time_pass(self, seconds):
        self.now += seconds

    def set_reconnection_time(self, seconds):
        self.session.set_reconnection_time(seconds)
        self.reconnection_time = seconds

    def resume_from(self, value):
        self.session.resume_from(value)
        self.resume_id = value

    # --- What is given ---

    def take(self):
        self.given += self.session.take()

    def iterate(self, count):
        self.given += itertools.islice(self.session.kept.rest, count)

    def begin_a_loop(self):
        self.loop = self.session.kept.rest

    def continue_the_loop(self):
        self.given += itertools.islice(self.loop, 1)

    # --- What holds at any time ---

    def check(self):
        session = self.session
        # Nothing is lost, and nothing comes twice.
        so_far = self.expected[: len(self.given)]
        assert self.given == so_far
        assert [*map(type, self.given)] == [*map(type, so_far)]
        assert session.has_items() == (len(self.given) < len(self.expected))
        assert session.phase is self.phase
        assert session.error is self.error
        assert session.resume_id == self.resume_id
        assert session.reconnection_time == self.reconnection_time
        wait = max(self.due - self.now, 0.0) if self.phase is WAITING else 0.0
        assert session.wait(self.now) == wait


MEANWHILE = st.sampled_from([*[None] * 15, "restart", "interrupt", "close"])
RANDOM = st.sampled_from([0.0, 0.5, 1.0])
RETRY_AFTER = st.sampled_from([None, 0.0, 10.0, 1e9])


def happens(method, *arguments, weight=1):
    return [st.tuples(st.just(method), *arguments)] * weight


HAPPENINGS = [
    *happens(Model.step, CHUNKS, SECONDS, MEANWHILE, weight=12),
    *happens(Model.lose, ERRORS, RANDOM, RETRY_AFTER, weight=4),
    *happens(Model.read_too_much, st.sampled_from([b"", b":\n", b"data: a\n\n"]), SECONDS),
    *happens(Model.abandon),
    *happens(Model.restart),
    *happens(Model.let_time_pass, SECONDS),
    *happens(Model.set_reconnection_time, st.sampled_from([0, 0.25, 7.0, 5000.0])),
    *happens(Model.resume_from, st.sampled_from(["", "8", "9"])),
    *happens(Model.take),
    *happens(Model.iterate, st.integers(1, 2)),
    *happens(Model.begin_a_loop),
    *happens(Model.continue_the_loop),
]
CLOSE = st.sampled_from([(Model.step, b":\n", 0.0, None)] * 15 + [(Model.close,)])
HISTORIES = st.integers(0, 50).flatmap(
    lambda n: st.lists(st.one_of(*HAPPENINGS, CLOSE), min_size=n, max_size=n)
)


@examples(600)
@given(
    policy=POLICIES,
    event_timeout=st.none() | st.sampled_from([0.125, 2.5, 60.0]),
    comments=st.booleans(),
    last_event_id=st.sampled_from(["", "0"]),
    history=HISTORIES,
)
def test_whatever_happens_the_rules_hold(policy, event_timeout, comments, last_event_id, history):
    model = Model(policy, event_timeout, comments, last_event_id)
    Meanwhile.action = lambda: None
    for method, *arguments in history:
        method(model, *arguments)
        model.check()
    model.take()
    assert model.given == model.expected
