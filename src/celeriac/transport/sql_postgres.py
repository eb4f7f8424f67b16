"""PostgreSQL as a broker, by psycopg 3: whole batches in binary arrays, leases by the server's clock, LISTEN and NOTIFY.

Opened by `transport.open` for `postgresql://…`, `postgres://…` and `sqla+postgresql://…`. With the result store on the same
database an outcome is stored, its continuations sent and its message deleted in one transaction.
"""

from __future__ import annotations

import base64
import contextlib
import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from celeriac.errors import OperationalError
from celeriac.message import Action, Delivery, Message
from celeriac.results.base import Record, ResultStore
from celeriac.results.sql import RESULTS, PostgresStore, result_letters, upsert
from celeriac.results.sql_database import Database
from celeriac.results.sql_listener import NOTIFY, Listener, address
from celeriac.results.sql_rows import row_of
from celeriac.results.sql_schema import COLUMNS, NOW, ResultTables, as_columns, quoted
from celeriac.results.sql_settings import parse_url
from celeriac.results.sql_sleeper import Sleeper
from celeriac.timing import Deadline
from celeriac.transport.base import Capabilities, Commit
from celeriac.transport.sql import SqlTransport
from celeriac.transport.sql_enqueue import UserConnection
from celeriac.transport.sql_messages import Row
from celeriac.transport.sql_postgres_messages import PostgresMessages

__all__ = ["PostgresTransport"]

T = TypeVar("T")

#: A NOTIFY carries less than 8000 bytes, as text; a larger payload is left in a table for those told of it.
LETTER_SIZE = 7900
#: Seconds between two looks at the server's clock. If that jumps ahead, nothing is fetched for so long at most.
CLOCK_EVERY = 15.0
#: Seconds for which it stays there.
BROADCAST_KEPT = 60.0


class PostgresTransport(SqlTransport):
    """The broker in PostgreSQL.

    Args:
        url: `postgresql://user:password@host:port/database`, with libpq's parameters and ours (docs/sql.md).
        options: Ours: `timeout`, `schema`, `pool_size`, …
    """

    capabilities = Capabilities(priorities=256, max_bytes=400_000_000, transactional=True)

    def __init__(self, url: str, options: Mapping[str, Any] | None = None) -> None:
        self.settings = parse_url(url, options or {})
        tables = PostgresMessages(self.settings)
        self._database = Database(self.settings, tables)
        self._listener = Listener(self._database)
        super().__init__(self.settings.masked, tables, self._listener)
        self._messages = tables
        self._clock_read_at = -math.inf
        self._results: ResultTables | None = None

    def _run(self, work: Callable[[Any], T], *, durable: bool = True, atomic: bool = True) -> T:
        return self._database.run(work, durable=durable, atomic=atomic)

    def _claim_shares(self, shares: list[tuple[str, int]], limit: int, token: int, lease: float) -> list[Any]:
        now = time.monotonic()
        if now - self._clock_read_at > CLOCK_EVERY:
            self._messages.clock_ahead = self.server_time() - time.monotonic()
            self._clock_read_at = now
        return super()._claim_shares(shares, limit, token, lease)

    def _publish(self, rows: list[Row], wants: set[str]) -> None:
        channels, keys = self._addresses(wants)
        # More than one part of what is large: they have to arrive together.
        is_large = sum(len(row[4]) for row in rows) > 1_000_000
        self._database.run(lambda cursor: self._messages.publish(cursor, rows, channels, keys), atomic=is_large)

    def _addresses(self, wants: set[str]) -> tuple[list[str], list[int]]:
        places = [address(self.settings.schema, want) for want in sorted(wants)]
        return [channel for channel, _ in places], [key for _, key in places]

    def server_time(self) -> float:
        """Seconds since 1970 by the server's clock."""

        def work(cursor: Any) -> float:
            cursor.execute("SELECT extract(epoch FROM clock_timestamp())")
            [(seconds,)] = cursor.fetchall()
            return float(seconds)

        return self._run(work, durable=False, atomic=False)

    def commits_with(self, store: ResultStore) -> bool:
        """True for the PostgreSQL store on the same database."""
        if not isinstance(store, PostgresStore) or store.identity != self._database.identity:
            return False
        if store.settings.schema != self.settings.schema:
            return False  # those who wait for results listen to other channels
        self._results = store.tables  # commit writes to the tables that this store is set to
        self._database.require(store.tables)
        return True

    def _store(self, cursor: Any, records: list[Record]) -> list[bool]:
        assert self._results is not None, "commit is called only where commits_with was true"
        return upsert(cursor, self._results, records)

    def commit(self, commits: Sequence[Commit]) -> list[Delivery]:
        """Settle, store and publish in one transaction; what most tasks need of that, in one statement."""
        if not commits:
            return []
        self._database.ready()
        tables = self._results
        if tables is None or not tables.upsert_gone or not _is_simple(commits):
            return super().commit(commits)
        leases = [(*each.settlement.delivery.token, each.record.id) for each in commits if each.record is not None]
        rows = sorted(row_of(each.record) for each in commits if each.record is not None)
        records = as_columns(rows, tuple(COLUMNS))
        place = address(self.settings.schema, RESULTS)
        done = self._database.run(
            lambda cursor: self._messages.commit(cursor, tables.upsert_gone, leases, records, place), atomic=False
        )
        return [each.settlement.delivery for each in commits if each.settlement.delivery.token not in done]

    def _tell(self, cursor: Any, wants: set[str], ready: list[Record]) -> None:
        channels, keys = self._addresses(wants)
        payloads = [""] * len(channels)
        if ready:
            letters = result_letters(self.settings.schema, ready, [True] * len(ready))
            channels, keys, payloads = channels + letters[0], keys + letters[1], payloads + letters[2]
        if channels:
            cursor.execute(NOTIFY, (channels, keys, payloads))

    def publish_in(self, connection: Any, messages: Sequence[Message]) -> None:
        """Insert messages through the user's connection: they exist if and only if its transaction commits."""
        rows, wants = self._rows(messages)
        self._database.ready()  # the tables, if this is the first use
        user = UserConnection(connection, "postgresql", "PostgreSQL", self.url)
        user.insert(self._messages.enqueue.format(table=quoted(self._messages.found_schema, "celeriac_messages")), rows)
        # Not left out when nobody waits: to know that would need a lock for as long as the user's transaction lasts.
        for channel in self._addresses(wants)[0]:
            user.execute("SELECT pg_notify(:channel, '')", {"channel": channel})

    def broadcast(self, topic: str, payload: bytes) -> None:
        """Notify the topic's channel, if anybody listens."""
        channel, key = address(self.settings.schema, "topic:" + topic)
        text = "=" + base64.b64encode(payload).decode()
        if len(text) <= LETTER_SIZE:
            self._database.execute(NOTIFY, ([channel], [key], [text]), durable=False)
            return
        table = self._messages.broadcasts

        def work(cursor: Any) -> None:
            cursor.execute(f"DELETE FROM {table} WHERE sent_at < {NOW} - {BROADCAST_KEPT}")
            cursor.execute(f"INSERT INTO {table} (sent_at, payload) VALUES ({NOW}, %b) RETURNING id", (payload,))
            [(number,)] = cursor.fetchall()
            cursor.execute(NOTIFY, ([channel], [key], [f"#{number}"]))

        self._database.run(work, durable=False)

    def subscribe(self, topics: Sequence[str]) -> PostgresSubscription:
        """Listen to topics.

        Raises:
            OperationalError: The server can't be reached.
        """
        return PostgresSubscription(self._database, self._listener, self._messages.broadcasts, topics)

    def close(self) -> None:
        """Close the connections of this process."""
        self._listener.close()
        self._database.close()


def _is_simple(commits: Sequence[Commit]) -> bool:
    """Whether each is an ack with a record and nothing to send, each of another task, and all ids fit into one letter."""
    ids = {each.record.id for each in commits if each.record is not None}
    return (
        len(ids) == len(commits)
        and all(each.settlement.action is Action.ACK and not each.messages for each in commits)
        and sum(len(task_id.encode(errors="replace")) + 1 for task_id in ids) < LETTER_SIZE
    )


class PostgresSubscription:
    """A listener to topics. One thread polls it; any may interrupt or close."""

    def __init__(self, database: Database, listener: Listener, table: str, topics: Sequence[str]) -> None:
        self._database = database
        self._table = table
        self._is_interrupted = False
        self._is_closed = False
        self._lock = threading.Lock()
        database.execute("SELECT 1", durable=False)  # says what is wrong, if something is
        self._sleeper: Sleeper = listener.sleeper(["topic:" + topic for topic in topics])
        deadline = Deadline(database.settings.timeout)
        while not self._sleeper.is_told and topics:
            if deadline.passed():
                self._sleeper.close()
                raise OperationalError(f"{database.settings.masked} did not let us listen.")
            self._sleeper.clear()
            self._sleeper.wait(0.05)
        # We may have listened already, for one who has just gone: what was sent before now is not for this one.
        listener.flush()
        self._sleeper.clear()

    def poll(self, wait: float) -> list[tuple[str, bytes]]:
        """What was sent since the last poll; waits for the first."""
        deadline = time.monotonic() + wait
        while not self._is_closed:
            with self._lock:
                letters = [(want.removeprefix("topic:"), self._payload(text)) for want, text in self._sleeper.clear()]
            heard = [(topic, payload) for topic, payload in letters if payload is not None]
            left = deadline - time.monotonic()
            if heard or left <= 0 or self._is_interrupted:
                self._is_interrupted = False
                return heard
            self._sleeper.wait(left)
        return []

    def _payload(self, text: str) -> bytes | None:
        if not text.startswith("#"):
            return base64.b64decode(text[1:])
        rows = self._database.execute(
            f"SELECT payload FROM {self._table} WHERE id = %b", (int(text[1:]),), durable=False
        )
        return bytes(rows[0][0]) if rows else None  # None: we were away for longer than it was kept

    def interrupt(self) -> None:
        """Make a poll that waits return."""
        self._is_interrupted = True
        self._sleeper.wake()

    def close(self) -> None:
        """Stop listening."""
        if not self._is_closed:
            self._is_closed = True
            self._sleeper.wake()
            with contextlib.suppress(OperationalError):
                self._sleeper.close()
