"""No program of the README, the pages or `examples/` fails in silence.

Each is run against a server that is down, one that answers 401, and one that answers HTML. It
must raise, or leave a line on standard error, and that must say why; a program with a window may
say it there. A program whose stream is over for good must end, too.

A program is a block of Python that makes a stream, with what stands before it under its heading;
a file of a page, as a command of the page starts it; a command that reads a stream; or an
example. Every other block falls under one of the rules of `why_not`.
"""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import pytest

from eventsource.testing import ScriptedServer
from tests import pages
from tests.pages import Desk
from tests.support import LIMIT, port_that_refuses, status, unavailable, wait_until
from tests.system.test_docs import (
    PAGES,
    ROOT,
    authority,
    name_of,
    needs_bash,
    server_context,
)

__all__ = ["authority", "server_context"]  # fixtures

pytestmark = [
    pytest.mark.timeout(3 * LIMIT),
    needs_bash,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork"),
]

REASONS = {
    "down": "refused",
    "401": "401 Unauthorized",
    "html": "text/html",
}
"""By what the server does: what is to be read of it."""

SCRIPTS = {
    "401": status("401 Unauthorized", "Content-Type: text/plain", body=b"Who are you?"),
    "html": status("200 OK", "Content-Type: text/html", body=b"<html>Log in.</html>"),
}

PORTS = (80, 443, 8000, 9)
"""On which the pages have their servers; on 9 of one's own machine nobody listens anyway."""

CLIENTS = {"EventSource", "EventStream", "SSEClient"}
SERVERS = {"SSEServer", "ScriptedServer", "sse_server"}

EXAMPLES = {
    "examples/asyncio_program.py": ["--seconds", str(LIMIT)],
    "examples/feature_flags.py": [],
    "examples/llm_tokens.py": ["A question?"],
    "examples/qt_window.py": [],
    "examples/service.py": [],
    "examples/tk_window.py": [],
}
"""What follows the URL."""


# --- Which programs there are ---


class Program(NamedTuple):
    """What a reader starts."""

    name: str
    file: Path
    blocks: tuple[tuple[str, int], ...] = ()
    """Python, each with the line on which it begins."""
    arguments: tuple[str, ...] = ()
    toolkit: str | None = None
    command: str = ""
    """Of the shell, in place of all that."""
    files: tuple[tuple[str, str], ...] = ()
    """What the page has in its folder by then."""


def names_in(code):
    return {node.id for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Name)}


def calls_in(code):
    calls = (node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Call))
    return {node.func.id for node in calls if isinstance(node.func, ast.Name)}


def only_defines(code):
    kinds = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return all(isinstance(each, kinds) for each in ast.parse(code).body)


def closes_at_once(code):
    """Whether each source that is made is closed by the very next statement."""
    body = ast.parse(code).body
    made = [n for n, each in enumerate(body) if calls_in(ast.unparse(each)) & CLIENTS]
    return all(
        isinstance(body[n], ast.Assign)
        and ast.unparse(body[n + 1 : n + 2]) == f"{ast.unparse(body[n].targets[0])}.close()"
        for n in made
    )


def why_not(block):
    """The rule by which a block is no program that meets a bad server; None: it is one."""
    if block.mark.startswith("not run"):
        return "not run"
    if block.included and block.included.startswith("examples/"):
        return "an example"
    if block.language in ("sh", "console"):
        return None if any(map(reads_a_stream, block.code.splitlines())) else "no stream is read"
    if block.language != "python":
        return "no program"
    if block.has_tests or names_in(block.code) & SERVERS:
        return "a server of its own"
    if not calls_in(block.code) & CLIENTS:
        return "no stream is made"
    if block.title:
        return "a file, which a command starts"
    if only_defines(block.code):
        return "nothing is started"
    if closes_at_once(block.code):
        return "closed at once"
    return None


def reads_a_stream(line):
    """Whether a command of a page is one of the package's with a URL, or starts a file."""
    line = line.removeprefix("$ ")
    if re.match(r"eventsource\b", line):
        return re.search(r"https?://| :\d", line) is not None
    return re.match(r"python (\w+)\.py\b", line) is not None


def programs_of(page):
    files, before = {}, []
    for block in pages.read(page):
        reason = why_not(block)
        if block.title:
            files[block.title] = block
        elif reason in ("no stream is made", "nothing is started"):
            before.append(block)
        if reason is not None:
            continue
        if block.language == "python":
            under = {block.heading, f"{block.file.name}#"}
            parts = [*(each for each in before if each.heading in under), block]
            yield Program(
                str(block),
                block.file,
                tuple((part.code, part.line) for part in parts),
                toolkit=block.toolkit,
            )
            continue
        for number, typed in enumerate(block.code.splitlines(), block.line + 1):
            line = typed.removeprefix("$ ")
            if not reads_a_stream(line):
                continue
            name = f"{name_of(page)}:{number}"
            if line.startswith("eventsource"):
                yield Program(name, block.file, command=line)
                continue
            _, file, *arguments = shlex.split(line)
            shown = files[file]
            if names_in(shown.code) & SERVERS:
                continue
            if "multiprocessing" in names_in(shown.code):  # whose children import a file
                continue
            texts = tuple((title, each.code) for title, each in files.items())
            code = ((shown.code, shown.line),)
            yield Program(name, block.file, code, tuple(arguments), files=texts)


def examples():
    for name, arguments in EXAMPLES.items():
        code = (ROOT / name).read_text("utf-8")
        toolkit = (
            "tkinter" if "import tkinter" in code else "PySide6" if "PySide6" in code else None
        )
        url = ("http://example.com/stream", *arguments)
        yield Program(name, ROOT / name, ((code, 0),), url, toolkit)


BLOCKS = [
    block
    for page in PAGES
    for block in pages.read(page)
    if block.language in ("python", "sh", "console")
]
PROGRAMS = [program for page in PAGES for program in programs_of(page)]
EXAMPLE_PROGRAMS = [*examples()]


def test_no_block_is_overlooked():
    """Who adds a block counts it here, and sees that it is a program if it reads a stream."""
    assert Counter(map(why_not, BLOCKS)) == {
        None: 79,
        "a file, which a command starts": 11,
        "a server of its own": 28,
        "an example": 7,
        "closed at once": 2,
        "no stream is made": 12,
        "no stream is read": 17,
        "not run": 29,
        "nothing is started": 3,
    }
    assert len(PROGRAMS) == 81
    there = {f"examples/{path.name}" for path in (ROOT / "examples").glob("*.py")}
    assert there - set(EXAMPLES) == {"examples/server.py"}  # which is one


# --- The bad servers ---


@pytest.fixture(scope="session", params=REASONS)
def bad_network(request, tmp_path_factory, authority, server_context):
    """What the server does, and a desk for those who ask it."""
    kind = request.param
    folder = tmp_path_factory.mktemp(f"network-{kind}")
    if kind == "down":
        with port_that_refuses() as port:
            yield kind, Desk(folder, dict.fromkeys(PORTS, port), authority[1])
        return
    script = SCRIPTS[kind]
    with (
        ScriptedServer(script) as plain,
        ScriptedServer(script, ssl_context=server_context) as secure,
    ):
        ports = {port: secure.port if port == 443 else plain.port for port in PORTS}
        yield kind, Desk(folder, ports, authority[1])


@pytest.fixture(scope="session")
def nursery(bad_network):
    """What forks the programs, all for the same server."""
    process = subprocess.Popen(
        [sys.executable, pages.HERE / "nursery.py"],
        env=bad_network[1].environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with process:
        yield process
        process.stdin.close()


# --- Running them ---


class Forked:
    """A program that the nursery has forked; as a `Popen`, as far as `Run` needs it."""

    def __init__(self, nursery, task):
        self._nursery = nursery
        self._ended = Path(task["ended"])
        nursery.stdin.write(json.dumps(task).encode() + b"\n")
        nursery.stdin.flush()
        self.pid = int(nursery.stdout.readline())

    def poll(self):
        return int(self._ended.read_text()) if self._ended.exists() else None


class Run:
    """A program that runs in a folder of its own, and what it has written."""

    def __init__(self, program, seen, folder, desk, nursery, display):
        self._out, self._err = folder / "out", folder / "err"
        self._tells_stdout = program.command.startswith("eventsource check ") or any(
            "StreamHandler(sys.stdout)" in code for code, _ in program.blocks
        )
        self._out.touch()
        self._err.touch()
        work = folder / "work"
        work.mkdir()
        for name, text in program.files:
            (work / name).write_text(text, "utf-8")
        task = {
            "folder": str(work),
            "file": str(program.file),
            "blocks": program.blocks,
            "arguments": program.arguments,
            "toolkit": program.toolkit,
            "seen": seen,
            "out": str(self._out),
            "err": str(self._err),
            "ended": str(folder / "ended"),
        }
        command, environment = None, desk.environment
        if program.command:
            command = ["bash", "-o", "pipefail", "-c", program.command]
        elif program.toolkit:
            found = desk.for_toolkit(program.toolkit, display)
            if found is None:
                unavailable(f"{program.toolkit} is not installed")
            python, environment = found
            command = [python, pages.HERE / "nursery.py", json.dumps(task)]
        if command is None:
            self._process = Forked(nursery, task)
            return
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self._process = subprocess.Popen(
                command,
                cwd=work,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )

    @property
    def status(self):
        """The exit status; None: it runs."""
        return self._process.poll()

    @property
    def told(self):
        """Its standard error; of a service whose log goes there, and of `eventsource check`, which
        says what is wrong with a stream, standard output, too."""
        return self.output if self._tells_stdout else self._err.read_text("utf-8", "replace")

    @property
    def output(self):
        return "".join(file.read_text("utf-8", "replace") for file in (self._out, self._err))

    def end(self):
        """Kill it, if it is still there."""
        if self.status is None:
            pages.kill_group(self._process.pid)
            wait_until(lambda: self.status is not None, "the program to be gone")


@pytest.mark.parametrize("program", [*PROGRAMS, *EXAMPLE_PROGRAMS], ids=lambda each: each.name)
def test_no_program_fails_in_silence(program, bad_network, nursery, tmp_path, request):
    kind, desk = bad_network
    reason = REASONS[kind]
    run = Run(program, reason, tmp_path, desk, nursery, lambda: request.getfixturevalue("display"))
    try:
        wait_until(
            lambda: run.status is not None or reason in run.told, "the program to tell", LIMIT
        )
        # It goes on, as the package that it stands in for.
        is_client = kind == "html" and any("SSEClient(" in code for code, _ in program.blocks)
        if kind != "down" and not program.toolkit and not is_client:
            wait_until(lambda: run.status is not None, "the program to end, as its stream has")
        # That of a window ends when its user has read the reason in it, and then prints it.
        is_shown = program.toolkit is not None and reason in run.output
        assert is_shown or reason in run.told, f"status {run.status}: {run.output}"
    finally:
        run.end()
