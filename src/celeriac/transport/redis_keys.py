"""The options of the Redis transport, and the names of keys and channels that follow from them.

The Redis transport and its parts share one `Keys`. The layout is kombu's (lists with priority steps, `unacked`, binding
tables, `/{db}.` channels), so that stock Celery shares queues with ours; keys of our own begin with `celeriac:`.
"""

from __future__ import annotations

import ast
import bisect
import contextlib
from collections.abc import Mapping
from typing import Any

import msgspec

from celeriac.errors import ImproperlyConfigured
from celeriac.results.redis_url import as_bool, as_number

__all__ = ["OPTIONS", "Keys"]

#: Options of `broker_transport_options`; the last line has no effect here and is accepted, as Celery's is.
OPTIONS = (
    "delay_at_publish", "fanout_patterns", "fanout_prefix", "global_keyprefix", "highest_first", "polling_interval",
    "priority_steps",
    "queue_order_strategy", "sep", "unacked_index_key", "unacked_key", "unacked_restore_limit", "visibility_timeout",
    "ack_emulation", "unacked_mutex_expire", "unacked_mutex_key",
)  # fmt: skip
_STRATEGIES = ("fair", "priority", "round_robin", "round_robin_fair", "sorted")


class Keys(msgspec.Struct, frozen=True, kw_only=True):
    """Names, and the options that the transport's parts need.

    Attributes:
        prefix: Before every key.
        channel_prefix: Before every channel of a topic.
        visibility_timeout: Seconds after which what a stock worker holds counts as left behind.
        order: `queue_order_strategy`.
        highest_first: Whether 9 is the most urgent priority, as on other brokers, and not 0, as for stock Celery on Redis.
        delay_at_publish: Whether a message with an ETA goes to the delayed ones at once. If not it is pushed to its list,
            as stock does it, and the worker that gets it puts it aside. None: at once if a celeriac worker is there,
            since stock workers know nothing of the delayed ones.
    """

    prefix: str = ""
    channel_prefix: str = "/0."
    sep: str = "\x06\x16"
    steps: tuple[int, ...] = (0, 3, 6, 9)
    fanout_patterns: bool = True
    visibility_timeout: float = 3600.0
    restore_limit: int = 100
    order: str = "round_robin"
    highest_first: bool = False
    delay_at_publish: bool | None = None
    polling_interval: float = 0.05
    unacked_key: str = "unacked"
    unacked_index_key: str = "unacked_index"

    @classmethod
    def from_options(cls, options: Mapping[str, Any], db: int, tag: str) -> Keys:
        """The keys for these options, on a database or in a cluster (`tag`)."""
        given = str(options.get("global_keyprefix") or "")
        prefix = f"{{{tag}}}:{given}" if tag else given
        order = str(options.get("queue_order_strategy") or "round_robin")
        if order not in _STRATEGIES:
            raise ImproperlyConfigured(f"queue_order_strategy is one of {', '.join(_STRATEGIES)}, not {order!r}.")
        fields: dict[str, Any] = {"prefix": prefix, "order": order, "channel_prefix": prefix + _channel(options, db)}
        for name in ("sep", "unacked_key", "unacked_index_key"):
            if options.get(name):
                fields[name] = str(options[name])
        if options.get("priority_steps"):
            fields["steps"] = _steps(options["priority_steps"])
        for name in ("fanout_patterns", "delay_at_publish", "highest_first"):
            if options.get(name) is not None:
                fields[name] = as_bool(name, options[name])
        for name in ("visibility_timeout", "polling_interval"):
            if options.get(name) is not None:
                fields[name] = as_number(name, options[name], low=0.001)
        if options.get("unacked_restore_limit") is not None:
            fields["restore_limit"] = int(as_number("unacked_restore_limit", options["unacked_restore_limit"], low=1))
        return cls(**fields)

    def key(self, name: str) -> str:
        """A key by its name without prefix."""
        return self.prefix + name

    def heads(self) -> list[str]:
        """The keys that every script gets."""
        return [
            self.key(self.unacked_key), self.key(self.unacked_index_key), self.key("celeriac:odd"),
            self.key("celeriac:agenda"),
        ]  # fmt: skip

    def lists(self, queue: str) -> list[str]:
        """The lists of a queue, the most urgent first."""
        return [self.key(self.list_name(queue, step)) for step in self.steps]

    def list_name(self, queue: str, step: int) -> str:
        """Name, without prefix, of the list for a priority step."""
        return f"{queue}{self.sep}{step}" if step else queue

    def list_for(self, queue: str, priority: Any) -> str:
        """Name, without prefix, of the list for a priority."""
        number = min(9, max(0, priority)) if isinstance(priority, int) else 0
        if self.highest_first:
            number = 9 - number
        return self.list_name(queue, self.steps[bisect.bisect(self.steps, number) - 1])

    def channel(self, topic: str) -> str:
        """The channel of a topic: an exchange, or `exchange/routing.key`."""
        return self.channel_prefix + (topic if self.fanout_patterns else topic.partition("/")[0])


def _channel(options: Mapping[str, Any], db: int) -> str:
    given = options.get("fanout_prefix", True)
    if isinstance(given, str) and "{db}" in given:
        return given.replace("{db}", str(db))
    return f"/{db}." if as_bool("fanout_prefix", given) else ""


def _steps(value: Any) -> tuple[int, ...]:
    with contextlib.suppress(ValueError, SyntaxError):
        value = ast.literal_eval(value) if isinstance(value, str) else value
    if isinstance(value, (list, tuple, range)) and value and all(isinstance(step, int) for step in value):
        return tuple(sorted(value))
    raise ImproperlyConfigured(f"priority_steps is a list of numbers such as [0, 3, 6, 9], not {value!r}.")
