"""Engines for the tests here."""

from __future__ import annotations

import pytest

from tests.relay.redis_server import RedisServer
from tests.support import imported


@pytest.fixture
def redis_server(tmp_path):
    imported("redis")
    folder = tmp_path / "redis"
    folder.mkdir()
    with RedisServer(folder) as server:
        yield server
