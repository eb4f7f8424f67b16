"""The dead letters of the SQLite transport: putting aside, listing, replaying and discarding.

`transport.sqlite` calls it. Rows are moved between tables by SQL as they are, so that a message that can't be read is
kept, and can be replayed, with every byte it had. A key is the row's number; a task id serves as well.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

from celeriac.message import DeadLetter, Settlement
from celeriac.results.sqlite_database import Database
from celeriac.transport.packing import unpack

__all__ = ["bury", "discard", "found", "listed", "replay"]

_COLUMNS = "id, queue, reason, died_at, deliveries, starts, head, body"
_BURY = """
INSERT INTO celeriac_dead_letters (task_id, queue, priority, reason, died_at, deliveries, starts, head, body)
SELECT ?, queue, priority, ?, ?, deliveries, max(starts, ?), head, body FROM celeriac_messages WHERE id = ? AND token = ?
"""
_ACK = "DELETE FROM celeriac_messages WHERE id = ? AND token = ?"
_REPLAY = """
INSERT INTO celeriac_messages (state, queue, priority, head, body)
SELECT 0, queue, priority, head, body FROM celeriac_dead_letters WHERE id = ?
"""


def bury(connection: sqlite3.Connection, settlement: Settlement, now: float) -> bool:
    """Move a delivery to the dead letters; False if its lease is lost."""
    delivery = settlement.delivery
    starts = delivery.starts + settlement.charged
    if connection.execute(_BURY, (delivery.message.id, settlement.reason, now, starts, *delivery.token)).rowcount == 0:
        return False
    connection.execute(_ACK, delivery.token)
    return True


def listed(database: Database, limit: int, queue: str | None) -> list[DeadLetter]:
    """Dead letters, newest first."""
    where = "WHERE queue = :queue" if queue is not None else ""
    sql = f"SELECT {_COLUMNS} FROM celeriac_dead_letters {where} ORDER BY id DESC LIMIT :limit"
    return [_dead_letter(row) for row in database.read(sql, {"queue": queue, "limit": limit})]


def found(database: Database, key: str) -> DeadLetter | None:
    """The dead letter with this key, else the newest one of this task id."""
    where = "WHERE id = :number OR task_id = :key ORDER BY id = :number DESC, id DESC LIMIT 1"
    sql = f"SELECT {_COLUMNS} FROM celeriac_dead_letters {where}"
    rows = database.read(sql, {"number": _number(key), "key": key})
    return _dead_letter(rows[0]) if rows else None


def replay(connection: sqlite3.Connection, keys: Sequence[str]) -> list[str]:
    """Put dead letters back with counts at zero; returns the queue of each."""
    queues = []
    for row_id in _row_ids(connection, keys):
        connection.execute(_REPLAY, (row_id,))
        sql = "DELETE FROM celeriac_dead_letters WHERE id = ? RETURNING queue"
        queues += [queue for (queue,) in connection.execute(sql, (row_id,)).fetchall()]
    return queues


def discard(connection: sqlite3.Connection, keys: Sequence[str]) -> int:
    """Delete dead letters; returns how many there were."""
    row_ids = _row_ids(connection, keys)
    connection.executemany("DELETE FROM celeriac_dead_letters WHERE id = ?", [(row_id,) for row_id in row_ids])
    return len(row_ids)


def _row_ids(connection: sqlite3.Connection, keys: Sequence[str]) -> list[int]:
    found: dict[int, None] = {}
    for key in keys:
        sql = "SELECT id FROM celeriac_dead_letters WHERE id = ? OR task_id = ? ORDER BY id"
        matching = [row_id for (row_id,) in connection.execute(sql, (_number(key), key))]
        # A key names one letter, even if it should be another's task id as well.
        exact = [row_id for row_id in matching if row_id == _number(key)]
        found.update(dict.fromkeys(exact or matching))
    return list(found)


def _number(key: str) -> int:
    return int(key) if key.isascii() and key.isdigit() and len(key) < 19 else -1


def _dead_letter(row: tuple[Any, ...]) -> DeadLetter:
    row_id, queue, reason, died_at, deliveries, starts, head, body = row
    return DeadLetter(
        key=str(row_id), message=unpack(head, body, queue), queue=queue, reason=reason, died_at=died_at,
        deliveries=deliveries, starts=starts,
    )  # fmt: skip
