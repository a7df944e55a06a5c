"""What windows are put through: `python -m tests.windows.scenarios TOOLKIT NAME [SEED]`.

TOOLKIT is `tk`, `PySide6` or `PyQt6`: one to a process. A scenario asserts for itself; what
the package logs must have been expected, too, and nothing may be left on stderr.
"""

from __future__ import annotations

import contextlib
import faulthandler
import functools
import gc
import importlib
import itertools
import logging
import random
import re
import sys
import threading
import types
import weakref

from eventsource import EventSource, ReadyState, dispatch
from eventsource.testing import ScriptedServer
from tests.support import LIMIT, QUICK, queue_of, stream, wait_until

from .toolkits import loop_until, open_window

CLOSED_BY_DISPATCH = re.compile(
    r"closed: (`dispatch` (raised|dropped the callable)|the window or loop that ran its handlers)"
)
FLOOD = 100_000
CLOSINGS = 40

log = logging.getLogger("eventsource")
logged = []  # the messages of the package's logger that no scenario has expected


class Keep(logging.Handler):
    def emit(self, record):
        logged.append(record.getMessage())


def numbered(start, stop):
    return b"".join(b"data: %d\n\n" % number for number in range(start, stop))


def numbers(events):
    return [int(event.data) for event in events]


def endless(connection):
    connection.start_stream()
    for start in itertools.count(0, 50):
        connection.send(numbered(start, start + 50))


def has_ended():
    return not any(thread.name.startswith("eventsource ") for thread in threading.enumerate())


def expect_closed_by_dispatch(source):
    """Wait until the source has closed itself, and take what it logged."""
    wait_until(lambda: source.join(0.0), "the source to find out")
    assert source.ready_state is ReadyState.CLOSED
    assert len(logged) == 1, logged
    assert CLOSED_BY_DISPATCH.search(logged.pop())


@contextlib.contextmanager
def raises(kind, text):
    """As pytest's, which this program does without."""
    try:
        yield
    except kind as error:
        if text not in str(error):
            raise
    else:
        raise AssertionError(f"no {kind.__name__}")


# --- For all toolkits ---


def handlers_run_in_the_thread_of_the_window(toolkit):
    window = open_window(toolkit)
    here = threading.get_ident()
    seen = []

    def show(event):
        assert threading.get_ident() == here
        window.show(f"{type(event).__name__} {getattr(event, 'data', '')}")
        seen.append(window.shown())

    script = stream(b"data: a\n\n", b"event: tick\ndata: b\n\n", b": c\n\n")
    with ScriptedServer(script) as server:
        source = EventSource(
            server.url, dispatch=window.dispatch(), reconnect=None, on_comment=window.show
        )
        for event_type in ("open", "message", "tick", "error"):
            source.on(event_type, show)
        loop_until(window, lambda: len(seen) == 4, "4 events")
        assert seen == ["OpenEvent ", "MessageEvent a", "MessageEvent b", "ErrorEvent "]
        loop_until(window, lambda: source.join(0.0), "the end, which may take another turn")
    window.destroy()


def a_flood_leaves_the_window_alive(toolkit):
    """All wait when the main loop begins: run in one go, the timer would not tick at all."""
    window = open_window(toolkit)
    seen = []
    ticks = draws = 0

    def show(event):
        window.show(event.data)
        seen.append(int(event.data))
        if len(seen) == 1:
            window.draws = 0
        if len(seen) == FLOOD:
            nonlocal draws
            draws = window.draws

    def tick():
        nonlocal ticks
        ticks += 0 < len(seen) < FLOOD

    with ScriptedServer(stream(numbered(0, FLOOD))) as server:
        source = EventSource(
            server.url,
            on_message=show,
            on_error=lambda event: None,
            dispatch=window.dispatch(),
            max_waiting=2 * FLOOD,
            reconnect=None,
        )
        wait_until(lambda: source.ready_state is ReadyState.CLOSED, "the end of the stream")
        stop = window.every(5, tick)
        loop_until(window, lambda: len(seen) == FLOOD, "all events")
        stop()
        assert seen == list(range(FLOOD))
        assert window.shown() == str(FLOOD - 1)
        # On any machine: a widget that is touched 100,000 times takes 0.1 s of turns of 5 ms.
        assert ticks >= 5, ticks
        assert draws >= 5, draws
        print(f"{ticks} ticks, {draws} drawings")
        loop_until(window, lambda: source.join(0.0), "the end")
    window.destroy()


def events_before_the_main_loop_wait_for_it(toolkit):
    window = open_window(toolkit)
    seen = []
    with ScriptedServer(stream(numbered(0, 3), then="hold")) as server:
        unseen = EventSource(server.url, on_message=seen.append, dispatch=window.dispatch())
        wait_until(lambda: unseen.ready_state is ReadyState.OPEN, "the connection")
        wait_until(lambda: queue_of(unseen).waiting, "something to wait for the main loop")
        assert unseen.join(0.0) is False
        unseen.close()
        assert unseen.join(LIMIT)
        assert seen == []

        source = EventSource(server.url, on_message=seen.append, dispatch=window.dispatch())
        wait_until(lambda: queue_of(source).waiting, "something to wait for the main loop")
        assert seen == []
        loop_until(window, lambda: len(seen) == 3, "3 events")
        assert numbers(seen) == [0, 1, 2]
        source.close()
        assert source.join(LIMIT)
    window.destroy()


def a_main_loop_that_begins_again_loses_nothing(toolkit):
    window = open_window(toolkit)
    seen = []
    loops = 0

    def show(event):
        seen.append(event)
        if len(seen) % 100 == 0:
            window.quit()

    with ScriptedServer(stream(numbered(0, 2000), then="hold")) as server:
        source = EventSource(
            server.url, on_message=show, dispatch=window.dispatch(), max_waiting=50
        )
        while len(seen) < 2000:
            window.loop()
            loops += 1
        assert numbers(seen) == list(range(2000))
        assert loops > 1
        assert source.join(0.0) is False
        source.close()
        assert source.join(LIMIT)
    window.destroy()


def a_dialog_stops_its_own_source_but_no_other(toolkit):
    """A handler is waiting for the dialog: the next one must wait for that handler."""
    window = open_window(toolkit)
    dispatch_here = window.dispatch()
    log_of_all = []
    wait, end = None, None

    def ask(event):
        nonlocal wait, end
        log_of_all.append(f"in {event.data}")
        if event.data == "0":
            wait, end = window.open_dialog()
            wait()
        log_of_all.append(f"out {event.data}")

    def other(event):
        log_of_all.append(f"other {event.data}")
        if event.data == "9":
            end()

    def ten(connection):
        connection.start_stream()
        wait_until(lambda: end is not None, "the dialog")
        for number in range(10):
            connection.send_event(str(number))
        connection.hold()

    with (
        ScriptedServer(stream(numbered(0, 20), then="hold")) as server,
        ScriptedServer(ten) as others,
    ):
        source = EventSource(server.url, on_message=ask, dispatch=dispatch_here)
        second = EventSource(others.url, on_message=other, dispatch=dispatch_here)
        loop_until(window, lambda: log_of_all[-1:] == ["out 19"], "the last event")
        assert log_of_all == [
            "in 0",
            *(f"other {number}" for number in range(10)),
            "out 0",
            *(f"{way} {number}" for number in range(1, 20) for way in ("in", "out")),
        ]
        for each in (source, second):
            each.close()
            assert each.join(LIMIT)
    window.destroy()


def handlers_in_the_window_restart_remove_and_close(toolkit):
    window = open_window(toolkit)
    seen = []

    def first_only(event):
        seen.append(f"first_only {event.data}")
        source.remove_listener("message", first_only)

    def all_of_them(event):
        seen.append(event.data)
        if event.data == "a":
            source.restart()
        elif event.data == "b":
            assert source.join(1000.0) is False  # at once: it would wait for itself
            source.close()

    with ScriptedServer(
        stream(b"data: a\n\n", then="hold"), stream(b"data: b\n\ndata: c\n\n", then="hold")
    ) as server:
        source = EventSource(server.url, dispatch=window.dispatch(), reconnect=QUICK, start=False)
        source.once("open", lambda event: seen.append("once"))
        source.on("message", first_only)
        source.on("message", all_of_them)
        source.start()
        loop_until(window, lambda: source.ready_state is ReadyState.CLOSED, "the handler's close")
        assert source.join(LIMIT)
        assert seen == ["once", "first_only a", "a", "b"]
        assert len(server.requests) == 2
    window.destroy()


def a_handler_that_destroys_the_window_is_the_last(toolkit):
    window = open_window(toolkit)
    seen = []

    def handler(event):
        seen.append(event.data)
        window.destroy()
        if toolkit != "tk":  # whose main loop ends with the window
            window.quit()

    with ScriptedServer(stream(numbered(0, 50), then="hold")) as server:
        source = EventSource(server.url, dispatch=window.dispatch(), start=False)
        source.on("message", handler)
        source.start()
        wait_until(lambda: len(queue_of(source).waiting) >= 50, "all to wait")
        window.loop()
        expect_closed_by_dispatch(source)
        assert seen == ["0"]


def a_window_destroyed_while_no_main_loop_runs_closes_the_source(toolkit):
    window = open_window(toolkit)
    with ScriptedServer(stream(numbered(0, 3), then="hold")) as server:
        source = EventSource(server.url, on_message=print, dispatch=window.dispatch())
        wait_until(lambda: queue_of(source).waiting, "something to wait")
        window.destroy()
        expect_closed_by_dispatch(source)


def close_and_destroy(window, source):
    source.close()
    window.destroy()


def destroy_and_close(window, source):
    window.destroy()
    source.close()


def destroy_only(window, source):
    window.destroy()


def close_only(window, source):
    source.close()


def quit_only(window, source):
    pass


def close_once(toolkit, url, way, chance):
    """Open a window and a source, close them at a random moment, let go of both."""
    window = open_window(toolkit)
    in_handler = chance.random() < 0.4
    moment = chance.randrange(1, 100) if in_handler else chance.randrange(25)
    count = 0
    acted = False

    def act():
        nonlocal acted
        acted = True
        way(window, source)
        window.quit()

    def handler(event):
        nonlocal count
        count += 1
        if not acted:  # else it is the rest of the turn
            window.show(event.data)
            if in_handler and count == moment:
                act()

    source = EventSource(
        url,
        on_message=handler,
        dispatch=window.dispatch(),
        max_waiting=chance.choice([20, 1000]),
        reconnect=QUICK,
    )
    if in_handler:
        loop_until(window, lambda: acted, f"event {moment}")
    elif moment:
        window.once(moment, act)
        window.loop()
    else:
        act()
    if way is quit_only:
        source.close()
    elif way is destroy_only and toolkit != "tk":
        # What is on its way in a Qt loop finds out when that runs.
        other = open_window(toolkit)
        loop_until(other, lambda: source.ready_state is ReadyState.CLOSED, "the end")
        other.destroy()
    if chance.random() < 0.5:  # else the thread outlives everything here
        wait_until(lambda: source.join(0.0), "the reader thread's end")
    if toolkit == "tk" and way in (close_only, quit_only):
        window.destroy()  # else Tk keeps it for ever


WAYS = [close_and_destroy, destroy_and_close, destroy_only, close_only, quit_only]
MAY_FIND_OUT = {destroy_and_close: (0, 1), destroy_only: (1,)}  # and log that it closes


def closing_at_any_moment(toolkit, seed):
    chance = random.Random(seed)
    gc.disable()  # cycles with windows in them must not be left to other threads
    gc.freeze()  # what is here now takes no time
    with ScriptedServer(endless) as server:
        for number in range(CLOSINGS):
            way = WAYS[number % len(WAYS)]
            try:
                close_once(toolkit, server.url, way, chance)
                gc.collect()
                wait_until(has_ended, "the reader thread's end")
                found_out = [text for text in logged if CLOSED_BY_DISPATCH.search(text)]
                assert logged == found_out
                assert len(found_out) in MAY_FIND_OUT.get(way, (0,))
                logged.clear()
            except BaseException:
                print(f"closing {number}, {way.__name__}")
                raise
    print(f"{CLOSINGS} closed")


def ending_the_program_right_after(toolkit, seed):
    chance = random.Random(seed)
    server = ScriptedServer(endless)
    way = WAYS[seed % len(WAYS)]
    print(way.__name__)
    close_once(toolkit, server.url, way, chance)
    logged[:] = [text for text in logged if not CLOSED_BY_DISPATCH.search(text)]


# --- Tk's own ---


def tk_takes_windows_and_widgets_only(toolkit):
    import tkinter

    window = open_window(toolkit)
    for wrong in ("x", None, 5, tkinter.Tk):
        with raises(TypeError, "root must be a Tk window or widget"):
            dispatch.tk(wrong)
    kept = dispatch.tk(window.receiver)
    window.destroy()
    with raises(tkinter.TclError, "destroyed"):
        dispatch.tk(window.receiver)
    with raises(RuntimeError, "destroyed"):
        kept(print)


def only_the_end_of_what_was_given_counts(toolkit):
    """Not that of a widget in it; and a frame may be what was given."""
    import tkinter

    window = open_window(toolkit)
    frame = tkinter.Frame(window.receiver)
    in_frame = tkinter.Label(frame)
    seen_by_root, seen_by_frame = [], []

    with ScriptedServer(endless) as server:
        by_root = EventSource(
            server.url, on_message=seen_by_root.append, dispatch=window.dispatch()
        )
        by_frame = EventSource(
            server.url, on_message=seen_by_frame.append, dispatch=dispatch.tk(frame)
        )
        loop_until(window, lambda: seen_by_root and seen_by_frame, "an event each")
        in_frame.destroy()
        count = len(seen_by_frame)
        loop_until(window, lambda: len(seen_by_frame) > count + 2000, "more for the frame")
        frame.destroy()
        loop_until(window, lambda: by_frame.ready_state is ReadyState.CLOSED, "the frame's source")
        expect_closed_by_dispatch(by_frame)
        count = len(seen_by_root)
        loop_until(window, lambda: len(seen_by_root) > count + 2000, "more for the root")
        assert by_root.ready_state is ReadyState.OPEN
        by_root.close()
        assert by_root.join(LIMIT)
    window.destroy()


def a_destroyed_window_leaves_no_timer(toolkit):
    """Timers of all windows are one list: the next main loop would complain of lost ones."""
    with ScriptedServer(endless) as server:
        window = open_window(toolkit)
        seen = []
        source = EventSource(server.url, on_message=seen.append, dispatch=window.dispatch())
        idle = window.dispatch()  # that nothing is ever given to
        loop_until(window, lambda: seen, "an event")
        window.destroy()
        expect_closed_by_dispatch(source)
        ticks = []
        following = open_window(toolkit)
        following.every(10, lambda: ticks.append(None))
        loop_until(following, lambda: len(ticks) > 10, "ten ticks of the next window")
        following.destroy()
        assert idle


def a_destroyed_window_is_let_go_at_once(toolkit):
    """Not left to the collector: that may run in a thread where Tk ends the program."""
    import tkinter

    tkinter.NoDefaultRoot()
    gc.disable()
    with ScriptedServer(endless) as server:
        root = tkinter.Tk()
        gone = weakref.ref(root)
        seen = []
        source = EventSource(server.url, on_message=seen.append, dispatch=dispatch.tk(root))
        while not seen:
            root.update()
        root.destroy()
        del root
        assert gone() is None
        expect_closed_by_dispatch(source)


# --- Qt's own ---


def qt_wants_an_application_or_an_object(toolkit):
    importlib.import_module(f"{toolkit}.QtCore")
    with raises(RuntimeError, "QApplication"):
        dispatch.qt()
    window = open_window(toolkit)
    for wrong in (5, "x", type(window.receiver)):
        with raises(TypeError, "receiver must be a QObject"):
            dispatch.qt(wrong)
    window.destroy()


def handlers_run_in_the_thread_of_the_application(toolkit):
    window = open_window(toolkit)
    here = []

    def show(event):
        here.append(threading.get_ident())
        window.show(event.data)

    with ScriptedServer(stream(numbered(0, 3), then="hold")) as server:
        source = EventSource(server.url, on_message=show, dispatch=dispatch.qt())
        loop_until(window, lambda: len(here) == 3, "3 events")
        assert here == [threading.get_ident()] * 3
        assert window.shown() == "2"
        source.close()
        assert source.join(LIMIT)
    window.destroy()


def handlers_run_in_the_thread_of_the_receiver(toolkit):
    window = open_window(toolkit)
    core = window.core
    receiver, thread = core.QObject(), core.QThread()
    receiver.moveToThread(thread)
    thread.start()
    idents = []

    def handler(event):
        idents.append((threading.get_ident(), core.QThread.currentThread() == thread))

    with ScriptedServer(stream(numbered(0, 3), then="hold")) as server:
        source = EventSource(server.url, on_message=handler, dispatch=dispatch.qt(receiver))
        wait_until(lambda: len(idents) == 3, "3 events, though the application does not run")
        assert len(set(idents)) == 1
        ident, is_there = idents[0]
        assert ident != threading.get_ident()
        assert is_there
        source.close()
        assert source.join(LIMIT)
    thread.quit()
    assert thread.wait(int(LIMIT * 1000))
    window.destroy()


def the_binding_is_that_of_the_receiver(toolkit):
    """Also if the other one has been imported.

    A stand-in: most versions of the two do not load in one process. Not a name is in it.
    """
    other = {"PySide6": "PyQt6", "PyQt6": "PySide6"}[toolkit]
    for name in (other, f"{other}.QtCore"):
        sys.modules[name] = types.ModuleType(name)
    window = open_window(toolkit)
    seen = []
    with ScriptedServer(stream(numbered(0, 3), then="hold")) as server:
        source = EventSource(server.url, on_message=seen.append, dispatch=window.dispatch())
        loop_until(window, lambda: len(seen) == 3, "3 events")
        source.close()
        assert source.join(LIMIT)
    window.destroy()


def a_destroyed_receiver_closes_the_source(toolkit):
    window = open_window(toolkit)
    receiver = window.core.QObject()
    seen = []
    with ScriptedServer(endless) as server:
        source = EventSource(server.url, on_message=seen.append, dispatch=dispatch.qt(receiver))
        loop_until(window, lambda: seen, "an event")
        receiver.deleteLater()
        loop_until(window, lambda: source.ready_state is ReadyState.CLOSED, "the end")
        expect_closed_by_dispatch(source)
    window.destroy()


def threads_that_have_ended_leave_nothing(toolkit):
    window = open_window(toolkit)
    core = window.core
    threads = []
    for _ in range(20):
        receiver, thread = core.QObject(), core.QThread()
        receiver.moveToThread(thread)
        thread.start()
        dispatch.qt(receiver)
        thread.quit()
        assert thread.wait(int(LIMIT * 1000))
        threads.append(weakref.ref(thread))
    del receiver, thread
    dispatch.qt(window.receiver)
    gc.collect()
    assert [thread() for thread in threads] == [None] * 20
    window.destroy()


def a_second_application_is_dispatched_to(toolkit):
    """The end of the first one takes all that belongs to it."""
    widgets = importlib.import_module(f"{toolkit}.QtWidgets")
    ran = []
    for number in range(2):
        app = widgets.QApplication([])
        dispatch.qt()(functools.partial(ran.append, number))
        app.processEvents()
        if toolkit == "PySide6":
            app.shutdown()
        del app
    assert ran == [0, 1]


OF_ALL = [
    handlers_run_in_the_thread_of_the_window,
    a_flood_leaves_the_window_alive,
    events_before_the_main_loop_wait_for_it,
    a_main_loop_that_begins_again_loses_nothing,
    a_dialog_stops_its_own_source_but_no_other,
    handlers_in_the_window_restart_remove_and_close,
    a_handler_that_destroys_the_window_is_the_last,
    a_window_destroyed_while_no_main_loop_runs_closes_the_source,
]


def a_window_looks_once_however_many_dispatchers_it_has(toolkit):
    window = open_window(toolkit)
    tcl = window.receiver.tk

    def commands():
        return len(tcl.splitlist(tcl.call("info", "commands")))

    def jobs():
        return len(tcl.splitlist(tcl.call("after", "info")))

    before = commands(), jobs(), window.receiver.bindtags()
    kept = [window.dispatch() for _ in range(100)]
    with_one = commands(), jobs(), window.receiver.bindtags()
    assert with_one[1] == before[1] + 1
    assert with_one[0] <= before[0] + 3
    assert len(with_one[2]) == len(before[2]) + 1
    ran = []
    for number, put in enumerate(kept):
        put(functools.partial(ran.append, number))
    loop_until(window, lambda: len(ran) == 100, "all to be run")
    assert ran == list(range(100))
    # And none when there is none.
    kept.clear()
    del put

    def looks_no_more():
        window.receiver.update()
        return jobs() == before[1]

    wait_until(looks_no_more, "the last look")
    assert commands() == before[0]
    assert window.receiver.bindtags() == before[2]
    window.dispatch()(functools.partial(ran.append, 100))
    window.destroy()


def a_binding_of_the_programs_own_does_no_harm(toolkit):
    window = open_window(toolkit)
    seen = []
    with ScriptedServer(endless) as server:
        source = EventSource(server.url, on_message=seen.append, dispatch=window.dispatch())
        window.receiver.bind("<Destroy>", lambda event: None)
        loop_until(window, lambda: seen, "an event")
        window.destroy()
        expect_closed_by_dispatch(source)


OF_TK = [
    tk_takes_windows_and_widgets_only,
    only_the_end_of_what_was_given_counts,
    a_destroyed_window_leaves_no_timer,
    a_destroyed_window_is_let_go_at_once,
    a_window_looks_once_however_many_dispatchers_it_has,
    a_binding_of_the_programs_own_does_no_harm,
]
OF_QT = [
    qt_wants_an_application_or_an_object,
    handlers_run_in_the_thread_of_the_application,
    handlers_run_in_the_thread_of_the_receiver,
    the_binding_is_that_of_the_receiver,
    a_destroyed_receiver_closes_the_source,
    a_second_application_is_dispatched_to,
    threads_that_have_ended_leave_nothing,
]


def main():
    toolkit, name, *seed = sys.argv[1:]
    faulthandler.enable()
    faulthandler.dump_traceback_later(LIMIT * 1.8, exit=True)
    log.addHandler(Keep())
    log.propagate = False
    globals()[name](toolkit, *map(int, seed))
    assert logged == [], logged
    if name != ending_the_program_right_after.__name__:
        assert has_ended()
    faulthandler.cancel_dump_traceback_later()


if __name__ == "__main__":
    main()
