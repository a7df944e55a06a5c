"""What the pages on moving over from other clients show as "before", run with those clients.

They are in the extra `bench`, which the gate's environment for checks has; elsewhere these tests
are skipped.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import ssl
import subprocess
import sys
from pathlib import Path

import pytest
import trustme

from eventsource.testing import ScriptedServer
from tests import pages
from tests.support import HEAD, LIMIT

DOCS = Path(__file__).parents[2] / "docs"
BLOCKS = [
    (found[1], block)
    for page in sorted((DOCS / "how-to").glob("*.md"))
    for block in pages.read(page)
    if block.language == "python"
    if (found := re.fullmatch(r"not run: needs ([\w-]+)", block.mark))
]
"""Each with the package that it needs."""

NAMED = """
import importlib.util, sys

path = importlib.metadata.distribution("sseclient").locate_file("sseclient.py")
spec = importlib.util.spec_from_file_location("sseclient", path)
sys.modules["sseclient"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sys.modules["sseclient"])
"""
"""Imports `sseclient` from its file: sseclient-py has the same import name, and wins."""

EVENTS = (
    b"retry: 20\n\nid: 43\ndata: hello\n\n"
    b'event: price\nid: 44\ndata: {"symbol": "ACME", "price": 101.5}\n\n'
)


def serve(connection):
    connection.read_request()
    connection.send(HEAD + EVENTS)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The URL of `https://example.com/`, and the environment of programs that find it."""
    folder = tmp_path_factory.mktemp("network")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("example.com").configure_cert(context)
    with ScriptedServer(serve, ssl_context=context) as server:
        yield (
            f"https://example.com:{server.port}/",
            {
                **os.environ,
                "PYTHONPATH": str(Path(pages.__file__).parent / "on_path"),
                "PAGES_NETWORK": str(folder),
                "REQUESTS_CA_BUNDLE": str(folder / "ca.pem"),
                "SSL_CERT_FILE": str(folder / "ca.pem"),
            },
        )


def test_there_is_one_for_each_client():
    assert {package for package, _ in BLOCKS} == {"sseclient", "sseclient-py", "httpx-sse", "httpx"}


@pytest.mark.parametrize(
    ("package", "block"), BLOCKS, ids=[f"{block.file.name}:{block.line}" for _, block in BLOCKS]
)
def test_what_a_page_shows_of_another_client_runs(package, block, server, tmp_path):
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        pytest.skip(f"needs {package}, of the extra `bench`")
    program = tmp_path / "before.py"
    before = f"import importlib.metadata\n{NAMED}" if package == "sseclient" else ""
    url, environment = server
    program.write_text(before + block.code.replace("https://example.com/", url))
    done = subprocess.run(
        [sys.executable, program],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "hello" in done.stdout
