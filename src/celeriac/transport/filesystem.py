"""A broker of folders and files: every message is a file, and every step of its way is one rename.

Opened by `transport.open` for `filesystem://…`. Messages are written in kombu's envelope under names that kombu's filesystem
transport takes as its own, so stock clients and workers can share the folder. What they lack is done in `.celeriac/` inside it:
`leased`, `delayed` and `dead`. Nobody is told of a new message: who waits looks again, at `polling_interval`.

Invariant: the system renames a file for one process only. Who has renamed a file to a lease of its own has the message,
until somebody else finds that lease over and renames it again; from then on the old name, and the token in it, are void.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from celeriac.errors import CeleriacError
from celeriac.message import Action, DeadLetter, Delivery, Message, Settlement
from celeriac.results.base import ResultStore
from celeriac.results.sqlite_schema import boot_id
from celeriac.routing import Queue
from celeriac.timing import SYSTEM_CLOCK, Clock, Deadline
from celeriac.transport.base import Capabilities, Commit, QueueSize, Subscription
from celeriac.transport.binding import broadcast_exchanges, queues_for
from celeriac.transport.filesystem_dead import DeadLetters
from celeriac.transport.filesystem_files import Files, listed, mapped_errors, moved, read, removed
from celeriac.transport.filesystem_name import Lease, Name, new_name, parse_due, parse_lease
from celeriac.transport.filesystem_topics import Bindings, FilesystemSubscription, broadcast
from celeriac.transport.filesystem_url import parse_url
from celeriac.transport.mailbox import TopicMail
from celeriac.transport.redis_envelope import decode, encode, new_tag

__all__ = ["FilesystemTransport"]


class FilesystemTransport(TopicMail):
    """The broker in folders. See `transport.base.Transport` for the verbs.

    Args:
        url: `filesystem:///folder`, or `filesystem://` with the folders among the options.
        options: `data_folder_in`, `data_folder_out`, `control_folder`, `store_processed`, `processed_folder` as for stock
            Celery; `polling_interval` (seconds), `synchronous` ("FULL" or "NORMAL").
        clock: For tests.
    """

    capabilities = Capabilities(priorities=256)

    def __init__(self, url: str, options: Mapping[str, Any] | None = None, *, clock: Clock = SYSTEM_CLOCK) -> None:
        settings = parse_url(url, options or {})
        self.url = url
        self._in, self._out, self._control = settings.folder_in, settings.folder_out, settings.control
        self._processed = settings.processed
        self._polling = settings.polling_interval
        self._files = Files(settings.is_synchronous)
        self._bindings = Bindings(self._control, self._files)
        self._dead = DeadLetters(self._own("dead"), self._in, self._own("tmp"), self._files)
        self._clock = clock
        self._boot = boot_id().replace("-", "")[:8]
        #: Where the files of our leases are, by token.
        self._held: dict[str, Lease] = {}
        self._broadcasts: set[str] = set()
        self._turn = 0
        self._has_swept = False
        self._interrupts = 0
        self._changed = threading.Condition()

    @property
    def path(self) -> str:
        """Where messages are read from."""
        return self._in

    def _own(self, name: str) -> str:
        """One of the folders that stock Celery doesn't know."""
        return os.path.join(self._in, ".celeriac", name)

    # publish

    def publish(self, messages: Sequence[Message]) -> None:
        """Bring messages to the disk, then into the folder."""
        now = self._clock.now()
        with mapped_errors(self.url):
            files = [
                (self._place(message, new_name(queue, message.priority or 0), now), envelope)
                for message in messages
                for queue in self._queues_for(message)
                for envelope in [encode(message, queue, new_tag()).encode()]
            ]
            if files:
                self._files.put(files, os.path.join(self._out, ".celeriac", "tmp"))
        with self._changed:
            self._changed.notify_all()

    def _place(self, message: Message, name: Name, now: float) -> str:
        if message.eta is not None and message.eta > now and self._in == self._out:
            return os.path.join(self._own("delayed"), f"{int(message.eta * 1000) + 1:015d}.{name}")
        return os.path.join(self._out, str(name))

    def _queues_for(self, message: Message) -> list[str]:
        if message.queue:
            return [message.queue]
        bound = self._bindings.of(message.exchange) if message.exchange else ()
        return queues_for(message, bound, now=self._clock.now(), is_broadcast=message.exchange in self._broadcasts)

    # fetch

    def fetch(self, queues: Sequence[str], limit: int, wait: float, lease: float) -> list[Delivery]:
        """Lease messages; while there are none, looks again until `wait` is over."""
        deadline = Deadline(max(0.0, wait))
        interrupts, pause = self._interrupts, 0.002
        while True:
            with mapped_errors(self.url):
                taken = self._claim(queues, limit, lease)
            with self._changed:
                left = deadline.left() or 0.0
                if taken or left <= 0 or self._interrupts != interrupts:
                    return taken
                self._changed.wait(min(left, pause))
            pause = min(pause * 1.3, self._polling)

    def _claim(self, queues: Sequence[str], limit: int, lease: float) -> list[Delivery]:
        if not self._has_swept:
            self._files.sweep(self._own("tmp"))
            self._has_swept = True
        self._promote()
        waiting = {queue: iter(sorted(found)) for queue, found in self._candidates(queues).items()}
        taken: list[Delivery] = []
        for queue in self._turns(queues, waiting):
            delivery = self._next(queue, waiting[queue], lease)
            if delivery is None:
                del waiting[queue]
            else:
                taken.append(delivery)
            if len(taken) >= limit:
                break
        return taken

    def _turns(self, queues: Sequence[str], waiting: Mapping[str, Any]) -> Iterator[str]:
        """Queues in turn, another one first each time, as long as they are in `waiting`."""
        queues = list(dict.fromkeys(queues))
        self._turn += 1
        start = self._turn % max(1, len(queues))
        while waiting:
            yield from [queue for queue in (*queues[start:], *queues[:start]) if queue in waiting]

    def _candidates(self, queues: Sequence[str]) -> dict[str, list[tuple[str, str, Name]]]:
        """Order, path and name of what may be taken, by queue."""
        found: dict[str, list[tuple[str, str, Name]]] = {queue: [] for queue in queues}
        for text in listed(self._in):
            name = Name.parse(text)
            if name is not None and name.queue in found:
                found[name.queue].append((name.order, os.path.join(self._in, text), name))
        monotonic = self._clock.monotonic()
        for path, lease in self._leases():
            if lease.name.queue in found and lease.is_over(self._boot, monotonic):
                found[lease.name.queue].append((lease.name.order, path, lease.name))
        return found

    def _leases(self) -> list[tuple[str, Lease]]:
        texts = listed(self._own("leased"))
        return [(self._leased(text), lease) for text in texts if (lease := parse_lease(text)) is not None]

    def _leased(self, lease: Lease | str) -> str:
        return os.path.join(self._own("leased"), str(lease))

    def _next(self, queue: str, found: Iterator[tuple[str, str, Name]], seconds: float) -> Delivery | None:
        """Take the first that nobody else is faster to take."""
        for _, path, name in found:
            until = self._clock.monotonic() + seconds
            counted = name.counted(name.deliveries + 1, name.starts)
            lease = Lease(int(until * 1000), self._boot, os.urandom(8).hex(), counted)
            if not moved(path, self._leased(lease)):
                continue
            content = read(self._leased(lease))
            if content is None:
                continue
            message, _, _ = decode(content, queue)
            if message.eta is not None and message.eta > self._clock.now() and not name.deliveries:
                self._delay(self._leased(lease), name, message.eta)  # came through another folder
                continue
            self._held[lease.token] = lease
            return Delivery(
                message=message, queue=queue, token=lease.token, deadline=until, deliveries=counted.deliveries,
                starts=name.starts,
            )  # fmt: skip
        return None

    def _promote(self) -> None:
        """Put what is due into the data folder."""
        now_ms = self._clock.now() * 1000
        for text in listed(self._own("delayed")):
            due = parse_due(text)
            if due is not None and due[0] <= now_ms:
                moved(os.path.join(self._own("delayed"), text), os.path.join(self._in, str(due[1])))

    def _delay(self, path: str, name: Name, until: float) -> bool:
        return moved(path, os.path.join(self._own("delayed"), f"{int(until * 1000) + 1:015d}.{name}"))

    # what is on lease

    def _rename_held(self, delivery: Delivery, change: Any) -> bool:
        """Do `change(lease, path)` with the file of a delivery; False if its lease is lost."""
        for lease in (self._held.get(delivery.token), self._find(delivery.token)):
            if lease is not None and change(lease, self._leased(lease)):
                return True
        self._held.pop(delivery.token, None)
        return False

    def _find(self, token: str) -> Lease | None:
        return next((lease for _, lease in self._leases() if lease.token == token), None)

    def settle(self, settlements: Sequence[Settlement]) -> list[Delivery]:
        """End deliveries."""
        if not settlements:
            return []
        with mapped_errors(self.url):
            lost = [each.delivery for each in settlements if not self._settle(each)]
            self._files.sync([self._in, self._own("leased"), self._own("delayed"), self._own("dead")])
        with self._changed:
            self._changed.notify_all()
        return lost

    def _settle(self, settlement: Settlement) -> bool:
        delivery, action, until = settlement.delivery, settlement.action, settlement.until or 0.0
        # Counted from the delivery, not added up: mark_started may have charged this start already.
        starts = delivery.starts + settlement.charged

        def end(lease: Lease, path: str) -> bool:
            name = lease.name.counted(delivery.deliveries, starts)
            if action is Action.ACK:
                return self._finish(path, name)
            if action is Action.DEAD_LETTER:
                name = name.counted(delivery.deliveries, max(lease.name.starts, starts))
                return self._dead.bury(path, name, settlement.reason, self._clock.now())
            if action is Action.DEFER and until > self._clock.now():
                return self._delay(path, name, until)
            return moved(path, os.path.join(self._in, str(name)))

        is_done = self._rename_held(delivery, end)
        self._held.pop(delivery.token, None)
        return is_done

    def _finish(self, path: str, name: Name) -> bool:
        if self._processed:
            return moved(path, os.path.join(self._processed, str(name)))
        return removed(path)

    def commits_with(self, store: ResultStore) -> bool:
        """False: several files can't be changed in one step."""
        return False

    def commit(self, commits: Sequence[Commit]) -> list[Delivery]:
        """Never called, since `commits_with` is false.

        Raises:
            CeleriacError: Always.
        """
        raise CeleriacError("filesystem:// commits with no result store: store, publish and settle one after the other")

    def extend(self, deliveries: Sequence[Delivery], lease: float) -> list[Delivery]:
        """Renew leases."""
        until_ms = int((self._clock.monotonic() + lease) * 1000)
        return self._replace(deliveries, lambda old, _: Lease(until_ms, self._boot, old.token, old.name))

    def mark_started(self, deliveries: Sequence[Delivery]) -> None:
        """Charge a start to each delivery."""

        def charged(old: Lease, delivery: Delivery) -> Lease:
            name = old.name.counted(old.name.deliveries, delivery.starts + 1)
            return Lease(old.until_ms, old.boot, old.token, name)

        self._replace(deliveries, charged)

    def _replace(self, deliveries: Sequence[Delivery], replaced: Any) -> list[Delivery]:
        """Give leases other names; returns the deliveries that are lost."""
        lost = []
        with mapped_errors(self.url):
            for delivery in deliveries:

                def rename(lease: Lease, path: str, delivery: Delivery = delivery) -> bool:
                    new = replaced(lease, delivery)
                    if not moved(path, self._leased(new)):
                        return False
                    self._held[delivery.token] = new
                    return True

                if not self._rename_held(delivery, rename):
                    lost.append(delivery)
        return lost

    def interrupt(self) -> None:
        """Make every fetch that waits return."""
        with self._changed:
            self._interrupts += 1
            self._changed.notify_all()

    # queues

    def declare(self, queues: Sequence[Queue]) -> None:
        """Write bindings down. Queues themselves need no declaration."""
        self._broadcasts |= broadcast_exchanges(queues)
        with mapped_errors(self.url):
            expired = self._bindings.declare(queues, self._clock.now())
        for queue in expired:
            self.delete(queue)

    def delete(self, queue: str) -> int:
        """Remove a queue's messages and bindings."""
        with mapped_errors(self.url):
            self._bindings.forget(queue)
            leased = [path for path, lease in self._leases() if lease.name.queue == queue]
            return sum(map(removed, [*self._idle(queue), *leased]))

    def purge(self, queue: str) -> int:
        """Delete what is ready or delayed."""
        with mapped_errors(self.url):
            return sum(map(removed, self._idle(queue)))

    def _idle(self, queue: str) -> list[str]:
        """Paths of messages that are not on lease."""
        ready = [path for _, path, _ in self._candidates([queue])[queue]]
        return ready + [path for path, _ in self._delayed(queue)]

    def _delayed(self, queue: str) -> list[tuple[str, int]]:
        found = [(text, parse_due(text)) for text in listed(self._own("delayed"))]
        folder = self._own("delayed")
        return [(os.path.join(folder, text), due[0]) for text, due in found if due and due[1].queue == queue]

    def size(self, queue: str) -> QueueSize:
        """Count the queue's messages."""
        with mapped_errors(self.url):
            monotonic, now_ms = self._clock.monotonic(), self._clock.now() * 1000
            due = [due_ms <= now_ms for _, due_ms in self._delayed(queue)]
            over = [lease.is_over(self._boot, monotonic) for _, lease in self._leases() if lease.name.queue == queue]
            ready = len(self._candidates([queue])[queue]) + sum(due)
            return QueueSize(ready=ready, delayed=due.count(False), leased=over.count(False))

    # dead letters

    def dead_letters(self, limit: int = 100, queue: str | None = None) -> list[DeadLetter]:
        """Dead letters, newest first."""
        with mapped_errors(self.url):
            return self._dead.listed(limit, queue)

    def dead_letter(self, key: str) -> DeadLetter | None:
        """One of them, by its key or its task id."""
        with mapped_errors(self.url):
            return self._dead.found(key)

    def replay(self, keys: Sequence[str]) -> int:
        """Put dead letters back on their queues."""
        with mapped_errors(self.url):
            return self._dead.replay(keys)

    def discard(self, keys: Sequence[str]) -> int:
        """Delete dead letters."""
        with mapped_errors(self.url):
            return self._dead.discard(keys)

    # topics

    def broadcast(self, topic: str, payload: bytes) -> None:
        """Tell the subscribers of a topic."""
        with mapped_errors(self.url):
            broadcast(self._control, self._files, topic, payload)

    def subscribe(self, topics: Sequence[str]) -> Subscription:
        """Listen to topics."""
        return FilesystemSubscription(self._control, topics, self.url, self._polling)

    def durability_report(self) -> list[str]:
        """What this broker can lose, for people."""
        lines = []
        if not self._files.is_synchronous:
            lines.append("synchronous is NORMAL: a power cut loses the last messages; FULL keeps them")
        if self._in != self._out:
            lines.append(
                f"messages are written to {self._out} and read from {self._in}: another worker must read there"
            )
        return lines

    def close(self) -> None:
        """Nothing is held."""
