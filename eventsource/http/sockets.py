"""The sockets of one exchange, from the look-up on; any thread may shut them down.

A duplicate of each socket is kept from before it connects. `shutdown()` on the duplicate
ends connecting, the TLS handshake, the wait for the head and the body alike, whichever
object owns the socket at that moment. A duplicate is used instead of the socket itself for
two reasons: as long as it exists, its number cannot be given to another socket; and TLS
replaces the socket object during the handshake.

The addresses of a host race (RFC 8305, "Happy Eyeballs"), in the thread that connects. This
thread waits only while a socket is connecting, so shutting the socket down ends the wait.
"""

from __future__ import annotations

import contextlib
import contextvars
import copy
import functools
import itertools
import math
import os
import select
import socket
import struct
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any, Final, cast

from urllib3.util import wait_for_read
from urllib3.util.connection import allowed_gai_family

from eventsource.errors import Aborted
from eventsource.runtime.fork import close_in_child, no_fork
from eventsource.runtime.wakeup import Wakeup

LONGEST_POLL: Final = (2**31 - 1) / 1000
"""Seconds that `poll` can wait at the most: it counts milliseconds in a C int."""

ATTEMPT_DELAY_SECONDS: Final = 0.25
"""Between the starts of two connection attempts, if none fails: RFC 8305, section 5."""

LEAST_ATTEMPT_DELAY_SECONDS: Final = 0.01
"""However many addresses are to have their turn within the timeout: RFC 8305, section 8."""

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


class Sockets:
    """The sockets of one exchange, in all their phases.

    Threads: `shut_down` and `release` are for any thread and for signal handlers, all else
    is for the thread of the exchange.

    Attributes:
        is_shut_down: whether the exchange has been aborted. Set once, never unset.
        deadline: the moment (`time.monotonic()`) by which the head must have come.
    """

    def __init__(self) -> None:
        # Guarded by `_lock`; with each the number of what it is a duplicate of. First, for
        # `__del__` needs it, also if a signal handler raises before the end of this.
        self._duplicates: list[tuple[socket.SocketType, int]] = []
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

        Others there are of redirects, and after an authentication that took two connections.
        """
        with self._lock:
            while len(self._duplicates) > 1:
                self._duplicates.pop(0)[0].close()

    def connect_to(
        self, host: str, port: int, timeout: float | None, options: list[Any]
    ) -> socket.socket:
        """Return a socket that is connected to `host`, with this timeout and these options.

        The addresses are tried in turn, each `ATTEMPT_DELAY_SECONDS` after the one before, or
        as soon as one fails; earlier if not all would have their turn within the timeout. The
        first that connects is taken, and the others are closed.

        Args:
            host: a name or an address.
            port: its number.
            timeout: seconds for the look-up and for connecting to whichever address, all in all.
            options: of each socket: level, option, value.

        Raises:
            Aborted: `shut_down()` has been called.
            UnicodeError: no host can have this name.
            OSError: no address can be connected to: that of the first that failed. Its text
                has the reasons of the others, too, and how many there were.
            TimeoutError: not in time.
        """
        end = math.inf if timeout is None else time.monotonic() + timeout
        found = interleaved(self.look_up(host, port, timeout))
        under_way: list[socket.socket] = []
        try:
            sock = self._race(found, options, min(end, self.deadline), under_way)
            sock.settimeout(self.bounded(timeout))
            under_way.remove(sock)
            return sock
        finally:
            while under_way:
                self._drop(under_way.pop())

    def _race(
        self, untried: list[Any], options: list[Any], end: float, under_way: list[socket.socket]
    ) -> socket.socket:
        """Try addresses until one has connected; `under_way` has all that are connecting."""
        failures = _Failures(len(untried))
        while untried or under_way:
            until, now = end, time.monotonic()
            if now >= end:
                raise failures.timed_out()
            if untried:  # each is to have its turn before the end
                turn = min(ATTEMPT_DELAY_SECONDS, (end - now) / len(untried))
                until = now + max(turn, LEAST_ATTEMPT_DELAY_SECONDS)
                try:
                    under_way.append(self._begin(untried.pop(0), options))
                except Aborted:
                    raise
                except OSError as error:
                    failures.add(error)
                    continue
            sock = self._first_connected(under_way, until, failures)
            if sock is not None:
                return sock
        raise failures.of_all()

    def _begin(self, found: Any, options: list[Any]) -> socket.socket:
        """Begin to connect to an address; return the socket.

        Raises:
            Aborted: `shut_down()` has been called.
            OSError: it cannot be connected.
        """
        family, kind, protocol, _, address = found
        sock = self.new_socket(family, kind, protocol)
        try:
            for option in options:
                sock.setsockopt(*option)
            set_keep_alive(sock)
            sock.setblocking(False)
            self.connect(sock, address)
        except BaseException:  # Ctrl-C, say
            self._drop(sock)
            raise
        return sock

    def connect(self, sock: socket.socket, address: Any) -> None:
        """Begin to connect a `new_socket()` that does not block.

        It begins under the lock, for a socket that has not begun to connect cannot be shut
        down, and nothing would end what began after that.

        Raises:
            Aborted: `shut_down()` has been called.
            OSError: it cannot be connected.
        """
        with self._lock:
            if not self.is_shut_down:
                with contextlib.suppress(BlockingIOError):
                    sock.connect(address)
            if self.is_shut_down:  # also by a signal handler, meanwhile
                raise Aborted("aborted")

    def _first_connected(
        self, under_way: list[socket.socket], until: float, failures: _Failures
    ) -> socket.socket | None:
        """Wait for what comes of attempts; return a socket that has connected.

        Returns:
            None if one has failed, or the moment has come. Those that have failed are taken
            out of `under_way`.
        """
        for sock in wait_for_write(under_way, until - time.monotonic()):
            if self.is_shut_down:
                raise Aborted("aborted")
            number = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if not number:
                return sock
            failures.add(OSError(number, os.strerror(number)))
            under_way.remove(sock)
            self._drop(sock)
        return None

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

    def _drop(self, sock: socket.socket) -> None:
        """Close a socket that is not needed, and its duplicate, without which it would go on.

        The duplicate is forgotten last: until then a fork and `release()` find it.
        """
        number = sock.fileno()
        sock.close()
        with self._lock:
            for known in [known for known in self._duplicates if known[1] == number]:
                known[0].close()
                with contextlib.suppress(ValueError):  # a signal handler has forked meanwhile
                    self._duplicates.remove(known)

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
                    raise TimeoutError("timed out while the name was looked up")
            finally:
                answer.leave(wakeup)
        finally:
            self._looking_up = None
        if self.is_shut_down:
            raise Aborted("aborted")
        if answer.failure is not None:
            raise copy.copy(answer.failure)  # the others raise it, too, in their threads
        return answer.found


class _Failures:
    """Why the addresses of a host, so many, cannot be connected to."""

    def __init__(self, count: int) -> None:
        self._count = count
        # Not the exceptions: they would keep the sockets alive, and each other.
        self._reasons: dict[str, int | None] = {}

    def add(self, error: OSError) -> None:
        """One more has failed."""
        self._reasons.setdefault(error.strerror or str(error), error.errno)

    def of_all(self) -> OSError:
        """Return the error if all have failed."""
        if not self._reasons:
            return OSError("the name has no address")
        text = "; ".join(self._reasons)
        if self._count > 1:
            text += f" ({self._count} addresses tried)"
        number = next(iter(self._reasons.values()))
        return OSError(text) if number is None else OSError(number, text)

    def timed_out(self) -> TimeoutError:
        """Return the error if the time has passed before that."""
        text = "timed out"
        if self._count > 1:
            failed = f"; failed by then: {'; '.join(self._reasons)}" if self._reasons else ""
            text += f" ({self._count} addresses{failed})"
        return TimeoutError(text)


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


def interleaved(found: list[Any]) -> list[Any]:
    """Return what `look_up()` has found in the order to try it (RFC 8305, section 4).

    That is the resolver's, but that the families alternate: where one does not get through,
    the other has its turn at once.
    """
    families: dict[int, list[Any]] = {}
    for one in found:
        families.setdefault(one[0], []).append(one)
    turns = itertools.zip_longest(*families.values())
    return [one for turn in turns for one in turn if one is not None]


def wait_for_write(socks: Sequence[socket.socket], seconds: float) -> list[socket.socket]:
    """Wait until one of them has connected or failed; return those that have, in this order.

    None if the time has passed. Both ways of waiting are looked up here, and not when this is
    imported, for gevent and eventlet replace them. eventlet and Windows have no `poll`.
    """
    seconds = min(max(seconds, 0.0), LONGEST_POLL)
    if sys.platform != "win32" and hasattr(select, "poll"):
        poll = select.poll()
        for sock in socks:
            poll.register(sock, select.POLLOUT)
        numbers = {number for number, _ in poll.poll(seconds * 1000)}
        return [sock for sock in socks if sock.fileno() in numbers]
    _, writable, failed = select.select([], socks, socks, seconds)  # failed: as Windows tells
    return [sock for sock in socks if sock in writable or sock in failed]


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
