"""Results in Celery's format: values and exceptions as bytes, and the document that key/value stores and rpc carry.

The runner calls `encode_result`; the committer's stores write `document(record)` and read `record_from_document`; clients
call `decode_result`. A document is put together around the bytes that the runner made: for json, msgpack and pickle no
value is decoded on the way, so that no class of a task is ever loaded in the supervisor.
"""

from __future__ import annotations

import contextlib
from typing import Any
from uuid import UUID

import msgspec

from celeriac import codec, compression, states
from celeriac.errors import DecodeError, EncodeError, ImproperlyConfigured, TaskRevokedError
from celeriac.results.base import Record
from celeriac.safe_repr import saferepr
from celeriac.wire.exceptions import exception_form, exception_from_form
from celeriac.wire.pickles import pickle_splice

__all__ = [
    "decode_result", "document", "encode_result", "exception_form", "exception_from_form", "record_from_document",
]  # fmt: skip

_JSON = "application/json"
_MSGPACK = "application/x-msgpack"
_PICKLE = "application/x-python-serialize"
_YAML = "application/x-yaml"

#: Stands before a compressed document, followed by the MIME type of the compression and a zero byte.
_COMPRESSED = b"\0celery-compressed\0"
#: Bytes that a stored document may have after decompression, where the reader doesn't say.
_MAX_BYTES = 256 * 2**20

#: Keys of a document that are no stamps.
_KEYS = frozenset({
    "status", "result", "traceback", "children", "date_done", "group_id", "parent_id", "name", "args", "kwargs",
    "worker", "retries", "queue", "stamped_headers", "task_id",
})  # fmt: skip

#: Keys whose values a record keeps serialized.
_VALUES: tuple[str, ...] = ("result", "args", "kwargs")

_json_parts = msgspec.json.Decoder(dict[str, msgspec.Raw])
_json_any = msgspec.json.Decoder()
_msgpack_parts = msgspec.msgpack.Decoder(dict[str, msgspec.Raw])


# --- values ---


def encode_result(value: Any, serializer: str = "json") -> tuple[str, str, bytes]:
    """Serialize what a task returned or raised.

    Returns:
        Content type, content encoding and bytes.

    Raises:
        EncodeError: The value can't be serialized; the message says where in it.
    """
    if isinstance(value, BaseException):
        value = exception_form(value, serializer)
    try:
        return codec.dumps(value, serializer)
    except EncodeError as exc:
        raise codec.explain({"the result": value}, serializer, exc.__cause__ or exc) from exc.__cause__


def decode_result(record: Record, accept: frozenset[str] | None = None) -> Any:
    """The value of a record: what the task returned, the exception for FAILURE, RETRY and REVOKED, or custom meta.

    Raises:
        ContentDisallowed: The record's content type is not accepted.
        DecodeError: It can't be decoded.
    """
    value = None
    if record.result:
        value = codec.loads(record.result, record.content_type, record.content_encoding, accept)
    if record.state not in states.EXCEPTION_STATES:
        return value
    if value is None and record.state == states.REVOKED:
        return TaskRevokedError("revoked")
    return exception_from_form(value)


# --- writing documents ---


def document(record: Record, compress: str | None = None) -> bytes:
    """Celery's task meta of a record, as key/value stores and rpc messages hold it.

    Args:
        record: What to write.
        compress: Compression by name or MIME type (the setting `result_compression`), or None.
    """
    before, values, after = _parts(record)
    if record.content_type == _JSON:
        data = _json_document(before, values, after)
    elif record.content_type == _MSGPACK:
        data = _msgpack_document(before, values, after)
    elif record.content_type == _PICKLE:
        data = pickle_splice({**before, **after}, values)
    else:
        data = _other_document(record, before, values, after)
    if not compress:
        return data
    squeezed, mime = compression.compress(data, compress)
    return b"%b%b\0%b" % (_COMPRESSED, mime.encode(), squeezed)


def _parts(record: Record) -> tuple[dict[str, Any], dict[str, bytes], dict[str, Any]]:
    """Plain fields that come before `result`, the fields that are serialized already, and the other plain fields."""
    after: dict[str, Any] = {
        "traceback": record.traceback,
        "children": record.children,
        "date_done": record.date_done,
    }
    if record.group_id:
        after["group_id"] = record.group_id
    if record.parent_id:
        after["parent_id"] = record.parent_id
    values = {"result": record.result or _encoded_null(record)}
    if record.name is not None:
        after.update(name=record.name, worker=record.worker, retries=record.retries, queue=record.queue)
        values["args"] = record.args or _encoded_null(record)
        values["kwargs"] = record.kwargs or _encoded_null(record)
        after.update(_flat_stamps(record.stamps))
    after["task_id"] = record.id
    return {"status": record.state}, values, after


def _flat_stamps(stamps: dict[str, Any] | None) -> dict[str, Any]:
    if not stamps or not stamps.get("stamped_headers"):
        return {}
    named = {key: value for key, value in (stamps.get("stamps") or {}).items() if key not in _KEYS}
    return {"stamped_headers": stamps["stamped_headers"], **named}


def _encoded_null(record: Record) -> bytes:
    return codec.dumps(None, codec.registry.type_to_name[record.content_type])[2]


def _json_document(before: dict[str, Any], values: dict[str, bytes], after: dict[str, Any]) -> bytes:
    if len(values) == 1:
        pattern = b'%b, "result": %b, %b'
        return pattern % (
            codec.json_dumps(before)[:-1].encode(),
            values["result"],
            codec.json_dumps(after)[1:].encode(),
        )
    # Celery's order: args and kwargs stand behind the name.
    names = list(after)
    head = {key: after[key] for key in names[: names.index("worker")]}
    tail = {key: after[key] for key in names[names.index("worker") :]}
    return b'%b, "result": %b, %b, "args": %b, "kwargs": %b, %b' % (
        codec.json_dumps(before)[:-1].encode(),
        values["result"],
        codec.json_dumps(head)[1:-1].encode(),
        values["args"],
        values["kwargs"],
        codec.json_dumps(tail)[1:].encode(),
    )


def _msgpack_document(before: dict[str, Any], values: dict[str, bytes], after: dict[str, Any]) -> bytes:
    parts: dict[str, Any] = dict(before)
    parts.update({key: msgspec.Raw(value) for key, value in values.items()})
    parts.update(after)
    return msgspec.msgpack.encode(parts)


def _other_document(record: Record, before: dict[str, Any], values: dict[str, bytes], after: dict[str, Any]) -> bytes:
    """Formats that can't be put together from parts (yaml, auth, custom ones) are decoded and written anew."""
    serializer = codec.registry.type_to_name.get(record.content_type)
    if serializer is None:
        raise ImproperlyConfigured(f"no serializer for content type {record.content_type!r} is registered here")
    accept = frozenset({record.content_type})
    decoded = {
        key: codec.loads(value, record.content_type, record.content_encoding, accept) for key, value in values.items()
    }
    return codec.dumps({**before, **decoded, **after}, serializer)[2]


# --- reading documents ---


def record_from_document(
    data: bytes,
    accept: frozenset[str] | None = None,
    *,
    content_type: str | None = None,
    max_bytes: int = _MAX_BYTES,
) -> Record:
    """The record in a stored document, compressed or not.

    Args:
        data: What the store holds.
        accept: Content types to accept where the document must be decoded to be read (all but json and msgpack).
        content_type: Of the document; None to tell json, msgpack, pickle and yaml by the first byte.
        max_bytes: Largest size after decompression.

    Raises:
        DecodeError: It is no task meta.
        ContentDisallowed: Its content type is not accepted.
    """
    data = _decompressed(data, max_bytes)
    kind = content_type or _sniff(data)
    decoder: Any = {_JSON: _json_parts, _MSGPACK: _msgpack_parts}.get(kind)
    if decoder is None:
        return _record_from_values(data, kind, accept)
    try:
        parts = decoder.decode(data)
    except (ValueError, RecursionError):  # NaN, for instance; or an error, with a better text
        return _record_from_values(data, kind, accept)
    values = {key: bytes(parts.pop(key)) for key in _VALUES if key in parts}
    plain = {key: _plain(key, value, kind) for key, value in parts.items()}
    return _record(plain, values, kind)


def _plain(key: str, value: msgspec.Raw, kind: str) -> Any:
    """A field that a record keeps decoded: text, a number, or an array of these."""
    if kind == _JSON and key in _KEYS:
        # What is harder is the slower decoder's: half a surrogate pair, or the typed values of older peers.
        with contextlib.suppress(msgspec.MsgspecError, ValueError, RecursionError):
            found = _json_any.decode(value)
            if not isinstance(found, dict):
                return found
    return codec.loads(bytes(value), kind, "utf-8", frozenset({kind}))


def _decompressed(data: bytes, max_bytes: int) -> bytes:
    if not data.startswith(_COMPRESSED):
        return data
    mime, zero, squeezed = data[len(_COMPRESSED) :].partition(b"\0")
    if not zero:
        raise DecodeError("a compressed result without its compression's name")
    try:
        return compression.decompress(squeezed, mime.decode("latin-1"), max_bytes)
    except ImproperlyConfigured as exc:
        raise DecodeError(str(exc)) from exc


def _sniff(data: bytes) -> str:
    first = data[:1]
    if first == b"{":
        return _JSON
    if first == b"\x80":  # in msgpack this would be an empty map, which is no task meta
        return _PICKLE
    return _MSGPACK if b"\x81" <= first <= b"\x8f" or first in (b"\xde", b"\xdf") else _YAML


def _record_from_values(data: bytes, kind: str, accept: frozenset[str] | None) -> Record:
    plain = codec.loads(data, kind, "utf-8", accept)
    if not isinstance(plain, dict):
        raise DecodeError(f"a stored result is not a mapping, but of type {type(plain).__name__}")
    serializer = codec.registry.type_to_name[kind]
    try:
        values = {key: codec.dumps(plain.pop(key), serializer)[2] for key in _VALUES if key in plain}
    except EncodeError as exc:  # what only a decoder knows, such as a timestamp of msgpack
        raise DecodeError(f"a stored result holds what {serializer} can't write: {exc}") from exc
    return _record(plain, values, kind)


def _record(plain: dict[str, Any], values: dict[str, bytes], content_type: str) -> Record:
    state, task_id = plain.get("status"), plain.get("task_id")
    if not isinstance(state, str) or not isinstance(task_id, str):
        raise DecodeError(f"a stored result has no status and task_id, but {saferepr(sorted(map(str, plain)), 200)}")
    retries = plain.get("retries")
    headers = plain.get("stamped_headers")
    stamps = {key: value for key, value in plain.items() if key not in _KEYS}
    children = plain.get("children")
    return Record(
        id=task_id,
        state=state,
        result=values.get("result", b""),
        content_type=content_type,
        content_encoding="utf-8" if content_type in (_JSON, _YAML) else "binary",
        traceback=_text(plain, "traceback"),
        children=children if isinstance(children, list) else None,
        date_done=_text(plain, "date_done"),
        group_id=_text(plain, "group_id"),
        parent_id=_text(plain, "parent_id"),
        name=_text(plain, "name"),
        args=values.get("args"),
        kwargs=values.get("kwargs"),
        worker=_text(plain, "worker"),
        retries=retries if isinstance(retries, int) else None,
        queue=_text(plain, "queue"),
        stamps={"stamped_headers": headers, "stamps": stamps} if isinstance(headers, list) else None,
    )


def _text(plain: dict[str, Any], key: str) -> str | None:
    value = plain.get(key)
    if value is None or isinstance(value, str):
        return value
    if hasattr(value, "isoformat"):
        return str(value.isoformat())  # older peers store date_done as a datetime
    return str(value) if isinstance(value, UUID) else saferepr(value)
