"""What makes an app that of a Django project: its class of tasks, time zone, task modules, checks; connections around tasks.

`celeriac.contrib.django.fixup` makes one for each app while DJANGO_SETTINGS_MODULE is set. Making it imports nothing of
Django: the project's settings may be what is being imported at that moment, and programs that only send tasks may never
need it. `django.setup()` is called where task modules are imported: in workers, and by `app.loader`.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any

from celeriac import signals
from celeriac.errors import ImproperlyConfigured
from celeriac.loading import import_object
from celeriac.log import get_logger
from celeriac.task import Task

if TYPE_CHECKING:
    from celeriac.app import Celeriac
    from celeriac.contrib.django.connections import Connections

__all__ = ["DjangoFixup"]

logger = get_logger("celeriac.contrib.django")

#: The base class of tasks, unless the app has one of its own.
TASK_CLASS = "celeriac.contrib.django.task:DjangoTask"
#: Pid of the process whose system checks have passed: what it starts does not repeat them.
_CHECKED_BY = "CELERIAC_DJANGO_CHECKED_BY"


class DjangoFixup:
    """The part of an app that knows Django."""

    def __init__(self, app: Celeriac) -> None:
        self.app = app
        self._is_worker = False
        if app.task_cls is Task:
            app.task_cls = TASK_CLASS
        app.add_defaults(_time_zone)
        signals.celeryd_init.connect(self.on_worker)
        signals.task_prerun.connect(self.on_task_prerun)
        signals.task_postrun.connect(self.on_task_postrun)
        signals.worker_process_shutdown.connect(self.on_worker_process_shutdown)

    # the app asks

    def autodiscover_tasks(self) -> list[str]:
        """The packages of the installed apps."""
        return [config.name for config in import_object("django.apps:apps", "autodiscover_tasks").get_app_configs()]

    def on_import_modules(self) -> None:
        """Load the project, before modules of tasks are imported; in a worker, see whether Django finds fault with it.

        Raises:
            ImproperlyConfigured: It does.
        """
        with _kept_loggers():
            import_object("django:setup", "Django")()
        if self._is_worker and not _skips_checks():
            check_project()

    def before_fork(self) -> None:
        """What importing has opened stays here: runners that shared it would talk into each other's connections."""
        self._connections.close_all()

    # receivers

    def on_worker(self, **_: Any) -> None:
        """This process is part of a worker."""
        self._is_worker = True

    def on_task_prerun(self, sender: Any, **_: Any) -> None:
        """A task starts in this thread."""
        if self._is_ours(sender):
            self._connections.before_task(sender)

    def on_task_postrun(self, sender: Any, **_: Any) -> None:
        """It has ended."""
        if self._is_ours(sender):
            self._connections.after_task(sender)

    def on_worker_process_shutdown(self, **_: Any) -> None:
        """A runner ends: take leave of the servers."""
        self._connections.close_all()

    @cached_property
    def _connections(self) -> Connections:
        made: Connections = import_object("celeriac.contrib.django.connections:Connections", "Django")(self.app)
        return made

    def _is_ours(self, task: Any) -> bool:
        """Whether to look after connections: those of a caller that runs a task eagerly are its own."""
        return task.app is self.app and not task.request.is_eager


def check_project() -> None:
    """Run Django's system checks; warnings are logged.

    Raises:
        ImproperlyConfigured: There are errors.
    """
    found = [each for each in import_object("django.core.checks:run_checks", "Django")() if not each.is_silenced()]
    errors = [_line(each) for each in found if each.is_serious()]
    if errors:
        raise ImproperlyConfigured(
            f"Django's system checks found {len(errors)} error{'s' if len(errors) > 1 else ''}: {'; '.join(errors)} "
            "(celeriac --skip-checks starts without them)"
        )
    for each in found:
        if each.level >= logging.WARNING:
            logger.warning("Django's system checks: %s", _line(each))
    os.environ[_CHECKED_BY] = str(os.getpid())


def _line(message: Any) -> str:
    where = "" if message.obj is None else f"{getattr(message.obj, '__qualname__', None) or message.obj}: "
    return " ".join(f"{where}{message.msg}{f' ({message.id})' if message.id else ''}".split())


def _skips_checks() -> bool:
    """Whether the user says so, or the process that has started this one has done it."""
    wish = os.environ.get("CELERIAC_SKIP_CHECKS") or os.environ.get("CELERY_SKIP_CHECKS") or ""
    return wish.lower() not in ("", "0", "false", "no", "off") or os.environ.get(_CHECKED_BY) == str(os.getppid())


def _time_zone() -> dict[str, Any]:
    settings = import_object("django.conf:settings", "Django")
    try:
        return {"timezone": settings.TIME_ZONE}
    except ModuleNotFoundError as exc:
        name = os.environ.get("DJANGO_SETTINGS_MODULE", "")
        if not exc.name or not f"{name}.".startswith(f"{exc.name}."):
            raise  # an import inside of the settings
        raise ImproperlyConfigured(f"DJANGO_SETTINGS_MODULE is {name!r}, and there is no module {exc.name!r}") from exc


@contextmanager
def _kept_loggers() -> Iterator[None]:
    """In this block logging may be configured: a project's LOGGING, by default, silences loggers that are there before it."""
    known = logging.root.manager.loggerDict.items()
    ours = [each for name, each in known if name.partition(".")[0] == "celeriac" and isinstance(each, logging.Logger)]
    heard = [each for each in ours if not each.disabled]
    yield
    for each in heard:
        each.disabled = False
