"""A server of tests in a program that ends without closing it."""

from __future__ import annotations

import subprocess
import sys

from tests.support import LIMIT


def test_a_server_that_is_never_closed_lets_the_program_end_in_silence():
    program = (
        "import atexit, socket, sys\n"
        "from eventsource import EventSource\n"
        "from eventsource.testing import SSEServer\n"
        "server = SSEServer()\n"
        "source = EventSource(server.url, on_message=print)\n"
        "server.wait_for_connection()\n"
        "def late():\n"
        "    with socket.create_connection(('127.0.0.1', server.port), 30) as client:\n"
        "        client.sendall(b'GET / HTTP/1.1\\r\\n\\r\\n')\n"
        "        client.recv(1)\n"  # Python 3.12 starts no thread any more
        "atexit.register(late)\n"
        "sys.exit(3)\n"
    )
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-c", program],
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (3, "", "")
