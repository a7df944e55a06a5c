"""The `eventsource` command. It needs the extra `cli`, which is imported when it is used."""

from __future__ import annotations

import errno
import importlib
import importlib.util
import os
import signal
import sys
from collections.abc import Sequence

from eventsource import __version__

from .failures import Exit, say

NEEDED = ("click", "rich")
"""What the extra `cli` installs."""

COMMANDS = {"check": "check.command", "relay": "relaying", "serve": "serving"}
"""The commands beside `eventsource URL`, and the modules that run them."""

DEMO_HELP = """Usage: eventsource demo

  Start a server, and print its events. Half-way the server drops the
  connection: the client reconnects, and no event is lost.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with `arguments`, by default the process's own.

    `demo` and `--version` need nothing but the package.

    Returns:
        The exit status; `eventsource --help` lists them.
    """
    if arguments is not None:
        return _run([*arguments])
    try:
        try:
            status = _run(sys.argv[1:])
        finally:  # nothing is left that Ctrl-C could interrupt in order
            signal.signal(signal.SIGINT, signal.SIG_DFL)
    except KeyboardInterrupt:
        status = Exit.INTERRUPTED
    return _let_go(is_told=status in (Exit.NO_OUTPUT, Exit.PIPE_CLOSED)) or status


def _run(arguments: list[str]) -> int:
    try:
        if arguments[:1] == ["demo"]:
            return _demo(arguments[1:])
        if arguments == ["--version"]:
            print(f"eventsource {__version__}")  # noqa: T201 - a command
            return Exit.DONE
    except OSError as error:
        return _unwritten(error)
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        say(
            f"eventsource: the command needs {' and '.join(missing)}:"
            f" python -m pip install {' '.join(missing)}"
        )
        return Exit.USAGE
    name, *rest = arguments or [""]
    module = COMMANDS.get(name)
    # Imported here: it needs the extra.
    run = importlib.import_module(f".{module or 'command'}", __name__).run
    return int(run(rest if module else arguments))


def _demo(arguments: list[str]) -> int:
    if arguments in (["-h"], ["--help"]):
        print(DEMO_HELP)  # noqa: T201
        return Exit.DONE
    if arguments:
        say("eventsource demo: takes no arguments (see: eventsource demo --help)")
        return Exit.USAGE
    from . import demo  # noqa: PLC0415 - it takes time to import

    return demo.main()


def _let_go(*, is_told: bool) -> int:
    """Flush the standard streams, so that the interpreter prints no error if it cannot.

    Args:
        is_told: whether the program has already said that its output cannot be written.

    Returns:
        The exit status if that fails, else 0.
    """
    status = 0
    for stream in (sys.stdout, sys.stderr):
        if stream is None:
            continue
        try:
            stream.flush()
        except OSError as error:
            if stream is sys.stdout and not is_told:
                status = _unwritten(error)
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)
    return status


def _unwritten(error: OSError) -> Exit:
    if error.errno == errno.EPIPE:
        return Exit.PIPE_CLOSED
    say(f"eventsource: standard output: {error.strerror}")
    return Exit.NO_OUTPUT
