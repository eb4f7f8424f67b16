"""What `a | b` makes: the rules by which two signatures become a workflow.

`Signature.__or__` calls `join`. Nothing is sent or changed here: a new composite shares the parts of the old ones. The
rules are Celery's documented ones, down to the form, since forms travel and are compared.

    task | task      a chain             group | anything       a chord
    task | chain     a longer chain      chain of … group | t   its group becomes a chord
    task | group     a chain             chord | task           its body goes on
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import reduce
from typing import Any

from celeriac.signature import Signature

__all__ = ["is_group", "join", "join_all", "unrolled"]


def is_group(signature: Any) -> bool:
    """Whether it is a group."""
    return bool(signature.get("subtask_type") == "group")


def unrolled(signature: Any) -> Any:
    """A group of one is its member; anything else is itself."""
    if is_group(signature):
        members = signature.tasks
        if isinstance(members, list) and len(members) == 1:
            return members[0]
    return signature


def join_all(steps: Iterable[Any]) -> Any:
    """`steps[0] | steps[1] | …`; one step alone is a chain of one."""
    return reduce(join, steps, Signature.TYPES["chain"]())


def join(left: Any, right: Any) -> Any:
    """`left | right`."""
    kind = left.get("subtask_type")
    if kind == "chain":
        return _after_chain(left, right)
    if kind == "group":
        return left if _is_empty_group(right) else _chord(left, right)
    if kind == "chord":
        return _after_chord(left, right)
    return _chain([left, *_steps(right)], left)


def _after_chain(left: Any, right: Any) -> Any:
    steps = left.unchain_tasks()
    if not steps:
        right = unrolled(right)
        return right if is_group(right) else _chain(_steps(right), left)
    if right.get("subtask_type") == "chain":
        return reduce(join, right.unchain_tasks(), left)
    right = unrolled(right)
    if _is_empty_group(right):
        return left
    last, kind = steps[-1], right.get("subtask_type")
    if is_group(last) and kind not in ("group", "chord"):
        steps[-1] = _chord(last, right)
    elif last.get("subtask_type") == "chord" and kind != "chord":
        steps[-1] = last.with_body(join(last.body, right))
    else:
        steps.append(right)
    return _chain(steps, left)


def _after_chord(left: Any, right: Any) -> Any:
    right = unrolled(right)
    if _is_empty_group(right):
        return left
    if right.get("subtask_type") in ("group", "chain"):
        return _chain([left, *_steps(right)], left)
    return left.with_body(join(left.body, right) if left.body is not None else right)


def _steps(signature: Any) -> list[Any]:
    """What a signature adds to a chain."""
    if signature.get("subtask_type") == "chain":
        steps: list[Any] = signature.unchain_tasks()
        return steps
    return [unrolled(signature)]


def _is_empty_group(signature: Any) -> bool:
    return is_group(signature) and isinstance(signature.tasks, list) and not signature.tasks


def _chain(steps: list[Any], like: Any) -> Any:
    return Signature.TYPES["chain"](*steps, app=like._app) if len(steps) != 1 else _chain_of_one(steps, like)


def _chain_of_one(steps: list[Any], like: Any) -> Any:
    return Signature.TYPES["chain"](steps, app=like._app)


def _chord(header: Any, body: Any) -> Any:
    return Signature.TYPES["chord"](header, body=body, app=header._app)
