"""`buffering`, with a real nginx in front of uvicorn and sse-starlette."""

from __future__ import annotations

import signal

import pytest

from tests.real_servers.nginx import Nginx, find_nginx
from tests.real_servers.process import Server
from tests.system.test_nginx import site

OLD_HTTP = "proxy_http_version 1.0;"
"""nginx's default until 1.29.7. With 1.1 it passes each chunk on, though it is to buffer."""
BUFFERING = "proxy_buffering on; proxy_buffer_size 4k; proxy_ignore_headers X-Accel-Buffering;"


@pytest.fixture(scope="module")
def ways(tmp_path_factory):
    """The URLs of the same streams: directly, through nginx, and through nginx with a buffer."""
    find_nginx()
    folder = tmp_path_factory.mktemp("nginx")
    backend, nginx = Server("sse_starlette_app.py", folder / "backend.log"), Nginx(folder, "1s")
    try:
        backend.start()
        through, buffered, asked_not_to, impatient = (nginx.listen() for _ in range(4))
        nginx.configure(
            site(through, OLD_HTTP, "proxy_buffering off;", to=backend.port)
            + site(buffered, OLD_HTTP, BUFFERING, to=backend.port)
            + site(asked_not_to, OLD_HTTP, "proxy_buffering on;", to=backend.port)
            + site(impatient, "proxy_http_version 1.1; proxy_read_timeout 2s;", to=backend.port)
        )
        nginx.start()
        yield {
            "direct": f"http://127.0.0.1:{backend.port}",
            "through": f"http://127.0.0.1:{through}",
            "buffered": f"http://127.0.0.1:{buffered}",
            "impatient": f"http://127.0.0.1:{impatient}",
            "X-Accel-Buffering: no": f"http://127.0.0.1:{asked_not_to}",
        }
    finally:
        nginx.stop()
        backend.stop(signal.SIGKILL)


def checked(run, ways, way, seconds, **query):
    asked = "&".join(f"{name}={value}" for name, value in {"name": way[:6], **query}.items())
    return run("--format", "json", "--seconds", str(seconds), f"{ways[way]}/numbers?{asked}")


@pytest.mark.parametrize("way", ["direct", "through", "X-Accel-Buffering: no"])
@pytest.mark.parametrize("pace", [0, 0.02, 0.4])
def test_nobody_is_accused_where_nothing_buffers(run, ways, way, pace):
    done = checked(run, ways, way, 3, count=1_000_000 if pace else 200, pace=pace)
    assert (done.status, done.problems) == (0, [])
    assert done.levels["resume"] == "ok"


def test_a_proxy_that_buffers_is_found(run, ways):
    done = checked(run, ways, "buffered", 7, count=1_000_000, pace=0.02)
    assert (done.status, done.err) == (1, "")
    assert [found["code"] for found in done.problems] == ["buffering"]
    assert "4,096" in done.problems[0]["evidence"]
    assert "proxy_buffering off" in done.problems[0]["remedy"]
    assert done.levels["resume"] == "note"


def test_a_slow_stream_behind_a_buffer_is_told_to_be_watched_longer(run, ways):
    done = checked(run, ways, "buffered", 2, count=1_000_000, pace=0.5)
    assert (done.status, done.out) == (28, "")
    assert "buffer" in done.err
    assert "--seconds" in done.err


def test_a_proxy_that_cuts_silent_streams_is_found(run, ways):
    done = checked(run, ways, "impatient", 10, count=2)
    assert [found["code"] for found in done.problems] == ["ended"]
    assert "after about " in done.problems[0]["what"]
    assert "cut off" in done.problems[0]["evidence"]
    assert "read timeout" in done.problems[0]["remedy"]
    done = checked(run, ways, "impatient", 6, count=2, heartbeat=0.2)
    assert "ended" not in done.findings
