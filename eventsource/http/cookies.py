"""Cookies, bounded in number and size, so that no server can do harm with them."""

from __future__ import annotations

import http.client
import re
from typing import Any, Final

from requests.cookies import RequestsCookieJar

MAX_COOKIES: Final = 100
"""Cookies that a session of ours keeps: twice what RFC 6265, 6.1, asks for of one host."""
MAX_COOKIE_SIZE: Final = 4096
"""Characters of a `Set-Cookie` field: what RFC 6265, 6.1, asks of a client at the least."""
_BAD_AGE: Final = re.compile(r";\s*max-age\s*(?:;|$|=[^;]*[0-9]{16})", re.IGNORECASE)
"""A value that cannot be an age: missing, or of more digits than time has."""


def drop_bad_cookies(headers: http.client.HTTPMessage) -> None:
    """Take out of a response's head the cookies that the standard library's jar fails at.

    It prints a traceback then, and loses the others.
    """
    del headers["Set-Cookie2"]  # which RFC 6265 has done away with
    cookies = headers.get_all("Set-Cookie", [])
    del headers["Set-Cookie"]
    for cookie in cookies:
        if len(cookie) <= MAX_COOKIE_SIZE and not _BAD_AGE.search(cookie):
            headers.add_header("Set-Cookie", cookie)


class CookieJar(RequestsCookieJar):
    """A jar that no server can fill: the oldest cookies go."""

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
        """Take a cookie out of the jar, or all of a path, of a domain, of everybody."""
        super().clear(domain, path, name)
        given = [part for part in (domain, path, name) if part is not None]
        for key in [*self._by_age]:
            if [*key[: len(given)]] == given:
                del self._by_age[key]
        self._fill()

    def _fill(self) -> None:
        # From nothing: the tables in which a jar has its cookies stay when they are empty,
        # one for each path and host that a server makes up.
        super().clear()
        for cookie in self._by_age.values():
            super().set_cookie(cookie)
