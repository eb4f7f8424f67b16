"""Tasks that can be asked to end while they run: the client says so, and the task looks now and then.

    @app.task(bind=True, base=AbortableTask)
    def export(self, rows):
        for row in rows:
            if self.is_aborted():
                return "stopped"
            write(row)

    result = export.delay(rows)
    result.abort()

`abort` stores the state ABORTED, as Celery's does, and beside it that it was asked for: so a task that tells of its progress,
or is tried again, still finds it. It works with every result store that keeps results.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias, TypeVar, cast

from celeriac import codec, states
from celeriac.errors import ImproperlyConfigured
from celeriac.recording import lifetime_of
from celeriac.result import AsyncResult, EagerResult
from celeriac.results.base import Fence, Record, ResultStore
from celeriac.task import Task
from celeriac.timing import SYSTEM_CLOCK

__all__ = ["ABORTED", "AbortableAsyncResult", "AbortableTask"]

R = TypeVar("R")
AnyResult: TypeAlias = AsyncResult[Any]

ABORTED = "ABORTED"


class AbortableAsyncResult(AsyncResult[R]):
    """The result of an abortable task."""

    def is_aborted(self) -> bool:
        """Whether somebody has asked the task to end."""
        state, mark = self._keeping_store().get([self.id, _mark(self.id)])
        return mark is not None or (state is not None and state.state == ABORTED)

    def abort(self) -> None:
        """Ask the task to end, now or when it begins. What has ended already stays as it is.

        Raises:
            ImproperlyConfigured: The result store keeps no results.
            OperationalError: It can't be reached.
        """
        store = self._keeping_store()
        found = store.get([self.id])[0]
        if found is not None and found.state in states.READY_STATES:
            return
        store.store(
            [self._record_of(_mark(self.id), (0, 0)), self._record_of(self.id, found.fence if found else (0, 0))]
        )

    def _keeping_store(self) -> ResultStore:
        store = self.backend
        if not store.capabilities.persistent:
            raise ImproperlyConfigured(f"{store.url} keeps no results, so nobody can see there that a task is aborted")
        return cast(ResultStore, store)

    def _record_of(self, task_id: str, fence: Fence) -> Record:
        content_type, encoding, nothing = codec.dumps(None, self.app.conf.result_serializer)
        lifetime = lifetime_of(self.app, ABORTED)
        return Record(
            id=task_id, state=ABORTED, result=nothing, content_type=content_type, content_encoding=encoding, fence=fence,
            expires_at=SYSTEM_CLOCK.now() + lifetime if lifetime else None,
        )  # fmt: skip


class AbortableTask(Task[..., Any]):
    """Base of tasks that look whether they are to end: `@app.task(bind=True, base=AbortableTask)`."""

    def AsyncResult(self, task_id: str, **kwargs: Any) -> AbortableAsyncResult[Any]:  # noqa: N802 -- Celery's documented name
        """The result of this id, with `abort()`."""
        return AbortableAsyncResult(task_id, app=self.app, **kwargs)

    def apply_async(
        self, args: Sequence[Any] | None = None, kwargs: dict[str, Any] | None = None, *rest: Any, **options: Any
    ) -> AnyResult:
        """Send it; the result has `abort()`."""
        return self._abortable(super().apply_async(args, kwargs, *rest, **options))

    async def aapply_async(
        self, args: Sequence[Any] | None = None, kwargs: dict[str, Any] | None = None, **options: Any
    ) -> AnyResult:
        """`apply_async` for coroutines."""
        return self._abortable(await super().aapply_async(args, kwargs, **options))

    def is_aborted(self, task_id: str | None = None, **_compatible: Any) -> bool:
        """Whether somebody has asked this execution to end; asks the result store, so not in every turn of a fast loop.

        Args:
            task_id: Ask about another task.
        """
        task_id = task_id or self.request.id
        return task_id is not None and self.AsyncResult(task_id).is_aborted()

    def _abortable(self, result: AnyResult) -> AnyResult:
        if isinstance(result, EagerResult):
            return result
        found = self.AsyncResult(result.id, parent=result.parent)
        found.ignored = result.ignored
        return found


def _mark(task_id: str) -> str:
    """Id under which it is kept that a task is to end."""
    return f"{task_id}-aborted"
