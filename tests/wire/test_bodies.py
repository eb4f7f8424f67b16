"""Bodies from anywhere: what a stock worker bears is borne, the rest ends in one of three errors."""

from __future__ import annotations

import json
import zlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from celeriac import codec
from celeriac.errors import ContentDisallowed, DecodeError, InvalidTaskError
from celeriac.message import Message
from celeriac.wire.messages import TaskBody, decode_body
from tests.support.apps import memory_app, run_all
from tests.wire import golden

JSON = codec.accept_types(["json"])
ALL_BUT_PICKLE = codec.accept_types(["json", "yaml", "msgpack", "raw", "text"])
LIMIT = 2**20

CASES = {case["case"]: case for case in golden.load("lenience", "redis_worker")["cases"]}
#: Cases that are decided elsewhere: by the headers, or when the task runs.
NOT_ABOUT_BODIES = {
    "eta not a date", "timelimit one element", "no delivery_info", "no id header", "ignore_result true",
}  # fmt: skip
REFUSED = {
    "two-element body": InvalidTaskError,
    "four-element body": InvalidTaskError,
    "content type absent": InvalidTaskError,
    "content type pickle, not accepted": ContentDisallowed,
    "body not JSON": DecodeError,
    "args an object": InvalidTaskError,
    "unknown __type__": DecodeError,
    "real gzip container under application/x-gzip": DecodeError,
    "neither task header nor mapping": InvalidTaskError,
    "headers null": InvalidTaskError,
}


def message(body: Any, headers: dict[str, Any] | None = None, **fields: Any) -> Message:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Message(id="1", headers={"task": "t", "id": "1"} if headers is None else headers, body=data, **fields)


@pytest.mark.parametrize("name", sorted(CASES.keys() - NOT_ABOUT_BODIES - REFUSED.keys()))
def test_what_a_stock_worker_runs_is_read(name: str) -> None:
    body = decode_body(golden.from_envelope(CASES[name]["sent"]), JSON, LIMIT)
    result = CASES[name]["result"]
    if CASES[name]["outcome"] == "SUCCESS":
        assert sum(body.args) + sum(body.kwargs.values()) == result


@pytest.mark.parametrize("name", REFUSED)
def test_what_stops_or_is_lost_on_a_stock_worker_is_refused(name: str) -> None:
    with pytest.raises(REFUSED[name]) as caught:
        decode_body(golden.from_envelope(CASES[name]["sent"]), JSON, LIMIT)
    assert "\n" not in str(caught.value)


def test_all_fields_of_protocol_2() -> None:
    recorded = golden.messages("link_and_link_error")[0]
    body = decode_body(recorded, JSON, LIMIT)
    assert body.args == [1, 1]
    assert [signature["task"] for signature in body.callbacks or ()] == ["wire.mul"]
    assert [signature["task"] for signature in body.errbacks or ()] == ["wire.errback_old", "wire.errback_new"]
    assert body.chain is None
    assert body.fields == {}


def test_the_rest_of_a_chain_comes_last_to_first() -> None:
    body = decode_body(golden.messages("chain3")[0], JSON, LIMIT)
    assert [signature["args"] for signature in body.chain or ()] == [[8], [4]]


@pytest.mark.parametrize("nothing", [None, []])
def test_null_and_empty_lists_are_alike(nothing: Any) -> None:
    embed = {"callbacks": nothing, "errbacks": nothing, "chain": nothing, "chord": None}
    assert decode_body(message([[], {}, embed]), JSON, LIMIT) == TaskBody(args=[], kwargs={})


def test_a_hybrid_is_read_as_protocol_1() -> None:
    body = decode_body(message({"args": [1], "kwargs": {"x": 2}, "callbacks": {"task": "c"}}), JSON, LIMIT)
    assert (body.args, body.kwargs, body.callbacks) == ([1], {"x": 2}, [{"task": "c"}])


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ([1, {}, {}], "args is not an array"),
        ([[], [1], {}], "kwargs is not an object"),
        ([[], {}, [1]], "the third part of the body is not an object"),
        ([[], {}, {"callbacks": "x"}], "callbacks is not an array of signatures"),
        ([[], {}, {"errbacks": [1]}], "errbacks holds something that is not a signature"),
        (
            [[], {}, {"chain": [{"args": []}]}],
            "chain holds something that is not a signature, but an object with 1 keys",
        ),
        ([[], {}, {"chord": [1]}], "chord holds something that is not a signature"),
        ("text", "the body is not .*, but a value of type str"),
        (None, "the body is not .*, but null"),
    ],
)
def test_broken_fields_are_named(body: Any, reason: str) -> None:
    with pytest.raises(InvalidTaskError, match=reason):
        decode_body(message(body), JSON, LIMIT)


@pytest.mark.parametrize("body", [{"id": "1"}, {"task": "t"}, {"task": 5, "id": "1"}, {"task": "t", "id": ""}])
def test_protocol_1_needs_task_and_id(body: Any) -> None:
    with pytest.raises(InvalidTaskError, match="is not text"):
        decode_body(message(body, headers={}), JSON, LIMIT)


def test_keys_of_kwargs_must_be_text() -> None:
    body = codec.dumps([[], {1: 2}, None], "msgpack")[2]
    with pytest.raises(InvalidTaskError, match="kwargs has a key that is not text, but a value of type int"):
        decode_body(message(body, content_type="application/x-msgpack"), ALL_BUT_PICKLE, LIMIT)


def test_reasons_show_no_values() -> None:
    with pytest.raises(InvalidTaskError) as caught:
        decode_body(message([["hunter2"], {}, "hunter2"]), JSON, LIMIT)
    assert "hunter2" not in str(caught.value)


def test_the_drivers_verdict_on_a_message_counts() -> None:
    with pytest.raises(InvalidTaskError, match="no envelope"):
        decode_body(message([[], {}, {}], defect="no envelope"), JSON, LIMIT)


def test_size_is_limited_with_and_without_compression() -> None:
    plain = json.dumps([["x" * 1000], {}, None]).encode()
    headers = {"task": "t", "id": "1", "compression": "application/x-gzip"}
    for it in (message(plain), message(zlib.compress(plain), headers=headers)):
        assert decode_body(it, JSON, len(plain)).args == ["x" * 1000]
        with pytest.raises(DecodeError, match=f"more than {len(plain) - 1}"):
            decode_body(it, JSON, len(plain) - 1)


@pytest.mark.parametrize("method", ["nope", 5, ["gzip"], {}, True])
def test_an_unknown_compression_is_a_decode_error(method: Any) -> None:
    with pytest.raises(DecodeError):
        decode_body(message(b"x", headers={"task": "t", "id": "1", "compression": method}), JSON, LIMIT)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
pieces = st.sampled_from(["task", "id", "args", "kwargs", "callbacks", "errbacks", "chain", "chord", "taskset"])
bodies = st.lists(json_values, max_size=4) | st.dictionaries(pieces, json_values) | json_values
header_tables = st.fixed_dictionaries(
    {}, optional={"task": json_values, "id": json_values, "compression": st.none() | json_values | st.just("zlib")}
)


@settings(deadline=None)
@given(body=bodies, headers=header_tables)
def test_any_json_body_is_read_or_refused(body: Any, headers: dict[str, Any]) -> None:
    try:
        result = decode_body(message(body, headers=headers), JSON, LIMIT)
    except (InvalidTaskError, DecodeError, ContentDisallowed):
        return
    assert isinstance(result.args, list)
    assert all(isinstance(key, str) for key in result.kwargs)


@settings(deadline=None)
@given(
    body=st.binary(max_size=200),
    headers=header_tables,
    content_type=st.sampled_from([*sorted(codec.registry.type_to_name), "", "x/y", "application/text"]),
    content_encoding=st.sampled_from(["utf-8", "binary", "", "utf-16", "idna", "nonsense"]),
)
def test_any_bytes_are_read_or_refused(
    body: bytes, headers: dict[str, Any], content_type: str, content_encoding: str
) -> None:
    it = message(body, headers=headers, content_type=content_type, content_encoding=content_encoding)
    try:
        decode_body(it, ALL_BUT_PICKLE, LIMIT)
    except (InvalidTaskError, DecodeError, ContentDisallowed) as exc:
        assert str(exc)


def nested(depth: int) -> Any:
    """[args, kwargs, embed] with arrays and objects in it: `depth` levels in all."""
    value: Any = 1
    for level in range(depth - 2):
        value = [value] if level % 2 else {"x": value}
    return [[value], {}, {}]


@pytest.mark.parametrize("serializer", ["json", "yaml", "msgpack"])
def test_what_is_nested_too_deep_is_refused(serializer: str) -> None:
    for depth, is_fine in ((12, True), (13, False)):
        content_type, encoding, body = codec.dumps(nested(depth), serializer)
        message = Message(
            id="i", headers={"task": "t"}, body=body, content_type=content_type, content_encoding=encoding
        )
        if is_fine:
            assert decode_body(message, ALL_BUT_PICKLE, LIMIT, 12).args == nested(depth)[0]
        else:
            with pytest.raises(DecodeError, match=r"deeper than 12 levels \(message_max_depth\)"):
                decode_body(message, ALL_BUT_PICKLE, LIMIT, 12)


def test_many_brackets_are_no_depth() -> None:
    body = json.dumps([[[{}] * 5000, "[" * 5000], {}, {}]).encode()
    message = Message(id="i", headers={"task": "t"}, body=body, content_type="application/json")
    assert len(decode_body(message, JSON, LIMIT, 5).args[0]) == 5000


def test_values_that_stand_in_many_places_are_looked_at_once() -> None:
    """A few lines of YAML can name a list of a million parts."""
    lines = ["- - &a0 [x]", *(f"  - &a{n + 1} [{', '.join([f'*a{n}'] * 10)}]" for n in range(5)), "- {}", "- {}"]
    message = Message(
        id="i", headers={"task": "t"}, body="\n".join(lines).encode(), content_type="application/x-yaml",
        content_encoding="utf-8",
    )  # fmt: skip
    assert len(decode_body(message, ALL_BUT_PICKLE, LIMIT, 50).args) == 6
    with pytest.raises(DecodeError, match="deeper than 6"):
        decode_body(message, ALL_BUT_PICKLE, LIMIT, 6)


def test_a_worker_keeps_what_is_too_deep_as_a_dead_letter() -> None:
    app = memory_app(message_max_depth=10)
    result = app.task(lambda x: None, name="t").delay(nested(11))
    [outcome] = run_all(app)
    assert (outcome.action, outcome.state) == ("dead-letter", "FAILURE")
    assert "message_max_depth" in outcome.reason
    assert isinstance(result.result, DecodeError)
