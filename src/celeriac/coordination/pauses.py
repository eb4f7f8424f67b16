"""Paused queues: a fact in the coordination store that outlives workers, seen by all of them.

`celeriac queue` writes it, workers look at it (`worker.paused_queues`). A paused queue takes messages and gives none out.
"""

from __future__ import annotations

from collections.abc import Sequence

from celeriac.coordination.base import FOREVER, Claim, Coordination

__all__ = ["pause", "paused", "resume"]

#: The claims' name; their holders are queues.
_NAME = "paused"


def pause(place: Coordination, queues: Sequence[str], seconds: float | None = None) -> None:
    """Pause queues, for so many seconds or until they are resumed."""
    length = FOREVER if seconds is None else seconds
    place.acquire([Claim(name=_NAME, holder=queue, seconds=length, limit=0) for queue in queues])


def resume(place: Coordination, queues: Sequence[str]) -> None:
    """Let queues go on."""
    place.release([Claim(name=_NAME, holder=queue, seconds=0.0) for queue in queues])


def paused(place: Coordination) -> dict[str, float]:
    """The queues that are paused, and until when (seconds since 1970)."""
    return place.holders(_NAME)
