"""Tables in a page of the documentation, between two marks, so that a command can renew them."""

from __future__ import annotations

from pathlib import Path


def replace_section(page: Path, name: str, text: str) -> None:
    """Put `text` between the lines `<!-- NAME: made by … -->` and `<!-- end of NAME -->`.

    Raises:
        ValueError: the page has no such lines; it is left as it was.
    """
    old = page.read_text(encoding="utf-8")
    before, begin, rest = old.partition(f"<!-- {name}: ")
    opening, arrow, rest = rest.partition("-->\n")
    _, end, after = rest.partition(f"<!-- end of {name} -->")
    if not (begin and arrow and end):
        raise ValueError(f"{page.name} has no section {name!r}")
    new = f"{before}{begin}{opening}{arrow}\n{text}\n\n{end}{after}"
    page.write_text(new, encoding="utf-8")
