"""Waiting for results from coroutines: few threads wait for many ids.

`await result.aget()` hands its id to the app's `ResultWaiter`. A thread collects what has been asked for, waits for any
of it with the store's `wait`, and answers in the asker's event loop.
"""

from __future__ import annotations

import asyncio
import builtins
import contextlib
import threading
from typing import Any

from celeriac.errors import TimeoutError
from celeriac.results.base import Record, ResultStore

__all__ = ["ResultWaiter"]

#: Seconds a thread waits before it looks for ids that were asked for meanwhile.
SLICE = 0.25
#: Threads that wait at most: a new one is started only for ids that no waiting thread has taken yet.
MAX_THREADS = 4

_Asker = tuple[asyncio.AbstractEventLoop, "asyncio.Future[Record]"]


class ResultWaiter:
    """Waits for results on behalf of coroutines."""

    def __init__(self, store: ResultStore) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._asked: dict[str, list[_Asker]] = {}
        self._threads = 0

    async def wait(self, id: str, timeout: float | None) -> Record:
        """The record of this id, once it is ready.

        Raises:
            TimeoutError: Not ready after `timeout` seconds.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Record] = loop.create_future()
        with self._lock:
            self._asked.setdefault(id, []).append((loop, future))
            start = self._threads < MAX_THREADS
            self._threads += start
        if start:
            threading.Thread(target=self._run, name="celeriac-results", daemon=True).start()
        try:
            return await asyncio.wait_for(future, timeout)
        except builtins.TimeoutError:
            raise TimeoutError(f"Task {id} has no result after {timeout} seconds.") from None

    def _run(self) -> None:
        mine: dict[str, list[_Asker]] = {}
        while True:
            with self._lock:
                for id, askers in self._asked.items():
                    mine.setdefault(id, []).extend(askers)
                self._asked.clear()
                mine = {id: askers for id, askers in mine.items() if any(not f.cancelled() for _, f in askers)}
                if not mine:
                    self._threads -= 1
                    return
            try:
                found = self._store.wait(list(mine), SLICE)
            except Exception as exc:  # whatever the driver says belongs to those who wait
                _answer(mine, list(mine), exc)
                continue
            for record in found:
                _answer(mine, [record.id], record)


def _answer(mine: dict[str, list[_Asker]], ids: list[str], value: Record | Exception) -> None:
    for id in ids:
        for loop, future in mine.pop(id, ()):
            with contextlib.suppress(RuntimeError):  # its loop was closed: nobody waits there any more
                loop.call_soon_threadsafe(_resolve, future, value)


def _resolve(future: asyncio.Future[Any], value: Record | Exception) -> None:
    if future.done():
        return
    if isinstance(value, Exception):
        future.set_exception(value)
    else:
        future.set_result(value)
