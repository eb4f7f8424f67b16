"""Every exception and warning that celeriac raises, in one tree.

Names and bases follow Celery's documented exceptions, so `except` clauses written for Celery keep working. Nothing of
ours is imported here. Control flow out of a task uses four of them: `Retry`, `Reject`, `Ignore` and
`SoftTimeLimitExceeded`.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from types import TracebackType
from typing import Any, NoReturn

__all__ = [
    "AlreadyRegistered", "AlwaysEagerIgnored", "BackendError", "BackendGetMetaError", "BackendStoreError",
    "CDeprecationWarning", "CPendingDeprecationWarning",
    "CeleriacError", "CeleriacWarning", "ChordError", "ChordErrorCallbackWarning", "ContentDisallowed", "DecodeError",
    "DuplicateNodenameWarning", "DuplicateTaskError",
    "DuplicateTaskNameWarning", "EncodeError", "FixupWarning", "Ignore", "ImproperlyConfigured", "IncompleteStream",
    "InvalidTaskError", "LeaseLost", "MaxRetriesExceededError", "MessageTooLarge", "NotConfigured", "NotRegistered",
    "OperationalError", "QueueNotFound", "Reject", "Retry", "SecurityError", "SecurityWarning",
    "SoftTimeLimitExceeded", "TaskError", "TaskPredicate", "TaskRevokedError", "Terminated", "TimeLimitExceeded",
    "TimeoutError", "WorkerLostError", "WorkerShutdown", "WorkerTerminate", "near_match",
    "reraise",
]  # fmt: skip


def near_match(name: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """A hint such as ` Did you mean 'task_acks_late'?`, or nothing when no known name is close."""
    import difflib  # here, since few need it and every import of celeriac would pay for it

    close = difflib.get_close_matches(name, list(known), n=1, cutoff=cutoff)
    return f" Did you mean {close[0]!r}?" if close else ""


def reraise(tp: type[BaseException], value: BaseException, tb: TracebackType | None = None) -> NoReturn:
    """Raise an error once more, with a traceback of its own."""
    raise value if tb is None or value.__traceback__ is tb else value.with_traceback(tb)


class CeleriacError(Exception):
    """Base of all celeriac errors."""


class CeleriacWarning(UserWarning):
    """Base of all celeriac warnings."""


class CDeprecationWarning(CeleriacWarning, DeprecationWarning):
    """Something is deprecated; Celery's documented name. celeriac itself warns with FutureWarning, which people see."""


class CPendingDeprecationWarning(CeleriacWarning, PendingDeprecationWarning):
    """Something will be deprecated; Celery's documented name."""


class AlwaysEagerIgnored(CeleriacWarning):
    """`send_task` always sends a message, although `task_always_eager` is on."""


class ChordErrorCallbackWarning(CeleriacWarning, PendingDeprecationWarning):
    """An error callback of a chord is not called for the tasks of its header: see `task_allow_error_cb_on_chord_header`."""


class DuplicateNodenameWarning(CeleriacWarning):
    """Two workers share a node name. Give each its own with `-n`."""


class DuplicateTaskNameWarning(CeleriacWarning):
    """Two functions are registered under one task name. Pass `name=` to one of them."""


class FixupWarning(CeleriacWarning):
    """An integration (Django) could not set itself up."""


class NotConfigured(CeleriacWarning):
    """No configuration was found; defaults are used."""


class SecurityWarning(CeleriacWarning):
    """A setting or situation is a potential security problem."""


class ImproperlyConfigured(CeleriacError):
    """A setting, URL or option is wrong. The message names it and what is allowed."""


class SecurityError(CeleriacError):
    """A message's signature or a certificate can't be trusted."""


class OperationalError(CeleriacError):
    """The broker or result store can't be reached or refused the operation. Trying again later may help."""


class LeaseLost(OperationalError):
    """A delivery's lease has run out and another worker holds it."""


class MessageTooLarge(CeleriacError, ValueError):
    """A message is larger than `message_max_bytes` or the broker's limit. Pass a reference to the data instead."""


class EncodeError(CeleriacError, TypeError):
    """A value can't be serialized. The message names it."""


class DecodeError(CeleriacError, ValueError):
    """A body can't be deserialized or decompressed."""


class ContentDisallowed(DecodeError):
    """The content type is not in `accept_content`."""


class TaskPredicate(CeleriacError):
    """Base of the exceptions by which a task names its own outcome."""


class Ignore(TaskPredicate):
    """The worker stores nothing for this task and acknowledges it."""


class Reject(TaskPredicate):
    """Reject the message: to the dead letters, or back to its queue with `requeue=True`."""

    def __init__(self, reason: Any = None, requeue: bool = False) -> None:
        super().__init__(reason, requeue)
        self.reason = reason
        self.requeue = requeue

    def __repr__(self) -> str:
        return f"reject requeue={self.requeue}: {self.reason}"


class Retry(TaskPredicate):
    """The task is to be run again later.

    Attributes:
        message: What to say.
        exc: The error that made the task retry, or None.
        excs: Text of `exc`, kept when the exception itself can't travel.
        when: Seconds (a number) or moment (datetime) of the next attempt.
        is_eager: Whether the retry happens in this process (`apply`).
        sig: The signature of the next attempt.
    """

    def __init__(
        self,
        message: str | None = None,
        exc: BaseException | str | None = None,
        when: float | datetime | None = None,
        is_eager: bool = False,
        sig: Any = None,
        **kwargs: Any,
    ) -> None:
        self.message = message
        self.excs = exc if isinstance(exc, str) else repr(exc) if exc is not None else None
        self.exc = exc if isinstance(exc, BaseException) else None
        self.when = when
        self.is_eager = is_eager
        self.sig = sig
        super().__init__(message or "Retry", exc, when)

    def humanize(self) -> str:
        """When the next attempt comes, in words."""
        if isinstance(self.when, (int, float)):
            return f"in {self.when}s"
        return f"at {self.when}"

    def __str__(self) -> str:
        if self.message:
            return self.message
        return f"Retry {self.humanize()}" + (f": {self.excs}" if self.excs else "")

    def __reduce__(self) -> tuple[Any, ...]:
        return self.__class__, (self.message, self.exc or self.excs, self.when)


class TaskError(CeleriacError):
    """Base of errors about tasks."""


class NotRegistered(KeyError, TaskError):
    """No task of this name is registered here."""

    def __str__(self) -> str:
        return f"Task of name {self.args[0]!r} is not registered here." if len(self.args) == 1 else super().__str__()


class QueueNotFound(KeyError, TaskError):
    """The queue is not in `task_queues` and `task_create_missing_queues` is off."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class AlreadyRegistered(TaskError):
    """A task of this name is registered already."""


class TimeoutError(TaskError):  # noqa: A001 -- Celery's documented name
    """The result did not come in time. The task goes on."""


class MaxRetriesExceededError(TaskError):
    """The task has used up its retries.

    Attributes:
        task_args: Positional arguments of the task.
        task_kwargs: Keyword arguments of the task.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.task_args = kwargs.pop("task_args", ())
        self.task_kwargs = kwargs.pop("task_kwargs", {})
        super().__init__(*args)


class TaskRevokedError(TaskError):
    """The task was revoked or had expired."""


class DuplicateTaskError(TaskError):
    """There is a task of this kind already, and its option `on_conflict` is "raise".

    Attributes:
        task: Name of the task.
        task_id: Id of the one that is there.
    """

    def __init__(self, task: str, task_id: str) -> None:
        self.task, self.task_id = task, task_id
        super().__init__(task, task_id)

    def __str__(self) -> str:
        return f"{self.task}[{self.task_id}] is there already, and only one of equal calls may be"


class InvalidTaskError(TaskError):
    """A message is not a task message, or one with broken fields."""


class IncompleteStream(TaskError):
    """The results of a workflow are not all there yet."""


class ChordError(TaskError):
    """A task of a chord's header failed."""


class BackendError(CeleriacError):
    """The result store has a problem."""


class BackendGetMetaError(BackendError):
    """Reading a result failed."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.task_id = kwargs.get("task_id", "")
        super().__init__(*args)

    def __repr__(self) -> str:
        return f"{super().__repr__()} task_id:{self.task_id}"


class BackendStoreError(BackendError):
    """Storing a result failed."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.state = kwargs.get("state", "")
        self.task_id = kwargs.get("task_id", "")
        super().__init__(*args)

    def __repr__(self) -> str:
        return f"{super().__repr__()} state:{self.state} task_id:{self.task_id}"


class SoftTimeLimitExceeded(Exception):
    """The soft time limit has passed. Raised inside the task, which may clean up."""

    def __str__(self) -> str:
        return f"SoftTimeLimitExceeded{self.args!s}"


class TimeLimitExceeded(Exception):
    """The hard time limit has passed and the task was ended."""

    def __str__(self) -> str:
        return f"TimeLimitExceeded{self.args!s}"


class WorkerLostError(Exception):
    """The process that ran the task has died."""


class Terminated(Exception):
    """The process that ran the task was terminated on request."""


class WorkerShutdown(SystemExit):
    """Raise to shut the worker down warmly."""


class WorkerTerminate(SystemExit):
    """Raise to shut the worker down at once."""
