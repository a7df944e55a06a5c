"""`async for` in a program that ends."""

from __future__ import annotations

import pytest

from eventsource.testing import ScriptedServer
from tests.support import LIMIT, run_python, stream

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
        done = run_python(SILENT, server.url, how, flags=["-X", "dev", "-W", "error"])
        assert (done.returncode, done.stdout, done.stderr) == (0, "left\n", "")
        assert server.connections[0].gone.wait(LIMIT)
