# ruff: noqa: INP001 - mkdocs loads it by its path
"""For mkdocs: the site links to the repository that `pyproject.toml` names, as the README does."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit


def on_config(config: Any) -> None:
    """Set what the theme shows at the top of each page; without a repository, nothing."""
    path = Path(config.config_file_path).with_name("pyproject.toml")
    project = tomllib.loads(path.read_text("utf-8"))["project"]
    if url := project.get("urls", {}).get("Repository"):
        config.repo_url, config.repo_name = url, urlsplit(url).path.strip("/")
