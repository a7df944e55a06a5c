"""A service that runs for months, and goes on after a restart where it was.

    python examples/service.py http://127.0.0.1:8000/prices --state last-event-id.txt

It logs one JSON object a line. SIGTERM and Ctrl-C end it with status 0; a failure after which
trying again is no use, with status 1.

The place in the stream is stored after each event has been dealt with. If the machine dies
between the two, that one event comes again: so events are dealt with at least once.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import logging
import os
import signal
import sys
from pathlib import Path

from eventsource import ErrorEvent, EventSource, MessageEvent, OpenEvent, ReconnectPolicy

logger = logging.getLogger("service")


class JsonFormatter(logging.Formatter):
    """One JSON object a line; `extra={"fields": {...}}` adds to it."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        line = {
            "time": dt.datetime.fromtimestamp(record.created, dt.UTC).isoformat(),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


class State:
    """A file with the last event ID. It has the old one or the new one, never half of one."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def load(self) -> str:
        """Return the ID; "" if there is none yet."""
        try:
            return self._path.read_text(encoding="utf-8").rstrip("\n")
        except FileNotFoundError:
            return ""

    def store(self, last_event_id: str) -> None:
        """Replace the ID, so that it survives a power failure, too."""
        new = self._path.with_name(self._path.name + ".new")
        with new.open("w", encoding="utf-8", newline="") as file:
            file.write(last_event_id)
            file.flush()
            os.fsync(file.fileno())
        new.replace(self._path)


class Service:
    """Deals with the events of a stream."""

    def __init__(self, url: str, state: State, event_timeout: float) -> None:
        self._state = state
        self._signal: signal.Signals | None = None  # what has ended the service
        self._source = EventSource(
            url,
            on_open=self._opened,
            on_message=self._deal_with,
            on_error=self._lost,
            last_event_id=state.load(),
            reconnect=ReconnectPolicy(
                delay=1.0, max_delay=60.0, statuses=frozenset({429, 500, 502, 503, 504})
            ),
            event_timeout=event_timeout,  # the peer may be gone without a word
            start=False,
        )
        self._source.on("price", self._deal_with)

    def run(self) -> int:
        """Run until a signal comes or the stream is closed for good; return the exit status."""
        for number in signal.SIGTERM, signal.SIGINT:
            signal.signal(number, self._end)
        logger.info("started", extra={"fields": {"id": self._source.last_event_id}})
        self._source.start()  # not before its end is provided for
        self._source.join()
        if self._signal is not None:
            reason, status = self._signal.name, 0
        else:
            reason, status = str(self._source.error), 1
        logger.info("stopped", extra={"fields": {"reason": reason, "status": status}})
        return status

    def _end(self, number: int, _: object) -> None:
        """Let the handler that runs finish, and no other start."""
        self._signal = signal.Signals(number)
        self._source.close()  # may be called here; logging may not

    # The handlers. They run in the source's thread, one after another. One that raises is
    # logged with its traceback by the package, and the stream goes on.

    def _deal_with(self, event: MessageEvent) -> None:
        logger.info(event.data, extra={"fields": {"id": event.last_event_id, "type": event.type}})
        self._state.store(event.last_event_id)  # last: it has been dealt with

    def _opened(self, event: OpenEvent) -> None:
        logger.info("connected", extra={"fields": {"url": event.url}})

    def _lost(self, event: ErrorEvent) -> None:
        fields = {"error": str(event.error), "retry_in": event.retry_in}
        if event.retry_in is None:
            logger.error("closed for good", extra={"fields": fields})
        else:
            logger.warning("connection lost", extra={"fields": fields})


def main() -> int:
    """Run the service; return its exit status."""
    parser = argparse.ArgumentParser(description="Log the events of a stream, each of them.")
    parser.add_argument("url")
    parser.add_argument("--state", type=Path, default=Path("last-event-id.txt"))
    parser.add_argument(
        "--event-timeout", type=float, default=90.0, help="seconds of silence to reconnect after"
    )
    options = parser.parse_args()
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    logging.getLogger("eventsource").setLevel(logging.WARNING)  # the rest we log ourselves
    return Service(options.url, State(options.state), options.event_timeout).run()


if __name__ == "__main__":
    sys.exit(main())
