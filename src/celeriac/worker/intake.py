"""Fetches messages as far as the pool can use them, from a thread of its own.

One round trip takes as many as are wanted. What comes is put under lease renewal, looked up in the result store where it
was delivered before, and handed to the supervisor's event loop. While the broker is away it tries again, for
ever unless the settings set an end.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from msgspec.structs import replace

from celeriac.errors import OperationalError
from celeriac.faultpoint import faultpoint
from celeriac.log import get_logger
from celeriac.message import Action, Delivery, Settlement
from celeriac.results.base import Record, ResultStore
from celeriac.states import REVOKED, SUCCESS
from celeriac.task_limits import is_named
from celeriac.timing import backoff
from celeriac.transport.base import Transport
from celeriac.worker.consuming import Consuming
from celeriac.worker.leases import Leases
from celeriac.worker.revocations import Revocations

__all__ = ["Intake"]

logger = get_logger("celeriac.worker.intake")

#: Seconds a fetch waits at the broker when there is nothing; it is interrupted when that must end.
WAIT = 5.0
#: Messages taken in one round trip at most.
MAX_BATCH = 512
#: Longest pause between two attempts, in seconds: after a long outage the next task starts within it and a connect.
LONGEST_PAUSE = 2.0


class Intake:
    """The thread that fetches.

    Args:
        store: Asked for outcomes of redelivered messages; None when results are disabled.
        on_deliveries: Called, from the thread, with what came and what is stored of it.
        consuming: Told of each fetch.
        on_give_up: Called, from the thread, when the settings say not to try again.
    """

    def __init__(
        self,
        transport: Transport,
        store: ResultStore | None,
        leases: Leases,
        queues: Sequence[str],
        lease: float,
        on_deliveries: Callable[[list[Delivery], dict[str, Record]], None],
        consuming: Consuming,
        on_give_up: Callable[[Exception], None],
    ) -> None:
        self._transport = transport
        self._store = store
        self._leases = leases
        self.queues = list(queues)
        self._lease = lease
        self._on_deliveries = on_deliveries
        self._consuming = consuming
        self._on_give_up = on_give_up
        self._condition = threading.Condition()
        self._left_out: frozenset[str] = frozenset()
        self._wanted = 0
        self._is_stopping = False
        self.revocations = Revocations()
        self.revocations.unheard_until = 0.0  # until the worker says otherwise
        self._thread = threading.Thread(target=self._run, name="celeriac-intake", daemon=True)

    def start(self) -> None:
        """Start fetching."""
        self._thread.start()

    def want(self, number: int) -> None:
        """How many messages may be fetched now. Called by the event loop."""
        if number == self._wanted:
            return
        with self._condition:
            self._wanted = number
            self._condition.notify()

    def consume(self, queues: Sequence[str]) -> None:
        """Fetch from these queues from now on. Called by the event loop."""
        with self._condition:
            self.queues = list(queues)
            self._condition.notify()
        self._transport.interrupt()

    def leave_out(self, queues: frozenset[str]) -> None:
        """Fetch nothing from these until further notice: they are paused. Called by the event loop."""
        with self._condition:
            self._left_out = queues
            self._condition.notify()
        self._transport.interrupt()

    def stop(self) -> None:
        """Fetch no more. What a fetch under way still brings goes back."""
        with self._condition:
            self._is_stopping = True
            self._condition.notify()
        self._transport.interrupt()

    def join(self, timeout: float) -> bool:
        """Wait for the thread's end."""
        if self._thread.is_alive():
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        failures = 0
        while True:
            with self._condition:
                while not self._is_stopping and (self._wanted <= 0 or not (queues := self._open_queues())):
                    self._condition.wait()
                if self._is_stopping:
                    return
                number = min(self._wanted, MAX_BATCH)
            try:
                if failures or self._leases.is_behind:
                    self._leases.catch_up()
                self._consuming.begins()
                deliveries = self._transport.fetch(queues, number, WAIT, self._lease)
                if failures:
                    logger.warning("connected to %s again", self._transport.url)
                failures = 0
                self._consuming.ends(len(deliveries), queues)
                if deliveries:
                    self._take(deliveries)
            except Exception as exc:  # whatever a driver raises: without this thread the worker would idle for ever
                failures += 1
                if self._consuming.fails(exc, failures):
                    self._on_give_up(exc)
                    return
                pause, trace = backoff(failures, cap=LONGEST_PAUSE), None if isinstance(exc, OperationalError) else exc
                url = self._transport.url
                logger.error("can't fetch from %s, trying again in %.1f s: %s", url, pause, exc, exc_info=trace)
                with self._condition:
                    self._condition.wait_for(lambda: self._is_stopping, pause)

    def _open_queues(self) -> list[str]:
        return [name for name in self.queues if name not in self._left_out] if self._left_out else self.queues

    def _take(self, deliveries: list[Delivery]) -> None:
        faultpoint("after_fetch")
        self._leases.add(deliveries)
        if self._is_stopping:
            self._give_back(deliveries)
            return
        stored = self._stored(deliveries)
        deliveries = [_newer(delivery, stored) for delivery in deliveries] if stored else deliveries
        with self._condition:
            self._wanted = max(0, self._wanted - len(deliveries))
        self._on_deliveries(deliveries, stored)

    def _give_back(self, deliveries: list[Delivery]) -> None:
        self._transport.settle([Settlement(delivery, Action.REQUEUE) for delivery in deliveries])
        self._leases.discard(deliveries)

    def _stored(self, deliveries: list[Delivery]) -> dict[str, Record]:
        """The stored records of what was delivered before, has an id that its caller chose, or may have been revoked unheard.

        Waits for a store that is down: without its word a task that has ended could run again, and no outcome could
        be stored anyway.
        """
        is_doubtful = self.revocations.is_doubtful
        ids = [
            message.id
            for each in deliveries
            if (message := each.message).id
            and (each.redelivered or is_named(message.headers) or is_doubtful(message.id))
        ]
        attempt = 0
        while ids and self._store is not None and not self._is_stopping:
            try:
                return {record.id: record for record in self._store.get(ids) if record is not None}
            except OperationalError as exc:
                attempt += 1
                logger.warning("the result store can't be read, trying again: %s", exc)
                time.sleep(min(backoff(attempt), 1.0))
        return {}


def _newer(delivery: Delivery, stored: dict[str, Record]) -> Delivery:
    """A message with the id of one that has failed runs, and counts on from that one, so that its outcome is the newer."""
    record = stored.get(delivery.message.id)
    if record is None or delivery.redelivered or not record.is_ready or record.state == SUCCESS:
        return delivery
    if record.state == REVOKED and not (record.fence[1] and is_named(delivery.message.headers)):
        return delivery  # it was revoked before it ran; else it is one that had expired or was ended, and is sent again
    del stored[record.id]
    return replace(delivery, deliveries=record.fence[1] + 1)
