"""What a fault test needs: a client, a ledger and real workers on one broker and one result store, and what to ask them.

The fixtures `rig` and `each_rig` make one; the latter runs the test twice, with broker and store in one SQLite file (an
outcome is committed in one step) and in two (store, then continuations, then ack).
"""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from celeriac import AsyncResult, Celeriac
from celeriac.message import Action, DeadLetter, Delivery, Settlement
from celeriac.results.base import Record
from celeriac.results.open import open_store
from tests.support import processes
from tests.support.files import Ledger, eventually
from tests.support.worker import WorkerProcess

__all__ = ["Mark", "Rig"]

APP = "tests.faults.apps.jobs"
QUEUE = "celery"


class Mark(NamedTuple):
    """A line of the ledger: what happened to which key, when (monotonic), in which process."""

    what: str
    key: str
    at: float
    pid: int


class Rig:
    """One broker, one store, one ledger.

    Args:
        start: Starts a WorkerProcess that is killed at the end of the test.
        is_one_file: Whether broker and result store are one SQLite file.
    """

    def __init__(self, folder: Path, start: Callable[..., WorkerProcess], *, is_one_file: bool) -> None:
        self.folder = folder
        self.is_one_file = is_one_file
        self.broker_url = f"sqlite:///{folder / 'broker.db'}"
        self.store_url = self.broker_url if is_one_file else f"sqlite:///{folder / 'results.db'}"
        self.worker_store_url = self.store_url
        self.ledger = Ledger(folder / "ledger")
        self.settings: dict[str, Any] = {"task_lease": 3.0}
        self.env: dict[str, str] = {}
        self.app = Celeriac("client", broker=self.broker_url, backend=self.store_url, set_as_current=False)
        self._start = start
        self._nodes = 0

    # what is done to it

    def send(self, task: str, *args: Any, **options: Any) -> AsyncResult[Any]:
        """Send one task."""
        return self.app.send_task(task, args=args, **options)

    def send_work(self, keys: Sequence[str], seconds: Callable[[], float]) -> dict[str, AsyncResult[Any]]:
        """Send a task "work" for each key; returns the results by key."""
        return {key: self.send("work", key, seconds()) for key in keys}

    def worker(self, *arguments: str, ready: bool = True, env: dict[str, str] | None = None) -> WorkerProcess:
        """Start a worker with a node name of its own."""
        self._nodes += 1
        settings = {"broker_url": self.broker_url, "result_backend": self.worker_store_url, **self.settings}
        environment = {
            "CELERIAC_TEST_SETTINGS": json.dumps(settings),
            "CELERIAC_TEST_LEDGER": str(self.ledger.path),
            **self.env,
            **(env or {}),
        }
        given = ["-l", "INFO", "-n", f"w{self._nodes}@test", *arguments]
        worker = self._start(APP, *given, env=environment)
        if ready:
            worker.wait_ready()
        return worker

    @contextmanager
    def locked_broker(self) -> Iterator[None]:
        """Nobody else can write to the broker's file meanwhile."""
        with closing(sqlite3.connect(self.broker_url.removeprefix("sqlite:///"), timeout=5)) as connection:
            connection.execute("BEGIN EXCLUSIVE")
            yield
            connection.rollback()

    # what is asked of it

    def marks(self, what: str = "start") -> list[Mark]:
        """Lines of the ledger."""
        parts = [line.split() for line in self.ledger.lines()]
        return [Mark(word, key, float(at), int(pid)) for word, key, at, pid in parts if word == what]

    def starts(self) -> Counter[str]:
        """How often each key was started."""
        return Counter(mark.key for mark in self.marks())

    def wait_start(self, key: str, number: int = 1, timeout: float = 30.0) -> Mark:
        """Wait until a key is started for the n-th time."""

        def nth() -> Mark | None:
            found = [mark for mark in self.marks() if mark.key == key]
            return found[number - 1] if len(found) >= number else None

        try:
            return eventually(nth, timeout)
        except AssertionError:
            raise AssertionError(f"{key} has started {self.starts()[key]} of {number} times in {timeout} s") from None

    def records(self, results: dict[str, AsyncResult[Any]]) -> dict[str, Record | None]:
        """What is stored, by key."""
        with closing(open_store(self.store_url)) as store:
            return dict(zip(results, store.get([result.id for result in results.values()]), strict=True))

    def wait_ended(self, results: dict[str, AsyncResult[Any]], timeout: float = 30.0) -> None:
        """Wait until every one has a final state."""

        def all_ended() -> bool:
            records = self.records(results)
            missing = {key: record.state if record else "nothing stored" for key, record in records.items()
                       if record is None or not record.is_ready}  # fmt: skip
            assert not missing, f"{len(missing)} of {len(results)} have not ended: {dict(list(missing.items())[:10])}"
            return True

        eventually(all_ended, timeout, interval=0.1)

    def assert_succeeded(self, results: dict[str, AsyncResult[Any]]) -> None:
        """Every one is SUCCESS, and its value can be read."""
        wrong = {key: record and record.state for key, record in self.records(results).items()}
        wrong = {key: state for key, state in wrong.items() if state != "SUCCESS"}
        assert not wrong, f"not all tasks succeeded: {wrong}"
        for key, result in results.items():
            value = result.get(timeout=5)
            assert value[0] == key, f"the result of {key} is {value!r}"

    def assert_empty(self, timeout: float = 10.0) -> None:
        """No message remains: ready, delayed, leased or dead."""

        def is_empty() -> bool:
            size = self.app.transport.size(QUEUE)
            assert (size.ready, size.delayed, size.leased) == (0, 0, 0), f"the queue still holds {size}"
            return True

        eventually(is_empty, timeout, interval=0.05)
        assert not self.dead_letters(), f"there are dead letters: {self.dead_letters()}"

    def dead_letters(self) -> list[DeadLetter]:
        """Newest first."""
        return self.app.transport.dead_letters()

    def look(self) -> list[Delivery]:
        """Everything that waits in the queue now. It is put back as it was, but for the count of deliveries."""
        deliveries = self.app.transport.fetch([QUEUE], 10_000, 0, 5.0)
        self.app.transport.settle([Settlement(each, Action.REQUEUE) for each in deliveries])
        return deliveries


def zygote_pids(worker: WorkerProcess) -> list[int]:
    """Of the process that forks a worker's runners, the only child of its supervisor; none while there is none."""
    return [fact.pid for fact in processes.members(worker.pid) if fact.parent == worker.pid]


def wait_gone(pids: Sequence[int], timeout: float = 2.0) -> None:
    """Wait until none of these processes lives."""

    def are_gone() -> bool:
        alive = [pid for pid in pids if (fact := processes.facts(pid)) is not None and fact.state != "Z"]
        assert not alive, f"still alive: {alive}"
        return True

    eventually(are_gone, timeout)


def kill(pid: int, signum: int) -> None:
    """Send a signal to a process that may have ended by itself."""
    try:
        os.kill(pid, signum)
    except ProcessLookupError:
        return


def now() -> float:
    """The ledger's time."""
    return time.monotonic()
