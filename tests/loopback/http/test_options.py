"""An argument that no request can be made with is refused before anything is sent."""

from __future__ import annotations

from eventsource import EventStream
from eventsource.testing import ScriptedServer
from tests.support import status


def test_the_callers_objects_are_not_changed():
    headers, proxies = {"X-Key": "a"}, {"ftp": "http://127.0.0.1:1/"}
    with ScriptedServer(status("404 No")) as server:
        list(EventStream(server.url, headers=headers, proxies=proxies))
    assert headers == {"X-Key": "a"}
    assert proxies == {"ftp": "http://127.0.0.1:1/"}
