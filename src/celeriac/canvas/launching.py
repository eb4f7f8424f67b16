"""From a workflow to the messages that start it.

`launch` takes a normalized workflow with ids and yields the messages of all tasks that can run now, each with what it
needs to let the rest follow: the later steps of its chain, the body of its chord. A chord's start comes before the
messages of its parts, since it has to be known to the result store before the first part can end. Both clients
(`publishing`) and workers (`continuations`, `joining`) send what it yields.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from celeriac.canvas.carrying import carried, flat
from celeriac.canvas.composing import is_group
from celeriac.canvas.members import own_copy
from celeriac.canvas.normalizing import is_chain, is_chord
from celeriac.chord_notes import open_note
from celeriac.codec import Constant, dumps
from celeriac.errors import EncodeError
from celeriac.message import Message
from celeriac.outcome import ChordStart
from celeriac.results.base import Record
from celeriac.sending import prepare
from celeriac.signature import maybe_signature
from celeriac.timing import SYSTEM_CLOCK

if TYPE_CHECKING:
    from celeriac.app import Celeriac
    from celeriac.wire.messages import CallForm

__all__ = ["NOWHERE", "Place", "end_id", "end_place", "ends", "launch", "part_ids", "place_of", "placed"]


class Place(NamedTuple):
    """Where a workflow stands in a group, and which chord's body waits for its end."""

    group_id: str | None = None
    group_index: int | None = None
    chord: Any = None


NOWHERE = Place()


def end_place(signature: Any) -> Place:
    """The place in another workflow of a workflow's last task."""
    while signature.get("subtask_type"):
        if is_group(signature):
            return NOWHERE
        signature = maybe_signature(signature.tasks[-1] if is_chain(signature) else signature.body)
    return place_of(signature.options)


def ends(signature: Any) -> Iterator[Any]:
    """The tasks with which a workflow ends: several if it ends in a group."""
    if is_group(signature):
        for member in signature.tasks:
            yield from ends(maybe_signature(member))
    elif is_chain(signature):
        yield from ends(maybe_signature(signature.tasks[-1]))
    elif is_chord(signature):
        yield from ends(signature.body)
    else:
        yield signature


def place_of(options: Mapping[str, Any]) -> Place:
    """The place that options tell."""
    return Place(options.get("group_id"), options.get("group_index"), options.get("chord"))


def launch(
    app: Celeriac,
    signature: Any,
    args: Any = (),
    kwargs: Any = None,
    options: Mapping[str, Any] | None = None,
    place: Place = NOWHERE,
    *,
    is_checked: bool = False,
    forms: dict[Any, CallForm] | None = None,
) -> Iterator[Message | ChordStart]:
    """What starts a normalized workflow with ids.

    Args:
        app: Who sends it.
        signature: The workflow.
        args: Arguments of what runs first.
        kwargs: Keyword arguments of what runs first.
        options: Options of what runs first; `chain` is what runs after the whole.
        place: Where the workflow stands in another one.
        is_checked: Check the arguments against the tasks' functions.
        forms: What the members of a group share that are alike; see `sending.prepare`.
    """
    if is_chain(signature):
        first, *rest = signature.tasks
        rest[-1] = placed(rest[-1], place)
        given = dict(options or {})
        given["chain"] = [*(given.get("chain") or ()), *reversed(list(flat(rest)))]
        yield from launch(app, first, args, kwargs, given, is_checked=is_checked)
    elif is_group(signature):
        group_id = signature.options["task_id"]
        forms = {} if forms is None else forms
        for index, member in enumerate(signature.tasks):
            where = Place(group_id, index, place.chord)
            if end_place(member).chord:  # a stock client's: its members are parts of the outer chord's header
                where = NOWHERE
            yield from launch(app, member, args, kwargs, options, where, is_checked=is_checked, forms=forms)
    elif is_chord(signature):
        yield from _launch_chord(app, signature, args, kwargs, options, place, is_checked)
    else:
        yield _message(app, signature, place, args, kwargs, options or {}, is_checked, forms)


def _launch_chord(
    app: Celeriac, signature: Any, args: Any, kwargs: Any, options: Any, place: Place, is_checked: bool
) -> Iterator[Message | ChordStart]:
    header = signature["kwargs"]["header"]
    group_id, size = header.options["task_id"], len(header.tasks)
    given = dict(options or {})
    body = signature.body
    if place.group_id:
        body = placed(body, place)
    elif not end_place(body).group_id:  # it has none from before it travelled
        body = placed(body, Place(group_id))
    for step in reversed(given.pop("chain", None) or ()):
        body = _with_chain(body, step)
    if not size:
        yield from launch(app, body, ([],), None, _relation(given))
        return
    body, expires_at = carried(body, size), _expires_at(app)
    note = _note(app, group_id, header.tasks, body, expires_at)
    yield ChordStart(group_id, size, _group_value(group_id, header.tasks), expires_at, note)
    yield from launch(app, header, args, kwargs, given, Place(group_id, None, body), is_checked=is_checked)


def _with_chain(body: Any, step: Any) -> Any:
    """What foreign clients let run after a chord in their own way: it follows the body."""
    twin = own_copy(body)
    twin.options["chain"] = [*(twin.options.get("chain") or ()), step]
    return twin


def _relation(options: Mapping[str, Any]) -> dict[str, Any]:
    return {key: options[key] for key in ("root_id", "parent_id", "add_to_parent") if key in options}


def placed(signature: Any, place: Place) -> Any:
    """The workflow with its last task in this place of another one; the rest is shared with it."""
    if place == NOWHERE:
        return signature
    if is_group(signature):  # it has no one end: a body that is a group
        return signature
    twin = own_copy(signature)
    if is_chain(signature):
        steps = signature.tasks
        twin["kwargs"] = {**twin["kwargs"], "tasks": [*steps[:-1], placed(steps[-1], place)]}
    elif is_chord(signature):
        twin["kwargs"] = {**twin["kwargs"], "body": placed(signature.body, place)}
    else:
        _put(twin.options, place)
    return twin


def _put(options: dict[str, Any], place: Place) -> None:
    """Into this place with a task of these options."""
    if place.group_id is not None:
        options["group_id"] = place.group_id
    if place.group_index is not None:
        options["group_index"] = place.group_index
    if place.chord is not None:
        options["chord"] = place.chord


def _message(
    app: Celeriac,
    signature: Any,
    place: Place,
    args: Any,
    kwargs: Any,
    options: Mapping[str, Any],
    is_checked: bool,
    forms: dict[Any, CallForm] | None,
) -> Message:
    after, own = options.get("chain") or (), signature.options.get("chain") or ()
    chain = [*after, *own] if own else after
    merged_args, merged_kwargs, merged = signature.merge(args, kwargs, options)
    _put(merged, place)
    merged["add_to_parent"] = False  # whoever launches writes the trail
    if chain:
        merged["chain"] = chain
    task = app.tasks.get(signature.task)
    if is_checked and task is not None and task.typing:
        task.check_arguments(merged_args, merged_kwargs)
    if merged.get("chord") and (merged.get("ignore_result") or (task is not None and task.ignore_result)):
        merged["ignore_result"] = False  # the body gets it
    task_id = merged.pop("task_id", None)
    name = signature.task
    return prepare(app, name, merged_args, merged_kwargs, task_id, task=task, options=merged, forms=forms)[0]


def _expires_at(app: Celeriac) -> float | None:
    lifetime: Any = app.conf.result_chord_expires or app.conf.result_expires
    if isinstance(lifetime, timedelta):
        lifetime = lifetime.total_seconds()
    return SYSTEM_CLOCK.now() + lifetime if lifetime else None


def _note(app: Celeriac, group_id: str, parts: list[Any], body: Any, expires_at: float | None) -> Record | None:
    """What a sweep has to know of a chord, as the body of a message: its own body, and the steps before each part's end."""
    steps = {str(index): found for index, part in enumerate(parts) if (found := list(_steps(part))[:-1])}
    embed = {"callbacks": None, "errbacks": None, "chain": None, "chord": body}
    try:
        form = dumps(((), {"deadline": expires_at, "steps": steps}), app.conf.task_serializer, Constant(embed))
    except EncodeError:  # another serializer may know it, or else the parts can't be sent either, and that says why
        return None
    return open_note(group_id, form, expires_at)


def _steps(signature: Any) -> Iterator[str]:
    """Ids of the tasks, one after the other, that a frozen workflow needs for its end, with the end."""
    if is_chain(signature):
        for step in signature.tasks:
            yield from _steps(maybe_signature(step))
    elif is_chord(signature):
        yield from _steps(signature.body)
    elif not is_group(signature):
        yield signature.options["task_id"]


def _group_value(group_id: str, parts: list[Any]) -> bytes:
    """The header's result as the store keeps it: its id and those of its parts."""
    return msgspec.json.encode([[group_id, None], [[[end_id(part), None], None] for part in parts]])


def end_id(signature: Any) -> str:
    """Id of the task (or group) whose value is the workflow's."""
    while is_chain(signature) or is_chord(signature):
        signature = maybe_signature(signature.tasks[-1] if is_chain(signature) else signature.body)
    task_id: str = signature.options["task_id"]
    return task_id


def part_ids(value: bytes) -> list[Any]:
    """Ids of the parts of a header, as the store keeps it; a part that is a group (of a stock client's) is a list of ids."""
    return _members(msgspec.json.decode(value))


def _members(group: Any) -> list[Any]:
    found: list[Any] = []
    for part in group[1]:
        head, members = part
        found.append((head[0] if isinstance(head, list) else head) if members is None else _members(part))
    return found
