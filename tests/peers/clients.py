"""The clients that are compared, each used as its own documentation has it.

A probe gives each client the same settings, an `Ask`. The client sets its own documented
options accordingly, and ignores settings for which it has no option. Each client is imported
only in the process that tests it.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import functools
import importlib
import importlib.metadata
import ssl
from collections.abc import Callable
from typing import Any, ClassVar

from benchmarks.peers import import_sseclient

from .reading import PATIENCE, Ask, Reading

NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""For httpx, which otherwise makes a context for each client, which is slow. No probe uses TLS."""


class Client:
    """One column, or one of several ways to use its client."""

    name: ClassVar[str]
    """The distribution."""
    source: ClassVar[str]
    """Where its documentation and source are."""
    modules: ClassVar[tuple[str, ...]] = ()
    """Imported before the probes begin."""
    way: str = ""
    """The name of this way in the documentation, if there are several."""
    framing = "chunked"
    """A framing in which it delivers each event when it comes."""
    reconnects = True
    """Whether its documentation says that it reconnects."""
    takes_handlers = False
    """Whether it accepts functions that it calls with the events."""

    def read(self, reading: Reading) -> None:
        """Read the stream in this thread, until it is over."""
        raise NotImplementedError

    def ways(self) -> list[Client]:
        """All the ways to use it that its documentation shows, in order."""
        return [self]

    @property
    def asynchronous(self) -> Client | None:
        return next((way for way in self.ways() if isinstance(way, AsyncClient)), None)

    def classes(self) -> list[type]:
        """Its public classes."""
        raise NotImplementedError

    def decode(self, chunks: list[bytes]) -> list[str] | None:
        """The data of the events in bytes that another HTTP client has read."""

    async def read_on_trio(self, url: str) -> str | None:
        """The data of the stream's first event, read in a trio task."""

    def read_over_http2(self, url: str) -> str | None:
        """The same over HTTP/2 without TLS."""
        reading = Reading(self, url).start()
        reading.wait_for(1)
        return reading.heard[0].data if reading.heard else None

    async def read_app(self, app: Callable[..., Any]) -> str | None:
        """The data of the first event of an ASGI application, read without a server."""

    def import_all(self) -> None:
        for module in self.modules:
            importlib.import_module(module)


class AsyncClient(Client):
    """A way that runs on asyncio."""

    def read(self, reading: Reading) -> None:
        async def main() -> None:
            loop = asyncio.get_running_loop()
            task = asyncio.current_task()
            assert task is not None
            reading.cancel = functools.partial(loop.call_soon_threadsafe, task.cancel)
            await self.read_async(reading)

        asyncio.run(main())

    async def read_async(self, reading: Reading) -> None:
        raise NotImplementedError

    @staticmethod
    async def take_a_break(reading: Reading) -> None:
        if reading.paused:
            await asyncio.to_thread(reading.take_a_break)


# --- This package ---


class Ours(Client):
    name = "eventsource-client"
    source = "index.md"
    modules = ("eventsource",)
    way = "`EventStream`"

    def ways(self) -> list[Client]:
        return [self, OursHandlers(), OursAsync()]

    def classes(self) -> list[type]:
        from eventsource import EventSource, EventStream

        return [EventSource, EventStream]

    @staticmethod
    def options(ask: Ask) -> dict[str, Any]:
        from eventsource import ReconnectPolicy

        class OwnPolicy(ReconnectPolicy):
            def next_delay(self, *args: Any, **kwargs: Any) -> float:
                if ask.own_delay is not None:
                    return ask.own_delay()
                return super().next_delay(*args, **kwargs)

        policy = OwnPolicy(
            delay=ask.delay,
            max_delay=60.0 if ask.max_delay is None else ask.max_delay,
            jitter=ask.jitter,
            statuses=frozenset(ask.statuses),
        )
        options: dict[str, Any] = {"headers": dict(ask.headers), "reconnect": policy}
        if ask.silence is not None:
            options["timeout"] = (PATIENCE, ask.silence)
        if ask.stalled is not None:
            options["event_timeout"] = ask.stalled
        if ask.largest is not None:
            options["max_event_size"] = ask.largest
        if ask.token is not None:
            options["auth"] = _bearer(ask.token)
        if ask.body is not None:
            options.update(method="POST", json=ask.body)
            del options["reconnect"]
        return options

    def read(self, reading: Reading) -> None:
        from eventsource import EventStream

        with EventStream(reading.url, comments=True, **self.options(reading.ask)) as stream:
            reading.close = stream.close
            for item in stream.messages() if reading.ask.only_messages else stream:
                _note_ours(reading, item)
                reading.take_a_break()
        if stream.error is not None:
            raise stream.error

    def decode(self, chunks: list[bytes]) -> list[str]:
        from eventsource import parse

        return [event.data for event in parse(chunks)]

    async def read_on_trio(self, url: str) -> str:
        import trio

        from eventsource import EventSource

        sending, receiving = trio.open_memory_channel[str](1)
        dispatch = trio.lowlevel.current_trio_token().run_sync_soon
        with EventSource(url, dispatch=dispatch) as source:
            source.on("message", lambda event: sending.send_nowait(event.data))
            return await receiving.receive()

    def read_over_http2(self, url: str) -> str:
        import httpx

        from eventsource import parse

        with (
            httpx.Client(http1=False, http2=True, verify=NO_TLS) as http,
            http.stream("GET", url) as response,
        ):
            return next(parse(response.iter_bytes())).data

    async def read_app(self, app: Callable[..., Any]) -> str:
        import httpx

        from eventsource import aparse

        transport = httpx.ASGITransport(app)
        async with (
            httpx.AsyncClient(transport=transport, verify=NO_TLS) as http,
            http.stream("GET", "http://app/") as response,
        ):
            return (await anext(aparse(response.aiter_bytes()))).data


class OursHandlers(Ours):
    way = "`EventSource`"
    takes_handlers = True

    def read(self, reading: Reading) -> None:
        from eventsource import EventSource, MessageEvent

        ask = reading.ask
        handlers = {"message": ask.handler} if ask.handler else dict(ask.listeners)

        def note(item: Any) -> None:
            _note_ours(reading, item)
            reading.take_a_break()

        source = EventSource(
            reading.url,
            start=False,
            on_comment=lambda text: reading.note(reading.comments, text),
            **self.options(ask),
        )
        source.on("open", note)
        source.on("message", note)
        if not ask.only_messages:
            source.on("error", note)
        for event_type, handler in handlers.items():

            def call(event: MessageEvent, handler: Callable[[str], object] = handler) -> None:
                handler(event.data)

            source.on(event_type, call)
        reading.close = source.close
        source.start()
        source.join()
        if source.error is not None:
            raise source.error


class OursAsync(AsyncClient, Ours):
    way = "`async for`"

    async def read_async(self, reading: Reading) -> None:
        from eventsource import EventStream

        async with EventStream(reading.url, **self.options(reading.ask)) as stream:
            reading.close = stream.close
            async for item in stream.messages() if reading.ask.only_messages else stream:
                _note_ours(reading, item)
                await self.take_a_break(reading)
        if stream.error is not None:
            raise stream.error


def _note_ours(reading: Reading, item: Any) -> None:
    from eventsource import Comment, ErrorEvent, MessageEvent, OpenEvent

    match item:
        case MessageEvent():
            reading.hear(item.type, item.data, item.last_event_id)
        case OpenEvent(headers=headers):
            reading.headers = headers
        case Comment(text=text):
            reading.note(reading.comments, text)
        case ErrorEvent(retry_in=seconds) if seconds is not None:
            reading.note(reading.waits, seconds)


def _bearer(token: Callable[[], str]) -> Callable[[Any], Any]:
    """An `auth` of requests that sets a new token for each request."""

    def authorize(request: Any) -> Any:
        request.headers["Authorization"] = f"Bearer {token()}"
        return request

    return authorize


# --- launchdarkly-eventsource ---


class LaunchDarkly(Client):
    name = "launchdarkly-eventsource"
    source = "https://github.com/launchdarkly/python-eventsource"
    modules = ("ld_eventsource", "urllib3")
    way = "`SSEClient`"

    def ways(self) -> list[Client]:
        return [self, LaunchDarklyAsync()]

    def classes(self) -> list[type]:
        from ld_eventsource import SSEClient

        return [SSEClient]

    @staticmethod
    def options(ask: Ask) -> dict[str, Any]:
        from ld_eventsource.config import ErrorStrategy, RetryDelayStrategy
        from ld_eventsource.errors import HTTPStatusError

        strategy = ErrorStrategy.always_continue()
        if ask.only_messages:
            strategy = ErrorStrategy.always_fail()  # the default
        elif ask.final_statuses:
            strategy = ErrorStrategy.from_lambda(
                lambda error: (isinstance(error, HTTPStatusError), None)
            )
        delays = RetryDelayStrategy.default(ask.max_delay, 2, ask.jitter)
        own_delay = ask.own_delay
        if own_delay is not None:
            delays = RetryDelayStrategy.from_lambda(lambda _: (own_delay(), None))
        return {
            "initial_retry_delay": ask.delay,
            "retry_delay_strategy": delays,
            "error_strategy": strategy,
        }

    def read(self, reading: Reading) -> None:
        from ld_eventsource import SSEClient
        from ld_eventsource.config import ConnectStrategy
        from urllib3 import Timeout

        ask = reading.ask
        token = ask.token
        connect = ConnectStrategy.http(
            reading.url,
            headers=dict(ask.headers),
            urllib3_request_options={"timeout": Timeout(read=ask.silence)} if ask.silence else None,
            query_params=(lambda: {"token": token()}) if token else None,
        )
        with SSEClient(connect, **self.options(ask)) as client:
            reading.close = client.close
            for item in client.all:
                self.note(reading, item)
                reading.take_a_break()

    @staticmethod
    def note(reading: Reading, item: Any) -> None:
        from ld_eventsource.actions import Comment, Event, Start

        if isinstance(item, Event):
            reading.hear(item.event, item.data, item.last_event_id)
        elif isinstance(item, Comment):
            reading.note(reading.comments, item.comment)
        elif isinstance(item, Start):
            reading.headers = item.headers or {}

    def decode(self, chunks: list[bytes]) -> list[str]:
        from ld_eventsource import SSEClient
        from ld_eventsource.config import ConnectionClient, ConnectionResult, ConnectStrategy

        class Given(ConnectStrategy, ConnectionClient):
            def create_client(self, logger: Any) -> ConnectionClient:
                return self

            def connect(self, last_event_id: str | None) -> ConnectionResult:
                return ConnectionResult(iter(chunks), None)

        return [event.data for event in SSEClient(Given()).events]


class LaunchDarklyAsync(AsyncClient, LaunchDarkly):
    way = "`AsyncSSEClient`"

    def import_all(self) -> None:
        importlib.import_module("ld_eventsource.async_http")  # needs its extra `async`

    async def read_async(self, reading: Reading) -> None:
        from aiohttp import ClientTimeout
        from ld_eventsource.async_client import AsyncSSEClient
        from ld_eventsource.config.async_connect_strategy import AsyncConnectStrategy

        ask = reading.ask
        timeout = ClientTimeout(total=None, sock_read=ask.silence)
        connect = AsyncConnectStrategy.http(
            reading.url,
            headers=dict(ask.headers),
            aiohttp_request_options={"timeout": timeout} if ask.silence else None,
        )
        loop = asyncio.get_running_loop()
        async with AsyncSSEClient(connect, **self.options(ask)) as client:
            reading.close = lambda: asyncio.run_coroutine_threadsafe(client.close(), loop)
            async for item in client.all:
                self.note(reading, item)
                await self.take_a_break(reading)

    async def read_on_trio(self, url: str) -> str | None:
        from ld_eventsource.async_client import AsyncSSEClient

        async with AsyncSSEClient(url) as client:
            async for event in client.events:
                return event.data
        return None


# --- httpx-sse and httpx2 ---


class HttpxSse(Client):
    name = "httpx-sse"
    source = "https://github.com/florimondmanca/httpx-sse"
    modules = ("httpx_sse", "httpcore", "anyio._backends._asyncio", "httpx")
    way = "`Client`"
    reconnects = False

    def ways(self) -> list[Client]:
        return [self, HttpxSseAsync()]

    def classes(self) -> list[type]:
        from httpx_sse import EventSource

        return [EventSource]

    @property
    def httpx(self) -> Any:
        return importlib.import_module(self.modules[-1])

    def client_options(self, ask: Ask) -> dict[str, Any]:
        """The options of the httpx client, without its read timeout of 5 s (too short here)."""
        options: dict[str, Any] = {"follow_redirects": ask.redirects, "verify": NO_TLS}
        if not ask.defaults:
            options["timeout"] = self.httpx.Timeout(None, read=ask.silence)
        return options

    @staticmethod
    def request(ask: Ask) -> tuple[str, dict[str, Any]]:
        """The method and the options."""
        options: dict[str, Any] = {"headers": dict(ask.headers)}
        if ask.body is None:
            return "GET", options
        return "POST", options | {"json": ask.body}

    def read(self, reading: Reading) -> None:
        with (
            self.httpx.Client(**self.client_options(reading.ask)) as http,
            self.connect(http, reading) as source,
        ):
            reading.headers = source.response.headers
            reading.close = source.response.close
            for event in self.events(source):
                reading.hear(event.event, event.data, event.id)
                reading.take_a_break()

    def connect(self, http: Any, reading: Reading) -> Any:
        from httpx_sse import connect_sse

        method, options = self.request(reading.ask)
        return connect_sse(http, method, reading.url, **options)

    def events(self, source: Any) -> Any:
        return source.iter_sse()

    def connect_async(self, http: Any, url: str, method: str = "GET", **options: Any) -> Any:
        from httpx_sse import aconnect_sse

        return aconnect_sse(http, method, url, **options)

    def events_async(self, source: Any) -> Any:
        return source.aiter_sse()

    async def read_on_trio(self, url: str) -> str | None:
        return await self._read_first(url, timeout=None)

    async def read_app(self, app: Callable[..., Any]) -> str | None:
        return await self._read_first("http://app/", transport=self.httpx.ASGITransport(app))

    async def _read_first(self, url: str, **options: Any) -> str | None:
        async with (
            self.httpx.AsyncClient(verify=NO_TLS, **options) as http,
            self.connect_async(http, url) as source,
        ):
            async for event in self.events_async(source):
                return str(event.data)
        return None

    def read_over_http2(self, url: str) -> str | None:
        reading = Reading(self, url)
        with (
            self.httpx.Client(http1=False, http2=True, verify=NO_TLS) as http,
            self.connect(http, reading) as source,
        ):
            for event in self.events(source):
                return str(event.data)
        return None


class HttpxSseAsync(AsyncClient, HttpxSse):
    way = "`AsyncClient`"

    async def read_async(self, reading: Reading) -> None:
        method, options = self.request(reading.ask)
        loop = asyncio.get_running_loop()
        async with (
            self.httpx.AsyncClient(**self.client_options(reading.ask)) as http,
            self.connect_async(http, reading.url, method, **options) as source,
        ):
            reading.headers = source.response.headers
            close = source.response.aclose
            reading.close = lambda: asyncio.run_coroutine_threadsafe(close(), loop)
            async for event in self.events_async(source):
                reading.hear(event.event, event.data, event.id)
                await self.take_a_break(reading)


class Httpx2(HttpxSse):
    name = "httpx2"
    source = "https://github.com/pydantic/httpx2"
    modules = ("httpcore2", "anyio._backends._asyncio", "httpx2")

    def ways(self) -> list[Client]:
        return [self, Httpx2Async()]

    def classes(self) -> list[type]:
        from httpx2 import EventSource

        return [EventSource]

    def connect(self, http: Any, reading: Reading) -> Any:
        method, options = self.request(reading.ask)
        if reading.ask.largest is not None:
            options["max_event_size"] = reading.ask.largest
        return http.sse(reading.url, method=method, **options)

    def events(self, source: Any) -> Any:
        return source

    def connect_async(self, http: Any, url: str, method: str = "GET", **options: Any) -> Any:
        return http.sse(url, method=method, **options)

    def events_async(self, source: Any) -> Any:
        return source


class Httpx2Async(HttpxSseAsync, Httpx2):
    pass


# --- requests-sse ---


class RequestsSse(Client):
    name = "requests-sse"
    source = "https://github.com/overcat/requests-sse"
    modules = ("requests_sse",)
    takes_handlers = True

    def classes(self) -> list[type]:
        from requests_sse import EventSource

        return [EventSource]

    def read(self, reading: Reading) -> None:
        from requests_sse import EventSource

        ask = reading.ask
        options: dict[str, Any] = {"headers": dict(ask.headers), "timeout": ask.silence}
        if ask.body is not None:
            options |= {"method": "POST", "json": ask.body}
        if ask.token is not None:
            options["auth"] = _bearer(ask.token)
        if ask.handler is not None:
            handler = ask.handler
            options["on_message"] = lambda event: handler(event.data)
        delay = dt.timedelta(seconds=ask.delay)
        with EventSource(reading.url, reconnection_time=delay, **options) as source:
            reading.close = source.close
            for event in source:
                reading.hear(event.type, event.data, event.last_event_id)
                reading.take_a_break()


# --- aiohttp-sse-client2 ---


class AiohttpSse(AsyncClient):
    name = "aiohttp-sse-client2"
    source = "https://github.com/JelleZijlstra/aiohttp-sse-client2"
    modules = ("aiohttp_sse_client2.client",)
    takes_handlers = True

    def classes(self) -> list[type]:
        from aiohttp_sse_client2.client import EventSource

        return [EventSource]

    async def read_async(self, reading: Reading) -> None:
        from aiohttp import ClientTimeout
        from aiohttp_sse_client2.client import EventSource

        ask = reading.ask
        options: dict[str, Any] = {"headers": dict(ask.headers)}
        if not ask.defaults:
            options["timeout"] = ClientTimeout(total=None, sock_read=ask.silence)
        if ask.body is not None:
            options |= {"option": {"method": "POST"}, "json": ask.body}
        if ask.token is not None:
            options["middlewares"] = (_aiohttp_bearer(ask.token),)
        if ask.handler is not None:
            handler = ask.handler
            options["on_message"] = lambda event: handler(event.data)
        if ask.largest is not None:
            options["read_bufsize"] = ask.largest // 2  # aiohttp refuses lines of twice this
        delay = dt.timedelta(seconds=ask.delay)
        loop = asyncio.get_running_loop()
        async with EventSource(reading.url, reconnection_time=delay, **options) as source:
            reading.close = lambda: asyncio.run_coroutine_threadsafe(source.close(), loop)
            async for event in source:
                reading.hear(event.type, event.data, event.last_event_id)
                await self.take_a_break(reading)

    async def read_on_trio(self, url: str) -> str | None:
        from aiohttp_sse_client2.client import EventSource

        async with EventSource(url) as source:
            async for event in source:
                return str(event.data)
        return None


def _aiohttp_bearer(token: Callable[[], str]) -> Any:
    async def authorize(request: Any, handler: Any) -> Any:
        request.headers["Authorization"] = f"Bearer {token()}"
        return await handler(request)

    return authorize


# --- sseclient-py: over what its README has under it ---


class SseclientPy(Client):
    name = "sseclient-py"
    source = "https://github.com/mpetazzoni/sseclient"
    modules = ("sseclient", "requests")
    way = "requests"
    reconnects = False

    def ways(self) -> list[Client]:
        return [self, SseclientPyUrllib3(), SseclientPyHttpx()]

    def classes(self) -> list[type]:
        from sseclient import SSEClient

        return [SSEClient]

    def read(self, reading: Reading) -> None:
        import requests

        ask = reading.ask
        method = "GET" if ask.body is None else "POST"
        response = requests.request(
            method,
            reading.url,
            stream=True,
            headers=dict(ask.headers),
            json=ask.body,
            timeout=ask.silence,
        )
        reading.headers = response.headers
        self.read_from(response, reading)

    @staticmethod
    def read_from(response: Any, reading: Reading) -> None:
        from sseclient import SSEClient

        client = SSEClient(response)
        reading.close = client.close
        for event in client.events():
            reading.hear(event.event, event.data, event.id)
            reading.take_a_break()

    def decode(self, chunks: list[bytes]) -> list[str]:
        from sseclient import SSEClient

        return [event.data for event in SSEClient(iter(chunks)).events()]

    def read_over_http2(self, url: str) -> str | None:
        import httpx
        from sseclient import SSEClient

        with (
            httpx.Client(http1=False, http2=True, verify=NO_TLS) as http,
            http.stream("GET", url) as response,
        ):
            for event in SSEClient(response.iter_bytes()).events():
                return str(event.data)
        return None


class SseclientPyUrllib3(SseclientPy):
    way = "urllib3"

    def read(self, reading: Reading) -> None:
        import urllib3

        ask = reading.ask
        response = urllib3.PoolManager().request(
            "GET",
            reading.url,
            preload_content=False,
            headers=dict(ask.headers),
            timeout=urllib3.Timeout(read=ask.silence),
        )
        reading.headers = response.headers
        self.read_from(response, reading)


class SseclientPyHttpx(SseclientPy):
    way = "httpx"
    modules = ("sseclient", "httpcore", "httpx")

    def read(self, reading: Reading) -> None:
        import httpx

        ask = reading.ask
        timeout = httpx.Timeout(5) if ask.defaults else httpx.Timeout(None, read=ask.silence)
        with httpx.stream(
            "GET",
            reading.url,
            headers=dict(ask.headers),
            timeout=timeout,
            verify=NO_TLS,
            follow_redirects=ask.redirects,
        ) as response:
            reading.headers = response.headers
            self.read_from(response.iter_bytes(), reading)


# --- sseclient ---


class Sseclient(Client):
    name = "sseclient"
    source = "https://github.com/btubbs/sseclient"
    framing = "plain"

    def import_all(self) -> None:
        import_sseclient()

    def classes(self) -> list[type]:
        return [import_sseclient().SSEClient]

    def read(self, reading: Reading) -> None:
        ask = reading.ask
        options: dict[str, Any] = {"headers": dict(ask.headers)}
        if ask.silence is not None:
            options["timeout"] = ask.silence
        if ask.token is not None:
            options["auth"] = _bearer(ask.token)
        client = import_sseclient().SSEClient(reading.url, retry=round(ask.delay * 1000), **options)
        reading.headers = client.resp.headers
        reading.close = lambda: client.resp.close()  # the client has no close()
        for event in client:
            reading.hear(event.event, event.data, client.last_id)
            reading.take_a_break()


OURS = Ours()
PEERS: tuple[Client, ...] = (
    LaunchDarkly(),
    HttpxSse(),
    Httpx2(),
    RequestsSse(),
    AiohttpSse(),
    SseclientPy(),
    Sseclient(),
)
ALL = (OURS, *PEERS)
"""The columns, in order."""


def version(name: str) -> str | None:
    """The installed version of a distribution, or None."""
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version(name)
    return None
