"""Named moments at which a test may kill the process: `CELERIAC_FAULT=after_store:3` kills at the third passing.

A fault point costs one comparison when the variable is unset. A marker file (`CELERIAC_FAULT_ONCE=path`) makes the
kill happen once over all processes and restarts. Imports nothing of ours.
"""

from __future__ import annotations

import os
import signal

__all__ = ["ACTIVE", "faultpoint"]

ACTIVE, _, _nth = os.environ.get("CELERIAC_FAULT", "").partition(":")
_remaining = int(_nth or 1)


def faultpoint(name: str) -> None:
    """Kill this process with SIGKILL if `name` is the fault point that the environment asks for."""
    global _remaining
    if name != ACTIVE:
        return
    _remaining -= 1
    if _remaining > 0:
        return
    marker = os.environ.get("CELERIAC_FAULT_ONCE")
    if marker:
        try:
            os.close(os.open(marker, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return
    os.kill(os.getpid(), signal.SIGKILL)
