"""What every test is held to: no thread of the package outlives it."""

from __future__ import annotations

import threading

import pytest

from .support import wait_until


def _own_threads() -> set[threading.Thread]:
    return {t for t in threading.enumerate() if t.name.startswith(("eventsource", "sse-"))}


@pytest.fixture(autouse=True)
def nothing_left_behind():
    before = _own_threads()
    yield
    wait_until(lambda: not (_own_threads() - before), f"threads to end: {_own_threads() - before}")


@pytest.fixture(autouse=True)
def no_netrc_or_proxies(monkeypatch, tmp_path):
    """The machine's own settings have no say in the tests."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))
