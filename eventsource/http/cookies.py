"""Cookies that no server can do harm with: how many, how large, and which are none."""

from __future__ import annotations

import contextlib
import http.client
import re
from typing import Any, Final

from requests.cookies import RequestsCookieJar

MAX_COOKIES: Final = 100
"""Cookies that a session of ours keeps: twice what RFC 6265, 6.1, asks for of one host."""
MAX_COOKIE_SIZE: Final = 4096
"""Characters of a `Set-Cookie` field: what RFC 6265, 6.1, asks of a client at the least."""
_BAD_AGE: Final = re.compile(r";\s*max-age\s*(?:;|$|=[^;]*[0-9]{16})", re.IGNORECASE)
"""What none can be: missing, or of more digits than time has."""


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
    """A jar that no server can fill: the oldest go."""

    def __init__(self) -> None:
        super().__init__()
        self._by_age: dict[tuple[str, str, str], None] = {}

    def set_cookie(self, cookie: Any, *args: Any, **kwargs: Any) -> None:
        """Put a cookie into the jar."""
        super().set_cookie(cookie, *args, **kwargs)
        place = (cookie.domain, cookie.path, cookie.name)
        self._by_age.pop(place, None)
        self._by_age[place] = None
        if len(self._by_age) > MAX_COOKIES:
            with contextlib.suppress(KeyError):  # all have been cleared
                self.clear(*next(iter(self._by_age)))

    def clear(
        self, domain: str | None = None, path: str | None = None, name: str | None = None
    ) -> None:
        """Take a cookie out of the jar, or all of a path, of a domain, of everybody."""
        if domain is None or path is None or name is None:
            super().clear(domain, path)
            return
        self._by_age.pop((domain, path, name), None)
        super().clear(domain, path, name)
        # Else the tables stay, empty, one for each path that a server makes up.
        tables: dict[str, dict[str, Any]] = self._cookies  # type: ignore[attr-defined]
        if not tables[domain][path]:
            del tables[domain][path]
        if not tables[domain]:
            del tables[domain]
