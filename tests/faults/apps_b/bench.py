"""The bench of the tests about messages, limits and fairness: a rig whose workers run `apps_b.odd`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from celeriac import AsyncResult
from celeriac.message import DeadLetter, Message
from tests.faults.apps.rig import Rig
from tests.support.files import eventually
from tests.support.worker import WorkerProcess

__all__ = ["Bench", "open_bench"]

APP = "tests.faults.apps_b.odd"


class Bench(Rig):
    """A rig with other tasks."""

    def __init__(self, folder: Path, start: Callable[..., WorkerProcess]) -> None:
        def start_odd(_app: str, *arguments: str, env: dict[str, str]) -> WorkerProcess:
            return start(APP, *arguments, env=env)

        super().__init__(folder, start_odd, is_one_file=True)

    def publish(self, message: Message) -> AsyncResult[Any]:
        """Hand a message to the broker as it is."""
        self.app.transport.publish([message])
        return self.app.AsyncResult(message.id)

    def wait_dead(self, task_id: str, timeout: float = 20.0) -> DeadLetter:
        """Wait until a task's message is a dead letter."""
        return eventually(lambda: self.app.transport.dead_letter(task_id), timeout)

    def assert_healthy(self) -> None:
        """A healthy task succeeds."""
        assert self.send("echo", "healthy").get(timeout=20) == "healthy"


@contextmanager
def open_bench(folder: Path) -> Iterator[Bench]:
    """A bench outside of the fixtures, for several tests that share one worker."""
    started: list[WorkerProcess] = []

    def start(app: str, *arguments: str, env: dict[str, str]) -> WorkerProcess:
        worker = WorkerProcess(app, *arguments, cwd=folder, env=env)
        started.append(worker)
        return worker

    bench = Bench(folder, start)
    try:
        yield bench
    finally:
        for worker in started:
            worker.close()
        bench.app.close()
