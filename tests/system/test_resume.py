"""`ResumeFile` on a full disk, and in a process that is killed."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.support import LIMIT
from tests.unit.test_resume import names


@pytest.fixture
def path(tmp_path):
    return tmp_path / "place"


def run(program, *arguments):
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


WITHOUT_ROOM = """
import resource, sys
from eventsource import ResumeFile

file = ResumeFile(sys.argv[1])
file.save("7")
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    file.save("8" * 5000)
except OSError as error:
    print(error.strerror)
print(file.load())
file.save("9")
print(file.load())
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limit")
def test_a_disk_that_is_full_leaves_the_old_id(path):
    """It may have room for the first part of the new one."""
    assert run(WITHOUT_ROOM, path) == "File too large\n7\n9\n"


KILLED_AT_EACH_STEP = """
import os, signal, sys
from eventsource import ResumeFile

path = sys.argv[1]
steps = 0

def count_steps(last):
    "Return a tracer that kills this process before that instruction of the file's code."

    def trace(frame, event, _):
        global steps
        if frame.f_globals["__name__"] != ResumeFile.__module__:
            return None
        frame.f_trace_opcodes = True
        steps += event in ("opcode", "line")  # Python 3.12.1 tells of lines only
        if steps == last:
            os.kill(os.getpid(), signal.SIGKILL)
        return trace

    return trace

status = None
last = 0
while status != 0:
    last += 1
    file = ResumeFile(path)
    file.save("old")
    child = os.fork()
    if child == 0:
        sys.settrace(count_steps(last))
        file.save("new")
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    print(status, ResumeFile(path).load())
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_kill_at_any_step_leaves_the_old_id_or_the_new_one(path):
    *killed, done = run(KILLED_AT_EACH_STEP, path).splitlines()
    assert done == "0 new"
    assert {*killed} == {"-9 old", "-9 new"}
    assert killed == sorted(killed, reverse=True)  # first the old one, then the new one
    assert len(killed) > 4
    assert names(path.parent) == ["place"]  # what a kill has left is gone with the next save
