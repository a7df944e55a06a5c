"""What the package is to a program: an import, and no obstacle to its end."""

from __future__ import annotations

import subprocess
import sys

from tests.support import LIMIT


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
    assert names.isdisjoint({"eventsource.testing", "eventsource.cli", "eventsource.relay"})


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
