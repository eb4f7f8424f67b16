"""How a worker is to be run: what the command line and the settings say, resolved. Frozen data."""

from __future__ import annotations

import importlib.util
import math
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from celeriac.errors import ImproperlyConfigured, near_match

__all__ = ["POOLS", "WorkerOptions", "available_cpus", "node_name", "number_or_auto", "pool_shape"]

#: pool → (slots per process at most, documented aliases)
POOLS = {"prefork": 1, "threads": 16, "asyncio": 100, "gevent": 100, "eventlet": 100, "solo": 1}
_ALIASES = {"processes": "prefork"}


class WorkerOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How a worker is to be run.

    Attributes:
        app: What `-A` names, for the zygote and the banner.
        node: Node name.
        queues: Queues to consume; empty means the app's.
        exclude_queues: Queues to leave out.
        pool, concurrency, processes: Shape of the pool; None takes the app's settings.
        time_limit, soft_time_limit: Defaults for tasks that have none, in seconds.
        changes: Settings from the command line, which rank above the app's.
    """

    app: str = ""
    node: str = ""
    queues: list[str] = []
    exclude_queues: list[str] = []
    pool: str | None = None
    concurrency: int | None = None
    processes: int | None = None
    purge: bool = False
    include: list[str] = []
    loglevel: str = "WARNING"
    logfile: str | None = None
    colour: bool | None = None
    changes: dict[str, Any] = {}
    is_quiet: bool = False


def pool_shape(pool: str, concurrency: int | None, processes: int | None) -> tuple[str, int, int]:
    """(pool, number of processes, slots in each) for a wanted concurrency.

    Raises:
        ImproperlyConfigured: Unknown pool, one whose package is missing, or numbers below 1.
    """
    pool = _ALIASES.get(pool, pool)
    if pool not in POOLS:
        raise ImproperlyConfigured(
            f"pool {pool!r} is unknown; allowed are {', '.join(POOLS)}.{near_match(pool, POOLS)}"
        )
    if pool in ("gevent", "eventlet") and importlib.util.find_spec(pool) is None:
        raise ImproperlyConfigured(
            f"the pool {pool} needs a package that is not installed: pip install 'celeriac[{pool}]'"
        )
    concurrency = available_cpus() if concurrency is None else concurrency
    for name, value in (("concurrency", concurrency), ("processes", processes)):
        if value is not None and value < 1:
            raise ImproperlyConfigured(f"{name} must be at least 1, not {value}")
    if pool == "solo":
        return pool, 1, 1
    if pool == "prefork":
        return pool, concurrency, 1
    count = processes or -(-concurrency // POOLS[pool])
    return pool, count, -(-concurrency // count)


def available_cpus(quota_file: str = "/sys/fs/cgroup/cpu.max") -> int:
    """CPUs that this process may use: its affinity, and the quota of its control group (Linux, version 2)."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path(quota_file).read_text("ascii").split()
    except (OSError, ValueError):
        return count
    return count if quota == "max" else max(1, min(count, math.ceil(int(quota) / int(period))))


def node_name(pattern: str | None, environ: Mapping[str, str] = os.environ) -> str:
    """A node name from `-n`: %h is the host's full name, %n its first part, %d its domain; default `celery@%h`."""
    host = environ.get("HOSTNAME_OVERRIDE") or socket.gethostname()
    name, _, domain = host.partition(".")
    text = (pattern or "celery@%h").replace("%h", host).replace("%n", name).replace("%d", domain).replace("%%", "%")
    return text if "@" in text else f"{text}@{host}"


def number_or_auto(value: Any) -> int | None:
    """A concurrency setting as a number; "auto" and None mean the number of CPUs."""
    return value if isinstance(value, int) else None
