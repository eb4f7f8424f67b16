"""The result tables of a PostgreSQL database: their names, their creation, and the statements on them.

`sql.PostgresStore` owns one; the transport uses the same one when it commits outcomes. The tables are those of Celery's
SQLAlchemy backend. What we store beyond its columns goes into further nullable columns, or, where the tables belong to
somebody who doesn't let us add any, into `celeriac_results`. Several processes may create all this at once: it happens
under an advisory lock, and whoever comes second finds it done.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import psycopg

from celeriac.errors import OperationalError
from celeriac.results.sql_connection import Connection
from celeriac.results.sql_settings import SqlSettings

__all__ = ["COLUMNS", "NOW", "ResultTables", "as_columns", "creating", "quoted", "version_of"]

VERSION = 1
#: The server's clock, as seconds since 1970. Taken at the start of a statement, so that an index can be searched with it.
NOW = "extract(epoch FROM statement_timestamp())::float8"
#: Key of the advisory lock under which tables are created.
CREATION_LOCK = 7_236_827_114_001

#: What a record is stored as: column and type, in the order of `sql.row_of`.
COLUMNS = {
    "task_id": "text", "status": "text", "result": "bytea", "date_done": "timestamp", "traceback": "text",
    "children": "bytea", "name": "text", "args": "bytea", "kwargs": "bytea", "worker": "text", "retries": "int4",
    "queue": "text", "stamps": "bytea", "content_type": "text", "content_encoding": "text", "fence": "int8",
    "group_id": "text", "parent_id": "text", "expires_at": "float8",
}  # fmt: skip
#: The part of them that every release of Celery has had.
OLDEST = ("task_id", "status", "result", "date_done", "traceback")

_TASKS = """
CREATE SEQUENCE IF NOT EXISTS {task_sequence};
CREATE TABLE IF NOT EXISTS {task} (
    id BIGINT NOT NULL DEFAULT nextval('{task_sequence}') PRIMARY KEY,
    task_id VARCHAR(155) UNIQUE, status VARCHAR(50), result BYTEA, date_done TIMESTAMP, traceback TEXT,
    children BYTEA, name VARCHAR(155), args BYTEA, kwargs BYTEA, worker VARCHAR(155), retries INTEGER,
    queue VARCHAR(155), stamps BYTEA, content_type TEXT, content_encoding TEXT, fence BIGINT, group_id TEXT,
    parent_id TEXT, expires_at FLOAT8
) WITH (autovacuum_vacuum_scale_factor = 0.05);
CREATE INDEX IF NOT EXISTS "ix_{task_name}_date_done" ON {task} (date_done);
"""
_GROUPS = """
CREATE SEQUENCE IF NOT EXISTS {group_sequence};
CREATE TABLE IF NOT EXISTS {group} (
    id BIGINT NOT NULL DEFAULT nextval('{group_sequence}') PRIMARY KEY,
    taskset_id VARCHAR(155) UNIQUE, result BYTEA, date_done TIMESTAMP
);
CREATE INDEX IF NOT EXISTS "ix_{group_name}_date_done" ON {group} (date_done);
"""
_OURS = """
CREATE TABLE IF NOT EXISTS {chords} (
    group_id TEXT PRIMARY KEY, ended BIGINT NOT NULL, touched_at FLOAT8 NOT NULL
) WITH (fillfactor = 50);
CREATE TABLE IF NOT EXISTS {chord_parts} (group_id TEXT NOT NULL, part BIGINT NOT NULL, PRIMARY KEY (group_id, part));
CREATE TABLE IF NOT EXISTS {group_expiries} (group_id TEXT PRIMARY KEY, expires_at FLOAT8);
CREATE TABLE IF NOT EXISTS {extra} (
    task_id TEXT PRIMARY KEY, status TEXT, children BYTEA, name TEXT, args BYTEA, kwargs BYTEA, worker TEXT,
    retries INTEGER, queue TEXT, stamps BYTEA, content_type TEXT, content_encoding TEXT, fence BIGINT, group_id TEXT,
    parent_id TEXT, expires_at FLOAT8
);
"""
_META = "CREATE TABLE IF NOT EXISTS {meta} (name TEXT PRIMARY KEY, value TEXT NOT NULL)"
# Which record may replace which is decided inside the statement. A stored row that has expired is as good as none.
_UPSERT = """
INSERT INTO {table} AS stored ({columns}) SELECT {values} FROM unnest({arrays}) AS given({names}) {only}
ON CONFLICT (task_id) DO UPDATE SET {changes}
WHERE {where} RETURNING task_id, status
"""
_FENCE = """stored.expires_at <= {now} OR (stored.status <> 'SUCCESS' AND (
    excluded.fence > coalesce(stored.fence, 0)
    OR (excluded.fence = coalesce(stored.fence, 0) AND stored.status NOT IN ('FAILURE', 'REVOKED'))))"""


def quoted(schema: str, table: str) -> str:
    """A table's name for a statement."""
    return f'"{schema}"."{table}"' if schema else f'"{table}"'


def creating(connection: Connection, statements: Iterable[str]) -> None:
    """Run statements in one transaction, while no other process creates tables."""
    connection.execute("BEGIN")
    try:
        connection.execute(f"SELECT pg_advisory_xact_lock({CREATION_LOCK})")
        for statement in statements:
            connection.execute(statement)
        connection.execute("COMMIT")
    except psycopg.Error:
        if not connection.closed:
            connection.execute("ROLLBACK")
        raise


def version_of(connection: Connection, meta: str, name: str, known: int, where: str) -> int:
    """The version of a schema, 0 if it is not there.

    Raises:
        OperationalError: It was made by a newer release.
    """
    [(found,)] = connection.execute("SELECT to_regclass(%s)::text", (meta,)).fetchall()
    if found is None:
        return 0
    row = connection.execute(f"SELECT value FROM {meta} WHERE name = %s", (name,)).fetchone()
    version = int(row[0]) if row else 0
    if version > known:
        raise OperationalError(f"{where} was made by a newer release of celeriac (schema {version}, here {known}).")
    return version


class ResultTables:
    """Names and statements. `upsert`, `select` and the others are there once `ensure` has looked at the tables."""

    def __init__(self, settings: SqlSettings) -> None:
        self._where = settings.masked
        names, schemas = settings.table_names, settings.table_schemas
        task_name, group_name = names.get("task", "celery_taskmeta"), names.get("group", "celery_tasksetmeta")
        task_schema, group_schema = (schemas.get(key, settings.schema) for key in ("task", "group"))
        self.names = {
            "task": quoted(task_schema, task_name), "task_name": task_name,
            "task_sequence": quoted(task_schema, "task_id_sequence"),
            "group": quoted(group_schema, group_name), "group_name": group_name,
            "group_sequence": quoted(group_schema, "taskset_id_sequence"),
            "extra": quoted(settings.schema, "celeriac_results"),
            **{kind: quoted(settings.schema, f"celeriac_{kind}")
               for kind in ("chords", "chord_parts", "group_expiries", "meta")},
        }  # fmt: skip
        self._schemas = sorted({task_schema, group_schema, settings.schema} - {""})
        self.has_all_columns = True
        self.upsert: list[tuple[str, tuple[str, ...]]] = []
        self.select = self.forget_expired = self.group_id = ""
        #: Part of a statement that has found, as `gone`, whose records may be written; "" if one statement can't do it.
        self.upsert_gone = ""

    def ensure(self, connection: Connection) -> None:
        """Create what is missing, then make the statements that fit what is there."""
        meta = self.names["meta"]
        task = self._columns(connection, "task")
        key = f"results {self.names['task']} {self.names['group']}"
        if not task or version_of(connection, meta, key, VERSION, self._where) < VERSION:
            self._create(connection, meta, key)
            task = self._columns(connection, "task")
        if not set(COLUMNS) <= set(task):
            task = self._add_columns(connection, task)
        self.has_all_columns = set(COLUMNS) <= set(task)
        self._make_statements(task, self._columns(connection, "group"))

    def _create(self, connection: Connection, meta: str, key: str) -> None:
        schemas = [f'CREATE SCHEMA IF NOT EXISTS "{name}"' for name in self._missing_schemas(connection)]
        parts = [_META]
        # Existing tables of stock Celery keep their sequences and indexes as they are.
        parts += [] if self._columns(connection, "task") else [_TASKS]
        parts += [] if self._columns(connection, "group") else [_GROUPS]
        parts += [_OURS, f"INSERT INTO {{meta}} VALUES ('{{key}}', '{VERSION}') ON CONFLICT DO NOTHING"]
        creating(connection, schemas + [part.format(**self.names, key=key) for part in parts])

    def _missing_schemas(self, connection: Connection) -> list[str]:
        """Looked up, because CREATE SCHEMA needs a right even where it would do nothing."""
        rows = connection.execute(
            "SELECT nspname FROM pg_namespace WHERE nspname = ANY(%s)", (self._schemas,)
        ).fetchall()
        return [name for name in self._schemas if (name,) not in rows]

    def _columns(self, connection: Connection, table: str) -> dict[str, bool]:
        """The columns of a table, and whether each has a default or is an identity."""
        sql = """SELECT attname::text, atthasdef OR attidentity <> '' FROM pg_attribute
                 WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped"""
        return {name: bool(default) for name, default in connection.execute(sql, (self.names[table],)).fetchall()}

    def _add_columns(self, connection: Connection, present: dict[str, bool]) -> dict[str, bool]:
        task = self.names["task"]
        missing = [(name, kind) for name, kind in COLUMNS.items() if name not in present]
        try:
            creating(
                connection, [f"ALTER TABLE {task} ADD COLUMN IF NOT EXISTS {name} {kind}" for name, kind in missing]
            )
        except psycopg.errors.InsufficientPrivilege:
            return present
        return self._columns(connection, "task")

    def _make_statements(self, task: dict[str, bool], group: dict[str, bool]) -> None:
        names = self.names
        # Tables made by stock Celery have ids without a default: the sequence is asked by the client.
        task_id = "" if task.get("id", True) else f"nextval('{names['task_sequence']}')"
        self.group_id = "" if group.get("id", True) else f"nextval('{names['group_sequence']}')"
        if self.has_all_columns:
            self.forget_expired = ""
            is_gone = "WHERE task_id IN (SELECT task_id FROM gone)"
            self.upsert_gone = _upsert(names["task"], tuple(COLUMNS), task_id, _FENCE.format(now=NOW), is_gone)[0]
            self.upsert = [_upsert(names["task"], tuple(COLUMNS), task_id, _FENCE.format(now=NOW))]
            self.select = f"SELECT {', '.join(COLUMNS)} FROM {names['task']} AS task"
        else:
            theirs = tuple(name for name in COLUMNS if name in task)
            ours = ("task_id", "status", *(name for name in COLUMNS if name not in OLDEST))
            is_open = (
                f"WHERE NOT EXISTS (SELECT FROM {names['task']} WHERE task_id = given.task_id AND status = 'SUCCESS')"
            )
            self.upsert_gone = ""
            self.forget_expired = (
                f"DELETE FROM {names['task']} USING {names['extra']} AS extra WHERE extra.task_id = {names['task']}.task_id"
                f" AND extra.expires_at <= {NOW} AND extra.task_id = ANY(%b)"
            )
            self.upsert = [
                _upsert(names["extra"], ours, "", _FENCE.format(now=NOW), is_open),
                _upsert(names["task"], theirs, task_id, "stored.status <> 'SUCCESS'"),
            ]
            columns = ", ".join(f"task.{name}" if name in theirs else f"extra.{name}" for name in COLUMNS)
            self.select = (
                f"SELECT {columns} FROM {names['task']} AS task LEFT JOIN {names['extra']} AS extra USING (task_id)"
            )


def _upsert(table: str, names: tuple[str, ...], new_id: str, where: str, only: str = "") -> tuple[str, tuple[str, ...]]:
    """A statement, and the columns whose arrays it takes."""
    columns, values = list(names), [f"given.{name}" for name in names]
    if new_id:
        columns, values = ["id", *columns], [new_id, *values]
    sql = _UPSERT.format(
        table=table,
        columns=", ".join(columns),
        values=", ".join(values),
        arrays=", ".join(f"%b::{COLUMNS[name]}[]" for name in names),
        names=", ".join(names),
        changes=", ".join(f"{name} = excluded.{name}" for name in names if name != "task_id"),
        where=where,
        only=only,
    )
    return sql, names


def as_columns(rows: list[tuple[Any, ...]], names: tuple[str, ...]) -> list[list[Any] | None]:
    """Rows in the order of COLUMNS, as one array for each of `names`. An array of nothing but NULL is NULL."""
    turned = dict(zip(COLUMNS, zip(*rows, strict=True), strict=True))
    return [list(turned[name]) if any(value is not None for value in turned[name]) else None for name in names]
