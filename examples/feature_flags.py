"""Feature flags that are always fresh: a dictionary that a stream keeps up to date.

    python examples/feature_flags.py http://127.0.0.1:8000/flags

Prints all flags whenever one changes, until Ctrl-C. The server sends `put` with all flags
whenever a connection is made, `patch` with one and `delete` with the name of one. Each has a
version, so that news that comes late cannot bring back what is out of date.
"""

from __future__ import annotations

import contextlib
import json
import logging
import sys
import threading
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Self

from eventsource import ErrorEvent, EventSource, MessageEvent, StreamEnded

logger = logging.getLogger("feature_flags")

OnChange = Callable[[dict[str, Any]], object]


class Flag(NamedTuple):
    """The value of a flag, or that it has been deleted, and since which version."""

    version: int
    value: Any = None
    deleted: bool = False


class FeatureFlags:
    """Knows the value of each flag at any time.

    While the connection is lost, it knows the last values; the `put` of the next connection
    brings what has changed meanwhile.

    Threads: all methods may be called from any.

    Args:
        url: of the stream.
        on_change: called with all values after each change, in the source's thread.
    """

    def __init__(self, url: str, on_change: OnChange | None = None) -> None:
        self._on_change = on_change
        # Replaced at each change and itself never changed, so that readers need no lock.
        # Written in the source's thread only.
        self._flags: Mapping[str, Flag] = {}
        self._is_ready = False
        self._settled = threading.Event()  # it is ready, or never will be
        self._source = EventSource(url, on_error=self._lost, start=False)
        self._source.on("put", self._put)
        self._source.on("patch", self._patch)
        self._source.on("delete", self._delete)
        self._source.start()

    def get(self, name: str, default: Any = None) -> Any:
        """Return the value of a flag; `default` if there is no such flag. Never waits."""
        flag = self._flags.get(name)
        return default if flag is None or flag.deleted else flag.value

    def all(self) -> dict[str, Any]:
        """Return the values of all flags at one moment, by name."""
        return {name: flag.value for name, flag in self._flags.items() if not flag.deleted}

    def wait_until_ready(self, timeout: float | None = None) -> bool:
        """Wait for the first values, at most `timeout` seconds; say whether they are there."""
        self._settled.wait(timeout)
        return self._is_ready

    def wait_until_closed(self) -> None:
        """Wait until nothing changes any more."""
        self._source.join()

    @property
    def error(self) -> Exception | None:
        """Why nothing changes any more, if `close()` was not called."""
        return self._source.error

    def close(self) -> None:
        """Let the flags stay as they are, and end the source."""
        self._source.close()
        self._settled.set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        self._source.join()

    # The handlers: the source calls one at a time, in the order of the events.

    def _put(self, event: MessageEvent) -> None:
        self._flags = {
            name: Flag(flag["version"], flag["value"]) for name, flag in event.json().items()
        }
        self._is_ready = True
        self._settled.set()
        self._tell()

    def _patch(self, event: MessageEvent) -> None:
        change = event.json()
        self._set(change["name"], Flag(change["version"], change["value"]))

    def _delete(self, event: MessageEvent) -> None:
        change = event.json()
        self._set(change["name"], Flag(change["version"], deleted=True))

    def _set(self, name: str, flag: Flag) -> None:
        known = self._flags.get(name)
        if known is None or known.version < flag.version:
            self._flags = {**self._flags, name: flag}
            self._tell()

    def _tell(self) -> None:
        if self._on_change is not None:
            self._on_change(self.all())

    def _lost(self, event: ErrorEvent) -> None:
        if event.retry_in is None:
            self._settled.set()
        elif not isinstance(event.error, StreamEnded):
            logger.warning("flags may be out of date: %s", event.error)


def main(url: str) -> int:
    """Print the flags until Ctrl-C; return the exit status."""

    def show(values: dict[str, Any]) -> None:
        print(json.dumps(values, sort_keys=True), flush=True)

    with FeatureFlags(url, on_change=show) as flags:
        if flags.wait_until_ready(30):
            flags.wait_until_closed()
        print(f"failed: {flags.error or 'no flags came within 30 s'}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python examples/feature_flags.py URL")
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(main(sys.argv[1]))
