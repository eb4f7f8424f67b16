"""What a sweep does about a chord that nothing has happened to for a while.

Workers look for such chords (`worker/chord_sweep.py`); a runner opens the chord's note and calls `after_sweep`. Parts that
have ended but were not counted are counted now; if all have ended, that makes the body follow, as it does from the last
part. A part that a lost step kept from its end is ended as a failure. A chord that has not ended by the time at which its
counts expire fails. Nothing is done to one that only waits.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from celeriac import states
from celeriac.canvas.carrying import opened
from celeriac.canvas.joining import flat
from celeriac.canvas.launching import end_id
from celeriac.canvas.stores import chord_store, header_ids
from celeriac.context import Context
from celeriac.continuations import Sequel, fail_body
from celeriac.errors import ChordError
from celeriac.log import get_logger
from celeriac.outcome import Part
from celeriac.recording import make_record
from celeriac.results.base import Record
from celeriac.safe_repr import saferepr
from celeriac.signature import maybe_signature
from celeriac.wire.results import decode_result

if TYPE_CHECKING:
    from celeriac.app import Celeriac

__all__ = ["after_sweep"]

logger = get_logger("celeriac.canvas")


def after_sweep(app: Celeriac, context: Context) -> tuple[Sequel, bool]:
    """What follows, and whether the chord is over. The context is that of the chord's note."""
    store, group_id, sequel = chord_store(app), str(context.group), Sequel()
    body = opened(maybe_signature(context.chord, app))
    if app.AsyncResult(end_id(body)).ready():
        return sequel, True
    given = header_ids(app, group_id)
    counted = store.ended_parts(group_id)
    if given is not None and counted is not None:
        ids = list(flat(given))
        size = body.get("chord_size") or len(ids)  # as it was sent: what was added since, the store knows
        _count(app, context, sequel, ids, counted, size)
        if not sequel.parts and len(counted) >= len(ids) > 0:
            sequel.parts.append(Part(group_id, 0, size, ids[0], len(ids)))
    deadline = (context.kwargs or {}).get("deadline")
    if sequel.parts or deadline is None or deadline > time.time():
        return sequel, False
    error = ChordError(f"the header of chord {group_id} has not ended within the time for which its counts are kept")
    logger.error("%s: its body fails", error)
    fail_body(app, context, sequel, body, error)
    return sequel, True


def _count(app: Celeriac, context: Context, sequel: Sequel, ids: list[str], counted: set[int], size: int) -> None:
    """Note the parts that have ended uncounted, and end those that can't end by themselves any more."""
    missing = [index for index in range(len(ids)) if index not in counted]
    spines: dict[str, list[str]] = (context.kwargs or {}).get("steps") or {}
    wanted = [ids[index] for index in missing]
    wanted += [step for index in missing for step in spines.get(str(index), ())]
    found = {record.id: record for record in chord_store(app).get(wanted) if record is not None and record.is_ready}
    for index in missing:
        record = found.get(ids[index])
        if record is None:
            broken = [found[step] for step in spines.get(str(index), ()) if step in found]
            bad = next((each for each in broken if each.state in states.PROPAGATE_STATES), None)
            if bad is None:
                continue
            sequel.records.append(_ended(app, context, ids[index], bad))
        logger.warning("part %d of chord %s has ended uncounted: it is counted now", index, context.group)
        sequel.parts.append(Part(str(context.group), index, size, ids[index], len(ids)))


def _ended(app: Celeriac, context: Context, task_id: str, bad: Record) -> Record:
    """The record of a part that a step before it kept from running."""
    text = saferepr(decode_result(bad, app.result_accept), 500)
    twin = Context(id=task_id, parent_id=bad.id, group=context.group)
    return make_record(app, twin, bad.state, ChordError(f"step {bad.id} before it has ended as {bad.state}: {text}"))
