"""Dead letters at RabbitMQ: the durable queue `<queue>.dead` beside each queue that has any.

A dead letter is the message as it was, with headers that say why, when and out of which queue. The names of queues that have
dead letters are kept in a queue of their own, `celeriac.dead`, so that tools find them without knowing the app. AMQP can't
look into a queue, so listing takes everything out and gives it back in order: its cost grows with the queue, and of two who
list at one moment each sees a part. The transport calls it.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import msgspec

from celeriac.message import DeadLetter, Settlement
from celeriac.timing import Deadline
from celeriac.transport.amqp_channel import Channel, Letter, Pushed
from celeriac.transport.amqp_field import Properties, decode_properties, encode_properties
from celeriac.transport.amqp_link import Link
from celeriac.transport.amqp_message import read, to_properties
from celeriac.transport.amqp_publisher import Publisher
from celeriac.transport.amqp_request import cancel, consume, look_up
from celeriac.transport.amqp_session import Entry
from celeriac.transport.amqp_topology import Topology

__all__ = ["DeadLetters", "queue_for"]

_KEY, _REASON, _QUEUE, _DIED_AT = (f"x-celeriac-dead-{name}" for name in ("key", "reason", "queue", "at"))
_DELIVERIES, _STARTS, _RAW = (f"x-celeriac-dead-{name}" for name in ("deliveries", "starts", "properties"))
_OURS = frozenset({_KEY, _REASON, _QUEUE, _DIED_AT, _DELIVERIES, _STARTS, _RAW})


def queue_for(queue: str) -> str:
    """Name of the queue of dead letters beside a queue."""
    return f"{queue}.dead"


#: Holds the names of the queues that have dead letters.
_REGISTER = "celeriac.dead"


class DeadLetters:
    """Puts aside, lists, replays and discards.

    Args:
        topology: On the same link.
    """

    def __init__(self, link: Link, topology: Topology, publisher: Publisher) -> None:
        self._link = link
        self._topology = topology
        self._publisher = publisher
        self._registered: set[str] = set()

    def register(self, queue: str) -> None:
        """A queue is to have dead letters: see that they can be kept, and found."""
        deadline = self._link.deadline()
        self._topology.ensure_dead(queue_for(queue), deadline)
        if queue not in self._registered:
            self._topology.ensure_dead(_REGISTER, deadline)
            if queue not in self._names():
                raw = encode_properties(Properties(delivery_mode=2), len(queue.encode()))
                self._publisher.send([Letter("", _REGISTER, raw, queue.encode(), _REGISTER)])
            self._registered.add(queue)

    def _names(self) -> list[str]:
        """Queues that have, or had, dead letters."""
        names: dict[str, None] = {}
        with self._opened(_REGISTER) as opened:
            for pushed in opened.pushed:
                name = pushed.body.decode(errors="replace")
                # Two workers may have written it at one moment, and the queue may have been deleted since.
                if name in names or not self._topology.exists(queue_for(name)):
                    opened.remove([pushed.method.delivery_tag])
                else:
                    names[name] = None
        return sorted(names)

    def letter(self, settlement: Settlement, entry: Entry) -> Letter:
        """The dead letter that a delivery becomes."""
        delivery = settlement.delivery
        headers: dict[str, Any] = {
            _KEY: f"{delivery.queue}:{uuid.uuid4().hex}", _REASON: settlement.reason, _QUEUE: delivery.queue,
            _DIED_AT: time.time(), _DELIVERIES: delivery.deliveries, _STARTS: delivery.starts + settlement.charged,
        }  # fmt: skip
        if delivery.message.defect:  # what can't be read is kept byte by byte
            properties = Properties(headers={**headers, _RAW: entry.pushed.header}, delivery_mode=2)
        else:
            properties = to_properties(delivery.message, is_delayed=True, extra=headers)
        body = entry.pushed.body
        raw = encode_properties(properties, len(body))
        return Letter("", queue_for(delivery.queue), raw, body, queue_for(delivery.queue), delivery.message.id)

    def listed(self, limit: int, queue: str | None = None) -> list[DeadLetter]:
        """Dead letters, newest first."""
        found: list[DeadLetter] = []
        for name in [queue] if queue is not None else self._names():
            with self._opened(queue_for(name)) as opened:
                found += [_dead_letter(pushed, name) for pushed in opened.pushed]
        found.sort(key=lambda letter: letter.died_at)
        return found[::-1][:limit]

    def found(self, key: str) -> DeadLetter | None:
        """The dead letter with this key, else the newest one of this task id."""
        exact = key.rpartition(":")[0]
        candidates = self.listed(2**31, exact) if exact else []
        named = next((letter for letter in candidates if letter.key == key), None)
        if named is not None:
            return named
        return next((letter for letter in self.listed(2**31) if letter.message.id == key), None)

    def replay(self, keys: Sequence[str]) -> int:
        """Put dead letters back on their queues with counts at zero."""
        return self._remove(keys, self._send_back)

    def discard(self, keys: Sequence[str]) -> int:
        """Delete dead letters."""
        return self._remove(keys, lambda letters: None)

    def _remove(self, keys: Sequence[str], treat: Callable[[list[Letter]], None]) -> int:
        wanted = set(keys)
        queues = {key.rpartition(":")[0] for key in wanted if ":" in key}
        others = self._names() if any(":" not in key for key in wanted) else ()
        removed = 0
        for name in sorted({*queues, *others}):
            with self._opened(queue_for(name)) as opened:
                chosen = [
                    (pushed, letter)
                    for pushed in opened.pushed
                    if (letter := _dead_letter(pushed, name)).key in wanted or letter.message.id in wanted
                ]
                treat([_revived(pushed, letter) for pushed, letter in chosen])
                opened.remove([pushed.method.delivery_tag for pushed, _ in chosen])
                removed += len(chosen)
        return removed

    def _send_back(self, letters: list[Letter]) -> None:
        self._publisher.send(letters)

    @contextmanager
    def _opened(self, name: str) -> Iterator[_Opened]:
        """All messages of a queue in our hands; what is not removed goes back in the end."""
        deadline = self._link.deadline()
        count = self._topology.count(name, deadline)
        if not count:
            yield _Opened([])
            return
        channel = self._link.channel(deadline)
        try:
            channel.ask(deadline, consume(name, "dead"))
            opened = _Opened(_receive(channel, count, deadline))
            channel.ask(deadline, cancel("dead"))
            opened.pushed += channel.inbox
            yield opened
            self._put_back(channel, name, opened, deadline)
        finally:
            channel.close()  # whatever happens, the server takes back what is not acknowledged

    def _put_back(self, channel: Channel, name: str, opened: _Opened, deadline: Deadline) -> None:
        removed = set(opened.removed)
        tags = [pushed.method.delivery_tag for pushed in opened.pushed]
        channel.acknowledge([(tag, False) for tag in opened.removed], [tag for tag in tags if tag not in removed])
        channel.ask(deadline, look_up(name))  # answered when all of it is done


class _Opened:
    """The content of one queue."""

    def __init__(self, pushed: list[Pushed]) -> None:
        self.pushed = pushed
        self.removed: list[int] = []

    def remove(self, tags: Iterable[int]) -> None:
        """These are not to go back."""
        self.removed += tags


def _receive(channel: Channel, count: int, deadline: Deadline) -> list[Pushed]:
    """As many messages as there are; fewer if another reader has them."""
    received: list[Pushed] = []
    while len(received) < count and not deadline.passed():
        if channel.error is not None:
            break
        if not channel.inbox:
            channel.wait(min(0.5, deadline.left() or 0.0), bool)
            if not channel.inbox:
                break
        while channel.inbox:
            received.append(channel.inbox.popleft())
    return received


def _dead_letter(pushed: Pushed, queue: str) -> DeadLetter:
    headers = decode_properties(pushed.header).headers or {}
    raw = headers.get(_RAW)
    envelope = read(pushed._replace(header=raw) if isinstance(raw, bytes) else pushed, str(headers.get(_QUEUE, queue)))
    message = envelope.message
    clean = {name: value for name, value in message.headers.items() if name not in _OURS}
    return DeadLetter(
        key=str(headers.get(_KEY, "")),
        message=msgspec.structs.replace(message, headers=clean),
        queue=str(headers.get(_QUEUE, queue)),
        reason=str(headers.get(_REASON, "")),
        died_at=float(headers.get(_DIED_AT) or 0.0),
        deliveries=int(headers.get(_DELIVERIES) or 0),
        starts=int(headers.get(_STARTS) or 0),
    )


def _revived(pushed: Pushed, letter: DeadLetter) -> Letter:
    """The message as it was before it died."""
    raw = (decode_properties(pushed.header).headers or {}).get(_RAW)
    if not isinstance(raw, bytes):
        raw = encode_properties(to_properties(letter.message, is_delayed=True), len(pushed.body))
    return Letter("", letter.queue, raw, pushed.body, letter.queue)
