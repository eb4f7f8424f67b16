"""The event loops on which `async def` tasks run: one for each slot, or one that all slots share. Imported when the first comes.

A loop is kept between tasks, so that clients which a task keeps on it stay usable. Each coroutine runs in the context
of its own execution (`Task.request`), and a soft time limit is raised inside it while it waits.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import threading
import types
from collections.abc import Coroutine, Generator
from typing import Any

from celeriac.errors import SoftTimeLimitExceeded

__all__ = ["EventLoop", "SharedLoop"]


class EventLoop:
    """A loop of its own for one slot."""

    def __init__(self) -> None:
        self._runner = asyncio.Runner()
        self._task: asyncio.Task[Any] | None = None
        self._is_limited = False

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine to its end. Where another loop runs in this thread (an eager call), in a thread of its own."""
        if _is_loop_running():
            return _run_aside(coroutine)
        # The runner's own context would be that of the first task.
        return self._runner.run(self._remember(coroutine), context=contextvars.copy_context())

    async def _remember(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        self._task, self._is_limited = asyncio.current_task(), False
        try:
            return await self._driven(coroutine)
        finally:
            self._task = None

    @types.coroutine
    def _driven(self, coroutine: Coroutine[Any, Any, Any]) -> Generator[Any, Any, Any]:
        """Run the coroutine; a cancellation that stands for the soft time limit reaches it as that."""
        error: BaseException | None = None
        while True:
            try:
                waits_for = coroutine.send(None) if error is None else coroutine.throw(error)
            except StopIteration as end:
                return end.value
            try:
                yield waits_for
                error = None
            except asyncio.CancelledError as exc:
                error = exc
                if self._is_limited and self._task is not None:
                    self._task.uncancel()
                    self._is_limited, error = False, SoftTimeLimitExceeded()
            except BaseException as exc:  # thrown in by the loop: the coroutine's to handle
                error = exc

    def limit_softly(self) -> bool:
        """Raise SoftTimeLimitExceeded in the coroutine if it waits; False if it does not. From any thread or a signal."""
        task, loop = self._task, self._runner.get_loop()
        if task is None or asyncio.current_task(loop) is task:
            return False  # its code runs at this moment: there the exception can be raised directly
        self._is_limited = True
        loop.call_soon_threadsafe(task.cancel)
        return True

    def close(self) -> None:
        """Cancel what still waits and close the loop."""
        self._runner.close()


class SharedLoop:
    """A loop in a thread of its own, on which coroutines of many slots run side by side. `place` is what a slot has of it."""

    def __init__(self) -> None:
        self._starting = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None

    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop, started with the first coroutine."""
        with self._starting:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(target=self._loop.run_forever, name="celeriac-loop", daemon=True).start()
            return self._loop

    def place(self) -> _Place:
        """One slot's."""
        return _Place(self)


class _Place(EventLoop):
    """A slot's coroutines on the shared loop: its thread waits for each."""

    def __init__(self, shared: SharedLoop) -> None:
        super().__init__()
        self._shared = shared

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine to its end beside those of other slots."""
        loop = self._shared.loop()
        ended: concurrent.futures.Future[Any] = concurrent.futures.Future()

        def start() -> None:
            loop.create_task(self._told(coroutine, ended))

        loop.call_soon_threadsafe(start, context=contextvars.copy_context())
        return ended.result()

    async def _told(self, coroutine: Coroutine[Any, Any, Any], ended: concurrent.futures.Future[Any]) -> None:
        try:
            result = await self._remember(coroutine)
        except BaseException as exc:  # raised again in the slot's thread, SystemExit too: it must not end the loop
            ended.set_exception(exc)
        else:
            ended.set_result(result)

    def limit_softly(self) -> bool:
        """Raise SoftTimeLimitExceeded in the coroutine when it waits next: its thread is not the one that could be hit."""
        task = self._task
        if task is None:
            return False
        self._is_limited = True
        self._shared.loop().call_soon_threadsafe(task.cancel)
        return True

    def close(self) -> None:
        """The loop is the others', too: it ends with the process."""


def _is_loop_running() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _run_aside(coroutine: Coroutine[Any, Any, Any]) -> Any:
    outcome: list[Any] = [None, None]
    context = contextvars.copy_context()

    def run() -> None:
        try:
            outcome[0] = context.run(asyncio.run, coroutine)
        except BaseException as exc:  # raised again in the caller's thread
            outcome[1] = exc

    thread = threading.Thread(target=run, name="celeriac-eager")
    thread.start()
    thread.join()
    if outcome[1] is not None:
        raise outcome[1]
    return outcome[0]
