"""The pytest plugin. (`test_docs.py` runs the tests of the page on testing.)

Each run of pytest is a process of its own, as users have it.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

pytest_plugins = ["pytester"]


@pytest.fixture
def run(pytester):
    """Run pytest on a test file, with warnings as errors; return the result."""

    def run(code, *options):
        pytester.makepyfile(code)
        options = ("--strict-markers", "-p", "no:cacheprovider", "-W", "error", *options)
        return pytester.runpytest_subprocess(*options, timeout=60)

    return run


def test_the_fixture_is_a_server_that_the_marker_configures_and_that_is_closed(run):
    result = run(
        """
        import ssl

        import pytest
        from eventsource import EventSource
        from eventsource.testing import Recorder, SSEServer

        servers = []

        def test_plain(sse_server):
            assert isinstance(sse_server, SSEServer)
            servers.append(sse_server)
            with EventSource(sse_server.url, start=False) as source:
                recorder = Recorder(source, "greet")
                source.start()
                sse_server.send("hello", event="greet", id="7")
                assert recorder.wait_for("greet").data == "hello"

        def test_each_test_has_its_own_and_it_is_closed_afterwards(sse_server):
            assert sse_server is not servers[0]
            with pytest.raises(RuntimeError, match="the server is closed"):
                servers[0].send("x")

        @pytest.mark.sse_server(tls=True)
        def test_tls(sse_server):
            assert sse_server.url.startswith("https://")

        @pytest.mark.sse_server(tls=True)
        class TestMarked:
            def test_marked_by_its_class(self, sse_server):
                assert sse_server.ca_file

            @pytest.mark.sse_server()
            def test_the_closest_marker_counts(self, sse_server):
                assert sse_server.ca_file is None

        @pytest.mark.sse_server(True)
        def test_wrong_marker(sse_server):
            pass

        @pytest.mark.sse_server(colour="red")
        def test_wrong_option(sse_server):
            pass

        class Broken(ssl.SSLContext):
            def wrap_socket(self, *_, **options):
                raise ZeroDivisionError("in the server's thread")

        @pytest.mark.sse_server(tls=Broken(ssl.PROTOCOL_TLS_SERVER))
        def test_fails_in_the_server(sse_server):
            import requests
            with pytest.raises(requests.ConnectionError):
                requests.get(sse_server.url, timeout=30)
        """
    )
    result.assert_outcomes(passed=6, errors=3)
    result.stdout.fnmatch_lines_random(
        [
            "E *TypeError: the marker sse_server takes keyword arguments only, not (True,)",
            "E *TypeError: *unexpected keyword argument 'colour'",
            "E *ZeroDivisionError: in the server's thread",
        ]
    )


def test_pytest_imports_nothing_of_ours_until_a_test_asks_for_the_fixture(run):
    result = run(
        """
        import sys

        def ours():
            return {name for name in sys.modules if name.partition(".")[0] == "eventsource"}

        def test_before():
            assert "_eventsource_pytest" in sys.modules
            assert not ours()
            assert "requests" not in sys.modules

        def test_after(sse_server):
            assert "eventsource.testing" in ours()
        """,
        # plugins of others that import as they please
        *("-p", "no:anyio", "-p", "no:hypothesispytest", "-p", "no:requests_mock"),
    )
    result.assert_outcomes(passed=2)


def test_the_plugin_says_what_it_has(pytester):
    result = pytester.runpytest_subprocess("--markers", "--fixtures", timeout=60)
    result.stdout.fnmatch_lines(["@pytest.mark.sse_server(**options): keyword arguments for *"])


def test_the_test_kit_works_without_pytest():
    code = """
import sys
sys.modules["pytest"] = sys.modules["trustme"] = None
from eventsource import EventStream
from eventsource.testing import SSEServer
with SSEServer() as server:
    server.send("hello")
    with EventStream(server.url) as stream:
        print(next(stream).type, next(stream).data)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "open hello\n"
