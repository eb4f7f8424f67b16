"""The programs on the page about batch tasks run, and it names each option and what a call can do."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from celeriac import Call
from celeriac.testing.worker import start_worker

PAGE = (Path(__file__).parents[2] / "docs" / "batches.md").read_text("utf-8")


def test_its_programs_run() -> None:
    answers = {"a": "fine", "b": "unknown"}
    bank = SimpleNamespace(charge_all=lambda calls: [answers[name] for name, _ in calls])
    names: dict[str, Any] = {"bank": bank, "store_all": lambda rows: [len(row["text"]) for row in rows]}
    first, use, second = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    exec(first.replace("batch_wait=2.0", "batch_wait=0.01") + second, names)
    with names["app"] as app, start_worker(app):
        exec(use, names)
        charges = [names["charge"].delay(name, 1.0) for name in answers]
        assert charges[0].get(timeout=20) is None
        assert "no account b" in str(charges[1].get(timeout=20, propagate=False))


@pytest.mark.parametrize("name", ["batch", "batch_wait", *(name for name in vars(Call) if not name.startswith("_"))])
def test_it_names_what_there_is(name: str) -> None:
    if name not in ("end",):
        assert re.search(rf"`(call\.)?{name}[`(]", PAGE), name
