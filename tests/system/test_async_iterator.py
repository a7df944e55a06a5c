"""`async for` in a program that ends."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from eventsource.testing import ScriptedServer
from tests.on_loop import asyncio_has_nothing_to_complain_of, run, until  # noqa: F401 - a fixture
from tests.support import (
    LIMIT,
    stream,
)

SILENT = """
import asyncio, sys
from eventsource import EventStream

kept = []

async def main():
    stream = EventStream(sys.argv[1])
    iterator = aiter(stream)
    kept.append((stream, iterator))
    await anext(iterator)
    if sys.argv[2] == "waiting":
        kept.append(asyncio.ensure_future(anext(iterator)))
        await asyncio.sleep(0)

asyncio.run(main(), debug=True)
print("left")
"""


@pytest.mark.parametrize("how", ["waiting", "idle"])
def test_a_program_that_has_not_closed_a_silent_stream_exits(how):
    with ScriptedServer(stream(then="hold")) as server:
        done = subprocess.run(
            [sys.executable, "-X", "dev", "-W", "error", "-c", SILENT, server.url, how],
            capture_output=True,
            text=True,
            timeout=LIMIT,
            check=False,
            env={**os.environ, "NO_PROXY": "*"},
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "left\n", "")
        assert server.connections[0].gone.wait(LIMIT)
