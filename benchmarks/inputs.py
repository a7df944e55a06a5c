"""The event streams that are measured, and what a client should make of them.

Deterministic: the same bytes on every machine and in every process, so that a worker
can check what it got without being sent it. A stream is a *unit* of different blocks,
repeated as often as a measurement needs.
"""

from __future__ import annotations

import base64
import functools
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

BLOCKS = 500
"""Blocks in a unit: enough that no client can profit from their being the same again."""
CHUNK = 16 * 1024
"""Bytes in an HTTP chunk of the framing `16k`: what proxies commonly pass on at once."""
SEED = 20_250_601

FRAMINGS = {
    "event": "one HTTP chunk per event",
    "16k": "16 KiB chunks",
    "plain": "un-chunked (`Connection: close`, no length)",
}
"""How the body is sent: the key for commands, the title for readers."""


@dataclass(frozen=True)
class Unit:
    """The blocks that a stream repeats, and what is in them.

    Attributes:
        blocks: each with its blank line.
        events: how many of the blocks are events; the others are comments.
        chars: characters of data in them, in Python's count.
        utf16: the same in JavaScript's count.
        types: the event types that occur.
        scale: what the rate counts: blocks, or megabytes of 10^6 bytes.
    """

    blocks: tuple[bytes, ...]
    events: int
    chars: int
    utf16: int
    types: tuple[str, ...]
    scale: str

    @property
    def amount(self) -> float:
        """What one unit adds to what the rate counts."""
        if self.scale == "MB":
            return sum(map(len, self.blocks)) / 1e6
        return len(self.blocks)


def _unit(
    blocks: list[bytes], data: list[str], types: tuple[str, ...] = ("message",), scale: str = "k"
) -> Unit:
    return Unit(
        blocks=tuple(blocks),
        events=len(data),
        chars=sum(map(len, data)),
        utf16=sum(len(text.encode("utf-16-le")) // 2 for text in data),
        types=types,
        scale=scale,
    )


def _ticks(rng: random.Random) -> Unit:
    data = [f"{rng.uniform(1000, 9999):.2f}" for _ in range(BLOCKS)]
    return _unit([f"data: {text}\n\n".encode() for text in data], data)


_TOKENS = (" the", " a", ",", ".", "ing", " of", " stream", " is", "\n", "un", " to", "s", " and")
_NON_ASCII_TOKENS = (" naïve", "日本", " café", "…", "🙂", " Größe")


def _tokens(rng: random.Random) -> list[str]:
    """What a chat completion of the OpenAI kind sends for each token."""
    return [
        json.dumps(
            {
                "id": "chatcmpl-B9MHDbslfkBeAs8l4bebGdFOJ6PeG",
                "object": "chat.completion.chunk",
                "created": 1_748_736_000,
                "model": "gpt-4o-mini-2024-07-18",
                "choices": [
                    {
                        "index": 0,
                        "delta": {
                            "content": rng.choice(
                                _NON_ASCII_TOKENS if rng.random() < 0.1 else _TOKENS
                            )
                        },
                        "finish_reason": None,
                    }
                ],
            },
            ensure_ascii=False,
            separators=(",", ":"),
        )
        for _ in range(BLOCKS)
    ]


def _llm(rng: random.Random) -> Unit:
    data = _tokens(rng)
    return _unit([f"data: {text}\n\n".encode() for text in data], data)


def _crlf(rng: random.Random) -> Unit:
    # As sse-starlette, the usual server of such streams in Python, ends its lines.
    data = _tokens(rng)
    return _unit([f"data: {text}\r\n\r\n".encode() for text in data], data)


_TITLES = (
    "Größe",
    "Café de Flore",
    "東京都",
    "Python (programming language)",
    "Łódź",
    "Bézout's identity",
)


def _wikimedia(rng: random.Random) -> Unit:
    """Of the form of stream.wikimedia.org's `recentchange`: fields in its order."""
    blocks, data = [], []
    for number in range(BLOCKS):
        at = 1_748_736_000_000 + 37 * number
        place = [
            {"topic": "eqiad.mediawiki.recentchange", "partition": 0, "timestamp": at},
            {"topic": "codfw.mediawiki.recentchange", "partition": 0, "offset": -1},
        ]
        title = rng.choice(_TITLES)
        page = f"https://en.wikipedia.org/wiki/{title.replace(' ', '_')}"
        change = {
            "$schema": "/mediawiki/recentchange/1.0.0",
            "meta": {
                "uri": page,
                "request_id": f"{rng.getrandbits(128):032x}",
                "id": f"{rng.getrandbits(128):032x}",
                "domain": "en.wikipedia.org",
                "stream": "mediawiki.recentchange",
                "topic": "eqiad.mediawiki.recentchange",
                "partition": 0,
                "offset": 5_000_000_000 + number,
            },
            "id": rng.randrange(10**9),
            "type": "edit",
            "namespace": 0,
            "title": title,
            "title_url": page,
            "comment": f"/* History */ {'reverted an edit, see the talk page; ' * 3}",
            "timestamp": at // 1000,
            "user": f"Editor{rng.randrange(1000)}",
            "bot": False,
            "notify_url": f"{page}?diff={rng.randrange(10**9)}&oldid={rng.randrange(10**9)}",
            "minor": True,
            "length": {"old": rng.randrange(10**5), "new": rng.randrange(10**5)},
            "revision": {"old": rng.randrange(10**9), "new": rng.randrange(10**9)},
            "server_url": "https://en.wikipedia.org",
            "server_name": "en.wikipedia.org",
            "wiki": "enwiki",
            "parsedcomment": "reverted an edit",
        }
        text = json.dumps(change, ensure_ascii=False, separators=(",", ":"))
        where = json.dumps(place, separators=(",", ":"))
        blocks.append(f"event: message\nid: {where}\ndata: {text}\n\n".encode())
        data.append(text)
    return _unit(blocks, data)


def _logs(rng: random.Random) -> Unit:
    """Log records and tracebacks: an event type of its own, several data lines."""
    blocks, data = [], []
    for number in range(BLOCKS):
        lines = [f"2025-06-01T12:{number % 60:02d}:00.{rng.randrange(1000):03d}Z ERROR worker"]
        for _ in range(rng.randrange(2, 9)):
            lines.append(f'  File "/srv/app/module{rng.randrange(100)}.py", line {number}, in run')
            lines.append("    result = handler(request, *arguments)")
        blocks.append(
            "".join(["event: log\n", *(f"data: {line}\n" for line in lines), "\n"]).encode()
        )
        data.append("\n".join(lines))
    return _unit(blocks, data, types=("log",))


def _heartbeats(rng: random.Random) -> Unit:
    """A quiet stream: 99 blocks that are comments, then an event; sse-starlette's text."""
    blocks, data = [], []
    for number in range(2 * BLOCKS):
        if number % 100 == 99:
            text = f'{{"price":{rng.uniform(10, 99):.2f}}}'
            blocks.append(f"data: {text}\n\n".encode())
            data.append(text)
        else:
            at = f"2025-06-01 12:{number // 60 % 60:02d}:{number % 60:02d}"
            blocks.append(f": ping - {at}.{rng.randrange(10**6):06d}+00:00\n\n".encode())
    return _unit(blocks, data)


def _one_event(size: int) -> Callable[[random.Random], Unit]:
    def build(rng: random.Random) -> Unit:
        text = base64.b64encode(rng.randbytes(size * 3 // 4)).decode()
        return _unit([f"data: {text}\n\n".encode()], [text], scale="MB")

    return build


_BUILDERS: dict[str, tuple[str, Callable[[random.Random], Unit]]] = {
    "ticks": ("ticks", _ticks),
    "llm": ("LLM tokens", _llm),
    "wikimedia": ("Wikimedia", _wikimedia),
    "logs": ("logs", _logs),
    "heartbeats": ("heartbeats", _heartbeats),
    "crlf": ("CRLF", _crlf),
    "16mb": ("one 16 MB event", _one_event(16 * 2**20)),
    "256kb": ("one 256 KB event", _one_event(256 * 2**10)),
}

TITLES = {name: title for name, (title, _) in _BUILDERS.items()}
FULL = ("ticks", "llm", "wikimedia", "logs", "heartbeats", "crlf", "16mb")
QUICK = ("ticks", "llm", "wikimedia", "logs", "heartbeats", "256kb")


@functools.cache
def unit(name: str) -> Unit:
    """Return the unit of the input `name`."""
    return _BUILDERS[name][1](random.Random(f"{SEED} {name}"))  # noqa: S311 - not a secret


@functools.cache
def _unit_bytes(name: str, framing: str) -> bytes:
    blocks = unit(name).blocks
    if framing == "event":
        return b"".join(b"%x\r\n%b\r\n" % (len(block), block) for block in blocks)
    return b"".join(blocks)


def stream(name: str, units: int) -> bytes:
    """Return the event stream itself, without any framing."""
    return _unit_bytes(name, "plain") * units


def body(name: str, framing: str, units: int) -> bytes:
    """Return what follows the response's header on the wire."""
    if framing == "plain":
        return stream(name, units)
    if framing == "event":
        return _unit_bytes(name, framing) * units + b"0\r\n\r\n"
    pieces = []
    for piece in cut(stream(name, units), CHUNK):
        pieces += [b"%x\r\n" % len(piece), piece, b"\r\n"]
    return b"".join([*pieces, b"0\r\n\r\n"])


def cut(data: bytes, size: int) -> Iterator[bytes]:
    """Yield `data` in pieces of `size` bytes, the last one shorter."""
    return (data[start : start + size] for start in range(0, len(data), size))
