"""The default broker: one SQLite file, shared by any number of processes of one machine.

Opened by `transport.open` for `sqlite:///…`. Messages are rows that are ready, on lease or delayed; a partial index per
state lets a claim read no more entries than it takes. Every verb is one short write transaction, so a process that is
killed leaves nothing half-done.

Invariants: a lease is the pair (row, token), and whoever presents another token changes nothing; leases run in
monotonic time (a jump of the clock ends none), due moments in wall time; sleepers are woken through
`sqlite_wakeup`, never by polling.
"""

from __future__ import annotations

import math
import os
import sqlite3
import time
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from celeriac.errors import ImproperlyConfigured, MessageTooLarge
from celeriac.message import Action, DeadLetter, Delivery, Message, Settlement
from celeriac.results.base import Record, ResultStore
from celeriac.results.sqlite import SqliteStore, result_waiters
from celeriac.results.sqlite_database import Database, Transaction, parse_url
from celeriac.results.sqlite_record import upsert
from celeriac.results.sqlite_wakeup import RECHECK, Wakeup, register, unregister
from celeriac.routing import Queue
from celeriac.timing import SYSTEM_CLOCK, Clock
from celeriac.transport import sqlite_dead_letters as dead
from celeriac.transport.base import Capabilities, Commit, QueueSize, Subscription
from celeriac.transport.binding import Binding, bindings_of, broadcast_exchanges, expired, queues_for
from celeriac.transport.mailbox import TopicMail
from celeriac.transport.packing import WRITE_ERRORS, head_of, unpack, unwritable, write_head
from celeriac.transport.sql_enqueue import UserConnection
from celeriac.transport.sqlite_group import GroupCommit, Row
from celeriac.transport.sqlite_subscription import SqliteSubscription, topic_want

__all__ = ["SqliteTransport"]

#: SQLite's limit for a row is 10**9 bytes; the rest is left for the head.
MAX_BYTES = 950_000_000
#: Messages that one fetch makes ready or sorts in, so that a great many at once don't hold the lock long.
PROMOTED_AT_ONCE = 1000

_INSERT = "INSERT INTO celeriac_messages (state, queue, priority, due_at, head, body) VALUES (?, ?, ?, ?, ?, ?)"
_INSERT_INCOMING = "INSERT INTO celeriac_incoming (queue, head, body) VALUES (?, ?, ?)"
_LAST_INCOMING = "SELECT max(id), count(*) FROM (SELECT id FROM celeriac_incoming ORDER BY id LIMIT ?)"
_SORT_IN = """
INSERT INTO celeriac_messages (state, queue, priority, head, body)
SELECT 0, queue, 0, head, body FROM celeriac_incoming WHERE id <= ? ORDER BY id
"""
# Of one queue's messages among the oldest incoming: the last id, how many, and how many are of other queues.
_FIRST_INCOMING = """
SELECT max(id), count(*), coalesce(sum(queue <> ?), 0) FROM (SELECT id, queue FROM celeriac_incoming ORDER BY id LIMIT ?)
"""
_TAKE_INCOMING = """
INSERT INTO celeriac_messages (state, queue, priority, head, body, token, lease_until, deliveries)
SELECT 1, queue, 0, head, body, ?, ?, 1 FROM celeriac_incoming WHERE id <= ? ORDER BY id
RETURNING 0, id, head, body, deliveries, starts
"""
_REMOVE_INCOMING = "DELETE FROM celeriac_incoming WHERE id <= ?"
_WAITERS = "SELECT address FROM celeriac_waiters WHERE wants = ?"
# A lease that is over becomes ready again but keeps its token: until another worker claims the message, the one that
# came late can still settle it.
_PROMOTE_LEASED = """
UPDATE celeriac_messages SET state = 0 WHERE id IN
    (SELECT id FROM celeriac_messages WHERE state = 1 AND lease_until <= ? ORDER BY lease_until LIMIT ?)
"""
_PROMOTE_DELAYED = """
UPDATE celeriac_messages SET state = 0 WHERE id IN
    (SELECT id FROM celeriac_messages WHERE state = 2 AND due_at <= ? ORDER BY due_at LIMIT ?)
"""
_CLAIM = """
UPDATE celeriac_messages SET state = 1, token = ?, lease_until = ?, deliveries = deliveries + 1 WHERE id IN
    (SELECT id FROM celeriac_messages WHERE queue = ? AND state = 0 ORDER BY priority DESC, id LIMIT ?)
RETURNING -priority, id, head, body, deliveries, starts
"""
_NEXT_LEASE_END = "SELECT min(lease_until) FROM celeriac_messages WHERE state = 1"
_NEXT_DUE = "SELECT min(due_at) FROM celeriac_messages WHERE state = 2"
_ACK = """
DELETE FROM celeriac_messages WHERE id IN (SELECT value FROM json_each(?)) AND token = ? RETURNING id
"""
_GIVE_BACK = """
UPDATE celeriac_messages SET state = ?, due_at = ?, starts = ?, token = 0, lease_until = NULL WHERE id = ? AND token = ?
"""
_EXTEND = "UPDATE celeriac_messages SET state = 1, lease_until = ? WHERE id = ? AND token = ?"
_START = "UPDATE celeriac_messages SET starts = ? WHERE id = ? AND token = ?"
_SIZES = """
SELECT (SELECT count(*) FROM celeriac_messages WHERE state = 0 AND queue = :queue),
       (SELECT count(*) FROM celeriac_incoming WHERE queue = :queue),
       (SELECT count(*) FROM celeriac_messages WHERE state = 1 AND queue = :queue AND lease_until > :monotonic),
       (SELECT count(*) FROM celeriac_messages WHERE state = 1 AND queue = :queue AND lease_until <= :monotonic),
       (SELECT count(*) FROM celeriac_messages WHERE state = 2 AND queue = :queue AND due_at > :now),
       (SELECT count(*) FROM celeriac_messages WHERE state = 2 AND queue = :queue AND due_at <= :now)
"""
_BINDINGS = """
SELECT queue, type, routing_key, arguments FROM celeriac_bindings JOIN celeriac_exchanges ON name = exchange
WHERE exchange = ? ORDER BY queue
"""
_PUT_EXCHANGE = """
INSERT INTO celeriac_exchanges (name, type) VALUES (?, ?)
ON CONFLICT (name) DO UPDATE SET type = excluded.type WHERE type <> excluded.type
"""
_PUT_BINDING = """
INSERT OR IGNORE INTO celeriac_bindings (exchange, queue, routing_key, arguments) VALUES (?, ?, ?, ?)
"""


class SqliteTransport(TopicMail):
    """The broker in a SQLite file. See `transport.base.Transport` for the verbs.

    Args:
        url: `sqlite:///relative.db` or `sqlite:////absolute.db`.
        options: `synchronous` ("FULL" or "NORMAL") and `busy_timeout` (seconds).
        clock: For tests.
    """

    capabilities = Capabilities(priorities=256, max_bytes=MAX_BYTES, transactional=True)

    def __init__(self, url: str, options: Mapping[str, Any] | None = None, *, clock: Clock = SYSTEM_CLOCK) -> None:
        self._database = Database(parse_url(url, options or {}))
        self._wakeup = Wakeup(self._database)
        # Commits that don't wait for the disk are done sooner than threads can be woken.
        waits_for_disk = self._database.settings.synchronous == "FULL"
        self._group = GroupCommit(self._write) if waits_for_disk else None
        self._clock = clock
        self._broadcasts: set[str] = set()
        self._turn = 0
        self.url = url
        self.path = self._database.path

    def publish(self, messages: Sequence[Message]) -> None:
        """Commit messages to the file, then wake those who wait for them."""
        rows, wants = self._rows(messages)
        if not rows:
            return
        group = self._group
        if group is not None and (group.is_active or self._database.write_lock.locked()):
            group.publish(rows, wants)
        else:
            self._write(rows, wants)

    def publish_recorded(self, messages: Sequence[Message], records: Sequence[Record]) -> None:
        """Store and publish in one transaction."""
        rows, wants = self._rows(messages)
        self._write(rows, wants, records)

    def publish_in(self, connection: Any, messages: Sequence[Message]) -> None:
        """Insert messages through the user's connection: they exist if and only if its transaction commits.

        Sleepers find them within RECHECK seconds of the commit, of which nobody tells them.
        """
        rows, _ = self._rows(messages)
        user = UserConnection(connection, "sqlite", "SQLite", self.url)
        if not user.rows("SELECT 1 FROM sqlite_master WHERE name = 'celeriac_messages'"):
            self._database.handle()  # makes the tables, unless the user's transaction has locked the file
        files = [os.path.realpath(file) for _, name, file in user.rows("PRAGMA database_list") if name == "main"]
        if files != [self.path]:
            raise ImproperlyConfigured(f"connection= is on {files[0]!r}, but the broker is the file {self.path!r}.")
        for sql, parameters in rows:
            user.rows(sql, parameters)

    def _write(self, rows: list[Row], wants: set[str], records: Sequence[Record] = ()) -> None:
        addresses = []
        with Transaction(self._database) as connection:
            if records:
                upsert(connection, records, self._clock.now())
            for sql, parameters in rows:
                connection.execute(sql, parameters)
            for want in wants:
                addresses += connection.execute(_WAITERS, (want,)).fetchall()
        if addresses:
            self._wakeup.wake(addresses)

    def _rows(self, messages: Sequence[Message]) -> tuple[list[Row], set[str]]:
        """Rows to insert, and what to look up among the waiters."""
        now = self._clock.now()
        rows: list[Row] = []
        wants: set[str] = set()
        for message in messages:
            if len(message.body) > MAX_BYTES:
                raise MessageTooLarge(
                    f"Message {message.id!r} has {len(message.body)} bytes; SQLite takes {MAX_BYTES}."
                )
            eta = message.eta
            delayed = eta is not None and eta > now
            try:
                head = write_head(head_of(message))
            except WRITE_ERRORS as exc:
                raise unwritable(message, exc) from exc
            for queue in (message.queue,) if message.queue else self._queues_for(message):
                if delayed or message.priority:
                    state = 2 if delayed else 0
                    rows.append((_INSERT, (state, queue, message.priority or 0, eta, head, message.body)))
                else:
                    rows.append((_INSERT_INCOMING, (queue, head, message.body)))
                # A sleeper looks again within RECHECK seconds in any case; no need to tell it of what comes later.
                if eta is None or eta < now + RECHECK:
                    wants.add("queue:" + queue)
        return rows, wants

    def _queues_for(self, message: Message) -> list[str]:
        found = self._database.read(_BINDINGS, (message.exchange,)) if message.exchange else []
        return queues_for(
            message,
            [_binding(row) for row in found],
            now=self._clock.now(),
            is_broadcast=message.exchange in self._broadcasts,
        )

    def fetch(self, queues: Sequence[str], limit: int, wait: float, lease: float) -> list[Delivery]:
        """Lease messages; while there are none, sleep until one is committed or due, or `wait` is over."""
        if wait <= 0:
            deliveries, pause = self._claim(queues, limit, lease, "")
            while not deliveries and pause <= 0:
                deliveries, pause = self._claim(queues, limit, lease, "")
            return deliveries
        deadline = time.monotonic() + wait
        interrupts = self._wakeup.interrupts
        sleeper = self._wakeup.acquire()
        try:
            while True:
                deliveries, pause = self._claim(queues, limit, lease, sleeper.address)
                if deliveries:
                    return deliveries
                left = deadline - time.monotonic()
                if (left <= 0 and pause > 0) or self._wakeup.interrupts != interrupts:
                    self._wakeup.forget(sleeper.address)
                    return []
                if pause > 0:
                    sleeper.wait(min(left, pause))
        finally:
            self._wakeup.release(sleeper)

    def _claim(self, queues: Sequence[str], limit: int, lease: float, address: str) -> tuple[list[Delivery], float]:
        """One attempt. Finding nothing, registers `address` as a waiter; also returns how long it may sleep.

        A pause of 0 means that there is more to sort in: try again at once.
        """
        now, monotonic = self._clock.now(), self._clock.monotonic()
        deadline = monotonic + lease
        token = int.from_bytes(os.urandom(7)) + 1  # not from `random`, which programs seed
        with Transaction(self._database, durable=False) as connection:
            connection.execute(_PROMOTE_LEASED, (monotonic, PROMOTED_AT_ONCE))
            connection.execute(_PROMOTE_DELAYED, (now, PROMOTED_AT_ONCE))
            claimed, has_more = self._claim_rows(connection, queues, limit, token, deadline)
            pause = RECHECK
            if address and any(rows for _, rows in claimed):
                unregister(connection, address)
            elif address:
                register(connection, address, ["queue:" + queue for queue in queues])
                pause = self._until_next(connection, now, monotonic)
            if has_more:
                pause = 0.0
        return [_delivery(queue, row, token, deadline) for queue, rows in claimed for row in rows], pause

    def _claim_rows(
        self, connection: sqlite3.Connection, queues: Sequence[str], limit: int, token: int, deadline: float
    ) -> tuple[list[tuple[str, list[Any]]], bool]:
        """The rows of each queue, leased, and whether there is more to sort in."""
        if len(queues) == 1:
            rows = _claim_of_one(connection, queues[0], limit, token, deadline)
            if rows is not None:
                return [(queues[0], rows)], False
        has_more = _sort_in(connection, PROMOTED_AT_ONCE)
        claimed: list[tuple[str, list[Any]]] = []
        for queue, share in self._shares(queues, limit):
            rows = connection.execute(_CLAIM, (token, deadline, queue, min(share, limit))).fetchall()
            rows.sort()  # by priority and age: RETURNING promises no order
            limit -= len(rows)
            claimed.append((queue, rows))
            if limit <= 0:
                break
        return claimed, has_more

    def _shares(self, queues: Sequence[str], limit: int) -> list[tuple[str, int]]:
        """Which queue may give how many, another one first each time: an equal part each, then what is left."""
        count = len(queues)
        if count == 1:
            return [(queues[0], limit)]
        self._turn = turn = (self._turn + 1) % max(count, 1)
        rotated = [*queues[turn:], *queues[:turn]]
        part = math.ceil(limit / max(count, 1))
        return [(queue, part) for queue in rotated] + [(queue, limit) for queue in rotated]

    def _until_next(self, connection: sqlite3.Connection, now: float, monotonic: float) -> float:
        """Seconds until a lease ends or a message is due, at most RECHECK."""
        (lease_end,) = connection.execute(_NEXT_LEASE_END).fetchone()
        (due,) = connection.execute(_NEXT_DUE).fetchone()
        pause = RECHECK if lease_end is None else lease_end - monotonic
        return max(0.0, min(RECHECK, pause, RECHECK if due is None else due - now))

    def settle(self, settlements: Sequence[Settlement]) -> list[Delivery]:
        """End deliveries in one transaction."""
        return self.commit([Commit(settlement) for settlement in settlements])

    def commits_with(self, store: ResultStore) -> bool:
        """True for the SQLite store on the same file."""
        return isinstance(store, SqliteStore) and store.path == self.path

    def commit(self, commits: Sequence[Commit]) -> list[Delivery]:
        """Settle, store and publish in one transaction."""
        if not commits:
            return []
        now = self._clock.now()
        sendable = [(commit, *self._rows(commit.messages)) for commit in commits if commit.messages]
        wants: set[str] = set()
        with Transaction(self._database) as connection:
            lost = self._settle_all(connection, [commit.settlement for commit in commits], now, wants)
            tokens = {delivery.token for delivery in lost}
            kept = [commit for commit in commits if commit.settlement.delivery.token not in tokens] if lost else commits
            records = [commit.record for commit in kept if commit.record is not None]
            written = upsert(connection, records, now)
            # A refused record means that a newer execution has told the outcome, and published what follows.
            refused = {id(record) for record, is_written in zip(records, written, strict=True) if not is_written}
            for commit, rows, row_wants in sendable:
                if commit.settlement.delivery.token not in tokens and id(commit.record) not in refused:
                    for sql, parameters in rows:
                        connection.execute(sql, parameters)
                    wants |= row_wants
            ready = [record.id for record in records if record.is_ready and id(record) not in refused]
            addresses = [row for want in wants for row in connection.execute(_WAITERS, (want,)).fetchall()]
            if ready:
                addresses += result_waiters(connection, self._wakeup, ready)
        if addresses:
            self._wakeup.wake(addresses)
        return lost

    def _settle_all(
        self, connection: sqlite3.Connection, settlements: Sequence[Settlement], now: float, wants: set[str]
    ) -> list[Delivery]:
        """End deliveries inside a transaction; returns those whose lease is lost."""
        acked: dict[int, dict[int, Delivery]] = {}
        lost = []
        for settlement in settlements:
            delivery = settlement.delivery
            if settlement.action is Action.ACK:
                row_id, token = delivery.token
                acked.setdefault(token, {})[row_id] = delivery
            elif not self._settle(connection, settlement, now, wants):
                lost.append(delivery)
        # What one fetch has brought has one token: a few statements end hundreds of deliveries.
        for token, by_id in acked.items():
            found = connection.execute(_ACK, (str(list(by_id)), token)).fetchall()
            if len(found) < len(by_id):
                gone = by_id.keys() - {row_id for (row_id,) in found}
                lost += [by_id[row_id] for row_id in gone]
        return lost

    def _settle(self, connection: sqlite3.Connection, settlement: Settlement, now: float, wants: set[str]) -> bool:
        """Give back or bury one delivery inside a transaction; False if its lease is lost."""
        delivery, action = settlement.delivery, settlement.action
        if action is Action.DEAD_LETTER:
            return dead.bury(connection, settlement, now)
        until = settlement.until if action is Action.DEFER else None
        delayed = until is not None and until > now
        if until is None or until < now + RECHECK:
            wants.add("queue:" + delivery.queue)
        # Counted from the delivery, not added up: mark_started may have charged this start already.
        starts = delivery.starts + settlement.charged
        return connection.execute(_GIVE_BACK, (2 if delayed else 0, until, starts, *delivery.token)).rowcount > 0

    def extend(self, deliveries: Sequence[Delivery], lease: float) -> list[Delivery]:
        """Renew leases."""
        if not deliveries:
            return []
        until = self._clock.monotonic() + lease
        with Transaction(self._database, durable=False) as connection:
            return [each for each in deliveries if connection.execute(_EXTEND, (until, *each.token)).rowcount == 0]

    def mark_started(self, deliveries: Sequence[Delivery]) -> None:
        """Charge a start to each delivery."""
        if not deliveries:
            return
        with Transaction(self._database, durable=False) as connection:
            connection.executemany(_START, [(each.starts + 1, *each.token) for each in deliveries])

    def interrupt(self) -> None:
        """Make every fetch that waits return."""
        self._wakeup.interrupt()

    def declare(self, queues: Sequence[Queue]) -> None:
        """Write exchanges and bindings. Queues themselves need no declaration."""
        self._broadcasts |= broadcast_exchanges(queues)
        now = self._clock.now()
        with Transaction(self._database) as connection:
            for queue in queues:
                made = bindings_of(queue, now)
                if queue.life is not None:
                    _renew(connection, queue.name, {exchange for exchange, _ in made}, now)
                for exchange, binding in made:
                    connection.execute(_PUT_EXCHANGE, (exchange, binding.exchange_type))
                    arguments = msgspec.msgpack.encode(binding.arguments, order="sorted")
                    connection.execute(_PUT_BINDING, (exchange, binding.queue, binding.routing_key, arguments))

    def delete(self, queue: str) -> int:
        """Remove a queue's messages and bindings."""
        with Transaction(self._database) as connection:
            return _delete_queue(connection, queue)

    def purge(self, queue: str) -> int:
        """Delete what is ready or delayed."""
        with Transaction(self._database) as connection:
            connection.execute(_PROMOTE_LEASED, (self._clock.monotonic(), -1))
            return _delete_where(connection, queue, (0, 2))

    def size(self, queue: str) -> QueueSize:
        """Count the queue's messages."""
        parameters = {"queue": queue, "now": self._clock.now(), "monotonic": self._clock.monotonic()}
        ready, incoming, leased, over, delayed, due = self._database.read(_SIZES, parameters)[0]
        return QueueSize(ready=ready + incoming + over + due, delayed=delayed, leased=leased)

    def dead_letters(self, limit: int = 100, queue: str | None = None) -> list[DeadLetter]:
        """Dead letters, newest first."""
        return dead.listed(self._database, limit, queue)

    def dead_letter(self, key: str) -> DeadLetter | None:
        """One of them, by its key or its task id."""
        return dead.found(self._database, key)

    def replay(self, keys: Sequence[str]) -> int:
        """Put dead letters back on their queues."""
        with Transaction(self._database) as connection:
            queues = dead.replay(connection, keys)
            addresses = [
                row for queue in set(queues) for row in connection.execute(_WAITERS, ("queue:" + queue,)).fetchall()
            ]
        self._wakeup.wake(addresses)
        return len(queues)

    def discard(self, keys: Sequence[str]) -> int:
        """Delete dead letters."""
        with Transaction(self._database) as connection:
            return dead.discard(connection, keys)

    def broadcast(self, topic: str, payload: bytes) -> None:
        """Leave a payload in the inbox of each subscriber."""
        # Most topics have no listener most of the time, and reading needs no lock.
        if not self._database.read(_WAITERS, (topic_want(topic),)):
            return
        with Transaction(self._database, durable=False) as connection:
            addresses = self._wakeup.leave(connection, topic_want(topic), [(topic, payload)])
        self._wakeup.wake(addresses)

    def subscribe(self, topics: Sequence[str]) -> Subscription:
        """Listen to topics."""
        return SqliteSubscription(self._database, self._wakeup, topics)

    def durability_report(self) -> list[str]:
        """What a power cut may cost, one line each."""
        return self._database.durability_report()

    def close(self) -> None:
        """Close the connections of this process."""
        self._wakeup.close()
        self._database.close()


def _delivery(queue: str, row: tuple[Any, ...], token: int, deadline: float) -> Delivery:
    _, row_id, head, body, deliveries, starts = row
    return Delivery(
        message=unpack(head, body, queue), queue=queue, token=(row_id, token), deadline=deadline,
        deliveries=deliveries, starts=starts,
    )  # fmt: skip


def _claim_of_one(
    connection: sqlite3.Connection, queue: str, limit: int, token: int, deadline: float
) -> list[tuple[Any, ...]] | None:
    """What is ready, then incoming messages, which are leased without being sorted in first: a third less to write.

    Returns None, and does nothing, if messages of other queues are among the oldest incoming.
    """
    last, count, of_others = connection.execute(_FIRST_INCOMING, (queue, limit)).fetchone()
    if of_others:
        return None
    rows = connection.execute(_CLAIM, (token, deadline, queue, limit)).fetchall()
    rows.sort()
    if rows and count:
        last, count, _ = connection.execute(_FIRST_INCOMING, (queue, limit - len(rows))).fetchone()
    if count:
        rows += sorted(connection.execute(_TAKE_INCOMING, (token, deadline, last)))
        connection.execute(_REMOVE_INCOMING, (last,))
    return rows


def _sort_in(connection: sqlite3.Connection, limit: int) -> bool:
    """Make up to `limit` incoming messages claimable; returns whether there may be more of them."""
    last, count = connection.execute(_LAST_INCOMING, (limit,)).fetchone()
    if count:
        connection.execute(_SORT_IN, (last,))
        connection.execute(_REMOVE_INCOMING, (last,))
    return bool(count == limit)


def _binding(row: tuple[Any, ...]) -> Binding:
    queue, kind, key, arguments = row
    return Binding(queue, kind, key, msgspec.msgpack.decode(arguments))


def _renew(connection: sqlite3.Connection, queue: str, exchanges: set[str], now: float) -> None:
    """Make room for new bindings of a queue that expires, and remove others that have expired."""
    connection.execute("DELETE FROM celeriac_bindings WHERE queue = ?", (queue,))
    for exchange in exchanges:
        for name in expired(map(_binding, connection.execute(_BINDINGS, (exchange,)).fetchall()), now):
            _delete_queue(connection, name)


def _delete_queue(connection: sqlite3.Connection, queue: str) -> int:
    connection.execute("DELETE FROM celeriac_bindings WHERE queue = ?", (queue,))
    return _delete_where(connection, queue, (0, 1, 2))


def _delete_where(connection: sqlite3.Connection, queue: str, states: tuple[int, ...]) -> int:
    """Delete a queue's messages that are not sorted in, and those in some states; each state has its own index."""
    incoming = connection.execute("DELETE FROM celeriac_incoming WHERE queue = ?", (queue,)).rowcount
    return incoming + sum(
        connection.execute(f"DELETE FROM celeriac_messages WHERE state = {state} AND queue = ?", (queue,)).rowcount
        for state in states
    )
