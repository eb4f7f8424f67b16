"""Looks for chords that nothing has happened to for a while, and has a runner see to each.

That is for what no redelivery repairs: a part that was acknowledged early and whose worker died, one whose message could not
be opened, a last step that was lost with the broker's data. The store hands out each chord to one worker at a time
(`quiet_chords`), so a worker that dies over it is made up for by the next look. An idle worker asks the store once in
`result_chord_sweep_interval` seconds. Invariant: a chord that a part's own delivery will end is left to it.
"""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

from celeriac.chord_notes import is_open, message_of, note_id
from celeriac.errors import OperationalError
from celeriac.log import get_logger
from celeriac.message import Delivery
from celeriac.outcome import SWEEP, Verdict
from celeriac.results.base import Record, ResultStore
from celeriac.timing import jitter
from celeriac.worker.assignment import Assignment
from celeriac.worker.pool import Pool

__all__ = ["ChordSweep"]

logger = get_logger("celeriac.worker.chords")

#: Chords that are seen to in one look.
LIMIT = 100


class SweepOwner(Protocol):
    """What a sweep needs of the supervisor."""

    @property
    def pool(self) -> Pool:
        """Takes the notes of chords."""

    @property
    def is_stopping(self) -> bool:
        """Whether nothing more is to be begun."""


class ChordSweep:
    """The looks of one worker.

    Args:
        store: None, or one that can't list chords, if there is nothing to look for.
        interval: Seconds between two looks, and for which a chord has to be quiet; 0 for never.
    """

    def __init__(self, owner: SweepOwner, store: ResultStore | None, interval: float) -> None:
        self._owner = owner
        self._store: Any = store if interval and hasattr(store, "quiet_chords") else None
        self._interval = interval
        self._work: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Look from now on."""
        if self._store is not None:
            self._work = asyncio.ensure_future(self._run())

    def stop(self) -> None:
        """Look no more."""
        if self._work is not None:
            self._work.cancel()

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._interval * (0.75 + jitter() / 2))
            if any(assignment.verdict.state == SWEEP for assignment in self._owner.pool.ready):
                continue  # the runners have not yet come to those of the last look
            try:
                notes = await asyncio.to_thread(self._look)
            except OperationalError as exc:
                logger.debug("chords can't be looked up: %s", exc)
                continue
            except Exception:  # without this coroutine no chord would be repaired any more
                logger.exception("chords can't be looked up")
                continue
            if notes and not self._owner.is_stopping:
                self._owner.pool.submit([_assignment(note) for note in notes])

    def _look(self) -> list[Record]:
        """The notes of quiet chords. Of one that is over only the counts are left: they go.

        A chord may run without a note, if its body has no form in the usual serializer: it is left alone.
        """
        groups = self._store.quiet_chords(self._interval, LIMIT)
        notes = self._store.get([note_id(group_id) for group_id in groups]) if groups else []
        for group_id, note in zip(groups, notes, strict=True):
            if not is_open(note) and (note is not None or self._store.get_group(group_id) is None):
                self._store.forget_group(group_id)
        return [note for note in notes if is_open(note)]


def _assignment(note: Record) -> Assignment:
    """There is nothing to settle; what was begun before may have been sent, so it counts as delivered again."""
    delivery = Delivery(message=message_of(note), queue="", token=object(), deliveries=2)
    assignment = Assignment(delivery, Verdict(SWEEP, args=[note.id]))
    assignment.is_acked = True
    return assignment
