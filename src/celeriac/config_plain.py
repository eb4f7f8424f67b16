"""Settings between processes: values as plain data, and back.

The worker's zygote sends its app's settings to the supervisor, which does not import the app. Plain are None, bool,
numbers, text and lists and dicts of them; moments, durations, bytes, zones and the like travel as tagged dicts,
`{"$": "timedelta", "value": 60.0}`. Invariant: `decode(encode(value)) == value`, except that tuples and sets become lists.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from celeriac.errors import DecodeError

__all__ = ["NotPlain", "decode", "encode"]

#: The key of a tagged value.
TAG = "$"


class NotPlain(Exception):
    """The value, or one inside it, is no plain data."""


def encode(value: Any) -> Any:
    """The value as plain data.

    Raises:
        NotPlain: It can't be.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str.__str__(value)  # a member of a text enumeration equals its text
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else {TAG: "float", "value": repr(float(value))}
    if isinstance(value, (list, tuple)):
        return [encode(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return [encode(item) for item in sorted(value, key=str)]
    if isinstance(value, dict):
        return _encode_dict(value)
    return _encode_tagged(value)


def _encode_dict(value: dict[Any, Any]) -> dict[str, Any]:
    if TAG not in value and all(type(key) is str for key in value):
        return {key: encode(item) for key, item in value.items()}
    return {TAG: "dict", "value": [[encode(key), encode(item)] for key, item in value.items()]}


def _encode_tagged(value: Any) -> dict[str, Any]:
    if isinstance(value, (datetime, date, time)):
        return {TAG: type(value).__name__, "value": _iso(value)}
    if isinstance(value, timedelta):
        return {TAG: "timedelta", "value": [value.days, value.seconds, value.microseconds]}
    if isinstance(value, bytes):
        return {TAG: "bytes", "value": base64.b64encode(value).decode()}
    if isinstance(value, ZoneInfo) and value.key:
        return {TAG: "zone", "value": value.key}
    raise NotPlain(type(value).__name__)


def _iso(value: Any) -> str:
    if type(value) not in (datetime, date, time):
        raise NotPlain(type(value).__name__)
    return str(value.isoformat())


_DECODERS: dict[str, Callable[[Any], Any]] = {
    "float": float,
    "dict": lambda pairs: {_hashable(decode(key)): decode(item) for key, item in pairs},
    "datetime": datetime.fromisoformat,
    "date": date.fromisoformat,
    "time": time.fromisoformat,
    "timedelta": lambda parts: timedelta(*parts),
    "bytes": base64.b64decode,
    "zone": ZoneInfo,
}


def decode(value: Any) -> Any:
    """What `encode` was given.

    Raises:
        DecodeError: The data has a tag that is not known here, or a value that is not of its tag's kind.
    """
    if isinstance(value, list):
        return [decode(item) for item in value]
    if not isinstance(value, dict):
        return value
    if TAG not in value:
        return {key: decode(item) for key, item in value.items()}
    kind = value[TAG]
    decoder = _DECODERS.get(kind) if isinstance(kind, str) else None
    if decoder is None:
        raise DecodeError(f"settings hold a value of unknown kind {kind!r}")
    try:
        return decoder(value["value"])
    except (TypeError, ValueError, LookupError, ArithmeticError, OSError) as exc:  # zones are files
        raise DecodeError(f"settings hold a value that is no {kind}") from exc


def _hashable(key: Any) -> Any:
    return tuple(key) if isinstance(key, list) else key
