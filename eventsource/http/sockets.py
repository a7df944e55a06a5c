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
"""The most seconds that `poll` can wait: it counts milliseconds in a C int."""

ATTEMPT_DELAY_SECONDS: Final = 0.25
"""Between the starts of two connection attempts, if none fails: RFC 8305, section 5."""

LEAST_ATTEMPT_DELAY_SECONDS: Final = 0.01
"""The least delay, even if then not all addresses can be tried in time: RFC 8305, section 8."""

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
            # There are no probes while sent data is unacknowledged: the same minute
            # and a half, in milliseconds, instead of Linux's quarter of an hour.
            ("TCP_USER_TIMEOUT", 90_000),
        )
        if hasattr(socket, option)
    ),
]
"""The options of each socket: level, option, value."""

RESET: Final = struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0)
"""`struct linger`: on, zero seconds. Closing then sends RST."""


def set_keep_alive(sock: socket.SocketType) -> None:
    """Set the options that detect a dead peer, as far as the system supports them."""
    for option in KEEP_ALIVE:
        with contextlib.suppress(OSError):  # not TCP, or the system does not support the option
            sock.setsockopt(*option)


class Sockets:
    """The sockets of one exchange, in all their phases.

    Threads: `shut_down` and `release` are for any thread and for signal handlers, all else
    is for the thread of the exchange.

    Attributes:
        is_shut_down: whether the exchange has been aborted. Set once, never unset.
        deadline: the time (`time.monotonic()`) by which the head must have come.
    """

    def __init__(self) -> None:
        # Guarded by `_lock`. Each with the descriptor of its original. Set first: `__del__`
        # needs it even if a signal handler raises during this constructor.
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
        """End all waits on the sockets, now and later. Never waits."""
        with self._lock:
            self.is_shut_down = True
            if self._looking_up is not None:
                self._looking_up.set()
            for sock, _ in self._duplicates:
                # Already disconnected, or closed by a signal handler.
                with contextlib.suppress(OSError, ValueError):
                    if wait_for_read(cast("socket.socket", sock), timeout=0):
                        # Unread bytes: close() is to send RST. The system does so by
                        # itself only if nobody reads them after shutdown(). A server
                        # that waits for our window to open would notice a FIN only
                        # after a minute.
                        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                    sock.shutdown(socket.SHUT_RDWR)

    def release(self) -> None:
        """Close the duplicates: the exchange is over, and its connections are being closed."""
        # Without `no_fork()`, because close() must not wait. A child that is forked
        # meanwhile may keep a copy of a socket that has been shut down.
        with self._lock:
            while self._duplicates:
                with contextlib.suppress(IndexError):  # a signal handler was here meanwhile
                    self._duplicates.pop()[0].close()

    def __del__(self) -> None:
        for duplicate, _ in self._duplicates:  # a stream on the caller's session was dropped
            duplicate.close()

    def renew_lock(self) -> None:
        """Make a new lock, after a fork: a thread that no longer exists may hold the old one."""
        self._lock = threading.RLock()

    def disown(self) -> None:
        """In the child of a fork: drop the parent's sockets and leave them as they are.

        The null device takes their descriptors, because objects of the parent's threads
        may still close these.
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
        """Forget all connections but the last: the response has come on that.

        The others are of redirects, or of an authentication that took two connections.
        """
        with self._lock:
            while len(self._duplicates) > 1:
                self._duplicates.pop(0)[0].close()

    def connect_to(
        self, host: str, port: int, timeout: float | None, options: list[Any]
    ) -> socket.socket:
        """Return a socket that is connected to `host`, with this timeout and these options.

        The addresses are tried in order, each `ATTEMPT_DELAY_SECONDS` after the one before, or
        as soon as one fails; sooner if not all could be tried within the timeout otherwise. The
        first that connects is used, and the others are closed.

        Args:
            host: a name or an address.
            port: its number.
            timeout: seconds for the look-up and all attempts together.
            options: of each socket: level, option, value.

        Raises:
            Aborted: `shut_down()` has been called.
            UnicodeError: the name is not a valid host name.
            OSError: no address can be connected to. It is the error of the first that failed;
                its text also has the reasons of the others, and the number of addresses.
            TimeoutError: the time is up.
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
            if untried:  # leave time for each before the end
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
        except BaseException:  # for example Ctrl-C
            self._drop(sock)
            raise
        return sock

    def connect(self, sock: socket.socket, address: Any) -> None:
        """Begin to connect a `new_socket()` that does not block.

        This holds the lock, because shutting down a socket that has not begun to connect has
        no effect: an attempt that began after `shut_down()` would not end.

        Raises:
            Aborted: `shut_down()` has been called.
            OSError: it cannot be connected.
        """
        with self._lock:
            if not self.is_shut_down:
                with contextlib.suppress(BlockingIOError):
                    sock.connect(address)
            if self.is_shut_down:  # perhaps by a signal handler, meanwhile
                raise Aborted("aborted")

    def _first_connected(
        self, under_way: list[socket.socket], until: float, failures: _Failures
    ) -> socket.socket | None:
        """Wait until an attempt connects or fails; return a socket that has connected.

        Returns:
            None if one has failed, or the time is up. Failed ones are removed from `under_way`.
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
        """Return a new socket, and store a duplicate of it."""
        with no_fork():  # else a child could have a socket that nothing closes
            sock = socket.socket(family, kind, protocol)
            try:
                self._duplicates.append((_duplicate(sock), sock.fileno()))
            except BaseException:  # no descriptor is left, or Ctrl-C
                sock.close()
                raise
        return sock

    def _drop(self, sock: socket.socket) -> None:
        """Close a socket that is not needed, and its duplicate, which would keep it open.

        The duplicate is forgotten last, so that until then a fork and `release()` find it.
        """
        number = sock.fileno()
        sock.close()
        with self._lock:
            for known in [known for known in self._duplicates if known[1] == number]:
                known[0].close()
                with contextlib.suppress(ValueError):  # a signal handler has forked meanwhile
                    self._duplicates.remove(known)

    def adopt(self, number: int) -> None:
        """Store a duplicate of a socket that a session of the caller's has connected.

        Raises:
            OSError: the descriptor is not a socket's.
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

        Unlike that, it ends at `shut_down()` and after `timeout` seconds. If another exchange
        is looking up the same name, this waits for the same answer.
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
            raise copy.copy(answer.failure)  # other threads raise it, too
        return answer.found


class _Failures:
    """The reasons why the addresses of a host cannot be connected to."""

    def __init__(self, count: int) -> None:
        self._count = count
        # Not the exceptions: their tracebacks would keep the sockets alive.
        self._reasons: dict[str, int | None] = {}

    def add(self, error: OSError) -> None:
        """Record that an attempt has failed."""
        self._reasons.setdefault(error.strerror or str(error), error.errno)

    def of_all(self) -> OSError:
        """Return the error to raise when all have failed."""
        if not self._reasons:
            return OSError("the name has no address")
        text = "; ".join(self._reasons)
        if self._count > 1:
            text += f" ({self._count} addresses tried)"
        number = next(iter(self._reasons.values()))
        return OSError(text) if number is None else OSError(number, text)

    def timed_out(self) -> TimeoutError:
        """Return the error to raise when the time is up before that."""
        text = "timed out"
        if self._count > 1:
            failed = f"; failed by then: {'; '.join(self._reasons)}" if self._reasons else ""
            text += f" ({self._count} addresses{failed})"
        return TimeoutError(text)


class _Answer:
    """The resolver's answer to one question, and who waits for it.

    Each side writes its own part (`waiting`, `is_here`) before it reads the other's, so
    whoever begins to wait either is woken or sees that the answer is here.
    """

    def __init__(self) -> None:
        self.waiting: list[Wakeup] = []
        self.is_here = False
        self.found: list[Any] = []
        self.failure: Exception | None = OSError("the look-up was given up")

    def leave(self, wakeup: Wakeup) -> None:
        """Stop waiting."""
        with contextlib.suppress(ValueError):
            self.waiting.remove(wakeup)

    def give(self) -> None:
        """Wake all that wait."""
        self.is_here = True
        for wakeup in [*self.waiting]:
            wakeup.set()


class _LookUps:
    """The look-ups under way in this process, at most one at a time for each question.

    A look-up cannot be interrupted, so each has its own thread, which continues alone if
    nobody waits any more. Whoever asks the same question meanwhile waits for the same answer;
    an answer that has come is not used again. So a resolver that hangs keeps one thread for
    each host, however many attempts there are.

    Threads: for any thread. No lock is needed: each step is one call of a dict or list.
    """

    def __init__(self) -> None:
        self._under_way: dict[tuple[Any, ...], _Answer] = {}
        close_in_child(self, _LookUps._forget)

    def ask(self, host: str, port: int, wakeup: Wakeup) -> _Answer:
        """Return the future answer; `wakeup` is set when it is here."""
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
            if not has_begun:  # no thread could be started, or Ctrl-C
                self._end(question, own)
        return answer

    def _look_up(self, question: tuple[Any, ...], answer: _Answer) -> None:
        try:
            answer.found = get_addresses(*question)
            answer.failure = None
        except Exception as error:  # raised to those who asked
            answer.failure = error.with_traceback(None)  # which would be a reference cycle
        finally:
            self._end(question, answer)

    def _end(self, question: tuple[Any, ...], answer: _Answer) -> None:
        if self._under_way.get(question) is answer:
            self._under_way.pop(question, None)
        answer.give()

    def _forget(self) -> None:
        """In the child of a fork: forget all, because their threads exist in the parent only."""
        self._under_way.clear()


_look_ups: Final = _LookUps()


def _duplicate(sock: socket.socket) -> socket.SocketType:
    """Return a duplicate of a socket, with its own descriptor."""
    if sys.platform == "win32":
        return sock.dup()
    make = functools.partial(socket.SocketType, sock.family, sock.type, sock.proto)
    # One call of C code. In `socket.dup` a signal handler may raise between dup() and the new
    # object, and the descriptor leaks.
    return next(map(make, map(os.dup, (sock.fileno(),))))


def interleaved(found: list[Any]) -> list[Any]:
    """Return what `look_up()` has found in the order to try it (RFC 8305, section 4).

    That is the resolver's order, except that the families alternate: if one of them does not
    work, an address of the other is tried next.
    """
    families: dict[int, list[Any]] = {}
    for one in found:
        families.setdefault(one[0], []).append(one)
    turns = itertools.zip_longest(*families.values())
    return [one for turn in turns for one in turn if one is not None]


def wait_for_write(socks: Sequence[socket.socket], seconds: float) -> list[socket.socket]:
    """Wait until one of the sockets has connected or failed; return those that have, in order.

    The list is empty if the time is up. `poll` and `select` are looked up at each call, because
    gevent and eventlet may replace them. eventlet and Windows have no `poll`.
    """
    seconds = min(max(seconds, 0.0), LONGEST_POLL)
    if sys.platform != "win32" and hasattr(select, "poll"):
        poll = select.poll()
        for sock in socks:
            poll.register(sock, select.POLLOUT)
        numbers = {number for number, _ in poll.poll(seconds * 1000)}
        return [sock for sock in socks if sock.fileno() in numbers]
    _, writable, failed = select.select([], socks, socks, seconds)  # failed: on Windows
    return [sock for sock in socks if sock in writable or sock in failed]


def get_addresses(host: str, port: int, family: int, flags: int = 0) -> list[Any]:
    """Return the addresses of a host, as `socket.getaddrinfo` does.

    An IPv6 address may have a zone, spelled as in a URL: `fe80::1%25eth0` (RFC 6874).
    """
    if ":" in host and "%25" in host:
        address, _, zone = host.partition("%25")
        # The zone's number: some systems accept its name only if the address needs a zone.
        host = f"{address}%{zone if zone.isdecimal() else socket.if_nametoindex(zone)}"
    return socket.getaddrinfo(host, port, family, socket.SOCK_STREAM, 0, flags)


current_sockets: contextvars.ContextVar[Sockets | None] = contextvars.ContextVar(
    "eventsource_sockets", default=None
)
"""The `Sockets` to which new connections of this thread belong. A context variable, because
requests and urllib3 cannot pass an object down to a connection."""
