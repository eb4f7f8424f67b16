"""Documents in result stores are those of a stock Celery, and values and exceptions survive the way."""

from __future__ import annotations

import json
import pickle
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from celeriac import codec, states
from celeriac.errors import (
    ContentDisallowed,
    DecodeError,
    EncodeError,
    NotRegistered,
    Reject,
    SoftTimeLimitExceeded,
    TaskRevokedError,
    TimeLimitExceeded,
    WorkerLostError,
)
from celeriac.results.base import Record
from celeriac.wire.results import decode_result, document, encode_result, record_from_document
from tests.wire import golden

EVERYTHING = frozenset(codec.registry.name_to_type.values())


def stored(value: Any, found: list[Any]) -> list[Any]:
    """All task metas in a recording, wherever they are."""
    if isinstance(value, dict):
        if "raw" in value and value["raw"] is not None:
            found.append(value["raw"])
        else:
            for key, item in value.items():
                if key != "redis_commands":
                    stored(item, found)
    return found


def documents() -> list[Any]:
    return [
        pytest.param(golden.to_bytes(raw), id=f"{name}-{number}")
        for name in golden.names("results")
        if name != "group_meta"  # a result tuple
        for number, raw in enumerate(stored(golden.load("results", name), []))
    ]


@pytest.mark.parametrize("data", documents())
def test_a_recorded_document_is_read_and_written_again(data: bytes) -> None:
    record = record_from_document(data, EVERYTHING)

    if data.startswith(b"{"):
        assert document(record) == data
    elif data.startswith(b"\0"):
        assert record_from_document(document(record, "gzip")) == record
        assert document(record, "gzip").startswith(b"\0celery-compressed\0application/x-gzip\0x\x9c")
    else:
        ours, theirs = pickle.loads(document(record)), pickle.loads(data)
        assert repr(sorted(ours.items())) == repr(sorted(theirs.items()))


@pytest.mark.parametrize(
    ("name", "exception"),
    [
        ("failure", ValueError("boom", 42)),
        ("failure_bad_args", TypeError("add() missing 1 required positional argument: 'y'")),
        ("failure_max_retries", KeyError("never")),
        ("failure_hard_limit", TimeLimitExceeded(1)),
        ("failure_soft_limit", SoftTimeLimitExceeded()),
        ("failure_worker_lost", WorkerLostError("Worker exited prematurely: exitcode 3 Job: 10.")),
        ("rejected_exception", Reject("no thanks", False)),
        ("revoked_before_start", TaskRevokedError("revoked")),
        ("revoked_expired", TaskRevokedError("expired")),
        ("revoked_terminated", TaskRevokedError("terminated")),
        ("unregistered_task", NotRegistered("no.such.task")),
        ("retry", KeyError("again")),
    ],
)
def test_exceptions_are_stored_as_celery_does_and_come_back(name: str, exception: BaseException) -> None:
    record = record_from_document(golden.load("results", name)["raw"].encode())

    assert encode_result(exception)[2] == record.result
    value = decode_result(record)
    assert type(value) is type(exception)
    assert value.args == exception.args
    assert str(value) == str(exception)


def test_a_class_that_is_not_here_comes_back_by_name() -> None:
    record = record_from_document(golden.load("results", "failure_nested_class")["raw"].encode())
    value = decode_result(record)
    assert (type(value).__module__, type(value).__qualname__) == ("wire_tasks", "Outer.InnerError")
    assert str(value) == "nested"


def test_values_keep_their_types() -> None:
    record = record_from_document(golden.load("results", "success_types")["raw"].encode())
    assert encode_result(decode_result(record))[2] == record.result


def test_extended_fields_and_stamps() -> None:
    (ok, _) = stored(golden.load("results", "conf_extended"), [])
    record = record_from_document(ok.encode())
    assert (record.name, record.worker, record.retries, record.queue) == ("wire.add", "w1@wire", 0, "celery")
    assert (record.args, record.kwargs) == (b"[2, 3]", b"{}")
    assert record.stamps == {"stamped_headers": ["sh"], "stamps": {"sh": "v"}}


@pytest.mark.parametrize("transport", ["redis", "amqp"])
def test_rpc_messages_carry_the_same_document(transport: str) -> None:
    for case in golden.load("rpc", transport).values():
        for message in case.get("messages", ()) if isinstance(case, dict) else ():
            data = golden.to_bytes({"b64": message["body_b64"]})
            assert document(record_from_document(data)) == data


def record_of(value: Any, serializer: str = "json", **fields: Any) -> Record:
    content_type, content_encoding, result = encode_result(value, serializer)
    fields.setdefault("state", states.SUCCESS)
    return Record(id="1", result=result, content_type=content_type, content_encoding=content_encoding, **fields)


@pytest.mark.parametrize("serializer", ["json", "pickle", "yaml", "msgpack"])
def test_every_serializer_round_trips_a_whole_record(serializer: str) -> None:
    args, kwargs = (codec.dumps(value, serializer)[2] for value in ([1, [2]], {"k": ["v"]}))
    record = record_of(
        {"a": [1, "é", None]},
        serializer,
        traceback="tb",
        children=[[["2", None], None]],
        date_done="2026-11-20T22:43:08.850106+00:00",
        group_id="g",
        parent_id="p",
        name="t",
        args=args,
        kwargs=kwargs,
        worker="w@h",
        retries=2,
        queue="q",
        stamps={"stamped_headers": ["s"], "stamps": {"s": ["v"]}},
    )

    data = document(record)

    assert record_from_document(data, EVERYTHING) == record
    values = codec.loads(data, record.content_type, record.content_encoding, EVERYTHING)
    assert values["result"] == {"a": [1, "é", None]}
    assert (values["args"], values["kwargs"], values["s"]) == ([1, [2]], {"k": ["v"]}, ["v"])
    assert decode_result(record, EVERYTHING) == {"a": [1, "é", None]}


def test_a_value_that_json_readers_disagree_on_is_kept() -> None:
    record = record_of([float("inf"), "\ud800"])
    assert record_from_document(document(record)) == record


def test_a_result_that_cannot_be_serialized_is_named() -> None:
    with pytest.raises(EncodeError, match=r"^the result\['a'\] of type set can't be serialized as json"):
        encode_result({"a": {1}})


def test_custom_states_carry_their_meta() -> None:
    assert decode_result(record_of({"current": 3}, state="PROGRESS")) == {"current": 3}


def test_a_revoked_task_without_a_value() -> None:
    value = decode_result(record_of(None, state=states.REVOKED))
    assert type(value) is TaskRevokedError


def test_what_is_not_accepted_is_not_decoded() -> None:
    record = record_of(1, "pickle")
    with pytest.raises(ContentDisallowed):
        decode_result(record, codec.accept_types(["json"]))
    with pytest.raises(ContentDisallowed):
        record_from_document(document(record), codec.accept_types(["json"]))


class Trap:
    """Raises where it is loaded."""

    def __reduce__(self) -> tuple[Any, ...]:
        return pickle.loads, (b"never to be loaded",)


def test_writing_a_pickled_result_loads_nothing() -> None:
    trap = pickle.dumps([Trap(), Trap()], protocol=4)
    record = Record(id="1", state=states.SUCCESS, result=trap, content_type="application/x-python-serialize", name="t",
                    args=trap, kwargs=trap)  # fmt: skip
    with pytest.raises(pickle.UnpicklingError):
        pickle.loads(document(record))


@pytest.mark.parametrize("method", ["gzip", "bzip2", "lzma", "brotli"])
def test_compressed_documents(method: str) -> None:
    record = record_of(["x" * 1000])
    data = document(record, method)
    assert len(data) < 500
    assert record_from_document(data) == record
    with pytest.raises(DecodeError, match="more than 100 bytes"):
        record_from_document(data, max_bytes=100)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{}",
        b"{",
        b'{"status": "SUCCESS"}',
        b'{"status": 1, "task_id": "1"}',
        b"\0celery-compressed\0",
        b"\0celery-compressed\0nope\0x",
        b"\0celery-compressed\0application/x-gzip\0x",
        b"[" * 100000,
        b'{"result": ' + b"[" * 100000,
        b"\x81\xa1",
    ],
)
def test_what_is_no_task_meta_is_a_decode_error(data: bytes) -> None:
    with pytest.raises(DecodeError):
        record_from_document(data, codec.accept_types(["json", "msgpack", "yaml"]))


@settings(deadline=None)
@given(st.binary(max_size=300) | st.builds(lambda data: b"{" + data, st.binary(max_size=50)))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    try:
        record = record_from_document(data, codec.accept_types(["json", "msgpack", "yaml"]))
    except (DecodeError, ContentDisallowed):
        return
    assert isinstance(record, Record)


keys = st.sampled_from(["status", "task_id", "result", "children", "traceback", "retries", "stamped_headers", "x"])
metas = st.dictionaries(keys, st.none() | st.integers() | st.text() | st.lists(st.text(), max_size=2))


@settings(deadline=None)
@given(metas, st.sampled_from(["json", "msgpack", "yaml"]))
def test_any_mapping_is_read_or_refused(meta: dict[str, Any], serializer: str) -> None:
    try:
        _, _, data = codec.dumps(meta, serializer)
    except EncodeError:  # integers that msgpack has no form for
        return
    try:
        record = record_from_document(data, EVERYTHING)
    except DecodeError:
        return
    assert (record.id, record.state) == (meta["task_id"], meta["status"])
    if serializer == "json":
        assert json.loads(document(record))["result"] == meta.get("result")
    assert msgspec.json.encode(record.children) == msgspec.json.encode(
        meta["children"] if isinstance(meta.get("children"), list) else None
    )


def test_a_moment_of_an_older_peer_is_read() -> None:
    """Typed JSON, as kombu 5.3 writes a datetime."""
    data = (
        b'{"status": "SUCCESS", "result": 5, "traceback": "half \\ud800", "children": [[["c", null], null]], "task_id": "t",'
        b' "date_done": {"__type__": "datetime", "__value__": "2024-01-02T03:04:05+00:00"}}'
    )
    record = record_from_document(data)
    assert record.date_done == "2024-01-02T03:04:05+00:00"
    assert (record.traceback, record.children) == ("half \ud800", [[["c", None], None]])
