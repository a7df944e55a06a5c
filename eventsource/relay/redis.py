"""`RedisStream`: a log that is a stream of Redis, written by one script for each read.

A script is atomic in Redis: it compares the owner, the place and the count with those that this
sink knows, adds the events, and writes the place last. The count is the number of events stored
so far; it also changes with a batch that does not change the place.

The client does not retry: a call whose reply is lost is a failure like any other. If something
in between retries, the second call finds another count or place, and is refused.
"""

from __future__ import annotations

import contextlib
import logging
import re
import secrets
from collections.abc import Sequence
from typing import Any, Final

from eventsource.errors import EventSourceError
from eventsource.protocol.events import MessageEvent
from eventsource.protocol.policy import check_number, check_whole_number
from eventsource.urls import brief

from .sink import PlaceLost, Superseded

try:
    import redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry
except ModuleNotFoundError as error:
    if error.name != "redis":
        raise
    raise ImportError("RedisStream needs redis: python -m pip install redis") from None

logger = logging.getLogger(__name__)

FAREWELL_SECONDS: Final = 1.0
"""The most seconds that `close()` waits for a reply."""

_CLAIM: Final = """
local state = redis.call('HMGET', KEYS[2], 'place', 'count')
if not state[2] and redis.call('EXISTS', KEYS[1]) == 1 then
    local info = redis.call('XINFO', 'STREAM', KEYS[1])
    for i = 1, #info, 2 do
        -- '0-0': no entry was ever added, as after XGROUP CREATE … MKSTREAM
        if info[i] == 'last-generated-id' and info[i + 1] ~= '0-0' then return 'lost' end
    end
end
redis.call('HSET', KEYS[2], 'owner', ARGV[1])
return {state[1] or '', state[2] or '0'}
"""

_APPEND: Final = """
local state = redis.call('HMGET', KEYS[2], 'owner', 'place', 'count')
if not state[1] then return 'unclaimed' end
if state[1] ~= ARGV[1] then return 'owner' end
local count = state[3] or '0'
if (state[2] or '') ~= ARGV[2] or count ~= ARGV[3] then return 'place' end
for i = 6, #ARGV, 3 do
    count = string.format('%.0f', count + 1)
    if ARGV[5] == '' then
        redis.call('XADD', KEYS[1], '*',
            'id', ARGV[i], 'type', ARGV[i + 1], 'data', ARGV[i + 2], 'n', count)
    else
        redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[5], '*',
            'id', ARGV[i], 'type', ARGV[i + 1], 'data', ARGV[i + 2], 'n', count)
    end
end
redis.call('HSET', KEYS[2], 'place', ARGV[4], 'count', count)
return 'done'
"""

_LEASE: Final = """
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
"""

_RELEASE: Final = """
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
return 0
"""


class RedisStream:
    """A log in Redis: a stream with one entry for each event.

    An entry has the fields `id` (the last event ID), `type`, `data` (of the event) and `n` (its
    number in the log: 1, 2, 3, …). The key of the stream is `name`. The relay's own keys are
    `{name}:relay`, a hash with the owner, the place and the count, and `{name}:lease`. All are in
    one slot of a cluster. They must be neither removed nor evicted: a warning is logged if the
    server's settings allow that, or cannot be read. If the hash is gone and the stream has had
    entries, `claim()` refuses.

    Connects when it is first used.

    Threads: as `Sink` says, one at a time.

    Args:
        url: of the server, as redis-py takes it: `redis://`, `rediss://` or `unix://`, with its
            options as the query, such as `?ssl_ca_certs=…`.
        name: the key of the stream. If it has braces, they must be one hash tag, as in
            `a{b}c`; the relay's own keys then begin with the name as it is.
        maxlen: about how many entries to keep (`MAXLEN ~`): Redis removes older ones in whole
            nodes. None: all.
        timeout: the most seconds to wait for the connection (to each address of the server), and
            for each reply. A relay that is closed while it waits for a Redis that hangs ends
            after at most that time.

    Raises:
        TypeError, ValueError: an argument cannot be used; the message names it, and quotes
            nothing of `url`.

    Examples:
        >>> RedisStream("redis://localhost", "orders")
        <RedisStream 'orders'>
    """

    def __init__(
        self, url: str, name: str, *, maxlen: int | None = None, timeout: float = 5.0
    ) -> None:
        if not isinstance(url, str):
            raise TypeError(f"url must be a str, not {type(url)}")
        if not isinstance(name, str):
            raise TypeError(f"name must be a str, not {name!r}")
        if not re.fullmatch(r"[^{}]+|[^{}]*\{[^{}]+\}[^{}]*", name):
            raise ValueError(f"name must not be empty, nor have braces but for a tag: {name!r}")
        if maxlen is not None:
            check_whole_number("maxlen", maxlen, 1)
        check_number("timeout", timeout, 0)
        if timeout == 0:
            raise ValueError("timeout must be more than 0")
        self._name = name
        own = name if "{" in name else f"{{{name}}}"
        self._state, self._lease = f"{own}:relay", f"{own}:lease"
        self._maxlen = "" if maxlen is None else str(maxlen)
        self._client = _client(url, timeout)
        self._farewell = _client(url, min(timeout, FAREWELL_SECONDS))
        self._claim = self._client.register_script(_CLAIM)
        self._append = self._client.register_script(_APPEND)
        self._take_lease = self._client.register_script(_LEASE)
        self._candidate = secrets.token_hex(16)  # identifies this sink as holder of the lease
        self._owner = self._place = ""
        self._count = "0"
        self._has_checked_eviction = False
        self._is_silent = False  # the last call has had no reply in time

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._name!r}>"

    def claim(self) -> str:
        """Become the owner, and return the place: see `Sink.claim`.

        Raises:
            EventSourceError: Redis cannot be reached, or refuses; or the stream has had entries,
                and the hash with the place is gone.
        """
        self._warn_of_eviction()
        owner = secrets.token_hex(16)
        answer = self._call(self._claim, [self._name, self._state], [owner])
        if not isinstance(answer, list):
            raise PlaceLost(
                f"the stream {self._name!r} has had entries, but {self._state!r} is gone: restore"
                " it, or delete the stream to begin anew"
            )
        place, count = answer
        self._owner, self._place, self._count = owner, _text(place), _text(count)
        return self._place

    def append(self, events: Sequence[MessageEvent], last_event_id: str) -> None:
        """Store events and the place, all or nothing: see `Sink.append`.

        Raises:
            Superseded: the owner, the place or the count is another. Nothing has been stored.
            EventSourceError: Redis cannot be reached, or refuses.
        """
        arguments = [self._owner, self._place, self._count, last_event_id, self._maxlen]
        for event in events:
            arguments += (event.last_event_id, event.type, event.data)
        answer = _text(self._call(self._append, [self._name, self._state], arguments))
        if answer == "unclaimed":
            raise Superseded(f"nobody has claimed the log, or {self._state!r} is gone")
        if answer == "owner":
            raise Superseded("another relay has claimed the log")
        if answer == "place":
            raise Superseded("the place of the log is not the one that was believed")
        self._place = last_event_id
        self._count = str(int(self._count) + len(events))

    def lease(self, seconds: float) -> bool:
        """Take or renew the lease; return whether it is this sink's.

        Args:
            seconds: how long it lasts, by the clock of Redis; rounded to milliseconds.

        Raises:
            EventSourceError: Redis cannot be reached, or refuses.
        """
        arguments = [self._candidate, str(max(round(seconds * 1000), 1))]
        return bool(int(self._call(self._take_lease, [self._lease], arguments)))

    def close(self) -> None:
        """Give up the lease, if it is this sink's, and the connection. Never raises.

        Waits at most a second for each reply. If the last call had no reply in time, the lease
        is left to run out.
        """
        reason: object = None
        if self._is_silent:
            reason = "Redis has not answered in time"
        else:
            try:
                self._call(self._farewell.eval, _RELEASE, 1, self._lease, self._candidate)
            except EventSourceError as error:
                reason = error
        if reason is not None:
            logger.info("the lease of %r is left to run out: %s", self._name, reason)
        self._farewell.close()
        self._client.close()

    def _warn_of_eviction(self) -> None:
        """Warn, once, if Redis may remove the place when its memory is full."""
        if self._has_checked_eviction:
            return
        memory = self._call(self._memory)
        self._has_checked_eviction = True
        policy = str(memory.get("maxmemory_policy", ""))
        if policy.startswith("allkeys") and memory.get("maxmemory"):
            logger.warning(
                "Redis may evict the place of %r: maxmemory-policy is %s; with noeviction, a full"
                " Redis holds the relay instead",
                self._name,
                policy,
            )

    def _memory(self) -> dict[str, Any]:
        try:
            return self._client.info("memory")
        except redis.ResponseError as error:  # such as a user without the right to INFO
            logger.warning(
                "whether Redis may evict the place of %r is not known: INFO is refused: %s",
                self._name,
                _reason(error),
            )
            return {}

    def _call(self, function: Any, *arguments: Any) -> Any:
        # Raised below: redis-py's error, which may quote what was sent, is not its `__context__`.
        try:
            answer = function(*arguments)
        except redis.RedisError as error:
            failure = EventSourceError(_reason(error))
            self._is_silent = isinstance(error, redis.TimeoutError)
        else:
            self._is_silent = False
            return answer
        # The name of the server may lead to another one by now, such as a new primary.
        self._client.connection_pool.disconnect()
        raise failure


def _client(url: str, timeout: float) -> redis.Redis:
    with contextlib.suppress(ValueError, TypeError):  # which may quote a part of the password
        return redis.Redis.from_url(
            url,
            socket_timeout=timeout,
            socket_connect_timeout=timeout,
            retry=Retry(NoBackoff(), 0),
        )
    raise ValueError("url must be one that redis-py takes: redis://, rediss:// or unix://")


def _reason(error: redis.RedisError) -> str:
    """Return the text of the error, without the parts that may quote a secret."""
    kind = f"Redis: {type(error).__name__}"
    if type(error) in (redis.ConnectionError, redis.TimeoutError):  # of the network, not a reply
        return f"{kind}: {brief(str(error))}"
    if command := re.search(r"run the '([a-z|]+)' command", str(error)):
        return f"{kind}: {command.group(1)}"
    if "executing the script can't run" in str(error):  # Redis does not say which one
        return f"{kind}: the script uses a command that this user may not run"
    code = re.match(r"[A-Z]{3,}\b", str(error))
    return f"{kind}: {code.group()}" if code else kind


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
