"""docs/architecture.md and docs/reference are those of the code."""

from __future__ import annotations

import importlib
import re
import threading
from pathlib import Path

import pytest

import eventsource
import eventsource.relay
import eventsource.testing
from eventsource import EventSource, EventStream
from eventsource.relay import Relay
from eventsource.testing import ScriptedServer
from tests.support import CHUNKED, LIMIT, Recorder
from tests.unit.test_package import LAYERS, PACKAGE, imports, modules, room

CHECKOUT = Path(__file__).parents[2]
FILE = CHECKOUT / "docs" / "architecture.md"
PAGE = FILE.read_text()

# --- The figure: drawn from the code, `python -m tests.loopback.test_architecture` puts it into the page ---


def drawn():
    """The rooms and flat modules as a figure; an arrow is an import that no others imply."""
    graph = {}
    for module, path in modules():
        targets = {room(name) for name in imports(path) if name != "eventsource.__version__"}
        graph.setdefault(room(module), set()).update(targets - {room(module)})
    lines = ["flowchart TB"]
    for layer in LAYERS:
        lines += [f"    {name}" for name in sorted(layer)]
    for start, targets in graph.items():
        direct = {end for end in targets if end not in reachable(graph, targets - {end})}
        if direct:
            lines.append(f"    {start} --> {' & '.join(sorted(direct))}")
    return "\n".join(lines) + "\n"


def reachable(graph, starts):
    found, waiting = set(), [*starts]
    while waiting:
        if (name := waiting.pop()) not in found:
            found.add(name)
            waiting += graph[name]
    return found


FIGURE = re.compile(r"(?<=^```mermaid\n)flowchart TB\n.*?(?=^```)", re.MULTILINE | re.DOTALL)


def test_the_figure_is_that_of_the_code():
    assert FIGURE.findall(PAGE) == [drawn()], "python -m tests.loopback.test_architecture"


def test_the_page_says_what_each_module_is_for():
    """A row a module, in the order of the rooms, is a promise to newcomers."""
    rows = re.findall(r"^\| `([\w./]+)` \|", PAGE, re.MULTILINE)
    there = [
        path.relative_to(PACKAGE).as_posix()
        for _, path in modules()
        if path.name != "__init__.py" and path.relative_to(PACKAGE).parts[0] not in AS_A_WHOLE
    ]
    assert sorted(rows) == sorted([*there, *(f"{name}/" for name in AS_A_WHOLE)])


AS_A_WHOLE = ("cli", "testing")
"""Rooms that the page has one row for."""


# --- Threads ---


def table(heading):
    """The rows of the table under a heading, without its first line."""
    section = PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    lines = re.findall(r"^\|(.*)\|$", section, re.MULTILINE)
    return [[cell.strip() for cell in line.split("|")] for line in lines[2:]]


# --- The life of an event ---


def steps():
    """The modules and functions that an event passes through, as the page has them."""
    return [
        [tuple(place) for place in re.findall(r"`([\w/]+)\.py`: `([\w.]+)\(\)`", where)]
        for _, where, _ in table("The life of an event")
    ]


def test_the_functions_that_the_page_names_are_there():
    assert len(steps()) > 5
    for places in steps():
        assert places
        for module, name in places:
            found = importlib.import_module(f"eventsource.{module.replace('/', '.')}")
            for part in name.split("."):
                found = getattr(found, part)
            assert callable(found)


@pytest.mark.parametrize("elsewhere", [False, True])
def test_an_event_passes_through_them_in_this_order(elsewhere):
    named = {place: number for number, places in enumerate(steps()) for place in places}
    passed = []
    looks, may_send, recorder, threads = threading.Event(), threading.Event(), Recorder(), []

    def look(frame, what, _):
        code = frame.f_code
        file = Path(code.co_filename)
        if not file.is_relative_to(PACKAGE):
            return
        place = (file.relative_to(PACKAGE).with_suffix("").as_posix(), code.co_qualname)
        if what == "call" and looks.is_set() and place in named:
            passed.append(named[place])

    def script(connection):
        connection.read_request()
        connection.send(CHUNKED)
        assert may_send.wait(LIMIT)
        looks.set()
        connection.send_chunk(b"data: x\n\nid: 1\n\n")  # which the event does not say
        connection.hold()

    def opened(event):
        if not elsewhere:
            looks.set()  # the reader is here, and about to read
        recorder(event)

    def handle(event):
        looks.clear()
        recorder(event)

    def in_a_thread(call):
        threads.append(threading.Thread(target=call))
        threads[-1].start()

    with ScriptedServer(script) as server:
        before = threading.getprofile()
        threading.setprofile(look)
        try:
            dispatch = in_a_thread if elsewhere else None
            with EventSource(server.url, dispatch=dispatch) as source:
                source.on("message", handle)
                source.on("open", opened)
                recorder.next()
                for thread in threads:  # else the event might come in the turn of the other
                    thread.join()
                may_send.set()
                recorder.next()
        finally:
            threading.setprofile(before)
            for thread in threads:
                thread.join()
    whats = [what for what, _, _ in table("The life of an event")]
    expected = [n for n, what in enumerate(whats) if elsewhere or "with `dispatch`" not in what]
    if (
        elsewhere
    ):  # the reader may be waiting before the event is sent, and again before it is dealt with
        reading = [whats.index(what) for what in ("ask", "wait for bytes", "read", "decode chunks")]
        expected, passed = ([n for n in ns if n not in reading] for ns in (expected, passed))
    assert list(dict.fromkeys(passed)) == expected


# --- The reference ---

REFERENCE = {page.stem: page.read_text() for page in (CHECKOUT / "docs" / "reference").glob("*.md")}


@pytest.mark.parametrize(
    "package", [eventsource, eventsource.recording, eventsource.relay, eventsource.testing]
)
def test_the_reference_has_every_name_that_is_exported(package):
    text = "\n".join(REFERENCE.values())
    shown = re.findall(r"^::: (\S+)$", text, re.MULTILINE)
    errors = re.search(r"members: \[(.*)\]", REFERENCE["errors"])[1].split(", ")
    for name in package.__all__:
        assert f"{package.__name__}.{name}" in shown or name in errors, name


@pytest.mark.parametrize(
    ("page", "kind"), [("source", EventSource), ("stream", EventStream), ("relay", Relay)]
)
def test_the_reference_has_every_public_attribute(page, kind):
    for name in dir(kind):
        assert name.startswith("_") or re.search(rf"\b{name}\b", REFERENCE[page]), name


if __name__ == "__main__":
    FILE.write_text(FIGURE.sub(lambda _: drawn(), PAGE))
