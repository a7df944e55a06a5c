"""The text of the package index: README.md, whose links lead to the repository from there.

All else about the package is in `pyproject.toml`.
"""

import re
import tomllib
from pathlib import Path

HERE = Path(__file__).parent
LINK = re.compile(r"(?P<image>!?)\[(?P<text>[^\]]*)\]\((?!https?:|#)(?P<path>[^)\s]+)\)")


def for_the_index(text: str, repository: str) -> str:
    """Make links to files absolute; without a repository to link to, leave their texts only."""

    def absolute(link: re.Match[str]) -> str:
        if not repository:
            return "" if link["image"] else link["text"]
        kind = "raw" if link["image"] else "blob"
        return f"{link['image']}[{link['text']}]({repository}/{kind}/HEAD/{link['path']})"

    return LINK.sub(absolute, text)


if __name__ == "__main__":
    from setuptools import setup

    project = tomllib.loads((HERE / "pyproject.toml").read_text("utf-8"))
    setup(
        long_description=for_the_index(
            (HERE / "README.md").read_text("utf-8"),
            project["project"].get("urls", {}).get("Repository", ""),
        ),
        long_description_content_type="text/markdown",
    )
