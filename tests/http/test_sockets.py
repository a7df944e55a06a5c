"""The sockets of an exchange: addresses are tried in turn, and any thread can shut them down."""

from __future__ import annotations

import os
import queue
import socket
import subprocess
import sys
import threading

import pytest

from eventsource import EventSource
from eventsource.errors import Aborted
from eventsource.http import sockets as sockets_module
from eventsource.http.sockets import KEEP_ALIVE, AddressRotation, Sockets
from eventsource.runtime.fork import no_fork
from tests.support import (
    LIMIT,
    open_sockets,
    port_that_never_answers,
    port_that_refuses,
    wait_until,
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


def connect(sockets, address, timeout=LIMIT, options=()):
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


def test_the_next_address_of_a_host_is_tried_when_one_refuses(sockets, listener, resolver):
    with port_that_refuses() as port:
        resolver(lambda *_: [("127.0.0.1", port), listener.getsockname()])
        with connect(sockets, ("some.host", 80)) as sock:
            assert sock.getpeername() == listener.getsockname()
        assert sockets.rotation.failed == ("127.0.0.1", port)


def test_the_next_address_is_tried_when_one_does_not_answer_in_time(sockets, listener, resolver):
    with port_that_never_answers() as port:
        resolver(lambda *_: [("127.0.0.1", port), listener.getsockname()])
        with connect(sockets, ("some.host", 80), timeout=0.2) as sock:
            assert sock.getpeername() == listener.getsockname()


def test_the_error_is_that_of_the_last_address(sockets, resolver):
    with port_that_refuses() as first, port_that_refuses() as last:
        resolver(lambda *_: [("127.0.0.1", first), ("127.0.0.1", last)])
        with pytest.raises(ConnectionRefusedError):
            connect(sockets, ("some.host", 80))
        assert sockets.rotation.failed == ("127.0.0.1", last)


def test_a_name_without_an_address_is_an_os_error(sockets, resolver):
    resolver(lambda *_: [])
    with pytest.raises(OSError, match="no address"):
        connect(sockets, ("some.host", 80))


def test_the_next_exchange_begins_after_the_address_that_failed():
    rotation = AddressRotation()
    found = [(*TCP, "", address) for address in "abc"]
    assert rotation.in_order(found) == found
    rotation.failed = "b"
    assert [address for *_, address in rotation.in_order(found)] == ["c", "a", "b"]
    rotation.failed = "gone"
    assert rotation.in_order(found) == found


def test_the_socket_that_answered_is_the_only_one_left_once_it_has_settled(
    sockets, listener, resolver
):
    before = open_sockets()
    with port_that_refuses() as port:
        resolver(lambda *_: [("127.0.0.1", port)] * 3 + [listener.getsockname()])
        sock = connect(sockets, ("some.host", 80))
    assert len(open_sockets() - before) == 4  # of each a duplicate
    sockets.settle()
    assert len(open_sockets() - before) == 1
    sock.close()
    assert len(open_sockets() - before) == 1
    sockets.release()
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


def test_a_look_up_takes_no_longer_than_the_timeout(sockets, resolver):
    answer = threading.Event()

    def never(host, port):
        assert answer.wait(LIMIT)
        raise socket.gaierror("no")

    resolver(never)
    with pytest.raises(TimeoutError):
        sockets.look_up("some.host", 80, 0.05)
    answer.set()


@pytest.mark.parametrize("error", [socket.gaierror("no such name"), UnicodeError("label too long")])
def test_what_the_resolver_raises_is_raised(sockets, resolver, error):
    def fail(host, port):
        raise error

    resolver(fail)
    with pytest.raises(type(error), match=str(error)):
        sockets.look_up("some.host", 80, LIMIT)


# --- One look-up at a time ---


class Resolver:
    """A resolver that hangs until it is told what to answer to each question."""

    def __init__(self):
        self.asked = queue.SimpleQueue()

    def __call__(self, host, port):
        answer = queue.SimpleQueue()
        self.asked.put(((host, port), answer))
        result = answer.get(timeout=LIMIT)
        if isinstance(result, Exception):
            raise result
        return result

    def next(self):
        return self.asked.get(timeout=LIMIT)


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


@pytest.fixture
def hanging(resolver):
    hanging = Resolver()
    resolver(hanging)
    return hanging


def test_many_attempts_while_the_resolver_hangs_leave_one_thread(sockets, hanging):
    for _ in range(20):
        with pytest.raises(TimeoutError):
            sockets.look_up("some.host", 80, 0.0)
    _, answer = hanging.next()
    assert len(look_up_threads()) == 1
    answer.put([])
    assert hanging.asked.empty()


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


FORKED = """
import os, socket, threading
from eventsource.http.sockets import Sockets

asked, answer = threading.Event(), threading.Event()

def hang(host, port, family=0, kind=0, protocol=0, flags=0):
    if flags:
        raise socket.gaierror("no number")
    asked.set()
    answer.wait()

socket.getaddrinfo = hang
threading.Thread(target=Sockets().look_up, args=("some.host", 80, None), daemon=True).start()
asked.wait()
child = os.fork()
if not child:
    socket.getaddrinfo = lambda host, port, *_: [host] if _[-1] == 0 else hang(host, port, *_)
    os._exit(Sockets().look_up("some.host", 80, 20.0) != ["some.host"])
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
os._exit(0)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_in_the_child_of_a_fork_no_look_up_is_under_way():
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORKED],
        check=False,
        capture_output=True,
        text=True,
        timeout=LIMIT * 2,
    )
    assert (done.stdout, done.stderr) == ("0\n", "")


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
        sockets.connect(sock, listener.getsockname(), LIMIT)
    listener.settimeout(0)
    with pytest.raises(BlockingIOError):
        listener.accept()


def test_no_further_address_is_tried_once_they_have_been_shut_down(sockets, listener, resolver):
    with port_that_never_answers() as port:
        resolver(lambda *_: [("127.0.0.1", port), listener.getsockname()])
        errors = []

        def run():
            try:
                connect(sockets, ("some.host", 80), timeout=None)
            except Exception as error:
                errors.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        wait_until(lambda: bool(sockets), "a socket")
        sockets.shut_down()
        thread.join(LIMIT)
        assert not thread.is_alive()
    assert [type(error) for error in errors] == [Aborted]


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
