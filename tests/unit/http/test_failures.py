"""Errors of other libraries, also of a caller's adapter, lose the secrets in their texts."""

from __future__ import annotations

import pytest
import requests
import urllib3

from eventsource.http.failures import describe
from tests.conftest import secrets_in
from tests.support import QUERY_SECRET, SECRET

TEXT = f"http://ada:{SECRET}@example.com/a?key={QUERY_SECRET} cannot be had"
CAUSE = OSError(111, "Connection refused")


@pytest.mark.parametrize(
    "error",
    [
        requests.ConnectionError(TEXT),
        requests.ConnectionError(urllib3.exceptions.HTTPError(TEXT)),
        requests.exceptions.ChunkedEncodingError(ValueError(TEXT)),
        urllib3.exceptions.HTTPError(TEXT),
        urllib3.exceptions.ProtocolError(TEXT),
        urllib3.exceptions.HTTPError(TEXT, ValueError("no")),
        urllib3.exceptions.HTTPError("no", ValueError(TEXT)),
        urllib3.exceptions.HTTPError("no", OSError(111, TEXT)),
    ],
    ids=lambda error: f"{type(error).__name__} {[type(arg).__name__ for arg in error.args]}",
)
def test_the_urls_in_any_text_are_redacted(error):
    said = describe(error)
    assert isinstance(said, requests.RequestException)
    assert not secrets_in(f"{said} {said!r}")


def test_the_text_of_the_system_is_kept():
    said = describe(urllib3.exceptions.HTTPError("Failed to establish it: [Errno 111]", CAUSE))
    assert str(said) == "Failed to establish it: Connection refused"
