"""What each `celery` and `kombu` path is here: the table that the finder makes modules from.

`NAMES[path][name]` is "module:attribute" of ours. `later` lists what is documented and not here yet; `python -m
celeriac.as_celery --names` prints both.
"""

from __future__ import annotations

from celeriac.as_celery.inner_names import INNER_NAMES
from celeriac.as_celery.name_rows import rows, same

__all__ = ["NAMES"]

_ERRORS = same(
    "celeriac.errors",
    "AlreadyRegistered AlwaysEagerIgnored BackendError BackendGetMetaError BackendStoreError CDeprecationWarning",
    "CPendingDeprecationWarning ChordError DuplicateNodenameWarning DuplicateTaskNameWarning FixupWarning Ignore",
    "ImproperlyConfigured IncompleteStream InvalidTaskError MaxRetriesExceededError NotConfigured NotRegistered",
    "OperationalError QueueNotFound Reject Retry SecurityError SecurityWarning SoftTimeLimitExceeded TaskError",
    "TaskPredicate TaskRevokedError Terminated TimeLimitExceeded TimeoutError WorkerLostError WorkerShutdown",
    "WorkerTerminate reraise",
    CeleryError="CeleriacError",
    CeleryWarning="CeleriacWarning",
)
_SIGNALS = same(
    "celeriac.signals",
    "after_setup_logger after_setup_task_logger after_task_publish beat_embedded_init beat_init before_task_publish",
    "celeryd_after_setup celeryd_init eventlet_pool_apply eventlet_pool_postshutdown eventlet_pool_preshutdown",
    "eventlet_pool_started heartbeat_sent import_modules setup_logging task_failure task_internal_error task_postrun",
    "task_prerun task_received task_rejected task_retry task_revoked task_sent task_success task_unknown",
    "user_preload_options worker_before_create_process worker_init worker_process_init worker_process_shutdown",
    "worker_ready worker_shutdown worker_shutting_down",
)
_STATES = same(
    "celeriac.states",
    "ALL_STATES EXCEPTION_STATES FAILURE IGNORED NONE_PRECEDENCE PENDING PRECEDENCE PRECEDENCE_LOOKUP PROPAGATE_STATES",
    "READY_STATES RECEIVED REJECTED RETRY REVOKED STARTED SUCCESS UNREADY_STATES precedence state",
)
_NODENAMES = same(
    "celeriac.node_names",
    "anon_nodename default_nodename gethostname host_format node_format nodename nodesplit worker_direct",
)
_CANVAS = same("celeriac.canvas", "Signature chain chord chunks group maybe_signature signature subtask xmap xstarmap")
_FIXTURES = same(
    "celeriac.contrib.pytest",
    "celery_app celery_class_tasks celery_config celery_enable_logging celery_includes celery_parameters",
    "celery_session_app celery_session_worker celery_worker celery_worker_parameters celery_worker_pool",
    "depends_on_current_app use_celery_app_trap",
    # Not Celery's, but pytest looks for them in the plugin.
    "pytest_configure celeriac_app celeriac_sent celeriac_worker",
)

#: Path of a module → its names → where they are here.
NAMES: dict[str, dict[str, str]] = {
    **INNER_NAMES,
    "celery": rows(
        _CANVAS,
        same("celeriac.as_celery.app", "Celery"),
        same("celeriac.as_celery.stand_ins", "current_app current_task maybe_patch_concurrency"),
        same("celeriac.as_celery.version", "SERIES VERSION VERSION_BANNER __version__ version_info"),
        same("celeriac", "bugreport"),
        same("celeriac.shared", "shared_task"),
        same("celeriac.task", "Task"),
        uuid="celeriac.sending:new_id",
    ),
    "celery.app": rows(
        same("celeriac.app_pickling", "AppPickler"),
        same("celeriac.as_celery.app", "Celery"),
        same("celeriac.as_celery.stand_ins", "default_app"),
        same("celeriac", "bugreport"),
        same("celeriac.context", "pop_current_task push_current_task"),
        same("celeriac.current", "app_or_default disable_trace enable_trace"),
        same("celeriac.shared", "shared_task"),
    ),
    "celery.app.amqp": same("celeriac.amqp", "AMQP Queues task_message"),
    "celery.app.autoretry": same("celeriac.retrying", "add_autoretry_behaviour"),
    "celery.app.backends": same("celeriac.results.names", "by_name by_url"),
    "celery.app.base": rows(
        same("celeriac.as_celery.app", "Celery"),
        same("celeriac.config_pending", "PendingConfiguration"),
        same("celeriac.modeling", "pydantic_wrapper"),
    ),
    "celery.app.builtins": same(
        "celeriac.canvas.builtins",
        "add_accumulate_task add_backend_cleanup_task add_chain_task add_chord_task add_chunk_task add_group_task",
        "add_map_task add_starmap_task add_unlock_chord_task",
    ),
    "celery.app.control": rows(
        same("celeriac.control", "Control"), same("celeriac.inspecting", "Inspect flatten_reply")
    ),
    "celery.app.defaults": rows(
        same("celeriac.setting_namespaces", "NAMESPACES find flatten"), Option="celeriac.setting_table:Setting"
    ),
    "celery.app.log": same("celeriac.log_names", "Logging TaskFormatter"),
    "celery.app.registry": same("celeriac.registry", "TaskRegistry"),
    "celery.app.task": rows(
        same("celeriac.context", "Context"), same("celeriac.task", "Task"), TaskType="builtins:type"
    ),
    "celery.app.trace": same(
        "celeriac.log",
        "LOG_FAILURE LOG_IGNORED LOG_INTERNAL_ERROR LOG_RECEIVED LOG_REJECTED LOG_RETRY LOG_SUCCESS",
    ),
    "celery.app.utils": rows(
        same("celeriac.app_pickling", "AppPickler"),
        same("celeriac.bug_report", "appstr", bugreport="bug_report"),
        same("celeriac.config", "Settings"),
        same("celeriac.config_mask", filter_hidden_settings="censor", sanitize_url="mask_url"),
        same("celeriac.loading", "find_app"),
    ),
    "celery.bin": {},
    "celery.bin.call": same("celeriac.cli.call", "call"),
    "celery.bin.celery": rows(
        same("celeriac.cli", "main"), celery="celeriac.cli.group:celeriac", report="celeriac.cli.report:report"
    ),
    "celery.bin.control": rows(
        control="celeriac.cli.control:control",
        inspect="celeriac.cli.inspect:inspect",
        status="celeriac.cli.status:status",
    ),
    "celery.bin.list": same("celeriac.cli.listing", list_="listing"),
    "celery.bin.migrate": same("celeriac.cli.migrate", "migrate"),
    "celery.bin.purge": same("celeriac.cli.purge", "purge"),
    "celery.bin.result": same("celeriac.cli.result", "result"),
    "celery.bin.worker": same("celeriac.cli.worker", "worker"),
    "celery.canvas": rows(
        _CANVAS, same("celeriac.canvas", "StampingVisitor"), maybe_subtask="celeriac.signature:maybe_signature"
    ),
    "celery.contrib": {},
    "celery.contrib.abortable": same("celeriac.contrib.abortable", "AbortableAsyncResult AbortableTask"),
    "celery.contrib.django": {},
    "celery.contrib.django.task": same("celeriac.contrib.django.task", "DjangoTask"),
    "celery.contrib.migrate": same(
        "celeriac.migrating",
        "State StopFiltering migrate_task migrate_tasks move move_by_idmap move_by_taskmap move_direct move_direct_by_id",
        "move_task_by_id republish start_filter task_id_eq task_id_in",
    ),
    "celery.contrib.pytest": _FIXTURES,
    "celery.contrib.rdb": same(
        "celeriac.contrib.rdb", "CELERY_RDB_HOST CELERY_RDB_PORT DEFAULT_PORT Rdb debugger set_trace"
    ),
    "celery.contrib.sphinx": same(
        "celeriac.contrib.sphinx", "TaskDirective TaskDocumenter autodoc_skip_member_handler setup"
    ),
    "celery.contrib.testing": {},
    "celery.contrib.testing.app": rows(
        same("celeriac.contrib.testing.app", "TestApp Trap set_trap setup_default_app"),
        same("celeriac.log_names", "UnitLogging"),
    ),
    "celery.contrib.testing.manager": same("celeriac.contrib.testing.manager", "Manager ManagerMixin Sentinel"),
    "celery.contrib.testing.mocks": same(
        "celeriac.contrib.testing.mocks", "ContextMock TaskMessage TaskMessage1 task_message_from_sig"
    ),
    "celery.contrib.testing.tasks": same("celeriac.contrib.testing.tasks", "ping"),
    "celery.contrib.testing.worker": rows(
        same("celeriac.contrib.testing.worker", "setup_app_for_worker start_worker"),
        TestWorkController="celeriac.testing.worker:EmbeddedWorker",
    ),
    "celery.exceptions": rows(_ERRORS, CeleryCommandException="celeriac.cli.problems:Failure"),
    "celery.fixups": {},
    "celery.fixups.django": rows(
        same("celeriac.contrib.django", "fixup"), same("celeriac.contrib.django.project", "DjangoFixup")
    ),
    "celery.loaders": same("celeriac.loader", "get_loader_cls"),
    "celery.loaders.app": same("celeriac.loader", AppLoader="Loader"),
    "celery.loaders.base": same("celeriac.loader", BaseLoader="Loader"),
    "celery.loaders.default": same("celeriac.loader", "DEFAULT_CONFIG_MODULE Loader"),
    "celery.local": same("celeriac.local", "PromiseProxy Proxy maybe_evaluate try_import"),
    "celery.result": rows(
        same("celeriac.result", "AsyncResult EagerResult result_from_tuple"),
        same("celeriac.group_result", "GroupResult"),
        same("celeriac.result_base", "ResultBase allow_join_result assert_will_not_block"),
        same("celeriac.result_set", "ResultSet"),
    ),
    "celery.security": same("celeriac.security", "setup_security"),
    "celery.signals": _SIGNALS,
    "celery.states": _STATES,
    "celery.utils": rows(
        same("celeriac.log_names", "LOG_LEVELS"),
        same("celeriac.node_names", "nodename nodesplit worker_direct"),
        same(
            "celeriac.objects",
            "chunks gen_task_name get_cls_by_name get_full_cls_name import_from_cwd instantiate memoize noop",
        ),
        same("celeriac.sending", gen_unique_id="new_id", uuid="new_id"),
        cached_property="functools:cached_property",
    ),
    "celery.utils.debug": same(
        "celeriac.debugging", "blockdetection cry humanbytes mem_rss memdump ps sample sample_mem"
    ),
    "celery.utils.dispatch": same("celeriac.hooks", "Signal"),
    "celery.utils.dispatch.signal": same("celeriac.hooks", "Signal"),
    "celery.utils.graph": same("celeriac.result_graph", "CycleError DependencyGraph GraphFormatter"),
    "celery.utils.log": rows(
        same("celeriac.log", "get_task_logger"),
        same(
            "celeriac.log_names",
            "ColorFormatter LOG_LEVELS LoggingProxy base_logger get_logger get_multiprocessing_logger in_sighandler mlevel",
            "reset_multiprocessing_logger set_in_sighandler",
        ),
    ),
    "celery.utils.nodenames": _NODENAMES,
    "celery.utils.time": rows(
        same(
            "celeriac.moments",
            "LocalTimezone add_seconds_to_datetime adjust_timestamp delta_resolution ffwd",
            "get_exponential_backoff_interval humanize_seconds is_naive localize make_aware maybe_iso8601",
            "maybe_make_aware maybe_timedelta remaining subtract_datetimes timezone to_utc utcoffset weekday",
        ),
        rate="celeriac.rates:parse_rate",
    ),
    "celery.worker": {},
    "celery.worker.request": same("celeriac.worker.request", "Request"),
    "celery.worker.control": same("celeriac.commands", "Panel control_command inspect_command"),
    "kombu": rows(
        same("celeriac.broker_connection", "Connection Producer"),
        same("celeriac.consumer", "Consumer"),
        same("celeriac.routing", "Exchange Queue binding"),
    ),
    "kombu.common": same("celeriac.routing", "Broadcast"),
    "kombu.compression": same("celeriac.compression", "compress decompress register"),
    "kombu.exceptions": rows(
        same(
            "celeriac.errors", "ContentDisallowed DecodeError EncodeError OperationalError", KombuError="CeleriacError"
        ),
        TimeoutError="builtins:TimeoutError",
    ),
    "kombu.serialization": same(
        "celeriac.codec",
        "disable_insecure_serializers dumps enable_insecure_serializers loads register registry unregister",
    ),
    "kombu.utils": {},
    "kombu.utils.limits": same("celeriac.token_bucket", "TokenBucket"),
    "kombu.utils.url": same("celeriac.config_mask", "safequote"),
}
