"""nginx, in processes of its own, with a configuration that a test writes."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from pathlib import Path

from tests.support import LIMIT, unavailable, wait_until


def find_nginx() -> str:
    """Return the path of the program; where there is none, the test is skipped or fails."""
    path = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"))
    return shutil.which("nginx", path=path) or unavailable("nginx is not installed")


class Nginx:
    """A master process and one worker, which keep all their files in one directory.

    A port is taken before nginx runs, and its socket handed down (as an nginx hands it to its
    successor), so that no other process can come in between.

    Args:
        directory: for its files.
        patience: how long a worker that is to go may serve what it has begun.
    """

    def __init__(self, directory: Path, patience: str) -> None:
        self._program = find_nginx()
        self._directory = directory
        self._sockets: list[socket.socket] = []
        self._ports: list[int] = []
        self._process: subprocess.Popen[bytes] | None = None
        self._log = directory / "error.log"
        self._log.touch()
        self._patience = patience

    def listen(self) -> int:
        """Take a free port of 127.0.0.1 and return it."""
        self._sockets.append(socket.create_server(("127.0.0.1", 0), backlog=128))
        self._ports.append(self._sockets[-1].getsockname()[1])
        return self._ports[-1]

    @property
    def log(self) -> str:
        """What nginx has said, from level info up."""
        return self._log.read_text(errors="replace")

    def configure(self, http: str) -> None:
        """Write the configuration, with this in its `http` block."""
        here = self._directory
        temporary = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        self._file.write_text(
            "daemon off;\n"
            "worker_processes 1;\n"
            f"worker_shutdown_timeout {self._patience};\n"
            f"{'user root;' if os.geteuid() == 0 else ''}\n"  # for files in the directory
            f"pid {here}/pid;\n"
            f"error_log {self._log} info;\n"
            "events { worker_connections 256; }\n"
            "http {\n"
            "    access_log off;\n"
            + "".join(f"    {name}_temp_path {here}/{name};\n" for name in temporary)
            + f"{http}\n}}\n"
        )

    @property
    def _file(self) -> Path:
        return self._directory / "nginx.conf"

    def start(self) -> None:
        """Start it; again, and on the same ports, if it has been stopped."""
        assert self._process is None
        if not self._sockets:
            wait_until(self._take_ports_again, "the ports to be free")
        numbers = [sock.fileno() for sock in self._sockets]
        started = self._times("start worker process ")
        self._process = subprocess.Popen(
            [self._program, "-p", self._directory, "-c", self._file, "-e", self._log],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={"NGINX": "".join(f"{number};" for number in numbers)},
            pass_fds=numbers,
            start_new_session=True,
        )
        while self._sockets:
            self._sockets.pop().close()
        wait_until(
            lambda: (
                self._times("start worker process ") > started or self._process.poll() is not None
            ),
            "nginx to start",
        )
        assert self._process.poll() is None, self.log

    def _take_ports_again(self) -> bool:
        try:
            for port in self._ports[len(self._sockets) :]:
                self._sockets.append(socket.create_server(("127.0.0.1", port), backlog=128))
        except OSError:
            return False
        return True

    def reload(self) -> None:
        """Have a new worker with the configuration as it is now, the old one refuse newcomers."""
        retired = self._times("gracefully shutting down")
        failed = self._times("[emerg]")
        self._process.send_signal(signal.SIGHUP)
        wait_until(
            lambda: (
                self._times("gracefully shutting down") > retired or self._times("[emerg]") > failed
            ),
            "the old worker to retire",
        )
        assert self._times("[emerg]") == failed, self.log

    def refuse_newcomers(self) -> None:
        """Like `nginx -s quit`: end when the connections there are have ended."""
        retired = self._times("gracefully shutting down")
        self._process.send_signal(signal.SIGQUIT)
        wait_until(
            lambda: self._times("gracefully shutting down") > retired, "the worker to retire"
        )

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """End all its processes, and wait until they have ended."""
        while self._sockets:
            self._sockets.pop().close()
        process, self._process = self._process, None
        if process is None:
            return
        if how is signal.SIGKILL:
            os.killpg(process.pid, how)
        else:
            process.send_signal(how)
        try:
            process.wait(LIMIT)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise AssertionError(f"nginx did not end on {how.name}: {self.log}") from None

    def _times(self, text: str) -> int:
        return self.log.count(text)
