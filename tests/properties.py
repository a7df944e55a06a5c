"""How many examples a property test has."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings

from . import support


def examples(count):
    """Decorate a property test: so many examples with `--all`, else a tenth of them."""
    many = settings(
        max_examples=count if support.runs_all else max(count // 10, 20),
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    return lambda test: pytest.mark.timeout(300)(many(test))
