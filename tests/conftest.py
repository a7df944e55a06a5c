"""What every test is held to: no thread outlives it, no secret is logged. And a screen."""

from __future__ import annotations

import base64
import gc
import inspect
import logging
import os
import select
import shutil
import signal
import subprocess
import threading
import traceback

import hypothesis
import pytest

from . import on_loop, support
from .support import LIMIT, QUERY_SECRET, SECRET, unavailable, wait_until


def _forms(secret: str) -> set[str]:
    """As it is, and in base64 wherever it may begin in what is encoded."""
    encoded = (base64.b64encode(b"x" * n + secret.encode()).decode() for n in range(3))
    # Its first and last characters hold bits of the neighbours.
    return {secret, *(text[start:-4] for text, start in zip(encoded, (0, 2, 3), strict=True))}


_CREDENTIALS = _forms(SECRET)
_ALL = _CREDENTIALS | _forms(QUERY_SECRET)
OURS = "eventsource"
WATCHED = (OURS, "requests", "urllib3", "asyncio", "concurrent", "pyee", "py", "root")
"""The loggers that are watched, by the first part of their names. A server's own, which
logs what it was sent, is not among them."""


def secrets_in(text: str, *, queries: bool = True) -> set[str]:
    """The planted secrets that a text shows, in whatever form."""
    return {form for form in (_ALL if queries else _CREDENTIALS) if form in text}


class LogWatch:
    """Sees all that the watched loggers are told, whatever their levels and handlers.

    It takes the place of two methods of `logging.Logger`. So levels stay as they are, and
    what pytest's `caplog` or a program's handlers get is what they would get without it.
    """

    def __init__(self) -> None:
        self._found: list[str] = []
        self._is_enabled_for = logging.Logger.isEnabledFor
        self._call_handlers = logging.Logger.callHandlers

    def install(self) -> None:
        watch = self

        def is_enabled_for(logger: logging.Logger, level: int) -> bool:
            return watch.covers(logger.name) or watch._is_enabled_for(logger, level)

        def call_handlers(logger: logging.Logger, record: logging.LogRecord) -> None:
            if watch.covers(logger.name):
                watch.examine(record)
            if watch._is_enabled_for(logger, record.levelno):
                watch._call_handlers(logger, record)

        logging.Logger.isEnabledFor = is_enabled_for
        logging.Logger.callHandlers = call_handlers

    def remove(self) -> None:
        logging.Logger.isEnabledFor = self._is_enabled_for
        logging.Logger.callHandlers = self._call_handlers

    @staticmethod
    def covers(name: str) -> bool:
        return name.partition(".")[0] in WATCHED

    def examine(self, record: logging.LogRecord) -> None:
        texts = [record.getMessage(), repr(record.args), record.threadName or ""]
        if record.exc_info and record.exc_info[1] is not None:
            texts += traceback.format_exception(record.exc_info[1])
        if record.stack_info:
            texts.append(record.stack_info)
        ours = record.name.partition(".")[0] == OURS
        found = secrets_in("\n".join(texts), queries=ours)
        if found:
            level, thread = record.levelname, record.threadName
            self._found.append(f"{found} in {level} of {record.name} ({thread}): {texts[0]!r}")

    def take(self) -> list[str]:
        """What has been found since the last call."""
        found, self._found = self._found, []
        return found


SYSTEM = "tests/system"


def pytest_addoption(parser):
    parser.addoption(
        "--all",
        action="store_true",
        help="all examples of the property tests, tests that take long and, unless files are named,"
        f" those that need other processes, which are in {SYSTEM} (and the extra `test-all`)",
    )


def pytest_configure(config):
    config.addinivalue_line("markers", "long: takes about a second or more, and runs with --all")
    support.runs_all = config.getoption("all")
    if support.runs_all and config.args_source is config.ArgsSource.TESTPATHS:
        config.args.append(str(config.rootpath / SYSTEM))


def pytest_collection_modifyitems(config, items):
    is_default = config.args_source is config.ArgsSource.TESTPATHS and not config.option.keyword
    if is_default and not support.runs_all:
        for item in items:
            if item.get_closest_marker("long"):
                item.add_marker(pytest.mark.skip(reason="takes long: --all runs it"))


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem):
    """A test that is a coroutine function runs on an event loop of its own."""
    test = pyfuncitem.obj
    if not inspect.iscoroutinefunction(test):
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in inspect.signature(test).parameters}
    on_loop.run(lambda: test(**arguments))
    return True


@pytest.fixture(scope="session", autouse=True)
def programs_can_be_interrupted():
    """Also if a shell has started the tests in the background, or nohup has.

    Then they ignore a signal, and so would each program that they start.
    """
    before = {signal.SIGINT: signal.signal(signal.SIGINT, signal.default_int_handler)}
    if hasattr(signal, "SIGHUP"):  # not on Windows
        before[signal.SIGHUP] = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(scope="session")
def log_watch():
    watch = LogWatch()
    watch.install()
    yield watch
    watch.remove()


@pytest.fixture(autouse=True)
def no_secret_is_logged(log_watch):
    # Named so that it is set up before, and ends after, the one that waits for threads.
    yield
    assert log_watch.take() == []


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport():
    """A planted secret on stdout or stderr fails the test."""
    report = yield
    output = [section for section in report.sections if section[0].startswith("Captured std")]
    found = [title for title, text in output if secrets_in(text)]
    if found and report.passed:
        report.outcome = "failed"
        report.longrepr = f"a planted secret appears: {', '.join(found)}"
    return report


def _own_threads() -> set[threading.Thread]:
    return {t for t in threading.enumerate() if t.name.startswith(("eventsource", "sse-"))}


@pytest.fixture(scope="session")
def hypothesis_has_its_random_numbers():
    """Made in the first property test, with a warning if the collector finds no reference to them.

    It finds none in what is frozen. With a seed they are made as hypothesis makes them
    where `CI` is set.
    """

    @hypothesis.seed(0)
    @hypothesis.settings(max_examples=1, database=None)
    @hypothesis.given(hypothesis.strategies.none())
    def nothing_is_asserted(_):
        pass

    nothing_is_asserted()


@pytest.fixture(scope="module", autouse=True)
def the_collector_passes_over_what_is_pytests_own(hypothesis_has_its_random_numbers):
    """Many tests call it, and it would look at each report of all tests before."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def nothing_left_behind():
    before = _own_threads()
    yield
    wait_until(lambda: not (_own_threads() - before), f"threads to end: {_own_threads() - before}")


@pytest.fixture(scope="session", autouse=True)
def no_netrc_or_proxies(tmp_path_factory):
    """The machine's own settings have no say in the tests."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
            patch.delenv(name, raising=False)
            patch.delenv(name.upper(), raising=False)
        for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
            patch.delenv(name, raising=False)
        patch.setenv("NETRC", str(tmp_path_factory.getbasetemp() / "no-netrc"))
        yield


@pytest.fixture(scope="session")
def display():
    """The name of an X display: the user's, else that of a server without a screen."""
    if os.environ.get("DISPLAY"):
        yield os.environ["DISPLAY"]
        return
    xvfb = shutil.which("Xvfb")
    if xvfb is None:
        unavailable("there is no DISPLAY, and Xvfb is not installed")
    receiving, sending = os.pipe()
    options = ["-screen", "0", "1024x768x24", "-nolisten", "tcp", "-noreset"]
    with subprocess.Popen(
        [xvfb, "-displayfd", str(sending), *options], pass_fds=[sending], stderr=subprocess.DEVNULL
    ) as server:
        os.close(sending)
        try:
            with os.fdopen(receiving, encoding="ascii") as numbers:
                assert select.select([numbers], [], [], LIMIT)[0], "Xvfb does not start"
                number = numbers.readline().strip()
                assert number, "Xvfb has ended"
            yield f":{number}"
        finally:
            server.terminate()
