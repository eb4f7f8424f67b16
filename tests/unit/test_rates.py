"""Rate limits: what their text means, and when a start is allowed."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from celeriac.rates import CLOSE, interval_of, parse_rate, take, tolerance_of


@pytest.mark.behaviour("B-RATE-001")
@pytest.mark.parametrize(
    ("value", "per_second"),
    [
        (10, 10.0), (0.5, 0.5), ("10", 10.0), ("10/s", 10.0), ("100/m", 100 / 60), ("5/h", 5 / 3600), ("0.5/s", 0.5),
        (" 10 / s ", 10.0), ("1e3/m", 1000 / 60),
    ],
)  # fmt: skip
def test_a_number_is_per_second_and_text_names_its_unit(value: Any, per_second: float) -> None:
    assert parse_rate(value) == pytest.approx(per_second)


@pytest.mark.parametrize("value", [None, 0, "", "0", "0/s", 0.0])
def test_b_rate_004_nothing_is_no_limit(value: Any) -> None:
    assert parse_rate(value) == 0.0


@pytest.mark.parametrize(
    "value", ["ten", "10/d", "10/", "/s", "-1", -1, "nan", float("nan"), "inf/s", True, [10], b"10/s", "10/s/s", "1 0"]
)
def test_anything_else_is_named(value: Any) -> None:
    with pytest.raises(ValueError, match="is no rate limit: say"):
        parse_rate(value)


def starts(rate: float, moments: list[float]) -> list[float]:
    """When starts happen if one more is asked for at each of these moments."""
    interval = interval_of(rate)
    next_at, found = 0.0, []
    for now in moments:
        taken = take(next_at, now, interval, tolerance_of(interval), 1)
        next_at = taken.next_at
        found += [now] * taken.granted
    return found


def test_b_rate_002_starts_keep_their_distance() -> None:
    """Asked every 10 ms, at 100 a minute."""
    found = starts(100 / 60, [1000 + tick / 100 for tick in range(1000)])
    gaps = [later - earlier for earlier, later in itertools.pairwise(found)]
    assert min(gaps) >= 0.6
    assert max(gaps) < 0.62
    assert len(found) == 17


def test_time_that_nobody_used_is_not_saved_up() -> None:
    found = starts(1.0, [0.5, 100.0, 100.1, 100.9, 101.0, 101.5])
    assert found == [0.5, 100.0, 101.0]


def test_close_starts_make_up_for_a_late_timer_but_no_more() -> None:
    """At 100/s: 35 ms late is made up for, a second is not."""
    taken = take(1000.0, 1000.035, 0.01, CLOSE, 100)
    assert taken.granted == 4
    assert take(taken.next_at, 1000.036, 0.01, CLOSE, 100).granted == 0
    assert take(1000.0, 1001.0, 0.01, CLOSE, 100).granted in (5, 6)


def test_in_any_second_there_are_little_more_than_the_rate() -> None:
    moments = [50 + tick * 0.0137 for tick in range(400)]
    interval, next_at, found = 0.01, 0.0, []
    for now in moments:
        taken = take(next_at, now, interval, tolerance_of(interval), 1000)
        next_at = taken.next_at
        found += [now] * taken.granted
    busiest = max(sum(1 for each in found if at <= each < at + 1) for at in found)
    assert busiest <= 106
    assert len(found) >= 0.98 * (moments[-1] - moments[0]) / interval


def test_the_wait_is_until_the_next_start() -> None:
    taken = take(0.0, 1000.0, 2.0, 0.0, 3)
    assert (taken.granted, taken.wait, taken.next_at) == (1, 2.0, 1002.0)
    again = take(taken.next_at, 1001.5, 2.0, 0.0, 3)
    assert (again.granted, again.wait) == (0, 0.5)
    assert take(taken.next_at, 1001.5, 2.0, 0.0, 0).granted == 0


def test_a_raised_limit_and_a_clock_set_back_do_not_hold_up_for_long() -> None:
    assert take(5000.0, 1000.0, 1.0, 0.0, 1).wait == 1.0
