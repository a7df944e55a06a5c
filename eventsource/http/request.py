"""The request of a stream: made anew for each attempt, with its credentials and redirects.

The rule for redirects: to another origin goes nothing that the caller gave, but for the last
event ID, which is no secret.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urljoin, urlsplit

import requests
from requests.auth import AuthBase, HTTPBasicAuth
from requests.structures import CaseInsensitiveDict
from requests.utils import default_user_agent, get_auth_from_url, get_netrc_auth
from urllib3.exceptions import LocationParseError

from eventsource.urls import origin_of, redact_strictly

from .adapter import check_upstream, check_verify, new_session, set_content
from .cookies import CookieJar
from .options import (
    DEFAULT_TIMEOUT,
    ReplayableBody,
    at_most,
    check_headers,
    check_options,
    check_url,
)
from .sockets import AddressRotation

ERROR_BODY_SIZE: Final = 64 * 1024
"""Bytes kept of the body of a response that is no event stream."""
MARGIN: Final = 0.5
"""Seconds that the limit of an exchange, which says why it ended, has to come first."""

OWN_HEADERS: Final = {
    "Accept": "text/event-stream",
    "Cache-Control": "no-cache",
    # A compressing proxy would hold events back to fill its window.
    "Accept-Encoding": "identity",
}
"""Header fields of every request; the caller's take precedence."""


class RequestTemplate:
    """What all attempts of one stream have in common: the request, and the session.

    Args:
        url: an absolute URL.
        method: the request method.
        session: a session of the caller's, or None for one of our own.
        silence: seconds without a byte that end an exchange on a session of the
            caller's, where nothing else ends the wait for the head.
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
        self._session = session
        self.cookies = CookieJar()
        """What servers set, on sessions of our own: there is one for each attempt."""
        if session is None:
            check_upstream()  # here, and not in a thread, where nobody would be told
        else:
            check_verify(session, url, options.get("verify"))
        self.options = {"timeout": DEFAULT_TIMEOUT, "allow_redirects": True, **options}
        if session is not None and silence is not None:
            self.options["timeout"] = at_most(self.options["timeout"], silence + MARGIN)
        self._body = ReplayableBody(self.options)
        self.headers: CaseInsensitiveDict[Any] = CaseInsensitiveDict(OWN_HEADERS)
        self.headers.update(self.options.pop("headers", None) or {})
        self.auth = self.options.pop("auth", None)
        self.rotation = AddressRotation()

    def session(self) -> requests.Session:
        """Return the session for one attempt. One of our own is to be closed after it."""
        return new_session(self.cookies) if self._session is None else self._session

    def send(self, session: requests.Session, last_event_id: str) -> requests.Response:
        """Send the request, follow redirects, return the response, its body unread."""

        def finish(request: requests.PreparedRequest) -> requests.PreparedRequest:
            # Runs as the request's `auth`: the last step of preparing it. So
            # sessions that override `request()` to add tokens of their own work.
            request = self._authorize(session, request)
            _finish(request, last_event_id)
            return request

        self._body.rewind()
        options = dict(self.options)
        follow = options.pop("allow_redirects")
        options["proxies"] = dict(options.get("proxies") or {})  # the session adds to it
        response = session.request(
            self.method,
            self.url,
            headers=self.headers,
            auth=finish,
            stream=True,
            allow_redirects=False,
            **options,
        )
        return self._follow_redirects(session, response, last_event_id) if follow else response

    def _authorize(
        self, session: requests.Session, request: requests.PreparedRequest
    ) -> requests.PreparedRequest:
        """Add credentials: what the caller gave most explicitly wins, `.netrc` is last."""
        auth: Any = self.auth
        if auth is None and "Authorization" not in request.headers:
            auth = session.auth
            if auth is None:
                auth = get_auth_from_url(self.url)
                if not any(auth):
                    auth = get_netrc_auth(self.url) if session.trust_env else None
        if type(auth) is tuple:
            auth = HTTPBasicAuth(*auth)
        if isinstance(auth, AuthBase) and not isinstance(auth, HTTPBasicAuth):
            request.register_hook("response", _bound_challenge)  # before one of its own
        return auth(request) if auth is not None else request

    def _follow_redirects(
        self, session: requests.Session, response: requests.Response, last_event_id: str
    ) -> requests.Response:
        home = origin_of(response.request.url or self.url)
        at_home = True  # false for good once another origin has been asked
        followed = 0
        while (request := response.next) is not None:
            if followed == session.max_redirects:
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
            settings = session.merge_environment_settings(
                url,
                dict(self.options.get("proxies") or {}),
                True,
                self.options.get("verify"),
                self.options.get("cert"),
            )
            response.close()
            try:
                if not at_home:
                    request = self._bare_request(session, request, last_event_id)
                    settings["cert"] = None  # nor does the client say who it is
                else:
                    sent = response.request.headers
                    if "Authorization" in request.headers and "Authorization" in sent:
                        request.headers["Authorization"] = sent["Authorization"]  # not .netrc's
                    # requests adds that of the scheme's proxy, which may not be the one in use.
                    request.headers.pop("Proxy-Authorization", None)
                    if "Proxy-Authorization" in sent:
                        request.headers["Proxy-Authorization"] = sent["Proxy-Authorization"]
                response = session.send(
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
        self, session: requests.Session, request: requests.PreparedRequest, last_event_id: str
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
                auth=get_netrc_auth(url) if session.trust_env and not in_the_clear else None,
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
        body = b""
        if has_framing(response):
            body = response.raw.read(ERROR_BODY_SIZE, decode_content=True)
        set_content(response, body)
        if len(body) == ERROR_BODY_SIZE or not has_framing(response):
            response.raw.close()


def has_framing(response: requests.Response) -> bool:
    """Whether the end of the body can be told from the end of the connection."""
    return "Content-Length" in response.headers or "Transfer-Encoding" in response.headers
