"""Clients that go on sending while their broker is broken, and know exactly what they were told is accepted.

Half of the threads send with `retry=False` and take a new id for each attempt: what they were told is accepted was published
once, and may run only once where no lease has been lost. The others send as users do, with the retries of `delay()`: a reply
that was lost makes the same message go twice, so theirs runs at least once. Every fifth task has a callback.
"""

from __future__ import annotations

import threading
import time
import uuid
from types import TracebackType
from typing import NamedTuple, Self

from celeriac.errors import OperationalError
from tests.faults.apps_brokers.rig import BrokerRig

__all__ = ["Accepted", "Load"]

#: Seconds between two tasks of one thread, and between two attempts while the broker refuses.
PACE = 0.04


class Accepted(NamedTuple):
    """A task that the broker has, by its word. Its key in the ledger is its id."""

    id: str
    is_published_once: bool
    has_callback: bool


class Load:
    """Sends tasks from several threads until it is left.

    Args:
        seconds: What each task does.
    """

    def __init__(self, rig: BrokerRig, *, threads: int = 4, seconds: float = 0.002) -> None:
        self.rig = rig
        self.accepted: list[Accepted] = []
        self.refusals: list[str] = []
        self._seconds = seconds
        self._stop = threading.Event()
        self._error: BaseException | None = None
        self._threads = [threading.Thread(target=self._run, args=(number,), daemon=True) for number in range(threads)]
        self._probes = 0

    def __enter__(self) -> Self:
        _ = self.rig.app.transport  # opened once, before the threads ask for it
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(30)
        if exc is None and self._error is not None:
            raise self._error

    def _run(self, number: int) -> None:
        try:
            sent = 0
            while not self._stop.wait(PACE):
                sent += 1
                self.send(once=number % 2 == 0, callback=sent % 5 == 0)
        except BaseException as exc:  # shown when the load is left
            self._error = exc

    def send(self, *, once: bool, callback: bool = False, timeout: float = 30.0) -> Accepted:
        """Send one task, with as many attempts as it takes."""
        end = time.monotonic() + timeout
        link = self.rig.app.signature("follow") if callback else None
        while True:
            task_id = str(uuid.uuid4())
            try:
                self.rig.app.send_task("work", (task_id, self._seconds), task_id=task_id, link=link, retry=not once)
            except OperationalError as exc:
                self.refusals.append(str(exc))
                assert time.monotonic() < end, f"the broker has refused for {timeout} s, the last time with: {exc}"
                self._stop.wait(PACE)
            else:
                done = Accepted(task_id, once, callback)
                self.accepted.append(done)
                return done

    def healed(self, limit: float = 10.0) -> float:
        """Call it at the end of a fault: seconds until a task that is sent from now on has started."""
        began = time.monotonic()
        probe = self.send(once=True, timeout=limit)
        try:
            return self.rig.marks.wait("start", probe.id, limit).at - began
        except AssertionError as exc:
            raise AssertionError(f"a task that was accepted after the heal has not started in {limit} s") from exc

    def verify(self, *, may_repeat: bool) -> None:
        """After the load: everything accepted has succeeded, once, with its callbacks; nothing remains.

        Args:
            may_repeat: Whether leases may have been lost, so that executions were repeated.
        """
        rig, accepted = self.rig, list(self.accepted)
        first = rig.wait_succeeded(each.id for each in accepted)
        for each in accepted:
            if each.has_callback:
                rig.marks.wait("follow", each.id)
        rig.assert_empty()
        starts = rig.marks.counts("start")
        if not may_repeat:
            repeated = {
                each.id: starts[each.id] for each in accepted if each.is_published_once and starts[each.id] != 1
            }
            assert not repeated, f"{len(repeated)} of {len(accepted)} not run exactly once: {repeated}"
        last = rig.records(first)
        changed = [key for key, record in first.items() if starts[key] == 1 and last[key] != record]
        assert not changed, f"{len(changed)} outcome(s) were recorded more than once: {changed[:5]}"
