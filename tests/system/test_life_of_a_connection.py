"""The diagram in docs/life-of-a-connection.md: a source is taken along each of its arrows.

The arrows are read from the page. What drives a source along each is here; one without the
other fails.
"""

from __future__ import annotations

import contextlib
import queue
import re
import threading
from pathlib import Path
from typing import NamedTuple

import pytest

from eventsource import ErrorEvent, EventSource, EventStream, OpenEvent, ReadyState, ReconnectPolicy
from eventsource.testing import ScriptedServer
from tests.support import HEAD, LIMIT, Recorder, wait_until

PAGE = (Path(__file__).parents[2] / "docs" / "life-of-a-connection.md").read_text()
DIAGRAM = re.search(r"^```mermaid\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)[1]

NEVER = 3600
"""Seconds, of a wait that ends by something else."""


class Arrow(NamedTuple):
    start: str
    end: str
    cause: str
    event: str | None

    def __str__(self):
        return f"{self.start} --> {self.end} : {self.cause}"


ARROWS = [
    Arrow(start, end, *re.fullmatch(r"(.+?)(?: / (.+))?", cause).groups())
    for start, end, label in re.findall(r"^ *(\S+) --> (\S+) : (.+)$", DIAGRAM, re.MULTILINE)
    for cause in label.split("<br/>")
]
CONNECTING = re.search(r"state CONNECTING \{(.*?)\}", DIAGRAM, re.DOTALL)[1].split()
"""The situations within that state."""


def starts(arrow):
    """Where it starts: from a state that has situations within, in each of them."""
    return CONNECTING if arrow.start == "CONNECTING" else [arrow.start]


class Life:
    """A source and a server that does what it is told to."""

    def __init__(self, **options):
        self._orders = []  # a queue for each connection
        self._answered = 0  # requests that have been answered, or whose connection was cut
        self._is_over = False
        self.server = ScriptedServer(self._obey)
        self._auth = options.pop("auth", None)
        self._is_in_auth = False
        if self._auth is not None:
            options["auth"] = self._authorize
        self.recorder = Recorder()
        self.may_go_on = threading.Event()  # handlers wait for it
        self.may_go_on.set()
        self.exits = False  # and then leave by SystemExit
        policy = ReconnectPolicy(delay=NEVER, max_delay=NEVER, jitter=0.0, statuses={503})
        options = {"reconnect": policy, **options}
        self.source = EventSource(self.server.url, start=False, **options)
        for event_type in ("open", "message", "error", "price"):
            self.source.on(event_type, self._handle)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.may_go_on.set()
        self.source.close()
        self._is_over = True
        for orders in self._orders:
            orders.put(None)
        with contextlib.closing(self.server):
            assert self.source.join(LIMIT)

    def _obey(self, connection):
        """The script of each connection: send what is ordered; None: close."""
        orders = queue.SimpleQueue()
        self._orders.append(orders)
        if self._is_over:
            return
        connection.read_request()
        while (data := orders.get()) is not None:
            connection.send(data)

    def _authorize(self, request):
        self._is_in_auth = True
        return self._auth(request)

    def _handle(self, event):
        self.recorder(event)
        assert self.may_go_on.wait(LIMIT)
        if self.exits:
            raise SystemExit

    def answer(self, data):
        self._answered = len(self.server.requests)
        self._orders[-1].put(data)

    def refuse(self, status):
        self.answer(b"HTTP/1.1 %s\r\nContent-Length: 0\r\n\r\n" % status)

    def cut(self):
        self.answer(None)

    @property
    def is_attempting(self):
        """Whether a request waits for its answer, or is being prepared."""
        return self._is_in_auth or len(self.server.requests) > self._answered

    @property
    def situation(self):
        if self.source.ready_state is not ReadyState.CONNECTING:
            return self.source.ready_state.name
        if self.source.join(0):  # there is no thread yet
            return "idle"
        return "connecting" if self.is_attempting else "waiting"

    def reach(self, where):
        """Bring the source there."""
        if where in ("connecting", "waiting", "OPEN"):
            self.source.start()
            if self._auth is None:
                self.server.wait_for_request()
        if where == "OPEN":
            self.answer(HEAD)
            assert isinstance(self.recorder.next(), OpenEvent)
        elif where == "waiting":
            self.refuse(b"503 Busy")
            assert isinstance(self.recorder.next(), ErrorEvent)
        elif where == "CLOSED":
            self.source.close()
        wait_until(lambda: self.situation == where, where)
        self.attempts = len(self.server.requests)

    def has_arrived(self, arrow):
        """Wait until it is where the arrow ends."""
        if arrow.event is not None:
            event = self.recorder.next()
            if isinstance(event, ErrorEvent):
                assert event.ready_state.name == ready_state_of(arrow.end)
                assert (event.retry_in is None) == (arrow.end == "CLOSED")
        if arrow.end == "connecting":  # by an attempt of its own, and not the one before
            self.server.wait_for_request(self.attempts + 1)
        if arrow.end == "[*]":
            assert self.source.join(LIMIT)
        else:
            wait_until(lambda: self.situation == arrow.end, str(arrow))
            assert self.source.ready_state.name == ready_state_of(arrow.end)


def ready_state_of(where):
    return "CONNECTING" if where in CONNECTING else where


class Drive(NamedTuple):
    """How to take a source along an arrow."""

    cause: object
    """Called with a `Life` that is where the arrow starts."""
    options: dict
    """Of the source."""
    is_held: bool
    """The handler of the event that came last waits, and with it the reader."""


DRIVES = {}


def drives(start, end, cause, event=None, *, is_held=False, **options):
    def register(function):
        DRIVES[Arrow(start, end, cause, event)] = Drive(function, options, is_held)
        return function

    return register


@drives("idle", "connecting", "start() or next()")
def start(life):
    life.source.start()


@drives("connecting", "connecting", "restart()")
@drives("waiting", "connecting", "restart()")
@drives("OPEN", "connecting", "restart()")
def restart(life):
    life.source.restart()


@drives("connecting", "waiting", "attempt failed", "error")
def fail_the_attempt(life):
    life.refuse(b"503 Busy")


SOON = ReconnectPolicy(delay=0.02, statuses={503})


@drives("waiting", "connecting", "wait is over", is_held=True, reconnect=SOON)
def wait(life):
    life.may_go_on.set()


@drives("connecting", "OPEN", "accepted", "open")
def accept(life):
    life.answer(HEAD)


@drives("OPEN", "OPEN", "event", "its name")
def send_an_event(life):
    life.answer(b"event: price\ndata: 1\n\n")


@drives("OPEN", "waiting", "connection lost", "error")
def lose_the_connection(life):
    life.cut()


@drives("connecting", "CLOSED", "final failure", "error")
def refuse_for_good(life):
    life.refuse(b"204 No Content")


@drives("OPEN", "CLOSED", "final failure", "error", max_event_size=10)
def send_too_much(life):
    life.answer(b"data: 12345678901\n\n")


auth_may_go_on = threading.Event()


def exit_when_told(_):
    assert auth_may_go_on.wait(LIMIT)
    raise SystemExit


@drives("connecting", "CLOSED", "cannot go on", auth=exit_when_told)
def exit_in_auth(_):
    auth_may_go_on.set()


@drives("waiting", "CLOSED", "cannot go on", is_held=True)
@drives("OPEN", "CLOSED", "cannot go on", is_held=True)
def exit_in_the_handler(life):
    life.exits = True
    life.may_go_on.set()


@drives("CONNECTING", "CLOSED", "close()")
@drives("OPEN", "CLOSED", "close()")
def close(life):
    life.source.close()


@drives("CLOSED", "[*]", "reader thread ends")
def end(life):
    """It does so by itself."""


# Those of another kind: the first has a test below, the others have theirs in `test_life_cycle.py`.
OTHERS = {
    Arrow("[*]", "idle", "constructor", None),
    Arrow("connecting", "idle", "Ctrl-C", None),
    Arrow("OPEN", "idle", "Ctrl-C", None),
    Arrow("CONNECTING", "CLOSED", "fork", None),
    Arrow("OPEN", "CLOSED", "fork", None),
}


def test_each_arrow_of_the_diagram_is_driven_and_there_are_no_others():
    assert len({(start, end) for start, end, _, _ in ARROWS}) == DIAGRAM.count("-->")
    assert len(set(ARROWS)) == len(ARROWS)
    assert {*ARROWS} == {*DRIVES, *OTHERS}


def test_the_states_of_the_diagram_are_the_ready_states():
    places = {place for arrow in ARROWS for place in (arrow.start, arrow.end)}
    assert places - {"[*]"} == {state.name for state in ReadyState} | {*CONNECTING}


def test_the_tables_of_the_page_are_of_the_diagram():
    lines = re.findall(r"^\|(.*)\|$", PAGE, re.MULTILINE)
    rows = [[cell.strip() for cell in line.split("|")] for line in lines]
    first, second = (
        rows[rows.index(title) + 2 :]
        for title in (["state", "sub-state", "what happens"], ["cause", "what it is", "event"])
    )
    first = first[: -len(second) - 2]
    inner = [("`CONNECTING`", situation) for situation in CONNECTING]
    assert [(state, within) for state, within, _ in first] == [
        *inner,
        ("`OPEN`", ""),
        ("`CLOSED`", ""),
    ]
    causes = {(cause, re.split("[:,]", event)[0].strip("`") or None) for cause, _, event in second}
    assert len(causes) == len(second)
    assert causes == {(arrow.cause, arrow.event) for arrow in ARROWS}


DRIVEN = [
    pytest.param(arrow, start, id=f"{arrow}" if start == arrow.start else f"{start}, {arrow}")
    for arrow in ARROWS
    if arrow in DRIVES
    for start in starts(arrow)
]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize(("arrow", "start"), DRIVEN)
def test_a_source_goes_where_the_arrow_points_and_fires_what_stands_on_it(arrow, start):
    drive = DRIVES[arrow]
    auth_may_go_on.clear()
    with Life(**drive.options) as life:
        if arrow.end == "[*]":
            life.reach("OPEN")
        if drive.is_held:
            life.may_go_on.clear()
        life.reach(start)
        before = len(life.recorder.events)
        drive.cause(life)
        life.has_arrived(arrow)
    fired = [event.type for event in life.recorder.events[before:]]
    assert fired == {None: [], "its name": ["price"]}.get(arrow.event, [arrow.event])


def test_a_source_that_is_not_started_and_a_stream_that_is_not_iterated_over_are_idle():
    with Life() as life:
        assert life.situation == "idle"
        assert life.source.ready_state is ReadyState.CONNECTING
        with EventStream(life.server.url) as stream:
            assert stream.ready_state is ReadyState.CONNECTING
        assert life.server.connections == []
