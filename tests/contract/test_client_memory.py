"""A client that sends a very large group keeps its results in memory, and nothing else of it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.support.redis_server import RedisServer

ROOT = Path(__file__).resolve().parents[2]
#: The peak of a process's memory is read from the kernel: `getrusage` would tell the parent's, if that is larger.
PROGRAM = """
import sys
from celeriac import Celeriac, group

def peak():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM:"))

app = Celeriac("memory", broker=sys.argv[1], backend=sys.argv[1])
noop = app.task(lambda: None, name="noop")
group(noop.s() for _ in range(1000))()
before = peak()
result = group(noop.s() for _ in range(100_000))()
print(len(result.results), peak() - before)
"""


def test_a_group_of_100_000_takes_less_than_150_megabytes(tmp_path: Path) -> None:
    with RedisServer(tmp_path, options=["--appendonly", "no"]) as server:
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, server.url()],
            env={**os.environ, "PYTHONPATH": str(ROOT / "src")}, check=True, capture_output=True, text=True,
        )  # fmt: skip
        results, grown = map(int, done.stdout.split())
        assert results == 100_000
        assert server.call("LLEN", "celery") == 101_000
        assert grown < 150_000, f"{grown} KB"
