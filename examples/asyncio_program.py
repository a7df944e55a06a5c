"""A stream in an asyncio program: in an `async for` loop, and with coroutines as handlers.

    python examples/asyncio_program.py http://127.0.0.1:8000/prices --seconds 10

Both at once, for as many seconds. When the time is up, or one of the two fails, or at
Ctrl-C, asyncio cancels what runs, and each leaves its `with` block, which closes the stream.
"""

from __future__ import annotations

import argparse
import asyncio
import sys

import requests

from eventsource import EventSource, EventStream, MessageEvent, dispatch


async def read_in_a_loop(url: str) -> None:
    """Take one event after the other; the server waits if we are slow."""
    async with EventStream(url) as stream:
        async for event in stream.messages():  # raises what closes it for good
            print(f"loop     {event.last_event_id:>3}  {event.data}", flush=True)


async def read_with_handlers(url: str) -> None:
    """Have handlers called, one after the other; they may wait for whatever they need."""

    async def show(event: MessageEvent) -> None:
        await asyncio.sleep(0)  # in place of a database, or another request
        print(f"handler  {event.last_event_id:>3}  {event.data}", flush=True)

    async with EventSource(url, dispatch=dispatch.asyncio(), start=False) as source:
        source.on("*", show)
        source.start()  # now that the handler is there
        await asyncio.to_thread(source.join)  # until it is closed for good
        if source.error is not None:
            raise source.error


async def read_both_ways(url: str, seconds: float) -> None:
    """Read until the time is up."""
    async with asyncio.timeout(seconds), asyncio.TaskGroup() as group:
        group.create_task(read_in_a_loop(url))
        group.create_task(read_with_handlers(url))


def main() -> int:
    """Run the program; return its exit status."""
    parser = argparse.ArgumentParser(description="Print the events of a stream.")
    parser.add_argument("url")
    parser.add_argument("--seconds", type=float, default=10.0)
    options = parser.parse_args()
    status = 0
    try:
        asyncio.run(read_both_ways(options.url, options.seconds))
    except* TimeoutError:
        print("the time is up")
    except* KeyboardInterrupt:
        print("interrupted")
    except* requests.RequestException as failed:
        print(f"the stream is closed: {failed.exceptions[0]}", file=sys.stderr)
        status = 1
    return status


if __name__ == "__main__":
    sys.exit(main())
