"""`EventSource` on an event loop, in programs that end."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from eventsource.testing import ScriptedServer
from tests.support import numbers, run_python, stream

LEAVING = """
import asyncio, sys
from eventsource import EventSource, dispatch

def leave(event):
    raise SystemExit(3)

async def leave_later(event):
    raise SystemExit(3)

async def main():
    global source
    asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
    handler = {"plain": leave, "coroutine": leave_later}[sys.argv[2]]
    source = EventSource(sys.argv[1], on_message=handler, dispatch=dispatch.asyncio())
    await asyncio.sleep(60)

try:
    asyncio.run(main())
except SystemExit as left:
    print(left.code, source.join(30), source.error)
"""


CLOSING_ITS_LOOP = """
import asyncio, sys
from eventsource import EventSource, dispatch
from tests.support import queue_of

async def wait_for_ever(event):
    await asyncio.get_running_loop().create_future()

async def main():
    source = EventSource(
        sys.argv[1], on_message=wait_for_ever, dispatch=dispatch.asyncio(), max_waiting=5
    )
    while not queue_of(source).reader_waits:
        await asyncio.sleep(0.001)
    return source

loop = asyncio.new_event_loop()
source = loop.run_until_complete(main())
loop.close()
print(source.join(30), source.error)
"""


def run_with_server(program, *arguments, flags=()):
    checkout = Path(__file__).parents[2]
    with ScriptedServer(stream(numbers(50), then="hold")) as server:
        return run_python(program, server.url, *arguments, flags=flags, cwd=checkout)


@pytest.mark.skipif(not hasattr(asyncio, "eager_task_factory"), reason="new in Python 3.12")
@pytest.mark.parametrize("kind", ["plain", "coroutine"])
def test_a_system_exit_under_an_eager_task_factory_closes_the_source(kind):
    done = run_with_server(LEAVING, kind)
    assert done.stdout == "3 True closed: SystemExit\n", done.stderr


def test_a_loop_that_is_closed_with_a_handler_left_in_it_closes_the_source():
    expected = "True closed: the event loop that runs its handlers has been closed\n"
    done = run_with_server(CLOSING_ITS_LOOP)
    assert done.stdout == expected, done.stderr


ENDING = """
import asyncio, sys
from eventsource import EventSource, dispatch

async def handler(event):
    pass

def stop(event):
    asyncio.get_running_loop().stop()  # before the task of the handler that follows begins

async def start():
    source = EventSource(sys.argv[1], start=False, dispatch=dispatch.asyncio())
    source.on("message", stop)
    source.on("message", handler)
    source.start()
    return source

loop = asyncio.new_event_loop()
source = loop.run_until_complete(start())
loop.run_forever()
tasks = asyncio.all_tasks(loop)
assert len(tasks) == 2, tasks
"""


ENDINGS = {
    "as asyncio.run ends": """
for task in tasks:
    task.cancel()
loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
loop.close()
""",
    "a loop that is closed": "loop.close()",
    "nothing": "",
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_program_that_ends_while_events_come_leaves_no_coroutine(ending):
    done = run_with_server(ENDING + ENDINGS[ending], flags=["-X", "dev"])
    assert done.returncode == 0, done.stderr
    assert "never awaited" not in done.stderr
    if ending == "as asyncio.run ends":
        assert "destroyed" not in done.stderr
