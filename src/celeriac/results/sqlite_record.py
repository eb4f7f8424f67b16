"""Records as rows of `celery_taskmeta`, and the statement that writes them.

`results.sqlite` reads and writes with it; `transport.sqlite` writes in its own transaction when broker and store are one
file. Several records go in one statement: each statement gives up the interpreter's lock and has to get it back, which
in a busy worker takes longer than the writing.

Invariant: which record may replace which is decided inside the statement, so no two writers can both believe they won.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from celeriac.results.base import Record

__all__ = ["SELECT", "record_of", "upsert"]

_COLUMNS = (
    "task_id", "status", "result", "date_done", "traceback", "children", "name", "args", "kwargs", "worker", "retries",
    "queue", "stamps", "content_type", "content_encoding", "fence", "group_id", "parent_id", "expires_at",
)  # fmt: skip
SELECT = f"SELECT {', '.join(_COLUMNS)} FROM celery_taskmeta"
_ROW = f"({', '.join('?' * len(_COLUMNS))})"
# Given: a row per _COLUMNS for each record, and the moment. Out: the ids of those written, the others are refused. A
# stored row that has expired is as good as none.
_UPSERT = """
INSERT INTO celery_taskmeta ({columns}) VALUES {rows}
ON CONFLICT (task_id) DO UPDATE SET {assignments}
WHERE expires_at <= ? OR (status <> 'SUCCESS' AND (
    excluded.fence > coalesce(fence, 0)
    OR (excluded.fence = coalesce(fence, 0) AND status NOT IN ('FAILURE', 'REVOKED'))))
RETURNING task_id
"""


def _upsert_sql(count: int) -> str:
    assignments = ", ".join(f"{name} = excluded.{name}" for name in _COLUMNS[1:])
    return _UPSERT.format(columns=", ".join(_COLUMNS), rows=", ".join([_ROW] * count), assignments=assignments)


#: Records per statement, most first. Few sizes, so that SQLite parses each once.
_UPSERTS = {size: _upsert_sql(size) for size in (32, 8, 1)}


def upsert(connection: sqlite3.Connection, records: Sequence[Record], now: float) -> list[bool]:
    """Write records inside a transaction; False for each that is refused (see `ResultStore.store`)."""
    written: list[bool] = []
    # Two records of one task must not share a statement: its answer would not tell which of them was refused.
    sizes = _UPSERTS if len({record.id for record in records}) == len(records) else (1,)
    for size in sizes:
        while len(records) - len(written) >= size:
            chunk = records[len(written) : len(written) + size]
            parameters = [value for record in chunk for value in _row(record)]
            ids = {task_id for (task_id,) in connection.execute(_UPSERTS[size], (*parameters, now)).fetchall()}
            written += [record.id in ids for record in chunk]
    return written


def _row(record: Record) -> tuple[Any, ...]:
    retries, deliveries = record.fence
    date_done = record.date_done
    if date_done is not None:  # as our workers write it, or as others do
        is_ours = len(date_done) == 32 and date_done[26:] == "+00:00"
        date_done = f"{date_done[:10]} {date_done[11:26]}" if is_ours else _to_column(date_done)
    return (
        record.id, record.state, record.result, date_done, record.traceback,
        msgspec.json.encode(record.children) if record.children else None, record.name, record.args, record.kwargs,
        record.worker, record.retries, record.queue, msgspec.json.encode(record.stamps) if record.stamps else None,
        record.content_type, record.content_encoding, (retries << 31) + deliveries, record.group_id, record.parent_id,
        record.expires_at,
    )  # fmt: skip


def record_of(row: Sequence[Any]) -> Record:
    """The record in a row that `SELECT` has read."""
    (task_id, status, result, date_done, traceback, children, name, args, kwargs, worker, retries, queue, stamps,
     content_type, content_encoding, fence, group_id, parent_id, expires_at) = row  # fmt: skip
    result = _blob(result) or b""
    if content_type is None:  # written by stock Celery, which doesn't say; every pickle begins with 0x80
        pickled = result.startswith(b"\x80")
        content_type = "application/x-python-serialize" if pickled else "application/json"
        content_encoding = "binary" if pickled else "utf-8"
    return Record(
        id=task_id, state=status, result=result, content_type=content_type, content_encoding=content_encoding,
        traceback=traceback, children=_plain(children), date_done=_from_column(date_done), group_id=group_id,
        parent_id=parent_id, fence=divmod(fence or 0, 1 << 31), expires_at=expires_at, name=name, args=_blob(args),
        kwargs=_blob(kwargs), worker=worker, retries=retries, queue=queue, stamps=_plain(stamps),
    )  # fmt: skip


def _blob(value: Any) -> bytes | None:
    return value.encode() if isinstance(value, str) else value


def _plain(value: Any) -> Any:
    """Children or stamps. What a peer wrote with another serializer than JSON is left out: it is not worth an error."""
    with contextlib.suppress(msgspec.MsgspecError, TypeError, ValueError, RecursionError):
        return msgspec.json.decode(value)
    return None


def _to_column(date_done: str) -> str:
    """ISO 8601 as SQLAlchemy writes a DATETIME: naive UTC with microseconds."""
    moment = datetime.fromisoformat(date_done)
    return (moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo else moment).isoformat(" ", "microseconds")


def _from_column(date_done: str | None) -> str | None:
    with contextlib.suppress(ValueError, TypeError):
        return datetime.fromisoformat(str(date_done)).replace(tzinfo=UTC).isoformat()
    return None
