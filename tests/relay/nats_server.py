"""A server of NATS with JetStream on disk, a proxy in front of it that loses answers, and a
consumer that reads a stream whole."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
import subprocess
import threading
from urllib.parse import unquote

import nats
from nats.js import errors

from eventsource.relay import jetstream
from tests.support import LIMIT, unavailable, wait_until


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


class NatsServer:
    """`nats-server` on a free port, which it keeps over restarts, with its data in a folder."""

    def __init__(self, folder, *options, settings=""):
        self.folder = folder
        self.port = free_port()
        self.url = f"nats://127.0.0.1:{self.port}"
        self._settings = folder / "nats.conf"
        self._settings.write_text(settings)
        self._options = options
        self._process = None

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.kill()

    def start(self):
        command = shutil.which("nats-server") or unavailable("nats-server is not installed")
        with (self.folder / "nats.log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    command,
                    *("-c", self._settings, "-js", "-sd", self.folder / "store"),
                    *("-a", "127.0.0.1", "-p", str(self.port), *self._options),
                ],
                stdout=log,
                stderr=log,
            )
        wait_until(self._answers, "nats-server to listen")

    def _answers(self):
        assert self._process.poll() is None, (self.folder / "nats.log").read_text()[-2000:]
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port)) as s:
            s.settimeout(LIMIT)
            return s.recv(4) == b"INFO"

    def ensure_started(self):
        if self._process.poll() is not None:
            self.start()

    def kill(self):
        """`kill -9`."""
        self._process.kill()
        self._process.wait(LIMIT)

    def stop(self):
        self._process.terminate()
        self._process.wait(LIMIT)

    # --- A consumer's and an operator's own clients ---

    def run(self, work, *, limit=LIMIT, **options):
        """Run the coroutine function `work(connection, jetstream)`."""

        async def connect():
            async with asyncio.timeout(limit):
                connection = await nats.connect(self.url, allow_reconnect=False, **options)
                try:
                    return await work(connection, connection.jetstream())
                finally:
                    await connection.close()

        return asyncio.run(connect())

    def messages(self, name="orders", **options):
        """All messages of a stream, as (sequence, subject, headers, payload)."""

        async def read(_, js):
            try:
                state = (await js.stream_info(name)).state
            except errors.NotFoundError:
                return []
            found = []
            for sequence in range(max(state.first_seq, 1), state.last_seq + 1):
                with contextlib.suppress(errors.NotFoundError):
                    message = await js.get_msg(name, sequence)
                    payload = (message.data or b"").decode()
                    found.append((sequence, message.subject, message.headers or {}, payload))
            return found

        return self.run(read, **options)

    def events(self, name="orders", **options):
        """What a consumer of the subject gets, as (id, type, data)."""
        return [
            (
                unquote(headers[jetstream.EVENT_ID]),
                unquote(headers[jetstream.EVENT_TYPE]),
                payload,
            )
            for _, subject, headers, payload in self.messages(name, **options)
            if not subject.endswith(".relay")
        ]

    def ids(self, name="orders"):
        """The ids of all events, as one consumer reads them: also of a million."""

        async def read(_, js):
            subscription = await js.subscribe(name, stream=name, ordered_consumer=True)
            found = []
            while True:
                message = await subscription.next_msg(timeout=LIMIT)
                found.append(unquote(message.headers[jetstream.EVENT_ID]))
                if message.metadata.num_pending == 0:
                    return found

        return self.run(read, limit=None)

    def data(self, name="orders"):
        return [data for _, _, data in self.events(name)]


class Proxy:
    """Between one client at a time and a server: may let in a few more messages and lose what
    the server says of them."""

    def __init__(self, port):
        self._server_port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"nats://127.0.0.1:{self._listener.getsockname()[1]}"
        self._left = None  # messages that are let in before the cut; None: there is none
        self._due = 0  # acknowledgements that are lost before the cut
        self._lock = threading.Lock()
        self._threads = []
        self._sockets = []
        self._start(self._accept)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._cut()
        for thread in self._threads:
            thread.join(LIMIT)

    def cut_after(self, count):
        """Let in `count` messages; when the server has answered those, cut the connection."""
        with self._lock:
            self._left = self._due = count

    def _start(self, target, *arguments):
        thread = threading.Thread(target=target, args=arguments, name="test-proxy", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._server_port))
                with self._lock:
                    self._left = None
                    self._sockets = [client, server]
                self._start(self._upstream, client, server)
                self._start(self._downstream, client, server)

    def _cut(self):
        for sock in self._sockets:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def _upstream(self, client, server):
        """Message by message: `HPUB subject reply header-bytes total-bytes`."""
        with client, server, client.makefile("rb") as lines, contextlib.suppress(OSError):
            while line := lines.readline():
                words = line.split()
                is_message = words[0] == b"HPUB"
                body = lines.read(int(words[-1]) + 2) if words[0] in (b"HPUB", b"PUB") else b""
                with self._lock:
                    if is_message and self._left is not None:
                        if self._left == 0:
                            continue
                        self._left -= 1
                server.sendall(line + body)

    def _downstream(self, client, server):
        with client, server, server.makefile("rb") as lines, contextlib.suppress(OSError):
            while line := lines.readline():
                words = line.split()
                is_answer = words[0] in (b"MSG", b"HMSG")
                body = lines.read(int(words[-1]) + 2) if is_answer else b""
                with self._lock:
                    if is_answer and self._left is not None:
                        self._due -= b'"seq"' in body
                        if self._due == 0:
                            self._cut()
                        continue
                client.sendall(line + body)
