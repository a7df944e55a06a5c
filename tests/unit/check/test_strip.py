"""The strip of time."""

from __future__ import annotations

from eventsource.cli.check.strip import CELLS, Mark, Strip


def test_a_sign_stands_for_what_came_in_its_part_of_the_watch():
    strip = Strip(CELLS, is_unicode=True)
    for at, mark in ((0.5, Mark.EVENT), (2.1, Mark.COMMENT), (3.9, Mark.BYTES), (4.0, Mark.LOSS)):
        strip.mark(at, mark)
    assert strip.draw(5.5).plain == "█·:-✗·"
    assert len(strip.draw(10 * CELLS)) == CELLS


def test_of_several_the_most_important_is_shown_whatever_the_order():
    strip = Strip(CELLS, is_unicode=False)
    for mark in (Mark.COMMENT, Mark.EVENT, Mark.BYTES):
        strip.mark(0.5, mark)
    assert strip.draw(0.9).plain == "#"
    strip.mark(0.6, Mark.LOSS)
    strip.mark(0.7, Mark.EVENT)
    assert strip.draw(1.5).plain == "x."


def test_it_is_ascii_where_a_terminal_has_no_more_and_says_what_it_shows():
    strip = Strip(1, is_unicode=False)
    strip.mark(-1.0, Mark.EVENT)
    strip.mark(99.0, Mark.LOSS)
    assert (strip.draw(1.0).plain + strip.legend().plain).isascii()
    assert strip.draw(1.0).plain == "#" + "." * (CELLS - 2) + "x"
    assert "x lost" in strip.legend().plain
