"""The worker's side of a chord: which parts have ended, and the body's message once all have.

The committer counts the parts in the result store. When the last one is counted, the runner that gets the verdict JOIN
calls `continuations.after_join` with that part's own message, which carries the body: the results of all parts are
read and decoded, and the body's message is made. Until that is committed, the last part is not acknowledged, so a
crash repeats the step and no body is lost. Ids are fixed, so repeating gives the same messages.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from celeriac import states
from celeriac.canvas.carrying import opened
from celeriac.canvas.composing import is_group
from celeriac.canvas.launching import Place, end_place, ends, place_of
from celeriac.canvas.normalizing import is_chain, is_chord
from celeriac.canvas.stores import chord_store, header_ids
from celeriac.chord_notes import is_open, message_of, note_id
from celeriac.context import Context
from celeriac.errors import ChordError
from celeriac.log import get_logger
from celeriac.message import Message
from celeriac.outcome import Part
from celeriac.results.base import Record
from celeriac.safe_repr import saferepr
from celeriac.signature import maybe_signature
from celeriac.wire.results import decode_result

if TYPE_CHECKING:
    from celeriac.app import Celeriac

__all__ = ["all_tasks", "body_of", "flat", "is_over", "note_of", "part_by_headers", "part_of", "read_header"]

logger = get_logger("celeriac.canvas")

#: Records that are read from the store at once.
BATCH = 500


def part_of(app: Celeriac, place: Place, task_id: str) -> Part | None:
    """What to count when a task in this place has ended; None if no chord waits for it."""
    chord = place.chord
    if not chord or not place.group_id:
        return None
    size, index = chord.get("chord_size"), place.group_index
    if not size or index is None:  # a foreign client sent it: the store knows the header, or counts by itself
        ids = list(flat(header_ids(app, place.group_id) or []))
        size = size or len(ids)
        index = index if index is not None else ids.index(task_id) if task_id in ids else 0
    return Part(place.group_id, index, size, task_id)


def part_by_headers(app: Celeriac, message: Message) -> Iterator[Part]:
    """What to count for a message whose body can't be opened: its headers name its place, the store knows the chord."""
    group_id, index = message.headers.get("group"), message.headers.get("group_index")
    if isinstance(group_id, str) and isinstance(index, int) and note_of(app, message) is not None:
        ids = list(flat(header_ids(app, group_id) or []))
        if 0 <= index < len(ids) and ids[index] == message.id:
            yield Part(group_id, index, len(ids), message.id)


def note_of(app: Celeriac, message: Message) -> Message | None:
    """The note of the open chord that a message is a part of, as a message; None if there is none."""
    group_id, store = message.headers.get("group"), app.backend
    if not isinstance(group_id, str) or message.id == note_id(group_id) or store is None:
        return None
    (note,) = store.get([note_id(group_id)])
    return message_of(note) if is_open(note) else None


def body_of(app: Celeriac, context: Context, group_id: str) -> Any:
    """The body that waits for the chord of this id: carried by the task itself, by what follows it, or by that body."""
    places = [Place(context.group, context.group_index, context.chord)]
    for step in (context.steps or ())[:1]:
        places += [place_of(end.options) for end in ends(maybe_signature(step, app))]
    for place in places:
        while place.chord:
            body = opened(maybe_signature(place.chord, app))
            if place.group_id == group_id:
                return body
            place = end_place(body)
    raise ChordError(f"the body of chord {group_id} is not where its parts say")


def is_over(app: Celeriac, group_id: str) -> bool:
    """Whether the body of a chord has been sent."""
    (note,) = chord_store(app).get([note_id(group_id)])
    return note is not None and not is_open(note)


def read_header(app: Celeriac, group_id: str) -> list[Any] | None:
    """The values of the parts in order; None if the chord is not known any more.

    Raises:
        ChordError: A part has failed, was revoked, or has no result.
    """
    ids = header_ids(app, group_id)
    if ids is None:
        return None
    order = list(flat(ids))
    records = list(_records(app, order))
    failed = [record for record in records if record is not None and record.state in states.PROPAGATE_STATES]
    if failed:
        first = min(failed, key=lambda record: record.date_done or "")
        raise ChordError(f"Dependency {first.id} raised {saferepr(decode_result(first, app.result_accept), 500)}")
    values = {}
    for task_id, record in zip(order, records, strict=True):
        if record is None or record.state != states.SUCCESS:
            raise ChordError(f"Dependency {task_id} has ended without a result")
        values[task_id] = decode_result(record, app.result_accept)
    return _shaped(ids, values)


def flat(ids: list[Any]) -> Iterator[str]:
    """The ids of a header's parts, those of inner groups among them."""
    for each in ids:
        if isinstance(each, list):
            yield from flat(each)
        else:
            yield each


def _shaped(ids: list[Any], values: dict[str, Any]) -> list[Any]:
    return [_shaped(each, values) if isinstance(each, list) else values[each] for each in ids]


def _records(app: Celeriac, ids: list[str]) -> Iterator[Record | None]:
    store = chord_store(app)
    for start in range(0, len(ids), BATCH):
        yield from store.get(ids[start : start + BATCH])


def all_tasks(signature: Any) -> Iterator[Any]:
    """The calls of tasks that a frozen workflow would make, links aside."""
    if is_chain(signature) or is_group(signature):
        for each in signature.tasks:
            yield from all_tasks(maybe_signature(each, signature._app))
    elif is_chord(signature):
        for each in signature.tasks:
            yield from all_tasks(maybe_signature(each, signature._app))
        yield from all_tasks(signature.body)
    else:
        yield signature
        for step in signature.options.get("chain") or ():
            yield from all_tasks(maybe_signature(step, signature._app))
