"""The promises about threads, each kept for a moment; `python -m tests.stress` is the long run."""

from __future__ import annotations

import logging
import random
import re
import sys

import pytest

from tests import stress
from tests.stress import PROMISES, Tally, quick_switches


@pytest.mark.parametrize("name", PROMISES)
def test_each_promise_about_threads_is_kept_by_eight_at_once(name):
    tally = Tally()
    with quick_switches():
        PROMISES[name](2000, random.Random(), tally)
    assert tally.total() > 0


def test_the_long_run_says_how_many_operations_it_has_made(monkeypatch, capsys):
    """Not how many it was told to make: a look-up takes long."""
    monkeypatch.setattr(logging, "disable", lambda _: None)
    name = "each_question_to_the_resolver_is_answered"
    monkeypatch.setattr(sys, "argv", ["stress", "--operations", "2400", name])
    stress.main()
    assert re.search(
        rf"^{name}: kept, 24 operations, \d+ s$", capsys.readouterr().out, re.MULTILINE
    )
