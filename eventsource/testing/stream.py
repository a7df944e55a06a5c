"""`Stream`: one event stream of an `SSEServer`, controlled by a test.

A stream is a log of blocks. Each subscriber has a queue of what is still to be sent to it, and
a thread that empties the queue, so no method waits for a client. The invariant: each method is
one step under one lock, the site's, so a request sees all of its effect or none.
"""

from __future__ import annotations

import os
from urllib.parse import quote

from eventsource.recording import read_recording

from .answers import NO_MORE, STALL, STREAM, STREAM_HEAD, make_stream_head
from .blocks import check_count, check_retry, check_text, format_comment, format_event
from .connection import Connection
from .log import Block, Log
from .plan import Planned
from .replay import Playback, Replay, check_speed
from .request import Request
from .site import Site
from .subscriber import Ending, State, Subscriber

_LISTENING = (State.ARRIVED, State.SERVED)


class Stream(Planned):
    """An event stream at one path. `SSEServer.stream()` makes it; the server is one, too.

    An event is sent to all clients that are connected; if there are none, it waits for the
    next one. A client that sends a `Last-Event-ID` with which an event has been sent gets all
    events after the last one with that id. Any other client gets what has been waiting.
    Comments, `retry` and bytes wait, too, but are not sent again. Everything is sent in the
    order of the calls, and over one connection each event at most once.

    A client counts as connected until the server sees that it has closed. What is sent before
    that does not reach it: call `wait_for_disconnect()` first.

    Methods that send, end or plan never wait for a client, not even for one that does not read;
    after the server is closed, they raise `RuntimeError`.

    Threads: every method may be called from any.
    """

    def __init__(self, site: Site, path: str) -> None:
        super().__init__(site)
        self.path: str = path
        """The path, without percent-encoding."""
        # The site's lock guards what follows.
        self._log = Log()
        self._subscribers: list[Subscriber] = []
        self._replay: Replay | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.url}>"

    @property
    def url(self) -> str:
        """The URL of the stream."""
        return self._site.origin + quote(self.path)

    # --- What is sent ---

    def send(
        self,
        data: str,
        *,
        event: str | None = None,
        id: str | None = None,  # noqa: A002 - the field's name
    ) -> None:
        """Send an event.

        Args:
            data: the text; its line ends arrive as LF.
            event: the type; None: `message`.
            id: its id; None: it has none, and the client's last event ID stays.

        Raises:
            TypeError, ValueError: a field cannot have this value; see `format_event`.
        """
        check_text("data", data)
        self._send(Block(format_event(data, event=event, id=id), id, is_event=True))

    def comment(self, text: str = "") -> None:
        """Send a comment, by convention a heartbeat; each line of the text is one.

        Raises:
            TypeError, ValueError: it cannot be a comment; see `format_comment`.
        """
        self._send(Block(format_comment(text)))

    def retry(self, milliseconds: int) -> None:
        """Set the clients' reconnection time.

        Raises:
            TypeError: the value is not an int.
            ValueError: it is less than 0.
        """
        check_retry(milliseconds)
        self._send(Block(format_event(retry=milliseconds)))

    def send_bytes(self, data: bytes) -> None:
        """Send bytes as they are, such as part of an event, or malformed lines.

        Raises:
            TypeError: the value is not bytes.
        """
        if not isinstance(data, bytes | bytearray | memoryview):
            raise TypeError(f"data must be bytes, not {data!r}")
        self._send(Block(bytes(data)))

    def replay(self, file: str | os.PathLike[str], *, speed: float = 1.0) -> None:
        """Play a recording of `eventsource URL --record FILE` to each client from now on.

        Clients get the recorded bytes, in the pieces in which they came, with the recorded header
        fields. They are dropped where the stream was lost; a body that ended in order ends in
        order. A client that was dropped and reconnects continues after the loss. One that sends
        another id continues after that; one that sends none, or one that is not in the recording,
        gets it from the start. A client that reconnects after the end gets a 204, but a POST gets
        the recording from the start again. Without ids in the recording, clients cannot be
        distinguished: the first that comes without an id after a loss or the end counts as the
        one that was dropped.

        A stream that was still open at the end of the recording ends there in order. Failed
        attempts are omitted. What `status()`, `redirect()` and `stall()` have planned comes
        first; `drop()` and `end()` work as usual. Clients that are already connected are not
        affected. A second call plays another recording from then on.

        Args:
            file: the recording. It is read now, and kept in memory.
            speed: how much faster than it was recorded; `math.inf`: at once. Reconnection
                times that the recorded server set (`retry`) are divided by it, too.

        Raises:
            TypeError: `speed` is not a number.
            ValueError: it is not more than 0; or the file is not a recording, is damaged, or no
                connection opened in it. The message names the file and the line.
            OSError: the file cannot be read.
        """
        check_speed(speed)
        recording = read_recording(file)
        try:
            replay = Replay(recording, speed)
        except ValueError as error:
            raise ValueError(f"{os.fspath(file)}: {error}") from None
        with self._site.change():
            self._replay = replay

    def _send(self, block: Block) -> None:
        with self._site.change():
            if self._replay is not None:
                raise RuntimeError(f"{self.path} plays a recording: nothing else can be sent")
            listening = [each for each in self._subscribers if each.state in _LISTENING]
            self._log.append(block, is_sent=bool(listening))
            for subscriber in listening:
                subscriber.put(block.data)

    # --- How connections end ---

    def end(self) -> int:
        """End the streams that are being served, in order: their bodies are complete.

        What was sent before still reaches the clients. The next request is answered as usual.

        Returns:
            How many streams there were.
        """
        return self._end(_LISTENING, b"", Ending.REGULAR)

    def drop(self, *, reset: bool = False, partial: str | bytes = b"") -> int:
        """Close all connections, stalled ones included, in the middle of the body.

        What was sent before is still sent. After this returns, none of them counts for
        `wait_for_connection()`.

        Args:
            reset: close with RST, which may discard what the client has not read yet; else
                with FIN.
            partial: sent before the end, but not to stalled connections. It is not sent
                again.

        Returns:
            How many connections there were.

        Raises:
            TypeError: `partial` is neither str nor bytes.
        """
        if not isinstance(partial, str | bytes):
            raise TypeError(f"partial must be str or bytes, not {partial!r}")
        data = partial.encode() if isinstance(partial, str) else partial
        ending = Ending.RESET if reset else Ending.FIN
        return self._end((*_LISTENING, State.STALLED), data, ending)

    def _end(self, states: tuple[State, ...], last: bytes, ending: Ending) -> int:
        with self._site.change():
            leaving = [each for each in self._subscribers if each.state in states]
            for subscriber in leaving:
                if subscriber.state is not State.STALLED:
                    subscriber.put(last)
                subscriber.put(ending)
                subscriber.state = State.LEAVING
        return len(leaving)

    # --- What clients do ---

    @property
    def requests(self) -> list[Request]:
        """The requests for this path so far."""
        return self._site.requests(self.path)

    def wait_for_connection(self, timeout: float = 10.0, *, count: int = 1) -> None:
        """Wait until clients are being served: the response's head has been sent.

        Clients that are already being served count; those that are stalled, have been
        dropped or have closed do not.

        Args:
            timeout: seconds to wait at most.
            count: how many clients at the same time.

        Raises:
            TimeoutError: there were fewer; the message says what came instead.
            RuntimeError: the server is closed, or is closed meanwhile.
            TypeError, ValueError: `count` is not a whole number of 1 or more.
        """
        check_count("count", count)

        def served() -> int:
            return sum(each.state is State.SERVED for each in self._subscribers)

        self._site.wait_for(
            lambda: served() >= count,
            timeout,
            f"{_clients(count)} of {self.path}",
            lambda: f"there were {served()}" if count > 1 else "there was none",
        )

    def wait_for_disconnect(self, timeout: float = 10.0) -> None:
        """Wait until no client is connected to this stream, stalled ones included.

        Args:
            timeout: seconds to wait at most.

        Raises:
            TimeoutError: a client is still connected.
        """
        self._site.wait_for(
            lambda: not self._subscribers,
            timeout,
            f"all clients of {self.path} to go",
            lambda: f"{_clients(len(self._subscribers))} stayed",
        )

    def wait_for_request(self, count: int = 1, *, timeout: float = 10.0) -> Request:
        """Wait until there have been `count` requests; return the last of these.

        Args:
            count: counted from the start of the server; 1: the first request.
            timeout: seconds to wait at most.

        Raises:
            TimeoutError: there were fewer.
            RuntimeError: there were fewer, and the server is closed, or is closed meanwhile.
            TypeError, ValueError: `count` is not a whole number of 1 or more.
        """
        check_count("count", count)
        self._site.wait_for(
            lambda: len(self.requests) >= count,
            timeout,
            f"request {count} for {self._scope()}",
            lambda: f"there were {len(self.requests)}" if self.requests else "there was none",
        )
        return self.requests[count - 1]

    def _scope(self) -> str:
        return self.path

    # --- In the thread of a connection ---

    def _answer(self, connection: Connection, request: Request) -> None:
        """Answer a request; return when it has been answered or the client has closed."""
        subscriber: Subscriber | None = None
        playback: Playback | None = None
        with self._site.changed:
            answer = self._next_answer()
            if answer is STREAM and self._replay is not None:
                asks_anew = request.method == "POST"
                playback = self._replay.play(request.last_event_id, asks_anew=asks_anew)
                answer = STREAM if playback is not None else NO_MORE
            self._site.note(request, answer.name)
            if playback is not None:
                subscriber = Subscriber(State.ARRIVED)
            elif answer is STREAM:
                subscriber = Subscriber(State.ARRIVED, self._log.take(request.last_event_id))
            elif answer is STALL:
                subscriber = Subscriber(State.STALLED)
            if subscriber is not None:
                self._subscribers.append(subscriber)
        if subscriber is None:
            connection.send(answer.response)
            return
        try:
            if playback is not None:
                connection.send(make_stream_head(playback.headers))
            elif answer is STREAM:
                connection.send(STREAM_HEAD)
            with self._site.changed:
                if subscriber.state is State.ARRIVED:
                    subscriber.state = State.SERVED
                    self._site.changed.notify_all()
            subscriber.run(connection, () if playback is None else playback.steps())
        finally:
            with self._site.changed:
                self._subscribers.remove(subscriber)
                self._site.changed.notify_all()
            subscriber.close()


def _clients(count: int) -> str:
    return "1 client" if count == 1 else f"{count} clients"
