"""Fixtures for all tests. The enablers themselves are in tests/support."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest

from tests.support.clock import ManualClock
from tests.support.files import Ledger
from tests.support.worker import WorkerProcess

# Asserts of the public suites show their values, as those of test modules do; before anything imports these suites.
pytest.register_assert_rewrite("celeriac.testing")

#: The workers that a test has started, so that its report can show what they wrote.
_STARTED = pytest.StashKey[list[WorkerProcess]]()


@pytest.fixture
def clock() -> ManualClock:
    """A clock that the test moves."""
    return ManualClock()


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    """A file that tasks in any process append to."""
    return Ledger(tmp_path / "ledger")


@pytest.fixture
def worker_process(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[..., WorkerProcess]]:
    """Starts workers: `worker_process("tasks", "-c", "2")` takes what WorkerProcess takes; `cwd` is `tmp_path` if not given.

    All are killed at the end of the test. When it fails, their output is in the report.
    """
    started = request.node.stash.setdefault(_STARTED, [])

    def start(
        app: str = "", *arguments: str, cwd: str | os.PathLike[str] = tmp_path, **kwargs: object
    ) -> WorkerProcess:
        worker = WorkerProcess(app, *arguments, cwd=cwd, **kwargs)  # type: ignore[arg-type]
        started.append(worker)
        return worker

    yield start
    for worker in started:
        worker.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show the output of the test's workers when it fails."""
    report = yield
    if report.failed:
        for worker in item.stash.get(_STARTED, []):
            report.sections.append((f"output of {' '.join(worker.command[1:])}", worker.output))
    return report
