"""`Stream`: one event stream of an `SSEServer`, told what to do by a test.

A stream is a log of blocks. Each subscriber has a queue of what it is still to be sent,
and a thread that empties it: so no method waits for a client. One lock, the site's, makes
each method one step, seen whole or not at all by every request.
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

    An event goes to all clients that are connected; if nobody is, it waits for the next
    one. A client that sends a `Last-Event-ID` under which an event has been sent gets all
    events after the last one of that id. Any other gets what has been waiting. Comments,
    `retry` and bytes wait, too, but are not sent again. Everything is sent in the order of
    the calls, and over one connection each event at most once.

    A client counts as connected until the server sees that it has gone. What is sent
    in between is lost to it: `wait_for_disconnect()` first.

    What sends, ends or plans never waits for a client, not even for one that does not read;
    once the server is closed, it raises `RuntimeError`.

    Threads: every method may be called from any.
    """

    def __init__(self, site: Site, path: str) -> None:
        super().__init__(site)
        self.path: str = path
        """Without percent-encoding."""
        # All that follows is guarded by the site's lock.
        self._log = Log()
        self._subscribers: list[Subscriber] = []
        self._replay: Replay | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.url}>"

    @property
    def url(self) -> str:
        """Where clients find it."""
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
            TypeError, ValueError: a field cannot hold it; see `format_event`.
        """
        check_text("data", data)
        self._send(Block(format_event(data, event=event, id=id), id, is_event=True))

    def comment(self, text: str = "") -> None:
        """Send a comment, by convention a heartbeat; each line of the text is one.

        Raises:
            TypeError, ValueError: it is no text; see `format_comment`.
        """
        self._send(Block(format_comment(text)))

    def retry(self, milliseconds: int) -> None:
        """Set the clients' reconnection time.

        Raises:
            TypeError: no int.
            ValueError: less than 0.
        """
        check_retry(milliseconds)
        self._send(Block(format_event(retry=milliseconds)))

    def send_bytes(self, data: bytes) -> None:
        """Send bytes as they are: part of an event, or what is none.

        Raises:
            TypeError: no bytes.
        """
        if not isinstance(data, bytes | bytearray | memoryview):
            raise TypeError(f"data must be bytes, not {data!r}")
        self._send(Block(bytes(data)))

    def replay(self, file: str | os.PathLike[str], *, speed: float = 1.0) -> None:
        """Play a recording of `eventsource URL --record FILE` to each client from now on.

        Clients get the recorded bytes, cut as they had arrived, with the recorded header fields,
        and are dropped where the stream was lost; a body that had ended in order ends in
        order. A client that was dropped goes on behind the loss when it comes again. One that
        sends another id goes on after that; one that sends none, or one that is not in the
        recording, hears it from the start. Whoever comes again after the end gets a 204, but a
        POST is answered from the start again. Without ids in the recording, clients cannot be
        told apart: the first that comes after a loss or the end, without an id, is taken for
        the one that was dropped.

        A stream that was still open when the recording was ended ends there in order. Attempts
        that had failed are left out. What `status()`, `redirect()` and `stall()` have planned
        comes first; `drop()` and `end()` work as ever. Clients that are connected already stay
        as they are. A second call plays another recording from then on.

        Args:
            file: the recording. It is read now, and kept in memory.
            speed: how much faster than it was recorded; `math.inf`: at once. Reconnection
                times that the recorded server set (`retry`) are divided by it, too.

        Raises:
            TypeError: `speed` is no number.
            ValueError: it is not more than 0; or the file is no recording, damaged, or no
                connection had opened in it. The message names the file and the line.
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
        """End the streams that are being served, regularly: their bodies are complete.

        What was sent before still goes out. The next request is answered as usual.

        Returns:
            How many there were.
        """
        return self._end(_LISTENING, b"", Ending.REGULAR)

    def drop(self, *, reset: bool = False, partial: str | bytes = b"") -> int:
        """Break all connections off, stalled ones included, in the middle of the body.

        What was sent before still goes out. When this has returned, none of them counts
        for `wait_for_connection()`.

        Args:
            reset: with RST, which may destroy what the client has not read yet; else
                with FIN.
            partial: is sent before, but not to stalled connections. It is lost like
                the connection: nobody gets it again.

        Returns:
            How many there were.

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

        Clients that are served already count; those that are stalled, have been
        dropped, or were seen to leave, do not.

        Args:
            timeout: seconds to wait at the most.
            count: how many clients at once.

        Raises:
            TimeoutError: there were fewer; the message says what came instead.
            RuntimeError: the server is or was closed.
            TypeError, ValueError: `count` is no whole number of 1 or more.
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
            timeout: seconds to wait at the most.

        Raises:
            TimeoutError: one still is.
        """
        self._site.wait_for(
            lambda: not self._subscribers,
            timeout,
            f"all clients of {self.path} to go",
            lambda: f"{_clients(len(self._subscribers))} stayed",
        )

    def wait_for_request(self, count: int = 1, *, timeout: float = 10.0) -> Request:
        """Wait until `count` requests have come in all; return the last of these.

        Args:
            count: 1 is the first request that ever came.
            timeout: seconds to wait at the most.

        Raises:
            TimeoutError: there were fewer.
            RuntimeError: there were fewer, and the server is or was closed.
            TypeError, ValueError: `count` is no whole number of 1 or more.
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
        """Answer a request, until that is done or the client has gone."""
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
