"""Listening to topics in a SQLite file: what `SqliteTransport.subscribe` returns.

A subscription is rows among the waiters (one per topic, for one address) and the inbox of that address. Senders leave
payloads in the inboxes of those present and wake them; nothing is kept for absent ones.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

from celeriac.results.sqlite_database import Database, Transaction
from celeriac.results.sqlite_wakeup import RECHECK, Wakeup, register

__all__ = ["SqliteSubscription", "topic_want"]

_READ = "DELETE FROM celeriac_inbox WHERE address = ? RETURNING id, topic, payload"


def topic_want(topic: str) -> str:
    """What a subscriber of `topic` writes among the waiters."""
    return "topic:" + topic


class SqliteSubscription:
    """A listener with an address of its own. One thread polls it; any may interrupt or close."""

    def __init__(self, database: Database, wakeup: Wakeup, topics: Sequence[str]) -> None:
        self._database = database
        self._wakeup = wakeup
        self._wants = [topic_want(topic) for topic in topics]
        self._sleeper = wakeup.acquire()
        self._polling = threading.Lock()
        self._interrupted = False
        self._closed = False
        with Transaction(database, durable=False) as connection:
            register(connection, self._sleeper.address, self._wants)

    def poll(self, wait: float) -> list[tuple[str, bytes]]:
        """What was sent since the last poll; waits for the first."""
        deadline = time.monotonic() + wait
        with self._polling:
            while not self._closed:
                letters = self._read()
                left = deadline - time.monotonic()
                if letters or left <= 0 or self._interrupted:
                    self._interrupted = False
                    return letters
                self._sleeper.wait(min(left, RECHECK))
        return []

    def _read(self) -> list[tuple[str, bytes]]:
        with Transaction(self._database, durable=False) as connection:
            # Written anew each time: a sender that couldn't reach us, or a file that was replaced, has lost it.
            register(connection, self._sleeper.address, self._wants)
            rows = connection.execute(_READ, (self._sleeper.address,)).fetchall()
        return [(topic, payload) for _, topic, payload in sorted(rows)]

    def interrupt(self) -> None:
        """Make a poll that waits return."""
        self._interrupted = True
        self._sleeper.wake()

    def close(self) -> None:
        """Stop listening."""
        if self._closed:
            return
        self._closed = True
        self._sleeper.wake()
        with self._polling:  # the socket must not be closed under a poll
            self._wakeup.forget(self._sleeper.address)
            self._wakeup.release(self._sleeper)
