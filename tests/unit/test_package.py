"""The house as a whole: its floors, its words, its promises to the type checkers."""

from __future__ import annotations

import ast
import re
import runpy
from pathlib import Path

import pytest

import eventsource

ROOT = Path(__file__).parents[2]
PACKAGE = Path(eventsource.__file__).parent

LAYERS = [
    {"__main__"},
    {"cli"},
    {"testing", "relay"},
    {"eventsource"},  # its __init__.py
    {"source", "sseclient", "dispatch"},
    {"stream", "resume", "recording"},
    {"engine"},
    {"handlers", "http"},
    {"protocol"},
    {"runtime"},
    {"errors"},
    {"urls", "version"},
]
"""From the top down. A room imports only what stands below its layer, and itself."""


def modules():
    """Each module of the package: its dotted name, and its file."""
    for path in sorted(PACKAGE.rglob("*.py")):
        yield ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts), path


def imports(path):
    """The dotted names within the package that one module imports from."""
    package = path.relative_to(PACKAGE.parent).parent.parts
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join((*base, *filter(None, [node.module])))
            names = [f"{base}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from (name for name in names if name.startswith("eventsource."))


def room(name):
    part = name.removesuffix(".__init__").split(".")[1:]
    rooms = set().union(*LAYERS)
    return part[0] if part and part[0] in rooms else "eventsource"


@pytest.mark.parametrize(("module", "path"), list(modules()))
def test_a_module_imports_only_what_stands_below_it(module, path):
    layer = next(n for n, rooms in enumerate(LAYERS) if room(module) in rooms)
    below = set().union(*LAYERS[layer + 1 :]) | {room(module)}
    for name in imports(path):
        assert name == "eventsource.__version__" or room(name) in below, name


def test_no_modules_import_each_other_in_a_circle():
    paths = {name.removesuffix(".__init__"): path for name, path in modules()}
    graph = {}
    for name, path in paths.items():
        found = set()
        for target in imports(path):
            name_of_module = target
            while name_of_module not in paths:
                name_of_module = name_of_module.rpartition(".")[0]
            found.add(name_of_module)
        graph[name] = found - {name}
    while leaves := {name for name, targets in graph.items() if not targets & graph.keys()}:
        graph = {name: targets for name, targets in graph.items() if name not in leaves}
    assert not graph


def test_few_modules_stand_flat():
    assert len(list(PACKAGE.glob("*.py"))) <= 12


def test_the_package_never_sleeps():
    for _, path in modules():
        assert "sleep(" not in path.read_text()


def test_all_that_is_exported_is_there():
    assert sorted(eventsource.__all__) == eventsource.__all__
    for name in eventsource.__all__:
        found = getattr(eventsource, name)  # Dispatch, Handler and Item are made of others' types
        assert not isinstance(found, type) or found.__module__.startswith("eventsource")


def test_every_exception_is_a_requests_exception():
    import requests

    from eventsource import errors

    for name, kind in vars(errors).items():
        if isinstance(kind, type) and kind.__module__ == errors.__name__:
            assert issubclass(kind, requests.RequestException), name


@pytest.mark.parametrize("page", ["docs/reliability.md", "SECURITY.md"])
def test_the_tests_that_a_page_names_are_there(page):
    tests = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    there = set(re.findall(r"^def (test_\w+)\(", tests, re.MULTILINE))
    text = (ROOT / page).read_text()
    assert set(re.findall(r"\btest_\w+\b(?!\.py)", text)) <= there
    for path in re.findall(r"`((?:tests|docs|fuzz)/[\w./]*)", text):
        assert (ROOT / path).exists(), path


# --- The package index ---


def links_of(text):
    return re.findall(r"\]\(([^)\s]+)\)", text)


@pytest.fixture(scope="module")
def for_the_index():
    if not (ROOT / "setup.py").exists():
        pytest.skip("needs the source distribution")
    return runpy.run_path(str(ROOT / "setup.py"))["for_the_index"]


def test_on_the_index_links_lead_to_the_repository(for_the_index):
    readme = (ROOT / "README.md").read_text("utf-8")
    found = links_of(for_the_index(readme, "https://example.org/it"))
    assert len(found) == len(links_of(readme))
    assert all(link.startswith("https://") for link in found)
    assert "https://example.org/it/blob/HEAD/docs/handlers.md" in found
    assert "https://example.org/it/raw/HEAD/docs/images/terminal-events.svg" in found


def test_without_a_repository_the_texts_of_links_are_left(for_the_index):
    text = "see [the\npage](docs/a.md#b) and [one](https://example.org)![x](docs/x.svg)"
    assert for_the_index(text, "") == "see the\npage and [one](https://example.org)"
