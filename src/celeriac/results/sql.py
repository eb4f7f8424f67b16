"""Results in PostgreSQL, in the tables of Celery's SQLAlchemy backend: stock Celery reads what we write and the reverse.

Opened by `results.open` for `postgresql://…` and `db+postgresql://…`. `transport.sql_postgres` writes records with `upsert`
in its own transaction when broker and store are one database. Whoever waits is told through `sql_listener`.

Invariant: which record may replace which is decided inside one statement, so no two writers can both believe they won.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from celeriac.results.base import Record, StoreCapabilities
from celeriac.results.growing import grown
from celeriac.results.sql_database import Cursor, Database
from celeriac.results.sql_listener import NOTIFY, Listener, address
from celeriac.results.sql_rows import record_of, row_of
from celeriac.results.sql_schema import NOW, ResultTables, as_columns
from celeriac.results.sql_settings import SqlSettings, parse_url
from celeriac.timing import Deadline

__all__ = ["RESULTS", "PostgresStore", "result_letters", "upsert"]

#: What those who wait for results want.
RESULTS = "results"
#: Seconds between looks by one who is told of everything.
RECHECK = 1.0
#: Ids that one statement asks for.
ASKED_AT_ONCE = 5000
#: A NOTIFY carries less than 8000 bytes.
LETTER_SIZE = 7900
#: Seconds after which the count of a chord is forgotten: whoever redelivers a part that late has lost the chord anyway.
CHORD_KEPT = 7 * 86_400
#: Ids that one step of `cleanup` looks at, so that it never holds locks long.
CLEANUP_STEP = 20_000


class PostgresStore:
    """The result store in PostgreSQL. See `results.base.ResultStore` for the verbs.

    Args:
        url: `postgresql://user:password@host:port/database`, with libpq's parameters and ours (docs/sql.md).
        options: Ours: `timeout`, `schema`, `pool_size`, `table_names`, …
    """

    capabilities = StoreCapabilities(retries=3)

    def __init__(self, url: str, options: Mapping[str, Any] | None = None) -> None:
        self.settings: SqlSettings = parse_url(url, options or {})
        self.tables = ResultTables(self.settings)
        self._database = Database(self.settings, self.tables)
        self._listener = Listener(self._database)
        self.url = self.settings.masked

    @property
    def identity(self) -> tuple[Any, ...]:
        """Equal for stores and transports on one database."""
        return self._database.identity

    def store(self, records: Sequence[Record]) -> list[str]:
        """Write records in one transaction; returns the ids that were refused."""
        if not records:
            return []

        def work(cursor: Cursor) -> list[bool]:
            accepted = upsert(cursor, self.tables, records)
            letters = result_letters(self.settings.schema, records, accepted)
            if letters[0]:
                cursor.execute(NOTIFY, letters)
            return accepted

        accepted = self._database.run(work)
        return [record.id for record, is_in in zip(records, accepted, strict=True) if not is_in]

    def get(self, ids: Sequence[str]) -> list[Record | None]:
        """The records, in order."""
        found = {record.id: record for record in self._read(ids)}
        return [found.get(task_id) for task_id in ids]

    def _read(self, ids: Iterable[str], condition: str = "") -> list[Record]:
        wanted = list(dict.fromkeys(ids))
        self._database.ready()
        sql = (
            f"{self.tables.select} WHERE task.task_id = ANY(%b::text[]) AND (expires_at IS NULL OR expires_at > {NOW})"
        )
        rows: list[Any] = []
        for start in range(0, len(wanted), ASKED_AT_ONCE):
            rows += self._database.execute(sql + condition, (wanted[start : start + ASKED_AT_ONCE],), durable=False)
        return [record_of(row) for row in rows]

    def _ready(self, ids: Iterable[str]) -> list[Record]:
        return self._read(ids, " AND task.status IN ('SUCCESS', 'FAILURE', 'REVOKED')")

    def wait(self, ids: Sequence[str], timeout: float | None) -> list[Record]:
        """Wait until some are ready, and return these; told by the transaction that makes them so."""
        deadline = Deadline(timeout)
        found = self._ready(ids) if ids else []
        if found or not ids or deadline.passed():
            return found
        wanted = set(ids)
        with self._listener.sleeper([RESULTS]) as sleeper:
            is_woken = False
            while True:
                told = {task_id for _, payload in sleeper.clear() for task_id in payload.split("\n")}
                # Woken by a letter: only what it names can have changed. Else: a look at everything.
                found = self._ready(told & wanted if is_woken and told and sleeper.is_told else wanted)
                if found or deadline.passed():
                    return found
                left = deadline.left()
                is_woken = sleeper.wait(RECHECK if left is None else min(left, RECHECK))

    def forget(self, ids: Sequence[str]) -> None:
        """Delete records."""
        for table in ("task", "extra"):
            sql = f"DELETE FROM {self.tables.names[table]} WHERE task_id = ANY(%b::text[])"
            self._database.execute(sql, (list(ids),))

    def start_chord(self, group_id: str, size: int, value: bytes, expires_at: float | None) -> None:
        """Keep the header of a chord. One more part, which is no part, says that it was begun here."""
        self.save_group(group_id, value, expires_at)
        names = self.tables.names
        sql = f"""
            WITH begun AS (INSERT INTO {names["chord_parts"]} VALUES (%b, -1) ON CONFLICT DO NOTHING)
            INSERT INTO {names["chords"]} (group_id, ended, touched_at) VALUES (%b, 0, {NOW}) ON CONFLICT DO NOTHING
        """
        self._database.execute(sql, (group_id, group_id))

    def join_part(self, group_id: str, index: int, size: int, record: Record) -> bool:
        """Count a part of a chord, once; returns whether all have ended."""
        names = self.tables.names
        sql = f"""
            WITH part AS (INSERT INTO {names["chord_parts"]} VALUES (%b, %b) ON CONFLICT DO NOTHING RETURNING 1)
            INSERT INTO {names["chords"]} AS chord (group_id, ended, touched_at) SELECT %b, count(*), {NOW} FROM part
            ON CONFLICT (group_id) DO UPDATE SET ended = chord.ended + excluded.ended, touched_at = excluded.touched_at
            RETURNING ended
        """
        [(ended,)] = self._database.execute(sql, (group_id, index, group_id))
        return bool(0 < size <= ended)

    def quiet_chords(self, seconds: float, limit: int) -> list[str]:
        """Chords that nothing has happened to for so long; this counts as something."""
        names = self.tables.names
        sql = f"""
            UPDATE {names["chords"]} SET touched_at = {NOW} WHERE group_id IN (
                SELECT group_id FROM {names["chords"]} AS chord WHERE touched_at <= {NOW} - %b::float8 AND EXISTS
                    (SELECT 1 FROM {names["chord_parts"]} AS part WHERE part.group_id = chord.group_id AND part = -1)
                ORDER BY touched_at LIMIT %b FOR UPDATE SKIP LOCKED)
            RETURNING group_id
        """
        return [group_id for (group_id,) in self._database.execute(sql, (seconds, limit), durable=False)]

    def ended_parts(self, group_id: str) -> set[int]:
        """Indexes of the parts that were counted."""
        sql = f"SELECT part FROM {self.tables.names['chord_parts']} WHERE group_id = %b AND part >= 0"
        return {part for (part,) in self._database.execute(sql, (group_id,), durable=False)}

    def grow_group(self, group_id: str, task_id: str, expires_at: float | None, is_chord: bool) -> int:
        """One more member of a kept group, once; returns its place."""
        names = self.tables.names

        def work(cursor: Cursor) -> int:
            cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended(%b, 0))", (f"celeriac:group:{group_id}",))
            cursor.execute(self._group_query(), (group_id,))
            found = cursor.fetchone()
            index, value = grown(bytes(found[0]) if found else None, group_id, task_id, is_chord)
            if value is not None:
                self._put_group(cursor, group_id, value)
                if is_chord:  # one that has not ended counts as one less that has
                    cursor.execute(
                        f"INSERT INTO {names['chords']} AS chord (group_id, ended, touched_at) VALUES (%b, -1, {NOW})"
                        " ON CONFLICT (group_id) DO UPDATE SET ended = chord.ended - 1, touched_at = excluded.touched_at",
                        (group_id,),
                    )
                elif not found:
                    self._put_expiry(cursor, group_id, expires_at)
            return index

        return self._database.run(work)

    def save_group(self, group_id: str, value: bytes, expires_at: float | None) -> None:
        """Keep a group's result tuple."""

        def work(cursor: Cursor) -> None:
            self._put_group(cursor, group_id, value)
            self._put_expiry(cursor, group_id, expires_at)

        self._database.run(work)

    def _put_group(self, cursor: Cursor, group_id: str, value: bytes) -> None:
        new_id = self.tables.group_id  # known once there is a connection
        cursor.execute(
            f"INSERT INTO {self.tables.names['group']} ({'id, ' if new_id else ''}taskset_id, result, date_done)"
            f" VALUES ({new_id + ', ' if new_id else ''}%b, %b, %b) ON CONFLICT (taskset_id)"
            " DO UPDATE SET result = excluded.result, date_done = excluded.date_done",
            (group_id, value, datetime.now(UTC).replace(tzinfo=None)),
        )

    def _put_expiry(self, cursor: Cursor, group_id: str, expires_at: float | None) -> None:
        cursor.execute(
            f"INSERT INTO {self.tables.names['group_expiries']} VALUES (%b, %b::float8) ON CONFLICT (group_id)"
            " DO UPDATE SET expires_at = excluded.expires_at",
            (group_id, expires_at),
        )

    def get_group(self, group_id: str) -> bytes | None:
        """The group's result tuple, or None."""
        rows = self._database.execute(self._group_query(), (group_id,), durable=False)
        return bytes(rows[0][0]) if rows else None

    def _group_query(self) -> str:
        names = self.tables.names
        return f"""
            SELECT result FROM {names["group"]} LEFT JOIN {names["group_expiries"]} ON group_id = taskset_id
            WHERE taskset_id = %b AND (expires_at IS NULL OR expires_at > {NOW})
        """

    def forget_group(self, group_id: str) -> None:
        """Delete a group and its chord count."""
        names = self.tables.names
        self._database.execute(f"DELETE FROM {names['group']} WHERE taskset_id = %b", (group_id,))
        for table in ("group_expiries", "chords", "chord_parts"):
            self._database.execute(f"DELETE FROM {names[table]} WHERE group_id = %b", (group_id,))

    def cleanup(self, now: float) -> int:
        """Delete what has expired, in small steps. Rows without our expiry are stock Celery's to clean up."""
        names, execute = self.tables.names, self._database.execute
        self._database.ready()
        deleted = self._cleanup_tasks(now) if self.tables.has_all_columns else self._cleanup_extra(now)
        expired = execute(f"SELECT group_id FROM {names['group_expiries']} WHERE expires_at <= %b", (now,))
        expired += execute(f"SELECT group_id FROM {names['chords']} WHERE touched_at <= %b", (now - CHORD_KEPT,))
        for (group_id,) in expired:
            self.forget_group(group_id)
        return deleted

    def _cleanup_tasks(self, now: float) -> int:
        task = self.tables.names["task"]
        [(first, last)] = self._database.execute(f"SELECT min(id), max(id) FROM {task}")
        deleted = 0
        for start in range(first or 0, (last or 0) + 1, CLEANUP_STEP):
            sql = f"DELETE FROM {task} WHERE id >= %b AND id < %b AND expires_at <= %b::float8 RETURNING 1"
            deleted += len(self._database.execute(sql, (start, start + CLEANUP_STEP, now), durable=False))
        return deleted

    def _cleanup_extra(self, now: float) -> int:
        """The same where the task table has no column for the expiry."""
        sql = f"SELECT task_id FROM {self.tables.names['extra']} WHERE expires_at <= %b LIMIT {CLEANUP_STEP}"
        deleted = 0
        while ids := [task_id for (task_id,) in self._database.execute(sql, (now,))]:
            self.forget(ids)
            deleted += len(ids)
        return deleted

    def close(self) -> None:
        """Close the connections of this process."""
        self._listener.close()
        self._database.close()


def upsert(cursor: Cursor, tables: ResultTables, records: Sequence[Record]) -> list[bool]:
    """Write records inside a transaction; tells for each whether it was accepted (see `ResultStore.store`)."""
    accepted = [False] * len(records)
    todo = list(range(len(records)))
    while todo:
        # A statement may touch a row once; a later record of the same task goes into the next one.
        first: dict[str, int] = {}
        for index in todo:
            first.setdefault(records[index].id, index)
        for task_id in _upsert_once(cursor, tables, [records[index] for index in first.values()]):
            accepted[first[task_id]] = True
        todo = [index for index in todo if first[records[index].id] != index]
    return accepted


def _upsert_once(cursor: Cursor, tables: ResultTables, records: list[Record]) -> list[str]:
    rows = sorted(row_of(record) for record in records) if len(records) > 1 else [row_of(records[0])]
    if tables.forget_expired:
        cursor.execute(tables.forget_expired, ([row[0] for row in rows],))
    ids: list[str] = []
    for sql, names in tables.upsert:
        ids = [task_id for task_id, _ in cursor.execute(sql, as_columns(rows, names)).fetchall()]
        rows = [row for row in rows if row[0] in set(ids)]
        if not rows:
            return []
    return ids


def result_letters(
    schema: str, records: Iterable[Record], accepted: Iterable[bool]
) -> tuple[list[str], list[int], list[str]]:
    """Parameters of NOTIFY that tell of results that became ready."""
    payloads: list[str] = []
    line: list[str] = []
    size = 0
    for record, is_in in zip(records, accepted, strict=True):
        if is_in and record.is_ready:
            length = len(record.id.encode(errors="replace")) + 1
            if size + length > LETTER_SIZE:
                payloads.append("\n".join(line))
                line, size = [], 0
            line.append(record.id)
            size += length
    if line:
        payloads.append("\n".join(line))
    channel, key = address(schema, RESULTS)
    return [channel] * len(payloads), [key] * len(payloads), payloads
