"""Runs each task in a greenlet: the runner of the pools gevent and eventlet.

Its process is started by exec and patched (`PATCHES`) before anything else is imported, so that threads, locks, queues and
sockets are cooperative: the threads pool's runner then runs tasks in greenlets. What differs is how a soft time limit gets
into one. A signal wakes the hub by a descriptor, and the hub throws the exception into the greenlet that waits; a task that does
not yield gets it in the signal's handler, which runs in its midst. The hard limit, by the supervisor, needs nobody to yield.
"""

from __future__ import annotations

import queue
import signal
import socket
import threading
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from celeriac.errors import ImproperlyConfigured, SoftTimeLimitExceeded
from celeriac.loading import import_object
from celeriac.runner.protocol import Cells
from celeriac.runner.threads import SlotThread, ThreadsRunner

if TYPE_CHECKING:
    from celeriac.app import Celeriac
    from celeriac.runner.channel import Channel

__all__ = ["PATCHES", "GreenletsRunner", "eventlet_runner", "gevent_runner"]

#: pool → what its interpreter runs first
PATCHES = {
    "gevent": "from gevent.monkey import patch_all; patch_all()",
    "eventlet": "from eventlet import monkey_patch; monkey_patch()",
}


#: Has the hub's greenlet call a function.
_InHub = Callable[[Callable[[], object]], object]


def gevent_runner(app: Celeriac, node: str, channel: Channel, cells: Cells) -> GreenletsRunner:
    """On gevent's hub."""
    hub = import_object("gevent:get_hub", "pool gevent")()
    return GreenletsRunner(app, node, channel, cells, hub.loop.run_callback)


def eventlet_runner(app: Celeriac, node: str, channel: Channel, cells: Cells) -> GreenletsRunner:
    """On eventlet's hub."""
    hub = import_object("eventlet.hubs:get_hub", "pool eventlet")()
    return GreenletsRunner(app, node, channel, cells, lambda callback: hub.schedule_call_global(0, callback))


class GreenletsRunner(ThreadsRunner):
    """Several slots, each a greenlet.

    Args:
        in_hub: Has the hub's greenlet call a function.
    """

    def __init__(self, app: Celeriac, node: str, channel: Channel, cells: Cells, in_hub: _InHub) -> None:
        self._in_hub = in_hub
        super().__init__(app, node, channel, cells)

    def run(self) -> None:
        """Hand out executions until the supervisor closes the channel."""
        mine, yours = socket.socketpair()
        yours.setblocking(False)
        signal.signal(
            signal.SIGXCPU, self._on_soft_limit
        )  # eventlet's main thread does not know that it is the main one
        signal.set_wakeup_fd(yours.fileno(), warn_on_full_buffer=False)
        threading.Thread(target=self._listen, args=(mine,), name="celeriac-soft-limits", daemon=True).start()
        super().run()

    def _make_slot(self, app: Celeriac, node: str, channel: Channel, cells: Cells, slot: int) -> SlotThread:
        return _SlotGreenlet(app, node, channel, cells, slot, self._in_hub)

    def _listen(self, mine: socket.socket) -> None:
        while mine.recv(64):
            self.raise_soft_limits()

    def _on_soft_limit(self, signum: int, frame: Any) -> None:
        for slot in self._slots:
            if isinstance(slot, _SlotGreenlet):
                slot.raise_if_it_runs()


class _SlotGreenlet(SlotThread):
    """One slot: what is a thread elsewhere is a greenlet here."""

    def __init__(self, app: Celeriac, node: str, channel: Channel, cells: Cells, slot: int, in_hub: _InHub) -> None:
        super().__init__(app, node, channel, cells, slot, _NoLoop)
        self._in_hub = in_hub
        self._greenlet: Any = None
        self._queue = queue.Queue()  # `SimpleQueue` is C's, and would stop the whole process

    def run(self) -> None:
        """Run executions one after the other."""
        self._greenlet = import_object("greenlet:getcurrent", "greenlets")()
        super().run()

    def raise_if_it_runs(self) -> None:
        """Raise SoftTimeLimitExceeded here and now, if this is the greenlet that runs and its limit has passed."""
        if threading.get_ident() == self.ident and self._is_limited():
            self._cells.limit_softly(self._slot, 0)  # once
            raise SoftTimeLimitExceeded()

    def raise_soft_limit(self) -> None:
        """Have the hub throw SoftTimeLimitExceeded into the task, if its limit has passed while it waits."""
        if self._is_limited():
            self._in_hub(self._throw)

    def _is_limited(self) -> bool:
        return self._in_user_code and self._cells.is_soft_limited(self._slot)

    def _throw(self) -> None:
        if self._is_limited():
            self._cells.limit_softly(self._slot, 0)  # once
            self._greenlet.throw(SoftTimeLimitExceeded())


class _NoLoop:
    """Stands for the event loop that greenlets can't have: asyncio keeps one for each thread of the system, not of Python."""

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Refuse.

        Raises:
            ImproperlyConfigured: Always.
        """
        coroutine.close()
        raise ImproperlyConfigured(
            "an async task can't run in a pool of greenlets (gevent, eventlet): use --pool asyncio, threads or prefork"
        )

    def limit_softly(self) -> bool:
        """None runs."""
        return False

    def close(self) -> None:
        """Nothing is open."""
