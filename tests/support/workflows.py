"""Random workflows and what they have to give: a plan, the oracle that evaluates it in Python, and the workflow of it.

The oracle knows nothing of signatures: it follows the documented meaning of chain, group and chord. What a task returns
depends on its number and on everything it was called with, so that a value that is lost, repeated or out of order shows.
`add_tasks` gives an app the tasks of which these workflows are made.
"""

from __future__ import annotations

import random
import time
import zlib
from collections.abc import Callable, Iterator
from typing import Any

from celeriac import AsyncResult, Celeriac, chain, chord, group

__all__ = ["Failed", "Plan", "add_tasks", "compose", "evaluate", "leaves", "random_plan"]

#: ("task", number), ("retry", number), ("slow", number), ("fail", number), ("chain", [...]), ("group", [...]) or
#: ("chord", [...], body).
Plan = tuple[Any, ...]


class Failed(Exception):
    """A task of the plan fails."""


def digest(value: Any, number: int) -> int:
    """What a task returns."""
    return zlib.crc32(repr((value, number)).encode())


def add_tasks(app: Celeriac, on_start: Callable[[str], None] = lambda task_id: None) -> None:
    """Give an app the tasks. `on_start` is called with the id of each that begins."""

    def task(self: Any, value: Any, number: int = 0) -> int:
        on_start(self.request.id)
        return digest(value, number)

    def slow(self: Any, value: Any, number: int = 0) -> int:
        on_start(self.request.id)
        time.sleep(number / 2000)
        return digest(value, number)

    def retry(self: Any, value: Any, number: int = 0) -> int:
        on_start(self.request.id)
        if self.request.retries < 1 + number % 2:
            raise self.retry(countdown=0.01 * (number % 3))
        return digest(value, number)

    def fail(self: Any, value: Any, number: int = 0) -> None:
        on_start(self.request.id)
        raise Failed(number)

    for function in (task, slow, retry, fail):
        app.task(function, name=function.__name__, bind=True, max_retries=5)


def evaluate(plan: Plan, value: Any) -> Any:
    """What the workflow of a plan gives when it is called with a value.

    Raises:
        Failed: A task of it fails.
    """
    kind, inner = plan[0], plan[1]
    if kind in ("task", "slow", "retry"):
        return digest(value, inner)
    if kind == "fail":
        raise Failed
    if kind == "chain":
        for step in inner:
            value = evaluate(step, value)
        return value
    parts = _flat(inner)
    values = [evaluate(part, value) for part in parts]
    return values if kind == "group" else evaluate(plan[2], values)


def _flat(members: list[Plan]) -> list[Plan]:
    """Groups in a group are one group."""
    found: list[Plan] = []
    for member in members:
        found += _flat(member[1]) if member[0] == "group" else [member]
    return found


def compose(app: Celeriac, plan: Plan) -> Any:
    """The workflow of a plan."""
    kind, inner = plan[0], plan[1]
    if kind not in ("chain", "group", "chord"):
        return app.signature(kind, (inner,))
    members = [compose(app, each) for each in inner]
    if kind == "chain":
        return chain(*members)
    return group(members) if kind == "group" else chord(members, compose(app, plan[2]))


def random_plan(rng: random.Random, depth: int = 6, budget: int = 20, *, fails: bool = True) -> Plan:
    """A plan of at most this depth and about this many tasks; now and then 40 of them in one group or chord."""
    if depth == 0 or budget <= 1 or rng.random() < 0.15:
        weights = (70, 15, 12, 3 if fails else 0)
        return (rng.choices(("task", "slow", "retry", "fail"), weights)[0], rng.randrange(100))
    kind = rng.choice(("chain", "group", "chord"))
    if rng.random() < 0.03:
        members: list[Plan] = [("task", rng.randrange(100)) for _ in range(40)]
    else:
        width = rng.randint(2, 5)
        members = [random_plan(rng, depth - 1, budget // width, fails=fails) for _ in range(width)]
    if kind == "chord":
        return (kind, members, random_plan(rng, depth - 1, budget // 4, fails=fails))
    return (kind, members)


def leaves(result: Any) -> Iterator[AsyncResult[Any]]:
    """The results of all tasks of a workflow."""
    while result is not None:
        if isinstance(result, AsyncResult):
            yield result
        else:
            for member in result.results:
                yield from leaves(member)
        result = result.parent
