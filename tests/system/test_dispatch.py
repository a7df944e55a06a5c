"""`eventsource.dispatch` in programs without the toolkits."""

from __future__ import annotations

import subprocess
import sys


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
