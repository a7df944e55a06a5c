"""What the tests of asyncio use: a loop with a time limit, and a look at its complaints.

A test that is a coroutine function is run by `run()`.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging

import pytest

from eventsource import EventStream
from eventsource.testing import ScriptedServer

from .support import LIMIT


@pytest.fixture(autouse=True)
def asyncio_has_nothing_to_complain_of():
    """No task that was destroyed, no exception that was never retrieved.

    Warnings are errors already (see setup.cfg); the collection brings them to light.
    """
    records = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = records.append
    logger = logging.getLogger("asyncio")
    logger.addHandler(handler)
    try:
        yield
        gc.collect()
    finally:
        logger.removeHandler(handler)
    assert [record.getMessage() for record in records] == []


def run(main, *, debug=True):
    """Run a coroutine function on a loop of its own, for a limited time."""

    async def limited():
        asyncio.get_running_loop().slow_callback_duration = LIMIT  # no matter of ours
        async with asyncio.timeout(LIMIT):
            return await main()

    return asyncio.run(limited(), debug=debug)


async def until(condition, what="a condition"):
    """Wait for what no event tells of, looking again every few milliseconds."""
    deadline = asyncio.get_running_loop().time() + LIMIT
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, f"waited {LIMIT} s for {what}"
        await asyncio.sleep(0.002)


@contextlib.asynccontextmanager
async def reading(*scripts, **options):
    """A stream of a server with these scripts, and the server."""
    with ScriptedServer(*scripts) as server:
        async with EventStream(server.url, **options) as events:
            yield events, server
