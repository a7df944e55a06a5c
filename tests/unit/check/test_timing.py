"""What the moments mean: who is accused of holding events back, and who is not."""

from __future__ import annotations

import pytest

from eventsource.cli.check.timing import (
    buffering,
    bursts,
    compression,
    ended,
    heartbeat,
    latency,
    rate,
)
from tests.wire import NOW, connection, event, events, observation

SMALL = events(range(1000), data="0123456789")  # 27 to 29 bytes each
BIG = event(1, size=100_000)


def pieces(body, size, pause=1.0, start=0.0):
    """The body in reads of a size, with silence after each."""
    return [
        (start + pause * number, body[at : at + size])
        for number, at in enumerate(range(0, len(body), size))
    ]


def judged(*connections, **attributes):
    found = buffering(observation(*connections, **attributes))
    assert found.code == "buffering"
    return found.level


# --- Buffering: problems ---


@pytest.mark.parametrize("size", [1024, 4096, 8192, 16384])
def test_a_cut_at_a_multiple_of_1024_with_silence_after_it_is_a_buffer(size):
    found = buffering(observation(connection(*pieces(SMALL, size)[:2], until=30)))
    assert found.level == "problem"
    assert f"{size:,}" in found.evidence
    assert "X-Accel-Buffering: no" in found.remedy
    assert "proxy_buffering off" in found.remedy


def test_one_such_cut_is_enough():
    rest = SMALL[4096:]
    ending = rest[: rest.index(b"\n\n") + 2]
    reads = [(0.0, SMALL[:4096]), (0.5, ending), (1.0, event(7))]
    assert judged(connection(*reads, until=30)) == "problem"


def test_two_cuts_after_like_sizes_are_a_buffer():
    assert judged(connection(*pieces(SMALL, 1500)[:2], until=30)) == "problem"


@pytest.mark.parametrize("size", [1024, 3072, 5120])
def test_each_multiple_of_1024_counts_once(size):
    assert judged(connection((0.0, SMALL[:size]), until=30)) == "problem"


@pytest.mark.parametrize(("pause", "level"), [(0.2, "ok"), (0.24, "ok"), (0.26, "problem")])
def test_silence_is_a_quarter_of_a_second(pause, level):
    assert judged(connection((0.0, SMALL[:4096]), until=pause)) == level
    reads = pieces(SMALL, 4096, pause)[:2]
    assert judged(connection(*reads, (reads[-1][0] + 0.01, b"\n\n"), until=30)) == level


@pytest.mark.parametrize("sizes", [(1500, 1600), (1500, 1500, 2100, 2700), (1500, 2100)])
def test_cuts_after_unlike_sizes_are_not(sizes):
    reads, at = [], 0
    for number, size in enumerate(sizes):
        reads.append((number, SMALL[at : at + size]))
        at += size
    assert judged(connection(*reads, until=30)) != "problem"


def test_one_cut_after_another_size_is_not():
    reads = [(0.0, SMALL[:1500])]
    assert judged(connection(*reads, until=30)) == "ok"


def test_a_burst_may_take_several_reads():
    reads = [(0.0, SMALL[:2000]), (0.1, SMALL[2000:4096]), (2.0, SMALL[4096:6000])]
    assert judged(connection(*reads, (2.1, SMALL[6000:8192]), until=30)) == "problem"


@pytest.mark.parametrize("size", [4096, 3000])
def test_of_large_events_it_cannot_be_told_whether_a_buffer_or_the_server_cuts_them(size):
    body = events(range(10), data="x" * 5000)
    found = buffering(observation(connection(*pieces(body, size)[:4], until=30)))
    assert (found.level, "large" in found.what) == ("note", True)


def test_large_events_in_parts_of_unlike_sizes_are_well():
    body = events(range(10), data="x" * 5000)
    reads = [(0, body[:3000]), (1, body[3000:7000]), (2, body[7000:12500])]
    assert judged(connection(*reads, until=30)) == "ok"


def test_events_whose_own_times_are_spread_over_the_silence_were_held_back():
    held = b"".join(event(n, data=f'{{"at": {NOW + n}}}') for n in range(1, 11))
    found = buffering(observation(connection((0.0, event(0)), (10.0, held), until=30)))
    assert found.level == "problem"
    assert "10 events came at once after 10.0 s" in found.evidence


# --- Buffering: nobody is accused ---


def test_one_event_a_read_is_well():
    reads = [(n, event(n)) for n in range(20)]
    assert judged(connection(*reads, until=30)) == "ok"


@pytest.mark.parametrize("size", [1024, 1448, 4096, 16384, 65536])
@pytest.mark.parametrize("pause", [0.01, 0.5])
def test_large_events_accuse_nobody(size, pause):
    body = b"".join(event(n, size=100_000) for n in range(5))
    assert judged(connection(*pieces(body, size, pause), until=300)) != "problem"


@pytest.mark.parametrize("size", [5, 64, 1024, 1500, 4096])
def test_events_flushed_in_parts_accuse_nobody(size):
    reads, now = [], 0.0
    for number in range(20):
        head, rest = (
            event(number, size=3 * size + 30)[:size],
            event(number, size=3 * size + 30)[size:],
        )
        reads += [(now, head), (now + 0.5, rest)]
        now += 1.0
    assert judged(connection(*reads, until=30)) != "problem"


def test_an_event_with_the_beginning_of_the_next_accuses_nobody():
    flushed = event(1, size=2048 - 6) + b"data: "
    reads = [(0.0, b"data: ")] + [(n, flushed) for n in range(1, 20)]
    assert judged(connection(*reads, until=30)) == "ok"


def test_batches_that_end_inside_a_line_at_the_same_place_accuse_nobody():
    flushed = b"first\n\n" + events(range(20)) + b"data: "
    reads = [(0.0, b"data: ")] + [(n, flushed) for n in range(1, 20)]
    assert judged(connection(*reads, until=30)) != "problem"


def test_batches_are_worth_a_note_and_no_more():
    reads = [(2.0 * n, events(range(20 * n, 20 * n + 20))) for n in range(10)]
    found = buffering(observation(connection(*reads, until=30)))
    assert found.level == "note"
    assert "may send them so" in found.what


def test_batches_of_4096_bytes_accuse_nobody():
    batch = events(range(9), data="y") + event(9)
    batch += event(10, size=4096 - len(batch))
    assert len(batch) == 4096
    assert judged(connection(*[(2.0 * n, batch) for n in range(10)], until=30)) == "note"


@pytest.mark.parametrize(
    "times",
    [[n / 10 for n in range(10)], [0, 9, 2, 3, 4, 5, 6, 7, 1, 8], [n * 1.5 for n in range(10)]],
)
def test_times_that_do_not_fit_the_silence_accuse_nobody(times):
    batch = b"".join(event(n, data=f'{{"at": {NOW + time}}}') for n, time in enumerate(times))
    assert judged(connection((0.0, event(0)), (10.0, batch), until=30)) == "ok"


def test_old_times_in_a_batch_accuse_nobody():
    old = b"".join(event(n, data=f"{1_500_000_000 + n}") for n in range(1, 11))
    assert judged(connection((0.0, event(0)), (10.0, old), until=30)) == "ok"


def test_the_past_that_comes_first_accuses_nobody():
    past = b"".join(event(n, data=f"{NOW - 3600 + 60 * n}") for n in range(60))
    assert judged(connection((2.0, past), until=30)) == "note"  # all at once, after a wait
    assert judged(connection((0.1, past), until=30)) == "ok"


def test_a_loss_inside_an_event_accuses_nobody():
    assert judged(connection((0.0, SMALL[:4096]), cut=1.0)) == "ok"


@pytest.mark.parametrize("size", [16384, 16384 - 8, 2 * 16384])
def test_records_of_tls_that_come_slowly_accuse_nobody(size):
    reads = pieces(2 * SMALL + SMALL, size, 0.3)
    assert judged(connection(*reads, until=30), url="https://h/") != "problem"
    assert judged(connection(*reads, until=30), url="http://h/") == "problem"


@pytest.mark.parametrize("size", [4096, 8192, 1500])
def test_a_buffer_is_found_over_tls_too(size):
    assert judged(connection(*pieces(SMALL, size)[:2], until=30), url="https://h/") == "problem"


def test_a_cut_without_silence_accuses_nobody():
    reads = [(0.2 * n, data) for n, (_, data) in enumerate(pieces(SMALL, 4096))]
    assert judged(connection(*reads, until=reads[-1][0])) == "ok"


def test_nothing_within_the_watch_says_so():
    found = buffering(observation(connection(until=30.0)))
    assert found.level == "note"
    assert "--seconds" in found.remedy
    found = buffering(observation(connection((1.0, b": hi\n"), until=30.0)))
    assert found.level == "note"
    assert "No event" in found.what
    found = buffering(observation(connection(ends=1.0)))
    assert (found.level, found.remedy) == ("note", "")  # a longer watch would not help


def test_all_events_at_once_after_a_wait_is_worth_a_note():
    found = buffering(observation(connection((5.0, SMALL), ends=5.0), is_once=True))
    assert found.level == "note"
    assert "1,000 events after 5.0 s" in found.evidence


def test_bursts_know_the_silence_around_them():
    found = bursts(connection((1.0, b"a"), (1.1, b"b"), (3.0, b"c"), until=4.0))
    assert [burst.size for burst in found] == [2, 1]
    assert found[0].before == 1.0
    assert found[0].after == found[1].before == pytest.approx(1.9)
    assert found[1].after == 1.0
    assert bursts(connection((1.0, b"a"), cut=9.0))[0].after is None


# --- Compression ---


def test_compression():
    plain = observation(connection((0, event(1))))
    assert compression(plain).level == "ok"
    one = [connection((0, event(0)), *[(n, event(n)) for n in range(1, 9)])]
    gzip = {"Content-Encoding": "gzip"}
    found = compression(observation(*one, headers=gzip))
    assert (found.level, "one at a time" in found.what) == ("note", True)
    assert compression(observation(*one, headers=gzip, asked_for_coding=True)).level == "ok"
    many = [connection((0, event(0)), *[(n, events(range(9))) for n in range(1, 9)])]
    found = compression(observation(*many, headers=gzip, asked_for_coding=True))
    assert (found.level, "up to 9" in found.what) == ("note", True)
    failed = observation(*one, headers=gzip, unreadable=("compression", "no"))
    assert compression(failed).level == "problem"


# --- Silence ---


def test_heartbeats_are_counted_and_timed():
    reads = [(15.0 * n, b": ping\n\n") for n in range(1, 4)]
    found = heartbeat(observation(connection(*reads, until=50.0), watched=50.0))
    assert found.level == "ok"
    assert "3 comments, one each 15.0 s" in found.evidence


@pytest.mark.parametrize(
    ("watched", "level"), [(30.0, "note"), (29.0, "ok"), (10.0, "ok"), (150.0, "note")]
)
def test_silence_for_nearly_the_whole_of_a_long_watch_is_worth_a_note(watched, level):
    silent = connection((1.0, event(1)), until=watched)
    found = heartbeat(observation(silent, watched=watched))
    assert found.level == level
    if level == "note" and watched == 30.0:
        assert "--seconds 150" in found.remedy


def test_a_silence_of_nearly_a_minute_is_worth_a_note():
    reads = [(0.0, event(1)), (55.0, event(2)), (100.0, event(3))]
    assert heartbeat(observation(connection(*reads, until=150), watched=150.0)).level == "note"
    reads = [(float(n), event(n)) for n in range(0, 150, 20)]
    assert heartbeat(observation(connection(*reads, until=150), watched=150.0)).level == "ok"


# --- The end ---


def test_a_stream_that_goes_on_has_not_ended():
    assert ended(observation(connection((0, event(1)), until=30))) is None


def test_one_end_is_worth_a_note():
    found = ended(observation(connection((0, event(1)), ends=12.5)))
    assert (found.level, found.evidence) == ("note", "after 12.5 s, in order")
    found = ended(observation(connection((0, b"data: x"), cut=12.5)))
    assert "cut off: the connection was cut, with an unfinished event" in found.evidence


def test_a_body_that_ends_with_the_connection_does_not_tell_how_it_ended():
    seen = observation(connection((0, event(1)), ends=2.0))
    seen.head.headers.pop("Transfer-Encoding")
    assert "does not tell" in ended(seen).evidence


def test_ends_after_the_same_time_are_a_limit():
    limits = [connection((n, event(n)), asked=n, ends=n + 9.9 + n / 1000) for n in (0, 10, 20)]
    found = ended(observation(*limits))
    assert found.level == "problem"
    assert "after about 9.9 s" in found.what


def test_ends_after_different_times_are_worth_a_note():
    found = ended(
        observation(connection((0, event(1)), ends=3), connection((3, event(2)), asked=3, ends=20))
    )
    assert found.level == "note"
    assert "2 times" in found.what


def test_the_same_events_each_time_are_a_finite_stream():
    same = [connection((n, events(range(5))), asked=n, ends=n + 1) for n in (0, 2, 4)]
    found = ended(observation(*same))
    assert (found.level, "finite" in found.what) == ("note", True)
    assert "204" in found.remedy


def test_the_same_events_before_each_cut_are_no_finite_stream():
    same = [connection((n, events(range(5))), asked=n, cut=n + 9) for n in (0, 10, 20)]
    assert ended(observation(*same)).level == "problem"


def test_a_stream_that_has_been_had_is_finite():
    first = connection((0, events(range(5))), ends=5)
    rest = [connection(asked=n, ends=n + 0.1) for n in range(6, 9)]
    assert ended(observation(first, *rest)).level == "note"


@pytest.mark.parametrize("lasted", [0.4, 5])
def test_a_finite_stream_that_resumes_with_nothing_is_finite(lasted):
    had = connection((0, events(range(5))), ends=lasted)
    rest = [connection(asked=n, ends=n + lasted) for n in (6, 12, 18)]
    found = ended(observation(had, *rest))
    assert (found.level, "finite" in found.what) == ("note", True)


def test_a_stream_that_ends_at_once_without_an_event_is_a_problem():
    found = ended(observation(*[connection(asked=n, ends=n) for n in range(9)]))
    assert (found.level, "at once" in found.what) == ("problem", True)


def test_the_end_of_an_answer_that_was_sent_once_is_well_unless_it_is_cut():
    done = connection((0, event(1)), ends=2)
    assert ended(observation(done, is_once=True)).level == "ok"
    cut = connection((0, event(1)), cut=2)
    assert ended(observation(cut, is_once=True)).level == "problem"


def test_a_client_that_comes_back_and_is_refused_is_a_problem():
    done = connection((0, event(1)), ends=2)
    assert ended(observation(done, refused=403)).level == "problem"
    assert ended(observation(done, refused=204)).level == "note"


# --- Figures ---


def test_latency_counts_from_the_beginning():
    found = latency(observation(connection((0.5, b": x\n"), (2.0, event(1)), opened=0.25)))
    assert found.evidence == "head 0.25 s, first byte 0.50 s, first event 2.0 s"


def test_rate():
    body = b"event: tick\ndata: x\n\n" * 4 + BIG
    found = rate(observation(connection((0.0, body), until=10.0)))
    assert found.what == "5 events came in 10.0 s."
    assert "0.5 events/s" in found.evidence
    assert "'tick' 4, 'message' 1; largest event 99,997 bytes" in found.evidence
