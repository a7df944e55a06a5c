"""What several tests of exchanges are given."""

from __future__ import annotations

import queue
import socket

import pytest

from eventsource.testing import ScriptedServer
from tests.authority import AUTHORITY, server_context
from tests.support import CHUNKED, LIMIT, respond

EVENT = b"9\r\ndata: x\n\n\r\n"
"""As a chunk: so the connection keeps its socket."""


@pytest.fixture
def authority_file(tmp_path):
    """The path of the certificate of the tests' authority."""
    path = tmp_path / "authority.pem"
    AUTHORITY.cert_pem.write_to_path(str(path))
    return path


@pytest.fixture
def client_certificate(tmp_path):
    """The path of a certificate by the tests' authority, and of its key."""
    path = tmp_path / "client.pem"
    issued = AUTHORITY.issue_cert("client@example.com")
    issued.private_key_and_cert_chain_pem.write_to_path(str(path))
    return path


@pytest.fixture
def server():
    """A server with a certificate of the tests' authority."""
    with ScriptedServer(respond(CHUNKED + EVENT), ssl_context=server_context()) as server:
        yield server


@pytest.fixture
def wrong():
    """A server whose certificate is for another name."""
    tls = server_context(host="other.example")
    with ScriptedServer(respond(CHUNKED + EVENT), ssl_context=tls) as server:
        yield server


@pytest.fixture
def resolver(monkeypatch):
    """Installs a function of host and port in place of the system's resolver of names.

    It returns addresses, or raises `socket.gaierror`.
    """

    def install(answer):
        def getaddrinfo(host, port, family=0, kind=0, protocol=0, flags=0):
            if flags & socket.AI_NUMERICHOST:
                raise socket.gaierror("not a number")
            found = []
            for address in answer(host, port):
                version = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
                found.append((version, socket.SOCK_STREAM, 0, "", address))
            return found

        monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)

    return install


class Resolver:
    """A resolver that hangs until it is told what to answer to each question."""

    def __init__(self):
        self.asked = queue.SimpleQueue()

    def __call__(self, host, port):
        answer = queue.SimpleQueue()
        self.asked.put(((host, port), answer))
        result = answer.get(timeout=LIMIT)
        if isinstance(result, Exception):
            raise result
        return result

    def next(self):
        return self.asked.get(timeout=LIMIT)


@pytest.fixture
def hanging(resolver):
    hanging = Resolver()
    resolver(hanging)
    return hanging
