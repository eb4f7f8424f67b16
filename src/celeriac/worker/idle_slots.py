"""Which slot gets the next task: one of the process that does least, and of several such processes the one that worked last.

Whatever that one has used is still in the processor's caches: taken in turn, two runners need a fifth more CPU for each step of a
chain, and the memory of all of them is touched for work that one can do.
"""

from __future__ import annotations

from collections.abc import Iterable

from celeriac.worker.process import RunnerProcess, Slot

__all__ = ["IdleSlots"]


class IdleSlots:
    """The slots that hold nothing."""

    def __init__(self) -> None:
        self._slots: dict[RunnerProcess, list[Slot]] = {}  # processes and slots that worked last stand last

    def add(self, slots: Iterable[Slot]) -> None:
        """These hold nothing now."""
        for slot in slots:
            idle = self._slots.pop(slot.process, [])
            idle.append(slot)
            self._slots[slot.process] = idle

    def take(self) -> Slot | None:
        """The slot that gets the next task; None if there is none."""
        while self._slots:
            process = min(reversed(self._slots), key=self._busy)
            idle = self._slots[process]
            slot = idle.pop()
            if not idle:
                del self._slots[process]
            if not slot.held and not process.is_retiring and not process.is_over:
                return slot
        return None

    def drop(self, process: RunnerProcess) -> None:
        """Nothing more for this one."""
        self._slots.pop(process, None)

    def _busy(self, process: RunnerProcess) -> int:
        return len(process.slots) - len(self._slots[process])
