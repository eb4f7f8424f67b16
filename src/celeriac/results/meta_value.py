"""A record as one value under one key: Celery's task meta, with the fence where stock readers don't stumble over it.

The memcached and the file store call it; they keep one value per task and can't write two in one step. What a supervisor
needs to know (state, fence) is read without decoding a result, so no pickle is loaded there. By content type:

- JSON: the document, with `"celeriac": [retries, deliveries, expires_ms]` as its last key;
- MessagePack: the same key in the map;
- pickle: the document, and behind its end, where unpickling stops reading, the packed record;
- YAML: the document, and the packed record in a comment;
- anything else, and bytes that are not what they claim to be: a JSON document that tells of it, with the packed record.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import math
import re
from typing import Any

import msgspec

from celeriac import compression
from celeriac.errors import CeleriacError, DecodeError, ImproperlyConfigured
from celeriac.log import get_logger
from celeriac.results.base import Record
from celeriac.safe_repr import saferepr
from celeriac.wire.results import document, record_from_document

__all__ = [
    "expiry_of",
    "group_expiry",
    "group_from",
    "group_value",
    "key_prefix",
    "readable",
    "record_from",
    "value_of",
]

logger = get_logger("celeriac.results")

_COMPRESSED = b"\0celery-compressed\0"
#: Bytes that a value may have after decompression.
_MAX_BYTES = 256 * 2**20
_FENCE = re.compile(rb', "celeriac": \[(\d+), (\d+), (\d+)\]}\Z')
_PACKED_JSON = b', "celeriac": "'
_PACKED_YAML = b"\n# celeriac "
_PACKED_PICKLE = b"celeriac-record"
_packer = msgspec.msgpack.Encoder()
_unpacker = msgspec.msgpack.Decoder(Record)
_parts = msgspec.msgpack.Decoder(dict[str, msgspec.Raw])
_any_json = msgspec.json.Decoder(msgspec.Raw)
#: What decoders raise for damaged data.
_UNREADABLE = (msgspec.MsgspecError, ValueError, TypeError, RecursionError)
#: Values that could not be read and that the log has named already.
_told: set[bytes] = set()


def value_of(record: Record, compress: str | None = None) -> bytes:
    """The value of a record; `compress` is a compression by name or MIME type."""
    try:
        value = _KINDS.get(record.content_type, _other)(record)
    except (CeleriacError, msgspec.MsgspecError, ValueError, RecursionError):
        value = _other(record)  # its bytes are not what its content type says
    if not compress:
        return value
    squeezed, mime = compression.compress(value, compress)
    return b"%b%b\0%b" % (_COMPRESSED, mime.encode(), squeezed)


def _json(record: Record) -> bytes:
    for part in (record.result, record.args, record.kwargs):
        if part is not None:
            _any_json.decode(part)
    return b'%b, "celeriac": [%d, %d, %d]}' % (document(record)[:-1], *_fence(record))


def _msgpack(record: Record) -> bytes:
    if not record.result:
        raise ValueError("empty bytes are no MessagePack")
    return msgspec.msgpack.encode({**_parts.decode(document(record)), "celeriac": _fence(record)})


def _pickle(record: Record) -> bytes:
    packed = _packer.encode(record)
    return b"%b%b%08x%b" % (document(record), packed, len(packed), _PACKED_PICKLE)


def _yaml(record: Record) -> bytes:
    return b"%b%b%b\n" % (document(record).rstrip(b"\n"), _PACKED_YAML, base64.b64encode(_packer.encode(record)))


def _other(record: Record) -> bytes:
    told = msgspec.json.encode(saferepr(record.result, 1000))
    fields: dict[str, Any] = {"content_type": "application/json", "content_encoding": "utf-8", "args": None}
    shown = msgspec.structs.replace(record, result=told, kwargs=None, **fields)
    return b'%b%b%b"}' % (document(shown)[:-1], _PACKED_JSON, base64.b64encode(_packer.encode(record)))


_KINDS = {
    "application/json": _json,
    "application/x-msgpack": _msgpack,
    "application/x-python-serialize": _pickle,
    "application/x-yaml": _yaml,
}


def _fence(record: Record) -> tuple[int, int, int]:
    """Retries, deliveries, and the expiry in milliseconds (0: never)."""
    expires_ms = 0 if record.expires_at is None else max(1, math.ceil(record.expires_at * 1000))
    return (*record.fence, expires_ms)


def record_from(value: bytes) -> Record:
    """The record of a stored value, whoever wrote it.

    Raises:
        DecodeError: It is no task meta.
    """
    data = _unsqueezed(value)
    fence = _FENCE.search(data, max(0, len(data) - 100))
    if fence is not None:
        retries, deliveries, expires_ms = (int(number) for number in fence.groups())
        return _with_fence(record_from_document(data[: fence.start()] + b"}"), retries, deliveries, expires_ms)
    packed = _packed(data)
    if packed:
        with contextlib.suppress(*_UNREADABLE):  # of a release that is far from ours
            return _unpacker.decode(packed)
    if data[:1] >= b"\x80":
        with contextlib.suppress(*_UNREADABLE):
            return _from_msgpack(data)
    return record_from_document(data)


def _packed(data: bytes) -> bytes:
    """The packed record in a value, or nothing."""
    with contextlib.suppress(ValueError):
        if data.endswith(_PACKED_PICKLE):
            end = len(data) - len(_PACKED_PICKLE) - 8
            return data[end - int(data[end : end + 8], 16) : end]
        if data.endswith(b'"}'):
            _, found, text = data[:-2].rpartition(_PACKED_JSON)
            return base64.b64decode(text, validate=True) if found else b""
        _, found, text = data.rpartition(_PACKED_YAML)
        return base64.b64decode(text.rstrip(b"\n"), validate=True) if found else b""
    return b""


def _from_msgpack(data: bytes) -> Record:
    parts = _parts.decode(data)
    retries, deliveries, expires_ms = msgspec.msgpack.decode(parts.pop("celeriac", b""), type=tuple[int, int, int])
    return _with_fence(record_from_document(msgspec.msgpack.encode(parts)), retries, deliveries, expires_ms)


def _with_fence(record: Record, retries: int, deliveries: int, expires_ms: int) -> Record:
    expires_at = expires_ms / 1000 if expires_ms else None
    return msgspec.structs.replace(record, fence=(retries, deliveries), expires_at=expires_at)


def _unsqueezed(value: bytes) -> bytes:
    if not value.startswith(_COMPRESSED):
        return value
    mime, _, squeezed = value[len(_COMPRESSED) :].partition(b"\0")
    try:
        return compression.decompress(squeezed, mime.decode("latin-1"), _MAX_BYTES)
    except ImproperlyConfigured as exc:
        raise DecodeError(str(exc)) from exc


def readable(key: str | bytes, value: bytes) -> Record | None:
    """The record of a value; None, and a line in the log, for one that can't be read.

    One damaged value, or one in a format that is not accepted, must not stop a worker that looks for others.
    """
    try:
        return record_from(value)
    except DecodeError as exc:
        digest = hashlib.blake2b(value, digest_size=8).digest()
        if digest not in _told and len(_told) < 10_000:
            _told.add(digest)
            logger.warning("the result stored as %s can't be read and counts as missing: %s", _text(key), exc)
        return None


def _text(key: str | bytes) -> str:
    return key if isinstance(key, str) else key.decode()


def expiry_of(key: str, value: bytes) -> float | None:
    """When a stored value expires; None if it never does, or if a stock worker wrote it and we can't know."""
    with contextlib.suppress(DecodeError):
        data = _unsqueezed(value)
        if _FENCE.search(data, max(0, len(data) - 100)) or _packed(data) or data[:1] >= b"\x81":
            record = readable(key, value)
            return record.expires_at if record is not None else None
    return None


def group_value(value: bytes, expires_at: float | None = None) -> bytes:
    """A group's result tuple as stock Celery keeps it; one that is no JSON stands beside it."""
    fields: dict[str, Any] = {"result": None}
    try:
        _any_json.decode(value)
        fields["result"] = msgspec.Raw(value)
    except (msgspec.DecodeError, RecursionError):
        fields["celeriac_value"] = base64.b64encode(value).decode()
    if expires_at is not None:
        fields["celeriac_expires_at"] = expires_at
    return msgspec.json.encode(fields)


def group_expiry(stored: bytes | None) -> float | None:
    """When a group expires, by its stored value."""
    fields = msgspec.json.decode(stored or b"{}", type=dict[str, msgspec.Raw])
    return msgspec.json.decode(fields.get("celeriac_expires_at", b"null"), type=float | None)


def group_from(stored: bytes, now: float) -> bytes | None:
    """The result tuple in a group's stored value; None if it has expired.

    Raises:
        DecodeError: It is no group.
    """
    try:
        fields = msgspec.json.decode(stored, type=dict[str, msgspec.Raw])
        expires_at = msgspec.json.decode(fields.get("celeriac_expires_at", b"null"), type=float | None)
        if expires_at is not None and expires_at <= now:
            return None
        if "celeriac_value" in fields:
            return msgspec.json.decode(fields["celeriac_value"], type=bytes)
        return bytes(fields["result"])
    except (KeyError, *_UNREADABLE) as exc:
        raise DecodeError("a stored group has no result") from exc


def key_prefix(given: str) -> str:
    """What stands before every key, from the option `global_keyprefix`: Celery's rule for results."""
    return given if not given or given[-1] in ":_-." else given + "_"
