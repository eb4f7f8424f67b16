"""Sending inside the user's own transaction: messages are inserted through a connection that is not ours.

`publish_in` of the SQL transports calls it. The connection may be a SQLAlchemy Session or Connection, or any DB-API connection
(psycopg, psycopg2, PyMySQL, sqlite3, Django's, …). Invariant: nothing is committed or rolled back here; what the user's
transaction decides holds for the messages as well.
"""

from __future__ import annotations

import inspect
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from celeriac.errors import ImproperlyConfigured, OperationalError
from celeriac.transport.sql_messages import Row

__all__ = ["UserConnection"]

#: Top-level package of a DB-API driver → whose databases it speaks to.
_DRIVERS = {
    "psycopg": "postgresql", "psycopg2": "postgresql", "pg8000": "postgresql", "psycopg_pool": "postgresql",
    "pymysql": "mysql", "MySQLdb": "mysql", "mysql": "mysql", "mariadb": "mysql", "sqlite3": "sqlite",
}  # fmt: skip
_PARAMETER = re.compile(r":([a-z_]+)")


class UserConnection:
    """What a user passed as `connection=`.

    Args:
        family: "postgresql", "mysql" or "sqlite".
        name: Of the database, for messages.
        url: Of the broker, masked, for messages.

    Raises:
        ImproperlyConfigured: It is no synchronous connection to such a database.
    """

    def __init__(self, connection: Any, family: str, name: str, url: str) -> None:
        self._family = family
        self._url = url
        self._wanted = (
            f"connection= has to be a SQLAlchemy Session or Connection, or a DB-API connection, to {name} ({url})"
        )
        if hasattr(connection, "sync_session") or hasattr(connection, "sync_connection"):
            raise ImproperlyConfigured(
                f"{self._wanted}, not {_kind(connection)}. Of an asynchronous one:"
                " await session.run_sync(lambda session: task.apply_async(..., connection=session))."
            )
        if hasattr(connection, "get_bind") and callable(getattr(connection, "connection", None)):
            connection = connection.connection()  # of a Session: the Connection of its transaction
        self._core = connection if hasattr(connection, "exec_driver_sql") else None
        self._raw = connection
        found = self._core.dialect.name if self._core is not None else self._family_of(connection)
        if {"mariadb": "mysql"}.get(found, found) != family:
            raise ImproperlyConfigured(f"{self._wanted}, not {_kind(connection)}.")

    def _family_of(self, connection: Any) -> str:
        if not callable(getattr(connection, "cursor", None)) or inspect.iscoroutinefunction(
            getattr(connection, "commit", None)
        ):
            raise ImproperlyConfigured(f"{self._wanted}, not {_kind(connection)}.")
        for package in _packages(connection):
            if package in _DRIVERS:
                return _DRIVERS[package]
        # Django's wrappers and the like say it themselves; of an unknown driver we believe what the user says.
        return str(getattr(connection, "vendor", self._family))

    def insert(self, sql: str, rows: Sequence[Row]) -> None:
        """Insert messages by a statement with the parameters state, queue, priority, due_at, head and body."""
        now = time.time()
        for queue, priority, due_at, head, body in rows:
            state = 2 if due_at is not None and due_at > now else 0
            values = {
                "state": state,
                "queue": queue,
                "priority": priority,
                "due_at": due_at,
                "head": head,
                "body": body,
            }
            self.execute(sql, values)

    def execute(self, sql: str, values: Mapping[str, Any]) -> list[Any]:
        """Run one statement with parameters `:name`; returns its rows."""
        if self._core is not None:
            # The user's SQLAlchemy, which is loaded if there is a connection of it.
            return self._mapped(lambda core: core.execute(sys.modules["sqlalchemy"].text(sql), dict(values)))
        names = _PARAMETER.findall(sql)
        return self.rows(_PARAMETER.sub("?", sql), [values[name] for name in names])

    def rows(self, sql: str, parameters: Sequence[Any] = ()) -> list[Any]:
        """Run one statement with parameters `?`, which stand nowhere else in it; returns its rows."""
        if self._core is not None:
            return self._mapped(lambda core: core.exec_driver_sql(sql, tuple(parameters)))

        def work(connection: Any) -> Any:
            cursor = connection.cursor()
            cursor.execute(sql.replace("?", self._sign()), tuple(parameters))
            return cursor

        return self._mapped(work)

    def _mapped(self, work: Callable[[Any], Any]) -> list[Any]:
        try:
            result = work(self._raw)
            has_rows = result.returns_rows if self._core is not None else result.description
            rows = list(result.fetchall()) if has_rows else []
            result.close()
        except Exception as exc:  # of whatever driver the user has
            raise OperationalError(f"{self._url}: the message can't be sent on this connection: {exc}") from exc
        return rows

    def _sign(self) -> str:
        """How this driver writes a parameter."""
        for package in _packages(self._raw):
            style = getattr(sys.modules.get(package), "paramstyle", None)
            if style is not None:
                return "?" if style == "qmark" else "%s"
        return "%s"


def _packages(connection: Any) -> list[str]:
    """Top-level packages of the connection's class and of those it derives from."""
    return [kind.__module__.partition(".")[0] for kind in type(connection).__mro__]


def _kind(connection: Any) -> str:
    return f"{type(connection).__module__}.{type(connection).__qualname__}"
