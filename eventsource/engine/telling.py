"""What is logged about a stream's openings, losses and end, and at which level.

An *outage* begins with the first failure after the stream was open (or after the start), and
ends when it opens again. The rule: unless the program learns of it in another way, the first
failure of each outage is logged at WARNING, and so is a failure that closes the stream for
good. Everything else is logged at INFO. The regular end of a body is not a failure; a failed
attempt after it is. The end of a body of another content type is a failure if no event came.
"""

from __future__ import annotations

import logging
from typing import Any

from eventsource.errors import StreamEnded, summary
from eventsource.protocol.events import ErrorEvent, OpenEvent, is_event_stream
from eventsource.urls import redact

logger = logging.getLogger("eventsource")


class Telling:
    """Logs what happens to one stream, each `OpenEvent` and `ErrorEvent` once.

    Threads: only one at a time.

    Args:
        url: the URL of the stream; its secrets are not logged.
    """

    def __init__(self, url: str) -> None:
        self._url = redact(url)
        self._is_out = False  # an outage has begun
        self._last: object = None  # the item that was logged last

    def tell(self, item: Any, *, is_heard: bool, is_end: bool = False) -> None:
        """Log an item, if it is one of the two.

        Args:
            item: an item of the stream.
            is_heard: whether the program learns of it in another way.
            is_end: whether a final `ErrorEvent` is not a failure.
        """
        if item is self._last:
            return
        if type(item) is OpenEvent:
            self._last = item
            is_stream = is_event_stream(item.headers)
            again = " again" if self._is_out and is_stream else ""
            logger.info("%s: open%s", self._url, again)
            self._is_out &= not is_stream
        elif type(item) is ErrorEvent:
            self._last = item
            self._tell_failure(item, is_heard=is_heard, is_end=is_end)

    def _tell_failure(self, event: ErrorEvent, *, is_heard: bool, is_end: bool) -> None:
        is_final = event.retry_in is None
        is_in_order = isinstance(event.error, StreamEnded) and not event.error.is_foreign
        is_failure = not (is_end if is_final else is_in_order)
        is_news = is_final or not self._is_out
        level = logging.WARNING if is_failure and is_news and not is_heard else logging.INFO
        self._is_out |= is_failure
        if is_final:
            logger.log(level, "%s: closed for good: %s", self._url, summary(event.error))
        else:
            logger.log(
                level, "%s: retry in %.3g s: %s", self._url, event.retry_in, summary(event.error)
            )
