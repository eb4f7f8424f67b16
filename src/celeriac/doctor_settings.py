"""The part of `celeriac doctor` that reads settings: unknown, deprecated, dangerous ones, and such as contradict each other.

`doctor` calls it first. It looks at what is set; whether values are of the right type was checked when they were set.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from celeriac.codec import accept_types
from celeriac.config import Settings
from celeriac.config_source import meant
from celeriac.coordination.open import not_shared
from celeriac.doctor_finding import Finding, Level
from celeriac.errors import CeleriacError
from celeriac.setting_table import TABLE

if TYPE_CHECKING:
    from celeriac.app import Celeriac

__all__ = ["examine_settings"]

_PICKLE = "application/x-python-serialize"
#: Seconds of `task_lease` below which a pause of the machine is enough to lose a lease.
SHORT_LEASE = 5.0
#: Tasks that one line names.
_NAMED = 5


def examine_settings(app: Celeriac) -> Iterator[Finding]:
    """Findings about an app's settings; at least one."""
    conf = app.conf
    found = [
        *_names(conf),
        *_serializers(conf),
        *_acknowledgement(app),
        *_times(conf),
        *_results(conf),
        *_coordination(app),
    ]
    yield from found
    if all(finding.level is Level.OK for finding in found):
        yield Finding(Level.OK, "settings", f"{len(conf.changes)} set, nothing wrong with them")


def _warn(text: str, advice: str) -> Finding:
    return Finding(Level.WARN, "settings", text, advice)


def _names(conf: Settings) -> Iterator[Finding]:
    for name in conf.changes:
        row = TABLE.get(name)
        if row is None:
            yield _warn(f"{name!r} is not a setting and has no effect.{meant(str(name))}", "Correct or remove it.")
        elif row.deprecated:
            yield _warn(f"{name} is deprecated", f"Use {row.deprecated}.")


def _serializers(conf: Settings) -> Iterator[Finding]:
    try:
        accepted = accept_types(conf.accept_content)
        results = accept_types([*(conf.result_accept_content or ()), conf.result_serializer])
        sent = accept_types([conf.task_serializer])
    except CeleriacError as exc:
        yield Finding(Level.FAIL, "settings", str(exc), "Correct accept_content or the serializer.")
        return
    if not sent <= accepted:
        text = f"task_serializer {conf.task_serializer!r} is not in accept_content: workers refuse what this app sends"
        yield Finding(Level.FAIL, "settings", text, f"Add {conf.task_serializer!r} to accept_content.")
    if _PICKLE in accepted:
        text = "accept_content has pickle: who can write to the broker can run any code in the workers"
        yield _warn(text, "Use json, or keep the broker to trusted programs and sign messages (serializer auth).")
    if _PICKLE in results:
        text = "results may be pickles: who can write to the result store can run any code in its readers"
        yield _warn(text, "Use result_serializer json and leave pickle out of result_accept_content.")


def _acknowledgement(app: Celeriac) -> Iterator[Finding]:
    conf = app.conf
    if conf.task_always_eager:
        text = "task_always_eager is on: calls run in the caller and no message is sent"
        yield _warn(text, "Right for tests only. Turn it off elsewhere.")
    if not conf.task_acks_late:
        yield _warn(
            "task_acks_late is off: a task whose worker dies is lost", "Leave it on unless a task must not run twice."
        )
        if "task_reject_on_worker_lost" in conf.changes and conf.task_reject_on_worker_lost:
            text = "task_reject_on_worker_lost has no effect while task_acks_late is off: there is nothing left to give back"
            yield _warn(text, "Turn task_acks_late on.")
    else:
        early = sorted(name for name, task in app.tasks.items() if getattr(task, "acks_late", None) is False)
        if early:
            text = f"acks_late is off for {_listed(early)}: one of these whose worker dies is lost"
            yield Finding(Level.OK, "settings", text)
        if not conf.task_reject_on_worker_lost:
            text = "task_reject_on_worker_lost is off: a task whose process is killed fails instead of running again"
            yield Finding(Level.OK, "settings", text)


def _listed(names: list[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def _times(conf: Settings) -> Iterator[Finding]:
    hard, soft = conf.task_time_limit, conf.task_soft_time_limit
    if hard is not None and soft is not None and soft >= hard:
        text = f"task_soft_time_limit ({soft:g} s) is not below task_time_limit ({hard:g} s): it is never raised"
        yield _warn(text, "Lower the soft limit.")
    if conf.task_lease < SHORT_LEASE:
        text = (
            f"task_lease is {conf.task_lease:g} s: a worker that stands still for that long loses its tasks to others"
        )
        yield _warn(text, "30 s is a good value.")
    visibility = _number(conf.broker_transport_options.get("visibility_timeout"))
    if visibility is not None and visibility < conf.task_lease:
        text = f"visibility_timeout ({visibility:g} s) is shorter than task_lease ({conf.task_lease:g} s)"
        advice = "Stock Celery workers on this broker would take messages that celeriac still holds: make it longer."
        yield _warn(text, advice)


def _number(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def _results(conf: Settings) -> Iterator[Finding]:
    expires = conf.result_expires
    seconds = expires.total_seconds() if isinstance(expires, timedelta) else expires
    has_store = conf.result_backend not in (None, "disabled", "disabled://")
    if has_store and not seconds and not conf.task_ignore_result:
        yield _warn("result_expires is None: results are kept for ever", "Set it, or forget results yourself.")
    if not has_store and "task_ignore_result" not in conf.changes and "result_backend" in conf.changes:
        yield Finding(Level.OK, "settings", "result_backend is disabled: get() of a result is an error")
    if conf.task_remote_tracebacks and find_spec("tblib") is None:
        text = "task_remote_tracebacks is on and tblib is not installed: tracebacks of workers come as text"
        yield _warn(text, "pip install celeriac[tblib]")


def _coordination(app: Celeriac) -> Iterator[Finding]:
    try:
        place = app.coordination
    except CeleriacError as exc:
        yield Finding(Level.FAIL, "settings", str(exc), "Correct coordination_url.")
        return
    problem = not_shared(app.conf, place)
    if problem:
        yield _warn(problem, "Set coordination_url to a Redis or SQL server, unless all workers run on one machine.")
