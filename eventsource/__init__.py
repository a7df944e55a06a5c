"""Server-Sent Events: a client with the semantics of the browser's `EventSource`.

Three APIs share one engine: `EventSource` calls handlers from a background thread,
`EventStream` is a loop over the events, and `SSEClient` is a drop-in replacement for the
`sseclient` package.
"""

from .errors import (
    BrokenBody,
    EventSourceError,
    EventTimeout,
    EventTooLarge,
    ForkedError,
    HeadTooLarge,
    StreamEnded,
    UnexpectedContentType,
    UnexpectedStatus,
)
from .handlers.listeners import Handler
from .handlers.queue import Dispatch
from .protocol.events import Comment, ErrorEvent, MessageEvent, OpenEvent, ReadyState
from .protocol.parser import EventStreamParser, aparse, parse
from .protocol.policy import ReconnectPolicy
from .protocol.session import Item
from .resume import ResumeFile
from .source import EventSource
from .sseclient import Event, SSEClient
from .stream import EventStream
from .version import __version__ as __version__

__all__ = [
    "BrokenBody",
    "Comment",
    "Dispatch",
    "ErrorEvent",
    "Event",
    "EventSource",
    "EventSourceError",
    "EventStream",
    "EventStreamParser",
    "EventTimeout",
    "EventTooLarge",
    "ForkedError",
    "Handler",
    "HeadTooLarge",
    "Item",
    "MessageEvent",
    "OpenEvent",
    "ReadyState",
    "ReconnectPolicy",
    "ResumeFile",
    "SSEClient",
    "StreamEnded",
    "UnexpectedContentType",
    "UnexpectedStatus",
    "aparse",
    "parse",
]
