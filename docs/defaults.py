"""For mkdocstrings: signatures in the reference show the values of defaults, not the names.

Where a parameter's default is the name of a constant of the package, such as `MAX_EVENT_SIZE`,
its signature shows what the constant is set to (`64 * 2**20`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import griffe


class DefaultsByValue(griffe.Extension):
    """Replaces the names of constants by their values, once the whole package is loaded."""

    def on_package(self, *, pkg: griffe.Module, loader: griffe.GriffeLoader, **kwargs: Any) -> None:
        for function in _functions(pkg):
            for parameter in function.parameters:
                if isinstance(parameter.default, griffe.ExprName):
                    value = _value(parameter.default, loader)
                    if value is not None:
                        parameter.default = value


def _functions(parent: griffe.Module | griffe.Class) -> Iterator[griffe.Function]:
    for member in parent.members.values():
        if isinstance(member, griffe.Function):
            yield member
        elif isinstance(member, griffe.Module | griffe.Class):  # no aliases
            yield from _functions(member)


def _value(name: griffe.ExprName, loader: griffe.GriffeLoader) -> griffe.Expr | str | None:
    """Return what the constant is set to; None for a name of something else."""
    try:
        found = loader.modules_collection[name.canonical_path]
        found = found.final_target if isinstance(found, griffe.Alias) else found
    except (KeyError, griffe.AliasResolutionError):
        return None
    return found.value if isinstance(found, griffe.Attribute) else None
