"""Workflows in a mixed fleet on one Redis: either's clients with either's workers, and both workers on one workflow."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from tests.mixed.conftest import Fleet

pytestmark = pytest.mark.slow

#: Expressions of clients, and what they give. Both sides agree on these.
WORKFLOWS: dict[str, Any] = {
    "chain(add.s(2, 2), add.s(4), add.s(8))": 16,
    "chain(add.s(2, 2), add.si(1, 1), add.s(8))": 10,
    "chain(add.s(1, 1), again.si(2), echo.s(), again.si(1)) | echo.si(5)": 5,
    "chain(instead.s(1), add.s(1))": 3,
    "group(add.s(i, i) for i in range(5))": [0, 2, 4, 6, 8],
    "group(chain(add.s(1, 1), add.s(2)), chain(add.s(3, 3), add.s(4)))": [4, 10],
    "chain(add.s(1, 1), group(add.s(2), add.s(3)))": [4, 5],
    "chord([add.s(i, i) for i in range(10)], total.s())": 90,
    "chord([add.s(1, 1)], echo.s())": [2],
    "chord([add.s(1, 1), add.s(2, 2)], chain(total.s(), add.s(1)))": 7,
    "chain(add.s(1, 1), group(add.s(2), add.s(3)), total.s(), add.s(1))": 10,
    "group(add.s(1, 1), add.s(2, 2)) | group(total.s(), echo.s())": [6, [2, 4]],
    "chord([add.s(1, 1), add.s(2, 2)], total.s()) | add.s(1)": 7,
    "chord([chain(add.s(1, 1), add.s(2)), add.s(5, 5)], echo.s())": [4, 10],
    "chord([chord([add.s(1, 1), add.s(2, 2)], total.s()), add.s(5, 5)], echo.s())": [6, 10],
    "chord([chain(add.s(1, 1), group(add.s(2), add.s(3))), add.s(5, 5)], echo.s())": [[4, 5], 10],
    "chord([add.s(1, 1), instead.s(1)], echo.s())": [2, 2],
    "chord([again.s(1), add.s(1, 1)], echo.s()) | total.si([1, 2])": 3,
    "chord([add.s(1, 1)], chord([total.s(), total.s()], total.s()))": 4,
    "chain(add.si(1, 0), *(chord([add.s(1), add.s(2)], total.s()) for _ in range(4)), add.s(1))": 62,
    "chord([chord([add.s(1, 1), add.s(2, 2)], total.s()) | chord([add.s(1), add.s(2)], total.s())] * 2, total.s())": 30,
    "echo.map([1, 2])": [1, 2],
    "add.starmap([(1, 2), (3, 4)])": [3, 7],
    "add.chunks([(i, i) for i in range(5)], 2).group()": [[0, 2], [4, 6], [8]],
}
FLEETS = [
    ("celery", ["celeriac"]),
    ("celeriac", ["celery"]),
    ("celery", ["celery", "celeriac"]),
    ("celeriac", ["celery", "celeriac"]),
]


@pytest.mark.parametrize(("client_side", "worker_sides"), FLEETS)
def test_workflows_cross(fleet: Fleet, client_side: str, worker_sides: list[str]) -> None:
    for side in worker_sides:
        fleet.worker(side, "-n", f"{side}@%h")
    client = fleet.client(client_side)
    for expression, expected in WORKFLOWS.items():
        for _ in range(len(worker_sides)):
            assert [expression, client(f"({expression}).apply_async().get(timeout=20)")] == [expression, expected]


@pytest.mark.parametrize(("client_side", "worker_sides"), FLEETS)
def test_failures_cross(fleet: Fleet, client_side: str, worker_sides: list[str]) -> None:
    for side in worker_sides:
        fleet.worker(side, "-n", f"{side}@%h")
    client = fleet.client(client_side)
    client("chain(add.s(1, 1), fail.si('no'), echo.s()).apply_async(task_id='end').id")
    assert client("outcome(app.AsyncResult('end'))") == ["FAILURE", ["Trouble", ["no", 42]]]
    whole = (
        "chord([add.s(1, 1), fail.si('no'), add.s(2, 2)], echo.s().on_error(on_error.s())).apply_async(task_id='body')"
    )
    client(f"{whole}.id")
    assert (
        client("(lambda r: type(r.get(timeout=20, propagate=False)).__name__)(app.AsyncResult('body'))") == "ChordError"
    )
    assert client("app.AsyncResult('body').state") == "FAILURE"
    assert fleet.ledger.read_text().split() == ["body-ChordError"]


@pytest.mark.parametrize("client_side", ["celery", "celeriac"])
def test_a_body_runs_once_whoever_ends_the_header(fleet: Fleet, client_side: str) -> None:
    fleet.worker("celery", "-n", "stock@%h")
    fleet.worker("celeriac", "-n", "ours@%h")
    client = fleet.client(client_side)
    made = "[chord([add.s(i, n) for i in range(20)], body.s(str(n))).apply_async() for n in range(30)]"
    values = client(f"[r.get(timeout=40) for r in {made}]")
    assert values == [[i + n for i in range(20)] for n in range(30)]
    assert Counter(fleet.ledger.read_text().split()) == {str(n): 1 for n in range(30)}
