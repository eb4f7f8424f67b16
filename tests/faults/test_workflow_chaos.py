"""Random workflows under chaos: every task of every one ends, every body is recorded once, every value is right.

Runners and whole workers are killed with -9, a tenth of what the client sends is sent twice, replies of broker and store get
lost, the store is away now and then, tasks retry and fail. Here 30 workflows a place; CELERIAC_TEST_SOAK=1 makes it 2,000 on
each of all places (CELERIAC_TEST_WORKFLOWS says how many; add `-o faulthandler_timeout=1500`).
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
from celeriac.errors import OperationalError
from celeriac.message import Message
from tests.faults.apps.rig import kill, now
from tests.support.files import Ledger
from tests.support.flaky_control import FlakyControl
from tests.support.postgres_server import PostgresServer, open_folder
from tests.support.rabbitmq_server import RabbitMQServer
from tests.support.redis_server import RedisServer
from tests.support.worker import WorkerProcess
from tests.support.workflows import Failed, compose, evaluate, leaves, random_plan

pytestmark = [pytest.mark.faults, pytest.mark.slow]

IS_SOAK = bool(os.environ.get("CELERIAC_TEST_SOAK"))
WORKFLOWS = int(os.environ.get("CELERIAC_TEST_WORKFLOWS", 2000 if IS_SOAK else 30))
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
        yield broker.url(), store.url()


@contextmanager
def _postgres(folder: Path) -> Iterator[tuple[str, str]]:
    with open_folder() as place, PostgresServer(place / "server") as server:
        yield server.url, f"db+{server.url}"


PLACES: dict[str, Callable[[Path], Any]] = {"sqlite": _sqlite, "redis": _redis}
if IS_SOAK:
    PLACES |= {"rabbitmq": _rabbitmq, "postgres": _postgres}


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
        self.workers = [self.worker(), self.worker()]
        self._send_some_twice()

    def worker(self) -> WorkerProcess:
        self._nodes += 1
        name = f"w{self._nodes}@test"
        return self._start("tests.faults.apps.workflows", "-c", "2", "-n", name, "-l", "WARNING", env=self.env)

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
        self.faults[what] += 1
        number = self.rng.randrange(len(self.workers))
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
        self.control.heal()


@pytest.fixture(params=PLACES)
def urls(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, str]]:
    with PLACES[request.param](tmp_path) as found:
        yield found


@pytest.mark.parametrize("is_flaky", [False, True], ids=["kills", "kills and outages"])
def test_random_workflows_end_with_their_value(
    urls: tuple[str, str],
    is_flaky: bool,
    tmp_path: Path,
    worker_process: Callable[..., WorkerProcess],
    request: pytest.FixtureRequest,
) -> None:
    seed = int(os.environ.get("CELERIAC_TEST_SEED") or random.randrange(2**32))
    print(f"CELERIAC_TEST_SEED={seed}")
    rng = random.Random(seed)
    chaos = Chaos(urls, tmp_path, worker_process, rng, is_flaky=is_flaky)
    began, sent, tasks, failed = now(), 0, 0, 0
    open_ones: dict[int, Any] = {}
    wrong: list[Any] = []
    progress = seen = now()
    while sent < WORKFLOWS or open_ones:
        while sent < WORKFLOWS and len(open_ones) < WINDOW:
            plan = random_plan(rng)
            open_ones[sent] = (plan, compose(chaos.app, plan).apply_async((0,)))
            sent += 1
        if chaos.has_moved():
            seen = now()
        ended = _ended(chaos.app, open_ones)
        for number in ended:
            plan, result = open_ones.pop(number)
            tasks += sum(1 for _ in leaves(result))
            failed += _check(plan, result, number, wrong)
        if ended:
            progress = now()
        chaos.harm_or_heal()
        if now() - max(seen, progress) > PATIENCE:
            break
        time.sleep(0.02)
    chaos.heal()
    took = now() - began
    again = sum(count > 1 for count in chaos.ledger.counts().values())
    print(
        f"{request.node.name}: {sent} workflows, {tasks} tasks, {failed} of them to fail, in {took:.0f} s; {dict(chaos.faults)};"
        f" {again} tasks started more than once; wrong: {len(wrong)}; open: {len(open_ones)}"
    )
    for each in wrong:
        print(
            "WRONG",
            *each[:1],
            *each[2:3],
            [leaf for leaf in (each[3] if len(each) > 3 and isinstance(each[3], list) else []) if leaf[1] != "SUCCESS"][
                :3
            ],
        )
    for number, (_, result) in open_ones.items():
        print("OPEN", number, [(leaf.id, leaf.state, leaf.name) for leaf in leaves(result) if not leaf.ready()][:8])
    stuck = {
        number: (plan, [(leaf.id, leaf.state) for leaf in leaves(result)])
        for number, (plan, result) in open_ones.items()
    }
    assert not stuck, f"these have not ended: {stuck}"
    assert not wrong, wrong
    for worker in chaos.workers:
        worker.stop()


def _ended(app: Celeriac, open_ones: dict[int, Any]) -> list[int]:
    """Those of which every task has ended."""
    ids = {number: [leaf.id for leaf in leaves(result)] for number, (_, result) in open_ones.items()}
    flat = [task_id for each in ids.values() for task_id in each]
    try:
        found = [record for start in range(0, len(flat), 500) for record in app.backend.get(flat[start : start + 500])]
    except OperationalError:
        return []
    ready = {record.id for record in found if record is not None and record.is_ready}
    return [number for number, each in ids.items() if ready.issuperset(each)]


def _check(plan: Any, result: Any, number: int, wrong: list[Any]) -> int:
    """Note what is wrong with a result; returns whether it was to fail."""
    try:
        expected = evaluate(plan, 0)
    except Failed:
        try:
            wrong.append((number, "did not fail", plan, result.get(timeout=10)))
        except Exception:
            return 1
        return 1
    try:
        value = result.get(timeout=10)
    except Exception as exc:
        wrong.append(
            (number, plan, repr(exc), [(leaf.id, leaf.state, repr(leaf.result)[:200]) for leaf in leaves(result)])
        )
        return 0
    if value != expected:
        wrong.append((number, plan, value, expected))
    return 0
