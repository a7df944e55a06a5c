"""`eventsource.dispatch`, as far as it needs no window; and the page about it.

Windows are in `test_windows.py`. The page's programs run as they stand there, each in a
process of its own, but for the server's address and a timer that ends the main loop when
the text has been seen.
"""

from __future__ import annotations

import asyncio
import functools
import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from eventsource import dispatch
from eventsource.testing import ScriptedServer

from .support import HEAD, LIMIT, unavailable

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "handlers.md"


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


# --- The page ---

BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)

# By what begins the main loop: what is put in front of it. Each looks again and again.
WATCH = {
    "root.mainloop()": """
def _look():
    root.quit() if label["text"] == "hello" else root.after(5, _look)
_look()
""",
    "app.exec()": """
from PySide6.QtCore import QTimer
_timer = QTimer()
_timer.timeout.connect(lambda: label.text() == "hello" and app.quit())
_timer.start(5)
""",
    "app.MainLoop()": """
_timer = wx.Timer(frame)
frame.Bind(wx.EVT_TIMER, lambda _: frame.GetTitle() == "hello" and frame.Close())
_timer.Start(5)
""",
    "loop.run()": """
source.on("message", lambda _: loop.quit())
""",
    "source.join(10)": """
source.once("message", lambda _: source.close())
""",
}


def watched(program):
    for line, watch in WATCH.items():
        found = re.search(rf"^( +){re.escape(line)}$", program, re.MULTILINE)
        if found:
            inserted = textwrap.indent(watch, found[1])
            program = program[: found.start()] + inserted + program[found.start() :]
    return program


def needs(block):
    """What of Python's modules beyond those of the tests it needs, and whether a screen."""
    for module in ("tkinter", "wx", "gi", "PySide6"):
        if re.search(rf"^(import|from) {module}\b", block, re.MULTILINE):
            return module, module in ("tkinter", "wx")
    return None, False


@functools.cache
def python_with(module):
    """This Python if it has the module, else the system's; None if neither."""
    for python in (sys.executable, "/usr/bin/python3"):
        code = f"import sys, {module or 'sys'}; assert sys.version_info >= (3, 11)"
        if (
            shutil.which(python)
            and not subprocess.run(
                [python, "-c", code], capture_output=True, check=False
            ).returncode
        ):
            return python
    return None


def test_the_page_shows_all_of_them():
    assert sorted(module or "" for module, _ in map(needs, BLOCKS)) == [
        *("", "", ""),  # a coroutine handler, `async for`, an executor
        *("PySide6", "gi", "tkinter", "wx"),
    ]


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: needs(block)[0] or "python")
def test_the_pages_programs_run(block, tmp_path, request):
    module, on_screen = needs(block)
    python = python_with(module)
    if python is None:
        unavailable(f"needs {module}")
    environment = {"PYTHONPATH": pure_modules(tmp_path), "QT_QPA_PLATFORM": "offscreen"}
    if on_screen:
        environment["DISPLAY"] = request.getfixturevalue("display")

    def script(connection):
        connection.read_request()
        connection.send(HEAD + b"data: hello\n\n")
        connection.hold()

    with ScriptedServer(script) as server:
        path = tmp_path / "program.py"
        path.write_text(watched(block.replace("https://example.com/stream", server.url)))
        run = subprocess.run(
            [python, path],
            env=os.environ | environment,
            capture_output=True,
            text=True,
            timeout=LIMIT,
            check=False,
        )
        assert (run.returncode, run.stderr) == (0, "")
        assert run.stdout == ("hello\n" if "print" in block else "")
        assert server.connections[0].gone.wait(LIMIT)


def pure_modules(folder):
    """A folder with this package and what it needs, for another Python than this one."""
    import certifi
    import charset_normalizer
    import idna
    import pyee
    import requests
    import typing_extensions
    import urllib3

    import eventsource

    modules = folder / "modules"
    modules.mkdir()
    for module in (charset_normalizer, idna, pyee, requests, urllib3, certifi, eventsource):
        (modules / module.__name__).symlink_to(Path(module.__file__).parent)
    (modules / "typing_extensions.py").symlink_to(typing_extensions.__file__)
    return str(modules)
