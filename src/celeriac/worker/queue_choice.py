"""Which queues a worker consumes, and which it declares. Pure functions, but for the random names of copies.

Queues that nobody has described are left as they are at the broker, or made by whoever uses them first, unless the settings give
them properties that nobody could make up.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from celeriac.config import Settings
from celeriac.errors import ImproperlyConfigured, near_match
from celeriac.router import queue_defaults
from celeriac.routing import Queue, copy_of, worker_direct
from celeriac.worker.options import WorkerOptions

__all__ = ["as_consumed", "chosen_queues", "described_as", "queues_to_declare"]


def chosen_queues(described: Sequence[Queue], options: WorkerOptions, conf: Settings) -> list[Queue]:
    """The queues that this worker consumes; of broadcast queues its own copies.

    Raises:
        ImproperlyConfigured: One is not described, and the settings allow no others.
    """
    known = [queue.name for queue in described]
    left_out = {_name_of(described, name) for name in options.exclude_queues}
    chosen = []
    for given in list(options.queues) or known:
        queue = described_as(described, given)
        if queue is None and not conf.task_create_missing_queues:
            raise ImproperlyConfigured(
                f"queue {given!r} is not in task_queues ({', '.join(known)}).{near_match(given, known)}"
            )
        chosen.append(queue or queue_defaults(conf).missing(given))
    if conf.worker_direct:
        chosen.append(worker_direct(options.node))
    return [
        as_consumed(queue) for queue in {queue.name: queue for queue in chosen}.values() if queue.name not in left_out
    ]


def described_as(described: Iterable[Queue], name: str) -> Queue | None:
    """The queue with this name or alias."""
    queues = list(described)
    found = next((queue for queue in queues if queue.name == name), None)
    return found or next((queue for queue in queues if queue.alias == name), None)


def _name_of(described: Iterable[Queue], name: str) -> str:
    queue = described_as(described, name)
    return name if queue is None else queue.name


def as_consumed(queue: Queue) -> Queue:
    """What a worker fetches from for this queue."""
    return copy_of(queue) if queue.is_broadcast else queue


def queues_to_declare(described: Sequence[Queue], consumed: Iterable[Queue]) -> list[Queue]:
    """What a worker that consumes these queues declares; and the exchanges of all broadcast queues, to which it may send."""
    known = {queue.name for queue in described}
    mine = [queue for queue in consumed if queue.name in known or queue.is_special or queue.exchange.name != queue.name]
    return [*mine, *(queue for queue in described if queue.is_broadcast)]
