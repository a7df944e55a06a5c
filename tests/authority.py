"""The certificate authority of the tests, and the server's side of TLS."""

from __future__ import annotations

import ssl

import trustme

AUTHORITY = trustme.CA()


def server_context(authority=AUTHORITY, host="127.0.0.1"):
    """The TLS settings of a server with a certificate for that host."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(host).configure_cert(context)
    return context
