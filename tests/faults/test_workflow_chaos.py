"""Random workflows under chaos: every task of every one ends, every body is recorded once, every value is right.

Runners and whole workers are killed with -9, a tenth of what the client sends is sent twice, replies of broker and store get
lost, the store is away now and then, tasks retry and fail. Here 15 workflows a case; CELERIAC_TEST_SOAK=1 makes it 2,000 on
each broker, half of them with outages (CELERIAC_TEST_WORKFLOWS says how many; add `-o faulthandler_timeout=3000`).
"""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from celeriac import Celeriac
from celeriac.message import Message
from celeriac.results.base import Record
from tests.faults.apps.rig import kill, now
from tests.support.files import Ledger
from tests.support.flaky_control import FlakyControl
from tests.support.postgres_server import PostgresServer, open_folder
from tests.support.rabbitmq_server import RabbitMQServer
from tests.support.redis_server import RedisServer
from tests.support.worker import WorkerProcess
from tests.support.workflows import Failed, Plan, compose, evaluate, leaves, random_plan

pytestmark = [pytest.mark.faults, pytest.mark.slow]

IS_SOAK = bool(os.environ.get("CELERIAC_TEST_SOAK"))
WORKFLOWS = int(os.environ.get("CELERIAC_TEST_WORKFLOWS", 1000 if IS_SOAK else 15))
#: Seconds after which no more are sent.
SECONDS = float(os.environ.get("CELERIAC_TEST_SECONDS", "1200"))
#: Workflows that are under way at a time.
WINDOW = 40
#: Seconds without any start or end of a task after which the rest is taken to hang.
PATIENCE = 60.0


@contextmanager
def _sqlite(folder: Path) -> Iterator[tuple[str, str]]:
    yield (f"sqlite:///{folder}/tasks.db",) * 2


@contextmanager
def _redis(folder: Path) -> Iterator[tuple[str, str]]:
    with RedisServer(folder / "redis") as server:
        yield (server.url(),) * 2


@contextmanager
def _rabbitmq(folder: Path) -> Iterator[tuple[str, str]]:
    with RabbitMQServer(folder / "rabbitmq") as broker, RedisServer(folder / "redis") as store:
        yield broker.url, store.url()


@contextmanager
def _postgres(folder: Path) -> Iterator[tuple[str, str]]:
    with open_folder() as place, PostgresServer(place / "server") as server:
        yield server.url, f"db+{server.url}"


PLACES: dict[str, Callable[[Path], Any]] = {
    "sqlite": _sqlite, "redis": _redis, "rabbitmq": _rabbitmq, "postgres": _postgres,
}  # fmt: skip


class Chaos:
    """Client and workers on one broker and one store, and what is done to them."""

    def __init__(
        self,
        urls: tuple[str, str],
        folder: Path,
        start: Callable[..., WorkerProcess],
        rng: random.Random,
        *,
        is_flaky: bool,
    ) -> None:
        self.rng = rng
        self.control = FlakyControl(folder)
        self.is_flaky = is_flaky
        self.ledger = Ledger(folder / "ledger")
        self.app = Celeriac("client", broker=urls[0], backend=urls[1], set_as_current=False)
        flaky = "flaky://" if is_flaky else ""
        settings = {"broker_url": flaky + urls[0], "result_backend": flaky + urls[1], "task_lease": 2.0,
                    "task_max_deliveries": 1000, "result_chord_sweep_interval": 3.0}  # fmt: skip
        self.env = {
            **self.control.env,
            "CELERIAC_TEST_SETTINGS": json.dumps(settings),
            "CELERIAC_TEST_LEDGER": str(self.ledger.path),
        }
        self._start = start
        self._nodes = 0
        self.faults: Counter[str] = Counter()
        self._size = self._harm_at = 0
        self._heal_at = 0.0
        self.all_workers: list[WorkerProcess] = []
        self.workers = [self.worker(), self.worker()]
        self._send_some_twice()

    def worker(self) -> WorkerProcess:
        self._nodes += 1
        name = f"w{self._nodes}@test"
        worker = self._start("tests.faults.apps.workflows", "-c", "2", "-n", name, "-l", "WARNING", env=self.env)
        self.all_workers.append(worker)
        return worker

    def _send_some_twice(self) -> None:
        publish = self.app.transport.publish

        def twice(messages: Sequence[Message]) -> None:
            publish(messages)
            again = [message for message in messages if self.rng.random() < 0.1]
            self.faults["messages sent twice"] += len(again)
            if again:
                publish(again)

        self.app.transport.publish = twice  # type: ignore[method-assign]

    def has_moved(self) -> bool:
        """Whether tasks have started since it was last asked."""
        before, self._size = self._size, self.ledger.path.stat().st_size if self.ledger.path.exists() else 0
        return self._size > before

    def harm_or_heal(self) -> None:
        """After every few dozen tasks one thing goes wrong, and what was wrong for two seconds ends."""
        if self._size > self._harm_at:
            self._do_harm()
            self._harm_at = self._size + 37 * self.rng.randint(20, 120)
            self._heal_at = now() + self.rng.uniform(0.3, 2.0)
        elif now() > self._heal_at:
            self.heal()

    def _do_harm(self) -> None:
        self.heal()
        what = self.rng.choices(
            ("runner killed", "worker killed", "store away", "replies lost"),
            (4, 2, *((2, 2) if self.is_flaky else (0, 0))),
        )[0]
        number = self.rng.randrange(len(self.workers))
        if what == "worker killed" and not all(" ready." in worker.output for worker in self.workers):
            what = "runner killed"  # somebody has to work meanwhile: a busy machine takes long to start one
        self.faults[what] += 1
        if what == "runner killed":
            for pid in self.workers[number].runner_pids()[:1]:
                kill(pid, signal.SIGKILL)
        elif what == "worker killed":
            self.workers[number].kill_tree(signal.SIGKILL)
            self.workers[number].wait()
            self.workers[number].close()
            self.workers[number] = self.worker()
        elif what == "store away":
            self.control.fail("store", "get", "join_part", "start_chord", "forget_group", "get_group")
        else:
            self.control.lose_replies(
                *self.rng.choice((("publish",), ("store",), ("join_part",), ("settle",), ("publish", "settle")))
            )

    def heal(self) -> None:
        """Broker and store work again."""
        self.control.heal()

    def repaired(self) -> int:
        """Parts that a sweep has counted."""
        return sum(worker.output.count("ended uncounted") for worker in self.all_workers)


#: Place and whether broker and store fail, too.
CASES = [(place, is_flaky) for place in (PLACES if IS_SOAK else ("sqlite", "redis")) for is_flaky in (False, True)]


class Tally:
    """What has become of the workflows."""

    def __init__(self, app: Celeriac, rng: random.Random) -> None:
        self.app = app
        self.rng = rng
        self.sent = self.tasks = self.failed = 0
        self.under_way: dict[int, tuple[Plan, Any]] = {}
        self.wrong: list[Any] = []
        self.is_closing = False
        self._successes: dict[str, Record] = {}

    def send(self) -> None:
        """Send as many as may be under way."""
        while self.sent < WORKFLOWS and len(self.under_way) < WINDOW and not self.is_closing:
            plan = random_plan(self.rng)
            self.under_way[self.sent] = (plan, compose(self.app, plan).apply_async((0,)))
            self.sent += 1

    def take_ended(self) -> bool:
        """Look at those of which every task has ended; returns whether there were any."""
        ids = {number: [leaf.id for leaf in leaves(result)] for number, (_, result) in self.under_way.items()}
        flat = [task_id for each in ids.values() for task_id in each]
        found = [record for start in range(0, len(flat), 500) for record in self._records(flat[start : start + 500])]
        self._successes.update((record.id, record) for record in found if record and record.state == "SUCCESS")
        ready = {record.id for record in found if record is not None and record.is_ready}
        ended = [number for number, each in ids.items() if ready.issuperset(each)]
        for number in ended:
            self.tasks += len(ids[number])
            self._check(number, *self.under_way.pop(number))
        return bool(ended)

    def _records(self, ids: list[str]) -> list[Record | None]:
        assert self.app.backend is not None
        return self.app.backend.get(ids)

    def _check(self, number: int, plan: Plan, result: Any) -> None:
        try:
            value = result.get(timeout=20)
        except Exception as exc:
            value = exc
        try:
            expected = evaluate(plan, 0)
        except Failed:
            self.failed += 1
            if not isinstance(value, Exception):
                self.wrong.append(f"workflow {number} gave {value!r}, but was to fail: {plan}")
            return
        if value != expected:
            states = [(leaf.id, leaf.state) for leaf in leaves(result) if leaf.state != "SUCCESS"]
            self.wrong.append(f"workflow {number} gave {value!r}, not {expected!r}: {plan}; {states[:5]}")

    def recorded_again(self) -> list[str]:
        """Tasks whose success was recorded more than once."""
        ids = list(self._successes)
        found = [record for start in range(0, len(ids), 500) for record in self._records(ids[start : start + 500])]
        return [task_id for task_id, record in zip(ids, found, strict=True) if record != self._successes[task_id]]

    def open_tasks(self) -> dict[int, list[tuple[str, str]]]:
        """Those of which a task has not ended."""
        return {
            number: [(leaf.id, leaf.state) for leaf in leaves(result) if not leaf.ready()]
            for number, (_, result) in self.under_way.items()
        }


@pytest.fixture(params=CASES, ids=lambda case: f"{case[0]}-{'kills and outages' if case[1] else 'kills'}")
def chaos(
    request: pytest.FixtureRequest, tmp_path: Path, worker_process: Callable[..., WorkerProcess]
) -> Iterator[Chaos]:
    place, is_flaky = request.param
    seed = int(os.environ.get("CELERIAC_TEST_SEED") or random.randrange(2**32))
    print(f"CELERIAC_TEST_SEED={seed}")
    with PLACES[place](tmp_path) as urls:
        chaos = Chaos(urls, tmp_path, worker_process, random.Random(seed), is_flaky=is_flaky)
        yield chaos
        for worker in chaos.workers:
            worker.close()
        chaos.app.close()


def test_random_workflows_end_with_their_value(chaos: Chaos, request: pytest.FixtureRequest) -> None:
    tally, began, moved = Tally(chaos.app, chaos.rng), now(), now()
    tally.send()
    while tally.under_way and now() - moved < PATIENCE:
        tally.is_closing = now() - began > SECONDS
        moves = [chaos.has_moved(), tally.take_ended()]
        moved = now() if any(moves) else moved
        chaos.harm_or_heal()
        tally.send()
        time.sleep(0.02)
    chaos.heal()
    again = sum(count > 1 for count in chaos.ledger.counts().values())
    print(
        f"{request.node.name}: {tally.sent} workflows, {tally.tasks} tasks, {tally.failed} workflows were to fail,"
        f" {now() - began:.0f} s; {dict(chaos.faults)}; {again} tasks started more than once, retries included;"
        f" {chaos.repaired()} parts counted by a sweep; wrong: {len(tally.wrong)}; open: {len(tally.under_way)}"
    )
    assert not tally.open_tasks(), "these tasks have not ended"
    assert not tally.wrong
    assert not tally.recorded_again()
