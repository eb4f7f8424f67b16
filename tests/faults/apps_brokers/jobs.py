"""The tasks of the fault tests of network brokers, run by real workers.

Broker, store and settings come from the environment, as the harness sets it. Every start and end of a task is a line of the
ledger, on disk before the task goes on.
"""

from __future__ import annotations

import json
import os
import time
from typing import Any

from celeriac import Call, Celeriac, Task
from tests.support.files import Ledger

app = Celeriac("jobs", **json.loads(os.environ["CELERIAC_TEST_SETTINGS"]))
ledger = Ledger(os.environ["CELERIAC_TEST_LEDGER"])


def _tell(what: str, key: str) -> float:
    moment = time.monotonic()
    ledger.append(f"{what} {key} {moment:.6f} {os.getpid()}")
    return moment


@app.task(name="work", bind=True)
def work(self: Task[..., Any], key: str, seconds: float) -> list[Any]:
    """Work for a while; returns its key, the node that did it, and a value that no other execution returns."""
    moment = _tell("start", key)
    if seconds:
        time.sleep(seconds)
    _tell("end", key)
    return [key, self.request.hostname or "", f"{os.getpid()}/{moment:.6f}"]


@app.task(name="follow")
def follow(value: list[Any]) -> str:
    """The callback of `work`."""
    _tell("follow", value[0])
    return str(value[0])


@app.task(name="batch_work", batch=10, batch_wait=0.3)
def batch_work(calls: list[Call[[str]]]) -> list[int]:
    """Note each call; the first run of a batch does not end by itself."""
    for call in calls:
        _tell("start", call.args[0])
    if len(calls) == 10:
        time.sleep(600)
    return [len(calls)] * len(calls)


@app.task(name="due")
def due(moment: float) -> None:
    """A task with an ETA: notes how late it started. Not synced to disk, as thousands of them may be due a second."""
    lateness = time.time() - moment
    file = os.open(os.environ["CELERIAC_TEST_LEDGER"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.write(file, f"late due {lateness:.6f} {os.getpid()}\n".encode())
    os.close(file)


@app.task(name="endless_once")
def endless_once(key: str) -> str:
    """Does not end by itself the first time."""
    _tell("start", key)
    if sum(line.startswith(f"start {key} ") for line in ledger.lines()) == 1:
        time.sleep(3600)
    return key


@app.task(name="acked_early", acks_late=False)
def acked_early(key: str, until: str) -> str:
    """Ends once `until` has started a second time."""
    _tell("start", key)
    while sum(line.startswith(f"start {until} ") for line in ledger.lines()) < 2:
        time.sleep(0.02)
    return key
