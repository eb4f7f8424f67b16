"""A worker inside a program: `start_worker`, for tests and for embedding.

The supervisor's loop runs in a thread of this process; runners are threads beside it, or processes with the pool "prefork".
The app's own connections are used, so `memory://` works. Invariant: after the `with` block no task runs any more, or the
error says which one could not be stopped.

Example:
    with start_worker(app):
        assert add.delay(2, 3).get(timeout=10) == 5
"""

from __future__ import annotations

import itertools
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from celeriac.errors import CeleriacError, ImproperlyConfigured, near_match
from celeriac.loading import find_app
from celeriac.runner.protocol import ZygoteOptions
from celeriac.runner.zygote import hello_of
from celeriac.testing.nursery import InProcessNursery
from celeriac.worker.lifecycle import run_worker
from celeriac.worker.nursery import ZygoteNursery
from celeriac.worker.options import POOLS, WorkerOptions, node_name
from celeriac.worker.supervisor import Supervisor

if TYPE_CHECKING:
    from celeriac.app import Celeriac

__all__ = ["EmbeddedWorker", "start_worker"]

#: The task by which `perform_ping_check` sees that the way through broker, worker and result store is open.
PING = "celery.ping"
#: Seconds for a worker to start: a zygote has to import the app.
START = 60.0
_numbers = itertools.count(1)


class EmbeddedWorker:
    """A worker in a thread of this process. `start_worker` makes it.

    Attributes:
        node: Its node name.
    """

    def __init__(self, supervisor: Supervisor, nursery: InProcessNursery | ZygoteNursery) -> None:
        self.node = supervisor.node
        self._supervisor = supervisor
        self._nursery = nursery
        self._tell: Callable[[int], None] | None = None
        self._is_started = threading.Event()
        self._problem: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=f"celeriac-{self.node}", daemon=True)

    def start(self) -> None:
        """Start it; returns when it takes tasks.

        Raises:
            CeleriacError: It could not start.
        """
        self._thread.start()
        if not self._is_started.wait(START):
            raise CeleriacError(f"worker {self.node} has not started within {START:g} s")
        if self._problem is not None:
            raise self._problem

    def stop(self, timeout: float = 10.0) -> None:
        """End it warmly: what runs may end, the rest goes back to the queue. May be called again.

        Raises:
            RuntimeError: It took longer than `timeout` seconds, and was ended coldly; or a task still runs.
        """
        if self._tell is None:
            return
        self._signal(signal.SIGTERM)
        self._thread.join(timeout)
        is_late = self._thread.is_alive()
        if is_late:
            self._signal(signal.SIGQUIT)
            self._thread.join(5.0)
        is_over = self._nursery.join(1.0) if isinstance(self._nursery, InProcessNursery) else True
        self._tell = None
        if self._thread.is_alive() or not is_over:
            raise RuntimeError(
                f"worker {self.node}: a task still runs in this process, and can't be ended from outside"
            )
        if is_late:
            raise RuntimeError(f"worker {self.node} has not ended within {timeout:g} s; its tasks were given back")

    def reload(self) -> None:
        """Learn the tasks that were defined since it started."""
        if not isinstance(self._nursery, InProcessNursery):
            raise ImproperlyConfigured(
                "only a worker of the pools solo and threads can learn of tasks that are new here"
            )
        self._nursery.app.finalize()
        self._supervisor.learn(hello_of(self._nursery.app).tasks)

    def _signal(self, number: int) -> None:
        if self._tell is not None and self._thread.is_alive():
            try:
                self._tell(number)
            except RuntimeError:
                return  # its loop has just ended

    def _run(self) -> None:
        try:
            run_worker(self._supervisor, with_signals=False, on_started=self._on_started)
        except BaseException as exc:  # handed to the thread that started us
            self._problem = exc
        finally:
            self._is_started.set()

    def _on_started(self, tell: Callable[[int], None]) -> None:
        self._tell = tell
        self._is_started.set()


@contextmanager
def start_worker(
    app: Celeriac | str,
    *,
    pool: str = "solo",
    concurrency: int = 1,
    queues: Sequence[str] | None = None,
    node: str | None = None,
    perform_ping_check: bool = False,
    ping_task_timeout: float = 10.0,
    shutdown_timeout: float = 10.0,
    **_compatible: Any,
) -> Iterator[EmbeddedWorker]:
    """Run a worker while the `with` block runs.

    Args:
        app: The app; for the pool "prefork" what `-A` would name, for other processes have to import it.
        pool: "solo" (one task at a time), "threads" or "prefork".
        concurrency: Tasks at the same time.
        queues: Queues to consume; by default the app's.
        node: Node name.
        perform_ping_check: Send a task and wait for its result before the block begins.
        ping_task_timeout: Seconds to wait for that result.
        shutdown_timeout: Seconds that running tasks get at the end of the block.

    Raises:
        ImproperlyConfigured: The pool is unknown, or "prefork" was given an app object.
        RuntimeError: At the end: a task did not end within `shutdown_timeout`.
    """
    found: Celeriac = find_app(app) if isinstance(app, str) else app
    nursery = _make_nursery(app, found, pool, shutdown_timeout)
    if perform_ping_check:
        _need_ping(found, pool)
    options = WorkerOptions(
        app=app if isinstance(app, str) else found.main or "",
        node=node_name(node or f"embedded{os.getpid()}.{next(_numbers)}@%h"),
        queues=list(queues or ()),
        pool=pool,
        concurrency=concurrency,
        is_quiet=True,
    )
    worker = EmbeddedWorker(Supervisor(options, nursery, transport=found.transport, store=found.backend), nursery)
    try:
        worker.start()
        if perform_ping_check:
            found.send_task(PING).get(timeout=ping_task_timeout)
        yield worker
    finally:
        worker.stop(shutdown_timeout)


def _make_nursery(app: Celeriac | str, found: Celeriac, pool: str, grace: float) -> InProcessNursery | ZygoteNursery:
    changes = {"worker_pool": pool, "worker_shutdown_grace": grace}
    if pool not in POOLS:
        raise ImproperlyConfigured(
            f"pool {pool!r} is unknown; allowed are {', '.join(POOLS)}.{near_match(pool, POOLS)}"
        )
    if pool != "prefork":
        found.finalize()
        return InProcessNursery(found, changes)
    if not isinstance(app, str):
        raise ImproperlyConfigured(
            "the pool 'prefork' needs the name of the app, such as 'proj.tasks': its processes import it"
        )
    return ZygoteNursery(ZygoteOptions(app=app, changes=changes))


def _need_ping(app: Celeriac, pool: str) -> None:
    if PING in app.tasks:
        return
    if pool == "prefork":
        raise ImproperlyConfigured(f"perform_ping_check with the pool 'prefork' needs a task named {PING!r} in the app")
    app.task(name=PING)(_pong)


def _pong() -> str:
    return "pong"
