"""Each cell of the table in docs/comparison.md is what is observed, here and now.

This package is asked always, and those peers that are installed (`tests/peers/`). With
`EVENTSOURCE_PEERS=all` in the environment, what is missing fails. How to install them is on
the page.
"""

from __future__ import annotations

import os
import sys

import pytest

from tests.peers import page
from tests.peers.clients import OURS, PEERS, version
from tests.peers.observe import observe_all
from tests.peers.page import Page
from tests.peers.probes import PROBES
from tests.peers.reading import PATIENCE
from tests.peers.rows import FAILED, LEFT, NO, PARTLY, UNKNOWN, YES, Verdict, together

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="looks into Linux's /proc"),
    pytest.mark.timeout(400),
]

ALL_REQUIRED = os.environ.get("EVENTSOURCE_PEERS") == "all"
ASKED = [peer for peer in PEERS if ALL_REQUIRED or version(peer.name) is not None]
NO_PEER = pytest.param(None, marks=pytest.mark.skip(reason="no peer is installed (extra `bench`)"))


@pytest.fixture(scope="module")
def observed():
    """Verdicts by client and probe, of all that are installed, asked at the same time."""
    return observe_all(client.name for client in (OURS, *ASKED) if version(client.name))


@pytest.fixture(scope="module")
def said():
    return page.read()


def differences(client, said, found):
    """What the page says of a client and what was observed, by probe, where they differ."""
    column = said.column(client)
    return {
        name: (column[name], verdict)
        for name, verdict in found.items()
        if verdict != column[name] and (ALL_REQUIRED or verdict.mark != UNKNOWN)
    }


def check(client, said, observed):
    installed = version(client.name)
    assert installed is not None, f"{client.name} is not installed"
    written = said.versions.get(client.name, installed)  # of this package no version is named
    assert installed.split(".")[:2] == written.split(".")[:2], (
        f"the page is about {client.name} {written}, and {installed} is installed: "
        "see what has changed, by `python -m tests.peers --write`"
    )
    if wrong := differences(client, said, observed[client.name]):
        # A machine that is busy may have taken something for missing that was late.
        again = observe_all([client.name], only=wrong, patience=3 * PATIENCE)
        wrong = differences(client, said, again[client.name])
    if wrong:
        lines = [f"  {name}: {was}, {now}" for name, (was, now) in wrong.items()]
        pytest.fail(
            f"{client.name} {installed}; the page says, and observed was:\n" + "\n".join(lines),
            pytrace=False,
        )


def test_the_column_of_this_package_is_what_is_observed(said, observed):
    check(OURS, said, observed)


@pytest.mark.parametrize("peer", ASKED or [NO_PEER], ids=lambda peer: peer.name if peer else "none")
def test_the_column_of_a_peer_is_what_is_observed(peer, said, observed):
    check(peer, said, observed)


def test_the_page_has_the_rows_that_are_asked_and_no_others(said):
    assert said.rows == [(probe.group, probe.title) for probe in PROBES]
    assert said.questions == [(probe.title, probe.name, probe.question) for probe in PROBES]
    assert list(said.versions) == [peer.name for peer in PEERS]


def test_the_versions_to_install_are_those_of_the_page(said):
    assert page.VERSIONS.read_text(encoding="utf-8") == page.constraints(said.versions)


def test_each_note_of_the_page_is_referred_to_and_each_part_has_one(said):
    assert list(said.notes) == list(dict.fromkeys(said.references))
    assert [
        where for where, (mark, note) in said.cells.items() if mark == PARTLY and not note
    ] == []


def test_the_rows_where_a_peer_is_better_are_told_of_before_the_table(said):
    text = " ".join(page.PATH.read_text(encoding="utf-8").partition(page.BEGIN)[0].split())
    rank = {YES: 2, PARTLY: 1, NO: 0}
    for probe in PROBES:
        ours, *theirs = (
            rank.get(said.column(client)[probe.name].mark) for client in (OURS, *PEERS)
        )
        if ours is not None and any(rank is not None and rank > ours for rank in theirs):
            assert f"**{probe.title}**" in text


def test_a_probe_that_failed_is_no_verdict():
    failed = Verdict(FAILED, "Traceback: ...")
    assert together({"A": Verdict(YES), "B": failed}) == failed


def test_a_page_that_is_written_is_read_back():
    marks = [Verdict(YES), Verdict(NO), Verdict(LEFT), Verdict("7"), Verdict(PARTLY, "a `note`")]
    observed = {
        client.name: {
            probe.name: marks[(row + column) % len(marks)] for row, probe in enumerate(PROBES)
        }
        for column, client in enumerate((OURS, *PEERS))
    }
    versions = {peer.name: f"1.{n}.0" for n, peer in enumerate(PEERS)}
    text = f"{page.BEGIN}\n{page.written(observed, versions, '3.13.0')}\n{page.END}"
    found = Page(text)
    assert {client.name: found.column(client) for client in (OURS, *PEERS)} == observed
    assert found.versions == versions


def test_ways_that_differ_are_told_apart():
    assert together({"A": Verdict(YES), "B": Verdict(YES)}) == Verdict(YES)
    assert together({"A": Verdict(NO, "why"), "B": Verdict(NO)}) == Verdict(NO, "why")
    assert together({"A": Verdict(NO), "B": Verdict(YES), "C": Verdict(NO)}) == Verdict(
        PARTLY, "B: yes; A, C: no"
    )
    assert together({"A": Verdict(PARTLY, "why"), "B": Verdict(LEFT)}) == Verdict(
        PARTLY, "A: in part (why); B: does not arise"
    )


def test_each_row_says_what_it_asks():
    assert [probe.title for probe in PROBES if not probe.question] == []
    assert len({probe.title for probe in PROBES}) == len(PROBES)
    assert len({probe.name for probe in PROBES}) == len(PROBES)
