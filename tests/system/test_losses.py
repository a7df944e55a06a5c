"""Thousands of connections are lost, one after another, and leave no memory behind.

A source lives for months: a few bytes for each connection would be a leak. What is compared
is what the process has in use, with a source that has been closed, once that has lost some
connections and once another has lost many more. All is at rest then, so that it does not
depend on speed. It counts what is in use, not what is resident, in a process that has
nothing else to do: Python's objects and, on Linux, what OpenSSL and others have besides.

`EVENTSOURCE_LOSSES=3000 python -m pytest -vs tests/system/test_losses.py` is the long run, and
prints the bytes.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import ctypes
import gc
import json
import os
import ssl
import subprocess
import sys
import threading
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
import requests
import trustme

from eventsource import ErrorEvent, EventSource, EventStream, ReconnectPolicy
from eventsource.testing import ScriptedServer
from tests.support import (
    CHUNKED,
    HEAD,
    LIMIT,
    port_that_refuses,
    respond,
    status,
    stream,
    wait_until,
)

LOSSES = int(os.environ.get("EVENTSOURCE_LOSSES", "200"))
"""So many more connections has one source lost than the other."""
FEW = 30
"""Those of the other: enough that what is made once has been made."""
SLACK = 20_000
"""Bytes by which what is in use may differ from one time to the next, whatever the number: the
last connection of the one was closed in another phase than that of the other. A hundred bytes
for each connection would be as much, and the least that can be kept of one is an error."""
TIME = 120 + LOSSES
"""Seconds."""

EVENT = b"id: 1\ndata: x\n\n"


# --- In a process of its own: the ways to lose connections ---


class AtOnce(ReconnectPolicy):
    """Does not wait, not even the 20 milliseconds that are the least."""

    def next_delay(self, *_args, **_options):
        return 0.0


POLICY = AtOnce(statuses={200, 503})


def by_iterating(url, is_enough, **options):
    with EventStream(url, reconnect=POLICY, **options) as events:
        for event in events:
            if isinstance(event, ErrorEvent) and is_enough():
                break
    return events


def in_a_reader_thread(url, is_enough, **options):
    def count(event):
        if is_enough():
            source.close()

    options = {"on_error": count, **options}
    source = EventSource(url, reconnect=POLICY, start=False, **options)
    source.on("message", lambda event: None)
    source.start()
    source.join()
    return source


def with_event_timeout(url, is_enough):
    return in_a_reader_thread(url, is_enough, event_timeout=LIMIT)


def in_silence(url, is_enough):
    return in_a_reader_thread(url, is_enough, event_timeout=0.005)


def on_a_session(url, is_enough):
    with requests.Session() as session:
        return in_a_reader_thread(url, is_enough, session=session)


def on_a_pool(url, is_enough):
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        return in_a_reader_thread(url, is_enough, dispatch=pool.submit)


def on_an_event_loop(url, is_enough):
    async def main():
        async def count(event):
            await asyncio.sleep(0)
            if is_enough():
                source.close()

        dispatch = asyncio.get_running_loop().call_soon_threadsafe
        source = EventSource(url, on_error=count, reconnect=POLICY, dispatch=dispatch)
        await asyncio.to_thread(source.join)
        return source

    return asyncio.run(main())


def by_async_iterating(url, is_enough):
    async def main():
        async with EventStream(url, reconnect=POLICY) as events:
            async for event in events:
                if isinstance(event, ErrorEvent) and is_enough():
                    break
        return events

    return asyncio.run(main())


def by_restarting(url, is_enough):
    def lose(event):
        if is_enough():
            source.close()
        else:
            source.restart()

    source = EventSource(url, on_message=lose, reconnect=POLICY, start=False)
    source.start()
    source.join()
    return source


def by_closing(url, is_enough):
    while not is_enough():
        opened = threading.Event()
        with EventSource(url, on_open=lambda _, opened=opened: opened.set()) as source:
            opened.wait()
    return source


WAYS = {
    way.__name__: way
    for way in (
        *(by_iterating, by_async_iterating, by_restarting, by_closing),
        *(in_a_reader_thread, on_a_pool, on_an_event_loop),
        *(on_a_session, with_event_timeout, in_silence),
    )
}


class MallInfo(ctypes.Structure):
    """`struct mallinfo2`."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    )


C_LIBRARY: Any = ctypes.CDLL(None) if sys.platform == "linux" else None


def start_counting():
    """Return what tells the bytes in use."""
    if not hasattr(C_LIBRARY, "mallinfo2"):
        tracemalloc.start()
        return lambda: tracemalloc.get_traced_memory()[0]
    C_LIBRARY.mallinfo2.restype = MallInfo

    def count():
        info = C_LIBRARY.mallinfo2()
        return info.uordblks + info.hblkhd

    return count


def at_rest(count):
    """What is counted when there is no other thread and no garbage."""
    wait_until(lambda: threading.active_count() == 1, "the other threads to end")
    gc.collect()
    # Else it keeps names that C code makes up, up to 4,096: each `date.today()` another "time".
    sys._clear_type_cache()
    return count()


def held(bytes_in_use, way, url, losses, **options):
    """How many bytes more are in use once a source has lost so many connections."""
    lost = 0

    def is_enough():
        nonlocal lost
        lost += 1
        return lost >= losses

    before = at_rest(bytes_in_use)
    kept = WAYS[way](url, is_enough, **options)
    after = at_rest(bytes_in_use)
    assert lost == losses
    assert kept is not None
    return after - before


def main():
    way, url, options = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
    bytes_in_use = start_counting()
    numbers = (FEW, FEW, FEW + LOSSES)  # twice, for the first makes what is made once
    print(json.dumps([held(bytes_in_use, way, url, n, **options) for n in numbers]))


if __name__ == "__main__":
    main()


# --- The tests ---


def assert_nothing_is_left(url, way="by_iterating", **options):
    done = subprocess.run(
        [sys.executable, "-m", __name__, way, url, json.dumps(options)],
        cwd=Path(__file__).parents[2],
        env={
            **os.environ,
            "PYTHONMALLOC": "malloc",
            "GLIBC_TUNABLES": "glibc.malloc.tcache_count=0",
        },
        capture_output=True,
        check=False,
        text=True,
        timeout=TIME,
    )
    assert done.returncode == 0, done.stderr
    _, few, many = json.loads(done.stdout)
    print(f"{LOSSES} more lost connections: {many - few} bytes more in use")
    assert many - few < SLACK


def elsewhere(connection):
    """Send it to another origin, and end the stream there."""
    request = connection.read_request()
    if request.path == "/there":
        connection.send(HEAD + EVENT)
    else:
        location = f"http://localhost:{connection.server.port}/there"
        connection.send(
            f"HTTP/1.1 307 Elsewhere\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n".encode()
        )


ENDS = {
    "the end": stream(EVENT),
    "a reset": stream(EVENT, then="reset"),
    "the end of a chunk that is missing": respond(CHUNKED + b"ff\r\n" + EVENT),
    "no answer": respond(b""),
    "no HTTP": respond(b"SSH-2.0-OpenSSH_9.2\r\n"),
    "half a head": respond(HEAD[:-5]),
    "what is not compressed": respond(HEAD[:-2] + b"Content-Encoding: gzip\r\n\r\n" + EVENT),
    "a status": status("503 Service Unavailable", "Retry-After: 0", body=b"x" * 1000),
    "another type": status("200 OK", "Content-Type: text/html", body=b"x"),
    "a redirect": elsewhere,
}


@pytest.mark.timeout(TIME + LIMIT)
@pytest.mark.parametrize("script", ENDS.values(), ids=ENDS)
def test_a_connection_that_is_lost_leaves_no_memory_behind(script):
    with ScriptedServer(script) as server:
        assert_nothing_is_left(server.url)


@pytest.mark.timeout(TIME + LIMIT)
def test_a_connection_that_is_refused_leaves_no_memory_behind():
    with port_that_refuses() as port:
        assert_nothing_is_left(f"http://127.0.0.1:{port}/")


@pytest.mark.timeout(TIME + LIMIT)
@pytest.mark.parametrize("is_trusted", [True, False])
def test_a_tls_handshake_leaves_no_memory_behind(is_trusted, tmp_path):
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    trusted = authority if is_trusted else trustme.CA()
    trusted.cert_pem.write_to_path(tmp_path / "ca.pem")
    with ScriptedServer(stream(EVENT), ssl_context=context) as server:
        assert_nothing_is_left(server.url, verify=str(tmp_path / "ca.pem"))


HELD = {"by_restarting", "by_closing", "in_silence"}


@pytest.mark.timeout(TIME + LIMIT)
@pytest.mark.parametrize("way", WAYS)
def test_however_connections_are_lost_no_memory_is_left_behind(way):
    script = stream(EVENT, then="hold") if way in HELD else stream(EVENT)
    with ScriptedServer(script) as server:
        assert_nothing_is_left(server.url, way)
