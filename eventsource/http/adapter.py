"""Everything that depends on the internals of requests, urllib3 and http.client, and why.

`new_session()` makes sessions whose connections put their sockets into the `Sockets` of the
current exchange, which can be shut down in every phase. http.client, through urllib3's
pools, reads the head of a response (and the bodies that hooks, redirects and digest
authentication read). Then `take_over()` takes the body away from it. Each use of an
undocumented interface has its reason beside it, and a test of the same name in
`tests/loopback/http/test_upstream.py`, which fails if upstream changes. `check_upstream()`
refuses to start if a change would otherwise go unnoticed.
"""

from __future__ import annotations

import contextlib
import functools
import http
import http.client
import io
import netrc  # noqa: F401 - else requests does so in a thread; a fork would copy the held lock
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
"""The most bytes of a response's status line and header fields, with those of interim
responses (1xx): the limit of browsers. http.client limits a line to a quarter of that."""
MAX_FIELDS: Final = 99 if sys.version_info < (3, 15) else 100
"""The most header fields of a response. http.client allows 100 lines, and before Python 3.15
it also counts the blank line after them."""
BLOCK_SIZE: Final = 64 * 1024
"""The most bytes of a request that one call sends. Each call has its own timeout."""

_SPACE_AFTER: Final = re.compile(rb"(?<=[^ \t])[ \t]++(?=\r?\n\Z)")
"""Whitespace after a value, which is not part of it (RFC 9112, 5). http.client keeps it."""


# --- The head ---


class _Wire(io.RawIOBase):
    """The raw file below http.client. No read waits past the deadline of the exchange."""

    _file: Any = None

    def __init__(self, sock: Any, sockets: Sockets) -> None:
        self._sock = sock
        self._sockets = sockets
        self._file = sock.makefile("rb", buffering=0)  # keeps the socket open until close()
        self.is_dry = False
        """Whether `readinto` reports that nothing has arrived, and does not read."""

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
        if self._file is not None:  # None: an exception has interrupted the constructor
            self._file.close()
        super().close()


class _HeadReader:
    """The file from which http.client reads the head of a response, also of a proxy's.

    http.client takes the end of the connection for the end of the fields, and does not
    limit the size of the head.
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
    """http.client's response, which accepts only a complete head within the limits.

    http.client looks up its class as `response_class`. Its attributes `begin`, `fp` and
    `headers` have no underscore and no documentation. It takes an interim response (RFC 9110,
    15.2) other than 100 for the final one, whose status would then close the stream for good.
    """

    def __init__(self, connection: _Connection, sock: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self.fp.close()  # nothing has been read from it
        self.sock = sock
        sockets = current_sockets.get()
        self.wire = _Wire(sock, Sockets() if sockets is None else sockets)
        self.file = io.BufferedReader(self.wire, BLOCK_SIZE)
        self.head = _HeadReader(self.file)
        self.fp = self.head  # type: ignore[assignment]
        connection.response = self

    def begin(self) -> None:
        """Skip interim responses, and read the head of the final one."""
        try:
            super().begin()
            while 100 < self.status < 200 and self.status != http.HTTPStatus.SWITCHING_PROTOCOLS:
                self.headers = None  # type: ignore[assignment]  # else begin() does nothing
                super().begin()
            # Else urllib3 would log a warning about malformed fields that quotes the URL with
            # its query, and the fields after them, cookies included.
            self.headers.defects.clear()
            self.headers.set_payload("")
            drop_bad_cookies(self.headers)
        except http.client.HTTPException as error:
            if type(error) is http.client.HTTPException:  # raised for too many fields only
                raise HeadTooLarge(MAX_FIELDS + 1, MAX_FIELDS, "fields") from None
            raise
        finally:
            if self.fp is not None:  # None: begin() has closed it
                self.fp = self.file  # type: ignore[assignment]


# --- Connections ---


class _Connection(HTTPConnection):
    """A connection whose socket is in `Sockets` before it connects.

    `_new_conn` is the only place where urllib3 makes a socket. This one raises the same errors
    as urllib3's.
    """

    def __init__(self, host: str, *args: Any, **kwargs: Any) -> None:
        super().__init__(host, *args, **kwargs)
        self.name = host.strip("[]")  # with a final dot, which `self.host` lacks
        self.response: _Response | None = None
        """The last response; http.client makes one for a proxy's answer, too."""

    def response_class(self, sock: Any, *args: Any, **kwargs: Any) -> _Response:  # type: ignore[override]
        """Make a response. http.client expects a class here, and calls it."""
        return _Response(self, sock, *args, **kwargs)

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"  # shown in the texts of errors

    def _new_conn(self) -> socket.socket:
        sockets = current_sockets.get()
        if sockets is None:
            return super()._new_conn()
        try:
            return sockets.connect_to(
                self.name, self.port, self.timeout, [*(self.socket_options or [])]
            )
        except UnicodeError as error:  # from the resolver: not a valid host name
            raise LocationParseError(self.host) from error
        except socket.gaierror as error:
            raise NameResolutionError(self.host, self, error) from error
        except TimeoutError as error:
            what = "timed out" if error.errno else error  # with an errno it is TCP's own
            raise ConnectTimeoutError(  # without the connection: its repr would be in the text
                f"Connection to {self.host} {what}. (connect timeout={self.timeout})"
            ) from error
        except OSError as error:
            raise NewConnectionError(self, f"Failed to connect: {error}") from error

    def send(self, data: Any) -> None:
        """Send part of the request. No call waits past the deadline of the exchange."""
        sockets = current_sockets.get()
        if sockets is None or not isinstance(data, bytes):
            super().send(data)
            return
        for start in range(0, len(data), BLOCK_SIZE):
            if self.sock is None:
                super().send(data[start : start + BLOCK_SIZE])  # connects first
                continue
            timeout = self.sock.gettimeout()
            self.sock.settimeout(sockets.bounded(timeout))
            super().send(data[start : start + BLOCK_SIZE])
            self.sock.settimeout(timeout)


class _CallersContext:
    """Passes the caller's TLS context to urllib3, which can neither change it nor add checks.

    urllib3 would set its `verify_mode`, `check_hostname` and ALPN protocols, and would match
    host names itself if the context does not check them.
    """

    def __init__(self, context: Any) -> None:
        self._context = context

    @property
    def verify_mode(self) -> Any:
        return self._context.verify_mode

    @verify_mode.setter
    def verify_mode(self, mode: object) -> None:
        """Ignore the value."""

    @property
    def check_hostname(self) -> bool:
        """True: urllib3 then does not match host names itself."""
        return True

    @check_hostname.setter
    def check_hostname(self, value: object) -> None:
        """Ignore the value."""

    def set_alpn_protocols(self, protocols: object) -> None:
        """Ignore them."""

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
            # The text of http.client's error may quote the proxy's answer, so it is not used.
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
"""Modules whose TLS contexts connections can share. pyOpenSSL's must not be configured again,
as urllib3 does for each connection. truststore's run one handshake at a time, so a server that
does not answer would delay all streams."""
_contexts: dict[tuple[object, ...], ssl.SSLContext] = {}
MAX_CONTEXTS: Final = 16
"""The most TLS contexts that are kept; a program needs fewer."""


def _shared_context(
    cert_reqs: int | str | None, ca_certs: str | None, ca_cert_dir: str | None
) -> ssl.SSLContext:
    """Return the TLS context that all connections with these settings share.

    Otherwise each connection would load its own copy of the CA certificates: 0.7 MB
    and about ten milliseconds (measured with certifi's, OpenSSL 3). A file or
    directory that has changed is loaded again.
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
    # No lock: if two threads get here at once, both return the context stored first.
    return _contexts.setdefault(key, context)


class _Stack:
    """The connections of a pool that one thread uses: a stack without a lock.

    urllib3's own `QueueCls` has a lock. If a signal handler raises just after the lock has been
    acquired, it is never released, and the same thread waits for it for ever.
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
                # The pool passes `conn_kw` to its connections. All requests of this session
                # have the same context.
                conn.conn_kw["ssl_context"] = _CallersContext(verify)
            return
        # requests looks at the URL's scheme: for http it would not verify an https proxy.
        try:
            super().cert_verify(conn, f"{conn.scheme}:", verify, cert)
        except OSError as error:  # a file is missing, perhaps while it is being replaced
            raise requests.exceptions.SSLError(error) from error

    def close(self) -> None:
        # requests only drops the pools; their connections would stay open as long
        # as a response refers to its pool.
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
    """Refuse a TLS context if the caller's session cannot use one.

    `cert_verify` of requests' adapter takes it for a path, unless it is overridden.

    Raises:
        TypeError: the session cannot use it.
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
    """What reading a response's body ourselves needs: the socket, and the bytes received.

    Attributes:
        sock: the socket.
        received: the bytes that have been received after the head.
        field: returns the value of a header field, or None.
    """

    def __init__(self, below: _Response, received: bytes) -> None:
        self.sock = below.sock
        self.received = received
        self.field: Callable[[str], str | None] = below.getheader
        self._wire = below.wire

    def keep_only_the_socket(self, response: requests.Response) -> None:
        """Drop everything else that the response came through; it is not used any more.

        With the pool, the connection, http.client's response and its buffer, an idle stream
        would take a fifth more memory.
        """
        below = response.raw.connection.response
        below.fp = None
        below.file.detach()  # from `_wire`, which keeps the socket open
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
    """Replaces the body of a response that we read ourselves; has only its file descriptor."""

    def __init__(self, sock: Any) -> None:
        self._sock = sock

    def fileno(self) -> int:
        return self._sock.fileno()  # type: ignore[no-any-return]

    def readable(self) -> bool:
        return True

    def readinto(self, target: Any, /) -> int:  # noqa: ARG002
        return 0


def take_over(response: requests.Response) -> Connected | None:
    """Take the body of a response away from http.client, which must not read it afterwards.

    The connection must be closed after the body, not used for another request.

    Returns:
        None if that is not possible: the connection is not one of ours (the caller's session,
        SOCKS, or a hook that replaced the response), or part of the body has been read.
    """
    raw = response.raw
    connection = getattr(raw, "connection", None)
    if not isinstance(connection, _Connection) or raw.tell():
        return None
    below = connection.response
    if below is None or below.fp is not below.file or below.file.closed:
        return None
    if hasattr(below.sock, "suppress_ragged_eofs"):
        # TLS sockets of every library have it. Not set before the head has come: the error
        # would then be an SSLError, not that there was no answer.
        below.sock.suppress_ragged_eofs = False
    below.wire.is_dry = True  # peek() then returns what the buffer has, and does not wait
    return Connected(below, below.file.peek())


def set_content(response: requests.Response, body: bytes) -> None:
    """Set the `content` of a response to `body`, without reading its own body."""
    raw, response.raw = response.raw, io.BytesIO(body)
    _ = response.content  # requests reads it once and keeps it
    response.raw = raw  # requests takes the cookies from it


# --- Changes of upstream that would go unnoticed ---

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
"""Functions of urllib3 and http.client, each with a name that it must look up. If one did not,
streams would still work, but `close()` would not be prompt and limits would not hold."""


@functools.cache
def check_upstream() -> None:
    """Refuse a urllib3 or http.client that no longer uses our classes.

    Raises:
        ImportError: it does not use them; the text says which version is known to work.
    """
    for what, (function, name) in SEAMS.items():
        if name not in function.__code__.co_names:
            raise ImportError(
                f"this version of urllib3 or of Python has changed internally: no longer {what}."
                f" {KNOWN_TO_WORK} is known to work"
            )
