"""What `pip install` is while a page runs: the names are checked, nothing is installed.

It is given the repository and the arguments of `pip install`.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ELSEWHERE = {
    "pysocks",
    "uwsgi",
    "wxpython",
    "pygobject",
    "trio",
    "uvloop",
    "httpx",
    "sseclient",
    "sseclient-py",
}
"""Distributions that a page may name and `pyproject.toml` need not."""
OPTIONS = {"-e", "--editable", "-U", "--upgrade", "-q", "--quiet"}


def what_is_wrong(argument: str, project: dict) -> str | None:
    """Say why pip could not do it; None if it could."""
    extras = project["optional-dependencies"]
    path = re.fullmatch(r"(\.{1,2}|.*/[^\[\]]*)(?:\[(.*)\])?", argument)
    if path:
        name, wanted = project["name"], {e.strip() for e in (path[2] or "").split(",")} - {""}
    else:
        requirement = Requirement(argument)
        name, wanted = requirement.name, requirement.extras
    if canonicalize_name(name) == canonicalize_name(project["name"]):
        unknown = wanted - set(extras)
        return f"{argument}: no extra {', '.join(sorted(unknown))}" if unknown else None
    known = [*project["dependencies"], *(line for lines in extras.values() for line in lines)]
    names = {canonicalize_name(Requirement(line).name) for line in known}
    return None if canonicalize_name(name) in names | ELSEWHERE else f"{argument}: what is that?"


def main(root: str, *arguments: str) -> int:
    """Check the arguments; return the exit status."""
    project = tomllib.loads((Path(root) / "pyproject.toml").read_text("utf-8"))["project"]
    wrong = [
        problem
        for argument in arguments
        if argument not in OPTIONS
        for problem in [what_is_wrong(argument, project)]
        if problem
    ]
    if not arguments:
        wrong.append("nothing to install")
    for problem in wrong:
        print(problem, file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
