"""Results in Redis, in the keys of Celery's Redis backend: stock clients read what we write and the other way round.

Opened by `results.open` for `redis://…` and the other Redis schemes. `transport.redis` writes records in its own script
when broker and store are one database. Who waits is told by PUBLISH on the key's channel, as stock Celery does it.

Invariants: which record may replace which is decided inside one script (`redis_lua`); a waiter subscribes before it
reads, so that nothing is missed between the two.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from celeriac.errors import OperationalError
from celeriac.results.base import Record, StoreCapabilities
from celeriac.results.drivers import check_options
from celeriac.results.growing import with_members
from celeriac.results.meta_value import group_from
from celeriac.results.redis_connection import Argument, Server
from celeriac.results.redis_lua import ENDED, GROW, JOIN, OVER, PARTS, QUIET, START, STORE
from celeriac.results.redis_records import chord_member, has_companion, record_from, value_arguments
from celeriac.results.redis_url import as_bool, parse_url
from celeriac.results.redis_watch import Watch
from celeriac.timing import SYSTEM_CLOCK, Clock, Deadline

__all__ = ["RedisStore"]

#: Options of `result_backend_transport_options`; those of chords and retries have their meaning elsewhere.
_OPTIONS = (
    "additional_connection_errors",
    "compression",
    "global_keyprefix",
    "result_chord_ordered",
    "visibility_timeout",
)
#: Seconds after which a waiter looks itself, in case a message got lost (a failover, a full buffer of the server's).
RECHECK = 5.0
#: Seconds after which the count of a chord is forgotten: whoever redelivers a part that late has lost the chord anyway.
CHORD_KEPT = 7 * 86_400
#: Seconds that a chord's last part has to send the body before another one may. Less than a lease: if a worker dies with
#: it, and a stock worker gets the part again, that one sends the body.
CHORD_PATIENCE = 20
#: Seconds for which it is remembered that a chord is over.
CHORD_OVER = 300
#: Records in one script, and keys in one MGET or one step of `cleanup`.
STEP = 500
_GROUP = b'{"result": '


class RedisStore:
    """The result store in Redis. See `results.base.ResultStore` for the verbs.

    Args:
        url: `redis://[user:password@]host[:port]/db`, or another of the forms in `redis_url`.
        options: Of the connection, and `global_keyprefix`, `compression`.
        clock: For tests of `cleanup`.
    """

    capabilities = StoreCapabilities(claims_chords=True, drops_expired=True)

    def __init__(self, url: str, options: Mapping[str, Any] | None = None, *, clock: Clock = SYSTEM_CLOCK) -> None:
        settings, own = parse_url(url, options or {}, _OPTIONS)
        check_options(own, _OPTIONS, "Redis")
        self.settings = settings
        self.url = settings.url
        self._is_chord_sorted = as_bool("result_chord_ordered", own.get("result_chord_ordered", True))
        self.compression: str | None = own.get("compression") or None
        self._prefix = key_prefix(str(own.get("global_keyprefix") or ""), settings.tag)
        self._begun = f"{self._prefix}celeriac-chords".encode()  # begun here, by when something happened to them
        self._server = Server(settings)
        self._clock = clock
        self._local = threading.local()

    def key(self, task_id: str) -> bytes:
        """The key, and channel, of a task's result."""
        return f"{self._prefix}celery-task-meta-{task_id}".encode()

    def arguments(self, record: Record) -> tuple[Argument, ...]:
        """What the script's `put` takes for a record."""
        return (self.key(record.id), *value_arguments(record, self.compression))

    def store(self, records: Sequence[Record]) -> list[str]:
        """Write records; returns the ids that were refused."""
        refused = []
        for start in range(0, len(records), STEP):
            step = records[start : start + STEP]
            args = [argument for record in step for argument in self.arguments(record)]
            refused += [step[number - 1].id for number in self._server.run(STORE, (), args)]
        return refused

    def get(self, ids: Sequence[str]) -> list[Record | None]:
        """The records, in order."""
        found = self._read(dict.fromkeys(ids))
        return [found.get(task_id) for task_id in ids]

    def _read(self, ids: Iterable[str]) -> dict[str, Record]:
        """The records of these ids, as far as there are any."""
        todo = list(ids)
        values: dict[str, bytes] = {}
        for start in range(0, len(todo), STEP):
            step = todo[start : start + STEP]
            replies = self._server.call("MGET", *[self.key(task_id) for task_id in step])
            values |= {task_id: value for task_id, value in zip(step, replies, strict=True) if value is not None}
        return self._records(values)

    def _records(self, values: Mapping[str, bytes]) -> dict[str, Record]:
        """Records of values; fetches the companions of those that have one."""
        apart = [task_id for task_id, value in values.items() if has_companion(value)]
        companions: dict[str, bytes | None] = {}
        for start in range(0, len(apart), STEP):
            step = apart[start : start + STEP]
            replies = self._server.call("MGET", *[self.key(task_id) + b":celeriac" for task_id in step])
            companions |= dict(zip(step, replies, strict=True))
        return {task_id: record_from(task_id, value, companions.get(task_id)) for task_id, value in values.items()}

    def wait(self, ids: Sequence[str], timeout: float | None) -> list[Record]:
        """Wait until some are ready, and return these; told by the publication of the value that makes them so."""
        deadline = Deadline(timeout)
        wanted = {self.key(task_id): task_id for task_id in ids}
        if deadline.passed() or not wanted:
            return _ready(self._read(wanted.values()))
        watch: Watch | None = getattr(self._local, "watch", None)
        if watch is not None and not watch.is_fit(wanted):
            self._drop_watch()
            watch = None
        # Most results are there already when they are asked for one after the other.
        found = _ready(self._read([wanted[key] for key in wanted if watch is None or key not in watch.keys]))
        if found:
            return found
        if watch is not None:
            try:
                return self._wait(watch, wanted, deadline)
            except OperationalError:
                self._drop_watch()  # its connection is of an earlier wait, and may have ended since
        watch = self._local.watch = Watch(self._server)
        try:
            return self._wait(watch, wanted, deadline)
        except BaseException:
            self._drop_watch()
            raise

    def _wait(self, watch: Watch, wanted: Mapping[bytes, str], deadline: Deadline) -> list[Record]:
        new = [key for key in wanted if key not in watch.keys]
        watch.add(new)
        found = _ready(self._read([wanted[key] for key in new]))
        while not found and not deadline.passed():
            values = watch.take(wanted)
            if not values:
                watch.listen(_shorter(RECHECK, deadline.left()))
                values = watch.take(wanted)
            if values:
                found = _ready(self._records({wanted[key]: value for key, value in values.items()}))
            else:
                found = _ready(self._read(wanted.values()))
        watch.done(self.key(record.id) for record in found)
        return found

    def wait_change(self, task_id: str, known: Record | None, timeout: float | None) -> Record | None:
        """The record of a task once it is another than the known one; None after `timeout` seconds. Told, not polled."""
        deadline, key = Deadline(timeout), self.key(task_id)
        watch: Watch | None = getattr(self._local, "watch", None)
        if watch is not None and watch.is_fit((key,)):
            try:
                return self._wait_change(watch, task_id, known, deadline)
            except OperationalError:
                pass  # its connection is of an earlier wait, and may have ended since
        self._drop_watch()
        watch = self._local.watch = Watch(self._server)
        try:
            return self._wait_change(watch, task_id, known, deadline)
        except BaseException:
            self._drop_watch()
            raise

    def _wait_change(self, watch: Watch, task_id: str, known: Record | None, deadline: Deadline) -> Record | None:
        key = self.key(task_id)
        watch.add([key])  # before the look, so that what is stored in between is told
        while True:
            watch.take([key])
            record = self._read([task_id]).get(task_id)
            if record is not None and record != known:
                if record.is_ready:
                    watch.done([key])
                return record
            if deadline.passed():
                return None
            watch.listen(_shorter(RECHECK, deadline.left()))

    def _drop_watch(self) -> None:
        watch: Watch | None = getattr(self._local, "watch", None)
        if watch is not None:
            self._local.watch = None
            watch.close()

    def forget(self, ids: Sequence[str]) -> None:
        """Delete records."""
        keys = [key for task_id in ids for key in (self.key(task_id), self.key(task_id) + b":celeriac")]
        for start in range(0, len(keys), STEP):
            self._server.call("DEL", *keys[start : start + STEP])

    def _group_key(self, group_id: str) -> bytes:
        return f"{self._prefix}celery-taskset-meta-{group_id}".encode()

    def _chord_keys(self, group_id: str) -> list[bytes]:
        key = self._group_key(group_id)
        return [key + b".j", key + b".t", key + b".s", key + b".d", key, key + b".c", self._begun]

    def start_chord(self, group_id: str, size: int, value: bytes, expires_at: float | None) -> None:
        """Keep the header of a chord, and its size where stock workers look for it."""
        self.save_group(group_id, value, expires_at)
        until: Argument = "" if expires_at is None else _expiry(expires_at)[1]
        self._server.run(START, self._chord_keys(group_id), (size, until, group_id, self._clock.now()))

    def grow_group(self, group_id: str, task_id: str, expires_at: float | None, is_chord: bool) -> int:
        """One more member of a kept group, once; returns its place. Stock workers see it as one more part, too."""
        key = self._group_key(group_id)
        kept = CHORD_KEPT if is_chord or expires_at is None else max(1, int(expires_at - self._clock.now()))
        return int(self._server.run(GROW, [key + b".g", key + b".t", key + b".s"], (task_id, kept, int(is_chord))))

    def join_part(self, group_id: str, index: int, size: int, record: Record) -> bool:
        """Count a part of a chord, once, as stock workers count it; returns whether all have ended."""
        return self.join_parts(group_id, size, [(index, record)]) == record.id

    def join_parts(self, group_id: str, size: int, parts: Sequence[tuple[int, Record]]) -> str:
        """Count several parts of a chord; returns the id of the one that is to send the body, or ""."""
        is_sorted, now = "1" if self._is_chord_sorted else "0", self._clock.now()
        args: list[Argument] = [is_sorted, CHORD_KEPT, CHORD_PATIENCE, size, group_id, now]
        for index, record in parts:
            args += (record.id, index, chord_member(record))
        last: bytes = self._server.run(JOIN, self._chord_keys(group_id), args)
        return last.decode()

    def quiet_chords(self, seconds: float, limit: int) -> list[str]:
        """Chords begun here that nothing has happened to for so long; this counts as something."""
        now = self._clock.now()
        return [name.decode() for name in self._server.run(QUIET, [self._begun], (now - seconds, now, limit))]

    def ended_parts(self, group_id: str) -> set[int] | None:
        """Indexes of the parts that were counted; None where stock workers have counted some without them."""
        found = self._server.run(ENDED, self._chord_keys(group_id), ())
        return None if found is None else {int(float(index)) for index in found}

    def save_group(self, group_id: str, value: bytes, expires_at: float | None) -> None:
        """Keep a group's result tuple, as stock Celery keeps it where it is JSON."""
        stored = _GROUP + value + b"}" if _is_json(value) else value
        self._server.call("SET", self._group_key(group_id), stored, *_expiry(expires_at))

    def get_group(self, group_id: str) -> bytes | None:
        """The group's result tuple, or None."""
        key = self._group_key(group_id)
        value, added, is_chord = self._server.pipeline(
            [("GET", key), ("HGETALL", key + b".g"), ("EXISTS", key + b".t", key + b".s")]
        )
        members = _in_order(added)
        if value is None:
            # A chord that a stock client sent is what its parts say, those that were added among them.
            return self._header(group_id) if is_chord else with_members(None, group_id, members)
        if value.startswith(b"{"):
            value = group_from(value, 0.0)
        return with_members(value, group_id, members)

    def _header(self, group_id: str) -> bytes | None:
        """The result tuple of a chord's header that a stock client sent: it is what the parts say, once all have ended."""
        parts = [part.decode().rpartition(":") for part in self._server.run(PARTS, self._chord_keys(group_id), ())]
        parts.sort(key=lambda part: float(part[2]))
        ids = [task_id for task_id, _, _ in parts]
        return msgspec.json.encode([[group_id, None], [[[task_id, None], None] for task_id in ids]]) if ids else None

    def forget_group(self, group_id: str) -> None:
        """Delete a group and its chord count. Parts that are told again will see that the chord is over."""
        added = self._group_key(group_id) + b".g"
        self._server.run(OVER, self._chord_keys(group_id), (CHORD_OVER, group_id, added))

    def cleanup(self, now: float) -> int:
        """Delete what will have expired by `now`. What has expired already, Redis deletes by itself."""
        ahead = (now - self._clock.now()) * 1000
        if ahead <= 0:
            return 0
        deleted, cursor, pattern = 0, b"0", f"{_escaped(self._prefix)}celery-task*-meta-*"
        while True:
            cursor, keys = self._server.call("SCAN", cursor, "MATCH", pattern, "COUNT", STEP)
            left = self._server.pipeline([("PTTL", key) for key in keys]) if keys else []
            over = [key for key, milliseconds in zip(keys, left, strict=True) if 0 <= milliseconds <= ahead]
            if over:
                self._server.call("DEL", *over)
                deleted += sum(b"celery-task-meta-" in key and not key.endswith(b":celeriac") for key in over)
            if cursor == b"0":
                return deleted

    def server_time(self) -> float:
        """Seconds since 1970 by the server's clock."""
        seconds, microseconds = self._server.call("TIME")
        return int(seconds) + int(microseconds) / 1e6

    def close(self) -> None:
        """Close idle connections."""
        self._drop_watch()
        self._server.close()


def key_prefix(given: str, tag: str) -> str:
    """What stands before every key: Celery's rule for results, after the cluster's hash tag."""
    prefix = given if not given or given[-1] in ":_-." else given + "_"
    return f"{{{tag}}}:{prefix}" if tag else prefix


def _expiry(expires_at: float | None) -> tuple[Argument, ...]:
    return () if expires_at is None else ("PXAT", max(1, int(expires_at * 1000)))


def _shorter(pause: float, left: float | None) -> float:
    return pause if left is None else min(pause, left)


def _ready(records: Mapping[str, Record]) -> list[Record]:
    return [record for record in records.values() if record.is_ready]


def _is_json(value: bytes) -> bool:
    try:
        msgspec.json.decode(value)
    except (msgspec.DecodeError, RecursionError):
        return False
    return True


def _escaped(text: str) -> str:
    """Text as a pattern that matches itself only."""
    return "".join(f"\\{character}" if character in "*?[]\\^-" else character for character in text)


def _in_order(added: list[bytes]) -> list[str]:
    """The members that were added to a group, by their numbers, of what HGETALL replies."""
    numbers = dict(zip(added[::2], added[1::2], strict=True))
    return [task_id.decode() for task_id in sorted(numbers, key=lambda task_id: int(numbers[task_id]))]
