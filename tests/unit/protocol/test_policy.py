"""When the next attempt comes: every sentence of the design on delays.

Times are seconds. Nothing here waits: the policy is arithmetic.
"""

from __future__ import annotations

import copy
import dataclasses
import math
import pickle
import time
from datetime import UTC, datetime
from http import HTTPStatus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventsource import ReconnectPolicy
from eventsource.protocol.policy import parse_retry_after
from tests.properties import examples


def waits(policy, reconnection_time, failures, *, random=0.0):
    return [policy.next_delay(reconnection_time, n, random=random) for n in failures]


# ---------------------------------------------------------------- the settings


def test_the_defaults_are_those_of_the_design():
    assert dataclasses.asdict(ReconnectPolicy()) == {
        "delay": 3.0,
        "min_delay": 0.0,
        "max_delay": 60.0,
        "factor": 2.0,
        "jitter": 0.1,
        "max_attempts": None,
        "stable_after": None,
        "statuses": frozenset(),
    }


def test_the_settings_may_be_given_in_the_documented_order():
    assert ReconnectPolicy(1, 0.5, 2, 3, 0.5, 4, 9, frozenset({429})) == ReconnectPolicy(
        delay=1,
        min_delay=0.5,
        max_delay=2,
        factor=3,
        jitter=0.5,
        max_attempts=4,
        stable_after=9,
        statuses=frozenset({429}),
    )


def test_the_limits_of_each_setting_are_valid():
    ReconnectPolicy(delay=0, max_delay=0, factor=1, jitter=0, max_attempts=1, statuses={100, 599})
    ReconnectPolicy(jitter=1, min_delay=0, stable_after=0)


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(ReconnectPolicy)])
def test_no_setting_of_a_policy_can_be_changed(field):
    policy = ReconnectPolicy()
    before = getattr(policy, field)
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(policy, field, 1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        delattr(policy, field)
    assert getattr(policy, field) == before


def test_policies_with_the_same_settings_are_equal_and_have_the_same_hash():
    assert len({ReconnectPolicy(statuses=[503]), ReconnectPolicy(statuses={503})}) == 1
    assert ReconnectPolicy(delay=1) != ReconnectPolicy(delay=2)


def test_a_policy_survives_copying_and_pickling():
    policy = ReconnectPolicy(delay=1, statuses={503})
    assert copy.deepcopy(policy) == policy
    assert pickle.loads(pickle.dumps(policy)) == policy  # noqa: S301 - our own bytes


@pytest.mark.parametrize("statuses", [{429, 503}, [429, 503, 429], (429, 503), iter([429, 503])])
def test_statuses_may_be_any_collection_and_become_a_frozen_set(statuses):
    policy = ReconnectPolicy(statuses=statuses)
    assert policy.statuses == {429, 503}
    assert type(policy.statuses) is frozenset


def test_statuses_may_be_members_of_http_status():
    assert 503 in ReconnectPolicy(statuses={HTTPStatus.SERVICE_UNAVAILABLE}).statuses


def test_changing_the_set_that_was_passed_does_not_change_the_policy():
    statuses = {429}
    policy = ReconnectPolicy(statuses=statuses)
    statuses.add(503)
    assert policy.statuses == {429}


NUMBERS = ["delay", "min_delay", "max_delay", "factor", "jitter", "stable_after"]


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("value", [True, False, "3", None, b"3", [3], 1j], ids=repr)
def test_a_number_that_is_none_is_a_type_error_that_names_it(name, value):
    if name == "stable_after" and value is None:
        return  # which it may be
    with pytest.raises(TypeError, match=rf"^{name} must be a number, not "):
        ReconnectPolicy(**{name: value})


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -1, -0.001], ids=repr)
def test_a_number_out_of_bounds_is_a_value_error_that_names_it(name, value):
    with pytest.raises(ValueError, match=rf"^{name} must be "):
        ReconnectPolicy(**{name: value})


@pytest.mark.parametrize("name", NUMBERS)
def test_an_int_too_large_for_a_float_is_a_value_error_that_names_it(name):
    with pytest.raises(ValueError, match=rf"^{name} must be "):
        ReconnectPolicy(**{name: 10**400})


def test_a_factor_below_one_is_refused():
    with pytest.raises(ValueError, match=r"^factor must be at least 1 "):
        ReconnectPolicy(factor=0.999)


def test_a_jitter_above_one_is_refused():
    with pytest.raises(ValueError, match=r"^jitter must be from 0 to 1 "):
        ReconnectPolicy(jitter=1.001)


@pytest.mark.parametrize("value", [True, False, "3", 3.0, math.nan, math.inf, [3]], ids=repr)
def test_max_attempts_that_is_no_int_is_a_type_error_that_names_it(value):
    with pytest.raises(TypeError, match=r"^max_attempts must be an int, not "):
        ReconnectPolicy(max_attempts=value)


@pytest.mark.parametrize("value", [0, -1])
def test_max_attempts_below_one_is_a_value_error_that_names_it(value):
    with pytest.raises(ValueError, match=r"^max_attempts must be at least 1, not "):
        ReconnectPolicy(max_attempts=value)


@pytest.mark.parametrize("value", [429, None, True, 1.5, [[429]]], ids=repr)
def test_statuses_that_are_no_collection_of_numbers_are_a_type_error_that_names_them(value):
    with pytest.raises(TypeError, match=r"^statuses must be a set of ints, not "):
        ReconnectPolicy(statuses=value)


@pytest.mark.parametrize(
    "value",
    [[99], [600], [0], [-429], [True], ["429"], "429", [429.0], [None], [math.nan], [429, "x"]],
    ids=repr,
)
def test_a_status_that_http_does_not_know_is_a_value_error_that_names_statuses(value):
    with pytest.raises(ValueError, match=r"^statuses must contain HTTP statuses, not "):
        ReconnectPolicy(statuses=value)


# ---------------------------------------------------------------- the reconnection time


def test_without_a_word_from_the_server_the_reconnection_time_is_the_policys_delay():
    assert ReconnectPolicy().reconnection_time(None) == 3.0
    assert ReconnectPolicy(delay=0.5).reconnection_time(None) == 0.5


@pytest.mark.parametrize("delay", [0, 0.001, 7200.0])
def test_the_bounds_are_for_servers_and_not_for_the_callers_own_delay(delay):
    assert ReconnectPolicy(delay=delay).reconnection_time(None) == delay


@pytest.mark.parametrize("from_server", [0.02, 0.021, 1.0, 3.0, 61.0, 3599.0, 3600.0])
def test_the_servers_reconnection_time_replaces_the_policys_delay(from_server):
    assert ReconnectPolicy(delay=5, max_delay=10).reconnection_time(from_server) == from_server


@pytest.mark.parametrize("from_server", [0.0, 0.001, 0.0199])
def test_the_servers_reconnection_time_is_at_least_20_milliseconds(from_server):
    assert ReconnectPolicy(delay=0).reconnection_time(from_server) == 0.02


@pytest.mark.parametrize("from_server", [3600.001, 86400.0, 1e300, math.inf])
def test_the_servers_reconnection_time_is_at_most_an_hour(from_server):
    assert ReconnectPolicy(max_delay=86400).reconnection_time(from_server) == 3600.0


# ---------------------------------------------------------------- the back-off


def test_after_a_connection_that_worked_the_wait_is_the_reconnection_time():
    assert ReconnectPolicy().next_delay(3.0, 0, random=0) == 3.0
    assert ReconnectPolicy(delay=9).next_delay(1.5, 0, random=0) == 1.5


def test_the_wait_after_the_first_failure_is_the_reconnection_time():
    assert ReconnectPolicy().next_delay(3.0, 1, random=0) == 3.0


def test_each_further_failure_doubles_the_wait_up_to_max_delay():
    assert waits(ReconnectPolicy(), 3.0, range(1, 9)) == [3, 6, 12, 24, 48, 60, 60, 60]


def test_each_further_failure_multiplies_the_wait_by_factor():
    policy = ReconnectPolicy(factor=3, max_delay=20)
    assert waits(policy, 1.0, range(1, 6)) == [1, 3, 9, 20, 20]


def test_with_factor_1_the_wait_does_not_grow():
    assert waits(ReconnectPolicy(factor=1), 3.0, [0, 1, 2, 100, 10**6]) == [3.0] * 5


def test_the_back_off_grows_from_the_servers_reconnection_time():
    assert waits(ReconnectPolicy(delay=30), 0.5, range(1, 5)) == [0.5, 1, 2, 4]


def test_the_back_off_grows_also_from_a_delay_of_nothing():
    assert waits(ReconnectPolicy(delay=0), 0, range(4)) == [0.02, 0.02, 0.04, 0.08]


def test_a_reconnection_time_above_max_delay_is_kept_and_does_not_grow():
    assert waits(ReconnectPolicy(max_delay=60), 300.0, [0, 1, 2, 3, 50]) == [300.0] * 5


def test_a_callers_delay_above_max_delay_is_kept():
    policy = ReconnectPolicy(delay=90, max_delay=60)
    assert waits(policy, policy.reconnection_time(None), [0, 1, 5]) == [90, 90, 90]


@pytest.mark.parametrize("factor", [1.0001, 2.0, 2, 10.0, 1e308])
@pytest.mark.parametrize("failures", [1_100, 10**6])
def test_the_back_off_does_not_overflow_however_many_failures(factor, failures):
    policy = ReconnectPolicy(factor=factor)
    expected = min(3.0 * math.exp(min((failures - 1) * math.log(factor), 700)), 60.0)
    assert policy.next_delay(3.0, failures, random=0) == pytest.approx(expected)


# ---------------------------------------------------------------- jitter


@pytest.mark.parametrize("failures", [0, 1, 3, 20])
def test_jitter_lengthens_a_wait_by_at_most_its_share(failures):
    policy = ReconnectPolicy(jitter=0.25)
    plain = policy.next_delay(4.0, failures, random=0)
    assert policy.next_delay(4.0, failures, random=0.5) == pytest.approx(plain * 1.125)
    assert policy.next_delay(4.0, failures, random=1) == pytest.approx(plain * 1.25)


def test_jitter_is_at_most_ten_percent_by_default():
    assert ReconnectPolicy().next_delay(3.0, 0, random=1) == pytest.approx(3.3)


def test_jitter_also_spreads_waits_at_max_delay():
    assert ReconnectPolicy().next_delay(3.0, 20, random=1) == pytest.approx(66.0)


def test_without_jitter_every_wait_is_exact():
    assert ReconnectPolicy(jitter=0).next_delay(3.0, 2, random=1) == 6.0


def test_jitter_only_lengthens_what_retry_after_asks_for():
    policy = ReconnectPolicy()
    assert policy.next_delay(3.0, 1, random=0, retry_after=120.0) == 120.0
    assert policy.next_delay(3.0, 1, random=1, retry_after=120.0) == pytest.approx(132.0)


# ---------------------------------------------------------------- Retry-After in the wait


def test_retry_after_lengthens_the_wait_also_above_max_delay():
    assert ReconnectPolicy(max_delay=60).next_delay(3.0, 1, random=0, retry_after=600.0) == 600.0


def test_retry_after_never_shortens_the_wait():
    policy = ReconnectPolicy()
    assert policy.next_delay(3.0, 0, random=0, retry_after=0.0) == 3.0
    assert policy.next_delay(3.0, 4, random=0, retry_after=5.0) == 24.0


@pytest.mark.parametrize("retry_after", [3600.001, 86400.0, math.inf])
def test_retry_after_is_at_most_an_hour(retry_after):
    assert ReconnectPolicy().next_delay(3.0, 1, random=0, retry_after=retry_after) == 3600.0


def test_retry_after_of_more_than_an_hour_does_not_shorten_the_callers_longer_delay():
    policy = ReconnectPolicy(delay=7200)
    assert policy.next_delay(7200, 1, random=0, retry_after=5000.0) == 7200


settings_of_policies = st.builds(
    ReconnectPolicy,
    delay=st.floats(0, 1e300),
    max_delay=st.floats(0, 1e300),
    factor=st.floats(1, 1e300) | st.sampled_from([1, 2]),
    jitter=st.floats(0, 1),
)


@examples(1000)
@given(
    policy=settings_of_policies,
    from_server=st.none() | st.floats(min_value=0, allow_nan=False),
    failures=st.integers(0, 50) | st.integers(0, 10**6),
    random=st.floats(0, 1),
    retry_after=st.none() | st.floats(min_value=0, allow_nan=False),
)
def test_a_wait_is_finite_and_never_shorter_than_the_reconnection_time(
    policy, from_server, failures, random, retry_after
):
    reconnection_time = policy.reconnection_time(from_server)
    wait = policy.next_delay(reconnection_time, failures, random=random, retry_after=retry_after)
    assert math.isfinite(wait)
    assert wait >= reconnection_time
    assert wait >= min(retry_after or 0.0, 3600.0)
    longest = max(0.02, reconnection_time, policy.max_delay, min(retry_after or 0.0, 3600.0))
    assert wait <= longest * (1 + policy.jitter)


@examples(300)
@given(policy=settings_of_policies, start=st.floats(0.02, 3600), failures=st.integers(0, 2000))
def test_one_more_failure_never_shortens_the_wait(policy, start, failures):
    first, second = waits(policy, start, [failures, failures + 1])
    assert second >= first


# ---------------------------------------------------------------- Retry-After as it is written

# The example date of RFC 9110, 5.6.7.
NOVEMBER_6 = datetime(1994, 11, 6, 8, 49, 37, tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("0", 0), ("1", 1), ("120", 120), ("007", 7), (" 120 ", 120), ("\t5", 5), ("999999", 999999)],
)
def test_retry_after_in_seconds(value, seconds):
    assert parse_retry_after(value, now=NOVEMBER_6) == seconds


def test_a_retry_after_of_thousands_of_digits_is_capped_like_any_other():
    seconds = parse_retry_after("9" * 5000, now=0.0)
    assert ReconnectPolicy().next_delay(3.0, 1, random=0, retry_after=seconds) == 3600.0


@pytest.mark.parametrize(
    "date",
    [
        pytest.param("Sun, 06 Nov 1994 08:49:37 GMT", id="IMF-fixdate"),
        pytest.param("Sunday, 06-Nov-94 08:49:37 GMT", id="RFC 850"),
        pytest.param("Sun Nov  6 08:49:37 1994", id="asctime"),
        pytest.param("Sun, 06 Nov 1994 08:49:37 -0000", id="-0000"),
        pytest.param("Sun, 06 Nov 1994 08:49:37 +0000", id="+0000"),
        pytest.param("Sun, 06 Nov 1994 10:49:37 +0200", id="+0200"),
        pytest.param("  Sun, 06 Nov 1994 08:49:37 GMT ", id="spaces"),
    ],
)
@pytest.mark.parametrize("seconds", [0.0, 90.0, 0.5, 86400.0])
def test_retry_after_as_a_date_is_the_time_until_then(date, seconds):
    assert parse_retry_after(date, now=NOVEMBER_6 - seconds) == seconds


@pytest.mark.skipif(not hasattr(time, "tzset"), reason="the time zone cannot be set here")
@pytest.mark.parametrize("zone", ["GMT", "-0000"])
def test_a_date_means_the_same_wherever_the_client_lives(zone, monkeypatch):
    monkeypatch.setenv("TZ", "XYZ+7")
    time.tzset()
    try:
        value = f"Sun, 06 Nov 1994 08:49:37 {zone}"
        assert parse_retry_after(value, now=NOVEMBER_6 - 90) == 90.0
    finally:
        monkeypatch.undo()
        time.tzset()


def test_a_date_in_the_past_is_no_wait():
    assert parse_retry_after("Sun, 06 Nov 1994 08:49:37 GMT", now=NOVEMBER_6 + 1) == 0.0


def test_a_date_far_ahead_makes_a_wait_of_an_hour():
    seconds = parse_retry_after("Fri, 31 Dec 9999 23:59:59 GMT", now=NOVEMBER_6)
    assert seconds > 3600
    assert ReconnectPolicy().next_delay(3.0, 1, random=0, retry_after=seconds) == 3600.0


@pytest.mark.parametrize(
    "value",
    [
        "",
        " ",
        "soon",
        "-1",
        "+1",
        "1.5",
        "1e3",
        "1_0",
        "0x10",
        "5 s",
        "٣",  # a digit, and not ASCII
        "²",
        "nan",
        "inf",
        "Sun, 31 Nov 1994 08:49:37 GMT",
        "Sun, 06 Nov 1994 25:49:37 GMT",
        "Sun, 06 Foo 1994 08:49:37 GMT",
        "Sun, 06 Nov 99999999999999999999 08:49:37 GMT",
        "\x00",
        "é",
    ],
    ids=ascii,
)
def test_a_retry_after_that_is_neither_form_is_ignored(value):
    assert parse_retry_after(value, now=NOVEMBER_6) is None


PARTS_OF_DATES = [
    *["Sun", "Sunday", ",", "06", "Nov", "1994", "94", "06-Nov-94", "0", "9" * 20],
    *["08:49:37", "08:49", "24:60:61", "am", "GMT", "EST", "-0000", "+9999", "-", "+", ":", "."],
    *["\x00", "٣", "é"],
]
DATE_LIKE = st.builds(
    str.join,
    st.sampled_from([" ", "", ", "]),
    st.lists(st.sampled_from(PARTS_OF_DATES) | st.text(max_size=3), max_size=9),
)


@examples(1000)
@given(value=DATE_LIKE | st.text(), now=st.floats(0, 1e11))
def test_whatever_a_server_sends_as_retry_after_is_seconds_or_ignored(value, now):
    seconds = parse_retry_after(value, now=now)
    assert seconds is None or seconds >= 0
