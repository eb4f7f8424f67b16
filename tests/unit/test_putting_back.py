"""How much is fetched where tasks have rates, while much is put back."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from celeriac.message import Delivery, Message
from celeriac.task_limits import TaskLimits
from celeriac.worker.gate import Gate
from celeriac.worker.rate_limits import BITE, LONGEST_PAUSE, PAUSE, Appetite


def test_first_a_bite_and_more_once_messages_without_a_rate_have_come() -> None:
    appetite = Appetite()
    assert appetite.bite(500, 0.0, 10.0) == (BITE, 0.0)
    assert appetite.bite(5, 0.0, 10.0) == (5, 0.0)
    appetite.came(100)
    appetite.came(50)
    assert appetite.bite(500, 0.0, 10.0) == (BITE + 150, 0.0)
    appetite.put_back()
    assert appetite.bite(500, 0.0, 10.0) == (BITE, 0.0)


def test_putting_back_takes_a_quarter_of_the_time_at_most() -> None:
    appetite = Appetite()
    assert appetite.bite(500, 0.2, 10.0) == (0, pytest.approx(PAUSE * 0.2))
    assert appetite.bite(500, 0.2, 10.5) == (0, pytest.approx(PAUSE * 0.2 - 0.5))
    assert appetite.bite(500, 0.2, 10.0 + PAUSE * 0.2) == (BITE, 0.0)
    assert appetite.bite(500, 0.3, 20.0) == (0, pytest.approx(PAUSE * 0.1))


def test_a_pause_is_short_however_slow_the_broker_is() -> None:
    """What waits here meanwhile lasts no longer; several pauses in a row don't add up to a longer one."""
    appetite = Appetite()
    assert appetite.bite(500, 5.0, 10.0) == (0, LONGEST_PAUSE)
    assert appetite.bite(500, 10.0, 10.1) == (0, pytest.approx(LONGEST_PAUSE))
    assert appetite.bite(500, 10.0, 10.1 + LONGEST_PAUSE) == (BITE, 0.0)


@pytest.mark.parametrize("rates_off", [False, True])
def test_only_a_worker_with_rates_takes_bites(rates_off: bool) -> None:
    owner: Any = SimpleNamespace(committer=SimpleNamespace(spent=0.0))
    limits = {"limited": TaskLimits(rate=1.0), "unique": TaskLimits(is_unique=True)}
    assert Gate(owner, {"unique": limits["unique"]}, None, 30.0).bite(500) == (500, 0.0)
    gate = Gate(owner, limits, None, 30.0, rates_off=rates_off)
    assert gate.bite(500) == (500 if rates_off else BITE, 0.0)
    gate.came([_delivery("limited"), _delivery("unique"), _delivery("other")])
    assert gate.bite(500) == (500 if rates_off else BITE + 2, 0.0)


def _delivery(task: str) -> Delivery:
    return Delivery(message=Message(id=task, headers={"task": task}, body=b"", queue="q"), queue="q", token=task)
