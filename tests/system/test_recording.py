"""How recordings are played to a client of others."""

from __future__ import annotations

import math

from tests.loopback.test_recording import TWO_PARTS, file
from tests.support import imported

__all__ = ["file"]  # a fixture


def with_httpx_sse(url):
    httpx, httpx_sse = imported("httpx"), imported("httpx_sse")
    heard = []
    last = ""
    while True:
        headers = {"Last-Event-ID": last.encode()} if last else {}
        with (
            httpx.Client() as client,
            httpx_sse.connect_sse(client, "GET", url, headers=headers) as s,
        ):
            if s.response.status_code == 204:
                return heard
            try:
                for event in s.iter_sse():
                    last = event.id
                    if event.data:  # a block with `retry` alone is an event to it
                        heard.append(event)
            except httpx.RemoteProtocolError:  # the loss
                pass


def test_it_is_a_server_for_httpx_sse(sse_server, file):
    sse_server.replay(file(*TWO_PARTS), speed=math.inf)
    assert [event.data for event in with_httpx_sse(sse_server.url)] == ["1", "2", "3", "4"]
