"""Runs `async def` tasks side by side on one event loop: the asyncio pool's runner.

Each slot has a thread, as in the threads pool, which decodes, encodes and runs plain functions, so one of those holds up
nobody. Coroutines of all slots run on one loop, so clients and pools that belong to a loop can be shared between tasks. A
coroutine that does not yield holds up the others; its hard time limit ends the process, as everywhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from celeriac.event_loop import SharedLoop
from celeriac.runner.protocol import Cells
from celeriac.runner.threads import SlotThread, ThreadsRunner

if TYPE_CHECKING:
    from celeriac.app import Celeriac
    from celeriac.runner.channel import Channel

__all__ = ["AsyncioRunner"]


class AsyncioRunner(ThreadsRunner):
    """Several slots that share a loop."""

    def __init__(self, app: Celeriac, node: str, channel: Channel, cells: Cells) -> None:
        self._loop = SharedLoop()
        super().__init__(app, node, channel, cells)

    def _make_slot(self, app: Celeriac, node: str, channel: Channel, cells: Cells, slot: int) -> SlotThread:
        return SlotThread(app, node, channel, cells, slot, self._loop.place)
