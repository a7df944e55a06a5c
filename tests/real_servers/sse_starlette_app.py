"""sse-starlette under uvicorn: `python tests/real_servers/sse_starlette_app.py PORT`.

Its own: CRLF line ends, ping comments from a task beside the stream, streams that are
cancelled when the client goes and when uvicorn stops.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator

import numbered
import uvicorn
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

books = numbered.Books()
NEVER = 3600


def read_order(request: Request) -> numbered.Order:
    last_event_id = request.headers.get("Last-Event-ID", "").encode("latin-1").decode()
    order = numbered.Order.read(request.query_params, last_event_id)
    books.asked(request.url.path, order.name)
    return order


async def stream(order: numbered.Order) -> AsyncIterator[ServerSentEvent | bytes]:
    books.begun(order.name)
    try:
        yield ServerSentEvent(retry=numbered.RETRY)
        for number in order.numbers:
            kind = numbered.event_type(number)
            yield ServerSentEvent(
                numbered.event_data(number),
                event=None if kind == "message" else kind,
                id=numbered.event_id(number),
            )
            await asyncio.sleep(order.pace)
        if order.then == "tear":
            yield numbered.torn(order.first + order.count)
        if order.then != "end":
            await asyncio.Event().wait()  # until cancelled
    finally:
        books.ended(order.name)


def answer(order: numbered.Order) -> Response:
    return EventSourceResponse(
        stream(order),
        ping=order.heartbeat or NEVER,
        ping_message_factory=lambda: ServerSentEvent(comment=numbered.HEARTBEAT),
    )


async def numbers(request: Request) -> Response:
    return answer(read_order(request))


async def compressed(request: Request) -> Response:
    order = read_order(request)
    if "gzip" not in request.headers.get("Accept-Encoding", ""):
        return answer(order)

    async def parts() -> AsyncIterator[bytes]:
        gzip = numbered.Gzip()
        async for event in stream(order):
            yield gzip.part(event if isinstance(event, bytes) else event.encode())
        yield gzip.end()

    return EventSourceResponse(parts(), headers={"Content-Encoding": "gzip"}, ping=NEVER)


async def moved(request: Request) -> Response:
    read_order(request)
    return RedirectResponse(f"/numbers?{request.url.query}")


async def nothing(request: Request) -> Response:
    read_order(request)
    return Response(status_code=204)


async def busy(request: Request) -> Response:
    order = read_order(request)
    if books.times("/busy", order.name) > order.refusals:
        return answer(order)
    headers = {"Retry-After": str(numbered.REFUSED_FOR)}
    return PlainTextResponse("come back later", status_code=503, headers=headers)


async def chat(request: Request) -> Response:
    read_order(request)
    prompt = (await request.json())["prompt"]

    async def tokens() -> AsyncIterator[ServerSentEvent]:
        for token in (prompt, *numbered.TOKENS):
            yield ServerSentEvent(json.dumps({"delta": token}))
        yield ServerSentEvent("[DONE]")

    return EventSourceResponse(tokens())


async def live(request: Request) -> Response:
    return JSONResponse(books.report(request.query_params.get("name", "")))


app = Starlette(
    routes=[
        Route("/numbers", numbers),
        Route("/gzip", compressed),
        Route("/moved", moved),
        Route("/nothing", nothing),
        Route("/busy", busy),
        Route("/chat", chat, methods=["POST"]),
        Route("/live", live),
    ]
)

if __name__ == "__main__":
    uvicorn.run(
        app,
        host="127.0.0.1",
        port=int(sys.argv[1]),
        log_level="warning",
        timeout_graceful_shutdown=10,
    )
