"""Fetches messages as far as the pool can use them, from a thread of its own.

One round trip takes as many as are wanted; where the broker can fetch in the step that commits, the committer's thread does
it (`claim`, `claimed`), and this one sleeps as long as that brings enough. What comes is put under lease renewal, looked up
in the result store where it was delivered before, and handed to the supervisor's event loop; while the store is away, only
what is doubtful waits for it. While the broker is away it tries again, for ever unless the settings set an end.
"""

from __future__ import annotations

import contextlib
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
from celeriac.transport.base import Claim, Transport
from celeriac.worker.consuming import Consuming
from celeriac.worker.leases import Leases
from celeriac.worker.revocations import Revocations

__all__ = ["Intake"]

logger = get_logger("celeriac.worker.intake")

#: Seconds a fetch waits at the broker when there is nothing; it is interrupted when that must end.
WAIT = 5.0
#: Seconds between two looks whether the store can be read again, while something waits for it.
ASK_EVERY = 0.5
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
        #: Called, from the thread, when the broker is lost: at the first failure, before any attempt to connect anew.
        self.on_away: Callable[[], None] = lambda: None
        self._condition = threading.Condition()
        self._taking = threading.Lock()  # two threads take: this one and the committer's
        self._left_out: frozenset[str] = frozenset()
        self._wanted = 0
        self._asked = 0  # of these, what a fetch under way may bring
        self._is_stopping = False
        #: What was fetched and waits until the store can be read, and who looks whether it can.
        self._waiting: list[Delivery] = []
        self._probe: threading.Thread | None = None
        self.revocations = Revocations()
        self.revocations.unheard_until = 0.0  # until the worker says otherwise
        self._thread = threading.Thread(target=self._run, name="celeriac-intake", daemon=True)

    def start(self) -> None:
        """Start fetching."""
        self._thread.start()

    def want(self, number: int, will_claim: Callable[[], bool] = lambda: False) -> None:
        """How many messages may be fetched now. Called by the event loop.

        Args:
            will_claim: Tells whether `claim` will come for them, and `go_on` after that.
        """
        if number == self._wanted:
            return
        with self._condition:
            self._wanted = number
            if not will_claim():  # asked only now: a claim to come sees the new number
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

    # called by the committer

    def claim(self) -> Claim | None:
        """What a commit may bring."""
        if self._leases.is_behind or self._is_deaf():
            return None
        with self._condition:
            number = self._room()
            queues = self._open_queues()
            if self._is_stopping or self._waiting or number <= 0 or not queues:
                return None
            return Claim(queues, number, max(0, number - self._asked), self._lease)

    def claimed_at_once(self, deliveries: list[Delivery]) -> bool:
        """What a commit has brought, in the event loop; False if something has to be asked or given back first: see `claimed`."""
        if self._is_stopping or self._waiting or any(map(self._takes_time, deliveries)):
            return False
        self._consuming.came()
        faultpoint("after_fetch")
        self._leases.add(deliveries)
        with self._condition:
            self._wanted = max(0, self._wanted - len(deliveries))
        self._on_deliveries(deliveries, {})
        return True

    def _takes_time(self, delivery: Delivery) -> bool:
        return delivery.queue in self._left_out or (self._store is not None and self._is_to_be_looked_up(delivery))

    def claimed(self, deliveries: list[Delivery]) -> None:
        """What a commit has brought. Never raises: that would be taken for the commit's failure."""
        self._consuming.came()
        try:
            self._take(deliveries)
        except Exception as exc:
            trace = None if isinstance(exc, OperationalError) else exc
            logger.error(
                "%d message(s) can't be taken now, their leases will run out: %s", len(deliveries), exc, exc_info=trace
            )

    def go_on(self) -> None:
        """No claim comes any more for now: fetch what is still wanted."""
        if self._wanted > 0:
            with self._condition:
                self._condition.notify()

    # the thread

    def _run(self) -> None:
        failures = 0
        while True:
            with self._condition:
                self._condition.wait_for(self._has_to_act, ASK_EVERY if self._waiting else None)
                if self._is_stopping:
                    break
                queues, number = self._open_queues(), self._room()
            try:
                if failures or self._leases.is_behind:
                    self._leases.catch_up()
                if self._is_blind():
                    time.sleep(ASK_EVERY)
                    continue
                deliveries = self._fetch(queues, number) if queues and number > 0 else []
                if failures:
                    logger.warning("connected to %s again", self._transport.url)
                failures = 0
                if deliveries or self._waiting:
                    self._take(deliveries)
            except Exception as exc:  # whatever a driver raises: without this thread the worker would idle for ever
                failures += 1
                if failures == 1 and isinstance(exc, OperationalError):
                    self.on_away()
                if self._consuming.fails(exc, failures):
                    self._on_give_up(exc)
                    break
                pause, trace = backoff(failures, cap=LONGEST_PAUSE), None if isinstance(exc, OperationalError) else exc
                url = self._transport.url
                logger.error("can't fetch from %s, trying again in %.1f s: %s", url, pause, exc, exc_info=trace)
                with self._condition:
                    self._condition.wait_for(lambda: self._is_stopping, pause)

        with contextlib.suppress(OperationalError):  # else their leases run out
            if self._waiting:
                self._give_back(self._waiting)

    def _has_to_act(self) -> bool:
        return self._is_stopping or (self._room() > 0 and bool(self._open_queues()))

    def _room(self) -> int:
        """How many to fetch now. While the store is away some wait for it, but not without bound."""
        return min(self._wanted, MAX_BATCH - len(self._waiting))

    def _is_blind(self) -> bool:
        """Whether each message would have to wait for the store, and it is away: then others shall have them."""
        if self._store is None or not self._is_deaf():
            return False
        try:
            self._store.get([""])
        except OperationalError as exc:
            logger.warning("the result store can't be read, trying again: %s", exc)
            return True
        return False

    def _is_deaf(self) -> bool:
        """Whether the worker has not heard yet what is revoked."""
        return self._store is not None and self.revocations.unheard_until == float("inf")

    def _fetch(self, queues: list[str], number: int) -> list[Delivery]:
        self._consuming.begins()
        self._asked = number
        try:
            deliveries = self._transport.fetch(queues, number, ASK_EVERY if self._waiting else WAIT, self._lease)
        finally:
            self._asked = 0
        self._consuming.ends(len(deliveries), queues)
        return deliveries

    def _open_queues(self) -> list[str]:
        return [name for name in self.queues if name not in self._left_out] if self._left_out else self.queues

    def _take(self, deliveries: list[Delivery]) -> None:
        faultpoint("after_fetch")
        self._leases.add(deliveries)
        if self._is_stopping:
            self._give_back(deliveries)
            return
        with self._condition:
            paused = [delivery for delivery in deliveries if delivery.queue in self._left_out]
            deliveries = [delivery for delivery in deliveries if delivery.queue not in self._left_out]
            self._wanted = max(0, self._wanted - len(deliveries))
        try:
            if paused:  # while this fetch was under way
                self._give_back(paused)
            with self._taking:
                ready, stored = self._sorted(deliveries)
        except BaseException:
            self._leases.discard(deliveries)
            raise
        if ready:
            self._on_deliveries(ready, stored)

    def _sorted(self, deliveries: list[Delivery]) -> tuple[list[Delivery], dict[str, Record]]:
        """What can go to the loop, with what is stored of it; the rest waits for the store."""
        stored = self._stored([*self._waiting, *deliveries])
        if stored is None:
            self._waiting += [delivery for delivery in deliveries if self._is_doubtful(delivery)]
            return [delivery for delivery in deliveries if not self._is_doubtful(delivery)], {}
        ready = [_newer(delivery, stored) for delivery in (*self._waiting, *deliveries)]
        self._waiting = []
        return ready, stored

    def _give_back(self, deliveries: list[Delivery]) -> None:
        self._leases.discard(deliveries)  # first: if the broker can't be told, they run out
        self._transport.settle([Settlement(delivery, Action.REQUEUE) for delivery in deliveries])

    def _is_doubtful(self, delivery: Delivery) -> bool:
        """Whether it may have ended, or been revoked unheard: without the store's word it can't be run."""
        return bool(delivery.message.id) and (delivery.redelivered or self.revocations.is_doubtful(delivery.message.id))

    def _is_to_be_looked_up(self, delivery: Delivery) -> bool:
        return self._is_doubtful(delivery) or bool(delivery.message.id and is_named(delivery.message.headers))

    def _stored(self, deliveries: list[Delivery]) -> dict[str, Record] | None:
        """The stored records of those that are doubtful, or have an id that their caller chose; None: the store is away.

        What is doubtful waits for the store then. The others run: a second run is spared as far as the store can be read.
        """
        ids = [delivery.message.id for delivery in deliveries if self._is_to_be_looked_up(delivery)]
        if not ids or self._store is None:
            return {}
        if self._probe is not None and self._probe.is_alive():
            return None
        try:
            return {record.id: record for record in self._store.get(ids) if record is not None}
        except OperationalError as exc:
            logger.warning("the result store can't be read, trying again: %s", exc)
            self._probe = threading.Thread(target=self._look, name="celeriac-intake-probe", daemon=True)
            self._probe.start()
            return None

    def _look(self) -> None:
        """Until the store can be read, in a thread of its own: a frozen one takes seconds to refuse, while fetching goes on."""
        attempt = 0
        while not self._is_stopping:
            attempt += 1
            time.sleep(backoff(attempt, cap=LONGEST_PAUSE))
            with contextlib.suppress(OperationalError):
                if self._store is not None:
                    self._store.get([""])
                return


def _newer(delivery: Delivery, stored: dict[str, Record]) -> Delivery:
    """A message with the id of one that has failed runs, and counts on from that one, so that its outcome is the newer."""
    record = stored.get(delivery.message.id)
    if record is None or delivery.redelivered or not record.is_ready or record.state == SUCCESS:
        return delivery
    if record.state == REVOKED and not (record.fence[1] and is_named(delivery.message.headers)):
        return delivery  # it was revoked before it ran; else it is one that had expired or was ended, and is sent again
    del stored[record.id]
    return replace(delivery, deliveries=record.fence[1] + 1)
