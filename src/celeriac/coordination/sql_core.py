"""Coordination in any database that SQLAlchemy speaks to: MySQL, MariaDB, …, in two tables of its own.

A step locks some of 64 rows, chosen by the names it is about and in one order, so it is atomic without locking rows that are
not there yet. Names are stored as digests: collations that ignore case, and lengths, can't make two of them one. Moments
are the server's on MySQL and MariaDB, elsewhere the client's.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import sqlalchemy
from sqlalchemy import Column, Double, Integer, MetaData, String, Table, delete, insert, select, text
from sqlalchemy.dialects import mysql
from sqlalchemy.engine import Connection

from celeriac.coordination.base import Changes, RowCoordination, Rows
from celeriac.results.sql_engine import Engine
from celeriac.results.sql_settings import parse_url

__all__ = ["CoreCoordination"]

T = TypeVar("T")

#: Rows to lock: names are spread over them.
LOCKS = 64
#: Seconds between two sweeps of what ended and was never claimed again.
SWEEP_EVERY = 300.0
_HOLDER = String(255).with_variant(mysql.VARCHAR(255, charset="utf8mb4", collation="utf8mb4_bin"), "mysql", "mariadb")


class CoreCoordination(RowCoordination):
    """Rows behind a SQLAlchemy engine."""

    def __init__(self, url: str, options: Mapping[str, Any] | None = None) -> None:
        settings = parse_url(url, options or {})
        self.url = settings.masked
        self._engine = Engine(settings)
        self._meta = MetaData(schema=settings.schema or None)
        self._claims = Table(
            "celeriac_claims", self._meta, Column("id", String(64), primary_key=True),
            Column("name", String(64), nullable=False, index=True), Column("holder", _HOLDER, nullable=False),
            Column("ends_at", Double(), nullable=False),
        )  # fmt: skip
        self._locks = Table(
            "celeriac_claim_locks", self._meta, Column("id", Integer(), primary_key=True, autoincrement=False)
        )
        self._is_ready = False
        self._sweep_at = time.monotonic() + SWEEP_EVERY

    def _create(self, engine: sqlalchemy.Engine) -> None:
        """Create what is missing; several processes may do it at once, and whoever comes second looks again."""
        for attempt in range(5):
            try:
                self._meta.create_all(engine, checkfirst=True)
                with engine.begin() as connection:
                    known = set(connection.execute(select(self._locks.c.id)).scalars())
                    missing = [{"id": number} for number in range(LOCKS) if number not in known]
                    if missing:
                        connection.execute(insert(self._locks), missing)
                break
            except sqlalchemy.exc.DBAPIError:
                if attempt == 4:
                    raise
        self._is_ready = True

    def change(self, names: Sequence[str], work: Callable[[Rows, float], tuple[T, Changes]]) -> T:
        """One transaction."""
        if not self._is_ready:
            self._engine.create(self._create)
        digests = {_digest(name): name for name in names}

        def step(connection: Connection) -> T:
            claims, locks = self._claims, self._locks
            wanted = sorted({int(digest[:8], 16) % LOCKS for digest in digests})
            query = select(locks.c.id).where(locks.c.id.in_(wanted)).order_by(locks.c.id).with_for_update()
            connection.execute(query.with_hint(locks, "WITH (UPDLOCK, HOLDLOCK)", "mssql")).fetchall()
            rows: dict[str, dict[str, float]] = {name: {} for name in names}
            found = select(claims.c.name, claims.c.holder, claims.c.ends_at).where(claims.c.name.in_(list(digests)))
            for digest, holder, ends_at in connection.execute(found).fetchall():
                rows[digests[digest]][holder] = ends_at
            now = _now(connection)
            answer, changes = work(rows, now)
            self._write(connection, changes)
            if time.monotonic() > self._sweep_at:
                self._sweep_at = time.monotonic() + SWEEP_EVERY
                connection.execute(delete(claims).where(claims.c.ends_at < now))
            return answer

        return self._engine.run(step)

    def _write(self, connection: Connection, changes: Changes) -> None:
        claims = self._claims
        if changes:
            ids = [_digest(f"{name}\0{holder}") for name, holder in changes]
            connection.execute(delete(claims).where(claims.c.id.in_(ids)))
        kept = [
            {"id": _digest(f"{name}\0{holder}"), "name": _digest(name), "holder": holder, "ends_at": at}
            for (name, holder), at in changes.items()
            if at is not None
        ]
        if kept:
            connection.execute(insert(claims), kept)

    def close(self) -> None:
        """Close connections that are not in use."""
        self._engine.close()


def _digest(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def _now(connection: Connection) -> float:
    if connection.dialect.name in ("mysql", "mariadb"):
        return float(connection.execute(text("SELECT unix_timestamp(now(6))")).scalar_one())
    return time.time()
