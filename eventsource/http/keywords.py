"""Unknown keyword arguments: the error names the class and the nearest known name."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from .options import OPTION_NAMES

_MEANT: Final = {
    "retry": "reconnect",
    "retries": "reconnect",
    "max_retries": "reconnect",
    "reconnection_time": "reconnect",
    "reconnect_delay": "reconnect",
    "with_credentials": "cookies",
    "heartbeat_timeout": "event_timeout",
    "read_timeout": "timeout",
    "connect_timeout": "timeout",
    "chunk_size": "max_event_size",
    "body": "data",
    "content": "data",
    "last_event_id": "last_id",
}
"""Arguments of other clients, and their names here. A class may lack some of the latter."""


def check_keywords(owner: str, given: Iterable[str], known: Iterable[str]) -> None:
    """Refuse keyword arguments that a class does not accept.

    Args:
        owner: the name of the class.
        given: the arguments that its signature does not name.
        known: the arguments that it names; those of requests are known in addition.

    Raises:
        TypeError: an argument is not known. The text has the nearest known name.
    """
    names = {*known, *OPTION_NAMES}
    for name in given:
        if name not in names:
            near = _nearest(name, names)
            hint = f"; did you mean {near!r}?" if near else ""
            raise TypeError(f"{owner}: unexpected keyword argument {name!r}{hint}")


def _nearest(name: str, names: set[str]) -> str | None:
    import difflib  # noqa: PLC0415 - only for those who need it

    spelled = {each.replace("_", ""): each for each in names}
    meant = _MEANT.get(name, "")
    if meant in names:
        return meant
    near = difflib.get_close_matches(name.replace("_", "").lower(), spelled, n=1)
    return spelled[near[0]] if near else None
