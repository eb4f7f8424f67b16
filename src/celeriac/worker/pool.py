"""The runners and what they are given: chooses a slot for each assignment, replaces runners that end.

Runs in the supervisor's event loop. Assignments wait in `ready`; `dispatch` hands them out. A slot holds one task at a
time, unless its tasks are so short that the pipe would be the cost: then its credit grows so that what waits in it is
worth 60 milliseconds (`depth`), and is filled up when half of it is used. Outcomes and crashes go to the owner.

While every slot holds work and more is ready, outcomes gather for up to 25 milliseconds before they are read (`_rest`): a
wake-up costs as much as a dozen tasks, and takes from the runners. A lone outcome is read at once.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Protocol

from celeriac import signals
from celeriac.log import get_logger
from celeriac.outcome import Outcome
from celeriac.results.base import Record
from celeriac.runner.protocol import RunnerOptions
from celeriac.timing import backoff
from celeriac.worker.assignment import Assignment, Batch
from celeriac.worker.idle_slots import IdleSlots
from celeriac.worker.nursery import Nursery
from celeriac.worker.process import RunnerProcess, Slot

__all__ = ["Pool", "PoolOwner", "depth"]

logger = get_logger("celeriac.worker.pool")

#: Seconds of short tasks that a slot may hold: a rest is up to half of it. Then, the runtime from which on it holds one task.
WORTH_WAITING, SHORT = 0.06, 0.01
#: Seconds of work for each slot that are fetched ahead, and the runtime from which on nothing is.
WORTH_FETCHING, LONG = 0.072, 0.05
#: Frames a slot holds at most: more gives no more speed (60,000 a second with 64, 23,000 with 8).
MAX_DEPTH = 128
#: Shortest and longest time in seconds for which outcomes gather while runners have enough to do. Of tasks of a millisecond a
#: rest of 8 ms left 79 % of two processes' time to the tasks, one of 25 ms 85 %.
SHORTEST_REST, LONGEST_REST = 0.001, 0.025
#: Weight of a new runtime in the moving average of its task.
SMOOTHING = 0.1
#: A runner that ends within this many seconds of its start, before any task, is not replaced at once.
TOO_SOON = 1.0


def depth(runtime: float | None) -> int:
    """How many frames a slot may hold of a task with this usual runtime (seconds; None if it never ran)."""
    if runtime is None or runtime > SHORT:
        return 1
    return max(1, min(MAX_DEPTH, int(WORTH_WAITING / max(runtime, 1e-5))))


def ahead(runtime: float | None) -> int:
    """How many tasks to fetch ahead for each slot: what it does in a moment; of long ones none, so that others get them."""
    if runtime is None or runtime >= LONG:
        return 0
    if runtime > SHORT:
        return 1
    return max(1, min(4 * MAX_DEPTH, int(WORTH_FETCHING / max(runtime, 1e-5))))


class PoolOwner(Protocol):
    """Who is told what the pool does."""

    def on_outcomes(self, ended: Sequence[tuple[Assignment, Outcome]]) -> None:
        """Executions have ended."""

    def on_crash(self, assignment: Assignment, reason: str) -> None:
        """The runner died while it ran this."""

    def on_state(self, record: Record) -> None:
        """A running task has set a state."""

    def on_refused(self, assignment: Assignment, reason: str) -> None:
        """This can't be handed to a runner."""

    def on_capacity(self) -> None:
        """There may be room for more."""


class Pool:
    """Runner processes with slots."""

    def __init__(
        self,
        nursery: Nursery,
        owner: PoolOwner,
        processes: int,
        runner: RunnerOptions,
        *,
        max_tasks: int | None = None,
    ) -> None:
        self.ready: deque[Assignment] = deque()
        self.processes: list[RunnerProcess] = []
        self.size = processes
        self.slots_per_process = runner.slots
        self.max_tasks = max_tasks
        self.is_stopping = False
        self._is_ending = False  # runners are being killed
        self.done = 0
        self.crashes = 0
        self._nursery = nursery
        self._runner = runner
        self._owner = owner
        self._runtimes: dict[str, float] = {}
        self._depths: dict[str, int] = {}  # of tasks that may be more than one in a slot
        self._idle = IdleSlots()
        self._numbers = 0
        self._early_ends = 0
        self._is_resting = False
        self._gathered: list[tuple[Slot, Assignment, Outcome]] | None = None
        self._changed = asyncio.Event()
        nursery.on_exit = self._on_exit

    # size

    def start(self) -> None:
        """Start the runners."""
        for _ in range(self.size):
            self._spawn()

    def _spawn(self) -> None:
        self._numbers += 1
        process = RunnerProcess(self._numbers, self._runner, self)
        self.processes.append(process)
        signals.worker_before_create_process.send(sender=process)
        self._nursery.spawn(process)

    def grow(self, number: int) -> None:
        """Have more runners."""
        self.size += number
        for _ in range(number):
            self._spawn()

    def shrink(self, number: int) -> None:
        """Have fewer runners; those that go end what they hold.

        Raises:
            ValueError: None would be left.
        """
        if number >= self.size:
            raise ValueError(f"a pool of {self.size} runner(s) can't shrink by {number}: one has to stay")
        self.size -= number
        staying = [process for process in self.processes if not process.is_retiring]
        for process in sorted(staying, key=lambda each: each.load)[:number]:
            process.retire()
            self._idle.drop(process)

    def replace(self, process: RunnerProcess) -> None:
        """Start another runner in the place of one that is to go."""
        if not process.is_retiring:
            process.retire()
            self._idle.drop(process)
            if not self.is_stopping:
                self._spawn()

    @property
    def kind(self) -> str:
        """Name of the pool: how its runners run tasks."""
        return self._runner.pool

    @property
    def capacity(self) -> int:
        """Number of slots."""
        return self.size * self.slots_per_process

    @property
    def held(self) -> int:
        """Assignments that runners hold."""
        return sum(process.load for process in self.processes)

    def wanted(self) -> int:
        """How many more assignments it can use now: free slots, and enough ahead to keep short tasks flowing."""
        if self.is_stopping:
            return 0
        free = sum(
            1
            for process in self.processes
            if process.is_ready and not process.is_retiring
            for slot in process.slots
            if not slot.held
        )
        usual = sum(self._runtimes.values()) / len(self._runtimes) if self._runtimes else None
        in_stock = self.capacity * ahead(usual)
        missing = free + in_stock - len(self.ready)
        # Filled up when half of it is used: to fetch for each task would be a round trip for each.
        return missing if free > len(self.ready) or 2 * missing >= in_stock > 0 else 0

    # work

    def submit(self, assignments: Iterable[Assignment], *, first: bool = False) -> None:
        """Take assignments; `first` puts them before those that wait."""
        if first:
            self.ready.extendleft(reversed(list(assignments)))
        else:
            self.ready.extend(assignments)
        if self.is_stopping and self.ready and not self._is_ending and not self._has_runner():
            self._spawn()  # runners are not replaced any more, but what has to end here needs one
        self.dispatch()

    def _has_runner(self) -> bool:
        return any(not process.is_retiring and not process.is_over for process in self.processes)

    def dispatch(self) -> None:
        """Hand out what waits, as far as slots take it."""
        ready, touched = self.ready, set()
        while ready and (slot := self._idle.take()) is not None:
            if self._give(slot, 1):
                touched.add(slot.process)
            else:
                self._idle.add([slot])
        if ready:
            touched.update(self._top_up())
        for process in touched:
            process.flush()
        if ready:
            self._rest()

    def _top_up(self) -> set[RunnerProcess]:
        """Fill up the slots of which half is used, each to the same height; returns the processes to be flushed."""
        ready, touched = self.ready, set()
        while ready:
            allowed = self._depths.get(ready[0].task, 1)
            slots = [slot for slot in self._usable_slots() if 2 * len(slot.held) <= allowed and not slot.is_blocked]
            if allowed == 1 or not slots:
                break
            height = min(allowed, -((-len(ready) - sum(len(slot.held) for slot in slots)) // len(slots)))
            given = 0
            for slot in slots:
                if number := self._give(slot, height - len(slot.held)):
                    given += number
                    touched.add(slot.process)
            if not given:
                break
        return touched

    def _usable_slots(self) -> list[Slot]:
        return [
            slot
            for process in self.processes
            if process.is_ready and not process.is_retiring and not process.is_over
            for slot in process.slots
        ]

    def _give(self, slot: Slot, limit: int) -> int:
        """Put the first of what waits into a slot, as long as it may hold more of their tasks; returns how many."""
        ready, process, held, given = self.ready, slot.process, slot.held, 0
        while ready and given < limit and not process.is_retiring:
            assignment = ready[0]
            if held and len(held) >= self._depths.get(assignment.task, 1):
                break
            ready.popleft()
            try:
                process.give(slot, assignment)
            except (TypeError, ValueError, OverflowError, RecursionError) as exc:
                if isinstance(assignment, Batch):  # one of them: each by itself, then
                    ready.extendleft(reversed(assignment.members))
                    continue
                self._owner.on_refused(assignment, f"malformed message: {exc}")
                continue
            given += 1
            if self.max_tasks is not None and process.assigned >= self.max_tasks:
                self.replace(process)
        return given

    def _rest(self) -> None:
        """Let outcomes gather, if no slot can run dry meanwhile and more is ready for when it is over."""
        if self._is_resting or self.is_stopping:
            return
        runtime = self._runtimes.get(self.ready[0].task, 0.0)
        least = min((len(slot.held) for slot in self._usable_slots()), default=0)
        # What runs may be about to end; of what waits behind it, half.
        pause = min(LONGEST_REST, (least - 1) * runtime / 2)
        if pause >= SHORTEST_REST:
            self._is_resting = True
            for process in self.processes:
                process.pause_reading()
            asyncio.get_running_loop().call_later(pause, self._wake)

    def _wake(self) -> None:
        """The end of a rest: read what has gathered in all processes, and treat it as one."""
        gathered: list[tuple[Slot, Assignment, Outcome]] = []
        self._gathered = gathered
        try:
            for process in list(self.processes):
                process.receive()
        finally:
            self._gathered, self._is_resting = None, False
        if gathered:
            self.on_outcomes(gathered)
        elif self.ready:
            self._rest()
        if not self._is_resting:
            for process in self.processes:
                process.resume_reading()

    def take_back_waiting(self, slot: Slot) -> None:
        """Give the frames that wait behind a long task to other slots."""
        taken = slot.process.take_back(slot)
        if taken:
            self.submit(taken, first=True)

    def release_all(self) -> list[Assignment]:
        """What is not started, taken out of the pool: it is to go back to the broker."""
        released = list(self.ready)
        self.ready.clear()
        for process in self.processes:
            for slot in process.slots:
                released += process.take_back(slot)
        return _members(released)

    def waiting(self) -> list[Assignment]:
        """What waits for a slot."""
        return _members(self.ready)

    def take_out(self, waiting: Sequence[Assignment]) -> None:
        """Forget some of what waits for a slot."""
        wanted = {id(each) for each in waiting}
        for assignment in [each for each in self.ready if any(id(member) in wanted for member in each.members)]:
            index = self.ready.index(assignment)
            left = assignment.without(waiting) if isinstance(assignment, Batch) else None
            if left is not None:
                self.ready[index] = left
            else:
                del self.ready[index]

    # what processes tell

    def on_ready(self, process: RunnerProcess) -> None:
        """A runner can take tasks."""
        if process.is_retiring:
            process.retire()
            return
        self._idle.add(process.slots)
        self._changed.set()
        self.dispatch()
        self._owner.on_capacity()

    def on_outcomes(self, ended: list[tuple[Slot, Assignment, Outcome]]) -> None:
        """Executions have ended."""
        if self._gathered is not None:
            self._gathered += ended
            return
        self.done += len(ended)
        runtimes = self._runtimes
        for _, assignment, outcome in ended:
            if assignment.verdict.state == "":
                known = runtimes.get(outcome.task)
                runtime = outcome.runtime
                runtimes[outcome.task] = runtime if known is None else known + SMOOTHING * (runtime - known)
        slots = dict.fromkeys(slot for slot, _, _ in ended)
        self._idle.add(slot for slot in slots if not slot.held and not slot.process.is_retiring)
        for task in {assignment.task for _, assignment, _ in ended}:
            self._depths[task] = depth(runtimes.get(task))
        self._owner.on_outcomes([(assignment, outcome) for _, assignment, outcome in ended])
        self._changed.set()
        self.dispatch()
        self._owner.on_capacity()

    def on_state(self, record: Record) -> None:
        """A running task has set a state."""
        self._owner.on_state(record)

    def on_skipped(self, slot: Slot, assignment: Assignment) -> None:
        """A frame was taken back just as it was to start."""
        if not slot.held and not slot.process.is_retiring:
            self._idle.add([slot])
        self.submit([assignment], first=True)

    def _on_exit(self, pid: int, status: int) -> None:
        for process in self.processes:
            if process.pid == pid:
                process.on_exit(status)
                return

    def on_process_end(self, process: RunnerProcess) -> None:
        """A runner's socket has closed: wait a moment for its exit status, then see what it held."""
        self._idle.drop(process)
        asyncio.ensure_future(self._bury(process))  # noqa: RUF006 -- it ends by itself

    async def _bury(self, process: RunnerProcess) -> None:
        deadline = time.monotonic() + 0.25
        matters = process.load or not process.is_retiring
        while process.exit_status is None and time.monotonic() < deadline and matters:  # noqa: ASYNC110
            await asyncio.sleep(0.005)  # at most 50 looks, once per dead runner
        if process not in self.processes:
            return  # the pool was closed meanwhile
        self.processes.remove(process)
        running = {id(assignment) for slot in process.slots if (assignment := slot.running()[0]) is not None}
        held = [assignment for slot in process.slots for assignment in slot.held]
        was_expected = process.is_retiring
        process.close()
        text = f"runner {process.pid} died {process.end_text()}"
        waiting = []
        for assignment in held:
            assignment.serial = 0
            if id(assignment) in running and not process.reason.startswith("neighbour"):
                self.crashes += 1
                logger.error("%s while running %s[%s]", text, assignment.task, assignment.id)
                for member in assignment.members:
                    self._owner.on_crash(member, text)
            else:
                waiting.append(assignment)
        if not was_expected and not self.is_stopping:
            if not running:
                logger.error("%s between two tasks", text)
            self._respawn(process)
        self._changed.set()
        self.submit(waiting, first=True)

    def _respawn(self, process: RunnerProcess) -> None:
        if process.assigned or time.monotonic() - process.started_at > TOO_SOON:
            self._early_ends = 0
            self._spawn()
        else:
            self._early_ends += 1
            asyncio.get_running_loop().call_later(backoff(self._early_ends, base=0.2), self._spawn_unless_stopping)

    def _spawn_unless_stopping(self) -> None:
        if not self.is_stopping:
            self._spawn()

    # end

    async def wait_ready(self) -> None:
        """Until a runner can take tasks."""
        while not any(process.is_ready for process in self.processes):
            self._changed.clear()
            await self._changed.wait()

    async def wait_idle(self, timeout: float) -> bool:
        """Until there is nothing to run; False if that takes longer than `timeout` seconds."""
        deadline = time.monotonic() + timeout
        while self.held or self.ready:
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            self._changed.clear()
            try:
                await asyncio.wait_for(self._changed.wait(), left)
            except TimeoutError:
                return False
        return True

    def held_assignments(self) -> list[Assignment]:
        """What runners hold, running or waiting."""
        return _members(a for process in self.processes for slot in process.slots for a in slot.held)

    def interrupt(self) -> list[Assignment]:
        """What has not ended, taken out of the pool."""
        self._is_ending = True
        for process in list(self.processes):
            process.receive_all()  # what has ended just now is not to be done again
        interrupted = self.held_assignments() + self.waiting()
        self.ready.clear()
        for process in self.processes:
            for slot in process.slots:
                slot.held.clear()
        return interrupted

    def kill_all(self, reason: str) -> None:
        """Kill every runner."""
        self.is_stopping = self._is_ending = True
        for process in self.processes:
            process.kill(reason)

    def close(self) -> None:
        """End every runner that still lives."""
        self.is_stopping = self._is_ending = True
        for process in self.processes:
            process.retire()
            process.signal(9)
            process.close()
        self.processes.clear()


def _members(assignments: Iterable[Assignment]) -> list[Assignment]:
    """Deliveries, whether they are part of a batch or not."""
    return [member for assignment in assignments for member in assignment.members]
