"""What the sessions of ours are made of: TLS contexts, connections that `close()` ends."""

from __future__ import annotations

import gc
import ssl
import sys
import threading
import weakref

import pytest
import requests
import trustme

from eventsource import EventStream
from eventsource import stream as stream_module
from eventsource.http import adapter as adapter_module
from eventsource.http import exchange as exchange_module
from eventsource.http import sockets as sockets_module
from eventsource.http.adapter import MAX_CONTEXTS, new_session
from eventsource.http.cookies import CookieJar
from eventsource.testing import ScriptedServer
from tests.authority import AUTHORITY, server_context
from tests.exchanges import open_exchange
from tests.support import HEAD, LIMIT, port_that_never_answers, respond, stream


def connect(server, **options):
    """Connect, as a source of its own would; return what it reads."""
    with open_exchange(server.url, **options) as exchange:
        return exchange.read()


def context_of(server, **options):
    """Connect, as a source of its own would; return the TLS context that it uses."""
    found = []
    hooks = {"response": lambda response, **_: found.append(response.raw.connection.sock.context)}
    with open_exchange(server.url, hooks=hooks, **options):
        pass
    (context,) = found
    return context


# --- TLS contexts ---


def test_sources_with_the_same_settings_share_one_context(server, authority_file):
    contexts = {context_of(server, verify=str(authority_file)) for _ in range(3)}
    (context,) = contexts
    assert len(context.get_ca_certs()) == 1


def test_an_authority_file_that_has_changed_is_loaded_anew(server, authority_file):
    connect(server, verify=str(authority_file))
    other = authority_file.with_name("other.pem")
    trustme.CA().cert_pem.write_to_path(str(other))
    other.replace(authority_file)
    with pytest.raises(requests.exceptions.SSLError, match="certificate verify failed"):
        connect(server, verify=str(authority_file))


def test_a_source_that_does_not_verify_weakens_no_other(server, authority_file, tmp_path):
    other = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(str(other))
    with pytest.warns(match="Unverified HTTPS request"):
        assert connect(server, verify=False) == b"data: x\n\n"
    with pytest.raises(requests.exceptions.SSLError, match="certificate verify failed"):
        connect(server, verify=str(other))
    assert connect(server, verify=str(authority_file)) == b"data: x\n\n"


def test_the_name_in_the_certificate_is_still_checked(server, wrong, authority_file):
    connect(server, verify=str(authority_file))
    for _ in range(2):
        with pytest.raises(requests.exceptions.SSLError, match="doesn't match|mismatch"):
            connect(wrong, verify=str(authority_file))


def test_a_client_certificate_is_not_shared(authority_file, client_certificate):
    context = server_context()
    context.verify_mode = ssl.CERT_REQUIRED
    AUTHORITY.configure_trust(context)
    with ScriptedServer(stream(b"data: x\n\n"), ssl_context=context) as server:
        verify = str(authority_file)
        assert connect(server, verify=verify, cert=str(client_certificate)) == b"data: x\n\n"
        with pytest.raises(requests.RequestException):
            connect(server, verify=verify)
        assert connect(server, verify=verify, cert=str(client_certificate)) == b"data: x\n\n"


def test_an_authority_file_that_is_none_is_an_ssl_error(server, tmp_path):
    path = tmp_path / "empty.pem"
    path.write_text("no certificate\n")
    with pytest.raises(requests.exceptions.SSLError):
        connect(server, verify=str(path))


def test_the_number_of_contexts_kept_is_bounded(server, authority_file):
    pem = authority_file.read_text()
    made = []
    for number in range(MAX_CONTEXTS + 4):
        path = authority_file.with_name(f"{number}.pem")
        path.write_text(pem)
        context = context_of(server, verify=str(path))
        assert context_of(server, verify=str(path)) is context
        made.append(weakref.ref(context))
        del context
    gc.collect()
    kept = [reference() is not None for reference in made]
    assert kept == [False] * 4 + [True] * MAX_CONTEXTS


# --- Sessions ---


def test_a_session_of_ours_works_outside_an_exchange_too():
    with ScriptedServer(respond(HEAD)) as server, new_session(CookieJar()) as session:
        assert session.get(server.url, timeout=LIMIT).status_code == 200


# --- Closing while connecting ---


@pytest.mark.timeout(50)
def test_close_before_each_line_of_connecting_ends_it():
    # In the thread that connects, as a signal handler may, whatever that is about to do. A
    # socket that has not begun to connect cannot be shut down; if it begins afterwards, to an
    # address that never answers, and without a timeout, nothing ends it.
    with port_that_never_answers() as port:
        url = f"http://127.0.0.1:{port}/"
        lines = lines_of_connecting(EventStream(url, timeout=None), close_before=None)
        assert len(lines) > 60
        for number, line in enumerate(lines):
            stream = EventStream(url, timeout=None)
            watchdog = threading.Timer(LIMIT / 2, stream.close)
            watchdog.start()
            seen = lines_of_connecting(stream, close_before=number)
            assert watchdog.is_alive(), f"went on after close() before line {line}"
            watchdog.cancel()
            assert seen == lines[: number + 1]


CONNECTING = {
    module.__file__ for module in (stream_module, exchange_module, adapter_module, sockets_module)
}


def lines_of_connecting(stream, close_before):
    """Iterate; return the lines of connecting that were run or about to be, until closed.

    Closes before the one with that index, or when all that is left to do is to wait.
    """
    lines, closed = [], False

    def trace(frame, event, _):
        nonlocal closed
        if closed:
            return trace
        if event == "line" and frame.f_code.co_filename in CONNECTING:
            lines.append(frame.f_lineno)
            closed = len(lines) - 1 == close_before
        elif event == "call" and frame.f_code is sockets_module.wait_for_write.__code__:
            closed = True
        if closed:
            stream.close()
        return trace

    before = sys.gettrace()
    gc.disable()  # else what the collector finds is traced, too
    sys.settrace(trace)
    try:
        assert list(stream) == []
    finally:
        sys.settrace(before)
        gc.enable()
    return lines
