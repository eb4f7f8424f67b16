"""One of the calls that a batch task is given: `@app.task(batch=100)`. How such tasks are made is in `batch_task`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Generic, ParamSpec

from celeriac.context import Context, running
from celeriac.safe_repr import saferepr

if TYPE_CHECKING:
    from celeriac.task import Task

__all__ = ["OPEN", "Call"]

P = ParamSpec("P")
#: The end of a call that its function has not decided.
OPEN: Any = object()


class Call(Generic[P]):
    """One of the calls that a batch task is given.

    `Call[[int, str]]` in the function's annotation says what `delay()` takes, for type checkers; `Call[...]` is any.

    Attributes:
        id: Task id.
        args, kwargs: What it was called with.
        request: Its `Task.request`: retries, headers, stamps, and the rest.
        end: What the function has decided for it by `fail` or `retry`; else `OPEN`.
    """

    __slots__ = ("_task", "args", "end", "id", "kwargs", "request")

    def __init__(self, task: Task[..., Any], request: Context, args: Sequence[Any], kwargs: dict[str, Any]) -> None:
        self.id = request.id or ""
        self.args = tuple(args)
        self.kwargs = kwargs
        self.request = request
        self._task = task
        self.end: Any = OPEN

    def fail(self, error: BaseException) -> None:
        """Let this call end as if its task had raised `error`: `Reject`, `Ignore` and `autoretry_for` mean what they do."""
        if not isinstance(error, BaseException):
            raise TypeError(f"fail() takes an exception, not {saferepr(error, 60)}")
        self.end = error

    def retry(
        self,
        args: Sequence[Any] | None = None,
        kwargs: dict[str, Any] | None = None,
        exc: BaseException | None = None,
        eta: datetime | None = None,
        countdown: float | None = None,
        max_retries: int | None = None,
        **options: Any,
    ) -> None:
        """Run this call again later, as `Task.retry` does; it fails when no retries are left. The others go on."""
        token = running.set(self.request)
        try:
            self.end = self._task.retry(args, kwargs, exc, False, eta, countdown, max_retries, **options)
        except BaseException as final:  # that is how retry() says that no attempt is left
            self.end = final
        finally:
            running.reset(token)

    def update_state(self, state: str | None = None, meta: Any = None) -> None:
        """Store a custom state of this call, as `Task.update_state` does."""
        self._task.app.store_state(self.request, self.id, state, meta)

    def __repr__(self) -> str:
        return (
            f"<Call: {self._task.name}[{self.id}] args={saferepr(self.args, 100)} kwargs={saferepr(self.kwargs, 100)}>"
        )
