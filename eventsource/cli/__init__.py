"""The `eventsource` command. What it is built on is an extra, and imported when it is used."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence

from eventsource import __version__

NEEDED = ("click", "rich")
"""What the extra `cli` installs."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with `arguments`, by default the process's own.

    `demo` and `--version` need nothing but the package.

    Returns:
        The exit status; `eventsource --help` lists them.
    """
    arguments = [*(sys.argv[1:] if arguments is None else arguments)]
    if arguments == ["demo"]:
        from eventsource import demo  # noqa: PLC0415 - it takes time to import, and so does the other

        return demo.main()
    if arguments == ["--version"]:
        print(f"eventsource {__version__}")  # noqa: T201 - a command
        return 0
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        print(  # noqa: T201
            f"eventsource: {' and '.join(missing)} not found; this installs the command line:"
            " python -m pip install 'eventsource-client[cli]'",
            file=sys.stderr,
        )
        return 2
    from .command import run  # noqa: PLC0415 - needs the extra

    return run(arguments)
