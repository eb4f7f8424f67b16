"""From signals to the end of a worker: TERM warm, QUIT cold, INT warm then cold then at once, HUP restart, USR1 stacks.

`run_worker` runs a supervisor in this thread's event loop until a signal (or `stop`) ends it. The decision which end a
signal means is the pure function `next_phase`.
"""

from __future__ import annotations

import asyncio
import enum
import faulthandler
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping

from celeriac.errors import CeleriacError
from celeriac.log import get_logger
from celeriac.worker.aside import DaemonThreads
from celeriac.worker.supervisor import Supervisor

__all__ = ["Phase", "next_phase", "run_worker"]

logger = get_logger("celeriac.worker")


class Phase(enum.IntEnum):
    """How far a worker's end is."""

    RUNNING = 0
    WARM = 1
    COLD = 2
    HARD = 3


def next_phase(phase: Phase, number: int, environ: Mapping[str, str] = os.environ) -> Phase:
    """The phase after a signal. More TERMs change nothing; each INT goes one further; QUIT is cold."""
    if number == signal.SIGTERM and environ.get("REMAP_SIGTERM") == "SIGQUIT":
        number = signal.SIGQUIT
    if number == signal.SIGQUIT:
        return max(phase, Phase.COLD)
    if number == signal.SIGINT:
        return Phase(min(phase + 1, Phase.HARD))
    return max(phase, Phase.WARM)


class _Lifecycle:
    """One worker's life."""

    def __init__(self, supervisor: Supervisor) -> None:
        self.supervisor = supervisor
        self.phase = Phase.RUNNING
        self.is_restart = False
        self._changed = asyncio.Event()

    def on_signal(self, number: int) -> None:
        """Runs in the loop."""
        if number == signal.SIGHUP:
            self.is_restart, number = self.is_restart or self.phase is Phase.RUNNING, signal.SIGTERM
        before, self.phase = self.phase, next_phase(self.phase, number)
        if self.phase is Phase.HARD:
            os._exit(1)
        if before is Phase.RUNNING and self.phase is not before:
            how = "Warm" if self.phase is Phase.WARM else "Cold"
            self.supervisor.announcer.shutting_down(signal.Signals(number).name, how)
        if self.phase is not before:
            logger.warning("%s shutdown (%s)", self.phase.name.lower(), signal.Signals(number).name)
            self._changed.set()

    async def live(self) -> None:
        """Until the end."""
        await self._changed.wait()
        supervisor = self.supervisor
        if self.phase is Phase.WARM:
            self._changed.clear()
            await self._warm(supervisor)
        else:
            soft = supervisor.conf.worker_soft_shutdown_timeout
            if soft and (supervisor.pool.held or supervisor.conf.worker_enable_soft_shutdown_on_idle):
                await supervisor.stop(soft)
            else:
                await supervisor.terminate()

    async def _warm(self, supervisor: Supervisor) -> None:
        grace = supervisor.conf.worker_shutdown_grace
        warm = asyncio.ensure_future(supervisor.stop(grace))
        colder = asyncio.ensure_future(self._changed.wait())
        await asyncio.wait({warm, colder}, return_when=asyncio.FIRST_COMPLETED)
        colder.cancel()
        if not warm.done():
            warm.cancel()
            await supervisor.terminate()


def run_worker(
    supervisor: Supervisor,
    *,
    with_signals: bool = True,
    on_started: Callable[[Callable[[int], None]], None] | None = None,
) -> bool:
    """Run a worker to its end. Returns whether it is to be started again (HUP).

    Args:
        with_signals: Handle signals; only in the main thread.
        on_started: Called when the worker is ready, with a function by which any thread can end it (a signal number).

    Raises:
        CeleriacError: It could not start, or the broker is lost and the settings say not to wait for it.
    """
    return asyncio.run(_run(supervisor, with_signals, on_started))


async def _run(
    supervisor: Supervisor, with_signals: bool, on_started: Callable[[Callable[[int], None]], None] | None
) -> bool:
    loop = asyncio.get_running_loop()
    loop.set_default_executor(DaemonThreads())
    lifecycle = _Lifecycle(supervisor)
    supervisor.end = lifecycle.on_signal
    if with_signals:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
            loop.add_signal_handler(number, lifecycle.on_signal, number)
        faulthandler.register(signal.SIGUSR1, all_threads=True, file=sys.stderr)
    starting = asyncio.ensure_future(supervisor.start())
    stopped = asyncio.ensure_future(lifecycle._changed.wait())
    await asyncio.wait({starting, stopped}, return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if not starting.done():  # told to end while starting
        starting.cancel()
        if supervisor.has_begun:
            await supervisor.terminate()
        supervisor.nursery.stop()
        return lifecycle.is_restart
    try:
        starting.result()
    except CeleriacError:
        supervisor.nursery.stop()
        raise
    if on_started is not None:

        def end(number: int) -> None:
            loop.call_soon_threadsafe(lifecycle.on_signal, number)

        on_started(end)
    started = time.monotonic()
    await lifecycle.live()
    logger.info("%s is gone after %.0f s", supervisor.node, time.monotonic() - started)
    if supervisor.failure is not None:
        raise supervisor.failure
    return lifecycle.is_restart
