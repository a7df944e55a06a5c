"""The long run of relays notices what it is there to notice."""

from __future__ import annotations

import pytest

pytest.importorskip("redis")

from tests.relay.soak import faults_of, too_late


@pytest.mark.parametrize(
    ("numbers", "wrong"),
    [
        ([1, 2, 3], []),
        ([1, 3], ["1 lost"]),
        ([1, 2, 2, 3], ["1 twice or more"]),
        ([1, 3, 2], ["1 out of order"]),
        ([1, 2, 3, 4], ["1 never sent"]),
        ([], ["3 lost"]),
    ],
)
def test_what_is_wrong_with_a_log_is_said(numbers, wrong):
    assert faults_of(numbers, 3) == wrong


def test_take_overs_that_come_too_late_are_wrong():
    assert too_late([0.1, 0.8, 1.7]) == []
    assert too_late([0.1, 1.9, 3.0]) == ["2 take-overs of more than 1.8 s"]
