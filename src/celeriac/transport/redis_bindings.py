"""Exchanges on Redis: kombu's binding tables, and a table of our own for what these can't say.

The Redis transport declares and looks up through it. Kombu keeps routing key, pattern and queue, but not the kind of
exchange; `celeriac:bindings.<exchange>` keeps whole bindings. A message goes to each queue that either table binds.
A worker's copy of a broadcast queue is in kombu's table, too: a stock client that has not declared the exchange takes it for a
direct one, and pushes to what it finds there.
Expiring queues are noted in `binding_deadlines`, so that stock 5.7 sweeps their tables and not those of other queues.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from celeriac.errors import QueueNotFound
from celeriac.message import Message
from celeriac.results.redis_connection import Argument, Script, Server
from celeriac.routing import Queue, binding, binding_matches, is_copy
from celeriac.transport.binding import Binding, bindings_of, broadcast_exchanges, expired, queues_for
from celeriac.transport.redis_keys import Keys

__all__ = ["Bindings", "kombu_pattern"]

#: Milliseconds that a table outlives the last sign of life of an expiring queue, at least.
_KEPT = 3_600_000

#: KEYS: binding table, deadlines. ARGV: member, exchange, milliseconds to keep the table.
_BIND_EXPIRING = Script(
    r"""
redis.call('SADD', KEYS[1], ARGV[1])
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
return redis.call('ZADD', KEYS[2], 'GT', now + tonumber(ARGV[3]), ARGV[2])
"""
)


class _Entry(msgspec.Struct, frozen=True, array_like=True):
    """A binding in our table, and in the registry of a queue's exchanges."""

    queue: str
    type: str
    routing_key: str
    arguments: dict[str, Any] = {}


_encode = msgspec.json.Encoder(order="sorted").encode
_decoder = msgspec.json.Decoder(_Entry)


class Bindings:
    """The bindings of one broker."""

    def __init__(self, server: Server, keys: Keys) -> None:
        self._server = server
        self._keys = keys
        #: Exchanges of broadcast queues: stock listeners may be all there are.
        self._broadcasts: set[str] = set()

    def _table(self, exchange: str) -> str:
        return self._keys.key(f"celeriac:bindings.{exchange}")

    def _kombu(self, exchange: str) -> str:
        return self._keys.key(f"_kombu.binding.{exchange}")

    def declare(self, queues: Sequence[Queue]) -> set[str]:
        """Write bindings to both tables; returns the queues that have expired."""
        self._broadcasts |= broadcast_exchanges(queues)
        now = self._time() if any(queue.life is not None for queue in queues) else 0.0
        commands: list[Sequence[Argument]] = []
        over: set[str] = set()
        for queue in queues:
            made = bindings_of(queue, now)
            new = set()
            for exchange, each in made:
                entry = _encode(_Entry(each.queue, each.exchange_type, each.routing_key, each.arguments))
                new.add(entry)
                commands.append(("SADD", self._table(exchange), entry))
                commands.append(("SADD", self._keys.key("celeriac:exchanges"), exchange))
            for each_binding in queue.all_bindings if made else ():
                if each_binding.exchange.type in ("direct", "topic") or is_copy(queue.name):
                    commands += self._kombu_commands(queue, each_binding)
            if queue.life is not None:
                for exchange in {exchange for exchange, _ in made}:
                    commands += self._outdated(queue.name, exchange, new)
                    over |= expired(self._entries(exchange), now) - {queue.name}
        if commands:
            self._server.pipeline(commands)
        return over

    def _time(self) -> float:
        seconds, microseconds = self._server.call("TIME")
        return int(seconds) + int(microseconds) / 1e6

    def _entries(self, exchange: str) -> list[Binding]:
        return _readable(self._server.call("SMEMBERS", self._table(exchange)))

    def _outdated(self, queue: str, exchange: str, new: set[bytes]) -> list[Sequence[Argument]]:
        """Commands that remove what our table says of a queue so far. They come after those that bind it anew."""
        members = self._server.call("SMEMBERS", self._table(exchange))
        old = [member for member in members if member not in new and self._is_of(member, queue)]
        return [("SREM", self._table(exchange), *old)] if old else []

    def _kombu_commands(self, queue: Queue, bound: binding) -> list[Sequence[Argument]]:
        exchange = bound.exchange
        pattern = kombu_pattern(bound.routing_key) if exchange.type == "topic" else ""
        member = self._keys.sep.join((bound.routing_key, pattern, queue.name))
        expires = expiry(queue)
        if expires is None:
            permanent = self._keys.key(f"_kombu.binding_permanent.{exchange.name}")
            return [("SADD", self._kombu(exchange.name), member), ("SADD", permanent, member)]
        kept = max(2 * expires, _KEPT)
        deadlines = self._keys.key("_kombu.binding_deadlines")
        return [
            ("EVAL", _BIND_EXPIRING.source, 2, self._kombu(exchange.name), deadlines, member, exchange.name, kept),
        ]  # fmt: skip

    def route(self, message: Message) -> tuple[list[str], bool]:
        """The queues that get a message, and whether its exchange is a fan-out, whose stock listeners are to be told.

        Raises:
            QueueNotFound: No queue is bound for it.
        """
        ours, theirs, (seconds, _) = self._server.pipeline(
            [("SMEMBERS", self._table(message.exchange)), ("SMEMBERS", self._kombu(message.exchange)), ("TIME",)]
        )
        bindings = sorted(_readable(ours), key=_by_queue)
        is_broadcast = message.exchange in self._broadcasts
        is_fanout = is_broadcast or any(each.exchange_type == "fanout" for each in bindings)
        found = {} if is_fanout else dict.fromkeys(self._kombu_queues(theirs, message.routing_key))
        try:
            found |= dict.fromkeys(queues_for(message, bindings, now=int(seconds), is_broadcast=is_broadcast))
        except QueueNotFound:
            if not found:
                raise
        return list(found), is_fanout

    def _kombu_queues(self, members: Iterable[bytes], routing_key: str) -> list[str]:
        found = []
        for member in members:
            parts = member.decode(errors="replace").split(self._keys.sep)
            if len(parts) == 3 and _kombu_matches(parts[0], parts[1], routing_key):
                found.append(parts[2])
        return sorted(found)

    def queues_of(self, exchange: str, routing_key: str) -> list[str]:
        """Where a message of a stock client belongs; [] if nowhere."""
        if not exchange:
            return [routing_key] if routing_key else []
        message = Message(id="", headers={}, body=b"", exchange=exchange, routing_key=routing_key)
        try:
            return self.route(message)[0]
        except QueueNotFound:
            return []

    def bind_for_a_while(self, exchange: str, routing_key: str, queue: str) -> None:
        """Bind a queue that expires; stock 5.7 sweeps the table if nobody unbinds it."""
        member = f"{routing_key}{self._keys.sep}{self._keys.sep}{queue}"
        tables = [self._kombu(exchange), self._keys.key("_kombu.binding_deadlines")]
        self._server.run(_BIND_EXPIRING, tables, [member, exchange, _KEPT])

    def unbind(self, exchange: str, routing_key: str, queue: str) -> None:
        """Undo `bind_for_a_while`."""
        self._server.call("SREM", self._kombu(exchange), f"{routing_key}{self._keys.sep}{self._keys.sep}{queue}")

    def remove(self, queue: str) -> None:
        """Unbind a queue from all exchanges that we know of."""
        exchanges = [name.decode() for name in self._server.call("SMEMBERS", self._keys.key("celeriac:exchanges"))]
        commands: list[Sequence[Argument]] = []
        for exchange in exchanges:
            tables = (
                self._table(exchange),
                self._kombu(exchange),
                self._keys.key(f"_kombu.binding_permanent.{exchange}"),
            )
            for table, members in zip(tables, self._server.pipeline([("SMEMBERS", t) for t in tables]), strict=True):
                gone = [member for member in members if self._is_of(member, queue)]
                if gone:
                    commands.append(("SREM", table, *gone))
        if commands:
            self._server.pipeline(commands)

    def _is_of(self, member: bytes, queue: str) -> bool:
        bound = _decoded(member)
        if bound is not None:
            return bound.queue == queue
        return member.decode(errors="replace").split(self._keys.sep)[-1] == queue


def _decoded(member: bytes) -> Binding | None:
    """A binding in our table; None for what nobody of ours wrote."""
    try:
        entry = _decoder.decode(member)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    return Binding(entry.queue, entry.type, entry.routing_key, entry.arguments)


def _readable(members: Iterable[bytes]) -> list[Binding]:
    return [each for member in members if (each := _decoded(member)) is not None]


def _by_queue(bound: Binding) -> str:
    return bound.queue


def _kombu_matches(key: str, pattern: str, routing_key: str) -> bool:
    if not pattern:
        return key == routing_key or (("*" in key or "#" in key) and binding_matches("topic", key, routing_key))
    try:
        return re.match(pattern, routing_key) is not None
    except re.error:
        return False


def expiry(queue: Queue) -> int | None:
    """Milliseconds after which an unused queue may go (`x-expires`), or None."""
    return None if queue.life is None else int(queue.life * 1000)


def kombu_pattern(routing_key: str) -> str:
    """A topic binding as kombu 5.7 writes it, a regular expression; readers use it as it stands."""
    words = {"*": r"[^\.]+", "#": ".*?"}
    return "^" + r"\.".join(words.get(word) or re.escape(word) for word in routing_key.split(".")) + "$"
