"""A database behind a SQLAlchemy engine: its connections, transactions, deadlines and errors.

The result store for any SQLAlchemy URL (`sql_core`) and the MySQL transport each own an `Engine`; everything they do there goes
through `run`. Invariants: a server that answers nothing costs a call no more than the option `timeout`, where the client
library can be told so (PyMySQL, mysqlclient, psycopg and others); a connection is never used by a forked child; deadlocks,
and the race of two who insert the same row, are tried again inside; errors name the URL without its password.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import random
import select
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import sqlalchemy
from sqlalchemy import event, exc
from sqlalchemy.engine import Connection
from sqlalchemy.pool import NullPool

from celeriac.errors import CeleriacError, EncodeError, ImproperlyConfigured, OperationalError, near_match
from celeriac.results.sql_settings import SqlSettings
from celeriac.timing import shortened

__all__ = ["Engine"]

T = TypeVar("T")

#: A call on a server that has frozen may wait for a free connection, and then for an answer; these shares of `timeout`
#: keep the sum within it.
CONNECTING, ANSWERING = 0.4, 0.6
#: Time below which nothing is begun any more, in seconds.
WORTHWHILE = 0.05
#: How often a transaction that lost against another one is tried in all.
ATTEMPTS = 8
#: MySQL: deadlock, lock wait timeout, duplicate key, record changed since last read, table exists. PostgreSQL: as in
#: sql_connection.
_TRANSIENT = frozenset({1213, 1205, 1062, 1020, 1050, "40001", "40P01", "23505"})
#: MySQL: table doesn't exist.
_NO_TABLE = 1146
#: Dialects that SQLAlchemy brings along.
_DIALECTS = ("mariadb", "mssql", "mysql", "oracle", "postgresql", "sqlite")
#: Driver when the URL names none.
_DEFAULT_DRIVERS = {"mysql": "pymysql", "postgresql": "psycopg"}
# Times are UTC; a claim must not lock gaps between rows; a client that was frozen gives its locks back.
_MYSQL_SESSION = (
    "SET SESSION time_zone = '+00:00', innodb_lock_wait_timeout = {lock}, wait_timeout = 300",
    "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
)
_MARIADB_SESSION = "SET SESSION idle_transaction_timeout = 10"


class Engine:
    """One database by SQLAlchemy; may be used by any thread and after a fork."""

    def __init__(self, settings: SqlSettings) -> None:
        self.settings = settings
        try:
            self.url = sqlalchemy.make_url(settings.url)
        except exc.ArgumentError:
            raise ImproperlyConfigured(f"{settings.masked!r} is no database URL of SQLAlchemy.") from None
        name = self.url.get_backend_name()
        if not settings.driver and name in _DEFAULT_DRIVERS:
            self.url = self.url.set(drivername=f"{name}+{_DEFAULT_DRIVERS[name]}")
        self._pid = os.getpid()
        self._engine: sqlalchemy.Engine | None = None
        self._making = threading.Lock()
        self._room = self._new_room()

    def _new_room(self) -> threading.Semaphore:
        """As many places as the pool has connections: waiting for one of these can be told when to end."""
        settings = self.settings
        is_limited = settings.max_overflow >= 0 and not settings.short_lived_sessions
        return threading.Semaphore(max(1, settings.pool_size + settings.max_overflow) if is_limited else 100_000)

    @property
    def identity(self) -> tuple[Any, ...]:
        """Equal for two URLs of one database."""
        url = self.url
        return url.get_backend_name(), url.host, url.port, url.database, url.query.get("unix_socket")

    @property
    def engine(self) -> sqlalchemy.Engine:
        """SQLAlchemy's engine, made at first use."""
        if self._engine is None:
            with self._making:  # of two, one would be dropped with the connections that it has
                if self._engine is None:
                    self._pid = os.getpid()
                    self._engine = self._make()
        elif self._pid != os.getpid():
            self._engine.dispose(close=False)  # the pooled connections are the parent's
            self._room = self._new_room()
            self._pid = os.getpid()
        return self._engine

    def _make(self) -> sqlalchemy.Engine:
        settings = self.settings
        try:
            self.url.get_dialect()
        except exc.NoSuchModuleError as error:
            name = self.url.get_backend_name()
            raise ImproperlyConfigured(
                f"{settings.masked}: SQLAlchemy has no dialect {name!r} here.{near_match(name, _DIALECTS)}"
            ) from error
        options = {"connect_args": _connect_args(self.url, settings.timeout), **settings.engine_options}
        # A look at the socket tells whether an idle connection is gone; a question would cost a round trip each time.
        is_pymysql = self.url.get_driver_name() == "pymysql"
        if settings.short_lived_sessions:
            options["poolclass"] = NullPool
            for name in ("pool_size", "max_overflow", "pool_recycle", "pool_pre_ping"):
                options.pop(name, None)
        else:
            options.setdefault("pool_recycle", int(settings.pool_recycle))
            options.setdefault("pool_pre_ping", settings.pool_pre_ping and not is_pymysql)
            if self.url.get_backend_name() != "sqlite":
                options.setdefault("pool_size", settings.pool_size)
                options.setdefault("max_overflow", settings.max_overflow)
                options.setdefault("pool_timeout", settings.timeout * CONNECTING)
        try:
            engine = sqlalchemy.create_engine(self.url, **options)
        except ModuleNotFoundError as error:
            raise ImproperlyConfigured(
                f"{settings.masked} needs the package {error.name!r}, which is not here."
            ) from error
        except (exc.ArgumentError, TypeError) as error:
            raise ImproperlyConfigured(f"{settings.masked}: {error}") from error
        if engine.dialect.name in ("mysql", "mariadb"):
            event.listen(engine, "connect", self._prepare_mysql)
        if is_pymysql:
            event.listen(engine, "do_connect", self._connect_pymysql)
            event.listen(engine, "checkout", _check_alive)
            event.listen(engine, "checkout", self._limit_answers)
        if engine.dialect.name == "sqlite":
            event.listen(engine, "connect", _prepare_sqlite)
            event.listen(engine, "begin", _begin_sqlite)
        if settings.engine_callback is not None:
            _function(settings.engine_callback)(engine)
        return engine

    def _prepare_mysql(self, connection: Any, _: Any) -> None:
        with_lock = max(1, int(self.settings.timeout / 2))
        with connection.cursor() as cursor:
            for statement in _MYSQL_SESSION:
                cursor.execute(statement.format(lock=with_lock))
            cursor.execute("SELECT version()")
            if "mariadb" in str(cursor.fetchone()[0]).lower():
                cursor.execute(_MARIADB_SESSION)

    def _connect_pymysql(self, _dialect: Any, _record: Any, arguments: Any, options: dict[str, Any]) -> Any:
        """A new connection. It takes no longer than the call that needs it may."""
        for name in ("connect_timeout", "read_timeout", "write_timeout"):
            if options.get(name):
                options[name] = shortened(float(options[name]))
        return importlib.import_module("celeriac.results.sql_pymysql").connect(arguments, options)

    def _limit_answers(self, connection: Any, _record: Any, _: Any) -> None:
        """Nor do the answers on a connection that was there."""
        query, usual = self.url.query, self.settings.timeout * ANSWERING
        connection._read_timeout = shortened(float(str(query.get("read_timeout", usual))))
        connection._write_timeout = shortened(float(str(query.get("write_timeout", usual))))

    @contextlib.contextmanager
    def _place(self) -> Iterator[None]:
        patience = shortened(self.settings.timeout * CONNECTING)
        room = self._room
        error = OperationalError(
            f"{self.settings.masked}: all connections of this process were in use for {patience:.2g} s"
            " (options pool_size, max_overflow)."
        )
        if not room.acquire(timeout=patience):
            raise error
        try:
            if shortened(WORTHWHILE) < WORTHWHILE:  # those who had the places have just given up, and so do we
                raise error
            yield
        finally:
            room.release()

    def run(self, work: Callable[[Connection], T]) -> T:
        """Do something in one transaction, again if it loses against another one.

        Raises:
            OperationalError: The database can't be reached, is too slow, or refuses.
            EncodeError: It can't hold one of the values.
        """
        engine = self.engine  # looks for a fork before the place is taken
        with self._place():
            return self._retried(lambda: self._attempt(engine, work))

    def create(self, work: Callable[[sqlalchemy.Engine], None]) -> None:
        """Create tables, in whatever transactions that takes. Errors as of `run`."""
        self._retried(lambda: work(self.engine))

    def _retried(self, work: Callable[[], T]) -> T:
        deadline = time.monotonic() + shortened(self.settings.timeout)
        attempt = 0
        while True:
            attempt += 1
            try:
                return work()
            except CeleriacError:
                raise
            except Exception as error:  # of whatever driver is behind the engine; others pass
                code, is_known = _code(error, self._engine)
                if not is_known:
                    raise
                is_transient = code in _TRANSIENT or isinstance(error, exc.IntegrityError)
                if not is_transient or attempt == ATTEMPTS or time.monotonic() > deadline:
                    raise self._translated(error, code) from error
            time.sleep(random.uniform(0.001, 0.01) * attempt)

    def _attempt(self, engine: sqlalchemy.Engine, work: Callable[[Connection], T]) -> T:
        connection = engine.connect()
        try:
            transaction = connection.begin()
            result = work(connection)
            transaction.commit()
            return result
        except BaseException as error:
            # A rollback on a connection that doesn't answer would wait once more.
            if not isinstance(error, (CeleriacError, exc.IntegrityError)) and not _is_answer(error):
                connection.invalidate()
            raise
        finally:
            connection.close()

    def _translated(self, error: Exception, code: Any) -> Exception:
        where = self.settings.masked
        original = getattr(error, "orig", None) or error
        text = str(original).strip().splitlines()[0] if str(original).strip() else type(original).__name__
        if isinstance(error, exc.TimeoutError):
            return OperationalError(
                f"{where}: all connections of this process were in use for {self.settings.timeout:g} s"
                " (options pool_size, max_overflow)."
            )
        if isinstance(error, (exc.DataError, UnicodeEncodeError)) or type(original).__name__ == "DataError":
            return EncodeError(f"{where} can't hold a value: {text}")
        if "timed out" in text:
            return OperationalError(f"{where} did not answer in time (at most {self.settings.timeout:g} s).")
        return OperationalError(f"{where}: {text}")

    def close(self) -> None:
        """Close the connections that are not in use. The next use opens anew."""
        if self._engine is not None and self._pid == os.getpid():
            self._engine.dispose()
            self._engine = None


def _function(given: Any) -> Callable[[Any], Any]:
    """The setting database_engine_callback: a function, or its path as "package.module.function"."""
    if not isinstance(given, str):
        return given  # type: ignore[no-any-return]
    module, _, name = given.replace(":", ".").rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)  # type: ignore[no-any-return]
    except (ImportError, AttributeError, ValueError) as error:
        raise ImproperlyConfigured(f"database_engine_callback {given!r} can't be imported: {error}") from error


def _connect_args(url: sqlalchemy.URL, timeout: float) -> dict[str, Any]:
    """What the client library is told about time, as far as we know it."""
    whole = max(1, round(timeout))
    known: dict[str, dict[str, Any]] = {
        "pymysql": {
            "connect_timeout": timeout * CONNECTING,
            "read_timeout": timeout * ANSWERING,
            "write_timeout": timeout * ANSWERING,
        },
        "mysqldb": {"connect_timeout": whole, "read_timeout": whole, "write_timeout": whole},
        "mysqlconnector": {"connection_timeout": whole},
        "psycopg": {"connect_timeout": max(2, whole), "options": f"-c statement_timeout={int(timeout * 1000)}"},
        "psycopg2": {"connect_timeout": max(2, whole), "options": f"-c statement_timeout={int(timeout * 1000)}"},
        "pysqlite": {"timeout": timeout},
        "pymssql": {"login_timeout": whole, "timeout": whole},
        "pyodbc": {"timeout": whole},
    }
    given = known.get(url.get_driver_name(), {})
    return {name: value for name, value in given.items() if name not in url.query}


def _check_alive(connection: Any, record: Any, _: Any) -> None:
    """A connection on which the server has closed is replaced before its use."""
    sock = getattr(connection, "_sock", None)
    if sock is None:
        raise exc.DisconnectionError("closed")
    if hasattr(select, "poll"):
        poll = select.poll()
        poll.register(sock, select.POLLIN)
        is_readable = bool(poll.poll(0))
    else:
        is_readable = bool(select.select([sock], [], [], 0)[0])
    if is_readable:  # nothing was asked, so it can only be the end
        raise exc.DisconnectionError("the server has closed the connection")


def _prepare_sqlite(connection: Any, _: Any) -> None:
    connection.isolation_level = None  # transactions begin where `_begin_sqlite` says so


def _begin_sqlite(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _code(error: Exception, engine: sqlalchemy.Engine | None) -> tuple[Any, bool]:
    """The database's own code for an error, and whether it is one of a database at all."""
    original = getattr(error, "orig", None) or error
    dbapi_error = getattr(engine.dialect.dbapi if engine is not None else None, "Error", exc.DBAPIError)
    is_known = isinstance(error, (exc.SQLAlchemyError, UnicodeEncodeError)) or isinstance(original, dbapi_error)
    state = getattr(original, "sqlstate", None) or getattr(original, "pgcode", None)
    return state or (original.args[0] if original.args else None), is_known


def _is_answer(error: BaseException) -> bool:
    """Whether the server said this, so that the connection is sound."""
    original = getattr(error, "orig", None) or error
    if getattr(error, "connection_invalidated", False):
        return False
    names = {kind.__name__ for kind in type(original).__mro__}
    if names & {"IntegrityError", "DataError", "ProgrammingError", "NotSupportedError"}:
        return True
    code = original.args[0] if original.args else None
    return isinstance(code, int) and 1000 <= code < 2000  # MySQL's server errors; its client's begin at 2000
