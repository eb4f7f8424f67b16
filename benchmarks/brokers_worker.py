"""One worker of any side, measured while it drains a full queue or answers a client.

A drain is timed from the first START executions on, so that starting up does not count, until all tasks have run and, where
that can be seen, all results are stored and all leases ended; one that lasts longer than LONGEST seconds is cut off.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping

from benchmarks.brokers_sides import Side
from benchmarks.peers.counting import executions

from tests.support import processes

__all__ = ["drained", "running"]

#: Executions after which the clock starts.
START = 200
#: Seconds after which a drain is cut off.
LONGEST = 2.5
#: Seconds between two looks at what has run; each takes some 0.2 ms from the machine that is measured.
LOOK = 0.02


@contextlib.contextmanager
def running(side: Side, env: Mapping[str, str]) -> Iterator[int]:
    """A worker; killed in the end. Yields its process id."""
    worker = subprocess.Popen(
        side.command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        yield worker.pid
    finally:
        for fact in processes.members(worker.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(fact.pid, signal.SIGKILL)
        worker.wait()


def drained(
    side: Side, count: int, broker: str, results: str, server_pid: int, is_settled: Callable[[], bool]
) -> dict[str, float]:
    """Rate, and CPU of the worker's processes and of the server in µs a task, while it runs `count` tasks.

    Args:
        is_settled: Asked, once all have run, whether all outcomes are where they belong.
    """
    with tempfile.TemporaryDirectory() as counts, running(side, side.environment(broker, results, counts)) as pid:
        first = _wait(side, counts, START, 30.0)
        began, cpu, server = time.perf_counter(), processes.cpu_seconds(pid), processes.cpu_seconds(server_pid)
        last = _wait(side, counts, count, LONGEST)
        if last == first:
            raise RuntimeError(f"the worker of {side.name} has run {first} tasks and no more")
        while last >= count and not is_settled() and time.perf_counter() - began < 2 * LONGEST:
            time.sleep(LOOK)
        wall, done = time.perf_counter() - began, last - first
        cpu, server = processes.cpu_seconds(pid) - cpu, processes.cpu_seconds(server_pid) - server
    return {"rate": done / wall, "cpu": cpu / done * 1e6, "server": server / done * 1e6}


def _wait(side: Side, counts: str, count: int, longest: float) -> int:
    """Until so many tasks have run or the time is over; returns how many have."""
    deadline = time.monotonic() + longest
    while True:
        found = executions(counts)
        if found >= count or (time.monotonic() > deadline and found):
            return found
        if time.monotonic() > deadline:
            raise RuntimeError(f"the worker of {side.name} runs nothing")
        time.sleep(LOOK)
