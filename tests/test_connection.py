"""TLS contexts, and closing while connecting. What else connections do is tested through
`Transport` and `close()`.
"""

from __future__ import annotations

import gc
import ssl
import sys
import threading

import pytest
import requests
import trustme
from urllib3.util.wait import wait_for_write

from eventsource import EventStream
from eventsource.http import adapter as connection
from eventsource.http.exchange import Transport
from eventsource.testing import ScriptedServer

from .support import LIMIT, port_that_never_answers, stream

AUTHORITY = trustme.CA()


def server_context(authority=AUTHORITY):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context


@pytest.fixture(autouse=True)
def made(monkeypatch):
    """The TLS contexts that are made in the test, which begins with none."""
    contexts = []
    make = connection.create_urllib3_context

    def create(*args, **kwargs):
        contexts.append(make(*args, **kwargs))
        return contexts[-1]

    monkeypatch.setattr(connection, "create_urllib3_context", create)
    monkeypatch.setattr(connection, "_contexts", {})
    return contexts


@pytest.fixture
def authority_file(tmp_path):
    path = tmp_path / "authority.pem"
    AUTHORITY.cert_pem.write_to_path(str(path))
    return path


def connect(server, **options):
    """Connect, as a source of its own would; return what it reads."""
    exchange = Transport(server.url, options=options).exchange()
    try:
        exchange.open()
        return exchange.read()
    finally:
        exchange.abort()


@pytest.fixture
def server():
    with ScriptedServer(stream(b"data: x\n\n"), ssl_context=server_context()) as server:
        yield server


def test_sources_with_the_same_settings_share_one_context(server, authority_file, made):
    for _ in range(3):
        assert connect(server, verify=str(authority_file)) == b"data: x\n\n"
    assert len(made) == 1
    assert len(made[0].get_ca_certs()) == 1


def test_an_authority_file_that_has_changed_is_loaded_anew(server, authority_file, made):
    connect(server, verify=str(authority_file))
    other = authority_file.with_name("other.pem")
    trustme.CA().cert_pem.write_to_path(str(other))
    other.replace(authority_file)
    with pytest.raises(requests.exceptions.SSLError, match="certificate verify failed"):
        connect(server, verify=str(authority_file))
    assert len(made) == 2


def test_a_source_that_does_not_verify_weakens_no_other(server, authority_file, tmp_path):
    other = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(str(other))
    with pytest.warns(match="Unverified HTTPS request"):
        assert connect(server, verify=False) == b"data: x\n\n"
    with pytest.raises(requests.exceptions.SSLError, match="certificate verify failed"):
        connect(server, verify=str(other))
    assert connect(server, verify=str(authority_file)) == b"data: x\n\n"


def test_the_name_in_the_certificate_is_still_checked(authority_file, made):
    wrong = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    AUTHORITY.issue_cert("other.example").configure_cert(wrong)
    for _ in range(2):
        with (
            ScriptedServer(stream(b"data: x\n\n"), ssl_context=wrong) as server,
            pytest.raises(requests.exceptions.SSLError, match="doesn't match|mismatch"),
        ):
            connect(server, verify=str(authority_file))
    assert len(made) == 1


def test_a_client_certificate_is_not_shared(authority_file, tmp_path, made):
    own = tmp_path / "client.pem"
    AUTHORITY.issue_cert("client@example.com").private_key_and_cert_chain_pem.write_to_path(
        str(own)
    )
    context = server_context()
    context.verify_mode = ssl.CERT_REQUIRED
    AUTHORITY.configure_trust(context)
    with ScriptedServer(stream(b"data: x\n\n"), ssl_context=context) as server:
        verify = str(authority_file)
        assert connect(server, verify=verify, cert=str(own)) == b"data: x\n\n"
        with pytest.raises(requests.RequestException):
            connect(server, verify=verify)
        assert connect(server, verify=verify, cert=str(own)) == b"data: x\n\n"
    assert len(made) == 1  # of the one without


def test_an_authority_file_that_is_none_is_an_ssl_error(server, tmp_path):
    path = tmp_path / "empty.pem"
    path.write_text("no certificate\n")
    with pytest.raises(requests.exceptions.SSLError):
        connect(server, verify=str(path))


def test_the_number_of_contexts_kept_is_bounded(server, authority_file, made, monkeypatch):
    monkeypatch.setattr(connection, "MAX_CONTEXTS", 2)
    pem = authority_file.read_text()
    for number in range(4):
        path = authority_file.with_name(f"{number}.pem")
        path.write_text(pem)
        connect(server, verify=str(path))
        connect(server, verify=str(path))
    assert len(made) == 4
    assert len(connection._contexts) == 2


# --- Closing while connecting ---


@pytest.mark.timeout(50)
def test_close_before_each_line_of_connecting_ends_it():
    # In the thread that connects, as a signal handler may, whatever that is about to do. A
    # socket that has not begun to connect cannot be shut down; if it begins afterwards, to an
    # address that never answers, and without a timeout, nothing ends it.
    with port_that_never_answers() as port:
        url = f"http://127.0.0.1:{port}/"
        lines = lines_of_connecting(EventStream(url, timeout=None), close_before=None)
        assert len(lines) > 20
        for number, line in enumerate(lines):
            stream = EventStream(url, timeout=None)
            watchdog = threading.Timer(LIMIT / 2, stream.close)
            watchdog.start()
            seen = lines_of_connecting(stream, close_before=number)
            assert watchdog.is_alive(), f"went on after close() before line {line}"
            watchdog.cancel()
            assert seen == lines[: number + 1]


def lines_of_connecting(stream, close_before):
    """Iterate; return the lines of `connection.py` that were run or about to be, until closed.

    Closes before the one with that index, or when all that is left to do is to wait.
    """
    lines, closed = [], False

    def trace(frame, event, _):
        nonlocal closed
        if closed:
            return trace
        if event == "line" and frame.f_code.co_filename == connection.__file__:
            lines.append(frame.f_lineno)
            closed = len(lines) - 1 == close_before
        elif event == "call" and frame.f_code is wait_for_write.__code__:
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
