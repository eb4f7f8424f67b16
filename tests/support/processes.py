"""Facts about running processes, read from /proc: who belongs to whom, what CPU and memory they use. Linux only."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

__all__ = ["ProcessFacts", "cpu_seconds", "facts", "members", "pss_bytes"]

_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessFacts:
    """One line of /proc/<pid>/stat. `cpu` is its own time, `reaped_cpu` that of children it has waited for."""

    pid: int
    parent: int
    session: int
    state: str
    cpu: float
    reaped_cpu: float


def facts(pid: int) -> ProcessFacts | None:
    """What there is to know about a process; None if it has gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The name, in parentheses, may itself contain spaces and parentheses.
    fields = text[text.rindex(")") + 2 :].split()
    user, system, reaped_user, reaped_system = (int(field) / _TICKS for field in fields[11:15])
    return ProcessFacts(
        pid=pid,
        parent=int(fields[1]),
        session=int(fields[3]),
        state=fields[0],
        cpu=user + system,
        reaped_cpu=reaped_user + reaped_system,
    )


def members(root: int) -> list[ProcessFacts]:
    """The living processes of the tree below `root`, itself included, and all others of the session that it leads.

    The session keeps those whose parent was killed, so orphans are found too. Zombies do not count.
    """
    everyone = [fact for pid in _pids() if (fact := facts(pid)) is not None and fact.state != "Z"]
    found = {fact.pid for fact in everyone if fact.pid == root or fact.session == root}
    grown = True
    while grown:
        more = {fact.pid for fact in everyone if fact.parent in found} - found
        grown = bool(more)
        found |= more
    return [fact for fact in everyone if fact.pid in found]


def cpu_seconds(root: int) -> float:
    """CPU time of the tree so far, of its ended children included."""
    return sum(fact.cpu + fact.reaped_cpu for fact in members(root))


def pss_bytes(root: int) -> int:
    """Memory of the tree; what processes share is counted once."""
    return sum(_pss_bytes(fact.pid) for fact in members(root))


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdecimal()]


def _pss_bytes(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
