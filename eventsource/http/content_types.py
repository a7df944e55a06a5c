"""The content types of responses, and which of them are read as event streams."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Final

import requests
from requests.utils import parse_list_header

EVENT_STREAM: Final = ("text/event-stream",)
ANY: Final = "*/*"

_MEDIA_TYPE: Final = re.compile(r"[-!#$%&'*+.^_`|~0-9A-Za-z]+/[-!#$%&'*+.^_`|~0-9A-Za-z]+")


def check_content_types(content_types: object) -> tuple[str, ...]:
    """Return the accepted media types, in lower case and without parameters.

    Raises:
        TypeError: it is not a collection of strs.
        ValueError: it is empty, or an element is not a media type.
    """
    if isinstance(content_types, str | bytes) or not isinstance(content_types, Collection):
        raise TypeError(
            "content_types must be a collection of strs, such as"
            f" {EVENT_STREAM!r}, not {content_types!r}"
        )
    if not content_types:
        raise ValueError("content_types must not be empty")
    for each in content_types:
        if not isinstance(each, str):
            raise TypeError(f"content_types must contain strs, not {each!r}")
        if _plain(each) and not _MEDIA_TYPE.fullmatch(_plain(each)):
            raise ValueError(f"content_types must contain media types, not {each!r}")
        if "*" in _plain(each) and _plain(each) != ANY:
            raise ValueError(f"content_types: the only wildcard is {ANY!r}, not {each!r}")
    return tuple(map(_plain, content_types))


def content_type_of(response: requests.Response) -> str:
    """Return the media type of a response in lower case; "" if there is none.

    Of several fields, which requests joins with commas, the last counts (Fetch, "extract a
    MIME type").
    """
    types = parse_list_header(response.headers.get("Content-Type", "")) or [""]
    return _plain(types[-1])


def _plain(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()
