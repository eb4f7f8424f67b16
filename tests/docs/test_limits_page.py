"""The page about limits names each option, each value and each place, and its program is one that works."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from celeriac import Celeriac
from celeriac.coordination.open import ENTRY_POINT_GROUP
from celeriac.task_limits import OPTIONS, limits_of

PAGE = (Path(__file__).parents[2] / "docs" / "limits.md").read_text("utf-8")


@pytest.mark.parametrize("option", [*OPTIONS, "coordination_url", "task_unique_timeout", "task_default_rate_limit"])
def test_each_option_is_on_it(option: str) -> None:
    assert f"`{option}" in PAGE


@pytest.mark.parametrize("value", ["until_start", "until_done", "ignore", "replace", "raise", "worker", "cluster"])
def test_each_value_is_on_it(value: str) -> None:
    assert f'"{value}"' in PAGE


def test_the_entry_point_is_named() -> None:
    assert f"`{ENTRY_POINT_GROUP}`" in PAGE


def test_its_program_works() -> None:
    program = re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert program is not None
    app = Celeriac("limits", broker="memory://limits-page", set_as_current=False)
    names: dict[str, object] = {"app": app, "__name__": "shop"}
    exec(program[1], names)
    tasks = [app.tasks[f"shop.{name}"] for name in ("mail", "geocode", "export", "reindex")]
    assert all(limits_of(task) is not None for task in tasks)
