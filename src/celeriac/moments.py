"""Dates and times of users: Celery's documented `utils.time`. Nothing on the way of a task uses it.

A moment is an aware `datetime`; one that names no zone is read in the zone that the function is given.
"""

from __future__ import annotations

import calendar
import random
import time as _time
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, tzinfo
from types import ModuleType
from typing import Any
from zoneinfo import ZoneInfo

__all__ = [
    "LocalTimezone", "add_seconds_to_datetime", "adjust_timestamp", "delta_resolution", "ffwd",
    "get_exponential_backoff_interval", "humanize_seconds", "is_naive", "localize", "make_aware", "maybe_iso8601",
    "maybe_make_aware", "maybe_timedelta", "remaining", "subtract_datetimes", "timezone", "to_utc", "utcoffset",
    "weekday",
]  # fmt: skip

_WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
#: Units in which people are told of a duration, the largest first, with the digits after the point.
_UNITS = ((86400, "day", 2), (3600, "hour", 2), (60, "minute", 2), (1, "second", 2))


class LocalTimezone(tzinfo):
    """The time zone of this machine, as the system knows it for each moment."""

    def utcoffset(self, dt: datetime | None) -> timedelta | None:
        """Its distance from UTC."""
        return _local(dt).utcoffset()

    def dst(self, dt: datetime | None) -> timedelta | None:
        """How much of that is summer time."""
        offset = timedelta(seconds=-_time.timezone)
        return (_local(dt).utcoffset() or offset) - offset

    def tzname(self, dt: datetime | None) -> str | None:
        """Its name."""
        return _local(dt).tzname()

    def fromutc(self, dt: datetime) -> datetime:
        """The local time of a moment in UTC."""
        return dt.replace(tzinfo=UTC).astimezone().replace(tzinfo=self)

    def __repr__(self) -> str:
        return f"<LocalTimezone: {self.tzname(None)}>"


def _local(dt: datetime | None) -> datetime:
    return (dt.replace(tzinfo=None) if dt is not None else datetime.now()).astimezone()


class _Zones:
    """`timezone.utc`, `timezone.local` and conversions between zones."""

    utc: tzinfo = UTC
    local: tzinfo = LocalTimezone()

    def get_timezone(self, zone: str | tzinfo) -> tzinfo:
        """The zone of this name; a zone as it is."""
        if isinstance(zone, tzinfo):
            return zone
        return UTC if zone.upper() == "UTC" else ZoneInfo(zone)

    def tz_or_local(self, tzinfo: str | tzinfo | None = None) -> tzinfo:
        """The zone of this name, or that of this machine."""
        return self.local if tzinfo is None else self.get_timezone(tzinfo)

    def to_local(self, dt: datetime, local: str | tzinfo | None = None, orig: str | tzinfo | None = None) -> datetime:
        """A moment in the zone `local`; one without a zone is in `orig`, else UTC."""
        zone = self.get_timezone(orig) if orig else UTC
        return (make_aware(dt, zone) if is_naive(dt) else dt).astimezone(self.tz_or_local(local))

    def to_local_fallback(self, dt: datetime) -> datetime:
        """A moment in the zone of this machine."""
        return self.to_local(dt)

    def to_system(self, dt: datetime) -> datetime:
        """A moment in the zone of this machine, which Python then names."""
        return dt.astimezone(tz=None)


timezone = _Zones()


def is_naive(dt: datetime) -> bool:
    """Whether it names no zone."""
    return dt.tzinfo is None or dt.utcoffset() is None


def make_aware(dt: datetime, tz: tzinfo) -> datetime:
    """The wall clock time `dt` in the zone `tz`. One that summer time skips is an hour later, as clocks then show it."""
    aware = dt.replace(tzinfo=tz)
    again = aware.astimezone(UTC).astimezone(tz)
    return again if again.replace(tzinfo=None) != dt.replace(tzinfo=None) else aware


def localize(dt: datetime, tz: tzinfo) -> datetime:
    """The same moment in the zone `tz`; one without a zone is taken for UTC."""
    return maybe_make_aware(dt).astimezone(tz)


def to_utc(dt: datetime) -> datetime:
    """`dt` as UTC: one without a zone is taken for UTC."""
    return localize(dt, UTC)


def maybe_make_aware(dt: datetime, tz: tzinfo | None = None, naive_as_utc: bool = True) -> datetime:
    """`dt` with a zone: its own, else `tz`, which without one is UTC. With `naive_as_utc` it is UTC, converted to `tz`."""
    if not is_naive(dt):
        return dt
    if tz is None:
        return dt.replace(tzinfo=UTC)
    return dt.replace(tzinfo=UTC).astimezone(tz) if naive_as_utc else make_aware(dt, tz)


def maybe_iso8601(dt: datetime | str | None) -> datetime | None:
    """A moment from text in ISO 8601; a moment, or None, as it is."""
    return datetime.fromisoformat(dt) if isinstance(dt, str) else dt


def maybe_timedelta(delta: float | timedelta) -> timedelta:
    """A number of seconds as a duration; a duration as it is."""
    return delta if isinstance(delta, timedelta) else timedelta(seconds=delta)


def add_seconds_to_datetime(dt: datetime, seconds: float) -> datetime:
    """So many seconds later, whatever clocks are set to in between."""
    return _real(dt, lambda moment: moment + timedelta(seconds=seconds))


def subtract_datetimes(end: datetime, start: datetime) -> timedelta:
    """The time between two moments, whatever clocks are set to in between."""
    if is_naive(end) or is_naive(start):
        return end.replace(tzinfo=None) - start.replace(tzinfo=None)
    return end.astimezone(UTC) - start.astimezone(UTC)


def _real(dt: datetime, change: Callable[[datetime], datetime]) -> datetime:
    return change(dt) if is_naive(dt) else change(dt.astimezone(UTC)).astimezone(dt.tzinfo)


def delta_resolution(dt: datetime, delta: timedelta) -> datetime:
    """`dt` rounded down to the largest of day, hour and minute that is not longer than `delta`."""
    if delta >= timedelta(days=1):
        return dt.replace(hour=0, minute=0, second=0, microsecond=0)
    if delta >= timedelta(hours=1):
        return dt.replace(minute=0, second=0, microsecond=0)
    return dt.replace(second=0, microsecond=0) if delta >= timedelta(minutes=1) else dt


class ffwd:  # noqa: N801 -- Celery's documented name
    """What `datetime + ffwd(…)` does: sets fields, adds weeks, then goes on to the next `weekday` (0 is Monday)."""

    def __init__(
        self, year: int | None = None, month: int | None = None, weeks: int = 0, weekday: int | None = None,
        day: int | None = None, hour: int | None = None, minute: int | None = None, second: int | None = None,
        microsecond: int | None = None, **kwargs: Any,
    ) -> None:  # fmt: skip
        self.year, self.month, self.day = year, month, day
        self.weekday, self.days = weekday, weeks * 7
        self.clock = {"hour": hour, "minute": minute, "second": second, "microsecond": microsecond}

    def __repr__(self) -> str:
        fields = {"year": self.year, "month": self.month, "day": self.day, **self.clock, "weekday": self.weekday}
        return f"ffwd({', '.join(f'{key}={value}' for key, value in fields.items() if value is not None)})"

    def __radd__(self, other: Any) -> Any:
        if not isinstance(other, date):
            return NotImplemented
        year, month = self.year or other.year, self.month or other.month
        day = min(calendar.monthrange(year, month)[1], self.day or other.day)
        clock = {key: value for key, value in self.clock.items() if value is not None}
        moved = other.replace(year=year, month=month, day=day, **clock)
        if self.weekday is not None:
            moved += timedelta(days=(self.weekday - moved.weekday()) % 7)
        return moved + timedelta(days=self.days)


def remaining(
    start: datetime, ends_in: timedelta | ffwd, now: datetime | None = None, relative: bool = False
) -> timedelta:
    """Time left until `ends_in` after `start`; negative when that is past.

    Args:
        relative: Round the end down to the resolution of `ends_in`.
    """
    now = now or datetime.now(UTC)
    if not is_naive(now) and start.tzinfo is not None and str(start.tzinfo) == str(now.tzinfo):
        start = start.replace(tzinfo=now.tzinfo)
    end = start + ends_in
    if relative and isinstance(ends_in, timedelta):
        end = delta_resolution(end, ends_in)
    return subtract_datetimes(end, now)


def weekday(name: str) -> int:
    """Number of a day by the beginning of its name; Sunday is 0.

    Raises:
        KeyError: It is no day.
    """
    short = name[:3].lower()
    if short not in _WEEKDAYS:
        raise KeyError(name)
    return _WEEKDAYS.index(short)


def humanize_seconds(secs: float, prefix: str = "", sep: str = "", now: str = "now", microseconds: bool = False) -> str:
    """A duration in words, in the largest unit that fits: "2.50 hours"."""
    seconds = float(format(float(secs), ".2f"))
    for divider, unit, digits in _UNITS:
        if seconds >= divider:
            count = seconds / divider
            return f"{prefix}{sep}{count:.{digits}f} {unit}{'' if count == 1 else 's'}"
    if microseconds and secs > 0:
        return f"{prefix}{sep}{seconds:.2f} seconds"
    return now


def adjust_timestamp(ts: float, offset: float, here: Callable[..., float] | None = None) -> float:
    """A local timestamp of a place that is `offset` hours west of UTC, as one of here."""
    return ts - (offset - (here or utcoffset)()) * 3600


def utcoffset(time: ModuleType = _time, localtime: Callable[..., Any] = _time.localtime) -> float:
    """Hours that this machine's clock is west of UTC now."""
    return float((time.altzone if localtime().tm_isdst else time.timezone) // 3600)


def get_exponential_backoff_interval(factor: int, retries: int, maximum: int, full_jitter: bool = False) -> int:
    """Seconds before retry number `retries + 1`: factor * 2**retries, at most `maximum`; with jitter, any up to that."""
    ceiling = max(0, min(maximum, factor * 2**retries))
    return random.randrange(ceiling + 1) if full_jitter else ceiling  # noqa: S311 -- no secret
