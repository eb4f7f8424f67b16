"""Tasks that misbehave in one way each, for the tests of bad messages, limits and fairness.

A worker imports this module (`-A tests.faults.apps_b.odd`); settings and ledger come from the environment.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import re
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

from celeriac import Celeriac, Ignore, Reject, SoftTimeLimitExceeded, Task
from tests.support.files import Ledger, eventually

app = Celeriac("odd", **json.loads(os.environ["CELERIAC_TEST_SETTINGS"]))
ledger = Ledger(os.environ["CELERIAC_TEST_LEDGER"])


def tell(what: str, key: str) -> None:
    """Write a line of the ledger: what happened to which key, when, in which process."""
    ledger.append(f"{what} {key} {time.monotonic():.3f} {os.getpid()}")


@app.task(name="echo")
def echo(value: Any = None) -> Any:
    """Nothing odd: the healthy task."""
    return value


@app.task(name="unencodable")
def unencodable() -> Any:
    return {"part": [object()]}


class StrangeError(Exception):
    """Can't be rebuilt from its arguments."""

    def __init__(self, first: str, *, second: object) -> None:
        super().__init__("strange", second)
        self.first = first


class SpeechlessError(Exception):
    """Has no text."""

    def __str__(self) -> str:
        raise RuntimeError("no text for you")

    __repr__ = __str__


@app.task(name="fail")
def fail(how: str) -> None:
    """Raise a strange exception."""
    if how == "init":
        raise StrangeError("one", second=object())
    if how == "str":
        raise SpeechlessError("x")
    if how == "local":

        class LocalError(Exception):
            pass

        raise LocalError("made here")
    if how == "cause":
        first, second = ValueError("first"), ValueError("second")
        first.__cause__, second.__cause__ = second, first
        raise first
    if how == "group":
        raise ExceptionGroup("several", [ValueError("a"), KeyError("b")])
    if how == "deep":
        sys.setrecursionlimit(1000)
        fail(how)
    if how == "surrogate":
        raise ValueError("half a pair: \ud800")
    raise AssertionError(how)


@app.task(name="leave")
def leave(how: str) -> None:
    """End the process, or try to."""
    if how == "sys.exit":
        sys.exit(7)
    if how == "interrupt":
        raise KeyboardInterrupt
    if how == "generator":
        raise GeneratorExit
    raise AssertionError(how)


@app.task(name="abuse")
def abuse(how: str) -> str:
    """Do to the process what a task should not do."""
    if how == "close stdout":
        sys.stdout.close()
        sys.stderr.flush()
    elif how == "print a lot":
        for _ in range(20_000):
            print("x" * 100)
    elif how == "fork":
        if os.fork() == 0:
            return "from the child"  # goes on as if it were the runner
        time.sleep(0.2)
    elif how == "handlers":
        if threading.current_thread() is not threading.main_thread():
            return how  # Python refuses
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGXCPU, signal.SIGUSR1):
            signal.signal(number, signal.SIG_DFL)
    elif how == "close descriptors":
        os.closerange(3, 64)
    elif how == "chdir":
        os.chdir("/")
    elif how == "recursion limit":
        sys.setrecursionlimit(200)
    elif how == "thread":
        threading.Thread(target=time.sleep, args=(30,)).start()
    return how


@app.task(name="say")
def say(value: Any) -> Any:
    """A healthy task that prints."""
    print("said", value, flush=True)
    return value


@app.task(name="end_as", bind=True)
def end_as(self: Task[..., Any], how: str, key: str = "") -> str:
    """Say the outcome."""
    if key:
        tell("start", key)
    if how == "ignore":
        raise Ignore
    if how == "reject":
        raise Reject("not here")
    if how == "requeue":
        if not self.request.delivery_info["redelivered"]:  # type: ignore[index]
            raise Reject("not now", requeue=True)
        return "second delivery"
    if how == "requeue for ever":
        raise Reject("never", requeue=True)
    if how == "retry":
        if self.request.retries < 2:
            raise self.retry(countdown=0.3, exc=ValueError("not yet"))
        return f"{self.request.id} after {self.request.retries}"
    if how == "fail":
        raise ValueError(how)
    return how


app.task(lambda how, key: tell("start", key) or exit_hard(), name="die_acked_early", acks_late=False)


def exit_hard() -> None:
    """The process is gone."""
    os._exit(9)


@app.task(name="note")
def note(*args: Any, key: str) -> list[Any]:
    """A callback."""
    tell("start", key)
    return [*args, key]


@app.task(name="on_error")
def on_error(request: Any, exc: BaseException, traceback: str, key: str) -> None:
    """An error callback of the documented form."""
    tell(f"{type(exc).__name__}", key)


# what limits are tested against


def _busy(seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


def _hold_interpreter(seconds: float) -> None:
    ctypes.PyDLL(None).usleep(int(seconds * 1e6))


def _match_for_ever(seconds: float) -> None:
    re.match(r"(a+)+$", "a" * 40 + "b")


_WAYS = {"sleep": time.sleep, "busy": _busy, "C call": _hold_interpreter, "regex": _match_for_ever}


@app.task(name="long")
def long(key: str, way: str, seconds: float) -> str:
    """Take long, in one of several ways."""
    tell("start", key)
    _WAYS[way](seconds)
    tell("end", key)
    return key


app.task(long.run, name="long_limited", time_limit=0.5)
app.task(long.run, name="long_soft", soft_time_limit=0.4)
app.task(long.run, name="long_again", time_limit=0.5, acks_on_timeout=False)


@app.task(name="long_async")
async def long_async(key: str, seconds: float) -> str:
    """Wait as a coroutine; clean up at a soft limit."""
    tell("start", key)
    try:
        await asyncio.sleep(seconds)
    except SoftTimeLimitExceeded:
        await asyncio.sleep(0.01)
        return "cleaned up"
    return key


@app.task(name="careful")
def careful(key: str, way: str, seconds: float) -> str:
    """Clean up at a soft limit."""
    tell("start", key)
    try:
        _WAYS[way](seconds)
    except SoftTimeLimitExceeded:
        tell("limited", key)
        return "cleaned up"
    return key


# fairness


@app.task(name="timed")
def timed(key: str, seconds: float) -> None:
    """Note the moments of start and end."""
    tell("start", key)
    time.sleep(seconds)
    tell("end", key)


@app.task(name="maybe_block")
def maybe_block(path: str = "") -> int:
    """Nothing; or wait until a file is there."""
    if path:
        tell("start", "blocker")
        while not Path(path).exists():
            time.sleep(0.005)
    return os.getpid()


class Watched(Task[..., Any]):
    """Its handlers tell which state they see, and do what the task's argument says."""

    def after_return(self, status: str, retval: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        """Tell the state, then crash or take long, at the first delivery only."""
        key, how = args
        tell(f"saw-{app.AsyncResult(task_id).state}", key)
        if self.request.delivery_info["redelivered"]:  # type: ignore[index]
            return
        if how == "crash":
            eventually(lambda: app.backend.get([task_id])[0])  # type: ignore[union-attr]
            os._exit(3)
        if how == "long":
            time.sleep(30)
        if how == "until":
            eventually(lambda: (Path.cwd() / "go-on").exists() or None, 20)


@app.task(name="watched", base=Watched)
def watched(key: str, how: str) -> str:
    """A healthy task with handlers."""
    tell("start", key)
    if how == "fail":
        raise ValueError(key)
    return key
