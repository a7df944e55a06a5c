"""A real server in a process of its own, which can die and come back on its port."""

from __future__ import annotations

import contextlib
import http.client
import json
import signal
import socket
import subprocess
import sys
import time
import urllib.parse
from pathlib import Path
from typing import Any

import pytest

from tests.support import LIMIT, wait_until

HERE = Path(__file__).parent


class Server:
    """One of the programs here: its file's name, and where what it prints goes."""

    def __init__(self, script: str, log: Path) -> None:
        self.script = script
        self.port = 0
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; on the same port, if it has been started before."""
        deadline = time.monotonic() + LIMIT
        while not self._started():
            assert time.monotonic() < deadline, f"{self.script}: {self._log.read_text()}"

    def _started(self) -> bool:
        port = self.port or free_port()
        with self._log.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, str(HERE / self.script), str(port)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self._process = process
        ours = False

        def answers() -> bool:
            nonlocal ours
            with contextlib.suppress(OSError, http.client.HTTPException, ValueError):
                ours = ask(port, "/live")["pid"] == process.pid
            return ours or process.poll() is not None  # another one may have taken the port

        try:
            wait_until(answers, f"{self.script} accepts connections")
        finally:
            if not ours:
                self.stop(signal.SIGKILL)
        if ours:
            self.port = port
        return ours

    def stop(self, how: signal.Signals) -> None:
        """End the process, and wait until it has ended."""
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(how)
        try:
            process.wait(LIMIT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            pytest.fail(f"{self.script} did not end on {how.name}: {self._log.read_text()}")

    def ensure_started(self) -> None:
        if self._process is None or self._process.poll() is not None:
            self.start()

    def url(self, path: str, **query: object) -> str:
        return f"http://127.0.0.1:{self.port}{path}?{urllib.parse.urlencode(query)}"

    def live(self, name: str) -> int:
        """How many streams of this name the server believes to be live."""
        live: int = ask(self.port, f"/live?name={name}")["live"]
        return live

    def requests(self, name: str) -> dict[str, int]:
        """How often each path has been asked for under this name."""
        counts: dict[str, int] = ask(self.port, f"/live?name={name}")["requests"]
        return counts


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def ask(port: int, path: str) -> Any:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=LIMIT)
    with contextlib.closing(connection):
        connection.request("GET", path)
        return json.load(connection.getresponse())
