"""How much is fetched while much is put back for its rate, and how far apart workers that share a rate put it."""

from __future__ import annotations

import uuid

import pytest

from celeriac.coordination.memory import MemoryCoordination
from celeriac.worker.rate_limits import AHEAD, BITE, LONGEST_PAUSE, Appetite
from celeriac.worker.rate_sharers import RateSharers


def test_all_is_fetched_as_long_as_nothing_is_put_back() -> None:
    assert Appetite().bite(500, 1.0, 10.0) == (500, 0.0)


def test_putting_back_takes_a_quarter_of_the_time_at_most() -> None:
    appetite = Appetite()
    for _ in range(20):
        appetite.put_back(10.0)
    wanted, pause = appetite.bite(500, 0.01, 10.0)
    assert (wanted, pause) == (0, pytest.approx(4 * 20 * 0.01))
    assert appetite.bite(500, 0.01, 10.5) == (0, pytest.approx(0.3))
    assert appetite.bite(500, 0.01, 10.8) == (BITE, 0.0)
    assert appetite.bite(5, 0.01, 10.8) == (5, 0.0)


def test_a_pause_is_short_however_slow_the_broker_is() -> None:
    appetite = Appetite()
    for _ in range(500):
        appetite.put_back(10.0)
    assert appetite.bite(500, 1.0, 10.0) == (0, LONGEST_PAUSE)


def test_once_nothing_is_put_back_any_more_all_is_fetched_again() -> None:
    appetite = Appetite()
    appetite.put_back(10.0)
    assert appetite.bite(500, 1.0, 10.0)[0] == 0
    assert appetite.bite(500, 1.0, 10.0 + AHEAD) == (500, 0.0)


def test_workers_that_share_a_rate_are_counted() -> None:
    place = MemoryCoordination(f"memory://{uuid.uuid4().hex}")
    first, second = RateSharers(place, "a", ["t"]), RateSharers(place, "b", ["t", "u"])
    assert first.number("t") == 1
    first.count()
    second.count()
    assert (second.number("t"), second.number("u")) == (2, 1)
    assert not second.is_due(), "it has counted just now"


def test_without_a_place_nobody_is_counted() -> None:
    sharers = RateSharers(None, "a", ["t"])
    assert not sharers.is_due()
    assert sharers.number("t") == 1
