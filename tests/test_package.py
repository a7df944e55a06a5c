"""The house as a whole: its floors, its words, its promises to the type checkers."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import eventsource

from .support import LIMIT

ROOT = Path(__file__).parent.parent
PACKAGE = Path(eventsource.__file__).parent

FLOORS = [
    "urls",
    "events",
    "errors",
    "parser",
    "reconnect",
    "wakeup",
    "forking",
    "exiting",
    "deadline",
    "arguments",
    "cookies",
    "response",
    "connection",
    "transport",
    "async_items",
    "stream",
    "handlers",
    "browser",
    "handover",
    "joining",
    "listeners",
    "source",
    "dispatch",
    "client",
    "testing",
    "demo",
    "cli",
    "__main__",
]
"""Each module imports only what stands above it."""


def modules():
    for path in sorted(PACKAGE.rglob("*.py")):
        relative = path.relative_to(PACKAGE)
        if relative.name != "__init__.py":
            yield relative.parts[0].removesuffix(".py"), path


def imports(path):
    """The modules of the package, or its folders, that one imports; not those beside it in a folder."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            parts = (node.module or "").split(".")
            if node.level == 0 and parts[0] == "eventsource":
                parts = parts[1:]
            elif node.level == 0 or path.parent != PACKAGE:
                assert node.level < 2, "from eventsource"
                continue
            yield from parts[:1] if parts and parts[0] else [alias.name for alias in node.names]


@pytest.mark.parametrize(("module", "path"), list(modules()), ids=lambda x: Path(x).stem)
def test_a_module_imports_only_what_stands_above_it(module, path):
    above = FLOORS[: FLOORS.index(module)]
    assert set(imports(path)) <= {*above, "__version__"}


def test_contributing_lists_the_modules_in_their_order():
    listed = re.findall(r"^\| (`.*?) \|", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE)
    names = [
        name.strip("/").removesuffix(".py") for name in re.findall(r"`(.*?)`", "".join(listed))
    ]
    assert [*names, "__main__"] == FLOORS


def test_the_import_adds_nothing_heavy_to_that_of_requests():
    code = """
import sys
import pyee, requests
before = set(sys.modules)
import eventsource
print(*sorted(set(sys.modules) - before))
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    names = set(run.stdout.split())
    added = {name for name in names if name.partition(".")[0] != "eventsource"}
    # Of the standard library, as far as requests has not imported them; the second line
    # is what `inspect`, which `dataclasses` needs, and `netrc` bring in on Python 3.11.
    assert added <= {
        *("_contextvars", "contextvars", "dataclasses", "inspect", "pyee.base", "netrc"),
        *("_ast", "_opcode", "ast", "dis", "opcode", "shlex"),
    }
    assert names.isdisjoint({"eventsource.testing", "eventsource.cli", "eventsource.demo"})


def test_the_package_never_sleeps():
    for _, path in modules():
        assert "sleep(" not in path.read_text()


def test_all_that_is_exported_is_there():
    assert sorted(eventsource.__all__) == eventsource.__all__
    for name in eventsource.__all__:
        assert getattr(eventsource, name).__module__.startswith("eventsource")


def test_every_exception_is_a_requests_exception():
    import requests

    from eventsource import errors

    for name, kind in vars(errors).items():
        if isinstance(kind, type) and kind.__module__ == errors.__name__:
            assert issubclass(kind, requests.RequestException), name


def test_an_open_source_does_not_keep_the_program_from_ending():
    program = (
        "import sys\n"
        "from eventsource import EventSource\n"
        "from eventsource.testing import ScriptedServer\n"
        "def script(connection):\n"
        "    connection.start_stream()\n"
        "    connection.hold()\n"
        "server = ScriptedServer(script)\n"
        "source = EventSource(server.url, on_message=print)\n"
        "server.wait_for_request()\n"
        "sys.exit(3)\n"
    )
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-c", program],
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (3, "", "")


@pytest.mark.parametrize("page", ["docs/reliability.md", "SECURITY.md"])
def test_the_tests_that_a_page_names_are_there(page):
    tests = "".join(path.read_text() for path in (ROOT / "tests").glob("test_*.py"))
    there = set(re.findall(r"^def (test_\w+)\(", tests, re.MULTILINE))
    text = (ROOT / page).read_text()
    assert set(re.findall(r"\btest_\w+\b(?!\.py)", text)) <= there
    for path in re.findall(r"`((?:tests|docs|fuzz)/[\w./]*)", text):
        assert (ROOT / path).exists(), path
