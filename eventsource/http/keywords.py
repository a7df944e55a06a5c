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
"""What other clients call an argument, and what it is called here, if the class has that."""


def check_keywords(owner: str, given: Iterable[str], known: Iterable[str]) -> None:
    """Refuse keyword arguments that a class does not take.

    Args:
        owner: the name of the class.
        given: those that its signature does not name.
        known: those that it does name; what requests takes is known besides.

    Raises:
        TypeError: one is not known. The text has the nearest name that is.
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
