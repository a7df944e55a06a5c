"""What every test is held to: no thread of the package outlives it. And a screen."""

from __future__ import annotations

import os
import select
import shutil
import subprocess
import threading

import pytest

from .support import LIMIT, unavailable, wait_until


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


@pytest.fixture(scope="session")
def display():
    """The name of an X display: the user's, else that of a server without a screen."""
    if os.environ.get("DISPLAY"):
        yield os.environ["DISPLAY"]
        return
    xvfb = shutil.which("Xvfb")
    if xvfb is None:
        unavailable("there is no DISPLAY, and Xvfb is not installed")
    receiving, sending = os.pipe()
    options = ["-screen", "0", "1024x768x24", "-nolisten", "tcp", "-noreset"]
    with subprocess.Popen(
        [xvfb, "-displayfd", str(sending), *options], pass_fds=[sending], stderr=subprocess.DEVNULL
    ) as server:
        os.close(sending)
        try:
            with os.fdopen(receiving, encoding="ascii") as numbers:
                assert select.select([numbers], [], [], LIMIT)[0], "Xvfb does not start"
                number = numbers.readline().strip()
                assert number, "Xvfb has ended"
            yield f":{number}"
        finally:
            server.terminate()
