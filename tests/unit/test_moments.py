"""Dates and times under Celery's names."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from celeriac import moments
from celeriac.moments import ffwd, timezone

PARIS = ZoneInfo("Europe/Paris")


@pytest.fixture
def new_york(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This process's clock is set to New York."""
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def test_a_moment_without_a_zone_gets_one() -> None:
    noon = datetime(2026, 1, 2, 12)
    assert moments.is_naive(noon)
    assert moments.maybe_make_aware(noon) == noon.replace(tzinfo=UTC)
    assert moments.maybe_make_aware(noon, PARIS).isoformat() == "2026-01-02T13:00:00+01:00"
    assert moments.maybe_make_aware(noon, PARIS, naive_as_utc=False).isoformat() == "2026-01-02T12:00:00+01:00"
    aware = noon.replace(tzinfo=PARIS)
    assert moments.maybe_make_aware(aware, UTC) is aware
    assert not moments.is_naive(aware)


def test_a_time_that_summer_time_skips_is_read_as_clocks_show_it_then() -> None:
    assert moments.make_aware(datetime(2026, 3, 29, 2, 30), PARIS).isoformat() == "2026-03-29T03:30:00+02:00"
    assert moments.make_aware(datetime(2026, 3, 29, 12), PARIS).isoformat() == "2026-03-29T12:00:00+02:00"


def test_moments_are_converted() -> None:
    noon = datetime(2026, 7, 2, 12)
    assert moments.localize(noon, PARIS).hour == 14
    assert moments.to_utc(noon.replace(tzinfo=PARIS)).hour == 10
    assert timezone.to_local(noon, PARIS).hour == 14
    assert timezone.to_local(noon, "UTC", "Europe/Paris").hour == 10
    assert timezone.get_timezone("Europe/Paris") is timezone.tz_or_local(PARIS) is PARIS
    assert timezone.utc is UTC is timezone.get_timezone("utc")
    assert timezone.tz_or_local() is timezone.local


def test_the_local_zone_is_that_of_this_machine_at_that_moment(new_york: None) -> None:
    winter, summer = (datetime(2026, month, 2, 12, tzinfo=timezone.local) for month in (1, 7))
    assert (winter.utcoffset(), summer.utcoffset()) == (timedelta(hours=-5), timedelta(hours=-4))
    assert (winter.dst(), summer.dst()) == (timedelta(0), timedelta(hours=1))
    assert (winter.tzname(), summer.tzname()) == ("EST", "EDT")
    assert datetime(2026, 7, 2, 12, tzinfo=UTC).astimezone(timezone.local).hour == 8
    assert timezone.to_local_fallback(datetime(2026, 1, 2, 12)).hour == 7
    assert timezone.to_system(datetime(2026, 1, 2, 12, tzinfo=UTC)).hour == 7
    assert moments.utcoffset() in (4.0, 5.0)
    assert moments.adjust_timestamp(3600.0, 1, here=lambda: 3) == 3600.0 + 2 * 3600


def test_text_and_numbers_are_taken_for_what_they_mean() -> None:
    assert moments.maybe_iso8601("2026-01-02T03:04:05Z") == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert moments.maybe_iso8601(None) is None
    assert moments.maybe_timedelta(90) == timedelta(seconds=90) == moments.maybe_timedelta(timedelta(seconds=90))


def test_seconds_are_real_ones_where_clocks_are_changed() -> None:
    before = datetime(2026, 3, 29, 1, 30, tzinfo=PARIS)
    after = moments.add_seconds_to_datetime(before, 3600)
    assert after.isoformat() == "2026-03-29T03:30:00+02:00"
    assert moments.subtract_datetimes(after, before) == timedelta(hours=1)
    assert moments.add_seconds_to_datetime(datetime(2026, 1, 1), 60) == datetime(2026, 1, 1, 0, 1)
    assert moments.subtract_datetimes(datetime(2026, 1, 2), datetime(2026, 1, 1)) == timedelta(days=1)


@pytest.mark.parametrize(
    ("delta", "rounded"),
    [
        (timedelta(days=2), datetime(2026, 1, 2)),
        (timedelta(hours=2), datetime(2026, 1, 2, 3)),
        (timedelta(minutes=2), datetime(2026, 1, 2, 3, 4)),
        (timedelta(seconds=2), datetime(2026, 1, 2, 3, 4, 5, 6)),
    ],
)
def test_a_moment_is_rounded_to_the_resolution_of_a_duration(delta: timedelta, rounded: datetime) -> None:
    assert moments.delta_resolution(datetime(2026, 1, 2, 3, 4, 5, 6), delta) == rounded


def test_ffwd_sets_fields_and_goes_on_to_a_weekday() -> None:
    assert datetime(2024, 1, 31, 9) + ffwd(month=2, hour=3) == datetime(2024, 2, 29, 3)
    assert datetime(2024, 1, 31) + ffwd(weekday=0) == datetime(2024, 2, 5)
    assert datetime(2024, 1, 29) + ffwd(weekday=0) == datetime(2024, 1, 29)
    assert datetime(2024, 1, 29) + ffwd(weekday=0, weeks=1) == datetime(2024, 2, 5)
    assert repr(ffwd(day=1, weekday=2)) == "ffwd(day=1, weekday=2)"
    with pytest.raises(TypeError):
        _ = 1 + ffwd(day=1)


def test_what_remains_is_negative_when_it_is_over() -> None:
    start = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
    now = datetime(2026, 1, 2, 3, 34, tzinfo=UTC)
    assert moments.remaining(start, timedelta(hours=1), now) == timedelta(minutes=30)
    assert moments.remaining(start, timedelta(minutes=10), now) == timedelta(minutes=-20)
    assert moments.remaining(start, timedelta(hours=1), now, relative=True) == timedelta(minutes=26)
    assert moments.remaining(start, ffwd(minute=40), now) == timedelta(minutes=6)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "now"), (0.001, "now"), (1, "in 1.00 second"), (59, "in 59.00 seconds"), (90, "in 1.50 minutes"),
        (3600, "in 1.00 hour"), (86400, "in 1.00 day"), (100_000, "in 1.16 days"),
    ],
)  # fmt: skip
def test_durations_in_words(seconds: float, text: str) -> None:
    assert moments.humanize_seconds(seconds, prefix="in", sep=" ") == text


def test_small_durations_in_words() -> None:
    assert moments.humanize_seconds(0.5, microseconds=True) == "0.50 seconds"
    assert moments.humanize_seconds(0, now="at once") == "at once"


def test_weekdays_by_name() -> None:
    assert [moments.weekday(name) for name in ("Sunday", "mon", "SATURDAY")] == [0, 1, 6]
    with pytest.raises(KeyError):
        moments.weekday("yesterday")


def test_backoff_doubles_up_to_its_maximum() -> None:
    assert [moments.get_exponential_backoff_interval(2, n, 30) for n in range(6)] == [2, 4, 8, 16, 30, 30]
    drawn = {moments.get_exponential_backoff_interval(1, 2, 30, full_jitter=True) for _ in range(200)}
    assert drawn <= {0, 1, 2, 3, 4} and len(drawn) > 1
