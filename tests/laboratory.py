"""The fault laboratory: a TCP proxy that does what networks do, on a seeded script.

A script is a list of faults, one for each connection in turn; when it is over, the network
is sound. `script(seed)` draws one, the same for the same seed, so that a run which failed
can be had again. The proxy runs in an event loop in a thread of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import random
import re
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from typing import Any, Protocol, Self

from .support import LIMIT, port_that_refuses

RESET = struct.pack("ii", 1, 0)
PIECE = 64 * 1024

PLACES = {
    "event": re.compile(rb"data: n()"),
    "character": re.compile(rb"[\xc2-\xf4]()[\x80-\xbf]"),
    "line end": re.compile(rb"\r()\n"),
    "chunk header": re.compile(rb"(?:\A|\r\n)[0-9A-Fa-f]()[0-9A-Fa-f]*\r\n"),
    "TLS record": re.compile(rb"\x17\x03[\x01-\x03]..().", re.DOTALL),
}
"""Where a connection can be cut: in the middle of what."""


class Link:
    """One client's connection through the laboratory."""

    def __init__(self, client: socket.socket, servers: Sequence[int], proxy: Proxy) -> None:
        self.client = client
        self.proxy = proxy
        self._servers = servers
        self._loop = asyncio.get_running_loop()

    async def request(self) -> bytes:
        """What the client asks for: its whole head."""
        head = b""
        while b"\r\n\r\n" not in head:
            data = await self._loop.sock_recv(self.client, PIECE)
            if not data:
                raise ConnectionError("the client has gone")
            head += data
        return head

    async def send(self, data: bytes) -> None:
        await self._loop.sock_sendall(self.client, data)

    async def gone(self) -> None:
        """Wait until the client goes, saying nothing."""
        while await self._loop.sock_recv(self.client, PIECE):
            pass

    async def relay(self, down: Cut | Slow | Sound) -> None:
        """Bring a server and the client together, until one has gone or it is cut."""
        with socket.socket() as server:
            server.setblocking(False)
            port = self._servers[down.server % len(self._servers)]
            await self._loop.sock_connect(server, ("127.0.0.1", port))
            ways = [
                asyncio.ensure_future(self._up(server)),
                asyncio.ensure_future(self._down(server, down)),
            ]
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                results = await asyncio.gather(*ways, return_exceptions=True)
            for result in results:
                if isinstance(result, Exception):
                    raise result

    async def _up(self, server: socket.socket) -> None:
        while data := await self._loop.sock_recv(self.client, PIECE):
            await self._loop.sock_sendall(server, data)

    async def _down(self, server: socket.socket, down: Cut | Slow | Sound) -> None:
        passed = 0
        while data := await self._loop.sock_recv(server, PIECE):
            if await down.forward(self, data, passed):
                return
            passed += len(data)

    def reset(self) -> None:
        self.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)


class Fault(Protocol):
    """What one connection meets."""

    async def meet(self, link: Link) -> None:
        """Deal with the connection until it is over."""


@dataclasses.dataclass(frozen=True)
class Sound:
    """Nothing: the server's bytes as they come."""

    server: int = 0
    """Which of the servers."""

    async def meet(self, link: Link) -> None:
        await link.relay(self)

    async def forward(self, link: Link, data: bytes, passed: int) -> bool:
        await link.send(data)
        return False


@dataclasses.dataclass(frozen=True)
class Cut:
    """The connection ends in the middle of something."""

    where: str = "event"
    """One of `PLACES`, or "byte": anywhere."""
    after: int = 0
    """Bytes from the server that pass before the place is looked for."""
    how: str = "FIN"
    """"FIN", "RST", or "hole": not one more packet."""
    server: int = 0

    async def meet(self, link: Link) -> None:
        await link.relay(self)
        if self.how == "RST":
            link.reset()
        elif self.how == "hole":
            await link.gone()

    async def forward(self, link: Link, data: bytes, passed: int) -> bool:
        start = max(0, self.after - passed)
        if start >= len(data):
            await link.send(data)
            return False
        if self.where == "byte":
            end = start
        else:
            place = PLACES[self.where].search(data, start)
            if place is None:
                await link.send(data)
                return False
            end = place.start(1)
        await link.send(data[:end])
        return True


@dataclasses.dataclass(frozen=True)
class Slow:
    """Bytes come in small pieces with pauses between, then at full speed, then the end."""

    piece: int = 1
    pause: float = 0.001
    total: int = 300
    """Bytes that come slowly."""
    rest: int = 2000
    """Bytes that come at full speed."""
    server: int = 0

    async def meet(self, link: Link) -> None:
        await link.relay(self)

    async def forward(self, link: Link, data: bytes, passed: int) -> bool:
        if passed >= self.total + self.rest:
            return True
        slow = max(0, self.total - passed)
        for start in range(0, min(slow, len(data)), self.piece):
            await link.send(data[start : min(start + self.piece, slow)])
            await asyncio.sleep(self.pause)
        await link.send(data[slow:])
        return False


@dataclasses.dataclass(frozen=True)
class Silent:
    """The connection is accepted, and that is all."""

    async def meet(self, link: Link) -> None:
        await link.gone()


@dataclasses.dataclass(frozen=True)
class Refused:
    """Nobody listens for a while; no connection is taken for this."""

    seconds: float = 0.1


@dataclasses.dataclass(frozen=True)
class Answer:
    """Somebody else answers: a broken server, a load balancer, a captive portal."""

    status: str
    fields: tuple[str, ...] = ()
    body: bytes = b""
    seconds: float = 0.0
    """For how long all connections are answered so; 0: this one."""

    async def meet(self, link: Link) -> None:
        await link.request()
        await self.send(link)

    async def send(self, link: Link) -> None:
        head = [f"HTTP/1.1 {self.status}", *self.fields, f"Content-Length: {len(self.body)}"]
        await link.send("\r\n".join([*head, "Connection: close", "", ""]).encode() + self.body)


PORTAL = Answer(
    "200 OK", ("Content-Type: text/html",), b"<html><title>Welcome to our hotel</title></html>"
)
"""Until somebody has agreed to the conditions of use, every answer is this page."""


@dataclasses.dataclass(frozen=True)
class Redirected:
    """To this same proxy, under the same name or, as `"localhost"`, as another origin."""

    host: str = "127.0.0.1"
    status: int = 307

    async def meet(self, link: Link) -> None:
        target = (await link.request()).split(b" ", 2)[1].decode("ascii")
        location = f"Location: http://{self.host}:{link.proxy.port}{target}"
        await Answer(f"{self.status} Elsewhere", (location,)).send(link)


class Proxy:
    """One port of the laboratory, and its script. Connections are served one by one.

    Its clock says how long an answer has lasted.
    """

    def __init__(
        self,
        servers: Sequence[int],
        faults: Iterable[Fault | Refused],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._servers = servers
        self._faults = faults
        self._clock = clock
        self.met: list[Fault | Refused] = []
        """The faults so far; after those of the script, none."""
        self.is_over = threading.Event()
        """Set when the script is over and the next client has come.

        If there is one client, it has seen the end of all connections before.
        """
        self._listener = _listener(0)
        self.port: int = self._listener.getsockname()[1]

    async def run(self) -> None:
        try:
            for fault in self._faults:
                self.met.append(fault)
                await self._have_met(fault)
            while True:
                await self._have_met(Sound(), is_over=True)
        finally:
            self._listener.close()

    async def _have_met(self, fault: Fault | Refused, *, is_over: bool = False) -> None:
        loop = asyncio.get_running_loop()
        if isinstance(fault, Refused):
            self._listener.close()
            with port_that_refuses(self.port):
                await asyncio.sleep(fault.seconds)
            self._listener = _listener(self.port)
            return
        end = self._clock() + getattr(fault, "seconds", 0.0)
        while True:
            client, _ = await loop.sock_accept(self._listener)
            if is_over:
                self.is_over.set()
            with client, contextlib.suppress(OSError):  # one end or the other has gone
                client.setblocking(False)
                await fault.meet(Link(client, self._servers, self))
            if self._clock() >= end:
                return


def _listener(port: int) -> socket.socket:
    listener = socket.create_server(("127.0.0.1", port))
    listener.setblocking(False)
    return listener


class Laboratory:
    """Proxies in an event loop in a thread, which has ended when the `with` block is left."""

    def __enter__(self) -> Self:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="laboratory")
        self._thread.start()
        self._tasks: list[asyncio.Task[None]] = []
        return self

    def __exit__(self, *_: object) -> None:
        async def end() -> None:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

        self._do(end())
        failures = [task.exception() for task in self._tasks if not task.cancelled()]
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.run_until_complete(_clear_up())
        self._loop.close()
        for failure in failures:
            if failure is not None:
                raise failure

    def proxy(
        self,
        servers: Sequence[int],
        faults: Iterable[Fault | Refused] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> Proxy:
        """A proxy before the servers with these ports, on a script."""
        proxy = Proxy(servers, faults, clock)
        self._start(proxy.run())
        return proxy

    def tls(self, server: int, context: ssl.SSLContext) -> int:
        """A port where TLS is spoken, of the server with this port."""

        async def relay(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
            while data := await source.read(PIECE):
                target.write(data)
                await target.drain()

        async def bring_together(
            reader: asyncio.StreamReader, writer: asyncio.StreamWriter
        ) -> None:
            with contextlib.suppress(OSError):
                inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", server)
                ways = [
                    asyncio.ensure_future(relay(reader, inner_writer)),
                    asyncio.ensure_future(relay(inner_reader, writer)),
                ]
                try:
                    await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    for way in ways:
                        way.cancel()
                    inner_writer.transport.abort()
                    writer.transport.abort()
                    await asyncio.gather(*ways, return_exceptions=True)
            writer.transport.abort()

        listener = _listener(0)
        port: int = listener.getsockname()[1]

        async def serve() -> None:
            async with await asyncio.start_server(bring_together, sock=listener, ssl=context) as s:
                await s.serve_forever()

        self._start(serve())
        return port

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        async def start() -> None:
            self._tasks.append(asyncio.ensure_future(work))

        self._do(start())

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(LIMIT)


async def _clear_up() -> None:
    """End what serves a connection still, and let the loop close what has been aborted."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    for _ in range(3):  # a turn of the loop for each layer, of which TLS has two
        await asyncio.sleep(0)


def script(seed: object, *, tls: bool = False, servers: int = 1) -> Iterator[Fault | Refused]:
    """Draw faults without end: the same for the same arguments, on any machine.

    Args:
        seed: a number or text.
        tls: only those of a network that cannot see what it brings.
        servers: how many there are to choose from.
    """
    draw = random.Random(f"{seed}")
    places = ["byte", "TLS record"] if tls else ["byte", *(set(PLACES) - {"TLS record"})]
    places.sort()
    while True:
        server = draw.randrange(servers)
        kind = draw.choice(["cut"] * 6 + ["slow", "refused", "silent"] + ["answer"] * (not tls) * 3)
        if kind == "cut":
            after = draw.choice([draw.randrange(20), draw.randrange(300), draw.randrange(5000)])
            yield Cut(draw.choice(places), after, draw.choice(["FIN", "RST", "hole"]), server)
        elif kind == "slow":
            yield Slow(
                draw.randint(1, 20), draw.uniform(0, 0.01), draw.randrange(1000), 2000, server
            )
        elif kind == "refused":
            yield Refused(draw.uniform(0, 0.3))
        elif kind == "silent":
            yield Silent()
        else:
            yield from draw.choice(_ANSWERS)


_ANSWERS: list[list[Fault]] = [
    [Answer("500 Internal Server Error")],
    [Answer("503 Service Unavailable")],
    [Answer("503 Service Unavailable", ("Retry-After: 1",))],
    [Answer("429 Too Many Requests", ("Retry-After: 1",), b"{}")],
    [Answer("502 Bad Gateway", seconds=0.3)],
    [Answer("204 No Content")],
    [Redirected()],
    [Redirected("localhost", 302)],
    [Redirected("localhost"), Redirected()],
    [Redirected()] * 31,
    [dataclasses.replace(PORTAL, seconds=0.3)],
]
