"""Keeps the leases of everything this worker holds: renewed every third of their time, from a thread of their own.

The same thread records at the broker what has started. A store that is down or a task that is long can't delay a renewal.
Deliveries whose lease another worker has taken are reported once; their outcomes will be refused.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable

from celeriac.errors import OperationalError
from celeriac.log import get_logger
from celeriac.message import Delivery
from celeriac.timing import backoff
from celeriac.transport.base import Transport

__all__ = ["Leases"]

logger = get_logger("celeriac.worker.leases")

#: Seconds between two renewals where somebody has to know at once that the broker is lost.
LOOK_EVERY = 1.0


class Leases:
    """The deliveries on lease to this worker.

    Args:
        seconds: Length of a lease.
        on_lost: Called, from this component's thread, with deliveries whose lease is lost.
    """

    def __init__(self, transport: Transport, seconds: float, on_lost: Callable[[list[Delivery]], None]) -> None:
        self._transport = transport
        self._seconds = seconds
        self._renews = False
        #: Whether the last renewal has failed, so that leases may have run out meanwhile.
        self.is_behind = False
        self._on_lost = on_lost
        #: Called, from this component's thread, when the broker is lost. Where it is set, looks are taken more often.
        self.on_away: Callable[[], None] | None = None
        self._held: dict[object, tuple[Delivery, float]] = {}
        self._started: list[Delivery] = []
        self._is_stopping = False
        self._lock = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="celeriac-leases", daemon=True)

    def start(self) -> None:
        """Start renewing."""
        capabilities = self._transport.capabilities
        self._renews = capabilities.lease == "message"
        if self._renews or capabilities.counts_starts or self.on_away is not None:
            self._thread.start()

    def stop(self) -> None:
        """Stop renewing."""
        with self._lock:
            self._is_stopping = True
            self._lock.notify()

    def charge(self, deliveries: Iterable[Delivery]) -> None:
        """Record at the broker that these are started."""
        with self._lock:
            self._started.extend(deliveries)
            self._lock.notify()

    def add(self, deliveries: Iterable[Delivery]) -> None:
        """Renew these from now on."""
        with self._lock:
            for delivery in deliveries:
                self._held[delivery.token] = (delivery, delivery.deadline)

    def discard(self, deliveries: Iterable[Delivery]) -> None:
        """These are settled."""
        with self._lock:
            for delivery in deliveries:
                self._held.pop(delivery.token, None)

    def is_over(self, delivery: Delivery) -> bool:
        """Whether its lease may be over by our clock (it is then unknown whether another worker has it)."""
        with self._lock:
            entry = self._held.get(delivery.token)
        return entry is None or entry[1] <= time.monotonic()

    def __len__(self) -> int:
        return len(self._held)

    def _run(self) -> None:
        usual = self._seconds / 3 if self.on_away is None else min(self._seconds / 3, LOOK_EVERY)
        failures, renew_at = 0, time.monotonic() + usual
        while True:
            with self._lock:
                self._lock.wait_for(lambda: self._is_stopping or self._started, max(0.0, renew_at - time.monotonic()))
                if self._is_stopping:
                    return
                started, self._started = self._started, []
                held = [delivery for delivery, _ in self._held.values()]
            if started:
                self._record_starts(started)
            if time.monotonic() < renew_at:
                continue
            pause = usual
            try:
                if held and (self._renews or self.on_away is not None):
                    self._renew(held)
                failures, self.is_behind = 0, False
            except Exception as exc:  # whatever a driver raises: without this thread all leases would be lost
                failures += 1
                self.is_behind = True
                pause = min(backoff(failures), self._seconds / 6)
                if failures == 1 and self.on_away is not None:
                    self.on_away()
                trace = None if isinstance(exc, OperationalError) else exc
                logger.warning("leases can't be renewed, trying again: %s", exc, exc_info=trace)
            renew_at = time.monotonic() + pause

    def catch_up(self) -> None:
        """Renew everything now, after an outage and before the next fetch: that would take over what has run out.

        A lease that has run out, and that nobody has taken, is as good as new. Without this the worker would be the first to
        take over its own, and repeat what it runs or has just ended.

        Raises:
            OperationalError: The broker is still away.
        """
        with self._lock:
            held = [delivery for delivery, _ in self._held.values()]
        if held and self._renews:
            self._renew(held)
        self.is_behind = False

    def _record_starts(self, deliveries: list[Delivery]) -> None:
        try:
            self._transport.mark_started(deliveries)
        except Exception as exc:  # best effort: it only counts if the whole worker dies
            logger.debug("starts not recorded: %s", exc)

    def _renew(self, held: list[Delivery]) -> None:
        until = time.monotonic() + self._seconds
        lost = self._transport.extend(held, self._seconds)
        lost_tokens = {delivery.token for delivery in lost}
        with self._lock:
            for delivery in held:
                if delivery.token in lost_tokens:
                    self._held.pop(delivery.token, None)
                elif delivery.token in self._held:
                    self._held[delivery.token] = (delivery, until)
        if lost:
            self._on_lost(lost)
            if self.on_away is not None and not self._renews:  # they lived with the connection
                self.on_away()
