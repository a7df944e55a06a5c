"""The request of a stream: made for each attempt, with its credentials.

`redirects.py` sends it, and says which parts of it other origins are sent.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Collection, Mapping
from typing import Any, Final
from urllib.parse import urljoin, urlsplit

import requests
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase, HTTPBasicAuth
from requests.structures import CaseInsensitiveDict
from requests.utils import (
    default_user_agent,
    get_auth_from_url,
    get_netrc_auth,
    select_proxy,
)

from eventsource.urls import redact_strictly
from eventsource.version import __version__

from .adapter import check_upstream, check_verify, new_session, set_content
from .cookies import CookieJar
from .failures import NoSocksSupport
from .options import (
    BAD_SOCKS,
    DEFAULT_TIMEOUT,
    ReplayableBody,
    at_most,
    check_headers,
    check_options,
    check_origins,
    check_sendable,
    check_url,
    has_unknown_socks_scheme,
)

ERROR_BODY_SIZE: Final = 64 * 1024
"""The most bytes kept of a body that is not an event stream."""
MARGIN: Final = 0.5
"""Seconds that requests waits longer than the limit of an exchange: the limit's error says why."""

OWN_HEADERS: Final = {
    "Accept": "text/event-stream",
    "Cache-Control": "no-cache",
    # A compressing proxy would hold events back to fill its window.
    "Accept-Encoding": "identity",
}
"""Header fields of every request; the caller's take precedence."""
USER_AGENT: Final = f"eventsource-client/{__version__}"
"""Sent in place of requests' own, which some public servers refuse."""


class RequestTemplate:
    """What all attempts of one stream have in common: the request, and the session.

    Args:
        url: an absolute URL.
        method: the request method.
        session: a session of the caller's, or None for one of our own.
        silence: seconds without a byte that end an exchange on a session of the
            caller's, where nothing else ends the wait for the head.
        trusted_origins: `scheme://host[:port]` each; a redirect there sends everything along.
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
        trusted_origins: Collection[str] = (),
        options: Mapping[str, Any],
    ) -> None:
        self.url = check_url(url, has_own_session=session is None)
        self.trusted_origins = check_origins("trusted_origins", trusted_origins)
        check_options(method, session, options)
        self.method = method.upper()
        self.owns_session = session is None
        self._session = session
        self.cookies = CookieJar()
        """What servers set. Each attempt has a session of its own, and all share this jar."""
        if session is None:
            check_upstream()  # here, so that the caller gets the error, and not a thread
        else:
            check_verify(session, url, options.get("verify"))
        self.options = {"timeout": DEFAULT_TIMEOUT, "allow_redirects": True, **options}
        if session is not None and silence is not None:
            self.options["timeout"] = at_most(self.options["timeout"], silence + MARGIN)
        self.body = ReplayableBody(self.options)
        self.headers: CaseInsensitiveDict[Any] = CaseInsensitiveDict(OWN_HEADERS)
        for name, value in (self.options.pop("headers", None) or {}).items():
            # Else a name in bytes would not replace ours.
            self.headers[name.decode("latin-1") if isinstance(name, bytes) else name] = value
        self.auth = self.options.pop("auth", None)

    def session(self) -> requests.Session:
        """Return the session for one attempt. The caller closes it if `owns_session`."""
        return new_session(self.cookies) if self._session is None else self._session


class Attempt:
    """The request of one attempt: what a template has, on one session.

    Args:
        template: what the caller gave.
        session: sends the request.
        last_event_id: `""`: none.
    """

    def __init__(
        self, template: RequestTemplate, session: requests.Session, last_event_id: str
    ) -> None:
        self.template = template
        self.session = session
        self.given: CaseInsensitiveDict[Any] = CaseInsensitiveDict()
        """The fields of the first request, without those of `auth`."""
        self._last_event_id = last_event_id

    def send(self) -> requests.Response:
        """Send the request, follow no redirect, return the response, its body unread."""
        template = self.template
        template.body.rewind()
        options = dict(template.options)
        options["allow_redirects"] = False
        options["proxies"] = dict(options.get("proxies") or {})  # the session adds to it
        options["params"] = self._params()
        self.settings(template.url)  # refuses a proxy that cannot be used
        return self.session.request(
            template.method,
            template.url,
            headers=self._headers(),
            auth=self.finish,
            stream=True,
            **options,
        )

    def _headers(self) -> CaseInsensitiveDict[Any]:
        """Return the caller's fields and ours, with our `User-Agent` if the caller gave none."""
        headers = self.template.headers.copy()
        if self.session.headers.get("User-Agent") in (None, default_user_agent()):
            headers.setdefault("User-Agent", USER_AGENT)
        return headers

    def _params(self) -> Any:
        """Return the parameters of this attempt."""
        params = self.template.options.get("params")
        if not callable(params):
            return params
        place = self._last_event_id or self.own_field("Last-Event-ID") or ""
        params = params(place.decode("utf-8", "replace") if isinstance(place, bytes) else place)
        try:
            check_sendable("params", params)
        except (TypeError, ValueError) as error:
            text = str(error)
        else:
            return params
        # A RequestException, so that its text is logged; without `__context__`, as in Exchange.
        raise requests.RequestException(f"{text} (returned by the function)")

    def own_field(self, name: str) -> Any:
        """Return a header field that the caller gave, or None."""
        return self.template.headers.get(name, self.session.headers.get(name))

    def settings(self, url: str) -> dict[str, Any]:
        """Return `proxies`, `verify` and `cert` for a URL: of options, session, environment.

        Raises:
            requests.RequestException: the proxy cannot be used.
        """
        options = self.template.options
        settings = dict(
            self.session.merge_environment_settings(
                url,
                dict(options.get("proxies") or {}),
                True,
                options.get("verify"),
                options.get("cert"),
            )
        )
        _check_proxy(self.session, url, settings["proxies"])
        return settings

    def finish(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """Add credentials, and what `finish_bare` adds.

        It runs as the `auth` of the request, the last step of preparing it. So sessions that
        override `request()` to add tokens of their own also work.
        """
        if not self.given:
            self.given.update(request.headers)
        request = self._authorize(request)
        self.finish_bare(request)
        return request

    def finish_bare(self, request: requests.PreparedRequest) -> None:
        """Add the last event ID, and the check of redirects; refuse fields that cannot be sent."""
        check_headers(request.headers)  # http.client's refusal would quote a bad token
        if place := self._last_event_id:
            # Set after requests' check, because an ID may begin with a space. Encoded in UTF-8,
            # as the standard says; http.client encodes text in Latin-1.
            request.headers["Last-Event-ID"] = place if place.isascii() else place.encode()
        request.register_hook("response", _check_redirect)

    def _authorize(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """Add credentials. The caller's most explicit ones take precedence; `.netrc` is last."""
        url = request.url or self.template.url
        auth: Any = self.template.auth
        if auth is None and "Authorization" not in request.headers:
            auth = self.session.auth
            if auth is None:
                auth = get_auth_from_url(self.template.url)
                if not any(auth):
                    auth = get_auth_from_url(url)  # which a redirect may have
                if not any(auth):
                    auth = self.netrc_auth(url)
        if type(auth) is tuple:
            auth = HTTPBasicAuth(*auth)
        if isinstance(auth, AuthBase) and not isinstance(auth, HTTPBasicAuth):
            request.register_hook("response", _bound_challenge)  # before the hooks of `auth`
        if auth is None:
            return request
        authorized = auth(request)
        if not isinstance(authorized, requests.PreparedRequest):
            raise TypeError(f"auth must return the request, not {type(authorized).__name__}")
        return authorized

    def netrc_auth(self, url: str) -> tuple[str, str] | None:
        """Return what `.netrc` has for a host, unless a redirect leads from https to http."""
        in_the_clear = urlsplit(self.template.url).scheme == "https" != urlsplit(url).scheme
        return get_netrc_auth(url) if self.session.trust_env and not in_the_clear else None


def _check_proxy(session: requests.Session, url: str, proxies: Any) -> None:
    """Refuse a SOCKS proxy that cannot be used: urllib3 would quote its URL, with the password."""
    proxy = select_proxy(url, proxies) or ""
    if not proxy.lower().startswith("socks"):
        return
    if has_unknown_socks_scheme(proxy):
        raise requests.exceptions.InvalidProxyURL(f"the proxy's URL {BAD_SOCKS}")
    if isinstance(session.get_adapter(url), HTTPAdapter) and not importlib.util.find_spec("socks"):
        raise NoSocksSupport("a SOCKS proxy needs PySocks: python -m pip install PySocks")


def _check_redirect(response: requests.Response, **_: Any) -> None:
    if not response.is_redirect:
        return
    # Else requests would read the redirect's body to its end, which may never come.
    response.close()
    location = response.headers["Location"]
    try:
        # Decoded as requests does it, whose own failures are of many types.
        target = location.encode("latin-1").decode()
        parts = urlsplit(target)  # without control characters at the beginning
        if parts.netloc and not parts.scheme and not target.startswith("//"):
            raise bad_redirect(location)
        url = urljoin(response.url, target)
        for form in (url, urlsplit(url).geturl()):  # which may differ before Python 3.13
            urlsplit(form).port  # noqa: B018
    except ValueError:
        raise bad_redirect(location) from None


def bad_redirect(location: str) -> requests.ConnectionError:
    """Return the error for a redirect to a URL that cannot be fetched."""
    # Not InvalidURL, which is final: the server may send another URL next time.
    return requests.ConnectionError(
        f"redirected to a URL that cannot be fetched: {redact_strictly(location)!r}"
    )


def _bound_challenge(response: requests.Response, **_: Any) -> None:
    # For example, requests' digest authentication reads the body of a 401 to its end.
    if response.status_code == requests.codes.unauthorized:
        body = b""
        if has_framing(response):
            body = response.raw.read(ERROR_BODY_SIZE, decode_content=True)
        set_content(response, body)
        if len(body) == ERROR_BODY_SIZE or not has_framing(response):
            response.raw.close()


def has_framing(response: requests.Response) -> bool:
    """Whether something else than the end of the connection marks the end of the body."""
    return "Content-Length" in response.headers or "Transfer-Encoding" in response.headers
