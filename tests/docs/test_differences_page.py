"""The page of differences is whole: what the table of settings and the tests call a difference stands there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from celeriac.setting_table import TABLE

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "differences.md").read_text("utf-8")
ADVICE = "docs/differences.md needs a row that names it"
NAMES = set(re.findall(r"`(?:[^`]*?\b)?((?:task|worker|result|broker|message|beat|strict)_\w+)\b[^`]*`", PAGE))


def test_every_default_that_differs_is_there() -> None:
    assert {name for name, row in TABLE.items() if row.differs} - NAMES == set(), ADVICE


def test_every_setting_without_effect_is_there() -> None:
    assert {name for name, row in TABLE.items() if row.unused} - NAMES == set(), ADVICE


def test_every_setting_that_is_named_exists() -> None:
    others = {"task_id", "task_received", "task_failure"}  # an option and signals
    assert NAMES - set(TABLE) - others == set()


@pytest.mark.parametrize("text", [r"differs on purpose", r"Differs on purpose"])
def test_every_behaviour_that_a_test_calls_different_is_there(text: str) -> None:
    found: set[str] = set()
    for path in (ROOT / "tests").rglob("test_*.py"):
        if path.name != "test_behaviours.py":
            for doc in re.findall(r'"""(.*?)"""', path.read_text("utf-8"), re.S):
                if text in doc:
                    found.update(
                        re.findall(r"B-[A-Z]+-\d{3}(?=[^B]*?differs on purpose)", doc.replace("[", "").replace("]", ""))
                    )
    assert {each for each in found if each not in PAGE} == set(), ADVICE


def test_each_row_has_its_columns() -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {5}
    for row in rows:
        celery, ours, why, _ = (cell.strip() for cell in row.strip("|").split("|"))
        assert celery
        assert ours
        assert why or "page about it" in ours
