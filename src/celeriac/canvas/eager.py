"""Runs a workflow in this process: `apply` of chain, group and chord, and these under `task_always_eager`.

Every task runs through `Task.apply`, which is the worker's code path; what is done here is what a broker and a result
store would do between the tasks. The values are the same as a worker's.
"""

from __future__ import annotations

from typing import Any

from celeriac import states
from celeriac.canvas.composing import is_group
from celeriac.canvas.freezing import assign
from celeriac.canvas.launching import end_id
from celeriac.canvas.members import own_copy
from celeriac.canvas.normalizing import is_chain, is_chord, normalize
from celeriac.errors import ChordError
from celeriac.group_result import GroupResult
from celeriac.loading import import_object
from celeriac.result import EagerResult

__all__ = ["apply"]

#: Options that have no meaning where nothing is sent.
_OF_SENDING = ("task_id", "connection", "producer", "retry", "retry_policy", "add_to_parent", "root_id", "parent_id")


def apply(signature: Any, args: Any, kwargs: Any, options: dict[str, Any]) -> Any:
    """Run a workflow here; returns what `apply_async` would, with the results there already."""
    whole = own_copy(signature)
    for key in ("link", "link_error"):
        whole.extend_list_option(key, options.get(key) or [])
    throw = options.get("throw")
    skipped = (*_OF_SENDING, "link", "link_error", "throw")
    whole.options.update({k: v for k, v in options.items() if v is not None and k not in skipped})
    tree = normalize(whole)
    assign(tree, signature.app, task_id=options.get("task_id"))
    return _run(signature.app, tree, args, kwargs, throw)


def _run(app: Any, signature: Any, args: Any, kwargs: Any, throw: bool | None) -> Any:
    if is_chain(signature):
        return _run_chain(app, signature, args, kwargs, throw)
    if is_group(signature):
        results = [_run(app, member, args, kwargs, throw) for member in signature.tasks]
        return GroupResult(signature.options["task_id"], results, app=app)
    if is_chord(signature):
        return _run_chord(app, signature, args, kwargs, throw)
    merged_args, merged_kwargs, options = signature.merge(args, kwargs, {"throw": throw})
    for key in ("group_index", "reply_to"):
        options.pop(key, None)
    return app.tasks[signature.task].apply(merged_args, merged_kwargs, **options)


def _run_chain(app: Any, signature: Any, args: Any, kwargs: Any, throw: bool | None) -> Any:
    first, *rest = signature.tasks
    result = _run(app, first, args, kwargs, throw)
    for step in rest:
        if result.state != states.SUCCESS:
            last_id = signature.options["task_id"]
            return _failed(last_id, result.result, result.traceback, parent=result)
        before, result = result, _run(app, step, (result.get(disable_sync_subtasks=False),), None, throw)
        result = _with_parent(result, before)
    return result


def _run_chord(app: Any, signature: Any, args: Any, kwargs: Any, throw: bool | None) -> Any:
    header = _run(app, signature["kwargs"]["header"], args, kwargs, throw)
    failed = next((part for part in header.results if part.state != states.SUCCESS), None)
    if failed is None:
        values = [part.get(disable_sync_subtasks=False) for part in header.results]
        return _with_parent(_run(app, signature.body, (values,), None, throw), header)
    error = ChordError(f"Dependency {failed.id} raised {failed.result!r}")
    import_object("celeriac.eager:fail_body", "chord")(app, signature.body, error)
    return _failed(end_id(signature.body), error, None, header)


def _failed(task_id: str, error: Any, trace: str | None, parent: Any) -> EagerResult[Any]:
    result: EagerResult[Any] = EagerResult(task_id, error, states.FAILURE, traceback=trace)
    _with_parent(result, parent)
    return result


def _with_parent(result: Any, parent: Any) -> Any:
    """The result with this one before it; a workflow's result has its own first steps before it."""
    first = result
    while first.parent is not None:
        first = first.parent
    first.parent = parent
    return result
