"""What imports an app's modules and reads its configuration, under Celery's documented names: `app.loader`.

celeriac has one way to do both, so there is one class. Programs that call it (to import the task modules without a
worker, say) work; a subclass, named by `Celeriac(loader=…)` or `loader_cls`, is told of a worker's life by what it overrides of
`on_worker_init` and the like, which signals call; what it overrides of `import_module`, `import_task_module` and
`read_configuration` is used only when it calls them itself.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from celeriac import signals
from celeriac.config import Settings, from_cmdline
from celeriac.hooks import Signal
from celeriac.loading import autodiscover, import_object
from celeriac.objects import import_from_cwd

if TYPE_CHECKING:
    from celeriac.app import Celeriac

__all__ = ["DEFAULT_CONFIG_MODULE", "Loader", "get_loader_cls"]

#: Where `Loader.read_configuration` looks if nothing is named.
DEFAULT_CONFIG_MODULE = "celeryconfig"


class Loader:
    """Imports and configures for one app."""

    builtin_modules: frozenset[str] = frozenset()
    override_backends: dict[str, str] = {}
    #: Whether `init_worker` was called.
    worker_initialized = False

    def __init__(self, app: Celeriac, **kwargs: Any) -> None:
        self.app = app
        self.task_modules: set[str] = set()

    # settings

    @property
    def conf(self) -> Settings:
        """The settings of the app."""
        return self.app.conf

    @property
    def configured(self) -> bool:
        """Whether they were read."""
        return "conf" in self.app.__dict__

    def config_from_object(self, obj: Any, silent: bool = False) -> bool:
        """Read settings from an object, a module or their path; False if there is none and `silent` says so."""
        try:
            self.app.config_from_object(obj, force=True)
        except ImportError:
            if not silent:
                raise
            return False
        return True

    def read_configuration(self, env: str = "CELERY_CONFIG_MODULE") -> dict[str, Any]:
        """The names of the module that the variable names, else of `celeryconfig`; empty if that is not there."""
        name = os.environ.get(env)
        if name is None and importlib.util.find_spec(DEFAULT_CONFIG_MODULE) is None:
            return {}
        module = import_from_cwd(name or DEFAULT_CONFIG_MODULE)
        return {key: value for key, value in vars(module).items() if not key.startswith("_")}

    def cmdline_config_parser(
        self, args: Sequence[str], namespace: str = "celery", re_type: Any = None, extra_types: Any = None,
        override_types: Any = None,
    ) -> dict[str, Any]:  # fmt: skip
        """Settings from arguments such as `worker.prefetch_multiplier=10`; types are known, nothing needs to name them."""
        return from_cmdline(args)

    # modules

    @property
    def default_modules(self) -> set[str]:
        """The modules that settings name."""
        return {*self.builtin_modules, *self.conf.imports, *self.conf.include}

    def import_default_modules(self) -> list[Any]:
        """Import what a worker imports: the modules that settings name, and what `autodiscover_tasks` asked for."""
        self.app.import_modules()
        return [importlib.import_module(module) for module in sorted(self.default_modules)]

    def import_task_module(self, module: str) -> Any:
        """Import a module of tasks."""
        self.task_modules.add(module)
        return self.import_from_cwd(module)

    def import_module(self, module: str, package: str | None = None) -> Any:
        """Import a module."""
        return importlib.import_module(module, package=package)

    def import_from_cwd(self, module: str, imp: Any = None, package: str | None = None) -> Any:
        """Import a module that may be in the working directory."""
        return import_from_cwd(module, imp or self.import_module, package)

    def find_module(self, module: str) -> Any:
        """Where a module is, without importing it; None if nowhere."""
        return importlib.util.find_spec(module)

    def autodiscover_tasks(self, packages: Iterable[str], related_name: str | None = "tasks") -> None:
        """Import `<package>.<related_name>` of each package that has it."""
        self.task_modules.update(module.__name__ for module in autodiscover(packages, related_name))

    def now(self, utc: bool = True) -> datetime:
        """The present moment, in UTC or in local time, without a zone."""
        return datetime.now(UTC).replace(tzinfo=None) if utc else datetime.now()

    # the life of a worker: what a class of your own overrides is called in the process that the signal of that moment is in

    def init_worker(self) -> None:
        """A worker begins: import the modules, and tell `on_worker_init`."""
        if not self.worker_initialized:
            self.worker_initialized = True
            self.import_default_modules()
            self.on_worker_init()

    def init_worker_process(self) -> None:
        """A runner begins: tell `on_worker_process_init`."""
        self.on_worker_process_init()

    def shutdown_worker(self) -> None:
        """A worker ends: tell `on_worker_shutdown`."""
        self.on_worker_shutdown()

    def on_worker_init(self) -> None:
        """Override: called when a worker begins (signal `worker_init`)."""

    def on_worker_process_init(self) -> None:
        """Override: called when a runner begins (signal `worker_process_init`)."""

    def on_worker_shutdown(self) -> None:
        """Override: called when a worker ends (signal `worker_shutdown`)."""

    def on_task_init(self, task_id: str, task: Any) -> None:
        """Override: called before each task (signal `task_prerun`)."""

    def on_process_cleanup(self) -> None:
        """Override: called after each task (signal `task_postrun`)."""


def listen(app: Celeriac) -> None:
    """Have the signals of a worker's life call what the app's class of loaders overrides. Called for a class of your own."""
    cls = get_loader_cls(app.loader_cls)
    calls: dict[Signal, tuple[str, Callable[..., Any]]] = {
        signals.worker_init: ("on_worker_init", lambda **_: app.loader.init_worker()),
        signals.worker_process_init: ("on_worker_process_init", lambda **_: app.loader.init_worker_process()),
        signals.worker_shutdown: ("on_worker_shutdown", lambda **_: app.loader.shutdown_worker()),
        signals.task_prerun: (
            "on_task_init", lambda sender, task_id, task, **_: task.app is app and app.loader.on_task_init(task_id, task)
        ),
        signals.task_postrun: (
            "on_process_cleanup", lambda sender, task, **_: task.app is app and app.loader.on_process_cleanup()
        ),
    }  # fmt: skip
    for signal, (hook, call) in calls.items():
        if getattr(cls, hook) is not getattr(Loader, hook):
            signal.connect(call, weak=False, dispatch_uid=(id(app), hook))


def get_loader_cls(loader: Any) -> type[Loader]:
    """The class of this name: "app" and "default" are `Loader`, another one is a path."""
    if loader in ("app", "default", None):
        return Loader
    found: type[Loader] = import_object(loader, "loader") if isinstance(loader, str) else loader
    return found
