"""The promises about threads, each kept for a moment; `python -m tests.stress` is the long run."""

from __future__ import annotations

import random

import pytest

from tests.stress import PROMISES, quick_switches


@pytest.mark.parametrize("name", PROMISES)
def test_each_promise_about_threads_is_kept_by_eight_at_once(name):
    with quick_switches():
        PROMISES[name](2000, random.Random())
