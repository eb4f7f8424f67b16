"""Coordination in a PostgreSQL database, in one table of its own.

Advisory locks, one for each name and taken in one order, make a step atomic without locking rows that are not there yet.
Moments are the server's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from celeriac.coordination.base import Changes, RowCoordination, Rows
from celeriac.results.sql_connection import Connection
from celeriac.results.sql_database import Cursor, Database
from celeriac.results.sql_schema import creating, quoted
from celeriac.results.sql_settings import SqlSettings, parse_url

__all__ = ["PostgresCoordination"]

T = TypeVar("T")

#: First half of the advisory locks' keys; the second is a hash of the name.
_LOCKS = 723_682_713
_CREATE = """
CREATE TABLE IF NOT EXISTS {table} (
    name TEXT NOT NULL, holder TEXT NOT NULL, ends_at FLOAT8 NOT NULL, PRIMARY KEY (name, holder)
) WITH (fillfactor = 50)
"""
_LOCK = """
SELECT pg_advisory_xact_lock(%b::int4, key)
FROM (SELECT DISTINCT hashtext(name) AS key FROM unnest(%b::text[]) AS names(name) ORDER BY 1) AS keys
"""
_NOW = "SELECT extract(epoch FROM clock_timestamp())::float8"
_SELECT = "SELECT name, holder, ends_at FROM {table} WHERE name = ANY(%b::text[])"
_HOLDERS = (
    "SELECT holder, ends_at FROM {table} WHERE name = %b AND ends_at > extract(epoch FROM clock_timestamp())::float8"
)
_DELETE = (
    "DELETE FROM {table} USING unnest(%b::text[], %b::text[]) AS gone(a_name, a_holder)"
    " WHERE name = a_name AND holder = a_holder"
)
_UPSERT = (
    "INSERT INTO {table} SELECT * FROM unnest(%b::text[], %b::text[], %b::float8[])"
    " ON CONFLICT (name, holder) DO UPDATE SET ends_at = excluded.ends_at"
)
_SWEEP = "DELETE FROM {table} WHERE ends_at < %b::float8"
#: Seconds between two sweeps of what ended and was never claimed again.
SWEEP_EVERY = 300.0


class _Table:
    """The table, for `Database`."""

    def __init__(self, settings: SqlSettings) -> None:
        self.name = quoted(settings.schema, "celeriac_claims")

    def ensure(self, connection: Connection) -> None:
        """Create what is missing."""
        creating(connection, [_CREATE.format(table=self.name)])


class PostgresCoordination(RowCoordination):
    """Rows in a table."""

    def __init__(self, url: str, options: Mapping[str, Any] | None = None) -> None:
        settings = parse_url(url, options or {})
        table = _Table(settings)
        self.url = settings.masked
        self._database = Database(settings, table)
        self._select, self._delete, self._upsert, self._sweep = (
            sql.format(table=table.name) for sql in (_SELECT, _DELETE, _UPSERT, _SWEEP)
        )
        self._holders = _HOLDERS.format(table=table.name)
        self._sweep_at = time.monotonic() + SWEEP_EVERY

    def change(self, names: Sequence[str], work: Callable[[Rows, float], tuple[T, Changes]]) -> T:
        """One transaction."""
        wanted = list(names)

        def step(cursor: Cursor) -> T:
            cursor.execute(_LOCK, (_LOCKS, wanted))
            rows: dict[str, dict[str, float]] = {name: {} for name in wanted}
            cursor.execute(self._select, (wanted,))
            for name, holder, ends_at in cursor.fetchall():
                rows[name][holder] = ends_at
            cursor.execute(_NOW)
            [(now,)] = cursor.fetchall()
            answer, changes = work(rows, now)
            self._write(cursor, changes)
            if time.monotonic() > self._sweep_at:
                self._sweep_at = time.monotonic() + SWEEP_EVERY
                cursor.execute(self._sweep, (now,))
            return answer

        return self._database.run(step, durable=False)

    def holders(self, name: str) -> dict[str, float]:
        """Who holds it, without a lock."""
        rows = self._database.execute(self._holders, (name,), durable=False)
        return {holder: float(at) for holder, at in rows}

    def _write(self, cursor: Cursor, changes: Changes) -> None:
        gone = [key for key, at in changes.items() if at is None]
        kept = [(*key, at) for key, at in changes.items() if at is not None]
        if gone:
            cursor.execute(self._delete, tuple(map(list, zip(*gone, strict=True))))
        if kept:
            cursor.execute(self._upsert, tuple(map(list, zip(*kept, strict=True))))

    def close(self) -> None:
        """Close connections that are not in use."""
        self._database.close()
