"""`python -m tests.peers`: observe all clients and print the observed part of the page.

`--write` replaces that part of `docs/comparison.md`, and `versions.txt`. All peers must be
installed; the page says how.
"""

import argparse
import platform
import sys

from .clients import ALL, version
from .observe import observe_all
from .page import PATH, write, written
from .rows import FAILED, UNKNOWN


def main() -> int:
    """Observe, and print or write; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.peers", description=__doc__)
    parser.add_argument("--write", action="store_true", help=f"write {PATH.name}")
    arguments = parser.parse_args()
    versions = {client.name: version(client.name) or "" for client in ALL}
    missing = [name for name, installed in versions.items() if not installed]
    if missing:
        print(f"not installed: {', '.join(missing)}", file=sys.stderr)
        return 1
    observed = observe_all(versions)
    failures = [
        f"{client}, {probe}: {verdict.note}"
        for client, verdicts in observed.items()
        for probe, verdict in verdicts.items()
        if verdict.mark in (FAILED, UNKNOWN)
    ]
    if failures:
        print("\n".join(failures), file=sys.stderr)
        return 1
    part = written(observed, versions, platform.python_version())
    if arguments.write:
        write(part, versions)
    else:
        print(part)
    return 0


if __name__ == "__main__":
    sys.exit(main())
