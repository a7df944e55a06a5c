"""The end of a program in which something is being dispatched."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest

from tests.support import LIMIT

SOURCE = """\
import atexit, logging, os, sys, threading
from eventsource import EventSource
from eventsource.handlers.queue import DispatchQueue
from eventsource.runtime import exit as exiting
from eventsource.testing import SSEServer

def say(text):
    os.write(1, f"{text}\\n".encode())

atexit.register(say, "the toolkit is taken down")  # which toolkits do when they are imported
inside = threading.Event()
server = SSEServer()
server.send("x")
"""


def ends_with(program):
    """What a program with a source prints; it must end well."""
    done = subprocess.run(
        [
            *(sys.executable, "-X", "faulthandler", "-W", "ignore::DeprecationWarning"),  # of forks
            *("-c", SOURCE + textwrap.dedent(program)),
        ],
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def test_what_is_in_a_toolkits_code_comes_out_before_the_toolkit_is_taken_down():
    assert ends_with("""
        ending = threading.Event()

        def dispatch(call):
            inside.set()
            ending.wait()
            threading.Event().wait(0.1)  # the toolkit takes its time
            say("out")

        source = EventSource(server.url, on_message=print, dispatch=dispatch)
        inside.wait()
        atexit.register(ending.set)  # which is called before what was registered until now
    """) == ["out", "the toolkit is taken down"]


def test_a_dispatch_that_never_returns_does_not_keep_the_program():
    assert ends_with("""
        def dispatch(call):
            inside.set()
            threading.Event().wait()

        source = EventSource(server.url, on_message=print, dispatch=dispatch)
        inside.wait()
    """) == ["the toolkit is taken down"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks")
def test_the_child_of_a_fork_does_not_wait_for_the_parents_threads():
    assert ends_with("""
        exiting.EXIT_SECONDS = 3600.0
        go_on = threading.Event()

        def dispatch(call):
            inside.set()
            go_on.wait()

        source = EventSource(server.url, on_message=print, dispatch=dispatch)
        inside.wait()
        atexit.register(go_on.set)
        logging.getLogger("eventsource").setLevel(logging.ERROR)  # it warns in the child
        child = os.fork()
        if child == 0:
            atexit.unregister(say)
            sys.exit(5)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        say(f"the child ended with {status}")
    """) == ["the child ended with 5", "the toolkit is taken down"]


def test_after_the_end_nothing_is_dispatched_and_that_is_no_failure():
    assert ends_with("""
        given, failures = [], []

        class Source:
            def deliver(self, entries):
                raise AssertionError

            def fail(self, reason, error):
                failures.append(reason)

            def stalled(self):
                raise AssertionError

        def late():
            queue.put([1])
            queue.put([2])
            say(f"{given} {failures}")

        atexit.register(late)  # which is called after what is registered from here on
        source = Source()
        queue = DispatchQueue(given.append, 10, source.deliver, source.fail, source.stalled)
    """) == ["[] []", "the toolkit is taken down"]


def test_a_call_that_raises_is_over():
    assert ends_with("""
        exiting.EXIT_SECONDS = 3600.0  # which the exit would wait for one that is not
        exiting.watch_for_exit()
        try:
            exiting.before_exit((1).__truediv__, 0)
        except ZeroDivisionError:
            say("raised")
    """) == ["raised", "the toolkit is taken down"]
