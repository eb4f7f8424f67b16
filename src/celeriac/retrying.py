"""When and how a task is tried again: the decision of `Task.retry`, pure but for the random jitter."""

from __future__ import annotations

import sys
from datetime import datetime
from typing import TYPE_CHECKING, Any

from celeriac.errors import Retry
from celeriac.safe_repr import saferepr
from celeriac.timing import jitter as random_part

if TYPE_CHECKING:
    from celeriac.context import Context

__all__ = ["add_autoretry_behaviour", "exception_classes", "next_delay", "retry_options"]

_AUTORETRY = frozenset({
    "autoretry_for", "dont_autoretry_for", "retry_kwargs", "retry_backoff", "retry_backoff_max", "retry_jitter",
})  # fmt: skip


def exception_classes(what: str, value: Any) -> tuple[type[BaseException], ...]:
    """One exception class or several, as a tuple.

    Raises:
        TypeError: One of them is no exception class; the message names `what` asks for them.
    """
    found = tuple(value) if isinstance(value, (list, tuple, set, frozenset)) else (value,)
    for each in found:
        if not (isinstance(each, type) and issubclass(each, BaseException)):
            raise TypeError(f"{what} must hold exception classes, not {saferepr(each, 60)}")
    return found


def next_delay(retries: int, factor: bool | float, maximum: float, *, jitter: bool) -> float:
    """Seconds before retry number `retries + 1`: factor * 2**retries, at most `maximum`; with jitter, below that."""
    ceiling = min(float(factor) * 2.0 ** min(retries, 60), float(maximum))
    return random_part() * ceiling if jitter else ceiling


def retry_options(
    task: Any,
    context: Context,
    args: Any,
    kwargs: Any,
    exc: BaseException | None,
    eta: datetime | None,
    countdown: float | None,
    max_retries: int | None,
    options: dict[str, Any],
) -> tuple[Retry, BaseException | None]:
    """The `Retry` to raise, and the error to raise instead when no attempt is left."""
    cause = exc or sys.exc_info()[1]
    if context.called_directly and not context.is_eager:
        return Retry("Task can be retried", exc=cause), cause or Retry("Task can be retried", None)
    if countdown is None and eta is None:
        countdown = task.default_retry_delay
    limit = task.max_retries if max_retries is None else max_retries
    signature = task.signature_from_request(
        context, args, kwargs, countdown=countdown, eta=eta, **{**options, "retries": context.retries + 1}
    )
    retry = Retry(exc=cause, when=eta or countdown, is_eager=context.is_eager, sig=signature)
    if limit is not None and context.retries >= limit:
        return retry, cause or task.MaxRetriesExceededError(
            f"Can't retry {task.name}[{context.id}] args:{context.args} kwargs:{context.kwargs}",
            task_args=context.args,
            task_kwargs=context.kwargs,
        )
    return retry, None


def add_autoretry_behaviour(task: Any, **options: Any) -> None:
    """Let a task be tried again after the exceptions in the option `autoretry_for`; options that are no concern stay out."""
    for name in _AUTORETRY & options.keys():
        setattr(task, name, options[name])
