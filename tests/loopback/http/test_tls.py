"""TLS as the caller wants it: a context of the caller's."""

from __future__ import annotations

import socket
import ssl

import pytest
import requests
from requests.adapters import HTTPAdapter

from eventsource import EventSource, EventStream
from eventsource.errors import BrokenBody
from eventsource.testing import ScriptedServer
from tests.authority import AUTHORITY, server_context
from tests.exchanges import open_exchange
from tests.loopback.http.conftest import EVENT
from tests.real_servers.connect_proxy import Relay
from tests.support import CHUNKED, respond, status, stream

ATTRIBUTES = (
    *("verify_mode", "check_hostname", "options", "minimum_version", "maximum_version"),
    *("verify_flags", "hostname_checks_common_name", "post_handshake_auth", "keylog_filename"),
)


@pytest.fixture(autouse=True)
def environment_that_does_not_matter(monkeypatch):
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.setenv(name, "/no/such/file")


def context_that_trusts(authority=AUTHORITY):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.configure_trust(context)
    return context


def lax_context():
    """One that trusts, and checks no names."""
    context = context_that_trusts()
    context.check_hostname = False
    return context


def attributes_of(context):
    return {name: getattr(context, name) for name in ATTRIBUTES}, context.cert_store_stats()


def connect(url, context, **options):
    """Connect and read, as a source of its own would; the context is left as it was."""
    before = attributes_of(context)
    with open_exchange(url, verify=context, **options) as exchange:
        found = exchange.read()
    assert attributes_of(context) == before
    return found


# --- A context decides alone ---


def test_a_context_that_trusts_the_server_connects_again_and_again(server):
    context = context_that_trusts()
    for _ in range(3):
        assert connect(server.url, context) == b"data: x\n\n"


def test_a_context_that_does_not_trust_the_server_refuses_it(server):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    with pytest.raises(requests.exceptions.SSLError, match="certificate verify failed"):
        connect(server.url, context)


def test_a_context_that_checks_names_refuses_a_certificate_for_another(wrong):
    with pytest.raises(requests.exceptions.SSLError, match="mismatch"):
        connect(wrong.url, context_that_trusts())


def test_a_context_that_checks_no_names_takes_one_but_not_of_another_authority(wrong):
    assert connect(wrong.url, lax_context()) == b"data: x\n\n"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    with pytest.raises(requests.exceptions.SSLError, match="certificate verify failed"):
        connect(wrong.url, context)


def test_a_context_that_verifies_nothing_takes_all_and_each_attempt_warns(wrong):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with pytest.warns(match="Unverified HTTPS request"):
        assert connect(wrong.url, context) == b"data: x\n\n"


def test_the_protocols_that_a_context_offers_are_its_own():
    tls = server_context()
    tls.set_alpn_protocols(["http/1.1", "mine"])
    chosen = []

    def script(connection):
        chosen.append(connection.sock.selected_alpn_protocol())
        respond(CHUNKED + EVENT)(connection)

    with ScriptedServer(script, ssl_context=tls) as server:
        connect(server.url, context_that_trusts())
        context = context_that_trusts()
        context.set_alpn_protocols(["mine"])
        connect(server.url, context)
        connect(server.url, context)
    assert chosen == [None, "mine", "mine"]


def test_a_context_has_the_client_certificate(client_certificate):
    tls = server_context()
    tls.verify_mode = ssl.CERT_REQUIRED
    AUTHORITY.configure_trust(tls)
    context = context_that_trusts()
    with ScriptedServer(respond(CHUNKED + EVENT), ssl_context=tls) as server:
        with pytest.raises(requests.RequestException):
            connect(server.url, context)
        context.load_cert_chain(client_certificate)
        assert connect(server.url, context) == b"data: x\n\n"


def test_a_context_decides_after_a_redirect_too(wrong):
    redirect = status("302 Found", f"Location: {wrong.url}")
    for tls in (None, server_context()):
        with ScriptedServer(redirect, ssl_context=tls) as first:
            assert connect(first.url, lax_context()) == b"data: x\n\n"
            with pytest.raises(requests.exceptions.SSLError, match="mismatch"):
                connect(first.url, context_that_trusts())


# --- Through proxies ---


@pytest.mark.parametrize("proxy_tls", [False, True], ids=["http proxy", "https proxy"])
def test_a_context_decides_in_a_tunnel(server, wrong, proxy_tls):
    tls = server_context() if proxy_tls else None
    with ScriptedServer(Relay(), ssl_context=tls) as proxy:
        proxies = {"https": proxy.url}
        assert connect(server.url, context_that_trusts(), proxies=proxies) == b"data: x\n\n"
        assert connect(wrong.url, lax_context(), proxies=proxies) == b"data: x\n\n"
        with pytest.raises(requests.exceptions.SSLError, match="mismatch"):
            connect(wrong.url, context_that_trusts(), proxies=proxies)


@pytest.mark.parametrize("tunnel", [False, True], ids=["http stream", "https stream"])
def test_a_context_decides_about_an_https_proxy(server, tunnel):
    with (
        ScriptedServer(Relay(), ssl_context=server_context(host="other.example")) as proxy,
        ScriptedServer(respond(CHUNKED + EVENT)) as plain,
    ):
        url, proxies = (server if tunnel else plain).url, {"all": proxy.url}
        assert connect(url, lax_context(), proxies=proxies) == b"data: x\n\n"
        with pytest.raises(requests.RequestException, match="mismatch"):
            connect(url, context_that_trusts(), proxies=proxies)


# --- What is refused ---


class TakesContexts(HTTPAdapter):
    def cert_verify(self, conn, url, verify, cert):
        conn.conn_kw["ssl_context"] = verify


class TakesNone(HTTPAdapter):
    def send(self, *args, **kwargs):
        return super().send(*args, **kwargs)


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("adapter", [None, TakesNone()])
def test_a_context_is_refused_for_a_session_whose_adapter_cannot_take_one(adapter, scheme):
    with requests.Session() as session:
        if adapter is not None:
            session.mount("https://", adapter)
        with pytest.raises(TypeError, match=r"^verify: .*HTTPAdapter|^verify: .*TakesNone"):
            EventSource(
                f"{scheme}://127.0.0.1:1/",
                session=session,
                verify=context_that_trusts(),
                start=False,
            )
        EventSource(f"{scheme}://127.0.0.1:1/", session=session, verify="file", start=False)


def test_a_context_is_taken_by_a_session_whose_adapter_takes_one(server):
    with requests.Session() as session:
        session.mount(server.url, TakesContexts())
        assert connect(server.url, context_that_trusts(), session=session) == b"data: x\n\n"


def test_a_certificate_beside_a_context_is_refused():
    with pytest.raises(ValueError, match=r"^cert: verify is an SSLContext"):
        EventStream("https://127.0.0.1:1/", verify=context_that_trusts(), cert="client.pem")


# --- A cut ---


def cut_off(connection):
    socket.socket.shutdown(connection.sock, socket.SHUT_RDWR)  # TLS says nothing


def test_a_stream_that_is_cut_off_is_no_stream_that_ends():
    def cut(connection):
        stream(b"data: x\n\n")(connection)
        cut_off(connection)

    with ScriptedServer(cut, stream(b"data: x\n\n"), ssl_context=server_context()) as ending:
        assert errors_of(ending.url) == [
            (BrokenBody, "the TLS connection was cut without its closing alert")
        ]
        (error,) = errors_of(ending.url)
        assert "ended the stream" in error[1]


def errors_of(url):
    """The errors of one connection."""
    with EventStream(url, verify=context_that_trusts(), reconnect=None) as events:
        return [(type(e.error), str(e.error)) for e in events if e.type == "error"]


def test_a_server_that_cuts_before_it_answers_has_not_answered():
    def cut(connection):
        connection.read_request()
        cut_off(connection)

    with ScriptedServer(cut, ssl_context=server_context()) as server:
        ((_, text),) = errors_of(server.url)
    assert text == "the server closed the connection without an answer"
