"""The processes of a run: started, asked within a limit, and always stopped.

Each gets a session of its own, so that Ctrl-C reaches only the parent, which then stops
them one by one. Should the parent be killed, they end with their standard input.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Self

from . import inputs, peers

HERE = Path(__file__).parent
NODE_FILES = ("package.json", "client.mjs")
NPM_LIMIT = 120.0
"""Seconds for npm to install three small packages."""
START_LIMIT = 60.0
"""Seconds for a server to start and to build a body, on a machine busy with others."""
STOP_LIMIT = 5.0
"""Seconds that a process has to end by itself, with its input."""


class Problem(Exception):
    """There is no number; the text goes into the table in its place.

    Attributes:
        note: a few words more, for below the table.
        detail: more than that, for the console only: it may tell of this machine.
    """

    def __init__(self, text: str, *, note: str = "", detail: str = "") -> None:
        super().__init__(text)
        self.note = note
        self.detail = detail


def environment(**more: str) -> dict[str, str]:
    """Return an environment with this package, in which nothing goes through a proxy."""
    kept = {key: value for key, value in os.environ.items() if not key.lower().endswith("_proxy")}
    path = os.pathsep.join(filter(None, [str(HERE.parent), kept.get("PYTHONPATH")]))
    return {**kept, "PYTHONPATH": path, **more}


class Child:
    """A process that answers each line of JSON with another."""

    def __init__(self, command: list[str], **more: str) -> None:
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=None if os.environ.get("BENCHMARKS_DEBUG") else subprocess.DEVNULL,
            env=environment(**more),
            start_new_session=True,
        )
        self._received = b""

    def ask(self, limit: float, **command: Any) -> dict[str, Any]:
        """Return the answer to `command`.

        Raises:
            Problem: it did not come in `limit` seconds, or tells of an error. After the
                first, or when it has died, the process is stopped.
        """
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        deadline = time.monotonic() + limit
        try:
            process.stdin.write(json.dumps(command).encode() + b"\n")
            process.stdin.flush()
            while b"\n" not in self._received:
                wait = deadline - time.monotonic()
                if wait <= 0 or not select.select([process.stdout], [], [], wait)[0]:
                    self.stop(kill=True)
                    raise Problem(f"> {limit:.0f} s")
                data = os.read(process.stdout.fileno(), 2**20)
                self._received += data or b'{"error": "died", "detail": ""}\n'
        except BrokenPipeError:
            self.stop(kill=True)
            raise Problem("error", note="died") from None
        line, _, self._received = self._received.partition(b"\n")
        reply: dict[str, Any] = json.loads(line)
        if "error" in reply:
            raise Problem("error", note=reply["error"], detail=reply["detail"])
        return reply

    @property
    def alive(self) -> bool:
        """Whether it can be asked."""
        return self._process.poll() is None

    def stop(self, *, kill: bool = False) -> None:
        """End the process and wait for its end; once is enough, twice does no harm."""
        process = self._process
        if kill:
            process.kill()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()
        try:
            process.wait(STOP_LIMIT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class Server:
    """The server process and its addresses."""

    def __init__(self, certificate: Path | None) -> None:
        arguments = [str(certificate)] if certificate is not None else []
        self._child = Child([sys.executable, "-m", "benchmarks.server", *arguments])
        ports = self._child.ask(START_LIMIT, do="ports")
        self._addresses = {scheme: f"{scheme}://127.0.0.1:{port}" for scheme, port in ports.items()}

    def prepare(self, name: str, framing: str, units: int, scheme: str = "http") -> tuple[str, int]:
        """Have a body built; return its URL and the bytes that the client will get."""
        body = self._child.ask(START_LIMIT, do="prepare", name=name, framing=framing, units=units)
        return self._addresses[scheme] + body["path"], body["bytes"]

    def url(self, path: str, scheme: str = "http", host: str = "127.0.0.1") -> str:
        """Return the URL of what needs no preparation."""
        return self._addresses[scheme].replace("127.0.0.1", host) + path

    def release(self) -> None:
        """Have the idle streams closed."""
        self._child.ask(START_LIMIT, do="release")

    def stop(self) -> None:
        """End the process."""
        self._child.stop()


class Crew:
    """The workers, by peer; started when first needed, and again after they were stopped.

    Args:
        server: for their first stream, which is not measured: it loads what is loaded
            once.
        node: the folder where Node's packages are, if they are.
        ca: a file with the certificates to trust: Node is told when it starts.
    """

    def __init__(self, server: Server, node: Path | None, ca: Path | None) -> None:
        self._server = server
        self._node = node
        self._more = {"NODE_EXTRA_CA_CERTS": str(ca)} if ca is not None else {}
        self._children: dict[str, Child] = {}
        self._warm: set[str] = set()  # the names of those that have read a stream

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for child in self._children.values():
            child.stop(kill=True)

    def stop(self, peer: peers.Peer) -> None:
        """Stop the process of `peer`, if there is one."""
        self._warm.discard(peer.name)
        if (child := self._children.pop(peer.name, None)) is not None:
            child.stop(kill=True)

    def start(self, peer: peers.Peer) -> Child:
        """Start a process for `peer`, in place of the one there is."""
        self.stop(peer)
        if peer.kind == "node":
            assert self._node is not None
            client = str(self._node / "client.mjs")
            command = ["node", "--no-warnings", client, peer.package]
        else:
            command = [sys.executable, "-m", "benchmarks.workers", peer.name]
        child = self._children[peer.name] = Child(command, **self._more)
        return child

    def process(self, peer: peers.Peer) -> Child:
        """Return the process of `peer`, started if there is none."""
        child = self._children.get(peer.name)
        return child if child is not None and child.alive else self.start(peer)

    def ready(self, peer: peers.Peer) -> Child:
        """Return the process of `peer`, which has read a first stream."""
        child = self.process(peer)
        if peer.name not in self._warm:
            self._warm_up(peer, child)
            self._warm.add(peer.name)
        return child

    def _warm_up(self, peer: peers.Peer, child: Child) -> None:
        if peer.parse is not None:
            child.ask(START_LIMIT, do="parse", name="ticks", units=1, large=False)
        if peer.kind == "parser":
            return
        url, size = self._server.prepare("ticks", "event", 1)
        unit = inputs.unit("ticks")
        child.ask(
            START_LIMIT,
            do="client",
            url=url,
            types=unit.types,
            events=unit.events,
            large=False,
            size=size,
            ca=None,
        )


def time_import(program: str, library: str | None) -> tuple[float, float]:
    """Return the seconds that a fresh process takes to import `library` and `program`.

    Returns:
        Both together, and the seconds of `program` alone, after `library`.

    Raises:
        Problem: it could not.
    """
    script = "\n".join(
        [
            "from time import perf_counter",
            "started = perf_counter()",
            f"import {library}" if library is not None else "",
            "middle = perf_counter()",
            program,
            "print(perf_counter() - started, perf_counter() - middle)",
        ]
    )
    try:
        found = subprocess.run(
            [sys.executable, "-c", script],
            env=environment(PYTHONDONTWRITEBYTECODE=""),  # what is measured is not compiling
            check=True,
            capture_output=True,
            text=True,
            timeout=START_LIMIT,
        )
    except subprocess.SubprocessError as error:
        raise Problem("error", note=type(error).__name__, detail=str(error)) from error
    whole, alone = map(float, found.stdout.split())
    return whole, alone


def install_node_packages() -> Path:
    """Have npm install what `node/package.json` names, outside the tree, once.

    Returns:
        The folder with `client.mjs` beside `node_modules`.

    Raises:
        Problem: Node or npm is not there, is too old, or npm failed.
    """
    if shutil.which("node") is None or shutil.which("npm") is None:
        raise Problem("no `node` and `npm` here")
    contents = b"".join((HERE / "node" / name).read_bytes() for name in NODE_FILES)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    digest = hashlib.sha256(contents).hexdigest()[:12]
    folder = cache / "eventsource-benchmarks" / f"node-{digest}"
    if (folder / "installed").exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    for name in NODE_FILES:
        shutil.copy(HERE / "node" / name, folder)
    # No lock file: it would record where the packages came from.
    options = ["--no-package-lock", "--no-audit", "--no-fund", "--ignore-scripts"]
    try:
        subprocess.run(
            ["npm", "install", *options],
            cwd=folder,
            check=True,
            capture_output=True,
            timeout=NPM_LIMIT,
        )
    except (subprocess.SubprocessError, OSError) as error:
        output = getattr(error, "stderr", None) or b""
        raise Problem("npm could not install the Node clients", detail=output.decode()) from error
    (folder / "installed").touch()
    return folder


def node_versions(folder: Path) -> dict[str, str]:
    """Return the versions of Node and of the packages in `folder`."""
    node = subprocess.run(["node", "--version"], check=True, capture_output=True, text=True)
    versions = {"Node": node.stdout.strip().removeprefix("v")}
    for package in json.loads((folder / "package.json").read_text())["dependencies"]:
        manifest = folder / "node_modules" / package / "package.json"
        versions[package] = json.loads(manifest.read_text())["version"]
    return versions
