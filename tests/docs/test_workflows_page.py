"""The programs on the page about workflows run, and the page names what there is."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from celeriac import canvas
from celeriac.testing.worker import start_worker

PAGE = (Path(__file__).parents[2] / "docs" / "workflows.md").read_text()


def test_its_programs_run() -> None:
    """[B-CANVAS-010, B-CANVAS-018]"""
    programs = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    names: dict[str, Any] = {}
    for program in programs:
        if "@app.task" in program:  # a worker knows the tasks that there are when it starts
            exec(program, names)
    with names["app"] as app, start_worker(app):
        for program in programs:
            if "@app.task" not in program:
                exec(program, names)
        assert names["power"].delay(2, 3).get(timeout=10) == 8
        assert ~names["add"].s(2, 2) == 4


@pytest.mark.parametrize("name", ["chain", "group", "chord", "chunks", "starmap", "map", "StampingVisitor"])
def test_it_names_the_primitives(name: str) -> None:
    assert name in PAGE


def test_it_names_what_visitors_are_asked() -> None:
    asked = [name for name in vars(canvas.StampingVisitor) if name.startswith("on_") and not name.endswith("_end")]
    assert [name for name in asked if f"`{name}`" not in PAGE] == []


def test_it_has_pictures() -> None:
    assert PAGE.count("```mermaid") >= 5
