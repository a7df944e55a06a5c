"""What docs/how-to/testing.md says of vcrpy: it does not see a stream of ours."""

from __future__ import annotations

import pytest
import requests
import vcr

from eventsource import EventStream
from eventsource.testing import ScriptedServer
from tests.support import stream


@pytest.mark.parametrize("mode", ["once", "none"])
def test_vcrpy_neither_records_a_stream_nor_plays_one_back(tmp_path, mode):
    cassette_file = tmp_path / "cassette.yaml"
    with (
        ScriptedServer(stream(b"data: hello\n\n")) as server,
        vcr.use_cassette(str(cassette_file), record_mode=mode) as cassette,
        EventStream(server.url, reconnect=None) as events,
    ):
        assert [event.data for event in events.messages()] == ["hello"]
        assert len(server.requests) == 1
    assert len(cassette) == cassette.play_count == 0
    assert not cassette_file.exists()


def test_what_vcrpy_plays_back_on_a_session_of_the_callers_is_an_error_that_is_seen(tmp_path):
    """If this fails because it works, the page can say so."""
    with (
        ScriptedServer(stream(b"data: hello\n\n")) as server,
        vcr.use_cassette(str(tmp_path / "cassette.yaml")) as cassette,
        requests.Session() as session,
        EventStream(server.url, reconnect=None, session=session) as events,
    ):
        with pytest.raises(TypeError, match="read1"):
            list(events.messages())
    assert len(cassette) == 1
