"""One HTTP exchange: open it, read what has arrived, abort it from any thread.

The invariant: **whoever is last out releases.** While a thread is inside `open()` or
`read()`, `abort()` only wakes it, and that thread releases what the exchange holds as
it leaves. When no thread is inside, `abort()` releases. So nothing is ever closed
under a reader's feet, and nothing waits for one.

The sessions that we make can be aborted in every phase (see `connection`). A session
that the caller brings keeps its own adapters; there only urllib3's own
`HTTPResponse.shutdown()` is left, which needs a response.
"""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any, Final

import requests
from requests.auth import HTTPBasicAuth
from requests.structures import CaseInsensitiveDict
from requests.utils import default_user_agent, get_auth_from_url, get_netrc_auth

from .arguments import DEFAULT_TIMEOUT, check_options, check_url
from .connection import Sockets, current_sockets, new_session
from .errors import Aborted, EventTimeout, describe
from .urls import origin_of
from .wakeup import Wakeup

READ_SIZE: Final = 64 * 1024
"""Bytes taken in one read at the most; what has arrived is never waited for."""
ERROR_BODY_SIZE: Final = 64 * 1024
"""Bytes kept of the body of a response that is no event stream."""
ERROR_BODY_TIME: Final = 1.0
"""Seconds spent at the most on reading such a body."""

OWN_HEADERS: Final = {
    "Accept": "text/event-stream",
    "Cache-Control": "no-cache",
    # A compressing proxy would hold events back to fill its window.
    "Accept-Encoding": "identity",
}
"""Header fields of every request; the caller's take precedence."""


class Transport:
    """What all exchanges of one source have in common: the request and the session.

    Args:
        url: an absolute URL.
        method: the request method.
        session: a session of the caller's, or None for one of our own.
        options: further arguments of `requests.Session.request`.

    Raises:
        TypeError, ValueError: an argument cannot be used; the message names it.
    """

    def __init__(
        self,
        url: str,
        *,
        method: str = "GET",
        session: requests.Session | None = None,
        options: Mapping[str, Any],
    ) -> None:
        self.url = check_url(url)
        check_options(method, session, options)
        self.method = method.upper()
        self.owns_session = session is None
        self.session = new_session() if session is None else session
        self.options = {"timeout": DEFAULT_TIMEOUT, "allow_redirects": True, **options}
        self.headers: CaseInsensitiveDict[Any] = CaseInsensitiveDict(OWN_HEADERS)
        self.headers.update(self.options.pop("headers", None) or {})
        self.auth = self.options.pop("auth", None)

    def exchange(self) -> Exchange:
        """Return a new exchange, not yet opened."""
        return Exchange(self)

    def send(self, last_event_id: str) -> requests.Response:
        """Send the request, follow redirects, return the response, its body unread."""

        def finish(request: requests.PreparedRequest) -> requests.PreparedRequest:
            # Runs as the request's `auth`: the last step of preparing it. So
            # sessions that override `request()` to add tokens of their own work.
            request = self._authorize(request)
            _finish(request, last_event_id)
            return request

        options = dict(self.options)
        follow = options.pop("allow_redirects")
        options["proxies"] = dict(options.get("proxies") or {})  # the session adds to it
        response = self.session.request(
            self.method,
            self.url,
            headers=self.headers,
            auth=finish,
            stream=True,
            allow_redirects=False,
            **options,
        )
        return self._follow_redirects(response, last_event_id) if follow else response

    def _authorize(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """Add credentials: what the caller gave most explicitly wins, `.netrc` is last."""
        auth: Any = self.auth
        if auth is None and "Authorization" not in request.headers:
            auth = self.session.auth
            if auth is None:
                auth = get_auth_from_url(self.url)
                if not any(auth):
                    auth = get_netrc_auth(self.url) if self.session.trust_env else None
        if type(auth) is tuple:
            auth = HTTPBasicAuth(*auth)
        return auth(request) if auth is not None else request

    def _follow_redirects(
        self, response: requests.Response, last_event_id: str
    ) -> requests.Response:
        home = origin_of(response.request.url or self.url)
        at_home = True  # false for good once another origin has been asked
        followed = 0
        while (request := response.next) is not None:
            if followed == self.session.max_redirects:
                raise requests.TooManyRedirects(
                    f"more than {followed} redirects", response=response
                )
            followed += 1
            url = request.url or ""
            at_home = at_home and origin_of(url) == home
            if at_home:
                sent = response.request.headers.get("Authorization")
                if sent is not None and "Authorization" in request.headers:
                    request.headers["Authorization"] = sent  # and not .netrc's
            else:
                request = self._bare_request(request, last_event_id)
            settings = self.session.merge_environment_settings(
                url,
                dict(self.options.get("proxies") or {}),
                True,
                self.options.get("verify"),
                self.options.get("cert"),
            )
            response.close()
            response = self.session.send(
                request, timeout=self.options["timeout"], allow_redirects=False, **settings
            )
        return response

    def _bare_request(
        self, request: requests.PreparedRequest, last_event_id: str
    ) -> requests.PreparedRequest:
        """The request for another origin: made anew, so that nothing goes along.

        The last event ID does: it is a place, not a secret. So does the body where
        the redirect keeps it. `.netrc` may have credentials for the new host.
        """
        url = request.url or ""
        headers: dict[str, Any] = {**OWN_HEADERS, "User-Agent": default_user_agent()}
        if request.body is not None and "Content-Type" in request.headers:
            headers["Content-Type"] = request.headers["Content-Type"]
        bare = requests.Request(
            request.method,
            url,
            headers=headers,
            data=request.body,
            auth=get_netrc_auth(url) if self.session.trust_env else None,
            hooks=self.options.get("hooks"),
        ).prepare()
        _finish(bare, last_event_id)
        return bare


def _finish(request: requests.PreparedRequest, last_event_id: str) -> None:
    if last_event_id:
        # As bytes, and past requests' check: UTF-8 as the standard says, and an id
        # may begin with a space.
        request.headers["Last-Event-ID"] = last_event_id.encode()
    request.register_hook("response", _drop_redirect_body)


def _drop_redirect_body(response: requests.Response, **_: Any) -> None:
    # requests reads a redirect's body to its end, and that may never come.
    if response.is_redirect:
        response.close()


class Exchange:
    """One request and its response. One thread opens and reads; any may abort."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._sockets = Sockets()
        # Guards what follows. Re-entrant because a signal handler may call abort()
        # in the thread that holds it; nothing is done under it that waits.
        self._lock = threading.RLock()
        self._inside = False  # a thread is in open() or read()
        self._aborted = False
        self._timed_out = False  # ... by the limit
        self._released = False
        # Only the reading thread writes these:
        self._response: requests.Response | None = None
        self._deadline = math.inf  # on the monotonic clock
        self._shortest_limit = math.inf
        self._watchdog: Wakeup | None = None

    def open(self, last_event_id: str = "") -> requests.Response:
        """Send the request and return the response, when its headers are here.

        Raises:
            Aborted: `abort()` was called, before or meanwhile.
            EventTimeout: the limit has passed.
            Exception: the exchange failed; a `requests.RequestException` but for
                errors of the caller's own `auth` and hooks.
        """
        with self._reading():
            token = current_sockets.set(self._sockets)
            try:
                self._response = self._transport.send(last_event_id)
                self._sockets.settle()
            finally:
                current_sockets.reset(token)
        return self._response

    def read(self, size: int = READ_SIZE) -> bytes:
        """Return what has arrived of the body, decompressed; wait if nothing has.

        Returns:
            At most `size` bytes; none at the end of the body.

        Raises:
            Aborted: `abort()` was called, before or meanwhile. Bytes that arrived
                after that are thrown away.
            EventTimeout: the limit has passed.
            requests.RequestException: the connection failed.
        """
        assert self._response is not None
        with self._reading():
            data: bytes = self._response.raw.read1(size, decode_content=True)
        return data

    def read_error_body(self) -> None:
        """Make the body of a response that is no event stream its `content`.

        Best effort, for the program that shows it to a person: what comes within
        `ERROR_BODY_SIZE` and `ERROR_BODY_TIME`, of a body whose end can be told
        from the end of the connection.
        """
        response = self._response
        assert response is not None
        body = bytearray()
        if "Content-Length" in response.headers or "Transfer-Encoding" in response.headers:
            self.limit(min(ERROR_BODY_TIME, self._deadline - time.monotonic()))
            with contextlib.suppress(requests.RequestException):
                while len(body) < ERROR_BODY_SIZE and (
                    data := self.read(ERROR_BODY_SIZE - len(body))
                ):
                    body += data
        response._content = bytes(body)  # noqa: SLF001 - what `Response.content` returns
        response._content_consumed = True  # noqa: SLF001

    def limit(self, seconds: float) -> None:
        """End the exchange `seconds` from now, unless told otherwise before then.

        `math.inf` takes the limit away. Only the reading thread may call this.
        """
        self._deadline = time.monotonic() + seconds
        if seconds < self._shortest_limit:
            self._shortest_limit = seconds
            if self._watchdog is None:
                self._watchdog = Wakeup()
                threading.Thread(
                    target=self._watch_deadline,
                    args=(self._watchdog,),
                    name="eventsource-timeout",
                    daemon=True,
                ).start()
            else:
                self._watchdog.set()

    def abort(self) -> None:
        """End the exchange, whatever it is doing, and release all that it holds.

        Never waits, never raises; any thread, a signal handler too, any number of
        times. A read under way ends with `Aborted`.
        """
        with self._lock:
            self._aborted = True
            self._sockets.shut_down()
            if not self._inside:
                self._release()
            elif not self._sockets and self._response is not None:
                # A session of the caller's. shutdown() is urllib3's, and raises
                # when the response has been released or never had a socket.
                with contextlib.suppress(OSError, RuntimeError, ValueError, AttributeError):
                    self._response.raw.shutdown()

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        with self._lock:
            if self._aborted:
                raise self._abortion()
            self._inside = True
        try:
            yield
        except Exception as error:
            if self._aborted:
                raise self._abortion() from None
            raise describe(error) from None
        finally:
            with self._lock:
                self._inside = False
                if self._aborted:
                    self._release()
        if self._aborted:
            raise self._abortion()

    def _abortion(self) -> Aborted | EventTimeout:
        return EventTimeout("no message in time") if self._timed_out else Aborted("aborted")

    def _release(self) -> None:
        """Give back sockets, response and, if ours, the session's connections.

        The lock is held, and no thread is inside.
        """
        self._released = True
        if self._watchdog is not None:
            self._watchdog.set()
        self._sockets.release()
        if self._response is not None:
            self._response.raw.close()  # which Response.close() omits after read_error_body()
            self._response.close()
        if self._transport.owns_session:
            self._transport.session.close()

    def _watch_deadline(self, wakeup: Wakeup) -> None:
        # The deadline moves with each message. Rather than being told each time,
        # which would cost a thread switch per message, this looks at it again
        # when the earliest possible one has come.
        while not self._released:
            remaining = self._deadline - time.monotonic()
            if remaining <= 0:
                self._timed_out = True
                self.abort()
                return
            wakeup.wait(min(remaining, self._shortest_limit))
