"""The options of `apply_async`: which there are, and what values they may have.

`sending.prepare` checks a call that has options before anything is sent, so that a wrong one is the caller's error here
and not a message that a worker can't use. Moments (`countdown`, `eta`, `expires`) are checked where they are turned into
dates, serializers and compressions where they are looked up.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any
from uuid import UUID

from celeriac.errors import near_match
from celeriac.safe_repr import saferepr

__all__ = ["COPIED", "KNOWN", "LIMITS", "check_limits", "check_options", "signatures_of", "task_id_of"]

#: The header that tells a worker what it can't see of a call's limits without opening the body (see `task_limits`).
LIMITS = "celeriac-limits"

#: Options that have a meaning of their own; any other becomes a property of the message.
KNOWN = frozenset({
    "add_to_parent", "argsrepr", "chain", "chord", "compression", "concurrency_key", "confirm_timeout", "connection", "countdown",
    "declare", "delivery_mode", "eta", "exchange", "exchange_type", "expires", "group_id", "group_index", "headers",
    "ignore_result", "immediate", "is_named", "kwargsrepr", "limits", "link", "link_error", "mandatory",
    "parent_id", "priority", "producer", "publisher", "queue", "replaced_task_nesting", "reply_to", "result_cls",
    "retries", "retry", "retry_policy", "root_id", "route_name", "router", "routing_key", "serializer", "shadow",
    "soft_time_limit", "stamped_headers", "stamps", "task_id", "task_type", "time_limit", "timeout",
})  # fmt: skip

#: Properties of a message that have a meaning to brokers, although some are called almost as options are.
PROPERTIES = frozenset({
    "app_id", "cluster_id", "content_encoding", "content_type", "correlation_id", "expiration", "message_id", "timestamp",
    "type", "user_id",
})  # fmt: skip
#: How like an option's name an unknown one is that must be a slip: `contdown`, but not `tenant_id`, which is a property.
_SLIP = 0.8

#: Options that are fields of `TaskCall`, too, and are passed on as they are.
COPIED = (
    "serializer", "compression", "countdown", "eta", "expires", "retries", "time_limit", "soft_time_limit", "chain",
    "chord", "group_id", "group_index", "root_id", "parent_id", "reply_to", "ignore_result", "argsrepr", "kwargsrepr",
    "replaced_task_nesting", "stamped_headers", "headers", "delivery_mode", "priority",
)  # fmt: skip


def check_options(options: Mapping[str, Any]) -> None:
    """Check the values of calling options.

    Raises:
        ValueError: A limit or priority is not a number that is allowed, or the soft limit is above the hard one.
        TypeError: Another option has the wrong type, or its name is that of an option but for a slip.
    """
    unknown = options.keys() - KNOWN
    if unknown:
        _check_unknown(unknown - PROPERTIES - set(options.get("stamped_headers") or ()))
    priority = options.get("priority")
    if priority is not None and not (_is_number(priority, int) and 0 <= priority <= 255):
        raise ValueError(f"priority={saferepr(priority, 60)} is not a whole number from 0 to 255")
    check_limits(options.get("time_limit"), options.get("soft_time_limit"))
    for name in ("headers", "retry_policy", "stamps"):
        if not isinstance(options.get(name), (Mapping, type(None))):
            raise TypeError(f"{name}={saferepr(options[name], 60)} is not a mapping")
    key = options.get("concurrency_key")
    if not isinstance(key, (str, type(None))):
        raise TypeError(
            f"concurrency_key={saferepr(key, 60)} is not text; templates and functions are options of tasks"
        )
    queue = options.get("queue")
    if queue is not None and not isinstance(getattr(queue, "name", queue), str):
        raise TypeError(f"queue={saferepr(queue, 60)} is neither a name nor a Queue")


def _check_unknown(names: Iterable[str]) -> None:
    """Any further keyword becomes a property of the message, but hardly one that is almost an option."""
    for name in sorted(names):
        hint = near_match(name, KNOWN, _SLIP)
        if hint:
            raise TypeError(f"{name!r} is no option of apply_async.{hint}")


def check_limits(hard: Any, soft: Any) -> None:
    """Check a pair of time limits, either of which may be None.

    Raises:
        ValueError: One is not a positive number, or the soft limit is above the hard one.
    """
    for name, value in (("time_limit", hard), ("soft_time_limit", soft)):
        if value is not None and not (_is_number(value, (int, float)) and value > 0):
            raise ValueError(f"{name}={saferepr(value, 60)} is not a number of seconds above 0")
    if hard is not None and soft is not None and soft > hard:
        raise ValueError(f"soft_time_limit ({soft}) must not be above time_limit ({hard})")


def task_id_of(value: Any) -> str:
    """A task id that a caller gave, as text.

    Raises:
        TypeError: It is neither text nor a UUID.
    """
    if isinstance(value, (str, UUID)):
        return str(value)
    raise TypeError(f"task_id={saferepr(value, 60)} is neither text nor a UUID")


def signatures_of(option: str, link: Any) -> list[Any] | None:
    """The option `link` or `link_error` as a list of signatures; None for none.

    Raises:
        TypeError: One of them is not a signature.
    """
    if not link:
        return None
    found = list(link) if isinstance(link, (list, tuple)) else [link]
    for each in found:
        if not isinstance(each, Mapping):
            hint = f"; pass {each.name}.s()" if hasattr(each, "apply_async") else ""
            raise TypeError(f"{option} takes a signature or a list of signatures, not {saferepr(each, 60)}{hint}")
    return found


def _is_number(value: Any, kinds: type | tuple[type, ...]) -> bool:
    return isinstance(value, kinds) and not isinstance(value, bool)
