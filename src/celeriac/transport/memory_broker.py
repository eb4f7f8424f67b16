"""The state behind `memory://NAME`: entries, their heaps, and subscriptions.

`transport.memory` calls it, always holding `Broker.changed`. Heaps hold (order, number) only; an item whose entry has
moved on since is skipped when it comes up. So nothing is ever searched for in a heap, and settling costs one lookup.
"""

from __future__ import annotations

import heapq
import itertools
import math
import threading
from collections import defaultdict
from collections.abc import Sequence

from celeriac.message import DeadLetter, Delivery
from celeriac.timing import Deadline
from celeriac.transport.binding import Binding

__all__ = ["Broker", "Entry", "MemorySubscription"]


class Entry:
    """A message in the broker. It is ready, delayed or on lease (`token` is set and `lease_until` counts)."""

    __slots__ = (
        "body", "deliveries", "due_at", "head", "lease_until", "number", "priority", "queue", "starts", "token",
    )  # fmt: skip

    def __init__(self, number: int, queue: str, priority: int, due_at: float, head: bytes, body: bytes) -> None:
        self.number = number
        self.queue = queue
        self.priority = priority
        self.due_at = due_at
        self.head = head
        self.body = body
        self.lease_until = 0.0
        self.token = 0
        self.deliveries = 0
        self.starts = 0


class Broker:
    """The state that all transports of one name share."""

    def __init__(self) -> None:
        self.changed = threading.Condition(threading.RLock())
        self.numbers = itertools.count(1)
        #: By number. Heaps hold (order…, number); an entry of a heap whose message has moved on is skipped.
        self.entries: dict[int, Entry] = {}
        self.ready: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)
        self.delayed: list[tuple[float, int]] = []
        self.leased: list[tuple[float, int]] = []
        self.dead: dict[int, tuple[DeadLetter, Entry]] = {}
        self.bindings: defaultdict[str, list[Binding]] = defaultdict(list)
        self.subscriptions: list[MemorySubscription] = []

    def make_ready(self, entry: Entry) -> None:
        """Let the next fetch have it."""
        entry.due_at = 0.0
        entry.lease_until = 0.0
        heapq.heappush(self.ready[entry.queue], (-entry.priority, entry.number))

    def place(self, entry: Entry, now: float) -> None:
        """Put an entry where its moment says."""
        if entry.due_at > now:
            heapq.heappush(self.delayed, (entry.due_at, entry.number))
        else:
            self.make_ready(entry)

    def hold(self, entry: Entry, until: float) -> None:
        """Lease an entry until then."""
        entry.lease_until = until
        heapq.heappush(self.leased, (until, entry.number))
        if len(self.leased) > 1000 + 2 * len(self.entries):  # most are of messages that have gone long before
            self.leased = [each for each in self.leased if each[1] in self.entries]
            heapq.heapify(self.leased)

    def promote(self, now: float, monotonic: float) -> None:
        """Make ready what is due, and what has a lease that is over."""
        while self.delayed and self.delayed[0][0] <= now:
            due_at, number = heapq.heappop(self.delayed)
            entry = self.entries.get(number)
            if entry is not None and entry.due_at == due_at and not entry.lease_until:
                self.make_ready(entry)
        while self.leased and self.leased[0][0] <= monotonic:
            lease_until, number = heapq.heappop(self.leased)
            entry = self.entries.get(number)
            if entry is not None and entry.lease_until == lease_until:
                self.make_ready(entry)  # its token stays good until somebody else claims it

    def pop(self, queue: str) -> Entry | None:
        """Take the next ready entry of a queue."""
        heap = self.ready.get(queue)
        while heap:
            _, number = heapq.heappop(heap)
            entry = self.entries.get(number)
            if entry is not None and not entry.lease_until and not entry.due_at:
                return entry
        return None

    def held(self, delivery: Delivery) -> Entry | None:
        """The entry of a delivery, unless its lease is lost."""
        number, token = delivery.token
        entry = self.entries.get(number)
        return entry if entry is not None and entry.token == token else None

    def until_next(self, now: float, monotonic: float) -> float:
        """Seconds until something becomes ready by itself."""
        due = self.delayed[0][0] - now if self.delayed else math.inf
        return max(0.0, min(due, self.leased[0][0] - monotonic if self.leased else math.inf))


class MemorySubscription:
    """A listener in this process."""

    def __init__(self, broker: Broker, topics: Sequence[str]) -> None:
        self._broker = broker
        self._topics = frozenset(topics)
        self._letters: list[tuple[str, bytes]] = []
        self._interrupted = False
        with broker.changed:
            broker.subscriptions.append(self)

    def offer(self, topic: str, payload: bytes) -> None:
        """Keep a payload for the next poll, if its topic is wanted. Called under the broker's lock."""
        if topic in self._topics:
            self._letters.append((topic, payload))

    def poll(self, wait: float) -> list[tuple[str, bytes]]:
        """What was sent since the last poll; waits for the first."""
        deadline = Deadline(max(0.0, wait))
        with self._broker.changed:
            while not self._letters and not self._interrupted and not deadline.passed():
                self._broker.changed.wait(deadline.left())
            self._interrupted = False
            letters, self._letters = self._letters, []
            return letters

    def interrupt(self) -> None:
        """Make a poll that waits return."""
        with self._broker.changed:
            self._interrupted = True
            self._broker.changed.notify_all()

    def close(self) -> None:
        """Stop listening."""
        with self._broker.changed:
            if self in self._broker.subscriptions:
                self._broker.subscriptions.remove(self)
        self.interrupt()
