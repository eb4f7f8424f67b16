"""Which queues a worker consumes, and which it declares. Pure functions; the supervisor calls them when it starts.

Queues that nobody has described are left as they are at the broker, or made by whoever uses them first, unless the settings give
them properties that nobody could make up.
"""

from __future__ import annotations

from collections.abc import Sequence

from celeriac.config import Settings
from celeriac.errors import ImproperlyConfigured, near_match
from celeriac.router import queue_defaults
from celeriac.routing import Queue
from celeriac.worker.options import WorkerOptions

__all__ = ["chosen_queues", "queues_to_declare"]


def chosen_queues(described: Sequence[Queue], options: WorkerOptions, conf: Settings) -> list[str]:
    """Names of the queues that this worker consumes.

    Raises:
        ImproperlyConfigured: One is not described, and the settings allow no others.
    """
    known = [queue.name for queue in described]
    chosen = list(options.queues) or known
    if not conf.task_create_missing_queues:
        for name in chosen:
            if name not in known:
                raise ImproperlyConfigured(
                    f"queue {name!r} is not in task_queues ({', '.join(known)}).{near_match(name, known)}"
                )
    return [name for name in chosen if name not in options.exclude_queues]


def queues_to_declare(described: Sequence[Queue], names: Sequence[str], conf: Settings) -> list[Queue]:
    """What a worker that consumes these queues declares."""
    known = {queue.name: queue for queue in described}
    defaults = queue_defaults(conf)
    wanted = [known.get(name) or defaults.missing(name) for name in names]
    return [queue for queue in wanted if queue.name in known or queue.is_special]
