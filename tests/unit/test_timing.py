"""Clocks, deadlines and back-off."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celeriac.timing import SYSTEM_CLOCK, Deadline, backoff, iso_now


def test_system_clock_is_the_machines() -> None:
    before, before_monotonic = time.time(), time.monotonic()
    assert before <= SYSTEM_CLOCK.now() <= time.time()
    assert before_monotonic <= SYSTEM_CLOCK.monotonic() <= time.monotonic()


def test_iso_now_is_utc_with_an_offset() -> None:
    moment = datetime.fromisoformat(iso_now())
    assert moment.utcoffset() == timedelta(0)
    assert abs(datetime.now(UTC) - moment) < timedelta(minutes=1)


@given(attempt=st.integers(1, 10_000), base=st.floats(0.001, 10), cap=st.floats(0.001, 1000))
def test_backoff_stays_between_half_and_the_whole_of_its_ceiling(attempt: int, base: float, cap: float) -> None:
    ceiling = min(cap, base * 2.0 ** min(attempt - 1, 30))
    assert ceiling / 2 <= backoff(attempt, base=base, cap=cap) <= ceiling


def test_backoff_grows_to_its_cap() -> None:
    assert backoff(1) <= 0.05
    assert 0.1 <= backoff(3) <= 0.2
    assert 2.5 <= backoff(100) <= 5.0


def test_backoff_is_jittered() -> None:
    assert len({backoff(5) for _ in range(20)}) > 1


def test_deadline_in_the_future_has_time_left() -> None:
    deadline = Deadline(1000)
    left = deadline.left()
    assert left is not None
    assert 0 < left <= 1000
    assert not deadline.passed()


@pytest.mark.parametrize("seconds", [0, -5])
def test_deadline_that_is_over_has_nothing_left(seconds: float) -> None:
    deadline = Deadline(seconds)
    assert deadline.left() == 0.0
    assert deadline.passed()


def test_no_deadline_never_passes() -> None:
    deadline = Deadline(None)
    assert deadline.left() is None
    assert not deadline.passed()
