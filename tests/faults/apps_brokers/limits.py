"""Tasks with limits that hold for all workers together, and what marks in a ledger say of how these were kept."""

from __future__ import annotations

import bisect
import os
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from celeriac import Celeriac
from tests.faults.apps_brokers.rig import Mark

__all__ = ["AT_ONCE", "RATE", "define", "most_at_once", "most_in_a_second"]

#: Starts per second of `paced`, on all workers together.
RATE = 100
#: Executions of `keyed` at the same time, for each key.
AT_ONCE = 2


def define(app: Celeriac) -> None:
    """Register the tasks: in the workers' app, and in the client's, which tells of each call which key it has."""
    app.task(_paced, name="paced", rate_limit=f"{RATE}/s", rate_limit_scope="cluster", ignore_result=True)
    options: dict[str, Any] = {"max_concurrency": AT_ONCE, "concurrency_key": "{key}"}
    app.task(_keyed, name="keyed", **options)
    # What runs when its worker is killed does not run again, so that nothing but the lease frees its slot.
    app.task(_keyed, name="keyed_once", acks_late=False, reject_on_worker_lost=False, **options)


def _paced(key: str) -> None:
    _tell("start", key)


def _keyed(key: str, name: str, seconds: float) -> str:
    _tell("start", f"{key}/{name}")
    time.sleep(seconds)
    _tell("end", f"{key}/{name}")
    return name


def _tell(what: str, key: str) -> None:
    """A line of the ledger. Not synced to disk: a disk that is slow must not look like a limit that does not hold."""
    file = os.open(os.environ["CELERIAC_TEST_LEDGER"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.write(file, f"{what} {key} {time.monotonic():.6f} {os.getpid()}\n".encode())
    os.close(file)


def most_in_a_second(moments: Sequence[float]) -> int:
    """Largest number of moments (sorted) in any second."""
    return max(bisect.bisect_left(moments, at + 1.0) - number for number, at in enumerate(moments))


def most_at_once(starts: Iterable[Mark], ends: Iterable[Mark], killed: Mapping[int, float]) -> Counter[str]:
    """How many executions of each key ran at once, at most. Marks have keys of the form `key/name`.

    Args:
        killed: Moments at which processes were killed, and what they ran ended.
    """
    over = {(mark.key, mark.pid): mark.at for mark in ends}
    changes: list[tuple[float, int, str]] = []
    for mark in starts:
        key = mark.key.partition("/")[0]
        changes.append((mark.at, 1, key))
        end = over.get((mark.key, mark.pid), killed.get(mark.pid))
        assert end is not None, f"{mark} has not ended"
        changes.append((end, -1, key))
    now: Counter[str] = Counter()
    most: Counter[str] = Counter()
    for _, change, key in sorted(changes):
        now[key] += change
        most[key] = max(most[key], now[key])
    return most
