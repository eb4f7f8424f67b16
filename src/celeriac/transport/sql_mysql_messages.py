"""What a message goes through in MySQL and MariaDB: the statements, each for a whole batch, and the tables they work on.

`sql_mysql.MysqlTransport` calls it. There is no UPDATE … RETURNING and there are no partial indexes, so a claim locks rows
by SELECT … FOR UPDATE SKIP LOCKED and then updates them, and the state is the first column of each index: whatever number
of messages is delayed or on lease, a claim reads as many entries as it takes. Needs MariaDB 10.6 or MySQL 8.0.1, which
can skip what is locked; InnoDB; and READ COMMITTED, so that no claim locks the gaps in which others insert.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from celeriac.errors import MessageTooLarge
from celeriac.transport.base import QueueSize
from celeriac.transport.sql_messages import Cursor, MessageTables, Row, Token

__all__ = ["MysqlMessages"]

#: Bytes of heads and bodies that one INSERT carries at most, besides the server's own limit.
CHUNK_BYTES = 4_000_000

# moment: when the lease ends, or when the message is due, as the state says. urgency: the negative priority, since not every
# release keeps an index in descending order.
_CREATE = (
    """
    CREATE TABLE IF NOT EXISTS {messages} (
        id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY,
        state TINYINT NOT NULL,
        queue VARCHAR(255) NOT NULL,
        urgency SMALLINT NOT NULL,
        moment DOUBLE,
        token BIGINT NOT NULL DEFAULT 0,
        deliveries INT NOT NULL DEFAULT 0,
        starts INT NOT NULL DEFAULT 0,
        head LONGBLOB NOT NULL,
        body LONGBLOB NOT NULL,
        KEY celeriac_messages_ready (state, queue, urgency, id),
        KEY celeriac_messages_moment (state, moment)
    ) {options}
    """,
    """
    CREATE TABLE IF NOT EXISTS {dead_letters} (
        id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY,
        task_id VARCHAR(255) NOT NULL,
        queue VARCHAR(255) NOT NULL,
        urgency SMALLINT NOT NULL,
        reason LONGTEXT NOT NULL,
        died_at DOUBLE NOT NULL,
        deliveries INT NOT NULL,
        starts INT NOT NULL,
        head LONGBLOB NOT NULL,
        body LONGBLOB NOT NULL,
        KEY celeriac_dead_letters_task_id (task_id),
        KEY celeriac_dead_letters_queue (queue, id)
    ) {options}
    """,
    "CREATE TABLE IF NOT EXISTS {exchanges} (name VARCHAR(255) NOT NULL PRIMARY KEY, type VARCHAR(255) NOT NULL) {options}",
    """
    CREATE TABLE IF NOT EXISTS {bindings} (
        digest CHAR(32) NOT NULL PRIMARY KEY,
        exchange VARCHAR(255) NOT NULL,
        queue VARCHAR(255) NOT NULL,
        routing_key VARCHAR(255) NOT NULL,
        arguments LONGBLOB NOT NULL,
        KEY celeriac_bindings_exchange (exchange),
        KEY celeriac_bindings_queue (queue)
    ) {options}
    """,
    """
    CREATE TABLE IF NOT EXISTS {broadcasts} (
        id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY,
        topic VARCHAR(255) NOT NULL,
        sent_at DOUBLE NOT NULL,
        payload LONGBLOB NOT NULL,
        KEY celeriac_broadcasts_sent_at (sent_at)
    ) {options}
    """,
)
_OPTIONS = "ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin"


class MysqlMessages(MessageTables):
    """The statements, for the schema (database) of one broker."""

    now = "UNIX_TIMESTAMP(NOW(6))"
    put_exchange = "INSERT INTO {table} (name, type) VALUES (%s, %s) ON DUPLICATE KEY UPDATE type = VALUES(type)"
    put_binding = (
        "INSERT INTO {table} (digest, exchange, queue, routing_key, arguments) VALUES (%s, %s, %s, %s, %s)"
        " ON DUPLICATE KEY UPDATE digest = digest"
    )
    copied = "queue, urgency, head, body"
    enqueue = (
        "INSERT INTO {table} (state, queue, urgency, moment, head, body)"
        " VALUES (:state, :queue, -:priority, :due_at, :head, :body)"
    )

    def __init__(self, schema: str) -> None:
        prefix = f"`{schema}`." if schema else ""
        kinds = ("messages", "dead_letters", "exchanges", "bindings", "broadcasts")
        super().__init__(**{kind: f"{prefix}`celeriac_{kind}`" for kind in kinds})
        #: The server's limit for one statement, once it is known.
        self.largest_packet = 16_777_216

    def create(self) -> list[str]:
        """Statements that create what is missing."""
        names = {
            "messages": self.messages, "dead_letters": self.dead_letters, "exchanges": self.exchanges,
            "bindings": self.bindings, "broadcasts": self.broadcasts, "options": _OPTIONS,
        }  # fmt: skip
        return [statement.format(**names) for statement in _CREATE]

    def insert(self, cursor: Cursor, rows: Sequence[Row]) -> None:
        """Put messages in."""
        row_sql = f"(IF(%s > {self.now}, 2, 0), %s, %s, %s, %s, %s)"
        for part in self._chunks(rows):
            sql = f"INSERT INTO {self.messages} (state, queue, urgency, moment, head, body) VALUES " + ", ".join(
                [row_sql] * len(part)
            )
            cursor.execute(
                sql,
                [
                    value
                    for queue, priority, due_at, head, body in part
                    for value in (due_at, queue, -priority, due_at, head, body)
                ],
            )

    def _chunks(self, rows: Sequence[Row]) -> Iterable[list[Row]]:
        part: list[Row] = []
        size = 0
        for row in rows:
            # In the worst case each byte is written as two.
            length = 2 * (len(row[3]) + len(row[4])) + 1000
            if length > self.largest_packet:
                raise MessageTooLarge(
                    f"A message of {len(row[4])} bytes is too large for this server (max_allowed_packet ="
                    f" {self.largest_packet}): pass a reference to the data, or raise that limit."
                )
            if part and (size + length > min(self.largest_packet, CHUNK_BYTES) or len(part) >= 1000):
                yield part
                part, size = [], 0
            part.append(row)
            size += length
        if part:
            yield part

    def claim(
        self, cursor: Cursor, shares: Sequence[tuple[str, int]], limit: int, token: int, lease: float
    ) -> list[Any]:
        """Lease up to `limit` messages."""
        found: list[Any] = []
        for queue, share in shares:
            cursor.execute(
                f"SELECT queue, urgency, id, head, body, deliveries + 1, starts FROM {self.messages}"
                f" FORCE INDEX (celeriac_messages_ready) WHERE state = 0 AND queue = %s ORDER BY urgency, id"
                f" LIMIT {min(share, limit - len(found))} FOR UPDATE SKIP LOCKED",
                (queue,),
            )
            found += cursor.fetchall()
            if len(found) >= limit:
                break
        if found:
            cursor.execute(
                f"UPDATE {self.messages} SET state = 1, token = %s, moment = {self.now} + %s, deliveries = deliveries + 1"
                f" WHERE id IN ({_list(row[2] for row in found)})",
                (token, lease),
            )
        return found

    def promote(self, cursor: Cursor, limit: int) -> tuple[int, float | None]:
        """Make ready what is due or whose lease is over. The lease's token stays: see the PostgreSQL statement."""
        first = f"(SELECT moment FROM {self.messages} WHERE state = {{}} ORDER BY moment LIMIT 1) - {self.now}"
        cursor.execute(f"SELECT {first.format(1)}, {first.format(2)}")
        [untils] = cursor.fetchall()
        moved = 0
        for state, until in zip((1, 2), untils, strict=True):
            if until is None or until > 0:
                continue
            cursor.execute(
                f"SELECT id FROM {self.messages} FORCE INDEX (celeriac_messages_moment)"
                f" WHERE state = {state} AND moment <= {self.now} ORDER BY moment LIMIT {limit} FOR UPDATE SKIP LOCKED"
            )
            ids = [row_id for (row_id,) in cursor.fetchall()]
            if ids:
                cursor.execute(f"UPDATE {self.messages} SET state = 0 WHERE id IN ({_list(ids)})")
                moved += len(ids)
        known = [float(until) for until in untils if until is not None]
        return moved, min(known) if known else None

    def _valid(self, cursor: Cursor, tokens: Iterable[Token]) -> set[Token]:
        """Which leases are valid; their rows are locked."""
        wanted = set(tokens)
        ids = _list(sorted(row_id for row_id, _ in wanted))
        cursor.execute(f"SELECT id, token FROM {self.messages} WHERE id IN ({ids}) ORDER BY id FOR UPDATE")
        return wanted & {(row_id, token) for row_id, token in cursor.fetchall()}

    def ack(self, cursor: Cursor, tokens: Sequence[Token]) -> set[Token]:
        """Delete."""
        valid = self._valid(cursor, tokens)
        self._delete(cursor, valid)
        return valid

    def _delete(self, cursor: Cursor, tokens: set[Token]) -> None:
        if tokens:
            cursor.execute(f"DELETE FROM {self.messages} WHERE id IN ({_list(row_id for row_id, _ in tokens)})")

    def give_back(self, cursor: Cursor, rows: Sequence[tuple[int, int, float | None, int]]) -> set[Token]:
        """Back to the queue."""
        valid = self._valid(cursor, (row[:2] for row in rows))
        alike: dict[tuple[float | None, int], list[int]] = defaultdict(list)
        for row_id, token, due_at, starts in rows:
            if (row_id, token) in valid:
                alike[due_at, starts].append(row_id)
        for (due_at, starts), ids in alike.items():
            cursor.execute(
                f"UPDATE {self.messages} SET state = IF(%s > {self.now}, 2, 0), moment = %s, starts = %s, token = 0"
                f" WHERE id IN ({_list(ids)})",
                (due_at, due_at, starts),
            )
        return valid

    def bury(self, cursor: Cursor, rows: Sequence[tuple[int, int, str, str, int]]) -> set[Token]:
        """To the dead letters."""
        valid = self._valid(cursor, (row[:2] for row in rows))
        for row_id, token, task_id, reason, starts in rows:
            if (row_id, token) in valid:
                text = reason.encode("utf-8", "backslashreplace").decode()
                name = task_id.encode("utf-8", "backslashreplace").decode()[:255]
                cursor.execute(
                    f"INSERT INTO {self.dead_letters}"
                    " (task_id, queue, urgency, reason, died_at, deliveries, starts, head, body)"
                    f" SELECT %s, queue, urgency, %s, {self.now}, deliveries, GREATEST(starts, %s), head, body"
                    f" FROM {self.messages} WHERE id = %s",
                    (name, text, starts, row_id),
                )
        self._delete(cursor, valid)
        return valid

    def extend(self, cursor: Cursor, tokens: Sequence[Token], lease: float) -> set[Token]:
        """Lease anew, from now."""
        valid = self._valid(cursor, tokens)
        if valid:
            ids = _list(row_id for row_id, _ in valid)
            sql = f"UPDATE {self.messages} SET state = 1, moment = {self.now} + %s WHERE id IN ({ids})"
            cursor.execute(sql, (lease,))
        return valid

    def start(self, cursor: Cursor, rows: Sequence[tuple[int, int, int]]) -> None:
        """Write the number of starts."""
        valid = self._valid(cursor, (row[:2] for row in rows))
        alike: dict[int, list[int]] = defaultdict(list)
        for row_id, token, starts in rows:
            if (row_id, token) in valid:
                alike[starts].append(row_id)
        for starts, ids in alike.items():
            cursor.execute(f"UPDATE {self.messages} SET starts = %s WHERE id IN ({_list(ids)})", (starts,))

    def size(self, cursor: Cursor, queue: str) -> QueueSize:
        """Count a queue's messages."""
        count = f"(SELECT count(*) FROM {self.messages} WHERE queue = %s AND state = "
        cursor.execute(
            f"SELECT {count} 0), {count} 1 AND moment > {self.now}), {count} 1 AND moment <= {self.now}),"
            f" {count} 2 AND moment > {self.now}), {count} 2 AND moment <= {self.now})",
            (queue,) * 5,
        )
        [(ready, leased, over, delayed, due)] = cursor.fetchall()
        return QueueSize(ready=ready + over + due, delayed=delayed, leased=leased)

    def purge(self, cursor: Cursor, queue: str) -> int:
        """Delete what is not on lease."""
        deleted = 0
        for condition in ("state = 0", "state = 2", f"state = 1 AND moment <= {self.now}"):
            cursor.execute(f"DELETE FROM {self.messages} WHERE queue = %s AND {condition}", (queue,))
            deleted += cursor.rowcount
        return deleted


def _list(ids: Iterable[int]) -> str:
    """Numbers for IN (…); they come from the server and are numbers, so they can stand in the text."""
    return ", ".join(map(str, ids))
