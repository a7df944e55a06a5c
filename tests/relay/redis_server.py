"""A redis-server of the test's own, on a free port, with its files in the test's folder."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from pathlib import Path

from tests.real_servers.process import free_port
from tests.support import LIMIT, unavailable, wait_until


class RedisServer:
    """Debian's redis-server, with each write on disk before it is answered.

    Args:
        folder: for its files.
        *options: more of its command line.
    """

    def __init__(self, folder: Path, *options: str) -> None:
        if shutil.which("redis-server") is None:
            unavailable("needs redis-server")
        self.folder = folder
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None
        self._is_cut = False

    def client(self):
        import redis

        return redis.Redis.from_url(self.url, decode_responses=True)

    def start(self) -> None:
        import redis

        command = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1"]
        command += ["--dir", str(self.folder), "--save", "", "--appendonly", "yes"]
        command += ["--appendfsync", "always", *self._options]
        with (self.folder / "redis.log").open("ab") as log:
            self._process = process = subprocess.Popen(command, stdout=log, stderr=log)

        def answers():
            assert process.poll() is None, (self.folder / "redis.log").read_text()
            with contextlib.suppress(redis.ConnectionError, redis.BusyLoadingError):
                state = self.client().info()
                return state["process_id"] == process.pid and not state["loading"]
            return False

        wait_until(answers, "redis-server to answer")
        if self._is_cut:
            self._rewrite()

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(signal.SIGCONT)
            process.kill()
            process.wait(LIMIT)

    def log_file(self) -> Path:
        """The part of the append-only file that grows."""
        return max(self.folder.glob("appendonlydir/*.incr.aof"))

    def cut(self, size: int) -> None:
        """Have the append-only file have so many bytes only: what came after is lost."""
        os.truncate(self.log_file(), size)
        self._is_cut = True

    def _rewrite(self) -> None:
        """Have the append-only file written anew.

        Redis 7.0 leaves out, but does not remove, what a cut has left of a script: at the next
        restart but one it would be there, with what came after it.
        """
        with self.client() as client:
            client.bgrewriteaof()

            def is_done():
                state = client.info("persistence")
                return not state["aof_rewrite_in_progress"] | state["aof_rewrite_scheduled"]

            wait_until(is_done)
        self._is_cut = False

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.kill()
