"""Publishing for coroutines: calls that are made at the same time travel together.

Used by `await task.adelay()`. Imported when first used, since it needs asyncio. Each event loop has a batch of its own,
so an app may be used from several at once; futures are only ever touched in their loop.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from celeriac.errors import OperationalError
from celeriac.message import Message
from celeriac.sending import publish

if TYPE_CHECKING:
    from celeriac.app import Celeriac

__all__ = ["Batcher", "run_aside"]

#: Runs a function that blocks in a thread, and waits for it without blocking the loop.
run_aside = asyncio.to_thread

_Asker = tuple[Message, Mapping[str, Any], "asyncio.Future[None]"]


class Batcher:
    """Publishes for coroutines: what gathers while one batch is on its way travels in the next."""

    def __init__(self, app: Celeriac) -> None:
        self._app = app
        #: What waits in each loop; a loop with an entry has a sender at work.
        self._waiting: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, list[_Asker]] = weakref.WeakKeyDictionary()

    async def publish(self, message: Message, options: Mapping[str, Any]) -> None:
        """Publish one message; returns once the broker has it."""
        if options.get("connection") is not None:  # part of a transaction, which belongs to this thread
            publish(self._app, (message,), options)
            return
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        waiting = self._waiting.get(loop)
        if waiting is None:
            self._waiting[loop] = [(message, options, future)]
            asyncio.ensure_future(self._send(loop))  # noqa: RUF006 -- it ends by itself; askers hold futures
        else:
            waiting.append((message, options, future))
        await future

    async def _send(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            while batch := self._waiting[loop]:
                self._waiting[loop] = []
                await self._send_batch(batch)
        finally:
            del self._waiting[loop]

    async def _send_batch(self, batch: list[_Asker]) -> None:
        messages, options = [message for message, _, _ in batch], batch[0][1]
        try:
            await asyncio.to_thread(publish, self._app, messages, options)
        except OperationalError as exc:  # the broker is away for all of them
            _resolve(batch, exc)
        except Exception as exc:  # it may belong to one of them only
            if len(batch) == 1:
                _resolve(batch, exc)
                return
            for asker in batch:
                await self._send_batch([asker])
        else:
            _resolve(batch, None)


def _resolve(batch: list[_Asker], error: Exception | None) -> None:
    for _, _, future in batch:
        if future.done():
            continue
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(error)
