"""The options of `eventsource check`, and the order of its steps."""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import click
from rich.text import Text
from urllib3.exceptions import InsecureRequestWarning

from eventsource.cli.command import Command, run_command
from eventsource.cli.ending import Ending
from eventsource.cli.failures import Exit, Stop
from eventsource.cli.output import STANDARD_OUTPUT, Output, descriptor
from eventsource.cli.requesting import (
    as_curl,
    asking,
    connect_timeout,
    request_options,
    seconds,
    with_scheme,
)
from eventsource.cli.screen import Screen, Status, terminal
from eventsource.urls import redact

from . import findings, resuming, showing, timing
from .finding import PROBLEM, Finding
from .observing import Observation, accepts_coding
from .strip import Strip
from .watching import Watch

SAFE: Final = ("GET", "HEAD")
"""Methods whose requests may be repeated."""

HELP = """Watch the event stream at URL for a while, and say what is wrong with it.

\b
  eventsource check https://example.com/stream
  eventsource check --seconds 150 https://example.com/stream
  eventsource check --format json URL | jq '.findings[] | select(.level == "problem")'

Each finding has a level (ok, note, problem), figures, and what to do about it. A connection that
is lost is made again within half a second, at most twenty times; then the stream is resumed after
an event that came before, within ten seconds. What is no GET is sent once.
"""

EXIT_STATUSES = """Exit statuses: 0 without a problem, 1 with one, also if the answer is an error or
no event stream. If there was no answer: those of `eventsource --help` (6, 7, 28, 35, 60, ...).
"""


@click.command(
    cls=Command,
    help=HELP,
    epilog=EXIT_STATUSES,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.argument("url", metavar="URL")
@asking
@connect_timeout
@click.option(
    "--seconds",
    "duration",
    type=float,
    callback=seconds,
    default=30.0,
    metavar="SECONDS",
    help="How long to watch. 30 by default.",
)
@click.option("--no-resume", is_flag=True, help="Do not try to resume the stream.")
@click.option(
    "--format",
    "format_",
    type=click.Choice(["text", "json"]),
    default="text",
    help="text: a line or two for each finding. json: one object.",
)
@as_curl
def command(
    url: str, duration: float, no_resume: bool, format_: str, _curl: bool, **request: Any
) -> None:
    """Observe the stream as the options say, and report the findings."""
    options = request_options(**request)
    url = with_scheme(url)
    observation = Observation(
        url=redact(url),
        is_once=options["method"].upper() not in SAFE,
        asked_for_coding=accepts_coding(options["headers"]),
        is_verified=options["verify"] is not False,
        seconds=duration,
    )
    strip = Strip(duration, is_unicode=_is_unicode())
    try:
        watch = Watch(url, options, observation, strip.mark)
    except (TypeError, ValueError) as error:  # an argument, which the message names
        raise Stop(Exit.USAGE, str(error)) from None
    with contextlib.ExitStack() as stack:
        if not observation.is_verified:  # asked for by --insecure
            stack.enter_context(warnings.catch_warnings())
            warnings.simplefilter("ignore", InsecureRequestWarning)
        stack.callback(watch.close)
        ending = stack.enter_context(Ending(watch.close))
        output = Output(stack.enter_context(descriptor(None)), STANDARD_OUTPUT, ending)
        stack.enter_context(ending.at_signals())
        stack.enter_context(output.watched())
        console = terminal(1) if format_ == "text" else None
        progress = _Progress(watch, strip)
        screen = None
        if console is not None:
            screen = stack.enter_context(Screen(console, output, ending, progress))
        report = _Report(functools.partial(_tell, output, screen, format_), watch)
        stop = _check(watch, ending, report, progress, may_resume=not no_resume)
        if screen is not None and observation.connections:
            screen.print(Text.assemble(" " * 9, strip.draw(duration), "  ", strip.legend()))
        cut = "" if stop is None else f", interrupted after {observation.watched:.1f} s"
        summary = f"{showing.summary(report.findings)}{cut}\n"
        if screen is not None:
            screen.print(Text(summary.rstrip()))
            screen.flush()
        elif format_ == "json":
            output.write(showing.as_json(observation.url, report.findings, observation))
        else:
            output.write(summary.encode())
    if stop is not None:
        raise stop
    has_problem = any(finding.level == PROBLEM for finding in report.findings)
    raise Stop(Exit.FAILED if has_problem else Exit.DONE)


def run(arguments: Sequence[str]) -> int:
    """Run the command; return the exit status."""
    return run_command(command, arguments, "eventsource check")


class _Progress(Status):
    """The line below the findings: the present step, and the time line."""

    def __init__(self, watch: Watch, strip: Strip) -> None:
        super().__init__()
        self._watch = watch
        self._strip = strip
        self.doing = "connecting"

    def line(self) -> Text:
        now = self._watch.now()
        duration = self._watch.observation.seconds
        head = f"{min(now, duration):.0f} s of {duration:g}"
        return Text.assemble((self.doing, "bold"), f" {head} ", self._strip.draw(now))


class _Report:
    """The findings so far. Each is printed as soon as it is made."""

    def __init__(self, tell: Callable[[Finding], object], watch: Watch) -> None:
        self.findings: list[Finding] = []
        self._tell = tell
        self._watch = watch

    def add(self, found: Iterable[Finding | None]) -> None:
        for finding in found:
            if finding is not None:
                finding = showing.without(self._watch.secrets, finding)  # noqa: PLW2901
                self.findings.append(finding)
                self._tell(finding)


def _tell(output: Output, screen: Screen | None, format_: str, finding: Finding) -> None:
    if screen is not None:
        screen.print(showing.on_terminal(finding))
        screen.flush()
    elif format_ == "text":
        output.write(showing.as_text(finding).encode("utf-8", "backslashreplace"))


def _check(
    watch: Watch, ending: Ending, report: _Report, progress: _Progress, *, may_resume: bool
) -> Stop | None:
    """Add the findings to the report.

    Returns:
        A signal's request for the end: what was seen before it is reported. None: there was none.
    """
    observation = watch.observation
    try:
        watch.begin()
    finally:
        ending.check()  # if the end was asked for before, that is the reason
    assert observation.head is not None
    report.add(findings.of_head(observation.head, observation))
    progress.doing = "watching"
    watch.go_on()
    stop = ending.take_signal() if observation.connections else None
    ending.check()
    if not observation.connections:
        return None
    buffering = timing.buffering(observation)
    report.add(
        (
            timing.latency(observation),
            timing.compression(observation),
            None if observation.unreadable else buffering,
            timing.rate(observation),
            timing.heartbeat(observation),
            findings.ids(observation),
            findings.retry(observation),
            *findings.format_(observation),
            timing.ended(observation),
        )
    )
    if observation.is_once or not may_resume:
        return stop
    plan = resuming.plan(observation)
    if isinstance(plan, str) and observation.unreadable:
        return stop
    if stop is not None:
        report.add((resuming.untold("the check was interrupted"),))
    elif isinstance(plan, str):
        report.add((resuming.untold(plan),))
    elif buffering.level == PROBLEM:
        report.add((resuming.untold("events are held back on the way", "See buffering first."),))
    else:
        progress.doing = "resuming"
        answer = watch.resume(plan)
        stop = ending.take_signal()
        ending.check()
        interrupted = resuming.untold("the check was interrupted")
        report.add((resuming.resume(plan, answer) if stop is None else interrupted,))
    return stop


def _is_unicode() -> bool:
    console = terminal(1)
    return console is not None and console.encoding.lower().startswith("utf")
