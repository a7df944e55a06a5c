"""`eventsource.dispatch`, as far as it needs no window. Windows are in `test_windows.py`."""

from __future__ import annotations

import asyncio

import pytest

from eventsource import dispatch


def test_asyncio_is_the_running_loops_call_soon_threadsafe():
    async def main():
        loop = asyncio.get_running_loop()
        assert dispatch.asyncio() == loop.call_soon_threadsafe

    asyncio.run(main())


def test_asyncio_takes_a_loop_that_does_not_run_yet():
    loop = asyncio.new_event_loop()
    assert dispatch.asyncio(loop) == loop.call_soon_threadsafe
    loop.close()


def test_asyncio_without_a_running_loop_is_an_error():
    with pytest.raises(RuntimeError, match="no running event loop"):
        dispatch.asyncio()
