"""A certificate for a server on loopback, made by a new CA that no other program trusts."""

from __future__ import annotations

import ssl


def make_certificate() -> tuple[ssl.SSLContext, bytes]:
    """Return a server's context for 127.0.0.1 and localhost, and the CA certificate as PEM.

    Raises:
        ModuleNotFoundError: trustme is not installed.
    """
    try:
        import trustme  # noqa: PLC0415 - an extra
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "tls=True needs trustme: python -m pip install trustme"
        ) from error
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1", "localhost").configure_cert(context)
    return context, authority.cert_pem.bytes()
