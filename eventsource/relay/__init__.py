"""Stores one stream in a log that many can read: each event once, across crashes and machines.

`Relay` reads the stream and stores each batch of events together with the place in the stream
(a last event ID), in one atomic step of an engine. A `Sink` connects to the engine:
`RedisStream` (extra `redis`), `JetStream` (extra `nats`), or one of yours. Neither client
library is imported unless its sink is used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

from .relay import Relay
from .sink import Sink, Superseded

if TYPE_CHECKING:
    from .jetstream import JetStream
    from .redis import RedisStream

__all__ = ["JetStream", "RedisStream", "Relay", "Sink", "Superseded"]

_MODULES: Final = {"JetStream": "jetstream", "RedisStream": "redis"}
"""Sinks that need an extra, and the module of each."""


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
