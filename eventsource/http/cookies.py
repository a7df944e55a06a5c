"""Cookies, bounded in number and size, so that no server can do harm with them."""

from __future__ import annotations

import http.client
import re
from typing import Any, Final

from requests.cookies import RequestsCookieJar

MAX_COOKIES: Final = 100
"""The most cookies that our sessions store: twice what RFC 6265, 6.1, demands for one host."""
MAX_COOKIE_SIZE: Final = 4096
"""The most characters of a `Set-Cookie` field: the minimum of RFC 6265, 6.1, for clients."""
_BAD_AGE: Final = re.compile(r";\s*max-age\s*(?:;|$|=[^;]*[0-9]{16})", re.IGNORECASE)
"""A `Max-Age` at which the standard library's jar fails: without a value, or too large."""


def drop_bad_cookies(headers: http.client.HTTPMessage) -> None:
    """Remove from a response's head the cookies at which the standard library's jar fails.

    It would print a traceback, and lose the other cookies.
    """
    del headers["Set-Cookie2"]  # obsolete (RFC 6265)
    cookies = headers.get_all("Set-Cookie", [])
    del headers["Set-Cookie"]
    for cookie in cookies:
        if len(cookie) <= MAX_COOKIE_SIZE and not _BAD_AGE.search(cookie):
            headers.add_header("Set-Cookie", cookie)


class CookieJar(RequestsCookieJar):
    """A jar of at most `MAX_COOKIES` cookies: beyond that the oldest are dropped."""

    def __init__(self) -> None:
        super().__init__()
        self._by_age: dict[tuple[str, str, str], Any] = {}

    def set_cookie(self, cookie: Any, *args: Any, **kwargs: Any) -> None:
        """Put a cookie into the jar."""
        super().set_cookie(cookie, *args, **kwargs)
        key = (cookie.domain, cookie.path, cookie.name)
        self._by_age.pop(key, None)
        self._by_age[key] = cookie
        if len(self._by_age) > MAX_COOKIES:
            del self._by_age[next(iter(self._by_age))]
            self._fill()

    def clear(
        self, domain: str | None = None, path: str | None = None, name: str | None = None
    ) -> None:
        """Remove one cookie, or all of a path, of a domain, or of the jar."""
        super().clear(domain, path, name)
        given = [part for part in (domain, path, name) if part is not None]
        for key in [*self._by_age]:
            if [*key[: len(given)]] == given:
                del self._by_age[key]
        self._fill()

    def _fill(self) -> None:
        # Cleared first: the jar keeps a table for each path and host even when it is empty,
        # and a server could make up any number of those.
        super().clear()
        for cookie in self._by_age.values():
            super().set_cookie(cookie)
