"""How much RabbitMQ may push: which consumers are open, and how many unsettled messages each may have.

`amqp_consumer` calls `plan` when a fetch finds nothing, and `has_surplus` at each fetch. Each consumer has a limit of its own,
as quorum queues demand and as queues must take turns; so a worker of several queues may be sent more than it wants, and what it
does not fetch soon goes back.

A limit that was once given can't be changed: the consumer is cancelled and opened anew. While messages stream in that takes
tens of milliseconds, and what is on its way then comes a second time. What a busy worker wants changes from fetch to fetch, so
a limit is generous where much is wanted, and one that is too large goes only when it has been so for a while.

Invariant: what `plan` writes down about the session is true once its requests are answered.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from celeriac.routing import Queue
from celeriac.transport.amqp_request import Request, cancel, consume, prefetch
from celeriac.transport.amqp_session import Listening, Session

__all__ = ["has_surplus", "plan"]

#: AMQP's largest prefetch.
MAX_PREFETCH = 65_535
#: Who wants so many at once has short tasks and soon wants as many again; who wants fewer is sent no more than that.
MANY = 8
#: Seconds for which a limit may be too large.
PATIENCE = 1.0


def plan(
    session: Session, queues: Sequence[str], limit: int, tags: Iterator[int], known: Mapping[str, Queue]
) -> list[Request]:
    """What to ask for, so that `limit` messages more than are here may come from each of these queues.

    Args:
        tags: Numbers for new consumers.
        known: Definitions of queues.
    """
    requests: list[Request] = []
    for queue in queues:
        here = session.leased[queue] + len(session.early)
        present = session.listening.get(queue)
        may_come = 0 if present is None else session.credit(queue) if limit < MANY else present.prefetch - here
        if may_come >= (limit + 1) // 2:
            continue
        about = known.get(queue)
        goes_last = about is not None and about.auto_delete  # the queue would go with its consumer
        if present is not None and not goes_last:
            requests.append(cancel(present.tag))
        tag = f"celeriac-{next(tags)}"
        # What earlier consumers were sent does not count against the new one. Who wants many can use it soon.
        allowed = min(limit if limit < MANY else here + 2 * limit, MAX_PREFETCH)
        session.queue_of[tag] = queue
        session.listening[queue] = Listening(tag, allowed)
        arguments = about.consumer_arguments if about is not None else None
        requests += [prefetch(allowed), consume(queue, tag, arguments=arguments)]
        if present is not None and goes_last:
            requests.append(cancel(present.tag))
    return requests


def has_surplus(session: Session, limit: int, now: float) -> bool:
    """Whether for a while far more than was wanted has been here or allowed to come.

    Args:
        now: Monotonic.
    """
    enough = 4 * limit + 20 + len(session.early)
    if all(each.prefetch - session.leased[queue] <= enough for queue, each in session.listening.items()):
        session.surplus_since = None
        return False
    if session.surplus_since is None:
        session.surplus_since = now
    return now - session.surplus_since > PATIENCE
