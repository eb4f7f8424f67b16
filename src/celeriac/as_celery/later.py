"""What Celery documents and this version does not have, by what it waits for. Importing it raises an ImportError that says so."""

from __future__ import annotations

__all__ = ["LATER", "WAITING"]

#: What is missing → path of a module → its names. A module that has names here and in `names` is there without these.
WAITING: dict[str, dict[str, str]] = {
    "periodic tasks": {
        "celery.apps.beat": "Beat",
        "celery.beat": "BeatPidbox EmbeddedService PersistentScheduler ScheduleEntry Scheduler SchedulingError Service",
        "celery.bin.beat": "beat",
        "celery.bin.worker": "CeleryBeat",
        "celery.schedules": "ParseException crontab crontab_parser maybe_schedule schedule solar",
    },
    "events": {
        "celery.app.events": "Events",
        "celery.bin.events": "events",
        "celery.events": "Event EventDispatcher EventReceiver event_exchange get_exchange group_from",
        "celery.events.dispatcher": "EventDispatcher",
        "celery.events.event": "Event event_exchange get_exchange group_from",
        "celery.events.receiver": "EventReceiver",
        "celery.events.snapshot": "Polaroid evcam",
        "celery.events.state": "State Task Worker heartbeat_expires",
    },
    "bootsteps, and workers as objects": {
        "celery.apps": "",
        "celery.apps.worker": "Worker",
        "celery.bootsteps": "Blueprint ConsumerStep StartStopStep Step",
        "celery.worker": "WorkController",
        "celery.worker.consumer": "Agent Connection Consumer Control Events Gossip Heart Mingle Tasks",
        "celery.worker.consumer.agent": "Agent",
        "celery.worker.consumer.connection": "Connection",
        "celery.worker.consumer.consumer": "Consumer Evloop dump_body",
        "celery.worker.consumer.control": "Control",
        "celery.worker.consumer.events": "Events",
        "celery.worker.consumer.gossip": "Gossip",
        "celery.worker.consumer.heart": "Heart",
        "celery.worker.consumer.mingle": "Mingle",
        "celery.worker.consumer.tasks": "Tasks",
        "celery.worker.state": (
            "Persistent SOFTWARE_INFO active_requests maybe_shutdown merge_revoked reserved_requests revoked "
            "scheduled_requests task_accepted task_ready task_reserved task_scheduled total_count"
        ),
        "celery.worker.strategy": "default",
        "celery.worker.worker": "WorkController",
    },
    "several workers by one command": {"celery.apps.multi": "Cluster Node", "celery.bin.multi": "MultiTool"},
    "the rest of the command line": {
        "celery.bin.amqp": "amqp",
        "celery.bin.base": (
            "CLIContext COMMA_SEPARATED_LIST CeleryCommand CeleryDaemonCommand CeleryOption CommaSeparatedList "
            "DaemonOption ISO8601 ISO8601DateTime ISO8601DateTimeOrFloat ISO8601_OR_FLOAT JSON_ARRAY JSON_OBJECT JsonArray "
            "JsonObject LOG_LEVEL LogLevel consume_preload_options handle_preload_options handle_remote_command_error"
        ),
        "celery.bin.graph": "graph",
        "celery.bin.list": "bindings",
        "celery.bin.logtool": "logtool",
        "celery.bin.shell": "shell",
        "celery.bin.upgrade": "upgrade settings",
        "celery.bin.worker": "detach Autoscale Hostname WorkersPool",
    },
    "kombu's inner parts": {
        "kombu.asynchronous": "Hub",
        "kombu.common": "QoS",
        "kombu.pidbox": "Mailbox",
    },
    "objects that celeriac has no counterpart of": {
        "celery.utils.graph": "DOT",
    },
}

#: Path of a module, or of a name in one → what it waits for. `names` ranks above it: a module may be here in part.
LATER: dict[str, str] = {
    path: reason
    for reason, modules in WAITING.items()
    for module, names in modules.items()
    for path in (module, *(f"{module}.{name}" for name in names.split()))
}
