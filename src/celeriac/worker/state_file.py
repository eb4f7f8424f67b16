"""The file that keeps revoked ids and the logical clock over restarts: `worker_state_db`, or `--statedb`.

`worker.control` reads it at start and writes it when something was revoked and at the end. One JSON object, replaced as a
whole, so that a crash leaves the old one or the new one. A file that can't be read is kept aside: it is no reason not to start.
"""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path

import msgspec

from celeriac.log import get_logger
from celeriac.timing import LamportClock
from celeriac.worker.revocations import Revocations

__all__ = ["StateFile"]

logger = get_logger("celeriac.worker.control")


class _State(msgspec.Struct):
    """The content: ids, each with the moment when it was revoked, oldest first."""

    revoked: list[tuple[str, float]] = []
    clock: int = 0


class StateFile:
    """The file.

    Args:
        path: None if there is none.
    """

    def __init__(self, path: str | None, revocations: Revocations, clock: LamportClock) -> None:
        self._path = Path(path) if path else None
        self._revocations = revocations
        self._clock = clock
        self._lock = threading.Lock()

    def load(self) -> None:
        """Take over what it says."""
        if self._path is None or not self._path.exists():
            return
        try:
            state = msgspec.json.decode(self._path.read_bytes(), type=_State)
        except (OSError, msgspec.MsgspecError) as exc:
            logger.warning("state file %s can't be read and is put aside: %s", self._path, exc)
            with contextlib.suppress(OSError):
                self._path.replace(self._path.with_name(self._path.name + ".unreadable"))
            return
        for task_id, moment in state.revoked:
            self._revocations.add([task_id], moment)
        self._clock.adjust(state.clock)

    def save(self) -> None:
        """Write it."""
        if self._path is None:
            return
        state = _State(self._revocations.items(), self._clock.value)
        beside = self._path.with_name(f"{self._path.name}.{os.getpid()}")
        with self._lock:
            try:
                beside.write_bytes(msgspec.json.encode(state))
                beside.replace(self._path)
            except OSError as exc:
                logger.error("state file %s can't be written: %s", self._path, exc)
