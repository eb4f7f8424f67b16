"""Being told by PostgreSQL: one listening connection and one thread per process that waits, for any number of waiters.

The PostgreSQL transport (fetch, subscriptions) and result store (wait) register sleepers here. Each want is a channel of
LISTEN and, while somebody wants it, a shared advisory lock. A publisher tries to get the same lock exclusively for the
length of its transaction: if it gets it nobody waits, and NOTIFY is left out. (NOTIFY makes commits queue behind each other:
with eight publishers at once it cost half of the throughput.) `NOTIFY` is the statement that does this.

No wake-up is lost: to begin to wait one needs the lock, so every publisher either has committed before, and its messages are
found by the look that follows, or comes later, fails to get the lock, and notifies. If the connection is lost, sleepers look
again by themselves until it is back. Connection and thread end when nobody has waited for a while.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import select
import socket
import threading
import time
from collections.abc import Iterable, Sequence
from typing import Any

import psycopg

from celeriac.errors import CeleriacError
from celeriac.log import get_logger
from celeriac.results.sql_connection import Connection
from celeriac.results.sql_database import Database
from celeriac.results.sql_sleeper import PollingRouser, Sleeper
from celeriac.timing import backoff

__all__ = ["NOTIFY", "Listener", "address"]

logger = get_logger("celeriac.results.sql_listener")

#: Takes arrays: channels, keys of their locks, payloads. Notifies those channels that somebody listens to.
NOTIFY = """
SELECT count(pg_notify(channel, payload)) FROM unnest(%b::text[], %b::int8[], %b::text[]) AS told(channel, key, payload)
WHERE NOT pg_try_advisory_xact_lock(key)
"""
#: Seconds for which a lock is kept after its last sleeper, so that one who waits again soon pays nothing.
KEPT = 0.25
#: Seconds after which a connection that nobody needs is closed.
IDLE = 20.0
#: Seconds between questions to a silent server, to notice one that is frozen or cut off.
PING = 10.0
#: Longest wait of a new sleeper for its registration, in seconds. Without it, it looks again by itself.
REGISTER = 0.5


def address(schema: str, want: str) -> tuple[str, int]:
    """(channel, key of the lock) of a want."""
    digest = hashlib.blake2b(f"{schema}\0{want}".encode(errors="surrogatepass"), digest_size=16).digest()
    return "celeriac_" + digest.hex(), int.from_bytes(digest[:8], "big", signed=True)


class Listener(PollingRouser):
    """The sleepers of this process that PostgreSQL tells."""

    def __init__(self, database: Database) -> None:
        self._database = database
        super().__init__()

    def _reset(self) -> None:
        super()._reset()
        self._changed = threading.Condition(self._lock)
        self._held: dict[str, float] = {}  #: wants whose lock we have, and when they were last needed
        self._asked: set[str] = set()  #: wants that new sleepers have
        self._channels: dict[str, str] = {}  #: channel → want, for all we LISTEN to
        self._flushes_asked = self._flushes_done = 0
        self._thread: threading.Thread | None = None
        self._is_closed = False
        self._wake_r: socket.socket | None = None
        self._wake_w: socket.socket | None = None

    def sleeper(self, wants: Sequence[str]) -> Sleeper:
        """A registered sleeper; `is_told` says whether PostgreSQL tells it."""
        sleeper = super().sleeper(wants)
        with self._changed:
            missing = [want for want in sleeper.wants if want not in self._held]
            now = time.monotonic()
            for want in sleeper.wants:
                if want in self._held:
                    self._held[want] = now
            if missing:
                self._asked.update(missing)
                self._start()
                self._changed.wait_for(lambda: all(want in self._held for want in sleeper.wants), REGISTER)
            sleeper.is_told = all(want in self._held for want in sleeper.wants)
        return sleeper

    def forget(self, sleeper: Sleeper) -> None:
        """Remove a sleeper. Its registration lapses a little later."""
        super().forget(sleeper)
        with self._lock:
            for want in sleeper.wants:
                if want not in self._sleepers:
                    self._asked.discard(want)
                if want in self._held:
                    self._held[want] = time.monotonic()

    def flush(self) -> None:
        """Return once everything that was sent before this has been handed to the sleepers."""
        with self._changed:
            self._flushes_asked += 1
            mine = self._flushes_asked
            self._start()
            self._changed.wait_for(lambda: self._flushes_done >= mine, self._timeout)

    def _flush(self, connection: Connection) -> None:
        asked = self._flushes_asked
        if asked > self._flushes_done:
            # The server sends what it has for us before it answers.
            _execute(connection, self._timeout, "SELECT 1")
            self._dispatch(connection)
            with self._changed:
                self._flushes_done = asked
                self._changed.notify_all()

    def _start(self) -> None:
        """Have the thread, and its attention. Called under the lock."""
        if self._thread is None:
            self._wake_r, self._wake_w = socket.socketpair()
            self._wake_r.setblocking(False)
            self._wake_w.setblocking(False)
            self._is_closed = False
            self._thread = threading.Thread(target=self._run, name="celeriac-listener", daemon=True)
            self._thread.start()
        elif self._wake_w is not None:
            with contextlib.suppress(OSError):
                self._wake_w.send(b"!")

    def _run(self) -> None:
        failures = 0
        while True:
            try:
                with contextlib.closing(self._database.listening()) as connection:
                    connection.add_notify_handler(self._hear)
                    failures = 0
                    if self._serve(connection):
                        return
            except (psycopg.Error, CeleriacError, OSError, ValueError) as exc:
                failures += 1
                if not self._is_closed:
                    logger.warning("not told of news by %s for now: %s", self._database.settings.masked, exc)
            with self._changed:
                self._lose_all()
                if self._is_closed or not (self._sleepers or self._asked):
                    self._end()
                    return
                self._changed.wait_for(lambda: self._is_closed, backoff(failures))

    def _lose_all(self) -> None:
        """The connection and its locks are gone: every sleeper looks by itself, and is registered anew."""
        self._held.clear()
        self._channels.clear()
        self._asked.update(self._sleepers)
        for known in self._sleepers.values():
            for sleeper in known:
                sleeper.is_told = False
                sleeper.wake()

    def _end(self) -> None:
        """The thread ends. Called under the lock."""
        for sock in (self._wake_r, self._wake_w):
            if sock is not None:
                sock.close()
        self._thread = self._wake_r = self._wake_w = None
        self._lose_all()
        self._asked.clear()

    def _serve(self, connection: Connection) -> bool:
        """Listen until nobody has waited for a while (True) or the connection is lost."""
        heard = needed = time.monotonic()
        while True:
            self._register(connection)
            self._flush(connection)
            self._release(connection)
            now = time.monotonic()
            with self._changed:
                if self._sleepers or self._asked:
                    needed = now
                if self._is_closed or now - needed > IDLE:
                    self._end()
                    return True
                pause = 0.003 if self._asked else KEPT if self._held_in_vain() else PING
            if self._pause(connection, pause):
                heard = time.monotonic()
            self._dispatch(connection)
            if time.monotonic() - heard > PING:
                _execute(connection, self._timeout, "SELECT 1")
                heard = time.monotonic()

    @property
    def _timeout(self) -> float:
        return self._database.settings.timeout

    def _held_in_vain(self) -> bool:
        return any(want not in self._sleepers for want in self._held)

    def _pause(self, connection: Connection, seconds: float) -> bool:
        """Wait for the server or a thread of ours; True if the server has said something."""
        assert self._wake_r is not None
        fileno = connection.pgconn.socket
        if hasattr(select, "poll"):
            poll = select.poll()
            poll.register(fileno, select.POLLIN)
            poll.register(self._wake_r, select.POLLIN)
            ready = {found for found, _ in poll.poll(int(seconds * 1000) + 1)}
        else:
            ready = set(select.select([fileno, self._wake_r.fileno()], [], [], seconds)[0])
        with contextlib.suppress(OSError):
            while self._wake_r.recv(4096):
                pass
        return fileno in ready

    def _register(self, connection: Connection) -> None:
        """Get the locks that new sleepers want. One that a publisher holds at this moment is tried again."""
        with self._changed:
            asked = list(self._asked)
        if not asked:
            return
        schema = self._database.settings.schema
        places = {want: address(schema, want) for want in asked}
        new = {channel: want for want, (channel, _) in places.items() if channel not in self._channels}
        if new:
            _execute(connection, self._timeout, "; ".join(f"LISTEN {channel}" for channel in new))
            self._channels.update(new)
        keys = [key for _, key in places.values()]
        sql = "SELECT pg_try_advisory_lock_shared(key) FROM unnest(%b::int8[]) AS wanted(key)"
        got = _execute(connection, self._timeout, sql, (keys,))
        with self._changed:
            now = time.monotonic()
            for want, (is_held,) in zip(asked, got, strict=True):
                if is_held:
                    self._asked.discard(want)
                    self._held[want] = now
            # Those who didn't wait for their registration: told from now on, after one more look.
            for want in asked:
                for sleeper in self._sleepers.get(want, ()):
                    if not sleeper.is_told and all(each in self._held for each in sleeper.wants):
                        sleeper.is_told = True
                        sleeper.wake()
            self._changed.notify_all()

    def _release(self, connection: Connection) -> None:
        """Give up locks that nobody has needed for a while. Channels are kept: hearing too much is harmless."""
        with self._changed:
            before = time.monotonic() - KEPT
            idle = [want for want, used in self._held.items() if used <= before and want not in self._sleepers]
            for want in idle:
                del self._held[want]
        if idle:
            keys = [address(self._database.settings.schema, want)[1] for want in idle]
            sql = "SELECT pg_advisory_unlock_shared(key) FROM unnest(%b::int8[]) AS wanted(key)"
            _execute(connection, self._timeout, sql, (keys,))

    def _dispatch(self, connection: Connection) -> None:
        connection.pgconn.consume_input()
        while (told := connection.pgconn.notifies()) is not None:
            self._hear(psycopg.Notify(told.relname.decode(), told.extra.decode(), told.be_pid))

    def _hear(self, told: psycopg.Notify) -> None:
        want = self._channels.get(told.channel)
        if want is not None:
            self.rouse([want], told.payload)

    def close(self) -> None:
        """End the connection, once nobody sleeps."""
        if self._pid != os.getpid():
            return
        with self._changed:
            self._is_closed = True
            thread = self._thread
            if thread is not None:
                self._changed.notify_all()
                self._start()
        if thread is not None and thread is not threading.current_thread():
            thread.join(1.0)


def _execute(connection: Connection, timeout: float, sql: str, parameters: Iterable[Any] | None = None) -> list[Any]:
    connection.deadline = time.monotonic() + timeout
    cursor = connection.cursor(binary=parameters is not None)
    cursor.execute(sql, tuple(parameters) if parameters is not None else None)
    return cursor.fetchall() if cursor.description is not None else []
