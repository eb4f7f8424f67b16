"""The broker in a SQL server: everything that PostgreSQL and MySQL have in common.

`sql_postgres.PostgresTransport` and `sql_mysql.MysqlTransport` derive from it; they bring the connections, the statements
(`sql_messages.MessageTables`) and the way to wake those who wait. Each verb is one short transaction, so a process that is
killed leaves nothing half-done, and a claim reads as many rows as it takes, whatever number is delayed or on lease.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from celeriac.errors import MessageTooLarge
from celeriac.message import Action, DeadLetter, Delivery, Message, Settlement
from celeriac.results.base import Record, ResultStore
from celeriac.results.sql_sleeper import PollingRouser
from celeriac.routing import Queue
from celeriac.transport.base import Capabilities, Commit, QueueSize, Subscription
from celeriac.transport.binding import broadcast_exchanges
from celeriac.transport.mailbox import TopicMail
from celeriac.transport.packing import WRITE_ERRORS, head_of, unpack, unwritable, write_head
from celeriac.transport.sql_messages import Cursor, MessageTables, Row, Token

__all__ = ["SqlTransport"]

T = TypeVar("T")

#: Longest sleep without a look at the queues, in seconds.
RECHECK = 1.0
#: Messages whose moment has come that one fetch makes ready, so that a great many at once don't hold locks long.
PROMOTED_AT_ONCE = 1000
#: Seconds between looks for them while there is other work.
PROMOTE_EVERY = 0.05


class SqlTransport(TopicMail):
    """The verbs of `transport.base.Transport`. Subclasses implement the methods that raise here."""

    capabilities = Capabilities(priorities=256, transactional=True)

    def __init__(self, url: str, tables: MessageTables, rouser: PollingRouser) -> None:
        self.url = url
        self._tables = tables
        self._rouser = rouser
        self._broadcasts: set[str] = set()
        self._turn = 0
        self._promoted_at = 0.0

    # what a server does in its own way

    def _run(self, work: Callable[[Any], T], *, durable: bool = True, atomic: bool = True) -> T:
        """Do something in a transaction; `atomic=False` for what is one statement on PostgreSQL."""
        raise AssertionError("said by the server's own class")

    def _publish(self, rows: list[Row], wants: set[str]) -> None:
        """Insert messages, and tell those who wait."""
        raise AssertionError("said by the server's own class")

    def _store(self, cursor: Any, records: list[Record]) -> list[bool]:
        """Write records inside a transaction; tells for each whether it was accepted."""
        raise AssertionError("said by the server's own class")

    def _tell(self, cursor: Any, wants: set[str], ready: list[Record]) -> None:
        """Inside a transaction: tell those who wait for queues and results, once it is committed."""

    def commits_with(self, store: ResultStore) -> bool:
        """True for the store of the same kind on the same database."""
        raise AssertionError("said by the server's own class")

    def broadcast(self, topic: str, payload: bytes) -> None:
        """Tell all present subscribers."""
        raise AssertionError("said by the server's own class")

    def subscribe(self, topics: Sequence[str]) -> Subscription:
        """Listen to topics."""
        raise AssertionError("said by the server's own class")

    # publish

    def publish(self, messages: Sequence[Message]) -> None:
        """Commit messages, and wake those who wait for them."""
        rows, wants = self._rows(messages)
        if rows:
            self._publish(rows, wants)
            self._rouser.rouse(wants)

    def publish_recorded(self, messages: Sequence[Message], records: Sequence[Record]) -> None:
        """Store and publish in one transaction."""
        rows, wants = self._rows(messages)

        def write(cursor: Any) -> None:
            if records:
                self._store(cursor, list(records))
            if rows:
                self._tables.insert(cursor, rows)
            self._tell(cursor, wants, [])

        self._run(write)
        self._rouser.rouse(wants)

    def _rows(self, messages: Sequence[Message]) -> tuple[list[Row], set[str]]:
        """Rows to insert, and what to look up among those who wait."""
        rows: list[Row] = []
        wants = set()
        soon = time.time() + RECHECK
        limit = self.capabilities.max_bytes
        for message in messages:
            if limit is not None and len(message.body) > limit:
                raise MessageTooLarge(
                    f"Message {message.id!r} has {len(message.body)} bytes; {self.url} takes {limit}."
                )
            eta = message.eta
            try:
                head = write_head(head_of(message))
            except WRITE_ERRORS as exc:
                raise unwritable(message, exc) from exc
            priority = min(max(message.priority or 0, 0), 255)
            for queue in (message.queue,) if message.queue else self._queues_for(message):
                rows.append((queue, priority, eta, head, message.body))
                # A sleeper looks again within RECHECK seconds in any case; no need to tell it of what comes later.
                if eta is None or eta < soon:
                    wants.add("queue:" + queue)
        return rows, wants

    def _queues_for(self, message: Message) -> list[str]:
        is_broadcast = message.exchange in self._broadcasts
        return self._run(
            lambda cursor: self._tables.queues_for(cursor, message, is_broadcast=is_broadcast),
            durable=False,
            atomic=False,
        )

    # fetch

    def fetch(self, queues: Sequence[str], limit: int, wait: float, lease: float) -> list[Delivery]:
        """Lease messages; while there are none, sleep until one is committed or due, or `wait` is over."""
        interrupts = self._rouser.interrupts
        deadline = time.monotonic() + wait
        deliveries, _ = self._claim(queues, limit, lease)
        if deliveries or wait <= 0:
            return deliveries
        with self._rouser.sleeper(["queue:" + queue for queue in queues]) as sleeper:
            while True:
                sleeper.clear()
                deliveries, pause = self._claim(queues, limit, lease)
                left = deadline - time.monotonic()
                if deliveries or left <= 0 or self._rouser.interrupts != interrupts:
                    return deliveries
                sleeper.wait(min(left, pause))

    def _claim(self, queues: Sequence[str], limit: int, lease: float) -> tuple[list[Delivery], float]:
        """One attempt; also returns how long it may sleep if there is nothing."""
        token = random.getrandbits(62) + 1
        # Before the statement: the server's lease ends a little later than we believe, never earlier.
        now = time.monotonic()
        rows = self._claim_fairly(queues, limit, token, lease)
        pause = RECHECK
        if not rows or now - self._promoted_at > PROMOTE_EVERY:
            self._promoted_at = now
            moved, until_next = self._run(
                lambda cursor: self._tables.promote(cursor, PROMOTED_AT_ONCE), durable=False, atomic=False
            )
            if moved and len(rows) < limit:
                rows += self._claim_fairly(queues, limit - len(rows), token, lease)
                pause = 0.0
            elif until_next is not None:
                pause = max(0.001, min(RECHECK, until_next))
        return [_delivery(row, token, now + lease) for row in rows], pause

    def _claim_fairly(self, queues: Sequence[str], limit: int, token: int, lease: float) -> list[Any]:
        """An equal part of each queue, then what is left of any."""
        shares = self._shares(queues, limit)
        rows = self._claim_shares(shares, limit, token, lease)
        left = limit - len(rows)
        if left <= 0 or len(shares) < 2:
            return rows
        taken = [row[0] for row in rows]
        # A queue that gave less than its share has no more.
        more = [(queue, left) for queue, share in shares if taken.count(queue) == share]
        return rows + self._claim_shares(more, left, token, lease) if more else rows

    def _claim_shares(self, shares: list[tuple[str, int]], limit: int, token: int, lease: float) -> list[Any]:
        wanted = [(queue, share) for queue, share in shares if share]
        rows = self._run(
            lambda cursor: self._tables.claim(cursor, wanted, limit, token, lease), durable=False, atomic=False
        )
        rows.sort(key=_by_priority_and_age)  # UPDATE … RETURNING promises no order
        return rows

    def _shares(self, queues: Sequence[str], limit: int) -> list[tuple[str, int]]:
        """Which queue may give how many, another one first each time."""
        count = len(queues)
        if count == 1:
            return [(queues[0], limit)]
        self._turn = turn = (self._turn + 1) % max(count, 1)
        each, extra = divmod(limit, max(count, 1))
        rotated = [*queues[turn:], *queues[:turn]]
        return [(queue, each + (place < extra)) for place, queue in enumerate(rotated)]

    # settle

    def settle(self, settlements: Sequence[Settlement]) -> list[Delivery]:
        """End deliveries in one transaction."""
        if settlements and all(settlement.action is Action.ACK for settlement in settlements):
            tokens = [settlement.delivery.token for settlement in settlements]
            done = self._run(lambda cursor: self._tables.ack(cursor, tokens), atomic=False)
            return _lost((settlement.delivery for settlement in settlements), done)
        return self.commit([Commit(settlement) for settlement in settlements])

    def commit(self, commits: Sequence[Commit]) -> list[Delivery]:
        """Settle, store and publish in one transaction."""
        if not commits:
            return []
        prepared = [(commit, self._rows(commit.messages) if commit.messages else ([], set())) for commit in commits]
        lost, wants = self._run(lambda cursor: self._commit(cursor, prepared))
        self._rouser.rouse(wants)
        return lost

    def _commit(
        self, cursor: Any, prepared: list[tuple[Commit, tuple[list[Row], set[str]]]]
    ) -> tuple[list[Delivery], set[str]]:
        done, wants = self._settle(cursor, [commit.settlement for commit, _ in prepared])
        lost = _lost((commit.settlement.delivery for commit, _ in prepared), done)
        if lost:
            refused = {id(delivery) for delivery in lost}
            prepared = [each for each in prepared if id(each[0].settlement.delivery) not in refused]
        records = [commit.record for commit, _ in prepared if commit.record is not None]
        accepted = self._store(cursor, records) if records else []
        answers = iter(accepted)
        rows: list[Row] = []
        for commit, (more, their_wants) in prepared:
            # A refused record means that a newer execution has told the outcome, and published what follows.
            if (commit.record is None or next(answers)) and more:
                rows += more
                wants |= their_wants
        if rows:
            self._tables.insert(cursor, rows)
        self._tell(
            cursor, wants, [each for each, is_in in zip(records, accepted, strict=True) if is_in and each.is_ready]
        )
        return lost, wants

    def _settle(self, cursor: Cursor, settlements: list[Settlement]) -> tuple[set[Token], set[str]]:
        """End deliveries inside a transaction; the leases that were valid, and who is to be woken."""
        acks: list[Token] = []
        backs: list[tuple[int, int, float | None, int]] = []
        dead: list[tuple[int, int, str, str, int]] = []
        wants = set()
        soon = time.time() + RECHECK
        for settlement in settlements:
            delivery = settlement.delivery
            # Counted from the delivery, not added up: mark_started may have charged this start already.
            starts = delivery.starts + settlement.charged
            if settlement.action is Action.ACK:
                acks.append(delivery.token)
            elif settlement.action is Action.DEAD_LETTER:
                dead.append((*delivery.token, delivery.message.id, settlement.reason, starts))
            else:
                until = settlement.until if settlement.action is Action.DEFER else None
                backs.append((*delivery.token, until, starts))
                if until is None or until < soon:
                    wants.add("queue:" + delivery.queue)
        done = self._tables.ack(cursor, acks) if acks else set()
        if backs:
            done |= self._tables.give_back(cursor, backs)
        if dead:
            done |= self._tables.bury(cursor, dead)
        return done, wants

    def extend(self, deliveries: Sequence[Delivery], lease: float) -> list[Delivery]:
        """Renew leases."""
        if not deliveries:
            return []
        tokens = [delivery.token for delivery in deliveries]
        done = self._run(lambda cursor: self._tables.extend(cursor, tokens, lease), durable=False, atomic=False)
        return [delivery for delivery in deliveries if delivery.token not in done]

    def mark_started(self, deliveries: Sequence[Delivery]) -> None:
        """Charge a start to each delivery."""
        rows = [(*delivery.token, delivery.starts + 1) for delivery in deliveries]
        if rows:
            self._run(lambda cursor: self._tables.start(cursor, rows), durable=False, atomic=False)

    def interrupt(self) -> None:
        """Make every fetch that waits return."""
        self._rouser.interrupt()

    # queues and dead letters

    def declare(self, queues: Sequence[Queue]) -> None:
        """Write exchanges and bindings."""
        self._broadcasts |= broadcast_exchanges(queues)
        self._run(lambda cursor: self._tables.declare(cursor, queues))

    def delete(self, queue: str) -> int:
        """Remove a queue's messages and bindings."""
        return self._run(lambda cursor: self._tables.delete(cursor, queue))

    def purge(self, queue: str) -> int:
        """Delete what is not on lease."""
        return self._run(lambda cursor: self._tables.purge(cursor, queue))

    def size(self, queue: str) -> QueueSize:
        """Count the queue's messages."""
        return self._run(lambda cursor: self._tables.size(cursor, queue), durable=False, atomic=False)

    def dead_letters(self, limit: int = 100, queue: str | None = None) -> list[DeadLetter]:
        """Dead letters, newest first."""
        return self._run(lambda cursor: self._tables.listed(cursor, limit, queue), durable=False, atomic=False)

    def dead_letter(self, key: str) -> DeadLetter | None:
        """One of them, by its key or its task id."""
        return self._run(lambda cursor: self._tables.found(cursor, key), durable=False)

    def replay(self, keys: Sequence[str]) -> int:
        """Put dead letters back on their queues."""

        def work(cursor: Any) -> list[str]:
            queues = self._tables.replay(cursor, keys)
            self._tell(cursor, {"queue:" + queue for queue in queues}, [])
            return queues

        queues = self._run(work)
        self._rouser.rouse({"queue:" + queue for queue in queues})
        return len(queues)

    def discard(self, keys: Sequence[str]) -> int:
        """Delete dead letters."""
        return self._run(lambda cursor: self._tables.discard(cursor, keys))


def _by_priority_and_age(row: Any) -> tuple[int, int]:
    return row[1], row[2]


def _delivery(row: Any, token: int, deadline: float) -> Delivery:
    queue, _, row_id, head, body, deliveries, starts = row
    return Delivery(
        message=unpack(head, body, queue), queue=queue, token=(row_id, token), deadline=deadline,
        deliveries=deliveries, starts=starts,
    )  # fmt: skip


def _lost(deliveries: Iterable[Delivery], done: set[Token]) -> list[Delivery]:
    """Those whose lease was not valid. A lease that is named twice is valid once."""
    if len(done) == 0:
        return list(deliveries)
    left = set(done)
    lost = []
    for delivery in deliveries:
        if delivery.token in left:
            left.remove(delivery.token)
        else:
            lost.append(delivery)
    return lost
