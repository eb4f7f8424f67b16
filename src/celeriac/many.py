"""Sending many calls: `app.publish_many`.

Messages are made and handed to the broker in pieces, while the signatures are taken one after the other, so a generator is
never in memory as a whole. Where the broker can do it, one piece is on its way while the next is made. The message of the
first call of a kind is made by `sending.prepare`, as that of a single call; those that are alike share its form, and ids come
from one look at the clock and one at the random numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from celeriac.context import running
from celeriac.sending import Ahead, filled, new_ids, prepare
from celeriac.signature import Signature

if TYPE_CHECKING:
    from celeriac.app import Celeriac
    from celeriac.message import Message
    from celeriac.wire.messages import CallForm

__all__ = ["fresh_ids", "publish_many"]

#: Ids that are made at once.
IDS = 250


def fresh_ids() -> Iterator[str]:
    """New ids without end, made in pieces."""
    while True:
        yield from new_ids(IDS)


def publish_many(app: Celeriac, signatures: Iterable[Signature]) -> list[Any]:
    """Send many calls; returns their results to come. Workflows, and tasks of which one is to run at a time, go one by one.

    Raises:
        OperationalError: The broker can't be reached. Earlier pieces are there, and nothing of later ones.
    """
    results: list[Any] = []
    forms: dict[Any, CallForm] = {}
    coming = iter(signatures)
    with Ahead(app) as ahead:
        while piece := list(islice(coming, app.transport.capabilities.batch)):
            messages = _messages(app, piece, forms, results)
            if messages:
                ahead.publish(messages)
    return results


def _messages(
    app: Celeriac, piece: Sequence[Signature], forms: dict[Any, CallForm], results: list[Any]
) -> list[Message]:
    """The messages of a piece; its results to come are put behind those of the former ones."""
    tasks, context = app.tasks, running.get()
    plain = app.plain_calls if context is None or context.called_directly else {}
    messages = []
    for sig, task_id in zip(piece, new_ids(len(piece)), strict=True):
        name, options = sig["task"], sig["options"]
        form = None if options or sig["subtask_type"] else plain.get(name)
        if form is not None and sig["args"].__class__ is tuple:
            message, result = filled(app, form, task_id, sig["args"], sig["kwargs"])
            messages.append(message)
            results.append(result)
            continue
        task = tasks.get(name)
        if sig["subtask_type"] or (task is not None and task.unique):
            results.append(sig.apply_async())
            continue
        if options.get("task_id"):
            task_id, options = options["task_id"], {**options, "is_named": True}
        message, result = prepare(
            app, name, sig["args"], sig["kwargs"], task_id, task=task, options=options, forms=forms
        )
        messages.append(message)
        results.append(result)
    return messages
