"""Flask under werkzeug, a thread per request: `python tests/real_servers/flask_app.py PORT`.

Its own: generators in WSGI, which learn of nothing until they write; connections that
are closed after each response.
"""

from __future__ import annotations

import json
import logging
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator

import numbered
from flask import Flask, Response, redirect, request
from werkzeug.serving import make_server

books = numbered.Books()
stopping = threading.Event()
app = Flask(__name__)


def read_order() -> numbered.Order:
    last_event_id = request.headers.get("Last-Event-ID", "").encode("latin-1").decode()
    order = numbered.Order.read(request.args, last_event_id)
    books.asked(request.path, order.name)
    return order


def stream(order: numbered.Order, connection: socket.socket) -> Iterator[bytes]:
    books.begun(order.name)
    try:
        yield f"retry: {numbered.RETRY}\n\n".encode()
        for number in order.numbers:
            if stopping.is_set():
                return
            yield numbered.in_bytes(number)
            if order.pace:
                stopping.wait(order.pace)
        if order.then == "tear":
            yield numbered.torn(order.first + order.count)
        if order.then != "end":
            yield from hold(order, connection)
    finally:
        books.ended(order.name)


def hold(order: numbered.Order, connection: socket.socket) -> Iterator[bytes]:
    """Hold the stream open until the server stops or the client goes.

    WSGI cannot tell that a client has gone while nothing is written to it; werkzeug's
    socket can: it becomes readable.
    """
    last_beat = time.monotonic()
    while not stopping.is_set() and not select.select([connection], [], [], 0.05)[0]:
        if order.heartbeat and time.monotonic() - last_beat >= order.heartbeat:
            last_beat = time.monotonic()
            yield f": {numbered.HEARTBEAT}\n\n".encode()


def answer(order: numbered.Order) -> Response:
    body = stream(order, request.environ["werkzeug.socket"])
    return Response(body, content_type="text/event-stream")


@app.get("/numbers")
def numbers() -> Response:
    return answer(read_order())


@app.get("/gzip")
def compressed() -> Response:
    order = read_order()
    if "gzip" not in request.accept_encodings:
        return answer(order)

    def parts(body: Iterator[bytes]) -> Iterator[bytes]:
        gzip = numbered.Gzip()
        for event in body:
            yield gzip.part(event)
        yield gzip.end()

    return Response(
        parts(stream(order, request.environ["werkzeug.socket"])),
        content_type="text/event-stream",
        headers={"Content-Encoding": "gzip"},
    )


@app.get("/moved")
def moved() -> Response:
    read_order()
    return redirect(f"/numbers?{request.query_string.decode()}", 307)


@app.get("/nothing")
def nothing() -> Response:
    read_order()
    return Response(status=204)


@app.get("/busy")
def busy() -> Response:
    order = read_order()
    if books.times("/busy", order.name) > order.refusals:
        return answer(order)
    return Response(
        "come back later",
        status=503,
        content_type="text/plain",
        headers={"Retry-After": str(numbered.REFUSED_FOR)},
    )


@app.post("/chat")
def chat() -> Response:
    read_order()
    prompt = request.get_json()["prompt"]

    def tokens() -> Iterator[str]:
        for token in (prompt, *numbered.TOKENS):
            yield f"data: {json.dumps({'delta': token})}\n\n"
        yield "data: [DONE]\n\n"

    return Response(tokens(), content_type="text/event-stream")


@app.get("/live")
def live() -> dict[str, object]:
    return books.report(request.args.get("name", ""))


def main() -> None:
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = make_server("127.0.0.1", int(sys.argv[1]), app, threaded=True)
    server.daemon_threads = False  # so that server_close() waits for the streams to end

    def stop(*_: object) -> None:
        stopping.set()
        # In a thread: shutdown() waits for serve_forever(), which this has interrupted.
        threading.Thread(target=server.shutdown).start()

    signal.signal(signal.SIGTERM, stop)
    try:
        server.serve_forever(poll_interval=0.05)
    finally:
        server.server_close()


if __name__ == "__main__":
    main()
