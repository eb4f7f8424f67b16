"""kill -9 at random and on purpose: a dead process costs a pause, not a task."""

from __future__ import annotations

import itertools
import os
import random
import signal
from typing import Any

import pytest

from celeriac import AsyncResult
from tests.faults.apps.rig import Mark, Rig, kill, now, wait_gone, zygote_pids
from tests.support.files import eventually

pytestmark = [pytest.mark.faults, pytest.mark.slow]

TASKS = 300
LEASE = 3.0
#: Seconds of killing: the whole time where an outcome is one commit, less where it is three.
KILLING = {True: 30.0, False: 12.0}
#: What a task may wait longer than the lease after its worker's death: the start of the next worker, and its turn.
PATIENCE = 5.0


#: Kills that make it a test.
FEWEST = 10


def _seed() -> int:
    """From CELERIAC_TEST_SEED, to see a failed run again, else a new one. Pytest shows it when the test fails."""
    seed = int(os.environ.get("CELERIAC_TEST_SEED") or random.randrange(2**32))
    print(f"CELERIAC_TEST_SEED={seed}")
    return seed


class Killer:
    """Kills a random process of a worker again and again, starts the worker anew, and sends tasks meanwhile."""

    def __init__(self, rig: Rig, seed: int) -> None:
        self.rig = rig
        self.random = random.Random(seed)
        self.results: dict[str, AsyncResult[Any]] = {}
        self.deaths: list[float] = []  # of whole workers
        self.kills = 0
        self.worker = rig.worker("-c", "2")

    def kill_one(self) -> None:
        """One kill."""
        self.kills += 1
        victim = self.random.choice(["runner", "runner", "zygote", "supervisor", "tree"])
        if victim == "runner":
            pids = self.worker.runner_pids()
            if pids:
                kill(self.random.choice(pids), signal.SIGKILL)
            return
        if victim == "zygote":
            for pid in zygote_pids(self.worker):
                kill(pid, signal.SIGKILL)
            # Without its first zygote a worker can't know its app, and says so. Later it starts another one.
            if "died" in self.worker.wait_output(r"ready\.|the process that imports the app has died")[0]:
                self._start_again(expected=1)
            return
        if victim == "supervisor":
            self.worker.kill(signal.SIGKILL)
        else:
            self.worker.kill_tree(signal.SIGKILL)
        self._start_again(expected=-signal.SIGKILL)

    def _start_again(self, expected: int) -> None:
        assert self.worker.wait() == expected, self.worker.output
        self.deaths.append(now())
        self.worker = self.rig.worker("-c", "2", ready=self.random.random() < 0.7)

    def kill_for(self, seconds: float) -> None:
        """Kill each time after a random number of starts and ends, or when nothing has happened for a while.

        At least `FEWEST` times, however slow the machine is.
        """
        begin = now()
        while now() < begin + seconds or self.kills < FEWEST:
            self.send_up_to(TASKS // 10 + int(TASKS * (now() - begin) / seconds))
            wanted = len(self.rig.ledger) + self.random.randint(1, 25)
            quiet = now() + self.random.uniform(0.3, 1.5)
            eventually(lambda: len(self.rig.ledger) >= wanted or now() > quiet)  # noqa: B023 -- called at once
            self.kill_one()
        self.send_up_to(TASKS)

    def send_up_to(self, number: int) -> None:
        """Send more tasks, until there are so many."""
        keys = [f"t{index}" for index in range(len(self.results), min(number, TASKS))]
        self.results |= self.rig.send_work(keys, lambda: self.random.uniform(0.03, 0.08))


def _late_restarts(marks: list[Mark], deaths: list[float]) -> list[str]:
    """Starts that came too late after the death of the worker that ran the task before."""
    late = []
    for key in {mark.key for mark in marks}:
        starts = sorted(mark.at for mark in marks if mark.key == key)
        for before, after in itertools.pairwise(starts):
            passed = [at for at in deaths if before <= at <= after]
            if passed and after - passed[-1] > LEASE + PATIENCE:
                late.append(f"{key} was started again {after - passed[-1]:.1f} s after the last death of a worker")
    return late


def test_every_task_ends_although_processes_are_killed_at_random(each_rig: Rig) -> None:
    rig = each_rig
    rig.settings |= {"task_lease": LEASE, "task_max_deliveries": 100}
    killer = Killer(rig, _seed())
    killer.kill_for(KILLING[rig.is_one_file])
    killer.worker.wait_ready()
    results = killer.results

    rig.wait_ended(results, timeout=LEASE + PATIENCE + 15)
    rig.assert_succeeded(results)
    rig.assert_empty(timeout=LEASE + PATIENCE)
    starts = rig.starts()
    missing = set(results) - set(starts)
    assert not missing, f"stored as SUCCESS but never started: {missing}"
    late = _late_restarts(rig.marks(), killer.deaths)
    assert not late, late
    print(f"{killer.kills} kills, {len(killer.deaths)} of workers; {sum(starts.values()) - TASKS} repeated starts")
    assert killer.worker.stop() == 0


def test_every_task_runs_once_when_nothing_is_killed(rig: Rig) -> None:
    results: dict[str, AsyncResult[object]] = {}
    workers = [rig.worker("-c", "2") for _ in range(2)]
    for number in range(1000):
        results[f"t{number}"] = rig.send("note", 0, f"t{number}")

    rig.wait_ended(results, timeout=40)
    rig.assert_empty()
    assert [worker.stop() for worker in workers] == [0, 0]
    repeated = {key: count for key, count in rig.starts().items() if count != 1}
    assert not repeated, f"not run once: {repeated}"
    assert len(rig.starts()) == 1000
    wrong = {key: record and record.state for key, record in rig.records(results).items()}
    assert set(wrong.values()) == {"SUCCESS"}, wrong


def test_task_longer_than_three_leases_runs_once(each_rig: Rig) -> None:
    rig = each_rig
    rig.settings["task_lease"] = 1.0
    workers = [rig.worker("-c", "1") for _ in range(2)]
    results = rig.send_work(["long"], lambda: 3.5)
    rig.wait_ended(results)
    rig.assert_succeeded(results)
    rig.assert_empty()
    assert rig.starts() == {"long": 1}
    assert [worker.stop() for worker in workers] == [0, 0]


def test_runners_go_on_without_their_zygote_and_a_new_one_serves(rig: Rig) -> None:
    worker = rig.worker("-c", "2")
    runners = worker.wait_runners(2)
    results = rig.send_work(["a", "b"], lambda: 1.0)
    rig.wait_start("a")
    rig.wait_start("b")
    old = zygote_pids(worker)
    kill(old[0], signal.SIGKILL)
    worker.wait_output("the zygote has died")

    rig.wait_ended(results)
    assert rig.starts() == {"a": 1, "b": 1}
    assert worker.runner_pids() == runners, "runners died with their zygote"
    assert eventually(lambda: zygote_pids(worker)) != old
    kill(runners[0], signal.SIGKILL)
    eventually(lambda: len(worker.runner_pids()) == 2 and runners[0] not in worker.runner_pids())
    more = rig.send_work(["c", "d"], lambda: 0.3)
    rig.wait_ended(more)
    rig.assert_succeeded(results | more)
    assert {mark.pid for mark in rig.marks()} - set(runners), "the new runner was given nothing"
    assert worker.stop() == 0


def test_zygote_that_dies_again_and_again_is_started_again_and_again(rig: Rig) -> None:
    worker = rig.worker("-c", "1")
    for number in range(3):
        pid = eventually(lambda: zygote_pids(worker))[0]
        kill(pid, signal.SIGKILL)
        for runner in worker.runner_pids():
            kill(runner, signal.SIGKILL)
        result = rig.send("note", 0, f"n{number}")
        assert result.get(timeout=20) == f"n{number}"
    assert worker.stop() == 0


def test_idle_runner_that_is_killed_is_replaced(rig: Rig) -> None:
    worker = rig.worker("-c", "2")
    before = worker.wait_runners(2)
    kill(before[0], signal.SIGKILL)
    eventually(lambda: before[0] not in worker.runner_pids() and len(worker.runner_pids()) == 2)
    assert before[1] in worker.runner_pids(), "the other runner was replaced, too"
    results = rig.send_work(["a", "b"], lambda: 0.2)
    rig.wait_ended(results)
    rig.assert_succeeded(results)
    assert rig.starts() == {"a": 1, "b": 1}


@pytest.mark.parametrize("is_forked", [True, False], ids=["forked", "by exec"])
@pytest.mark.parametrize("task", ["work", "hold_interpreter"])
def test_killed_supervisor_leaves_no_process_behind(rig: Rig, task: str, is_forked: bool) -> None:
    if not is_forked:
        rig.env["CELERIAC_TEST_THREAD"] = "1"  # alive after import, so that runners can't be forked
    worker = rig.worker("-c", "2")
    rig.send(task, "task", 60)
    rig.wait_start("task")
    pids = worker.tree()
    assert len(pids) == 4, f"supervisor, zygote and two runners are {pids}"
    worker.kill(signal.SIGKILL)
    wait_gone(pids, timeout=2.0)
