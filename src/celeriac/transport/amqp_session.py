"""The messages that one consuming channel holds: those that came and wait to be fetched, and those on lease.

`amqp_consumer` calls it, always holding its lock. A session lives as long as its channel: when that is lost, the server gives
everything it held to others, so nothing here survives it.
"""

from __future__ import annotations

import heapq
import time
from collections import Counter, deque
from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

from celeriac.transport.amqp_channel import Channel, Pushed
from celeriac.transport.amqp_message import Envelope, read

__all__ = ["Entry", "Listening", "Session", "acks"]

#: A message that comes earlier than this before its moment (seconds) waits in the broker, a later one in the driver:
#: the broker's delays are whole seconds.
SOON = 1.0


class Entry:
    """A message that we hold: where, and what it is.

    Attributes:
        channel, tag: What names it at the server. They change when it is moved (see `amqp_parking`).
        token: What names it here, for good.
        since: When the server gave it to us (monotonic).
        is_moved: Whether it no longer lies in `queue`, but in a queue of our own.
    """

    __slots__ = ("channel", "envelope", "is_moved", "pushed", "queue", "since", "tag", "token")

    def __init__(self, channel: Channel, queue: str, pushed: Pushed, token: int) -> None:
        self.channel = channel
        self.tag: int = pushed.method.delivery_tag
        self.queue = queue
        self.pushed = pushed
        self.envelope: Envelope = read(pushed, queue)
        self.token = token
        self.since = time.monotonic()
        self.is_moved = False


class Listening(NamedTuple):
    """An open consumer, and how many unsettled messages of its own the server lets it have."""

    tag: str
    prefetch: int


class Session:
    """One channel and what it holds."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        #: Everything unsettled, by delivery tag: in the order of tags.
        self.shelf: dict[int, Entry] = {}
        #: Open consumers by queue, and the queue of every consumer there was.
        self.listening: dict[str, Listening] = {}
        self.queue_of: dict[str, str] = {}
        #: What may be fetched.
        self.ready: dict[str, deque[Entry]] = {}
        #: Not yet due, but soon: (moment, token, entry), a heap.
        self.early: list[tuple[float, int, Entry]] = []
        #: Not due for long: to be put off.
        self.far: list[Entry] = []
        self.leased: Counter[str] = Counter()
        #: Since when more is here, or may come, than is wanted (monotonic).
        self.surplus_since: float | None = None
        self._turn = 0

    def credit(self, queue: str) -> int:
        """How many messages more the server may push from a queue; only those count that this very consumer was sent."""
        listening = self.listening[queue]
        sent = sum(entry.pushed.method.consumer_tag == listening.tag for entry in self.shelf.values())
        return listening.prefetch - sent

    def sort_in(self, entry: Entry, now: float) -> None:
        """A message has come."""
        self.shelf[entry.tag] = entry
        due = entry.envelope.message.eta
        if due is None or due <= now:
            self.ready.setdefault(entry.queue, deque()).append(entry)
        elif due - now < SOON:
            heapq.heappush(self.early, (due, entry.token, entry))
        else:
            self.far.append(entry)

    def take(self, queues: Sequence[str], limit: int, now: float) -> list[Entry]:
        """Up to `limit` messages, of each queue in turn. They are on lease from now on."""
        self.promote(now)
        self._turn += 1
        start = self._turn % max(1, len(queues))
        waiting = [ready for queue in (*queues[start:], *queues[:start]) if (ready := self.ready.get(queue))]
        taken: list[Entry] = []
        while waiting and len(taken) < limit:
            for ready in list(waiting):
                if len(taken) < limit:
                    taken.append(ready.popleft())
                if not ready:
                    waiting.remove(ready)
        self.leased.update(entry.queue for entry in taken)
        return taken

    def promote(self, now: float) -> None:
        """What has become due may be fetched."""
        while self.early and self.early[0][0] <= now:
            entry = heapq.heappop(self.early)[2]
            self.ready.setdefault(entry.queue, deque()).append(entry)

    def until_due(self, now: float) -> float:
        """Seconds until a message that is here becomes due."""
        return max(0.0, self.early[0][0] - now) if self.early else float("inf")

    def has_ready(self, queues: Iterable[str]) -> bool:
        """Whether one of these queues has messages here that nobody has fetched."""
        return any(self.ready.get(queue) for queue in queues)

    def unfetched(self) -> list[Entry]:
        """What is here for anybody to fetch, or to be put off. What is not yet due is of no use to others either."""
        return [*(entry for ready in self.ready.values() for entry in ready), *self.far]

    def drop(self, entries: Collection[Entry]) -> None:
        """These were given back: they are not here any more."""
        gone = {entry.token for entry in entries}
        self.far = [entry for entry in self.far if entry.token not in gone]
        for queue, ready in self.ready.items():
            self.ready[queue] = deque(entry for entry in ready if entry.token not in gone)
        for entry in entries:
            self.shelf.pop(entry.tag, None)


def acks(shelf: dict[int, Entry], done: Collection[int]) -> list[tuple[int, bool]]:
    """Acknowledgements of these tags: one for all that lead the shelf, single ones for the others."""
    wanted = set(done)
    last = 0
    for tag in shelf:
        if tag not in wanted:
            break
        last = tag
    leading = [(last, True)] if last else []
    return leading + [(tag, False) for tag in sorted(wanted) if tag > last]
