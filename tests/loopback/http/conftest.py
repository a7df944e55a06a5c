"""What several tests of exchanges are given."""

from __future__ import annotations

import socket

import pytest

from tests.authority import AUTHORITY


@pytest.fixture
def authority_file(tmp_path):
    """The path of the certificate of the tests' authority."""
    path = tmp_path / "authority.pem"
    AUTHORITY.cert_pem.write_to_path(str(path))
    return path


@pytest.fixture
def resolver(monkeypatch):
    """Installs a function of host and port in place of the system's resolver of names.

    It returns addresses, or raises `socket.gaierror`.
    """

    def install(answer):
        def getaddrinfo(host, port, family=0, kind=0, protocol=0, flags=0):
            if flags & socket.AI_NUMERICHOST:
                raise socket.gaierror("not a number")
            return [
                (
                    socket.AF_INET6 if ":" in address[0] else socket.AF_INET,
                    socket.SOCK_STREAM,
                    0,
                    "",
                    address,
                )
                for address in answer(host, port)
            ]

        monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)

    return install
