"""The pages of the documentation, read and followed as by somebody who types what they say.

Each page has an empty folder and a terminal of its own. What stands in its blocks is run:

- `python` with a `title` is a file; without, it is run, and blocks under one heading share
  their names, also with those before the first one. Where a block defines tests, pytest runs all under
  its heading, those of the whole page at once. A block that imports a toolkit has a process
  of its own, and a reader who closes its window.
- `sh` is typed into the terminal; of `console`, the lines after `$`. The rest of `console`, and
  `text` after something that was run, is all that it prints, where `…` stands for anything:
  a Python block must have come to its end by then, its threads too; what runs on must have
  printed no more at the end of the page. Without such a text nothing may be printed on stderr.
- A command of `sh` that fails ends it, also before a pipe, unless what followed in the pipe
  had read enough.
- Of what is data, the syntax is checked.

Servers of the test are `example.com` (`on_path/sitecustomize.py`), and `pip install` is only
checked for names (`pip_install.py`). An HTML comment before a block says what is different:

    <!-- not run: REASON -->
    <!-- runs on -->                  until the end of the page; then Ctrl-C ends it, in peace
    <!-- runs on until SIGTERM, then status 143 -->
"""

from __future__ import annotations

import configparser
import contextlib
import functools
import json
import os
import queue
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import threading
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, Self

from tests.support import LIMIT, unavailable, wait_until

from .session import NO_MATTER, matches

HERE = Path(__file__).parent
ROOT = HERE.parent.parent

OPENING = re.compile(r"^(?P<indent> *)(?P<fence>`{3,}|~{3,}) *(?P<language>[\w-]*)(?P<rest>.*)$")
INCLUSION = re.compile(r'^ *--8<-- "(?P<path>[^"]+)"$')
HEADING = re.compile(r"^(?P<level>#{1,6}) (?P<text>.*)$")
RUNS_ON = r"runs on(?: until (?P<signal>SIG[A-Z0-9]+))?(?:, then status (?P<status>\d+))?"
MARK = re.compile(rf"^ *<!-- (?P<mark>not run: .+|{RUNS_ON}) -->$")

TEST = re.compile(r"^ *(?:async )?def test_", re.MULTILINE)

RUN = {"python", "sh", "console", "text"}
DATA = {"json", "jsonl", "toml", "ini", "js", "mermaid"}
TOOLKITS = ("tkinter", "PySide6", "PyQt6", "wx", "gi")
ON_SCREEN = {"tkinter", "wx"}
QT_OFFSCREEN = "This plugin does not support propagateSizeHints()\n"
DIAGRAMS = ("stateDiagram-v2", "sequenceDiagram", "flowchart ", "graph ", "classDiagram")


class Block(NamedTuple):
    """A fenced block."""

    file: Path
    line: int
    """Of its opening fence, from 1."""
    heading: str
    """The one above it, after the name of the page; only that before the first one."""
    language: str
    title: str | None
    code: str
    mark: str
    """What the comment before it says, or ""."""
    included: str | None
    """The file that is all of it, if it is included whole."""

    def __str__(self) -> str:
        return f"{os.path.relpath(self.file, ROOT)}:{self.line}"

    @property
    def toolkit(self) -> str | None:
        """The toolkit whose windows it opens."""
        for toolkit in TOOLKITS:
            if re.search(rf"^(import|from) {toolkit}\b", self.code, re.MULTILINE):
                return toolkit
        return None

    @property
    def has_tests(self) -> bool:
        """Whether pytest is to run it."""
        return TEST.search(self.code) is not None


class Wrong(AssertionError):
    """A page says what is not so."""


def read(path: Path, mark: str = "") -> Iterator[Block]:
    """Yield the blocks of a page, those of the pages that it includes among them.

    Raises:
        Wrong: it holds what would be a block to some and not to others.
    """
    lines = path.read_text("utf-8").splitlines()
    start, inherited = f"{path.name}#", mark
    heading = start
    number = 0
    while number < len(lines):
        line = lines[number]
        number += 1
        if found := MARK.match(line):
            mark = found["mark"]
        elif found := OPENING.match(line):
            first, indent = number, found["indent"]
            if found["fence"] != "```":
                raise Wrong(f"{path}:{first}: the fences of this documentation are ```")
            body = []
            while number < len(lines) and lines[number] != f"{indent}```":
                body.append(lines[number].removeprefix(indent))
                number += 1
            if number == len(lines):
                raise Wrong(f"{path}:{first}: the block does not end")
            number += 1
            included = None
            if len(body) == 3 and body[0] == body[2] == "--8<--":
                included = body[1]
                body = (ROOT / included).read_text("utf-8").splitlines()
            title = re.search(r'title="([^"]+)"', found["rest"])
            yield Block(
                path,
                first,
                heading,
                found["language"],
                title and title[1],
                "".join(f"{text}\n" for text in body),
                mark or inherited,
                included,
            )
            mark = ""
        elif found := INCLUSION.match(line):
            yield from read(ROOT / found["path"], mark or inherited)
            mark = ""
        elif found := HEADING.match(line):
            heading = start if found["level"] == "#" else f"{start}{found['text']}"
        elif line.strip() and mark:
            raise Wrong(f"{path}:{number}: a comment about a block, and no block after it")


def indented_blocks(path: Path) -> list[int]:
    """The lines at which a block begins that has no fence: it would be overlooked."""
    found, previous, parent, fence = [], "", "", None
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        if fence is not None:
            fence = None if line == fence else fence
        elif opening := OPENING.match(line):
            fence = f"{opening['indent']}```"
        elif line.startswith("    "):
            inside = re.match(r" {0,3}([-*+]|\d+\.|===|!!!|\?\?\?|:::)", parent)
            if not previous.strip() and not inside:
                found.append(number)
        elif line.strip():
            parent = line
        previous = line
    return found


# --- Data ---


def check_data(block: Block) -> None:
    """Parse a block of data.

    Raises:
        Exception: it is not what its language says.
    """
    match block.language:
        case "json":
            json.loads(block.code)
        case "jsonl":
            for line in block.code.splitlines():
                json.loads(line)
        case "toml":
            tomllib.loads(block.code)
        case "ini":
            check_ini(block)
        case "mermaid":
            if not block.code.startswith(DIAGRAMS):
                raise Wrong(f"{block}: a diagram of an unknown kind")
        case "js":
            done = subprocess.run(
                ["node", "--check", "--input-type=module", "-"],
                input=block.code,
                capture_output=True,
                text=True,
                timeout=LIMIT,
                check=False,
            )
            if done.returncode:
                raise Wrong(f"{block}: {done.stderr}")


def check_ini(block: Block) -> None:
    """Parse it; in a unit of systemd, look at the names, too."""
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(block.code)
    if "Service" in parser:
        unknown = {
            f"{section}.{key}" for section in parser.sections() for key in parser[section]
        } - UNIT
        if unknown:
            raise Wrong(f"{block}: {', '.join(sorted(unknown))} is not known of systemd")


UNIT = {
    *("Unit.Description", "Unit.Wants", "Unit.After"),
    *("Service.ExecStart", "Service.Restart", "Service.RestartSec", "Service.TimeoutStopSec"),
    *(
        "Service.SuccessExitStatus",
        "Service.RestartPreventExitStatus",
        "Service.StateDirectory",
        "Service.WorkingDirectory",
    ),
    "Service.EnvironmentFile",
    "Install.WantedBy",
}
"""What systemd.unit(5), systemd.service(5) and systemd.exec(5) know, as far as pages use it."""


# --- The terminal ---

STRICT = """set -E -o pipefail
trap 'for status in "${PIPESTATUS[@]}"; do case $status in 0|141) ;; *) exit $status ;; esac; done
      [ $status = 0 ] || [ -z "$BASH_SOURCE" ] || exit $status' ERR
"""
"""From here on a failure ends the shell; not SIGPIPE (141) before a pipe, which `head` causes. The
second line of the trap is for what has no pipe; the status of the whole script comes to it again."""
LENIENT = "trap - ERR; set +E +o pipefail"


class Terminal:
    """A shell that does one block after another, and keeps what they change."""

    def __init__(
        self,
        folder: Path,
        notes: Path,
        environment: dict[str, str],
        as_shown: Callable[[str], str],
        limit: float,
    ) -> None:
        self._notes = notes
        self._as_shown = as_shown
        self._limit = limit
        self._count = 0
        self._shell = subprocess.Popen(
            ["bash", "--noprofile", "--norc"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=folder,
            env=environment,
            text=True,
            start_new_session=True,
        )
        self._answers: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._listening = threading.Thread(target=self._listen)
        self._listening.start()
        self._lasting: list[tuple[Block, int, Path, Path]] = []
        self._shown: list[tuple[Block, str | None, Path, Path]] = []

    def _listen(self) -> None:
        assert self._shell.stdout is not None
        for line in self._shell.stdout:
            self._answers.put(line.strip())
        self._answers.put("the shell has ended")

    def _ask(self, command: str) -> str:
        assert self._shell.stdin is not None
        try:
            self._shell.stdin.write(command + "\n")
            self._shell.stdin.flush()
        except BrokenPipeError:
            return "the shell has ended"
        try:
            return self._answers.get(timeout=2 * LIMIT)
        except queue.Empty:
            return "it did not end"

    def folder(self) -> Path:
        """Where it is now."""
        return Path(self._ask("pwd"))

    def type(self, block: Block, script: str, *, expected: str | None) -> None:
        """Run a block.

        Raises:
            Wrong: it failed, or printed something else than `expected`.
        """
        self._count += 1
        typed, out, err = (self._notes / f"{self._count}.{end}" for end in ("sh", "out", "err"))
        typed.write_text(script, "utf-8")
        out.touch()
        err.touch()
        to = f">{out} 2>&1" if expected is not None else f">{out} 2>{err}"
        self._shown.append((block, expected, out, err))
        if block.mark.startswith("runs on"):
            # With job control it has a process group of its own, and hears of Ctrl-C.
            answer = self._ask(
                f"set -m; (trap : INT TERM HUP\n{STRICT} . {typed} </dev/null {to}) & set +m; echo $!"
            )
            self._lasting.append((block, int(answer), out, err))
            with contextlib.suppress(AssertionError):
                wait_until(lambda: self._is_as_shown(expected, out), limit=self._limit)
        else:
            strict = "" if block.language == "console" else STRICT
            answer = self._ask(f"{strict} . {typed} </dev/null {to}; {LENIENT}; echo done")
            if answer != "done":
                printed = self._as_shown(out.read_text("utf-8"))
                raise Wrong(f"{block}: {answer}\n{printed}\n{err.read_text('utf-8')}")
        self._check(block, expected, out, err)

    def _is_as_shown(self, expected: str | None, out: Path) -> bool:
        return expected is None or matches(expected, self._as_shown(out.read_text("utf-8")))

    def _check(self, block: Block, expected: str | None, out: Path, err: Path) -> None:
        if complaints := self._as_shown(err.read_text("utf-8")):
            raise Wrong(f"{block}: complained:\n{complaints}")
        if not self._is_as_shown(expected, out):
            printed = self._as_shown(out.read_text("utf-8"))
            raise Wrong(f"{block}: the page shows\n{expected}\nbut there was\n{printed}")

    def close(self, *, in_peace: bool) -> None:
        """End what runs on, as a person does if it goes well.

        Raises:
            Wrong: that does not end, or not without a traceback; or something has been printed
                since it was looked at.
        """
        try:
            for shown in self._shown if in_peace else []:
                self._check(*shown)
            for block, pid, out, err in reversed(self._lasting if in_peace else []):
                mark = re.fullmatch(RUNS_ON, block.mark)
                assert mark is not None
                kill_group(pid, getattr(signal, mark["signal"] or "SIGINT"))
                status = self._ask(f"wait {pid}; echo status $?")
                text = self._as_shown(out.read_text("utf-8") + err.read_text("utf-8"))
                usual = {"status 0"} if mark["signal"] else {"status 0", "status 130"}
                wanted = {f"status {mark['status']}"} if mark["status"] else usual
                if status not in wanted or "Traceback" in text:
                    raise Wrong(f"{block}: ended with {status}\n{text}")
        finally:
            os.killpg(self._shell.pid, signal.SIGKILL)
            for _, pid, *_ in self._lasting:
                kill_group(pid)
            self._listening.join()  # it reads what the next one closes
            self._shell.communicate()


def kill_group(pid: int, number: int = signal.SIGKILL) -> None:
    """Send a process group a signal, if it is still there."""
    try:
        os.killpg(pid, number)
    except ProcessLookupError:
        return


def commands(console: str) -> tuple[str, str]:
    """What is typed of a `console` block, and what it shows as printed."""
    typed, printed, goes_on = [], [], False
    for line in console.splitlines():
        if line.startswith("$ ") or goes_on:
            typed.append(line.removeprefix("$ "))
            goes_on = line.endswith("\\")
        else:
            printed.append(line)
    return "\n".join(typed) + "\n", "\n".join(printed) + "\n"


# --- The reader ---


def with_what_they_show(blocks: list[Block]) -> Iterator[tuple[Block, Block | None]]:
    """Yield the blocks that are run or checked, each with the text of what it prints.

    Raises:
        Wrong: a text or a comment has nothing to belong to.
    """
    shown = None
    for block, following in zip(blocks, [*blocks[1:], None], strict=True):
        if block.mark.startswith("not run"):
            if block.language == "python":
                compile(block.code, str(block), "exec")
            continue
        if block.language == "text":
            if block is not shown:
                raise Wrong(f"{block}: of what is this the output?")
            continue
        if block.mark and block.language != "sh":
            raise Wrong(f"{block}: only a command can run on")
        has_output = following is not None and following.language == "text" and not following.mark
        shown = following if has_output and block.language in RUN else None
        yield block, shown


class Desk:
    """What a page needs to be followed: an empty folder, commands, and a network.

    Args:
        folder: for all of it.
        ports: by the port that pages show: the one of the test's server.
        authority: the file with the certificate of the servers' authority.

    Attributes:
        folder (Path): where the reader is.
        notes (Path): what is to be run, and what has been printed.
        network (Path): the folder that `on_path/sitecustomize.py` looks into.
        environment (dict[str, str]): of what is run.
    """

    def __init__(self, folder: Path, ports: dict[int, int], authority: Path) -> None:
        self.folder = folder / "reader"
        self.notes = folder / "notes"
        self.network = folder / "network"
        self._bin = folder / "bin"
        for made in (self.folder, self.notes, self._bin, self.network):
            made.mkdir()
        for nominal, real in ports.items():
            (self.network / str(nominal)).write_text(str(real))
        self.environment = {
            **{name: os.environ[name] for name in ("HOME", "TMPDIR") if name in os.environ},
            "LC_ALL": "C.UTF-8",
            "PATH": os.pathsep.join(
                (str(self._bin), sysconfig.get_path("scripts"), os.environ["PATH"])
            ),
            "PYTHONPATH": str(HERE / "on_path"),
            "PYTHONDEVMODE": "1",
            "PYTHONUNBUFFERED": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONIOENCODING": "utf-8",
            "PAGES_NETWORK": str(self.network),
            "REQUESTS_CA_BUNDLE": str(authority),
            "SSL_CERT_FILE": str(authority),
            "CURL_CA_BUNDLE": str(authority),
            "NETRC": str(folder / "no-netrc"),
            "QT_QPA_PLATFORM": "offscreen",
            # Plugins of others take longer to load than the tests of a page to run.
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
            "PYTEST_ADDOPTS": "-p _eventsource_pytest -p no:cacheprovider --strict-markers -W error",
        }
        self._make_commands()

    def _make_commands(self) -> None:
        """`python` and `pip`, which install nothing, and make environments that are this one."""
        python = self._bin / "python"
        python.write_text(
            "#!/bin/sh\n"
            'case "$1 $2 $3" in\n'
            f'"-m pip install") shift 3; exec "{sys.executable}" "{HERE}/pip_install.py" "{ROOT}" "$@";;\n'
            f'"-m venv "*) "{sys.executable}" -m venv --without-pip "$3" && '
            f'ln -sf "{python}" "$3/bin/python" && ln -sf "{python}" "$3/bin/python3"; exit;;\n'
            f'esac\nexec "{sys.executable}" "$@"\n'
        )
        pip = self._bin / "pip"
        pip.write_text(f'#!/bin/sh\nexec "{python}" -m pip "$@"\n')
        curl = self._bin / "curl"
        if real := shutil.which("curl"):
            curl.write_text(
                "#!/bin/sh\n"
                f'for port in "{self.network}"/*; do\n'
                'set -- --connect-to ":${port##*/}:127.0.0.1:$(cat "$port")" "$@"\n'
                f'done\nexec {real} "$@"\n'
            )
        for command in self._bin.iterdir():
            command.chmod(0o755)
        (self._bin / "python3").symlink_to(python)

    def for_toolkit(
        self, toolkit: str, display: Callable[[], str]
    ) -> tuple[str, dict[str, str]] | None:
        """The Python that has a toolkit, and its environment; None if none has it."""
        python = python_with(toolkit)
        if python is None:
            return None
        modules = str(pure_modules(self.notes))
        environment = {
            **self.environment,
            "PYTHONPATH": f"{HERE / 'on_path'}{os.pathsep}{modules}",
        }
        del environment["PYTHONDEVMODE"]  # not all toolkits are without fault
        if toolkit in ON_SCREEN:
            environment["DISPLAY"] = display()
        return python, environment


class Reader:
    """Follows one page in a folder that is empty.

    Args:
        folder, ports, authority: as of `Desk`.
        display: gives the name of an X display.
        limit: seconds to wait for what the page shows.
    """

    def __init__(
        self,
        folder: Path,
        ports: dict[int, int],
        authority: Path,
        display: Any,
        limit: float = LIMIT,
    ) -> None:
        self._desk = desk = Desk(folder, ports, authority)
        self._display = display
        self._limit = limit
        self._terminal = Terminal(desk.folder, desk.notes, desk.environment, self._as_shown, limit)
        self._steps: list[dict[str, Any]] = []
        self._missing: list[str] = []  # what some blocks need

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._terminal.close(in_peace=kind is None)

    def follow(self, blocks: list[Block]) -> None:
        """Do what the blocks say.

        Raises:
            Wrong: it did not come out as they say.
            pytest.skip.Exception: all was right, but for blocks that need what is not here.
        """
        tested = {block.heading for block in blocks if block.has_tests and not block.title}
        tests = [
            block
            for block in blocks
            if block.language == "python"
            and not block.title
            and not block.mark
            and block.heading in {*tested, f"{block.file.name}#"}
        ]
        for block, shown in with_what_they_show(blocks):
            if block.language in DATA:
                self._look_at(block)
            elif block.included and block.included.startswith("examples/"):
                pass  # `tests/system/test_examples.py` runs them
            elif block.language != "python":
                self._do_steps()
                script, printed = block.code, shown and shown.code
                if block.language == "console":
                    script, printed = commands(block.code)
                self._terminal.type(block, script, expected=printed)
            elif block.title or block.heading in tested:
                if shown:
                    raise Wrong(f"{shown}: a file prints nothing, nor do tests")
                if block.title:
                    self._write(block)
            elif block.toolkit:
                self._do_steps()
                self._steps = self._step(block, shown)
                self._do_steps(block.toolkit)
            else:
                self._steps += self._step(block, shown)
        self._do_steps()
        if any(block.has_tests for block in tests):
            self._test(tests)
        if self._missing:
            unavailable(f"the rest of the page needs {', '.join(self._missing)}")

    def _as_shown(self, output: str) -> str:
        """Replace the ports that there are by those of the page; and see `NO_MATTER`."""
        output = NO_MATTER.sub("", output)
        for file in self._desk.network.iterdir():
            output = re.sub(rf":{file.read_text()}\b", f":{file.name}", output)
        return output

    def _look_at(self, block: Block) -> None:
        """Check data, and store it if it is a file."""
        if block.language == "js" and shutil.which("node") is None:
            self._missing.append("Node")
        else:
            check_data(block)
        if block.title:
            self._write(block)

    def _write(self, block: Block) -> None:
        assert block.title is not None
        path = self._terminal.folder() / block.title
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block.code, "utf-8")
        if block.language == "python":
            compile(block.code, str(block), "exec")

    @staticmethod
    def _step(block: Block, shown: Block | None) -> list[dict[str, Any]]:
        return [
            {
                "kind": kind,
                "code": part.code,
                "file": str(part.file),
                "line": part.line,
                "heading": block.heading,
                "start": f"{block.file.name}#",
            }
            for kind, part in (("python", block), ("text", shown))
            if part is not None
        ]

    def _do_steps(self, toolkit: str | None = None) -> None:
        """Run the Python blocks that have come together."""
        if not self._steps:
            return
        task = self._desk.notes / "steps.json"
        work = {"steps": self._steps, "limit": self._limit, "toolkit": toolkit}
        task.write_text(json.dumps(work), "utf-8")
        first, self._steps = self._steps[0], []
        python, environment = sys.executable, self._desk.environment
        if toolkit:
            found = self._desk.for_toolkit(toolkit, self._display)
            if found is None:
                self._missing.append(toolkit)
                return
            python, environment = found
        place = f"{first['file']}:{first['line']} ff."
        try:
            done = subprocess.run(
                [python, HERE / "session.py", task],
                cwd=self._terminal.folder(),
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=3 * LIMIT,
                check=False,
            )
        except subprocess.TimeoutExpired as expired:
            printed = (expired.stderr or b"").decode()
            raise Wrong(f"{place}: did not end\n{printed}") from None
        complaints = done.stderr.replace(QT_OFFSCREEN, "")
        if done.returncode or complaints or done.stdout:
            raise Wrong(f"{place}: ended with {done.returncode}\n{done.stdout}{complaints}")

    def _test(self, blocks: list[Block]) -> None:
        """Run the tests of a page, each on the line on which it stands there."""
        page = blocks[0].file
        # All of them: of two with the same name pytest sees one.
        count = sum(len(TEST.findall(block.code)) for block in blocks)
        lines: list[str] = []
        for block in blocks:
            lines += [""] * (block.line - len(lines))
            lines += block.code.splitlines()
        name = f"test_{page.stem.replace('-', '_').lower()}.py"
        (self._terminal.folder() / name).write_text("\n".join(lines) + "\n", "utf-8")
        command = f"python -m pytest -q {name}\n"
        self._terminal.type(blocks[0], command, expected=f"…\n{count} passed in …\n")


@functools.cache
def python_with(module: str) -> str | None:
    """This Python if it has the module, else the system's; None if neither."""
    for python in (sys.executable, "/usr/bin/python3"):
        code = f"import sys, {module}; assert sys.version_info >= (3, 11)"
        if shutil.which(python):
            done = subprocess.run([python, "-c", code], capture_output=True, check=False)
            if not done.returncode:
                return python
    return None


def pure_modules(folder: Path) -> Path:
    """A folder with this package and what it needs, for another Python than this one."""
    import certifi
    import charset_normalizer
    import idna
    import pyee
    import requests
    import typing_extensions
    import urllib3

    import eventsource

    modules = folder / "modules"
    if not modules.exists():
        modules.mkdir()
        for module in (charset_normalizer, idna, pyee, requests, urllib3, certifi, eventsource):
            (modules / module.__name__).symlink_to(Path(module.__file__).parent)
        (modules / "typing_extensions.py").symlink_to(typing_extensions.__file__)
    return modules
