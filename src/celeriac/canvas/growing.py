"""Workflows that grow while they run: `Task.add_to_chord` and `Task.add_to_group`.

The running task is a member that has not ended, so its group or chord can't be over before the new member is kept in the
store. An execution that is repeated after a crash adds the same members again, with the same ids, and they count once.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from celeriac.canvas.freezing import SameIds, assign
from celeriac.canvas.launching import Place, placed
from celeriac.canvas.normalizing import accumulated, normalize
from celeriac.canvas.stores import chord_store
from celeriac.context import Context
from celeriac.recording import lifetime_of
from celeriac.results.base import added_id
from celeriac.signature import maybe_signature
from celeriac.states import SUCCESS

if TYPE_CHECKING:
    from celeriac.app import Celeriac

__all__ = ["add_to_chord", "add_to_group"]


def add_to_chord(app: Celeriac, context: Context, signature: Any, lazy: bool) -> Any:
    """Expect one more part and send it (or, with `lazy`, return it to be sent later).

    Raises:
        ValueError: The running task is not a part of a chord.
        NotImplementedError: The result store can't count further parts.
    """
    if not context.chord or not context.group:
        raise ValueError("Current task is not member of any chord")
    store = _growing_store(app)
    if not context.chord.get("chord_size") and store.get_group(context.group) is not None:
        raise NotImplementedError("a chord without the header chord_size, of an old client, can't grow")
    tree = _with_ids(app, context, signature)
    index = store.grow_group(context.group, _id_of(tree), None, True)
    part = placed(tree, Place(context.group, index, context.chord))
    return part if lazy else part.apply_async()


def add_to_group(app: Celeriac, context: Context, signature: Any, lazy: bool) -> Any:
    """Put one more member into the group that the running task belongs to, and send it.

    Raises:
        ValueError: The running task is not a member of a group.
        NotImplementedError: The result store can't keep further members.
    """
    if context.chord and context.group:
        return add_to_chord(app, context, signature, lazy)
    if not context.group:
        raise ValueError("the running task is not a member of a group: nothing can be added to it")
    store = _growing_store(app)
    tree = _with_ids(app, context, signature)
    index = store.grow_group(added_id(context.group), _id_of(tree), _expires_at(app), False)
    member = placed(tree, Place(context.group, index))
    return member if lazy else member.apply_async()


def _growing_store(app: Celeriac) -> Any:
    store = chord_store(app)
    if not hasattr(store, "grow_group"):
        raise NotImplementedError(
            f"{store.url} can't add to a workflow that runs; databases, Redis, Memcached and files can"
        )
    return store


def _with_ids(app: Celeriac, context: Context, signature: Any) -> Any:
    """The workflow to be added, with ids that are the same whenever this execution is repeated."""
    context.added = number = context.added + 1
    tree = accumulated(normalize(maybe_signature(signature, app)))
    assign(tree, app, SameIds(f"{context.id}:{context.retries}:add:{number}"))
    return tree


def _id_of(tree: Any) -> str:
    task_id: str = assign(tree, tree.app).id
    return task_id


def _expires_at(app: Celeriac) -> float | None:
    lifetime = lifetime_of(app, SUCCESS)
    return time.time() + lifetime if lifetime else None
