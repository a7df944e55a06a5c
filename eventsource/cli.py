"""The `eventsource` command. For now it has one use: `eventsource demo`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from . import __version__, demo


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with `arguments`, by default the process's own.

    Returns:
        The exit status: 0 when the demo did what it should, else 1.
    """
    parser = argparse.ArgumentParser(
        prog="eventsource", description="A client for Server-Sent Events."
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("demo", help="start a server and read from it, with a lost connection")
    parser.parse_args(arguments)
    return demo.main()
