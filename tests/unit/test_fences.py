"""Fences order the executions of a task, whatever numbers a message brings."""

from __future__ import annotations

import pytest

from celeriac.results.base import fence_of


def test_what_replaces_a_task_is_newer_than_any_attempt_of_it() -> None:
    assert fence_of(0, 0, 2) < fence_of(1, 0, 1) < fence_of(999, 0, 1) < fence_of(0, 1, 1)


@pytest.mark.parametrize("numbers", [(2**31 - 1, 2**31 - 1, 10**30), (10**400, 0, 1), (-5, -7, -1), (0, 4295, 0)])
def test_fences_fit_into_what_databases_keep(numbers: tuple[int, int, int]) -> None:
    retries, deliveries = fence_of(*numbers)
    assert 0 <= (retries << 31) + deliveries < 2**63
    assert 0 <= deliveries < 2**31
