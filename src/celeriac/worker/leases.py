"""Keeps the leases of everything this worker holds: renewed every third of their time, from a thread of their own.

A store that is down or a task that is long can't delay a renewal. Deliveries whose lease another worker has taken are
reported once; their outcomes will be refused.
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


class Leases:
    """The deliveries on lease to this worker.

    Args:
        seconds: Length of a lease.
        on_lost: Called, from this component's thread, with deliveries whose lease is lost.
    """

    def __init__(self, transport: Transport, seconds: float, on_lost: Callable[[list[Delivery]], None]) -> None:
        self._transport = transport
        self._seconds = seconds
        self._on_lost = on_lost
        self._held: dict[object, tuple[Delivery, float]] = {}
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="celeriac-leases", daemon=True)

    def start(self) -> None:
        """Start renewing."""
        if self._transport.capabilities.lease == "message":
            self._thread.start()

    def stop(self) -> None:
        """Stop renewing."""
        self._stop.set()

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
        failures, pause = 0, self._seconds / 3
        while not self._stop.wait(pause):
            with self._lock:
                held = [delivery for delivery, _ in self._held.values()]
            if not held:
                pause = self._seconds / 3
                continue
            try:
                self._renew(held)
            except OperationalError as exc:
                failures += 1
                pause = min(backoff(failures), self._seconds / 6)
                logger.warning("leases can't be renewed, trying again: %s", exc)
            else:
                failures, pause = 0, self._seconds / 3

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
