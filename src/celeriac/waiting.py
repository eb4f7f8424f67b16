"""Waiting for results from coroutines and callbacks: few threads wait for many ids.

`await result.aget()` and `result.then(…)` hand their ids to the app's `ResultWaiter`. A thread collects what has been
asked for, waits for any of it with the store's `wait`, and answers each asker once.
"""

from __future__ import annotations

import asyncio
import builtins
import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from celeriac.log import get_logger
from celeriac.result_steps import Ask, Steps
from celeriac.results.base import Record, ResultStore

__all__ = ["ResultWaiter"]

logger = get_logger("celeriac.waiting")

#: Seconds a thread waits before it looks for ids that were asked for meanwhile: when no other thread can be started for
#: them, and else. A store that tells of changes is asked anew only so often.
SLICE, LONG_SLICE = 0.25, 2.0
#: Threads that wait at most: a new one is started only for ids that no waiting thread has taken yet.
MAX_THREADS = 4

Answer = list[Record] | Exception


class _Asker:
    """Somebody who wants to know when any of some ids is ready."""

    __slots__ = ("answer", "deadline", "ids", "is_done")

    def __init__(self, ids: Sequence[str], timeout: float | None, answer: Callable[[Answer], None]) -> None:
        self.ids = ids
        self.deadline = None if timeout is None else time.monotonic() + timeout
        self.answer = answer
        self.is_done = False

    def tell(self, answer: Answer) -> None:
        """Answer, once."""
        if not self.is_done:
            self.is_done = True
            self.answer(answer)


class ResultWaiter:
    """Waits for results on behalf of coroutines and callbacks."""

    def __init__(self, store: ResultStore) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._asked: list[_Asker] = []
        self._threads = 0
        self._callbacks: ThreadPoolExecutor | None = None

    async def wait_any(self, ids: Sequence[str], timeout: float | None) -> list[Record]:
        """Those of the records that are ready, once there are any; [] after `timeout` seconds."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[list[Record]] = loop.create_future()

        def answer(value: Answer) -> None:
            with contextlib.suppress(RuntimeError):  # its loop was closed: nobody waits there any more
                loop.call_soon_threadsafe(_resolve, future, value)

        asker = self._ask(ids, timeout, answer)
        try:
            return await asyncio.wait_for(future, timeout)
        except builtins.TimeoutError:
            return []
        finally:
            asker.is_done = True

    def follow(self, steps: Steps[None], on_error: Callable[[Exception], None]) -> None:
        """Go through the steps without a thread of their own; their end is run in the thread of the callbacks.

        Args:
            on_error: Called with what the store, or the steps themselves, raised.
        """
        with self._lock:
            if self._callbacks is None:
                self._callbacks = ThreadPoolExecutor(1, thread_name_prefix="celeriac-callbacks")
            run = self._callbacks.submit

        def go_on(found: Answer | None) -> None:
            try:
                if isinstance(found, Exception):
                    raise found
                ask: Ask = next(steps) if found is None else steps.send(found)
            except StopIteration:
                return
            except Exception as exc:  # user code: what a callback raised is its own error callback's
                _report(exc, on_error)
            else:
                self._ask(ask.ids, ask.timeout, answer)

        def answer(value: Answer) -> None:
            with contextlib.suppress(RuntimeError):  # the program ends: nobody is called any more
                run(go_on, value)

        run(go_on, None)

    def _ask(self, ids: Sequence[str], timeout: float | None, answer: Callable[[Answer], None]) -> _Asker:
        asker = _Asker(ids, timeout, answer)
        with self._lock:
            self._asked.append(asker)
            start = self._threads < MAX_THREADS
            self._threads += start
        if start:
            threading.Thread(target=self._run, name="celeriac-results", daemon=True).start()
        return asker

    def _run(self) -> None:
        mine: list[_Asker] = []
        while True:
            with self._lock:
                longest = SLICE if self._threads >= MAX_THREADS else LONG_SLICE
                mine = [asker for asker in (*mine, *self._asked) if not asker.is_done]
                self._asked.clear()
                if not mine:
                    self._threads -= 1
                    return
            ids = list(dict.fromkeys(task_id for asker in mine for task_id in asker.ids))
            try:
                found = {record.id: record for record in self._store.wait(ids, _slice(mine, longest))}
            except Exception as exc:  # whatever the driver says belongs to those who wait
                for asker in mine:
                    asker.tell(exc)
                continue
            _tell(mine, found)


def _slice(askers: list[_Asker], longest: float) -> float:
    """Seconds to wait: until the first deadline, and no longer than `longest`."""
    ends = [asker.deadline for asker in askers if asker.deadline is not None]
    return max(0.0, min(longest, min(ends) - time.monotonic())) if ends else longest


def _tell(askers: list[_Asker], found: dict[str, Record]) -> None:
    now = time.monotonic()
    for asker in askers:
        hits = [found[task_id] for task_id in asker.ids if task_id in found] if found else []
        if hits or (asker.deadline is not None and asker.deadline <= now):
            asker.tell(hits)


def _report(exc: Exception, on_error: Callable[[Exception], None]) -> None:
    try:
        on_error(exc)
    except Exception:  # user code
        logger.exception("the error callback of a result raised")


def _resolve(future: asyncio.Future[list[Record]], value: Answer) -> None:
    if future.done():
        return
    if isinstance(value, Exception):
        future.set_exception(value)
    else:
        future.set_result(value)
