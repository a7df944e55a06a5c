"""The redirects of a request: which fields, cookies, credentials and bodies go to which origin.

The invariant: another origin is sent nothing that the caller gave, except the last event ID,
`Accept` and `User-Agent`, which are no secrets. There are three kinds of origins:

- *home*, that of the first request. It is sent what the caller gave.
- Those that the caller *trusts* by name are sent everything that home is sent.
- Any other is a *stranger*. From the first stranger on, every origin is treated as one, even
  home.

The origin is that of the URL to which the connection is then made.
"""

from __future__ import annotations

import http.cookiejar
from typing import Any, Final
from urllib.parse import urlsplit

import requests
from requests.cookies import RequestsCookieJar, cookiejar_from_dict, merge_cookies
from requests.sessions import merge_hooks
from requests.utils import get_auth_from_url
from urllib3.exceptions import LocationParseError

from eventsource.urls import origin_of

from .options import is_fetchable
from .request import OWN_HEADERS, Attempt, RequestTemplate, bad_redirect

_FOR_EVERYBODY: Final = ("Accept", "User-Agent")
"""Fields of the caller's that strangers are sent, too: they are no secrets."""
_NO_CREDENTIALS: Final = frozenset(
    (
        *("accept", "accept-encoding", "cache-control", "connection", "host", "user-agent"),
        *("content-length", "content-type", "transfer-encoding"),
        *("last-event-id", "proxy-authorization"),
    )
)
"""Fields by which no server identifies a client."""
_WITHHELD: Final = "_eventsource_withheld_from"


def send(
    template: RequestTemplate, session: requests.Session, last_event_id: str
) -> requests.Response:
    """Send the request, follow redirects, return the response, its body unread.

    `response.history` has the redirects, in order and closed, as with requests.
    """
    attempt = Attempt(template, session, last_event_id)
    response = attempt.send()
    if not template.options["allow_redirects"]:
        return response
    redirects = _Redirects(attempt, origin_of(response.request.url or template.url))
    history: list[requests.Response] = []
    while (request := response.next) is not None:
        if len(history) == session.max_redirects:
            raise requests.TooManyRedirects(
                f"more than {len(history)} redirects", response=response
            )
        history.append(response)
        response = redirects.follow(response, request)
        response.history = [*history]
    return response


def withheld_from(response: requests.Response) -> str | None:
    """Return the first origin on the way to a response that was not sent the credentials.

    Returns:
        The first that is not trusted; None if all were, or if the caller gave no credentials:
        no `auth`, cookies or client certificate, and no fields but our own.
    """
    return getattr(response, _WITHHELD, None)


class _Redirects:
    """The way of one attempt from its home origin, a redirect at a time."""

    def __init__(self, attempt: Attempt, home: str) -> None:
        self._attempt = attempt
        self._home = home
        self._here = home  # the origin of the last request
        self._stranger: str | None = None  # the first on the way
        self._withheld_from: str | None = None  # the same, if the caller gave credentials

    def follow(
        self, response: requests.Response, request: requests.PreparedRequest
    ) -> requests.Response:
        """Close a response and return the next: to the `request` that requests has made of it."""
        location = request.url or ""
        origin = _prepare_url(request)
        settings = self._attempt.settings(request.url or "")
        trusted = self._attempt.template.trusted_origins
        if self._stranger is None and origin != self._home and origin not in trusted:
            self._stranger = origin
            if settings["cert"] or self._gives_credentials():
                self._withheld_from = origin
        response.close()
        try:
            if self._stranger is not None:
                request = self._for_stranger(request)
                settings["cert"] = None  # the client certificate is a credential, too
            elif origin != self._here:
                request = self._for_trusted(request, is_home=origin == self._home)
            else:
                self._keep_credentials(request, response.request)
            response = self._attempt.session.send(
                request,
                timeout=self._attempt.template.options["timeout"],
                allow_redirects=False,
                **settings,
            )
        except (
            requests.exceptions.InvalidSchema,
            requests.exceptions.InvalidURL,
            LocationParseError,
        ):
            raise bad_redirect(location) from None
        self._here = origin
        if self._withheld_from is not None:
            setattr(response, _WITHHELD, self._withheld_from)
        return response

    def _gives_credentials(self) -> bool:
        """Whether the caller gave anything by which a server may identify the client."""
        return (
            self._attempt.template.auth is not None
            or self._attempt.session.auth is not None
            or any(get_auth_from_url(self._attempt.template.url))
            or any(name.lower() not in _NO_CREDENTIALS for name in self._attempt.given)
        )

    def _keep_credentials(
        self, request: requests.PreparedRequest, sent: requests.PreparedRequest
    ) -> None:
        """Within an origin, send the same credentials again, and no others.

        requests always adds those of `.netrc`, and those of the scheme's proxy, which may not
        be the one in use. It drops the caller's own field `Cookie`.
        """
        for name in ("Authorization", "Proxy-Authorization"):
            request.headers.pop(name, None)
            if name in sent.headers:
                request.headers[name] = sent.headers[name]
        if self._attempt.own_field("Cookie"):
            request.headers["Cookie"] = self._attempt.given["Cookie"]

    def _for_trusted(
        self, request: requests.PreparedRequest, *, is_home: bool
    ) -> requests.PreparedRequest:
        """Return the request for another, trusted origin: a new one, for which `auth` runs."""
        options, session = self._attempt.template.options, self._attempt.session
        headers = self._attempt.given.copy()
        if not is_home:
            headers.pop("Host", None)
        if not self._attempt.own_field("Cookie"):
            headers.pop("Cookie", None)  # those of the jar that are for this host are added
        for name in ("Content-Length", "Transfer-Encoding"):
            headers.pop(name, None)
        if request.body is None:
            headers.pop("Content-Type", None)
        cookies = options.get("cookies") or {}
        if not isinstance(cookies, http.cookiejar.CookieJar):
            cookies = cookiejar_from_dict(cookies)
        return requests.Request(
            request.method,
            request.url,
            headers=headers,
            data=request.body,
            cookies=merge_cookies(merge_cookies(RequestsCookieJar(), session.cookies), cookies),
            auth=self._attempt.finish,
            hooks=merge_hooks(options.get("hooks") or {}, session.hooks),
        ).prepare()

    def _for_stranger(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """Return the request for an untrusted origin: a new one, without the caller's fields.

        It has the last event ID, the fields of `_FOR_EVERYBODY`, the body if the redirect
        keeps it, and credentials that `.netrc` has for the new host.
        """
        given = self._attempt.given
        headers: dict[str, Any] = {
            **OWN_HEADERS,
            **{name: given[name] for name in _FOR_EVERYBODY if name in given},
        }
        if request.body is not None and "Content-Type" in request.headers:
            headers["Content-Type"] = request.headers["Content-Type"]
        try:
            bare = requests.Request(
                request.method,
                request.url,
                headers=headers,
                data=request.body,
                auth=self._attempt.netrc_auth(request.url or ""),
                hooks=self._attempt.template.options.get("hooks"),
            ).prepare()
        except UnicodeError:  # credentials that the server has put into the URL
            raise requests.exceptions.InvalidURL("not latin-1") from None
        self._attempt.finish_bare(bare)
        return bare


def _prepare_url(request: requests.PreparedRequest) -> str:
    """Make the URL of a redirect that of the connection; return its origin.

    Raises:
        requests.ConnectionError: it cannot be fetched.
    """
    location = request.url or ""
    try:
        request.prepare_url(location, None)
        url = request.url or ""
        origin = origin_of(url)
        # An assertion in http.client fails for a host with a percent sign.
        is_good = is_fetchable(url) or urlsplit(url).scheme not in ("http", "https")
    except (ValueError, LocationParseError):
        raise bad_redirect(location) from None
    if not is_good:
        raise bad_redirect(location)
    return origin
