"""The programs on the page about routing run, and what it says about options is so."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from celeriac import Queue
from celeriac.queue_forms import as_queue
from celeriac.testing.worker import start_worker

PAGE = (Path(__file__).parents[2] / "docs" / "routing.md").read_text()


def test_its_programs_run() -> None:
    """[B-ROUTE-010, B-ROUTE-011, B-ROUTE-015, B-ROUTE-016]"""
    first, *programs = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    names: dict[str, Any] = {}
    exec(first, names)
    assert len(programs) == 5
    with names["app"] as app, start_worker(app):
        for program in programs:
            exec(program, names)
        assert len(names["reloaded"]) == 1


def test_the_arguments_that_it_names_are_those_of_queues() -> None:
    named = re.search(r"`Queue` has the arguments of kombu's\.(.*?)\n\n", PAGE, re.DOTALL)
    assert named
    fields = {*Queue.__struct_fields__}
    assert {*re.findall(r"`([a-z_]+)`", named[1])} - {"cancel_consumer"} <= fields
    assert as_queue({"expires": 5}, name="q").expires == 5


def test_it_has_pictures() -> None:
    assert PAGE.count("```mermaid") >= 4
