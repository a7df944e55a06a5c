"""aiohttp's own server: `python tests/real_servers/aiohttp_app.py PORT`.

Its own: one HTTP chunk per write, compression by the framework (which is not flushed
before the end), handlers that are cancelled when the client goes.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys

import numbered
from aiohttp import web

books = numbered.Books()
stopping: web.AppKey[asyncio.Event] = web.AppKey("stopping")
routes = web.RouteTableDef()


def read_order(request: web.Request) -> numbered.Order:
    order = numbered.Order.read(request.query, request.headers.get("Last-Event-ID", ""))
    books.asked(request.path, order.name)
    return order


async def open_stream(request: web.Request, *, compress: bool = False) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    if compress:
        response.enable_compression()  # if the client accepts it
    await response.prepare(request)
    return response


async def send_numbers(
    request: web.Request, order: numbered.Order, *, compress: bool = False
) -> web.StreamResponse:
    stop = request.app[stopping]
    books.begun(order.name)
    try:
        response = await open_stream(request, compress=compress)
        await response.write(f"retry: {numbered.RETRY}\n\n".encode())
        for number in order.numbers:
            if stop.is_set():
                return response
            await response.write(numbered.in_bytes(number))
            await asyncio.sleep(order.pace)
        if order.then == "tear":
            await response.write(numbered.torn(order.first + order.count))
        while order.then != "end" and not stop.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), order.heartbeat or None)
                break
            await response.write(f": {numbered.HEARTBEAT}\n\n".encode())
        return response
    finally:
        books.ended(order.name)


@routes.get("/numbers")
async def numbers(request: web.Request) -> web.StreamResponse:
    return await send_numbers(request, read_order(request))


@routes.get("/gzip")
async def compressed(request: web.Request) -> web.StreamResponse:
    return await send_numbers(request, read_order(request), compress=True)


@routes.get("/moved")
async def moved(request: web.Request) -> web.StreamResponse:
    read_order(request)
    raise web.HTTPTemporaryRedirect(f"/numbers?{request.query_string}")


@routes.get("/nothing")
async def nothing(request: web.Request) -> web.StreamResponse:
    read_order(request)
    return web.Response(status=204)


@routes.get("/busy")
async def busy(request: web.Request) -> web.StreamResponse:
    order = read_order(request)
    if books.times("/busy", order.name) > order.refusals:
        return await send_numbers(request, order)
    headers = {"Retry-After": str(numbered.REFUSED_FOR)}
    return web.Response(status=503, text="come back later", headers=headers)


@routes.post("/chat")
async def chat(request: web.Request) -> web.StreamResponse:
    read_order(request)
    prompt = (await request.json())["prompt"]
    response = await open_stream(request)
    for token in (prompt, *numbered.TOKENS):
        await response.write(f"data: {json.dumps({'delta': token})}\n\n".encode())
    await response.write(b"data: [DONE]\n\n")
    return response


@routes.get("/live")
async def live(request: web.Request) -> web.StreamResponse:
    return web.json_response(books.report(request.query.get("name", "")))


async def make_app() -> web.Application:
    app = web.Application()
    app.add_routes(routes)
    app[stopping] = asyncio.Event()

    async def stop(app: web.Application) -> None:
        app[stopping].set()

    app.on_shutdown.append(stop)
    return app


if __name__ == "__main__":
    web.run_app(
        make_app(),
        host="127.0.0.1",
        port=int(sys.argv[1]),
        print=None,
        access_log=None,
        handler_cancellation=True,
        shutdown_timeout=10,
    )
