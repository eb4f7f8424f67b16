"""One SQLite file: its URL and options, connections, transactions and errors.

The SQLite transport and result store each own a `Database`. All writing goes through `Transaction`, the one place where
sqlite3's errors become ours. Invariants: one connection per thread and process (never one from before a fork); a
transaction takes the write lock at its start, so it can't fail half-way for want of it; the file may vanish, be full
or be locked at any moment, and the next call after that works again.

SQLite's own way of waiting for a lock sleeps up to 100 ms and starves writers under load (single waits of 400 ms were
measured), so threads of one process queue on a plain lock, and processes retry with short jittered pauses.
"""

from __future__ import annotations

import contextlib
import logging
import os
import random
import sqlite3
import threading
import time
import weakref
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, ClassVar
from urllib.parse import unquote

import msgspec

from celeriac.errors import ImproperlyConfigured, MessageTooLarge, OperationalError
from celeriac.results.drivers import check_options, split_query
from celeriac.results.sqlite_schema import ensure_schema
from celeriac.timing import shortened

__all__ = ["Database", "Settings", "Transaction", "parse_url"]

logger = logging.getLogger(__name__)

#: UPDATE … RETURNING came with it.
MIN_VERSION = (3, 35)
_OPTIONS = ("busy_timeout", "synchronous")
#: Options that Celery documents for all transports and that have no meaning here; configurations carry them along.
_IGNORED = frozenset({"visibility_timeout", "polling_interval", "max_retries", "interval_start", "interval_step",
                      "interval_max", "client_name"})  # fmt: skip
#: Connections inherited over a fork that may have been in use at that moment: neither used nor closed, ever.
_leaked: list[sqlite3.Connection] = []
_databases: weakref.WeakSet[Database] = weakref.WeakSet()
#: Held while a connection is opened, so that no fork happens then.
_opening = threading.Lock()


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What a SQLite URL says.

    Attributes:
        synchronous: "FULL" (what is committed outlives a power cut) or "NORMAL" (it outlives a crash of any process).
        busy_timeout: Longest wait for the write lock, in seconds.
    """

    url: str
    path: str
    synchronous: str = "FULL"
    busy_timeout: float = 5.0


def parse_url(url: str, options: Mapping[str, Any]) -> Settings:
    """The settings in a URL such as `sqlite:///celeriac.db?synchronous=NORMAL`.

    Raises:
        ImproperlyConfigured: The URL has no file, or an option is unknown or out of range.
    """
    if sqlite3.sqlite_version_info < MIN_VERSION:
        needed = ".".join(map(str, MIN_VERSION))
        raise ImproperlyConfigured(f"{url!r} needs SQLite {needed}; this Python has {sqlite3.sqlite_version}.")
    base, query = split_query(url)
    _, _, rest = base.partition("://")
    if rest in ("", "/") or ":memory:" in rest:
        raise ImproperlyConfigured(
            f"{url!r} names no file, as in 'sqlite:///celeriac.db'. In memory only: 'memory://'."
        )
    if not rest.startswith("/"):
        raise ImproperlyConfigured(f"{url!r} has too few slashes: 'sqlite:///{rest}' is the file {rest!r}.")
    merged = {name: value for name, value in options.items() if name not in _IGNORED} | query
    check_options(merged, _OPTIONS, "SQLite")
    synchronous = str(merged.get("synchronous", "FULL")).upper()
    if synchronous not in ("FULL", "NORMAL"):
        raise ImproperlyConfigured(f"SQLite option synchronous is FULL or NORMAL, not {merged['synchronous']!r}.")
    # A path is fixed here: a later chdir (a daemon does one) must not make it another file.
    try:
        path = os.path.realpath(unquote(rest[1:]))
    except ValueError as exc:
        raise ImproperlyConfigured(f"{url!r} names no file: {exc}.") from exc
    return Settings(url=url, path=path, synchronous=synchronous, busy_timeout=_seconds(merged.get("busy_timeout", 5.0)))


def _seconds(value: Any) -> float:
    with contextlib.suppress(TypeError, ValueError, OverflowError):
        seconds = float(value)
        if 0 <= seconds < 3600:
            return seconds
    raise ImproperlyConfigured(f"SQLite option busy_timeout is a number of seconds from 0 to 3600, not {value!r}.")


class _Handle:
    """One thread's connection, and what it was opened on."""

    __slots__ = ("__weakref__", "connection", "identity", "lock", "pid", "synchronous")

    def __init__(self, connection: sqlite3.Connection, identity: tuple[int, int], synchronous: str) -> None:
        self.connection: sqlite3.Connection | None = connection
        self.identity = identity
        self.lock = threading.Lock()
        self.pid = os.getpid()
        self.synchronous = synchronous

    def close(self) -> None:
        connection, self.connection = self.connection, None
        if connection is None:
            return
        if self.pid == os.getpid():
            connection.close()
        else:
            _leaked.append(connection)

    def __del__(self) -> None:
        self.close()  # the thread has ended


class Database:
    """Connections to one file; may be used by any thread and after a fork."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.path = settings.path
        self._reset()
        _databases.add(self)

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._local = threading.local()
        self._handles: weakref.WeakSet[_Handle] = weakref.WeakSet()  # a thread's handle goes with its thread
        #: Writers of this process queue here instead of fighting for the file's lock.
        self.write_lock = threading.Lock()

    def handle(self) -> _Handle:
        """This thread's connection: opened, or reopened, as needed."""
        if self._pid != os.getpid():
            self._reset()  # forked by something that runs no hooks: what we have is the parent's
        handle: _Handle | None = getattr(self._local, "handle", None)
        if handle is not None and handle.connection is not None:
            try:
                stat = os.stat(self.path)
                if (stat.st_dev, stat.st_ino) == handle.identity:
                    return handle
            except OSError:
                pass  # gone
            logger.warning("%s was deleted or replaced while in use: opening it anew", self.path)
            handle.close()
        handle = self._local.handle = self._open()
        self._handles.add(handle)
        return handle

    def _open(self) -> _Handle:
        with _opening, mapped_errors(self.settings):
            # Autocommit mode: transactions begin and end where our code says so.
            connection = sqlite3.connect(self.path, timeout=0, isolation_level=None, check_same_thread=False)
            try:
                self._prepare(connection)
                stat = os.stat(self.path)
            except BaseException:
                connection.close()
                raise
        return _Handle(connection, (stat.st_dev, stat.st_ino), self.settings.synchronous)

    def _prepare(self, connection: sqlite3.Connection) -> None:
        for statement in (
            "PRAGMA journal_mode = WAL",
            f"PRAGMA synchronous = {self.settings.synchronous}",
            "PRAGMA secure_delete = OFF",
            "PRAGMA cache_size = -2000",  # KiB
            "PRAGMA journal_size_limit = 67108864",  # a log that grew in a burst shrinks again
            "BEGIN IMMEDIATE",
        ):
            retried(connection, statement, self.settings.busy_timeout)
        try:
            ensure_schema(connection, self.path)
            connection.execute("COMMIT")
        except BaseException:
            connection.rollback()
            raise

    def read(self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] = ()) -> list[Any]:
        """Rows of one SELECT, seen at one moment. Never waits for writers."""
        handle = self.handle()
        with handle.lock, mapped_errors(self.settings):
            if handle.connection is None:
                raise OperationalError(f"{self.path} was closed by another thread.")
            return retried(handle.connection, sql, self.settings.busy_timeout, parameters).fetchall()

    def durability_report(self) -> list[str]:
        """What may be lost, one line each."""
        if self.settings.synchronous == "FULL":
            return []
        return [f"synchronous is {self.settings.synchronous}: a power cut loses the last moments. Set it to FULL."]

    def close(self) -> None:
        """Close this process's connections, when their threads are done with them. The next use opens anew."""
        if self._pid == os.getpid():
            for handle in list(self._handles):
                with handle.lock:
                    handle.close()

    def handles(self) -> list[_Handle]:
        """The connections of all threads."""
        return list(self._handles)

    def forget_inherited(self) -> None:
        """In a fork's child: start anew."""
        self._reset()


class Transaction:
    """A write transaction: `with Transaction(database) as connection`. Rolled back if the block raises.

    With `durable=False` it may be undone by a power cut, though not by the crash of any process. That is right for
    leases and waiters: after a power cut the machine boots anew and they are void in any case. It saves the fsync.
    """

    __slots__ = ("_connection", "_database", "_durable", "_handle")

    def __init__(self, database: Database, durable: bool = True) -> None:
        self._database = database
        self._durable = durable

    def __enter__(self) -> sqlite3.Connection:
        database = self._database
        settings = database.settings
        self._handle = handle = database.handle()
        lock = database.write_lock
        if not lock.acquire(blocking=False) and not lock.acquire(timeout=shortened(settings.busy_timeout) or 0.001):
            raise OperationalError(f"{settings.path} was locked for more than {settings.busy_timeout:g} s.")
        handle.lock.acquire()
        try:
            connection = handle.connection
            if connection is None:
                raise OperationalError(f"{settings.path} was closed by another thread.")
            wanted = settings.synchronous if self._durable else "NORMAL"
            if handle.synchronous != wanted:
                connection.execute(f"PRAGMA synchronous = {wanted}")
                handle.synchronous = wanted
            try:
                connection.execute("BEGIN IMMEDIATE")
            except sqlite3.Error:
                with mapped_errors(settings):
                    retried(connection, "BEGIN IMMEDIATE", shortened(settings.busy_timeout))
        except BaseException:
            if handle.connection is not None and handle.connection.in_transaction:
                handle.connection.rollback()  # interrupted by a signal just then
            handle.lock.release()
            database.write_lock.release()
            raise
        self._connection = connection
        return connection

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, _: TracebackType | None) -> None:
        try:
            if exc is None:
                try:
                    self._connection.execute("COMMIT")
                    return
                except sqlite3.Error as failure:
                    exc = failure
            self._undo()
            if isinstance(exc, sqlite3.Error):
                raise translated(exc, self._database.settings) from exc
        finally:
            self._handle.lock.release()
            self._database.write_lock.release()

    def _undo(self) -> None:
        try:
            self._connection.rollback()  # nothing happens if SQLite has rolled back by itself
        except sqlite3.Error:
            self._handle.close()  # a connection in an unknown state is not used again


def retried(
    connection: sqlite3.Connection, sql: str, timeout: float, parameters: Sequence[Any] | Mapping[str, Any] = ()
) -> sqlite3.Cursor:
    """Execute one statement, again and again while another process has the lock, up to `timeout` seconds."""
    deadline = time.monotonic() + timeout
    pause = 0.0002
    while True:
        try:
            return connection.execute(sql, parameters)
        except sqlite3.OperationalError as exc:
            if primary_code(exc) not in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED) or time.monotonic() >= deadline:
                raise
        time.sleep(pause * (0.5 + random.random()))
        pause = min(pause * 1.5, 0.001)  # at 5 ms, two busy processes made each other wait up to 290 ms


def primary_code(exc: sqlite3.Error) -> int:
    """SQLite's error code without its extension; 0 if the error is Python's own."""
    return getattr(exc, "sqlite_errorcode", 0) & 0xFF


@contextlib.contextmanager
def mapped_errors(settings: Settings) -> Iterator[None]:
    """Turn sqlite3's errors into ours."""
    try:
        yield
    except sqlite3.Error as exc:
        raise translated(exc, settings) from exc


def translated(exc: sqlite3.Error, settings: Settings) -> Exception:
    """Our error for one of sqlite3's: it names the file and what is wrong with it."""
    path = settings.path
    code = primary_code(exc)
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return OperationalError(f"{path} was locked by another process for more than {settings.busy_timeout:g} s.")
    if code == sqlite3.SQLITE_FULL:
        return OperationalError(f"No space left for {path}: nothing was written.")
    if code in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH):
        return OperationalError(f"Can't open {path}: {_why_not_open(path)}")
    if code == sqlite3.SQLITE_READONLY:
        return OperationalError(f"Can't write to {path}: the file or its directory is read-only.")
    if code == sqlite3.SQLITE_NOTADB:
        return OperationalError(f"{path} is not an SQLite database.")
    if code == sqlite3.SQLITE_CORRUPT:
        return OperationalError(f"{path} is damaged ({exc}). Move it away, or restore it from a copy.")
    if code == sqlite3.SQLITE_TOOBIG or isinstance(exc, sqlite3.DataError):
        return MessageTooLarge(f"A value is larger than SQLite takes ({exc}).")
    return OperationalError(f"{path}: {exc}.")


def _why_not_open(path: str) -> str:
    directory = os.path.dirname(path)
    if os.path.isdir(path):
        return "it is a directory."
    if not os.path.isdir(directory):
        return f"the directory {directory} does not exist."
    if not os.access(directory, os.W_OK):
        return f"the directory {directory} is not writable."
    return "it can't be read and written by this user."


# SQLite keeps what it knows of locks per file and process. A child inherits that knowledge without the locks: it would
# believe that it holds them, or wait for ever for a transaction of a thread that it doesn't have. So a fork waits until
# no connection is in use, and the child closes those it has inherited before it opens its own. (SQLite's manual warns of
# that close; it is harmless to connections at rest, since a process can't release another's locks.)


class _Fork:
    """What is held over a fork."""

    #: Longest wait for a lock, in seconds; its connection is then left alone in the child.
    patience = 1.0
    locks: ClassVar[list[threading.Lock]] = []
    #: Connections at rest. Held here, for in the child the threads that own them are gone.
    handles: ClassVar[list[_Handle]] = []

    @classmethod
    def before(cls) -> None:
        databases = list(_databases)
        for lock in (_opening, *(database.write_lock for database in databases)):
            if lock.acquire(timeout=cls.patience):
                cls.locks.append(lock)
        for handle in [handle for database in databases for handle in database.handles()]:
            if handle.lock.acquire(timeout=cls.patience):
                cls.locks.append(handle.lock)
                cls.handles.append(handle)

    @classmethod
    def after_in_parent(cls) -> None:
        while cls.locks:
            cls.locks.pop().release()
        cls.handles.clear()

    @classmethod
    def after_in_child(cls) -> None:
        global _opening
        _opening = threading.Lock()
        for handle in cls.handles:
            handle.pid = os.getpid()
            handle.close()
        for database in list(_databases):
            database.forget_inherited()
        cls.locks.clear()
        cls.handles.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_Fork.before, after_in_parent=_Fork.after_in_parent, after_in_child=_Fork.after_in_child)
