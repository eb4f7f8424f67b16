"""Programs written for Celery, unchanged, under `python -m celeriac.as_celery`: a script, its worker, and its tests."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from celeriac import as_celery
from celeriac.as_celery import __main__ as command
from tests.support.command import environment
from tests.support.worker import WorkerProcess

#: As its documentation teaches it. Nothing in here knows of celeriac.
TASKS = """
import sys

from celery import Celery, Task, chain, chord, current_task, group, shared_task, signature
from celery.exceptions import Ignore, MaxRetriesExceededError, Reject
from celery.result import AsyncResult
from celery.signals import task_postrun, task_prerun, worker_process_init
from celery.utils.log import get_task_logger
from kombu import Exchange, Queue

logger = get_task_logger(__name__)

app = Celery("tasks", broker="sqlite:///shop.db", backend="sqlite:///shop.db")
app.conf.update(
    task_queues=[
        Queue("celery", Exchange("celery"), routing_key="celery"),
        Queue("slow", Exchange("slow"), routing_key="slow"),
    ],
    task_routes={"tasks.tsum": {"queue": "slow"}},
    task_serializer="json",
    timezone="Europe/Paris",
)


class Counting(Task):
    count = 0

    def before_start(self, task_id, args, kwargs):
        self.count += 1


@task_prerun.connect
def note(sender=None, task_id=None, task=None, **kwargs):
    logger.warning("about to run %s", sender.name)


@app.task(base=Counting, bind=True)
def add(self, x, y):
    assert self.count >= 1
    return x + y


@shared_task
def tsum(numbers):
    return sum(numbers)


@app.task(bind=True, max_retries=2, default_retry_delay=0)
def flaky(self):
    if self.request.retries < 2:
        raise self.retry(exc=ConnectionError("not yet"))
    return self.request.retries


@shared_task(bind=True)
def facts(self):
    return [type(self.app).__name__, self.acks_late, current_task.name, self.app.conf.timezone]


@app.task
def ignored():
    raise Ignore()


@app.task(bind=True, max_retries=0)
def hopeless(self):
    raise self.retry(countdown=0)


if __name__ == "__main__":
    print("add", add.delay(2, 3).get(timeout=30))
    print("chain", (add.s(2, 2) | add.s(4)).apply_async().get(timeout=30))
    print("group", group(add.s(i, i) for i in range(3))().get(timeout=30))
    print("chord", chord([add.s(i, i) for i in range(3)])(tsum.s()).get(timeout=30))
    print("signature", signature("tasks.add", args=(1, 1)).delay().get(timeout=30))
    print("flaky", flaky.delay().get(timeout=30))
    print("facts", facts.delay().get(timeout=30))
    try:
        hopeless.delay().get(timeout=30)
    except MaxRetriesExceededError as exc:
        print("hopeless", type(exc).__module__, AsyncResult.__module__)
    print("arguments", sys.argv[1:], "celery.schedules" in sys.modules)
"""

SAYS = """\
add 5
chain 8
group [0, 2, 4]
chord 6
signature 2
flaky 2
facts ['Celery', False, 'tasks.facts', 'Europe/Paris']
hopeless celeriac.errors celeriac.result
arguments ['--fast'] False
"""

CONFTEST = """
import pytest

pytest_plugins = ("celery.contrib.pytest",)


@pytest.fixture(scope="session")
def celery_config():
    return {"task_track_started": True}
"""

SUITE = """
import pytest
from celery import Celery, shared_task
from celery.contrib.testing.worker import start_worker


@shared_task
def double(x):
    return x * 2


def test_app(celery_app):
    assert isinstance(celery_app, Celery)
    assert celery_app.conf.task_track_started and not celery_app.conf.task_acks_late


@pytest.mark.celery(result_extended=True)
def test_worker(celery_app, celery_worker):
    @celery_app.task
    def triple(x):
        return x * 3

    celery_worker.reload()
    assert double.delay(4).get(timeout=20) == 8
    assert triple.delay(4).get(timeout=20) == 12
    assert celery_app.conf.result_extended


def test_a_worker_of_its_own(celery_app):
    with start_worker(celery_app, perform_ping_check=False):
        assert double.delay(5).get(timeout=20) == 10
"""


def under_the_hook(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "celeriac.as_celery", *arguments],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=55,
        check=False,
    )


def test_a_program_for_celery_and_its_worker_run_unchanged(
    worker_process: Callable[..., WorkerProcess], tmp_path: Path
) -> None:
    """The worker's zygote and runners import the program, so they have the hook as well."""
    (tmp_path / "tasks.py").write_text(TASKS)
    start = [sys.executable, "-m", "celeriac.as_celery", "worker", "-A", "tasks", "-c", "1", "-l", "info"]
    worker = worker_process(command=start)
    worker.wait_ready()
    done = under_the_hook(tmp_path, "tasks.py", "--fast")
    assert done.returncode == 0, done.stderr
    assert done.stdout == SAYS
    worker.wait_output("about to run tasks.add")
    assert worker.stop() == 0
    assert "celery: this version" not in worker.output


def test_the_command_line_is_there_as_the_module_celery(tmp_path: Path) -> None:
    (tmp_path / "tasks.py").write_text(TASKS)
    done = under_the_hook(tmp_path, "-m", "celery", "report", "-A", "tasks")
    assert done.returncode == 0, done.stderr
    assert "app        tasks" in done.stdout


def test_celerys_fixtures_for_pytest_work_unchanged(tmp_path: Path) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = --strict-markers\n")
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_shop.py").write_text(SUITE)
    done = under_the_hook(tmp_path, "-m", "pytest", "-q", "-p", "no:cacheprovider")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 passed" in done.stdout


def test_the_names_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    try:
        assert command.main(["--names"]) == 0
    finally:
        as_celery.uninstall()
    lines = capsys.readouterr().out.splitlines()
    assert any(line.split()[:3] == ["celery.signals", "34", "there"] for line in lines)
    assert lines[-1].endswith("0 are broken.")


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["missing.py"], 2, "there is no script 'missing.py'"),
        (["-m"], 2, "Usage: python -m celeriac.as_celery"),
        ([], 0, "Usage: python -m celeriac.as_celery"),
        (["wroker", "-A", "tasks"], 2, "No such command 'wroker'. Did you mean 'worker'?"),
    ],
)
def test_a_wrong_use_is_told_in_a_line(
    arguments: list[str], code: int, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        assert command.main(arguments) == code
    finally:
        as_celery.uninstall()
    out = capsys.readouterr()
    assert says in out.out + out.err
