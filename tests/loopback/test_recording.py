"""Recordings: what their lines say, what is refused, and how they are played."""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import random

import pytest
import requests

from eventsource import (
    BrokenBody,
    ErrorEvent,
    EventSource,
    EventStream,
    EventStreamParser,
    MessageEvent,
    OpenEvent,
    ReadyState,
    ReconnectPolicy,
    SSEClient,
    StreamEnded,
    UnexpectedStatus,
)
from eventsource.recording import (
    End,
    Loss,
    Opening,
    Received,
    Recording,
    RecordingWriter,
    read_recording,
)
from eventsource.testing import Recorder, SSEServer
from eventsource.testing.replay import MAX_UNKNOWN, Replay
from tests.conftest import secrets_in
from tests.support import LIMIT, QUERY_SECRET, QUICK, SECRET

FIRST = {
    "recording": "eventsource",
    "version": 1,
    "url": "https://example.com/",
    "started": "2030-01-01T00:00:00Z",
}
FIELDS = {"Content-Type": "text/event-stream", "X-Request-Id": "42"}


def opening(at=0.0, **changes):
    line = {"at": at, "type": "open", "status": 200, "url": "https://example.com/"}
    return line | {"framing": "chunked", "headers": FIELDS} | changes


def received(at, text):
    return {"at": at, "type": "bytes", "text": text}


def lost(at, *, in_order=False, retry_in=0.5):
    return {"at": at, "type": "lost", "reason": "gone", "in_order": in_order, "retry_in": retry_in}


def end(at):
    return {"at": at, "type": "end", "reason": "done", "status": 0}


def connections(*texts):
    """Records of connections that bring a text each; all but the last one are lost."""
    records = [record for text in texts for record in (opening(), received(0.0, text), lost(0.0))]
    return [record for record in records[:-1] if record.get("text") != ""]


def lines(*records):
    return b"".join(json.dumps(record).encode() + b"\n" for record in (FIRST, *records))


@pytest.fixture
def file(tmp_path):
    """Make a file of these bytes, or of a recording of these records."""

    def make(*records):
        path = tmp_path / f"{len([*tmp_path.iterdir()])}.jsonl"
        path.write_bytes(records[0] if isinstance(records[0], bytes) else lines(*records))
        return path

    return make


# --- Reading ---


def test_a_recording_is_read_as_it_was_written(tmp_path):
    path = tmp_path / "recording.jsonl"
    headers = requests.structures.CaseInsensitiveDict(FIELDS | {"Transfer-Encoding": "chunked"})
    with path.open("wb") as to:
        writer = RecordingWriter(to.write, "https://example.com/", FIRST["started"])
        writer.opened(0.25, OpenEvent("open", "https://example.com/x", 200, headers))
        writer.received(0.5, "data: é\u2028日本\x85\n\n".encode())
        writer.received(0.75, b"data: \xff\0\n\n")
        loss = ErrorEvent("error", BrokenBody("cut"), ReadyState.CONNECTING, 3.0)
        writer.lost(1.0, loss, reason="cut", goes_on=True)
        ended = ErrorEvent("error", StreamEnded("over"), ReadyState.CLOSED, None)
        writer.lost(2.0, ended, reason="over", goes_on=False)
        writer.ended(3.0, "done", 0)
    assert read_recording(path) == Recording(
        "https://example.com/",
        FIRST["started"],
        (
            Opening(0.25, 200, "https://example.com/x", "chunked", dict(headers)),
            Received(0.5, "data: é\u2028日本\x85\n\n".encode()),
            Received(0.75, b"data: \xff\0\n\n"),
            Loss(1.0, "cut", False, 3.0),
            Loss(2.0, "over", True, None),
            End(3.0, "done", 0),
        ),
        is_torn=False,
    )
    assert len(path.read_text("utf-8").splitlines()) == 7  # that of Python, which knows U+2028


@pytest.mark.parametrize(
    ("fields", "framing"),
    [
        ({"Transfer-Encoding": "Chunked"}, "chunked"),
        ({"Content-Length": "9"}, "length"),
        ({}, "close"),
    ],
)
def test_the_framing_is_what_the_header_fields_say(fields, framing):
    written = []
    writer = RecordingWriter(written.append, "https://example.com/", "")
    headers = requests.structures.CaseInsensitiveDict(fields)
    writer.opened(0.0, OpenEvent("open", "https://example.com/", 200, headers))
    assert json.loads(written[-1])["framing"] == framing


def test_no_secret_is_written():
    written = []
    url = f"https://user:{SECRET}@example.com/?key={QUERY_SECRET}"
    writer = RecordingWriter(written.append, url, "")
    fields = {
        "Set-Cookie": f"id={SECRET}",
        "X-Auth-Token": SECRET,
        "Content-Location": url,
        "Link": f'<{url}>; rel="next"',
        "X-Plain": "is kept",
    }
    headers = requests.structures.CaseInsensitiveDict(fields)
    writer.opened(0.0, OpenEvent("open", url, 200, headers))
    error = ErrorEvent("error", ConnectionError(), ReadyState.CLOSED, None)
    writer.lost(1.0, error, reason=f"gone from {url}", goes_on=False)
    writer.ended(2.0, f"{url}: gone", 1)
    assert secrets_in(b"".join(written).decode()) == set()
    assert json.loads(written[1])["headers"]["X-Plain"] == "is kept"
    assert "Set-Cookie" not in json.loads(written[1])["headers"]


def test_a_torn_last_line_is_left_out_and_said(file, caplog):
    whole = lines(opening(), received(0.1, "data: 1\n\n"))
    torn = whole + lines(received(0.2, "data: é\n\n"))[len(lines()) :]
    for cut in range(len(whole) + 1, len(torn) - 1):
        caplog.clear()
        path = file(torn[:cut])
        recording = read_recording(path)
        assert recording.is_torn
        assert [type(record) for record in recording.records] == [Opening, Received]
        assert caplog.messages == [f"{path}: line 4 is truncated and left out"]
        path.unlink()


def test_a_last_line_without_a_line_end_is_whole(file, caplog):
    recording = read_recording(file(lines(opening(), end(1.0))[:-1]))
    assert not recording.is_torn
    assert isinstance(recording.records[-1], End)
    assert caplog.messages == []


def test_a_recording_that_was_killed_has_no_end(file):
    assert read_recording(file(opening())).records[0].at == 0.0


def test_what_a_later_version_adds_is_ignored(file):
    assert read_recording(file(opening(colour="red"))).records


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "empty: not a recording"),
        (b"hello\n", "line 1: not a JSON object: this is not a recording"),
        (b"hello", "line 1: not a JSON object: this is not a recording"),
        (b"[1]\n", "line 1: not a JSON object: this is not a recording"),
        (b'{"type": "message"}\n', "line 1: this is not a recording"),
        (bytes(range(256)) * 1000, "line 1: not a JSON object"),
        (b"\0" * 2**20, "line 1: not a JSON object"),
        (b"[" * 2**20, "line 1: not a JSON object"),
        (lines()[:20], "no complete line: not a recording"),
        (
            lines().replace(b": 1,", b": 2,"),
            "line 1: a recording of version 2; this package reads 1",
        ),
        (lines().replace(b": 1,", b": true,"), "line 1: 'version' is missing or not a number"),
        (lines().replace(b"url", b"uri"), "line 1: 'url' is missing or not a string"),
    ],
)
def test_what_is_no_recording_is_an_error(file, content, problem):
    path = file(content)
    with pytest.raises(ValueError, match="line|empty|whole") as caught:
        read_recording(path)
    assert str(caught.value).startswith(f"{path}: {problem}")
    assert len(str(caught.value)) < 300


DAMAGED = [
    (7, "not a JSON object"),
    (opening(at=-1), "'at' is missing or not a number of seconds"),
    (opening(at=True), "'at' is missing"),
    (opening(at="1"), "'at' is missing"),
    (opening(at=1e300), "'at' is missing"),
    (opening(at=math.nan), "'at' is missing"),
    (opening(at=math.inf), "'at' is missing"),
    ({"type": "open"}, "'at' is missing"),
    ({"at": 1}, "'type' is not open, bytes, lost or end"),
    (opening(status=404), "'status' is not from 200 to 299"),
    (opening(status=None), "'status' is missing or not a whole number"),
    (opening(url=7), "'url' is missing or not a string"),
    (opening(framing="other"), "'framing' is not chunked"),
    (opening(headers=[]), "'headers' is missing or not an object"),
    (opening(headers={"a b": "c"}), "'headers' has a name that is not valid"),
    (
        opening(headers={"X": "a\r\nSet-Cookie: b"}),
        "'headers' has a value that is not valid for X",
    ),
    (opening(headers={"X": 7}), "'headers' has a value that is not valid for X"),
    (received(0, "data: 1\n\n"), "bytes while no connection is open"),
    (lost(0) | {"in_order": 1}, "'in_order' is missing or not a boolean"),
    (lost(0, retry_in=-1), "'retry_in' is missing or not a number of seconds"),
    (lost(0) | {"reason": None}, "'reason' is missing or not a string"),
    (end(0) | {"status": "0"}, "'status' is missing or not a whole number"),
]


@pytest.mark.parametrize(("record", "problem"), DAMAGED)
def test_a_damaged_line_is_an_error_that_names_it(file, record, problem):
    path = file(record, opening())
    with pytest.raises(ValueError, match="line 2") as caught:
        read_recording(path)
    assert str(caught.value).startswith(f"{path}: line 2: {problem}")


@pytest.mark.parametrize(
    ("records", "problem"),
    [
        (
            [opening(1.0), received(0.5, "")],
            "line 3: 'at' is 0.5, less than the 1 of the line before",
        ),
        ([opening(), opening()], "line 3: a connection opens while another one is open"),
        ([opening(), lost(1), received(2, "")], "line 4: bytes while no connection is open"),
        ([opening(), end(1), lost(2)], "line 4: a line follows the end"),
        ([opening(), {"at": 1, "type": "bytes"}], "line 3: either 'text' or 'base64' is needed"),
        (
            [opening(), {"at": 1, "type": "bytes", "text": "", "base64": ""}],
            "line 3: either 'text' or 'base64' is needed",
        ),
        ([opening(), {"at": 1, "type": "bytes", "base64": "é"}], "line 3: 'base64' is not base64"),
        (
            [opening(), {"at": 1, "type": "bytes", "base64": "abc"}],
            "line 3: 'base64' is not base64",
        ),
        ([opening(), received(1, "\ud800")], "line 3: 'text' has a lone surrogate"),
    ],
)
def test_lines_that_do_not_fit_together_are_an_error(file, records, problem):
    path = file(*records)
    with pytest.raises(ValueError, match="line") as caught:
        read_recording(path)
    assert str(caught.value) == f"{path}: {problem}"


def test_a_damaged_file_is_never_more_than_an_error(file):
    """Whatever bytes are flipped, lost or put in."""
    rng = random.Random(17)
    whole = lines(opening(), received(0.1, "data: é\n\n"), lost(1.0), opening(2.0), end(3.0))
    for _ in range(2000):
        content = bytearray(whole)
        for _ in range(rng.randrange(1, 4)):
            place = rng.randrange(len(content))
            match rng.randrange(3):
                case 0:
                    content[place] = rng.randrange(256)
                case 1:
                    del content[place : place + rng.randrange(40)]
                case 2:
                    content[place:place] = rng.randbytes(rng.randrange(5))
        path = file(bytes(content))
        with contextlib.suppress(ValueError):
            Replay(read_recording(path)).play("")
        path.unlink()


def test_a_file_that_cannot_be_read_is_an_oserror(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_recording(tmp_path / "none")
    with pytest.raises(OSError) as caught:
        read_recording(tmp_path)
    assert caught.value.errno in (errno.EISDIR, errno.EACCES)


# --- Playing ---


@pytest.fixture
def play(sse_server, file):
    """Let the server play a recording of these records, without the waits."""

    def play(*records):
        sse_server.replay(file(*records), speed=math.inf)

    return play


def hear(server, **options):
    """All that an `EventStream` hears until the end, each read of the server's apart."""
    options.setdefault("reconnect", QUICK)
    with EventStream(server.url, **options) as stream:
        return [*stream]


def data_of(items):
    return [item.data for item in items if isinstance(item, MessageEvent)]


def block(number, text=None):
    return f"id: {number}\ndata: {text or number}\n\n"


TWO_PARTS = [
    opening(),
    received(0.1, block(1)),
    received(0.2, block(2) + "data: to"),
    lost(0.3),
    opening(0.4),
    received(0.5, block(3)),
    received(0.6, block(4)),
    lost(0.7, in_order=True, retry_in=None),
    end(0.7),
]


def test_a_loss_is_played_once_and_the_end_is_a_204(sse_server, play):
    play(*TWO_PARTS)
    items = hear(sse_server)
    assert data_of(items) == ["1", "2", "3", "4"]
    errors = [item.error for item in items if isinstance(item, ErrorEvent)]
    assert [type(error) for error in errors] == [BrokenBody, StreamEnded, UnexpectedStatus]
    assert errors[2].status == 204
    assert [request.last_event_id for request in sse_server.requests] == ["", "2", "4"]


def test_a_client_that_brings_an_id_of_its_own_hears_each_loss_once_too(sse_server, play):
    """From the stream that it had before, say, whose place it has kept."""
    play(*connections("data: 1\n\n", "data: 2\n\n"), lost(0.5))
    for _ in range(2):
        assert data_of(hear(sse_server, last_event_id="elsewhere")) == ["1", "2"]


def test_an_id_that_is_taken_away(sse_server, play):
    """By an empty `id`: the client comes without one."""
    play(*connections(block(1) + "id:\ndata: 2\n\n", block(3)))
    assert data_of(hear(sse_server)) == ["1", "2", "3"]
    assert [request.last_event_id for request in sse_server.requests] == ["", "", "3"]


def test_clients_with_ids_that_nobody_knows_are_not_kept_for_ever(file):
    replay = Replay(read_recording(file(opening(), received(0.1, "data: 1\n\n"))), math.inf)
    for number in range(3000):
        [*replay.play(f"unknown {number}").steps()]
    kept = [number for number in range(3000) if replay.play(f"unknown {number}") is None]
    assert kept == [*range(3000 - MAX_UNKNOWN, 3000)]


def test_of_clients_with_one_unknown_id_the_last_counts(file):
    replay = Replay(read_recording(file(opening(), received(0.1, "data: 1\n\n"))), math.inf)
    one, another = replay.play("one"), replay.play("one")
    [*one.steps()]
    for number in range(MAX_UNKNOWN - 1):
        [*replay.play(f"unknown {number}").steps()]
    [*another.steps()]
    [*replay.play("a further one").steps()]
    assert replay.play("one") is None
    assert replay.play("unknown 0") is not None


@pytest.mark.parametrize(
    ("last_event_id", "heard"),
    [
        ("1", ["2", "3", "4"]),
        ("3", ["4"]),
        ("4", []),
        ("unknown", ["1", "2", "3", "4"]),
        ("", ["1", "2", "3", "4"]),
    ],
)
def test_a_client_that_comes_with_an_id_goes_on_after_it(sse_server, play, last_event_id, heard):
    play(*TWO_PARTS)
    assert data_of(hear(sse_server, last_event_id=last_event_id)) == heard


def test_an_id_within_a_read_is_found(sse_server, play):
    text = "".join(map(block, range(1, 6))).replace("\n", "\r\n")
    play(opening(), received(0.1, text))
    assert data_of(hear(sse_server, last_event_id="3")) == ["4", "5"]


def test_of_an_id_that_came_twice_the_last_one_counts(sse_server, play):
    text = block(1) + block(2) + block(1, "again") + block(3)
    play(*connections(block(1) + block(4), text))
    assert data_of(hear(sse_server, last_event_id="1")) == ["3"]


def test_the_bytes_are_the_same_and_cut_as_they_arrived(file):
    rng = random.Random(17)
    text = (
        "\ufeffretry: 20\n\n: é\r\n" + block(1, "日本") + "event: x\rdata: y\r\r" + block("", "z")
    )
    data = text.encode()
    for _ in range(20):
        cuts = sorted(rng.sample(range(1, len(data)), 5))
        pieces = [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]
        written = []
        writer = RecordingWriter(written.append, "https://example.com/", "")
        writer.opened(0.0, OpenEvent("open", "https://example.com/", 200, FIELDS))
        for number, piece in enumerate(pieces):
            writer.received(number / 10, piece)
        path = file(b"".join(written))
        *steps, _ = Replay(read_recording(path)).play("").steps()
        assert [step for _, step in steps] == pieces
        assert [round(at, 6) for at, _ in steps] == [number / 10 for number in range(6)]
        path.unlink()


def test_the_header_fields_are_the_recorded_ones(sse_server, play):
    fields = FIELDS | {
        "Content-Length": "7",
        "Connection": "keep-alive",
        "Content-Encoding": "gzip",
    }
    play(opening(headers=fields), received(0, block(1)))
    opened = hear(sse_server)[0]
    assert opened.headers["X-Request-Id"] == "42"
    assert "Content-Length" not in opened.headers
    assert "Content-Encoding" not in opened.headers


def test_the_times_are_divided_by_the_speed(file):
    recording = read_recording(file(opening(1.0), received(3.0, "a"), received(5.0, "b"), end(9.0)))
    for speed, times in ((1, [2.0, 4.0, 8.0]), (4, [0.5, 1.0, 2.0]), (math.inf, [0.0, 0.0, 0.0])):
        assert [at for at, _ in Replay(recording, speed).play("").steps()] == times


def test_who_goes_on_in_the_middle_waits_for_what_came_after_only(file):
    recording = read_recording(
        file(opening(), received(100.0, block(1) + block(2)), received(102.0, block(3)), end(103.0))
    )
    assert [at for at, _ in Replay(recording).play("1").steps()] == [0.0, 2.0, 3.0]
    assert [at for at, _ in Replay(recording).play("2").steps()] == [0.0, 1.0]


@pytest.mark.parametrize(
    ("speed", "sent"), [(1.0, b"3000"), (2, b"1500"), (0.5, b"6000"), (math.inf, b"0"), (7, b"428")]
)
def test_the_recorded_retry_is_scaled_too(file, speed, sent):
    """Also where a read ended in the middle of it."""
    pieces = ["retry: 30", "00\n\nretry:3000\r\ndata: retry: 3000\n\n", "retry: 3000"]
    records = [received(0.0, piece) for piece in pieces]
    *steps, _ = Replay(read_recording(file(opening(), *records)), speed).play("").steps()
    data = b"".join(step for _, step in steps)
    assert data == (b"retry: %b\n\nretry:%b\r\ndata: retry: 3000\n\nretry: 3000" % (sent, sent))
    assert len(steps) == 3


@pytest.mark.parametrize("speed", [0.001, 1000, math.inf])
def test_a_retry_is_scaled_wherever_reads_have_cut_it(file, speed):
    text = "retry: 3000\nretry: 50000\n\ndata: x\n\n"
    sent = f"retry: {int(3000 / speed)}\nretry: {int(50000 / speed)}\n\ndata: x\n\n"
    for size in (1, 2, 3, 5):
        pieces = [text[start : start + size] for start in range(0, len(text), size)]
        path = file(opening(), *[received(0.0, piece) for piece in pieces])
        *steps, _ = Replay(read_recording(path), speed).play("").steps()
        path.unlink()
        assert b"".join(step for _, step in steps) == sent.encode()


@pytest.mark.parametrize("digits", ["9" * 5000, "9" * 15])
def test_a_retry_beyond_all_reason_does_no_harm(file, digits):
    recording = read_recording(file(opening(), received(0.0, f"retry: {digits}\n\n")))
    for speed in (1e-300, 3, math.inf):
        (_, data), _ = Replay(recording, speed).play("").steps()
        assert data.startswith(b"retry: ")


def test_a_post_is_answered_from_the_start_each_time(sse_server, play):
    play(opening(), received(0.1, "data: token\n\n"), end(0.2))
    for _ in range(3):
        items = hear(sse_server, method="POST", json={}, reconnect=None)
        assert data_of(items) == ["token"]
        assert isinstance(items[-1].error, StreamEnded)


def test_a_recording_with_an_id_that_no_header_can_carry(sse_server, play):
    text = block(1) + "id: a\x01b\ndata: 2\n\n"
    play(*connections(text, ""))
    items = hear(sse_server, last_event_id="1")
    assert data_of(items) == ["2"]
    play(*connections(text, ""))
    items = hear(sse_server)
    assert data_of(items) == ["1", "2"]
    assert [request.last_event_id for request in sse_server.requests[-3:]] == ["", "1", "1"]


def test_failed_attempts_are_not_played(sse_server, play):
    play(lost(0.0), *connections(block(1)), lost(0.4), lost(0.5), lost(0.6))
    assert data_of(hear(sse_server)) == ["1"]


def test_planned_answers_come_before_the_recording(sse_server, play):
    sse_server.status(503)
    play(*TWO_PARTS)
    policy = ReconnectPolicy(delay=0.02, statuses={503})
    assert data_of(hear(sse_server, reconnect=policy)) == ["1", "2", "3", "4"]


def test_a_test_can_drop_a_client_that_is_being_played_to(sse_server, file):
    sse_server.replay(file(opening(), received(0, block(1)), received(1e6, block(2))))
    with EventSource(sse_server.url, reconnect=QUICK, start=False) as source:
        recorder = Recorder(source)
        source.start()
        assert recorder.wait_for("message").data == "1"
        assert sse_server.drop() == 1
        recorder.wait_for(ErrorEvent)
        sse_server.wait_for_request(2)
        assert sse_server.requests[1].last_event_id == "1"
    sse_server.wait_for_disconnect()


def test_each_stream_has_a_recording_of_its_own(sse_server, file, play):
    other = sse_server.stream("/other")
    other.replay(file(opening(), received(0, block("b"))), speed=math.inf)
    play(opening(), received(0, block("a")))
    assert data_of(hear(sse_server)) == ["a"]
    assert data_of(hear(other)) == ["b"]
    play(opening(), received(0, block("c")))
    assert data_of(hear(sse_server)) == ["c"]


def test_nothing_else_can_be_sent_where_a_recording_is_played(sse_server, file):
    sse_server.replay(file(*TWO_PARTS))
    with pytest.raises(RuntimeError, match="plays a recording"):
        sse_server.send("hello")


def test_what_replay_is_given_is_checked(sse_server, file):
    path = file(*TWO_PARTS)
    for speed in ("1", None, True):
        with pytest.raises(TypeError, match="speed must be a number"):
            sse_server.replay(path, speed=speed)
    for speed in (0, -1.0, math.nan):
        with pytest.raises(ValueError, match="speed must be more than 0"):
            sse_server.replay(path, speed=speed)
    with pytest.raises(FileNotFoundError):
        sse_server.replay("nothing.jsonl")
    path = file(lost(0.1))
    with pytest.raises(ValueError, match="nothing to play: no connection had opened") as caught:
        sse_server.replay(path)
    assert str(caught.value).startswith(str(path))
    with pytest.raises(ValueError, match="not a recording"):
        sse_server.replay(file(b"data: 1\n\n"))
    sse_server.send("still itself")


def with_source(url):
    heard = []
    with EventSource(url, reconnect=QUICK, start=False) as source:
        source.on("*", heard.append)
        source.start()
        assert source.join(LIMIT)
    return heard


def with_stream(url):
    with EventStream(url, reconnect=QUICK) as stream:
        return [*stream.messages()]


def with_sseclient(url):
    return [*SSEClient(url, retry=20)]


CLIENTS = [with_source, with_stream, with_sseclient]


@pytest.mark.parametrize("listen", CLIENTS)
def test_it_is_a_server_for_any_client(sse_server, play, listen):
    play(*TWO_PARTS)
    assert [event.data for event in listen(sse_server.url)] == ["1", "2", "3", "4"]


def test_any_recording_is_played_whole_whatever_ids_it_has(file):
    """A client that reconnects hears what the recorded one heard, in the same order."""
    rng = random.Random(17)
    for _ in range(100):
        number = 0
        records, expected, time = [], [], 0.0
        with_ids = rng.random() < 0.7
        for _ in range(rng.randrange(1, 5)):
            records.append(opening(time))
            for _ in range(rng.randrange(4)):
                number += 1
                time += 0.5
                carries = with_ids and rng.random() < 0.7
                records.append(
                    received(time, (f"id: {number}\n" if carries else "") + f"data: {number}\n\n")
                )
                expected.append(str(number))
            time += 0.5
            records.append(lost(time, in_order=rng.random() < 0.5))
        path = file(*records)
        replay = Replay(read_recording(path), math.inf)
        path.unlink()
        for _ in range(2):
            heard, last_event_id, connections = [], "", 0
            while (playback := replay.play(last_event_id)) is not None:
                connections += 1
                assert connections <= len(records)
                parser = EventStreamParser(last_event_id=last_event_id)
                *steps, _ = playback.steps()
                heard += [event.data for _, step in steps for event in parser.feed(step)]
                last_event_id = parser.last_event_id
            assert heard == expected


def test_a_recording_without_ids_can_be_numbered(file):
    text = "\ufeffdata: a\n\n: comment\n\nretry: 5\n\nevent: x\ndata: b\n\ndata: to"
    recording = read_recording(file(*connections(text, "data: c\r\n\r\n")))
    replay = Replay(recording, math.inf, numbered=True)
    parser = EventStreamParser()
    events = []
    while (playback := replay.play(parser.last_event_id)) is not None:
        parser = EventStreamParser(last_event_id=parser.last_event_id)
        *steps, _ = playback.steps()
        events += [event for _, step in steps for event in parser.feed(step)]
    assert [(event.type, event.data, event.last_event_id) for event in events] == [
        ("message", "a", "97878ab8-1"),
        ("x", "b", "97878ab8-2"),
        ("message", "c", "97878ab8-3"),
    ]
    with_ids = read_recording(file(*TWO_PARTS))
    assert Replay(with_ids, numbered=True).parts == Replay(with_ids).parts


def test_a_server_over_tls_plays_too(file):
    with SSEServer(tls=True) as server:
        server.replay(file(*TWO_PARTS), speed=math.inf)
        assert data_of(hear(server, verify=server.ca_file)) == ["1", "2", "3", "4"]


def test_a_path_may_be_a_str(sse_server, file):  # the others have a `Path`
    sse_server.replay(os.fspath(file(*TWO_PARTS)), speed=math.inf)
    assert data_of(hear(sse_server)) == ["1", "2", "3", "4"]
