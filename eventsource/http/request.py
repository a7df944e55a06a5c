"""The request of a stream: made for each attempt, with its credentials and redirects.

The rule for redirects: another origin is sent nothing that the caller gave, except the last
event ID, `Accept` and `User-Agent`, which are no secrets. Origins that the caller trusts by
name are sent everything that the first origin is sent. After a redirect to any other origin,
no later origin is sent that, not even the first. The origin is that of the URL to which the
connection is then made.
"""

from __future__ import annotations

import http.cookiejar
import importlib.util
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final
from urllib.parse import urljoin, urlsplit

import requests
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase, HTTPBasicAuth
from requests.cookies import RequestsCookieJar, cookiejar_from_dict, merge_cookies
from requests.sessions import merge_hooks
from requests.structures import CaseInsensitiveDict
from requests.utils import (
    default_user_agent,
    get_auth_from_url,
    get_netrc_auth,
    select_proxy,
)
from urllib3.exceptions import LocationParseError

from eventsource.urls import origin_of, redact_strictly
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
    is_fetchable,
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
_FOR_EVERYBODY: Final = ("Accept", "User-Agent")
"""Fields of the caller's that other origins are sent, too: they are no secrets."""
_NO_CREDENTIALS: Final = frozenset(
    (
        *("accept", "accept-encoding", "cache-control", "connection", "host", "user-agent"),
        *("content-length", "content-type", "transfer-encoding"),
        *("last-event-id", "proxy-authorization"),
    )
)
"""Fields by which no server identifies a client."""
_WITHHELD: Final = "_eventsource_withheld_from"


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
        self._body = ReplayableBody(self.options)
        self.headers: CaseInsensitiveDict[Any] = CaseInsensitiveDict(OWN_HEADERS)
        for name, value in (self.options.pop("headers", None) or {}).items():
            # Else a name in bytes would not replace ours.
            self.headers[name.decode("latin-1") if isinstance(name, bytes) else name] = value
        self.auth = self.options.pop("auth", None)

    def session(self) -> requests.Session:
        """Return the session for one attempt. The caller closes it if `owns_session`."""
        return new_session(self.cookies) if self._session is None else self._session

    def send(self, session: requests.Session, last_event_id: str) -> requests.Response:
        """Send the request, follow redirects, return the response, its body unread.

        `response.history` has the redirects, in order and closed, as with requests.
        """
        given = CaseInsensitiveDict[Any]()  # the first request's fields, without those of `auth`

        def finish(request: requests.PreparedRequest) -> requests.PreparedRequest:
            # Runs as the request's `auth`, the last step of preparing it. So sessions
            # that override `request()` to add tokens of their own also work.
            if not given:
                given.update(request.headers)
            request = self._authorize(session, request)
            _finish(request, last_event_id)
            return request

        self._body.rewind()
        options = dict(self.options)
        follow = options.pop("allow_redirects")
        options["proxies"] = dict(options.get("proxies") or {})  # the session adds to it
        options["params"] = self._params(session, last_event_id)
        _check_proxy(session, self.url, self._settings(session, self.url)["proxies"])
        response = session.request(
            self.method,
            self.url,
            headers=self._headers(session),
            auth=finish,
            stream=True,
            allow_redirects=False,
            **options,
        )
        if not follow:
            return response
        return self._follow_redirects(session, response, last_event_id, given, finish)

    def _headers(self, session: requests.Session) -> CaseInsensitiveDict[Any]:
        """Return the caller's fields and ours, with our `User-Agent` if the caller gave none."""
        headers = self.headers.copy()
        if session.headers.get("User-Agent") in (None, default_user_agent()):
            headers.setdefault("User-Agent", USER_AGENT)
        return headers

    def _own_field(self, session: requests.Session, name: str) -> Any:
        """Return a header field that the caller gave, or None."""
        return self.headers.get(name, session.headers.get(name))

    def _params(self, session: requests.Session, last_event_id: str) -> Any:
        """Return the parameters of this attempt."""
        params = self.options.get("params")
        if not callable(params):
            return params
        place = last_event_id or self._own_field(session, "Last-Event-ID") or ""
        params = params(place.decode("utf-8", "replace") if isinstance(place, bytes) else place)
        try:
            check_sendable("params", params)
        except (TypeError, ValueError) as error:
            text = str(error)
        else:
            return params
        # A RequestException, so that its text is logged; without `__context__`, as in Exchange.
        raise requests.RequestException(f"{text} (returned by the function)")

    def _settings(self, session: requests.Session, url: str) -> dict[str, Any]:
        """Return `proxies`, `verify` and `cert` for a URL: of options, session, environment."""
        return dict(
            session.merge_environment_settings(
                url,
                dict(self.options.get("proxies") or {}),
                True,
                self.options.get("verify"),
                self.options.get("cert"),
            )
        )

    def _authorize(
        self, session: requests.Session, request: requests.PreparedRequest
    ) -> requests.PreparedRequest:
        """Add credentials. The caller's most explicit ones take precedence; `.netrc` is last."""
        url = request.url or self.url
        auth: Any = self.auth
        if auth is None and "Authorization" not in request.headers:
            auth = session.auth
            if auth is None:
                auth = get_auth_from_url(self.url)
                if not any(auth):
                    auth = get_auth_from_url(url)  # which a redirect may have
                if not any(auth):
                    auth = self._netrc_auth(session, url)
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

    def _netrc_auth(self, session: requests.Session, url: str) -> tuple[str, str] | None:
        """Return what `.netrc` has for a host, unless a redirect leads from https to http."""
        in_the_clear = urlsplit(self.url).scheme == "https" != urlsplit(url).scheme
        return get_netrc_auth(url) if session.trust_env and not in_the_clear else None

    def _follow_redirects(
        self,
        session: requests.Session,
        response: requests.Response,
        last_event_id: str,
        given: CaseInsensitiveDict[Any],
        finish: Callable[[requests.PreparedRequest], requests.PreparedRequest],
    ) -> requests.Response:
        home = here = origin_of(response.request.url or self.url)
        stranger: str | None = None  # the first origin that is not trusted
        withheld = False
        history: list[requests.Response] = []
        while (request := response.next) is not None:
            if len(history) == session.max_redirects:
                raise requests.TooManyRedirects(
                    f"more than {len(history)} redirects", response=response
                )
            location = request.url or ""
            try:
                request.prepare_url(location, None)  # the URL of the connection
                url = request.url or ""
                origin = origin_of(url)
                # An assertion in http.client fails for a host with a percent sign.
                is_good = is_fetchable(url) or urlsplit(url).scheme not in ("http", "https")
            except (ValueError, LocationParseError):
                raise _bad_redirect(location) from None
            if not is_good:
                raise _bad_redirect(location)
            settings = self._settings(session, url)
            _check_proxy(session, url, settings["proxies"])
            if stranger is None and origin != home and origin not in self.trusted_origins:
                stranger = origin
                withheld = bool(settings["cert"]) or self._gives_credentials(session, given)
            response.close()
            history.append(response)
            try:
                if stranger is not None:
                    request = self._bare_request(session, request, last_event_id, given)
                    settings["cert"] = None  # the client certificate is a credential, too
                elif origin != here:
                    request = self._whole_request(session, request, given, finish, origin == home)
                else:
                    _keep_fields(request, response.request)
                    if self._own_field(session, "Cookie"):  # which requests drops
                        request.headers["Cookie"] = given["Cookie"]
                response = session.send(
                    request, timeout=self.options["timeout"], allow_redirects=False, **settings
                )
            except (
                requests.exceptions.InvalidSchema,
                requests.exceptions.InvalidURL,
                LocationParseError,
            ):
                raise _bad_redirect(location) from None
            here = origin
            response.history = [*history]
            if withheld:
                setattr(response, _WITHHELD, stranger)
        return response

    def _gives_credentials(
        self, session: requests.Session, given: CaseInsensitiveDict[Any]
    ) -> bool:
        """Whether the caller gave anything by which a server may identify the client."""
        return (
            self.auth is not None
            or session.auth is not None
            or any(get_auth_from_url(self.url))
            or any(name.lower() not in _NO_CREDENTIALS for name in given)
        )

    def _whole_request(
        self,
        session: requests.Session,
        request: requests.PreparedRequest,
        given: CaseInsensitiveDict[Any],
        finish: Callable[[requests.PreparedRequest], requests.PreparedRequest],
        is_home: bool,
    ) -> requests.PreparedRequest:
        """Return the request for another, trusted origin: a new one, for which `auth` runs."""
        headers = given.copy()
        if not is_home:
            headers.pop("Host", None)
        if not self._own_field(session, "Cookie"):
            headers.pop("Cookie", None)  # those of the jar that are for this host are added
        for name in ("Content-Length", "Transfer-Encoding"):
            headers.pop(name, None)
        if request.body is None:
            headers.pop("Content-Type", None)
        cookies = self.options.get("cookies") or {}
        if not isinstance(cookies, http.cookiejar.CookieJar):
            cookies = cookiejar_from_dict(cookies)
        return requests.Request(
            request.method,
            request.url,
            headers=headers,
            data=request.body,
            cookies=merge_cookies(merge_cookies(RequestsCookieJar(), session.cookies), cookies),
            auth=finish,
            hooks=merge_hooks(self.options.get("hooks") or {}, session.hooks),
        ).prepare()

    def _bare_request(
        self,
        session: requests.Session,
        request: requests.PreparedRequest,
        last_event_id: str,
        given: CaseInsensitiveDict[Any],
    ) -> requests.PreparedRequest:
        """Return the request for an untrusted origin: a new one, without the caller's fields.

        It has the last event ID, the fields of `_FOR_EVERYBODY`, the body if the redirect
        keeps it, and credentials that `.netrc` has for the new host.
        """
        url = request.url or ""
        headers: dict[str, Any] = {
            **OWN_HEADERS,
            **{name: given[name] for name in _FOR_EVERYBODY if name in given},
        }
        if request.body is not None and "Content-Type" in request.headers:
            headers["Content-Type"] = request.headers["Content-Type"]
        try:
            bare = requests.Request(
                request.method,
                url,
                headers=headers,
                data=request.body,
                auth=self._netrc_auth(session, url),
                hooks=self.options.get("hooks"),
            ).prepare()
        except UnicodeError:  # credentials that the server has put into the URL
            raise requests.exceptions.InvalidURL("not latin-1") from None
        _finish(bare, last_event_id)
        return bare


def withheld_from(response: requests.Response) -> str | None:
    """Return the first origin on the way to a response that was not sent the credentials.

    Returns:
        The first that is not trusted; None if all were, or if the caller gave no credentials:
        no `auth`, cookies or client certificate, and no fields but our own.
    """
    return getattr(response, _WITHHELD, None)


def _keep_fields(request: requests.PreparedRequest, sent: requests.PreparedRequest) -> None:
    """Within an origin, send the same credentials again, and no others.

    requests always adds those of `.netrc`, and those of the scheme's proxy, which may not be
    the one in use.
    """
    for name in ("Authorization", "Proxy-Authorization"):
        request.headers.pop(name, None)
        if name in sent.headers:
            request.headers[name] = sent.headers[name]


def _check_proxy(session: requests.Session, url: str, proxies: Any) -> None:
    """Refuse a SOCKS proxy that cannot be used: urllib3 would quote its URL, with the password."""
    proxy = select_proxy(url, proxies) or ""
    if not proxy.lower().startswith("socks"):
        return
    if has_unknown_socks_scheme(proxy):
        raise requests.exceptions.InvalidProxyURL(f"the proxy's URL {BAD_SOCKS}")
    if isinstance(session.get_adapter(url), HTTPAdapter) and not importlib.util.find_spec("socks"):
        raise NoSocksSupport("a SOCKS proxy needs PySocks: python -m pip install PySocks")


def _finish(request: requests.PreparedRequest, last_event_id: str) -> None:
    check_headers(request.headers)  # http.client's refusal would quote a bad token
    if last_event_id:
        # Set after requests' check, because an ID may begin with a space. Encoded in UTF-8, as
        # the standard says; http.client encodes text in Latin-1.
        is_plain = last_event_id.isascii()
        request.headers["Last-Event-ID"] = last_event_id if is_plain else last_event_id.encode()
    request.register_hook("response", _check_redirect)


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
            raise _bad_redirect(location)
        url = urljoin(response.url, target)
        for form in (url, urlsplit(url).geturl()):  # which may differ before Python 3.13
            urlsplit(form).port  # noqa: B018
    except ValueError:
        raise _bad_redirect(location) from None


def _bad_redirect(location: str) -> requests.ConnectionError:
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
