"""Test what your program does with a stream.

`SSEServer` is a real server on loopback that a test controls; with pytest, the fixture
`sse_server` is one. `Recorder` and `wait_until` wait, so that no test sleeps. `emit` and
`aemit` call handlers without a server. `ScriptedServer` gives control of each byte.
"""

from .blocks import format_comment, format_event
from .connection import Connection
from .emitting import aemit, emit
from .request import MalformedRequest, Request
from .scripted import ScriptedServer
from .server import SSEServer
from .stream import Stream
from .waiting import Recorder, wait_until

__all__ = [
    "Connection",
    "MalformedRequest",
    "Recorder",
    "Request",
    "SSEServer",
    "ScriptedServer",
    "Stream",
    "aemit",
    "emit",
    "format_comment",
    "format_event",
    "wait_until",
]
