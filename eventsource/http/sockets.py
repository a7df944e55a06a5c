"""The sockets of one exchange, from the look-up of the name on; any thread may shut them down.

A duplicate of each socket is kept from before it connects. `shutdown()` on the duplicate
ends connecting, the TLS handshake, the wait for the head and the body alike, whichever
object owns the socket at that moment. It is the duplicate, and not the socket itself,
because its number cannot be given to another socket while it is here, and because TLS
replaces the socket object half-way.
"""

from __future__ import annotations

import contextlib
import contextvars
import copy
import functools
import math
import os
import socket
import struct
import sys
import threading
import time
from typing import Any, Final, cast

from urllib3.util import wait_for_read, wait_for_write
from urllib3.util.connection import allowed_gai_family

from eventsource.errors import Aborted
from eventsource.runtime.fork import close_in_child, no_fork
from eventsource.runtime.wakeup import Wakeup

LONGEST_POLL: Final = (2**31 - 1) / 1000
"""Seconds that `poll` can wait at the most: it counts milliseconds in a C int."""

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

RESET: Final = struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0)
"""`struct linger`: on, zero seconds."""


def set_keep_alive(sock: socket.SocketType) -> None:
    """Have a dead peer noticed, as far as the system knows how."""
    for option in KEEP_ALIVE:
        with contextlib.suppress(OSError):  # no TCP, or an option that is only declared
            sock.setsockopt(*option)


class AddressRotation:
    """The order in which a host's addresses are tried: those after the one that failed last.

    An address that does not answer may take all the time that an attempt has. If each
    attempt began with it, an address that answers would never be tried.
    """

    def __init__(self) -> None:
        self.failed: object = None  # written by the thread that connects

    def in_order(self, found: list[Any]) -> list[Any]:
        """Return what `look_up()` has found, in the order to try it."""
        for index, (*_, address) in enumerate(found, 1):
            if address == self.failed:
                return found[index:] + found[:index]
        return found


class Sockets:
    """The sockets of one exchange, in all their phases.

    Threads: `shut_down` and `release` are for any thread and for signal handlers, all else
    is for the thread of the exchange.

    Args:
        rotation: the order of addresses, which the exchanges of one stream share.

    Attributes:
        is_shut_down: whether the exchange has been aborted. Set once, never unset.
        deadline: the moment (`time.monotonic()`) by which the head must have come.
    """

    def __init__(self, rotation: AddressRotation | None = None) -> None:
        # Guarded by `_lock`; with each the number of what it is a duplicate of. First, for
        # `__del__` needs it, also if a signal handler raises before the end of this.
        self._duplicates: list[tuple[socket.SocketType, int]] = []
        self.rotation = rotation or AddressRotation()
        self.is_shut_down = False
        self.deadline = math.inf
        # Guards what follows. Re-entrant because a signal handler may call
        # shut_down() in the thread that holds it; held for system calls that never
        # wait (dup, shutdown, close), so that no duplicate is closed while used.
        self._lock = threading.RLock()
        self._looking_up: Wakeup | None = None  # what look_up() waits on

    def __bool__(self) -> bool:
        """Whether there is a socket to shut down."""
        return bool(self._duplicates)

    def bounded(self, timeout: float | None) -> float | None:
        """Return `timeout`, or the time that is left until the deadline if that is less.

        Raises:
            TimeoutError: the deadline has passed.
        """
        if self.deadline == math.inf:
            return timeout
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        return left if timeout is None else min(timeout, left)

    def shut_down(self) -> None:
        """End whatever is waiting on a socket, now and from now on. Never waits."""
        with self._lock:
            self.is_shut_down = True
            if self._looking_up is not None:
                self._looking_up.set()
            for sock, _ in self._duplicates:
                # Not connected any more; or closed, by a signal handler meanwhile.
                with contextlib.suppress(OSError, ValueError):
                    if wait_for_read(cast("socket.socket", sock), timeout=0):
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
        """There are no other threads any more: one that held the lock will not release it."""
        self._lock = threading.RLock()

    def disown(self) -> None:
        """In the child of a fork: drop the parent's sockets and leave them as they are.

        Their numbers stay taken, by the null device: objects of the parent's threads are
        left that may yet close them.
        """
        self.renew_lock()
        self.is_shut_down = True
        if self._looking_up is not None:  # a signal handler forked, in the thread that waits
            self._looking_up.set()
        while self._duplicates:
            duplicate, number = self._duplicates.pop()
            with contextlib.suppress(OSError):  # the number may be free by now
                if os.path.sameopenfile(duplicate.fileno(), number):
                    null = os.open(os.devnull, os.O_RDWR)
                    os.dup2(null, number, inheritable=False)
                    os.close(null)
            duplicate.close()

    def settle(self) -> None:
        """The response has come, on the connection made last: forget the others.

        Others there are of addresses that refused, of redirects, and after an
        authentication that took two connections.
        """
        with self._lock:
            while len(self._duplicates) > 1:
                self._duplicates.pop(0)[0].close()

    def connect_to(
        self, host: str, port: int, timeout: float | None, options: list[Any]
    ) -> socket.socket:
        """Return a socket that is connected to `host`, with this timeout and these options.

        Raises:
            Aborted: `shut_down()` has been called.
            UnicodeError: no host can have this name.
            OSError: no address can be connected to; TimeoutError: not in time.
        """
        failure = OSError("the name has no address")
        for family, kind, protocol, _, address in self.rotation.in_order(
            self.look_up(host, port, timeout)
        ):
            sock = None
            try:
                sock = self.new_socket(family, kind, protocol)
                for option in options:
                    sock.setsockopt(*option)
                set_keep_alive(sock)
                self.connect(sock, address, timeout)
            except OSError as error:
                failure = error
                self.rotation.failed = address
                if sock is not None:
                    sock.close()
                if isinstance(error, Aborted) or time.monotonic() >= self.deadline:
                    break  # before another address is blamed
            except BaseException:  # Ctrl-C, say
                if sock is not None:
                    sock.close()
                raise
            else:
                return sock
        raise failure

    def new_socket(self, family: int, kind: int, protocol: int) -> socket.socket:
        """Return a new socket, of which a duplicate is taken."""
        with no_fork():  # else a child would have a socket that nobody knows of
            sock = socket.socket(family, kind, protocol)
            try:
                self._duplicates.append((_duplicate(sock), sock.fileno()))
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
        wait = self.bounded(timeout)
        if wait is not None:
            wait = min(wait, LONGEST_POLL)
        sock.setblocking(False)
        is_under_way = False
        with self._lock:
            if not self.is_shut_down:
                try:
                    sock.connect(address)
                except BlockingIOError:
                    is_under_way = True
            if self.is_shut_down:  # also by a signal handler, meanwhile
                raise Aborted("aborted")
        if is_under_way:
            if not wait_for_write(sock, wait):
                raise TimeoutError("timed out")
            if self.is_shut_down:
                raise Aborted("aborted")
            error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if error:
                raise OSError(error, os.strerror(error))
        sock.settimeout(self.bounded(timeout))

    def adopt(self, number: int) -> None:
        """Take a duplicate of a socket that a session of the caller's has connected.

        Raises:
            OSError: the number is that of no socket.
        """
        theirs = socket.socket(fileno=number)
        try:
            duplicate = _duplicate(theirs)
        finally:
            theirs.detach()
        set_keep_alive(duplicate)
        with self._lock:
            self._duplicates.append((duplicate, number))

    def look_up(self, host: str, port: int, timeout: float | None) -> list[Any]:
        """Return the addresses of `host`, as `socket.getaddrinfo` does.

        Unlike that, `shut_down()` ends it, and `timeout` seconds. What is being looked up
        for another exchange is waited for, and not looked up a second time.
        """
        with contextlib.suppress(socket.gaierror):
            return get_addresses(host, port, allowed_gai_family(), socket.AI_NUMERICHOST)
        limit = self.bounded(timeout)
        wakeup = Wakeup()
        with self._lock:
            if self.is_shut_down:
                raise Aborted("aborted")
            self._looking_up = wakeup
        try:
            answer = _look_ups.ask(host, port, wakeup)
            try:
                if not answer.is_here and not wakeup.wait(limit):
                    raise TimeoutError(f"looking up {host} timed out")
            finally:
                answer.leave(wakeup)
        finally:
            self._looking_up = None
        if self.is_shut_down:
            raise Aborted("aborted")
        if answer.failure is not None:
            raise copy.copy(answer.failure)  # the others raise it, too, in their threads
        return answer.found


class _Answer:
    """What the resolver says to one question, and who waits for it.

    Each side changes its part before it reads the other's (`waiting`, `is_here`), so whoever
    begins to wait is woken, or sees that the answer is here.
    """

    def __init__(self) -> None:
        self.waiting: list[Wakeup] = []
        self.is_here = False
        self.found: list[Any] = []
        self.failure: Exception | None = OSError("the look-up was given up")

    def leave(self, wakeup: Wakeup) -> None:
        """Wait no longer."""
        with contextlib.suppress(ValueError):
            self.waiting.remove(wakeup)

    def give(self) -> None:
        """Wake those who wait."""
        self.is_here = True
        for wakeup in [*self.waiting]:
            wakeup.set()


class _LookUps:
    """What this process is asking the resolver: each question once at a time.

    Nothing can interrupt the resolver, so each question has a thread of its own, which is
    left to itself when nobody waits any more. While it is under way, whoever has the same
    question waits for its answer, which nobody gets who asks after that has come. So a
    resolver that hangs keeps one thread for each host, however many attempts there are.

    Threads: all is for any thread. No lock is needed: each step is one call of a dict or list.
    """

    def __init__(self) -> None:
        self._under_way: dict[tuple[Any, ...], _Answer] = {}
        close_in_child(self, _LookUps._forget)

    def ask(self, host: str, port: int, wakeup: Wakeup) -> _Answer:
        """Return the answer that is to come; `wakeup` is set when it is there."""
        question = (host, port, allowed_gai_family())
        own = _Answer()
        has_begun = False
        try:
            answer = self._under_way.setdefault(question, own)
            answer.waiting.append(wakeup)
            if answer is own:
                name = f"eventsource-dns {host}"
                threading.Thread(
                    target=self._look_up, args=(question, own), name=name, daemon=True
                ).start()
            has_begun = True
        finally:
            if not has_begun:  # there are too many threads, or Ctrl-C
                self._end(question, own)
        return answer

    def _look_up(self, question: tuple[Any, ...], answer: _Answer) -> None:
        try:
            answer.found = get_addresses(*question)
            answer.failure = None
        except Exception as error:  # whatever it is, it is for those who asked
            answer.failure = error.with_traceback(None)  # else they keep each other alive
        finally:
            self._end(question, answer)

    def _end(self, question: tuple[Any, ...], answer: _Answer) -> None:
        if self._under_way.get(question) is answer:
            self._under_way.pop(question, None)
        answer.give()

    def _forget(self) -> None:
        """In the child of a fork: the threads that would end them are the parent's."""
        self._under_way.clear()


_look_ups: Final = _LookUps()


def _duplicate(sock: socket.socket) -> socket.SocketType:
    """Return a duplicate of a socket, with its own descriptor."""
    if sys.platform == "win32":
        return sock.dup()
    make = functools.partial(socket.SocketType, sock.family, sock.type, sock.proto)
    # In one call of C: a signal handler that raises between two would leave a descriptor that
    # nobody knows of, as in `socket.dup`.
    return next(map(make, map(os.dup, (sock.fileno(),))))


def get_addresses(host: str, port: int, family: int, flags: int = 0) -> list[Any]:
    """Return the addresses of a host, as `socket.getaddrinfo` does.

    Of an IPv6 address with a zone, too, in its spelling in a URL: `fe80::1%25eth0` (RFC 6874).
    """
    if ":" in host and "%25" in host:
        address, _, zone = host.partition("%25")
        # By its number: some systems take the name only with an address that needs a zone.
        host = f"{address}%{zone if zone.isdecimal() else socket.if_nametoindex(zone)}"
    return socket.getaddrinfo(host, port, family, socket.SOCK_STREAM, 0, flags)


current_sockets: contextvars.ContextVar[Sockets | None] = contextvars.ContextVar(
    "eventsource_sockets", default=None
)
"""Where connections that the running thread makes belong. A context variable, because
requests and urllib3 have no way to hand an object down to a connection."""
