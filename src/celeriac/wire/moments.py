"""Moments and limits as they stand in the headers of a task message.

The supervisor reads them at admission without opening the body, `wire/messages.py` writes them. What is read may come
from anywhere: a limit that makes no sense counts as none, a date that is none is an `InvalidTaskError`.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, tzinfo
from typing import Any

from celeriac.errors import InvalidTaskError
from celeriac.safe_repr import saferepr

__all__ = ["as_moment", "epoch", "parse_moment", "timelimits"]

#: A time limit above 300 years is none, and infinite or huge numbers would break arithmetic further on.
_MAX_SECONDS = 1e10
#: The year 10000.
_LAST_MOMENT = 253402300800.0


def epoch(moment: datetime, tz: tzinfo) -> float:
    """Seconds since 1970; a naive moment is in `tz`."""
    return (moment if moment.tzinfo is not None else moment.replace(tzinfo=tz)).timestamp()


def as_moment(value: Any) -> float | None:
    """Seconds since 1970 that a property or a header of ours holds; None for what is no moment that a date could have."""
    return float(value) if isinstance(value, (int, float)) and 0 <= value < _LAST_MOMENT else None


def timelimits(headers: Mapping[str, Any]) -> tuple[float | None, float | None]:
    """Hard and soft limit out of `timelimit`, in seconds. What is not a positive number counts as none."""
    pair = headers.get("timelimit")
    if pair == [None, None]:
        return None, None
    if not isinstance(pair, (list, tuple)) or len(pair) != 2:
        return None, None
    hard, soft = (_positive(value) for value in pair)
    return hard, soft


def _positive(value: Any) -> float | None:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return value if is_number and 0 < value < _MAX_SECONDS else None


def parse_moment(text: str | None, tz: tzinfo) -> float | None:
    """The moment in a header `eta` or `expires`, in seconds since 1970; a date without offset is in `tz`.

    Raises:
        InvalidTaskError: It is no date.
    """
    if text is None or text == "":
        return None
    try:
        return epoch(datetime.fromisoformat(text), tz)
    except (TypeError, ValueError, OverflowError) as exc:
        raise InvalidTaskError(f"{saferepr(text, 60)} is not a date in ISO 8601") from exc
