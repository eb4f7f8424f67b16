"""Runs one task at a time in the calling thread: the prefork pool's runner, and solo.

A soft time limit reaches it as SIGXCPU and is raised inside the task's own code only.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import signal
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from celeriac.environment import Environment
from celeriac.errors import SoftTimeLimitExceeded
from celeriac.execution import execute
from celeriac.execution_batch import execute_batch
from celeriac.faultpoint import faultpoint
from celeriac.outcome import BatchExecution, Execution
from celeriac.results.base import Record
from celeriac.runner.leaving import send_batch_outcome, send_outcome
from celeriac.runner.protocol import Cells, Kind

if TYPE_CHECKING:
    from celeriac.app import Celeriac
    from celeriac.runner.channel import Channel

__all__ = ["SerialRunner"]

#: `signal.getsignal` without the search for an enum member, which takes 2 µs for a handler that is a function.
_handler_of: Callable[[int], Any] = _signal.getsignal


class SerialRunner:
    """One slot."""

    def __init__(self, app: Celeriac, node: str, channel: Channel, cells: Cells) -> None:
        self._channel = channel
        self._cells = cells
        self._serial = 0
        self._in_user_code = False
        self._handler = self._on_soft_limit
        self._is_in_main_thread = False
        # Between "I start this" and "was it taken back?" the store buffer must be drained, or both sides could see the
        # other's old value; taking a lock is the fence that Python has.
        self._fence = threading.Lock()
        self._environment = Environment(app, node, self._store_state, self._mark_user_code, self._tell_limits)

    def run(self) -> None:
        """Run executions until the supervisor closes the channel."""
        self._is_in_main_thread = threading.current_thread() is threading.main_thread()
        try:
            while (executions := self._channel.read()) is not None:
                for execution in executions:
                    self._run_one(execution)
                self._cells.end(0)
        except BrokenPipeError:
            pass  # the supervisor is gone: nobody waits for the outcome
        finally:
            self._environment.close()

    def _run_one(self, execution: Execution | BatchExecution) -> None:
        self._serial = serial = execution.serial
        self._cells.begin(0, serial, time.monotonic())
        with self._fence:
            is_recalled = self._cells.is_recalled(0, serial)
        if is_recalled:
            self._cells.end(0)
            self._channel.send(Kind.SKIPPED, (0, serial))
            return
        # Looked at before each task: the one before may have changed it.
        if self._is_in_main_thread and _handler_of(signal.SIGXCPU) is not self._handler:
            signal.signal(signal.SIGXCPU, self._handler)
        faultpoint("after_start")
        if isinstance(execution, BatchExecution):
            outcomes = execute_batch(self._environment, execution)
            faultpoint("after_return")
            send_batch_outcome(self._channel, self._environment, execution, outcomes)
            return
        outcome = execute(self._environment, execution)
        faultpoint("after_return")
        # What stands in the cell until the next one begins has no assignment any more once this has arrived.
        send_outcome(self._channel, self._environment, execution, outcome)

    def _store_state(self, record: Record) -> None:
        self._channel.send(Kind.STATE, (0, self._serial, record))

    def _tell_limits(self, hard: float | None, soft: float | None) -> None:
        hard = hard if self._channel.owns_process else None  # the worker's own process can't be killed
        self._channel.send(Kind.LIMITS, (0, self._serial, hard, soft))

    def _mark_user_code(self, is_inside: bool) -> None:
        self._in_user_code = is_inside

    def _on_soft_limit(self, signum: int, frame: Any) -> None:
        if self._in_user_code and self._cells.is_soft_limited(0):
            self._cells.limit_softly(0, 0)  # once
            if not self._environment.limit_coroutine():
                raise SoftTimeLimitExceeded()
