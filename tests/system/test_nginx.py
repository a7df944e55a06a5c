"""TLS and proxies for real: nginx in front, certificates of a test authority, HTTP proxies."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import gc
import itertools
import os
import shutil
import signal
import socket
import subprocess
import types
from pathlib import Path

import pytest
import requests
import trustme
import urllib3

from eventsource import (
    ErrorEvent,
    EventSource,
    EventStream,
    OpenEvent,
    ReadyState,
    ReconnectPolicy,
    StreamEnded,
    UnexpectedStatus,
)
from eventsource.testing import ScriptedServer
from tests.authority import AUTHORITY, server_context
from tests.real_servers.connect_proxy import Relay
from tests.real_servers.nginx import Nginx, find_nginx
from tests.real_servers.process import Server
from tests.support import (
    LIMIT,
    QUERY_SECRET,
    SECRET,
    Recorder,
    errors,
    open_sockets,
    opens,
    port_that_refuses,
    status,
    stream,
    unavailable,
    wait_until,
)
from tests.system.test_real_servers import listening, numbers_to, take

SOON = ReconnectPolicy(delay=0.02, max_delay=0.1)
FEW = ReconnectPolicy(delay=0.02, max_delay=0.1, max_attempts=20)
"""For what heals between two attempts, and if not, should fail a test soon."""
GATEWAY = ReconnectPolicy(delay=0.02, max_delay=0.1, statuses=frozenset({502, 503, 504}))
STRANGER = trustme.CA()
names = (f"nginx-{number}" for number in itertools.count())


@pytest.fixture
def name():
    """The name under which the backend books this test's requests."""
    return next(names)


# --- Certificates ---


class Certificates:
    """Files in PEM, each with the key and the chain of one certificate."""

    def __init__(self, directory):
        self.directory = directory
        self.authority = self.write("authority", AUTHORITY.cert_pem)
        self.stranger = self.write("stranger", STRANGER.cert_pem)
        now = dt.datetime.now(dt.UTC)
        year = dt.timedelta(days=365)
        past = {"not_before": now - 2 * year, "not_after": now - year}
        future = {"not_before": now + year, "not_after": now + 2 * year}
        self.good = self.issue("good")
        self.of_localhost = self.issue("of_localhost", "localhost")
        self.of_another_host = self.issue("of_another_host", "other.example")
        self.expired = self.issue("expired", **past)
        self.not_yet_valid = self.issue("not_yet_valid", **future)
        self.of_a_stranger = self.issue("of_a_stranger", authority=STRANGER)
        self.client = self.issue("client", "client@example.com")
        self.strange_client = self.issue("strange_client", "c@example.com", authority=STRANGER)
        itself = trustme.CA()
        self.self_signed = self.write("self_signed", itself.private_key_pem, itself.cert_pem)

    def issue(self, name, host="127.0.0.1", *, authority=AUTHORITY, **validity):
        issued = authority.issue_cert(host, **validity)
        return self.write(name, issued.private_key_and_cert_chain_pem)

    def write(self, name, *blobs):
        path = self.directory / f"{name}.pem"
        path.write_bytes(b"".join(blob.bytes() for blob in blobs))
        return str(path)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    return Certificates(tmp_path_factory.mktemp("certificates"))


def text_of(path):
    return Path(path).read_text()


# --- nginx and what is behind it ---


@pytest.fixture(scope="module")
def backend_process(tmp_path_factory):
    find_nginx()
    server = Server("sse_starlette_app.py", tmp_path_factory.mktemp("backend") / "log")
    try:
        server.start()
        yield server
    finally:
        server.stop(signal.SIGKILL)


@pytest.fixture
def backend(backend_process):
    backend_process.ensure_started()
    return backend_process


def site(port, *lines, certificate=None, to=None, http2=""):
    """A `server` block of nginx's; with a certificate it speaks TLS, `to` a backend's port."""
    tls = [f"ssl_certificate {certificate};", f"ssl_certificate_key {certificate};"]
    passing = [f"location / {{ proxy_pass http://127.0.0.1:{to}; }}"]
    body = [
        f"listen 127.0.0.1:{port}{' ssl' if certificate else ''}{http2};",
        *(tls if certificate else []),
        *lines,
        *(passing if to else []),
    ]
    return "server {\n" + "\n".join(body) + "\n}\n"


ONE_EVENT = r"""location / { default_type text/event-stream; return 200 "data: x\n\n"; }"""
PROMPT = """
proxy_http_version 1.1;
proxy_set_header Connection "";
proxy_set_header Host $host;
proxy_buffering off;
"""


@contextlib.contextmanager
def running(directory, make, count=1, patience="30s"):
    """An nginx with the configuration that `make` makes of that many ports."""
    nginx = Nginx(directory, patience)
    try:
        nginx.ports = [nginx.listen() for _ in range(count)]
        nginx.configure(make(*nginx.ports))
        nginx.start()
        yield nginx
    finally:
        nginx.stop()


CERTIFICATES = (
    "good",
    "of_another_host",
    "expired",
    "not_yet_valid",
    "of_a_stranger",
    "self_signed",
)


@pytest.fixture(scope="module")
def sites(certificates, tmp_path_factory):
    """The ports of sites that send one event each, by what is special about them."""
    found = types.SimpleNamespace()

    def make(plain, obsolete, for_clients, http2, by_name, *ports):
        found.__dict__.update(zip(CERTIFICATES, ports, strict=True))
        found.plain, found.obsolete, found.for_clients = plain, obsolete, for_clients
        found.http2, found.by_name = http2, by_name
        good = certificates.good
        obsolete_tls = "ssl_protocols TLSv1 TLSv1.1; ssl_ciphers DEFAULT:@SECLEVEL=0;"
        ask = f"ssl_verify_client on; ssl_client_certificate {certificates.authority};"
        protocol = "add_header X-Protocol $server_protocol; add_header X-Alpn $ssl_alpn_protocol;"
        of_localhost, other = certificates.of_localhost, certificates.of_another_host
        return "\n".join(
            [
                site(plain, ONE_EVENT),
                site(obsolete, obsolete_tls, ONE_EVENT, certificate=good),
                site(for_clients, ask, ONE_EVENT, certificate=good),
                site(http2, protocol, ONE_EVENT, certificate=good, http2=" http2"),
                site(by_name, "server_name other.example;", ONE_EVENT, certificate=other),
                site(by_name, "server_name localhost;", ONE_EVENT, certificate=of_localhost),
                *(
                    site(port, ONE_EVENT, certificate=getattr(certificates, special))
                    for special, port in zip(CERTIFICATES, ports, strict=True)
                ),
            ]
        )

    directory = tmp_path_factory.mktemp("sites")
    with running(directory, make, 5 + len(CERTIFICATES)) as nginx:
        found.nginx = nginx
        yield found


def https(port, host="127.0.0.1"):
    return f"https://{host}:{port}/"


def http(port, host="127.0.0.1"):
    return f"http://{host}:{port}/"


def first_event(url, **options):
    """Connect once; return what opened, and check that an event came."""
    options.setdefault("reconnect", None)
    opened, *rest = EventStream(url, **options)
    assert isinstance(opened, OpenEvent), opened
    assert rest[0].data == "x"
    return opened


def failure(url, **options):
    """Connect once, in vain; return the error."""
    (failed,) = EventStream(url, reconnect=None, **options)
    assert isinstance(failed, ErrorEvent)
    return failed.error


# --- Whose certificate it is ---


@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_the_authority_may_be_named_in_the_environment(sites, certificates, monkeypatch, variable):
    assert isinstance(failure(https(sites.good)), requests.exceptions.SSLError)
    monkeypatch.setenv(variable, certificates.authority)
    first_event(https(sites.good))
    first_event(https(sites.good), verify=True)


def test_what_the_caller_says_goes_before_the_environment(sites, certificates, monkeypatch):
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", certificates.stranger)
    first_event(https(sites.good), verify=certificates.authority)
    with pytest.warns(urllib3.exceptions.InsecureRequestWarning):
        first_event(https(sites.good), verify=False)


def test_each_of_several_sites_at_one_port_is_asked_for_by_name(sites, certificates):
    first_event(https(sites.by_name, "localhost"), verify=certificates.authority)
    error = failure(https(sites.by_name), verify=certificates.authority)
    assert "127.0.0.1" in str(error)


REFUSED = {
    "good": "unable to get local issuer certificate",  # to one who trusts the stranger
    "of_a_stranger": "unable to get local issuer certificate",
    "of_another_host": "not valid for '127.0.0.1'",
    "expired": "certificate has expired",
    "not_yet_valid": "certificate is not yet valid",
    "self_signed": "self-signed certificate|self signed certificate",
    "obsolete": "protocol|alert",
    "plain": "wrong version number|record layer failure",
}


@pytest.mark.parametrize("special", REFUSED)
def test_a_handshake_that_fails_is_one_clear_error_an_attempt(sites, certificates, special):
    url = f"https://127.0.0.1:{getattr(sites, special)}/?key={QUERY_SECRET}"
    verify = certificates.stranger if special == "good" else certificates.authority
    with EventStream(url, verify=verify, reconnect=FEW) as events:
        failed = [next(events) for _ in range(3)]
    for event in failed:
        assert type(event.error) is requests.exceptions.SSLError
        assert event.ready_state is ReadyState.CONNECTING
        assert event.retry_in > 0
        assert QUERY_SECRET not in str(event.error)
        assert_matches(REFUSED[special], str(event.error))
    assert failed[0].retry_in < failed[2].retry_in or failed[2].retry_in >= SOON.max_delay
    assert events.error is None


def assert_matches(alternatives, text):
    assert any(part.lower() in text.lower() for part in alternatives.split("|")), text


def test_one_attempt_is_one_handshake(certificates, tmp_path):
    make = lambda port: site(port, ONE_EVENT, certificate=certificates.expired)  # noqa: E731
    with running(tmp_path, make) as nginx:
        url = https(nginx.ports[0])
        with EventStream(url, verify=certificates.authority, reconnect=FEW) as events:
            errors(events, 3)
        wait_until(lambda: nginx.log.count("while SSL handshaking") >= 3, "three handshakes")
        assert nginx.log.count("while SSL handshaking") == 3


def test_an_http2_server_is_spoken_to_in_http_1_1(sites, certificates):
    opened = first_event(https(sites.http2), verify=certificates.authority)
    assert opened.headers["X-Protocol"] == "HTTP/1.1"
    assert opened.headers["X-Alpn"] == "http/1.1"


# --- Client certificates ---


def test_a_client_certificate_may_be_one_file_or_two(sites, certificates, tmp_path):
    whole = certificates.client
    url, verify = https(sites.for_clients), certificates.authority
    first_event(url, verify=verify, cert=whole)
    first_event(url, verify=verify, cert=(whole, whole))


@pytest.mark.parametrize(
    ("cert", "reason"),
    [(None, b"No required SSL certificate"), ("strange_client", b"The SSL certificate error")],
    ids=["none", "another authority's"],
)
def test_without_a_client_certificate_of_its_authority_the_server_refuses_for_good(
    sites, certificates, cert, reason
):
    own = cert and getattr(certificates, cert)
    error = failure(https(sites.for_clients), verify=certificates.authority, cert=own)
    assert isinstance(error, UnexpectedStatus)
    assert error.status == 400
    assert reason in error.response.content


def test_a_client_certificate_that_is_renewed_on_disk_is_used_at_the_next_attempt(
    sites, certificates, tmp_path
):
    own = tmp_path / "own.pem"
    own.write_text(text_of(certificates.strange_client))
    policy = dataclasses.replace(FEW, statuses=frozenset({400}))
    options = {"verify": certificates.authority, "cert": str(own), "reconnect": policy}
    with EventStream(https(sites.for_clients), **options) as events:
        assert next(events).error.status == 400
        own.write_text(text_of(certificates.client))
        opens(events)


@pytest.mark.parametrize("option", ["verify", "cert"])
def test_a_file_that_is_missing_for_a_moment_is_an_ssl_error_and_heals(
    sites, certificates, tmp_path, option
):
    # As when a program that renews certificates removes the old file first.
    path = tmp_path / "renewed.pem"
    options = {"verify": certificates.authority, option: str(path)}
    with EventStream(
        https(sites.for_clients), **with_client_certificate(certificates) | options
    ) as events:
        failed = next(events)
        assert isinstance(failed.error, requests.exceptions.SSLError)
        assert str(path) in str(failed.error)
        assert failed.ready_state is ReadyState.CONNECTING
        good = certificates.authority if option == "verify" else certificates.client
        path.write_text(text_of(good))
        opens(events)


def with_client_certificate(certificates):
    return {"verify": certificates.authority, "cert": certificates.client, "reconnect": FEW}


# --- Certificates that change ---


@pytest.mark.parametrize("special", ["expired", "of_another_host", "self_signed"])
def test_a_source_heals_when_nginx_has_been_given_a_good_certificate(
    certificates, tmp_path, special
):
    bad = getattr(certificates, special)
    with running(tmp_path, lambda port: site(port, ONE_EVENT, certificate=bad)) as nginx:
        port = nginx.ports[0]
        with EventStream(https(port), verify=certificates.authority, reconnect=FEW) as events:
            errors(events, 2)
            nginx.configure(site(port, ONE_EVENT, certificate=certificates.good))
            nginx.reload()
            opens(events)


@pytest.mark.parametrize("how", ["replaced", "overwritten"])
def test_an_authority_that_changes_on_disk_is_trusted_at_the_next_attempt(
    certificates, tmp_path, how
):
    trusted = tmp_path / "trusted.pem"
    trusted.write_text(text_of(certificates.authority))
    os.utime(trusted, (1, 1))  # some time ago
    good, strange = certificates.good, certificates.of_a_stranger
    with running(tmp_path, lambda port: site(port, ONE_EVENT, certificate=good)) as nginx:
        port = nginx.ports[0]
        with EventStream(https(port), verify=str(trusted), reconnect=FEW) as events:
            opens(events)
            nginx.configure(site(port, ONE_EVENT, certificate=strange))
            nginx.reload()
            assert isinstance(errors(events)[0].error, StreamEnded)
            assert isinstance(next(events).error, requests.exceptions.SSLError)
            if how == "replaced":
                other = tmp_path / "other.pem"
                other.write_text(text_of(certificates.stranger))
                other.replace(trusted)
            else:
                trusted.write_text(text_of(certificates.stranger))
            opens(events)
            # And the old authority is not trusted any more.
            nginx.configure(site(port, ONE_EVENT, certificate=good))
            nginx.reload()
            assert isinstance(errors(events)[0].error, StreamEnded)
            assert isinstance(next(events).error, requests.exceptions.SSLError)


def test_an_authority_that_is_taken_out_of_its_directory_is_not_trusted_any_more(
    sites, certificates, tmp_path
):
    openssl = shutil.which("openssl") or unavailable("openssl is not installed")
    command = [openssl, "x509", "-subject_hash", "-noout", "-in", certificates.authority]
    found = subprocess.run(command, check=True, capture_output=True, text=True)
    trusted = tmp_path / f"{found.stdout.strip()}.0"
    trusted.write_text(text_of(certificates.authority))
    os.utime(tmp_path, (1, 1))  # some time ago
    with EventStream(https(sites.good), verify=str(tmp_path), reconnect=FEW) as events:
        opens(events)
        trusted.unlink()
        assert isinstance(errors(events)[0].error, StreamEnded)
        assert isinstance(next(events).error, requests.exceptions.SSLError)
        trusted.write_text(text_of(certificates.authority))
        opens(events)


# --- Reverse proxying: nothing lost, nothing twice ---


def numbers_url(base, name, path="numbers", **query):
    words = "&".join(f"{key}={value}" for key, value in {"name": name, **query}.items())
    return f"{base}{path}?{words}"


KINDS_OF_PROXYING = {
    "unbuffered": PROMPT,
    "http-1.0-upstream": "proxy_buffering off;",
    "buffered-but-the-backend-objects": PROMPT.replace("buffering off", "buffering on"),
    "gzip": f"{PROMPT} gzip on; gzip_types text/event-stream; gzip_min_length 0; gzip_proxied any;",
    "buffered": PROMPT.replace("buffering off", "buffering on")
    + "proxy_ignore_headers X-Accel-Buffering;",
}


@pytest.fixture(scope="module")
def proxying(backend_process, certificates, tmp_path_factory):
    """The ports of sites that pass on to the backend, by how they do it, with and without TLS."""
    found = {}

    def make(*ports):
        blocks = []
        settings = itertools.product(KINDS_OF_PROXYING, ("http", "https"))
        for port, (kind, scheme) in zip(ports, settings, strict=True):
            found[kind, scheme] = f"{scheme}://127.0.0.1:{port}/"
            certificate = certificates.good if scheme == "https" else None
            lines = KINDS_OF_PROXYING[kind]
            blocks.append(site(port, lines, certificate=certificate, to=backend_process.port))
        return "".join(blocks)

    with running(tmp_path_factory.mktemp("proxying"), make, 2 * len(KINDS_OF_PROXYING)):
        yield found


@pytest.fixture(params=["http", "https"])
def scheme(request):
    return request.param


@pytest.mark.parametrize("kind", [kind for kind in KINDS_OF_PROXYING if kind != "buffered"])
def test_events_arrive_through_nginx_while_the_stream_is_open(
    backend, proxying, certificates, *, name, kind, scheme
):
    url = numbers_url(proxying[kind, scheme], name)
    asked = "gzip" if kind == "gzip" else "identity"
    options = {"verify": certificates.authority, "headers": {"Accept-Encoding": asked}}
    with EventStream(url, **options) as events:
        assert next(events).headers.get("Content-Encoding", "identity") == asked
        assert take(events, 3) == [1, 2, 3]
        assert backend.live(name) == 1
    wait_until(lambda: backend.live(name) == 0, "the backend notices that the client has gone")


@pytest.mark.parametrize("kind", KINDS_OF_PROXYING)
def test_streams_that_end_behind_nginx_are_one_stream_to_the_handlers(
    backend, proxying, certificates, *, name, kind, scheme
):
    url = numbers_url(proxying[kind, scheme], name, count=50, then="end")
    with listening(url, verify=certificates.authority, reconnect=SOON) as (_, seen):
        seen.until_number(200)
    assert seen.numbers == numbers_to(seen.numbers[-1])
    assert {type(lost.error) for lost in seen.errors} == {StreamEnded}


@pytest.mark.parametrize(
    ("kind", "how"),
    [
        ("unbuffered", signal.SIGKILL),
        ("http-1.0-upstream", signal.SIGTERM),
        ("gzip", signal.SIGKILL),
    ],
    ids=lambda value: getattr(value, "name", value),
)
def test_nothing_is_lost_when_the_backend_dies_in_full_flow_and_comes_back(
    backend, proxying, certificates, *, name, kind, how
):
    url = numbers_url(proxying[kind, "https"], name, count=1_000_000, pace=0.002)
    options = {"verify": certificates.authority, "headers": {"Accept-Encoding": "gzip"}}
    with listening(url, reconnect=GATEWAY, **options) as (source, seen):
        seen.until_number(20)
        backend.stop(how)
        while not any(getattr(lost.error, "status", 0) == 502 for lost in seen.errors):
            seen.next()
        before = seen.numbers[-1]
        backend.start()
        seen.until_number(before + 20)
        assert source.error is None
    assert seen.numbers == numbers_to(seen.numbers[-1])


def test_a_stream_that_nginx_cuts_for_its_silence_goes_on(backend, certificates, tmp_path, name):
    impatient = f"{PROMPT} proxy_read_timeout 300ms;"

    def make(port):
        return site(port, impatient, certificate=certificates.good, to=backend.port)

    with running(tmp_path, make) as nginx:
        url = numbers_url(https(nginx.ports[0]), name)  # three, and then silence
        with listening(url, verify=certificates.authority, reconnect=GATEWAY) as (_, seen):
            seen.until_number(15)
        assert nginx.log.count("upstream timed out") >= 4
    assert seen.numbers == numbers_to(seen.numbers[-1])
    assert {lost.ready_state for lost in seen.errors} == {ReadyState.CONNECTING}


@pytest.mark.timeout(120)
def test_nothing_is_lost_whatever_is_done_to_nginx_and_its_backend(
    backend, certificates, tmp_path, name
):
    generations = itertools.count(2)

    def make(port, generation=1):
        certificate = certificates.issue(f"generation-{generation}")
        return site(port, PROMPT, certificate=certificate, to=backend.port)

    def reload(nginx):
        nginx.configure(make(nginx.ports[0], next(generations)))
        nginx.reload()

    def quit_and_come_back(nginx):
        nginx.refuse_newcomers()
        source.restart()
        seen.next_of(ErrorEvent)
        nginx.stop()
        nginx.start()

    def killed(nginx):
        nginx.stop(signal.SIGKILL)
        nginx.start()

    def terminated(nginx):
        nginx.stop(signal.SIGTERM)
        nginx.start()

    def without_a_backend(_):
        backend.stop(signal.SIGKILL)
        seen.next_of(ErrorEvent)
        backend.start()

    with running(tmp_path, make) as nginx:
        url = numbers_url(https(nginx.ports[0]), name, pace=0.002, count=1_000_000)
        options = {"verify": certificates.authority, "reconnect": GATEWAY}
        with listening(url, **options) as (source, seen):
            for mishap in (reload, killed, terminated, quit_and_come_back, without_a_backend) * 2:
                seen.until_number((seen.numbers or [0])[-1] + 20)
                mishap(nginx)
            seen.until_number(seen.numbers[-1] + 20)
            assert source.error is None
    assert seen.numbers == numbers_to(seen.numbers[-1])


# --- HTTP proxies ---


@pytest.fixture
def everywhere_is_here(monkeypatch):
    """All names are this machine's."""
    original = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, *args: original("127.0.0.1", *args))


def asked(proxy):
    return [(request.method, request.target) for request in proxy.requests]


@pytest.fixture
def relay():
    with ScriptedServer(Relay()) as proxy:
        yield proxy


@pytest.fixture
def origin(scheme):
    """A site that says `data: x`, in plain and with a certificate."""
    context = server_context() if scheme == "https" else None
    with ScriptedServer(stream(b"data: x\n\n"), ssl_context=context) as server:
        yield server


def question(server, scheme):
    """What a proxy is asked for this server."""
    return ("CONNECT", f"127.0.0.1:{server.port}") if scheme == "https" else ("GET", server.url)


@pytest.mark.parametrize("key", ["the scheme", "all", "the host"])
def test_a_proxy_that_the_caller_names_is_used(relay, origin, scheme, certificates, key):
    keys = {"the scheme": scheme, "all": "all", "the host": f"{scheme}://127.0.0.1"}
    first_event(origin.url, proxies={keys[key]: relay.url}, verify=certificates.authority)
    assert asked(relay) == [question(origin, scheme)]


@pytest.mark.parametrize("variable", ["its own", "ITS OWN", "all_proxy", "ALL_PROXY"])
def test_a_proxy_of_the_environment_is_used(
    relay, origin, scheme, *, certificates, monkeypatch, variable
):
    own = {"its own": f"{scheme}_proxy", "ITS OWN": f"{scheme}_proxy".upper()}
    monkeypatch.setenv(own.get(variable, variable), relay.url)
    first_event(origin.url, verify=certificates.authority)
    assert asked(relay) == [question(origin, scheme)]


NO_PROXY = [
    (".example", True),
    ("a.example, stream.example", True),
    ("stream.example:{port}", True),
    ("stream.example:1", False),
    ("*", True),
]


@pytest.mark.parametrize(("value", "direct"), NO_PROXY)
@pytest.mark.usefixtures("everywhere_is_here")
def test_no_proxy_names_hosts_ports_and_suffixes(relay, monkeypatch, value, direct):
    with ScriptedServer(stream(b"data: x\n\n")) as server:
        monkeypatch.setenv("http_proxy", relay.url)
        monkeypatch.setenv("no_proxy", value.format(port=server.port))
        first_event(http(server.port, "stream.example"))
        assert bool(asked(relay)) is not direct


def test_each_attempt_asks_the_environment_anew(relay, monkeypatch):
    with ScriptedServer(stream(b"data: x\n\n")) as server:
        with EventStream(server.url, reconnect=FEW) as events:
            for proxied in (False, True, False, True):
                if proxied:
                    monkeypatch.setenv("http_proxy", relay.url)
                else:
                    monkeypatch.delenv("http_proxy", raising=False)
                opens(events)
        assert len(server.requests) == 4
        assert asked(relay) == 2 * [("GET", server.url)]


def with_credentials(proxy):
    return proxy.url.replace("//", f"//user:p%3A{SECRET}@")


@pytest.mark.parametrize(
    "line", ["403 Forbidden", "407 Proxy Authentication Required", "502 Bad Gateway"]
)
def test_a_proxy_that_refuses_to_tunnel_is_one_proxy_error_an_attempt(line):
    with ScriptedServer(status(line, body=b"no")) as proxy:
        proxies = {"https": with_credentials(proxy)}
        with EventStream("https://stream.example/", proxies=proxies, reconnect=FEW) as events:
            refused = [next(events) for _ in range(3)]
        assert len(proxy.requests) == 3
    for event in refused:
        assert isinstance(event.error, requests.exceptions.ProxyError)
        assert event.ready_state is ReadyState.CONNECTING
        assert line in str(event.error)
        assert SECRET not in str(event.error)


def test_a_proxy_that_refuses_to_forward_has_given_the_answer():
    with ScriptedServer(status("407 Proxy Authentication Required", body=b"no")) as proxy:
        error = failure("http://stream.example/", proxies={"http": proxy.url})
    assert isinstance(error, UnexpectedStatus)
    assert error.status == 407


def test_a_proxy_that_is_not_there_is_a_proxy_error_without_its_password(scheme):
    with port_that_refuses() as port:
        proxies = {scheme: f"http://user:{SECRET}@127.0.0.1:{port}"}
        url = f"{scheme}://stream.example/"
        with EventStream(url, proxies=proxies, reconnect=FEW) as events:
            for event in [next(events) for _ in range(2)]:
                assert isinstance(event.error, requests.exceptions.ProxyError)
                assert event.ready_state is ReadyState.CONNECTING
                assert SECRET not in str(event.error)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 Connec",
        b"HTTP/1.1 200 OK\r\nX-Half: ",
        b"SSH-2.0-OpenSSH\r\n",
        b"\0" * 99,
    ],
    ids=["nothing", "half-a-line", "half-a-field", "another-protocol", "zeros"],
)
def test_a_proxy_that_talks_nonsense_is_one_error_an_attempt_and_heals(certificates, sites, answer):
    def nonsense(connection):
        connection.read_request()
        connection.send(answer)

    with ScriptedServer(nonsense, nonsense, Relay()) as proxy:
        options = {"proxies": {"https": proxy.url}, "verify": certificates.authority}
        with EventStream(https(sites.good), reconnect=FEW, **options) as events:
            for event in [next(events) for _ in range(2)]:
                assert isinstance(event.error, requests.ConnectionError), event
            opens(events)


def test_a_proxy_that_says_nothing_is_given_up_after_the_time_to_connect(certificates, sites):
    with ScriptedServer(lambda connection: connection.hold(), Relay()) as proxy:
        options = {"proxies": {"https": proxy.url}, "verify": certificates.authority}
        timeout = (0.3, None)
        with EventStream(https(sites.good), reconnect=FEW, timeout=timeout, **options) as events:
            failed = next(events)
            assert isinstance(failed.error, requests.Timeout)
            assert failed.ready_state is ReadyState.CONNECTING
            assert proxy.wait_for_connection().gone.wait(LIMIT)
            opens(events)


def test_nothing_is_lost_when_proxies_die_in_full_flow(
    backend, proxying, certificates, name, scheme
):
    url = numbers_url(proxying["unbuffered", scheme], name, count=1_000_000, pace=0.002)
    with ScriptedServer(Relay()) as proxy:
        options = {"proxies": {scheme: proxy.url}, "verify": certificates.authority}
        with listening(url, reconnect=SOON, **options) as (_, seen):
            for _ in range(5):
                seen.until_number((seen.numbers or [0])[-1] + 20)
                for connection in proxy.connections:
                    with contextlib.suppress(OSError):
                        connection.sock.shutdown(socket.SHUT_RDWR)
                seen.next_of(ErrorEvent)
            seen.until_number(seen.numbers[-1] + 20)
    assert len(proxy.connections) >= 6
    assert seen.numbers == numbers_to(seen.numbers[-1])


# --- Proxies that are spoken to in TLS ---


@pytest.fixture
def tls_relay():
    with ScriptedServer(Relay(), ssl_context=server_context()) as proxy:
        yield proxy


def test_the_certificate_of_a_proxy_is_verified(origin, scheme, certificates, tls_relay):
    options = {"proxies": {scheme: with_credentials(tls_relay)}, "verify": certificates.stranger}
    error = failure(origin.url, **options)
    assert isinstance(error, requests.exceptions.SSLError | requests.exceptions.ProxyError)
    assert "certificate verify failed" in str(error)
    assert tls_relay.requests == []


# --- Closing, in all phases, over all ways ---


@pytest.fixture
def nothing_left_open():
    """No socket that was not there before, when all servers of the test have ended.

    Without the help of the garbage collector.
    """
    before = open_sockets()
    gc.disable()
    try:
        yield
        wait_until(lambda: open_sockets() <= before, "sockets to be closed")
    finally:
        gc.enable()


WAYS = ["nginx", "nginx-tls", "proxy", "proxy-tls", "tls-proxy", "tls-proxy-tls"]


@contextlib.contextmanager
def on_the_way(way, proxying, certificates):
    """The base of the URL, the options, and the proxy if there is one."""
    base = proxying["unbuffered", "https" if way.endswith("-tls") else "http"]
    options = {"verify": certificates.authority, "timeout": None, "reconnect": SOON}
    if way.startswith("nginx"):
        yield base, options, None
        return
    context = server_context() if way.startswith("tls-") else None
    with ScriptedServer(Relay(), ssl_context=context) as proxy:
        yield base, {**options, "proxies": {"all": proxy.url}}, proxy


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("phase", ["silent-body", "busy-body", "restarted"])
def test_close_ends_a_stream_on_every_way(
    backend, proxying, certificates, *, name, way, phase, nothing_left_open
):
    with on_the_way(way, proxying, certificates) as (base, options, proxy):
        query = {"count": 1_000_000, "pace": 0.0002} if phase == "busy-body" else {}
        with listening(numbers_url(base, name, **query), **options) as (source, seen):
            seen.until_number(3)
            if phase == "restarted":
                source.restart()
                seen.until_number(6)
            source.close()
            assert source.join(LIMIT)
            assert source.ready_state is ReadyState.CLOSED
            assert source.error is None
            assert not seen.errors
            wait_until(lambda: backend.live(name) == 0, "the backend notices")
            for connection in proxy.connections if proxy else ():
                assert connection.over.wait(LIMIT)
    assert seen.numbers == numbers_to(seen.numbers[-1])


def hold_at_once(connection):
    connection.sock.recv(1)
    connection.hold()


def hold_after_the_request(connection):
    connection.read_request()
    connection.hold()


def hold_in_the_tunnel(connection):
    connection.read_request()
    connection.send(b"HTTP/1.1 200 OK\r\n\r\n")
    connection.sock.recv(1)  # of the client's greeting
    connection.hold()


@pytest.mark.parametrize(
    ("phase", "script", "proxy_tls"),
    [
        ("https", hold_after_the_request, False),  # CONNECT is not answered
        ("https", hold_after_the_request, True),
        ("https", hold_in_the_tunnel, False),  # TLS is not answered
        ("https", hold_in_the_tunnel, True),
        ("http", hold_after_the_request, False),  # the headers do not come
        ("http", hold_after_the_request, True),
    ],
    ids=["connect", "connect-tls", "tunnel", "tls-tunnel", "headers", "headers-tls"],
)
def test_close_ends_the_wait_for_a_proxy(certificates, phase, script, proxy_tls, nothing_left_open):
    context = server_context() if proxy_tls else None
    with ScriptedServer(script, ssl_context=context) as proxy:
        options = {"proxies": {"all": proxy.url}, "verify": certificates.authority}
        source = EventSource(
            f"{phase}://stream.example/", on_open=Recorder(), timeout=None, **options
        )
        try:
            proxy.wait_for_request()
        finally:
            source.close()
            assert source.join(LIMIT)
        assert proxy.connections[0].gone.wait(LIMIT)
    assert source.error is None


def test_close_ends_the_handshake_with_a_proxy(nothing_left_open):
    with ScriptedServer(hold_at_once) as proxy:
        url = proxy.url.replace("http:", "https:")
        source = EventSource(
            "http://stream.example/", on_open=Recorder(), timeout=None, proxies={"all": url}
        )
        proxy.wait_for_connection()
        source.close()
        assert source.join(LIMIT)
        assert proxy.connections[0].gone.wait(LIMIT)
