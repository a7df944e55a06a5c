"""What runs the Python blocks of a page: `python session.py STEPS.json`.

A step is a block to run or a text that must have been printed by then. The blocks under one
heading share a namespace, which begins with that of the page's start. A traceback shows the
line of the page. This is started by Pythons that have none of the tests' packages.
"""

from __future__ import annotations

import functools
import io
import json
import re
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path

SEEN = "hello"
"""When a window shows it, or it has been printed, the reader closes the window."""

NO_MATTER = re.compile(r"^Executing <.* took [\d.]+ seconds\n", re.MULTILINE)
"""That the machine is busy."""


def matches(expected: str, output: str) -> bool:
    """Say whether this is the output that a page shows.

    There `…` stands for anything within a line, and on a line of its own for any lines.
    """
    pattern = re.escape(expected.rstrip() + "\n").replace("\\\n", "\n")
    pattern = re.sub(r"^…\n", r"(?:.*\\n)*?", pattern, flags=re.MULTILINE).replace("…", ".*?")
    lines = "".join(line.rstrip() + "\n" for line in output.splitlines())
    return re.fullmatch(pattern, lines) is not None


class Capture:
    """What has been printed since it was last looked at."""

    def __init__(self) -> None:
        self._changed = threading.Condition()  # guards the others, and tells of changes
        self._written: list[tuple[str, str]] = []
        self.ever = ""  # all that was ever written

    def note(self, name: str, text: str) -> None:
        with self._changed:
            self._written.append((name, text))
            self.ever += text
            self._changed.notify_all()

    def text(self, *names: str) -> str:
        return NO_MATTER.sub("", "".join(text for name, text in self._written if name in names))

    def clear(self) -> None:
        with self._changed:
            self._written.clear()

    def wait_for(self, condition: Callable[[], bool], limit: float) -> bool:
        with self._changed:
            return self._changed.wait_for(condition, limit)


class Stream(io.TextIOBase):
    def __init__(self, capture: Capture, name: str) -> None:
        self._capture = capture
        self._name = name

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        self._capture.note(self._name, text)
        return len(text)


# --- Readers who close a window when they have seen it ---


def tell_nobody() -> None:
    """What is called when a window shows what it should: `nursery.py` puts its own here."""


on_shown = tell_nobody


def is_shown(texts: Iterable[str]) -> bool:
    """Say whether a window whose texts these are shows what it should."""
    found = any(SEEN in text for text in texts)
    if found:
        on_shown()
    return found


def close_tk(has_printed):
    import tkinter

    def texts(widget):
        if "text" in widget.keys():  # noqa: SIM118 - no dictionary
            yield str(widget.cget("text"))
        for child in widget.winfo_children():
            yield from texts(child)

    def look(root):
        if has_printed() or is_shown(texts(root)):
            # As the window manager does it when the user clicks.
            root.tk.eval(root.tk.eval("wm protocol . WM_DELETE_WINDOW") or "destroy .")
        else:
            root.after(5, look, root)

    begin = tkinter.Misc.mainloop
    tkinter.Misc.mainloop = lambda self, n=0: (look(self), begin(self, n))


def close_qt(has_printed, binding="PySide6"):
    import importlib

    widgets = importlib.import_module(f"{binding}.QtWidgets")
    core = importlib.import_module(f"{binding}.QtCore")
    application = widgets.QApplication
    begin = application.exec

    def look():
        shown = (w.text() for w in application.allWidgets() if hasattr(w, "text"))
        if has_printed() or is_shown(shown):
            application.closeAllWindows()

    def run(*_):
        timer = core.QTimer()
        timer.timeout.connect(look)
        timer.start(5)
        return begin()

    application.exec = run


def close_wx(has_printed):
    import wx

    def look(timer):
        for window in wx.GetTopLevelWindows():
            labels = [window.GetTitle(), *(child.GetLabel() for child in window.GetChildren())]
            if has_printed() or is_shown(labels):
                timer.Stop()
                window.Close()

    class Timer(wx.Timer):
        def Notify(self):
            look(self)

    begin = wx.App.MainLoop
    timers = []

    def run(self):
        timers.append(Timer())
        timers[-1].Start(5)
        return begin(self)

    wx.App.MainLoop = run


def close_glib(has_printed):
    from gi.repository import GLib

    begin = GLib.MainLoop.run

    def look(loop):
        if has_printed():
            loop.quit()
        return not has_printed()

    def run(self):
        GLib.timeout_add(5, look, self)
        begin(self)

    GLib.MainLoop.run = run


CLOSE = {
    "tkinter": close_tk,
    "PySide6": close_qt,
    "PyQt6": functools.partial(close_qt, binding="PyQt6"),
    "wx": close_wx,
    "gi": close_glib,
}


def run(step: dict, names: dict) -> bool:
    """Run a block; say whether it has come to its end."""
    code = "\n" * step["line"] + step["code"]
    try:
        exec(compile(code, step["file"], "exec", dont_inherit=True), names)  # noqa: S102
    except SystemExit as ending:
        if ending.code:
            print(f"{step['file']}:{step['line']}: ended with {ending.code}", file=sys.__stderr__)
        return not ending.code
    except BaseException:
        traceback.print_exc(file=sys.__stderr__)
        return False
    return True


def threads_after(seconds: float) -> list[threading.Thread]:
    """Wait for the program's threads, daemons too; return those that have not ended."""
    end = time.monotonic() + seconds
    others = [each for each in threading.enumerate() if each is not threading.current_thread()]
    for thread in others:
        thread.join(max(0.0, end - time.monotonic()))
    return [thread for thread in others if thread.is_alive()]


def main(path: str) -> int:
    """Do the steps in order; return the exit status."""
    task = json.loads(Path(path).read_text("utf-8"))
    capture = Capture()
    sys.stdout, sys.stderr = Stream(capture, "stdout"), Stream(capture, "stderr")
    if task["toolkit"]:
        CLOSE[task["toolkit"]](lambda: SEEN in capture.ever)
    namespaces: dict[str, dict] = {}
    silent: dict[str, bool] = {}  # by heading: something should be printed, and nothing was

    def has_printed() -> bool:
        return bool(capture.text("stdout"))

    def refuse(step: dict, problem: str) -> int:
        print(f"{step['file']}:{step['line']}: {problem}", file=sys.__stderr__)
        return 1

    steps = task["steps"]
    for step, following in zip(steps, [*steps[1:], None], strict=True):
        heading = step["heading"]
        if step["kind"] == "text":
            going_on = threads_after(task["limit"])
            shown = capture.text("stdout", "stderr")
            if not matches(step["code"], shown):
                return refuse(step, f"the page shows\n{step['code']}\nbut there was\n{shown}")
            if going_on:
                return refuse(step, f"what prints this goes on: {going_on}")
            silent[heading] = False
            capture.clear()
            continue
        if heading not in namespaces:
            shared = namespaces.get(step["start"], {})
            namespaces[heading] = {**shared, "__name__": "__main__", "__file__": step["file"]}
        if not run(step, namespaces[heading]):
            return refuse(step, f"failed; it had printed\n{capture.text('stdout', 'stderr')}")
        if following and following["kind"] == "text":
            continue
        if "print" in step["code"]:
            silent.setdefault(heading, True)
        is_last = following is None or following["heading"] != heading
        if is_last and silent.get(heading) and not capture.wait_for(has_printed, task["limit"]):
            return refuse(step, "nothing was printed")
        if capture.text("stdout"):
            silent[heading] = False
        if capture.text("stderr"):
            return refuse(step, f"complained:\n{capture.text('stderr')}")
        capture.clear()
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join()  # as Python does at the end; here what it prints is still seen
    if capture.text("stderr"):
        return refuse(steps[-1], f"complained:\n{capture.text('stderr')}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
