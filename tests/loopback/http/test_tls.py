"""TLS as the caller wants it: a context of the caller's, and other makes of TLS and of sockets.

Each other make is imported in a process of its own, since it changes the modules that all share.
"""

from __future__ import annotations

import importlib.util
import json
import os
import socket
import ssl
import subprocess
import sys
import textwrap

import pytest
import requests
from requests.adapters import HTTPAdapter

from eventsource import EventSource, EventStream
from eventsource.errors import BrokenBody
from eventsource.testing import ScriptedServer
from tests.authority import AUTHORITY, server_context
from tests.real_servers.connect_proxy import Relay
from tests.support import CHUNKED, HEAD, LIMIT, respond, stream, unavailable

from tests.exchanges import exchange_with

EVENT = b"9\r\ndata: x\n\n\r\n"
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


def attributes_of(context):
    return {name: getattr(context, name) for name in ATTRIBUTES}, context.cert_store_stats()


def connect(url, context, **options):
    """Connect and read, as a source of its own would; the context is left as it was."""
    before = attributes_of(context)
    exchange = exchange_with(url, verify=context, **options)
    try:
        exchange.open()
        return exchange.read()
    finally:
        exchange.abort()
        assert attributes_of(context) == before


@pytest.fixture
def server():
    with ScriptedServer(respond(CHUNKED + EVENT), ssl_context=server_context()) as server:
        yield server


@pytest.fixture
def wrong():
    """A server whose certificate is for another name."""
    tls = server_context(host="other.example")
    with ScriptedServer(respond(CHUNKED + EVENT), ssl_context=tls) as server:
        yield server


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
    context = context_that_trusts()
    context.check_hostname = False
    assert connect(wrong.url, context) == b"data: x\n\n"
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


def test_a_context_has_the_client_certificate(tmp_path):
    own = tmp_path / "client.pem"
    AUTHORITY.issue_cert("client@example.com").private_key_and_cert_chain_pem.write_to_path(
        str(own)
    )
    tls = server_context()
    tls.verify_mode = ssl.CERT_REQUIRED
    AUTHORITY.configure_trust(tls)
    context = context_that_trusts()
    with ScriptedServer(respond(CHUNKED + EVENT), ssl_context=tls) as server:
        with pytest.raises(requests.RequestException):
            connect(server.url, context)
        context.load_cert_chain(own)
        assert connect(server.url, context) == b"data: x\n\n"


def test_a_context_decides_after_a_redirect_too(server, wrong):
    def redirect(connection):
        connection.read_request()
        location = wrong.url.encode()
        connection.send(
            b"HTTP/1.1 302 Found\r\nLocation: %b\r\nContent-Length: 0\r\n\r\n" % location
        )

    context = context_that_trusts()
    lax = context_that_trusts()
    lax.check_hostname = False
    for tls in (None, server_context()):
        with ScriptedServer(redirect, ssl_context=tls) as first:
            assert connect(first.url, lax) == b"data: x\n\n"
            with pytest.raises(requests.exceptions.SSLError, match="mismatch"):
                connect(first.url, context)


# --- Through proxies ---


@pytest.mark.parametrize("proxy_tls", [False, True], ids=["http proxy", "https proxy"])
def test_a_context_decides_in_a_tunnel(server, wrong, proxy_tls):
    tls = server_context() if proxy_tls else None
    lax = context_that_trusts()
    lax.check_hostname = False
    with ScriptedServer(Relay(), ssl_context=tls) as proxy:
        proxies = {"https": proxy.url}
        assert connect(server.url, context_that_trusts(), proxies=proxies) == b"data: x\n\n"
        assert connect(wrong.url, lax, proxies=proxies) == b"data: x\n\n"
        with pytest.raises(requests.exceptions.SSLError, match="mismatch"):
            connect(wrong.url, context_that_trusts(), proxies=proxies)


@pytest.mark.parametrize("tunnel", [False, True], ids=["http stream", "https stream"])
def test_a_context_decides_about_an_https_proxy(server, tunnel):
    lax = context_that_trusts()
    lax.check_hostname = False
    with (
        ScriptedServer(Relay(), ssl_context=server_context(host="other.example")) as proxy,
        ScriptedServer(respond(CHUNKED + EVENT)) as plain,
    ):
        url, proxies = (server if tunnel else plain).url, {"all": proxy.url}
        assert connect(url, lax, proxies=proxies) == b"data: x\n\n"
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
        assert exchange_reads(server.url, session, context_that_trusts()) == b"data: x\n\n"


def exchange_reads(url, session, context):
    exchange = exchange_with(url, session, verify=context)
    try:
        exchange.open()
        return exchange.read()
    finally:
        exchange.abort()


def test_a_certificate_beside_a_context_is_refused():
    with pytest.raises(ValueError, match=r"^cert: verify is an SSLContext"):
        EventStream("https://127.0.0.1:1/", verify=context_that_trusts(), cert="client.pem")


def test_what_is_neither_a_context_nor_a_path_is_refused_by_name():
    with pytest.raises(TypeError, match=r"^verify must be of type bool or str or SSLContext, not "):
        EventStream("https://127.0.0.1:1/", verify=5)


# --- A cut ---


def cut_off(connection):
    socket.socket.shutdown(connection.sock, socket.SHUT_RDWR)  # TLS says nothing


def test_a_stream_that_is_cut_off_is_no_stream_that_ends(server):
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


# --- Other makes, each in a process of its own ---

STACKS = {
    "truststore's context": ("truststore", "", "truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)"),
    "truststore for ssl": ("truststore", "truststore.inject_into_ssl()", "True"),
    "truststore for ssl, late": ("truststore", "", "truststore.inject_into_ssl() or True"),
    "truststore for ssl, a context from before": (
        "truststore",
        "before = ssl.create_default_context(); truststore.inject_into_ssl()",
        "before",
    ),
    "pyOpenSSL": (
        "OpenSSL",
        "import urllib3.contrib.pyopenssl as stack; stack.inject_into_urllib3()",
        "authority",
    ),
    "pyOpenSSL, a context": (
        "OpenSSL",
        "import urllib3.contrib.pyopenssl as stack; stack.inject_into_urllib3()",
        "ssl.create_default_context()",
    ),
    "gevent": ("gevent", "import gevent.monkey; gevent.monkey.patch_all()", "authority"),
    "gevent, a context": (
        "gevent",
        "import gevent.monkey; gevent.monkey.patch_all()",
        "ssl.create_default_context()",
    ),
    "eventlet": ("eventlet", "eventlet.monkey_patch()", "authority"),
    "eventlet, a context": ("eventlet", "eventlet.monkey_patch()", "ssl.create_default_context()"),
}
PROGRAM = """
import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # eventlet says that it is no longer developed
    import {module}
import ssl
{patch}
import json, socket, sys, threading
from eventsource import EventSource, EventStream, ReconnectPolicy

url, wrong, authority, port = sys.argv[1:]
verify = {verify}
before = getattr(verify, "verify_mode", None), getattr(verify, "check_hostname", None)
received, errors, last = [], [], threading.Event()

def show(event):
    received.append(event.data)
    if event.data == "2":
        socket.create_connection(("127.0.0.1", int(port))).close()  # the server may go on
    if event.data == "last":
        last.set()

source = EventSource(
    url,
    verify=verify,
    on_message=show,
    on_error=lambda event: errors.append(str(event.error)),
    reconnect=ReconnectPolicy(delay=0.02, max_delay=0.05, jitter=0.0),
    timeout={limit},
)
assert last.wait({limit}), (received, errors)
source.close()
assert source.join({limit})
refused = [
    str(event.error) for event in EventStream(wrong, verify=verify, reconnect=None)
]
assert before == (getattr(verify, "verify_mode", None), getattr(verify, "check_hostname", None))
print(json.dumps([received, errors, refused]))
"""


def in_records(listener):
    """A script that sends records which arrive at once, and more when they have been read."""
    listener.settimeout(LIMIT)

    def script(connection):
        connection.read_request()
        connection.send(CHUNKED)
        cork = getattr(socket, "TCP_CORK", socket.TCP_NODELAY)
        connection.sock.setsockopt(socket.IPPROTO_TCP, cork, 1)
        connection.send_chunk(b"data: 1\n\n")
        connection.send_chunk(b"data: 2\n\n")
        connection.sock.setsockopt(socket.IPPROTO_TCP, cork, 0)
        listener.accept()[0].close()
        connection.send_chunk(b"data: 3\n\n")
        connection.send_chunk(b"")

    return script


def cut_in_the_middle(connection):
    connection.read_request()
    connection.send(HEAD)
    connection.send(b"data: cut\n\n")
    cut_off(connection)


def hold_at_last(connection):
    connection.read_request()
    connection.send(CHUNKED)
    connection.send_chunk(b"data: last\n\n")
    connection.hold()


@pytest.mark.parametrize("stack", STACKS)
def test_streams_on_another_make_of_tls_reconnect_tell_a_cut_and_can_be_closed(
    stack, authority_file
):
    module, patch, verify = STACKS[stack]
    if importlib.util.find_spec(module) is None:
        unavailable(f"needs {module}")
    program = textwrap.dedent(PROGRAM).format(
        module=module, patch=patch, verify=verify, limit=LIMIT / 2
    )
    tls, other = server_context(), server_context(host="other.example")
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        ScriptedServer(
            *[in_records(listener)] * 2,
            *(stream(b"data: whole\n\n"), cut_in_the_middle, hold_at_last),
            ssl_context=tls,
        ) as server,
        ScriptedServer(stream(b"data: x\n\n"), ssl_context=other) as wrong,
    ):
        done = subprocess.run(
            [
                *(sys.executable, "-c", program, server.url, wrong.url, str(authority_file)),
                str(listener.getsockname()[1]),
            ],
            env={
                **{k: v for k, v in os.environ.items() if k[-9:] != "CA_BUNDLE"},
                "SSL_CERT_FILE": str(authority_file),  # what OpenSSL takes for the system's
                "EVENTLET_NO_GREENDNS": "yes",  # else it imports whatever dnspython finds
            },
            capture_output=True,
            text=True,
            timeout=2 * LIMIT,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    received, errors, refused = json.loads(done.stdout)
    assert received == [*"123123", "whole", "cut", "last"]
    assert errors == [
        *["the server ended the stream"] * 3,
        "the TLS connection was cut without its closing alert",
    ]
    (reason,) = refused
    assert "match" in reason  # "mismatch", or pyOpenSSL's "doesn't match"
