"""When to reconnect: the settings of the policy and the computation of the next delay.

Sans-I/O: the time of day and random numbers are arguments. All times are in seconds.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import math
from collections.abc import Collection, Mapping
from email.utils import parsedate_to_datetime
from typing import Final

from eventsource.errors import (
    FUTILE,
    EventTooLarge,
    HeadTooLarge,
    UnexpectedContentType,
    UnexpectedStatus,
)

MIN_RECONNECTION_TIME: Final = 0.02
"""The shortest wait, so that neither `retry: 0` nor `delay=0` causes a busy loop."""
MAX_RECONNECTION_TIME: Final = 3600.0
"""The longest wait that a server can ask for: a mistake in a `retry` field or a
`Retry-After` must not silence a client for days."""
BRIEF: Final = 1.0
"""Seconds. A connection that brought no event and ended sooner counts as a failed attempt.
So a server that opens and closes is asked at most once a second."""


@dataclasses.dataclass(frozen=True, slots=True)
class ReconnectPolicy:
    """When the client reconnects, and when it gives up.

    There is a method for each of the two decisions: `is_final` and `next_delay`. A subclass
    may override either, and need not be a dataclass. The reader thread calls them, once for
    each `ErrorEvent`; no lock is held then. An exception from them ends the iteration, and
    closes an `EventSource`.

    Args:
        delay: the reconnection time in seconds, until the server sets another with a
            `retry` field. The HTML standard suggests a few seconds.
        min_delay: the shortest wait in seconds, even if the server's `retry` is shorter. It
            may be longer than `delay`.
        max_delay: the longest back-off in seconds. A longer `delay`, or a longer wait that
            the server asks for, is used as it is.
        factor: each further failure in a row multiplies the wait by this.
        jitter: each wait is lengthened by a random part of it, up to this share, so that
            many clients do not reconnect at the same moment.
        max_attempts: close for good after this many attempts in a row without
            success; None: never.
        stable_after: a connection counts as a success, and resets the count of failures, if
            it was open for this many seconds, whether or not an event came. None: if it
            brought an event or was open for a second.
        statuses: HTTP statuses after which the client tries again, such as 429 or 503.
            Every other status except 200 closes the source for good. 200 stands for answers
            that are not an event stream, such as the login page with which a hotel's
            network answers every request until the user has logged in.

    Raises:
        TypeError, ValueError: a setting makes no sense; the message names it.
    """

    delay: float = 3.0
    min_delay: float = 0.0
    max_delay: float = 60.0
    factor: float = 2.0
    jitter: float = 0.1
    max_attempts: int | None = None
    stable_after: float | None = None
    statuses: Collection[int] = frozenset()

    def __post_init__(self) -> None:
        check_number("delay", self.delay, 0)
        check_number("min_delay", self.min_delay, 0)
        check_number("max_delay", self.max_delay, 0)
        check_number("factor", self.factor, 1)
        check_number("jitter", self.jitter, 0, 1)
        if self.max_attempts is not None:
            check_whole_number("max_attempts", self.max_attempts, 1)
        if self.stable_after is not None:
            check_number("stable_after", self.stable_after, 0)
        try:
            statuses = frozenset(self.statuses)
        except TypeError:
            raise TypeError(f"statuses must be a set of ints, not {self.statuses!r}") from None
        for status in statuses:
            if not isinstance(status, int) or not 100 <= status <= 599:
                raise ValueError(f"statuses must contain HTTP statuses, not {status!r}")
        object.__setattr__(self, "statuses", statuses)

    def is_final(self, error: Exception, failures: int) -> bool:
        """Decide whether the stream closes for good after `error`.

        Args:
            error: the failure.
            failures: the number of attempts in a row without success, including this one; 0 if
                the lost connection had been a success.
        """
        if isinstance(error, (*FUTILE, EventTooLarge, HeadTooLarge)):
            return True
        if isinstance(error, UnexpectedStatus) and error.status not in self.statuses:
            return True
        if isinstance(error, UnexpectedContentType) and 200 not in self.statuses:
            return True
        return self.max_attempts is not None and failures >= self.max_attempts

    def reconnection_time(self, from_server: float | None) -> float:
        """The reconnection time: the server's, within bounds, else `delay`.

        Args:
            from_server: the stream's last `retry` field, in seconds, or None.
        """
        if from_server is None:
            return self.delay
        return min(max(from_server, MIN_RECONNECTION_TIME), MAX_RECONNECTION_TIME)

    def next_delay(
        self,
        reconnection_time: float,
        failures: int,
        *,
        random: float,
        retry_after: float | None = None,
    ) -> float:
        """Decide how long to wait before the next attempt.

        Args:
            reconnection_time: the result of `reconnection_time()`.
            failures: the number of attempts in a row without success; 0 after a connection
                that was a success.
            random: a random number from 0 to 1, for the jitter.
            retry_after: the wait that the server's `Retry-After` asks for, in seconds. It
                can only lengthen the wait.

        Returns:
            Seconds, at least 0. The result of an override is not bounded further.
        """
        first = wait = max(reconnection_time, self.min_delay, MIN_RECONNECTION_TIME)
        if failures:
            try:
                grown = first * float(self.factor) ** (failures - 1)
            except OverflowError:
                grown = math.inf
            wait = max(wait, min(grown, self.max_delay))
        if retry_after is not None:
            wait = max(wait, min(retry_after, MAX_RECONNECTION_TIME))
        return wait * (1 + self.jitter * random)


def retry_after(headers: Mapping[str, str], *, now: float) -> float | None:
    """Return the seconds that a response asks the client to wait; None if it does not.

    Args:
        headers: its header fields. A date is compared with the server's own clock, if the
            fields have the time, because the local clock may be wrong.
        now: the local time, as seconds since the epoch.
    """
    value = headers.get("Retry-After")
    if value is None:
        return None
    server_now = parse_retry_after(headers.get("Date", ""), now=0.0)
    return parse_retry_after(value, now=now if server_now is None else server_now)


def parse_retry_after(value: str, *, now: float) -> float | None:
    """Return the seconds that a `Retry-After` field asks for (RFC 9110, 10.2.3).

    Args:
        value: the field's value: seconds, or an HTTP date.
        now: the time to subtract from a date, as seconds since the epoch.

    Returns:
        At least 0; None if the value has neither form.
    """
    value = value.strip()
    if value.isascii() and value.isdigit():
        return float(value)
    try:
        date = parsedate_to_datetime(value)
        if date.tzinfo is None:  # an offset of "-0000"
            date = date.replace(tzinfo=dt.UTC)
        return max(date.timestamp() - now, 0.0)
    except (ValueError, OverflowError):
        return None


def check_number(name: str, value: object, least: float, most: float = math.inf) -> None:
    """Refuse a value that is not a finite number from `least` to `most`, naming the argument."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be a number, not {value!r}")
    try:
        finite = math.isfinite(value)
    except OverflowError:  # an int beyond all floats
        finite = False
    if not finite or not least <= value <= most:
        bounds = f"at least {least}" if most == math.inf else f"from {least} to {most}"
        raise ValueError(f"{name} must be {bounds} and finite, not {value!r}")


def check_whole_number(name: str, value: object, least: int) -> None:
    """Refuse a value that is not an int of at least `least`, naming the argument."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int, not {value!r}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, not {value!r}")


DEFAULT_POLICY: Final = ReconnectPolicy()
"""The policy if the caller passes none. It is compared by identity: only a policy that the
caller passes allows a POST to be repeated."""
