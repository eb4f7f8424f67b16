"""Sends the signals of the supervisor, with the senders and arguments that Celery documents, and logs what is received.

The supervisor and the lifecycle call it. Receivers are the user's code: they are in this process only if it has the app, which
the nursery knows. Nothing is made for a signal that nobody listens to.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from celeriac import log, signals, states
from celeriac.errors import InvalidTaskError, NotRegistered
from celeriac.message import Delivery
from celeriac.worker.admission import Admission, Decision
from celeriac.worker.request import Request
from celeriac.worker.request_hooks import RequestHooks

if TYPE_CHECKING:
    from celeriac.worker.supervisor import Supervisor

__all__ = ["Announcer"]

logger = log.get_logger("celeriac.worker.received")


class Announcer:
    """Tells of one worker.

    Args:
        worker: The sender of most signals.
    """

    def __init__(self, worker: Supervisor) -> None:
        self._worker = worker
        self.hooks = RequestHooks(worker)

    @property
    def tells(self) -> bool:
        """Whether anybody would know of what is admitted."""
        return self._worker.app is not None or logger.isEnabledFor(logging.INFO)

    def starting(self) -> None:
        """The settings are known, nothing is connected."""
        worker = self._worker
        self.hooks.find()
        signals.worker_init.send(sender=worker)
        signals.celeryd_after_setup.send(sender=worker.node, instance=worker, conf=worker.conf)

    def ready(self) -> None:
        """Tasks can be taken."""
        signals.worker_ready.send(sender=self._worker)

    def shutting_down(self, sig: str, how: str) -> None:
        """It was told to end, by a signal of this name; `how` is "Warm" or "Cold"."""
        signals.worker_shutting_down.send(sender=self._worker.node, sig=sig, how=how, exitcode=0)

    def gone(self) -> None:
        """Its last moment."""
        signals.worker_shutdown.send(sender=self._worker)

    def admitted(self, delivery: Delivery, admission: Admission) -> None:
        """What becomes of a message that has come."""
        verdict = admission.verdict
        if admission.decision is Decision.DEAD:
            if signals.task_rejected.receivers:
                exc = InvalidTaskError(admission.reason)
                signals.task_rejected.send(sender=self._worker, message=delivery.message, exc=exc)
        elif admission.reason.startswith("unknown task") or verdict.error == "NotRegistered":
            if signals.task_unknown.receivers:
                name, task_id = delivery.message.task, delivery.message.id
                signals.task_unknown.send(
                    sender=self._worker, message=delivery.message, exc=NotRegistered(name), name=name, id=task_id
                )
        elif verdict.state == states.REVOKED:
            self.revoked(delivery, expired=verdict.args == ["expired"])
        elif admission.decision is Decision.RUN and not verdict.state:
            self._received(delivery)

    def _received(self, delivery: Delivery) -> None:
        if signals.task_received.receivers:
            signals.task_received.send(sender=self._worker, request=self._request(delivery))
        if logger.isEnabledFor(logging.INFO):
            request = self._request(delivery)
            fields = {"id": request.id, "name": request.name, "args": request.args, "kwargs": request.kwargs}
            line = self._worker.hello.received_line or log.LOG_RECEIVED
            log.log_task(logger, logging.INFO, line, {**fields, "hostname": self._worker.node})

    def revoked(
        self, delivery: Delivery, *, terminated: bool = False, signum: int | None = None, expired: bool = False
    ) -> None:
        """A task is not run, or was ended, because it was revoked or has expired."""
        if signals.task_revoked.receivers:
            signals.task_revoked.send(
                sender=self._task(delivery), request=self._request(delivery), terminated=terminated, signum=signum,
                expired=expired,
            )  # fmt: skip

    def _request(self, delivery: Delivery) -> Request:
        return self.hooks.request(delivery)

    def _task(self, delivery: Delivery) -> Any:
        app = self._worker.app
        return None if app is None else app.tasks.get(delivery.message.task)
