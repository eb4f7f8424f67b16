"""The built-in tasks that workflows use, under Celery's names, so that stock clients and workers know them, too.

Every app has them. `celery.map` and `celery.starmap` run what `Task.map` and `Task.starmap` send, `celery.accumulate`
returns the results of a group as a list, `celery.chord_unlock` waits for chords that stock clients start on stores
which can't count in their way. `celery.group` and `celery.chord` send a workflow that a message hands them as a whole.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from celeriac import states
from celeriac.canvas.chords import chord
from celeriac.canvas.groups import group
from celeriac.canvas.maps import chunks
from celeriac.errors import ChordError
from celeriac.loading import import_object
from celeriac.result import AsyncResult, result_from_tuple
from celeriac.signature import maybe_signature
from celeriac.wire.results import decode_result

if TYPE_CHECKING:
    from celeriac.app import Celeriac
from celeriac.timing import SYSTEM_CLOCK

__all__ = [
    "add_accumulate_task", "add_backend_cleanup_task", "add_builtins", "add_chain_task", "add_chord_task",
    "add_chunk_task", "add_group_task", "add_map_task", "add_starmap_task", "add_unlock_chord_task",
]  # fmt: skip


def add_builtins(app: Celeriac) -> None:
    """Register them with an app, unless it has tasks of these names."""
    for name in _BUILTINS:
        _add(name, app)


def _add(name: str, app: Celeriac) -> Any:
    function, is_bound = _BUILTINS[name]
    known = app.registered(name)
    return known if known is not None else app.task(function, name=name, bind=is_bound, typing=False)


def _map(self: Any, task: Any, it: Any, **_: Any) -> list[Any]:
    run = _function(self.app, task)
    return [run(item) for item in it]


def _starmap(self: Any, task: Any, it: Any, **_: Any) -> list[Any]:
    run = _function(self.app, task)
    return [run(*item) for item in it]


def _chunks(self: Any, task: Any, it: Any, n: int, **_: Any) -> Any:
    return chunks.apply_chunks(maybe_signature(task, self.app), it, n, app=self.app)


def _group(
    self: Any, tasks: Any, result: Any, group_id: str, partial_args: Any = (), add_to_parent: bool = True, **_: Any
) -> Any:
    """Send the members, under the ids that they have, and answer with what the sender takes for their result."""
    members = [maybe_signature(task, self.app) for task in tasks]
    sent = group(members, app=self.app).apply_async(partial_args, task_id=group_id, add_to_parent=add_to_parent)
    return sent if result is None else result_from_tuple(result, self.app)


def _chord(self: Any, header: Any, body: Any, partial_args: Any = (), **_: Any) -> Any:
    return chord(header, maybe_signature(body, self.app), app=self.app).apply_async(partial_args)


def _chain(*_: Any, **__: Any) -> None:
    raise NotImplementedError("celery.chain is a name for chains that travel in messages: nobody can run it as a task")


def _function(app: Celeriac, task: Any) -> Callable[..., Any]:
    """The task of a signature, to be called with its partial arguments."""
    signature = maybe_signature(task, app)
    found: Callable[..., Any] = signature if signature.args or signature.kwargs else app.tasks[signature.task]
    return found


def _accumulate(*args: Any, index: int | None = None, **_: Any) -> Any:
    return args[index] if index is not None else args


def _backend_cleanup(self: Any) -> None:
    if self.app.backend is not None:
        self.app.backend.cleanup(SYSTEM_CLOCK.now())


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


#: Name → the function, and whether the task is its first argument.
_BUILTINS: dict[str, tuple[Callable[..., Any], bool]] = {
    "celery.accumulate": (_accumulate, False),
    "celery.backend_cleanup": (_backend_cleanup, True),
    "celery.chain": (_chain, False),
    "celery.chord": (_chord, True),
    "celery.chord_unlock": (_chord_unlock, True),
    "celery.chunks": (_chunks, True),
    "celery.group": (_group, True),
    "celery.map": (_map, True),
    "celery.starmap": (_starmap, True),
}

# Celery's names for registering one of them with an app; each returns the task.
add_accumulate_task = partial(_add, "celery.accumulate")
add_backend_cleanup_task = partial(_add, "celery.backend_cleanup")
add_chain_task = partial(_add, "celery.chain")
add_chord_task = partial(_add, "celery.chord")
add_chunk_task = partial(_add, "celery.chunks")
add_group_task = partial(_add, "celery.group")
add_map_task = partial(_add, "celery.map")
add_starmap_task = partial(_add, "celery.starmap")
add_unlock_chord_task = partial(_add, "celery.chord_unlock")
