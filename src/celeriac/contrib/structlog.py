"""A processor for structlog: log entries made in a task say which task that is.

    structlog.configure(processors=[add_task_context, ...])

It needs nothing but what structlog hands over, so it works with any logger that takes processors.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

from celeriac.log import current_task_info

__all__ = ["add_task_context"]


def add_task_context(logger: Any, method_name: str, event_dict: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Add `task_id` and `task_name` while a task runs in this thread or coroutine, unless they are there already."""
    info = current_task_info.get()
    if info is not None:
        event_dict.setdefault("task_id", info[0])
        event_dict.setdefault("task_name", info[1])
    return event_dict
