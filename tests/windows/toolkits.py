"""A window with a label, in each toolkit, and the same words for all of them."""

from __future__ import annotations

import functools
import importlib
import os
import time

from eventsource import dispatch
from tests.support import LIMIT

_applications = []  # Qt has one to a process, which ends with the last reference to it


class TkWindow:
    def __init__(self):
        import tkinter

        tkinter.NoDefaultRoot()  # else tkinter itself keeps the window alive
        self.toolkit = tkinter
        self.receiver = tkinter.Tk()
        self.label = tkinter.Label(self.receiver)
        self.label.pack()
        self.receiver.update_idletasks()  # what Tk would miss if destroyed at once
        self.draws = 0
        self._timers = {}

    def dispatch(self):
        return dispatch.tk(self.receiver)

    def show(self, text):
        self.label["text"] = text

    def shown(self):
        return self.label["text"]

    def every(self, milliseconds, call):
        """Call it again and again; return what ends that."""
        key = object()

        def tick():
            self._timers[key] = self.receiver.after(milliseconds, tick)
            self._stop("idle")
            self._timers["idle"] = self.receiver.after_idle(self._drawn)  # when Tk draws
            call()

        self._timers[key] = self.receiver.after(milliseconds, tick)
        return functools.partial(self._stop, key)

    def once(self, milliseconds, call):
        def tick():
            del self._timers[key]
            call()

        key = object()
        self._timers[key] = self.receiver.after(milliseconds, tick)

    def _stop(self, key):
        if timer := self._timers.pop(key, None):
            self.receiver.after_cancel(timer)

    def _drawn(self):
        self.draws += 1

    def loop(self):
        self.receiver.mainloop()

    def quit(self):
        self.receiver.quit()

    def destroy(self):
        for key in list(self._timers):
            self._stop(key)
        self.receiver.destroy()

    def open_dialog(self):
        """Return a modal dialog's own main loop, and what ends it."""
        dialog = self.toolkit.Toplevel(self.receiver)
        return dialog.wait_window, dialog.destroy


class QtWindow:
    def __init__(self, binding):
        self.core = importlib.import_module(f"{binding}.QtCore")
        widgets = importlib.import_module(f"{binding}.QtWidgets")
        self.toolkit = widgets
        self.app = widgets.QApplication.instance() or widgets.QApplication(["windows"])
        _applications[:] = [self.app]
        self.app.setQuitOnLastWindowClosed(False)
        self.draws = 0
        window = self

        class Label(widgets.QLabel):
            def paintEvent(self, event):
                window.draws += 1
                super().paintEvent(event)

        self.receiver = self.label = Label()
        self.label.show()
        self._timers = []

    def dispatch(self):
        return dispatch.qt(self.receiver)

    def show(self, text):
        self.label.setText(text)

    def shown(self):
        return self.label.text()

    def every(self, milliseconds, call):
        timer = self.core.QTimer()
        timer.timeout.connect(call)
        timer.start(milliseconds)
        self._timers.append(timer)
        return timer.stop

    def once(self, milliseconds, call):
        timer = self.core.QTimer()
        timer.setSingleShot(True)
        timer.timeout.connect(call)
        timer.start(milliseconds)
        self._timers.append(timer)

    def loop(self):
        self.app.exec()

    def quit(self):
        self.app.quit()

    def destroy(self):
        if self.core.__name__.startswith("PySide6"):
            importlib.import_module("shiboken6").delete(self.receiver)
        else:
            importlib.import_module("PyQt6.sip").delete(self.receiver)

    def open_dialog(self):
        dialog = self.toolkit.QDialog(self.receiver)
        return dialog.exec, dialog.accept


def open_window(toolkit):
    if toolkit == "tk":
        return TkWindow()
    os.environ["QT_QPA_PLATFORM"] = "offscreen"
    return QtWindow(toolkit)


def loop_until(window, condition, what="a condition"):
    """Run the main loop until the condition is true."""
    deadline = time.monotonic() + LIMIT

    def look():
        if condition() or time.monotonic() > deadline:
            window.quit()

    stop = window.every(2, look)
    window.loop()
    stop()
    assert condition(), f"waited {LIMIT} s for {what}"
