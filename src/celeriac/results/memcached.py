"""Results in memcached, under the keys of Celery's cache backend: stock clients read what we write and the other way round.

Opened by `results.open` for `cache+memcached://…` and its spellings; `memcached_node` talks to a server, through pymemcache.
memcached keeps everything in memory: a restart, or too little memory, loses results, and who waits for one asks again and
again, since the server can't notify.

Invariant: a record is written by compare-and-swap on the version that `refuses` has judged, so that no older execution
replaces a newer one, whoever writes at the same moment.
"""

from __future__ import annotations

import hashlib
import re
import ssl
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from pymemcache.client.rendezvous import RendezvousHash  # type: ignore[import-untyped]

from celeriac.errors import ImproperlyConfigured, OperationalError
from celeriac.results.base import Record, StoreCapabilities
from celeriac.results.drivers import check_options, mask_url, split_query
from celeriac.results.growing import PartBits, grown
from celeriac.results.memcached_node import Address, Change, Node, Settings
from celeriac.results.memory import refuses
from celeriac.results.meta_value import group_expiry, group_from, group_value, key_prefix, readable, value_of
from celeriac.timing import SYSTEM_CLOCK, Clock, Deadline

__all__ = ["MemcachedStore"]

_OWN = ("compression", "connect_timeout", "global_keyprefix", "ssl", "ssl_ca_certs", "ssl_certfile", "ssl_keyfile",
        "timeout")  # fmt: skip
#: Options of clients and of all of Celery's stores that mean nothing here; configurations carry them along.
_IGNORED = frozenset({"behaviors", "binary", "dead_timeout", "default_noreply", "do_not_retry_for", "ignore_exc",
                      "max_pool_size", "no_delay", "pool_idle_timeout", "result_chord_ordered", "retry_attempts",
                      "retry_delay", "retry_for", "retry_policy", "retry_timeout", "use_pooling",
                      "visibility_timeout"})  # fmt: skip
#: Longest time from now that memcached takes as such; a greater number is a date for it.
RELATIVE = 30 * 86_400
#: Seconds after which the count of a chord is forgotten: whoever redelivers a part that late has lost the chord anyway.
CHORD_KEPT = 7 * 86_400
#: Attempts to write a record that others write at the same moment. Each failed one means that another has succeeded.
ATTEMPTS = 1000
#: First and longest pause between two looks of `wait`, in seconds.
FIRST_PAUSE, LONGEST_PAUSE = 0.002, 0.1
_PLAIN_KEY = re.compile(r"[!-~]{1,250}")
#: What leaves room for the longest key, which is of a hashed name.
_PLAIN_PREFIX = re.compile(r"[!-~]{0,150}")


class MemcachedStore:
    """The result store in memcached. See `results.base.ResultStore` for the verbs.

    Args:
        url: `cache+memcached://host:port;host2:port2/`, or `cache+memcached:///path/of/socket`.
        options: `global_keyprefix`, `compression`, `timeout`, `connect_timeout`, `ssl`, `ssl_ca_certs`, `ssl_certfile`,
            `ssl_keyfile`.
        clock: For tests.
    """

    capabilities = StoreCapabilities(pushes=False, drops_expired=True)

    def __init__(self, url: str, options: Mapping[str, Any] | None = None, *, clock: Clock = SYSTEM_CLOCK) -> None:
        base, query = split_query(url)
        given = {name: value for name, value in {**(options or {}), **query}.items() if name not in _IGNORED}
        check_options(given, _OWN, "memcached")
        self.url = mask_url(url)
        self.compression: str | None = given.get("compression") or None
        self._prefix = _prefix(given.get("global_keyprefix"))
        settings = _settings(given)
        nodes = [Node(address, settings) for address in _addresses(base)]
        self._nodes = {node.name: node for node in nodes}
        # pymemcache's choice of the server for a key, so that stock Celery looks for it there. Not its client for several
        # servers: that one answers for a server that fails, with nothing, and moves its keys to others.
        self._placement = RendezvousHash(list(self._nodes))
        self._clock = clock

    # keys and versions

    def _key(self, kind: str, name: str) -> str:
        """The key of a task or group; names that memcached takes as no key (blanks, great length) are hashed."""
        key = f"{self._prefix}{kind}{name}"
        if _PLAIN_KEY.fullmatch(key):
            return key
        return f"{self._prefix}{kind}sha256-{hashlib.sha256(name.encode()).hexdigest()}"

    def _task_key(self, task_id: str) -> str:
        return self._key("celery-task-meta-", task_id)

    def _group_key(self, group_id: str) -> str:
        return self._key("celery-taskset-meta-", group_id)

    def _node(self, key: str) -> Node:
        # Hashing takes 10 µs for each server.
        name = self._placement.get_node(key) if len(self._nodes) > 1 else next(iter(self._nodes))
        return self._nodes[name]

    def _by_node(self, keys: Iterable[str]) -> list[tuple[Node, list[str]]]:
        by_node: dict[Node, list[str]] = {}
        for key in keys:
            by_node.setdefault(self._node(key), []).append(key)
        return list(by_node.items())

    def _gets(self, keys: Iterable[str]) -> dict[str, tuple[bytes, bytes]]:
        found: dict[str, tuple[bytes, bytes]] = {}
        for node, mine in self._by_node(keys):
            found |= node.gets(mine)
        return found

    def _swap(self, changes: Mapping[str, Change], *, together: bool = False) -> set[str]:
        """Write values if the versions are still these; returns the keys for which that worked."""
        done = set()
        for node, keys in self._by_node(changes):
            done |= node.swap({key: changes[key] for key in keys}, together=together)
        return done

    def _expiry(self, expires_at: float | None) -> int:
        """The server's `exptime`: never before the record's own expiry, which `get` looks at."""
        if expires_at is None:
            return 0
        left = expires_at - self._clock.now()
        if left <= 0:
            return -1
        return int(left) + 2 if left < RELATIVE - 2 else int(expires_at) + 2

    # records

    def store(self, records: Sequence[Record]) -> list[str]:
        """Write records; returns the ids that were refused."""
        refused: list[int] = []
        waiting = dict(enumerate(records))
        while waiting:
            # Of several records of one task, one after the other.
            wave: dict[str, int] = {}
            for number, record in waiting.items():
                wave.setdefault(self._task_key(record.id), number)
            refused += self._store_wave({key: (number, waiting[number]) for key, number in wave.items()})
            for number in wave.values():
                del waiting[number]
        return [records[number].id for number in sorted(refused)]

    def _store_wave(self, wave: dict[str, tuple[int, Record]]) -> list[int]:
        """Write records of different tasks; returns the numbers of those that were refused."""
        refused = []
        for attempt in range(ATTEMPTS):
            changes: dict[str, Change] = {}
            found = self._gets(wave)
            for key, (number, record) in list(wave.items()):
                value, version = found.get(key, (None, None))
                if refuses(self._current(key, value), record):
                    refused.append(number)
                    del wave[key]
                else:
                    changes[key] = self._change(value_of(record, self.compression), record.expires_at, version)
            for key in self._swap(changes, together=attempt == 0):
                del wave[key]
            if not wave:
                return refused
        raise OperationalError(f"{self.url}: results were changed by others {ATTEMPTS} times while they were written.")

    def _change(self, value: bytes, expires_at: float | None, version: bytes | None) -> Change:
        return Change(value=value, expire=self._expiry(expires_at), version=version)

    def _current(self, key: str, value: bytes | None) -> Record | None:
        """The record of a value, unless it has expired or can't be read."""
        record = readable(key, value) if value is not None else None
        if record is None or (record.expires_at is not None and record.expires_at <= self._clock.now()):
            return None
        return record

    def get(self, ids: Sequence[str]) -> list[Record | None]:
        """The records, in order."""
        found = self._read(ids)
        return [found.get(task_id) for task_id in ids]

    def _read(self, ids: Iterable[str]) -> dict[str, Record]:
        keys = {task_id: self._task_key(task_id) for task_id in ids}
        found = self._gets(dict.fromkeys(keys.values()))
        records = {task_id: self._current(key, found[key][0]) for task_id, key in keys.items() if key in found}
        return {task_id: record for task_id, record in records.items() if record is not None}

    def wait(self, ids: Sequence[str], timeout: float | None) -> list[Record]:
        """Wait until some are ready, and return these; looks at pauses that grow, and with what a look costs."""
        deadline = Deadline(timeout)
        pause = FIRST_PAUSE
        while True:
            began = time.monotonic()
            ready = [record for record in self._read(ids).values() if record.is_ready]
            left = deadline.left()
            if ready or not ids or left == 0:
                return ready
            # Looking for thousands takes a while: it shall not take more than a fifth of the time.
            nap = max(pause, 4 * (time.monotonic() - began))
            time.sleep(nap if left is None else min(nap, left))
            pause = min(pause * 1.3, LONGEST_PAUSE)

    def forget(self, ids: Sequence[str]) -> None:
        """Delete records."""
        self._delete([self._task_key(task_id) for task_id in ids])

    def _delete(self, keys: Iterable[str]) -> None:
        for node, mine in self._by_node(keys):
            node.delete(mine)

    # chords and groups

    def _parts_key(self, group_id: str) -> str:
        return self._key("celery-taskset-parts-", group_id)

    def start_chord(self, group_id: str, size: int, value: bytes, expires_at: float | None) -> None:
        """Keep the header of a chord."""
        self.save_group(group_id, value, expires_at)

    def join_part(self, group_id: str, index: int, size: int, record: Record) -> bool:
        """Count a part of a chord, once; returns whether all have ended.

        The parts are bits of one number: counting one is a single swap, so no death can come between the note that a
        part has ended and the count.
        """
        key = self._parts_key(group_id)
        return self._changed_parts(key, lambda parts: parts.with_ended(index)).is_over(size)

    def _changed_parts(self, key: str, change: Callable[[PartBits], PartBits]) -> PartBits:
        for _ in range(ATTEMPTS):
            value, version = self._gets([key]).get(key, (None, None))
            before = PartBits.read(value)
            after = change(before)
            if after == before or self._swap(
                {key: self._change(after.written(), self._clock.now() + CHORD_KEPT, version)}
            ):
                return after
        raise OperationalError(f"{self.url}: the count of a chord was changed by others {ATTEMPTS} times meanwhile.")

    def grow_group(self, group_id: str, task_id: str, expires_at: float | None, is_chord: bool) -> int:
        """One more member of a kept group, once; returns its place.

        It is in the header first: a death before it is expected as a part, too, leaves a task that is delivered again and
        repeats this. The chord can't end before, as that task is a part of it.
        """
        key = self._group_key(group_id)
        for _ in range(ATTEMPTS):
            stored, version = self._gets([key]).get(key, (None, None))
            kept = None if stored is None else group_from(stored, self._clock.now())
            index, value = grown(kept, group_id, task_id, is_chord)
            if value is not None:
                expiry = group_expiry(stored) if kept is not None else expires_at
                if not self._swap({key: self._change(group_value(value, expiry), expiry, version)}):
                    continue
            if is_chord:
                self._changed_parts(self._parts_key(group_id), partial(PartBits.with_added, index=index))
            return index
        raise OperationalError(f"{self.url}: a group was changed by others {ATTEMPTS} times meanwhile.")

    def save_group(self, group_id: str, value: bytes, expires_at: float | None) -> None:
        """Keep a group's result tuple, as stock Celery keeps it where it is JSON."""
        key = self._group_key(group_id)
        self._node(key).set(key, group_value(value, expires_at), self._expiry(expires_at))

    def get_group(self, group_id: str) -> bytes | None:
        """The group's result tuple, or None."""
        key = self._group_key(group_id)
        found = self._gets([key]).get(key)
        return None if found is None else group_from(found[0], self._clock.now())

    def forget_group(self, group_id: str) -> None:
        """Delete a group and its chord count."""
        self._delete([self._group_key(group_id), self._parts_key(group_id)])

    def cleanup(self, now: float) -> int:
        """Nothing to do: memcached drops what has expired, and can't list what it has."""
        return 0

    def server_time(self) -> float:
        """Seconds since 1970 by the server's clock, which it tells in whole seconds: the middle of this one."""
        return min(int(node.stats()[b"time"]) for node in self._nodes.values()) + 0.5

    def durability_report(self) -> list[str]:
        """What this store can lose, for people."""
        lines = ["memcached keeps results in memory only: a restart loses them"]
        for node in self._nodes.values():
            dropped = int(node.stats().get(b"evictions", 0))
            if dropped:
                lines.append(f"{node.name} is too small (-m): it has dropped {dropped} values to make room")
        return lines

    def close(self) -> None:
        """Close idle connections."""
        for node in self._nodes.values():
            node.close()


def _addresses(base: str) -> list[Address]:
    """The servers that a URL names; several are separated by `;` or `,`."""
    rest = base.partition("://")[2]
    if rest.startswith("/") and rest.strip("/"):
        return [rest.rstrip("/")]
    if "@" in rest:
        raise ImproperlyConfigured(f"{mask_url(base)!r}: celeriac speaks to memcached without user and password.")
    found: list[Address] = []
    for part in rest.rstrip("/").replace(",", ";").split(";"):
        host, colon, port = part.rpartition(":")
        if not colon or part.endswith("]"):
            host, port = part, "11211"
        if not (port.isdecimal() and len(port) < 6 and 0 < int(port) < 65536):
            raise ImproperlyConfigured(f"{base!r}: the port must be a number from 1 to 65535, not {port!r}.")
        found.append((host.strip("[]") or "localhost", int(port)))
    return found


def _prefix(given: Any) -> str:
    prefix = key_prefix(str(given or ""))
    if not _PLAIN_PREFIX.fullmatch(prefix):
        raise ImproperlyConfigured(
            f"memcached option global_keyprefix is ASCII without blanks, at most 150 characters, not {given!r}."
        )
    return prefix


def _settings(given: Mapping[str, Any]) -> Settings:
    timeout = _seconds("timeout", given.get("timeout", 4.0))
    connect = _seconds("connect_timeout", given.get("connect_timeout", timeout))
    return Settings(timeout=timeout, connect_timeout=min(timeout, connect), tls=_tls(given))


def _seconds(name: str, value: Any) -> float:
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        seconds = 0.0
    if not 0 < seconds < 3600:
        raise ImproperlyConfigured(f"memcached option {name} is a number of seconds above 0, not {value!r}.")
    return seconds


def _tls(given: Mapping[str, Any]) -> ssl.SSLContext | None:
    if str(given.get("ssl", "")).lower() not in ("true", "1", "yes", "on"):
        return None
    context = ssl.create_default_context(cafile=given.get("ssl_ca_certs"))
    if given.get("ssl_certfile"):
        context.load_cert_chain(given["ssl_certfile"], given.get("ssl_keyfile"))
    return context
