"""Results as files in one folder, under the names of Celery's filesystem backend: stock Celery reads ours, and we theirs.

Opened by `results.open` for `file:///path`. A file is written beside its place, brought to the disk, and renamed into it, so
a reader sees all of it or nothing, and a crash leaves nothing half-written. The folder may be shared by processes of one
machine, or over a network file system that has locks.

Invariant: what is stored is looked at and replaced under one lock of the folder, so that no older execution replaces a
newer one. The lock is held for renames only, never while data goes to the disk.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import itertools
import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from celeriac.errors import ImproperlyConfigured, OperationalError
from celeriac.results.base import Record, StoreCapabilities
from celeriac.results.drivers import check_options, split_query
from celeriac.results.growing import PartBits, grown
from celeriac.results.memory import refuses
from celeriac.results.meta_value import expiry_of, group_expiry, group_from, group_value, key_prefix, readable, value_of
from celeriac.timing import SYSTEM_CLOCK, Clock, Deadline

__all__ = ["FilesystemStore"]

_OPTIONS = ("compression", "global_keyprefix", "lock_timeout", "synchronous")
#: Options of all of Celery's stores that mean nothing here; configurations carry them along.
_IGNORED = frozenset({"result_chord_ordered", "retry_policy", "visibility_timeout"})
_LOCK = ".celeriac.lock"
_TEMPORARY = ".celeriac-tmp-"
#: How files of chords that were begun here begin.
_BEGUN = "celeriac-chord-"
#: Age in seconds at which what a killed process left half-written is deleted.
LEFTOVER = 3600.0
#: Seconds after which the count of a chord is forgotten: whoever redelivers a part that late has lost the chord anyway.
CHORD_KEPT = 7 * 86_400
#: First and longest pause between two looks of `wait`, in seconds.
FIRST_PAUSE, LONGEST_PAUSE = 0.002, 0.1
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_.@:+=,~-]{1,200}")
_numbers = itertools.count()


class FilesystemStore:
    """The result store in a folder. See `results.base.ResultStore` for the verbs.

    Args:
        url: `file:///absolute/folder`, or `file://relative/folder`. The folder is made when it is first needed.
        options: `global_keyprefix`, `compression`, `synchronous` ("FULL": what is stored outlives a power cut; "NORMAL":
            it outlives a crash of any process), `lock_timeout` (seconds).
        clock: For tests.
    """

    capabilities = StoreCapabilities(pushes=False)

    def __init__(self, url: str, options: Mapping[str, Any] | None = None, *, clock: Clock = SYSTEM_CLOCK) -> None:
        base, query = split_query(url)
        given = {name: value for name, value in {**(options or {}), **query}.items() if name not in _IGNORED}
        check_options(given, _OPTIONS, "file://")
        self.url = url
        self.path = _folder(base)
        self.compression: str | None = given.get("compression") or None
        self._prefix = key_prefix(str(given.get("global_keyprefix") or ""))
        self._is_synchronous = _is_full(given.get("synchronous", "FULL"))
        self._lock_timeout = _seconds(given.get("lock_timeout", 5.0))
        self._clock = clock

    # files

    def _place(self, kind: str, name: str) -> str:
        """The file of a task or group; names that can't be a file's (slashes, great length) are hashed."""
        found = f"{self._prefix}{kind}{name}"
        if not _PLAIN_NAME.fullmatch(found):
            found = f"{self._prefix}{kind}sha256-{hashlib.sha256(name.encode()).hexdigest()}"
        return os.path.join(self.path, found)

    def _task_place(self, task_id: str) -> str:
        return self._place("celery-task-meta-", task_id)

    def _group_place(self, group_id: str) -> str:
        return self._place("celery-taskset-meta-", group_id)

    def _parts_place(self, group_id: str) -> str:
        return self._place("celery-taskset-parts-", group_id)

    def _begun_place(self, group_id: str) -> str:
        return self._place(_BEGUN, group_id)

    def _written(self, data: bytes) -> str:
        """A file with this content, on the disk, under a temporary name."""
        os.makedirs(self.path, exist_ok=True)
        path = os.path.join(self.path, f"{_TEMPORARY}{os.getpid()}-{next(_numbers)}-{os.urandom(4).hex()}")
        try:
            with open(path, "xb") as file:
                file.write(data)
                if self._is_synchronous:
                    file.flush()
                    os.fsync(file.fileno())
        except BaseException:
            _unlink(path)
            raise
        return path

    def _sync_folder(self) -> None:
        if self._is_synchronous:
            folder = os.open(self.path, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Held by one thread of one process at a time. The system gives it back when its process dies."""
        os.makedirs(self.path, exist_ok=True)
        lock = os.open(os.path.join(self.path, _LOCK), os.O_RDWR | os.O_CREAT, 0o666)
        try:
            deadline = Deadline(self._lock_timeout)
            while not _try_lock(lock):
                if deadline.passed():
                    raise OperationalError(f"{self.path} was locked by another process for {self._lock_timeout:g} s.")
                time.sleep(0.001)
            try:
                yield
            finally:
                fcntl.flock(lock, fcntl.LOCK_UN)  # also for children forked meanwhile, which have it open
        finally:
            os.close(lock)

    @contextlib.contextmanager
    def _mapped_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as exc:
            raise OperationalError(f"Results can't be kept in {self.path}: {exc.strerror or exc}.") from exc

    # records

    def store(self, records: Sequence[Record]) -> list[str]:
        """Write records; returns the ids that were refused."""
        if not records:
            return []
        temporary: list[str] = []
        refused = []
        with self._mapped_errors():
            try:
                for record in records:
                    temporary.append(self._written(value_of(record, self.compression)))  # noqa: PERF401 -- for `finally`
                with self._locked():
                    for record, path in zip(records, temporary, strict=True):
                        place = self._task_place(record.id)
                        if refuses(self._current(place), record):
                            refused.append(record.id)
                        else:
                            os.replace(path, place)
                self._sync_folder()
            finally:
                for path in temporary:
                    _unlink(path)
        return refused

    def _current(self, place: str) -> Record | None:
        """The record in a file, unless it has expired or can't be read."""
        value = _read(place)
        record = readable(os.path.basename(place), value) if value is not None else None
        if record is None or (record.expires_at is not None and record.expires_at <= self._clock.now()):
            return None
        return record

    def get(self, ids: Sequence[str]) -> list[Record | None]:
        """The records, in order."""
        with self._mapped_errors():
            return [self._current(self._task_place(task_id)) for task_id in ids]

    def wait(self, ids: Sequence[str], timeout: float | None) -> list[Record]:
        """Wait until some are ready, and return these; looks at pauses that grow, and with what a look costs."""
        deadline = Deadline(timeout)
        wanted = list(dict.fromkeys(ids))
        pause = FIRST_PAUSE
        while True:
            began = time.monotonic()
            ready = [record for record in self.get(wanted) if record is not None and record.is_ready]
            left = deadline.left()
            if ready or not ids or left == 0:
                return ready
            # Looking for thousands takes a while: it shall not take more than a fifth of the time.
            nap = max(pause, 4 * (time.monotonic() - began))
            time.sleep(nap if left is None else min(nap, left))
            pause = min(pause * 1.3, LONGEST_PAUSE)

    def forget(self, ids: Sequence[str]) -> None:
        """Delete records."""
        with self._mapped_errors():
            for task_id in ids:
                _unlink(self._task_place(task_id))

    # chords and groups

    def start_chord(self, group_id: str, size: int, value: bytes, expires_at: float | None) -> None:
        """Keep the header of a chord. A file more, with its id, is touched when something happens to it."""
        self.save_group(group_id, value, expires_at)
        with self._mapped_errors():
            self._put(self._begun_place(group_id), group_id.encode())

    def join_part(self, group_id: str, index: int, size: int, record: Record) -> bool:
        """Count a part of a chord, once; returns whether all have ended. The parts are bits of one number."""
        place = self._parts_place(group_id)
        with self._mapped_errors(), self._locked():
            before = PartBits.read(_read(place))
            after = before.with_ended(index)
            if after != before:
                self._put(place, after.written())
                with contextlib.suppress(FileNotFoundError):
                    os.utime(self._begun_place(group_id))
        return after.is_over(size)

    def grow_group(self, group_id: str, task_id: str, expires_at: float | None, is_chord: bool) -> int:
        """One more member of a kept group, once; returns its place."""
        place = self._parts_place(group_id)
        with self._mapped_errors(), self._locked():
            stored = _read(self._group_place(group_id))
            kept = None if stored is None else group_from(stored, self._clock.now())
            index, value = grown(kept, group_id, task_id, is_chord)
            if is_chord:  # first: a death in between repeats this
                self._put(place, PartBits.read(_read(place)).with_added(index).written())
            if value is not None:
                self._put(
                    self._group_place(group_id),
                    group_value(value, group_expiry(stored) if kept is not None else expires_at),
                )
        return index

    def quiet_chords(self, seconds: float, limit: int) -> list[str]:
        """Chords that nothing has happened to for so long; this counts as something."""
        with self._mapped_errors():
            names = os.listdir(self.path) if os.path.isdir(self.path) else []
            now = self._clock.now()
            found: list[str] = []
            for place in self._mine(names, _BEGUN):
                if len(found) < limit and _changed_at(place) <= now - seconds:
                    with self._locked():
                        group_id = _read(place)
                        if group_id is not None and _changed_at(place) <= now - seconds:
                            os.utime(place)
                            found.append(group_id.decode())
        return found

    def ended_parts(self, group_id: str) -> set[int]:
        """Indexes of the parts that were counted."""
        with self._mapped_errors():
            bits = PartBits.read(_read(self._parts_place(group_id))).ended
        return {index for index in range(bits.bit_length()) if bits >> index & 1}

    def _put(self, place: str, data: bytes) -> None:
        path = self._written(data)
        try:
            os.replace(path, place)
        except BaseException:
            _unlink(path)
            raise
        self._sync_folder()

    def save_group(self, group_id: str, value: bytes, expires_at: float | None) -> None:
        """Keep a group's result tuple, as stock Celery keeps it where it is JSON."""
        with self._mapped_errors():
            self._put(self._group_place(group_id), group_value(value, expires_at))

    def get_group(self, group_id: str) -> bytes | None:
        """The group's result tuple, or None."""
        with self._mapped_errors():
            stored = _read(self._group_place(group_id))
        return None if stored is None else group_from(stored, self._clock.now())

    def forget_group(self, group_id: str) -> None:
        """Delete a group and its chord count."""
        with self._mapped_errors():
            _unlink(self._group_place(group_id))
            _unlink(self._begun_place(group_id))
            _unlink(self._parts_place(group_id))

    def cleanup(self, now: float) -> int:
        """Delete what has expired, and what killed processes left. Files of stock workers are stock Celery's to clean up."""
        with self._mapped_errors():
            names = os.listdir(self.path) if os.path.isdir(self.path) else []
            for name in names:
                age = {_TEMPORARY: LEFTOVER, f"{self._prefix}celery-taskset-parts-": CHORD_KEPT,
                       f"{self._prefix}{_BEGUN}": CHORD_KEPT}  # fmt: skip
                limits = [seconds for start, seconds in age.items() if name.startswith(start)]
                if limits and _changed_at(os.path.join(self.path, name)) <= now - limits[0]:
                    _unlink(os.path.join(self.path, name))
            groups = self._mine(names, "celery-taskset-meta-")
            for place in groups:
                stored = _read(place)
                if stored is not None and group_from(stored, now) is None:
                    _unlink(place)
            return sum(self._expire(place, now) for place in self._mine(names, "celery-task-meta-"))

    def _mine(self, names: Iterable[str], kind: str) -> list[str]:
        return [os.path.join(self.path, name) for name in names if name.startswith(self._prefix + kind)]

    def _expire(self, place: str, now: float) -> bool:
        """Delete a record that has expired; under the lock, for it may just be replaced by one that has not."""
        if not _is_over(place, now):
            return False
        with self._locked():
            if _is_over(place, now):
                _unlink(place)
                return True
        return False

    def close(self) -> None:
        """Nothing is held."""


def _folder(base: str) -> str:
    """The folder that a URL names, made absolute: a later chdir must not make it another one."""
    rest = base.partition("://")[2].removeprefix("localhost/")
    path = "/" + rest if base.partition("://")[2].startswith("localhost/") else rest
    if not path.strip("/"):
        raise ImproperlyConfigured(f"{base!r} names no folder, as in 'file:///var/lib/results'.")
    try:
        return os.path.realpath(path)
    except ValueError as exc:
        raise ImproperlyConfigured(f"{base!r} names no folder: {exc}.") from exc


def _is_full(value: Any) -> bool:
    if str(value).upper() not in ("FULL", "NORMAL"):
        raise ImproperlyConfigured(f"file:// option synchronous is FULL or NORMAL, not {value!r}.")
    return str(value).upper() == "FULL"


def _seconds(value: Any) -> float:
    with contextlib.suppress(TypeError, ValueError, OverflowError):
        if 0 < float(value) < 3600:
            return float(value)
    raise ImproperlyConfigured(f"file:// option lock_timeout is a number of seconds above 0, not {value!r}.")


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _read(path: str) -> bytes | None:
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        return None


def _unlink(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def _changed_at(path: str) -> float:
    try:
        return os.stat(path).st_mtime
    except FileNotFoundError:
        return float("inf")


def _is_over(place: str, now: float) -> bool:
    value = _read(place)
    expires_at = None if value is None else expiry_of(os.path.basename(place), value)
    return expires_at is not None and expires_at <= now
