"""The command: `python -m benchmarks`."""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import sys
import tempfile
import time
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import NoReturn

import certifi
import trustme

from . import inputs, measure, peers, report
from .processes import Crew, Problem, Server, install_node_packages, node_versions
from .server import raise_file_limit

DOCUMENT = Path(__file__).parent.parent / "docs" / "benchmarks.md"
FILES_PER_STREAM = 4
"""More than any client holds open for a stream."""


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Compare eventsource with other Server-Sent Events clients.",
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="a trial of under a minute: it shows that everything works, its numbers mean little",
    )
    parser.add_argument("--rounds", type=int, metavar="N", help="rounds (5; with --quick 1)")
    parser.add_argument(
        "--only", type=_names(measure.TABLES), metavar="TABLES", help=",".join(measure.TABLES)
    )
    parser.add_argument(
        "--inputs", type=_names(inputs.TITLES), metavar="INPUTS", help=",".join(inputs.TITLES)
    )
    parser.add_argument(
        "--peers",
        type=_names(peers.BY_NAME),
        metavar="PEERS",
        help="only these rows, in addition to this package's: " + ", ".join(peers.BY_NAME),
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help="write the tables there; a full run writes docs/benchmarks.md",
    )
    options = parser.parse_args()
    if options.rounds is not None and options.rounds < 1:
        parser.error("--rounds must be at least 1")
    return options


def command_line(options: argparse.Namespace) -> str:
    """Return the command with all options that change what is measured.

    `--output` is left out: it only says where the tables go.
    """
    words = ["python", "-m", "benchmarks"]
    if options.quick:
        words.append("--quick")
    if options.rounds is not None:
        words += ["--rounds", str(options.rounds)]
    for name in ("only", "inputs", "peers"):
        if chosen := getattr(options, name):
            words += [f"--{name}", ",".join(chosen)]
    return shlex.join(words)


class _names:  # noqa: N801 - an argument's type, which its errors name
    """A comma-separated list of known names."""

    def __init__(self, known: Iterable[str]) -> None:
        self._known = tuple(known)

    def __call__(self, text: str) -> tuple[str, ...]:
        names = tuple(text.split(","))
        for name in names:
            if name not in self._known:
                raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(self._known)}")
        return names


def say(text: str) -> None:
    """Tell, on standard error, what is going on."""
    print(f"[{time.monotonic() - STARTED:4.0f} s] {text.rstrip()}", file=sys.stderr, flush=True)


STARTED = time.monotonic()


def available(
    options: argparse.Namespace, machine: dict[str, str]
) -> tuple[list[peers.Peer], Path | None, list[str]]:
    """Return the peers to measure, the folder of Node's packages, and who is missing.

    The versions of what is there are added to `machine`.
    """
    folder, missing, rows = None, [], []
    wanted = [
        peer for peer in peers.ALL if not options.peers or peer.ours or peer.name in options.peers
    ]
    if any(peer.kind == "node" for peer in wanted):
        try:
            folder = install_node_packages()
            versions = node_versions(folder)
        except Problem as problem:
            say(f"{problem}\n{problem.detail}")
            missing.append(f"the Node clients: {problem}")
        else:
            machine.update({"Node": versions.pop("Node")})
            machine.update({f"npm {name}": version for name, version in versions.items()})
    for peer in wanted:
        if peer.kind == "node":
            found = folder is not None
        else:
            found = peer.kind == "raw" or peers.version(peer.package) is not None
            if not found:
                missing.append(f"{peer.name}: not installed")
        if found:
            rows.append(peer)
    return rows, folder, missing


def settings(options: argparse.Namespace, rows: list[peers.Peer]) -> measure.Settings:
    """Say how much to measure."""
    tables = options.only or measure.TABLES
    streams = (raise_file_limit() - 100) // FILES_PER_STREAM
    if options.quick:
        return measure.Settings(
            rounds=options.rounds or 1,
            tables=tables,
            names=options.inputs or inputs.QUICK,
            rows=rows,
            tls_names=("ticks",),
            idle_schemes=("https",),
            quick=True,
            first=2000,
            duration=0.02,
            limit=5.0,
            paced=30,
            streams=min(20, streams),
            tls_streams=min(10, streams),
            closes=10,
            patience=0.2,
            imports=1,
            begins=5,
        )
    return measure.Settings(
        rounds=options.rounds or 5,
        tables=tables,
        names=options.inputs or inputs.FULL,
        rows=rows,
        streams=min(1000, streams),
        tls_streams=min(250, streams),
    )


def make_certificates(folder: Path) -> tuple[Path, Path, Path]:
    """Write what TLS needs; return the files.

    Returns:
        The server's certificate, that of the authority that issued it, and what a program
        usually trusts with that authority besides: a client that reads or keeps all that for
        each stream should be seen to.
    """
    authority = trustme.CA()
    certificate, ca, trusted = (folder / f"{name}.pem" for name in ("server", "ca", "trusted"))
    issued = authority.issue_cert("127.0.0.1", "localhost")
    issued.private_key_and_cert_chain_pem.write_to_path(certificate)
    authority.cert_pem.write_to_path(ca)
    trusted.write_bytes(Path(certifi.where()).read_bytes())
    authority.cert_pem.write_to_path(trusted, append=True)
    return certificate, ca, trusted


def run(options: argparse.Namespace) -> str:
    """Measure; return the document."""
    machine = report.machine()
    rows, node, missing = available(options, machine)
    chosen = settings(options, rows)
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        certificate, ca, trusted = make_certificates(Path(folder))
        server = Server(certificate)
        stack.callback(server.stop)
        crew = stack.enter_context(Crew(server, node, trusted))
        results = measure.Run(chosen, server, crew, str(ca), str(trusted), say).everything()
    say("done")
    return report.document(results, machine, missing, command_line(options))


def _stop(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def main() -> int:
    """Run the command; return its exit status."""
    signal.signal(signal.SIGTERM, _stop)
    options = arguments()
    whole = not (options.quick or options.only or options.inputs or options.peers)
    try:
        text = run(options)
    except KeyboardInterrupt:
        return 130
    print(text)
    path = options.output or (DOCUMENT if whole else None)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        say(f"written to {os.path.relpath(path)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
