"""What control commands get: the worker, its app if it has imported it, and the answers that Celery's tools expect.

`worker.control` makes one per worker and hands it to every command as its first argument, in the event loop.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from celeriac.commands import CommandInfo

if TYPE_CHECKING:
    from celeriac.timing import LamportClock
    from celeriac.worker.control import Control
    from celeriac.worker.revocations import Revocations
    from celeriac.worker.supervisor import Supervisor

__all__ = ["NO_ANSWER", "ControlState", "boolean", "command_table", "error", "ok"]

#: What a command returns that is not to be answered.
NO_ANSWER = object()


def ok(value: Any) -> dict[str, Any]:
    """It worked."""
    return {"ok": value}


def error(value: str) -> dict[str, Any]:
    """It did not."""
    return {"error": value}


def boolean(word: str) -> bool:
    """A word of the command line as a truth value.

    Raises:
        ValueError: It is none.
    """
    text = word.lower()
    if text in ("1", "true", "yes", "on"):
        return True
    if text in ("0", "false", "no", "off"):
        return False
    raise ValueError(f"{word!r} is neither true nor false")


class ControlState:
    """A worker as its commands see it.

    Attributes:
        worker: The supervisor.
        started_at: Wall time.
    """

    def __init__(self, worker: Supervisor, control: Control) -> None:
        self.worker = worker
        self.started_at = time.time()
        self.memory_samples: list[str] = []
        self._control = control

    @property
    def app(self) -> Any:
        """The app; None in a worker whose app has neither commands nor receivers of a supervisor's signals."""
        return self.worker.app

    @property
    def hostname(self) -> str:
        """Name of the node."""
        return self.worker.node

    @property
    def clock(self) -> LamportClock:
        """The worker's logical clock."""
        return self._control.clock

    @property
    def revocations(self) -> Revocations:
        """What is revoked."""
        return self._control.revocations

    def save(self) -> None:
        """Write the state file. Blocks."""
        self._control.save_state()

    def merge(self, revoked: Any, clock: Any = None) -> None:
        """Take over what another worker knows."""
        ids = list(revoked) if isinstance(revoked, (list, tuple, Mapping)) else []
        self.revocations.add(each for each in ids if isinstance(each, str))
        if isinstance(clock, int) and 0 <= clock < 1 << 62:
            self.clock.adjust(clock)


def command_table(
    kind: str, rows: Mapping[Callable[..., Any], tuple[str, Mapping[str, Any]]]
) -> dict[str, CommandInfo]:
    """Commands by name, from their functions: `{function: (help, {further fields of CommandInfo})}`."""
    table: dict[str, CommandInfo] = {}
    for handler, (help_, fields) in rows.items():
        info = CommandInfo(name=handler.__name__, handler=handler, type=kind, help=help_, **fields)
        table[info.name] = info
        if info.alias:
            table[info.alias] = info
    return table
