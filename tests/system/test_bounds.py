"""The memory of a process whose server sends without end."""

from __future__ import annotations

import json
import sys

import pytest

from eventsource.testing import ScriptedServer
from tests.loopback.test_bounds import MIB, in_pieces, without_end
from tests.support import HEAD, run_python, stream

CHILD = """
import json, sys
from eventsource import EventStream
def peak():
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
url, bound = sys.argv[1], int(sys.argv[2])
with EventStream(url + "little", reconnect=None) as events:
    list(events)  # so that all is loaded
before = peak()
with EventStream(url, max_event_size=bound, reconnect=None) as events:
    outcome = [type(getattr(item, "error", item)).__name__ for item in events]
print(json.dumps([outcome[1], peak() - before]))
"""


EMOJI = "\N{GRINNING FACE}".encode()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
    ("start", "piece", "end", "outcome", "times"),
    [
        (b"data: ", b"x", None, "EventTooLarge", 2),
        (b"data: ", EMOJI, None, "EventTooLarge", 2),
        (b"", b"data: " + b"x" * 57 + b"\n", None, "EventTooLarge", 2),
        (b"data: ", b"x", b"\n\n", "MessageEvent", 3),
        (b"data: ", EMOJI, b"\n\n", "MessageEvent", 3),
        (b"data: " + EMOJI, b"x", b"\n\n", "MessageEvent", 6),  # four bytes a character
    ],
    ids=["a line", "emoji", "lines", "a whole line", "whole emoji", "a whole line and one emoji"],
)
def test_the_memory_of_the_process_stays_near_the_bound(start, piece, end, outcome, times):
    bound = 8 * MIB

    def answer(connection):
        if connection.number == 0:
            stream(b"data: x\n\n")(connection)
        elif end is None:
            without_end(HEAD + start, in_pieces(piece), total=3 * bound)(connection)
        else:
            without_end(HEAD + start, in_pieces(piece), total=bound * 15 // 16)(connection)
            connection.send(end)

    with ScriptedServer(answer) as server:
        done = run_python(CHILD, server.url, bound)
    assert done.returncode == 0, done.stderr
    came, grown = json.loads(done.stdout)
    assert came == outcome
    assert grown < times * bound, f"{grown / bound:.2f} times the bound"
