"""Handlers in real windows: Tk's under Xvfb, PySide6's and PyQt6's offscreen.

Each test is a process: a toolkit that crashes takes its process with it, and no process
can hold two Qts. What it runs stands in `windows/scenarios.py`, with its assertions.
Without a toolkit or a screen the tests are skipped; with EVENTSOURCE_REQUIRED=1 in
the environment they fail.
"""

from __future__ import annotations

import contextlib
import functools
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import LIMIT, unavailable
from tests.windows import scenarios

TOOLKITS = ["tk", "PySide6", "PyQt6"]
PROBE = {
    "tk": "import tkinter; tkinter.Tk().destroy()",
    "PySide6": "from PySide6.QtWidgets import QApplication; QApplication([])",
    "PyQt6": "from PyQt6.QtWidgets import QApplication; QApplication([])",
}
ROOT = Path(__file__).parents[2]
EXITS = 5

pytestmark = pytest.mark.timeout(3 * LIMIT)  # a program ends itself sooner, and says where it was


@pytest.fixture(scope="session")
def screen(request):
    """The environment of programs with windows; Qt's need no screen."""
    environment = {**os.environ, "QT_QPA_PLATFORM": "offscreen"}
    if os.environ.get("DISPLAY") or shutil.which("Xvfb"):
        environment["DISPLAY"] = request.getfixturevalue("display")
    return environment


@functools.cache
def why_not(toolkit, display):
    """What the toolkit says if it cannot show a window."""
    environment = {**os.environ, "QT_QPA_PLATFORM": "offscreen", "DISPLAY": display}
    probe = subprocess.run(
        [sys.executable, "-c", PROBE[toolkit]],
        env=environment,
        check=False,
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )
    if probe.returncode == 0:
        return ""
    last = (probe.stderr.strip() or f"ended with {probe.returncode}").splitlines()[-1]
    return f"{toolkit} shows no window: {last}"


def check(toolkit, screen):
    if reason := why_not(toolkit, screen.get("DISPLAY", "")):
        unavailable(reason)


def begin(screen, *arguments, mode="faulthandler"):
    return subprocess.Popen(
        [sys.executable, "-X", mode, "-m", "tests.windows.scenarios", *map(str, arguments)],
        cwd=ROOT,
        env=screen,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def see_through(process):
    """Wait for a program; it must have ended well and complained of nothing."""
    try:
        out, err = process.communicate(timeout=2 * LIMIT)
    finally:
        process.kill()
    print(out)
    assert err == ""
    assert process.returncode == 0


@pytest.mark.parametrize("toolkit", TOOLKITS)
@pytest.mark.parametrize("scenario", scenarios.OF_ALL, ids=lambda scenario: scenario.__name__)
def test_window(scenario, toolkit, screen):
    check(toolkit, screen)
    see_through(begin(screen, toolkit, scenario.__name__))


@pytest.mark.parametrize("scenario", scenarios.OF_TK, ids=lambda scenario: scenario.__name__)
def test_tk(scenario, screen):
    check("tk", screen)
    see_through(begin(screen, "tk", scenario.__name__))


@pytest.mark.parametrize("toolkit", TOOLKITS[1:])
@pytest.mark.parametrize("scenario", scenarios.OF_QT, ids=lambda scenario: scenario.__name__)
def test_qt(scenario, toolkit, screen):
    check(toolkit, screen)
    see_through(begin(screen, toolkit, scenario.__name__))


@pytest.mark.parametrize("toolkit", TOOLKITS)
def test_a_window_closed_at_any_moment_neither_hangs_nor_crashes(toolkit, screen):
    check(toolkit, screen)
    seed = random.randrange(1_000_000)
    print(f"seed {seed}")
    name = scenarios.closing_at_any_moment.__name__
    see_through(begin(screen, toolkit, name, seed, mode="dev"))  # which checks the memory, too


@pytest.mark.parametrize("toolkit", TOOLKITS)
def test_a_program_that_ends_right_after_its_window_ends_well(toolkit, screen):
    check(toolkit, screen)
    first = random.randrange(1_000_000)
    seeds = range(first, first + EXITS)
    print(f"seeds {seeds}")
    name = scenarios.ending_the_program_right_after.__name__
    with contextlib.ExitStack() as stack:  # all at once
        processes = []
        for seed in seeds:
            processes.append(stack.enter_context(begin(screen, toolkit, name, seed)))
            stack.callback(processes[-1].kill)
        for process in processes:
            see_through(process)
