"""What stock workers leave behind: messages in `unacked` that are older than the visibility timeout.

The Redis transport calls it once a minute while it fetches, so that nothing stays behind when the last stock worker is
gone. Our own leases end by the agenda (see `redis_lua`), much sooner. Whoever comes first restores: the script
takes a message only if it is still there, so a stock worker may do the same at the same moment.
"""

from __future__ import annotations

import json
import time
from typing import Any

from celeriac.log import get_logger
from celeriac.results.redis_connection import Argument, Server
from celeriac.transport.redis_bindings import Bindings
from celeriac.transport.redis_keys import Keys
from celeriac.transport.redis_lua import RESTORE

__all__ = ["restore"]

logger = get_logger("celeriac.transport.redis")


def restore(server: Server, keys: Keys, bindings: Bindings) -> int:
    """Put back what is overdue, a limited number at once; returns how many messages."""
    unacked, index, *_ = heads = keys.heads()
    seconds, microseconds = server.call("TIME")
    overdue = int(seconds) + int(microseconds) / 1e6 - keys.visibility_timeout
    tags = server.call("ZRANGEBYSCORE", index, "-inf", overdue, "LIMIT", 0, keys.restore_limit)
    if not tags:
        return 0
    values = server.call("HMGET", unacked, *tags)
    args: list[Argument] = [keys.prefix]
    for tag, value in zip(tags, values, strict=True):
        if value is None:
            server.call("ZREM", index, tag)
            continue
        element, lists = _target(value, keys, bindings)
        if not lists:
            logger.error("message %r in %s belongs to no queue and stays there", tag.decode(errors="replace"), unacked)
            server.call("ZADD", index, "XX", time.time(), tag)  # not again and again: it would use up the limit
            continue
        args += (tag, element, len(lists), *lists)
    count = int(server.run(RESTORE, heads, args)) if len(args) > 1 else 0
    if count:
        logger.warning("%d message(s) restored that a worker had left for %g s", count, keys.visibility_timeout)
    return count


def _target(value: bytes, keys: Keys, bindings: Bindings) -> tuple[str, list[str]]:
    """The element in a value of `unacked`, marked as redelivered, and the lists it belongs to."""
    try:
        envelope, exchange, routing_key = json.loads(value)
        _mark(envelope)
        priority = envelope["properties"].get("priority")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return "", []
    queues = bindings.queues_of(str(exchange or ""), str(routing_key or ""))
    return json.dumps(envelope), [keys.key(keys.list_for(queue, priority)) for queue in queues]


def _mark(envelope: Any) -> None:
    envelope["headers"]["redelivered"] = True
    envelope["properties"]["delivery_info"]["redelivered"] = True
