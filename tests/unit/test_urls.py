"""What of a URL may be shown, and its origin."""

from __future__ import annotations

import pytest

from eventsource.urls import origin_of, redact, redact_text, without_userinfo


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://user:secret@host:80/path;a?secret#secret", "http://host:80/path;a"),
        ("https://secret@[::1]:80/", "https://[::1]:80/"),
        ("http://host", "http://host"),
        ("//user:secret@[::1?secret", "[::1"),
        ("/path?secret", "/path"),
        ("mailto:a@b?secret", "mailto:b"),
        ("user:secret@host/path", "user:host/path"),
        ("https://host/@user", "https://host/@user"),
        ("http://user:se@cret@host/", "http://host/"),
        ("", ""),
    ],
)
def test_redact_leaves_out_credentials_query_and_fragment(url, shown):
    assert redact(url) == shown


def test_redact_text_finds_the_urls_in_a_text():
    text = "for 'http://u:secret@host/a?secret' and https://b/?secret: Errno: 5 (see x)"
    assert redact_text(text) == "for 'http://host/a' and https://b/ Errno: 5 (see x)"


def test_without_userinfo_keeps_the_rest():
    assert without_userinfo("http://u:p@host:1/a?b#c") == "http://host:1/a?b#c"


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("http://host/path", "http://host"),
        ("http://HOST:80/", "http://host"),
        ("https://host:443/", "https://host"),
        ("https://u:p@host:80/", "https://host:80"),
        ("http://[::1]:8000/", "http://[::1]:8000"),
    ],
)
def test_the_origin_is_scheme_host_and_unusual_port(url, origin):
    assert origin_of(url) == origin
