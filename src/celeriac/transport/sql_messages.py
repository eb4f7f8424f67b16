"""The broker's tables in a SQL server, and those statements on them that PostgreSQL and MySQL have in common.

`transport.sql` calls it inside its transactions; `sql_postgres` and `sql_mysql` add what a message goes through each time
(insert, claim, settle), each in the best words of its server. Messages are rows that are ready, on lease or delayed, as in
the SQLite driver. Moments are seconds since 1970 by the server's clock, so that the clocks of workers don't matter.

Invariant: a lease is the pair (id, token), and whoever presents another token changes nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import msgspec

from celeriac.message import DeadLetter, Message
from celeriac.routing import Queue
from celeriac.transport.base import QueueSize
from celeriac.transport.binding import Binding, bindings_of, expired, queues_for
from celeriac.transport.packing import unpack

__all__ = ["Cursor", "MessageTables", "Row", "Token"]

#: (id, token) of a lease.
Token = tuple[int, int]
#: (queue, priority, due moment or None, head, body) of a message to insert.
Row = tuple[str, int, float | None, bytes, bytes]

_DEAD = "id, queue, reason, died_at, deliveries, starts, head, body"


class Cursor(Protocol):
    """What psycopg's and PyMySQL's cursors share."""

    @property
    def rowcount(self) -> int:
        """Rows that the last statement found or changed."""

    def execute(self, query: Any, params: Any = None, /) -> Any:
        """Run one statement."""

    def fetchall(self) -> Sequence[Any]:
        """Rows of the last statement."""


class MessageTables:
    """Statements. Subclasses say how a name is quoted, what the time is, and everything a message passes through."""

    #: The server's clock as seconds since 1970.
    now = ""
    #: How to insert an exchange, and a binding, that may be there already: with {table} and the values as %s.
    put_exchange = put_binding = ""
    #: What a dead letter keeps of a message besides its counts.
    copied = "queue, priority, head, body"
    #: How to insert a message through a user's connection, with named parameters.
    enqueue = (
        "INSERT INTO {table} (state, queue, priority, due_at, head, body)"
        " VALUES (:state, :queue, :priority, :due_at, :head, :body)"
    )

    def __init__(self, messages: str, dead_letters: str, exchanges: str, bindings: str, broadcasts: str) -> None:
        self.messages = messages
        self.dead_letters = dead_letters
        self.exchanges = exchanges
        self.bindings = bindings
        self.broadcasts = broadcasts

    # what a message goes through: each server in its own words

    def insert(self, cursor: Cursor, rows: Sequence[Row]) -> None:
        """Put messages in."""
        raise AssertionError("said by the server's own class")

    def claim(
        self, cursor: Cursor, shares: Sequence[tuple[str, int]], limit: int, token: int, lease: float
    ) -> list[Any]:
        """Lease up to `limit` messages, of each queue up to its share.

        Returns:
            Rows of queue, -priority, id, head, body, deliveries, starts.
        """
        raise AssertionError("said by the server's own class")

    def promote(self, cursor: Cursor, limit: int) -> tuple[int, float | None]:
        """Make ready what is due or whose lease is over; how many, and seconds until the next."""
        raise AssertionError("said by the server's own class")

    def ack(self, cursor: Cursor, tokens: Sequence[Token]) -> set[Token]:
        """Delete; returns the leases that were valid. So do the next three."""
        raise AssertionError("said by the server's own class")

    def give_back(self, cursor: Cursor, rows: Sequence[tuple[int, int, float | None, int]]) -> set[Token]:
        """Back to the queue: (id, token, due moment or None, starts)."""
        raise AssertionError("said by the server's own class")

    def bury(self, cursor: Cursor, rows: Sequence[tuple[int, int, str, str, int]]) -> set[Token]:
        """To the dead letters: (id, token, task id, reason, starts)."""
        raise AssertionError("said by the server's own class")

    def extend(self, cursor: Cursor, tokens: Sequence[Token], lease: float) -> set[Token]:
        """Lease anew, from now."""
        raise AssertionError("said by the server's own class")

    def start(self, cursor: Cursor, rows: Sequence[tuple[int, int, int]]) -> None:
        """Write the number of starts: (id, token, starts)."""
        raise AssertionError("said by the server's own class")

    def size(self, cursor: Cursor, queue: str) -> QueueSize:
        """Count a queue's messages."""
        raise AssertionError("said by the server's own class")

    def purge(self, cursor: Cursor, queue: str) -> int:
        """Delete what is not on lease."""
        raise AssertionError("said by the server's own class")

    # queues

    def delete(self, cursor: Cursor, queue: str) -> int:
        """Delete a queue's messages and bindings."""
        cursor.execute(f"DELETE FROM {self.bindings} WHERE queue = %s", (queue,))
        deleted = 0
        for state in (0, 1, 2):
            cursor.execute(f"DELETE FROM {self.messages} WHERE queue = %s AND state = {state}", (queue,))
            deleted += cursor.rowcount
        return deleted

    # exchanges

    def declare(self, cursor: Cursor, queues: Iterable[Queue]) -> None:
        """Write exchanges and bindings. Queues themselves need no declaration."""
        now = 0.0
        for queue in queues:
            if queue.life is not None and not now:
                cursor.execute(f"SELECT {self.now}")
                now = float(cursor.fetchall()[0][0])
            made = bindings_of(queue, now)
            if queue.life is not None:
                self._renew(cursor, queue.name, {exchange for exchange, _ in made})
            for exchange, binding in made:
                cursor.execute(self.put_exchange.format(table=self.exchanges), (exchange, binding.exchange_type))
                arguments = msgspec.msgpack.encode(binding.arguments, order="sorted")
                values = (exchange, binding.queue, binding.routing_key, arguments)
                # The four of them are longer than a key of MySQL may be.
                digest = hashlib.blake2b(msgspec.msgpack.encode(values), digest_size=16).hexdigest()
                cursor.execute(self.put_binding.format(table=self.bindings), (digest, *values))

    def _renew(self, cursor: Cursor, queue: str, exchanges: set[str]) -> None:
        """Make room for new bindings of a queue that expires, and remove others that have expired."""
        cursor.execute(f"DELETE FROM {self.bindings} WHERE queue = %s", (queue,))
        for exchange in exchanges:
            for name in expired(*self._bindings_of(cursor, exchange)):
                self.delete(cursor, name)

    def _bindings_of(self, cursor: Cursor, exchange: str) -> tuple[list[Binding], float]:
        """The bindings of an exchange, and the moment."""
        cursor.execute(
            f"SELECT queue, type, routing_key, arguments, {self.now} FROM {self.bindings}"
            f" JOIN {self.exchanges} ON name = exchange WHERE exchange = %s ORDER BY queue",
            (exchange,),
        )
        rows = cursor.fetchall()
        made = [Binding(queue, kind, key, msgspec.msgpack.decode(given)) for queue, kind, key, given, _ in rows]
        return made, float(rows[0][4]) if rows else 0.0

    def queues_for(self, cursor: Cursor, message: Message, *, is_broadcast: bool) -> list[str]:
        """Names of the queues that get a message."""
        bindings, now = self._bindings_of(cursor, message.exchange)
        return queues_for(message, bindings, now=now, is_broadcast=is_broadcast)

    # dead letters

    def listed(self, cursor: Cursor, limit: int, queue: str | None) -> list[DeadLetter]:
        """Dead letters, newest first."""
        where, parameters = ("WHERE queue = %s ", [queue]) if queue is not None else ("", [])
        cursor.execute(
            f"SELECT {_DEAD} FROM {self.dead_letters} {where}ORDER BY id DESC LIMIT {int(limit)}", parameters
        )
        return [_dead_letter(row) for row in cursor.fetchall()]

    def found(self, cursor: Cursor, key: str) -> DeadLetter | None:
        """The dead letter with this key, else the newest one of this task id."""
        for column, value in (("id", _number(key)), ("task_id", key)):
            cursor.execute(
                f"SELECT {_DEAD} FROM {self.dead_letters} WHERE {column} = %s ORDER BY id DESC LIMIT 1", (value,)
            )
            rows = cursor.fetchall()
            if rows:
                return _dead_letter(rows[0])
        return None

    def replay(self, cursor: Cursor, keys: Sequence[str]) -> list[str]:
        """Put dead letters back with counts at zero; returns the queue of each."""
        queues = []
        for row_id, queue in self._letters(cursor, keys):
            cursor.execute(
                f"INSERT INTO {self.messages} (state, {self.copied})"
                f" SELECT 0, {self.copied} FROM {self.dead_letters} WHERE id = %s",
                (row_id,),
            )
            cursor.execute(f"DELETE FROM {self.dead_letters} WHERE id = %s", (row_id,))
            queues.append(queue)
        return queues

    def discard(self, cursor: Cursor, keys: Sequence[str]) -> int:
        """Delete dead letters; returns how many there were."""
        letters = self._letters(cursor, keys)
        for row_id, _ in letters:
            cursor.execute(f"DELETE FROM {self.dead_letters} WHERE id = %s", (row_id,))
        return len(letters)

    def _letters(self, cursor: Cursor, keys: Sequence[str]) -> list[tuple[int, str]]:
        """(id, queue) of the dead letters that keys or task ids name, locked."""
        found: dict[int, str] = {}
        for key in keys:
            # A key names one letter, even if it should be another's task id as well.
            for column, value in (("id", _number(key)), ("task_id", key)):
                sql = f"SELECT id, queue FROM {self.dead_letters} WHERE {column} = %s ORDER BY id FOR UPDATE"
                cursor.execute(sql, (value,))
                rows = cursor.fetchall()
                found.update(rows)
                if rows:
                    break
        return list(found.items())


def _number(key: str) -> int:
    return int(key) if key.isascii() and key.isdigit() and len(key) < 19 else -1


def _dead_letter(row: Sequence[Any]) -> DeadLetter:
    row_id, queue, reason, died_at, deliveries, starts, head, body = row
    return DeadLetter(
        key=str(row_id), message=unpack(bytes(head), bytes(body), queue), queue=queue, reason=reason,
        died_at=float(died_at), deliveries=deliveries, starts=starts,
    )  # fmt: skip
