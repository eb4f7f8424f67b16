"""MySQL and MariaDB as a broker: raw statements through SQLAlchemy's engine, leases by the server's clock.

Opened by `transport.open` for `mysql://…`, `mariadb://…` and `sqla+mysql://…`. These servers can't tell of changes, so
whoever waits looks again after 5 ms, then ever later, up to 250 ms; publishers of the same process wake it at once. With
the result store on the same database an outcome is stored, its continuations sent and its message deleted in one
transaction.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from sqlalchemy.engine import Connection

from celeriac.errors import OperationalError
from celeriac.message import Message
from celeriac.results.base import Record, ResultStore
from celeriac.results.sql_core import CoreStore, upsert
from celeriac.results.sql_engine import Engine
from celeriac.results.sql_settings import parse_url
from celeriac.results.sql_sleeper import PollingRouser
from celeriac.transport.sql import SqlTransport
from celeriac.transport.sql_enqueue import UserConnection
from celeriac.transport.sql_messages import Row
from celeriac.transport.sql_mysql_messages import MysqlMessages

__all__ = ["MysqlTransport"]

T = TypeVar("T")

#: Seconds for which broadcasts are kept for those who poll.
BROADCAST_KEPT = 60.0
#: Numbers are given at the insert and seen at the commit, so a lower one may appear after a higher one; by so many seconds.
LATENESS = 5.0
#: Name of the server's lock under which tables are created.
CREATION_LOCK = "celeriac_schema"
#: Releases that can skip locked rows.
_OLDEST = {"MariaDB": (10, 6), "MySQL": (8, 0, 1)}


class EngineCursor:
    """A plain cursor of the driver, with the SQLAlchemy connection whose transaction it is in."""

    __slots__ = ("connection", "execute", "fetchall", "raw")

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.raw: Any = connection.connection.cursor()
        self.execute = self.raw.execute
        self.fetchall = self.raw.fetchall

    @property
    def rowcount(self) -> int:
        """Rows that the last statement found or changed."""
        return int(self.raw.rowcount)


class MysqlTransport(SqlTransport):
    """The broker in MySQL or MariaDB.

    Args:
        url: `mysql://user:password@host:port/database`, with the parameters of the client library and ours (docs/sql.md).
        options: Ours: `timeout`, `schema`, `pool_size`, …
    """

    def __init__(self, url: str, options: Mapping[str, Any] | None = None) -> None:
        self.settings = parse_url(url, options or {})
        self._engine = Engine(self.settings)
        self._messages = MysqlMessages(self.settings.schema)
        super().__init__(self.settings.masked, self._messages, PollingRouser())
        self._store_used: CoreStore | None = None
        self._is_ready = False

    def _run(self, work: Callable[[Any], T], *, durable: bool = True, atomic: bool = True) -> T:
        if not self._is_ready:
            self._prepare()
        return self._engine.run(lambda connection: work(EngineCursor(connection)))

    def _prepare(self) -> None:
        """Look at the server and create what is missing, while no other process does."""

        def work(connection: Connection) -> None:
            cursor = EngineCursor(connection)
            cursor.execute("SELECT version(), @@max_allowed_packet")
            [(version, largest)] = cursor.fetchall()
            _check_version(str(version), self.url)
            self._messages.largest_packet = int(largest)
            cursor.execute("SELECT GET_LOCK(%s, %s)", (CREATION_LOCK, max(1, int(self.settings.timeout / 2))))
            cursor.fetchall()
            try:
                for statement in self._messages.create():
                    cursor.execute(statement)
            finally:
                cursor.execute("SELECT RELEASE_LOCK(%s)", (CREATION_LOCK,))
                cursor.fetchall()

        self._engine.run(work)
        self._is_ready = True

    def _publish(self, rows: list[Row], wants: set[str]) -> None:
        self._run(lambda cursor: self._messages.insert(cursor, rows))

    def server_time(self) -> float:
        """Seconds since 1970 by the server's clock."""

        def work(cursor: Any) -> float:
            cursor.execute("SELECT unix_timestamp(now(6))")
            [(seconds,)] = cursor.fetchall()
            return float(seconds)

        return self._run(work, durable=False, atomic=False)

    def commits_with(self, store: ResultStore) -> bool:
        """True for the store on the same database."""
        if not isinstance(store, CoreStore) or store.database.identity != self._engine.identity:
            return False
        self._store_used = store  # commit writes to the tables that this store is set to
        return True

    def _store(self, cursor: Any, records: list[Record]) -> list[bool]:
        assert self._store_used is not None, "commit is called only where commits_with was true"
        return upsert(cursor.connection, self._store_used.tables, records)

    def commit(self, commits: Any) -> Any:
        """Settle, store and publish in one transaction."""
        store = self._store_used
        if store is not None and not store.tables.is_ready:
            store.database.create(store.tables.ensure)
        lost = super().commit(commits)
        if store is not None:
            store.rouser.rouse("result:" + each.record.id for each in commits if each.record is not None)
        return lost

    def publish_recorded(self, messages: Sequence[Message], records: Any) -> None:
        """Store and publish in one transaction."""
        store = self._store_used
        if store is not None and not store.tables.is_ready:
            store.database.create(store.tables.ensure)
        super().publish_recorded(messages, records)

    def publish_in(self, connection: Any, messages: Sequence[Message]) -> None:
        """Insert messages through the user's connection: they exist if and only if its transaction commits."""
        rows, _ = self._rows(messages)
        if not self._is_ready:
            self._prepare()
        user = UserConnection(connection, "mysql", "MySQL or MariaDB", self.url)
        schema = self.settings.schema or self._engine.url.database or ""
        table = f"`{schema}`.`celeriac_messages`" if schema else self._messages.messages
        user.insert(self._messages.enqueue.format(table=table), rows)

    def broadcast(self, topic: str, payload: bytes) -> None:
        """Leave a payload for those who poll."""
        table, now = self._messages.broadcasts, self._messages.now

        def work(cursor: Any) -> None:
            cursor.execute(f"INSERT INTO {table} (topic, sent_at, payload) VALUES (%s, {now}, %s)", (topic, payload))
            cursor.execute(f"DELETE FROM {table} WHERE sent_at < {now} - {BROADCAST_KEPT} LIMIT 100")

        self._run(work)
        self._rouser.rouse(["topic:" + topic])

    def subscribe(self, topics: Sequence[str]) -> MysqlSubscription:
        """Listen to topics.

        Raises:
            OperationalError: The server can't be reached.
        """
        return MysqlSubscription(self._run, self._rouser, self._messages, topics)

    def close(self) -> None:
        """Close the connections of this process."""
        self._engine.close()


class MysqlSubscription:
    """A listener to topics, by polling. One thread polls it; any may interrupt or close."""

    def __init__(
        self, run: Callable[..., Any], rouser: PollingRouser, tables: MysqlMessages, topics: Sequence[str]
    ) -> None:
        self._run = run
        self._tables = tables
        self._topics = list(topics)
        self._is_interrupted = False
        self._is_closed = False
        self._lock = threading.Lock()
        self._sleeper = rouser.sleeper(["topic:" + topic for topic in topics])
        #: Everything up to here was seen, or there before us; above it only the numbers in `_seen`.
        self._floor = 0
        self._seen = {row_id for row_id, _, _, _ in self._read()}
        if self._seen:
            self._floor = min(self._seen) - 1

    def _read(self) -> list[tuple[int, str, bytes, bool]]:
        """(number, topic, payload, whether older than LATENESS) of what is above the floor."""
        if not self._topics:
            return []
        signs = ", ".join(["%s"] * len(self._topics))
        sql = (
            f"SELECT id, topic, payload, sent_at < {self._tables.now} - {LATENESS} FROM {self._tables.broadcasts}"
            f" WHERE id > %s AND topic IN ({signs}) ORDER BY id"
        )

        def work(cursor: Any) -> list[tuple[int, str, bytes, bool]]:
            cursor.execute(sql, (self._floor, *self._topics))
            return list(cursor.fetchall())

        found: list[tuple[int, str, bytes, bool]] = self._run(work)
        return found

    def _news(self) -> list[tuple[str, bytes]]:
        rows = self._read()
        news = [(topic, bytes(payload)) for row_id, topic, payload, _ in rows if row_id not in self._seen]
        old = [row_id for row_id, _, _, is_old in rows if is_old]
        self._floor = max([self._floor, *old])
        self._seen = {row_id for row_id, _, _, _ in rows if row_id > self._floor}
        return news

    def poll(self, wait: float) -> list[tuple[str, bytes]]:
        """What was sent since the last poll; waits for the first."""
        deadline = time.monotonic() + wait
        while not self._is_closed:
            self._sleeper.clear()
            with self._lock:
                news = self._news()
            left = deadline - time.monotonic()
            if news or left <= 0 or self._is_interrupted:
                self._is_interrupted = False
                self._sleeper.was_busy(bool(news))
                return news
            self._sleeper.wait(left)
        return []

    def interrupt(self) -> None:
        """Make a poll that waits return."""
        self._is_interrupted = True
        self._sleeper.wake()

    def close(self) -> None:
        """Stop listening."""
        self._is_closed = True
        self._sleeper.wake()
        self._sleeper.close()


def _check_version(text: str, url: str) -> None:
    """Refuse a server that can't skip locked rows.

    Raises:
        OperationalError: It can't.
    """
    kind = "MariaDB" if "mariadb" in text.lower() else "MySQL"
    # MariaDB may pretend to be a MySQL of long ago: "5.5.5-10.6.18-MariaDB".
    numbers = text.removeprefix("5.5.5-").split("-")[0].split(".")
    version = tuple(int(number) for number in numbers if number.isdigit())
    if version < _OLDEST[kind]:
        needed = ".".join(map(str, _OLDEST[kind]))
        raise OperationalError(f"{url} is {kind} {text}; as a broker it has to be {needed} or newer (SKIP LOCKED).")
