"""Redis as broker, in kombu's layout, so that stock Celery's clients and workers share queues with ours.

Opened by `transport.open` for `redis://…` and the other Redis schemes. Fetching takes and leases a batch in one script:
there is no moment at which a message lives in one process only, and a kill -9 at any point loses nothing. Waiting is
`redis_bell`'s: it is told of changes and takes nothing. Publishing is one command, or one MULTI for several messages.

Invariants: every verb that changes a message is one script (`redis_lua` tells the keys); a lease is named by its token,
and whoever presents another token changes nothing; leases and delays run by the server's clock.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from celeriac.errors import ImproperlyConfigured, MessageTooLarge
from celeriac.log import get_logger
from celeriac.message import Action, ControlMessage, DeadLetter, Delivery, Message, Settlement
from celeriac.results.base import Record, ResultStore
from celeriac.results.redis import RedisStore
from celeriac.results.redis_connection import Argument, Script, Server
from celeriac.results.redis_url import parse_url
from celeriac.routing import Queue, is_copy
from celeriac.transport.base import Box, Capabilities, Claim, Commit, Mailbox, QueueSize, Subscription
from celeriac.transport.binding import queues_for
from celeriac.transport.redis_bell import Bell
from celeriac.transport.redis_bindings import Bindings, expiry
from celeriac.transport.redis_dead_letters import DeadLetters, letter_head
from celeriac.transport.redis_durability import durability_report
from celeriac.transport.redis_envelope import decode, encode, new_tag
from celeriac.transport.redis_fanout import FanoutListener, marked
from celeriac.transport.redis_keys import OPTIONS, Keys
from celeriac.transport.redis_lua import COMMIT, DELETE, EXTEND, FETCH, PURGE, SIZE, START
from celeriac.transport.redis_mailbox import open_mailbox, post
from celeriac.transport.redis_restore import restore
from celeriac.transport.redis_subscription import RedisSubscription
from celeriac.transport.redis_under_way import UnderWay

__all__ = ["RedisTransport"]

logger = get_logger("celeriac.transport.redis")

#: A value in Redis has at most 512 MB; base64 makes four bytes of three, and the headers need some room.
MAX_BYTES = 380_000_000
#: Messages in one publish when there are many: it takes 9 µs of CPU for each, 11 with 1000 at a time.
BATCH = 250
#: Messages in one fetch, and commits in one script, so that no script keeps the server long.
STEP = 500
#: Seconds between two looks at the server's clock.
CLOCK_EVERY = 60.0
#: What the script of a fetch says when it comes too late.
_LATE = -2
#: Seconds between two looks at what stock workers left behind; a quarter of a short visibility timeout.
RESTORE_EVERY = 60.0

#: Present while a celeriac worker fetches from this database, and for so many seconds after.
MOVER_KEY, MOVER_LIFE = "celeriac:mover", 60
#: Seconds for which a publisher goes by what it last heard of that.
MOVER_KNOWN = 5.0

_ACTIONS = {Action.ACK: "a", Action.REQUEUE: "r", Action.DEFER: "d", Action.DEAD_LETTER: "x"}
_Command = tuple[Argument, ...]


class _Wish(NamedTuple):
    """What is asked for: its queues in turn, their lists, what the script is told, and when the leases end."""

    queues: list[str]
    lists: list[str]
    words: tuple[Argument, ...]
    deadline: float


class RedisTransport:
    """The broker in a Redis database. See `transport.base.Transport` for the verbs.

    Args:
        url: `redis://[user:password@]host[:port]/db`, or another of the forms in `results.redis_url`.
        options: Of the connection, and those in `redis_keys.OPTIONS`.
    """

    def __init__(self, url: str, options: Mapping[str, Any] | None = None) -> None:
        self.settings, own = parse_url(url, options or {}, OPTIONS)
        self.url = self.settings.url
        self._keys = Keys.from_options(own, self.settings.db, self.settings.tag)
        self.capabilities = Capabilities(
            priorities=len(self._keys.steps),
            urgent="high" if self._keys.highest_first else "low",
            max_bytes=MAX_BYTES,
            batch=BATCH,
            fetches_on_commit=True,
            publishes_ahead=True,
        )
        self._server = Server(self.settings)
        self._bindings = Bindings(self._server, self._keys)
        self._dead = DeadLetters(self._server, self._keys)
        self._store: RedisStore | None = None
        self._lock = threading.Lock()
        self._idle_bells: list[Bell] = []
        self._busy_bells: set[Bell] = set()
        self._interrupts = 0
        self._turn = 0
        self._expiring: dict[str, Queue] = {}
        self._listeners: dict[str, FanoutListener] = {}
        self._restore_at = 0.0
        self._beat_at = 0.0
        self._clock_ahead, self._clock_read_at = 0.0, -math.inf
        self._mover_until = 0.0
        self._has_mover = False
        self._is_checked = False

    # publishing

    def publish(self, messages: Sequence[Message]) -> None:
        """Hand messages to the server, all or none of them."""
        self.begin_publish(messages)()

    def begin_publish(self, messages: Sequence[Message]) -> Callable[[], None]:
        """Send messages; returns what waits until the server has them."""
        commands = self._commands(messages)
        return self._server.begin(commands) if commands else lambda: None

    def _commands(self, messages: Sequence[Message]) -> list[_Command]:
        """What publishes these messages. Raises before anything is sent."""
        lists: dict[str, list[str]] = {}
        known: dict[tuple[str, int | None], list[str]] = {}
        others: list[_Command] = []
        for message in messages:
            if len(message.body) > MAX_BYTES:
                raise MessageTooLarge(f"Message {message.id!r} has {len(message.body)} bytes; Redis takes {MAX_BYTES}.")
            for queue in (message.queue,) if message.queue else self._route(message, others):
                tag = new_tag()
                element = encode(message, queue, tag)
                if message.eta is not None and message.eta > time.time() and self._delays_at_publish():
                    name = self._keys.list_for(queue, message.priority)
                    others += self._delay(queue, f"{tag}:{name}\n{element}", message.eta)
                    continue
                elements = known.get((queue, message.priority))
                if elements is None:
                    elements = lists.setdefault(self._keys.key(self._keys.list_for(queue, message.priority)), [])
                    known[queue, message.priority] = elements
                elements.append(element)
        for queue in {queue for queue, _ in known} & self._expiring.keys():
            others += self._expire(queue)
        return [*[("LPUSH", key, *elements) for key, elements in lists.items()], *others]

    def _route(self, message: Message, others: list[_Command]) -> list[str]:
        if not message.exchange:
            return queues_for(message, ())
        queues, is_fanout = self._bindings.route(message)
        if is_fanout:  # stock workers listen to the channel
            topic = f"{message.exchange}/{message.routing_key}" if message.routing_key else message.exchange
            others.append(
                ("PUBLISH", self._keys.channel(topic), marked(encode(message, message.routing_key, new_tag())))
            )
        return queues

    def _delays_at_publish(self) -> bool:
        """Whether somebody is there who moves delayed messages to their lists when they are due."""
        if self._keys.delay_at_publish is not None:
            return self._keys.delay_at_publish
        if time.monotonic() >= self._mover_until:
            self._has_mover = bool(self._server.call("EXISTS", self._keys.key(MOVER_KEY)))
            self._mover_until = time.monotonic() + MOVER_KNOWN
        return self._has_mover

    def _delay(self, queue: str, member: str, until: float) -> list[_Command]:
        moment = int(until * 1000) + 1
        return [
            ("ZADD", self._keys.key(f"celeriac:delayed:{queue}"), moment, member),
            ("ZADD", self._keys.key("celeriac:agenda"), "LT", moment, f"d{queue}"),
        ]

    def _expire(self, queue: str) -> list[_Command]:
        milliseconds = expiry(self._expiring[queue]) or 1
        return [("PEXPIRE", key, milliseconds) for key in self._keys.lists(queue)]

    # fetching

    def fetch(self, queues: Sequence[str], limit: int, wait: float, lease: float) -> list[Delivery]:
        """Lease messages; while there are none, wait until the server tells of a change."""
        if time.monotonic() >= self._restore_at:
            self._look_after()
        if time.monotonic() >= self._beat_at:
            self._server.call("SET", self._keys.key(MOVER_KEY), "1", "EX", MOVER_LIFE)
            self._beat_at = time.monotonic() + MOVER_LIFE / 3
        if wait <= 0:
            return self._claim(queues, limit, lease)[0]
        deadline = time.monotonic() + wait
        interrupts = self._interrupts
        bell = self._acquire_bell()
        try:
            listens = not bell.is_hopeful
            while True:
                deliveries, pause = self._claim(queues, limit, lease, bell, listens=listens)
                left = deadline - time.monotonic()
                if deliveries or left <= 0 or self._interrupts != interrupts:
                    break
                if listens:
                    bell.wait(min(left, pause))
                listens = not (listens and bell.is_hopeful)
        except BaseException:
            self._busy_bells.discard(bell)
            bell.close()
            raise
        if deliveries:
            bell.satisfied(more=len(deliveries) >= limit)
        self._release_bell(bell)
        return deliveries

    def _claim(
        self, queues: Sequence[str], limit: int, lease: float, bell: Bell | None = None, *, listens: bool = False
    ) -> tuple[list[Delivery], float]:
        """One attempt; also returns how many seconds it may be until something is due."""
        wish = self._wish(queues, limit, limit, lease)
        keys = [*self._keys.heads(), *wish.lists]
        args = (self._keys.prefix, *wish.words)
        listened = keys[3:] if listens else ()  # the agenda and the lists
        answer: Any = bell.run(FETCH, keys, args, listened) if bell is not None else self._server.run(FETCH, keys, args)
        if answer[0] == _LATE:  # by the server's clock, which has jumped
            self._clock_read_at = -math.inf
            return [], 0.0
        return self._deliveries(wish, answer), answer[0] / 1000 if answer[0] >= 0 else 3600.0

    def _wish(self, queues: Sequence[str], limit: int, from_lists: int, lease: float) -> _Wish:
        order = self._ordered(queues)
        lists = [self._keys.lists(queue) for queue in order]
        shares = "1" if self._keys.order not in ("priority", "sorted") else "0"
        return _Wish(
            order,
            [of_queue[number] for number in range(len(self._keys.steps)) for of_queue in lists],
            (
                os.urandom(8).hex(), min(limit, STEP), min(from_lists, STEP), int(lease * 1000), len(order), shares,
                *order, self._awaited_until(),
            ),
            time.monotonic() + lease,
        )  # fmt: skip

    def _deliveries(self, wish: _Wish, answer: Any) -> list[Delivery]:
        names = {
            self._keys.list_name(queue, step).encode(): queue for queue in wish.queues for step in self._keys.steps
        }
        deliveries = []
        for number in range(1, len(answer), 2):
            token = answer[number]
            queue = names[token.partition(b":")[2]]
            message, count, starts = decode(answer[number + 1], queue)
            deliveries.append(
                Delivery(
                    message=message, queue=queue, token=token, deadline=wish.deadline, deliveries=max(1, count),
                    starts=starts,
                )
            )  # fmt: skip
        return deliveries

    def _awaited_until(self) -> int:
        """Until when we wait for an answer that is asked for now, in milliseconds of the server's clock.

        A server that was frozen carries out what it was asked before, although nobody waits any more: it must lease nothing then.
        """
        now = time.monotonic()
        if now - self._clock_read_at > CLOCK_EVERY:
            self._clock_ahead = self.server_time() - time.monotonic()
            self._clock_read_at = now
        return int((time.monotonic() + self._clock_ahead + self.settings.timeout) * 1000)

    def _ordered(self, queues: Sequence[str]) -> list[str]:
        """The queues, another one first each time."""
        if self._keys.order == "sorted":
            return sorted(queues)
        if self._keys.order == "priority" or len(queues) < 2:
            return list(queues)
        self._turn = turn = (self._turn + 1) % len(queues)
        return [*queues[turn:], *queues[:turn]]

    def _acquire_bell(self) -> Bell:
        with self._lock:
            while self._idle_bells:
                bell = self._idle_bells.pop()
                if bell.is_usable():
                    self._busy_bells.add(bell)
                    return bell
                bell.close()
        bell = Bell(self._server, self._keys.polling_interval)
        with self._lock:
            self._busy_bells.add(bell)
        return bell

    def _release_bell(self, bell: Bell) -> None:
        with self._lock:
            self._busy_bells.discard(bell)
            self._idle_bells.append(bell)

    def interrupt(self) -> None:
        """Make every fetch that waits return."""
        with self._lock:
            self._interrupts += 1
            for bell in self._busy_bells:
                bell.interrupt()

    def _look_after(self) -> None:
        """Once a minute, while fetching: what stock workers left behind, and signs of life of expiring queues."""
        self._restore_at = time.monotonic() + min(RESTORE_EVERY, self._keys.visibility_timeout / 4)
        if not self._is_checked:
            for line in self.durability_report():
                logger.warning("%s: %s", self.url, line)
            self._is_checked = True
        if self._expiring:
            self.declare(list(self._expiring.values()))
        restore(self._server, self._keys, self._bindings)

    def durability_report(self) -> list[str]:
        """What the server may lose, one line each."""
        return durability_report(self._server)

    def server_time(self) -> float:
        """Seconds since 1970 by the server's clock."""
        seconds, microseconds = self._server.call("TIME")
        return int(seconds) + int(microseconds) / 1e6

    # ending deliveries

    def settle(self, settlements: Sequence[Settlement]) -> list[Delivery]:
        """End deliveries."""
        return self.commit([Commit(settlement) for settlement in settlements])

    def commits_with(self, store: ResultStore) -> bool:
        """True for the Redis store on the same database."""
        if not isinstance(store, RedisStore) or store.settings.identity != self.settings.identity:
            return False
        self._store = store
        return True

    def commit(self, commits: Sequence[Commit]) -> list[Delivery]:
        """Settle, store and publish, in one script."""
        return self._commit(commits, None)[0]

    def commit_and_fetch(self, commits: Sequence[Commit], claim: Claim) -> tuple[list[Delivery], list[Delivery]]:
        """The same, and lease messages in the very script."""
        # What a fetch does beside must not be put off.
        is_due = time.monotonic() >= min(self._restore_at, self._beat_at)
        return self._commit(commits, None if is_due else self._wish(*claim))

    def begin_commit(self, commits: Sequence[Commit], claim: Claim | None) -> UnderWay | None:
        """The same without waiting: on an open connection, if nothing else has to be asked or looked after first."""
        now = time.monotonic()
        messages = [message for commit in commits for message in commit.messages]
        if len(commits) > STEP or self.settings.tls or any(each.eta or not each.queue for each in messages):
            return None  # the socket of a TLS connection does not tell whether the answer has come
        if claim is not None and now - self._clock_read_at > CLOCK_EVERY:
            return None
        wish = None if claim is None or now >= min(self._restore_at, self._beat_at) else self._wish(*claim)
        keys, args = self._step(map(self._commit_arguments, commits), wish)
        return UnderWay.begin(self._server, COMMIT, keys, args, partial(self._understood, commits, wish))

    def _commit(self, commits: Sequence[Commit], wish: _Wish | None) -> tuple[list[Delivery], list[Delivery]]:
        lost: list[Delivery] = []
        came: list[Delivery] = []
        prepared = [self._commit_arguments(commit) for commit in commits]  # all of them, before anything is sent
        for start in range(0, len(commits), STEP):
            last = wish if start + STEP >= len(commits) else None
            keys, args = self._step(prepared[start : start + STEP], last)
            lost_now, came = self._understood(commits[start:], last, self._server.run(COMMIT, keys, args))
            lost += lost_now
        return lost, came

    def _step(self, prepared: Iterable[list[Argument]], wish: _Wish | None) -> tuple[list[str], list[Argument]]:
        """Keys and arguments of one script."""
        keys = self._keys.heads()
        args: list[Argument] = [self._keys.prefix, "0"]
        if wish is not None:
            keys += wish.lists
            args[1:] = ("1", *wish.words)
        for words in prepared:
            args += words
        return keys, args

    def _understood(
        self, commits: Sequence[Commit], wish: _Wish | None, reply: Any
    ) -> tuple[list[Delivery], list[Delivery]]:
        numbers, answer = reply
        lost = [commits[number - 1].settlement.delivery for number in numbers]
        return lost, self._deliveries(wish, answer) if wish is not None else []

    def publish_recorded(self, messages: Sequence[Message], records: Sequence[Record]) -> None:
        """Store and publish in one script for each group of records; the messages come with the last one."""
        words: list[Argument] = [self._keys.prefix, "0"]
        for number, record in enumerate(records, 1):
            commands = self._commands(messages) if number == len(records) else ()
            words += ("", "", "a", 0, "", 6, *self._record_arguments(record), len(commands))
            for command in commands:
                words += (len(command), *command)
        self._server.run(COMMIT, self._keys.heads(), words)

    def _commit_arguments(self, commit: Commit) -> list[Argument]:
        settlement = commit.settlement
        delivery = settlement.delivery
        about: Argument = ""
        if settlement.action is Action.DEFER:
            about = int((settlement.until or 0.0) * 1000) + 1
        elif settlement.action is Action.DEAD_LETTER:
            about = letter_head(settlement, self._keys.prefix + delivery.token.partition(b":")[2].decode())
        # Counted from the delivery, not added up: mark_started may have charged this start already.
        starts = delivery.starts + settlement.charged
        words: list[Argument] = [delivery.token, delivery.queue, _ACTIONS[settlement.action], starts, about]
        if commit.record is None:
            words.append(0)
        else:
            words += (6, *self._record_arguments(commit.record))
        commands = self._commands(commit.messages) if commit.messages else ()
        words.append(len(commands))
        for command in commands:
            words += (len(command), *command)
        return words

    def _record_arguments(self, record: Record) -> tuple[Argument, ...]:
        if self._store is None:
            raise ImproperlyConfigured("commit() needs a result store: ask commits_with(store) first")
        return self._store.arguments(record)

    def extend(self, deliveries: Sequence[Delivery], lease: float) -> list[Delivery]:
        """Renew leases."""
        lost: list[Delivery] = []
        for start in range(0, len(deliveries), STEP):
            step = deliveries[start : start + STEP]
            args: list[Argument] = [self._keys.prefix, int(lease * 1000)]
            for delivery in step:
                args += (delivery.token, delivery.queue)
            lost += [step[number - 1] for number in self._server.run(EXTEND, self._keys.heads(), args)]
        return lost

    def mark_started(self, deliveries: Sequence[Delivery]) -> None:
        """Charge a start to each delivery."""
        for start in range(0, len(deliveries), STEP):
            args: list[Argument] = [self._keys.prefix]
            for delivery in deliveries[start : start + STEP]:
                args += (delivery.token, delivery.queue, delivery.starts + 1)
            self._server.run(START, self._keys.heads(), args)

    # queues

    def declare(self, queues: Sequence[Queue]) -> None:
        """Write bindings. Queues themselves need no declaration."""
        self._expiring |= {q.name: q for q in queues if expiry(q) is not None and not is_copy(q.name)}
        for name in self._bindings.declare(queues):
            self.delete(name)
        for queue in queues:
            if is_copy(queue.name) and queue.exchange.type == "fanout":
                with self._lock:
                    if queue.name not in self._listeners:
                        self._listeners[queue.name] = FanoutListener(
                            self._server, self._keys, queue.exchange.name, queue.name
                        )

    def delete(self, queue: str) -> int:
        """Remove a queue's messages and bindings."""
        self._expiring.pop(queue, None)
        self._close_listeners([queue])
        self._bindings.remove(queue)
        return int(self._about_queue(DELETE, queue))

    def purge(self, queue: str) -> int:
        """Delete what is ready or delayed."""
        return int(self._about_queue(PURGE, queue))

    def size(self, queue: str) -> QueueSize:
        """Count the queue's messages. Those that stock workers hold can't be told by queue and are not counted."""
        ready, delayed, leased = self._about_queue(SIZE, queue)
        return QueueSize(ready=ready, delayed=delayed, leased=leased)

    def _close_listeners(self, queues: Iterable[str]) -> None:
        with self._lock:
            listeners = [self._listeners.pop(queue, None) for queue in queues]
        for listener in listeners:
            if listener is not None:
                listener.close()

    def _about_queue(self, script: Script, queue: str) -> Any:
        keys = [*self._keys.heads(), *self._keys.lists(queue)]
        return self._server.run(script, keys, (self._keys.prefix, queue))

    # dead letters

    def dead_letters(self, limit: int = 100, queue: str | None = None) -> list[DeadLetter]:
        """Dead letters, newest first."""
        return self._dead.listed(limit, queue)

    def dead_letter(self, key: str) -> DeadLetter | None:
        """One of them, by its key or its task id."""
        return self._dead.found(key)

    def replay(self, keys: Sequence[str]) -> int:
        """Put dead letters back on their queues."""
        return self._dead.replay(keys)

    def discard(self, keys: Sequence[str]) -> int:
        """Delete dead letters."""
        return self._dead.discard(keys)

    # broadcast

    def broadcast(self, topic: str, payload: bytes) -> None:
        """Tell the present subscribers of a topic."""
        self._server.call("PUBLISH", self._keys.channel(topic), payload)

    def subscribe(self, topics: Sequence[str]) -> Subscription:
        """Listen to topics."""
        return RedisSubscription(self._server, self._keys, topics)

    def post(self, message: ControlMessage, exchange: str, key: str = "") -> None:
        """Send a control message as kombu does."""
        post(self._server, self._keys, self._bindings, message, exchange, key)

    def open_mailbox(self, box: Box) -> Mailbox:
        """Receive control messages."""
        return open_mailbox(self._server, self._keys, self._bindings, box)

    def close(self) -> None:
        """Close idle connections."""
        with self._lock:
            bells, self._idle_bells = self._idle_bells, []
        self._close_listeners(list(self._listeners))
        for bell in bells:
            bell.close()
        self._server.close()
