"""Names of workers: `name@host`, and what is formatted with them (`%h`, `%n`, `%d`). Celery's `utils.nodenames`."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Callable
from typing import Any

from celeriac.log import expand_index
from celeriac.routing import worker_direct

__all__ = [
    "anon_nodename", "default_nodename", "gethostname", "host_format", "node_format", "nodename", "nodesplit",
    "worker_direct",
]  # fmt: skip

gethostname: Callable[[], str] = socket.gethostname

_FIELD = re.compile(r"%([%\w])")


def nodename(name: str, hostname: str) -> str:
    """`name@hostname`."""
    return f"{name}@{hostname}"


def nodesplit(name: str) -> tuple[str | None, str]:
    """Name and host of a node; the name is None where there is only a host."""
    first, at, rest = name.partition("@")
    return (first, rest) if at else (None, first)


def anon_nodename(hostname: str | None = None, prefix: str = "gen") -> str:
    """The name of this process when it is no worker."""
    return nodename(f"{prefix}{os.getpid()}", hostname or gethostname())


def default_nodename(hostname: str | None = None, default_name: str = "celery") -> str:
    """A node name made complete: `default_name` and this host where it says none."""
    name, host = nodesplit(hostname or "")
    return nodename(name or default_name, host or gethostname())


def node_format(s: str, name: str, **extra: Any) -> str:
    """Put a node's name into a text: %n is its name, %p the whole of it; the rest as in `host_format`."""
    short, host = nodesplit(name)
    return host_format(s, host, short or "celery", p=name, **extra)


def host_format(s: str, host: str | None = None, name: str | None = None, **extra: Any) -> str:
    """Put a host into a text: %h is the host, %n `name` or its first part, %d its domain, %i and %I the process's number.

    Args:
        extra: Further fields: a letter, and a text or a function that gives one.

    Raises:
        ValueError: The text has a field that there is not.
    """
    host = host or gethostname()
    first, _, domain = host.partition(".")
    fields: dict[str, Any] = {
        "h": host, "n": name or first, "d": domain, "i": expand_index("%i"), "I": expand_index("%I"), "%": "%", **extra,
    }  # fmt: skip

    def value(match: re.Match[str]) -> str:
        if match[1] not in fields:
            raise ValueError(f"{match[0]!r} in {s!r} is none of {', '.join('%' + field for field in fields)}")
        found = fields[match[1]]
        return str(found() if callable(found) else found)

    return _FIELD.sub(value, s)
