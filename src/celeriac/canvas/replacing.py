"""`Task.replace`: another workflow takes the place of the task that runs.

The task ends without a result; the end of the new workflow gets its id, its callbacks, its place in chain, group and
chord. `replace` raises `Replaced`, the execution makes the messages of it, and the committer sends them as it sends
other continuations: a crash before that repeats the task, one after it repeats nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from celeriac.canvas.composing import is_group
from celeriac.canvas.freezing import SameIds, assign
from celeriac.canvas.launching import Place
from celeriac.canvas.normalizing import accumulated, follow, is_chain, is_chord, link_end, link_errors, normalize
from celeriac.canvas.stamping import stamp
from celeriac.context import Context
from celeriac.errors import Ignore, ImproperlyConfigured
from celeriac.signature import maybe_signature

if TYPE_CHECKING:
    from celeriac.app import Celeriac

__all__ = ["Replaced", "checked", "replace", "replacement"]


class Replaced(Ignore):
    """The task has put another workflow into its place."""

    def __init__(self, signature: Any) -> None:
        super().__init__("Replaced by new task")
        self.signature = signature


def checked(app: Celeriac, signature: Any) -> Any:
    """A signature that can take the place of a task.

    Raises:
        ImproperlyConfigured: It is an empty chain, or has a chord of its own as option.
    """
    signature = maybe_signature(signature, app)
    if "chord" in signature.options:
        raise ImproperlyConfigured("A signature replacing a task must not be part of a chord")
    if is_chain(signature) and not signature.tasks:
        raise ImproperlyConfigured("Cannot replace with an empty chain")
    return signature


def replace(app: Celeriac, context: Context, signature: Any) -> Any:
    """What `Task.on_replace` does: raises `Replaced`; run eagerly, it returns the value."""
    if context.is_eager:
        return maybe_signature(accumulated(normalize(signature)), app).apply().get(disable_sync_subtasks=False)
    raise Replaced(signature)


def replacement(app: Celeriac, context: Context, signature: Any) -> tuple[Any, Place, dict[str, Any]]:
    """The new workflow as it is to be launched, its place, and options for what runs first."""
    tree = accumulated(normalize(signature))
    for callback in context.callbacks or ():
        link_end(tree, maybe_signature(callback, app))
    for errback in context.errbacks or ():
        link_errors(tree, maybe_signature(errback, app))
    if context.stamped_headers:
        stamp(tree, None, False, {**(context.stamps or {}), "stamped_headers": context.stamped_headers})
    nesting = context.replaced_task_nesting + 1
    ids = SameIds(f"{context.id}:{nesting}:replace")
    assign(tree, app, ids, task_id=context.id)
    _end(tree).options["replaced_task_nesting"] = nesting
    for step in reversed(context.chain or ()):
        tree = follow(tree, normalize(maybe_signature(step, app)))
    assign(tree, app, ids)
    place = Place(context.group, context.group_index, context.chord)
    return tree, place, {"root_id": context.root_id, "parent_id": context.id}


def _end(signature: Any) -> Any:
    while is_chain(signature) or is_chord(signature):
        signature = signature.tasks[-1] if is_chain(signature) else signature.body
    assert not is_group(signature)  # noqa: S101 -- `accumulated` saw to it
    return signature
