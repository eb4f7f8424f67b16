"""Sends a workflow from a client: `apply_async` of chain, group and chord.

Messages are made and handed to the broker in batches, so a group of a generator is never in memory as a whole. A chord's
start is written to the result store before its first part is sent.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

from celeriac.canvas.alike import Alike
from celeriac.canvas.composing import is_group
from celeriac.canvas.eager import apply
from celeriac.canvas.freezing import assign
from celeriac.canvas.launching import Place, launch, place_of
from celeriac.canvas.members import own_copy
from celeriac.canvas.normalizing import flattened, hand_on, has_chord, normalize
from celeriac.canvas.stores import chord_store
from celeriac.chord_notes import begin
from celeriac.context import running
from celeriac.group_result import GroupResult
from celeriac.many import fresh_ids
from celeriac.message import Message
from celeriac.outcome import ChordStart
from celeriac.sending import Ahead, new_id
from celeriac.wire.messages import CallForm

__all__ = ["publish", "send"]


def send(signature: Any, args: Any, kwargs: Any, options: dict[str, Any]) -> Any:
    """Send a chain, group or chord; returns its result to come.

    Raises:
        NotImplementedError: It has a chord in it, and there is no result store that can count its parts.
    """
    app = signature.app
    if app.conf.task_always_eager:
        return apply(signature, args, kwargs, options)
    options = {key: value for key, value in options.items() if value is not None}
    how: dict[str, Any] = {
        key: options.pop(key) for key in ("connection", "retry", "retry_policy", "producer") if key in options
    }
    task_id, to_parent = options.pop("task_id", None), options.pop("add_to_parent", True)
    relation: dict[str, Any] = {key: options.pop(key) for key in ("root_id", "parent_id", "chain") if key in options}
    whole = own_copy(signature)
    for key in ("link", "link_error"):
        whole.extend_list_option(key, options.pop(key, None) or [])
    whole.options.update(options)
    if is_group(whole):
        result = _send_group(app, whole, args, kwargs, relation, task_id, how)
    else:
        tree = normalize(whole)
        if has_chord(tree):
            chord_store(app)
        result = assign(tree, app, task_id=task_id)
        place = place_of(whole.options)
        publish(app, launch(app, tree, args, kwargs, relation, place, is_checked=True), how)
    context = running.get()
    if to_parent and context is not None and not context.called_directly:
        context.children = [*(context.children or ()), result]
    return result


def _send_group(
    app: Any, whole: Any, args: Any, kwargs: Any, relation: Any, task_id: str | None, how: Mapping[str, Any]
) -> GroupResult:
    """Make, send and forget one member after the other."""
    group_id = task_id or whole.options.pop("task_id", None) or new_id()
    own = {
        key: value for key, value in whole.options.items() if key not in ("root_id", "parent_id", "link", "link_error")
    }
    place = place_of(own)
    results: list[Any] = []
    forms: dict[Any, CallForm] = {}
    common = {"reply_to": app.oid, **own, **relation, "group_id": group_id, "add_to_parent": False}
    alike = Alike(app, (*(args or ()), *whole.args), kwargs or {}, common)
    has_more = bool(place.chord or common.get("chain"))
    next_id = fresh_ids().__next__

    def messages() -> Iterator[Message | ChordStart]:
        for given in whole.take_members():
            if alike.takes(given) and not has_more:
                message, result = alike.message(given, next_id(), len(results))
                results.append(result)
                yield message
                continue
            for member in flattened([given]):
                index = len(results)
                hand_on(member, whole.args, own)
                results.append(assign(member, app, next_id, group_index=index))
                where = Place(group_id, index, place.chord)
                yield from launch(app, member, args, kwargs, relation, where, is_checked=True, forms=forms)

    publish(app, messages(), how)
    return GroupResult(group_id, results, app=app)


def publish(app: Any, items: Iterator[Message | ChordStart], how: Mapping[str, Any]) -> None:
    """Hand messages to the broker in batches, and what starts a chord to the result store before its messages."""
    with Ahead(app, how) as ahead:
        while batch := list(islice(items, app.transport.capabilities.batch)):
            for start in batch:
                if isinstance(start, ChordStart):
                    begin(chord_store(app), start)
            messages = [message for message in batch if not isinstance(message, ChordStart)]
            if messages:
                ahead.publish(messages)
