"""Fixtures of the fault tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults.apps.rig import Rig
from tests.support.worker import WorkerProcess


@pytest.fixture
def start_worker(worker_process: Callable[..., WorkerProcess]) -> Callable[..., WorkerProcess]:
    """Starts the real worker: `start_worker("app.module", "-c", "2", env=…)`."""
    return worker_process


@pytest.fixture
def rig(tmp_path: Path, start_worker: Callable[..., WorkerProcess]) -> Iterator[Rig]:
    """Broker and result store in one file."""
    rig = Rig(tmp_path, start_worker, is_one_file=True)
    yield rig
    rig.app.close()


@pytest.fixture(params=["one file", "two files"])
def each_rig(
    request: pytest.FixtureRequest, tmp_path: Path, start_worker: Callable[..., WorkerProcess]
) -> Iterator[Rig]:
    """Broker and result store in one file, then in two."""
    rig = Rig(tmp_path, start_worker, is_one_file=request.param == "one file")
    yield rig
    rig.app.close()
