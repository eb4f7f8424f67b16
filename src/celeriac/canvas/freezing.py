"""Gives a workflow its ids before it is sent, and makes the tree of its results.

`assign` works on what `normalize` returned; `freeze` is `Signature.freeze`, which changes the user's own signature. Ids
come from a source, so that a worker that sends a workflow again after a crash gives it the same ids.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from celeriac.canvas.composing import is_group
from celeriac.canvas.normalizing import is_chain, is_chord, normalize
from celeriac.group_result import GroupResult
from celeriac.result import AsyncResult
from celeriac.sending import new_id
from celeriac.signature import Signature, maybe_signature

__all__ = ["SameIds", "assign", "freeze", "steps_of"]

_NAMESPACE = uuid.UUID("6f3b3f0e-8f5c-4a8e-9a2c-5d1f0c7e4b11")


class SameIds:
    """A source of ids that gives the same ids for the same seed."""

    def __init__(self, seed: str) -> None:
        self._seed = seed
        self._count = 0

    def __call__(self) -> str:
        """The next id."""
        text = f"{self._seed}:{self._count}" if self._count else self._seed
        self._count += 1
        return str(uuid.uuid5(_NAMESPACE, text))


def assign(
    signature: Any,
    app: Any,
    ids: Callable[[], str] = new_id,
    *,
    task_id: str | None = None,
    parent: Any = None,
    group_index: int | None = None,
) -> Any:
    """Give every task of a normalized workflow an id, unless it has one; returns the result to come.

    Args:
        signature: The workflow. It is changed.
        app: Whose results these are.
        ids: Where ids come from.
        task_id: Id of its last task (of a group, of the group).
        parent: Result of what comes before it.
        group_index: Its place in a group.
    """
    options = signature.options
    if is_chain(signature):
        steps = signature.tasks
        last_id = task_id or options.get("task_id")
        for number, step in enumerate(steps):
            is_last = number == len(steps) - 1
            place: dict[str, Any] = {"task_id": last_id, "group_index": group_index} if is_last else {}
            parent = assign(step, app, ids, parent=parent, **place)
        options["task_id"] = parent.id
        return parent
    if is_group(signature):
        group_id = options["task_id"] = task_id or options.get("task_id") or ids()
        options["root_id"] = options["parent_id"] = None
        results = [assign(member, app, ids, group_index=i) for i, member in enumerate(signature.tasks)]
        return GroupResult(group_id, results, parent=parent, app=app)
    if is_chord(signature):
        header = signature["kwargs"]["header"]
        before = assign(header, app, ids, parent=parent)
        options["task_id"] = before.id
        return assign(signature.body, app, ids, task_id=task_id, parent=before, group_index=group_index)
    if group_index is not None:
        options["group_index"] = group_index
    options["task_id"] = task_id or options.get("task_id") or ids()
    options.setdefault("reply_to", app.oid)
    return AsyncResult(options["task_id"], app=app, parent=parent)


def freeze(signature: Any, app: Any, task_id: str | None) -> Any:
    """Give a signature its ids and return its result to come; sent later, it is sent with these ids."""
    whole = normalize(signature)
    place = {key: signature.options[key] for key in ("group_id", "group_index", "chord") if key in signature.options}
    result = assign(whole, app, task_id=task_id, group_index=place.get("group_index"))
    if is_chain(signature):
        signature["kwargs"]["tasks"] = whole.tasks if is_chain(whole) else [whole]
    elif whole.get("subtask_type"):
        signature["kwargs"] = whole["kwargs"]
    signature["options"] = {**whole.options, **place}
    signature["args"] = () if whole.get("subtask_type") else whole["args"]
    return result


def steps_of(
    app: Any, tasks: Sequence[Any], args: Any, kwargs: Any, given: Mapping[str, Any], last: Mapping[str, Any],
    link_error: Any, task_id: str | None, group_index: int | None,
) -> tuple[list[Any], list[Any]]:  # fmt: skip
    """What `chain.prepare_steps` returns: the steps of a chain of these tasks with their ids, and results; last ones first.

    Args:
        given: Options of all steps.
        last: Options of the last one.
        link_error: Error callback of all of them.
        task_id: Id of the last one.
    """
    first, *rest = [maybe_signature(task, app, clone=True) for task in tasks]
    whole = normalize(Signature.from_dict(
        {"task": "celery.chain", "subtask_type": "chain", "args": (), "options": {}, "immutable": False,
         "kwargs": {"tasks": [first.clone(args, kwargs), *rest]}}, app
    ))  # fmt: skip
    result = assign(whole, app, task_id=task_id, group_index=group_index)
    steps = list(whole.tasks) if is_chain(whole) else [whole]
    for step in steps:
        step.options.update({key: value for key, value in given.items() if value is not None})
        for errback in [link_error] if isinstance(link_error, Mapping) else link_error or ():
            step.link_error(errback)
    steps[-1].options.update({key: value for key, value in last.items() if value is not None})
    results = []
    for _ in steps:
        results.append(result)
        result = result.parent
    return steps[::-1], results
