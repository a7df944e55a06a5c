"""What the package is to a program: an import, and no obstacle to its end."""

from __future__ import annotations

import subprocess
import sys


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
