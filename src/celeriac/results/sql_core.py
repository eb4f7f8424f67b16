"""Results in any database that SQLAlchemy speaks to: MySQL, MariaDB, Oracle, SQL Server, …, in Celery's tables.

Opened by `results.open` for `db+<any URL of SQLAlchemy>` and `mysql://…`. The MySQL transport writes records with `upsert`
in its own transaction. Such databases can't tell of changes, so `wait` looks again after 5 ms, then ever later, up to
250 ms; writers of the same process wake it at once.

Invariant: a row is locked before it is decided whether it may be replaced, and a row that two insert at once is retried
by one of them; so no two writers can both believe they won.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

from sqlalchemy import bindparam, delete, insert, or_, select, update
from sqlalchemy.engine import Connection

from celeriac import states
from celeriac.results.base import Record, StoreCapabilities
from celeriac.results.growing import grown
from celeriac.results.sql_core_tables import CoreTables
from celeriac.results.sql_engine import Engine
from celeriac.results.sql_rows import record_of, row_of
from celeriac.results.sql_schema import COLUMNS
from celeriac.results.sql_settings import parse_url
from celeriac.results.sql_sleeper import PollingRouser
from celeriac.timing import Deadline

__all__ = ["CoreStore", "upsert"]

T = TypeVar("T")

#: Ids in one statement: Oracle takes no more than 1000.
CHUNK = 500
#: Longest pause between looks by one who waits.
RECHECK = 1.0
#: Seconds after which the count of a chord is forgotten: whoever redelivers a part that late has lost the chord anyway.
CHORD_KEPT = 7 * 86_400
#: Index of the part that is no part: it says that a chord was begun here, not by stock Celery.
BEGUN = -1


class CoreStore:
    """The result store behind a SQLAlchemy engine. See `results.base.ResultStore` for the verbs.

    Args:
        url: `db+mysql://user:password@host/database`, or any other URL of SQLAlchemy behind `db+`.
        options: Ours: `timeout`, `table_names`, `engine_options`, … (docs/sql.md).
    """

    capabilities = StoreCapabilities(pushes=False, retries=3)

    def __init__(self, url: str, options: Mapping[str, Any] | None = None) -> None:
        self.settings = parse_url(url, options or {})
        self.tables = CoreTables(self.settings)
        self.database = Engine(self.settings)
        self.rouser = PollingRouser()
        self.url = self.settings.masked

    def _run(self, work: Callable[[Connection], T]) -> T:
        if not self.tables.is_ready:
            self.database.create(self.tables.ensure)
        return self.database.run(work)

    def store(self, records: Sequence[Record]) -> list[str]:
        """Write records in one transaction; returns the ids that were refused."""
        if not records:
            return []
        accepted = self._run(lambda connection: upsert(connection, self.tables, records))
        self.rouser.rouse(
            "result:" + record.id for record, is_in in zip(records, accepted, strict=True) if is_in and record.is_ready
        )
        return [record.id for record, is_in in zip(records, accepted, strict=True) if not is_in]

    def get(self, ids: Sequence[str]) -> list[Record | None]:
        """The records, in order."""
        found = {record.id: record for record in self._read(ids)}
        return [found.get(task_id) for task_id in ids]

    def _read(self, ids: Iterable[str], only_ready: bool = False) -> list[Record]:
        wanted = list(dict.fromkeys(ids))
        if not wanted:
            return []

        def work(connection: Connection) -> list[Record]:
            tables = self.tables
            expires_at = tables.column("expires_at")
            query = select(*(tables.column(name) for name in COLUMNS)).select_from(tables.joined())
            query = query.where(or_(expires_at.is_(None), expires_at > time.time()))
            if only_ready:
                query = query.where(tables.task.c.status.in_(sorted(states.READY_STATES)))
            return [
                record_of(row)
                for part in _chunks(wanted)
                for row in connection.execute(query.where(tables.task.c.task_id.in_(part))).fetchall()
            ]

        return self._run(work)

    def wait(self, ids: Sequence[str], timeout: float | None) -> list[Record]:
        """Wait until some are ready, and return these."""
        deadline = Deadline(timeout)
        with self.rouser.sleeper(["result:" + task_id for task_id in dict.fromkeys(ids)]) as sleeper:
            while True:
                sleeper.clear()
                found = self._read(ids, only_ready=True)
                if found or not ids or deadline.passed():
                    return found
                left = deadline.left()
                sleeper.wait(RECHECK if left is None else min(left, RECHECK))

    def forget(self, ids: Sequence[str]) -> None:
        """Delete records."""

        def work(connection: Connection) -> None:
            for part in _chunks(list(ids)):
                for table in (self.tables.task, self.tables.extra):
                    connection.execute(delete(table).where(table.c.task_id.in_(part)))

        self._run(work)

    def start_chord(self, group_id: str, size: int, value: bytes, expires_at: float | None) -> None:
        """Keep the header of a chord. One more part, which is no part, says that it was begun here."""
        self.save_group(group_id, value, expires_at)

        def work(connection: Connection) -> None:
            chords, parts = self.tables.chords, self.tables.chord_parts
            query = select(chords.c.ended).where(chords.c.group_id == group_id)
            if connection.execute(_locked(query, chords)).first() is None:
                connection.execute(insert(chords).values(group_id=group_id, ended=0, touched_at=time.time()))
                connection.execute(insert(parts).values(group_id=group_id, part=BEGUN))

        self._run(work)

    def join_part(self, group_id: str, index: int, size: int, record: Record) -> bool:
        """Count a part of a chord, once; returns whether all have ended."""

        def work(connection: Connection) -> int:
            chords, parts = self.tables.chords, self.tables.chord_parts
            mine = chords.c.group_id == group_id
            ended = connection.execute(_locked(select(chords.c.ended).where(mine), chords)).scalar()
            if ended is None:  # if two do this at once, one of them is retried
                connection.execute(insert(chords).values(group_id=group_id, ended=0, touched_at=time.time()))
                ended = 0
            known = select(parts.c.part).where(parts.c.group_id == group_id, parts.c.part == index)
            if connection.execute(known).first() is None:
                connection.execute(insert(parts).values(group_id=group_id, part=index))
                ended += 1
                connection.execute(update(chords).where(mine).values(ended=ended, touched_at=time.time()))
            return int(ended)

        return 0 < size <= self._run(work)

    def quiet_chords(self, seconds: float, limit: int) -> list[str]:
        """Chords that nothing has happened to for so long; this counts as something."""

        def work(connection: Connection) -> list[str]:
            chords, parts, now = self.tables.chords, self.tables.chord_parts, time.time()
            begun = (
                select(parts.c.group_id).where(parts.c.group_id == chords.c.group_id, parts.c.part == BEGUN).exists()
            )
            query = select(chords.c.group_id).where(chords.c.touched_at <= now - seconds, begun)
            if connection.execute(query.limit(1)).first() is None:
                return []
            query = query.order_by(chords.c.touched_at).limit(limit)
            found = list(connection.execute(_locked(query, chords)).scalars())
            connection.execute(update(chords).where(chords.c.group_id.in_(found)).values(touched_at=now))
            return found

        return self._run(work)

    def ended_parts(self, group_id: str) -> set[int]:
        """Indexes of the parts that were counted."""
        parts = self.tables.chord_parts
        query = select(parts.c.part).where(parts.c.group_id == group_id, parts.c.part >= 0)
        return set(self._run(lambda connection: list(connection.execute(query).scalars())))

    def grow_group(self, group_id: str, task_id: str, expires_at: float | None, is_chord: bool) -> int:
        """One more member of a kept group, once; returns its place."""

        def work(connection: Connection) -> int:
            chords = self.tables.chords
            is_kept = self._lock_group(connection, group_id)
            index, value = grown(self._group(connection, group_id), group_id, task_id, is_chord)
            if value is not None:
                # Who makes the row anew must not overwrite one that was made since: that would lose its members.
                self._put_group(connection, group_id, value, is_kept)
                if is_chord:  # one that has not ended counts as one less that has
                    mine = chords.c.group_id == group_id
                    ended = connection.execute(_locked(select(chords.c.ended).where(mine), chords)).scalar()
                    if ended is None:
                        connection.execute(insert(chords).values(group_id=group_id, ended=-1, touched_at=time.time()))
                    else:
                        connection.execute(update(chords).where(mine).values(ended=ended - 1, touched_at=time.time()))
                elif index == 0:
                    self._put_expiry(connection, group_id, expires_at)
            return index

        return self._run(work)

    def save_group(self, group_id: str, value: bytes, expires_at: float | None) -> None:
        """Keep a group's result tuple."""

        def work(connection: Connection) -> None:
            self._put_group(connection, group_id, value, self._lock_group(connection, group_id))
            self._put_expiry(connection, group_id, expires_at)

        self._run(work)

    def _lock_group(self, connection: Connection, group_id: str) -> bool:
        """Whether a group has a row, which is locked then."""
        group = self.tables.group
        return (
            connection.execute(_locked(select(group.c.id).where(group.c.taskset_id == group_id), group)).first()
            is not None
        )

    def _put_group(self, connection: Connection, group_id: str, value: bytes, is_kept: bool) -> None:
        """Write a group's row, or a new one: if somebody else has made it meanwhile, the transaction is tried again."""
        group = self.tables.group
        row = {"result": value, "date_done": datetime.now(UTC).replace(tzinfo=None)}
        if is_kept:
            connection.execute(update(group).where(group.c.taskset_id == group_id).values(**row))
        else:
            connection.execute(insert(group).values(taskset_id=group_id, **row))

    def _put_expiry(self, connection: Connection, group_id: str, expires_at: float | None) -> None:
        expiries = self.tables.group_expiries
        connection.execute(delete(expiries).where(expiries.c.group_id == group_id))
        connection.execute(insert(expiries).values(group_id=group_id, expires_at=expires_at))

    def get_group(self, group_id: str) -> bytes | None:
        """The group's result tuple, or None."""
        return self._run(lambda connection: self._group(connection, group_id))

    def _group(self, connection: Connection, group_id: str) -> bytes | None:
        group, expiries = self.tables.group, self.tables.group_expiries
        query = select(group.c.result).select_from(
            group.outerjoin(expiries, expiries.c.group_id == group.c.taskset_id)
        ).where(
            group.c.taskset_id == group_id, or_(expiries.c.expires_at.is_(None), expiries.c.expires_at > time.time())
        )  # fmt: skip
        found = connection.execute(query).first()
        return bytes(found[0]) if found is not None else None

    def forget_group(self, group_id: str) -> None:
        """Delete a group and its chord count."""

        def work(connection: Connection) -> None:
            tables = self.tables
            connection.execute(delete(tables.group).where(tables.group.c.taskset_id == group_id))
            for table in (tables.group_expiries, tables.chords, tables.chord_parts):
                connection.execute(delete(table).where(table.c.group_id == group_id))

        self._run(work)

    def cleanup(self, now: float) -> int:
        """Delete what has expired, in small steps. Rows without our expiry are stock Celery's to clean up."""
        expired = select(self.tables.task.c.task_id)
        deleted = 0
        while True:

            def work(connection: Connection) -> list[str]:
                query = expired.select_from(self.tables.joined()).where(self.tables.column("expires_at") <= now)
                return list(connection.execute(query.limit(CHUNK)).scalars())

            ids = self._run(work)
            if not ids:
                break
            self.forget(ids)
            deleted += len(ids)
        groups, chords = self.tables.group_expiries, self.tables.chords
        for query in (
            select(groups.c.group_id).where(groups.c.expires_at <= now),
            select(chords.c.group_id).where(chords.c.touched_at <= now - CHORD_KEPT),
        ):
            for group_id in self._run(lambda connection, query=query: list(connection.execute(query).scalars())):  # type: ignore[misc]
                self.forget_group(group_id)
        return deleted

    def close(self) -> None:
        """Close the connections of this process."""
        self.database.close()


def upsert(connection: Connection, tables: CoreTables, records: Sequence[Record]) -> list[bool]:
    """Write records inside a transaction; tells for each whether it was accepted (see `ResultStore.store`)."""
    now = time.time()
    stored = _locked_rows(connection, tables, sorted({record.id for record in records}))
    known = set(stored)
    accepted = []
    rows: dict[str, dict[str, Any]] = {}
    for record in records:
        row = dict(zip(COLUMNS, row_of(record), strict=True))
        may = _may_replace(stored.get(record.id), row, now)
        accepted.append(may)
        if may:
            rows[record.id] = row
            stored[record.id] = (row["status"], row["fence"], row["expires_at"])
    _write(connection, tables, rows, known)
    return accepted


def _locked_rows(connection: Connection, tables: CoreTables, ids: list[str]) -> dict[str, Any]:
    """(status, fence, expiry) of those rows that are there, locked."""
    found: dict[str, Any] = {}
    task = tables.task
    columns = [task.c.task_id, task.c.status, tables.column("fence"), tables.column("expires_at")]
    for part in _chunks(ids):
        query = select(*columns).select_from(tables.joined()).where(task.c.task_id.in_(part))
        for task_id, status, fence, expires_at in connection.execute(_locked(query, task)).fetchall():
            found[task_id] = (status, fence, expires_at)
    return found


def _locked(query: Any, table: Any) -> Any:
    """The same SELECT, locking what it finds; SQL Server says that with hints."""
    return query.with_for_update(of=table).with_hint(table, "WITH (UPDLOCK, HOLDLOCK)", "mssql")


def _may_replace(stored: tuple[str, int | None, float | None] | None, row: Mapping[str, Any], now: float) -> bool:
    if stored is None:
        return True
    status, fence, expires_at = stored
    if expires_at is not None and expires_at <= now:
        return True
    if status == states.SUCCESS:
        return False
    return bool(row["fence"] > (fence or 0) or (row["fence"] == (fence or 0) and status not in states.READY_STATES))


def _write(connection: Connection, tables: CoreTables, rows: dict[str, dict[str, Any]], known: set[str]) -> None:
    if not rows:
        return
    task = tables.task
    in_task = [name for name in COLUMNS if name in tables.present]
    new = [{name: row[name] for name in in_task} for task_id, row in rows.items() if task_id not in known]
    old = [{f"new_{name}": row[name] for name in in_task} for task_id, row in rows.items() if task_id in known]
    if new:
        connection.execute(insert(task), new)
    if old:
        changes: dict[str, Any] = {name: bindparam(f"new_{name}") for name in in_task if name != "task_id"}
        connection.execute(update(task).where(task.c.task_id == bindparam("new_task_id")).values(**changes), old)
    if tables.present != frozenset(COLUMNS):
        extra = tables.extra
        for part in _chunks(list(rows)):
            connection.execute(delete(extra).where(extra.c.task_id.in_(part)))
        names = [column.name for column in extra.columns]
        connection.execute(insert(extra), [{name: row[name] for name in names} for row in rows.values()])


def _chunks(ids: list[str]) -> list[list[str]]:
    return [ids[start : start + CHUNK] for start in range(0, len(ids), CHUNK)]
