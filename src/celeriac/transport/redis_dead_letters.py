"""The dead letters of the Redis transport: listing, replaying and discarding. Its scripts put them aside.

A letter's key is its number; a task id serves as well. The element is kept with every byte it had, and its reason and
queue stand before it (see `redis_lua`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec

from celeriac.message import DeadLetter, Settlement
from celeriac.results.redis_connection import Argument, Server
from celeriac.transport.redis_envelope import decode
from celeriac.transport.redis_keys import Keys
from celeriac.transport.redis_lua import REPLAY

__all__ = ["DeadLetters", "letter_head"]

#: Letters read at once when one queue's are looked for among all.
_STEP = 200
_LETTER = re.compile(rb"(\d+)\n(\d+) (\d+)\n([^\n]*)\n(.*)\Z", re.DOTALL)


class _Head(msgspec.Struct, frozen=True, array_like=True):
    list_key: str
    queue: str
    reason: str


_head_decoder = msgspec.json.Decoder(_Head)


def letter_head(settlement: Settlement, list_key: str) -> str:
    """What the script keeps with an element that it puts aside: the task id, and the head."""
    queue, task_id = settlement.delivery.queue, settlement.delivery.message.id.replace("\n", " ")
    head = msgspec.json.encode(_Head(list_key, queue, settlement.reason))
    return f"{task_id}\n{head.decode()}"


class DeadLetters:
    """The dead letters of one broker."""

    def __init__(self, server: Server, keys: Keys) -> None:
        self._server = server
        self._keys = keys

    def listed(self, limit: int, queue: str | None) -> list[DeadLetter]:
        """Dead letters, newest first."""
        found: list[DeadLetter] = []
        start, step = 0, _STEP if queue is not None else min(limit, _STEP)
        while len(found) < limit:
            members = self._server.call("ZREVRANGE", self._keys.key("celeriac:dead"), start, start + step - 1)
            letters = [letter for _, letter, _ in self._read([_number(member) for member in members])]
            found += [letter for letter in letters if queue is None or letter.queue == queue]
            start += step
            if len(members) < step:
                break
        return found[:limit]

    def found(self, key: str) -> DeadLetter | None:
        """The dead letter with this key, else the newest one of this task id."""
        members = self._members([key])
        letters = self._read([_number(members[-1])]) if members else []
        return letters[0][1] if letters else None

    def replay(self, keys: Sequence[str]) -> int:
        """Put dead letters back on their queues with counts at zero."""
        return self._remove(keys, puts_back=True)

    def discard(self, keys: Sequence[str]) -> int:
        """Delete dead letters."""
        return self._remove(keys, puts_back=False)

    def _remove(self, keys: Sequence[str], *, puts_back: bool) -> int:
        members = {_number(member): member for member in self._members(keys)}
        args: list[Argument] = [self._keys.prefix]
        for number, _, (list_key, element) in self._read(list(members)):
            args += (number, members[number], *((list_key, element) if puts_back else ("", "")))
        return int(self._server.run(REPLAY, self._keys.heads(), args)) if len(args) > 1 else 0

    def _members(self, keys: Sequence[str]) -> list[bytes]:
        """Members of the table of dead letters, oldest first; a key names one, a task id all of it."""
        if not keys:
            return []
        members = self._server.call("ZRANGE", self._keys.key("celeriac:dead"), 0, -1)
        by_number = {_number(member).decode(): member for member in members}
        found: dict[bytes, None] = {}
        for key in keys:
            if key in by_number:
                found[by_number[key]] = None
            else:
                wanted = key.encode(errors="replace")
                found.update(dict.fromkeys(member for member in members if member.partition(b":")[2] == wanted))
        return list(found)

    def _read(self, numbers: Sequence[bytes]) -> list[tuple[bytes, DeadLetter, tuple[str, bytes]]]:
        """Letters with their number, list and element; those that have gone meanwhile are left out."""
        if not numbers:
            return []
        stored = self._server.call("HMGET", self._keys.key("celeriac:letters"), *numbers)
        found = []
        for number, value in zip(numbers, stored, strict=True):
            match = _LETTER.match(value) if value is not None else None
            if match is None:
                continue
            died_at, deliveries, starts, about, element = match.groups()
            head = _head_decoder.decode(about)
            letter = DeadLetter(
                key=number.decode(), message=decode(element, head.queue)[0], queue=head.queue, reason=head.reason,
                died_at=int(died_at) / 1000, deliveries=int(deliveries), starts=int(starts),
            )  # fmt: skip
            found.append((number, letter, (head.list_key, element)))
        return found


def _number(member: bytes) -> bytes:
    return member.partition(b":")[0]
