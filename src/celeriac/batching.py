"""Publishing for coroutines: calls that are made at the same time travel together.

Used by `await task.adelay()`. Imported when first used, since it needs asyncio.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from celeriac.message import Message
from celeriac.sending import publish

if TYPE_CHECKING:
    from celeriac.app import Celeriac

__all__ = ["Batcher"]


class Batcher:
    """Publishes for coroutines: what gathers while one batch is on its way travels in the next."""

    def __init__(self, app: Celeriac) -> None:
        self._app = app
        self._waiting: list[tuple[Message, Mapping[str, Any], asyncio.Future[None]]] = []
        self._is_sending = False

    async def publish(self, message: Message, options: Mapping[str, Any]) -> None:
        """Publish one message; returns once the broker has it."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((message, options, future))
        if not self._is_sending:
            self._is_sending = True
            asyncio.ensure_future(self._send())  # noqa: RUF006 -- it ends by itself; askers hold futures
        await future

    async def _send(self) -> None:
        try:
            while self._waiting:
                batch, self._waiting = self._waiting, []
                try:
                    await asyncio.to_thread(publish, self._app, [m for m, _, _ in batch], batch[0][1])
                except Exception as exc:  # it belongs to those who asked
                    for _, _, future in batch:
                        if not future.done():
                            future.set_exception(exc)
                else:
                    for _, _, future in batch:
                        if not future.done():
                            future.set_result(None)
        finally:
            self._is_sending = False
