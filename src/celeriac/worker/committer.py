"""Commits outcomes, in one place and one order: store the record, publish the continuations, settle the delivery.

One thread takes whatever has gathered and commits it as one batch, so nothing waits to fill a batch and nothing is
committed alone under load. While the store or the broker is down, what is here is kept and tried again; nothing is
settled before it is stored. Where the broker can write to the store, all three are one atomic step. Where that step can
also fetch, the event loop sends the little that comes from a few tasks by itself (`_begin`): to wake the thread for it, and
be woken by it, would take as long as the step. Whatever goes wrong with it is the thread's to do again.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from typing import cast

from celeriac.chord_notes import over_note
from celeriac.errors import CeleriacError, OperationalError
from celeriac.faultpoint import faultpoint
from celeriac.log import get_logger
from celeriac.message import Action, Delivery, Message, Settlement
from celeriac.results.base import Fence, Record, ResultStore
from celeriac.states import FAILURE
from celeriac.timing import backoff
from celeriac.transport.base import Commit, CommitUnderWay, FetchingTransport, Transport
from celeriac.worker.chords import Entry, count, forget
from celeriac.worker.end_record import end_record
from celeriac.worker.intake import Intake
from celeriac.worker.leases import Leases

__all__ = ["Committer", "Entry"]

logger = get_logger("celeriac.worker.committer")

#: Longest pause between two attempts, in seconds.
LONGEST_PAUSE = 2.0
#: Entries that may wait, and seconds that committing them may take, before intake stops.
MAX_BACKLOG, LONGEST_WAIT = 1000, 0.25
#: Entries in one batch from which on it tells how long each takes: of few most is the way to the broker.
MANY = 32
#: Entries that go back to the broker, of which so many may wait before intake stops: each may be as much work as many others.
MOST_BACK = 16
#: Deliveries in one `settle`, if they are not only acknowledged.
PIECE = 200
_UNCOMMITTED = "its outcome can't be committed"


def _is_plain(entry: Entry) -> bool:
    """Whether it is one step: the end of a delivery, and nothing of chords."""
    return entry.settlement is not None and not (
        entry.more_records or entry.is_early or entry.parts or entry.chords or entry.joined
    )


class _Steps:
    """Which steps of a batch are done, so that one that is tried again does not publish twice."""

    __slots__ = ("is_published", "is_stored", "lost", "settled")

    def __init__(self) -> None:
        self.is_stored = False
        self.is_published = False
        #: Tokens of what was settled, and which of these had lost their lease.
        self.settled: set[object] = set()
        self.lost: list[Delivery] = []


class Committer:
    """The thread that commits.

    Args:
        store: None when results are disabled.
        on_committed: Called, from the thread, with entries that are done and the deliveries that were refused because
            their lease is lost.
        intake: Whose fetches commits take over, where the broker can do both in one step.
        loop: The event loop that calls `wake`.
    """

    def __init__(
        self,
        transport: Transport,
        store: ResultStore | None,
        leases: Leases,
        on_committed: Callable[[list[Entry], list[Delivery]], None],
        intake: Intake | None = None,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self._loop = loop
        self._transport = transport
        self._store = store
        self._leases = leases
        self._on_committed = on_committed
        self._is_atomic = store is not None and transport.commits_with(store)
        # With a store elsewhere, a commit may have to wait for that store: then fetching is better off by itself.
        can_fetch = transport.capabilities.fetches_on_commit and (store is None or self._is_atomic)
        self._intake = intake if can_fetch else None
        self._is_failing = False
        self._condition = threading.Condition()
        self._pending: list[Entry] = []
        self._in_hand = 0
        self._is_under_way = False  # what is in hand is the event loop's
        #: Usual seconds for each of many.
        self.pace = 1e-4
        self._going_back = 0
        #: Seconds that it has taken to put back.
        self.spent = 0.0
        #: Records that were stored before the handlers of their tasks ran: (task id, fence). Their outcomes are to come.
        self._told: set[tuple[str, Fence]] = set()
        self._is_stopping = False
        self._thread = threading.Thread(target=self._run, name="celeriac-committer", daemon=True)

    def start(self) -> None:
        """Start committing."""
        self._thread.start()

    def add(self, entries: Sequence[Entry], *, wake: bool = True) -> None:
        """Commit these, in this order; without `wake`, soon: when `wake` is called. May be called from any thread."""
        with self._condition:
            self._pending.extend(entries)
            if wake or self._intake is None:
                self._condition.notify()

    def put_back(self, entry: Entry) -> None:
        """Commit this one: it was fetched for nothing, and goes back to the broker."""
        with self._condition:
            self._going_back += 1
            self._pending.append(entry)
            self._condition.notify()

    def wake(self) -> None:
        """Commit what was added. Called by the event loop."""
        if self._pending and not self._is_under_way and not self._begin():
            with self._condition:
                self._condition.notify()

    def will_claim(self) -> bool:
        """Whether a commit is to come that also fetches."""
        return self._intake is not None and not self._is_failing and bool(self._pending)

    @property
    def is_behind(self) -> bool:
        """Whether so much waits to be committed that no more should be taken in."""
        return self._going_back > MOST_BACK or self.backlog > min(MAX_BACKLOG, max(MANY, LONGEST_WAIT / self.pace))

    @property
    def backlog(self) -> int:
        """How many entries are not yet committed."""
        return len(self._pending) + self._in_hand

    def drain(self, timeout: float) -> bool:
        """Wait until everything is committed and stop; False if that takes longer than `timeout` seconds."""
        with self._condition:
            self._is_stopping = True
            self._condition.notify()
        if self._thread.is_alive():
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while True:
            with self._condition:
                while not self._pending or self._is_under_way:
                    if self._is_stopping and not self._is_under_way:
                        return
                    self._condition.wait()
                batch, self._pending = self._pending, []
                self._in_hand, going_back = len(batch), self._going_back
            began = time.monotonic()
            batch = self._count_until_done(batch)
            refused = self._commit_until_done(batch)
            pace = (time.monotonic() - began) / self._in_hand
            if self._in_hand >= MANY and not self._is_failing:  # an outage says nothing about the time they take
                self.pace = max(pace, self.pace + 0.2 * (pace - self.pace))
            if going_back:
                with self._condition:
                    self._going_back -= going_back
                self.spent += going_back * pace
            self._in_hand = 0
            if self._store is not None:
                forget(self._store, batch, {delivery.token for delivery in refused}, is_atomic=self._is_atomic)
            self._is_failing = False
            self._has_committed(batch, refused)

    def _has_committed(self, batch: list[Entry], refused: list[Delivery]) -> None:
        self._leases.discard([entry.settlement.delivery for entry in batch if entry.settlement is not None])
        self._on_committed(batch, refused)
        if self._intake is not None:
            self._intake.go_on()

    # in the event loop

    def _begin(self) -> bool:
        """Send what waits, if it is little, one step, and nothing stands before it; else it is the thread's."""
        if self._loop is None or self._intake is None:
            return False
        with self._condition:
            batch = self._pending
            is_threads = self._in_hand or self._is_failing or self._told or self._going_back or len(batch) >= MANY
            if is_threads or not all(map(_is_plain, batch)):
                return False
            self._pending, self._in_hand, self._is_under_way = [], len(batch), True
        faultpoint("before_commit")
        commits = [Commit(entry.settlement, entry.record, entry.messages) for entry in batch if entry.settlement]
        try:
            transport = cast("FetchingTransport", self._transport)
            under_way = transport.begin_commit(commits, self._intake.claim())
        except Exception:  # the thread will see it, too, and knows what to do
            under_way = None
        if under_way is None:
            self._leave_to_thread(batch)
            return True
        timer = self._loop.call_later(under_way.timeout, self._on_silence, batch, under_way)
        self._loop.add_reader(under_way.fileno(), self._on_answer, batch, under_way, timer)
        return True

    def _leave_to_thread(self, batch: list[Entry]) -> None:
        with self._condition:
            self._pending = batch + self._pending
            self._in_hand, self._is_under_way = 0, False
            self._condition.notify()

    def _on_silence(self, batch: list[Entry], under_way: CommitUnderWay) -> None:
        cast("asyncio.AbstractEventLoop", self._loop).remove_reader(under_way.fileno())
        under_way.abandon()
        self._leave_to_thread(batch)

    def _on_answer(self, batch: list[Entry], under_way: CommitUnderWay, timer: asyncio.TimerHandle) -> None:
        timer.cancel()
        cast("asyncio.AbstractEventLoop", self._loop).remove_reader(under_way.fileno())
        try:
            refused, came = under_way.end()
        except Exception:
            self._leave_to_thread(batch)
            return
        faultpoint("after_commit")
        with self._condition:
            self._in_hand, self._is_under_way = 0, False
            if self._is_stopping:
                self._condition.notify()
        try:
            if came:  # first: it is what the worker waits for, and what `go_on` goes by
                self._hand_on(came)
        finally:
            self._has_committed(batch, refused)
        self.wake()

    def _hand_on(self, came: list[Delivery]) -> None:
        intake, loop = cast("Intake", self._intake), cast("asyncio.AbstractEventLoop", self._loop)
        if not intake.claimed_at_once(came):
            loop.run_in_executor(None, intake.claimed, came)

    # the thread

    def _has_failed(self) -> None:
        """It may take long: let intake fetch by itself meanwhile."""
        self._is_failing = True
        if self._intake is not None:
            self._intake.go_on()

    def _count_until_done(self, batch: list[Entry]) -> list[Entry]:
        attempt = 0
        while True:
            try:
                counted = count(self._store, batch)
                faultpoint("after_count")
                return counted
            except OperationalError as exc:
                attempt += 1
                self._has_failed()
                pause = backoff(attempt, cap=LONGEST_PAUSE)
                logger.warning("the parts of chords can't be counted, trying again in %.1f s: %s", pause, exc)
                threading.Event().wait(pause)
            except Exception as exc:  # a value that a driver can't take
                logger.exception("the parts of chords can't be counted: %s", exc)
                return batch

    def _commit_until_done(self, batch: list[Entry]) -> list[Delivery]:
        attempt, steps = 0, _Steps()
        while True:
            try:
                return self._commit(batch, steps)
            except OperationalError as exc:
                attempt += 1
                self._has_failed()
                pause = backoff(attempt, cap=LONGEST_PAUSE)
                logger.warning("%d outcome(s) can't be committed, trying again in %.1f s: %s", len(batch), pause, exc)
                threading.Event().wait(pause)
            except Exception as exc:  # a value that a driver can't take must not end this thread
                if len(batch) == 1:
                    return self._give_up(batch[0], exc)
                refused = list(steps.lost)  # one of them is bad: find it, commit the others
                for entry in batch:
                    if entry.settlement is not None and entry.settlement.delivery.token in steps.settled:
                        continue
                    refused += self._commit_until_done([entry])
                return refused

    def _give_up(self, entry: Entry, exc: Exception) -> list[Delivery]:
        """What can't be committed for a reason of its own is kept as a dead letter."""
        trace = None if isinstance(exc, CeleriacError) else exc
        if entry.settlement is None:
            task_id = entry.record.id if entry.record is not None else ""
            logger.error("state of %s dropped: %s", task_id, exc, exc_info=trace)
            return []
        delivery = entry.settlement.delivery
        task, task_id = delivery.message.task, delivery.message.id
        if entry.settlement.action is Action.DEAD_LETTER and entry.settlement.reason.startswith(_UNCOMMITTED):
            if entry.record is not None:  # not even with a record of ours
                return self._commit_until_done([Entry(entry.settlement)])
            logger.error("%s[%s] can't be put aside, its lease will run out: %s", task, task_id, exc, exc_info=trace)
            return []
        logger.error("outcome of %s[%s] can't be committed: %s", task, task_id, exc, exc_info=trace)
        reason = f"{_UNCOMMITTED}: {exc}"
        dead = Settlement(delivery, Action.DEAD_LETTER, reason)
        fence = entry.record.fence if entry.record is not None else (0, delivery.deliveries)
        record = end_record(delivery.message, fence, FAILURE, CeleriacError(reason)) if task_id else None
        return self._commit_until_done([Entry(dead, record)])

    def _commit(self, batch: list[Entry], steps: _Steps) -> list[Delivery]:
        early = [record for entry in batch for record in entry.more_records]
        early += [entry.record for entry in batch if entry.settlement is None and entry.record is not None]
        if early and self._store is not None:
            self._store.store(early)
        self._told.update((e.record.id, e.record.fence) for e in batch if e.is_early and e.record is not None)
        if self._is_atomic:
            return self._commit_atomically(batch, steps)
        return self._commit_in_order(batch, steps)

    def _publish(self, messages: list[Message], steps: _Steps) -> None:
        if messages and not steps.is_published:
            self._transport.publish(messages)
        steps.is_published = True

    def _commit_atomically(self, batch: list[Entry], steps: _Steps) -> list[Delivery]:
        self._publish([message for entry in batch if entry.settlement is None for message in entry.messages], steps)
        told = self._told  # of few tasks: most have no handlers
        commits = [
            Commit(entry.settlement, self._record_of(entry) if told or entry.joined else entry.record, entry.messages)
            for entry in batch
            if entry.settlement is not None
        ]
        if not commits:
            return []
        faultpoint("before_commit")
        refused = self._transport_commit(commits)
        faultpoint("after_commit")
        if told:
            told.difference_update((e.record.id, e.record.fence) for e in batch if e.settlement and e.record)
        return refused

    def _transport_commit(self, commits: list[Commit]) -> list[Delivery]:
        """And take the next messages, if the broker can do it in the same step."""
        if self._intake is None or (claim := self._intake.claim()) is None:
            return self._transport.commit(commits)
        refused, came = cast("FetchingTransport", self._transport).commit_and_fetch(commits, claim)
        if came:
            self._intake.claimed(came)
        return refused

    def _record_of(self, entry: Entry) -> Record | None:
        """What is stored in the step that publishes; if that is refused, because it is there already, nothing is published.

        Of the end of a chord that is its note, so its body is sent once. A record that was told early is left out.
        """
        if entry.joined:
            return over_note(entry.joined[0])
        record = entry.record
        return None if record is not None and (record.id, record.fence) in self._told else record

    def _commit_in_order(self, batch: list[Entry], steps: _Steps) -> list[Delivery]:
        """Store → publish → settle, for stores that the broker can't write to.

        Who holds the lease publishes, also if the store refuses its record: that one is there already, from an attempt
        whose reply was lost or from an execution that died before it could publish. The same message sent twice has the
        same id.
        """
        settling = [entry for entry in batch if entry.settlement is not None]
        doubtful = [
            e.settlement.delivery
            for e in settling
            if e.settlement
            and e.settlement.delivery.token not in steps.settled
            and self._leases.is_over(e.settlement.delivery)
        ]
        lost = self._transport.extend(doubtful, 30.0) if doubtful else []
        lost_tokens = {delivery.token for delivery in lost}
        batch = [e for e in batch if e.settlement is None or e.settlement.delivery.token not in lost_tokens]
        records = [entry.record for entry in batch if entry.settlement is not None and entry.record is not None]
        if records and self._store is not None and not steps.is_stored:
            self._store.store(records)
        steps.is_stored = True
        faultpoint("after_store")
        self._publish([message for entry in batch for message in entry.messages], steps)
        self._told.difference_update((record.id, record.fence) for record in records)
        faultpoint("before_ack")
        self._settle([entry.settlement for entry in batch if entry.settlement is not None], steps)
        return lost + steps.lost

    def _settle(self, settlements: list[Settlement], steps: _Steps) -> None:
        """In pieces, if there is much to put off: a broker gets no more of it than it can do in a call's time."""
        left = [each for each in settlements if each.delivery.token not in steps.settled]
        size = PIECE if sum(each.action is not Action.ACK for each in left) > PIECE else max(1, len(left))
        for start in range(0, len(left), size):
            piece = left[start : start + size]
            if self._intake is not None:
                steps.lost += self._transport_commit([Commit(settlement) for settlement in piece])
            else:
                steps.lost += self._transport.settle(piece)
            steps.settled.update(each.delivery.token for each in piece)
