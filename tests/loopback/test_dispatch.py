"""`eventsource.dispatch`, as far as it needs no window. Windows are in `test_windows.py`."""

from __future__ import annotations

import asyncio
import subprocess
import sys

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


def test_no_toolkit_is_imported_with_the_package():
    code = "import sys, eventsource.dispatch; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    modules = set(run.stdout.split())
    assert modules.isdisjoint({"asyncio", "tkinter", "PySide6", "PyQt6", "concurrent.futures"})


def test_qt_without_qt_says_what_is_needed():
    code = """
import sys
sys.modules["PySide6"] = sys.modules["PyQt6"] = None
from eventsource import dispatch
try:
    dispatch.qt()
except ImportError as error:
    print(error)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "dispatch.qt needs PySide6 or PyQt6\n"
