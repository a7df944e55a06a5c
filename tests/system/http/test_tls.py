"""Other makes of TLS and of sockets, each in a process of its own, since it changes Python's."""

from __future__ import annotations

import importlib.util
import json
import os
import socket
import subprocess
import sys
import textwrap

import pytest

from eventsource.testing import ScriptedServer
from tests.authority import server_context
from tests.loopback.http.test_tls import cut_off
from tests.support import CHUNKED, HEAD, LIMIT, stream, unavailable

PYOPENSSL = "import urllib3.contrib.pyopenssl as stack; stack.inject_into_urllib3()"
GEVENT = "import gevent.monkey; gevent.monkey.patch_all()"
DEFAULT = "ssl.create_default_context()"
STACKS = {
    "truststore's context": ("truststore", "", "truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)"),
    "truststore for ssl": ("truststore", "truststore.inject_into_ssl()", "True"),
    "truststore for ssl, late": ("truststore", "", "truststore.inject_into_ssl() or True"),
    "truststore for ssl, a context from before": (
        *("truststore", f"before = {DEFAULT}; truststore.inject_into_ssl()", "before"),
    ),
    "pyOpenSSL": ("OpenSSL", PYOPENSSL, "authority"),
    "pyOpenSSL, a context": ("OpenSSL", PYOPENSSL, DEFAULT),
    "gevent": ("gevent", GEVENT, "authority"),
    "gevent, a context": ("gevent", GEVENT, DEFAULT),
    "eventlet": ("eventlet", "eventlet.monkey_patch()", "authority"),
    "eventlet, a context": ("eventlet", "eventlet.monkey_patch()", DEFAULT),
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
