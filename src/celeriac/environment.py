"""Where executions run: what a runner, or `Task.apply`, gives to `execution.execute` beside the execution itself."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from celeriac.loading import import_object
from celeriac.results.base import Record

if TYPE_CHECKING:
    from celeriac.app import Celeriac

__all__ = ["Environment"]


class Environment:
    """Where executions run: the app, the node's name, a way to store states while a task runs, and an event loop.

    Args:
        store_state: Called with a Record; None drops states.
        on_user_code: Called with True before the task's function and with False after it, so that a soft time limit is
            raised only inside it.
        on_limits: Called with the hard and the soft limit of a message of protocol 1: they stand in its body.
        make_loop: Makes what runs coroutines, when the first one comes; None is an event loop of this place's own.
    """

    def __init__(
        self,
        app: Celeriac,
        node: str = "",
        store_state: Callable[[Record], None] | None = None,
        on_user_code: Callable[[bool], None] | None = None,
        on_limits: Callable[[float | None, float | None], None] | None = None,
        *,
        is_eager: bool = False,
        make_loop: Callable[[], Any] | None = None,
    ) -> None:
        self.app = app
        self.node = node
        self.store_state = store_state
        self.on_user_code = on_user_code
        self.on_limits = on_limits
        self.is_eager = is_eager
        #: What the last eager task raised: its caller gets the very object, with its traceback.
        self.error: BaseException | None = None
        self._make_loop = make_loop
        self._loop: Any = None

    def run_coroutine(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run an `async def` task to its end on the loop kept here."""
        if self._loop is None:
            make_loop = self._make_loop or import_object("celeriac.event_loop:EventLoop", "async task")
            self._loop = make_loop()
        return self._loop.run(coroutine)

    def limit_coroutine(self) -> bool:
        """Raise SoftTimeLimitExceeded in the coroutine that waits for something here; False if none does."""
        return self._loop is not None and bool(self._loop.limit_softly())

    def close(self) -> None:
        """Close the event loop."""
        if self._loop is not None:
            self._loop.close()
            self._loop = None
