"""The signals of tasks and workers: Celery's documented names, senders and arguments. Layer 2.

Users connect; the client, the runner and the worker send. Each is sent in the process that its comment names. A supervisor
imports the app only if something is connected to one of `OF_THE_SUPERVISOR`: the zygote tells.
"""

from __future__ import annotations

from celeriac.hooks import Signal

__all__ = [
    "ALL", "OF_THE_SUPERVISOR", "after_setup_logger", "after_setup_task_logger", "after_task_publish",
    "beat_embedded_init", "beat_init", "before_task_publish", "celeryd_after_setup", "celeryd_init",
    "eventlet_pool_apply", "eventlet_pool_postshutdown", "eventlet_pool_preshutdown", "eventlet_pool_started",
    "heartbeat_sent", "import_modules", "setup_logging", "task_failure", "task_internal_error", "task_postrun",
    "task_prerun", "task_received", "task_rejected", "task_retry", "task_revoked", "task_sent", "task_success",
    "task_unknown", "user_preload_options", "worker_before_create_process", "worker_init", "worker_process_init",
    "worker_process_shutdown", "worker_ready", "worker_shutdown", "worker_shutting_down",
]  # fmt: skip

#: All of them, by name.
ALL: dict[str, Signal] = {}


def _signal(name: str, *args: str) -> Signal:
    ALL[name] = signal = Signal(set(args), name=name)
    return signal


# In the process that sends a task. The sender is the task's name.
before_task_publish = _signal(
    "before_task_publish", "body", "exchange", "routing_key", "headers", "properties", "declare", "retry_policy"
)
after_task_publish = _signal("after_task_publish", "body", "exchange", "routing_key", "headers")
task_sent = _signal("task_sent", "task_id", "task", "args", "kwargs", "eta", "taskset")  # superseded by the one above

# In the process that runs a task. The sender is the task.
task_prerun = _signal("task_prerun", "task_id", "task", "args", "kwargs")
task_postrun = _signal("task_postrun", "task_id", "task", "args", "kwargs", "retval", "state")
task_success = _signal("task_success", "result", "runtime")
task_retry = _signal("task_retry", "request", "reason", "einfo")
task_failure = _signal("task_failure", "task_id", "exception", "args", "kwargs", "traceback", "einfo")
task_internal_error = _signal(
    "task_internal_error", "task_id", "args", "kwargs", "request", "exception", "traceback", "einfo"
)
worker_process_init = _signal("worker_process_init")  # the sender is None
worker_process_shutdown = _signal("worker_process_shutdown", "pid", "exitcode")  # the sender is None

# In each process of a worker that loads the app.
celeryd_init = _signal("celeryd_init", "instance", "conf", "options")  # the sender is the node's name
import_modules = _signal("import_modules")  # the sender is the app; in other programs, too
setup_logging = _signal("setup_logging", "loglevel", "logfile", "format", "colorize")
after_setup_logger = _signal("after_setup_logger", "logger", "loglevel", "logfile", "format", "colorize")
after_setup_task_logger = _signal("after_setup_task_logger", "logger", "loglevel", "logfile", "format", "colorize")

# In the supervisor. The sender is the worker, unless it is said otherwise.
celeryd_after_setup = _signal("celeryd_after_setup", "instance", "conf")  # the sender is the node's name
worker_init = _signal("worker_init")
worker_ready = _signal("worker_ready")
worker_shutting_down = _signal("worker_shutting_down", "sig", "how", "exitcode")  # the sender is the node's name
worker_shutdown = _signal("worker_shutdown")
worker_before_create_process = _signal("worker_before_create_process")  # the sender is the process to be
heartbeat_sent = _signal("heartbeat_sent")
task_received = _signal("task_received", "request")
task_revoked = _signal("task_revoked", "request", "terminated", "signum", "expired")  # the sender is the task
task_unknown = _signal("task_unknown", "message", "exc", "name", "id")
task_rejected = _signal("task_rejected", "message", "exc")

# In the process of the command, and of the scheduler.
user_preload_options = _signal("user_preload_options", "app", "options")
beat_init = _signal("beat_init")
beat_embedded_init = _signal("beat_embedded_init")

# In a runner of the eventlet pool.
eventlet_pool_started = _signal("eventlet_pool_started")
eventlet_pool_preshutdown = _signal("eventlet_pool_preshutdown")
eventlet_pool_postshutdown = _signal("eventlet_pool_postshutdown")
eventlet_pool_apply = _signal("eventlet_pool_apply", "target", "args", "kwargs")

#: Those for which a supervisor imports the app: those that it alone sends, and those that say how it logs.
OF_THE_SUPERVISOR = frozenset({
    "after_setup_logger", "after_setup_task_logger", "celeryd_after_setup", "heartbeat_sent", "setup_logging",
    "task_received", "task_rejected", "task_revoked", "task_unknown", "worker_before_create_process", "worker_init",
    "worker_ready", "worker_shutdown", "worker_shutting_down",
})  # fmt: skip
