"""The clients that are compared: how each one is opened, parsed with, and closed.

Each is used as its own documentation shows, at its defaults, and given the cheapest
legitimate path where there is a choice. What departs from that is said beside it.

Every function imports what it needs itself, so that the process that measures one
client holds only that one.
"""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import functools
import importlib.metadata
import importlib.util
import io
import itertools
import socket
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace
from typing import Any, Literal, NamedTuple

OURS = "eventsource-client"
"""This package's distribution."""
PARSER_CHUNK = 64 * 1024
"""Bytes that a parser gets at once: as much as a socket's buffer commonly has."""
NOWHERE = "http://127.0.0.1/"
"""For clients that must have a URL even when only their parser is used."""


@dataclass(frozen=True)
class Options:
    """What some streams ask of a client beyond its defaults.

    Attributes:
        ca: a file with the certificates to trust; None: plain HTTP.
        large: the stream has an event above the default limit of some client.
    """

    ca: str | None = None
    large: bool = False

    @property
    def verify(self) -> dict[str, Any]:
        """The argument of requests, and of what is built on it, for `ca`."""
        return {"verify": self.ca} if self.ca else {}


class Opened(NamedTuple):
    """A connected client that is iterated over.

    Attributes:
        events: the iterator.
        close: what the client offers for closing it, from any thread.
        only: the class of the items that are events, where there are others.
    """

    events: Iterator[Any]
    close: Callable[[], object]
    only: type[Any] | None = None


class OpenedAsync(NamedTuple):
    """The same for asyncio."""

    events: AsyncIterator[Any]
    close: Callable[[], Any]


@dataclass(frozen=True, kw_only=True)
class Peer:
    """One row of the tables.

    Attributes:
        name: the row's name.
        package: the distribution whose version is told.
        module: imported when its process starts.
        kind: what runs it: a loop in a thread (`open` returns `Opened`), handlers (our
            `EventSource`), a task (`open` is a coroutine function that returns
            `OpenedAsync`), Node, or nothing of the kind: a `parser` only, and the `raw`
            socket.
        open: connects.
        parse: chunks in, an iterator of events out; asynchronous if `kind` is `asyncio`.
        ours: whether it is this package.
        table: the only table that has this row; None: all that its kind fits.
        host: by which name the server is asked for.
        arguments: of its constructor, beyond the defaults (of `handlers` only).
        program: what a program that uses it begins with; None: this cannot be timed here
            (`sseclient` is the name of two packages).
        library: the HTTP library that such a program has imported before.
        makes_comments: whether its parser makes an object of each comment.
    """

    name: str
    package: str
    module: str = "requests"
    kind: Literal["loop", "handlers", "asyncio", "node", "parser", "raw"]
    open: Callable[[str, Options], Any] | None = None
    parse: Callable[[Iterable[bytes], Options], Any] | None = None
    ours: bool = False
    table: str | None = None
    host: str = "127.0.0.1"
    arguments: Mapping[str, Any] = field(default_factory=dict)
    program: str | None = None
    library: str | None = None
    makes_comments: bool = False


# --- This package ---


def _open_event_stream(url: str, options: Options) -> Opened:
    from eventsource import EventStream, MessageEvent

    stream = EventStream(url, reconnect=None, **options.verify)
    return Opened(stream, stream.close, MessageEvent)


def _open_messages(url: str, options: Options) -> Opened:
    from eventsource import EventStream

    stream = EventStream(url, reconnect=None, **options.verify)
    return Opened(iter(stream.messages()), stream.close)


async def _open_async_messages(url: str, options: Options) -> OpenedAsync:
    from eventsource import EventStream

    stream = EventStream(url, reconnect=None, **options.verify)
    return OpenedAsync(aiter(stream.messages()), stream.__aexit__)


def _open_sse_client(url: str, options: Options) -> Opened:
    from eventsource import SSEClient

    client = SSEClient(url, **options.verify)
    return Opened(iter(client), client.close)


def _parse_ours(chunks: Iterable[bytes], _: Options) -> Iterator[Any]:
    from eventsource import EventStreamParser

    return itertools.chain.from_iterable(map(EventStreamParser().feed, chunks))


def _parse_ours_with_comments(chunks: Iterable[bytes], _: Options) -> Iterator[Any]:
    from eventsource import EventStreamParser, MessageEvent

    parser = EventStreamParser()
    return (
        item
        for chunk in chunks
        for item in parser.feed_with_comments(chunk)
        if isinstance(item, MessageEvent)
    )


# --- launchdarkly-eventsource ---


def _open_launchdarkly(url: str, options: Options) -> Opened:
    from ld_eventsource import SSEClient
    from ld_eventsource.config import ConnectStrategy
    from urllib3 import PoolManager

    pool = PoolManager(ca_certs=options.ca) if options.ca else None
    client = SSEClient(ConnectStrategy.http(url, pool=pool))
    return Opened(iter(client.events), client.close)


def _parse_launchdarkly(chunks: Iterable[bytes], _: Options) -> Iterator[Any]:
    from ld_eventsource.actions import Event
    from ld_eventsource.reader import _BufferedLineReader, _SSEReader

    # As SSEClient.events does it, without its reconnecting.
    reader = _SSEReader(_BufferedLineReader.lines_from(chunks), None, None)
    return (item for item in reader.events_and_comments() if isinstance(item, Event))


# --- httpx-sse ---


@functools.cache
def _httpx_client(module: str, ca: str | None) -> Any:
    """One client for all streams, as httpx and httpx2 advise, without their limits."""
    import ssl

    httpx = importlib.import_module(module)
    return httpx.Client(
        timeout=None,  # idle streams are silent for longer than any
        limits=httpx.Limits(max_connections=None),
        **({"verify": ssl.create_default_context(cafile=ca)} if ca else {}),
    )


def _open_httpx_sse(url: str, options: Options) -> Opened:
    from httpx_sse import connect_sse

    stack = contextlib.ExitStack()
    source = stack.enter_context(connect_sse(_httpx_client("httpx", options.ca), "GET", url))
    return Opened(source.iter_sse(), stack.close)


def _parse_httpx_sse(chunks: Iterable[bytes], _: Options) -> Iterator[Any]:
    from httpx_sse._decoders import SSEDecoder, SSELineDecoder

    # What EventSource.iter_sse and httpx's Response.iter_text do.
    text = codecs.getincrementaldecoder("utf-8")("replace")
    lines = SSELineDecoder()
    events = SSEDecoder()
    for chunk in chunks:
        for line in lines.decode(text.decode(chunk)):
            event = events.decode(line.rstrip("\n"))
            if event is not None:
                yield event


# --- httpx2: its own SSE support ---


def _open_httpx2(url: str, options: Options) -> Opened:
    stack = contextlib.ExitStack()
    # Its limit of 1 MiB is lifted for what is larger.
    limit = {"max_event_size": None} if options.large else {}
    source = stack.enter_context(_httpx_client("httpx2", options.ca).sse(url, **limit))
    return Opened(iter(source), stack.close)


def _parse_httpx2(chunks: Iterable[bytes], options: Options) -> Iterator[Any]:
    from httpx2._config import DEFAULT_MAX_EVENT_SIZE_BYTES
    from httpx2._sse import _SSEParser

    # What its EventSource.__iter__ and Response.iter_text do.
    text = codecs.getincrementaldecoder("utf-8")("replace")
    parser = _SSEParser(None if options.large else DEFAULT_MAX_EVENT_SIZE_BYTES)
    for chunk in chunks:
        yield from parser.decode(text.decode(chunk))


# --- requests-sse ---


def _open_requests_sse(url: str, options: Options) -> Opened:
    from requests_sse import EventSource

    source = EventSource(url, **options.verify)
    source.connect()
    return Opened(iter(source), source.close)


def _parse_requests_sse(chunks: Iterable[bytes], _: Options) -> Iterator[Any]:
    from requests import Response
    from requests_sse import EventSource

    # It parses the lines of a requests.Response: a real one here, whose `raw` is made up
    # and hands on the whole chunks where the network's would cut them into 512 bytes.
    response = Response()
    response.status_code = 200
    response.raw = SimpleNamespace(stream=lambda *_, **__: iter(chunks))
    source = EventSource(NOWHERE)
    source._response = response
    source._data_generator = response.iter_lines()
    return iter(source)


# --- sseclient-py: over requests, as its README has it ---


def _open_sseclient_py(url: str, options: Options) -> Opened:
    import requests
    from sseclient import SSEClient

    response: Any = requests.get(url, stream=True, **options.verify)  # noqa: S113 - as there
    client = SSEClient(response)
    return Opened(iter(client.events()), client.close)


def _parse_sseclient_py(chunks: Iterable[bytes], _: Options) -> Iterator[Any]:
    from sseclient import SSEClient

    return iter(SSEClient(iter(chunks)).events())


# --- sseclient ---


@functools.cache
def import_sseclient() -> ModuleType:
    """Import sseclient from its file: sseclient-py has the same import name, and wins."""
    path = importlib.metadata.distribution("sseclient").locate_file("sseclient.py")
    spec = importlib.util.spec_from_file_location("sseclient_module", str(path))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _open_sseclient(url: str, options: Options) -> Opened:
    client = import_sseclient().SSEClient(url, **options.verify)
    return Opened(iter(client), client.resp.close)  # it has no close of its own


def _parse_sseclient(chunks: Iterable[bytes], _: Options) -> Iterator[Any]:
    # It reads from the innards of a requests.Response, in its default of 1024 bytes;
    # larger pieces would be slower, for it searches all that it holds for each event.
    raw = SimpleNamespace(_fp=SimpleNamespace(fp=io.BytesIO(b"".join(chunks))))
    response = SimpleNamespace(raw=raw, encoding="utf-8", raise_for_status=lambda: None)
    session = SimpleNamespace(get=lambda *_, **__: response)
    return iter(import_sseclient().SSEClient(NOWHERE, session=session))


# --- aiohttp-sse-client2 ---


async def _open_aiohttp_sse(url: str, options: Options) -> OpenedAsync:
    from aiohttp import ClientTimeout
    from aiohttp_sse_client2.client import EventSource

    arguments: dict[str, Any] = {"timeout": ClientTimeout(total=None)}  # else five minutes
    if options.large:
        arguments["read_bufsize"] = 2**25  # aiohttp refuses lines of twice this
    if options.ca:
        arguments["ssl"] = _context(options.ca)
    source = EventSource(url, **arguments)
    await source.__aenter__()

    async def close() -> None:
        await source.__aexit__()

    return OpenedAsync(aiter(source), close)


@functools.cache
def _context(ca: str) -> Any:
    """One TLS context for all streams: aiohttp takes no file."""
    import ssl

    return ssl.create_default_context(cafile=ca)


async def _parse_aiohttp_sse(chunks: Iterable[bytes], options: Options) -> AsyncIterator[Any]:
    from aiohttp import StreamReader
    from aiohttp_sse_client2.client import EventSource

    # It parses the lines of aiohttp's StreamReader: a real one here, that has been fed.
    class Protocol:
        connected = True

        def pause_reading(self) -> None: ...
        def resume_reading(self, **_: Any) -> None: ...

    limit = 2**25 if options.large else 2**16
    content = StreamReader(Protocol(), limit, loop=asyncio.get_running_loop())  # type: ignore[arg-type]
    for chunk in chunks:
        content.feed_data(chunk)
    content.feed_eof()
    session = SimpleNamespace()
    source = EventSource(NOWHERE, session=session)
    source._response = SimpleNamespace(status=200, content=content)
    return aiter(source)


# --- The ceiling ---


def read_raw(url: str, size: int, ca: str | None) -> int:
    """Read `size` bytes from a socket and look at none of them; return how many came."""
    scheme, _, rest = url.partition("://")
    host, _, path = rest.partition("/")
    name, _, port = host.partition(":")
    buffer = bytearray(2**20)
    received = 0
    with contextlib.ExitStack() as stack:
        connection = stack.enter_context(socket.create_connection((name, int(port))))
        if scheme == "https":
            assert ca is not None
            context = _context(ca)
            connection = stack.enter_context(context.wrap_socket(connection, server_hostname=name))
        connection.sendall(f"GET /{path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        while received < size and (count := connection.recv_into(buffer)):
            received += count
    return received


ALL = (
    Peer(
        name="EventSource",
        package=OURS,
        module="eventsource",
        kind="handlers",
        ours=True,
        program="from eventsource import EventSource",
        library="requests",
    ),
    Peer(
        name="EventSource (event_timeout and localhost)",
        package=OURS,
        module="eventsource",
        kind="handlers",
        ours=True,
        table="memory",
        host="localhost",
        arguments={"event_timeout": 3600.0},
    ),
    Peer(
        name="EventStream",
        package=OURS,
        module="eventsource",
        kind="loop",
        open=_open_event_stream,
        ours=True,
    ),
    Peer(
        name="EventStream.messages()",
        package=OURS,
        module="eventsource",
        kind="loop",
        open=_open_messages,
        ours=True,
    ),
    Peer(
        name="async for messages()",
        package=OURS,
        module="eventsource",
        kind="asyncio",
        open=_open_async_messages,
        ours=True,
    ),
    Peer(
        name="SSEClient",
        package=OURS,
        module="eventsource",
        kind="loop",
        open=_open_sse_client,
        ours=True,
    ),
    Peer(
        name="EventStreamParser",
        package=OURS,
        module="eventsource",
        kind="parser",
        parse=_parse_ours,
        ours=True,
    ),
    Peer(
        name="EventStreamParser (comments)",
        package=OURS,
        module="eventsource",
        kind="parser",
        parse=_parse_ours_with_comments,
        ours=True,
    ),
    Peer(
        name="launchdarkly-eventsource",
        package="launchdarkly-eventsource",
        module="ld_eventsource",
        kind="loop",
        open=_open_launchdarkly,
        parse=_parse_launchdarkly,
        program="from ld_eventsource import SSEClient",
        library="urllib3",
        makes_comments=True,
    ),
    Peer(
        name="httpx-sse",
        package="httpx-sse",
        module="httpx_sse",
        kind="loop",
        open=_open_httpx_sse,
        parse=_parse_httpx_sse,
        program="from httpx_sse import connect_sse",
        library="httpx",
    ),
    Peer(
        name="httpx2",
        package="httpx2",
        module="httpx2",
        kind="loop",
        open=_open_httpx2,
        parse=_parse_httpx2,
        program="import httpx2",
    ),
    Peer(
        name="requests-sse",
        package="requests-sse",
        module="requests_sse",
        kind="loop",
        open=_open_requests_sse,
        parse=_parse_requests_sse,
        program="from requests_sse import EventSource",
        library="requests",
    ),
    Peer(
        name="aiohttp-sse-client2",
        package="aiohttp-sse-client2",
        module="aiohttp_sse_client2.client",
        kind="asyncio",
        open=_open_aiohttp_sse,
        parse=_parse_aiohttp_sse,
        program="from aiohttp_sse_client2.client import EventSource",
        library="aiohttp",
    ),
    Peer(
        name="sseclient-py",
        package="sseclient-py",
        module="sseclient",
        kind="loop",
        open=_open_sseclient_py,
        parse=_parse_sseclient_py,
        program="from sseclient import SSEClient",
        library="requests",
    ),
    Peer(
        name="sseclient",
        package="sseclient",
        kind="loop",
        open=_open_sseclient,
        parse=_parse_sseclient,
    ),
    Peer(name="npm eventsource", package="eventsource", kind="node"),
    Peer(name="npm undici", package="undici", kind="node"),
    Peer(name="raw socket", package="", kind="raw"),
)
"""The rows, in the order of the tables."""

BY_NAME = {peer.name: peer for peer in ALL}

UNDERNEATH = ("requests", "urllib3", "pyee", "httpx", "httpcore", "aiohttp")
"""Packages that do much of the work: their versions are told, too."""


def version(package: str) -> str | None:
    """Return the installed version of a Python distribution, or None.

    That of this package is the one of the code that is measured: the checkout comes first, and
    what is installed beside it may be older.
    """
    if package == OURS:
        from eventsource import __version__  # a worker that measures a peer does not need it

        return __version__
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
