"""The names of modules that Celery documents as internal, and of kombu's that nobody documents, as far as programs use them."""

from __future__ import annotations

from celeriac.as_celery.name_rows import rows, same

__all__ = ["INNER_NAMES"]

INNER_NAMES: dict[str, dict[str, str]] = {
    "celery._state": rows(
        same("celeriac.as_celery.stand_ins", "connect_on_app_finalize current_app current_task get_current_task"),
        same("celeriac.as_celery.stand_ins", "get_current_worker_task"),
        same("celeriac.current", "get_current_app set_default_app"),
    ),
    "celery.app.routes": same("celeriac.amqp", "Router"),
    "celery.backends": {},
    "celery.security.certificate": same("celeriac.security.certificate", "CertStore Certificate FSCertStore"),
    "celery.security.key": same("celeriac.security.key", "PrivateKey"),
    "celery.security.serialization": same("celeriac.security.signing", "SecureSerializer register_auth"),
    "celery.security.utils": same("celeriac.security.key", get_digest_algorithm="digest_of"),
    "celery.utils.functional": same("celeriac.objects", "chunks memoize noop"),
    "celery.utils.imports": rows(
        same("celeriac.objects", "cwd_in_path gen_task_name import_from_cwd instantiate"),
        same("celeriac.objects", qualname="get_full_cls_name", symbol_by_name="get_cls_by_name"),
    ),
    "celery.utils.iso8601": same("celeriac.moments", parse_iso8601="maybe_iso8601"),
    "celery.utils.saferepr": same("celeriac.safe_repr", "saferepr"),
    "celery.utils.serialization": same(
        "celeriac.pickling",
        "UnpickleableExceptionWrapper create_exception_cls find_pickleable_exception get_pickleable_etype",
        "get_pickleable_exception get_pickled_exception strtobool subclass_exception",
    ),
    "kombu.connection": same("celeriac.broker_connection", "Connection"),
    "kombu.entity": same("celeriac.routing", "Exchange Queue"),
    "kombu.messaging": rows(same("celeriac.broker_connection", "Producer"), same("celeriac.consumer", "Consumer")),
    "kombu.utils.json": same(
        "celeriac.codec", dumps="json_dumps", loads="json_loads", register_type="register_json_type"
    ),
    "kombu.utils.objects": same("functools", "cached_property"),
    "kombu.utils.uuid": same("celeriac.sending", uuid="new_id"),
}
