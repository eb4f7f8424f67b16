"""The settings of the broker connection, workers, logging, events, remote control, security and beat.

Each class is one section of the settings page. `setting_table` collects them; nobody else reads this module. A default
that is not Celery's says why in `differs`. Meanings are one line; units stand in `unit`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from celeriac.setting_table_base import setting

__all__ = [
    "BeatSettings", "BrokerSettings", "ControlSettings", "EventSettings", "LoggingSettings", "SecuritySettings",
    "WorkerSettings",
]  # fmt: skip

_OWN_CLASS = "the class is celeriac's own"
_IN_URL = "broker_url"


class BrokerSettings:
    """The connection to the broker."""

    broker_url: str | list[str] = setting(
        "sqlite:///celeriac.db",
        "URL of the broker; several (a list, or separated by `;`) are tried in turn.",
        old="BROKER_URL",
        differs="tasks can be sent and run without a server, through a file in the working directory",
    )
    broker_read_url: str | list[str] = setting(
        None, "Broker URL of consumers.", old="BROKER_READ_URL", fallback="broker_url"
    )
    broker_write_url: str | list[str] = setting(
        None, "Broker URL of publishers.", old="BROKER_WRITE_URL", fallback="broker_url"
    )
    coordination_url: str | None = setting(
        None,
        "Where limits of all workers, unique tasks and paused queues are kept; None: at the broker, else the result store.",
    )
    broker_transport: str | None = setting(None, "Name of the driver, if not the URL's scheme.", old="BROKER_TRANSPORT")
    broker_transport_options: dict[str, Any] = setting(
        {}, "Further options of the broker's driver.", old="BROKER_TRANSPORT_OPTIONS"
    )
    broker_failover_strategy: str | Callable[..., Any] = setting(
        "round-robin", "How the next of several brokers is chosen.", old="BROKER_FAILOVER_STRATEGY"
    )
    broker_heartbeat: float | None = setting(
        120.0, "Interval of AMQP heartbeats; None or 0 turns them off.", old="BROKER_HEARTBEAT", unit="s", low=0
    )
    broker_heartbeat_checkrate: float = setting(
        3.0,
        "How often within that interval they are checked.",
        old="BROKER_HEARTBEAT_CHECKRATE",
        above=0,
        unused="the connection's own thread checks them, in time whatever the worker does",
    )
    broker_use_ssl: bool | dict[str, Any] = setting(False, "Use TLS; a dict gives its options.", old="BROKER_USE_SSL")
    broker_pool_limit: int | None = setting(
        10,
        "Idle connections that a process keeps (Redis; SQL has `pool_size`); None or 0 is the driver's choice.",
        old="BROKER_POOL_LIMIT",
        low=0,
    )
    broker_pool_acquire_timeout: float | None = setting(
        None,
        "Longest wait for a free connection.",
        old="BROKER_POOL_ACQUIRE_TIMEOUT",
        unit="s",
        low=0,
        unused="`publish_timeout` bounds every wait of a call",
    )
    broker_connection_timeout: float | None = setting(
        4.0,
        "Longest time to connect (Redis and RabbitMQ; SQL has the option `timeout`).",
        old="BROKER_CONNECTION_TIMEOUT",
        unit="s",
        above=0,
    )
    broker_connection_retry: bool = setting(
        True, "A worker whose connection is lost makes it anew; false: it ends.", old="BROKER_CONNECTION_RETRY"
    )
    broker_connection_retry_on_startup: bool = setting(
        None,
        "So is one that fails when the worker starts.",
        old="BROKER_CONNECTION_RETRY_ON_STARTUP",
        fallback="broker_connection_retry",
    )
    broker_connection_max_retries: int | None = setting(
        None,
        "Attempts to connect, one after the other, after which a worker gives up and ends; None or 0 never does.",
        old="BROKER_CONNECTION_MAX_RETRIES",
        low=0,
        differs="a worker outlasts any outage of its broker",
    )
    broker_channel_error_retry: bool = setting(
        False,
        "Connect anew when the broker's answer is not valid.",
        old="BROKER_CHANNEL_ERROR_RETRY",
        unused="a worker connects anew after every failure",
    )
    broker_login_method: str | None = setting(None, "AMQP login method.", old="BROKER_LOGIN_METHOD")
    broker_native_delayed_delivery_queue_type: Literal["quorum", "classic"] = setting(
        "quorum",
        "Type of the queues that hold delayed messages (RabbitMQ).",
        old="BROKER_NATIVE_DELAYED_DELIVERY_QUEUE_TYPE",
    )
    broker_host: str | None = setting(None, "Host of the broker.", old="BROKER_HOST", deprecated=_IN_URL)
    broker_port: int | None = setting(
        None, "Port of the broker.", old="BROKER_PORT", low=1, high=65535, deprecated=_IN_URL
    )
    broker_user: str | None = setting(None, "User at the broker.", old="BROKER_USER", deprecated=_IN_URL)
    broker_password: str | None = setting(None, "Password of that user.", old="BROKER_PASSWORD", deprecated=_IN_URL)
    broker_vhost: str | None = setting(None, "Virtual host of the broker.", old="BROKER_VHOST", deprecated=_IN_URL)


class WorkerSettings:
    """Workers and their pools."""

    worker_concurrency: int | None = setting(
        None,
        "Tasks that run at the same time; None is the number of CPUs.",
        old="CELERYD_CONCURRENCY",
        low=1,
        aliases={"auto": None},
    )
    worker_processes: int | None = setting(None, "Processes of the pool; None lets the pool choose.", low=1)
    worker_pool: str = setting(
        "prefork",
        "How tasks run: prefork, threads, asyncio, gevent, eventlet, solo, or a class path.",
        old="CELERYD_POOL",
    )
    worker_prefetch_multiplier: int = setting(
        4,
        "Messages fetched ahead per slot of the pool; 0 is any number.",
        old="CELERYD_PREFETCH_MULTIPLIER",
        low=0,
        unused="what a worker fetches ahead follows how long its tasks take",
    )
    worker_disable_prefetch: bool = setting(
        False,
        "Fetch a message only when a slot is free.",
        old="CELERYD_DISABLE_PREFETCH",
        unused="of long tasks nothing is fetched ahead",
    )
    worker_enable_prefetch_count_reduction: bool = setting(
        True,
        "Fetch less ahead for a while after a reconnection.",
        old="CELERYD_ENABLE_PREFETCH_COUNT_REDUCTION",
        unused="what a worker fetches ahead follows how long its tasks take",
    )
    worker_eta_task_limit: int | None = setting(
        None,
        "Most tasks that are not yet due and held by the worker.",
        old="CELERYD_ETA_TASK_LIMIT",
        low=0,
        unused="tasks that are not due wait at the broker",
    )
    worker_shutdown_grace: float = setting(25.0, "How long a warm shutdown lets running tasks go on.", unit="s", low=0)
    worker_soft_shutdown_timeout: float = setting(
        0.0,
        "How long tasks may go on before a cold shutdown; 0 is not at all.",
        old="CELERYD_SOFT_SHUTDOWN_TIMEOUT",
        unit="s",
        low=0,
    )
    worker_enable_soft_shutdown_on_idle: bool = setting(
        False, "That pause is made although no task runs.", old="CELERYD_ENABLE_SOFT_SHUTDOWN_ON_IDLE"
    )
    worker_max_tasks_per_child: int | None = setting(
        None, "Tasks after which a process is replaced.", old="CELERYD_MAX_TASKS_PER_CHILD", low=1, aliases={0: None}
    )
    worker_max_memory_per_child: int | None = setting(
        None,
        "Memory above which a process is replaced after its task.",
        old="CELERYD_MAX_MEMORY_PER_CHILD",
        unit="KiB",
        low=1,
        aliases={0: None},
    )
    worker_hard_memory_per_child: int | None = setting(
        None, "Memory above which a process is killed in the middle of its task.", unit="KiB", low=1
    )
    worker_lost_wait: float = setting(
        10.0,
        "How long the result of a process that died may still come in.",
        old="CELERYD_WORKER_LOST_WAIT",
        unit="s",
        low=0,
        unused="the end of a process is known at once, with all that it has told before",
    )
    worker_proc_alive_timeout: float = setting(
        4.0,
        "Longest start of a process.",
        old="CELERYD_PROC_ALIVE_TIMEOUT",
        unit="s",
        above=0,
        unused="a process that ends before it is ready is started anew",
    )
    worker_disable_rate_limits: bool = setting(False, "No rate limit applies.", old="CELERY_DISABLE_RATE_LIMITS")
    worker_deduplicate_successful_tasks: bool = setting(
        False,
        "A redelivered task that has succeeded is not run again.",
        old="CELERYD_DEDUPLICATE_SUCCESSFUL_TASKS",
        unused="a message that comes again is never run where its outcome is stored",
    )
    worker_cancel_long_running_tasks_on_connection_loss: bool = setting(
        False,
        "Running tasks that are acknowledged late end when the broker connection is lost.",
        old="CELERYD_CANCEL_LONG_RUNNING_TASKS_ON_CONNECTION_LOSS",
    )
    worker_detect_quorum_queues: bool = setting(
        True,
        "Consume as quorum queues need it where there are any.",
        old="CELERYD_DETECT_QUORUM_QUEUES",
        unused="workers consume in the way that every type of queue takes",
    )
    worker_state_db: str | None = setting(
        None, "File that keeps revoked task ids over restarts.", old="CELERYD_STATE_DB"
    )
    worker_timer_precision: float = setting(
        1.0,
        "Longest pause between looks at tasks that are not yet due.",
        old="CELERYD_TIMER_PRECISION",
        unit="s",
        above=0,
        unused="tasks that are not due wait at the broker",
    )
    worker_pool_restarts: bool = setting(
        False, "The remote command `pool_restart` is allowed.", old="CELERYD_POOL_RESTARTS"
    )
    worker_pool_putlocks: bool = setting(
        True,
        "A task is handed to the pool only when a slot is free.",
        old="CELERYD_POOL_PUTLOCKS",
        unused="a task is handed over only where a slot takes it",
    )
    worker_pool_start_method: Literal["fork", "spawn"] = setting(
        "fork",
        "How processes of the pool come to be.",
        old="CELERYD_POOL_START_METHOD",
        unused="processes are forked from a fresh one, or started by exec where the app has threads",
    )
    worker_autoscaler: str = setting(
        "celeriac.worker.autoscale:Autoscaler", "Class of the autoscaler.", old="CELERYD_AUTOSCALER", differs=_OWN_CLASS
    )
    worker_consumer: str = setting(
        "celeriac.worker.consumer:Consumer",
        "Class of the consumer.",
        old="CELERYD_CONSUMER",
        differs=_OWN_CLASS,
        unused="the worker's parts are its own",
    )
    worker_timer: str | None = setting(
        None, "Class of the timer; None is the pool's.", old="CELERYD_TIMER", unused="the worker's parts are its own"
    )
    worker_agent: str | None = setting(
        None,
        "Class of an agent to run beside the worker.",
        old="CELERYD_AGENT",
        unused="nothing runs beside the worker",
    )
    worker_logfile: str | None = setting(
        None, "Log file of the worker.", unused="it is the option --logfile of celeriac worker"
    )
    worker_pidfile: str | None = setting(
        None, "File with the worker's process id.", unused="it is the option --pidfile of celeriac worker"
    )
    worker_uid: int | str | None = setting(
        None, "User that the worker becomes.", unused="it is the option --uid of celeriac worker"
    )
    worker_gid: int | str | None = setting(
        None, "Group that the worker becomes.", unused="it is the option --gid of celeriac worker"
    )
    worker_umask: int | str | None = setting(
        None, "Umask of the worker in the background.", unused="it is the option --umask of celeriac worker"
    )
    worker_executable: str | None = setting(
        None, "Python of the worker in the background.", unused="it is the option --executable of celeriac worker"
    )


class LoggingSettings:
    """What workers log, and how."""

    worker_hijack_root_logger: bool = setting(
        False,
        "Handlers that the root logger had are removed.",
        old="CELERYD_HIJACK_ROOT_LOGGER",
        differs="logging that you have set up stays as it is",
    )
    worker_log_color: bool | None = setting(None, "Log in colour; None does so on a terminal.", old="CELERYD_LOG_COLOR")
    worker_log_format: str = setting(
        "[%(asctime)s: %(levelname)s/%(processName)s] %(message)s",
        'Format of log lines; "json" is an object a line.',
        old="CELERYD_LOG_FORMAT CELERY_WORKER_LOG_FORMAT",
    )
    worker_log_datefmt: str | None = setting(None, "Format of their date.", old="CELERYD_LOG_DATEFMT")
    worker_task_log_format: str = setting(
        "[%(asctime)s: %(levelname)s/%(processName)s] %(task_name)s[%(task_id)s]: %(message)s",
        'Format of log lines of tasks; "json" is an object a line.',
        old="CELERYD_TASK_LOG_FORMAT CELERY_WORKER_TASK_LOG_FORMAT",
    )
    worker_task_log_datefmt: str | None = setting(None, "Format of their date.", old="CELERYD_TASK_LOG_DATEFMT")
    worker_redirect_stdouts: bool = setting(
        True, "What tasks print is logged.", old="CELERY_REDIRECT_STDOUTS CELERYD_REDIRECT_STDOUTS"
    )
    worker_redirect_stdouts_level: int | str = setting(
        "WARNING", "Level of what is printed.", old="CELERY_REDIRECT_STDOUTS_LEVEL CELERYD_REDIRECT_STDOUTS_LEVEL"
    )


class EventSettings:
    """What workers and clients tell monitors."""

    worker_send_task_events: bool = setting(
        False, "Workers send events about tasks (as `-E`).", old="CELERY_SEND_EVENTS"
    )
    task_send_sent_event: bool = setting(
        False, "Clients send an event for each task.", old="CELERY_SEND_TASK_SENT_EVENT CELERY_SEND_SENT_EVENT"
    )
    event_queue_ttl: float | None = setting(
        5.0, "How long an event waits for a monitor.", old="CELERY_EVENT_QUEUE_TTL", unit="s", low=0
    )
    event_queue_expires: float | None = setting(
        60.0, "How long the queue of an absent monitor is kept.", old="CELERY_EVENT_QUEUE_EXPIRES", unit="s", above=0
    )
    event_queue_durable: bool = setting(
        False, "Monitors' queues outlive the broker; not together with exclusive.", old="CELERY_EVENT_QUEUE_DURABLE"
    )
    event_queue_exclusive: bool = setting(
        True,
        "Monitors' queues belong to one connection; not together with durable.",
        old="CELERY_EVENT_QUEUE_EXCLUSIVE",
    )
    event_queue_prefix: str = setting(
        "celeryev", "First part of the names of monitors' queues.", old="CELERY_EVENT_QUEUE_PREFIX"
    )
    event_exchange: str = setting("celeryev", "Exchange of events.", old="CELERY_EVENT_EXCHANGE")
    event_serializer: str = setting("json", "Serializer of events.", old="CELERY_EVENT_SERIALIZER")
    events_logfile: str | None = setting(None, "Log file of the event monitor.")
    events_pidfile: str | None = setting(None, "File with the monitor's process id.")
    events_uid: int | str | None = setting(None, "User that the monitor becomes.")
    events_gid: int | str | None = setting(None, "Group that the monitor becomes.")
    events_umask: int | str | None = setting(None, "Umask of the monitor in the background.")
    events_executable: str | None = setting(None, "Python of the monitor in the background.")


class ControlSettings:
    """Remote control of workers."""

    worker_enable_remote_control: bool = setting(
        True, "Workers answer remote commands.", old="CELERY_ENABLE_REMOTE_CONTROL"
    )
    control_queue_ttl: float | None = setting(
        300.0, "How long a command or an answer waits.", old="CONTROL_QUEUE_TTL", unit="s", low=0
    )
    control_queue_expires: float | None = setting(
        10.0, "How long an unused queue of commands or answers is kept.", old="CONTROL_QUEUE_EXPIRES", unit="s", above=0
    )
    control_exchange: str = setting("celery", "First part of the names of the exchanges.", old="CONTROL_EXCHANGE")
    control_queue_durable: bool = setting(
        False, "These queues outlive the broker; not together with exclusive.", old="CONTROL_QUEUE_DURABLE"
    )
    control_queue_exclusive: bool = setting(
        True, "These queues belong to one connection; not together with durable.", old="CONTROL_QUEUE_EXCLUSIVE"
    )


class SecuritySettings:
    """Signed messages."""

    security_key: str | None = setting(None, "File of the private key.", old="CELERY_SECURITY_KEY")
    security_key_password: str | bytes | None = setting(
        None, "Password of the private key.", old="CELERY_SECURITY_KEY_PASSWORD"
    )
    security_certificate: str | None = setting(
        None, "File of the X.509 certificate.", old="CELERY_SECURITY_CERTIFICATE"
    )
    security_cert_store: str | None = setting(
        None, "Folder or pattern of the certificates that are trusted.", old="CELERY_SECURITY_CERT_STORE"
    )
    security_digest: str = setting("sha256", "Digest of signatures.", old="CELERY_SECURITY_DIGEST")


class BeatSettings:
    """Periodic tasks."""

    beat_schedule: dict[str, Any] = setting({}, "Periodic tasks, by name.", old="CELERYBEAT_SCHEDULE")
    beat_scheduler: str = setting(
        "celeriac.beat:PersistentScheduler", "Class of the scheduler.", old="CELERYBEAT_SCHEDULER", differs=_OWN_CLASS
    )
    beat_schedule_filename: str = setting(
        "celerybeat-schedule", "File in which the scheduler remembers last runs.", old="CELERYBEAT_SCHEDULE_FILENAME"
    )
    beat_sync_every: int = setting(
        0, "Tasks after which that file is written; 0 goes by time.", old="CELERYBEAT_SYNC_EVERY", low=0
    )
    beat_max_loop_interval: float = setting(
        0.0,
        "Longest pause between looks at the schedule; 0 leaves it to the scheduler.",
        old="CELERYBEAT_MAX_LOOP_INTERVAL",
        unit="s",
        low=0,
    )
    beat_cron_starting_deadline: int | None = setting(
        None,
        "How late a missed crontab entry may still run; None is any time.",
        old="CELERYBEAT_CRON_STARTING_DEADLINE",
        unit="s",
        low=0,
    )
    beat_enable_remote_control: bool = setting(
        False, "The scheduler answers remote pings.", old="CELERYBEAT_ENABLE_REMOTE_CONTROL"
    )
    beat_remote_control_max_tick_age: float | None = setting(
        None,
        "How late the scheduler may be and still answer.",
        old="CELERYBEAT_REMOTE_CONTROL_MAX_TICK_AGE",
        unit="s",
        low=0,
    )
    beat_logfile: str | None = setting(None, "Log file of the scheduler.")
    beat_pidfile: str | None = setting(None, "File with the scheduler's process id.")
    beat_uid: int | str | None = setting(None, "User that the scheduler becomes.")
    beat_gid: int | str | None = setting(None, "Group that the scheduler becomes.")
    beat_umask: int | str | None = setting(None, "Umask of the scheduler in the background.")
    beat_executable: str | None = setting(None, "Python of the scheduler in the background.")
