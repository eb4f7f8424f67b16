"""A broker in the memory of this process: a full driver, for tests and for embedding worker and client in one program.

Opened by `transport.open` for `memory://NAME`; every transport of one name shares one broker. It is also the shortest
picture of what the port promises. Messages are packed and unpacked as in other drivers, so that what can't travel fails
here too.

Invariants: every verb holds the broker's one lock while it changes anything; a lease is named by its token, and whoever
presents another token changes nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from celeriac.message import Action, DeadLetter, Delivery, Message, Settlement
from celeriac.results.base import Record, ResultStore
from celeriac.results.drivers import check_options, split_query
from celeriac.results.memory import MemoryStore
from celeriac.routing import Queue
from celeriac.timing import SYSTEM_CLOCK, Clock, Deadline
from celeriac.transport.base import Capabilities, Commit, QueueSize, Subscription
from celeriac.transport.binding import bindings_of, broadcast_exchanges, expired, queues_for
from celeriac.transport.mailbox import TopicMail
from celeriac.transport.memory_broker import Broker, Entry, MemorySubscription
from celeriac.transport.packing import WRITE_ERRORS, head_of, unpack, unwritable, write_head

__all__ = ["MemoryTransport"]


_brokers: defaultdict[str, Broker] = defaultdict(Broker)


class MemoryTransport(TopicMail):
    """The broker of this process. See `transport.base.Transport` for the verbs.

    Args:
        url: `memory://` or `memory://NAME`.
        options: None are known.
        clock: Virtual time for tests. A fetch that waits does so in real time.
    """

    # There is no process that a broadcast would not reach.
    capabilities = Capabilities(priorities=256, survives_restart=False)

    def __init__(self, url: str, options: Mapping[str, Any] | None = None, *, clock: Clock = SYSTEM_CLOCK) -> None:
        base, query = split_query(url)
        check_options([*query, *(options or {})], ("visibility_timeout", "polling_interval"), "memory://")
        self.url = url
        self.name = base.partition("://")[2].strip("/")
        self._clock = clock
        self._store = MemoryStore(base, clock=clock)
        self._broadcasts: set[str] = set()
        self._turn = 0
        self._interrupts = 0

    @property
    def _broker(self) -> Broker:
        return _brokers[self.name]

    def publish(self, messages: Sequence[Message]) -> None:
        """Put messages on their queues."""
        broker = self._broker
        with broker.changed:
            self._insert(broker, self._entries(broker, messages))
            broker.changed.notify_all()

    def _entries(self, broker: Broker, messages: Sequence[Message]) -> list[Entry]:
        """Messages as entries, one for each queue that gets one; raises before anything is changed."""
        entries = []
        for message in messages:
            try:
                head = write_head(head_of(message))
            except WRITE_ERRORS as exc:
                raise unwritable(message, exc) from exc
            for queue in (message.queue,) if message.queue else self._queues_for(message):
                number, due_at = next(broker.numbers), message.eta or 0.0
                entries.append(Entry(number, queue, message.priority or 0, due_at, head, message.body))
        return entries

    def _queues_for(self, message: Message) -> list[str]:
        bound = self._broker.bindings.get(message.exchange, ())
        return queues_for(message, bound, now=self._clock.now(), is_broadcast=message.exchange in self._broadcasts)

    def _insert(self, broker: Broker, entries: Iterable[Entry]) -> None:
        now = self._clock.now()
        for entry in entries:
            broker.entries[entry.number] = entry
            broker.place(entry, now)

    def fetch(self, queues: Sequence[str], limit: int, wait: float, lease: float) -> list[Delivery]:
        """Lease messages; waits for the first."""
        deadline = Deadline(max(0.0, wait))
        broker = self._broker
        with broker.changed:
            interrupts = self._interrupts
            while True:
                now, monotonic = self._clock.now(), self._clock.monotonic()
                broker.promote(now, monotonic)
                taken = self._take(queues, limit)
                if taken:
                    return [self._lease(entry, monotonic + lease) for entry in taken]
                left = deadline.left() or 0.0
                if left <= 0 or self._interrupts != interrupts:
                    return []
                broker.changed.wait(min(left, broker.until_next(now, monotonic)))

    def _take(self, queues: Sequence[str], limit: int) -> list[Entry]:
        """Up to `limit` ready entries, one of each queue in turn."""
        self._turn += 1
        start = self._turn % max(1, len(queues))
        waiting = [*queues[start:], *queues[:start]]
        taken: list[Entry] = []
        while waiting and len(taken) < limit:
            for queue in list(waiting):
                entry = self._broker.pop(queue) if len(taken) < limit else None
                if entry is None:
                    waiting.remove(queue)
                else:
                    taken.append(entry)
        return taken

    def _lease(self, entry: Entry, until: float) -> Delivery:
        entry.token = next(self._broker.numbers)
        entry.deliveries += 1
        self._broker.hold(entry, until)
        return Delivery(
            message=unpack(entry.head, entry.body, entry.queue), queue=entry.queue, token=(entry.number, entry.token),
            deadline=until, deliveries=entry.deliveries, starts=entry.starts,
        )  # fmt: skip

    def settle(self, settlements: Sequence[Settlement]) -> list[Delivery]:
        """End deliveries."""
        return self.commit([Commit(settlement) for settlement in settlements])

    def commits_with(self, store: ResultStore) -> bool:
        """True for the memory store of the same name."""
        return isinstance(store, MemoryStore) and store.name == self.name

    def commit(self, commits: Sequence[Commit]) -> list[Delivery]:
        """Settle, store and publish."""
        lost = []
        with self._broker.changed:
            prepared = [(commit, self._entries(self._broker, commit.messages)) for commit in commits]
            for commit, entries in prepared:
                if not self._settle(commit.settlement):
                    lost.append(commit.settlement.delivery)
                # A refused record means that a newer execution has told the outcome, and published what follows.
                elif commit.record is None or not self._store.store([commit.record]):
                    self._insert(self._broker, entries)
            self._broker.changed.notify_all()
        return lost

    def publish_recorded(self, messages: Sequence[Message], records: Sequence[Record]) -> None:
        """Store and publish."""
        with self._broker.changed:
            entries = self._entries(self._broker, messages)
            self._store.store(records)
            self._insert(self._broker, entries)
            self._broker.changed.notify_all()

    def _settle(self, settlement: Settlement) -> bool:
        """End one delivery; False if its lease is lost."""
        broker = self._broker
        entry = broker.held(settlement.delivery)
        if entry is None:
            return False
        starts = settlement.delivery.starts + settlement.charged
        if settlement.action in (Action.ACK, Action.DEAD_LETTER):
            del broker.entries[entry.number]
            if settlement.action is Action.DEAD_LETTER:
                self._bury(entry, settlement.reason, max(entry.starts, starts))
            return True
        entry.token = 0
        # Counted from the delivery, not added up: mark_started may have charged this start already.
        entry.starts = starts
        entry.lease_until = 0.0
        entry.due_at = settlement.until or 0.0 if settlement.action is Action.DEFER else 0.0
        broker.place(entry, self._clock.now())
        return True

    def _bury(self, entry: Entry, reason: str, starts: int) -> None:
        message = unpack(entry.head, entry.body, entry.queue)
        key = next(self._broker.numbers)
        letter = DeadLetter(
            key=str(key), message=message, queue=entry.queue, reason=reason, died_at=self._clock.now(),
            deliveries=entry.deliveries, starts=starts,
        )  # fmt: skip
        self._broker.dead[key] = (letter, entry)

    def extend(self, deliveries: Sequence[Delivery], lease: float) -> list[Delivery]:
        """Renew leases."""
        until = self._clock.monotonic() + lease
        lost = []
        with self._broker.changed:
            for delivery in deliveries:
                entry = self._broker.held(delivery)
                if entry is None:
                    lost.append(delivery)
                else:
                    self._broker.hold(entry, until)
        return lost

    def mark_started(self, deliveries: Sequence[Delivery]) -> None:
        """Charge a start to each delivery."""
        with self._broker.changed:
            for delivery in deliveries:
                entry = self._broker.held(delivery)
                if entry is not None:
                    entry.starts = delivery.starts + 1

    def interrupt(self) -> None:
        """Make every fetch that waits return."""
        with self._broker.changed:
            self._interrupts += 1
            self._broker.changed.notify_all()

    def declare(self, queues: Sequence[Queue]) -> None:
        """Keep bindings. Queues themselves need no declaration."""
        self._broadcasts |= broadcast_exchanges(queues)
        with self._broker.changed:
            now = self._clock.now()
            for queue in queues:
                made = bindings_of(queue, now)
                if queue.life is not None:
                    self._renew(queue.name, {exchange for exchange, _ in made}, now)
                for exchange, binding in made:
                    if binding not in self._broker.bindings[exchange]:
                        self._broker.bindings[exchange].append(binding)

    def _renew(self, queue: str, exchanges: set[str], now: float) -> None:
        """Make room for new bindings of a queue that expires, and remove others that have expired."""
        for exchange in exchanges:
            bound = self._broker.bindings[exchange]
            bound[:] = [each for each in bound if each.queue != queue]
            for name in expired(bound, now):
                self.delete(name)

    def delete(self, queue: str) -> int:
        """Remove a queue's messages and bindings."""
        with self._broker.changed:
            for bound in self._broker.bindings.values():
                bound[:] = [each for each in bound if each.queue != queue]
            self._broker.ready.pop(queue, None)
            return self._remove(entry for entry in self._broker.entries.values() if entry.queue == queue)

    def purge(self, queue: str) -> int:
        """Delete what is ready or delayed."""
        with self._broker.changed:
            monotonic = self._clock.monotonic()
            return self._remove(
                entry
                for entry in self._broker.entries.values()
                if entry.queue == queue and entry.lease_until <= monotonic
            )

    def _remove(self, entries: Iterable[Entry]) -> int:
        numbers = [entry.number for entry in entries]
        for number in numbers:
            del self._broker.entries[number]
        return len(numbers)

    def size(self, queue: str) -> QueueSize:
        """Count the queue's messages."""
        with self._broker.changed:
            now, monotonic = self._clock.now(), self._clock.monotonic()
            entries = [entry for entry in self._broker.entries.values() if entry.queue == queue]
            leased = sum(entry.lease_until > monotonic for entry in entries)
            delayed = sum(entry.due_at > now for entry in entries)
            return QueueSize(ready=len(entries) - leased - delayed, delayed=delayed, leased=leased)

    def dead_letters(self, limit: int = 100, queue: str | None = None) -> list[DeadLetter]:
        """Dead letters, newest first."""
        with self._broker.changed:
            letters = [letter for letter, _ in reversed(self._broker.dead.values())]
        return [letter for letter in letters if queue is None or letter.queue == queue][:limit]

    def dead_letter(self, key: str) -> DeadLetter | None:
        """One of them, by its key or its task id."""
        with self._broker.changed:
            found = self._dead_numbers([key])
            return self._broker.dead[found[-1]][0] if found else None

    def _dead_numbers(self, keys: Sequence[str]) -> list[int]:
        dead = self._broker.dead
        found: dict[int, None] = {}
        for key in keys:
            exact = [number for number in dead if str(number) == key]
            found.update(dict.fromkeys(exact or [n for n, (letter, _) in dead.items() if letter.message.id == key]))
        return list(found)

    def replay(self, keys: Sequence[str]) -> int:
        """Put dead letters back on their queues."""
        with self._broker.changed:
            numbers = self._dead_numbers(keys)
            for number in numbers:
                _, entry = self._broker.dead.pop(number)
                fresh = Entry(next(self._broker.numbers), entry.queue, entry.priority, 0.0, entry.head, entry.body)
                self._insert(self._broker, [fresh])
            self._broker.changed.notify_all()
        return len(numbers)

    def discard(self, keys: Sequence[str]) -> int:
        """Delete dead letters."""
        with self._broker.changed:
            numbers = self._dead_numbers(keys)
            for number in numbers:
                del self._broker.dead[number]
        return len(numbers)

    def broadcast(self, topic: str, payload: bytes) -> None:
        """Tell the subscribers of a topic."""
        with self._broker.changed:
            for subscription in self._broker.subscriptions:
                subscription.offer(topic, payload)
            self._broker.changed.notify_all()

    def subscribe(self, topics: Sequence[str]) -> Subscription:
        """Listen to topics."""
        return MemorySubscription(self._broker, topics)

    def close(self) -> None:
        """Nothing is held: the messages stay in the process until `clear`."""

    def clear(self) -> None:
        """Forget everything under this name, as a test wants it."""
        _brokers.pop(self.name, None)
