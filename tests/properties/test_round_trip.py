"""What is sent is what the task gets, and what it returns is what the caller gets, for any JSON-like values."""

from __future__ import annotations

import datetime as dt
import decimal
import math
import uuid
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from celeriac import Celeriac
from celeriac.environment import Environment
from celeriac.execution import execute
from celeriac.message import Message
from celeriac.outcome import Execution, Outcome
from celeriac.runner.protocol import FrameReader, Kind, decode_frame, encode_frame
from celeriac.safe_repr import saferepr
from celeriac.transport.packing import head_of, unpack, write_head
from celeriac.wire.messages import TaskCall, encode_call
from celeriac.wire.results import decode_result, document, record_from_document
from tests.support.apps import memory_app

_TEXT = st.text(st.characters(exclude_categories=["Cs"]))
_FLAT = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), _TEXT)
_TYPED = st.one_of(  # what JSON does not know and Celery's form of it does
    st.datetimes(timezones=st.just(dt.UTC)), st.dates(), st.uuids(), st.binary(max_size=50),
    st.decimals(allow_nan=False, allow_infinity=False),
)  # fmt: skip
JSON = st.recursive(
    _FLAT, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_TEXT, inner, max_size=4), max_leaves=20
)
VALUES = st.recursive(
    _FLAT | _TYPED, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_TEXT, inner, max_size=4), max_leaves=20
)
NAMES = st.text("abcdefgh_", min_size=1, max_size=8)

#: One app for all examples: making one takes longer than a round trip.
APPS: dict[str, Celeriac] = {}


def _app(serializer: str) -> Celeriac:
    if serializer not in APPS:
        app = APPS[serializer] = memory_app(
            task_serializer=serializer, result_serializer=serializer, accept_content=[serializer],
            result_accept_content=[serializer],
        )  # fmt: skip
        app.task(lambda *args, **kwargs: [list(args), kwargs], name="echo", typing=False)
    return APPS[serializer]


def _through(message: Message) -> Message:
    """A message as it comes out of a broker."""
    return unpack(write_head(head_of(message)), message.body, message.queue)


@given(args=st.lists(VALUES, max_size=14), kwargs=st.dictionaries(NAMES, VALUES, max_size=14))
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_short_arguments_are_shown_as_all_values_are(args: list[Any], kwargs: dict[str, Any]) -> None:
    headers = encode_call(TaskCall(task="t", id="i", args=args, kwargs=kwargs), now=0.0).headers
    assert (headers["argsrepr"], headers["kwargsrepr"]) == (saferepr(args), saferepr(kwargs))


def _run(app: Celeriac, message: Message) -> Outcome:
    outcome = execute(Environment(app, "node"), Execution(1, 0, message, message.queue))
    ((_, frame),) = FrameReader().feed(encode_frame(Kind.OUTCOME, outcome))
    travelled: Outcome = decode_frame(Kind.OUTCOME, frame)
    return travelled


@pytest.mark.parametrize("serializer", ["json", "msgpack", "pickle", "yaml"])
@given(args=st.lists(JSON, max_size=4), kwargs=st.dictionaries(NAMES, JSON, max_size=4))
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
def test_json_like_values_survive_every_serializer(serializer: str, args: list[Any], kwargs: dict[str, Any]) -> None:
    if serializer == "msgpack" and not _fits_64_bits([args, kwargs]):
        return
    app = _app(serializer)
    message, result = app.prepare("echo", args, kwargs)
    outcome = _run(app, _through(message))
    assert outcome.state == "SUCCESS"
    assert outcome.record is not None
    assert outcome.record.id == result.id
    assert decode_result(outcome.record, app.result_accept) == [args, kwargs]
    again = record_from_document(document(outcome.record), frozenset({outcome.record.content_type}))
    assert decode_result(again, app.result_accept) == [args, kwargs]


@given(args=st.lists(VALUES, max_size=4), kwargs=st.dictionaries(NAMES, VALUES, max_size=4))
@settings(deadline=None, max_examples=100)
def test_dates_decimals_ids_and_bytes_survive_json(args: list[Any], kwargs: dict[str, Any]) -> None:
    """[B-SERIAL-005]"""
    app = _app("json")
    outcome = _run(app, _through(app.prepare("echo", args, kwargs)[0]))
    assert outcome.record is not None
    value = decode_result(outcome.record, app.result_accept)
    assert value == [args, kwargs]
    assert _types(value) == _types([args, kwargs])


@given(
    args=st.lists(JSON, max_size=3),
    options=st.fixed_dictionaries(
        {},
        optional={
            "countdown": st.floats(0, 1e8),
            "expires": st.floats(1, 1e8),
            "priority": st.integers(0, 255),
            "time_limit": st.floats(100, 1e6),
            "soft_time_limit": st.floats(0.001, 99),
            "shadow": _TEXT,
            "headers": st.dictionaries(
                st.text("xyz-", min_size=1), JSON.filter(lambda value: _fits_64_bits(value)), max_size=3
            ),
            "task_id": st.uuids() | st.text("abc", min_size=1),
            "ignore_result": st.booleans(),
            "compression": st.sampled_from(["gzip", "bzip2"]),
        },
    ),
)
@settings(deadline=None, max_examples=100)
def test_calling_options_survive_too(args: list[Any], options: dict[str, Any]) -> None:
    app = _app("json")
    seen: list[Any] = []
    look = app.tasks.get("look") or app.task(
        lambda self, *args: seen_of(self).append((self.request, args)), name="look", bind=True, typing=False
    )
    look.seen = seen
    message, _ = app.prepare("look", args, {}, options.get("task_id"), None, None, None, look, options)
    message = _through(message)
    assert _run(app, message).state == "SUCCESS"
    request, got = seen[0]
    assert list(got) == args
    assert request.id == str(options.get("task_id", request.id)) == message.id
    assert (request.time_limit, request.soft_time_limit) == (options.get("time_limit"), options.get("soft_time_limit"))
    assert request.headers == (options.get("headers") or None)
    assert request.delivery_info["priority"] == options.get("priority")
    assert (request.shadow or None) == (options.get("shadow") or None)
    assert (message.eta is None) is not bool(options.get("countdown"))
    assert (message.expires_at is None) is ("expires" not in options)


def seen_of(task: Any) -> list[Any]:
    found: list[Any] = task.seen
    return found


def _fits_64_bits(value: Any) -> bool:
    if isinstance(value, dict):
        return all(_fits_64_bits(each) for each in value.values())
    if isinstance(value, list):
        return all(_fits_64_bits(each) for each in value)
    return not isinstance(value, int) or -(2**63) <= value < 2**64


def _types(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _types(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_types(each) for each in value]
    return type(value)


def test_the_strategies_make_what_they_say() -> None:
    """So that a change of a strategy can't empty the tests above."""
    assert math.isfinite(1.0)
    assert _types([dt.date(2020, 1, 1), uuid.UUID(int=1), decimal.Decimal(1), b""]) == [
        dt.date,
        uuid.UUID,
        decimal.Decimal,
        bytes,
    ]
    assert not _fits_64_bits([{"a": 2**64}])
    assert _fits_64_bits([{"a": 2**64 - 1}])
