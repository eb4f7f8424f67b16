"""The signals of tasks and workers, under Celery's documented names. Layer 2."""

from __future__ import annotations

from celeriac.hooks import Signal

__all__ = [
    "after_task_publish", "before_task_publish", "import_modules", "task_failure", "task_internal_error",
    "task_postrun", "task_prerun", "task_retry", "task_success", "worker_process_init", "worker_process_shutdown",
]  # fmt: skip


def _signal(name: str, *args: str) -> Signal:
    return Signal(set(args), name=name)


before_task_publish = _signal(
    "before_task_publish", "body", "exchange", "routing_key", "headers", "properties", "declare", "retry_policy"
)
after_task_publish = _signal("after_task_publish", "body", "exchange", "routing_key", "headers")
task_prerun = _signal("task_prerun", "task_id", "task", "args", "kwargs")
task_postrun = _signal("task_postrun", "task_id", "task", "args", "kwargs", "retval", "state")
task_success = _signal("task_success", "result")
task_retry = _signal("task_retry", "request", "reason", "einfo")
task_failure = _signal("task_failure", "task_id", "exception", "args", "kwargs", "traceback", "einfo")
task_internal_error = _signal(
    "task_internal_error", "task_id", "args", "kwargs", "request", "exception", "traceback", "einfo"
)
import_modules = _signal("import_modules")
worker_process_init = _signal("worker_process_init")
worker_process_shutdown = _signal("worker_process_shutdown", "pid", "exitcode")
