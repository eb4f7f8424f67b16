"""What a worker shows when it starts: what it is connected to, what it consumes, what it can run."""

from __future__ import annotations

import os
import platform

from celeriac.runner.protocol import Hello

__all__ = ["banner"]


def banner(
    hello: Hello,
    *,
    version: str,
    node: str,
    transport: str,
    store: str,
    pool: str,
    processes: int,
    slots: int,
    queues: list[str],
) -> str:
    """The start banner as text."""
    shape = f"{processes} × {slots}" if slots > 1 else str(processes)
    tasks = sorted(name for name in hello.tasks if not name.startswith("celery."))
    lines = [
        f"celeriac {version} — {node} (pid {os.getpid()}, {platform.system()}, Python {platform.python_version()})",
        "",
        f"  app       {hello.app}",
        f"  broker    {transport}",
        f"  results   {store}",
        f"  pool      {pool}, concurrency {shape}",
        f"  queues    {', '.join(queues)}",
        f"  tasks     {len(tasks)}",
        *(f"            . {name}" for name in tasks),
        "",
    ]
    return "\n".join(lines)
