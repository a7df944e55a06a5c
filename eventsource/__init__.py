"""Server-Sent Events: a client with the semantics of the browser's `EventSource`.

Three faces on one engine: `EventSource` calls handlers from a thread of its own,
`EventStream` is iterated over, `SSEClient` is a drop-in for the `sseclient` package.
"""

from .client import Event, SSEClient
from .errors import (
    EventSourceError,
    EventTimeout,
    EventTooLarge,
    HeadTooLarge,
    StreamEnded,
    UnexpectedContentType,
    UnexpectedStatus,
)
from .events import Comment, ErrorEvent, MessageEvent, OpenEvent, ReadyState
from .parser import EventStreamParser, aparse, parse
from .reconnect import ReconnectPolicy
from .source import EventSource
from .stream import EventStream

__all__ = [
    "Comment",
    "ErrorEvent",
    "Event",
    "EventSource",
    "EventSourceError",
    "EventStream",
    "EventStreamParser",
    "EventTimeout",
    "EventTooLarge",
    "HeadTooLarge",
    "MessageEvent",
    "OpenEvent",
    "ReadyState",
    "ReconnectPolicy",
    "SSEClient",
    "StreamEnded",
    "UnexpectedContentType",
    "UnexpectedStatus",
    "aparse",
    "parse",
]

__version__ = "0.1.0"
