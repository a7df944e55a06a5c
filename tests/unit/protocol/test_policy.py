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
    values = (1, 0.5, 2, 3, 0.5, 4, 9, frozenset({429}))
    assert dataclasses.astuple(ReconnectPolicy(*values)) == values


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


@pytest.mark.parametrize(
    "statuses",
    [{429, 503}, [429, 503, 429], (429, HTTPStatus.SERVICE_UNAVAILABLE), iter([429, 503])],
)
def test_statuses_may_be_any_collection_and_become_a_frozen_set(statuses):
    policy = ReconnectPolicy(statuses=statuses)
    assert policy.statuses == {429, 503}
    assert type(policy.statuses) is frozenset


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
@pytest.mark.parametrize(
    "value", [math.nan, math.inf, -math.inf, -1, -0.001, 10**400], ids=lambda value: repr(value)[:9]
)
def test_a_number_out_of_bounds_is_a_value_error_that_names_it(name, value):
    with pytest.raises(ValueError, match=rf"^{name} must be "):
        ReconnectPolicy(**{name: value})


@pytest.mark.parametrize(
    ("setting", "bounds"),
    [
        ({"factor": 0.999}, "factor must be at least 1 "),
        ({"jitter": 1.001}, "jitter must be from 0 to 1 "),
    ],
)
def test_a_factor_below_one_and_a_jitter_above_it_are_refused(setting, bounds):
    with pytest.raises(ValueError, match=f"^{bounds}"):
        ReconnectPolicy(**setting)


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


@pytest.mark.parametrize(
    ("settings", "from_server", "seconds"),
    [
        pytest.param({}, None, 3.0, id="the policy's delay"),
        # The bounds are for servers and not for the caller's own delay.
        *(({"delay": delay}, None, delay) for delay in (0, 0.001, 0.5, 7200.0)),
        # The server's takes the place of the policy's,
        *(({"delay": 5, "max_delay": 10}, own, own) for own in (0.02, 0.021, 3.0, 61.0, 3600.0)),
        # if it is at least 20 milliseconds and at most an hour.
        *(({"delay": 0}, least, 0.02) for least in (0.0, 0.001, 0.0199)),
        *(({"max_delay": 86400}, most, 3600.0) for most in (3600.001, 1e300, math.inf)),
    ],
)
def test_the_reconnection_time_is_the_servers_within_bounds_else_the_policys_delay(
    settings, from_server, seconds
):
    assert ReconnectPolicy(**settings).reconnection_time(from_server) == seconds


# ---------------------------------------------------------------- the back-off


@pytest.mark.parametrize(
    ("settings", "reconnection_time", "failures", "expected"),
    [
        pytest.param(
            {}, 3.0, range(9), [3, 3, 6, 12, 24, 48, 60, 60, 60], id="doubled up to a bound"
        ),
        pytest.param(
            {"factor": 3, "max_delay": 20}, 1.0, range(1, 6), [1, 3, 9, 20, 20], id="by factor"
        ),
        pytest.param({"factor": 1}, 3.0, [0, 1, 2, 100, 10**6], [3.0] * 5, id="factor 1"),
        pytest.param(
            {"delay": 30}, 0.5, range(5), [0.5, 0.5, 1, 2, 4], id="from the server's time"
        ),
        pytest.param({"delay": 0}, 0, range(4), [0.02, 0.02, 0.04, 0.08], id="from nothing"),
        pytest.param({}, 300.0, [0, 1, 2, 3, 50], [300.0] * 5, id="kept above the bound"),
        pytest.param({"delay": 90}, 90, [0, 1, 5], [90] * 3, id="the caller's above the bound"),
    ],
)
def test_each_failure_after_the_first_multiplies_the_wait(
    settings, reconnection_time, failures, expected
):
    assert waits(ReconnectPolicy(**settings), reconnection_time, failures) == expected


@pytest.mark.parametrize("factor", [1.0001, 2.0, 2, 10.0, 1e308])
@pytest.mark.parametrize("failures", [1_100, 10**6])
def test_the_back_off_does_not_overflow_however_many_failures(factor, failures):
    policy = ReconnectPolicy(factor=factor)
    expected = min(3.0 * math.exp(min((failures - 1) * math.log(factor), 700)), 60.0)
    assert policy.next_delay(3.0, failures, random=0) == pytest.approx(expected)


# ---------------------------------------------------------------- jitter and Retry-After


@pytest.mark.parametrize("failures", [0, 1, 3, 20])
@pytest.mark.parametrize("retry_after", [None, 120.0])
def test_jitter_lengthens_a_wait_by_at_most_its_share(failures, retry_after):
    def wait(jitter, random):
        policy = ReconnectPolicy(jitter=jitter)
        return policy.next_delay(4.0, failures, random=random, retry_after=retry_after)

    plain = wait(0, 1)
    assert plain >= 4.0
    for random in (0, 0.5, 1):
        assert wait(0.25, random) == pytest.approx(plain * (1 + random / 4))


@pytest.mark.parametrize(
    ("settings", "reconnection_time", "failures", "retry_after", "wait"),
    [
        pytest.param({"max_delay": 60}, 3.0, 1, 600.0, 600.0, id="longer, above max_delay too"),
        pytest.param({}, 3.0, 0, 0.0, 3.0, id="never shorter"),
        pytest.param({}, 3.0, 4, 5.0, 24.0, id="never shorter than the back-off"),
        *(({}, 3.0, 1, most, 3600.0) for most in (3600.001, 86400.0, math.inf)),
        pytest.param({"delay": 7200}, 7200, 1, 5000.0, 7200, id="nor than the caller's delay"),
    ],
)
def test_retry_after_lengthens_the_wait_up_to_an_hour(
    settings, reconnection_time, failures, retry_after, wait
):
    policy = ReconnectPolicy(**settings)
    found = policy.next_delay(reconnection_time, failures, random=0, retry_after=retry_after)
    assert found == wait


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


@pytest.mark.parametrize(
    "date",
    [
        *("Sun, 06 Nov 1994 08:49:37 GMT", "  Sun, 06 Nov 1994 08:49:37 GMT "),
        *("Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"),  # RFC 850's, asctime's
        *("Sun, 06 Nov 1994 08:49:37 -0000", "Sun, 06 Nov 1994 08:49:37 +0000"),
        "Sun, 06 Nov 1994 10:49:37 +0200",
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


@pytest.mark.parametrize(
    ("value", "wait"),
    [
        ("9" * 5000, 3600.0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 3600.0),
        ("Sun, 06 Nov 1994 08:49:36 GMT", 3.0),  # in the past
    ],
    ids=["thousands of digits", "far ahead", "past"],
)
def test_a_retry_after_makes_a_wait_of_an_hour_at_most(value, wait):
    seconds = parse_retry_after(value, now=NOVEMBER_6)
    assert ReconnectPolicy().next_delay(3.0, 1, random=0, retry_after=seconds) == wait
    assert seconds >= 0


@pytest.mark.parametrize(
    "value",
    [
        *("", " ", "soon", "-1", "+1", "1.5", "1e3", "1_0", "0x10", "5 s", "nan", "inf"),
        *("٣", "²", "\x00", "é"),  # the first two are digits, and not ASCII
        *("Sun, 31 Nov 1994 08:49:37 GMT", "Sun, 06 Nov 1994 25:49:37 GMT"),
        *("Sun, 06 Foo 1994 08:49:37 GMT", "Sun, 06 Nov 99999999999999999999 08:49:37 GMT"),
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
