"""The built-in tasks that workflows use, under Celery's names, so that stock clients and workers know them, too.

Every app has them. `celery.map` and `celery.starmap` run what `Task.map` and `Task.starmap` send, `celery.accumulate`
returns the results of a group as a list, `celery.chord_unlock` waits for chords that stock clients start on stores
which can't count in their way.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from celeriac import states
from celeriac.canvas.maps import chunks
from celeriac.errors import ChordError
from celeriac.loading import import_object
from celeriac.result import AsyncResult
from celeriac.signature import maybe_signature
from celeriac.wire.results import decode_result

if TYPE_CHECKING:
    from celeriac.app import Celeriac

__all__ = ["add_builtins"]


def add_builtins(app: Celeriac) -> None:
    """Register them with an app, unless it has tasks of these names."""
    for name, function, is_bound in _BUILTINS:
        if app.registered(name) is None:
            app.task(function, name=name, bind=is_bound, typing=False)


def _map(self: Any, task: Any, it: Any, **_: Any) -> list[Any]:
    run = _function(self.app, task)
    return [run(item) for item in it]


def _starmap(self: Any, task: Any, it: Any, **_: Any) -> list[Any]:
    run = _function(self.app, task)
    return [run(*item) for item in it]


def _chunks(self: Any, task: Any, it: Any, n: int, **_: Any) -> Any:
    return chunks.apply_chunks(maybe_signature(task, self.app), it, n, app=self.app)


def _function(app: Celeriac, task: Any) -> Callable[..., Any]:
    """The task of a signature, to be called with its partial arguments."""
    signature = maybe_signature(task, app)
    found: Callable[..., Any] = signature if signature.args or signature.kwargs else app.tasks[signature.task]
    return found


def _accumulate(*args: Any, index: int | None = None, **_: Any) -> Any:
    return args[index] if index is not None else args


def _backend_cleanup(self: Any) -> None:
    if self.app.backend is not None:
        self.app.backend.cleanup(time.time())


def _chord_unlock(
    self: Any,
    group_id: str,
    callback: Any,
    interval: float | None = None,
    max_retries: int | None = None,
    result: Any = None,
    **_: Any,
) -> None:
    """Wait for the parts of a chord that a stock client has started, then send its body."""
    app, body = self.app, maybe_signature(callback, self.app)
    records = app.backend.get([_id_of(part) for part in result or ()])
    failed = [record for record in records if record is not None and record.state in states.PROPAGATE_STATES]
    if not failed and any(record is None or not record.is_ready for record in records):
        pause = app.conf.result_chord_retry_interval if interval is None else interval
        raise self.retry(countdown=pause, max_retries=max_retries)
    if not failed:
        body.apply_async(([decode_result(record, app.result_accept) for record in records],))
        return
    error = ChordError(f"Dependency {failed[0].id} raised {decode_result(failed[0], app.result_accept)!r}")
    fail = import_object("celeriac.continuations:fail_now", "celery.chord_unlock")
    fail(app, self.request, body, error)


def _id_of(part: Any) -> str:
    head = part.id if isinstance(part, AsyncResult) else part[0]
    return head[0] if isinstance(head, (list, tuple)) else head


_BUILTINS: tuple[tuple[str, Callable[..., Any], bool], ...] = (
    ("celery.map", _map, True),
    ("celery.starmap", _starmap, True),
    ("celery.chunks", _chunks, True),
    ("celery.accumulate", _accumulate, False),
    ("celery.backend_cleanup", _backend_cleanup, True),
    ("celery.chord_unlock", _chord_unlock, True),
)
