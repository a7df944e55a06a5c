"""Each row of the benchmarks measures what it says: all events, over TLS, verified."""

from __future__ import annotations

import socket
import ssl
import sys

import pytest

import eventsource

if sys.platform != "linux":
    pytest.skip("the benchmarks look into Linux's /proc", allow_module_level=True)

from benchmarks import inputs, measure, peers
from benchmarks.__main__ import make_certificates
from benchmarks.processes import Crew, Server, time_import
from benchmarks.workers import Background

pytestmark = pytest.mark.timeout(120)

OURS = [peer for peer in peers.ALL if peer.ours]
CLIENTS = [
    peer
    for peer in peers.ALL
    if measure.is_tls_client(peer)
    and peer.table is None
    and peer.kind != "node"  # npm would ask its registry
    and (peer.ours or not peer.package or peers.version(peer.package) is not None)
]


def names(rows):
    return [peer.name for peer in rows]


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """The server's certificate, its authority, and that among others."""
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def server(certificates):
    server = Server(certificates[0])
    yield server
    server.stop()


@pytest.fixture(scope="module")
def crew(server, certificates):
    with Crew(server, None, certificates[2]) as crew:
        yield crew


@pytest.fixture
def run(server, crew, certificates):
    """Measure little of one row; return the results."""

    def run(peer, *tables, ca=None, **settings):
        settings = measure.Settings(
            **{
                "rounds": 1,
                "tables": tables,
                "names": ("ticks",),
                "rows": [peer],
                "quick": True,
                "first": 1000,
                "limit": 60.0,
                "paced": 5,
                "streams": 3,
                "tls_streams": 2,
                "begins": 2,
                "imports": 1,
                **settings,
            }
        )
        _, authority, trusted = certificates
        chosen = measure.Run(
            settings, server, crew, str(ca or authority), str(ca or trusted), lambda _: None
        )
        return chosen.everything()

    return run


@pytest.mark.parametrize("peer", CLIENTS, ids=names(CLIENTS))
def test_a_client_gets_all_events_over_tls(run, peer):
    cells = run(peer, "tls").client
    assert list(cells) == [("https", framing, "ticks") for framing in measure.TLS_FRAMINGS]
    for cell in cells.values():
        assert cell[peer.name].problem is None
        assert cell[peer.name].median is not None


@pytest.mark.parametrize("peer", CLIENTS, ids=names(CLIENTS))
def test_a_client_that_trusts_another_authority_gets_no_events(run, peer, tmp_path):
    _, other, _ = make_certificates(tmp_path)
    cells = run(peer, "tls", ca=other).client
    assert all(cell[peer.name].problem is not None for cell in cells.values())


@pytest.mark.parametrize(
    "peer",
    [peer for peer in OURS if measure.has_streams(peer)],
    ids=lambda peer: peer.name,
)
def test_every_api_has_its_row_in_the_other_tables(run, peer):
    results = run(peer, "client", "latency", "start", "memory")
    if peer.table is None:
        assert len(results.client) == len(inputs.FRAMINGS)
        assert all(cells[peer.name].problem is None for cells in results.client.values())
        assert set(results.latency) == {
            (scheme, framing) for scheme in measure.SCHEMES for framing in measure.LATENCY_FRAMINGS
        }
        assert all(cells[peer.name].median.known for cells in results.latency.values())
        begins = results.start[peer.name].begins
        assert set(begins) == set(measure.SCHEMES)
        assert all(cell.median is not None and cell.median > 0 for cell in begins.values())
    else:
        assert not any(results.client.values())
        assert peer.name not in results.start
    idles = results.memory
    assert set(idles) == set(measure.SCHEMES)
    assert all(cells[peer.name].problem is None for cells in idles.values())
    assert all(cells[peer.name].threads <= 1 for cells in idles.values())


def test_ours_have_all_idle_streams_over_tls_and_the_others_fewer(run, monkeypatch):
    """The number of streams that a worker is asked for."""
    asked = []

    class Child:
        def ask(self, _, **command):
            asked.append((command["url"].partition(":")[0], command["streams"]))
            return {"bytes": 1, "threads": 1}

    monkeypatch.setattr(Crew, "process", lambda *_: Child())
    monkeypatch.setattr(Crew, "start", lambda *_: None)
    run(peers.BY_NAME["EventSource"], "memory", streams=9, tls_streams=4)
    run(peers.BY_NAME["httpx-sse"], "memory", streams=9, tls_streams=4)
    assert asked == [("http", 9), ("https", 9), ("http", 9), ("https", 4)]


def test_the_row_with_a_name_and_a_time_limit_has_both(run, monkeypatch):
    peer = peers.BY_NAME["EventSource (event_timeout and localhost)"]
    asked = []

    class Child:
        def ask(self, _, **command):
            asked.append(command["url"])
            return {"bytes": 1, "threads": 1}

    monkeypatch.setattr(Crew, "process", lambda *_: Child())
    monkeypatch.setattr(Crew, "start", lambda *_: None)
    run(peer, "memory")
    assert len(asked) == 2
    assert all("//localhost:" in url for url in asked)

    class Source:
        def __init__(self, _, **options):
            asked.append(options)

        close = join = None

    monkeypatch.setattr(eventsource, "EventSource", Source)
    Background(peer)._start("http://localhost/", print)
    assert asked[-1]["event_timeout"] > 0


@pytest.mark.parametrize("name", inputs.QUICK)
def test_the_parser_with_comments_gives_each_comment_and_hands_on_the_events(monkeypatch, name):
    items = []

    class Parser(eventsource.EventStreamParser):
        def feed_with_comments(self, chunk):
            found = super().feed_with_comments(chunk)
            items.extend(found)
            return found

    monkeypatch.setattr(eventsource, "EventStreamParser", Parser)
    unit = inputs.unit(name)
    peer = peers.BY_NAME["EventStreamParser (comments)"]
    chunks = list(inputs.cut(inputs.stream(name, 1), 1000))
    events = list(peer.parse(chunks, peers.Options()))
    assert len(events) == unit.events
    assert sum(len(event.data) for event in events) == unit.chars
    comments = [item for item in items if isinstance(item, eventsource.Comment)]
    assert len(comments) == len(unit.blocks) - unit.events


def test_a_body_without_a_length_ends_with_the_alert_of_tls(server, certificates):
    """Else a client that looks for it is told that the body was cut."""
    url, size = server.prepare("ticks", "plain", 1, "https")
    address, _, path = url.removeprefix("https://").partition("/")
    host, _, port = address.partition(":")
    context = ssl.create_default_context(cafile=certificates[1])
    with (
        socket.create_connection((host, int(port)), timeout=30) as plain,
        context.wrap_socket(plain, server_hostname=host, suppress_ragged_eofs=False) as secure,
    ):
        secure.sendall(f"GET /{path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        received = b"".join(iter(lambda: secure.recv(65536), b""))
    assert len(received) == size


def test_the_time_of_an_import_is_counted_with_and_without_the_library():
    whole, alone = time_import("import json", "decimal")
    assert whole > alone > 0
