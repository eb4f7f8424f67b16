"""The event loop on which `async def` tasks run where tasks run one at a time. Imported when the first one comes."""

from __future__ import annotations

import asyncio

__all__ = ["EventLoop"]

#: One loop that is kept between tasks, so that clients which a task keeps on it stay usable.
EventLoop = asyncio.Runner
