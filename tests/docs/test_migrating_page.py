"""The page about moving from Celery says what is so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from celeriac.as_celery.app import CELERY_DEFAULTS
from celeriac.as_celery.later import WAITING
from celeriac.cli.group import COMMANDS
from celeriac.setting_table import TABLE

PAGE = (Path(__file__).parents[2] / "docs" / "migrating.md").read_text("utf-8")
ROWS = dict(re.findall(r"^\| `(\w+)` \| (.+?) \|", PAGE, re.MULTILINE))


def test_the_table_has_each_default_of_the_hook() -> None:
    assert set(ROWS) == set(CELERY_DEFAULTS)
    for name, value in CELERY_DEFAULTS.items():
        assert ROWS[name] == ("none" if value is None else f"`{value}`"), name
        ours = PAGE.split(f"| `{name}` | {ROWS[name]} | `")[1].partition("`")[0]
        assert ours == str(TABLE[name].default), name


@pytest.mark.parametrize("reason", ["periodic tasks", "events"])
def test_what_it_says_is_to_come_is_to_come(reason: str) -> None:
    assert reason in PAGE
    assert reason in WAITING


def test_its_commands_exist() -> None:
    assert {"worker", "doctor", "dead"} <= set(re.findall(r"(?:as_celery|celeriac) (\w+) ?", PAGE)) & set(COMMANDS)
