"""Settings between processes."""

from __future__ import annotations

import enum
import json
import ssl
import types
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celeriac.config import Settings, load
from celeriac.config_plain import NotPlain, decode, encode
from celeriac.errors import DecodeError


def read(source: Any = None, **options: Any) -> Settings:
    """`load` with an empty environment."""
    return load(source, **{"environ": {}, **options})


class Colour(enum.StrEnum):
    RED = "red"


def test_settings_travel_as_plain_data() -> None:
    conf = read({
        "task_serializer": "yaml", "worker_concurrency": 2, "task_acks_late": False, "task_compression": None,
        "result_expires": timedelta(hours=1, microseconds=3), "timezone": ZoneInfo("Europe/Paris"),
        "task_routes": {"a": {"queue": "b", "at": datetime(2024, 1, 2, tzinfo=UTC)}, 3: [1, (2.5,)], "$": b"\x00"},
        "redis_backend_use_ssl": {"ssl_cert_reqs": ssl.CERT_NONE}, "result_backend_max_retries": float("inf"),
        "security_key_password": b"\xff", "task_annotations": {"colour": Colour.RED},
    })  # fmt: skip
    conf.add_defaults({"worker_prefetch_multiplier": 1})
    conf.database_engine_callback = print
    conf.beat_schedule = {"a": {"schedule": object()}}
    values, others = conf.plain()
    assert sorted(others) == ["beat_schedule", "database_engine_callback"]
    again = Settings.from_plain(json.loads(json.dumps(values, allow_nan=False)))
    expected = {**dict(conf), "beat_schedule": {}, "database_engine_callback": None}
    expected["task_routes"] = {**expected["task_routes"], 3: [1, [2.5]]}
    assert dict(again) == expected
    assert type(again.result_expires) is timedelta


def test_names_that_are_not_known_in_the_other_process_are_kept() -> None:
    assert Settings.from_plain({"elsewhere_option": 1})["elsewhere_option"] == 1


plain_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary() | st.timedeltas()
    | st.datetimes() | st.dates() | st.times(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner),
    max_leaves=8,
)  # fmt: skip


@given(plain_values)
def test_plain_values_come_back_equal(value: Any) -> None:
    assert decode(json.loads(json.dumps(encode(value), allow_nan=False))) == value


def test_what_is_not_plain_says_so() -> None:
    class Moment(datetime):
        pass

    for value in (object(), print, [object()], {"a": object()}, Moment(2024, 1, 1), types.MappingProxyType({})):
        with pytest.raises(NotPlain):
            encode(value)
    assert encode({3, 1}) == [1, 3]
    with pytest.raises(DecodeError, match="'nonsense'"):
        decode({"$": "nonsense"})
