"""The examples do what their first lines say."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.command import CommandLine, environment
from tests.support.worker import WorkerProcess

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for path in EXAMPLES.glob("*.py"):
        shutil.copy(path, tmp_path)
    return tmp_path


def run(folder: Path, script: str) -> str:
    done = subprocess.run(
        [sys.executable, script], cwd=folder, env=environment(), capture_output=True, text=True, timeout=50, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_tasks(folder: Path, worker_process: Callable[..., WorkerProcess]) -> None:
    worker_process("tasks", "-c", "1").wait_ready()
    assert run(folder, "tasks.py") == "5\n"


def test_embedded(folder: Path) -> None:
    digest = hashlib.sha256((folder / "embedded.py").read_bytes()).hexdigest()
    assert run(folder, "embedded.py").split()[0] == digest


def test_retries(tmp_path: Path, worker_process: Callable[..., WorkerProcess]) -> None:
    celeriac = CommandLine(tmp_path)
    shutil.copy(EXAMPLES / "retries.py", tmp_path)
    worker = worker_process("retries", "-c", "1", "-l", "info")
    worker.wait_ready()
    task_id = celeriac("-A", "retries", "call", "retries.fetch", "-a", '["file:///no/such/file"]').out.strip()
    worker.wait_output(f"retries.fetch.*{task_id}|{task_id}.*[Rr]etry")
    assert worker.stop() == 0


def test_error_reports(folder: Path) -> None:
    assert run(folder, "error_reports.py") == "shop.divide(1, 0) failed: ZeroDivisionError('division by zero')\n"
