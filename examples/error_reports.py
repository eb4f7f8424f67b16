"""Failures of tasks reported elsewhere, as Sentry and its like want them: `python error_reports.py`.

With Sentry: `app.middleware.append(ErrorReports(lambda exc, facts: sentry_sdk.capture_exception(exc, extras=facts)))`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from celeriac import Celeriac, Context, Middleware
from celeriac.errors import TaskPredicate, TimeLimitExceeded, WorkerLostError
from celeriac.signals import task_failure
from celeriac.testing.worker import start_worker

Report = Callable[[BaseException, dict[str, Any]], None]


class ErrorReports(Middleware):
    """Reports what tasks raise, with what is known of the call. Secret arguments are hidden in its texts."""

    def __init__(self, report: Report) -> None:
        self.report = report
        task_failure.connect(self.on_failure)

    def execute(self, context: Context, run: Callable[[], Any]) -> Any:
        """Around the task: here its frames and their variables are at hand."""
        try:
            return run()
        except TaskPredicate:  # Retry, Ignore, Reject: the task's own words, no errors
            raise
        except Exception as exc:
            self.report(exc, {"task": context.task, "id": context.id, "args": context.argsrepr, "try": context.retries})
            raise

    def on_failure(self, sender: Any, task_id: str, exception: BaseException, **_: Any) -> None:
        """What no code of the task has raised: it was killed."""
        if isinstance(exception, (TimeLimitExceeded, WorkerLostError)):
            self.report(exception, {"task": sender.name, "id": task_id})


def tell(exc: BaseException, facts: dict[str, Any]) -> None:
    print(f"{facts['task']}{facts.get('args', '')} failed: {exc!r}")


app = Celeriac("shop", broker="memory://", backend="memory://", middleware=[ErrorReports(tell)])


@app.task
def divide(x: int, y: int) -> float:
    return x / y


if __name__ == "__main__":
    with start_worker(app):
        divide.delay(1, 0).get(timeout=60, propagate=False)
