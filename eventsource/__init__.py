"""Server-Sent Events: a client with the semantics of the browser's `EventSource`.

Three faces on one engine: `EventSource` calls handlers from a thread of its own,
`EventStream` is iterated over, `SSEClient` is a drop-in for the `sseclient` package.
"""

from .errors import (
    EventSourceError,
    EventTimeout,
    EventTooLarge,
    HeadTooLarge,
    StreamEnded,
    UnexpectedContentType,
    UnexpectedStatus,
)
from .protocol.events import Comment, ErrorEvent, MessageEvent, OpenEvent, ReadyState
from .protocol.parser import EventStreamParser, aparse, parse
from .protocol.policy import ReconnectPolicy
from .source import EventSource
from .sseclient import Event, SSEClient
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
