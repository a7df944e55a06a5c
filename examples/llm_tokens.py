"""Print the answer of a language model as it is made: a POST whose response is a stream.

    python examples/llm_tokens.py http://127.0.0.1:8000/v1/chat "What is a stream?"

The end is `[DONE]`. An answer that ends otherwise is reported, with exit status 1. The request
is sent once: a POST is not repeated unless you pass `reconnect=ReconnectPolicy()`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

import requests

from eventsource import EventStream


class AnswerFailed(Exception):
    """The answer is not complete."""


def tokens(url: str, prompt: str) -> Iterator[str]:
    """Ask, and yield the tokens of the answer as they come.

    Raises:
        AnswerFailed: it is not complete; the text says why.
    """
    with EventStream(
        url,
        method="POST",
        json={"prompt": prompt, "stream": True},
        event_timeout=60.0,  # of thinking between two tokens
    ) as stream:
        try:
            for event in stream.messages():
                if event.type == "error":  # the server's, when it had begun to answer
                    raise AnswerFailed(event.json()["message"])
                if event.data == "[DONE]":
                    return
                yield event.json()["token"]
        except requests.RequestException as error:  # refused, or cut short
            why = "" if error.response is None else error.response.text
            raise AnswerFailed(f"{error}\n{why}".strip()) from error
    raise AnswerFailed("the answer ended before it was complete")


def main(url: str, prompt: str) -> int:
    """Print the answer; return the exit status."""
    try:
        for token in tokens(url, prompt):
            print(token, end="", flush=True)
        print()
    except AnswerFailed as failure:
        print(flush=True)
        print(f"failed: {failure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:  # enough: the stream is closed, so the model may stop
        print()
        return 130
    return 0


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python examples/llm_tokens.py URL PROMPT")
    sys.exit(main(*sys.argv[1:]))
