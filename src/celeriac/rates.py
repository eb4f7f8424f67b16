"""Rate limits: what `10/s` means, and when a task may start under one. Pure functions, no clocks, no state of their own.

The worker's limits call them for limits of one worker, the coordination drivers for limits that all workers share. The
bucket holds one token, and what is left of an interval, in one number: the moment from which the next start is allowed.
So starts keep their distance instead of coming in bursts, and any driver can store a bucket.
"""

from __future__ import annotations

import sys
from typing import Any

import msgspec

from celeriac.safe_repr import saferepr

__all__ = ["Taken", "interval_of", "parse_rate", "take", "tolerance_of"]

_UNITS = {"s": 1, "m": 60, "h": 3600}
#: Starts that come closer than this are let through in small groups: a timer is not exact enough for each. In seconds.
CLOSE = 0.05


def parse_rate(value: Any) -> float:
    """Starts per second of a rate limit: a number, or text such as `10/s`, `100/m`, `5/h`; 0.0 for no limit.

    Raises:
        ValueError: It is something else.
    """
    if value is None or value == "":
        return 0.0
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return _checked(value, value)
    if isinstance(value, str):
        number, slash, unit = value.strip().partition("/")
        unit = unit.strip() if slash else "s"
        if unit in _UNITS:
            try:
                return _checked(value, float(number) / _UNITS[unit])
            except ValueError:
                pass
    raise _wrong(value)


def _checked(value: Any, rate: float) -> float:
    if not 0 <= rate <= sys.float_info.max:  # an int may be larger
        raise _wrong(value)
    return float(rate)


def _wrong(value: Any) -> ValueError:
    return ValueError(
        f"{saferepr(value, 60)} is no rate limit: say a number of tasks per second, or '10/s', '100/m', '5/h'"
    )


def interval_of(rate: float) -> float:
    """Seconds between two starts at `rate` (above 0) starts per second."""
    return 1.0 / rate


def tolerance_of(interval: float) -> float:
    """How late a start may be and still be made up for: nothing, unless starts are closer than a timer is exact."""
    return CLOSE if interval < CLOSE else 0.0


class Taken(msgspec.Struct, frozen=True):
    """What a bucket gave.

    Attributes:
        granted: How many may start now.
        wait: Seconds until one more may.
        next_at: The bucket from now on.
    """

    granted: int
    wait: float
    next_at: float


def take(next_at: float, now: float, interval: float, tolerance: float, wanted: int) -> Taken:
    """Take up to `wanted` starts from a bucket at `now`.

    Args:
        next_at: The bucket: the moment from which the next start is allowed; 0.0 for a new one.
        interval: Seconds between two starts.
        tolerance: Seconds of unused time that are made up for.
    """
    next_at = min(next_at, now + interval)  # the limit was raised, or a clock was set back
    start = max(next_at, now - tolerance)
    free = int((now - start) / interval) + 1 if start <= now else 0
    granted = min(max(0, wanted), free)
    next_at = start + granted * interval if granted else next_at
    return Taken(granted, max(0.0, next_at - now), next_at)
