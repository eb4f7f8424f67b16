"""Where the event loop's blocking calls run (`asyncio.to_thread`): in threads that nobody waits for when the worker ends.

The usual executor is joined at the end of the loop and of the interpreter: one call to a frozen broker would then hold up the
worker's end for as long as its driver is patient.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import ParamSpec, TypeVar

__all__ = ["DaemonThreads"]

P = ParamSpec("P")
R = TypeVar("R")


class DaemonThreads(ThreadPoolExecutor):
    """A daemon thread for each call: a worker makes few of them, each a round trip to a server."""

    def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """Run a function aside."""
        future: Future[R] = Future()

        def run() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                result = fn(*args, **kwargs)
            except BaseException as exc:  # the caller's, who waits for it
                future.set_exception(exc)
            else:
                future.set_result(result)

        threading.Thread(target=run, name="celeriac-aside", daemon=True).start()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Nothing is waited for."""
