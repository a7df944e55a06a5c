"""`SSEClient`: an `EventStream` in the spelling of the `sseclient` package.

What that package documents is the same: the constructor, its units, the message
objects, the attributes. What it does wrong is right here: every line ending, any
chunking, large events, prompt delivery, comments, nothing printed.
"""

from __future__ import annotations

from typing import Any, Final, Self

import requests

from .errors import UnexpectedStatus
from .http.exchange import Exchange
from .http.options import check_last_event_id
from .protocol.events import Comment, ErrorEvent, MessageEvent
from .protocol.parser import EventStreamParser
from .protocol.policy import MAX_RECONNECTION_TIME, ReconnectPolicy, check_number
from .stream import EventStream

DEFAULT_RETRY: Final = 3000
"""Milliseconds, as in `sseclient`."""
NO_CONTENT: Final = 204
"""The status that tells a client to stop (HTML standard, 9.2.3)."""


class Event:
    """A message, with the attributes of `sseclient`'s `Event`.

    Attributes:
        data (str): its text.
        event (str): its type; `"message"` if the server named none.
        id (str | None): this message's own id, or None if it has none.
        retry (int | None): this message's own `retry` field in milliseconds, or None.

    Raises:
        TypeError: `data` is no str.
    """

    def __init__(
        self,
        data: str = "",
        event: str = "message",
        id: str | None = None,  # noqa: A002 - the name is sseclient's
        retry: int | None = None,
    ) -> None:
        if not isinstance(data, str):
            raise TypeError(f"data must be a str, not {data!r}")
        self.data = data
        self.event = event
        self.id = id
        self.retry = retry

    def dump(self) -> str:
        """Return the message as the text of an event stream."""
        lines = []
        if self.id:
            lines.append(f"id: {self.id}")
        if self.event != "message":
            lines.append(f"event: {self.event}")
        if self.retry:
            lines.append(f"retry: {self.retry}")
        lines += [f"data: {line}" for line in self.data.split("\n")]
        return "\n".join(lines) + "\n\n"

    @classmethod
    def parse(cls, raw: str) -> Event:
        """Return the message that the text of one block says.

        Unlike the block of a stream it need not end with a blank line, and it may
        be without data: then `data` is `""`.
        """
        parser = _BlockParser()
        events = parser.feed(raw.rstrip("\r\n").encode())
        # A data line of our own makes an event of every block; the line feed that
        # joins it to the others is taken off again.
        block = (events or parser.feed(b"\ndata:\n\n"))[0]
        assert isinstance(block, _Block)
        data = block.data if events else block.data.removesuffix("\n")
        return cls(data, block.type, block.id, block.retry)

    def __str__(self) -> str:
        return self.data

    def __repr__(self) -> str:
        return (
            f"Event(data={self.data!r}, event={self.event!r}, id={self.id!r}, retry={self.retry!r})"
        )


class SSEClient:
    """Iterates over the messages of an event stream: a drop-in for `sseclient`'s.

    It connects in the constructor and reconnects by itself: it waits `retry`
    milliseconds after a connection is lost, and goes on trying while the server
    cannot be reached (then with longer waits, up to 3 seconds or `retry`). An
    iteration ends only when the server answers 204, or by `close()`.

    Threads: as with `EventStream`: one iterates, any may close.

    Args:
        url: an absolute URL.
        last_id: where to go on: sent as `Last-Event-ID`.
        retry: milliseconds to wait before reconnecting; a server may change it.
        session: a `requests.Session` to use.
        chunk_size: accepted, and of no effect: what has arrived is read at once, and
            nothing is waited for.
        **requests_kwargs: what `requests.get` takes. Any content type is accepted.

    Raises:
        TypeError, ValueError: an argument cannot be used; the message names it.
        requests.HTTPError: the server answered with an error status (400 to 599);
            also raised by the iteration, when a reconnect is answered so. The next
            `next()` then tries again, after `retry` milliseconds.
        requests.RequestException: the first connection cannot be made. The iteration
            raises one where trying again would be in vain, such as `EventTooLarge`,
            and is then at its end.

    Attributes:
        session (requests.Session | None): the argument.
        chunk_size (int): the argument.
        requests_kwargs (dict): the further arguments.

    Examples:
        >>> for message in SSEClient("https://example.com/stream"):  # doctest: +SKIP
        ...     print(message.data)
    """

    def __init__(
        self,
        url: str,
        last_id: str | None = None,
        retry: int = DEFAULT_RETRY,
        session: requests.Session | None = None,
        chunk_size: int = 1024,
        **requests_kwargs: Any,
    ) -> None:
        if not isinstance(chunk_size, int) or chunk_size < 1:
            raise ValueError(f"chunk_size must be an int of at least 1, not {chunk_size!r}")
        check_last_event_id("last_id", last_id or "")
        if "method" in requests_kwargs:
            raise TypeError("method: use EventStream; a client would send it at each reconnect")
        self.session = session
        self.chunk_size = chunk_size
        self.requests_kwargs = requests_kwargs
        self._stream = _ClientStream(
            url,
            last_event_id=last_id or "",
            reconnect=_policy(retry),
            session=session,
            **requests_kwargs,
        )
        first = next(self._stream)
        if isinstance(first, ErrorEvent):
            self.close()
            if not _is_no_content(first.error):
                raise first.error

    @property
    def url(self) -> str:
        """The URL as it was given."""
        return self._stream.url

    @property
    def last_id(self) -> str | None:
        """The id of the last message that had one; sent when reconnecting. May be set.

        Raises:
            TypeError, ValueError: it cannot be sent.
        """
        return self._stream.last_event_id or None

    @last_id.setter
    def last_id(self, value: str | None) -> None:
        self._stream.go_on_from(value or "")

    @property
    def retry(self) -> int:
        """Milliseconds to wait before reconnecting. May be set.

        Raises:
            TypeError, ValueError: it is no number of at least 0.
        """
        return round(self._stream.reconnection_time * 1000)

    @retry.setter
    def retry(self, value: int) -> None:
        self._stream.wait_to_reconnect(value)

    @property
    def resp(self) -> requests.Response | None:
        """The response that is being read, or was read last."""
        return self._stream.response

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Event:
        for item in self._stream:
            if isinstance(item, _Block):
                return Event(item.data, item.type, item.id, item.retry)
            if isinstance(item, ErrorEvent):
                if _is_no_content(item.error):
                    break
                if isinstance(item.error, requests.HTTPError) or item.retry_in is None:
                    raise item.error
        raise StopIteration

    def close(self) -> None:
        """End the iteration and the connection, from any thread; never waits."""
        self._stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Block(MessageEvent):
    """An event that remembers what its own block said."""

    id: str | None = None
    retry: int | None = None


class _BlockParser(EventStreamParser):
    """A parser whose events are `_Block`s."""

    _kind = _Block
    _id: str | None = None
    _retry: int | None = None

    def _take_run(self, chunk: bytes, blank: bytes, items: list[MessageEvent | Comment]) -> int:
        return super()._take_run(chunk, blank, items) if self._retry is None else 0

    def _process_usual_lines(
        self, lines: list[bytes], items: list[MessageEvent | Comment], *, comments: bool
    ) -> None:
        for line in lines:  # each as it stands in the definition, which notes id and retry
            self._process_line(line[:-1], items, comments=comments)

    def _process_field(self, name: bytes, value: bytes | bytearray, size: int) -> None:
        super()._process_field(name, value, size)
        if name == b"id" and 0 not in value:
            self._id = value.decode("utf-8", "replace")
        elif name == b"retry" and self.reconnection_time is not None and value.isdigit():
            self._retry = round(min(self.reconnection_time, MAX_RECONNECTION_TIME) * 1000)

    def _dispatch(self) -> MessageEvent | None:
        event = super()._dispatch()
        if isinstance(event, _Block):
            event.id, event.retry = self._id, self._retry
        self._id = self._retry = None
        return event

    def go_on_from(self, last_event_id: str) -> None:
        self.last_event_id = self._last_event_id = last_event_id


class _ClientStream(EventStream):
    """The engine, with what `sseclient` does differently."""

    _parser: _BlockParser

    def _new_parser(self, origin: str) -> EventStreamParser:
        return _BlockParser(
            last_event_id=self.resume_id, origin=origin, max_event_size=self._max_event_size
        )

    def _check(self, response: requests.Response, exchange: Exchange) -> None:
        if response.status_code >= 400 or response.status_code == NO_CONTENT:
            exchange.read_error_body()
            raise UnexpectedStatus(response)

    def wait_to_reconnect(self, milliseconds: float) -> None:
        self._from_server = None
        self._policy = _policy(milliseconds)

    def go_on_from(self, last_event_id: str) -> None:
        check_last_event_id("last_id", last_event_id)
        self.resume_id = self._last_event_id = last_event_id
        self._parser.go_on_from(last_event_id)


def _policy(retry: float) -> ReconnectPolicy:
    """The policy of `sseclient`: the same wait each time, and every error status is
    raised but may be tried again.
    """
    check_number("retry", retry, 0)
    return ReconnectPolicy(
        delay=retry / 1000,
        max_delay=DEFAULT_RETRY / 1000,  # for retry=0; a longer `delay` is kept
        statuses=frozenset(range(400, 600)),
    )


def _is_no_content(error: Exception) -> bool:
    return isinstance(error, UnexpectedStatus) and error.status == NO_CONTENT
