"""The settings of tasks, their routing and their results, with type, default, meaning and Celery's old names.

Each class is one section of the settings page. `setting_table` collects them; nobody else reads this module. A default
that is not Celery's says why in `differs`. Meanings are one line; units stand in `unit`.
"""

from __future__ import annotations

from datetime import timedelta, tzinfo
from typing import Any, Literal

from celeriac.setting_table_base import setting

__all__ = ["GeneralSettings", "ResultSettings", "RoutingSettings", "RpcSettings", "TaskSettings"]

#: Zero is how some configurations say "no limit".
_ZERO_IS_NONE = {0: None}


class GeneralSettings:
    """What concerns the whole app."""

    strict_settings: bool = setting(True, "A setting with an unknown name is an error; false makes it a warning.")
    accept_content: list[str] = setting(
        ["json"],
        "Serializers or content types that messages may have; others are refused.",
        old="CELERY_ACCEPT_CONTENT",
    )
    enable_utc: bool = setting(
        True, "Moments in messages are UTC; false: the local time zone.", old="ENABLE_UTC CELERY_ENABLE_UTC"
    )
    timezone: str | tzinfo | None = setting(
        None, "Time zone of schedules and of local times; None is UTC.", old="CELERY_TIMEZONE"
    )
    imports: list[str] = setting([], "Modules that a worker imports at its start, in this order.", old="CELERY_IMPORTS")
    include: list[str] = setting([], "Further modules to import, after `imports`.", old="CELERY_INCLUDE")


class TaskSettings:
    """How tasks are sent and run, where the task or the call does not say otherwise."""

    task_annotations: Any = setting(
        None, "Changes to tasks' attributes, by task name or `*` for all.", old="CELERY_ANNOTATIONS"
    )
    task_compression: str | None = setting(
        None, "How message bodies are compressed.", old="CELERY_MESSAGE_COMPRESSION CELERY_COMPRESSION"
    )
    task_protocol: Literal[1, 2] = setting(2, "Version of the message format to send.", old="CELERY_TASK_PROTOCOL")
    task_serializer: str = setting("json", "Serializer of task messages.", old="CELERY_TASK_SERIALIZER")
    publish_timeout: float = setting(5.0, "Longest time to publish a message, with all attempts.", unit="s", above=0)
    message_max_bytes: int = setting(
        16 * 1024 * 1024, "Largest serialized body; a larger one is refused at publish.", unit="bytes", low=1
    )
    message_max_unpacked_bytes: int = setting(
        256 * 1024 * 1024, "Largest size to which a compressed body may unpack.", unit="bytes", low=1
    )
    message_max_depth: int = setting(
        1000, "How deep arrays and objects in a body may be nested; a deeper one is refused by workers.", low=8
    )
    task_publish_retry: bool = setting(
        True, "Publish again when the connection fails.", old="CELERY_TASK_PUBLISH_RETRY CELERY_PUBLISH_RETRY"
    )
    task_publish_retry_policy: dict[str, Any] = setting(
        {"max_retries": 3, "interval_start": 0, "interval_max": 1, "interval_step": 0.2},
        "Attempts and pauses of `task_publish_retry`.",
        old="CELERY_TASK_PUBLISH_RETRY_POLICY CELERY_PUBLISH_RETRY_POLICY",
    )
    task_always_eager: bool = setting(
        False, "Calls run the task at once, in the caller.", old="CELERY_ALWAYS_EAGER CELERY_TASK_ALWAYS_EAGER"
    )
    task_eager_propagates: bool = setting(
        False,
        "Exceptions of tasks run eagerly reach the caller.",
        old="CELERY_EAGER_PROPAGATES_EXCEPTIONS CELERY_EAGER_PROPAGATES",
    )
    task_store_eager_result: bool = setting(
        False, "Results of tasks run eagerly are stored.", old="CELERY_STORE_EAGER_RESULT"
    )
    task_remote_tracebacks: bool = setting(
        False,
        "What `get` raises has the worker's frames in its traceback (extra `tblib`), not as text in its cause.",
        old="CELERY_REMOTE_TRACEBACKS",
    )
    task_ignore_result: bool = setting(False, "Return values are not stored.", old="CELERY_IGNORE_RESULT")
    task_store_errors_even_if_ignored: bool = setting(
        False, "Failures are stored although results are ignored.", old="CELERY_STORE_ERRORS_EVEN_IF_IGNORED"
    )
    task_track_started: bool = setting(
        False, "The state STARTED is stored.", old="CELERY_TRACK_STARTED CELERY_TASK_TRACK_STARTED"
    )
    task_track_enqueued: bool = setting(False, "A record is stored when a task is sent, so that unknown ids show.")
    task_time_limit: float | None = setting(
        None,
        "A task that runs longer is ended from outside.",
        old="CELERYD_TASK_TIME_LIMIT CELERYD_TIME_LIMIT",
        unit="s",
        above=0,
        aliases=_ZERO_IS_NONE,
    )
    task_soft_time_limit: float | None = setting(
        None,
        "A task that runs longer gets SoftTimeLimitExceeded.",
        old="CELERYD_TASK_SOFT_TIME_LIMIT CELERYD_SOFT_TIME_LIMIT",
        unit="s",
        above=0,
        aliases=_ZERO_IS_NONE,
    )
    task_allow_error_cb_on_chord_header: bool = setting(
        False,
        "An error callback on a chord is also one of each header task.",
        old="CELERY_ALLOW_ERROR_CB_ON_CHORD_HEADER",
    )
    task_acks_late: bool = setting(
        True,
        "A message is acknowledged after its task has ended, not before it starts.",
        old="CELERY_ACKS_LATE",
        differs="a worker that dies loses no task; set it to false for at most one run",
    )
    task_acks_on_failure_or_timeout: bool = setting(
        True,
        "A failed or timed-out task is acknowledged, too.",
        old="CELERY_ACKS_ON_FAILURE_OR_TIMEOUT",
        deprecated="task_acks_on_failure and task_acks_on_timeout",
    )
    task_acks_on_failure: bool | None = setting(
        None, "A failed task is acknowledged; false: rejected, not requeued.", old="CELERY_ACKS_ON_FAILURE"
    )
    task_acks_on_timeout: bool | None = setting(
        None, "A timed-out task is acknowledged; false: put back on its queue.", old="CELERY_ACKS_ON_TIMEOUT"
    )
    task_reject_on_worker_lost: bool = setting(
        True,
        "A task whose process died goes back to its queue; false: it fails with WorkerLostError.",
        old="CELERY_REJECT_ON_WORKER_LOST CELERY_TASK_REJECT_ON_WORKER_LOST",
        differs="a killed process costs a second run, not the task; `task_max_deliveries` bounds the runs",
    )
    task_retry_on_worker_lost: bool = setting(
        False, "A task whose process died is sent anew, as by `retry`.", old="CELERY_RETRY_ON_WORKER_LOST"
    )
    task_max_deliveries: int = setting(5, "Starts after which a task that never ends becomes a dead letter.", low=1)
    task_lease: float = setting(
        30.0, "How long a worker holds a message before others may take it; renewed every third.", unit="s", above=0
    )
    task_unknown_delay: float = setting(
        10.0, "Pause before a task that this worker does not know is offered again.", unit="s", low=0
    )
    task_unique_timeout: float = setting(
        86_400.0, "How long the lock of a unique task is kept while its message waits.", unit="s", above=0
    )
    task_repr_maxlevels: int = setting(
        3, "Depth to which nested arguments are shown in headers and logs.", old="CELERY_REPR_MAXLEVELS", low=0
    )
    task_default_rate_limit: float | str | None = setting(
        None, "Rate limit of tasks without one of their own: 10, `10/m`, `5/h`.", old="CELERY_DEFAULT_RATE_LIMIT"
    )


class RoutingSettings:
    """To which queue a task goes, and how queues come to be."""

    task_queues: list[Any] | dict[str, Any] | None = setting(
        None, "Queues that workers consume; None is the default queue alone.", old="CELERY_QUEUES"
    )
    task_routes: Any = setting(
        None, "Where tasks go: a dict by name or pattern, a router, or a list of these.", old="CELERY_ROUTES"
    )
    task_queue_max_priority: int | None = setting(
        None, "Highest priority of queues (RabbitMQ).", old="CELERY_QUEUE_MAX_PRIORITY", low=0, high=255
    )
    task_default_priority: int | None = setting(
        None, "Priority of messages.", old="CELERY_DEFAULT_PRIORITY", low=0, high=255
    )
    task_inherit_parent_priority: bool = setting(
        False, "Tasks sent by a task have its priority.", old="CELERY_INHERIT_PARENT_PRIORITY"
    )
    task_create_missing_queues: bool = setting(
        True, "A queue that `task_queues` does not name is created.", old="CELERY_CREATE_MISSING_QUEUES"
    )
    task_create_missing_queue_type: Literal["classic", "quorum"] = setting(
        "classic", "Type of queues that are created so (RabbitMQ).", old="CELERY_CREATE_MISSING_QUEUE_TYPE"
    )
    task_create_missing_queue_exchange_type: str | None = setting(
        None, "Exchange type of queues that are created so.", old="CELERY_CREATE_MISSING_QUEUE_EXCHANGE_TYPE"
    )
    task_default_queue: str = setting("celery", "Queue of tasks without a route.", old="CELERY_DEFAULT_QUEUE")
    task_default_queue_type: Literal["classic", "quorum"] = setting(
        "classic", "Type of the default queue (RabbitMQ).", old="CELERY_DEFAULT_QUEUE_TYPE"
    )
    task_default_exchange: str = setting(
        None, "Exchange of tasks without a route.", old="CELERY_DEFAULT_EXCHANGE", fallback="task_default_queue"
    )
    task_default_exchange_type: str = setting(
        "direct", "Type of the default exchange.", old="CELERY_DEFAULT_EXCHANGE_TYPE"
    )
    task_default_routing_key: str = setting(
        None, "Routing key of tasks without a route.", old="CELERY_DEFAULT_ROUTING_KEY", fallback="task_default_queue"
    )
    task_default_delivery_mode: Literal[1, 2, "transient", "persistent"] = setting(
        2,
        "Whether the broker keeps messages over a restart (2) or may lose them (1).",
        old="CELERY_DEFAULT_DELIVERY_MODE",
    )
    worker_direct: bool = setting(
        False, "Each worker also has a queue of its own, to send tasks to it.", old="CELERY_WORKER_DIRECT"
    )


class ResultSettings:
    """Where and how results are stored."""

    result_backend: str | None = setting(
        "sqlite:///celeriac.db",
        "URL, alias or class path of the result store; None stores nothing.",
        old="CELERY_RESULT_BACKEND",
        differs="results work without a server, from a file in the working directory",
    )
    result_backend_always_retry: bool | None = setting(
        None,
        "Reads of the result store that failed for a while are repeated; None: 3 times where it is a SQL server.",
        old="CELERY_RESULT_BACKEND_ALWAYS_RETRY",
        differs="one default for all stores, which says what Celery says for each",
    )
    result_backend_max_sleep_between_retries_ms: int = setting(
        10_000,
        "Longest pause between such attempts.",
        old="CELERY_RESULT_BACKEND_MAX_SLEEP_BETWEEN_RETRIES_MS",
        unit="ms",
        low=0,
    )
    result_backend_base_sleep_between_retries_ms: int = setting(
        10,
        "First pause; it doubles from there.",
        old="CELERY_RESULT_BACKEND_BASE_SLEEP_BETWEEN_RETRIES_MS",
        unit="ms",
        low=0,
    )
    result_backend_max_retries: float = setting(
        float("inf"), "How often such an operation is repeated.", old="CELERY_RESULT_BACKEND_MAX_RETRIES", low=0
    )
    result_backend_thread_safe: bool = setting(
        False,
        "Threads share one connection object to the result store.",
        unused="all stores may be used by several threads at once",
    )
    result_backend_transport_options: dict[str, Any] = setting(
        {}, "Further options of the result store's driver.", old="CELERY_RESULT_BACKEND_TRANSPORT_OPTIONS"
    )
    result_serializer: str = setting("json", "Serializer of results.", old="CELERY_RESULT_SERIALIZER")
    result_compression: str | None = setting(None, "How results are compressed.", old="CELERY_RESULT_COMPRESSION")
    result_accept_content: list[str] = setting(
        None,
        "Serializers or content types that results may have.",
        old="RESULT_ACCEPT_CONTENT",
        fallback="accept_content",
    )
    result_extended: bool = setting(
        False, "A result also has the task's name, arguments, worker, retries and queue.", old="CELERY_RESULT_EXTENDED"
    )
    result_expires: float | timedelta | None = setting(
        timedelta(days=1),
        "How long results are kept; None or 0 is for ever.",
        old="CELERY_TASK_RESULT_EXPIRES CELERY_RESULT_EXPIRES",
        unit="s",
        low=0,
    )
    result_chord_expires: float | None = setting(
        None,
        "How long a chord's counters are kept; None is as long as results.",
        old="CELERY_RESULT_CHORD_EXPIRES",
        unit="s",
        low=0,
    )
    result_failure_expires: float | None = setting(
        None,
        "How long failures are kept; None is as long as other results.",
        old="CELERY_RESULT_FAILURE_EXPIRES",
        unit="s",
        low=0,
    )
    result_cache_max: int | None = setting(
        -1,
        "Results that a client remembers; -1 is none, 0 or None any number.",
        old="CELERY_MAX_CACHED_RESULTS",
        low=-1,
    )
    result_chord_sweep_interval: float = setting(
        60.0,
        "Seconds between two looks for chords that nothing has happened to; 0 is never.",
        unit="s",
        low=0,
    )
    result_chord_join_timeout: float | None = setting(
        3.0,
        "Longest wait for one part when a chord is joined.",
        old="CELERY_RESULT_CHORD_JOIN_TIMEOUT",
        unit="s",
        low=0,
        unused="the parts of a chord are read once all have ended, which waits for nothing",
    )
    result_chord_retry_interval: float = setting(
        1.0,
        "Pause between looks at a chord where the store can't count.",
        old="CELERY_RESULT_CHORD_RETRY_INTERVAL",
        unit="s",
        above=0,
    )
    override_backends: dict[str, Any] = setting({}, "Result store classes by alias, before the built-in ones.")


class RpcSettings:
    """Results that are sent back as messages (`rpc://`)."""

    result_persistent: bool | None = setting(
        None, "Result messages outlive a restart of the broker.", old="CELERY_RESULT_PERSISTENT"
    )
    result_exchange: str = setting(
        "celeryresults",
        "Exchange of the former amqp results.",
        old="CELERY_RESULT_EXCHANGE",
        deprecated="rpc results need none",
        unused="results go straight to the client's own queue",
    )
    result_exchange_type: str = setting(
        "direct",
        "Type of that exchange.",
        old="CELERY_RESULT_EXCHANGE_TYPE",
        deprecated="rpc results need none",
        unused="results go straight to the client's own queue",
    )
