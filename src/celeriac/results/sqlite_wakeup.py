"""Waking those who wait for something in a SQLite file, without polling it.

SQLite can't notify, so whoever is about to sleep writes into `celeriac_waiters` what it wants and the address of its own
datagram socket; whoever commits something wanted sends one byte there after the commit. Rows are there only while
somebody sleeps, so under load nobody pays. The SQLite transport (fetch, subscriptions) and result store (wait) call it.

No wake-up is lost: the sleeper looks for work after (or in the same transaction as) writing its row, and the committer
reads the rows in the transaction that makes the work. A sleeper still looks again every `RECHECK` seconds, which covers
what sockets can't (a committer of another user or container, a file that was replaced).
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import select
import socket
import sqlite3
import stat
import tempfile
import threading
import time
from collections.abc import Iterable

from celeriac.errors import OperationalError
from celeriac.results.sqlite_database import Database, Transaction

__all__ = ["RECHECK", "ReadySocket", "Sleeper", "Wakeup", "register", "unregister"]

#: Longest sleep without looking into the file, in seconds: cheap enough (about 50 µs) to be invisible.
RECHECK = 1.0
#: Rows that may wait in `celeriac_inbox` for readers that don't read, in total.
INBOX_LIMIT = 50_000

_REGISTER = """
INSERT INTO celeriac_waiters (wants, address, until) VALUES (?, ?, ?)
ON CONFLICT (wants, address) DO UPDATE SET until = excluded.until WHERE until IS NOT excluded.until
"""
_numbers = itertools.count(1)


class ReadySocket:
    """A datagram socket of this process that others send a byte to."""

    def __init__(self, directory: str) -> None:
        self.pid = os.getpid()
        self.address = os.path.join(directory, f"{self.pid}-{next(_numbers)}")
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.address)  # left by a killed process that had the same pid
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            self._socket.bind(self.address)
            self._socket.setblocking(False)
        except OSError:
            self._socket.close()
            raise
        self._poll = select.poll()
        self._poll.register(self._socket, select.POLLIN)

    def wait(self, seconds: float) -> None:
        """Sleep until woken, or for `seconds`."""
        # One millisecond more than asked: a sleep that ends too early would cost one more round.
        self._poll.poll(max(0, int(seconds * 1000) + 1))
        with contextlib.suppress(BlockingIOError):
            while True:
                self._socket.recv(16)

    def wake(self) -> None:
        """Wake the thread that sleeps here, or is about to."""
        self.send(self.address)

    def send(self, address: str) -> bool:
        """Send one byte there; False if nobody is there any more."""
        try:
            self._socket.sendto(b"!", address)
        except OSError as exc:
            if exc.errno == errno.ECONNREFUSED:  # its process was killed and left the file
                with contextlib.suppress(OSError):
                    os.unlink(address)
            # Other errors mean that it is there: a full queue wakes it, and one of another user looks by itself.
            return exc.errno not in (errno.ECONNREFUSED, errno.ENOENT)
        return True

    def close(self) -> None:
        """Give the address up. In a fork's child the file is left to the parent."""
        self._socket.close()
        if self.pid == os.getpid():
            with contextlib.suppress(OSError):
                os.unlink(self.address)

    def __del__(self) -> None:
        with contextlib.suppress(AttributeError):  # there was no socket to be had
            self.close()


class Sleeper:
    """The same where there are no unix sockets: looks again after 5 to 50 ms. Nobody can address it."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.address = f"poll:{self.pid}-{next(_numbers)}-{os.urandom(4).hex()}"
        self._event = threading.Event()
        self._pause = 0.005

    def wait(self, seconds: float) -> None:
        """Sleep for a short while that grows with each call, or until woken from this process."""
        self._event.wait(min(seconds, self._pause))
        self._event.clear()
        self._pause = min(self._pause * 1.5, 0.05)

    def wake(self) -> None:
        """Wake the thread that sleeps here, or is about to."""
        self._event.set()

    def send(self, address: str) -> bool:
        """Others poll as well, on a system like this."""
        return True

    def close(self) -> None:
        """Nothing is held."""


def register(connection: sqlite3.Connection, address: str, wants: Iterable[str], until: float | None = None) -> None:
    """Write what `address` waits for; `until` (monotonic) ends it by itself. Called inside a transaction."""
    connection.executemany(_REGISTER, [(want, address, until) for want in wants])


def unregister(connection: sqlite3.Connection, address: str) -> None:
    """Take it back, with what was left in its inbox. Called inside a transaction."""
    connection.execute("DELETE FROM celeriac_waiters WHERE address = ?", (address,))
    connection.execute("DELETE FROM celeriac_inbox WHERE address = ?", (address,))


class Wakeup:
    """The sockets on which threads of one transport or store sleep, and the sending of wake-ups."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._free: list[ReadySocket | Sleeper] = []
        self._asleep: set[ReadySocket | Sleeper] = set()
        #: Rises with each interrupt; a sleeper that sees it rise gives up.
        self.interrupts = 0

    def acquire(self) -> ReadySocket | Sleeper:
        """An address to sleep at."""
        sleeper = self._take()
        self._asleep.add(sleeper)
        return sleeper

    def release(self, sleeper: ReadySocket | Sleeper) -> None:
        """Keep it for the next one who sleeps."""
        self._asleep.discard(sleeper)
        if isinstance(sleeper, ReadySocket):
            self._free.append(sleeper)

    def _take(self) -> ReadySocket | Sleeper:
        while True:
            try:
                sleeper = self._free.pop()
            except IndexError:
                return _new_sleeper()
            if sleeper.pid == os.getpid():
                return sleeper
            sleeper.close()  # the parent's, inherited over a fork

    def forget(self, address: str) -> None:
        """Remove the rows of a sleeper that is done."""
        # If that fails, its socket gets a few bytes too many; what it waited for must not be lost for that.
        with contextlib.suppress(OperationalError), Transaction(self._database, durable=False) as connection:
            unregister(connection, address)

    def interrupt(self) -> None:
        """Wake every thread that sleeps here."""
        self.interrupts += 1
        for sleeper in list(self._asleep):
            sleeper.wake()

    def wake(self, addresses: Iterable[tuple[str]]) -> None:
        """Wake these, after the commit; forgets those that are gone."""
        sender = self._take()
        gone = [address for (address,) in addresses if not sender.send(address)]
        self.release(sender)
        for address in gone:
            self.forget(address)

    def leave(self, connection: sqlite3.Connection, want: str, letters: list[tuple[str, bytes]]) -> list[tuple[str]]:
        """Put letters (topic, payload) into the inbox of each who wants `want`; returns whom to wake."""
        addresses: list[tuple[str]] = connection.execute(
            "SELECT address FROM celeriac_waiters WHERE wants = ? AND (until IS NULL OR until > ?)",
            (want, time.monotonic()),
        ).fetchall()
        if addresses:
            connection.executemany(
                "INSERT INTO celeriac_inbox (address, topic, payload) VALUES (?, ?, ?)",
                [(address, topic, payload) for (address,) in addresses for topic, payload in letters],
            )
            connection.execute(
                "DELETE FROM celeriac_inbox WHERE id <= (SELECT max(id) FROM celeriac_inbox) - ?", (INBOX_LIMIT,)
            )
        return addresses

    def close(self) -> None:
        """Give up the addresses at which nobody sleeps."""
        while self._free:
            self._free.pop().close()


def _new_sleeper() -> ReadySocket | Sleeper:
    if hasattr(socket, "AF_UNIX") and hasattr(select, "poll"):
        with contextlib.suppress(OSError):  # no room, no rights, a path too long for a socket: then we poll
            return ReadySocket(_directory())
    return Sleeper()


def _directory() -> str:
    """This user's directory for sockets; nobody else may send to them or put other sockets there."""
    path = os.path.join(tempfile.gettempdir(), f"celeriac-{os.getuid()}")
    with contextlib.suppress(FileExistsError):
        os.mkdir(path, 0o700)
    found = os.lstat(path)
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise PermissionError(errno.EPERM, "not a private directory of this user", path)
    return path
