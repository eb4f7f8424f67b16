"""How much RabbitMQ may push: which consumers are open, and how many unsettled messages each may have.

`amqp_consumer` calls `plan` when a fetch finds nothing. Each consumer has a limit of its own, as quorum queues demand and as
queues must take turns; so a worker of several queues may be sent more than it wants, and what it does not fetch soon goes back.

Invariant: what `plan` writes down about the session is true once its requests are answered.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from celeriac.transport.amqp_request import Request, cancel, consume, prefetch
from celeriac.transport.amqp_session import Listening, Session

__all__ = ["plan"]

#: AMQP's largest prefetch.
MAX_PREFETCH = 65_535


def plan(session: Session, queues: Sequence[str], limit: int, tags: Iterator[int]) -> list[Request]:
    """What to ask for, so that `limit` messages more than are here may come from each of these queues.

    Args:
        tags: Numbers for new consumers.
    """
    requests: list[Request] = []
    for queue in queues:
        here = session.leased[queue] + len(session.early)
        need = min(here + limit, MAX_PREFETCH)
        present = session.listening.get(queue)
        # Opening anew costs as much as a few messages, and what is on its way then comes as delivered before: a limit that
        # lets half of what is wanted come stays, and one that is somewhat too large.
        if present is not None and (limit + 1) // 2 <= present.prefetch - here <= 4 * limit + 20:
            continue
        if present is not None:
            requests.append(cancel(present.tag))
        tag = f"celeriac-{next(tags)}"
        session.queue_of[tag] = queue
        session.listening[queue] = Listening(tag, need)
        requests += [prefetch(need), consume(queue, tag)]
    return requests
