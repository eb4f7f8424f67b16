"""One PostgreSQL database: its pool of connections, its transactions, its schema.

The PostgreSQL transport and result store each own a `Database`; everything they do there goes through `run`. Invariants: a
call ends within the option `timeout`, whatever the server does; a connection is used by one thread at a time and never by
a forked child; a connection whose state is unknown is closed, and the next call opens another; deadlocks and serialization
failures are tried again inside.

Connections come in two kinds: those that wait until a commit is on disk, and those that don't (`durable=False`: claims,
leases, broadcasts). What the latter lose in a crash of the server is a lease that nobody needs any more.
"""

from __future__ import annotations

import contextlib
import os
import random
import select
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

import psycopg

from celeriac.errors import CeleriacError, OperationalError
from celeriac.results.sql_connection import Connection, TimedOut, connect, is_transient, server_identity, translated
from celeriac.results.sql_settings import SqlSettings
from celeriac.timing import shortened

__all__ = ["Cursor", "Database", "Schema"]

T = TypeVar("T")
Cursor = psycopg.Cursor[tuple[Any, ...]]

#: How often a transaction that lost against another one is tried in all.
ATTEMPTS = 6
#: Seconds after which the server ends a transaction whose client does nothing: it was frozen, or its machine has gone.
IDLE_IN_TRANSACTION = 10
# Our statements are made for the indexes of our tables. Left to its statistics, the server would plan a sequential scan
# while a table is empty, and keep that plan when it holds a million rows.
_SESSION = (
    "SET statement_timeout = {statement}; SET lock_timeout = 0; SET idle_in_transaction_session_timeout = {idle};"
    " SET enable_seqscan = off; SET enable_bitmapscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off;"
    " SET jit = off"
)
_LAX = "; SET synchronous_commit = off"
#: Connections inherited over a fork: neither used nor closed here, ever.
_leaked: list[Any] = []


class Schema(Protocol):
    """Tables that a driver needs."""

    def ensure(self, connection: Connection) -> None:
        """Create what is missing."""


class Database:
    """Connections to one database; may be used by any thread and after a fork."""

    def __init__(self, settings: SqlSettings, *schemas: Schema) -> None:
        self.settings = settings
        self._schemas = list(schemas)
        self._identity: tuple[Any, ...] | None = None
        self._reset()

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._free: dict[bool, list[Connection]] = {True: [], False: []}
        limit = self.settings.pool_size + self.settings.max_overflow
        self._room = threading.BoundedSemaphore(max(1, limit) if self.settings.max_overflow >= 0 else 100_000)
        self._missing = list(self._schemas)

    @property
    def identity(self) -> tuple[Any, ...]:
        """Equal for two URLs of one database."""
        if self._identity is None:
            self._identity = server_identity(self.settings)
        return self._identity

    def require(self, schema: Schema) -> None:
        """Have these tables created as well, before the next use."""
        if schema not in self._schemas:
            self._schemas.append(schema)
            self._missing.append(schema)

    def run(self, work: Callable[[Cursor], T], *, durable: bool = True, atomic: bool = True) -> T:
        """Do something in one transaction, again if it loses against another one.

        Args:
            work: Called with a cursor. It may be called again.
            durable: Whether the commit must be on disk.
            atomic: False for a single statement, which is a transaction by itself.

        Raises:
            OperationalError: The server can't be reached, is too slow, or refuses.
            EncodeError: It can't hold one of the values.
        """
        deadline = time.monotonic() + shortened(self.settings.timeout)
        connection = self._take(durable, deadline)
        is_sound = False
        try:
            result = self._attempt(connection, work, atomic)
            is_sound = True
            return result
        except (psycopg.Error, UnicodeEncodeError) as exc:
            is_sound = self._undo(connection, exc)
            raise translated(exc, self.settings) from exc
        except CeleriacError as exc:
            is_sound = self._undo(connection, exc)
            raise
        finally:
            self._give(connection, durable, is_sound)

    def execute(self, sql: str, parameters: Sequence[Any] = (), *, durable: bool = True) -> list[tuple[Any, ...]]:
        """One statement as a transaction by itself; returns its rows."""

        def work(cursor: Cursor) -> list[tuple[Any, ...]]:
            cursor.execute(sql, parameters)
            return cursor.fetchall() if cursor.description is not None else []

        return self.run(work, durable=durable, atomic=False)

    def ready(self) -> None:
        """Have the schemas looked at, for statements that depend on what is there."""
        if self._missing:
            self.execute("SELECT 1", durable=False)

    def _attempt(self, connection: Connection, work: Callable[[Cursor], T], atomic: bool) -> T:
        for attempt in range(1, ATTEMPTS + 1):
            cursor = connection.cursor(binary=True)
            try:
                if not atomic:
                    return work(cursor)
                cursor.execute("BEGIN")
                result = work(cursor)
                cursor.execute("COMMIT")
                return result
            except psycopg.Error as exc:
                if attempt == ATTEMPTS or not is_transient(exc):
                    raise
                self._undo(connection, exc)
            time.sleep(random.uniform(0.001, 0.01) * attempt)
        raise AssertionError("unreachable")

    def _undo(self, connection: Connection, exc: BaseException) -> bool:
        """Roll back what failed; False if the connection is not worth keeping."""
        state = getattr(exc, "sqlstate", None)
        if state == "25006":
            return False  # the server has become a standby: another of the hosts is now the right one
        if state in ("42P01", "3F000"):
            self._missing = list(self._schemas)  # somebody has dropped our tables
        if connection.closed or isinstance(exc, TimedOut):
            return False
        with contextlib.suppress(psycopg.Error):
            if connection.pgconn.transaction_status != psycopg.pq.TransactionStatus.IDLE:
                connection.execute("ROLLBACK")
            return True
        return False

    def _take(self, durable: bool, deadline: float) -> Connection:
        if self._pid != os.getpid():
            _leaked.extend(self._free.values())
            self._reset()
        patience = max(0.0, deadline - time.monotonic())
        if not self._room.acquire(timeout=patience):
            raise OperationalError(
                f"{self.settings.masked}: all {self.settings.pool_size + self.settings.max_overflow} connections of this"
                f" process were in use for {patience:.3g} s (options pool_size, max_overflow)."
            )
        connection: Connection | None = None
        try:
            connection = self._reuse(durable) or self._open(durable, deadline)
            connection.deadline = deadline
            while self._missing:
                self._missing[0].ensure(connection)
                self._missing = self._missing[1:]
            return connection
        except BaseException as exc:
            if connection is not None:
                connection.close()
            self._room.release()
            if isinstance(exc, psycopg.Error):
                raise translated(exc, self.settings) from exc
            raise

    def _reuse(self, durable: bool) -> Connection | None:
        while True:
            with self._lock:
                if not self._free[durable]:
                    return None
                connection = self._free[durable].pop()
            age = time.monotonic() - connection.opened_at
            if (self.settings.pool_recycle < 0 or age < self.settings.pool_recycle) and _is_alive(connection):
                return connection
            connection.close()

    def _open(self, durable: bool, deadline: float) -> Connection:
        connection = connect(self.settings, deadline)
        try:
            connection.execute(
                _SESSION.format(statement=max(1, int(self.settings.timeout * 1000)), idle=IDLE_IN_TRANSACTION * 1000)
                + ("" if durable else _LAX)
            )
        except BaseException:
            connection.close()
            raise
        return connection

    def _give(self, connection: Connection, durable: bool, is_sound: bool) -> None:
        keep = False
        if is_sound and not self.settings.short_lived_sessions:
            with self._lock:
                keep = len(self._free[durable]) < max(1, self.settings.pool_size)
                if keep:
                    self._free[durable].append(connection)
        if not keep:
            connection.close()
        self._room.release()

    def listening(self) -> Connection:
        """A connection outside of the pool, for one that listens."""
        return self._open(False, time.monotonic() + self.settings.timeout)

    def close(self) -> None:
        """Close the connections that are not in use. The next use opens anew."""
        if self._pid != os.getpid():
            return
        with self._lock:
            free = [connection for kind in self._free.values() for connection in kind]
            self._free = {True: [], False: []}
        for connection in free:
            connection.close()


def _is_alive(connection: Connection) -> bool:
    """Whether a connection that was idle may be used. Costs no round trip.

    Nothing was asked, so if there is something to read it is the server's farewell or the end.
    """
    if connection.closed:
        return False
    if hasattr(select, "poll"):
        poll = select.poll()
        poll.register(connection.pgconn.socket, select.POLLIN)
        return not poll.poll(0)
    return not select.select([connection.pgconn.socket], [], [], 0)[0]
