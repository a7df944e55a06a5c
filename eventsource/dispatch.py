"""Ready-made values for `EventSource(dispatch=…)`: where the handlers run.

Call each function in the thread of the window or loop; it imports its toolkit only then. Others
need no function here: pass `executor.submit`, `wx.CallAfter` or `GLib.idle_add` directly.
Several sources may share a dispatcher.

Examples:
    >>> from eventsource import dispatch
    >>> source = EventSource(url, dispatch=dispatch.tk(root))  # doctest: +SKIP
"""

from __future__ import annotations

import contextlib
import sys
import weakref
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .handlers.queue import DispatchTask, makes_dispatch

if TYPE_CHECKING:
    import asyncio as _asyncio
    import tkinter

TK_INTERVAL = 50
"""Milliseconds between two checks by Tk whether anything has been dispatched, while nothing is:
half of the 100 ms up to which an answer seems instantaneous (Miller 1968)."""

_tk_calls: weakref.WeakKeyDictionary[tkinter.Misc, weakref.ref[_Calls]] = (
    weakref.WeakKeyDictionary()
)
"""The calls that have been dispatched to a window, as long as a dispatcher for it exists. All
dispatchers of a window share one check."""

_qt_bridges: list[tuple[Any, Any]] = []
"""Qt threads, and an object in each. They are kept as long as the thread runs: to delete one
while another thread emits its signal crashes the program."""


@makes_dispatch
def asyncio(
    loop: _asyncio.AbstractEventLoop | None = None,
) -> Callable[..., object]:
    """Return a `dispatch` that runs handlers, also coroutine functions, on an event loop.

    It is the loop's `call_soon_threadsafe`.

    Args:
        loop: the event loop; None: the running loop.

    Raises:
        RuntimeError: no loop is given, and none is running.
    """
    import asyncio  # noqa: PLC0415

    if loop is None:
        loop = asyncio.get_running_loop()
    return loop.call_soon_threadsafe


@makes_dispatch
def tk(root: tkinter.Misc) -> Callable[[Callable[[], object]], None]:
    """Return a `dispatch` that runs handlers in Tk's main loop.

    Call it in the thread that made the window. Other threads may not call Tk's own `after`: it
    waits for the main loop, and raises if there is none. Instead, the window checks every 50 ms
    whether anything has been dispatched, and no thread waits for a main loop that has not begun
    or has ended. When the window is destroyed, sources that dispatch to it close.

    Args:
        root: a window or widget. Sources close when it is destroyed.

    Raises:
        TypeError: `root` is not a widget.
        tkinter.TclError: it has been destroyed.
        RuntimeError: this is not its thread.
    """
    import tkinter  # noqa: PLC0415

    if not isinstance(root, tkinter.Misc):
        raise TypeError(f"root must be a Tk window or widget, not {root!r}")
    known = _tk_calls.get(root)
    calls = known() if known is not None else None
    if calls is None:
        calls = _Calls()
        _TkLook(root, calls)
        _tk_calls[root] = weakref.ref(calls)
    return calls.put


class _Calls:
    """The calls that have been dispatched but not run. Ends with the window."""

    def __init__(self) -> None:
        self._waiting: deque[Callable[[], object]] = deque()
        self._running: list[Callable[[], object]] = []  # several if one runs in a dialog of another
        self._is_gone = False

    def put(self, call: Callable[[], object]) -> None:
        """Add a call. For any thread."""
        self._waiting.append(call)
        if self._is_gone:  # checked after adding: end() clears what was added before it
            self._waiting.clear()
            raise RuntimeError("the window has been destroyed")

    def __len__(self) -> int:
        return len(self._waiting)

    def run_one(self) -> None:
        """Run the next call, if there is one. In the window's thread."""
        if self._is_gone or not self._waiting:
            return
        self._running.append(self._waiting.popleft())
        try:
            self._running[-1]()
        finally:
            self._running.pop()

    def end(self) -> None:
        """The window is being destroyed. In its thread."""
        self._is_gone = True
        self._waiting.clear()
        for call in self._running:
            if isinstance(call, DispatchTask):
                call.stop()


class _TkLook:
    """Tk's checks for dispatched calls, as long as a dispatcher exists.

    It drops its reference to the window when the window is destroyed, and is then not part of a
    reference cycle: the last reference to a window must be dropped in its own thread, otherwise
    Tk aborts the program.
    """

    def __init__(self, root: tkinter.Misc, calls: _Calls) -> None:
        self._calls = weakref.ref(calls)
        self._root: tkinter.Misc | None = root  # None: destroyed
        # A tag of its own: a bind() of the program would replace ours.
        self._tag = f"eventsource{id(self)}"
        root.bindtags((self._tag, *root.bindtags()))
        self._command = root.bind_class(self._tag, "<Destroy>", self._end)
        self._job = root.after(TK_INTERVAL, self._look)

    def _look(self) -> None:
        calls = self._calls()
        if calls is None:
            self._stop()
            return
        self._look_again(TK_INTERVAL)  # first, because a call may open a dialog and wait
        count = len(calls)
        try:
            for _ in range(count):
                calls.run_one()
        finally:
            if count:  # more may follow soon; not 0 ms, because Tk draws only when nothing is due
                self._look_again(1)

    def _look_again(self, milliseconds: int) -> None:
        if self._root is not None:
            self._root.after_cancel(self._job)
            self._job = self._root.after(milliseconds, self._look)

    def _end(self, _: object) -> None:
        root, calls = self._root, self._calls()
        if root is not None:
            self._root = None
            _tk_calls.pop(root, None)
            root.after_cancel(self._job)
            root.unbind_class(self._tag, "<Destroy>")
            root.nametowidget(".").deletecommand(self._command)  # bind_class made it there
        if calls is not None:
            calls.end()

    def _stop(self) -> None:
        if self._root is not None:
            self._root.bindtags([tag for tag in self._root.bindtags() if tag != self._tag])
        self._end(None)


@makes_dispatch
def qt(receiver: Any = None) -> Callable[[Callable[[], object]], None]:
    """Return a `dispatch` that runs handlers in a Qt event loop (PySide6 or PyQt6).

    When the receiver is destroyed, sources that dispatch to it close.

    Args:
        receiver: a `QObject`, in whose thread the handlers run; None: the application.

    Raises:
        ImportError: there is neither PySide6 nor PyQt6.
        RuntimeError: no receiver is given and there is no application yet.
        TypeError: `receiver` is not a `QObject`.
    """
    core = _qt_core(receiver)
    if receiver is None:
        receiver = core.QCoreApplication.instance()
        if receiver is None:
            raise RuntimeError("there is no QApplication yet")
    if not isinstance(receiver, core.QObject):
        raise TypeError(f"receiver must be a QObject, not {receiver!r}")
    bridge = _qt_bridge(core, receiver.thread())
    calls = _Calls()

    def dispatch(call: Callable[[], object]) -> None:
        # Does not refer to `receiver`: the last reference to a window must not be the
        # reader thread's.
        calls.put(call)
        bridge.waiting.append(calls.run_one)
        bridge.called.emit()

    receiver.destroyed.connect(calls.end)
    return dispatch


def _qt_bridge(core: Any, thread: Any) -> Any:
    """Return an object in that Qt thread that runs emitted calls later, even if emitted there."""
    for known, bridge in tuple(_qt_bridges):
        try:
            if known is thread and bridge.thread() is thread:
                return bridge
            is_over = known.isFinished()
        except RuntimeError:  # deleted, with the application
            is_over = True
        if is_over:
            _qt_bridges.remove((known, bridge))

    # The signal carries no Python object: Qt deletes an event that is still queued at the end
    # of the program after Python has ended, and an object in it would crash the process.
    def run(self: Any) -> None:
        self.waiting.popleft()()

    signal = getattr(core, "Signal", None) or core.pyqtSignal
    slot = getattr(core, "Slot", None) or core.pyqtSlot  # PyQt would run a lambda in this thread
    bridge = type("Bridge", (core.QObject,), {"called": signal(), "run": slot()(run)})()
    bridge.waiting = deque()
    bridge.moveToThread(thread)
    bridge.called.connect(bridge.run, core.Qt.ConnectionType.QueuedConnection)
    _qt_bridges.append((thread, bridge))
    return bridge


def _qt_core(receiver: Any) -> Any:
    """Return QtCore: the receiver's, else the one in use, else an installed one."""
    import importlib  # noqa: PLC0415

    bindings = ["PySide6", "PyQt6"]
    modules = {kind.__module__.partition(".")[0] for kind in type(receiver).__mro__}
    bindings.sort(key=lambda name: (name not in modules, f"{name}.QtCore" not in sys.modules))
    for name in bindings:
        with contextlib.suppress(ImportError):
            return importlib.import_module(f"{name}.QtCore")
    raise ImportError("dispatch.qt needs PySide6 or PyQt6")
