"""Records as Redis holds them: Celery's task meta, with the fence where stock readers don't stumble over it.

The Redis result store calls it, and the Redis transport for the records that it commits. `redis_lua` tells the format.
What is not JSON (pickle, msgpack, YAML, compressed values) has the whole record in a companion, packed: so a worker that
reads an outcome never unpickles it, and bytes that are no JSON are kept as they are.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
import time
from typing import Any

import msgspec

from celeriac import compression
from celeriac.errors import CeleriacError
from celeriac.results.base import Record
from celeriac.wire.results import document, record_from_document

__all__ = ["chord_member", "companion_matches", "has_companion", "record_from", "value_arguments"]

_JSON = "application/json"
_FENCE = re.compile(rb', "celeriac": \[(\d+), (\d+), (\d+)\]}\Z')
#: The end of a JSON document whose record stands in the companion.
_APART = b', "celeriac": true}'
_packer = msgspec.msgpack.Encoder()
_unpacker = msgspec.msgpack.Decoder(Record)
_any_json = msgspec.json.Decoder(msgspec.Raw)
_to_json = msgspec.json.Encoder().encode


def value_arguments(record: Record, compress: str | None) -> tuple[bytes, bytes, str, int, int]:
    """What `put` takes after the key: value, companion, expires, retries and deliveries."""
    retries, deliveries = record.fence
    milliseconds = 0 if record.expires_at is None else max(1, math.ceil(record.expires_at * 1000))
    expires = "" if not milliseconds else "gone" if milliseconds <= time.time() * 1000 else str(milliseconds)
    if record.content_type == _JSON and not compress and _is_json(record):
        value = b'%b, "celeriac": [%d, %d, %d]}' % (_document(record)[:-1], retries, deliveries, milliseconds)
        return value, b"", expires, retries, deliveries
    value = _foreign(record, compress)
    state = record.state.replace("\n", " ").encode()
    companion = b"%d %d %d %b\n%b" % (len(value), retries, deliveries, state, _packer.encode(record))
    return value, companion, expires, retries, deliveries


def chord_member(record: Record) -> bytes:
    """What tells stock workers how a part of a chord has ended. Of a value that is no JSON it has only the state."""
    value = record.result if record.content_type == _JSON and _is_json(record) else b"null"
    return b"[1, %b, %b, %b]" % (json.dumps(record.id).encode(), json.dumps(record.state).encode(), value)


def _is_json(record: Record) -> bool:
    try:
        for part in (record.result, record.args, record.kwargs):
            if part is not None:
                _any_json.decode(part)
    except (msgspec.DecodeError, RecursionError):
        return False  # NaN among others, which stock reads: then the companion says how it was
    return True


def _document(record: Record) -> bytes:
    """Celery's task meta. The usual one is put together here; the general case takes four times as long."""
    if record.name is not None or record.group_id or record.parent_id:
        return document(record)
    return b'{"status": %b, "result": %b, "traceback": %b, "children": %b, "date_done": %b, "task_id": %b}' % (
        _to_json(record.state), record.result, _to_json(record.traceback), _to_json(record.children),
        _to_json(record.date_done), _to_json(record.id),
    )  # fmt: skip


def _foreign(record: Record, compress: str | None) -> bytes:
    """The value of a record that needs a companion. What peers can't decode is text to them, rather than an error."""
    if record.content_type != _JSON or _is_json(record):
        try:
            return document(record, compress)
        except CeleriacError:
            value = _readable(record)  # a serializer that is registered in the app, but not in this process
    else:
        try:
            value = document(record)
            json.loads(value)  # as stock Celery reads it: NaN is allowed
        except (CeleriacError, ValueError):
            value = _readable(record)
    value = value[:-1] + _APART
    return _squeezed(value, compress) if compress else value


def _readable(record: Record) -> bytes:
    text = _to_json(record.result.decode(errors="replace"))
    return document(
        msgspec.structs.replace(
            record, result=text, content_type=_JSON, content_encoding="utf-8", args=None, kwargs=None
        )
    )  # fmt: skip


def _squeezed(value: bytes, compress: str) -> bytes:
    squeezed, mime = compression.compress(value, compress)
    return b"\0celery-compressed\0%b\0%b" % (mime.encode(), squeezed)


def has_companion(value: bytes) -> bool:
    """Whether the record of this value may stand in a companion."""
    return not value.startswith(b"{") or value.endswith(_APART)


def companion_matches(value: bytes, companion: bytes | None) -> bool:
    """Whether the companion belongs to this value; a stock worker may have written another one since."""
    return companion is not None and companion.partition(b" ")[0] == b"%d" % len(value)


def record_from(task_id: str, value: bytes, companion: bytes | None = None) -> Record:
    """The record of a stored value.

    Raises:
        DecodeError: It is no task meta.
    """
    if companion is not None and companion_matches(value, companion):
        with contextlib.suppress(
            msgspec.MsgspecError, ValueError, RecursionError
        ):  # written by a release that is far from ours
            return _unpacker.decode(companion.partition(b"\n")[2])
    found = _FENCE.search(value, max(0, len(value) - 100))
    if found is None:
        return record_from_document(value)
    retries, deliveries, milliseconds = (int(number) for number in found.groups())
    changes: dict[str, Any] = {"fence": (retries, deliveries)}
    if milliseconds:
        changes["expires_at"] = milliseconds / 1000
    record = record_from_document(value[: found.start()] + b"}")
    return msgspec.structs.replace(record, **changes)
