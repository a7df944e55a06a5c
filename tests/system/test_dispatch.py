"""`eventsource.dispatch` in programs without the toolkits."""

from __future__ import annotations

from tests.support import run_python


def test_no_toolkit_is_imported_with_the_package():
    code = "import sys, eventsource.dispatch; print(*sys.modules)"
    modules = set(run_python(code).stdout.split())
    assert "eventsource.dispatch" in modules
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
    assert run_python(code).stdout == "dispatch.qt needs PySide6 or PyQt6\n"
