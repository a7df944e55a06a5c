"""`EventStream` under a storm of signals."""

from __future__ import annotations

import functools
import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

from eventsource.testing import ScriptedServer
from tests.interruption import WAYS
from tests.support import (
    HEAD,
    numbers,
)


def resumed(connection, last):
    """The numbered events after the one that the client has, up to the last, a few at a time."""
    first = int(connection.read_request().header("Last-Event-ID") or 0) + 1
    connection.send(HEAD)
    while first <= last:
        count = random.randint(1, 4)
        connection.send(numbers(min(count, last + 1 - first), start=first))
        first += count
        connection.pause(0.003)
    connection.hold()


@pytest.mark.skipif(sys.platform != "linux", reason="counts descriptors as Linux lists them")
@pytest.mark.timeout(120)
@pytest.mark.parametrize("way", WAYS)
def test_a_storm_of_exceptions_of_a_signal_handler_loses_nothing_and_leaves_nothing(way):
    last, seed = 1000, random.randrange(2**32)
    print(f"seed {seed}")
    with ScriptedServer(functools.partial(resumed, last=last)) as server:
        done = subprocess.run(
            [sys.executable, "-m", "tests.interruption", server.url, way, str(last), str(seed)],
            cwd=Path(__file__).parents[2],
            capture_output=True,
            check=False,
            text=True,
            timeout=100,
        )
    assert done.returncode == 0, done.stderr
    found, raised, before, after = json.loads(done.stdout)
    assert found == list(range(1, last + 1))
    assert raised > last / 10
    assert after == before
