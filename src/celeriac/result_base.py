"""What all results have in common: their base class, the guard against waiting inside a task, how an error is raised.

`result` and `result_set` build on it. Invariant: nothing here asks a store.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any, NoReturn

from celeriac import states
from celeriac.context import running
from celeriac.loading import import_object
from celeriac.results.base import Record
from celeriac.wire.results import decode_result

__all__ = [
    "RemoteTraceback",
    "ResultBase",
    "allow_join_result",
    "aside",
    "assert_will_not_block",
    "meta_of",
    "raise_error",
]

_join_allowed: ContextVar[bool] = ContextVar("celeriac_join_allowed", default=False)


class ResultBase:
    """Base of all results."""

    id: str | None = None
    parent: ResultBase | None = None

    async def aready(self: Any) -> bool:
        """`ready` for coroutines."""
        return bool(await aside(self.ready))

    async def aforget(self: Any, **options: Any) -> None:
        """`forget` for coroutines."""
        await aside(self.forget, **options)

    async def arevoke(self: Any, **options: Any) -> None:
        """`revoke` for coroutines."""
        await aside(self.revoke, **options)


async def aside(function: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """Call a function that asks the store or the broker without blocking the loop."""
    return await import_object("celeriac.batching:run_aside", "coroutines")(function, *args, **options)


class RemoteTraceback(Exception):
    """The worker's traceback, shown as the cause of the exception that `get` raises."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f"\n{self.text}"


def assert_will_not_block() -> None:
    """Raise RuntimeError inside a running task: waiting there for another task can block the worker for ever."""
    context = running.get()
    if context is not None and not context.called_directly and not context.is_eager and not _join_allowed.get():
        raise RuntimeError(
            "Never call result.get() within a task: it can block the worker for ever. "
            "Chain the tasks, or pass disable_sync_subtasks=False if you know that it can't."
        )


@contextlib.contextmanager
def allow_join_result() -> Iterator[None]:
    """Allow waiting for results inside a task for the time of this block."""
    token = _join_allowed.set(True)
    try:
        yield
    finally:
        _join_allowed.reset(token)


def raise_error(value: Any, traceback: str | None, is_real: bool = False) -> NoReturn:
    """Raise what a task raised, with the worker's traceback as its cause, and its own cause as the cause of that.

    Args:
        is_real: Put the worker's frames into the traceback itself, where tblib is installed (`task_remote_tracebacks`).
    """
    if not isinstance(value, BaseException):
        value = Exception(value)
    frames = import_object("celeriac.remote_traceback:real_traceback", "")(traceback) if is_real and traceback else None
    if frames is not None:
        raise value.with_traceback(frames)
    if traceback and not isinstance(value.__cause__, RemoteTraceback):
        remote = RemoteTraceback(traceback)
        remote.__cause__ = value.__cause__
        value.__cause__ = remote
    raise value


def meta_of(record: Record, accept: frozenset[str]) -> dict[str, Any]:
    """A record as Celery's task meta, decoded: what `on_message` and `iter_native` hand out."""
    meta: dict[str, Any] = {
        "status": record.state,
        "result": decode_result(record, accept),
        "traceback": record.traceback,
        "children": record.children,
        "date_done": record.date_done,
        "task_id": record.id,
    }
    if record.group_id:
        meta["group_id"] = record.group_id
    if record.parent_id:
        meta["parent_id"] = record.parent_id
    if record.name is not None:
        for key in ("args", "kwargs"):
            meta[key] = decode_value(record, getattr(record, key), accept)
        meta.update(name=record.name, worker=record.worker, retries=record.retries, queue=record.queue)
    return meta


def decode_value(record: Record, raw: bytes | None, accept: frozenset[str]) -> Any:
    """A value that is serialized as the record's result is (`args`, `kwargs`); None where there is none."""
    if raw is None:
        return None
    plain = Record(
        id=record.id,
        state=states.SUCCESS,
        result=raw,
        content_type=record.content_type,
        content_encoding=record.content_encoding,
    )
    return decode_result(plain, accept)
