"""A held or running task as remote control shows it, in Celery's form.

The supervisor knows no user class: arguments are shown as they stand in the body if that is uncompressed JSON of moderate
size, which is plain data, and as the texts of the headers otherwise.
"""

from __future__ import annotations

import time
from typing import Any

import msgspec

from celeriac.message import Message
from celeriac.worker.assignment import Assignment

__all__ = ["task_info"]

#: Bytes of a body whose arguments are shown.
_MAX_BODY = 65536


def task_info(
    assignment: Assignment, node: str, *, safe: bool = False, pid: int | None = None, since: float | None = None
) -> dict[str, Any]:
    """What is known of a task.

    Args:
        safe: Show arguments as texts.
        since: When it started (monotonic seconds); None if it did not.
    """
    delivery, message = assignment.delivery, assignment.delivery.message
    args, kwargs = _texts(message) if safe else _values(message)
    return {
        "id": message.id,
        "name": message.task,
        "args": args,
        "kwargs": kwargs,
        "type": message.task,
        "hostname": node,
        "time_start": None if since is None else time.time() - (time.monotonic() - since),
        "acknowledged": assignment.is_acked,
        "delivery_info": {
            "exchange": message.exchange,
            "routing_key": message.routing_key or delivery.queue,
            "priority": message.priority or 0,
            "redelivered": delivery.redelivered,
        },
        "worker_pid": pid or None,
    }


def _texts(message: Message) -> tuple[str, str]:
    return str(message.headers.get("argsrepr") or ""), str(message.headers.get("kwargsrepr") or "")


def _values(message: Message) -> tuple[Any, Any]:
    is_plain = message.content_type == "application/json" and "compression" not in message.headers
    if not is_plain or len(message.body) > _MAX_BODY:
        return _texts(message)
    try:
        args, kwargs, _embedded = msgspec.json.decode(message.body)
    except (msgspec.MsgspecError, ValueError, TypeError, RecursionError):
        return _texts(message)
    return args, kwargs
