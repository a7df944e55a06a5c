"""The sockets of an exchange among green threads, and after a fork."""

from __future__ import annotations

import importlib.util
import os
import socket
import subprocess
import sys

import pytest

from tests.loopback.http.test_sockets import dead
from tests.support import (
    LIMIT,
    unavailable,
)


@pytest.fixture
def listener():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


GREEN = {
    "gevent": "import gevent.monkey; gevent.monkey.patch_all()",
    "eventlet": "import eventlet; eventlet.monkey_patch()",
}


GREEN_RACE = """
import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # eventlet says that it is no longer developed
    {patch}
import socket, sys, threading, time
from eventsource.errors import Aborted
from eventsource.http import sockets as module

first, second, port = map(int, sys.argv[1:])
module.ATTEMPT_DELAY_SECONDS = 0.01

def racing(*ports):
    sockets = module.Sockets()
    found = [(socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", p)) for p in ports]
    sockets.look_up = lambda *_: found
    return sockets

sockets = racing(first, second, port)
sock = sockets.connect_to("some.host", 80, None, [])
print(sock.getpeername()[1] == port, len(sockets._duplicates))
sock.close()
sockets.release()

sockets = racing(first, second)

def shut_down():
    while len(sockets._duplicates) < 2:  # the other thread goes on while that waits
        time.sleep(0.01)
    sockets.shut_down()

thread = threading.Thread(target=shut_down)
thread.start()
try:
    sockets.connect_to("some.host", 80, None, [])
except Aborted:
    print("aborted", len(sockets._duplicates))
thread.join()
"""


@pytest.mark.parametrize("stack", GREEN)
def test_addresses_race_and_can_be_shut_down_among_green_threads(stack, listener):
    if importlib.util.find_spec(stack) is None:
        unavailable(f"needs {stack}")
    with dead(2) as addresses:
        ports = [port for _, port in [*addresses, listener.getsockname()]]
        done = subprocess.run(
            [sys.executable, "-c", GREEN_RACE.format(patch=GREEN[stack]), *map(str, ports)],
            # Else eventlet imports whatever dnspython finds.
            env={**os.environ, "EVENTLET_NO_GREENDNS": "yes"},
            check=False,
            capture_output=True,
            text=True,
            timeout=LIMIT,
        )
    assert (done.stdout, done.stderr) == ("True 1\naborted 0\n", "")


FORKED = """
import os, socket, threading
from eventsource.http.sockets import Sockets

asked, answer = threading.Event(), threading.Event()

def hang(host, port, family=0, kind=0, protocol=0, flags=0):
    if flags:
        raise socket.gaierror("no number")
    asked.set()
    answer.wait()

socket.getaddrinfo = hang
threading.Thread(target=Sockets().look_up, args=("some.host", 80, None), daemon=True).start()
asked.wait()
child = os.fork()
if not child:
    socket.getaddrinfo = lambda host, port, *_: [host] if _[-1] == 0 else hang(host, port, *_)
    os._exit(Sockets().look_up("some.host", 80, 20.0) != ["some.host"])
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
os._exit(0)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_in_the_child_of_a_fork_no_look_up_is_under_way():
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORKED],
        check=False,
        capture_output=True,
        text=True,
        timeout=LIMIT * 2,
    )
    assert (done.stdout, done.stderr) == ("0\n", "")
