"""Brings a workflow into the one form in which it is sent.

`normalize` returns a copy in which only these are left:

    task     a call of a task
    chain    steps, of which only the last may be a group or a chord
    group    members, none of which is a group
    chord    a header group, each part of which ends in one task, and a body

What follows a group becomes the body of a chord, what follows a chord goes on its body, groups in groups are one group,
and a part of a header that ends in a group gets `celery.accumulate` after it, so that it has one value and one end. So
whoever sends, runs or counts knows four cases. Options, arguments and links of composites are handed on to their tasks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from celeriac.canvas.composing import is_group, unrolled
from celeriac.canvas.members import own_copy
from celeriac.signature import Signature

__all__ = [
    "accumulated", "flattened", "follow", "hand_on", "has_chord", "is_chain", "is_chord", "link_end", "link_errors",
    "normalize",
]  # fmt: skip

#: Options that say where a composite stands, not how its tasks are sent.
_STRUCTURE = frozenset({
    "task_id", "group_id", "group_index", "root_id", "parent_id", "chord", "chain", "reply_to", "link", "link_error",
    "add_to_parent",
})  # fmt: skip
#: Options of a chord that are its header's alone.
_TIMES = ("countdown", "eta")


def is_chain(signature: Any) -> bool:
    """Whether it is a chain."""
    return bool(signature.get("subtask_type") == "chain")


def is_chord(signature: Any) -> bool:
    """Whether it is a chord."""
    return bool(signature.get("subtask_type") == "chord")


def normalize(signature: Any) -> Any:
    """A copy of the workflow in the form in which it is sent. An empty chain becomes an empty group."""
    if is_chain(signature):
        return _chain(signature)
    if is_group(signature):
        return _group(signature)
    if is_chord(signature):
        return _chord(signature)
    if signature.task == "celery.chunks":
        return normalize(Signature.TYPES["chunks"].from_dict(signature, app=signature._app).group())
    return own_copy(signature)


def _chain(signature: Any) -> Any:
    steps: list[Any] = []
    own = signature.tasks
    for step in own:
        _add(steps, normalize(unrolled(step) if len(own) > 1 else step))
    if not steps:
        return Signature.TYPES["group"]([], app=signature._app)
    whole = _of_steps(steps, signature)
    _hand_on_own(signature, whole)
    if is_chain(whole) and signature.options.get("task_id"):
        whole.options["task_id"] = signature.options["task_id"]
    return whole


def _of_steps(steps: list[Any], like: Any) -> Any:
    return steps[0] if len(steps) == 1 else Signature.TYPES["chain"](*steps, app=like._app)


def _add(steps: list[Any], step: Any) -> None:
    """Put a normalized step at the end of steps."""
    if is_chain(step):
        for each in step.tasks:
            _add(steps, each)
    elif steps and is_group(step) and not step.tasks:
        return  # nothing to do with the value: it stays
    elif steps and is_group(steps[-1]):
        steps[-1] = _chord_of(steps[-1], step)
    elif steps and is_chord(steps[-1]):
        steps[-1].body = follow(steps[-1].body, step)
    else:
        steps.append(step)


def follow(first: Any, then: Any) -> Any:
    """Two normalized workflows, one after the other. They become part of the new one."""
    steps = list(first.tasks) if is_chain(first) else [first]
    _add(steps, then)
    return _of_steps(steps, first)


def _group(signature: Any) -> Any:
    whole = Signature.TYPES["group"](list(flattened(signature.tasks)), app=signature._app)
    whole["options"] = {key: value for key, value in signature.options.items() if key in ("task_id",)}
    _hand_on_own(signature, whole)
    return whole


def flattened(members: Iterable[Any]) -> Iterator[Any]:
    """The members normalized, with those of inner groups among them."""
    for member in members:
        found = normalize(member)
        if is_group(found):
            yield from found.tasks
        else:
            yield found


def _chord(signature: Any) -> Any:
    header = signature["kwargs"]["header"]
    known = None if isinstance(header, list) else header.options.get("task_id")
    body = signature.body
    if body is None:
        raise ValueError(f"a chord needs a body: {signature!r}")
    group = Signature.TYPES["group"](list(flattened(signature.tasks)), app=signature._app)
    if known:
        group.options["task_id"] = known
    whole = _chord_of(group, normalize(body))
    _hand_on_own(signature, whole)
    return whole


def _chord_of(header: Any, body: Any) -> Any:
    """A chord of a normalized group and a normalized body."""
    app = header._app or body._app
    parts = [accumulated(part) for part in header.tasks]
    header["kwargs"]["tasks"] = parts
    whole = Signature.TYPES["chord"]([], body=body, app=app)
    whole["kwargs"]["header"] = header
    return whole


def accumulated(signature: Any) -> Any:
    """The normalized workflow with one task at its end: after a group one that returns the list of its results."""
    if not _ends_in_group(signature):
        return signature
    return follow(signature, Signature("celery.accumulate", (), {"index": 0}, app=signature._app))


def _ends_in_group(signature: Any) -> bool:
    while not is_group(signature):
        if is_chain(signature):
            signature = signature.tasks[-1]
        elif is_chord(signature):
            signature = signature.body
        else:
            return False
    return True


def has_chord(signature: Any) -> bool:
    """Whether a normalized workflow has a chord in it."""
    if is_chain(signature):
        return has_chord(signature.tasks[-1])
    if is_group(signature):
        return any(map(has_chord, signature.tasks))
    return is_chord(signature)


# What a composite hands on to its tasks.


def _hand_on_own(signature: Any, whole: Any) -> None:
    """Hand on the arguments, options and links of a composite to the tasks of its normalized form."""
    options = signature.options
    own = {key: value for key, value in options.items() if key not in _STRUCTURE}
    if own or signature["args"]:
        hand_on(whole, tuple(signature["args"] or ()), own)
    for callback in _listed(options.get("link")):
        link_end(whole, callback)
    for errback in _listed(options.get("link_error")):
        link_errors(whole, errback)


def hand_on(signature: Any, args: tuple[Any, ...], options: Mapping[str, Any]) -> None:
    """Give arguments and options to where a normalized workflow begins; options also to a chord's body."""
    if is_chain(signature):
        hand_on(signature.tasks[0], args, options)
    elif is_group(signature):
        for member in signature.tasks:
            hand_on(member, args, options)
    elif is_chord(signature):
        hand_on(signature["kwargs"]["header"], args, options)
        hand_on(signature.body, (), {key: value for key, value in options.items() if key not in _TIMES})
    else:
        signature.options.update(options)
        if args and not signature.immutable:
            signature["args"] = (*args, *signature.args)


def link_end(signature: Any, callback: Any) -> None:
    """Link a callback to the end of a normalized workflow."""
    if is_chain(signature):
        link_end(signature.tasks[-1], callback)
    elif is_chord(signature):
        link_end(signature.body, callback)
    elif is_group(signature):
        for member in signature.tasks[:1]:
            link_end(member, callback)
    else:
        signature.link(callback)


def link_errors(signature: Any, errback: Any) -> None:
    """Link an error callback to every task of a normalized workflow whose failure ends it."""
    if is_chord(signature):
        link_errors(signature.body, errback)
    elif is_chain(signature) or is_group(signature):
        for member in signature.tasks:
            link_errors(member, errback)
    else:
        signature.link_error(errback)


def _listed(links: Any) -> list[Any]:
    if not links:
        return []
    return list(links) if isinstance(links, (list, tuple)) else [links]
