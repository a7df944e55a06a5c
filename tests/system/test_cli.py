"""The command as a process: its pipes, its signals, its disk, its terminal."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from eventsource import __version__
from eventsource.cli.failures import Exit
from eventsource.testing import ScriptedServer
from tests.loopback.test_cli import FULL, HI, Done, needs_full
from tests.support import LIMIT, run_python, status, stream, wait_until
from tests.terminal import environment

_started = []


@pytest.fixture(autouse=True)
def no_process_is_left():
    """Not by a test that has failed or was interrupted either."""
    yield
    while _started:
        process = _started.pop()
        process.kill()
        process.wait(LIMIT)


def start(*arguments, line=None, **options):
    """Start the command as a process; with `line`, by the shell, whose `"$@"` it is."""
    for name in ("stdin", "stdout", "stderr"):
        options.setdefault(name, subprocess.DEVNULL if name == "stdin" else subprocess.PIPE)
    command = [sys.executable, "-m", "eventsource", *arguments]
    if line is not None:
        command = ["sh", "-c", line, "sh", *command]
    process = subprocess.Popen(command, env=environment(), **options)
    _started.append(process)
    return process


def finish(process):
    """Wait for a process; return what it has come to."""
    out, err = process.communicate(timeout=LIMIT)
    return Done(process.returncode, out or b"", (err or b"").decode())


def test_a_named_pipe_is_an_output_too(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    with ScriptedServer(stream(HI, then="hold")) as server:
        process = start("--format", "data", "-n", "1", "-o", str(path), server.url)
        with path.open("rb") as pipe:
            assert pipe.read() == b"hi\n"
        assert finish(process).status == 0


def test_events_are_written_as_they_come(tmp_path):
    path = tmp_path / "events"
    with ScriptedServer(stream(HI, then="hold")) as server:
        process = start("--format", "data", "-o", str(path), server.url)
        wait_until(lambda: path.exists() and path.read_bytes() == b"hi\n")
        process.terminate()
        done = finish(process)
    assert (done.status, done.out, done.err) == (Exit.TERMINATED, b"", "")


@needs_full
def test_a_full_disk_under_standard_output_and_standard_error():
    with ScriptedServer(stream(HI, then="hold")) as server, FULL.open("w") as full:
        done = finish(start(server.url, stdout=full))
        assert done.status == Exit.NO_OUTPUT
        assert done.err == "eventsource: standard output: No space left on device\n"
        done = finish(start("-v", "-n", "1", "--format", "data", server.url, stderr=full))
        assert (done.status, done.out) == (0, b"hi\n")
    with FULL.open("w") as full:
        assert finish(start("--help", stdout=full)).status == Exit.NO_OUTPUT
        done = finish(start("--version", stdout=full))
    assert (done.status, done.err) == (
        Exit.NO_OUTPUT,
        "eventsource: standard output: No space left on device\n",
    )


def test_a_closed_standard_output():
    with ScriptedServer(stream(HI, then="hold")) as server:
        done = finish(start(server.url, line='exec "$@" >&-'))
    assert (done.status, done.out) == (Exit.NO_OUTPUT, b"")
    assert done.err == "eventsource: standard output: Bad file descriptor\n"
    assert server.requests == []


def test_a_closed_standard_error_gets_nothing_into_the_output():
    with ScriptedServer(stream(HI, then="hold"), status("404 Not Found")) as server:
        arguments = ["-v", "-n", "1", "--format", "data", server.url]
        done = finish(start(*arguments, line='exec "$@" 2>&-'))
        assert (done.status, done.out) == (0, b"hi\n")
        done = finish(start(server.url, line='exec "$@" 2>&-'))
        assert (done.status, done.out) == (Exit.STATUS, b"")


def assert_closed_pipe_ends(process, first):
    """That the reader of its output goes away after the first line ends it quietly."""
    assert first in process.stdout.readline()
    process.stdout.close()
    process.wait(LIMIT)
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.returncode == Exit.PIPE_CLOSED


def test_a_pipe_that_is_closed_ends_it_at_once_though_the_stream_is_silent():
    with ScriptedServer(stream(HI * 2, then="hold")) as server:
        assert_closed_pipe_ends(start("--format", "data", server.url), b"hi\n")


def test_head_gets_its_line():
    with ScriptedServer(stream(HI * 2, then="hold")) as server:
        done = finish(start("--format", "data", server.url, line='"$@" | head -n 1'))
    assert done == Done(0, b"hi\n", "")


def test_help_into_a_closed_pipe():
    for option in ("--help", "--version"):
        receiving, sending = os.pipe()
        os.close(receiving)
        done = finish(start(option, stdout=sending))
        os.close(sending)
        assert (done.status, done.err) == (Exit.PIPE_CLOSED, "")


def test_the_demo_into_a_closed_pipe():
    assert_closed_pipe_ends(start("demo"), b"server")


def test_a_signal_that_is_ignored_remains_so():
    with ScriptedServer(stream(HI, then="hold")) as server:
        process = start("--format", "data", server.url, line="trap '' HUP INT; exec \"$@\"")
        assert process.stdout.readline() == b"hi\n"
        process.send_signal(signal.SIGHUP)
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGTERM)
        done = finish(process)
    assert done == Done(Exit.TERMINATED, b"", "")


@pytest.mark.parametrize("before", ["", "del os.O_NOCTTY"], ids=["here", "as on Windows"])
def test_without_a_terminal_no_password_is_asked_for(before):
    """`test_cli_terminal.py` has what becomes of it with one."""
    program = f"import os, sys; {before}\nfrom eventsource import cli; sys.exit(cli.main())"
    options = {"stdin": subprocess.DEVNULL, "start_new_session": True}
    done = run_python(program, "-u", "ada", "http://localhost/", **options)
    said = "eventsource: -u: no password after the colon, and no terminal to ask at"
    assert (done.returncode, done.stdout) == (Exit.USAGE, "")
    assert done.stderr.startswith(said)


def test_without_the_extra_the_demo_is_there(monkeypatch):
    code = (
        "import sys; sys.modules['click'] = sys.modules['rich'] = None;"
        "from eventsource import cli; from eventsource.cli import demo; demo.main = lambda: 7;"
        "sys.argv = ['eventsource', 'demo']; sys.exit(cli.main())"
    )
    assert run_python(code).returncode == 7


def test_the_module_and_the_script_are_the_same_command():
    script = Path(sys.executable).with_name("eventsource")
    for program in ([sys.executable, "-m", "eventsource"], [str(script)]):
        with ScriptedServer(stream(HI, then="hold")) as server:
            command = [*program, "-n1", "--format=data", server.url]
            assert subprocess.check_output(command, timeout=LIMIT) == b"hi\n"
        version = subprocess.check_output([*program, "--version"], timeout=LIMIT)
        assert version.decode() == f"eventsource {__version__}\n"
