"""Waiting for very many results in a SQLite file at once.

`SqliteStore.wait` keeps one `Watch` per thread. Whoever waits for ten thousand ids calls `wait` again with what is left,
hundreds of times; asking the table for all ids each time would cost more than the tasks. A watch stays registered
between the calls, so that committers leave the ids of ready results in its inbox, and only these are looked up.

Invariant: every id in `pending` was not ready when last looked at, or stands in the inbox since. If that can't be
assured (the registration lapsed, other ids are asked for), the caller starts a new watch with a look at everything.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable

from celeriac.results.sqlite_database import Database, Transaction
from celeriac.results.sqlite_wakeup import Wakeup, register, unregister

__all__ = ["ALL_RESULTS", "Watch"]

#: What a watch writes among the waiters.
ALL_RESULTS = "results"
#: Seconds for which committers go on filling the inbox after the last call.
KEPT = 5.0
#: Seconds between looks at everything, in case that the inbox has overflowed.
FULL_CHECK = 10.0

_READ = "DELETE FROM celeriac_inbox WHERE address = ? RETURNING payload"


class Watch:
    """One thread's wait for many ids, over several calls."""

    def __init__(self, database: Database, wakeup: Wakeup) -> None:
        self._database = database
        self._wakeup = wakeup
        self.sleeper = wakeup.acquire()
        self.pending: set[str] = set()
        self._checked_at = time.monotonic()
        with Transaction(database, durable=False) as connection:
            _remove_lapsed(connection)
            self._register(connection)

    def covers(self, ids: Iterable[str]) -> bool:
        """Whether this watch knows about all these ids, and needs no full check yet."""
        return time.monotonic() < self._checked_at + FULL_CHECK and self.pending.issuperset(ids)

    def arrived(self) -> set[str] | None:
        """Which of the pending ids became ready since the last call; None if the registration was lost."""
        address = self.sleeper.address
        with Transaction(self._database, durable=False) as connection:
            sql = "SELECT until FROM celeriac_waiters WHERE wants = ? AND address = ?"
            row = connection.execute(sql, (ALL_RESULTS, address)).fetchone()
            if row is None or row[0] <= time.monotonic():
                return None
            self._register(connection)
            arrived = {bytes(payload).decode() for (payload,) in connection.execute(_READ, (address,)).fetchall()}
        arrived &= self.pending
        return arrived

    def _register(self, connection: sqlite3.Connection) -> None:
        register(connection, self.sleeper.address, [ALL_RESULTS], time.monotonic() + KEPT)

    def close(self) -> None:
        """Stop watching."""
        self._wakeup.forget(self.sleeper.address)
        self._wakeup.release(self.sleeper)


def _remove_lapsed(connection: sqlite3.Connection) -> None:
    """Remove watches whose threads have gone without closing them."""
    sql = "SELECT address FROM celeriac_waiters WHERE wants = ? AND until <= ?"
    for (address,) in connection.execute(sql, (ALL_RESULTS, time.monotonic())).fetchall():
        unregister(connection, address)
