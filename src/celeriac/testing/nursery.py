"""Runners inside this process, for embedding, tests and the solo pool.

`InProcessNursery` has the interface of `worker.nursery`: the supervisor talks to these runners over a socket pair and shared
cells, as it does to processes, and can't tell the difference. What they can't do is die: hard time limits are refused.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from celeriac.log import get_logger
from celeriac.runner.channel import Channel
from celeriac.runner.protocol import Cells, Hello, Kind
from celeriac.runner.serial import SerialRunner
from celeriac.runner.threads import ThreadsRunner
from celeriac.runner.zygote import hello_of

if TYPE_CHECKING:
    from celeriac.app import Celeriac
    from celeriac.worker.process import RunnerProcess

__all__ = ["InProcessNursery", "InProcessRunner"]

logger = get_logger("celeriac.worker.nursery")


class InProcessRunner:
    """One runner: serves its socket in the thread that calls it, and its tasks there or in threads of its own."""

    def __init__(self, app: Celeriac, process: RunnerProcess, *, is_in_main_thread: bool) -> None:
        self._sock = socket.socket(fileno=os.dup(process.runner_sock.fileno()))
        self._channel = Channel(self._sock)
        cells, node = Cells(process.cells_fd, process.options.slots), process.options.node
        self._runner: SerialRunner | ThreadsRunner
        if is_in_main_thread:
            self._runner = SerialRunner(app, node, self._channel, cells)
        else:
            self._runner = ThreadsRunner(app, node, self._channel, cells)

    def __call__(self) -> None:
        """Run tasks until the supervisor closes the socket."""
        try:
            # No pid: this process must not be sent a runner's signals.
            self._channel.send(Kind.READY, 0)
            self._runner.run()
        except SystemExit:  # a task called sys.exit(): for the supervisor, its runner has died
            logger.error("a task has called sys.exit()")
        except BrokenPipeError:
            pass  # the supervisor has gone before we began
        finally:
            self._sock.close()

    def deliver(self, number: int) -> None:
        """A signal from the supervisor. Only the one of soft time limits means something here."""
        if number != signal.SIGXCPU:
            return
        if isinstance(self._runner, ThreadsRunner):
            self._runner.raise_soft_limits()
        else:
            os.kill(os.getpid(), signal.SIGXCPU)  # Python runs the handler in the main thread, where the task is

    def join(self, timeout: float) -> bool:
        """Wait until no task runs; False if that takes longer than `timeout` seconds."""
        return self._runner.join(timeout) if isinstance(self._runner, ThreadsRunner) else True


class InProcessNursery:
    """Makes runners in this process.

    Args:
        app: The app, imported here.
        changes: Settings of the worker that rank above the app's.
        run_in_main_thread: Hands a runner to the main thread (the solo pool); by default each gets threads of its own.
    """

    can_kill = False

    def __init__(
        self,
        app: Celeriac,
        changes: Mapping[str, Any] | None = None,
        run_in_main_thread: Callable[[InProcessRunner], None] | None = None,
    ) -> None:
        self.on_exit: Callable[[int, int], None] = lambda pid, status: None
        self.app = app
        self._changes = changes or {}
        self._run_in_main_thread = run_in_main_thread
        self._runners: list[tuple[InProcessRunner, threading.Thread]] = []

    async def start(self) -> Hello:
        """What the app is."""
        hello = hello_of(self.app)
        return msgspec.structs.replace(hello, conf={**hello.conf, **self._changes})

    def spawn(self, process: RunnerProcess) -> None:
        """Start a runner."""
        place = self._run_in_main_thread
        runner = InProcessRunner(self.app, process, is_in_main_thread=place is not None)
        process.deliver = runner.deliver
        process.passed_on()
        if place is not None:
            place(runner)
            return
        thread = threading.Thread(target=runner, name=f"runner-{process.number}", daemon=True)
        self._runners.append((runner, thread))
        thread.start()

    def stop(self) -> None:
        """Make no more runners. Those that live end when the supervisor closes their sockets."""

    def join(self, timeout: float) -> bool:
        """Wait until all runners in threads have ended; False if a task still runs after `timeout` seconds."""
        end = time.monotonic() + timeout
        for runner, thread in self._runners:
            thread.join(max(0.0, end - time.monotonic()))
            if thread.is_alive() or not runner.join(max(0.0, end - time.monotonic())):
                return False
        return True
