"""What becomes of running tasks when the broker is lost: the setting `worker_cancel_long_running_tasks_on_connection_loss`.

Without it they go on, for their leases are renewed once the broker is back. With it those that are acknowledged late are
ended at once, told as RETRY, and given back uncharged: whoever gets them next is the only one that runs them.
Called in the event loop, once for each loss.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from celeriac import states
from celeriac.errors import Retry
from celeriac.log import get_logger
from celeriac.message import Action, Message, Settlement
from celeriac.worker.assignment import Assignment
from celeriac.worker.committer import Entry
from celeriac.worker.end_record import end_record
from celeriac.worker.termination import terminate

if TYPE_CHECKING:
    from celeriac.worker.supervisor import Supervisor

__all__ = ["cancel_running", "notice_losses"]

logger = get_logger("celeriac.worker")

REASON = "cancelled: its worker has lost the connection to the broker"


def notice_losses(worker: Supervisor, from_thread: Callable[..., Callable[..., None]]) -> None:
    """Have the threads that would notice a loss tell of it, if the setting says so."""
    if worker.conf.worker_cancel_long_running_tasks_on_connection_loss:
        worker.intake.on_away = worker.leases.on_away = from_thread(partial(cancel_running, worker))


def cancel_running(worker: Supervisor) -> None:
    """End what runs and is not acknowledged yet."""
    if not worker.nursery.can_kill:
        logger.error("the connection to the broker is lost; what runs in the worker's own process can't be cancelled")
        return

    def is_late(message: Message) -> bool:
        facts = worker.hello.tasks.get(message.task)
        return facts is None or facts.acks_late

    def give_back(assignment: Assignment) -> None:
        logger.warning("%s[%s] %s", assignment.task, assignment.id, REASON)
        # Apart from the settlement, which is refused where the broker has given the message to another one already.
        if not assignment.delivery.message.headers.get("ignore_result"):
            record = end_record(assignment.delivery.message, assignment.fence, states.RETRY, Retry(REASON))
            worker.committer.add([Entry(record=record)])
        worker.settle(assignment, Entry(Settlement(assignment.delivery, Action.REQUEUE)), is_final=False)

    terminate(worker.pool, is_late, signal.SIGKILL, give_back)
