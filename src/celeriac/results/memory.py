"""Results in the memory of this process: for tests, and for embedding worker and client in one program.

Opened by `results.open` for `memory://NAME` and `cache+memory://NAME`; every store of one name shares its records, and
`transport.memory` of the same name commits into it. `refuses` is the plain form of the rule by which every store
decides whether a record may replace another.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from celeriac.results.base import Record, StoreCapabilities
from celeriac.results.drivers import check_options, split_query
from celeriac.results.growing import grown
from celeriac.states import SUCCESS
from celeriac.timing import SYSTEM_CLOCK, Clock, Deadline

__all__ = ["MemoryStore", "refuses"]


class _Shelf:
    """The state that all stores of one name share."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.records: dict[str, Record] = {}
        self.groups: dict[str, tuple[bytes, float | None]] = {}
        self.parts: defaultdict[str, set[int]] = defaultdict(set)
        self.touched: dict[str, float] = {}  # chords that have begun, and when something happened to them
        self.added: defaultdict[str, int] = defaultdict(int)  # to chords that run


_shelves: defaultdict[str, _Shelf] = defaultdict(_Shelf)


def refuses(stored: Record | None, record: Record) -> bool:
    """Whether what is stored must not be replaced: a success, or the outcome of a newer or of the same execution."""
    if stored is None:
        return False
    return stored.state == SUCCESS or record.fence < stored.fence or (record.fence == stored.fence and stored.is_ready)


class MemoryStore:
    """The result store of this process. See `results.base.ResultStore` for the verbs.

    Args:
        url: `memory://` or `memory://NAME`.
        options: None are known.
        clock: Virtual time for tests. A `wait` does so in real time.
    """

    capabilities = StoreCapabilities()

    def __init__(self, url: str, options: Mapping[str, Any] | None = None, *, clock: Clock = SYSTEM_CLOCK) -> None:
        base, query = split_query(url)
        check_options([*query, *(options or {})], (), "memory://")
        self.url = url
        self.name = base.partition("://")[2].strip("/")
        self._clock = clock

    @property
    def _shelf(self) -> _Shelf:
        return _shelves[self.name]

    def store(self, records: Sequence[Record]) -> list[str]:
        """Write records; returns the ids that were refused."""
        refused = []
        shelf = self._shelf
        with shelf.changed:
            for record in records:
                if refuses(self._current(record.id), record):
                    refused.append(record.id)
                else:
                    shelf.records[record.id] = record
            shelf.changed.notify_all()
        return refused

    def _current(self, task_id: str) -> Record | None:
        record = self._shelf.records.get(task_id)
        if record is None or (record.expires_at is not None and record.expires_at <= self._clock.now()):
            return None
        return record

    def get(self, ids: Sequence[str]) -> list[Record | None]:
        """The records, in order."""
        with self._shelf.changed:
            return [self._current(task_id) for task_id in ids]

    def wait(self, ids: Sequence[str], timeout: float | None) -> list[Record]:
        """Wait until some are ready, and return these."""
        deadline = Deadline(timeout)
        with self._shelf.changed:
            while True:
                found = [record for each in set(ids) if (record := self._current(each)) and record.is_ready]
                if found or not ids or deadline.passed():
                    return found
                self._shelf.changed.wait(deadline.left())

    def wait_change(self, task_id: str, known: Record | None, timeout: float | None) -> Record | None:
        """The record of a task once it is another than the known one; None after `timeout` seconds."""
        deadline = Deadline(timeout)
        with self._shelf.changed:
            while True:
                record = self._current(task_id)
                if record is not None and record != known:
                    return record
                if deadline.passed():
                    return None
                self._shelf.changed.wait(deadline.left())

    def forget(self, ids: Sequence[str]) -> None:
        """Delete records."""
        with self._shelf.changed:
            for task_id in ids:
                self._shelf.records.pop(task_id, None)

    def start_chord(self, group_id: str, size: int, value: bytes, expires_at: float | None) -> None:
        """Keep the header of a chord."""
        self.save_group(group_id, value, expires_at)
        with self._shelf.changed:
            self._shelf.touched[group_id] = self._clock.now()

    def join_part(self, group_id: str, index: int, size: int, record: Record) -> bool:
        """Count a part of a chord, once; returns whether all have ended."""
        with self._shelf.changed:
            if group_id in self._shelf.touched:
                self._shelf.touched[group_id] = self._clock.now()
            self._shelf.parts[group_id].add(index)
            return size > 0 and size + self._shelf.added[group_id] <= len(self._shelf.parts[group_id])

    def grow_group(self, group_id: str, task_id: str, expires_at: float | None, is_chord: bool) -> int:
        """One more member of a kept group, once; returns its place."""
        with self._shelf.changed:
            index, value = grown(self.get_group(group_id), group_id, task_id, is_chord)
            if value is not None:
                self._shelf.groups[group_id] = (value, self._shelf.groups.get(group_id, (None, expires_at))[1])
                self._shelf.added[group_id] += is_chord
            return index

    def quiet_chords(self, seconds: float, limit: int) -> list[str]:
        """Chords that nothing has happened to for so long; this counts as something."""
        now = self._clock.now()
        with self._shelf.changed:
            touched = self._shelf.touched
            found = sorted(
                (group_id for group_id, at in touched.items() if at <= now - seconds), key=touched.__getitem__
            )
            touched.update(dict.fromkeys(found[:limit], now))
            return found[:limit]

    def ended_parts(self, group_id: str) -> set[int]:
        """Indexes of the parts that were counted."""
        with self._shelf.changed:
            return set(self._shelf.parts.get(group_id, ()))

    def save_group(self, group_id: str, value: bytes, expires_at: float | None) -> None:
        """Keep a group's result tuple."""
        with self._shelf.changed:
            self._shelf.groups[group_id] = (value, expires_at)

    def get_group(self, group_id: str) -> bytes | None:
        """The group's result tuple, or None."""
        with self._shelf.changed:
            value, expires_at = self._shelf.groups.get(group_id, (None, None))
            return value if expires_at is None or expires_at > self._clock.now() else None

    def forget_group(self, group_id: str) -> None:
        """Delete a group and its chord count."""
        with self._shelf.changed:
            self._shelf.groups.pop(group_id, None)
            self._shelf.parts.pop(group_id, None)
            self._shelf.touched.pop(group_id, None)
            self._shelf.added.pop(group_id, None)

    def cleanup(self, now: float) -> int:
        """Delete what has expired."""
        with self._shelf.changed:
            groups = self._shelf.groups
            for group_id in [key for key, (_, at) in groups.items() if at is not None and at <= now]:
                del groups[group_id]
            records = self._shelf.records
            expired = [key for key, each in records.items() if each.expires_at is not None and each.expires_at <= now]
            for task_id in expired:
                del records[task_id]
            return len(expired)

    def close(self) -> None:
        """Nothing is held: the records stay in the process until `clear`."""

    def clear(self) -> None:
        """Forget everything under this name, as a test wants it."""
        _shelves.pop(self.name, None)
