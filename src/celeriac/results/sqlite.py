"""Results in a SQLite file: the default result store, in the tables of Celery's SQLAlchemy backend.

Opened by `results.open` for `sqlite:///…` and `db+sqlite:///…`. Stock Celery reads what we write and the other way round;
`transport.sqlite` commits into the same tables when broker and store are one file; rows are in `sqlite_record`.

Invariant: whoever waits is registered before it looks, and woken after the commit that it waits for.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from celeriac.results.base import Record, StoreCapabilities
from celeriac.results.growing import grown
from celeriac.results.sqlite_database import Database, Transaction, parse_url
from celeriac.results.sqlite_record import SELECT, record_of, upsert
from celeriac.results.sqlite_wakeup import RECHECK, Wakeup, register
from celeriac.results.sqlite_watch import ALL_RESULTS, Watch
from celeriac.timing import SYSTEM_CLOCK, Clock, Deadline

__all__ = ["SqliteStore", "result_waiters"]

#: Up to this many ids are waited for one by one; more through a `Watch`.
NARROW = 64
#: Seconds after which the count of a chord is forgotten: whoever redelivers a part that late has lost the chord anyway.
CHORD_KEPT = 7 * 86_400
#: Rows that one step of `cleanup` looks at, so that it never holds the lock long.
CLEANUP_STEP = 5000

_AMONG = "task_id IN (SELECT value FROM json_each(?))"
_GET = f"{SELECT} WHERE {_AMONG} AND (expires_at IS NULL OR expires_at > ?)"
_READY = f"{_GET} AND status IN ('SUCCESS', 'FAILURE', 'REVOKED')"
_JOIN_PART = "INSERT OR IGNORE INTO celeriac_chord_parts (group_id, part) VALUES (?, ?)"
_COUNT_PART = """
INSERT INTO celeriac_chords (group_id, ended, touched_at) VALUES (?, 1, ?)
ON CONFLICT (group_id) DO UPDATE SET ended = ended + 1, touched_at = excluded.touched_at
"""
#: A chord that was begun here has one more part, which is no part: others, such as stock Celery's, are not looked after.
BEGUN = -1
_BEGIN_CHORD = "INSERT OR IGNORE INTO celeriac_chords (group_id, ended, touched_at) VALUES (?, 0, ?)"
_QUIET = """
SELECT group_id FROM celeriac_chords AS chord WHERE touched_at <= ?
AND EXISTS (SELECT 1 FROM celeriac_chord_parts WHERE group_id = chord.group_id AND part = -1) ORDER BY touched_at LIMIT ?
"""
#: A part more is expected: one that has not ended counts as one less that has.
_EXPECT_PART = """
INSERT INTO celeriac_chords (group_id, ended, touched_at) VALUES (?, -1, ?)
ON CONFLICT (group_id) DO UPDATE SET ended = ended - 1, touched_at = excluded.touched_at
"""
_GROUP = (
    "SELECT result, expires_at FROM celery_tasksetmeta WHERE taskset_id = ? AND (expires_at IS NULL OR expires_at > ?)"
)
_SAVE_GROUP = """
INSERT INTO celery_tasksetmeta (taskset_id, result, date_done, expires_at) VALUES (?, ?, ?, ?)
ON CONFLICT (taskset_id) DO UPDATE SET result = excluded.result, date_done = excluded.date_done,
    expires_at = excluded.expires_at
"""
_ANY_WAITER = "SELECT 1 FROM celeriac_waiters WHERE wants >= 'result:' AND wants < 'result;' LIMIT 1"
_WAITERS = "SELECT address FROM celeriac_waiters WHERE wants = ?"


class SqliteStore:
    """The result store in a SQLite file. See `results.base.ResultStore` for the verbs.

    Args:
        url: `sqlite:///relative.db` or `sqlite:////absolute.db`.
        options: `synchronous` ("FULL" or "NORMAL") and `busy_timeout` (seconds).
        clock: For tests.
    """

    capabilities = StoreCapabilities()

    def __init__(self, url: str, options: Mapping[str, Any] | None = None, *, clock: Clock = SYSTEM_CLOCK) -> None:
        self._database = Database(parse_url(url, options or {}))
        self._wakeup = Wakeup(self._database)
        self._clock = clock
        self._local = threading.local()
        self.url = url
        self.path = self._database.path

    def store(self, records: Sequence[Record]) -> list[str]:
        """Write records in one transaction; returns the ids that were refused."""
        if not records:
            return []
        now = self._clock.now()
        addresses: list[tuple[str]] = []
        with Transaction(self._database) as connection:
            written = upsert(connection, records, now)
            refused = [record.id for record, is_written in zip(records, written, strict=True) if not is_written]
            ready = [each.id for each, is_written in zip(records, written, strict=True) if is_written and each.is_ready]
            if ready:
                addresses = result_waiters(connection, self._wakeup, ready)
        if addresses:
            self._wakeup.wake(addresses)
        return refused

    def get(self, ids: Sequence[str]) -> list[Record | None]:
        """The records, in order."""
        found = {record.id: record for record in self._read(_GET, ids)}
        return [found.get(task_id) for task_id in ids]

    def _read(self, sql: str, ids: Iterable[str]) -> list[Record]:
        return [record_of(row) for row in self._database.read(sql, (_json_list(ids), self._clock.now()))]

    def wait(self, ids: Sequence[str], timeout: float | None) -> list[Record]:
        """Wait until some are ready, and return these; woken by the commit that makes them so."""
        if not ids:
            return []
        deadline = Deadline(timeout)
        if len(ids) > NARROW:
            return self._wait_wide(ids, deadline)
        self._drop_watch()
        found = self._read(_READY, ids)
        if found or deadline.passed():
            return found
        wants = ["result:" + task_id for task_id in ids]
        sleeper = self._wakeup.acquire()
        try:
            while True:
                with Transaction(self._database, durable=False) as connection:
                    register(connection, sleeper.address, wants)
                found = self._read(_READY, ids)
                if found or deadline.passed():
                    self._wakeup.forget(sleeper.address)
                    return found
                sleeper.wait(_pause(deadline))
        finally:
            self._wakeup.release(sleeper)

    def _wait_wide(self, ids: Sequence[str], deadline: Deadline) -> list[Record]:
        while True:
            watch: Watch | None = getattr(self._local, "watch", None)
            arrived = watch.arrived() if watch is not None and watch.covers(ids) else None
            if watch is None or arrived is None:
                self._drop_watch()
                watch = self._local.watch = Watch(self._database, self._wakeup)
                watch.pending = set(ids)
                arrived = watch.pending
            found = self._read(_READY, arrived & set(ids)) if arrived else []
            watch.pending = watch.pending - {record.id for record in found}
            if not watch.pending:
                self._drop_watch()
            if found or deadline.passed():
                return found
            watch.sleeper.wait(_pause(deadline))

    def _drop_watch(self) -> None:
        watch: Watch | None = getattr(self._local, "watch", None)
        if watch is not None:
            self._local.watch = None
            watch.close()

    def forget(self, ids: Sequence[str]) -> None:
        """Delete records."""
        with Transaction(self._database) as connection:
            connection.execute(f"DELETE FROM celery_taskmeta WHERE {_AMONG}", (_json_list(ids),))

    def start_chord(self, group_id: str, size: int, value: bytes, expires_at: float | None) -> None:
        """Keep the header of a chord."""
        with Transaction(self._database) as connection:
            connection.execute(_SAVE_GROUP, (group_id, value, _saved_at(), expires_at))
            connection.execute(_BEGIN_CHORD, (group_id, self._clock.now()))
            connection.execute(_JOIN_PART, (group_id, BEGUN))

    def join_part(self, group_id: str, index: int, size: int, record: Record) -> bool:
        """Count a part of a chord, once; returns whether all have ended."""
        with Transaction(self._database) as connection:
            if connection.execute(_JOIN_PART, (group_id, index)).rowcount:
                connection.execute(_COUNT_PART, (group_id, self._clock.now()))
            (ended,) = connection.execute(
                "SELECT ended FROM celeriac_chords WHERE group_id = ?", (group_id,)
            ).fetchone()
        return bool(0 < size <= ended)

    def quiet_chords(self, seconds: float, limit: int) -> list[str]:
        """Chords that nothing has happened to for so long; this counts as something."""
        now = self._clock.now()
        query = (_QUIET, (now - seconds, limit))
        if not self._database.read(*query):
            return []
        with Transaction(self._database, durable=False) as connection:
            found = [group_id for (group_id,) in connection.execute(*query).fetchall()]
            rows = [(now, group_id) for group_id in found]
            connection.executemany("UPDATE celeriac_chords SET touched_at = ? WHERE group_id = ?", rows)
        return found

    def ended_parts(self, group_id: str) -> set[int]:
        """Indexes of the parts that were counted."""
        sql = "SELECT part FROM celeriac_chord_parts WHERE group_id = ? AND part >= 0"
        return {part for (part,) in self._database.read(sql, (group_id,))}

    def grow_group(self, group_id: str, task_id: str, expires_at: float | None, is_chord: bool) -> int:
        """One more member of a kept group, once; returns its place."""
        with Transaction(self._database) as connection:
            row = connection.execute(_GROUP, (group_id, self._clock.now())).fetchone()
            index, value = grown(bytes(row[0]) if row else None, group_id, task_id, is_chord)
            if value is not None:
                self._put_group(connection, group_id, value, row[1] if row else expires_at)
                if is_chord:
                    connection.execute(_EXPECT_PART, (group_id, self._clock.now()))
        return index

    def save_group(self, group_id: str, value: bytes, expires_at: float | None) -> None:
        """Keep a group's result tuple."""
        with Transaction(self._database) as connection:
            self._put_group(connection, group_id, value, expires_at)

    def _put_group(self, connection: sqlite3.Connection, group_id: str, value: bytes, expires_at: float | None) -> None:
        connection.execute(_SAVE_GROUP, (group_id, value, _saved_at(), expires_at))

    def get_group(self, group_id: str) -> bytes | None:
        """The group's result tuple, or None."""
        rows = self._database.read(_GROUP, (group_id, self._clock.now()))
        return bytes(rows[0][0]) if rows else None

    def forget_group(self, group_id: str) -> None:
        """Delete a group and its chord count."""
        with Transaction(self._database) as connection:
            connection.execute("DELETE FROM celery_tasksetmeta WHERE taskset_id = ?", (group_id,))
            _forget_chord(connection, group_id)

    def cleanup(self, now: float) -> int:
        """Delete what has expired, in small steps. Rows without our expiry are stock Celery's to clean up."""
        [(first, last)] = self._database.read("SELECT min(id), max(id) FROM celery_taskmeta")
        deleted = 0
        for start in range(first or 0, (last or 0) + 1, CLEANUP_STEP):
            with Transaction(self._database, durable=False) as connection:
                sql = "DELETE FROM celery_taskmeta WHERE id >= ? AND id < ? AND expires_at <= ?"
                deleted += connection.execute(sql, (start, start + CLEANUP_STEP, now)).rowcount
        with Transaction(self._database, durable=False) as connection:
            connection.execute("DELETE FROM celery_tasksetmeta WHERE expires_at <= ?", (now,))
            sql = "SELECT group_id FROM celeriac_chords WHERE touched_at <= ?"
            for (group_id,) in connection.execute(sql, (now - CHORD_KEPT,)).fetchall():
                _forget_chord(connection, group_id)
        return deleted

    def durability_report(self) -> list[str]:
        """What a power cut may cost, one line each."""
        return self._database.durability_report()

    def close(self) -> None:
        """Close the connections of this process."""
        self._drop_watch()
        self._wakeup.close()
        self._database.close()


def result_waiters(connection: sqlite3.Connection, wakeup: Wakeup, ready: Sequence[str]) -> list[tuple[str]]:
    """Addresses of those who wait for any of these results. Called in the transaction that stores them."""
    addresses = wakeup.leave(connection, ALL_RESULTS, [("result", task_id.encode()) for task_id in ready])
    if connection.execute(_ANY_WAITER).fetchone():
        for task_id in ready:
            addresses += connection.execute(_WAITERS, ("result:" + task_id,)).fetchall()
    return addresses


def _forget_chord(connection: sqlite3.Connection, group_id: str) -> None:
    connection.execute("DELETE FROM celeriac_chords WHERE group_id = ?", (group_id,))
    connection.execute("DELETE FROM celeriac_chord_parts WHERE group_id = ?", (group_id,))


def _saved_at() -> str:
    return datetime.now(UTC).replace(tzinfo=None).isoformat(" ", "microseconds")


def _json_list(ids: Iterable[str]) -> str:
    return msgspec.json.encode(list(ids)).decode()


def _pause(deadline: Deadline) -> float:
    left = deadline.left()
    return RECHECK if left is None else min(left, RECHECK)
