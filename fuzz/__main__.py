"""`python -m fuzz TARGET`: fuzz it; `python -m fuzz TARGET FILE`: run it on one input."""

from __future__ import annotations

import argparse
import logging
import os
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
NAMES = ("parser", "framing", "session", "response", "stream", "text")
SECONDS = 30
LONGEST = 4096
"""Bytes of an input."""
HANG = 20
"""Seconds that one input may take."""


def main() -> int:
    """Do what the command line says; return the exit status."""
    logging.disable(logging.ERROR)  # thousands of lines a second
    if sys.argv[1:2] == ["--worker"]:
        return _work(sys.argv[2:])
    arguments = _arguments()
    if arguments.files:
        return _replay(arguments.target, arguments.files)
    names = NAMES if arguments.all else [arguments.target]
    corpus = arguments.corpus and arguments.corpus.resolve()
    with tempfile.TemporaryDirectory() as scratch:
        place = corpus or Path(scratch)
        return max(
            _merge(name, place / name)
            if arguments.merge
            else _fuzz(name, place, arguments.seconds, arguments.seed)
            for name in names
        )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m fuzz", description="Fuzz the package.")
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("target", nargs="?", choices=NAMES)
    which.add_argument("--all", action="store_true", help="one target after the other")
    parser.add_argument("files", nargs="*", type=Path, help="inputs to run the target on")
    parser.add_argument("--seconds", type=int, default=SECONDS, help="for each target")
    parser.add_argument("--seed", type=int, default=1 + int.from_bytes(os.urandom(3)))
    parser.add_argument(
        "--corpus", type=Path, metavar="DIR", help="where inputs that were found are kept"
    )
    parser.add_argument(
        "--merge", action="store_true", help="add to fuzz/corpus what DIR has to add to it"
    )
    arguments = parser.parse_args()
    if arguments.merge and not arguments.corpus:
        parser.error("--merge needs --corpus")
    return arguments


def _replay(name: str, files: list[Path]) -> int:
    """Run the target on each file, without atheris: a failure shows its traceback."""
    from .targets import TARGETS  # noqa: PLC0415 - a worker instruments it

    for file in files:
        sys.stdout.write(f"{file}\n")
        sys.stdout.flush()
        TARGETS[name](file.read_bytes())
    return 0


def _fuzz(name: str, place: Path, seconds: int, seed: int) -> int:
    """Fuzz one target in a process of its own; say what came of it."""
    found = place / name
    found.mkdir(parents=True, exist_ok=True)
    crashes = tempfile.mkdtemp(prefix=f"fuzz-{name}-")
    status, log = _run(
        name,
        str(found),
        str(HERE / "corpus" / name),
        f"-max_total_time={seconds}",
        f"-seed={seed}",
        f"-artifact_prefix={crashes}/",
        "-print_final_stats=1",
    )
    inputs = sorted(Path(crashes).iterdir())
    progress = re.findall(r"cov: (\d+) ft: \d+ corp: (\d+)/", log)
    runs = re.findall(r"stat::number_of_executed_units: *(\d+)", log)
    edges, kept = progress[-1] if progress else ("?", "?")
    runs_told = runs[-1] if runs else "?"
    verdict = "failed" if status else "no failure"
    sys.stdout.write(
        f"{name}: seed {seed}, {runs_told} runs, {edges} edges, {kept} inputs kept: {verdict}\n"
    )
    if not status:
        Path(crashes).rmdir()
        return 0
    sys.stdout.write(log[-6000:])
    for file in inputs:
        command = [sys.executable, "-m", "fuzz", name, str(file)]
        sys.stdout.write(f"\ninput: {file.read_bytes()!r}\nrun it again: {shlex.join(command)}\n")
    return 1


def _merge(name: str, found: Path) -> int:
    """Add to the seed corpus what covers more; fewest and smallest inputs."""
    fewest = ("-set_cover_merge=1", "-use_counters=0")
    status, log = _run(name, *fewest, str(HERE / "corpus" / name), str(found))
    sys.stdout.write(log[-1000:])
    return status


def _run(name: str, *options: str) -> tuple[int, str]:
    limits = [f"-max_len={LONGEST}", f"-timeout={HANG}", f"-dict={HERE / 'dictionary.txt'}"]
    done = subprocess.run(  # noqa: S603 - our own
        [sys.executable, "-m", "fuzz", "--worker", name, *options, *limits],
        cwd=HERE.parent,
        env={**os.environ, "PYTHONPATH": str(HERE.parent), "PYTHONHASHSEED": "0"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    return done.returncode, done.stdout.decode("utf-8", "replace")


def _work(arguments: list[str]) -> int:
    """Be the process that fuzzes; `Fuzz()` ends it."""
    import atheris  # noqa: PLC0415 - not needed to run one input

    with atheris.instrument_imports(include=["eventsource"]):
        from .targets import TARGETS  # noqa: PLC0415

    name, *options = arguments
    atheris.Setup([sys.argv[0], *options], TARGETS[name])
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main())
