"""One HTTP exchange: open it, read what has arrived, abort it from any thread.

The invariant: **the last user releases.** While a thread is inside `open()` or `read()`,
`abort()` only wakes it, and that thread releases the resources of the exchange when it
leaves. If no thread is inside, `abort()` releases them. So nothing is closed while a thread
reads from it, and `abort()` waits for no thread. Each side sets its own flag (`_inside`,
`is_shut_down`) before it reads the other's, so at least one of them sees both, and no lock
is needed.

An exchange on the client's own session can be aborted in every phase, and the sockets'
timeouts limit its waits. On a session of the caller's, the socket is known only when the
response has come; from then on a thread watches the limit.
"""

from __future__ import annotations

import contextlib
import io
import logging
import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, TypeVar, TypeVarTuple

import requests

from eventsource.errors import Aborted, EventTimeout
from eventsource.protocol.framing import body_of
from eventsource.runtime.deadline import Deadline

from .adapter import Connected, take_over
from .body import BodyReader, RawBody, SocketBody, read_into
from .decoding import decoder_for
from .failures import describe, describe_of_socket
from .redirects import send
from .request import ERROR_BODY_SIZE, RequestTemplate
from .sockets import Sockets, current_sockets

ERROR_BODY_TIME: Final = 1.0
"""Seconds spent at most on reading the body of a response that is not an event stream."""

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

logger = logging.getLogger(__name__)


class Exchange:
    """One request and its response.

    Threads: one thread opens and reads. Any thread, and a signal handler, may abort.
    """

    def __init__(self, template: RequestTemplate) -> None:
        self._template = template
        self._session: requests.Session | None = template.session()
        self._sockets = Sockets()
        self._inside = False  # a thread is in open() or read()
        self._has_timed_out = False  # the watch has aborted the exchange
        self._release_once = threading.Lock()
        # Only the reading thread writes these:
        self._response: requests.Response | None = None
        self._raw: Any = None  # urllib3's response, if the body is read through it
        self._connected: Connected | None = None  # otherwise
        self._body: BodyReader | None = None
        self._watch: Deadline | None = None  # of a session of the caller's, when there is a limit

    def open(self, last_event_id: str = "", timeout: float | None = None) -> requests.Response:
        """Send the request and return the response when its head has arrived.

        Args:
            last_event_id: sent as `Last-Event-ID`, unless it is empty.
            timeout: seconds that this may take.

        Raises:
            Aborted: `abort()` was called, before or meanwhile.
            EventTimeout: the time has passed.
            Exception: the exchange failed. It is a `requests.RequestException`, except for
                errors of the caller's own `auth` and hooks.
        """

        def begin() -> requests.Response:
            assert self._session is not None
            before = current_sockets.get()
            try:  # around `set`, too: a signal handler may raise right after it
                current_sockets.set(self._sockets)
                response = send(self._template, self._session, last_event_id)
            finally:
                current_sockets.set(before)
            self._raw = response.raw
            self._response = response
            if not self._sockets:  # a session of the caller's
                with contextlib.suppress(OSError, ValueError, AttributeError):  # it has no socket
                    self._sockets.adopt(response.raw.fileno())
            self._sockets.settle()
            self._body = self._body_of(response)
            return response

        if timeout is not None:
            self._sockets.deadline = time.monotonic() + timeout
        with self._watched(None if self._template.owns_session else timeout):
            return self._do(begin, self._describe_opening)

    def _body_of(self, response: requests.Response) -> BodyReader:
        decoder = decoder_for(response.headers.get("Content-Encoding", ""))
        connected = self._connected = take_over(response)
        if connected is None:
            return RawBody(response.raw, decoder)
        method = response.request.method or ""
        framing = body_of(method, response.status_code, connected.field)
        body = SocketBody(connected.sock, connected.received, framing, decoder)
        connected.keep_only_the_socket(response)
        self._raw = None
        self._close_session()
        return body

    @property
    def has_bounded_reads(self) -> bool:
        """Whether a read that times out leaves the connection as it is."""
        return isinstance(self._body, SocketBody)

    def certificate(self) -> Mapping[str, Any] | None:
        """The server's certificate, as `ssl.SSLSocket.getpeercert()` returns it, or None."""
        body = self._body
        return body.certificate() if isinstance(body, SocketBody) else None

    def read(self, timeout: float | None = None) -> bytes:
        """Return the bytes of the body that have arrived, decompressed; if there are none,
        wait.

        Args:
            timeout: seconds to wait at most.

        Returns:
            At most 64 KiB, in addition to what came with the head; no bytes at the end of the
            body.

        Raises:
            Aborted: `abort()` was called, before or meanwhile. Bytes that arrived after that
                are discarded.
            EventTimeout: the time has passed.
            requests.RequestException: the connection failed.
        """
        body = self._body
        assert body is not None
        if timeout is not None and timeout <= 0:  # even if bytes have arrived
            raise EventTimeout("no message in time")
        if timeout is None or isinstance(body, SocketBody):
            return self._do(body.read, describe_of_socket, timeout)
        with self._watched(timeout):
            return self._do(body.read, describe_of_socket)

    def read_error_body(self) -> None:
        """Read the body of a response that is not an event stream into its `content`.

        This is a best effort, for programs that show it to a person: at most 64 KiB, for at
        most one second and the time that `open()` had.
        """
        response, body = self._response, self._body
        assert response is not None
        assert body is not None
        data = bytearray()
        seconds = min(ERROR_BODY_TIME, self._sockets.deadline - time.monotonic())
        with (
            contextlib.suppress(requests.RequestException),
            self._watched(None if isinstance(body, SocketBody) else seconds),
        ):
            self._do(read_into, describe_of_socket, data, body, ERROR_BODY_SIZE, seconds)
        response.raw = io.BytesIO(data)
        _ = response.content  # which requests keeps; an answer to a challenge has its own

    @contextlib.contextmanager
    def _watched(self, seconds: float | None) -> Iterator[None]:
        """Have a thread abort the exchange if the block takes longer than `seconds`."""
        if seconds is None:
            yield
            return
        if self._watch is None:
            self._watch = Deadline(self._time_out)
        self._watch.set(seconds)
        try:
            yield
        finally:
            self._watch.set(math.inf)

    def _time_out(self) -> None:
        self._has_timed_out = True
        self.abort()

    def abort(self) -> None:
        """End the exchange, whatever it is doing, and release its resources.

        Never waits and never raises. Any thread and any signal handler may call it, any number
        of times. A read under way ends with `Aborted`.
        """
        self._sockets.shut_down()
        if not self._inside:
            self._release()

    def leave(self) -> None:
        """Abort from the reading thread, which counts as not inside, whatever interrupted it."""
        self._inside = False
        self._sockets.shut_down()
        self._release_once.acquire(blocking=False)
        self._close_all()

    def renew_locks(self) -> None:
        """After a fork: a thread that no longer exists may have held a lock."""
        self._sockets.renew_lock()

    def disown(self) -> None:
        """In the child of a fork: abort, without an effect on the parent's exchange."""
        self._release_once.acquire(blocking=False)
        self._sockets.disown()

    def _do(
        self,
        work: Callable[[*Ts], T],
        as_failure: Callable[[BaseException], BaseException],
        *args: *Ts,
    ) -> T:
        sockets = self._sockets
        failure: BaseException | None = None
        self._inside = True  # before is_shut_down is read: see the module's docstring
        try:
            if not sockets.is_shut_down:
                result = work(*args)
        except Exception as error:
            failure = as_failure(error)
        finally:
            self._inside = False
            if sockets.is_shut_down:
                self._release()
        if self._has_timed_out:
            raise EventTimeout("no message in time")
        if sockets.is_shut_down:
            raise Aborted("aborted")
        if failure is None:
            return result  # pyright: ignore[reportPossiblyUnboundVariable, reportReturnType]
        # Raised here, not in the `except` block: there the exception from below, whose
        # text may contain secrets, would become its `__context__`.
        try:
            raise failure
        finally:
            del failure

    def _describe_opening(self, error: BaseException) -> BaseException:
        if time.monotonic() >= self._sockets.deadline:
            return EventTimeout("no message in time")
        return describe(error)

    def _release(self) -> None:
        """Release sockets, response and our own session. No thread is inside."""
        # Once only: a signal handler may abort while its thread is already releasing, and
        # holds urllib3's locks.
        if self._release_once.acquire(blocking=False):
            self._close_all()

    def _close_all(self) -> None:
        steps: list[Callable[[], object]] = []
        if self._watch is not None:
            steps.append(self._watch.cancel)
        if self._connected is not None:
            steps.append(self._connected.close)
        if self._raw is not None and self._response is not None:
            # Response.close() does not close what has been read to its end.
            steps += [self._raw.close, self._response.close]
        steps.append(self._close_session)
        for step in steps:
            try:
                step()
            except Exception:  # for example on a dead socket; the other steps still run
                logger.debug("while releasing", exc_info=True)
        # Last: until then a fork finds the connections through the sockets.
        self._sockets.release()

    def _close_session(self) -> None:
        """Close the session of this attempt, if it is ours."""
        session, self._session = self._session, None
        if session is not None and self._template.owns_session:
            session.close()
