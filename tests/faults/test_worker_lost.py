"""What becomes of a task whose runner is killed, by the options of the task; and when a message is acknowledged."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from celeriac import Celeriac
from celeriac.errors import WorkerLostError
from tests.support.files import Ledger, eventually
from tests.support.worker import WorkerProcess

pytestmark = [pytest.mark.faults, pytest.mark.slow]

APP = """
import os, time
from celeriac import Celeriac

app = Celeriac("lost", broker={url!r}, backend={url!r}, task_lease=3.0)

@app.task(name="work", bind=True, max_retries=2, default_retry_delay=0, {options})
def work(self, seconds):
    with open({ledger!r}, "a") as file:
        file.write(f"{{os.getpid()}} {{self.request.retries}}\\n")
    time.sleep(seconds)
    return self.request.retries

@app.task(name="tell")
def tell(request, exc, traceback):
    with open({ledger!r}, "a") as file:
        file.write(f"errback {{exc}}\\n")
"""


class Lost:
    """An app with one task, a worker of one runner, and a ledger of its starts."""

    def __init__(self, folder: Path, start: Callable[..., WorkerProcess], ledger: Ledger) -> None:
        self.folder, self._start, self.ledger = folder, start, ledger
        self.url = f"sqlite:///{folder}/lost.db"
        self.app = Celeriac("lost", broker=self.url, backend=self.url, set_as_current=False)

    def worker(self, options: str) -> WorkerProcess:
        (self.folder / "lost.py").write_text(APP.format(url=self.url, ledger=str(self.ledger.path), options=options))
        worker = self._start("lost", "-c", "1")
        worker.wait_ready()
        return worker

    def kill_runner(self, number: int) -> None:
        """Kill the runner of the n-th start."""
        eventually(lambda: len(self.starts()) >= number)
        os.kill(int(self.starts()[number - 1].split()[0]), signal.SIGKILL)

    def starts(self) -> list[str]:
        return [line for line in self.ledger.lines() if not line.startswith("errback")]


@pytest.fixture
def lost(tmp_path: Path, start_worker: Callable[..., WorkerProcess], ledger: Ledger) -> Iterator[Lost]:
    lost = Lost(tmp_path, start_worker, ledger)
    yield lost
    lost.app.close()


def test_b_ack_002_late_is_after_the_task_has_ended(lost: Lost) -> None:
    lost.worker("acks_late=True")
    result = lost.app.send_task("work", (0.7,))
    eventually(lambda: len(lost.starts()) == 1)
    assert lost.app.transport.size("celery").leased == 1
    assert result.get(timeout=20) == 0
    eventually(lambda: lost.app.transport.size("celery").leased == 0)


def test_b_ack_007_told_not_to_repeat_it_fails_with_workerlosterror(lost: Lost) -> None:
    """Differs on purpose: this is no default here, since a killed process costs a second run and not the task."""
    lost.worker("reject_on_worker_lost=False")
    result = lost.app.send_task("work", (60,), link_error=lost.app.signature("tell"))
    lost.kill_runner(1)
    with pytest.raises(WorkerLostError, match="signal 9"):
        result.get(timeout=20)
    eventually(lambda: any("errback" in line for line in lost.ledger.lines()))
    assert len(lost.starts()) == 1


def test_b_ack_008_rejected_it_is_run_again_and_no_failure_is_stored(lost: Lost) -> None:
    lost.worker("reject_on_worker_lost=True")
    result = lost.app.send_task("work", (2,))
    lost.kill_runner(1)
    eventually(lambda: len(lost.starts()) == 2)
    assert result.state == "PENDING"
    assert result.get(timeout=20) == 0


def test_b_ack_009_retried_until_no_retry_is_left(lost: Lost) -> None:
    """[B-ACK-010]: retrying wins over rejecting."""
    lost.worker("retry_on_worker_lost=True, reject_on_worker_lost=True, track_started=False")
    result = lost.app.send_task("work", (60,))
    for number in (1, 2, 3):
        lost.kill_runner(number)
    with pytest.raises(WorkerLostError, match="signal 9"):
        result.get(timeout=20)
    assert [line.split()[1] for line in lost.starts()] == ["0", "1", "2"]


def test_b_ack_009_a_retry_that_is_not_killed_succeeds(lost: Lost) -> None:
    """[B-ACK-010]: also where the message was acknowledged early, for the retry is a message of its own."""
    lost.worker("retry_on_worker_lost=True, acks_late=False")
    result = lost.app.send_task("work", (1.5,))
    lost.kill_runner(1)
    assert result.get(timeout=20) == 1


def test_b_ack_011_a_worker_that_is_killed_leaves_its_messages_to_others(lost: Lost) -> None:
    first = lost.worker("")
    result = lost.app.send_task("work", (1.0,))
    eventually(lambda: len(lost.starts()) == 1)
    first.kill_tree(signal.SIGKILL)
    lost.worker("")
    assert result.get(timeout=20) == 0
    assert len(lost.starts()) == 2


def test_b_ack_017_what_has_not_started_goes_back_at_a_warm_shutdown(lost: Lost) -> None:
    worker = lost.worker("")
    results = [lost.app.send_task("work", (0.5,)) for _ in range(4)]
    eventually(lambda: len(lost.starts()) == 1)
    assert worker.stop() == 0
    size = lost.app.transport.size("celery")
    ended = [result for result in results if result.ready()]
    assert (size.leased, size.ready + size.delayed) == (0, 4 - len(ended))
    assert len(ended) >= 1
