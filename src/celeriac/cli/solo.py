"""The solo pool: tasks run in the worker's own main thread, so debuggers work; the supervisor's loop is in a thread beside it.

`worker` calls `run_solo`. The runner code is that of every pool; only its place differs. A task that does not end within the
grace of a shutdown is given back, and the process then ends in the middle of it.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from celeriac.errors import CeleriacError
from celeriac.testing.nursery import InProcessNursery, InProcessRunner
from celeriac.worker.lifecycle import run_worker
from celeriac.worker.options import WorkerOptions
from celeriac.worker.supervisor import Supervisor

if TYPE_CHECKING:
    from celeriac.app import Celeriac

__all__ = ["run_solo"]

#: Seconds that the main thread gets to leave its task when the supervisor has ended.
LEAVING = 0.5


def run_solo(
    app: Celeriac,
    options: WorkerOptions,
    make_supervisor: Callable[[InProcessNursery, Celeriac], Supervisor],
    on_ready: Callable[[], None],
) -> bool:
    """Run a worker whose tasks run in this (the main) thread; returns whether it is to be started again."""
    return _Solo(app, make_supervisor, on_ready).run()


class _Solo:
    """The main thread, which runs runners, and the supervisor's thread."""

    def __init__(
        self,
        app: Celeriac,
        make_supervisor: Callable[[InProcessNursery, Celeriac], Supervisor],
        on_ready: Callable[[], None],
    ) -> None:
        self._runners: queue.SimpleQueue[InProcessRunner | None] = queue.SimpleQueue()
        self._supervisor = make_supervisor(InProcessNursery(app, run_in_main_thread=self._runners.put), app)
        self._on_ready = on_ready
        self._signals: deque[int] = deque()
        self._tell: Callable[[int], None] | None = None
        self._is_restart = False
        self._problem: CeleriacError | None = None
        self._is_idle = threading.Event()

    def run(self) -> bool:
        """Run to the end."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
            signal.signal(number, self._on_signal)
        thread = threading.Thread(target=self._supervise, name="celeriac-supervisor", daemon=True)
        thread.start()
        while (runner := self._runners.get()) is not None:
            runner()
        self._is_idle.set()
        thread.join()
        if self._problem is not None:
            raise self._problem
        return self._is_restart

    def _on_signal(self, number: int, frame: Any) -> None:
        self._signals.append(number)
        self._pass_on()

    def _on_started(self, tell: Callable[[int], None]) -> None:
        self._on_ready()
        self._tell = tell
        self._pass_on()

    def _pass_on(self) -> None:
        """Tell of the signals that have come, once it can be told: each thread looks after its own step, so none is lost."""
        tell = self._tell
        while tell is not None and self._signals:
            with contextlib.suppress(IndexError, RuntimeError):  # the other thread was faster; the loop has just ended
                tell(self._signals.popleft())

    def _supervise(self) -> None:
        try:
            self._is_restart = run_worker(self._supervisor, with_signals=False, on_started=self._on_started)
        except CeleriacError as exc:
            self._problem = exc
        finally:
            self._runners.put(None)
        if not self._is_idle.wait(LEAVING):
            # The task that still runs was given back: it is not ours any more, and the main thread can't be made to leave it.
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(0)
