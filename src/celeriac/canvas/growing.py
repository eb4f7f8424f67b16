"""`Task.add_to_chord`: one more part for the header of the chord that the running task belongs to.

Only stores that keep the number of parts themselves can do it (Redis, as with stock Celery). The running task is a part
that has not ended, so the chord can't be over before the new part is counted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from celeriac.canvas.freezing import assign
from celeriac.canvas.launching import Place, placed
from celeriac.canvas.normalizing import accumulated, normalize
from celeriac.canvas.stores import chord_store
from celeriac.context import Context
from celeriac.signature import maybe_signature

if TYPE_CHECKING:
    from celeriac.app import Celeriac

__all__ = ["add_to_chord"]

#: Place of added parts in the body's list: after those that the chord was sent with.
LATE = 1_000_000_000


def add_to_chord(app: Celeriac, context: Context, signature: Any, lazy: bool) -> Any:
    """Count one more part and send it (or, with `lazy`, return it to be sent later).

    Raises:
        ValueError: The running task is not a part of a chord.
        NotImplementedError: The result store can't count further parts.
    """
    if not context.chord or not context.group:
        raise ValueError("Current task is not member of any chord")
    store = chord_store(app)
    if not hasattr(store, "grow_chord"):
        raise NotImplementedError(f"{store.url} can't add parts to a chord that runs; Redis can")
    tree = accumulated(normalize(maybe_signature(signature, app)))
    assign(tree, app, group_index=LATE)
    part = placed(tree, Place(context.group, LATE, context.chord))
    store.grow_chord(context.group)
    return part if lazy else part.apply_async()
