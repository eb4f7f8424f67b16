"""Runs a task in each of several threads: the threads pool's runner.

The main thread reads frames and hands each to its slot's thread. A soft time limit reaches the main thread as SIGXCPU and
is raised in the task's thread as an asynchronous exception, which Python delivers at the next bytecode.
"""

from __future__ import annotations

import ctypes
import os
import queue
import signal
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from celeriac import states
from celeriac.environment import Environment
from celeriac.errors import SoftTimeLimitExceeded
from celeriac.execution import execute
from celeriac.execution_batch import execute_batch
from celeriac.faultpoint import faultpoint
from celeriac.outcome import BatchExecution, Execution, Outcome, Verdict
from celeriac.results.base import Record
from celeriac.runner.leaving import send_batch_outcome, send_outcome
from celeriac.runner.protocol import Cells, Kind
from celeriac.timing import Deadline

if TYPE_CHECKING:
    from celeriac.app import Celeriac
    from celeriac.runner.channel import Channel

__all__ = ["SlotThread", "ThreadsRunner"]

#: What a slot's queue holds; None is its end.
_Frame = Execution | BatchExecution | None


class ThreadsRunner:
    """Several slots, each a thread."""

    def __init__(self, app: Celeriac, node: str, channel: Channel, cells: Cells) -> None:
        self._channel = channel
        self._cells = cells
        self._slots = [self._make_slot(app, node, channel, cells, slot) for slot in range(cells.slots)]

    def _make_slot(self, app: Celeriac, node: str, channel: Channel, cells: Cells, slot: int) -> SlotThread:
        return SlotThread(app, node, channel, cells, slot)

    def run(self) -> None:
        """Hand out executions until the supervisor closes the channel."""
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGXCPU, self._on_soft_limit)
        for slot in self._slots:
            slot.start()
        while (executions := self._channel.read()) is not None:
            for execution in executions:
                self._slots[execution.slot].put(execution)
        # The supervisor has closed the channel: it wants nothing more from us, so running threads need not be waited for.
        for slot in self._slots:
            slot.stop()

    def join(self, timeout: float) -> bool:
        """Wait until every slot's thread has ended; False if that takes longer than `timeout` seconds."""
        deadline = Deadline(timeout)
        for slot in self._slots:
            if slot.ident is not None:  # it was started
                slot.join(deadline.left())
        return not any(slot.is_alive() for slot in self._slots)

    def _on_soft_limit(self, signum: int, frame: Any) -> None:
        self.raise_soft_limits()

    def raise_soft_limits(self) -> None:
        """Raise SoftTimeLimitExceeded in each task whose limit has passed. May be called from any thread."""
        for slot in self._slots:
            slot.raise_soft_limit()


class SlotThread(threading.Thread):
    """One slot: a thread with a queue of its own.

    Args:
        make_loop: As for `Environment`.
    """

    def __init__(
        self, app: Celeriac, node: str, channel: Channel, cells: Cells, slot: int, make_loop: Callable[[], Any] | None = None
    ) -> None:  # fmt: skip
        super().__init__(name=f"slot-{slot}", daemon=True)
        self._channel = channel
        self._cells = cells
        self._slot = slot
        self._serial = 0
        self._in_user_code = False
        self._is_stopping = False
        self._queue: queue.SimpleQueue[_Frame] | queue.Queue[_Frame] = queue.SimpleQueue()
        self._fence = threading.Lock()
        self._environment = Environment(
            app, node, self._store_state, self._mark_user_code, self._tell_limits, make_loop=make_loop
        )

    def put(self, execution: Execution | BatchExecution) -> None:
        """Run this after those before it."""
        self._queue.put(execution)

    def run(self) -> None:
        """Run executions one after the other."""
        while (execution := self._queue.get()) is not None and not self._is_stopping:
            try:
                self._run_one(execution)
            except OSError:  # the channel is closed: nobody waits for the outcome
                if self._channel.owns_process and not self._is_stopping:
                    os._exit(1)  # a task may have closed our descriptor: the supervisor must not wait for us
                break
        self._environment.close()

    def stop(self) -> None:
        """End after the task that runs."""
        self._is_stopping = True
        self._queue.put(None)

    def _run_one(self, execution: Execution | BatchExecution) -> None:
        slot, self._serial = self._slot, execution.serial
        self._cells.begin(slot, execution.serial, time.monotonic())
        with self._fence:  # see serial.py: drains the store buffer before looking
            is_recalled = self._cells.is_recalled(slot, execution.serial)
        if is_recalled:
            self._cells.end(slot)
            self._channel.send(Kind.SKIPPED, (slot, execution.serial))
            return
        faultpoint("after_start")
        if isinstance(execution, BatchExecution):
            outcomes = self._execute_batch(execution)
            faultpoint("after_return")
            send_batch_outcome(self._channel, self._environment, execution, outcomes)
        else:
            outcome = self._execute(execution)
            faultpoint("after_return")
            send_outcome(self._channel, self._environment, execution, outcome)
        self._cells.end(slot)

    def _execute(self, execution: Execution) -> Outcome:
        try:
            return execute(self._environment, execution)
        except SoftTimeLimitExceeded:  # it came a moment after the task's own code had ended
            return self._execute_as_late(execution)

    def _execute_batch(self, batch: BatchExecution) -> list[Outcome]:
        try:
            return execute_batch(self._environment, batch)
        except SoftTimeLimitExceeded:
            return [self._execute_as_late(execution) for execution in batch.executions]

    def _execute_as_late(self, execution: Execution) -> Outcome:
        verdict = Verdict(states.FAILURE, "SoftTimeLimitExceeded")
        decided = Execution(
            execution.serial, execution.slot, execution.message, execution.queue, execution.deliveries, verdict
        )
        return execute(self._environment, decided)

    def raise_soft_limit(self) -> None:
        """Raise SoftTimeLimitExceeded in the task, if its limit has passed. Called by another thread."""
        if self._in_user_code and self._cells.is_soft_limited(self._slot) and self.ident is not None:
            self._cells.limit_softly(self._slot, 0)  # once
            if self._environment.limit_coroutine():
                return
            ctypes.pythonapi.PyThreadState_SetAsyncExc(
                ctypes.c_ulong(self.ident), ctypes.py_object(SoftTimeLimitExceeded)
            )

    def _store_state(self, record: Record) -> None:
        self._channel.send(Kind.STATE, (self._slot, self._serial, record))

    def _tell_limits(self, hard: float | None, soft: float | None) -> None:
        self._channel.send(Kind.LIMITS, (self._slot, self._serial, hard, soft))

    def _mark_user_code(self, is_inside: bool) -> None:
        self._in_user_code = is_inside
