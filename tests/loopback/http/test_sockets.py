"""The sockets of an exchange: addresses race, and any thread can shut them down."""

from __future__ import annotations

import contextlib
import errno
import gc
import itertools
import os
import select
import socket
import sys
import threading

import pytest
from urllib3.util.connection import HAS_IPV6

from eventsource import EventSource
from eventsource.errors import Aborted
from eventsource.http import sockets as sockets_module
from eventsource.http.sockets import KEEP_ALIVE, Sockets, interleaved
from eventsource.runtime.fork import no_fork
from tests.support import (
    LIMIT,
    open_sockets,
    port_that_never_answers,
    port_that_refuses,
    wait_until,
    wait_until_connecting,
)

TCP = (socket.AF_INET, socket.SOCK_STREAM, 0)


@pytest.fixture
def listener():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


@pytest.fixture
def sockets():
    sockets = Sockets()
    yield sockets
    sockets.release()


def connect(sockets, address=("some.host", 80), timeout=LIMIT, options=()):
    return sockets.connect_to(*address, timeout, [*options])


# --- Connecting ---


def test_a_socket_has_keep_alive_the_options_and_the_timeout_that_were_asked_for(sockets, listener):
    no_delay = (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with connect(sockets, listener.getsockname(), 7.0, [no_delay]) as sock:
        for level, option, value in (*KEEP_ALIVE, no_delay):
            assert sock.getsockopt(level, option) == value
        assert sock.gettimeout() == 7.0
    assert (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1) in KEEP_ALIVE
    assert (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30) in KEEP_ALIVE


def test_a_name_without_an_address_is_an_os_error(sockets, resolver):
    resolver(lambda *_: [])
    with pytest.raises(OSError, match="no address"):
        connect(sockets)


# --- The race of addresses (RFC 8305) ---

NEVER = 1e6
"""Seconds that no test lasts."""


@pytest.fixture
def delay(monkeypatch):
    """Sets the seconds between the starts of two attempts."""

    def install(seconds):
        monkeypatch.setattr(sockets_module, "ATTEMPT_DELAY_SECONDS", seconds)
        monkeypatch.setattr(sockets_module, "LEAST_ATTEMPT_DELAY_SECONDS", seconds)

    return install


@pytest.fixture(params=["poll", "select"])
def either_wait(request, monkeypatch):
    """Have the way of waiting that a system or a monkey-patch offers."""
    if request.param == "select":
        monkeypatch.delattr(select, "poll")


@pytest.fixture
def begun(monkeypatch):
    """The addresses to which connecting has begun, in order."""
    begun = []
    connect = socket.socket.connect

    def spy(sock, address):
        if sock.gettimeout() == 0:  # one of ours
            begun.append(address[:2])
        return connect(sock, address)

    monkeypatch.setattr(socket.socket, "connect", spy)
    return begun


@contextlib.contextmanager
def dead(count):
    """Addresses that do not answer."""
    with contextlib.ExitStack() as stack:
        yield [("127.0.0.1", stack.enter_context(port_that_never_answers())) for _ in range(count)]


@contextlib.contextmanager
def refusing(count):
    """Addresses that refuse."""
    with contextlib.ExitStack() as stack:
        yield [("127.0.0.1", stack.enter_context(port_that_refuses())) for _ in range(count)]


class Clock:
    """A clock that stands still while the race runs, and moves on by what that waits for.

    Nothing comes of any attempt, but of those that are under way in the first so many waits.
    """

    def __init__(self, monkeypatch, real_waits=0):
        self.now = 1000.0
        self.waits = []
        self._real_waits = real_waits
        self._wait = sockets_module.wait_for_write
        monkeypatch.setattr(sockets_module.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(sockets_module, "wait_for_write", self.wait)

    def wait(self, socks, seconds):
        self.waits.append((len(socks), round(seconds, 3)))
        if len(self.waits) <= self._real_waits:
            return self._wait(socks, LIMIT)
        self.now += seconds
        return []


def test_the_families_of_addresses_alternate_and_begin_with_the_resolver_s_first():
    def order(families):
        return "".join(
            one[1] for one in interleaved([(family, str(n)) for n, family in enumerate(families)])
        )

    assert order("6666") == "0123"
    assert order("666644") == "041523"
    assert order("4664") == "0132"
    assert order("46644") == "01324"
    assert order("") == ""


@pytest.mark.skipif(not HAS_IPV6, reason="needs IPv6")
def test_addresses_are_tried_in_that_order(sockets, resolver, begun):
    hosts = ["::1", "::1", "127.0.0.2", "127.0.0.3", "127.0.0.4"]
    with port_that_refuses() as port:  # nobody listens there on the other addresses, either
        resolver(lambda *_: [(host, port) for host in hosts])
        with pytest.raises(OSError, match="5 addresses tried"):
            connect(sockets)
    assert [host for host, _ in begun] == ["::1", "127.0.0.2", "::1", "127.0.0.3", "127.0.0.4"]


@pytest.mark.long
def test_two_dead_addresses_keep_the_third_from_nothing(
    sockets, listener, resolver, begun, delay, either_wait
):
    delay(0.01)
    with dead(2) as addresses:
        addresses.append(listener.getsockname())
        resolver(lambda *_: addresses)
        with connect(sockets, timeout=None) as sock:
            assert sock.getpeername() == listener.getsockname()
            assert sock.gettimeout() is None
    assert begun == addresses


def test_an_address_that_refuses_makes_the_next_begin_at_once(
    sockets, listener, resolver, begun, delay, either_wait
):
    delay(NEVER)
    with refusing(2) as addresses:
        addresses.append(listener.getsockname())
        resolver(lambda *_: addresses)
        with connect(sockets, timeout=None) as sock:
            assert sock.getpeername() == listener.getsockname()
    assert begun == addresses


def test_an_address_that_refuses_while_another_is_under_way_makes_the_next_begin_at_once(
    sockets, listener, resolver, begun, delay, monkeypatch
):
    delay(NEVER)
    wait = sockets_module.wait_for_write
    monkeypatch.setattr(  # the first has had its turn
        sockets_module, "wait_for_write", lambda *args: (len(begun) > 1 and wait(*args)) or []
    )
    with dead(1) as first, refusing(1) as second:
        addresses = [*first, *second, listener.getsockname()]
        resolver(lambda *_: addresses)
        with connect(sockets, timeout=None) as sock:
            assert sock.getpeername() == listener.getsockname()
    assert begun == addresses


def test_attempts_begin_a_quarter_of_a_second_apart(sockets, resolver, begun, monkeypatch):
    clock = Clock(monkeypatch)
    with dead(1) as addresses:
        resolver(lambda *_: addresses * 3)
        with pytest.raises(TimeoutError):
            connect(sockets, timeout=10.0)
    assert clock.waits == [(1, 0.25), (2, 0.25), (3, 0.25), (3, 9.25)]


def test_the_timeout_bounds_all_of_connecting_and_the_look_up(sockets, resolver, monkeypatch):
    clock = Clock(monkeypatch)

    def look_up(host, port):
        clock.now += 9.0
        return addresses * 2

    with dead(1) as addresses:
        resolver(look_up)
        with pytest.raises(TimeoutError, match=r"^timed out \(2 addresses\)$"):
            connect(sockets, timeout=10.0)
    assert clock.now == 1010.0


def test_the_deadline_of_the_exchange_bounds_all_of_connecting(sockets, resolver, monkeypatch):
    clock = Clock(monkeypatch)
    sockets.deadline = clock.now + 2.0
    with dead(1) as addresses:
        resolver(lambda *_: addresses * 2)
        with pytest.raises(TimeoutError):
            connect(sockets, timeout=10.0)
    assert clock.now == 1002.0


@pytest.mark.long
@pytest.mark.parametrize(
    ("timeout", "turns"),
    [(0.4, [0.1] * 4), (0.03, [0.01] * 3), (0.8, [0.2] * 4), (None, [0.25] * 4)],
)
def test_each_address_has_its_turn_within_the_timeout(
    sockets, resolver, monkeypatch, timeout, turns
):
    """As far as ten milliseconds for each allow it."""
    clock = Clock(monkeypatch)
    if timeout is None:
        sockets.deadline = clock.now + 1000.0
    with dead(1) as addresses:
        resolver(lambda *_: addresses * 4)
        with pytest.raises(TimeoutError):
            connect(sockets, timeout=timeout)
    assert [seconds for _, seconds in clock.waits][:4] == turns


def test_of_two_that_have_connected_the_one_that_began_first_is_taken(
    sockets, listener, resolver, monkeypatch
):
    wait = sockets_module.wait_for_write

    def wait_for_both(socks, seconds):
        if len(socks) == 1:  # that the other may begin
            return []
        assert all(wait([sock], LIMIT) for sock in socks)
        return wait(socks, LIMIT)

    monkeypatch.setattr(sockets_module, "wait_for_write", wait_for_both)
    with socket.create_server(("127.0.0.1", 0)) as second:
        resolver(lambda *_: [listener.getsockname(), second.getsockname()])
        with connect(sockets) as sock:
            assert sock.getpeername() == listener.getsockname()
            second.settimeout(LIMIT)
            loser, _ = second.accept()
            with loser:
                loser.settimeout(LIMIT)
                assert loser.recv(1) == b""  # closed, though the winner is not


def test_the_losers_of_a_race_are_closed_and_those_of_redirects_once_it_has_settled(
    sockets, listener, resolver, delay
):
    delay(0.01)
    with dead(2) as waiting, refusing(2) as refused:
        before = open_sockets()
        resolver(lambda *_: [*waiting, *refused, listener.getsockname()])
        first = connect(sockets)
        assert len(open_sockets() - before) == 1
        second = connect(sockets)
        first.close()
        assert len(open_sockets() - before) == 2  # of the first the duplicate
        sockets.settle()
        assert len(open_sockets() - before) == 1
        second.close()
        assert len(open_sockets() - before) == 1
        sockets.release()
        assert open_sockets() <= before


@pytest.mark.parametrize("count", [0, 2])
def test_no_socket_is_left_if_no_address_can_be_connected_to(sockets, resolver, monkeypatch, count):
    Clock(monkeypatch, real_waits=2)
    with refusing(2) as refused, dead(count) as waiting:
        before = open_sockets()
        resolver(lambda *_: refused + waiting)
        with pytest.raises(TimeoutError if waiting else ConnectionRefusedError):
            connect(sockets)
        assert not sockets
        assert open_sockets() <= before


def test_a_socket_that_is_dropped_is_known_until_it_has_been_closed(sockets, resolver, monkeypatch):
    """So that a fork and `release()` find it, whenever they come."""
    known = []

    class Watched(socket.SocketType):  # as a duplicate is
        def close(self):
            known.append([number for _, number in sockets._duplicates])
            super().close()

    monkeypatch.setattr(socket, "SocketType", Watched)
    with refusing(2) as addresses:
        resolver(lambda *_: addresses)
        with pytest.raises(ConnectionRefusedError):
            connect(sockets)
    assert [len(numbers) for numbers in known] == [1, 1]
    assert not sockets


# --- ... and what is said if nobody wins it ---


def test_the_error_is_that_of_the_first_address_and_says_how_many_there_were(sockets, resolver):
    with refusing(2) as addresses:
        resolver(lambda *_: addresses)
        with pytest.raises(ConnectionRefusedError) as caught:
            connect(sockets)
    assert caught.value.strerror == "Connection refused (2 addresses tried)"
    assert caught.value.errno == errno.ECONNREFUSED


def test_of_one_address_the_error_is_the_system_s(sockets):
    with port_that_refuses() as port, pytest.raises(ConnectionRefusedError) as caught:
        connect(sockets, ("127.0.0.1", port))
    assert caught.value.args == (errno.ECONNREFUSED, "Connection refused")


def test_the_error_has_each_reason_once(sockets, resolver, monkeypatch):
    connect_socket = socket.socket.connect

    def no_route(sock, address):
        if address[0] == "127.0.0.9":
            raise OSError(errno.ENETUNREACH, "Network is unreachable")
        return connect_socket(sock, address)

    monkeypatch.setattr(socket.socket, "connect", no_route)
    with refusing(2) as addresses:
        resolver(lambda *_: [("127.0.0.9", 80), *addresses])
        with pytest.raises(OSError, match="unreachable") as caught:
            connect(sockets)
    assert caught.value.errno == errno.ENETUNREACH
    assert caught.value.strerror == (
        "Network is unreachable; Connection refused (3 addresses tried)"
    )


def test_a_timeout_says_what_has_failed_by_then(sockets, resolver, monkeypatch):
    Clock(monkeypatch, real_waits=1)
    with dead(1) as waiting, refusing(1) as refused:
        resolver(lambda *_: refused + waiting)
        with pytest.raises(TimeoutError) as caught:
            connect(sockets, timeout=10.0)
    assert str(caught.value) == "timed out (2 addresses; failed by then: Connection refused)"


def test_without_descriptors_for_all_addresses_those_that_are_under_way_go_on(
    sockets, listener, resolver, delay, monkeypatch
):
    delay(0.01)
    made = []
    new_socket = sockets.new_socket

    def limited(*args):
        if made:
            raise OSError(errno.EMFILE, "Too many open files")
        made.append(1)
        return new_socket(*args)

    monkeypatch.setattr(sockets, "new_socket", limited)
    wait = sockets_module.wait_for_write
    calls = itertools.count()
    monkeypatch.setattr(
        sockets_module, "wait_for_write", lambda *args: (next(calls) and wait(*args)) or []
    )
    with refusing(2) as others:
        resolver(lambda *_: [listener.getsockname(), *others])
        with connect(sockets) as sock:
            assert sock.getpeername() == listener.getsockname()


# --- ... and how it is ended ---


WITH_MAY_LEAK = sys.version_info >= (3, 14)
"""Python 3.14 runs signal handlers between `__enter__` and the block; if one raises there, there
is no `__exit__` (see docs/reliability.md). In 3.15 only a profiler does, such as the one here."""


def race_interrupted_at_call(number, action, addresses, *, ends):
    """Connect; do that in the call with this number: where a function begins, or C returns.

    There Python runs signal handlers. A race that does not end by itself
    is interrupted in its last wait, too. Returns what came of it, and whether there was such a
    call.
    """
    sockets = Sockets()
    sockets.look_up = lambda *_: [(*TCP, "", address) for address in addresses]
    calls = itertools.count()
    is_done = False

    def profile(frame, event, function):
        nonlocal is_done
        if is_done or event not in ("call", "c_return") or frame is here:
            return
        if event == "c_return" and function.__name__ == "__enter__" and WITH_MAY_LEAK:
            return
        is_done = next(calls) == number
        is_last = frame.f_code is sockets_module.wait_for_write.__code__ and (
            not ends and frame.f_locals["seconds"] > 1.0
        )
        if is_done or is_last:
            action(sockets)

    watchdog = threading.Timer(LIMIT / 2, sockets.shut_down)
    watchdog.start()
    here = sys._getframe()
    before = sys.getprofile()
    gc.disable()  # else what the collector finds is counted, too
    sys.setprofile(profile)
    try:
        result = sockets.connect_to("some.host", 80, None, [])
    except (Aborted, KeyboardInterrupt) as error:
        result = type(error)
    finally:
        sys.setprofile(before)
        gc.enable()
    assert watchdog.is_alive(), "it went on"
    watchdog.cancel()
    watchdog.join(LIMIT)
    if isinstance(result, socket.socket):
        with result:
            if is_done:
                with pytest.raises(OSError, match="not connected|Broken pipe"):
                    result.send(b"x")
                result = Aborted
    sockets.release()
    return result, is_done


def raise_ctrl_c(_):
    raise KeyboardInterrupt


@pytest.mark.long
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # Ctrl-C may come before any `try`
@pytest.mark.parametrize("ends", [False, True], ids=["nobody wins", "somebody wins"])
@pytest.mark.parametrize(
    ("action", "expected"),
    [(Sockets.shut_down, Aborted), (raise_ctrl_c, KeyboardInterrupt)],
    ids=["shut_down", "ctrl-c"],
)
def test_a_race_that_is_interrupted_at_any_call_ends_and_leaves_no_socket(
    listener, delay, action, expected, ends
):
    delay(0.0)
    with dead(2) as waiting, refusing(1) as refused:
        addresses = [waiting[0], *refused, listener.getsockname() if ends else waiting[1]]
        before = open_sockets()
        is_done = True
        for number in itertools.count():
            result, is_done = race_interrupted_at_call(number, action, addresses, ends=ends)
            assert open_sockets() - before <= accepted(listener), number
            if not is_done:
                break
            assert result is expected, number
    assert number > 60, number


def accepted(listener):
    """Take the connections that clients have begun and given up; return what is left of them."""
    listener.settimeout(0)
    with contextlib.suppress(BlockingIOError):
        while True:
            listener.accept()[0].close()
    return set()


def test_shut_down_ends_a_race_while_several_addresses_are_under_way(sockets, resolver, delay):
    delay(0.01)
    before = open_sockets()
    with dead(3) as addresses:
        resolver(lambda *_: addresses)
        errors = []

        def run():
            try:
                connect(sockets, timeout=None)
            except Exception as error:
                errors.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        for _, port in addresses:
            wait_until_connecting(port)
        sockets.shut_down()
        thread.join(LIMIT)
        assert not thread.is_alive()
    assert [type(error) for error in errors] == [Aborted]
    assert open_sockets() <= before


# --- The look-up ---


def test_only_a_name_is_looked_up_in_a_thread_of_its_own(sockets, listener, monkeypatch):
    asked_in = []
    getaddrinfo = socket.getaddrinfo

    def spy(*args):
        asked_in.append(threading.current_thread().name)
        return getaddrinfo(*args)

    monkeypatch.setattr(socket, "getaddrinfo", spy)
    port = listener.getsockname()[1]
    (number,) = sockets.look_up("127.0.0.1", port, LIMIT)
    assert number[-1] == ("127.0.0.1", port)
    assert asked_in == [threading.current_thread().name]
    assert number in sockets.look_up("localhost", port, LIMIT)
    assert asked_in[-1] == "eventsource-dns localhost"


def test_a_look_up_takes_no_longer_than_the_timeout(sockets, hanging):
    with pytest.raises(TimeoutError, match="while the name was looked up"):
        sockets.look_up("some.host", 80, 0.05)
    hanging.next()[1].put([])


# --- One look-up at a time ---


class Asker(threading.Thread):
    """Looks a name up; keeps what comes of it."""

    def __init__(self, host="some.host", port=80):
        super().__init__()
        self.sockets = Sockets()
        self.address = (host, port)
        self.result = None
        self.start()

    def run(self):
        try:
            self.result = [found[-1] for found in self.sockets.look_up(*self.address, LIMIT)]
        except Exception as error:
            self.result = error


def wait_until_waiting(count):
    under_way = sockets_module._look_ups._under_way
    wait_until(lambda: [len(answer.waiting) for answer in under_way.values()] == [count])


def look_up_threads():
    return [t for t in threading.enumerate() if t.name.startswith("eventsource-dns ")]


def test_many_restarts_while_the_resolver_hangs_leave_one_thread(hanging):
    begun = []
    with EventSource(
        "http://some.host/", auth=lambda request: begun.append(1) or request
    ) as source:
        source.on("error", lambda _: None)
        _, answer = hanging.next()
        for number in range(20):
            wait_until(lambda count=number: len(begun) > count, "an attempt to begin")
            source.restart()
        wait_until(lambda: len(begun) > 20, "an attempt to begin")
        assert len(look_up_threads()) == 1
        source.close()
        answer.put([])
    assert hanging.asked.empty()


def test_the_answer_is_for_all_who_wait_for_it(hanging):
    askers = [Asker() for _ in range(5)]
    _, answer = hanging.next()
    wait_until_waiting(len(askers))
    answer.put([("127.0.0.1", 1)])
    for asker in askers:
        asker.join(LIMIT)
        assert asker.result == [("127.0.0.1", 1)]
    assert hanging.asked.empty()


@pytest.mark.parametrize("error", [socket.gaierror(-3, "again"), UnicodeError("label too long")])
def test_an_error_is_for_all_who_wait_and_each_has_its_own(hanging, error):
    askers = [Asker() for _ in range(3)]
    _, answer = hanging.next()
    wait_until_waiting(len(askers))
    answer.put(error)
    for asker in askers:
        asker.join(LIMIT)
        assert (type(asker.result), asker.result.args) == (type(error), error.args)
    assert len({id(asker.result) for asker in askers}) == 3


def test_an_answer_is_not_for_those_who_ask_after_it_has_come(hanging):
    first = Asker()
    hanging.next()[1].put([("127.0.0.1", 1)])
    first.join(LIMIT)
    second = Asker()
    hanging.next()[1].put([("127.0.0.1", 2)])
    second.join(LIMIT)
    assert (first.result, second.result) == ([("127.0.0.1", 1)], [("127.0.0.1", 2)])


def test_other_hosts_and_ports_are_looked_up_meanwhile(hanging):
    first = Asker()
    _, slow = hanging.next()
    for address in (("other.host", 80), ("some.host", 443)):
        asker = Asker(*address)
        asked, answer = hanging.next()
        assert asked == address
        answer.put([address])
        asker.join(LIMIT)
        assert asker.result == [address]
    slow.put([])
    first.join(LIMIT)


def test_one_that_is_shut_down_does_not_end_the_look_up_for_the_others(hanging):
    first, second = Asker(), Asker()
    _, answer = hanging.next()
    wait_until_waiting(2)
    first.sockets.shut_down()
    first.join(LIMIT)
    assert isinstance(first.result, Aborted)
    answer.put([("127.0.0.1", 1)])
    second.join(LIMIT)
    assert second.result == [("127.0.0.1", 1)]


def test_a_look_up_whose_thread_cannot_be_started_is_not_waited_for(sockets, hanging, monkeypatch):
    def start(thread):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        with pytest.raises(RuntimeError, match="new thread"):
            sockets.look_up("some.host", 80, LIMIT)
    asker = Asker()
    hanging.next()[1].put([("127.0.0.1", 1)])
    asker.join(LIMIT)
    assert asker.result == [("127.0.0.1", 1)]


# --- Shutting down, in each phase ---


def test_nothing_is_looked_up_once_they_have_been_shut_down(sockets, resolver):
    asked = []
    resolver(lambda *address: asked.append(address))
    sockets.shut_down()
    with pytest.raises(Aborted):
        sockets.look_up("some.host", 80, LIMIT)
    assert not asked


def test_an_answer_that_comes_after_they_have_been_shut_down_is_not_used(sockets, resolver):
    def shut_down(host, port):
        sockets.shut_down()
        return [("127.0.0.1", 1)]

    resolver(shut_down)
    with pytest.raises(Aborted):
        sockets.look_up("some.host", 80, LIMIT)


def test_no_socket_begins_to_connect_once_they_have_been_shut_down(sockets, listener):
    sock = sockets.new_socket(*TCP)
    sockets.shut_down()
    with sock, pytest.raises(Aborted):
        sockets.connect(sock, listener.getsockname())
    listener.settimeout(0)
    with pytest.raises(BlockingIOError):
        listener.accept()


@pytest.mark.parametrize("unread", [False, True])
def test_a_connection_with_unread_bytes_is_reset_though_somebody_reads_them_meanwhile(unread):
    """Else a server whose send waits for our window would notice after a minute only."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        server, _ = listener.accept()
        server.settimeout(LIMIT)
        with client, server:
            sockets = Sockets()
            sockets.adopt(client.fileno())
            if unread:
                server.sendall(b"x")
                assert client.recv(1, socket.MSG_PEEK) == b"x"
            sockets.shut_down()
            while client.recv(65536):
                pass
            assert server.recv(1) == b""
            client.close()
            sockets.release()
            if unread:
                wait_until(lambda: server.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
            else:
                assert server.recv(1) == b""
                assert server.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0


# --- Locks and forks ---


def test_a_new_socket_does_not_wait_for_whoever_shuts_the_others_down(monkeypatch, sockets):
    entered, proceed = threading.Event(), threading.Event()

    class Slow(socket.SocketType):  # as a duplicate is
        def shutdown(self, how):
            entered.set()
            assert proceed.wait(LIMIT)
            super().shutdown(how)

    monkeypatch.setattr(socket, "SocketType", Slow)
    first = sockets.new_socket(*TCP)
    made = []
    shutting_down = threading.Thread(target=sockets.shut_down)
    making = threading.Thread(target=lambda: made.append(sockets.new_socket(*TCP)))
    shutting_down.start()
    assert entered.wait(LIMIT)
    making.start()
    making.join(LIMIT)
    assert made
    proceed.set()
    shutting_down.join(LIMIT)
    first.close()
    made[0].close()


def test_no_fork_comes_between_a_socket_and_its_being_known(monkeypatch, sockets):
    """The child would keep one that it does not know to give up."""
    could_fork = []

    def try_to_fork():
        could_fork.append(no_fork().acquire(blocking=False))
        if could_fork[-1]:
            no_fork().release()

    dup = os.dup

    def watched(number):
        other = threading.Thread(target=try_to_fork)
        other.start()
        other.join(LIMIT)
        return dup(number)

    monkeypatch.setattr(os, "dup", watched)
    sockets.new_socket(*TCP).close()
    assert could_fork == [False]


def test_a_duplicate_that_nobody_releases_goes_with_the_exchange():
    before = open_sockets()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        with socket.create_connection(listener.getsockname()) as client:
            sockets = Sockets()
            sockets.adopt(client.fileno())
        assert len(open_sockets() - before) == 2
        del sockets
        assert len(open_sockets() - before) == 1
