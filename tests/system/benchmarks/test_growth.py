"""The commands `benchmarks.growth`, `.idle` and `.instructions`: that they work and count right.

What they measure is not looked at: no test depends on how fast anything is.
"""

from __future__ import annotations

import queue
import re
import shutil
import socket
import sys

import pytest

from eventsource.testing import ScriptedServer
from tests.support import wait_until

if sys.platform != "linux":
    pytest.skip("they look into Linux's sockets and /proc", allow_module_level=True)

from benchmarks import growth, idle, instructions
from benchmarks.lockstep import Lookout
from benchmarks.processes import Problem
from benchmarks.sections import replace_section

HAS_VALGRIND = shutil.which("valgrind") is not None


@pytest.fixture
def connected():
    """The two ends of a connection on loopback: of the client and of the server."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()) as client,
        listener.accept()[0] as server,
    ):
        server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield client, server


@pytest.fixture
def lookout():
    """A `Lookout`, closed afterwards."""
    lookout = Lookout()
    yield lookout
    lookout.close()


class Looks:
    """An `is_over` that ends a wait when it has been asked so many times."""

    def __init__(self, most):
        self.asked = 0
        self._most = most

    def __call__(self):
        self.asked += 1
        return self.asked > self._most


class TestLookout:
    def test_it_tells_how_many_bytes_the_client_has_not_read(self, connected, lookout):
        client, server = connected
        server.sendall(b"x" * 77)
        while lookout.unread(server) < 77:  # they may be under way
            pass
        assert client.recv(50) == b"x" * 50
        assert lookout.unread(server) == 27
        client.recv(50)
        assert lookout.unread(server) == 0

    def test_it_waits_while_anything_is_unread(self, connected, lookout):
        _, server = connected
        server.sendall(b"x")
        looks = Looks(3)
        lookout.wait_until_read(server, looks)
        assert looks.asked == 4

    def test_it_does_not_wait_when_all_has_been_read(self, connected, lookout):
        client, server = connected
        server.sendall(b"x")
        assert client.recv(10) == b"x"
        lookout.wait_until_read(server)

    def test_a_socket_that_is_not_there_is_an_error(self, lookout):
        class Gone:
            def getpeername(self):
                return "127.0.0.1", 1

            def getsockname(self):
                return "127.0.0.1", 2

        with pytest.raises(FileNotFoundError):
            lookout.unread(Gone())


class TestSections:
    PAGE = "before\n<!-- idle: made by a command -->\n\nold\n\n<!-- end of idle -->\nafter\n"

    def test_what_stands_between_the_marks_is_replaced(self, tmp_path):
        page = tmp_path / "page.md"
        page.write_text(self.PAGE)
        replace_section(page, "idle", "new")
        assert page.read_text() == self.PAGE.replace("old", "new")

    @pytest.mark.parametrize("without", ["<!-- idle: ", "-->\n\nold", "<!-- end of idle -->"])
    def test_a_page_without_the_marks_is_left_as_it_is(self, tmp_path, without):
        page = tmp_path / "page.md"
        page.write_text(broken := self.PAGE.replace(without, ""))
        with pytest.raises(ValueError, match=r"page.md has no section 'idle'"):
            replace_section(page, "idle", "new")
        assert page.read_text() == broken


class TestInstructions:
    DUMP = """\
fn=(1) main
0 10
cfn=(2) recv@@GLIBC_2.2.5
calls=3 0
0 60
cfn=(3) malloc
calls=9 0
0 90
fn=(3)
0 90
cfn=(2)
calls=4 0
0 80
totals: 330
"""

    def test_reads_and_instructions_are_taken_from_what_valgrind_wrote(self, tmp_path):
        path = tmp_path / "out.2"
        path.write_text(self.DUMP)
        assert instructions.read_dump(path) == (330, 7)

    @pytest.mark.parametrize("name", [*instructions.STEPS])
    def test_each_step_reads_once_for_each_event(self, name):
        step = instructions.STEPS[name]
        pytest.importorskip(step.module)
        calls = instructions.count_calls(step, 4)
        reads = [call for call in calls if call.startswith("C socket.recv")]
        assert len(reads) == 4

    def test_what_is_noted_is_what_events_cost_and_nothing_else(self):
        assert instructions.count_calls(instructions.STEPS["`recv`"], 4) == ["C socket.recv"] * 4

    def test_the_handler_is_called_once_for_each_event(self):
        calls = instructions.count_calls(instructions.STEPS["`EventSource`, one handler"], 4)
        assert sum(call.endswith(".handle") for call in calls) == 4

    def test_reads_that_bring_more_than_an_event_are_refused(self, monkeypatch):
        calls = [*["C socket.recv"] * 3, "C len"]
        monkeypatch.setattr(instructions, "_run", lambda *_, **__: calls)
        with pytest.raises(Problem) as caught:
            instructions.count_calls(instructions.STEPS["`recv`"], 4)
        assert caught.value.note == "3 reads for 4 events"

    def test_a_step_that_fails_is_told_in_its_row(self, monkeypatch, capsys):
        def fail(*_):
            raise Problem("error", note="exit 1", detail="Traceback")

        monkeypatch.setattr(shutil, "which", lambda _: "valgrind")
        monkeypatch.setattr(instructions, "measure", fail)
        assert instructions.main(["--only", "`recv`"]) == 1
        told = capsys.readouterr()
        assert "| `recv` | error exit 1 |" in told.out
        assert "Traceback" in told.err

    def test_without_valgrind_it_says_so(self, monkeypatch, capsys):
        monkeypatch.setattr(shutil, "which", lambda _: None)
        assert instructions.main([]) == 0
        assert capsys.readouterr().out == (
            "benchmarks.instructions: skipped: there is no valgrind\n"
        )

    @pytest.mark.skipif(not HAS_VALGRIND, reason="needs valgrind")
    @pytest.mark.timeout(300)
    def test_the_command_prints_a_table(self, capsys):
        # The one that imports nothing of ours, which under valgrind takes half a minute.
        assert instructions.main(["--only", "`recv`", "--events", "5", "--calls"]) == 0
        printed = capsys.readouterr().out
        row = re.fullmatch(r"\| `recv` \| ([\d,]+) \|  \| 0\.0 \| 1\.0 \|", printed.splitlines()[2])
        assert row is not None, printed
        assert int(row[1].replace(",", "")) > 100  # of an event: no call takes fewer
        assert "\n    C socket.recv\n" in printed

    def test_the_table_tells_what_each_step_adds(self):
        costs = {
            "`recv`": instructions.Cost(2000.0, 0.0, 0.0, 1.0, []),
            "`ChunkedBody.feed(recv)`": instructions.Cost(7500.4, 0.0, 1.0, 8.5, []),
        }
        assert instructions.table(costs).splitlines()[2:] == [
            "| `recv` | 2,000 |  | 0.0 | 1.0 |",
            "| `ChunkedBody.feed(recv)` | 7,500 | 5,500 | 1.0 | 8.5 |",
        ]


class TestIdle:
    @pytest.mark.timeout(120)
    @pytest.mark.parametrize("over", ["", "--tls"])
    def test_the_command_prints_a_table(self, capsys, over):
        if over:
            pytest.importorskip("trustme")
            pytest.importorskip("certifi")
        arguments = ["--sources", "5", "--seconds", "0.05", *([over] if over else [])]
        assert idle.main(arguments) == 0
        rows = [line.split(" | ") for line in capsys.readouterr().out.splitlines()[2:]]
        name = "| 5 over TLS" if over else "| 5"
        assert [row[0] for row in rows] == [name, f"{name}, `event_timeout`"]
        assert [row[1] for row in rows] == ["1.00", "1.00"]  # a thread each

    def test_a_source_that_does_not_open_is_an_error(self, answer_404):
        with pytest.raises(RuntimeError, match="a source did not open: .*404"):
            idle.measure(url=answer_404, sources=1, seconds=0, event_timeout=None, ca=None)

    def test_an_event_while_all_should_be_silent_is_an_error(self, an_event_too_many, monkeypatch):
        class Patient(queue.SimpleQueue):
            """Has nothing until both events of the second source are here."""

            waits = iter([1, 2])

            def get(self, timeout=None):
                count = next(self.waits, 1)
                wait_until(lambda: self.qsize() >= count)
                return super().get(timeout=timeout)

        monkeypatch.setattr(idle.queue, "SimpleQueue", Patient)
        with pytest.raises(RuntimeError, match="not silent: .*'2'"):
            idle.measure(url=an_event_too_many, sources=1, seconds=0, event_timeout=None, ca=None)

    def test_what_is_left_is_an_error(self, monkeypatch, capsys):
        reply = dict.fromkeys(("threads", "files", "bytes", "cpu", "open", "close"), 1.0)
        monkeypatch.setattr(idle.Child, "ask", lambda *_, **__: {**reply, "left": 1, "http": 1})
        assert idle.main(["--sources", "1", "--seconds", "0"]) == 1
        told = capsys.readouterr()
        assert "1 threads or descriptors are left" in told.err
        assert "| 1 |" not in told.out

    def test_no_more_sources_than_there_are_descriptors(self, monkeypatch):
        monkeypatch.setattr(idle, "raise_file_limit", lambda: 1100)
        assert idle.fit(5000) == 500
        assert idle.fit(20) == 20


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"


@pytest.fixture
def answer_404():
    """The URL of a server that has no stream."""

    def script(connection):
        connection.read_request()
        connection.send(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")

    with ScriptedServer(*[script] * 2) as server:
        yield server.url


@pytest.fixture
def an_event_too_many():
    """The URL of a server that sends one event on the first connection and two on the second."""

    def answer(body):
        def script(connection):
            connection.read_request()
            connection.send(HEAD + body)
            connection.hold()

        return script

    with ScriptedServer(answer(b"data: 0\n\n"), answer(b"data: 1\n\ndata: 2\n\n")) as server:
        yield server.url


class TestGrowth:
    @pytest.mark.parametrize(
        ("kind", "amount", "parts"),
        [
            ("bytes", 3, [b"b\r\ndata: xxx\n\n\r\n"] * 2),
            ("wide", 4, ["c\r\ndata: éé\n\n\r\n".encode()] * 2),
            ("lines", 101, [b"74\r\ndata: %b\ndata: x\n\n\r\n" % (b"x" * 100)] * 2),
            (
                "types",
                2,
                [
                    b"76\r\nevent: t0\ndata: %b\n\n\r\n" % growth.TEXT,
                    b"76\r\nevent: t1\ndata: %b\n\n\r\n" % growth.TEXT,
                ],
            ),
        ],
    )
    def test_what_is_sent(self, kind, amount, parts):
        assert [*growth.parts_of(kind, amount, 2)] == parts

    @pytest.mark.timeout(120)
    def test_the_command_writes_tables_and_a_picture(self, capsys, tmp_path):
        pytest.importorskip("matplotlib")
        assert growth.main(["--quick", "--output", str(tmp_path)]) == 0
        printed = capsys.readouterr().out
        text = (tmp_path / "growth.md").read_text()
        assert text == printed
        picture = (tmp_path / "growth.svg").read_text()
        for panel in growth.PANELS.values():
            assert f"**{panel.title}**" in text
            assert panel.title in picture
        measured = growth.series(quick=True)
        rows = [line for line in text.splitlines() if re.match(r"\| [\d,]+ \|", line)]
        amounts = {(line.panel, amount) for line in measured for amount in line.amounts}
        assert len(rows) == len(amounts)

    def test_each_row_is_compared_with_the_first_and_the_rounds_with_each_other(self):
        costs = [[20e-6, 25e-6, 22e-6], [30e-6, 60e-6, 45e-6]]
        one, ten = (growth.cheapest([growth.Cost(c, c, c) for c in each]) for each in costs)
        lines = {"a": {1: one, 10: ten}, "b": {1: ten, 10: one}}
        assert growth.text_of({"sources": lines}) == (
            "**Sources with traffic**\n"
            "\n"
            "| sources | a, µs per event | b, µs per event "
            "| a, times the first row | b, times the first row |\n"
            "| ---: | ---: | ---: | ---: | ---: |\n"
            "| 1 | 20 | 30 | 1.00 | 1.00 |\n"
            "| 10 | 30 | 20 | 1.50 | 0.67 |\n"
            "\n"
            "Noise, the dearest round by the cheapest, which is shown: "
            "1.62 (median of the points), 2.00 at most."
        )

    def test_the_rounds_go_over_all_points_one_after_the_other(self, monkeypatch):
        """So a slow minute is not that of one point alone."""
        asked = []

        def measure(_, line, amount):
            asked.append((line.name, amount))
            return growth.Cost(cost := next(costs), cost / 2, cost * 3)

        costs = iter([4.0, 1.0, 2.0, 3.0])
        monkeypatch.setattr(growth, "measure", measure)
        line = growth.Series(
            panel="types", name="some", kind="types", amounts=(2, 5), events=lambda _: 4
        )
        results = growth.measure_all([line], 2)
        assert asked == [("some", 2), ("some", 5)] * 2
        assert results == {
            "types": {
                "some": {2: growth.Cost(2.0, 1.0, 6.0, 2.0), 5: growth.Cost(1.0, 0.5, 3.0, 3.0)}
            }
        }

    def test_a_line_can_have_another_switch_interval(self):
        line = next(each for each in growth.series(quick=True) if each.switch_interval is not None)
        assert line.name.endswith("`setswitchinterval(1)`")
        before = sys.getswitchinterval()
        try:
            growth.Client().open(
                url="", sources=0, types=(), listeners=0, switch_interval=line.switch_interval
            )
            assert sys.getswitchinterval() == 1.0
        finally:
            sys.setswitchinterval(before)

    @pytest.mark.timeout(60)
    def test_calls_that_are_missing_are_an_error(self, capsys, monkeypatch):
        line = growth.Series(
            panel="types", name="lost", kind="types", amounts=(2,), events=lambda _: 4,
            event_types=lambda _: ("t1",),
        )  # fmt: skip
        monkeypatch.setattr(growth, "series", lambda **_: [line])
        assert growth.main(["--only", "types"]) == 1
        told = capsys.readouterr()
        assert "types, lost, 2: 2 calls of handlers, not 4" in told.err
        assert told.out == ""

    def test_a_trial_does_not_overwrite_the_documentation(self, capsys):
        with pytest.raises(SystemExit):
            growth.main(["--quick"])
        assert "--quick needs --output" in capsys.readouterr().err
