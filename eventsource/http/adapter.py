"""Everything that depends on the internals of requests, urllib3 and http.client, and why.

`new_session()` makes sessions whose connections put their sockets into the `Sockets` of the
current exchange, which can be shut down in every phase. http.client, through urllib3's
pools, reads the head of a response (and the bodies that hooks, redirects and digest
authentication read). Then `take_over()` takes the body away from it. Each use of an
undocumented interface has its reason beside it. If upstream changes, the test in
`tests/loopback/http/test_upstream.py` that bears the name of that use fails. `check_upstream()`
refuses to start if a change would otherwise go unnoticed.
"""

from __future__ import annotations

import contextlib
import functools
import http
import http.client
import io
import netrc  # noqa: F401 - else requests would, in a thread, and a fork keep it locked
import os
import queue
import re
import socket
import ssl
import sys
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import (
    ConnectTimeoutError,
    LocationParseError,
    NameResolutionError,
    NewConnectionError,
    SSLError,
)
from urllib3.util import ssl_
from urllib3.util.ssl_ import create_urllib3_context, resolve_cert_reqs

from eventsource.errors import HeadTooLarge

from .cookies import CookieJar, drop_bad_cookies
from .failures import LostInHead, NoSocksSupport, TunnelRefused
from .options import TLS_CONTEXT
from .sockets import Sockets, current_sockets

MAX_HEAD_SIZE: Final = 256 * 1024
"""Bytes of a response's status line and header fields, interim responses (1xx) included:
as much as browsers take. A line may have a fourth of it, which is http.client's limit."""
MAX_FIELDS: Final = 99 if sys.version_info < (3, 15) else 100
"""Header fields of a response. It is http.client that counts: 100 lines, and before Python 3.15
the blank one that ends them is one of these."""
BLOCK_SIZE: Final = 64 * 1024
"""Bytes of a request's body that are sent at once: each such step has a limit of time."""

_SPACE_AFTER: Final = re.compile(rb"(?<=[^ \t])[ \t]++(?=\r?\n\Z)")
"""The space after a value, which is no part of it (RFC 9112, 5). http.client leaves it there."""


# --- The head ---


class _Wire(io.RawIOBase):
    """The bytes below http.client: each wait is bounded by the deadline of the exchange."""

    _file: Any = None

    def __init__(self, sock: Any, sockets: Sockets) -> None:
        self._sock = sock
        self._sockets = sockets
        self._file = sock.makefile("rb", buffering=0)  # keeps the socket open until close()
        self.is_dry = False
        """Whether to say that nothing has arrived."""

    def readable(self) -> bool:
        return True

    def readinto(self, target: Any, /) -> int | None:
        if self.is_dry:
            return None
        timeout = self._sock.gettimeout()
        limited = self._sockets.bounded(timeout)
        if limited == timeout:
            return self._file.readinto(target)  # type: ignore[no-any-return]
        self._sock.settimeout(limited)
        try:
            return self._file.readinto(target)  # type: ignore[no-any-return]
        finally:
            self._sock.settimeout(timeout)

    def fileno(self) -> int:
        return self._file.fileno()  # type: ignore[no-any-return]

    def close(self) -> None:
        if self._file is not None:  # else an exception has interrupted the constructor
            self._file.close()
        super().close()


class _HeadReader:
    """The file under a response while its fields are read, also those of a proxy's answer.

    http.client takes the end of the connection for the end of the fields, and does not
    limit the head as a whole.
    """

    def __init__(self, file: io.BufferedIOBase) -> None:
        self._file = file
        self._size = 0
        self.status_line = b""

    def readline(self, limit: int) -> bytes:
        line = self._file.readline(limit)
        self._size += len(line)
        for size, most in ((len(line), limit - 1), (self._size, MAX_HEAD_SIZE)):
            if size > most:
                raise HeadTooLarge(size, most)
        if not line.endswith(b"\n"):
            kind = LostInHead if self._size else http.client.RemoteDisconnected
            raise kind("the connection ended before the end of the response's head")
        self.status_line = self.status_line or line
        return _SPACE_AFTER.sub(b"", line)

    def flush(self) -> None:
        """Do nothing; http.client asks for it when it closes a proxy's answer."""

    def close(self) -> None:
        self._file.close()


class _Response(http.client.HTTPResponse):
    """http.client's response, sure of its head.

    `response_class` is http.client's place for such a class, and `begin`, `fp` and `headers`
    are attributes of its own that have no underscore and no documentation. http.client
    takes an interim response (RFC 9110, 15.2) other than 100 for the answer, which would
    be refused for good as a wrong status.
    """

    def __init__(self, connection: _Connection, sock: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self.fp.close()  # which has read nothing
        self.sock = sock
        sockets = current_sockets.get()
        self.wire = _Wire(sock, Sockets() if sockets is None else sockets)
        self.file = io.BufferedReader(self.wire, BLOCK_SIZE)
        self.head = _HeadReader(self.file)
        self.fp = self.head  # type: ignore[assignment]
        connection.response = self

    def begin(self) -> None:
        """Read the head of the answer, past interim responses."""
        try:
            super().begin()
            while 100 < self.status < 200 and self.status != http.HTTPStatus.SWITCHING_PROTOCOLS:
                self.headers = None  # type: ignore[assignment]  # else begin() does nothing
                super().begin()
            # Else urllib3 would log what it makes of malformed fields: a warning with the
            # URL, its query, and the fields that follow, cookies too.
            self.headers.defects.clear()
            self.headers.set_payload("")
            drop_bad_cookies(self.headers)
        except http.client.HTTPException as error:
            if type(error) is http.client.HTTPException:  # its only complaint without a name
                raise HeadTooLarge(MAX_FIELDS + 1, MAX_FIELDS, "fields") from None
            raise
        finally:
            if self.fp is not None:  # else begin() has closed it
                self.fp = self.file  # type: ignore[assignment]


# --- Connections ---


class _Connection(HTTPConnection):
    """A connection whose socket is in `Sockets` before it connects.

    `_new_conn` is where urllib3 makes a socket, and there is no other place to make another;
    the errors are those that its own raises.
    """

    def __init__(self, host: str, *args: Any, **kwargs: Any) -> None:
        super().__init__(host, *args, **kwargs)
        self.name = host.strip("[]")  # with the final dot that `host` is without
        self.response: _Response | None = None
        """The last response; http.client makes one for a proxy's answer, too."""

    def response_class(self, sock: Any, *args: Any, **kwargs: Any) -> _Response:  # type: ignore[override]
        """Make a response; http.client looks here for a class."""
        return _Response(self, sock, *args, **kwargs)

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"  # as it stands in the texts of errors

    def _new_conn(self) -> socket.socket:
        sockets = current_sockets.get()
        if sockets is None:
            return super()._new_conn()
        try:
            return sockets.connect_to(
                self.name, self.port, self.timeout, [*(self.socket_options or [])]
            )
        except UnicodeError as error:  # from the resolver: no such name can be
            raise LocationParseError(self.host) from error
        except socket.gaierror as error:
            raise NameResolutionError(self.host, self, error) from error
        except TimeoutError as error:
            what = "timed out" if error.errno else error  # TCP's own, or ours
            raise ConnectTimeoutError(  # without the connection, whose repr would be in the text
                f"Connection to {self.host} {what}. (connect timeout={self.timeout})"
            ) from error
        except OSError as error:
            raise NewConnectionError(self, f"Failed to connect: {error}") from error

    def send(self, data: Any) -> None:
        """Send a piece of the request, none of whose steps takes longer than there is time."""
        sockets = current_sockets.get()
        if sockets is None or not isinstance(data, bytes):
            super().send(data)
            return
        for start in range(0, len(data), BLOCK_SIZE):
            if self.sock is None:
                super().send(data[start : start + BLOCK_SIZE])  # which connects first
                continue
            timeout = self.sock.gettimeout()
            self.sock.settimeout(sockets.bounded(timeout))
            super().send(data[start : start + BLOCK_SIZE])
            self.sock.settimeout(timeout)


class _CallersContext:
    """A TLS context of the caller's, as urllib3 is given it: it decides alone, unchanged.

    urllib3 sets a context's `verify_mode`, `check_hostname` and the protocols that it offers,
    and matches names itself where the context does not check them.
    """

    def __init__(self, context: Any) -> None:
        self._context = context

    @property
    def verify_mode(self) -> Any:
        return self._context.verify_mode

    @verify_mode.setter
    def verify_mode(self, mode: object) -> None:
        """Leave it."""

    @property
    def check_hostname(self) -> bool:
        """Whether urllib3 may leave names to the context."""
        return True

    @check_hostname.setter
    def check_hostname(self, value: object) -> None:
        """Leave it."""

    def set_alpn_protocols(self, protocols: object) -> None:
        """Leave them."""

    def wrap_socket(self, sock: socket.socket, server_hostname: str | None = None) -> Any:
        return self._context.wrap_socket(sock, server_hostname=server_hostname)

    def wrap_bio(self, *bios: Any, server_hostname: str | None = None) -> Any:
        return self._context.wrap_bio(*bios, server_hostname=server_hostname)


class _TLSConnection(_Connection, HTTPSConnection):  # pyright: ignore[reportIncompatibleVariableOverride]
    def connect(self) -> None:
        if isinstance(self.ssl_context, _CallersContext) and self.proxy_config is not None:
            self.proxy_config = self.proxy_config._replace(ssl_context=self.ssl_context)
        plain_to_proxy = self.proxy is None or self.proxy.scheme != "https"
        is_common = self.ssl_context is None and plain_to_proxy and not self._has_particulars()
        if is_common and vars(ssl_)["SSLContext"].__module__ in SHARED:
            self.ssl_context = _shared_context(self.cert_reqs, self.ca_certs, self.ca_cert_dir)
            self.ca_certs = self.ca_cert_dir = None  # else they would be loaded again
        self.response = None
        try:
            super().connect()
        except OSError:
            if self.response is None:
                raise
            # http.client puts the status into English. It may also quote what the proxy says.
            status = re.match(rb"HTTP/1\.[01] ([0-9]{3})\b", self.response.head.status_line)
            if status is None or status[1] == b"200":
                raise
            refused = TunnelRefused(int(status[1]))
        else:
            _complete(self.sock)
            return
        raise refused

    def _connect_tls_proxy(self, hostname: str, sock: socket.socket) -> Any:
        return _complete(super()._connect_tls_proxy(hostname, sock))

    def _has_particulars(self) -> bool:
        return any(
            setting is not None
            for setting in (
                *(self.cert_file, self.key_file, self.key_password, self.ca_cert_data),
                *(self.ssl_version, self.ssl_minimum_version, self.ssl_maximum_version),
                *(self.assert_hostname, self.assert_fingerprint),
            )
        )


def _complete(sock: Any) -> Any:
    """Give pyOpenSSL's TLS socket the methods of ssl's that it lacks; return the socket."""
    if not hasattr(sock, "gettimeout"):
        sock.gettimeout = sock.socket.gettimeout
        sock.pending = sock.connection.pending
    return sock


SHARED: Final = frozenset(("ssl", "gevent.ssl", "eventlet.green.ssl"))
"""The modules of whose contexts one is shared. pyOpenSSL's must not be set up again, as urllib3
does for each connection; truststore's let one handshake go on at a time, so that a server which
does not answer would hold up all streams."""
_contexts: dict[tuple[object, ...], ssl.SSLContext] = {}
MAX_CONTEXTS: Final = 16
"""TLS contexts that are kept; more than one program has need of."""


def _shared_context(
    cert_reqs: int | str | None, ca_certs: str | None, ca_cert_dir: str | None
) -> ssl.SSLContext:
    """Return the TLS context that all connections with these settings share.

    Each of them would otherwise have its own copy of the certificates of all
    authorities: 0.7 MB, and some ten milliseconds to load them (measured with
    certifi's, OpenSSL 3). A file or directory that has changed is loaded anew.
    """
    try:
        path = ca_certs or ca_cert_dir
        stamp = os.stat(path) if path else None  # noqa: PTH116
        key = (cert_reqs, ca_certs, ca_cert_dir, stamp and (stamp.st_ino, stamp.st_mtime_ns))
        context = _contexts.get(key)
        if context is not None:
            return context
        context = create_urllib3_context(cert_reqs=resolve_cert_reqs(cert_reqs))
        if ca_certs or ca_cert_dir:
            context.load_verify_locations(ca_certs, ca_cert_dir)
        else:
            context.load_default_certs()
    except OSError as error:  # as urllib3 raises it
        raise SSLError(error) from error
    while len(_contexts) >= MAX_CONTEXTS:
        _contexts.pop(next(iter(_contexts)), None)
    # No lock: of two threads that get here at once, both take what the first has put.
    return _contexts.setdefault(key, context)


class _Stack:
    """The connections of a pool, which is used by one thread.

    `QueueCls` is where urllib3 has a queue with a lock. A signal handler that raises just when
    that has been taken leaves it taken, and the same thread waits for it for ever.
    """

    def __init__(self, maxsize: int = 0) -> None:
        self._items: list[Any] = []
        self._maxsize = maxsize

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:  # noqa: ARG002
        if len(self._items) >= self._maxsize:
            raise queue.Full
        self._items.append(item)

    def get(self, block: bool = True, timeout: float | None = None) -> Any:  # noqa: ARG002
        if not self._items:
            raise queue.Empty
        return self._items.pop()

    def qsize(self) -> int:
        return len(self._items)


class _HTTPPool(urllib3.HTTPConnectionPool):
    QueueCls = _Stack  # type: ignore[assignment]

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"

    # urllib3's own classes do not match its protocol for pyright either.
    ConnectionCls = _Connection  # pyright: ignore[reportAssignmentType]


class _HTTPSPool(urllib3.HTTPSConnectionPool):
    QueueCls = _Stack  # type: ignore[assignment]

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"

    ConnectionCls = _TLSConnection  # pyright: ignore[reportAssignmentType]


# --- Sessions ---


class _Adapter(HTTPAdapter):
    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": _HTTPPool, "https": _HTTPSPool}

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        if not proxy.lower().startswith("socks"):
            manager = super().proxy_manager_for(proxy, **kwargs)
            manager.pool_classes_by_scheme = {"http": _HTTPPool, "https": _HTTPSPool}
            return manager
        with contextlib.suppress(requests.exceptions.InvalidSchema):
            return super().proxy_manager_for(proxy, **kwargs)  # whose connections are PySocks'
        raise NoSocksSupport("a SOCKS proxy needs PySocks: python -m pip install PySocks")

    def cert_verify(self, conn: Any, url: str, verify: Any, cert: Any) -> None:  # noqa: ARG002
        if isinstance(verify, TLS_CONTEXT):
            if conn.scheme == "https":
                # The rest of what a pool makes connections with. No other request of this
                # session has another context.
                conn.conn_kw["ssl_context"] = _CallersContext(verify)
            return
        # requests goes by the URL, and would not verify a proxy that carries plain HTTP in TLS.
        try:
            super().cert_verify(conn, f"{conn.scheme}:", verify, cert)
        except OSError as error:  # a file is not there: perhaps it is just being renewed
            raise requests.exceptions.SSLError(error) from error

    def close(self) -> None:
        # requests only drops the pools, and their connections stay open for as
        # long as a response remembers its pool.
        for manager in (self.poolmanager, *self.proxy_manager.values()):
            for key in manager.pools.keys():  # noqa: SIM118 - it refuses to be iterated over
                pool = manager.pools.get(key)
                if pool is not None:
                    pool.close()
        super().close()


def new_session(cookies: CookieJar) -> requests.Session:
    """Return a session whose exchanges can be aborted in every phase."""
    session = requests.Session()
    session.cookies = cookies
    adapter = _Adapter()
    session.mount("https://", adapter)
    session.mount("http://", adapter)
    return session


def check_verify(session: requests.Session, url: str, verify: object) -> None:
    """Refuse a TLS context for a session of the caller's that cannot take one.

    requests' adapter takes it for a path, in `cert_verify`, unless that is overridden.

    Raises:
        TypeError: it cannot.
    """
    if not isinstance(verify, TLS_CONTEXT):
        return
    try:  # a redirect may lead from http to https
        adapter = session.get_adapter(urlsplit(url)._replace(scheme="https").geturl())
    except requests.exceptions.InvalidSchema:
        return
    own = getattr(adapter, "cert_verify", None)
    if getattr(own, "__func__", None) is HTTPAdapter.cert_verify:
        raise TypeError(
            f"verify: the session's {type(adapter).__name__} cannot take an SSLContext; use no"
            " session, or mount an adapter that has the context (ssl_context=...)"
        )


class Connected:
    """What is left of a response whose body is read by us: the socket, and what has come.

    Attributes:
        sock: the socket.
        received: the bytes that have been received after the head.
        field: returns the value of a header field; None: there is none.
    """

    def __init__(self, below: _Response, received: bytes) -> None:
        self.sock = below.sock
        self.received = received
        self.field: Callable[[str], str | None] = below.getheader
        self._wire = below.wire

    def keep_only_the_socket(self, response: requests.Response) -> None:
        """Let all else go that has brought the response: nothing is read through it any more.

        Pools, connections, http.client's response and the buffer below it: an idle stream
        would take a fifth more memory.
        """
        below = response.raw.connection.response
        below.fp = None
        below.file.detach()  # from `_wire`, which holds the socket open
        response.raw.close()
        response.raw = _TakenOver(self.sock)
        response.connection = None  # type: ignore[assignment] # requests' adapter
        self.received = b""
        del self.field

    def close(self) -> None:
        """Close the connection."""
        self._wire.close()
        self.sock.close()


class _TakenOver(io.RawIOBase):
    """In the place of a response's body that is read by us: of it only the number is left."""

    def __init__(self, sock: Any) -> None:
        self._sock = sock

    def fileno(self) -> int:
        return self._sock.fileno()  # type: ignore[no-any-return]

    def readable(self) -> bool:
        return True

    def readinto(self, target: Any, /) -> int:  # noqa: ARG002
        return 0


def take_over(response: requests.Response) -> Connected | None:
    """Take the body of a response away from http.client, which must not be asked for it again.

    The connection is to be closed afterwards, and not used for another request.

    Returns:
        None if that cannot be done: the connection is not one of ours, as on a session of the
        caller's, through SOCKS or where a hook replaced the response; or the body has been
        begun to be read.
    """
    raw = response.raw
    connection = getattr(raw, "connection", None)
    if not isinstance(connection, _Connection) or raw.tell():
        return None
    below = connection.response
    if below is None or below.fp is not below.file or below.file.closed:
        return None
    if hasattr(below.sock, "suppress_ragged_eofs"):
        # Of a TLS socket of any make. Not before the head is here: then it would be an SSLError
        # instead of no answer.
        below.sock.suppress_ragged_eofs = False
    below.wire.is_dry = True  # peek() then returns what the buffer has, and does not wait
    return Connected(below, below.file.peek())


def set_content(response: requests.Response, body: bytes) -> None:
    """Make `body` the `content` of a response, whose own is not read."""
    raw, response.raw = response.raw, io.BytesIO(body)
    _ = response.content  # requests reads it once and keeps it
    response.raw = raw  # which has the cookies


# --- What would fail in silence ---

KNOWN_TO_WORK: Final = "urllib3 2.8"
SEAMS: Final[Mapping[str, tuple[Any, str]]] = {
    "does _new_conn make a socket": (HTTPConnection.connect, "_new_conn"),
    "does _new_conn make a socket for TLS": (HTTPSConnection.connect, "_new_conn"),
    "does ConnectionCls make a connection": (
        urllib3.HTTPConnectionPool._new_conn,  # noqa: SLF001
        "ConnectionCls",
    ),
    "does pool_classes_by_scheme make a pool": (
        urllib3.PoolManager._new_pool,  # noqa: SLF001
        "pool_classes_by_scheme",
    ),
    "does response_class make a response": (
        http.client.HTTPConnection.getresponse,
        "response_class",
    ),
}
"""Functions of upstream's, each with a name that it must look up. If it did not, everything
would work, but for `close()`, which would no longer be prompt, and for the bounds."""


@functools.cache
def check_upstream() -> None:
    """Refuse a urllib3 or http.client that no longer comes by our classes.

    Raises:
        ImportError: it is made in another way; the text says which version is known to work.
    """
    for what, (function, name) in SEAMS.items():
        if name not in function.__code__.co_names:
            raise ImportError(
                f"this version of urllib3 or of Python has changed internally: no longer {what}."
                f" {KNOWN_TO_WORK} is known to work"
            )
