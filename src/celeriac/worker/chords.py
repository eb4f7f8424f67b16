"""The step of a commit that is about chords: write those that begin, count the parts that have ended.

The committer calls `count` before it commits a batch. A part is counted once it is stored, and counted once however
often its message is delivered. The entry of a chord's last part is held back: its delivery is settled when the body has
been sent, so that a death in between repeats this step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import msgspec

from celeriac.chord_notes import begin, over_note
from celeriac.log import get_logger
from celeriac.message import Message, Settlement
from celeriac.outcome import ChordStart, Part
from celeriac.results.base import Record, ResultStore
from celeriac.states import SUCCESS
from celeriac.timing import SYSTEM_CLOCK

__all__ = ["Entry", "count", "forget"]

#: Seconds for which it is remembered which part sends the body: longer than any delivery of another one lasts.
CLAIM_KEPT = 86_400.0

logger = get_logger("celeriac.worker.chords")


class Entry(msgspec.Struct, frozen=True):
    """One thing to commit. Without `settlement`: a state of a running task, or the outcome of one acked early.

    Attributes:
        more_records: Records of other tasks, stored first.
        on_done: Called in the event loop once it is committed.
        is_early: The record is that of an outcome whose handlers are still running; the outcome itself will follow.
        parts: Parts of chords that have ended with it.
        chords: Chords that begin with its messages.
        joined: Chords that are over.
        on_last: Called in the event loop with a group id when one of the parts was the last of that chord.
    """

    settlement: Settlement | None = None
    record: Record | None = None
    messages: Sequence[Message] = ()
    more_records: Sequence[Record] = ()
    on_done: Callable[[], None] | None = None
    is_early: bool = False
    parts: Sequence[Part] = ()
    chords: Sequence[ChordStart] = ()
    joined: Sequence[str] = ()
    on_last: Callable[[str], None] | None = None


def count(store: ResultStore | None, batch: list[Entry]) -> list[Entry]:
    """Write what chords need of a batch; returns what is to be committed instead.

    Raises:
        OperationalError: The store can't be reached; it may be called again.
    """
    concerned = [entry for entry in batch if entry.parts or entry.chords]
    if not concerned:
        return batch
    if store is None:
        logger.error("a part of a chord has ended, but there is no result backend to count it: its body will not run")
        return batch
    for entry in concerned:
        for start in entry.chords:
            begin(store, start)
    ended = [entry for entry in concerned if entry.parts]
    records = [record for entry in ended for record in (*entry.more_records, entry.record) if record is not None]
    if records:
        store.store(records)
    stored = {record.id: record for record in records}
    missing = [part.task_id for entry in ended for part in entry.parts if part.task_id not in stored]
    if missing:  # stored by an earlier delivery
        stored |= {record.id: record for record in store.get(missing) if record is not None}
    told = _join(store, [part for entry in ended for part in entry.parts if not part.total], stored)
    return [_counted(store, entry, stored, told) if entry.parts else entry for entry in batch]


def _join(store: ResultStore, parts: Sequence[Part], stored: Mapping[str, Record]) -> set[tuple[str, str]]:
    """Count parts, those of a chord at once where the store can; returns group and task id of those told to be the last."""
    chords: dict[tuple[str, int], list[tuple[int, Record]]] = {}
    for part in parts:
        found = part.index, _known(part, stored.get(part.task_id))
        chords.setdefault((part.group_id, part.size), []).append(found)
    told: set[tuple[str, str]] = set()
    for (group_id, size), some in chords.items():
        if hasattr(store, "join_parts"):
            told.add((group_id, store.join_parts(group_id, size, some)))
        else:
            told.update((group_id, each.id) for index, each in some if store.join_part(group_id, index, size, each))
    return told


def _counted(store: ResultStore, entry: Entry, stored: Mapping[str, Record], told: set[tuple[str, str]]) -> Entry:
    last = [part for part in entry.parts if (part.group_id, part.task_id) in told and _sends_body(store, part)]
    last += _completed(store, [part for part in entry.parts if part.total], stored)
    if not last or entry.on_last is None:
        return Entry(entry.settlement, None, entry.messages, (), entry.on_done, joined=entry.joined)
    return Entry(None, None, entry.messages, on_done=partial(entry.on_last, last[0].group_id))


def _completed(store: Any, parts: Sequence[Part], stored: Mapping[str, Record]) -> list[Part]:
    """Count what a sweep has found; a part of each chord of which all have ended by that."""
    for part in parts:
        store.join_part(part.group_id, part.index, part.size, _known(part, stored.get(part.task_id)))
    groups = {part.group_id: part for part in parts}
    return [part for group_id, part in groups.items() if len(store.ended_parts(group_id) or ()) >= part.total]


def _known(part: Part, record: Record | None) -> Record:
    return record or Record(id=part.task_id, state=SUCCESS, result=b"null")  # it has expired already


def _sends_body(store: ResultStore, part: Part) -> bool:
    """Whether it is for this part, which was told to be the last, to send the body."""
    if store.capabilities.claims_chords:
        return True
    # A part that is delivered again may see that all have ended while another one is about to send the body. Only the first
    # to be noted here sends it; a success is never replaced, so there is one. It is not acknowledged before.
    name = msgspec.json.encode(part.task_id)
    claim = Record(id=f"{part.group_id}.body", state=SUCCESS, result=name, expires_at=SYSTEM_CLOCK.now() + CLAIM_KEPT)
    if not store.store([claim]):
        return True
    (found,) = store.get([claim.id])
    return found is None or found.result == name


def forget(store: ResultStore, batch: list[Entry], refused: set[str], *, is_atomic: bool) -> None:
    """Delete the counts of chords whose body has been sent, and note that they are over unless the commit has done so."""
    for entry in batch:
        if entry.joined and (entry.settlement is None or entry.settlement.delivery.token not in refused):
            for group_id in entry.joined:
                try:
                    if not is_atomic or entry.settlement is None:
                        store.store([over_note(group_id)])
                    store.forget_group(group_id)
                except Exception as exc:  # they are forgotten by themselves, later
                    logger.warning("the counts of chord %s can't be deleted: %s", group_id, exc)
