"""What the tests do where something that they need is not installed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.support import imported, unavailable

TESTS = Path(__file__).parents[1]


def test_what_is_missing_skips_a_test_and_fails_it_where_it_is_required(monkeypatch):
    monkeypatch.delenv("EVENTSOURCE_REQUIRED", raising=False)
    with pytest.raises(pytest.skip.Exception, match="no engine"):
        unavailable("no engine")
    with pytest.raises(pytest.skip.Exception, match="needs not_there, of the extra `test-all`"):
        imported("not_there")
    monkeypatch.setenv("EVENTSOURCE_REQUIRED", "1")
    with pytest.raises(pytest.fail.Exception, match="no engine"):
        unavailable("no engine")
    with pytest.raises(pytest.fail.Exception, match="needs not_there, of the extra `test-all`"):
        imported("not_there")


def test_what_is_of_an_extra_that_not_all_environments_have_is_never_required(monkeypatch):
    monkeypatch.setenv("EVENTSOURCE_REQUIRED", "1")
    with pytest.raises(pytest.skip.Exception, match="needs not_there, of the extra `bench`"):
        imported("not_there", extra="bench")


def test_what_is_there_is_imported(monkeypatch):
    monkeypatch.setenv("EVENTSOURCE_REQUIRED", "1")
    assert imported("json") is sys.modules["json"]


def test_a_module_that_cannot_be_imported_is_an_error(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "broken_module.py").write_text("import not_there\n")
    with pytest.raises(ModuleNotFoundError, match="not_there"):
        imported("broken_module")


def test_no_test_is_skipped_by_another_way_for_want_of_a_module():
    name = "import" + "orskip"
    assert [path for path in TESTS.rglob("*.py") if name in path.read_text("utf-8")] == []
