"""A record as a row of Celery's SQL tables, and back: shared by the PostgreSQL store and the one for all other databases.

Invariant: a row can always be written. What a column can't hold (a NUL in a text, a name that is too long) is put in a
form that it can, because an outcome that can't be stored would be a task that never ends.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from celeriac.results.base import Record

__all__ = ["record_of", "row_of"]

#: Length of Celery's columns for names.
NAME_LENGTH = 155
#: (retries, deliveries) as one number that orders them.
_DELIVERIES = 1 << 31


def row_of(record: Record) -> tuple[Any, ...]:
    """Values in the order of `sql_schema.COLUMNS`."""
    retries, deliveries = record.fence
    children, stamps = record.children, record.stamps
    return (
        record.id, record.state, record.result, _moment(record.date_done), _text(record.traceback),
        msgspec.json.encode(children) if children else None, _name(record.name), record.args, record.kwargs,
        _name(record.worker), record.retries, _name(record.queue), msgspec.json.encode(stamps) if stamps else None,
        record.content_type, record.content_encoding, retries * _DELIVERIES + min(deliveries, _DELIVERIES - 1),
        record.group_id, record.parent_id, record.expires_at,
    )  # fmt: skip


def record_of(row: Sequence[Any]) -> Record:
    """The record of a row that `row_of` or stock Celery wrote."""
    (task_id, status, result, date_done, traceback, children, name, args, kwargs, worker, retries, queue, stamps,
     content_type, content_encoding, fence, group_id, parent_id, expires_at) = row  # fmt: skip
    result = _blob(result) or b""
    if content_type is None:  # written by stock Celery, which doesn't say; every pickle begins with 0x80
        pickled = result.startswith(b"\x80")
        content_type = "application/x-python-serialize" if pickled else "application/json"
        content_encoding = "binary" if pickled else "utf-8"
    return Record(
        id=task_id, state=status or "PENDING", result=result, content_type=content_type,
        content_encoding=content_encoding, traceback=traceback, children=_plain(children),
        date_done=_iso(date_done), group_id=group_id, parent_id=parent_id, fence=divmod(fence or 0, _DELIVERIES),
        expires_at=None if expires_at is None else float(expires_at), name=name, args=_blob(args), kwargs=_blob(kwargs),
        worker=worker, retries=retries, queue=queue, stamps=_plain(stamps),
    )  # fmt: skip


def _moment(date_done: str | None) -> datetime | None:
    """ISO 8601 as Celery's columns hold it: naive UTC."""
    if date_done is None:
        return None
    moment = datetime.fromisoformat(date_done)
    return moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo else moment


def _iso(date_done: Any) -> str | None:
    if isinstance(date_done, str):
        date_done = datetime.fromisoformat(date_done)
    return date_done.replace(tzinfo=UTC).isoformat(timespec="microseconds") if date_done is not None else None


def _text(value: str | None) -> str | None:
    if value is None or (value.isascii() and "\0" not in value):
        return value
    return value.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")


def _name(value: str | None) -> str | None:
    return value if value is None else (_text(value) or "")[:NAME_LENGTH]


def _blob(value: Any) -> bytes | None:
    if value is None or isinstance(value, bytes):
        return value
    return value.encode() if isinstance(value, str) else bytes(value)


def _plain(value: Any) -> Any:
    """Children or stamps. What a peer wrote with another serializer than JSON is left out: it is not worth an error."""
    with contextlib.suppress(msgspec.MsgspecError, TypeError, ValueError, RecursionError):
        return msgspec.json.decode(value)
    return None
