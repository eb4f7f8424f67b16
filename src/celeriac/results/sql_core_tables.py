"""Celery's result tables for any database of SQLAlchemy, and ours beside them: names, types, creation.

`sql_core.CoreStore` owns one `CoreTables`. The two result tables are defined as stock Celery defines them, sequences and
all, so that both can create them and insert into them. Where they are there already and lack columns, these are added;
where that isn't allowed, what they can't hold goes into `celeriac_results`. Several processes may do this at once: whoever
fails because another was quicker looks again.
"""

from __future__ import annotations

import contextlib
from typing import Any

import sqlalchemy
from sqlalchemy import (
    BigInteger,
    Column,
    DateTime,
    Double,
    Integer,
    LargeBinary,
    MetaData,
    Sequence,
    String,
    Table,
    Text,
)
from sqlalchemy.dialects import mysql

from celeriac.results.sql_schema import COLUMNS
from celeriac.results.sql_settings import SqlSettings

__all__ = ["CoreTables"]

_BYTES = LargeBinary().with_variant(mysql.LONGBLOB(), "mysql", "mariadb")
_TEXT = Text().with_variant(mysql.LONGTEXT(), "mysql", "mariadb")
_MOMENT = DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")
_NUMBER = BigInteger().with_variant(Integer(), "sqlite")
#: Ids are compared byte by byte; MySQL's usual collations ignore case.
_ID = String(155).with_variant(mysql.VARCHAR(155, charset="utf8mb4", collation="utf8mb4_bin"), "mysql", "mariadb")

_TYPES: dict[str, Any] = {
    "status": String(50), "result": _BYTES, "date_done": _MOMENT, "traceback": _TEXT, "children": _BYTES,
    "name": String(155), "args": _BYTES, "kwargs": _BYTES, "worker": String(155), "retries": Integer(),
    "queue": String(155), "stamps": _BYTES, "content_type": String(155), "content_encoding": String(50),
    "fence": BigInteger(), "group_id": String(155), "parent_id": String(155), "expires_at": Double(),
}  # fmt: skip
#: What every release of Celery has had.
_OLDEST = frozenset({"task_id", "status", "result", "date_done", "traceback"})


class CoreTables:
    """The tables, as they are in one database once `ensure` has looked."""

    def __init__(self, settings: SqlSettings) -> None:
        names, schemas = settings.table_names, settings.table_schemas
        own = settings.schema or None
        self._meta = MetaData()
        self._group_meta = MetaData()
        task_schema, group_schema = (schemas.get(key) or own for key in ("task", "group"))
        self.task = Table(
            names.get("task", "celery_taskmeta"), self._meta,
            Column("id", _NUMBER, Sequence("task_id_sequence", schema=task_schema), primary_key=True, autoincrement=True),
            Column("task_id", _ID, unique=True),
            *(Column(name, kind, index=name == "date_done" or None) for name, kind in _TYPES.items()),
            schema=task_schema,
        )  # fmt: skip
        self.group = Table(
            names.get("group", "celery_tasksetmeta"), self._group_meta,
            Column("id", _NUMBER, Sequence("taskset_id_sequence", schema=group_schema), primary_key=True, autoincrement=True),
            Column("taskset_id", _ID, unique=True), Column("result", _BYTES), Column("date_done", _MOMENT, index=True),
            schema=group_schema,
        )  # fmt: skip
        self._ours = MetaData(schema=own)
        self.extra = Table(
            "celeriac_results", self._ours, Column("task_id", _ID, primary_key=True),
            *(Column(name, kind) for name, kind in _TYPES.items() if name not in _OLDEST),
        )  # fmt: skip
        self.group_expiries = Table(
            "celeriac_group_expiries",
            self._ours,
            Column("group_id", _ID, primary_key=True),
            Column("expires_at", Double()),
        )
        self.chords = Table(
            "celeriac_chords", self._ours, Column("group_id", _ID, primary_key=True),
            Column("ended", BigInteger(), nullable=False), Column("touched_at", Double(), nullable=False),
        )  # fmt: skip
        self.chord_parts = Table(
            "celeriac_chord_parts", self._ours, Column("group_id", _ID, primary_key=True),
            Column("part", BigInteger(), primary_key=True, autoincrement=False),
        )  # fmt: skip
        #: Columns of the task table that are there.
        self.present: frozenset[str] = frozenset(COLUMNS)
        self.is_ready = False

    def ensure(self, engine: sqlalchemy.Engine) -> None:
        """Create what is missing, and look at what is there."""
        if self.is_ready:
            return
        for attempt in range(5):
            try:
                for meta in (self._meta, self._group_meta, self._ours):
                    meta.create_all(engine, checkfirst=True)
                break
            except sqlalchemy.exc.DBAPIError:
                # Another process was quicker. Or it is not allowed: then that is said once all else has been tried.
                if attempt == 4:
                    raise
        missing = [name for name in COLUMNS if name not in self._columns(engine)]
        for name in missing:
            self._add_column(engine, name)
        self.present = frozenset(self._columns(engine)) & frozenset(COLUMNS)
        self.is_ready = True

    def _columns(self, engine: sqlalchemy.Engine) -> set[str]:
        found = sqlalchemy.inspect(engine).get_columns(self.task.name, schema=self.task.schema)
        return {column["name"].lower() for column in found}

    def _add_column(self, engine: sqlalchemy.Engine, name: str) -> None:
        """Add one column; where that is not allowed it stays away."""
        preparer = engine.dialect.identifier_preparer
        kind = _TYPES[name].compile(dialect=engine.dialect)
        table, column = preparer.format_table(self.task), preparer.quote(name)
        with contextlib.suppress(sqlalchemy.exc.DBAPIError), engine.begin() as connection:
            connection.exec_driver_sql(f"ALTER TABLE {table} ADD {column} {kind}")

    def column(self, name: str) -> Any:
        """A column, wherever it is."""
        return self.task.c[name] if name in self.present else self.extra.c[name]

    def joined(self) -> Any:
        """What records are selected from."""
        if self.present == frozenset(COLUMNS):
            return self.task
        return self.task.outerjoin(self.extra, self.task.c.task_id == self.extra.c.task_id)
