"""Fixtures of the fault tests."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults.apps import worker_script
from tests.faults.apps.rig import Rig
from tests.support.worker import WorkerProcess


@pytest.fixture
def start_worker(worker_process: Callable[..., WorkerProcess]) -> Callable[..., WorkerProcess]:
    """Starts the real worker."""
    if importlib.util.find_spec("celeriac.cli.worker") is not None:
        return worker_process

    def start(app: str, *arguments: str, env: dict[str, str]) -> WorkerProcess:
        return worker_process(command=[sys.executable, worker_script.__file__, app, *arguments], env=env)

    return start


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
