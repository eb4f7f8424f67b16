"""Apps on the memory transport, and a worker of a few lines that runs what they sent through the real code of runners.

`memory_app` makes an app with a broker of its own. `run_all` fetches, executes and commits until nothing is due, as a
worker does, but in the calling thread, so that a unit test needs neither processes nor waiting.
"""

from __future__ import annotations

import uuid
from typing import Any

from celeriac import Celeriac
from celeriac.environment import Environment
from celeriac.execution import execute
from celeriac.message import Action, Delivery, Message, Settlement
from celeriac.outcome import JOIN, Execution, Outcome, Verdict
from celeriac.results.base import Record
from celeriac.transport.base import Commit
from celeriac.worker.chords import Entry, count

__all__ = ["memory_app", "run_all", "sent"]

NODE = "unit@test"


def memory_app(main: str | None = "unit", **settings: Any) -> Celeriac:
    """An app with a broker and a result store of its own in this process; it is not the current app."""
    url = f"memory://{uuid.uuid4().hex}"
    settings = {"broker": url, "backend": url, "set_as_current": False, **settings}
    return Celeriac(main, **settings)


def sent(app: Celeriac, *queues: str) -> list[Message]:
    """The messages that are due in these queues (default "celery"), taken out of them."""
    deliveries = _fetch(app, queues)
    app.transport.settle([Settlement(delivery) for delivery in deliveries])
    return [delivery.message for delivery in deliveries]


def run_all(app: Celeriac, *queues: str) -> list[Outcome]:
    """Run what is due in these queues, and what follows from it, until nothing is due; returns the outcomes in order."""
    environment = Environment(app, NODE, lambda record: _store(app, [record]))
    outcomes: list[Outcome] = []
    try:
        while deliveries := _fetch(app, queues):
            for delivery in deliveries:
                outcome = execute(environment, _execution(delivery))
                outcomes.append(outcome)
                _commit(app, environment, delivery, outcome)
    finally:
        environment.close()
    return outcomes


def _fetch(app: Celeriac, queues: tuple[str, ...]) -> list[Delivery]:
    return app.transport.fetch(queues or ("celery",), 100, 0, 60.0)


def _execution(delivery: Delivery) -> Execution:
    return Execution(1, 0, delivery.message, delivery.queue, delivery.deliveries)


def _store(app: Celeriac, records: list[Record]) -> None:
    if records and app.backend is not None:
        app.backend.store(records)


def _commit(app: Celeriac, environment: Environment, delivery: Delivery, outcome: Outcome) -> None:
    _store(app, outcome.more_records)
    held = [outcome]
    settlement = Settlement(delivery, Action(outcome.action), outcome.reason, outcome.until)
    entry = Entry(
        settlement, outcome.record, outcome.messages, outcome.more_records, parts=outcome.parts, chords=outcome.chords,
        on_last=lambda group_id: held.append(execute(environment, _join(delivery, outcome, group_id))),
    )  # fmt: skip
    (counted,) = count(app.backend, [entry])
    if counted.on_done is not None:
        app.transport.publish(outcome.messages)
        counted.on_done()
        _commit(app, environment, delivery, held[-1])
    else:
        app.transport.commit([Commit(settlement, counted.record, counted.messages)])


def _join(delivery: Delivery, outcome: Outcome, group_id: str) -> Execution:
    verdict = Verdict(JOIN, args=[group_id], action=outcome.action, reason=outcome.reason)
    return Execution(1, 0, delivery.message, delivery.queue, delivery.deliveries, verdict)
