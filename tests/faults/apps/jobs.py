"""The tasks that the fault tests kill, freeze and starve.

A worker imports this module (`-A tests.faults.apps.jobs`); broker, store and settings come from the environment, as the
rig sets it. Every start and end is a line of the ledger, on disk before the task goes on, so that the test knows what ran
even if nobody lived to tell.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import signal
import threading
import time
from typing import Any

from celeriac import Call, Celeriac, Task
from tests.support.files import Ledger

app = Celeriac("jobs", **json.loads(os.environ["CELERIAC_TEST_SETTINGS"]))
ledger = Ledger(os.environ["CELERIAC_TEST_LEDGER"])
if os.environ.get("CELERIAC_TEST_THREAD"):
    threading.Thread(target=threading.Event().wait, daemon=True).start()


def _tell(what: str, key: str) -> None:
    ledger.append(f"{what} {key} {time.monotonic():.3f} {os.getpid()}")


@app.task(name="work", bind=True)
def work(self: Task[..., Any], key: str, seconds: float) -> list[str]:
    """Work for a while; returns its key and the node that did it."""
    _tell("start", key)
    time.sleep(seconds)
    _tell("end", key)
    return [key, self.request.hostname or ""]


@app.task(name="note")
def note(value: Any, key: str) -> str:
    """Note that it ran: as a callback, or on its own."""
    _tell("start", key)
    return key


@app.task(name="note_failure")
def note_failure(task_id: str) -> None:
    """An error callback of the kind that is a task of its own."""
    _tell("start", "errback")


def _kill_own_process(key: str, seconds: float) -> None:
    _tell("start", key)
    time.sleep(seconds)
    os.kill(os.getpid(), signal.SIGKILL)


app.task(_kill_own_process, name="kill_own_process")
app.task(_kill_own_process, name="kill_own_process_once", reject_on_worker_lost=False)
app.task(_kill_own_process, name="kill_own_process_acked_early", acks_late=False)


@app.task(name="segfault")
def segfault(key: str) -> None:
    """Read address zero."""
    _tell("start", key)
    ctypes.string_at(0)


@app.task(name="eat_memory")
def eat_memory(key: str, megabytes: int) -> None:
    """Take memory and keep it."""
    _tell("start", key)
    _hoard = b"x" * (megabytes << 20)
    time.sleep(60)


@app.task(name="leave_child_and_die")
def leave_child_and_die(key: str, seconds: float) -> None:
    """Die while a child process holds copies of all descriptors."""
    _tell("start", key)
    if os.fork() == 0:
        time.sleep(seconds)
        os._exit(0)
    os.kill(os.getpid(), signal.SIGKILL)


@app.task(name="hold_interpreter")
def hold_interpreter(key: str, seconds: int) -> None:
    """Sleep in C without letting any other Python code of this process run."""
    _tell("start", key)
    ctypes.PyDLL(None).sleep(seconds)


@app.task(name="work_acked_early", acks_late=False)
def work_acked_early(key: str, seconds: float) -> str:
    """Work that must not be done twice."""
    _tell("start", key)
    time.sleep(seconds)
    return key


@app.task(name="meet")
def meet(key: str, number: int) -> str:
    """Wait until so many tasks have started."""
    _tell("start", key)
    while len(ledger.lines()) < number:
        time.sleep(0.02)
    return key


@app.task(name="meet_async")
async def meet_async(key: str, number: int) -> int:
    """The same in a coroutine; returns which loop it was on."""
    _tell("start", key)
    while len(ledger.lines()) < number:  # noqa: ASYNC110 -- another process is awaited
        await asyncio.sleep(0.02)
    return id(asyncio.get_running_loop())


@app.task(name="fail_async")
async def fail_async(text: str) -> None:
    """Fail after having waited."""
    await asyncio.sleep(0)
    raise ValueError(text)


@app.task(name="cancel_async")
async def cancel_async() -> None:
    """Be cancelled by oneself."""
    raise asyncio.CancelledError


@app.task(name="batch_work", batch=20, batch_wait=0.3, time_limit=600)
def batch_work(calls: list[Call[[str]]]) -> list[list[object]]:
    """Note each call, work while there is a file "hold" beside the ledger, and die if one is a killer."""
    for call in calls:
        _tell("start", call.args[0])
    while (ledger.path.parent / "hold").exists():
        time.sleep(0.02)
    if any(call.args[0].startswith("killer") for call in calls):
        os.kill(os.getpid(), signal.SIGKILL)
    for call in calls:
        _tell("end", call.args[0])
    return [[call.args[0], len(calls)] for call in calls]


@app.task(name="grow_and_die", bind=True)
def grow_and_die(self: Task[..., Any], key: str, count: int) -> list[str]:
    """Add parts to its chord, and die before the end the first time."""
    _tell("start", key)
    for number in range(count):
        self.add_to_chord(app.signature("work", (f"{key}-{number}", 0)))
    if self.request.deliveries == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return [key, ""]


@app.task(name="keys_of")
def keys_of(values: list[list[str]]) -> list[str]:
    """The body of a chord: the keys of what has run."""
    _tell("start", "body")
    return [key for key, _ in values]
