"""Runs the probes: each client in a process of its own, each probe in a fork of that."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import multiprocessing.connection
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from . import clients
from .probes import PROBES
from .reading import PATIENCE
from .rows import FAILED, UNKNOWN, Probe, Unobservable, Verdict, together

Asked = tuple[Probe, clients.Client]
"""A probe, and the way of using a client that it tests."""
AT_ONCE = 12
"""Probes of one client at a time: most of them wait."""
LIMIT = 12 * PATIENCE
"""Seconds after which a probe has failed. A client that fails has a verdict long before."""
ROOT = Path(__file__).parents[2]


def observe_all(
    names: Iterable[str], only: Iterable[str] = (), patience: float = PATIENCE
) -> dict[str, dict[str, Verdict]]:
    """Observe these clients, all at the same time; return verdicts by client and probe.

    Args:
        names: distributions.
        only: names of probes; none: all.
        patience: seconds to wait for something before a probe decides that it does not come.

    Raises:
        RuntimeError: a process has ended without an answer.
    """
    with contextlib.ExitStack() as stack:
        running = {name: stack.enter_context(_asked([name, *only], patience)) for name in names}
        return {name: _verdicts(process) for name, process in running.items()}


@contextlib.contextmanager
def _asked(arguments: list[str], patience: float) -> Iterator[subprocess.Popen[str]]:
    # The settings of the machine must not change the result.
    environment = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
    process = subprocess.Popen(
        [sys.executable, "-m", __name__, *arguments],
        stdout=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
        cwd=ROOT,
        env=environment | {"NETRC": os.devnull, "EVENTSOURCE_PATIENCE": str(patience)},
        start_new_session=True,
    )
    try:
        with process:
            try:
                yield process
            finally:
                process.kill()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # its forks, if it was killed above


def _verdicts(process: subprocess.Popen[str]) -> dict[str, Verdict]:
    output, _ = process.communicate()
    if not output:
        raise RuntimeError(f"{process.args} ended with {process.returncode}")
    return {probe: Verdict(*verdict) for probe, verdict in json.loads(output).items()}


# --- The process of one client ---


def main(name: str, *only: str) -> None:
    """Observe one client, and write the verdicts to standard output as JSON."""
    answers = os.fdopen(os.dup(1), "w")
    _silence(1)  # some clients print
    client = next(client for client in clients.ALL if client.name == name)
    for way in client.ways():
        with contextlib.suppress(ImportError):  # of a way that needs more: its probes report that
            way.import_all()
    asked_of = {p: p.ways(client) for p in PROBES if not only or p.name in only}
    found: dict[Asked, Verdict] = {}
    waiting = [(probe, way) for probe, ways in asked_of.items() for way in ways]
    running: dict[Any, tuple[Asked, multiprocessing.process.BaseProcess, float]] = {}
    forks = multiprocessing.get_context("fork")
    while waiting or running:
        while waiting and len(running) < AT_ONCE:
            asked = waiting.pop(0)
            receiving, sending = forks.Pipe(duplex=False)
            process = forks.Process(target=_run, args=(*asked, sending))
            process.start()
            sending.close()
            running[receiving] = asked, process, time.monotonic() + LIMIT
        ready = multiprocessing.connection.wait(list(running), 1.0)
        for receiving, (asked, process, deadline) in list(running.items()):
            if receiving in ready:
                try:
                    found[asked] = receiving.recv()
                except EOFError:
                    found[asked] = Verdict(FAILED, "ended without a word")
            elif time.monotonic() > deadline:
                found[asked] = Verdict(FAILED, f"took more than {LIMIT} s")
            else:
                continue
            del running[receiving]
            process.kill()
            process.join()
    json.dump(
        {
            probe.name: together({way.way: found[probe, way] for way in ways})
            for probe, ways in asked_of.items()
        },
        answers,
    )
    answers.close()


def _silence(descriptor: int) -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)


def _run(probe: Probe, way: clients.Client, sending: Any) -> None:
    """Run one probe, in the fork."""
    _silence(2)  # logs of clients, and tracebacks of their threads
    try:
        verdict = probe.check(way)
    except Unobservable as error:
        verdict = Verdict(UNKNOWN, str(error))
    except BaseException:  # the test reports it
        verdict = Verdict(FAILED, traceback.format_exc())
    sending.send(verdict)
    sending.close()
    os._exit(0)  # even if threads of the client are still running


if __name__ == "__main__":
    main(*sys.argv[1:])
