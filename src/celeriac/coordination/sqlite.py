"""Coordination in a SQLite file: the broker's or the result store's, in one table of its own.

The write lock makes each step atomic. The table is made at need, so an older file and one that was deleted while it was
open work alike.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from celeriac.coordination.base import Changes, RowCoordination, Rows
from celeriac.errors import OperationalError
from celeriac.results.sql_settings import split_scheme
from celeriac.results.sqlite_database import Database, Transaction, parse_url

__all__ = ["SqliteCoordination"]

T = TypeVar("T")

_CREATE = (
    "CREATE TABLE IF NOT EXISTS celeriac_claims (name TEXT NOT NULL, holder TEXT NOT NULL, ends_at REAL NOT NULL,"
    " PRIMARY KEY (name, holder)) WITHOUT ROWID"
)
_SELECT = "SELECT holder, ends_at FROM celeriac_claims WHERE name = ?"
_DELETE = "DELETE FROM celeriac_claims WHERE name = ? AND holder = ?"
_UPSERT = "INSERT OR REPLACE INTO celeriac_claims VALUES (?, ?, ?)"
_SWEEP = "DELETE FROM celeriac_claims WHERE ends_at < ?"
#: Seconds between two sweeps of what ended and was never claimed again.
SWEEP_EVERY = 300.0
_OPTIONS = ("busy_timeout", "synchronous")


class SqliteCoordination(RowCoordination):
    """Rows in a file."""

    def __init__(self, url: str, options: Mapping[str, Any] | None = None) -> None:
        own = {name: value for name, value in (options or {}).items() if name in _OPTIONS}
        settings = parse_url(f"sqlite://{split_scheme(url)[2]}", own)
        self.url = settings.url
        self._database = Database(settings)
        self._is_made = False  # whether the table is known to be there
        self._sweep_at = time.monotonic() + SWEEP_EVERY

    def change(self, names: Sequence[str], work: Callable[[Rows, float], tuple[T, Changes]]) -> T:
        """One transaction."""
        with Transaction(self._database, durable=False) as connection:
            connection.execute(_CREATE)
            rows = {name: dict(connection.execute(_SELECT, (name,)).fetchall()) for name in names}
            answer, changes = work(rows, time.time())
            for (name, holder), at in changes.items():
                if at is None:
                    connection.execute(_DELETE, (name, holder))
                else:
                    connection.execute(_UPSERT, (name, holder, at))
            if time.monotonic() > self._sweep_at:
                self._sweep_at = time.monotonic() + SWEEP_EVERY
                connection.execute(_SWEEP, (time.time(),))
        return answer

    def holders(self, name: str) -> dict[str, float]:
        """Who holds it: a read, which waits for nobody."""
        if self._is_made:
            try:
                now = time.time()
                return {holder: at for holder, at in self._database.read(_SELECT, (name,)) if at > now}
            except OperationalError:
                self._is_made = False  # the file was deleted, and the table with it
        found = super().holders(name)
        self._is_made = True
        return found

    def close(self) -> None:
        """Close this process's connections."""
        self._database.close()
