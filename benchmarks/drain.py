"""Draining a full queue: how fast two processes run no-ops until every result is there.

The queue is filled beforehand. The clock runs from the first result that is seen to the last one, so start-up does not count;
a drain that a slow disk makes last is cut off after LONGEST seconds.
CPU is that of all processes of the worker.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.measure import PYTHON, ROOT, environment, run_json

from tests.support import processes

__all__ = ["celeriac_drain", "huey_drain"]

#: Seconds after which a drain is cut off and its rate taken.
LONGEST = 15.0
#: Number of stored results. Both tables only grow here, so the highest number is the count, and asking costs nothing.
OUR_RESULTS = "SELECT max(id) FROM celery_taskmeta"
HUEY_RESULTS = "SELECT max(rowid) FROM kv"


def celeriac_drain(folder: Path, count: int, synchronous: str) -> dict[str, float]:
    """Our worker with two runners."""
    path = folder / "ours.db"
    url = f"sqlite:///{path}?synchronous={synchronous}"
    env = environment(BENCH_URL=url)
    fill = f"from benchmarks.demo import app, noop; app.publish_many([noop.s() for _ in range({count})])"
    subprocess.run([*PYTHON, "-c", fill], env=env, check=True)
    command = [*PYTHON, "-m", "celeriac", "-A", "benchmarks.demo", "worker", "-c", "2", "--loglevel", "ERROR"]
    return _drain(command, env, lambda: sqlite3.connect(path), OUR_RESULTS, count)


def huey_drain(python: Path, folder: Path, count: int, synchronous: str) -> dict[str, float]:
    """Huey's consumer with two processes."""
    path = folder / "huey.db"
    env = huey_environment(path, synchronous)
    run_json([python, ROOT / "benchmarks/huey_peer.py", count], huey_environment(path, "OFF"))
    with sqlite3.connect(path) as connection:
        count = connection.execute("SELECT count(*) FROM task").fetchone()[0]
    command = [python.parent / "huey_consumer", "huey_peer.huey", "-w", "2", "-k", "process", "-q"]
    return _drain(command, env, lambda: sqlite3.connect(path), HUEY_RESULTS, count)


def huey_environment(path: Path, synchronous: str) -> dict[str, str]:
    """Where Huey finds its app and its file."""
    env = {**os.environ, "BENCH_FILE": str(path), "BENCH_SYNCHRONOUS": synchronous}
    return {**env, "PYTHONPATH": str(ROOT / "benchmarks")}


def _drain(
    command: Sequence[Any], env: Mapping[str, str], connect: Callable[[], sqlite3.Connection], sql: str, count: int
) -> dict[str, float]:
    worker = subprocess.Popen(
        [str(part) for part in command], env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip
    connection = connect()
    connection.execute("PRAGMA busy_timeout = 10000")
    try:
        first = _wait(worker, connection, sql, 1)
        started, cpu = time.perf_counter(), processes.cpu_seconds(worker.pid)
        last = _wait(worker, connection, sql, count, LONGEST)
        wall, cpu = time.perf_counter() - started, processes.cpu_seconds(worker.pid) - cpu
    finally:
        connection.close()
        worker.send_signal(signal.SIGTERM)
        try:
            worker.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(worker.pid, signal.SIGKILL)
    return {"rate": (last - first) / wall, "cpu": cpu / (last - first) * 1e6}


def _wait(
    worker: subprocess.Popen[bytes], connection: sqlite3.Connection, sql: str, count: int, longest: float = 60.0
) -> int:
    """Until there are so many results or the time is over; returns how many there are."""
    deadline = time.monotonic() + longest
    while True:
        found = connection.execute(sql).fetchone()[0] or 0
        if found >= count or time.monotonic() > deadline:
            return int(found)
        if worker.poll() is not None:
            raise RuntimeError(f"{worker.args} has ended with {worker.returncode}")
        time.sleep(0.005)
