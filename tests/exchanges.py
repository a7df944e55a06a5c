"""Exchanges with a server, as several test files make them."""

from __future__ import annotations

import base64
import contextlib
import threading

from eventsource.errors import Aborted
from eventsource.http.exchange import Exchange
from eventsource.http.request import RequestTemplate
from tests.support import LIMIT


def exchange_with(url, session=None, method="GET", **options):
    """An exchange that has not been opened."""
    return Exchange(RequestTemplate(url, method=method, session=session, options=options))


def open_and_abort(exchange, last_event_id=""):
    """Open an exchange, and abort it; return its response."""
    try:
        return exchange.open(last_event_id)
    finally:
        exchange.abort()


@contextlib.contextmanager
def open_exchange(url, session=None, **options):
    """An exchange that has been opened, until the end of the block."""
    exchange = exchange_with(url, session, **options)
    try:
        exchange.open()
        yield exchange
    finally:
        exchange.abort()


def basic(user, password):
    """The field value of basic authentication."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


class Opened:
    """Opens an exchange and reads it to its end in another thread; keeps what came."""

    def __init__(self, exchange):
        self.exchange = exchange
        self.read = b""
        self.error = None
        self.changed = threading.Condition()
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self):
        try:
            self.exchange.open()
            self._keep(b"<open>")
            while data := self.exchange.read():
                self._keep(data)
        except Exception as error:
            self.error = error

    def _keep(self, data):
        with self.changed:
            self.read += data
            self.changed.notify_all()

    def wait_for(self, data):
        with self.changed:
            assert self.changed.wait_for(lambda: data in self.read, LIMIT), self.read

    def join(self):
        self.thread.join(LIMIT)
        assert not self.thread.is_alive()

    def abort(self):
        """Abort the exchange, which ends the thread with `Aborted`."""
        self.exchange.abort()
        self.join()
        assert isinstance(self.error, Aborted)
