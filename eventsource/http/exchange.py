"""One HTTP exchange: open it, read what has arrived, abort it from any thread.

The invariant: **whoever is last out releases.** While a thread is inside `open()` or
`read()`, `abort()` only wakes it, and that thread releases what the exchange holds as
it leaves. When no thread is inside, `abort()` releases. So nothing is ever closed
under a reader's feet, and nothing waits for one.

The sessions that we make can be aborted in every phase (see `connection`). A session
that the caller brings keeps its own adapters; its socket is known with the response.
"""

from __future__ import annotations

import contextlib
import logging
import netrc  # noqa: F401 - else requests would, in a thread, and a fork keep it locked
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar
from urllib.parse import urljoin, urlsplit

import requests
from requests.auth import AuthBase, HTTPBasicAuth
from requests.structures import CaseInsensitiveDict
from requests.utils import default_user_agent, get_auth_from_url, get_netrc_auth
from urllib3.exceptions import LocationParseError

from eventsource.errors import Aborted, EventTimeout, describe
from eventsource.runtime.deadline import Deadline
from eventsource.urls import origin_of, redact_strictly

from .adapter import Sockets, Turns, current_sockets, new_session
from .options import (
    DEFAULT_TIMEOUT,
    ReplayableBody,
    at_most,
    check_headers,
    check_options,
    check_url,
)
from .response import READ_SIZE, Response, bound_decoding

ERROR_BODY_SIZE: Final = 64 * 1024
"""Bytes kept of the body of a response that is no event stream."""
ERROR_BODY_TIME: Final = 1.0
"""Seconds spent at the most on reading such a body."""
MARGIN: Final = 0.5
"""Seconds that `Exchange.limit`, which tells why, is given to be there first."""

OWN_HEADERS: Final = {
    "Accept": "text/event-stream",
    "Cache-Control": "no-cache",
    # A compressing proxy would hold events back to fill its window.
    "Accept-Encoding": "identity",
}
"""Header fields of every request; the caller's take precedence."""

_A = TypeVar("_A")
_T = TypeVar("_T")

logger = logging.getLogger(__name__)


class Transport:
    """What all exchanges of one source have in common: the request and the session.

    Args:
        url: an absolute URL.
        method: the request method.
        session: a session of the caller's, or None for one of our own.
        silence: seconds without a byte that end an exchange on a session of the
            caller's, where `Exchange.limit` cannot end the wait for the headers.
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
        silence: float | None = None,
        options: Mapping[str, Any],
    ) -> None:
        self.url = check_url(url)
        check_options(method, session, options)
        self.method = method.upper()
        self.owns_session = session is None
        self.session = new_session() if session is None else session
        self.options = {"timeout": DEFAULT_TIMEOUT, "allow_redirects": True, **options}
        if session is not None and silence is not None:
            self.options["timeout"] = at_most(self.options["timeout"], silence + MARGIN)
        self._body = ReplayableBody(self.options)
        self.headers: CaseInsensitiveDict[Any] = CaseInsensitiveDict(OWN_HEADERS)
        self.headers.update(self.options.pop("headers", None) or {})
        self.auth = self.options.pop("auth", None)
        self.turns = Turns()

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

        self._body.rewind()
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
        if isinstance(auth, AuthBase) and not isinstance(auth, HTTPBasicAuth):
            request.register_hook("response", _bound_challenge)  # before one of its own
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
            try:
                origin = origin_of(url)
            except ValueError:  # requests has made it, which drops slashes before Python 3.13
                raise _bad_redirect(url) from None
            at_home = at_home and origin == home
            settings = self.session.merge_environment_settings(
                url,
                dict(self.options.get("proxies") or {}),
                True,
                self.options.get("verify"),
                self.options.get("cert"),
            )
            response.close()
            try:
                if not at_home:
                    request = self._bare_request(request, last_event_id)
                    settings["cert"] = None  # nor does the client say who it is
                else:
                    sent = response.request.headers
                    if "Authorization" in request.headers and "Authorization" in sent:
                        request.headers["Authorization"] = sent["Authorization"]  # not .netrc's
                    # requests adds that of the scheme's proxy, which may not be the one in use.
                    request.headers.pop("Proxy-Authorization", None)
                    if "Proxy-Authorization" in sent:
                        request.headers["Proxy-Authorization"] = sent["Proxy-Authorization"]
                response = self.session.send(
                    request, timeout=self.options["timeout"], allow_redirects=False, **settings
                )
            except (
                requests.exceptions.InvalidSchema,
                requests.exceptions.InvalidURL,
                LocationParseError,
            ):
                raise _bad_redirect(url) from None
        return response

    def _bare_request(
        self, request: requests.PreparedRequest, last_event_id: str
    ) -> requests.PreparedRequest:
        """The request for another origin: made anew, so that nothing goes along.

        The last event ID does: it is a place, not a secret. So does the body where
        the redirect keeps it. `.netrc` may have credentials for the new host.
        """
        url = request.url or ""
        in_the_clear = urlsplit(self.url).scheme == "https" != urlsplit(url).scheme
        headers: dict[str, Any] = {**OWN_HEADERS, "User-Agent": default_user_agent()}
        if request.body is not None and "Content-Type" in request.headers:
            headers["Content-Type"] = request.headers["Content-Type"]
        try:
            bare = requests.Request(
                request.method,
                url,
                headers=headers,
                data=request.body,
                auth=get_netrc_auth(url) if self.session.trust_env and not in_the_clear else None,
                hooks=self.options.get("hooks"),
            ).prepare()
        except UnicodeError:  # credentials that the server has put into the URL
            raise requests.exceptions.InvalidURL("not latin-1") from None
        _finish(bare, last_event_id)
        return bare


def _finish(request: requests.PreparedRequest, last_event_id: str) -> None:
    check_headers(request.headers)  # http.client's refusal would quote a bad token
    if last_event_id:
        # As bytes, and past requests' check: UTF-8 as the standard says, and an id
        # may begin with a space.
        request.headers["Last-Event-ID"] = last_event_id.encode()
    request.register_hook("response", _check_redirect)


def _check_redirect(response: requests.Response, **_: Any) -> None:
    if not response.is_redirect:
        return
    # requests reads a redirect's body to its end, and that may never come.
    response.close()
    location = response.headers["Location"]
    try:
        # As requests reads it; its own failures are errors of many kinds.
        target = location.encode("latin-1").decode()
        parts = urlsplit(target)  # without control characters at the beginning
        if parts.netloc and not parts.scheme and not target.startswith("//"):
            raise _bad_redirect(location)
        url = urljoin(response.url, target)
        for form in (url, urlsplit(url).geturl()):  # which may differ before Python 3.13
            urlsplit(form).port  # noqa: B018
    except ValueError:
        raise _bad_redirect(location) from None


def _bad_redirect(location: str) -> requests.ConnectionError:
    # Not InvalidURL: the URL is the server's, which may send another next time.
    return requests.ConnectionError(
        f"redirected to what cannot be fetched: {redact_strictly(location)!r}"
    )


def _bound_challenge(response: requests.Response, **_: Any) -> None:
    # requests' digest authentication, for one, reads the body of a 401 to its end.
    if response.status_code == requests.codes.unauthorized:
        bound_decoding(response.raw)
        body = b""
        if _has_framing(response):
            body = response.raw.read(ERROR_BODY_SIZE, decode_content=True)
        _set_content(response, body)
        if len(body) == ERROR_BODY_SIZE or not _has_framing(response):
            response.raw.close()


def _has_framing(response: requests.Response) -> bool:
    """Whether the end of the body can be told from the end of the connection."""
    return "Content-Length" in response.headers or "Transfer-Encoding" in response.headers


def _set_content(response: requests.Response, body: bytes) -> None:
    response._content = body  # noqa: SLF001 - what `Response.content` returns
    response._content_consumed = True  # noqa: SLF001


class Exchange:
    """One request and its response. One thread opens and reads; any may abort."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._sockets = Sockets(transport.turns)
        # Guards what follows. Re-entrant because a signal handler may call abort()
        # in the thread that holds it; nothing is done under it that waits.
        self._lock = threading.RLock()
        self._inside = False  # a thread is in open() or read()
        self._aborted = False
        self._timed_out = False  # ... by the limit
        self._released = False
        # Only the reading thread writes these:
        self._response: requests.Response | None = None
        self._chunks: Response | None = None  # under it, if ours and not compressed
        self._deadline = Deadline(self._time_out)

    def open(self, last_event_id: str = "") -> requests.Response:
        """Send the request and return the response, when its headers are here.

        Raises:
            Aborted: `abort()` was called, before or meanwhile.
            EventTimeout: the limit has passed.
            Exception: the exchange failed; a `requests.RequestException` but for
                errors of the caller's own `auth` and hooks.
        """

        def send(last_event_id: str) -> requests.Response:
            token = current_sockets.set(self._sockets)
            try:
                self._response = self._transport.send(last_event_id)
            finally:
                current_sockets.reset(token)
            if not self._sockets:  # a session of the caller's
                with contextlib.suppress(OSError, ValueError, AttributeError):  # none below it
                    self._sockets.adopt(self._response.raw.fileno())
            self._sockets.settle()
            bound_decoding(self._response.raw)
            below = getattr(self._response.raw, "_original_response", None)
            if isinstance(below, Response) and "Content-Encoding" not in self._response.headers:
                self._chunks = below
            return self._response

        return self._inside_do(send, last_event_id)

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
        return self._inside_do(self._receive, size)

    def _receive(self, size: int) -> bytes:
        # Past urllib3, which has nothing to add to whole chunks but half of the time.
        assert self._response is not None
        data: bytes = self._chunks.read_chunks(size) if self._chunks is not None else b""
        return data or self._response.raw.read1(size, decode_content=True)

    def read_error_body(self) -> None:
        """Make the body of a response that is no event stream its `content`.

        Best effort, for the program that shows it to a person: what comes within
        `ERROR_BODY_SIZE` and `ERROR_BODY_TIME`, of a body whose end can be told
        from the end of the connection.
        """
        response = self._response
        assert response is not None
        if response._content_consumed:  # noqa: SLF001
            return  # by the answer to a challenge
        body = bytearray()
        if _has_framing(response):
            self.limit(min(ERROR_BODY_TIME, self._deadline.moment - time.monotonic()))
            with contextlib.suppress(requests.RequestException):
                while len(body) < ERROR_BODY_SIZE and (
                    data := self.read(ERROR_BODY_SIZE - len(body))
                ):
                    body += data
        _set_content(response, bytes(body))

    def limit(self, seconds: float) -> None:
        """End the exchange `seconds` from now, unless told otherwise before then.

        `math.inf` takes the limit away. Only the reading thread may call this.
        """
        self._deadline.set(seconds)

    def _time_out(self) -> None:
        self._timed_out = True
        self.abort()

    def abort(self) -> None:
        """End the exchange, whatever it is doing, and release all that it holds.

        Never waits, never raises; any thread, a signal handler too, any number of
        times. A read under way ends with `Aborted`.
        """
        # No lock is waited for under this one: a signal handler may come here from under
        # any other.
        self._aborted = True
        self._sockets.shut_down()
        with self._lock:
            if not self._inside:
                self._release()
        self._release_sockets()

    def renew_locks(self) -> None:
        """There are no other threads any more: one that held a lock will not let go."""
        self._lock = threading.RLock()
        self._sockets.renew_lock()

    def disown(self) -> None:
        """In the child of a fork: be aborted, without a trace in the parent's exchange."""
        self.renew_locks()
        self._aborted = self._released = True
        self._sockets.disown()

    def _inside_do(self, work: Callable[[_A], _T], argument: _A) -> _T:
        with self._lock:
            if self._aborted:
                raise self._abortion()
            self._inside = True
        try:
            try:
                result = work(argument)
            finally:
                with self._lock:
                    self._inside = False
                    if self._aborted:
                        self._release()
                self._release_sockets()
        except Exception as error:
            failure = describe(error)
        else:
            if not self._aborted:
                return result
            failure = None
        if self._aborted or failure is None:
            raise self._abortion()
        # Here, and not where it was caught: there the exception from below, whose text
        # may hold secrets, would become its `__context__`.
        try:
            raise failure
        finally:
            del failure

    def _abortion(self) -> Aborted | EventTimeout:
        return EventTimeout("no message in time") if self._timed_out else Aborted("aborted")

    def _release(self) -> None:
        """Give back sockets, response and, if ours, the session's connections.

        The lock is held, and no thread is inside. Once only: a signal handler may get
        here while this runs, when urllib3's own locks are held; and an abort that
        comes late must not close the session under the next exchange.
        """
        if self._released:
            return
        self._released = True
        steps: list[Callable[[], object]] = [self._deadline.cancel]
        if self._response is not None:
            # Response.close() omits the first after read_error_body().
            steps += [self._response.raw.close, self._response.close]
        if self._transport.owns_session:
            steps.append(self._transport.session.close)
        for step in steps:
            try:
                step()
            except Exception:  # on a dead socket, say; the other steps still count
                logger.debug("while releasing", exc_info=True)

    def _release_sockets(self) -> None:
        # After the others, for by them a fork finds those.
        if self._released:
            self._sockets.release()
