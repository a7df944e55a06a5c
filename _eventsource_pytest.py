"""The pytest plugin: the fixture and the marker `sse_server`.

pytest imports this at each start, in every project of an environment that has the package.
Hence it stands outside of it, and imports it only when a test asks for the fixture:
`eventsource` with requests takes as long to import as pytest itself. It also lets a coverage
tool begin before the package is imported. (Hypothesis does the same, for these reasons.)
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from eventsource.testing import SSEServer


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known to `--strict-markers`."""
    config.addinivalue_line(
        "markers",
        "sse_server(**options): keyword arguments for eventsource.testing.SSEServer, which"
        " the fixture sse_server makes; e.g. tls=True",
    )


@pytest.fixture
def sse_server(request: pytest.FixtureRequest) -> Iterator[SSEServer]:
    """A server for event streams on loopback (eventsource.testing.SSEServer), running."""
    from eventsource.testing import SSEServer  # noqa: PLC0415 - see above

    marker = request.node.get_closest_marker("sse_server")
    if marker is not None and marker.args:
        raise TypeError(f"the marker sse_server takes keyword arguments only, not {marker.args}")
    with SSEServer(**(marker.kwargs if marker is not None else {})) as server:
        yield server
