"""Where tasks with limits wait for their turn, between admission and pool: rates, concurrency, uniqueness.

The supervisor submits what was admitted and has a limit; what may start goes on to the pool, a few wait here on lease, and
the rest goes back to the broker until later, uncharged. So a limited task holds up no other, and any number of them costs the
worker nothing. All state belongs to the event loop; one coroutine asks the coordination store, in batches, in a thread.

Invariants: a claim is renewed as long as its task is here, and given back before its outcome is committed, so whoever sees a
result finds the lock free; a worker that dies renews nothing, and its claims end with its leases.
"""

from __future__ import annotations

import asyncio
import itertools
import time
import uuid
from collections import Counter, defaultdict, deque
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from msgspec.structs import replace

from celeriac.config import Settings
from celeriac.coordination.base import Claim, Coordination
from celeriac.coordination.open import no_place, not_shared, open_coordination
from celeriac.errors import ImproperlyConfigured, OperationalError
from celeriac.log import get_logger
from celeriac.message import Delivery, Message
from celeriac.options import LIMITS
from celeriac.rates import Taken
from celeriac.routing import is_copy
from celeriac.runner.protocol import TaskFacts
from celeriac.states import SUCCESS
from celeriac.task_limits import TaskLimits, lock_name, mark_of
from celeriac.timing import SYSTEM_CLOCK, backoff, jitter
from celeriac.worker.assignment import Assignment
from celeriac.worker.committer import Committer, Entry
from celeriac.worker.gate_waiting import Lane, Waiting, claims_for, is_sent_twice, verdict_for
from celeriac.worker.rate_limits import AHEAD, Appetite, Horizon, RateLimits

__all__ = ["Gate", "GateOwner", "limits_by_task", "open_gate"]

logger = get_logger("celeriac.worker.gate")

T = TypeVar("T")

#: Seconds after which a claim that somebody else has is tried again.
RETRY = 0.25
#: Messages that wait here for the same claims; more go back to the broker.
MOST_WAITING = 16
#: Seconds for which what waits here may find no free slot of the pool; then other workers get it.
PATIENCE = 2.0
#: Seconds until the place is asked again after it could not be reached; later longer.
PAUSE = 0.5
#: Longest time in seconds until a message whose id runs already is looked at again.
LONGEST_TWIN = 30.0
#: Shortest time between two questions for the same bucket, in seconds.
BREATH = 0.02
#: Lanes after which empty ones are forgotten.
MANY_LANES = 1000
_NEVER = float("inf")
_NONE = TaskLimits()


class GateOwner(Protocol):
    """What the gate needs of the supervisor."""

    def room(self) -> int:
        """How many tasks the pool could start now."""

    def on_turn(self, assignments: Sequence[Assignment]) -> None:
        """These may start, or have a verdict by now."""

    def put_back(self, assignment: Assignment, until: float | None) -> None:
        """This one goes back to the broker, uncharged: until a moment, or at once for others."""

    @property
    def committer(self) -> Committer:
        """Takes what an assignment came to, once its claims are given back."""


class Gate:
    """The limits of one worker.

    Args:
        limits: Of the tasks that have any.
        place: Where claims and shared buckets are; None if there is none.
        lease: Seconds of a claim.
        rates_off: Whether `worker_disable_rate_limits` is set.
    """

    def __init__(
        self,
        owner: GateOwner,
        limits: Mapping[str, TaskLimits],
        place: Coordination | None,
        lease: float,
        *,
        rates_off: bool = False,
    ) -> None:
        self._owner = owner
        self._limits = dict(limits)
        self.place = place
        self._lease = lease
        self.rates = RateLimits(limits, is_off=rates_off)
        self._identity = uuid.uuid4().hex[:12]
        self._numbers = itertools.count(1)
        self._lanes: dict[str, Lane] = {}
        self._ready: defaultdict[str, deque[Waiting]] = defaultdict(deque)  # by task: they wait for the rate only
        self._rate_at: dict[str, float] = {}  # by task: when its bucket is asked again
        self._horizons: defaultdict[str, Horizon] = defaultdict(Horizon)
        self._held: dict[Assignment, Waiting] = {}  # in the pool, and to be given back at its end
        self._running: Counter[str] = Counter()  # the same by task
        self._ending: list[tuple[list[Claim], list[Claim], Entry | None]] = []  # to release, to keep, what follows
        self._renew_at = 0.0
        self._owed_release: list[Claim] = []
        self._owed_keep: list[Claim] = []
        self._appetite = Appetite()
        self._failures = 0  # in a row, to reach the place
        self._away_until = 0.0
        self._full_since: float | None = None
        self._changed = asyncio.Event()
        self._is_stopping = False
        self._work: asyncio.Task[None] | None = None

    # what the supervisor calls

    def concerns(self, message: Message) -> bool:
        """Whether a message has to pass here."""
        return message.task in self._limits or LIMITS in message.headers

    def set_rate_limit(self, task: str, rate_limit: object) -> None:
        """Change a task's rate limit from now on; None, "" or 0 lift it.

        Raises:
            ValueError: It is no rate limit.
        """
        self.rates.set(task, rate_limit)
        self._limits.setdefault(task, _NONE)
        self._rate_at.pop(task, None)
        self._horizons.pop(task, None)
        self._changed.set()

    def learn(self, tasks: Mapping[str, TaskFacts]) -> None:
        """The app has other tasks now. Limits that were changed meanwhile stay. May be called by any thread."""
        limits = limits_by_task(tasks)
        self._limits = {**{name: _NONE for name in self._limits if name not in limits}, **limits}
        self.rates.learn(limits)

    def start(self) -> None:
        """Begin to work, in the running loop."""
        self._work = asyncio.ensure_future(self._run())

    def on_capacity(self) -> None:
        """The pool may have room."""
        if self._full_since is not None:
            self._changed.set()

    def came(self, deliveries: Sequence[Delivery]) -> None:
        """These have come, whatever becomes of them."""
        if self.rates.are_any:
            self._appetite.came(sum(not self.rates.interval(delivery.message.task) for delivery in deliveries))

    def bite(self, wanted: int) -> tuple[int, float]:
        """How many of `wanted` messages to fetch, and seconds after which to ask again (0.0: not needed)."""
        if not self.rates.are_any:
            return wanted, 0.0
        return self._appetite.bite(wanted, self._owner.committer.spent, time.monotonic())

    def submit(self, assignment: Assignment) -> None:
        """Let one wait for its turn."""
        message = assignment.delivery.message
        limits = self._limits.get(message.task, _NONE)
        mark = mark_of(message.headers) if LIMITS in message.headers else None
        if mark is not None and mark.is_named and is_copy(assignment.delivery.queue):
            mark = replace(mark, is_named=False)  # of a broadcast each worker runs its copy, all with one id
        claims: list[Claim] = []
        if self.place is not None:
            execution = f"{self._identity}-{next(self._numbers)}"
            claims = claims_for(message, mark, limits, self._lease, self._identity, execution)
        waiting = Waiting(assignment, mark, claims)
        if self._is_too_fast(waiting):
            return
        if claims or limits.max_per_worker:
            self._enter_lane(waiting, limits)
        elif self.rates.interval(message.task):
            waiting.is_claimed = True
            self._ready[message.task].append(waiting)
        else:
            self._owner.on_turn([assignment])
            return
        self._changed.set()

    def forfeit(self, message: Message) -> None:
        """This message will not be run: give back the lock that its client took."""
        mark = mark_of(message.headers) if LIMITS in message.headers else None
        if mark is not None and mark.is_held and mark.until and self.place is not None:
            self._ending.append(([Claim(name=lock_name(mark.unique), holder=message.id, seconds=0.0)], [], None))
            self._changed.set()

    def holds(self, assignment: Assignment) -> bool:
        """Whether `end` is to be called for it."""
        return assignment in self._held

    def end(self, assignment: Assignment, entry: Entry | None, *, is_final: bool) -> None:
        """One that had its turn has ended: give its claims back, then commit.

        Args:
            entry: To be committed afterwards.
            is_final: False if the task goes on later (a retry, or given back): it keeps its lock.
        """
        waiting = self._held.pop(assignment)
        self._running[waiting.task] -= 1
        took = time.monotonic() - waiting.since
        for lane in self._lanes.values():
            if lane.waiting and lane.waiting[0].task == waiting.task:
                lane.retry_at = 0.0
                lane.usual += 0.2 * (took - lane.usual)
                if len(lane.waiting) < MOST_WAITING // 2:
                    lane.horizon = Horizon()  # those that were put back were put too far
        if waiting.claims:
            messages = entry.messages if entry is not None else ()
            until = max((message.eta or 0.0 for message in messages), default=None)
            keep = waiting.kept(self._lease, until) if not is_final else []
            if waiting.id_claim is not None and entry is not None and entry.record and entry.record.state == SUCCESS:
                keep.append(
                    waiting.id_claim
                )  # until whoever has just fetched it once more will find the success stored
            self._leave(waiting, keep, entry)
        elif entry is not None:
            self._owner.committer.add([entry])
        self._changed.set()

    def _leave(self, waiting: Waiting, keep: list[Claim], entry: Entry | None = None) -> None:
        names = {claim.name for claim in keep}
        self._ending.append(([claim for claim in waiting.claims if claim.name not in names], keep, entry))
        self._changed.set()

    def waiting(self) -> list[Assignment]:
        """Those that wait here for their turn."""
        return [waiting.assignment for waiting in self._everyone()]

    def release_all(self) -> list[Assignment]:
        """What waits here, taken out: it is to go back to the broker."""
        released = list(self._everyone())
        self._lanes.clear()
        self._ready.clear()
        for waiting in released:
            self._step_back(waiting)
        return [waiting.assignment for waiting in released]

    def forget(self, tokens: set[object]) -> int:
        """The leases of these are lost: they are another worker's now. Returns how many waited here."""
        lost = [each for each in self._everyone() if each.assignment.delivery.token in tokens]
        for queue in [*(lane.waiting for lane in self._lanes.values()), *self._ready.values()]:
            for waiting in [each for each in queue if each in lost]:
                queue.remove(waiting)
        for waiting in lost:
            own = [claim for claim in waiting.claims if claim is not waiting.lock]
            if waiting.is_claimed and own:
                self._ending.append((own, [], None))
        return len(lost)

    async def drain(self, timeout: float) -> None:
        """Give back what can be given back, and stop."""
        self._is_stopping = True
        self._changed.set()
        if self._work is not None:
            _, late = await asyncio.wait({self._work}, timeout=timeout)
            for work in late:
                work.cancel()
        for _, _, entry in self._ending:
            if entry is not None:
                self._owner.committer.add([entry])
        self._ending.clear()

    def close(self) -> None:
        """Release the place's connections."""
        if self.place is not None:
            self.place.close()

    # those that wait

    def _everyone(self) -> Iterator[Waiting]:
        for lane in self._lanes.values():
            yield from lane.waiting
        for ready in self._ready.values():
            yield from ready

    def _is_too_fast(self, waiting: Waiting) -> bool:
        """Put one back whose turn by rate is too far away."""
        task, now = waiting.task, SYSTEM_CLOCK.now()
        interval = self.rates.interval(task)
        if not interval:
            return False
        here = sum(1 for each in self._everyone() if each.task == task)
        soon = self._rate_at.get(task, 0.0) - now
        if not self.rates.is_cluster(task):
            soon = max(soon, self.rates.wait(task, now))
        if here < self.rates.room(task) and soon <= AHEAD:
            return False
        self._put_back_by_rate(waiting, interval, soon)
        return True

    def _put_back_by_rate(self, waiting: Waiting, interval: float, soon: float) -> None:
        self._appetite.put_back()
        soonest = max(AHEAD / 2, soon - interval)
        self._owner.put_back(
            waiting.assignment, self._horizons[waiting.task].next(SYSTEM_CLOCK.now(), interval, soonest)
        )

    def _enter_lane(self, waiting: Waiting, limits: TaskLimits) -> None:
        """Wait for claims, behind those that wait for the same ones."""
        waiting.lane = waiting.claims[-1].name if waiting.claims else f"worker:{waiting.task}"
        if len(self._lanes) > MANY_LANES:
            self._lanes = {name: lane for name, lane in self._lanes.items() if lane.waiting}
        lane = self._lanes.get(waiting.lane)
        if lane is None:
            lane = self._lanes[waiting.lane] = Lane()
        if len(lane.waiting) < MOST_WAITING:
            lane.waiting.append(waiting)
            return
        interval = max(0.01, lane.usual / max(1, limits.max_concurrency or limits.max_per_worker))
        until = lane.horizon.next(SYSTEM_CLOCK.now(), interval * (0.75 + jitter() / 2), AHEAD / 2)
        self._owner.put_back(waiting.assignment, until)

    def _step_back(self, waiting: Waiting) -> None:
        """One that leaves without having had its turn gives back what it has; its lock is kept, for its message lives on."""
        keep = waiting.kept(self._lease, None) if waiting.mark is not None and waiting.mark.is_held else []
        if waiting.is_claimed or keep:
            self._leave(waiting, keep)

    def _make_way(self) -> None:
        """The pool is full: what waits here for long goes to others."""
        now = time.monotonic()
        if self._full_since is None:
            self._full_since = now
        elif now - self._full_since >= PATIENCE:
            self._full_since = now
            for assignment in self.release_all():
                self._owner.put_back(assignment, None)

    # the work

    async def _run(self) -> None:
        while not (self._is_stopping and not self._ending):
            try:
                await self._step()
            except Exception:  # without this coroutine every limited task would wait for ever
                logger.exception("limits: something is wrong")
                await asyncio.sleep(PAUSE)
            await self._pause()

    async def _pause(self) -> None:
        if self._is_stopping:
            return
        wait = self._until_next()
        try:
            await asyncio.wait_for(self._changed.wait(), None if wait == _NEVER else max(wait, 0.002))
        except TimeoutError:
            return

    async def _step(self) -> None:
        self._changed.clear()
        await self._give_back()
        await self._ask(self._renew)
        if self._is_stopping or not any(self._everyone()):
            self._full_since = None
            return
        room = self._owner.room()
        if room <= 0:
            self._make_way()
            return
        self._full_since = None
        await self._ask(self._claim, room)
        await self._start(room)

    async def _ask(self, question: Callable[..., Awaitable[T]], *args: Any) -> T | None:
        """Ask the place, unless it could not be reached a moment ago. What needs no place goes on meanwhile."""
        if time.monotonic() < self._away_until:
            return None
        try:
            answer = await question(*args)
            self._failures = 0
            return answer
        except OperationalError as exc:
            self._failures += 1
            pause = backoff(self._failures, base=PAUSE)
            self._away_until = time.monotonic() + pause
            logger.warning("limits can't be looked up, trying again in %.1f s: %s", pause, exc)
            return None

    def _until_next(self) -> float:
        """Seconds until there may be something to do without a word from outside."""
        now, wall = time.monotonic(), SYSTEM_CLOCK.now()
        moments = [max(self._renew_at, self._away_until)] if self._held else []
        if self._owed_release or self._owed_keep:
            moments.append(self._away_until)
        if self._full_since is not None:
            moments.append(self._full_since + PATIENCE)
        else:
            moments += [max(lane.retry_at, self._away_until) for lane in self._lanes.values() if lane.waiting]
            moments += [now + self._rate_at.get(task, 0.0) - wall for task, ready in self._ready.items() if ready]
        return max(0.0, min(moments) - now) if moments else _NEVER

    async def _give_back(self) -> None:
        """Release claims of what has ended, in one batch, then have it committed; a result must not wait for the place."""
        ending, self._ending = self._ending, []
        self._owed_release += [claim for claims, _, _ in ending for claim in claims]
        self._owed_keep += [claim for _, claims, _ in ending for claim in claims]
        release, keep, place = self._owed_release, self._owed_keep, self.place
        try:
            is_owed = place is not None and bool(release or keep)
            if is_owed and await self._ask(asyncio.to_thread, _release_and_keep, place, release, keep):
                self._owed_release, self._owed_keep = [], []
        finally:
            entries = [entry for _, _, entry in ending if entry is not None]
            if entries:
                self._owner.committer.add(entries)

    async def _renew(self) -> None:
        now = time.monotonic()
        if now < self._renew_at or self.place is None:
            return
        everyone = [*self._held.values(), *(each for ready in self._ready.values() for each in ready)]
        claims = [claim for waiting in everyone for claim in waiting.claims]
        if claims:
            await asyncio.to_thread(self.place.acquire, claims)
        self._renew_at = now + self._lease / 3

    async def _claim(self, room: int) -> None:
        """Try to get the claims of those whose turn it may be, all in one question."""
        now = time.monotonic()
        lanes = [lane for lane in self._lanes.values() if lane.waiting and lane.retry_at <= now]
        chosen = [waiting for lane in lanes for waiting in self._next_of(lane, room)]
        claims = [claim for waiting in chosen for claim in waiting.claims]
        answers: list[str] = []
        if claims and self.place is not None:
            answers = await asyncio.to_thread(self.place.acquire, claims)
        at, release = 0, []
        for waiting in chosen:
            release += self._answered(waiting, answers[at : at + len(waiting.claims)])
            at += len(waiting.claims)
        if release and self.place is not None:
            await asyncio.to_thread(self.place.release, release)

    def _next_of(self, lane: Lane, room: int) -> list[Waiting]:
        """Those of a lane that could start now."""
        task = lane.waiting[0].task
        here = sum(1 for each in self._ready[task] if each.lane)
        number, limit = room - here, self._limits.get(task, _NONE).max_per_worker
        if limit:
            number = min(number, limit - here - self._running[task])
        if number <= 0:
            lane.retry_at = time.monotonic() + RETRY
        return [lane.waiting[place] for place in range(min(number, len(lane.waiting)))]

    def _answered(self, waiting: Waiting, answers: Sequence[str]) -> list[Claim]:
        """What the store says about one; returns claims to give back at once."""
        got = [claim for claim, other in zip(waiting.claims, answers, strict=True) if not other]
        lane = self._lanes.get(waiting.lane)
        if lane is None or waiting not in lane.waiting:
            return got  # it was taken out meanwhile
        mark = waiting.mark
        if any(answers):
            lane.retry_at = time.monotonic() + RETRY * (0.75 + jitter() / 2)
            if is_sent_twice(waiting, answers):
                lane.waiting.remove(waiting)
                self._put_back_twin(waiting.assignment)
                return got
            if waiting.lock is None or mark is None:
                return got
            if answers[0]:
                self._locked_out(waiting, lane, answers[0])
                return got
            return [claim for claim in got if claim is not waiting.lock] if mark.is_held else got
        lane.waiting.remove(waiting)
        self._ready[waiting.task].append(waiting)
        return waiting.on_claimed()

    def _put_back_twin(self, assignment: Assignment) -> None:
        """Another message with its id runs now: when it comes again it is looked up whether that one has succeeded."""
        pause = min(LONGEST_TWIN, RETRY * 2 ** min(assignment.delivery.deliveries, 10))
        self._owner.put_back(assignment, SYSTEM_CLOCK.now() + pause * (0.75 + jitter() / 2))

    def _locked_out(self, waiting: Waiting, lane: Lane, other: str) -> None:
        """Another one has the lock of a unique task."""
        assert waiting.mark is not None  # noqa: S101 -- it has a lock
        verdict = verdict_for(waiting.task, waiting.mark, other)
        if verdict is not None:
            lane.waiting.remove(waiting)
            waiting.assignment.verdict = verdict
            self._owner.on_turn([waiting.assignment])
        elif not waiting.mark.is_held:
            waiting.take_lock_by_force()
            lane.retry_at = 0.0

    async def _start(self, room: int) -> None:
        """Let those go whose rate allows it."""
        for task in [task for task, ready in self._ready.items() if ready]:
            granted = await self._granted(task, min(room, len(self._ready[task])))
            ready, started = self._ready[task], []
            for _ in range(min(granted, len(ready))):
                waiting = ready.popleft()
                waiting.since = time.monotonic()
                if waiting.lane:
                    self._held[waiting.assignment] = waiting
                    self._running[task] += 1
                started.append(waiting.assignment)
            room -= len(started)
            self._owner.on_turn(started)
            if ready and self._rate_at.get(task, 0.0) - SYSTEM_CLOCK.now() > 2 * AHEAD:
                self._empty(task)
            if not ready:
                del self._ready[task]
            if room <= 0:
                return

    def _empty(self, task: str) -> None:
        """The turn of these by rate is too far away after all, since others have taken from the bucket."""
        ready, interval = self._ready[task], self.rates.interval(task)
        while ready:
            waiting = ready.popleft()
            self._step_back(waiting)
            self._put_back_by_rate(waiting, interval, self._rate_at[task] - SYSTEM_CLOCK.now())

    async def _granted(self, task: str, wanted: int) -> int:
        interval, now = self.rates.interval(task), SYSTEM_CLOCK.now()
        if not interval:
            self._rate_at.pop(task, None)
            return wanted
        if now < self._rate_at.get(task, 0.0):
            return 0
        if self.rates.is_cluster(task) and self.place is not None:
            answer: Taken | None = await self._ask(asyncio.to_thread, self.place.take, f"task:{task}", interval, wanted)
            if answer is None:
                self._rate_at[task] = SYSTEM_CLOCK.now() + PAUSE
                return 0
            taken = answer
            self._rate_at[task] = SYSTEM_CLOCK.now() + max(taken.wait, BREATH)
        else:
            taken = self.rates.take(task, now, wanted)
            self._rate_at[task] = now + taken.wait
        return taken.granted


def limits_by_task(tasks: Mapping[str, TaskFacts]) -> dict[str, TaskLimits]:
    """The limits of the tasks that have any."""
    return {name: facts.limits for name, facts in tasks.items() if facts.limits is not None}


def open_gate(owner: GateOwner, tasks: Mapping[str, TaskFacts], conf: Settings) -> Gate:
    """The gate of a worker, with the place that its settings give. Nothing is connected yet.

    Raises:
        ImproperlyConfigured: A limit needs a place that all workers share, and there is none.
    """
    limits, place = limits_by_task(tasks), open_coordination(conf)
    for name, each in limits.items():
        if each.shared and place is None:
            raise ImproperlyConfigured(no_place(conf, f"task {name!r} with the option {each.shared}"))
    shared, problem = [name for name, each in limits.items() if each.shared], not_shared(conf, place)
    if shared and problem:
        logger.warning("%s: set coordination_url. This concerns %s", problem, ", ".join(sorted(shared)))
    return Gate(owner, limits, place, conf.task_lease, rates_off=conf.worker_disable_rate_limits)


def _release_and_keep(place: Coordination, release: list[Claim], keep: list[Claim]) -> bool:
    place.release(release)
    place.acquire(keep)
    return True
