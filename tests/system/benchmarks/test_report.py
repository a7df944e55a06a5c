"""The document: losses first, each bar with its limit, and no bar met by default."""

from __future__ import annotations

import re
import shlex
import sys

import pytest

if sys.platform != "linux":
    pytest.skip("the benchmarks look into Linux's /proc", allow_module_level=True)

import eventsource
from benchmarks import __main__ as command
from benchmarks import inputs, measure, peers, report
from benchmarks.__main__ import arguments
from benchmarks.measure import Cell, Closing, Idle, Latency, Start
from benchmarks.processes import Problem

BEST = "launchdarkly-eventsource"
APIS = ("EventSource", *report.OTHERS)


def results(*, rounds=1, **measured):
    settings = measure.Settings(
        rounds=rounds, tables=measure.TABLES, names=inputs.FULL, rows=peers.ALL
    )
    return measure.Results(settings, **measured)


def cells(ours, best=100.0, **more):
    """Rates: of each API of ours, of the best Python peer, of a slower one, and of Node."""
    apis = {name: Cell([ours]) for name in APIS}
    theirs = {BEST: Cell([best]), "sseclient": Cell([best / 2]), "npm eventsource": Cell([best])}
    return {**apis, **theirs, **{name: Cell([rate]) for name, rate in more.items()}}


def document(**measured):
    return report.document(results(**measured), {"date": "today"}, [], "python -m benchmarks")


def section(text, title):
    """The lines below a heading, up to the next one of its level."""
    level = title.partition(" ")[0]
    found = re.search(
        rf"^{re.escape(title)}\n(.*?)(?=^{level} |\Z)", text, re.MULTILINE | re.DOTALL
    )
    assert found is not None, title
    return found[1]


def unmet(**measured):
    """The rows of the table of bars that are not met, as lists of cells."""
    lines = section(document(**measured), "## Bars not met").splitlines()
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in lines
        if line.startswith("|")
    ][2:]


def test_what_is_lost_comes_before_everything_else():
    text = document(client={("http", "event", "llm"): cells(90.0)})
    headings = re.findall(r"^## (.*)", text, re.MULTILINE)
    assert headings[:4] == [
        "Bars not met",
        "Where others are faster",
        "How it was measured",
        "The bar",
    ]
    assert "| " not in text.partition("## Bars not met")[0]


@pytest.mark.parametrize(
    ("framing", "name", "least"),
    [
        ("event", "llm", 2.7),
        ("event", "ticks", 3.5),
        ("event", "wikimedia", 1.6),
        ("event", "logs", 1.6),
        ("16k", "llm", 1.5),
        ("16k", "16mb", 1.5),
        ("plain", "llm", 1.6),
        ("plain", "ticks", 1.6),
    ],
)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_the_bar_of_the_whole_client(scheme, framing, name, least):
    place = scheme, framing, name
    assert unmet(client={place: cells(least * 100)}) == []
    [[what, required, measured]] = unmet(client={place: cells(least * 100 - 2, sseclient=1e-3)})[:1]
    assert ("TLS" in what) == (scheme == "https")
    assert inputs.TITLES[name] in what
    assert what.endswith(f"/ {BEST}")
    assert required == f"≥ {least}"
    assert measured == f"EventSource {least - 0.02:.2f}, EventStream {least - 0.02:.2f}"


@pytest.mark.parametrize("api", report.OTHERS)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_the_bar_of_each_api_against_ours(scheme, api):
    place = scheme, "16k", "llm"
    assert unmet(client={place: {**cells(1000.0), api: Cell([801.0])}}) == []
    [[what, required, measured]] = unmet(client={place: {**cells(1000.0), api: Cell([790.0])}})
    assert what.endswith("/ EventSource")
    assert (required, measured) == ("≥ 0.8", f"{api} 0.79")


@pytest.mark.parametrize("api", report.OTHERS)
def test_the_bar_of_each_api_against_the_python_peers(api):
    place = "http", "16k", "llm"
    assert unmet(client={place: {**cells(170.0), api: Cell([151.0])}}) == []
    [[what, required, measured]] = unmet(client={place: {**cells(170.0), api: Cell([149.0])}})
    assert what.endswith(f"/ {BEST}")
    assert (required, measured) == ("≥ 1.5", f"{api} 1.49")


LEAD = f"TLS, 16 KiB chunks, llm / {BEST}, by the same without TLS".replace(
    "llm", inputs.TITLES["llm"]
)


def leads(over, without, *, api="EventSource", **more):
    """Rates of one API over TLS and without it, by round; the best Python peer has always 100."""
    hundred = Cell([100.0] * len(over))
    return {
        ("http", "16k", "llm"): {**cells(1000.0), api: Cell([*without]), BEST: hundred, **more},
        ("https", "16k", "llm"): {**cells(1000.0), api: Cell([*over]), BEST: hundred},
    }


@pytest.mark.parametrize("api", APIS)
def test_the_bar_of_tls_is_the_lead_without_it(api):
    """Only what is behind in every round is beyond the spread between them."""

    def missed(over, without):
        rows = unmet(client=leads(over, without, api=api))
        return [row[1:] for row in rows if row[0] == LEAD]

    assert missed([1000.0, 900.0], [1000.0, 1000.0]) == []
    assert missed([1000.0, 900.0], [900.0, 1000.0]) == []
    lost = f"{api} 0.85 (0.80{report.TO}0.90)"
    assert missed([800.0, 900.0], [1000.0, 1000.0]) == [["≥ 1", lost]]


def test_the_lead_over_tls_is_held_against_that_over_the_same_peer():
    """Another peer may be the best without TLS."""
    client = leads([800.0], [1000.0], sseclient=Cell([500.0]))
    assert [LEAD, "≥ 1", "EventSource 0.80"] in unmet(client=client)


def test_rounds_that_one_of_both_does_not_have_are_left_out_of_the_lead_over_tls():
    client = leads([None, 800.0, 700.0], [1000.0, 1000.0, None])
    assert [LEAD, "≥ 1", "EventSource 0.80"] in unmet(client=client)


def test_an_api_of_ours_that_has_a_problem_over_tls_has_lost_its_lead():
    client = leads([800.0], [1000.0])
    client["https", "16k", "llm"]["EventSource"] = Cell(problem=Problem("wrong"))
    assert [LEAD, "≥ 1", "EventSource wrong"] in unmet(client=client)


def test_without_a_row_without_tls_there_is_no_such_bar():
    text = document(client={("https", "16k", "llm"): cells(1000.0)})
    assert re.search(r"^\| lead over TLS: .* \| not measured +\|$", text, re.MULTILINE)


@pytest.mark.parametrize("parser", report.PARSERS)
@pytest.mark.parametrize("name", inputs.FULL)
def test_the_bar_of_the_parser_on_every_input_with_comments_or_without(parser, name):
    enough = {name: Cell([150.0]) for name in report.PARSERS}
    assert unmet(parser={name: {**enough, BEST: Cell([100.0])}}) == []
    column = {**enough, parser: Cell([149.0]), BEST: Cell([100.0])}
    [[what, required, measured]] = unmet(parser={name: column})
    assert what == f"parser, {inputs.TITLES[name]} / {BEST}"
    assert (required, measured) == ("≥ 1.5", f"{parser} 1.49")


@pytest.mark.parametrize("face", report.FACES)
@pytest.mark.parametrize("framing", measure.LATENCY_FRAMINGS)
@pytest.mark.parametrize("scheme", measure.SCHEMES)
def test_the_bar_of_latency(scheme, framing, face):
    def latencies(median, p99):
        found = {name: Latency(Cell([100.0]), Cell([200.0])) for name in cells(1.0)}
        found[face] = Latency(Cell([median]), Cell([p99]))
        return {(scheme, framing): found}

    assert unmet(latency=latencies(100.0, 220.0)) == []
    rows = unmet(latency=latencies(101.0, 222.0))
    assert [row[1:] for row in rows] == [["≤ 1", f"{face} 1.01"], ["≤ 1.1", f"{face} 1.11"]]
    assert all(("TLS" in row[0]) == (scheme == "https") for row in rows)


def test_the_bars_of_an_idle_source_count_the_row_with_a_name_and_a_time_limit():
    other = "EventSource (event_timeout and localhost)"

    def idles(size, threads):
        return {"http": {"EventSource": Idle(48_000, 1.0), other: Idle(size, threads)}}

    assert unmet(memory=idles(48_000, 1.0)) == []
    assert unmet(memory=idles(48_100, 1.1)) == [
        [f"idle, {other}", "≤ 48 kB", "EventSource 48.1 kB"],
        [f"idle, {other}", "1 thread", "EventSource 1.10"],
    ]


def test_the_bars_of_the_start_and_of_closing():
    def start(milliseconds):
        return {"EventSource": Start(Cell([90.0]), Cell([milliseconds]))}

    assert unmet(start=start(10.0)) == []
    assert [row[1:] for row in unmet(start=start(10.1))] == [["≤ 10 ms", "EventSource 10.1 ms"]]
    assert unmet(closing={"EventStream": Closing([0.009])}) == []
    late = {"EventStream": Closing([0.009, 0.011])}
    assert [row[1:] for row in unmet(closing=late)] == [["< 10 ms", "EventStream 11 ms"]]


def test_an_api_of_ours_that_has_a_problem_has_not_reached_the_bar():
    column = {**cells(400.0), "SSEClient": Cell(problem=Problem("wrong", note="1 of 2 events"))}
    rows = unmet(client={("http", "event", "llm"): column})
    assert [row[2] for row in rows] == ["SSEClient wrong", "SSEClient wrong"]


def test_a_bar_that_was_not_measured_is_not_met():
    text = document()
    assert "None was measured." in section(text, "## Bars not met")
    verdicts = [line for line in section(text, "## The bar").splitlines() if line.startswith("|")]
    assert len(verdicts) > 10
    assert all(re.search(r"\| not measured +\|$", line) for line in verdicts[2:])


def test_ratios_are_taken_within_each_round():
    column = {**cells(1.0), "EventSource": Cell([300.0, 100.0]), BEST: Cell([100.0, 10.0])}
    text = document(client={("http", "event", "llm"): column})
    assert f"6.50 (3.00{report.TO}10.00)" in section(text, "### Bar: whole client, plain")


@pytest.mark.parametrize(
    ("rounds", "what"),
    [
        (1, "that of the only round"),
        (2, "the mean of both rounds"),
        (3, "the median of the rounds"),
        (5, "the median of the rounds"),
    ],
)
def test_the_document_says_how_many_rounds_there_were_and_what_is_shown_of_them(rounds, what):
    column = {**cells(1.0), "EventSource": Cell([300.0] * rounds)}
    text = document(
        rounds=rounds,
        client={("http", "event", "llm"): column},
        parser={"llm": column},
        latency={("http", "event"): {BEST: Latency(Cell([1.0]), Cell([1.0]))}},
        start={BEST: Start(Cell([1.0]))},
    )
    said = re.findall(
        r"the median of the rounds|the mean of both rounds|that of the only round", text
    )
    assert said == [what] * 6  # of losses, of all, of the bars, parsers, latency and start
    assert f"In each round (of {rounds})" in text


@pytest.mark.parametrize(
    "words",
    ["", "--rounds 2 --inputs ticks,llm", "--quick --only parser,tls --peers 'npm undici'"],
)
def test_the_document_names_the_command_that_made_it(monkeypatch, tmp_path, words):
    output = tmp_path / "page.md"
    monkeypatch.setattr(sys, "argv", ["benchmarks", *shlex.split(words), "--output", str(output)])
    monkeypatch.setattr(command, "available", lambda *_: ([], None, []))
    monkeypatch.setattr(measure.Run, "everything", lambda run: run.results)
    assert command.main() == 0
    whole = f"python -m benchmarks {words}".strip()
    assert f"Made by `{whole}` in a clone" in output.read_text()


def test_the_version_of_this_package_is_that_of_the_code(monkeypatch):
    """What is installed beside the checkout may be older."""
    monkeypatch.setattr("importlib.metadata.version", lambda _: "0.0.1")
    assert report.machine()["eventsource-client"] == eventsource.__version__


def losses(**measured):
    return section(document(**measured), "## Where others are faster")


def test_every_api_and_every_peer_is_among_what_is_lost():
    place = "https", "16k", "llm"
    column = {**cells(200.0, best=100.0), "SSEClient": Cell([90.0])}
    lines = losses(client={place: column}).splitlines()
    rows = [line for line in lines if "/ npm eventsource" in line or f"/ {BEST}" in line]
    assert len(rows) == 2
    for row in rows:
        assert row.startswith("| TLS, 16 KiB chunks, LLM tokens /")
        shown = [cell.strip() for cell in row.strip("|").split("|")]
        assert shown[1:] == ["", "", "", "", "0.90"]
    assert "/ sseclient " not in "".join(lines)


def test_the_raw_socket_is_nobody_who_wins():
    column = {**cells(200.0), "raw socket": Cell([1e6])}
    assert "raw socket" not in losses(client={("http", "16k", "llm"): column})


def test_less_latency_memory_and_time_are_among_what_is_lost():
    text = losses(
        latency={
            ("https", "event"): {
                "EventSource": Latency(Cell([20.0]), Cell([10.0])),
                "npm undici": Latency(Cell([10.0]), Cell([20.0])),
            }
        },
        memory={"https": {"EventSource": Idle(200.0), BEST: Idle(100.0)}},
        closing={"EventSource": Closing([0.002]), BEST: Closing([0.001])},
        start={
            "EventSource": Start(Cell([9.0]), Cell([2.0]), {"http": Cell([2.0])}),
            BEST: Start(Cell([9.0]), Cell([1.0]), {"http": Cell([1.0])}),
        },
    )
    rows = [line.split("|")[1].strip() for line in text.splitlines() if " / " in line]
    assert rows == [
        "latency, TLS, one HTTP chunk per event, median / npm undici",
        f"idle, TLS, memory / {BEST}",
        f"`close()`, median / {BEST}",
        f"import, alone / {BEST}",
        f"to the request, plain / {BEST}",
    ]
    assert text.count(" 2.00 ") == 5


def test_where_nobody_is_better_the_document_says_so():
    assert "Nowhere" in losses(client={("http", "event", "llm"): cells(400.0)})


@pytest.mark.parametrize("name", measure.TABLES)
def test_every_table_can_be_had_alone(monkeypatch, name):
    monkeypatch.setattr(sys, "argv", ["benchmarks", "--only", name])
    assert arguments().only == (name,)


def test_a_table_that_does_not_exist_is_refused(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["benchmarks", "--only", "speed"])
    with pytest.raises(SystemExit):
        arguments()
    assert "--only: 'speed' is none of parser, client, tls" in capsys.readouterr().err
