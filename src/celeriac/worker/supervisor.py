"""The supervisor: one asyncio loop that never runs a task and never opens a body.

It wires the components of a worker and carries deliveries between them: intake → admission → pool → committer. Blocking
calls to broker and store happen in the threads of intake, leases, committer and presence; everything here runs in the
loop. Read `start`, `_on_deliveries`, `on_outcomes`, `on_crash`, in this order: that is the way of a task.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import msgspec

from celeriac import errors, states
from celeriac.config import Settings
from celeriac.log import get_logger
from celeriac.message import Action, Delivery, Settlement
from celeriac.outcome import INNER, JOIN, RUN, SWEEP, Outcome, Verdict
from celeriac.results.base import Record, ResultStore
from celeriac.results.open import open_store
from celeriac.routing import Queue
from celeriac.runner.protocol import Hello, RunnerOptions, TaskFacts
from celeriac.timing import SYSTEM_CLOCK, Deadline
from celeriac.transport.base import Transport
from celeriac.transport.open import open_worker_transport
from celeriac.wire.messages import timelimits
from celeriac.worker.admission import Admission, Decision, Rules, admit
from celeriac.worker.announcer import Announcer
from celeriac.worker.assignment import Assignment
from celeriac.worker.banner import banner
from celeriac.worker.chord_sweep import ChordSweep
from celeriac.worker.committer import Committer, Entry
from celeriac.worker.connection_loss import notice_losses
from celeriac.worker.consumed_queues import ConsumedQueues
from celeriac.worker.consuming import Consuming
from celeriac.worker.control import Control
from celeriac.worker.end_record import end_record
from celeriac.worker.gate import Gate, limits_by_task, open_gate
from celeriac.worker.gathering import Gathering, together
from celeriac.worker.intake import Intake
from celeriac.worker.leases import Leases
from celeriac.worker.limits import TICK, Watch
from celeriac.worker.nursery import Nursery
from celeriac.worker.options import WorkerOptions, number_or_auto, pool_shape
from celeriac.worker.paused_queues import PausedQueues
from celeriac.worker.pool import Pool
from celeriac.worker.presence import Presence
from celeriac.worker.queue_choice import chosen_queues
from celeriac.worker.reaching import reach_broker
from celeriac.worker.result_cleanup import ResultCleanup
from celeriac.worker.termination import REVOKED
from celeriac.zones import zone_of

__all__ = ["Supervisor"]

logger = get_logger("celeriac.worker")

#: Seconds that leaving may wait for a broker or result store that is away, in all.
LEAVING = 1.8
_NO_FACTS = TaskFacts()
#: By the value that stands in outcomes; a fifth of what `Action(value)` costs.
ACTIONS = {action.value: action for action in Action}


class Supervisor:
    """One worker.

    Args:
        options: How to run.
        nursery: Where runners come from.
        version: For the banner.
        transport, store: Given by tests and embedding; opened from the settings otherwise.
    """

    def __init__(
        self,
        options: WorkerOptions,
        nursery: Nursery,
        *,
        version: str = "",
        transport: Transport | None = None,
        store: ResultStore | None = None,
        on_banner: Callable[[str], None] | None = None,
    ) -> None:
        self.options = options
        self.nursery = nursery
        self.version = version
        self.node = options.node
        self.refused = 0  # outcomes whose lease was lost
        self.conf: Settings
        self.hello: Hello
        self.transport = transport
        self.store = store
        self.pool: Pool
        self.intake: Intake
        self.consuming: Consuming
        self.committer: Committer
        self.leases: Leases
        self.watch: Watch
        self.presence: Presence
        self.gate: Gate
        self.gathering: Gathering
        self.paused_queues: PausedQueues
        self.sweep: ChordSweep
        self.cleanup: ResultCleanup
        self.control: Control
        self.totals: Counter[str] = Counter()  # executions by task
        self.end: Callable[[int], None] = lambda number: None  # what this signal does; the lifecycle sets it
        self.queues: ConsumedQueues
        self.is_stopping = False
        self.has_begun = False  # may hold deliveries
        self.failure: Exception | None = None  # why it ends by itself
        self.announcer = Announcer(self)
        self._on_banner = on_banner
        self._rules: Rules
        self._loop: asyncio.AbstractEventLoop
        self._is_watching = False
        self._asks_again: asyncio.TimerHandle | None = None
        self._is_held_back = False  # intake waits for the committer
        self._thread = 0  # the loop's
        self._unlimited: set[str] = set()  # tasks whose hard limit can't be applied, said once

    @property
    def app(self) -> Any:
        """The app; None if this process has not imported it."""
        return self.nursery.app

    @property
    def hostname(self) -> str:
        """Celery's name of `node`."""
        return self.node

    # start

    async def start(self) -> None:
        """Start everything; returns when a runner can take tasks.

        Raises:
            AppImportError: The app can't be imported.
            ImproperlyConfigured: A setting or option is wrong.
            OperationalError: The broker can't be reached, and the settings say not to wait for it any longer.
        """
        self._loop, self._thread = asyncio.get_running_loop(), threading.get_ident()
        self.hello = await self.nursery.start()
        self.conf = conf = Settings.from_plain(self.hello.conf)
        pool_name = self.options.pool or conf.worker_pool
        name, processes, slots = pool_shape(
            pool_name,
            self.options.concurrency or number_or_auto(conf.worker_concurrency),
            self.options.processes or conf.worker_processes,
        )
        chosen = chosen_queues(self.hello.queues, self.options, conf)
        self.announcer.starting()
        self.transport = self.transport or open_worker_transport(conf)
        self._make_parts(self.transport, chosen, RunnerOptions(name, slots, self.node), processes)
        self._show_banner(self.transport.url, name, processes, slots)
        await reach_broker(self.transport, self.queues, conf, purges=self.options.purge)
        self.has_begun = True
        self.leases.start()
        self.committer.start()
        self.presence.start()
        self.control.start()
        self.pool.start()
        self.gate.start()
        await self.paused_queues.start()
        self.sweep.start()
        self.cleanup.start()
        self.queues.start()
        self.intake.start()
        await self.pool.wait_ready()
        logger.info("%s ready.", self.node)
        self.announcer.ready()

    def _make_parts(self, transport: Transport, chosen: list[Queue], runner: RunnerOptions, processes: int) -> None:
        """Everything that has a start and an end here, none of it started."""
        conf = self.conf
        self.queues = ConsumedQueues(transport, self.hello.queues, chosen)
        if self.store is None and conf.result_backend not in (None, "disabled", "disabled://"):
            self.store = open_store(_first(conf.result_backend), conf.result_backend_transport_options, conf)
        self._rules = Rules(
            known=self.hello.tasks,
            max_deliveries=conf.task_max_deliveries,
            unknown_delay=conf.task_unknown_delay,
            timezone=zone_of(conf),
            limited=frozenset(limits_by_task(self.hello.tasks)),
        )
        self.leases = Leases(transport, conf.task_lease, self._from_thread(self._on_lost))
        self.consuming = Consuming(transport, conf, self.leases.__len__)
        self.intake = Intake(
            transport, self.store, self.leases, self.queues.names, conf.task_lease, self._from_thread(self._on_deliveries),
            self.consuming, self._from_thread(self._give_up),
        )  # fmt: skip
        self.committer = Committer(transport, self.store, self.leases, self._after_commit, self.intake, self._loop)
        self.presence = Presence(transport, self.node)
        self.control = Control(self)
        self._rules = msgspec.structs.replace(self._rules, revoked=self.control.revocations)
        self.intake.revocations = self.control.revocations
        notice_losses(self, self._from_thread)
        self.pool = Pool(self.nursery, self, processes, runner, max_tasks=conf.worker_max_tasks_per_child)
        self.gate = open_gate(self, self.hello.tasks, conf)
        self.gathering = Gathering(self.hello.tasks, self._on_batch)
        self.paused_queues = PausedQueues(self.gate.place, self.intake, self.queues)
        self.cleanup = ResultCleanup(
            self, self.store, self.gate.place, zone_of(conf), expires=bool(conf.result_expires)
        )
        self.sweep = ChordSweep(self, self.store, conf.result_chord_sweep_interval)
        self.watch = Watch(self.pool, self._on_hard_limit, self._on_started, self.announcer.hooks.timed_out, conf)

    def _show_banner(self, transport_url: str, pool: str, processes: int, slots: int) -> None:
        if self._on_banner is not None:
            text = banner(
                self.hello, version=self.version, node=self.node, transport=transport_url,
                store=self.store.url if self.store is not None else "disabled", pool=pool, processes=processes,
                slots=slots, queues=self.queues.titles,
            )  # fmt: skip
            self._on_banner(text)

    def learn(self, tasks: dict[str, TaskFacts]) -> None:
        """The app has other tasks now. May be called by any thread."""
        self.hello = msgspec.structs.replace(self.hello, tasks=tasks)
        self._rules = msgspec.structs.replace(self._rules, known=tasks, limited=frozenset(limits_by_task(tasks)))
        self.gate.learn(tasks)
        self.gathering.learn(tasks)

    def _give_up(self, error: Exception) -> None:
        """The broker is lost, and the settings say not to wait for it any longer."""
        self.failure = error
        self.end(signal.SIGTERM)

    def _from_thread(self, callback: Callable[..., None]) -> Callable[..., None]:
        """A function for other threads that calls `callback` in the loop; from there it does so at once."""

        def call(*args: Any) -> None:
            if threading.get_ident() == self._thread:
                return callback(*args)
            with contextlib.suppress(RuntimeError):  # the loop is closed: we are leaving, leases will run out
                self._loop.call_soon_threadsafe(callback, *args)

        return call

    # the way of a task

    def _on_deliveries(self, deliveries: list[Delivery], stored: dict[str, Record]) -> None:
        if self.is_stopping:
            self.committer.add([Entry(Settlement(delivery, Action.REQUEUE)) for delivery in deliveries])
            return
        self.gate.came(deliveries)
        now = SYSTEM_CLOCK.now()
        admitted: list[Assignment] = []
        tells = self.announcer.tells
        for delivery in deliveries:
            admission = admit(delivery, self._rules, now, stored.get(delivery.message.id))
            if tells:
                self.announcer.admitted(delivery, admission)
            if admission.decision is Decision.RUN:
                assignment = self._assign(delivery, admission.verdict)
                if self.gate.concerns(delivery.message):
                    self._at_the_gate(assignment)
                elif assignment.is_late or assignment.verdict is not RUN:
                    admitted.append(assignment)
                else:
                    self._ack_early(assignment)
            else:
                self._settle(delivery, admission)
        self._run(admitted)
        self.on_capacity()

    def _run(self, assignments: Sequence[Assignment]) -> None:
        """To the pool; the calls of batch tasks first gather, unless there is no time for it any more."""
        self.pool.submit(assignments if self.is_stopping else self.gathering.take(assignments))
        self._watch_while_busy()

    def _on_batch(self, calls: list[Assignment]) -> None:
        """A batch is full, or its time has come."""
        self.pool.submit(together(calls, self._rules, SYSTEM_CLOCK.now()))
        self._watch_while_busy()
        self.on_capacity()

    def _assign(self, delivery: Delivery, verdict: Verdict) -> Assignment:
        facts = self.hello.tasks.get(delivery.message.task, _NO_FACTS)
        hard, soft = timelimits(delivery.message.headers)
        if hard is None:
            hard = facts.time_limit
        if hard is not None and not self.nursery.can_kill:
            self._refuse_hard_limit(delivery.message.task)
            hard = None
        return Assignment(
            delivery,
            verdict,
            hard,
            soft if soft is not None else facts.soft_time_limit,
            is_late=facts.acks_late,
            may_requeue=facts.reject_on_worker_lost,
        )

    def _at_the_gate(self, assignment: Assignment) -> None:
        """A task with limits waits for its turn; one that is not to run frees the lock that was taken for it."""
        if assignment.verdict is RUN:
            self.gate.submit(assignment)
        else:
            self.gate.forfeit(assignment.delivery.message)
            self.pool.submit([assignment])

    def room(self) -> int:
        """How many tasks the pool could start now."""
        if self.is_stopping:
            return 0
        # While short tasks queue up here, each is over in a moment: one with limits may stand in that queue, too.
        return self.gathering.wanted(self.pool) or int(len(self.pool.ready) >= self.pool.capacity)

    def on_turn(self, assignments: Sequence[Assignment]) -> None:
        """The gate has let these through."""
        if self.is_stopping:
            self._give_back(list(assignments))
            return
        for assignment in assignments:
            if assignment.verdict is RUN and self.control.revocations.is_revoked(assignment.delivery.message):
                assignment.verdict = REVOKED
            if not (assignment.is_late or assignment.verdict is not RUN):
                self._ack_early(assignment)
        self._run([each for each in assignments if each.is_late or each.verdict is not RUN])

    def put_back(self, assignment: Assignment, until: float | None) -> None:
        """Another time, uncharged; or at once, for other workers."""
        action = Action.REQUEUE if until is None else Action.DEFER
        self.committer.put_back(Entry(Settlement(assignment.delivery, action, until=until)))

    def settle(self, assignment: Assignment, entry: Entry, *, is_final: bool) -> None:
        """An assignment is over here: its claims are given back first."""
        if self.gate.holds(assignment):
            self.gate.end(assignment, entry, is_final=is_final)
        else:
            self.committer.add([entry])

    def _refuse_hard_limit(self, task: str) -> None:
        if task not in self._unlimited:
            self._unlimited.add(task)
            logger.warning("hard time limits can't be applied in the worker's own process: %s runs without one", task)

    def _ack_early(self, assignment: Assignment) -> None:
        """Acknowledge before the task starts, for tasks that must not run twice (`acks_late=False`)."""
        assignment.is_acked = True
        self.committer.add([Entry(Settlement(assignment.delivery), on_done=lambda: self._run([assignment]))])

    def _settle(self, delivery: Delivery, admission: Admission) -> None:
        message = delivery.message
        if admission.decision is Decision.DEFER:
            if admission.reason:
                logger.warning("%s: given back until later", admission.reason)
            settlement = Settlement(delivery, Action.DEFER, admission.reason, admission.until, admission.charged)
        else:
            logger.error("message %s to the dead letters: %s", message.id or "without id", admission.reason)
            if isinstance(message.headers, dict):
                self.gate.forfeit(message)
            settlement = Settlement(delivery, Action.DEAD_LETTER, admission.reason)
        self.committer.add([Entry(settlement)])

    def on_outcomes(self, ended: Sequence[tuple[Assignment, Outcome]]) -> None:
        """Executions have ended: commit their outcomes."""
        entries = []
        for assignment, outcome in ended:
            if assignment.verdict is RUN:
                self.totals[outcome.task] += 1
            self.announcer.hooks.ended(assignment, outcome)
            entry = self._entry(assignment, outcome)
            if self.gate.holds(assignment):
                goes_on = outcome.state == states.RETRY or outcome.action in (Action.REQUEUE.value, Action.DEFER.value)
                self.gate.end(assignment, entry, is_final=not goes_on)
            else:
                entries.append(entry)
        self.committer.add(entries, wake=False)  # first dispatch; `on_capacity` comes then

    def _entry(self, assignment: Assignment, outcome: Outcome) -> Entry:
        settlement = None
        if not assignment.is_acked:
            action = ACTIONS[outcome.action]
            charged = action is not Action.ACK and (assignment.verdict is RUN or assignment.is_decided)
            settlement = Settlement(assignment.delivery, action, outcome.reason, outcome.until, charged)
        if not (outcome.parts or outcome.chords or outcome.joined):
            return Entry(settlement, outcome.record, outcome.messages, outcome.more_records)
        return Entry(
            settlement, outcome.record, outcome.messages, outcome.more_records, parts=outcome.parts,
            chords=outcome.chords, joined=outcome.joined, on_last=partial(self._join, assignment, outcome),
        )  # fmt: skip

    def _join(self, assignment: Assignment, outcome: Outcome, group_id: str) -> None:
        """It was the last part of a chord: have a runner make the body's message, then settle as the part wanted it."""
        assignment.verdict = Verdict(JOIN, args=[group_id], action=outcome.action, reason=outcome.reason)
        assignment.hard = assignment.soft = None
        self.pool.submit([assignment], first=True)

    def on_crash(self, assignment: Assignment, reason: str) -> None:
        """The runner died while it ran this: once more, unless its starts are used up or it must not be repeated."""
        starts = assignment.delivery.starts + 1
        if assignment.verdict.state in INNER and starts < self._rules.max_deliveries and not assignment.is_acked:
            self._requeue(assignment)
            return
        if assignment.verdict is not RUN:
            self._write_down(assignment, assignment.verdict)
            return
        if self.hello.tasks.get(assignment.task, _NO_FACTS).retry_on_worker_lost:
            self.end_as(assignment, Verdict(states.RETRY, "WorkerLostError", [reason]))
        elif assignment.is_acked or not assignment.may_requeue:
            self.end_as(assignment, Verdict(states.FAILURE, "WorkerLostError", [reason]))
        elif starts >= self._rules.max_deliveries:
            text = f"poisonous: its runner died in each of {starts} starts; the last {reason}"
            self.end_as(assignment, Verdict(states.FAILURE, "WorkerLostError", [text], Action.DEAD_LETTER.value, text))
        else:
            self._requeue(assignment)

    def _requeue(self, assignment: Assignment) -> None:
        self.settle(assignment, Entry(Settlement(assignment.delivery, Action.REQUEUE, charged=True)), is_final=False)

    def end_as(self, assignment: Assignment, verdict: Verdict) -> None:
        """Have a runner write down an end that is decided: it opens the body, so it knows who has to be told."""
        assignment.verdict = verdict
        assignment.is_decided = True
        assignment.hard = assignment.soft = None
        self.pool.submit([assignment], first=True)

    def _write_down(self, assignment: Assignment, verdict: Verdict) -> None:
        """The same without a runner, when even that killed one: the record alone."""
        if verdict.state in INNER:
            reason = "poisonous: its outcome is stored, but each runner that was to send what follows has died"
            logger.error("%s[%s] %s", assignment.task, assignment.id, reason)
            dead = Settlement(assignment.delivery, Action.DEAD_LETTER, reason, charged=True)
            self.settle(assignment, Entry(None if assignment.is_acked else dead), is_final=True)
            return
        state = states.FAILURE if verdict.state == states.RETRY else verdict.state  # a retry needs a runner to send it
        settlement = None
        if not assignment.is_acked:
            action, charged = Action(verdict.action), assignment.is_decided
            settlement = Settlement(assignment.delivery, action, verdict.reason, charged=charged)
        error = getattr(errors, verdict.error)(*verdict.args)
        record = end_record(assignment.delivery.message, assignment.fence, state, error)
        self.settle(assignment, Entry(settlement, record), is_final=True)

    def _on_hard_limit(self, assignment: Assignment) -> None:
        logger.error("hard time limit (%ss) exceeded for %s[%s]", assignment.hard, assignment.task, assignment.id)
        self.announcer.hooks.timed_out(assignment, assignment.hard, soft=False)
        for member in assignment.members:
            self.end_as(member, Verdict(states.FAILURE, "TimeLimitExceeded", [assignment.hard]))

    def on_state(self, record: Record) -> None:
        """A running task has set a state."""
        self.committer.add([Entry(record=record, is_early=record.is_ready)])

    def _on_started(self, assignments: list[Assignment]) -> None:
        deliveries = [member.delivery for a in assignments for member in a.members if not member.is_acked]
        if deliveries:
            self.leases.charge(deliveries)

    def _after_commit(self, entries: list[Entry], refused: list[Delivery]) -> None:
        """In the committer's thread: wake the loop only if it has something to do for this."""
        if refused or self._is_held_back or any(entry.on_done is not None for entry in entries):
            self._from_thread(self._on_committed)(entries, refused)

    def _on_committed(self, entries: list[Entry], refused: list[Delivery]) -> None:
        if refused:
            self.refused += len(refused)
            for delivery in refused:
                logger.warning(
                    "outcome of %s[%s] refused: its lease was lost to another worker",
                    delivery.message.task,
                    delivery.message.id,
                )
        lost = {delivery.token for delivery in refused}
        for entry in entries:
            if entry.on_done is not None and (entry.settlement is None or entry.settlement.delivery.token not in lost):
                entry.on_done()
        self.on_capacity()

    def _on_lost(self, deliveries: list[Delivery]) -> None:
        tokens = {delivery.token for delivery in deliveries}
        waiting = [a for a in self.pool.waiting() if a.delivery.token in tokens and not a.is_acked]
        self.pool.take_out(waiting)
        waiting += self.gathering.forget(tokens)
        for assignment in waiting:
            if self.gate.holds(assignment):
                self.gate.end(assignment, None, is_final=False)
        # Those that the pool no longer has are settled, or will be refused when they are.
        count = (
            len(waiting)
            + self.gate.forget(tokens)
            + sum(1 for a in self.pool.held_assignments() if a.delivery.token in tokens)
        )
        if count:
            logger.warning("%d lease(s) lost to another worker", count)

    def on_refused(self, assignment: Assignment, reason: str) -> None:
        """A message with headers that can't even travel to a runner, such as numbers of more than 64 bits."""
        if not assignment.is_acked:
            error = Verdict(states.FAILURE, "InvalidTaskError", [reason], Action.DEAD_LETTER.value, reason)
            logger.error("message %s to the dead letters: %s", assignment.id, reason)
            self._write_down(assignment, error)

    def on_capacity(self) -> None:
        """Tell intake how much the pool can use."""
        self.gate.on_capacity()
        self._is_held_back = True  # before looking, so that the commit that changes the answer tells us
        self._is_held_back = self.committer.is_behind
        wanted = 0 if self.is_stopping or self._is_held_back else self.gathering.wanted(self.pool)
        wanted, pause = self.gate.bite(wanted)
        if pause and self._asks_again is None:
            self._asks_again = self._loop.call_later(pause, self._ask_again)
        self.intake.want(wanted, self.committer.will_claim)
        self.committer.wake()

    def _ask_again(self) -> None:
        self._asks_again = None
        self.on_capacity()

    def _watch_while_busy(self) -> None:
        if not self._is_watching and (self.pool.held or self.pool.ready):
            self._is_watching = True
            self._loop.call_later(TICK, self._tick)

    def _tick(self) -> None:
        self._is_watching = False
        self.watch.tick()
        self._watch_while_busy()

    # end

    async def stop(self, grace: float) -> None:
        """Warm: take nothing more, give back what has not started, let running tasks end within `grace` seconds."""
        self._begin_stop()
        await self.pool.wait_idle(grace)
        await self._leave()

    async def terminate(self) -> None:
        """Cold: give everything back, then kill what runs."""
        self._begin_stop()
        await self._leave()

    def _begin_stop(self) -> None:
        if not self.is_stopping:
            self.is_stopping = True
            self.pool.is_stopping = True
            self.intake.stop()
            self.presence.stop()
            self.paused_queues.stop()
            self.sweep.stop()
            self.cleanup.stop()
            self.queues.stop()
        released = self.pool.release_all() + self.gate.release_all() + self.gathering.release_all()
        self._give_back([each for each in released if not each.is_bound])
        self.pool.submit(each for each in released if each.is_bound)

    def _give_back(self, assignments: list[Assignment]) -> None:
        for assignment in assignments:
            if assignment.verdict.state == SWEEP:
                continue  # another worker will look
            if assignment.is_acked:
                self._write_down(assignment, Verdict(states.FAILURE, "WorkerLostError", ["the worker was shut down"]))
            elif assignment.is_decided:
                self._write_down(assignment, assignment.verdict)
            else:
                self.settle(assignment, Entry(Settlement(assignment.delivery, Action.REQUEUE)), is_final=False)

    async def _leave(self) -> None:
        """Give back what still runs, uncharged, and go. Never waits for a broker that is away: leases run out."""
        interrupted = self.pool.interrupt()
        if interrupted:
            logger.warning("%d running task(s) interrupted and given back", len(interrupted))
            self._give_back(interrupted)
        self.pool.kill_all("at shutdown")
        await asyncio.to_thread(self.control.stop)
        deadline = Deadline(LEAVING)
        await asyncio.to_thread(self.intake.join, 0.5)
        await self.gate.drain(0.5)
        drained = await asyncio.to_thread(self.committer.drain, deadline.left() or 0.0)
        if not drained:
            logger.error(
                "the broker or result store is away: %d outcome(s) left behind; their leases will run out",
                self.committer.backlog,
            )
        await asyncio.to_thread(self.queues.leave, deadline.left() or 0.0)
        self.leases.stop()
        self.gate.close()
        await asyncio.to_thread(self.control.join, min(0.5, deadline.left() or 0.0))
        self.pool.close()
        self.nursery.stop()
        self.announcer.gone()


def _first(url: Any) -> str:
    return str(url[0]) if isinstance(url, (list, tuple)) else str(url)
