"""The queues that a worker consumes, as they are defined: declared when it starts, and kept while it is there.

The supervisor has one; commands add to it and take away. A queue that expires without a consumer is declared again and again,
since a worker that is busy consumes nothing for a while. Copies of broadcast queues are removed when the worker leaves; those
of a worker that was killed expire.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Sequence

from celeriac.errors import CeleriacError
from celeriac.log import get_logger
from celeriac.routing import Queue, is_copy
from celeriac.transport.base import Transport
from celeriac.worker.queue_choice import as_consumed, described_as, queues_to_declare

__all__ = ["ConsumedQueues"]

logger = get_logger("celeriac.worker")

#: A queue is declared anew so many times in the time in which it would expire.
TIMES = 3
#: Shortest pause between two declarations, and longest until it is looked whether there is anything to declare, in seconds.
SHORTEST, LONGEST = 0.1, 20.0


class ConsumedQueues:
    """What a worker consumes.

    Args:
        transport: Where.
        described: The queues that the app knows.
        queues: Those of the start.
    """

    def __init__(self, transport: Transport, described: Sequence[Queue], queues: Sequence[Queue]) -> None:
        self._transport = transport
        self._described = described
        self._queues = {queue.name: queue for queue in queues}
        self._work: asyncio.Task[None] | None = None

    @property
    def names(self) -> list[str]:
        """Their names at the broker."""
        return list(self._queues)

    @property
    def titles(self) -> list[str]:
        """Their names as users know them."""
        return [self.title(name) for name in self._queues]

    def title(self, name: str) -> str:
        """The name by which users know a queue."""
        queue = self._queues.get(name)
        return queue.alias or name if queue is not None and is_copy(name) else name

    def definition(self, name: str) -> Queue:
        """How one of them is defined."""
        return self._queues[name]

    def known_as(self, names: frozenset[str]) -> frozenset[str]:
        """Those of them that are meant by these names or aliases, and the names themselves."""
        return names | {name for name, queue in self._queues.items() if queue.alias in names}

    def find(self, name: str) -> Queue | None:
        """The one with this name or alias."""
        return described_as(self._queues.values(), name)

    def declare(self) -> None:
        """Make them exist. Blocks."""
        self._transport.declare(queues_to_declare(self._described, self._queues.values()))

    def described(self, name: str) -> Queue | None:
        """The queue that the app knows by this name."""
        return described_as(self._described, name)

    def add(self, queue: Queue) -> None:
        """Declare one more. Blocks."""
        queue = as_consumed(queue)
        self._transport.declare([queue])
        self._queues = {**self._queues, queue.name: queue}

    def remove(self, queue: Queue) -> None:
        """One less. Blocks, if it is a copy, which goes with that."""
        self._queues = {name: each for name, each in self._queues.items() if name != queue.name}
        if is_copy(queue.name):
            self._transport.delete(queue.name)

    # while the worker is there

    def start(self) -> None:
        """Keep those alive that expire."""
        self._work = asyncio.ensure_future(self._keep())

    def stop(self) -> None:
        """No more."""
        if self._work is not None:
            self._work.cancel()

    async def _keep(self) -> None:
        while True:
            lives = {name: queue.life for name, queue in self._queues.items() if queue.life is not None}
            shortest = min((life for life in lives.values() if life is not None), default=TIMES * LONGEST)
            await asyncio.sleep(max(SHORTEST, min(LONGEST, shortest / TIMES)))
            mortal = [queue for queue in self._queues.values() if queue.life is not None]
            if mortal:
                try:
                    await asyncio.to_thread(self._transport.declare, mortal)
                except CeleriacError as exc:
                    logger.debug("queues that expire can't be declared again: %s", exc)
                except Exception:  # without this coroutine they would expire
                    logger.exception("queues that expire can't be declared again")

    def leave(self, timeout: float) -> None:
        """Remove copies. Blocks, but not for longer than `timeout` seconds: else they expire."""
        copies = [name for name in self._queues if is_copy(name)]
        if copies:
            thread = threading.Thread(target=self._delete, args=(copies,), name="celeriac-leave", daemon=True)
            thread.start()
            thread.join(timeout)

    def _delete(self, names: Sequence[str]) -> None:
        with contextlib.suppress(CeleriacError):
            for name in names:
                self._transport.delete(name)
