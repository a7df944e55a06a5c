"""Connections that can be aborted from another thread in every phase.

A session from `new_session()` makes connections that put a duplicate of each socket
into the `Sockets` of the exchange under way, before they connect it. `shutdown()` on
the duplicate ends connecting, the TLS handshake, the wait for the headers and the
body alike, whichever object owns the socket at that moment. The duplicate, and not
the socket itself, because its number cannot be given to another socket while it is
here; and because TLS replaces the socket object half-way.
"""

from __future__ import annotations

import contextlib
import contextvars
import os
import socket
import ssl
import struct
import sys
import threading
from typing import Any, Final

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
from urllib3.util.connection import allowed_gai_family
from urllib3.util.ssl_ import create_urllib3_context, resolve_cert_reqs
from urllib3.util.wait import wait_for_read, wait_for_write

from eventsource.errors import Aborted
from eventsource.runtime.fork import no_fork
from eventsource.runtime.wakeup import Wakeup

from .cookies import CookieJar
from .response import Response

_LONGEST: Final = (2**31 - 1) / 1000
"""Seconds, the most that `poll` can wait: it counts milliseconds in a C int."""

KEEP_ALIVE: Final = [
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    *(
        (socket.IPPROTO_TCP, getattr(socket, option), value)
        for option, value in (
            # Probe after half a minute of silence, every ten seconds; six unanswered
            # probes end the connection, so a dead peer is noticed after a minute and a
            # half. That is also often enough for routers that forget idle connections.
            ("TCP_KEEPIDLE", 30),
            ("TCP_KEEPALIVE", 30),  # as macOS calls it
            ("TCP_KEEPINTVL", 10),
            ("TCP_KEEPCNT", 6),
            # There are no probes while a request waits to be acknowledged: the same
            # minute and a half, in milliseconds, instead of Linux's quarter of an hour.
            ("TCP_USER_TIMEOUT", 90_000),
        )
        if hasattr(socket, option)
    ),
]
"""The options of each socket: level, option, value."""


def set_keep_alive(sock: socket.socket) -> None:
    """Have a dead peer noticed, as far as the system knows how."""
    for option in KEEP_ALIVE:
        with contextlib.suppress(OSError):  # no TCP, or an option that is only declared
            sock.setsockopt(*option)


RESET: Final = struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0)
"""`struct linger`: on, zero seconds."""


class Turns:
    """Whose turn it is among the addresses of a host: those after the one that failed last.

    One that does not answer may take all the time that an attempt has. It would take that
    of each, if each began with it, and an address that answers would never be tried.
    """

    def __init__(self) -> None:
        self.failed: object = None  # by the thread that connects

    def in_turn(self, found: list[Any]) -> list[Any]:
        """Return what `look_up()` has found, in the order to try it."""
        for index, (*_, address) in enumerate(found, 1):
            if address == self.failed:
                return found[index:] + found[:index]
        return found


class Sockets:
    """The sockets of one exchange, in all their phases, from the look-up of the name.

    Any thread may call `shut_down` and `release`, a signal handler too.

    Args:
        turns: what the exchanges of one source have in common.
    """

    def __init__(self, turns: Turns | None = None) -> None:
        self.turns = turns or Turns()
        # Guards what follows. Re-entrant because a signal handler may call
        # shut_down() in the thread that holds it; held for system calls that never
        # wait (dup, shutdown, close), so that no duplicate is closed while used.
        self._lock = threading.RLock()
        self._shut_down = False
        # With each the number of what it is a duplicate of:
        self._duplicates: list[tuple[socket.socket, int]] = []
        self._looking_up: Wakeup | None = None  # what look_up() waits on

    def __bool__(self) -> bool:
        """Whether there is a socket to shut down."""
        return bool(self._duplicates)

    def shut_down(self) -> None:
        """End whatever is waiting on a socket, now and from now on. Never waits."""
        with self._lock:
            self._shut_down = True
            if self._looking_up is not None:
                self._looking_up.set()
            for sock, _ in self._duplicates:
                # Not connected any more; or closed, by a signal handler meanwhile.
                with contextlib.suppress(OSError, ValueError):
                    if wait_for_read(sock, timeout=0):
                        # Unread bytes: reset when closed, which the system does by
                        # itself only if nobody reads them after shutdown(). A server
                        # that waits for our window to open would notice a mere FIN
                        # after a minute.
                        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                    sock.shutdown(socket.SHUT_RDWR)

    def release(self) -> None:
        """Close the duplicates: the exchange is over, and its connections are being closed."""
        # Not with `no_fork()`: close() must not wait. A child that is forked meanwhile may
        # keep a copy of a socket that has been shut down.
        with self._lock:
            while self._duplicates:
                with contextlib.suppress(IndexError):  # a signal handler was here meanwhile
                    self._duplicates.pop()[0].close()

    def __del__(self) -> None:
        for duplicate, _ in self._duplicates:  # of a stream dropped on a session of the caller's
            duplicate.close()

    def renew_lock(self) -> None:
        """There are no other threads any more: one that held the lock will not let go."""
        self._lock = threading.RLock()

    def disown(self) -> None:
        """In the child of a fork: let go of the parent's sockets and leave them as they are.

        Their numbers stay taken, by what says that the stream has ended: objects of
        the parent's threads are left that may yet close them.
        """
        self.renew_lock()
        self._shut_down = True
        if self._looking_up is not None:  # a signal handler forked, in the thread that waits
            self._looking_up.set()
        while self._duplicates:
            duplicate, number = self._duplicates.pop()
            with duplicate, contextlib.suppress(OSError):  # the number is free, it is
                if os.path.sameopenfile(duplicate.fileno(), number):
                    _put_null(number)

    def settle(self) -> None:
        """The response has come, on the connection made last: forget the others.

        Others there are of addresses that refused, of redirects, and after an
        authentication that took two connections.
        """
        with self._lock:
            while len(self._duplicates) > 1:
                self._duplicates.pop(0)[0].close()

    def new_socket(self, family: int, kind: int, protocol: int) -> socket.socket:
        """Return a new socket, of which a duplicate is taken."""
        with no_fork():  # else a child would have a socket that nobody knows of
            sock = socket.socket(family, kind, protocol)
            try:
                self._duplicates.append((sock.dup(), sock.fileno()))
            except BaseException:  # no descriptor is left, or Ctrl-C
                sock.close()
                raise
        return sock

    def connect(self, sock: socket.socket, address: Any, timeout: float | None) -> None:
        """Connect a `new_socket()`; leave it with this timeout.

        It begins under the lock, for a socket that has not begun to connect cannot be shut
        down, and nothing would end what began after that.

        Raises:
            Aborted: `shut_down()` has been called.
            OSError: it cannot be connected; TimeoutError: not in time.
        """
        sock.setblocking(False)
        is_under_way = False
        with self._lock:
            if not self._shut_down:
                try:
                    sock.connect(address)
                except BlockingIOError:
                    is_under_way = True
            if self._shut_down:  # also by a signal handler, meanwhile
                raise Aborted("aborted")
        if is_under_way:
            if not wait_for_write(sock, None if timeout is None else min(timeout, _LONGEST)):
                raise TimeoutError("timed out")
            if self._shut_down:
                raise Aborted("aborted")
            error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if error:
                raise OSError(error, os.strerror(error))
        sock.settimeout(timeout)

    def adopt(self, number: int) -> None:
        """Take a duplicate of a socket that a session of the caller's has connected.

        Raises:
            OSError: the number is that of no socket.
        """
        theirs = socket.socket(fileno=number)
        try:
            duplicate = theirs.dup()
        finally:
            theirs.detach()
        set_keep_alive(duplicate)
        with self._lock:
            self._duplicates.append((duplicate, number))

    def look_up(self, host: str, port: int, timeout: float | None) -> list[Any]:
        """Return the addresses of `host`, as `socket.getaddrinfo` does.

        Unlike that, `shut_down()` ends it, and `timeout` seconds. As nothing can
        interrupt the resolver, it runs in a thread of its own, which is left to
        itself when its answer is no longer wanted.
        """
        with contextlib.suppress(socket.gaierror):
            return _get_addresses(host, port, socket.AI_NUMERICHOST)
        found: list[Any] = []
        failures: list[Exception] = []
        wakeup = Wakeup()

        def ask() -> None:
            try:
                found.extend(_get_addresses(host, port))
            except Exception as error:  # whatever it is, it is for the one who asked
                failures.append(error)
            wakeup.set()

        with self._lock:
            if self._shut_down:
                raise Aborted("aborted")
            self._looking_up = wakeup
        threading.Thread(target=ask, name=f"eventsource-dns {host}", daemon=True).start()
        try:
            if not wakeup.wait(timeout):
                raise TimeoutError(f"looking up {host} timed out")
        finally:
            self._looking_up = None
        if self._shut_down:
            raise Aborted("aborted")
        if failures:
            raise failures[0]
        return found


def _put_null(number: int) -> None:
    """Make the file descriptor `number` one of the null device."""
    null = os.open(os.devnull, os.O_RDWR)
    try:
        os.dup2(null, number, inheritable=False)
    finally:
        os.close(null)


def _get_addresses(host: str, port: int, flags: int = 0) -> list[Any]:
    return socket.getaddrinfo(host, port, allowed_gai_family(), socket.SOCK_STREAM, 0, flags)


current_sockets: contextvars.ContextVar[Sockets | None] = contextvars.ContextVar(
    "eventsource_sockets", default=None
)
"""Where connections that the running thread makes belong. A context variable, because
requests and urllib3 have no way to hand an object down to a connection."""


class _AbortableConnection(HTTPConnection):
    """A connection whose socket is in `Sockets` before it connects.

    `_new_conn` is urllib3's seam for this; the errors are those that its own raises.
    """

    response_class = Response

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"  # as it stands in the texts of errors

    def _new_conn(self) -> socket.socket:
        sockets = current_sockets.get()
        if sockets is None:
            return super()._new_conn()
        try:
            return self._connect(sockets, self._dns_host.strip("[]"))
        except UnicodeError as error:  # from the resolver: no such name can be
            raise LocationParseError(self.host) from error
        except socket.gaierror as error:
            raise NameResolutionError(self.host, self, error) from error
        except TimeoutError as error:
            raise ConnectTimeoutError(
                self, f"Connection to {self.host} timed out. (connect timeout={self.timeout})"
            ) from error
        except OSError as error:
            raise NewConnectionError(self, f"Failed to connect: {error}") from error

    def _connect(self, sockets: Sockets, host: str) -> socket.socket:
        failure = OSError("the name has no address")
        found = sockets.look_up(host, self.port, self.timeout)
        for family, kind, protocol, _, address in sockets.turns.in_turn(found):
            sock = None
            try:
                sock = sockets.new_socket(family, kind, protocol)
                for option in self.socket_options or []:
                    sock.setsockopt(*option)
                set_keep_alive(sock)
                sockets.connect(sock, address, self.timeout)
            except OSError as error:
                failure = error
                sockets.turns.failed = address
                if sock is not None:
                    sock.close()
                if isinstance(error, Aborted):
                    break
            except BaseException:  # Ctrl-C, say
                if sock is not None:
                    sock.close()
                raise
            else:
                return sock
        raise failure


class _AbortableHTTPSConnection(_AbortableConnection, HTTPSConnection):
    def connect(self) -> None:
        plain_to_proxy = self.proxy is None or self.proxy.scheme != "https"
        if self.ssl_context is None and plain_to_proxy and not self._has_particulars():
            self.ssl_context = _shared_context(self.cert_reqs, self.ca_certs, self.ca_cert_dir)
            self.ca_certs = self.ca_cert_dir = None  # else they would be loaded again
        super().connect()

    def _has_particulars(self) -> bool:
        return any(
            setting is not None
            for setting in (
                *(self.cert_file, self.key_file, self.key_password, self.ca_cert_data),
                *(self.ssl_version, self.ssl_minimum_version, self.ssl_maximum_version),
                *(self.assert_hostname, self.assert_fingerprint),
            )
        )


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


class _HTTPPool(urllib3.HTTPConnectionPool):
    def __str__(self) -> str:
        return f"{self.host}:{self.port}"

    # urllib3's own classes do not match its protocol for pyright either.
    ConnectionCls = _AbortableConnection  # pyright: ignore[reportAssignmentType]


class _HTTPSPool(urllib3.HTTPSConnectionPool):
    def __str__(self) -> str:
        return f"{self.host}:{self.port}"

    ConnectionCls = _AbortableHTTPSConnection  # pyright: ignore[reportAssignmentType]


class _Adapter(HTTPAdapter):
    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": _HTTPPool, "https": _HTTPSPool}

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(proxy, **kwargs)
        if not proxy.lower().startswith("socks"):  # whose connections are PySocks'
            manager.pool_classes_by_scheme = {"http": _HTTPPool, "https": _HTTPSPool}
        return manager

    def cert_verify(self, conn: Any, url: str, verify: Any, cert: Any) -> None:  # noqa: ARG002
        # requests goes by the URL, and would not verify a proxy that carries plain HTTP in TLS.
        try:
            super().cert_verify(conn, f"{conn.scheme}:", verify, cert)
        except OSError as error:  # a file is not there: perhaps it is just being renewed
            raise requests.exceptions.SSLError(error) from error

    def close(self) -> None:
        # requests only lets go of the pools, and their connections stay open for as
        # long as a response remembers its pool.
        for manager in (self.poolmanager, *self.proxy_manager.values()):
            for key in manager.pools.keys():  # noqa: SIM118 - it refuses to be iterated over
                pool = manager.pools.get(key)
                if pool is not None:
                    pool.close()
        super().close()


def new_session() -> requests.Session:
    """A session whose exchanges can be aborted in every phase."""
    session = requests.Session()
    session.cookies = CookieJar()
    adapter = _Adapter()
    session.mount("https://", adapter)
    session.mount("http://", adapter)
    return session
